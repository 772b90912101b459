//! What vendors hear: answers to those that only ask, to events, and what names an event.

use chrono::DateTime;
use http::{HeaderMap, HeaderValue};
use serde_json::json;
use zhilian_sync_jobs::vendor::Catalog;
use zhilian_sync_jobs::vendor::webhook::{Delivery, ReplyKind, Secrets};

use crate::webhooks::{catalog, secrets, vector};

fn request<'a>(method: &'a str, query: &'a str, headers: &'a HeaderMap, body: &'a [u8]) -> Delivery<'a> {
    let received_at = DateTime::UNIX_EPOCH;
    Delivery { method, url: "https://hub.example/hook", query, headers, body, received_at }
}

#[test]
fn handshakes_are_answered_and_events_are_not_taken_for_them() {
    let catalog = catalog();
    let spec = catalog.get("challenge").unwrap().webhook.clone().unwrap();
    let of = secrets(&["k"]);
    let none = HeaderMap::new();
    let mut event = HeaderMap::new();
    event.insert("x-event", HeaderValue::from_static("1"));
    let answer = |delivery: &Delivery<'_>| {
        spec.handshake(delivery, &of).map(|reply| (reply.status, String::from_utf8(reply.body).unwrap()))
    };
    let body = br#"{"challenge":"a\"b"}"#;
    for (delivery, expected) in [
        (request("GET", "echostr=a%20b%3C", &none, b""), Some((200, "a b<".to_owned()))),
        (request("GET", "other=1", &none, b""), None),
        (request("HEAD", "", &none, b""), Some((204, String::new()))),
        (request("POST", "", &none, body), Some((200, r#"{"challenge":"a\"b"}"#.to_owned()))),
        (request("POST", "", &event, body), None),
        (request("POST", "", &none, br#"{"id":1}"#), None),
        (request("POST", "", &none, b"no json"), None),
        (request("PUT", "echostr=1", &none, b""), None),
        (request("G T", "echostr=1", &none, b""), None),
        (request("POST", "", &none, br#"{"ping":1}"#), None),
    ] {
        assert_eq!(answer(&delivery), expected, "{delivery:?}");
    }
    let long = format!("echostr={}", "x".repeat(10_000));
    assert_eq!(answer(&request("GET", &long, &none, b"")), None, "nobody's challenge is so long");
    // Only with the right signature.
    let mut signed = HeaderMap::new();
    let signature = "93e22e51c2b009e5a6041da29ad73bb553a886e9a15cb69e1383ec84c5bed55c";
    signed.insert("x-signature", HeaderValue::from_static(signature));
    signed.insert("x-caller", HeaderValue::from_static("acme"));
    assert_eq!(answer(&request("POST", "", &signed, br#"{"ping":1}"#)), Some((200, "pong to acme".into())));
    let reply = spec.handshake(&request("GET", "echostr=1", &none, b""), &of).unwrap();
    assert_eq!(reply.content_type, "text/plain");
    assert!(reply.headers.contains(&("x-content-type-options".into(), "nosniff".into())));
}

#[test]
fn an_empty_form_is_a_ping_and_the_vendor_hears_what_it_wants() {
    let catalog = catalog();
    let spec = catalog.get("meituan-waimai").unwrap().webhook.clone().unwrap();
    let none = HeaderMap::new();
    let reply = spec.handshake(&request("POST", "", &none, b""), &Secrets::new()).unwrap();
    assert_eq!(reply.body, br#"{"data":"ok"}"#);
    assert_eq!(spec.handshake(&request("POST", "", &none, b"order_id=1"), &Secrets::new()), None);
    assert_eq!(spec.reply(ReplyKind::Accepted, "").body, br#"{"data":"ok"}"#);

    let spec = catalog.get("challenge").unwrap().webhook.clone().unwrap();
    let accepted = spec.reply(ReplyKind::Accepted, "a\"b");
    assert_eq!(accepted.status, 202);
    assert_eq!(accepted.body, br#"{"code":0,"msg":"success","event":"a\"b"}"#);
    assert_eq!(spec.reply(ReplyKind::Refused, "").status, 403);
    let busy = spec.reply(ReplyKind::Busy, "");
    assert_eq!((busy.status, busy.headers), (500, vec![("retry-after".into(), "7".into())]));
    assert!(spec.has_reply(ReplyKind::Busy) && !spec.has_reply(ReplyKind::Full));
}

#[test]
fn keys_that_are_no_names_become_hashes() {
    let catalog = catalog();
    let spec = catalog.get("demo-pos").unwrap().webhook.clone().unwrap();
    let none = HeaderMap::new();
    let open = |body: &str| spec.open(&request("POST", "", &none, body.as_bytes())).unwrap();
    let opened = open(r#"{"event_id": 12345678901234567890, "type": "a"}"#);
    assert_eq!((&*opened.event_key, &*opened.event_type), ("12345678901234567890", "a"));
    for body in ["{}", r#"{"event_id":null}"#, r#"{"event_id":""}"#, r#"{"event_id":{}}"#, "[1]", "7"] {
        assert!(open(body).event_key.starts_with("sha256:"), "{body}");
        assert_eq!(open(body).event_type, "");
    }
    let long = open(&format!(r#"{{"event_id":"{}","type":"{0}"}}"#, "中".repeat(200)));
    assert_eq!(long.event_key.len(), "sha256:".len() + 64);
    assert_eq!(long.event_type.chars().count(), 100);
    assert_ne!(long.event_key, open(&format!(r#"{{"event_id":"{}"}}"#, "中".repeat(201))).event_key);
    let opened = open(r#"{"event_id":"a\u0000b","type":"a\u0000b\n"}"#);
    assert!(opened.event_key.starts_with("sha256:") && opened.event_type == "a\u{fffd}b\u{fffd}");
    assert_eq!(open(r#"{"event_id":"1","event_id":"2"}"#).event_key, "2");
}

#[test]
fn what_nobody_signed_names_no_event_that_names_itself() {
    let catalog = catalog();
    let (_, spec) = catalog.webhook_of(&catalog.get("generic-rest").unwrap());
    let mut headers = HeaderMap::new();
    headers.insert("x-webhook-id", HeaderValue::from_static("another"));
    headers.insert("x-webhook-event", HeaderValue::from_static("order.deleted"));
    let opened = |body: &'static str| {
        let opened = spec.open(&request("POST", "event=order.deleted", &headers, body.as_bytes())).unwrap();
        (opened.event_key, opened.event_type)
    };
    let own = ("e-1".to_owned(), "order.created".to_owned());
    assert_eq!(opened(r#"{"event_id":"e-1","event":"order.created"}"#), own);
    assert_eq!(opened("{}"), ("another".to_owned(), String::new()), "an id at most");
}

#[test]
fn a_vendor_that_signs_nothing_is_never_verified() {
    let catalog = catalog();
    let config = json!({"webhook_scheme": "none"});
    let manifest = catalog.resolve("some-till", config.as_object().unwrap()).unwrap();
    let spec = catalog.webhook_of(&manifest).1;
    assert!(!spec.needs_secret());
    let vector = vector("zhilian-pos-webhook");
    let refusal = spec.verify(&vector.stored().as_delivery(), &secrets(&[&vector.secret])).unwrap_err();
    assert!(refusal.code == "not_signed" && refusal.is_unverifiable(), "{refusal:?}");
}

#[test]
fn a_vendor_without_a_webhook_section_is_served_by_the_generic_one() {
    let catalog = catalog();
    let folder = tempfile::tempdir().unwrap();
    let plain = "[meta]\nname='plain'\ntitle='Plain'\ntypes=['pos']\n[auth]\nkind='none'\n[probe]\nrequest.path='/'\nmessage='ok'\n[streams]\n";
    std::fs::write(folder.path().join("plain.toml"), plain).unwrap();
    let with = Catalog::load(Some(folder.path())).unwrap();
    let (manifest, _) = with.webhook_of(&with.get("plain").unwrap());
    assert_eq!(manifest.name, "generic-rest");
    let (manifest, _) = catalog.webhook_of(&catalog.get("square").unwrap());
    assert_eq!(manifest.name, "square");
    std::fs::write(folder.path().join("generic-rest.toml"), plain.replace("plain", "generic-rest")).unwrap();
    let errors = Catalog::load(Some(folder.path())).unwrap_err().to_string();
    assert!(errors.contains("generic-rest.toml: `webhook`: is missing"), "{errors}");
}
