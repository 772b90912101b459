//! The table `api_tokens`: what machines sign their requests with.
//!
//! A token has a role and a store of its own and belongs to nobody, so it outlives whoever made it; it is found
//! by its SHA-256, and only as long as it is neither revoked nor over.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::QueryBuilder;

use crate::clock::Clock;
use crate::error::StoreError;
use crate::ids::{TokenId, UserId};
use crate::pool::{Store, Tx};
use crate::text_enum::Role;
use crate::{on_read, on_tx, on_write};

/// Being used is noted at most this often: a row written per request would cost more than the request.
pub const USED_EVERY: TimeDelta = TimeDelta::minutes(1);

/// The most tokens that one list holds: a page of 500, and the one more that tells whether there is a
/// next page.
pub const PAGE_MAX: i64 = 501;

pub(crate) const INSERT: &str = "
    INSERT INTO api_tokens (id, name, token_hash, role, store_id, created_by, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    RETURNING *";
pub(crate) const FIND: &str = "SELECT * FROM api_tokens WHERE id = $1";
pub(crate) const FIND_LIVE: &str = "
    SELECT * FROM api_tokens
    WHERE token_hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)";
pub(crate) const TOUCH: &str = "
    UPDATE api_tokens SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $3)";
pub(crate) const REVOKE: &str =
    "UPDATE api_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL RETURNING *";

/// Every fixed statement of this table, by name.
#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("api_tokens::INSERT", INSERT),
    ("api_tokens::FIND", FIND),
    ("api_tokens::FIND_LIVE", FIND_LIVE),
    ("api_tokens::TOUCH", TOUCH),
    ("api_tokens::REVOKE", REVOKE),
];

/// A row of `api_tokens`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ApiToken {
    /// Its id.
    pub id: TokenId,
    /// What people call it.
    pub name: String,
    /// SHA-256 of the token.
    pub token_hash: Vec<u8>,
    /// What it may do.
    pub role: Role,
    /// The only store it sees; `None` sees the whole chain.
    pub store_id: Option<String>,
    /// The user or the token that made it.
    pub created_by: Option<UserId>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself; `None` never does.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was used last, to within [`USED_EVERY`].
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// What a new token is made of.
#[derive(Debug, Clone, Copy)]
pub struct NewApiToken<'a> {
    /// What people call it.
    pub name: &'a str,
    /// Of [`crate::passwords::new_api_token`].
    pub token_hash: [u8; 32],
    /// What it may do.
    pub role: Role,
    /// The only store it may see.
    pub store_id: Option<&'a str>,
    /// Who makes it.
    pub created_by: Option<UserId>,
    /// When it shall end.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Which tokens to list.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    /// What the caller may see: tokens of this store; `None` is everything.
    pub scope: Option<&'a str>,
    /// Only tokens of this store.
    pub store_id: Option<&'a str>,
    /// Only tokens with this role.
    pub role: Option<Role>,
    /// Continue after this row of the page before.
    pub after: Option<(DateTime<Utc>, TokenId)>,
    /// The most rows.
    pub limit: i64,
}

/// Keeps a token.
pub async fn insert(tx: &mut Tx, clock: &Clock, new: NewApiToken<'_>) -> Result<ApiToken, StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::query_as(INSERT)
        .bind(clock.new_id())
        .bind(new.name)
        .bind(new.token_hash.as_slice())
        .bind(new.role)
        .bind(new.store_id)
        .bind(new.created_by)
        .bind(clock.now())
        .bind(new.expires_at)
        .fetch_one(ex)
        .await)?)
}

/// The token of this id, alive or not.
pub async fn find(store: &Store, id: TokenId) -> Result<Option<ApiToken>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND).bind(id).fetch_optional(ex).await)?)
}

/// The token with this hash, if it may be used at `now`.
pub async fn find_live(
    store: &Store,
    token_hash: &[u8; 32],
    now: DateTime<Utc>,
) -> Result<Option<ApiToken>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND_LIVE)
        .bind(token_hash.as_slice())
        .bind(now)
        .fetch_optional(ex)
        .await)?)
}

/// Notes that a token is in use, unless that was noted within [`USED_EVERY`].
pub async fn touch(store: &Store, token: &ApiToken) -> Result<(), StoreError> {
    let now = store.clock().now();
    let stale = now - USED_EVERY;
    if token.last_used_at.is_none_or(|used| used < stale) {
        on_write!(store, |ex| sqlx::query(TOUCH)
            .bind(token.id)
            .bind(now)
            .bind(stale)
            .execute(ex)
            .await
            .map(drop))?;
    }
    Ok(())
}

/// Ends a token for good; `None` where it was revoked already.
pub async fn revoke(tx: &mut Tx, clock: &Clock, id: TokenId) -> Result<Option<ApiToken>, StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::query_as(REVOKE).bind(id).bind(clock.now()).fetch_optional(ex).await)?)
}

macro_rules! list_body {
    ($filter:expr, $executor:expr) => {{
        let mut query = QueryBuilder::new("SELECT * FROM api_tokens WHERE TRUE");
        if let Some(scope) = $filter.scope {
            query.push(" AND store_id = ").push_bind(scope.to_owned());
        }
        if let Some(store_id) = $filter.store_id {
            query.push(" AND store_id = ").push_bind(store_id.to_owned());
        }
        if let Some(role) = $filter.role {
            query.push(" AND role = ").push_bind(role);
        }
        if let Some((at, id)) = $filter.after {
            query.push(" AND (created_at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind($filter.limit.min(PAGE_MAX));
        query.build_query_as::<ApiToken>().fetch_all($executor).await
    }};
}

/// A page of tokens, newest first, at most [`PAGE_MAX`]; also those that are over.
pub async fn list(store: &Store, filter: &Filter<'_>) -> Result<Vec<ApiToken>, StoreError> {
    Ok(on_read!(store, |ex| list_body!(filter, ex))?)
}
