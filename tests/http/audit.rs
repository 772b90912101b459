//! The audit: who did what, what it was before, and nothing that is secret.

use serde_json::{Value, json};
use zhilian_sync_store::Role;

use crate::support::TestApp;

#[tokio::test]
async fn a_change_is_told_with_what_was_before_and_secrets_are_not() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let system = app
            .system(&admin, json!({"api_endpoint": "https://pos.example.com", "api_key": "hunter2"}))
            .await;
        let path = format!("/integrations/systems/{system}");
        app.advance(chrono::TimeDelta::seconds(1));
        app.put(&path, &admin, &json!({"name": "Other", "api_key": "hunter3"})).await;
        app.advance(chrono::TimeDelta::seconds(1));
        app.post(&format!("{path}/pause"), &admin, &json!({"note": "closed"})).await;
        app.advance(chrono::TimeDelta::seconds(1));
        app.send(poem::http::Method::DELETE, &path, Some(&admin), None).await;
        let list = app.get(&format!("/audit-logs?entity=system&entity_id={system}"), &admin).await;
        let entries = list.json();
        let actions: Vec<&str> =
            entries.as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["system.delete", "system.pause", "system.update", "system.create"]);
        assert_eq!(
            entries[2]["detail"],
            json!({"changes": {"name": {"from": "Till", "to": "Other"}, "credentials": "changed"}})
        );
        assert_eq!(entries[1]["detail"]["changes"]["paused"], json!({"from": false, "to": true}));
        assert_eq!(entries[3]["detail"]["changes"]["credentials"], "changed");
        assert_eq!(entries[2]["actor_name"], "admin-chain");
        assert_eq!(entries[2]["request_id"], "test");
        assert!(!list.text.contains("hunter"));
    }
}

#[tokio::test]
async fn entries_are_found_and_exported() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        for index in 0..3 {
            app.system(&admin, json!({"name": format!("Till {index}"), "store_id": "store-1"})).await;
        }
        let scoped = app.token(Role::Admin, Some("store-2")).await;
        for (filter, found) in [
            ("action=system.create", 3),
            ("action=system.delete", 0),
            ("store_id=store-1", 3),
            ("entity=system&from=2026-01-04T12:00:00Z&to=2026-01-04T12:00:01Z", 3),
            ("entity=system&to=2026-01-04T12:00:00Z", 0),
            ("action=system.create&limit=2", 2),
        ] {
            let list = app.get(&format!("/audit-logs?{filter}"), &admin).await.json();
            assert_eq!(list.as_array().unwrap().len(), found, "{filter}");
            assert_eq!(
                app.get(&format!("/audit-logs?{filter}"), &scoped).await.json(),
                json!([]),
                "{filter}"
            );
        }
        let export = app.get("/audit-logs/export?action=system.create", &admin).await;
        assert_eq!(export.header("content-type"), Some("application/x-ndjson"));
        let lines: Vec<Value> = export.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(json!(lines), app.get("/audit-logs?action=system.create", &admin).await.json());
        assert_eq!(app.get("/audit-logs/export", &scoped).await.text, "");
    }
}

#[tokio::test]
async fn an_export_has_every_page() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let mut tx = app.store().begin().await.unwrap();
    for index in 0..1_234 {
        let id = index.to_string();
        let entry = zhilian_sync_store::audit_logs::NewAuditLog {
            action: "test.many",
            entity: "test",
            entity_id: Some(&id),
            ..Default::default()
        };
        zhilian_sync_store::audit_logs::insert(&mut tx, app.store().clock(), entry).await.unwrap();
    }
    tx.commit().await.unwrap();
    let export = app.get("/audit-logs/export?action=test.many", &admin).await;
    let mut ids: Vec<u32> = export
        .text
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["entity_id"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    assert_eq!(ids.len(), 1_234);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 1_234, "each once");
}
