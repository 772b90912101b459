//! The secrets of a system: sealed as one map per purpose, bound to the row they are in.

use std::collections::BTreeMap;

use secrecy::SecretString;
use sqlx::types::Json;

use super::ExternalSystem;
use crate::error::StoreError;
use crate::pool::Store;

/// The opened credentials of a system, by name; empty when none are set.
pub fn credentials(
    store: &Store,
    system: &ExternalSystem,
) -> Result<BTreeMap<String, SecretString>, StoreError> {
    match &system.sealed_credentials {
        None => Ok(BTreeMap::new()),
        Some(sealed) => Ok(store.vault().open_map(sealed, &ExternalSystem::credentials_aad(system.id))?),
    }
}

/// Puts credentials into a row that is about to be inserted or saved; an empty map removes them.
pub fn set_credentials(
    store: &Store,
    system: &mut ExternalSystem,
    secrets: &BTreeMap<String, SecretString>,
) -> Result<(), StoreError> {
    system.credential_names = Json(secrets.keys().map(|name| (name.clone(), true)).collect());
    system.sealed_credentials = if secrets.is_empty() {
        None
    } else {
        Some(store.vault().seal_map(secrets, &ExternalSystem::credentials_aad(system.id))?)
    };
    Ok(())
}

/// Seals the webhook secrets of a row that is about to be inserted or saved.
pub fn set_webhook_secrets(
    store: &Store,
    system: &mut ExternalSystem,
    secrets: &BTreeMap<String, SecretString>,
) -> Result<(), StoreError> {
    system.sealed_webhook_secrets = if secrets.is_empty() {
        None
    } else {
        Some(store.vault().seal_map(secrets, &ExternalSystem::webhook_secrets_aad(system.id))?)
    };
    Ok(())
}

/// The opened webhook secrets of a system, by name.
pub fn webhook_secrets(
    store: &Store,
    system: &ExternalSystem,
) -> Result<BTreeMap<String, SecretString>, StoreError> {
    match &system.sealed_webhook_secrets {
        None => Ok(BTreeMap::new()),
        Some(sealed) => {
            Ok(store.vault().open_map(sealed, &ExternalSystem::webhook_secrets_aad(system.id))?)
        }
    }
}
