//! The table `sessions`: who is signed in where. A session is found by the SHA-256 of its token, and
//! only as long as it has not ended, has not expired and its user is active.

use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::Clock;
use crate::error::StoreError;
use crate::ids::{SessionId, UserId};
use crate::pool::{Store, Tx};
use crate::users::{User, canonical_username};
use crate::{on_read, on_tx, on_write};

/// Being seen is noted at most this often: a row written per request would cost more than the request.
pub const SEEN_EVERY: TimeDelta = TimeDelta::minutes(1);

/// The most sessions that one list holds: a page of 500, and the one more that tells whether there is a
/// next page.
pub const PAGE_MAX: i64 = 501;

/// How many old sessions one purge removes at most.
const PURGE_ROWS_MAX: i64 = 1_000;

pub(crate) const INSERT: &str = "
    INSERT INTO sessions (id, user_id, token_hash, address, user_agent, created_at, last_seen_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $6, $7)
    RETURNING *";
pub(crate) const FIND_LIVE: &str = "
    SELECT users.id, users.username, users.password_hash, users.role, users.store_id, users.active,
           users.password_changed_at, users.last_login_at, users.created_at, users.updated_at,
           sessions.id AS session_id, sessions.last_seen_at AS session_seen_at,
           sessions.expires_at AS session_expires_at
    FROM sessions JOIN users ON users.id = sessions.user_id
    WHERE sessions.token_hash = $1 AND sessions.ended_at IS NULL AND sessions.expires_at > $2 AND users.active";
pub(crate) const TOUCH: &str = "UPDATE sessions SET last_seen_at = $2 WHERE id = $1 AND last_seen_at < $3";
pub(crate) const END: &str = "UPDATE sessions SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL";
pub(crate) const END_OF_USER: &str = "
    UPDATE sessions SET ended_at = $3 WHERE id = $1 AND user_id = $2 AND ended_at IS NULL AND expires_at > $3";
pub(crate) const END_ALL_OF_USER: &str =
    "UPDATE sessions SET ended_at = $2 WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2";
pub(crate) const END_OTHERS_OF_USER: &str = "
    UPDATE sessions SET ended_at = $3 WHERE user_id = $1 AND id <> $2 AND ended_at IS NULL AND expires_at > $3";
pub(crate) const LIST: &str = "
    SELECT * FROM sessions WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2
    ORDER BY created_at DESC, id DESC LIMIT $3";
pub(crate) const LIST_BEFORE: &str = "
    SELECT * FROM sessions WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2 AND (created_at, id) < ($4, $5)
    ORDER BY created_at DESC, id DESC LIMIT $3";
pub(crate) const FIND_FROM: &str = "
    SELECT sessions.id FROM sessions JOIN users ON users.id = sessions.user_id
    WHERE users.username = $1 AND sessions.address = $2 LIMIT 1";
pub(crate) const PURGE: &str = "
    DELETE FROM sessions WHERE id IN
        (SELECT id FROM sessions WHERE expires_at < $1 OR ended_at < $1 ORDER BY id LIMIT $2)";

/// Every fixed statement of this table, by name.
#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("sessions::INSERT", INSERT),
    ("sessions::FIND_LIVE", FIND_LIVE),
    ("sessions::TOUCH", TOUCH),
    ("sessions::END", END),
    ("sessions::END_OF_USER", END_OF_USER),
    ("sessions::END_ALL_OF_USER", END_ALL_OF_USER),
    ("sessions::END_OTHERS_OF_USER", END_OTHERS_OF_USER),
    ("sessions::LIST", LIST),
    ("sessions::LIST_BEFORE", LIST_BEFORE),
    ("sessions::FIND_FROM", FIND_FROM),
    ("sessions::PURGE", PURGE),
];

/// A row of `sessions`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Who is signed in.
    pub user_id: UserId,
    /// SHA-256 of the token.
    pub token_hash: Vec<u8>,
    /// From which address.
    pub address: Option<String>,
    /// With which program.
    pub user_agent: Option<String>,
    /// When the person signed in.
    pub created_at: DateTime<Utc>,
    /// When the token was used last, to within [`SEEN_EVERY`].
    pub last_seen_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
    /// When it was ended.
    pub ended_at: Option<DateTime<Utc>>,
}

/// What a new session is made of.
#[derive(Debug, Clone, Copy)]
pub struct NewSession<'a> {
    /// Who signs in.
    pub user_id: UserId,
    /// Of [`crate::passwords::new_token`].
    pub token_hash: [u8; 32],
    /// From which address.
    pub address: Option<&'a str>,
    /// With which program.
    pub user_agent: Option<&'a str>,
    /// When it shall end.
    pub expires_at: DateTime<Utc>,
}

/// A session that may be used, with its user.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LiveSession {
    /// The session's id.
    pub session_id: SessionId,
    /// When it was used last, to within [`SEEN_EVERY`].
    pub session_seen_at: DateTime<Utc>,
    /// When it ends by itself.
    pub session_expires_at: DateTime<Utc>,
    /// Who is signed in.
    #[sqlx(flatten)]
    pub user: User,
}

/// Opens a session.
pub async fn insert(tx: &mut Tx, clock: &Clock, new: NewSession<'_>) -> Result<Session, StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::query_as(INSERT)
        .bind(clock.new_id())
        .bind(new.user_id)
        .bind(new.token_hash.as_slice())
        .bind(new.address)
        .bind(new.user_agent)
        .bind(clock.now())
        .bind(new.expires_at)
        .fetch_one(ex)
        .await)?)
}

/// The session of a token, if it may be used at `now`.
pub async fn find_live(
    store: &Store,
    token_hash: &[u8; 32],
    now: DateTime<Utc>,
) -> Result<Option<LiveSession>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND_LIVE)
        .bind(token_hash.as_slice())
        .bind(now)
        .fetch_optional(ex)
        .await)?)
}

/// Notes that a session is in use, unless that was noted within [`SEEN_EVERY`].
pub async fn touch(store: &Store, session: &LiveSession) -> Result<(), StoreError> {
    let now = store.clock().now();
    let stale = now - SEEN_EVERY;
    if session.session_seen_at < stale {
        on_write!(store, |ex| sqlx::query(TOUCH)
            .bind(session.session_id)
            .bind(now)
            .bind(stale)
            .execute(ex)
            .await
            .map(drop))?;
    }
    Ok(())
}

/// Ends a session; says whether it was still open.
pub async fn end(tx: &mut Tx, clock: &Clock, id: SessionId) -> Result<bool, StoreError> {
    let ended = on_tx!(tx, |ex| sqlx::query(END)
        .bind(id)
        .bind(clock.now())
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(ended == 1)
}

/// Ends every open session of a user; says how many there were.
pub async fn end_all_of_user(tx: &mut Tx, clock: &Clock, user: UserId) -> Result<u64, StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::query(END_ALL_OF_USER)
        .bind(user)
        .bind(clock.now())
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}

/// Ends a session of this user; says whether it was one, and still open.
pub async fn end_of_user(
    tx: &mut Tx,
    clock: &Clock,
    user: UserId,
    id: SessionId,
) -> Result<bool, StoreError> {
    let ended = on_tx!(tx, |ex| sqlx::query(END_OF_USER)
        .bind(id)
        .bind(user)
        .bind(clock.now())
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(ended == 1)
}

/// Ends every open session of a user but one; says how many there were.
pub async fn end_others_of_user(
    tx: &mut Tx,
    clock: &Clock,
    user: UserId,
    kept: SessionId,
) -> Result<u64, StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::query(END_OTHERS_OF_USER)
        .bind(user)
        .bind(kept)
        .bind(clock.now())
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}

/// A page of a user's open sessions, newest first, those before `before`, at most [`PAGE_MAX`].
pub async fn list_of_user(
    store: &Store,
    user: UserId,
    before: Option<(DateTime<Utc>, SessionId)>,
    limit: i64,
) -> Result<Vec<Session>, StoreError> {
    let (now, limit) = (store.clock().now(), limit.min(PAGE_MAX));
    Ok(match before {
        None => {
            on_read!(store, |ex| sqlx::query_as(LIST).bind(user).bind(now).bind(limit).fetch_all(ex).await)?
        }
        Some((at, id)) => on_read!(store, |ex| sqlx::query_as(LIST_BEFORE)
            .bind(user)
            .bind(now)
            .bind(limit)
            .bind(at)
            .bind(id)
            .fetch_all(ex)
            .await)?,
    })
}

/// Whether somebody of this name has signed in from this address before, as far as sessions are kept.
pub async fn is_known_from(store: &Store, username: &str, address: &str) -> Result<bool, StoreError> {
    let username = canonical_username(username);
    let found: Option<SessionId> = on_read!(store, |ex| sqlx::query_scalar(FIND_FROM)
        .bind(username)
        .bind(address)
        .fetch_optional(ex)
        .await)?;
    Ok(found.is_some())
}

/// Removes sessions that ended or expired before `before`, a bounded number at a time; says how many.
pub async fn purge(store: &Store, before: DateTime<Utc>) -> Result<u64, StoreError> {
    Ok(on_write!(store, |ex| sqlx::query(PURGE)
        .bind(before)
        .bind(PURGE_ROWS_MAX)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}
