//! Loyverse, from the pages of developer.loyverse.com: receipts and customers by cursor, and webhooks of an
//! OAuth application.
//!
//! ```text
//! GET /v1.0/merchant
//! GET /v1.0/receipts?limit=&cursor=&store_id=&created_at_min=&created_at_max=&updated_at_min=&updated_at_max=
//! GET /v1.0/customers?limit=&cursor=&updated_at_min=
//!     Authorization: Bearer …        {"receipts":[…],"cursor":"…"}; without a cursor on the last page
//! ```
//!
//! The order of the lists is not documented. Here it is that of creation.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use crate::WebhookTarget;
use crate::vendor::{
    Cursor, Delivery, Event, Mistake, Page, Parameters, Reply, Request, Scene, Stream, Tokens, Trouble,
    Vendor, after, major, window,
};
use crate::verify::webhooks::{self, LoyverseForm};
use crate::world::{Currency, Member, Pay, Record, Sale, SaleKind, Shop, What};

const STREAMS: [Stream; 2] = [
    Stream { name: "receipts", what: What::Sales, deletes: false },
    Stream { name: "customers", what: What::Members, deletes: true },
];

/// The page size where none is asked for, and the largest.
const LIMIT: u64 = 50;
const LIMIT_MAX: u64 = 250;

/// A simulated Loyverse account.
pub(super) struct Loyverse;

impl Vendor for Loyverse {
    fn name(&self) -> &'static str {
        "loyverse"
    }

    fn system_type(&self) -> &'static str {
        "pos"
    }

    fn streams(&self) -> &'static [Stream] {
        &STREAMS
    }

    fn shops(&self) -> Vec<Shop> {
        let shop = |id: &str, name: &str| Shop { id: id.into(), name: name.into() };
        vec![shop("s-1", "Main street"), shop("s-2", "Station")]
    }

    fn currency(&self) -> Currency {
        Currency::Usd
    }

    fn id(&self, stream: &Stream, number: u64) -> String {
        match stream.what {
            What::Members => customer_id(number),
            _ => format!("1-{}", 1000 + number),
        }
    }

    fn credentials(&self, tokens: &Tokens) -> BTreeMap<String, String> {
        BTreeMap::from([("api_key".to_owned(), tokens.key("access-token"))])
    }

    fn config(&self) -> Map<String, Value> {
        Map::new()
    }

    fn base_path(&self) -> &'static str {
        "/v1.0"
    }

    fn admit(&self, request: &Request, scene: &mut Scene<'_>) -> Result<(), Reply> {
        if request.bearer() == Some(scene.tokens().key("access-token").as_str()) {
            return Ok(());
        }
        Err(scene.refused(error(401, "UNAUTHORIZED", "the access token is missing or not valid", None)))
    }

    fn answer(&self, request: &Request, scene: &mut Scene<'_>) -> Reply {
        let answered = match request.route() {
            ("GET", "/v1.0/merchant") => merchant(request),
            ("GET", "/v1.0/receipts") => receipts(request, scene),
            ("GET", "/v1.0/customers") => customers(request, scene),
            (method, path) => {
                return scene.rejected(error(404, "NOT_FOUND", &format!("no {method} {path}"), None));
            }
        };
        answered.unwrap_or_else(|Mistake { parameter, reason }| {
            scene.rejected(error(400, "INVALID_VALUE", &format!("{parameter} {reason}"), Some(&parameter)))
        })
    }

    fn trouble(&self, trouble: Trouble) -> Reply {
        match trouble {
            Trouble::TooManyRequests { retry_after_secs } => {
                error(429, "RATE_LIMITED", "too many requests", None)
                    .header("retry-after", retry_after_secs.to_string())
            }
            Trouble::Broken => error(500, "INTERNAL_SERVER_ERROR", "something went wrong", None),
        }
    }

    fn webhook(&self, event: &Event, target: &WebhookTarget) -> Option<Delivery> {
        let (name, record) = if event.stream == "receipts" {
            ("receipts", receipt(&event.record)?)
        } else {
            ("customers", customer(&event.record)?)
        };
        let mut body =
            json!({"merchant_id": "m-1", "type": format!("{name}.update"), "created_at": time(event.at)});
        body[name] = json!([record]);
        let body = body.to_string();
        let signature = webhooks::loyverse(&target.secret, body.as_bytes(), LoyverseForm::Base64);
        let headers = vec![
            ("content-type", "application/json; charset=utf-8".to_owned()),
            ("x-loyverse-signature", signature),
        ];
        Some(Delivery { headers, query: String::new(), body })
    }
}

fn merchant(request: &Request) -> Result<Reply, Mistake> {
    Parameters::of_pairs(request.query_pairs())?.finish()?;
    Ok(Reply::ok(json!({
        "id": "m-1",
        "business_name": "Simulated noodles",
        "email": "owner@example.com",
        "country": "US",
        "currency": {"code": "USD", "decimal_places": 2},
    })))
}

fn receipts(request: &Request, scene: &mut Scene<'_>) -> Result<Reply, Mistake> {
    let mut asked = Parameters::of_pairs(request.query_pairs())?;
    let shop = asked.text("store_id")?;
    let (made_min, made_max) = (asked.time("created_at_min")?, asked.time("created_at_max")?);
    let (min, max) = (asked.time("updated_at_min")?, asked.time("updated_at_max")?);
    window(made_min, made_max, "created_at_max")?;
    window(min, max, "updated_at_max")?;
    let wanted = |record: &&Record| {
        shop.as_ref().is_none_or(|shop| *shop == record.shop)
            && within(record.created_at, made_min, made_max)
            && within(record.updated_at, min, max)
    };
    let list = format!("receipts {shop:?} {made_min:?} {made_max:?} {min:?} {max:?}");
    serve(asked, scene, ("receipts", &list), wanted, receipt)
}

fn customers(request: &Request, scene: &mut Scene<'_>) -> Result<Reply, Mistake> {
    let mut asked = Parameters::of_pairs(request.query_pairs())?;
    let min = asked.time("updated_at_min")?;
    let wanted = |record: &&Record| within(record.updated_at, min, None);
    serve(asked, scene, ("customers", &format!("customers {min:?}")), wanted, customer)
}

/// Both ends of a window belong to it.
fn within(at: DateTime<Utc>, min: Option<DateTime<Utc>>, max: Option<DateTime<Utc>>) -> bool {
    min.is_none_or(|min| at >= min) && max.is_none_or(|max| at <= max)
}

/// Serves a page of one of the lists, which all turn pages alike.
fn serve(
    mut asked: Parameters,
    scene: &mut Scene<'_>,
    (stream, list): (&'static str, &str),
    wanted: impl Fn(&&Record) -> bool,
    render: impl Fn(&Record) -> Option<Value>,
) -> Result<Reply, Mistake> {
    let limit = asked.size("limit", LIMIT, LIMIT_MAX)?;
    let cursor = asked.text("cursor")?;
    asked.finish()?;
    let last = cursor.map(|text| Cursor::read(&text, list, scene.now, None)).transpose()?;
    let matching = scene.world.records(stream).filter(wanted);
    let made = |record: &Record| record.created_at.timestamp_millis();
    let (records, next) = after(matching, made, last.as_ref().map(|cursor| &cursor.after), limit);
    let records = scene.list(stream, Page { records, more: next.is_some(), ordered: false });
    let mut body = Map::new();
    body.insert(stream.to_owned(), records.iter().filter_map(render).collect());
    if let Some(after) = next {
        let cursor = Cursor { query: list.to_owned(), after, given: scene.now };
        body.insert("cursor".to_owned(), cursor.write().into());
    }
    Ok(Reply::ok(Value::Object(body)))
}

fn receipt(record: &Record) -> Option<Value> {
    let sale = record.sale()?;
    let refund = sale.kind == SaleKind::Refund;
    let cancelled = (sale.kind == SaleKind::Void).then(|| time(record.updated_at));
    Some(json!({
        "receipt_number": record.id,
        "note": null,
        "receipt_type": if refund { "REFUND" } else { "SALE" },
        "refund_for": sale.refund_of,
        "order": record.number.to_string(),
        "created_at": time(record.created_at),
        "receipt_date": time(sale.paid_at),
        "updated_at": time(record.updated_at),
        "cancelled_at": cancelled,
        "source": "point of sale",
        "store_id": record.shop,
        "pos_device_id": "d-1",
        "employee_id": "e-1",
        "customer_id": sale.guest.as_ref().map(|guest| customer_id(guest.number)),
        "total_money": major(sale.total),
        "total_tax": major(sale.tax),
        "total_discount": major(sale.discount),
        "tip": 0,
        "points_earned": 0,
        "points_deducted": 0,
        "points_balance": 0,
        "line_items": lines(sale),
        "payments": [payment(sale)],
    }))
}

fn lines(sale: &Sale) -> Vec<Value> {
    let line = sale.lines.iter().map(|line| {
        json!({
            "item_name": line.name,
            "sku": line.sku,
            "quantity": line.quantity,
            "price": major(line.price),
            "gross_total_money": major(line.total()),
            "total_money": major(line.total()),
        })
    });
    line.collect()
}

fn payment(sale: &Sale) -> Value {
    let (kind, name) = match sale.pay {
        Pay::Cash => ("CASH", "Cash"),
        Pay::Card => ("NONINTEGRATEDCARD", "Card"),
        Pay::WeChat => ("OTHER", "WeChat Pay"),
        Pay::Alipay => ("OTHER", "Alipay"),
    };
    json!({"payment_type_id": format!("pt-{name}"), "name": name, "type": kind, "money_amount": major(sale.total)})
}

fn customer(record: &Record) -> Option<Value> {
    let member = record.member()?;
    let Member { given_name, family_name, phone, email, .. } = member;
    Some(json!({
        "id": record.id,
        "name": format!("{given_name} {family_name}"),
        "email": email,
        "phone_number": phone,
        "customer_code": record.number.to_string(),
        "note": null,
        "first_visit": time(record.created_at),
        "last_visit": member.last_visit.map(time),
        "total_visits": 3,
        "total_spent": major(member.balance),
        // Parts of a point are given too.
        "total_points": major(member.points * 100 + 50),
        "created_at": time(record.created_at),
        "updated_at": time(record.updated_at),
        "deleted_at": record.deleted.then(|| time(record.updated_at)),
    }))
}

fn customer_id(number: u64) -> String {
    format!("c-{number:06}")
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn error(status: u16, code: &str, details: &str, field: Option<&str>) -> Reply {
    Reply::status(status, json!({"errors": [{"code": code, "details": details, "field": field}]}))
}
