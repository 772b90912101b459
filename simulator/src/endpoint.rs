//! The one HTTP endpoint of every simulated vendor: reads a request, lets the vendor answer it under the
//! lock, and injects the faults that are no vendor's own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use poem::http::{StatusCode, header};
use poem::{Body, Endpoint, IntoResponse as _, Response};

use crate::faults::Every;
use crate::request::{Reply, Request, RequestLine, http_date};
use crate::scene::Scene;
use crate::simulator::{Shared, State};
use crate::vendor::Trouble;
use crate::world::SaleKind;

/// The largest body that is read.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The endpoint of a vendor.
pub(crate) fn of(shared: Arc<Shared>) -> impl Endpoint + 'static {
    poem::endpoint::make(move |request| {
        let shared = Arc::clone(&shared);
        async move {
            let Some(request) = read(request).await else {
                return StatusCode::PAYLOAD_TOO_LARGE.into_response();
            };
            let answered = answer(&shared, &request);
            // The change that a fault has made may have to be posted.
            shared.happened.notify_one();
            if let Some(heard) = &shared.settings.heard {
                heard(&answered.line);
            }
            if !answered.delay.is_zero() {
                wait(answered.delay).await;
            }
            answered.response
        }
    })
}

/// An answer, and how it goes.
struct Answered {
    response: Response,
    delay: Duration,
    line: RequestLine,
}

/// Which faults strike one request.
#[derive(Debug, Clone, Copy, Default)]
struct Strikes {
    too_many_requests: bool,
    server_error: bool,
    slow: bool,
    cut: bool,
}

async fn read(request: poem::Request) -> Option<Request> {
    let (parts, body) = request.into_parts();
    let headers = parts.headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let headers = headers.collect();
    let body = body.into_bytes_limit(BODY_BYTES_MAX).await.ok()?;
    let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
    Some(Request { method: parts.method.as_str().to_owned(), path, query, headers, body })
}

fn answer(shared: &Shared, request: &Request) -> Answered {
    let mut state = shared.state();
    let state = &mut *state;
    // Asked for under the lock, so no page holds a change that is later than its `Date`.
    let now = shared.now();
    state.counters.requests += 1;
    let mut injected = Vec::new();
    let pages_before = state.pages.len();
    let mut scene = Scene {
        world: &mut state.world,
        now,
        address: shared.address,
        tokens: &mut state.tokens,
        faults: &state.faults,
        occasions: &mut state.occasions,
        counters: &mut state.counters,
        served: &mut state.served,
        pages: &mut state.pages,
        injected: &mut injected,
    };
    let vendor = shared.vendor.as_ref();
    let (reply, strikes) = if let Err(reply) = vendor.admit(request, &mut scene) {
        (reply, Strikes::default())
    } else {
        let strikes = strike(&mut scene);
        let trouble = scene.trouble(strikes);
        (trouble.map_or_else(|| vendor.answer(request, &mut scene), |it| vendor.trouble(it)), strikes)
    };
    change_what_was_served(shared, state, pages_before, &mut injected);
    let delay = if strikes.slow { state.faults.slow_by } else { Duration::ZERO };
    let line = RequestLine {
        method: request.method.clone(),
        target: target(request),
        status: reply.status,
        injected,
    };
    Answered { response: respond(&reply, strikes.cut, &http_date(now)), delay, line }
}

fn target(request: &Request) -> String {
    if request.query.is_empty() {
        request.path.clone()
    } else {
        format!("{}?{}", request.path, request.query)
    }
}

fn strike(scene: &mut Scene<'_>) -> Strikes {
    scene.occasions.requests += 1;
    let happens = |every: Option<Every>| every.is_some_and(|it| it.happens(scene.occasions.requests));
    let strikes = Strikes {
        too_many_requests: happens(scene.faults.too_many_requests),
        server_error: happens(scene.faults.server_error),
        slow: happens(scene.faults.slow),
        cut: happens(scene.faults.cut),
    };
    if strikes.slow {
        scene.counters.slow += 1;
        scene.injected.push("late");
    }
    if strikes.cut {
        scene.counters.cut += 1;
        scene.injected.push("cut off");
    }
    strikes
}

impl Scene<'_> {
    /// What the vendor says in place of its answer.
    fn trouble(&mut self, strikes: Strikes) -> Option<Trouble> {
        if strikes.too_many_requests {
            self.counters.too_many_requests += 1;
            self.injected.push("too many requests");
            return Some(Trouble::TooManyRequests { retry_after_secs: self.faults.retry_after.as_secs() });
        }
        if strikes.server_error {
            self.counters.server_errors += 1;
            self.injected.push("server error");
            return Some(Trouble::Broken);
        }
        None
    }
}

/// Changes a record of a page that was just served, while the rest of its list is still to come.
fn change_what_was_served(
    shared: &Shared,
    state: &mut State,
    pages_before: usize,
    injected: &mut Vec<&'static str>,
) {
    let Some(page) = state.pages.get(pages_before).filter(|page| page.more && !page.ids.is_empty()) else {
        return;
    };
    let (stream, ids) = (page.stream, page.ids.clone());
    state.occasions.pages_before_others += 1;
    let occasion = state.occasions.pages_before_others;
    if !state.changing || !state.faults.change.is_some_and(|every| every.happens(occasion)) {
        return;
    }
    let now = shared.now();
    let changeable = |id: &&String| {
        let record = state.world.record(stream, id);
        record.is_some_and(|record| record.sale().is_none_or(|sale| sale.kind == SaleKind::Sale))
    };
    let candidates: Vec<String> = ids.iter().filter(changeable).cloned().collect();
    if candidates.iter().any(|id| state.world.change(stream, id, now)) {
        state.counters.changes_between_pages += 1;
        injected.push("a record changed");
    }
}

fn respond(reply: &Reply, cut: bool, date: &str) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::builder().status(status).header(header::DATE, date);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    let body = reply.body.to_string();
    let response = response.content_type("application/json; charset=utf-8");
    if !cut {
        return response.body(body);
    }
    // More is announced than comes, so the connection ends in the middle of the body. What comes is sent
    // before the end is known, or there would be no answer at all.
    let half = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
    let end = async {
        tokio::task::yield_now().await;
        Err(std::io::Error::other("the answer is cut off"))
    };
    let stream = stream::iter([Ok(half)]).chain(stream::once(end));
    response.header(header::CONTENT_LENGTH, body.len()).body(Body::from_bytes_stream(stream))
}

#[expect(clippy::disallowed_methods, reason = "a slow vendor is what was asked for")]
async fn wait(delay: Duration) {
    tokio::time::sleep(delay).await;
}
