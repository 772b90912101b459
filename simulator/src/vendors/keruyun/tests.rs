//! Keruyun as its two clients speak to it, and as they do not.

use serde_json::{Value, json};

use super::super::china::wall_time;
use super::super::stage::{Pairs, Stage, bare, json as post_json, pairs, with, without};
use super::*;
use crate::verify::testing::flipped;
use crate::world::Record;

const LIST: &str = "/open/standard/order/queryList";
const BY_MOBILE: &str = "/open/standard/crm/CustomerOpenFacade/queryByMobile";
const PROPERTY: &str = "/open/standard/crm/CustomerOpenFacade/queryCustomerProperty";
const DETAIL: &str = "/open/standard/order/queryDetail";

fn query() -> Pairs {
    let key = ("appKey", "simulated-app_key");
    pairs(&[key, ("shopIdenty", SHOP), ("timestamp", "1767412800"), ("version", "2.0")])
}

fn token(stage: &mut Stage) -> String {
    let call = bare("GET", "/open/v1/token/get", &query());
    let sign = token_call(&Asked::of(&call).arrived(), "simulated-secret_key").unwrap();
    let body = stage.body(&bare("GET", "/open/v1/token/get", &with(&query(), "sign", &sign)));
    body["result"]["token"].as_str().unwrap().to_owned()
}

fn signed(path: &str, body: &str, token: &str, form: Form, query: &[(String, String)]) -> Request {
    let request = post_json(path, query, body);
    let sign = call(&Asked::of(&request).arrived(), token, form).unwrap();
    post_json(path, &with(query, "sign", &sign), body)
}

fn ask(stage: &mut Stage, path: &str, body: &Value, token: &str) -> Value {
    stage.body(&signed(path, &body.to_string(), token, Form::TokenLast, &query()))
}

fn window(from: &str, to: &str) -> Value {
    json!({
        "shopIds": [SHOP], "startDate": from, "endDate": to, "dateType": "1", "pageNum": 1, "pageSize": 10,
    })
}

#[test]
fn pages_hold_every_order_of_the_window_once() {
    let mut stage = Stage::open(Keruyun, 45);
    let token = token(&mut stage);
    let mut asked = window("2026-01-01 11:20:00", "2026-01-03 11:20:00");
    let mut found = Vec::new();
    for number in 1..=5 {
        asked["pageNum"] = json!(number);
        let body = ask(&mut stage, LIST, &asked, &token);
        let data = &body["result"]["data"];
        assert_eq!(
            (&data["totalPage"], &data["pageNo"]),
            (&json!("5"), &json!(number.to_string())),
            "{body}"
        );
        found.extend(data["list"].as_array().unwrap().iter().map(|order| order["orderId"].clone()));
    }
    assert_eq!(found, stage.records("orders").iter().map(|record| json!(record.id)).collect::<Vec<_>>());
}

#[test]
fn a_window_is_of_the_opening_and_both_its_ends_belong_to_it() {
    let mut stage = Stage::open(Keruyun, 45);
    let token = token(&mut stage);
    let records = stage.records("orders");
    let opened = |at: usize| wall_time(records[at].sale().unwrap().opened_at);
    let body = ask(&mut stage, LIST, &window(&opened(3), &opened(7)), &token);
    let found = body["result"]["data"]["list"].as_array().unwrap();
    let ids: Vec<&str> = found.iter().map(|order| order["orderId"].as_str().unwrap()).collect();
    assert_eq!(ids, records[3..=7].iter().map(|record| record.id.as_str()).collect::<Vec<_>>());
}

#[test]
fn only_the_detail_tells_members_and_dishes() {
    let mut stage = Stage::open(Keruyun, 45);
    let token = token(&mut stage);
    let records = stage.records("orders");
    let of_member = records.iter().find(|record| record.sale().unwrap().guest.is_some()).unwrap();
    let phone = &of_member.sale().unwrap().guest.as_ref().unwrap().phone;
    let body = ask(&mut stage, DETAIL, &json!({"orderId": of_member.id}), &token);
    assert_eq!(body["result"]["data"]["orderBaseVO"]["memberPhone"], json!(phone), "{body}");
    let listed =
        ask(&mut stage, LIST, &window("2026-01-01 11:20:00", "2026-01-03 12:00:00"), &token).to_string();
    assert!(!listed.contains("member") && !listed.contains("itemName"));
    let unknown = ask(&mut stage, DETAIL, &json!({"orderId": "481000000000009999"}), &token);
    assert_eq!((&unknown["code"], &unknown["result"]["success"]), (&json!(0), &json!(false)));
}

#[test]
fn an_order_changes_for_a_while_only() {
    let mut stage = Stage::open(Keruyun, 30);
    let records = stage.records("orders");
    let changed = |stage: &mut Stage, record: &Record| stage.world.change("orders", &record.id, stage.now);
    assert!(!changed(&mut stage, &records[0]));
    let latest = records.last().unwrap();
    stage.now = latest.created_at + ORDERS_CHANGE_WITHIN;
    assert!(changed(&mut stage, latest));
    stage.now += TimeDelta::seconds(1);
    assert!(!changed(&mut stage, latest));
}

#[test]
fn a_member_is_found_by_mobile_and_has_points_and_cards() {
    let mut stage = Stage::open(Keruyun, 5);
    let token = token(&mut stage);
    let record = stage.records("members")[3].clone();
    let member = record.member().unwrap().clone();
    let found = ask(&mut stage, BY_MOBILE, &json!({"mobile": member.phone}), &token);
    assert_eq!(found["result"]["data"]["customerId"], json!(record.id), "{found}");
    let asked = json!({"customerId": record.id, "shopId": SHOP});
    let cards = &ask(&mut stage, PROPERTY, &asked, &token)["result"]["data"];
    assert_eq!(cards["pointAccountDTO"]["remainAvailableValue"], json!(member.points));
    let accounts = cards["posCardDTOList"].as_array().unwrap().iter();
    let accounts = accounts.flat_map(|card| card["posRechargeAccountList"].as_array().unwrap());
    let fen = accounts.map(|account| account["remainAvailableValue"]["totalValue"].as_i64().unwrap());
    assert_eq!(fen.sum::<i64>(), member.balance);

    let nobody = ask(&mut stage, BY_MOBILE, &json!({"mobile": "13800000000"}), &token);
    assert_eq!(nobody["result"], json!({"success": true, "data": null}));
    let nobody = ask(&mut stage, PROPERTY, &json!({"customerId": "1", "shopId": SHOP}), &token);
    assert_eq!(nobody["result"]["success"], false);
    for wrong in [json!({"customerId": record.id}), json!({"customerId": record.id, "shopId": "1"})] {
        assert_eq!(ask(&mut stage, PROPERTY, &wrong, &token)["code"], 1000);
    }
    assert_eq!(ask(&mut stage, BY_MOBILE, &json!({"mobile": member.phone, "x": 1}), &token)["code"], 1000);
}

#[test]
fn every_signed_byte_counts() {
    let mut stage = Stage::open(Keruyun, 3);
    let token = token(&mut stage);
    let body = window("2026-01-01 00:00:00", "2026-01-03 12:00:00").to_string();
    let right = signed(LIST, &body, &token, Form::TokenLast, &query());
    assert_eq!(stage.body(&right)["code"], 0);
    let inside = signed(LIST, &body, &token, Form::TokenInside, &with(&query(), "token", &token));
    assert_eq!(stage.body(&inside)["code"], 0);
    for (name, value) in right.query_pairs() {
        let wrong = post_json(LIST, &with(&right.query_pairs(), &name, &flipped(&value)), &body);
        assert_eq!(stage.body(&wrong)["code"], NOT_LET_IN, "{name}");
    }
    let wrong = post_json(LIST, &right.query_pairs(), &body.replace("00:00:00", "00:00:01"));
    assert_eq!(stage.body(&wrong)["code"], NOT_LET_IN);
    let call = bare("GET", "/open/v1/token/get", &with(&query(), "sign", "another"));
    assert_eq!(stage.body(&call)["code"], NOT_LET_IN);
    stage.now += TOKEN_LIFETIME;
    assert_eq!(stage.body(&right)["code"], NOT_LET_IN, "the token has ended");
}

#[test]
fn what_the_clients_do_not_send_is_refused() {
    let mut stage = Stage::open(Keruyun, 3);
    let token = token(&mut stage);
    let right = window("2026-01-01 00:00:00", "2026-01-03 12:00:00");
    let changes = [
        ("pageSize", json!(101)),
        ("pageNum", json!(0)),
        ("startDate", json!("2026-01-01")),
        ("startDate", json!(1_767_225_600_000_u64)),
        ("endDate", json!("2025-01-01 00:00:00")),
        ("shopIds", json!(["810094163"])),
        ("dateType", json!("2")),
        ("page", json!(1)),
    ];
    for (name, value) in changes {
        let mut wrong = right.clone();
        wrong[name] = value;
        assert_eq!(ask(&mut stage, LIST, &wrong, &token)["code"], 1000, "{wrong}");
    }
    for name in ["shopIds", "startDate", "endDate", "dateType"] {
        let mut wrong = right.clone();
        wrong.as_object_mut().unwrap().remove(name);
        assert_eq!(ask(&mut stage, LIST, &wrong, &token)["code"], 1000, "{wrong}");
    }
    let body = right.to_string();
    for query in [with(&query(), "lang", "zh"), with(&query(), "timestamp", "1767412800000")] {
        let wrong = signed(LIST, &body, &token, Form::TokenLast, &query);
        assert_eq!(stage.body(&wrong)["code"], 1000);
    }
    let brand = with(&without(&query(), "shopIdenty"), "brandId", "32296");
    let wrong = signed(LIST, &body, &token, Form::TokenLast, &brand);
    assert_eq!(stage.body(&wrong)["code"], NOT_LET_IN, "orders are of a shop");
    assert_eq!(stage.rejected(), 14);
}
