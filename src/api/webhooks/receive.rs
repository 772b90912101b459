//! Where vendors post: no login, any content type, and the vendor's own words as the answer.
//!
//! The hot path: the edge hands requests for these addresses over before any routing, the body is not copied
//! where it came in one piece, the headers are moved. The inbox verifies, keeps and answers; what is decided
//! here is only how large a body may be, how much may be on its way in at a time, and what is said where a
//! manifest has no words of its own.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use poem::endpoint::BoxEndpoint;
use poem::error::ReadBodyError;
use poem::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use poem::{Body, Request, Response};
use poem_openapi::registry::{
    MetaApi, MetaMediaType, MetaOperation, MetaOperationParam, MetaParamIn, MetaPath, MetaRequest,
    MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::Type as _;
use poem_openapi::{ApiResponse as _, OpenApi, Tags as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;
use zhilian_sync_jobs::inbox::{Call, Rejected};
use zhilian_sync_jobs::vendor::webhook::Reply;
use zhilian_sync_store::{SystemId, SystemType};

use crate::api::caller::Origin;
use crate::api::problem::Problem;
use crate::api::values::{Choice, Named as _};
use crate::api::{BASE, Tag};
use crate::app::App;

/// The addresses below the API's own: `{type}/{system_id}` follows.
const PREFIX: &str = "/integrations/webhooks/";
/// The address as the document writes it.
const DOCUMENT_PATH: &str = "/integrations/webhooks/{type}/{system_id}";

/// Answers vendors. One per process.
pub struct Receive {
    app: App,
    public_url: Arc<str>,
    /// The bytes of bodies that may be in memory at a time; see `webhooks.reading_bytes_max`.
    reading: Arc<Semaphore>,
}

/// Whose address it is; one that cannot be a system's names nothing.
pub struct Target(Option<(SystemType, SystemId)>);

impl Receive {
    /// For this service.
    pub fn new(app: App) -> Self {
        let public_url = app.settings().server.public_url.as_str().into();
        let bytes = app.settings().webhooks.reading_bytes_max.min(Semaphore::MAX_PERMITS);
        Self { app, public_url, reading: Arc::new(Semaphore::new(bytes)) }
    }

    /// What a request is for, if its address is one of those that vendors are given.
    pub fn target(method: &Method, path: &str) -> Option<Target> {
        let (system_type, system) = path.strip_prefix(BASE)?.strip_prefix(PREFIX)?.split_once('/')?;
        let is_address = !system_type.is_empty() && !system.is_empty() && !system.contains('/');
        let is_known = matches!(*method, Method::POST | Method::GET | Method::HEAD);
        (is_address && is_known).then(|| {
            let known = SystemType::all().iter().find(|one| one.text() == system_type);
            Target(known.copied().zip(Uuid::parse_str(system).ok().map(SystemId)))
        })
    }

    /// The answer to a vendor's request.
    pub async fn answer(
        &self,
        mut request: Request,
        target: Target,
        origin: &Origin,
    ) -> poem::Result<Response> {
        let nobodys = || Problem::not_found("a system with this address");
        let (system_type, system) = target.0.ok_or_else(nobodys)?;
        let inbox = self.app.inbox().ok_or_else(Problem::internal)?;
        let limit = self.app.settings().server.body_bytes_max;
        check_length(&request, limit)?;
        let (body, _place) = self.read(request.take_body(), limit).await?;
        let call = Call {
            system,
            system_type,
            method: request.method().as_str().to_owned(),
            path: origin.uri.path().to_owned(),
            query: origin.uri.query().unwrap_or_default().to_owned(),
            headers: std::mem::take(request.headers_mut()),
            body,
            // Whoever comes by no address shares one bucket.
            address: origin.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            public_url: self.public_url.clone(),
        };
        Ok(respond(inbox.receive(call).await.map_err(|rejected| problem(rejected, system))?))
    }

    /// The bytes exactly as they came, since signatures are made over them, and the place that they take until
    /// the answer. Whoever sends slowly holds what came so far and no more.
    async fn read(&self, body: Body, limit: usize) -> Result<(Bytes, Place), Problem> {
        let mut chunks = pin!(body.into_bytes_stream());
        let mut place = Place(None);
        let mut read = 0;
        let mut next = async || {
            let chunk = chunks.try_next().await.map_err(|error| Problem::from(ReadBodyError::Io(error)))?;
            if let Some(chunk) = &chunk {
                read += chunk.len();
                if read > limit {
                    return Err(Problem::from(ReadBodyError::PayloadTooLarge));
                }
                place.take(&self.reading, chunk.len())?;
            }
            Ok::<_, Problem>(chunk)
        };
        let Some(first) = next().await? else {
            return Ok((Bytes::new(), place));
        };
        let Some(second) = next().await? else {
            return Ok((first, place));
        };
        let mut whole = BytesMut::from(first);
        let mut more = Some(second);
        while let Some(chunk) = more {
            whole.extend_from_slice(&chunk);
            more = next().await?;
        }
        Ok((whole.freeze(), place))
    }
}

/// The memory that a body takes up, given back when it is dropped.
struct Place(Option<OwnedSemaphorePermit>);

impl Place {
    fn take(&mut self, reading: &Arc<Semaphore>, bytes: usize) -> Result<(), Problem> {
        let more =
            u32::try_from(bytes).ok().and_then(|bytes| reading.clone().try_acquire_many_owned(bytes).ok());
        let more = more.ok_or_else(busy)?;
        match &mut self.0 {
            Some(held) => held.merge(more),
            None => self.0 = Some(more),
        }
        Ok(())
    }
}

/// A body that says beforehand that it is too large is not waited for.
fn check_length(request: &Request, limit: usize) -> Result<(), Problem> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    if length > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(ReadBodyError::PayloadTooLarge.into());
    }
    Ok(())
}

fn respond(reply: Reply) -> Response {
    let mut response = Response::builder()
        .status(StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK))
        .body(Body::from(reply.body));
    let headers = response.headers_mut();
    if let Ok(content_type) = HeaderValue::try_from(reply.content_type) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    for (name, value) in reply.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    response
}

fn busy() -> Problem {
    let detail = "the event could not be kept in time and counts as not received; send it again";
    Problem::unavailable("inbox_busy", detail)
}

/// What is said where the inbox has no words of the vendor's.
fn problem(rejected: Rejected, system: SystemId) -> Problem {
    match rejected {
        Rejected::Unknown => Problem::not_found(format_args!("system `{system}`")),
        Rejected::WrongType => Problem::bad_request(
            "wrong_system_type",
            format!(
                "system `{system}` is of another type than its webhook address says; see its `webhook_path`"
            ),
        ),
        Rejected::Method => Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this vendor asks for no handshake here; events are posted",
        )
        .allowing(Method::POST.to_string()),
        Rejected::Busy => busy(),
        Rejected::TooMany => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_unverified",
            "too many events that cannot be verified; check the signature, then send it again",
        )
        .retry_later(),
        Rejected::Misconfigured => Problem::unavailable(
            "system_misconfigured",
            "the system's settings or secrets cannot be read, so the event counts as not received",
        ),
        Rejected::NotStorable => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "not_storable",
            "the event cannot be stored; it is too long, too large or holds U+0000",
        ),
    }
}

/// What the inbox answers in the vendor's own words, unless its manifest names other statuses.
const ANSWERS: [(u16, &str); 5] = [
    (200, "Kept; the vendor's own status and words, where its manifest names others."),
    (400, "The vendor's own words: the body cannot be read."),
    (401, "The vendor's own words: it cannot be verified, and is kept apart."),
    (429, "The vendor's own words: too much that cannot be verified."),
    (503, "The vendor's own words: it could not be kept in time; send it again."),
];

/// The operations of this file, for the document: the edge hands their requests to [`Receive`].
pub struct Receiver;

impl OpenApi for Receiver {
    fn meta() -> Vec<MetaApi> {
        let operations = vec![
            operation(
                Method::POST,
                "receive_webhook",
                "Receive a webhook",
                "Whatever the vendor sends, up to `server.body_bytes_max`. It is answered in the vendor's own way, \
                 and with success only after it is kept. What is not verified is kept apart and changes nothing.",
            ),
            operation(
                Method::GET,
                "answer_handshake",
                "Answer a vendor's handshake",
                "Vendors that want to see that an address is ours ask for something back, as their manifest says.",
            ),
            operation(
                Method::HEAD,
                "answer_probe",
                "Answer a vendor's probe",
                "The same for vendors that only look whether somebody answers.",
            ),
        ];
        vec![MetaApi { paths: vec![MetaPath { path: DOCUMENT_PATH.to_owned(), operations }] }]
    }

    fn register(registry: &mut Registry) {
        Tag::Webhooks.register(registry);
        Problem::register(registry);
    }

    fn add_routes(self, _: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {}
}

fn operation(
    method: Method,
    id: &'static str,
    summary: &'static str,
    description: &'static str,
) -> MetaOperation {
    let any = |schema: MetaSchema| MetaMediaType {
        content_type: "*/*",
        schema: MetaSchemaRef::Inline(Box::new(schema)),
    };
    let request = (method == Method::POST).then(|| MetaRequest {
        description: Some("The bytes over which the vendor has made its signature."),
        content: vec![any(binary())],
        required: false,
    });
    let answer = |(status, description)| MetaResponse {
        description,
        status: Some(status),
        status_range: None,
        content: if method == Method::HEAD { Vec::new() } else { vec![any(MetaSchema::ANY)] },
        headers: Vec::new(),
    };
    let mut responses: Vec<MetaResponse> = ANSWERS.iter().copied().map(answer).collect();
    responses.extend(Problem::meta().responses);
    MetaOperation {
        tags: vec![Tag::Webhooks.name()],
        method,
        summary: Some(summary),
        description: Some(description),
        external_docs: None,
        params: vec![
            parameter("type", "The type of the system.", Choice::<SystemType>::schema_ref()),
            parameter("system_id", "The system whose vendor posts.", Uuid::schema_ref()),
        ],
        request,
        responses: MetaResponses { responses },
        deprecated: false,
        security: Vec::new(),
        operation_id: Some(id),
        code_samples: Vec::new(),
    }
}

fn binary() -> MetaSchema {
    MetaSchema::new_with_format("string", "binary")
}

fn parameter(name: &str, description: &str, schema: MetaSchemaRef) -> MetaOperationParam {
    MetaOperationParam {
        name: name.to_owned(),
        schema,
        in_type: MetaParamIn::Path,
        description: Some(description.to_owned()),
        required: true,
        deprecated: false,
        explode: true,
        style: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(method: &Method, path: &str) -> &'static str {
        match Receive::target(method, path) {
            Some(Target(Some((SystemType::Pos, _)))) => "a till",
            Some(Target(Some(_))) => "another system",
            Some(Target(None)) => "nobody",
            None => "something else",
        }
    }

    #[test]
    fn an_address_is_known_by_its_form() {
        let system = "/api/v1/integrations/webhooks/pos/018f3a52-0000-7000-8000-000000000000";
        for method in [Method::POST, Method::GET, Method::HEAD] {
            assert_eq!(meant(&method, system), "a till");
        }
        assert_eq!(meant(&Method::POST, &system.replace("/pos/", "/erp/")), "another system");
        assert_eq!(meant(&Method::POST, "/api/v1/integrations/webhooks/pos/not-an-id"), "nobody");
        assert_eq!(meant(&Method::POST, &system.replace("/pos/", "/kitchen/")), "nobody");
        // The route table says which methods there are.
        assert_eq!(meant(&Method::PUT, system), "something else");
        for other in ["/api/v1/integrations/webhooks/pos", "/api/v1/integrations/webhooks/pos/", "/x"] {
            assert_eq!(meant(&Method::POST, other), "something else", "{other}");
        }
        assert_eq!(meant(&Method::POST, &format!("{system}/more")), "something else");
    }
}
