//! Transaction 2 of applying: what came of the events (which is the fence), the records they bring, the
//! changes they tell, the pulls they ask for, and the log of their minute. All of it or nothing.
//!
//! Locks are taken in one order everywhere: events by id, records by system, table and key, minute logs and
//! runs, systems. So appliers wait for each other and for pulls, never in a ring. Pulls hold their run before
//! their records; so the events that ask for pulls are written without others that bring records.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use serde_json::{Value, json};
use zhilian_sync_store::events::{self, EventKind, NewEvent};
use zhilian_sync_store::external_systems::{self, Health};
use zhilian_sync_store::record_patches::{self, Patched, RecordPatch};
use zhilian_sync_store::sync_failures::{self, Failing, NewFailure};
use zhilian_sync_store::sync_logs::{self, Counts, LogMinute};
use zhilian_sync_store::webhook_events::{self, End, EventResult, Outcome, WebhookEvent};
use zhilian_sync_store::{EventId, RunId, StoreError, SystemId, Tx};

use super::planning::{Claimed, Fault, Planned, RECORD_MISSING};
use super::records::{Records, Stored};
use crate::context::{Context, seconds};
use crate::enqueue::{self, Wish};
use crate::outcome::{Action, JobError};
use crate::worker::later;

/// Of its attempts an event keeps one in so many while it waits for what mends itself with time.
const ATTEMPTS_LEFT: i64 = 4;

/// The row that an event is counted in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogKey {
    system: SystemId,
    event_type: String,
    minute: DateTime<Utc>,
}

impl LogKey {
    fn of(event: &WebhookEvent) -> Self {
        let minute = event.received_at.duration_trunc(TimeDelta::minutes(1)).unwrap_or(event.received_at);
        let event_type = event.event_type.clone().unwrap_or_default();
        Self { system: event.system_id, event_type, minute }
    }

    fn id(&self) -> RunId {
        sync_logs::minute_id(self.system, &self.event_type, self.minute)
    }
}

/// What is added to a minute log.
#[derive(Debug, Default)]
struct Line {
    counts: Counts,
    failed: Option<(&'static str, String)>,
    /// Events that were given up.
    dead: i64,
}

/// What the events of one transaction come to.
struct Sheet<'a> {
    ctx: &'a Context,
    claimed: &'a [Claimed],
    now: DateTime<Utc>,
    /// Events that turn out otherwise than they were marked.
    corrections: BTreeMap<usize, End>,
    lines: BTreeMap<LogKey, Line>,
    /// Records that could not be made or stored, by system, stream and the log they are counted in.
    failures: BTreeMap<(SystemId, String, RunId), Vec<NewFailure>>,
    /// Streams to be pulled, and how long after now a window shows what was announced.
    pulls: BTreeMap<(SystemId, String), TimeDelta>,
    /// Systems whose vendor refuses our credentials, and its words.
    refused: BTreeMap<SystemId, String>,
}

/// Writes planned events in one transaction. Those that are not this worker's any more are passed over.
///
/// A fault means that the only event of the group brings nothing that can be stored; then nothing is written.
pub(super) async fn write(
    ctx: &Context,
    claimed: &[Claimed],
    group: Vec<(usize, Planned)>,
) -> Result<Option<Fault>, StoreError> {
    let now = ctx.clock().now();
    let mut tx = ctx.store.begin().await?;
    let outcomes: Vec<Outcome> = group
        .iter()
        .filter_map(|(at, planned)| {
            let event = &claimed[*at].event;
            let end = end_of(ctx, event, planned, now)?;
            Some(Outcome { id: event.id, claim_no: event.claim_no, end })
        })
        .collect();
    let mine = webhook_events::mark(&mut tx, &outcomes, now).await?;
    let mut sheet = Sheet {
        ctx,
        claimed,
        now,
        corrections: BTreeMap::new(),
        lines: BTreeMap::new(),
        failures: BTreeMap::new(),
        pulls: BTreeMap::new(),
        refused: BTreeMap::new(),
    };
    let alone = group.len() == 1;
    let mut records = Records::new(claimed);
    let mut patches = Vec::new();
    for (at, planned) in group {
        if !mine.contains(&claimed[at].event.id) {
            tracing::info!(event.id = %claimed[at].event.id, "the claim on the event is gone; nothing is written");
            continue;
        }
        match planned {
            Planned::Records { stream, mapped, .. } => records.add(at, sheet.log_of(at), stream, mapped),
            Planned::Patches(told) => patches.push((at, told)),
            other => sheet.note(at, other),
        }
    }
    let stored =
        if alone { records.store_alone(ctx, &mut tx).await? } else { records.store(ctx, &mut tx).await? };
    match stored {
        Ok(stored) => sheet.add_records(stored),
        // Dropped, the transaction is rolled back.
        Err(fault) => return Ok(Some(fault)),
    }
    sheet.patch(&mut tx, patches).await?;
    sheet.finish(tx, &outcomes).await?;
    Ok(None)
}

/// How an event ends if all goes well; `None` leaves it to its lease.
fn end_of(ctx: &Context, event: &WebhookEvent, planned: &Planned, now: DateTime<Utc>) -> Option<End> {
    let result = match planned {
        Planned::Records { result, .. } | Planned::Nothing { result, .. } => *result,
        Planned::Patches(_) => EventResult::Patched,
        Planned::Pull { .. } => EventResult::Pulled,
        Planned::Fetch { .. } => return Some(End::GiveBack { run_at: now }),
        Planned::Failed(fault) => return failed(ctx, event, fault, now),
    };
    Some(End::Applied { result, sync_log_id: Some(LogKey::of(event).id()), note: None })
}

/// The table of [`Action`] for events; [`Fault::passes`] is what may mend itself with time, and patience is
/// over when an event was received `webhooks.patience_hours` ago.
///
/// | action | row afterwards | attempt |
/// |---|---|---|
/// | `Retry` | pending, `run_at` by backoff or the vendor's Retry-After; dead when out of attempts | spent |
/// | `Retry` of what passes | as above; instead of dead, every `engine.retry_max_secs` until patience is over | given back |
/// | `Unauthorized` | pending after the cool-down, dead when patience is over; the system goes to `error` | given back |
/// | `GiveUp` | dead | spent |
/// | `Snooze`, `Hold`, `Yield` | pending | given back |
/// | `Lost` | untouched | – |
fn failed(ctx: &Context, event: &WebhookEvent, fault: &Fault, now: DateTime<Utc>) -> Option<End> {
    let Fault { action, code, message, passes } = fault.clone();
    Some(match action {
        Action::Lost => return None,
        Action::Yield => End::GiveBack { run_at: now },
        Action::Snooze(delay) if passes => End::PutOff { run_at: later(now, delay), code, message },
        Action::Snooze(delay) | Action::Hold(delay) => End::GiveBack { run_at: later(now, delay) },
        Action::Retry { after } => retry(ctx, event, fault, after.unwrap_or_default(), now),
        Action::Unauthorized if !patience_is_over(ctx, event, now) => {
            // Asking more often would only lock the account. New credentials hurry it.
            let run_at = now + seconds(ctx.engine.breaker_cooldown_secs);
            End::PutOff { run_at, code, message }
        }
        Action::GiveUp | Action::Unauthorized => End::Dead { code, message },
    })
}

fn retry(ctx: &Context, event: &WebhookEvent, fault: &Fault, after: Duration, now: DateTime<Utc>) -> End {
    let (code, message) = (fault.code, fault.message.clone());
    let attempts_max = i64::from(ctx.webhooks.attempts_max.max(1));
    // What passes leaves some attempts to what may then be wrong with the event itself, and to workers that
    // die of something else while they hold it.
    let spendable = if fault.passes { attempts_max - attempts_max / ATTEMPTS_LEFT } else { attempts_max };
    let delay = |attempt| later(now, ctx.retry_policy().delay(attempt).max(after));
    if event.attempt < spendable {
        let attempt = u32::try_from(event.attempt).unwrap_or(u32::MAX);
        return End::Retry { run_at: delay(attempt), code, message };
    }
    if fault.passes && !patience_is_over(ctx, event, now) {
        return End::PutOff { run_at: delay(u32::MAX), code, message };
    }
    End::Dead { code, message }
}

fn patience_is_over(ctx: &Context, event: &WebhookEvent, now: DateTime<Utc>) -> bool {
    event.received_at + seconds(u64::from(ctx.webhooks.patience_hours) * 3_600) <= now
}

impl Sheet<'_> {
    fn log_of(&self, at: usize) -> RunId {
        LogKey::of(&self.claimed[at].event).id()
    }

    fn line(&mut self, at: usize) -> &mut Line {
        self.lines.entry(LogKey::of(&self.claimed[at].event)).or_default()
    }

    fn count(&mut self, at: usize, counts: Counts) {
        let line = &mut self.line(at).counts;
        line.total += counts.total;
        line.success += counts.success;
        line.failed += counts.failed;
        line.skipped += counts.skipped;
    }

    /// An event that brings neither records nor changes.
    fn note(&mut self, at: usize, planned: Planned) {
        let event = &self.claimed[at].event;
        match planned {
            Planned::Pull { stream } => {
                let system = self.claimed[at].target.as_ref().ok().map(|target| &target.system);
                let (ctx, key) = (self.ctx, (event.system_id, stream));
                self.pulls.entry(key).or_insert_with_key(|(_, stream)| {
                    system.map(|system| enqueue::wait_of(ctx, system, stream)).unwrap_or_default()
                });
                self.count(at, Counts { total: 1, success: 1, ..Counts::default() });
            }
            Planned::Nothing { skipped, .. } => {
                let skipped = i64::try_from(skipped).unwrap_or(i64::MAX);
                self.count(at, Counts { total: skipped, skipped, ..Counts::default() });
            }
            Planned::Failed(fault) => self.note_failure(at, &fault),
            Planned::Fetch { .. } | Planned::Records { .. } | Planned::Patches(_) => {}
        }
    }

    /// A failed event is counted when it is dead; one that is tried again will be counted then.
    fn note_failure(&mut self, at: usize, fault: &Fault) {
        let event = &self.claimed[at].event;
        if fault.action == Action::Unauthorized {
            self.refused.insert(event.system_id, fault.message.clone());
        }
        let Some(End::Dead { code, message }) = failed(self.ctx, event, fault, self.now) else {
            tracing::debug!(event.id = %event.id, event.code = fault.code, "the event failed: {}", fault.message);
            return;
        };
        tracing::warn!(event.id = %event.id, event.code = code, "the event is dead: {message}");
        self.count(at, Counts { total: 1, failed: 1, ..Counts::default() });
        let line = self.line(at);
        line.dead += 1;
        line.failed = Some((code, message));
    }

    /// What became of the events that brought records.
    fn add_records(&mut self, stored: Vec<Stored>) {
        for Stored { at, log, stream, counts, changed, failures } in stored {
            self.count(at, counts);
            let event = &self.claimed[at].event;
            let failed = failures.len();
            if failed > 0 {
                self.failures.entry((event.system_id, stream, log)).or_default().extend(failures);
                let text = format!(
                    "{failed} of {} records could not be kept; see the failures of the log",
                    counts.total
                );
                let line = self.line(at);
                line.failed.get_or_insert(("records_failed", text.clone()));
                let result = if changed { EventResult::Stored } else { EventResult::Unchanged };
                let note = Some(("records_failed", text));
                self.corrections.insert(at, End::Applied { result, sync_log_id: Some(log), note });
            } else if !changed {
                let result = EventResult::Unchanged;
                self.corrections.insert(at, End::Applied { result, sync_log_id: Some(log), note: None });
            }
        }
    }

    /// Changes parts of records, in the order of their keys.
    async fn patch(&mut self, tx: &mut Tx, told: Vec<(usize, Vec<RecordPatch>)>) -> Result<(), StoreError> {
        let mut became: BTreeMap<usize, Vec<(Patched, bool)>> = BTreeMap::new();
        let mut patches: Vec<(SystemId, usize, RecordPatch)> = Vec::new();
        for (at, told) in told {
            let system = self.claimed[at].event.system_id;
            became.insert(at, Vec::with_capacity(told.len()));
            patches.extend(told.into_iter().map(|patch| (system, at, patch)));
        }
        // Stable: changes of one record stay in the order in which their events came.
        patches.sort_by(|(a, _, left), (b, _, right)| {
            (a, &left.table, &left.key).cmp(&(b, &right.table, &right.key))
        });
        for (system, at, patch) in patches {
            let patched = record_patches::patch(tx, system, &patch, self.ctx.clock()).await?;
            became.entry(at).or_default().push((patched, patch.deleted));
        }
        for (at, became) in became {
            self.add_patches(at, became);
        }
        Ok(())
    }

    fn add_patches(&mut self, at: usize, became: Vec<(Patched, bool)>) {
        let event = &self.claimed[at].event;
        let total = i64::try_from(became.len()).unwrap_or(i64::MAX);
        let deletes = became.iter().all(|(_, deleted)| *deleted);
        let mut changed = false;
        let mut fault = None;
        for (patched, _) in became {
            match patched {
                Patched::Changed => changed = true,
                Patched::Unchanged => {}
                Patched::Missing => {
                    fault.get_or_insert(Fault::from(JobError::retry(
                        RECORD_MISSING,
                        "the record that the event changes has not come yet; it is waited for",
                    )));
                }
                Patched::Refused(reason) => {
                    fault = Some(Fault::from(JobError::retry("record_refused", reason)));
                }
            }
        }
        if let Some(fault) = fault {
            if let Some(end) = failed(self.ctx, event, &fault, self.now) {
                self.corrections.insert(at, end);
            }
            return self.note_failure(at, &fault);
        }
        self.count(at, Counts { total, success: total, ..Counts::default() });
        let result = match (changed, deletes) {
            (false, _) => EventResult::Unchanged,
            (true, true) => EventResult::Deleted,
            (true, false) => return,
        };
        let end = End::Applied { result, sync_log_id: Some(self.log_of(at)), note: None };
        self.corrections.insert(at, end);
    }

    /// Everything that comes after the records, and the commit.
    async fn finish(mut self, mut tx: Tx, marked: &[Outcome]) -> Result<(), StoreError> {
        self.correct(&mut tx, marked).await?;
        let news = self.log(&mut tx).await?;
        for ((system_id, stream, log), failures) in std::mem::take(&mut self.failures) {
            let of = Failing { system_id, stream: &stream, sync_log_id: Some(log) };
            sync_failures::record_batch(&mut tx, self.ctx.clock(), of, failures).await?;
        }
        for ((system, stream), wait) in &self.pulls {
            enqueue::enqueue(self.ctx, &mut tx, &Wish::told(*system, stream, *wait)).await?;
        }
        for (system, message) in &self.refused {
            let health = Health::Failing {
                error: message,
                unauthorized: true,
                breaker_failures: i64::from(self.ctx.engine.breaker_failures.max(1)),
                cooldown_until: self.now + seconds(self.ctx.engine.breaker_cooldown_secs),
            };
            external_systems::record_outcome(&mut tx, self.ctx.clock(), *system, &health).await?;
        }
        tx.commit().await?;
        self.ctx.applying.tell(news);
        Ok(())
    }

    /// Says on the events how they ended after all.
    async fn correct(&mut self, tx: &mut Tx, marked: &[Outcome]) -> Result<(), StoreError> {
        if self.corrections.is_empty() {
            return Ok(());
        }
        let claim_nos: HashMap<EventId, i64> =
            marked.iter().map(|outcome| (outcome.id, outcome.claim_no)).collect();
        let corrections = std::mem::take(&mut self.corrections);
        let outcomes: Vec<Outcome> = corrections
            .into_iter()
            .filter_map(|(at, end)| {
                let id = self.claimed[at].event.id;
                Some(Outcome { id, claim_no: *claim_nos.get(&id)?, end })
            })
            .collect();
        webhook_events::amend(tx, &outcomes, self.now).await
    }

    /// Adds to the logs of the minutes; gives back those that live clients have been told of.
    async fn log(&mut self, tx: &mut Tx) -> Result<Vec<RunId>, StoreError> {
        let mut told = Vec::new();
        for (key, line) in &self.lines {
            let failed_reason = line.failed.as_ref().map(|(code, message)| (*code, message.as_str()));
            let log = LogMinute {
                system_id: key.system,
                event_type: &key.event_type,
                minute: key.minute,
                counts: line.counts,
                failed_reason,
            };
            let id = sync_logs::log_minute(tx, self.ctx.clock(), log).await?;
            let (of, minute) = (&key.event_type, key.minute);
            if self.ctx.applying.is_news(id) {
                let data = json!({ "event_type": of, "minute": minute });
                self.tell(tx, EventKind::WebhooksApplied, (key.system, id), &data).await?;
                told.push(id);
            }
            if line.dead > 0 {
                let code = failed_reason.map(|(code, _)| code);
                let data =
                    json!({ "event_type": of, "minute": minute, "events": line.dead, "error_code": code });
                self.tell(tx, EventKind::WebhookDead, (key.system, id), &data).await?;
            }
        }
        Ok(told)
    }

    /// Tells live clients about a minute of a system.
    async fn tell(
        &self,
        tx: &mut Tx,
        kind: EventKind,
        (system, log): (SystemId, RunId),
        data: &Value,
    ) -> Result<(), StoreError> {
        let data = data.to_string();
        let event = NewEvent { kind, system_id: Some(system), run_id: Some(log), data: &data };
        events::insert(tx, self.ctx.clock(), event).await
    }
}
