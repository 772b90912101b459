//! The table `sync_failures`: records that could not be mapped or stored.
//!
//! They are kept with their reason and their raw text, counted in their run, and resolved when a later
//! version succeeds, or they themselves do when they are tried again; none is ever dropped. A record that
//! fails again is the same open failure, once more.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::StoreError;
use crate::ids::{RunId, SystemId};
use crate::pool::{Store, Tx};
use crate::record_batches::{CHUNK_ROWS, Key, RefusedRecord, clean, refuse};
use crate::{on_read, on_tx, on_write};

mod again;
mod list;

pub use again::{Wanted, list_to_try, mend, restate};
pub use list::{Filter, find, list};

/// The most failures that one list holds: a page of 500, and the one more that tells whether there is a
/// next page.
pub const PAGE_MAX: u32 = 501;

/// Reasons are for people: what is longer than this many characters is cut.
const REASON_CHARS_MAX: usize = 2_000;

crate::text_enum! {
    /// Where a record failed.
    pub enum FailureStage {
        /// The manifest could not make a record of it.
        Mapping = "mapping",
        /// The database did not take it.
        Storing = "storing",
    }
}

const HEAD: &str = "
    INSERT INTO sync_failures (id, system_id, sync_log_id, stream, external_id, stage, reason, raw, occurrences,
        created_at, updated_at) ";
const TAIL: &str = "
    ON CONFLICT (system_id, stream, external_id) WHERE resolved_at IS NULL DO UPDATE SET
        sync_log_id = excluded.sync_log_id, stage = excluded.stage, reason = excluded.reason, raw = excluded.raw,
        occurrences = sync_failures.occurrences + 1, updated_at = excluded.updated_at";

pub(crate) const ANY_OPEN: &str = "
    SELECT EXISTS (SELECT 1 FROM sync_failures WHERE system_id = $1 AND stream = $2 AND resolved_at IS NULL)";
const RESOLVE_HEAD: &str = "UPDATE sync_failures SET resolved_at = ";
pub(crate) const LIST_OF_RUN: &str =
    "SELECT * FROM sync_failures WHERE sync_log_id = $1 AND id > $2 ORDER BY id LIMIT $3";
pub(crate) const LIST_OPEN: &str = "
    SELECT * FROM sync_failures
    WHERE system_id = $1 AND stream = $2 AND resolved_at IS NULL AND external_id > $3
    ORDER BY external_id LIMIT $4";
pub(crate) const COUNT_OF_RUN: &str = "SELECT COUNT(*) FROM sync_failures WHERE sync_log_id = $1";
pub(crate) const COUNT_OPEN: &str =
    "SELECT COUNT(*) FROM sync_failures WHERE system_id = $1 AND resolved_at IS NULL";
pub(crate) const PURGE: &str = "
    DELETE FROM sync_failures WHERE id IN
        (SELECT id FROM sync_failures WHERE id < $3 AND resolved_at < $1 ORDER BY id LIMIT $2)";

/// Every fixed statement of this table, by name.
#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("sync_failures::ANY_OPEN", ANY_OPEN),
    ("sync_failures::FIND", list::FIND),
    ("sync_failures::MEND", again::MEND),
    ("sync_failures::RESTATE", again::RESTATE),
    ("sync_failures::LIST_OF_RUN", LIST_OF_RUN),
    ("sync_failures::LIST_OPEN", LIST_OPEN),
    ("sync_failures::COUNT_OF_RUN", COUNT_OF_RUN),
    ("sync_failures::COUNT_OPEN", COUNT_OPEN),
    ("sync_failures::PURGE", PURGE),
];

/// A row of `sync_failures`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SyncFailure {
    /// Its id.
    pub id: Uuid,
    /// Whose record.
    pub system_id: SystemId,
    /// The run that brought it last; trying it again leaves that as it is.
    pub sync_log_id: Option<RunId>,
    /// Of which stream.
    pub stream: String,
    /// The vendor's id of the record, or `hash:` and the SHA-256 of the record when it has none.
    pub external_id: String,
    /// Where it failed.
    pub stage: FailureStage,
    /// Why, for a person.
    pub reason: String,
    /// The record as the vendor sent it.
    pub raw: String,
    /// How many times it failed.
    pub occurrences: i64,
    /// When it failed first.
    pub created_at: DateTime<Utc>,
    /// When the vendor told it last, or it was resolved.
    pub updated_at: DateTime<Utc>,
    /// When a later version of it succeeded.
    pub resolved_at: Option<DateTime<Utc>>,
}

/// A record that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFailure {
    /// The vendor's id of the record, or `hash:` and the SHA-256 of the record when it has none.
    pub external_id: String,
    /// Where it failed.
    pub stage: FailureStage,
    /// Why, for a person.
    pub reason: String,
    /// The record as the vendor sent it.
    pub raw: String,
}

impl From<RefusedRecord> for NewFailure {
    fn from(refused: RefusedRecord) -> Self {
        Self {
            external_id: refused.external_id,
            stage: FailureStage::Storing,
            reason: refused.reason,
            raw: refused.raw,
        }
    }
}

/// Whose records failed, and in which run.
#[derive(Debug, Clone, Copy)]
pub struct Failing<'a> {
    /// Whose records.
    pub system_id: SystemId,
    /// Of which stream.
    pub stream: &'a str,
    /// In which run.
    pub sync_log_id: Option<RunId>,
}

/// Keeps failures: a record that has an open one fails once more, the others for the first time. Of
/// two failures of one record the last is kept.
pub async fn record_batch(
    tx: &mut Tx,
    clock: &Clock,
    of: Failing<'_>,
    failures: Vec<NewFailure>,
) -> Result<(), StoreError> {
    let stream = clean(of.stream.to_owned());
    let by_id: BTreeMap<String, NewFailure> =
        failures.into_iter().map(|failure| (storable_id(&stream, &failure), failure)).collect();
    let rows: Vec<(String, NewFailure)> = by_id.into_iter().collect();
    let now = clock.now();
    for chunk in rows.chunks(CHUNK_ROWS) {
        on_tx!(tx, |ex| {
            let mut query = QueryBuilder::new(HEAD);
            query.push_values(chunk, |mut values, (external_id, failure)| {
                values
                    .push_bind(clock.new_id())
                    .push_bind(of.system_id)
                    .push_bind(of.sync_log_id)
                    .push_bind(stream.as_str())
                    .push_bind(external_id.as_str())
                    .push_bind(failure.stage)
                    .push_bind(shortened(&failure.reason))
                    .push_bind(clean(failure.raw.clone()))
                    .push_bind(1_i64)
                    .push_bind(now)
                    .push_bind(now);
            });
            query.push(TAIL);
            query.build().persistent(false).execute(ex).await.map(drop)
        })?;
    }
    Ok(())
}

/// Notes that records were stored after all; says how many failures that ended. A stream without open
/// failures costs one look at an index.
pub async fn resolve(
    tx: &mut Tx,
    clock: &Clock,
    system: SystemId,
    stream: &str,
    external_ids: &[&str],
) -> Result<u64, StoreError> {
    let stream = clean(stream.to_owned());
    let any_open: bool =
        on_tx!(tx, |ex| sqlx::query_scalar(ANY_OPEN).bind(system).bind(stream.as_str()).fetch_one(ex).await)?;
    if !any_open {
        return Ok(0);
    }
    let now = clock.now();
    let mut resolved = 0;
    for chunk in external_ids.chunks(CHUNK_ROWS) {
        resolved += on_tx!(tx, |ex| {
            let mut query = QueryBuilder::new(RESOLVE_HEAD);
            query.push_bind(now).push(", updated_at = ").push_bind(now);
            query.push(" WHERE resolved_at IS NULL AND system_id = ").push_bind(system);
            query.push(" AND stream = ").push_bind(stream.as_str()).push(" AND external_id IN (");
            let mut ids = query.separated(", ");
            for external_id in chunk {
                ids.push_bind(clean((*external_id).to_owned()));
            }
            query.push(")");
            query.build().persistent(false).execute(ex).await.map(|done| done.rows_affected())
        })?;
    }
    Ok(resolved)
}

/// The failures of a run, oldest first, those after `after`, at most [`PAGE_MAX`].
pub async fn list_of_run(
    store: &Store,
    run: RunId,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Vec<SyncFailure>, StoreError> {
    let limit = i64::from(limit.min(PAGE_MAX));
    Ok(on_read!(store, |ex| sqlx::query_as(LIST_OF_RUN)
        .bind(run)
        .bind(after.unwrap_or(Uuid::nil()))
        .bind(limit)
        .fetch_all(ex)
        .await)?)
}

/// The open failures of a stream by the record's id, those after `after`, at most [`PAGE_MAX`].
pub async fn list_open(
    store: &Store,
    system: SystemId,
    stream: &str,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<SyncFailure>, StoreError> {
    let limit = i64::from(limit.min(PAGE_MAX));
    Ok(on_read!(store, |ex| sqlx::query_as(LIST_OPEN)
        .bind(system)
        .bind(stream)
        .bind(after.unwrap_or_default())
        .bind(limit)
        .fetch_all(ex)
        .await)?)
}

/// How many records failed in a run and in no later one.
pub async fn count_of_run(store: &Store, run: RunId) -> Result<i64, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_scalar(COUNT_OF_RUN).bind(run).fetch_one(ex).await)?)
}

/// How many failures of a system are open.
pub async fn count_open(store: &Store, system: SystemId) -> Result<i64, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_scalar(COUNT_OPEN).bind(system).fetch_one(ex).await)?)
}

/// Removes failures that were resolved before a time, at most `limit`; open ones stay for ever. Says how
/// many.
pub async fn purge(store: &Store, before: DateTime<Utc>, limit: i64) -> Result<u64, StoreError> {
    Ok(on_write!(store, |ex| sqlx::query(PURGE)
        .bind(before)
        .bind(limit)
        // What was resolved before a time was made before it.
        .bind(crate::ids::beyond(before))
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}

/// An id that can be a key: what cannot is replaced by a hash of the record.
fn storable_id(stream: &str, failure: &NewFailure) -> String {
    let key = Key { stream, external_id: &failure.external_id };
    refuse(key, String::new(), &failure.raw).external_id
}

fn shortened(reason: &str) -> String {
    clean(reason.chars().take(REASON_CHARS_MAX).collect())
}
