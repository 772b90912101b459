//! `webhook_events`, from the claim to the end: nobody else works on what is claimed, an event that kills
//! its worker dies alone, and every outcome is written once.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use zhilian_sync_store::external_systems;
use zhilian_sync_store::sync_logs::{self, APPLY_WEBHOOKS, Counts, LogMinute, log_minute, minute_id};
use zhilian_sync_store::webhook_events::{
    End, EventFilter, EventResult, NewEvent, Outcome, SYSTEM_DELETED, WebhookEvent, WebhookState, amend,
    bury_of_system, claim_batch, expire_leases, get, has_due, mark, purge, replay, replay_some,
};
use zhilian_sync_store::{EventId, Lane, Pool, RunId, Store, SyncStatus, SystemId, Trigger, on_tx};

use super::support::{at, system};
use super::webhook_events::{event, insert_batch, kill_all, receive, unverified};

/// A minute's lease, from now.
async fn claim(store: &Store, limit: i64) -> Vec<WebhookEvent> {
    let now = store.clock().now();
    claim_batch(store, "w", now + TimeDelta::seconds(60), now, limit).await.unwrap()
}

fn ids(events: &[WebhookEvent]) -> Vec<EventId> {
    events.iter().map(|event| event.id).collect()
}

/// So many events, received a second after one another.
async fn receive_many(store: &Store, system: SystemId, number: usize) -> Vec<EventId> {
    let mut events: Vec<NewEvent> = Vec::new();
    for key in 0..number {
        events.push(event(store, system, &key.to_string()));
        store.clock().advance(TimeDelta::seconds(1));
    }
    insert_batch(store, &events).await.unwrap();
    events.iter().map(|event| event.id).collect()
}

fn outcome(event: &WebhookEvent, end: End) -> Outcome {
    Outcome { id: event.id, claim_no: event.claim_no, end }
}

const APPLIED: End = End::Applied { result: EventResult::Stored, sync_log_id: None, note: None };

async fn mark_all(store: &Store, outcomes: &[Outcome]) -> HashSet<EventId> {
    let mut tx = store.begin().await.unwrap();
    let marked = mark(&mut tx, outcomes, store.clock().now()).await.unwrap();
    tx.commit().await.unwrap();
    marked
}

async fn applied(store: &Store, events: &[WebhookEvent]) {
    let outcomes: Vec<Outcome> = events.iter().map(|event| outcome(event, APPLIED)).collect();
    assert_eq!(mark_all(store, &outcomes).await.len(), events.len());
}

pub(crate) async fn what_is_due_longest_is_claimed_first(store: Store) {
    let system = system(&store).await;
    assert!(!has_due(&store, at(0)).await.unwrap());
    assert!(claim(&store, 10).await.is_empty());
    let events = receive_many(&store, system, 5).await;
    assert!(!has_due(&store, at(-1)).await.unwrap());
    assert!(has_due(&store, at(5)).await.unwrap());

    let first = claim(&store, 2).await;
    assert_eq!(ids(&first), events[..2]);
    for event in &first {
        assert_eq!((event.state, event.attempt, event.claim_no), (WebhookState::Pending, 1, 1));
        assert_eq!((event.lease_until, event.worker.as_deref()), (Some(at(65)), Some("w")));
        assert_eq!(get(&store, event.id).await.unwrap(), *event);
    }
    let late = End::Retry { run_at: at(100), code: "vendor_busy", message: "later".into() };
    mark_all(&store, &[outcome(&first[0], late), outcome(&first[1], End::GiveBack { run_at: at(2) })]).await;
    assert_eq!(ids(&claim(&store, 10).await), [events[1], events[2], events[3], events[4]]);
    assert!(!has_due(&store, at(60)).await.unwrap());
    assert!(claim(&store, 10).await.is_empty());
}

pub(crate) async fn a_claim_is_bounded_in_bytes_too(store: Store) {
    let system = system(&store).await;
    let mut sent = Vec::new();
    for (key, megabytes) in [("1", 3), ("2", 4), ("3", 3), ("4", 9), ("5", 0)] {
        let large = NewEvent { body: vec![b'x'; megabytes << 20], ..event(&store, system, key) };
        receive(&store, &large).await;
        sent.push(large.id);
        store.clock().advance(TimeDelta::seconds(1));
    }
    assert_eq!(ids(&claim(&store, 10).await), sent[..2], "about 8 MB");
    assert_eq!(ids(&claim(&store, 10).await), sent[2..3]);
    assert_eq!(ids(&claim(&store, 10).await), sent[3..4], "one at least, however large");
    assert_eq!(ids(&claim(&store, 10).await), sent[4..]);
}

pub(crate) async fn of_many_workers_none_claims_what_another_has(store: Store) {
    let system = system(&store).await;
    let events = receive_many(&store, system, 200).await;
    let working: Vec<_> = (0..6)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let claimed = claim(&store, 7).await;
                    if claimed.is_empty() {
                        return mine;
                    }
                    applied(&store, &claimed).await;
                    mine.extend(ids(&claimed));
                }
            })
        })
        .collect();
    let mut claimed = Vec::new();
    for worker in working {
        claimed.extend(worker.await.unwrap());
    }
    assert_eq!(claimed.len(), events.len(), "none twice");
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), events.into_iter().collect());
}

pub(crate) async fn what_somebody_holds_is_skipped(store: Store) {
    let system = system(&store).await;
    let events = receive_many(&store, system, 3).await;
    match store.pool() {
        Pool::Postgres(_) => {
            let mut holding = store.begin().await.unwrap();
            assert!(replay(&mut holding, events[0], false, at(0)).await.unwrap());
            assert_eq!(ids(&claim(&store, 2).await), events[1..]);
            holding.commit().await.unwrap();
            assert_eq!(ids(&claim(&store, 2).await), events[..1]);
        }
        // There is one writer: nobody else can hold anything.
        Pool::Sqlite { .. } => assert_eq!(ids(&claim(&store, 3).await), events),
    }
}

pub(crate) async fn an_event_whose_worker_fell_silent_comes_alone(store: Store) {
    let system = system(&store).await;
    let events = receive_many(&store, system, 3).await;
    let silent = claim(&store, 3).await;
    assert_eq!(silent.len(), 3);
    store.clock().advance(TimeDelta::seconds(61));
    assert!(has_due(&store, store.clock().now()).await.unwrap());
    let fresh = event(&store, system, "fresh");
    receive(&store, &fresh).await;
    assert_eq!(ids(&claim(&store, 10).await), [fresh.id], "fresh ones go first");
    let alone = claim(&store, 10).await;
    assert_eq!(ids(&alone), events[..1]);
    assert_eq!((alone[0].attempt, alone[0].claim_no), (2, 2));

    // The silent worker speaks up: what was taken from it is not its any more.
    let late: Vec<Outcome> = silent.iter().map(|event| outcome(event, APPLIED)).collect();
    assert_eq!(mark_all(&store, &late[..2]).await, HashSet::from([events[1]]));
    applied(&store, &alone).await;
    assert!(mark_all(&store, &late[..2]).await.is_empty(), "an outcome is written once");

    // However many fresh ones there are, it is not kept waiting for ever.
    store.clock().advance(TimeDelta::seconds(60));
    receive(&store, &event(&store, system, "fresh too")).await;
    assert_eq!(ids(&claim(&store, 10).await), events[2..]);
    assert_eq!(claim(&store, 10).await.len(), 1);
}

pub(crate) async fn every_outcome_leaves_its_mark(store: Store) {
    let system = system(&store).await;
    receive_many(&store, system, 6).await;
    let log = RunId(store.clock().new_id());
    let claimed = claim(&store, 6).await;
    let note = Some(("partly_mapped", "one of two lines".to_owned()));
    let ends = [
        End::Applied { result: EventResult::Patched, sync_log_id: Some(log), note },
        APPLIED,
        End::Retry { run_at: at(90), code: "record_missing", message: "not here\0 yet".into() },
        End::Dead { code: "bad_event", message: "x".repeat(5_000) },
        End::GiveBack { run_at: at(30) },
        End::PutOff { run_at: at(1_000), code: "unauthorized", message: "who are you".into() },
    ];
    let outcomes: Vec<Outcome> =
        claimed.iter().zip(ends).map(|(event, end)| outcome(event, end)).rev().collect();
    assert_eq!(mark_all(&store, &outcomes).await, ids(&claimed).into_iter().collect());
    assert!(mark_all(&store, &[]).await.is_empty());

    let mut read = Vec::new();
    for event in &claimed {
        let event = get(&store, event.id).await.unwrap();
        assert_eq!((event.lease_until, event.claim_no), (None, 1));
        read.push(event);
    }
    let (done, pending) = (WebhookState::Applied, WebhookState::Pending);
    let states: Vec<_> = read.iter().map(|event| (event.state, event.attempt, event.ended_at)).collect();
    assert_eq!(
        states,
        [
            (done, 1, Some(at(6))),
            (done, 1, Some(at(6))),
            (pending, 1, None),
            (WebhookState::Dead, 1, Some(at(6))),
            (pending, 0, None),
            (pending, 0, None)
        ]
    );
    assert_eq!((read[0].result, read[0].sync_log_id), (Some(EventResult::Patched), Some(log)));
    assert_eq!(read[0].error_code.as_deref(), Some("partly_mapped"));
    assert_eq!((read[1].result, &read[1].error_code), (Some(EventResult::Stored), &None));
    assert_eq!((read[2].run_at, read[2].error_message.as_deref()), (at(90), Some("not here\u{fffd} yet")));
    assert_eq!(read[3].error_message.as_ref().unwrap().len(), 2_000);
    assert_eq!((read[4].run_at, &read[4].error_code), (at(30), &None));
    assert_eq!((read[5].run_at, read[5].error_code.as_deref()), (at(1_000), Some("unauthorized")));
    assert!(mark_all(&store, &outcomes).await.is_empty(), "an outcome is written once, and no attempt lost");
    assert_eq!(get(&store, claimed[4].id).await.unwrap().attempt, 0);

    // What is given back keeps the reason of the attempt before; what succeeds does not.
    store.clock().advance(TimeDelta::seconds(90));
    let again = claim(&store, 5).await;
    assert_eq!(again.len(), 2);
    let back: Vec<Outcome> =
        again.iter().map(|event| outcome(event, End::GiveBack { run_at: at(95) })).collect();
    mark_all(&store, &back).await;
    let retried = get(&store, read[2].id).await.unwrap();
    assert_eq!((retried.error_code.as_deref(), retried.attempt), (Some("record_missing"), 1));
    applied(&store, &claim(&store, 5).await).await;
    assert_eq!(get(&store, read[2].id).await.unwrap().error_code, None);
}

pub(crate) async fn an_outcome_is_amended_only_by_its_claim(store: Store) {
    let system = system(&store).await;
    receive_many(&store, system, 2).await;
    let [changed, kept] = claim(&store, 2).await.try_into().unwrap();
    let mut tx = store.begin().await.unwrap();
    let now = store.clock().now();
    mark(&mut tx, &[outcome(&changed, APPLIED), outcome(&kept, APPLIED)], now).await.unwrap();
    let retry = End::Retry { run_at: at(60), code: "record_missing", message: "not here yet".into() };
    let stranger = Outcome { claim_no: kept.claim_no - 1, ..outcome(&kept, retry.clone()) };
    amend(&mut tx, &[outcome(&changed, retry), stranger], now).await.unwrap();
    amend(&mut tx, &[], now).await.unwrap();
    tx.commit().await.unwrap();

    let read = get(&store, changed.id).await.unwrap();
    assert_eq!((read.state, read.result, read.ended_at), (WebhookState::Pending, None, None));
    assert_eq!((read.run_at, read.error_code.as_deref()), (at(60), Some("record_missing")));
    let read = get(&store, kept.id).await.unwrap();
    assert_eq!((read.state, read.result), (WebhookState::Applied, Some(EventResult::Stored)));
}

pub(crate) async fn a_process_that_is_alone_ends_every_lease(store: Store) {
    let system = system(&store).await;
    let events = receive_many(&store, system, 2).await;
    assert_eq!(claim(&store, 2).await.len(), 2);
    assert!(claim(&store, 2).await.is_empty());
    assert_eq!(expire_leases(&store).await.unwrap(), 2);
    assert_eq!(
        ids(&claim(&store, 2).await),
        events[..1],
        "one by one: one of them may have ended the process"
    );
    assert_eq!(ids(&claim(&store, 2).await), events[1..]);
}

async fn set_paused(store: &Store, id: SystemId, paused: bool) {
    let mut read = external_systems::get(store, id).await.unwrap();
    read.paused = paused;
    let mut tx = store.begin().await.unwrap();
    external_systems::save(&mut tx, &read, None, store.clock().now()).await.unwrap();
    tx.commit().await.unwrap();
}

pub(crate) async fn events_of_a_paused_system_wait_and_are_in_nobodys_way(store: Store) {
    let [paused, other] = [system(&store).await, system(&store).await];
    let waiting = receive_many(&store, paused, 5).await;
    set_paused(&store, paused, true).await;
    let free = event(&store, other, "1");
    receive(&store, &free).await;
    assert_eq!(ids(&claim(&store, 2).await), [free.id], "though two others were due before it");
    assert!(claim(&store, 2).await.is_empty());
    assert!(!has_due(&store, store.clock().now()).await.unwrap());
    for id in &waiting {
        let read = get(&store, *id).await.unwrap();
        assert_eq!((read.state, read.attempt, read.lease_until), (WebhookState::Pending, 0, None));
    }
    set_paused(&store, paused, false).await;
    let claimed = claim(&store, 10).await;
    assert_eq!(ids(&claimed).into_iter().collect::<BTreeSet<_>>(), waiting.into_iter().collect());
}

pub(crate) async fn what_was_put_off_comes_by_itself_or_when_its_system_changes(store: Store) {
    let system = system(&store).await;
    let waiting = receive_many(&store, system, 1).await;
    set_paused(&store, system, true).await;
    assert!(claim(&store, 2).await.is_empty());
    // Put off at the very moment of the resuming: before that, with an old reading of the system.
    set_paused(&store, system, false).await;
    let mut tx = store.begin().await.unwrap();
    let put_off = "UPDATE webhook_events SET run_at = $1";
    on_tx!(&mut tx, |ex| sqlx::query(put_off).bind(at(601)).execute(ex).await.map(drop)).unwrap();
    tx.commit().await.unwrap();
    assert!(claim(&store, 2).await.is_empty());
    store.clock().advance(TimeDelta::minutes(10));
    let claimed = claim(&store, 2).await;
    assert_eq!(ids(&claimed), waiting);

    // A failed attempt waits no longer when somebody mends the system.
    let late = End::Retry { run_at: at(5_000), code: "vendor_unauthorized", message: "no".into() };
    mark_all(&store, &[outcome(&claimed[0], late)]).await;
    assert!(claim(&store, 2).await.is_empty());
    set_paused(&store, system, false).await;
    assert_eq!(ids(&claim(&store, 2).await), waiting);
}

pub(crate) async fn events_of_a_deleted_system_die(store: Store) {
    let [mine, other] = [system(&store).await, system(&store).await];
    let events = receive_many(&store, mine, 3).await;
    let quarantined = unverified(&store, mine, "q", "s");
    receive(&store, &quarantined).await;
    let survivor = event(&store, other, "1");
    receive(&store, &survivor).await;
    let [working] = claim(&store, 1).await.try_into().unwrap();
    assert_eq!(working.id, events[0]);

    let read = external_systems::get(&store, mine).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    external_systems::delete(&mut tx, &read, at(9)).await.unwrap();
    assert_eq!(bury_of_system(&mut tx, mine, at(9)).await.unwrap(), 0, "deleting has done it");
    tx.commit().await.unwrap();
    for id in &events {
        let read = get(&store, *id).await.unwrap();
        assert_eq!((read.state, read.ended_at), (WebhookState::Dead, Some(at(9))));
        assert_eq!((read.error_code.as_deref(), read.lease_until), (Some(SYSTEM_DELETED), None));
    }
    assert!(mark_all(&store, &[outcome(&working, APPLIED)]).await.is_empty(), "its worker has lost it");
    assert_eq!(get(&store, quarantined.id).await.unwrap().state, WebhookState::Quarantined);

    // One that slipped in while the system was being deleted is met by a claim.
    let mut tx = store.begin().await.unwrap();
    assert!(replay(&mut tx, events[2], false, at(9)).await.unwrap());
    tx.commit().await.unwrap();
    store.clock().advance(TimeDelta::seconds(10));
    assert_eq!(ids(&claim(&store, 10).await), [survivor.id]);
    let read = get(&store, events[2]).await.unwrap();
    assert_eq!((read.state, read.error_code.as_deref()), (WebhookState::Dead, Some(SYSTEM_DELETED)));
}

async fn replay_now(store: &Store, id: EventId, forced: bool) -> bool {
    let mut tx = store.begin().await.unwrap();
    let replayed = replay(&mut tx, id, forced, store.clock().now()).await.unwrap();
    tx.commit().await.unwrap();
    replayed
}

pub(crate) async fn an_event_is_replayed_unless_somebody_works_on_it(store: Store) {
    let system = system(&store).await;
    let [first, second] = receive_many(&store, system, 2).await.try_into().unwrap();
    let quarantined = unverified(&store, system, "q", "s");
    receive(&store, &quarantined).await;
    assert_eq!(kill_all(&store).await.len(), 2);
    store.clock().advance(TimeDelta::seconds(8));
    assert!(replay_now(&store, first, true).await);
    assert!(!replay_now(&store, quarantined.id, true).await);
    assert!(!replay_now(&store, EventId(store.clock().new_id()), true).await);
    let read = get(&store, first).await.unwrap();
    assert_eq!((read.state, read.attempt, read.claim_no), (WebhookState::Pending, 0, 2));
    assert_eq!((read.run_at, read.forced, read.ended_at, read.error_code), (at(10), true, None, None));

    let claimed = claim(&store, 10).await;
    assert_eq!(ids(&claimed), [first]);
    assert!(claimed[0].forced);
    assert!(!replay_now(&store, first, false).await, "somebody works on it");
    applied(&store, &claimed).await;
    assert!(replay_now(&store, first, false).await);
    let read = get(&store, first).await.unwrap();
    assert_eq!((read.result, read.forced), (None, false));
    assert_eq!(get(&store, second).await.unwrap().state, WebhookState::Dead);
}

pub(crate) async fn events_are_replayed_by_filter_in_bites(store: Store) {
    let [mine, other] = [system(&store).await, system(&store).await];
    let events = receive_many(&store, mine, 5).await;
    receive_many(&store, other, 2).await;
    receive(&store, &unverified(&store, mine, "q", "s")).await;
    kill_all(&store).await;
    let filter = EventFilter {
        system_id: Some(mine),
        state: Some(WebhookState::Dead),
        from: Some(at(1)),
        ..EventFilter::default()
    };
    let (mut after, mut replayed) = (None, 0);
    loop {
        let mut tx = store.begin().await.unwrap();
        let bite = replay_some(&mut tx, &filter, after, 3, at(50)).await.unwrap();
        tx.commit().await.unwrap();
        let (changed, Some(last)) = bite else { break };
        assert!((1..=3).contains(&changed));
        replayed += changed;
        after = Some(last);
    }
    assert_eq!((replayed, after), (4, Some(events[4])));
    assert_eq!(get(&store, events[0]).await.unwrap().state, WebhookState::Dead);
    for id in &events[1..] {
        let read = get(&store, *id).await.unwrap();
        assert_eq!((read.state, read.forced, read.run_at), (WebhookState::Pending, false, at(50)));
    }
}

pub(crate) async fn old_events_are_purged_once_they_ended(store: Store) {
    let system = system(&store).await;
    let events = receive_many(&store, system, 4).await;
    let quarantined = unverified(&store, system, "q", "s");
    receive(&store, &quarantined).await;
    kill_all(&store).await;
    assert!(replay_now(&store, events[0], false).await);
    assert_eq!(purge(&store, at(0), 10).await.unwrap(), 0);
    assert_eq!(purge(&store, at(3), 1).await.unwrap(), 1);
    assert_eq!(purge(&store, at(3), 10).await.unwrap(), 1, "the first one waits to be applied");
    assert_eq!(purge(&store, at(60), 10).await.unwrap(), 2);
    assert_eq!(get(&store, events[0]).await.unwrap().state, WebhookState::Pending);
    assert!(get(&store, quarantined.id).await.is_err());
}

async fn log(
    store: &Store,
    system: SystemId,
    event_type: &str,
    minute: DateTime<Utc>,
    counts: Counts,
) -> RunId {
    let failed = counts.failed > 0;
    let log = LogMinute {
        system_id: system,
        event_type,
        minute,
        counts,
        failed_reason: failed.then_some(("bad_event", "it cannot\0 be read")),
    };
    let mut tx = store.begin().await.unwrap();
    let id = log_minute(&mut tx, store.clock(), log).await.unwrap();
    tx.commit().await.unwrap();
    id
}

pub(crate) async fn a_minutes_log_adds_up(store: Store) {
    let system = system(&store).await;
    let good = Counts { total: 3, success: 2, failed: 0, skipped: 1 };
    let bad = Counts { total: 2, success: 0, failed: 2, skipped: 0 };
    store.clock().advance(TimeDelta::seconds(5));
    let id = log(&store, system, "order.created", at(0), good).await;
    assert_eq!(id, minute_id(system, "order.created", at(0)));
    let run = sync_logs::get(&store, id).await.unwrap();
    assert_eq!((run.kind.as_str(), run.sync_type.as_str()), (APPLY_WEBHOOKS, "webhook/order.created"));
    assert_eq!((run.trigger, run.lane, run.status), (Trigger::Webhook, Lane::Hooks, SyncStatus::Success));
    assert_eq!(
        (run.scheduled_for, run.started_at, run.completed_at),
        (Some(at(0)), Some(at(0)), Some(at(5)))
    );
    assert_eq!((run.duration_ms, run.error_code), (Some(5_000), None));

    store.clock().advance(TimeDelta::seconds(7));
    assert_eq!(log(&store, system, "order.created", at(0), bad).await, id);
    assert_eq!(log(&store, system, "order.created", at(0), good).await, id);
    let run = sync_logs::get(&store, id).await.unwrap();
    assert_eq!((run.records_total, run.records_success), (8, 4));
    assert_eq!((run.records_failed, run.records_skipped), (2, 2));
    assert_eq!(
        (run.status, run.completed_at, run.duration_ms),
        (SyncStatus::Partial, Some(at(12)), Some(12_000))
    );
    assert_eq!(run.error_message.as_deref(), Some("it cannot\u{fffd} be read"));

    // Another type, another minute and another system are other rows.
    let long = "x".repeat(3_000);
    let others = [
        log(&store, system, &long, at(0), bad).await,
        log(&store, system, "", at(0), bad).await,
        log(&store, system, "order.created", at(60), bad).await,
        log(&store, super::support::system(&store).await, "order.created", at(0), bad).await,
    ];
    for id in others {
        let run = sync_logs::get(&store, id).await.unwrap();
        assert_eq!((run.records_total, run.status), (2, SyncStatus::Failed));
    }
    assert_eq!(others.into_iter().chain([id]).collect::<BTreeSet<_>>().len(), 5);
}

pub(crate) async fn many_workers_fill_one_minute(store: Store) {
    let system = system(&store).await;
    let working: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..5 {
                    let counts = Counts { total: 2, success: 2, failed: 0, skipped: 0 };
                    log(&store, system, "order.created", at(0), counts).await;
                }
            })
        })
        .collect();
    for worker in working {
        worker.await.unwrap();
    }
    let run = sync_logs::get(&store, minute_id(system, "order.created", at(0))).await.unwrap();
    assert_eq!((run.records_total, run.records_success), (80, 80));
}
