//! `retry_failures`: maps the records of a system's open failures once more, with the manifest of today, and
//! stores those that now can be. Whoever has mended a mapping needs no pull for it.
//!
//! It goes by id, which is the order in which they failed first, and not beyond those that were there when it
//! was asked for. A bite is read and mapped, then written in one transaction: fence, records, failures, position
//! and counts. A record counts as observed when the vendor told it last, so it overwrites nothing that was heard
//! of since; and a failure that is told anew meanwhile is left to the next wish.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;
use zhilian_sync_store::external_systems::ExternalSystem;
use zhilian_sync_store::record_batches::{Batch, RefusedRecord, StoreMap};
use zhilian_sync_store::sync_failures::{self, FailureStage, SyncFailure, Wanted};
use zhilian_sync_store::sync_logs::{self, APPLY_WEBHOOKS, Counts};
use zhilian_sync_store::{RunId, SyncStatus, Tx};

use super::{Kind, storing};
use crate::context::Context;
use crate::outcome::{Action, JobError};
use crate::vendor::{Again, EventScope, KeptRecord, Mapped, Target};
use crate::worker::{Attempt, Done};

/// Failures that one transaction looks at: few, because each comes with its whole record.
const BITE: u32 = 100;

/// How far it has come; the counts are the run's own.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Position {
    /// The last failure that was looked at.
    after: Option<Uuid>,
}

/// What became of a failure's record.
#[derive(Debug)]
enum Fate {
    /// It can be mapped, and is stored unless the database refuses it.
    Mapped { target: Target, id: String, raw: String },
    /// The manifest leaves such records out.
    LeftOut,
    /// It fails again.
    Fails { stage: FailureStage, reason: String },
}

pub(super) async fn run(ctx: &Context, attempt: &mut Attempt) -> Result<Done, JobError> {
    let system = super::pull::system_of(ctx, attempt).await?;
    let manifest = ctx.manifest(&system)?;
    let kept = attempt.run.position.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let mut retry = Retry {
        ctx,
        attempt,
        again: Again::new(ctx.vendors.catalog(), manifest, &system.config)?,
        config: Value::Object(system.config.0.clone()),
        zone: Context::timezone(&system)?,
        stores: system.stores(),
        system: &system,
        position: kept.unwrap_or_default(),
        counts: attempt.run.counts(),
        event_types: HashMap::new(),
    };
    while retry.bite().await? {
        if attempt.should_yield() {
            return Err(JobError::new(
                Action::Yield,
                "turn_over",
                "the retry goes on at its next turn, after the failure it has come to",
            ));
        }
    }
    let Counts { success, failed, skipped, .. } = retry.counts;
    tracing::info!(failures.mended = success + skipped, failures.open = failed, "failures were tried again");
    Ok(Done { status: if failed > 0 { SyncStatus::Partial } else { SyncStatus::Success } })
}

/// One attempt.
struct Retry<'a> {
    ctx: &'a Context,
    attempt: &'a Attempt,
    system: &'a ExternalSystem,
    again: Again,
    /// As webhooks have it.
    config: Value,
    zone: chrono_tz::Tz,
    stores: StoreMap,
    position: Position,
    counts: Counts,
    /// Of the logs of webhooks, by their id; nothing of other runs.
    event_types: HashMap<RunId, Option<String>>,
}

impl Retry<'_> {
    /// One transaction: some failures, and how far we are. Whether there may be more.
    async fn bite(&mut self) -> Result<bool, JobError> {
        let run = &self.attempt.run;
        let one_stream = run.sync_type != Kind::RetryFailures.as_str();
        let wanted = Wanted {
            system_id: self.system.id,
            stream: one_stream.then_some(run.sync_type.as_str()),
            until: run.created_at,
        };
        let failures = sync_failures::list_to_try(&self.ctx.store, wanted, self.position.after, BITE).await?;
        let Some(last) = failures.last() else { return Ok(false) };
        let next = Position { after: Some(last.id) };
        let mut whole = Mapped::default();
        let mut tried = Vec::with_capacity(failures.len());
        for failure in failures {
            let event_type = self.event_type(failure.sync_log_id).await?;
            let fate = self.map(&failure, event_type.as_deref(), &mut whole);
            tried.push((failure, fate));
        }
        let mut tx = self.attempt.begin().await?;
        let refused = self.store(&mut tx, whole).await?;
        let counts = self.settle(&mut tx, tried, &refused).await?;
        let text = serde_json::to_string(&next).unwrap_or_default();
        sync_logs::progress(&mut tx, run.claim(), Some(&text), counts, None, None).await?;
        tx.commit().await?;
        (self.position, self.counts) = (next, counts);
        Ok(true)
    }

    /// The type of the event that brought a record, where one did.
    async fn event_type(&mut self, log: Option<RunId>) -> Result<Option<String>, JobError> {
        let Some(log) = log else { return Ok(None) };
        if let Some(known) = self.event_types.get(&log) {
            return Ok(known.clone());
        }
        let run = sync_logs::find(&self.ctx.store, log).await?;
        let minute = run.filter(|run| run.kind == APPLY_WEBHOOKS);
        let event_type = minute.and_then(|run| Some(run.sync_type.strip_prefix("webhook/")?.to_owned()));
        self.event_types.insert(log, event_type.clone());
        Ok(event_type)
    }

    /// Maps one record; what comes of it goes to the others.
    fn map(&self, failure: &SyncFailure, event_type: Option<&str>, whole: &mut Mapped) -> Fate {
        let fails = |reason| Fate::Fails { stage: FailureStage::Mapping, reason };
        let mut mapped = match self.again.map(
            KeptRecord { stream: &failure.stream, raw: &failure.raw, event_type },
            &self.scope(failure.updated_at),
        ) {
            Ok(mapped) => mapped,
            Err(reason) => return fails(reason),
        };
        if let Some(again) = mapped.failures.pop() {
            return fails(again.reason);
        }
        let fate = fate_of(&mapped);
        whole.append(mapped);
        fate
    }

    fn scope(&self, observed_at: DateTime<Utc>) -> EventScope<'_> {
        EventScope {
            system_type: self.system.system_type,
            config: &self.config,
            currency: self.system.currency,
            zone: self.zone,
            received_at: observed_at,
        }
    }

    /// Writes the records; gives back those that the database refuses.
    async fn store(&self, tx: &mut Tx, mapped: Mapped) -> Result<Vec<(Target, RefusedRecord)>, JobError> {
        let batch = Batch {
            system_id: self.system.id,
            stores: &self.stores,
            sync_log_id: Some(self.attempt.run.id),
            observed_at: self.attempt.run.created_at,
            clock: self.ctx.clock(),
            force: false,
        };
        Ok(storing::store(tx, batch, self.system.member_conflict, mapped).await?)
    }

    /// Resolves the failures whose records are stored or left out, and says of the others why they stay.
    async fn settle(
        &self,
        tx: &mut Tx,
        mut tried: Vec<(SyncFailure, Fate)>,
        refused: &[(Target, RefusedRecord)],
    ) -> Result<Counts, JobError> {
        // Pulls write failures in this order too: nobody waits for whoever waits for him.
        tried.sort_by(|(a, _), (b, _)| (&a.stream, &a.external_id).cmp(&(&b.stream, &b.external_id)));
        let mut counts = self.counts;
        for (failure, fate) in tried {
            let fate = judged(fate, refused);
            let mine = match &fate {
                Fate::Fails { stage, reason } => sync_failures::restate(tx, &failure, *stage, reason).await?,
                Fate::Mapped { .. } | Fate::LeftOut => {
                    sync_failures::mend(tx, self.ctx.clock(), &failure).await?
                }
            };
            counts.total += 1;
            match fate {
                Fate::Mapped { .. } if mine => counts.success += 1,
                Fate::Fails { .. } if mine => counts.failed += 1,
                // What the vendor told anew meanwhile, or somebody mended, is not this run's any more.
                _ => counts.skipped += 1,
            }
        }
        Ok(counts)
    }
}

/// What the mapping has made of the only record.
fn fate_of(mapped: &Mapped) -> Fate {
    mapped.rows().next().map_or(Fate::LeftOut, |row| Fate::Mapped {
        target: row.target,
        id: row.id.to_owned(),
        raw: row.raw.to_owned(),
    })
}

/// The same, once the database has had its say. An id that it cannot keep is not given back, the record is.
fn judged(fate: Fate, refused: &[(Target, RefusedRecord)]) -> Fate {
    let Fate::Mapped { target, id, raw } = &fate else { return fate };
    let same = |(of, record): &&(Target, RefusedRecord)| {
        of == target && (record.external_id == *id || record.raw == *raw)
    };
    match refused.iter().find(same) {
        Some((_, record)) => Fate::Fails { stage: FailureStage::Storing, reason: record.reason.clone() },
        None => fate,
    }
}
