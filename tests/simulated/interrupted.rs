//! Pulls that are interrupted: a worker that is gone, a token or a key that is no longer good, a vendor that asks
//! for fewer calls. Each goes on where it was.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use zhilian_sync_jobs::worker;
use zhilian_sync_simulator::{Every, Faults, PageServed};
use zhilian_sync_store::{SyncStatus, SystemStatus, external_systems};

use crate::harness::on_every_row;

/// A history without days between its records.
const SHORT: TimeDelta = TimeDelta::hours(20);

/// The pages that may come after so many stored records: one that holds some, and the empty ones before it,
/// which leave no trace in the counts.
fn pages_after(served: &[PageServed], stored: i64) -> impl Iterator<Item = &PageServed> {
    let mut records = 0;
    served.iter().filter(move |page| {
        let is_next = records == stored;
        records += i64::try_from(page.ids.len()).unwrap();
        is_next
    })
}

#[tokio::test]
async fn another_worker_goes_on_at_the_page_that_the_lost_one_had_come_to() {
    on_every_row(SHORT, |stage| async move {
        let (run, lost) = (stage.wish().await, Arc::new(Notify::new()));
        let told = Arc::clone(&lost);
        stage.after_pages(4, move |_| told.notify_one());
        let stop = CancellationToken::new();
        tokio::select! {
            biased;
            () = lost.notified() => {}
            () = worker::handle(&stage.ctx, &stop, run) => panic!("{}: it ended in peace", stage.name()),
        }
        let (kept, before) = (stage.run(run).await, stage.pages());
        assert_eq!(kept.status, SyncStatus::Syncing, "{}: the worker says nothing any more", stage.name());
        let lease = TimeDelta::seconds(i64::try_from(stage.ctx.engine.lease_secs).unwrap() + 1);
        stage.advance(lease);
        let ended = stage.to_its_end(run).await;
        // PostgreSQL may still undo the lost worker's page when the next one comes, which costs an attempt.
        let attempts = [2, 3].contains(&ended.attempt);
        assert!(attempts && ended.status == SyncStatus::Success, "{}: {ended:?}", stage.name());
        assert_eq!(ended.records_total, stage.told(), "{}", stage.name());
        assert!(kept.records_total > 7, "{}: {} records were stored", stage.name(), kept.records_total);
        let again = &stage.pages()[before.len()];
        let resumed = pages_after(&before, kept.records_total).any(|page| page.ids == again.ids);
        assert!(resumed, "{}: it went on at {:?}", stage.name(), again.ids);
        stage.agrees().await;
        stage
    })
    .await;
}

#[tokio::test]
async fn a_token_that_ends_between_two_pages_is_renewed_and_no_page_is_read_twice() {
    on_every_row(SHORT, |stage| async move {
        if stage.simulator.gives_tokens() {
            stage.after_pages(2, zhilian_sync_simulator::Simulator::expire_tokens);
        }
        let run = stage.pull().await;
        assert_eq!(run.attempt, 1, "{}", stage.name());
        if stage.simulator.gives_tokens() {
            let counted = stage.simulator.counters();
            // Calls that are under way together are refused together; one of them asks for the next token.
            assert!(counted.tokens == 2 && counted.refused >= 1, "{}: {counted:?}", stage.name());
        }
        assert!(stage.served().values().all(|times| *times == 1), "{}", stage.name());
        stage.agrees().await;
        stage
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_renewed_stops_the_system_until_it_is_entered() {
    on_every_row(SHORT, |mut stage| async move {
        if stage.simulator.gives_tokens() {
            stage.pull().await;
            return stage;
        }
        stage.after_pages(2, zhilian_sync_simulator::Simulator::expire_tokens);
        let run = stage.wish().await;
        let run = stage.to_its_end(run).await;
        assert_eq!(run.status, SyncStatus::Failed, "{}: {run:?}", stage.name());
        // Some vendors say it by a code that their documents do not name; it is taken for any other mistake.
        if stage.statuses().contains(&401) {
            assert_eq!((run.attempt, stage.simulator.counters().refused), (1, 1), "{}", stage.name());
            let system = external_systems::get(stage.store(), stage.system.id).await.unwrap();
            assert_eq!(system.status, SystemStatus::Error, "{}", stage.name());
        }
        stage.enter_credentials().await;
        stage.pull().await;
        let system = external_systems::get(stage.store(), stage.system.id).await.unwrap();
        assert_eq!(system.status, SystemStatus::Active, "{}", stage.name());
        stage.agrees().await;
        stage
    })
    .await;
}

#[tokio::test]
async fn a_vendor_that_asks_for_fewer_calls_is_left_alone_for_as_long_as_it_says() {
    on_every_row(SHORT, |stage| async move {
        let faults = Faults {
            too_many_requests: Some(Every::once(3)),
            retry_after: Duration::from_secs(77),
            ..Faults::default()
        };
        stage.simulator.set_faults(faults);
        stage.answers_take(TimeDelta::seconds(1));
        let run = stage.wish().await;
        let begun = stage.now();
        let waiting = stage.work(run).await;
        assert_eq!(waiting.status, SyncStatus::Pending, "{}: {waiting:?}", stage.name());
        let asked = stage.simulator.counters().requests;
        // A vendor that says so by a code of its own names no time.
        let least = if stage.statuses().contains(&429) { TimeDelta::seconds(77) } else { TimeDelta::zero() };
        assert!(waiting.run_at - begun >= least, "{}: {}", stage.name(), waiting.run_at);
        if least > TimeDelta::zero() {
            stage.advance(waiting.run_at - stage.now() - TimeDelta::seconds(2));
            stage.work(run).await;
            assert_eq!(stage.simulator.counters().requests, asked, "{}: it was asked too soon", stage.name());
        }
        let ended = stage.to_its_end(run).await;
        // An attempt that had stored nothing yet is spent.
        let attempts = 1 + i64::from(waiting.records_total == 0);
        assert!(ended.attempt <= attempts, "{}: {ended:?}", stage.name());
        assert_eq!(ended.status, SyncStatus::Success, "{}: {ended:?}", stage.name());
        assert_eq!(stage.simulator.counters().too_many_requests, 1, "{}", stage.name());
        let once = stage.served().values().all(|times| *times == 1);
        assert!(once || stage.row.has_details(), "{}: a page was read twice", stage.name());
        stage.agrees().await;
        stage
    })
    .await;
}
