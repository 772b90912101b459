//! What is said about events afterwards: one log a system, type and minute, and what each event did.

use chrono::TimeDelta;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use zhilian_sync_jobs::worker;
use zhilian_sync_store::webhook_events::{EventResult, WebhookState};
use zhilian_sync_store::{Lane, SyncStatus, Trigger, events};

use crate::support::{Bench, event, saved};

pub(crate) async fn what_a_minute_did_is_one_row_with_its_counts(bench: Bench) {
    let system = bench.system().await;
    let other = bench.system().await;
    let bodies: Vec<_> = (0..7).map(|n| saved(&format!("A{n}"), "1.00", 0)).collect();
    let first = bench.receive(system, &bodies[..3]).await;
    bench.drain().await;
    bench.advance(TimeDelta::seconds(30));
    bench.receive(system, &bodies[3..5]).await;
    bench.receive(system, &[event("booking.saved", &json!({ "id": "R1", "state": "booked" }))]).await;
    bench.receive(other, &bodies[..1]).await;
    bench.drain().await;
    // Received in this minute and applied in the next: it belongs to its receipt.
    let late = bench.receive(system, &bodies[5..6]).await;
    bench.advance(TimeDelta::seconds(45));
    bench.drain().await;
    bench.receive(system, &bodies[6..]).await;
    bench.drain().await;
    let mut logs: Vec<_> = bench
        .minutes()
        .await
        .into_iter()
        .map(|run| {
            let whose = if run.system_id == Some(system) { "one" } else { "other" };
            let minute = run.scheduled_for.unwrap().format("%H:%M").to_string();
            (whose, run.sync_type, minute, run.records_total, run.records_success)
        })
        .collect();
    logs.sort();
    let row = |whose, kind: &str, minute: &str, count| (whose, kind.into(), minute.into(), count, count);
    let expected = [
        row("one", "webhook/booking.saved", "12:00", 1),
        row("one", "webhook/order.saved", "12:00", 6),
        row("one", "webhook/order.saved", "12:01", 1),
        row("other", "webhook/order.saved", "12:00", 1),
    ];
    assert_eq!(logs, expected);
    let log = bench.event(first[0]).await.sync_log_id.unwrap();
    assert_eq!(bench.event(late[0]).await.sync_log_id, Some(log));
    let log = bench.run(log).await;
    assert_eq!((log.status, log.trigger, log.lane), (SyncStatus::Success, Trigger::Webhook, Lane::Hooks));
    assert!(log.completed_at.is_some() && log.exclusive_key.is_none());
}

pub(crate) async fn events_that_mean_nothing_are_applied_and_say_so(bench: Bench) {
    let system = bench.system().await;
    let ids = bench.receive(system, &[event("ping", &json!({})), event("order.sneezed", &json!({}))]).await;
    let no_type = bench.receive(system, &[json!({ "hello": true })]).await[0];
    bench.drain().await;
    for (id, result) in
        [(ids[0], EventResult::Ignored), (ids[1], EventResult::Unrouted), (no_type, EventResult::Unrouted)]
    {
        let event = bench.event(id).await;
        assert_eq!((event.state, event.result), (WebhookState::Applied, Some(result)));
        let log = bench.run(event.sync_log_id.unwrap()).await;
        assert_eq!((log.records_total, log.records_skipped, log.status), (1, 1, SyncStatus::Success));
    }
    bench.is_quiet().await;
}

pub(crate) async fn live_clients_hear_of_a_minute_once(bench: Bench) {
    let system = bench.system().await;
    let bodies: Vec<_> = (0..6).map(|n| saved(&format!("A{n}"), "1.00", 0)).collect();
    for body in &bodies {
        bench.receive(system, std::slice::from_ref(body)).await;
        bench.drain().await;
    }
    events::place(bench.store()).await.unwrap();
    let heard = events::list_after(bench.store(), 0, 100).await.unwrap();
    let heard: Vec<_> = heard.iter().filter(|event| event.kind == "webhooks.applied").collect();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0].system_id, Some(system));
    assert_eq!(heard[0].run_id, Some(bench.minutes().await[0].id));
}

pub(crate) async fn a_dead_event_is_counted_and_its_reason_shown(mut bench: Bench) {
    bench.set(|webhooks| webhooks.attempts_max = 2);
    let system = bench.system().await;
    let id = bench.receive(system, &[saved("A", "much", 0), saved("B", "1.00", 0)]).await[0];
    bench.drain_to_the_end().await;
    assert_eq!(bench.event(id).await.state, WebhookState::Dead);
    let logs = bench.minutes().await;
    assert_eq!(logs.len(), 1);
    let log = &logs[0];
    assert_eq!((log.records_total, log.records_success, log.records_failed), (2, 1, 1));
    assert_eq!((log.status, log.error_code.as_deref()), (SyncStatus::Partial, Some("event_not_mapped")));
    events::place(bench.store()).await.unwrap();
    let heard = events::list_after(bench.store(), 0, 100).await.unwrap();
    let dead: Vec<_> = heard.iter().filter(|event| event.kind == "webhook.dead").collect();
    assert_eq!(dead.len(), 1, "{heard:?}");
    assert_eq!((dead[0].system_id, dead[0].run_id), (Some(system), Some(log.id)));
    assert!(dead[0].data.contains(r#""events":1"#), "{}", dead[0].data);
}

pub(crate) async fn a_record_bears_the_log_of_its_own_event(bench: Bench) {
    let system = bench.system().await;
    let batch = event("order.batch", &json!([saved("B", "1.00", 0)["data"]]));
    let ids = bench.receive(system, &[saved("A", "1.00", 0), batch]).await;
    assert_eq!(bench.work().await, 2, "one batch");
    let mut logs = Vec::new();
    for (id, order) in ids.into_iter().zip(["A", "B"]) {
        let log = bench.event(id).await.sync_log_id;
        assert_eq!(bench.order(system, order).await.unwrap().sync_log_id, log);
        logs.push(bench.run(log.unwrap()).await.sync_type);
    }
    assert_eq!(logs, ["webhook/order.saved", "webhook/order.batch"]);
}

pub(crate) async fn a_minute_log_is_never_claimed(bench: Bench) {
    let system = bench.system().await;
    bench.receive(system, &[saved("A", "1.00", 0)]).await;
    bench.drain().await;
    let log = bench.minutes().await.remove(0);
    worker::handle(&bench.ctx, &CancellationToken::new(), log.id).await;
    let after = bench.run(log.id).await;
    assert_eq!((after.status, after.claim_no), (SyncStatus::Success, log.claim_no));
}
