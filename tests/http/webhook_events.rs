//! What people see of webhooks, and what they can do about those that were not applied.

use chrono::TimeDelta;
use serde_json::{Value, json};
use zhilian_sync_store::Role;

use crate::hooks::{SECRET, audited, events, only_event, post, post_signed, sale, sales, signed, till};
use crate::support::TestApp;

const EVENTS: &str = "/integrations/webhook-events";
const ANOTHER: &str = "another-secret";

#[tokio::test]
async fn events_are_listed_newest_first_by_filter_and_page_by_page() {
    for app in TestApp::every().await {
        let (first, second) = (till(&app, json!({})).await, till(&app, json!({})).await);
        for number in 0..5 {
            app.advance(TimeDelta::minutes(1));
            post_signed(&app, &first, &sale(&format!("T-{number}"), "1.00")).await;
        }
        app.drain().await;
        app.advance(TimeDelta::minutes(1));
        let other = json!({"event": "order.closed", "data": {"id": 1}}).to_string();
        post(&app, &second, &signed(&other, ANOTHER), &other).await;
        for (query, expected) in [
            ("", 6),
            (&format!("?system_id={first}"), 5),
            (&format!("?system_id={second}&state=quarantined"), 1),
            ("?state=applied&result=stored", 5),
            ("?state=dead", 0),
            ("?event_type=order.closed", 1),
            ("?from=2026-01-04T12:03:00Z&to=2026-01-04T12:05:00Z", 2),
        ] {
            assert_eq!(events(&app, query).await.len(), expected, "{query}");
        }
        let admin = app.admin().await;
        let mut path = format!("/api/v1{EVENTS}?state=applied&limit=2");
        let mut seen = Vec::new();
        while !path.is_empty() {
            let page = app.get(path.strip_prefix("/api/v1").unwrap(), &admin).await;
            let at = |event: &Value| event["received_at"].as_str().unwrap().to_owned();
            seen.extend(page.json().as_array().unwrap().iter().map(at));
            let next = page.header("link").and_then(|link| link.split(['<', '>']).nth(1));
            path = next.unwrap_or_default().to_owned();
        }
        let minutes: Vec<String> =
            (1..=5).rev().map(|minute| format!("2026-01-04T12:0{minute}:00.000Z")).collect();
        assert_eq!(seen, minutes);
    }
}

#[tokio::test]
async fn a_wrong_filter_is_named() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    for wrong in [
        "state=lost",
        "result=eaten",
        "from=yesterday",
        "limit=501",
        "system_id=1",
        "cursor=x",
        "event_type=",
    ] {
        let refused = app.get(&format!("{EVENTS}?{wrong}"), &admin).await;
        assert_eq!(refused.status, 422, "{wrong}: {}", refused.text);
    }
}

#[tokio::test]
async fn what_an_event_carried_is_for_those_who_may_see_it() {
    for app in TestApp::every().await {
        let system = till(&app, json!({})).await;
        post_signed(&app, &system, &sale("T-1", "1.00")).await;
        app.drain().await;
        let path = format!("{EVENTS}/{}", only_event(&app).await);
        for role in Role::ALL {
            let token = app.token(*role, None).await;
            let shown = app.get(&path, &token).await;
            assert_eq!((shown.status, shown.json()["event"]["state"].as_str()), (200, Some("applied")));
            assert!(!shown.text.contains("wechat"), "{role}");
            let may = matches!(role, Role::Admin | Role::StoreManager);
            let asked = app.get(&format!("{path}?payload=true"), &token).await;
            assert_eq!(
                (asked.status, asked.text.contains("wechat")),
                (if may { 200 } else { 403 }, may),
                "{role}"
            );
            assert!(!app.get(EVENTS, &token).await.text.contains("wechat"), "{role}");
        }
        let admin = app.admin().await;
        let payload = app.get(&format!("{path}?payload=true"), &admin).await.json()["payload"].clone();
        assert_eq!((&payload["encoding"], &payload["body"]), (&json!("text"), &json!(sale("T-1", "1.00"))));
        assert!(payload["request"]["headers"]["x-webhook-signature"].is_string(), "{payload}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_are_shown_as_base64() {
    let app = TestApp::new().await;
    let system = till(&app, json!({"webhook_secret": null})).await;
    let path = format!("/api/v1/integrations/webhooks/pos/{system}");
    let body = poem::Body::from(vec![0xff_u8, 0, 1]);
    assert_eq!(app.send_body(poem::http::Method::POST, &path, &[], body).await.status, 200);
    let admin = app.admin().await;
    let shown = app.get(&format!("{EVENTS}/{}?payload=true", only_event(&app).await), &admin).await.json();
    assert_eq!(
        (&shown["payload"]["encoding"], &shown["payload"]["body"]),
        (&json!("base64"), &json!("/wAB"))
    );
}

#[tokio::test]
async fn another_stores_manager_sees_nothing_and_can_do_nothing() {
    for app in TestApp::every().await {
        let system = till(&app, json!({"store_id": "store-2"})).await;
        post(&app, &system, &[], &sale("T-1", "1.00")).await;
        let event = only_event(&app).await;
        let other = app.token(Role::StoreManager, Some("store-1")).await;
        assert_eq!(app.get(EVENTS, &other).await.json(), json!([]));
        assert_eq!(app.get(&format!("{EVENTS}?system_id={system}"), &other).await.json(), json!([]));
        assert_eq!(app.get(&format!("{EVENTS}/{event}"), &other).await.status, 404);
        for path in [
            format!("{EVENTS}/{event}/replay"),
            format!("/integrations/systems/{system}/webhook-events/reverify"),
            format!("/integrations/systems/{system}/webhook-secret"),
        ] {
            assert_eq!(app.post(&path, &other, &json!({})).await.status, 404, "{path}");
        }
        let body = json!({"system_id": system});
        assert_eq!(app.post(&format!("{EVENTS}/replay"), &other, &body).await.status, 404);
        let own = app.token(Role::StoreManager, Some("store-2")).await;
        assert_eq!(app.get(EVENTS, &own).await.json().as_array().unwrap().len(), 1);
        assert_eq!(app.get(&format!("{EVENTS}/{event}?payload=true"), &own).await.status, 200);
    }
}

#[tokio::test]
async fn an_event_is_applied_again_when_somebody_asks_for_it() {
    for app in TestApp::every().await {
        let system = till(&app, json!({})).await;
        post_signed(&app, &system, &sale("T-1", "1.00")).await;
        app.drain().await;
        app.advance(TimeDelta::minutes(1));
        // A later observation of the same sale, which a replay must not undo unless it is forced.
        post_signed(&app, &system, &sale("T-1", "2.00")).await;
        app.drain().await;
        let first = events(&app, "").await[1]["id"].as_str().unwrap().to_owned();
        let manager = app.token(Role::StoreManager, None).await;
        for (force, total, result) in [(false, "2.00", "unchanged"), (true, "1.00", "stored")] {
            let asked =
                app.post(&format!("{EVENTS}/{first}/replay"), &manager, &json!({"force": force})).await;
            assert_eq!(
                (asked.status, asked.json()["state"].as_str()),
                (202, Some("pending")),
                "{}",
                asked.text
            );
            app.drain().await;
            assert_eq!(sales(&app).await, [("T-1".to_owned(), total.to_owned())], "force is {force}");
            let event = app.get(&format!("{EVENTS}/{first}"), &manager).await.json()["event"].clone();
            assert_eq!((&event["state"], &event["result"]), (&json!("applied"), &json!(result)), "{event}");
            app.advance(TimeDelta::seconds(1));
        }
        let done = audited(&app, "webhook_event.replay").await;
        let changes = json!({"state": {"from": "applied", "to": "pending"}});
        let detail = |forced: bool| json!({"forced": forced, "changes": changes});
        assert_eq!(done, [(first.clone(), detail(true)), (first, detail(false))]);
    }
}

#[tokio::test]
async fn events_are_applied_again_by_filter_as_a_run() {
    for app in TestApp::every().await {
        let system = till(&app, json!({})).await;
        for number in 0..3 {
            app.advance(TimeDelta::minutes(1));
            post_signed(&app, &system, &sale(&format!("T-{number}"), "1.00")).await;
        }
        app.drain().await;
        post(&app, &system, &[], &sale("T-9", "1.00")).await;
        zhilian_sync_store::on_write!(app.store(), |ex| {
            sqlx::query("DELETE FROM pos_transactions").execute(ex).await.map(drop)
        })
        .unwrap();
        let manager = app.token(Role::StoreManager, None).await;
        let mut body =
            json!({"system_id": system, "from": "2026-01-04T12:02:00Z", "state": "applied", "force": true});
        let refused = app.post(&format!("{EVENTS}/replay"), &manager, &body).await;
        assert_eq!(refused.status, 422, "many at once are not forced: {}", refused.text);
        assert!(refused.text.contains("force"), "{}", refused.text);
        body.as_object_mut().unwrap().remove("force");
        let started = app.post(&format!("{EVENTS}/replay"), &manager, &body).await;
        assert_eq!(started.status, 202, "{}", started.text);
        app.drain().await;
        let run = format!("/integrations/sync-logs/{}", started.json()["id"].as_str().unwrap());
        let run = app.get(&run, &manager).await.json()["run"].clone();
        assert_eq!((&run["status"], &run["records_success"]), (&json!("success"), &json!(2)), "{run}");
        let stored: Vec<String> = sales(&app).await.into_iter().map(|(id, _)| id).collect();
        assert_eq!(stored, ["T-1", "T-2"], "neither the one before that time nor the quarantined one");
        let audited = audited(&app, "webhook_events.replay").await;
        assert_eq!((&audited[0].0, &audited[0].1["state"]), (&system, &json!("applied")));
    }
}

#[tokio::test]
async fn what_cannot_be_applied_again_says_why() {
    let app = TestApp::new().await;
    let system = till(&app, json!({})).await;
    post(&app, &system, &[], &sale("T-1", "1.00")).await;
    let event = only_event(&app).await;
    let admin = app.admin().await;
    insta::assert_snapshot!(app.post(&format!("{EVENTS}/{event}/replay"), &admin, &json!({})).await.show(), @r#"
    409
    {
      "code": "not_replayable",
      "detail": "the event is quarantined; have it verified again, or release it",
      "request_id": "test",
      "status": 409,
      "title": "Conflict",
      "type": "/problems/not_replayable"
    }
    "#);
    let quarantined = json!({"system_id": system, "state": "quarantined"});
    insta::assert_snapshot!(app.post(&format!("{EVENTS}/replay"), &admin, &quarantined).await.show(), @r#"
    422
    {
      "code": "invalid_values",
      "detail": "`state` is `quarantined`, which is not replayed; have the events verified again, or release them",
      "errors": [
        {
          "detail": "is `quarantined`, which is not replayed; have the events verified again, or release them",
          "field": "state"
        }
      ],
      "request_id": "test",
      "status": 422,
      "title": "Unprocessable Entity",
      "type": "/problems/invalid_values"
    }
    "#);
    let nobody = json!({"state": "dead"});
    assert_eq!(app.post(&format!("{EVENTS}/replay"), &admin, &nobody).await.status, 422);
    let unknown = uuid::Uuid::from_u128(7);
    assert_eq!(app.post(&format!("{EVENTS}/{unknown}/replay"), &admin, &json!({})).await.status, 404);
}

#[tokio::test]
async fn genuine_events_are_applied_after_the_secret_is_mended() {
    for app in TestApp::every().await {
        let system = till(&app, json!({"webhook_secret": "mistyped"})).await;
        for number in 0..3 {
            assert_eq!(post_signed(&app, &system, &sale(&format!("T-{number}"), "1.00")).await.status, 401);
        }
        let stranger = sale("T-666", "1.00");
        post(&app, &system, &signed(&stranger, "guessed"), &stranger).await;
        app.drain().await;
        let admin = app.admin().await;
        app.put(&format!("/integrations/systems/{system}"), &admin, &json!({"webhook_secret": SECRET})).await;
        // The vendor repeats one of them meanwhile, and is understood.
        assert_eq!(post_signed(&app, &system, &sale("T-1", "1.00")).await.status, 200);
        let manager = app.token(Role::StoreManager, None).await;
        let path = format!("/integrations/systems/{system}/webhook-events/reverify");
        let mended = app.post(&path, &manager, &json!({})).await;
        let expected = json!({"verified": 2, "duplicates": 1, "refused": 1});
        assert_eq!((mended.status, mended.json()), (200, expected.clone()), "{}", mended.text);
        app.drain().await;
        let stored: Vec<String> = sales(&app).await.into_iter().map(|(id, _)| id).collect();
        assert_eq!(stored, ["T-0", "T-1", "T-2"]);
        assert_eq!(events(&app, "?state=applied").await.len(), 3);
        assert_eq!(events(&app, "?state=duplicate").await.len(), 1);
        let refused = events(&app, "?state=quarantined").await;
        assert_eq!((refused.len(), &refused[0]["error_code"]), (1, &json!("signature_mismatch")));
        assert_eq!(audited(&app, "webhook_events.reverify").await, [(system, expected)]);
    }
}

#[tokio::test]
async fn an_admin_may_accept_what_nobody_can_verify() {
    for app in TestApp::every().await {
        let system = till(&app, json!({"webhook_secret": null})).await;
        post(&app, &system, &[], &sale("T-1", "1.00")).await;
        let event = only_event(&app).await;
        let path = format!("{EVENTS}/{event}/release");
        let manager = app.token(Role::StoreManager, None).await;
        assert_eq!(app.post(&path, &manager, &json!({})).await.status, 403);
        let admin = app.admin().await;
        let released = app.post(&path, &admin, &json!({})).await;
        assert_eq!(released.status, 200, "{}", released.text);
        assert_eq!(released.json()["event"]["accepted_by"], "release");
        app.drain().await;
        assert_eq!(sales(&app).await.len(), 1);
        let again = app.post(&path, &admin, &json!({})).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(again, @r#"
        409
        {
          "code": "not_quarantined",
          "detail": "the event is `applied`; only a quarantined one is released",
          "request_id": "test",
          "status": 409,
          "title": "Conflict",
          "type": "/problems/not_quarantined"
        }
        "#));
        let changes = json!({"changes": {"state": {"from": "quarantined", "to": "pending"}}});
        assert_eq!(audited(&app, "webhook_event.release").await, [(event, changes)]);
    }
}

#[tokio::test]
async fn only_an_admin_gives_up_verification() {
    for app in TestApp::every().await {
        let system = till(&app, json!({"webhook_secret": null})).await;
        let path = format!("/integrations/systems/{system}");
        let (admin, manager) = (app.admin().await, app.token(Role::StoreManager, None).await);
        let given_up = json!({"webhook_verification": "none"});
        let refused = app.put(&path, &manager, &given_up).await.show();
        insta::allow_duplicates!(insta::assert_snapshot!(refused, @r#"
        403
        {
          "code": "forbidden",
          "detail": "the role `store_manager` may not give up the verification of webhooks; an admin may",
          "request_id": "test",
          "status": 403,
          "title": "Forbidden",
          "type": "/problems/forbidden"
        }
        "#));
        let made = json!({"name": "T", "type": "pos", "provider": "x", "webhook_verification": "none"});
        assert_eq!(app.post("/integrations/systems", &manager, &made).await.status, 403);
        assert_eq!(app.put(&path, &admin, &given_up).await.json()["webhook_verification"], "none");
        // Who keeps it as it is gives up nothing.
        assert_eq!(app.put(&path, &manager, &given_up).await.status, 200);
        assert_eq!(post(&app, &system, &[], &sale("T-1", "1.00")).await.status, 200);
        app.drain().await;
        assert_eq!(sales(&app).await.len(), 1);
        assert_eq!(events(&app, "").await[0]["accepted_by"], "waiver");
        let strict = json!({"webhook_verification": "signature"});
        assert_eq!(app.put(&path, &manager, &strict).await.json()["webhook_verification"], "signature");
        app.advance(TimeDelta::seconds(1));
        post(&app, &system, &[], &sale("T-2", "1.00")).await;
        assert_eq!(events(&app, "").await[0]["state"], "quarantined");
        let change =
            |from: &str, to: &str| json!({"changes": {"webhook_verification": {"from": from, "to": to}}});
        let changes = audited(&app, "system.update").await;
        assert_eq!(changes.len(), 3, "{changes:?}");
        for detail in [change("signature", "none"), Value::Null, change("none", "signature")] {
            assert!(changes.contains(&(system.clone(), detail)), "{changes:?}");
        }
    }
}

#[tokio::test]
async fn a_deleted_systems_waiting_events_are_given_up() {
    for app in TestApp::every().await {
        let system = till(&app, json!({})).await;
        post_signed(&app, &system, &sale("T-1", "1.00")).await;
        let admin = app.admin().await;
        app.delete(&format!("/integrations/systems/{system}"), &admin).await;
        app.drain().await;
        assert!(sales(&app).await.is_empty());
        let event = events(&app, "").await.remove(0);
        assert_eq!((&event["state"], &event["error_code"]), (&json!("dead"), &json!("system_deleted")));
        let path = format!("{EVENTS}/{}/replay", event["id"].as_str().unwrap());
        assert_eq!(app.post(&path, &admin, &json!({})).await.status, 404);
    }
}
