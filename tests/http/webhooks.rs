//! What vendors hear when they post, and what becomes of it.

use std::io;

use bytes::Bytes;
use chrono::TimeDelta;
use futures_util::StreamExt as _;
use poem::Body;
use poem::http::Method;
use serde_json::json;
use zhilian_sync_store::{Role, SystemType};

use crate::hooks::{events, post, post_signed, sale, sales, signed, till};
use crate::support::TestApp;

#[tokio::test]
async fn an_unsigned_event_of_an_existing_client_is_taken_and_changes_nothing() {
    for app in TestApp::every().await {
        let system = till(&app, json!({"webhook_secret": null})).await;
        let taken = post(&app, &system, &[], &sale("T-1", "12.50")).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(taken, @r#"
        200
        {
          "event_type": "transaction.created",
          "message": "accepted",
          "success": true
        }
        "#));
        app.drain().await;
        assert!(sales(&app).await.is_empty());
        let kept = events(&app, "").await;
        assert_eq!(
            (&kept[0]["state"], &kept[0]["error_code"]),
            (&json!("quarantined"), &json!("secret_missing"))
        );
    }
}

#[tokio::test]
async fn a_signed_event_becomes_a_record() {
    for app in TestApp::every().await {
        let system = till(&app, json!({})).await;
        let taken = post_signed(&app, &system, &sale("T-1", "12.50")).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(taken, @r#"
        200
        {
          "event_type": "transaction.created",
          "message": "accepted",
          "success": true
        }
        "#));
        assert_eq!(events(&app, "").await[0]["state"], "pending");
        app.drain().await;
        assert_eq!(sales(&app).await, [("T-1".to_owned(), "12.50".to_owned())]);
        let admin = app.admin().await;
        let listed = app.get("/integrations/webhook-events", &admin).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(listed, @r#"
        200
        [
          {
            "accepted_by": "verification",
            "attempt": 1,
            "body_bytes": 170,
            "deliveries": 1,
            "ended_at": "2026-01-04T12:00:00.000Z",
            "error_code": null,
            "error_message": null,
            "event_key": "sha256:ea974996723f09da7a9d0d0ce5c19e242a58c5c7f47d38309e9825a09225d02a",
            "event_type": "transaction.created",
            "forced": false,
            "id": "id-1",
            "last_received_at": "2026-01-04T12:00:00.000Z",
            "received_at": "2026-01-04T12:00:00.000Z",
            "result": "stored",
            "run_at": "2026-01-04T12:00:00.000Z",
            "state": "applied",
            "sync_log_id": "id-2",
            "system_id": "id-3"
          }
        ]
        "#));
        let runs =
            app.get("/integrations/sync-logs?sync_type=webhook/transaction.created", &admin).await.json();
        assert_eq!((&runs[0]["status"], &runs[0]["records_success"]), (&json!("success"), &json!(1)));
    }
}

#[tokio::test]
async fn the_same_event_again_is_answered_alike_and_counted() {
    for app in TestApp::every().await {
        let system = till(&app, json!({})).await;
        let first = post_signed(&app, &system, &sale("T-1", "12.50")).await;
        let second = post_signed(&app, &system, &sale("T-1", "12.50")).await;
        assert_eq!((first.status, &first.text), (second.status, &second.text));
        app.drain().await;
        let third = post_signed(&app, &system, &sale("T-1", "12.50")).await;
        assert_eq!((first.status, &first.text), (third.status, &third.text));
        app.drain().await;
        let kept = events(&app, "").await;
        assert_eq!(
            (kept.len(), &kept[0]["deliveries"], &kept[0]["state"]),
            (1, &json!(3), &json!("applied"))
        );
    }
}

#[tokio::test]
async fn a_wrong_signature_is_refused_and_kept_with_the_reason() {
    for app in TestApp::every().await {
        let system = till(&app, json!({})).await;
        let body = sale("T-1", "12.50");
        let refused = post(&app, &system, &signed(&body, "another"), &body).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(refused, @r#"
        401
        {
          "event_type": "transaction.created",
          "message": "the signature is missing or wrong",
          "success": false
        }
        "#));
        let refused = post(&app, &system, &[], &body).await;
        assert_eq!(refused.status, 401);
        app.drain().await;
        assert!(sales(&app).await.is_empty());
        let kept = events(&app, "?state=quarantined").await;
        let mut reasons: Vec<_> = kept.iter().map(|event| event["error_code"].as_str().unwrap()).collect();
        reasons.sort_unstable();
        assert_eq!(reasons, ["signature_mismatch", "signature_missing"]);
        // Nothing of that stands in the way of the genuine one.
        assert_eq!(post_signed(&app, &system, &body).await.status, 200);
        app.drain().await;
        assert_eq!(sales(&app).await.len(), 1);
    }
}

#[tokio::test]
async fn every_type_of_system_has_its_address() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    for system_type in SystemType::ALL {
        let body = json!({"name": "A system", "type": system_type.as_str(), "provider": "generic-rest"});
        let made = app.post("/integrations/systems", &admin, &body).await.json();
        let path = made["webhook_path"].as_str().unwrap();
        assert_eq!(
            path,
            format!("/api/v1/integrations/webhooks/{system_type}/{}", made["id"].as_str().unwrap())
        );
        let taken = app.send_body(Method::POST, path, &[], Body::from("{\"event\": \"x\"}")).await;
        assert_eq!(taken.status, 200, "{system_type}: {}", taken.text);
    }
    assert_eq!(events(&app, "").await.len(), SystemType::ALL.len());
}

#[tokio::test]
async fn an_address_that_is_nobodys_says_so() {
    let app = TestApp::new().await;
    let system = till(&app, json!({})).await;
    let wrong_type = format!("/api/v1/integrations/webhooks/supplier/{system}");
    let body = sale("T-1", "1.00");
    let refused =
        app.send_body(Method::POST, &wrong_type, &signed(&body, "x"), Body::from(body.clone())).await;
    insta::assert_snapshot!(refused.show(), @r#"
    400
    {
      "code": "wrong_system_type",
      "detail": "system `id-1` is of another type than its webhook address says; see its `webhook_path`",
      "request_id": "test",
      "status": 400,
      "title": "Bad Request",
      "type": "/problems/wrong_system_type"
    }
    "#);
    let stranger = uuid::Uuid::from_u128(7).to_string();
    insta::assert_snapshot!(post(&app, &stranger, &[], &body).await.show(), @r#"
    404
    {
      "code": "not_found",
      "detail": "system `id-1` does not exist",
      "request_id": "test",
      "status": 404,
      "title": "Not Found",
      "type": "/problems/not_found"
    }
    "#);
    for path in ["pos/not-an-id".to_owned(), format!("kitchen/{system}"), "pos".to_owned()] {
        let path = format!("/api/v1/integrations/webhooks/{path}");
        let answered = app.send_body(Method::POST, &path, &[], Body::from("{}")).await;
        assert_eq!(answered.status, 404, "{path}: {}", answered.text);
    }
    let admin = app.admin().await;
    app.delete(&format!("/integrations/systems/{system}"), &admin).await;
    assert_eq!(post_signed(&app, &system, &body).await.status, 404);
    assert!(events(&app, "").await.is_empty());
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_before_it_is_read_whole() {
    let app = TestApp::with(|settings| settings.server.body_bytes_max = 400).await;
    let system = till(&app, json!({})).await;
    let path = format!("/api/v1/integrations/webhooks/pos/{system}");
    let endless = futures_util::stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from(vec![b'x'; 100])));
    let refused = app.send_body(Method::POST, &path, &[], Body::from_bytes_stream(endless)).await;
    insta::assert_snapshot!(refused.show(), @r#"
    413
    {
      "code": "body_too_large",
      "detail": "the body is larger than allowed",
      "request_id": "test",
      "status": 413,
      "title": "Payload Too Large",
      "type": "/problems/body_too_large"
    }
    "#);
    // The length is believed before a byte is read: this body never comes.
    let announced = [("content-length", "401".to_owned())];
    let silent = futures_util::stream::pending::<Result<Bytes, io::Error>>();
    let refused = app.send_body(Method::POST, &path, &announced, Body::from_bytes_stream(silent)).await;
    assert_eq!(refused.status, 413);
    assert!(events(&app, "").await.is_empty());
    assert_eq!(post_signed(&app, &system, &sale("T-1", "1.00")).await.status, 200);
    app.drain().await;
}

#[tokio::test]
async fn no_more_bodies_are_on_their_way_in_than_there_is_room_for() {
    let app = TestApp::with(|settings| settings.webhooks.reading_bytes_max = 300).await;
    let system = till(&app, json!({})).await;
    let path = format!("/api/v1/integrations/webhooks/pos/{system}");
    let body = sale("T-1", "1.00");
    // Somebody sends slowly: what has come of it takes up room, what has not does not.
    let (came, has_come) = tokio::sync::oneshot::channel();
    let mut came = Some(came);
    let first = futures_util::stream::iter([Ok::<_, io::Error>(Bytes::from(vec![b'x'; 200]))]);
    let silence = futures_util::stream::poll_fn(move |_| {
        // It is asked for more, so the first piece was taken.
        came.take().map(|came| came.send(()));
        std::task::Poll::Pending
    });
    let slow = app.send_body(Method::POST, &path, &[], Body::from_bytes_stream(first.chain(silence)));
    let genuine = async {
        has_come.await.unwrap();
        post_signed(&app, &system, &body).await
    };
    let refused = tokio::select! {
        _ = slow => unreachable!("its body never ends"),
        refused = genuine => refused,
    };
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (503, Some("inbox_busy")),
        "{}",
        refused.text
    );
    // Who is gone holds nothing.
    assert_eq!(post_signed(&app, &system, &body).await.status, 200);
    app.drain().await;
}

#[tokio::test]
async fn the_bytes_count_however_they_come() {
    let app = TestApp::new().await;
    let system = till(&app, json!({})).await;
    let path = format!("/api/v1/integrations/webhooks/pos/{system}");
    for (number, content_type) in
        [None, Some("text/plain"), Some("application/x-unheard-of")].iter().enumerate()
    {
        // With spaces that a parser would lose, in pieces that end anywhere.
        let body = sale(&format!("T-{number}"), "5.00").replace(',', " ,  ");
        let mut headers = signed(&body, crate::hooks::SECRET).to_vec();
        headers.extend(content_type.map(|content_type| ("content-type", content_type.to_owned())));
        let pieces: Vec<_> = body
            .into_bytes()
            .chunks(7)
            .map(|piece| Ok::<_, io::Error>(Bytes::copy_from_slice(piece)))
            .collect();
        let body = Body::from_bytes_stream(futures_util::stream::iter(pieces));
        let taken = app.send_body(Method::POST, &path, &headers, body).await;
        assert_eq!(taken.status, 200, "{content_type:?}: {}", taken.text);
    }
    app.drain().await;
    assert_eq!(sales(&app).await.len(), 3);
}

/// A vendor that asks for an echo, says `errcode` where others say success, and puts its code into the address.
pub(crate) const MANIFEST: &str = r#"
[meta]
name = "echo-pos"
title = "A till that wants an echo"
types = ["pos"]

[auth]
kind = "none"

[probe]
stream = "sales"
message = "Connected"

[streams.sales]
target = "pos_transactions"
request.path = "/sales"
pagination.style = "none"
answer.records = "sales"
mapping.money_unit = "major"
mapping.time_form = "any"
mapping.fields.external_id = "id"
mapping.fields.total = "total"
mapping.fields.occurred_at = "at"

[webhook]
event_type = ["body:kind"]

[webhook.verification]
scheme = "url_secret"
signature = "query:code"

[webhook.replies]
accepted = { status = 202, content_type = "text/plain", body = "errcode=0" }
refused = { status = 418, content_type = "text/plain", body = "errcode=7" }

[[webhook.handshakes]]
method = "GET"
when = "has(query.echostr)"
reply = { status = 200, content_type = "text/plain", body = "{query.echostr}" }

[[webhook.handshakes]]
method = "HEAD"
reply = { status = 204 }

[[webhook.routes]]
events = ["*"]
action = "ignore"
"#;

#[tokio::test]
async fn a_vendor_hears_its_own_words() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("echo-pos.toml"), MANIFEST).unwrap();
    let folder = directory.path().to_str().unwrap().to_owned();
    let app = TestApp::with(|settings| settings.vendors.directory = folder).await;
    let system = till(&app, json!({"provider": "echo-pos"})).await;
    let path = format!("/api/v1/integrations/webhooks/pos/{system}");
    let call = async |method: Method, query: &str, body: &'static str| {
        let answered = app.send_body(method, &format!("{path}{query}"), &[], Body::from(body)).await;
        let content_type = answered.header("content-type").unwrap_or_default().to_owned();
        (answered.status, content_type, answered.text)
    };
    let plain = |status: u16, text: &str| (status, "text/plain".to_owned(), text.to_owned());
    assert_eq!(call(Method::GET, "?echostr=4711%2F", "").await, plain(200, "4711/"));
    assert_eq!(call(Method::HEAD, "", "").await.0, 204);
    let refused = call(Method::GET, "", "").await;
    assert_eq!((refused.0, refused.1.as_str()), (405, "application/problem+json"));
    let body = "{\"kind\": \"sale\"}";
    assert_eq!(
        call(Method::POST, &format!("?code={}", crate::hooks::SECRET), body).await,
        plain(202, "errcode=0")
    );
    app.advance(TimeDelta::seconds(1));
    assert_eq!(call(Method::POST, "?code=guessed", body).await, plain(418, "errcode=7"));
    app.drain().await;
    let kept = events(&app, "").await;
    let states: Vec<_> = kept.iter().map(|event| event["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["quarantined", "applied"]);
    assert_eq!((&kept[1]["event_type"], &kept[1]["result"]), (&json!("sale"), &json!("ignored")));
    // A code that was guessed may be one that was mistyped: neither is shown.
    let admin = app.token(Role::Admin, None).await;
    for event in kept {
        let path = format!("/integrations/webhook-events/{}?payload=true", event["id"].as_str().unwrap());
        let shown = app.get(&path, &admin).await;
        assert_eq!(shown.status, 200);
        assert!(
            !shown.text.contains(crate::hooks::SECRET) && !shown.text.contains("guessed"),
            "{}",
            shown.text
        );
    }
}

#[tokio::test]
async fn a_vendor_that_knows_no_handshake_is_told_that_events_are_posted() {
    let app = TestApp::new().await;
    let system = till(&app, json!({})).await;
    let path = format!("/api/v1/integrations/webhooks/pos/{system}");
    insta::assert_snapshot!(app.send_raw(Method::GET, &path, &[], None).await.show(), @r#"
    405
    allow: POST
    {
      "code": "method_not_allowed",
      "detail": "this vendor asks for no handshake here; events are posted",
      "request_id": "test",
      "status": 405,
      "title": "Method Not Allowed",
      "type": "/problems/method_not_allowed"
    }
    "#);
    assert_eq!(app.send_raw(Method::PUT, &path, &[], None).await.status, 405);
}
