//! What is noticed in a run beside its outcome: written with its progress, and compared with the runs before it.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Claim, Run};
use crate::error::StoreError;
use crate::pool::{Store, Tx};
use crate::record_batches::clean;
use crate::{on_read, on_tx};

/// So many of the weeks before count.
const WEEKS: i32 = 4;
/// Runs of the same weekday count that were made within this of the same time of day: what is usual at noon says
/// nothing of the night.
const AROUND: TimeDelta = TimeDelta::minutes(90);
/// More runs than this say nothing new.
const RUNS_MAX: i64 = 500;

pub(crate) const NOTE: &str =
    "UPDATE sync_logs SET notes = $3 WHERE id = $1 AND claim_no = $2 AND status = 'syncing'";

/// Writes what was noticed so far, in the transaction of a page.
pub async fn note(tx: &mut Tx, claim: Claim, notes: Option<&str>) -> Result<(), StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(NOTE)
        .bind(claim.run)
        .bind(claim.claim_no)
        .bind(notes.map(|notes| clean(notes.to_owned())))
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    if affected == 1 { Ok(()) } else { Err(StoreError::ClaimLost(claim.run)) }
}

/// The pulls of one of the weeks before, from the index of runs by system and time.
macro_rules! of_a_week {
    ($from:literal, $to:literal) => {
        concat!(
            "SELECT records_total FROM sync_logs WHERE system_id = $1 AND kind <> 'apply_webhooks' AND kind = $2 \
             AND sync_type = $3 AND parameters IS NULL AND status IN ('success', 'partial') AND created_at >= ",
            $from,
            " AND created_at < ",
            $to
        )
    };
}

pub(crate) const USUAL: &str = concat!(
    of_a_week!("$4", "$5"),
    " UNION ALL ",
    of_a_week!("$6", "$7"),
    " UNION ALL ",
    of_a_week!("$8", "$9"),
    " UNION ALL ",
    of_a_week!("$10", "$11"),
    " LIMIT $12"
);

/// How many records each run like this one had, at about its time of its weekday in the last four weeks.
///
/// Runs like it are those of its system, kind and stream that ended well and were asked for nothing of their own.
/// In no order.
pub async fn usual_records(store: &Store, run: &Run) -> Result<Vec<i64>, StoreError> {
    let week = |ago: i32| -> (DateTime<Utc>, DateTime<Utc>) {
        let then = run.created_at - TimeDelta::weeks(1) * ago;
        (then - AROUND, then + AROUND)
    };
    Ok(on_read!(store, |ex| {
        let mut query = sqlx::query_scalar(USUAL).bind(run.system_id).bind(&run.kind).bind(&run.sync_type);
        for (from, to) in (1..=WEEKS).map(week) {
            query = query.bind(from).bind(to);
        }
        query.bind(RUNS_MAX).fetch_all(ex).await
    })?)
}
