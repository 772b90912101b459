//! What the tests of webhooks share: a till that is connected the way existing clients connect one, and its
//! vendor, who signs what it posts.

use hmac::{Hmac, KeyInit as _, Mac as _};
use poem::Body;
use poem::http::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use zhilian_sync_store::audit_logs;

use crate::support::{Answered, TestApp};

/// What the vendor signs with.
pub(crate) const SECRET: &str = "whook-3f9d2c";

/// A till of a vendor without a manifest of its own, with a webhook secret unless `more` says otherwise; its id.
pub(crate) async fn till(app: &TestApp, more: Value) -> String {
    let admin = app.admin().await;
    let mut body = json!({"provider": "house-pos", "webhook_secret": SECRET});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    app.system(&admin, body).await
}

/// An event about a sale, as the seed's tills send it.
pub(crate) fn sale(number: &str, total: &str) -> String {
    json!({"event": "transaction.created", "data": {
        "transaction_id": number, "order_number": format!("O-{number}"), "total": total,
        "payment_method": "wechat", "transaction_time": "2026-01-04T11:30:00Z",
    }})
    .to_string()
}

/// The signature of a body, as a header.
pub(crate) fn signed(body: &str, secret: &str) -> [(&'static str, String); 1] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    [("x-webhook-signature", format!("sha256={}", hex::encode(mac.finalize().into_bytes())))]
}

/// Posts to the address of a POS system.
pub(crate) async fn post(app: &TestApp, system: &str, headers: &[(&str, String)], body: &str) -> Answered {
    let path = format!("/api/v1/integrations/webhooks/pos/{system}");
    app.send_body(Method::POST, &path, headers, Body::from(body.to_owned())).await
}

/// Posts a body with the right signature.
pub(crate) async fn post_signed(app: &TestApp, system: &str, body: &str) -> Answered {
    post(app, system, &signed(body, SECRET), body).await
}

/// The events that an admin sees, newest first.
pub(crate) async fn events(app: &TestApp, query: &str) -> Vec<Value> {
    let admin = app.admin().await;
    let listed = app.get(&format!("/integrations/webhook-events{query}"), &admin).await;
    assert_eq!(listed.status, 200, "{}", listed.text);
    listed.json().as_array().unwrap().clone()
}

/// The id of the only event there is.
pub(crate) async fn only_event(app: &TestApp) -> String {
    let events = events(app, "").await;
    assert_eq!(events.len(), 1, "{events:?}");
    events[0]["id"].as_str().unwrap().to_owned()
}

/// Each transaction's id and total, by id.
pub(crate) async fn sales(app: &TestApp) -> Vec<(String, String)> {
    let admin = app.admin().await;
    let listed = app.get("/integrations/pos/transactions", &admin).await.json();
    let mut sales: Vec<(String, String)> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|sale| (sale["pos_transaction_id"].as_str().unwrap().to_owned(), sale["total"].to_string()))
        .collect();
    sales.sort();
    sales
}

/// What the audit has of an action: what it was done to, and the detail.
pub(crate) async fn audited(app: &TestApp, action: &str) -> Vec<(String, Value)> {
    let entries = audit_logs::list(app.store(), None, 500).await.unwrap();
    let of_action = entries.into_iter().filter(|entry| entry.action == action);
    of_action
        .map(|entry| {
            let detail = entry.detail.map(|text| serde_json::from_str(&text).unwrap()).unwrap_or_default();
            (entry.entity_id.unwrap(), detail)
        })
        .collect()
}
