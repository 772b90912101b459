//! Holding a run: the claim, the fence that begins every later transaction, and progress.

use chrono::{DateTime, Utc};

use super::{Counts, Run, tell};
use crate::error::StoreError;
use crate::events::EventKind;
use crate::ids::RunId;
use crate::on_tx;
use crate::pool::{Store, Tx};

/// Proof of having claimed a run: valid for as long as the row's `claim_no` is this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The run.
    pub run: RunId,
    /// The number of the claim.
    pub claim_no: i64,
}

impl Run {
    /// The claim that this row was returned for.
    #[must_use]
    pub const fn claim(&self) -> Claim {
        Claim { run: self.id, claim_no: self.claim_no }
    }
}

pub(crate) const CLAIM: &str = "UPDATE sync_logs SET status = 'syncing', attempt = attempt + 1, \
    claim_no = claim_no + 1, lease_until = $3, worker = $4, started_at = COALESCE(started_at, $2), updated_at = $2 \
    WHERE id = $1 AND attempt < max_attempts AND ((status = 'pending' AND run_at <= $2) \
    OR (status = 'syncing' AND lease_until < $2)) RETURNING *";

/// Takes a run that is due, or whose worker fell silent. `None`: somebody has it, it is not due, it
/// ended, or it is out of attempts; in every case there is nothing to do.
///
/// Of the first claim live clients hear.
pub async fn claim(
    store: &Store,
    id: RunId,
    worker: &str,
    lease_until: DateTime<Utc>,
) -> Result<Option<Run>, StoreError> {
    let now = store.clock().now();
    let mut tx = store.begin().await?;
    let claimed: Option<Run> = on_tx!(&mut tx, |ex| sqlx::query_as(CLAIM)
        .bind(id)
        .bind(now)
        .bind(lease_until)
        .bind(worker.to_owned())
        .fetch_optional(ex)
        .await)?;
    let Some(run) = claimed else {
        return Ok(None);
    };
    if run.claim_no == 1 {
        tell(&mut tx, store.clock(), EventKind::RunStarted, &run, run.counts()).await?;
    }
    tx.commit().await?;
    Ok(Some(run))
}

pub(crate) const FENCE: &str = "UPDATE sync_logs SET lease_until = $3, updated_at = $4 \
    WHERE id = $1 AND claim_no = $2 AND status = 'syncing'";

/// The first statement of every transaction of a run: renews the lease and holds the row until the
/// commit. [`StoreError::ClaimLost`] means roll back and stop.
pub async fn fence(
    tx: &mut Tx,
    claim: Claim,
    lease_until: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(FENCE)
        .bind(claim.run)
        .bind(claim.claim_no)
        .bind(lease_until)
        .bind(now)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    if affected == 1 { Ok(()) } else { Err(StoreError::ClaimLost(claim.run)) }
}

pub(crate) const PROGRESS: &str = "UPDATE sync_logs SET position = $3, records_total = $4, \
    records_success = $5, records_failed = $6, records_skipped = $7, \
    request_data = COALESCE($8, request_data), response_data = COALESCE($9, response_data) \
    WHERE id = $1 AND claim_no = $2 AND status = 'syncing'";

/// Writes how far a run has come: in the transaction of the page that brought it there.
///
/// `counts` are those of the whole run so far. Samples are kept from the last page that brings some.
pub async fn progress(
    tx: &mut Tx,
    claim: Claim,
    position: Option<&str>,
    counts: Counts,
    request_data: Option<&str>,
    response_data: Option<&str>,
) -> Result<(), StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(PROGRESS)
        .bind(claim.run)
        .bind(claim.claim_no)
        .bind(position.map(str::to_owned))
        .bind(counts.total)
        .bind(counts.success)
        .bind(counts.failed)
        .bind(counts.skipped)
        .bind(request_data.map(str::to_owned))
        .bind(response_data.map(str::to_owned))
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    if affected == 1 { Ok(()) } else { Err(StoreError::ClaimLost(claim.run)) }
}
