//! The record that a thin event names, asked for as a page is: same budget, same silence about secrets.

use serde_json::{Value, json};
use zhilian_sync_jobs::Action;

use crate::routes::HEAD;
use crate::server::{Reply, Server};
use crate::support::{Bench, KEY, assert_no_secret};

/// The list `receipts` with its single record, for the vendor on loopback.
async fn bench() -> Bench {
    let manifest = HEAD.replace("name='acme'", "name='test'").replace(
        "kind='none'",
        "kind='bearer'\ntoken='{credential.api_key}'\n[credentials.api_key]\nlabel='Key'\n\
         [envelope]\nsuccess='!has(body.code) || body.code == 0'\n[limits.default]\nrequests=2\nper_secs=60\nburst=2",
    );
    Bench::with(|_| {}, &manifest).await
}

#[tokio::test]
async fn the_record_of_a_thin_event_is_asked_for() {
    let bench = bench().await;
    let server = Server::start(|_| {
        Reply::json(format!(
            r#"{{"receipt":{{"receipt_number":"2/1","total_money":2.5,"receipt_date":"2026-01-01","x":"{KEY}"}}}}"#
        ))
    })
    .await;
    let connection = bench.connect("test", &format!("{}/base", server.url()), &json!({}));
    let stream = connection.manifest().stream("receipts").unwrap();
    let event = json!({"receipt_number": "2/1", "shop": "a&b"});
    let page = connection.fetch_record(stream, &event).await.unwrap();
    let asked = server.asked().pop().unwrap();
    assert_eq!(asked.target, "/base/receipts/2%2F1?shop=a%26b");
    assert!(asked.headers.contains(&format!("Bearer {KEY}")), "{}", asked.headers);
    let mapped = connection.map_page(stream, &page);
    assert_eq!(mapped.transactions[0].total, 250);
    assert!(page.next.is_none() && page.vendor_time.is_some());
    assert_no_secret(&format!("{page:?}{mapped:?}"));

    connection.fetch_record(stream, &event).await.unwrap();
    let error = connection.fetch_record(stream, &event).await.unwrap_err();
    assert_eq!(error.code, "rate_budget", "a record costs of the same budget as a page");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn an_event_that_would_lead_elsewhere_is_not_asked_for() {
    let bench = bench().await;
    let server = Server::start(|_| Reply::json("{}")).await;
    let connection = bench.connect("test", &server.url(), &json!({}));
    let stream = connection.manifest().stream("receipts").unwrap();
    for id in
        [json!(".."), json!("."), json!(""), json!("a\nb"), json!("x".repeat(256)), json!({}), Value::Null]
    {
        let event = json!({"receipt_number": id, "shop": "s"});
        let error = connection.fetch_record(stream, &event).await.unwrap_err();
        assert_eq!((error.code, error.action), ("event_incomplete", Action::GiveUp), "{id}");
    }
    let error = connection.fetch_record(stream, &json!({"receipt_number": 7})).await.unwrap_err();
    assert!(error.message.contains("`shop`"), "{error}");
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn an_answer_without_the_record_says_so() {
    for (answer, code) in [
        (Reply::json(r#"{"list": []}"#), None),
        (Reply::json(r#"{"code": 0, "receipt": 7}"#), Some("record_missing")),
        (Reply::json(r#"{"code": 9}"#), Some("vendor_error")),
        (Reply::status(404, "", "{}"), Some("vendor_not_found")),
        (Reply::status(401, "", KEY), Some("unauthorized")),
        (Reply::status(503, "", KEY), Some("vendor_unavailable")),
    ] {
        let bench = bench().await;
        let answer = std::sync::Mutex::new(Some(answer));
        let server = Server::start(move |_| answer.lock().unwrap().take().unwrap()).await;
        let connection = bench.connect("test", &server.url(), &json!({}));
        let stream = connection.manifest().stream("receipts").unwrap();
        let event = json!({"receipt_number": 7, "shop": "s"});
        match connection.fetch_record(stream, &event).await {
            Ok(page) => assert_eq!((page.records.len(), code), (0, None)),
            Err(error) => {
                assert_eq!(Some(error.code), code, "{error}");
                assert_no_secret(&error.message);
            }
        }
    }
    let bench = Bench::new().await;
    let connection = bench.connect("demo-pos", "http://127.0.0.1:9", &json!({}));
    let stream = connection.manifest().stream("transactions").unwrap();
    assert_eq!(connection.fetch_record(stream, &json!({})).await.unwrap_err().code, "no_such_request");
}
