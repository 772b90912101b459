//! The signatures of two of Meituan's platforms: deliveries, and catering.
//!
//! Deliveries (Waimai) sign the address that was called, so a simulator must be asked about the
//! address that its caller believes in. The catering platform signs no address. Both sign what they
//! push as they want to be asked.

use super::{Arrived, joined, md5_hex, sha1_hex, sorted};

/// What `sig` of a call of the delivery platform should say, or of its push to `request.url`.
#[must_use]
pub fn waimai(request: &Arrived<'_>, secret: &str) -> String {
    let signed = sorted(request.parameters().filter(|(name, _)| *name != "sig"));
    let url = request.url.split('?').next().unwrap_or_default();
    md5_hex(format!("{url}?{}{secret}", joined(&signed)))
}

/// What `sign` of a call of the catering platform should say, or of its push. Empty values take no
/// part.
#[must_use]
pub fn cater(request: &Arrived<'_>, sign_key: &str) -> String {
    let signed = request.parameters().filter(|(name, value)| *name != "sign" && !value.is_empty());
    let glued: String = sorted(signed).into_iter().flat_map(|(name, value)| [name, value]).collect();
    sha1_hex(format!("{sign_key}{glued}"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{each_flipped, flipped, pairs};
    use super::*;

    #[test]
    fn every_signed_byte_of_a_delivery_counts() {
        let query = pairs(&[
            ("timestamp", "1389751221"),
            ("app_poi_code", "31号测试店"),
            ("app_id", "0000"),
            ("sig", "x"),
        ]);
        let url = "https://waimaiopen.meituan.com/api/v1/poi/save";
        let sign = |url: &str, query: &[(String, String)], secret: &str| {
            waimai(&Arrived { method: "GET", url, query, form: &[], body: b"" }, secret)
        };
        let right = "882ea84a90f6afe54ff70bdf55f80e26";
        assert_eq!(sign(url, &query, "msec_demo"), right);
        for (name, changed) in each_flipped(&query) {
            assert_eq!(sign(url, &changed, "msec_demo") != right, name != "sig", "{name}");
        }
        assert_ne!(sign(&flipped(url), &query, "msec_demo"), right);
        assert_ne!(sign(url, &query, "msec_dema"), right);
    }

    #[test]
    fn every_signed_byte_of_catering_counts() {
        let form = pairs(&[
            ("businessId", "2"),
            ("appAuthToken", "aat_demo"),
            ("charset", "UTF-8"),
            ("developerId", "100001"),
            ("timestamp", "1767225600"),
            ("version", "2"),
            ("biz", r#"{"orderId":"27000001"}"#),
            ("sign", "x"),
        ]);
        let sign = |form: &[(String, String)], key: &str| {
            cater(&Arrived { method: "POST", url: "", query: &[], form, body: b"" }, key)
        };
        let right = "e46de3c6c8b3af8bd1da3d932c8c17ce08e6eb8b";
        assert_eq!(sign(&form, "sk_demo"), right);
        for (name, changed) in each_flipped(&form) {
            assert_eq!(sign(&changed, "sk_demo") != right, name != "sign", "{name}");
        }
        assert_ne!(sign(&form, "sk_dema"), right);
        assert_eq!(sign(&[form, pairs(&[("empty", "")])].concat(), "sk_demo"), right, "empty values");
    }
}
