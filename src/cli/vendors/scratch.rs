//! A store for as long as a command takes: the client of vendors keeps budgets and access tokens in one.

use anyhow::Context as _;
use tempfile::TempDir;
use zhilian_sync_store::{Clock, Pool, PoolOptions, Store, Vault, vault};

/// A store in a file that is deleted with this, sealed with a key that nobody keeps.
pub(super) struct Scratch {
    pub(super) store: Store,
    folder: TempDir,
}

impl Scratch {
    pub(super) async fn open() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("making a folder for the time of the command")?;
        let url = format!("sqlite:{}", folder.path().join("scratch.db").display());
        let pool = Pool::connect(&url, PoolOptions::default()).await;
        let pool = pool.context("opening a store for the time of the command")?;
        pool.migrate().await?;
        let store = Store::new(pool, Clock::system(), Vault::from_text(&vault::generate_key())?);
        Ok(Self { store, folder })
    }

    /// Ends the store before its file goes.
    pub(super) async fn close(self) {
        self.store.close().await;
        drop(self.folder);
    }
}
