//! Applying events again, verifying quarantined ones again, and accepting what nobody could verify.

use serde_json::json;
use uuid::Uuid;
use zhilian_sync_jobs::Context;
use zhilian_sync_jobs::enqueue::{self, ReplayParameters, Wish};
use zhilian_sync_jobs::inbox::{Asker, Released, Reverified};
use zhilian_sync_store::external_systems::ExternalSystem;
use zhilian_sync_store::webhook_events::{self, WebhookEvent, WebhookState};
use zhilian_sync_store::{Tx, audit_logs, sync_logs};

use super::answer::EventAnswer;
use super::events;
use crate::api::body::request_body;
use crate::api::caller::Caller;
use crate::api::changes::Changes;
use crate::api::problem::Problem;
use crate::api::runs::RunAnswer;
use crate::api::systems::{self, answer::webhook_path};
use crate::api::values::{Choice, Flag, Text, Time};
use crate::app::App;

request_body! {
    /// How an event is applied again.
    refuses_unknown pub struct ReplayRequest {
        /// Whether it overwrites what is newer; by default it does not.
        force: Option<Flag>,
    }
}

request_body! {
    /// Which events of a system are applied again. What is newer than they are always stays.
    refuses_unknown pub struct ReplaySome {
        /// The system.
        system_id: Uuid,
        /// Only those in this state.
        state: Option<Choice<WebhookState>>,
        /// Only those of this type.
        event_type: Option<Text<200>>,
        /// Only those received at this time or later.
        from: Option<Time>,
        /// Only those received before this time.
        to: Option<Time>,
    }
}

/// What became of quarantined events that were verified again.
#[derive(Debug, poem_openapi::Object)]
#[oai(rename = "Reverified")]
pub struct ReverifiedAnswer {
    /// Genuine; they are being applied.
    pub verified: u64,
    /// Genuine, and received properly before; nothing is left to do.
    pub duplicates: u64,
    /// Still not verified; they stay in quarantine with the reason.
    pub refused: u64,
}

/// What became of an event that was accepted unverified.
#[derive(Debug, poem_openapi::Object)]
#[oai(rename = "Released")]
pub struct ReleasedAnswer {
    /// The event: `pending`, or `duplicate` where it was received properly too.
    pub event: EventAnswer,
}

/// Makes one event due again.
pub(super) async fn one(app: &App, caller: &Caller, id: Uuid, forced: bool) -> Result<EventAnswer, Problem> {
    let context = app.context();
    let (event, system) = alive(context, caller, id).await?;
    let mut tx = context.store.begin().await?;
    if !webhook_events::replay(&mut tx, event.id, forced, context.clock().now()).await? {
        let detail = match event.state {
            WebhookState::Quarantined => {
                "the event is quarantined; have it verified again, or release it".to_owned()
            }
            state => format!("the event is `{state}` and being worked on; wait for its end"),
        };
        return Err(Problem::conflict("not_replayable", detail));
    }
    let changes = Changes::of("state", event.state.as_str(), WebhookState::Pending.as_str());
    let detail = changes.beside(json!({"forced": forced}));
    audit(&mut tx, context, caller, "webhook_event.replay", (&event, &system), Some(&detail)).await?;
    tx.commit().await?;
    if let Some(inbox) = app.inbox() {
        inbox.ring();
    }
    answer(context, &event).await
}

/// Starts the run that makes events due again, in bites.
pub(super) async fn some(
    context: &Context,
    caller: &Caller,
    asked: ReplaySome,
) -> Result<RunAnswer, Problem> {
    let system = systems::visible(context, caller, asked.system_id).await?;
    if asked.state == Some(Choice(WebhookState::Quarantined)) {
        let detail =
            "is `quarantined`, which is not replayed; have the events verified again, or release them";
        return Err(Problem::invalid_field("state", detail));
    }
    let parameters = ReplayParameters {
        system: Some(system.id),
        store: None,
        state: asked.state.map(|choice| choice.0),
        event_type: asked.event_type.map(|text| text.0),
        from: asked.from.map(|time| time.0),
        to: asked.to.map(|time| time.0),
    };
    let detail = serde_json::to_string(&parameters).ok();
    let wish = Wish::replay(parameters, Some(caller.user_id));
    let mut tx = context.store.begin().await?;
    let enqueued = enqueue::enqueue(context, &mut tx, &wish).await?;
    systems::audit(&mut tx, context, caller, "webhook_events.replay", &system, detail.as_deref()).await?;
    tx.commit().await?;
    enqueue::ring(context, wish.kind.lane(wish.trigger), &[enqueued]).await;
    let run = enqueued.run().ok_or_else(Problem::internal)?;
    Ok(RunAnswer::new(&sync_logs::get(&context.store, run).await?))
}

/// Verifies everything that a system has in quarantine against what it knows now.
pub(super) async fn reverify(
    app: &App,
    caller: &Caller,
    system: &ExternalSystem,
) -> Result<ReverifiedAnswer, Problem> {
    let inbox = app.inbox().ok_or_else(Problem::internal)?;
    let origin = app.settings().server.public_url.trim_end_matches('/');
    let asker = Asker {
        user: Some(caller.user_id),
        name: Some(caller.username.clone()),
        address: caller.address.clone(),
        request: Some(caller.origin.request_id.to_string()),
        webhook_url: [origin, &webhook_path(system)].concat(),
    };
    let Reverified { verified, duplicates, refused } = inbox.reverify(system.id, &asker).await?;
    Ok(ReverifiedAnswer { verified, duplicates, refused })
}

/// Accepts an event that nobody could verify, because an admin says so.
pub(super) async fn release(app: &App, caller: &Caller, id: Uuid) -> Result<ReleasedAnswer, Problem> {
    let context = app.context();
    let inbox = app.inbox().ok_or_else(Problem::internal)?;
    let (event, system) = alive(context, caller, id).await?;
    let mut tx = context.store.begin().await?;
    let state = match inbox.release(&mut tx, event.id).await? {
        Released::Pending => WebhookState::Pending,
        Released::Duplicate => WebhookState::Duplicate,
        Released::NotQuarantined => {
            let detail = format!("the event is `{}`; only a quarantined one is released", event.state);
            return Err(Problem::conflict("not_quarantined", detail));
        }
        Released::Unknown => return Err(Problem::not_found(format_args!("webhook event `{id}`"))),
    };
    let detail = Changes::of("state", event.state.as_str(), state.as_str()).into_detail();
    audit(&mut tx, context, caller, "webhook_event.release", (&event, &system), detail.as_deref()).await?;
    tx.commit().await?;
    inbox.ring();
    Ok(ReleasedAnswer { event: answer(context, &event).await? })
}

/// The event, if it exists for this caller, and its system, which must be there to apply anything to.
async fn alive(
    context: &Context,
    caller: &Caller,
    id: Uuid,
) -> Result<(WebhookEvent, ExternalSystem), Problem> {
    let (event, system) = events::visible(context, caller, id).await?;
    let system = system.ok_or_else(|| Problem::not_found(format_args!("system `{}`", event.system_id)))?;
    Ok((event, system))
}

async fn answer(context: &Context, event: &WebhookEvent) -> Result<EventAnswer, Problem> {
    let now = webhook_events::get(&context.store, event.id).await?;
    Ok(EventAnswer::of(now))
}

async fn audit(
    tx: &mut Tx,
    context: &Context,
    caller: &Caller,
    action: &str,
    (event, system): (&WebhookEvent, &ExternalSystem),
    detail: Option<&str>,
) -> Result<(), Problem> {
    let id = event.id.to_string();
    let mut entry = caller.audit(action, "webhook_event", &id);
    entry.store_id = system.store_id.as_deref();
    entry.detail = detail;
    Ok(audit_logs::insert(tx, context.clock(), entry).await?)
}
