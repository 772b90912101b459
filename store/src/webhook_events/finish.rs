//! How a claim ends: what came of each event of a batch, in one statement that is also the fence. And
//! how old events go.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::{EventResult, WebhookState, shortened};
use crate::error::StoreError;
use crate::ids::{EventId, RunId};
use crate::on_write;
use crate::pool::{Pool, Store, Tx};

/// What came of one claimed event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The event.
    pub id: EventId,
    /// The number of the claim.
    pub claim_no: i64,
    /// What came of it.
    pub end: End,
}

/// How a claim on an event ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It is done.
    Applied {
        /// What it did.
        result: EventResult,
        /// The log row it is counted in.
        sync_log_id: Option<RunId>,
        /// What is worth knowing although it is done: a stable code, and words for people.
        note: Option<(&'static str, String)>,
    },
    /// It failed and is tried again.
    Retry {
        /// Not before this time.
        run_at: DateTime<Utc>,
        /// Why; stable, for programs.
        code: &'static str,
        /// Why, for people.
        message: String,
    },
    /// It failed for good.
    Dead {
        /// Why; stable, for programs.
        code: &'static str,
        /// Why, for people.
        message: String,
    },
    /// Nothing was tried: its attempt is given back.
    GiveBack {
        /// Not before this time.
        run_at: DateTime<Utc>,
    },
    /// It waits for something that is not its own fault: its attempt is given back, and people see why.
    PutOff {
        /// Not before this time.
        run_at: DateTime<Utc>,
        /// Why; stable, for programs.
        code: &'static str,
        /// Why, for people.
        message: String,
    },
}

/// An outcome as columns.
struct Columns {
    state: WebhookState,
    result: Option<EventResult>,
    error_code: Option<&'static str>,
    error_message: Option<String>,
    run_at: Option<DateTime<Utc>>,
    given_back: i64,
    sync_log_id: Option<RunId>,
    ended_at: Option<DateTime<Utc>>,
}

impl End {
    fn columns(&self, now: DateTime<Utc>) -> Columns {
        let (state, error) = match self {
            Self::Applied { note, .. } => {
                (WebhookState::Applied, note.as_ref().map(|(code, message)| (*code, shortened(message))))
            }
            Self::Dead { code, message } => (WebhookState::Dead, Some((*code, shortened(message)))),
            Self::Retry { code, message, .. } | Self::PutOff { code, message, .. } => {
                (WebhookState::Pending, Some((*code, shortened(message))))
            }
            Self::GiveBack { .. } => (WebhookState::Pending, None),
        };
        let (result, sync_log_id) = match self {
            Self::Applied { result, sync_log_id, .. } => (Some(*result), *sync_log_id),
            _ => (None, None),
        };
        let run_at = match self {
            Self::Retry { run_at, .. } | Self::GiveBack { run_at } | Self::PutOff { run_at, .. } => {
                Some(*run_at)
            }
            Self::Applied { .. } | Self::Dead { .. } => None,
        };
        let (error_code, error_message) = error.unzip();
        Columns {
            state,
            result,
            error_code,
            error_message,
            run_at,
            given_back: i64::from(matches!(self, Self::GiveBack { .. } | Self::PutOff { .. })),
            sync_log_id,
            ended_at: (state != WebhookState::Pending).then_some(now),
        }
    }
}

// An attempt that is given back without a word leaves the error of the one before.
macro_rules! mark {
    ($id:literal, $claim_no:literal, $state:literal, $result:literal, $code:literal, $message:literal, $run_at:literal,
     $given_back:literal, $sync_log_id:literal, $ended_at:literal, $from:literal, $only_if:literal) => {
        concat!(
            "UPDATE webhook_events SET state = ",
            $state,
            ", result = ",
            $result,
            ", error_code = CASE WHEN ",
            $given_back,
            " = 1 THEN COALESCE(",
            $code,
            ", webhook_events.error_code) ELSE ",
            $code,
            " END, error_message = CASE WHEN ",
            $given_back,
            " = 1 THEN COALESCE(",
            $message,
            ", webhook_events.error_message) ELSE ",
            $message,
            " END, run_at = COALESCE(",
            $run_at,
            ", webhook_events.run_at), attempt = webhook_events.attempt - ",
            $given_back,
            ", lease_until = NULL, sync_log_id = ",
            $sync_log_id,
            ", ended_at = ",
            $ended_at,
            $from,
            " WHERE webhook_events.id = ",
            $id,
            " AND webhook_events.claim_no = ",
            $claim_no,
            $only_if
        )
    };
}

macro_rules! mark_one {
    ($sync_log_id:literal, $only_if:literal) => {
        mark!(
            "$1",
            "$2",
            "$3",
            "$4",
            "$5",
            "$6",
            "$7",
            "CAST($8 AS BIGINT)",
            $sync_log_id,
            "$10",
            "",
            $only_if
        )
    };
}

// The rows are locked in the order of their ids first. They are only counted: joined, they would be compared
// each with each.
macro_rules! mark_many {
    ($sync_log_id:literal, $only_if:literal) => {
        concat!(
            "WITH given AS (SELECT * FROM UNNEST(CAST($1 AS UUID[]), CAST($2 AS BIGINT[]), CAST($3 AS TEXT[]), \
             CAST($4 AS TEXT[]), CAST($5 AS TEXT[]), CAST($6 AS TEXT[]), CAST($7 AS TIMESTAMPTZ[]), CAST($8 AS BIGINT[]), \
             CAST($9 AS UUID[]), CAST($10 AS TIMESTAMPTZ[])) AS given (id, claim_no, state, result, error_code, error_message, \
             run_at, given_back, sync_log_id, ended_at)), \
             locked AS MATERIALIZED (SELECT webhook_events.id FROM webhook_events \
             WHERE webhook_events.id = ANY(CAST($1 AS UUID[])) ORDER BY webhook_events.id FOR UPDATE) ",
            mark!(
                "given.id",
                "given.claim_no",
                "given.state",
                "given.result",
                "given.error_code",
                "given.error_message",
                "given.run_at",
                "given.given_back",
                $sync_log_id,
                "given.ended_at",
                " FROM given",
                $only_if
            ),
            " AND (SELECT COUNT(*) FROM locked) > 0 RETURNING webhook_events.id"
        )
    };
}

// The log of an earlier time is kept until there is another. What is not leased has been marked before: an
// outcome that is written twice would give an attempt back twice.
pub(crate) const MARK_ONE: &str = mark_one!(
    "COALESCE($9, webhook_events.sync_log_id)",
    " AND webhook_events.state = 'pending' AND webhook_events.lease_until IS NOT NULL"
);
const MARK_MANY: &str = mark_many!(
    "COALESCE(given.sync_log_id, webhook_events.sync_log_id)",
    " AND webhook_events.state = 'pending' AND webhook_events.lease_until IS NOT NULL"
);
// What was marked a moment ago is not kept.
pub(crate) const AMEND_ONE: &str = mark_one!("$9", "");
const AMEND_MANY: &str = mark_many!("given.sync_log_id", "");

/// Writes what came of claimed events; those it gives back were still this worker's.
///
/// The first statement of the transaction that applies them: it holds their rows until the commit, and
/// only what the marked ones did may be committed.
pub async fn mark(
    tx: &mut Tx,
    outcomes: &[Outcome],
    now: DateTime<Utc>,
) -> Result<HashSet<EventId>, StoreError> {
    write_outcomes(tx, outcomes, now, MARK_MANY, MARK_ONE).await
}

/// Writes over what [`mark()`] has said of some events in this very transaction, which found out on the way
/// that they end otherwise.
pub async fn amend(tx: &mut Tx, outcomes: &[Outcome], now: DateTime<Utc>) -> Result<(), StoreError> {
    write_outcomes(tx, outcomes, now, AMEND_MANY, AMEND_ONE).await.map(drop)
}

async fn write_outcomes(
    tx: &mut Tx,
    outcomes: &[Outcome],
    now: DateTime<Utc>,
    many: &'static str,
    one: &'static str,
) -> Result<HashSet<EventId>, StoreError> {
    if outcomes.is_empty() {
        return Ok(HashSet::new());
    }
    let rows: Vec<(&Outcome, Columns)> =
        outcomes.iter().map(|outcome| (outcome, outcome.end.columns(now))).collect();
    match tx {
        Tx::Postgres(tx) => mark_many(tx, &rows, many).await,
        // No arrays: one by one.
        Tx::Sqlite(tx) => mark_each(tx, &rows, one).await,
    }
}

async fn mark_many(
    connection: &mut sqlx::PgConnection,
    rows: &[(&Outcome, Columns)],
    statement: &'static str,
) -> Result<HashSet<EventId>, StoreError> {
    let columns = || rows.iter().map(|(_, columns)| columns);
    let marked: Vec<EventId> = sqlx::query_scalar(statement)
        .bind(rows.iter().map(|(outcome, _)| outcome.id.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|(outcome, _)| outcome.claim_no).collect::<Vec<_>>())
        .bind(columns().map(|row| row.state.as_str()).collect::<Vec<_>>())
        .bind(columns().map(|row| row.result.map(EventResult::as_str)).collect::<Vec<_>>())
        .bind(columns().map(|row| row.error_code).collect::<Vec<_>>())
        .bind(columns().map(|row| row.error_message.as_deref()).collect::<Vec<_>>())
        .bind(columns().map(|row| row.run_at).collect::<Vec<_>>())
        .bind(columns().map(|row| row.given_back).collect::<Vec<_>>())
        .bind(columns().map(|row| row.sync_log_id.map(|id| id.0)).collect::<Vec<_>>())
        .bind(columns().map(|row| row.ended_at).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    Ok(marked.into_iter().collect())
}

async fn mark_each(
    connection: &mut sqlx::SqliteConnection,
    rows: &[(&Outcome, Columns)],
    statement: &'static str,
) -> Result<HashSet<EventId>, StoreError> {
    let mut marked = HashSet::with_capacity(rows.len());
    for (outcome, row) in rows {
        let done = sqlx::query(statement)
            .bind(outcome.id)
            .bind(outcome.claim_no)
            .bind(row.state)
            .bind(row.result)
            .bind(row.error_code)
            .bind(row.error_message.as_deref())
            .bind(row.run_at)
            .bind(row.given_back)
            .bind(row.sync_log_id)
            .bind(row.ended_at)
            .execute(&mut *connection)
            .await?;
        if done.rows_affected() == 1 {
            marked.insert(outcome.id);
        }
    }
    Ok(marked)
}

macro_rules! purge {
    ($lock:literal) => {
        concat!(
            "DELETE FROM webhook_events WHERE id IN (SELECT id FROM webhook_events WHERE id < $1 \
             AND received_at < $2 AND state <> 'pending' ORDER BY id LIMIT $3",
            $lock,
            ")"
        )
    };
}

pub(crate) const PURGE: &str = purge!("");
const PURGE_SKIPPING: &str = purge!(" FOR UPDATE SKIP LOCKED");

/// Deletes events that were received before a time and wait for nothing, at most `limit`; how many.
/// Quarantined ones go too: nobody mended their secret for as long as events are kept at all.
pub async fn purge(store: &Store, received_before: DateTime<Utc>, limit: i64) -> Result<u64, StoreError> {
    let statement = match store.pool() {
        // What somebody holds goes the next time.
        Pool::Postgres(_) => PURGE_SKIPPING,
        // There is one writer.
        Pool::Sqlite { .. } => PURGE,
    };
    Ok(on_write!(store, |ex| sqlx::query(statement)
        .bind(crate::ids::beyond(received_before))
        .bind(received_before)
        .bind(limit)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}
