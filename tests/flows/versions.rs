//! A list that is read from change to change: the vendor counts its changes, and each pull begins where the last one
//! ended.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use zhilian_sync::simulator::scripted::{Answer, RecordedRequest};
use zhilian_sync_jobs::enqueue::PullParameters;
use zhilian_sync_store::SyncStatus;

use crate::harness::{Flow, with_manifest};

const MANIFEST: &str = r#"
[meta]
name = "test"
title = "Acme"
types = ["pos"]
[credentials.api_key]
label = "Key"
[auth]
kind = "none"
[probe]
stream = "transactions"
message = "ok"
[streams.transactions]
target = "pos_transactions"
request.path = "/changes"
pagination = { style = "version", version = "v", version_param = "since", size = 2, size_param = "count" }
answer.records = "changes"
mapping = { money_unit = "minor", fields = { external_id = "id", total = "total", occurred_at = { value = "2026-01-04T00:00:00Z" } } }
"#;

/// What changed, in its order: the place is the version, from 1.
#[derive(Clone, Default)]
struct Changes(Arc<Mutex<Vec<(String, i64)>>>);

impl Changes {
    fn make(&self, id: &str, total: i64) {
        self.0.lock().unwrap().push((id.to_owned(), total));
    }

    /// A record that changed again is only told as it is now.
    fn answer(&self, request: &RecordedRequest) -> Answer {
        let changes = self.0.lock().unwrap();
        let number = |name| request.query(name).unwrap().parse::<usize>().unwrap();
        let newest = |at: usize, id: &str| !changes[at + 1..].iter().any(|(later, _)| later == id);
        let told = changes.iter().enumerate().skip(number("since"));
        let told = told.filter(|(at, (id, _))| newest(*at, id)).take(number("count"));
        let told: Vec<Value> =
            told.map(|(at, (id, total))| json!({"id": id, "total": total, "v": at + 1})).collect();
        Answer::json(200, &json!({ "changes": told }))
    }
}

fn asked(flow: &Flow, since: usize) -> Vec<String> {
    flow.vendor.requests().iter().skip(since).map(|one| one.query("since").unwrap()).collect()
}

async fn totals(flow: &Flow) -> Vec<(String, i64)> {
    flow.stored().await.into_iter().map(|(id, row)| (id, row.total)).collect()
}

#[tokio::test]
async fn each_pull_begins_with_what_changed_after_the_last_one() {
    let changes = Changes::default();
    let script = changes.clone();
    with_manifest(
        MANIFEST,
        move |request| script.answer(request),
        |flow| {
            let changes = changes.clone();
            async move {
                *changes.0.lock().unwrap() = Vec::new();
                for (id, total) in [("a", 1), ("b", 2), ("c", 3)] {
                    changes.make(id, total);
                }
                let run = flow.pull().await;
                assert_eq!((run.status, run.records_total), (SyncStatus::Success, 3), "{run:?}");
                assert_eq!(asked(&flow, 0), ["0", "2"]);
                assert_eq!(totals(&flow).await, [("a".into(), 1), ("b".into(), 2), ("c".into(), 3)]);

                changes.make("a", 10);
                let since = flow.vendor.requests().len();
                let run = flow.pull().await;
                assert_eq!((run.status, run.records_total), (SyncStatus::Success, 1), "{run:?}");
                assert_eq!(asked(&flow, since), ["3"]);
                assert_eq!(totals(&flow).await[0], ("a".into(), 10));

                // Nothing new: the place stays.
                for _ in 0..2 {
                    let since = flow.vendor.requests().len();
                    assert_eq!(flow.pull().await.records_total, 0);
                    assert_eq!(asked(&flow, since), ["4"]);
                }

                let since = flow.vendor.requests().len();
                let run = flow
                    .pull_with("transactions", PullParameters { anew: true, ..PullParameters::default() })
                    .await;
                assert_eq!((run.status, run.records_total), (SyncStatus::Success, 3), "{run:?}");
                assert_eq!(asked(&flow, since), ["0", "3"]);

                let past =
                    PullParameters { from: Some(zhilian_sync_store::testing::noon()), ..Default::default() };
                let run = flow.pull_with("transactions", past).await;
                assert_eq!((run.status, run.error_code.as_deref()), (SyncStatus::Failed, Some("no_window")));
                flow
            }
        },
    )
    .await;
}
