//! Meituan Waimai (美团外卖), delivery orders: there is no list of them; what happens is pushed as signed forms,
//! and one order can be asked for. From public clients and the platform's documents.
//!
//! Both ways sign an address: calls the platform's own, pushes the one that was registered. Not documented,
//! so guessed: the members of the message that an order was cancelled, and that nothing is pushed of a refund
//! but what other messages say, which are not simulated.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::china::{Asked, seconds};
use crate::WebhookTarget;
use crate::vendor::{
    Delivery, Event, Mistake, Parameters, Reply, Request, Scene, Stream, Tokens, Trouble, Vendor, major,
    major_text,
};
use crate::verify::{Arrived, meituan::waimai as signature};
use crate::world::{Currency, Entry, Line, Record, Sale, SaleKind, Shop, What};

/// The platform's own address, which calls are signed for wherever they arrive.
const PLATFORM: &str = "https://waimaiopen.meituan.com";

/// What stands before every path.
const BASE: &str = "/api/v1";

/// The numbers of two errors: a wrong signature, and too many requests.
const WRONG_SIGNATURE: u16 = 703;
const THROTTLED: u16 = 711;

/// Its orders, which are only ever pushed.
const STREAMS: &[Stream] = &[Stream { name: "orders", what: What::Sales, deletes: false }];

/// The vendor.
pub(super) struct MeituanWaimai;

impl Vendor for MeituanWaimai {
    fn name(&self) -> &'static str {
        "meituan-waimai"
    }

    fn system_type(&self) -> &'static str {
        "delivery"
    }

    fn streams(&self) -> &'static [Stream] {
        STREAMS
    }

    /// The codes are the merchant's own.
    fn shops(&self) -> Vec<Shop> {
        let shop = |id: &str, name: &str| Shop { id: id.into(), name: name.into() };
        vec![shop("S01", "31号店"), shop("S02", "32号店")]
    }

    fn currency(&self) -> Currency {
        Currency::Cny
    }

    fn resolution(&self) -> TimeDelta {
        TimeDelta::seconds(1)
    }

    fn id(&self, _: &Stream, number: u64) -> String {
        (27_000_000 + number).to_string()
    }

    fn credentials(&self, tokens: &Tokens) -> BTreeMap<String, String> {
        let key = |name: &str| (name.to_owned(), tokens.key(name));
        BTreeMap::from([key("app_id"), key("secret")])
    }

    fn config(&self) -> Map<String, Value> {
        Map::new()
    }

    fn base_path(&self) -> &'static str {
        BASE
    }

    fn refund_is_a_state(&self) -> bool {
        true
    }

    /// An order that was paid back is still the order that it was.
    fn entry(&self, record: &Record) -> Option<Entry> {
        let mut entry = record.entry();
        if entry.kind == SaleKind::Refund.as_str() {
            entry.kind = SaleKind::Sale.as_str();
        }
        Some(entry)
    }

    fn admit(&self, request: &Request, scene: &mut Scene<'_>) -> Result<(), Reply> {
        let asked = Asked::of(request);
        let (app_id, secret) = (scene.tokens().key("app_id"), scene.tokens().key("secret"));
        let url = format!("{PLATFORM}{}", request.path);
        let right = signature(&Arrived { url: &url, ..asked.arrived() }, &secret);
        if asked.says("app_id", &app_id) && asked.says("sig", &right) {
            return Ok(());
        }
        Err(scene.refused(failed(WRONG_SIGNATURE, "签名验证错误")))
    }

    fn answer(&self, request: &Request, scene: &mut Scene<'_>) -> Reply {
        let answered = match (request.method.as_str(), request.path.strip_prefix(BASE)) {
            ("GET", Some("/poi/getids")) => shops(request, scene),
            ("GET", Some("/order/getOrderDetail")) => detail(request, scene),
            _ => return scene.rejected(Reply::status(404, json!({"status": 404, "error": "Not Found"}))),
        };
        match answered {
            Ok(data) => Reply::ok(json!({"data": data})),
            Err(mistake) => scene.rejected(failed(701, &format!("参数错误: {mistake}"))),
        }
    }

    fn trouble(&self, trouble: Trouble) -> Reply {
        match trouble {
            Trouble::TooManyRequests { .. } => failed(THROTTLED, "请求过于频繁"),
            Trouble::Broken => Reply { status: 500, ..failed(700, "系统错误") },
        }
    }

    fn webhook(&self, event: &Event, target: &WebhookTarget) -> Option<Delivery> {
        let members = match event.record.sale()?.kind {
            SaleKind::Sale => order(&event.record)?,
            SaleKind::Void => {
                json!({"order_id": number(&event.record), "reason_code": 1002, "reason": "用户取消"})
            }
            SaleKind::Refund => return None,
        };
        let mut form = texts(&members);
        form.push(("app_id".to_owned(), "simulated-app_id".to_owned()));
        form.push(("timestamp".to_owned(), event.at.timestamp().to_string()));
        let url = target.url.as_str();
        let sig =
            signature(&Arrived { method: "POST", url, query: &[], form: &form, body: b"" }, &target.secret);
        form.push(("sig".to_owned(), sig));
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&form).finish();
        let kind = "application/x-www-form-urlencoded; charset=utf-8".to_owned();
        Some(Delivery { headers: vec![("content-type", kind)], query: String::new(), body })
    }
}

fn failed(code: u16, message: &str) -> Reply {
    Reply::ok(json!({"data": "ng", "error": {"code": code, "msg": message}}))
}

/// The parameters of every call, of which only those of this one are left.
fn parameters(request: &Request) -> Result<Parameters, Mistake> {
    let mut asked = Asked::of(request).parameters()?;
    for name in ["app_id", "sig"] {
        asked.needed(name)?;
    }
    seconds(&mut asked, "timestamp")?;
    Ok(asked)
}

fn shops(request: &Request, scene: &Scene<'_>) -> Result<Value, Mistake> {
    parameters(request)?.finish()?;
    Ok(scene.world.shops().iter().map(|shop| Value::from(shop.id.as_str())).collect())
}

fn detail(request: &Request, scene: &Scene<'_>) -> Result<Value, Mistake> {
    let mut asked = parameters(request)?;
    let id = asked.needed("order_id")?;
    asked.finish()?;
    let found = scene.world.record("orders", &id).and_then(order);
    found.ok_or_else(|| Mistake::new("order_id", format!("is {id}, no order of this merchant")))
}

/// An order; `None` of what is no sale. Amounts are yuan, times seconds, and lists are JSON in a text.
fn order(record: &Record) -> Option<Value> {
    let sale = record.sale()?;
    let seconds = |time: DateTime<Utc>| time.timestamp();
    let recipient = sale.guest.as_ref();
    Some(json!({
        "order_id": number(record),
        "wm_order_id_view": 300_000_000_000_u64 + record.number,
        "app_poi_code": record.shop,
        "status": status(sale),
        "ctime": seconds(sale.opened_at),
        "utime": seconds(record.updated_at),
        "order_completed_time": seconds(sale.paid_at),
        "original_price": major(sale.subtotal + sale.tax),
        "shipping_fee": major(0),
        "total": major(sale.total),
        "recipient_name": recipient.map_or("张*", |guest| &guest.name),
        "recipient_phone": recipient.map_or("", |guest| &guest.phone),
        "caution": "不要辣, 少盐 & 多醋",
        "day_seq": record.number % 100 + 1,
        "detail": sale.lines.iter().map(dish).collect::<Value>().to_string(),
        "extras": json!([{"reduce_fee": major_text(sale.discount)}]).to_string(),
    }))
}

fn dish(line: &Line) -> Value {
    json!({
        "app_food_code": line.sku,
        "food_name": line.name,
        "sku_id": format!("{}-1", line.sku),
        "quantity": line.quantity,
        "price": major(line.price),
        "unit": "份",
    })
}

/// 8 is done, 9 cancelled.
const fn status(sale: &Sale) -> u8 {
    match sale.kind {
        SaleKind::Sale | SaleKind::Refund => 8,
        SaleKind::Void => 9,
    }
}

fn number(record: &Record) -> u64 {
    27_000_000 + record.number
}

/// The members of an object as a form has them.
fn texts(members: &Value) -> Vec<(String, String)> {
    let members = members.as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    members.map(|(name, value)| (name.clone(), text(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::stage::{Pairs, Stage, bare, pairs, with, without};
    use super::*;
    use crate::verify::{decode, testing::flipped};
    use crate::world::Change;

    const DETAIL: &str = "/api/v1/order/getOrderDetail";

    fn asked() -> Pairs {
        pairs(&[("app_id", "simulated-app_id"), ("timestamp", "1767412800"), ("order_id", "27000002")])
    }

    fn signed(query: &[(String, String)]) -> Request {
        let url = format!("{PLATFORM}{DETAIL}");
        let arrived = Arrived { method: "GET", url: &url, query, form: &[], body: b"" };
        bare("GET", DETAIL, &with(query, "sig", &signature(&arrived, "simulated-secret")))
    }

    #[test]
    fn one_order_can_be_asked_for() {
        let mut stage = Stage::open(MeituanWaimai, 3);
        let body = stage.body(&signed(&asked()));
        assert_eq!(body["data"]["order_id"], 27_000_002, "{body}");
        let dishes: Value = serde_json::from_str(body["data"]["detail"].as_str().unwrap()).unwrap();
        assert!(dishes[0]["food_name"].is_string());
    }

    #[test]
    fn every_signed_byte_counts() {
        let mut stage = Stage::open(MeituanWaimai, 3);
        let right = signed(&asked());
        for (name, value) in right.query_pairs() {
            let wrong = bare("GET", DETAIL, &with(&right.query_pairs(), &name, &flipped(&value)));
            assert_eq!(stage.body(&wrong)["error"]["code"], WRONG_SIGNATURE, "{name}");
        }
        let elsewhere = bare("GET", "/api/v1/poi/getids", &right.query_pairs());
        assert_eq!(stage.body(&elsewhere)["error"]["code"], WRONG_SIGNATURE, "the address is signed");
    }

    #[test]
    fn what_the_documents_do_not_allow_is_refused() {
        let mut stage = Stage::open(MeituanWaimai, 3);
        for wrong in [
            with(&asked(), "page", "1"),
            with(&asked(), "order_id", "1"),
            with(&asked(), "timestamp", "1767412800000"),
            without(&asked(), "order_id"),
            [asked(), pairs(&[("order_id", "27000002")])].concat(),
        ] {
            let body = stage.body(&signed(&wrong));
            assert_eq!((&body["data"], &body["error"]["code"]), (&json!("ng"), &json!(701)), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_pushed_is_signed_for_the_address_that_was_registered() {
        let stage = Stage::open(MeituanWaimai, 3);
        let target = WebhookTarget {
            url: url::Url::parse("http://hub.example/hook?shop=1").unwrap(),
            secret: "msec_demo".into(),
        };
        let mut event = Event {
            number: 1,
            at: stage.now,
            stream: "orders",
            change: Change::Made,
            record: stage.records("orders")[0].clone(),
        };
        let delivery = stage.vendor.webhook(&event, &target).unwrap();
        let form = decode(delivery.body.as_bytes());
        let sent = form.iter().find(|(name, _)| name == "sig").unwrap();
        let of = |url: &str, form: &[(String, String)]| {
            signature(&Arrived { method: "POST", url, query: &[], form, body: b"" }, "msec_demo")
        };
        assert_eq!(sent.1, of("http://hub.example/hook", &form));
        assert_ne!(sent.1, of("http://hub.example/other", &form));
        assert_ne!(sent.1, of("http://hub.example/hook", &with(&form, "total", "0.01")));

        let Some(mut sale) = event.record.sale().cloned() else { unreachable!("a sale") };
        sale.kind = SaleKind::Void;
        event.record.body = crate::world::Body::Sale(sale);
        let cancelled = decode(stage.vendor.webhook(&event, &target).unwrap().body.as_bytes());
        assert!(cancelled.iter().any(|(name, _)| name == "reason_code"));
        assert!(!cancelled.iter().any(|(name, _)| name == "detail"));
    }
}
