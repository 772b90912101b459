//! Square, from its OpenAPI description of 2025-08-19: orders, payments, refunds and customers by cursor, and
//! the webhooks of a subscription.
//!
//! ```text
//! GET  /v2/locations
//! POST /v2/orders/search      cursor and window in the body; one order: GET /v2/orders/{id}
//! GET  /v2/payments, /v2/refunds
//! POST /v2/customers/search
//!     Authorization: Bearer …     {"orders":[…],"cursor":"…"}; without a list that is empty, and without
//!                                 a cursor on the last page
//! ```
//!
//! A cursor is good for five minutes. Windows are half open: the end does not belong to them.

mod shapes;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use crate::WebhookTarget;
use crate::vendor::{
    Cursor, Delivery, Event, Mistake, Page, Parameters, Reply, Request, Scene, Stream, Tokens, Trouble,
    Vendor, after, window,
};
use crate::world::{Currency, Record, SaleKind, Shop, What};

const STREAMS: [Stream; 4] = [
    Stream { name: "orders", what: What::Sales, deletes: false },
    Stream { name: "payments", what: What::Payments, deletes: false },
    Stream { name: "refunds", what: What::Refunds, deletes: false },
    Stream { name: "customers", what: What::Members, deletes: false },
];

/// The page sizes where none is asked for, and the largest.
const ORDERS: (u64, u64) = (500, 1000);
const OTHERS: (u64, u64) = (100, 100);

/// The most locations of one search.
const LOCATIONS_MAX: usize = 10;

/// How long a cursor is good.
const CURSOR_KEPT: TimeDelta = TimeDelta::minutes(5);

/// The two ends of a window, as far as they are asked for.
type Window = (Option<DateTime<Utc>>, Option<DateTime<Utc>>);

/// A simulated Square seller.
pub(super) struct Square;

impl Vendor for Square {
    fn name(&self) -> &'static str {
        "square"
    }

    fn system_type(&self) -> &'static str {
        "pos"
    }

    fn streams(&self) -> &'static [Stream] {
        &STREAMS
    }

    fn shops(&self) -> Vec<Shop> {
        let shop = |id: &str, name: &str| Shop { id: id.into(), name: name.into() };
        vec![shop("L1AAA", "Main street"), shop("L2BBB", "Station")]
    }

    fn currency(&self) -> Currency {
        Currency::Usd
    }

    fn main_shop_only(&self, stream: &Stream) -> bool {
        matches!(stream.what, What::Payments | What::Refunds)
    }

    fn id(&self, stream: &Stream, number: u64) -> String {
        match stream.what {
            What::Members => customer_id(number),
            What::Payments => format!("PAY{number:06}"),
            What::Refunds => format!("PAY{number:06}_REF{number:06}"),
            _ => order_id(number),
        }
    }

    fn credentials(&self, tokens: &Tokens) -> BTreeMap<String, String> {
        BTreeMap::from([("api_key".to_owned(), tokens.key("access-token"))])
    }

    fn config(&self) -> Map<String, Value> {
        let ids: Vec<String> = self.shops().into_iter().map(|shop| shop.id).collect();
        Map::from_iter([("location_ids".to_owned(), json!(ids))])
    }

    fn admit(&self, request: &Request, scene: &mut Scene<'_>) -> Result<(), Reply> {
        if request.bearer() == Some(scene.tokens().key("access-token").as_str()) {
            return Ok(());
        }
        let detail = "This request could not be authorized.";
        Err(scene.refused(error(401, "AUTHENTICATION_ERROR", "UNAUTHORIZED", detail, None)))
    }

    fn answer(&self, request: &Request, scene: &mut Scene<'_>) -> Reply {
        let answered = match request.route() {
            ("GET", "/v2/locations") => locations(request, scene),
            ("POST", "/v2/orders/search") => search_orders(request, scene),
            ("GET", "/v2/payments") => payments(request, scene),
            ("GET", "/v2/refunds") => refunds(request, scene),
            ("POST", "/v2/customers/search") => search_customers(request, scene),
            ("GET", path) if path.starts_with("/v2/orders/") => order(request, scene),
            (method, path) => return scene.rejected(not_found(&format!("no {method} {path}"))),
        };
        answered.unwrap_or_else(|Mistake { parameter, reason }| {
            let (category, detail) = ("INVALID_REQUEST_ERROR", format!("{parameter} {reason}"));
            scene.rejected(error(400, category, "BAD_REQUEST", &detail, Some(&parameter)))
        })
    }

    fn trouble(&self, trouble: Trouble) -> Reply {
        match trouble {
            Trouble::TooManyRequests { retry_after_secs } => {
                error(429, "RATE_LIMIT_ERROR", "RATE_LIMITED", "too many requests", None)
                    .header("retry-after", retry_after_secs.to_string())
            }
            Trouble::Broken => error(500, "API_ERROR", "INTERNAL_SERVER_ERROR", "something broke", None),
        }
    }

    fn webhook(&self, event: &Event, target: &WebhookTarget) -> Option<Delivery> {
        shapes::webhook(event, target)
    }
}

fn locations(request: &Request, scene: &mut Scene<'_>) -> Result<Reply, Mistake> {
    Parameters::of_pairs(request.query_pairs())?.finish()?;
    let locations = scene.world.shops().iter();
    let locations = locations
        .map(|shop| json!({"id": shop.id, "name": shop.name, "status": "ACTIVE", "country": "US", "currency": "USD"}));
    Ok(Reply::ok(json!({"locations": locations.collect::<Vec<_>>()})))
}

fn order(request: &Request, scene: &mut Scene<'_>) -> Result<Reply, Mistake> {
    Parameters::of_pairs(request.query_pairs())?.finish()?;
    let id = request.path.trim_start_matches("/v2/orders/");
    let found = scene.world.record("orders", id).and_then(shapes::order);
    Ok(found.map_or_else(|| not_found("Order not found."), |order| Reply::ok(json!({"order": order}))))
}

fn search_orders(request: &Request, scene: &mut Scene<'_>) -> Result<Reply, Mistake> {
    Parameters::of_pairs(request.query_pairs())?.finish()?;
    let mut asked = Parameters::of_json(request.json())?;
    let places = asked.texts("location_ids")?.ok_or_else(|| Mistake::new("location_ids", "is missing"))?;
    if places.is_empty() || places.len() > LOCATIONS_MAX {
        return Err(Mistake::new("location_ids", format!("holds {}; it may be 1 to 10", places.len())));
    }
    if let Some(unknown) =
        places.iter().find(|place| !scene.world.shops().iter().any(|shop| shop.id == **place))
    {
        return Err(Mistake::new("location_ids", format!("names `{unknown}`, which is not the seller's")));
    }
    if asked.value("return_entries").is_some_and(|value| value != json!(false)) {
        return Err(Mistake::new("return_entries", "must be false: entries are not simulated"));
    }
    let list = format!("orders {places:?} {:?}", request.json().map(|body| body["query"].clone()));
    let OrdersQuery { min, max, states } = orders_query(asked.object("query")?)?;
    let wanted = |record: &&Record| {
        places.contains(&record.shop)
            && within(record.updated_at, min, max)
            && states.as_ref().is_none_or(|states| states.iter().any(|state| state == shapes::state(record)))
    };
    let key = |record: &Record| record.updated_at.timestamp_millis();
    serve(asked, scene, ("orders", &list, ORDERS), wanted, key, shapes::order)
}

/// What an order search asks for; only what is sorted in the order of change is simulated.
struct OrdersQuery {
    min: Option<DateTime<Utc>>,
    max: Option<DateTime<Utc>>,
    states: Option<Vec<String>>,
}

fn orders_query(query: Option<Parameters>) -> Result<OrdersQuery, Mistake> {
    let Some(mut query) = query else {
        return Err(Mistake::new("query", "is missing: only searches by updated_at are simulated"));
    };
    let (mut times, mut states) = (None, None);
    if let Some(mut filter) = query.object("filter")? {
        if let Some(mut by_time) = filter.object("date_time_filter")? {
            times = by_time.object("updated_at")?;
            by_time.finish()?;
        }
        if let Some(mut by_state) = filter.object("state_filter")? {
            states = by_state.texts("states")?;
            by_state.finish()?;
        }
        filter.finish()?;
    }
    let known = ["OPEN", "COMPLETED", "CANCELED", "DRAFT"];
    if let Some(unknown) = states.iter().flatten().find(|state| !known.contains(&state.as_str())) {
        return Err(Mistake::new("states", format!("names `{unknown}`; allowed are {}", known.join(", "))));
    }
    let sorted = query.object("sort")?.ok_or_else(|| Mistake::new("sort", "must agree with the filter"))?;
    sorted_by_change(sorted)?;
    query.finish()?;
    let (min, max) = times.map_or(Ok((None, None)), time_range)?;
    Ok(OrdersQuery { min, max, states })
}

fn sorted_by_change(mut sort: Parameters) -> Result<(), Mistake> {
    let field = sort.only("sort_field", &["UPDATED_AT"])?;
    let order = sort.only("sort_order", &["ASC"])?;
    sort.finish()?;
    match (field, order) {
        (Some(_), Some(_)) => Ok(()),
        _ => Err(Mistake::new("sort", "must agree with the filter, which is by updated_at, upwards")),
    }
}

fn time_range(mut range: Parameters) -> Result<Window, Mistake> {
    let (min, max) = (range.time("start_at")?, range.time("end_at")?);
    range.finish()?;
    window(min, max, "end_at")?;
    Ok((min, max))
}

fn payments(request: &Request, scene: &mut Scene<'_>) -> Result<Reply, Mistake> {
    let mut asked = Parameters::of_pairs(request.query_pairs())?;
    let (made_min, made_max) = (asked.time("begin_time")?, asked.time("end_time")?);
    let (min, max) = (asked.time("updated_at_begin_time")?, asked.time("updated_at_end_time")?);
    window(made_min, made_max, "end_time")?;
    window(min, max, "updated_at_end_time")?;
    let by_change = asked.only("sort_field", &["CREATED_AT", "UPDATED_AT"])?.as_deref() == Some("UPDATED_AT");
    let upwards = asked.only("sort_order", &["ASC", "DESC"])?.as_deref() == Some("ASC");
    let place = place(&mut asked, scene)?;
    let list = format!("payments {made_min:?} {made_max:?} {min:?} {max:?} {by_change} {upwards} {place}");
    let wanted = |record: &&Record| {
        record.shop == place
            && within(record.created_at, made_min, made_max)
            && within(record.updated_at, min, max)
    };
    let key = |record: &Record| {
        let at = if by_change { record.updated_at } else { record.created_at }.timestamp_millis();
        if upwards { at } else { -at }
    };
    serve(asked, scene, ("payments", &list, OTHERS), wanted, key, shapes::payment)
}

fn refunds(request: &Request, scene: &mut Scene<'_>) -> Result<Reply, Mistake> {
    let mut asked = Parameters::of_pairs(request.query_pairs())?;
    let (min, max) = (asked.time("begin_time")?, asked.time("end_time")?);
    window(min, max, "end_time")?;
    let upwards = asked.only("sort_order", &["ASC", "DESC"])?.as_deref() == Some("ASC");
    let place = place(&mut asked, scene)?;
    let list = format!("refunds {min:?} {max:?} {upwards} {place}");
    let wanted = |record: &&Record| record.shop == place && within(record.created_at, min, max);
    let key = |record: &Record| {
        let at = record.created_at.timestamp_millis();
        if upwards { at } else { -at }
    };
    serve(asked, scene, ("refunds", &list, OTHERS), wanted, key, shapes::refund)
}

/// The location that is asked for; the main one where none is.
fn place(asked: &mut Parameters, scene: &Scene<'_>) -> Result<String, Mistake> {
    let shops = scene.world.shops();
    let place = asked.text("location_id")?.unwrap_or_else(|| shops[0].id.clone());
    if shops.iter().any(|shop| shop.id == place) {
        return Ok(place);
    }
    Err(Mistake::new("location_id", format!("is `{place}`, which is not the seller's")))
}

fn search_customers(request: &Request, scene: &mut Scene<'_>) -> Result<Reply, Mistake> {
    Parameters::of_pairs(request.query_pairs())?.finish()?;
    let mut asked = Parameters::of_json(request.json())?;
    let list = format!("customers {:?}", request.json().map(|body| body["query"].clone()));
    let mut times = None;
    if let Some(mut query) = asked.object("query")? {
        if let Some(mut filter) = query.object("filter")? {
            times = filter.object("updated_at")?;
            filter.finish()?;
        }
        query.finish()?;
    }
    let (min, max) = times.map_or(Ok((None, None)), time_range)?;
    let wanted = |record: &&Record| within(record.updated_at, min, max);
    // The default order is that of the names; a new name does not shift the others.
    let key = |record: &Record| i64::try_from(record.number).unwrap_or(i64::MAX);
    serve(asked, scene, ("customers", &list, OTHERS), wanted, key, shapes::customer)
}

fn within(at: DateTime<Utc>, min: Option<DateTime<Utc>>, max: Option<DateTime<Utc>>) -> bool {
    min.is_none_or(|min| at >= min) && max.is_none_or(|max| at < max)
}

/// Serves a page of one of the lists, which all turn pages alike.
fn serve(
    mut asked: Parameters,
    scene: &mut Scene<'_>,
    (stream, list, (limit, limit_max)): (&'static str, &str, (u64, u64)),
    wanted: impl Fn(&&Record) -> bool,
    key: impl Fn(&Record) -> i64,
    render: impl Fn(&Record) -> Option<Value>,
) -> Result<Reply, Mistake> {
    let limit = asked.size("limit", limit, limit_max)?;
    let cursor = asked.text("cursor")?;
    asked.finish()?;
    let last = cursor.map(|text| Cursor::read(&text, list, scene.now, Some(CURSOR_KEPT))).transpose()?;
    let matching = scene.world.records(stream).filter(wanted);
    let (records, next) = after(matching, key, last.as_ref().map(|cursor| &cursor.after), limit);
    // Of customers no order is promised that says when they changed.
    let ordered = stream != "customers";
    let records = scene.list(stream, Page { records, more: next.is_some(), ordered });
    let mut body = Map::new();
    let listed: Vec<Value> = records.iter().filter_map(render).collect();
    if !listed.is_empty() {
        body.insert(stream.to_owned(), listed.into());
    }
    if let Some(after) = next {
        let cursor = Cursor { query: list.to_owned(), after, given: scene.now };
        body.insert("cursor".to_owned(), cursor.write().into());
    }
    Ok(Reply::ok(Value::Object(body)))
}

fn order_id(number: u64) -> String {
    format!("CAISENgvlJ6jLW{number:06}")
}

fn customer_id(number: u64) -> String {
    format!("CUST{number:06}")
}

fn not_found(detail: &str) -> Reply {
    error(404, "INVALID_REQUEST_ERROR", "NOT_FOUND", detail, None)
}

fn error(status: u16, category: &str, code: &str, detail: &str, field: Option<&str>) -> Reply {
    let mut error = json!({"category": category, "code": code, "detail": detail});
    if let Some(field) = field {
        error["field"] = field.into();
    }
    Reply::status(status, json!({"errors": [error]}))
}

/// The state of an order, as it is filtered by.
fn state_of(kind: SaleKind) -> &'static str {
    if kind == SaleKind::Void { "CANCELED" } else { "COMPLETED" }
}
