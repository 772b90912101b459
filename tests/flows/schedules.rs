//! The scheduler: slots, catch-up after downtime, pauses, errors and cool-downs.

use chrono::TimeDelta;
use zhilian_sync::simulator::scripted::Answer;
use zhilian_sync_jobs::testing::drain;
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::sync_logs::{self, Run};
use zhilian_sync_store::{SyncStatus, SystemStatus};

use crate::harness::{Flow, list, on_every_database};

/// Changes the system as an administrator would; its schedule starts anew.
async fn change(flow: &Flow, status: Option<SystemStatus>, with: impl FnOnce(&mut ExternalSystem)) {
    let mut system = flow.system().await;
    with(&mut system);
    system.next_sync_at = None;
    system.next_slot_at = None;
    let now = flow.store().clock().now();
    let mut tx = flow.store().begin().await.unwrap();
    external_systems::save(&mut tx, &system, status, now).await.unwrap();
    tx.commit().await.unwrap();
}

async fn runs(flow: &Flow) -> Vec<Run> {
    let filter = sync_logs::Filter { system_id: Some(flow.system.id), limit: 500, ..Default::default() };
    let mut runs = sync_logs::list(flow.store(), &filter).await.unwrap();
    runs.reverse();
    runs
}

#[tokio::test]
async fn every_slot_has_one_run() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            change(&flow, None, |system| system.sync_interval = Some(300)).await;
            for _ in 0..30 {
                drain(&flow.ctx).await;
                flow.advance(TimeDelta::minutes(1));
            }
            let slots = sync_logs::slots(flow.store(), flow.system.id, "transactions", 100).await.unwrap();
            assert_eq!(slots.len(), 6, "{slots:?}");
            assert!(slots.windows(2).all(|pair| pair[1] - pair[0] == TimeDelta::seconds(300)));
            assert!(runs(&flow).await.iter().all(|run| run.status == SyncStatus::Success));
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn after_downtime_there_is_one_run_not_a_flood() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            change(&flow, None, |system| system.sync_interval = Some(60)).await;
            drain(&flow.ctx).await;
            flow.advance(TimeDelta::minutes(2));
            drain(&flow.ctx).await;
            let before = runs(&flow).await.len();
            flow.advance(TimeDelta::days(3));
            drain(&flow.ctx).await;
            assert_eq!(runs(&flow).await.len(), before + 1);
            flow.advance(TimeDelta::minutes(2));
            drain(&flow.ctx).await;
            assert_eq!(runs(&flow).await.len(), before + 2, "and then its normal pace");
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_paused_system_is_not_read_until_it_is_resumed() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            change(&flow, None, |system| {
                system.sync_interval = Some(60);
                system.paused = true;
            })
            .await;
            for _ in 0..5 {
                drain(&flow.ctx).await;
                flow.advance(TimeDelta::minutes(1));
            }
            assert!(runs(&flow).await.is_empty());
            change(&flow, None, |system| system.paused = false).await;
            drain(&flow.ctx).await;
            flow.advance(TimeDelta::minutes(1));
            drain(&flow.ctx).await;
            assert!(!runs(&flow).await.is_empty());
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn an_inactive_system_is_not_scheduled_but_pulled_when_asked() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            change(&flow, Some(SystemStatus::Inactive), |system| system.sync_interval = Some(60)).await;
            for _ in 0..5 {
                drain(&flow.ctx).await;
                flow.advance(TimeDelta::minutes(1));
            }
            assert!(runs(&flow).await.is_empty());
            assert_eq!(flow.pull().await.status, SyncStatus::Success);
            assert_eq!(flow.system().await.status, SystemStatus::Inactive, "only a test makes it active");
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn a_system_in_error_is_probed_once_per_cool_down() {
    on_every_database(
        |_| Answer::status(401),
        |flow| async {
            change(&flow, None, |system| system.sync_interval = Some(60)).await;
            drain(&flow.ctx).await;
            flow.advance(TimeDelta::minutes(2));
            drain(&flow.ctx).await;
            assert_eq!(flow.system().await.status, SystemStatus::Error);
            let asked = flow.vendor.requests().len();
            let cooldown = TimeDelta::seconds(i64::try_from(flow.ctx.engine.breaker_cooldown_secs).unwrap());
            // Two cool-downs, minute by minute: two probes.
            let minutes = 2 * cooldown.num_minutes();
            for _ in 0..minutes {
                flow.advance(TimeDelta::minutes(1));
                drain(&flow.ctx).await;
            }
            let probes = flow.vendor.requests().len() - asked;
            assert!((1..=2).contains(&probes), "{probes} probes in two cool-downs");
            flow.vendor.push(list(&[], 1, 1));
            flow.advance(cooldown + TimeDelta::minutes(2));
            drain(&flow.ctx).await;
            assert_eq!(flow.system().await.status, SystemStatus::Active);
            flow
        },
    )
    .await;
}

#[tokio::test]
async fn housekeeping_runs_once_an_hour() {
    on_every_database(
        |_| list(&[], 1, 1),
        |flow| async {
            for _ in 0..12 {
                drain(&flow.ctx).await;
                flow.advance(TimeDelta::minutes(15));
            }
            let filter = sync_logs::Filter { sync_type: Some("upkeep"), limit: 100, ..Default::default() };
            let upkeep = sync_logs::list(flow.store(), &filter).await.unwrap();
            assert_eq!(upkeep.len(), 3, "{upkeep:?}");
            assert!(upkeep.iter().all(|run| run.status == SyncStatus::Success));
            flow
        },
    )
    .await;
}
