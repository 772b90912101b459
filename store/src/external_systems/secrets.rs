//! The secrets of a system: sealed as one map per purpose, bound to the row they are in.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sqlx::types::Json;

use super::ExternalSystem;
use crate::error::StoreError;
use crate::pool::Store;

/// Secrets by name.
type Secrets = BTreeMap<String, SecretString>;

/// The opened credentials of a system, by name; empty when none are set.
pub fn credentials(store: &Store, system: &ExternalSystem) -> Result<Secrets, StoreError> {
    open(store, system.sealed_credentials.as_deref(), &ExternalSystem::credentials_aad(system.id))
}

/// Puts credentials into a row that is about to be inserted or saved; an empty map removes them.
pub fn set_credentials(
    store: &Store,
    system: &mut ExternalSystem,
    secrets: &Secrets,
) -> Result<(), StoreError> {
    system.credential_names = Json(secrets.keys().map(|name| (name.clone(), true)).collect());
    system.sealed_credentials = seal(store, secrets, &ExternalSystem::credentials_aad(system.id))?;
    Ok(())
}

/// The opened webhook secrets of a system, by name; empty when none are set.
pub fn webhook_secrets(store: &Store, system: &ExternalSystem) -> Result<Secrets, StoreError> {
    open(store, system.sealed_webhook_secrets.as_deref(), &ExternalSystem::webhook_secrets_aad(system.id))
}

/// The webhook secrets that count at a time: those without an end, and those whose end is not past.
pub fn webhook_secrets_valid_at(
    store: &Store,
    system: &ExternalSystem,
    at: DateTime<Utc>,
) -> Result<Secrets, StoreError> {
    let mut secrets = webhook_secrets(store, system)?;
    secrets.retain(|name, _| system.webhook_secret_expiries.get(name).is_none_or(|end| at <= *end));
    Ok(secrets)
}

/// Puts webhook secrets into a row that is about to be inserted or saved; an empty map removes them. A
/// secret that goes takes its end with it, so that a later one of its name does not inherit it.
pub fn set_webhook_secrets(
    store: &Store,
    system: &mut ExternalSystem,
    secrets: &Secrets,
) -> Result<(), StoreError> {
    system.sealed_webhook_secrets = seal(store, secrets, &ExternalSystem::webhook_secrets_aad(system.id))?;
    system.webhook_secret_expiries.retain(|name, _| secrets.contains_key(name));
    Ok(())
}

fn open(store: &Store, sealed: Option<&[u8]>, aad: &str) -> Result<Secrets, StoreError> {
    match sealed {
        None => Ok(Secrets::new()),
        Some(sealed) => Ok(store.vault().open_map(sealed, aad)?),
    }
}

/// Nothing is kept for no secrets.
fn seal(store: &Store, secrets: &Secrets, aad: &str) -> Result<Option<Vec<u8>>, StoreError> {
    if secrets.is_empty() {
        return Ok(None);
    }
    Ok(Some(store.vault().seal_map(secrets, aad)?))
}
