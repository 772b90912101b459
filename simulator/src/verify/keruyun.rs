//! The signature of Keruyun: names glued to values in a fixed order, then the body, then a secret.
//!
//! The token is asked for with the `secretKey`, all other calls are signed with the token. Two
//! public clients of the vendor differ on whether the token also stands among the parameters.

use super::{Arrived, sha256_hex};

/// Which of the two clients is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// The token stands at the end only, as the client in Go has it.
    #[default]
    TokenLast,
    /// It stands between timestamp and version too, as the client in Python has it.
    TokenInside,
}

/// What the query's `sign` of the token call should say; `None` where a parameter is missing.
#[must_use]
pub fn token_call(request: &Arrived<'_>, secret_key: &str) -> Option<String> {
    Some(sha256_hex(format!("{}{secret_key}", glued(request, "")?)))
}

/// What the query's `sign` of any other call should say; `None` where a parameter is missing or the
/// body is no text.
#[must_use]
pub fn call(request: &Arrived<'_>, token: &str, form: Form) -> Option<String> {
    let inside = match form {
        Form::TokenLast => String::new(),
        Form::TokenInside => format!("token{token}"),
    };
    let body = match request.method {
        "POST" => format!("body{}", std::str::from_utf8(request.body).ok()?),
        _ => String::new(),
    };
    Some(sha256_hex(format!("{}{body}{token}", glued(request, &inside)?)))
}

/// `appKey…shopIdenty…timestamp…version…`; a brand stands where the shop would.
fn glued(request: &Arrived<'_>, inside: &str) -> Option<String> {
    let app_key = request.parameter("appKey")?;
    let owner = match (request.parameter("shopIdenty"), request.parameter("brandId")) {
        (Some(shop), None) => format!("shopIdenty{shop}"),
        (None, Some(brand)) => format!("brandId{brand}"),
        (None, None) | (Some(_), Some(_)) => return None,
    };
    let (timestamp, version) = (request.parameter("timestamp")?, request.parameter("version")?);
    Some(format!("appKey{app_key}{owner}timestamp{timestamp}{inside}version{version}"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{each_flipped, flipped, pairs};
    use super::*;

    const BODY: &str = concat!(
        r#"{"shopIds":["810094162"],"startDate":"2026-01-01 00:00:00","#,
        r#""endDate":"2026-01-01 23:59:59","dateType":"1","pageNum":1,"pageSize":100}"#
    );

    fn query() -> Vec<(String, String)> {
        pairs(&[
            ("appKey", "akey1"),
            ("shopIdenty", "810094162"),
            ("version", "2.0"),
            ("timestamp", "1767225600"),
        ])
    }

    fn arrived<'a>(method: &'a str, query: &'a [(String, String)], body: &'a str) -> Arrived<'a> {
        Arrived { method, url: "https://openapi.keruyun.com", query, form: &[], body: body.as_bytes() }
    }

    #[test]
    fn every_signed_byte_counts() {
        let right = Some("c936b29606bc06f162a72994d8db7c3c13e5a2193b86a1709a60d7284afc8312".to_owned());
        let sign = |query: &[(String, String)], body: &str, token: &str| {
            call(&arrived("POST", query, body), token, Form::TokenLast)
        };
        assert_eq!(sign(&query(), BODY, "tok_demo"), right);
        for (name, changed) in each_flipped(&query()) {
            assert_ne!(sign(&changed, BODY, "tok_demo"), right, "{name}");
        }
        assert_ne!(sign(&query(), &flipped(BODY), "tok_demo"), right);
        assert_ne!(sign(&query(), BODY, "tok_demp"), right);
    }

    #[test]
    fn the_token_call_is_signed_with_the_secret() {
        let right = Some("20af8b4db1717d61a842671f1948dfa4de6b33050e9051432d6841fbfebe1a35".to_owned());
        assert_eq!(token_call(&arrived("GET", &query(), ""), "secret_demo"), right);
        for (name, changed) in each_flipped(&query()) {
            assert_ne!(token_call(&arrived("GET", &changed, ""), "secret_demo"), right, "{name}");
        }
    }

    #[test]
    fn the_other_form_has_the_token_inside() {
        let right = "22bb496f3d7fb1e60aecd2d023edf6e28e1a188a196d2cff50ad80b750f33f2c";
        let sign = call(&arrived("POST", &query(), BODY), "tok_demo", Form::TokenInside);
        assert_eq!(sign.as_deref(), Some(right));
    }

    #[test]
    fn a_shop_and_a_brand_at_once_are_neither() {
        let both = [query(), pairs(&[("brandId", "32296")])].concat();
        assert_eq!(token_call(&arrived("GET", &both, ""), "secret_demo"), None);
        assert_eq!(token_call(&arrived("GET", &query()[..1], ""), "secret_demo"), None);
    }
}
