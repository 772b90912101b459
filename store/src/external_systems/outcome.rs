//! What runs find out about their system: written in the transaction that ends the run.

use chrono::{DateTime, Utc};

use super::{SystemChange, tell};
use crate::clock::Clock;
use crate::error::StoreError;
use crate::ids::SystemId;
use crate::on_tx;
use crate::pool::Tx;
use crate::text_enum::{SyncStatus, SystemStatus};

pub(crate) const RECORD_SUCCESS: &str = "UPDATE external_systems SET last_sync_at = $2, last_sync_status = $3, \
    last_error = NULL, consecutive_failures = 0, status = CASE WHEN status = 'error' OR $4 THEN 'active' \
    ELSE status END, next_sync_at = CASE WHEN status = 'error' THEN NULL ELSE next_sync_at END WHERE id = $1 RETURNING status";
pub(crate) const RECORD_FAILURE: &str = "UPDATE external_systems SET last_sync_at = $2, last_sync_status = $3, \
    last_error = $4, consecutive_failures = consecutive_failures + 1, \
    status = CASE WHEN $5 OR (status = 'active' AND consecutive_failures + 1 >= $6) THEN 'error' ELSE status END, \
    next_sync_at = CASE WHEN next_sync_at IS NOT NULL AND ($5 OR status = 'error' OR consecutive_failures + 1 >= $6) \
    AND next_sync_at < $7 THEN $7 ELSE next_sync_at END WHERE id = $1 RETURNING status";

pub(crate) const STATUS: &str = "SELECT status FROM external_systems WHERE id = $1";
const STATUS_HELD: &str = "SELECT status FROM external_systems WHERE id = $1 FOR NO KEY UPDATE";

/// What a finished run or test says about its system.
#[derive(Debug, Clone)]
pub enum Health<'a> {
    /// It worked. `activate` is set by a connection test: only a test makes an inactive system active,
    /// while any success brings a system in error back.
    Working {
        /// Success or partial.
        status: SyncStatus,
        /// Whether an inactive system becomes active.
        activate: bool,
    },
    /// It did not.
    Failing {
        /// For a person.
        error: &'a str,
        /// The vendor refuses the credentials: error at once, as the seed's failed test has it.
        unauthorized: bool,
        /// So many failures in a row put an active system into error.
        breaker_failures: i64,
        /// A system in error is not scheduled before this time.
        cooldown_until: DateTime<Utc>,
    },
}

/// Writes a run's outcome on its system, in the transaction that ends the run, and tells live clients when
/// that changes its status.
pub async fn record_outcome(
    tx: &mut Tx,
    clock: &Clock,
    id: SystemId,
    health: &Health<'_>,
) -> Result<(), StoreError> {
    let statement = match tx {
        // Held, so that the change that is told is this one's.
        Tx::Postgres(_) => STATUS_HELD,
        // There is one writer.
        Tx::Sqlite(_) => STATUS,
    };
    let before: Option<SystemStatus> =
        on_tx!(tx, |ex| sqlx::query_scalar(statement).bind(id).fetch_optional(ex).await)?;
    let Some(before) = before else {
        return Ok(());
    };
    let after = write(tx, id, health, clock.now()).await?;
    if after != before {
        tell(tx, clock, id, SystemChange::Status, after).await?;
    }
    Ok(())
}

async fn write(
    tx: &mut Tx,
    id: SystemId,
    health: &Health<'_>,
    now: DateTime<Utc>,
) -> Result<SystemStatus, StoreError> {
    Ok(match health {
        Health::Working { status, activate } => on_tx!(tx, |ex| sqlx::query_scalar(RECORD_SUCCESS)
            .bind(id)
            .bind(now)
            .bind(*status)
            .bind(*activate)
            .fetch_one(ex)
            .await)?,
        Health::Failing { error, unauthorized, breaker_failures, cooldown_until } => {
            on_tx!(tx, |ex| sqlx::query_scalar(RECORD_FAILURE)
                .bind(id)
                .bind(now)
                .bind(SyncStatus::Failed)
                .bind((*error).to_owned())
                .bind(*unauthorized)
                .bind(*breaker_failures)
                .bind(*cooldown_until)
                .fetch_one(ex)
                .await)?
        }
    })
}
