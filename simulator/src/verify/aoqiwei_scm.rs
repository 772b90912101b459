//! The signatures of Aoqiwei's supply chain: MD5 over the sorted parameters, the secret glued on.
//!
//! Its webhooks are a guess of those who received them first, in two modes; see the end.

use super::{Arrived, hmac_sha256, joined, md5_hex, sorted};

/// What the parameter `sign` of a request should say. Empty values take no part, and a `data` that
/// is JSON is signed byte for byte as it was sent.
#[must_use]
pub fn request(request: &Arrived<'_>, appsecret: &str) -> String {
    let signed = request.parameters().filter(|(name, value)| *name != "sign" && !value.is_empty());
    md5_hex(format!("{}{appsecret}", joined(&sorted(signed))))
}

/// What `X-Aoqiwei-Signature` should say in the mode `md5`: the secret stands behind the body.
#[must_use]
pub fn webhook_md5(body: &[u8], secret: &str) -> String {
    md5_hex([body, secret.as_bytes()].concat())
}

/// What `X-Aoqiwei-Signature` should say in the mode `hmac-sha256`.
#[must_use]
pub fn webhook_hmac(body: &[u8], secret: &str) -> String {
    hex::encode(hmac_sha256(secret.as_bytes(), &[body]))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{each_flipped, flipped, pairs};
    use super::*;

    const SECRET: &str = "as_demo_secret";

    fn sign(query: &[(String, String)], form: &[(String, String)], secret: &str) -> String {
        request(&Arrived { method: "GET", url: "http://scm/rechain", query, form, body: b"" }, secret)
    }

    #[test]
    fn every_signed_byte_counts() {
        let query =
            pairs(&[("page", "1"), ("pageSize", "1"), ("front", "1767225600"), ("appkey", "ak_demo")]);
        let right = "3e2befefaaa789ccdc22d5fad36140d9";
        assert_eq!(sign(&query, &[], SECRET), right);
        for (name, changed) in each_flipped(&query) {
            assert_ne!(sign(&changed, &[], SECRET), right, "{name}");
        }
        assert_ne!(sign(&query, &[], &flipped(SECRET)), right);
    }

    #[test]
    fn empty_values_and_the_signature_take_no_part() {
        let query = pairs(&[
            ("appkey", "ak_demo"),
            ("front", "1767225600"),
            ("startDate", "2026-01-01"),
            ("endDate", "2026-01-01"),
            ("page", "1"),
            ("pageSize", "500"),
            ("depotCode", ""),
            ("sign", "whatever"),
        ]);
        assert_eq!(sign(&query, &[], SECRET), "9c3697ca30a6e3635fb415eaea42b739");
        assert_eq!(sign(&[], &query, SECRET), "9c3697ca30a6e3635fb415eaea42b739", "as a form");
    }

    #[test]
    fn the_text_of_data_is_signed_as_it_came() {
        let data = r#"{"shopCode":"S01","items":[{"goodCode":"G1","qty":2}]}"#;
        let form = pairs(&[("appkey", "ak_demo"), ("front", "1767225600"), ("data", data)]);
        assert_eq!(sign(&[], &form, SECRET), "80ca8c74f24f8c167ed02ee209340de5");
        let spaced =
            pairs(&[("appkey", "ak_demo"), ("front", "1767225600"), ("data", &data.replace(',', ", "))]);
        assert_ne!(sign(&[], &spaced, SECRET), "80ca8c74f24f8c167ed02ee209340de5");
    }
}
