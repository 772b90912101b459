//! What could not be verified: kept within limits, in nobody's way.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use zhilian_sync_jobs::inbox::Rejected;
use zhilian_sync_store::SystemId;
use zhilian_sync_store::webhook_events::WebhookState;

use crate::support::{Bench, PATIENCE, event, send, signed, signed_by, status, unsigned, with_header};

pub(crate) async fn a_strangers_copy_does_not_stand_in_the_way(bench: Bench) {
    let (system, process) = (bench.till().await, bench.inbox());
    // The body of a genuine event, byte for byte, before and after it: unsigned, and wrongly signed.
    let badly_signed = || with_header(unsigned(system, &event(7)), "x-signature", &"ab".repeat(32));
    assert_eq!(status(&process.inbox.receive(unsigned(system, &event(7))).await), Ok(401));
    assert_eq!(status(&process.inbox.receive(badly_signed()).await), Ok(401));
    assert_eq!(status(&process.inbox.receive(signed(system, &event(7))).await), Ok(202));
    assert_eq!(status(&process.inbox.receive(unsigned(system, &event(7))).await), Ok(401));
    assert_eq!(status(&process.inbox.receive(badly_signed()).await), Ok(401));
    let rows = bench.rows_of(system, 5).await;
    let counts = |state: WebhookState| {
        rows.iter().filter(|row| row.state == state).map(|row| row.deliveries).collect::<Vec<_>>()
    };
    assert_eq!(counts(WebhookState::Pending), [1], "the genuine one is counted by genuine deliveries");
    assert_eq!(counts(WebhookState::Quarantined), [2, 2]);
}

pub(crate) async fn a_flood_of_unsigned_events_costs_genuine_ones_nothing(mut bench: Bench) {
    bench.settings.quarantine_queue_rows_max = 20;
    bench.settings.unverified_burst = 50;
    bench.settings.unverified_per_minute = 1;
    bench.settings.quarantine_events_max = 30;
    let (system, process) = (bench.till().await, bench.inbox());
    let mut flood = Vec::new();
    let mut genuine = Vec::new();
    for id in 0..400 {
        flood.push(send(&process.inbox, unsigned(system, &event(format!("forged-{id}")))));
        if id % 4 == 0 {
            genuine.push(send(&process.inbox, signed(system, &event(id))));
        }
    }
    for answer in join_all(genuine).await {
        assert_eq!(status(&answer.unwrap()), Ok(202));
    }
    let mut kept = 0;
    for answer in join_all(flood).await {
        match status(&answer.unwrap()) {
            Ok(401) => kept += 1,
            Err(Rejected::TooMany | Rejected::Busy) => {}
            other => panic!("an unsigned event was answered with {other:?}"),
        }
    }
    assert!((1..=30).contains(&kept), "{kept} were kept");
    assert_eq!(bench.count(system, WebhookState::Quarantined).await, kept);
    assert_eq!(bench.count(system, WebhookState::Pending).await, 100);
}

pub(crate) async fn an_address_has_an_allowance_of_its_own(mut bench: Bench) {
    bench.settings.unverified_burst = 3;
    bench.settings.unverified_per_minute = 1;
    let (system, process) = (bench.till().await, bench.inbox());
    let from = |address: &str, id: u32| {
        let mut call = unsigned(system, &event(id));
        call.address = address.parse::<IpAddr>().unwrap();
        call
    };
    for id in 0..3 {
        assert_eq!(status(&process.inbox.receive(from("198.51.100.1", id)).await), Ok(401));
    }
    assert_eq!(process.inbox.receive(from("198.51.100.1", 3)).await, Err(Rejected::TooMany));
    assert_eq!(status(&process.inbox.receive(from("198.51.100.2", 4)).await), Ok(401));
    let mut genuine = signed(system, &event(5));
    genuine.address = "198.51.100.1".parse().unwrap();
    assert_eq!(status(&process.inbox.receive(genuine).await), Ok(202), "a signature needs no allowance");
    assert_eq!(bench.count(system, WebhookState::Quarantined).await, 4);
}

pub(crate) async fn what_exceeds_the_quota_is_not_kept(mut bench: Bench) {
    bench.settings.quarantine_events_max = 3;
    let (system, other) = (bench.till().await, bench.till().await);
    let process = bench.inbox();
    // All at once, so that they share a batch that the quota cuts in the middle.
    let calls: Vec<_> = (0..8).map(|id| send(&process.inbox, unsigned(system, &event(id)))).collect();
    let answers: Vec<_> = join_all(calls).await.into_iter().map(|answer| status(&answer.unwrap())).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == Ok(401)).count(), 3);
    assert_eq!(answers.iter().filter(|answer| **answer == Err(Rejected::TooMany)).count(), 5);
    assert_eq!(bench.rows(system).await.len(), 3);
    assert_eq!(
        status(&process.inbox.receive(unsigned(other, &event(1))).await),
        Ok(401),
        "each system its own"
    );
    assert_eq!(
        status(&process.inbox.receive(signed(system, &event(9))).await),
        Ok(202),
        "genuine ones need none"
    );
    // Another process counts the same rows.
    let second = bench.inbox();
    assert_eq!(second.inbox.receive(unsigned(system, &event(10))).await, Err(Rejected::TooMany));
}

pub(crate) async fn the_quota_of_bytes_and_that_of_all_systems_hold_too(mut bench: Bench) {
    let bytes = event(0).len() as u64;
    bench.settings.quarantine_bytes_max = 2 * bytes + 1;
    bench.settings.quarantine_events_total_max = 3;
    let systems = [bench.till().await, bench.till().await];
    let process = bench.inbox();
    let mut answers = Vec::new();
    for (system, id) in [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)] {
        answers.push(status(&process.inbox.receive(unsigned(systems[system], &event(id))).await));
    }
    let full = Err(Rejected::TooMany);
    assert_eq!(answers, [Ok(401), Ok(401), full, Ok(401), full], "by bytes, then by all systems");
}

pub(crate) async fn addresses_that_guess_are_stopped_and_known_systems_are_not(mut bench: Bench) {
    bench.settings.unverified_burst = 4;
    bench.settings.unverified_per_minute = 1;
    let (system, process) = (bench.till().await, bench.inbox());
    assert_eq!(status(&process.inbox.receive(signed(system, &event(1))).await), Ok(202));
    let mut guesses = Vec::new();
    for _ in 0..6 {
        let nowhere = SystemId(bench.store.clock().new_id());
        guesses.push(status(&process.inbox.receive(unsigned(nowhere, "{}")).await));
    }
    let (unknown, stopped) = (Err(Rejected::Unknown), Err(Rejected::TooMany));
    assert_eq!(guesses, [unknown, unknown, unknown, unknown, stopped, stopped]);
    assert_eq!(status(&process.inbox.receive(signed(system, &event(2))).await), Ok(202));
}

pub(crate) async fn a_flood_does_not_turn_away_what_a_new_secret_signed(mut bench: Bench) {
    bench.settings.unverified_burst = 2;
    bench.settings.unverified_per_minute = 1;
    let (system, process) = (bench.till().await, bench.inbox());
    // Everybody comes through one proxy, and strangers have used up its allowance.
    for id in 0..2 {
        assert_eq!(status(&process.inbox.receive(unsigned(system, &event(id))).await), Ok(401));
    }
    assert_eq!(process.inbox.receive(unsigned(system, &event(2))).await, Err(Rejected::TooMany));
    bench.set_secrets(system, &[("webhook_secret", "a new one")]).await;
    let started = Instant::now();
    let mut look = tokio::time::interval(Duration::from_millis(100));
    loop {
        look.tick().await;
        match status(&process.inbox.receive(signed_by(system, &event(3), "a new one")).await) {
            Ok(202) => break,
            other => assert_eq!(other, Err(Rejected::TooMany), "what this process knows is too young"),
        }
        assert!(started.elapsed() < PATIENCE);
    }
    assert_eq!(bench.count(system, WebhookState::Pending).await, 1);
}
