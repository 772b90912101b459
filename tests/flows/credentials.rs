//! A vendor that refuses us, a connection test's words, and what a test does to its system.

use serde_json::json;
use zhilian_sync::simulator::scripted::Answer;
use zhilian_sync_jobs::enqueue::Wish;
use zhilian_sync_jobs::kinds::connection_test;
use zhilian_sync_store::{SyncStatus, SystemStatus};

use crate::harness::{KEY, insert, list, on_every_database, till};

#[tokio::test]
async fn a_refused_key_is_not_tried_again_and_puts_the_system_in_error() {
    on_every_database(
        |_| Answer::json(401, &json!({"code": 401, "message": "who are you"})),
        |flow| async {
            let run = flow.pull().await;
            assert_eq!((run.status, run.attempt), (SyncStatus::Failed, 1));
            assert_eq!(flow.vendor.requests().len(), 1, "no retries");
            let system = flow.system().await;
            assert_eq!(system.status, SystemStatus::Error);
            assert_eq!(system.last_error, run.error_message);
            assert!(system.last_error.unwrap().contains("does not accept the key"));
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_success_brings_a_system_in_error_back() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            flow.vendor.push(Answer::status(403));
            flow.pull().await;
            assert_eq!(flow.system().await.status, SystemStatus::Error);
            let run = flow.pull().await;
            assert_eq!(run.status, SyncStatus::Success);
            let system = flow.system().await;
            assert_eq!((system.status, system.consecutive_failures), (SystemStatus::Active, 0));
            assert_eq!(system.last_error, None);
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_test_that_succeeds_makes_a_new_system_active() {
    on_every_database(
        |_| Answer::json(200, &json!({"code": 0, "data": {"shop_name": "Noodle House"}})),
        |mut flow| async {
            let mut fresh = till(flow.store(), "a new till", &flow.vendor.url());
            fresh.status = SystemStatus::Inactive;
            insert(flow.store(), &fresh).await;
            flow.system = fresh;
            let run = flow.test_connection().await;
            assert_eq!(run.status, SyncStatus::Success);
            assert!(connection_test::message(&run).unwrap().contains("Noodle House"));
            assert_eq!(flow.system().await.status, SystemStatus::Active);
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_test_that_fails_says_why_and_is_not_repeated() {
    on_every_database(
        |_| Answer::status(500),
        |flow| async {
            let run = flow.test_connection().await;
            assert_eq!((run.status, run.attempt), (SyncStatus::Failed, 1));
            let system = flow.system().await;
            assert_eq!((system.status, system.consecutive_failures), (SystemStatus::Active, 1));
            assert!(system.last_error.unwrap().contains("500"));
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn many_failures_in_a_row_trip_the_breaker() {
    on_every_database(
        |_| Answer::status(404),
        |flow| async {
            let limit = flow.ctx.engine.breaker_failures;
            for failed in 1..=limit {
                assert_eq!(flow.system().await.status, SystemStatus::Active, "after {} failures", failed - 1);
                assert_eq!(flow.pull().await.status, SyncStatus::Failed);
            }
            assert_eq!(flow.system().await.status, SystemStatus::Error);
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn the_key_is_sent_and_found_nowhere_in_the_row() {
    on_every_database(
        |request| {
            // A vendor that repeats the key in its error.
            let key = request.header("x-api-key").unwrap_or_default().to_owned();
            Answer::json(400, &json!({"code": 400, "message": format!("bad request with key {key}")}))
        },
        |flow| async {
            let id = flow.wish(&Wish::pull(flow.system.id, "transactions", None)).await;
            zhilian_sync_jobs::testing::drain(&flow.ctx).await;
            assert_eq!(flow.vendor.requests()[0].header("x-api-key"), Some(KEY));
            let run = flow.run(id).await;
            assert_eq!(run.status, SyncStatus::Failed);
            assert!(!format!("{run:?}").contains(KEY), "{run:?}");
            assert!(!format!("{:?}", flow.system().await).contains(KEY));
            flow
        },
    )
    .await;
}
