//! `pos_transactions`: no order lost, none doubled, and always the newest version.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use zhilian_sync_store::pos_transactions::{
    ChangedPhones, Filter, IncomingTransaction, PAGE_MAX, PosTransaction, Tally, changed_phones,
    find_by_external_id, get, list, tally, upsert_batch, upsert_batch_isolating,
};
use zhilian_sync_store::record_batches::{Batch, StoreMap, Upserted};
use zhilian_sync_store::{Store, StoreError, SyncStatus, SystemId, TransactionType};

use super::support::{at, batch, refuse_poison, run, system, transaction};

async fn write(store: &Store, batch: Batch<'_>, records: Vec<IncomingTransaction>) -> Upserted {
    let mut tx = store.begin().await.unwrap();
    let upserted = upsert_batch(&mut tx, batch, records).await.unwrap();
    tx.commit().await.unwrap();
    upserted
}

async fn find(store: &Store, system: SystemId, id: &str) -> PosTransaction {
    find_by_external_id(store, system, id).await.unwrap().unwrap()
}

/// A sale with a version so many seconds after noon.
fn versioned(id: &str, total: i64, version: i64) -> IncomingTransaction {
    IncomingTransaction { version_at: Some(at(version)), ..transaction(id, total) }
}

const CHANGED: Upserted = Upserted { changed: 1, unchanged: 0 };
const UNCHANGED: Upserted = Upserted { changed: 0, unchanged: 1 };

pub(crate) async fn a_record_is_stored_with_all_its_fields(store: Store) {
    let system = system(&store).await;
    let run = run(&store, system).await;
    let incoming = IncomingTransaction {
        transaction_type: TransactionType::Refund,
        currency: "JPY".parse().unwrap(),
        subtotal: -100,
        tax: -8,
        discount: 3,
        total: -105,
        customer: Some(r#"{"name":"王"}"#.into()),
        customer_phone: Some("13800000000".into()),
        occurred_at: at(-60) + TimeDelta::microseconds(1_999),
        version_at: Some(at(-5)),
        ..transaction("T1", 0)
    };
    let upserted = write(
        &store,
        Batch {
            sync_log_id: Some(run),
            observed_at: at(7) + TimeDelta::microseconds(999),
            ..batch(&store, system, 7)
        },
        vec![incoming.clone()],
    )
    .await;
    assert_eq!(upserted, CHANGED);

    let row = find(&store, system, "T1").await;
    assert_eq!(row.system_id, system);
    assert_eq!(row.pos_order_number, incoming.order_number);
    assert_eq!(row.transaction_type, TransactionType::Refund);
    assert_eq!(row.currency.as_str(), "JPY");
    assert_eq!((row.subtotal, row.tax, row.discount, row.total), (-100, -8, 3, -105));
    assert_eq!(row.payment_method, incoming.payment_method);
    assert_eq!(row.items, incoming.items);
    assert_eq!(row.customer_info, incoming.customer);
    assert_eq!(row.customer_phone, incoming.customer_phone);
    assert_eq!(row.sync_status, SyncStatus::Success);
    assert_eq!(row.transaction_time, at(-60) + TimeDelta::milliseconds(1), "times are cut to milliseconds");
    assert_eq!((row.version_at, row.observed_at), (at(-5), at(7)));
    assert_eq!(row.sync_log_id, Some(run));
    assert_eq!(row.raw, incoming.raw);
    assert_eq!((row.created_at, row.updated_at, row.deleted_at), (at(0), at(0), None));
    assert_eq!(get(&store, row.id).await.unwrap(), row);
}

pub(crate) async fn the_newer_version_wins(store: Store) {
    let system = system(&store).await;
    // (version, observation) of what is stored, of what comes, and whether it is written.
    let cases = [
        ("a newer version", (Some(10), 100), (Some(11), 100), true),
        ("a newer version, asked for earlier", (Some(10), 100), (Some(11), 50), true),
        ("an older version, asked for later", (Some(10), 100), (Some(9), 200), false),
        ("the same version, observed later", (Some(10), 100), (Some(10), 101), true),
        ("the same version, observed earlier", (Some(10), 100), (Some(10), 99), false),
        ("the same version and observation, written later", (Some(10), 100), (Some(10), 100), true),
        ("no versions, observed later", (None, 100), (None, 101), true),
        ("no versions, observed earlier", (None, 100), (None, 99), false),
        ("a version after an observation", (None, 100), (Some(101), 50), true),
        ("a version before an observation", (None, 100), (Some(99), 150), false),
        ("an observation after a version", (Some(100), 90), (None, 101), true),
        ("an observation before a version", (Some(100), 200), (None, 99), false),
    ];
    for (index, (what, there, comes, wins)) in cases.into_iter().enumerate() {
        let id = format!("T{index}");
        let incoming = |total, version: Option<i64>| IncomingTransaction {
            version_at: version.map(at),
            ..transaction(&id, total)
        };
        write(&store, batch(&store, system, there.1), vec![incoming(1, there.0)]).await;
        let upserted = write(&store, batch(&store, system, comes.1), vec![incoming(2, comes.0)]).await;
        assert_eq!(upserted, if wins { CHANGED } else { UNCHANGED }, "{what}");
        assert_eq!(find(&store, system, &id).await.total, if wins { 2 } else { 1 }, "{what}");
    }
}

pub(crate) async fn equal_content_changes_nothing(store: Store) {
    let system = system(&store).await;
    let (first, second) = (run(&store, system).await, run(&store, system).await);
    let of = |run, observed| Batch { sync_log_id: Some(run), ..batch(&store, system, observed) };
    write(&store, of(first, 0), vec![versioned("T1", 5, 10)]).await;
    let before = find(&store, system, "T1").await;

    store.clock().advance(TimeDelta::hours(1));
    let upserted = write(&store, of(second, 3_600), vec![versioned("T1", 5, 10)]).await;
    assert_eq!(upserted, UNCHANGED);
    assert_eq!(find(&store, system, "T1").await, before);
}

pub(crate) async fn a_newer_version_of_equal_content_keeps_older_ones_out(store: Store) {
    let system = system(&store).await;
    // The content goes from A to B and back to A; the poll that saw B arrives last.
    write(&store, batch(&store, system, 0), vec![transaction("T1", 1)]).await;
    let before = find(&store, system, "T1").await;
    store.clock().advance(TimeDelta::hours(1));
    assert_eq!(write(&store, batch(&store, system, 20), vec![transaction("T1", 1)]).await, UNCHANGED);
    assert_eq!(write(&store, batch(&store, system, 10), vec![transaction("T1", 2)]).await, UNCHANGED);

    let row = find(&store, system, "T1").await;
    assert_eq!(row.total, 1);
    assert_eq!((row.version_at, row.observed_at), (at(20), at(20)));
    assert_eq!(row.updated_at, before.updated_at, "nothing that anybody sees has changed");
}

pub(crate) async fn a_tombstone_is_raised_by_a_newer_version_only(store: Store) {
    let system = system(&store).await;
    let tombstone = |id: &str, version| IncomingTransaction { deleted: true, ..versioned(id, 5, version) };
    for (id, known) in [("known", true), ("never-seen", false)] {
        if known {
            write(&store, batch(&store, system, 0), vec![versioned(id, 5, 10)]).await;
        }
        assert_eq!(write(&store, batch(&store, system, 1), vec![tombstone(id, 20)]).await, CHANGED);
        assert_eq!(find(&store, system, id).await.deleted_at, Some(at(0)));

        // A poll that was asked later, but shows an older version.
        assert_eq!(write(&store, batch(&store, system, 99), vec![versioned(id, 6, 15)]).await, UNCHANGED);
        assert_eq!(find(&store, system, id).await.deleted_at, Some(at(0)), "{id}");

        assert_eq!(write(&store, batch(&store, system, 30), vec![versioned(id, 7, 30)]).await, CHANGED);
        let raised = find(&store, system, id).await;
        assert_eq!((raised.deleted_at, raised.total), (None, 7), "{id}");
    }
}

pub(crate) async fn a_replay_may_force_an_older_version(store: Store) {
    let system = system(&store).await;
    write(&store, batch(&store, system, 50), vec![versioned("T1", 2, 20)]).await;
    let replay = Batch { force: true, ..batch(&store, system, 5) };
    assert_eq!(write(&store, replay, vec![versioned("T1", 1, 10)]).await, CHANGED);
    let row = find(&store, system, "T1").await;
    assert_eq!((row.total, row.version_at, row.observed_at), (1, at(10), at(5)));
}

pub(crate) async fn a_page_may_hold_a_record_twice(store: Store) {
    let system = system(&store).await;
    let page = vec![
        versioned("T2", 1, 10),
        versioned("T1", 3, 30),
        versioned("T1", 2, 20),
        versioned("T2", 2, 10),
        versioned("T1", 1, 10),
    ];
    let upserted = write(&store, batch(&store, system, 0), page).await;
    assert_eq!(upserted, Upserted { changed: 2, unchanged: 3 });
    assert_eq!(upserted.stored(), 5, "every record of the page is accounted for");
    assert_eq!(find(&store, system, "T1").await.total, 3, "the newest version");
    assert_eq!(find(&store, system, "T2").await.total, 2, "of equal versions the later in the page");
}

pub(crate) async fn a_batch_may_hold_what_was_observed_at_different_times(store: Store) {
    let system = system(&store).await;
    let heard = |id: &str, total, observed| IncomingTransaction {
        observed_at: Some(at(observed)),
        ..transaction(id, total)
    };
    let page = vec![
        heard("T1", 2, 20),
        heard("T1", 1, 10),
        heard("T2", 1, 5),
        heard("T3", 1, 7),
        transaction("T4", 1),
    ];
    assert_eq!(write(&store, batch(&store, system, 50), page).await, Upserted { changed: 4, unchanged: 1 });
    for (id, total, observed) in [("T1", 2, 20), ("T2", 1, 5), ("T3", 1, 7), ("T4", 1, 50)] {
        let row = find(&store, system, id).await;
        assert_eq!((row.total, row.version_at, row.observed_at), (total, at(observed), at(observed)), "{id}");
    }
    // What was heard in between is too late for one of them, not for the other; the third is known.
    let page = vec![heard("T1", 3, 15), heard("T2", 3, 15), heard("T3", 1, 15)];
    assert_eq!(write(&store, batch(&store, system, 60), page).await, Upserted { changed: 1, unchanged: 2 });
    assert_eq!(find(&store, system, "T1").await.total, 2);
    assert_eq!(find(&store, system, "T2").await.total, 3);
    assert_eq!(find(&store, system, "T3").await.observed_at, at(15));
}

pub(crate) async fn a_batch_may_be_larger_than_a_statement(store: Store) {
    let system = system(&store).await;
    let page = || (0..2_500).map(|index| transaction(&format!("T{index}"), 1)).collect::<Vec<_>>();
    assert_eq!(write(&store, batch(&store, system, 0), page()).await.changed, 2_500);
    let again = write(&store, batch(&store, system, 1), page()).await;
    assert_eq!(again, Upserted { changed: 0, unchanged: 2_500 });
    assert_eq!(write(&store, batch(&store, system, 1), vec![]).await, Upserted::default());
    assert_eq!(
        tally(&store, system).await.unwrap(),
        Tally { count: 2_500, distinct_ids: 2_500, total: 2_500 }
    );
}

pub(crate) async fn a_record_that_the_database_refuses_stands_alone(store: Store) {
    refuse_poison(&store, "pos_transactions", "pos_order_number").await;
    let system = system(&store).await;
    let page = || {
        (0..1_100)
            .map(|index| {
                let mut record = transaction(&format!("T{index:04}"), 1);
                if [0, 7, 555, 1_099].contains(&index) {
                    record.order_number = Some("poison".into());
                }
                record
            })
            .collect::<Vec<_>>()
    };
    let mut tx = store.begin().await.unwrap();
    let error = upsert_batch(&mut tx, batch(&store, system, 0), page()).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    drop(tx);
    assert_eq!(tally(&store, system).await.unwrap().count, 0);

    let mut tx = store.begin().await.unwrap();
    let (upserted, refused) =
        upsert_batch_isolating(&mut tx, batch(&store, system, 0), page()).await.unwrap();
    // The transaction still works.
    upsert_batch(&mut tx, batch(&store, system, 0), vec![transaction("after", 1)]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(upserted, Upserted { changed: 1_096, unchanged: 0 });
    let ids: Vec<_> = refused.iter().map(|refused| refused.external_id.as_str()).collect();
    assert_eq!(ids, ["T0000", "T0007", "T0555", "T1099"]);
    assert!(refused[0].reason.contains("poison"), "{}", refused[0].reason);
    assert_eq!(refused[1].raw, transaction("T0007", 1).raw);
    assert_eq!(tally(&store, system).await.unwrap().count, 1_097);
}

pub(crate) async fn records_that_cannot_be_keys_are_named(store: Store) {
    let system = system(&store).await;
    let far = chrono::DateTime::from_timestamp(300_000_000_000, 0).unwrap();
    let page = vec![
        transaction("", 1),
        transaction("good", 1),
        transaction(&"x".repeat(513), 1),
        IncomingTransaction { occurred_at: far, ..transaction("far", 1) },
        IncomingTransaction { version_at: Some(far), ..transaction("late", 1) },
    ];
    let mut tx = store.begin().await.unwrap();
    let (upserted, refused) =
        upsert_batch_isolating(&mut tx, batch(&store, system, 0), page.clone()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(upserted, CHANGED);
    let reasons: Vec<_> = refused.iter().map(|refused| refused.reason.split(';').next().unwrap()).collect();
    assert_eq!(
        reasons,
        [
            "the record has no id",
            "the record's id is 513 bytes long",
            "`occurred_at` is in the year 11476",
            "`version_at` is in the year 11476",
        ]
    );
    assert!(refused[0].external_id.starts_with("hash:") && refused[1].external_id.starts_with("hash:"));
    assert_eq!((refused[2].external_id.as_str(), refused[3].external_id.as_str()), ("far", "late"));

    let mut tx = store.begin().await.unwrap();
    let error = upsert_batch(&mut tx, batch(&store, system, 0), page).await.unwrap_err();
    assert!(error.to_string().contains("the record has no id"), "{error}");
}

pub(crate) async fn nul_characters_do_not_lose_a_record(store: Store) {
    let system = system(&store).await;
    let nul = |text: &str| format!("{text}\0!");
    let page = vec![IncomingTransaction {
        external_id: nul("T1"),
        order_number: Some(nul("N")),
        payment_method: Some(nul("cash")),
        items: Some(nul("[]")),
        customer: Some(nul("{}")),
        customer_phone: Some(nul("138")),
        raw: nul(r#"{"name":"\u0000"}"#),
        ..transaction("", 1)
    }];
    for expected in [CHANGED, UNCHANGED] {
        let mut tx = store.begin().await.unwrap();
        let (upserted, refused) =
            upsert_batch_isolating(&mut tx, batch(&store, system, 0), page.clone()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((upserted, refused), (expected, vec![]));
    }
    let row = find(&store, system, "T1\u{fffd}!").await;
    assert_eq!(row.pos_order_number.as_deref(), Some("N\u{fffd}!"));
    assert_eq!(row.customer_phone.as_deref(), Some("138\u{fffd}!"));
    assert_eq!(row.raw, "{\"name\":\"\\u0000\"}\u{fffd}!");
}

pub(crate) async fn the_same_id_of_two_systems_is_two_records(store: Store) {
    let (first, second) = (system(&store).await, system(&store).await);
    write(&store, batch(&store, first, 0), vec![transaction("T1", 1)]).await;
    write(&store, batch(&store, second, 0), vec![transaction("T1", 2)]).await;
    assert_eq!(find(&store, first, "T1").await.total, 1);
    assert_eq!(find(&store, second, "T1").await.total, 2);
}

pub(crate) async fn a_shop_is_mapped_to_its_store(store: Store) {
    let system = system(&store).await;
    let at_shop = |id: &str, shop: Option<&str>| IncomingTransaction {
        shop: shop.map(str::to_owned),
        ..transaction(id, 1)
    };
    let page = || vec![at_shop("T1", Some("S1")), at_shop("T2", Some("S9")), at_shop("T3", None)];
    let stores = StoreMap {
        by_shop: BTreeMap::from([("S1".into(), "store-1".into())]),
        default: Some("store-0".into()),
    };
    write(&store, Batch { stores: &stores, ..batch(&store, system, 0) }, page()).await;
    for (id, expected) in [("T1", "store-1"), ("T2", "store-0"), ("T3", "store-0")] {
        assert_eq!(find(&store, system, id).await.store_id.as_deref(), Some(expected), "{id}");
    }

    // A changed map moves the records when they are read again.
    let stores = StoreMap { by_shop: BTreeMap::new(), default: None };
    let upserted = write(&store, Batch { stores: &stores, ..batch(&store, system, 1) }, page()).await;
    assert_eq!(upserted.changed, 3);
    assert_eq!(find(&store, system, "T1").await.store_id, None);
}

pub(crate) async fn batches_in_opposite_order_do_not_deadlock(store: Store) {
    let system = system(&store).await;
    let workers: Vec<_> = (0..2)
        .map(|worker: i64| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..15_i64 {
                    let mut page: Vec<_> = (0..400)
                        .map(|index| transaction(&format!("T{index:03}"), worker * 1_000 + round))
                        .collect();
                    if worker == 1 {
                        page.reverse();
                    }
                    let mut tx = store.begin().await?;
                    upsert_batch_isolating(&mut tx, batch(&store, system, round), page).await?;
                    tx.commit().await?;
                }
                Ok::<_, StoreError>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
    let tally = tally(&store, system).await.unwrap();
    assert_eq!((tally.count, tally.distinct_ids), (400, 400));
    for row in
        list(&store, &Filter { system_id: Some(system), limit: 500, ..Filter::default() }).await.unwrap()
    {
        assert_eq!(row.total % 1_000, 14, "the last round is what stays");
    }
}

pub(crate) async fn lists_are_newest_first_and_complete(store: Store) {
    let system = system(&store).await;
    // Many of the same second: the id decides, and no page loses or repeats one.
    let page = (0..50)
        .map(|index| IncomingTransaction {
            occurred_at: at(index / 10),
            ..transaction(&format!("T{index}"), 1)
        })
        .collect();
    write(&store, batch(&store, system, 0), page).await;
    let gone = IncomingTransaction { deleted: true, ..transaction("gone", 1) };
    write(&store, batch(&store, system, 0), vec![gone]).await;

    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = list(&store, &Filter { before, limit: 7, ..Filter::default() }).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some((last.transaction_time, last.id));
        assert!(page.len() <= 7);
        seen.extend(page);
    }
    assert_eq!(seen.len(), 50);
    assert!(seen.is_sorted_by_key(|row| std::cmp::Reverse((row.transaction_time, row.id))));
    assert_eq!(seen.iter().map(|row| row.id).collect::<BTreeSet<_>>().len(), 50);
}

pub(crate) async fn lists_are_filtered_and_scoped(store: Store) {
    let (first, second) = (system(&store).await, system(&store).await);
    for (system, store_id) in [(first, "A"), (second, "B")] {
        let stores = StoreMap { by_shop: BTreeMap::new(), default: Some(store_id.to_owned()) };
        let page = (0..3).map(|index| transaction(&format!("T{index}"), 1)).collect();
        write(&store, Batch { stores: &stores, ..batch(&store, system, 0) }, page).await;
    }
    let all = Filter { limit: 500, ..Filter::default() };
    let (a, b) = (Some("A"), Some("B"));
    let within = |scope, store_id| Filter { scope, store_id, ..all };
    let of_system = Filter { system_id: Some(second), ..all };
    let in_state = |status| Filter { sync_status: Some(status), ..all };
    for (what, filter, expected) in [
        ("everything", all, 6),
        ("a store", within(None, a), 3),
        ("the caller's store", within(a, a), 3),
        ("a scope cannot be left", within(a, b), 0),
        ("a system", of_system, 3),
        ("a state", in_state(SyncStatus::Success), 6),
        ("another state", in_state(SyncStatus::Failed), 0),
    ] {
        assert_eq!(list(&store, &filter).await.unwrap().len(), expected, "{what}");
    }
}

pub(crate) async fn no_list_is_longer_than_a_page(store: Store) {
    let system = system(&store).await;
    let many = (0..600).map(|index| transaction(&format!("M{index}"), 1)).collect();
    write(&store, batch(&store, system, 0), many).await;
    let greedy = Filter { limit: 1_000_000, ..Filter::default() };
    assert_eq!(list(&store, &greedy).await.unwrap().len(), PAGE_MAX as usize);
}

pub(crate) async fn a_tally_counts_what_is_not_gone(store: Store) {
    let system = system(&store).await;
    assert_eq!(tally(&store, system).await.unwrap(), Tally::default());
    let page = vec![
        transaction("T1", 29_680),
        transaction("T2", 1),
        IncomingTransaction { deleted: true, ..transaction("T3", 5) },
    ];
    write(&store, batch(&store, system, 0), page).await;
    assert_eq!(tally(&store, system).await.unwrap(), Tally { count: 2, distinct_ids: 2, total: 29_681 });
}

pub(crate) async fn the_numbers_of_whoever_paid_are_told_once(store: Store) {
    let system = system(&store).await;
    let paid = |id: &str, phone: Option<&str>, shop: &str| IncomingTransaction {
        customer_phone: phone.map(str::to_owned),
        shop: Some(shop.to_owned()),
        ..transaction(id, 1)
    };
    let by_shop = [("N1", "S1"), ("N2", "S2")].map(|(no, id)| (no.to_owned(), id.to_owned())).into();
    let stores = StoreMap { by_shop, default: None };
    let records = vec![
        paid("T1", Some("139"), "N1"),
        paid("T2", Some("138"), "N1"),
        paid("T3", Some("138"), "N2"),
        paid("T4", Some("140"), "N2"),
        paid("T5", None, "N1"),
        IncomingTransaction { deleted: true, ..paid("T6", Some("141"), "N1") },
    ];
    write(&store, Batch { stores: &stores, ..batch(&store, system, 7) }, records).await;
    let now = store.clock().now();
    let all = ChangedPhones {
        from: now,
        to: now + TimeDelta::milliseconds(1),
        store_id: None,
        after: "",
        limit: 10,
    };
    let told = async |wanted: ChangedPhones<'_>| changed_phones(&store, &wanted).await.unwrap();
    assert_eq!(told(all).await, ["138", "139", "140"]);
    assert_eq!(told(ChangedPhones { limit: 2, ..all }).await, ["138", "139"]);
    assert_eq!(told(ChangedPhones { after: "139", ..all }).await, ["140"]);
    assert_eq!(told(ChangedPhones { store_id: Some("S1"), ..all }).await, ["138", "139"]);
    assert_eq!(told(ChangedPhones { to: now, ..all }).await, [""; 0], "the end does not belong to it");
    assert_eq!(told(ChangedPhones { from: all.to, ..all }).await, [""; 0]);
}
