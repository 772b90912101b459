//! A running simulated vendor: it starts and stops here, and what a test or a person does to it by hand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use poem::listener::TcpAcceptor;
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::counters::{Counters, PageServed, WebhookCounters};
use crate::endpoint;
use crate::faults::Faults;
use crate::scene::Occasions;
use crate::settings::Settings;
use crate::tokens::Tokens;
use crate::vendor::Vendor;
use crate::vendors;
use crate::webhooks::{self, WebhookTarget};
use crate::world::{Entry, World};

/// How long an answer in flight may take when the simulator ends.
const DRAIN: Duration = Duration::from_secs(1);

/// Why a vendor cannot be simulated.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such vendor here.
    #[error("no simulator for vendor `{vendor}`; there are {}", vendors::names().join(", "))]
    Unknown {
        /// What was asked for.
        vendor: String,
    },
    /// It cannot listen.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// A running simulated vendor. Dropping it ends it.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What the endpoint, the changes and the webhooks share.
pub(crate) struct Shared {
    pub(crate) vendor: Box<dyn Vendor>,
    pub(crate) settings: Settings,
    pub(crate) address: SocketAddr,
    /// Rung when something has happened that may have to be posted, and when something was.
    pub(crate) happened: Notify,
    pub(crate) posted: Notify,
    state: Mutex<State>,
}

/// One lock over records and counters: a page is of one moment, and so is its `Date`.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) world: World,
    pub(crate) tokens: Tokens,
    pub(crate) faults: Faults,
    pub(crate) occasions: Occasions,
    pub(crate) counters: Counters,
    pub(crate) served: BTreeMap<(&'static str, String), u64>,
    pub(crate) pages: Vec<PageServed>,
    pub(crate) changing: bool,
    pub(crate) webhooks: WebhookCounters,
    /// Events that are taken from the world and neither taken by the receiver nor given up.
    pub(crate) posting: u64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("vendor", &self.vendor.name())
            .field("settings", &self.settings)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Simulator {
    /// Starts a vendor by its name.
    pub async fn start(vendor: &str, settings: Settings) -> Result<Self, StartError> {
        let Some(found) = vendors::find(vendor) else {
            return Err(StartError::Unknown { vendor: vendor.to_owned() });
        };
        let asked = settings.address;
        let cannot = |source| StartError::Listen { address: asked, source };
        let listener = TcpListener::bind(asked).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let acceptor = TcpAcceptor::from_tokio(listener).map_err(cannot)?;
        let shared = Arc::new(Shared::new(found, settings, address));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());

        let server = poem::Server::new_with_acceptor(acceptor);
        let (endpoint, stopped) = (endpoint::of(Arc::clone(&shared)), stop.clone().cancelled_owned());
        tasks.spawn(async move {
            if let Err(error) = server.run_with_graceful_shutdown(endpoint, stopped, Some(DRAIN)).await {
                tracing::error!(%error, "the vendor simulator ended");
            }
        });
        if let Some(pace) = shared.settings.pace {
            tasks.spawn(change_all_the_time(Arc::clone(&shared), pace, stop.clone()));
        }
        Ok(Self { address, shared, stop, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint to configure, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, self.shared.vendor.base_path())
    }

    /// The secrets that a system needs, by the names of the manifest.
    #[must_use]
    pub fn credentials(&self) -> BTreeMap<String, String> {
        self.shared.vendor.credentials(&self.shared.state().tokens)
    }

    /// The settings that a system needs, by the names of the manifest.
    #[must_use]
    pub fn config(&self) -> Map<String, Value> {
        self.shared.vendor.config()
    }

    /// What a system of this vendor is, such as `pos`.
    #[must_use]
    pub fn system_type(&self) -> &'static str {
        self.shared.vendor.system_type()
    }

    /// Whether callers are let in by access tokens that the vendor gives; else by keys alone.
    #[must_use]
    pub fn gives_tokens(&self) -> bool {
        self.shared.vendor.gives_tokens()
    }

    /// The names of its lists.
    #[must_use]
    pub fn streams(&self) -> Vec<&'static str> {
        self.shared.vendor.streams().iter().map(|stream| stream.name).collect()
    }

    /// The truth: every record of a list as it is now, by the vendor's id.
    #[must_use]
    pub fn ledger(&self, stream: &str) -> BTreeMap<String, Entry> {
        self.shared.state().world.ledger(self.shared.vendor.as_ref(), stream)
    }

    /// How often each record of a list was served in it.
    #[must_use]
    pub fn served(&self, stream: &str) -> BTreeMap<String, u64> {
        let state = self.shared.state();
        let of_stream = state.served.iter().filter(|((name, _), _)| *name == stream);
        of_stream.map(|((_, id), times)| (id.clone(), *times)).collect()
    }

    /// The pages of a list as they were served, in order.
    #[must_use]
    pub fn pages(&self, stream: &str) -> Vec<PageServed> {
        self.shared.state().pages.iter().filter(|page| page.stream == stream).cloned().collect()
    }

    /// What was served and injected so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.state().counters
    }

    /// Whatever happens next at the vendor, by its seed: mostly a new record, now and then a change.
    pub fn trade(&self) {
        self.by_hand(|world, vendor, now| world.trade(vendor, now));
    }

    /// Makes one record and returns its id; `None` if there is no such list.
    pub fn add(&self, stream: &str) -> Option<String> {
        self.by_hand(|world, vendor, now| world.make(vendor, stream, now))
    }

    /// Makes one record that is written down only now, though its times say `at`: tills that were offline do
    /// so. Returns its id; `None` if there is no such list.
    pub fn add_late(&self, stream: &str, at: DateTime<Utc>) -> Option<String> {
        self.by_hand(|world, vendor, _| world.make_late(vendor, stream, at))
    }

    /// Changes a record; false if there is none that can still change.
    pub fn change(&self, stream: &str, id: &str) -> bool {
        self.by_hand(|world, _, now| world.change(stream, id, now))
    }

    /// Makes a sale or an order one that never happened; false if there is none.
    pub fn void(&self, stream: &str, id: &str) -> bool {
        self.by_hand(|world, _, now| world.void(stream, id, now))
    }

    /// Pays a sale back and returns the id of the record that says so; `None` if there is no such sale.
    pub fn refund(&self, stream: &str, id: &str) -> Option<String> {
        self.by_hand(|world, vendor, now| world.refund(vendor, stream, id, now))
    }

    /// Deletes a record; false if there is none, or the vendor does not tell of it.
    pub fn delete(&self, stream: &str, id: &str) -> bool {
        self.by_hand(|world, _, now| world.delete(stream, id, now))
    }

    /// Ends every access token that was given; of a vendor that gives none the keys are made anew.
    pub fn expire_tokens(&self) {
        let mut state = self.shared.state();
        if self.shared.vendor.gives_tokens() { state.tokens.end_given() } else { state.tokens.renew_keys() }
    }

    /// Misbehaves in this way from now on; occasions count from here.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.shared.state();
        state.faults = faults;
        state.occasions = Occasions::default();
    }

    /// From now on posts what changes.
    pub fn post_webhooks(&self, target: WebhookTarget) {
        self.shared.state().world.keep_what_happens();
        let posting = webhooks::post_all_the_time(Arc::clone(&self.shared), target, self.stop.clone());
        self.tasks.spawn(posting);
    }

    /// What was posted so far, and what the receiver said.
    #[must_use]
    pub fn webhook_counters(&self) -> WebhookCounters {
        self.shared.state().webhooks
    }

    /// Waits until everything that changed so far was posted, and taken or given up.
    pub async fn all_posted(&self) {
        loop {
            let posted = self.shared.posted.notified();
            tokio::pin!(posted);
            // Listened for before it is asked, so no ring in between is missed.
            posted.as_mut().enable();
            if self.shared.state().all_posted() {
                return;
            }
            posted.await;
        }
    }

    /// When a record was last made or changed.
    #[must_use]
    pub fn last_change(&self) -> DateTime<Utc> {
        self.shared.state().world.last_change()
    }

    /// Nothing changes any more of itself once this returns, and no fault changes anything.
    pub fn stop_changing(&self) {
        self.shared.state().changing = false;
    }

    /// Closes: answers what is in flight, then returns.
    pub async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn by_hand<T>(&self, change: impl FnOnce(&mut World, &dyn Vendor, DateTime<Utc>) -> T) -> T {
        let done = {
            let mut state = self.shared.state();
            let now = self.shared.now();
            change(&mut state.world, self.shared.vendor.as_ref(), now)
        };
        self.shared.happened.notify_one();
        done
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl State {
    fn all_posted(&self) -> bool {
        self.posting == 0 && !self.world.has_happened()
    }
}

impl Shared {
    fn new(vendor: Box<dyn Vendor>, settings: Settings, address: SocketAddr) -> Self {
        let span = TimeDelta::from_std(settings.history_span).unwrap_or(TimeDelta::days(1));
        let now = (settings.now)();
        let world = World::begin(vendor.as_ref(), settings.seed, (settings.history, span), now);
        let state = State {
            world,
            tokens: Tokens::default(),
            faults: settings.faults,
            occasions: Occasions::default(),
            counters: Counters::default(),
            served: BTreeMap::new(),
            pages: Vec::new(),
            changing: true,
            webhooks: WebhookCounters::default(),
            posting: 0,
        };
        let (happened, posted, state) = (Notify::new(), Notify::new(), Mutex::new(state));
        Self { vendor, settings, address, happened, posted, state }
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        (self.settings.now)()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held cannot leave a record half made: each is put in whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One change per `pace`, until it is told to stop.
async fn change_all_the_time(shared: Arc<Shared>, pace: Duration, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(pace);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        {
            let mut state = shared.state();
            if !state.changing {
                return;
            }
            // Asked for under the lock: a page answered at a later `Date` holds this change.
            let now = shared.now();
            state.world.trade(shared.vendor.as_ref(), now);
        }
        shared.happened.notify_one();
    }
}
