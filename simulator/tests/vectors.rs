//! Every known signature of a vendor, made anew by the rules that the simulated vendors verify with.
//!
//! The client and the receiver are tested against the same two files; so both sides, which share no
//! code, agree with the same numbers. A vector that no rule here makes fails the test, unless it is
//! left out below with the reason.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};
use zhilian_sync_simulator::verify::{
    Arrived, aoqiwei_crm, aoqiwei_scm, decode, keruyun, meituan, pinzhi, webhooks,
};

type Pairs = Vec<(String, String)>;

/// Vectors that no simulated vendor needs, and why.
const LEFT_OUT: [(&str, &str); 8] = [
    ("keruyun-zhilian", "a guess at another interface; no manifest speaks it"),
    ("meituan-zhilian", "a guess at another interface; no manifest speaks it"),
    ("tiancai-zhilian-2", "a guess at another interface; no manifest speaks it"),
    ("demo-till", "the demo's own till, which signs for itself"),
    ("demo-till-two-signatures", "the demo's own till, which signs for itself"),
    ("generic-sha512-base64", "a choice of the receiver's, of no vendor"),
    ("generic-static-code", "a code, no signature"),
    ("generic-url-secret", "a code, no signature"),
];

#[test]
fn every_vector_of_a_request_is_made_anew() {
    check("request_vectors.json", |vector| {
        let inputs = &vector["inputs"];
        Some(match (text(&vector["vendor"]), text(&vector["id"])) {
            ("pinzhi", _) => {
                let form = pairs(&inputs["params"]);
                pinzhi::request(&post(&form), text(&inputs["token"]), pinzhi::Variant::default())
            }
            ("aoqiwei-scm", _) => {
                let form = pairs(&inputs["params"]);
                aoqiwei_scm::request(&post(&form), text(&inputs["appsecret"]))
            }
            ("aoqiwei-crm", _) => {
                let mut form = vec![("req".to_owned(), inputs["req"].to_string())];
                form.extend(
                    ["appid", "v", "ts"].map(|name| (name.to_owned(), text(&inputs[name]).to_owned())),
                );
                aoqiwei_crm::request(&post(&form), text(&inputs["appkey"]))?
            }
            ("keruyun", "keruyun-zhilian") => return None,
            ("keruyun", _) => keruyun_sign(inputs)?,
            ("meituan", "meituan-catering" | "meituan-delivery-published") => {
                let form = pairs(&inputs["params"]);
                meituan::cater(&post(&form), text(&inputs["secret"]))
            }
            ("meituan", id) if id.starts_with("meituan-waimai-") => {
                let query = pairs(&inputs["params"]);
                let url = text(&inputs["url"]);
                let arrived = Arrived { method: "GET", url, query: &query, form: &[], body: b"" };
                meituan::waimai(&arrived, text(&inputs["secret"]))
            }
            _ => return None,
        })
    });
}

fn keruyun_sign(inputs: &Value) -> Option<String> {
    let named = inputs.as_object()?.iter().filter(|(name, _)| {
        ["appKey", "shopIdenty", "brandId", "timestamp", "version"].contains(&name.as_str())
    });
    let query: Pairs = named.map(|(name, value)| (name.clone(), text(value).to_owned())).collect();
    let Some(token) = inputs["token"].as_str() else {
        let arrived = Arrived { method: "GET", url: "", query: &query, form: &[], body: b"" };
        return keruyun::token_call(&arrived, text(&inputs["secretKey"]));
    };
    let form = if text(&inputs["variant"]).starts_with("Python") {
        keruyun::Form::TokenInside
    } else {
        keruyun::Form::TokenLast
    };
    let body = text(&inputs["body"]).as_bytes();
    keruyun::call(&Arrived { method: "POST", url: "", query: &query, form: &[], body }, token, form)
}

#[test]
fn every_vector_of_a_webhook_is_made_anew() {
    check("webhook_vectors.json", |vector| {
        let (secret, url) = (text(&vector["secret"]), text(&vector["url"]));
        let body = text(&vector["body"]).as_bytes();
        Some(match (text(&vector["provider"]), text(&vector["id"])) {
            ("pinzhi", _) => pinzhi::webhook(&serde_json::from_slice(body).ok()?, secret),
            ("meituan-waimai", _) => meituan::waimai(&Arrived { url, ..post(&decode(body)) }, secret),
            ("meituan-delivery", _) => meituan::cater(&post(&decode(body)), secret),
            ("square", _) => webhooks::square(secret, url, body),
            ("shopify", _) => webhooks::shopify(secret, body),
            ("loyverse", "loyverse-computed-hex") => {
                webhooks::loyverse(secret, body, webhooks::LoyverseForm::Hex)
            }
            ("loyverse", _) => webhooks::loyverse(secret, body, webhooks::LoyverseForm::Base64),
            ("standard", _) => standard(vector, secret, body)?,
            ("github", _) | (_, "meituan-reservation-zhilian" | "zhilian-pos-webhook") => {
                webhooks::github(secret, body)
            }
            (_, "aoqiwei-webhook-md5") => aoqiwei_scm::webhook_md5(body, secret),
            (_, "aoqiwei-webhook-hmac") => aoqiwei_scm::webhook_hmac(body, secret),
            _ => return None,
        })
    });
}

/// Standard Webhooks goes by two names for the same headers.
fn standard(vector: &Value, secret: &str, body: &[u8]) -> Option<String> {
    let headers = &vector["headers"];
    let prefix = if headers["svix-id"].is_string() { "svix" } else { "webhook" };
    let named = |name: &str| text(&headers[format!("{prefix}-{name}")]);
    webhooks::standard(secret, named("id"), named("timestamp"), body)
}

/// Compares what `sign` makes of each vector with what is known of it.
fn check(file: &str, sign: impl Fn(&Value) -> Option<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../jobs/tests/vendors").join(file);
    let content = std::fs::read_to_string(&path).expect("the vectors of the vendors' tests");
    let vectors: Vec<Value> = serde_json::from_str(&content).expect("a JSON list");
    let left_out: BTreeSet<&str> = LEFT_OUT.iter().map(|(id, _)| *id).collect();
    let mut checked = 0;
    for vector in &vectors {
        let id = text(&vector["id"]);
        match sign(vector) {
            Some(signature) => {
                let known = known(vector);
                // A list of signatures is right if one of them is.
                assert!(known.split(' ').any(|one| one == signature), "{id}: {signature}, not {known}");
                assert!(!left_out.contains(id), "`{id}` is made here and left out too");
                checked += 1;
            }
            None => assert!(left_out.contains(id), "no rule makes `{id}`; write one, or leave it out"),
        }
    }
    assert!(checked >= 15, "only {checked} vectors of `{file}` were checked");
}

/// The signature of a vector: told as such of a request, somewhere in what is sent of a webhook.
fn known(vector: &Value) -> String {
    if let Some(expected) = vector["expected"].as_str() {
        return expected.to_owned();
    }
    let headers = vector["headers"].as_object().expect("headers");
    let signed = headers.iter().find(|(name, _)| {
        let name = name.to_lowercase();
        ["signature", "hmac"].iter().any(|word| name.contains(word))
    });
    if let Some((_, signature)) = signed {
        return text(signature).to_owned();
    }
    let body = text(&vector["body"]);
    if let Ok(members) = serde_json::from_str::<Map<String, Value>>(body) {
        return text(&members["sign"]).to_owned();
    }
    let form = decode(body.as_bytes());
    let signature = form.into_iter().find(|(name, _)| name == "sign" || name == "sig");
    signature.expect("a signature").1
}

fn post(form: &[(String, String)]) -> Arrived<'_> {
    Arrived { method: "POST", url: "", query: &[], form, body: b"" }
}

/// Parameters as a server finds them: what is null was not sent.
fn pairs(params: &Value) -> Pairs {
    let params = params.as_object().expect("parameters");
    let sent = params.iter().filter(|(_, value)| !value.is_null());
    sent.map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
