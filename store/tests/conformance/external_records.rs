//! `external_records`: the same promises as for POS transactions, by stream.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use zhilian_sync_store::external_records::{
    ExternalRecord, Filter, IncomingRecord, Tally, find_by_external_id, get, list, tally, upsert_batch,
    upsert_batch_isolating,
};
use zhilian_sync_store::record_batches::{Batch, Upserted};
use zhilian_sync_store::{Store, StoreError, SyncStatus, SystemId};

use super::support::{at, batch, record, refuse_poison, run, system};

async fn write(store: &Store, batch: Batch<'_>, records: Vec<IncomingRecord>) -> Upserted {
    let mut tx = store.begin().await.unwrap();
    let upserted = upsert_batch(&mut tx, batch, records).await.unwrap();
    tx.commit().await.unwrap();
    upserted
}

async fn find(store: &Store, system: SystemId, id: &str) -> ExternalRecord {
    find_by_external_id(store, system, "payments", id).await.unwrap().unwrap()
}

fn versioned(id: &str, amount: i64, version: i64) -> IncomingRecord {
    IncomingRecord { version_at: Some(at(version)), ..record(id, amount) }
}

const CHANGED: Upserted = Upserted { changed: 1, unchanged: 0 };
const UNCHANGED: Upserted = Upserted { changed: 0, unchanged: 1 };

pub(crate) async fn a_record_is_stored_with_all_its_fields(store: Store) {
    let system = system(&store).await;
    let run = run(&store, system).await;
    let incoming = IncomingRecord { version_at: Some(at(-5)), ..record("P1", 29_680) };
    let bare =
        IncomingRecord { status: None, currency: None, amount: None, occurred_at: None, ..record("P2", 0) };
    let of = Batch { sync_log_id: Some(run), ..batch(&store, system, 7) };
    assert_eq!(write(&store, of, vec![incoming.clone(), bare]).await.changed, 2);

    let row = find(&store, system, "P1").await;
    assert_eq!((row.system_id, row.stream.as_str()), (system, "payments"));
    assert_eq!(
        (row.status.clone(), row.currency, row.amount),
        (incoming.status, incoming.currency, Some(29_680))
    );
    assert_eq!((row.occurred_at, row.version_at, row.observed_at), (Some(at(0)), at(-5), at(7)));
    assert_eq!((row.data.clone(), row.raw.clone()), (incoming.data, incoming.raw));
    assert_eq!((row.sync_status, row.sync_log_id), (SyncStatus::Success, Some(run)));
    assert_eq!(get(&store, row.id).await.unwrap(), row);
    let bare = find(&store, system, "P2").await;
    assert_eq!((bare.status, bare.currency, bare.amount, bare.occurred_at), (None, None, None, None));
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
        let id = format!("P{index}");
        let incoming = |amount, version: Option<i64>| IncomingRecord {
            version_at: version.map(at),
            ..record(&id, amount)
        };
        write(&store, batch(&store, system, there.1), vec![incoming(1, there.0)]).await;
        let upserted = write(&store, batch(&store, system, comes.1), vec![incoming(2, comes.0)]).await;
        assert_eq!(upserted, if wins { CHANGED } else { UNCHANGED }, "{what}");
        assert_eq!(find(&store, system, &id).await.amount, Some(if wins { 2 } else { 1 }), "{what}");
    }
}

pub(crate) async fn equal_content_changes_nothing(store: Store) {
    let system = system(&store).await;
    write(&store, batch(&store, system, 0), vec![versioned("P1", 5, 10)]).await;
    let before = find(&store, system, "P1").await;
    store.clock().advance(TimeDelta::hours(1));
    let of = Batch { sync_log_id: Some(run(&store, system).await), ..batch(&store, system, 3_600) };
    assert_eq!(write(&store, of, vec![versioned("P1", 5, 10)]).await, UNCHANGED);
    assert_eq!(find(&store, system, "P1").await, before);
}

pub(crate) async fn a_newer_version_of_equal_content_keeps_older_ones_out(store: Store) {
    let system = system(&store).await;
    write(&store, batch(&store, system, 0), vec![record("P1", 1)]).await;
    assert_eq!(write(&store, batch(&store, system, 20), vec![record("P1", 1)]).await, UNCHANGED);
    assert_eq!(write(&store, batch(&store, system, 10), vec![record("P1", 2)]).await, UNCHANGED);
    let row = find(&store, system, "P1").await;
    assert_eq!((row.amount, row.version_at, row.observed_at), (Some(1), at(20), at(20)));
}

pub(crate) async fn a_tombstone_is_raised_by_a_newer_version_only(store: Store) {
    let system = system(&store).await;
    write(&store, batch(&store, system, 0), vec![versioned("P1", 5, 10)]).await;
    let tombstone = IncomingRecord { deleted: true, ..versioned("P1", 5, 20) };
    assert_eq!(write(&store, batch(&store, system, 1), vec![tombstone]).await, CHANGED);
    assert_eq!(write(&store, batch(&store, system, 99), vec![versioned("P1", 6, 15)]).await, UNCHANGED);
    assert_eq!(find(&store, system, "P1").await.deleted_at, Some(at(0)));
    assert_eq!(write(&store, batch(&store, system, 30), vec![versioned("P1", 7, 30)]).await, CHANGED);
    assert_eq!(find(&store, system, "P1").await.deleted_at, None);
}

pub(crate) async fn a_replay_may_force_an_older_version(store: Store) {
    let system = system(&store).await;
    write(&store, batch(&store, system, 50), vec![versioned("P1", 2, 20)]).await;
    let replay = Batch { force: true, ..batch(&store, system, 5) };
    assert_eq!(write(&store, replay, vec![versioned("P1", 1, 10)]).await, CHANGED);
    assert_eq!(find(&store, system, "P1").await.amount, Some(1));
}

pub(crate) async fn a_batch_may_hold_what_was_observed_at_different_times(store: Store) {
    let system = system(&store).await;
    let heard =
        |id: &str, amount, observed| IncomingRecord { observed_at: Some(at(observed)), ..record(id, amount) };
    let page = vec![heard("P1", 2, 20), heard("P1", 1, 10), heard("P2", 1, 5), record("P3", 1)];
    assert_eq!(write(&store, batch(&store, system, 50), page).await, Upserted { changed: 3, unchanged: 1 });
    let page = vec![heard("P1", 3, 15), heard("P2", 3, 15), heard("P3", 3, 15)];
    assert_eq!(write(&store, batch(&store, system, 60), page).await, Upserted { changed: 1, unchanged: 2 });
    for (id, amount, observed) in [("P1", 2, 20), ("P2", 3, 15), ("P3", 1, 50)] {
        let row = find(&store, system, id).await;
        assert_eq!((row.amount, row.version_at, row.observed_at), (Some(amount), at(observed), at(observed)));
    }
}

pub(crate) async fn the_same_id_in_two_streams_is_two_records(store: Store) {
    let system = system(&store).await;
    let refund = IncomingRecord { stream: "refunds".into(), ..record("P1", 2) };
    let upserted = write(&store, batch(&store, system, 0), vec![refund, record("P1", 1)]).await;
    assert_eq!(upserted, Upserted { changed: 2, unchanged: 0 });
    assert_eq!(find(&store, system, "P1").await.amount, Some(1));
    let refund = find_by_external_id(&store, system, "refunds", "P1").await.unwrap().unwrap();
    assert_eq!(refund.amount, Some(2));
}

pub(crate) async fn a_record_that_the_database_refuses_stands_alone(store: Store) {
    refuse_poison(&store, "external_records", "status").await;
    let system = system(&store).await;
    let page: Vec<_> = (0..100)
        .map(|index| IncomingRecord {
            status: Some(if index == 42 { "poison" } else { "completed" }.into()),
            ..record(&format!("P{index:02}"), 1)
        })
        .collect();
    let mut tx = store.begin().await.unwrap();
    let (upserted, refused) = upsert_batch_isolating(&mut tx, batch(&store, system, 0), page).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(upserted, Upserted { changed: 99, unchanged: 0 });
    let [refused] = refused.as_slice() else { panic!("one culprit, not {refused:?}") };
    assert_eq!((refused.stream.as_str(), refused.external_id.as_str()), ("payments", "P42"));
    assert_eq!(tally(&store, system, "payments").await.unwrap().count, 99);
}

pub(crate) async fn records_that_cannot_be_keys_are_named(store: Store) {
    let system = system(&store).await;
    let far = chrono::DateTime::from_timestamp(300_000_000_000, 0).unwrap();
    let page = vec![
        record("", 1),
        record("nul\0", 1),
        IncomingRecord { occurred_at: Some(far), ..record("far", 1) },
    ];
    let mut tx = store.begin().await.unwrap();
    let (upserted, refused) =
        upsert_batch_isolating(&mut tx, batch(&store, system, 0), page.clone()).await.unwrap();
    let error = upsert_batch(&mut tx, batch(&store, system, 0), page).await.unwrap_err();
    tx.commit().await.unwrap();
    assert_eq!((upserted, refused.len()), (CHANGED, 2));
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    assert_eq!(find(&store, system, "nul\u{fffd}").await.amount, Some(1));
}

pub(crate) async fn batches_in_opposite_order_do_not_deadlock(store: Store) {
    let system = system(&store).await;
    let workers: Vec<_> = (0..2)
        .map(|worker| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..15 {
                    let mut page: Vec<_> =
                        (0..300).map(|index| record(&format!("P{index:03}"), round)).collect();
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
    let expected = Tally { count: 300, distinct_ids: 300, amount: 300 * 14 };
    assert_eq!(tally(&store, system, "payments").await.unwrap(), expected);
}

pub(crate) async fn lists_are_newest_first_and_complete(store: Store) {
    let system = system(&store).await;
    // Some without a time: they stand where they were heard of, and are not lost between pages.
    let page = (0..40)
        .map(|index| IncomingRecord {
            occurred_at: (index % 4 != 0).then(|| at(index / 10)),
            ..record(&format!("P{index}"), 1)
        })
        .collect();
    write(&store, batch(&store, system, 0), page).await;
    let gone = IncomingRecord { deleted: true, ..record("gone", 1) };
    let other = IncomingRecord { stream: "refunds".into(), ..record("other", 1) };
    write(&store, batch(&store, system, 0), vec![gone, other]).await;

    let all = Filter { stream: "payments", limit: 7, ..Filter::default() };
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = list(&store, &Filter { before, ..all }).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some((last.placed_at(), last.id));
        seen.extend(page);
    }
    assert_eq!(seen.len(), 40);
    assert!(seen.is_sorted_by_key(|row| std::cmp::Reverse((row.placed_at(), row.id))));
    assert_eq!(seen.iter().map(|row| row.id).collect::<BTreeSet<_>>().len(), 40);

    for (what, filter, expected) in [
        ("a system", Filter { system_id: Some(system), ..all }, 7),
        ("the caller's store", Filter { scope: Some("A"), ..all }, 0),
        ("a store", Filter { store_id: Some("A"), ..all }, 0),
    ] {
        assert_eq!(list(&store, &filter).await.unwrap().len(), expected, "{what}");
    }
}

pub(crate) async fn a_tally_counts_what_is_not_gone(store: Store) {
    let system = system(&store).await;
    assert_eq!(tally(&store, system, "payments").await.unwrap(), Tally::default());
    let page = vec![
        record("P1", 29_680),
        IncomingRecord { amount: None, ..record("P2", 0) },
        IncomingRecord { deleted: true, ..record("P3", 5) },
    ];
    write(&store, batch(&store, system, 0), page).await;
    let expected = Tally { count: 2, distinct_ids: 2, amount: 29_680 };
    assert_eq!(tally(&store, system, "payments").await.unwrap(), expected);
}
