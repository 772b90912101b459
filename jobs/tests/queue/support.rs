//! What the queue tests stand on: a queue of their own, a worker that notes what it hears, a gate
//! that holds handlers, and Redis servers that may be broken.

use std::collections::HashSet;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use zhilian_sync_jobs::queue::{Queue, supervise};
use zhilian_sync_jobs::settings::QueueSettings;
use zhilian_sync_store::{Clock, Lane, RunId};

/// What any wait of these tests may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// So many new run ids.
pub(crate) fn runs(count: usize) -> Vec<RunId> {
    let clock = Clock::system();
    (0..count).map(|_| RunId(clock.new_id())).collect()
}

/// Waits until `holds`, and says what was waited for if it never does.
pub(crate) async fn within(secs: u64, what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    let mut look = tokio::time::interval(Duration::from_millis(10));
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(secs), "not within {secs} s: {what}");
        look.tick().await;
    }
}

fn settings(prefix: String, memory_capacity: usize) -> QueueSettings {
    QueueSettings {
        prefix,
        memory_capacity,
        poll_ms: 20,
        response_timeout_secs: 10,
        connect_timeout_secs: 2,
        orphan_secs: 600,
        sweep_secs: 5,
    }
}

/// A queue that nobody else uses.
pub(crate) struct Bench {
    pub(crate) queue: Queue,
    pub(crate) settings: QueueSettings,
}

impl Bench {
    pub(crate) fn memory(capacity: usize) -> Self {
        let settings = settings(String::new(), capacity);
        Self { queue: Queue::memory(&settings), settings }
    }

    /// On the shared server; None where there is none.
    pub(crate) async fn redis() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "tests are told where their backends are")]
        let Some(url) = std::env::var_os("TEST_REDIS_URL") else {
            absent("`TEST_REDIS_URL` is not set");
            return None;
        };
        Some(Self::on(url.to_str().unwrap()).await)
    }

    pub(crate) async fn on(url: &str) -> Self {
        let settings = settings(format!("test:{}", Clock::system().new_id()), 0);
        Self { queue: Queue::redis(url, &settings).await.unwrap(), settings }
    }

    /// A worker that notes what it hears.
    pub(crate) fn worker(&self, lane: Lane, concurrency: usize) -> Worker {
        self.worker_with(lane, concurrency, |_| std::future::ready(()).boxed())
    }

    /// A worker that notes what it has handled.
    pub(crate) fn worker_with(
        &self,
        lane: Lane,
        concurrency: usize,
        handler: impl Fn(RunId) -> BoxFuture<'static, ()> + Clone + Send + Sync + 'static,
    ) -> Worker {
        self.start(lane, concurrency, handler, CancellationToken::new())
    }

    /// A worker whose stop was asked for before it starts.
    pub(crate) fn worker_stopped(&self, lane: Lane) -> Worker {
        let stop = CancellationToken::new();
        stop.cancel();
        self.start(lane, 4, |_| std::future::ready(()).boxed(), stop)
    }

    fn start(
        &self,
        lane: Lane,
        concurrency: usize,
        handler: impl Fn(RunId) -> BoxFuture<'static, ()> + Clone + Send + Sync + 'static,
        stop: CancellationToken,
    ) -> Worker {
        let heard = Arc::new(watch::Sender::new(Vec::new()));
        let notes = heard.clone();
        let noting = move |run| {
            let (handling, notes) = (handler(run), notes.clone());
            async move {
                handling.await;
                notes.send_modify(|heard: &mut Vec<RunId>| heard.push(run));
            }
            .boxed()
        };
        let (queue, settings) = (self.queue.clone(), self.settings.clone());
        let (ended, watched) = watch::channel(false);
        let supervised = supervise(queue, lane, concurrency, settings, noting, stop.clone());
        tokio::spawn(async move {
            supervised.await;
            ended.send_replace(true);
        });
        Worker { heard, stop, ended: watched }
    }
}

/// A supervised lane.
pub(crate) struct Worker {
    heard: Arc<watch::Sender<Vec<RunId>>>,
    stop: CancellationToken,
    ended: watch::Receiver<bool>,
}

impl Worker {
    /// Waits until so many were handled.
    pub(crate) async fn handled(&self, count: usize) {
        let mut heard = self.heard.subscribe();
        let enough = tokio::time::timeout(PATIENCE, heard.wait_for(|heard| heard.len() >= count)).await;
        assert!(enough.is_ok(), "{} of {count} were handled", self.count());
    }

    pub(crate) fn count(&self) -> usize {
        self.heard.borrow().len()
    }

    pub(crate) fn heard(&self) -> HashSet<RunId> {
        self.heard.borrow().iter().copied().collect()
    }

    pub(crate) fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    pub(crate) async fn ends_within(&self, time: Duration) -> bool {
        let mut ended = self.ended.clone();
        tokio::time::timeout(time, ended.wait_for(|ended| *ended)).await.is_ok()
    }

    /// Stops and waits for the end.
    pub(crate) async fn stop(&self) {
        self.ask_to_stop();
        assert!(self.ends_within(PATIENCE).await, "the lane does not end");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Holds handlers until it is opened.
#[derive(Clone)]
pub(crate) struct Gate {
    passes: Arc<Semaphore>,
    entered: Arc<AtomicUsize>,
}

impl Gate {
    pub(crate) fn closed() -> Self {
        Self { passes: Arc::new(Semaphore::new(0)), entered: Arc::default() }
    }

    pub(crate) fn handler(&self) -> impl Fn(RunId) -> BoxFuture<'static, ()> + Clone + Send + Sync + use<> {
        let gate = self.clone();
        move |_| {
            let gate = gate.clone();
            async move {
                gate.entered.fetch_add(1, Ordering::SeqCst);
                gate.passes.acquire().await.unwrap().forget();
            }
            .boxed()
        }
    }

    /// Waits until so many handlers stand before it or have passed.
    pub(crate) async fn entered(&self, count: usize) {
        within(30, "handlers are running", || self.entered.load(Ordering::SeqCst) >= count).await;
    }

    /// Lets so many handlers pass.
    pub(crate) fn pass(&self, count: usize) {
        self.passes.add_permits(count);
    }

    pub(crate) fn open(&self) {
        self.pass(1_000_000);
    }
}

/// A Redis server that a test may break; without persistence, so a restart empties it.
pub(crate) struct Server {
    port: u16,
    process: Mutex<Option<Child>>,
}

impl Server {
    /// None where there is no `redis-server`.
    pub(crate) async fn start() -> Option<Self> {
        let server = Self::down()?;
        server.up().await;
        Some(server)
    }

    /// The address of a server that does not run yet.
    pub(crate) fn down() -> Option<Self> {
        let known = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        if known.is_err() {
            absent("there is no `redis-server` to start");
            return None;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Some(Self { port, process: Mutex::new(None) })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it, empty, and waits until it answers.
    pub(crate) async fn up(&self) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        *self.process.lock().unwrap() = Some(child);
        let started = Instant::now();
        let mut look = tokio::time::interval(Duration::from_millis(10));
        while self.ask::<String>(redis::cmd("PING")).await.is_err() {
            assert!(started.elapsed() < PATIENCE, "redis-server does not answer");
            look.tick().await;
        }
    }

    /// Ends it at once, as a power cut does.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.process.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) async fn ask<T: redis::FromRedisValue>(&self, command: redis::Cmd) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        command.query_async(&mut connection).await
    }

    /// All keys, sorted.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.ask(redis::cmd("KEYS").arg("*").to_owned()).await.unwrap();
        keys.sort();
        keys
    }

    /// The bytes that the data takes.
    pub(crate) async fn memory(&self) -> u64 {
        let info: String = self.ask(redis::cmd("INFO").arg("memory").to_owned()).await.unwrap();
        info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Says loudly that a test did not take place, or fails where that is not allowed.
fn absent(why: &str) {
    #[expect(clippy::disallowed_methods, reason = "tests are told whether they may be skipped")]
    let required = std::env::var_os("ZHILIAN_REQUIRE_BACKENDS").is_some_and(|value| value == "1");
    assert!(!required, "ZHILIAN_REQUIRE_BACKENDS is 1, but {why}");
    eprintln!("SKIPPED, NOT TESTED: {why}");
}
