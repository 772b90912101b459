//! The table `idempotency_keys`: the answer of a POST, given again to whoever repeats it.
//!
//! A key is taken for a short time ([`begin`]), the work is done, and the answer kept beside it for long
//! ([`finish`]), or the key given up ([`release`]). Whoever dies in between leaves a key that expires soon. The
//! moment at which it was taken is the fence: an answer that comes after another has taken the key is not kept.

use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::Clock;
use crate::error::StoreError;
use crate::pool::{Store, Tx};
use crate::{on_read, on_tx, on_write};

/// How many old keys one purge removes at most.
const PURGE_ROWS_MAX: i64 = 1_000;

pub(crate) const BEGIN: &str = "
    INSERT INTO idempotency_keys (scope, key, request_hash, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (scope, key) DO UPDATE SET
        request_hash = excluded.request_hash, status = NULL, response = NULL,
        created_at = excluded.created_at, expires_at = excluded.expires_at
    WHERE idempotency_keys.expires_at <= excluded.created_at
    RETURNING *";
pub(crate) const FIND: &str = "SELECT * FROM idempotency_keys WHERE scope = $1 AND key = $2";
pub(crate) const FINISH: &str = "
    UPDATE idempotency_keys SET status = $4, response = $5, expires_at = $6
    WHERE scope = $1 AND key = $2 AND created_at = $3 AND status IS NULL";
pub(crate) const RELEASE: &str = "
    DELETE FROM idempotency_keys WHERE scope = $1 AND key = $2 AND created_at = $3 AND status IS NULL";
pub(crate) const PURGE: &str = "
    DELETE FROM idempotency_keys WHERE expires_at <= $1 AND (scope, key) IN
        (SELECT scope, key FROM idempotency_keys WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)";

/// Every fixed statement of this table, by name.
#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("idempotency_keys::BEGIN", BEGIN),
    ("idempotency_keys::FIND", FIND),
    ("idempotency_keys::FINISH", FINISH),
    ("idempotency_keys::RELEASE", RELEASE),
    ("idempotency_keys::PURGE", PURGE),
];

/// A row of `idempotency_keys`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct IdempotencyKey {
    /// Whose keys: the route and the caller.
    pub scope: String,
    /// What the caller sent.
    pub key: String,
    /// SHA-256 of the request.
    pub request_hash: Vec<u8>,
    /// The status of the answer; `None` while the request is being worked on.
    pub status: Option<i64>,
    /// The body of the answer.
    pub response: Option<String>,
    /// When it was taken.
    pub created_at: DateTime<Utc>,
    /// When it may be used for something else.
    pub expires_at: DateTime<Utc>,
}

/// What a key says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It is the first, as of this moment: do the work, then [`finish`] or [`release`].
    New(DateTime<Utc>),
    /// It was answered before: give this answer.
    Answered {
        /// The status of the answer.
        status: i64,
        /// The body of the answer.
        response: String,
    },
    /// It is being worked on.
    InProgress,
    /// The key was used for another request.
    OtherRequest,
}

/// A key and the request it came with.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Whose keys: the route and the caller, so that nobody is given somebody else's answer.
    pub scope: &'a str,
    /// What the caller sent.
    pub key: &'a str,
    /// SHA-256 of the request.
    pub hash: &'a [u8; 32],
}

/// Takes a key for `ttl`, or says what it was taken for.
pub async fn begin(store: &Store, request: Request<'_>, ttl: TimeDelta) -> Result<Begun, StoreError> {
    let mut tx = store.begin().await?;
    let begun = begin_within(&mut tx, store.clock(), request, ttl).await?;
    tx.commit().await?;
    Ok(begun)
}

async fn begin_within(
    tx: &mut Tx,
    clock: &Clock,
    request: Request<'_>,
    ttl: TimeDelta,
) -> Result<Begun, StoreError> {
    let now = clock.now();
    let taken: Option<IdempotencyKey> = on_tx!(tx, |ex| sqlx::query_as(BEGIN)
        .bind(request.scope)
        .bind(request.key)
        .bind(request.hash.as_slice())
        .bind(now)
        .bind(now + ttl)
        .fetch_optional(ex)
        .await)?;
    if let Some(taken) = taken {
        return Ok(Begun::New(taken.created_at));
    }
    let there: IdempotencyKey =
        on_tx!(tx, |ex| sqlx::query_as(FIND).bind(request.scope).bind(request.key).fetch_one(ex).await)?;
    Ok(if there.request_hash != request.hash {
        Begun::OtherRequest
    } else if let (Some(status), Some(response)) = (there.status, there.response) {
        Begun::Answered { status, response }
    } else {
        Begun::InProgress
    })
}

/// An answer to keep.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// The status.
    pub status: i64,
    /// The body.
    pub response: &'a str,
    /// For how long.
    pub ttl: TimeDelta,
}

/// Keeps the answer of a request whose key was taken at `begun_at`; `false` if somebody else has the key now.
pub async fn finish(
    store: &Store,
    request: Request<'_>,
    begun_at: DateTime<Utc>,
    kept: Kept<'_>,
) -> Result<bool, StoreError> {
    let expires_at = store.clock().now() + kept.ttl;
    let rows = on_write!(store, |ex| sqlx::query(FINISH)
        .bind(request.scope)
        .bind(request.key)
        .bind(begun_at)
        .bind(kept.status)
        .bind(kept.response)
        .bind(expires_at)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// Gives up a key that was taken at `begun_at` and has no answer.
pub async fn release(store: &Store, request: Request<'_>, begun_at: DateTime<Utc>) -> Result<(), StoreError> {
    on_write!(store, |ex| sqlx::query(RELEASE)
        .bind(request.scope)
        .bind(request.key)
        .bind(begun_at)
        .execute(ex)
        .await
        .map(drop))?;
    Ok(())
}

/// The key as it stands, expired or not.
pub async fn find(store: &Store, scope: &str, key: &str) -> Result<Option<IdempotencyKey>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND).bind(scope).bind(key).fetch_optional(ex).await)?)
}

/// Removes expired keys, a bounded number at a time; says how many.
pub async fn purge(store: &Store) -> Result<u64, StoreError> {
    Ok(on_write!(store, |ex| sqlx::query(PURGE)
        .bind(store.clock().now())
        .bind(PURGE_ROWS_MAX)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}
