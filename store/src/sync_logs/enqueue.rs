//! How a run comes to be: inserted in its cause's transaction, or folded into one that is under way.

use chrono::{DateTime, Utc};

use crate::error::StoreError;
use crate::ids::{RunId, SystemId, UserId};
use crate::on_tx;
use crate::pool::Tx;
use crate::text_enum::{Lane, SyncStatus, Trigger};

/// A run that is about to be inserted.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// The system; `None` for upkeep.
    pub system_id: Option<SystemId>,
    /// The kind of job.
    pub kind: &'static str,
    /// The stream, or `connection_test`.
    pub sync_type: String,
    /// Why.
    pub trigger: Trigger,
    /// Which workers take it.
    pub lane: Lane,
    /// At most one pending or syncing run has it.
    pub exclusive_key: Option<String>,
    /// Attempts there are.
    pub max_attempts: i64,
    /// Not before this time.
    pub run_at: DateTime<Utc>,
    /// Postponed no longer than this.
    pub deadline_at: Option<DateTime<Utc>>,
    /// Its slot, without jitter.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// What it is asked to do (JSON).
    pub parameters: Option<String>,
    /// The run that it repeats.
    pub retry_of: Option<RunId>,
    /// Who asks.
    pub requested_by: Option<UserId>,
    /// Set when the caller rings right after its commit; otherwise the scheduler rings.
    pub rung_at: Option<DateTime<Utc>>,
}

// Untargeted: whichever of the two unique indexes is in the way, the row is not made.
pub(crate) const INSERT: &str = "INSERT INTO sync_logs (id, system_id, kind, sync_type, trigger, lane, \
    exclusive_key, status, attempt, max_attempts, claim_no, run_at, deadline_at, scheduled_for, again, parameters, \
    retry_of, records_total, records_success, records_failed, records_skipped, requested_by, rung_at, created_at, \
    updated_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending', 0, $8, 0, $9, $10, $11, FALSE, $12, $13, 0, 0, 0, 0, $14, $15, $16, \
    $16) \
    ON CONFLICT DO NOTHING";

/// Inserts a pending run; `false` when a run with its exclusive key is under way, or its slot is taken.
pub async fn insert(tx: &mut Tx, run: &NewRun, now: DateTime<Utc>) -> Result<bool, StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(INSERT)
        .bind(run.id)
        .bind(run.system_id)
        .bind(run.kind)
        .bind(&run.sync_type)
        .bind(run.trigger)
        .bind(run.lane)
        .bind(&run.exclusive_key)
        .bind(run.max_attempts)
        .bind(run.run_at)
        .bind(run.deadline_at)
        .bind(run.scheduled_for)
        .bind(&run.parameters)
        .bind(run.retry_of)
        .bind(run.requested_by)
        .bind(run.rung_at)
        .bind(now)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(affected == 1)
}

/// The run that holds an exclusive key.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Active {
    /// Its id.
    pub id: RunId,
    /// Pending or syncing.
    pub status: SyncStatus,
    /// What it was asked to do.
    pub parameters: Option<String>,
    /// Not before this time.
    pub run_at: DateTime<Utc>,
    /// It is in the middle of something: it goes on where it was, and does not begin anew.
    pub begun: bool,
}

pub(crate) const FIND_ACTIVE: &str = "SELECT id, status, parameters, run_at, position IS NOT NULL AS begun FROM sync_logs \
    WHERE exclusive_key = $1 AND status IN ('pending', 'syncing')";

/// The pending or syncing run with this exclusive key.
pub async fn find_active(tx: &mut Tx, exclusive_key: &str) -> Result<Option<Active>, StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::query_as(FIND_ACTIVE).bind(exclusive_key.to_owned()).fetch_optional(ex).await)?)
}

// A run that webhooks have asked for waits until it can see what they told of: begun earlier, it does not.
pub(crate) const HURRY: &str = "UPDATE sync_logs SET run_at = $2, lane = $3, rung_at = $2, updated_at = $2, \
    again = again OR (trigger = 'webhook' AND run_at > $2) WHERE id = $1 AND status = 'pending'";

/// Makes a pending run due now, in another lane; the caller rings after its commit. One that webhooks have
/// asked for a later time runs once more. `false` when it is not pending any more.
pub async fn hurry(tx: &mut Tx, id: RunId, lane: Lane, now: DateTime<Utc>) -> Result<bool, StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(HURRY)
        .bind(id)
        .bind(now)
        .bind(lane)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(affected == 1)
}

pub(crate) const RELEASE: &str = "UPDATE sync_logs SET run_at = $3, deadline_at = $4, rung_at = NULL, updated_at = $3 \
    WHERE system_id = $1 AND kind = $2 AND status = 'pending'";

/// Makes the runs of a kind that wait for their system due now, with a new deadline; the scheduler rings for
/// them. How many there were.
pub async fn release(
    tx: &mut Tx,
    system: SystemId,
    kind: &str,
    now: DateTime<Utc>,
    deadline_at: DateTime<Utc>,
) -> Result<u64, StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::query(RELEASE)
        .bind(system)
        .bind(kind.to_owned())
        .bind(now)
        .bind(deadline_at)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}

pub(crate) const ASK_AGAIN: &str = "UPDATE sync_logs SET again = TRUE, updated_at = $2 \
    WHERE id = $1 AND status IN ('pending', 'syncing')";

/// Makes a run run once more when it ends; `false` when it has ended.
pub async fn ask_again(tx: &mut Tx, id: RunId, now: DateTime<Utc>) -> Result<bool, StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(ASK_AGAIN)
        .bind(id)
        .bind(now)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(affected == 1)
}
