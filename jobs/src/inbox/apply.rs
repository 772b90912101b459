//! The applying half of the inbox: from a ring to records.
//!
//! ```text
//! claim a batch ─▶ plan each event ─▶ write, fenced ──────────────────▶ the next batch, until none is due
//!  (transaction 1)  (outside, pure)    (transaction 2)  ▲
//!                        │ thin events                  │
//!                        └────▶ ask the vendor ─────────┘
//! ```
//!
//! A batch that the database refuses, or on which the program stumbles, is taken apart until the culprit
//! stands alone; it fails with the reason, waits longer each time, and is dead when it is out of attempts.
//! What may mend itself with time is waited for longer: `failed` in `write` has the table.
//! What is left undone (the process dies, the database is away for long) is left to its lease, after which
//! each event is claimed alone: one that kills its worker takes nobody along.

use std::collections::{BTreeSet, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zhilian_sync_store::webhook_events::{self, WebhookEvent};
use zhilian_sync_store::{RunId, StoreError};

use super::fetching::{self, Thin};
use super::planning::{self, Claimed, Fault, Planned};
use super::targets::Targets;
use super::write;
use crate::context::Context;
use crate::outcome::{Action, JobError};

/// How long between the tries to write while the database is away; then the events are left to their lease.
const WRITE_DELAYS_MS: [u64; 6] = [50, 200, 1_000, 3_000, 5_000, 10_000];
/// Which part of the lease vendors may be waited for: the rest is for writing what they said.
const FETCHING_SHARE: (u32, u32) = (2, 3);
/// So many minute logs are remembered as told to live clients; then all are forgotten, and told once more.
const TOLD_MAX: usize = 10_000;

/// What the workers of one process share.
pub struct Applying {
    pub(super) targets: Targets,
    /// How many workers may wait for vendors at a time.
    pub(super) places: Semaphore,
    told: Mutex<HashSet<RunId>>,
}

impl Applying {
    /// For a process with so many workers in the lane.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            targets: Targets::default(),
            // The others are for events that nobody has to be asked about.
            places: Semaphore::new((workers / 2).max(1)),
            told: Mutex::default(),
        }
    }

    /// Whether live clients have not heard of this minute log from this process.
    pub(super) fn is_news(&self, log: RunId) -> bool {
        !self.told().contains(&log)
    }

    pub(super) fn tell(&self, logs: Vec<RunId>) {
        let mut told = self.told();
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.extend(logs);
    }

    fn told(&self) -> std::sync::MutexGuard<'_, HashSet<RunId>> {
        // A set that a panic left is a whole set.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers a ring of the lane `hooks`: applies what is due until nothing is, the turn is over or the process
/// stops. How many events were claimed.
pub async fn work(ctx: &Context, stop: &CancellationToken) -> usize {
    let turn_until = Instant::now() + Duration::from_secs(ctx.engine.turn_secs);
    let mut claimed = 0;
    while !stop.is_cancelled() {
        // By this process's own clock the claim holds from before it was asked for.
        let lease_until = Instant::now() + Duration::from_secs(ctx.engine.lease_secs);
        let events = match claim(ctx).await {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(%error, "could not claim webhook events; the scheduler rings again");
                break;
            }
        };
        if events.is_empty() {
            break;
        }
        claimed += events.len();
        let turn_over = Instant::now() >= turn_until;
        let more = turn_over || events.len() >= ctx.webhooks.apply_batch as usize;
        tokio::join!(call_colleague(ctx, more), apply(ctx, stop, lease_until, events));
        if turn_over {
            break;
        }
    }
    claimed
}

/// There may be more than one worker can take; a colleague finds out.
async fn call_colleague(ctx: &Context, more: bool) {
    if more && let Err(error) = super::ring_hooks(ctx).await {
        tracing::debug!(%error, "could not ring for a colleague; the scheduler rings");
    }
}

async fn claim(ctx: &Context) -> Result<Vec<WebhookEvent>, StoreError> {
    let now = ctx.clock().now();
    let limit = i64::from(ctx.webhooks.apply_batch.max(1));
    webhook_events::claim_batch(&ctx.store, &ctx.worker, now + ctx.lease(), now, limit).await
}

/// Applies claimed events; whatever happens ends on their rows, or leaves them to their lease.
async fn apply(ctx: &Context, stop: &CancellationToken, lease_until: Instant, events: Vec<WebhookEvent>) {
    let systems: BTreeSet<_> = events.iter().map(|event| event.system_id).collect();
    let mut targets = match ctx.applying.targets.of(ctx, systems).await {
        Ok(targets) => targets,
        Err(error) => return left_to_lease(&error, events.len()),
    };
    let known = |event: WebhookEvent| {
        let target = targets.get(&event.system_id).cloned()?;
        Some(Claimed { event, target, answer: None })
    };
    let claimed: Vec<Claimed> = events.into_iter().filter_map(known).collect();
    targets.clear();
    // Events that failed before are more likely to fail again: they do not take fresh ones apart.
    let (fresh, tried): (Vec<usize>, Vec<usize>) =
        (0..claimed.len()).partition(|at| claimed[*at].event.attempt <= 1);
    let claimed = Arc::new(claimed);
    let mut thin = settle(ctx, &claimed, fresh).await;
    thin.extend(settle(ctx, &claimed, tried).await);
    if thin.is_empty() {
        return;
    }
    let (parts, whole) = FETCHING_SHARE;
    let deadline = lease_until - Duration::from_secs(ctx.engine.lease_secs) * (whole - parts) / whole;
    let answers = fetching::fetch(ctx, stop, deadline, thin).await;
    // Every group of events has been settled, so nobody else holds them.
    let Ok(claimed) = Arc::try_unwrap(claimed).inspect_err(|_| {
        tracing::error!(
            "claimed events are still planned after they were settled; they are left to their lease"
        );
    }) else {
        return;
    };
    let mut claimed: Vec<Option<Claimed>> = claimed.into_iter().map(Some).collect();
    let answered: Vec<Claimed> = answers
        .into_iter()
        .filter_map(|(at, answer)| {
            claimed[at].take().map(|claimed| Claimed { answer: Some(answer), ..claimed })
        })
        .collect();
    let all = (0..answered.len()).collect();
    settle(ctx, &Arc::new(answered), all).await;
}

/// Plans and writes some of the claimed events. Gives back those whose vendor has to be asked first.
async fn settle(ctx: &Context, claimed: &Arc<Vec<Claimed>>, which: Vec<usize>) -> Vec<Thin> {
    let mut thin = Vec::new();
    let mut waiting = vec![which];
    while let Some(group) = waiting.pop().filter(|group| !group.is_empty()) {
        match settle_patiently(ctx, claimed, &group).await {
            Ok(found) => thin.extend(found),
            Err(Trouble::Left(error)) => left_to_lease(&error, group.len()),
            Err(Trouble::With(fault)) => {
                if let [culprit] = *group {
                    fail(ctx, claimed, culprit, fault).await;
                } else {
                    // A stack whose top is the first half: they are tried in the order they came.
                    let (first, second) = group.split_at(group.len() / 2);
                    waiting.extend([second.to_vec(), first.to_vec()]);
                }
            }
        }
    }
    thin
}

/// Why a group of events could not be written.
enum Trouble {
    /// Nothing is wrong with them; they are left to their lease.
    Left(JobError),
    /// One of them is to blame.
    With(Fault),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        let busy = error.is_busy();
        let error = JobError::from(error);
        if busy || error.action == Action::Lost {
            return Self::Left(error);
        }
        // A retry may help: what the database refuses now may be mended, and a replay needs no other words.
        Self::With(Fault { action: Action::Retry { after: None }, ..Fault::from(error) })
    }
}

/// Tries until the database answers, as long as that may be within the lease.
async fn settle_patiently(
    ctx: &Context,
    claimed: &Arc<Vec<Claimed>>,
    group: &[usize],
) -> Result<Vec<Thin>, Trouble> {
    let mut delays = WRITE_DELAYS_MS.iter();
    loop {
        let settling = AssertUnwindSafe(Box::pin(settle_once(ctx, claimed, group))).catch_unwind();
        match settling.await {
            Ok(Err(Trouble::Left(error))) if error.code == "database_unavailable" => {
                let Some(delay) = delays.next() else {
                    return Err(Trouble::Left(error));
                };
                tracing::debug!(%error, "could not write webhook events yet");
                tokio::time::sleep_until(Instant::now() + Duration::from_millis(*delay)).await;
            }
            Ok(settled) => return settled,
            Err(_panic) => {
                tracing::error!("writing webhook events panicked: this is a mistake in the program");
                return Err(Trouble::With(planning::panicked()));
            }
        }
    }
}

/// Plans a group anew and writes it. Up to four transactions: within each, rows are locked in the order of
/// their keys, and changes of records that the same transaction has written would break that order. So would
/// the runs of pulls: a page of a pull holds its run before its records.
async fn settle_once(
    ctx: &Context,
    claimed: &Arc<Vec<Claimed>>,
    group: &[usize],
) -> Result<Vec<Thin>, Trouble> {
    let attempts_max = i64::from(ctx.webhooks.attempts_max.max(1));
    let planned = planning::plan(claimed, group, attempts_max).await.map_err(Trouble::Left)?;
    let (mut plain, mut forced, mut patches) = (Vec::new(), Vec::new(), Vec::new());
    let (mut pulls, mut thin) = (Vec::new(), Vec::new());
    for (at, planned) in planned {
        let Claimed { event, target, .. } = &claimed[at];
        match (planned, target) {
            (Planned::Fetch { stream, event: named }, Ok(target)) => {
                let (target, attempt) = (Arc::clone(target), event.attempt);
                thin.push(Thin { at, target, stream, event: named, attempt });
            }
            (planned @ Planned::Records { .. }, _) if event.forced => forced.push((at, planned)),
            (planned @ Planned::Patches(_), _) => patches.push((at, planned)),
            (planned @ Planned::Pull { .. }, _) => pulls.push((at, planned)),
            (planned, _) => plain.push((at, planned)),
        }
    }
    for part in [plain, forced, patches, pulls] {
        if part.is_empty() {
            continue;
        }
        if let Some(fault) = write::write(ctx, claimed, part).await? {
            return Err(Trouble::With(fault));
        }
    }
    Ok(thin)
}

/// Writes on one event that it failed, and why.
async fn fail(ctx: &Context, claimed: &[Claimed], culprit: usize, fault: Fault) {
    if let Err(error) = write::write(ctx, claimed, vec![(culprit, Planned::Failed(fault))]).await {
        left_to_lease(&JobError::from(error), 1);
    }
}

fn left_to_lease(error: &(dyn std::error::Error + Send + Sync), events: usize) {
    tracing::warn!(%error, events, "webhook events are left to their lease and taken up again after it");
}
