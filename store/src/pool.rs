//! One handle over two databases: an enum of pools, and macros that run one Rust body on whichever
//! it is. Everything else in this package goes through here.
//!
//! SQLite has one writer, so it has two pools: one connection that writes, several that read and
//! cannot write. `synchronous=FULL`, because an answered webhook must survive a power cut.

use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Postgres, Sqlite, Transaction};

use crate::clock::Clock;
use crate::error::StoreError;
use crate::vault::Vault;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// The oldest PostgreSQL that is tested and supported.
const POSTGRES_VERSION_MIN: i32 = 140_000;
/// How long a statement may take before PostgreSQL ends it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a statement may wait for a row that another transaction holds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    /// The embedded default.
    Sqlite,
    /// For several processes.
    Postgres,
}

/// The connections.
#[derive(Debug, Clone)]
pub enum Pool {
    /// `PostgreSQL`.
    Postgres(PgPool),
    /// `SQLite`: the only writer, and the readers.
    Sqlite {
        /// Several connections that refuse to write.
        read: SqlitePool,
        /// One connection.
        write: SqlitePool,
    },
}

/// How many connections, and how long to wait for one.
#[derive(Debug, Clone, Copy)]
pub struct PoolOptions {
    /// Connections to `PostgreSQL`, or readers of `SQLite`.
    pub connections_max: u32,
    /// How long a caller waits for a free connection before it is told that the database is busy.
    pub acquire_timeout: Duration,
    /// How long a process may fall silent inside a transaction before `PostgreSQL` ends it: a process
    /// that stands still must not hold a run's row for longer than its lease.
    pub silence_timeout: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            connections_max: 16,
            acquire_timeout: Duration::from_secs(5),
            silence_timeout: Duration::from_secs(10),
        }
    }
}

/// The database, the time and the keys: what every function of this package needs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
    clock: Clock,
    vault: Vault,
}

/// A transaction on either database; dropped without [`Tx::commit`] it is rolled back.
#[derive(Debug)]
pub enum Tx {
    /// On `PostgreSQL`.
    Postgres(Transaction<'static, Postgres>),
    /// On `SQLite`, holding the write lock.
    Sqlite(Transaction<'static, Sqlite>),
}

/// A connection to `PostgreSQL` for one statement, closed unless somebody waited for its end.
///
/// A statement that nobody waits for any more goes on at the server, or in a network that swallows it, for a
/// long time. Given back to the pool its connection would hold a place for as long, and the pool would be out
/// of them long after the database is back.
#[derive(Debug)]
pub struct Held(Option<PoolConnection<Postgres>>);

impl Held {
    /// One of the pool's.
    pub async fn of(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self(Some(pool.acquire().await?)))
    }

    /// The connection.
    ///
    /// # Panics
    ///
    /// Never: only [`Held::release`], which consumes it, takes it out.
    pub fn connection(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("it is there until it is released")
    }

    /// Gives it back: its statement has ended, well or not.
    pub fn release(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut connection) = self.0.take() {
            connection.close_on_drop();
        }
    }
}

/// Runs a body with a connection to `PostgreSQL` that is given back when the body has ended; a part of
/// `on_read!` and `on_write!`.
#[macro_export]
macro_rules! on_held {
    ($pool:expr, |$executor:ident| $body:expr) => {
        match $crate::Held::of($pool).await {
            Ok(mut held) => {
                let $executor = held.connection();
                let done = $body;
                held.release();
                done
            }
            Err(error) => Err(error),
        }
    };
}

/// Runs a body with an executor for reading.
#[macro_export]
macro_rules! on_read {
    ($store:expr, |$executor:ident| $body:expr) => {
        match $store.pool() {
            $crate::Pool::Postgres(pool) => $crate::on_held!(pool, |$executor| $body),
            $crate::Pool::Sqlite { read: $executor, .. } => $body,
        }
    };
}

/// Runs a body with an executor for writing one statement outside a transaction.
#[macro_export]
macro_rules! on_write {
    ($store:expr, |$executor:ident| $body:expr) => {
        match $store.pool() {
            $crate::Pool::Postgres(pool) => $crate::on_held!(pool, |$executor| $body),
            $crate::Pool::Sqlite { write: $executor, .. } => $body,
        }
    };
}

/// Runs a body with the connection of a transaction.
#[macro_export]
macro_rules! on_tx {
    ($tx:expr, |$executor:ident| $body:expr) => {
        match $tx {
            $crate::Tx::Postgres(transaction) => {
                let $executor = &mut **transaction;
                $body
            }
            $crate::Tx::Sqlite(transaction) => {
                let $executor = &mut **transaction;
                $body
            }
        }
    };
}

impl Pool {
    /// Connects by URL: `sqlite:path/to/file.db`, or `postgres://user:password@host/database`.
    ///
    /// A malformed URL, an unknown scheme or a `PostgreSQL` older than 14 is [`StoreError::Setup`]; the
    /// text never holds the URL, because it may hold a password.
    pub async fn connect(url: &str, options: PoolOptions) -> Result<Self, StoreError> {
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            connect_postgres(url, options).await
        } else if url.starts_with("sqlite:") {
            connect_sqlite(url, options).await
        } else {
            let scheme = url.split(':').next().unwrap_or_default();
            Err(StoreError::Setup(format!(
                "the database URL starts with `{scheme}`; expected `sqlite:path/to/file.db` or \
                 `postgres://user:password@host/database`"
            )))
        }
    }

    /// Brings the schema up to date; several processes may call it at once.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match self {
            // PostgreSQL holds an advisory lock meanwhile.
            Self::Postgres(pool) => MIGRATIONS.run(pool).await,
            // SQLite is held by this process alone.
            Self::Sqlite { write, .. } => MIGRATIONS.run(write).await,
        }
        .map_err(|error| StoreError::Setup(format!("migrating the database: {error}")))
    }

    /// Which database it is.
    #[must_use]
    pub const fn kind(&self) -> DatabaseKind {
        match self {
            Self::Postgres(_) => DatabaseKind::Postgres,
            Self::Sqlite { .. } => DatabaseKind::Sqlite,
        }
    }
}

async fn connect_postgres(url: &str, options: PoolOptions) -> Result<Pool, StoreError> {
    let connect = PgConnectOptions::from_str(url)
        .map_err(|_| {
            StoreError::Setup(
                "the database URL is malformed; expected `postgres://user:password@host:5432/database`"
                    .into(),
            )
        })?
        .application_name("zhilian-sync")
        .options([
            ("statement_timeout", STATEMENT_TIMEOUT.as_millis().to_string()),
            ("lock_timeout", LOCK_TIMEOUT.as_millis().to_string()),
            ("idle_in_transaction_session_timeout", options.silence_timeout.as_millis().to_string()),
            ("timezone", "UTC".to_owned()),
        ]);
    let pool = PgPoolOptions::new()
        .max_connections(options.connections_max)
        .acquire_timeout(options.acquire_timeout)
        .connect_with(connect)
        .await?;
    let version: i32 = sqlx::query_scalar(POSTGRES_VERSION).fetch_one(&pool).await?;
    if version < POSTGRES_VERSION_MIN {
        return Err(StoreError::Setup(format!(
            "PostgreSQL {} is too old; expected 14 or newer",
            version / 10_000
        )));
    }
    Ok(Pool::Postgres(pool))
}

/// Only `PostgreSQL` is asked for its version.
const POSTGRES_VERSION: &str = "SELECT CAST(current_setting('server_version_num') AS INTEGER)";

async fn connect_sqlite(url: &str, options: PoolOptions) -> Result<Pool, StoreError> {
    let connect = SqliteConnectOptions::from_str(url)
        .map_err(|_| {
            StoreError::Setup("the database URL is malformed; expected `sqlite:path/to/file.db`".into())
        })?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(options.acquire_timeout)
        .pragma("temp_store", "memory")
        .pragma("cache_size", "-8000")
        .statement_cache_capacity(256);
    // A connection that is never closed for idleness: opening one anew costs more than keeping it.
    let write = SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .acquire_timeout(options.acquire_timeout)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(connect.clone())
        .await?;
    let read = SqlitePoolOptions::new()
        .max_connections(options.connections_max.clamp(1, 8))
        .acquire_timeout(options.acquire_timeout)
        .connect_with(connect.pragma("query_only", "on"))
        .await?;
    Ok(Pool::Sqlite { read, write })
}

impl Store {
    /// Puts the three together; the schema must be up to date.
    #[must_use]
    pub const fn new(pool: Pool, clock: Clock, vault: Vault) -> Self {
        Self { pool, clock, vault }
    }

    /// The connections, for the macros.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The same database over connections of its own, so that nobody else's statements stand before these. On
    /// `SQLite` they are the same connections: there is one writer whoever asks.
    ///
    /// They wait no longer than `lock_timeout` for a row that somebody holds. And they are not asked whether they
    /// still live before each use, as pools do: for whoever answers thousands of requests a second that is a round
    /// trip for each commit. A dead one is [`StoreError::Busy`], once.
    #[must_use]
    pub fn apart(&self, connections_max: u32, lock_timeout: Duration) -> Self {
        let Pool::Postgres(pool) = &self.pool else { return self.clone() };
        let connect = pool.connect_options().as_ref().clone();
        let connect = connect.options([("lock_timeout", lock_timeout.as_millis().to_string())]);
        let apart = PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(pool.options().get_acquire_timeout())
            .test_before_acquire(false)
            .connect_lazy_with(connect);
        Self { pool: Pool::Postgres(apart), clock: self.clock.clone(), vault: self.vault.clone() }
    }

    /// The time.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The keys.
    #[must_use]
    pub const fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Begins a transaction; on `SQLite` it takes the write lock at once, so it is never refused
    /// half-way.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match &self.pool {
            Pool::Postgres(pool) => Tx::Postgres(pool.begin().await?),
            Pool::Sqlite { write, .. } => Tx::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?),
        })
    }

    /// Whether the database answers and has the schema this program was built with.
    pub async fn check(&self) -> Result<(), StoreError> {
        let applied: i64 = on_read!(self, |ex| sqlx::query_scalar(MIGRATIONS_APPLIED).fetch_one(ex).await)?;
        let expected = i64::try_from(MIGRATIONS.iter().count()).unwrap_or(i64::MAX);
        if applied < expected {
            return Err(StoreError::Setup(format!(
                "{applied} of {expected} migrations are applied; run `zhilian-sync migrate`"
            )));
        }
        Ok(())
    }

    /// Brings the clock to the database's time, where several processes share one, and says how far
    /// this machine's own clock is off. Half the round trip is taken as the way of the answer.
    pub async fn follow_database_time(&self) -> Result<chrono::TimeDelta, StoreError> {
        let Pool::Postgres(pool) = &self.pool else {
            return Ok(chrono::TimeDelta::zero());
        };
        let before = self.clock.now() - self.clock.offset();
        let theirs: i64 = sqlx::query_scalar(POSTGRES_TIME).fetch_one(pool).await?;
        let after = self.clock.now() - self.clock.offset();
        let ours = before.timestamp_millis() + (after - before).num_milliseconds() / 2;
        let offset = chrono::TimeDelta::milliseconds(theirs - ours);
        self.clock.set_offset(offset);
        Ok(offset)
    }

    /// Closes every connection, waiting for those in use.
    pub async fn close(&self) {
        match &self.pool {
            Pool::Postgres(pool) => pool.close().await,
            Pool::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
        }
    }
}

const MIGRATIONS_APPLIED: &str = "SELECT COUNT(*) FROM _sqlx_migrations WHERE success";

/// The one question for the database's own time; everything else is bound from the clock.
const POSTGRES_TIME: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

impl Tx {
    /// Commits. When the connection breaks before the answer, the outcome is unknown and the error
    /// says so.
    pub async fn commit(self) -> Result<(), StoreError> {
        let result = match self {
            Self::Postgres(transaction) => transaction.commit().await,
            Self::Sqlite(transaction) => transaction.commit().await,
        };
        result.map_err(|error| match StoreError::from(error) {
            StoreError::Busy(
                error @ (sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_)),
            ) => StoreError::CommitUnknown(error),
            other => other,
        })
    }
}
