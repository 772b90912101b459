//! Group commit: events that arrive while an insert is under way share the next one.
//!
//! There is no timer. A few committers take turns (two, as a rule: one waits for the disk while the next
//! batch gathers); whoever is free takes what waits, up to a number of rows and bytes. An event's caller is told
//! only after its commit. Where the database is away a batch is tried again for as long as one of its callers
//! waits; those who went away are dropped from it first. A batch that the database refuses is halved until
//! the culprit stands alone.
//!
//! Every event in here holds a place, counted in rows and bytes, from its arrival until its caller is told.

use std::collections::VecDeque;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zhilian_sync_store::webhook_events::{self, NewEvent, Received};
use zhilian_sync_store::{Store, StoreError};

use super::ring::Ringer;

/// The first wait after the database did not answer; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// A database that comes back is found within this.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// A full queue is searched for callers that went away, at most so often: the search takes time.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// What an event costs in memory besides its body and its request.
const OVERHEAD_BYTES: usize = 512;

/// What a caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It is a committed row, or was one before.
    Kept,
    /// Its system was changed meanwhile: nothing was kept, verify again.
    Stale,
    /// The quota of its system is used up: nothing was kept.
    Full,
    /// The database refuses it: nothing was kept.
    Refused,
    /// The database fails with it, for no reason of its own: nothing was kept.
    Failed,
}

/// How much may wait, and how much an insert takes.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "they are called as in the settings")]
pub(super) struct Limits {
    pub(super) rows_max: usize,
    pub(super) bytes_max: usize,
    pub(super) batch_rows_max: usize,
    pub(super) batch_bytes_max: usize,
}

/// Events that wait for their commit.
pub(super) struct CommitQueue {
    limits: Limits,
    rows: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    state: Mutex<State>,
    arrived: Notify,
    commits: AtomicU64,
}

struct State {
    waiting: VecDeque<(NewEvent, Caller)>,
    /// Nothing more is taken: the committers have ended.
    closed: bool,
    swept_at: Option<Instant>,
}

/// A place in a queue: as long as it is held, its rows and bytes are taken.
#[derive(Debug)]
pub(super) struct Place {
    _row: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// Who waits for an event.
struct Caller {
    answer: oneshot::Sender<Told>,
    /// After this nobody waits any more.
    until: Instant,
    _place: Place,
}

/// What one insert takes: events, and in the same order who waits for them.
pub(super) struct Batch {
    events: Vec<NewEvent>,
    callers: Vec<Caller>,
}

/// How much memory an event takes up while it waits: its body is there twice, in the request and in the row
/// to be.
pub(super) const fn cost(event: &NewEvent) -> usize {
    event.body.len().saturating_mul(2).saturating_add(event.request.len()).saturating_add(OVERHEAD_BYTES)
}

impl CommitQueue {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            rows: Arc::new(Semaphore::new(limits.rows_max.min(Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(limits.bytes_max.min(Semaphore::MAX_PERMITS))),
            state: Mutex::new(State { waiting: VecDeque::new(), closed: false, swept_at: None }),
            arrived: Notify::new(),
            commits: AtomicU64::new(0),
        })
    }

    /// Takes a place, or `None` where there is none.
    pub(super) fn enter(&self, bytes: usize) -> Option<Place> {
        self.try_enter(bytes).or_else(|| {
            self.forget_the_gone();
            self.try_enter(bytes)
        })
    }

    fn try_enter(&self, bytes: usize) -> Option<Place> {
        let bytes = u32::try_from(bytes).ok()?;
        let row = self.rows.clone().try_acquire_owned().ok()?;
        let bytes = self.bytes.clone().try_acquire_many_owned(bytes).ok()?;
        Some(Place { _row: row, _bytes: bytes })
    }

    /// Puts an event in; the answer is an error where nobody will commit it any more.
    pub(super) fn push(&self, event: NewEvent, place: Place, until: Instant) -> oneshot::Receiver<Told> {
        let (answer, told) = oneshot::channel();
        let mut state = self.lock();
        // After the end the sender is dropped here, which its caller hears.
        if !state.closed {
            state.waiting.push_back((event, Caller { answer, until, _place: place }));
            drop(state);
            self.arrived.notify_one();
        }
        told
    }

    /// The next batch; `None` once `stop` was asked for and nothing waits.
    pub(super) async fn next(&self, stop: &CancellationToken) -> Option<Batch> {
        loop {
            if let Some(batch) = self.take() {
                return Some(batch);
            }
            if stop.is_cancelled() {
                self.close();
                return self.take();
            }
            tokio::select! {
                () = self.arrived.notified() => {}
                () = stop.cancelled() => {}
            }
        }
    }

    fn take(&self) -> Option<Batch> {
        let mut state = self.lock();
        let most = state.waiting.len().min(self.limits.batch_rows_max);
        let mut batch = Batch { events: Vec::with_capacity(most), callers: Vec::with_capacity(most) };
        let mut bytes = 0;
        while let Some((event, caller)) = state.waiting.pop_front() {
            if caller.is_gone() {
                continue;
            }
            bytes += event.body.len() + event.request.len();
            let full = bytes > self.limits.batch_bytes_max || batch.len() >= self.limits.batch_rows_max;
            if full && !batch.is_empty() {
                state.waiting.push_front((event, caller));
                break;
            }
            batch.push(event, caller);
        }
        let more = !state.waiting.is_empty();
        drop(state);
        if more {
            // The wake-up of those that stay may have been ours.
            self.arrived.notify_one();
        }
        (!batch.is_empty()).then_some(batch)
    }

    fn close(&self) {
        self.lock().closed = true;
    }

    /// Frees the places of callers that no longer wait: while the database is away the queue would else be full
    /// of them.
    fn forget_the_gone(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.swept_at.is_some_and(|at| now.duration_since(at) < SWEEP_EVERY) {
            return;
        }
        state.swept_at = Some(now);
        state.waiting.retain(|(_, caller)| !caller.is_gone());
        tracing::warn!(
            waiting = state.waiting.len(),
            "as many webhooks wait as may wait; more are answered with 503"
        );
    }

    /// How many inserts have been committed.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// How many places are taken.
    pub(super) fn waiting(&self) -> usize {
        self.limits.rows_max.min(Semaphore::MAX_PERMITS) - self.rows.available_permits()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings a batch to its end: every caller is told, or has gone away. `told` hears of each event that was kept.
    pub(super) async fn settle(
        &self,
        store: &Store,
        batch: Batch,
        mut told: impl FnMut(&NewEvent, Received),
    ) {
        let mut pause = PAUSE_MIN;
        // A stack of parts: halves of a refused batch come one after the other.
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            part.forget_the_gone();
            let Some(until) = part.until() else { continue };
            match insert(store, &part.events, until).await {
                Ok(received) => {
                    self.commits.fetch_add(1, Ordering::Relaxed);
                    pause = PAUSE_MIN;
                    part.answer(received, &mut told);
                }
                Err(Trouble::Away(error)) => {
                    if pause == PAUSE_MIN {
                        tracing::warn!(error = %Shown(error), rows = part.len(), "webhooks cannot be kept; trying again while their callers wait");
                    }
                    parts.push(part);
                    tokio::time::sleep_until((Instant::now() + pause).min(until)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(Trouble::Refused(error)) if part.len() == 1 => {
                    tracing::error!(%error, event.id = %part.events[0].id, system.id = %part.events[0].system_id, "a webhook event cannot be kept");
                    let refused = matches!(error, StoreError::Refused(_));
                    part.tell_all(if refused { Told::Refused } else { Told::Failed });
                }
                Err(Trouble::Refused(_)) => {
                    let high = part.split_off(part.len() / 2);
                    parts.extend([high, part]);
                }
            }
        }
    }
}

/// Why an insert did not take place.
enum Trouble {
    /// It may go better in a moment; without an error it took too long.
    Away(Option<StoreError>),
    /// It will not go better with the same rows.
    Refused(StoreError),
}

/// An error that may be absent, for a log line.
struct Shown(Option<StoreError>);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(error) => error.fmt(f),
            None => f.write_str("the database did not answer before the callers' deadlines"),
        }
    }
}

/// One attempt, no longer than the most patient caller waits. A commit whose outcome is unknown is made
/// again: events are told apart by their fingerprints, so nothing is kept twice.
async fn insert(store: &Store, events: &[NewEvent], until: Instant) -> Result<Vec<Received>, Trouble> {
    match tokio::time::timeout_at(until, webhook_events::insert_batch(store, events)).await {
        Ok(Ok(received)) => Ok(received),
        Ok(Err(error @ (StoreError::Busy(_) | StoreError::CommitUnknown(_)))) => {
            Err(Trouble::Away(Some(error)))
        }
        // What is not known to pass may be one event's doing.
        Ok(Err(error)) => Err(Trouble::Refused(error)),
        Err(_elapsed) => Err(Trouble::Away(None)),
    }
}

impl Caller {
    fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }
}

impl Batch {
    pub(super) const fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn events(&self) -> &[NewEvent] {
        &self.events
    }

    fn push(&mut self, event: NewEvent, caller: Caller) {
        self.events.push(event);
        self.callers.push(caller);
    }

    /// When the most patient caller stops waiting.
    pub(super) fn until(&self) -> Option<Instant> {
        self.callers.iter().map(|caller| caller.until).max()
    }

    /// Drops the events of callers that went away: they were promised nothing.
    pub(super) fn forget_the_gone(&mut self) {
        if self.callers.iter().any(Caller::is_gone) {
            let mut gone = self.callers.iter().map(Caller::is_gone).collect::<Vec<_>>().into_iter();
            self.events.retain(|_| !gone.next().unwrap_or(false));
            self.callers.retain(|caller| !caller.is_gone());
        }
    }

    /// Tells those for whom `told` has an answer, and keeps the others.
    pub(super) fn turn_away(&mut self, mut told: impl FnMut(&NewEvent) -> Option<Told>) {
        let (events, callers) = (mem::take(&mut self.events), mem::take(&mut self.callers));
        for (event, caller) in events.into_iter().zip(callers) {
            match told(&event) {
                Some(answer) => drop(caller.answer.send(answer)),
                None => self.push(event, caller),
            }
        }
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self { events: self.events.split_off(at), callers: self.callers.split_off(at) }
    }

    fn tell_all(self, told: Told) {
        for caller in self.callers {
            let _ = caller.answer.send(told);
        }
    }

    fn answer(self, received: Vec<Received>, told: &mut impl FnMut(&NewEvent, Received)) {
        for ((event, caller), received) in self.events.iter().zip(self.callers).zip(received) {
            told(event, received);
            let answer = if received == Received::Stale { Told::Stale } else { Told::Kept };
            let _ = caller.answer.send(answer);
        }
    }
}

/// A committer of verified events, until `stop` is asked for and everything is told.
pub(super) async fn run(queue: Arc<CommitQueue>, store: Store, ringer: Ringer, stop: CancellationToken) {
    while let Some(batch) = queue.next(&stop).await {
        let mut ring = false;
        let settled = queue.settle(&store, batch, |_, received| {
            ring |= matches!(received, Received::New | Received::Duplicate { woken: true, .. });
        });
        if AssertUnwindSafe(settled).catch_unwind().await.is_err() {
            // The panic hook has logged it; the callers hear that nobody will answer them.
            tracing::error!("a batch of webhooks was lost to a panic; its callers were answered with 503");
        }
        if ring {
            ringer.ring();
        }
    }
}
