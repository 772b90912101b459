//! The table `pos_transactions`: every sale, refund and void of every till, once.
//!
//! Pulls and webhooks write here in batches ([`upsert_batch_isolating`]), clients by the API
//! ([`hand_in`]); which version of a record wins is told in [`crate::record_batches`], how a webhook
//! changes a transaction's type alone in [`crate::record_patches`].

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
use crate::text_enum::{SyncStatus, TransactionType};

mod list;

pub use list::{
    ChangedPhones, Filter, PAGE_MAX, Tally, changed_phones, find_by_external_id, get, list, tally,
};

#[cfg(feature = "testing")]
pub(crate) use list::STATEMENTS;

const OVERWRITE: &str = "
    ON CONFLICT (system_id, pos_transaction_id) DO UPDATE SET
        store_id = excluded.store_id, pos_order_number = excluded.pos_order_number, currency = excluded.currency,
        subtotal = excluded.subtotal, tax = excluded.tax, discount = excluded.discount, total = excluded.total,
        payment_method = excluded.payment_method, items = excluded.items,
        customer_info = excluded.customer_info, customer_phone = excluded.customer_phone,
        sync_status = excluded.sync_status, transaction_time = excluded.transaction_time,
        version_at = excluded.version_at, observed_at = excluded.observed_at,
        content_hash = excluded.content_hash, sync_log_id = excluded.sync_log_id, raw = excluded.raw,
        updated_at = excluded.updated_at, deleted_at = excluded.deleted_at";
/// The type that a newer patch told stays; a newer record puts its own back, even if it is otherwise known.
const IF_NEWER: &str = ",
        transaction_type = CASE
            WHEN (pos_transactions.status_version_at, pos_transactions.status_observed_at)
               > (excluded.version_at, excluded.observed_at) THEN pos_transactions.transaction_type
            ELSE excluded.transaction_type END
    WHERE (pos_transactions.version_at, pos_transactions.observed_at) <= (excluded.version_at, excluded.observed_at)
      AND (pos_transactions.content_hash <> excluded.content_hash
        OR (pos_transactions.version_at < excluded.version_at
            AND (pos_transactions.deleted_at IS NULL) <> (excluded.deleted_at IS NULL))
        OR (pos_transactions.status_version_at < excluded.version_at
            AND pos_transactions.transaction_type <> excluded.transaction_type))";
const FORCED: &str = ",
        transaction_type = excluded.transaction_type, status_version_at = NULL, status_observed_at = NULL";
/// The keys and ids of the rows that changed.
const CHANGED: &str = " RETURNING '' AS stream, pos_transaction_id, id";
const THERE: &str =
    "SELECT '' AS stream, pos_transaction_id, id, transaction_time FROM pos_transactions WHERE system_id = ";

const RAISE_HEAD: &str = "
    UPDATE pos_transactions SET version_at = seen.column3, observed_at = seen.column4 FROM (";
const RAISE_TAIL: &str = ") AS seen
    WHERE pos_transactions.pos_transaction_id = seen.column1
      AND pos_transactions.content_hash = seen.column2
      AND pos_transactions.version_at < seen.column3
      AND pos_transactions.system_id = ";

/// One POS transaction as a vendor reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingTransaction {
    /// The vendor's id; unique within a system.
    pub external_id: String,
    /// The number printed on the bill.
    pub order_number: Option<String>,
    /// Sale, refund or void.
    pub transaction_type: TransactionType,
    /// The currency of the amounts.
    pub currency: Currency,
    /// Before tax and discount, in minor units.
    pub subtotal: i64,
    /// In minor units.
    pub tax: i64,
    /// In minor units.
    pub discount: i64,
    /// What was paid, in minor units.
    pub total: i64,
    /// How it was paid.
    pub payment_method: Option<String>,
    /// The lines of the bill as JSON text.
    pub items: Option<String>,
    /// The customer as JSON text.
    pub customer: Option<String>,
    /// The customer's telephone number, by which members are found.
    pub customer_phone: Option<String>,
    /// The vendor's shop id; the system's store map makes it a store.
    pub shop: Option<String>,
    /// When it took place.
    pub occurred_at: DateTime<Utc>,
    /// When the vendor changed it last, if the vendor tells.
    pub version_at: Option<DateTime<Utc>>,
    /// When this record was heard of, if not with the batch: one batch may hold events that arrived at
    /// different times.
    pub observed_at: Option<DateTime<Utc>>,
    /// The vendor says that it is gone.
    pub deleted: bool,
    /// The whole record as JSON text.
    pub raw: String,
}

/// A row of `pos_transactions`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct PosTransaction {
    /// Our id.
    pub id: Uuid,
    /// The system that reported it.
    pub system_id: SystemId,
    /// The store it belongs to; `None` when the shop is unknown and the system chain-wide.
    pub store_id: Option<String>,
    /// The vendor's id; unique within a system.
    pub pos_transaction_id: String,
    /// The number printed on the bill.
    pub pos_order_number: Option<String>,
    /// Sale, refund or void.
    pub transaction_type: TransactionType,
    /// The currency of the amounts.
    pub currency: Currency,
    /// Before tax and discount, in minor units.
    pub subtotal: i64,
    /// In minor units.
    pub tax: i64,
    /// In minor units.
    pub discount: i64,
    /// What was paid, in minor units.
    pub total: i64,
    /// How it was paid.
    pub payment_method: Option<String>,
    /// The lines of the bill as JSON text.
    pub items: Option<String>,
    /// The customer as JSON text.
    pub customer_info: Option<String>,
    /// The customer's telephone number.
    pub customer_phone: Option<String>,
    /// Whether it is in step with its vendor.
    pub sync_status: SyncStatus,
    /// When it took place.
    pub transaction_time: DateTime<Utc>,
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
    /// The whole record as JSON text.
    pub raw: String,
    /// When the row was made.
    pub created_at: DateTime<Utc>,
    /// When its content changed last.
    pub updated_at: DateTime<Utc>,
    /// When the vendor said that it is gone.
    pub deleted_at: Option<DateTime<Utc>>,
}

impl PosTransaction {
    /// The row that a record becomes, or why it cannot be stored.
    fn prepare(batch: &Batch<'_>, new: IncomingTransaction) -> Result<Self, RefusedRecord> {
        let times = check_id(&new.external_id).and_then(|()| {
            let occurred_at = check_time("occurred_at", new.occurred_at)?;
            let version_at = new.version_at.map(|time| check_time("version_at", time)).transpose()?;
            Ok((occurred_at, version_at))
        });
        let (transaction_time, version_at) = match times {
            Ok(times) => times,
            Err(reason) => {
                let key = Key { stream: "", external_id: &new.external_id };
                return Err(record_batches::refuse(key, reason, &new.raw));
            }
        };
        let now = batch.clock.now();
        let observed_at = new.observed_at.unwrap_or(batch.observed_at).trunc_subsecs(3);
        let mut row = Self {
            id: batch.clock.new_id(),
            system_id: batch.system_id,
            store_id: batch.stores.store_of(new.shop.as_deref()).map(str::to_owned),
            pos_transaction_id: clean(new.external_id),
            pos_order_number: clean_option(new.order_number),
            transaction_type: new.transaction_type,
            currency: new.currency,
            subtotal: new.subtotal,
            tax: new.tax,
            discount: new.discount,
            total: new.total,
            payment_method: clean_option(new.payment_method),
            items: clean_option(new.items),
            customer_info: clean_option(new.customer),
            customer_phone: clean_option(new.customer_phone),
            sync_status: SyncStatus::Success,
            transaction_time,
            version_at: version_at.unwrap_or(observed_at),
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
        ContentHash::new()
            .option(self.store_id.as_deref())
            .option(self.pos_order_number.as_deref())
            .text(self.transaction_type.as_str())
            .text(self.currency.as_str())
            .number(self.subtotal)
            .number(self.tax)
            .number(self.discount)
            .number(self.total)
            .option(self.payment_method.as_deref())
            .option(self.items.as_deref())
            .option(self.customer_info.as_deref())
            .option(self.customer_phone.as_deref())
            .number(self.transaction_time.timestamp_millis())
            .number(i64::from(self.deleted_at.is_some()))
            .text(&self.raw)
            .finish()
    }
}

impl NewRow for PosTransaction {
    fn id(&self) -> Uuid {
        self.id
    }
    fn key(&self) -> Key<'_> {
        Key { stream: "", external_id: &self.pos_transaction_id }
    }
    fn version(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        (self.version_at, self.observed_at)
    }
    fn raw(&self) -> &str {
        &self.raw
    }
}

insertion!("pos_transactions", |row: &PosTransaction| {
    id "UUID" = row.id,
    system_id "UUID" = row.system_id,
    store_id "TEXT" = row.store_id.as_deref(),
    pos_transaction_id "TEXT" = row.pos_transaction_id.as_str(),
    pos_order_number "TEXT" = row.pos_order_number.as_deref(),
    transaction_type "TEXT" = row.transaction_type.as_str(),
    currency "TEXT" = row.currency.as_str(),
    subtotal "BIGINT" = row.subtotal,
    tax "BIGINT" = row.tax,
    discount "BIGINT" = row.discount,
    total "BIGINT" = row.total,
    payment_method "TEXT" = row.payment_method.as_deref(),
    items "TEXT" = row.items.as_deref(),
    customer_info "TEXT" = row.customer_info.as_deref(),
    customer_phone "TEXT" = row.customer_phone.as_deref(),
    sync_status "TEXT" = row.sync_status.as_str(),
    transaction_time "TIMESTAMPTZ" = row.transaction_time,
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
    type Row = PosTransaction;

    async fn write(
        tx: &mut Tx,
        batch: &Batch<'_>,
        rows: &[PosTransaction],
    ) -> Result<Vec<ChangedRow>, StoreError> {
        let rows: Vec<&PosTransaction> = rows.iter().collect();
        insert(tx, &rows, &[OVERWRITE, if batch.force { FORCED } else { IF_NEWER }, CHANGED]).await
    }

    async fn raise(tx: &mut Tx, batch: &Batch<'_>, rows: &[PosTransaction]) -> Result<(), StoreError> {
        Ok(on_tx!(tx, |ex| {
            let mut query = QueryBuilder::new(RAISE_HEAD);
            query.push_values(rows, |mut values, row| {
                values
                    .push_bind(row.pos_transaction_id.as_str())
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
            query.push_bind(system_id).push(" AND pos_transaction_id IN (");
            let mut values = query.separated(", ");
            for (_, external_id) in keys {
                values.push_bind(external_id.as_str());
            }
            query.push(")");
            query.build_query_as().persistent(false).fetch_all(ex).await
        })?)
    }
}

/// Writes records; one that cannot be stored fails them all with [`StoreError::Refused`].
pub async fn upsert_batch(
    tx: &mut Tx,
    batch: Batch<'_>,
    records: Vec<IncomingTransaction>,
) -> Result<Upserted, StoreError> {
    let rows = records.into_iter().map(|record| PosTransaction::prepare(&batch, record));
    let rows = rows.collect::<Result<Vec<_>, _>>().map_err(as_refused)?;
    record_batches::upsert::<Table>(tx, &batch, rows).await
}

/// Writes records that are the work of several runs, each beside its own; one that cannot be stored fails
/// them all with [`StoreError::Refused`]. Gives back the keys of those that changed.
pub async fn upsert_of_runs(
    tx: &mut Tx,
    batch: Batch<'_>,
    records: Vec<(RunId, IncomingTransaction)>,
) -> Result<Vec<RecordKey>, StoreError> {
    let rows = records
        .into_iter()
        .map(|(run, record)| PosTransaction::prepare(&Batch { sync_log_id: Some(run), ..batch }, record));
    let rows = rows.collect::<Result<Vec<_>, _>>().map_err(as_refused)?;
    record_batches::upsert_telling::<Table>(tx, &batch, rows).await
}

/// Writes records; those that cannot be stored are given back, the others are written.
pub async fn upsert_batch_isolating(
    tx: &mut Tx,
    batch: Batch<'_>,
    records: Vec<IncomingTransaction>,
) -> Result<(Upserted, Vec<RefusedRecord>), StoreError> {
    let mut rows = Vec::with_capacity(records.len());
    let mut impossible = Vec::new();
    for record in records {
        match PosTransaction::prepare(&batch, record) {
            Ok(row) => rows.push(row),
            Err(refused) => impossible.push(refused),
        }
    }
    let (upserted, refused) = record_batches::upsert_isolating::<Table>(tx, &batch, rows).await?;
    impossible.extend(refused);
    Ok((upserted, impossible))
}

/// Writes transactions that a client hands in; answers each in the order they were given.
///
/// One that is `undated` tells no time: it keeps the one that is there, and the one it comes with is for a new row.
pub async fn hand_in(
    tx: &mut Tx,
    batch: Batch<'_>,
    records: Vec<Undated<IncomingTransaction>>,
) -> Result<Vec<HandedIn>, StoreError> {
    let key = |record: &IncomingTransaction| (String::new(), record.external_id.clone());
    let undated = records.iter().filter(|one| one.undated).map(|one| key(&one.record)).collect();
    let times = records_handed_in::times::<Table>(tx, batch.system_id, undated).await?;
    let prepared = records.into_iter().map(|Undated { mut record, undated }| {
        if let Some(at) = times.get(&key(&record)).filter(|_| undated) {
            record.occurred_at = *at;
        }
        PosTransaction::prepare(&batch, record)
    });
    let prepared = prepared.collect();
    records_handed_in::hand_in::<Table>(tx, &batch, prepared).await
}

fn as_refused(refused: RefusedRecord) -> StoreError {
    StoreError::Refused(sqlx::Error::Encode(refused.reason.into()))
}
