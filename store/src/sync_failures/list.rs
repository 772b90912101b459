//! Pages of failures for people.

use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{PAGE_MAX, SyncFailure};
use crate::error::StoreError;
use crate::ids::{RunId, SystemId};
use crate::on_read;
use crate::pool::Store;

/// Which failures to list.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    /// What the caller may see: failures of systems of this store; `None` is everything.
    pub scope: Option<&'a str>,
    /// Only failures of this system.
    pub system_id: Option<SystemId>,
    /// Only of this stream.
    pub stream: Option<&'a str>,
    /// Only of records that failed last in this run.
    pub run_id: Option<RunId>,
    /// Only those that are open, or only those that are resolved.
    pub open: Option<bool>,
    /// Continue after this one of the page before.
    pub after: Option<Uuid>,
    /// The most rows.
    pub limit: i64,
}

// Without the records, each of which may be as large as an answer of a vendor.
const LIST_HEAD: &str = "SELECT id, system_id, sync_log_id, stream, external_id, stage, reason, '' AS raw, occurrences, \
    created_at, updated_at, resolved_at FROM sync_failures WHERE TRUE";

macro_rules! list_body {
    ($filter:expr, $executor:expr) => {{
        let mut query = QueryBuilder::new(LIST_HEAD);
        if let Some(scope) = $filter.scope {
            query
                .push(" AND system_id IN (SELECT id FROM external_systems WHERE store_id = ")
                .push_bind(scope.to_owned())
                .push(")");
        }
        if let Some(system_id) = $filter.system_id {
            query.push(" AND system_id = ").push_bind(system_id);
        }
        if let Some(stream) = $filter.stream {
            query.push(" AND stream = ").push_bind(stream.to_owned());
        }
        if let Some(run_id) = $filter.run_id {
            query.push(" AND sync_log_id = ").push_bind(run_id);
        }
        match $filter.open {
            Some(true) => query.push(" AND resolved_at IS NULL"),
            Some(false) => query.push(" AND resolved_at IS NOT NULL"),
            None => &mut query,
        };
        if let Some(after) = $filter.after {
            query.push(" AND id < ").push_bind(after);
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind($filter.limit.min(i64::from(PAGE_MAX)));
        query.build_query_as::<SyncFailure>().fetch_all($executor).await
    }};
}

/// A page of failures, newest first, at most [`PAGE_MAX`]; the records themselves are left out.
pub async fn list(store: &Store, filter: &Filter<'_>) -> Result<Vec<SyncFailure>, StoreError> {
    Ok(on_read!(store, |ex| list_body!(filter, ex))?)
}

pub(crate) const FIND: &str = "SELECT * FROM sync_failures WHERE id = $1";

/// The failure with this id.
pub async fn find(store: &Store, id: Uuid) -> Result<Option<SyncFailure>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND).bind(id).fetch_optional(ex).await)?)
}
