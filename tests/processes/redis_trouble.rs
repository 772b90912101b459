//! Redis burns down: flushed, restarted empty, away for 20 seconds, each with 200 runs waiting or under
//! way. All of them end by themselves, and the API answers all the while.

use std::time::{Duration, Instant};

use zhilian_sync::simulator::scripted::Scripted;
use zhilian_sync_store::{SyncStatus, pos_transactions};

use crate::harness::{Process, Stage, http, page_of, pause, until};

const RUNS: usize = 200;
/// What is promised: all end within this time of Redis's return.
const PROMISE: Duration = Duration::from_secs(90);

struct Play {
    stage: Stage,
    api: Process,
    token: String,
    _workers: [Process; 2],
    _scheduler: Process,
    _vendor: Scripted,
}

impl Play {
    /// 200 systems with a run each, some of them under way.
    async fn begin() -> Option<Self> {
        let stage = Stage::set().await?;
        let vendor = Scripted::start_with(|request| page_of(request, 300).delay(Duration::from_millis(150)))
            .await
            .unwrap();
        let api = stage.start("api");
        api.answers().await;
        let token = crate::redis_trouble::login(&api).await;
        let scheduler = stage.start("scheduler");
        let workers = [stage.start("worker"), stage.start("worker")];
        stage.tills_with_pulls(RUNS, &vendor.url()).await;
        until("some runs are under way", Duration::from_mins(1), || async {
            stage.count(SyncStatus::Syncing).await > 3
        })
        .await;
        Some(Self { stage, api, token, _workers: workers, _scheduler: scheduler, _vendor: vendor })
    }

    /// The API answers, Redis or no Redis.
    async fn api_answers(&self) {
        let base = format!("http://127.0.0.1:{}", self.api.port);
        let (status, body) =
            http(&format!("{base}/api/v1/integrations/sync-logs?limit=5"), Some(&self.token))
                .await
                .expect("an answer");
        assert_eq!(status, 200, "{body}");
        let (status, body) = http(&format!("{base}/health/ready"), None).await.expect("an answer");
        assert_eq!(status, 200, "Redis away is degraded, not unready: {body}");
    }

    /// Every run ends, and everything is there once.
    async fn all_is_well(&self) {
        self.stage.all_ended(PROMISE).await;
        assert_eq!(self.stage.count(SyncStatus::Success).await, RUNS);
        let store = &self.stage.store;
        let filter = zhilian_sync_store::external_systems::Filter { limit: 500, ..Default::default() };
        for system in zhilian_sync_store::external_systems::list(store, &filter).await.unwrap() {
            let tally = pos_transactions::tally(store, system.id).await.unwrap();
            assert_eq!(tally.count, 300, "{}", system.name);
        }
    }
}

async fn login(api: &Process) -> String {
    let url = format!("http://127.0.0.1:{}/api/v1/auth/login", api.port);
    let body = serde_json::json!({"username": "admin", "password": "admin123"});
    let response = crate::harness::client().post(url).json(&body).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let body: serde_json::Value = response.json().await.unwrap();
    body["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushall_loses_nothing() {
    let Some(play) = Play::begin().await else { return };
    let _: String = play.stage.redis.command(&["FLUSHALL"]).await;
    play.api_answers().await;
    play.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_data_loses_nothing() {
    let Some(mut play) = Play::begin().await else {
        return;
    };
    play.stage.redis.restart().await;
    play.api_answers().await;
    play.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_seconds_without_redis_lose_nothing() {
    let Some(mut play) = Play::begin().await else {
        return;
    };
    play.stage.redis.kill();
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(20) {
        play.api_answers().await;
        for _ in 0..10 {
            pause().await;
        }
    }
    play.stage.redis.restart().await;
    play.all_is_well().await;
}
