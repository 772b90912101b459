//! Who hears that there is something in the inbox: colleagues, the scheduler, workers of either queue, and a
//! process that starts after another was cut off.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;
use zhilian_sync_jobs::inbox::apply;
use zhilian_sync_jobs::queue::Queue;
use zhilian_sync_jobs::scheduler::Scheduler;
use zhilian_sync_jobs::settings::QueueSettings;
use zhilian_sync_jobs::{Context, worker};
use zhilian_sync_store::webhook_events::WebhookState;
use zhilian_sync_store::{Clock, DatabaseKind, Lane, RunId};

use crate::support::{Bench, saved, section};

/// What any wait of these tests may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

async fn depth(ctx: &Context) -> u64 {
    ctx.queue.depth(Lane::Hooks).await.unwrap()
}

pub(crate) async fn a_full_batch_calls_a_colleague(mut bench: Bench) {
    bench.set(|webhooks| webhooks.apply_batch = 3);
    let system = bench.system().await;
    bench.receive(system, &[saved("A", "1.00", 0), saved("B", "1.00", 0)]).await;
    assert_eq!(bench.work().await, 2);
    assert_eq!(depth(&bench.ctx).await, 0, "one worker is enough");
    let bodies: Vec<_> = (0..7).map(|n| saved(&format!("C{n}"), "1.00", 0)).collect();
    bench.receive(system, &bodies).await;
    assert_eq!(bench.work().await, 7, "it goes on until nothing is due, too");
    assert!(depth(&bench.ctx).await > 0, "there may have been more than it could take");
    assert_eq!(bench.orders(system).await, 9);
}

pub(crate) async fn the_scheduler_rings_for_what_is_due_and_not_twice(bench: Bench) {
    let system = bench.system().await;
    let mut scheduler = Scheduler::default();
    scheduler.round(&bench.ctx).await;
    assert_eq!(depth(&bench.ctx).await, 0, "nothing is due");
    bench.receive(system, &[saved("A", "1.00", 0)]).await;
    for _ in 0..5 {
        scheduler.round(&bench.ctx).await;
    }
    assert_eq!(depth(&bench.ctx).await, 1, "one message says it");
    bench.drain().await;
    assert_eq!(bench.orders(system).await, 1);
}

pub(crate) async fn a_backlog_shared_by_many_workers_is_applied_once(mut bench: Bench) {
    bench.set(|webhooks| webhooks.apply_batch = 40);
    let systems = [bench.system().await, bench.system().await, bench.system().await];
    for round in 0..4 {
        for system in systems {
            // Every order four times, in versions of no particular order.
            let bodies: Vec<_> = (0..60)
                .map(|n| saved(&format!("A{n}"), &format!("{}.00", (n + round * 7) % 4), (n + round * 7) % 4))
                .collect();
            bench.receive(system, &bodies).await;
        }
        bench.advance(TimeDelta::milliseconds(1));
    }
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let mut ctx = bench.process(None);
            ctx.webhooks = bench.ctx.webhooks.clone();
            tokio::spawn(async move { apply::work(&ctx, &CancellationToken::new()).await })
        })
        .collect();
    let mut claimed = 0;
    for worker in workers {
        claimed += worker.await.unwrap();
    }
    assert_eq!(claimed, 720, "every event was claimed once");
    assert_eq!(bench.in_state(WebhookState::Pending).await, []);
    for system in systems {
        assert_eq!(bench.orders(system).await, 60);
        for n in 0..60 {
            let newest = (0..4).map(|round| (n + round * 7) % 4).max().unwrap();
            assert_eq!(bench.order(system, &format!("A{n}")).await.unwrap().total, newest * 100);
        }
    }
    let counted: i64 = bench.minutes().await.iter().map(|log| log.records_total).sum();
    assert_eq!(counted, 720);
}

pub(crate) async fn an_interrupted_process_frees_its_events_at_its_start(bench: Bench) {
    let system = bench.system().await;
    bench.receive(system, &[saved("A", "1.00", 0)]).await;
    assert_eq!(bench.claim_and_fall_silent().await.len(), 1);
    let mut scheduler = Scheduler::default();
    scheduler.take_over(&bench.ctx).await.unwrap();
    bench.drain().await;
    // The embedded database belongs to one process, so whoever held the claim is gone; PostgreSQL may have
    // others, whose leases are theirs.
    let alone = bench.store().pool().kind() == DatabaseKind::Sqlite;
    assert_eq!(bench.orders(system).await, i64::from(alone));
    bench.drain_to_the_end().await;
    assert_eq!(bench.orders(system).await, 1);
}

/// Workers of the whole process, on a queue of either kind: any message makes them look into the inbox.
async fn any_message_makes_a_worker_look(bench: Bench, queue: Queue) {
    let ctx = bench.process(Some(queue));
    let system = bench.system().await;
    let bodies: Vec<_> = (0..30).map(|n| saved(&format!("A{n}"), "1.00", 0)).collect();
    bench.receive(system, &bodies).await;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(worker::serve(ctx.clone(), stop.clone()));
    let nobodys = RunId(bench.store().clock().new_id());
    assert_eq!(ctx.queue.ring(Lane::Hooks, &[nobodys]).await.unwrap(), 1);
    let started = Instant::now();
    let mut look = tokio::time::interval(Duration::from_millis(20));
    while bench.orders(system).await < 30 {
        assert!(started.elapsed() < PATIENCE, "the ring was not heard");
        look.tick().await;
    }
    stop.cancel();
    serving.await.unwrap();
    assert!(bench.in_state(WebhookState::Pending).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_message_in_memory_makes_a_worker_look() {
    let queue = Queue::memory(&section::<QueueSettings>("queue"));
    any_message_makes_a_worker_look(Bench::sqlite().await, queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_message_in_redis_makes_a_worker_look() {
    #[expect(clippy::disallowed_methods, reason = "tests are told where their backends are")]
    let (url, required) =
        (std::env::var_os("TEST_REDIS_URL"), std::env::var_os("ZHILIAN_REQUIRE_BACKENDS").is_some());
    let Some(url) = url else {
        assert!(!required, "TEST_REDIS_URL is not set, and ZHILIAN_REQUIRE_BACKENDS demands Redis");
        eprintln!("SKIPPED on Redis: TEST_REDIS_URL is not set (scripts/test sets it)");
        return;
    };
    let settings: QueueSettings = section("queue");
    let settings = QueueSettings { prefix: format!("test:{}", Clock::system().new_id()), ..settings };
    let queue = Queue::redis(url.to_str().unwrap(), &settings).await.unwrap();
    let Some(bench) = Bench::postgres().await else { return };
    any_message_makes_a_worker_look(bench, queue).await;
}
