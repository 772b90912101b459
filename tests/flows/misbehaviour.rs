//! What vendors do, and what it becomes: the outcome in the sync log, words that say what to do, the
//! good records of the page stored, and a process that lives on.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use zhilian_sync::simulator::scripted::Answer;
use zhilian_sync_store::testing::noon;
use zhilian_sync_store::{SyncStatus, sync_cursors};

use crate::harness::{list, on_every_database, page_number, sale};

/// The vendor answers badly once and well afterwards: the first attempt fails with `code`, the run
/// succeeds in the end.
async fn once_bad_then_good(bad: impl Fn() -> Answer, code: &str, says: &str) {
    on_every_database(
        |_| list(&[sale("S-1", 1_000, noon() - TimeDelta::hours(1))], 1, 1),
        |flow| async {
            flow.vendor.push(bad());
            let run = flow.pull().await;
            assert_eq!(run.status, SyncStatus::Pending, "{run:?}");
            assert_eq!(run.error_code.as_deref(), Some(code));
            let message = run.error_message.clone().unwrap();
            assert!(message.contains(says), "`{message}` does not say `{says}`");
            assert!(run.run_at > flow.store().clock().now());
            let ended = flow.pull_to_its_end().await;
            assert_eq!(ended.id, run.id, "a wish joins the run that is under way");
            assert_eq!(ended.status, SyncStatus::Success, "{ended:?}");
            assert_eq!(ended.attempt_errors().len(), 1, "the first attempt's error is kept");
            assert_eq!(flow.stored().await.len(), 1);
            flow
        },
    )
    .await;
}

/// The vendor answers badly always: the run fails with `code` after `attempts`.
async fn always_bad(bad: impl Fn() -> Answer, code: &str, attempts: i64, says: &str) {
    let answer = bad();
    on_every_database(
        move |_| answer.clone(),
        |flow| async {
            let run = flow.pull_to_its_end().await;
            assert_eq!(run.status, SyncStatus::Failed, "{run:?}");
            assert_eq!(run.error_code.as_deref(), Some(code));
            assert_eq!(run.attempt, attempts);
            let message = run.error_message.clone().unwrap();
            assert!(message.contains(says), "`{message}` does not say `{says}`");
            assert_eq!(flow.system().await.last_error.as_deref(), Some(message.as_str()));
            flow
        },
    )
    .await;
}

/// A list that is longer than what the vendor serves between two faults, with more faults than there are attempts.
#[tokio::test]
async fn an_attempt_that_has_stored_a_page_is_not_counted() {
    const PAGES: u64 = 16;
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    on_every_database(
        move |request| {
            if counted.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
                return Answer::status(500);
            }
            let page = page_number(request);
            list(&[sale(&format!("S-{page}"), 1_000, noon() - TimeDelta::hours(1))], page, PAGES)
        },
        |flow| {
            let asked = Arc::clone(&asked);
            async move {
                asked.store(0, Ordering::Relaxed);
                let run = flow.pull_to_its_end().await;
                assert_eq!((run.status, run.records_total), (SyncStatus::Success, 16), "{run:?}");
                assert_eq!(run.attempt, 1, "{run:?}");
                assert_eq!(run.attempt_errors().len(), 1, "what happens again and again is said once");
                assert_eq!(flow.vendor.requests().len(), 23, "no page is read twice");
                flow
            }
        },
    )
    .await;
}

#[tokio::test]
async fn too_many_requests_waits_as_long_as_the_vendor_says() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            flow.vendor.push(Answer::status(429).header("retry-after", "77"));
            let run = flow.pull().await;
            assert_eq!(run.status, SyncStatus::Pending);
            assert!(run.run_at >= flow.store().clock().now() + TimeDelta::seconds(77), "{}", run.run_at);
            flow.advance(TimeDelta::seconds(80));
            let run = flow.pull_to_its_end().await;
            assert_eq!(run.status, SyncStatus::Success);
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_server_error_is_tried_again() {
    once_bad_then_good(|| Answer::status(500), "vendor_unavailable", "500").await;
}

#[tokio::test]
async fn a_server_error_that_stays_fails_the_run() {
    always_bad(|| Answer::status(503), "vendor_unavailable", 3, "503").await;
}

#[tokio::test]
async fn a_time_out_is_tried_again() {
    once_bad_then_good(
        || Answer::status(200).delay(Duration::from_secs(5)),
        "vendor_timeout",
        "did not answer",
    )
    .await;
}

#[tokio::test]
async fn a_dropped_connection_is_tried_again() {
    once_bad_then_good(Answer::dropped, "vendor_unreachable", "connection").await;
}

#[tokio::test]
async fn half_a_body_is_tried_again() {
    once_bad_then_good(
        || list(&[sale("S-1", 1_000, noon())], 1, 1).cut_after(40),
        "answer_cut_off",
        "broke off",
    )
    .await;
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    always_bad(
        || Answer::endless(200, "application/json", vec![b' '; 1 << 16]),
        "answer_too_large",
        1,
        "response_bytes_max",
    )
    .await;
}

#[tokio::test]
async fn a_gzip_bomb_is_cut_off() {
    let bomb = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        for _ in 0..64 {
            encoder.write_all(&vec![b' '; 1 << 20]).unwrap();
        }
        encoder.finish().unwrap()
    };
    let answer =
        move || Answer::bytes(200, "application/json", bomb.clone()).header("content-encoding", "gzip");
    always_bad(answer, "answer_too_large", 1, "response_bytes_max").await;
}

#[tokio::test]
async fn a_redirect_to_the_metadata_service_is_refused() {
    let answer = || Answer::status(302).header("location", "http://169.254.169.254/latest/meta-data");
    always_bad(answer, "address_refused", 1, "allow_networks").await;
}

#[tokio::test]
async fn a_page_of_html_is_tried_again() {
    once_bad_then_good(|| Answer::bytes(200, "text/html", "<html>maintenance</html>"), "not_json", "JSON")
        .await;
}

#[tokio::test]
async fn a_page_that_does_not_exist_fails_at_once() {
    always_bad(|| Answer::status(404), "vendor_not_found", 1, "404").await;
}

#[tokio::test]
async fn a_business_error_under_200_is_the_vendors_word() {
    let answer = || Answer::json(200, &json!({"code": 4711, "message": "shop is closed"}));
    always_bad(answer, "vendor_error", 3, "shop is closed").await;
}

#[tokio::test]
async fn bad_records_are_kept_with_their_reasons_and_good_ones_stored() {
    let at = noon() - TimeDelta::hours(1);
    let mut nameless = sale("S-9", 900, at);
    nameless.as_object_mut().unwrap().remove("sale_id");
    let mut nul = sale("S-2", 200, at);
    nul["pay"] = json!("cash\u{0}money");
    let huge = sale("S-3", 300, at).to_string().replace("\"total_fen\":300", "\"total_fen\":1e999999");
    let mut fraction = sale("S-4", 400, at);
    fraction["total_fen"] = json!(12.5);
    let good = (10..30).map(|n| sale(&format!("S-{n}"), n, at)).collect::<Vec<_>>();
    let mut items: Vec<String> = good.iter().map(ToString::to_string).collect();
    items.extend([nameless.to_string(), nul.to_string(), huge, fraction.to_string()]);
    let body =
        format!(r#"{{"code":0,"message":"ok","data":{{"items":[{}],"page":1,"pages":1}}}}"#, items.join(","));
    on_every_database(
        move |_| Answer::bytes(200, "application/json", body.clone()),
        |flow| async {
            let run = flow.pull().await;
            assert_eq!(run.status, SyncStatus::Partial, "{run:?}");
            assert_eq!((run.records_total, run.records_success, run.records_failed), (24, 21, 3));
            let stored = flow.stored().await;
            assert_eq!(stored.len(), 21);
            assert!(stored["S-2"].raw.contains("\\u0000"), "raw keeps what the vendor sent");
            assert_eq!(stored["S-2"].payment_method.as_deref(), Some("cash\u{fffd}money"));
            let failures = flow.failures(run.id).await;
            let reason = |id: &str| {
                failures.iter().find(|failure| failure.external_id.starts_with(id)).unwrap().reason.clone()
            };
            assert!(reason("hash:").contains("sale_id"), "{}", reason("hash:"));
            assert!(reason("S-3").contains("total"), "{}", reason("S-3"));
            assert!(reason("S-4").contains("12.5"), "{}", reason("S-4"));
            // The same page again: the same failures, once more, not three new ones.
            flow.advance(TimeDelta::minutes(10));
            let again = flow.pull().await;
            let failures = flow.failures(again.id).await;
            assert_eq!(failures.len(), 3);
            assert!(failures.iter().all(|failure| failure.occurrences == 2));
            assert_eq!(flow.stored().await.len(), 21);
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_record_that_lacks_what_it_needs_is_kept_as_it_came() {
    let at = noon() - TimeDelta::hours(1);
    let lacking = ["sale_id", "total_fen", "sold_at"].map(|field| {
        let mut one = sale(&format!("S-{field}"), 100, at);
        one.as_object_mut().unwrap().remove(field);
        (field, one)
    });
    // Half of them, and no more: as many as the manifest allows.
    let good = (0..3).map(|n| sale(&format!("S-{n}"), 1, at));
    let empty = (0..4).map(|n| json!({"nothing": n}));
    let more = (3..7).map(|n| sale(&format!("S-{n}"), 1, at));
    let items: Vec<_> =
        lacking.iter().map(|(_, one)| one.clone()).chain(good).chain(empty).chain(more).collect();
    on_every_database(
        move |_| list(&items, 1, 1),
        move |flow| {
            let lacking = lacking.clone();
            async move {
                let run = flow.pull().await;
                assert_eq!(run.status, SyncStatus::Partial, "{run:?}");
                assert_eq!((run.records_total, run.records_success, run.records_failed), (14, 7, 7));
                let failures = flow.failures(run.id).await;
                for (field, record) in &lacking {
                    let raw = record.to_string();
                    let kept = failures.iter().find(|failure| failure.raw == raw);
                    let kept = kept.unwrap_or_else(|| panic!("{field}: {failures:?}"));
                    assert!(kept.reason.contains(&format!("(from `{field}`)")), "{}", kept.reason);
                    assert_eq!(kept.external_id.starts_with("hash:"), *field == "sale_id");
                }
                let nameless = failures.iter().filter(|failure| failure.external_id.starts_with("hash:"));
                assert_eq!(nameless.count(), 5, "each record without an id is a failure of its own");
                let (system, stream) = (flow.system.id, "transactions");
                let cursor = sync_cursors::find(flow.store(), system, stream, "").await.unwrap();
                assert!(cursor.is_some_and(|cursor| cursor.watermark.is_some()), "the watermark moves");
                flow
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_failed_record_is_resolved_when_it_comes_mended() {
    let at = noon() - TimeDelta::hours(1);
    on_every_database(
        move |_| list(&[sale("S-1", 1_000, at)], 1, 1),
        |flow| async move {
            let mut broken = sale("S-1", 1_000, at);
            broken["total_fen"] = json!("much");
            flow.vendor.push(list(&[broken], 1, 1));
            let run = flow.pull().await;
            assert_eq!((run.status, run.records_failed), (SyncStatus::Partial, 1));
            flow.advance(TimeDelta::minutes(10));
            let run = flow.pull().await;
            assert_eq!(run.status, SyncStatus::Success);
            let open =
                zhilian_sync_store::sync_failures::count_open(flow.store(), flow.system.id).await.unwrap();
            assert_eq!(open, 0);
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn too_many_bad_records_fail_the_run_before_the_watermark_moves() {
    let at = noon() - TimeDelta::hours(1);
    let items: Vec<_> = (0..40)
        .map(|n| {
            let mut one = sale(&format!("S-{n}"), 100, at);
            if n % 4 != 0 {
                one["total_fen"] = json!("much");
            }
            one
        })
        .collect();
    on_every_database(
        move |_| list(&items, 1, 1),
        |flow| async {
            let run = flow.pull_to_its_end().await;
            assert_eq!(run.status, SyncStatus::Failed);
            assert_eq!(run.error_code.as_deref(), Some("too_many_failures"));
            assert_eq!(flow.stored().await.len(), 10, "the good ones are stored");
            let cursor =
                zhilian_sync_store::sync_cursors::find(flow.store(), flow.system.id, "transactions", "")
                    .await
                    .unwrap();
            assert!(cursor.is_none(), "the watermark has not moved");
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn pages_without_end_are_cut_off() {
    on_every_database(
        |request| {
            let page = crate::harness::page_number(request);
            list(&[sale(&format!("S-{page}"), 1, noon() - TimeDelta::hours(1))], page, 99_999)
        },
        |flow| async {
            let run = flow.pull_to_its_end().await;
            assert_eq!((run.status, run.attempt), (SyncStatus::Failed, 1));
            assert_eq!(run.error_code.as_deref(), Some("too_many_pages"));
            assert!(run.error_message.unwrap().contains("pages_max"));
            let most = usize::try_from(crate::harness::PAGES_MAX).unwrap();
            assert_eq!(flow.vendor.requests().len(), most);
            assert_eq!(flow.stored().await.len(), most, "what was read is kept");
            flow
        },
    )
    .await;
}
