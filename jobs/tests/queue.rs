//! What every queue must do: the same tests on the in-process queue and on Redis. What only Redis can
//! suffer is in `faults`, which starts servers of its own to break them.
//!
//! Redis is found by `TEST_REDIS_URL`; where it is absent its tests say so and pass, or fail if
//! `ZHILIAN_REQUIRE_BACKENDS` is `1`.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use zhilian_sync_store::{Lane, RunId};

#[path = "queue/faults.rs"]
mod faults;
#[path = "queue/support.rs"]
mod support;

use support::{Bench, Gate, runs, within};

macro_rules! on_every_queue {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Bench::memory(10_000)).await;
            })+
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(bench) = super::Bench::redis().await {
                    super::$name(bench).await;
                }
            })+
        }
    };
}

on_every_queue! {
    every_ring_is_handled_once,
    an_idle_worker_hears_a_ring_at_once,
    a_panic_costs_its_own_message_only,
    a_stop_drains_running_handlers_and_leaves_the_rest,
    two_workers_share_a_lane,
    lanes_do_not_mix,
    no_more_handlers_run_than_allowed,
    a_stop_before_the_start_starts_nothing,
    the_epoch_is_one_word_for_all,
}

async fn every_ring_is_handled_once(bench: Bench) {
    let runs = runs(1_203);
    let worker = bench.worker(Lane::Syncs, 8);
    assert_eq!(bench.queue.ring(Lane::Syncs, &runs).await.unwrap(), runs.len());
    worker.handled(runs.len()).await;
    assert_eq!(worker.heard(), runs.iter().copied().collect::<HashSet<_>>());
    worker.stop().await;
    assert_eq!(bench.queue.depth(Lane::Syncs).await.unwrap(), 0);
    assert_eq!(worker.count(), runs.len(), "each one once");
}

async fn an_idle_worker_hears_a_ring_at_once(bench: Bench) {
    let worker = bench.worker(Lane::Interactive, 4);
    bench.queue.ring(Lane::Interactive, &runs(1)).await.unwrap();
    worker.handled(1).await;
    for count in 2..=10 {
        let rung = Instant::now();
        bench.queue.ring(Lane::Interactive, &runs(1)).await.unwrap();
        worker.handled(count).await;
        // A wake-up that got lost would be made good by the heartbeat only, after up to 5 s.
        assert!(rung.elapsed() < Duration::from_secs(1), "took {:?}", rung.elapsed());
    }
    worker.stop().await;
}

async fn a_panic_costs_its_own_message_only(bench: Bench) {
    let runs = runs(60);
    let bad: HashSet<RunId> = runs.iter().copied().step_by(3).collect();
    let also_bad = bad.clone();
    let worker = bench.worker_with(Lane::Syncs, 4, move |run| {
        // Both before there is a future and inside of it.
        assert!(!also_bad.contains(&run) || run.0.as_bytes()[15] % 2 == 0, "broken handler");
        let panics = also_bad.contains(&run);
        async move { assert!(!panics, "broken future") }.boxed()
    });
    bench.queue.ring(Lane::Syncs, &runs).await.unwrap();
    worker.handled(runs.len() - bad.len()).await;
    worker.stop().await;
    assert!(worker.heard().is_disjoint(&bad));
    assert_eq!(bench.queue.depth(Lane::Syncs).await.unwrap(), 0, "not delivered again by the queue");
}

async fn a_stop_drains_running_handlers_and_leaves_the_rest(bench: Bench) {
    let gate = Gate::closed();
    let worker = bench.worker_with(Lane::Syncs, 2, gate.handler());
    let runs = runs(30);
    bench.queue.ring(Lane::Syncs, &runs).await.unwrap();
    gate.entered(2).await;
    worker.ask_to_stop();
    assert!(!worker.ends_within(Duration::from_millis(300)).await, "two handlers are still running");
    gate.open();
    worker.stop().await;
    assert_eq!(worker.count(), 2, "the running ones finished, no other began");
    assert_eq!(bench.queue.depth(Lane::Syncs).await.unwrap(), 28);

    let next = bench.worker(Lane::Syncs, 4);
    next.handled(28).await;
    next.stop().await;
    let all: HashSet<RunId> = worker.heard().union(&next.heard()).copied().collect();
    assert_eq!(all, runs.into_iter().collect());
}

async fn two_workers_share_a_lane(bench: Bench) {
    let gate = Gate::closed();
    let workers = [
        bench.worker_with(Lane::Syncs, 1, gate.handler()),
        bench.worker_with(Lane::Syncs, 1, gate.handler()),
    ];
    // One is busy with the first, so the second can only be heard by the other.
    bench.queue.ring(Lane::Syncs, &runs(1)).await.unwrap();
    gate.entered(1).await;
    bench.queue.ring(Lane::Syncs, &runs(1)).await.unwrap();
    gate.entered(2).await;
    gate.open();
    bench.queue.ring(Lane::Syncs, &runs(600)).await.unwrap();
    within(30, "all are handled", || workers[0].count() + workers[1].count() >= 602).await;
    for worker in &workers {
        worker.stop().await;
        assert!(worker.count() > 0);
    }
    assert_eq!(workers[0].count() + workers[1].count(), 602, "each one once");
}

async fn lanes_do_not_mix(bench: Bench) {
    let worker = bench.worker(Lane::Hooks, 4);
    bench.queue.ring(Lane::Syncs, &runs(5)).await.unwrap();
    bench.queue.ring(Lane::Hooks, &runs(3)).await.unwrap();
    worker.handled(3).await;
    worker.stop().await;
    assert_eq!(worker.count(), 3);
    assert_eq!(bench.queue.depth(Lane::Syncs).await.unwrap(), 5);
    assert_eq!(bench.queue.depth(Lane::Hooks).await.unwrap(), 0);
}

async fn no_more_handlers_run_than_allowed(bench: Bench) {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (running.clone(), most.clone());
    let worker = bench.worker_with(Lane::Syncs, 7, move |_| {
        let (running, most) = counted.clone();
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
        }
        .boxed()
    });
    bench.queue.ring(Lane::Syncs, &runs(500)).await.unwrap();
    worker.handled(500).await;
    worker.stop().await;
    assert!((1..=7).contains(&most.load(Ordering::SeqCst)), "{most:?}");
}

async fn a_stop_before_the_start_starts_nothing(bench: Bench) {
    bench.queue.ring(Lane::Syncs, &runs(2)).await.unwrap();
    let worker = bench.worker_stopped(Lane::Syncs);
    worker.stop().await;
    assert_eq!(worker.count(), 0);
    assert_eq!(bench.queue.depth(Lane::Syncs).await.unwrap(), 2);
}

async fn the_epoch_is_one_word_for_all(bench: Bench) {
    let (first, second) = tokio::join!(bench.queue.epoch(), bench.queue.epoch());
    let first = first.unwrap();
    assert!(first.is_some());
    assert_eq!(first, second.unwrap());
    assert_eq!(first, bench.queue.clone().epoch().await.unwrap());
    bench.queue.ping().await.unwrap();
}

#[tokio::test]
async fn a_full_memory_queue_accepts_fewer() {
    let bench = Bench::memory(3);
    let runs = runs(5);
    assert_eq!(bench.queue.ring(Lane::Hooks, &runs).await.unwrap(), 3);
    assert_eq!(bench.queue.ring(Lane::Hooks, &runs[3..]).await.unwrap(), 0);
    let worker = bench.worker(Lane::Hooks, 1);
    worker.handled(3).await;
    assert_eq!(bench.queue.ring(Lane::Hooks, &runs[3..]).await.unwrap(), 2);
    worker.handled(5).await;
    worker.stop().await;
    assert_eq!(worker.heard(), runs.into_iter().collect());
}
