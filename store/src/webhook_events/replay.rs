//! Replay: events are applied once more because somebody asks for it, one by one or by filter in bites.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::WebhookState;
use super::list::{EventFilter, PAGE_MAX, push_filter};
use crate::error::StoreError;
use crate::ids::EventId;
use crate::on_tx;
use crate::pool::Tx;

/// What a replay does to a row: what it did and why it failed is forgotten, the deliveries are not.
macro_rules! replay {
    () => {
        "UPDATE webhook_events SET state = 'pending', result = NULL, error_code = NULL, error_message = NULL, \
         attempt = 0, claim_no = claim_no + 1, ended_at = NULL, "
    };
}

/// Which events may be replayed: accepted ones that nobody works on.
macro_rules! replayable {
    () => {
        " AND state <> 'quarantined' AND lease_until IS NULL"
    };
}

pub(crate) const REPLAY: &str = concat!(replay!(), "forced = $2, run_at = $3 WHERE id = $1", replayable!());

/// Makes an event due once more, with all its attempts; `forced` lets it overwrite what is newer.
/// `false` when it is in quarantine, somebody works on it, or it does not exist.
pub async fn replay(tx: &mut Tx, id: EventId, forced: bool, now: DateTime<Utc>) -> Result<bool, StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(REPLAY)
        .bind(id)
        .bind(forced)
        .bind(now)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(affected == 1)
}

macro_rules! choose {
    ($filter:expr, $after:expr, $limit:expr, $lock:expr, $executor:expr) => {{
        let mut query = QueryBuilder::new(concat!("SELECT id FROM webhook_events WHERE TRUE", replayable!()));
        push_filter!(query, $filter);
        if let Some(after) = $after {
            query.push(" AND id > ").push_bind(after);
        }
        query.push(" ORDER BY id LIMIT ").push_bind($limit).push($lock);
        query.build_query_scalar::<EventId>().fetch_all($executor).await
    }};
}

/// Makes the events that a filter means due once more, those after `after` in the order of their ids, at
/// most `limit` (and at most [`PAGE_MAX`]); `before` and `limit` of the filter do not count.
///
/// None of them is forced: several workers apply them at once and in any order, so whichever of two forced
/// versions of a record came last would stay.
///
/// Gives how many there were, and the last of them, after which the next bite begins; no last means that
/// there are no more.
pub async fn replay_some(
    tx: &mut Tx,
    filter: &EventFilter<'_>,
    after: Option<EventId>,
    limit: i64,
    now: DateTime<Utc>,
) -> Result<(u64, Option<EventId>), StoreError> {
    let limit = limit.min(PAGE_MAX);
    let ids: Vec<EventId> = match tx {
        // Held in the order of their ids.
        Tx::Postgres(tx) => choose!(filter, after, limit, " FOR UPDATE", &mut **tx)?,
        // There is one writer.
        Tx::Sqlite(tx) => choose!(filter, after, limit, "", &mut **tx)?,
    };
    if ids.is_empty() {
        return Ok((0, None));
    }
    let changed = on_tx!(tx, |ex| {
        let mut query = QueryBuilder::new(concat!(replay!(), "forced = FALSE, run_at = "));
        query.push_bind(now).push(" WHERE id IN (");
        let mut list = query.separated(", ");
        for id in &ids {
            list.push_bind(*id);
        }
        query.push(")");
        query.build().persistent(false).execute(ex).await.map(|done| done.rows_affected())
    })?;
    Ok((changed, ids.last().copied()))
}
