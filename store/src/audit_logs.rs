//! The table `audit_logs`: who did what to what, append-only. Entries are written in the transaction
//! of the change they tell of, so there is none without the other.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::StoreError;
use crate::ids::UserId;
use crate::pool::{Store, Tx};
use crate::{on_read, on_tx};

/// The most entries that one list holds: a page of 500, and the one more that tells whether there is a
/// next page.
pub const PAGE_MAX: u32 = 501;

pub(crate) const INSERT: &str = "
    INSERT INTO audit_logs (id, at, actor_id, actor_name, address, action, entity, entity_id, store_id, request_id, detail)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
pub(crate) const LIST: &str = "SELECT * FROM audit_logs ORDER BY at DESC, id DESC LIMIT $1";
pub(crate) const LIST_BEFORE: &str =
    "SELECT * FROM audit_logs WHERE (at, id) < ($1, $2) ORDER BY at DESC, id DESC LIMIT $3";

/// Every fixed statement of this table, by name.
#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] =
    &[("audit_logs::INSERT", INSERT), ("audit_logs::LIST", LIST), ("audit_logs::LIST_BEFORE", LIST_BEFORE)];

/// A row of `audit_logs`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct AuditLog {
    /// Its id.
    pub id: Uuid,
    /// When it was done.
    pub at: DateTime<Utc>,
    /// Who did it; `None` for somebody not signed in, or for the program itself.
    pub actor_id: Option<UserId>,
    /// The name at that time.
    pub actor_name: Option<String>,
    /// From which address.
    pub address: Option<String>,
    /// What was done, such as `system.update`.
    pub action: String,
    /// To what kind of thing.
    pub entity: String,
    /// To which one.
    pub entity_id: Option<String>,
    /// The store it belongs to.
    pub store_id: Option<String>,
    /// The request that did it.
    pub request_id: Option<String>,
    /// More, as JSON text; never a secret.
    pub detail: Option<String>,
}

/// What a new entry is made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewAuditLog<'a> {
    /// Who did it.
    pub actor_id: Option<UserId>,
    /// The name.
    pub actor_name: Option<&'a str>,
    /// From which address.
    pub address: Option<&'a str>,
    /// What was done, such as `system.update`.
    pub action: &'a str,
    /// To what kind of thing.
    pub entity: &'a str,
    /// To which one.
    pub entity_id: Option<&'a str>,
    /// The store it belongs to.
    pub store_id: Option<&'a str>,
    /// The request that did it.
    pub request_id: Option<&'a str>,
    /// More, as JSON text; never a secret.
    pub detail: Option<&'a str>,
}

/// Writes an entry with the change it tells of.
pub async fn insert(tx: &mut Tx, clock: &Clock, new: NewAuditLog<'_>) -> Result<(), StoreError> {
    on_tx!(tx, |ex| sqlx::query(INSERT)
        .bind(clock.new_id())
        .bind(clock.now())
        .bind(new.actor_id)
        .bind(new.actor_name)
        .bind(new.address)
        .bind(new.action)
        .bind(new.entity)
        .bind(new.entity_id)
        .bind(new.store_id)
        .bind(new.request_id)
        .bind(new.detail)
        .execute(ex)
        .await
        .map(drop))?;
    Ok(())
}

/// Writes an entry about something that changed no row, such as a refused sign-in.
pub async fn insert_alone(store: &Store, new: NewAuditLog<'_>) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    insert(&mut tx, store.clock(), new).await?;
    tx.commit().await
}

/// The newest entries, those before `before`, at most [`PAGE_MAX`].
pub async fn list(
    store: &Store,
    before: Option<(DateTime<Utc>, Uuid)>,
    limit: u32,
) -> Result<Vec<AuditLog>, StoreError> {
    let limit = i64::from(limit.min(PAGE_MAX));
    Ok(match before {
        None => on_read!(store, |ex| sqlx::query_as(LIST).bind(limit).fetch_all(ex).await)?,
        Some((at, id)) => on_read!(store, |ex| sqlx::query_as(LIST_BEFORE)
            .bind(at)
            .bind(id)
            .bind(limit)
            .fetch_all(ex)
            .await)?,
    })
}
