//! The doorbell of the lane `hooks`, rung after commits. At most one ring is under way, whatever is committed
//! meanwhile shares the next, and no answer waits for any. A ring that is lost is made good by the scheduler:
//! the events are rows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zhilian_sync_store::{Clock, Lane, RunId};

use crate::queue::{Queue, QueueError};

/// So many messages that nobody has taken are enough: each makes its worker look into the inbox after this
/// moment, and a worker that finds more than it can take rings itself.
const UNHEARD_ENOUGH: u64 = 2;

/// Rings of a busy inbox are so far apart: each wakes a worker, who had rather find many events than few. The first
/// after a silence is rung at once.
const RING_EVERY: Duration = Duration::from_millis(5);

/// Asks for rings. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ringer(Arc<Notify>);

impl Ringer {
    /// Starts the task that rings.
    pub(super) fn start(queue: Queue, clock: Clock, stop: CancellationToken) -> Self {
        let wanted = Arc::new(Notify::new());
        tokio::spawn(run(queue, clock, wanted.clone(), stop));
        Self(wanted)
    }

    /// Asks for one ring from now on; many wishes at a time are one.
    pub(super) fn ring(&self) {
        self.0.notify_one();
    }
}

async fn run(queue: Queue, clock: Clock, wanted: Arc<Notify>, stop: CancellationToken) {
    let mut away = false;
    while stop.run_until_cancelled(wanted.notified()).await.is_some() {
        let next = Instant::now() + RING_EVERY;
        match ring(&queue, &clock).await {
            Ok(()) if away => {
                tracing::info!("the queue is back; webhooks ring again");
                away = false;
            }
            Err(error) if !away => {
                tracing::warn!(%error, "could not ring for webhooks; the scheduler rings");
                away = true;
            }
            Ok(()) | Err(_) => {}
        }
        tokio::time::sleep_until(next).await;
    }
}

/// Rings once, unless enough messages wait.
pub(super) async fn ring(queue: &Queue, clock: &Clock) -> Result<(), QueueError> {
    if queue.depth(Lane::Hooks).await? < UNHEARD_ENOUGH {
        // Any id means "look into the inbox". A full queue accepts none, and has been rung enough.
        queue.ring(Lane::Hooks, &[RunId(clock.new_id())]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::QueueSettings;

    fn queue() -> Queue {
        Queue::memory(&QueueSettings {
            prefix: String::new(),
            memory_capacity: 100,
            poll_ms: 20,
            response_timeout_secs: 10,
            connect_timeout_secs: 2,
            orphan_secs: 600,
            sweep_secs: 5,
        })
    }

    #[tokio::test]
    async fn a_thousand_wishes_are_a_few_messages() {
        let (queue, clock) = (queue(), Clock::system());
        for _ in 0..1_000 {
            ring(&queue, &clock).await.unwrap();
        }
        assert_eq!(queue.depth(Lane::Hooks).await.unwrap(), UNHEARD_ENOUGH);
    }

    #[tokio::test]
    async fn wishes_of_one_moment_share_a_ring() {
        let (queue, stop) = (queue(), CancellationToken::new());
        let ringer = Ringer::start(queue.clone(), Clock::system(), stop.clone());
        for _ in 0..50 {
            ringer.ring();
        }
        // One thread: the task has not run yet, and hears of fifty wishes at once.
        while queue.depth(Lane::Hooks).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert_eq!(queue.depth(Lane::Hooks).await.unwrap(), 1);
        stop.cancel();
    }
}
