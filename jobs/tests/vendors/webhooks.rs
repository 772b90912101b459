//! Signatures of webhooks: every published and computed vector through the manifests, the shipped ones
//! and those of `webhooks/`, and what must not count as the vendor's. No test computes a signature with
//! the code that verifies it.

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zhilian_sync_jobs::vendor::Catalog;
use zhilian_sync_jobs::vendor::webhook::{Delivery, Refusal, Secrets, StoredDelivery, WebhookSpec};

/// A request that its vendor signed.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Vector {
    id: String,
    provider: String,
    config: Map<String, Value>,
    pub(crate) secret: String,
    url: String,
    query: String,
    headers: Map<String, Value>,
    body: String,
    received_at: DateTime<Utc>,
    event_key: String,
    event_type: String,
    /// Whether the body can be read at all.
    opens: bool,
    /// What the signature covers: `body`, `url`, `id`, `timestamp`.
    signed: Vec<String>,
}

pub(crate) fn vectors() -> Vec<Vector> {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("webhook_vectors.json")).unwrap();
    assert!(vectors.len() >= 20);
    vectors
}

pub(crate) fn vector(id: &str) -> Vector {
    vectors().into_iter().find(|vector| vector.id == id).unwrap()
}

pub(crate) fn catalog() -> Catalog {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vendors/webhooks");
    Catalog::load(Some(&folder)).unwrap_or_else(|errors| panic!("{errors}"))
}

pub(crate) fn spec_of(catalog: &Catalog, vector: &Vector) -> Arc<WebhookSpec> {
    let manifest =
        catalog.resolve(&vector.provider, &vector.config).unwrap_or_else(|error| panic!("{error}"));
    catalog.webhook_of(&manifest).1
}

pub(crate) fn secrets(secrets: &[&str]) -> Secrets {
    secrets.iter().enumerate().map(|(at, secret)| (format!("secret {at}"), (*secret).into())).collect()
}

impl Vector {
    pub(crate) fn stored(&self) -> StoredDelivery {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let value = HeaderValue::from_str(value.as_str().unwrap()).unwrap();
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        }
        StoredDelivery {
            method: "POST".into(),
            url: self.url.clone(),
            query: self.query.clone(),
            headers,
            body: self.body.clone().into_bytes(),
            received_at: self.received_at,
        }
    }
}

fn verify(spec: &WebhookSpec, stored: &StoredDelivery, of: &[&str]) -> Result<(), &'static str> {
    spec.verify(&stored.as_delivery(), &secrets(of)).map_err(|refusal: Refusal| {
        assert!(Refusal::CODES.contains(&refusal.code));
        assert!(
            !of.iter().any(|secret| secret.len() > "secret".len() && refusal.message.contains(secret)),
            "{refusal:?}"
        );
        refusal.code
    })
}

#[test]
fn every_vector_verifies_and_opens() {
    let catalog = catalog();
    for vector in vectors() {
        let spec = spec_of(&catalog, &vector);
        let stored = vector.stored();
        let delivery = stored.as_delivery();
        assert_eq!(verify(&spec, &stored, &[&vector.secret]), Ok(()), "{}", vector.id);
        assert_eq!(spec.handshake(&delivery, &secrets(&[&vector.secret])), None, "{}", vector.id);
        match spec.open(&delivery) {
            Ok(opened) => {
                assert!(vector.opens, "{}", vector.id);
                assert_eq!(opened.event_key, vector.event_key, "{}", vector.id);
                assert_eq!(opened.event_type, vector.event_type, "{}", vector.id);
            }
            Err(refusal) => {
                assert!(!vector.opens && refusal.code == "bad_body", "{}: {refusal:?}", vector.id);
            }
        }
    }
}

#[test]
fn a_byte_of_the_body_changed_is_refused() {
    let catalog = catalog();
    for vector in vectors().iter().filter(|vector| vector.signed.iter().any(|part| part == "body")) {
        let spec = spec_of(&catalog, vector);
        // By its vendor's rule an empty parameter is not signed, so its name is nobody's promise.
        let unsigned = vector.body.find("empty=").map(|at| at..at + "empty=".len()).unwrap_or_default();
        for at in (0..vector.body.len()).filter(|at| !unsigned.contains(at)) {
            let mut stored = vector.stored();
            stored.body[at] ^= 1;
            assert!(verify(&spec, &stored, &[&vector.secret]).is_err(), "{} at {at}", vector.id);
        }
        for body in [b"".to_vec(), [vector.body.as_bytes(), b"x"].concat()] {
            let stored = StoredDelivery { body, ..vector.stored() };
            assert!(verify(&spec, &stored, &[&vector.secret]).is_err(), "{}", vector.id);
        }
    }
}

/// Changes each byte of a text in turn, as far as it remains one.
fn changed(text: &str) -> impl Iterator<Item = String> + '_ {
    (0..text.len()).filter_map(|at| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] ^= 1;
        String::from_utf8(bytes).ok().filter(|text| HeaderValue::from_str(text).is_ok())
    })
}

#[test]
fn a_byte_of_a_signature_id_or_timestamp_changed_is_refused() {
    let catalog = catalog();
    let mut tried = 0;
    for vector in
        vectors().iter().filter(|vector| !vector.id.ends_with("-list") && !vector.id.ends_with("-signatures"))
    {
        let spec = spec_of(&catalog, vector);
        // The id of a message is signed where the manifest says so; elsewhere a header beside the
        // signature proves nothing.
        let signed = |part: &str| vector.signed.iter().any(|signed| signed == part);
        let looked_at = |name: &str| {
            let name = name.to_ascii_lowercase();
            ["sign", "hmac", "authorization"].iter().any(|part| name.contains(part))
                || (signed("id") && name.ends_with("-id"))
                || (signed("timestamp") && name.ends_with("-timestamp"))
        };
        for (name, value) in vector.headers.iter().filter(|(name, _)| looked_at(name)) {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            for text in changed(value.as_str().unwrap()) {
                let mut stored = vector.stored();
                stored.headers.insert(&name, HeaderValue::from_str(&text).unwrap());
                let result = verify(&spec, &stored, &[&vector.secret]);
                assert!(result.is_err(), "{}: {name}: {text}", vector.id);
                tried += 1;
            }
            let mut stored = vector.stored();
            stored.headers.remove(&name);
            let code = verify(&spec, &stored, &[&vector.secret]).unwrap_err();
            assert!(code.ends_with("_missing"), "{}: {code}", vector.id);
        }
    }
    assert!(tried > 500, "{tried}");
}

#[test]
fn a_byte_of_the_url_or_the_query_changed_is_refused() {
    let catalog = catalog();
    for vector in vectors() {
        let spec = spec_of(&catalog, &vector);
        if vector.signed.iter().any(|part| part == "url") {
            // Meituan signs the address without its query.
            let without_query = vector.id == "meituan-waimai-push";
            let signed = |url: &str| match url.split_once('?') {
                Some((before, _)) if without_query => before.to_owned(),
                _ => url.to_owned(),
            };
            for url in changed(&vector.url) {
                let same = signed(&url) == signed(&vector.url);
                let expected = if same { Ok(()) } else { Err("signature_mismatch") };
                let stored = StoredDelivery { url, ..vector.stored() };
                assert_eq!(verify(&spec, &stored, &[&vector.secret]), expected, "{}", vector.id);
            }
        }
    }
    let vector = vector("generic-url-secret");
    let spec = spec_of(&catalog, &vector);
    for (query, code) in [
        ("", "signature_missing"),
        ("token=", "signature_missing"),
        ("shop=7&token=a%20long%2Bcode%2F%E4%B8", "signature_mismatch"),
        ("token=a%20long%2Bcode%2F%E4%B8%AD&token=x", "signature_mismatch"),
        ("token=a%20long+code%2F%E4%B8%AD", "signature_mismatch"),
    ] {
        let stored = StoredDelivery { query: query.into(), ..vector.stored() };
        assert_eq!(verify(&spec, &stored, &[&vector.secret]), Err(code), "{query}");
    }
    // The same bytes written otherwise are the same code.
    let stored = StoredDelivery { query: "token=a+long%2bcode/%E4%B8%AD".into(), ..vector.stored() };
    assert_eq!(verify(&spec, &stored, &[&vector.secret]), Ok(()));
}

#[test]
fn several_secrets_count_while_one_is_replaced_and_an_empty_one_never() {
    let catalog = catalog();
    for vector in vectors() {
        let (spec, stored) = (spec_of(&catalog, &vector), vector.stored());
        let other = match vector.id.as_str() {
            "standard-webhooks-official" | "standard-webhooks-svix-list" => "whsec_b3RoZXI=",
            _ => "another",
        };
        for of in [[&*vector.secret, other], [other, &*vector.secret], ["", &*vector.secret]] {
            assert_eq!(verify(&spec, &stored, &of), Ok(()), "{} {of:?}", vector.id);
        }
        assert_eq!(verify(&spec, &stored, &[other]), Err("signature_mismatch"), "{}", vector.id);
        for of in [&[][..], &[""], &["", ""]] {
            assert_eq!(verify(&spec, &stored, of), Err("secret_missing"), "{}", vector.id);
        }
    }
    let vector = vector("standard-webhooks-official");
    let spec = spec_of(&catalog, &vector);
    assert_eq!(verify(&spec, &vector.stored(), &["whsec_not base64"]), Err("secret_unusable"));
    assert_eq!(
        verify(&spec, &vector.stored(), &["whsec_"]),
        Err("secret_missing"),
        "nothing after the prefix"
    );
    assert_eq!(verify(&spec, &vector.stored(), &["whsec_not base64", &vector.secret]), Ok(()));
}

/// An empty secret must not verify even what was signed with it.
#[test]
fn what_was_signed_with_nothing_is_refused() {
    let catalog = catalog();
    let vector = vector("github-official");
    let mut stored = vector.stored();
    // HMAC-SHA-256 of the empty text with the empty key, as in RFC 4231's errata and everywhere else.
    let nothing = "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad";
    stored.body.clear();
    stored
        .headers
        .insert("x-hub-signature-256", HeaderValue::from_str(&format!("sha256={nothing}")).unwrap());
    assert_eq!(verify(&spec_of(&catalog, &vector), &stored, &[""]), Err("secret_missing"));
}

#[test]
fn an_old_or_early_timestamp_is_refused_on_both_sides() {
    let catalog = catalog();
    for id in ["standard-webhooks-official", "demo-till"] {
        let vector = vector(id);
        let spec = spec_of(&catalog, &vector);
        let sent = if id == "demo-till" { "2026-01-01T00:00:00Z" } else { "2021-02-25T15:02:10Z" };
        let sent: DateTime<Utc> = sent.parse().unwrap();
        for (apart, expected) in [
            (TimeDelta::zero(), Ok(())),
            (TimeDelta::seconds(300), Ok(())),
            (TimeDelta::seconds(-300), Ok(())),
            (TimeDelta::milliseconds(300_001), Err("timestamp_outside_window")),
            (TimeDelta::milliseconds(-300_001), Err("timestamp_outside_window")),
            (TimeDelta::days(4_000), Err("timestamp_outside_window")),
        ] {
            let stored = StoredDelivery { received_at: sent + apart, ..vector.stored() };
            assert_eq!(verify(&spec, &stored, &[&vector.secret]), expected, "{id} {apart}");
        }
        // A wrong signature is told before an old timestamp.
        let stored = StoredDelivery { received_at: sent + TimeDelta::days(1), ..vector.stored() };
        assert_eq!(verify(&spec, &stored, &["whsec_b3RoZXI="]), Err("signature_mismatch"));
    }
}

#[test]
fn what_was_kept_verifies_again_and_holds_no_secret_in_clear() {
    let catalog = catalog();
    for vector in vectors() {
        let (spec, stored) = (spec_of(&catalog, &vector), vector.stored());
        let kept = spec.kept_request(&stored.as_delivery());
        assert!(kept.clear.starts_with('{') && !kept.clear.contains(&vector.secret), "{}", vector.id);
        assert!(!kept.clear.contains("%20long"), "{}", kept.clear);
        let again = WebhookSpec::delivery_of(
            &kept.clear,
            kept.secret.as_deref(),
            stored.body.clone(),
            stored.received_at,
        );
        let again = again.unwrap();
        assert_eq!(verify(&spec, &again, &[&vector.secret]), Ok(()), "{}: {kept:?}", vector.id);
        assert_eq!(spec.open(&again.as_delivery()), spec.open(&stored.as_delivery()), "{}", vector.id);
        assert_eq!(spec.kept_request(&again.as_delivery()), kept, "{}", vector.id);
        assert!(again.headers.keys().all(|name| stored.headers.contains_key(name)));
    }
    let vector = vector("generic-url-secret");
    let mut stored = vector.stored();
    stored.query.push_str("&event=sale.created");
    let kept = spec_of(&catalog, &vector).kept_request(&stored.as_delivery());
    let clear: Value = serde_json::from_str(&kept.clear).unwrap();
    assert_eq!(clear, json!({}), "nobody asks for the shop, nor for a type that is not signed");
}

#[test]
fn a_strangers_headers_are_not_kept() {
    let catalog = catalog();
    let vector = vector("github-official");
    let spec = spec_of(&catalog, &vector);
    let mut stored = vector.stored();
    stored.headers.insert("cookie", HeaderValue::from_static("session=1"));
    stored.headers.insert("authorization", HeaderValue::from_static("Bearer x"));
    let kept: Value = serde_json::from_str(&spec.kept_request(&stored.as_delivery()).clear).unwrap();
    let names: Vec<&String> = kept["headers"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["x-github-delivery", "x-github-event", "x-hub-signature-256"]);
    assert_eq!(kept.as_object().unwrap().len(), 1);
}

#[test]
fn headers_that_are_there_several_times() {
    let catalog = catalog();
    let vector = vector("standard-webhooks-official");
    let spec = spec_of(&catalog, &vector);
    // Signatures may be spread over several headers: any of them may be ours.
    let mut stored = vector.stored();
    stored.headers.insert("webhook-signature", HeaderValue::from_static("v1,bm90IG91cnM="));
    let ours = HeaderValue::from_str(vector.headers["webhook-signature"].as_str().unwrap()).unwrap();
    stored.headers.append("webhook-signature", ours.clone());
    assert_eq!(verify(&spec, &stored, &[&vector.secret]), Ok(()));
    let kept = spec.kept_request(&stored.as_delivery());
    let again = WebhookSpec::delivery_of(&kept.clear, None, stored.body.clone(), stored.received_at).unwrap();
    assert_eq!(verify(&spec, &again, &[&vector.secret]), Ok(()));
    // Of two different ids or timestamps we would sign one and go by the other.
    for name in ["webhook-id", "webhook-timestamp"] {
        let mut stored = vector.stored();
        stored.headers.append(name, HeaderValue::from_static("1614265331"));
        assert_eq!(verify(&spec, &stored, &[&vector.secret]), Err("ambiguous"), "{name}");
    }
    let list = vector_list_with("t=1767225601,t=1767225600");
    let demo = spec_of(&catalog, &list);
    assert_eq!(verify(&demo, &list.stored(), &[&list.secret]), Err("ambiguous"));
}

/// The demo till's vector with another beginning of its list.
fn vector_list_with(beginning: &str) -> Vector {
    let mut vector = vector("demo-till");
    let value = vector.headers["X-Demo-Signature"].as_str().unwrap().replace("t=1767225600", beginning);
    vector.headers.insert("X-Demo-Signature".into(), Value::from(value));
    vector
}

#[test]
fn a_very_long_list_costs_no_more_than_a_short_one() {
    let catalog = catalog();
    let vector = vector("standard-webhooks-official");
    let spec = spec_of(&catalog, &vector);
    let ours = vector.headers["webhook-signature"].as_str().unwrap();
    for (before, expected) in [(15, Ok(())), (16, Err("signature_mismatch"))] {
        let mut stored = vector.stored();
        let list = "v1,bm90IG91cnM= ".repeat(before) + ours;
        stored.headers.insert("webhook-signature", HeaderValue::from_str(&list).unwrap());
        assert_eq!(verify(&spec, &stored, &[&vector.secret]), expected, "{before} before ours");
    }
    let mut stored = vector.stored();
    let list = "v1,bm90IG91cnM= ".repeat(4_000) + ours;
    stored.headers.insert("webhook-signature", HeaderValue::from_str(&list).unwrap());
    assert_eq!(verify(&spec, &stored, &[&vector.secret]), Err("signature_missing"));
    assert!(spec.kept_request(&stored.as_delivery()).clear.len() < 1_000);
    for list in ["v2,g0hM9SsE", "v1", "", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="] {
        let mut stored = vector.stored();
        stored.headers.insert("webhook-signature", HeaderValue::from_str(list).unwrap());
        assert_eq!(verify(&spec, &stored, &[&vector.secret]), Err("signature_missing"), "{list}");
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,60}",
        "[a-z0-9=&%+,.:{}\"\\[\\] -]{0,80}",
        "(t=[0-9]{0,12},)?(v1=[0-9a-fA-F]{0,70},?){0,4}",
        "(v1,[A-Za-z0-9+/=_-]{0,50} ?){0,4}",
        Just("sha256=".to_owned()),
    ]
}

proptest! {
    /// Whatever comes, it is refused or answered: nothing panics, and nothing is taken for the vendor's.
    #[test]
    fn no_request_is_too_strange(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..3),
        texts in prop::collection::vec(text(), 1..4),
        query in text(),
        body in prop_oneof![prop::collection::vec(any::<u8>(), 0..300), text().prop_map(String::into_bytes)],
        secs in -10_000_000_000_i64..10_000_000_000,
        post in any::<bool>(),
    ) {
        use std::sync::LazyLock;
        static SPECS: LazyLock<Vec<(Vector, Arc<WebhookSpec>)>> = LazyLock::new(|| {
            let catalog = catalog();
            vectors().into_iter().map(|vector| { let spec = spec_of(&catalog, &vector); (vector, spec) }).collect()
        });
        for (vector, spec) in SPECS.iter() {
            let mut headers = HeaderMap::new();
            for name in vector.headers.keys() {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                let values = values.iter().map(Vec::as_slice).chain(texts.iter().map(String::as_bytes));
                for value in values.filter_map(|value| HeaderValue::from_bytes(value).ok()) {
                    headers.append(&name, value);
                }
            }
            let delivery = Delivery {
                method: if post { "POST" } else { "GET" },
                url: &vector.url,
                query: &query,
                headers: &headers,
                body: &body,
                received_at: DateTime::from_timestamp(secs, 0).unwrap(),
            };
            let of = secrets(&[&vector.secret]);
            prop_assert!(spec.verify(&delivery, &of).is_err());
            let _ = spec.handshake(&delivery, &of);
            let opened = spec.open(&delivery);
            let kept = spec.kept_request(&delivery);
            let again = WebhookSpec::delivery_of(&kept.clear, kept.secret.as_deref(), body.clone(), delivery.received_at);
            let again = again.unwrap();
            prop_assert_eq!(spec.open(&again.as_delivery()), opened);
            let refused = |delivery: &Delivery<'_>| spec.verify(delivery, &of).unwrap_err().code;
            prop_assert_eq!(refused(&again.as_delivery()), refused(&delivery));
        }
    }
}
