//! Bodies that nobody would send on purpose: none of them is an error of ours.

use poem::http::Method;
use zhilian_sync::api::ROUTES;

use crate::support::TestApp;

/// The fields of all routes but those of webhooks.
const FIELDS: &[&str] = &[
    "name",
    "type",
    "provider",
    "store_id",
    "status",
    "config",
    "api_endpoint",
    "api_key",
    "credentials",
    "webhook_secret",
    "webhook_verification",
    "store_map",
    "timezone",
    "currency",
    "sync_enabled",
    "sync_interval",
    "sync_cron",
    "note",
    "stream",
    "from",
    "to",
    "username",
    "password",
    "transaction_id",
    "order_number",
    "subtotal",
    "total",
    "payment_method",
    "items",
    "customer",
    "transaction_time",
];

/// The fields of the routes of webhooks.
const WEBHOOK_FIELDS: &[&str] =
    &["secret", "overlap_hours", "system_id", "state", "event_type", "force", "event", "data", "from", "to"];

/// Each with something that a parser, a type, a column or a driver could trip over.
fn bodies(needed: &[(&str, &str)], fields: &[&str]) -> Vec<String> {
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
                .map(|(name, value)| format!("\"{name}\":{value}"))
                .collect();
            bodies.push(format!("{{{},\"{field}\":{value}}}", needed.join(",")));
        }
    }
    bodies
}

#[tokio::test]
async fn no_body_is_an_error_of_ours() {
    for mut app in TestApp::every().await {
        app.leave_work();
        let admin = app.admin().await;
        let mut systems = std::collections::HashMap::new();
        for system_type in ["pos", "supplier", "member", "reservation"] {
            let body = serde_json::json!({"type": system_type, "provider": "demo-house"});
            systems.insert(system_type, app.system(&admin, body).await);
        }
        let bearer = [("authorization", format!("Bearer {admin}"))];
        let writing = |method: &Method| matches!(*method, Method::POST | Method::PUT);
        // Hashing a password for every body would take minutes, and signing out would end the test.
        let skipped = ["sign_in", "sign_out", "test_system"];
        let routes =
            ROUTES.iter().filter(|route| writing(&route.method) && !skipped.contains(&route.operation));
        for route in routes {
            // Records go to a system of their type.
            let of_type = route.path.split('/').nth(2).filter(|part| systems.contains_key(part));
            let system = &systems[of_type.unwrap_or("pos")];
            let path = route
                .path
                .replace("{type}", "pos")
                .replace("{system_id}", system)
                .replace("{event_id}", &uuid::Uuid::nil().to_string())
                .replace("{run_id}", &uuid::Uuid::nil().to_string());
            let own_system = format!("\"{system}\"");
            let needed: &[(&str, &str)] = match route.operation {
                "create_system" => &[("name", "\"Till\""), ("type", "\"pos\""), ("provider", "\"demo-pos\"")],
                "create_transaction" | "create_transactions" => &[("transaction_id", "\"T-1\"")],
                "create_supplier_order" | "create_supplier_orders" => &[("order_number", "\"T-1\"")],
                "create_reservation" | "create_reservations" => &[
                    ("reservation_id", "\"T-1\""),
                    ("customer_name", "\"N\""),
                    ("customer_phone", "\"1\""),
                    ("customer_count", "2"),
                    ("reservation_date", "\"2024-02-15\""),
                    ("reservation_time", "\"18:00\""),
                ],
                "replay_webhook_events" => &[("system_id", &own_system)],
                _ => &[("name", "\"Till\"")],
            };
            let fields = if route.path.contains("webhook") { WEBHOOK_FIELDS } else { FIELDS };
            let mut accepted = 0;
            for (number, body) in bodies(needed, fields).into_iter().enumerate() {
                let path = format!("/api/v1{path}");
                // Every transaction is a new one: a repeated one would not reach the table.
                let mut body = body.replace("\"T-1\"", &format!("\"T-{number}\""));
                if route.path.ends_with("/batch") {
                    body = format!("{{\"records\":[{body}]}}");
                }
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
            let takes_any =
                is_signed && !route.path.contains("{run_id}") && !route.path.contains("{event_id}");
            assert_eq!(accepted > 0, takes_any, "{}: {accepted} bodies were good enough", route.operation);
        }
    }
}
