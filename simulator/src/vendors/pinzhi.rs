//! Pinzhi (品智), a till: the bills of one store and one business day at a time, every call signed with
//! the merchant's token. From the vendor's document as an integration quotes it.
//!
//! Errors come with a status of 200, and 0 is success. Where the document is silent, a comment says what
//! was guessed. The webhook that is told of is an invention of its receiver, so nothing is posted.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use super::china::{Asked, BILLS_CHANGE_WITHIN, business_day, page, read_day, wall_time};
use crate::WebhookTarget;
use crate::vendor::{Delivery, Event, Mistake, Reply, Request, Scene, Stream, Tokens, Trouble, Vendor};
use crate::verify::pinzhi::{Variant, request as signature};
use crate::world::{Currency, Pay, Record, Sale, SaleKind, Shop, What};

/// What stands before every path of a merchant's host.
const BASE: &str = "/pzcatering-gateway";

/// The page size where none is asked for.
const PAGE_SIZE: u64 = 20;

/// The largest page. The document names none; this is what was seen to work.
const PAGE_SIZE_MAX: u64 = 100;

/// Its one list.
const STREAMS: &[Stream] = &[Stream { name: "bills", what: What::Sales, deletes: false }];

/// The vendor.
pub(super) struct Pinzhi;

impl Vendor for Pinzhi {
    fn name(&self) -> &'static str {
        "pinzhi"
    }

    fn system_type(&self) -> &'static str {
        "pos"
    }

    fn streams(&self) -> &'static [Stream] {
        STREAMS
    }

    fn shops(&self) -> Vec<Shop> {
        let shop = |id: &str, name: &str| Shop { id: id.into(), name: name.into() };
        vec![shop("12345", "湘江路店"), shop("12346", "五一广场店")]
    }

    fn currency(&self) -> Currency {
        Currency::Cny
    }

    fn resolution(&self) -> TimeDelta {
        TimeDelta::seconds(1)
    }

    fn id(&self, _: &Stream, number: u64) -> String {
        format!("PZ{number:011}")
    }

    fn changes_within(&self) -> Option<TimeDelta> {
        Some(BILLS_CHANGE_WITHIN)
    }

    fn credentials(&self, tokens: &Tokens) -> BTreeMap<String, String> {
        BTreeMap::from([("token".to_owned(), tokens.key("token"))])
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

    fn admit(&self, request: &Request, scene: &mut Scene<'_>) -> Result<(), Reply> {
        let asked = Asked::of(request);
        let right = signature(&asked.arrived(), &scene.tokens().key("token"), Variant::default());
        if asked.says("sign", &right) { Ok(()) } else { Err(scene.refused(failed("sign error"))) }
    }

    fn answer(&self, request: &Request, scene: &mut Scene<'_>) -> Reply {
        let answered = match (request.method.as_str(), request.path.strip_prefix(BASE)) {
            ("GET", Some("/pinzhi/organizations.do")) => stores(request, scene),
            ("POST", Some("/pinzhi/orderNew.do")) => bills(request, scene),
            // What a host does not have is the one thing that it tells by a status.
            _ => return scene.rejected(Reply::status(404, json!({"status": 404, "error": "Not Found"}))),
        };
        answered.unwrap_or_else(|mistake| scene.rejected(failed(&format!("param error: {mistake}"))))
    }

    fn trouble(&self, trouble: Trouble) -> Reply {
        match trouble {
            // Not documented: what stands before the merchants' hosts would say it so.
            Trouble::TooManyRequests { retry_after_secs } => {
                let body = json!({"success": 1, "msg": "too many requests"});
                Reply::status(429, body).header("Retry-After", retry_after_secs.to_string())
            }
            Trouble::Broken => failed("server error"),
        }
    }

    fn webhook(&self, _: &Event, _: &WebhookTarget) -> Option<Delivery> {
        None
    }
}

fn failed(message: &str) -> Reply {
    Reply::ok(json!({"success": 1, "msg": message}))
}

fn stores(request: &Request, scene: &Scene<'_>) -> Result<Reply, Mistake> {
    let mut asked = Asked::of(request).parameters()?;
    asked.needed("sign")?;
    asked.finish()?;
    let stores = scene.world.shops().iter().enumerate().map(|(at, shop)| {
        json!({
            "ognid": shop.id,
            "ognno": format!("{:03}", at + 1),
            "ognname": shop.name,
            "ognaddress": "长沙市",
            "ogntel": "0731-80000000",
            "brandid": "1",
            "brandname": "湘味馆",
        })
    });
    Ok(Reply::ok(json!({"success": 0, "msg": "ok", "res": stores.collect::<Vec<_>>()})))
}

fn bills(request: &Request, scene: &mut Scene<'_>) -> Result<Reply, Mistake> {
    let mut asked = Asked::of(request).parameters()?;
    asked.needed("sign")?;
    let store = asked.needed("ognid")?;
    let day = asked.parsed("businessDate", read_day)?;
    let day = day.ok_or_else(|| Mistake::new("businessDate", "is missing"))?;
    let number = asked.number("pageIndex", 1..=u64::MAX)?.unwrap_or(1);
    let size = asked.size("pageSize", PAGE_SIZE, PAGE_SIZE_MAX)?;
    asked.finish()?;
    if !scene.world.shops().iter().any(|shop| shop.id == store) {
        return Err(Mistake::new("ognid", format!("is `{store}`, no store of this merchant")));
    }
    let on_day = |record: &&Record| {
        record.shop == store && record.sale().is_some_and(|sale| business_day(sale.paid_at) == day)
    };
    let (listed, _) = page(scene.world.records("bills").filter(on_day), number, size);
    let bills: Vec<Value> = scene.list("bills", listed).iter().filter_map(bill).collect();
    Ok(Reply::ok(json!({"success": 0, "msg": "ok", "res": bills})))
}

/// A bill; `None` of what is no sale. Amounts are whole fen.
fn bill(record: &Record) -> Option<Value> {
    let sale = record.sale()?;
    let dishes = sale.lines.iter().map(|line| {
        json!({"dishId": line.sku, "dishName": line.name, "dishPrice": line.price, "dishNum": line.quantity})
    });
    let guest = sale.guest.as_ref();
    Some(json!({
        "billId": record.id,
        "billNo": format!("A{:04}", record.number),
        "billStatus": status(sale),
        "orderSource": 1,
        "tableNo": sale.table,
        "people": sale.people,
        "openTime": wall_time(sale.opened_at),
        "payTime": wall_time(sale.paid_at),
        "payDate": business_day(sale.paid_at).to_string(),
        "dishPriceTotal": sale.subtotal,
        // What comes on top is the charge for tea and seat here.
        "teaPrice": sale.tax,
        "billPriceTotal": sale.subtotal + sale.tax,
        "specialOfferPrice": sale.discount,
        "realPrice": sale.total,
        "vipCard": guest.map_or_else(String::new, |guest| format!("8800{:03}", guest.number)),
        "vipName": guest.map_or("", |guest| &guest.name),
        "vipMobile": guest.map_or("", |guest| &guest.phone),
        "dishList": dishes.collect::<Vec<_>>(),
        // The names of its members are a guess.
        "paymentList": [{"payType": pay_type(sale.pay), "payMoney": sale.total}],
    }))
}

/// 1 paid, 2 cancelled, 4 paid back in full.
const fn status(sale: &Sale) -> u8 {
    match sale.kind {
        SaleKind::Sale => 1,
        SaleKind::Void => 2,
        SaleKind::Refund => 4,
    }
}

const fn pay_type(pay: Pay) -> u8 {
    match pay {
        Pay::Cash => 1,
        Pay::WeChat | Pay::Alipay => 3,
        Pay::Card => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::{Pairs, Stage, bare, form, pairs, with, without};
    use super::*;
    use crate::verify::testing::flipped;

    const BILLS: &str = "/pzcatering-gateway/pinzhi/orderNew.do";

    fn signed(stage: &Stage, fields: &[(String, String)]) -> Pairs {
        let request = form(BILLS, fields);
        let sign = signature(&Asked::of(&request).arrived(), &stage.tokens.key("token"), Variant::default());
        with(fields, "sign", &sign)
    }

    fn asked(store: &str, day: &str, page: &str) -> Pairs {
        pairs(&[("ognid", store), ("businessDate", day), ("pageIndex", page), ("pageSize", "10")])
    }

    fn ask(stage: &mut Stage, fields: &[(String, String)]) -> Value {
        let signed = signed(stage, fields);
        stage.body(&form(BILLS, &signed))
    }

    #[test]
    fn pages_hold_every_bill_of_a_store_and_a_day_once() {
        let mut stage = Stage::open(Pinzhi, 120);
        let mut found = Vec::new();
        for store in ["12345", "12346"] {
            for day in ["2025-12-31", "2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"] {
                for number in 1.. {
                    let body = ask(&mut stage, &asked(store, day, &number.to_string()));
                    assert_eq!(body["success"], 0, "{body}");
                    let bills = body["res"].as_array().unwrap().clone();
                    for bill in &bills {
                        assert_eq!(bill["payDate"], day);
                        found.push(bill["billId"].as_str().unwrap().to_owned());
                    }
                    if bills.len() < 10 {
                        break;
                    }
                }
            }
        }
        found.sort();
        let all: Vec<String> = stage.records("bills").into_iter().map(|record| record.id).collect();
        assert_eq!(found, all);
    }

    #[test]
    fn every_signed_byte_counts() {
        let mut stage = Stage::open(Pinzhi, 3);
        let right = signed(&stage, &asked("12345", "2026-01-02", "1"));
        assert_eq!(stage.body(&form(BILLS, &right))["success"], 0);
        for name in ["ognid", "businessDate", "sign"] {
            let value = &right.iter().find(|(found, _)| found == name).unwrap().1;
            let wrong = with(&right, name, &flipped(value));
            assert_eq!(
                stage.body(&form(BILLS, &wrong)),
                json!({"success": 1, "msg": "sign error"}),
                "{name}"
            );
        }
        assert_eq!(stage.body(&form(BILLS, &without(&right, "sign")))["msg"], "sign error");
        assert_eq!(stage.counters.refused, 4);
    }

    #[test]
    fn what_the_document_does_not_allow_is_refused() {
        let mut stage = Stage::open(Pinzhi, 3);
        let right = asked("12345", "2026-01-02", "1");
        let wrong = [
            with(&right, "pageSize", "101"),
            with(&right, "pageIndex", "0"),
            with(&right, "businessDate", "2026-01-02 00:00:00"),
            with(&right, "ognid", "99999"),
            with(&right, "endDate", "2026-01-03"),
            without(&right, "ognid"),
            without(&right, "businessDate"),
            [right.clone(), pairs(&[("pageIndex", "1")])].concat(),
        ];
        for fields in &wrong {
            let body = ask(&mut stage, fields);
            assert!(body["success"] == 1 && body.get("res").is_none(), "{fields:?}: {body}");
        }
        assert_eq!(stage.rejected(), 8);
        let elsewhere = form("/pzcatering-gateway/pinzhi/querydishes.do", &signed(&stage, &right));
        assert_eq!(stage.ask(&elsewhere).status, 404);
    }

    #[test]
    fn the_stores_are_told() {
        let mut stage = Stage::open(Pinzhi, 0);
        let sign = signed(&stage, &[]);
        let body = stage.body(&bare("GET", "/pzcatering-gateway/pinzhi/organizations.do", &sign));
        assert_eq!((&body["success"], &body["res"][1]["ognid"]), (&json!(0), &json!("12346")));
    }
}
