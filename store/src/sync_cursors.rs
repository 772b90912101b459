//! The table `sync_cursors`: how far each stream of a system has been read to the end of a window.
//! A pull starts its next window here; a backfill never touches it.

use chrono::{DateTime, Utc};

use crate::clock::Clock;
use crate::error::StoreError;
use crate::ids::{RunId, SystemId};
use crate::pool::{Store, Tx};
use crate::{on_read, on_tx};

/// The most cursors that a list holds; a system has as many as streams and partitions.
const LIST_MAX: i64 = 500;

pub(crate) const FIND: &str =
    "SELECT * FROM sync_cursors WHERE system_id = $1 AND stream = $2 AND partition = $3";
pub(crate) const LIST_OF_SYSTEM: &str =
    "SELECT * FROM sync_cursors WHERE system_id = $1 ORDER BY stream, partition LIMIT $2";
pub(crate) const ADVANCE: &str = "
    INSERT INTO sync_cursors (system_id, stream, partition, watermark, value, sync_log_id, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (system_id, stream, partition) DO UPDATE SET
        watermark = excluded.watermark, value = excluded.value, sync_log_id = excluded.sync_log_id,
        updated_at = excluded.updated_at
    WHERE $8 OR sync_cursors.watermark IS NULL OR excluded.watermark >= sync_cursors.watermark";
pub(crate) const DELETE_OF_SYSTEM: &str = "DELETE FROM sync_cursors WHERE system_id = $1";
pub(crate) const DELETE_OF_STREAM: &str = "DELETE FROM sync_cursors WHERE system_id = $1 AND stream = $2";

/// Every fixed statement of this table, by name.
#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("sync_cursors::FIND", FIND),
    ("sync_cursors::LIST_OF_SYSTEM", LIST_OF_SYSTEM),
    ("sync_cursors::ADVANCE", ADVANCE),
    ("sync_cursors::DELETE_OF_SYSTEM", DELETE_OF_SYSTEM),
    ("sync_cursors::DELETE_OF_STREAM", DELETE_OF_STREAM),
];

/// A row of `sync_cursors`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SyncCursor {
    /// Whose stream.
    pub system_id: SystemId,
    /// Which stream.
    pub stream: String,
    /// Which part of it; empty where a stream has one part.
    pub partition: String,
    /// Everything that the vendor changed before this is stored.
    pub watermark: Option<DateTime<Utc>>,
    /// A vendor's own mark, where it has no times.
    pub value: Option<String>,
    /// The run that moved it last.
    pub sync_log_id: Option<RunId>,
    /// When it was moved last.
    pub updated_at: DateTime<Utc>,
}

/// Where a cursor is moved to.
#[derive(Debug, Clone, Copy)]
pub struct Advance<'a> {
    /// Whose stream.
    pub system_id: SystemId,
    /// Which stream.
    pub stream: &'a str,
    /// Which part of it; empty where a stream has one part.
    pub partition: &'a str,
    /// Everything that the vendor changed before this is stored.
    pub watermark: Option<DateTime<Utc>>,
    /// A vendor's own mark, where it has no times.
    pub value: Option<&'a str>,
    /// The run that moves it.
    pub sync_log_id: Option<RunId>,
    /// Moves it even backwards.
    pub force: bool,
}

/// The cursor of a stream, if a window of it was ever read to its end.
pub async fn find(
    store: &Store,
    system: SystemId,
    stream: &str,
    partition: &str,
) -> Result<Option<SyncCursor>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND)
        .bind(system)
        .bind(stream)
        .bind(partition)
        .fetch_optional(ex)
        .await)?)
}

/// The cursors of a system.
pub async fn list_of_system(store: &Store, system: SystemId) -> Result<Vec<SyncCursor>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(LIST_OF_SYSTEM).bind(system).bind(LIST_MAX).fetch_all(ex).await)?)
}

/// Moves a cursor, never backwards unless forced; says whether it moved.
pub async fn advance(tx: &mut Tx, clock: &Clock, to: Advance<'_>) -> Result<bool, StoreError> {
    let moved = on_tx!(tx, |ex| sqlx::query(ADVANCE)
        .bind(to.system_id)
        .bind(to.stream)
        .bind(to.partition)
        .bind(to.watermark)
        .bind(to.value)
        .bind(to.sync_log_id)
        .bind(clock.now())
        .bind(to.force)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(moved == 1)
}

/// Forgets the cursors of a stream, or of all streams, so that everything is read anew.
pub async fn delete(tx: &mut Tx, system: SystemId, stream: Option<&str>) -> Result<u64, StoreError> {
    Ok(match stream {
        None => on_tx!(tx, |ex| sqlx::query(DELETE_OF_SYSTEM)
            .bind(system)
            .execute(ex)
            .await
            .map(|done| done.rows_affected())),
        Some(stream) => on_tx!(tx, |ex| sqlx::query(DELETE_OF_STREAM)
            .bind(system)
            .bind(stream)
            .execute(ex)
            .await
            .map(|done| done.rows_affected())),
    }?)
}
