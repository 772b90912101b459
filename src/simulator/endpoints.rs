//! The simulated vendor's HTTP: two routes behind a key, and the faults in front of the list.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::http::{StatusCode, header};
use poem::web::{Data, Query};
use poem::{Endpoint, EndpointExt, Request, Response, Route, get, handler};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::shop::{Sale, SaleKind};
use super::{State, Till};

/// The page size where none is asked for.
const PAGE_SIZE: usize = 50;

/// The largest page served.
const PAGE_SIZE_MAX: usize = 200;

/// All routes of the vendor.
pub(super) fn routes(till: Arc<Till>) -> impl Endpoint + 'static {
    Route::new().at("/v1/ping", get(ping)).at("/v1/sales", get(list_sales)).data(till)
}

#[handler]
fn ping(Data(till): Data<&Arc<Till>>, request: &Request) -> Response {
    let mut state = till.state();
    if !till.admits(request) {
        state.counters.refused += 1;
        return till.refuse();
    }
    till.answer(StatusCode::OK, &json!({"code": 0, "data": {"shop_name": till.settings.shop_name}}))
}

/// The parameters of a listing, as they came.
#[derive(Debug, Deserialize)]
struct ListParameters {
    updated_since: Option<String>,
    updated_before: Option<String>,
    page: Option<u64>,
    page_size: Option<usize>,
}

#[handler]
fn list_sales(
    Data(till): Data<&Arc<Till>>,
    request: &Request,
    Query(asked): Query<ListParameters>,
) -> Response {
    let mut state = till.state();
    if !till.admits(request) {
        state.counters.refused += 1;
        return till.refuse();
    }
    let (since, before) = match (time(asked.updated_since), time(asked.updated_before)) {
        (Ok(since), Ok(before)) => (since, before),
        (Err(message), _) | (_, Err(message)) => return till.fail(StatusCode::BAD_REQUEST, 40001, &message),
    };
    let page = asked.page.unwrap_or(1);
    if page == 0 {
        return till.fail(StatusCode::BAD_REQUEST, 40001, "pages count from 1");
    }
    let page_size = asked.page_size.unwrap_or(PAGE_SIZE).clamp(1, PAGE_SIZE_MAX);

    state.counters.requests += 1;
    if let Some(fault) = till.inject_failure(&mut state) {
        return fault;
    }
    let mut listed = state.shop.page((since, before), page, page_size);
    state.counters.pages += 1;
    state.listing_served((since, before), page, listed.pages);
    till.inject_duplicate(&mut state, &mut listed.items);
    let response = till.answer(
        StatusCode::OK,
        &json!({
            "code": 0,
            "message": "ok",
            "data": {"items": listed.items, "page": page, "pages": listed.pages},
        }),
    );
    if page < listed.pages {
        till.inject_shift(&mut state, &listed.items, before);
    }
    response
}

impl State {
    fn listing_served(
        &mut self,
        window: (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
        page: u64,
        pages: u64,
    ) {
        let Self { listing, counters, .. } = self;
        listing.served(window, page, pages, counters);
    }
}

impl Till {
    fn admits(&self, request: &Request) -> bool {
        request.header("x-api-key") == Some(self.settings.api_key.expose_secret())
    }

    fn refuse(&self) -> Response {
        self.fail(StatusCode::UNAUTHORIZED, 40100, "the X-Api-Key is missing or wrong")
    }

    /// A 429 or a 500 in place of the page, where the plan says so.
    fn inject_failure(&self, state: &mut State) -> Option<Response> {
        let (plan, request) = (&self.settings.faults, state.counters.requests);
        if plan.too_many_requests.is_some_and(|every| every.happens(request)) {
            state.counters.too_many_requests += 1;
            let mut response = self.fail(StatusCode::TOO_MANY_REQUESTS, 42901, "too many requests");
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
            return Some(response);
        }
        if plan.server_error.is_some_and(|every| every.happens(request)) {
            state.counters.server_errors += 1;
            return Some(self.fail(StatusCode::INTERNAL_SERVER_ERROR, 50000, "the till is confused"));
        }
        None
    }

    /// The page's first item once more at its end, where the plan says so.
    fn inject_duplicate(&self, state: &mut State, items: &mut Vec<Sale>) {
        let occasion = state.counters.pages;
        if self.settings.faults.duplicate.is_some_and(|every| every.happens(occasion))
            && let Some(first) = items.first().cloned()
        {
            items.push(first);
            state.counters.duplicates += 1;
        }
    }

    /// Changes a sale of the page just served: it leaves the window that is being read, and what
    /// comes after it moves up by one, past the boundary between the pages. A window without an end
    /// keeps it, so nothing would move.
    fn inject_shift(&self, state: &mut State, served: &[Sale], before: Option<DateTime<Utc>>) {
        let (now, occasion) = (self.clock.now(), state.counters.pages);
        let moves = before.is_some_and(|before| before <= now);
        let planned = self.settings.faults.shift.is_some_and(|every| every.happens(occasion));
        if !(state.open && moves && planned) {
            return;
        }
        if served.iter().any(|sale| sale.is(SaleKind::Sale) && state.shop.correct(&sale.sale_id, now)) {
            state.counters.shifts += 1;
        }
    }

    fn fail(&self, status: StatusCode, code: u32, message: &str) -> Response {
        self.answer(status, &json!({"code": code, "message": message, "data": null}))
    }

    /// An answer with the vendor's own time, in whole seconds as HTTP has it.
    fn answer(&self, status: StatusCode, body: &Value) -> Response {
        Response::builder()
            .status(status)
            .header(header::DATE, self.clock.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string())
            .content_type("application/json; charset=utf-8")
            .body(body.to_string())
    }
}

fn time(text: Option<String>) -> Result<Option<DateTime<Utc>>, String> {
    let parsed = text.map(|text| {
        DateTime::parse_from_rfc3339(&text)
            .map(|time| time.with_timezone(&Utc))
            .map_err(|_| format!("`{text}` is not an RFC 3339 time"))
    });
    parsed.transpose()
}
