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
        let path = nowhere(route.path);
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
            let path = nowhere(route.path);
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
    let document = zhilian_sync::api::openapi(&app.app);
    for store_id in [json!("store-2"), Value::Null] {
        let rows = Rows::of_store(&app, &admin, store_id).await;
        let scoped = app.token(Role::Admin, Some("store-1")).await;
        let mut walked = 0;
        for route in ROUTES.iter().filter(|route| route.access != Access::Public) {
            let (path, mut body) = (rows.path(route.path), example(&document, route));
            // An id in the body leads there as well as one in the path.
            let named = rows.name_in(&mut body);
            if route.path.contains('{') || named {
                let answered = app.send(route.method.clone(), &path, Some(&scoped), Some(&body)).await;
                assert_eq!(answered.status, 404, "{}: {}", route.operation, answered.text);
                walked += 1;
            }
        }
        assert!(walked >= 16, "{walked} routes were walked");
    }
}

#[tokio::test]
async fn a_list_shows_nothing_of_another_store_whatever_the_filter() {
    let mut app = TestApp::new().await;
    app.leave_work();
    let admin = app.admin().await;
    let document = zhilian_sync::api::openapi(&app.app);
    for store_id in [json!("store-2"), Value::Null] {
        let rows = Rows::of_store(&app, &admin, store_id).await;
        let scoped = app.token(Role::Admin, Some("store-1")).await;
        for route in ROUTES.iter().filter(|route| is_list(&document, route)) {
            // A list of one stream names it.
            let base = if route.operation == "list_records" { "?stream=reservations" } else { "?limit=100" };
            let all = app.get(&format!("{}{base}", route.path), &admin).await;
            assert!(
                rows.is_named_in(&all.text) || OWN.contains(&route.operation),
                "`{}` shows nothing that could be hidden; make a row for it in `Rows::of_store`",
                route.operation
            );
            let parameters = document["paths"][route.path]["get"]["parameters"].as_array();
            let names = parameters.into_iter().flatten().filter_map(|parameter| parameter["name"].as_str());
            let mut filters: Vec<String> = names.flat_map(|name| rows.filters(name)).collect();
            filters.push(String::new());
            for filter in filters {
                let seen = app.get(&format!("{}{base}{filter}", route.path), &scoped).await;
                let told = format!("{}{filter}: {}", route.operation, seen.text);
                assert!(seen.status == 404 || seen.status == 200 && !rows.is_named_in(&seen.text), "{told}");
            }
        }
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

/// Lists that show everybody only what is their own, whatever the store.
const OWN: &[&str] = &["list_sessions"];

/// Rows of one store, by the placeholders of the paths that lead to them.
///
/// A placeholder that means different things in different paths is written with the path before it, as
/// `/pos/transactions/{record_id}`.
struct Rows(Vec<(&'static str, String)>);

impl Rows {
    /// One of each kind, all of a system of this store.
    async fn of_store(app: &TestApp, admin: &str, store_id: Value) -> Self {
        let system = app.system(admin, json!({"store_id": store_id})).await;
        let tested =
            app.post(&format!("/integrations/systems/{system}/test?wait=0"), admin, &json!({})).await;
        assert_eq!(post(app, &system, &[], "{}").await.status, 200);
        let events = app.get(&format!("/integrations/webhook-events?system_id={system}"), admin).await;
        let transactions = format!("/integrations/pos/{system}/transactions");
        let transaction = app.post(&transactions, admin, &json!({"transaction_id": "t-1"})).await;
        let id = |json: &Value| json["id"].as_str().unwrap().to_owned();
        let examples = zhilian_sync::api::document::examples::all();
        let mut of_type = Vec::new();
        for (system_type, list, body) in [
            ("supplier", "orders", "NewSupplierOrder"),
            ("reservation", "reservations", "NewReservation"),
            ("member", "sync", "NewMember"),
        ] {
            let config = json!({"type": system_type, "provider": "house", "store_id": store_id});
            let system = app.system(admin, config).await;
            let path = format!("/integrations/{system_type}/{system}/{list}");
            let record = app.post(&path, admin, &examples[body]).await;
            of_type.push((system, id(&record.json())));
        }
        let [(supplier, order), (house, reservation), (club, member)] = of_type.try_into().unwrap();
        let of_store = |mut body: Value| {
            body["store_id"] = store_id.clone();
            body
        };
        let name = format!("walked-{}", store_id.as_str().unwrap_or("chain"));
        let user = json!({"username": name, "password": "long enough", "role": "staff"});
        let user = id(&app.post("/users", admin, &of_store(user)).await.json());
        let token = json!({"name": "walked", "role": "staff"});
        let token = id(&app.post("/tokens", admin, &of_store(token)).await.json());
        let session = id(&app.get("/auth/sessions", admin).await.json()[0]);
        Self(vec![
            ("/supplier/{system_id}", supplier),
            ("/supplier/orders/{record_id}", order),
            ("/member/{system_id}", club),
            ("/member/members/{record_id}", member),
            ("/reservation/{system_id}", house),
            ("/reservation/reservations/{record_id}", reservation.clone()),
            ("/records/{record_id}", reservation),
            ("{run_id}", id(&tested.json())),
            ("{event_id}", id(&events.json()[0])),
            ("/pos/transactions/{record_id}", id(&transaction.json())),
            ("{user_id}", user),
            ("{token_id}", token),
            ("{session_id}", session),
            ("{failure_id}", crate::failures::fail(app, &system, "sales", "F-1").await.to_string()),
            ("{system_id}", system),
        ])
    }

    /// The row that a placeholder stands for, by the path up to its end.
    fn row(&self, path: &str) -> &str {
        let row = self.0.iter().find(|(pattern, _)| path.ends_with(pattern));
        let missing = || panic!("no row to test `{path}` with; make one in `Rows::of_store`");
        &row.unwrap_or_else(missing).1
    }

    /// A path with these rows in it.
    fn path(&self, path: &str) -> String {
        fill(path, |until| self.row(until).to_owned())
    }

    /// Puts these rows into a body that names some; whether it does.
    fn name_in(&self, body: &mut Value) -> bool {
        let mut named = false;
        for (field, value) in body.as_object_mut().into_iter().flatten() {
            let placeholder = format!("{{{field}}}");
            if let Some((_, row)) = self.0.iter().find(|(pattern, _)| *pattern == placeholder) {
                *value = json!(row);
                named = true;
            }
        }
        named
    }

    /// Whether a text names one of them.
    fn is_named_in(&self, text: &str) -> bool {
        self.0.iter().any(|(_, row)| text.contains(row.as_str()))
    }

    /// The queries that ask for these rows by a filter of this name.
    fn filters(&self, name: &str) -> Vec<String> {
        if name == "store_id" {
            return vec!["&store_id=store-2".to_owned()];
        }
        let placeholder = format!("{{{name}}}");
        let rows = self.0.iter().filter(|(pattern, _)| pattern.ends_with(&placeholder));
        rows.map(|(_, row)| format!("&{name}={row}")).collect()
    }
}

/// Replaces each placeholder of a path by what is known of the path up to its end.
fn fill(path: &str, value: impl Fn(&str) -> String) -> String {
    let mut filled = path.replace("{type}", "pos");
    while let Some(end) = filled.find('}').map(|at| at + 1) {
        let start = filled.find('{').unwrap();
        let row = value(&filled[..end]);
        filled.replace_range(start..end, &row);
    }
    filled
}

/// A path with ids that nothing has.
fn nowhere(path: &str) -> String {
    fill(path, |_| uuid::Uuid::nil().to_string())
}

/// The body that the document shows for an operation.
fn example(document: &Value, route: &Route) -> Value {
    let operation = &document["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
    let example = operation["requestBody"]["content"]["application/json"]["example"].clone();
    if example.is_null() { json!({}) } else { example }
}

/// Whether an operation answers a list to whoever is signed in.
fn is_list(document: &Value, route: &Route) -> bool {
    let answer = &document["paths"][route.path]["get"]["responses"]["200"]["content"]["application/json"];
    route.access != Access::Public
        && route.method == Method::GET
        && !route.path.contains('{')
        && answer["schema"]["type"] == "array"
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
