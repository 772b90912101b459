//! Aoqiwei CRM (奥琦玮), also Acewill (微生活): members, looked up one by one, every call signed. From what an
//! integration and an independent client tell; the one call here was tried against the vendor.
//!
//! There is no list of members. A number that nobody has is an error of the vendor's own kind, and shows
//! that the call was let in. The numbers of errors are a guess.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use super::china::{Asked, seconds};
use crate::WebhookTarget;
use crate::vendor::{
    Delivery, Event, Mistake, Page, Parameters, Reply, Request, Scene, Stream, Tokens, Trouble, Vendor,
};
use crate::verify::aoqiwei_crm::request as signature;
use crate::world::{Currency, Member, Record, Shop, What};

/// Who asks; not a secret.
const APPID: &str = "dp_simulated";

/// Its one list, of which every page holds the one member that was asked for.
const STREAMS: &[Stream] = &[Stream { name: "members", what: What::Members, deletes: false }];

/// The vendor.
pub(super) struct AoqiweiCrm;

impl Vendor for AoqiweiCrm {
    fn name(&self) -> &'static str {
        "aoqiwei-crm"
    }

    fn system_type(&self) -> &'static str {
        "member"
    }

    fn streams(&self) -> &'static [Stream] {
        STREAMS
    }

    fn shops(&self) -> Vec<Shop> {
        vec![Shop { id: "1001".into(), name: "解放西路店".into() }]
    }

    fn currency(&self) -> Currency {
        Currency::Cny
    }

    fn resolution(&self) -> TimeDelta {
        TimeDelta::seconds(1)
    }

    fn id(&self, _: &Stream, number: u64) -> String {
        format!("6600{number:012}")
    }

    fn credentials(&self, tokens: &Tokens) -> BTreeMap<String, String> {
        BTreeMap::from([("appkey".to_owned(), tokens.key("appkey"))])
    }

    fn config(&self) -> Map<String, Value> {
        Map::from_iter([("appid".to_owned(), Value::from(APPID))])
    }

    fn admit(&self, request: &Request, scene: &mut Scene<'_>) -> Result<(), Reply> {
        // The document wants multipart, and what was tried was the other form: both are taken.
        let asked = Asked::of_any_form(request);
        if !asked.says("appid", APPID) {
            return Err(scene.refused(failed(1001, "appid不存在")));
        }
        match signature(&asked.arrived(), &scene.tokens().key("appkey")) {
            Some(right) if asked.says("sig", &right) => Ok(()),
            _ => Err(scene.refused(failed(1002, "签名错误"))),
        }
    }

    fn answer(&self, request: &Request, scene: &mut Scene<'_>) -> Reply {
        let answered = match request.route() {
            ("POST", "/user/accountBasicsInfo") => member(request, scene),
            _ => return scene.rejected(Reply::status(404, json!({"status": 404, "error": "Not Found"}))),
        };
        match answered {
            Ok(Some(member)) => Reply::ok(json!({"errcode": 0, "errmsg": "OK", "res": member})),
            Ok(None) => failed(1004, "会员不存在"),
            Err(mistake) => scene.rejected(failed(1003, &format!("参数错误: {mistake}"))),
        }
    }

    fn trouble(&self, trouble: Trouble) -> Reply {
        match trouble {
            // Not documented: what stands before the vendor's host would say it so.
            Trouble::TooManyRequests { retry_after_secs } => {
                let reply = Reply { status: 429, ..failed(429, "请求过于频繁") };
                reply.header("Retry-After", retry_after_secs.to_string())
            }
            Trouble::Broken => Reply { status: 500, ..failed(500, "系统异常") },
        }
    }

    /// None is documented.
    fn webhook(&self, _: &Event, _: &WebhookTarget) -> Option<Delivery> {
        None
    }
}

fn failed(code: u16, message: &str) -> Reply {
    Reply::ok(json!({"errcode": code, "errmsg": message}))
}

/// The member that is asked for, by exactly one of three names.
fn member(request: &Request, scene: &mut Scene<'_>) -> Result<Option<Value>, Mistake> {
    let mut asked = parameters(request)?;
    let (card, mobile) = (asked.text("cno")?, asked.text("mobile")?);
    let openid = asked.text("openid")?;
    asked.text("shop_id")?;
    asked.finish()?;
    if [&card, &mobile, &openid].iter().filter(|one| one.is_some()).count() != 1 {
        return Err(Mistake::new("req", "names not exactly one of cno, mobile and openid"));
    }
    let is_asked_for = |record: &&Record| {
        let phone = record.member().map(|member| &member.phone);
        // Nobody here has signed up through WeChat.
        card.as_ref() == Some(&record.id) || mobile.is_some() && mobile.as_ref() == phone
    };
    let records: Vec<Record> =
        scene.world.records("members").find(is_asked_for).cloned().into_iter().collect();
    let listed = scene.list("members", Page { records, more: false, ordered: true });
    Ok(listed.first().and_then(basics))
}

/// What is asked, which is the JSON in `req`.
fn parameters(request: &Request) -> Result<Parameters, Mistake> {
    if !request.query.is_empty() {
        return Err(Mistake::new("query", "is not empty"));
    }
    let mut form = Asked::of_any_form(request).parameters()?;
    for name in ["appid", "sig"] {
        form.needed(name)?;
    }
    form.only("v", &["2.0"])?.ok_or_else(|| Mistake::new("v", "is missing"))?;
    form.only("fmt", &["JSON"])?.ok_or_else(|| Mistake::new("fmt", "is missing"))?;
    seconds(&mut form, "ts")?;
    let asked = form.needed("req")?;
    form.finish()?;
    Parameters::of_json(serde_json::from_str(&asked).ok())
}

/// A member; `None` of what is none. The balance is whole fen.
fn basics(record: &Record) -> Option<Value> {
    let member = record.member()?;
    Some(json!({
        "cno": record.id,
        "name": format!("{} {}", member.given_name, member.family_name),
        "sex": record.number % 2 + 1,
        "birthday": "1990-05-01",
        "mobile": member.phone,
        "balance": member.balance,
        "credit": member.points,
        "level": level(member),
    }))
}

const fn level(member: &Member) -> &'static str {
    if member.points >= 1000 { "金卡" } else { "银卡" }
}

#[cfg(test)]
mod tests {
    use super::super::stage::{Pairs, Stage, form, pairs, with, without};
    use super::*;
    use crate::verify::testing::flipped;

    const PATH: &str = "/user/accountBasicsInfo";

    fn fields(req: &Value) -> Pairs {
        let fixed = pairs(&[("appid", APPID), ("v", "2.0"), ("ts", "1767412800"), ("fmt", "JSON")]);
        with(&fixed, "req", &req.to_string())
    }

    fn signed(fields: &[(String, String)]) -> Request {
        let request = form(PATH, fields);
        let sig = signature(&Asked::of(&request).arrived(), "simulated-appkey").unwrap();
        form(PATH, &with(fields, "sig", &sig))
    }

    #[test]
    fn a_member_is_found_by_mobile_or_card_and_by_nothing_else() {
        let mut stage = Stage::open(AoqiweiCrm, 5);
        let record = stage.records("members")[3].clone();
        let member = record.member().unwrap().clone();
        for asked in [json!({"mobile": member.phone, "shop_id": "1001"}), json!({"cno": record.id})] {
            let body = stage.body(&signed(&fields(&asked)));
            assert_eq!((&body["errcode"], &body["res"]["cno"]), (&json!(0), &json!(record.id)), "{body}");
            assert_eq!(
                (&body["res"]["balance"], &body["res"]["credit"]),
                (&json!(member.balance), &json!(member.points))
            );
        }
        for asked in [json!({"mobile": "13800000000"}), json!({"cno": "1"}), json!({"openid": "o-1"})] {
            let body = stage.body(&signed(&fields(&asked)));
            assert_eq!(body, json!({"errcode": 1004, "errmsg": "会员不存在"}));
        }
        assert_eq!(stage.counters.pages, 5);
    }

    #[test]
    fn the_form_may_be_multipart() {
        let mut stage = Stage::open(AoqiweiCrm, 1);
        let right = signed(&fields(&json!({"mobile": "13800000001"})));
        let part = |(name, value): &(String, String)| {
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let parts: String = right.form_pairs().iter().map(part).collect();
        let headers = pairs(&[("content-type", "multipart/form-data; boundary=b")]);
        let body = format!("{parts}--b--\r\n").into();
        assert_eq!(stage.body(&Request { headers, body, ..right })["errcode"], 0);
    }

    #[test]
    fn every_signed_byte_counts() {
        let mut stage = Stage::open(AoqiweiCrm, 1);
        let right = signed(&fields(&json!({"mobile": "13800000001"})));
        assert_eq!(stage.body(&right)["errcode"], 0);
        for name in ["appid", "v", "ts", "sig"] {
            let value = Asked::of(&right).value(name).unwrap().to_owned();
            let wrong = form(PATH, &with(&right.form_pairs(), name, &flipped(&value)));
            let code = if name == "appid" { 1001 } else { 1002 };
            assert_eq!(stage.body(&wrong)["errcode"], code, "{name}");
        }
        let wrong = form(PATH, &with(&right.form_pairs(), "req", r#"{"mobile":"13800000002"}"#));
        assert_eq!(stage.body(&wrong)["errcode"], 1002);
        assert_eq!(stage.counters.refused, 5);
    }

    #[test]
    fn what_is_not_documented_is_refused() {
        let mut stage = Stage::open(AoqiweiCrm, 1);
        let right = fields(&json!({"mobile": "13800000001"}));
        let wrong = [
            fields(&json!({})),
            fields(&json!({"mobile": "13800000001", "cno": "1"})),
            fields(&json!({"mobile": 13_800_000_001_u64})),
            fields(&json!({"mobile": "13800000001", "page": 1})),
            with(&right, "fmt", "XML"),
            with(&right, "v", "1.0"),
            with(&right, "ts", "1767412800000"),
            with(&right, "lang", "zh"),
            without(&right, "fmt"),
            without(&right, "req"),
            [right.clone(), pairs(&[("fmt", "JSON")])].concat(),
        ];
        for fields in &wrong {
            assert_eq!(stage.body(&signed(fields))["errcode"], 1003, "{fields:?}");
        }
        assert_eq!(stage.rejected(), 11);
    }
}
