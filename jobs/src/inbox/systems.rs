//! What receiving needs to know of a system, kept in memory: its rules, its opened secrets, its version.
//!
//! An entry may be old. That is no danger, because the insert names the version that an event was judged by,
//! and a system that was changed meanwhile makes it stale; and it is no nuisance, because nobody is refused
//! by an entry that was read before the request came. Who asks for a newer reading shares it with whoever waits
//! for the same.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::{Store, StoreError, SystemId, SystemType};

use super::Rejected;
use crate::vendor::Vendors;
use crate::vendor::webhook::WebhookSpec;

/// Systems that are read at a time; the others wait for their turn. A flood of addresses that name nothing
/// must leave the database's connections to those who commit.
const READS_AT_A_TIME: usize = 8;

/// The systems that have been asked for.
pub(super) struct Systems {
    store: Store,
    vendors: Vendors,
    max: usize,
    known: RwLock<HashMap<SystemId, Arc<Known>>>,
    /// One system always has the same turn, so readings of it are shared.
    turns: [Mutex<()>; READS_AT_A_TIME],
}

/// One version of a system.
pub(super) struct Known {
    pub(super) id: SystemId,
    pub(super) system_type: SystemType,
    pub(super) version: i64,
    pub(super) spec: Arc<WebhookSpec>,
    /// Where the vendor posts to, as it was told; part of some signatures.
    pub(super) webhook_url: Option<String>,
    /// An admin gave up verification.
    pub(super) waived: bool,
    /// When it was asked for: whatever was changed before is in here.
    pub(super) read_at: Instant,
    secrets: BTreeMap<String, SecretString>,
    expiries: BTreeMap<String, DateTime<Utc>>,
}

impl Known {
    /// The secrets that count at this time: one whose overlap is over does not, however long it is cached.
    pub(super) fn secrets_at(&self, now: DateTime<Utc>) -> Cow<'_, BTreeMap<String, SecretString>> {
        if self.expiries.values().all(|expires| *expires >= now) {
            return Cow::Borrowed(&self.secrets);
        }
        let counts = |name: &String| self.expiries.get(name).is_none_or(|expires| *expires >= now);
        Cow::Owned(
            self.secrets
                .iter()
                .filter(|(name, _)| counts(name))
                .map(|(name, secret)| (name.clone(), secret.clone()))
                .collect(),
        )
    }
}

impl Systems {
    pub(super) fn new(store: Store, vendors: Vendors, max: usize) -> Self {
        Self {
            store,
            vendors,
            max,
            known: RwLock::default(),
            turns: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// What is known already, however old.
    pub(super) fn cached(&self, id: SystemId) -> Option<Arc<Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// What was in the database at `asked` or later.
    pub(super) async fn read_since(&self, id: SystemId, asked: Instant) -> Result<Arc<Known>, Rejected> {
        let turn = usize::from(id.0.as_bytes()[15]) % READS_AT_A_TIME;
        let _turn = self.turns[turn].lock().await;
        if let Some(known) = self.cached(id).filter(|known| known.read_at >= asked) {
            return Ok(known);
        }
        let read_at = Instant::now();
        let row = match external_systems::find(&self.store, id).await {
            Ok(row) => row,
            Err(error @ (StoreError::Corrupt { .. } | StoreError::Vault(_))) => {
                tracing::error!(%error, system.id = %id, "the system of a webhook cannot be read");
                return Err(Rejected::Misconfigured);
            }
            Err(error) => {
                tracing::warn!(%error, "the database does not answer; webhooks are answered with 503");
                return Err(Rejected::Busy);
            }
        };
        let Some(row) = row else {
            self.known.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
            return Err(Rejected::Unknown);
        };
        let known = Arc::new(understand(&self.store, &self.vendors, row, read_at)?);
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= self.max && !all.contains_key(&id) {
            // Each is quickly read again.
            all.clear();
        }
        all.insert(id, known.clone());
        Ok(known)
    }
}

/// Opens and resolves what a row says. What is wrong with it is logged here, for whoever mends it.
pub(super) fn understand(
    store: &Store,
    vendors: &Vendors,
    row: ExternalSystem,
    read_at: Instant,
) -> Result<Known, Rejected> {
    let secrets = external_systems::webhook_secrets(store, &row).map_err(|error| {
        tracing::error!(%error, system.id = %row.id, system.name = %row.name, "the webhook secrets of a system do not open");
        Rejected::Misconfigured
    })?;
    let manifest = vendors.catalog().resolve(&row.provider, &row.config).map_err(|errors| {
        tracing::error!(%errors, system.id = %row.id, system.name = %row.name, "the settings of a system have mistakes; its webhooks are answered with 503");
        Rejected::Misconfigured
    })?;
    let (_, spec) = vendors.catalog().webhook_of(&manifest);
    Ok(Known {
        id: row.id,
        system_type: row.system_type,
        version: row.version,
        spec,
        webhook_url: row.webhook_url,
        waived: row.webhook_verification == "none",
        read_at,
        secrets,
        expiries: row.webhook_secret_expiries.0,
    })
}
