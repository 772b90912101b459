//! The signatures of webhooks that sign their bytes as they are sent.
//!
//! A simulated vendor writes them beside what it posts. Those that sign parameters in the order of
//! their names stand with the vendor's requests: Pinzhi and Meituan.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{base64, hmac_sha1, hmac_sha256};

/// Square's `x-square-hmacsha256-signature`: the address as it was registered, then the body.
#[must_use]
pub fn square(signature_key: &str, url: &str, body: &[u8]) -> String {
    base64(&hmac_sha256(signature_key.as_bytes(), &[url.as_bytes(), body]))
}

/// Shopify's `X-Shopify-Hmac-Sha256`.
#[must_use]
pub fn shopify(client_secret: &str, body: &[u8]) -> String {
    base64(&hmac_sha256(client_secret.as_bytes(), &[body]))
}

/// How Loyverse writes its signature: its document says Base64, a developer saw something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoyverseForm {
    /// As the document says.
    #[default]
    Base64,
    /// What the developer most likely saw.
    Hex,
}

/// Loyverse's `X-Loyverse-Signature`.
#[must_use]
pub fn loyverse(client_secret: &str, body: &[u8], form: LoyverseForm) -> String {
    let signature = hmac_sha1(client_secret.as_bytes(), body);
    match form {
        LoyverseForm::Base64 => base64(&signature),
        LoyverseForm::Hex => hex::encode(signature),
    }
}

/// One entry of `webhook-signature` by Standard Webhooks; `None` where what follows `whsec_` in the
/// secret is no Base64.
#[must_use]
pub fn standard(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> Option<String> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).ok()?;
    let head = format!("{id}.{timestamp}.");
    Some(format!("v1,{}", base64(&hmac_sha256(&key, &[head.as_bytes(), body]))))
}

/// `X-Hub-Signature-256` of GitHub and of all who do as it does.
#[must_use]
pub fn github(secret: &str, body: &[u8]) -> String {
    format!("sha256={}", hex::encode(hmac_sha256(secret.as_bytes(), &[body])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"data":{"type":"webhooks","id":"fake_id"}}"#;
    const OTHER_BODY: &[u8] = br#"{"data":{"type":"webhooks","id":"fake_ie"}}"#;

    #[test]
    fn square_signs_address_and_body() {
        let url = "https://webhook.site/webhooks";
        let right = "W3FlCNk5IA3ZQ2LHTWoajvzfaDu/OwY2tNHIHC3IUOA=";
        assert_eq!(square("signature-key", url, BODY), right);
        assert_ne!(square("signature-kez", url, BODY), right);
        assert_ne!(square("signature-key", "https://webhook.site/webhookt", BODY), right);
        assert_ne!(square("signature-key", url, OTHER_BODY), right);
    }

    #[test]
    fn the_standard_signs_id_time_and_body() {
        let (secret, id, at) =
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330");
        let body = br#"{"test": 2432232314}"#;
        let right = Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned());
        assert_eq!(standard(secret, id, at, body), right);
        assert_ne!(standard("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx", id, at, body), right);
        assert_ne!(standard(secret, "msg_p5jXN8AQM9LWM0D4loKWxJel", at, body), right);
        assert_ne!(standard(secret, id, "1614265331", body), right);
        assert_ne!(standard(secret, id, at, br#"{"test": 2432232315}"#), right);
        assert_eq!(standard("whsec_?", id, at, body), None);
    }

    #[test]
    fn the_others_sign_the_body_with_the_secret() {
        let signers: [fn(&str, &[u8]) -> String; 4] = [
            shopify,
            github,
            |secret, body| loyverse(secret, body, LoyverseForm::Base64),
            |secret, body| loyverse(secret, body, LoyverseForm::Hex),
        ];
        for sign in signers {
            assert_ne!(sign("secret", BODY), sign("secret", OTHER_BODY));
            assert_ne!(sign("secret", BODY), sign("secreu", BODY));
        }
        assert_eq!(shopify("secret", b"{}"), "dzJZAsrKgS3CWXM6rNBGtzgXNyx3e42VtAJkdHRRbhM=");
    }
}
