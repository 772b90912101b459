//! Aoqiwei (奥琦玮) supply chain: goods that came in, by whole days and by page, every call signed. From the
//! vendor's documentation as an integration quotes it.
//!
//! Calls, parameters, signature and envelope are documented. How the members of an order are called is
//! not: they are the plausible ones that the integration made up. The numbers of errors are a guess too.

use std::collections::BTreeMap;

use chrono::{NaiveDate, TimeDelta};
use serde_json::{Map, Value, json};

use super::china::{Asked, day, page, read_day, seconds};
use crate::WebhookTarget;
use crate::vendor::{
    Delivery, Event, Mistake, Parameters, Reply, Request, Scene, Stream, Tokens, Trouble, Vendor, major,
};
use crate::verify::aoqiwei_scm::request as signature;
use crate::world::{Currency, Entry, Line, OrderState, Record, Shop, What};

/// The largest page.
const PAGE_SIZE_MAX: u64 = 500;

/// Its one list.
const STREAMS: &[Stream] = &[Stream { name: "orders", what: What::SupplierOrders, deletes: false }];

/// Goods that can be ordered, for the list that a test of the connection asks for.
const GOODS: [(&str, &str); 2] = [("G1", "五花肉"), ("G2", "面粉")];

/// The vendor.
pub(super) struct AoqiweiScm;

impl Vendor for AoqiweiScm {
    fn name(&self) -> &'static str {
        "aoqiwei-scm"
    }

    fn system_type(&self) -> &'static str {
        "supplier"
    }

    fn streams(&self) -> &'static [Stream] {
        STREAMS
    }

    /// Its depots.
    fn shops(&self) -> Vec<Shop> {
        let depot = |id: &str, name: &str| Shop { id: id.into(), name: name.into() };
        vec![depot("D01", "中央仓"), depot("D02", "城南仓")]
    }

    fn currency(&self) -> Currency {
        Currency::Cny
    }

    fn resolution(&self) -> TimeDelta {
        TimeDelta::seconds(1)
    }

    fn id(&self, _: &Stream, number: u64) -> String {
        format!("RK{number:011}")
    }

    /// Orders are listed by the day when they were ordered.
    fn changes_within(&self) -> Option<TimeDelta> {
        Some(TimeDelta::days(2))
    }

    fn credentials(&self, tokens: &Tokens) -> BTreeMap<String, String> {
        let key = |name: &str| (name.to_owned(), tokens.key(name));
        BTreeMap::from([key("appkey"), key("appsecret")])
    }

    fn config(&self) -> Map<String, Value> {
        Map::new()
    }

    fn entry(&self, record: &Record) -> Option<Entry> {
        let mut entry = record.entry();
        // There is no word for goods on their way.
        if entry.kind == OrderState::Shipped.as_str() {
            entry.kind = OrderState::Confirmed.as_str();
        }
        Some(entry)
    }

    fn admit(&self, request: &Request, scene: &mut Scene<'_>) -> Result<(), Reply> {
        let asked = Asked::of(request);
        if !asked.says("appkey", &scene.tokens().key("appkey")) {
            return Err(scene.refused(failed(1001, "appkey不存在")));
        }
        let right = signature(&asked.arrived(), &scene.tokens().key("appsecret"));
        if asked.says("sign", &right) { Ok(()) } else { Err(scene.refused(failed(1002, "签名错误"))) }
    }

    fn answer(&self, request: &Request, scene: &mut Scene<'_>) -> Reply {
        let answered = match request.route() {
            ("GET", "/rechain/stock/api/good/getList") => goods(request),
            ("GET", "/rechain/purchase/api/depotin/getOrderList") => orders(request, scene),
            _ => return scene.rejected(Reply::status(404, json!({"status": 404, "error": "Not Found"}))),
        };
        answered.unwrap_or_else(|mistake| scene.rejected(failed(1003, &format!("参数错误: {mistake}"))))
    }

    fn trouble(&self, trouble: Trouble) -> Reply {
        match trouble {
            // Not documented: what stands before the customers' hosts would say it so.
            Trouble::TooManyRequests { retry_after_secs } => {
                let reply = Reply { status: 429, ..failed(429, "请求过于频繁") };
                reply.header("Retry-After", retry_after_secs.to_string())
            }
            Trouble::Broken => Reply { status: 500, ..failed(500, "系统异常") },
        }
    }

    /// The webhooks that are told of are an invention of their receiver.
    fn webhook(&self, _: &Event, _: &WebhookTarget) -> Option<Delivery> {
        None
    }
}

fn failed(code: u16, message: &str) -> Reply {
    Reply::ok(json!({"success": false, "code": code, "msg": message, "data": null}))
}

fn listed(list: &[Value], total: usize) -> Reply {
    Reply::ok(json!({"success": true, "code": 0, "msg": "", "data": {"list": list, "total": total}}))
}

/// The parameters of every call, of which only those of this one are left.
fn parameters(request: &Request) -> Result<Parameters, Mistake> {
    // A GET has everything in its query.
    if !request.body.is_empty() {
        return Err(Mistake::new("body", "is not empty"));
    }
    let mut asked = Asked::of(request).parameters()?;
    asked.needed("appkey")?;
    asked.needed("sign")?;
    seconds(&mut asked, "front")?;
    Ok(asked)
}

fn paging(asked: &mut Parameters) -> Result<(u64, usize), Mistake> {
    let number = asked.number("page", 1..=u64::MAX)?.ok_or_else(|| Mistake::new("page", "is missing"))?;
    let size = asked.number("pageSize", 1..=PAGE_SIZE_MAX)?;
    let size = size.ok_or_else(|| Mistake::new("pageSize", "is missing"))?;
    Ok((number, usize::try_from(size).unwrap_or(usize::MAX)))
}

fn goods(request: &Request) -> Result<Reply, Mistake> {
    let mut asked = parameters(request)?;
    let (number, size) = paging(&mut asked)?;
    asked.finish()?;
    let skip = usize::try_from(number - 1).unwrap_or(usize::MAX).saturating_mul(size);
    let goods =
        GOODS.iter().skip(skip).take(size).map(|(code, name)| json!({"goodCode": code, "goodName": name}));
    Ok(listed(&goods.collect::<Vec<_>>(), GOODS.len()))
}

fn orders(request: &Request, scene: &mut Scene<'_>) -> Result<Reply, Mistake> {
    let mut asked = parameters(request)?;
    let days = (read_needed_day(&mut asked, "startDate")?, read_needed_day(&mut asked, "endDate")?);
    let (number, size) = paging(&mut asked)?;
    // Empty is as good as not there: it is not signed either.
    let depot = asked.value("depotCode").and_then(|value| value.as_str().map(str::to_owned));
    asked.finish()?;
    if days.1 < days.0 {
        return Err(Mistake::new("endDate", "is before `startDate`"));
    }
    let depot = depot.filter(|depot| !depot.is_empty());
    // Both ends belong to the window.
    let inside = |record: &&Record| {
        let ordered = record.supplier_order().map(|order| day(order.ordered_at));
        ordered.is_some_and(|day| days.0 <= day && day <= days.1)
            && depot.as_ref().is_none_or(|depot| record.shop == *depot)
    };
    let (listed_now, total) = page(scene.world.records("orders").filter(inside), number, size);
    let orders: Vec<Value> = scene.list("orders", listed_now).iter().filter_map(order).collect();
    Ok(listed(&orders, total))
}

fn read_needed_day(asked: &mut Parameters, name: &str) -> Result<NaiveDate, Mistake> {
    asked.parsed(name, read_day)?.ok_or_else(|| Mistake::new(name, "is missing"))
}

/// An order; `None` of what is none. Amounts are yuan, which is a guess as all names here are.
fn order(record: &Record) -> Option<Value> {
    let order = record.supplier_order()?;
    let item = |line: &Line| {
        json!({
            "goodCode": line.sku,
            "goodName": line.name,
            "unit": "kg",
            "qty": line.quantity,
            "price": major(line.price),
            "amount": major(line.total()),
        })
    };
    Some(json!({
        "orderNo": record.id,
        "supplierCode": order.supplier_id,
        "supplierName": order.supplier_name,
        "depotCode": record.shop,
        "orderDate": day(order.ordered_at).to_string(),
        "status": status(order.state),
        "totalAmount": major(order.total),
        "items": order.lines.iter().map(item).collect::<Vec<_>>(),
    }))
}

/// The states are those that are documented of a till's orders: 0 waiting, 1 confirmed, 2 done, 3 cancelled.
const fn status(state: OrderState) -> u8 {
    match state {
        OrderState::Pending => 0,
        OrderState::Confirmed | OrderState::Shipped => 1,
        OrderState::Delivered => 2,
        OrderState::Cancelled => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::{Pairs, Stage, bare, pairs, with, without};
    use super::*;
    use crate::verify::testing::flipped;

    const ORDERS: &str = "/rechain/purchase/api/depotin/getOrderList";

    fn asked(from: &str, to: &str, page: &str) -> Pairs {
        pairs(&[
            ("appkey", "simulated-appkey"),
            ("front", "1767412800"),
            ("startDate", from),
            ("endDate", to),
            ("page", page),
            ("pageSize", "10"),
        ])
    }

    fn signed(fields: &[(String, String)]) -> Request {
        let request = bare("GET", ORDERS, fields);
        let sign = signature(&Asked::of(&request).arrived(), "simulated-appsecret");
        bare("GET", ORDERS, &with(fields, "sign", &sign))
    }

    fn numbers(body: &Value) -> Vec<String> {
        assert_eq!((&body["success"], &body["code"]), (&json!(true), &json!(0)), "{body}");
        let list = body["data"]["list"].as_array().unwrap();
        list.iter().map(|order| order["orderNo"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn pages_hold_every_order_of_the_days_once() {
        let mut stage = Stage::open(AoqiweiScm, 47);
        let mut found = Vec::new();
        for number in ["1", "2", "3", "4", "5", "6"] {
            let body = stage.body(&signed(&asked("2026-01-01", "2026-01-03", number)));
            assert_eq!(body["data"]["total"], 47);
            found.extend(numbers(&body));
        }
        let all: Vec<String> = stage.records("orders").into_iter().map(|record| record.id).collect();
        assert_eq!(found, all);
    }

    #[test]
    fn both_ends_of_a_window_are_whole_days() {
        let mut stage = Stage::open(AoqiweiScm, 47);
        let on = |record: &Record| day(record.supplier_order().unwrap().ordered_at).to_string();
        for (from, to) in
            [("2026-01-01", "2026-01-01"), ("2026-01-02", "2026-01-03"), ("2026-01-04", "2026-01-04")]
        {
            let fields = with(&asked(from, to, "1"), "pageSize", "500");
            let found = numbers(&stage.body(&signed(&fields)));
            let records = stage.records("orders");
            let inside =
                records.iter().filter(|record| from <= on(record).as_str() && on(record).as_str() <= to);
            assert_eq!(found, inside.map(|record| record.id.clone()).collect::<Vec<_>>(), "{from} to {to}");
            let depot = numbers(&stage.body(&signed(&with(&fields, "depotCode", "D02"))));
            assert!(depot.len() < found.len() || found.is_empty());
            assert_eq!(numbers(&stage.body(&signed(&with(&fields, "depotCode", "")))), found);
        }
    }

    #[test]
    fn every_signed_byte_counts() {
        let mut stage = Stage::open(AoqiweiScm, 3);
        let right = signed(&asked("2026-01-01", "2026-01-03", "1"));
        assert_eq!(stage.body(&right)["code"], 0);
        for (name, value) in right.query_pairs() {
            let wrong = bare("GET", ORDERS, &with(&right.query_pairs(), &name, &flipped(&value)));
            let body = stage.body(&wrong);
            let code = if name == "appkey" { 1001 } else { 1002 };
            assert_eq!((&body["success"], &body["code"]), (&json!(false), &json!(code)), "{name}");
        }
        assert_eq!(stage.counters.refused, 7);
    }

    #[test]
    fn what_the_document_does_not_allow_is_refused() {
        let mut stage = Stage::open(AoqiweiScm, 3);
        let right = asked("2026-01-01", "2026-01-03", "1");
        let wrong = [
            with(&right, "pageSize", "501"),
            with(&right, "page", "0"),
            with(&right, "startDate", "2026-01-01 00:00:00"),
            with(&right, "endDate", "2025-12-31"),
            with(&right, "front", "1767412800000"),
            with(&right, "shopCode", "S01"),
            without(&right, "page"),
            without(&right, "front"),
            without(&right, "startDate"),
            [right.clone(), pairs(&[("page", "1")])].concat(),
        ];
        for fields in &wrong {
            let body = stage.body(&signed(fields));
            assert_eq!((&body["success"], &body["code"]), (&json!(false), &json!(1003)), "{fields:?}");
        }
        assert_eq!(stage.rejected(), 10);
    }
}
