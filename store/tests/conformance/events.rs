//! `events`: what live clients hear.

use chrono::TimeDelta;
use uuid::Uuid;
use zhilian_sync_store::events::{insert, list_after, purge};
use zhilian_sync_store::{Store, external_systems};

use super::support::{at, run};

pub(crate) async fn events_are_heard_in_order_after_an_id(store: Store) {
    let mut system = external_systems::blank(&store, "Till", zhilian_sync_store::SystemType::Pos, "demo-pos");
    system.store_id = Some("A".into());
    let mut tx = store.begin().await.unwrap();
    external_systems::insert(&mut tx, &system).await.unwrap();
    tx.commit().await.unwrap();
    let run = run(&store, system.id).await;

    for index in 0..5 {
        let (id, now) = (store.clock().new_id(), store.clock().now());
        let of = (index != 0).then_some(system.id);
        let mut tx = store.begin().await.unwrap();
        insert(&mut tx, id, "run.ended", of, of.map(|_| run), "{}", now).await.unwrap();
        tx.commit().await.unwrap();
        store.clock().advance(TimeDelta::seconds(1));
    }
    let first = list_after(&store, Uuid::nil(), 2).await.unwrap();
    let rest = list_after(&store, first[1].id, 10).await.unwrap();
    assert_eq!((first.len(), rest.len()), (2, 3));
    let heard: Vec<_> = first.iter().chain(&rest).map(|event| event.created_at).collect();
    assert_eq!(heard, [at(0), at(1), at(2), at(3), at(4)]);
    assert_eq!((first[0].store_id.as_deref(), first[0].run_id), (None, None));
    assert_eq!((first[1].store_id.as_deref(), first[1].run_id), (Some("A"), Some(run)));

    assert_eq!(purge(&store, at(2), 10).await.unwrap(), 2);
    assert_eq!(list_after(&store, Uuid::nil(), 10).await.unwrap().len(), 3);
}
