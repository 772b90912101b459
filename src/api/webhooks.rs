//! Webhooks for people: what was received, what became of it, and what can be done about it. Where vendors
//! post to is `webhooks/receive.rs`.
//!
//! Everybody sees the events of the systems they see, without what they carried. Store managers and admins
//! read bodies, apply events again and have quarantined ones verified again; accepting an event that nobody
//! could verify is an admin's. Every change is audited in its own transaction.

use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use uuid::Uuid;
use zhilian_sync_store::SystemId;
use zhilian_sync_store::webhook_events::{EventResult, WebhookState};

use super::Tag;
use super::answer::{Answer, Found};
use super::body::Body;
use super::caller::Caller;
use super::page::{Limit, Page};
use super::problem::Problem;
use super::runs::RunAnswer;
use super::systems;
use super::values::{Choice, Flag, Text, Time};
use crate::app::App;

use answer::{EventAnswer, EventDetail};
use events::Asked;
use replay::{ReleasedAnswer, ReplayRequest, ReplaySome, ReverifiedAnswer};
use secret::{NewSecret, SecretAnswer};

pub mod answer;
pub mod events;
pub mod receive;
pub mod replay;
pub mod secret;

/// The operations of this file.
pub struct Webhooks(pub App);

#[OpenApi]
impl Webhooks {
    /// List webhook events
    #[oai(
        path = "/integrations/webhook-events",
        method = "get",
        operation_id = "list_webhook_events",
        tag = "Tag::Webhooks"
    )]
    #[expect(clippy::too_many_arguments, reason = "one for each filter, and the framework fills them in")]
    async fn list_webhook_events(
        &self,
        caller: Caller,
        system_id: Query<Option<Uuid>>,
        state: Query<Option<Choice<WebhookState>>>,
        result: Query<Option<Choice<EventResult>>>,
        event_type: Query<Option<Text<200>>>,
        from: Query<Option<Time>>,
        to: Query<Option<Time>>,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<EventAnswer>, Problem> {
        let asked = Asked {
            system: system_id.0.map(SystemId),
            state: state.0.map(|choice| choice.0),
            result: result.0.map(|choice| choice.0),
            event_type: event_type.0.map(|text| text.0),
            from: from.0.map(|time| time.0),
            to: to.0.map(|time| time.0),
        };
        events::list(self.0.context(), &caller, asked, limit.0, cursor.0.as_deref()).await
    }

    /// Show a webhook event
    ///
    /// With `payload=true` also what was sent; for those who may see customers' data.
    #[oai(
        path = "/integrations/webhook-events/:event_id",
        method = "get",
        operation_id = "show_webhook_event",
        tag = "Tag::Webhooks"
    )]
    async fn show_webhook_event(
        &self,
        caller: Caller,
        event_id: Path<Uuid>,
        payload: Query<Option<Flag>>,
    ) -> Result<Found<EventDetail>, Problem> {
        let payload = payload.0.is_some_and(|payload| payload.0);
        events::show(self.0.context(), &caller, event_id.0, payload).await.map(Answer)
    }

    /// Apply a webhook event again
    ///
    /// What is newer stays, unless it is forced.
    #[oai(
        path = "/integrations/webhook-events/:event_id/replay",
        method = "post",
        operation_id = "replay_webhook_event",
        tag = "Tag::Webhooks"
    )]
    async fn replay_webhook_event(
        &self,
        caller: Caller,
        event_id: Path<Uuid>,
        body: Body<ReplayRequest>,
    ) -> Result<Answer<202, EventAnswer>, Problem> {
        let forced = body.value.force.is_some_and(|force| force.0);
        replay::one(&self.0, &caller, event_id.0, forced).await.map(Answer)
    }

    /// Apply a system's webhook events again
    ///
    /// As a run, which tells how far it is. Quarantined events are left alone: have them verified again, or
    /// release them.
    #[oai(
        path = "/integrations/webhook-events/replay",
        method = "post",
        operation_id = "replay_webhook_events",
        tag = "Tag::Webhooks"
    )]
    async fn replay_webhook_events(
        &self,
        caller: Caller,
        body: Body<ReplaySome>,
    ) -> Result<Answer<202, RunAnswer>, Problem> {
        replay::some(self.0.context(), &caller, body.value).await.map(Answer)
    }

    /// Verify a system's quarantined webhook events again
    ///
    /// Against the time at which each was received: after a secret was mended, what was genuine is applied.
    #[oai(
        path = "/integrations/systems/:system_id/webhook-events/reverify",
        method = "post",
        operation_id = "reverify_webhook_events",
        tag = "Tag::Webhooks"
    )]
    async fn reverify_webhook_events(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
    ) -> Result<Found<ReverifiedAnswer>, Problem> {
        let system = systems::visible(self.0.context(), &caller, system_id.0).await?;
        replay::reverify(&self.0, &caller, &system).await.map(Answer)
    }

    /// Accept a quarantined webhook event unverified
    #[oai(
        path = "/integrations/webhook-events/:event_id/release",
        method = "post",
        operation_id = "release_webhook_event",
        tag = "Tag::Webhooks"
    )]
    async fn release_webhook_event(
        &self,
        caller: Caller,
        event_id: Path<Uuid>,
    ) -> Result<Found<ReleasedAnswer>, Problem> {
        replay::release(&self.0, &caller, event_id.0).await.map(Answer)
    }

    /// Change a system's webhook secret
    ///
    /// The former ones stay valid for a while, so that nothing is refused until the vendor has the new one. A
    /// secret that is made here is shown in this answer and never again.
    #[oai(
        path = "/integrations/systems/:system_id/webhook-secret",
        method = "post",
        operation_id = "rotate_webhook_secret",
        tag = "Tag::Webhooks"
    )]
    async fn rotate_webhook_secret(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
        body: Body<NewSecret>,
    ) -> Result<Found<SecretAnswer>, Problem> {
        let system = systems::visible(self.0.context(), &caller, system_id.0).await?;
        secret::rotate(self.0.context(), &caller, system, body.value).await.map(Answer)
    }
}
