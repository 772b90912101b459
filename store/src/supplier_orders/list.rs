//! Supplier orders read: one by its id or number, pages of them for people, and a count to compare with
//! a vendor's ledger.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::SupplierOrder;
use crate::error::StoreError;
use crate::ids::SystemId;
use crate::on_read;
use crate::pool::Store;
use crate::record_batches::unsynced;
use crate::text_enum::{SupplierOrderStatus, SupplierOrderType, SyncStatus};

/// The most orders that one list holds: a page of 500, and the one more that tells whether there is a
/// next page.
pub const PAGE_MAX: u32 = 501;

const FIND: &str = "SELECT * FROM supplier_orders WHERE id = $1";
const FIND_BY_NUMBER: &str = "SELECT * FROM supplier_orders WHERE system_id = $1 AND order_number = $2";
/// The vendor's id is not a key: of several orders the one made last.
const FIND_BY_EXTERNAL_ID: &str = "
    SELECT * FROM supplier_orders WHERE system_id = $1 AND external_order_id = $2 ORDER BY id DESC LIMIT 1";
const TALLY: &str = "
    SELECT COUNT(*) AS count, COUNT(DISTINCT order_number) AS distinct_numbers,
           CAST(COALESCE(SUM(total), 0) AS BIGINT) AS total
    FROM supplier_orders WHERE system_id = $1 AND deleted_at IS NULL";
const LIST: &str = "SELECT * FROM supplier_orders WHERE deleted_at IS NULL";

/// Every fixed statement of this table, by name.
#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("supplier_orders::FIND", FIND),
    ("supplier_orders::FIND_BY_NUMBER", FIND_BY_NUMBER),
    ("supplier_orders::FIND_BY_EXTERNAL_ID", FIND_BY_EXTERNAL_ID),
    ("supplier_orders::TALLY", TALLY),
    ("supplier_orders::LIST", LIST),
];

/// The order of this id, tombstones included.
pub async fn get(store: &Store, id: Uuid) -> Result<SupplierOrder, StoreError> {
    let found: Option<SupplierOrder> =
        on_read!(store, |ex| sqlx::query_as(FIND).bind(id).fetch_optional(ex).await)?;
    found.ok_or_else(|| StoreError::NotFound(format!("supplier order `{id}`")))
}

/// The order of this number, tombstones included.
pub async fn find_by_number(
    store: &Store,
    system: SystemId,
    order_number: &str,
) -> Result<Option<SupplierOrder>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND_BY_NUMBER)
        .bind(system)
        .bind(order_number)
        .fetch_optional(ex)
        .await)?)
}

/// The order that the vendor calls by this id, tombstones included.
pub async fn find_by_external_id(
    store: &Store,
    system: SystemId,
    external_order_id: &str,
) -> Result<Option<SupplierOrder>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND_BY_EXTERNAL_ID)
        .bind(system)
        .bind(external_order_id)
        .fetch_optional(ex)
        .await)?)
}

/// Which orders a list holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// The only store that the caller may see.
    pub scope: Option<&'a str>,
    /// Only this store.
    pub store_id: Option<&'a str>,
    /// Only this system.
    pub system_id: Option<SystemId>,
    /// Only this state.
    pub status: Option<SupplierOrderStatus>,
    /// Only purchases, or only returns.
    pub order_type: Option<SupplierOrderType>,
    /// Only this state of synchronisation.
    pub sync_status: Option<SyncStatus>,
    /// Only those ordered at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only those ordered before this time.
    pub to: Option<DateTime<Utc>>,
    /// Only those of this number, in whatever system.
    pub order_number: Option<&'a str>,
    /// Only those after this one in the list: its `order_date` and id.
    pub before: Option<(DateTime<Utc>, Uuid)>,
    /// How many, at most [`PAGE_MAX`].
    pub limit: u32,
}

/// A type as the index of returns has it: the value written out, and beside it the index's own condition,
/// which `SQLite` does not see in the value.
const fn unusual(order_type: SupplierOrderType) -> &'static str {
    match order_type {
        SupplierOrderType::Purchase => " AND order_type = 'purchase'",
        SupplierOrderType::Return => " AND order_type = 'return' AND order_type <> 'purchase'",
    }
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
        if let Some(status) = $filter.status {
            query.push(" AND status = ").push_bind(status);
        }
        if let Some(order_type) = $filter.order_type {
            query.push(unusual(order_type));
        }
        if let Some(status) = $filter.sync_status {
            query.push(unsynced(status));
        }
        if let Some(order_number) = $filter.order_number {
            query.push(" AND order_number = ").push_bind(order_number);
        }
        if let Some(from) = $filter.from {
            query.push(" AND order_date >= ").push_bind(from);
        }
        if let Some(to) = $filter.to {
            query.push(" AND order_date < ").push_bind(to);
        }
        if let Some((at, id)) = $filter.before {
            query.push(" AND (order_date, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY order_date DESC, id DESC LIMIT ");
        query.push_bind(i64::from($filter.limit.min(PAGE_MAX)));
        query.build_query_as().fetch_all($executor).await
    }};
}

/// The newest orders that are not gone.
pub async fn list(store: &Store, filter: &Filter<'_>) -> Result<Vec<SupplierOrder>, StoreError> {
    Ok(on_read!(store, |ex| list_body!(filter, ex))?)
}

/// What a system has ordered, as it is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Tally {
    /// Rows that are not gone.
    pub count: i64,
    /// Different numbers among them; fewer than rows would mean that something was doubled.
    pub distinct_numbers: i64,
    /// The sum of their totals, in minor units.
    pub total: i64,
}

/// Counts what a system has ordered, to compare it with the vendor's own ledger.
pub async fn tally(store: &Store, system: SystemId) -> Result<Tally, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(TALLY).bind(system).fetch_one(ex).await)?)
}
