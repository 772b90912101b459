//! What apalis sees: one backend that is either queue, so that both run under the same worker.

use std::task::{Context, Poll};
use std::time::Duration;

use ::redis::aio::ConnectionManager;
use apalis::prelude::*;
use apalis_core::backend::BackendConfig;
use apalis_core::backend::finalize::Ephemeral;
use apalis_redis::RedisStorage;
use tokio::time::{Interval, MissedTickBehavior};
use tower::Layer;
use tower::util::Either;
use ulid::Ulid;
use zhilian_sync_store::Lane;

use super::memory::MemoryQueue;
use super::{Delivery, QueueError};

/// The consumer of one lane, for one start of a worker.
pub(super) enum LaneBackend {
    Memory { queue: MemoryQueue, lane: Lane },
    Redis(Box<PollWith<RedisStorage<Delivery>, SafeInterval>>),
}

impl LaneBackend {
    pub(super) fn redis(connection: ConnectionManager, config: apalis_redis::Config, poll: Duration) -> Self {
        let storage = RedisStorage::new(connection).with_config(config);
        Self::Redis(Box::new(storage.poll_with_strategy(SafeInterval::new(poll))))
    }
}

/// Looks into an idle queue at an interval.
///
/// apalis' own strategies put a fired timer in place of a fired timer without asking it: when a
/// fetch takes longer than the interval, nobody wakes the worker before its next heartbeat. This
/// one asks until the timer is pending, so there is always a waker left behind.
pub(super) struct SafeInterval(Interval);

impl SafeInterval {
    fn new(period: Duration) -> Self {
        let mut interval = tokio::time::interval(period.max(Duration::from_millis(1)));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(interval)
    }
}

impl PollStrategy for SafeInterval {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        let mut fired = false;
        while self.0.poll_tick(cx).is_ready() {
            fired = true;
        }
        if fired { Poll::Ready(Some(())) } else { Poll::Pending }
    }
}

impl Backend for LaneBackend {
    type Task = Task<Delivery>;
    type Error = QueueError;

    fn poll_ready(&mut self, cx: &mut Context<'_>, worker: &WorkerContext) -> Poll<Result<(), QueueError>> {
        match self {
            Self::Memory { .. } => Poll::Ready(Ok(())),
            Self::Redis(backend) => Backend::poll_ready(&mut **backend, cx, worker).map_err(Into::into),
        }
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Task<Delivery>, QueueError>>> {
        match self {
            Self::Memory { queue, lane } => queue.poll_take(*lane, cx).map(|run| {
                let id = TaskId::from_ulid(Ulid::generate());
                Some(Ok(TaskBuilder::new(Delivery::Run(run)).task_id(id).build()))
            }),
            // Decoded here and not by apalis, for which a payload it cannot read ends the worker.
            Self::Redis(backend) => Backend::poll_next(&mut **backend, cx, worker).map(|next| {
                next.map(|task| match task {
                    Ok(task) => Ok(task.map_args(|bytes| Delivery::decode(&bytes))),
                    Err(error) => Err(error.into()),
                })
            }),
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, worker: &WorkerContext) -> Poll<Result<(), QueueError>> {
        match self {
            Self::Memory { .. } => Poll::Ready(Ok(())),
            Self::Redis(backend) => Backend::poll_close(&mut **backend, cx, worker).map_err(Into::into),
        }
    }
}

impl BackendConfig for LaneBackend {
    type Args = Delivery;
    type Id = Ulid;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Acknowledge;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, worker: &mut WorkerContext) -> Acknowledge {
        match self {
            Self::Memory { .. } => Acknowledge::Nothing,
            Self::Redis(backend) => Acknowledge::Redis(BackendConfig::middleware(&mut **backend, worker)),
        }
    }
}

type RedisLayer = <RedisStorage<Delivery> as BackendConfig>::Layer;

/// What happens to a handled message: Redis is told, memory has forgotten it already.
pub(super) enum Acknowledge {
    Nothing,
    Redis(RedisLayer),
}

impl<S> Layer<S> for Acknowledge {
    type Service = Either<<RedisLayer as Layer<S>>::Service, S>;

    fn layer(&self, service: S) -> Self::Service {
        match self {
            Self::Nothing => Either::Right(service),
            Self::Redis(layer) => Either::Left(layer.layer(service)),
        }
    }
}
