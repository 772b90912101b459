//! Members read: one by its id or number, and pages of them for people.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::MemberSync;
use crate::error::StoreError;
use crate::ids::SystemId;
use crate::on_read;
use crate::pool::Store;
use crate::record_batches::unsynced;
use crate::text_enum::SyncStatus;

/// The most members that one list holds: a page of 500, and the one more that tells whether there is a
/// next page.
pub const PAGE_MAX: u32 = 501;

const FIND: &str = "SELECT * FROM member_syncs WHERE id = $1";
const FIND_BY_MEMBER_ID: &str = "SELECT * FROM member_syncs WHERE system_id = $1 AND member_id = $2";
const LIST: &str = "SELECT * FROM member_syncs WHERE deleted_at IS NULL";

#[cfg(feature = "testing")]
pub(super) const STATEMENTS: &[(&str, &str)] = &[
    ("member_syncs::FIND", FIND),
    ("member_syncs::FIND_BY_MEMBER_ID", FIND_BY_MEMBER_ID),
    ("member_syncs::LIST", LIST),
];

/// The member of this id, tombstones included.
pub async fn get(store: &Store, id: Uuid) -> Result<MemberSync, StoreError> {
    let found: Option<MemberSync> =
        on_read!(store, |ex| sqlx::query_as(FIND).bind(id).fetch_optional(ex).await)?;
    found.ok_or_else(|| StoreError::NotFound(format!("member `{id}`")))
}

/// The member of this number, tombstones included.
pub async fn find_by_member_id(
    store: &Store,
    system: SystemId,
    member_id: &str,
) -> Result<Option<MemberSync>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND_BY_MEMBER_ID)
        .bind(system)
        .bind(member_id)
        .fetch_optional(ex)
        .await)?)
}

/// Which members a list holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// The only store that the caller may see.
    pub scope: Option<&'a str>,
    /// Only this store.
    pub store_id: Option<&'a str>,
    /// Only this system.
    pub system_id: Option<SystemId>,
    /// Only this state of synchronisation.
    pub sync_status: Option<SyncStatus>,
    /// Only this level.
    pub level: Option<&'a str>,
    /// Only those with this telephone number.
    pub phone: Option<&'a str>,
    /// Only those of this number, in whatever system.
    pub member_id: Option<&'a str>,
    /// Only those made at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only those made before this time.
    pub to: Option<DateTime<Utc>>,
    /// Only those after this one in the list: its `created_at` and id.
    pub before: Option<(DateTime<Utc>, Uuid)>,
    /// How many, at most [`PAGE_MAX`].
    pub limit: u32,
}

macro_rules! list_body {
    ($filter:expr, $executor:expr) => {{
        let mut query = QueryBuilder::new(LIST);
        for store_id in [$filter.scope, $filter.store_id].into_iter().flatten() {
            query.push(" AND store_id = ").push_bind(store_id);
        }
        if let Some(system_id) = $filter.system_id {
            query.push(" AND system_id = ").push_bind(system_id);
        }
        if let Some(status) = $filter.sync_status {
            query.push(unsynced(status));
        }
        if let Some(level) = $filter.level {
            query.push(" AND level = ").push_bind(level);
        }
        if let Some(phone) = $filter.phone {
            query.push(" AND phone = ").push_bind(phone);
        }
        if let Some(member_id) = $filter.member_id {
            query.push(" AND member_id = ").push_bind(member_id);
        }
        if let Some(from) = $filter.from {
            query.push(" AND created_at >= ").push_bind(from);
        }
        if let Some(to) = $filter.to {
            query.push(" AND created_at < ").push_bind(to);
        }
        if let Some((at, id)) = $filter.before {
            query.push(" AND (created_at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY created_at DESC, id DESC LIMIT ");
        query.push_bind(i64::from($filter.limit.min(PAGE_MAX)));
        query.build_query_as().fetch_all($executor).await
    }};
}

/// The newest members that are not gone.
pub async fn list(store: &Store, filter: &Filter<'_>) -> Result<Vec<MemberSync>, StoreError> {
    Ok(on_read!(store, |ex| list_body!(filter, ex))?)
}
