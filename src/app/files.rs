//! The two files beside an embedded database: the lock that makes one process its only user, and the
//! master key.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use secrecy::{ExposeSecret as _, SecretString};
use zhilian_sync_store::vault;

/// The permissions of everyone but the owner.
const OTHERS: u32 = 0o077;

/// A database file and the two beside it.
#[derive(Debug)]
pub(super) struct Place {
    database: PathBuf,
}

/// The exclusive use of a database file, until it is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Place {
    /// The place that `url` names; its folder is made where there is none.
    pub(super) fn of_url(url: &str) -> anyhow::Result<Self> {
        let database = path_of(url)?;
        if let Some(folder) = database.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            // For the owner only: the database holds customers.
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.with_context(|| format!("making the folder `{}` for the database", folder.display()))?;
        }
        Ok(Self { database })
    }

    /// Takes the lock; `None` where another process has it.
    pub(super) fn try_lock(&self) -> anyhow::Result<Option<Lock>> {
        let path = beside(&self.database, "lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("opening `{}`", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("locking `{}`", path.display()))
            }
        }
    }

    /// Takes the lock, or says who has it.
    pub(super) fn lock(&self) -> anyhow::Result<Lock> {
        self.try_lock()?.with_context(|| {
            format!(
                "another process uses the database `{}`; a SQLite file serves one process, so stop that one or go to \
                 PostgreSQL",
                self.database.display()
            )
        })
    }
}

/// The key beside the database. It is made when the database is empty, and never over data that an older
/// key has sealed.
pub(super) fn master_key(place: &Place, has_sealed_data: bool) -> anyhow::Result<SecretString> {
    let path = beside(&place.database, "key");
    if path.exists() {
        return read_key(&path);
    }
    ensure!(
        !has_sealed_data,
        "the master key file `{}` is gone, and the database holds secrets that only it opens; put it back, or give \
         the key in ZHILIAN_MASTER_KEY",
        path.display()
    );
    let key = vault::generate_key();
    // Whole or not at all: a key that a power cut takes away takes the secrets with it.
    let unfinished = beside(&place.database, "key.new");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
    let mut file = file.with_context(|| format!("making the master key file `{}`", path.display()))?;
    writeln!(file, "{}", key.expose_secret())?;
    file.sync_all()?;
    std::fs::rename(&unfinished, &path)?;
    tracing::info!(path = %path.display(), "made a master key; keep a copy of it apart from the database's");
    Ok(key)
}

fn read_key(path: &Path) -> anyhow::Result<SecretString> {
    let mut text = String::new();
    let mut file =
        File::open(path).with_context(|| format!("opening the master key `{}`", path.display()))?;
    let mode = file.metadata()?.permissions().mode();
    ensure!(
        mode & OTHERS == 0,
        "others may read the master key `{}`; expected mode 0600 (`chmod 600` it)",
        path.display()
    );
    file.read_to_string(&mut text).with_context(|| format!("reading the master key `{}`", path.display()))?;
    Ok(SecretString::from(text.trim()))
}

/// `sqlite:data/zhilian.db?mode=rwc` → `data/zhilian.db`.
fn path_of(url: &str) -> anyhow::Result<PathBuf> {
    let path = url.strip_prefix("sqlite:").unwrap_or(url);
    let path = path.strip_prefix("//").unwrap_or(path);
    let path = path.split('?').next().unwrap_or_default();
    ensure!(
        !path.is_empty() && path != ":memory:",
        "a database in memory is gone with the process; expected `sqlite:PATH`"
    );
    Ok(PathBuf::from(path))
}

/// `data/zhilian.db` → `data/zhilian.db.lock`.
fn beside(database: &Path, extension: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_file_has_one_user() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("new/zhilian.db").display());
        let first = Place::of_url(&url).unwrap().lock().unwrap();
        let error = Place::of_url(&url).unwrap().lock().unwrap_err().to_string();
        assert!(error.contains("another process uses the database"), "{error}");
        drop(first);
        assert!(Place::of_url(&url).unwrap().lock().is_ok());
    }

    #[test]
    fn a_key_is_made_once_and_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::of_url(&format!("sqlite:{}", folder.path().join("a.db").display())).unwrap();
        let made = master_key(&place, false).unwrap();
        let path = folder.path().join("a.db.key");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = master_key(&place, true).unwrap();
        assert_eq!(made.expose_secret(), read.expose_secret());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(master_key(&place, true).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn a_lost_key_is_not_replaced_over_old_data() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::of_url(&format!("sqlite:{}", folder.path().join("a.db").display())).unwrap();
        let error = master_key(&place, true).unwrap_err().to_string();
        assert!(error.contains("put it back"), "{error}");
        assert!(!folder.path().join("a.db.key").exists());
    }

    #[test]
    fn the_path_is_what_sqlx_makes_of_the_url() {
        for url in ["sqlite:data/z.db", "sqlite://data/z.db", "sqlite:data/z.db?mode=rwc"] {
            assert_eq!(path_of(url).unwrap(), Path::new("data/z.db"));
        }
        assert!(path_of("sqlite::memory:").is_err());
    }
}
