//! Writes how an attempt ended: on the run, on its system, as an event, in one transaction.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use zhilian_sync_store::events::EventKind;
use zhilian_sync_store::external_systems::{self, Health};
use zhilian_sync_store::sync_logs::{self, AttemptError, Ending, Run};
use zhilian_sync_store::{StoreError, SyncStatus, Trigger};

use super::Done;
use crate::backoff::RetryPolicy;
use crate::context::{Context, seconds};
use crate::enqueue::{self, Enqueued, PullParameters, Wish};
use crate::kinds::{Kind, push_member};
use crate::outcome::{Action, JobError};

/// How often recording is tried while the database is away, and how long between; after that the lease
/// runs out and somebody else goes on with the run.
const RECORD_DELAYS_MS: [u64; 6] = [100, 300, 1_000, 3_000, 5_000, 10_000];

/// What becomes of the row.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    /// It ends.
    Finish { status: SyncStatus, unauthorized: bool },
    /// Pending again, the attempt spent.
    Retry { run_at: DateTime<Utc> },
    /// Pending again, the attempt given back.
    GiveBack { run_at: DateTime<Utc> },
    /// The same after a failure that is told: the attempt had stored something before.
    GoOn { run_at: DateTime<Utc> },
    /// Not ours to write any more.
    Nothing,
}

/// The table of [`Action`] as code.
fn decide(
    run: &Run,
    progressed: bool,
    result: &Result<Done, JobError>,
    now: DateTime<Utc>,
    policy: RetryPolicy,
) -> Decision {
    let fail = |unauthorized| Decision::Finish { status: SyncStatus::Failed, unauthorized };
    let error = match result {
        Ok(done) => {
            return Decision::Finish { status: done.status, unauthorized: false };
        }
        Err(error) => error,
    };
    match error.action {
        Action::Lost => Decision::Nothing,
        Action::GiveUp => fail(false),
        Action::Unauthorized => fail(true),
        Action::Yield => Decision::GiveBack { run_at: now },
        Action::Hold(delay) => Decision::GiveBack { run_at: later(now, delay) },
        Action::Snooze(delay) => {
            let run_at = later(now, delay);
            if is_too_late(run, run_at) { fail(false) } else { Decision::GiveBack { run_at } }
        }
        // Attempts count in a row: this one has stored what no other need do again.
        Action::Retry { after } if progressed => {
            let run_at = later(now, policy.delay(1).max(after.unwrap_or_default()));
            if is_too_late(run, run_at) { fail(false) } else { Decision::GoOn { run_at } }
        }
        Action::Retry { .. } if run.attempt >= run.max_attempts => fail(false),
        Action::Retry { after } => {
            let attempt = u32::try_from(run.attempt).unwrap_or(u32::MAX);
            let delay = policy.delay(attempt).max(after.unwrap_or_default());
            Decision::Retry { run_at: later(now, delay) }
        }
    }
}

/// What spends no attempt is bounded by time.
fn is_too_late(run: &Run, run_at: DateTime<Utc>) -> bool {
    run.deadline_at.is_some_and(|deadline| run_at > deadline)
}

/// Whole milliseconds, as every time in the database, and never sooner than asked.
pub(crate) fn later(now: DateTime<Utc>, delay: Duration) -> DateTime<Utc> {
    let millis = delay.as_nanos().div_ceil(1_000_000);
    let delta = i64::try_from(millis).ok().and_then(TimeDelta::try_milliseconds);
    delta.and_then(|delta| now.checked_add_signed(delta)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Records an outcome, patiently: the database may be away for a moment.
pub(super) async fn record(ctx: &Context, run: &Run, progressed: bool, result: Result<Done, JobError>) {
    log(run, &result);
    let decision = decide(run, progressed, &result, ctx.clock().now(), ctx.retry_policy());
    if decision == Decision::Nothing {
        return;
    }
    let mut delays = RECORD_DELAYS_MS.iter();
    loop {
        let error = match write(ctx, run, &result, &decision).await {
            Ok(again) => {
                if let Some(again) = again {
                    enqueue::ring(ctx, again.lane, &[again.enqueued]).await;
                }
                return;
            }
            Err(StoreError::ClaimLost(_)) => {
                tracing::info!("the run was ended by somebody else; nothing is written");
                return;
            }
            Err(error) => error,
        };
        let Some(delay) = delays.next() else {
            tracing::error!(%error, "could not record the outcome; the lease runs out and the run is taken up again");
            return;
        };
        tracing::warn!(%error, "could not record the outcome yet");
        tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(*delay)).await;
    }
}

/// A run to ring for after the commit.
struct Again {
    lane: zhilian_sync_store::Lane,
    enqueued: Enqueued,
}

async fn write(
    ctx: &Context,
    run: &Run,
    result: &Result<Done, JobError>,
    decision: &Decision,
) -> Result<Option<Again>, StoreError> {
    let now = ctx.clock().now();
    let goes_on = matches!(decision, Decision::GoOn { .. });
    let details = result.as_ref().err().and_then(|error| attempt_errors(run, error, goes_on, now));
    // Only here is it known whether there is another attempt.
    let message = result.as_ref().err().map(|error| match decision {
        Decision::Retry { .. } => format!("{}; it is tried again", error.message),
        Decision::GoOn { .. } => format!("{}; it goes on from the last page that is stored", error.message),
        _ => error.message.clone(),
    });
    let ending = Ending {
        error_code: result.as_ref().err().map(|error| error.code),
        error_message: message.as_deref(),
        error_details: details.as_deref().or(run.error_details.as_deref()),
    };
    let mut tx = ctx.store.begin().await?;
    push_member::lock(&mut tx, run).await?;
    let mut again = None;
    match decision {
        Decision::Nothing => {}
        Decision::Retry { run_at } => sync_logs::retry(&mut tx, run.claim(), *run_at, &ending, now).await?,
        Decision::GoOn { run_at } => {
            sync_logs::give_back(&mut tx, run.claim(), *run_at, &ending, now).await?;
        }
        Decision::GiveBack { run_at } => {
            // Nothing failed, so nothing is left on the row but what earlier attempts said.
            let kept = Ending {
                error_code: run.error_code.as_deref(),
                error_message: run.error_message.as_deref(),
                error_details: run.error_details.as_deref(),
            };
            sync_logs::give_back(&mut tx, run.claim(), *run_at, &kept, now).await?;
        }
        Decision::Finish { status, unauthorized } => {
            let ended = sync_logs::finish(&mut tx, run, *status, &ending, now).await?;
            if ended.again && !unauthorized {
                again = repeat(ctx, &mut tx, &ended).await?;
            }
            system_hears(ctx, &mut tx, &ended, *unauthorized).await?;
        }
    }
    tx.commit().await?;
    Ok(again)
}

/// Writes the run's end on its system and for live clients. Also used for runs whose worker died for
/// the last time.
pub(crate) async fn system_hears(
    ctx: &Context,
    tx: &mut zhilian_sync_store::Tx,
    run: &Run,
    unauthorized: bool,
) -> Result<(), StoreError> {
    let now = ctx.clock().now();
    let kind = Kind::parse(&run.kind);
    // Credentials that the vendor refuses are refused whatever the job.
    let heard = unauthorized || kind.is_none_or(Kind::asks_the_vendor);
    let member_waits = run.again && !unauthorized;
    if run.status == SyncStatus::Failed && !member_waits {
        push_member::failed(tx, run).await?;
    }
    if let Some(system) = run.system_id.filter(|_| heard) {
        let health = if run.status == SyncStatus::Failed {
            Health::Failing {
                error: run.error_message.as_deref().unwrap_or("the run failed"),
                unauthorized,
                breaker_failures: i64::from(ctx.engine.breaker_failures.max(1)),
                cooldown_until: now + seconds(ctx.engine.breaker_cooldown_secs),
            }
        } else {
            let activate = kind.is_some_and(Kind::activates);
            Health::Working { status: run.status, activate }
        };
        external_systems::record_outcome(tx, ctx.clock(), system, &health).await?;
    }
    sync_logs::tell(tx, ctx.clock(), EventKind::RunEnded, run, run.counts()).await
}

/// A run that was asked for once more while it was under way: its successor, in the same transaction.
async fn repeat(
    ctx: &Context,
    tx: &mut zhilian_sync_store::Tx,
    run: &Run,
) -> Result<Option<Again>, StoreError> {
    let Some(kind) = Kind::parse(&run.kind) else {
        return Ok(None);
    };
    let parameters = run.parameters.as_deref();
    let pull: PullParameters =
        parameters.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let system = match run.system_id {
        Some(id) if kind == Kind::Pull && !pull.is_backfill() => {
            external_systems::find(&ctx.store, id).await?
        }
        _ => None,
    };
    let wish = Wish {
        kind,
        system: run.system_id,
        stream: run.sync_type.clone(),
        // A stream that webhooks keep asking for takes no place from those where a person waits.
        trigger: match run.trigger {
            Trigger::Webhook | Trigger::Push => run.trigger,
            _ => Trigger::Manual,
        },
        scheduled_for: None,
        // What was announced a moment ago is to be in its window.
        wait: system.map(|system| enqueue::wait_of(ctx, &system, &run.sync_type)).unwrap_or_default(),
        // Everything is read anew once; what comes after it is what is new.
        parameters: PullParameters { anew: false, ..pull },
        replay: parameters
            .filter(|_| kind == Kind::ReplayWebhooks)
            .and_then(|text| serde_json::from_str(text).ok()),
        push: parameters
            .filter(|_| kind == Kind::PushMember)
            .and_then(|text| serde_json::from_str(text).ok()),
        retry_of: Some(run.id),
        requested_by: run.requested_by,
    };
    let enqueued = enqueue::enqueue(ctx, tx, &wish).await?;
    Ok(Some(Again { lane: kind.lane(wish.trigger), enqueued }))
}

/// Every attempt's error so far with this one, as JSON; `None` where nothing failed.
fn attempt_errors(run: &Run, error: &JobError, goes_on: bool, now: DateTime<Utc>) -> Option<String> {
    if matches!(error.action, Action::Hold(_) | Action::Yield | Action::Lost) {
        return None;
    }
    let mut errors = run.attempt_errors();
    let this = AttemptError {
        at: now,
        attempt: run.attempt,
        code: error.code.to_owned(),
        message: error.message.clone(),
    };
    // A run that is postponed many times says so once.
    if goes_on || matches!(error.action, Action::Snooze(_)) {
        errors.retain(|kept| kept.code != this.code);
    }
    errors.push(this);
    serde_json::to_string(&errors).ok()
}

fn log(run: &Run, result: &Result<Done, JobError>) {
    match result {
        Ok(done) => tracing::info!(run.status = %done.status, "run ended"),
        Err(error) => {
            let cause = error.source.as_ref().map(tracing::field::display);
            match error.action {
                Action::Yield | Action::Hold(_) | Action::Snooze(_) => {
                    tracing::info!(run.code = error.code, "run goes on later: {}", error.message);
                }
                Action::Lost => tracing::info!(run.code = error.code, "run is not ours any more"),
                _ => tracing::warn!(
                    run.code = error.code,
                    run.attempts_max = run.max_attempts,
                    cause,
                    "attempt failed: {}",
                    error.message
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_become_whole_milliseconds_and_are_never_cut_short() {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        assert_eq!(later(now, Duration::from_nanos(1)), now + TimeDelta::milliseconds(1));
        assert_eq!(later(now, Duration::from_micros(2_500)), now + TimeDelta::milliseconds(3));
        assert_eq!(later(now, Duration::MAX), DateTime::<Utc>::MAX_UTC);
    }
}
