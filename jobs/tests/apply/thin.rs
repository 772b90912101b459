//! Events that only name what changed: the vendor is asked, and what it answers decides about the event.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use chrono::TimeDelta;
use serde_json::{Value, json};
use zhilian_sync_jobs::context::seconds;
use zhilian_sync_store::sync_logs::{self, Counts, Ending, Run};
use zhilian_sync_store::webhook_events::{EventResult, WebhookState};
use zhilian_sync_store::{EventId, SyncStatus, SystemId, SystemStatus, Trigger};

use crate::server::{Reply, Server};
use crate::support::{Bench, at, event, order, saved};

fn named(id: &str) -> Value {
    event("order.named", &json!({ "id": id }))
}

/// A vendor that knows every order, and a system of it.
async fn vendor(
    bench: &Bench,
    answer: impl Fn() -> Option<Reply> + Send + Sync + 'static,
) -> (Server, SystemId) {
    let server = Server::start(move |asked| {
        answer().unwrap_or_else(|| {
            let id = asked.target.rsplit('/').next().unwrap();
            if asked.target.starts_with("/orders/") {
                Reply::json(json!({ "order": order(id, "8.80", 10) }).to_string())
            } else {
                Reply::json(json!({ "items": [order("X", "1.00", 10)] }).to_string())
            }
        })
    })
    .await;
    let system = bench.system_with(|system| system.api_endpoint = Some(server.url())).await;
    (server, system)
}

pub(crate) async fn the_record_of_a_thin_event_is_fetched(bench: Bench) {
    let (server, system) = vendor(&bench, || None).await;
    let ids = bench.receive(system, &[named("A"), saved("B", "1.00", 0)]).await;
    assert_eq!(bench.work().await, 2, "one batch");
    let fetched = bench.event(ids[0]).await;
    assert_eq!((fetched.state, fetched.result), (WebhookState::Applied, Some(EventResult::Fetched)));
    assert_eq!(bench.order(system, "A").await.unwrap().total, 880);
    assert_eq!(bench.order(system, "B").await.unwrap().total, 100);
    let asked: Vec<String> = server.asked().into_iter().map(|asked| asked.target).collect();
    assert_eq!(asked, ["/orders/A"]);
}

pub(crate) async fn a_vendor_that_is_down_is_asked_again_later(bench: Bench) {
    let status = Arc::new(AtomicU16::new(503));
    let (server, system) = switched(&bench, &status).await;
    let id = bench.receive(system, &[named("A")]).await[0];
    bench.drain().await;
    let waiting = bench.event(id).await;
    assert_eq!((waiting.state, waiting.attempt), (WebhookState::Pending, 1));
    assert_eq!(waiting.error_code.as_deref(), Some("vendor_unavailable"));
    assert_eq!(
        bench.read_system(system).await.status,
        SystemStatus::Inactive,
        "one event says little of a system"
    );
    status.store(200, Ordering::SeqCst);
    // The vendor's budget counts by the clock too.
    bench.advance(TimeDelta::minutes(5));
    bench.drain_to_the_end().await;
    assert_eq!(bench.event(id).await.result, Some(EventResult::Fetched));
    assert_eq!(server.asked().len(), 2);
}

pub(crate) async fn a_vendor_that_is_down_for_hours_costs_no_event(bench: Bench) {
    let status = Arc::new(AtomicU16::new(503));
    let (_server, system) = switched(&bench, &status).await;
    let id = bench.receive(system, &[named("A")]).await[0];
    let until = bench.now() + TimeDelta::hours(20);
    let mut asked = 0;
    while bench.now() < until {
        bench.drain().await;
        let waiting = bench.event(id).await;
        assert_eq!(waiting.state, WebhookState::Pending, "{waiting:?}");
        assert_eq!(waiting.error_code.as_deref(), Some("vendor_unavailable"), "people see why it waits");
        assert!(waiting.attempt <= i64::from(bench.ctx.webhooks.attempts_max), "{waiting:?}");
        let delay = waiting.run_at - bench.now();
        assert!(delay > TimeDelta::zero() && delay <= TimeDelta::minutes(5), "{delay}");
        asked += 1;
        bench.advance(delay);
    }
    assert!(asked > 200, "{asked}");
    status.store(200, Ordering::SeqCst);
    bench.drain().await;
    let fetched = bench.event(id).await;
    assert_eq!((fetched.state, fetched.result), (WebhookState::Applied, Some(EventResult::Fetched)));
    assert_eq!(fetched.error_code, None);
    bench.is_quiet().await;
}

pub(crate) async fn a_vendor_that_stays_away_ends_the_event_at_last(mut bench: Bench) {
    bench.set(|webhooks| webhooks.patience_hours = 1);
    let status = Arc::new(AtomicU16::new(503));
    let (_server, system) = switched(&bench, &status).await;
    let id = bench.receive(system, &[named("A")]).await[0];
    bench.drain_to_the_end().await;
    let dead = bench.event(id).await;
    assert_eq!((dead.state, dead.error_code.as_deref()), (WebhookState::Dead, Some("vendor_unavailable")));
    let waited = dead.ended_at.unwrap() - dead.received_at;
    assert!(waited >= TimeDelta::hours(1) && waited <= TimeDelta::minutes(66), "{waited}");
    assert_eq!(bench.minutes().await[0].records_failed, 1, "counted once");
}

/// A vendor that answers with this status, and as it should with 200.
async fn switched(bench: &Bench, status: &Arc<AtomicU16>) -> (Server, SystemId) {
    let now = Arc::clone(status);
    vendor(bench, move || match now.load(Ordering::SeqCst) {
        200 => None,
        status => Some(Reply::status(status, "", "no")),
    })
    .await
}

pub(crate) async fn a_vendor_that_refuses_the_credentials_puts_the_system_in_error(mut bench: Bench) {
    bench.set(|webhooks| webhooks.patience_hours = 1);
    let status = Arc::new(AtomicU16::new(401));
    let (server, system) = switched(&bench, &status).await;
    let id = bench.receive(system, &[named("A")]).await[0];
    bench.drain().await;
    let waiting = bench.event(id).await;
    assert_eq!((waiting.state, waiting.attempt), (WebhookState::Pending, 0));
    assert_eq!(waiting.error_code.as_deref(), Some("unauthorized"));
    let cooldown = seconds(bench.ctx.engine.breaker_cooldown_secs);
    assert_eq!(waiting.run_at, bench.now() + cooldown, "asking more often would only lock the account");
    let row = bench.read_system(system).await;
    assert_eq!(row.status, SystemStatus::Error);
    assert!(row.last_error.is_some());
    assert_eq!(server.asked().len(), 1);

    // Somebody enters new credentials: nobody waits any longer.
    status.store(200, Ordering::SeqCst);
    bench.advance(TimeDelta::minutes(1));
    bench.change(system, |_| {}).await;
    bench.drain().await;
    assert_eq!(bench.event(id).await.result, Some(EventResult::Fetched));

    // Nobody does: it ends.
    status.store(403, Ordering::SeqCst);
    let id = bench.receive(system, &[named("B")]).await[0];
    bench.drain_to_the_end().await;
    let dead = bench.event(id).await;
    assert_eq!((dead.state, dead.error_code.as_deref()), (WebhookState::Dead, Some("forbidden")));
    assert!(dead.ended_at.unwrap() - dead.received_at >= TimeDelta::hours(1));
    assert_eq!(server.asked().len(), 7, "once a cool-down");
}

pub(crate) async fn a_record_that_the_vendor_does_not_know_is_asked_for_again_and_in_the_end_not(
    mut bench: Bench,
) {
    bench.set(|webhooks| webhooks.patience_hours = 1);
    let status = Arc::new(AtomicU16::new(404));
    let (_server, system) = switched(&bench, &status).await;
    let ids = bench.receive(system, &[named("A"), event("order.named", &json!({ "no": 1 }))]).await;
    bench.drain().await;
    let waiting = bench.event(ids[0]).await;
    assert_eq!((waiting.state, waiting.attempt), (WebhookState::Pending, 1), "its index may lag");
    assert_eq!(waiting.error_code.as_deref(), Some("vendor_not_found"));
    assert_eq!(bench.event(ids[1]).await.state, WebhookState::Dead, "nobody can ask for this one");
    bench.drain_to_the_end().await;
    for (id, code) in [(ids[0], "vendor_not_found"), (ids[1], "event_incomplete")] {
        let dead = bench.event(id).await;
        assert_eq!((dead.state, dead.error_code.as_deref()), (WebhookState::Dead, Some(code)));
    }
}

fn booking(id: &str) -> Value {
    event("booking.named", &json!({ "id": id }))
}

/// A vendor of bookings, which has no budget.
async fn bookings(bench: &Bench, answer: impl Fn() -> Reply + Send + Sync + 'static) -> (Server, SystemId) {
    let server = Server::start(move |_| answer()).await;
    let system = bench.system_with(|system| system.api_endpoint = Some(server.url())).await;
    (server, system)
}

pub(crate) async fn an_answer_without_the_record_is_waited_for(bench: Bench) {
    let there = Arc::new(AtomicU16::new(0));
    let now = Arc::clone(&there);
    let (_server, system) = bookings(&bench, move || match now.load(Ordering::SeqCst) {
        0 => Reply::json(json!({ "booking": [] }).to_string()),
        1 => Reply::json(json!({ "other": {} }).to_string()),
        _ => {
            Reply::json(json!({ "booking": { "id": "R", "state": "booked", "updated": at(1) } }).to_string())
        }
    })
    .await;
    let id = bench.receive(system, &[booking("R")]).await[0];
    for attempt in 1..=2 {
        bench.drain().await;
        let waiting = bench.event(id).await;
        assert_eq!((waiting.state, waiting.attempt), (WebhookState::Pending, attempt));
        assert_eq!(waiting.error_code.as_deref(), Some("record_missing"));
        there.fetch_add(1, Ordering::SeqCst);
        bench.advance(waiting.run_at - bench.now());
    }
    bench.drain().await;
    assert_eq!(bench.event(id).await.result, Some(EventResult::Fetched));
}

pub(crate) async fn a_vendor_that_is_away_is_asked_a_few_times_for_a_whole_batch(bench: Bench) {
    for (status, code) in [(503, "vendor_unavailable"), (429, "rate_limited"), (401, "unauthorized")] {
        let (server, system) = bookings(&bench, move || Reply::status(status, "", "no")).await;
        let bodies: Vec<Value> = (0..40).map(|n| booking(&format!("R{n}"))).collect();
        let ids = bench.receive(system, &bodies).await;
        assert_eq!(bench.work().await, 40, "one batch");
        let asked = server.asked().len();
        assert!((1..=16).contains(&asked), "{status}: {asked} times");
        let mut given_back = 0;
        for id in ids {
            let waiting = bench.event(id).await;
            assert_eq!(waiting.state, WebhookState::Pending);
            assert_eq!(waiting.error_code.as_deref(), Some(code), "they see why they wait");
            assert!(waiting.run_at > bench.now());
            given_back += usize::from(waiting.attempt == 0);
        }
        assert!(given_back >= 40 - asked, "{status}: what was not asked for has spent nothing");
        bench.change(system, |system| system.paused = true).await;
    }
}

fn told_pulls(runs: Vec<Run>) -> Vec<Run> {
    runs.into_iter().filter(|run| run.kind == "pull").collect()
}

pub(crate) async fn an_event_asks_for_a_pull_and_several_share_it(bench: Bench) {
    let (server, system) = vendor(&bench, || None).await;
    let changed = || event("orders.changed", &json!({}));
    let mut ids: Vec<EventId> = bench.receive(system, &[changed(), changed(), changed()]).await;
    assert_eq!(bench.work().await, 3);
    ids.extend(bench.receive(system, &[changed()]).await);
    assert_eq!(bench.work().await, 1);
    for id in ids {
        let event = bench.event(id).await;
        assert_eq!((event.state, event.result), (WebhookState::Applied, Some(EventResult::Pulled)));
    }
    let waiting = told_pulls(bench.runs().await);
    assert_eq!(waiting.len(), 1, "one run for all of them");
    assert_eq!((waiting[0].trigger, waiting[0].status), (Trigger::Webhook, SyncStatus::Pending));
    // The window ends a lag of five seconds before the present: sooner, it would not show the record.
    assert_eq!(waiting[0].run_at, bench.now() + TimeDelta::seconds(6));
    bench.drain().await;
    assert_eq!(server.asked().len(), 0, "it is not due");
    bench.advance(TimeDelta::seconds(6));
    bench.drain().await;
    assert_eq!(told_pulls(bench.runs().await)[0].status, SyncStatus::Success);
    assert_eq!(bench.order(system, "X").await.unwrap().total, 100);
    assert_eq!(server.asked().len(), 1);
    bench.is_quiet().await;
}

pub(crate) async fn what_is_announced_too_late_for_a_pull_has_it_run_once_more(bench: Bench) {
    let (server, system) = vendor(&bench, || None).await;
    let announce = async || {
        bench.receive(system, &[event("orders.changed", &json!({}))]).await;
        assert_eq!(bench.work().await, 1);
    };
    announce().await;
    bench.advance(TimeDelta::seconds(3));
    announce().await;
    bench.advance(TimeDelta::seconds(3));
    bench.drain().await;
    assert_eq!(server.asked().len(), 1);
    let runs = told_pulls(bench.runs().await);
    assert_eq!(runs.len(), 2);
    assert_eq!((runs[0].status, runs[0].trigger), (SyncStatus::Pending, Trigger::Webhook));
    assert_eq!(runs[0].run_at, bench.now() + TimeDelta::seconds(6), "the second sees what came meanwhile");

    // A run that is in the middle of its window does not see it either, however late it goes on.
    bench.advance(TimeDelta::seconds(6));
    let now = bench.now();
    let lease = now + TimeDelta::seconds(60);
    let run = sync_logs::claim(bench.store(), runs[0].id, "elsewhere", lease).await.unwrap().unwrap();
    let mut tx = bench.store().begin().await.unwrap();
    sync_logs::progress(&mut tx, run.claim(), Some("{}"), Counts::default(), None, None).await.unwrap();
    let later = now + TimeDelta::minutes(1);
    sync_logs::give_back(&mut tx, run.claim(), later, &Ending::default(), now).await.unwrap();
    tx.commit().await.unwrap();
    announce().await;
    assert!(bench.run(run.id).await.again);
    for _ in 0..2 {
        // Long enough for the vendor's budget, too.
        bench.advance(TimeDelta::minutes(1));
        bench.drain().await;
    }
    let runs = told_pulls(bench.runs().await);
    assert_eq!(runs.len(), 3);
    let ends: Vec<_> = runs.iter().map(|run| (run.status, run.trigger, run.error_code.as_deref())).collect();
    assert_eq!(ends, [(SyncStatus::Success, Trigger::Webhook, None); 3]);
    bench.is_quiet().await;
}

pub(crate) async fn what_waits_for_a_budget_spends_nothing_however_old_it_is(bench: Bench) {
    let (server, system) = vendor(&bench, || None).await;
    let bodies: Vec<Value> = (0..6).map(|n| named(&format!("A{n}"))).collect();
    bench.receive(system, &bodies).await;
    // As after a long backlog, or when its system was paused.
    bench.advance(seconds(bench.ctx.engine.run_deadline_secs * 5));
    bench.drain().await;
    let waiting = bench.in_state(WebhookState::Pending).await;
    assert!(!waiting.is_empty() && waiting.iter().all(|event| event.attempt == 0), "{waiting:?}");
    bench.drain_to_the_end().await;
    assert_eq!(bench.in_state(WebhookState::Applied).await.len(), 6);
    assert_eq!(server.asked().len(), 6);
}

pub(crate) async fn a_spent_budget_gives_the_attempt_back(bench: Bench) {
    // Two calls a minute: the third and the fourth event have to wait.
    let (server, system) = vendor(&bench, || None).await;
    let ids = bench.receive(system, &[named("A"), named("B"), named("C"), named("D")]).await;
    bench.drain().await;
    let waiting = bench.in_state(WebhookState::Pending).await;
    assert!(!waiting.is_empty(), "the budget is spent");
    assert!(waiting.iter().all(|event| event.attempt == 0), "{waiting:?}");
    assert_eq!(server.asked().len() + waiting.len(), 4);
    bench.drain_to_the_end().await;
    for (id, order) in ids.into_iter().zip(["A", "B", "C", "D"]) {
        assert_eq!(bench.event(id).await.result, Some(EventResult::Fetched));
        assert!(bench.order(system, order).await.is_some());
    }
    assert_eq!(server.asked().len(), 4, "nobody was asked for twice");
}
