//! What a pull notices beside its outcome: members that nobody reads, and a silence that is not usual.

use chrono::TimeDelta;
use serde_json::{Value, json};
use zhilian_sync_jobs::testing::drain;
use zhilian_sync_store::SyncStatus;
use zhilian_sync_store::sync_logs::Run;
use zhilian_sync_store::testing::noon;

use crate::harness::{KEY, list, on_every_database, page_number, sale};

fn notes(run: &Run) -> Value {
    run.notes.as_deref().map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
}

#[tokio::test]
async fn members_that_nobody_reads_are_counted_over_all_pages() {
    on_every_database(
        |request| {
            let page = page_number(request);
            let sales = (0..3).map(|n| {
                let mut sale = sale(&format!("S-{page}-{n}"), 100, noon() - TimeDelta::hours(1));
                sale["coupon"] = json!({"of": "the house"});
                sale["lines"][0]["tax"] = json!(n);
                if n == 0 {
                    sale[KEY] = json!("the vendor repeats our key");
                }
                sale
            });
            list(&sales.collect::<Vec<_>>(), page, 2)
        },
        |flow| async {
            let run = flow.pull().await;
            assert_eq!((run.status, run.records_success), (SyncStatus::Success, 6));
            assert_eq!(notes(&run), json!({"unknown_fields": {"coupon": 6, "lines.tax": 6, "***": 2}}));
            flow.vendor.push(list(&[sale("S-1", 100, noon())], 1, 1));
            let run = flow.pull().await;
            assert_eq!(run.notes, None, "everything is known");
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn of_very_many_unknown_members_fifty_are_told() {
    let mut strange = sale("S-1", 100, noon() - TimeDelta::hours(1));
    for n in 0..200 {
        strange[format!("{n:03}-{}", "长".repeat(500))] = json!(n);
    }
    on_every_database(
        move |_| list(std::slice::from_ref(&strange), 1, 1),
        |flow| async {
            let notes = notes(&flow.pull().await);
            assert_eq!(notes["unknown_fields"].as_object().unwrap().len(), 50);
            assert_eq!(notes["more_unknown_fields"], true);
            assert!(notes.to_string().len() < 50 * 400, "{notes}");
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_silence_at_a_time_that_usually_has_many_is_suspect() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            for week in 0..4 {
                let at = flow.store().clock().now();
                let sales = (0..30 + week).map(|n| sale(&format!("S-{week}-{n}"), 100, at));
                flow.vendor.push(list(&sales.collect::<Vec<_>>(), 1, 1));
                assert_eq!(notes(&flow.pull().await), Value::Null);
                flow.advance(TimeDelta::weeks(1));
            }
            let run = flow.pull().await;
            assert_eq!(run.status, SyncStatus::Success, "it may well be true");
            let suspect = notes(&run)["suspect"].as_str().unwrap().to_owned();
            assert!(suspect.starts_with("no records, the same weekday usually has about 32"), "{suspect}");

            flow.advance(TimeDelta::days(1));
            assert_eq!(flow.pull().await.notes, None, "nobody knows what is usual on this weekday");
            drain(&flow.ctx).await;
            flow
        },
    )
    .await;
}
