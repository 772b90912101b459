//! An engine on a database of its own, a clock that stands still, and a vendor that says what it is told.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use serde_json::{Value, json};
use zhilian_sync::config::Settings;
use zhilian_sync::simulator::scripted::{Answer, RecordedRequest, Scripted};
use zhilian_sync_jobs::enqueue::{self, PullParameters, Wish};
use zhilian_sync_jobs::queue::Queue;
use zhilian_sync_jobs::vendor::Vendors;
use zhilian_sync_jobs::{Context, testing::drain};
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::pos_transactions::{self, PosTransaction};
use zhilian_sync_store::sync_failures::{self, SyncFailure};
use zhilian_sync_store::sync_logs::{self, Run};
use zhilian_sync_store::testing::{self, TestStore};
use zhilian_sync_store::{Clock, RunId, Store, SystemStatus, SystemType};

/// What the demo till's key is in these tests.
pub(crate) const KEY: &str = "till-key-5f1d";

/// The most pages of one window in these tests.
pub(crate) const PAGES_MAX: u32 = 20;

/// One engine. Dropping it fails the test while runs are due.
pub(crate) struct Flow {
    pub(crate) ctx: Context,
    pub(crate) vendor: Scripted,
    pub(crate) system: ExternalSystem,
    store: TestStore,
    finished: bool,
}

/// Runs a flow with the demo till on every database there is.
pub(crate) async fn on_every_database<F: Future<Output = Flow>>(
    script: impl Fn(&RecordedRequest) -> Answer + Clone + Send + Sync + 'static,
    play: impl Fn(Flow) -> F,
) {
    with_manifest("", script, play).await;
}

/// Runs a flow on every database there is, with a system whose vendor is `test` and has this manifest;
/// without one it is the demo till.
pub(crate) async fn with_manifest<F: Future<Output = Flow>>(
    manifest: &str,
    script: impl Fn(&RecordedRequest) -> Answer + Clone + Send + Sync + 'static,
    play: impl Fn(Flow) -> F,
) {
    for store in testing::every(|| Clock::fake(testing::noon())).await {
        let vendor = Scripted::start_with(script.clone()).await.unwrap();
        let mut flow = play(Flow::new(store, vendor, manifest).await).await;
        let left = zhilian_sync_jobs::testing::due(&flow.ctx).await;
        assert!(left.is_empty(), "runs are still due at the end of the test: {left:?}");
        flow.finished = true;
    }
}

impl Flow {
    async fn new(store: TestStore, vendor: Scripted, manifest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::embedded();
        settings.vendors.allow_networks = vec!["127.0.0.1/32".into()];
        settings.vendors.timeout_secs = 2;
        settings.vendors.read_timeout_secs = 1;
        settings.vendors.pages_max = PAGES_MAX;
        settings.engine.max_attempts = 3;
        if !manifest.is_empty() {
            std::fs::write(folder.path().join("test.toml"), manifest).unwrap();
            settings.vendors.directory = folder.path().display().to_string();
        }
        let vendors = Vendors::new(&settings.vendors, store.store.clone()).unwrap();
        let queue = Queue::memory(&settings.queue);
        let (engine, webhooks) = (settings.engine, settings.webhooks);
        let ctx = Context::new(store.store.clone(), queue, vendors, engine, settings.queue, webhooks);
        let mut system = till(&store.store, "the till", &vendor.url());
        if !manifest.is_empty() {
            system.provider = "test".into();
        }
        insert(&store.store, &system).await;
        Self { ctx, vendor, system, store, finished: false }
    }

    /// The database.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Moves the clock.
    pub(crate) fn advance(&self, by: TimeDelta) {
        self.store.clock().advance(by);
    }

    /// Wishes a pull of the sales and runs everything that is due; the run as it stands then.
    pub(crate) async fn pull(&self) -> Run {
        let id = self.wish(&Wish::pull(self.system.id, "transactions", None)).await;
        drain(&self.ctx).await;
        self.run(id).await
    }

    /// Wishes a pull of a stream in another than the usual way; the run as it stands then.
    pub(crate) async fn pull_with(&self, stream: &str, parameters: PullParameters) -> Run {
        let trigger = parameters.trigger();
        let wish = Wish { trigger, parameters, ..Wish::pull(self.system.id, stream, None) };
        let id = self.wish(&wish).await;
        drain(&self.ctx).await;
        self.run(id).await
    }

    /// Wishes a pull and goes on until it has ended, through its retries.
    pub(crate) async fn pull_to_its_end(&self) -> Run {
        let mut run = self.pull().await;
        for _ in 0..20 {
            if run.status.is_final() {
                return run;
            }
            self.advance((run.run_at - self.store.clock().now()).max(TimeDelta::zero()));
            drain(&self.ctx).await;
            run = self.run(run.id).await;
        }
        panic!("the run did not end: {run:?}");
    }

    /// Tests the connection; the run as it stands then.
    pub(crate) async fn test_connection(&self) -> Run {
        let id = self.wish(&Wish::connection_test(self.system.id, None)).await;
        drain(&self.ctx).await;
        self.run(id).await
    }

    /// Enqueues a wish.
    pub(crate) async fn wish(&self, wish: &Wish) -> RunId {
        enqueue::start(&self.ctx, wish).await.unwrap().run().unwrap()
    }

    /// A run's row.
    pub(crate) async fn run(&self, id: RunId) -> Run {
        sync_logs::get(self.store(), id).await.unwrap()
    }

    /// The system's row.
    pub(crate) async fn system(&self) -> ExternalSystem {
        external_systems::get(self.store(), self.system.id).await.unwrap()
    }

    /// What is stored, by the vendor's id.
    pub(crate) async fn stored(&self) -> BTreeMap<String, PosTransaction> {
        let filter =
            pos_transactions::Filter { system_id: Some(self.system.id), limit: 500, ..Default::default() };
        let rows = pos_transactions::list(self.store(), &filter).await.unwrap();
        rows.into_iter().map(|row| (row.pos_transaction_id.clone(), row)).collect()
    }

    /// The failures of a run.
    pub(crate) async fn failures(&self, run: RunId) -> Vec<SyncFailure> {
        sync_failures::list_of_run(self.store(), run, None, 500).await.unwrap()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        assert!(
            self.finished || std::thread::panicking(),
            "a flow was dropped before it was looked at; return it from the test"
        );
    }
}

/// A till that is active and has no schedule.
pub(crate) fn till(store: &Store, name: &str, endpoint: &str) -> ExternalSystem {
    let mut system = external_systems::blank(store, name, SystemType::Pos, "demo-pos");
    system.status = SystemStatus::Active;
    system.sync_interval = None;
    system.api_endpoint = Some(endpoint.into());
    let key = BTreeMap::from([("api_key".to_owned(), SecretString::from(KEY))]);
    external_systems::set_credentials(store, &mut system, &key).unwrap();
    system
}

/// Inserts a system.
pub(crate) async fn insert(store: &Store, system: &ExternalSystem) {
    let mut tx = store.begin().await.unwrap();
    external_systems::insert(&mut tx, system).await.unwrap();
    tx.commit().await.unwrap();
}

/// One sale as the demo till tells it.
pub(crate) fn sale(id: &str, total_fen: i64, updated_at: DateTime<Utc>) -> Value {
    json!({
        "sale_id": id, "order_no": format!("A-{id}"), "kind": "sale", "shop": "shop-1", "subtotal_fen": total_fen,
        "tax_fen": 0, "discount_fen": 0, "total_fen": total_fen, "pay": "cash", "phone": "", "member": "",
        "lines": [{"name": "牛肉面", "qty": 1, "price_fen": total_fen}],
        "sold_at": updated_at.to_rfc3339(), "updated_at": updated_at.to_rfc3339(),
    })
}

/// A page of the demo till's list.
pub(crate) fn list(items: &[Value], page: u64, pages: u64) -> Answer {
    Answer::json(
        200,
        &json!({"code": 0, "message": "ok", "data": {"items": items, "page": page, "pages": pages}}),
    )
}

/// The page number that a request asks for.
pub(crate) fn page_number(request: &RecordedRequest) -> u64 {
    request.query("page").and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A time that a request's query carries.
pub(crate) fn time(request: &RecordedRequest, name: &str) -> Option<DateTime<Utc>> {
    request.query(name).and_then(|text| text.parse().ok())
}
