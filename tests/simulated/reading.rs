//! Pulls that nothing disturbs but the vendor's own life: everything, then what is new, with nothing missed at
//! the boundaries and little read twice.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use zhilian_sync_simulator::{Every, Faults};

use crate::harness::on_every_row;

/// A history that is longer than any stream reads again.
const LONG: TimeDelta = TimeDelta::days(12);

#[tokio::test]
async fn a_first_pull_holds_everything_and_asks_for_each_record_once() {
    on_every_row(LONG, |stage| async move {
        let run = stage.pull().await;
        assert_eq!((run.attempt, run.records_total), (1, stage.told()), "{}", stage.name());
        let twice: Vec<_> = stage.served().into_iter().filter(|(_, times)| *times != 1).collect();
        assert_eq!(twice, [], "{}", stage.name());
        assert!(stage.pages().len() > 3, "{}: {} pages", stage.name(), stage.pages().len());
        stage.agrees().await;
        stage
    })
    .await;
}

#[tokio::test]
async fn a_later_pull_finds_what_is_new_and_reads_the_past_only_within_the_overlap() {
    on_every_row(LONG, |stage| async move {
        let (vendor, stream) = (stage.simulator.clone(), stage.row.stream);
        stage.pull().await;
        let (before, begins) = (stage.served(), stage.watermark().await - stage.row.reread());
        stage.advance(TimeDelta::hours(1));
        let changing = stage.add();
        stage.add();
        stage.advance(TimeDelta::minutes(10));
        // A refund that was sent stays as it is.
        vendor.change(stream, &changing);
        stage.advance(TimeDelta::hours(1));
        stage.pull().await;
        let ledger = vendor.ledger(stream);
        let again: BTreeMap<_, _> =
            stage.served().into_iter().filter(|(id, times)| before.get(id) != Some(times)).collect();
        assert!(again.contains_key(&changing), "{}", stage.name());
        for id in again.keys() {
            let changed = ledger[id].updated_at;
            assert!(changed >= begins, "{}: `{id}`, changed at {changed}, was read again", stage.name());
        }
        stage.agrees().await;
        stage
    })
    .await;
}

#[tokio::test]
async fn a_record_of_the_windows_very_end_is_not_missed() {
    on_every_row(LONG, |stage| async move {
        let (vendor, stream) = (stage.simulator.clone(), stage.row.stream);
        stage.pull().await;
        for _ in 0..2 {
            stage.advance(TimeDelta::hours(1));
            stage.advance_to_the_second();
            // The window of the pull ends at the very time of this record, whether it belongs to it or not.
            let at_the_end = stage.add();
            stage.advance(stage.row.lag());
            stage.pull().await;
            let end = vendor.ledger(stream)[&at_the_end].updated_at;
            if stage.row.is_read_at_once() {
                assert_eq!(stage.watermark().await, end, "{}", stage.name());
            }
            // Two that the vendor writes down only now, with the second that was read up to.
            vendor.add_late(stream, end).unwrap();
            vendor.add_late(stream, end - TimeDelta::milliseconds(400)).unwrap();
            stage.advance(TimeDelta::hours(1));
            stage.pull().await;
        }
        stage.agrees().await;
        stage
    })
    .await;
}

#[tokio::test]
async fn what_changes_between_two_pages_arrives_in_the_end() {
    on_every_row(TimeDelta::minutes(90), |stage| async move {
        let faults = Faults { change: Some(Every { first: 1, then: 2 }), ..Faults::default() };
        stage.simulator.set_faults(faults);
        stage.pull().await;
        let changed = stage.simulator.counters().changes_between_pages;
        assert!(changed > 1, "{}: {changed} records changed", stage.name());
        stage.simulator.set_faults(Faults::default());
        // The second pull reads what left the window of the first; a third one what both were shifted by.
        for _ in 0..3 {
            stage.advance(TimeDelta::minutes(7));
            stage.pull().await;
        }
        stage.agrees().await;
        stage
    })
    .await;
}
