//! The settings of the work: how long things may take, how many at a time, what vendors may cost.
//!
//! The edge reads them from `config/default.toml` and hands them down; nothing here reads a file or
//! the environment. Times are in seconds unless the name says otherwise.

use serde::Deserialize;
use zhilian_sync_store::Lane;

/// Settings of the engine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSettings {
    /// How long one attempt may take before it is cut off.
    pub job_timeout_secs: u64,
    /// How long a claim holds without a heartbeat.
    pub lease_secs: u64,
    /// How often a running attempt renews its lease.
    pub heartbeat_secs: u64,
    /// How long a pull works before it returns to pending so that others get a turn.
    pub turn_secs: u64,
    /// Attempts before a run is given up; one that has stored a page is not counted.
    pub max_attempts: u32,
    /// The first retry delay.
    pub retry_initial_secs: u64,
    /// The longest retry delay; a vendor's Retry-After is bounded by it too.
    pub retry_max_secs: u64,
    /// How long a run may be postponed in all before it fails.
    pub run_deadline_secs: u64,
    /// How long an ended process waits for its jobs before it cuts them off.
    pub stop_secs: u64,
    /// The scheduler's pace.
    pub scheduler_tick_ms: u64,
    /// A pending row that was rung and not claimed for so long is rung again.
    pub rering_secs: u64,
    /// Ring no more while a lane has so many messages: the rows are the backlog.
    pub lane_high_water: u64,
    /// A system with so many failed runs in a row goes to `error`.
    pub breaker_failures: u32,
    /// A system in `error` is tried again after so long.
    pub breaker_cooldown_secs: u64,
    /// The most that a run is moved away from its slot so that systems do not fire together.
    pub jitter_max_secs: u64,
    /// How many days ended runs, resolved failures and events are kept.
    pub retention_days: u32,
    /// How many attempts run at a time in one process, lane by lane.
    pub concurrency: LaneConcurrency,
}

/// How many attempts run at a time in one process.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneConcurrency {
    /// Applying webhooks.
    pub hooks: usize,
    /// Tests and manual syncs.
    pub interactive: usize,
    /// Scheduled pulls.
    pub syncs: usize,
    /// Housekeeping.
    pub upkeep: usize,
}

impl LaneConcurrency {
    /// The number for one lane.
    #[must_use]
    pub const fn of(&self, lane: Lane) -> usize {
        match lane {
            Lane::Hooks => self.hooks,
            Lane::Interactive => self.interactive,
            Lane::Syncs => self.syncs,
            Lane::Upkeep => self.upkeep,
        }
    }
}

/// Settings of the queue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    /// Starts every key in Redis, so that several installations can share one server.
    pub prefix: String,
    /// Messages the in-process queue holds, lane by lane.
    pub memory_capacity: usize,
    /// How often an idle worker looks into Redis.
    pub poll_ms: u64,
    /// How long Redis may take to answer.
    pub response_timeout_secs: u64,
    /// How long a connection to Redis may take.
    pub connect_timeout_secs: u64,
    /// A worker without a heartbeat for so long has its messages taken away; longer than
    /// `engine.job_timeout_secs`, because a busy worker sends none.
    pub orphan_secs: u64,
    /// How often finished messages are swept out of Redis.
    pub sweep_secs: u64,
}

/// Settings of vendor calls.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorSettings {
    /// A folder of manifests that add to or replace the built-in ones; empty for none.
    pub directory: String,
    /// Private networks that vendors may live in, as `10.20.0.0/16`; a single address is a /32.
    pub allow_networks: Vec<String>,
    /// How long connecting may take.
    pub connect_timeout_secs: u64,
    /// How long the next bytes of an answer may take.
    pub read_timeout_secs: u64,
    /// How long a whole call may take.
    pub timeout_secs: u64,
    /// The largest answer, unpacked.
    pub response_bytes_max: usize,
    /// The most pages of one window.
    pub pages_max: u32,
    /// The longest Retry-After that is believed.
    pub retry_after_max_secs: u64,
    /// How much of a request or an answer is kept as a sample on the run.
    pub sample_bytes_max: usize,
}

/// Settings of the inbox: what is held in memory, what is kept of unverified events, how events are applied.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// The bytes of bodies that may be on their way in at a time; more are answered with 503.
    pub reading_bytes_max: usize,
    /// Verified events that wait for their commit at a time; more are answered with 503.
    pub queue_rows_max: usize,
    /// The memory that they take, in bytes: about twice their bodies.
    pub queue_bytes_max: usize,
    /// The most events of one insert.
    pub batch_rows_max: usize,
    /// The most bytes of one insert; a single event may be larger.
    pub batch_bytes_max: usize,
    /// Inserts under way at a time: another joins where enough wait for it, or where those take long.
    pub commits_in_flight: usize,
    /// The longest that a caller waits for its commit, even if its vendor would wait longer.
    pub ack_deadline_max_ms: u64,
    /// So long before a vendor gives up it has its answer: the time that the answer travels.
    pub ack_margin_ms: u64,
    /// Unverified events that are kept of one system; more are answered with 429.
    pub quarantine_events_max: u32,
    /// The bytes of those.
    pub quarantine_bytes_max: u64,
    /// Unverified events that are kept in all.
    pub quarantine_events_total_max: u32,
    /// The bytes of those.
    pub quarantine_bytes_total_max: u64,
    /// Unverified events that wait for their commit at a time.
    pub quarantine_queue_rows_max: usize,
    /// The memory that they take, in bytes.
    pub quarantine_queue_bytes_max: usize,
    /// Unverified events that one address may send in a minute; more are answered with 429.
    pub unverified_per_minute: u32,
    /// How many of them may come at once.
    pub unverified_burst: u32,
    /// Addresses that are told apart; further ones share one allowance.
    pub addresses_max: usize,
    /// Systems whose settings and secrets are kept in memory.
    pub systems_cached_max: usize,
    /// Attempts to apply an event before it is dead, of what is wrong with the event itself.
    pub attempts_max: u32,
    /// How long after its receipt an event is tried again where what failed may mend itself with time.
    pub patience_hours: u32,
    /// The most events that a worker takes at a time.
    pub apply_batch: u32,
    /// How long the secret before counts beside a new one, unless the rotation says otherwise.
    pub secret_overlap_hours: u32,
}
