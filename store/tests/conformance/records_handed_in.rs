//! Records that clients hand in: each is told what became of it, on every table.

use zhilian_sync_store::pos_transactions::{self, IncomingTransaction, find_by_external_id, get};
use zhilian_sync_store::records_handed_in::{Change, HandedIn, Undated};
use zhilian_sync_store::{Store, SyncStatus, SystemId, TransactionType, external_records, supplier_orders};

use super::support::{at, batch, record, refuse_poison, supplier_order, system, transaction};

/// Hands in transactions that tell their time.
async fn hand_in(
    store: &Store,
    system: SystemId,
    second: i64,
    given: Vec<IncomingTransaction>,
) -> Vec<HandedIn> {
    let given = given.into_iter().map(|record| Undated { record, undated: false }).collect();
    let mut tx = store.begin().await.unwrap();
    let told = pos_transactions::hand_in(&mut tx, batch(store, system, second), given).await.unwrap();
    tx.commit().await.unwrap();
    told
}

fn change(told: &HandedIn) -> Option<Change> {
    match told {
        HandedIn::Stored { change, .. } => Some(*change),
        HandedIn::Refused(_) => None,
    }
}

fn changes(told: &[HandedIn]) -> Vec<Option<Change>> {
    told.iter().map(change).collect()
}

pub(crate) async fn each_record_is_told_what_became_of_it(store: Store) {
    let system = system(&store).await;
    let first = hand_in(&store, system, 0, vec![transaction("T2", 1), transaction("T1", 1)]).await;
    assert_eq!(changes(&first), [Some(Change::Created); 2]);
    let again =
        hand_in(&store, system, 5, vec![transaction("T1", 1), transaction("T2", 2), transaction("T3", 3)])
            .await;
    assert_eq!(changes(&again), [Some(Change::Unchanged), Some(Change::Updated), Some(Change::Created)]);
    for (told, id, total) in [(&again[0], "T1", 1), (&again[1], "T2", 2), (&again[2], "T3", 3)] {
        let HandedIn::Stored { id: row, .. } = told else { panic!("{told:?}") };
        let row = get(&store, *row).await.unwrap();
        assert_eq!((row.pos_transaction_id.as_str(), row.total), (id, total));
    }
    let HandedIn::Stored { id: before, .. } = &first[0] else { panic!() };
    let HandedIn::Stored { id: after, .. } = &again[1] else { panic!() };
    assert_eq!(before, after, "a row keeps its id");
    // Told with an older observation: what is there is newer.
    assert_eq!(
        changes(&hand_in(&store, system, 3, vec![transaction("T2", 9)]).await),
        [Some(Change::Unchanged)]
    );
}

pub(crate) async fn of_one_id_twice_in_a_batch_the_last_is_written(store: Store) {
    let system = system(&store).await;
    let told = hand_in(&store, system, 0, vec![transaction("T1", 1), transaction("T1", 2)]).await;
    assert_eq!(changes(&told), [Some(Change::Unchanged), Some(Change::Created)]);
    assert_eq!(find_by_external_id(&store, system, "T1").await.unwrap().unwrap().total, 2);
}

pub(crate) async fn what_cannot_be_stored_stands_alone(store: Store) {
    refuse_poison(&store, "pos_transactions", "pos_transaction_id").await;
    let system = system(&store).await;
    let mut given: Vec<IncomingTransaction> =
        (0..40).map(|index| transaction(&format!("T{index}"), 1)).collect();
    given[7] = transaction("poison", 1);
    given[20] = transaction("", 1);
    let told = hand_in(&store, system, 0, given).await;
    let refused: Vec<usize> =
        told.iter().enumerate().filter(|(_, one)| change(one).is_none()).map(|(index, _)| index).collect();
    assert_eq!(refused, [7, 20]);
    assert!(matches!(&told[20], HandedIn::Refused(reason) if reason.contains("has no id")), "{:?}", told[20]);
    assert_eq!(pos_transactions::tally(&store, system).await.unwrap().count, 38);
}

pub(crate) async fn an_undated_record_keeps_its_time(store: Store) {
    let system = system(&store).await;
    for second in [0, 30] {
        let record = IncomingTransaction { occurred_at: at(second), ..transaction("T1", 1) };
        let given = vec![Undated { record, undated: true }];
        let mut tx = store.begin().await.unwrap();
        let told = pos_transactions::hand_in(&mut tx, batch(&store, system, second), given).await.unwrap();
        tx.commit().await.unwrap();
        let expected = if second == 0 { Change::Created } else { Change::Unchanged };
        assert_eq!(changes(&told), [Some(expected)]);
    }
    assert_eq!(find_by_external_id(&store, system, "T1").await.unwrap().unwrap().transaction_time, at(0));
}

pub(crate) async fn of_two_at_once_one_is_new(store: Store) {
    let system = system(&store).await;
    let creating = || {
        let store = store.clone();
        tokio::spawn(async move { hand_in(&store, system, 0, vec![transaction("T1", 1)]).await.remove(0) })
    };
    let (one, other) = (creating(), creating());
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    let mut both = [change(&one), change(&other)];
    both.sort_by_key(|change| *change != Some(Change::Created));
    assert_eq!(both, [Some(Change::Created), Some(Change::Unchanged)]);
}

pub(crate) async fn every_table_tells(store: Store) {
    let system = system(&store).await;
    for expected in [Change::Created, Change::Unchanged] {
        let mut tx = store.begin().await.unwrap();
        let orders = vec![Undated { record: supplier_order("PO1", 1), undated: true }];
        let orders = supplier_orders::hand_in(&mut tx, batch(&store, system, 0), orders).await.unwrap();
        let records = vec![record("P1", 1), record("P2", 1)];
        let records = external_records::hand_in(&mut tx, batch(&store, system, 0), records).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(changes(&orders), [Some(expected)]);
        assert_eq!(changes(&records), [Some(expected); 2]);
    }
}

pub(crate) async fn lists_are_filtered(store: Store) {
    let system = system(&store).await;
    let refund = IncomingTransaction {
        transaction_type: TransactionType::Refund,
        order_number: Some("A-17".into()),
        customer_phone: Some("138".into()),
        occurred_at: at(10),
        ..transaction("T1", 1)
    };
    let sale = IncomingTransaction { occurred_at: at(20), order_number: None, ..transaction("T2", 1) };
    hand_in(&store, system, 0, vec![refund, sale]).await;
    let all = pos_transactions::Filter { limit: 10, ..pos_transactions::Filter::default() };
    for (filter, expected) in [
        (all, "T2 T1"),
        (pos_transactions::Filter { transaction_type: Some(TransactionType::Refund), ..all }, "T1"),
        (pos_transactions::Filter { transaction_type: Some(TransactionType::Sale), ..all }, "T2"),
        (pos_transactions::Filter { transaction_type: Some(TransactionType::Void), ..all }, ""),
        (pos_transactions::Filter { sync_status: Some(SyncStatus::Success), ..all }, "T2 T1"),
        (pos_transactions::Filter { sync_status: Some(SyncStatus::Failed), ..all }, ""),
        (pos_transactions::Filter { order_number: Some("A-17"), ..all }, "T1"),
        (pos_transactions::Filter { phone: Some("138"), ..all }, "T1"),
        (pos_transactions::Filter { phone: Some("139"), ..all }, ""),
        (pos_transactions::Filter { from: Some(at(20)), ..all }, "T2"),
        (pos_transactions::Filter { to: Some(at(20)), ..all }, "T1"),
    ] {
        let rows = pos_transactions::list(&store, &filter).await.unwrap();
        let ids: Vec<&str> = rows.iter().map(|row| row.pos_transaction_id.as_str()).collect();
        assert_eq!(ids.join(" "), expected, "{filter:?}");
    }
    let mut tx = store.begin().await.unwrap();
    let mut given = record("R1", 1);
    given.data = r#"{"reservation_number": "N-1", "customer_phone": "138", "customer_count": 4}"#.into();
    external_records::hand_in(&mut tx, batch(&store, system, 0), vec![given, record("R2", 1)]).await.unwrap();
    tx.commit().await.unwrap();
    let all =
        external_records::Filter { stream: "payments", limit: 10, ..external_records::Filter::default() };
    for filter in [
        external_records::Filter { number: Some("N-1"), ..all },
        external_records::Filter { phone: Some("138"), ..all },
    ] {
        let rows = external_records::list(&store, &filter).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.external_id.as_str()).collect::<Vec<_>>(), ["R1"], "{filter:?}");
    }
}
