//! Tiancai Shanglong (天财商龙), also Wuuxiang (吾享), a till: the bills of one shop by business day and page,
//! with an access token that a newer one ends. From what four public clients and an integration tell.
//!
//! Everything is in the query and the body is empty. Not known, so guessed: the codes of errors, which
//! bills a `dateType` other than 1 means (refused here), and that a reversed bill's amounts are positive.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::china::{BILLS_CHANGE_WITHIN, begin_of, business_day, page, read_day, read_wall_time, wall_time};
use crate::WebhookTarget;
use crate::vendor::{
    Delivery, Event, Mistake, Parameters, Reply, Request, Scene, Stream, Tokens, Trouble, Vendor, major,
    window,
};
use crate::world::{Currency, Entry, Line, Pay, Record, Sale, SaleKind, Shop, What};

/// How long a token is good.
const TOKEN_LIFETIME: TimeDelta = TimeDelta::seconds(1200);

/// The largest page.
const PAGE_SIZE_MAX: u64 = 500;

/// The company.
const CENTER: &str = "1001";

/// Its one shop.
const SHOP: &str = "20001";

/// Its one list. A bill that was deleted says so.
const STREAMS: &[Stream] = &[Stream { name: "bills", what: What::Sales, deletes: true }];

/// The vendor.
pub(super) struct TiancaiShanglong;

impl Vendor for TiancaiShanglong {
    fn name(&self) -> &'static str {
        "tiancai-shanglong"
    }

    fn system_type(&self) -> &'static str {
        "pos"
    }

    fn streams(&self) -> &'static [Stream] {
        STREAMS
    }

    fn shops(&self) -> Vec<Shop> {
        vec![Shop { id: SHOP.into(), name: "西湖店".into() }]
    }

    fn currency(&self) -> Currency {
        Currency::Cny
    }

    fn resolution(&self) -> TimeDelta {
        TimeDelta::seconds(1)
    }

    fn id(&self, _: &Stream, number: u64) -> String {
        format!("B{number:013}")
    }

    fn changes_within(&self) -> Option<TimeDelta> {
        Some(BILLS_CHANGE_WITHIN)
    }

    fn credentials(&self, tokens: &Tokens) -> BTreeMap<String, String> {
        let key = |name: &str| (name.to_owned(), tokens.key(name));
        BTreeMap::from([key("appid"), key("accessid")])
    }

    fn config(&self) -> Map<String, Value> {
        let setting = |name: &str, value: &str| (name.to_owned(), Value::from(value));
        Map::from_iter([setting("center_id", CENTER), setting("shop_id", SHOP)])
    }

    fn gives_tokens(&self) -> bool {
        true
    }

    /// A bill that never happened is told as one that was deleted.
    fn entry(&self, record: &Record) -> Option<Entry> {
        let entry = record.entry();
        let deleted = entry.deleted || entry.kind == SaleKind::Void.as_str();
        Some(Entry { deleted, ..entry })
    }

    fn admit(&self, request: &Request, scene: &mut Scene<'_>) -> Result<(), Reply> {
        if request.path == "/api/auth/accesstoken" {
            return Err(access_token(request, scene));
        }
        let token = request.header("access_token").unwrap_or_default();
        if !scene.tokens().accepts(token, scene.now) {
            return Err(scene.refused(failed("401", "access_token is invalid or expired")));
        }
        if request.header("accessid") != Some(&scene.tokens().key("accessid")) {
            return Err(scene.refused(failed("402", "accessid is invalid")));
        }
        if request.header("granttype") != Some("client") {
            return Err(scene.refused(failed("403", "granttype is invalid")));
        }
        Ok(())
    }

    fn answer(&self, request: &Request, scene: &mut Scene<'_>) -> Reply {
        let answered = match request.route() {
            ("POST", "/api/datatransfer/getshops") => shops(request, scene),
            ("POST", "/api/datatransfer/getserialdata") => bills(request, scene),
            _ => return scene.rejected(Reply::status(404, json!({"status": 404, "error": "Not Found"}))),
        };
        answered.unwrap_or_else(|mistake| scene.rejected(failed("1001", &format!("param error: {mistake}"))))
    }

    fn trouble(&self, trouble: Trouble) -> Reply {
        match trouble {
            // Not documented: what stands before the vendor's host would say it so.
            Trouble::TooManyRequests { retry_after_secs } => {
                let reply = Reply { status: 429, ..failed("429", "too many requests") };
                reply.header("Retry-After", retry_after_secs.to_string())
            }
            Trouble::Broken => Reply { status: 500, ..failed("500", "system error") },
        }
    }

    /// The vendor has none.
    fn webhook(&self, _: &Event, _: &WebhookTarget) -> Option<Delivery> {
        None
    }
}

fn failed(code: &str, message: &str) -> Reply {
    Reply::ok(json!({"code": code, "msg": message, "success": false, "data": null}))
}

fn succeeded(data: &Value) -> Reply {
    Reply::ok(json!({"code": "0", "msg": "success", "success": true, "data": data}))
}

/// Answers the call for a token, whose members stand beside the code. It ends the one before.
fn access_token(request: &Request, scene: &mut Scene<'_>) -> Reply {
    let asked = || -> Result<(String, String), Mistake> {
        if request.method != "POST" {
            return Err(Mistake::new("method", "is not POST"));
        }
        let mut asked = parameters(request)?;
        let keys = (asked.needed("appid")?, asked.needed("accessid")?);
        asked
            .only("response_type", &["token"])?
            .ok_or_else(|| Mistake::new("response_type", "is missing"))?;
        asked.finish()?;
        Ok(keys)
    };
    match asked() {
        Ok((appid, accessid))
            if appid == scene.tokens().key("appid") && accessid == scene.tokens().key("accessid") =>
        {
            let token = scene.give_token(TOKEN_LIFETIME, true);
            Reply::ok(json!({
                "code": "0",
                "msg": "success",
                "access_token": token,
                "expires_in": TOKEN_LIFETIME.num_seconds(),
                "refresh_token": format!("{token}-refresh"),
            }))
        }
        Ok(_) => scene.refused(failed("402", "appid or accessid is invalid")),
        Err(mistake) => scene.refused(failed("1001", &format!("param error: {mistake}"))),
    }
}

fn parameters(request: &Request) -> Result<Parameters, Mistake> {
    if !request.body.is_empty() {
        return Err(Mistake::new("body", "is not empty"));
    }
    Parameters::of_pairs(request.query_pairs())
}

/// Every list is of the company and has pages.
fn paging(asked: &mut Parameters) -> Result<(u64, usize), Mistake> {
    asked.only("centerId", &[CENTER])?.ok_or_else(|| Mistake::new("centerId", "is missing"))?;
    let number = asked.number("pageNo", 1..=u64::MAX)?.ok_or_else(|| Mistake::new("pageNo", "is missing"))?;
    let size = asked.number("pageSize", 1..=PAGE_SIZE_MAX)?;
    let size = size.ok_or_else(|| Mistake::new("pageSize", "is missing"))?;
    Ok((number, usize::try_from(size).unwrap_or(usize::MAX)))
}

fn page_info(total: usize, (number, size): (u64, usize)) -> Value {
    json!({"totalSize": total, "pageTotal": total.div_ceil(size), "pageNo": number, "pageSize": size})
}

fn shops(request: &Request, scene: &Scene<'_>) -> Result<Reply, Mistake> {
    let mut asked = parameters(request)?;
    let paging = paging(&mut asked)?;
    asked.finish()?;
    // How the list and its members are called is a guess.
    let shops = scene.world.shops().iter().map(|shop| json!({"shop_id": shop.id, "shop_name": shop.name}));
    let shops: Vec<Value> = if paging.0 == 1 { shops.collect() } else { Vec::new() };
    Ok(succeeded(&json!({"shopList": shops, "pageInfo": page_info(scene.world.shops().len(), paging)})))
}

fn bills(request: &Request, scene: &mut Scene<'_>) -> Result<Reply, Mistake> {
    let mut asked = parameters(request)?;
    let paging = paging(&mut asked)?;
    asked.only("shopId", &[SHOP])?.ok_or_else(|| Mistake::new("shopId", "is missing"))?;
    let (from, to) = days(&mut asked)?;
    let members = asked.number("isNeedMember", 0..=1)? == Some(1);
    // All kinds of orders, and packages as one line: what else there is, nobody has seen.
    asked.number("orderType", 0..=0)?;
    asked.number("needPkgDetail", 0..=0)?;
    asked.finish()?;
    let inside = |record: &&Record| {
        let begin = record.sale().map(|sale| begin_of(business_day(sale.paid_at)));
        begin.is_some_and(|begin| from <= begin && begin <= to)
    };
    let (listed, total) = page(scene.world.records("bills").filter(inside), paging.0, paging.1);
    let info = page_info(total, paging);
    let bills: Vec<Value> =
        scene.list("bills", listed).iter().filter_map(|record| bill(record, members)).collect();
    Ok(succeeded(&json!({"billList": bills, "pageInfo": info})))
}

/// One business day, or all that begin in a window whose ends both belong to it.
fn days(asked: &mut Parameters) -> Result<(DateTime<Utc>, DateTime<Utc>), Mistake> {
    if let Some(day) = asked.parsed("settleDate", read_day)? {
        return Ok((begin_of(day), begin_of(day)));
    }
    let from = asked.parsed("beginDate", read_wall_time)?;
    let to = asked.parsed("endDate", read_wall_time)?;
    asked.only("dateType", &["1"])?.ok_or_else(|| Mistake::new("dateType", "is missing"))?;
    window(from, to, "endDate")?;
    let missing = |name| Mistake::new(name, "is missing");
    Ok((from.ok_or_else(|| missing("beginDate"))?, to.ok_or_else(|| missing("endDate"))?))
}

/// A bill; `None` of what is no sale. Amounts are yuan.
fn bill(record: &Record, members: bool) -> Option<Value> {
    let sale = record.sale()?;
    let void = sale.kind == SaleKind::Void;
    let mut bill = json!({
        "bs_id": record.id,
        "bs_code": format!("T{:04}", record.number),
        // 1 is settled. Others than 0 are special, so a bill that never happened is one of those.
        "state": if void { 2 } else { 1 },
        "open_time": wall_time(sale.opened_at),
        "settle_time": wall_time(sale.paid_at),
        "settle_biz_date": business_day(sale.paid_at).to_string(),
        "people_qty": sale.people,
        "point_name": sale.table,
        "orig_total": major(sale.subtotal),
        "disc_total": major(sale.discount),
        "last_total": major(sale.total),
        "income_total": major(sale.total),
        "tax_money": major(sale.tax),
        "shop_id": record.shop,
        "shop_code": record.shop,
        "orig_wd_bs_id": sale.refund_of,
        "create_time": wall_time(record.created_at),
        "modify_time": wall_time(record.updated_at),
        "delflg": u8::from(record.deleted || void),
        "item": sale.lines.iter().map(item).collect::<Vec<_>>(),
        "settle_detail": [settled(sale)],
    });
    if let (true, Some(guest)) = (members, &sale.guest) {
        bill["member_id"] = json!(guest.number);
        bill["member_card_no"] = json!(format!("8800{:03}", guest.number));
        bill["member_name"] = json!(guest.name);
        bill["member_mobile"] = json!(guest.phone);
    }
    Some(bill)
}

fn item(line: &Line) -> Value {
    json!({
        "item_code": line.sku,
        "item_name": line.name,
        "last_qty": line.quantity,
        "last_price": major(line.price),
        "last_total": major(line.total()),
        "pkg_flg": 0,
        "unit_name": "份",
    })
}

fn settled(sale: &Sale) -> Value {
    let (name, code) = match sale.pay {
        Pay::Cash => ("现金", "CASH"),
        Pay::Card => ("银行卡", "CARD"),
        Pay::WeChat => ("微信", "WX"),
        Pay::Alipay => ("支付宝", "ALI"),
    };
    json!({
        "payway_name": name,
        "payway_code": code,
        "pay_money": major(sale.total),
        "income_money": major(sale.total),
    })
}

#[cfg(test)]
mod tests {
    use super::super::stage::{Pairs, Stage, bare, json as post_json, pairs, with, without};
    use super::*;

    const BILLS: &str = "/api/datatransfer/getserialdata";

    fn token(stage: &mut Stage) -> String {
        let keys = pairs(&[
            ("appid", "simulated-appid"),
            ("accessid", "simulated-accessid"),
            ("response_type", "token"),
        ]);
        let body = stage.body(&bare("POST", "/api/auth/accesstoken", &keys));
        assert_eq!((&body["code"], &body["expires_in"]), (&json!("0"), &json!(1200)));
        body["access_token"].as_str().unwrap().to_owned()
    }

    fn asked(token: &str, query: &[(String, String)]) -> Request {
        let headers =
            pairs(&[("access_token", token), ("accessid", "simulated-accessid"), ("granttype", "client")]);
        Request { headers, ..bare("POST", BILLS, query) }
    }

    fn query(from: &str, to: &str) -> Pairs {
        pairs(&[
            ("centerId", CENTER),
            ("shopId", SHOP),
            ("beginDate", from),
            ("endDate", to),
            ("dateType", "1"),
            ("pageNo", "1"),
            ("pageSize", "10"),
        ])
    }

    #[test]
    fn pages_hold_every_bill_of_the_days_once() {
        let mut stage = Stage::open(TiancaiShanglong, 45);
        let token = token(&mut stage);
        let query = query("2025-12-31 12:00:00", "2026-01-03 11:59:55");
        let mut found = Vec::new();
        for number in 1..=5 {
            let body = stage.body(&asked(&token, &with(&query, "pageNo", &number.to_string())));
            assert_eq!(body["data"]["pageInfo"]["pageTotal"], 5, "{body}");
            let bills = body["data"]["billList"].as_array().unwrap();
            found.extend(bills.iter().map(|bill| bill["bs_id"].as_str().unwrap().to_owned()));
        }
        let all: Vec<String> = stage.records("bills").into_iter().map(|record| record.id).collect();
        assert_eq!(found, all);
    }

    #[test]
    fn a_window_holds_the_business_days_that_begin_in_it() {
        let mut stage = Stage::open(TiancaiShanglong, 45);
        let token = token(&mut stage);
        let mut days = |query: &[(String, String)]| {
            let body = stage.body(&asked(&token, &with(query, "pageSize", "500")));
            let bills = body["data"]["billList"].as_array().unwrap();
            let days = bills.iter().map(|bill| bill["settle_biz_date"].as_str().unwrap().to_owned());
            days.collect::<std::collections::BTreeSet<_>>()
        };
        let second: std::collections::BTreeSet<_> = ["2026-01-02".to_owned()].into();
        assert_eq!(days(&query("2026-01-01 00:00:01", "2026-01-02 23:59:59")), second);
        assert_eq!(days(&query("2026-01-02 00:00:00", "2026-01-02 00:00:00")), second);
        let day = without(&without(&query("", ""), "beginDate"), "endDate");
        assert_eq!(days(&with(&without(&day, "dateType"), "settleDate", "2026-01-02")), second);
    }

    #[test]
    fn a_token_is_good_until_its_end_or_the_next_one() {
        let mut stage = Stage::open(TiancaiShanglong, 3);
        let query = query("2026-01-01 00:00:00", "2026-01-03 00:00:00");
        let first = token(&mut stage);
        assert_eq!(stage.body(&asked(&first, &query))["code"], "0");
        let second = token(&mut stage);
        assert_eq!(stage.body(&asked(&first, &query))["code"], "401");
        assert_eq!(stage.body(&asked(&second, &query))["code"], "0");
        stage.now += TOKEN_LIFETIME;
        assert_eq!(stage.body(&asked(&second, &query))["code"], "401");
        for (header, value) in [("accessid", "another"), ("granttype", "shop")] {
            let third = token(&mut stage);
            let mut wrong = asked(&third, &query);
            wrong.headers = with(&wrong.headers, header, value);
            assert_eq!(stage.body(&wrong)["success"], false, "{header}");
        }
        let keys =
            pairs(&[("appid", "another"), ("accessid", "simulated-accessid"), ("response_type", "token")]);
        assert_eq!(stage.body(&bare("POST", "/api/auth/accesstoken", &keys))["code"], "402");
    }

    #[test]
    fn what_the_document_does_not_allow_is_refused() {
        let mut stage = Stage::open(TiancaiShanglong, 3);
        let token = token(&mut stage);
        let right = query("2026-01-01 00:00:00", "2026-01-03 00:00:00");
        let wrong = [
            with(&right, "pageSize", "501"),
            with(&right, "pageNo", "0"),
            with(&right, "beginDate", "2026-01-01"),
            with(&right, "endDate", "2025-12-31 00:00:00"),
            with(&right, "shopId", "S01"),
            with(&right, "dateType", "6"),
            with(&right, "settleDate", "2026-01-01"),
            with(&right, "page", "1"),
            without(&right, "centerId"),
            without(&right, "pageNo"),
            [right.clone(), pairs(&[("pageNo", "1")])].concat(),
        ];
        for query in &wrong {
            let body = stage.body(&asked(&token, query));
            assert_eq!((&body["success"], &body["code"]), (&json!(false), &json!("1001")), "{query:?}");
        }
        let headers = asked(&token, &right).headers;
        let with_body = Request { headers, ..post_json(BILLS, &right, "{}") };
        assert_eq!(stage.body(&with_body)["code"], "1001");
        assert_eq!(stage.rejected(), 12);
    }
}
