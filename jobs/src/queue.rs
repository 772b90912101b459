//! The doorbell: tells a worker "look at this run". Here and below are the only places that name apalis.
//!
//! A message holds a run's id and nothing else; everything worth keeping is on the run's row. So a
//! lost message is late at most (the scheduler rings again), a doubled one is harmless (the claim is
//! a compare-and-set), and both queues behave alike: in-process memory for the embedded default,
//! Redis through apalis-redis for several processes.
//!
//! `ring` and the other calls of this file are the producers' side; `supervise` runs the workers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use zhilian_sync_store::{Lane, RunId};

use crate::settings::QueueSettings;

mod backend;
mod memory;
mod redis;
mod scripts;
mod supervise;

pub use memory::MemoryQueue;
pub use redis::RedisQueue;
pub use supervise::supervise;

/// Why a queue could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The address of Redis cannot be used at all; says so without the password in it.
    #[error("`REDIS_URL` {reason}; expected `redis://[user:password@]host[:port][/database]`")]
    Address {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Redis is not there, or refused a command.
    #[error("redis: {0}")]
    Redis(#[from] ::redis::RedisError),
    /// Redis did not answer in time.
    #[error("redis did not answer within {0:?}")]
    TimedOut(Duration),
    /// Redis did not answer a moment ago and is left alone for a while.
    #[error("redis did not answer a moment ago; it is asked again within {0:?}")]
    Resting(Duration),
    /// The worker of a lane lost its queue.
    #[error("redis queue: {0}")]
    Worker(#[from] apalis_redis::Error),
}

/// Where messages travel. Cheap to clone; clones are the same queue.
#[derive(Debug, Clone)]
pub enum Queue {
    /// Inside this process; empty after a restart.
    Memory(MemoryQueue),
    /// In Redis, shared by every process of the installation.
    Redis(RedisQueue),
}

impl Queue {
    /// A queue inside this process.
    #[must_use]
    pub fn memory(settings: &QueueSettings) -> Self {
        Self::Memory(MemoryQueue::new(settings.memory_capacity))
    }

    /// A queue in Redis. Connects with the first command and again whenever that is needed, so it
    /// fails only when `url` cannot be an address of Redis, not when Redis is down.
    #[expect(
        clippy::unused_async,
        reason = "the connections need a runtime, which a sync caller may not have"
    )]
    pub async fn redis(url: &str, settings: &QueueSettings) -> Result<Self, QueueError> {
        RedisQueue::new(url, settings).map(Self::Redis)
    }

    /// Says that these runs are to be looked at.
    ///
    /// Answers how many were accepted, counted from the front of `runs`. A full in-process queue
    /// accepts fewer, which is not an error: the rest is rung later. Never waits long; an error
    /// means that none is known to be accepted.
    pub async fn ring(&self, lane: Lane, runs: &[RunId]) -> Result<usize, QueueError> {
        match self {
            Self::Memory(queue) => Ok(queue.ring(lane, runs)),
            Self::Redis(queue) => queue.ring(lane, runs).await,
        }
    }

    /// How many messages of a lane wait for a worker. Those that a worker holds do not count.
    pub async fn depth(&self, lane: Lane) -> Result<u64, QueueError> {
        match self {
            Self::Memory(queue) => Ok(queue.depth(lane)),
            Self::Redis(queue) => queue.depth(lane).await,
        }
    }

    /// A random word that lives as long as the queue's content: another word than last time means
    /// that the queue was emptied. In memory it is the same for the life of the process.
    pub async fn epoch(&self) -> Result<Option<String>, QueueError> {
        match self {
            Self::Memory(queue) => Ok(Some(queue.epoch().to_owned())),
            Self::Redis(queue) => queue.epoch().await.map(Some),
        }
    }

    /// Removes what finished messages leave behind; answers how many. To be called every few
    /// seconds by one process or by all: without it Redis grows with every message.
    pub async fn sweep(&self) -> Result<u64, QueueError> {
        match self {
            Self::Memory(_) => Ok(0),
            Self::Redis(queue) => queue.sweep().await,
        }
    }

    /// Whether the queue answers.
    pub async fn ping(&self) -> Result<(), QueueError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(queue) => queue.ping().await,
        }
    }
}

/// What a message in Redis holds. Members may be added with a serde default, never removed:
/// processes of two versions share a queue while they are being replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Message {
    run: RunId,
}

impl Message {
    fn encode(run: RunId) -> String {
        serde_json::to_string(&Self { run }).expect("an id is always JSON")
    }
}

/// What reaches the worker's handler.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Delivery {
    /// Look at this run.
    Run(RunId),
    /// Not a message of ours; it is dropped with a warning. Left to apalis it would end the worker.
    Undecodable(String),
}

impl Delivery {
    fn decode(bytes: &[u8]) -> Self {
        match serde_json::from_slice::<Message>(bytes) {
            Ok(message) => Self::Run(message.run),
            Err(error) => Self::Undecodable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_id_of_the_run_and_members_of_later_versions_are_passed_over() {
        let id = "0197a6c8-8a40-7cc3-9a3e-0123456789ab";
        let run: RunId = id.parse().unwrap();
        let text = Message::encode(run);
        assert_eq!(text, format!(r#"{{"run":"{id}"}}"#));
        assert_eq!(Delivery::decode(text.as_bytes()), Delivery::Run(run));
        let later = format!(r#"{{"run":"{id}","hint":{{"page":7}}}}"#);
        assert_eq!(Delivery::decode(later.as_bytes()), Delivery::Run(run));
    }

    #[test]
    fn what_is_no_message_is_told_apart() {
        for bytes in [&b"not json"[..], b"{}", b"{\"run\":7}", b"\xff\xfe", b""] {
            assert!(matches!(Delivery::decode(bytes), Delivery::Undecodable(_)), "{bytes:?}");
        }
    }
}
