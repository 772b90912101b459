//! What only Redis can suffer: emptied, killed, away, slow, full of old messages or of somebody
//! else's. Each test breaks a server of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use zhilian_sync_jobs::queue::{Queue, QueueError};
use zhilian_sync_store::{Lane, RunId};

use crate::support::{Bench, Gate, Server, Worker, runs};

/// Rings as the scheduler does, again and again, until the run is handled; answers how long it took.
async fn ring_until_heard(bench: &Bench, worker: &Worker, run: RunId) -> Duration {
    let started = Instant::now();
    let mut again = tokio::time::interval(Duration::from_millis(200));
    while !worker.heard().contains(&run) {
        assert!(started.elapsed() < Duration::from_secs(20), "the lane does not work again");
        again.tick().await;
        // An error is what is expected while Redis is away.
        let _ = bench.queue.ring(Lane::Syncs, &[run]).await;
        again.tick().await;
    }
    started.elapsed()
}

/// Starts a lane and has it handle one message, so that it is registered and idle.
async fn idle_worker(bench: &Bench) -> Worker {
    let worker = bench.worker(Lane::Syncs, 4);
    bench.queue.ring(Lane::Syncs, &runs(1)).await.unwrap();
    worker.handled(1).await;
    worker
}

fn key(bench: &Bench, rest: &str) -> String {
    format!("{}:{}:{rest}", bench.settings.prefix, Lane::Syncs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emptied_while_idle_it_works_again_within_seconds_and_the_epoch_tells() {
    let Some(server) = Server::start().await else {
        return;
    };
    let bench = Bench::on(&server.url()).await;
    let epoch = bench.queue.epoch().await.unwrap();
    let worker = idle_worker(&bench).await;
    server.ask::<()>(redis::cmd("FLUSHALL")).await.unwrap();
    let took = ring_until_heard(&bench, &worker, runs(1)[0]).await;
    assert!(took < Duration::from_secs(5), "took {took:?}");
    assert_ne!(bench.queue.epoch().await.unwrap(), epoch);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emptied_while_busy_running_handlers_finish_and_it_works_again() {
    let Some(server) = Server::start().await else {
        return;
    };
    let bench = Bench::on(&server.url()).await;
    let gate = Gate::closed();
    let worker = bench.worker_with(Lane::Syncs, 4, gate.handler());
    bench.queue.ring(Lane::Syncs, &runs(4)).await.unwrap();
    gate.entered(4).await;
    server.ask::<()>(redis::cmd("FLUSHALL")).await.unwrap();
    // The handlers still hold every slot when the worker notices, so nothing new begins before.
    gate.open();
    worker.handled(4).await;
    let took = ring_until_heard(&bench, &worker, runs(1)[0]).await;
    assert!(took < Duration::from_secs(8), "took {took:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_started_again_empty_it_works_again() {
    let Some(server) = Server::start().await else {
        return;
    };
    let bench = Bench::on(&server.url()).await;
    let gate = Gate::closed();
    let worker = bench.worker_with(Lane::Syncs, 4, gate.handler());
    let before = bench.queue.epoch().await.unwrap();
    bench.queue.ring(Lane::Syncs, &runs(2)).await.unwrap();
    gate.entered(2).await;
    server.kill();
    server.up().await;
    gate.open();
    worker.handled(2).await;
    let took = ring_until_heard(&bench, &worker, runs(1)[0]).await;
    assert!(took < Duration::from_secs(8), "took {took:?}");
    assert_ne!(bench.queue.epoch().await.unwrap(), before);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_for_seconds_rings_fail_fast_and_it_works_when_redis_is_back() {
    let Some(server) = Server::start().await else {
        return;
    };
    let bench = Bench::on(&server.url()).await;
    let worker = idle_worker(&bench).await;
    server.kill();
    let gone = Instant::now();
    let mut tries = tokio::time::interval(Duration::from_millis(100));
    while gone.elapsed() < Duration::from_secs(6) {
        tries.tick().await;
        let asked = Instant::now();
        assert!(bench.queue.ring(Lane::Syncs, &runs(1)).await.is_err());
        assert!(asked.elapsed() < Duration::from_secs(1), "took {:?}", asked.elapsed());
        assert!(bench.queue.ping().await.is_err());
    }
    server.up().await;
    let took = ring_until_heard(&bench, &worker, runs(1)[0]).await;
    assert!(took < Duration::from_secs(8), "took {took:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn started_while_redis_is_away_it_begins_when_redis_comes() {
    let Some(server) = Server::down() else { return };
    let bench = Bench::on(&server.url()).await;
    let worker = bench.worker(Lane::Syncs, 4);
    assert!(matches!(bench.queue.ring(Lane::Syncs, &runs(1)).await, Err(QueueError::Redis(_))));
    assert!(matches!(bench.queue.depth(Lane::Syncs).await, Err(QueueError::Resting(_))));
    assert!(!worker.ends_within(Duration::from_secs(2)).await);
    server.up().await;
    let took = ring_until_heard(&bench, &worker, runs(1)[0]).await;
    assert!(took < Duration::from_secs(8), "took {took:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_while_redis_is_away_ends_after_the_handlers() {
    let Some(server) = Server::start().await else {
        return;
    };
    let bench = Bench::on(&server.url()).await;
    let gate = Gate::closed();
    let worker = bench.worker_with(Lane::Syncs, 4, gate.handler());
    bench.queue.ring(Lane::Syncs, &runs(3)).await.unwrap();
    gate.entered(3).await;
    server.kill();
    worker.ask_to_stop();
    assert!(!worker.ends_within(Duration::from_millis(500)).await, "three handlers are still running");
    gate.open();
    assert!(worker.ends_within(Duration::from_secs(10)).await);
    assert_eq!(worker.count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_of_thousands_drains_and_leaves_nothing_behind() {
    let Some(server) = Server::start().await else {
        return;
    };
    let bench = Bench::on(&server.url()).await;
    // Scripts and connections are there before the base is taken.
    let first = idle_worker(&bench).await;
    first.stop().await;
    bench.queue.sweep().await.unwrap();
    bench.queue.epoch().await.unwrap();
    let (base, base_keys) = (server.memory().await, server.keys().await);

    let runs = runs(12_500);
    assert_eq!(bench.queue.ring(Lane::Syncs, &runs).await.unwrap(), runs.len());
    assert_eq!(bench.queue.depth(Lane::Syncs).await.unwrap(), 12_500);
    let full = server.memory().await;
    let worker = bench.worker(Lane::Syncs, 50);
    worker.handled(runs.len()).await;
    worker.stop().await;
    assert_eq!(worker.heard(), runs.into_iter().collect());
    assert_eq!(worker.count(), 12_500, "each one once");

    assert_eq!(bench.queue.sweep().await.unwrap(), 12_500);
    assert_eq!(bench.queue.sweep().await.unwrap(), 0);
    assert_eq!(server.keys().await, base_keys);
    assert_eq!(base_keys, ["core:apalis:queues:list".to_owned(), format!("{}:epoch", bench.settings.prefix)]);
    let after = server.memory().await;
    assert!(full - base > 3_000_000 && after < base + 500_000, "base {base}, full {full}, after {after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_does_not_end_the_worker() {
    let Some(server) = Server::start().await else {
        return;
    };
    let bench = Bench::on(&server.url()).await;
    let worker = idle_worker(&bench).await;
    for (number, payload) in
        [&b"not json"[..], b"{}", b"\xff\xfe", b"{\"run\":\"x\"}"].into_iter().enumerate()
    {
        let id = format!("01ARZ3NDEKTSV4RRFFQ69G5FA{number}");
        server
            .ask::<()>(redis::cmd("HSET").arg(key(&bench, "data")).arg(&id).arg(payload).to_owned())
            .await
            .unwrap();
        let mut meta = redis::cmd("HSET");
        meta.arg(key(&bench, &format!("meta:{id}")));
        meta.arg(&["attempts", "0", "max_attempts", "1", "status", "Pending"]);
        server.ask::<()>(meta).await.unwrap();
        server.ask::<()>(redis::cmd("RPUSH").arg(key(&bench, "active")).arg(&id).to_owned()).await.unwrap();
    }
    let registered: Vec<String> = workers(&server, &bench).await;
    bench.queue.ring(Lane::Syncs, &runs(5)).await.unwrap();
    worker.handled(6).await;
    assert_eq!(workers(&server, &bench).await, registered, "the same worker, not one started after it");
    worker.stop().await;
    bench.queue.sweep().await.unwrap();
    assert_eq!(server.keys().await, ["core:apalis:queues:list"]);
}

/// The names of the workers that Redis knows.
async fn workers(server: &Server, bench: &Bench) -> Vec<String> {
    server.ask(redis::cmd("ZRANGE").arg(key(bench, "workers")).arg(0).arg(-1).to_owned()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_without_a_message_end_one_worker_and_never_a_second() {
    let Some(server) = Server::start().await else {
        return;
    };
    let bench = Bench::on(&server.url()).await;
    // Somebody evicted the payload of one, and the description of another.
    let runs = runs(8);
    bench.queue.ring(Lane::Syncs, &runs).await.unwrap();
    let ids: Vec<String> =
        server.ask(redis::cmd("LRANGE").arg(key(&bench, "active")).arg(0).arg(-1).to_owned()).await.unwrap();
    server.ask::<()>(redis::cmd("HDEL").arg(key(&bench, "data")).arg(&ids[2]).to_owned()).await.unwrap();
    server
        .ask::<()>(redis::cmd("DEL").arg(key(&bench, &format!("meta:{}", ids[5]))).to_owned())
        .await
        .unwrap();
    let started = Instant::now();
    let worker = bench.worker(Lane::Syncs, 4);
    worker.handled(7).await;
    // The first worker dies of it, the second one works: one delay, not a series of them.
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
    worker.stop().await;
    assert!(!worker.heard().contains(&runs[2]) && worker.count() == 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_killed_process_wait_for_the_orphan_limit_and_no_longer() {
    let Some(server) = Server::start().await else {
        return;
    };
    let mut bench = Bench::on(&server.url()).await;
    bench.settings.orphan_secs = 10;
    bench.queue = Queue::redis(&server.url(), &bench.settings).await.unwrap();
    let runs = runs(3);
    bench.queue.ring(Lane::Syncs, &runs).await.unwrap();
    let ids: Vec<String> =
        server.ask(redis::cmd("LPOP").arg(key(&bench, "active")).arg(3).to_owned()).await.unwrap();
    // As a killed worker leaves it: it holds them, and its last heartbeat was long ago.
    server
        .ask::<()>(redis::cmd("SADD").arg(key(&bench, "inflight:gone")).arg(&ids).to_owned())
        .await
        .unwrap();
    server
        .ask::<()>(redis::cmd("ZADD").arg(key(&bench, "workers")).arg(1).arg("gone").to_owned())
        .await
        .unwrap();
    let worker = bench.worker(Lane::Syncs, 4);
    worker.handled(3).await;
    worker.stop().await;
    assert_eq!(worker.heard(), runs.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_answer_does_not_put_the_worker_to_sleep() {
    let Some(server) = Server::start().await else {
        return;
    };
    let bench = Bench::on(&server.url()).await;
    let worker = idle_worker(&bench).await;
    for count in 2..=6 {
        // Longer than the poll interval: apalis' own strategy would sleep until the heartbeat.
        server.ask::<()>(redis::cmd("CLIENT").arg("PAUSE").arg(400).arg("ALL").to_owned()).await.unwrap();
        server.ask::<String>(redis::cmd("PING")).await.unwrap();
        let rung = Instant::now();
        bench.queue.ring(Lane::Syncs, &runs(1)).await.unwrap();
        worker.handled(count).await;
        assert!(rung.elapsed() < Duration::from_secs(2), "took {:?}", rung.elapsed());
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_holds_a_ring_up_for_two_seconds_at_most() {
    let Some(server) = Server::start().await else {
        return;
    };
    let bench = Bench::on(&server.url()).await;
    let worker = idle_worker(&bench).await;
    server.ask::<()>(redis::cmd("CLIENT").arg("PAUSE").arg(5_000).arg("ALL").to_owned()).await.unwrap();
    let asked = Instant::now();
    assert!(matches!(bench.queue.ring(Lane::Syncs, &runs(1)).await, Err(QueueError::TimedOut(_))));
    assert!(asked.elapsed() < Duration::from_secs(4), "took {:?}", asked.elapsed());
    let asked = Instant::now();
    assert!(matches!(bench.queue.ring(Lane::Syncs, &runs(1)).await, Err(QueueError::Resting(_))));
    assert!(asked.elapsed() < Duration::from_millis(100));
    // Five seconds are less than the workers' response time-out: the lane lives through it.
    let took = ring_until_heard(&bench, &worker, runs(1)[0]).await;
    assert!(took < Duration::from_secs(10), "took {took:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_though_acknowledgements_pile_up_behind_a_slow_fetch() {
    let Some(server) = Server::start().await else {
        return;
    };
    let bench = Bench::on(&server.url()).await;
    for concurrency in [40, 97] {
        // One slot is free, so the worker keeps looking.
        let (gate, busy, ended) = (Gate::closed(), concurrency - 1, concurrency / 4 - 1);
        let worker = bench.worker_with(Lane::Syncs, concurrency, gate.handler());
        bench.queue.ring(Lane::Syncs, &runs(busy)).await.unwrap();
        gate.entered(busy).await;
        // While its fetch takes long, handlers end and cannot be acknowledged; then it brings more than
        // there are slots, and a worker with a rest in its hands acknowledges nothing either.
        server.ask::<()>(redis::cmd("CLIENT").arg("PAUSE").arg(500).arg("ALL").to_owned()).await.unwrap();
        let (queue, more) = (bench.queue.clone(), runs(concurrency));
        let rung = tokio::spawn(async move { queue.ring(Lane::Syncs, &more).await });
        assert!(!worker.ends_within(Duration::from_millis(200)).await);
        gate.pass(ended);
        worker.handled(ended).await;
        rung.await.unwrap().unwrap();
        gate.entered(concurrency + ended).await;
        worker.ask_to_stop();
        assert!(!worker.ends_within(Duration::from_millis(200)).await);
        gate.open();
        // Less than the time after which a worker that hangs would be left behind.
        assert!(worker.ends_within(Duration::from_secs(4)).await, "hangs with {concurrency} at a time");
        assert_eq!(worker.count(), concurrency + ended);

        let next = bench.worker(Lane::Syncs, 10);
        next.handled(busy + concurrency - worker.count()).await;
        next.stop().await;
        assert!(worker.heard().is_disjoint(&next.heard()), "acknowledged, so none came twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_due_messages_in_the_scheduled_set_are_promoted_in_chunks() {
    let Some(server) = Server::start().await else {
        return;
    };
    let bench = Bench::on(&server.url()).await;
    let runs = runs(9_000);
    bench.queue.ring(Lane::Syncs, &runs).await.unwrap();
    // From 8,000 on apalis-redis' own promotion fails, and with it every fetch.
    let mut moved = redis::cmd("EVAL");
    moved.arg(
        "for i = 1, redis.call('LLEN', KEYS[1]) do
           redis.call('ZADD', KEYS[2], 1, redis.call('LPOP', KEYS[1]))
         end",
    );
    moved.arg(2).arg(key(&bench, "active")).arg(key(&bench, "scheduled"));
    server.ask::<()>(moved).await.unwrap();
    assert_eq!(bench.queue.depth(Lane::Syncs).await.unwrap(), 0);
    bench.queue.sweep().await.unwrap();
    assert_eq!(bench.queue.depth(Lane::Syncs).await.unwrap(), 9_000);
    let worker = bench.worker(Lane::Syncs, 50);
    worker.handled(9_000).await;
    worker.stop().await;
    assert_eq!(worker.count(), 9_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_are_bounded_though_workers_die_under_them() {
    let Some(server) = Server::start().await else {
        return;
    };
    let bench = Bench::on(&server.url()).await;
    let (gate, running, most) =
        (Gate::closed(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (held, counted) = (gate.handler(), (running.clone(), most.clone()));
    let worker = bench.worker_with(Lane::Syncs, 3, move |run| {
        let (held, (running, most)) = (held(run), counted.clone());
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            held.await;
            running.fetch_sub(1, Ordering::SeqCst);
        }
        .boxed()
    });
    bench.queue.ring(Lane::Syncs, &runs(3)).await.unwrap();
    gate.entered(3).await;
    for _ in 0..2 {
        server.ask::<()>(redis::cmd("FLUSHALL")).await.unwrap();
        bench.queue.ring(Lane::Syncs, &runs(3)).await.unwrap();
        // The worker notices at its heartbeat, because no slot is free to fetch for; the next one
        // fetches for slots of its own.
        let started = Instant::now();
        let mut look = tokio::time::interval(Duration::from_millis(50));
        while bench.queue.depth(Lane::Syncs).await.unwrap() > 0 {
            assert!(started.elapsed() < Duration::from_secs(15), "no new worker");
            look.tick().await;
        }
    }
    assert_eq!(worker.count(), 0);
    gate.open();
    worker.handled(9).await;
    worker.stop().await;
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(running.load(Ordering::SeqCst), 0);
}
