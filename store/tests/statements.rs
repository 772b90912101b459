//! Every fixed statement is prepared by both databases: a misspelt column, or a word that one of the
//! two does not know, fails here in milliseconds and not in production.

use std::collections::BTreeSet;

use sqlx::{Column, Either, Executor, SqlSafeStr};
use zhilian_sync_store::{Clock, Pool, statements, testing};

/// How many parameters a statement has, and the names of the columns it gives; a computed column, which
/// each database names in its own way, has none.
type Shape = (usize, Vec<String>);

macro_rules! describe {
    ($connection:expr, $sql:expr) => {
        $connection.describe($sql.into_sql_str()).await.map(|described| -> Shape {
            let parameters = match described.parameters() {
                Some(Either::Left(types)) => types.len(),
                Some(Either::Right(count)) => count,
                None => 0,
            };
            (parameters, described.columns().iter().map(|column| name(column.name())).collect())
        })
    };
}

fn name(column: &str) -> String {
    let computed = column.contains('(') || ["count", "exists"].contains(&column);
    if computed { String::new() } else { column.to_owned() }
}

/// The shape of every statement; the mistakes of all of them are reported together.
async fn shapes(pool: &Pool) -> Vec<(&'static str, Shape)> {
    let mut shapes = Vec::new();
    let mut mistakes = Vec::new();
    for (name, sql) in statements() {
        let described = match pool {
            Pool::Postgres(pool) => describe!(pool, sql),
            Pool::Sqlite { write, .. } => describe!(write, sql),
        };
        match described {
            Ok(shape) => shapes.push((name, shape)),
            Err(error) => mistakes.push(format!("{name}: {error}")),
        }
    }
    assert_eq!(mistakes, Vec::<String>::new());
    shapes
}

#[test]
fn every_statement_has_a_name_of_its_own() {
    let names: BTreeSet<_> = statements().iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), statements().len());
    assert!(names.len() > 60, "only {} statements are registered", names.len());
}

#[test]
fn no_statement_asks_the_database_for_the_time_or_reaches_into_json() {
    for (name, sql) in statements() {
        let sql = sql.to_lowercase();
        for banned in
            ["now()", "current_timestamp", "current_date", "datetime(", "strftime", "date_trunc", "->"]
        {
            assert!(!sql.contains(banned), "{name} contains `{banned}`; see migrations/README.md");
        }
    }
}

#[tokio::test]
async fn both_databases_describe_every_statement_alike() {
    let clock = Clock::fake(testing::noon());
    let sqlite = testing::sqlite(clock.clone()).await;
    let of_sqlite = shapes(sqlite.pool()).await;
    if let Some(postgres) = testing::postgres(clock).await {
        for (sqlite, postgres) in of_sqlite.iter().zip(shapes(postgres.pool()).await) {
            assert_eq!(*sqlite, postgres);
        }
    }
}

#[tokio::test]
async fn a_misspelt_column_is_noticed() {
    let db = testing::sqlite(Clock::fake(testing::noon())).await;
    let Pool::Sqlite { write, .. } = db.pool() else { panic!("this is SQLite") };
    assert!(describe!(write, "SELECT usernam FROM users WHERE id = $1").is_err());
    let (parameters, columns) = describe!(write, "SELECT username FROM users WHERE id = $1").unwrap();
    assert_eq!((parameters, columns), (1, vec!["username".to_owned()]));
}
