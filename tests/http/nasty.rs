//! Bodies that nobody would send on purpose: none of them is an error of ours.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use zhilian_sync::api::ROUTES;
use zhilian_sync_store::SystemType;

use crate::support::TestApp;

/// Hashing a password for every body would take minutes, and testing waits; what has no body is not asked.
const SKIPPED: &[&str] = &["sign_in", "test_system"];
/// An id that nothing has.
const NOTHING: &str = "00000000-0000-0000-0000-000000000000";

/// The fields that vendors' webhooks have, which no schema lists.
const WEBHOOK_FIELDS: &[&str] = &["event", "data", "transaction_id", "total", "transaction_time"];

/// Each with something that a parser, a type, a column or a driver could trip over.
fn bodies(needed: &[(String, Value)], fields: &[String]) -> Vec<String> {
    let long = "x".repeat(10_000);
    let deep = format!("{{\"config\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let values = [
        "null",
        "true",
        "-1",
        "1e999999",
        "-0.0000000000000000000000000000000000000001",
        "123456789012345678901234567890123456789",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "[]",
        "[null]",
        "{}",
        "{\"\\u0000\":\"\\u0000\"}",
        "\"9999999-12-31T00:00:00Z\"",
        "\"2024-02-30T00:00:00\"",
        &format!("\"{long}\""),
    ];
    let mut bodies = vec![String::new(), "{".to_owned(), "\u{feff}{}".to_owned(), deep];
    for value in values {
        bodies.push(value.to_owned());
        // Everything the same, once alone and once beside what is needed.
        let all: Vec<String> = fields.iter().map(|field| format!("\"{field}\":{value}")).collect();
        bodies.push(format!("{{{}}}", all.join(",")));
        for field in fields {
            let needed: Vec<String> = needed
                .iter()
                .filter(|(name, _)| name != field)
                .map(|(name, value)| format!("\"{name}\":{value},"))
                .collect();
            bodies.push(format!("{{{}\"{field}\":{value}}}", needed.concat()));
        }
    }
    bodies
}

#[tokio::test]
async fn no_body_is_an_error_of_ours() {
    for mut app in TestApp::every().await {
        app.leave_work();
        let admin = app.admin().await;
        let document = zhilian_sync::api::openapi(&app.app);
        let systems = systems(&app, &admin).await;
        let bearer = [("authorization", format!("Bearer {admin}"))];
        for route in ROUTES.iter().filter(|route| !SKIPPED.contains(&route.operation)) {
            let operation = &document["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
            let (needed, fields) = body_of(&document, operation, &systems["pos"]);
            if operation["requestBody"].is_null() || needed.iter().any(|(name, _)| name.contains("password"))
            {
                continue;
            }
            // The system of the type that the path is for, and otherwise nothing that is there.
            let parts: Vec<&str> = route.path.split('/').collect();
            let of_type = parts.iter().find_map(|part| systems.get(*part)).unwrap_or(&systems["pos"]);
            let placed = parts.iter().map(|part| match *part {
                "{type}" => "pos",
                "{system_id}" => of_type.as_str(),
                part if part.starts_with('{') => NOTHING,
                part => part,
            });
            let path = placed.collect::<Vec<_>>().join("/");
            let mut accepted = 0;
            for (number, body) in bodies(&needed, &fields).into_iter().enumerate() {
                let path = format!("/api/v1{path}");
                // Every record is a new one: a repeated one would not reach the table.
                let body = body.replace("\"T-", &format!("\"T-{number}-"));
                let sent = Some(("application/json", body.clone()));
                let answered = app.send_raw(route.method.clone(), &path, &bearer, sent).await;
                let body: String = body.chars().take(200).collect();
                assert!(answered.status < 500, "{} answers {} to {body}", route.operation, answered.text);
                accepted += u32::from(answered.status < 300);
                // A vendor that posts is refused in its own words.
                if answered.status >= 400 && route.operation != "receive_webhook" {
                    assert_eq!(answered.header("content-type"), Some("application/problem+json"), "{body}");
                }
            }
            // By now the system has a secret, and none of these is signed.
            let is_signed = route.operation != "receive_webhook";
            let takes_any = is_signed && !path.contains(NOTHING);
            assert_eq!(accepted > 0, takes_any, "{}: {accepted} bodies were good enough", route.operation);
        }
    }
}

/// A system of each type, by its type.
async fn systems(app: &TestApp, admin: &str) -> BTreeMap<&'static str, String> {
    let mut systems = BTreeMap::new();
    for system_type in SystemType::ALL {
        let name = system_type.as_str();
        let provider = if name == "pos" { "demo-pos" } else { "generic-rest" };
        let system = app.system(admin, json!({"type": name, "provider": provider})).await;
        systems.insert(name, system);
    }
    systems
}

/// What a body needs, from its example, and every field that it knows.
fn body_of(document: &Value, operation: &Value, system: &str) -> (Vec<(String, Value)>, Vec<String>) {
    let media = &operation["requestBody"]["content"]["application/json"];
    let name = media["schema"]["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
    let Some(name) = name else {
        return (Vec::new(), WEBHOOK_FIELDS.iter().map(|field| (*field).to_owned()).collect());
    };
    let schema = &document["components"]["schemas"][name];
    let example = media["example"].as_object().into_iter().flatten();
    let needed = example.map(|(field, value)| {
        let value = if field == "system_id" { json!(system) } else { value.clone() };
        (field.clone(), value)
    });
    (needed.collect(), schema["properties"].as_object().unwrap().keys().cloned().collect())
}
