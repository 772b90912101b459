//! The wiring: opens the store, the queue and the vendors, and runs the parts that a process is meant to
//! run until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use zhilian_sync_jobs::inbox::Inbox;
use zhilian_sync_jobs::queue::Queue;
use zhilian_sync_jobs::vendor::Vendors;
use zhilian_sync_jobs::{Context, scheduler, worker};
use zhilian_sync_store::{Clock, Store};

use crate::config::Settings;
use crate::feed::Feed;
use crate::serve::Limits;
use crate::{api, auth, serve};

mod files;
pub mod store;

use store::{OpenedStore, Sharing};

/// How often the database's time is asked for.
const CLOCK_SAMPLE_EVERY: Duration = Duration::from_secs(30);

/// Which part of the work a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessRole {
    /// Everything.
    All,
    /// The HTTP API.
    Api,
    /// Runs.
    Worker,
    /// The clockwork that makes runs.
    Scheduler,
}

impl ProcessRole {
    /// Whether it answers requests.
    #[must_use]
    pub const fn serves_http(self) -> bool {
        matches!(self, Self::All | Self::Api)
    }

    const fn works(self) -> bool {
        matches!(self, Self::All | Self::Worker)
    }

    const fn schedules(self) -> bool {
        matches!(self, Self::All | Self::Scheduler)
    }
}

/// Everything a request or a job needs. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

struct Parts {
    settings: Settings,
    context: Context,
    inbox: Option<Inbox>,
    inbox_stop: CancellationToken,
    gate: auth::Gate,
    feed: Feed,
    test_waiters: Arc<Semaphore>,
    clock_skew_ms: AtomicI64,
    lock: Option<files::Lock>,
}

impl App {
    /// Opens everything that a process of this role needs.
    pub async fn open(settings: Settings, role: ProcessRole, clock: Clock) -> anyhow::Result<Self> {
        check_role(&settings, role)?;
        let OpenedStore { store, lock } = store::open(&settings, clock, Sharing::Alone).await?;
        let skew = store.follow_database_time().await?;
        show_first_password(auth::ensure_first_admin(&store, &settings.auth).await?.as_ref());
        let queue = match settings.redis.url.expose() {
            "" => Queue::memory(&settings.queue),
            url => Queue::redis(url, &settings.queue).await.context("opening the queue")?,
        };
        let vendors =
            Vendors::new(&settings.vendors, store.clone()).context("reading the vendor manifests")?;
        let app = Self::assemble(settings, role, (store, queue, vendors), lock);
        app.0.clock_skew_ms.store(skew.num_milliseconds(), Ordering::Relaxed);
        Ok(app)
    }

    /// Puts parts together that are open already, as tests do.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn from_parts(settings: Settings, store: Store, queue: Queue, vendors: Vendors) -> Self {
        Self::assemble(settings, ProcessRole::All, (store, queue, vendors), None)
    }

    fn assemble(
        settings: Settings,
        role: ProcessRole,
        (store, queue, vendors): (Store, Queue, Vendors),
        lock: Option<files::Lock>,
    ) -> Self {
        let context = Context::new(
            store,
            queue,
            vendors,
            settings.engine.clone(),
            settings.queue.clone(),
            settings.webhooks.clone(),
        );
        let test_waiters = Arc::new(Semaphore::new(settings.server.test_waiters_max));
        let inbox_stop = CancellationToken::new();
        let inbox =
            role.serves_http().then(|| Inbox::start(&context, &settings.webhooks, inbox_stop.clone()));
        let feed = Feed::new(context.store.clone(), &settings.events);
        let parts = Parts {
            settings,
            context,
            inbox,
            inbox_stop,
            gate: auth::Gate::default(),
            feed,
            test_waiters,
            clock_skew_ms: AtomicI64::new(0),
            lock,
        };
        Self(Arc::new(parts))
    }

    /// Runs the parts of `role` until `stop`, lets them finish what they have begun, and closes the
    /// database. `listener` is needed by roles that serve HTTP.
    pub async fn run(
        &self,
        role: ProcessRole,
        listener: Option<TcpListener>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        tracing::info!(
            role = ?role,
            database = if self.settings().database.is_postgres() { "postgres" } else { "sqlite" },
            queue = if self.settings().redis.url.is_empty() { "memory" } else { "redis" },
            locked = self.0.lock.is_some(),
            "started"
        );
        let http = async {
            let served = match listener.filter(|_| role.serves_http()) {
                Some(listener) => self.serve_http(listener, stop.clone()).await,
                None => Ok(()),
            };
            // The last request is answered, so nothing new comes into the inbox.
            self.0.inbox_stop.cancel();
            if served.is_err() {
                // The rest of the process is not to go on without a door.
                stop.cancel();
            }
            served
        };
        let work = async {
            if role.works() {
                worker::serve(self.context().clone(), stop.clone()).await;
            }
        };
        let schedule = async {
            if role.schedules() {
                scheduler::run(self.context().clone(), stop.clone()).await;
            }
        };
        // A stream has no end of its own, and the last request is waited for.
        let hang_up = async {
            stop.cancelled().await;
            self.0.feed.end();
        };
        let (served, (), (), (), ()) = tokio::join!(http, work, schedule, self.follow_time(&stop), hang_up);
        self.store().close().await;
        tracing::info!("stopped");
        served
    }

    async fn serve_http(&self, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
        let address = listener.local_addr().context("reading the address that is listened on")?;
        tracing::info!(address = %address, docs = self.settings().server.docs_enabled(), "listening");
        let server = &self.settings().server;
        let limits = Limits {
            connections: server.max_connections,
            drain: Duration::from_secs(server.drain_secs),
            header_read: serve::HEADER_READ_TIMEOUT,
        };
        serve::serve(listener, api::endpoint(self), limits, stop).await.context("serving HTTP")
    }

    /// Keeps the clock at the database's time, where several processes share one.
    async fn follow_time(&self, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(CLOCK_SAMPLE_EVERY);
        ticks.tick().await;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.store().follow_database_time().await {
                Ok(skew) => self.0.clock_skew_ms.store(skew.num_milliseconds(), Ordering::Relaxed),
                Err(error) => tracing::warn!(%error, "cannot ask the database for its time"),
            }
        }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// What jobs need.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.0.context
    }

    /// Every row.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.context.store
    }

    /// Where webhooks are received; only a process that serves HTTP has one.
    pub(crate) fn inbox(&self) -> Option<&Inbox> {
        self.0.inbox.as_ref()
    }

    /// The gate before password checks.
    pub(crate) fn gate(&self) -> &auth::Gate {
        &self.0.gate
    }

    /// What live clients hear.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.0.feed
    }

    /// Places for callers who wait for a connection test.
    pub(crate) fn test_waiters(&self) -> &Arc<Semaphore> {
        &self.0.test_waiters
    }

    /// How far this machine's clock was from the database's when last asked.
    pub(crate) fn clock_skew(&self) -> Duration {
        Duration::from_millis(self.0.clock_skew_ms.load(Ordering::Relaxed).unsigned_abs())
    }
}

/// Parts of the work can only be apart where they share a database and a queue.
fn check_role(settings: &Settings, role: ProcessRole) -> anyhow::Result<()> {
    if role == ProcessRole::All {
        return Ok(());
    }
    let mut missing = Vec::new();
    if !settings.database.is_postgres() {
        missing.push("PostgreSQL (DATABASE_URL=postgres://…)");
    }
    if settings.redis.url.is_empty() {
        missing.push("Redis (REDIS_URL=redis://…)");
    }
    if missing.is_empty() {
        return Ok(());
    }
    let role = format!("{role:?}").to_lowercase();
    bail!(
        "`--role {role}` shares its work with other processes and needs {}; without them run `serve`, which does all",
        missing.join(" and ")
    )
}

#[expect(clippy::print_stderr, reason = "the generated password is shown once, and must not stand in a log")]
fn show_first_password(password: Option<&secrecy::SecretString>) {
    if let Some(password) = password {
        eprintln!("\n  first start: sign in as `admin` with the password `{}`\n", password.expose_secret());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_work_need_a_shared_database_and_queue() {
        let settings = Settings::embedded();
        assert!(check_role(&settings, ProcessRole::All).is_ok());
        let error = check_role(&settings, ProcessRole::Worker).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"`--role worker` shares its work with other processes and needs PostgreSQL (DATABASE_URL=postgres://…) and Redis (REDIS_URL=redis://…); without them run `serve`, which does all");
        let mut shared = settings;
        shared.database.url = "postgres://db/sync".into();
        shared.redis.url = "redis://cache".into();
        assert!(check_role(&shared, ProcessRole::Worker).is_ok());
    }
}
