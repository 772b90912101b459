//! `events`: what live clients hear about runs and systems, written with its cause and polled by id.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::error::StoreError;
use crate::ids::{RunId, SystemId};
use crate::pool::{Store, Tx};
use crate::{on_read, on_tx, on_write};

/// A row of `events`.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Event {
    /// Version 7: events sort by creation.
    pub id: Uuid,
    /// `run.ended`, `system.changed`, ….
    pub kind: String,
    /// The system it is about.
    pub system_id: Option<SystemId>,
    /// The store of that system, for the listener's scope.
    pub store_id: Option<String>,
    /// The run it is about.
    pub run_id: Option<RunId>,
    /// The rest (a JSON object).
    pub data: String,
    /// When.
    pub created_at: DateTime<Utc>,
}

const INSERT: &str = "INSERT INTO events (id, kind, system_id, store_id, run_id, data, created_at) \
    VALUES ($1, $2, $3, (SELECT store_id FROM external_systems WHERE id = $3), $4, $5, $6)";

/// Writes an event in its cause's transaction.
pub async fn insert(
    tx: &mut Tx,
    id: Uuid,
    kind: &str,
    system: Option<SystemId>,
    run: Option<RunId>,
    data: &str,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    on_tx!(tx, |ex| sqlx::query(INSERT)
        .bind(id)
        .bind(kind.to_owned())
        .bind(system)
        .bind(run)
        .bind(data.to_owned())
        .bind(now)
        .execute(ex)
        .await
        .map(drop))?;
    Ok(())
}

const LIST_AFTER: &str = "SELECT * FROM events WHERE id > $1 ORDER BY id LIMIT $2";

/// Events after an id, oldest first.
pub async fn list_after(store: &Store, after: Uuid, limit: i64) -> Result<Vec<Event>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(LIST_AFTER).bind(after).bind(limit).fetch_all(ex).await)?)
}

const PURGE: &str = "DELETE FROM events WHERE id IN \
    (SELECT id FROM events WHERE created_at < $1 ORDER BY created_at LIMIT $2)";

/// Deletes events older than a time; how many.
pub async fn purge(store: &Store, before: DateTime<Utc>, limit: i64) -> Result<u64, StoreError> {
    Ok(on_write!(store, |ex| sqlx::query(PURGE)
        .bind(before)
        .bind(limit)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}

#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] =
    &[("events::INSERT", INSERT), ("events::LIST_AFTER", LIST_AFTER), ("events::PURGE", PURGE)];
