//! Runs, which the seed calls sync logs: list, show with attempts and failures, cancel, retry.

use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use serde_json::json;
use uuid::Uuid;
use zhilian_sync_jobs::enqueue::{self, PullParameters, Wish};
use zhilian_sync_jobs::kinds::push_member;
use zhilian_sync_jobs::{Context, Kind};
use zhilian_sync_store::events::EventKind;
use zhilian_sync_store::sync_failures::{self, SyncFailure};
use zhilian_sync_store::sync_logs::{self, Filter, Run};
use zhilian_sync_store::{
    RunId, SyncStatus, SystemId, Trigger, audit_logs, external_systems, member_syncs, money,
};

use super::Tag;
use super::access::{Permission, in_scope};
use super::answer::{Answer, Found};
use super::caller::Caller;
use super::changes::Changes;
use super::page::{Limit, Page, Wanted};
use super::problem::Problem;
use super::values::{Choice, Json, Money, Text, Time};
use crate::app::App;

/// How many failures of a run are shown with it.
const FAILURES_MAX: u32 = 100;

/// The operations of this file.
pub struct Runs(pub App);

/// A run.
#[derive(Debug, Object)]
#[oai(rename = "SyncLog")]
pub struct RunAnswer {
    /// The id.
    pub id: String,
    /// The system; null for housekeeping.
    pub system_id: Option<String>,
    /// The stream, or `connection_test`.
    pub sync_type: String,
    /// The kind of job.
    pub kind: String,
    /// Why it exists.
    pub trigger: Choice<Trigger>,
    /// Where it stands.
    pub status: Choice<SyncStatus>,
    /// Attempts spent.
    pub attempt: i64,
    /// Attempts there are.
    pub max_attempts: i64,
    /// Not before this time.
    pub run_at: Time,
    /// The slot it was made for.
    pub scheduled_for: Option<Time>,
    /// Records seen.
    pub records_total: i64,
    /// Records stored.
    pub records_success: i64,
    /// Records that could not be mapped or stored.
    pub records_failed: i64,
    /// Records left out on purpose.
    pub records_skipped: i64,
    /// When it was first worked on.
    pub started_at: Option<Time>,
    /// When it ended.
    pub completed_at: Option<Time>,
    /// How long it took.
    pub duration_seconds: Option<Money>,
    /// Stable, for programs.
    pub error_code: Option<String>,
    /// For people: what went wrong and what to do.
    pub error_message: Option<String>,
    /// The run that it repeats.
    pub retry_of: Option<String>,
    /// Who asked for it.
    pub requested_by: Option<String>,
    /// When it was made.
    pub created_at: Time,
}

/// Runs that were started.
#[derive(Debug, Object)]
pub struct StartedAnswer {
    /// One for each stream.
    pub runs: Vec<RunAnswer>,
}

/// A run with everything that is known of it.
#[derive(Debug, Object)]
#[oai(rename = "SyncLogDetail")]
pub struct RunDetail {
    /// The run itself.
    pub run: RunAnswer,
    /// Every attempt that failed, oldest first.
    pub attempts: Vec<AttemptAnswer>,
    /// The first hundred records that could not be mapped or stored.
    pub failures: Vec<FailureAnswer>,
    /// What it was asked to do, where it was asked for something of its own.
    pub parameters: Option<Json>,
    /// What was noticed beside its outcome: `unknown_fields` are members of the vendor's records that nobody reads,
    /// with how many have them; `suspect` says why a good outcome may be none.
    pub notes: Option<Json>,
    /// A sample of what was asked, for those who may see it.
    #[oai(skip_serializing_if_is_none)]
    pub request_data: Option<Json>,
    /// A sample of what was answered, for those who may see it.
    #[oai(skip_serializing_if_is_none)]
    pub response_data: Option<Json>,
}

/// A failed attempt.
#[derive(Debug, Object)]
pub struct AttemptAnswer {
    /// When.
    pub at: Time,
    /// Which attempt.
    pub attempt: i64,
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A record that could not be mapped or stored.
#[derive(Debug, Object)]
pub struct FailureAnswer {
    /// Its id.
    pub id: String,
    /// Of which stream.
    pub stream: String,
    /// The vendor's id of the record.
    pub external_id: String,
    /// `mapping` or `storing`.
    pub stage: String,
    /// Why.
    pub reason: String,
    /// How often.
    pub occurrences: i64,
    /// When it was stored after all, or a later version of it was.
    pub resolved_at: Option<Time>,
    /// The record itself, for those who may see it.
    #[oai(skip_serializing_if_is_none)]
    pub raw: Option<Json>,
}

impl RunAnswer {
    /// What is shown of a run everywhere.
    pub fn new(run: &Run) -> Self {
        let text = |id: &RunId| id.to_string();
        Self {
            id: run.id.to_string(),
            system_id: run.system_id.map(|id| id.to_string()),
            sync_type: run.sync_type.clone(),
            kind: run.kind.clone(),
            trigger: Choice(run.trigger),
            status: Choice(run.status),
            attempt: run.attempt,
            max_attempts: run.max_attempts,
            run_at: run.run_at.into(),
            scheduled_for: run.scheduled_for.map(Time),
            records_total: run.records_total,
            records_success: run.records_success,
            records_failed: run.records_failed,
            records_skipped: run.records_skipped,
            started_at: run.started_at.map(Time),
            completed_at: run.completed_at.map(Time),
            // Milliseconds are to seconds as thousandths to the whole.
            duration_seconds: run.duration_ms.map(|ms| Money(money::json_number(ms, 3))),
            error_code: run.error_code.clone(),
            error_message: run.error_message.clone(),
            retry_of: run.retry_of.as_ref().map(text),
            requested_by: run.requested_by.map(|id| id.to_string()),
            created_at: run.created_at.into(),
        }
    }
}

#[OpenApi]
impl Runs {
    /// List runs
    #[oai(path = "/integrations/sync-logs", method = "get", operation_id = "list_runs", tag = "Tag::Runs")]
    async fn list_runs(
        &self,
        caller: Caller,
        system_id: Query<Option<Uuid>>,
        sync_type: Query<Option<Text<100>>>,
        status: Query<Option<Choice<SyncStatus>>>,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<RunAnswer>, Problem> {
        let wanted = Wanted::new(limit.0, cursor.0.as_deref())?;
        let filter = Filter {
            scope: caller.scope(),
            system_id: system_id.0.map(SystemId),
            sync_type: sync_type.0.as_ref().map(|text| text.0.as_str()),
            status: status.0.map(|choice| choice.0),
            after: wanted.after.map(|(at, id)| (at, RunId(id))),
            limit: wanted.rows(),
        };
        let rows = sync_logs::list(self.0.store(), &filter).await?;
        let position = |row: &Run| (row.created_at, row.id.0);
        Ok(Page::new(rows, wanted, &caller.origin.uri, position, |row| RunAnswer::new(&row)))
    }

    /// Show a run with its attempts and failures
    #[oai(
        path = "/integrations/sync-logs/:run_id",
        method = "get",
        operation_id = "show_run",
        tag = "Tag::Runs"
    )]
    async fn show_run(&self, caller: Caller, run_id: Path<Uuid>) -> Result<Found<RunDetail>, Problem> {
        let run = visible(self.0.context(), &caller, run_id.0).await?;
        let failures = sync_failures::list_of_run(self.0.store(), run.id, None, FAILURES_MAX).await?;
        let samples = caller.may(Permission::SeeSamples);
        let column = |text: &Option<String>| text.as_deref().map(Json::from_column);
        let attempts = run.attempt_errors().into_iter().map(|error| AttemptAnswer {
            at: error.at.into(),
            attempt: error.attempt,
            code: error.code,
            message: error.message,
        });
        Ok(Answer(RunDetail {
            run: RunAnswer::new(&run),
            attempts: attempts.collect(),
            failures: failures.into_iter().map(|failure| failure_answer(failure, samples)).collect(),
            parameters: column(&run.parameters),
            notes: column(&run.notes),
            request_data: column(&run.request_data).filter(|_| samples),
            response_data: column(&run.response_data).filter(|_| samples),
        }))
    }

    /// Cancel a run
    ///
    /// What it has stored so far stays.
    #[oai(
        path = "/integrations/sync-logs/:run_id/cancel",
        method = "post",
        operation_id = "cancel_run",
        tag = "Tag::Runs"
    )]
    async fn cancel_run(&self, caller: Caller, run_id: Path<Uuid>) -> Result<Found<RunAnswer>, Problem> {
        let context = self.0.context();
        let run = visible(context, &caller, run_id.0).await?;
        let store_id = store_of(context, run.system_id).await?;
        let mut tx = context.store.begin().await?;
        push_member::lock(&mut tx, &run).await?;
        let reason = format!("cancelled by `{}`", caller.username);
        let cancelled = sync_logs::cancel(&mut tx, run.id, &reason, context.clock().now()).await?;
        let Some(cancelled) = cancelled else {
            let detail = format!("the run has ended as `{}`; there is nothing to cancel", run.status);
            return Err(Problem::conflict("run_ended", detail));
        };
        push_member::failed(&mut tx, &cancelled).await?;
        let id = run.id.to_string();
        let changes = Changes::of("status", run.status.as_str(), cancelled.status.as_str());
        let detail = changes.into_detail();
        let mut entry = caller.audit("run.cancel", "run", &id);
        entry.store_id = store_id.as_deref();
        entry.detail = detail.as_deref();
        audit_logs::insert(&mut tx, context.clock(), entry).await?;
        let counts = cancelled.counts();
        sync_logs::tell(&mut tx, context.clock(), EventKind::RunEnded, &cancelled, counts).await?;
        tx.commit().await?;
        Ok(Answer(RunAnswer::new(&cancelled)))
    }

    /// Run again what failed
    #[oai(
        path = "/integrations/sync-logs/:run_id/retry",
        method = "post",
        operation_id = "retry_run",
        tag = "Tag::Runs"
    )]
    async fn retry_run(&self, caller: Caller, run_id: Path<Uuid>) -> Result<Answer<202, RunAnswer>, Problem> {
        let context = self.0.context();
        let run = visible(context, &caller, run_id.0).await?;
        let wish = retry_wish(&run, &caller)?;
        // A deleted system runs nothing any more.
        if let Some(system) = wish.system {
            external_systems::get(&context.store, system).await?;
        }
        let store_id = store_of(context, run.system_id).await?;
        let mut tx = context.store.begin().await?;
        if let Some(push) = wish.push
            && !member_syncs::ask_for_push(&mut tx, push.member).await?
        {
            return Err(not_retryable("the member of this push is gone"));
        }
        let enqueued = enqueue::enqueue(context, &mut tx, &wish).await?;
        let retry = enqueued.run().unwrap_or(run.id);
        let id = run.id.to_string();
        let detail = json!({ "retry": retry.to_string() }).to_string();
        let mut entry = caller.audit("run.retry", "run", &id);
        entry.store_id = store_id.as_deref();
        entry.detail = Some(&detail);
        audit_logs::insert(&mut tx, context.clock(), entry).await?;
        tx.commit().await?;
        enqueue::ring(context, wish.kind.lane(wish.trigger), &[enqueued]).await;
        Ok(Answer(RunAnswer::new(&sync_logs::get(&context.store, retry).await?)))
    }
}

/// The store of a run's system, for the audit of that store's admins.
async fn store_of(context: &Context, system: Option<SystemId>) -> Result<Option<String>, Problem> {
    let Some(system) = system else {
        return Ok(None);
    };
    Ok(external_systems::find(&context.store, system).await?.and_then(|system| system.store_id))
}

/// The run, if it exists for this caller.
async fn visible(context: &Context, caller: &Caller, id: Uuid) -> Result<Run, Problem> {
    let missing = || Problem::not_found(format_args!("run `{id}`"));
    let run = sync_logs::find(&context.store, RunId(id)).await?.ok_or_else(missing)?;
    if caller.scope().is_none() {
        return Ok(run);
    }
    let system = match run.system_id {
        Some(system) => external_systems::find(&context.store, system).await?,
        None => None,
    };
    let seen = system.is_some_and(|system| in_scope(caller.scope(), system.store_id.as_deref()));
    if seen { Ok(run) } else { Err(missing()) }
}

fn not_retryable(detail: impl Into<String>) -> Problem {
    Problem::conflict("not_retryable", detail)
}

/// The wish that repeats a run: the same stream with the same parameters, now.
fn retry_wish(run: &Run, caller: &Caller) -> Result<Wish, Problem> {
    let (Some(kind @ (Kind::ConnectionTest | Kind::Pull | Kind::PushMember)), Some(system)) =
        (Kind::parse(&run.kind), run.system_id)
    else {
        return Err(not_retryable(format!("a run of kind `{}` is not repeated by hand", run.kind)));
    };
    if !matches!(run.status, SyncStatus::Failed | SyncStatus::Partial | SyncStatus::Cancelled) {
        let detail = format!(
            "the run is `{}`; only one that failed, was cancelled or is partial is repeated",
            run.status
        );
        return Err(not_retryable(detail));
    }
    if kind == Kind::PushMember {
        let member = push_member::member_of(run).ok_or_else(|| not_retryable("the run names no member"))?;
        let wish = Wish::push(system, member, Trigger::Manual, Some(caller.user_id));
        return Ok(Wish { retry_of: Some(run.id), ..wish });
    }
    let parameters: PullParameters = match run.parameters.as_deref() {
        None => PullParameters::default(),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            tracing::error!(run.id = %run.id, %error, "the parameters of a run cannot be read");
            Problem::internal()
        })?,
    };
    let trigger = parameters.trigger();
    Ok(Wish {
        kind,
        trigger,
        parameters,
        retry_of: Some(run.id),
        ..Wish::pull(system, &run.sync_type, Some(caller.user_id))
    })
}

fn failure_answer(failure: SyncFailure, samples: bool) -> FailureAnswer {
    FailureAnswer {
        id: failure.id.to_string(),
        stream: failure.stream,
        external_id: failure.external_id,
        stage: failure.stage.to_string(),
        reason: failure.reason,
        occurrences: failure.occurrences,
        resolved_at: failure.resolved_at.map(Time),
        raw: samples.then(|| Json::from_column(&failure.raw)),
    }
}
