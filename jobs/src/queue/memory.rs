//! The in-process queue of the embedded default: one bounded list per lane.
//!
//! The lists outlive the workers, so a worker that is started again finds what the last one left.
//! They do not outlive the process; the rows do, and the scheduler rings again after a start.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use zhilian_sync_store::{Lane, RunId};

/// A bounded queue inside this process. Cheap to clone; clones are the same queue.
#[derive(Debug, Clone)]
pub struct MemoryQueue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lanes: Vec<Mutex<Waiting>>,
    capacity: usize,
}

/// What waits in one lane, and who waits for it.
#[derive(Debug, Default)]
struct Waiting {
    runs: VecDeque<RunId>,
    workers: Vec<Waker>,
}

impl MemoryQueue {
    /// An empty queue whose lanes hold `capacity` messages each.
    pub(super) fn new(capacity: usize) -> Self {
        let lanes = Lane::ALL.iter().map(|_| Mutex::default()).collect();
        Self(Arc::new(Inner { lanes, capacity }))
    }

    /// Takes as many as there is room for, from the front, and wakes the workers at once.
    pub(super) fn ring(&self, lane: Lane, runs: &[RunId]) -> usize {
        let mut waiting = self.lane(lane);
        let room = self.0.capacity.saturating_sub(waiting.runs.len());
        let accepted = runs.len().min(room);
        waiting.runs.extend(&runs[..accepted]);
        let workers = if accepted == 0 { Vec::new() } else { std::mem::take(&mut waiting.workers) };
        drop(waiting);
        // All of them: one that has since stopped must not swallow the only wake-up.
        for worker in workers {
            worker.wake();
        }
        accepted
    }

    pub(super) fn depth(&self, lane: Lane) -> u64 {
        u64::try_from(self.lane(lane).runs.len()).unwrap_or(u64::MAX)
    }

    #[expect(clippy::unused_self, reason = "the same question is put to both queues")]
    pub(super) fn epoch(&self) -> &'static str {
        "memory"
    }

    /// The next message; without one, `cx` is woken by the next `ring`.
    pub(super) fn poll_take(&self, lane: Lane, cx: &Context<'_>) -> Poll<RunId> {
        let mut waiting = self.lane(lane);
        if let Some(run) = waiting.runs.pop_front() {
            return Poll::Ready(run);
        }
        if !waiting.workers.iter().any(|worker| worker.will_wake(cx.waker())) {
            waiting.workers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn lane(&self, lane: Lane) -> MutexGuard<'_, Waiting> {
        let at = Lane::ALL.iter().position(|known| *known == lane).unwrap_or_default();
        // Nothing that runs under the lock can panic half way; a poisoned list is a whole list.
        self.0.lanes[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(count: u128) -> Vec<RunId> {
        (0..count).map(|number| RunId(uuid::Uuid::from_u128(number))).collect()
    }

    #[test]
    fn a_full_lane_accepts_fewer_and_leaves_the_other_lanes_alone() {
        let queue = MemoryQueue::new(3);
        let runs = runs(5);
        assert_eq!(queue.ring(Lane::Hooks, &runs[..2]), 2);
        assert_eq!(queue.ring(Lane::Hooks, &runs[2..]), 1);
        assert_eq!(queue.ring(Lane::Hooks, &runs), 0);
        assert_eq!(queue.ring(Lane::Syncs, &runs[..3]), 3);
        assert_eq!(queue.depth(Lane::Hooks), 3);
        assert_eq!(queue.depth(Lane::Upkeep), 0);
    }

    #[test]
    fn messages_leave_in_the_order_they_came() {
        let queue = MemoryQueue::new(10);
        let runs = runs(4);
        queue.ring(Lane::Syncs, &runs);
        let cx = Context::from_waker(Waker::noop());
        let taken = std::iter::from_fn(|| match queue.poll_take(Lane::Syncs, &cx) {
            Poll::Ready(run) => Some(run),
            Poll::Pending => None,
        });
        assert_eq!(taken.collect::<Vec<_>>(), runs);
    }
}
