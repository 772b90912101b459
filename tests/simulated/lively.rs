//! Everything at once: a vendor that trades while it is read and misbehaves all the time. What changes between two
//! pages has a test of its own.

use std::time::Duration;

use chrono::TimeDelta;
use zhilian_sync_simulator::Faults;

use crate::harness::on_every_row;

/// How often the vendor is read while it trades.
const ROUNDS: u32 = 6;

/// How many things happen at the vendor between two pulls.
const TRADES: u32 = 12;

#[tokio::test]
async fn a_lively_vendor_is_kept_in_step_with() {
    on_every_row(TimeDelta::hours(20), |stage| async move {
        let faults = Faults { slow_by: Duration::from_millis(20), ..Faults::lively() };
        stage.simulator.set_faults(faults);
        stage.answers_take(TimeDelta::seconds(1));
        for _ in 0..ROUNDS {
            for _ in 0..TRADES {
                stage.advance(TimeDelta::seconds(19));
                stage.simulator.trade();
            }
            let run = stage.wish().await;
            stage.to_its_end(run).await;
        }
        let counted = stage.simulator.counters();
        let injected = [counted.too_many_requests, counted.server_errors, counted.cut, counted.duplicates];
        assert!(injected.iter().all(|times| *times > 0), "{}: {counted:?}", stage.name());
        stage.simulator.set_faults(Faults::default());
        stage.simulator.stop_changing();
        for _ in 0..3 {
            stage.advance(TimeDelta::minutes(7));
            stage.pull().await;
        }
        stage.agrees().await;
        stage
    })
    .await;
}
