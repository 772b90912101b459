//! POS transactions read: one by an id, pages of them for people, and a count to compare with a vendor's
//! ledger.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::PosTransaction;
use crate::error::StoreError;
use crate::ids::SystemId;
use crate::on_read;
use crate::pool::Store;
use crate::record_batches::unsynced;
use crate::text_enum::{SyncStatus, TransactionType};

/// The most transactions that one list holds: a page of 500, and the one more that tells whether there
/// is a next page.
pub const PAGE_MAX: u32 = 501;

const FIND: &str = "SELECT * FROM pos_transactions WHERE id = $1";
const FIND_BY_EXTERNAL_ID: &str =
    "SELECT * FROM pos_transactions WHERE system_id = $1 AND pos_transaction_id = $2";
const TALLY: &str = "
    SELECT COUNT(*) AS count, COUNT(DISTINCT pos_transaction_id) AS distinct_ids,
           CAST(COALESCE(SUM(total), 0) AS BIGINT) AS total
    FROM pos_transactions WHERE system_id = $1 AND deleted_at IS NULL";
const LIST: &str = "SELECT * FROM pos_transactions WHERE deleted_at IS NULL";
const CHANGED_PHONES: &str = "
    SELECT DISTINCT customer_phone FROM pos_transactions
    WHERE customer_phone IS NOT NULL AND deleted_at IS NULL AND updated_at >= $1 AND updated_at < $2
      AND customer_phone > $3 AND (store_id = $4 OR $4 IS NULL)
    ORDER BY customer_phone LIMIT $5";

/// Every fixed statement of this table, by name.
#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("pos_transactions::FIND", FIND),
    ("pos_transactions::FIND_BY_EXTERNAL_ID", FIND_BY_EXTERNAL_ID),
    ("pos_transactions::TALLY", TALLY),
    ("pos_transactions::LIST", LIST),
    ("pos_transactions::CHANGED_PHONES", CHANGED_PHONES),
];

/// The transaction of this id, tombstones included.
pub async fn get(store: &Store, id: Uuid) -> Result<PosTransaction, StoreError> {
    let found: Option<PosTransaction> =
        on_read!(store, |ex| sqlx::query_as(FIND).bind(id).fetch_optional(ex).await)?;
    found.ok_or_else(|| StoreError::NotFound(format!("POS transaction `{id}`")))
}

/// The transaction that a system calls by this id, tombstones included.
pub async fn find_by_external_id(
    store: &Store,
    system: SystemId,
    external_id: &str,
) -> Result<Option<PosTransaction>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND_BY_EXTERNAL_ID)
        .bind(system)
        .bind(external_id)
        .fetch_optional(ex)
        .await)?)
}

/// Whose telephone numbers are asked for: those of the transactions that were stored or changed in a time.
#[derive(Debug, Clone, Copy)]
pub struct ChangedPhones<'a> {
    /// The beginning of the time, by our clock.
    pub from: DateTime<Utc>,
    /// Its end, which does not belong to it.
    pub to: DateTime<Utc>,
    /// Only those of this store.
    pub store_id: Option<&'a str>,
    /// Only numbers after this one, in the database's order of texts; empty for all.
    pub after: &'a str,
    /// How many at most.
    pub limit: u32,
}

/// Customers' telephone numbers, each once, in the database's order of texts; tombstones have none.
pub async fn changed_phones(store: &Store, wanted: &ChangedPhones<'_>) -> Result<Vec<String>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_scalar(CHANGED_PHONES)
        .bind(wanted.from)
        .bind(wanted.to)
        .bind(wanted.after)
        .bind(wanted.store_id)
        .bind(i64::from(wanted.limit))
        .fetch_all(ex)
        .await)?)
}

/// Which transactions a list holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// The only store that the caller may see.
    pub scope: Option<&'a str>,
    /// Only this store.
    pub store_id: Option<&'a str>,
    /// Only this system.
    pub system_id: Option<SystemId>,
    /// Only this state.
    pub sync_status: Option<SyncStatus>,
    /// Only sales, refunds or voids.
    pub transaction_type: Option<TransactionType>,
    /// Only those that took place at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only those that took place before this time.
    pub to: Option<DateTime<Utc>>,
    /// Only those with this number on the bill.
    pub order_number: Option<&'a str>,
    /// Only those of the customer with this telephone number.
    pub phone: Option<&'a str>,
    /// Only those after this one in the list: its `transaction_time` and id.
    pub before: Option<(DateTime<Utc>, Uuid)>,
    /// How many, at most [`PAGE_MAX`].
    pub limit: u32,
}

/// A type as the index of all but sales has it: a value written out, and beside it the index's own condition,
/// which `SQLite` does not see in the value.
const fn unusual(transaction_type: TransactionType) -> &'static str {
    match transaction_type {
        TransactionType::Sale => " AND transaction_type = 'sale'",
        TransactionType::Refund => " AND transaction_type = 'refund' AND transaction_type <> 'sale'",
        TransactionType::Void => " AND transaction_type = 'void' AND transaction_type <> 'sale'",
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
        if let Some(status) = $filter.sync_status {
            query.push(unsynced(status));
        }
        if let Some(transaction_type) = $filter.transaction_type {
            query.push(unusual(transaction_type));
        }
        for (column, wanted) in
            [("pos_order_number", $filter.order_number), ("customer_phone", $filter.phone)]
        {
            if let Some(wanted) = wanted {
                query.push(" AND ").push(column).push(" = ").push_bind(wanted);
            }
        }
        if let Some(from) = $filter.from {
            query.push(" AND transaction_time >= ").push_bind(from);
        }
        if let Some(to) = $filter.to {
            query.push(" AND transaction_time < ").push_bind(to);
        }
        if let Some((at, id)) = $filter.before {
            query.push(" AND (transaction_time, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY transaction_time DESC, id DESC LIMIT ");
        query.push_bind(i64::from($filter.limit.min(PAGE_MAX)));
        query.build_query_as().fetch_all($executor).await
    }};
}

/// The newest transactions that are not gone.
pub async fn list(store: &Store, filter: &Filter<'_>) -> Result<Vec<PosTransaction>, StoreError> {
    Ok(on_read!(store, |ex| list_body!(filter, ex))?)
}

/// What a system has sold, as it is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Tally {
    /// Rows that are not gone.
    pub count: i64,
    /// Different ids among them; fewer than rows would mean that something was doubled.
    pub distinct_ids: i64,
    /// The sum of their totals, in minor units.
    pub total: i64,
}

/// Counts what a system has sold, to compare it with the vendor's own ledger.
pub async fn tally(store: &Store, system: SystemId) -> Result<Tally, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(TALLY).bind(system).fetch_one(ex).await)?)
}
