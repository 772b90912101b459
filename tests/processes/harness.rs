//! Several processes of the service, a database and a Redis of their own, and a vendor under control.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use secrecy::SecretString;
use serde_json::{Value, json};
use zhilian_sync::simulator::scripted::{Answer, RecordedRequest, Scripted};
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::sync_logs::Run;
use zhilian_sync_store::testing::{self, TestStore};
use zhilian_sync_store::{
    Clock, Lane, RunId, SyncStatus, SystemStatus, SystemType, Trigger, Tx, pos_transactions, sync_logs,
};

/// The key that `zhilian_sync_store::testing::vault` seals with.
const MASTER_KEY: [u8; 32] = [7; 32];

/// What the tills' webhooks are signed with.
pub(crate) const HOOK_SECRET: &str = "the tills' secret";

/// The machine's pace belongs to one test at a time, also where one process runs them all.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A database, a Redis and the processes on them; all ended when this is dropped.
pub(crate) struct Stage {
    pub(crate) store: TestStore,
    pub(crate) redis: Redis,
    /// Another way to the database, for processes started from now on.
    pub(crate) database_url: Option<String>,
    prefix: String,
    settings: Vec<(String, String)>,
    _alone: tokio::sync::MutexGuard<'static, ()>,
}

impl Stage {
    /// A fresh database and a fresh Redis, and short leases. `None` where a backend is absent, which
    /// was said loudly.
    pub(crate) async fn set() -> Option<Self> {
        let alone = ONE_AT_A_TIME.lock().await;
        let store = testing::postgres(Clock::system()).await?;
        let redis = Redis::start()?;
        redis.up().await;
        let prefix = format!("t{}", &store.clock().new_id().simple().to_string()[20..]);
        let settings = [
            ("ENGINE__LEASE_SECS", "4"),
            ("ENGINE__HEARTBEAT_SECS", "1"),
            ("ENGINE__RETRY_INITIAL_SECS", "1"),
            ("ENGINE__RETRY_MAX_SECS", "2"),
            ("ENGINE__RERING_SECS", "20"),
            ("ENGINE__SCHEDULER_TICK_MS", "250"),
            ("ENGINE__JITTER_MAX_SECS", "1"),
            ("VENDORS__ALLOW_NETWORKS", "127.0.0.1/32"),
            ("LOG__FILTER", "info"),
        ];
        let settings = settings.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Some(Self { store, redis, database_url: None, prefix, settings, _alone: alone })
    }

    /// Another value of a setting, for processes started from now on.
    pub(crate) fn setting(&mut self, key: &str, value: &str) {
        self.settings.push((key.into(), value.into()));
    }

    /// Starts a process of the service.
    pub(crate) fn start(&self, role: &str) -> Process {
        self.start_at(role, free_port())
    }

    /// Starts a process of the service on a port that is known already.
    pub(crate) fn start_at(&self, role: &str, port: u16) -> Process {
        let log = std::env::temp_dir().join(format!("zhilian-{}-{role}-{port}.log", self.prefix));
        let sink = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_zhilian-sync"));
        command
            .args(["serve", "--role", role])
            .env("DATABASE_URL", self.database_url.as_ref().unwrap_or(&self.store.url))
            .env("REDIS_URL", self.redis.url())
            .env("ZHILIAN_MASTER_KEY", base64::engine::general_purpose::STANDARD.encode(MASTER_KEY))
            .env("ZHILIAN_ADMIN_PASSWORD", "admin123")
            .env("ZHILIAN__QUEUE__PREFIX", &self.prefix)
            .env("ZHILIAN__SERVER__ADDRESS", format!("127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(sink.try_clone().unwrap())
            .stderr(sink);
        for (key, value) in &self.settings {
            command.env(format!("ZHILIAN__{key}"), value);
        }
        Process { child: command.spawn().unwrap(), port, log }
    }

    /// A demo-pos system at an endpoint, active, without a schedule unless one is given.
    pub(crate) async fn system(&self, name: &str, endpoint: &str, interval: Option<i64>) -> ExternalSystem {
        let mut tx = self.store.begin().await.unwrap();
        let system = self.till(&mut tx, name, endpoint, interval).await;
        tx.commit().await.unwrap();
        system
    }

    /// A pending pull of a system, as an API process that died before it rang would leave it.
    pub(crate) async fn pull(&self, system: &ExternalSystem, max_attempts: i64) -> RunId {
        let mut tx = self.store.begin().await.unwrap();
        let run = self.wish(&mut tx, system, max_attempts).await;
        tx.commit().await.unwrap();
        run
    }

    /// So many systems, each with a pending pull, in few transactions.
    pub(crate) async fn tills_with_pulls(&self, count: usize, endpoint: &str) {
        let numbers: Vec<usize> = (0..count).collect();
        for some in numbers.chunks(500) {
            let mut tx = self.store.begin().await.unwrap();
            for number in some {
                let system = self.till(&mut tx, &format!("till {number}"), endpoint, None).await;
                self.wish(&mut tx, &system, 5).await;
            }
            tx.commit().await.unwrap();
        }
    }

    async fn till(&self, tx: &mut Tx, name: &str, endpoint: &str, interval: Option<i64>) -> ExternalSystem {
        let store = &self.store.store;
        let mut system = external_systems::blank(store, name, SystemType::Pos, "demo-pos");
        system.status = SystemStatus::Active;
        system.api_endpoint = Some(endpoint.into());
        system.sync_interval = interval;
        let key = BTreeMap::from([("api_key".to_owned(), SecretString::from("till-key"))]);
        external_systems::set_credentials(store, &mut system, &key).unwrap();
        let secret = BTreeMap::from([("default".to_owned(), SecretString::from(HOOK_SECRET))]);
        external_systems::set_webhook_secrets(store, &mut system, &secret).unwrap();
        external_systems::insert(tx, &system).await.unwrap();
        system
    }

    async fn wish(&self, tx: &mut Tx, system: &ExternalSystem, max_attempts: i64) -> RunId {
        let clock = self.store.clock();
        let now = clock.now();
        let run = sync_logs::NewRun {
            id: RunId(clock.new_id()),
            system_id: Some(system.id),
            kind: "pull",
            sync_type: "transactions".into(),
            trigger: Trigger::Manual,
            lane: Lane::Syncs,
            exclusive_key: Some(format!("pull/{}/transactions", system.id)),
            max_attempts,
            run_at: now,
            deadline_at: None,
            scheduled_for: None,
            parameters: None,
            retry_of: None,
            requested_by: None,
            rung_at: None,
        };
        assert!(sync_logs::insert(tx, &run, now).await.unwrap());
        run.id
    }

    /// The row of a run.
    pub(crate) async fn run(&self, id: RunId) -> Run {
        sync_logs::get(&self.store.store, id).await.unwrap()
    }

    /// Waits until a run has ended; its row then.
    pub(crate) async fn ended(&self, id: RunId, within: Duration) -> Run {
        let what = format!("run {id} ends");
        until(&what, within, || async { self.run(id).await.status.is_final() }).await;
        self.run(id).await
    }

    /// Waits until no run is pending or syncing.
    pub(crate) async fn all_ended(&self, within: Duration) {
        until("every run ends", within, || async {
            sync_logs::tally(&self.store.store).await.unwrap().is_empty()
        })
        .await;
    }

    /// Every run of a kind in a state.
    pub(crate) async fn count(&self, status: SyncStatus) -> usize {
        let mut after = None;
        let mut count = 0;
        loop {
            let filter = sync_logs::Filter {
                status: Some(status),
                sync_type: Some("transactions"),
                after,
                limit: 500,
                ..Default::default()
            };
            let page = sync_logs::list(&self.store.store, &filter).await.unwrap();
            let Some(last) = page.last() else { return count };
            after = Some((last.created_at, last.id));
            count += page.len();
        }
    }
}

/// A pull that waits for a worker, its vendor, and how many pages it was asked for so far.
pub(crate) struct Watched {
    pub(crate) system: ExternalSystem,
    pub(crate) run: RunId,
    asked: Arc<AtomicU64>,
    _vendor: Scripted,
    _processes: [Process; 2],
}

impl Stage {
    /// Starts an API and a scheduler, and lets a pull of so many sales wait for a worker; each page takes
    /// the vendor so long.
    pub(crate) async fn watched_pull(&self, sales: u64, page: Duration, max_attempts: i64) -> Watched {
        let asked = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&asked);
        let vendor = Scripted::start_with(move |request| {
            counter.fetch_add(1, Ordering::SeqCst);
            page_of(request, sales).delay(page)
        })
        .await
        .unwrap();
        let api = self.start("api");
        api.answers().await;
        let scheduler = self.start("scheduler");
        let system = self.system("the till", &vendor.url(), None).await;
        let run = self.pull(&system, max_attempts).await;
        Watched { system, run, asked, _vendor: vendor, _processes: [api, scheduler] }
    }

    /// Asserts that a watched pull has stored every sale once, and counted it once.
    pub(crate) async fn everything_is_there_once(&self, watched: &Watched, sales: u64) {
        let sales = i64::try_from(sales).unwrap();
        let run = self.run(watched.run).await;
        assert_eq!((run.records_total, run.records_success), (sales, sales));
        let tally = pos_transactions::tally(&self.store, watched.system.id).await.unwrap();
        assert_eq!((tally.count, tally.distinct_ids), (sales, sales));
    }
}

impl Watched {
    /// Pages asked for so far.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until so many pages were asked for.
    pub(crate) async fn reaches(&self, pages: u64) {
        until("the pull has come further", Duration::from_mins(1), || async { self.asked() >= pages }).await;
    }
}

/// A process of the service, killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) port: u16,
    log: PathBuf,
}

impl Process {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it without a word, as a power cut would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ends(&mut self, within: Duration) -> std::process::ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                since.elapsed() < within,
                "the process did not end within {within:?}\n{}",
                self.log_text()
            );
            pause().await;
        }
    }

    /// What it has logged.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its health page answers.
    pub(crate) async fn answers(&self) {
        let url = format!("http://127.0.0.1:{}/health/live", self.port);
        let what = format!("{url} answers");
        until(&what, Duration::from_mins(1), || async {
            http(&url, None).await.is_some_and(|(status, _)| status == 200)
        })
        .await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let text = self.log_text();
            let tail: Vec<&str> = text.lines().rev().take(40).collect();
            eprintln!("--- last lines of {}:", self.log.display());
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

/// Sends a signal by name to a process.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// A Redis server of the test's own, so that it can be killed.
pub(crate) struct Redis {
    child: Option<Child>,
    port: u16,
}

impl Redis {
    #[expect(clippy::disallowed_methods, reason = "tests are told by the environment what must be there")]
    fn start() -> Option<Self> {
        let mut redis = Self { child: None, port: free_port() };
        match redis.spawn() {
            Ok(()) => Some(redis),
            Err(error) => {
                assert!(
                    std::env::var_os("ZHILIAN_REQUIRE_BACKENDS").is_none(),
                    "redis-server does not start ({error}), and ZHILIAN_REQUIRE_BACKENDS demands it"
                );
                eprintln!("SKIPPED with Redis: redis-server does not start: {error}");
                None
            }
        }
    }

    fn spawn(&mut self) -> std::io::Result<()> {
        let child = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &self.port.to_string(),
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it; what it held is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, empty, on the same port, and waits for it.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.spawn().unwrap();
        self.up().await;
    }

    /// Waits until it answers.
    pub(crate) async fn up(&self) {
        until("Redis answers", Duration::from_secs(20), || async {
            let Ok(client) = redis::Client::open(self.url()) else {
                return false;
            };
            let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
                return false;
            };
            redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
        })
        .await;
    }

    /// Sends a command.
    pub(crate) async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut connection).await.unwrap()
    }

    /// How much memory its data takes.
    pub(crate) async fn memory(&self) -> u64 {
        let info: String = self.command(&["INFO", "memory"]).await;
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory_dataset:")).unwrap();
        line.trim().parse().unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A GET or, with a body, a POST; status and body, or `None` when nobody answers.
pub(crate) async fn http(url: &str, token: Option<&str>) -> Option<(u16, String)> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = client();
    let mut request = client.get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.ok()?;
    let status = response.status().as_u16();
    Some((status, response.text().await.ok()?))
}

#[expect(clippy::disallowed_methods, reason = "the test is a client of the service, not of a vendor")]
pub(crate) fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap()
}

/// Waits for a condition, looking often.
pub(crate) async fn until<F: Future<Output = bool>>(
    what: &str,
    within: Duration,
    mut holds: impl FnMut() -> F,
) {
    let since = Instant::now();
    while !holds().await {
        assert!(since.elapsed() < within, "waited {within:?} in vain until {what}");
        pause().await;
    }
}

#[expect(clippy::disallowed_methods, reason = "another process cannot wake this one")]
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One sale as the demo till tells it; amounts and times follow from the number.
pub(crate) fn sale(number: u64) -> Value {
    json!({
        "sale_id": format!("S-{number:06}"), "order_no": format!("A{number}"), "kind": "sale", "shop": "shop-1",
        "subtotal_fen": 1000 + number, "tax_fen": 0, "discount_fen": 0, "total_fen": 1000 + number, "pay": "cash",
        "phone": "13800000000", "member": "", "lines": [],
        "sold_at": "2026-01-01T12:00:00+08:00", "updated_at": "2026-01-01T12:00:00.123+08:00",
    })
}

/// The page that a request asks for, out of `sales` sales numbered from 1.
pub(crate) fn page_of(request: &RecordedRequest, sales: u64) -> Answer {
    let number =
        |name: &str, otherwise| request.query(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let (page, size) = (number("page", 1_u64), number("page_size", 100_u64));
    let first = (page - 1) * size + 1;
    let items: Vec<Value> = (first..(first + size).min(sales + 1)).map(sale).collect();
    let pages = sales.div_ceil(size);
    Answer::json(
        200,
        &json!({"code": 0, "message": "ok", "data": {"items": items, "page": page, "pages": pages}}),
    )
}
