//! Pages of systems for people.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::ExternalSystem;
use crate::error::StoreError;
use crate::ids::SystemId;
use crate::on_read;
use crate::pool::Store;
use crate::text_enum::{SystemStatus, SystemType};

/// Which systems to list.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    /// What the caller may see; `None` is everything.
    pub scope: Option<&'a str>,
    /// Only systems of this store.
    pub store_id: Option<&'a str>,
    /// Only this type.
    pub system_type: Option<SystemType>,
    /// Only this status.
    pub status: Option<SystemStatus>,
    /// Continue after this row of the page before.
    pub after: Option<(DateTime<Utc>, SystemId)>,
    /// The most rows.
    pub limit: i64,
}

macro_rules! list_body {
    ($filter:expr, $executor:expr) => {{
        let mut query = QueryBuilder::new("SELECT * FROM external_systems WHERE deleted_at IS NULL");
        if let Some(scope) = $filter.scope {
            query.push(" AND store_id = ").push_bind(scope.to_owned());
        }
        if let Some(store_id) = $filter.store_id {
            query.push(" AND store_id = ").push_bind(store_id.to_owned());
        }
        if let Some(system_type) = $filter.system_type {
            query.push(" AND type = ").push_bind(system_type);
        }
        if let Some(status) = $filter.status {
            query.push(" AND status = ").push_bind(status);
        }
        if let Some((at, id)) = $filter.after {
            query.push(" AND (created_at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind($filter.limit);
        query.build_query_as::<ExternalSystem>().fetch_all($executor).await
    }};
}

/// A page of systems, newest first.
pub async fn list(store: &Store, filter: &Filter<'_>) -> Result<Vec<ExternalSystem>, StoreError> {
    Ok(on_read!(store, |ex| list_body!(filter, ex))?)
}
