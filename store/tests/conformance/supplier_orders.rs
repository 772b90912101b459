//! `supplier_orders`: the same promises as for POS transactions, by the number of the order; and what a
//! webhook tells of a delivery.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use zhilian_sync_store::record_batches::{Batch, StoreMap, Upserted};
use zhilian_sync_store::record_patches::{PatchKey, PatchTable, Patched, RecordPatch, patch};
use zhilian_sync_store::supplier_orders::{
    Filter, IncomingSupplierOrder, PAGE_MAX, SupplierOrder, Tally, find_by_external_id, find_by_number, get,
    list, tally, upsert_batch, upsert_batch_isolating,
};
use zhilian_sync_store::{Store, StoreError, SupplierOrderStatus, SupplierOrderType, SyncStatus, SystemId};

use super::support::{at, batch, refuse_poison, run, supplier_order, system};

async fn write(store: &Store, batch: Batch<'_>, orders: Vec<IncomingSupplierOrder>) -> Upserted {
    let mut tx = store.begin().await.unwrap();
    let upserted = upsert_batch(&mut tx, batch, orders).await.unwrap();
    tx.commit().await.unwrap();
    upserted
}

async fn find(store: &Store, system: SystemId, number: &str) -> SupplierOrder {
    find_by_number(store, system, number).await.unwrap().unwrap()
}

async fn apply(store: &Store, system: SystemId, change: &RecordPatch) -> Patched {
    let mut tx = store.begin().await.unwrap();
    let patched = patch(&mut tx, system, change, store.clock()).await.unwrap();
    tx.commit().await.unwrap();
    patched
}

fn versioned(number: &str, total: i64, version: i64) -> IncomingSupplierOrder {
    IncomingSupplierOrder { version_at: Some(at(version)), ..supplier_order(number, total) }
}

/// The news that an order has arrived.
fn delivered(key: PatchKey, version: i64) -> RecordPatch {
    RecordPatch {
        table: PatchTable::SupplierOrders,
        key,
        status: Some("delivered".into()),
        delivered_at: Some(at(version - 1)),
        tracking_number: None,
        deleted: false,
        version_at: Some(at(version)),
        observed_at: at(version),
        forced: false,
    }
}

fn number(number: &str) -> PatchKey {
    PatchKey::Number(number.to_owned())
}

const CHANGED: Upserted = Upserted { changed: 1, unchanged: 0 };
const UNCHANGED: Upserted = Upserted { changed: 0, unchanged: 1 };

pub(crate) async fn an_order_is_stored_with_all_its_fields(store: Store) {
    let system = system(&store).await;
    let run = run(&store, system).await;
    let incoming = IncomingSupplierOrder {
        order_type: SupplierOrderType::Return,
        status: SupplierOrderStatus::Shipped,
        tax: 3,
        shipping: 4,
        delivery: Some(r#"{"address":"后门"}"#.into()),
        tracking_number: Some("SF100".into()),
        actual_delivery: Some(at(50)),
        version_at: Some(at(-5)),
        observed_at: Some(at(9)),
        ..supplier_order("PO1", 29_680)
    };
    let of = Batch { sync_log_id: Some(run), ..batch(&store, system, 7) };
    assert_eq!(write(&store, of, vec![incoming.clone()]).await, CHANGED);

    let row = find(&store, system, "PO1").await;
    assert_eq!((row.system_id, row.external_order_id.clone()), (system, incoming.external_order_id));
    assert_eq!(
        (row.supplier_id.clone(), row.supplier_name.clone()),
        (incoming.supplier_id, incoming.supplier_name)
    );
    assert_eq!((row.order_type, row.status), (incoming.order_type, incoming.status));
    assert_eq!((row.currency, row.subtotal, row.tax), (incoming.currency, 29_680, 3));
    assert_eq!((row.shipping, row.total), (4, 29_680));
    assert_eq!((row.items.clone(), row.delivery_info.clone()), (incoming.items, incoming.delivery));
    assert_eq!((row.tracking_number.clone(), row.raw.clone()), (incoming.tracking_number, incoming.raw));
    assert_eq!((row.order_date, row.expected_delivery), (at(0), incoming.expected_delivery));
    assert_eq!((row.actual_delivery, row.version_at), (Some(at(50)), at(-5)));
    assert_eq!(row.observed_at, at(9), "the order's own observation, not the batch's");
    assert_eq!((row.sync_status, row.sync_log_id), (SyncStatus::Success, Some(run)));
    assert_eq!((row.status_version_at, row.status_observed_at, row.deleted_at), (None, None, None));
    assert_eq!(get(&store, row.id).await.unwrap(), row);
    assert_eq!(find_by_external_id(&store, system, "EXT-PO1").await.unwrap(), Some(row));
    assert_eq!(find_by_external_id(&store, system, "EXT-PO2").await.unwrap(), None);
    let missing = get(&store, store.clock().new_id()).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound(_)), "{missing:?}");

    // An id that is empty is none.
    let bare = IncomingSupplierOrder { external_order_id: Some(String::new()), ..supplier_order("PO2", 1) };
    write(&store, batch(&store, system, 0), vec![bare]).await;
    assert_eq!(find(&store, system, "PO2").await.external_order_id, None);
}

pub(crate) async fn the_newer_version_wins(store: Store) {
    let system = system(&store).await;
    let cases = [
        ("a newer version, asked for earlier", (Some(10), 100), (Some(11), 50), true),
        ("an older version, asked for later", (Some(10), 100), (Some(9), 200), false),
        ("the same version, observed later", (Some(10), 100), (Some(10), 101), true),
        ("the same version, observed earlier", (Some(10), 100), (Some(10), 99), false),
        ("no versions, observed later", (None, 100), (None, 101), true),
        ("no versions, observed earlier", (None, 100), (None, 99), false),
    ];
    for (index, (what, there, comes, wins)) in cases.into_iter().enumerate() {
        let id = format!("PO{index}");
        let incoming = |total, version: Option<i64>, observed| IncomingSupplierOrder {
            version_at: version.map(at),
            observed_at: Some(at(observed)),
            ..supplier_order(&id, total)
        };
        write(&store, batch(&store, system, 0), vec![incoming(1, there.0, there.1)]).await;
        let upserted = write(&store, batch(&store, system, 0), vec![incoming(2, comes.0, comes.1)]).await;
        assert_eq!(upserted, if wins { CHANGED } else { UNCHANGED }, "{what}");
        assert_eq!(find(&store, system, &id).await.total, if wins { 2 } else { 1 }, "{what}");

        // The same two in one batch, in both orders.
        for (order, reversed) in [("in order", false), ("reversed", true)] {
            let id = format!("PO{index}-{order}");
            let mut page = vec![incoming(1, there.0, there.1), incoming(2, comes.0, comes.1)];
            for order in &mut page {
                order.order_number.clone_from(&id);
            }
            if reversed {
                page.reverse();
            }
            let upserted = write(&store, batch(&store, system, 0), page).await;
            assert_eq!(upserted, Upserted { changed: 1, unchanged: 1 }, "{what}, {order}");
            assert_eq!(find(&store, system, &id).await.total, if wins { 2 } else { 1 }, "{what}, {order}");
        }
    }
}

pub(crate) async fn equal_content_changes_nothing(store: Store) {
    let system = system(&store).await;
    write(&store, batch(&store, system, 0), vec![versioned("PO1", 5, 10)]).await;
    let before = find(&store, system, "PO1").await;
    store.clock().advance(TimeDelta::hours(1));
    let of = Batch { sync_log_id: Some(run(&store, system).await), ..batch(&store, system, 3_600) };
    assert_eq!(write(&store, of, vec![versioned("PO1", 5, 10)]).await, UNCHANGED);
    assert_eq!(find(&store, system, "PO1").await, before);
}

pub(crate) async fn a_newer_version_of_equal_content_keeps_older_ones_out(store: Store) {
    let system = system(&store).await;
    write(&store, batch(&store, system, 0), vec![supplier_order("PO1", 1)]).await;
    assert_eq!(write(&store, batch(&store, system, 20), vec![supplier_order("PO1", 1)]).await, UNCHANGED);
    assert_eq!(write(&store, batch(&store, system, 10), vec![supplier_order("PO1", 2)]).await, UNCHANGED);
    let row = find(&store, system, "PO1").await;
    assert_eq!((row.total, row.version_at, row.observed_at), (1, at(20), at(20)));
}

pub(crate) async fn a_tombstone_is_raised_by_a_newer_version_only(store: Store) {
    let system = system(&store).await;
    for (id, known) in [("known", true), ("never-seen", false)] {
        if known {
            write(&store, batch(&store, system, 0), vec![versioned(id, 5, 10)]).await;
        }
        let tombstone = IncomingSupplierOrder { deleted: true, ..versioned(id, 5, 20) };
        assert_eq!(write(&store, batch(&store, system, 1), vec![tombstone]).await, CHANGED);
        assert_eq!(write(&store, batch(&store, system, 99), vec![versioned(id, 6, 15)]).await, UNCHANGED);
        assert_eq!(find(&store, system, id).await.deleted_at, Some(at(0)), "{id}");
        assert_eq!(write(&store, batch(&store, system, 30), vec![versioned(id, 7, 30)]).await, CHANGED);
        assert_eq!(find(&store, system, id).await.deleted_at, None, "{id}");
    }
}

pub(crate) async fn a_replay_may_force_an_older_version(store: Store) {
    let system = system(&store).await;
    write(&store, batch(&store, system, 50), vec![versioned("PO1", 2, 20)]).await;
    let replay = Batch { force: true, ..batch(&store, system, 5) };
    assert_eq!(write(&store, replay, vec![versioned("PO1", 1, 10)]).await, CHANGED);
    let row = find(&store, system, "PO1").await;
    assert_eq!((row.total, row.version_at, row.observed_at), (1, at(10), at(5)));
}

pub(crate) async fn an_order_that_cannot_be_stored_stands_alone(store: Store) {
    refuse_poison(&store, "supplier_orders", "supplier_name").await;
    let system = system(&store).await;
    let far = chrono::DateTime::from_timestamp(300_000_000_000, 0).unwrap();
    let mut page: Vec<_> = (0..1_100).map(|index| supplier_order(&format!("PO{index:04}"), 1)).collect();
    page[42].supplier_name = Some("poison".into());
    page[7].order_number = String::new();
    page[8].external_order_id = Some("x".repeat(513));
    page[9].order_date = far;
    page[10].expected_delivery = Some(far);
    page[11].actual_delivery = Some(far);
    page[12].supplier_name = Some("nul\0".into());

    let mut tx = store.begin().await.unwrap();
    let error = upsert_batch(&mut tx, batch(&store, system, 0), page.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    let (upserted, refused) = upsert_batch_isolating(&mut tx, batch(&store, system, 0), page).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(upserted, Upserted { changed: 1_094, unchanged: 0 });
    let reasons: Vec<_> = refused.iter().map(|refused| refused.reason.split(';').next().unwrap()).collect();
    assert_eq!(
        reasons[..5],
        [
            "the record has no id",
            "the record's id is 513 bytes long",
            "`order_date` is in the year 11476",
            "`expected_delivery` is in the year 11476",
            "`actual_delivery` is in the year 11476",
        ]
    );
    assert!(refused[5].reason.contains("poison"), "{}", refused[5].reason);
    assert_eq!(refused[5].external_id, "PO0042");
    assert_eq!(tally(&store, system).await.unwrap().count, 1_094);
    assert_eq!(find(&store, system, "PO0012").await.supplier_name.as_deref(), Some("nul\u{fffd}"));
}

pub(crate) async fn batches_in_opposite_order_do_not_deadlock(store: Store) {
    let system = system(&store).await;
    let workers: Vec<_> = (0..2)
        .map(|worker| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let mut page: Vec<_> =
                        (0..300).map(|index| supplier_order(&format!("PO{index:03}"), round)).collect();
                    if worker == 1 {
                        page.reverse();
                    }
                    let mut tx = store.begin().await?;
                    upsert_batch(&mut tx, batch(&store, system, round), page).await?;
                    tx.commit().await?;
                }
                Ok::<_, StoreError>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
    let expected = Tally { count: 300, distinct_numbers: 300, total: 300 * 9 };
    assert_eq!(tally(&store, system).await.unwrap(), expected);
}

pub(crate) async fn lists_are_newest_first_and_complete(store: Store) {
    let system = system(&store).await;
    let page = (0..40)
        .map(|index| IncomingSupplierOrder {
            order_date: at(index / 10),
            ..supplier_order(&format!("PO{index}"), 1)
        })
        .collect();
    write(&store, batch(&store, system, 0), page).await;
    let gone = IncomingSupplierOrder { deleted: true, ..supplier_order("gone", 1) };
    write(&store, batch(&store, system, 0), vec![gone]).await;

    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = list(&store, &Filter { before, limit: 7, ..Filter::default() }).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some((last.order_date, last.id));
        assert!(page.len() <= 7);
        seen.extend(page);
    }
    assert_eq!(seen.len(), 40);
    assert!(seen.is_sorted_by_key(|row| std::cmp::Reverse((row.order_date, row.id))));
    assert_eq!(seen.iter().map(|row| row.id).collect::<BTreeSet<_>>().len(), 40);

    let many = (0..600).map(|index| supplier_order(&format!("M{index}"), 1)).collect();
    write(&store, batch(&store, system, 0), many).await;
    let greedy = Filter { limit: 1_000_000, ..Filter::default() };
    assert_eq!(list(&store, &greedy).await.unwrap().len(), PAGE_MAX as usize);
}

pub(crate) async fn lists_are_filtered_and_scoped(store: Store) {
    let (first, second) = (system(&store).await, system(&store).await);
    for (system, store_id) in [(first, "A"), (second, "B")] {
        let stores = StoreMap { by_shop: BTreeMap::new(), default: Some(store_id.to_owned()) };
        let mut page: Vec<_> = (0..3).map(|index| supplier_order(&format!("PO{index}"), 1)).collect();
        page[0].status = SupplierOrderStatus::Shipped;
        page[0].order_type = SupplierOrderType::Return;
        write(&store, Batch { stores: &stores, ..batch(&store, system, 0) }, page).await;
    }
    let all = Filter { limit: 500, ..Filter::default() };
    let (a, b) = (Some("A"), Some("B"));
    for (what, filter, expected) in [
        ("everything", all, 6),
        ("a store", Filter { store_id: a, ..all }, 3),
        ("the caller's store", Filter { scope: a, store_id: a, ..all }, 3),
        ("a scope cannot be left", Filter { scope: a, store_id: b, ..all }, 0),
        ("a system", Filter { system_id: Some(second), ..all }, 3),
        ("a state", Filter { status: Some(SupplierOrderStatus::Shipped), ..all }, 2),
        ("another state", Filter { status: Some(SupplierOrderStatus::Cancelled), ..all }, 0),
        ("purchases", Filter { order_type: Some(SupplierOrderType::Purchase), ..all }, 4),
    ] {
        assert_eq!(list(&store, &filter).await.unwrap().len(), expected, "{what}");
    }
}

pub(crate) async fn a_tally_counts_what_is_not_gone(store: Store) {
    let system = system(&store).await;
    assert_eq!(tally(&store, system).await.unwrap(), Tally::default());
    let gone = IncomingSupplierOrder { deleted: true, ..supplier_order("PO3", 5) };
    let page = vec![supplier_order("PO1", 29_680), supplier_order("PO2", 1), gone];
    write(&store, batch(&store, system, 0), page).await;
    let expected = Tally { count: 2, distinct_numbers: 2, total: 29_681 };
    assert_eq!(tally(&store, system).await.unwrap(), expected);
}

pub(crate) async fn a_patch_finds_its_order_by_number_or_by_id(store: Store) {
    let system = system(&store).await;
    let either = |key: &str| PatchKey::Either(key.to_owned());
    let id = |key: &str| PatchKey::ExternalId(key.to_owned());
    let page = ["PO1", "PO2", "PO3", "PO4"].map(|number| versioned(number, 1, 10)).to_vec();
    write(&store, batch(&store, system, 0), page).await;
    for (key, finds) in [
        (number("PO1"), Some("PO1")),
        (id("EXT-PO2"), Some("PO2")),
        (either("PO3"), Some("PO3")),
        (either("EXT-PO4"), Some("PO4")),
        (number("EXT-PO1"), None),
        (id("PO1"), None),
        (either("PO9"), None),
    ] {
        let expected = if finds.is_some() { Patched::Changed } else { Patched::Missing };
        assert_eq!(apply(&store, system, &delivered(key.clone(), 20)).await, expected, "{key:?}");
        if let Some(number) = finds {
            assert_eq!(find(&store, system, number).await.status, SupplierOrderStatus::Delivered, "{key:?}");
        }
    }
    // One order's number is another one's id: the number goes first.
    let twin = IncomingSupplierOrder { external_order_id: Some("PO1".into()), ..versioned("PO5", 1, 10) };
    write(&store, batch(&store, system, 0), vec![twin]).await;
    assert_eq!(apply(&store, system, &delivered(either("PO1"), 30)).await, Patched::Changed);
    assert_eq!(find(&store, system, "PO1").await.actual_delivery, Some(at(29)));
    assert_eq!(find(&store, system, "PO5").await.status, SupplierOrderStatus::Pending);
}

pub(crate) async fn a_patch_tells_the_delivery_and_the_tracking_number(store: Store) {
    let system = system(&store).await;
    write(&store, batch(&store, system, 0), vec![versioned("PO1", 5, 10)]).await;
    let shipped = RecordPatch {
        status: Some("shipped".into()),
        delivered_at: None,
        tracking_number: Some("SF-\0".into()),
        ..delivered(number("PO1"), 20)
    };
    assert_eq!(apply(&store, system, &shipped).await, Patched::Changed);
    assert_eq!(apply(&store, system, &delivered(number("PO1"), 30)).await, Patched::Changed);
    let row = find(&store, system, "PO1").await;
    assert_eq!((row.status, row.actual_delivery), (SupplierOrderStatus::Delivered, Some(at(29))));
    assert_eq!(row.tracking_number.as_deref(), Some("SF-\u{fffd}"));

    // A poll of an older version, which knows nothing of a delivery.
    let late = IncomingSupplierOrder { status: SupplierOrderStatus::Shipped, ..versioned("PO1", 6, 25) };
    assert_eq!(write(&store, batch(&store, system, 40), vec![late]).await, CHANGED);
    let patched = |row: &SupplierOrder| (row.status, row.actual_delivery, row.tracking_number.is_some());
    let row = find(&store, system, "PO1").await;
    assert_eq!((row.total, patched(&row)), (6, (SupplierOrderStatus::Delivered, Some(at(29)), true)));

    // A newer one that says `delivered` too, but not when: what is known stays.
    let newer = IncomingSupplierOrder { status: SupplierOrderStatus::Delivered, ..versioned("PO1", 7, 35) };
    assert_eq!(write(&store, batch(&store, system, 40), vec![newer]).await, CHANGED);
    let row = find(&store, system, "PO1").await;
    assert_eq!((row.total, patched(&row)), (7, (SupplierOrderStatus::Delivered, Some(at(29)), true)));

    // A newer one in another state was not delivered.
    let newest = IncomingSupplierOrder {
        status: SupplierOrderStatus::Cancelled,
        tracking_number: Some("SF200".into()),
        ..versioned("PO1", 8, 45)
    };
    assert_eq!(write(&store, batch(&store, system, 50), vec![newest]).await, CHANGED);
    let row = find(&store, system, "PO1").await;
    assert_eq!(patched(&row), (SupplierOrderStatus::Cancelled, None, true));
    assert_eq!(row.tracking_number.as_deref(), Some("SF200"));
}

pub(crate) async fn a_tracking_number_alone_does_not_keep_out_an_older_state(store: Store) {
    let system = system(&store).await;
    write(&store, batch(&store, system, 0), vec![versioned("PO1", 5, 10)]).await;
    let tracked = RecordPatch {
        status: None,
        delivered_at: None,
        tracking_number: Some("SF100".into()),
        ..delivered(number("PO1"), 30)
    };
    assert_eq!(apply(&store, system, &tracked).await, Patched::Changed);
    let late = IncomingSupplierOrder { status: SupplierOrderStatus::Shipped, ..versioned("PO1", 5, 20) };
    assert_eq!(write(&store, batch(&store, system, 40), vec![late]).await, CHANGED);
    let row = find(&store, system, "PO1").await;
    assert_eq!((row.status, row.tracking_number.as_deref()), (SupplierOrderStatus::Shipped, Some("SF100")));
}
