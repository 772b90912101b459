//! Members of whom a vendor has no list: bills name their telephone numbers, and each is asked for alone. Whoever has
//! paid is known in the end, whatever went wrong on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use zhilian_sync_jobs::worker;
use zhilian_sync_simulator::{Entry, Every, Faults};
use zhilian_sync_store::pos_transactions::{self, IncomingTransaction};
use zhilian_sync_store::record_batches::{Batch, StoreMap};
use zhilian_sync_store::{Currency, SyncStatus, SystemType, TransactionType, external_systems};

use crate::harness::{Stage, on_every_lookup};
use crate::rows::PAGE;

/// The till of another vendor sells to these numbers, a bill each.
async fn sell_to(stage: &Stage, phones: impl IntoIterator<Item = String>) {
    let store = stage.store();
    let till =
        external_systems::blank(store, &store.clock().new_id().to_string(), SystemType::Pos, "demo-pos");
    let batch = Batch {
        system_id: till.id,
        stores: &StoreMap::default(),
        sync_log_id: None,
        observed_at: stage.now(),
        clock: store.clock(),
        force: false,
    };
    let bills = phones.into_iter().map(|phone| IncomingTransaction {
        external_id: format!("bill-{phone}"),
        order_number: None,
        transaction_type: TransactionType::Sale,
        currency: Currency::CNY,
        subtotal: 100,
        tax: 0,
        discount: 0,
        total: 100,
        payment_method: None,
        items: None,
        customer: None,
        customer_phone: Some(phone),
        shop: None,
        occurred_at: stage.now(),
        version_at: None,
        observed_at: None,
        deleted: false,
        raw: "{}".to_owned(),
    });
    let bills: Vec<_> = bills.collect();
    let mut tx = store.begin().await.unwrap();
    external_systems::insert(&mut tx, &till).await.unwrap();
    pos_transactions::upsert_batch(&mut tx, batch, bills).await.unwrap();
    tx.commit().await.unwrap();
    // Stored before the window that will be read ends, and before the overlap of the next one.
    stage.advance(TimeDelta::minutes(5));
}

fn ledger(stage: &Stage) -> BTreeMap<String, Entry> {
    stage.simulator.ledger(stage.row.stream)
}

fn phone(entry: &Entry) -> String {
    entry.phone.clone().unwrap()
}

/// Everybody has paid once.
async fn sell_to_all(stage: &Stage) {
    let phones: Vec<String> = ledger(stage).values().map(phone).collect();
    assert_eq!(
        phones.iter().collect::<BTreeSet<_>>().len(),
        phones.len(),
        "{}: a number twice",
        stage.name()
    );
    sell_to(stage, phones).await;
}

#[tokio::test]
async fn whoever_has_paid_is_known_and_nobody_is_asked_for_twice() {
    on_every_lookup(|stage| async move {
        sell_to_all(&stage).await;
        sell_to(&stage, ["19900000001", "19900000002"].map(str::to_owned)).await;
        let run = stage.pull().await;
        assert_eq!((run.records_total, run.records_failed), (stage.told(), 0), "{}", stage.name());
        assert!(stage.served().values().all(|times| *times == 1), "{}", stage.name());
        stage.agrees().await;

        // With the next bill it is asked for again, and nobody else is.
        let (id, entry) = ledger(&stage).pop_last().unwrap();
        stage.advance(TimeDelta::hours(1));
        // As far as the vendor still changes it.
        stage.simulator.change(stage.row.stream, &id);
        sell_to(&stage, [phone(&entry)]).await;
        assert_eq!(stage.pull().await.records_total, 1, "{}", stage.name());
        let twice: Vec<_> = stage.served().into_iter().filter(|(_, times)| *times != 1).collect();
        assert_eq!(twice, [(id, 2)], "{}", stage.name());
        stage.agrees().await;
        stage
    })
    .await;
}

#[tokio::test]
async fn another_worker_goes_on_behind_the_numbers_that_are_stored() {
    on_every_lookup(|stage| async move {
        sell_to_all(&stage).await;
        let (run, lost) = (stage.wish().await, Arc::new(Notify::new()));
        let told = Arc::clone(&lost);
        stage.after_pages(4 * PAGE, move |_| told.notify_one());
        let stop = CancellationToken::new();
        tokio::select! {
            biased;
            () = lost.notified() => {}
            () = worker::handle(&stage.ctx, &stop, run) => panic!("{}: it ended in peace", stage.name()),
        }
        let kept = stage.run(run).await;
        assert!(kept.records_total >= i64::try_from(2 * PAGE).unwrap(), "{}: {kept:?}", stage.name());
        let lease = TimeDelta::seconds(i64::try_from(stage.ctx.engine.lease_secs).unwrap() + 1);
        stage.advance(lease);
        let ended = stage.to_its_end(run).await;
        // PostgreSQL may still undo the lost worker's page when the next one comes, which costs an attempt.
        let attempts = [2, 3].contains(&ended.attempt);
        assert!(attempts && ended.status == SyncStatus::Success, "{}: {ended:?}", stage.name());
        assert_eq!(ended.records_total, stage.told(), "{}", stage.name());
        // What was stored is not asked for again; the two pages under way may be.
        let twice = stage.served().values().filter(|times| **times > 1).count();
        assert!(twice <= 2 * PAGE, "{}: {twice} members were asked for again", stage.name());
        stage.agrees().await;
        stage
    })
    .await;
}

#[tokio::test]
async fn a_token_or_a_key_may_end_between_two_members() {
    on_every_lookup(|mut stage| async move {
        sell_to_all(&stage).await;
        stage.after_pages(2, zhilian_sync_simulator::Simulator::expire_tokens);
        let run = stage.wish().await;
        let run = stage.to_its_end(run).await;
        if stage.simulator.gives_tokens() {
            assert_eq!((run.status, run.attempt), (SyncStatus::Success, 1), "{}: {run:?}", stage.name());
        } else {
            assert_eq!(run.status, SyncStatus::Failed, "{}: {run:?}", stage.name());
            stage.enter_credentials().await;
            stage.pull().await;
        }
        stage.agrees().await;
        stage
    })
    .await;
}

#[tokio::test]
async fn a_vendor_that_misbehaves_tells_of_everybody_in_the_end() {
    on_every_lookup(|stage| async move {
        sell_to_all(&stage).await;
        let faults = Faults {
            too_many_requests: Some(Every { first: 3, then: 17 }),
            retry_after: Duration::from_secs(77),
            server_error: Some(Every { first: 10, then: 19 }),
            cut: Some(Every { first: 14, then: 23 }),
            ..Faults::default()
        };
        stage.simulator.set_faults(faults);
        let run = stage.wish().await;
        stage.to_its_end(run).await;
        let counted = stage.simulator.counters();
        assert!(counted.too_many_requests > 0 && counted.server_errors > 0, "{}: {counted:?}", stage.name());
        stage.simulator.set_faults(Faults::default());
        stage.advance(TimeDelta::hours(1));
        stage.pull().await;
        stage.agrees().await;
        stage
    })
    .await;
}
