//! Events that are applied once more because somebody asks for it, and events that are old enough to go.

use chrono::TimeDelta;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use zhilian_sync_jobs::enqueue::{self, Enqueued, ReplayParameters, Wish};
use zhilian_sync_jobs::worker;
use zhilian_sync_store::sync_logs::{self, Filter};
use zhilian_sync_store::testing::rename_table;
use zhilian_sync_store::webhook_events::{self, EventResult, WebhookState};
use zhilian_sync_store::{RunId, StoreError, SyncStatus};

use crate::support::{Bench, event, saved};

async fn wish(bench: &Bench, parameters: ReplayParameters) -> RunId {
    let enqueued = enqueue::start(&bench.ctx, &Wish::replay(parameters, None)).await.unwrap();
    let Enqueued::New(id) = enqueued else { panic!("{enqueued:?}") };
    id
}

pub(crate) async fn a_dead_event_is_woken_by_a_replay(mut bench: Bench) {
    bench.set(|webhooks| webhooks.attempts_max = 1);
    let system = bench.system_with(|system| system.timezone = "nowhere".into()).await;
    let id = bench.receive(system, &[saved("A", "1.00", 0)]).await[0];
    bench.drain().await;
    assert_eq!(bench.event(id).await.state, WebhookState::Dead);
    bench.change(system, |system| system.timezone = "Asia/Shanghai".into()).await;
    let run =
        wish(&bench, ReplayParameters { state: Some(WebhookState::Dead), ..ReplayParameters::default() })
            .await;
    bench.drain().await;
    let woken = bench.event(id).await;
    assert_eq!((woken.state, woken.result), (WebhookState::Applied, Some(EventResult::Stored)));
    assert_eq!((woken.attempt, woken.error_code), (1, None));
    assert_eq!(bench.orders(system).await, 1);
    let run = bench.run(run).await;
    assert_eq!((run.status, run.records_total, run.system_id), (SyncStatus::Success, 1, None));
}

pub(crate) async fn a_replay_by_filter_goes_in_bites_and_says_how_far(mut bench: Bench) {
    let system = bench.system().await;
    let other = bench.system().await;
    for bite in 0..3 {
        let bodies: Vec<_> = (0..400).map(|n| event("ping", &json!({ "n": [bite, n] }))).collect();
        bench.receive(system, &bodies).await;
        bench.drain().await;
    }
    bench.receive(other, &[event("ping", &json!({}))]).await;
    bench.receive(system, &[saved("A", "1.00", 0)]).await;
    bench.drain().await;
    assert!(bench.in_state(WebhookState::Pending).await.is_empty());

    let parameters = ReplayParameters {
        system: Some(system),
        event_type: Some("ping".into()),
        state: Some(WebhookState::Applied),
        ..ReplayParameters::default()
    };
    let id = wish(&bench, parameters).await;
    std::sync::Arc::make_mut(&mut bench.ctx.engine).turn_secs = 0;
    worker::handle(&bench.ctx, &CancellationToken::new(), id).await;
    let run = bench.run(id).await;
    assert_eq!(
        (run.status, run.attempt),
        (SyncStatus::Pending, 0),
        "its turn is over, its attempt given back"
    );
    assert_eq!((run.records_total, run.records_success), (500, 500), "a bite, and its progress");
    worker::handle(&bench.ctx, &CancellationToken::new(), id).await;
    assert_eq!(bench.run(id).await.records_total, 1_000, "it goes on where it was");
    bench.drain().await;
    let run = bench.run(id).await;
    assert_eq!((run.status, run.records_total), (SyncStatus::Success, 1_200));
    let tally = async |system| webhook_events::tally(bench.store(), system).await.unwrap();
    assert_eq!(tally(system).await, tally(system).await);
    let log = bench.minutes().await;
    let pings: i64 = log
        .iter()
        .filter(|log| log.system_id == Some(system) && log.sync_type == "webhook/ping")
        .map(|log| log.records_total)
        .sum();
    assert_eq!(pings, 2_400, "each of them was applied twice, and no other");
    let other_pings: i64 =
        log.iter().filter(|log| log.system_id == Some(other)).map(|log| log.records_total).sum();
    assert_eq!(other_pings, 1);
    bench.is_quiet().await;
}

pub(crate) async fn a_replay_takes_no_event_that_came_after_it(bench: Bench) {
    let system = bench.system().await;
    let before = bench.receive(system, &[event("ping", &json!({}))]).await[0];
    bench.drain().await;
    bench.advance(TimeDelta::seconds(1));
    let run = wish(&bench, ReplayParameters { system: Some(system), ..ReplayParameters::default() }).await;
    bench.advance(TimeDelta::seconds(1));
    let after = bench.receive(system, &[event("ping", &json!({}))]).await[0];
    bench.drain().await;
    assert_eq!(bench.run(run).await.records_total, 1);
    // A replay counts as a claim that is over: the fence of whoever still worked on it.
    assert_eq!((bench.event(before).await.claim_no, bench.event(after).await.claim_no), (3, 1));
}

pub(crate) async fn a_replay_leaves_the_quarantine_alone(bench: Bench) {
    let system = bench.system().await;
    let body = saved("A", "1.00", 0).to_string().into_bytes();
    let mut strange = bench.new_event(system, 1, body);
    strange.accepted_by = None;
    strange.error = Some(("signature_mismatch", "the signature is wrong".into()));
    webhook_events::insert_batch(bench.store(), std::slice::from_ref(&strange)).await.unwrap();
    for state in [None, Some(WebhookState::Quarantined)] {
        let run =
            wish(&bench, ReplayParameters { system: Some(system), state, ..ReplayParameters::default() })
                .await;
        bench.drain().await;
        let run = bench.run(run).await;
        assert_eq!((run.status, run.records_total), (SyncStatus::Success, 0));
    }
    assert_eq!(bench.event(strange.id).await.state, WebhookState::Quarantined);
    assert_eq!(bench.orders(system).await, 0);
}

pub(crate) async fn a_second_replay_of_the_same_events_joins_and_another_is_a_conflict(bench: Bench) {
    let system = bench.system().await;
    let other = bench.system().await;
    let of = |system, state| {
        Wish::replay(ReplayParameters { system: Some(system), state, ..ReplayParameters::default() }, None)
    };
    let dead = Some(WebhookState::Dead);
    let first = enqueue::start(&bench.ctx, &of(system, None)).await.unwrap().run().unwrap();
    let again = enqueue::start(&bench.ctx, &of(system, None)).await.unwrap();
    assert_eq!(again, Enqueued::Hurried(first));
    let conflict = enqueue::start(&bench.ctx, &of(system, dead)).await;
    assert!(matches!(conflict, Err(StoreError::Conflict(_))), "{conflict:?}");
    assert!(matches!(enqueue::start(&bench.ctx, &of(other, dead)).await, Ok(Enqueued::New(_))));
    bench.drain().await;
    assert_eq!(bench.run(first).await.status, SyncStatus::Success);
    let health = bench.read_system(system).await;
    assert_eq!(health.last_sync_at, None, "a replay asks no vendor and says nothing of its health");
}

pub(crate) async fn old_events_are_purged(bench: Bench) {
    let system = bench.system().await;
    let old = bench.receive(system, &[saved("A", "1.00", 0)]).await[0];
    bench.drain().await;
    bench.advance(TimeDelta::days(i64::from(bench.ctx.engine.retention_days) + 2));
    let fresh = bench.receive(system, &[saved("B", "1.00", 0)]).await[0];
    bench.drain().await;
    assert!(webhook_events::find(bench.store(), old).await.unwrap().is_none());
    assert_eq!(bench.event(fresh).await.state, WebhookState::Applied);
    assert_eq!(bench.orders(system).await, 2, "records stay");
}

pub(crate) async fn a_table_that_cannot_be_tidied_keeps_nothing_in_the_others(bench: Bench) {
    let system = bench.system().await;
    let old = bench.receive(system, &[saved("A", "1.00", 0)]).await[0];
    bench.drain().await;
    bench.advance(TimeDelta::days(i64::from(bench.ctx.engine.retention_days) + 2));
    rename_table(bench.store(), "sessions", "mislaid").await;
    bench.drain().await;
    assert!(webhook_events::find(bench.store(), old).await.unwrap().is_none(), "gone all the same");
    let newest = async || {
        let filter = Filter { sync_type: Some("upkeep"), limit: 1, ..Filter::default() };
        sync_logs::list(bench.store(), &filter).await.unwrap().remove(0)
    };
    let run = newest().await;
    assert_eq!((run.status, run.attempt), (SyncStatus::Pending, 1), "it is tried again");
    assert!(run.error_message.as_deref().unwrap().contains("sessions"), "{run:?}");
    rename_table(bench.store(), "mislaid", "sessions").await;
    bench.advance(run.run_at - bench.now());
    bench.drain().await;
    assert_eq!(newest().await.status, SyncStatus::Success);
}
