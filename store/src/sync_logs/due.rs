//! What the scheduler loop asks of the runs: who is to be rung, whose worker died for the last time,
//! what is old enough to go. Any number of schedulers may ask at once: each change is a compare-and-set.

use chrono::{DateTime, Utc};

use super::Run;
use crate::error::StoreError;
use crate::ids::RunId;
use crate::pool::{Store, Tx};
use crate::text_enum::Lane;
use crate::{on_read, on_tx, on_write};

/// A run whose message is to be put on the queue.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Ring {
    /// The run.
    pub id: RunId,
    /// When it was rung before; what [`mark_rung`] compares with.
    pub rung_at: Option<DateTime<Utc>>,
}

// A pending row that is due and not rung, or rung long ago without a claim; a syncing row whose lease
// is over and that was not rung since.
pub(crate) const DUE_TO_RING: &str = "SELECT id, rung_at FROM sync_logs WHERE lane = $1 AND attempt < max_attempts \
    AND ((status = 'pending' AND run_at <= $2 AND (rung_at IS NULL OR rung_at < $3)) \
    OR (status = 'syncing' AND lease_until < $2 AND (rung_at IS NULL OR rung_at < lease_until OR rung_at < $3))) \
    ORDER BY run_at, id LIMIT $4";

/// Runs of a lane whose message is missing, the longest due first.
pub async fn due_to_ring(
    store: &Store,
    lane: Lane,
    now: DateTime<Utc>,
    rung_before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Ring>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(DUE_TO_RING)
        .bind(lane)
        .bind(now)
        .bind(rung_before)
        .bind(limit)
        .fetch_all(ex)
        .await)?)
}

pub(crate) const MARK_RUNG: &str = "UPDATE sync_logs SET rung_at = $3 \
    WHERE id = $1 AND rung_at IS NOT DISTINCT FROM $2 AND status IN ('pending', 'syncing')";

/// Takes the ringing of these runs upon itself; gives back those that nobody else took meanwhile.
///
/// One transaction, row by row in the order of the ids: two schedulers never wait for each other.
pub async fn mark_rung(
    store: &Store,
    mut rings: Vec<Ring>,
    now: DateTime<Utc>,
) -> Result<Vec<RunId>, StoreError> {
    if rings.is_empty() {
        return Ok(Vec::new());
    }
    let due_order: Vec<RunId> = rings.iter().map(|ring| ring.id).collect();
    rings.sort_by_key(|ring| ring.id);
    let mut tx = store.begin().await?;
    let mut mine = std::collections::HashSet::new();
    for ring in &rings {
        let affected = on_tx!(&mut tx, |ex| sqlx::query(MARK_RUNG)
            .bind(ring.id)
            .bind(ring.rung_at)
            .bind(now)
            .execute(ex)
            .await
            .map(|done| done.rows_affected()))?;
        if affected == 1 {
            mine.insert(ring.id);
        }
    }
    tx.commit().await?;
    Ok(due_order.into_iter().filter(|id| mine.contains(id)).collect())
}

pub(crate) const UNRING: &str =
    "UPDATE sync_logs SET rung_at = NULL WHERE id = $1 AND status IN ('pending', 'syncing')";

/// Takes back the ringing of runs that the queue did not accept. At worst one that was rung by somebody
/// else meanwhile is rung twice, which is harmless.
pub async fn unring(store: &Store, runs: &[RunId]) -> Result<(), StoreError> {
    let mut runs = runs.to_vec();
    runs.sort();
    let mut tx = store.begin().await?;
    for id in runs {
        on_tx!(&mut tx, |ex| sqlx::query(UNRING).bind(id).execute(ex).await.map(drop))?;
    }
    tx.commit().await
}

pub(crate) const FORGET_RINGS: &str = "UPDATE sync_logs SET rung_at = NULL WHERE id IN (SELECT id FROM sync_logs \
    WHERE rung_at < $1 AND status IN ('pending', 'syncing') ORDER BY id LIMIT $2) AND rung_at < $1";

/// Forgets that runs were rung before a time: the queue was emptied then. How many it found.
pub async fn forget_rings(store: &Store, before: DateTime<Utc>, limit: i64) -> Result<u64, StoreError> {
    Ok(on_write!(store, |ex| sqlx::query(FORGET_RINGS)
        .bind(before)
        .bind(limit)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}

pub(crate) const EXPIRE_LEASES: &str =
    "UPDATE sync_logs SET lease_until = $1, rung_at = NULL WHERE status = 'syncing' AND lease_until >= $2";

/// Ends every lease at once. Only for a process that knows it is alone (the embedded database, at its
/// start): whoever held those leases is gone.
pub async fn expire_leases(store: &Store) -> Result<u64, StoreError> {
    let now = store.clock().now();
    Ok(on_write!(store, |ex| sqlx::query(EXPIRE_LEASES)
        .bind(now - chrono::TimeDelta::milliseconds(1))
        .bind(now)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}

pub(crate) const EXHAUSTED: &str = "SELECT * FROM sync_logs WHERE attempt >= max_attempts \
    AND ((status = 'syncing' AND lease_until < $1) OR (status = 'pending' AND run_at <= $1)) ORDER BY run_at, id LIMIT $2";

/// Runs whose worker fell silent in their last attempt: nobody can claim them any more.
pub async fn exhausted(store: &Store, now: DateTime<Utc>, limit: i64) -> Result<Vec<Run>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(EXHAUSTED).bind(now).bind(limit).fetch_all(ex).await)?)
}

pub(crate) const FAIL_EXHAUSTED: &str = "UPDATE sync_logs SET status = 'failed', claim_no = claim_no + 1, \
    completed_at = $3, duration_ms = $4, lease_until = NULL, error_code = $5, error_message = $6, error_details = $7, \
    updated_at = $3 WHERE id = $1 AND claim_no = $2 AND attempt >= max_attempts \
    AND ((status = 'syncing' AND lease_until < $3) OR status = 'pending') RETURNING *";

/// Fails such a run, if it is still as it was read; `None` when it is not.
pub async fn fail_exhausted(
    tx: &mut Tx,
    run: &Run,
    code: &str,
    message: &str,
    error_details: &str,
    now: DateTime<Utc>,
) -> Result<Option<Run>, StoreError> {
    let duration_ms = run.started_at.map(|started| (now - started).num_milliseconds().max(0));
    Ok(on_tx!(tx, |ex| sqlx::query_as(FAIL_EXHAUSTED)
        .bind(run.id)
        .bind(run.claim_no)
        .bind(now)
        .bind(duration_ms)
        .bind(code.to_owned())
        .bind(message.to_owned())
        .bind(error_details.to_owned())
        .fetch_optional(ex)
        .await)?)
}

pub(crate) const PURGE: &str = "DELETE FROM sync_logs WHERE id IN (SELECT id FROM sync_logs \
    WHERE id < $3 AND completed_at < $1 AND status IN ('success', 'partial', 'failed', 'cancelled') \
    AND NOT EXISTS (SELECT 1 FROM sync_failures WHERE sync_failures.sync_log_id = sync_logs.id) \
    ORDER BY id LIMIT $2)";

/// Deletes runs that ended before a time and whose failures are gone; how many.
pub async fn purge(store: &Store, completed_before: DateTime<Utc>, limit: i64) -> Result<u64, StoreError> {
    Ok(on_write!(store, |ex| sqlx::query(PURGE)
        .bind(completed_before)
        .bind(limit)
        // What ended before a time was made before it.
        .bind(crate::ids::beyond(completed_before))
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}
