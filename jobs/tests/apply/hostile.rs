//! Events that nobody would send on purpose, and some would: each costs itself, never the process and none of
//! those beside it.

use serde_json::{Value, json};
use zhilian_sync_store::external_systems;
use zhilian_sync_store::sync_failures;
use zhilian_sync_store::webhook_events::{self, NewEvent, Received, WebhookState};

use crate::support::{Bench, at, event, order, saved};

/// JSON that is no amount, and more of it than anybody reads.
fn amounts() -> Vec<String> {
    let deep = (0..15).fold("1".to_owned(), |inside, _| {
        let (open, close) = ("[".repeat(120), "]".repeat(120));
        format!(r#"{open}{{"$serde_json::private::RawValue":{}}}{close}"#, Value::from(inside))
    });
    vec![
        "7".repeat(10_000),
        format!("1e{}", "9".repeat(10_000)),
        format!("{}1{}", "[".repeat(200), "]".repeat(200)),
        format!("{}1{}", "{\"total\":".repeat(100), "}".repeat(100)),
        Value::from("[{".repeat(100_000)).to_string(),
        Value::from("9".repeat(900_000)).to_string(),
        "\"\\ud800\"".to_owned(),
        deep,
    ]
}

pub(crate) async fn a_hostile_event_costs_itself(mut bench: Bench) {
    bench.set(|settings| settings.attempts_max = 2);
    let system = bench.system().await;
    let version = external_systems::find_version(bench.store(), system).await.unwrap().unwrap();
    let mut bodies: Vec<Vec<u8>> = amounts()
        .into_iter()
        .map(|amount| {
            format!(r#"{{"type":"order.saved","data":{{"id":"X","total":{amount},"at":"{}"}}}}"#, at(0))
        })
        .map(String::into_bytes)
        .collect();
    let mut no_text = saved("X", "?", 0).to_string().into_bytes();
    let sign = no_text.iter().position(|byte| *byte == b'?').unwrap();
    no_text[sign] = 0xFF;
    bodies.push(no_text);
    let hostile: Vec<NewEvent> = bodies
        .into_iter()
        .map(|body| NewEvent {
            event_type: Some("order.saved".into()),
            ..bench.new_event(system, version, body)
        })
        .collect();
    let received = webhook_events::insert_batch(bench.store(), &hostile).await.unwrap().received;
    assert!(received.iter().all(|one| matches!(one, Received::New)), "{received:?}");
    let good = bench.receive(system, &[saved("A", "1.00", 0)]).await[0];
    bench.drain_to_the_end().await;
    assert_eq!(bench.event(good).await.state, WebhookState::Applied);
    assert_eq!(bench.orders(system).await, 1);
    for event in &hostile {
        let event = bench.event(event.id).await;
        assert_eq!(
            (event.state, event.error_code.as_deref()),
            (WebhookState::Dead, Some("event_not_mapped"))
        );
        assert!(event.error_message.unwrap().len() < 1_000);
    }
}

pub(crate) async fn hostile_records_cost_themselves(bench: Bench) {
    let system = bench.system().await;
    let mut records = vec![order("A", "1.00", 0)];
    for (n, field) in ["id", "total", "at", "updated", "shop", "pay"].into_iter().enumerate() {
        for (m, hostile) in
            [json!("x".repeat(100_000)), json!([[[[]]]]), json!({"a": {}})].into_iter().enumerate()
        {
            let mut record = order(&format!("B{n}{m}"), "1.00", 0);
            record[field] = hostile;
            records.push(record);
        }
    }
    let sent = bench.receive(system, &[event("order.batch", &Value::from(records))]).await[0];
    bench.drain_to_the_end().await;
    assert_eq!(bench.event(sent).await.state, WebhookState::Applied);
    // A shop that is a long text is none that is known; what pays may be called anything.
    assert_eq!(bench.orders(system).await, 3);
    assert_eq!(sync_failures::count_open(bench.store(), system).await.unwrap(), 16);
}
