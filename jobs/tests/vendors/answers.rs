//! What every bad answer means for a run.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;
use zhilian_sync_jobs::{Action, JobError};

use crate::server::{Reply, Server};
use crate::support::{Bench, assert_no_secret, first_page, manifest};

/// The error of one call to a vendor that always answers so.
async fn error_of(answer: impl Fn() -> Reply + Send + Sync + 'static) -> JobError {
    let bench = Bench::new().await;
    let server = Server::start(move |_| answer()).await;
    let connection = bench.connect("demo-pos", &server.url(), &json!({}));
    let error = first_page(&connection, "transactions").await.unwrap_err();
    assert_no_secret(&error.message);
    error
}

const RETRY: Action = Action::Retry { after: None };

async fn decided(status: u16, headers: &'static str, action: Action, code: &str, says: &str) {
    let body = r#"{"code":1,"message":"words of the vendor"}"#;
    let error = error_of(move || Reply::status(status, headers, body)).await;
    assert_eq!((error.action, error.code), (action, code), "{status} {headers}: {error}");
    assert!(error.message.contains(says), "{status} {headers}: {error}");
    assert!(error.message.contains("(the vendor says: words of the vendor)"), "{status}: {error}");
}

#[tokio::test]
async fn a_status_decides() {
    for (status, action, code, says) in [
        (401, Action::Unauthorized, "unauthorized", "does not accept the key"),
        (403, Action::Unauthorized, "forbidden", "give them the right"),
        (404, Action::GiveUp, "vendor_not_found", "check `api_endpoint`"),
        (400, Action::GiveUp, "vendor_refused", "(400)"),
        (422, Action::GiveUp, "vendor_refused", "(422)"),
        (410, Action::GiveUp, "vendor_refused", "(410)"),
        (408, RETRY, "vendor_unavailable", "(408)"),
        (425, RETRY, "vendor_unavailable", "(425)"),
        (429, RETRY, "rate_limited", "fewer calls"),
        (500, RETRY, "vendor_unavailable", "(500)"),
        (599, RETRY, "vendor_unavailable", "(599)"),
    ] {
        decided(status, "", action, code, says).await;
    }
}

#[tokio::test]
async fn the_vendors_retry_after_is_believed_within_bounds() {
    let after = |secs| Action::Retry { after: Some(Duration::from_secs(secs)) };
    decided(503, "Retry-After: 7\r\n", after(7), "vendor_unavailable", "(503)").await;
    decided(429, "Retry-After: 7\r\n", after(7), "rate_limited", "(429)").await;
    decided(429, "Retry-After: 2.0\r\n", after(2), "rate_limited", "(429)").await;
    decided(429, "Retry-After: 86400\r\n", after(60), "rate_limited", "(429)").await;
    let date = "Retry-After: Thu, 01 Jan 2026 04:00:20 GMT\r\n";
    decided(429, date, after(20), "rate_limited", "(429)").await;
    let past = "Retry-After: Wed, 01 Jan 2020 00:00:00 GMT\r\n";
    decided(429, past, after(0), "rate_limited", "(429)").await;
    decided(429, "Retry-After: soon\r\n", RETRY, "rate_limited", "(429)").await;
}

#[tokio::test]
async fn silence_is_a_time_out() {
    let started = Instant::now();
    let error = error_of(|| Reply::Silence).await;
    assert_eq!((error.action, error.code), (RETRY, "vendor_timeout"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn nobody_there_is_tried_again() {
    let bench = Bench::new().await;
    let port = {
        let server = Server::start(|_| Reply::Silence).await;
        server.port
    };
    for endpoint in [format!("http://127.0.0.1:{port}"), "http://no-such-host.invalid".into()] {
        let connection = bench.connect("demo-pos", &endpoint, &json!({}));
        // The listener's task ends a moment after it was told to.
        let mut error = first_page(&connection, "transactions").await.unwrap_err();
        for _ in 0..3 {
            if error.code == "vendor_unreachable" {
                break;
            }
            error = first_page(&connection, "transactions").await.unwrap_err();
        }
        assert_eq!((error.action, error.code), (RETRY, "vendor_unreachable"), "{error}");
        assert!(error.message.contains("api_endpoint"), "{error}");
    }
}

#[tokio::test]
async fn half_a_body_is_tried_again() {
    let error = error_of(|| Reply::Cut(1_000, b"{\"code\":0".to_vec())).await;
    assert_eq!((error.action, error.code), (RETRY, "answer_cut_off"), "{error}");
}

#[tokio::test]
async fn too_much_is_not_read() {
    let started = Instant::now();
    for answer in [
        || Reply::Endless,
        || Reply::Cut(2 * 1024 * 1024 * 1024, b"{".to_vec()),
        || {
            let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            for _ in 0..64 {
                bomb.write_all(&vec![b' '; 1024 * 1024]).unwrap();
            }
            Reply::Whole(200, "Content-Encoding: gzip\r\n", bomb.finish().unwrap())
        },
    ] {
        let error = error_of(answer).await;
        assert_eq!((error.action, error.code), (Action::GiveUp, "answer_too_large"), "{error}");
        assert!(error.message.contains("vendors.response_bytes_max"), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn what_is_no_json_is_tried_again() {
    for (body, says) in [
        ("<!DOCTYPE html><html><body>Sign in</body></html>", "a web page instead of JSON"),
        ("  <html>", "a web page"),
        ("{\"code\":0,", "no valid JSON"),
        ("\u{1F}\u{8B}", "no valid JSON"),
    ] {
        let error = error_of(move || Reply::status(200, "Content-Type: application/json\r\n", body)).await;
        assert_eq!((error.action, error.code), (RETRY, "not_json"), "{error}");
        assert!(error.message.contains(says), "{error}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(error_of(move || Reply::json(deep.clone())).await.code, "not_json");
}

#[tokio::test]
async fn success_by_status_is_not_success_by_rule() {
    let error = error_of(|| Reply::json(r#"{"code":500,"message":"数据库忙"}"#)).await;
    assert_eq!((error.action, error.code), (RETRY, "vendor_error"), "{error}");
    assert!(error.message.contains("(the vendor says: 数据库忙)"), "{error}");
    let error = error_of(|| Reply::json(r#"{"kode":0}"#)).await;
    assert_eq!((error.action, error.code), (RETRY, "vendor_error"), "{error}");
    assert!(error.message.contains("`body.code == 0` cannot be computed"), "{error}");
    assert_eq!(error_of(|| Reply::json("")).await.code, "vendor_error");
}

#[tokio::test]
async fn a_list_that_is_not_there_is_named() {
    let error = error_of(|| Reply::json(r#"{"code":0,"data":{"rows":[]}}"#)).await;
    assert_eq!((error.action, error.code), (Action::GiveUp, "records_missing"), "{error}");
    assert!(error.message.contains("`data.items`") && error.message.contains("`code`, `data`"), "{error}");
}

#[tokio::test]
async fn a_manifest_may_know_better() {
    let rest = "request.path = '/x'\nanswer.records = 'data'\n[envelope]\nsuccess = 'body.code == 0'\nerror = 'msg'\n\
                [[failures]]\nwhen = 'has(body.code) && body.code in [100, 108]'\noutcome = 'unauthorized'\nmessage = 'the token has expired'\n\
                [[failures]]\nwhen = 'status == 503 && has(body.code) && body.code == 9'\noutcome = 'give_up'\n";
    let bench = Bench::with(|_| {}, &manifest(rest)).await;
    for (status, body, action, says) in [
        (
            200,
            r#"{"code":108,"msg":"expired"}"#,
            Action::Unauthorized,
            "the token has expired (the vendor says: expired)",
        ),
        (503, r#"{"code":9}"#, Action::GiveUp, "Acme reports an error"),
        (503, r#"{"code":8}"#, RETRY, "fault of its own"),
        (200, r#"{"code":7}"#, RETRY, "reports an error"),
    ] {
        let server = Server::start(move |_| Reply::status(status, "", body)).await;
        let error = first_page(&bench.connect("test", &server.url(), &json!({})), "list").await.unwrap_err();
        assert_eq!(error.action, action, "{body}: {error}");
        assert!(error.message.contains(says), "{error}");
    }
}

#[tokio::test]
async fn the_good_records_of_a_bad_page_are_kept() {
    let bench = Bench::new().await;
    let server = Server::start(|_| Reply::json(include_str!("demo-pos/transactions.faults.json"))).await;
    let connection = bench.connect("demo-pos", &server.url(), &json!({}));
    let page = first_page(&connection, "transactions").await.unwrap();
    let mapped = connection.map_page(connection.manifest().stream("transactions").unwrap(), &page);
    let stored: Vec<&str> =
        mapped.transactions.iter().map(|transaction| transaction.external_id.as_str()).collect();
    assert_eq!(stored, ["G-nul", "7"]);
    assert_eq!(mapped.failures.len(), 11);
    assert_eq!(mapped.failures.iter().filter(|failure| failure.external_id.starts_with("hash:")).count(), 5);
}
