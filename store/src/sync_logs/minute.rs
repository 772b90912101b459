//! What was applied of a system's events, minute by minute: one row per system, type and minute instead
//! of one per event, written in the transaction that applies them.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::Counts;
use crate::clock::Clock;
use crate::error::StoreError;
use crate::ids::{RunId, SystemId};
use crate::on_tx;
use crate::pool::Tx;
use crate::record_batches::clean;
use crate::text_enum::{Lane, SyncStatus, Trigger};

/// The kind of the rows.
pub const APPLY_WEBHOOKS: &str = "apply_webhooks";
/// The longest event type that goes into a row's `sync_type`, which is indexed.
const EVENT_TYPE_CHARS_MAX: usize = 200;

/// What is added to the row of a minute.
#[derive(Debug, Clone, Copy)]
pub struct LogMinute<'a> {
    /// Whose events.
    pub system_id: SystemId,
    /// Of which type.
    pub event_type: &'a str,
    /// The minute in which they were applied, to the second zero.
    pub minute: DateTime<Utc>,
    /// How many.
    pub counts: Counts,
    /// Why one of them failed: a stable code, and words for people.
    pub failed_reason: Option<(&'a str, &'a str)>,
}

/// The `sync_type` of events of a type.
fn sync_type_of(event_type: &str) -> String {
    clean(format!("webhook/{}", event_type.chars().take(EVENT_TYPE_CHARS_MAX).collect::<String>()))
}

/// The id of the row of a minute. It follows from what the row is about, so that records can bear it
/// before the row is written: the row is everybody's, and is held from [`log_minute`] to the commit.
#[must_use]
pub fn minute_id(system: SystemId, event_type: &str, minute: DateTime<Utc>) -> RunId {
    let mut hash = Sha256::new();
    hash.update(system.0.as_bytes());
    hash.update(sync_type_of(event_type));
    let hash = hash.finalize();
    let mut random = [0; 10];
    random.copy_from_slice(&hash[..10]);
    let millis = u64::try_from(minute.timestamp_millis()).unwrap_or_default();
    RunId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

// The id stands for the slot. It is what conflicts, because PostgreSQL looks at a table's first index first:
// with the slot as the target, two that make a row at once would meet at the id, which is an error.
pub(crate) const LOG_MINUTE: &str = "INSERT INTO sync_logs (id, system_id, kind, sync_type, trigger, lane, status, \
    attempt, max_attempts, claim_no, run_at, scheduled_for, again, records_total, records_success, records_failed, \
    records_skipped, started_at, completed_at, duration_ms, error_code, error_message, created_at, updated_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, 1, 1, 0, $8, $8, FALSE, $9, $10, $11, $12, $8, $13, $14, $15, $16, $13, $13) \
    ON CONFLICT (id) DO UPDATE SET \
    records_total = sync_logs.records_total + excluded.records_total, \
    records_success = sync_logs.records_success + excluded.records_success, \
    records_failed = sync_logs.records_failed + excluded.records_failed, \
    records_skipped = sync_logs.records_skipped + excluded.records_skipped, \
    status = CASE WHEN sync_logs.status = excluded.status THEN sync_logs.status ELSE 'partial' END, \
    completed_at = excluded.completed_at, duration_ms = excluded.duration_ms, \
    error_code = COALESCE(excluded.error_code, sync_logs.error_code), \
    error_message = COALESCE(excluded.error_message, sync_logs.error_message), updated_at = excluded.updated_at \
    RETURNING id";

/// Adds counts to the row of a minute, and makes it if it is the first to do so.
///
/// The row is held until the commit, and everybody who applies events of this system and type waits for
/// it: call it late, and for several rows in the order of system and type.
pub async fn log_minute(tx: &mut Tx, clock: &Clock, log: LogMinute<'_>) -> Result<RunId, StoreError> {
    let now = clock.now();
    let Counts { total, success, failed, skipped } = log.counts;
    let status = match (failed, success + skipped) {
        (0, _) => SyncStatus::Success,
        (_, 0) => SyncStatus::Failed,
        _ => SyncStatus::Partial,
    };
    Ok(on_tx!(tx, |ex| sqlx::query_scalar(LOG_MINUTE)
        .bind(minute_id(log.system_id, log.event_type, log.minute))
        .bind(log.system_id)
        .bind(APPLY_WEBHOOKS)
        .bind(sync_type_of(log.event_type))
        .bind(Trigger::Webhook)
        .bind(Lane::Hooks)
        .bind(status)
        .bind(log.minute)
        .bind(total)
        .bind(success)
        .bind(failed)
        .bind(skipped)
        .bind(now)
        .bind((now - log.minute).num_milliseconds().max(0))
        .bind(log.failed_reason.map(|(code, _)| code.to_owned()))
        .bind(log.failed_reason.map(|(_, message)| clean(message.to_owned())))
        .fetch_one(ex)
        .await)?)
}
