//! The table `audit_logs`: who did what to what, append-only. Entries are written in the transaction
//! of the change they tell of, so there is none without the other.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::StoreError;
use crate::ids::UserId;
use crate::pool::{Store, Tx};
use crate::{on_read, on_tx};

/// The most entries that one list holds: a page of 500, and the one more that tells whether there is a
/// next page.
pub const PAGE_MAX: i64 = 501;

pub(crate) const INSERT: &str = "
    INSERT INTO audit_logs (id, at, actor_id, actor_name, address, action, entity, entity_id, store_id, request_id, detail)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// Every fixed statement of this table, by name.
#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[("audit_logs::INSERT", INSERT)];

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

/// Which entries are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    /// What the caller may see: entries of this store; `None` is everything.
    pub scope: Option<&'a str>,
    /// Only what this user or token did.
    pub actor_id: Option<UserId>,
    /// Only this action.
    pub action: Option<&'a str>,
    /// Only what was done to this kind of thing.
    pub entity: Option<&'a str>,
    /// Only what was done to this thing.
    pub entity_id: Option<&'a str>,
    /// Only entries of this store.
    pub store_id: Option<&'a str>,
    /// Only what was done at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only what was done before this time.
    pub to: Option<DateTime<Utc>>,
    /// Only entries before this one, which was the last of the page before.
    pub before: Option<(DateTime<Utc>, Uuid)>,
    /// The most rows.
    pub limit: i64,
}

macro_rules! search_body {
    ($filter:expr, $executor:expr) => {{
        let mut query = QueryBuilder::new("SELECT * FROM audit_logs WHERE TRUE");
        if let Some(scope) = $filter.scope {
            query.push(" AND store_id = ").push_bind(scope.to_owned());
        }
        if let Some(actor_id) = $filter.actor_id {
            query.push(" AND actor_id = ").push_bind(actor_id);
        }
        for (condition, value) in [
            (" AND action = ", $filter.action),
            (" AND entity = ", $filter.entity),
            (" AND entity_id = ", $filter.entity_id),
            (" AND store_id = ", $filter.store_id),
        ] {
            if let Some(value) = value {
                query.push(condition).push_bind(value.to_owned());
            }
        }
        if let Some(from) = $filter.from {
            query.push(" AND at >= ").push_bind(from);
        }
        if let Some(to) = $filter.to {
            query.push(" AND at < ").push_bind(to);
        }
        if let Some((at, id)) = $filter.before {
            query.push(" AND (at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY at DESC, id DESC LIMIT ").push_bind($filter.limit.min(PAGE_MAX));
        query.build_query_as::<AuditLog>().fetch_all($executor).await
    }};
}

/// A page of the entries that a filter means, newest first, at most [`PAGE_MAX`].
pub async fn search(store: &Store, filter: &Filter<'_>) -> Result<Vec<AuditLog>, StoreError> {
    Ok(on_read!(store, |ex| search_body!(filter, ex))?)
}

/// The newest entries, those before `before`, at most [`PAGE_MAX`].
pub async fn list(
    store: &Store,
    before: Option<(DateTime<Utc>, Uuid)>,
    limit: u32,
) -> Result<Vec<AuditLog>, StoreError> {
    search(store, &Filter { before, limit: limit.into(), ..Filter::default() }).await
}
