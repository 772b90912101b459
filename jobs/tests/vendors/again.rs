//! Records that failed are mapped again as they were mapped then: those of a pull by the stream, those of an
//! event by the route that took it.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use zhilian_sync_jobs::vendor::{Again, Catalog, EventScope, KeptRecord, Mapped};
use zhilian_sync_store::{Currency, SystemType, TransactionType};

fn failed_at() -> DateTime<Utc> {
    "2026-01-02T00:00:00.123Z".parse().unwrap()
}

/// Maps what is kept of a record of a system with these settings.
fn map(
    config: &Value,
    system_type: SystemType,
    (stream, event_type): (&str, Option<&str>),
    raw: &str,
) -> Result<Mapped, String> {
    let catalog = Catalog::embedded().unwrap();
    let settings = config.as_object().unwrap();
    let manifest = catalog.resolve("generic-rest", settings).unwrap_or_else(|errors| panic!("{errors}"));
    let again = Again::new(&catalog, manifest, settings).unwrap();
    let scope = EventScope {
        system_type,
        config,
        currency: Currency::CNY,
        zone: chrono_tz::Asia::Shanghai,
        received_at: failed_at(),
    };
    again.map(KeptRecord { stream, raw, event_type }, &scope)
}

fn settings() -> Value {
    json!({"path": "/bills"})
}

#[test]
fn what_a_pull_brought_is_mapped_as_strictly_as_then() {
    let bill = json!({"id": "T-1", "total": "12.50", "created_at": "2026-01-01T10:00:00"}).to_string();
    let mapped = map(&settings(), SystemType::Pos, ("transactions", None), &bill).unwrap();
    let [bill] = mapped.transactions.as_slice() else { panic!("{mapped:?}") };
    assert_eq!((bill.external_id.as_str(), bill.total), ("T-1", 1_250));
    assert_eq!(bill.observed_at, Some(failed_at()), "it was heard of when it failed");

    let free = json!({"id": "T-1", "created_at": "2026-01-01T10:00:00"}).to_string();
    let mapped = map(&settings(), SystemType::Pos, ("transactions", None), &free).unwrap();
    assert_eq!((mapped.storable(), mapped.failures.len()), (0, 1), "a pull needs a total");
}

#[test]
fn what_an_event_brought_is_mapped_as_its_route_says() {
    let of = |event: &str, raw: &Value| {
        let kept = ("transactions", Some(event));
        map(&settings(), SystemType::Pos, kept, &raw.to_string()).unwrap()
    };
    let mapped = of("transaction.created", &json!({"id": "T-1", "event": "transaction.created"}));
    let [bill] = mapped.transactions.as_slice() else { panic!("{mapped:?}") };
    assert_eq!((bill.total, bill.occurred_at), (0, failed_at()), "this route lets both be absent");
    assert!(bill.raw.contains("\"event\""), "what is kept is what came: {}", bill.raw);

    let mapped = of("refund", &json!({"id": "T-2", "total": -5}));
    assert_eq!(mapped.transactions[0].transaction_type, TransactionType::Refund, "the route lays it over");

    let mapped = of("transaction.updated", &json!({"id": "T-3"}));
    assert_eq!(mapped.failures.len(), 1, "a change without a total is refused as ever");
}

#[test]
fn a_route_whose_condition_the_record_does_not_meet_is_passed_over() {
    // A cancelled reservation that is told in full, and one that another event brought.
    let whole = json!({"reservation_id": "R-1", "customer_name": "王芳", "status": "confirmed"}).to_string();
    let of = |event: &str| {
        let kept = ("reservations", Some(event));
        map(&json!({}), SystemType::Reservation, kept, &whole).unwrap().records.remove(0)
    };
    assert_eq!(of("reservation.cancelled").status.as_deref(), Some("cancelled"));
    assert_eq!(of("reservation.updated").status.as_deref(), Some("confirmed"));
}

#[test]
fn a_stream_that_is_only_ever_sent_is_found_without_its_event() {
    let raw = json!({"order_number": "P-1", "total": 8}).to_string();
    let mapped = map(&json!({}), SystemType::Supplier, ("supplier_orders", None), &raw).unwrap();
    assert_eq!(mapped.orders[0].order_number, "P-1");
}

#[test]
fn what_cannot_be_read_any_more_says_why() {
    let none = map(&settings(), SystemType::Pos, ("shifts", None), "{}").unwrap_err();
    assert!(none.contains("no stream `shifts` any more"), "{none}");
    let text = map(&settings(), SystemType::Pos, ("transactions", None), "T-1;12.50").unwrap_err();
    assert!(text.starts_with("what was kept of it is not JSON"), "{text}");
}
