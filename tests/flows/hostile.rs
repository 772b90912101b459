//! Answers that nobody would send on purpose, and some would: each costs a record or a run, never the process,
//! and the next pull finds everything in order.

use chrono::TimeDelta;
use serde_json::{Value, json};
use zhilian_sync::simulator::scripted::Answer;
use zhilian_sync_store::testing::noon;
use zhilian_sync_store::{DatabaseKind, SyncStatus};

use crate::harness::{Flow, list, on_every_database, sale};

/// More digits than any number has.
const DIGITS: usize = 10_000;
/// More levels than any reader goes down.
const LEVELS: usize = 200;
const MEGABYTE: usize = 1 << 20;

fn good() -> Value {
    sale("S-good", 1_250, noon() - TimeDelta::hours(1))
}

/// A sale with other JSON in one of its fields, as it is written.
fn with(id: &str, field: &str, json: &str) -> String {
    let mut sale = sale(id, 77, noon() - TimeDelta::hours(1));
    sale[field] = Value::from("put here");
    sale.to_string().replace("\"put here\"", json)
}

fn page(items: &[String]) -> Answer {
    let items = items.join(",");
    let body = format!(r#"{{"code":0,"message":"ok","data":{{"items":[{items}],"page":1,"pages":1}}}}"#);
    Answer::bytes(200, "application/json", body)
}

/// What is stored, and the reasons of what is not.
async fn pulled(flow: &Flow, status: SyncStatus) -> (Vec<String>, Vec<(String, String)>) {
    let run = flow.pull().await;
    assert_eq!(run.status, status, "{run:?}");
    let failures = flow.failures(run.id).await;
    let mut reasons: Vec<_> =
        failures.into_iter().map(|failure| (failure.external_id, failure.reason)).collect();
    reasons.sort();
    (flow.stored().await.into_keys().collect(), reasons)
}

#[tokio::test]
async fn numbers_without_end_cost_their_record() {
    let digits = "7".repeat(DIGITS);
    let items = [
        good().to_string(),
        with("S-total", "total_fen", &digits),
        with("S-fraction", "total_fen", &format!("1.{digits}")),
        with("S-small", "tax_fen", &format!("1e-{digits}")),
        with("S-time", "sold_at", &digits),
        with("S-id", "sale_id", &digits),
        // A quantity is kept as it is written, whatever it is.
        with("S-quantity", "lines", &format!(r#"[{{"qty":{digits}}}]"#)),
    ];
    on_every_database(
        move |_| page(&items),
        |flow| async {
            let (stored, failed) = pulled(&flow, SyncStatus::Partial).await;
            assert_eq!(stored, ["S-good", "S-quantity"]);
            assert_eq!(failed.len(), 5);
            assert!(failed.iter().all(|(_, reason)| reason.len() < 500), "{failed:?}");
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn texts_without_end_cost_their_record() {
    let brackets = Value::from("[{".repeat(DIGITS)).to_string();
    let long = Value::from("长".repeat(MEGABYTE / 3)).to_string();
    let mut everywhere = sale("S-everywhere", 1, noon());
    for value in everywhere.as_object_mut().unwrap().values_mut() {
        *value = Value::from("x".repeat(MEGABYTE));
    }
    let items = [
        good().to_string(),
        with("S-brackets", "pay", &brackets),
        with("S-pay", "pay", &long),
        with("S-phone", "phone", &long),
        with("S-kind", "kind", &long),
        with("S-time", "updated_at", &brackets),
    ];
    on_every_database(
        move |_| page(&items),
        move |flow| {
            let everywhere = page(&[everywhere.to_string()]);
            async move {
                let (stored, failed) = pulled(&flow, SyncStatus::Partial).await;
                let names: Vec<_> = failed.iter().map(|(name, _)| name.as_str()).collect();
                // PostgreSQL has an index of phones, which takes none of this length.
                match flow.store().pool().kind() {
                    DatabaseKind::Sqlite => {
                        assert_eq!(stored, ["S-brackets", "S-good", "S-pay", "S-phone"]);
                        assert_eq!(names, ["S-kind", "S-time"]);
                    }
                    DatabaseKind::Postgres => {
                        assert_eq!(stored, ["S-brackets", "S-good", "S-pay"]);
                        assert_eq!(names, ["S-kind", "S-phone", "S-time"]);
                    }
                }
                flow.advance(TimeDelta::hours(1));
                flow.vendor.push(everywhere);
                let (_, failed) = pulled(&flow, SyncStatus::Partial).await;
                assert_eq!(failed.len(), 1);
                assert!(failed[0].0.starts_with("hash:") && failed[0].1.len() < 500, "{failed:?}");
                flow
            }
        },
    )
    .await;
}

/// The vendor answers like this until the run has failed; the next one finds the vendor as ever.
async fn costs_the_run(body: Vec<u8>) {
    on_every_database(
        |_| list(&[good()], 1, 1),
        move |flow| {
            let answer = Answer::bytes(200, "application/json", body.clone());
            async move {
                for _ in 0..3 {
                    flow.vendor.push(answer.clone());
                }
                let run = flow.pull_to_its_end().await;
                assert_eq!((run.status, run.error_code.as_deref()), (SyncStatus::Failed, Some("not_json")));
                let message = run.error_message.unwrap();
                assert!(message.len() < 1_000, "{message}");
                flow.advance(TimeDelta::hours(1));
                assert_eq!(flow.pull().await.status, SyncStatus::Success);
                assert_eq!(flow.stored().await.len(), 1);
                flow
            }
        },
    )
    .await;
}

fn body_with(json: &str) -> Vec<u8> {
    let item = with("S-1", "member", json);
    format!(r#"{{"code":0,"message":"ok","data":{{"items":[{item}],"page":1,"pages":1}}}}"#).into_bytes()
}

#[tokio::test]
async fn levels_without_end_cost_the_run() {
    costs_the_run(body_with(&format!("{}1{}", "[".repeat(LEVELS), "]".repeat(LEVELS)))).await;
    costs_the_run(body_with(&format!("{}1{}", "{\"a\":".repeat(LEVELS), "}".repeat(LEVELS)))).await;
    costs_the_run("[".repeat(MEGABYTE).into_bytes()).await;
}

#[tokio::test]
async fn levels_that_hide_in_texts_cost_the_run() {
    // A reader that takes such a member for JSON in a text begins to count anew with each.
    let deep = (0..17).fold("1".to_owned(), |inside, _| {
        let (open, close) = ("[".repeat(120), "]".repeat(120));
        format!(r#"{open}{{"$serde_json::private::RawValue":{}}}{close}"#, json!(inside))
    });
    costs_the_run(body_with(&deep)).await;
}

#[tokio::test]
async fn bytes_that_are_no_text_cost_the_run() {
    let mut body = body_with("\"?\"");
    let at = body.iter().position(|byte| *byte == b'?').unwrap();
    body[at] = 0xFF;
    costs_the_run(body).await;
    costs_the_run(vec![0; 4_096]).await;
    costs_the_run(body_with("\"\\ud800\"")).await;
}
