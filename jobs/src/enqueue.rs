//! The only way in: a run is written in its cause's transaction, and its message rung after the commit.
//!
//! At most one run with an exclusive key is under way. A wish that meets one joins it: a pending run is
//! hurried, a syncing one runs once more when it ends, and one with other parameters is a conflict that
//! names it.
//!
//! A window ends a lag before the present ([`Stream::lag`](crate::vendor::Stream)). So a pull that is to see
//! what a webhook has just announced begins that much later, and a run that began its window earlier, or is
//! to begin earlier, runs once more.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zhilian_sync_store::external_systems::ExternalSystem;
use zhilian_sync_store::sync_logs::{self, Active, NewRun};
use zhilian_sync_store::webhook_events::WebhookState;
use zhilian_sync_store::{Lane, RunId, StoreError, SyncStatus, SystemId, Trigger, Tx, UserId};

use crate::context::{Context, seconds};
use crate::kinds::Kind;

/// How often an insert that meets a run that ends at that moment is tried again.
const RACE_ROUNDS: usize = 5;

/// Beyond the lag: the vendor's clock, by which a window ends, is told in whole seconds.
const AFTER_LAG: TimeDelta = TimeDelta::seconds(1);

/// What a pull is asked to do; empty for the normal window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullParameters {
    /// Read from this time, whatever the watermark says; the watermark stays where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// Read up to this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<DateTime<Utc>>,
    /// Read everything from the beginning; the watermark moves when that is done, and stays until then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
}

impl PullParameters {
    /// Whether a range of the past was asked for.
    #[must_use]
    pub const fn is_backfill(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// Why a run with them exists that a person asks for: who reads the past takes no place from those where
    /// a person waits.
    #[must_use]
    pub const fn trigger(&self) -> Trigger {
        if self.is_backfill() || self.anew { Trigger::Backfill } else { Trigger::Manual }
    }
}

/// Which webhook events a replay applies once more. What is newer than they are always stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayParameters {
    /// Only those of this system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemId>,
    /// Only those of systems of this store: what the person who asks may see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Only those in this state. Quarantined ones are never replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<WebhookState>,
    /// Only those of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Only those received at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// Only those received before this time; never those received after the wish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<DateTime<Utc>>,
}

/// Which member a push tells the vendor of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushParameters {
    /// Its row.
    pub member: Uuid,
}

/// A wish for a run.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The kind of job.
    pub kind: Kind,
    /// For which system; none for a replay of several systems' events.
    pub system: Option<SystemId>,
    /// The stream of a pull, or whose failures are tried again; the kind's own name for the others.
    pub stream: String,
    /// Why.
    pub trigger: Trigger,
    /// The slot, of a scheduled run.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// How long after the wish it begins at the earliest.
    pub wait: TimeDelta,
    /// What a pull is asked to do.
    pub parameters: PullParameters,
    /// What a replay is asked to do.
    pub replay: Option<ReplayParameters>,
    /// What a push is asked to do.
    pub push: Option<PushParameters>,
    /// The run that is repeated.
    pub retry_of: Option<RunId>,
    /// Who asks.
    pub requested_by: Option<UserId>,
}

/// What became of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// A new run.
    New(RunId),
    /// A new run that is not due yet; the scheduler rings for it.
    Later(RunId),
    /// A pending run, due now.
    Hurried(RunId),
    /// A run that is under way or begins too early, which will run once more.
    Again(RunId),
    /// Nothing: its slot has its run, or the run before it is still under way.
    Covered,
}

impl Enqueued {
    /// The run that fulfils the wish.
    #[must_use]
    pub const fn run(self) -> Option<RunId> {
        match self {
            Self::New(id) | Self::Later(id) | Self::Hurried(id) | Self::Again(id) => Some(id),
            Self::Covered => None,
        }
    }
}

impl Wish {
    /// A person's wish to test a connection.
    #[must_use]
    pub fn connection_test(system: SystemId, requested_by: Option<UserId>) -> Self {
        Self {
            kind: Kind::ConnectionTest,
            system: Some(system),
            stream: Kind::ConnectionTest.as_str().into(),
            trigger: Trigger::Manual,
            scheduled_for: None,
            wait: TimeDelta::zero(),
            parameters: PullParameters::default(),
            replay: None,
            push: None,
            retry_of: None,
            requested_by,
        }
    }

    /// A person's wish to read a stream now.
    #[must_use]
    pub fn pull(system: SystemId, stream: &str, requested_by: Option<UserId>) -> Self {
        Self { kind: Kind::Pull, stream: stream.into(), ..Self::connection_test(system, requested_by) }
    }

    /// The slot's wish to read a stream.
    #[must_use]
    pub fn scheduled(system: &ExternalSystem, stream: &str, slot: DateTime<Utc>) -> Self {
        Self { trigger: Trigger::Schedule, scheduled_for: Some(slot), ..Self::pull(system.id, stream, None) }
    }

    /// A webhook's wish to read a stream: there is something new in it, which windows show after `wait`
    /// ([`wait_of`]).
    #[must_use]
    pub fn told(system: SystemId, stream: &str, wait: TimeDelta) -> Self {
        Self { trigger: Trigger::Webhook, wait, ..Self::pull(system, stream, None) }
    }

    /// A person's wish to apply webhook events once more.
    #[must_use]
    pub fn replay(parameters: ReplayParameters, requested_by: Option<UserId>) -> Self {
        Self {
            kind: Kind::ReplayWebhooks,
            system: parameters.system,
            stream: Kind::ReplayWebhooks.as_str().into(),
            trigger: Trigger::Manual,
            scheduled_for: None,
            wait: TimeDelta::zero(),
            parameters: PullParameters::default(),
            replay: Some(parameters),
            push: None,
            retry_of: None,
            requested_by,
        }
    }

    /// The wish that a vendor be told of a member: because it was changed, or because a person asks.
    #[must_use]
    pub fn push(system: SystemId, member: Uuid, trigger: Trigger, requested_by: Option<UserId>) -> Self {
        Self {
            kind: Kind::PushMember,
            stream: Kind::PushMember.as_str().into(),
            trigger,
            push: Some(PushParameters { member }),
            ..Self::connection_test(system, requested_by)
        }
    }

    /// A person's wish to map once more what failed: of one stream, or of all.
    #[must_use]
    pub fn retry_failures(system: SystemId, stream: Option<&str>, requested_by: Option<UserId>) -> Self {
        Self {
            kind: Kind::RetryFailures,
            stream: stream.unwrap_or(Kind::RetryFailures.as_str()).into(),
            ..Self::connection_test(system, requested_by)
        }
    }

    /// At most one run with this key is under way.
    fn exclusive_key(&self) -> String {
        let system = self.system.map(|system| system.to_string()).unwrap_or_default();
        match self.kind {
            Kind::ConnectionTest => format!("test/{system}"),
            Kind::Pull if self.parameters.is_backfill() => {
                let end = |at: Option<DateTime<Utc>>| at.map(|at| at.to_rfc3339()).unwrap_or_default();
                format!(
                    "backfill/{system}/{}/{}..{}",
                    self.stream,
                    end(self.parameters.from),
                    end(self.parameters.to)
                )
            }
            Kind::Pull => format!("pull/{system}/{}", self.stream),
            Kind::PushMember => {
                let member = self.push.map(|push| push.member.to_string()).unwrap_or_default();
                format!("push/{system}/{member}")
            }
            Kind::RetryFailures => format!("failures/{system}/{}", self.stream),
            Kind::ReplayWebhooks => {
                let store = self.replay.as_ref().and_then(|replay| replay.store.as_deref());
                format!("replay/{system}/{}", store.unwrap_or_default())
            }
            Kind::ApplyWebhooks | Kind::Upkeep => self.kind.as_str().into(),
        }
    }

    /// What it is asked to do, as it is kept on the run; `None` for the usual.
    fn parameters_text(&self) -> Option<String> {
        if let Some(replay) = &self.replay {
            return serde_json::to_string(replay).ok();
        }
        if let Some(push) = &self.push {
            return serde_json::to_string(push).ok();
        }
        let usual = self.parameters == PullParameters::default();
        (!usual).then(|| serde_json::to_string(&self.parameters).unwrap_or_default())
    }

    fn new_run(&self, ctx: &Context, now: DateTime<Utc>) -> NewRun {
        NewRun {
            id: RunId(ctx.clock().new_id()),
            system_id: self.system,
            kind: self.kind.as_str(),
            sync_type: self.stream.clone(),
            trigger: self.trigger,
            lane: self.kind.lane(self.trigger),
            exclusive_key: Some(self.exclusive_key()),
            max_attempts: self.kind.max_attempts(&ctx.engine),
            run_at: now.checked_add_signed(self.wait).unwrap_or(now),
            deadline_at: Some(now + seconds(ctx.engine.run_deadline_secs)),
            scheduled_for: self.scheduled_for,
            parameters: self.parameters_text(),
            retry_of: self.retry_of,
            requested_by: self.requested_by,
            // The scheduler rings for its own runs, within the lane's high-water mark, and for what waits.
            rung_at: (self.trigger != Trigger::Schedule && self.wait.is_zero()).then_some(now),
        }
    }
}

/// How long after something has changed at the vendor a pull sees it: by then the end of its window, which
/// lags behind, has passed it. Of a stream that cannot be found only the least.
pub fn wait_of(ctx: &Context, system: &ExternalSystem, stream: &str) -> TimeDelta {
    let manifest = ctx.vendors.catalog().resolve(&system.provider, &system.config).ok();
    let lag = manifest.and_then(|manifest| manifest.stream(stream).map(|stream| stream.lag));
    TimeDelta::from_std(lag.unwrap_or_default()).unwrap_or_default() + AFTER_LAG
}

/// Whether a system's vendor can be told of members.
pub fn takes_members(ctx: &Context, system: &ExternalSystem) -> bool {
    let manifest = ctx.vendors.catalog().resolve(&system.provider, &system.config);
    manifest.is_ok_and(|manifest| manifest.takes_members())
}

/// Writes a wish in the caller's transaction. After the commit, hand the answer to [`ring`].
pub async fn enqueue(ctx: &Context, tx: &mut Tx, wish: &Wish) -> Result<Enqueued, StoreError> {
    let now = ctx.clock().now();
    let run = wish.new_run(ctx, now);
    let key = wish.exclusive_key();
    for _ in 0..RACE_ROUNDS {
        if sync_logs::insert(tx, &run, now).await? {
            return Ok(if wish.wait.is_zero() { Enqueued::New(run.id) } else { Enqueued::Later(run.id) });
        }
        if wish.trigger == Trigger::Schedule {
            return Ok(Enqueued::Covered);
        }
        // None: it ended between the two statements, so the next insert meets nothing.
        let Some(active) = sync_logs::find_active(tx, &key).await? else {
            continue;
        };
        // Who tells of news is content with whatever reads them, if only it reads once more.
        if active.parameters != run.parameters && wish.trigger != Trigger::Webhook {
            return Err(StoreError::Conflict(format!(
                "run `{}` of the same stream is under way with other parameters; wait for it or cancel it",
                active.id
            )));
        }
        if let Some(joined) = join(tx, wish, &run, &active, now).await? {
            return Ok(joined);
        }
    }
    Err(StoreError::Conflict("runs of this stream start and end too fast to join one; try again".into()))
}

/// Has the run that is under way do what is wished for; `None` when it changed at that moment.
async fn join(
    tx: &mut Tx,
    wish: &Wish,
    run: &NewRun,
    active: &Active,
    now: DateTime<Utc>,
) -> Result<Option<Enqueued>, StoreError> {
    let pending = active.status == SyncStatus::Pending;
    let told = wish.trigger == Trigger::Webhook;
    // A run that waits for its retry is not hurried: who tells us of news cannot mend the vendor.
    if pending && told && !active.begun && active.run_at >= run.run_at {
        return Ok(Some(Enqueued::Covered));
    }
    if pending && !told {
        let lane = wish.kind.lane(wish.trigger);
        let hurried = sync_logs::hurry(tx, active.id, lane, now).await?;
        return Ok(hurried.then_some(Enqueued::Hurried(active.id)));
    }
    Ok(sync_logs::ask_again(tx, active.id, now).await?.then_some(Enqueued::Again(active.id)))
}

/// Rings for what was enqueued, after the commit. A queue that is away is no error: the row is there,
/// and the scheduler rings for it.
pub async fn ring(ctx: &Context, lane: Lane, enqueued: &[Enqueued]) {
    let runs: Vec<RunId> = enqueued
        .iter()
        .filter_map(|one| match one {
            Enqueued::New(id) | Enqueued::Hurried(id) => Some(*id),
            Enqueued::Later(_) | Enqueued::Again(_) | Enqueued::Covered => None,
        })
        .collect();
    if runs.is_empty() {
        return;
    }
    let accepted = match ctx.queue.ring(lane, &runs).await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::warn!(%error, lane = %lane, "the queue is away; the scheduler will ring");
            0
        }
    };
    if accepted < runs.len()
        && let Err(error) = sync_logs::unring(&ctx.store, &runs[accepted..]).await
    {
        tracing::warn!(%error, "could not note that runs were not rung; they are rung again later");
    }
}

/// Enqueues one wish in a transaction of its own, and rings.
pub async fn start(ctx: &Context, wish: &Wish) -> Result<Enqueued, StoreError> {
    let mut tx = ctx.store.begin().await?;
    let enqueued = enqueue(ctx, &mut tx, wish).await?;
    tx.commit().await?;
    ring(ctx, wish.kind.lane(wish.trigger), &[enqueued]).await;
    Ok(enqueued)
}
