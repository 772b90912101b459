//! Group commit: events that arrive while an insert is under way share the next one.
//!
//! Nobody waits for a timer. A lone event is committed at once; while a commit is under way, what arrives gathers
//! for the next. Another commit joins one that is under way only where it is worth it: when many wait, or
//! when that one takes long, since a commit costs the database much the same for one row as for fifty.
//! An event's caller is told only after its commit. Where the database is away a batch is tried again for as
//! long as one of its callers waits; those who went away are dropped from it first. A batch that the database
//! refuses is halved until the culprit stands alone.
//!
//! Every event in here holds a place, counted in rows and bytes, from its arrival until its caller is told.

use std::collections::VecDeque;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zhilian_sync_store::webhook_events::{self, NewEvent, Receipt, Received, Uncounted};
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

/// So many events that wait are worth a commit of their own beside the one under way. Half as many, and two
/// commits cost a machine with few cores more than one after the other; docs/performance.md has the figures.
const WORTH_A_COMMIT: usize = 64;
/// A commit that takes longer is not waited for: the disk is slow, or somebody is in its way.
pub(super) const LONG_COMMIT: Duration = Duration::from_millis(10);
/// Batches whose repetitions are to be counted, at a time; more are not counted.
const UNCOUNTED_MAX: usize = 256;
/// So many events are counted in one statement, and those of one batch more.
const COUNTED_AT_A_TIME: usize = 1_000;

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
pub(super) struct Limits {
    pub(super) rows_max: usize,
    pub(super) bytes_max: usize,
    pub(super) batch_rows_max: usize,
    pub(super) batch_bytes_max: usize,
    /// After this the commit under way is not waited for.
    pub(super) long: Duration,
}

/// Events that wait for their commit.
pub(super) struct CommitQueue {
    limits: Limits,
    rows: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    state: Mutex<State>,
    arrived: Notify,
    commits: AtomicU64,
    uncounted: mpsc::Sender<Uncounted>,
}

struct State {
    waiting: VecDeque<(NewEvent, Caller)>,
    /// Batches that were taken and are not settled.
    under_way: usize,
    /// When the last of them was taken.
    began_at: Instant,
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

/// A batch on its way: as long as it is held, its commit counts as under way.
pub(super) struct UnderWay(Arc<CommitQueue>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way -= 1;
        let more = !state.waiting.is_empty();
        drop(state);
        if more {
            self.0.arrived.notify_one();
        }
    }
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
    /// A queue, and what its repetitions are told to: [`count`] counts them.
    pub(super) fn new(limits: Limits) -> (Arc<Self>, mpsc::Receiver<Uncounted>) {
        let (uncounted, counting) = mpsc::channel(UNCOUNTED_MAX);
        let queue = Arc::new(Self {
            limits,
            rows: Arc::new(Semaphore::new(limits.rows_max.min(Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(limits.bytes_max.min(Semaphore::MAX_PERMITS))),
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                under_way: 0,
                began_at: Instant::now(),
                closed: false,
                swept_at: None,
            }),
            arrived: Notify::new(),
            commits: AtomicU64::new(0),
            uncounted,
        });
        (queue, counting)
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
    pub(super) async fn next(self: &Arc<Self>, stop: &CancellationToken) -> Option<(Batch, UnderWay)> {
        loop {
            let not_before = match self.take(false) {
                Take::Batch(batch) => return Some((batch, UnderWay(self.clone()))),
                Take::Nothing => None,
                Take::NotBefore(at) => Some(at),
            };
            if stop.is_cancelled() {
                self.close();
                return match self.take(true) {
                    Take::Batch(batch) => Some((batch, UnderWay(self.clone()))),
                    Take::Nothing | Take::NotBefore(_) => None,
                };
            }
            let long = async {
                match not_before {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.arrived.notified() => {}
                () = long => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Takes a batch if there is one that is worth a commit now; `at_once` takes whatever there is.
    fn take(&self, at_once: bool) -> Take {
        let mut state = self.lock();
        let most = state.waiting.len().min(self.limits.batch_rows_max);
        if most == 0 {
            return Take::Nothing;
        }
        let long_at = state.began_at + self.limits.long;
        if state.under_way > 0 && most < WORTH_A_COMMIT && !at_once && Instant::now() < long_at {
            return Take::NotBefore(long_at);
        }
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
        if batch.is_empty() {
            return Take::Nothing;
        }
        state.under_way += 1;
        state.began_at = Instant::now();
        drop(state);
        if more {
            // The wake-up of those that stay may have been ours.
            self.arrived.notify_one();
        }
        Take::Batch(batch)
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
                Ok(Receipt { received, uncounted }) => {
                    self.commits.fetch_add(1, Ordering::Relaxed);
                    pause = PAUSE_MIN;
                    part.answer(received, &mut told);
                    if !uncounted.is_empty() && self.uncounted.try_send(uncounted).is_err() {
                        tracing::debug!("more webhooks are repeated than can be counted");
                    }
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

/// What there is to be taken.
enum Take {
    Batch(Batch),
    Nothing,
    /// Some wait, and the commit under way is worth waiting for until then.
    NotBefore(Instant),
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
async fn insert(store: &Store, events: &[NewEvent], until: Instant) -> Result<Receipt, Trouble> {
    match tokio::time::timeout_at(until, webhook_events::insert_batch(store, events)).await {
        Ok(Ok(receipt)) => Ok(receipt),
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
    while let Some((batch, _under_way)) = queue.next(&stop).await {
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

/// Counts repetitions on the rows of their events, behind the answers, until `stop`.
pub(super) async fn count(
    mut counting: mpsc::Receiver<Uncounted>,
    store: Store,
    ringer: Ringer,
    stop: CancellationToken,
) {
    loop {
        let uncounted = tokio::select! {
            biased;
            uncounted = counting.recv() => uncounted,
            () = stop.cancelled() => None,
        };
        let Some(mut uncounted) = uncounted else { return };
        while uncounted.len() < COUNTED_AT_A_TIME
            && let Ok(more) = counting.try_recv()
        {
            uncounted.merge(more);
        }
        match webhook_events::count_repeated(&store, uncounted).await {
            Ok(true) => ringer.ring(),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "repeated webhooks are answered and were not counted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use zhilian_sync_store::webhook_events::AcceptedBy;
    use zhilian_sync_store::{Clock, EventId, SystemId};

    use super::*;

    fn queue(long: Duration) -> Arc<CommitQueue> {
        let (rows_max, bytes_max) = (1_000, 10_000_000);
        CommitQueue::new(Limits {
            rows_max,
            bytes_max,
            batch_rows_max: 500,
            batch_bytes_max: bytes_max,
            long,
        })
        .0
    }

    /// So many events arrive, and somebody waits for each.
    fn arrive(queue: &CommitQueue, events: usize) -> Vec<oneshot::Receiver<Told>> {
        let clock = Clock::system();
        let one = |_| {
            let event = NewEvent {
                id: EventId(clock.new_id()),
                system_id: SystemId(clock.new_id()),
                system_version: 1,
                event_key: "1".into(),
                event_type: None,
                accepted_by: Some(AcceptedBy::Verification),
                error: None,
                body: Vec::new(),
                request: "{}".into(),
                sealed_request: None,
                received_at: clock.now(),
                fingerprint: vec![0; 16],
            };
            let place = queue.enter(cost(&event)).unwrap();
            queue.push(event, place, Instant::now() + Duration::from_mins(1))
        };
        (0..events).map(one).collect()
    }

    async fn next(queue: &Arc<CommitQueue>) -> (usize, UnderWay) {
        let (batch, under_way) = queue.next(&CancellationToken::new()).await.unwrap();
        (batch.len(), under_way)
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn few_wait_for_the_commit_under_way_and_a_lone_one_for_nothing() {
        let queue = queue(HOUR);
        let _callers = arrive(&queue, 1);
        let (rows, first) = next(&queue).await;
        assert_eq!(rows, 1);
        let _more = arrive(&queue, WORTH_A_COMMIT - 1);
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { next(&queue).await.0 }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.await.unwrap(), WORTH_A_COMMIT - 1);
    }

    #[tokio::test]
    async fn many_are_worth_a_commit_of_their_own() {
        let queue = queue(HOUR);
        let _callers = arrive(&queue, 1);
        let (_, _first) = next(&queue).await;
        let _more = arrive(&queue, WORTH_A_COMMIT);
        assert_eq!(next(&queue).await.0, WORTH_A_COMMIT);
    }

    #[tokio::test]
    async fn a_commit_that_takes_long_is_not_waited_for() {
        let queue = queue(Duration::from_millis(5));
        let _callers = arrive(&queue, 1);
        let (_, _first) = next(&queue).await;
        let _more = arrive(&queue, 2);
        assert_eq!(next(&queue).await.0, 2);
    }

    #[tokio::test]
    async fn what_waits_at_the_end_is_committed_at_once() {
        let (queue, stop) = (queue(HOUR), CancellationToken::new());
        let _callers = arrive(&queue, 1);
        let (_, _first) = next(&queue).await;
        let _more = arrive(&queue, 2);
        stop.cancel();
        let (batch, _second) = queue.next(&stop).await.unwrap();
        assert_eq!(batch.len(), 2);
        assert!(queue.next(&stop).await.is_none());
    }
}
