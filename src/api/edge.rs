//! The outermost layer: names every request, limits its time, guards against panics, checks the route
//! table, and turns whatever comes out into an answer with the headers that every answer has.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use poem::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, Request, Response, Route as Router};
use tracing::Instrument as _;

use super::access::{self, Access};
use super::caller::{self, Origin};
use super::idempotency::{self, Asked};
use super::problem::{self, Problem};
use super::webhooks::receive::Receive;
use super::{BodyLimit, Route};
use crate::app::App;

/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A caller's own id is taken over up to this length.
const REQUEST_ID_CHARS_MAX: usize = 64;

/// All layers around the router.
pub struct Edge {
    app: App,
    router: Router,
    receive: Receive,
}

impl Edge {
    /// Puts the layers around `router`.
    pub fn new(app: App, router: Router) -> Self {
        Self { receive: Receive::new(app.clone()), app, router }
    }

    async fn answer(
        &self,
        mut request: Request,
        route: Option<&Route>,
        origin: &Origin,
    ) -> poem::Result<Response> {
        let mut signed_in = None;
        if let Some(route @ Route { access: Access::Needs(permission), .. }) = &route {
            let caller = caller::authenticate(&self.app, &request, origin).await?;
            if !caller.may(*permission) {
                let detail = format!("the role `{}` may not do this", caller.role);
                return Err(Problem::forbidden("forbidden", detail).into());
            }
            request.set_data(caller.clone());
            signed_in = Some((*route, caller));
        }
        let server = &self.app.settings().server;
        let is_batch = route.is_some_and(|route| route.path.ends_with("/batch"));
        let body_bytes_max = if is_batch { server.batch_bytes_max } else { server.body_bytes_max };
        request.set_data(origin.clone());
        request.set_data(BodyLimit(body_bytes_max));
        if let Some((route, caller)) = &signed_in
            && route.method == Method::POST
            && request.headers().contains_key(idempotency::KEY)
        {
            let asked = Asked { route, caller, body_bytes_max };
            return idempotency::answer(&self.app, &self.router, request, asked).await;
        }
        self.router.call(request).await
    }

    /// The answer, or why there is none: in time, and whatever happens on the way.
    async fn guarded(
        &self,
        answering: impl Future<Output = poem::Result<Response>>,
        origin: &Origin,
    ) -> Response {
        let limit = Duration::from_secs(self.app.settings().server.request_timeout_secs);
        let answering = AssertUnwindSafe(answering).catch_unwind();
        let problem = match tokio::time::timeout(limit, answering).await {
            Ok(Ok(Ok(response))) => return response,
            Ok(Ok(Err(error))) if error.is_from_response() => return error.into_response(),
            Ok(Ok(Err(error))) => problem::from_poem(error),
            Ok(Err(_panic)) => {
                tracing::error!(request.id = %origin.request_id, "the request ended in the panic logged before this");
                Problem::internal()
            }
            Err(_elapsed) => {
                tracing::warn!(limit_secs = limit.as_secs(), "request took too long");
                let detail = "the request took too long; it may still have had its effect";
                Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", detail)
            }
        };
        problem.into_response_with(&origin.request_id)
    }

    /// What the route table knows, in a span of its own.
    async fn routed(&self, request: Request, origin: &Origin) -> Response {
        let found = access::find(request.method(), request.uri().path());
        // The route and not the path: a path may hold a secret.
        let operation = found.as_ref().ok().copied().flatten().map_or("-", |route| route.operation);
        let span =
            tracing::info_span!("request", request.id = %origin.request_id, http.operation = operation);
        async {
            match found {
                Ok(route) => self.guarded(self.answer(request, route, origin), origin).await,
                Err(problem) => problem.into_response_with(&origin.request_id),
            }
        }
        .instrument(span)
        .await
    }
}

impl Endpoint for Edge {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let server = &self.app.settings().server;
        let origin = Origin {
            request_id: request_id(request.headers()).map_or_else(
                || {
                    let id = self.app.store().clock().new_id().simple();
                    Arc::from(&*id.encode_lower(&mut uuid::Uuid::encode_buffer()))
                },
                Arc::from,
            ),
            address: caller::client_address(&request, &server.trusted_proxies),
            uri: request.uri().clone(),
        };
        let started = Instant::now();
        // Ten thousand webhooks a second do without the router and without a span: their address is one of a
        // kind, and their few lines name the system and the event.
        let mut response = match Receive::target(request.method(), request.uri().path()) {
            Some(target) => self.guarded(self.receive.answer(request, target, &origin), &origin).await,
            None => Box::pin(self.routed(request, &origin)).await,
        };
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(request.id = %origin.request_id, http.status = response.status().as_u16(), duration_ms, "answered");
        set_headers(response.headers_mut(), &origin.request_id, server.public_url.starts_with("https:"));
        Ok(response)
    }
}

/// The caller's own name for the request, if it is fit for a log line.
fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (!id.is_empty() && id.len() <= REQUEST_ID_CHARS_MAX && id.chars().all(fit)).then_some(id)
}

fn set_headers(headers: &mut HeaderMap, request_id: &str, https: bool) {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    let mut default = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    default(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    default(header::X_FRAME_OPTIONS, "DENY");
    default(header::REFERRER_POLICY, "no-referrer");
    default(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    // Answers hold tokens and customers; no proxy is to keep them.
    default(header::CACHE_CONTROL, "no-store");
    if https {
        default(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_from_outside_is_taken_only_if_it_is_harmless() {
        let given = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, id.parse().unwrap());
            request_id(&headers).map(str::to_owned)
        };
        assert_eq!(given("trace-1.2_3").as_deref(), Some("trace-1.2_3"));
        assert_eq!(given("a b"), None);
        assert_eq!(given("<script>"), None);
        assert_eq!(given(&"x".repeat(65)), None);
    }
}
