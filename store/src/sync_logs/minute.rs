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

// Most minutes are there already.
pub(crate) const ADD_TO_MINUTE: &str = "UPDATE sync_logs SET records_total = records_total + $2, \
    records_success = records_success + $3, records_failed = records_failed + $4, \
    records_skipped = records_skipped + $5, status = CASE WHEN status = $6 THEN status ELSE 'partial' END, \
    completed_at = $7, duration_ms = $8, error_code = COALESCE($9, error_code), \
    error_message = COALESCE($10, error_message), updated_at = $7 WHERE id = $1";

// Untargeted: two that make a row at once meet at its id or at its slot, and PostgreSQL takes a conflict at
// an index that was not named for an error.
pub(crate) const LOG_MINUTE: &str = "INSERT INTO sync_logs (id, system_id, kind, sync_type, trigger, lane, status, \
    attempt, max_attempts, claim_no, run_at, scheduled_for, again, records_total, records_success, records_failed, \
    records_skipped, started_at, completed_at, duration_ms, error_code, error_message, created_at, updated_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, 1, 1, 0, $8, $8, FALSE, $9, $10, $11, $12, $8, $13, $14, $15, $16, $13, $13) \
    ON CONFLICT DO NOTHING";

/// Adds counts to the row of a minute, and makes it if it is the first to do so.
///
/// The row is held until the commit, and everybody who applies events of this system and type waits for
/// it: call it late, and for several rows in the order of system and type.
pub async fn log_minute(tx: &mut Tx, clock: &Clock, log: LogMinute<'_>) -> Result<RunId, StoreError> {
    let now = clock.now();
    let id = minute_id(log.system_id, log.event_type, log.minute);
    // Whoever loses the race to make the row has waited for it, and adds to it.
    if !add(tx, id, &log, now).await? && !make(tx, id, &log, now).await? {
        add(tx, id, &log, now).await?;
    }
    Ok(id)
}

fn status_of(counts: Counts) -> SyncStatus {
    match (counts.failed, counts.success + counts.skipped) {
        (0, _) => SyncStatus::Success,
        (_, 0) => SyncStatus::Failed,
        _ => SyncStatus::Partial,
    }
}

/// Adds to the row; `false` where there is none yet.
async fn add(tx: &mut Tx, id: RunId, log: &LogMinute<'_>, now: DateTime<Utc>) -> Result<bool, StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(ADD_TO_MINUTE)
        .bind(id)
        .bind(log.counts.total)
        .bind(log.counts.success)
        .bind(log.counts.failed)
        .bind(log.counts.skipped)
        .bind(status_of(log.counts))
        .bind(now)
        .bind((now - log.minute).num_milliseconds().max(0))
        .bind(log.failed_reason.map(|(code, _)| code.to_owned()))
        .bind(log.failed_reason.map(|(_, message)| clean(message.to_owned())))
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(affected == 1)
}

/// Makes the row; `false` where there is one meanwhile.
async fn make(tx: &mut Tx, id: RunId, log: &LogMinute<'_>, now: DateTime<Utc>) -> Result<bool, StoreError> {
    let Counts { total, success, failed, skipped } = log.counts;
    let affected = on_tx!(tx, |ex| sqlx::query(LOG_MINUTE)
        .bind(id)
        .bind(log.system_id)
        .bind(APPLY_WEBHOOKS)
        .bind(sync_type_of(log.event_type))
        .bind(Trigger::Webhook)
        .bind(Lane::Hooks)
        .bind(status_of(log.counts))
        .bind(log.minute)
        .bind(total)
        .bind(success)
        .bind(failed)
        .bind(skipped)
        .bind(now)
        .bind((now - log.minute).num_milliseconds().max(0))
        .bind(log.failed_reason.map(|(code, _)| code.to_owned()))
        .bind(log.failed_reason.map(|(_, message)| clean(message.to_owned())))
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(affected == 1)
}
