//! 10,000 runs wait while no worker lives; then workers start, all end, and Redis is as empty as before.

use std::time::Duration;

use zhilian_sync::simulator::scripted::Scripted;
use zhilian_sync_store::SyncStatus;

use crate::harness::{Stage, page_of, until};

const RUNS: usize = 10_000;
/// What Redis may hold more than before: worker registrations, the epoch, allocator noise.
const MEMORY_SLACK_BYTES: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_waiting_runs_end_and_leave_nothing_in_redis() {
    let Some(mut stage) = Stage::set().await else {
        return;
    };
    stage.setting("QUEUE__SWEEP_SECS", "1");
    stage.setting("ENGINE__CONCURRENCY__SYNCS", "32");
    let vendor = Scripted::start_with(|request| page_of(request, 1)).await.unwrap();
    let base = stage.redis.memory().await;
    stage.tills_with_pulls(RUNS, &vendor.url()).await;
    let _scheduler = stage.start("scheduler");
    until("the scheduler has rung up to the high-water mark", Duration::from_mins(1), || async {
        stage.redis.memory().await > base + 500_000
    })
    .await;
    let mut workers = [stage.start("worker"), stage.start("worker")];
    stage.all_ended(Duration::from_secs(400)).await;
    assert_eq!(stage.count(SyncStatus::Success).await, RUNS);
    until("Redis is back at its base", Duration::from_mins(1), || async {
        stage.redis.memory().await < base + MEMORY_SLACK_BYTES
    })
    .await;
    for worker in &mut workers {
        worker.signal("TERM");
        assert!(worker.ends(Duration::from_secs(40)).await.success());
    }
}
