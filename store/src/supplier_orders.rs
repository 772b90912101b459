//! The table `supplier_orders`: every purchase from a supplier and every return to one, once.
//!
//! Pulls and webhooks write here in batches ([`upsert_batch_isolating`]), clients by the API
//! ([`hand_in`]); which version of a record wins is told in [`crate::record_batches`], how a
//! webhook changes a state alone in [`crate::record_patches`]. An order is known by its number, which
//! people use too; the vendor's own id of it is kept beside.

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::error::StoreError;
use crate::ids::{RunId, SystemId};
use crate::money::Currency;
use crate::on_tx;
use crate::pool::Tx;
use crate::record_batches::{
    self, Batch, ChangedRow, ContentHash, Key, NewRow, RecordKey, RecordTable, RefusedRecord, RowThere,
    Upserted, check_id, check_time, clean, clean_option,
};
use crate::record_columns::insertion;
use crate::records_handed_in::{self, HandedIn, Undated};
use crate::text_enum::{SupplierOrderStatus, SupplierOrderType, SyncStatus};

mod list;

pub use list::{Filter, PAGE_MAX, Tally, find_by_external_id, find_by_number, get, list, tally};

#[cfg(feature = "testing")]
pub(crate) use list::STATEMENTS;

const OVERWRITE: &str = "
    ON CONFLICT (system_id, order_number) DO UPDATE SET
        store_id = excluded.store_id, external_order_id = excluded.external_order_id,
        supplier_id = excluded.supplier_id, supplier_name = excluded.supplier_name,
        order_type = excluded.order_type, currency = excluded.currency, subtotal = excluded.subtotal,
        tax = excluded.tax, shipping = excluded.shipping, total = excluded.total, items = excluded.items,
        delivery_info = excluded.delivery_info, sync_status = excluded.sync_status,
        order_date = excluded.order_date, expected_delivery = excluded.expected_delivery,
        version_at = excluded.version_at, observed_at = excluded.observed_at,
        content_hash = excluded.content_hash, sync_log_id = excluded.sync_log_id, raw = excluded.raw,
        updated_at = excluded.updated_at, deleted_at = excluded.deleted_at";
/// What a newer patch told stays. And a record that tells no delivery or no tracking number does not
/// take away the one that is known, unless it puts the order into another state than it was delivered in.
const IF_NEWER: &str = ",
        status = CASE
            WHEN (supplier_orders.status_version_at, supplier_orders.status_observed_at)
               > (excluded.version_at, excluded.observed_at) THEN supplier_orders.status
            ELSE excluded.status END,
        actual_delivery = CASE
            WHEN (supplier_orders.status_version_at, supplier_orders.status_observed_at)
               > (excluded.version_at, excluded.observed_at)
                THEN COALESCE(supplier_orders.actual_delivery, excluded.actual_delivery)
            WHEN supplier_orders.status = excluded.status
                THEN COALESCE(excluded.actual_delivery, supplier_orders.actual_delivery)
            ELSE excluded.actual_delivery END,
        tracking_number = CASE
            WHEN (supplier_orders.status_version_at, supplier_orders.status_observed_at)
               > (excluded.version_at, excluded.observed_at)
                THEN COALESCE(supplier_orders.tracking_number, excluded.tracking_number)
            ELSE COALESCE(excluded.tracking_number, supplier_orders.tracking_number) END
    WHERE (supplier_orders.version_at, supplier_orders.observed_at) <= (excluded.version_at, excluded.observed_at)
      AND (supplier_orders.content_hash <> excluded.content_hash
        OR (supplier_orders.version_at < excluded.version_at
            AND (supplier_orders.deleted_at IS NULL) <> (excluded.deleted_at IS NULL))
        OR (supplier_orders.status_version_at < excluded.version_at
            AND supplier_orders.status <> excluded.status))";
const FORCED: &str = ",
        status = excluded.status, status_version_at = NULL, status_observed_at = NULL,
        actual_delivery = excluded.actual_delivery, tracking_number = excluded.tracking_number";
/// The keys and ids of the rows that changed.
const CHANGED: &str = " RETURNING '' AS stream, order_number, id";
const THERE: &str =
    "SELECT '' AS stream, order_number, id, order_date FROM supplier_orders WHERE system_id = ";

const RAISE_HEAD: &str = "
    UPDATE supplier_orders SET version_at = seen.column3, observed_at = seen.column4 FROM (";
const RAISE_TAIL: &str = ") AS seen
    WHERE supplier_orders.order_number = seen.column1
      AND supplier_orders.content_hash = seen.column2
      AND supplier_orders.version_at < seen.column3
      AND supplier_orders.system_id = ";

/// One supplier order as a vendor reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingSupplierOrder {
    /// The number of the order; unique within a system.
    pub order_number: String,
    /// The vendor's own id of it.
    pub external_order_id: Option<String>,
    /// The vendor's id of the supplier.
    pub supplier_id: Option<String>,
    /// What the supplier is called.
    pub supplier_name: Option<String>,
    /// Purchase or return.
    pub order_type: SupplierOrderType,
    /// How far it is.
    pub status: SupplierOrderStatus,
    /// The currency of the amounts.
    pub currency: Currency,
    /// Before tax and shipping, in minor units.
    pub subtotal: i64,
    /// In minor units.
    pub tax: i64,
    /// In minor units.
    pub shipping: i64,
    /// What is to be paid, in minor units.
    pub total: i64,
    /// The lines of the order as JSON text.
    pub items: Option<String>,
    /// Where and how it is delivered, as JSON text.
    pub delivery: Option<String>,
    /// Where it can be followed.
    pub tracking_number: Option<String>,
    /// The vendor's shop id; the system's store map makes it a store.
    pub shop: Option<String>,
    /// When it was ordered.
    pub order_date: DateTime<Utc>,
    /// When it is to arrive.
    pub expected_delivery: Option<DateTime<Utc>>,
    /// When it arrived.
    pub actual_delivery: Option<DateTime<Utc>>,
    /// When the vendor changed it last, if the vendor tells.
    pub version_at: Option<DateTime<Utc>>,
    /// When this order was heard of, if not with the batch: one batch may hold events that arrived at
    /// different times.
    pub observed_at: Option<DateTime<Utc>>,
    /// The vendor says that it is gone.
    pub deleted: bool,
    /// The whole order as JSON text.
    pub raw: String,
}

/// A row of `supplier_orders`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SupplierOrder {
    /// Our id.
    pub id: Uuid,
    /// The system that reported it.
    pub system_id: SystemId,
    /// The store it belongs to; `None` when the shop is unknown and the system chain-wide.
    pub store_id: Option<String>,
    /// The number of the order; unique within a system.
    pub order_number: String,
    /// The vendor's own id of it.
    pub external_order_id: Option<String>,
    /// The vendor's id of the supplier.
    pub supplier_id: Option<String>,
    /// What the supplier is called.
    pub supplier_name: Option<String>,
    /// Purchase or return.
    pub order_type: SupplierOrderType,
    /// How far it is.
    pub status: SupplierOrderStatus,
    /// The currency of the amounts.
    pub currency: Currency,
    /// Before tax and shipping, in minor units.
    pub subtotal: i64,
    /// In minor units.
    pub tax: i64,
    /// In minor units.
    pub shipping: i64,
    /// What is to be paid, in minor units.
    pub total: i64,
    /// The lines of the order as JSON text.
    pub items: Option<String>,
    /// Where and how it is delivered, as JSON text.
    pub delivery_info: Option<String>,
    /// Whether it is in step with its vendor.
    pub sync_status: SyncStatus,
    /// When it was ordered.
    pub order_date: DateTime<Utc>,
    /// When it is to arrive.
    pub expected_delivery: Option<DateTime<Utc>>,
    /// When it arrived.
    pub actual_delivery: Option<DateTime<Utc>>,
    /// Where it can be followed.
    pub tracking_number: Option<String>,
    /// The vendor's own time of its last change, or the time it was observed.
    pub version_at: DateTime<Utc>,
    /// When the vendor was asked, or when the webhook arrived.
    pub observed_at: DateTime<Utc>,
    /// The version of the last change of its state alone.
    pub status_version_at: Option<DateTime<Utc>>,
    /// When that change was heard of.
    pub status_observed_at: Option<DateTime<Utc>>,
    /// SHA-256 of the content of the last full record.
    pub content_hash: Vec<u8>,
    /// The run that wrote this content.
    pub sync_log_id: Option<RunId>,
    /// The whole order as JSON text.
    pub raw: String,
    /// When the row was made.
    pub created_at: DateTime<Utc>,
    /// When its content changed last.
    pub updated_at: DateTime<Utc>,
    /// When the vendor said that it is gone.
    pub deleted_at: Option<DateTime<Utc>>,
}

/// The times of an order, as both databases can keep them.
struct Times {
    ordered: DateTime<Utc>,
    expected: Option<DateTime<Utc>>,
    delivered: Option<DateTime<Utc>>,
    version: Option<DateTime<Utc>>,
}

impl Times {
    /// Checks everything that can make an order impossible to keep: its keys and its times.
    fn check(new: &IncomingSupplierOrder) -> Result<Self, String> {
        check_id(&new.order_number)?;
        new.external_order_id.as_deref().map_or(Ok(()), check_id)?;
        let option = |name, time: Option<_>| time.map(|time| check_time(name, time)).transpose();
        Ok(Self {
            ordered: check_time("order_date", new.order_date)?,
            expected: option("expected_delivery", new.expected_delivery)?,
            delivered: option("actual_delivery", new.actual_delivery)?,
            version: option("version_at", new.version_at)?,
        })
    }
}

impl SupplierOrder {
    /// The row that a record becomes, or why it cannot be stored.
    fn prepare(batch: &Batch<'_>, mut new: IncomingSupplierOrder) -> Result<Self, RefusedRecord> {
        new.external_order_id = new.external_order_id.filter(|id| !id.is_empty());
        let times = Times::check(&new).map_err(|reason| {
            let key = Key { stream: "", external_id: &new.order_number };
            record_batches::refuse(key, reason, &new.raw)
        })?;
        let now = batch.clock.now();
        let observed_at = new.observed_at.unwrap_or(batch.observed_at).trunc_subsecs(3);
        let mut row = Self {
            id: batch.clock.new_id(),
            system_id: batch.system_id,
            store_id: batch.stores.store_of(new.shop.as_deref()).map(str::to_owned),
            order_number: clean(new.order_number),
            external_order_id: clean_option(new.external_order_id),
            supplier_id: clean_option(new.supplier_id),
            supplier_name: clean_option(new.supplier_name),
            order_type: new.order_type,
            status: new.status,
            currency: new.currency,
            subtotal: new.subtotal,
            tax: new.tax,
            shipping: new.shipping,
            total: new.total,
            items: clean_option(new.items),
            delivery_info: clean_option(new.delivery),
            sync_status: SyncStatus::Success,
            order_date: times.ordered,
            expected_delivery: times.expected,
            actual_delivery: times.delivered,
            tracking_number: clean_option(new.tracking_number),
            version_at: times.version.unwrap_or(observed_at),
            observed_at,
            status_version_at: None,
            status_observed_at: None,
            content_hash: Vec::new(),
            sync_log_id: batch.sync_log_id,
            raw: clean(new.raw),
            created_at: now,
            updated_at: now,
            deleted_at: new.deleted.then_some(now),
        };
        row.content_hash = row.hash_content();
        Ok(row)
    }

    /// Of what the vendor said, not of when we heard it.
    fn hash_content(&self) -> Vec<u8> {
        let millis = |time: Option<DateTime<Utc>>| time.map_or(i64::MIN, |time| time.timestamp_millis());
        ContentHash::new()
            .option(self.store_id.as_deref())
            .option(self.external_order_id.as_deref())
            .option(self.supplier_id.as_deref())
            .option(self.supplier_name.as_deref())
            .text(self.order_type.as_str())
            .text(self.status.as_str())
            .text(self.currency.as_str())
            .number(self.subtotal)
            .number(self.tax)
            .number(self.shipping)
            .number(self.total)
            .option(self.items.as_deref())
            .option(self.delivery_info.as_deref())
            .number(self.order_date.timestamp_millis())
            .number(millis(self.expected_delivery))
            .number(millis(self.actual_delivery))
            .option(self.tracking_number.as_deref())
            .number(i64::from(self.deleted_at.is_some()))
            .text(&self.raw)
            .finish()
    }
}

impl NewRow for SupplierOrder {
    fn id(&self) -> Uuid {
        self.id
    }
    fn key(&self) -> Key<'_> {
        Key { stream: "", external_id: &self.order_number }
    }
    fn version(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        (self.version_at, self.observed_at)
    }
    fn raw(&self) -> &str {
        &self.raw
    }
}

insertion!("supplier_orders", |row: &SupplierOrder| {
    id "UUID" = row.id,
    system_id "UUID" = row.system_id,
    store_id "TEXT" = row.store_id.as_deref(),
    order_number "TEXT" = row.order_number.as_str(),
    external_order_id "TEXT" = row.external_order_id.as_deref(),
    supplier_id "TEXT" = row.supplier_id.as_deref(),
    supplier_name "TEXT" = row.supplier_name.as_deref(),
    order_type "TEXT" = row.order_type.as_str(),
    status "TEXT" = row.status.as_str(),
    currency "TEXT" = row.currency.as_str(),
    subtotal "BIGINT" = row.subtotal,
    tax "BIGINT" = row.tax,
    shipping "BIGINT" = row.shipping,
    total "BIGINT" = row.total,
    items "TEXT" = row.items.as_deref(),
    delivery_info "TEXT" = row.delivery_info.as_deref(),
    sync_status "TEXT" = row.sync_status.as_str(),
    order_date "TIMESTAMPTZ" = row.order_date,
    expected_delivery "TIMESTAMPTZ" = row.expected_delivery,
    actual_delivery "TIMESTAMPTZ" = row.actual_delivery,
    tracking_number "TEXT" = row.tracking_number.as_deref(),
    version_at "TIMESTAMPTZ" = row.version_at,
    observed_at "TIMESTAMPTZ" = row.observed_at,
    content_hash "BYTEA" = row.content_hash.as_slice(),
    sync_log_id "UUID" = row.sync_log_id,
    raw "TEXT" = row.raw.as_str(),
    created_at "TIMESTAMPTZ" = row.created_at,
    updated_at "TIMESTAMPTZ" = row.updated_at,
    deleted_at "TIMESTAMPTZ" = row.deleted_at,
});

/// The table, for [`record_batches`].
struct Table;

impl RecordTable for Table {
    type Row = SupplierOrder;

    async fn write(
        tx: &mut Tx,
        batch: &Batch<'_>,
        rows: &[SupplierOrder],
    ) -> Result<Vec<ChangedRow>, StoreError> {
        let rows: Vec<&SupplierOrder> = rows.iter().collect();
        insert(tx, &rows, &[OVERWRITE, if batch.force { FORCED } else { IF_NEWER }, CHANGED]).await
    }

    async fn raise(tx: &mut Tx, batch: &Batch<'_>, rows: &[SupplierOrder]) -> Result<(), StoreError> {
        Ok(on_tx!(tx, |ex| {
            let mut query = QueryBuilder::new(RAISE_HEAD);
            query.push_values(rows, |mut values, row| {
                values
                    .push_bind(row.order_number.as_str())
                    .push_bind(row.content_hash.as_slice())
                    .push_bind(row.version_at)
                    .push_bind(row.observed_at);
            });
            query.push(RAISE_TAIL).push_bind(batch.system_id);
            query.build().persistent(false).execute(ex).await.map(drop)
        })?)
    }

    async fn there(
        tx: &mut Tx,
        system_id: SystemId,
        keys: &[RecordKey],
    ) -> Result<Vec<RowThere>, StoreError> {
        Ok(on_tx!(tx, |ex| {
            let mut query = QueryBuilder::new(THERE);
            query.push_bind(system_id).push(" AND order_number IN (");
            let mut values = query.separated(", ");
            for (_, external_id) in keys {
                values.push_bind(external_id.as_str());
            }
            query.push(")");
            query.build_query_as().persistent(false).fetch_all(ex).await
        })?)
    }
}

/// Writes orders; one that cannot be stored fails them all with [`StoreError::Refused`].
pub async fn upsert_batch(
    tx: &mut Tx,
    batch: Batch<'_>,
    orders: Vec<IncomingSupplierOrder>,
) -> Result<Upserted, StoreError> {
    let rows = orders.into_iter().map(|order| SupplierOrder::prepare(&batch, order));
    let rows = rows.collect::<Result<Vec<_>, _>>().map_err(as_refused)?;
    record_batches::upsert::<Table>(tx, &batch, rows).await
}

/// Writes orders that are the work of several runs, each beside its own; one that cannot be stored fails
/// them all with [`StoreError::Refused`]. Gives back the keys of those that changed.
pub async fn upsert_of_runs(
    tx: &mut Tx,
    batch: Batch<'_>,
    orders: Vec<(RunId, IncomingSupplierOrder)>,
) -> Result<Vec<RecordKey>, StoreError> {
    let rows = orders
        .into_iter()
        .map(|(run, order)| SupplierOrder::prepare(&Batch { sync_log_id: Some(run), ..batch }, order));
    let rows = rows.collect::<Result<Vec<_>, _>>().map_err(as_refused)?;
    record_batches::upsert_telling::<Table>(tx, &batch, rows).await
}

/// Writes orders; those that cannot be stored are given back, the others are written.
pub async fn upsert_batch_isolating(
    tx: &mut Tx,
    batch: Batch<'_>,
    orders: Vec<IncomingSupplierOrder>,
) -> Result<(Upserted, Vec<RefusedRecord>), StoreError> {
    let mut rows = Vec::with_capacity(orders.len());
    let mut impossible = Vec::new();
    for order in orders {
        match SupplierOrder::prepare(&batch, order) {
            Ok(row) => rows.push(row),
            Err(refused) => impossible.push(refused),
        }
    }
    let (upserted, refused) = record_batches::upsert_isolating::<Table>(tx, &batch, rows).await?;
    impossible.extend(refused);
    Ok((upserted, impossible))
}

/// Writes orders that a client hands in; answers each in the order they were given.
///
/// One that is `undated` tells no time: it keeps the one that is there, and the one it comes with is for a new row.
pub async fn hand_in(
    tx: &mut Tx,
    batch: Batch<'_>,
    records: Vec<Undated<IncomingSupplierOrder>>,
) -> Result<Vec<HandedIn>, StoreError> {
    let key = |record: &IncomingSupplierOrder| (String::new(), record.order_number.clone());
    let undated = records.iter().filter(|one| one.undated).map(|one| key(&one.record)).collect();
    let times = records_handed_in::times::<Table>(tx, batch.system_id, undated).await?;
    let prepared = records.into_iter().map(|Undated { mut record, undated }| {
        if let Some(at) = times.get(&key(&record)).filter(|_| undated) {
            record.order_date = *at;
        }
        SupplierOrder::prepare(&batch, record)
    });
    let prepared = prepared.collect();
    records_handed_in::hand_in::<Table>(tx, &batch, prepared).await
}

fn as_refused(refused: RefusedRecord) -> StoreError {
    StoreError::Refused(sqlx::Error::Encode(refused.reason.into()))
}
