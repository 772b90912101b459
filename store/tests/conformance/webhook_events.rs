//! `webhook_events`, receipt and quarantine: every delivery has a row or is counted on one, and nothing
//! that is not genuine stands in the way of what is.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::TimeDelta;
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::webhook_events::{
    self, Accepted, AcceptedBy, End, EventFilter, EventResult, NewEvent, Outcome, Received, Tally, Usage,
    WebhookEvent, WebhookState, accept, claim_batch, count, count_repeated, find, fingerprint, get,
    key_of_body, list, mark, note_refusal, quarantine_usage, quarantine_usage_total, quarantined_of, tally,
};
use zhilian_sync_store::{EventId, Pool, Store, StoreError, SystemId, SystemType};

use super::support::{at, refuse_poison, system};

/// Keeps a batch and counts what is repeated in it, as a receiver does one after the other.
pub(crate) async fn insert_batch(store: &Store, events: &[NewEvent]) -> Result<Vec<Received>, StoreError> {
    let receipt = webhook_events::insert_batch(store, events).await?;
    count_repeated(store, receipt.uncounted).await?;
    Ok(receipt.received)
}

/// A verified event.
pub(crate) fn event(store: &Store, system: SystemId, key: &str) -> NewEvent {
    let body = format!(r#"{{"id":"{key}"}}"#).into_bytes();
    NewEvent {
        id: EventId(store.clock().new_id()),
        system_id: system,
        system_version: 1,
        event_key: key.to_owned(),
        event_type: Some("order.created".into()),
        accepted_by: Some(AcceptedBy::Verification),
        error: None,
        fingerprint: fingerprint(system, key, "order.created", &body, None),
        body,
        request: "{}".into(),
        sealed_request: None,
        received_at: store.clock().now(),
    }
}

/// The same, unverified.
pub(crate) fn unverified(store: &Store, system: SystemId, key: &str, signature: &str) -> NewEvent {
    let event = event(store, system, key);
    NewEvent {
        accepted_by: None,
        error: Some(("signature_mismatch", "the signature is another".into())),
        fingerprint: fingerprint(system, key, "order.created", &event.body, Some(signature)),
        request: format!(r#"{{"headers":{{"x-signature":"{signature}"}}}}"#),
        ..event
    }
}

pub(crate) async fn receive(store: &Store, event: &NewEvent) -> Received {
    insert_batch(store, std::slice::from_ref(event)).await.unwrap()[0]
}

/// Claims what is due and lets it die.
pub(crate) async fn kill_all(store: &Store) -> Vec<WebhookEvent> {
    let now = store.clock().now();
    let claimed = claim_batch(store, "w", now + TimeDelta::seconds(60), now, 100).await.unwrap();
    let outcomes: Vec<Outcome> = claimed
        .iter()
        .map(|event| Outcome {
            id: event.id,
            claim_no: event.claim_no,
            end: End::Dead { code: "bad_event", message: "it cannot be read".into() },
        })
        .collect();
    let mut tx = store.begin().await.unwrap();
    assert_eq!(mark(&mut tx, &outcomes, now).await.unwrap().len(), claimed.len());
    tx.commit().await.unwrap();
    claimed
}

async fn accept_as(store: &Store, event: EventId, genuine: &NewEvent) -> Accepted {
    let mut tx = store.begin().await.unwrap();
    let by = AcceptedBy::Verification;
    let accepted = accept(
        &mut tx,
        event,
        by,
        &genuine.fingerprint,
        &genuine.event_key,
        genuine.event_type.as_deref(),
        store.clock().now(),
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    accepted
}

async fn save(store: &Store, system: &ExternalSystem) {
    let mut tx = store.begin().await.unwrap();
    external_systems::save(&mut tx, system, None, store.clock().now()).await.unwrap();
    tx.commit().await.unwrap();
}

pub(crate) async fn an_event_is_kept_as_it_was_received(store: Store) {
    let system = system(&store).await;
    let new = NewEvent { sealed_request: Some(vec![1, 2, 3]), ..event(&store, system, "订单-1") };
    assert_eq!(receive(&store, &new).await, Received::New);
    let bare = NewEvent {
        event_type: None,
        accepted_by: Some(AcceptedBy::Waiver),
        body: vec![0, 255],
        fingerprint: fingerprint(system, &key_of_body(&[0, 255]), "order.created", &[0, 255], None),
        ..event(&store, system, &key_of_body(&[0, 255]))
    };
    let stranger = unverified(&store, system, "订单-1", "s");
    let answers = insert_batch(&store, &[bare.clone(), stranger.clone()]).await.unwrap();
    assert_eq!(answers, [Received::New, Received::New]);
    assert_eq!(insert_batch(&store, &[]).await.unwrap(), []);

    let read = get(&store, new.id).await.unwrap();
    let expected = WebhookEvent {
        id: new.id,
        system_id: system,
        fingerprint: new.fingerprint,
        event_key: "订单-1".into(),
        event_type: Some("order.created".into()),
        state: WebhookState::Pending,
        accepted_by: Some(AcceptedBy::Verification),
        result: None,
        error_code: None,
        error_message: None,
        attempt: 0,
        claim_no: 0,
        run_at: at(0),
        lease_until: None,
        worker: None,
        forced: false,
        deliveries: 1,
        body_bytes: i64::try_from(new.body.len()).unwrap(),
        body: new.body,
        request: "{}".into(),
        sealed_request: Some(vec![1, 2, 3]),
        sync_log_id: None,
        received_at: at(0),
        last_received_at: at(0),
        ended_at: None,
    };
    assert_eq!(read, expected);
    let read = get(&store, bare.id).await.unwrap();
    assert_eq!((read.event_type, read.body), (None, vec![0, 255]));
    assert_eq!(read.accepted_by, Some(AcceptedBy::Waiver));
    let read = get(&store, stranger.id).await.unwrap();
    assert_eq!((read.state, read.accepted_by), (WebhookState::Quarantined, None));
    assert_eq!(read.error_code.as_deref(), Some("signature_mismatch"));
    assert_eq!(read.error_message.as_deref(), Some("the signature is another"));
    let nobody = EventId(store.clock().new_id());
    assert!(matches!(get(&store, nobody).await.unwrap_err(), StoreError::NotFound(_)));
}

pub(crate) async fn a_second_delivery_is_counted_on_the_first(store: Store) {
    let system = system(&store).await;
    let first = event(&store, system, "1");
    assert_eq!(receive(&store, &first).await, Received::New);
    store.clock().advance(TimeDelta::seconds(5));
    let second = event(&store, system, "1");
    let again = Received::Duplicate { event: first.id, state: WebhookState::Pending, woken: false };
    assert_eq!(receive(&store, &second).await, again);
    assert_eq!(find(&store, second.id).await.unwrap(), None);
    let read = get(&store, first.id).await.unwrap();
    assert_eq!((read.deliveries, read.received_at, read.last_received_at), (2, at(0), at(5)));
    assert_eq!((read.run_at, read.attempt), (at(0), 0));

    // The same key with another body is another event.
    let other = NewEvent {
        body: b"{}".to_vec(),
        fingerprint: fingerprint(system, "1", "order.created", b"{}", None),
        ..event(&store, system, "1")
    };
    assert_eq!(receive(&store, &other).await, Received::New);
}

pub(crate) async fn a_batch_may_hold_an_event_twice(store: Store) {
    let system = system(&store).await;
    let known = event(&store, system, "known");
    receive(&store, &known).await;
    let [a, b, again, known_again, known_once_more] = [
        event(&store, system, "a"),
        event(&store, system, "b"),
        event(&store, system, "a"),
        event(&store, system, "known"),
        event(&store, system, "known"),
    ];
    let answers =
        insert_batch(&store, &[known_again, a.clone(), b.clone(), again, known_once_more]).await.unwrap();
    let duplicate = |event| Received::Duplicate { event, state: WebhookState::Pending, woken: false };
    assert_eq!(
        answers,
        [duplicate(known.id), Received::New, Received::New, duplicate(a.id), duplicate(known.id)]
    );
    for (id, deliveries) in [(known.id, 3), (a.id, 2), (b.id, 1)] {
        assert_eq!(get(&store, id).await.unwrap().deliveries, deliveries);
    }
}

pub(crate) async fn what_was_verified_with_an_older_version_is_stale(store: Store) {
    let system = system(&store).await;
    let dead = event(&store, system, "dead");
    receive(&store, &dead).await;
    kill_all(&store).await;
    let read = external_systems::get(&store, system).await.unwrap();
    assert_eq!(external_systems::find_version(&store, system).await.unwrap(), Some(1));
    save(&store, &read).await;
    assert_eq!(external_systems::find_version(&store, system).await.unwrap(), Some(2));

    let old = event(&store, system, "1");
    let current = |key: &str| NewEvent { system_version: 2, ..event(&store, system, key) };
    let unknown = event(&store, SystemId(store.clock().new_id()), "1");
    let batch = [old.clone(), current("1"), unknown, event(&store, system, "1"), current("2"), current("1")];
    let first = batch[1].id;
    let duplicate = Received::Duplicate { event: first, state: WebhookState::Pending, woken: false };
    let answers = insert_batch(&store, &batch).await.unwrap();
    assert_eq!(
        answers,
        [Received::Stale, Received::New, Received::Stale, Received::Stale, Received::New, duplicate]
    );
    assert_eq!(get(&store, first).await.unwrap().deliveries, 2);
    assert_eq!(receive(&store, &old).await, Received::Stale, "not even counted on the event that is there");

    // A revoked secret wakes nothing.
    assert_eq!(receive(&store, &event(&store, system, "dead")).await, Received::Stale);
    assert_eq!(get(&store, dead.id).await.unwrap().state, WebhookState::Dead);

    let read = external_systems::get(&store, system).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    external_systems::delete(&mut tx, &read, at(1)).await.unwrap();
    tx.commit().await.unwrap();
    for version in [2, 3] {
        let late = NewEvent { system_version: version, ..event(&store, system, "3") };
        assert_eq!(receive(&store, &late).await, Received::Stale, "the system is deleted");
    }
    assert_eq!(external_systems::find_version(&store, system).await.unwrap(), None);
}

pub(crate) async fn another_delivery_wakes_a_dead_event(store: Store) {
    let system = system(&store).await;
    let first = event(&store, system, "1");
    receive(&store, &first).await;
    kill_all(&store).await;
    let dead = get(&store, first.id).await.unwrap();
    assert_eq!((dead.state, dead.attempt, dead.ended_at), (WebhookState::Dead, 1, Some(at(0))));
    store.clock().advance(TimeDelta::seconds(9));
    let [second, third] = [event(&store, system, "1"), event(&store, system, "1")];
    let answers = insert_batch(&store, &[second, third]).await.unwrap();
    let woken = |woken| Received::Duplicate { event: first.id, state: WebhookState::Pending, woken };
    assert_eq!(answers, [woken(true), woken(false)]);
    let read = get(&store, first.id).await.unwrap();
    assert_eq!((read.state, read.attempt, read.claim_no), (WebhookState::Pending, 0, 1));
    assert_eq!((read.run_at, read.ended_at, read.error_code, read.error_message), (at(9), None, None, None));
    assert_eq!(read.deliveries, 3);
}

pub(crate) async fn nobody_waits_for_whoever_works_on_a_repeated_event(store: Store) {
    let Pool::Postgres(_) = store.pool() else {
        // SQLite has one writer at a time, so nobody can hold a row beside it.
        return;
    };
    let receiver = store.apart(1, Duration::from_millis(50));
    let system = system(&store).await;
    let known = event(&store, system, "1");
    receive(&store, &known).await;
    let claimed = claim_batch(&store, "w", at(60), at(0), 10).await.unwrap();
    let mut applying = store.begin().await.unwrap();
    let end = End::Applied { result: EventResult::Stored, sync_log_id: None, note: None };
    let outcome = Outcome { id: known.id, claim_no: claimed[0].claim_no, end };
    assert_eq!(mark(&mut applying, &[outcome], at(1)).await.unwrap().len(), 1);

    let batch = [event(&store, system, "1"), event(&store, system, "2")];
    let receipt = webhook_events::insert_batch(&receiver, &batch).await.unwrap();
    let duplicate = Received::Duplicate { event: known.id, state: WebhookState::Pending, woken: false };
    assert_eq!(receipt.received, [duplicate, Received::New], "answered while the row is held");

    applying.commit().await.unwrap();
    let mut uncounted = receipt.uncounted;
    let again = webhook_events::insert_batch(&store, &batch[..1]).await.unwrap();
    uncounted.merge(again.uncounted);
    assert_eq!(uncounted.len(), 1);
    assert!(!count_repeated(&store, uncounted).await.unwrap(), "nothing was dead");
    let read = get(&store, known.id).await.unwrap();
    assert_eq!((read.state, read.deliveries), (WebhookState::Applied, 3));
}

pub(crate) async fn overlapping_batches_at_once_make_one_row_each(store: Store) {
    const BATCHES: usize = 12;
    let system = system(&store).await;
    for round in 0..5 {
        let sending: Vec<_> = (0..BATCHES)
            .map(|sender| {
                let mut events: Vec<NewEvent> =
                    (0..30).map(|key| event(&store, system, &format!("{round}/{key}"))).collect();
                if sender % 2 == 1 {
                    events.reverse();
                }
                let store = store.clone();
                tokio::spawn(async move { insert_batch(&store, &events).await.unwrap() })
            })
            .collect();
        let mut new = 0;
        for sent in sending {
            let answers = sent.await.unwrap();
            assert!(!answers.contains(&Received::Stale));
            new += answers.iter().filter(|answer| **answer == Received::New).count();
        }
        assert_eq!(new, 30);
    }
    let repeated = 150 * (BATCHES as u64 - 1);
    assert_eq!(tally(&store, system).await.unwrap(), Tally { pending: 150, repeated, ..Tally::default() });
}

pub(crate) async fn a_refused_event_fails_its_batch_and_only_that(store: Store) {
    refuse_poison(&store, "webhook_events", "event_key").await;
    let system = system(&store).await;
    let [good, poison] = [event(&store, system, "good"), event(&store, system, "poison")];
    let error = insert_batch(&store, &[good.clone(), poison.clone()]).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    assert_eq!(find(&store, good.id).await.unwrap(), None, "all or none");
    assert!(matches!(insert_batch(&store, &[poison]).await.unwrap_err(), StoreError::Refused(_)));
    assert_eq!(receive(&store, &good).await, Received::New);
}

pub(crate) async fn nul_characters_do_not_lose_an_event(store: Store) {
    let system = system(&store).await;
    let new = NewEvent {
        event_type: Some("a\0b".into()),
        request: "{\0}".into(),
        error: Some(("bad_body", "a\0".into())),
        body: vec![0, 1],
        ..event(&store, system, "1\0")
    };
    assert_eq!(receive(&store, &new).await, Received::New);
    let read = get(&store, new.id).await.unwrap();
    assert_eq!((read.event_key.as_str(), read.event_type.as_deref()), ("1\u{fffd}", Some("a\u{fffd}b")));
    assert_eq!(read.body, vec![0, 1]);
}

pub(crate) async fn a_quarantined_copy_does_not_stand_in_the_way(store: Store) {
    let system = system(&store).await;
    let copies = ["", "wrong", "wrong", "wrong too"].map(|it| unverified(&store, system, "1", it));
    let answers = insert_batch(&store, &copies).await.unwrap();
    let known = Received::Duplicate { event: copies[1].id, state: WebhookState::Quarantined, woken: false };
    assert_eq!(answers, [Received::New, Received::New, known, Received::New]);
    let genuine = event(&store, system, "1");
    assert_eq!(receive(&store, &genuine).await, Received::New);
    assert_eq!(get(&store, genuine.id).await.unwrap().state, WebhookState::Pending);
    let claimed = kill_all(&store).await;
    assert_eq!(claimed.iter().map(|event| event.id).collect::<Vec<_>>(), [genuine.id]);
}

pub(crate) async fn the_quarantine_is_measured_and_paged(store: Store) {
    let [mine, theirs] = [system(&store).await, system(&store).await];
    assert_eq!(quarantine_usage(&store, mine).await.unwrap(), Usage::default());
    let mut events: Vec<NewEvent> =
        (0..5).map(|key| unverified(&store, mine, &key.to_string(), "s")).collect();
    events.push(unverified(&store, theirs, "1", "s"));
    events.push(event(&store, mine, "verified"));
    insert_batch(&store, &events).await.unwrap();
    let bytes = i64::try_from(events[0].body.len()).unwrap();
    let usage = Usage { events: 5, bytes: 5 * bytes };
    assert_eq!(quarantine_usage(&store, mine).await.unwrap(), usage);
    let usage = Usage { events: 6, bytes: 6 * bytes };
    assert_eq!(quarantine_usage_total(&store).await.unwrap(), usage);

    let mut seen = Vec::new();
    loop {
        let after = seen.last().copied();
        let page = quarantined_of(&store, mine, after, 2).await.unwrap();
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(|event| event.id));
    }
    assert!(seen.is_sorted());
    let expected: BTreeSet<EventId> = events[..5].iter().map(|event| event.id).collect();
    assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), expected);

    let mut tx = store.begin().await.unwrap();
    assert!(note_refusal(&mut tx, seen[0], "timestamp_outside_window", "too old").await.unwrap());
    assert!(!note_refusal(&mut tx, events[6].id, "timestamp_outside_window", "too old").await.unwrap());
    tx.commit().await.unwrap();
    let read = get(&store, seen[0]).await.unwrap();
    assert_eq!(read.error_code.as_deref(), Some("timestamp_outside_window"));
    assert_eq!(get(&store, events[6].id).await.unwrap().error_code, None);
}

pub(crate) async fn an_accepted_event_is_pending_or_a_duplicate(store: Store) {
    let system = system(&store).await;
    let [held, copy] = ["s", "t"].map(|signature| unverified(&store, system, "1", signature));
    insert_batch(&store, &[held.clone(), copy.clone()]).await.unwrap();
    store.clock().advance(TimeDelta::seconds(7));
    let genuine = event(&store, system, "1");
    assert_eq!(accept_as(&store, held.id, &genuine).await, Accepted::Pending);
    assert_eq!(accept_as(&store, held.id, &genuine).await, Accepted::NotQuarantined);
    let nobody = EventId(store.clock().new_id());
    assert_eq!(accept_as(&store, nobody, &genuine).await, Accepted::NotQuarantined);
    let read = get(&store, held.id).await.unwrap();
    assert_eq!((read.state, read.accepted_by), (WebhookState::Pending, Some(AcceptedBy::Verification)));
    assert_eq!((read.fingerprint, read.run_at, read.error_code), (genuine.fingerprint.clone(), at(7), None));

    // From now on the genuine one is a duplicate of it, and so is the other copy.
    let again = Received::Duplicate { event: held.id, state: WebhookState::Pending, woken: false };
    assert_eq!(receive(&store, &genuine).await, again);
    kill_all(&store).await;
    assert_eq!(accept_as(&store, copy.id, &genuine).await, Accepted::Duplicate);
    let read = get(&store, copy.id).await.unwrap();
    assert_eq!((read.state, read.ended_at, read.error_code), (WebhookState::Duplicate, Some(at(7)), None));
    let read = get(&store, held.id).await.unwrap();
    assert_eq!((read.state, read.deliveries), (WebhookState::Pending, 3), "it was dead, and is awake");
    let expected = Tally { pending: 1, duplicate: 1, repeated: 2, ..Tally::default() };
    assert_eq!(tally(&store, system).await.unwrap(), expected);
}

pub(crate) async fn accepting_and_receiving_at_once_makes_one_event(store: Store) {
    let system = system(&store).await;
    for round in 0..20 {
        let key = round.to_string();
        let held = unverified(&store, system, &key, "s");
        receive(&store, &held).await;
        let genuine = event(&store, system, &key);
        let receiving = {
            let (store, genuine) = (store.clone(), genuine.clone());
            tokio::spawn(async move { receive(&store, &genuine).await })
        };
        let accepted = accept_as(&store, held.id, &genuine).await;
        let received = receiving.await.unwrap();
        let held = get(&store, held.id).await.unwrap();
        match accepted {
            Accepted::Pending => {
                let again =
                    Received::Duplicate { event: held.id, state: WebhookState::Pending, woken: false };
                assert_eq!(received, again);
                assert_eq!((held.state, held.deliveries), (WebhookState::Pending, 2));
                assert_eq!(find(&store, genuine.id).await.unwrap(), None);
            }
            Accepted::Duplicate => {
                assert_eq!((received, held.state), (Received::New, WebhookState::Duplicate));
                let other = get(&store, genuine.id).await.unwrap();
                assert_eq!((other.state, other.deliveries), (WebhookState::Pending, 2));
            }
            Accepted::NotQuarantined => panic!("it was in quarantine"),
        }
    }
}

/// Three of store A (two types), one of a chain-wide system, one quarantined.
async fn receive_some(store: &Store) -> (SystemId, SystemId, Vec<NewEvent>) {
    let mut of_store = external_systems::blank(store, "Till", SystemType::Delivery, "demo-pos");
    of_store.store_id = Some("A".into());
    let mut tx = store.begin().await.unwrap();
    external_systems::insert(&mut tx, &of_store).await.unwrap();
    tx.commit().await.unwrap();
    let chain = system(store).await;
    let mut events = Vec::new();
    for (system, key) in [(of_store.id, "1"), (of_store.id, "2"), (chain, "3"), (of_store.id, "4")] {
        let mut event = event(store, system, key);
        if key == "2" {
            event.event_type = Some("order.cancelled".into());
        }
        events.push(event);
        store.clock().advance(TimeDelta::seconds(10));
    }
    events.push(unverified(store, of_store.id, "5", "s"));
    insert_batch(store, &events).await.unwrap();
    (of_store.id, chain, events)
}

pub(crate) async fn events_are_filtered_and_scoped(store: Store) {
    let (of_store, chain, events) = receive_some(&store).await;
    let all = EventFilter { limit: 100, ..EventFilter::default() };
    let of = |system_id| EventFilter { system_id: Some(system_id), ..all.clone() };
    let in_state = |state| EventFilter { state: Some(state), ..all.clone() };
    for (what, filter, expected) in [
        ("everything", all.clone(), vec![4, 3, 2, 1, 0]),
        ("a system", of(chain), vec![2]),
        ("a scope", EventFilter { scope: Some("A"), ..all.clone() }, vec![4, 3, 1, 0]),
        ("a scope cannot be left", EventFilter { scope: Some("A"), ..of(chain) }, vec![]),
        ("a type of systems", EventFilter { system_type: Some(SystemType::Pos), ..all.clone() }, vec![2]),
        ("quarantined", in_state(WebhookState::Quarantined), vec![4]),
        ("pending", EventFilter { state: Some(WebhookState::Pending), ..of(of_store) }, vec![3, 1, 0]),
        ("dead", in_state(WebhookState::Dead), vec![]),
        ("a type", EventFilter { event_type: Some("order.cancelled"), ..all.clone() }, vec![1]),
        ("a key", EventFilter { event_key: Some("4"), ..all.clone() }, vec![3]),
        ("a time", EventFilter { from: Some(at(10)), to: Some(at(30)), ..all.clone() }, vec![2, 1]),
        ("before", EventFilter { before: Some(events[2].id), ..all.clone() }, vec![1, 0]),
    ] {
        let listed: Vec<EventId> =
            list(&store, &filter).await.unwrap().into_iter().map(|event| event.id).collect();
        let expected: Vec<EventId> = expected.into_iter().map(|index: usize| events[index].id).collect();
        assert_eq!(listed, expected, "{what}");
        if filter.before.is_none() {
            let counted = count(&store, &filter).await.unwrap();
            assert_eq!(counted, i64::try_from(expected.len()).unwrap(), "{what}");
        }
    }
    assert_eq!(count(&store, &EventFilter { limit: 2, ..EventFilter::default() }).await.unwrap(), 2);
    assert_eq!(tally(&store, chain).await.unwrap(), Tally { pending: 1, ..Tally::default() });
    // A copy in quarantine that comes again is no repetition of an event.
    receive(&store, &unverified(&store, of_store, "5", "s")).await;
    receive(&store, &event(&store, of_store, "1")).await;
    let expected = Tally { pending: 3, quarantined: 1, repeated: 1, ..Tally::default() };
    assert_eq!(tally(&store, of_store).await.unwrap(), expected);
}

pub(crate) async fn events_are_listed_newest_first_page_by_page(store: Store) {
    let (_, _, events) = receive_some(&store).await;
    let mut seen = Vec::new();
    loop {
        let filter = EventFilter { before: seen.last().copied(), limit: 2, ..EventFilter::default() };
        let page = list(&store, &filter).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|event| event.id));
    }
    let newest_first: Vec<EventId> = events.iter().rev().map(|event| event.id).collect();
    assert_eq!(seen, newest_first);
}
