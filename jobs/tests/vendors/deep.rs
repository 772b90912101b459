//! A body that hides levels upon levels in texts which its reader would read anew: it is one refused event,
//! and never the end of the process.

use chrono::DateTime;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use zhilian_sync_jobs::vendor::EventScope;
use zhilian_sync_jobs::vendor::webhook::Delivery;
use zhilian_sync_store::{Currency, SystemType};

use crate::webhooks::{catalog, secrets};

/// As many as fit into a megabyte: with every one the escapes of those inside double.
const ROUNDS: usize = 17;
/// Fewer than the reader allows at a time.
const LEVELS_PER_ROUND: usize = 120;

/// Some two thousand lists around a number.
fn deep() -> String {
    (0..ROUNDS).fold("1".to_owned(), |inside, _| {
        let (open, close) = ("[".repeat(LEVELS_PER_ROUND), "]".repeat(LEVELS_PER_ROUND));
        format!(r#"{open}{{"$serde_json::private::RawValue":{}}}{close}"#, Value::from(inside))
    })
}

fn delivery<'a>(headers: &'a HeaderMap, body: &'a str) -> Delivery<'a> {
    Delivery {
        method: "POST",
        url: "https://hub.example/hook",
        query: "",
        headers,
        body: body.as_bytes(),
        received_at: DateTime::UNIX_EPOCH,
    }
}

#[test]
fn a_body_that_is_deeper_than_it_looks_is_refused() {
    let catalog = catalog();
    let deep = deep();
    assert!(deep.len() < 1024 * 1024, "{}", deep.len());
    let body =
        format!(r#"{{"sign":"00","event":{deep},"id":{deep},"kind":1,"challenge":{deep},"billId":{deep}}}"#);
    let mut headers = HeaderMap::new();
    headers.insert("x-signature", HeaderValue::from_static("00"));
    let delivery = delivery(&headers, &body);
    for vendor in ["generic-rest", "challenge", "pinzhi", "standard"] {
        let spec = catalog.get(vendor).unwrap().webhook.clone().unwrap();
        assert_eq!(spec.open(&delivery).unwrap_err().code, "bad_body", "{vendor}");
        assert!(spec.read_body(delivery.body).unwrap_err().contains("`$serde_json::private::`"), "{vendor}");
        assert_eq!(spec.handshake(&delivery, &secrets(&["k"])), None, "{vendor}");
        assert!(spec.verify(&delivery, &secrets(&["k"])).is_err(), "{vendor}");
    }
    let sorted = catalog.get("pinzhi").unwrap().webhook.clone().unwrap();
    assert_eq!(sorted.verify(&delivery, &secrets(&["k"])).unwrap_err().code, "bad_body");
}

#[test]
fn records_in_a_text_are_read_as_carefully() {
    let catalog = catalog();
    let (manifest, spec) = catalog.webhook_of(&catalog.get("generic-rest").unwrap());
    let body = json!({"event": "order.created", "data": format!(r#"{{"id":{}}}"#, deep())}).to_string();
    let headers = HeaderMap::new();
    let opened = spec.open(&delivery(&headers, &body)).unwrap();
    let config = json!({});
    let scope = EventScope {
        system_type: SystemType::Pos,
        config: &config,
        currency: Currency::CNY,
        zone: chrono_tz::Asia::Shanghai,
        received_at: DateTime::UNIX_EPOCH,
    };
    let plan = spec.plan(&manifest, &opened.event_type, "", body.as_bytes(), &scope);
    // The text is no record then, so the body itself is taken for one, which has none of its fields.
    assert!(plan.is_err(), "{plan:?}");
}
