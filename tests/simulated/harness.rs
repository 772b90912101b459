//! An engine on a database of its own, a simulated vendor, and one clock for both that a test moves by hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use chrono::{DateTime, TimeDelta, Utc};
use poem::Server;
use poem::listener::TcpAcceptor;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::net::TcpListener;
use zhilian_sync::api;
use zhilian_sync::app::App;
use zhilian_sync::config::Settings;
use zhilian_sync_jobs::enqueue::{self, Wish};
use zhilian_sync_jobs::queue::Queue;
use zhilian_sync_jobs::vendor::Vendors;
use zhilian_sync_jobs::{Context, testing::drain};
use zhilian_sync_simulator::{PageServed, Simulator, WebhookTarget};
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::sync_logs::{self, Run};
use zhilian_sync_store::testing::{self, TestStore};
use zhilian_sync_store::{Clock, RunId, Store, SyncStatus, SystemStatus, sync_cursors};

use crate::kept::{expected, stored};
use crate::rows::{Row, looked_up, manifest, only_posted, rows};

/// How many records a stream has at the start.
const HISTORY: u32 = 40;

/// How long an answer takes: then the narrowest budget, five calls a second, is never spent for long.
const ANSWER_TAKES: TimeDelta = TimeDelta::milliseconds(200);

/// Told how many pages with records of the stream were served, after each request and before its answer is sent.
type Watch = Box<dyn FnMut(&Simulator, usize) + Send>;

/// One stream of one vendor on one database. Dropping it fails the test while runs are due.
pub(crate) struct Stage {
    pub(crate) row: Row,
    pub(crate) ctx: Context,
    pub(crate) simulator: Arc<Simulator>,
    pub(crate) system: ExternalSystem,
    store: TestStore,
    heard: Arc<Heard>,
    settings: Settings,
    _manifests: TempDir,
    finished: bool,
}

/// What the simulated vendor has answered, and who waits for it.
struct Heard {
    stream: &'static str,
    simulator: OnceLock<Weak<Simulator>>,
    statuses: Mutex<Vec<u16>>,
    watch: Mutex<Option<Watch>>,
    clock: Clock,
    /// How long each answer takes, by the clock: budgets of calls fill up meanwhile.
    takes: Mutex<TimeDelta>,
}

/// Plays with every row of the matrix on every database. The vendor's history lies within `span`.
pub(crate) async fn on_every_row<F: Future<Output = Stage>>(span: TimeDelta, play: impl Fn(Stage) -> F) {
    on_each(rows().await, span, play).await;
}

/// The same with streams whose records are told one by one.
pub(crate) async fn on_every_lookup<F: Future<Output = Stage>>(play: impl Fn(Stage) -> F) {
    on_each(looked_up().await, TimeDelta::hours(20), play).await;
}

/// The same with streams whose records are only posted; what was before that nobody hears of.
pub(crate) async fn on_every_post<F: Future<Output = Stage>>(play: impl Fn(Stage) -> F) {
    on_each(only_posted().await, TimeDelta::hours(20), play).await;
}

async fn on_each<F: Future<Output = Stage>>(rows: Vec<Row>, span: TimeDelta, play: impl Fn(Stage) -> F) {
    for row in rows {
        for store in testing::every(|| Clock::fake(testing::noon())).await {
            let mut stage = play(Stage::new(row.clone(), store, span).await).await;
            let left = zhilian_sync_jobs::testing::due(&stage.ctx).await;
            assert!(left.is_empty(), "{}: runs are still due: {left:?}", stage.name());
            stage.finished = true;
        }
    }
}

impl Stage {
    async fn new(row: Row, store: TestStore, span: TimeDelta) -> Self {
        let (simulator, heard) = vendor_of(&row, store.clock(), span).await;
        let manifests = tempfile::tempdir().unwrap();
        std::fs::write(manifests.path().join(format!("{}.toml", row.vendor)), manifest(row.vendor)).unwrap();
        let mut settings = Settings::embedded();
        settings.vendors.allow_networks = vec!["127.0.0.1/32".into()];
        settings.vendors.timeout_secs = 5;
        settings.vendors.read_timeout_secs = 5;
        settings.vendors.directory = manifests.path().display().to_string();
        let vendors = Vendors::new(&settings.vendors, store.store.clone()).unwrap();
        let queue = Queue::memory(&settings.queue);
        let (engine, webhooks) = (settings.engine.clone(), settings.webhooks.clone());
        let ctx = Context::new(store.store.clone(), queue, vendors, engine, settings.queue.clone(), webhooks);
        let system_type = simulator.system_type().parse().unwrap();
        let mut system = external_systems::blank(&store.store, "simulated", system_type, row.vendor);
        system.status = SystemStatus::Active;
        system.sync_interval = None;
        system.api_endpoint = Some(simulator.url());
        system.config.0 = simulator.config();
        external_systems::set_credentials(&store.store, &mut system, &secrets(&simulator)).unwrap();
        let mut tx = store.store.begin().await.unwrap();
        external_systems::insert(&mut tx, &system).await.unwrap();
        tx.commit().await.unwrap();
        Self { row, ctx, simulator, system, store, heard, settings, _manifests: manifests, finished: false }
    }

    /// Vendor, stream and database, for messages.
    pub(crate) fn name(&self) -> String {
        let database = self.store.url.split(':').next().unwrap_or_default();
        format!("{} {} on {database}", self.row.vendor, self.row.stream)
    }

    /// The database.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The time, ours and the vendor's.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.store.clock().now()
    }

    /// Moves the clock.
    pub(crate) fn advance(&self, by: TimeDelta) {
        self.store.clock().advance(by);
    }

    /// Moves the clock to a whole second, which is how exactly a vendor tells its time.
    pub(crate) fn advance_to_the_second(&self) {
        let past = i64::from(self.now().timestamp_subsec_millis());
        self.advance(TimeDelta::milliseconds((1_000 - past) % 1_000));
    }

    /// Makes one record that the vendor tells of: some of those that are made it keeps to itself.
    pub(crate) fn add(&self) -> String {
        let made = || self.simulator.add(self.row.stream).unwrap();
        let told = |id: &String| self.simulator.ledger(self.row.stream).contains_key(id);
        std::iter::repeat_with(made).take(50).find(told).unwrap()
    }

    /// How many records the vendor tells of.
    pub(crate) fn told(&self) -> i64 {
        i64::try_from(self.simulator.ledger(self.row.stream).len()).unwrap()
    }

    /// Wishes a pull, which nobody works on yet.
    pub(crate) async fn wish(&self) -> RunId {
        let wish = Wish::pull(self.system.id, self.row.stream, None);
        enqueue::start(&self.ctx, &wish).await.unwrap().run().unwrap()
    }

    /// Runs everything that is due; the run as it stands then.
    pub(crate) async fn work(&self, run: RunId) -> Run {
        drain(&self.ctx).await;
        self.run(run).await
    }

    /// A run's row.
    pub(crate) async fn run(&self, run: RunId) -> Run {
        sync_logs::get(self.store(), run).await.unwrap()
    }

    /// Goes on with a run until it has ended, through its retries and postponements.
    pub(crate) async fn to_its_end(&self, run: RunId) -> Run {
        for _ in 0..50 {
            let run = self.work(run).await;
            if run.status.is_final() {
                return run;
            }
            self.advance((run.run_at - self.now()).max(TimeDelta::zero()));
        }
        panic!("{}: the run did not end: {:?}", self.name(), self.run(run).await);
    }

    /// Pulls, to the end and with success.
    pub(crate) async fn pull(&self) -> Run {
        let run = self.wish().await;
        let run = self.to_its_end(run).await;
        assert_eq!(run.status, SyncStatus::Success, "{}: {run:?}", self.name());
        run
    }

    /// The earliest watermark of the stream's parts.
    pub(crate) async fn watermark(&self) -> DateTime<Utc> {
        let cursors = sync_cursors::list_of_system(self.store(), self.system.id).await.unwrap();
        let watermarks = cursors.into_iter().filter_map(|cursor| cursor.watermark);
        watermarks.min().unwrap_or_else(|| panic!("{}: there is no watermark", self.name()))
    }

    /// The pages of the stream that were served so far.
    pub(crate) fn pages(&self) -> Vec<PageServed> {
        self.simulator.pages(self.row.stream)
    }

    /// How often each record was served so far.
    pub(crate) fn served(&self) -> BTreeMap<String, u64> {
        self.simulator.served(self.row.stream)
    }

    /// The statuses that were answered so far.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        self.heard.statuses.lock().unwrap().clone()
    }

    /// Does this once, after so many pages with records were served in all and before the last of them arrives.
    pub(crate) fn after_pages(&self, count: usize, act: impl FnOnce(&Simulator) + Send + 'static) {
        let mut act = Some(act);
        let watch: Watch = Box::new(move |simulator, served| {
            if served >= count
                && let Some(act) = act.take()
            {
                act(simulator);
            }
        });
        *self.heard.watch.lock().unwrap() = Some(watch);
    }

    /// From now on each answer takes so long, by the clock.
    pub(crate) fn answers_take(&self, time: TimeDelta) {
        *self.heard.takes.lock().unwrap() = time;
    }

    /// Enters the vendor's credentials of now.
    pub(crate) async fn enter_credentials(&mut self) {
        let mut system = external_systems::get(self.store(), self.system.id).await.unwrap();
        external_systems::set_credentials(self.store(), &mut system, &secrets(&self.simulator)).unwrap();
        let mut tx = self.store.begin().await.unwrap();
        external_systems::save(&mut tx, &system, None, self.now()).await.unwrap();
        tx.commit().await.unwrap();
        self.system = external_systems::get(self.store(), system.id).await.unwrap();
    }

    /// Serves the API on a port of its own, and has the vendor post to it from now on.
    pub(crate) async fn receive_webhooks(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let root = format!("http://{}{}", listener.local_addr().unwrap(), api::BASE);
        let url = format!("{root}/integrations/webhooks/{}/{}", self.system.system_type, self.system.id);
        let secret = "the-vendors-own-secret";
        let mut system = external_systems::get(self.store(), self.system.id).await.unwrap();
        let secrets = BTreeMap::from([("default".to_owned(), SecretString::from(secret))]);
        external_systems::set_webhook_secrets(self.store(), &mut system, &secrets).unwrap();
        system.webhook_url = Some(url.clone());
        let mut tx = self.store.begin().await.unwrap();
        external_systems::save(&mut tx, &system, None, self.now()).await.unwrap();
        tx.commit().await.unwrap();
        let queue = Queue::memory(&self.settings.queue);
        let vendors = Vendors::new(&self.settings.vendors, self.store.store.clone()).unwrap();
        let app = App::from_parts(self.settings.clone(), self.store.store.clone(), queue, vendors);
        let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).unwrap());
        tokio::spawn(server.run(api::endpoint(&app)));
        self.simulator.post_webhooks(WebhookTarget { url: url.parse().unwrap(), secret: secret.into() });
    }

    /// The end of every test: the database says what the ledger says, and the vendor has refused nothing.
    pub(crate) async fn agrees(&self) {
        let ledger = self.simulator.ledger(self.row.stream);
        let (expected, stored) =
            (expected(&self.row, &ledger), stored(self.store(), self.system.id, &self.row).await);
        let missing: Vec<_> = expected.keys().filter(|id| !stored.contains_key(*id)).collect();
        let foreign: Vec<_> = stored.keys().filter(|id| !expected.contains_key(*id)).collect();
        assert!(missing.is_empty() && foreign.is_empty(), "{}: {missing:?} / {foreign:?}", self.name());
        for (id, kept) in &stored {
            assert_eq!(*kept, expected[id], "{}: `{id}`", self.name());
        }
        assert_eq!(self.simulator.counters().rejected, 0, "{}: a request was not understood", self.name());
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        assert!(
            self.finished || std::thread::panicking(),
            "a stage was dropped before it was looked at; return it from the test"
        );
    }
}

/// Starts the vendor of a row on the engine's clock.
async fn vendor_of(row: &Row, clock: &Clock, span: TimeDelta) -> (Arc<Simulator>, Arc<Heard>) {
    let heard = Arc::new(Heard {
        stream: row.stream,
        simulator: OnceLock::new(),
        statuses: Mutex::default(),
        watch: Mutex::default(),
        clock: clock.clone(),
        takes: Mutex::new(ANSWER_TAKES),
    });
    let (clock, told) = (clock.clone(), Arc::clone(&heard));
    let settings = zhilian_sync_simulator::Settings {
        now: Arc::new(move || clock.now()),
        history: if row.is_only_posted() { 0 } else { HISTORY },
        history_span: span.to_std().unwrap(),
        heard: Some(Arc::new(move |line| told.hear(line.status))),
        ..Default::default()
    };
    let simulator = Arc::new(Simulator::start(row.vendor, settings).await.unwrap());
    heard.simulator.set(Arc::downgrade(&simulator)).unwrap();
    (simulator, heard)
}

impl Heard {
    fn hear(&self, status: u16) {
        self.statuses.lock().unwrap().push(status);
        self.clock.advance(*self.takes.lock().unwrap());
        let simulator = self.simulator.get().and_then(Weak::upgrade);
        if let (Some(simulator), Some(watch)) = (simulator, self.watch.lock().unwrap().as_mut()) {
            let full = simulator.pages(self.stream).iter().filter(|page| !page.ids.is_empty()).count();
            watch(&simulator, full);
        }
    }
}

fn secrets(simulator: &Simulator) -> BTreeMap<String, SecretString> {
    simulator.credentials().into_iter().map(|(name, secret)| (name, SecretString::from(secret))).collect()
}
