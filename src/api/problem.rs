//! What a caller may know of an error: RFC 9457 with a stable `code`, words, and the request's id.
//!
//! Every refusal of the service passes through here: the handlers' own, the database's, and those of
//! the framework, which the outermost layer translates. The causes of a 5xx are logged, not sent.

use std::fmt;

use poem::error::{MethodNotAllowedError, NotFoundError, ReadBodyError, ResponseError};
use poem::http::{HeaderValue, StatusCode, header};
use poem::{Body, Response};
use poem_openapi::error::{ParseParamError, ParsePathError};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchemaRef, Registry};
use poem_openapi::types::Type as _;
use poem_openapi::{ApiResponse, Object};
use serde::Serialize;
use zhilian_sync_store::StoreError;

/// The media type of every error.
pub const CONTENT_TYPE: &str = "application/problem+json";
/// What a client that got a 503 should wait.
const RETRY_AFTER_SECS: u32 = 5;

/// A refusal: what the caller did not get, and why.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    retry_after_secs: Option<u32>,
    allow: Option<String>,
}

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Object)]
pub struct FieldError {
    /// The field, as `config.api_endpoint`.
    pub field: String,
    /// What is wrong with it and what was expected.
    pub detail: String,
}

/// The body of every error (RFC 9457).
#[derive(Debug, Serialize, Object)]
#[oai(rename = "Problem", skip_serializing_if_is_none)]
struct ProblemBody {
    /// Names the kind of problem: `/problems/` and the code.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: String,
    /// The status of the answer.
    status: u16,
    /// Stable, for programs.
    code: String,
    /// For people: what happened and what to do.
    detail: String,
    /// To be quoted when asking for help.
    request_id: String,
    /// Every wrong field, where fields are wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<FieldError>>,
}

impl Problem {
    /// Any refusal.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), errors: Vec::new(), retry_after_secs: None, allow: None }
    }

    /// The code, for programs.
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// What happened and what to do, for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Every wrong field, where fields are wrong.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// The request cannot be understood.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// Nobody is signed in, or not with this.
    pub fn unauthorized(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
    }

    /// The caller may not do this.
    pub fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// The thing does not exist, or not for this caller: both look the same from outside.
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("{what} does not exist"))
    }

    /// The change contradicts what is there.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// Fields hold values that they may not hold.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let fields = errors.iter().map(|error| format!("`{}` {}", error.field, error.detail));
        let detail = fields.collect::<Vec<_>>().join("; ");
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_values", detail) }
    }

    /// One field holds a value that it may not hold.
    pub fn invalid_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError { field: field.into(), detail: detail.into() }])
    }

    /// It may go better in a few seconds.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            retry_after_secs: Some(RETRY_AFTER_SECS),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
        }
    }

    /// Something is broken here; the cause is in the log under the request's id.
    pub fn internal() -> Self {
        let detail = "the service failed; quote the request id when asking for help";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// Says when it may go better.
    #[must_use]
    pub const fn retry_after(mut self, secs: u32) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }

    /// Says after how long to come again.
    #[must_use]
    pub const fn retry_later(mut self) -> Self {
        self.retry_after_secs = Some(RETRY_AFTER_SECS);
        self
    }

    /// Names the methods that the path does have.
    #[must_use]
    pub fn allowing(mut self, methods: String) -> Self {
        self.allow = Some(methods);
        self
    }

    /// The status of the answer.
    pub const fn status_code(&self) -> StatusCode {
        self.status
    }

    /// The answer.
    pub fn into_response_with(self, request_id: &str) -> Response {
        let body = ProblemBody {
            kind: format!("/problems/{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail,
            request_id: request_id.to_owned(),
            errors: (!self.errors.is_empty()).then_some(self.errors),
        };
        let body = serde_json::to_vec(&body).expect("texts and numbers always serialise");
        let mut response =
            Response::builder().status(self.status).content_type(CONTENT_TYPE).body(Body::from(body));
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if let Some(allow) = self.allow.and_then(|methods| HeaderValue::from_str(&methods).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status(&self) -> StatusCode {
        self.status
    }
}

/// The one place that decides what a database error means for a caller.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => Self::not_found(what),
            StoreError::Conflict(detail) => Self::conflict("conflict", detail),
            StoreError::Busy(_) => {
                tracing::warn!(error = %error, "the database does not answer");
                Self::unavailable(
                    "database_unavailable",
                    "the database does not answer; try again in a moment",
                )
            }
            StoreError::Refused(_) => {
                tracing::warn!(error = %error, "the database refused a value");
                Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "not_storable",
                    "a value cannot be stored; it is too long, too large or holds U+0000",
                )
            }
            _ => {
                tracing::error!(error = %error, "request failed");
                Self::internal()
            }
        }
    }
}

/// Reading a body fails for the caller's reasons only.
impl From<ReadBodyError> for Problem {
    fn from(error: ReadBodyError) -> Self {
        match error {
            ReadBodyError::PayloadTooLarge => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is larger than allowed")
            }
            ReadBodyError::Io(_) => Self::bad_request("body_incomplete", "the body ended too early"),
            other => Self::bad_request("malformed_body", other.to_string()),
        }
    }
}

/// Whatever left a handler or the framework, as a problem.
pub fn from_poem(error: poem::Error) -> Problem {
    let error = match error.downcast::<Problem>() {
        Ok(problem) => return problem,
        Err(error) => error,
    };
    let status = error.status();
    if status.is_server_error() {
        tracing::error!(error = %error, "request failed");
        return Problem::internal();
    }
    if let Some(ParseParamError { name, reason }) = error.downcast_ref() {
        return Problem::invalid_field(*name, plain(reason));
    }
    if error.is::<ParsePathError>() {
        // An id that cannot be one names nothing.
        return Problem::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "the path holds something that is not an id",
        );
    }
    if error.is::<NotFoundError>() {
        return no_such_route();
    }
    let code = if error.is::<MethodNotAllowedError>() { "method_not_allowed" } else { "bad_request" };
    Problem::new(status, code, error.to_string())
}

/// Takes off what the framework puts around a message: type names that mean nothing to a caller, and
/// the value that was sent.
pub fn plain(message: &str) -> String {
    let mut message = message;
    if let Some(rest) = message.strip_prefix("Expected input type \"") {
        let expected = rest.split('"').next().unwrap_or_default();
        return format!("is not of the type `{expected}`");
    }
    while let Some((_, rest)) =
        message.strip_prefix("failed to parse \"").and_then(|message| message.split_once("\": "))
    {
        message = rest;
    }
    message.split(" (occurred while parsing").next().unwrap_or_default().to_owned()
}

/// There is nothing at this path.
pub fn no_such_route() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_such_route",
        "there is nothing at this path; see /api/v1/openapi.json",
    )
}

impl ApiResponse for Problem {
    fn meta() -> MetaResponses {
        // Without a status it stands for every status that an operation does not list.
        MetaResponses {
            responses: vec![MetaResponse {
                description: "What went wrong.",
                status: None,
                status_range: None,
                content: vec![MetaMediaType { content_type: CONTENT_TYPE, schema: schema() }],
                headers: vec![],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        ProblemBody::register(registry);
    }
}

fn schema() -> MetaSchemaRef {
    ProblemBody::schema_ref()
}
