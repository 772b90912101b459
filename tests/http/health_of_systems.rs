//! How systems are, and why.

use serde_json::json;
use zhilian_sync::simulator::scripted::{Answer, Scripted};

use crate::support::TestApp;

#[tokio::test]
async fn a_new_system_is_unknown_and_one_that_fails_says_why() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let refusing = Scripted::start_with(|_| Answer::status(500)).await.unwrap();
        let system = app.system(&admin, json!({"api_endpoint": refusing.url(), "api_key": "k"})).await;
        let path = format!("/integrations/systems/{system}/health");
        let shown = app.get(&path, &admin).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        200
        {
          "consecutive_failures": 0,
          "counted_max": 1000,
          "dead_events": 0,
          "failed_24h": 0,
          "failure_rate_24h": null,
          "freshness_seconds": null,
          "last_error": null,
          "last_run_at": null,
          "last_run_status": null,
          "last_success_at": null,
          "level": "unknown",
          "name": "Till",
          "next_sync_at": null,
          "open_failures": 0,
          "pending_events": 0,
          "pending_runs": 0,
          "quarantined_events": 0,
          "reasons": [
            "nothing was tried yet; test the connection"
          ],
          "runs_24h": 0,
          "score": 100,
          "status": "inactive",
          "system_id": "id-1"
        }
        "#));
        for _ in 0..4 {
            app.post(&format!("/integrations/systems/{system}/sync"), &admin, &json!({})).await;
            app.drain().await;
        }
        app.post(&format!("/integrations/systems/{system}/sync"), &admin, &json!({})).await;
        crate::failures::fail(&app, &system, "transactions", "A").await;
        let health = app.get(&path, &admin).await.json();
        assert_eq!((&health["score"], &health["level"]), (&json!(10), &json!("failing")));
        assert_eq!(
            health["reasons"],
            json!([
                "4 runs failed in a row",
                "4 of 4 runs of the last 24 hours failed",
                "1 record could not be kept",
            ])
        );
        let figures = ["runs_24h", "failed_24h", "pending_runs", "open_failures", "consecutive_failures"];
        assert_eq!(figures.map(|name| health[name].as_i64().unwrap()), [4, 4, 1, 1, 4]);
        assert_eq!(health["failure_rate_24h"].to_string(), "1.000");
        app.drain().await;

        app.advance(chrono::TimeDelta::hours(25));
        let admin = app.admin().await;
        app.system(&admin, json!({"name": "Second"})).await;
        let listed = app.get("/integrations/health", &admin).await.json();
        assert_eq!((&listed[0]["name"], &listed[1]["name"]), (&json!("Second"), &json!("Till")));
        assert_eq!(listed[1]["runs_24h"], 0, "of yesterday");
        let page = app.get("/integrations/health?limit=1", &admin).await;
        assert!(page.header("link").is_some() && page.json().as_array().unwrap().len() == 1);
    }
}

#[tokio::test]
async fn a_success_is_fresh_until_it_is_not() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let empty = json!({"code": 0, "message": "ok", "data": {"items": [], "page": 1, "pages": 1}});
    let vendor = Scripted::start_with(move |_| Answer::json(200, &empty)).await.unwrap();
    let system = app.system(&admin, json!({"api_endpoint": vendor.url(), "api_key": "k"})).await;
    app.post(&format!("/integrations/systems/{system}/sync"), &admin, &json!({})).await;
    app.drain().await;
    app.put(&format!("/integrations/systems/{system}"), &admin, &json!({"status": "active"})).await;
    let path = format!("/integrations/systems/{system}/health");
    let health = app.get(&path, &admin).await.json();
    assert_eq!((&health["level"], &health["freshness_seconds"]), (&json!("healthy"), &json!(0)));
    assert_eq!(health["reasons"], json!(["all is well"]));
    app.advance(chrono::TimeDelta::minutes(40));
    let health = app.get(&path, &admin).await.json();
    assert_eq!((&health["level"], &health["freshness_seconds"]), (&json!("degraded"), &json!(2400)));
    assert_eq!(health["reasons"], json!(["the last success is 40 minutes old"]));
}
