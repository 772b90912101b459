//! How rows of vendor records are inserted: the columns of a table are named once, and both databases get the
//! statement that suits them.
//!
//! `PostgreSQL` takes one array for each column (`UNNEST`): the text is the same for any number of rows, so it is
//! parsed once for each connection; a list of values with its thousands of parameters would be parsed
//! for each page, which takes longer than writing it. `SQLite`, to which there is no way, takes a list of values.

/// Makes `insert` for a table from its columns, each with the database's type and its value.
///
/// `insert(tx, rows, rest)` inserts rows in the order in which they are given; `rest` says what a conflict does and
/// which rows are told.
macro_rules! insertion {
    ($table:literal, |$row:ident: &$row_type:ty| {
        $first:ident $first_type:literal = $first_value:expr,
        $($column:ident $type:literal = $value:expr,)+
    }) => {
        async fn insert(
            tx: &mut $crate::pool::Tx,
            rows: &[&$row_type],
            rest: &[&'static str],
        ) -> Result<Vec<$crate::record_batches::ChangedRow>, $crate::error::StoreError> {
            const INSERT: &str = concat!(
                "INSERT INTO ", $table, " (", stringify!($first), $(", ", stringify!($column)),+, ") "
            );
            let changed = match tx {
                $crate::pool::Tx::Postgres(tx) => {
                    let mut query = sqlx::QueryBuilder::<sqlx::Postgres>::new(INSERT);
                    query.push("SELECT * FROM UNNEST(");
                    let mut columns = query.separated(", ");
                    columns
                        .push("CAST(")
                        .push_bind_unseparated(rows.iter().map(|$row| $first_value).collect::<Vec<_>>())
                        .push_unseparated(concat!(" AS ", $first_type, "[])"))
                        $(
                            .push("CAST(")
                            .push_bind_unseparated(rows.iter().map(|$row| $value).collect::<Vec<_>>())
                            .push_unseparated(concat!(" AS ", $type, "[])"))
                        )+;
                    query.push(")");
                    for part in rest {
                        query.push(part);
                    }
                    query.build_query_as().fetch_all(&mut **tx).await
                }
                $crate::pool::Tx::Sqlite(tx) => {
                    let mut query = sqlx::QueryBuilder::<sqlx::Sqlite>::new(INSERT);
                    query.push_values(rows, |mut values, $row| {
                        values.push_bind($first_value)$(.push_bind($value))+;
                    });
                    for part in rest {
                        query.push(part);
                    }
                    // Not persistent: every number of rows is a text of its own, and keeping them prepared
                    // would cost each connection megabytes.
                    query.build_query_as().persistent(false).fetch_all(&mut **tx).await
                }
            };
            Ok(changed?)
        }
    };
}
pub(crate) use insertion;
