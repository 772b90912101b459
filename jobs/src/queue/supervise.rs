//! Keeps the worker of one lane alive: an apalis worker ends at the first trouble with Redis, so it
//! is started again, under a new name and on a new connection, for as long as the process wants it.
//!
//! apalis' own `Monitor` is not used: it restarts without delay, or not at all, or waits in silence
//! for ever.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apalis::prelude::*;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use ulid::Ulid;
use zhilian_sync_store::{Lane, RunId};

use super::backend::LaneBackend;
use super::{Delivery, Queue, QueueError};
use crate::backoff::RetryPolicy;
use crate::settings::QueueSettings;

/// How long an ended worker is left alone; short, because until then its lane stands still.
const RESTART: RetryPolicy = RetryPolicy { initial: Duration::from_millis(200), max: Duration::from_secs(5) };

/// A worker that lived so long was well: the next delay is the first one again.
const STEADY: Duration = Duration::from_secs(30);

/// How long a stopping worker may take to write its acknowledgements once its handlers are done.
/// They are a courtesy: what is not acknowledged is rung again, and its row says that it is done.
const FAREWELL: Duration = Duration::from_secs(5);

/// The smallest number of messages fetched at a time.
const BATCH_MIN: usize = 10;

/// Runs the workers of one lane until `stop`, starting them again for ever; returns when every
/// handler that was running has ended.
///
/// A stop is graceful: nothing more is fetched, running handlers finish, and what was fetched but
/// not begun goes back to the queue. Handlers also finish when their worker dies under them. At most
/// `concurrency` handlers run at a time, over all starts. A handler that panics costs its own
/// message and nothing else.
pub async fn supervise<H>(
    queue: Queue,
    lane: Lane,
    concurrency: usize,
    settings: QueueSettings,
    handler: H,
    stop: CancellationToken,
) where
    H: Fn(RunId) -> BoxFuture<'static, ()> + Clone + Send + Sync + 'static,
{
    let concurrency = concurrency.max(1);
    let slots = Arc::new(Semaphore::new(concurrency));
    let mut lane = Supervised {
        queue,
        lane,
        concurrency,
        poll: Duration::from_millis(settings.poll_ms),
        handlers: TaskTracker::new(),
        slots,
        stop,
        ended: Vec::new(),
    };
    let mut failures = 0;
    while !lane.stop.is_cancelled() {
        let started = Instant::now();
        let Err(error) = lane.work(handler.clone()).await else {
            continue;
        };
        if started.elapsed() >= STEADY {
            failures = 0;
        }
        failures += 1;
        let delay = RESTART.delay(failures);
        tracing::warn!(queue.lane = %lane.lane, %error, ?delay, "the worker of a lane ended; it is started again");
        // Waiting is all that is wanted: the time-out is the usual outcome.
        let _ = tokio::time::timeout(delay, lane.stop.cancelled()).await;
    }
    lane.handlers.close();
    lane.handlers.wait().await;
    lane.retire_ended().await;
}

/// How many messages a worker fetches at a time.
///
/// A third of the concurrency, because of how apalis stops: acknowledgements go through a channel of
/// four batches that nobody empties during a stop, and a worker that cannot send its last ones waits
/// for ever. One fetch can leave `concurrency` of them, and the batch it brought as many again.
fn batch_size(concurrency: usize) -> usize {
    concurrency.div_ceil(3).max(BATCH_MIN)
}

/// One lane under supervision.
struct Supervised {
    queue: Queue,
    lane: Lane,
    concurrency: usize,
    poll: Duration,
    /// Every running handler, also of workers that are gone.
    handlers: TaskTracker,
    /// Bounds the handlers over all starts; apalis' own limit begins anew with each worker.
    slots: Arc<Semaphore>,
    stop: CancellationToken,
    /// Workers that are gone and whose messages could not be given back yet.
    ended: Vec<String>,
}

impl Supervised {
    /// One life of the worker: until `stop` (then `Ok`) or until it fails.
    async fn work<H>(&mut self, handler: H) -> Result<(), BoxDynError>
    where
        H: Fn(RunId) -> BoxFuture<'static, ()> + Clone + Send + Sync + 'static,
    {
        // A new name every time: Redis refuses a known one for as long as its last heartbeat is fresh.
        let name = format!("{}-{}-{}", self.lane, std::process::id(), Ulid::generate());
        let backend = self.backend(&name).await?;
        if matches!(self.queue, Queue::Redis(_)) {
            self.ended.push(name.clone());
        }
        let lane = self.lane;
        let worker = WorkerBuilder::new(name.as_str())
            .backend(backend)
            // Outermost, so that it holds back the fetching.
            .concurrency(self.concurrency)
            // On the whole runtime, and so that handlers outlive the worker.
            .parallelize(tokio::spawn)
            .on_event(move |_, event| {
                if let Event::Error(error) = event {
                    tracing::warn!(queue.lane = %lane, %error, "a message could not be acknowledged");
                }
            })
            .build(self.guarded(handler));
        let stop = self.stop.clone();
        let signal = async move {
            stop.cancelled_owned().await;
            Ok::<(), WorkerError>(())
        };
        // Boxed: the type of the bare future is too general to be sent to another thread.
        let life = worker.run_until(signal).boxed();
        let ended = tokio::select! {
            ended = life => ended.map_err(Into::into),
            () = self.overdue() => Ok(()),
        };
        self.retire_ended().await;
        ended
    }

    async fn backend(&mut self, name: &str) -> Result<LaneBackend, QueueError> {
        match &self.queue {
            Queue::Memory(queue) => Ok(LaneBackend::Memory { queue: queue.clone(), lane: self.lane }),
            Queue::Redis(queue) => {
                let mut connection = queue.connect()?;
                queue.enlist(&mut connection, self.lane, name).await?;
                let config = queue.config(self.lane).batch_size(batch_size(self.concurrency));
                let backend = LaneBackend::redis(connection, config, self.poll);
                self.retire_ended().await;
                Ok(backend)
            }
        }
    }

    /// The handler as apalis is to see it: it never fails and never panics.
    fn guarded<H>(
        &self,
        handler: H,
    ) -> impl Fn(Delivery) -> BoxFuture<'static, Result<(), BoxDynError>> + Clone + use<H>
    where
        H: Fn(RunId) -> BoxFuture<'static, ()> + Clone + Send + Sync + 'static,
    {
        let (lane, handlers, slots) = (self.lane, self.handlers.clone(), self.slots.clone());
        move |delivery| {
            let (handler, running, slots) = (handler.clone(), handlers.token(), slots.clone());
            async move {
                let _running = running;
                let _slot = slots.acquire_owned().await?;
                match delivery {
                    Delivery::Run(run) => ring_through(handler, run).await,
                    Delivery::Undecodable(reason) => {
                        tracing::warn!(queue.lane = %lane, reason, "a message that is none of ours was dropped");
                    }
                }
                Ok(())
            }
            .boxed()
        }
    }

    /// Ends when a stop was asked for, all handlers are done, and the worker still does not end.
    async fn overdue(&self) {
        self.stop.cancelled().await;
        self.handlers.close();
        self.handlers.wait().await;
        let _ = tokio::time::timeout(FAREWELL, std::future::pending::<()>()).await;
        tracing::warn!(queue.lane = %self.lane, "the worker of a lane did not end after its handlers; it is left behind");
    }

    /// Gives back what ended workers held. What fails now is tried again at the next start; should
    /// this process end before, other workers take the messages over after the orphan limit.
    async fn retire_ended(&mut self) {
        let Queue::Redis(queue) = &self.queue else { return };
        let Ok(mut connection) = queue.connect() else {
            return;
        };
        let mut left = Vec::new();
        for name in std::mem::take(&mut self.ended) {
            if let Err(error) = queue.retire(&mut connection, self.lane, &name).await {
                tracing::debug!(queue.lane = %self.lane, %error, "an ended worker is cleared away later");
                left.push(name);
            }
        }
        self.ended = left;
    }
}

/// Calls the handler and survives it.
async fn ring_through<H>(handler: H, run: RunId)
where
    H: Fn(RunId) -> BoxFuture<'static, ()>,
{
    let call = AssertUnwindSafe(async { handler(run).await }).catch_unwind();
    if let Err(panic) = call.await {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no text".to_owned());
        tracing::error!(run.id = %run, panic = text, "the handler of a run panicked; its lease brings the run back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_acknowledgements_of_a_stop_fit_into_apalis_channel_of_four_batches() {
        for concurrency in 1..=2_000 {
            let batch = batch_size(concurrency);
            assert!(concurrency + batch <= 4 * batch, "{concurrency}: {batch}");
        }
        assert_eq!(batch_size(8), 10);
        assert_eq!(batch_size(200), 67);
    }
}
