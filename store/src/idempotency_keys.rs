//! The table `idempotency_keys`: the answer of a POST, given again to whoever repeats it.
//!
//! The key is taken, the work done and the answer kept in one transaction. So a request that dies
//! half-way leaves no key behind, and of two at once the second waits and then reads the first one's
//! answer.

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
pub(crate) const FINISH: &str =
    "UPDATE idempotency_keys SET status = $3, response = $4 WHERE scope = $1 AND key = $2 AND status IS NULL";
pub(crate) const PURGE: &str = "
    DELETE FROM idempotency_keys WHERE expires_at <= $1 AND (scope, key) IN
        (SELECT scope, key FROM idempotency_keys WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)";

/// Every fixed statement of this table, by name.
#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("idempotency_keys::BEGIN", BEGIN),
    ("idempotency_keys::FIND", FIND),
    ("idempotency_keys::FINISH", FINISH),
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
    /// It is the first: do the work, then [`finish`].
    New,
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
pub async fn begin(
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
    if taken.is_some() {
        return Ok(Begun::New);
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

/// Keeps the answer of a request whose key was taken.
pub async fn finish(
    tx: &mut Tx,
    scope: &str,
    key: &str,
    status: i64,
    response: &str,
) -> Result<(), StoreError> {
    let kept = on_tx!(tx, |ex| sqlx::query(FINISH)
        .bind(scope)
        .bind(key)
        .bind(status)
        .bind(response)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    if kept == 1 {
        Ok(())
    } else {
        Err(StoreError::NotFound(format!("an unanswered request with the idempotency key `{key}`")))
    }
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
