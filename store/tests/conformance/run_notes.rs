//! `sync_logs`: what is noticed in a run, and what is usual for one like it.

use chrono::{DateTime, TimeDelta, Utc};
use zhilian_sync_store::sync_logs::{
    Counts, Ending, NewRun, Run, claim, finish, get, note, progress, usual_records,
};
use zhilian_sync_store::{RunId, Store, StoreError, SyncStatus, SystemId};

use super::support::{at, insert_run, new_run, system};

/// A run that is made at a time, sees so many records and ends.
async fn ended(store: &Store, new: NewRun, made_at: DateTime<Utc>, total: i64, status: SyncStatus) -> Run {
    store.clock().advance(made_at - store.clock().now());
    let run = NewRun { id: RunId(store.clock().new_id()), exclusive_key: None, run_at: made_at, ..new };
    assert!(insert_run(store, &run).await);
    let run = claim(store, run.id, "w", made_at + TimeDelta::minutes(1)).await.unwrap().unwrap();
    let counts = Counts { total, success: total, ..Counts::default() };
    let mut tx = store.begin().await.unwrap();
    progress(&mut tx, run.claim(), None, counts, None, None).await.unwrap();
    let run = finish(&mut tx, &run, status, &Ending::default(), made_at).await.unwrap();
    tx.commit().await.unwrap();
    run
}

/// What is usual for a run that is made at noon of the fake clock's day, in order.
async fn usual_at_noon(store: &Store, system: SystemId) -> Vec<i64> {
    let run = ended(store, new_run(store, system), at(0), 0, SyncStatus::Success).await;
    let mut usual = usual_records(store, &run).await.unwrap();
    usual.sort_unstable();
    usual
}

pub(crate) async fn notes_are_kept_with_the_claim(store: Store) {
    let new = new_run(&store, system(&store).await);
    assert!(insert_run(&store, &new).await);
    let run = claim(&store, new.id, "w", at(60)).await.unwrap().unwrap();
    assert_eq!(run.notes, None);
    for notes in [Some(r#"{"unknown_fields":{"tip":1}}"#), Some("a\0b"), None] {
        let mut tx = store.begin().await.unwrap();
        note(&mut tx, run.claim(), notes).await.unwrap();
        tx.commit().await.unwrap();
        let kept = notes.map(|notes| notes.replace('\0', "\u{fffd}"));
        assert_eq!(get(&store, run.id).await.unwrap().notes, kept);
    }
    // Another worker has it now.
    store.clock().advance(TimeDelta::minutes(2));
    claim(&store, new.id, "other", at(300)).await.unwrap().unwrap();
    let mut tx = store.begin().await.unwrap();
    let lost = note(&mut tx, run.claim(), Some("{}")).await;
    assert!(matches!(lost, Err(StoreError::ClaimLost(_))), "{lost:?}");
}

pub(crate) async fn what_is_usual_is_the_same_hour_of_the_same_weekday(store: Store) {
    let system = system(&store).await;
    let (week, hour) = (TimeDelta::weeks(1), TimeDelta::hours(1));
    let made = [
        (at(0) - week * 5, 1),
        (at(0) - week * 4 - hour, 10),
        (at(0) - week * 3 - hour * 2, 2),
        (at(0) - week * 3 + hour, 20),
        (at(0) - week * 2 - TimeDelta::days(1), 3),
        (at(0) - week * 2, 30),
        (at(0) - week, 40),
        (at(0) - week + hour * 2, 4),
        (at(0) - hour, 5),
    ];
    for (made_at, total) in made {
        ended(&store, new_run(&store, system), made_at, total, SyncStatus::Success).await;
    }
    assert_eq!(usual_at_noon(&store, system).await, [10, 20, 30, 40]);
}

pub(crate) async fn only_runs_of_the_same_kind_that_ended_well_are_usual(store: Store) {
    let (mine, other) = (system(&store).await, system(&store).await);
    let new = || new_run(&store, mine);
    let week_ago = at(0) - TimeDelta::weeks(1);
    ended(&store, new(), week_ago, 10, SyncStatus::Success).await;
    ended(&store, new(), week_ago, 20, SyncStatus::Partial).await;
    ended(&store, new(), week_ago, 1, SyncStatus::Failed).await;
    ended(&store, new_run(&store, other), week_ago, 2, SyncStatus::Success).await;
    let another = [
        NewRun { sync_type: "payments".into(), ..new() },
        NewRun { kind: "retry_failures", ..new() },
        NewRun { kind: "apply_webhooks", ..new() },
        NewRun { parameters: Some(r#"{"from":"2025-01-01T00:00:00Z"}"#.into()), ..new() },
    ];
    for (index, new) in (3..).zip(another) {
        ended(&store, new, week_ago, index, SyncStatus::Success).await;
    }
    assert_eq!(usual_at_noon(&store, mine).await, [10, 20]);
}
