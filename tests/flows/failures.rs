//! Records that failed, tried again: what can be mapped now is stored and resolved, what cannot stays open with
//! the reason of today, and nothing newer is overwritten.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use zhilian_sync_jobs::enqueue::Wish;
use zhilian_sync_jobs::testing::drain;
use zhilian_sync_store::sync_failures::{self, Failing, FailureStage, NewFailure, SyncFailure};
use zhilian_sync_store::sync_logs::{self, Run};
use zhilian_sync_store::testing::noon;
use zhilian_sync_store::{RunId, SyncStatus};

use crate::harness::{Flow, list, on_every_database, sale};

/// Keeps records as failures of a stream, as if the manifest of that day had not known what they mean.
async fn keep(flow: &Flow, stream: &str, records: Vec<(String, Value)>) {
    let failures = records.into_iter().map(|(external_id, raw)| NewFailure {
        external_id,
        stage: FailureStage::Mapping,
        reason: "`kind`: the word has no meaning in the manifest".into(),
        raw: raw.to_string(),
    });
    let failures = failures.collect();
    let mut tx = flow.store().begin().await.unwrap();
    let of = Failing { system_id: flow.system.id, stream, sync_log_id: None };
    sync_failures::record_batch(&mut tx, flow.store().clock(), of, failures).await.unwrap();
    tx.commit().await.unwrap();
}

async fn keep_sale(flow: &Flow, id: &str, raw: Value) {
    keep(flow, "transactions", vec![(id.to_owned(), raw)]).await;
}

/// Wishes that what failed be tried again, and runs what is due.
async fn retry(flow: &Flow, stream: Option<&str>) -> Run {
    let id = flow.wish(&Wish::retry_failures(flow.system.id, stream, None)).await;
    drain(&flow.ctx).await;
    flow.run(id).await
}

/// Every failure of the till, by the record's id.
async fn failures(flow: &Flow) -> std::collections::BTreeMap<String, SyncFailure> {
    let filter = sync_failures::Filter { system_id: Some(flow.system.id), limit: 500, ..Default::default() };
    let rows = sync_failures::list(flow.store(), &filter).await.unwrap();
    rows.into_iter().map(|row| (row.external_id.clone(), row)).collect()
}

fn counts(run: &Run) -> (i64, i64, i64, i64) {
    (run.records_total, run.records_success, run.records_failed, run.records_skipped)
}

fn before(minutes: i64) -> DateTime<Utc> {
    noon() - TimeDelta::minutes(minutes)
}

#[tokio::test]
async fn what_can_be_mapped_now_is_stored_and_the_others_stay_open() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            keep_sale(&flow, "S-1", sale("S-1", 1_250, before(60))).await;
            let mut fraction = sale("S-2", 400, before(60));
            fraction["total_fen"] = json!(12.5);
            keep_sale(&flow, "S-2", fraction).await;
            // One that had no id which could be read is known by it now.
            keep_sale(&flow, "hash:5f", sale("S-3", 300, before(60))).await;
            keep(&flow, "shifts", vec![("1".to_owned(), json!({"shift": 1}))]).await;
            let failed_at = flow.store().clock().now();
            flow.advance(TimeDelta::hours(1));

            let run = retry(&flow, None).await;
            assert_eq!((run.kind.as_str(), run.status), ("retry_failures", SyncStatus::Partial));
            assert_eq!(counts(&run), (4, 2, 2, 0));
            let stored = flow.stored().await;
            assert_eq!(stored.keys().collect::<Vec<_>>(), ["S-1", "S-3"]);
            assert_eq!((stored["S-1"].total, stored["S-1"].sync_log_id), (1_250, Some(run.id)));
            assert_eq!(stored["S-1"].observed_at, failed_at, "it was heard of when it failed");
            let failures = failures(&flow).await;
            let resolved_at = Some(failed_at + TimeDelta::hours(1));
            assert_eq!(failures["S-1"].resolved_at, resolved_at);
            assert_eq!(failures["hash:5f"].resolved_at, resolved_at);
            let (fraction, shift) = (&failures["S-2"], &failures["1"]);
            assert!(fraction.reason.contains("total"), "{}", fraction.reason);
            assert!(shift.reason.contains("no stream `shifts`"), "{}", shift.reason);
            for open in [fraction, shift] {
                assert_eq!((open.resolved_at, open.occurrences), (None, 1));
                assert_eq!(open.updated_at, failed_at, "nothing was heard of it since");
            }

            let again = retry(&flow, None).await;
            assert_eq!(counts(&again), (2, 0, 2, 0), "what is resolved is not tried again");
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_failure_that_is_tried_again_overwrites_nothing_newer() {
    on_every_database(
        |_| list(&[sale("S-1", 2_000, before(10))], 1, 1),
        |flow| async {
            let mut unversioned = sale("S-2", 100, before(90));
            unversioned.as_object_mut().unwrap().remove("updated_at");
            keep_sale(&flow, "S-1-told-under-another-name", sale("S-1", 1_000, before(60))).await;
            keep_sale(&flow, "S-2", unversioned.clone()).await;
            flow.advance(TimeDelta::hours(1));
            unversioned["total_fen"] = json!(900);
            flow.vendor.push(list(&[sale("S-1", 2_000, before(10)), unversioned], 1, 1));
            assert_eq!(flow.pull().await.status, SyncStatus::Success);
            // The pull has resolved the second; it fails again under a name of its own.
            flow.advance(TimeDelta::hours(1));
            let run = retry(&flow, Some("transactions")).await;
            assert_eq!((run.status, counts(&run)), (SyncStatus::Success, (1, 1, 0, 0)));
            let stored = flow.stored().await;
            assert_eq!((stored["S-1"].total, stored["S-2"].total), (2_000, 900));
            assert!(failures(&flow).await.values().all(|failure| failure.resolved_at.is_some()));
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_record_without_a_version_is_as_old_as_its_failure() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            let unversioned = |total: i64| {
                let mut sale = sale("S-1", total, before(90));
                sale.as_object_mut().unwrap().remove("updated_at");
                sale
            };
            keep_sale(&flow, "an-older-name", unversioned(100)).await;
            flow.advance(TimeDelta::hours(1));
            flow.vendor.push(list(&[unversioned(900)], 1, 1));
            assert_eq!(flow.pull().await.records_success, 1);
            assert_eq!(counts(&retry(&flow, None).await), (1, 1, 0, 0));
            assert_eq!(flow.stored().await["S-1"].total, 900, "the pull heard of it later");
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn many_failures_are_tried_in_bites_and_all_are_counted() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            let sales = (0..230).map(|n| (format!("S-{n}"), sale(&format!("S-{n}"), n, before(60))));
            keep(&flow, "transactions", sales.collect()).await;
            let run = retry(&flow, Some("transactions")).await;
            assert_eq!((run.status, counts(&run)), (SyncStatus::Success, (230, 230, 0, 0)));
            assert_eq!(run.sync_type, "transactions");
            assert_eq!(flow.stored().await.len(), 230);
            assert_eq!(sync_failures::count_open(flow.store(), flow.system.id).await.unwrap(), 0);
            flow
        },
    )
    .await;
}

/// Cancels a run as a person does.
async fn cancel(flow: &Flow, run: RunId) {
    let mut tx = flow.store().begin().await.unwrap();
    let now = flow.store().clock().now();
    assert!(sync_logs::cancel(&mut tx, run, "cancelled by `li.lei`", now).await.unwrap().is_some());
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_cancelled_retry_leaves_what_it_has_not_come_to() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            keep_sale(&flow, "S-1", sale("S-1", 1, before(60))).await;
            keep(&flow, "shifts", vec![("1".to_owned(), json!({}))]).await;
            let all = Wish::retry_failures(flow.system.id, None, None);
            let id = flow.wish(&all).await;
            assert_eq!(flow.wish(&all).await, id, "one wish for all is under way at a time");
            let one = flow.wish(&Wish::retry_failures(flow.system.id, Some("shifts"), None)).await;
            assert_ne!(one, id, "one stream is a wish of its own");
            cancel(&flow, id).await;
            drain(&flow.ctx).await;
            assert_eq!(flow.run(id).await.status, SyncStatus::Cancelled);
            assert_eq!(counts(&flow.run(one).await), (1, 0, 1, 0));
            assert!(flow.stored().await.is_empty());
            assert_eq!(failures(&flow).await["S-1"].resolved_at, None);
            flow
        },
    )
    .await;
}
