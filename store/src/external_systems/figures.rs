//! What the health of a system is made of: counts that end at [`COUNTED_MAX`], however large the tables.

use chrono::{DateTime, Utc};

use crate::error::StoreError;
use crate::ids::SystemId;
use crate::on_read;
use crate::pool::Store;

/// Nothing is counted further than this; a figure that has come so far means "or more".
pub const COUNTED_MAX: i64 = 1_000;
/// So many of the oldest waiting events, of all systems, are looked through for those of one.
const WAITING_MAX: i64 = 10_000;

/// The figures of a system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Of its newest runs.
    pub runs: RunFigures,
    /// Of what waits and what has failed.
    pub backlog: Backlog,
}

/// What the newest runs of a system say, as many as are counted; minute logs of webhooks are none.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct RunFigures {
    /// When one last ended well, all or in part.
    pub last_success_at: Option<DateTime<Utc>>,
    /// Ended since the time asked for.
    pub ended: i64,
    /// Of those the ones that failed.
    pub failed: i64,
    /// Waiting or under way, whenever they were made.
    pub pending: i64,
}

/// What waits, and what has failed and was not mended.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Backlog {
    /// Webhook events to be applied.
    pub pending_events: i64,
    /// Webhook events that were given up.
    pub dead_events: i64,
    /// Webhook events that could not be verified.
    pub quarantined_events: i64,
    /// Records that could not be mapped or stored.
    pub open_failures: i64,
}

// The conditions of indexes are repeated word for word: SQLite sees in no other way that they serve.
pub(crate) const RUNS: &str = "SELECT \
    MAX(CASE WHEN status IN ('success', 'partial') THEN completed_at END) AS last_success_at, \
    CAST(COALESCE(SUM(CASE WHEN completed_at >= $2 AND status IN ('success', 'partial', 'failed') THEN 1 ELSE 0 END), 0) \
    AS BIGINT) AS ended, \
    CAST(COALESCE(SUM(CASE WHEN completed_at >= $2 AND status = 'failed' THEN 1 ELSE 0 END), 0) AS BIGINT) AS failed, \
    CAST(COALESCE(SUM(CASE WHEN status IN ('pending', 'syncing') THEN 1 ELSE 0 END), 0) AS BIGINT) AS pending \
    FROM (SELECT status, completed_at FROM sync_logs WHERE system_id = $1 AND kind <> 'apply_webhooks' \
    ORDER BY created_at DESC, id DESC LIMIT $3) AS newest";
pub(crate) const BACKLOG: &str = "SELECT \
    (SELECT COUNT(*) FROM (SELECT system_id FROM webhook_events WHERE state = 'pending' ORDER BY run_at LIMIT $3) \
    AS waiting WHERE system_id = $1) AS pending_events, \
    (SELECT COUNT(*) FROM (SELECT id FROM webhook_events WHERE state = 'dead' AND state IN ('quarantined', 'dead') \
    AND system_id = $1 LIMIT $2) AS dead) AS dead_events, \
    (SELECT COUNT(*) FROM (SELECT id FROM webhook_events WHERE state = 'quarantined' \
    AND state IN ('quarantined', 'dead') AND system_id = $1 LIMIT $2) AS quarantined) AS quarantined_events, \
    (SELECT COUNT(*) FROM (SELECT id FROM sync_failures WHERE system_id = $1 AND resolved_at IS NULL LIMIT $2) \
    AS failures) AS open_failures";

/// The figures of a system; runs are counted that ended at `since` or later.
pub async fn figures(store: &Store, id: SystemId, since: DateTime<Utc>) -> Result<Figures, StoreError> {
    let runs: RunFigures = on_read!(store, |ex| sqlx::query_as(RUNS)
        .bind(id)
        .bind(since)
        .bind(COUNTED_MAX)
        .fetch_one(ex)
        .await)?;
    let mut backlog: Backlog = on_read!(store, |ex| sqlx::query_as(BACKLOG)
        .bind(id)
        .bind(COUNTED_MAX)
        .bind(WAITING_MAX)
        .fetch_one(ex)
        .await)?;
    backlog.pending_events = backlog.pending_events.min(COUNTED_MAX);
    Ok(Figures { runs, backlog })
}
