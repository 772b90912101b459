//! A vendor that posts what changes: signed by the simulator's own code, taken by our receiver, and applied without
//! a pull.

use chrono::TimeDelta;
use zhilian_sync_simulator::{Every, Faults};

use crate::harness::{on_every_post, on_every_row};

/// How many things happen at the vendor.
const TRADES: u32 = 25;

#[tokio::test]
async fn what_a_vendor_posts_is_taken_and_needs_no_pull() {
    on_every_row(TimeDelta::hours(20), |mut stage| async move {
        stage.pull().await;
        stage.receive_webhooks().await;
        stage
            .simulator
            .set_faults(Faults { webhook_twice: Some(Every { first: 2, then: 3 }), ..Faults::default() });
        for _ in 0..TRADES {
            stage.advance(TimeDelta::seconds(7));
            stage.simulator.trade();
            stage.simulator.all_posted().await;
        }
        let posted = stage.simulator.webhook_counters();
        assert_eq!(posted.events > 0, stage.row.is_posted(), "{}: {posted:?}", stage.name());
        if stage.row.is_posted() {
            let taken = (posted.accepted, posted.refused, posted.unanswered);
            assert_eq!(taken, (posted.events, 0, 0), "{}: {posted:?}", stage.name());
            assert!(posted.repeated > 3, "{}: {posted:?}", stage.name());
            zhilian_sync_jobs::testing::drain(&stage.ctx).await;
        } else {
            stage.pull().await;
        }
        stage.agrees().await;
        stage
    })
    .await;
}

#[tokio::test]
async fn what_is_only_posted_is_kept_as_it_was_posted() {
    on_every_post(|mut stage| async move {
        stage.receive_webhooks().await;
        stage
            .simulator
            .set_faults(Faults { webhook_twice: Some(Every { first: 2, then: 3 }), ..Faults::default() });
        for _ in 0..TRADES {
            stage.advance(TimeDelta::seconds(7));
            stage.simulator.trade();
            stage.simulator.all_posted().await;
        }
        let posted = stage.simulator.webhook_counters();
        let taken = (posted.accepted, posted.refused, posted.unanswered);
        assert_eq!(taken, (posted.events, 0, 0), "{}: {posted:?}", stage.name());
        assert!(posted.events > 10 && posted.repeated > 3, "{}: {posted:?}", stage.name());
        zhilian_sync_jobs::testing::drain(&stage.ctx).await;
        stage.agrees().await;
        stage
    })
    .await;
}
