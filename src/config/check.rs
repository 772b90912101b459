//! What a single key cannot say: whether the settings fit each other and the world.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use secrecy::SecretString;
use url::Url;
use zhilian_sync_store::Vault;

use super::Settings;

/// Everything that is wrong, with the key to change; `was_set` tells what is no default.
pub(super) fn check(settings: &Settings, was_set: &dyn Fn(&str) -> bool) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    check_server(settings, &mut wrong);
    check_places(settings, &mut wrong);
    check_times(settings, &mut wrong, was_set);
    check_counts(settings, &mut wrong);
    wrong
}

type Wrong = Vec<(&'static str, String)>;

fn check_server(settings: &Settings, wrong: &mut Wrong) {
    let server = &settings.server;
    if !server.public_url.is_empty() {
        let good = Url::parse(&server.public_url).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.path() == "/"
                && url.query().is_none()
        });
        if !good {
            let message =
                format!("`{}` is not an origin; expected `https://host` without a path", server.public_url);
            wrong.push(("server.public_url", message));
        }
    }
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&settings.log.filter) {
        wrong.push(("log.filter", format!("`{}` is not a filter: {error}", settings.log.filter)));
    }
    let password = &settings.auth.admin_password;
    if !password.is_empty() && password.expose().chars().count() < crate::auth::PASSWORD_CHARS_MIN {
        let least = crate::auth::PASSWORD_CHARS_MIN;
        wrong.push(("auth.admin_password", format!("shorter than {least} characters")));
    }
}

/// Databases, queues, keys, folders and networks. Values that may hold secrets are not repeated.
fn check_places(settings: &Settings, wrong: &mut Wrong) {
    let url = settings.database.url.expose();
    if !settings.database.is_postgres() && url.strip_prefix("sqlite:").is_none_or(str::is_empty) {
        let expected = "not a database URL; expected `sqlite:PATH` or `postgres://user:password@host/name`";
        wrong.push(("database.url", expected.to_owned()));
    }
    let url = settings.redis.url.expose();
    if !url.is_empty()
        && !["redis://", "redis+unix://", "unix://"].iter().any(|scheme| url.starts_with(scheme))
    {
        let expected = "not a Redis URL; expected `redis://host:6379/0`, or nothing for the queue inside";
        wrong.push(("redis.url", expected.to_owned()));
    }
    let key = &settings.vault.master_key;
    if !key.is_empty()
        && let Err(error) = Vault::from_text(&SecretString::from(key.expose()))
    {
        wrong.push(("vault.master_key", format!("{error}; `openssl rand -base64 32` makes one")));
    }
    let directory = &settings.vendors.directory;
    if !directory.is_empty() && !Path::new(directory).is_dir() {
        wrong.push(("vendors.directory", format!("`{directory}` is not a folder")));
    }
    for network in &settings.vendors.allow_networks {
        if !is_network(network) {
            let message = format!("`{network}` is not a network; expected `10.20.0.0/16`");
            wrong.push(("vendors.allow_networks", message));
        }
    }
}

fn is_network(text: &str) -> bool {
    if text.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    length.is_empty() && !text.contains('/') || length.parse::<u8>().is_ok_and(|length| length <= most)
}

/// Times that only work in one order. The key that was set is blamed, not the default that it breaks.
fn check_times(settings: &Settings, wrong: &mut Wrong, was_set: &dyn Fn(&str) -> bool) {
    let engine = &settings.engine;
    let pairs = [
        (
            "engine.heartbeat_secs",
            engine.heartbeat_secs.saturating_mul(2),
            "engine.lease_secs",
            engine.lease_secs,
        ),
        ("engine.turn_secs", engine.turn_secs, "engine.job_timeout_secs", engine.job_timeout_secs),
        ("engine.job_timeout_secs", engine.job_timeout_secs, "queue.orphan_secs", settings.queue.orphan_secs),
        (
            "engine.retry_initial_secs",
            engine.retry_initial_secs,
            "engine.retry_max_secs",
            engine.retry_max_secs,
        ),
    ];
    for (small_key, small, large_key, large) in pairs {
        // The first retry delay may be the longest; the others need room.
        let fits = if small_key == "engine.retry_initial_secs" { small <= large } else { small < large };
        if !fits {
            let twice = if small_key == "engine.heartbeat_secs" { "twice " } else { "" };
            let blamed = if was_set(small_key) || !was_set(large_key) { small_key } else { large_key };
            let message = format!(
                "{twice}`{small_key}` is `{small}`, too much beside `{large_key}`, which is `{large}`"
            );
            wrong.push((blamed, message));
        }
    }
}

/// A setting, its value, the least and the most that it may be.
type Count = (&'static str, u64, u64, u64);

/// Numbers of which zero, or a fantastic amount, would stop everything.
fn check_counts(settings: &Settings, wrong: &mut Wrong) {
    let (server, engine, vendors) = (&settings.server, &settings.engine, &settings.vendors);
    let (lanes, queue) = (&engine.concurrency, &settings.queue);
    let counts: &[Count] = &[
        ("server.max_connections", server.max_connections as u64, 1, 1_000_000),
        ("server.request_timeout_secs", server.request_timeout_secs, 1, 3600),
        ("server.drain_secs", server.drain_secs, 0, 3600),
        ("server.body_bytes_max", server.body_bytes_max as u64, 1024, 64 << 20),
        ("server.batch_bytes_max", server.batch_bytes_max as u64, 1024, 256 << 20),
        ("server.test_waiters_max", server.test_waiters_max as u64, 1, 10_000),
        ("database.connections_max", settings.database.connections_max.into(), 2, 1000),
        ("database.acquire_timeout_secs", settings.database.acquire_timeout_secs, 1, 600),
        ("queue.memory_capacity", queue.memory_capacity as u64, 1, 10_000_000),
        ("queue.poll_ms", queue.poll_ms, 1, 60_000),
        ("queue.response_timeout_secs", queue.response_timeout_secs, 1, 600),
        ("queue.connect_timeout_secs", queue.connect_timeout_secs, 1, 600),
        ("queue.sweep_secs", queue.sweep_secs, 1, 86_400),
        ("engine.heartbeat_secs", engine.heartbeat_secs, 1, 3600),
        ("engine.turn_secs", engine.turn_secs, 1, 86_400),
        ("engine.max_attempts", engine.max_attempts.into(), 1, 1000),
        ("engine.retry_initial_secs", engine.retry_initial_secs, 1, 86_400),
        ("engine.run_deadline_secs", engine.run_deadline_secs, 60, 31_536_000),
        ("engine.stop_secs", engine.stop_secs, 0, 3600),
        ("engine.scheduler_tick_ms", engine.scheduler_tick_ms, 10, 60_000),
        ("engine.rering_secs", engine.rering_secs, 1, 86_400),
        ("engine.lane_high_water", engine.lane_high_water, 1, 100_000_000),
        ("engine.breaker_failures", engine.breaker_failures.into(), 1, 1_000_000),
        ("engine.breaker_cooldown_secs", engine.breaker_cooldown_secs, 1, 31_536_000),
        ("engine.jitter_max_secs", engine.jitter_max_secs, 0, 86_400),
        ("engine.retention_days", engine.retention_days.into(), 1, 36_500),
        ("engine.concurrency.hooks", lanes.hooks as u64, 1, 1000),
        ("engine.concurrency.interactive", lanes.interactive as u64, 1, 1000),
        ("engine.concurrency.syncs", lanes.syncs as u64, 1, 1000),
        ("engine.concurrency.upkeep", lanes.upkeep as u64, 1, 1000),
        ("vendors.connect_timeout_secs", vendors.connect_timeout_secs, 1, 600),
        ("vendors.read_timeout_secs", vendors.read_timeout_secs, 1, 3600),
        ("vendors.timeout_secs", vendors.timeout_secs, 1, 3600),
        ("vendors.response_bytes_max", vendors.response_bytes_max as u64, 1024, 1 << 30),
        ("vendors.pages_max", vendors.pages_max.into(), 1, 10_000_000),
        ("vendors.sample_bytes_max", vendors.sample_bytes_max as u64, 0, 1 << 20),
        ("auth.session_hours", settings.auth.session_hours.into(), 1, 8760),
    ];
    for &(key, value, least, most) in counts.iter().chain(&webhook_counts(settings)) {
        if !(least..=most).contains(&value) {
            wrong.push((key, format!("`{value}` is not between `{least}` and `{most}`")));
        }
    }
}

/// The same for the inbox.
fn webhook_counts(settings: &Settings) -> [Count; 22] {
    let inbox = &settings.webhooks;
    // A body that passes the door must fit into the queue behind it, where it is held twice.
    let body = 2 * settings.server.body_bytes_max as u64 + (64 << 10);
    [
        ("webhooks.reading_bytes_max", inbox.reading_bytes_max as u64, body, 1 << 40),
        ("webhooks.queue_rows_max", inbox.queue_rows_max as u64, 1, 10_000_000),
        ("webhooks.queue_bytes_max", inbox.queue_bytes_max as u64, body, 1 << 40),
        ("webhooks.batch_rows_max", inbox.batch_rows_max as u64, 1, 5_000),
        ("webhooks.batch_bytes_max", inbox.batch_bytes_max as u64, 1024, 256 << 20),
        ("webhooks.commits_in_flight", inbox.commits_in_flight as u64, 1, 64),
        ("webhooks.ack_deadline_max_ms", inbox.ack_deadline_max_ms, 100, 600_000),
        ("webhooks.ack_margin_ms", inbox.ack_margin_ms, 0, 10_000),
        ("webhooks.quarantine_events_max", inbox.quarantine_events_max.into(), 0, 100_000),
        ("webhooks.quarantine_bytes_max", inbox.quarantine_bytes_max, 0, 1 << 40),
        ("webhooks.quarantine_events_total_max", inbox.quarantine_events_total_max.into(), 0, 100_000),
        ("webhooks.quarantine_bytes_total_max", inbox.quarantine_bytes_total_max, 0, 1 << 50),
        ("webhooks.quarantine_queue_rows_max", inbox.quarantine_queue_rows_max as u64, 1, 1_000_000),
        ("webhooks.quarantine_queue_bytes_max", inbox.quarantine_queue_bytes_max as u64, body, 1 << 40),
        ("webhooks.unverified_per_minute", inbox.unverified_per_minute.into(), 1, 10_000_000),
        ("webhooks.unverified_burst", inbox.unverified_burst.into(), 1, 10_000_000),
        ("webhooks.addresses_max", inbox.addresses_max as u64, 1, 10_000_000),
        ("webhooks.systems_cached_max", inbox.systems_cached_max as u64, 1, 10_000_000),
        ("webhooks.attempts_max", inbox.attempts_max.into(), 1, 1000),
        ("webhooks.patience_hours", inbox.patience_hours.into(), 1, 8760),
        ("webhooks.apply_batch", inbox.apply_batch.into(), 1, 5_000),
        ("webhooks.secret_overlap_hours", inbox.secret_overlap_hours.into(), 0, 8760),
    ]
}
