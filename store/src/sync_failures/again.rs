//! Trying failures again: those that are open, bite by bite, and what became of each.
//!
//! Between the reading of a bite and its writing the vendor may tell a record anew. So a change names the
//! failure as it was read, by how often it had failed: a newer telling is left alone.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{FailureStage, PAGE_MAX, SyncFailure, shortened};
use crate::clock::Clock;
use crate::error::StoreError;
use crate::ids::{SystemId, beyond};
use crate::pool::{Store, Tx};
use crate::{on_read, on_tx};

/// Which failures are tried again.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Of this system.
    pub system_id: SystemId,
    /// Only of this stream.
    pub stream: Option<&'a str>,
    /// Only those that were there at this time.
    pub until: DateTime<Utc>,
}

/// So much text of records is read at a time; one record may be larger.
const BITE_CHARS_MAX: i64 = 8_000_000;

macro_rules! open_body {
    ($columns:literal, $row:ty, $wanted:expr, $after:expr, $last:expr, $limit:expr, $executor:expr) => {{
        let mut query = QueryBuilder::new(concat!(
            "SELECT ",
            $columns,
            " FROM sync_failures WHERE resolved_at IS NULL AND system_id = "
        ));
        query.push_bind($wanted.system_id);
        if let Some(stream) = $wanted.stream {
            query.push(" AND stream = ").push_bind(stream.to_owned());
        }
        query.push(" AND created_at <= ").push_bind($wanted.until);
        query.push(" AND id <= ").push_bind($last);
        query.push(" AND id > ").push_bind($after.unwrap_or(Uuid::nil()));
        query.push(" ORDER BY id LIMIT ").push_bind($limit);
        query.build_query_as::<$row>().fetch_all($executor).await
    }};
}

/// Open failures in the order of their ids, those after `after`, at most [`PAGE_MAX`], and fewer of large records.
/// None means that there are no more.
pub async fn list_to_try(
    store: &Store,
    wanted: Wanted<'_>,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Vec<SyncFailure>, StoreError> {
    let limit = i64::from(limit.min(PAGE_MAX));
    let last = beyond(wanted.until);
    let sizes: Vec<(Uuid, i64)> = on_read!(store, |ex| open_body!(
        "id, CAST(LENGTH(raw) AS BIGINT)",
        (Uuid, i64),
        wanted,
        after,
        last,
        limit,
        ex
    ))?;
    let mut chars = 0;
    let fits = sizes.iter().take_while(|(_, size)| {
        let begun = chars;
        chars += size;
        begun == 0 || chars <= BITE_CHARS_MAX
    });
    let Some((last, _)) = fits.last() else { return Ok(Vec::new()) };
    Ok(on_read!(store, |ex| open_body!("*", SyncFailure, wanted, after, *last, limit, ex))?)
}

pub(crate) const MEND: &str = "UPDATE sync_failures SET resolved_at = $3, updated_at = $3 \
    WHERE id = $1 AND occurrences = $2 AND resolved_at IS NULL";

/// Resolves a failure that was tried again; `false` when it is another than was read.
pub async fn mend(tx: &mut Tx, clock: &Clock, failure: &SyncFailure) -> Result<bool, StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(MEND)
        .bind(failure.id)
        .bind(failure.occurrences)
        .bind(clock.now())
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(affected == 1)
}

// When the vendor told it, how often and in which run stay: nothing new was heard of the record.
pub(crate) const RESTATE: &str = "UPDATE sync_failures SET stage = $3, reason = $4 \
    WHERE id = $1 AND occurrences = $2 AND resolved_at IS NULL";

/// Says why a failure that was tried again stays open; `false` when it is another than was read.
pub async fn restate(
    tx: &mut Tx,
    failure: &SyncFailure,
    stage: FailureStage,
    reason: &str,
) -> Result<bool, StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(RESTATE)
        .bind(failure.id)
        .bind(failure.occurrences)
        .bind(stage)
        .bind(shortened(reason))
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(affected == 1)
}
