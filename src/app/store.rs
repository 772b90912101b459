//! Opens the database with the key that opens what is in it.
//!
//! An embedded database has one process that serves it; short commands may look in beside it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use secrecy::SecretString;
use zhilian_sync_store::{Clock, Pool, PoolOptions, Store, Vault, installation, vault};

use super::files::{self, Lock, Place};
use crate::config::Settings;

/// A store, with the lock that keeps other processes away from its file.
#[derive(Debug)]
pub struct OpenedStore {
    /// The store.
    pub store: Store,
    pub(super) lock: Option<Lock>,
}

/// With whom a process shares an embedded database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// With nobody: it serves, and its queue is in memory.
    Alone,
    /// With the process that serves, if there is one, for a moment.
    Beside,
}

/// Opens the store of these settings, its schema up to date.
pub async fn open(settings: &Settings, clock: Clock, sharing: Sharing) -> anyhow::Result<OpenedStore> {
    let place = place(settings)?;
    let lock = match (&place, sharing) {
        (None, _) => None,
        (Some(place), Sharing::Alone) => Some(place.lock()?),
        (Some(place), Sharing::Beside) => place.try_lock()?,
    };
    let pool = connect(settings).await?;
    if place.is_none() || lock.is_some() {
        pool.migrate().await?;
    }
    let key = key(settings, place.as_ref(), &pool, &clock).await?;
    let vault = Vault::from_text(&key).context("reading the master key")?;
    let store = Store::new(pool, clock, vault);
    // The process that serves may be of another version.
    store.check().await?;
    installation::check_canary(&store).await?;
    Ok(OpenedStore { store, lock })
}

/// Brings the schema up to date and does nothing else.
pub async fn migrate(settings: &Settings) -> anyhow::Result<()> {
    let _lock = place(settings)?.map(|place| place.lock()).transpose()?;
    Ok(connect(settings).await?.migrate().await?)
}

fn place(settings: &Settings) -> anyhow::Result<Option<Place>> {
    if settings.database.is_postgres() {
        return Ok(None);
    }
    Place::of_url(settings.database.url.expose()).map(Some)
}

async fn connect(settings: &Settings) -> anyhow::Result<Pool> {
    let options = PoolOptions {
        connections_max: settings.database.connections_max,
        acquire_timeout: Duration::from_secs(settings.database.acquire_timeout_secs),
        ..PoolOptions::default()
    };
    Pool::connect(settings.database.url.expose(), options).await.context("opening the database")
}

/// The key that was given, or the one beside the embedded database.
async fn key(
    settings: &Settings,
    place: Option<&Place>,
    pool: &Pool,
    clock: &Clock,
) -> anyhow::Result<SecretString> {
    let given = &settings.vault.master_key;
    if !given.is_empty() {
        return Ok(SecretString::from(given.expose()));
    }
    let Some(place) = place else {
        bail!(
            "no master key; with PostgreSQL give 32 bytes of base64 in ZHILIAN_MASTER_KEY or \
             ZHILIAN_MASTER_KEY_FILE, the same in every process (`openssl rand -base64 32` makes one)"
        )
    };
    // The canary is looked for with a throw-away key: only its being there matters.
    let probe = Store::new(pool.clone(), clock.clone(), Vault::from_text(&vault::generate_key())?);
    files::master_key(place, installation::has_canary(&probe).await?)
}
