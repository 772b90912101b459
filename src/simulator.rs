//! A vendor to sync with where there is none: a till on loopback that makes sales all the time.
//!
//! It changes and refunds some of them later, pages its list, and misbehaves now and then. It keeps
//! its own exact ledger, so that whoever pulled from it can be checked against the truth.
//!
//! It stands outside the flow, where a vendor stands, and shares no code with the client that calls
//! it: a mistake made on both sides alike would cancel itself out. The wire is what a plain POS
//! vendor speaks; `config/vendors/demo-pos.toml` describes it from the other side.
//!
//! ```text
//! GET /v1/ping                                                 {"code":0,"data":{"shop_name":"…"}}
//! GET /v1/sales?updated_since=&updated_before=&page=&page_size=   X-Api-Key, else 401
//!     {"code":0,"message":"ok","data":{"items":[…],"page":1,"pages":7}}
//! ```
//!
//! The window is `[updated_since, updated_before)` on `updated_at`; items are ordered by `sale_id`,
//! not by time, so a sale that changes while the list is read leaves it and moves the others up.

mod endpoints;
mod faults;
#[cfg(feature = "testing")]
pub mod scripted;
mod shop;
mod webhooks;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use poem::listener::TcpAcceptor;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zhilian_sync_store::Clock;

pub use self::faults::{Counters, Every, FaultPlan};
use self::shop::Shop;
pub use self::shop::{LedgerEntry, SaleKind};
pub use self::webhooks::{WebhookCounters, WebhookPlan, WebhookTarget};

/// How long an answer in flight may take when the simulator ends.
const DRAIN: Duration = Duration::from_secs(1);

/// What a simulated shop is like.
#[derive(Debug, Clone)]
pub struct SimulatorSettings {
    /// Told by `/v1/ping`.
    pub shop_name: String,
    /// The vendor's own id of the shop, told with every sale.
    pub shop_id: String,
    /// What `X-Api-Key` must say.
    pub api_key: SecretString,
    /// Decides every sale: the same seed makes the same sales.
    pub seed: u64,
    /// The time between two events at the till; `None` sells only by hand.
    pub pace: Option<Duration>,
    /// Sales made before the start.
    pub history: u32,
    /// How far before the start the first of them was made.
    pub history_span: Duration,
    /// How it misbehaves.
    pub faults: FaultPlan,
}

/// A running simulated vendor. Dropping it ends it.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    till: Arc<Till>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What the endpoints and the selling share.
#[derive(Debug)]
struct Till {
    settings: SimulatorSettings,
    clock: Clock,
    state: Mutex<State>,
}

/// One lock over sales and counters: a page is of one moment, and so is its `Date`.
#[derive(Debug)]
struct State {
    shop: Shop,
    open: bool,
    counters: Counters,
    listing: faults::Listing,
    webhooks: WebhookCounters,
    all_posted: bool,
}

impl Simulator {
    /// Opens the shop on a free port of 127.0.0.1.
    pub async fn start(settings: SimulatorSettings, clock: Clock) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shop = Shop::open(&settings, clock.now());
        let state = State {
            shop,
            open: true,
            counters: Counters::default(),
            listing: faults::Listing::default(),
            webhooks: WebhookCounters::default(),
            all_posted: true,
        };
        let till = Arc::new(Till { settings, clock, state: Mutex::new(state) });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());

        let server = poem::Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?);
        let stopped = stop.clone().cancelled_owned();
        let endpoints = endpoints::routes(Arc::clone(&till));
        tasks.spawn(async move {
            if let Err(error) = server.run_with_graceful_shutdown(endpoints, stopped, Some(DRAIN)).await {
                tracing::error!(%error, "the vendor simulator ended");
            }
        });
        if let Some(pace) = till.settings.pace {
            tasks.spawn(sell_all_the_time(Arc::clone(&till), pace, stop.clone()));
        }
        Ok(Self { address, till, stop, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint to configure, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The key it asks for.
    #[must_use]
    pub fn api_key(&self) -> &SecretString {
        &self.till.settings.api_key
    }

    /// The name it goes by.
    #[must_use]
    pub fn shop_name(&self) -> &str {
        &self.till.settings.shop_name
    }

    /// The truth: every sale as it is now, by id.
    #[must_use]
    pub fn ledger(&self) -> BTreeMap<String, LedgerEntry> {
        self.till.state().shop.ledger()
    }

    /// What was served and injected so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.till.state().counters
    }

    /// From now on posts what happens at the till, until the shop closes and everything is posted.
    pub fn post_webhooks(&self, target: WebhookTarget) {
        let mut state = self.till.state();
        state.shop.keep_what_happens();
        state.all_posted = false;
        drop(state);
        let posting = webhooks::post_all_the_time(Arc::clone(&self.till), target, self.stop.clone());
        self.tasks.spawn(posting);
    }

    /// What was posted so far, and what the receiver said.
    #[must_use]
    pub fn webhook_counters(&self) -> WebhookCounters {
        self.till.state().webhooks
    }

    /// Whether the shop has closed and the last of its webhooks was taken or given up, or none are asked
    /// for.
    #[must_use]
    pub fn all_posted(&self) -> bool {
        self.till.state().all_posted
    }

    /// When a sale was last made or changed.
    #[must_use]
    pub fn last_change(&self) -> DateTime<Utc> {
        self.till.state().shop.last_change()
    }

    /// Nothing changes any more once this returns; the list can still be read.
    pub fn stop_selling(&self) {
        self.till.state().open = false;
    }

    /// Makes one sale and returns its id.
    pub fn sell(&self) -> String {
        let now = self.till.clock.now();
        self.till.state().shop.sell(now)
    }

    /// Lowers the total of a sale by a later discount; false if there is no such sale.
    pub fn correct(&self, sale_id: &str) -> bool {
        let now = self.till.clock.now();
        self.till.state().shop.correct(sale_id, now)
    }

    /// Makes the sale one that never happened; false if there is no such sale.
    pub fn void(&self, sale_id: &str) -> bool {
        let now = self.till.clock.now();
        self.till.state().shop.void(sale_id, now)
    }

    /// Pays a sale back and returns the id of the refund, which is a record of its own.
    pub fn refund(&self, sale_id: &str) -> Option<String> {
        let now = self.till.clock.now();
        self.till.state().shop.refund(sale_id, now)
    }

    /// Closes: answers what is in flight, then returns.
    pub async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Till {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held cannot leave a sale half made: each is put in whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One event at the till per `pace`, until the shop closes.
async fn sell_all_the_time(till: Arc<Till>, pace: Duration, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(pace);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let mut state = till.state();
        if !state.open {
            return;
        }
        // Asked for under the lock: a page answered at a later `Date` holds this event.
        let now = till.clock.now();
        state.shop.trade(now);
    }
}
