//! Events that go wrong, workers that die, systems that are not there: each costs itself and nobody else.

use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use zhilian_sync_jobs::inbox::apply;
use zhilian_sync_store::external_systems;
use zhilian_sync_store::sync_failures;
use zhilian_sync_store::testing::refuse_poison;
use zhilian_sync_store::webhook_events::{EventResult, WebhookState};

use crate::server::{Reply, Server};
use crate::support::{Bench, at, event, order, saved};

/// What any wait of these tests may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn an_event_that_cannot_be_mapped_fails_alone_and_is_dead_at_last(bench: Bench) {
    let system = bench.system().await;
    let good: Vec<_> = (0..20).map(|n| saved(&format!("A{n}"), "1.00", n)).collect();
    let bad = event("order.saved", &json!({ "id": "B", "total": "a lot", "at": at(0) }));
    let first = bench.receive(system, &good[..10]).await;
    let bad = bench.receive(system, &[bad]).await[0];
    bench.receive(system, &good[10..]).await;
    assert_eq!(bench.work().await, 21, "one batch");
    assert_eq!(bench.orders(system).await, 20);
    assert_eq!(bench.event(first[0]).await.state, WebhookState::Applied);
    let failed = bench.event(bad).await;
    assert_eq!((failed.state, failed.attempt), (WebhookState::Pending, 1));
    assert_eq!(failed.error_code.as_deref(), Some("event_not_mapped"));
    assert!(failed.error_message.as_deref().unwrap().contains("a lot"), "{:?}", failed.error_message);

    let mut delays = vec![failed.run_at - bench.now()];
    while bench.event(bad).await.state == WebhookState::Pending {
        bench.advance(bench.event(bad).await.run_at - bench.now());
        bench.drain().await;
        delays.push(bench.event(bad).await.run_at - bench.now());
    }
    let dead = bench.event(bad).await;
    assert_eq!((dead.state, dead.attempt), (WebhookState::Dead, 8));
    assert_eq!(dead.error_code.as_deref(), Some("event_not_mapped"));
    assert!(dead.ended_at.is_some());
    assert!(delays[4] > delays[0] * 4, "it waits longer each time: {delays:?}");
    bench.is_quiet().await;
}

pub(crate) async fn a_record_that_the_database_refuses_fails_its_event_alone(bench: Bench) {
    let system = bench.system().await;
    let mut bodies: Vec<_> = (0..12).map(|n| saved(&format!("A{n}"), "1.00", n)).collect();
    refuse_poison(bench.store(), "pos_transactions", "payment_method").await;
    bodies[5]["data"]["pay"] = json!("poison");
    // The same record twice, and only the newer one is bad: the older must not be lost with it.
    bodies[6]["data"]["id"] = json!("A5");
    bodies[6]["data"]["updated"] = json!(at(1));
    let ids = bench.receive(system, &bodies).await;
    assert_eq!(bench.work().await, 12, "one batch");
    let bad = bench.event(ids[5]).await;
    assert_eq!((bad.state, bad.error_code.as_deref()), (WebhookState::Pending, Some("record_refused")));
    assert!(
        bad.error_message.as_deref().unwrap().contains("the database refused"),
        "{:?}",
        bad.error_message
    );
    assert_eq!(bench.in_state(WebhookState::Applied).await.len(), 11);
    assert_eq!(bench.orders(system).await, 11);
    assert_eq!(bench.event(ids[6]).await.result, Some(EventResult::Stored));
    bench.drain_to_the_end().await;
    assert_eq!(bench.event(ids[5]).await.state, WebhookState::Dead);
}

pub(crate) async fn the_bad_records_of_an_array_are_kept_and_the_others_stored(bench: Bench) {
    let system = bench.system().await;
    let mut unreadable = order("B", "1.00", 0);
    unreadable["total"] = json!("much");
    let mut unkeepable = order("C", "1.00", 0);
    unkeepable["pay"] = json!("poison");
    refuse_poison(bench.store(), "pos_transactions", "payment_method").await;
    let array = json!([order("A", "1.00", 0), unreadable, unkeepable, order("D", "1.00", 0)]);
    let id = bench.receive(system, &[event("order.batch", &array), saved("E", "1.00", 0)]).await[0];
    assert_eq!(bench.work().await, 2);
    let applied = bench.event(id).await;
    assert_eq!((applied.state, applied.result), (WebhookState::Applied, Some(EventResult::Stored)));
    assert_eq!(applied.error_code.as_deref(), Some("records_failed"), "it says what it could not do");
    assert_eq!(bench.orders(system).await, 3);
    let open = sync_failures::list_open(bench.store(), system, "orders", None, 10).await.unwrap();
    let ids: Vec<&str> = open.iter().map(|failure| failure.external_id.as_str()).collect();
    assert_eq!(ids, ["B", "C"]);
    assert_eq!(open[0].sync_log_id, applied.sync_log_id);
    let log = bench.run(applied.sync_log_id.unwrap()).await;
    assert_eq!((log.records_total, log.records_success, log.records_failed), (4, 2, 2));

    // A later version that can be kept ends the failure, as a pull of the stream would.
    bench.receive(system, &[saved("C", "2.00", 5)]).await;
    bench.drain().await;
    assert_eq!(sync_failures::count_open(bench.store(), system).await.unwrap(), 1);
}

pub(crate) async fn an_event_that_kills_its_worker_dies_alone(bench: Bench) {
    let system = bench.system().await;
    let poison = bench.receive(system, &[saved("P", "1.00", 0)]).await[0];
    bench.advance(TimeDelta::seconds(1));
    let others = bench.receive(system, &[saved("A", "1.00", 0), saved("B", "1.00", 0)]).await;
    assert_eq!(bench.claim_and_fall_silent().await.len(), 3, "the worker dies with its whole batch");
    let attempts_max = i64::from(bench.ctx.webhooks.attempts_max);
    for attempt in 2..=attempts_max {
        assert!(bench.claim_and_fall_silent().await.is_empty(), "the lease of the dead worker still holds");
        bench.advance(bench.ctx.lease() + TimeDelta::seconds(1));
        let claimed = bench.claim_and_fall_silent().await;
        let claimed: Vec<_> = claimed.iter().map(|event| (event.id, event.attempt)).collect();
        assert_eq!(claimed, [(poison, attempt)], "alone");
        bench.drain().await;
        for other in &others {
            assert_eq!(bench.event(*other).await.state, WebhookState::Applied, "the others went on at once");
        }
    }
    bench.advance(bench.ctx.lease() + TimeDelta::seconds(1));
    bench.drain().await;
    let dead = bench.event(poison).await;
    assert_eq!((dead.state, dead.error_code.as_deref()), (WebhookState::Dead, Some("worker_died")));
    assert!(bench.order(system, "P").await.is_none());
    assert_eq!(bench.orders(system).await, 2);
    bench.is_quiet().await;
}

pub(crate) async fn a_worker_that_lost_its_claim_writes_nothing(bench: Bench) {
    // The vendor keeps the first question open until the test lets it go, and answers it with old news.
    let (asked, was_asked) = mpsc::channel();
    let (let_go, may_go) = mpsc::channel::<()>();
    let first = Mutex::new(Some((asked, may_go)));
    let server = Server::start(move |_| {
        let first = first.lock().unwrap().take();
        let (total, updated) = if let Some((asked, may_go)) = first {
            asked.send(()).unwrap();
            may_go.recv_timeout(PATIENCE).unwrap();
            ("1.00", 90)
        } else {
            ("2.00", 10)
        };
        Reply::json(json!({ "order": order("A", total, updated) }).to_string())
    })
    .await;
    let system = bench.system_with(|system| system.api_endpoint = Some(server.url())).await;
    let id = bench.receive(system, &[event("order.named", &json!({ "id": "A" }))]).await[0];
    let slow = bench.process(None);
    let working = tokio::spawn(async move { apply::work(&slow, &CancellationToken::new()).await });
    tokio::task::spawn_blocking(move || was_asked.recv_timeout(PATIENCE).unwrap()).await.unwrap();
    assert_eq!(bench.work().await, 0, "the claim of the slow worker holds");
    bench.advance(bench.ctx.lease() + TimeDelta::seconds(1));
    assert_eq!(bench.work().await, 1, "its lease is over");
    let applied = bench.event(id).await;
    assert_eq!((applied.state, applied.claim_no), (WebhookState::Applied, 2));
    let_go.send(()).unwrap();
    assert_eq!(working.await.unwrap(), 1);
    assert_eq!(bench.event(id).await, applied, "the event says what the second worker did");
    let stored = bench.order(system, "A").await.unwrap();
    assert_eq!(stored.total, 200, "although what the slow worker heard calls itself newer");
    let logs = bench.minutes().await;
    assert_eq!((logs.len(), logs[0].records_total), (1, 1), "counted once");
}

pub(crate) async fn events_of_a_deleted_system_are_dead(bench: Bench) {
    let system = bench.system().await;
    let other = bench.system().await;
    let lost = bench.receive(system, &[saved("A", "1.00", 0)]).await[0];
    bench.receive(other, &[saved("A", "1.00", 0)]).await;
    let mut tx = bench.store().begin().await.unwrap();
    let row = bench.read_system(system).await;
    external_systems::delete(&mut tx, &row, bench.now()).await.unwrap();
    tx.commit().await.unwrap();
    bench.drain().await;
    let dead = bench.event(lost).await;
    assert_eq!((dead.state, dead.error_code.as_deref()), (WebhookState::Dead, Some("system_deleted")));
    assert!(bench.order(system, "A").await.is_none());
    assert_eq!(bench.orders(other).await, 1);
    bench.is_quiet().await;
}

pub(crate) async fn events_of_a_paused_system_wait_until_it_is_resumed(bench: Bench) {
    let system = bench.system().await;
    let other = bench.system().await;
    bench.change(system, |system| system.paused = true).await;
    let waiting = bench.receive(system, &[saved("A", "1.00", 0)]).await[0];
    bench.receive(other, &[saved("A", "1.00", 0)]).await;
    bench.drain().await;
    let event = bench.event(waiting).await;
    assert_eq!((event.state, event.attempt, event.error_code), (WebhookState::Pending, 0, None));
    assert_eq!(bench.orders(other).await, 1, "the others do not wait for it");
    bench.advance(TimeDelta::hours(3));
    bench.drain().await;
    assert_eq!(bench.event(waiting).await.state, WebhookState::Pending);

    bench.change(system, |system| system.paused = false).await;
    bench.drain().await;
    let event = bench.event(waiting).await;
    assert_eq!((event.state, event.attempt), (WebhookState::Applied, 1));
    assert_eq!(bench.orders(system).await, 1);
}

pub(crate) async fn a_manifest_that_is_mended_in_time_loses_nothing(bench: Bench) {
    let system = bench.system_with(|system| system.timezone = "Asia/Shanghigh".into()).await;
    let id = bench.receive(system, &[saved("A", "1.00", 0)]).await[0];
    bench.drain().await;
    let event = bench.event(id).await;
    assert_eq!((event.state, event.error_code.as_deref()), (WebhookState::Pending, Some("bad_timezone")));
    bench.change(system, |system| system.timezone = "Asia/Shanghai".into()).await;
    bench.drain_to_the_end().await;
    assert_eq!(bench.event(id).await.state, WebhookState::Applied);
    assert_eq!(bench.orders(system).await, 1);
}

pub(crate) async fn a_stopping_process_claims_nothing(bench: Bench) {
    let system = bench.system().await;
    let id = bench.receive(system, &[saved("A", "1.00", 0)]).await[0];
    let stop = CancellationToken::new();
    stop.cancel();
    assert_eq!(apply::work(&bench.ctx, &stop).await, 0);
    assert_eq!(bench.event(id).await.claim_no, 0);
}
