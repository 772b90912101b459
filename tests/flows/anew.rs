//! Everything read once more, and what live clients hear of a long pull.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use zhilian_sync::simulator::scripted::Answer;
use zhilian_sync_jobs::enqueue::{self, Enqueued, PullParameters, Wish};
use zhilian_sync_jobs::testing::drain;
use zhilian_sync_store::testing::noon;
use zhilian_sync_store::{Clock, StoreError, SyncStatus, Trigger, events, sync_cursors, sync_logs};

use crate::harness::{Flow, list, on_every_database, page_number, sale, time};

fn anew(flow: &Flow) -> Wish {
    let parameters = PullParameters { anew: true, ..PullParameters::default() };
    Wish { trigger: parameters.trigger(), parameters, ..Wish::pull(flow.system.id, "transactions", None) }
}

async fn watermark(flow: &Flow) -> DateTime<Utc> {
    let cursor = sync_cursors::find(flow.store(), flow.system.id, "transactions", "").await.unwrap();
    cursor.unwrap().watermark.unwrap()
}

#[tokio::test]
async fn everything_is_read_from_the_beginning_and_the_watermark_waits_for_the_end() {
    on_every_database(
        |request| list(&[], page_number(request), 2),
        |flow| async {
            flow.pull_to_its_end().await;
            flow.advance(TimeDelta::days(3));
            flow.pull_to_its_end().await;
            let before = watermark(&flow).await;
            flow.advance(TimeDelta::days(1));
            let asked = flow.vendor.requests().len();
            flow.vendor.push(list(&[sale("S-1", 1, noon())], 1, 2));
            flow.vendor.push(Answer::status(500));
            let id = flow.wish(&anew(&flow)).await;
            drain(&flow.ctx).await;
            assert_eq!(flow.run(id).await.status, SyncStatus::Pending, "its second page failed");
            assert_eq!(watermark(&flow).await, before, "a run that is not through moves nothing");
            let first = time(&flow.vendor.requests()[asked], "updated_since").unwrap();
            assert_eq!(first, flow.system.created_at - TimeDelta::days(30), "not where the watermark is");

            // A person who wants something else is told of it, and a webhook's wish is not lost.
            let normal = Wish::pull(flow.system.id, "transactions", None);
            let refused = enqueue::start(&flow.ctx, &normal).await;
            assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
            let told = Wish::told(flow.system.id, "transactions", TimeDelta::zero());
            assert_eq!(enqueue::start(&flow.ctx, &told).await.unwrap(), Enqueued::Again(id));

            flow.advance(TimeDelta::minutes(10));
            drain(&flow.ctx).await;
            assert_eq!(flow.run(id).await.status, SyncStatus::Success);
            assert!(watermark(&flow).await > before + TimeDelta::hours(23));
            flow.advance(TimeDelta::minutes(1));
            drain(&flow.ctx).await;
            let filter =
                sync_logs::Filter { system_id: Some(flow.system.id), limit: 1, ..Default::default() };
            let next = sync_logs::list(flow.store(), &filter).await.unwrap().remove(0);
            assert_eq!((next.retry_of, next.parameters), (Some(id), None), "its successor reads what is new");
            assert_eq!(flow.run(id).await.trigger, Trigger::Backfill);
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_long_pull_is_heard_of_every_five_seconds_at_most() {
    let clock: Arc<Mutex<Option<Clock>>> = Arc::default();
    let vendors = clock.clone();
    on_every_database(
        move |request| {
            // Every page takes two seconds.
            if let Some(clock) = &*vendors.lock().unwrap() {
                clock.advance(TimeDelta::seconds(2));
            }
            let page = page_number(request);
            list(&[sale(&format!("S-{page}"), 1, noon() - TimeDelta::hours(1))], page, 12)
        },
        |flow| {
            let clock = clock.clone();
            async move {
                *clock.lock().unwrap() = Some(flow.store().clock().clone());
                let run = flow.pull_to_its_end().await;
                assert_eq!(run.records_total, 12);
                while events::place(flow.store()).await.unwrap() > 0 {}
                let heard = events::list_after(flow.store(), 0, 100).await.unwrap();
                let of: Vec<_> = heard.iter().filter(|event| event.run_id == Some(run.id)).collect();
                let kinds: Vec<&str> = of.iter().map(|event| event.kind.as_str()).collect();
                let progressed = kinds.len() - 2;
                assert_eq!((kinds[0], kinds[progressed + 1]), ("run.started", "run.ended"));
                assert!((2..=5).contains(&progressed), "{kinds:?}");
                assert!(kinds[1..=progressed].iter().all(|kind| *kind == "run.progressed"), "{kinds:?}");
                for pair in of[..=progressed].windows(2) {
                    // It is written while the next page is on its way.
                    assert!(pair[1].created_at - pair[0].created_at >= TimeDelta::seconds(3), "{of:?}");
                }
                flow
            }
        },
    )
    .await;
}
