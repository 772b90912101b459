//! Signs what is sent, as the manifest's `[signing]` says: drop, order, render, wrap, digest, encode. Pure: the
//! request is drafted before and the signature is placed after by the client, which sends exactly the bytes that
//! were signed.

mod php;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::manifest::signing::{Encoding, Order, Render, Signing};
use super::manifest::webhook::PairPart;
use super::template::{self, SigningParts, Slots, Template};
use super::webhook::scheme::{keyed, plain};

/// What a request is made of, as far as its signature knows.
pub(super) struct Material {
    /// The parameters that take part, in the order in which they are sent.
    pub(super) parameters: Vec<(String, Value)>,
    /// The address without its query.
    pub(super) url: String,
    pub(super) path: String,
    pub(super) method: String,
    /// Nothing where there is no body.
    pub(super) body: Option<String>,
}

/// Something that the signature is made of has no value: a credential, as a rule.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Incomplete;

/// The signature as it is sent.
pub(super) fn sign(
    signing: &Signing,
    material: Material,
    slots: &Slots<'_>,
) -> Result<SecretString, Incomplete> {
    let Material { mut parameters, url, path, method, body } = material;
    let mut parts = SigningParts {
        url: Some(url),
        path: Some(path),
        method: Some(method),
        body,
        ..SigningParts::default()
    };
    for (name, template) in &signing.with {
        // What has no value takes no part: a GET has no `{body}`.
        let value = template.text(&Slots { signing: Some(&parts), ..slots.clone() });
        parameters.extend(value.map(|value| (name.clone(), Value::from(value))));
    }
    parameters.retain(|(name, value)| takes_part(signing, name, value));
    parts.pairs = Some(render(signing, order(&signing.order, parameters)));
    parts.body.get_or_insert_default();
    let fill = |template: &Template, parts: &SigningParts| {
        template.text(&Slots { signing: Some(parts), ..slots.clone() }).ok_or(Incomplete)
    };
    let content = SecretString::from(fill(&signing.content, &parts)?);
    let key = signing.key.as_ref().map(|key| fill(key, &parts).map(SecretString::from)).transpose()?;
    parts.signature = Some(digest(signing, &content, key.as_ref()));
    fill(&signing.value, &parts).map(SecretString::from)
}

fn takes_part(signing: &Signing, name: &str, value: &Value) -> bool {
    let dropped = match value {
        Value::Null => signing.drop_null,
        Value::String(text) => signing.drop_empty && text.is_empty(),
        _ => false,
    };
    let excluded = signing.place.parameter() == Some(name) || signing.exclude.iter().any(|it| it == name);
    !dropped && !excluded
}

fn order(order: &Order, mut parameters: Vec<(String, Value)>) -> Vec<(String, Value)> {
    match order {
        Order::Sent => parameters,
        Order::Name => {
            parameters.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
            parameters
        }
        Order::Fixed(names) => {
            let place = |name: &String| names.iter().position(|known| known == name);
            parameters.retain(|(name, _)| place(name).is_some());
            parameters.sort_by_key(|(name, _)| place(name));
            parameters
        }
    }
}

fn render(signing: &Signing, parameters: Vec<(String, Value)>) -> String {
    match &signing.render {
        Render::Php => {
            let members: Map<String, Value> = parameters.into_iter().collect();
            php::query(&members, signing.drop_empty)
        }
        Render::Pairs { pair, join } => {
            let texts = parameters.iter().map(|(name, value)| {
                let value = value_text(value);
                pair.iter().fold(String::new(), |text, part| {
                    text + match part {
                        PairPart::Text(text) => text,
                        PairPart::Name => name,
                        PairPart::Value => &value,
                    }
                })
            });
            texts.collect::<Vec<_>>().join(join)
        }
    }
}

/// A parameter's value as it is sent and signed: lists and objects as compact JSON.
pub(super) fn value_text(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => value.to_string(),
        scalar => template::as_text(scalar).unwrap_or_default(),
    }
}

fn digest(signing: &Signing, content: &SecretString, key: Option<&SecretString>) -> String {
    use secrecy::ExposeSecret as _;
    let content = [content.expose_secret().as_bytes()].into_iter();
    let tag = match key {
        Some(key) => keyed(signing.algorithm, key.expose_secret().as_bytes(), content),
        None => plain(signing.algorithm, content),
    };
    match signing.encoding {
        Encoding::Hex => hex::encode(tag.bytes()),
        Encoding::HexUpper => hex::encode_upper(tag.bytes()),
        Encoding::Base64 => STANDARD.encode(tag.bytes()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::vendor::manifest::signing::read_text;

    /// The signature, under a content that is signed as it is.
    fn signed(keys: &str, parameters: &Value) -> Result<String, Incomplete> {
        use secrecy::ExposeSecret as _;
        let signing = read_text(keys);
        let material = Material {
            parameters: parameters.as_object().unwrap().clone().into_iter().collect(),
            url: "https://a.example/v1/x".into(),
            path: "/v1/x".into(),
            method: "POST".into(),
            body: None,
        };
        let credentials = [("key".to_owned(), SecretString::from("Jefe"))].into();
        let slots = Slots { credentials: Some(&credentials), ..Slots::default() };
        sign(&signing, material, &slots).map(|signature| signature.expose_secret().to_owned())
    }

    /// What is signed, by way of a hash of it: the same text, or the test fails.
    fn assert_content(keys: &str, parameters: &Value, content: &str) {
        use crate::vendor::manifest::webhook::Algorithm;
        let signature =
            signed(&format!("place='query:sign'\nalgorithm='sha256'\n{keys}"), parameters).unwrap();
        let expected = plain(Algorithm::Sha256, [content.as_bytes()].into_iter());
        assert_eq!(signature, hex::encode(expected.bytes()), "{keys}: {content}");
    }

    #[test]
    fn parameters_are_dropped_ordered_and_written_as_the_keys_say() {
        let parameters = json!({"b": "", "a": null, "c": 12_345_678_901_234_567_u64, "sign": "old", "d": [1, {"e": "é"}], "Z": true});
        for (keys, content) in [
            ("content='{pairs}|{credential.key}'", "Z=true&b=&c=12345678901234567&d=[1,{\"e\":\"é\"}]|Jefe"),
            (
                "content='{pairs}{credential.key}'\ndrop_empty=true\nexclude=['d']",
                "Z=true&c=12345678901234567Jefe",
            ),
            ("content='{pairs}{credential.key}'\ndrop_null=false\nexclude=['d','c']", "Z=true&a=&b=Jefe"),
            (
                "content='{pairs}{credential.key}'\norder=['c','Z','none']\npair='{name}{value}'\njoin=''",
                "c12345678901234567ZtrueJefe",
            ),
            (
                "content='{method}{path}{url}{body}{credential.key}'\nfrom='json'",
                "POST/v1/xhttps://a.example/v1/xJefe",
            ),
            (
                "content='{pairs}'\nwith={A='{credential.key}', body='{body}'}\norder=['Z','A','body']",
                "Z=true&A=Jefe",
            ),
        ] {
            assert_content(keys, &parameters, content);
        }
        assert_content("content='{pairs}&k={credential.key}'", &json!({}), "&k=Jefe");
    }

    #[test]
    fn hashes_are_written_as_the_keys_say() {
        // RFC 4231, case 2.
        let hmac = "place='header:X-Sign'\nalgorithm='hmac_sha256'\nkey='{credential.key}'\n";
        let text = json!({"what": "ya want for nothing?"});
        let content = "pair='{name} do {value}'\n";
        let plain = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signed(&format!("{hmac}{content}"), &text).unwrap(), plain);
        let upper = format!("{hmac}{content}encoding='hex_upper'\nvalue='sha256={{signature}}'");
        assert_eq!(signed(&upper, &text).unwrap(), format!("sha256={}", plain.to_uppercase()));
        let base64 = format!("{hmac}{content}encoding='base64'");
        assert_eq!(signed(&base64, &text).unwrap(), "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=");
    }

    #[test]
    fn a_missing_credential_signs_nothing() {
        let keys = "place='query:s'\nalgorithm='md5'\ncontent='{pairs}{credential.other}'";
        assert_eq!(signed(keys, &json!({"a": 1})), Err(Incomplete));
    }
}
