//! The inbox: where webhooks are verified, kept and answered, and later applied.
//!
//! *In*: [`Inbox::receive`] finds the system (`systems`), verifies the raw bytes, and waits for the commit
//! that its event shares with others (`commit`); what cannot be verified goes another way, with allowances
//! for each address and quotas for each system (`addresses`, `quarantine`). After a commit the lane `hooks` is rung
//! (`ring`). *Out*: a worker hears it and applies what is due ([`apply`]). *Mending*: [`Inbox::reverify`] and
//! [`Inbox::release`].
//!
//! The promise: a vendor is told "accepted" only after its event is a committed row. Everything that waits is
//! counted, in rows and in bytes, and nobody waits for longer than its vendor would.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use zhilian_sync_store::{SystemId, SystemType};

use crate::context::Context;
use crate::queue::QueueError;
use crate::settings::WebhookSettings;

mod addresses;
mod commit;
mod quarantine;
mod receive;
mod reverify;
mod ring;
mod systems;

pub mod apply;
mod fetching;
mod planning;
mod records;
mod targets;
mod write;

pub use addresses::whole as whole_address;
pub use reverify::{Asker, Released, Reverified};

use addresses::Addresses;
use commit::{CommitQueue, Limits};
use ring::Ringer;
use systems::Systems;

/// Connections that receiving has besides those of its committers: for quarantine and systems.
const CONNECTIONS_BESIDE: u32 = 4;

/// A row that is held for longer than this is done without: vendors wait.
const HELD_ROWS: Duration = Duration::from_millis(100);

/// Receives webhooks. One per process that answers requests; cheap to clone.
#[derive(Clone)]
pub struct Inbox(Arc<Inner>);

struct Inner {
    ctx: Context,
    settings: WebhookSettings,
    systems: Systems,
    verified: Arc<CommitQueue>,
    unverified: Arc<CommitQueue>,
    quota: Arc<quarantine::Freed>,
    addresses: Addresses,
    ringer: Ringer,
}

/// A request that a vendor made, as it came.
#[derive(Debug, Clone)]
pub struct Call {
    /// The system that the path names.
    pub system: SystemId,
    /// The type that the path names.
    pub system_type: SystemType,
    /// In capitals.
    pub method: String,
    /// As it was asked for, from the first `/` on, without the query.
    pub path: String,
    /// As it was sent, without `?`; empty for none. It may hold a secret.
    pub query: String,
    /// Names in small letters.
    pub headers: HeaderMap,
    /// The bytes that a signature is made over.
    pub body: Bytes,
    /// Where it came from.
    pub address: IpAddr,
    /// The origin that vendors know this service by, as `https://sync.example.com`; empty for none.
    pub public_url: Arc<str>,
}

/// Why a request gets no reply in its vendor's own words: they are not known yet, or there are none for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// There is no such system, or it is deleted.
    #[error("no system has this address")]
    Unknown,
    /// The path names another type than the system has.
    #[error("the system is of another type than the path says")]
    WrongType,
    /// The vendor knows no handshake that is made like this.
    #[error("events are posted; nothing else is expected here")]
    Method,
    /// The database does not answer, or more waits than may wait. Nothing is promised to be kept.
    #[error("the service is overloaded")]
    Busy,
    /// The address has sent too much that could not be verified.
    #[error("too many requests from this address could not be verified")]
    TooMany,
    /// The system's settings or secrets cannot be read; the log says why.
    #[error("the system's settings have mistakes")]
    Misconfigured,
    /// The database refuses this event and takes others.
    #[error("the event cannot be stored")]
    NotStorable,
}

impl Inbox {
    /// Starts the tasks that commit and ring. After `stop` what waits is still committed and nothing new is
    /// taken: cancel it when the last request is answered.
    #[must_use]
    pub fn start(ctx: &Context, settings: &WebhookSettings, stop: CancellationToken) -> Self {
        let connections = u32::try_from(settings.commits_in_flight).unwrap_or(1) + CONNECTIONS_BESIDE;
        // Of its own, so that what people look up never stands before what vendors wait for.
        let store = ctx.store.apart(connections, HELD_ROWS);
        let (verified, repeated) = CommitQueue::new(Limits {
            rows_max: settings.queue_rows_max,
            bytes_max: settings.queue_bytes_max,
            batch_rows_max: settings.batch_rows_max,
            batch_bytes_max: settings.batch_bytes_max,
            long: commit::LONG_COMMIT,
        });
        let (unverified, repeated_unverified) = CommitQueue::new(Limits {
            rows_max: settings.quarantine_queue_rows_max,
            bytes_max: settings.quarantine_queue_bytes_max,
            batch_rows_max: settings.batch_rows_max,
            batch_bytes_max: settings.batch_bytes_max,
            long: commit::LONG_COMMIT,
        });
        let ringer = Ringer::start(ctx.queue.clone(), ctx.clock().clone(), stop.clone());
        let quota = Arc::<quarantine::Freed>::default();
        for _ in 0..settings.commits_in_flight.max(1) {
            tokio::spawn(commit::run(verified.clone(), store.clone(), ringer.clone(), stop.clone()));
        }
        for counting in [repeated, repeated_unverified] {
            // With the others' connections and patience: nobody waits for it.
            tokio::spawn(commit::count(counting, ctx.store.clone(), ringer.clone(), stop.clone()));
        }
        let keeper = quarantine::Keeper::new(store.clone(), settings, quota.clone());
        tokio::spawn(quarantine::run(unverified.clone(), keeper, stop));
        let systems = Systems::new(store, ctx.vendors.clone(), settings.systems_cached_max);
        Self(Arc::new(Inner {
            ctx: ctx.clone(),
            settings: settings.clone(),
            systems,
            verified,
            unverified,
            quota,
            addresses: Addresses::new(settings),
            ringer,
        }))
    }

    /// How many inserts have been committed: far fewer than events, when many come at a time.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.0.verified.commits()
    }

    /// How many verified events wait for their commit.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.verified.waiting()
    }

    /// Asks for a ring of the lane `hooks`, which somebody else waits for.
    pub fn ring(&self) {
        self.0.ringer.ring();
    }
}

/// Has a worker look into the inbox, unless enough messages say so already.
pub(crate) async fn ring_hooks(ctx: &Context) -> Result<(), QueueError> {
    ring::ring(&ctx.queue, ctx.clock()).await
}
