//! The route table, walked: every route refuses whoever may not call it.

use poem::http::Method;
use serde_json::{Value, json};
use zhilian_sync::api::access::{Access, allows};
use zhilian_sync::api::{ROUTES, Route};
use zhilian_sync_store::Role;

use crate::hooks::post;
use crate::support::TestApp;

/// The routes that anyone may call; a new one has to be added here on purpose.
const PUBLIC: &[&str] = &[
    "sign_in",
    "show_liveness",
    "show_readiness",
    // Vendors have no login: they sign what they send.
    "receive_webhook",
    "answer_handshake",
    "answer_probe",
];

#[tokio::test]
async fn every_route_refuses_a_stranger_unless_it_is_public() {
    let app = TestApp::new().await;
    for route in ROUTES {
        let path = concrete(route.path, &nil(), &nil(), &nil());
        let answered = app.send(route.method.clone(), &path, None, Some(&json!({}))).await;
        let public = route.access == Access::Public;
        assert_eq!(public, PUBLIC.contains(&route.operation), "{}", route.operation);
        assert_eq!(answered.status == 401, !public, "{}: {}", route.operation, answered.text);
        let forged = app.send(route.method.clone(), &path, Some("forged"), Some(&json!({}))).await;
        assert_eq!(forged.status == 401, !public, "{}: {}", route.operation, forged.text);
    }
}

#[tokio::test]
async fn every_route_refuses_the_roles_that_may_not_call_it() {
    // A stream would not end; that no place is left is told after the role.
    let app = TestApp::with(|settings| settings.events.listeners_max = 0).await;
    for role in Role::ALL {
        let token = app.token(*role, None).await;
        for route in ROUTES.iter().filter(|route| route.operation != "sign_out") {
            let Access::Needs(permission) = route.access else {
                continue;
            };
            let path = concrete(route.path, &nil(), &nil(), &nil());
            let answered = app.send(route.method.clone(), &path, Some(&token), Some(&json!({}))).await;
            let told = format!("{role} on {}: {}", route.operation, answered.text);
            assert_eq!(answered.status == 403, !allows(*role, permission), "{told}");
        }
    }
}

#[tokio::test]
async fn what_belongs_to_another_store_or_to_the_chain_does_not_exist() {
    let mut app = TestApp::new().await;
    app.leave_work();
    let admin = app.admin().await;
    for store_id in [json!("store-2"), Value::Null] {
        let system = app.system(&admin, json!({"store_id": store_id})).await;
        let tested =
            app.post(&format!("/integrations/systems/{system}/test?wait=0"), &admin, &json!({})).await;
        let run = tested.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(post(&app, &system, &[], "{}").await.status, 200);
        let events = app.get(&format!("/integrations/webhook-events?system_id={system}"), &admin).await;
        let event = events.json()[0]["id"].as_str().unwrap().to_owned();
        let failure = crate::failures::fail(&app, &system, "sales", "F-1").await.to_string();
        let scoped = app.token(Role::Admin, Some("store-1")).await;
        let mut walked = 0;
        let needs_a_login = |route: &&Route| route.path.contains('{') && route.access != Access::Public;
        for route in ROUTES.iter().filter(needs_a_login) {
            let path = concrete(route.path, &system, &run, &event).replace("{failure_id}", &failure);
            let body = match route.operation {
                "create_transaction" => json!({"transaction_id": "t-1"}),
                _ => json!({}),
            };
            let answered = app.send(route.method.clone(), &path, Some(&scoped), Some(&body)).await;
            assert_eq!(answered.status, 404, "{}: {}", route.operation, answered.text);
            walked += 1;
        }
        assert!(walked >= 15, "{walked} routes were walked");
        let seen = app.get("/integrations/systems", &scoped).await;
        assert_eq!(seen.json(), json!([]));
        assert_eq!(app.get("/integrations/sync-logs", &scoped).await.json(), json!([]));
        assert_eq!(app.get("/integrations/sync-failures", &scoped).await.json(), json!([]));
        assert_eq!(app.get("/integrations/health", &scoped).await.json(), json!([]));
        assert_eq!(app.get("/integrations/webhook-events", &scoped).await.json(), json!([]));
    }
}

#[tokio::test]
async fn a_scoped_user_makes_systems_of_the_own_store_only() {
    let app = TestApp::new().await;
    let scoped = app.token(Role::StoreManager, Some("store-1")).await;
    let system = json!({"name": "Till", "type": "pos", "provider": "demo-pos"});
    let own = app.post("/integrations/systems", &scoped, &system).await;
    assert_eq!(own.json()["store_id"], "store-1");
    let mut other = system.clone();
    other["store_id"] = json!("store-2");
    insta::assert_snapshot!(app.post("/integrations/systems", &scoped, &other).await.show(), @r#"
    403
    {
      "code": "other_store",
      "detail": "a user of store `store-1` can only have systems of that store",
      "request_id": "test",
      "status": 403,
      "title": "Forbidden",
      "type": "/problems/other_store"
    }
    "#);
    let path = format!("/integrations/systems/{}", own.json()["id"].as_str().unwrap());
    let moved = app.put(&path, &scoped, &json!({"store_id": null})).await;
    assert_eq!(moved.status, 403);
}

#[tokio::test]
async fn samples_are_for_those_who_may_see_them() {
    let app = TestApp::new().await;
    let admin = app.admin().await;
    let system = app.system(&admin, json!({"api_endpoint": "http://127.0.0.1:1", "api_key": "k"})).await;
    let tested = app.post(&format!("/integrations/systems/{system}/test?wait=0"), &admin, &json!({})).await;
    app.drain().await;
    let run = tested.json()["id"].as_str().unwrap().to_owned();
    // A refused connection leaves no answer to show, so one is put there.
    let sample = r#"{"message":"sample"}"#;
    zhilian_sync_store::on_write!(app.store(), |ex| {
        sqlx::query("UPDATE sync_logs SET response_data = $1").bind(sample).execute(ex).await.map(drop)
    })
    .unwrap();
    let path = format!("/integrations/sync-logs/{run}");
    assert_eq!(app.get(&path, &admin).await.json()["response_data"]["message"], "sample");
    let staff = app.token(Role::Staff, None).await;
    assert_eq!(app.get(&path, &staff).await.json().get("response_data"), None);
}

fn nil() -> String {
    uuid::Uuid::nil().to_string()
}

fn concrete(path: &str, system: &str, run: &str, event: &str) -> String {
    let path = path.replace("{type}", "pos").replace("{event_id}", event);
    path.replace("{system_id}", system).replace("{run_id}", run)
}

#[tokio::test]
async fn the_router_and_the_table_know_the_same_routes() {
    let app = TestApp::new().await;
    let document = zhilian_sync::api::openapi(&app.app);
    let mut documented: Vec<(String, String, String)> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            documented.push((path.clone(), method.to_uppercase(), id));
        }
    }
    let mut table: Vec<(String, String, String)> = ROUTES
        .iter()
        .map(|route| (route.path.to_owned(), route.method.to_string(), route.operation.to_owned()))
        .collect();
    documented.sort();
    table.sort();
    assert_eq!(documented, table);
    assert_eq!(app.send(Method::OPTIONS, "/auth/me", None, None).await.status, 405);
}
