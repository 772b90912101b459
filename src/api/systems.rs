//! Connections to outside systems: create, list, show, change, delete, pause, test, synchronise.
//!
//! What a body may change and what that needs is in `systems/change.rs`; what is shown is in
//! `systems/answer.rs`. Secrets go in and never out. Whatever concerns a system of another store does not
//! exist for a caller who has a store.

use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::types::ToJSON as _;
use uuid::Uuid;
use zhilian_sync_jobs::context::seconds;
use zhilian_sync_jobs::{Context, Kind};
use zhilian_sync_store::events::EventKind;
use zhilian_sync_store::external_systems::{self, ExternalSystem, Filter, SystemChange};
use zhilian_sync_store::{
    SystemId, SystemStatus, SystemType, Tx, audit_logs, member_syncs, sync_logs, webhook_events,
};

use super::Tag;
use super::access::in_scope;
use super::answer::{Answer, Either, Found};
use super::body::{Body, request_body};
use super::caller::Caller;
use super::changes::Changes;
use super::page::{Limit, Page, Wanted};
use super::problem::Problem;
use super::runs::{RunAnswer, StartedAnswer};
use super::session::Success;
use super::values::{Choice, Flag, Text, Time};
use crate::app::App;

use answer::SystemAnswer;
use change::{NewSystem, SystemUpdate};
use testing::TestAnswer;

pub mod answer;
pub mod change;
pub(super) mod secrets;
mod starting;
pub mod testing;
pub mod watch;

/// The operations of this file.
pub struct Systems(pub App);

request_body! {
    /// Why a system is paused.
    refuses_unknown pub struct Pause {
        /// In a person's words.
        note: Option<Text<500>>,
    }
}

request_body! {
    /// What to synchronise; everything where nothing is named.
    refuses_unknown pub struct SyncRequest {
        /// One of the vendor's streams; all of them where absent.
        stream: Option<Text<100>>,
        /// Read again from this time, whatever was read before.
        from: Option<Time>,
        /// Read up to this time.
        to: Option<Time>,
        /// Read everything anew, from the beginning; what is new comes after that.
        everything: Option<Flag>,
    }
}

#[OpenApi]
impl Systems {
    /// Create a system
    #[oai(
        path = "/integrations/systems",
        method = "post",
        operation_id = "create_system",
        tag = "Tag::Systems"
    )]
    async fn create_system(
        &self,
        caller: Caller,
        body: Body<NewSystem>,
    ) -> Result<Found<SystemAnswer>, Problem> {
        let context = self.0.context();
        let NewSystem { name, system_type, provider, .. } = &body.value;
        let mut system = external_systems::blank(&context.store, &name.0, system_type.0, &provider.0);
        system.created_by = Some(caller.user_id);
        system.store_id = caller.store_id.clone();
        change::create(context, &caller, &mut system, body.value)?;
        let store = &context.store;
        let mut tx = store.begin().await?;
        external_systems::insert(&mut tx, &system).await?;
        let detail = changes(None, &system).into_detail();
        audit(&mut tx, context, &caller, "system.create", &system, detail.as_deref()).await?;
        tell(&mut tx, context, SystemChange::Created, &system).await?;
        tx.commit().await?;
        let answer = SystemAnswer::detailed(&system, &context.vendors);
        Ok(Answer(answer.ignoring(body.ignored_fields)))
    }

    /// List systems
    #[oai(
        path = "/integrations/systems",
        method = "get",
        operation_id = "list_systems",
        tag = "Tag::Systems"
    )]
    async fn list_systems(
        &self,
        caller: Caller,
        #[oai(name = "type")] system_type: Query<Option<Choice<SystemType>>>,
        store_id: Query<Option<Text<64>>>,
        status: Query<Option<Choice<SystemStatus>>>,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<SystemAnswer>, Problem> {
        let wanted = Wanted::new(limit.0, cursor.0.as_deref())?;
        let filter = Filter {
            scope: caller.scope(),
            store_id: store_id.0.as_ref().map(|text| text.0.as_str()),
            system_type: system_type.0.map(|choice| choice.0),
            status: status.0.map(|choice| choice.0),
            after: wanted.after.map(|(at, id)| (at, SystemId(id))),
            limit: wanted.rows(),
        };
        let rows = external_systems::list(self.0.store(), &filter).await?;
        let position = |row: &ExternalSystem| (row.created_at, row.id.0);
        Ok(Page::new(rows, wanted, &caller.origin.uri, position, |row| SystemAnswer::new(&row)))
    }

    /// Show a system
    #[oai(
        path = "/integrations/systems/:system_id",
        method = "get",
        operation_id = "show_system",
        tag = "Tag::Systems"
    )]
    async fn show_system(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
    ) -> Result<Found<SystemAnswer>, Problem> {
        let context = self.0.context();
        let system = visible(context, &caller, system_id.0).await?;
        Ok(Answer(SystemAnswer::detailed(&system, &context.vendors)))
    }

    /// Change a system
    ///
    /// What is absent stays as it is, and null takes a value away. A change of host, provider or
    /// authentication needs the credentials again in the same request.
    #[oai(
        path = "/integrations/systems/:system_id",
        method = "put",
        operation_id = "update_system",
        tag = "Tag::Systems"
    )]
    async fn update_system(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
        body: Body<SystemUpdate>,
    ) -> Result<Found<SystemAnswer>, Problem> {
        let context = self.0.context();
        let mut system = visible(context, &caller, system_id.0).await?;
        let before = system.clone();
        let status = change::update(context, &caller, &mut system, body.value)?;
        let change = Change { action: "system.update", before: &before, status };
        let answer = self.save(&caller, change, system).await?;
        Ok(Answer(answer.ignoring(body.ignored_fields)))
    }

    /// Delete a system
    ///
    /// Its runs are cancelled, its waiting webhook events given up and its secrets wiped; its records stay.
    #[oai(
        path = "/integrations/systems/:system_id",
        method = "delete",
        operation_id = "delete_system",
        tag = "Tag::Systems"
    )]
    async fn delete_system(&self, caller: Caller, system_id: Path<Uuid>) -> Result<Found<Success>, Problem> {
        let context = self.0.context();
        let system = visible(context, &caller, system_id.0).await?;
        let now = context.clock().now();
        let mut tx = context.store.begin().await?;
        // Events before members before runs, and all before the system: the order in which everybody takes them.
        webhook_events::bury_of_system(&mut tx, system.id, now).await?;
        member_syncs::fail_pushes(&mut tx, system.id, "the system was deleted").await?;
        let runs = sync_logs::cancel_all_of(&mut tx, system.id, "the system was deleted", now).await?;
        for run in &runs {
            sync_logs::tell(&mut tx, context.clock(), EventKind::RunEnded, run, run.counts()).await?;
        }
        external_systems::delete(&mut tx, &system, now).await?;
        audit(&mut tx, context, &caller, "system.delete", &system, None).await?;
        tell(&mut tx, context, SystemChange::Deleted, &system).await?;
        tx.commit().await?;
        Ok(Success::answer(format!("system `{}` is deleted; its records are kept", system.name)))
    }

    /// Pause a system
    ///
    /// Nothing is synchronised by schedule until it is resumed, and members wait to be pushed; tests and manual
    /// runs still work.
    #[oai(
        path = "/integrations/systems/:system_id/pause",
        method = "post",
        operation_id = "pause_system",
        tag = "Tag::Systems"
    )]
    async fn pause_system(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
        body: Body<Pause>,
    ) -> Result<Found<SystemAnswer>, Problem> {
        let before = visible(self.0.context(), &caller, system_id.0).await?;
        let mut system = before.clone();
        system.paused = true;
        system.paused_note = body.value.note.map(|note| note.0);
        change::unschedule(&mut system);
        self.save(&caller, Change::of("system.pause", &before), system).await.map(Answer)
    }

    /// Resume a paused system
    #[oai(
        path = "/integrations/systems/:system_id/resume",
        method = "post",
        operation_id = "resume_system",
        tag = "Tag::Systems"
    )]
    async fn resume_system(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
    ) -> Result<Found<SystemAnswer>, Problem> {
        let before = visible(self.0.context(), &caller, system_id.0).await?;
        let mut system = before.clone();
        system.paused = false;
        system.paused_note = None;
        // The scheduler gives it a fresh slot: what was missed is one run, not many.
        change::unschedule(&mut system);
        self.save(&caller, Change::of("system.resume", &before), system).await.map(Answer)
    }

    /// Test the connection
    ///
    /// Waits up to ten seconds for the outcome; then, or with `wait=0`, the run's id is answered to ask for
    /// it later.
    #[oai(
        path = "/integrations/systems/:system_id/test",
        method = "post",
        operation_id = "test_system",
        tag = "Tag::Systems"
    )]
    async fn test_system(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
        wait: Query<Option<Flag>>,
    ) -> Result<Either<Found<TestAnswer>, Answer<202, RunAnswer>>, Problem> {
        let system = visible(self.0.context(), &caller, system_id.0).await?;
        let wait = wait.0.is_none_or(|wait| wait.0);
        testing::test(&self.0, &caller, &system, wait).await
    }

    /// Synchronise now
    ///
    /// What is new, of one stream or of all; with `from` or `to` a range of the past once more; with
    /// `everything` all there is, from the beginning.
    #[oai(
        path = "/integrations/systems/:system_id/sync",
        method = "post",
        operation_id = "start_sync",
        tag = "Tag::Systems"
    )]
    async fn start_sync(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
        body: Body<SyncRequest>,
    ) -> Result<Answer<202, StartedAnswer>, Problem> {
        let system = visible(self.0.context(), &caller, system_id.0).await?;
        starting::start(self.0.context(), &caller, &system, body.value).await.map(Answer)
    }

    async fn save(
        &self,
        caller: &Caller,
        change: Change<'_>,
        system: ExternalSystem,
    ) -> Result<SystemAnswer, Problem> {
        let context = self.0.context();
        let mut tx = context.store.begin().await?;
        let now = context.clock().now();
        if change.action == "system.resume" {
            // Pushes have waited for this; runs before systems, as everywhere.
            let deadline_at = now + seconds(context.engine.run_deadline_secs);
            sync_logs::release(&mut tx, system.id, Kind::PushMember.as_str(), now, deadline_at).await?;
        }
        external_systems::save(&mut tx, &system, change.status, now).await?;
        let system = ExternalSystem { status: change.status.unwrap_or(system.status), ..system };
        let detail = changes(Some(change.before), &system).into_detail();
        audit(&mut tx, context, caller, change.action, &system, detail.as_deref()).await?;
        let told = match change.action {
            "system.pause" => SystemChange::Paused,
            "system.resume" => SystemChange::Resumed,
            _ => SystemChange::Updated,
        };
        tell(&mut tx, context, told, &system).await?;
        tx.commit().await?;
        let saved = external_systems::get(&context.store, system.id).await?;
        Ok(SystemAnswer::detailed(&saved, &context.vendors))
    }
}

/// The system, if it exists for this caller.
pub async fn visible(context: &Context, caller: &Caller, id: Uuid) -> Result<ExternalSystem, Problem> {
    let found = external_systems::find(&context.store, SystemId(id)).await?;
    found
        .filter(|system| in_scope(caller.scope(), system.store_id.as_deref()))
        .ok_or_else(|| Problem::not_found(format_args!("system `{id}`")))
}

/// A saved change: what the audit calls it, what was there, and the status where it sets one.
struct Change<'a> {
    action: &'a str,
    before: &'a ExternalSystem,
    status: Option<SystemStatus>,
}

impl<'a> Change<'a> {
    const fn of(action: &'a str, before: &'a ExternalSystem) -> Self {
        Self { action, before, status: None }
    }
}

/// What the audit shows of a system, before and after: everything that a person sets but secrets.
const SHOWN_OF_AUDIT: &[&str] = &[
    "name",
    "type",
    "provider",
    "status",
    "store_id",
    "store_map",
    "api_endpoint",
    "webhook_url",
    "config",
    "timezone",
    "currency",
    "sync_enabled",
    "sync_interval",
    "sync_cron",
    "paused",
    "paused_note",
    "webhook_verification",
    "member_conflict",
];

/// What a change changed; of secrets only that they did.
fn changes(before: Option<&ExternalSystem>, after: &ExternalSystem) -> Changes {
    let shown = |system: &ExternalSystem| SystemAnswer::new(system).to_json().unwrap_or_default();
    let mut changes = Changes::between(&before.map(shown).unwrap_or_default(), &shown(after), SHOWN_OF_AUDIT);
    // What is not set anew keeps its seal to the byte.
    if before.is_none_or(|before| before.sealed_credentials != after.sealed_credentials)
        && (before.is_some() || after.sealed_credentials.is_some())
    {
        changes = changes.secret("credentials");
    }
    if before.is_none_or(|before| before.sealed_webhook_secrets != after.sealed_webhook_secrets)
        && (before.is_some() || after.sealed_webhook_secrets.is_some())
    {
        changes = changes.secret("webhook_secret");
    }
    changes
}

/// Tells live clients what was done to a system.
pub async fn tell(
    tx: &mut Tx,
    context: &Context,
    change: SystemChange,
    system: &ExternalSystem,
) -> Result<(), Problem> {
    Ok(external_systems::tell(tx, context.clock(), system.id, change, system.status).await?)
}

/// Writes down who did what to a system.
pub async fn audit(
    tx: &mut Tx,
    context: &Context,
    caller: &Caller,
    action: &str,
    system: &ExternalSystem,
    detail: Option<&str>,
) -> Result<(), Problem> {
    let id = system.id.to_string();
    let mut entry = caller.audit(action, "system", &id);
    entry.store_id = system.store_id.as_deref();
    entry.detail = detail;
    Ok(audit_logs::insert(tx, context.clock(), entry).await?)
}
