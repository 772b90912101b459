//! Testing a connection and synchronising by hand.

use std::sync::Arc;

use serde_json::json;
use zhilian_sync::simulator::scripted::{Answer, Scripted};
use zhilian_sync_store::Role;

use crate::support::TestApp;

async fn vendor(answer: Answer) -> Scripted {
    Scripted::start_with(move |_| answer.clone()).await.unwrap()
}

fn welcome() -> Answer {
    Answer::json(200, &json!({"code": 0, "message": "ok", "data": {"shop_name": "The Till"}}))
}

#[tokio::test]
async fn a_test_that_succeeds_makes_the_system_active() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let vendor = vendor(welcome()).await;
        let system = app.system(&admin, json!({"api_endpoint": vendor.url(), "api_key": "key-1"})).await;
        let tested = test_and_drain(app, &system).await;
        let shown = tested.0.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        200
        {
          "message": "Connected to the demo till of The Till",
          "run_id": "id-1",
          "success": true
        }
        "#));
        let shown = tested.1.get(&format!("/integrations/systems/{system}"), &admin).await;
        assert_eq!(shown.json()["status"], "active");
    }
}

#[tokio::test]
async fn a_test_that_fails_says_why_in_the_seeds_shape() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let vendor = vendor(Answer::json(401, &json!({"message": "bad key"}))).await;
    let system = app.system(&admin, json!({"api_endpoint": vendor.url(), "api_key": "key-1"})).await;
    let (tested, app) = test_and_drain(app, &system).await;
    insta::assert_snapshot!(tested.show(), @r#"
    200
    {
      "error": "The demo till does not accept the key: enter the one that it shows at its start (the vendor says: bad key)",
      "run_id": "id-1",
      "success": false
    }
    "#);
    let shown = app.get(&format!("/integrations/systems/{system}"), &admin).await.json();
    assert_eq!(shown["status"], "error");
    assert_eq!(shown["last_error"], tested.json()["error"]);
}

/// Asks for a test that is waited for, while the work is done beside it.
async fn test_and_drain(app: TestApp, system: &str) -> (crate::support::Answered, TestApp) {
    let manager = app.token(Role::StoreManager, None).await;
    let app = Arc::new(app);
    let asking = tokio::spawn({
        let (app, path) = (app.clone(), format!("/integrations/systems/{system}/test"));
        async move { app.post(&path, &manager, &json!({})).await }
    });
    while !asking.is_finished() {
        app.drain().await;
        tokio::task::yield_now().await;
    }
    let answered = asking.await.unwrap();
    (answered, Arc::into_inner(app).unwrap())
}

#[tokio::test]
async fn a_test_is_not_waited_for_where_it_is_not_wanted_or_no_place_is_left() {
    for (places, query) in [(1, "?wait=0"), (0, "")] {
        let app = TestApp::with(|settings| settings.server.test_waiters_max = places).await;
        let admin = app.admin().await;
        let system = app.system(&admin, json!({"api_endpoint": "http://127.0.0.1:1"})).await;
        let path = format!("/integrations/systems/{system}/test{query}");
        let shown = app.post(&path, &admin, &json!({})).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        202
        {
          "attempt": 0,
          "completed_at": null,
          "created_at": "2026-01-04T12:00:00.000Z",
          "duration_seconds": null,
          "error_code": null,
          "error_message": null,
          "id": "id-1",
          "kind": "connection_test",
          "max_attempts": 1,
          "records_failed": 0,
          "records_skipped": 0,
          "records_success": 0,
          "records_total": 0,
          "requested_by": "id-2",
          "retry_of": null,
          "run_at": "2026-01-04T12:00:00.000Z",
          "scheduled_for": null,
          "started_at": null,
          "status": "pending",
          "sync_type": "connection_test",
          "system_id": "id-3",
          "trigger": "manual"
        }
        "#));
        app.drain().await;
    }
}

#[tokio::test]
async fn a_manual_sync_answers_the_run_and_a_second_one_joins_it() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let empty = json!({"code": 0, "message": "ok", "data": {"items": [], "page": 1, "pages": 1}});
        let vendor = vendor(Answer::json(200, &empty)).await;
        let system = app.system(&admin, json!({"api_endpoint": vendor.url(), "api_key": "key-1"})).await;
        let path = format!("/integrations/systems/{system}/sync");
        let first = app.post(&path, &admin, &json!({})).await;
        let shown = first.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        202
        {
          "runs": [
            {
              "attempt": 0,
              "completed_at": null,
              "created_at": "2026-01-04T12:00:00.000Z",
              "duration_seconds": null,
              "error_code": null,
              "error_message": null,
              "id": "id-1",
              "kind": "pull",
              "max_attempts": 1,
              "records_failed": 0,
              "records_skipped": 0,
              "records_success": 0,
              "records_total": 0,
              "requested_by": "id-2",
              "retry_of": null,
              "run_at": "2026-01-04T12:00:00.000Z",
              "scheduled_for": null,
              "started_at": null,
              "status": "pending",
              "sync_type": "transactions",
              "system_id": "id-3",
              "trigger": "manual"
            }
          ]
        }
        "#));
        let second = app.post(&path, &admin, &json!({})).await;
        assert_eq!(first.json()["runs"][0]["id"], second.json()["runs"][0]["id"]);
        app.drain().await;
        let run = first.json()["runs"][0]["id"].as_str().unwrap().to_owned();
        let ended = app.get(&format!("/integrations/sync-logs/{run}"), &admin).await;
        assert_eq!(ended.json()["run"]["status"], "success", "{}", ended.text);
    }
}

#[tokio::test]
async fn a_sync_of_what_the_vendor_does_not_have_is_refused() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let system = app.system(&admin, json!({})).await;
    let path = format!("/integrations/systems/{system}/sync");
    insta::assert_snapshot!(app.post(&path, &admin, &json!({"stream": "recipes"})).await.show(), @r#"
    422
    {
      "code": "invalid_values",
      "detail": "`stream` is not a stream of this vendor; expected one of `transactions`",
      "errors": [
        {
          "detail": "is not a stream of this vendor; expected one of `transactions`",
          "field": "stream"
        }
      ],
      "request_id": "test",
      "status": 422,
      "title": "Unprocessable Entity",
      "type": "/problems/invalid_values"
    }
    "#);
    let backwards = json!({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"});
    assert_eq!(app.post(&path, &admin, &backwards).await.status, 422);
    assert_eq!(app.post(&path, &admin, &json!({"from": "2026-01-02T00:00:00"})).await.status, 422);
}

#[tokio::test]
async fn a_vendor_that_only_sends_cannot_be_synchronised() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let system = json!({
        "name": "外卖", "type": "delivery", "provider": "meituan-waimai",
        "credentials": {"app_id": "0000", "secret": "msec_demo"},
    });
    let made = app.post("/integrations/systems", &admin, &system).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let system = made.json()["id"].as_str().unwrap().to_owned();
    for wish in [json!({}), json!({"stream": "orders"})] {
        let refused = app.post(&format!("/integrations/systems/{system}/sync"), &admin, &wish).await;
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (409, Some("not_set_up")),
            "{}",
            refused.text
        );
        assert_eq!(refused.json()["detail"], "this vendor has no streams; there is nothing to synchronise");
    }
}
