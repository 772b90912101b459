//! What is shown of a webhook event: what became of it, to everybody; what it carried, to few, and never the
//! secrets in it.

use poem_openapi::Object;
use zhilian_sync_store::webhook_events::{AcceptedBy, EventResult, EventRow, WebhookEvent, WebhookState};

use crate::api::values::{Choice, Json, Time};

/// A webhook event.
#[derive(Debug, Object)]
#[oai(rename = "WebhookEvent")]
pub struct EventAnswer {
    /// The id.
    pub id: String,
    /// The system whose vendor sent it.
    pub system_id: String,
    /// The vendor's own id of the event, or a hash of its body where it has none.
    pub event_key: String,
    /// What the vendor calls it.
    pub event_type: Option<String>,
    /// Where it stands.
    pub state: Choice<WebhookState>,
    /// Why it is believed; null while it is quarantined.
    pub accepted_by: Option<Choice<AcceptedBy>>,
    /// What applying it did.
    pub result: Option<Choice<EventResult>>,
    /// Stable, for programs: why it is quarantined, or why the last attempt failed.
    pub error_code: Option<String>,
    /// The same for people.
    pub error_message: Option<String>,
    /// Attempts spent.
    pub attempt: i64,
    /// Not applied before this time.
    pub run_at: Time,
    /// Whether it overwrites what is newer.
    pub forced: bool,
    /// How often it was received.
    pub deliveries: i64,
    /// The size of its body.
    pub body_bytes: i64,
    /// The run under which it is counted.
    pub sync_log_id: Option<String>,
    /// When it was first received.
    pub received_at: Time,
    /// When it was last received.
    pub last_received_at: Time,
    /// When it was done.
    pub ended_at: Option<Time>,
}

/// A webhook event, and what it carried where that was asked for.
#[derive(Debug, Object)]
#[oai(rename = "WebhookEventDetail")]
pub struct EventDetail {
    /// The event itself.
    pub event: EventAnswer,
    /// What it carried.
    #[oai(skip_serializing_if_is_none)]
    pub payload: Option<Payload>,
}

/// What a webhook event carried. Secrets in it are masked.
#[derive(Debug, Object)]
#[oai(rename = "WebhookPayload")]
pub struct Payload {
    /// The body, as text where it is text.
    pub body: String,
    /// `text` or `base64`.
    pub encoding: String,
    /// What was kept of the query and the headers.
    pub request: Json,
}

impl EventAnswer {
    /// What is shown everywhere.
    pub fn new(row: EventRow) -> Self {
        Self {
            id: row.id.to_string(),
            system_id: row.system_id.to_string(),
            event_key: row.event_key,
            event_type: row.event_type,
            state: Choice(row.state),
            accepted_by: row.accepted_by.map(Choice),
            result: row.result.map(Choice),
            error_code: row.error_code,
            error_message: row.error_message,
            attempt: row.attempt,
            run_at: row.run_at.into(),
            forced: row.forced,
            deliveries: row.deliveries,
            body_bytes: row.body_bytes,
            sync_log_id: row.sync_log_id.map(|id| id.to_string()),
            received_at: row.received_at.into(),
            last_received_at: row.last_received_at.into(),
            ended_at: row.ended_at.map(Time),
        }
    }

    /// The same of a whole event.
    pub fn of(event: WebhookEvent) -> Self {
        Self::new(EventRow {
            id: event.id,
            system_id: event.system_id,
            event_key: event.event_key,
            event_type: event.event_type,
            state: event.state,
            accepted_by: event.accepted_by,
            result: event.result,
            error_code: event.error_code,
            error_message: event.error_message,
            attempt: event.attempt,
            run_at: event.run_at,
            lease_until: event.lease_until,
            forced: event.forced,
            deliveries: event.deliveries,
            body_bytes: event.body_bytes,
            sync_log_id: event.sync_log_id,
            received_at: event.received_at,
            last_received_at: event.last_received_at,
            ended_at: event.ended_at,
        })
    }
}
