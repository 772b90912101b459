//! Records of other streams read: one by an id, pages of them for people, and a count to compare with a
//! vendor's ledger.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::ExternalRecord;
use crate::error::StoreError;
use crate::ids::SystemId;
use crate::on_read;
use crate::pool::Store;

/// The most records that one list holds: a page of 500, and the one more that tells whether there is a
/// next page.
pub const PAGE_MAX: u32 = 501;

const FIND: &str = "SELECT * FROM external_records WHERE id = $1";
const FIND_BY_EXTERNAL_ID: &str =
    "SELECT * FROM external_records WHERE system_id = $1 AND stream = $2 AND external_id = $3";
const TALLY: &str = "
    SELECT COUNT(*) AS count, COUNT(DISTINCT external_id) AS distinct_ids,
           CAST(COALESCE(SUM(amount), 0) AS BIGINT) AS amount
    FROM external_records WHERE system_id = $1 AND stream = $2 AND deleted_at IS NULL";
const LIST: &str = "SELECT * FROM external_records WHERE deleted_at IS NULL AND stream = ";

/// Every fixed statement of this table, by name.
#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("external_records::FIND", FIND),
    ("external_records::FIND_BY_EXTERNAL_ID", FIND_BY_EXTERNAL_ID),
    ("external_records::TALLY", TALLY),
];

/// The record of this id, tombstones included.
pub async fn get(store: &Store, id: Uuid) -> Result<ExternalRecord, StoreError> {
    let found: Option<ExternalRecord> =
        on_read!(store, |ex| sqlx::query_as(FIND).bind(id).fetch_optional(ex).await)?;
    found.ok_or_else(|| StoreError::NotFound(format!("record `{id}`")))
}

/// The record that a system calls by this id in a stream, tombstones included.
pub async fn find_by_external_id(
    store: &Store,
    system: SystemId,
    stream: &str,
    external_id: &str,
) -> Result<Option<ExternalRecord>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND_BY_EXTERNAL_ID)
        .bind(system)
        .bind(stream)
        .bind(external_id)
        .fetch_optional(ex)
        .await)?)
}

impl ExternalRecord {
    /// Where it stands in a list: when it took place, or where it tells no time, when it was heard of.
    #[must_use]
    pub fn placed_at(&self) -> DateTime<Utc> {
        self.occurred_at.unwrap_or(self.created_at)
    }
}

/// Which records a list holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Only this stream.
    pub stream: &'a str,
    /// The only store that the caller may see.
    pub scope: Option<&'a str>,
    /// Only this store.
    pub store_id: Option<&'a str>,
    /// Only this system.
    pub system_id: Option<SystemId>,
    /// Only this state, in the vendor's word.
    pub status: Option<&'a str>,
    /// Only those that took place at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only those that took place before this time.
    pub to: Option<DateTime<Utc>>,
    /// Only the one that people know by this number.
    pub number: Option<&'a str>,
    /// Only those of the customer with this telephone number.
    pub phone: Option<&'a str>,
    /// Only those after this one in the list: its [`ExternalRecord::placed_at`] and id.
    pub before: Option<(DateTime<Utc>, Uuid)>,
    /// How many, at most [`PAGE_MAX`].
    pub limit: u32,
}

macro_rules! list_body {
    ($filter:expr, $executor:expr) => {{
        let mut query = QueryBuilder::new(LIST);
        query.push_bind($filter.stream);
        for store_id in [$filter.scope, $filter.store_id].into_iter().flatten() {
            query.push(" AND store_id = ").push_bind(store_id);
        }
        if let Some(system_id) = $filter.system_id {
            query.push(" AND system_id = ").push_bind(system_id);
        }
        for (column, wanted) in
            [("status", $filter.status), ("number", $filter.number), ("customer_phone", $filter.phone)]
        {
            if let Some(wanted) = wanted {
                query.push(" AND ").push(column).push(" = ").push_bind(wanted);
            }
        }
        if let Some(from) = $filter.from {
            query.push(" AND COALESCE(occurred_at, created_at) >= ").push_bind(from);
        }
        if let Some(to) = $filter.to {
            query.push(" AND COALESCE(occurred_at, created_at) < ").push_bind(to);
        }
        if let Some((at, id)) = $filter.before {
            query.push(" AND (COALESCE(occurred_at, created_at), id) < (");
            query.push_bind(at).push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY COALESCE(occurred_at, created_at) DESC, id DESC LIMIT ");
        query.push_bind(i64::from($filter.limit.min(PAGE_MAX)));
        query.build_query_as().fetch_all($executor).await
    }};
}

/// The newest records of a stream that are not gone; those without a time stand where they were heard of.
pub async fn list(store: &Store, filter: &Filter<'_>) -> Result<Vec<ExternalRecord>, StoreError> {
    Ok(on_read!(store, |ex| list_body!(filter, ex))?)
}

/// What a stream of a system holds, as it is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Tally {
    /// Rows that are not gone.
    pub count: i64,
    /// Different ids among them; fewer than rows would mean that something was doubled.
    pub distinct_ids: i64,
    /// The sum of their amounts, in minor units.
    pub amount: i64,
}

/// Counts what a stream of a system holds, to compare it with the vendor's own ledger.
pub async fn tally(store: &Store, system: SystemId, stream: &str) -> Result<Tally, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(TALLY).bind(system).bind(stream).fetch_one(ex).await)?)
}
