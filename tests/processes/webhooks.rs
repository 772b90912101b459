//! Webhooks under load while something dies: an API process, a worker, the way to the database, Redis.
//! Vendors repeat what is not answered with 2xx; in the end every event is in the inbox once, applied,
//! and every sale is stored once, in its newest version.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use zhilian_sync_store::external_systems::ExternalSystem;
use zhilian_sync_store::{pos_transactions, webhook_events};

use crate::harness::{HOOK_SECRET, Process, Stage, client, pause, sale, until};
use crate::proxy::Proxy;

/// Sales, each told three times: made, changed, changed again.
const SALES: u64 = 300;
const VERSIONS: u64 = 3;
const EVENTS: u64 = SALES * VERSIONS;
/// Deliveries under way at a time.
const SENDERS: usize = 24;
/// Everything is applied within this time of the last trouble.
const PROMISE: Duration = Duration::from_secs(90);

/// An event of a sale; a later version costs more.
fn event(number: u64, version: u64) -> String {
    let mut sale = sale(number);
    sale["total_fen"] = json!(1000 * version + number);
    sale["updated_at"] = json!(format!("2026-01-01T12:00:0{version}.000+08:00"));
    let kind = if version == 1 { "sale.created" } else { "sale.updated" };
    json!({"event_id": format!("E-{number}-{version}"), "type": kind, "data": sale}).to_string()
}

fn signature(body: &str, secret: &str) -> String {
    let at = zhilian_sync_store::Clock::system().now().timestamp();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{at}.{body}").as_bytes());
    format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes()))
}

/// A vendor that posts every event until it is answered with 2xx, in an order that mixes versions.
struct Load {
    client: reqwest::Client,
    urls: Vec<String>,
    next: AtomicUsize,
    answered: AtomicU64,
    refused: AtomicU64,
    order: Vec<(u64, u64)>,
}

impl Load {
    fn on(system: &ExternalSystem, apis: &[&Process]) -> Arc<Self> {
        let path = format!("/api/v1/integrations/webhooks/pos/{}", system.id);
        let urls = apis.iter().map(|api| format!("http://127.0.0.1:{}{path}", api.port)).collect();
        // 7 has no factor in common with the number of events, so every event comes once.
        let order = (0..EVENTS).map(|at| at * 7 % EVENTS).map(|at| (at / VERSIONS + 1, at % VERSIONS + 1));
        Arc::new(Self {
            client: client(),
            urls,
            next: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            order: order.collect(),
        })
    }

    fn start(self: &Arc<Self>) -> tokio::task::JoinSet<()> {
        let mut senders = tokio::task::JoinSet::new();
        for _ in 0..SENDERS {
            let load = Arc::clone(self);
            senders.spawn(async move {
                loop {
                    let at = load.next.fetch_add(1, Ordering::SeqCst);
                    let Some((number, version)) = load.order.get(at) else { return };
                    load.deliver(at, &event(*number, *version)).await;
                    load.answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        senders
    }

    /// Posts an event until it is taken, to each process in turn.
    async fn deliver(&self, at: usize, body: &str) {
        for attempt in 0.. {
            if self.post(at + attempt, body, HOOK_SECRET).await.is_some_and(|status| status < 300) {
                return;
            }
            pause().await;
        }
    }

    async fn post(&self, at: usize, body: &str, secret: &str) -> Option<u16> {
        let url = &self.urls[at % self.urls.len()];
        let request = self.client.post(url).header("x-demo-signature", signature(body, secret));
        let response = request.header("content-type", "application/json").body(body.to_owned()).send().await;
        Some(response.ok()?.status().as_u16())
    }

    async fn reaches(&self, events: u64) {
        until("the vendor was answered", Duration::from_mins(2), || async {
            self.answered.load(Ordering::SeqCst) >= events
        })
        .await;
    }
}

/// Every event is applied once, every sale stored once in its newest version.
async fn all_is_applied(stage: &Stage, system: &ExternalSystem) -> webhook_events::Tally {
    let store = &stage.store.store;
    until("every event is applied", PROMISE, || async {
        webhook_events::tally(store, system.id).await.is_ok_and(|tally| tally.applied == EVENTS)
    })
    .await;
    let tally = webhook_events::tally(store, system.id).await.unwrap();
    assert_eq!((tally.pending, tally.dead), (0, 0), "{tally:?}");
    let stored = pos_transactions::tally(store, system.id).await.unwrap();
    let sales = i64::try_from(SALES).unwrap();
    assert_eq!((stored.count, stored.distinct_ids), (sales, sales));
    let newest: i64 = (1..=sales).map(|number| 1000 * i64::try_from(VERSIONS).unwrap() + number).sum();
    assert_eq!(stored.total, newest, "some sale is not stored in its newest version");
    tally
}

async fn finish(senders: tokio::task::JoinSet<()>) {
    let all = tokio::time::timeout(Duration::from_mins(2), senders.join_all()).await;
    assert!(all.is_ok(), "some event was never answered with 2xx");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_process_killed_under_load_loses_nothing_it_has_answered() {
    let Some(stage) = Stage::set().await else { return };
    let (mut first, second) = (stage.start("api"), stage.start("api"));
    first.answers().await;
    second.answers().await;
    let _others = [stage.start("worker"), stage.start("scheduler")];
    let system = stage.system("the till", "http://127.0.0.1:9", None).await;
    let load = Load::on(&system, &[&first, &second]);
    let senders = load.start();
    for part in 1..=3 {
        load.reaches(part * EVENTS / 5).await;
        first.kill();
        first = stage.start_at("api", first.port);
        first.answers().await;
    }
    finish(senders).await;
    all_is_applied(&stage, &system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_under_load_applies_nothing_twice() {
    let Some(stage) = Stage::set().await else { return };
    let api = stage.start("api");
    api.answers().await;
    let _scheduler = stage.start("scheduler");
    let system = stage.system("the till", "http://127.0.0.1:9", None).await;
    let load = Load::on(&system, &[&api]);
    let mut worker = stage.start("worker");
    let senders = load.start();
    for part in 1..=4 {
        load.reaches(part * EVENTS / 5).await;
        worker.kill();
        worker = stage.start("worker");
    }
    finish(senders).await;
    all_is_applied(&stage, &system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_seconds_without_the_database_lose_nothing() {
    let Some(mut stage) = Stage::set().await else { return };
    let proxy = Proxy::start(&stage.store.url).await;
    stage.database_url = Some(proxy.url());
    let api = stage.start("api");
    api.answers().await;
    let _others = [stage.start("worker"), stage.start("scheduler")];
    let system = stage.system("the till", "http://127.0.0.1:9", None).await;
    let load = Load::on(&system, &[&api]);
    let senders = load.start();
    load.reaches(EVENTS / 3).await;
    proxy.cut();
    let before = load.answered.load(Ordering::SeqCst);
    let since = std::time::Instant::now();
    while since.elapsed() < Duration::from_secs(10) {
        pause().await;
    }
    // What was being answered at that moment may still be; nothing is answered that cannot be stored.
    let meanwhile = load.answered.load(Ordering::SeqCst) - before;
    assert!(meanwhile <= SENDERS as u64, "{meanwhile} events were answered with 2xx without a database");
    proxy.mend();
    finish(senders).await;
    all_is_applied(&stage, &system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_webhooks_are_answered_and_applied_when_it_is_back() {
    let Some(mut stage) = Stage::set().await else { return };
    let api = stage.start("api");
    api.answers().await;
    let _others = [stage.start("worker"), stage.start("scheduler")];
    let system = stage.system("the till", "http://127.0.0.1:9", None).await;
    let load = Load::on(&system, &[&api]);
    let senders = load.start();
    load.reaches(EVENTS / 4).await;
    stage.redis.kill();
    // Redis is away until every last event was answered.
    finish(senders).await;
    stage.redis.restart().await;
    all_is_applied(&stage, &system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_duplicates_at_two_processes_has_one_effect_each() {
    let Some(stage) = Stage::set().await else { return };
    let apis = [stage.start("api"), stage.start("api")];
    for api in &apis {
        api.answers().await;
    }
    let _others = [stage.start("worker"), stage.start("scheduler")];
    let system = stage.system("the till", "http://127.0.0.1:9", None).await;
    // The same events four times at once, half of them at each process.
    let loads: Vec<_> = (0..4).map(|_| Load::on(&system, &[&apis[0], &apis[1]])).collect();
    let storms: Vec<_> = loads.iter().map(Load::start).collect();
    for senders in storms {
        finish(senders).await;
    }
    let tally = all_is_applied(&stage, &system).await;
    assert!(tally.repeated >= 3 * EVENTS, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unsigned_events_displaces_no_genuine_one() {
    let Some(mut stage) = Stage::set().await else { return };
    stage.setting("WEBHOOKS__UNVERIFIED_PER_MINUTE", "600");
    let api = stage.start("api");
    api.answers().await;
    let _others = [stage.start("worker"), stage.start("scheduler")];
    let system = stage.system("the till", "http://127.0.0.1:9", None).await;
    let (load, flood) = (Load::on(&system, &[&api]), Load::on(&system, &[&api]));
    let mut strangers = tokio::task::JoinSet::new();
    for stranger in 0..SENDERS {
        let flood = Arc::clone(&flood);
        strangers.spawn(async move {
            for (at, (number, version)) in flood.order.iter().enumerate().skip(stranger).step_by(4) {
                // Half of them copies of genuine events, before those come.
                let body = if at % 2 == 0 { event(*number, *version) } else { forged(at) };
                match flood.post(at, &body, "not the secret").await {
                    Some(401 | 429) => drop(flood.refused.fetch_add(1, Ordering::SeqCst)),
                    other => panic!("a stranger was answered {other:?}"),
                }
            }
        });
    }
    until("the flood has begun", Duration::from_secs(30), || async {
        flood.refused.load(Ordering::SeqCst) > 100
    })
    .await;
    finish(load.start()).await;
    let tally = all_is_applied(&stage, &system).await;
    finish(strangers).await;
    assert!(tally.quarantined > 0, "{tally:?}");
    // All that the strangers made up is in quarantine or was never kept; nothing of it is applied.
    let after = all_is_applied(&stage, &system).await;
    assert_eq!(after.applied, EVENTS);
}

/// An event of a sale that nobody made.
fn forged(at: usize) -> String {
    let sale: Value = sale(1_000_000 + at as u64);
    json!({"event_id": format!("F-{at}"), "type": "sale.created", "data": sale}).to_string()
}
