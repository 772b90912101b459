//! Records that could not be mapped or stored: list, show, try again. None is ever dropped; a later version
//! that succeeds resolves it, and so does a mapping that was mended.

use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use serde_json::json;
use uuid::Uuid;
use zhilian_sync_jobs::enqueue::{self, Wish};
use zhilian_sync_store::sync_failures::{self, Filter, SyncFailure};
use zhilian_sync_store::{RunId, SystemId, external_systems, sync_logs};

use super::Tag;
use super::access::{Permission, in_scope};
use super::answer::{Answer, Found};
use super::body::{Body, request_body};
use super::caller::Caller;
use super::page::{Limit, Page, Wanted};
use super::problem::Problem;
use super::runs::RunAnswer;
use super::systems;
use super::values::{Json, Text, Time};
use crate::app::App;

request_body! {
    /// Which failures of a system are tried again; all that are open where nothing is named.
    refuses_unknown pub struct RetrySome {
        /// Only those of this stream.
        stream: Option<Text<100>>,
    }
}

/// The operations of this file.
pub struct Failures(pub App);

/// A record that could not be mapped or stored.
#[derive(Debug, Object)]
#[oai(rename = "SyncFailure")]
pub struct SyncFailureAnswer {
    /// Its id.
    pub id: String,
    /// Whose record.
    pub system_id: String,
    /// The run that brought it last; trying it again leaves that as it is.
    pub run_id: Option<String>,
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
    /// When it failed first.
    pub created_at: Time,
    /// When the vendor told it last, or it was resolved.
    pub updated_at: Time,
    /// When it was stored after all, or a later version of it was.
    pub resolved_at: Option<Time>,
    /// The record itself: of one failure, for those who may see it.
    #[oai(skip_serializing_if_is_none)]
    pub raw: Option<Json>,
}

impl SyncFailureAnswer {
    fn new(failure: SyncFailure, with_raw: bool) -> Self {
        Self {
            id: failure.id.to_string(),
            system_id: failure.system_id.to_string(),
            run_id: failure.sync_log_id.map(|id| id.to_string()),
            stream: failure.stream,
            external_id: failure.external_id,
            stage: failure.stage.to_string(),
            reason: failure.reason,
            occurrences: failure.occurrences,
            created_at: failure.created_at.into(),
            updated_at: failure.updated_at.into(),
            resolved_at: failure.resolved_at.map(Time),
            raw: with_raw.then(|| Json::from_column(&failure.raw)),
        }
    }
}

#[OpenApi]
impl Failures {
    /// List failures
    #[oai(
        path = "/integrations/sync-failures",
        method = "get",
        operation_id = "list_failures",
        tag = "Tag::Runs"
    )]
    #[expect(clippy::too_many_arguments, reason = "one for each filter, and the framework fills them in")]
    async fn list_failures(
        &self,
        caller: Caller,
        system_id: Query<Option<Uuid>>,
        stream: Query<Option<Text<100>>>,
        run_id: Query<Option<Uuid>>,
        open: Query<Option<bool>>,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<SyncFailureAnswer>, Problem> {
        let wanted = Wanted::new(limit.0, cursor.0.as_deref())?;
        let filter = Filter {
            scope: caller.scope(),
            system_id: system_id.0.map(SystemId),
            stream: stream.0.as_ref().map(|text| text.0.as_str()),
            run_id: run_id.0.map(RunId),
            open: open.0,
            after: wanted.after.map(|(_, id)| id),
            limit: wanted.rows(),
        };
        let rows = sync_failures::list(self.0.store(), &filter).await?;
        let position = |row: &SyncFailure| (row.created_at, row.id);
        let show = |row| SyncFailureAnswer::new(row, false);
        Ok(Page::new(rows, wanted, &caller.origin.uri, position, show))
    }

    /// Show a failure with its record
    #[oai(
        path = "/integrations/sync-failures/:failure_id",
        method = "get",
        operation_id = "show_failure",
        tag = "Tag::Runs"
    )]
    async fn show_failure(
        &self,
        caller: Caller,
        failure_id: Path<Uuid>,
    ) -> Result<Found<SyncFailureAnswer>, Problem> {
        let store = self.0.store();
        let missing = || Problem::not_found(format_args!("failure `{}`", failure_id.0));
        let failure = sync_failures::find(store, failure_id.0).await?.ok_or_else(missing)?;
        if caller.scope().is_some() {
            let system = external_systems::find(store, failure.system_id).await?;
            let seen = system.is_some_and(|system| in_scope(caller.scope(), system.store_id.as_deref()));
            if !seen {
                return Err(missing());
            }
        }
        let raw = caller.may(Permission::SeeSamples);
        Ok(Answer(SyncFailureAnswer::new(failure, raw)))
    }

    /// Try failures again
    ///
    /// Maps the records of a system's open failures once more, with the manifest of today, and stores those that
    /// now can be. Nothing that was heard of a record since is overwritten, and the vendor is not asked.
    #[oai(
        path = "/integrations/systems/:system_id/failures/retry",
        method = "post",
        operation_id = "retry_failures",
        tag = "Tag::Runs"
    )]
    async fn retry_failures(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
        body: Body<RetrySome>,
    ) -> Result<Answer<202, RunAnswer>, Problem> {
        let context = self.0.context();
        let system = systems::visible(context, &caller, system_id.0).await?;
        let stream = body.value.stream.map(|stream| stream.0);
        let wish = Wish::retry_failures(system.id, stream.as_deref(), Some(caller.user_id));
        let detail = stream.map(|stream| json!({"stream": stream}).to_string());
        let mut tx = context.store.begin().await?;
        let enqueued = enqueue::enqueue(context, &mut tx, &wish).await?;
        systems::audit(&mut tx, context, &caller, "failures.retry", &system, detail.as_deref()).await?;
        tx.commit().await?;
        enqueue::ring(context, wish.kind.lane(wish.trigger), &[enqueued]).await;
        let run = enqueued.run().ok_or_else(Problem::internal)?;
        Ok(Answer(RunAnswer::new(&sync_logs::get(&context.store, run).await?)))
    }
}
