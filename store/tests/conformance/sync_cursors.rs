//! `sync_cursors`: a watermark that only moves forward.

use zhilian_sync_store::sync_cursors::{Advance, advance, delete, find, list_of_system};
use zhilian_sync_store::{Store, SystemId};

use super::support::{at, run, system};

fn to(system_id: SystemId, seconds: i64) -> Advance<'static> {
    Advance {
        system_id,
        stream: "orders",
        partition: "",
        watermark: Some(at(seconds)),
        value: None,
        sync_log_id: None,
        force: false,
    }
}

async fn move_to(store: &Store, to: Advance<'_>) -> bool {
    let mut tx = store.begin().await.unwrap();
    let moved = advance(&mut tx, store.clock(), to).await.unwrap();
    tx.commit().await.unwrap();
    moved
}

pub(crate) async fn a_cursor_never_moves_backwards_unless_forced(store: Store) {
    let system = system(&store).await;
    let run = run(&store, system).await;
    assert_eq!(find(&store, system, "orders", "").await.unwrap(), None);
    assert!(move_to(&store, to(system, 100)).await);
    assert!(move_to(&store, Advance { sync_log_id: Some(run), ..to(system, 200) }).await);
    assert!(!move_to(&store, to(system, 150)).await);
    assert!(!move_to(&store, Advance { watermark: None, ..to(system, 0) }).await);
    let cursor = find(&store, system, "orders", "").await.unwrap().unwrap();
    assert_eq!((cursor.watermark, cursor.sync_log_id), (Some(at(200)), Some(run)));

    assert!(move_to(&store, Advance { force: true, ..to(system, 50) }).await);
    assert_eq!(find(&store, system, "orders", "").await.unwrap().unwrap().watermark, Some(at(50)));
}

pub(crate) async fn a_vendors_own_mark_is_kept(store: Store) {
    let system = system(&store).await;
    for value in ["page-1", "page-2"] {
        let mark = Advance { watermark: None, value: Some(value), partition: "shop-7", ..to(system, 0) };
        assert!(move_to(&store, mark).await);
        let cursor = find(&store, system, "orders", "shop-7").await.unwrap().unwrap();
        assert_eq!((cursor.value.as_deref(), cursor.watermark), (Some(value), None));
    }
    assert_eq!(find(&store, system, "orders", "").await.unwrap(), None, "partitions are apart");
}

pub(crate) async fn everything_can_be_read_anew(store: Store) {
    let (first, second) = (system(&store).await, system(&store).await);
    for system in [first, second] {
        for stream in ["orders", "payments"] {
            assert!(move_to(&store, Advance { stream, ..to(system, 1) }).await);
        }
    }
    let mut tx = store.begin().await.unwrap();
    assert_eq!(delete(&mut tx, first, Some("orders")).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let left: Vec<_> =
        list_of_system(&store, first).await.unwrap().into_iter().map(|cursor| cursor.stream).collect();
    assert_eq!(left, ["payments"]);

    let mut tx = store.begin().await.unwrap();
    assert_eq!(delete(&mut tx, second, None).await.unwrap(), 2);
    tx.commit().await.unwrap();
    assert_eq!(list_of_system(&store, second).await.unwrap(), []);
    assert_eq!(list_of_system(&store, first).await.unwrap().len(), 1);
}
