//! Which version of a record wins, whatever order its events come in.

use chrono::TimeDelta;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use zhilian_sync_jobs::inbox::apply;
use zhilian_sync_store::TransactionType;
use zhilian_sync_store::record_batches::{Batch, StoreMap};
use zhilian_sync_store::webhook_events::{self, EventResult, WebhookState};
use zhilian_sync_store::{Currency, SystemId, pos_transactions};

use crate::support::{Bench, at, event, order, saved};

/// What a slow poll brings: the order in the version of so many seconds after noon, asked for `asked` later.
async fn poll(bench: &Bench, system_id: SystemId, id: &str, total: i64, updated: i64, asked: i64) {
    let stores = StoreMap::default();
    let time = |seconds: i64| at(seconds).parse().unwrap();
    let record = pos_transactions::IncomingTransaction {
        external_id: id.into(),
        order_number: None,
        transaction_type: TransactionType::Sale,
        currency: Currency::CNY,
        subtotal: 0,
        tax: 0,
        discount: 0,
        total,
        payment_method: None,
        items: None,
        customer: None,
        customer_phone: None,
        shop: None,
        occurred_at: time(-3_600),
        version_at: Some(time(updated)),
        observed_at: None,
        deleted: false,
        raw: json!({ "id": id, "polled": total }).to_string(),
    };
    let batch = Batch {
        system_id,
        stores: &stores,
        sync_log_id: None,
        observed_at: time(asked),
        clock: bench.store().clock(),
        force: false,
    };
    let mut tx = bench.store().begin().await.unwrap();
    pos_transactions::upsert_batch(&mut tx, batch, vec![record]).await.unwrap();
    tx.commit().await.unwrap();
}

pub(crate) async fn the_newest_version_wins_whatever_the_order(bench: Bench) {
    let system = bench.system().await;
    let third = bench.receive(system, &[saved("A", "3.00", 30)]).await;
    bench.drain().await;
    let others = bench.receive(system, &[saved("A", "1.00", 10), saved("A", "2.00", 20)]).await;
    bench.drain().await;
    let stored = bench.order(system, "A").await.unwrap();
    assert_eq!(stored.total, 300);
    assert_eq!(bench.event(third[0]).await.result, Some(EventResult::Stored));
    for late in others {
        let late = bench.event(late).await;
        assert_eq!((late.state, late.result), (WebhookState::Applied, Some(EventResult::Unchanged)));
    }
    let fourth = bench.receive(system, &[saved("A", "4.00", 40)]).await;
    bench.drain().await;
    assert_eq!(bench.order(system, "A").await.unwrap().total, 400);
    assert_eq!(bench.event(fourth[0]).await.result, Some(EventResult::Stored));
    bench.is_quiet().await;
}

pub(crate) async fn a_record_twice_in_one_batch_is_written_once_in_its_newest_version(bench: Bench) {
    let system = bench.system().await;
    let bodies =
        [saved("A", "2.00", 20), saved("B", "7.00", 5), saved("A", "9.00", 90), saved("A", "1.00", 10)];
    let ids = bench.receive(system, &bodies).await;
    assert_eq!(bench.work().await, 4, "one batch");
    assert_eq!(bench.order(system, "A").await.unwrap().total, 900);
    assert_eq!(bench.orders(system).await, 2);
    let mut results = Vec::new();
    for id in ids {
        results.push(bench.event(id).await.result.unwrap());
    }
    let (stored, unchanged) = (EventResult::Stored, EventResult::Unchanged);
    assert_eq!(results, [unchanged, stored, stored, unchanged], "only the newest brought something");
}

pub(crate) async fn a_patch_that_comes_before_its_record_waits_for_it(bench: Bench) {
    let system = bench.system().await;
    let void = event("order.voided", &json!({ "id": "A", "updated": at(50) }));
    let patch = bench.receive(system, &[void]).await[0];
    bench.drain().await;
    let waiting = bench.event(patch).await;
    assert_eq!((waiting.state, waiting.attempt), (WebhookState::Pending, 1));
    assert_eq!(waiting.error_code.as_deref(), Some("record_missing"));
    assert!(waiting.run_at > bench.now(), "it waits for its time");
    assert!(waiting.lease_until.is_none(), "nobody holds it");
    assert_eq!((waiting.result, waiting.sync_log_id, waiting.ended_at), (None, None, None));

    bench.receive(system, &[saved("A", "5.00", 10)]).await;
    bench.drain().await;
    assert_eq!(bench.order(system, "A").await.unwrap().transaction_type, TransactionType::Sale);
    bench.advance(TimeDelta::minutes(10));
    bench.drain().await;
    let patched = bench.event(patch).await;
    assert_eq!((patched.state, patched.result), (WebhookState::Applied, Some(EventResult::Patched)));
    assert_eq!(patched.error_code, None);
    let stored = bench.order(system, "A").await.unwrap();
    assert_eq!((stored.transaction_type, stored.total), (TransactionType::Void, 500));

    // A full record of an older version, late: everything of it but the state that was told since.
    bench.receive(system, &[saved("A", "6.00", 20)]).await;
    bench.drain().await;
    let stored = bench.order(system, "A").await.unwrap();
    assert_eq!((stored.transaction_type, stored.total), (TransactionType::Void, 600));
    bench.is_quiet().await;
}

pub(crate) async fn a_patch_whose_record_never_comes_is_dead_at_last(mut bench: Bench) {
    bench.set(|webhooks| webhooks.patience_hours = 1);
    let system = bench.system().await;
    let id = bench.receive(system, &[event("order.voided", &json!({ "id": "A" }))]).await[0];
    bench.drain_to_the_end().await;
    let dead = bench.event(id).await;
    assert_eq!((dead.state, dead.error_code.as_deref()), (WebhookState::Dead, Some("record_missing")));
    assert!(dead.ended_at.unwrap() - dead.received_at >= TimeDelta::hours(1));
}

pub(crate) async fn a_patch_without_a_time_beats_a_vendor_whose_clock_is_ahead(bench: Bench) {
    let system = bench.system().await;
    bench.receive(system, &[saved("A", "5.00", 3_600)]).await;
    bench.drain().await;
    bench.advance(TimeDelta::seconds(1));
    let void = bench.receive(system, &[event("order.voided", &json!({ "id": "A" }))]).await[0];
    bench.drain().await;
    assert_eq!(bench.event(void).await.result, Some(EventResult::Patched));
    assert_eq!(bench.order(system, "A").await.unwrap().transaction_type, TransactionType::Void);
}

pub(crate) async fn a_patch_in_the_batch_of_its_record_is_applied_after_it(bench: Bench) {
    let system = bench.system().await;
    let void = event("order.voided", &json!({ "id": "A", "updated": at(50) }));
    let ids = bench.receive(system, &[void, saved("A", "5.00", 10)]).await;
    assert_eq!(bench.work().await, 2);
    assert_eq!(bench.order(system, "A").await.unwrap().transaction_type, TransactionType::Void);
    assert_eq!(bench.event(ids[0]).await.result, Some(EventResult::Patched));
    assert_eq!(bench.event(ids[1]).await.result, Some(EventResult::Stored));
}

pub(crate) async fn a_deletion_outlives_a_poll_of_an_older_version(bench: Bench) {
    let system = bench.system().await;
    // Told in full, so the tombstone stands even though nobody has seen the record.
    let gone = bench.receive(system, &[event("order.deleted", &order("A", "5.00", 60))]).await[0];
    bench.drain().await;
    assert_eq!(bench.event(gone).await.result, Some(EventResult::Deleted));
    assert!(bench.order(system, "A").await.unwrap().deleted_at.is_some());
    poll(&bench, system, "A", 500, 30, 3_000).await;
    assert!(bench.order(system, "A").await.unwrap().deleted_at.is_some(), "older: it stays gone");
    assert_eq!(bench.orders(system).await, 0);
    poll(&bench, system, "A", 700, 90, 3_000).await;
    let back = bench.order(system, "A").await.unwrap();
    assert!(back.deleted_at.is_none() && back.total == 700, "newer: the vendor has it again");
}

pub(crate) async fn an_erased_record_stays_erased(bench: Bench) {
    let system = bench.system().await;
    bench.receive(system, &[saved("A", "5.00", 10)]).await;
    bench.drain().await;
    bench.advance(TimeDelta::seconds(60));
    // Names the record and nothing else: its version is the time of arrival.
    let erased = bench.receive(system, &[event("order.erased", &json!({ "id": "A" }))]).await[0];
    bench.drain().await;
    assert_eq!(bench.event(erased).await.result, Some(EventResult::Deleted));
    poll(&bench, system, "A", 500, 30, 3_000).await;
    assert!(bench.order(system, "A").await.unwrap().deleted_at.is_some());
    assert_eq!(bench.orders(system).await, 0);
}

pub(crate) async fn a_forced_replay_overwrites_what_is_newer(bench: Bench) {
    let system = bench.system().await;
    let old = bench.receive(system, &[saved("A", "1.00", 10)]).await[0];
    bench.receive(system, &[saved("A", "2.00", 20)]).await;
    bench.drain().await;
    for (forced, total) in [(false, 200), (true, 100)] {
        let mut tx = bench.store().begin().await.unwrap();
        assert!(webhook_events::replay(&mut tx, old, forced, bench.now()).await.unwrap());
        tx.commit().await.unwrap();
        bench.drain().await;
        assert_eq!(bench.order(system, "A").await.unwrap().total, total, "forced: {forced}");
        let replayed = bench.event(old).await;
        let result = if forced { EventResult::Stored } else { EventResult::Unchanged };
        assert_eq!((replayed.state, replayed.result), (WebhookState::Applied, Some(result)));
    }
}

pub(crate) async fn systems_do_not_mix_in_a_batch(bench: Bench) {
    let chain = bench.system().await;
    let shop = bench
        .system_with(|system| {
            system.store_id = Some("S-1".into());
            system.store_map.0.insert("west".into(), "S-2".into());
        })
        .await;
    let mut west = order("A", "3.00", 10);
    west["shop"] = json!("west");
    bench.receive(shop, &[event("order.saved", &west), saved("B", "4.00", 10)]).await;
    bench.receive(chain, &[saved("A", "5.00", 10)]).await;
    assert_eq!(apply::work(&bench.ctx, &CancellationToken::new()).await, 3, "one batch");
    let of = async |system, id: &str| {
        let stored = bench.order(system, id).await.unwrap();
        (stored.total, stored.store_id)
    };
    assert_eq!(of(shop, "A").await, (300, Some("S-2".into())));
    assert_eq!(of(shop, "B").await, (400, Some("S-1".into())));
    assert_eq!(of(chain, "A").await, (500, None));
}
