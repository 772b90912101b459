//! A worker that stands still past its lease, then goes on, and a worker that is asked to stop.

use std::time::Duration;

use zhilian_sync_store::SyncStatus;

use crate::harness::{Stage, until};

const SALES: u64 = 4_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stopped_past_its_lease_writes_nothing_when_it_goes_on() {
    let Some(stage) = Stage::set().await else { return };
    let pull = stage.watched_pull(SALES, Duration::from_millis(40), 5).await;
    let sleeper = stage.start("worker");
    pull.reaches(5).await;
    sleeper.signal("STOP");
    let before = stage.run(pull.run).await;
    let _other = stage.start("worker");
    let ended = stage.ended(pull.run, Duration::from_mins(2)).await;
    assert_eq!(ended.status, SyncStatus::Success, "{:?}", ended.error_message);
    assert!(ended.claim_no > before.claim_no);
    sleeper.signal("CONT");
    until("the sleeper has noticed", Duration::from_mins(1), || async {
        let log = sleeper.log_text();
        log.contains("the claim is gone")
            || log.contains("the lease is over")
            || log.contains("not ours any more")
    })
    .await;
    let after = stage.run(pull.run).await;
    assert_eq!(after.updated_at, ended.updated_at, "the row was written after its end");
    assert_eq!((after.claim_no, after.status), (ended.claim_no, ended.status));
    stage.everything_is_there_once(&pull, SALES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_asked_to_stop_gives_its_attempt_back() {
    let Some(stage) = Stage::set().await else { return };
    let pull = stage.watched_pull(SALES, Duration::from_millis(40), 5).await;
    for (name, pages) in [("TERM", 5), ("INT", 10)] {
        let mut worker = stage.start("worker");
        pull.reaches(pages).await;
        worker.signal(name);
        assert!(worker.ends(Duration::from_secs(40)).await.success(), "after SIG{name}");
        let row = stage.run(pull.run).await;
        assert_eq!((row.status, row.attempt), (SyncStatus::Pending, 0), "after SIG{name}");
    }
    let _worker = stage.start("worker");
    let ended = stage.ended(pull.run, Duration::from_mins(2)).await;
    assert_eq!((ended.status, ended.attempt), (SyncStatus::Success, 1));
    stage.everything_is_there_once(&pull, SALES).await;
}
