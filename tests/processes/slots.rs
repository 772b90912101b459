//! Every slot fires exactly once, however many schedulers and workers there are.

use std::time::Duration;

use zhilian_sync::simulator::scripted::Scripted;
use zhilian_sync_store::{SyncStatus, sync_logs};

use crate::harness::{Stage, page_of, until};

const SYSTEMS: usize = 20;
const SLOTS: usize = 50;
const INTERVAL_SECS: i64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_schedulers_and_two_workers_fire_every_slot_once() {
    let Some(stage) = Stage::set().await else { return };
    let vendor = Scripted::start_with(|request| page_of(request, 1)).await.unwrap();
    let api = stage.start("api");
    api.answers().await;
    let _workers = [stage.start("worker"), stage.start("worker")];
    let _schedulers = [stage.start("scheduler"), stage.start("scheduler")];
    let mut systems = Vec::new();
    for number in 0..SYSTEMS {
        systems.push(stage.system(&format!("till {number}"), &vendor.url(), Some(INTERVAL_SECS)).await);
    }
    let last = systems.last().unwrap().id;
    until("the last system had its slots", Duration::from_mins(5), || async {
        sync_logs::slots(&stage.store, last, "transactions", 1_000).await.unwrap().len() > SLOTS + 1
    })
    .await;
    for system in &systems {
        let slots = sync_logs::slots(&stage.store, system.id, "transactions", 1_000).await.unwrap();
        assert!(slots.len() >= SLOTS, "system {} had {} slots", system.name, slots.len());
        for pair in slots.windows(2) {
            let step = (pair[1] - pair[0]).num_seconds();
            assert_eq!(step, INTERVAL_SECS, "system {}: {} then {}", system.name, pair[0], pair[1]);
        }
    }
    assert_eq!(stage.count(SyncStatus::Failed).await, 0);
}
