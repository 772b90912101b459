//! What happens, as it happens: server-sent events of runs, webhooks and systems.
//!
//! The stream outlives its request, so what was checked at its beginning is checked again at every heartbeat:
//! it ends when the session has ended, or when the caller may see something else by now. An event's id is its
//! position in the feed (see `feed.rs`); who comes back with the last one misses nothing.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use futures_util::stream;
use poem::http::{HeaderValue, StatusCode, header};
use poem::{Body, IntoResponse, Request, Response};
use poem_openapi::param::{Header, Query};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::Type as _;
use poem_openapi::{ApiResponse, OpenApi};
use serde_json::{Value, json};
use tokio::time::Interval;
use uuid::Uuid;
use zhilian_sync_store::SystemId;
use zhilian_sync_store::events::{self, Event, EventKind};

use super::Tag;
use super::access::in_scope;
use super::caller::{self, Caller, Origin};
use super::problem::Problem;
use super::systems;
use super::values::{Choice, Whole};
use crate::app::App;
use crate::feed::Listener;

/// Nothing is kept apart for a stream that goes on for ever.
const CONTENT_TYPE: &str = "text/event-stream";
/// How long a client waits before it comes back, in milliseconds.
const RETRY_MS: u32 = 3_000;

/// The operations of this file.
pub struct Events(pub App);

/// A position in the feed.
type Position = Whole<0, { i64::MAX }>;

#[OpenApi]
impl Events {
    /// Hear what happens
    ///
    /// Server-sent events: `run.started`, `run.progressed` (every five seconds at most), `run.ended`,
    /// `webhooks.applied` (once a minute), `webhook.dead`, `system.changed`, of the systems that the caller
    /// sees. Without `Last-Event-ID` (or `last_event_id`, which goes first) from now on. `reset` means that
    /// events were missed which are not kept any more: read the lists again. The stream ends when the session
    /// does.
    #[oai(path = "/events", method = "get", operation_id = "stream_events", tag = "Tag::Live")]
    #[expect(clippy::too_many_arguments, reason = "one for each filter, and the framework fills them in")]
    async fn stream_events(
        &self,
        request: &Request,
        caller: Caller,
        origin: Origin,
        #[oai(name = "Last-Event-ID")] header: Header<Option<Position>>,
        last_event_id: Query<Option<Position>>,
        system_id: Query<Option<Uuid>>,
        kind: Query<Option<Choice<EventKind>>>,
    ) -> Result<EventStream, Problem> {
        if let Some(system) = system_id.0 {
            systems::visible(self.0.context(), &caller, system).await?;
        }
        let wanted = last_event_id.0.or(header.0).map(|position| position.0);
        let missed = match wanted {
            Some(position) => !events::reaches_back_to(self.0.store(), position).await?,
            None => false,
        };
        let listener = self.0.feed().listen(wanted.filter(|_| !missed)).await?.ok_or_else(|| {
            let most = self.0.settings().events.listeners_max;
            let detail = format!("{most} clients listen already, as many as may (`events.listeners_max`)");
            Problem::unavailable("too_many_listeners", detail)
        })?;
        let every = Duration::from_millis(self.0.settings().events.heartbeat_ms.max(1));
        let mut hearing = Hearing {
            app: self.0.clone(),
            listener,
            heartbeat: tokio::time::interval_at(tokio::time::Instant::now() + every, every),
            proof: proof_of(request),
            caller,
            origin,
            system: system_id.0.map(SystemId),
            kind: kind.0.map(|choice| choice.0),
            ready: VecDeque::from([format!("retry: {RETRY_MS}\n\n")]),
        };
        if missed {
            hearing.ready.push_back(reset());
        }
        Ok(EventStream(hearing))
    }
}

/// The parts of a request by which its caller is known.
fn proof_of(request: &Request) -> Request {
    let mut proof = Request::builder().uri_str("/").finish();
    for name in [header::AUTHORIZATION, header::COOKIE] {
        for value in request.headers().get_all(&name) {
            proof.headers_mut().append(name.clone(), value.clone());
        }
    }
    proof
}

/// One client's hearing.
struct Hearing {
    app: App,
    listener: Listener,
    heartbeat: Interval,
    proof: Request,
    caller: Caller,
    origin: Origin,
    system: Option<SystemId>,
    kind: Option<EventKind>,
    ready: VecDeque<String>,
}

impl Hearing {
    /// The next piece of the stream; `None` ends it.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(text) = self.ready.pop_front() {
                return Some(text);
            }
            tokio::select! {
                biased;
                _ = self.heartbeat.tick() => {
                    if !self.may_go_on().await {
                        return None;
                    }
                    return Some(":\n\n".to_owned());
                }
                event = self.listener.next() => match event {
                    Ok(Some(event)) if self.is_meant(&event) => return Some(text_of(&event)),
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(error) => {
                        tracing::warn!(%error, "a live client cannot be served; it comes back");
                        return None;
                    }
                },
            }
        }
    }

    /// Whether the caller is still who it was and may see what it saw.
    async fn may_go_on(&self) -> bool {
        match caller::authenticate(&self.app, &self.proof, &self.origin).await {
            Ok(now) => now.role == self.caller.role && now.scope() == self.caller.scope(),
            // The database may be away for a moment; the next event asks it too.
            Err(problem) => problem.status_code() == StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn is_meant(&self, event: &Event) -> bool {
        in_scope(self.caller.scope(), event.store_id.as_deref())
            && (self.system.is_none() || self.system == event.system_id)
            && self.kind.is_none_or(|kind| kind.as_str() == event.kind)
    }
}

/// An event as it is sent.
fn text_of(event: &Event) -> String {
    let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
    let body = json!({
        "kind": event.kind,
        "system_id": event.system_id.map(|id| id.to_string()),
        "run_id": event.run_id.map(|id| id.to_string()),
        "at": event.created_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        "data": data,
    });
    let mut text = String::new();
    // Writing to a string cannot fail; JSON has no line breaks that would end it early.
    let _ =
        write!(text, "id: {}\nevent: {}\ndata: {body}\n\n", event.position.unwrap_or_default(), event.kind);
    text
}

fn reset() -> String {
    let detail = "events were missed that are not kept any more; read the lists again";
    format!("event: reset\ndata: {}\n\n", json!({ "detail": detail }))
}

/// A stream of server-sent events.
pub struct EventStream(Hearing);

impl IntoResponse for EventStream {
    fn into_response(self) -> Response {
        let pieces = stream::unfold(self.0, |mut hearing| async move {
            hearing.next().await.map(|text| (Ok::<_, std::io::Error>(text), hearing))
        });
        let mut response =
            Response::builder().content_type(CONTENT_TYPE).body(Body::from_bytes_stream(pieces));
        // Proxies that gather answers would keep events back.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }
}

impl ApiResponse for EventStream {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "Events, until one of the two ends the stream.",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType { content_type: CONTENT_TYPE, schema: String::schema_ref() }],
                headers: vec![],
            }],
        }
    }

    fn register(_registry: &mut Registry) {}
}
