//! Keruyun (客如云), a till: the orders of one shop, and members looked up one by one. From two public clients
//! of its open platform; its documents are not public.
//!
//! A token is asked for with the secret and is never sent again: it signs. Here stands what all calls have in
//! common. Not known, so guessed: which number an error has besides the range of those about tokens and
//! signatures, and how long a token is good.

mod members;
mod orders;

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use super::china::{Asked, seconds};
use crate::WebhookTarget;
use crate::vendor::{
    Delivery, Event, Mistake, Parameters, Reply, Request, Scene, Stream, Tokens, Trouble, Vendor,
};
use crate::verify::keruyun::{Form, call, token_call};
use crate::world::{Currency, Shop, What};

/// How long a token is good. Clients keep it until it is refused.
const TOKEN_LIFETIME: TimeDelta = TimeDelta::hours(24);

/// How long after the end of a meal its order is still corrected, voided or paid back.
const ORDERS_CHANGE_WITHIN: TimeDelta = TimeDelta::minutes(75);

/// The shop, `shopIdenty` and `shopId`.
const SHOP: &str = "810094162";

/// The number of an error about a token or a signature; all from 100 to 108 are.
const NOT_LET_IN: u16 = 100;

/// Its list of orders, and its members, of whom a page holds the one that was asked for.
const STREAMS: &[Stream] = &[
    Stream { name: "orders", what: What::Sales, deletes: false },
    Stream { name: "members", what: What::Members, deletes: false },
];

/// The vendor.
pub(super) struct Keruyun;

impl Vendor for Keruyun {
    fn name(&self) -> &'static str {
        "keruyun"
    }

    fn system_type(&self) -> &'static str {
        "pos"
    }

    fn streams(&self) -> &'static [Stream] {
        STREAMS
    }

    fn shops(&self) -> Vec<Shop> {
        vec![Shop { id: SHOP.into(), name: "春熙路店".into() }]
    }

    fn currency(&self) -> Currency {
        Currency::Cny
    }

    fn resolution(&self) -> TimeDelta {
        TimeDelta::seconds(1)
    }

    fn id(&self, stream: &Stream, number: u64) -> String {
        match stream.what {
            What::Members => customer_id(number),
            _ => format!("481{number:015}"),
        }
    }

    /// Orders are listed by the time when they were opened, so what changes much later is in no list.
    fn changes_within(&self) -> Option<TimeDelta> {
        Some(ORDERS_CHANGE_WITHIN)
    }

    fn credentials(&self, tokens: &Tokens) -> BTreeMap<String, String> {
        let key = |name: &str| (name.to_owned(), tokens.key(name));
        BTreeMap::from([key("app_key"), key("secret_key")])
    }

    fn config(&self) -> Map<String, Value> {
        Map::from_iter([("shop".to_owned(), Value::from(SHOP))])
    }

    /// An order that was paid back is in another state.
    fn refund_is_a_state(&self) -> bool {
        true
    }

    fn gives_tokens(&self) -> bool {
        true
    }

    fn admit(&self, request: &Request, scene: &mut Scene<'_>) -> Result<(), Reply> {
        let (asked, uuid) = (Asked::of(request), uuid(scene));
        let for_token = request.path == "/open/v1/token/get";
        let signed = |right: Option<String>| right.is_some_and(|right| asked.says("sign", &right));
        let known = asked.says("appKey", &scene.tokens().key("app_key")) && asked.says("shopIdenty", SHOP);
        let right = if for_token {
            signed(token_call(&asked.arrived(), &scene.tokens().key("secret_key")))
        } else {
            // The two clients sign in two ways, and both are said to work.
            let forms = [Form::TokenLast, Form::TokenInside];
            let mut good = scene.tokens().good(scene.now);
            good.any(|token| forms.iter().any(|form| signed(call(&asked.arrived(), token, *form))))
        };
        if !known || !right {
            return Err(scene.refused(failed(NOT_LET_IN, "token or sign is invalid", &uuid)));
        }
        if for_token { Err(token(request, scene, &uuid)) } else { Ok(()) }
    }

    fn answer(&self, request: &Request, scene: &mut Scene<'_>) -> Reply {
        let uuid = uuid(scene);
        let answered = match request.route() {
            ("POST", "/open/standard/order/queryList") => orders::list(request, scene),
            ("POST", "/open/standard/order/queryDetail") => orders::detail(request, scene),
            ("POST", "/open/standard/crm/CustomerOpenFacade/queryByMobile") => members::find(request, scene),
            ("POST", "/open/standard/crm/CustomerOpenFacade/queryCustomerProperty") => {
                members::property(request, scene)
            }
            _ => return scene.rejected(Reply::status(404, json!({"status": 404, "error": "Not Found"}))),
        };
        match answered {
            Ok(result) => succeeded(&result, &uuid),
            Err(mistake) => scene.rejected(failed(1000, &format!("param error: {mistake}"), &uuid)),
        }
    }

    fn trouble(&self, trouble: Trouble) -> Reply {
        match trouble {
            // Not documented: what stands before the vendor's host would say it so.
            Trouble::TooManyRequests { retry_after_secs } => {
                let reply = Reply { status: 429, ..failed(429, "too many requests", "0") };
                reply.header("Retry-After", retry_after_secs.to_string())
            }
            Trouble::Broken => Reply { status: 500, ..failed(500, "system error", "0") },
        }
    }

    /// None is documented.
    fn webhook(&self, _: &Event, _: &WebhookTarget) -> Option<Delivery> {
        None
    }
}

/// What every answer is called.
fn uuid(scene: &Scene<'_>) -> String {
    format!("{:032x}", scene.counters.requests)
}

fn failed(code: u16, message: &str, uuid: &str) -> Reply {
    Reply::ok(json!({"code": code, "message": message, "messageUuid": uuid, "result": null}))
}

fn succeeded(result: &Value, uuid: &str) -> Reply {
    Reply::ok(json!({"code": 0, "message": "OK", "messageUuid": uuid, "result": result}))
}

/// The number of a member, as orders tell it too.
fn customer_id(number: u64) -> String {
    format!("7{number:09}")
}

/// Takes the members of a call's body. What every call has stands in the query, and nothing else.
fn parameters(request: &Request) -> Result<Parameters, Mistake> {
    common(request)?;
    Parameters::of_json(request.json())
}

fn common(request: &Request) -> Result<(), Mistake> {
    let mut asked = Parameters::of_pairs(request.query_pairs())?;
    for name in ["appKey", "shopIdenty", "sign"] {
        asked.needed(name)?;
    }
    seconds(&mut asked, "timestamp")?;
    asked.only("version", &["2.0"])?;
    // One of the two clients sends it, though it is signed with.
    asked.text("token")?;
    asked.finish()
}

fn token(request: &Request, scene: &mut Scene<'_>, uuid: &str) -> Reply {
    let understood = match common(request) {
        Ok(()) if request.method == "GET" => Ok(()),
        Ok(()) => Err(Mistake::new("method", "is not GET")),
        Err(mistake) => Err(mistake),
    };
    match understood {
        Ok(()) => succeeded(&json!({"token": scene.give_token(TOKEN_LIFETIME, false)}), uuid),
        Err(mistake) => scene.refused(failed(1000, &format!("param error: {mistake}"), uuid)),
    }
}

#[cfg(test)]
mod tests;
