//! How an attempt ends: for good, for now, or by a person's word. Every statement is fenced by the
//! claim it ends, so two workers cannot both end a run.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Claim, Run};
use crate::error::StoreError;
use crate::ids::{RunId, SystemId};
use crate::on_tx;
use crate::pool::Tx;
use crate::text_enum::SyncStatus;

/// One failed attempt, kept on the run for whoever looks at it later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptError {
    /// When.
    pub at: DateTime<Utc>,
    /// Which attempt.
    pub attempt: i64,
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// The words on the row when a run ends or is put off.
#[derive(Debug, Clone, Default)]
pub struct Ending<'a> {
    /// Stable, for programs.
    pub error_code: Option<&'a str>,
    /// For people.
    pub error_message: Option<&'a str>,
    /// Every attempt's error, this one included (JSON).
    pub error_details: Option<&'a str>,
}

pub(crate) const FINISH: &str = "UPDATE sync_logs SET status = $3, completed_at = $4, duration_ms = $5, \
    lease_until = NULL, error_code = $6, error_message = $7, error_details = $8, updated_at = $4 \
    WHERE id = $1 AND claim_no = $2 AND status = 'syncing' RETURNING *";

/// Ends a run. The returned row tells whether it was asked to run [`again`](Run::again).
pub async fn finish(
    tx: &mut Tx,
    run: &Run,
    status: SyncStatus,
    ending: &Ending<'_>,
    now: DateTime<Utc>,
) -> Result<Run, StoreError> {
    let duration_ms = run.started_at.map(|started| (now - started).num_milliseconds().max(0));
    let ended: Option<Run> = on_tx!(tx, |ex| sqlx::query_as(FINISH)
        .bind(run.id)
        .bind(run.claim_no)
        .bind(status)
        .bind(now)
        .bind(duration_ms)
        .bind(ending.error_code.map(str::to_owned))
        .bind(ending.error_message.map(str::to_owned))
        .bind(ending.error_details.map(str::to_owned))
        .fetch_optional(ex)
        .await)?;
    ended.ok_or(StoreError::ClaimLost(run.id))
}

pub(crate) const RETRY: &str = "UPDATE sync_logs SET status = 'pending', run_at = $3, lease_until = NULL, \
    worker = NULL, rung_at = NULL, error_code = $4, error_message = $5, error_details = $6, updated_at = $7 \
    WHERE id = $1 AND claim_no = $2 AND status = 'syncing'";

/// Puts a run back to pending, its attempt spent; it is due at `run_at`.
pub async fn retry(
    tx: &mut Tx,
    claim: Claim,
    run_at: DateTime<Utc>,
    ending: &Ending<'_>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    put_back(tx, RETRY, claim, run_at, ending, now).await
}

pub(crate) const GIVE_BACK: &str = "UPDATE sync_logs SET status = 'pending', attempt = attempt - 1, run_at = $3, \
    lease_until = NULL, worker = NULL, rung_at = NULL, error_code = $4, error_message = $5, error_details = $6, \
    updated_at = $7 WHERE id = $1 AND claim_no = $2 AND status = 'syncing'";

/// Puts a run back to pending and gives the attempt back: a yield, a postponement, a graceful stop.
pub async fn give_back(
    tx: &mut Tx,
    claim: Claim,
    run_at: DateTime<Utc>,
    ending: &Ending<'_>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    put_back(tx, GIVE_BACK, claim, run_at, ending, now).await
}

async fn put_back(
    tx: &mut Tx,
    statement: &'static str,
    claim: Claim,
    run_at: DateTime<Utc>,
    ending: &Ending<'_>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(statement)
        .bind(claim.run)
        .bind(claim.claim_no)
        .bind(run_at)
        .bind(ending.error_code.map(str::to_owned))
        .bind(ending.error_message.map(str::to_owned))
        .bind(ending.error_details.map(str::to_owned))
        .bind(now)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    if affected == 1 { Ok(()) } else { Err(StoreError::ClaimLost(claim.run)) }
}

pub(crate) const CANCEL: &str = "UPDATE sync_logs SET status = 'cancelled', completed_at = $2, lease_until = NULL, \
    again = FALSE, error_code = 'cancelled', error_message = $3, updated_at = $2 \
    WHERE id = $1 AND status IN ('pending', 'syncing') RETURNING *";

/// Cancels a run that has not ended; the fence stops its worker, committed pages stay. `None` when it
/// had ended.
pub async fn cancel(
    tx: &mut Tx,
    id: RunId,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Option<Run>, StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::query_as(CANCEL)
        .bind(id)
        .bind(now)
        .bind(reason.to_owned())
        .fetch_optional(ex)
        .await)?)
}

pub(crate) const ACTIVE_OF: &str =
    "SELECT id FROM sync_logs WHERE system_id = $1 AND status IN ('pending', 'syncing') ORDER BY id";

/// Cancels every run of a system that has not ended, in the order of their ids, and gives them back.
pub async fn cancel_all_of(
    tx: &mut Tx,
    system: SystemId,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Vec<Run>, StoreError> {
    let active: Vec<RunId> = on_tx!(tx, |ex| sqlx::query_scalar(ACTIVE_OF).bind(system).fetch_all(ex).await)?;
    let mut cancelled = Vec::with_capacity(active.len());
    for id in active {
        cancelled.extend(cancel(tx, id, reason, now).await?);
    }
    Ok(cancelled)
}
