//! Reading webhook events: which ones a caller sees, and what one carried.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use uuid::Uuid;
use zhilian_sync_jobs::Context;
use zhilian_sync_jobs::vendor::Redactor;
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::webhook_events::{
    self, EventFilter, EventResult, EventRow, WebhookEvent, WebhookState,
};
use zhilian_sync_store::{EventId, SystemId};

use super::answer::{EventAnswer, EventDetail, Payload};
use crate::api::access::{Permission, in_scope};
use crate::api::caller::Caller;
use crate::api::page::{Limit, Page, Wanted};
use crate::api::problem::Problem;
use crate::api::values::Json;

/// What stands in place of what cannot be shown.
const MASK: &str = "***";

/// Which events were asked for.
#[derive(Debug, Default)]
pub struct Asked {
    /// Only those of this system.
    pub system: Option<SystemId>,
    /// Only those in this state.
    pub state: Option<WebhookState>,
    /// Only those that did this.
    pub result: Option<EventResult>,
    /// Only those of this type.
    pub event_type: Option<String>,
    /// Only those received at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only those received before this time.
    pub to: Option<DateTime<Utc>>,
}

/// A page of events, newest first.
pub(super) async fn list(
    context: &Context,
    caller: &Caller,
    asked: Asked,
    limit: Option<Limit>,
    cursor: Option<&str>,
) -> Result<Page<EventAnswer>, Problem> {
    let wanted = Wanted::new(limit, cursor)?;
    let filter = EventFilter {
        scope: caller.scope(),
        system_id: asked.system,
        state: asked.state,
        result: asked.result,
        event_type: asked.event_type.as_deref(),
        from: asked.from,
        to: asked.to,
        before: wanted.after.map(|(_, id)| EventId(id)),
        limit: wanted.rows(),
        ..EventFilter::default()
    };
    let rows = webhook_events::list(&context.store, &filter).await?;
    let position = |row: &EventRow| (row.received_at, row.id.0);
    Ok(Page::new(rows, wanted, &caller.origin.uri, position, EventAnswer::new))
}

/// One event; what it carried only for those who may see customers' data, and only where they ask for it.
pub(super) async fn show(
    context: &Context,
    caller: &Caller,
    id: Uuid,
    with_payload: bool,
) -> Result<EventDetail, Problem> {
    let (event, system) = visible(context, caller, id).await?;
    if with_payload && !caller.may(Permission::SeeSamples) {
        let detail = format!("the role `{}` may not see what an event carried", caller.role);
        return Err(Problem::forbidden("forbidden", detail));
    }
    let payload = with_payload.then(|| payload(context, system.as_ref(), &event)).transpose()?;
    Ok(EventDetail { event: EventAnswer::of(event), payload })
}

/// The event, if it exists for this caller, and its system, unless that is deleted.
pub(super) async fn visible(
    context: &Context,
    caller: &Caller,
    id: Uuid,
) -> Result<(WebhookEvent, Option<ExternalSystem>), Problem> {
    let missing = || Problem::not_found(format_args!("webhook event `{id}`"));
    let event = webhook_events::find(&context.store, EventId(id)).await?.ok_or_else(missing)?;
    let system = external_systems::find(&context.store, event.system_id).await?;
    let seen = caller.scope().is_none()
        || system.as_ref().is_some_and(|system| in_scope(caller.scope(), system.store_id.as_deref()));
    if seen { Ok((event, system)) } else { Err(missing()) }
}

/// Some vendors put their secret into the body or the address; it goes out no more than any other.
fn payload(
    context: &Context,
    system: Option<&ExternalSystem>,
    event: &WebhookEvent,
) -> Result<Payload, Problem> {
    let mut secrets = Vec::new();
    if let Some(system) = system {
        secrets.extend(external_systems::webhook_secrets(&context.store, system)?.into_values());
        secrets.extend(external_systems::credentials(&context.store, system)?.into_values());
    }
    let redactor = Redactor::new(secrets.iter().map(ExposeSecret::expose_secret));
    let (encoding, body) = body_of(&redactor, &event.body);
    let request = serde_json::from_str(&event.request).unwrap_or_default();
    Ok(Payload { body, encoding: encoding.to_owned(), request: Json(redactor.json(&request)) })
}

/// Text as it came, and bytes that are none as base64; a secret among those cannot be masked, so all of it is.
fn body_of(redactor: &Redactor, body: &[u8]) -> (&'static str, String) {
    if let Ok(text) = std::str::from_utf8(body) {
        return ("text", redactor.text(text));
    }
    let lossy = String::from_utf8_lossy(body);
    if redactor.text(&lossy) == lossy { ("base64", STANDARD.encode(body)) } else { ("text", MASK.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_shown_as_text_where_it_is_text_and_without_secrets() {
        let redactor = Redactor::new(["hunter2-hunter2"]);
        assert_eq!(body_of(&redactor, "{\"店\": 1}".as_bytes()), ("text", "{\"店\": 1}".to_owned()));
        assert_eq!(body_of(&redactor, b"\xff\x00"), ("base64", "/wA=".to_owned()));
        assert_eq!(body_of(&redactor, b"code=hunter2-hunter2"), ("text", "code=***".to_owned()));
        assert_eq!(body_of(&redactor, b"\xffhunter2-hunter2"), ("text", "***".to_owned()));
    }
}
