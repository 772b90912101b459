//! What could not be verified: kept, within quotas, by a committer of its own, so that a flood of it delays
//! nobody. Nothing is thrown out to make room: what does not fit is refused, and was never promised.
//!
//! One task does all of it, so within a process the quotas are exact. Another process's rows are seen within a
//! second.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zhilian_sync_store::webhook_events::{self, NewEvent, Received, Usage};
use zhilian_sync_store::{Store, StoreError, SystemId};

use super::commit::{Batch, CommitQueue, Told};
use crate::settings::WebhookSettings;

/// A system's usage is counted again after this.
const COUNT_AGAIN: Duration = Duration::from_secs(1);
/// The usage of all systems is counted again after this: it takes longer.
const COUNT_ALL_AGAIN: Duration = Duration::from_secs(10);
/// Usages remembered at a time.
const SYSTEMS_MAX: usize = 10_000;
/// The wait before the database is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Notes that events have left the quarantine, so that their room is found at once.
#[derive(Debug, Default)]
pub(super) struct Freed(AtomicU64);

impl Freed {
    pub(super) fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is kept, and what may be.
pub(super) struct Keeper {
    store: Store,
    of_system: Usage,
    of_all: Usage,
    freed: Arc<Freed>,
    freed_seen: u64,
    systems: HashMap<SystemId, Counted>,
    total: Option<Counted>,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    usage: Usage,
    at: Instant,
}

impl Keeper {
    pub(super) fn new(store: Store, settings: &WebhookSettings, freed: Arc<Freed>) -> Self {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Self {
            store,
            of_system: Usage {
                events: settings.quarantine_events_max.into(),
                bytes: bytes(settings.quarantine_bytes_max),
            },
            of_all: Usage {
                events: settings.quarantine_events_total_max.into(),
                bytes: bytes(settings.quarantine_bytes_total_max),
            },
            freed,
            freed_seen: 0,
            systems: HashMap::new(),
            total: None,
        }
    }

    /// Tells those that do not fit any more. While the database cannot say what is kept, callers wait.
    async fn turn_away(&mut self, batch: &mut Batch) {
        loop {
            batch.forget_the_gone();
            let Some(until) = batch.until() else { return };
            match tokio::time::timeout_at(until, self.count(batch.events())).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tracing::warn!(%error, "cannot count what is in quarantine; trying again"),
                Err(_elapsed) => {}
            }
            tokio::time::sleep_until((Instant::now() + PAUSE).min(until)).await;
        }
        let mut planned: HashMap<SystemId, Usage> = HashMap::new();
        let mut planned_total = self.total.map_or(NOTHING, |counted| counted.usage);
        let mut seen = HashSet::new();
        batch.turn_away(|event| {
            if !seen.insert(event.fingerprint.clone()) {
                // Twice in one batch is one row.
                return None;
            }
            let kept = || self.systems.get(&event.system_id).map_or(NOTHING, |counted| counted.usage);
            let planned = planned.entry(event.system_id).or_insert_with(kept);
            let (of_system, of_all) = (with(*planned, event), with(planned_total, event));
            if !fits(of_system, self.of_system) || !fits(of_all, self.of_all) {
                return Some(Told::Full);
            }
            (*planned, planned_total) = (of_system, of_all);
            None
        });
    }

    /// Counts what is kept of the events' systems and in all, where the last count is too old.
    async fn count(&mut self, events: &[NewEvent]) -> Result<(), StoreError> {
        let freed = self.freed.0.load(Ordering::Relaxed);
        if freed != self.freed_seen || self.systems.len() > SYSTEMS_MAX {
            self.freed_seen = freed;
            self.systems.clear();
            self.total = None;
        }
        let now = Instant::now();
        let systems: HashSet<SystemId> = events.iter().map(|event| event.system_id).collect();
        for system in systems {
            if self.systems.get(&system).is_none_or(|counted| now.duration_since(counted.at) > COUNT_AGAIN) {
                let usage = webhook_events::quarantine_usage(&self.store, system).await?;
                self.systems.insert(system, Counted { usage, at: now });
            }
        }
        if self.total.is_none_or(|counted| now.duration_since(counted.at) > COUNT_ALL_AGAIN) {
            let usage = webhook_events::quarantine_usage_total(&self.store).await?;
            self.total = Some(Counted { usage, at: now });
        }
        Ok(())
    }

    /// Adds what has just been kept.
    fn add(&mut self, event: &NewEvent) {
        if let Some(counted) = self.systems.get_mut(&event.system_id) {
            counted.usage = with(counted.usage, event);
        }
        if let Some(counted) = &mut self.total {
            counted.usage = with(counted.usage, event);
        }
    }
}

const NOTHING: Usage = Usage { events: 0, bytes: 0 };

fn with(usage: Usage, event: &NewEvent) -> Usage {
    let bytes = i64::try_from(event.body.len()).unwrap_or(i64::MAX);
    Usage { events: usage.events.saturating_add(1), bytes: usage.bytes.saturating_add(bytes) }
}

const fn fits(usage: Usage, most: Usage) -> bool {
    usage.events <= most.events && usage.bytes <= most.bytes
}

/// The committer of unverified events, until `stop` is asked for and everything is told.
pub(super) async fn run(queue: Arc<CommitQueue>, mut keeper: Keeper, stop: CancellationToken) {
    while let Some((mut batch, _under_way)) = queue.next(&stop).await {
        let kept = async {
            keeper.turn_away(&mut batch).await;
            let store = keeper.store.clone();
            queue
                .settle(&store, batch, |event, received| {
                    if received == Received::New {
                        keeper.add(event);
                    }
                })
                .await;
        };
        if AssertUnwindSafe(kept).catch_unwind().await.is_err() {
            // The panic hook has logged it; the callers hear that nobody will answer them.
            tracing::error!(
                "a batch of unverified webhooks was lost to a panic; its callers were answered with 503"
            );
        }
    }
}
