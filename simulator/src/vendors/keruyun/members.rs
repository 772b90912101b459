//! The members of Keruyun, looked up by mobile number, and what is on their cards.
//!
//! What is answered for a number that nobody has is not known; here it is a success without data.

use serde_json::{Value, json};

use super::{SHOP, parameters};
use crate::vendor::{Mistake, Page, Request, Scene};
use crate::world::{Member, Record};

/// The member with a mobile number.
pub(super) fn find(request: &Request, scene: &mut Scene<'_>) -> Result<Value, Mistake> {
    let mut asked = parameters(request)?;
    let mobile = asked.needed("mobile")?;
    asked.finish()?;
    let has = |record: &&Record| record.member().is_some_and(|member| member.phone == mobile);
    let records: Vec<Record> = scene.world.records("members").find(has).cloned().into_iter().collect();
    let listed = scene.list("members", Page { records, more: false, ordered: true });
    Ok(json!({"success": true, "data": listed.first().and_then(customer)}))
}

/// Points and balances of a member.
pub(super) fn property(request: &Request, scene: &Scene<'_>) -> Result<Value, Mistake> {
    let mut asked = parameters(request)?;
    let customer = asked.needed("customerId")?;
    asked.only("shopId", &[SHOP])?.ok_or_else(|| Mistake::new("shopId", "is missing"))?;
    asked.finish()?;
    let found = scene.world.record("members", &customer).and_then(Record::member);
    Ok(match found {
        Some(member) => json!({"success": true, "data": on_cards(member)}),
        None => json!({"success": false, "message": "会员不存在", "data": null}),
    })
}

/// A member; `None` of what is none.
fn customer(record: &Record) -> Option<Value> {
    let member = record.member()?;
    let golden = member.points >= 1000;
    Some(json!({
        "customerId": record.id,
        "mobile": member.phone,
        "name": format!("{} {}", member.given_name, member.family_name),
        "gender": record.number % 2,
        "levelDTO": {"levelName": if golden { "金卡" } else { "银卡" }, "levelNo": if golden { "2" } else { "1" }},
        "state": 1,
    }))
}

/// What a member has: fen on several cards and accounts, and points.
fn on_cards(member: &Member) -> Value {
    let account = |fen: i64| json!({"remainAvailableValue": {"totalValue": fen}});
    let (first, second) = (member.balance / 2, member.balance / 3);
    let third = member.balance - first - second;
    json!({
        "posCardDTOList": [
            {"posRechargeAccountList": [account(first), account(second)]},
            {"posRechargeAccountList": [account(third)]},
            {"posRechargeAccountList": []},
        ],
        "pointAccountDTO": {"remainAvailableValue": member.points},
    })
}
