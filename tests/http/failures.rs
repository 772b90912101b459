//! Records that could not be kept: listed, filtered, shown.

use serde_json::json;
use uuid::Uuid;
use zhilian_sync_store::sync_failures::{self, Failing, FailureStage, Filter, NewFailure};
use zhilian_sync_store::{Role, SystemId};

use crate::support::TestApp;

/// Has a record of a system fail; the id of the failure.
pub(crate) async fn fail(app: &TestApp, system: &str, stream: &str, record: &str) -> Uuid {
    let system_id = SystemId(system.parse().unwrap());
    let failure = NewFailure {
        external_id: record.into(),
        stage: FailureStage::Mapping,
        reason: "`total` is no amount".into(),
        raw: json!({"id": record, "phone": "13800000000"}).to_string(),
    };
    let of = Failing { system_id, stream, sync_log_id: None };
    // Later than the one before.
    app.advance(chrono::TimeDelta::seconds(1));
    let mut tx = app.store().begin().await.unwrap();
    sync_failures::record_batch(&mut tx, app.store().clock(), of, vec![failure]).await.unwrap();
    tx.commit().await.unwrap();
    let filter = Filter { system_id: Some(system_id), limit: 1, ..Filter::default() };
    sync_failures::list(app.store(), &filter).await.unwrap()[0].id
}

#[tokio::test]
async fn failures_are_listed_newest_first_and_by_filter() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let (one, two) = (app.system(&admin, json!({})).await, app.system(&admin, json!({})).await);
        for (system, stream, record) in
            [(&one, "sales", "A"), (&one, "sales", "B"), (&one, "shifts", "C"), (&two, "sales", "D")]
        {
            fail(&app, system, stream, record).await;
        }
        let listed = async |query: String| {
            let rows = app.get(&format!("/integrations/sync-failures{query}"), &admin).await.json();
            let rows = rows.as_array().unwrap().clone();
            assert!(rows.iter().all(|row| row.get("raw").is_none()), "a list holds no records");
            rows.iter().map(|row| row["external_id"].as_str().unwrap().to_owned()).collect::<String>()
        };
        assert_eq!(listed(String::new()).await, "DCBA");
        assert_eq!(listed(format!("?system_id={one}")).await, "CBA");
        assert_eq!(listed(format!("?system_id={one}&stream=sales")).await, "BA");
        assert_eq!(listed(format!("?run_id={}", Uuid::nil())).await, "");
        assert_eq!(listed("?open=false".into()).await, "");
        let page = app.get("/integrations/sync-failures?limit=3", &admin).await;
        let next = page.header("link").unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
        let next = next.strip_prefix("/api/v1/integrations/sync-failures").unwrap().to_owned();
        assert_eq!(listed(next).await, "A");
    }
}

#[tokio::test]
async fn a_failure_is_shown_with_its_record_to_those_who_may_see_it() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let system = app.system(&admin, json!({"store_id": "store-1"})).await;
    let id = fail(&app, &system, "sales", "A").await;
    let path = format!("/integrations/sync-failures/{id}");
    insta::assert_snapshot!(app.get(&path, &admin).await.show(), @r#"
    200
    {
      "created_at": "2026-01-04T12:00:01.000Z",
      "external_id": "A",
      "id": "id-1",
      "occurrences": 1,
      "raw": {
        "id": "A",
        "phone": "13800000000"
      },
      "reason": "`total` is no amount",
      "resolved_at": null,
      "run_id": null,
      "stage": "mapping",
      "stream": "sales",
      "system_id": "id-2",
      "updated_at": "2026-01-04T12:00:01.000Z"
    }
    "#);
    let staff = app.token(Role::Staff, Some("store-1")).await;
    let shown = app.get(&path, &staff).await;
    assert_eq!((shown.status, shown.json().get("raw")), (200, None));
    let other = app.token(Role::Admin, Some("store-2")).await;
    assert_eq!(app.get(&path, &other).await.status, 404);
}

#[tokio::test]
async fn failures_are_tried_again_by_those_who_may_manage_runs() {
    for app in TestApp::every().await {
        let admin = app.admin().await;
        let system = app.system(&admin, json!({"store_id": "store-1"})).await;
        let id = fail(&app, &system, "transactions", "A").await;
        let path = format!("/integrations/systems/{system}/failures/retry");
        let manager = app.token(Role::StoreManager, Some("store-1")).await;
        let started = app.post(&path, &manager, &json!({"stream": "transactions"})).await;
        assert_eq!(started.status, 202, "{}", started.text);
        let run = started.json();
        assert_eq!((&run["kind"], &run["sync_type"]), (&json!("retry_failures"), &json!("transactions")));
        let same = app.post(&path, &manager, &json!({"stream": "transactions"})).await.json();
        assert_eq!(same["id"], run["id"], "a second wish joins the first");
        app.drain().await;
        let run = app.get(&format!("/integrations/sync-logs/{}", run["id"].as_str().unwrap()), &admin).await;
        assert_eq!(run.json()["run"]["status"], "partial", "{}", run.text);
        let failure = app.get(&format!("/integrations/sync-failures/{id}"), &admin).await.json();
        assert_eq!(failure["resolved_at"], json!(null));
        assert!(failure["reason"].as_str().unwrap().contains("sale_id"), "{failure}");

        let audit = app.get("/audit-logs?action=failures.retry", &admin).await.json();
        assert_eq!(audit[0]["entity_id"], json!(system), "{audit}");
        let staff = app.token(Role::Staff, Some("store-1")).await;
        assert_eq!(app.post(&path, &staff, &json!({})).await.status, 403);
        let other = app.token(Role::StoreManager, Some("store-2")).await;
        assert_eq!(app.post(&path, &other, &json!({})).await.status, 404);
        let typo = app.post(&path, &manager, &json!({"streams": "transactions"})).await;
        assert_eq!(typo.status, 422);
        // Without a stream it is about all of them.
        let all = app.post(&path, &manager, &json!({})).await;
        assert_eq!((all.status, &all.json()["sync_type"]), (202, &json!("retry_failures")));
        app.drain().await;
    }
}
