//! Answers that went well: JSON with one fixed status.

use poem::http::StatusCode;
use poem::{Body, IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::ToJSON;

/// The media type of every answer but errors.
const CONTENT_TYPE: &str = "application/json";

/// A JSON answer with the status `STATUS`.
#[derive(Debug)]
pub struct Answer<const STATUS: u16, T>(pub T);

/// The usual one.
pub type Found<T> = Answer<200, T>;

impl<const STATUS: u16, T: ToJSON> IntoResponse for Answer<STATUS, T> {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.0.to_json()).expect("a JSON value always serialises");
        let status = StatusCode::from_u16(STATUS).expect("statuses are written in the source");
        Response::builder().status(status).content_type(CONTENT_TYPE).body(Body::from(body))
    }
}

impl<const STATUS: u16, T: ToJSON> ApiResponse for Answer<STATUS, T> {
    fn meta() -> MetaResponses {
        let description = match STATUS {
            202 => "Accepted; the work is under way.",
            503 => "Not at the moment.",
            _ => "Done.",
        };
        MetaResponses {
            responses: vec![MetaResponse {
                description,
                status: Some(STATUS),
                status_range: None,
                content: vec![MetaMediaType { content_type: CONTENT_TYPE, schema: T::schema_ref() }],
                headers: vec![],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

/// One of two answers.
#[derive(Debug)]
pub enum Either<A, B> {
    /// The first.
    First(A),
    /// The second.
    Second(B),
}

impl<A: IntoResponse, B: IntoResponse> IntoResponse for Either<A, B> {
    fn into_response(self) -> Response {
        match self {
            Self::First(answer) => answer.into_response(),
            Self::Second(answer) => answer.into_response(),
        }
    }
}

impl<A: ApiResponse, B: ApiResponse> ApiResponse for Either<A, B> {
    fn meta() -> MetaResponses {
        let mut meta = A::meta();
        meta.responses.extend(B::meta().responses);
        meta
    }

    fn register(registry: &mut Registry) {
        A::register(registry);
        B::register(registry);
    }
}
