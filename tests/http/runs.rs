//! Runs: list, show, cancel, retry.

use serde_json::{Value, json};

use crate::support::TestApp;

const RUNS: &str = "/integrations/sync-logs";

/// A system whose vendor is not there, with one run that failed.
async fn failed_run(app: &TestApp, admin: &str) -> (String, String) {
    let system = app.system(admin, json!({"api_endpoint": "http://127.0.0.1:1", "api_key": "key-1"})).await;
    let started = app.post(&format!("/integrations/systems/{system}/sync"), admin, &json!({})).await;
    app.drain().await;
    (system, started.json()["runs"][0]["id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_run_that_failed_tells_every_attempt() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let (_, run) = failed_run(&app, &admin).await;
        let shown = app.get(&format!("{RUNS}/{run}"), &admin).await;
        let shown = shown.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        200
        {
          "attempts": [
            {
              "at": "2026-01-04T12:00:00.000Z",
              "attempt": 1,
              "code": "vendor_unreachable",
              "message": "The demo till cannot be reached at http://127.0.0.1:1/v1/sales: Connection refused (os error 111); check `api_endpoint` and the network"
            }
          ],
          "failures": [],
          "notes": null,
          "parameters": null,
          "run": {
            "attempt": 1,
            "completed_at": "2026-01-04T12:00:00.000Z",
            "created_at": "2026-01-04T12:00:00.000Z",
            "duration_seconds": 0.000,
            "error_code": "vendor_unreachable",
            "error_message": "The demo till cannot be reached at http://127.0.0.1:1/v1/sales: Connection refused (os error 111); check `api_endpoint` and the network",
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
            "started_at": "2026-01-04T12:00:00.000Z",
            "status": "failed",
            "sync_type": "transactions",
            "system_id": "id-3",
            "trigger": "manual"
          }
        }
        "#));
    }
}

#[tokio::test]
async fn runs_are_listed_newest_first_and_filtered() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let (system, _) = failed_run(&app, &admin).await;
        app.advance(chrono::TimeDelta::seconds(1));
        app.post(&format!("/integrations/systems/{system}/test?wait=0"), &admin, &json!({})).await;
        app.drain().await;
        let types = async |query: &str| {
            let list = app.get(&format!("{RUNS}{query}"), &admin).await.json();
            let types =
                list.as_array().unwrap().iter().map(|run| run["sync_type"].as_str().unwrap().to_owned());
            types.collect::<Vec<_>>()
        };
        assert_eq!(types(&format!("?system_id={system}")).await, ["connection_test", "transactions"]);
        assert_eq!(types("?sync_type=transactions").await, ["transactions"]);
        assert_eq!(types(&format!("?system_id={system}&status=failed&limit=1")).await, ["connection_test"]);
        assert_eq!(types(&format!("?system_id={}", uuid::Uuid::nil())).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_pending_run_is_cancelled_once() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let system = app.system(&admin, json!({})).await;
        let started = app.post(&format!("/integrations/systems/{system}/sync"), &admin, &json!({})).await;
        let run = started.json()["runs"][0]["id"].as_str().unwrap().to_owned();
        let path = format!("{RUNS}/{run}/cancel");
        let cancelled = app.post(&path, &admin, &json!({})).await.json();
        assert_eq!(cancelled["status"], "cancelled");
        assert_eq!(cancelled["error_message"], "cancelled by `admin-chain`");
        let shown = app.post(&path, &admin, &json!({})).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        409
        {
          "code": "run_ended",
          "detail": "the run has ended as `cancelled`; there is nothing to cancel",
          "request_id": "test",
          "status": 409,
          "title": "Conflict",
          "type": "/problems/run_ended"
        }
        "#));
    }
}

#[tokio::test]
async fn a_failed_run_is_repeated_by_a_run_that_names_it() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let (system, run) = failed_run(&app, &admin).await;
        let path = format!("{RUNS}/{run}/retry");
        let retried = app.post(&path, &admin, &json!({})).await;
        assert_eq!(retried.status, 202, "{}", retried.text);
        assert_eq!(retried.json()["retry_of"], json!(run));
        assert_eq!(retried.json()["sync_type"], "transactions");
        app.drain().await;

        let started = app.post(&format!("/integrations/systems/{system}/sync"), &admin, &json!({})).await;
        let pending = started.json()["runs"][0]["id"].as_str().unwrap().to_owned();
        let refused = app.post(&format!("{RUNS}/{pending}/retry"), &admin, &json!({})).await;
        let shown = refused.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        409
        {
          "code": "not_retryable",
          "detail": "the run is `pending`; only one that failed, was cancelled or is partial is repeated",
          "request_id": "test",
          "status": 409,
          "title": "Conflict",
          "type": "/problems/not_retryable"
        }
        "#));
        app.drain().await;
    }
}

#[tokio::test]
async fn a_range_with_other_parameters_is_a_run_of_its_own() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let system = app.system(&admin, json!({"api_endpoint": "http://127.0.0.1:1", "api_key": "k"})).await;
    let path = format!("/integrations/systems/{system}/sync");
    let range = json!({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"});
    let backfill = app.post(&path, &admin, &range).await.json();
    let normal = app.post(&path, &admin, &json!({})).await.json();
    assert_ne!(backfill["runs"][0]["id"], normal["runs"][0]["id"]);
    assert_eq!(backfill["runs"][0]["trigger"], "backfill");
    let shown =
        app.get(&format!("{RUNS}/{}", backfill["runs"][0]["id"].as_str().unwrap()), &admin).await.json();
    assert_eq!(shown["parameters"]["from"], "2026-01-01T00:00:00Z");
    assert_eq!(shown["failures"], Value::Array(vec![]));
    app.drain().await;
}
