//! `installation`: facts about this database as a whole. The sealed canary tells a wrong or missing
//! master key before anything is sealed with it; the first admin is claimed here by one process.

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};

use crate::error::StoreError;
use crate::pool::{Store, Tx};
use crate::{on_read, on_tx, on_write};

const CANARY: &str = "vault_canary";
const CANARY_TEXT: &str = "this vault opens";
const FIRST_ADMIN: &str = "first_admin";

const INSERT: &str =
    "INSERT INTO installation (name, value, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const FIND: &str = "SELECT value FROM installation WHERE name = $1";

/// Whether a canary was ever written: if so, the data is sealed and the key must be given, never made.
pub async fn has_canary(store: &Store) -> Result<bool, StoreError> {
    let found: Option<Vec<u8>> =
        on_read!(store, |ex| sqlx::query_scalar(FIND).bind(CANARY).fetch_optional(ex).await)?;
    Ok(found.is_some())
}

/// Opens the canary with the vault's keys, or writes it in an empty database. A wrong or missing key
/// is [`StoreError::Setup`]: refuse to start.
pub async fn check_canary(store: &Store) -> Result<(), StoreError> {
    let sealed = store.vault().seal(&SecretString::from(CANARY_TEXT), CANARY)?;
    let now = store.clock().now();
    on_write!(store, |ex| sqlx::query(INSERT)
        .bind(CANARY)
        .bind(sealed)
        .bind(now)
        .execute(ex)
        .await
        .map(drop))?;
    let found: Option<Vec<u8>> =
        on_read!(store, |ex| sqlx::query_scalar(FIND).bind(CANARY).fetch_optional(ex).await)?;
    let found = found.ok_or_else(|| StoreError::NotFound("the vault's canary".into()))?;
    match store.vault().open(&found, CANARY) {
        Ok(text) if text.expose_secret() == CANARY_TEXT => Ok(()),
        _ => Err(StoreError::Setup(
            "the master key does not open this database; expected the key that it was first started with \
             in ZHILIAN_MASTER_KEY or in the key file beside the database"
                .into(),
        )),
    }
}

/// Claims the making of the first admin; one process of many is told `true`. Make the user in the same
/// transaction.
pub async fn claim_first_admin(tx: &mut Tx, now: DateTime<Utc>) -> Result<bool, StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(INSERT)
        .bind(FIRST_ADMIN)
        .bind(Vec::from(*b"made"))
        .bind(now)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(affected == 1)
}

#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] =
    &[("installation::INSERT", INSERT), ("installation::FIND", FIND)];
