//! A worker that stands still past its lease, then goes on, and a worker that is asked to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zhilian_sync::simulator::scripted::Scripted;
use zhilian_sync_store::{SyncStatus, pos_transactions};

use crate::harness::{Stage, page_of, until};

const SALES: u64 = 4_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stopped_past_its_lease_writes_nothing_when_it_goes_on() {
    let Some(stage) = Stage::set().await else { return };
    let asked = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&asked);
    let vendor = Scripted::start_with(move |request| {
        counter.fetch_add(1, Ordering::SeqCst);
        page_of(request, SALES).delay(Duration::from_millis(40))
    })
    .await
    .unwrap();
    let api = stage.start("api");
    api.answers().await;
    let _scheduler = stage.start("scheduler");
    let system = stage.system("the till", &vendor.url(), None).await;
    let run = stage.pull(&system, 5).await;
    let sleeper = stage.start("worker");
    until("the pull is under way", Duration::from_mins(1), || async { asked.load(Ordering::SeqCst) >= 5 })
        .await;
    sleeper.signal("STOP");
    let before = stage.run(run).await;
    let _other = stage.start("worker");
    let ended = stage.ended(run, Duration::from_mins(2)).await;
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
    let after = stage.run(run).await;
    assert_eq!(after.updated_at, ended.updated_at, "the row was written after its end");
    assert_eq!((after.claim_no, after.status), (ended.claim_no, ended.status));
    assert_eq!(after.records_total, i64::try_from(SALES).unwrap());
    let tally = pos_transactions::tally(&stage.store, system.id).await.unwrap();
    assert_eq!(tally.count, i64::try_from(SALES).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_asked_to_stop_gives_its_attempt_back() {
    let Some(stage) = Stage::set().await else { return };
    let asked = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&asked);
    let vendor = Scripted::start_with(move |request| {
        counter.fetch_add(1, Ordering::SeqCst);
        page_of(request, SALES).delay(Duration::from_millis(40))
    })
    .await
    .unwrap();
    let api = stage.start("api");
    api.answers().await;
    let _scheduler = stage.start("scheduler");
    let system = stage.system("the till", &vendor.url(), None).await;
    let run = stage.pull(&system, 5).await;
    for (name, pages) in [("TERM", 5), ("INT", 10)] {
        let mut worker = stage.start("worker");
        until("the pull is under way", Duration::from_mins(1), || async {
            asked.load(Ordering::SeqCst) >= pages
        })
        .await;
        worker.signal(name);
        assert!(worker.ends(Duration::from_secs(40)).await.success(), "after SIG{name}");
        let row = stage.run(run).await;
        assert_eq!((row.status, row.attempt), (SyncStatus::Pending, 0), "after SIG{name}");
    }
    let _worker = stage.start("worker");
    let ended = stage.ended(run, Duration::from_mins(2)).await;
    assert_eq!((ended.status, ended.attempt), (SyncStatus::Success, 1));
    assert_eq!(ended.records_total, i64::try_from(SALES).unwrap());
}
