//! Pages of users for people, newest first.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::{PAGE_MAX, User};
use crate::error::StoreError;
use crate::ids::UserId;
use crate::on_read;
use crate::pool::Store;
use crate::text_enum::Role;

/// Which users to list.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    /// What the caller may see: users of this store; `None` is everybody.
    pub scope: Option<&'a str>,
    /// Only users of this store.
    pub store_id: Option<&'a str>,
    /// Only users with this role.
    pub role: Option<Role>,
    /// Only users who may sign in, or only those who may not.
    pub active: Option<bool>,
    /// Continue after this row of the page before.
    pub after: Option<(DateTime<Utc>, UserId)>,
    /// The most rows.
    pub limit: i64,
}

macro_rules! list_body {
    ($filter:expr, $executor:expr) => {{
        let mut query = QueryBuilder::new("SELECT * FROM users WHERE TRUE");
        if let Some(scope) = $filter.scope {
            query.push(" AND store_id = ").push_bind(scope.to_owned());
        }
        if let Some(store_id) = $filter.store_id {
            query.push(" AND store_id = ").push_bind(store_id.to_owned());
        }
        if let Some(role) = $filter.role {
            query.push(" AND role = ").push_bind(role);
        }
        if let Some(active) = $filter.active {
            query.push(" AND active = ").push_bind(active);
        }
        if let Some((at, id)) = $filter.after {
            query.push(" AND (created_at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
        }
        let limit = $filter.limit.min(i64::from(PAGE_MAX));
        query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(limit);
        query.build_query_as::<User>().fetch_all($executor).await
    }};
}

/// A page of users, newest first, at most [`PAGE_MAX`].
pub async fn list_newest(store: &Store, filter: &Filter<'_>) -> Result<Vec<User>, StoreError> {
    Ok(on_read!(store, |ex| list_body!(filter, ex))?)
}
