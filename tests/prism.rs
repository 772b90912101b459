//! Real input: a Square system pulled against Square's own published OpenAPI description, which Prism
//! serves. `scripts/with-prism` starts it twice and names both in `ZHILIAN_TEST_PRISM`: the description
//! as published, whose example pages all name the same next cursor, and the same with lists that end.
//! `tests/prism/describe.mjs` says exactly how they differ.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde_json::json;
use zhilian_sync::config::Settings;
use zhilian_sync_jobs::enqueue::{self, Wish};
use zhilian_sync_jobs::kinds::connection_test;
use zhilian_sync_jobs::queue::Queue;
use zhilian_sync_jobs::vendor::Vendors;
use zhilian_sync_jobs::{Context, testing::drain};
use zhilian_sync_store::external_records::{self, ExternalRecord};
use zhilian_sync_store::pos_transactions::{self, PosTransaction};
use zhilian_sync_store::sync_logs::{self, Run};
use zhilian_sync_store::testing::{self, TestStore};
use zhilian_sync_store::{
    Clock, Currency, Store, SyncStatus, SystemId, SystemStatus, SystemType, TransactionType, external_systems,
};

/// The payments of Square's example, by id: the status and the amount in cents.
const PAYMENTS: [(&str, &str, i64); 2] = [
    ("GQTFp1ZlXdpoW4o6eGiZhbjosiDFf", "COMPLETED", 1000),
    ("ifrBnAil7rRfDtd27cdf9g9WO8paB", "APPROVED", 1000),
];

/// The one order of Square's examples that is completed.
const ORDER: &str = "lgwOlEityYPJtcuvKTVKT1pA986YY";

/// Square as a system of an engine on a database of its own.
struct Square {
    ctx: Context,
    system: SystemId,
    store: TestStore,
}

fn usd() -> Currency {
    "USD".parse().unwrap()
}

/// Which of the two descriptions.
#[derive(Clone, Copy)]
enum Described {
    Published,
    Ending,
}

/// Where Prism serves a description; `None`, said loudly, where it does not run.
#[expect(clippy::disallowed_methods, reason = "the script that starts Prism tells where it is")]
fn prism(described: Described) -> Option<String> {
    let addresses = std::env::var("ZHILIAN_TEST_PRISM").unwrap_or_default();
    let Some((published, ending)) = addresses.split_once(',') else {
        eprintln!(
            "SKIPPED: ZHILIAN_TEST_PRISM is not set; run it with `scripts/with-prism`, which needs npm"
        );
        return None;
    };
    Some(match described {
        Described::Published => published.to_owned(),
        Described::Ending => ending.to_owned(),
    })
}

/// Plays on every database there is, where Prism runs.
async fn on_every_database<F: Future<Output = ()>>(described: Described, play: impl Fn(Square) -> F) {
    let Some(endpoint) = prism(described) else { return };
    for store in testing::every(|| Clock::fake(testing::noon())).await {
        play(Square::connect(store, &endpoint).await).await;
    }
}

impl Square {
    async fn connect(store: TestStore, endpoint: &str) -> Self {
        let mut settings = Settings::embedded();
        settings.vendors.allow_networks = vec!["127.0.0.1/32".into()];
        let vendors = Vendors::new(&settings.vendors, store.store.clone()).unwrap();
        let queue = Queue::memory(&settings.queue);
        let (engine, webhooks) = (settings.engine, settings.webhooks);
        let ctx = Context::new(store.store.clone(), queue, vendors, engine, settings.queue, webhooks);

        let mut system = external_systems::blank(&store, "Square", SystemType::Pos, "square");
        system.sync_interval = None;
        system.currency = usd();
        system.api_endpoint = Some(endpoint.to_owned());
        system.config.0.insert("location_ids".into(), json!(["18YC4JDH91E1H"]));
        let key = BTreeMap::from([("api_key".to_owned(), SecretString::from("any token"))]);
        external_systems::set_credentials(&store, &mut system, &key).unwrap();
        let mut tx = store.begin().await.unwrap();
        external_systems::insert(&mut tx, &system).await.unwrap();
        tx.commit().await.unwrap();
        Self { ctx, system: system.id, store }
    }

    fn store(&self) -> &Store {
        &self.store
    }

    /// Carries out one wish to its end.
    async fn run(&self, wish: Wish) -> Run {
        let id = enqueue::start(&self.ctx, &wish).await.unwrap().run().unwrap();
        drain(&self.ctx).await;
        sync_logs::get(self.store(), id).await.unwrap()
    }

    async fn pull(&self, stream: &str) -> Run {
        self.run(Wish::pull(self.system, stream, None)).await
    }

    async fn payments(&self) -> Vec<ExternalRecord> {
        let filter = external_records::Filter {
            stream: "payments",
            system_id: Some(self.system),
            limit: 100,
            ..Default::default()
        };
        let mut rows = external_records::list(self.store(), &filter).await.unwrap();
        rows.sort_by(|one, other| one.external_id.cmp(&other.external_id));
        rows
    }

    async fn orders(&self) -> Vec<PosTransaction> {
        let filter =
            pos_transactions::Filter { system_id: Some(self.system), limit: 100, ..Default::default() };
        pos_transactions::list(self.store(), &filter).await.unwrap()
    }

    /// The payments of the example are there, each once, as Square wrote them.
    async fn has_the_payments_once(&self) {
        let rows = self.payments().await;
        let seen: Vec<_> = rows
            .iter()
            .map(|row| {
                (row.external_id.as_str(), row.status.as_deref().unwrap_or(""), row.amount.unwrap_or(-1))
            })
            .collect();
        assert_eq!(seen, PAYMENTS);
        assert!(rows.iter().all(|row| row.currency == Some(usd())));
    }
}

#[tokio::test]
async fn the_connection_test_makes_square_active() {
    on_every_database(Described::Published, async |square: Square| {
        let run = square.run(Wish::connection_test(square.system, None)).await;
        assert_eq!(run.status, SyncStatus::Success, "{:?}", run.error_message);
        assert_eq!(connection_test::message(&run).unwrap(), "Connected to Square (locations: 1)");
        let system = external_systems::get(square.store(), square.system).await.unwrap();
        assert_eq!(system.status, SystemStatus::Active);
    })
    .await;
}

#[tokio::test]
async fn a_cursor_that_repeats_ends_the_run_and_keeps_what_was_read() {
    on_every_database(Described::Published, async |square: Square| {
        // Twice: the second pull reads the same window again and doubles nothing.
        for _ in 0..2 {
            let run = square.pull("payments").await;
            assert_eq!(run.status, SyncStatus::Failed);
            assert_eq!(run.error_code.as_deref(), Some("cursor_repeats"));
            let message = run.error_message.unwrap();
            assert!(message.contains("cursor repeats"), "{message}");
            square.has_the_payments_once().await;
        }
        // The example of the search for orders holds entries, not orders, and the same cursor each time.
        let run = square.pull("orders").await;
        assert_eq!((run.status, run.error_code.as_deref()), (SyncStatus::Failed, Some("cursor_repeats")));
        assert_eq!(run.attempt, 1, "repeating cannot mend it");
        assert!(square.orders().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn lists_that_end_are_stored_to_their_end() {
    on_every_database(Described::Ending, async |square: Square| {
        for _ in 0..2 {
            let run = square.pull("payments").await;
            assert_eq!(run.status, SyncStatus::Success, "{:?}", run.error_message);
            assert_eq!((run.records_total, run.records_success, run.records_failed), (2, 2, 0));
            square.has_the_payments_once().await;

            let run = square.pull("orders").await;
            assert_eq!(run.status, SyncStatus::Success, "{:?}", run.error_message);
            // The other example is an open order: not sold yet.
            assert_eq!((run.records_success, run.records_failed, run.records_skipped), (1, 0, 1));
            let orders = square.orders().await;
            assert_eq!(orders.len(), 1);
            let order = &orders[0];
            assert_eq!(order.pos_transaction_id, ORDER);
            assert_eq!(order.transaction_type, TransactionType::Sale);
            assert_eq!((order.subtotal, order.tax, order.discount, order.total), (2000, 0, 0, 2000));
            assert_eq!(order.payment_method.as_deref(), Some("CARD"));
            assert_eq!(order.transaction_time.to_rfc3339(), "2025-10-15T13:52:39.632+00:00");
            assert!(order.items.as_deref().is_some_and(|items| items.contains("Item 2")));
        }
    })
    .await;
}
