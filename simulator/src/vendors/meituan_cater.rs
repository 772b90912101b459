//! Meituan's technical service centre for restaurants (餐饮): purchase orders in two steps, first the numbers of
//! their items by window and page, then the orders of many items at once. Every call is a signed form. From
//! two public clients of the platform.
//!
//! The calls, the signature and the envelope are documented. How the members of items and orders are called
//! is not: all names below `data` are guessed, and so are the words of errors and the states besides 60.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use super::china::{Asked, milliseconds, page, seconds};
use crate::WebhookTarget;
use crate::vendor::{
    Delivery, Event, Mistake, Parameters, Reply, Request, Scene, Stream, Tokens, Trouble, Vendor, major_text,
    window,
};
use crate::verify::meituan::cater as signature;
use crate::world::{Currency, Line, OrderState, Record, Shop, SupplierOrder, What};

/// The largest page, and the most items that are asked for at once.
const PAGE_SIZE_MAX: u64 = 200;

/// The developer, the business and the organisation.
const DEVELOPER: &str = "100001";
const BUSINESS: &str = "61";
const ORG: &str = "700001";

/// The state of an order that is done, which is the one that is asked for.
const DONE: u64 = 60;

/// Its one list.
const STREAMS: &[Stream] = &[Stream { name: "orders", what: What::SupplierOrders, deletes: false }];

/// The vendor.
pub(super) struct MeituanCater;

impl Vendor for MeituanCater {
    fn name(&self) -> &'static str {
        "meituan-cater"
    }

    fn system_type(&self) -> &'static str {
        "supplier"
    }

    fn streams(&self) -> &'static [Stream] {
        STREAMS
    }

    fn shops(&self) -> Vec<Shop> {
        vec![Shop { id: ORG.into(), name: "望京店".into() }]
    }

    fn currency(&self) -> Currency {
        Currency::Cny
    }

    /// The number of an order; its item has the same number behind other letters.
    fn id(&self, _: &Stream, number: u64) -> String {
        format!("PO{number:010}")
    }

    /// Orders are listed by the day when they were ordered.
    fn changes_within(&self) -> Option<TimeDelta> {
        Some(TimeDelta::days(2))
    }

    fn credentials(&self, tokens: &Tokens) -> BTreeMap<String, String> {
        let key = |name: &str| (name.to_owned(), tokens.key(name));
        BTreeMap::from([key("sign_key"), key("app_auth_token")])
    }

    fn config(&self) -> Map<String, Value> {
        let all = [("developer_id", DEVELOPER), ("business_id", BUSINESS), ("org_id", ORG), ("level", "poi")];
        all.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
    }

    /// Only orders that are done are asked for, so no others are heard of.
    fn orders_begin(&self) -> OrderState {
        OrderState::Delivered
    }

    fn admit(&self, request: &Request, scene: &mut Scene<'_>) -> Result<(), Reply> {
        let (asked, trace) = (Asked::of(request), trace(scene));
        if !asked.says("developerId", DEVELOPER) {
            return Err(scene.refused(failed("OP_DEVELOPER_ERROR", "developerId不存在", &trace)));
        }
        let right = signature(&asked.arrived(), &scene.tokens().key("sign_key"));
        if !asked.says("sign", &right) {
            return Err(scene.refused(failed("OP_SIGN_ERROR", "签名错误", &trace)));
        }
        if !asked.says("appAuthToken", &scene.tokens().key("app_auth_token")) {
            return Err(scene.refused(failed("OP_TOKEN_ERROR", "appAuthToken无效", &trace)));
        }
        Ok(())
    }

    fn answer(&self, request: &Request, scene: &mut Scene<'_>) -> Reply {
        let trace = trace(scene);
        let answered = match request.route() {
            ("POST", "/rms/scmplus/demand/api/v1/poi/purchaseOrderItem/query") => items(request, scene),
            ("POST", "/rms/scmplus/demand/api/v1/poi/purchaseOrder/list") => orders(request, scene),
            _ => return scene.rejected(Reply::status(404, json!({"status": 404, "error": "Not Found"}))),
        };
        match answered {
            Ok(data) => {
                Reply::ok(json!({"code": "OP_SUCCESS", "msg": "成功", "data": data, "traceId": trace}))
            }
            Err(mistake) => scene.rejected(failed("OP_PARAM_ERROR", &format!("参数错误: {mistake}"), &trace)),
        }
    }

    fn trouble(&self, trouble: Trouble) -> Reply {
        match trouble {
            // Not documented: what stands before the platform would say it so.
            Trouble::TooManyRequests { retry_after_secs } => {
                let reply = Reply { status: 429, ..failed("OP_LIMIT_ERROR", "请求过于频繁", "0") };
                reply.header("Retry-After", retry_after_secs.to_string())
            }
            Trouble::Broken => Reply { status: 500, ..failed("OP_SYSTEM_ERROR", "系统异常", "0") },
        }
    }

    /// None is documented for purchase orders.
    fn webhook(&self, _: &Event, _: &WebhookTarget) -> Option<Delivery> {
        None
    }
}

/// What every answer is called.
fn trace(scene: &Scene<'_>) -> String {
    format!("{:016x}", scene.counters.requests)
}

fn failed(code: &str, message: &str, trace: &str) -> Reply {
    Reply::ok(json!({"code": code, "msg": message, "data": null, "traceId": trace}))
}

/// What is asked of the organisation: the JSON in `biz`.
fn business(request: &Request) -> Result<Parameters, Mistake> {
    if !request.query.is_empty() {
        return Err(Mistake::new("query", "is not empty"));
    }
    let mut form = Asked::of(request).parameters()?;
    for name in ["appAuthToken", "developerId", "sign"] {
        form.needed(name)?;
    }
    for (name, value) in [("businessId", BUSINESS), ("charset", "UTF-8"), ("version", "2")] {
        form.only(name, &[value])?.ok_or_else(|| Mistake::new(name, "is missing"))?;
    }
    seconds(&mut form, "timestamp")?;
    let business = form.needed("biz")?;
    form.finish()?;
    let mut asked = Parameters::of_json(serde_json::from_str(&business).ok())?;
    // Whether it is a text or a number is not told.
    let org = asked.value("orgId").ok_or_else(|| Mistake::new("orgId", "is missing"))?;
    let number = org.as_str().map_or_else(|| org.to_string(), str::to_owned);
    if number != ORG {
        return Err(Mistake::new("orgId", format!("is {number}, another organisation than the token's")));
    }
    Ok(asked)
}

fn items(request: &Request, scene: &mut Scene<'_>) -> Result<Value, Mistake> {
    let mut asked = business(request)?;
    let (from, to) = (milliseconds(&mut asked, "orderStartTime")?, milliseconds(&mut asked, "orderEndTime")?);
    window(Some(from), Some(to), "orderEndTime")?;
    let states =
        asked.value("orderStatusList").ok_or_else(|| Mistake::new("orderStatusList", "is missing"))?;
    if states != json!([DONE]) {
        return Err(Mistake::new("orderStatusList", format!("is {states}; only [60] is known")));
    }
    let mut paging = asked.object("page")?.ok_or_else(|| Mistake::new("page", "is missing"))?;
    let number =
        paging.number("pageNo", 1..=u64::MAX)?.ok_or_else(|| Mistake::new("pageNo", "is missing"))?;
    let size = paging.number("pageSize", 1..=PAGE_SIZE_MAX)?;
    let size = size.ok_or_else(|| Mistake::new("pageSize", "is missing"))?;
    paging.finish()?;
    asked.finish()?;
    let wanted = |record: &&Record| {
        let order = record.supplier_order().filter(|order| order.state == OrderState::Delivered);
        // Both ends belong to the window.
        order.is_some_and(|order| from <= order.ordered_at && order.ordered_at <= to)
    };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let (listed, _) = page(scene.world.records("orders").filter(wanted), number, size);
    let listed = scene.list("orders", listed);
    let items = listed.iter().map(|record| {
        json!({
            "itemSn": item_number(record),
            "orderSn": record.id,
            "updateTime": record.updated_at.timestamp_millis(),
        })
    });
    Ok(json!({"items": items.collect::<Vec<_>>()}))
}

fn orders(request: &Request, scene: &mut Scene<'_>) -> Result<Value, Mistake> {
    let mut asked = business(request)?;
    let wanted = asked.texts("itemSns")?.ok_or_else(|| Mistake::new("itemSns", "is missing"))?;
    asked.finish()?;
    if wanted.is_empty() || wanted.len() as u64 > PAGE_SIZE_MAX {
        return Err(Mistake::new("itemSns", format!("are {}; 1 to {PAGE_SIZE_MAX} may be", wanted.len())));
    }
    // An item that nobody knows is left out.
    let found = wanted.iter().filter_map(|number| {
        let record = scene.world.record("orders", &number.replace("PI", "PO"))?;
        if item_number(record) == *number { order(record) } else { None }
    });
    Ok(json!({"orders": found.collect::<Vec<_>>()}))
}

fn item_number(record: &Record) -> String {
    format!("PI{:010}", record.number)
}

/// An order; `None` of what is none. Amounts are texts of yuan.
fn order(record: &Record) -> Option<Value> {
    let order = record.supplier_order()?;
    let arrived = (order.state == OrderState::Delivered).then(|| record.updated_at.timestamp_millis());
    Some(json!({
        "itemSn": item_number(record),
        "orderSn": record.id,
        "orgId": record.shop,
        "supplierCode": order.supplier_id,
        "supplierName": order.supplier_name,
        "orderTime": order.ordered_at.timestamp_millis(),
        "arriveTime": arrived,
        "status": status(order),
        "totalAmount": major_text(order.total),
        "items": order.lines.iter().map(line).collect::<Vec<_>>(),
    }))
}

fn line(line: &Line) -> Value {
    json!({
        "skuCode": line.sku,
        "skuName": line.name,
        "unit": "kg",
        "quantity": line.quantity,
        "price": major_text(line.price),
        "amount": major_text(line.total()),
    })
}

const fn status(order: &SupplierOrder) -> u64 {
    match order.state {
        OrderState::Pending => 10,
        OrderState::Confirmed => 20,
        OrderState::Shipped => 40,
        OrderState::Delivered => DONE,
        OrderState::Cancelled => 90,
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::{Pairs, Stage, form, pairs, with, without};
    use super::*;
    use crate::verify::testing::flipped;

    const ITEMS: &str = "/rms/scmplus/demand/api/v1/poi/purchaseOrderItem/query";
    const ORDERS: &str = "/rms/scmplus/demand/api/v1/poi/purchaseOrder/list";

    fn fields(business: &Value) -> Pairs {
        let fixed = pairs(&[
            ("appAuthToken", "simulated-app_auth_token"),
            ("businessId", BUSINESS),
            ("charset", "UTF-8"),
            ("developerId", DEVELOPER),
            ("timestamp", "1767412800"),
            ("version", "2"),
        ]);
        with(&fixed, "biz", &business.to_string())
    }

    fn signed(path: &str, fields: &[(String, String)]) -> Request {
        let request = form(path, fields);
        let sign = signature(&Asked::of(&request).arrived(), "simulated-sign_key");
        form(path, &with(fields, "sign", &sign))
    }

    fn window(stage: &Stage, page: u64) -> Value {
        let millis = stage.now.timestamp_millis();
        json!({
            "orgId": ORG, "orderStartTime": millis - 2 * 86_400_000, "orderEndTime": millis,
            "orderStatusList": [60], "page": {"pageNo": page, "pageSize": 10},
        })
    }

    fn ask(stage: &mut Stage, path: &str, business: &Value) -> Value {
        stage.body(&signed(path, &fields(business)))
    }

    #[test]
    fn two_steps_tell_every_order_that_is_done_once() {
        let mut stage = Stage::open(MeituanCater, 57);
        let mut told = Vec::new();
        for number in 1.. {
            let asked = window(&stage, number);
            let body = ask(&mut stage, ITEMS, &asked);
            assert_eq!(body["code"], "OP_SUCCESS", "{body}");
            let items = body["data"]["items"].as_array().unwrap().clone();
            let numbers: Vec<&Value> = items.iter().map(|item| &item["itemSn"]).collect();
            let body = ask(&mut stage, ORDERS, &json!({"orgId": 700_001, "itemSns": numbers}));
            let orders = body["data"]["orders"].as_array().unwrap();
            assert!(orders.iter().all(|order| order["status"] == 60 && order["arriveTime"].is_i64()));
            told.extend(orders.iter().map(|order| order["orderSn"].clone()));
            if items.len() < 10 {
                break;
            }
        }
        let done = stage.records("orders");
        assert_eq!(told, done.iter().map(|record| json!(record.id)).collect::<Vec<_>>());
        let unknown =
            ask(&mut stage, ORDERS, &json!({"orgId": ORG, "itemSns": ["PI9999999999", "PO0000000001"]}));
        assert_eq!(unknown["data"]["orders"], json!([]));
    }

    #[test]
    fn a_window_holds_both_its_ends() {
        let mut stage = Stage::open(MeituanCater, 60);
        let done = stage.records("orders");
        let ordered = |at: usize| done[at].supplier_order().unwrap().ordered_at.timestamp_millis();
        let mut asked = window(&stage, 1);
        asked["orderStartTime"] = json!(ordered(3));
        asked["orderEndTime"] = json!(ordered(7));
        let body = ask(&mut stage, ITEMS, &asked);
        let found: Vec<&Value> =
            body["data"]["items"].as_array().unwrap().iter().map(|item| &item["orderSn"]).collect();
        assert_eq!(found, done[3..=7].iter().map(|record| record.id.as_str()).collect::<Vec<_>>());
    }

    #[test]
    fn every_signed_byte_counts() {
        let mut stage = Stage::open(MeituanCater, 3);
        let right = signed(ITEMS, &fields(&window(&stage, 1)));
        assert_eq!(stage.body(&right)["code"], "OP_SUCCESS");
        for (name, value) in right.form_pairs() {
            let wrong = form(ITEMS, &with(&right.form_pairs(), &name, &flipped(&value)));
            let code = if name == "developerId" { "OP_DEVELOPER_ERROR" } else { "OP_SIGN_ERROR" };
            assert_eq!(stage.body(&wrong)["code"], code, "{name}");
        }
        let other = with(&fields(&window(&stage, 1)), "appAuthToken", "another");
        assert_eq!(stage.body(&signed(ITEMS, &other))["code"], "OP_TOKEN_ERROR");
        assert_eq!(stage.counters.refused, 9);
    }

    #[test]
    fn what_is_not_documented_is_refused() {
        let mut stage = Stage::open(MeituanCater, 3);
        let right = window(&stage, 1);
        let changes = [
            ("page", json!({"pageNo": 1, "pageSize": 201})),
            ("page", json!({"pageNo": 0, "pageSize": 10})),
            ("page", json!({"pageNo": 1})),
            ("orderStartTime", json!(1_767_225_600)),
            ("orderStartTime", json!("2026-01-01 00:00:00")),
            ("orderEndTime", json!(1_767_000_000_000_u64)),
            ("orderStatusList", json!([10])),
            ("orgId", json!("700002")),
            ("pageNo", json!(1)),
        ];
        let mut wrong: Vec<Pairs> = Vec::new();
        for (name, value) in changes {
            let mut business = right.clone();
            business[name] = value;
            wrong.push(fields(&business));
        }
        for name in ["orgId", "orderStartTime", "orderEndTime", "orderStatusList", "page"] {
            let mut business = right.clone();
            business.as_object_mut().unwrap().remove(name);
            wrong.push(fields(&business));
        }
        let fixed = fields(&right);
        wrong.extend([
            with(&fixed, "version", "1"),
            with(&fixed, "businessId", "2"),
            with(&fixed, "timestamp", "1767412800000"),
            with(&fixed, "lang", "zh"),
            without(&fixed, "charset"),
            [fixed.clone(), pairs(&[("version", "2")])].concat(),
        ]);
        for fields in &wrong {
            assert_eq!(stage.body(&signed(ITEMS, fields))["code"], "OP_PARAM_ERROR", "{fields:?}");
        }
        let none = json!({"orgId": ORG, "itemSns": []});
        assert_eq!(ask(&mut stage, ORDERS, &none)["code"], "OP_PARAM_ERROR");
        assert_eq!(stage.rejected(), 21);
    }
}
