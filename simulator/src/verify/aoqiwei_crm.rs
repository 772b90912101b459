//! The signature of Aoqiwei's members (Acewill): MD5 over a query as PHP writes it.
//!
//! What is asked stands in the form's `req` as JSON. It is put in order at every level, written by
//! the rules of PHP's `http_build_query` (RFC 1738), and four parameters follow in a fixed order, of
//! which `appkey` is the secret that is never sent.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Arrived, md5_hex};

/// What the form's `sig` should say; `None` where `req` is no JSON object or a parameter is missing.
#[must_use]
pub fn request(request: &Arrived<'_>, appkey: &str) -> Option<String> {
    let asked = match request.parameter("req") {
        Some(text) => serde_json::from_str(text).ok()?,
        // Left out where there is nothing to say.
        None => Map::new(),
    };
    let (appid, v, ts) = (request.parameter("appid")?, request.parameter("v")?, request.parameter("ts")?);
    let query = php_query(&asked);
    Some(md5_hex(format!("{query}&appid={appid}&appkey={appkey}&v={v}&ts={ts}")))
}

/// `http_build_query` after `ksort` at every level.
fn php_query(asked: &Map<String, Value>) -> String {
    let mut leaves = Vec::new();
    for (name, value) in by_name(asked) {
        collect(&encoded(name), value, &mut leaves);
    }
    leaves.join("&")
}

/// Adds `name=value` for every plain value below, with the way to it in brackets.
fn collect(name: &str, value: &Value, leaves: &mut Vec<String>) {
    match value {
        Value::Null => {}
        // The document leaves empty texts out; PHP itself would write `name=`.
        Value::String(text) if text.is_empty() => {}
        Value::String(text) => leaves.push(format!("{name}={}", encoded(text))),
        Value::Bool(yes) => leaves.push(format!("{name}={}", u8::from(*yes))),
        Value::Number(number) => leaves.push(format!("{name}={}", encoded(&number.to_string()))),
        Value::Array(list) => {
            for (at, element) in list.iter().enumerate() {
                collect(&format!("{name}%5B{at}%5D"), element, leaves);
            }
        }
        Value::Object(members) => {
            for (inner, element) in by_name(members) {
                collect(&format!("{name}%5B{}%5D", encoded(inner)), element, leaves);
            }
        }
    }
}

/// The members in the order of their names, whatever order the map keeps.
fn by_name(members: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_unstable_by_key(|(name, _)| *name);
    members
}

/// PHP's `urlencode`: letters, digits, `-`, `_` and `.` stay, a space is `+`, all else is `%XX`.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => encoded.push(char::from(byte)),
            b' ' => encoded.push('+'),
            _ => write!(encoded, "%{byte:02X}").expect("writing to a text never fails"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::super::testing::{each_flipped, flipped, pairs};
    use super::*;

    const KEY: &str = "key_demo";

    fn sign(form: &[(String, String)], appkey: &str) -> Option<String> {
        let url = "https://api.acewill.net/user/accountBasicsInfo";
        request(&Arrived { method: "POST", url, query: &[], form, body: b"" }, appkey)
    }

    fn form(req: &str) -> Vec<(String, String)> {
        pairs(&[("req", req), ("appid", "dp_demo"), ("v", "2.0"), ("ts", "1767225600")])
    }

    #[test]
    fn every_signed_byte_counts() {
        let form = form(r#"{"shop_id":"1001","mobile":"13800000000"}"#);
        let right = Some("cde0612a5d54c49725260136e1d64ec9".to_owned());
        assert_eq!(sign(&form, KEY), right);
        for (name, changed) in each_flipped(&form) {
            assert_ne!(sign(&changed, KEY), right, "{name}");
        }
        assert_ne!(sign(&form, &flipped(KEY)), right);
        let other = [pairs(&[("req", r#"{"shop_id":"1002","mobile":"13800000000"}"#)]), form[1..].to_vec()];
        assert_ne!(sign(&other.concat(), KEY), right);
    }

    #[test]
    fn nothing_asked_begins_with_the_ampersand() {
        let right = Some("e979de5839f9efb1efe67ab26d3fcbae".to_owned());
        assert_eq!(sign(&form("{}"), KEY), right);
        assert_eq!(sign(&form("{}")[1..], KEY), right, "without any `req`");
        assert_eq!(sign(&form("[1]"), KEY), None, "a list has no names");
    }

    #[test]
    fn what_php_writes_is_written() {
        let asked = serde_json::json!({
            "b": [{"z": true, "a": "~x y"}, false], "a": {"k[]": 1.50, "empty": "", "null": null}, "A": "宫",
        });
        let asked = asked.as_object().expect("an object");
        assert_eq!(
            php_query(asked),
            "A=%E5%AE%AB&a%5Bk%5B%5D%5D=1.5&b%5B0%5D%5Ba%5D=%7Ex+y&b%5B0%5D%5Bz%5D=1&b%5B1%5D=0"
        );
    }
}
