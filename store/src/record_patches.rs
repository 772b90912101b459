//! Changes of a record's state alone: a webhook says `delivered`, `void` or `gone`, and nothing else.
//!
//! ```text
//! lock the row ─▶ is the patch older than the record, or than the last patch? ─yes─▶ Unchanged
//!      │ none            │ no
//!      ▼                 ▼
//!   Missing       write the state, and its version beside the record's own ─▶ Changed
//! ```
//!
//! A state has a version of its own (`status_version_at`, `status_observed_at`), so that a patch never
//! makes a full record that arrives later "older": such a record overwrites everything, and of the
//! state what no newer patch has told. A deletion is the other way round: it counts as the newest
//! version of the whole record, so that a poll of an older one cannot bring it back.
//!
//! News without a time of the vendor's own is not compared with the vendor's clock, which may run ahead of
//! ours: heard after what is there was observed, it is newer than that.
//!
//! The content hash stays that of the last full record: the same record polled again is still known,
//! and a newer version of it still puts its own state back ([`crate::record_batches`]).

use chrono::{DateTime, SubsecRound, Utc};
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::StoreError;
use crate::ids::SystemId;
use crate::on_tx;
use crate::pool::Tx;
use crate::record_batches::{check_id, check_time, clean};
use crate::text_enum::{SupplierOrderStatus, TransactionType};

/// One text to read a row and, on PostgreSQL, another to lock it as well: SQLite has one writer, so
/// a row that is read within a transaction stays as it is.
struct Lock {
    read: &'static str,
    read_and_lock: &'static str,
}

macro_rules! lock {
    ($select:literal) => {
        Lock { read: $select, read_and_lock: concat!($select, " FOR UPDATE") }
    };
}

const LOCK_TRANSACTION: Lock = lock!(
    "SELECT id, transaction_type AS status, version_at, observed_at, status_version_at, status_observed_at,
        deleted_at
    FROM pos_transactions WHERE system_id = $1 AND pos_transaction_id = $2"
);
const LOCK_RECORD: Lock = lock!(
    "SELECT id, status, version_at, observed_at, status_version_at, status_observed_at, deleted_at
    FROM external_records WHERE system_id = $1 AND external_id = $2 AND stream = $3"
);
const LOCK_ORDER_BY_NUMBER: Lock = lock!(
    "SELECT id, status, actual_delivery, tracking_number, version_at, observed_at, status_version_at,
        status_observed_at, deleted_at
    FROM supplier_orders WHERE system_id = $1 AND order_number = $2"
);
const LOCK_ORDER_BY_ID: Lock = lock!(
    "SELECT id, status, actual_delivery, tracking_number, version_at, observed_at, status_version_at,
        status_observed_at, deleted_at
    FROM supplier_orders WHERE system_id = $1 AND external_order_id = $2 ORDER BY id DESC LIMIT 1"
);

const WRITE_TRANSACTION: &str = "
    UPDATE pos_transactions SET transaction_type = $2, version_at = $3, observed_at = $4,
        status_version_at = $5, status_observed_at = $6, deleted_at = $7,
        updated_at = CASE WHEN $8 THEN $9 ELSE updated_at END
    WHERE id = $1";
const WRITE_RECORD: &str = "
    UPDATE external_records SET status = $2, version_at = $3, observed_at = $4,
        status_version_at = $5, status_observed_at = $6, deleted_at = $7,
        updated_at = CASE WHEN $8 THEN $9 ELSE updated_at END
    WHERE id = $1";
const WRITE_ORDER: &str = "
    UPDATE supplier_orders SET status = $2, version_at = $3, observed_at = $4,
        status_version_at = $5, status_observed_at = $6, deleted_at = $7,
        updated_at = CASE WHEN $8 THEN $9 ELSE updated_at END,
        actual_delivery = $10, tracking_number = $11
    WHERE id = $1";

/// Every fixed statement of patches that both databases know, by name.
#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("record_patches::LOCK_TRANSACTION", LOCK_TRANSACTION.read),
    ("record_patches::LOCK_RECORD", LOCK_RECORD.read),
    ("record_patches::LOCK_ORDER_BY_NUMBER", LOCK_ORDER_BY_NUMBER.read),
    ("record_patches::LOCK_ORDER_BY_ID", LOCK_ORDER_BY_ID.read),
    ("record_patches::WRITE_TRANSACTION", WRITE_TRANSACTION),
    ("record_patches::WRITE_RECORD", WRITE_RECORD),
    ("record_patches::WRITE_ORDER", WRITE_ORDER),
];

/// Which table a patch is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PatchTable {
    /// `pos_transactions`; its state is the type of the transaction.
    PosTransactions,
    /// A stream of `external_records`.
    ExternalRecords {
        /// Such as `payments`.
        stream: String,
    },
    /// `supplier_orders`.
    SupplierOrders,
}

/// What the vendor calls the record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PatchKey {
    /// The vendor's id.
    ExternalId(String),
    /// The number of a supplier order.
    Number(String),
    /// The number of a supplier order or, if no order has this number, the vendor's id of it.
    Either(String),
}

/// One change of a record's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPatch {
    /// Where the record is.
    pub table: PatchTable,
    /// Which record.
    pub key: PatchKey,
    /// Its new state; of a POS transaction its type, such as `void`.
    pub status: Option<String>,
    /// When a supplier order was delivered.
    pub delivered_at: Option<DateTime<Utc>>,
    /// Where a supplier order can be followed.
    pub tracking_number: Option<String>,
    /// The record is gone.
    pub deleted: bool,
    /// When the vendor changed it, if the vendor tells; else it is newer than what was observed before it.
    pub version_at: Option<DateTime<Utc>>,
    /// When the webhook arrived.
    pub observed_at: DateTime<Utc>,
    /// Overwrites what is newer: an explicit replay.
    pub forced: bool,
}

/// What became of a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patched {
    /// The record has changed.
    Changed,
    /// The record was so already, or is newer.
    Unchanged,
    /// There is no such record yet.
    Missing,
    /// No record can be changed so, and why.
    Refused(String),
}

/// A version, and when it was observed: what decides which of two readings wins.
type Version = (DateTime<Utc>, DateTime<Utc>);

/// Changes a record's state, unless what is there is newer.
///
/// Whatever a database could refuse is refused before it is asked, so the transaction stays usable.
/// Who applies several patches in one transaction sorts them by table and key first: two transactions
/// that lock the same rows in different orders wait for each other.
pub async fn patch(
    tx: &mut Tx,
    system_id: SystemId,
    patch: &RecordPatch,
    clock: &Clock,
) -> Result<Patched, StoreError> {
    let news = match News::check(patch) {
        Ok(news) => news,
        Err(reason) => return Ok(Patched::Refused(reason)),
    };
    let Some(row) = lock_row(tx, system_id, patch).await? else {
        return Ok(Patched::Missing);
    };
    let now = clock.now();
    let next = row.after(&news, now);
    if next == row {
        return Ok(Patched::Unchanged);
    }
    let visible = next.differs_visibly(&row);
    write_row(tx, &patch.table, &next, visible, now).await?;
    Ok(if visible { Patched::Changed } else { Patched::Unchanged })
}

/// What a patch says, checked.
struct News {
    status: Option<String>,
    delivered_at: Option<DateTime<Utc>>,
    tracking_number: Option<String>,
    deleted: bool,
    version_at: Option<DateTime<Utc>>,
    observed_at: DateTime<Utc>,
    forced: bool,
}

impl News {
    fn check(patch: &RecordPatch) -> Result<Self, String> {
        let is_order = patch.table == PatchTable::SupplierOrders;
        match &patch.key {
            PatchKey::Number(_) | PatchKey::Either(_) if !is_order => {
                return Err("only supplier orders are known by a number; expected the vendor's id".into());
            }
            PatchKey::ExternalId(key) | PatchKey::Number(key) | PatchKey::Either(key) => check_id(key)?,
        }
        if let Some(status) = &patch.status {
            match &patch.table {
                PatchTable::PosTransactions => status.parse::<TransactionType>().map(drop),
                PatchTable::SupplierOrders => status.parse::<SupplierOrderStatus>().map(drop),
                PatchTable::ExternalRecords { .. } => Ok(()),
            }
            .map_err(|problem| format!("the status {problem}; check the `values` of its mapping"))?;
        }
        if !is_order && (patch.delivered_at.is_some() || patch.tracking_number.is_some()) {
            return Err(
                "only supplier orders have a delivery and a tracking number; expected a `status`".into()
            );
        }
        let tells_order = patch.delivered_at.is_some() || patch.tracking_number.is_some();
        if patch.status.is_none() && !tells_order && !patch.deleted {
            return Err("the event tells no new state; check the mapping of `status`".into());
        }
        let observed_at = patch.observed_at.trunc_subsecs(3);
        let version_at = patch.version_at.map(|time| check_time("version_at", time)).transpose()?;
        Ok(Self {
            status: patch.status.clone().map(clean),
            delivered_at: patch.delivered_at.map(|time| check_time("delivered_at", time)).transpose()?,
            tracking_number: patch.tracking_number.clone().map(clean),
            deleted: patch.deleted,
            version_at,
            observed_at,
            forced: patch.forced,
        })
    }

    /// Its version, beside that of what it changes. Without a time of the vendor's it is at least as new as
    /// whatever was observed before it was heard; for the rest the time of hearing has to do.
    fn version_over(&self, there: Version) -> Version {
        let version_at = match self.version_at {
            Some(told) => told,
            None if self.observed_at >= there.1 => self.observed_at.max(there.0),
            None => self.observed_at,
        };
        (version_at, self.observed_at)
    }
}

/// What of a row a patch can change, and the versions that say whether it may.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
struct Standing {
    id: Uuid,
    status: Option<String>,
    #[sqlx(default)]
    actual_delivery: Option<DateTime<Utc>>,
    #[sqlx(default)]
    tracking_number: Option<String>,
    version_at: DateTime<Utc>,
    observed_at: DateTime<Utc>,
    status_version_at: Option<DateTime<Utc>>,
    status_observed_at: Option<DateTime<Utc>>,
    deleted_at: Option<DateTime<Utc>>,
}

impl Standing {
    /// The row as it is to be once it has heard the news.
    fn after(&self, news: &News, now: DateTime<Utc>) -> Self {
        let mut next = self.clone();
        let record = (self.version_at, self.observed_at);
        // No patch so far sorts before every version, as `None` does.
        let state = self.status_version_at.zip(self.status_observed_at);
        let of_record = news.version_over(record);
        let of_state = state.map_or(of_record, |state| of_record.max(news.version_over(state)));
        if news.forced || (of_record >= record && Some(of_state) >= state) {
            // Only a status is given a version: a tracking number must not keep out the status of an
            // older record that arrives later.
            if let Some(status) = &news.status {
                next.status = Some(status.clone());
                next.status_version_at = Some(of_state.0);
                next.status_observed_at = Some(of_state.1);
            }
            next.actual_delivery = news.delivered_at.or(next.actual_delivery);
            next.tracking_number = news.tracking_number.clone().or(next.tracking_number);
        }
        if news.deleted && (news.forced || of_record >= record) {
            (next.version_at, next.observed_at) = of_record;
            next.deleted_at = next.deleted_at.or(Some(now));
        }
        next
    }

    /// Whether anybody but this module would see a difference.
    fn differs_visibly(&self, other: &Self) -> bool {
        (&self.status, self.actual_delivery, &self.tracking_number, self.deleted_at)
            != (&other.status, other.actual_delivery, &other.tracking_number, other.deleted_at)
    }
}

async fn lock_row(
    tx: &mut Tx,
    system_id: SystemId,
    patch: &RecordPatch,
) -> Result<Option<Standing>, StoreError> {
    match (&patch.table, &patch.key) {
        (PatchTable::PosTransactions, PatchKey::ExternalId(key)) => {
            lock(tx, &LOCK_TRANSACTION, system_id, key, None).await
        }
        (PatchTable::ExternalRecords { stream }, PatchKey::ExternalId(key)) => {
            lock(tx, &LOCK_RECORD, system_id, key, Some(stream)).await
        }
        (PatchTable::SupplierOrders, PatchKey::ExternalId(key)) => {
            lock(tx, &LOCK_ORDER_BY_ID, system_id, key, None).await
        }
        (PatchTable::SupplierOrders, PatchKey::Number(key)) => {
            lock(tx, &LOCK_ORDER_BY_NUMBER, system_id, key, None).await
        }
        (PatchTable::SupplierOrders, PatchKey::Either(key)) => {
            match lock(tx, &LOCK_ORDER_BY_NUMBER, system_id, key, None).await? {
                None => lock(tx, &LOCK_ORDER_BY_ID, system_id, key, None).await,
                found => Ok(found),
            }
        }
        // Refused before.
        (_, PatchKey::Number(_) | PatchKey::Either(_)) => Ok(None),
    }
}

async fn lock(
    tx: &mut Tx,
    statement: &Lock,
    system_id: SystemId,
    key: &str,
    stream: Option<&str>,
) -> Result<Option<Standing>, StoreError> {
    macro_rules! fetch {
        ($sql:expr, $transaction:expr) => {{
            let mut query = sqlx::query_as($sql).bind(system_id).bind(clean(key.to_owned()));
            if let Some(stream) = stream {
                query = query.bind(clean(stream.to_owned()));
            }
            query.fetch_optional(&mut **$transaction).await?
        }};
    }
    Ok(match tx {
        // Otherwise another transaction could change the row between our reading and our writing.
        Tx::Postgres(transaction) => fetch!(statement.read_and_lock, transaction),
        // SQLite has no row locks and needs none: this transaction holds the only write lock.
        Tx::Sqlite(transaction) => fetch!(statement.read, transaction),
    })
}

async fn write_row(
    tx: &mut Tx,
    table: &PatchTable,
    row: &Standing,
    visible: bool,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let (statement, is_order) = match table {
        PatchTable::PosTransactions => (WRITE_TRANSACTION, false),
        PatchTable::ExternalRecords { .. } => (WRITE_RECORD, false),
        PatchTable::SupplierOrders => (WRITE_ORDER, true),
    };
    Ok(on_tx!(tx, |ex| {
        let mut query = sqlx::query(statement)
            .bind(row.id)
            .bind(row.status.as_deref())
            .bind(row.version_at)
            .bind(row.observed_at)
            .bind(row.status_version_at)
            .bind(row.status_observed_at)
            .bind(row.deleted_at)
            .bind(visible)
            .bind(now);
        if is_order {
            query = query.bind(row.actual_delivery).bind(row.tracking_number.as_deref());
        }
        query.execute(ex).await.map(drop)
    })?)
}
