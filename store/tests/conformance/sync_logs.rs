//! `sync_logs`: the state machine of a run, fence and all.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use zhilian_sync_store::sync_logs::{
    Counts, Ending, Filter, NewRun, Run, ask_again, cancel, cancel_all_of, claim, due_to_ring, exhausted,
    expire_leases, fail_exhausted, fence, find, find_active, finish, forget_rings, get, give_back, hurry,
    list, mark_rung, progress, purge, retry, slots, tally, unring,
};
use zhilian_sync_store::{Lane, RunId, Store, StoreError, SyncStatus, SystemId, Trigger};

use super::support::{at, insert_run, new_run, system};

/// A pending run of a new system.
async fn pending(store: &Store) -> RunId {
    let run = new_run(store, system(store).await);
    assert!(insert_run(store, &run).await);
    run.id
}

/// Claims it for a minute.
async fn take(store: &Store, id: RunId, worker: &str) -> Option<Run> {
    claim(store, id, worker, store.clock().now() + TimeDelta::minutes(1)).await.unwrap()
}

/// One transaction of a worker: the fence, and nothing else.
async fn work(store: &Store, run: &Run) -> Result<(), StoreError> {
    let now = store.clock().now();
    let mut tx = store.begin().await?;
    fence(&mut tx, run.claim(), now + TimeDelta::minutes(1), now).await?;
    tx.commit().await
}

async fn end(store: &Store, run: &Run, status: SyncStatus) -> Result<Run, StoreError> {
    let mut tx = store.begin().await?;
    let ended = finish(&mut tx, run, status, &Ending::default(), store.clock().now()).await?;
    tx.commit().await?;
    Ok(ended)
}

async fn put_back(store: &Store, run: &Run, run_at: DateTime<Utc>, spent: bool) {
    let ending = Ending { error_code: Some("vendor_500"), ..Ending::default() };
    let now = store.clock().now();
    let mut tx = store.begin().await.unwrap();
    if spent {
        retry(&mut tx, run.claim(), run_at, &ending, now).await.unwrap();
    } else {
        give_back(&mut tx, run.claim(), run_at, &ending, now).await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[expect(clippy::needless_pass_by_value, reason = "given what a call returned, as it is")]
fn is_lost(result: Result<impl Sized, StoreError>) -> bool {
    matches!(result, Err(StoreError::ClaimLost(_)))
}

pub(crate) async fn a_second_active_run_is_refused(store: Store) {
    let system = system(&store).await;
    let first = new_run(&store, system);
    assert!(insert_run(&store, &first).await);
    assert!(!insert_run(&store, &new_run(&store, system)).await);
    let mut tx = store.begin().await.unwrap();
    let key = first.exclusive_key.clone().unwrap();
    let active = find_active(&mut tx, &key).await.unwrap().unwrap();
    assert_eq!((active.id, active.status), (first.id, SyncStatus::Pending));
    assert_eq!((active.run_at, active.begun), (at(0), false));
    assert!(hurry(&mut tx, first.id, Lane::Interactive, at(0)).await.unwrap());
    tx.commit().await.unwrap();

    let run = take(&store, first.id, "w").await.unwrap();
    assert_eq!((run.lane, run.again), (Lane::Interactive, false));
    assert!(!insert_run(&store, &new_run(&store, system)).await, "nor while it is syncing");
    let mut tx = store.begin().await.unwrap();
    assert!(ask_again(&mut tx, first.id, at(0)).await.unwrap());
    tx.commit().await.unwrap();
    assert!(end(&store, &run, SyncStatus::Success).await.unwrap().again);
    let mut tx = store.begin().await.unwrap();
    assert!(!ask_again(&mut tx, first.id, at(0)).await.unwrap(), "it has ended");
    tx.commit().await.unwrap();
    assert!(insert_run(&store, &new_run(&store, system)).await);
}

pub(crate) async fn a_run_that_webhooks_asked_for_later_is_not_done_when_it_is_hurried(store: Store) {
    for (trigger, run_at, again) in
        [(Trigger::Webhook, at(6), true), (Trigger::Webhook, at(0), false), (Trigger::Manual, at(6), false)]
    {
        let run = NewRun { trigger, run_at, ..new_run(&store, system(&store).await) };
        assert!(insert_run(&store, &run).await);
        let mut tx = store.begin().await.unwrap();
        for _ in 0..2 {
            assert!(hurry(&mut tx, run.id, Lane::Interactive, at(0)).await.unwrap());
        }
        tx.commit().await.unwrap();
        let hurried = get(&store, run.id).await.unwrap();
        assert_eq!((hurried.run_at, hurried.again), (at(0), again), "{trigger:?} {run_at}");
    }
}

pub(crate) async fn a_pending_run_says_whether_it_is_in_the_middle_of_something(store: Store) {
    let run = new_run(&store, system(&store).await);
    assert!(insert_run(&store, &run).await);
    let taken = take(&store, run.id, "w").await.unwrap();
    let mut tx = store.begin().await.unwrap();
    progress(&mut tx, taken.claim(), Some("{}"), Counts::default(), None, None).await.unwrap();
    give_back(&mut tx, taken.claim(), at(30), &Ending::default(), at(1)).await.unwrap();
    let key = run.exclusive_key.clone().unwrap();
    let active = find_active(&mut tx, &key).await.unwrap().unwrap();
    assert_eq!((active.status, active.begun, active.run_at), (SyncStatus::Pending, true, at(30)));
    assert!(ask_again(&mut tx, run.id, at(1)).await.unwrap());
    tx.commit().await.unwrap();
    assert!(get(&store, run.id).await.unwrap().again);
}

pub(crate) async fn a_slot_fires_once(store: Store) {
    let system = system(&store).await;
    let slot = |seconds| {
        let run = new_run(&store, system);
        NewRun { exclusive_key: None, scheduled_for: Some(at(seconds)), ..run }
    };
    let firing: Vec<_> = (0..4)
        .map(|_| {
            let (store, run) = (store.clone(), slot(300));
            tokio::spawn(async move { insert_run(&store, &run).await })
        })
        .collect();
    let mut fired = 0;
    for fire in firing {
        fired += u32::from(fire.await.unwrap());
    }
    assert_eq!(fired, 1);
    assert!(insert_run(&store, &slot(600)).await);
    assert_eq!(slots(&store, system, "orders", 10).await.unwrap(), [at(300), at(600)]);
    assert!(slots(&store, system, "payments", 10).await.unwrap().is_empty());
}

pub(crate) async fn a_run_is_claimed_once_and_only_when_due(store: Store) {
    let later = NewRun { run_at: at(10), ..new_run(&store, system(&store).await) };
    assert!(insert_run(&store, &later).await);
    assert!(take(&store, later.id, "early").await.is_none());
    store.clock().advance(TimeDelta::seconds(10));
    let claiming: Vec<_> = (0..8)
        .map(|worker| {
            let store = store.clone();
            tokio::spawn(async move { take(&store, later.id, &format!("w{worker}")).await })
        })
        .collect();
    let mut claimed = Vec::new();
    for claim in claiming {
        claimed.extend(claim.await.unwrap());
    }
    let [run] = claimed.as_slice() else { panic!("claimed {} times", claimed.len()) };
    assert_eq!((run.status, run.attempt, run.claim_no), (SyncStatus::Syncing, 1, 1));
    assert_eq!((run.started_at, run.lease_until), (Some(at(10)), Some(at(70))));
    assert_eq!(run.trigger, Trigger::Schedule);
    assert!(take(&store, RunId(store.clock().new_id()), "w").await.is_none());
}

pub(crate) async fn an_expired_lease_is_taken_over_and_the_old_worker_is_fenced_off(store: Store) {
    let id = pending(&store).await;
    let old = take(&store, id, "stopped").await.unwrap();
    store.clock().advance(TimeDelta::seconds(50));
    work(&store, &old).await.unwrap();
    store.clock().advance(TimeDelta::seconds(60));
    assert!(take(&store, id, "eager").await.is_none(), "the lease was renewed and ends now, not before");
    store.clock().advance(TimeDelta::seconds(1));
    let new = take(&store, id, "living").await.unwrap();
    assert_eq!((new.attempt, new.claim_no, new.started_at), (2, 2, Some(at(0))));

    assert!(is_lost(work(&store, &old).await));
    assert!(is_lost(end(&store, &old, SyncStatus::Success).await));
    let mut tx = store.begin().await.unwrap();
    assert!(is_lost(progress(&mut tx, old.claim(), None, Counts::default(), None, None).await));
    assert!(is_lost(retry(&mut tx, old.claim(), at(0), &Ending::default(), at(0)).await));
    assert!(is_lost(give_back(&mut tx, old.claim(), at(0), &Ending::default(), at(0)).await));
    drop(tx);
    work(&store, &new).await.unwrap();
    let ended = end(&store, &new, SyncStatus::Partial).await.unwrap();
    assert_eq!((ended.status, ended.duration_ms), (SyncStatus::Partial, Some(111_000)));
    assert!(is_lost(work(&store, &new).await), "nor does its own worker go on");
    assert!(take(&store, id, "late").await.is_none());
}

pub(crate) async fn an_attempt_given_back_is_not_spent_and_the_fence_still_moves(store: Store) {
    let id = pending(&store).await;
    for claims in 1..=5 {
        let run = take(&store, id, "w").await.unwrap();
        assert_eq!((run.attempt, run.claim_no), (1, claims));
        put_back(&store, &run, store.clock().now(), false).await;
        assert!(is_lost(work(&store, &run).await));
    }
    let run = take(&store, id, "w").await.unwrap();
    put_back(&store, &run, at(30), true).await;
    let read = get(&store, id).await.unwrap();
    assert_eq!((read.status, read.attempt, read.run_at), (SyncStatus::Pending, 1, at(30)));
    assert_eq!((read.lease_until, read.worker.clone(), read.rung_at), (None, None, None));
    assert_eq!(read.error_code.as_deref(), Some("vendor_500"));
    assert!(take(&store, id, "w").await.is_none());
    store.clock().advance(TimeDelta::seconds(30));
    assert_eq!(take(&store, id, "w").await.unwrap().attempt, 2);
}

pub(crate) async fn a_run_out_of_attempts_is_failed_by_the_scheduler(store: Store) {
    let id = pending(&store).await;
    for attempt in 1..=3 {
        assert_eq!(take(&store, id, "killed").await.unwrap().attempt, attempt);
        assert_eq!(exhausted(&store, store.clock().now(), 10).await.unwrap().len(), 0);
        store.clock().advance(TimeDelta::seconds(61));
    }
    assert!(take(&store, id, "w").await.is_none(), "three attempts are three");
    let now = store.clock().now();
    assert!(due_to_ring(&store, Lane::Syncs, now, now, 10).await.unwrap().is_empty());
    let [run] = exhausted(&store, now, 10).await.unwrap().try_into().unwrap();
    for expected in [true, false] {
        let mut tx = store.begin().await.unwrap();
        let failed =
            fail_exhausted(&mut tx, &run, "worker_lost", "its worker died", "[]", now).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(failed.is_some(), expected);
    }
    let failed = get(&store, id).await.unwrap();
    assert_eq!((failed.status, failed.error_code.as_deref()), (SyncStatus::Failed, Some("worker_lost")));
    assert!(is_lost(work(&store, &run).await));
}

pub(crate) async fn a_cancelled_run_stops_its_worker(store: Store) {
    let id = pending(&store).await;
    let run = take(&store, id, "w").await.unwrap();
    for expected in [true, false] {
        let mut tx = store.begin().await.unwrap();
        let cancelled = cancel(&mut tx, id, "by wang", at(5)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(cancelled.is_some(), expected);
    }
    assert!(is_lost(work(&store, &run).await));
    assert!(is_lost(end(&store, &run, SyncStatus::Success).await));
    assert!(take(&store, id, "w").await.is_none());
    let read = find(&store, id).await.unwrap().unwrap();
    assert_eq!((read.status, read.error_message.as_deref()), (SyncStatus::Cancelled, Some("by wang")));

    let of = system(&store).await;
    for key in ["a", "b"] {
        let run = new_run(&store, of);
        let run = NewRun { exclusive_key: Some(key.into()), ..run };
        assert!(insert_run(&store, &run).await);
    }
    let mut tx = store.begin().await.unwrap();
    assert_eq!(cancel_all_of(&mut tx, of, "the system is deleted", at(5)).await.unwrap().len(), 2);
    assert_eq!(cancel_all_of(&mut tx, of, "the system is deleted", at(5)).await.unwrap().len(), 0);
    tx.commit().await.unwrap();
    assert!(tally(&store).await.unwrap().is_empty());
}

pub(crate) async fn progress_is_kept_with_the_claim(store: Store) {
    let id = pending(&store).await;
    let run = take(&store, id, "w").await.unwrap();
    let counts = Counts { total: 100, success: 97, failed: 2, skipped: 1 };
    for (position, request) in [(Some("p1"), Some("{}")), (None, None)] {
        let mut tx = store.begin().await.unwrap();
        fence(&mut tx, run.claim(), at(60), at(0)).await.unwrap();
        progress(&mut tx, run.claim(), position, counts, request, request).await.unwrap();
        tx.commit().await.unwrap();
        let read = get(&store, id).await.unwrap();
        assert_eq!(read.position.as_deref(), position);
        assert_eq!((read.records_total, read.records_success), (100, 97));
        assert_eq!((read.records_failed, read.records_skipped), (2, 1));
        assert_eq!(read.request_data.as_deref(), Some("{}"), "the last sample that was taken stays");
        assert_eq!(read.response_data.as_deref(), Some("{}"));
    }
}

pub(crate) async fn of_many_schedulers_one_rings(store: Store) {
    let mut ids = BTreeSet::new();
    for _ in 0..10 {
        ids.insert(pending(&store).await);
    }
    let now = store.clock().now();
    let rings = due_to_ring(&store, Lane::Syncs, now, now - TimeDelta::seconds(60), 100).await.unwrap();
    assert_eq!(rings.len(), 10);
    let ringing: Vec<_> = (0..4)
        .map(|_| {
            let (store, rings) = (store.clone(), rings.clone());
            tokio::spawn(async move { mark_rung(&store, rings, now).await.unwrap() })
        })
        .collect();
    let mut rung = Vec::new();
    for ring in ringing {
        rung.extend(ring.await.unwrap());
    }
    assert_eq!(rung.len(), 10, "each was rung by one");
    assert_eq!(rung.into_iter().collect::<BTreeSet<_>>(), ids);

    let due = async |seconds: i64| {
        let now = at(seconds);
        due_to_ring(&store, Lane::Syncs, now, now - TimeDelta::seconds(60), 100).await.unwrap().len()
    };
    assert_eq!((due(0).await, due(60).await, due(61).await), (0, 0, 10), "rung again after a minute");
    let first = *ids.first().unwrap();
    unring(&store, &[first]).await.unwrap();
    assert_eq!(due(0).await, 1, "the queue did not take it");
    assert_eq!(forget_rings(&store, at(1), 5).await.unwrap(), 5);
    assert_eq!(due(0).await, 6, "the queue was emptied");

    let taken = take(&store, first, "w").await.unwrap();
    assert_eq!(due(0).await, 5);
    assert_eq!(expire_leases(&store).await.unwrap(), 1);
    assert_eq!(due(0).await, 6, "a restarted process alone with its database need not wait for a lease");
    assert!(take(&store, first, "w").await.unwrap().claim_no > taken.claim_no);
}

/// Ten runs: seven of the first system, three of the second.
async fn insert_ten(store: &Store) -> (SystemId, SystemId) {
    let (first, second) = (system(store).await, system(store).await);
    for index in 0..10 {
        let run = new_run(store, if index < 7 { first } else { second });
        assert!(insert_run(store, &NewRun { exclusive_key: None, ..run }).await);
        if index % 3 == 0 {
            store.clock().advance(TimeDelta::seconds(1));
        }
    }
    (first, second)
}

pub(crate) async fn runs_are_listed_within_the_callers_scope(store: Store) {
    let (first, _) = insert_ten(&store).await;
    let all = Filter { limit: 100, ..Filter::default() };
    for (what, filter, expected) in [
        ("everything", all.clone(), 10),
        ("a system", Filter { system_id: Some(first), ..all.clone() }, 7),
        ("a stream", Filter { sync_type: Some("payments"), ..all.clone() }, 0),
        ("a state", Filter { status: Some(SyncStatus::Pending), ..all.clone() }, 10),
        ("a store that has no system", Filter { scope: Some("A"), ..all }, 0),
    ] {
        assert_eq!(list(&store, &filter).await.unwrap().len(), expected, "{what}");
    }
}

pub(crate) async fn runs_are_listed_newest_first_page_by_page(store: Store) {
    insert_ten(&store).await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let filter = Filter { after, limit: 3, ..Filter::default() };
        let page = list(&store, &filter).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.created_at, last.id));
        seen.extend(page);
    }
    assert!(seen.is_sorted_by_key(|run| std::cmp::Reverse((run.created_at, run.id))));
    assert_eq!(seen.iter().map(|run| run.id).collect::<BTreeSet<_>>().len(), 10);
}

pub(crate) async fn old_runs_are_purged_once_they_ended(store: Store) {
    let (ended, waiting) = (pending(&store).await, pending(&store).await);
    let run = take(&store, ended, "w").await.unwrap();
    end(&store, &run, SyncStatus::Success).await.unwrap();
    assert_eq!(purge(&store, at(0), 100).await.unwrap(), 0);
    assert_eq!(purge(&store, at(1), 100).await.unwrap(), 1);
    assert!(find(&store, ended).await.unwrap().is_none());
    assert!(find(&store, waiting).await.unwrap().is_some());
    let [left] = tally(&store).await.unwrap().try_into().unwrap();
    assert_eq!((left.status, left.runs), (SyncStatus::Pending, 1));
}
