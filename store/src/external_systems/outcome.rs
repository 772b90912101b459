//! What runs find out about their system: written in the transaction that ends the run.

use chrono::{DateTime, Utc};

use crate::error::StoreError;
use crate::ids::SystemId;
use crate::on_tx;
use crate::pool::Tx;
use crate::text_enum::SyncStatus;

pub(crate) const RECORD_SUCCESS: &str = "UPDATE external_systems SET last_sync_at = $2, last_sync_status = $3, \
    last_error = NULL, consecutive_failures = 0, status = CASE WHEN status = 'error' OR $4 THEN 'active' \
    ELSE status END WHERE id = $1";
pub(crate) const RECORD_FAILURE: &str = "UPDATE external_systems SET last_sync_at = $2, last_sync_status = $3, \
    last_error = $4, consecutive_failures = consecutive_failures + 1, \
    status = CASE WHEN $5 OR (status = 'active' AND consecutive_failures + 1 >= $6) THEN 'error' ELSE status END, \
    next_sync_at = CASE WHEN next_sync_at IS NOT NULL AND ($5 OR status = 'error' OR consecutive_failures + 1 >= $6) \
    AND next_sync_at < $7 THEN $7 ELSE next_sync_at END WHERE id = $1";

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
        /// The vendor refuses the credentials: error at once.
        unauthorized: bool,
        /// So many failures in a row put an active system into error.
        breaker_failures: i64,
        /// A system in error is not scheduled before this time.
        cooldown_until: DateTime<Utc>,
    },
}

/// Writes a run's outcome on its system, in the transaction that ends the run.
pub async fn record_outcome(
    tx: &mut Tx,
    id: SystemId,
    health: &Health<'_>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    match health {
        Health::Working { status, activate } => {
            on_tx!(tx, |ex| sqlx::query(RECORD_SUCCESS)
                .bind(id)
                .bind(now)
                .bind(*status)
                .bind(*activate)
                .execute(ex)
                .await
                .map(drop))?;
        }
        Health::Failing { error, unauthorized, breaker_failures, cooldown_until } => {
            on_tx!(tx, |ex| sqlx::query(RECORD_FAILURE)
                .bind(id)
                .bind(now)
                .bind(SyncStatus::Failed)
                .bind((*error).to_owned())
                .bind(*unauthorized)
                .bind(*breaker_failures)
                .bind(*cooldown_until)
                .execute(ex)
                .await
                .map(drop))?;
        }
    }
    Ok(())
}
