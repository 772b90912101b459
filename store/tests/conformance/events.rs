//! `events`: what live clients hear.

use chrono::TimeDelta;
use zhilian_sync_store::events::{
    EventKind, NewEvent, head, insert, list_after, place, purge, reaches_back_to,
};
use zhilian_sync_store::{DatabaseKind, RunId, Store, SystemId, Tx, external_systems};

use super::support::{at, run};

async fn tell(tx: &mut Tx, store: &Store, of: Option<(SystemId, RunId)>, data: &str) {
    let (system_id, run_id) = (of.map(|of| of.0), of.map(|of| of.1));
    let event = NewEvent { kind: EventKind::RunEnded, system_id, run_id, data };
    insert(tx, store.clock(), event).await.unwrap();
}

pub(crate) async fn events_are_heard_in_order_after_a_position(store: Store) {
    let mut system = external_systems::blank(&store, "Till", zhilian_sync_store::SystemType::Pos, "demo-pos");
    system.store_id = Some("A".into());
    let mut tx = store.begin().await.unwrap();
    external_systems::insert(&mut tx, &system).await.unwrap();
    tx.commit().await.unwrap();
    let run = run(&store, system.id).await;

    for index in 0..5 {
        let mut tx = store.begin().await.unwrap();
        tell(&mut tx, &store, (index != 0).then_some((system.id, run)), "{}").await;
        tx.commit().await.unwrap();
        store.clock().advance(TimeDelta::seconds(1));
    }
    assert_eq!(list_after(&store, 0, 10).await.unwrap(), [], "nothing is heard that has no place");
    assert_eq!((place(&store).await.unwrap(), place(&store).await.unwrap()), (5, 0));
    let first = list_after(&store, 0, 2).await.unwrap();
    let rest = list_after(&store, first[1].position.unwrap(), 10).await.unwrap();
    let all: Vec<_> = first.iter().chain(&rest).collect();
    let positions: Vec<_> = all.iter().map(|event| event.position.unwrap()).collect();
    assert_eq!(positions, [1, 2, 3, 4, 5]);
    let heard: Vec<_> = all.iter().map(|event| event.created_at).collect();
    assert_eq!(heard, [at(0), at(1), at(2), at(3), at(4)]);
    assert_eq!((first[0].store_id.as_deref(), first[0].run_id), (None, None));
    assert_eq!((first[1].store_id.as_deref(), first[1].run_id), (Some("A"), Some(run)));

    assert!(reaches_back_to(&store, 0).await.unwrap());
    assert_eq!(purge(&store, at(2), 10).await.unwrap(), 2);
    assert_eq!(list_after(&store, 0, 10).await.unwrap().len(), 3);
    for (position, kept) in [(0, false), (1, false), (2, true), (5, true), (6, false)] {
        assert_eq!(reaches_back_to(&store, position).await.unwrap(), kept, "{position}");
    }
    assert_eq!(purge(&store, at(9), 10).await.unwrap(), 3);
    assert!(reaches_back_to(&store, 5).await.unwrap() && !reaches_back_to(&store, 4).await.unwrap());
    assert_eq!(head(&store).await.unwrap(), 5);
}

/// The first to write is the last to commit: its event has the lower id, and is heard all the same.
pub(crate) async fn an_event_that_commits_late_is_not_skipped(store: Store) {
    // SQLite has one writer: there the second transaction waits, and nothing can commit out of order.
    let mut early = store.begin().await.unwrap();
    tell(&mut early, &store, None, "\"early\"").await;
    let mut expected = vec!["\"early\""];
    if store.pool().kind() == DatabaseKind::Postgres {
        let mut late = store.begin().await.unwrap();
        tell(&mut late, &store, None, "\"late\"").await;
        late.commit().await.unwrap();
        assert_eq!(place(&store).await.unwrap(), 1, "the one that is committed, waiting for nobody");
        expected.insert(0, "\"late\"");
    } else {
        assert_eq!(place(&store).await.unwrap(), 0, "and reading waits for nobody");
    }
    let heard = list_after(&store, 0, 10).await.unwrap();
    let position = heard.last().map_or(0, |event| event.position.unwrap());
    early.commit().await.unwrap();
    assert_eq!(place(&store).await.unwrap(), 1);
    let then = list_after(&store, position, 10).await.unwrap();
    let all: Vec<_> = heard.iter().chain(&then).map(|event| event.data.as_str()).collect();
    assert_eq!(all, expected);
}

pub(crate) async fn many_who_place_at_once_leave_no_gap(store: Store) {
    for _ in 0..40 {
        let mut tx = store.begin().await.unwrap();
        tell(&mut tx, &store, None, "{}").await;
        tx.commit().await.unwrap();
    }
    let placing: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { place(&store).await.unwrap() })
        })
        .collect();
    let mut placed = 0;
    for one in placing {
        placed += one.await.unwrap();
    }
    let positions: Vec<_> =
        list_after(&store, 0, 100).await.unwrap().iter().map(|event| event.position.unwrap()).collect();
    assert_eq!((placed, positions), (40, (1..=40).collect()));
}
