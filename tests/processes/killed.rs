//! kill -9: another worker resumes at the last committed page, and a run that kills its process every
//! time ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use zhilian_sync::simulator::scripted::{Answer, Scripted};
use zhilian_sync_store::SyncStatus;

use crate::harness::{Stage, signal};

const PAGES: u64 = 200;
const PAGE_SIZE: u64 = 100;
const SALES: u64 = PAGES * PAGE_SIZE;
const KILLS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_survives_ten_kills_of_its_worker() {
    let Some(stage) = Stage::set().await else { return };
    let pull = stage.watched_pull(SALES, Duration::from_millis(5), 20).await;
    let mut worker = stage.start("worker");
    for kill in 0..KILLS {
        // Another moment each time: some pages further, and a few milliseconds into the page.
        let random = u64::from(rand::random::<u8>() % 12);
        pull.reaches(pull.asked() + 3 + random).await;
        assert_eq!(stage.run(pull.run).await.status, SyncStatus::Syncing, "before kill {kill}");
        worker.kill();
        worker = stage.start("worker");
    }
    let ended = stage.ended(pull.run, Duration::from_mins(3)).await;
    assert_eq!(ended.status, SyncStatus::Success, "{:?}", ended.error_message);
    assert_eq!(ended.attempt, i64::try_from(KILLS).unwrap() + 1);
    stage.everything_is_there_once(&pull, SALES).await;
    // Resumed, not begun anew: a kill costs the page in flight and the one fetched ahead, no more.
    let asked = pull.asked();
    assert!(asked <= PAGES + 3 * KILLS as u64, "{asked} pages were asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_kills_its_process_every_time_ends_as_failed() {
    let Some(stage) = Stage::set().await else { return };
    let victim = Arc::new(AtomicU32::new(0));
    let pid = Arc::clone(&victim);
    let vendor = Scripted::start_with(move |_request| {
        let pid = pid.swap(0, Ordering::SeqCst);
        if pid != 0 {
            signal(pid, "KILL");
        }
        Answer::dropped()
    })
    .await
    .unwrap();
    let api = stage.start("api");
    api.answers().await;
    let _scheduler = stage.start("scheduler");
    let system = stage.system("the murderer", &vendor.url(), None).await;
    let run = stage.pull(&system, 3).await;
    for _ in 0..3 {
        let mut worker = stage.start("worker");
        victim.store(worker.pid(), Ordering::SeqCst);
        let status = worker.ends(Duration::from_mins(1)).await;
        assert!(!status.success());
    }
    let ended = stage.ended(run, Duration::from_mins(1)).await;
    assert_eq!(ended.status, SyncStatus::Failed);
    assert_eq!(ended.error_code.as_deref(), Some("worker_died"));
    assert_eq!(ended.attempt, 3);
}
