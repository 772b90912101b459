//! A fresh database for one test, on either engine, gone when the test ends. Only built with the
//! feature `testing`.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use sqlx::{Connection, Executor, PgConnection};

use crate::{Clock, Pool, PoolOptions, Store, Tx, Vault};

/// A store of its own for one test.
#[derive(Debug)]
pub struct TestStore {
    /// The store.
    pub store: Store,
    /// What a process would be started with to use the same database.
    pub url: String,
    cleanup: Cleanup,
}

#[derive(Debug)]
enum Cleanup {
    Directory(PathBuf),
    Database { admin_url: String, name: String },
}

impl std::ops::Deref for TestStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

/// A reference instant for fake clocks: a Sunday noon in UTC.
#[must_use]
pub fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_528_000, 0).unwrap_or_default()
}

/// A vault with a fixed key: what it seals can be looked for in the database.
#[must_use]
pub fn vault() -> Vault {
    Vault::new(vec![(1, [7; 32])], 1).expect("key 1 is in the list")
}

/// A fresh `SQLite` database in a directory of its own.
pub async fn sqlite(clock: Clock) -> TestStore {
    let directory = std::env::temp_dir().join(format!("zhilian-test-{}", clock.new_id().simple()));
    std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
    let url = format!("sqlite:{}", directory.join("zhilian.db").display());
    let pool = Pool::connect(&url, options()).await.expect("SQLite opens");
    pool.migrate().await.expect("the migrations apply");
    TestStore { store: Store::new(pool, clock, vault()), url, cleanup: Cleanup::Directory(directory) }
}

/// A fresh `PostgreSQL` database on the server that `TEST_DATABASE_URL` names.
///
/// Without the variable it says so and gives `None`, unless `ZHILIAN_REQUIRE_BACKENDS` is set: then
/// an absent backend is a failure.
#[expect(clippy::print_stderr, reason = "a skipped backend must be seen")]
pub async fn postgres(clock: Clock) -> Option<TestStore> {
    let Some(admin_url) = variable("TEST_DATABASE_URL") else {
        assert!(
            variable("ZHILIAN_REQUIRE_BACKENDS").is_none(),
            "TEST_DATABASE_URL is not set, and ZHILIAN_REQUIRE_BACKENDS demands PostgreSQL"
        );
        eprintln!("SKIPPED on PostgreSQL: TEST_DATABASE_URL is not set (scripts/test sets it)");
        return None;
    };
    let name = format!("zhilian_test_{}", clock.new_id().simple());
    let mut admin = PgConnection::connect(&admin_url).await.expect("TEST_DATABASE_URL is reachable");
    // Not an injection: the name is made of hexadecimal digits above.
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    admin.execute(create).await.expect("the server lets us create databases");
    let url = replace_database(&admin_url, &name);
    let pool = Pool::connect(&url, options()).await.expect("the new database opens");
    pool.migrate().await.expect("the migrations apply");
    Some(TestStore {
        store: Store::new(pool, clock, vault()),
        url,
        cleanup: Cleanup::Database { admin_url, name },
    })
}

/// A fresh store on every engine there is: `SQLite` always, `PostgreSQL` where it is given.
pub async fn every(clock: impl Fn() -> Clock) -> Vec<TestStore> {
    let mut stores = vec![sqlite(clock()).await];
    stores.extend(postgres(clock()).await);
    stores
}

/// Holds what every write to a table needs, until the transaction is dropped: on `SQLite` the one writer, on
/// `PostgreSQL` the table. Reading goes on.
pub async fn hold(store: &Store, table: &str) -> Tx {
    let mut tx = store.begin().await.expect("the database answers");
    if let Tx::Postgres(transaction) = &mut tx {
        let lock = sqlx::AssertSqlSafe(format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"));
        sqlx::raw_sql(lock).execute(&mut **transaction).await.expect("the table can be locked");
    }
    tx
}

/// Makes the database refuse rows of a table whose `column` is `poison`. How, differs: `SQLite` cannot add
/// a check to a table, and both errors must come out as the same refusal.
pub async fn refuse_poison(store: &Store, table: &str, column: &str) {
    match store.pool() {
        Pool::Postgres(pool) => {
            let check = format!("ALTER TABLE {table} ADD CONSTRAINT poison CHECK ({column} <> 'poison')");
            sqlx::raw_sql(sqlx::AssertSqlSafe(check)).execute(pool).await.expect("the check is made");
        }
        Pool::Sqlite { write, .. } => {
            let trigger = format!(
                "CREATE TRIGGER poison BEFORE INSERT ON {table} WHEN NEW.{column} = 'poison' \
                 BEGIN SELECT RAISE(ABORT, 'poison'); END"
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(write).await.expect("the trigger is made");
        }
    }
}

/// Makes the database refuse bytes other than none in a column of rows that are changed.
pub async fn refuse_filled(store: &Store, table: &str, column: &str) {
    match store.pool() {
        Pool::Postgres(pool) => {
            let check =
                format!("ALTER TABLE {table} ADD CONSTRAINT filled CHECK (octet_length({column}) = 0)");
            sqlx::raw_sql(sqlx::AssertSqlSafe(check)).execute(pool).await.expect("the check is made");
        }
        Pool::Sqlite { write, .. } => {
            let trigger = format!(
                "CREATE TRIGGER filled BEFORE UPDATE ON {table} WHEN length(NEW.{column}) > 0 \
                 BEGIN SELECT RAISE(ABORT, 'filled'); END"
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(write).await.expect("the trigger is made");
        }
    }
}

/// Every text of a column, in order.
pub async fn texts(store: &Store, table: &str, column: &str) -> Vec<String> {
    let select = sqlx::AssertSqlSafe(format!("SELECT {column} FROM {table} ORDER BY {column}"));
    match store.pool() {
        Pool::Postgres(pool) => sqlx::query_scalar(select).fetch_all(pool).await,
        Pool::Sqlite { read, .. } => sqlx::query_scalar(select).fetch_all(read).await,
    }
    .expect("the column is there")
}

/// Calls a table by another name, so that every statement about it fails until it is called as before.
pub async fn rename_table(store: &Store, from: &str, to: &str) {
    let rename = sqlx::AssertSqlSafe(format!("ALTER TABLE {from} RENAME TO {to}"));
    match store.pool() {
        Pool::Postgres(pool) => sqlx::raw_sql(rename).execute(pool).await.map(drop),
        Pool::Sqlite { write, .. } => sqlx::raw_sql(rename).execute(write).await.map(drop),
    }
    .expect("the table is renamed");
}

fn options() -> PoolOptions {
    PoolOptions {
        connections_max: 8,
        acquire_timeout: std::time::Duration::from_secs(30),
        ..PoolOptions::default()
    }
}

#[expect(clippy::disallowed_methods, reason = "tests are told their servers by the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The same server, another database: the path of the URL is replaced.
fn replace_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let authority = base.find("://").map_or(0, |at| at + 3);
    let end = base[authority..].find('/').map_or(base.len(), |at| authority + at);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{name}{query}", &base[..end])
}

impl Drop for TestStore {
    fn drop(&mut self) {
        match &self.cleanup {
            Cleanup::Directory(directory) => {
                let _ = std::fs::remove_dir_all(directory);
            }
            Cleanup::Database { admin_url, name } => {
                let (admin_url, name) = (admin_url.clone(), name.clone());
                // A runtime of its own: dropping happens where nothing can be awaited.
                let dropping = std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    let Ok(runtime) = runtime else { return };
                    runtime.block_on(async {
                        if let Ok(mut admin) = PgConnection::connect(&admin_url).await {
                            let drop =
                                sqlx::AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
                            let _ = admin.execute(drop).await;
                        }
                    });
                });
                let _ = dropping.join();
            }
        }
    }
}
