//! How vendors' records are written, whatever their table: where a batch comes from, which version of
//! a record wins, and how one bad record is kept from taking its page with it.
//!
//! ```text
//! page ─▶ check and clean each record ─▶ newest version of each key, sorted by key ─▶ chunks ─▶ upsert
//!              │ impossible                                                     refused │
//!              └──────────────▶ RefusedRecord ◀── the culprit alone ◀── halve and retry ┘
//! ```
//!
//! Sorted, because two transactions that lock the same rows in different orders wait for each other
//! for ever. De-duplicated, because one statement cannot write a row twice.
//!
//! A row is overwritten when the record's (version, observation) is not older than its own; a later
//! observation of the same version wins. Equal content changes nothing, but a newer version of equal
//! content is remembered (`raise`): otherwise a slow poll could still bring back what
//! came in between.
//!
//! A state that a webhook told alone ([`crate::record_patches`]) has a version of its own, which is
//! compared with the record's in the same way: an older record overwrites everything but the state, a
//! newer one everything. Content is compared with the last full record's, not with what a patch has
//! made of it; so the record polled again changes nothing, and only a *newer* version of equal content
//! puts back the state, or raises what a patch has buried.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, SubsecRound, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::StoreError;
use crate::ids::{RunId, SystemId};
use crate::on_tx;
use crate::pool::Tx;
use crate::text_enum::SyncStatus;

/// The longest id of a record: `PostgreSQL` cannot index texts of more than about 2,700 bytes, and
/// nobody's order numbers come near this.
pub const EXTERNAL_ID_BYTES_MAX: usize = 512;

/// Rows per statement: `SQLite` takes 32,766 values a statement and our widest row has 29.
pub(crate) const CHUNK_ROWS: usize = 1_000;

/// Where a batch of records comes from and how it is to be written.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Whose records they are.
    pub system_id: SystemId,
    /// Which store a vendor's shop is.
    pub stores: &'a StoreMap,
    /// The run that fetched them.
    pub sync_log_id: Option<RunId>,
    /// When the vendor was asked, or when the webhook arrived: the version of a record that has none.
    pub observed_at: DateTime<Utc>,
    /// Gives ids and the time of writing.
    pub clock: &'a Clock,
    /// Overwrites whatever is there, even what is newer: an explicit replay.
    pub force: bool,
}

/// Which store a vendor's shop is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreMap {
    /// Our store id by the vendor's shop id.
    pub by_shop: BTreeMap<String, String>,
    /// The store of a record whose shop is unknown or not told: the system's own, if it has one.
    pub default: Option<String>,
}

impl StoreMap {
    /// The store of a record that the vendor says belongs to `shop`.
    #[must_use]
    pub fn store_of(&self, shop: Option<&str>) -> Option<&str> {
        shop.and_then(|shop| self.by_shop.get(shop)).or(self.default.as_ref()).map(String::as_str)
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upserted {
    /// Rows that are new or have new content.
    pub changed: u64,
    /// Records that were there already, were older than what was there, or came twice.
    pub unchanged: u64,
}

impl Upserted {
    /// Records that are stored, in this version or a newer one.
    #[must_use]
    pub const fn stored(self) -> u64 {
        self.changed + self.unchanged
    }
}

/// A record that cannot be stored, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Its stream; empty for a table that has none.
    pub stream: String,
    /// The vendor's id of it, or `hash:` and the SHA-256 of the record where that id cannot be kept.
    pub external_id: String,
    /// Why, for a person.
    pub reason: String,
    /// The record as the vendor sent it.
    pub raw: String,
}

/// What tells one row of a table from another, within a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key<'a> {
    pub(crate) stream: &'a str,
    pub(crate) external_id: &'a str,
}

/// What tells one record of a system from another: its stream, empty for a table that has none, and the
/// vendor's id of it.
pub type RecordKey = (String, String);

/// What a statement says of a row that it wrote: its stream, the vendor's id, and our own.
pub(crate) type ChangedRow = (String, String, Uuid);

/// A row that is there, as [`RecordTable::there`] finds it: its key, our id, and when it took place.
pub(crate) type RowThere = (String, String, Uuid, Option<DateTime<Utc>>);

/// A row as it is about to be written.
pub(crate) trait NewRow: Send + Sync {
    /// Our id, if the row is new.
    fn id(&self) -> Uuid;
    fn key(&self) -> Key<'_>;
    /// What decides which of two readings of a record wins: its version, then its observation.
    fn version(&self) -> (DateTime<Utc>, DateTime<Utc>);
    fn raw(&self) -> &str;
}

/// What differs between the tables of vendor records.
pub(crate) trait RecordTable {
    type Row: NewRow;

    /// Inserts or overwrites rows that are sorted by key and have different keys; says which rows changed.
    fn write(
        tx: &mut Tx,
        batch: &Batch<'_>,
        rows: &[Self::Row],
    ) -> impl Future<Output = Result<Vec<ChangedRow>, StoreError>> + Send;

    /// Notes the newer versions of rows whose content is the same.
    fn raise(
        tx: &mut Tx,
        batch: &Batch<'_>,
        rows: &[Self::Row],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The rows of a system that are there for some keys.
    fn there(
        tx: &mut Tx,
        system_id: SystemId,
        keys: &[RecordKey],
    ) -> impl Future<Output = Result<Vec<RowThere>, StoreError>> + Send;
}

/// Writes rows; one that the database refuses fails them all.
pub(crate) async fn upsert<T: RecordTable>(
    tx: &mut Tx,
    batch: &Batch<'_>,
    rows: Vec<T::Row>,
) -> Result<Upserted, StoreError> {
    let given = rows.len() as u64;
    let changed = upsert_telling::<T>(tx, batch, rows).await?.len() as u64;
    Ok(Upserted { changed, unchanged: given - changed })
}

/// The same, and tells which rows changed.
pub(crate) async fn upsert_telling<T: RecordTable>(
    tx: &mut Tx,
    batch: &Batch<'_>,
    rows: Vec<T::Row>,
) -> Result<Vec<RecordKey>, StoreError> {
    let rows = newest_by_key(rows);
    let mut changed = Vec::with_capacity(rows.len());
    for chunk in rows.chunks(CHUNK_ROWS) {
        let written = write_chunk::<T>(tx, batch, chunk).await?;
        changed.extend(written.into_iter().map(|(stream, external_id, _)| (stream, external_id)));
    }
    Ok(changed)
}

/// Writes rows; those that the database refuses are given back, and the others are written.
pub(crate) async fn upsert_isolating<T: RecordTable>(
    tx: &mut Tx,
    batch: &Batch<'_>,
    rows: Vec<T::Row>,
) -> Result<(Upserted, Vec<RefusedRecord>), StoreError> {
    let given = rows.len() as u64;
    let (changed, refused) = write_isolating::<T>(tx, batch, &newest_by_key(rows)).await?;
    let changed = changed.len() as u64;
    let unchanged = given - changed - refused.len() as u64;
    Ok((Upserted { changed, unchanged }, refused))
}

/// Writes rows that are sorted and have different keys; says which changed, and which were refused.
pub(crate) async fn write_isolating<T: RecordTable>(
    tx: &mut Tx,
    batch: &Batch<'_>,
    rows: &[T::Row],
) -> Result<(Vec<ChangedRow>, Vec<RefusedRecord>), StoreError> {
    let mut changed = Vec::with_capacity(rows.len());
    let mut refused = Vec::new();
    // A stack whose top is the lowest keys: rows are still locked in the order of their keys.
    let mut waiting: Vec<&[T::Row]> = rows.chunks(CHUNK_ROWS).rev().collect();
    while let Some(part) = waiting.pop() {
        savepoint(tx, SAVE).await?;
        match write_chunk::<T>(tx, batch, part).await {
            Ok(written) => {
                savepoint(tx, RELEASE).await?;
                changed.extend(written);
            }
            Err(StoreError::Refused(error)) => {
                savepoint(tx, ROLL_BACK).await?;
                savepoint(tx, RELEASE).await?;
                if let [row] = part {
                    refused.push(refuse(row.key(), reason_of(&error), row.raw()));
                } else {
                    let (low, high) = part.split_at(part.len() / 2);
                    waiting.push(high);
                    waiting.push(low);
                }
            }
            Err(other) => return Err(other),
        }
    }
    Ok((changed, refused))
}

async fn write_chunk<T: RecordTable>(
    tx: &mut Tx,
    batch: &Batch<'_>,
    rows: &[T::Row],
) -> Result<Vec<ChangedRow>, StoreError> {
    let changed = T::write(tx, batch, rows).await?;
    if changed.len() < rows.len() {
        T::raise(tx, batch, rows).await?;
    }
    Ok(changed)
}

/// The newest (version, observation) of every key, in the order of the keys; of equal ones the last
/// given.
pub(crate) fn newest_by_key<R: NewRow>(mut rows: Vec<R>) -> Vec<R> {
    // Stable, so rows of equal key and version stay in the order they were given.
    rows.sort_by(|a, b| a.key().cmp(&b.key()).then(a.version().cmp(&b.version())));
    rows.reverse();
    rows.dedup_by(|later, kept| later.key() == kept.key());
    rows.reverse();
    rows
}

const SAVE: &str = "SAVEPOINT records";
const ROLL_BACK: &str = "ROLLBACK TO SAVEPOINT records";
const RELEASE: &str = "RELEASE SAVEPOINT records";

async fn savepoint(tx: &mut Tx, statement: &'static str) -> Result<(), StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::raw_sql(statement).execute(ex).await.map(drop))?)
}

/// What the database said, without the driver's words around it.
fn reason_of(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => format!("the database refused it: {}", database.message()),
        other => format!("the database refused it: {other}"),
    }
}

/// A record given back; an id that cannot be kept is replaced by a hash of the record.
pub(crate) fn refuse(key: Key<'_>, reason: String, raw: &str) -> RefusedRecord {
    let external_id = if check_id(key.external_id).is_ok() {
        clean(key.external_id.to_owned())
    } else {
        format!("hash:{}", hex::encode(Sha256::digest(raw.as_bytes())))
    };
    RefusedRecord { stream: key.stream.to_owned(), external_id, reason, raw: raw.to_owned() }
}

/// Whether an id can be a key.
pub(crate) fn check_id(external_id: &str) -> Result<(), String> {
    if external_id.is_empty() {
        return Err(
            "the record has no id; expected the vendor's id, check the mapping of `external_id`".into()
        );
    }
    if external_id.len() > EXTERNAL_ID_BYTES_MAX {
        return Err(format!(
            "the record's id is {} bytes long; expected at most {EXTERNAL_ID_BYTES_MAX}, check the mapping of `external_id`",
            external_id.len()
        ));
    }
    Ok(())
}

/// A time cut to milliseconds, if both databases can keep and sort it: `SQLite` sorts times as text,
/// which holds for years of four digits.
pub(crate) fn check_time(name: &str, time: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    if (1..=9999).contains(&time.year()) {
        Ok(time.trunc_subsecs(3))
    } else {
        Err(format!(
            "`{name}` is in the year {}; expected 1 to 9999, check the time form in the mapping",
            time.year()
        ))
    }
}

/// Records in one state of synchronisation, as the index of all that are not in step has it: the value written
/// out, and beside it the index's own condition, which `SQLite` does not see in the value.
pub(crate) const fn unsynced(status: SyncStatus) -> &'static str {
    match status {
        SyncStatus::Pending => " AND sync_status = 'pending' AND sync_status <> 'success'",
        SyncStatus::Syncing => " AND sync_status = 'syncing' AND sync_status <> 'success'",
        SyncStatus::Success => " AND sync_status = 'success'",
        SyncStatus::Partial => " AND sync_status = 'partial' AND sync_status <> 'success'",
        SyncStatus::Failed => " AND sync_status = 'failed' AND sync_status <> 'success'",
        SyncStatus::Cancelled => " AND sync_status = 'cancelled' AND sync_status <> 'success'",
    }
}

/// Text that both databases take: `PostgreSQL` refuses U+0000.
pub(crate) fn clean(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// The same for what may be absent.
pub(crate) fn clean_option(text: Option<String>) -> Option<String> {
    text.map(clean)
}

/// SHA-256 over the content of a row: equal means that nothing would change.
pub(crate) struct ContentHash(Sha256);

impl ContentHash {
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    /// Adds a text; its length goes first, so that `ab` and `c` are not `a` and `bc`.
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
        self
    }

    /// Adds a text that may be absent.
    pub(crate) fn option(mut self, text: Option<&str>) -> Self {
        self.0.update([u8::from(text.is_some())]);
        self.text(text.unwrap_or_default())
    }

    /// Adds a number.
    pub(crate) fn number(mut self, number: i64) -> Self {
        self.0.update(number.to_be_bytes());
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Row(&'static str, (i64, i64), &'static str);

    impl NewRow for Row {
        fn id(&self) -> Uuid {
            Uuid::nil()
        }
        fn key(&self) -> Key<'_> {
            Key { stream: "", external_id: self.0 }
        }
        fn version(&self) -> (DateTime<Utc>, DateTime<Utc>) {
            let time = |millis| DateTime::from_timestamp_millis(millis).unwrap();
            (time(self.1.0), time(self.1.1))
        }
        fn raw(&self) -> &str {
            self.2
        }
    }

    #[test]
    fn a_batch_is_sorted_and_keeps_the_newest_of_each_key() {
        let rows = vec![
            Row("b", (1, 9), "old"),
            Row("a", (5, 1), "first of two alike"),
            Row("b", (3, 1), "newest"),
            Row("b", (2, 9), "late but older"),
            Row("c", (7, 2), "the same version, observed later"),
            Row("a", (5, 1), "last of two alike"),
            Row("c", (7, 1), "the same version, observed earlier"),
        ];
        let newest = [
            Row("a", (5, 1), "last of two alike"),
            Row("b", (3, 1), "newest"),
            Row("c", (7, 2), "the same version, observed later"),
        ];
        assert_eq!(newest_by_key(rows), newest);
    }

    #[test]
    fn a_shop_is_a_store_by_the_map_or_by_default() {
        let by_shop = BTreeMap::from([("S1".to_owned(), "store-1".to_owned())]);
        let with_default = StoreMap { by_shop: by_shop.clone(), default: Some("store-0".to_owned()) };
        assert_eq!(with_default.store_of(Some("S1")), Some("store-1"));
        assert_eq!(with_default.store_of(Some("S9")), Some("store-0"));
        assert_eq!(with_default.store_of(None), Some("store-0"));
        let without = StoreMap { by_shop, default: None };
        assert_eq!(without.store_of(Some("S9")), None);
    }

    #[test]
    fn a_content_hash_tells_fields_apart() {
        let hash = |a: Option<&str>, b: Option<&str>| ContentHash::new().option(a).option(b).finish();
        assert_eq!(hash(Some("ab"), Some("c")), hash(Some("ab"), Some("c")));
        assert_ne!(hash(Some("ab"), Some("c")), hash(Some("a"), Some("bc")));
        assert_ne!(hash(Some(""), None), hash(None, Some("")));
    }

    #[test]
    fn ids_and_times_that_cannot_be_kept_are_named() {
        assert!(check_id("").unwrap_err().contains("has no id"));
        assert!(check_id(&"x".repeat(513)).unwrap_err().contains("513 bytes"));
        assert_eq!(check_id(&"x".repeat(512)), Ok(()));
        let far = DateTime::from_timestamp(300_000_000_000, 0).unwrap();
        assert!(
            check_time("occurred_at", far).unwrap_err().starts_with("`occurred_at` is in the year 11476")
        );
        let fine = DateTime::from_timestamp_nanos(1_999_999);
        assert_eq!(check_time("occurred_at", fine), Ok(DateTime::from_timestamp_nanos(1_000_000)));
        assert_eq!(clean("a\0b".into()), "a\u{fffd}b");
    }

    #[test]
    fn a_refused_record_has_an_id_that_can_be_kept() {
        let long = "x".repeat(600);
        let refused = refuse(Key { stream: "orders", external_id: &long }, "why".into(), "{}");
        assert_eq!(
            refused.external_id,
            "hash:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
        assert_eq!(refuse(Key { stream: "", external_id: "7" }, "why".into(), "{}").external_id, "7");
    }
}
