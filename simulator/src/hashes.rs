//! Signatures of webhooks, made from the text that the vendor's document names.
//!
//! Written independently of the client's verifier: text in, text out, and nothing is configurable. The
//! known signatures are made here too, by the tests of this file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::Sha256;

/// HMAC-SHA1 of a text.
pub(crate) fn hmac_sha1(key: &str, text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).expect("an HMAC takes a key of any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// HMAC-SHA256 of a text.
pub(crate) fn hmac_sha256(key: &str, text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("an HMAC takes a key of any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// Bytes as base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn known_signatures_of_webhooks_are_made() {
        let known: Vec<Value> = serde_json::from_str(include_str!("../tests/vectors.json")).unwrap();
        let mut made = 0;
        for vector in known.iter().filter(|vector| vector["use"] == "webhook") {
            let input = |name: &str| vector["inputs"][name].as_str().unwrap_or_default();
            let secret = [input("secret"), input("client_secret"), input("key")].concat();
            let (secret, body) = (secret.as_str(), input("body").as_bytes());
            let signature = match vector["vendor"].as_str().unwrap() {
                "square" => base64(&hmac_sha256(secret, &[input("url").as_bytes(), body].concat())),
                "shopify" => base64(&hmac_sha256(secret, body)),
                "loyverse" if vector["algorithm"] == "hmac-sha1-hex" => hex::encode(hmac_sha1(secret, body)),
                "loyverse" => base64(&hmac_sha1(secret, body)),
                _ => continue,
            };
            assert_eq!(signature, vector["expected"].as_str().unwrap(), "{}", vector["id"]);
            made += 1;
        }
        assert_eq!(made, 6);
    }
}
