//! The signature of Pinzhi: MD5 over the sorted parameters, the token behind them.
//!
//! The pages are sent and take no part. The vendor's document and the code that three chains have
//! run differ twice: in capitals, and on whether empty values take part. Both can be asked for.

use serde_json::{Map, Value};

use super::{Arrived, joined, md5_hex, sorted};

/// What takes no part in the signature. The document names `token` too, which this rule appends.
const UNSIGNED: [&str; 4] = ["sign", "pageIndex", "pageSize", "token"];

/// Where the sources differ; the default is what was seen to work.
#[derive(Debug, Clone, Copy, Default)]
pub struct Variant {
    /// The signature is written in capitals.
    pub upper_case: bool,
    /// Empty values take no part.
    pub drop_empty: bool,
}

/// What the parameter `sign` of a request should say.
#[must_use]
pub fn request(request: &Arrived<'_>, token: &str, variant: Variant) -> String {
    signed(request.parameters(), token, variant)
}

/// What the member `sign` of a webhook's body should say: the same rule over the members that are
/// no lists and no objects, whose text the sources leave open.
#[must_use]
pub fn webhook(body: &Map<String, Value>, token: &str) -> String {
    let texts: Vec<(&str, String)> = body
        .iter()
        .filter_map(|(name, value)| match value {
            Value::String(text) => Some((name.as_str(), text.clone())),
            Value::Number(_) | Value::Bool(_) => Some((name.as_str(), value.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        })
        .collect();
    let parameters = texts.iter().map(|(name, text)| (*name, text.as_str()));
    signed(parameters, token, Variant::default())
}

fn signed<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>, token: &str, variant: Variant) -> String {
    let signed = parameters
        .filter(|(name, _)| !UNSIGNED.contains(name))
        .filter(|(_, value)| !(variant.drop_empty && value.is_empty()));
    // Without parameters the text begins with `&`, as documented.
    let signature = md5_hex(format!("{}&token={token}", joined(&sorted(signed))));
    if variant.upper_case { signature.to_uppercase() } else { signature }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{each_flipped, flipped, pairs};
    use super::*;

    const TOKEN: &str = "tok_test_9f2c";

    fn sign(query: &[(String, String)], form: &[(String, String)], variant: Variant) -> String {
        let arrived =
            Arrived { method: "POST", url: "http://till/pinzhi/orderNew.do", query, form, body: b"" };
        request(&arrived, TOKEN, variant)
    }

    #[test]
    fn every_signed_byte_counts_and_the_pages_do_not() {
        let form = pairs(&[
            ("ognid", "12345"),
            ("businessDate", "2026-03-19"),
            ("pageIndex", "1"),
            ("pageSize", "100"),
            ("sign", "whatever"),
        ]);
        let right = "692d5bdd6929e3f067d41a7d41bccde4";
        assert_eq!(sign(&[], &form, Variant::default()), right);
        assert_eq!(sign(&form, &[], Variant::default()), right, "the query counts as the form does");
        for (name, changed) in each_flipped(&form) {
            let signed = !["pageIndex", "pageSize", "sign"].contains(&name.as_str());
            assert_eq!(sign(&[], &changed, Variant::default()) != right, signed, "{name}");
        }
        let other = Arrived { method: "GET", url: "", query: &form, form: &[], body: b"" };
        assert_ne!(request(&other, &flipped(TOKEN), Variant::default()), right);
    }

    #[test]
    fn the_two_doubts_can_be_chosen() {
        let form = pairs(&[("businessDate", "2026-03-19"), ("keyword", ""), ("ognid", "12345")]);
        let empty_signed = "810c4e905722e5b18de2fb5ce0567b0d";
        assert_eq!(sign(&[], &form, Variant::default()), empty_signed);
        let upper = Variant { upper_case: true, ..Variant::default() };
        assert_eq!(sign(&[], &form, upper), empty_signed.to_uppercase());
        let dropped = Variant { drop_empty: true, ..Variant::default() };
        assert_eq!(sign(&[], &form, dropped), "692d5bdd6929e3f067d41a7d41bccde4");
    }

    #[test]
    fn lists_of_a_webhook_take_no_part() {
        let body = serde_json::json!({
            "realPrice": 9900, "billId": "PZ001", "billStatus": 1, "vipCard": null, "dishList": [{"dishId": "D1"}],
        });
        let body = body.as_object().expect("an object");
        assert_eq!(webhook(body, "test_token_abc"), "7a194daef5a4e9d0c9029d95bbd1fdb8");
    }
}
