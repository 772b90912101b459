//! The life of a run: joined wishes, conflicts, cancelling, lost claims, postponements, leases.

use chrono::TimeDelta;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use zhilian_sync::simulator::scripted::Answer;
use zhilian_sync_jobs::enqueue::{self, Enqueued, PullParameters, Wish};
use zhilian_sync_jobs::{testing::drain, worker};
use zhilian_sync_store::testing::noon;
use zhilian_sync_store::{StoreError, SyncStatus, sync_logs};

use crate::harness::{list, on_every_database, page_number, sale};

#[tokio::test]
async fn two_wishes_for_one_stream_are_one_run() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            let wish = Wish::pull(flow.system.id, "transactions", None);
            let first = enqueue::start(&flow.ctx, &wish).await.unwrap();
            let second = enqueue::start(&flow.ctx, &wish).await.unwrap();
            let Enqueued::New(id) = first else { panic!("{first:?}") };
            assert_eq!(second, Enqueued::Hurried(id));
            drain(&flow.ctx).await;
            assert_eq!(flow.vendor.requests().len(), 1);
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_wish_for_a_syncing_run_runs_it_once_more() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            let wish = Wish::pull(flow.system.id, "transactions", None);
            let id = flow.wish(&wish).await;
            // A worker elsewhere has it.
            let lease = flow.store().clock().now() + TimeDelta::seconds(60);
            let run = sync_logs::claim(flow.store(), id, "elsewhere", lease).await.unwrap().unwrap();
            for _ in 0..3 {
                assert_eq!(enqueue::start(&flow.ctx, &wish).await.unwrap(), Enqueued::Again(id));
            }
            assert!(flow.run(id).await.again);
            // It falls silent; whoever goes on with it also does what was asked meanwhile, once.
            flow.advance(TimeDelta::seconds(61));
            drain(&flow.ctx).await;
            assert!(flow.run(id).await.claim_no > run.claim_no);
            // After the lag of the stream: what the wish was about is in its window then.
            flow.advance(TimeDelta::seconds(10));
            drain(&flow.ctx).await;
            let filter =
                sync_logs::Filter { system_id: Some(flow.system.id), limit: 10, ..Default::default() };
            let runs = sync_logs::list(flow.store(), &filter).await.unwrap();
            let successors: Vec<_> = runs.iter().filter(|run| run.id != id).collect();
            assert_eq!(successors.len(), 1, "{successors:?}");
            assert_eq!((successors[0].status, successors[0].retry_of), (SyncStatus::Success, Some(id)));
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_wish_with_other_parameters_is_a_conflict_that_names_the_run() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            let id = flow.wish(&Wish::pull(flow.system.id, "transactions", None)).await;
            let mut odd = Wish::pull(flow.system.id, "transactions", None);
            odd.parameters = PullParameters { from: Some(noon()), ..PullParameters::default() };
            // A range has a key of its own and runs beside the normal pull.
            assert!(matches!(enqueue::start(&flow.ctx, &odd).await.unwrap(), Enqueued::New(_)));
            let active = flow.run(id).await;
            assert_eq!(active.status, SyncStatus::Pending);
            drain(&flow.ctx).await;
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_backfill_reads_its_range_and_leaves_the_watermark() {
    on_every_database(
        |_| list(&[sale("S-1", 5, noon() - TimeDelta::days(90))], 1, 1),
        |flow| async {
            let (from, to) = (noon() - TimeDelta::days(100), noon() - TimeDelta::days(80));
            let mut wish = Wish::pull(flow.system.id, "transactions", None);
            wish.parameters = PullParameters { from: Some(from), to: Some(to), anew: false };
            let id = flow.wish(&wish).await;
            drain(&flow.ctx).await;
            assert_eq!(flow.run(id).await.status, SyncStatus::Success);
            let request = &flow.vendor.requests()[0];
            assert_eq!(crate::harness::time(request, "updated_since"), Some(from));
            assert_eq!(
                crate::harness::time(request, "updated_before"),
                None,
                "the till is not asked for an end"
            );
            assert_eq!(flow.stored().await.len(), 1);
            let cursor =
                zhilian_sync_store::sync_cursors::find(flow.store(), flow.system.id, "transactions", "")
                    .await
                    .unwrap();
            assert_eq!(cursor, None);
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_cancelled_run_is_not_taken_up() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            let id = flow.wish(&Wish::pull(flow.system.id, "transactions", None)).await;
            let mut tx = flow.store().begin().await.unwrap();
            let now = flow.store().clock().now();
            sync_logs::cancel(&mut tx, id, "not wanted", now).await.unwrap().unwrap();
            tx.commit().await.unwrap();
            worker::handle(&flow.ctx, &CancellationToken::new(), id).await;
            assert_eq!(flow.run(id).await.status, SyncStatus::Cancelled);
            assert!(flow.vendor.requests().is_empty());
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_worker_that_lost_its_claim_writes_nothing() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            let id = flow.wish(&Wish::pull(flow.system.id, "transactions", None)).await;
            let now = flow.store().clock().now();
            let lease = now + TimeDelta::seconds(60);
            let slow = sync_logs::claim(flow.store(), id, "slow", lease).await.unwrap().unwrap();
            assert!(
                sync_logs::claim(flow.store(), id, "quick", lease).await.unwrap().is_none(),
                "a claim holds for as long as its lease"
            );
            flow.advance(TimeDelta::seconds(61));
            let now = flow.store().clock().now();
            let quick =
                sync_logs::claim(flow.store(), id, "quick", now + TimeDelta::seconds(60)).await.unwrap();
            let quick = quick.unwrap();
            let mut tx = flow.store().begin().await.unwrap();
            let fenced = sync_logs::fence(&mut tx, slow.claim(), lease, now).await;
            assert!(matches!(fenced, Err(StoreError::ClaimLost(lost)) if lost == id), "{fenced:?}");
            drop(tx);
            let mut tx = flow.store().begin().await.unwrap();
            let ended =
                sync_logs::finish(&mut tx, &slow, SyncStatus::Success, &sync_logs::Ending::default(), now)
                    .await;
            assert!(matches!(ended, Err(StoreError::ClaimLost(_))));
            drop(tx);
            let mut tx = flow.store().begin().await.unwrap();
            sync_logs::give_back(&mut tx, quick.claim(), now, &sync_logs::Ending::default(), now)
                .await
                .unwrap();
            tx.commit().await.unwrap();
            drain(&flow.ctx).await;
            let run = flow.run(id).await;
            assert_eq!((run.status, run.claim_no), (SyncStatus::Success, 3));
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_run_goes_on_from_its_last_committed_page() {
    on_every_database(
        |request| {
            let page = page_number(request);
            list(&[sale(&format!("S-{page}"), 1, noon() - TimeDelta::hours(1))], page, 4)
        },
        |flow| async {
            for page in 1..=2 {
                flow.vendor.push(list(
                    &[sale(&format!("S-{page}"), 1, noon() - TimeDelta::hours(1))],
                    page,
                    4,
                ));
            }
            flow.vendor.push(Answer::status(500));
            let run = flow.pull().await;
            assert_eq!((run.status, run.records_total), (SyncStatus::Pending, 2));
            let ended = flow.pull_to_its_end().await;
            assert_eq!((ended.status, ended.records_total), (SyncStatus::Success, 4));
            assert_eq!(flow.stored().await.len(), 4);
            let pages: Vec<u64> = flow.vendor.requests().iter().map(page_number).collect();
            assert_eq!(pages, [1, 2, 3, 3, 4], "pages one and two were asked for once");
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_stale_position_begins_its_window_anew() {
    on_every_database(
        |request| {
            let page = page_number(request);
            list(&[sale(&format!("S-{page}"), 1, noon() - TimeDelta::hours(1))], page, 3)
        },
        |flow| async {
            flow.vendor.push(list(&[sale("S-1", 1, noon() - TimeDelta::hours(1))], 1, 3));
            flow.vendor.push(Answer::status(500));
            let run = flow.pull().await;
            assert_eq!((run.status, run.records_total), (SyncStatus::Pending, 1));
            flow.advance(TimeDelta::days(2));
            let ended = flow.pull_to_its_end().await;
            assert_eq!((ended.status, ended.records_total), (SyncStatus::Success, 3), "counts begin anew");
            let pages: Vec<u64> = flow.vendor.requests().iter().map(page_number).collect();
            assert_eq!(pages, [1, 2, 1, 2, 3]);
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_system_that_is_deleted_ends_its_runs() {
    on_every_database(
        |_| Answer::json(200, &json!({})),
        |flow| async {
            let id = flow.wish(&Wish::pull(flow.system.id, "transactions", None)).await;
            let now = flow.store().clock().now();
            let mut tx = flow.store().begin().await.unwrap();
            sync_logs::cancel_all_of(&mut tx, flow.system.id, "the system was deleted", now).await.unwrap();
            zhilian_sync_store::external_systems::delete(&mut tx, &flow.system, now).await.unwrap();
            tx.commit().await.unwrap();
            drain(&flow.ctx).await;
            assert_eq!(flow.run(id).await.status, SyncStatus::Cancelled);
            assert!(flow.vendor.requests().is_empty());
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_long_pull_yields_after_its_turn_and_keeps_its_attempt() {
    on_every_database(
        |request| {
            let page = page_number(request);
            list(&[sale(&format!("S-{page}"), 1, noon() - TimeDelta::hours(1))], page, 5)
        },
        |mut flow| async {
            std::sync::Arc::make_mut(&mut flow.ctx.engine).turn_secs = 0;
            let id = flow.wish(&Wish::pull(flow.system.id, "transactions", None)).await;
            worker::handle(&flow.ctx, &CancellationToken::new(), id).await;
            let run = flow.run(id).await;
            assert_eq!((run.status, run.attempt, run.records_total), (SyncStatus::Pending, 0, 1));
            drain(&flow.ctx).await;
            let run = flow.run(id).await;
            assert_eq!((run.status, run.attempt, run.records_total), (SyncStatus::Success, 1, 5));
            assert_eq!(run.claim_no, 5, "a turn a page");
            let pages: Vec<u64> = flow.vendor.requests().iter().map(page_number).collect();
            assert_eq!(pages, [1, 2, 3, 4, 5], "no page was asked for twice");
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_spent_budget_postpones_and_gives_the_attempt_back_until_the_deadline() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            // The vendor said 429 to somebody else who shares the budget.
            flow.vendor.push(Answer::status(429).header("retry-after", "600"));
            let other = crate::harness::till(flow.store(), "the neighbour", &flow.vendor.url());
            crate::harness::insert(flow.store(), &other).await;
            flow.wish(&Wish::pull(other.id, "transactions", None)).await;
            drain(&flow.ctx).await;
            let run = flow.pull().await;
            assert_eq!((run.status, run.attempt), (SyncStatus::Pending, 0), "{run:?}");
            assert!(run.run_at > flow.store().clock().now() + TimeDelta::seconds(500), "{}", run.run_at);
            assert_eq!(flow.vendor.requests().len(), 1, "nobody asks while the budget is spent");
            flow.advance(TimeDelta::seconds(700));
            let run = flow.pull_to_its_end().await;
            assert_eq!((run.status, run.attempt), (SyncStatus::Success, 1));
            flow
        },
    )
    .await;
}
