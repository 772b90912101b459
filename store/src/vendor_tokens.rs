//! `vendor_tokens`: access tokens that vendors gave, sealed, shared by every process of the installation.
//!
//! Whoever holds a key's lease asks the vendor for a new token, and nobody else does: some vendors end the old
//! token when they give a new one, and all of them count. The others read what it wrote. A lease that ran out
//! may be taken over, and then its old holder writes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sqlx::FromRow;

use crate::error::StoreError;
use crate::pool::Store;
use crate::{on_read, on_write};

/// Secrets by name: the token itself, and what the next one is asked for with.
pub type Secrets = BTreeMap<String, SecretString>;

/// What is kept under a key.
#[derive(Debug)]
pub struct VendorToken {
    /// The opened secrets.
    pub secrets: Secrets,
    /// When the token was given.
    pub issued_at: DateTime<Utc>,
    /// When it ends; nothing where the vendor does not say.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Whose turn it is to ask the vendor.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// Vendor and credentials; holds no secret.
    pub key: &'a str,
    /// Who asks; a name that nobody else has.
    pub worker: &'a str,
}

#[derive(FromRow)]
struct Row {
    sealed: Vec<u8>,
    expires_at: Option<DateTime<Utc>>,
    updated_at: DateTime<Utc>,
}

const FIND: &str = "SELECT sealed, expires_at, updated_at FROM vendor_tokens WHERE key = $1";

/// What is kept under the key; nothing where no token was ever given, or only its lease is there.
pub async fn find(store: &Store, key: &str) -> Result<Option<VendorToken>, StoreError> {
    let row: Option<Row> =
        on_read!(store, |ex| sqlx::query_as(FIND).bind(key.to_owned()).fetch_optional(ex).await)?;
    // A key that was never asked for has a lease before it has a token.
    let Some(row) = row.filter(|row| !row.sealed.is_empty()) else { return Ok(None) };
    let secrets = store.vault().open_map(&row.sealed, &place(key))?;
    Ok(Some(VendorToken { secrets, issued_at: row.updated_at, expires_at: row.expires_at }))
}

const LEASE: &str = "INSERT INTO vendor_tokens (key, sealed, lease_until, worker, updated_at) VALUES ($1, $5, $4, $2, $3) \
    ON CONFLICT (key) DO UPDATE SET lease_until = $4, worker = $2 \
    WHERE vendor_tokens.lease_until IS NULL OR vendor_tokens.lease_until <= $3 RETURNING key";

/// Takes the turn, unless somebody else has it; says whether it was taken.
pub async fn lease(store: &Store, turn: Turn<'_>, lease: Duration) -> Result<bool, StoreError> {
    let now = store.clock().now();
    let taken: Option<String> = on_write!(store, |ex| sqlx::query_scalar(LEASE)
        .bind(turn.key.to_owned())
        .bind(turn.worker.to_owned())
        .bind(now)
        .bind(now + lease)
        .bind(Vec::<u8>::new())
        .fetch_optional(ex)
        .await)?;
    Ok(taken.is_some())
}

const SAVE: &str = "UPDATE vendor_tokens SET sealed = $3, expires_at = $4, updated_at = $5, lease_until = NULL, worker = NULL \
    WHERE key = $1 AND worker = $2";

/// Writes what the vendor gave and ends the turn; says whether the turn was still ours. Where it was not,
/// nothing is written: somebody asked after us, and theirs counts.
pub async fn save(
    store: &Store,
    turn: Turn<'_>,
    secrets: &Secrets,
    expires_at: Option<DateTime<Utc>>,
) -> Result<bool, StoreError> {
    let sealed = store.vault().seal_map(secrets, &place(turn.key))?;
    let rows = on_write!(store, |ex| sqlx::query(SAVE)
        .bind(turn.key.to_owned())
        .bind(turn.worker.to_owned())
        .bind(&sealed)
        .bind(expires_at)
        .bind(store.clock().now())
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

const RELEASE: &str =
    "UPDATE vendor_tokens SET lease_until = NULL, worker = NULL WHERE key = $1 AND worker = $2";

/// Ends the turn without a token, so that the next one need not wait for the lease to run out.
pub async fn release(store: &Store, turn: Turn<'_>) -> Result<(), StoreError> {
    on_write!(store, |ex| sqlx::query(RELEASE)
        .bind(turn.key.to_owned())
        .bind(turn.worker.to_owned())
        .execute(ex)
        .await
        .map(drop))?;
    Ok(())
}

const PURGE: &str = "DELETE FROM vendor_tokens WHERE key IN (SELECT key FROM vendor_tokens WHERE updated_at < $1 \
    AND (expires_at IS NULL OR expires_at < $1) AND (lease_until IS NULL OR lease_until < $1) ORDER BY key LIMIT $2)";

/// Removes tokens that were given and ended before a time, at most so many; says how many. A system that is
/// pulled renews its own long before.
pub async fn purge(store: &Store, before: DateTime<Utc>, limit: i64) -> Result<u64, StoreError> {
    Ok(on_write!(store, |ex| sqlx::query(PURGE)
        .bind(before)
        .bind(limit)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}

/// What the secrets of a key are sealed for: moved to another row they do not open.
fn place(key: &str) -> String {
    format!("vendor_tokens/{key}")
}

#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("vendor_tokens::FIND", FIND),
    ("vendor_tokens::LEASE", LEASE),
    ("vendor_tokens::SAVE", SAVE),
    ("vendor_tokens::RELEASE", RELEASE),
    ("vendor_tokens::PURGE", PURGE),
];
