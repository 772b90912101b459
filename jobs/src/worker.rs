//! From a ring to an outcome: claim the row, run the job under its lease, record how it went.
//!
//! A worker trusts nothing but its claim. The heartbeat renews the lease; when it cannot, or when the
//! lease would be over by this process's own monotonic clock, the job is told to stop and the fence
//! keeps it from writing. A panic, a time-out and a graceful stop are outcomes like any other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use zhilian_sync_store::sync_logs::{self, Run};
use zhilian_sync_store::{Lane, RunId, Store, StoreError, SyncStatus, Tx};

use crate::context::Context;
use crate::outcome::{Action, JobError};
use crate::{inbox, kinds, queue};

mod record;

pub(crate) use record::{later, system_hears};

/// How much longer than the job time-out a job may take to notice it before it is dropped.
const CUT_OFF_GRACE: Duration = Duration::from_secs(30);

/// A job that did what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Success, or partial when some records are in `sync_failures`.
    pub status: SyncStatus,
}

/// One claimed run, and what its job needs to stay honest about it.
pub struct Attempt {
    /// The row as it was claimed; `position` and counts are those of the attempt before.
    pub run: Run,
    store: Store,
    lease: chrono::TimeDelta,
    signals: Signals,
    turn_until: Instant,
    progressed: AtomicBool,
}

/// Why a job has to stop before its end.
#[derive(Clone)]
struct Signals {
    lost: CancellationToken,
    stop: CancellationToken,
    timeout_at: Instant,
}

impl Attempt {
    fn new(ctx: &Context, run: Run, stop: CancellationToken) -> Self {
        let now = Instant::now();
        Self {
            run,
            store: ctx.store.clone(),
            lease: ctx.lease(),
            signals: Signals {
                lost: CancellationToken::new(),
                stop,
                timeout_at: now + Duration::from_secs(ctx.engine.job_timeout_secs),
            },
            turn_until: now + Duration::from_secs(ctx.engine.turn_secs),
            progressed: AtomicBool::new(false),
        }
    }

    /// Notes that something is stored that the next attempt need not do again: should this one fail, it is not
    /// counted. A list that is longer than what a vendor serves between two faults would never be read to its end.
    pub fn note_progress(&self) {
        self.progressed.store(true, Ordering::Relaxed);
    }

    /// Begins a transaction of this run: the fence is its first statement.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let mut tx = self.store.begin().await?;
        self.fence(&mut tx).await?;
        Ok(tx)
    }

    /// Fences a transaction that had to take other rows before the run's, and has written nothing yet.
    pub async fn fence(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let now = self.store.clock().now();
        sync_logs::fence(tx, self.run.claim(), now + self.lease, now).await
    }

    /// Waits for something that is not a transaction, unless the job has to stop first.
    pub async fn interruptible<T>(
        &self,
        work: impl Future<Output = Result<T, JobError>>,
    ) -> Result<T, JobError> {
        let signals = &self.signals;
        tokio::select! {
            biased;
            () = signals.lost.cancelled() => Err(lost()),
            () = signals.stop.cancelled() => Err(JobError::new(Action::Yield, "stopping", "the process is stopping")),
            () = tokio::time::sleep_until(signals.timeout_at) => Err(timed_out()),
            result = work => result,
        }
    }

    /// Whether others should get a turn, or the process is stopping: a good moment to yield.
    #[must_use]
    pub fn should_yield(&self) -> bool {
        Instant::now() >= self.turn_until || self.signals.stop.is_cancelled()
    }
}

fn lost() -> JobError {
    JobError::new(Action::Lost, "claim_lost", "the claim on the run is lost")
}

fn timed_out() -> JobError {
    JobError::retry(
        "timed_out",
        "the attempt took longer than `engine.job_timeout_secs`; it goes on from its last page at the next attempt",
    )
}

/// Serves every lane until `stop`, then waits for the running jobs, which give their attempts back at
/// their next page; no longer than `engine.stop_secs`.
pub async fn serve(ctx: Context, stop: CancellationToken) {
    let lanes: Vec<_> = Lane::ALL
        .iter()
        .map(|lane| {
            let (ctx_of_handler, stop_of_handler) = (ctx.clone(), stop.clone());
            let lane = *lane;
            let handler = move |run: RunId| {
                let (ctx, stop) = (ctx_of_handler.clone(), stop_of_handler.clone());
                async move { hear(&ctx, &stop, lane, run).await }.boxed()
            };
            tokio::spawn(queue::supervise(
                ctx.queue.clone(),
                lane,
                ctx.engine.concurrency.of(lane),
                (*ctx.queue_settings).clone(),
                handler,
                stop.clone(),
            ))
        })
        .collect();
    stop.cancelled().await;
    let all = futures_util::future::join_all(lanes);
    if tokio::time::timeout(Duration::from_secs(ctx.engine.stop_secs), all).await.is_err() {
        tracing::warn!("jobs did not stop in time; their leases run out and others go on with them");
    }
}

/// Answers one ring of a lane. In the lane of the webhooks any message means "look into the inbox": its
/// events are rows without a run.
async fn hear(ctx: &Context, stop: &CancellationToken, lane: Lane, run: RunId) {
    if lane == Lane::Hooks {
        inbox::apply::work(ctx, stop).await;
    } else {
        handle(ctx, stop, run).await;
    }
}

/// Answers the ring for a run. Whatever happens ends on the row, or leaves the row to its lease.
pub async fn handle(ctx: &Context, stop: &CancellationToken, id: RunId) {
    if stop.is_cancelled() {
        // Not begun: the row is pending, and rung again by the next scheduler.
        if let Err(error) = sync_logs::unring(&ctx.store, &[id]).await {
            tracing::debug!(%error, run.id = %id, "a ring was heard while stopping");
        }
        return;
    }
    let lease_until = ctx.clock().now() + ctx.lease();
    let run = match sync_logs::claim(&ctx.store, id, &ctx.worker, lease_until).await {
        Ok(Some(run)) => run,
        // Somebody has it, it is not due, or it ended: a duplicate message is harmless.
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(%error, run.id = %id, "could not claim; the scheduler rings again");
            return;
        }
    };
    let span = tracing::info_span!(
        "run",
        run.id = %run.id,
        run.kind = %run.kind,
        run.stream = %run.sync_type,
        run.attempt = run.attempt,
        system.id = run.system_id.map(tracing::field::display),
    );
    work(ctx, stop, run).instrument(span).await;
}

async fn work(ctx: &Context, stop: &CancellationToken, run: Run) {
    tracing::debug!("claimed");
    let mut attempt = Attempt::new(ctx, run, stop.clone());
    let heart = Heart::start(ctx, &attempt);
    let limit = Duration::from_secs(ctx.engine.job_timeout_secs) + CUT_OFF_GRACE;
    let result = guarded(limit, Box::pin(kinds::run(ctx, &mut attempt))).await;
    drop(heart);
    record::record(ctx, &attempt.run, attempt.progressed.into_inner(), result).await;
}

/// Runs a job so that neither a panic nor an endless wait of it goes any further than its row.
async fn guarded(
    limit: Duration,
    job: impl Future<Output = Result<Done, JobError>>,
) -> Result<Done, JobError> {
    match AssertUnwindSafe(tokio::time::timeout(limit, job)).catch_unwind().await {
        Ok(Ok(result)) => result,
        Ok(Err(_elapsed)) => Err(timed_out()),
        Err(panic) => Err(panicked(panic.as_ref())),
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> JobError {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into());
    tracing::error!(panic = %text, "a job panicked: this is a mistake in the program");
    JobError::retry(
        "panicked",
        "the program made a mistake in this run; the log of the worker has the details, please report it",
    )
}

/// The heartbeat of one attempt; it ends when this is dropped.
struct Heart(tokio::task::JoinHandle<()>);

impl Drop for Heart {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Heart {
    fn start(ctx: &Context, attempt: &Attempt) -> Self {
        let beat = Beat {
            store: ctx.store.clone(),
            claim: attempt.run.claim(),
            lease: ctx.lease(),
            lease_real: Duration::from_secs(ctx.engine.lease_secs),
            every: Duration::from_secs(ctx.engine.heartbeat_secs.max(1)),
            lost: attempt.signals.lost.clone(),
        };
        Self(tokio::spawn(Arc::new(beat).beat()))
    }
}

struct Beat {
    store: Store,
    claim: sync_logs::Claim,
    lease: chrono::TimeDelta,
    lease_real: Duration,
    every: Duration,
    lost: CancellationToken,
}

impl Beat {
    /// Renews the lease until it is lost, in the database's eyes or by this process's own clock.
    async fn beat(self: Arc<Self>) {
        let mut deadline = Instant::now() + self.lease_real;
        loop {
            tokio::time::sleep_until((Instant::now() + self.every).min(deadline)).await;
            let asked_at = Instant::now();
            if asked_at >= deadline {
                tracing::warn!("the lease is over by this process's own clock; stopping");
                return self.lost.cancel();
            }
            match tokio::time::timeout_at(deadline, self.renew()).await {
                Ok(Ok(())) => deadline = asked_at + self.lease_real,
                Ok(Err(StoreError::ClaimLost(_))) => {
                    tracing::info!("the claim is gone: cancelled, or taken by another worker");
                    return self.lost.cancel();
                }
                Ok(Err(error)) => tracing::warn!(%error, "could not renew the lease"),
                Err(_elapsed) => {}
            }
        }
    }

    async fn renew(&self) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        let now = self.store.clock().now();
        sync_logs::fence(&mut tx, self.claim, now + self.lease, now).await?;
        tx.commit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_panic_is_an_outcome_and_its_text_stays_in_the_log() {
        let job = async { panic!("secret-4711 is wrong") };
        let error = guarded(LIMIT, job).await.unwrap_err();
        assert_eq!((error.code, error.action), ("panicked", Action::Retry { after: None }));
        assert!(!error.message.contains("4711"), "{}", error.message);
    }

    #[tokio::test]
    async fn a_job_without_end_is_cut_off() {
        let error = guarded(LIMIT, std::future::pending()).await.unwrap_err();
        assert_eq!((error.code, error.action), ("timed_out", Action::Retry { after: None }));
    }
}
