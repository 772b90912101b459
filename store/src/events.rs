//! `events`: what live clients hear about runs, webhooks and systems, written with its cause.
//!
//! An event's id is made before its transaction commits, so a slow transaction can commit an id that lies
//! before one which has been heard already. Whoever reads on from an id would never hear it; whoever reads
//! the last seconds twice has to know for how long a transaction may last, which nobody does, and what each
//! listener has heard, which only one process does. So readers go by `position`, which [`place`] gives to
//! committed events: whoever holds the feed's row in `feeds` numbers what has none yet, and the numbers are
//! seen when that commits. Positions have no gaps and are seen in their order, so reading on from one skips
//! nothing and repeats nothing, in any process and after any pause.

use std::sync::atomic::{AtomicU16, Ordering};

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::StoreError;
use crate::ids::{RunId, SystemId};
use crate::pool::{Store, Tx};
use crate::{on_read, on_tx, on_write};

/// The most events that one transaction places.
pub const PLACED_MAX: i64 = 500;

crate::text_enum! {
    /// What live clients hear of.
    pub enum EventKind {
        /// A run was taken up for the first time.
        RunStarted = "run.started",
        /// A run has stored something; at most every few seconds.
        RunProgressed = "run.progressed",
        /// A run has ended.
        RunEnded = "run.ended",
        /// Webhooks of a type are applied; once for each minute.
        WebhooksApplied = "webhooks.applied",
        /// Webhooks are given up; once for each batch, type and minute.
        WebhookDead = "webhook.dead",
        /// A system was made, changed, paused, resumed or deleted, or its status has changed.
        SystemChanged = "system.changed",
    }
}

/// A row of `events`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Event {
    /// Version 7, of the moment it was written, which is not the order in which it is heard.
    pub id: Uuid,
    /// See [`EventKind`]; a later version may know more.
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
    /// Where it stands in the feed; `None` until it is placed.
    pub position: Option<i64>,
}

/// What is to be heard.
#[derive(Debug, Clone, Copy)]
pub struct NewEvent<'a> {
    /// What has happened.
    pub kind: EventKind,
    /// To which system.
    pub system_id: Option<SystemId>,
    /// In which run.
    pub run_id: Option<RunId>,
    /// The rest (a JSON object): no secrets, no customers.
    pub data: &'a str,
}

const INSERT: &str = "INSERT INTO events (id, kind, system_id, store_id, run_id, data, created_at) \
    VALUES ($1, $2, $3, (SELECT store_id FROM external_systems WHERE id = $3), $4, $5, $6)";

/// Writes an event in its cause's transaction.
pub async fn insert(tx: &mut Tx, clock: &Clock, event: NewEvent<'_>) -> Result<(), StoreError> {
    on_tx!(tx, |ex| sqlx::query(INSERT)
        .bind(next_id(clock))
        .bind(event.kind)
        .bind(event.system_id)
        .bind(event.run_id)
        .bind(event.data.to_owned())
        .bind(clock.now())
        .execute(ex)
        .await
        .map(drop))?;
    Ok(())
}

/// An id that sorts behind those which this process made before it in the same millisecond, so that what is
/// placed together is heard in the order in which it was written.
fn next_id(clock: &Clock) -> Uuid {
    static NUMBER: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let mut id = clock.new_id().into_bytes();
    // The twelve bits behind the version's four, which are random otherwise.
    id[6] = (id[6] & 0xf0) | (high & 0x0f);
    id[7] = low;
    Uuid::from_bytes(id)
}

const ANY_UNPLACED: &str = "SELECT EXISTS (SELECT 1 FROM events WHERE position IS NULL)";
// Adding nothing writes the row, which holds it until the commit on both databases.
const HOLD_FEED: &str = "UPDATE feeds SET position = position + 0 WHERE name = 'events' RETURNING position";
const UNPLACED: &str = "SELECT id FROM events WHERE position IS NULL ORDER BY id LIMIT $1";
const MOVE_FEED: &str = "UPDATE feeds SET position = $1 WHERE name = 'events'";

/// Gives positions to committed events that have none, at most [`PLACED_MAX`]; says how many. Where there
/// are none it only reads.
pub async fn place(store: &Store) -> Result<i64, StoreError> {
    let any: bool = on_read!(store, |ex| sqlx::query_scalar(ANY_UNPLACED).fetch_one(ex).await)?;
    if !any {
        return Ok(0);
    }
    let mut tx = store.begin().await?;
    let last: i64 = on_tx!(&mut tx, |ex| sqlx::query_scalar(HOLD_FEED).fetch_one(ex).await)?;
    // Read after the row is held: whoever held it before has committed.
    let ids: Vec<Uuid> =
        on_tx!(&mut tx, |ex| sqlx::query_scalar(UNPLACED).bind(PLACED_MAX).fetch_all(ex).await)?;
    if ids.is_empty() {
        return Ok(0);
    }
    let placed = i64::try_from(ids.len()).unwrap_or(PLACED_MAX);
    on_tx!(&mut tx, |ex| {
        let mut query = QueryBuilder::new("UPDATE events SET position = placed.column2 FROM (");
        query.push_values((last + 1..).zip(&ids), |mut values, (position, id)| {
            values.push_bind(*id).push_bind(position);
        });
        query.push(") AS placed WHERE events.id = placed.column1");
        query.build().persistent(false).execute(ex).await.map(drop)
    })?;
    on_tx!(&mut tx, |ex| sqlx::query(MOVE_FEED).bind(last + placed).execute(ex).await.map(drop))?;
    tx.commit().await?;
    Ok(placed)
}

const HEAD: &str = "SELECT position FROM feeds WHERE name = 'events'";

/// The position of the last event that has one; 0 where there never was any.
pub async fn head(store: &Store) -> Result<i64, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_scalar(HEAD).fetch_one(ex).await)?)
}

// The condition of the index is repeated word for word: SQLite sees in no other way that it serves.
const FIRST_KEPT: &str = "SELECT position FROM events WHERE position > 0 ORDER BY position LIMIT 1";

/// Whether everything behind a position is still kept, so that reading on from it skips nothing.
pub async fn reaches_back_to(store: &Store, position: i64) -> Result<bool, StoreError> {
    let head = head(store).await?;
    if position >= head {
        return Ok(position == head);
    }
    let first: Option<i64> = on_read!(store, |ex| sqlx::query_scalar(FIRST_KEPT).fetch_optional(ex).await)?;
    Ok(first.is_some_and(|first| first <= position.saturating_add(1)))
}

const LIST_AFTER: &str =
    "SELECT * FROM events WHERE position > $1 AND position > 0 ORDER BY position LIMIT $2";

/// Placed events behind a position, in their order.
pub async fn list_after(store: &Store, position: i64, limit: i64) -> Result<Vec<Event>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(LIST_AFTER).bind(position).bind(limit).fetch_all(ex).await)?)
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
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("events::INSERT", INSERT),
    ("events::ANY_UNPLACED", ANY_UNPLACED),
    ("events::HOLD_FEED", HOLD_FEED),
    ("events::UNPLACED", UNPLACED),
    ("events::MOVE_FEED", MOVE_FEED),
    ("events::HEAD", HEAD),
    ("events::FIRST_KEPT", FIRST_KEPT),
    ("events::LIST_AFTER", LIST_AFTER),
    ("events::PURGE", PURGE),
];
