//! Systems: create, list, show, change, delete, pause and resume.

use serde_json::{Value, json};
use zhilian_sync_store::{Role, audit_logs, pos_transactions};

use crate::support::TestApp;

const SYSTEMS: &str = "/integrations/systems";

#[tokio::test]
async fn a_system_is_made_in_the_seeds_shape() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let body = json!({
            "name": "前厅收银", "type": "pos", "provider": "demo-pos", "store_id": "store-1",
            "config": {
                "api_endpoint": "https://pos.example.com", "api_key": "key-1", "api_secret": "secret-1",
                "webhook_url": "https://sync.example.com/hook", "region": "华东",
            },
            "webhook_secret": "hook-1",
            "vendor_code": "X1",
        });
        let made = app.post(SYSTEMS, &admin, &body).await;
        let shown = made.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        200
        {
          "api_endpoint": "https://pos.example.com",
          "config": {
            "region": "华东"
          },
          "consecutive_failures": 0,
          "created_at": "2026-01-04T12:00:00.000Z",
          "credential_names": [
            "api_key",
            "api_secret"
          ],
          "currency": "CNY",
          "has_api_key": true,
          "has_api_secret": true,
          "has_webhook_secret": true,
          "health": "inactive",
          "id": "id-1",
          "ignored_fields": [
            "vendor_code"
          ],
          "last_error": null,
          "last_sync_at": null,
          "last_sync_status": null,
          "member_conflict": "newest",
          "name": "前厅收银",
          "next_sync_at": null,
          "paused": false,
          "paused_note": null,
          "provider": "demo-pos",
          "setup_problems": [],
          "status": "inactive",
          "store_id": "store-1",
          "store_map": {},
          "streams": [
            "transactions"
          ],
          "sync_cron": null,
          "sync_enabled": true,
          "sync_interval": 300,
          "timezone": "Asia/Shanghai",
          "type": "pos",
          "updated_at": "2026-01-04T12:00:00.000Z",
          "version": 1,
          "webhook_path": "/api/v1/integrations/webhooks/pos/id-1",
          "webhook_secret_expiries": [],
          "webhook_url": "https://sync.example.com/hook",
          "webhook_verification": "signature"
        }
        "#));

        let path = format!("{SYSTEMS}/{}", made.json()["id"].as_str().unwrap());
        let mut expected = made.json();
        expected.as_object_mut().unwrap().remove("ignored_fields");
        assert_eq!(app.get(&path, &admin).await.json(), expected);
    }
}

#[tokio::test]
async fn every_wrong_value_is_told_at_once() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let body = json!({"name": 7, "type": "shop", "sync_interval": 1, "api_key": 5});
    insta::assert_snapshot!(app.post(SYSTEMS, &admin, &body).await.show(), @r#"
    422
    {
      "code": "invalid_values",
      "detail": "`name` is a number; expected a text; `type` is not one of `pos`, `supplier`, `member`, `payment`, `delivery`, `erp`, `reservation`; `provider` is missing; `api_key` is a number; expected a text; `sync_interval` is not a whole number between 10 and 31536000",
      "errors": [
        {
          "detail": "is a number; expected a text",
          "field": "name"
        },
        {
          "detail": "is not one of `pos`, `supplier`, `member`, `payment`, `delivery`, `erp`, `reservation`",
          "field": "type"
        },
        {
          "detail": "is missing",
          "field": "provider"
        },
        {
          "detail": "is a number; expected a text",
          "field": "api_key"
        },
        {
          "detail": "is not a whole number between 10 and 31536000",
          "field": "sync_interval"
        }
      ],
      "request_id": "test",
      "status": 422,
      "title": "Unprocessable Entity",
      "type": "/problems/invalid_values"
    }
    "#);
}

#[tokio::test]
async fn only_runs_set_a_system_to_error() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let body = json!({"name": "Till", "type": "pos", "provider": "demo-pos", "status": "error"});
    let refused = app.post(SYSTEMS, &admin, &body).await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.json()["detail"], "`status` is not one of `active`, `inactive`, `testing`");
}

#[tokio::test]
async fn values_that_do_not_fit_each_other_are_told_at_once() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let body = json!({
        "name": "Till", "type": "supplier", "provider": "square", "timezone": "Asia/Peking", "currency": "RMB!"[..3],
        "api_endpoint": "https://user:pw@pos.example.com", "sync_cron": "0 2 * * *", "sync_interval": 600,
        "store_map": {"shop": 5},
    });
    insta::assert_snapshot!(app.post(SYSTEMS, &admin, &body).await.show(), @r#"
    422
    {
      "code": "invalid_values",
      "detail": "`api_endpoint` holds a user name or a password; give them as credentials; `store_map` has a value that is no text; expected shop id → store id; `sync_cron` is given together with `sync_interval`; give one of the two; `timezone` `Asia/Peking` is not an IANA time zone; write a name such as `Asia/Shanghai`, `Europe/London` or `UTC`; `type` does not fit: `square` is a vendor of `pos`, `payment`, `member`, not of `supplier`",
      "errors": [
        {
          "detail": "holds a user name or a password; give them as credentials",
          "field": "api_endpoint"
        },
        {
          "detail": "has a value that is no text; expected shop id → store id",
          "field": "store_map"
        },
        {
          "detail": "is given together with `sync_interval`; give one of the two",
          "field": "sync_cron"
        },
        {
          "detail": "`Asia/Peking` is not an IANA time zone; write a name such as `Asia/Shanghai`, `Europe/London` or `UTC`",
          "field": "timezone"
        },
        {
          "detail": "does not fit: `square` is a vendor of `pos`, `payment`, `member`, not of `supplier`",
          "field": "type"
        }
      ],
      "request_id": "test",
      "status": 422,
      "title": "Unprocessable Entity",
      "type": "/problems/invalid_values"
    }
    "#);
}

#[tokio::test]
async fn settings_that_a_database_cannot_hold_are_refused_on_both() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let path = format!("{SYSTEMS}/{}", app.system(&admin, json!({})).await);
        let huge: Value = serde_json::from_str(r#"{"config": {"n": [1e999999]}}"#).unwrap();
        for body in [huge, json!({"config": {"a": {"b": "\0"}}}), json!({"store_map": {"\0": "store-1"}})] {
            let refused = app.put(&path, &admin, &body).await;
            assert_eq!(refused.status, 422, "{body}: {}", refused.text);
        }
        let long = json!({"config": {"a": 12_345_678_901_234_567_890_u64, "b": "\u{10ffff}"}});
        assert_eq!(app.put(&path, &admin, &long).await.json()["config"], long["config"]);
    }
}

#[tokio::test]
async fn systems_are_listed_newest_first_page_by_page() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        for number in 1..=5 {
            app.advance(chrono::TimeDelta::seconds(1));
            let store = format!("store-{}", number % 2);
            app.system(&admin, json!({"name": format!("Till {number}"), "store_id": store})).await;
        }
        let mut path = format!("{SYSTEMS}?limit=2");
        let mut pages = Vec::new();
        loop {
            let page = app.get(&path, &admin).await;
            pages.push(names(&page.json()));
            let Some(link) = page.header("link") else { break };
            let next = link.strip_prefix("</api/v1").unwrap().strip_suffix(">; rel=\"next\"").unwrap();
            path = next.to_owned();
        }
        assert_eq!(pages, [vec!["Till 5", "Till 4"], vec!["Till 3", "Till 2"], vec!["Till 1"]]);

        let filtered = app.get(&format!("{SYSTEMS}?store_id=store-0&type=pos&status=inactive"), &admin).await;
        assert_eq!(names(&filtered.json()), ["Till 4", "Till 2"]);
        let scoped = app.token(Role::Staff, Some("store-1")).await;
        assert_eq!(names(&app.get(SYSTEMS, &scoped).await.json()), ["Till 5", "Till 3", "Till 1"]);
    }
}

#[tokio::test]
async fn what_is_absent_stays_and_null_takes_away() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let endpoint = json!({"api_endpoint": "https://pos.example.com", "config": {"region": "east"}});
    let system = app.system(&admin, endpoint).await;
    let path = format!("{SYSTEMS}/{system}");
    let changed =
        app.put(&path, &admin, &json!({"name": "Bar", "sync_cron": "30 2 * * *", "colour": "red"})).await;
    let fields = |answer: &Value| {
        ["name", "api_endpoint", "config", "sync_interval", "sync_cron", "version", "ignored_fields"]
            .map(|field| answer[field].clone())
    };
    assert_eq!(
        json!(fields(&changed.json())),
        json!(["Bar", "https://pos.example.com", {"region": "east"}, null, "30 2 * * *", 2, ["colour"]])
    );
    let changed =
        app.put(&path, &admin, &json!({"api_endpoint": null, "config": {}, "sync_interval": 600})).await;
    assert_eq!(json!(fields(&changed.json())), json!(["Bar", null, {}, 600, null, 3, null]));
}

#[tokio::test]
async fn a_deleted_system_is_gone_and_its_records_stay() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let system = app.system(&admin, json!({})).await;
        let transaction = json!({"transaction_id": "t-1", "total": 9.5});
        app.post(&format!("/integrations/pos/{system}/transactions"), &admin, &transaction).await;
        let run = app.post(&format!("{SYSTEMS}/{system}/sync"), &admin, &json!({})).await;
        let run = run.json()["runs"][0]["id"].as_str().unwrap().to_owned();
        let path = format!("{SYSTEMS}/{system}");
        assert_eq!(app.delete(&path, &app.token(Role::StoreManager, None).await).await.status, 403);
        let shown = app.delete(&path, &admin).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(shown, @r#"
        200
        {
          "message": "system `Till` is deleted; its records are kept",
          "success": true
        }
        "#));
        assert_eq!(app.get(&path, &admin).await.status, 404);
        assert_eq!(app.delete(&path, &admin).await.status, 404);
        let run = app.get(&format!("/integrations/sync-logs/{run}"), &admin).await;
        assert_eq!(run.json()["run"]["status"], "cancelled");
        let filter = pos_transactions::Filter { limit: 10, ..Default::default() };
        assert_eq!(pos_transactions::list(app.store(), &filter).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_paused_system_says_so_until_it_is_resumed() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let system = app.system(&admin, json!({"status": "active"})).await;
    let path = format!("{SYSTEMS}/{system}");
    let paused = app.post(&format!("{path}/pause"), &admin, &json!({"note": "stock-taking"})).await;
    let fields =
        |answer: &Value| json!([answer["paused"], answer["paused_note"], answer["health"], answer["status"]]);
    assert_eq!(fields(&paused.json()), json!([true, "stock-taking", "paused", "active"]));
    let resumed = app.send(poem::http::Method::POST, &format!("{path}/resume"), Some(&admin), None).await;
    assert_eq!(fields(&resumed.json()), json!([false, null, "healthy", "active"]));
}

#[tokio::test]
async fn every_change_leaves_a_trace() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let system = app.system(&admin, json!({"store_id": "store-1"})).await;
    let path = format!("{SYSTEMS}/{system}");
    let later = || app.advance(chrono::TimeDelta::seconds(1));
    later();
    app.put(&path, &admin, &json!({"name": "Bar"})).await;
    later();
    app.post(&format!("{path}/pause"), &admin, &json!({})).await;
    later();
    app.delete(&path, &admin).await;
    let trace = audit_logs::list(app.store(), None, 10).await.unwrap();
    let told: Vec<_> = trace
        .iter()
        .map(|entry| {
            format!(
                "{} by {:?} in {:?}",
                entry.action,
                entry.actor_name.as_deref(),
                entry.store_id.as_deref()
            )
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    system.delete by Some("admin-chain") in Some("store-1")
    system.pause by Some("admin-chain") in Some("store-1")
    system.update by Some("admin-chain") in Some("store-1")
    system.create by Some("admin-chain") in Some("store-1")
    "#);
    assert!(trace.iter().all(|entry| entry.request_id.as_deref() == Some("test")));
    assert!(trace.iter().all(|entry| entry.entity_id.as_deref() == Some(system.as_str())));
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|system| system["name"].as_str().unwrap().to_owned()).collect()
}
