//! The loop that nothing escapes: it makes the runs of due systems, fails runs whose worker died for
//! the last time, and rings for every row that nobody has heard.
//!
//! Any number of schedulers may run: every step is a compare-and-set on a row, so there is no leader and
//! a dead one is not missed. A run's slot is unique in the database, so a slot fires once whoever fires it.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::sync_logs::{self, AttemptError, NewRun, Run};
use zhilian_sync_store::{Lane, RunId, StoreError, SystemStatus, Trigger, events, webhook_events};

use crate::context::{Context, seconds};
use crate::enqueue::{self, Enqueued, Wish};
use crate::kinds::{Kind, push_member};
use crate::queue::Queue;
use crate::schedule::Schedule;
use crate::{inbox, worker};

/// Rows that one step handles in one round; the rest waits for the next round, a moment later.
const ROWS_PER_STEP: i64 = 500;
/// How often housekeeping runs.
const UPKEEP_EVERY_SECS: i64 = 3_600;
/// A system whose schedule cannot be read is looked at again after so long.
const BAD_SCHEDULE_WAIT: TimeDelta = TimeDelta::hours(1);

/// What the loop remembers between rounds.
#[derive(Debug, Default)]
pub struct Scheduler {
    /// The queue's epoch as last seen: another one means that the queue was emptied.
    epoch: Option<String>,
    /// Whether the queue did not answer in the last round.
    queue_away: bool,
    /// When finished messages were last swept out of the queue.
    swept_at: Option<Instant>,
}

/// Runs rounds until `stop`. An error of one step is logged and the next round tries again.
pub async fn run(ctx: Context, stop: CancellationToken) {
    let mut scheduler = Scheduler::default();
    if let Err(error) = scheduler.take_over(&ctx).await {
        tracing::warn!(%error, "could not take over the runs of the process before");
    }
    let pace = Duration::from_millis(ctx.engine.scheduler_tick_ms.max(10));
    loop {
        scheduler.round(&ctx).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(Instant::now() + pace) => {}
        }
    }
}

impl Scheduler {
    /// The embedded queue and database belong to this process alone: whatever was rung or claimed before
    /// its start was by a process that is gone.
    pub async fn take_over(&mut self, ctx: &Context) -> Result<(), StoreError> {
        if !matches!(ctx.queue, Queue::Memory(_)) {
            return Ok(());
        }
        if ctx.store.pool().kind() == zhilian_sync_store::DatabaseKind::Sqlite {
            sync_logs::expire_leases(&ctx.store).await?;
            webhook_events::expire_leases(&ctx.store).await?;
        }
        let now = ctx.clock().now() + TimeDelta::milliseconds(1);
        while sync_logs::forget_rings(&ctx.store, now, ROWS_PER_STEP).await? > 0 {}
        Ok(())
    }

    /// One round of every step.
    pub async fn round(&mut self, ctx: &Context) {
        let steps = [
            ("start schedules", start_schedules(ctx).await),
            ("make due runs", make_due_runs(ctx).await),
            ("make upkeep", make_upkeep(ctx).await),
            ("fail exhausted runs", fail_exhausted(ctx).await),
            ("look at the queue", self.look_at_queue(ctx).await),
            ("ring", self.ring(ctx).await),
            ("ring for webhooks", self.ring_hooks(ctx).await),
            ("place events", events::place(&ctx.store).await.map(drop)),
        ];
        for (step, result) in steps {
            if let Err(error) = result {
                tracing::warn!(%error, step, "a step of the scheduler failed; the next round tries again");
            }
        }
    }

    /// Notices that the queue was emptied: then every ring before this is forgotten at once.
    async fn look_at_queue(&mut self, ctx: &Context) -> Result<(), StoreError> {
        let epoch = match ctx.queue.epoch().await {
            Ok(epoch) => epoch,
            Err(error) => {
                if !self.queue_away {
                    tracing::warn!(%error, "the queue is away; runs wait in the database");
                }
                self.queue_away = true;
                return Ok(());
            }
        };
        if self.queue_away {
            tracing::info!("the queue is back");
            self.queue_away = false;
        }
        if self.epoch.is_some() && self.epoch != epoch {
            tracing::warn!("the queue was emptied; ringing for every run that waits");
            let now = ctx.clock().now();
            while sync_logs::forget_rings(&ctx.store, now, ROWS_PER_STEP).await? > 0 {}
        }
        self.epoch = epoch;
        self.sweep(ctx).await;
        Ok(())
    }

    /// Sweeps finished messages out of the queue: nothing else ever removes them.
    async fn sweep(&mut self, ctx: &Context) {
        let every = Duration::from_secs(ctx.queue_settings.sweep_secs);
        if self.swept_at.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        self.swept_at = Some(Instant::now());
        match ctx.queue.sweep().await {
            Ok(0) => {}
            Ok(messages) => tracing::debug!(messages, "finished messages were swept out of the queue"),
            Err(error) => tracing::warn!(%error, "could not sweep the queue; trying again later"),
        }
    }

    /// Rings for rows that nobody heard, as long as their lane is below its high-water mark.
    async fn ring(&mut self, ctx: &Context) -> Result<(), StoreError> {
        if self.queue_away {
            return Ok(());
        }
        for lane in Lane::ALL {
            loop {
                let Ok(depth) = ctx.queue.depth(*lane).await else {
                    return Ok(());
                };
                let room = ctx.engine.lane_high_water.saturating_sub(depth);
                let limit = i64::try_from(room).unwrap_or(i64::MAX).min(ROWS_PER_STEP);
                if limit == 0 || ring_some(ctx, *lane, limit).await? < limit {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Has a worker look into the inbox when something in it is due and no message says so already.
    async fn ring_hooks(&self, ctx: &Context) -> Result<(), StoreError> {
        if self.queue_away || !webhook_events::has_due(&ctx.store, ctx.clock().now()).await? {
            return Ok(());
        }
        if ctx.queue.depth(Lane::Hooks).await.is_ok_and(|depth| depth > 0) {
            return Ok(());
        }
        if let Err(error) = inbox::ring_hooks(ctx).await {
            tracing::warn!(%error, "could not ring for webhooks; the next round tries again");
        }
        Ok(())
    }
}

/// Rings for at most `limit` rows of a lane; how many there were, or 0 when the queue took fewer.
async fn ring_some(ctx: &Context, lane: Lane, limit: i64) -> Result<i64, StoreError> {
    let now = ctx.clock().now();
    let rung_before = now - seconds(ctx.engine.rering_secs);
    let due = sync_logs::due_to_ring(&ctx.store, lane, now, rung_before, limit).await?;
    let found = i64::try_from(due.len()).unwrap_or(i64::MAX);
    let mine = sync_logs::mark_rung(&ctx.store, due, now).await?;
    if mine.is_empty() {
        return Ok(0);
    }
    let accepted = match ctx.queue.ring(lane, &mine).await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::warn!(%error, lane = %lane, "could not ring; the next round tries again");
            0
        }
    };
    if accepted < mine.len() {
        sync_logs::unring(&ctx.store, &mine[accepted..]).await?;
        return Ok(0);
    }
    Ok(found)
}

/// Gives a schedule to systems that have become active, were resumed or rescheduled.
async fn start_schedules(ctx: &Context) -> Result<(), StoreError> {
    for system in external_systems::unscheduled(&ctx.store, ROWS_PER_STEP).await? {
        let now = ctx.clock().now();
        let (next_sync_at, slot) = match schedule_of(&system) {
            Some(schedule) => {
                // An interval begins with the slot that is under way, so a new system is read at once.
                let since = system.sync_interval.filter(|_| system.sync_cron.is_none()).unwrap_or(0);
                let after = now - TimeDelta::try_seconds(since).unwrap_or(TimeDelta::zero());
                let Some(slot) = schedule.next_slot(after) else {
                    continue;
                };
                (slot + jitter(ctx, &schedule, &system, slot), slot)
            }
            None => (now + BAD_SCHEDULE_WAIT, now + BAD_SCHEDULE_WAIT),
        };
        external_systems::start_schedule(&ctx.store, system.id, next_sync_at, slot).await?;
    }
    Ok(())
}

/// The schedule of a system; one that cannot be read is said in the log.
fn schedule_of(system: &ExternalSystem) -> Option<Schedule> {
    Schedule::parse(system.sync_interval, system.sync_cron.as_deref(), &system.timezone)
        .inspect_err(|error| {
            tracing::warn!(%error, system.id = %system.id, system.name = %system.name, "the schedule cannot be read");
        })
        .ok()
}

fn jitter(ctx: &Context, schedule: &Schedule, system: &ExternalSystem, slot: DateTime<Utc>) -> TimeDelta {
    let most = Duration::from_secs(ctx.engine.jitter_max_secs);
    TimeDelta::from_std(schedule.jitter(system.id, slot, most)).unwrap_or(TimeDelta::zero())
}

/// Makes the runs of systems whose time has come, and moves their schedules on, one transaction each.
async fn make_due_runs(ctx: &Context) -> Result<(), StoreError> {
    let now = ctx.clock().now();
    for system in external_systems::due(&ctx.store, now, ROWS_PER_STEP).await? {
        if let Err(error) = make_runs_of(ctx, &system, now).await {
            tracing::warn!(%error, system.id = %system.id, "could not make the runs of a system");
        }
    }
    Ok(())
}

async fn make_runs_of(ctx: &Context, system: &ExternalSystem, now: DateTime<Utc>) -> Result<(), StoreError> {
    let mut tx = ctx.store.begin().await?;
    let schedule = schedule_of(system).filter(|_| system.is_scheduled());
    let (Some(schedule), Some(slot)) = (schedule, system.next_slot_at) else {
        external_systems::advance(&mut tx, system, None, None).await?;
        return tx.commit().await;
    };
    // After downtime: one run for the latest slot that was missed, not one for each.
    let due = schedule.due(slot, now);
    let mut covered = 0;
    let mut streams = streams_of(ctx, system);
    if system.status == SystemStatus::Error {
        // One probe: what it finds out holds for the others too.
        streams.truncate(1);
    }
    for stream in streams {
        let wish = Wish::scheduled(system, &stream, due.slot_to_run);
        if enqueue::enqueue(ctx, &mut tx, &wish).await? == Enqueued::Covered {
            covered += 1;
        }
    }
    let next = due.next_slot.map(|slot| {
        let at = slot + jitter(ctx, &schedule, system, slot);
        // A system in error is probed once per cool-down.
        let probe_at = now + seconds(ctx.engine.breaker_cooldown_secs);
        if system.status == SystemStatus::Error { at.max(probe_at) } else { at }
    });
    // Runs first, systems second: the order of every transaction that touches both. Nobody advanced it
    // meanwhile, or all of this is theirs and ours is rolled back.
    if external_systems::advance(&mut tx, system, next, due.next_slot).await? {
        tx.commit().await?;
        tracing::debug!(system.name = %system.name, slot = %due.slot_to_run, covered, "slot fired");
    }
    Ok(())
}

/// The streams that are pulled; a manifest that cannot be read gives one name, so that the run that
/// fails for it says why.
fn streams_of(ctx: &Context, system: &ExternalSystem) -> Vec<String> {
    match ctx.vendors.catalog().resolve(&system.provider, &system.config) {
        Ok(manifest) => manifest.streams.iter().map(|stream| stream.name.clone()).collect(),
        Err(_) => vec![system.provider.clone()],
    }
}

/// Housekeeping, once an hour however many schedulers there are: its id is made of its hour.
async fn make_upkeep(ctx: &Context) -> Result<(), StoreError> {
    let now = ctx.clock().now();
    let hour = now.timestamp().div_euclid(UPKEEP_EVERY_SECS);
    let slot = DateTime::from_timestamp(hour * UPKEEP_EVERY_SECS, 0).unwrap_or(now);
    let id = RunId(upkeep_id(slot));
    if sync_logs::find(&ctx.store, id).await?.is_some() {
        return Ok(());
    }
    let run = NewRun {
        id,
        system_id: None,
        kind: Kind::Upkeep.as_str(),
        sync_type: Kind::Upkeep.as_str().into(),
        trigger: Trigger::Upkeep,
        lane: Kind::Upkeep.lane(Trigger::Upkeep),
        exclusive_key: Some(Kind::Upkeep.as_str().into()),
        max_attempts: Kind::Upkeep.max_attempts(&ctx.engine),
        run_at: now,
        deadline_at: None,
        scheduled_for: Some(slot),
        parameters: None,
        retry_of: None,
        requested_by: None,
        rung_at: None,
    };
    let mut tx = ctx.store.begin().await?;
    sync_logs::insert(&mut tx, &run, now).await?;
    tx.commit().await
}

/// An id that every scheduler makes alike for the same hour.
fn upkeep_id(slot: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(slot.timestamp_millis()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, b"zl-upkeep\0").into_uuid()
}

/// Fails runs whose worker fell silent in their last attempt: a run that kills its process every time
/// ends here.
async fn fail_exhausted(ctx: &Context) -> Result<(), StoreError> {
    let now = ctx.clock().now();
    for run in sync_logs::exhausted(&ctx.store, now, ROWS_PER_STEP).await? {
        let message = format!(
            "the worker `{}` fell silent in the last of {} attempts; see its log, and retry the run when the \
             cause is mended",
            run.worker.as_deref().unwrap_or("unknown"),
            run.max_attempts
        );
        let details = errors_with_silence(&run, &message, now);
        let mut tx = ctx.store.begin().await?;
        push_member::lock(&mut tx, &run).await?;
        let failed = sync_logs::fail_exhausted(&mut tx, &run, "worker_died", &message, &details, now).await?;
        if let Some(failed) = failed {
            worker::system_hears(ctx, &mut tx, &failed, false).await?;
            tx.commit().await?;
            tracing::error!(run.id = %run.id, run.kind = %run.kind, "{message}");
        }
    }
    Ok(())
}

fn errors_with_silence(run: &Run, message: &str, now: DateTime<Utc>) -> String {
    let mut errors = run.attempt_errors();
    errors.push(AttemptError {
        at: now,
        attempt: run.attempt,
        code: "worker_died".into(),
        message: message.into(),
    });
    serde_json::to_string(&errors).unwrap_or_default()
}
