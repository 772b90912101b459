//! Shopify's REST Admin API, from the pages of shopify.dev: orders and customers by the `Link` header, and
//! the webhooks of an app.
//!
//! ```text
//! GET /admin/api/{version}/shop.json
//! GET /admin/api/{version}/orders.json?status=&updated_at_min=&limit=&order=      one: orders/{id}.json
//! GET /admin/api/{version}/customers.json?updated_at_min=&limit=&order=
//!     X-Shopify-Access-Token: …     {"orders":[…]} with  Link: <…?limit=&page_info=…>; rel="next"
//! ```
//!
//! The next page's address takes `limit` and `fields` beside its `page_info`, and nothing else. Orders older
//! than sixty days are not told. A refunded order stays one record.

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

const STREAMS: [Stream; 2] = [
    Stream { name: "orders", what: What::Sales, deletes: false },
    Stream { name: "customers", what: What::Members, deletes: false },
];

/// The page size where none is asked for, and the largest.
const LIMIT: u64 = 50;
const LIMIT_MAX: u64 = 250;

/// How far back orders are told without `read_all_orders`.
const ORDERS_KEPT: TimeDelta = TimeDelta::days(60);

/// Ids are larger than a double can hold exactly.
const FIRST_ID: u64 = 9_007_199_254_740_993;

/// A simulated Shopify shop.
pub(super) struct Shopify;

impl Vendor for Shopify {
    fn name(&self) -> &'static str {
        "shopify"
    }

    fn system_type(&self) -> &'static str {
        "pos"
    }

    fn streams(&self) -> &'static [Stream] {
        &STREAMS
    }

    fn shops(&self) -> Vec<Shop> {
        vec![Shop { id: "655441491".into(), name: "Main street".into() }]
    }

    fn currency(&self) -> Currency {
        Currency::Usd
    }

    fn resolution(&self) -> TimeDelta {
        TimeDelta::seconds(1)
    }

    fn refund_is_a_state(&self) -> bool {
        true
    }

    fn id(&self, _: &Stream, number: u64) -> String {
        (FIRST_ID + 2 * number).to_string()
    }

    fn credentials(&self, tokens: &Tokens) -> BTreeMap<String, String> {
        BTreeMap::from([("api_key".to_owned(), tokens.key("access-token"))])
    }

    fn config(&self) -> Map<String, Value> {
        Map::from_iter([("api_version".to_owned(), json!("2025-07"))])
    }

    fn admit(&self, request: &Request, scene: &mut Scene<'_>) -> Result<(), Reply> {
        if request.header("x-shopify-access-token") == Some(scene.tokens().key("access-token").as_str()) {
            return Ok(());
        }
        let reason = "[API] Invalid API key or access token (unrecognized login or wrong password)";
        Err(scene.refused(Reply::status(401, json!({"errors": reason}))))
    }

    fn answer(&self, request: &Request, scene: &mut Scene<'_>) -> Reply {
        let Some(resource) = resource(&request.path).filter(|_| request.method == "GET") else {
            return scene.rejected(not_found());
        };
        let answered = match resource {
            "shop.json" => shop(request, scene),
            "orders.json" => orders(request, scene),
            "customers.json" => customers(request, scene),
            other => match other.strip_prefix("orders/").and_then(|name| name.strip_suffix(".json")) {
                Some(id) => Ok(order(id, scene)),
                None => Ok(scene.rejected(not_found())),
            },
        };
        let answered = answered.unwrap_or_else(|Mistake { parameter, reason }| {
            scene.rejected(Reply::status(400, json!({"errors": {parameter: reason}})))
        });
        answered.header("x-shopify-shop-api-call-limit", "1/40")
    }

    fn trouble(&self, trouble: Trouble) -> Reply {
        match trouble {
            Trouble::TooManyRequests { retry_after_secs } => {
                let reason = "Exceeded 2 calls per second for api client. \
                              Reduce request rates to resume uninterrupted service.";
                // Shopify writes the seconds with a decimal point.
                Reply::status(429, json!({"errors": reason}))
                    .header("retry-after", format!("{retry_after_secs}.0"))
                    .header("x-shopify-shop-api-call-limit", "40/40")
            }
            Trouble::Broken => Reply::status(500, json!({"errors": "Internal Server Error"})),
        }
    }

    fn webhook(&self, event: &Event, target: &WebhookTarget) -> Option<Delivery> {
        shapes::webhook(event, target)
    }
}

/// What stands behind `/admin/api/{version}/`.
fn resource(path: &str) -> Option<&str> {
    let (version, resource) = path.strip_prefix("/admin/api/")?.split_once('/')?;
    let (year, month) = version.split_once('-')?;
    let number = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    (number(year, 4) && number(month, 2)).then_some(resource)
}

fn shop(request: &Request, scene: &mut Scene<'_>) -> Result<Reply, Mistake> {
    Parameters::of_pairs(request.query_pairs())?.finish()?;
    let shop = &scene.world.shops()[0];
    Ok(Reply::ok(json!({"shop": {
        "id": 690_933_842,
        "name": shop.name,
        "domain": shapes::DOMAIN,
        "currency": "USD",
        "iana_timezone": "America/New_York",
        "primary_location_id": 655_441_491,
    }})))
}

fn order(id: &str, scene: &mut Scene<'_>) -> Reply {
    let found = scene.world.record("orders", id).and_then(shapes::order);
    found.map_or_else(not_found, |order| Reply::ok(json!({"order": order})))
}

/// What a list is asked for; a page that follows keeps it in its `page_info`.
#[derive(Debug, Clone)]
struct Filter {
    min: Option<DateTime<Utc>>,
    max: Option<DateTime<Utc>>,
    made_min: Option<DateTime<Utc>>,
    status: String,
    by_change: bool,
}

impl Filter {
    fn read(asked: &mut Parameters, orders: bool) -> Result<Self, Mistake> {
        let (min, max) = (asked.time("updated_at_min")?, asked.time("updated_at_max")?);
        window(min, max, "updated_at_max")?;
        let made_min = asked.time("created_at_min")?;
        let sorted = asked.only("order", &["updated_at asc", "created_at asc", "id asc"])?;
        let states = ["open", "closed", "cancelled", "any"];
        let status = if orders { asked.only("status", &states)? } else { Some("any".to_owned()) };
        let (by_change, status) =
            (sorted.as_deref() == Some("updated_at asc"), status.unwrap_or_else(|| "open".to_owned()));
        Ok(Self { min, max, made_min, status, by_change })
    }

    fn takes(&self, record: &Record, now: DateTime<Utc>) -> bool {
        let fits = self.min.is_none_or(|min| record.updated_at >= min)
            && self.max.is_none_or(|max| record.updated_at <= max)
            && self.made_min.is_none_or(|min| record.created_at >= min);
        let of_status = record.sale().is_none_or(|sale| {
            let cancelled = sale.kind == SaleKind::Void;
            record.created_at > now - ORDERS_KEPT
                && match self.status.as_str() {
                    "cancelled" => cancelled,
                    "open" | "closed" => !cancelled,
                    _ => true,
                }
        });
        fits && of_status
    }

    fn key(&self, record: &Record) -> i64 {
        let number = i64::try_from(record.number).unwrap_or(i64::MAX);
        if self.by_change { record.updated_at.timestamp_millis() } else { number }
    }

    /// As the text that a cursor keeps, and back.
    fn write(&self) -> String {
        let millis = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp_millis());
        let times = [millis(self.min), millis(self.max), millis(self.made_min)];
        json!([times, self.status, self.by_change]).to_string()
    }

    fn of_text(text: &str) -> Option<Self> {
        let kept: Value = serde_json::from_str(text).ok()?;
        let time = |at: usize| kept[0][at].as_i64().and_then(DateTime::from_timestamp_millis);
        Some(Self {
            min: time(0),
            max: time(1),
            made_min: time(2),
            status: kept[1].as_str()?.to_owned(),
            by_change: kept[2].as_bool()?,
        })
    }
}

fn orders(request: &Request, scene: &mut Scene<'_>) -> Result<Reply, Mistake> {
    serve(request, scene, "orders", shapes::order)
}

fn customers(request: &Request, scene: &mut Scene<'_>) -> Result<Reply, Mistake> {
    serve(request, scene, "customers", shapes::customer)
}

/// Serves a page of one of the lists, which both turn pages alike.
fn serve(
    request: &Request,
    scene: &mut Scene<'_>,
    stream: &'static str,
    render: impl Fn(&Record) -> Option<Value>,
) -> Result<Reply, Mistake> {
    let mut asked = Parameters::of_pairs(request.query_pairs())?;
    let limit = asked.size("limit", LIMIT, LIMIT_MAX)?;
    let (filter, last) = match asked.text("page_info")? {
        Some(info) => {
            let cursor = Cursor::read_any(&info)?;
            let wrong = || Mistake::new("page_info", "was given for another list");
            let kept = cursor.query.strip_prefix(stream).and_then(Filter::of_text).ok_or_else(wrong)?;
            (kept, Some(cursor.after))
        }
        None => (Filter::read(&mut asked, stream == "orders")?, None),
    };
    asked.finish()?;
    let matching = scene.world.records(stream).filter(|record| filter.takes(record, scene.now));
    let (records, next) = after(matching, |record| filter.key(record), last.as_ref(), limit);
    let ordered = filter.by_change;
    let records = scene.list(stream, Page { records, more: next.is_some(), ordered });
    let listed: Vec<Value> = records.iter().filter_map(render).collect();
    let reply = Reply::ok(json!({stream: listed}));
    let Some(after) = next else {
        return Ok(reply);
    };
    let cursor = Cursor { query: format!("{stream}{}", filter.write()), after, given: scene.now };
    let next = format!("http://{}{}?limit={limit}&page_info={}", scene.address, request.path, cursor.write());
    Ok(reply.header("link", format!("<{next}>; rel=\"next\"")))
}

fn not_found() -> Reply {
    Reply::status(404, json!({"errors": "Not Found"}))
}
