//! A process that stands still inside a transaction holds the row it was writing. On PostgreSQL, where
//! several processes share the rows, the server takes it away from it. And a server that falls silent keeps no
//! connection from those who come after.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use zhilian_sync_store::sync_logs::{self, NewRun};
use zhilian_sync_store::{Clock, Lane, Pool, PoolOptions, RunId, Store, Trigger, on_read, testing};

#[tokio::test]
async fn a_silent_transaction_does_not_keep_a_run_from_the_next_worker() {
    let Some(stage) = testing::postgres(Clock::fake(testing::noon())).await else { return };
    let store = &stage.store;
    let now = store.clock().now();
    let run = NewRun {
        id: RunId(store.clock().new_id()),
        system_id: None,
        kind: "upkeep",
        sync_type: "upkeep".into(),
        trigger: Trigger::Upkeep,
        lane: Lane::Upkeep,
        exclusive_key: None,
        max_attempts: 5,
        run_at: now,
        deadline_at: None,
        scheduled_for: None,
        parameters: None,
        retry_of: None,
        requested_by: None,
        rung_at: None,
    };
    let mut tx = store.begin().await.unwrap();
    assert!(sync_logs::insert(&mut tx, &run, now).await.unwrap());
    tx.commit().await.unwrap();

    // The silent one has claimed the run and stands still in the middle of writing a page.
    let options = PoolOptions { silence_timeout: Duration::from_millis(300), ..PoolOptions::default() };
    let pool = Pool::connect(&stage.url, options).await.unwrap();
    let silent = Store::new(pool, store.clock().clone(), testing::vault());
    let lease = now + TimeDelta::seconds(60);
    let claimed = sync_logs::claim(&silent, run.id, "silent", lease).await.unwrap().unwrap();
    let mut page = silent.begin().await.unwrap();
    sync_logs::fence(&mut page, claimed.claim(), lease, now).await.unwrap();

    store.clock().advance(TimeDelta::seconds(61));
    let later = store.clock().now();
    let next = sync_logs::claim(store, run.id, "next", later + TimeDelta::seconds(60)).await.unwrap();
    assert_eq!(next.unwrap().worker.as_deref(), Some("next"));
    let wakes = sync_logs::fence(&mut page, claimed.claim(), lease, later).await;
    assert!(wakes.is_err(), "its transaction is gone");
}

#[tokio::test]
async fn a_statement_that_nobody_waits_for_gives_its_connection_up() {
    let Some(stage) = testing::postgres(Clock::fake(testing::noon())).await else { return };
    let store = stage.store.apart(1, Duration::from_secs(1));
    let asked = Instant::now();
    let slow = async {
        let slept: Result<(), sqlx::Error> =
            on_read!(store, |ex| sqlx::query("SELECT pg_sleep(20)").execute(ex).await.map(drop));
        slept
    };
    assert!(tokio::time::timeout(Duration::from_millis(100), slow).await.is_err());
    // The only place is free again, though the server still sleeps.
    store.check().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}
