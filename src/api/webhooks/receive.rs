//! Where vendors post: no login, any content type, and the vendor's own words as the answer.
//!
//! The hot path, so it is a plain endpoint that owns its request: the body is not copied where it came in
//! one piece, the headers are moved. The inbox verifies, keeps and answers; what is decided here is only how
//! large a body may be, and what is said where a manifest has no words of its own.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use poem::endpoint::BoxEndpoint;
use poem::error::ReadBodyError;
use poem::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use poem::{Body, Endpoint, EndpointExt as _, Request, Response};
use poem_openapi::registry::{
    MetaApi, MetaMediaType, MetaOperation, MetaOperationParam, MetaParamIn, MetaPath, MetaRequest,
    MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::Type as _;
use poem_openapi::{ApiResponse as _, OpenApi, Tags as _};
use uuid::Uuid;
use zhilian_sync_jobs::inbox::{Call, Rejected};
use zhilian_sync_jobs::vendor::webhook::Reply;
use zhilian_sync_store::{SystemId, SystemType};

use crate::api::caller::Origin;
use crate::api::problem::Problem;
use crate::api::values::{Choice, Named as _};
use crate::api::{BodyLimit, Tag};
use crate::app::App;

/// The operation that must be cheap.
pub const OPERATION: &str = "receive_webhook";
/// The address as the router writes it.
const ROUTER_PATH: &str = "/integrations/webhooks/:type/:system_id";
/// The address as the document writes it.
const DOCUMENT_PATH: &str = "/integrations/webhooks/{type}/{system_id}";

/// The operations of this file: one endpoint under three methods.
pub struct Receiver(pub App);

#[derive(Clone)]
struct Receive {
    app: App,
    public_url: Arc<str>,
}

impl Endpoint for Receive {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let (system_type, system) = target(&request)?;
        let inbox = self.app.inbox().ok_or_else(Problem::internal)?;
        let limit = request.data::<BodyLimit>().map_or(0, |limit| limit.0);
        let (path, query, address) = match request.data::<Origin>() {
            Some(Origin { uri, address, .. }) => {
                (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned(), *address)
            }
            None => return Err(Problem::internal().into()),
        };
        check_length(&request, limit)?;
        let body = read(request.take_body(), limit).await?;
        let call = Call {
            system,
            system_type,
            method: request.method().as_str().to_owned(),
            path,
            query,
            headers: std::mem::take(request.headers_mut()),
            body,
            // Whoever comes by no address shares one bucket.
            address: address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            public_url: self.public_url.clone(),
        };
        Ok(respond(inbox.receive(call).await.map_err(|rejected| problem(rejected, system))?))
    }
}

/// Whose address it is; one that cannot be a system's names nothing.
fn target(request: &Request) -> Result<(SystemType, SystemId), Problem> {
    let part = |name: &str| request.raw_path_param(name).unwrap_or_default();
    let system_type = SystemType::all().iter().find(|one| one.text() == part("type"));
    let system = Uuid::parse_str(part("system_id")).ok();
    match (system_type, system) {
        (Some(system_type), Some(system)) => Ok((*system_type, SystemId(system))),
        _ => Err(Problem::not_found("a system with this address")),
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

/// The bytes exactly as they came: signatures are made over them.
async fn read(body: Body, limit: usize) -> Result<Bytes, Problem> {
    let mut chunks = pin!(body.into_bytes_stream());
    let mut next = async || match chunks.try_next().await {
        Ok(chunk) => Ok(chunk),
        Err(error) => Err(Problem::from(ReadBodyError::Io(error))),
    };
    let within = |bytes: usize| {
        if bytes > limit { Err(Problem::from(ReadBodyError::PayloadTooLarge)) } else { Ok(()) }
    };
    let Some(first) = next().await? else {
        return Ok(Bytes::new());
    };
    within(first.len())?;
    let Some(second) = next().await? else {
        return Ok(first);
    };
    let mut whole = BytesMut::from(first);
    let mut more = Some(second);
    while let Some(chunk) = more {
        within(whole.len() + chunk.len())?;
        whole.extend_from_slice(&chunk);
        more = next().await?;
    }
    Ok(whole.freeze())
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
        Rejected::Busy => Problem::unavailable(
            "inbox_busy",
            "the event could not be kept in time and counts as not received; send it again",
        ),
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

impl OpenApi for Receiver {
    fn meta() -> Vec<MetaApi> {
        let operations = vec![
            operation(
                Method::POST,
                OPERATION,
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

    fn add_routes(self, routes: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {
        let methods = routes.entry(ROUTER_PATH.to_owned()).or_default();
        let public_url = self.0.settings().server.public_url.as_str().into();
        let receive = Receive { app: self.0, public_url };
        for method in [Method::POST, Method::GET, Method::HEAD] {
            methods.insert(method, receive.clone().boxed());
        }
    }
}

fn operation(
    method: Method,
    id: &'static str,
    summary: &'static str,
    description: &'static str,
) -> MetaOperation {
    let any = || MetaMediaType { content_type: "*/*", schema: MetaSchemaRef::Inline(Box::new(binary())) };
    let request = (method == Method::POST).then(|| MetaRequest {
        description: Some("The bytes over which the vendor has made its signature."),
        content: vec![any()],
        required: false,
    });
    let kept = MetaResponse {
        description: "Kept; the vendor's own status and words, where its manifest names others.",
        status: Some(200),
        status_range: None,
        content: if method == Method::HEAD { Vec::new() } else { vec![any()] },
        headers: Vec::new(),
    };
    let mut responses = vec![kept];
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

    async fn body(chunks: &[&'static str], limit: usize) -> Result<Bytes, u16> {
        let chunks: Vec<_> =
            chunks.iter().map(|chunk| Ok::<_, std::io::Error>(Bytes::from(*chunk))).collect();
        let body = Body::from_bytes_stream(futures_util::stream::iter(chunks));
        read(body, limit).await.map_err(|problem| problem.status_code().as_u16())
    }

    #[tokio::test]
    async fn a_body_is_read_whole_and_no_further_than_its_limit() {
        assert_eq!(body(&[], 4).await, Ok(Bytes::new()));
        assert_eq!(body(&["abcd"], 4).await, Ok(Bytes::from("abcd")));
        assert_eq!(body(&["ab", "", "cd"], 4).await, Ok(Bytes::from("abcd")));
        assert_eq!(body(&["abcde"], 4).await, Err(413));
        assert_eq!(body(&["ab", "cd", "e"], 4).await, Err(413));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_no_body() {
        let chunks = vec![Ok(Bytes::from("ab")), Err(std::io::Error::other("gone"))];
        let broken = Body::from_bytes_stream(futures_util::stream::iter(chunks));
        assert_eq!(read(broken, 9).await.unwrap_err().status_code(), 400);
    }
}
