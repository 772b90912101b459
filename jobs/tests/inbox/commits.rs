//! Group commit: what shares an insert, what does not fail with it, and how much may wait.

use std::sync::Arc;

use futures_util::future::join_all;
use zhilian_sync_jobs::inbox::Rejected;
use zhilian_sync_store::Lane;
use zhilian_sync_store::testing::refuse_poison;
use zhilian_sync_store::webhook_events::WebhookState;

use crate::support::{Bench, event, send, signed, status, unsigned, within};

pub(crate) async fn what_arrives_during_a_commit_shares_the_next(bench: Bench) {
    let (system, process) = (bench.till().await, bench.inbox());
    assert_eq!(status(&process.inbox.receive(signed(system, &event("first"))).await), Ok(202));
    let before = process.inbox.commits();
    let held = bench.hold().await;
    let mut calls = Vec::new();
    for id in 0..52 {
        calls.push(send(&process.inbox, signed(system, &event(id))));
        within("it waits for its commit", || process.inbox.waiting() == id + 1).await;
    }
    assert!(!calls.iter().any(tokio::task::JoinHandle::is_finished), "none is answered before its commit");
    drop(held);
    for answer in join_all(calls).await {
        assert_eq!(status(&answer.unwrap()), Ok(202));
    }
    assert_eq!(bench.count(system, WebhookState::Pending).await, 53);
    // Two were on their way when the others came: those fifty shared the third.
    assert!(process.inbox.commits() - before <= 3, "{} inserts", process.inbox.commits() - before);
}

pub(crate) async fn an_event_that_the_database_refuses_fails_alone(bench: Bench) {
    refuse_poison(&bench.store, "webhook_events", "event_key").await;
    let (system, process) = (bench.till().await, bench.inbox());
    let held = bench.hold().await;
    let mut calls = Vec::new();
    for id in 0..40 {
        let id = if id == 23 { "poison".to_owned() } else { id.to_string() };
        calls.push(send(&process.inbox, signed(system, &event(id))));
    }
    within("all wait", || process.inbox.waiting() == 40).await;
    drop(held);
    for (id, answer) in join_all(calls).await.into_iter().enumerate() {
        let expected = if id == 23 { Err(Rejected::NotStorable) } else { Ok(202) };
        assert_eq!(status(&answer.unwrap()), expected, "event {id}");
    }
    assert_eq!(bench.count(system, WebhookState::Pending).await, 39);
}

pub(crate) async fn a_full_queue_takes_no_more_rows(mut bench: Bench) {
    bench.settings.queue_rows_max = 3;
    let (system, process) = (bench.till().await, bench.inbox());
    let held = bench.hold().await;
    let calls: Vec<_> = (0..3).map(|id| send(&process.inbox, signed(system, &event(id)))).collect();
    within("three wait", || process.inbox.waiting() == 3).await;
    assert_eq!(process.inbox.receive(signed(system, &event(3))).await, Err(Rejected::Busy));
    drop(held);
    for answer in join_all(calls).await {
        assert_eq!(status(&answer.unwrap()), Ok(202));
    }
    assert_eq!(
        status(&process.inbox.receive(signed(system, &event(4))).await),
        Ok(202),
        "there is room again"
    );
    assert_eq!(bench.rows(system).await.len(), 4);
}

pub(crate) async fn a_full_queue_takes_no_more_bytes(mut bench: Bench) {
    bench.settings.queue_bytes_max = 200_000;
    let (system, process) = (bench.till().await, bench.inbox());
    let large =
        |id: u32| format!(r#"{{"id":"{id}","type":"order.created","note":"{}"}}"#, "x".repeat(60_000));
    let held = bench.hold().await;
    let call = send(&process.inbox, signed(system, &large(1)));
    within("one waits", || process.inbox.waiting() == 1).await;
    assert_eq!(process.inbox.receive(signed(system, &large(2))).await, Err(Rejected::Busy));
    let small = send(&process.inbox, signed(system, &event(3)));
    within("a small one has room beside it", || process.inbox.waiting() == 2).await;
    drop(held);
    assert_eq!(status(&call.await.unwrap()), Ok(202));
    assert_eq!(status(&small.await.unwrap()), Ok(202));
}

pub(crate) async fn a_commit_that_takes_too_long_is_never_called_accepted(mut bench: Bench) {
    (bench.settings.ack_deadline_max_ms, bench.settings.ack_margin_ms) = (2_000, 0);
    let (system, process) = (bench.till().await, bench.inbox());
    let warm = process.inbox.receive(unsigned(system, &event("warm"))).await;
    assert_eq!(status(&warm), Ok(401), "the system is known");
    let held = bench.hold().await;
    let calls: Vec<_> = (0..20).map(|id| send(&process.inbox, signed(system, &event(id)))).collect();
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap(), Err(Rejected::Busy));
    }
    drop(held);
    within("their places are free", || process.inbox.waiting() == 0).await;
    // The vendor repeats what was not accepted; whether the first time left a row makes no difference.
    let accepted = (0..20).map(|id| process.inbox.receive(signed(system, &event(id))));
    for answer in join_all(accepted).await {
        assert_eq!(status(&answer), Ok(202));
    }
    assert_eq!(bench.count(system, WebhookState::Pending).await, 20);
}

pub(crate) async fn a_duplicate_storm_over_two_processes_is_one_row_each(bench: Bench) {
    let system = bench.till().await;
    let processes = Arc::new([bench.inbox(), bench.inbox()]);
    let mut calls = Vec::new();
    for copy in 0..10 {
        // Each copy in another order, so that batches meet each other's rows from both ends.
        for id in 0..40 {
            let id = if copy % 2 == 0 { id } else { 39 - id };
            let process = &processes[(copy + id) % 2];
            calls.push(send(&process.inbox, signed(system, &event(id))));
        }
    }
    for answer in join_all(calls).await {
        assert_eq!(status(&answer.unwrap()), Ok(202));
    }
    assert_eq!(bench.rows_of(system, 400).await.len(), 40, "every delivery is counted");
}

pub(crate) async fn after_the_stop_what_waits_is_kept_and_nothing_new_is_taken(bench: Bench) {
    let (system, process) = (bench.till().await, bench.inbox());
    let held = bench.hold().await;
    let mut calls = Vec::new();
    for id in 0..10 {
        calls.push(send(&process.inbox, signed(system, &event(id))));
        within("it waits", || process.inbox.waiting() == id + 1).await;
    }
    process.stop.cancel();
    drop(held);
    for answer in join_all(calls).await {
        assert_eq!(status(&answer.unwrap()), Ok(202));
    }
    within("the committers have ended", || process.inbox.waiting() == 0).await;
    let mut answer = process.inbox.receive(signed(system, &event("late"))).await;
    while status(&answer) == Ok(202) {
        // The last committer looks once more before it closes the queue.
        answer = process.inbox.receive(signed(system, &event("late"))).await;
    }
    assert_eq!(answer, Err(Rejected::Busy));
}

pub(crate) async fn commits_ring_and_quarantine_does_not(bench: Bench) {
    let (system, process) = (bench.till().await, bench.inbox());
    assert_eq!(status(&process.inbox.receive(unsigned(system, &event(1))).await), Ok(401));
    tokio::task::yield_now().await;
    assert_eq!(process.ctx.queue.depth(Lane::Hooks).await.unwrap(), 0);
    assert_eq!(status(&process.inbox.receive(signed(system, &event(2))).await), Ok(202));
    let mut look = tokio::time::interval(std::time::Duration::from_millis(5));
    while process.ctx.queue.depth(Lane::Hooks).await.unwrap() == 0 {
        look.tick().await;
    }
    let many = (3..60).map(|id| process.inbox.receive(signed(system, &event(id))));
    assert!(join_all(many).await.iter().all(|answer| status(answer) == Ok(202)));
    assert!(process.ctx.queue.depth(Lane::Hooks).await.unwrap() <= 2, "nobody listens, so two are enough");
}
