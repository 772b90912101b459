//! The schema itself: one migration folder must mean the same on both databases.

use sqlx::Row;
use zhilian_sync_store::{Pool, Store};

/// Tables, columns, types and indexes as lines of text; how they are asked for differs, what comes out
/// must not.
async fn describe(store: &Store) -> String {
    let columns = match store.pool() {
        Pool::Postgres(pool) => sqlx::query(
            "SELECT table_name::text, column_name::text,
                    CASE data_type WHEN 'timestamp with time zone' THEN 'TIMESTAMPTZ' ELSE upper(data_type) END,
                    is_nullable = 'NO'
             FROM information_schema.columns WHERE table_schema = 'public'",
        )
        .fetch_all(pool)
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get::<String, _>(0), row.get::<String, _>(1), row.get::<String, _>(2), row.get(3)))
        .collect::<Vec<(String, String, String, bool)>>(),
        Pool::Sqlite { read, .. } => sqlx::query(
            "SELECT tables.name, columns.name, columns.type, columns.\"notnull\" OR columns.pk > 0
             FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns WHERE tables.type = 'table'",
        )
        .fetch_all(read)
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect(),
    };
    let indexes: Vec<(String, String)> = match store.pool() {
        Pool::Postgres(pool) => sqlx::query_as(
            "SELECT tablename::text, indexname::text FROM pg_indexes WHERE schemaname = 'public'
             AND indexname NOT IN (SELECT conname FROM pg_constraint)",
        )
        .fetch_all(pool)
        .await
        .unwrap(),
        Pool::Sqlite { read, .. } => sqlx::query_as(
            "SELECT tbl_name, name FROM sqlite_master WHERE type = 'index' AND name NOT LIKE 'sqlite_autoindex%'",
        )
        .fetch_all(read)
        .await
        .unwrap(),
    };
    let mut lines: Vec<String> = columns
        .into_iter()
        .map(|(table, column, kind, required)| {
            format!("{table}.{column} {kind}{}", if required { " NOT NULL" } else { "" })
        })
        .chain(indexes.into_iter().map(|(table, index)| format!("{table} INDEX {index}")))
        // The migrator's own table is each driver's business.
        .filter(|line| !line.starts_with("_sqlx_migrations"))
        .collect();
    lines.sort();
    lines.join("\n")
}

pub(crate) async fn both_databases_have_the_same_schema(store: Store) {
    let schema = describe(&store).await;
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "../snapshots" }, {
        insta::assert_snapshot!("schema", schema);
    });
}

pub(crate) async fn migrating_again_changes_nothing(store: Store) {
    let before = describe(&store).await;
    store.pool().migrate().await.unwrap();
    assert_eq!(describe(&store).await, before);
    store.check().await.unwrap();
}
