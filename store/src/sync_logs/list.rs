//! Reading runs: pages for people, and small sums for health and proof.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::Run;
use crate::error::StoreError;
use crate::ids::{RunId, SystemId};
use crate::on_read;
use crate::pool::Store;
use crate::text_enum::SyncStatus;

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    /// What the caller may see: runs of systems of this store; `None` is everything.
    pub scope: Option<&'a str>,
    /// Only runs of this system.
    pub system_id: Option<SystemId>,
    /// Only this stream, or `connection_test`.
    pub sync_type: Option<&'a str>,
    /// Only runs in this state.
    pub status: Option<SyncStatus>,
    /// Continue after this row of the page before.
    pub after: Option<(DateTime<Utc>, RunId)>,
    /// The most rows.
    pub limit: i64,
}

macro_rules! list_body {
    ($filter:expr, $executor:expr) => {{
        let mut query = QueryBuilder::new("SELECT * FROM sync_logs WHERE TRUE");
        if let Some(scope) = $filter.scope {
            query
                .push(" AND system_id IN (SELECT id FROM external_systems WHERE store_id = ")
                .push_bind(scope.to_owned())
                .push(")");
        }
        if let Some(system_id) = $filter.system_id {
            query.push(" AND system_id = ").push_bind(system_id);
        }
        if let Some(sync_type) = $filter.sync_type {
            query.push(" AND sync_type = ").push_bind(sync_type.to_owned());
        }
        if let Some(status) = $filter.status {
            query.push(" AND status = ").push_bind(status);
        }
        if let Some((at, id)) = $filter.after {
            query.push(" AND (created_at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind($filter.limit);
        query.build_query_as::<Run>().fetch_all($executor).await
    }};
}

/// A page of runs, newest first.
pub async fn list(store: &Store, filter: &Filter<'_>) -> Result<Vec<Run>, StoreError> {
    Ok(on_read!(store, |ex| list_body!(filter, ex))?)
}

/// How many runs are in a state.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Tally {
    /// The state.
    pub status: SyncStatus,
    /// How many.
    pub runs: i64,
}

pub(crate) const TALLY: &str =
    "SELECT status, COUNT(*) AS runs FROM sync_logs WHERE status IN ('pending', 'syncing') GROUP BY status";

/// How many runs wait and how many are under way.
pub async fn tally(store: &Store) -> Result<Vec<Tally>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(TALLY).fetch_all(ex).await)?)
}

pub(crate) const SLOTS: &str = "SELECT scheduled_for FROM sync_logs WHERE system_id = $1 AND sync_type = $2 \
    AND scheduled_for IS NOT NULL ORDER BY scheduled_for LIMIT $3";

/// The slots of a stream that have fired, oldest first: the proof that none was skipped or doubled.
pub async fn slots(
    store: &Store,
    system: SystemId,
    sync_type: &str,
    limit: i64,
) -> Result<Vec<DateTime<Utc>>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_scalar(SLOTS)
        .bind(system)
        .bind(sync_type.to_owned())
        .bind(limit)
        .fetch_all(ex)
        .await)?)
}
