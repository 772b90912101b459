//! The queue in Redis: what producers do there, and the connections and keys that workers use.
//!
//! Messages are consumed by apalis-redis, but only pushed and cleared away by the scripts of
//! `scripts`. Two connections' worth of traffic never mix: a large push on the workers' connection
//! would hold up the fetches behind it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, RedisResult};
use ulid::Ulid;
use zhilian_sync_store::{Lane, RunId};

use super::scripts::{CHUNK, PROMOTE, PUSH, RETIRE, SWEEP};
use super::{Message, QueueError};
use crate::settings::QueueSettings;

/// How often a worker says that it lives.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);

/// What a producer waits for at most: a request to the API may be behind the call, and a ring that
/// is given up is rung again by the scheduler.
const PATIENCE: Duration = Duration::from_secs(2);

/// After Redis did not answer, producers are refused at once for so long instead of each waiting in
/// vain.
const REST: Duration = Duration::from_millis(500);

/// A sweep stops after so many calls for one set, so that it ends even while work pours in.
const SWEEP_CALLS_MAX: usize = 1_000;

/// `scheduled` is meant to be empty; more than this is worth a warning.
const SCHEDULED_MAX: u64 = 1_000;

/// How long the note that apalis-redis writes about every worker may outlive the worker.
const METADATA_TTL_SECS: i64 = 24 * 3600;

/// A queue in Redis. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct RedisQueue(Arc<Inner>);

struct Inner {
    client: Client,
    settings: QueueSettings,
    producer: Mutex<Producer>,
}

/// The producers' connection.
#[derive(Default)]
struct Producer {
    connection: Option<ConnectionManager>,
    resting_until: Option<Instant>,
}

impl fmt::Debug for RedisQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client: its address holds the password.
        f.debug_struct("RedisQueue").field("prefix", &self.0.settings.prefix).finish_non_exhaustive()
    }
}

impl RedisQueue {
    /// Checks the address; does not connect.
    pub(super) fn new(url: &str, settings: &QueueSettings) -> Result<Self, QueueError> {
        // The crate's own message is not passed on: it is about the text of the address, and that
        // holds the password.
        let client = Client::open(url).map_err(|_| QueueError::Address {
            reason: if url.trim_start().to_ascii_lowercase().starts_with("rediss:") {
                "asks for TLS, which this build does not have"
            } else {
                "is not an address of Redis"
            },
        })?;
        Ok(Self(Arc::new(Inner { client, settings: settings.clone(), producer: Mutex::default() })))
    }

    pub(super) async fn ring(&self, lane: Lane, runs: &[RunId]) -> Result<usize, QueueError> {
        let keys = self.keys(lane);
        let mut accepted = 0;
        for chunk in runs.chunks(CHUNK) {
            let mut push = PUSH.prepare_invoke();
            push.key(keys.data()).key(keys.meta()).key(keys.active());
            for run in chunk {
                // A fresh id every time: a push with a known id does nothing.
                push.arg(Ulid::generate().to_string()).arg(Message::encode(*run));
            }
            let pushed: Result<u64, _> =
                self.call(|mut connection| async move { push.invoke_async(&mut connection).await }).await;
            match pushed {
                Ok(_) => accepted += chunk.len(),
                Err(error) if accepted == 0 => return Err(error),
                // The first ones did arrive; the caller rings the rest again.
                Err(_) => break,
            }
        }
        Ok(accepted)
    }

    pub(super) async fn depth(&self, lane: Lane) -> Result<u64, QueueError> {
        let active = self.keys(lane).active();
        self.call(|mut connection| async move {
            ::redis::cmd("LLEN").arg(active).query_async(&mut connection).await
        })
        .await
    }

    pub(super) async fn epoch(&self) -> Result<String, QueueError> {
        let key = format!("{}:epoch", self.0.settings.prefix);
        let mut look = ::redis::pipe();
        look.atomic();
        look.cmd("SET").arg(&key).arg(Ulid::generate().to_string()).arg("NX").ignore();
        look.cmd("GET").arg(&key);
        let (epoch,): (String,) =
            self.call(|mut connection| async move { look.query_async(&mut connection).await }).await?;
        Ok(epoch)
    }

    pub(super) async fn ping(&self) -> Result<(), QueueError> {
        self.call(|mut connection| async move { ::redis::cmd("PING").query_async(&mut connection).await })
            .await
    }

    pub(super) async fn sweep(&self) -> Result<u64, QueueError> {
        let mut swept = 0;
        for lane in Lane::ALL {
            let keys = self.keys(*lane);
            for set in [keys.done(), keys.dead()] {
                let mut sweep = SWEEP.key(set);
                sweep.key(keys.data()).key(keys.meta()).arg(CHUNK);
                swept += self.repeat(&sweep).await?;
            }
            self.promote(*lane, &keys).await?;
        }
        Ok(swept)
    }

    async fn promote(&self, lane: Lane, keys: &LaneKeys) -> Result<(), QueueError> {
        let scheduled = keys.scheduled();
        let waiting: u64 = self
            .call(|mut connection| async move {
                ::redis::cmd("ZCARD").arg(scheduled).query_async(&mut connection).await
            })
            .await?;
        if waiting == 0 {
            return Ok(());
        }
        if waiting > SCHEDULED_MAX {
            tracing::warn!(queue.lane = %lane, waiting, "messages pile up in the `scheduled` set of the queue");
        }
        let mut promote = PROMOTE.key(keys.scheduled());
        promote.key(keys.active()).arg(CHUNK);
        self.repeat(&promote).await.map(drop)
    }

    /// Calls a script that takes up to `CHUNK` until it takes fewer.
    async fn repeat(&self, script: &::redis::ScriptInvocation<'_>) -> Result<u64, QueueError> {
        let mut total = 0;
        for _ in 0..SWEEP_CALLS_MAX {
            let taken: u64 =
                self.call(|mut connection| async move { script.invoke_async(&mut connection).await }).await?;
            total += taken;
            if taken < CHUNK as u64 {
                break;
            }
        }
        Ok(total)
    }

    /// One command of a producer: never longer than `PATIENCE`, and refused at once while Redis is
    /// known not to answer.
    async fn call<T, F, A>(&self, command: F) -> Result<T, QueueError>
    where
        F: FnOnce(ConnectionManager) -> A,
        A: Future<Output = RedisResult<T>>,
    {
        let connection = self.producer_connection()?;
        let patience = PATIENCE.min(self.response_timeout());
        let outcome = tokio::time::timeout(patience, command(connection)).await;
        let (error, silent) = match outcome {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => {
                let silent = error.is_io_error() || error.is_timeout();
                (QueueError::Redis(error), silent)
            }
            Err(_) => (QueueError::TimedOut(patience), true),
        };
        // A new connection next time, whatever it was: the manager mends a broken socket by itself,
        // but would stay for ever with, say, a password that was wrong for a moment.
        let mut producer = self.producer();
        producer.connection = None;
        if silent {
            producer.resting_until = Some(Instant::now() + REST);
        }
        Err(error)
    }

    fn producer_connection(&self) -> Result<ConnectionManager, QueueError> {
        let mut producer = self.producer();
        if producer.resting_until.is_some_and(|until| Instant::now() < until) {
            return Err(QueueError::Resting(REST));
        }
        if let Some(connection) = &producer.connection {
            return Ok(connection.clone());
        }
        let connection = self.connect()?;
        producer.connection = Some(connection.clone());
        Ok(connection)
    }

    fn producer(&self) -> MutexGuard<'_, Producer> {
        self.0.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of its own, made with its first command. It does not repeat failed attempts:
    /// who uses it knows better when to try again.
    pub(super) fn connect(&self) -> Result<ConnectionManager, QueueError> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_response_timeout(Some(self.response_timeout()))
            .set_connection_timeout(Some(Duration::from_secs(self.0.settings.connect_timeout_secs.max(1))));
        Ok(ConnectionManager::new_lazy_with_config(self.0.client.clone(), config)?)
    }

    fn response_timeout(&self) -> Duration {
        Duration::from_secs(self.0.settings.response_timeout_secs.max(1))
    }

    pub(super) fn keys(&self, lane: Lane) -> LaneKeys {
        LaneKeys(self.config(lane))
    }

    /// apalis-redis' settings for one lane, apart from the batch.
    pub(super) fn config(&self, lane: Lane) -> apalis_redis::Config {
        let missed = self.0.settings.orphan_secs / HEARTBEAT.as_secs();
        apalis_redis::Config::default()
            .queue(format!("{}:{lane}", self.0.settings.prefix))
            .heartbeat_interval(HEARTBEAT)
            .missed_heartbeats(usize::try_from(missed).unwrap_or(usize::MAX).max(2))
            // Locking costs time in proportion to the backlog and protects from nothing.
            .lock_tasks(false)
            // Without results nothing is ever acknowledged and everything runs again.
            .persist_results(true)
            .emit_events(false)
    }

    /// Announces a worker that is about to start: shows that Redis answers, and lets the note that
    /// apalis-redis will add to this key end by itself should the worker be killed.
    pub(super) async fn enlist(
        &self,
        connection: &mut ConnectionManager,
        lane: Lane,
        worker: &str,
    ) -> Result<(), QueueError> {
        let metadata = self.keys(lane).metadata(worker);
        let mut announce = ::redis::pipe();
        announce.cmd("HSET").arg(&metadata).arg("process").arg(std::process::id()).ignore();
        announce.cmd("EXPIRE").arg(&metadata).arg(METADATA_TTL_SECS).ignore();
        Ok(announce.query_async(connection).await?)
    }

    /// Gives back what an ended worker held and removes its traces.
    pub(super) async fn retire(
        &self,
        connection: &mut ConnectionManager,
        lane: Lane,
        worker: &str,
    ) -> Result<(), QueueError> {
        let keys = self.keys(lane);
        let mut retire = RETIRE.key(keys.inflight(worker));
        retire.key(keys.active()).key(keys.data()).key(keys.meta());
        retire.key(keys.workers()).key(keys.metadata(worker)).arg(worker).arg(CHUNK);
        loop {
            let call = tokio::time::timeout(PATIENCE, retire.invoke_async::<usize>(connection));
            let given_back = call.await.map_err(|_| QueueError::TimedOut(PATIENCE))??;
            if given_back < CHUNK {
                return Ok(());
            }
        }
    }
}

/// The keys of one lane, as apalis-redis names them.
pub(super) struct LaneKeys(apalis_redis::Config);

impl LaneKeys {
    fn active(&self) -> String {
        self.0.active_jobs_list()
    }

    fn data(&self) -> String {
        self.0.job_data_hash()
    }

    fn meta(&self) -> String {
        self.0.job_meta_hash()
    }

    fn done(&self) -> String {
        self.0.done_jobs_set()
    }

    fn dead(&self) -> String {
        self.0.dead_jobs_set()
    }

    fn scheduled(&self) -> String {
        self.0.scheduled_jobs_set()
    }

    fn workers(&self) -> String {
        self.0.workers_set()
    }

    fn inflight(&self, worker: &str) -> String {
        format!("{}:{worker}", self.0.inflight_jobs_set())
    }

    fn metadata(&self, worker: &str) -> String {
        format!("{}:metadata:{worker}", self.0.workers_set())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> QueueSettings {
        QueueSettings {
            prefix: "zhilian".to_owned(),
            memory_capacity: 10,
            poll_ms: 50,
            response_timeout_secs: 10,
            connect_timeout_secs: 2,
            orphan_secs: 600,
            sweep_secs: 5,
        }
    }

    #[test]
    fn a_malformed_address_is_refused_by_name_and_without_its_password() {
        for url in
            ["http://user:hunter2@host", "redis://user:hunter2@host/no-number", "hunter2", "", "redis://"]
        {
            let Err(error) = RedisQueue::new(url, &settings()) else {
                continue;
            };
            let text = format!("{error} {error:?}");
            assert!(text.contains("REDIS_URL") && !text.contains("hunter2"), "{url}: {text}");
        }
        assert!(RedisQueue::new("http://user:hunter2@host", &settings()).is_err());
        assert!(RedisQueue::new("hunter2", &settings()).is_err());
        let error = RedisQueue::new("rediss://:hunter2@host", &settings()).unwrap_err().to_string();
        assert!(error.contains("TLS") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_password_is_not_in_what_debug_prints() {
        let queue = RedisQueue::new("redis://user:hunter2@host:7000/3", &settings()).unwrap();
        assert!(!format!("{queue:?}").contains("hunter2"));
    }

    #[test]
    fn apalis_is_set_as_its_defects_demand() {
        let queue = RedisQueue::new("redis://host", &settings()).unwrap();
        let config = queue.config(Lane::Syncs);
        assert!(!config.lock_tasks && config.persist_results && !config.emit_events);
        assert_eq!(config.orphaned_duration(), Duration::from_mins(10));
        assert_eq!(queue.keys(Lane::Syncs).active(), "zhilian:syncs:active");
        assert_eq!(queue.keys(Lane::Hooks).metadata("w"), "zhilian:hooks:workers:metadata:w");
    }
}
