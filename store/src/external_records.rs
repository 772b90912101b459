//! The table `external_records`: payments, deliveries, ERP documents, reservations, each once.
//!
//! What has no table of its own is kept here by stream: a few columns to search by, the mapped fields
//! as JSON. Which version of a record wins is told in [`crate::record_batches`], how a webhook changes a
//! status alone in [`crate::record_patches`].

use std::borrow::Cow;

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::error::StoreError;
use crate::ids::{RunId, SystemId};
use crate::money::Currency;
use crate::on_tx;
use crate::pool::Tx;
use crate::record_batches::{
    self, Batch, ChangedRow, ContentHash, EXTERNAL_ID_BYTES_MAX, Key, NewRow, RecordKey, RecordTable,
    RefusedRecord, RowThere, Upserted, check_id, check_time, clean, clean_option,
};
use crate::record_columns::insertion;
use crate::records_handed_in::{self, HandedIn};
use crate::text_enum::SyncStatus;

mod list;

pub use list::{Filter, PAGE_MAX, Tally, find_by_external_id, get, list, tally};

#[cfg(feature = "testing")]
pub(crate) use list::STATEMENTS;

const OVERWRITE: &str = "
    ON CONFLICT (system_id, stream, external_id) DO UPDATE SET
        store_id = excluded.store_id, currency = excluded.currency, amount = excluded.amount,
        occurred_at = excluded.occurred_at, number = excluded.number,
        customer_phone = excluded.customer_phone, data = excluded.data,
        sync_status = excluded.sync_status, version_at = excluded.version_at,
        observed_at = excluded.observed_at, content_hash = excluded.content_hash,
        sync_log_id = excluded.sync_log_id, raw = excluded.raw, updated_at = excluded.updated_at,
        deleted_at = excluded.deleted_at";
/// The status that a newer patch told stays; a newer record puts its own back, even if it is otherwise
/// known.
const IF_NEWER: &str = ",
        status = CASE
            WHEN (external_records.status_version_at, external_records.status_observed_at)
               > (excluded.version_at, excluded.observed_at) THEN external_records.status
            ELSE excluded.status END
    WHERE (external_records.version_at, external_records.observed_at) <= (excluded.version_at, excluded.observed_at)
      AND (external_records.content_hash <> excluded.content_hash
        OR (external_records.version_at < excluded.version_at
            AND (external_records.deleted_at IS NULL) <> (excluded.deleted_at IS NULL))
        OR (external_records.status_version_at < excluded.version_at
            AND external_records.status IS DISTINCT FROM excluded.status))";
const FORCED: &str = ",
        status = excluded.status, status_version_at = NULL, status_observed_at = NULL";

/// The keys and ids of the rows that changed.
const CHANGED: &str = " RETURNING stream, external_id, id";
const THERE: &str = "SELECT stream, external_id, id, occurred_at FROM external_records WHERE system_id = ";

const RAISE_HEAD: &str = "
    UPDATE external_records SET version_at = seen.column4, observed_at = seen.column5 FROM (";
const RAISE_TAIL: &str = ") AS seen
    WHERE external_records.stream = seen.column1
      AND external_records.external_id = seen.column2
      AND external_records.content_hash = seen.column3
      AND external_records.version_at < seen.column4
      AND external_records.system_id = ";

/// One record of a stream that has no table of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingRecord {
    /// The stream it belongs to, such as `payments`.
    pub stream: String,
    /// The vendor's id; unique within a system and stream.
    pub external_id: String,
    /// The vendor's word for its state.
    pub status: Option<String>,
    /// The currency of the amount.
    pub currency: Option<Currency>,
    /// In minor units.
    pub amount: Option<i64>,
    /// The vendor's shop id; the system's store map makes it a store.
    pub shop: Option<String>,
    /// When it took place.
    pub occurred_at: Option<DateTime<Utc>>,
    /// When the vendor changed it last, if the vendor tells.
    pub version_at: Option<DateTime<Utc>>,
    /// When this record was heard of, if not with the batch: one batch may hold events that arrived at
    /// different times.
    pub observed_at: Option<DateTime<Utc>>,
    /// The vendor says that it is gone.
    pub deleted: bool,
    /// The mapped fields as JSON text.
    pub data: String,
    /// The whole record as JSON text.
    pub raw: String,
}

/// A row of `external_records`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ExternalRecord {
    /// Our id.
    pub id: Uuid,
    /// The system that reported it.
    pub system_id: SystemId,
    /// The store it belongs to; `None` when the shop is unknown and the system chain-wide.
    pub store_id: Option<String>,
    /// The stream it belongs to.
    pub stream: String,
    /// The vendor's id; unique within a system and stream.
    pub external_id: String,
    /// The vendor's word for its state.
    pub status: Option<String>,
    /// The currency of the amount.
    pub currency: Option<Currency>,
    /// In minor units.
    pub amount: Option<i64>,
    /// When it took place.
    pub occurred_at: Option<DateTime<Utc>>,
    /// The number that people know it by, if its fields name one.
    pub number: Option<String>,
    /// The customer's telephone number, if its fields name one.
    pub customer_phone: Option<String>,
    /// The mapped fields as JSON text.
    pub data: String,
    /// Whether it is in step with its vendor.
    pub sync_status: SyncStatus,
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

impl ExternalRecord {
    /// The row that a record becomes, or why it cannot be stored.
    fn prepare(batch: &Batch<'_>, new: IncomingRecord) -> Result<Self, RefusedRecord> {
        let times = check_id(&new.external_id).and_then(|()| {
            let occurred_at = new.occurred_at.map(|time| check_time("occurred_at", time)).transpose()?;
            let version_at = new.version_at.map(|time| check_time("version_at", time)).transpose()?;
            Ok((occurred_at, version_at))
        });
        let (occurred_at, version_at) = match times {
            Ok(times) => times,
            Err(reason) => {
                let key = Key { stream: &new.stream, external_id: &new.external_id };
                return Err(record_batches::refuse(key, reason, &new.raw));
            }
        };
        let (number, customer_phone) = looked_up_by(&new.data);
        let now = batch.clock.now();
        let observed_at = new.observed_at.unwrap_or(batch.observed_at).trunc_subsecs(3);
        let mut row = Self {
            id: batch.clock.new_id(),
            system_id: batch.system_id,
            store_id: batch.stores.store_of(new.shop.as_deref()).map(str::to_owned),
            stream: clean(new.stream),
            external_id: clean(new.external_id),
            status: clean_option(new.status),
            currency: new.currency,
            amount: new.amount,
            occurred_at,
            number: clean_option(number),
            customer_phone: clean_option(customer_phone),
            data: clean(new.data),
            sync_status: SyncStatus::Success,
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
        let absent = i64::MIN;
        ContentHash::new()
            .option(self.store_id.as_deref())
            .option(self.status.as_deref())
            .option(self.currency.as_ref().map(Currency::as_str))
            .number(self.amount.unwrap_or(absent))
            .number(self.occurred_at.map_or(absent, |time| time.timestamp_millis()))
            .number(i64::from(self.deleted_at.is_some()))
            .text(&self.data)
            .text(&self.raw)
            .finish()
    }
}

/// Fields under which people know a record, by the names that mappings give them.
#[derive(serde::Deserialize)]
struct LookedUpBy<'a> {
    #[serde(borrow, default, alias = "order_number", alias = "document_number", alias = "number")]
    reservation_number: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    customer_phone: Option<Cow<'a, str>>,
}

/// The number and the telephone number among the mapped fields. What is not text is no such thing, and fields
/// that cannot be read are kept all the same.
fn looked_up_by(data: &str) -> (Option<String>, Option<String>) {
    let Ok(found) = serde_json::from_str::<LookedUpBy<'_>>(data) else {
        return (None, None);
    };
    let fit = |text: Option<Cow<'_, str>>| {
        text.map(Cow::into_owned).filter(|text| !text.is_empty() && text.len() <= EXTERNAL_ID_BYTES_MAX)
    };
    (fit(found.reservation_number), fit(found.customer_phone))
}

impl NewRow for ExternalRecord {
    fn id(&self) -> Uuid {
        self.id
    }
    fn key(&self) -> Key<'_> {
        Key { stream: &self.stream, external_id: &self.external_id }
    }
    fn version(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        (self.version_at, self.observed_at)
    }
    fn raw(&self) -> &str {
        &self.raw
    }
}

insertion!("external_records", |row: &ExternalRecord| {
    id "UUID" = row.id,
    system_id "UUID" = row.system_id,
    store_id "TEXT" = row.store_id.as_deref(),
    stream "TEXT" = row.stream.as_str(),
    external_id "TEXT" = row.external_id.as_str(),
    status "TEXT" = row.status.as_deref(),
    currency "TEXT" = row.currency.as_ref().map(Currency::as_str),
    amount "BIGINT" = row.amount,
    occurred_at "TIMESTAMPTZ" = row.occurred_at,
    number "TEXT" = row.number.as_deref(),
    customer_phone "TEXT" = row.customer_phone.as_deref(),
    data "TEXT" = row.data.as_str(),
    sync_status "TEXT" = row.sync_status.as_str(),
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
    type Row = ExternalRecord;

    async fn write(
        tx: &mut Tx,
        batch: &Batch<'_>,
        rows: &[ExternalRecord],
    ) -> Result<Vec<ChangedRow>, StoreError> {
        let rows: Vec<&ExternalRecord> = rows.iter().collect();
        insert(tx, &rows, &[OVERWRITE, if batch.force { FORCED } else { IF_NEWER }, CHANGED]).await
    }

    async fn raise(tx: &mut Tx, batch: &Batch<'_>, rows: &[ExternalRecord]) -> Result<(), StoreError> {
        Ok(on_tx!(tx, |ex| {
            let mut query = QueryBuilder::new(RAISE_HEAD);
            query.push_values(rows, |mut values, row| {
                values
                    .push_bind(row.stream.as_str())
                    .push_bind(row.external_id.as_str())
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
            query.push_bind(system_id).push(" AND (stream, external_id) IN (");
            query.push_values(keys, |mut values, (stream, external_id)| {
                values.push_bind(stream.as_str()).push_bind(external_id.as_str());
            });
            query.push(")");
            query.build_query_as().persistent(false).fetch_all(ex).await
        })?)
    }
}

/// Writes records; one that cannot be stored fails them all with [`StoreError::Refused`].
pub async fn upsert_batch(
    tx: &mut Tx,
    batch: Batch<'_>,
    records: Vec<IncomingRecord>,
) -> Result<Upserted, StoreError> {
    let rows = records.into_iter().map(|record| ExternalRecord::prepare(&batch, record));
    let rows = rows
        .collect::<Result<Vec<_>, _>>()
        .map_err(|refused| StoreError::Refused(sqlx::Error::Encode(refused.reason.into())))?;
    record_batches::upsert::<Table>(tx, &batch, rows).await
}

/// Writes records that are the work of several runs, each beside its own; one that cannot be stored fails
/// them all with [`StoreError::Refused`]. Gives back the keys of those that changed.
pub async fn upsert_of_runs(
    tx: &mut Tx,
    batch: Batch<'_>,
    records: Vec<(RunId, IncomingRecord)>,
) -> Result<Vec<RecordKey>, StoreError> {
    let rows = records
        .into_iter()
        .map(|(run, record)| ExternalRecord::prepare(&Batch { sync_log_id: Some(run), ..batch }, record));
    let rows = rows
        .collect::<Result<Vec<_>, _>>()
        .map_err(|refused| StoreError::Refused(sqlx::Error::Encode(refused.reason.into())))?;
    record_batches::upsert_telling::<Table>(tx, &batch, rows).await
}

/// Writes records; those that cannot be stored are given back, the others are written.
pub async fn upsert_batch_isolating(
    tx: &mut Tx,
    batch: Batch<'_>,
    records: Vec<IncomingRecord>,
) -> Result<(Upserted, Vec<RefusedRecord>), StoreError> {
    let mut rows = Vec::with_capacity(records.len());
    let mut impossible = Vec::new();
    for record in records {
        match ExternalRecord::prepare(&batch, record) {
            Ok(row) => rows.push(row),
            Err(refused) => impossible.push(refused),
        }
    }
    let (upserted, refused) = record_batches::upsert_isolating::<Table>(tx, &batch, rows).await?;
    impossible.extend(refused);
    Ok((upserted, impossible))
}

/// Writes records that a client hands in, and answers each in the order they were given.
pub async fn hand_in(
    tx: &mut Tx,
    batch: Batch<'_>,
    records: Vec<IncomingRecord>,
) -> Result<Vec<HandedIn>, StoreError> {
    let prepared = records.into_iter().map(|record| ExternalRecord::prepare(&batch, record)).collect();
    records_handed_in::hand_in::<Table>(tx, &batch, prepared).await
}
