//! Access tokens: asked for once for everybody, renewed in time, asked for once more when refused, and kept
//! before they are used.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use secrecy::SecretString;
use serde_json::json;
use zhilian_sync_jobs::vendor::{Connection, Vendors};
use zhilian_sync_jobs::{Action, JobError};
use zhilian_sync_store::vendor_tokens::{self, Turn};

use crate::server::{Asked, Reply, Server};
use crate::support::{Bench, KEY, assert_no_secret, first_page};

/// A vendor that gives tokens. The parts of its answer to whoever asks for one.
struct Till {
    /// How many it gave.
    given: u32,
    /// The token that is good.
    good: String,
    /// The refresh token that is good, where it changes them.
    refresh: Option<String>,
    /// How it says no: a status, or 200 with this body.
    refusal: Result<u16, &'static str>,
}

type Shared = Arc<Mutex<Till>>;

fn till() -> Shared {
    Arc::new(Mutex::new(Till { given: 0, good: String::new(), refresh: None, refusal: Err("{}") }))
}

/// `/token` gives the next token, `/list` takes it at `X-Token`, as bearer, or in the query.
async fn vendor(till: &Shared) -> Server {
    let till = Arc::clone(till);
    Server::start(move |asked| {
        let mut till = till.lock().unwrap();
        if asked.target.starts_with("/token") {
            let wanted = till.refresh.clone();
            if wanted.is_some_and(|wanted| form(asked, "refresh_token") != Some(wanted)) {
                return Reply::status(400, "", r#"{"error": "invalid_grant"}"#);
            }
            till.given += 1;
            till.good = format!("tok-canary-{}", till.given);
            let mut answer = json!({"access_token": till.good, "expires_in": "1200"});
            if till.refresh.is_some() {
                let next = format!("refresh-canary-{}", till.given);
                answer["refresh_token"] = json!(next);
                till.refresh = Some(next);
            }
            return Reply::json(answer.to_string());
        }
        let query = asked.query("access_token");
        let sent = header(asked, "x-token").or_else(|| header(asked, "authorization")).or(query);
        if sent.is_some_and(|sent| sent.trim_start_matches("Bearer ") == till.good) {
            return Reply::json(r#"{"data": [{"id": 1}]}"#);
        }
        match till.refusal {
            Ok(status) => Reply::status(status, "", "{}"),
            Err(body) => Reply::json(body),
        }
    })
    .await
}

fn header(asked: &Asked, name: &str) -> Option<String> {
    let mut lines = asked.headers.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

fn form(asked: &Asked, name: &str) -> Option<String> {
    let mut members = url::form_urlencoded::parse(asked.body.as_bytes());
    members.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// How often the vendor was asked for a token, and for the list.
fn counts(server: &Server) -> (usize, usize) {
    let asked = server.asked();
    let tokens = asked.iter().filter(|asked| asked.target.starts_with("/token")).count();
    (tokens, asked.len() - tokens)
}

/// A manifest whose `[auth]` has these keys.
fn manifest(auth: &str, rest: &str) -> String {
    format!(
        "[meta]\nname = 'test'\ntitle = 'Acme'\ntypes = ['pos']\n\
         [credentials.api_key]\nlabel = 'Key'\n\
         [credentials.refresh_token]\nlabel = 'Refresh token'\nrequired = false\n\
         [config.shop]\nlabel = 'Shop'\n[config.color]\nlabel = 'Colour'\n\
         [auth]\n{auth}\n\
         [probe]\nstream = 'list'\nmessage = 'ok'\n\
         [streams.list]\ntarget = 'external_records'\nmapping.fields.external_id = 'id'\n\
         request.path = '/list'\nanswer.records = 'data'\n{rest}"
    )
}

/// A token for the key, sent in a header.
const BY_KEY: &str = "kind = 'token'\nrequest.path = '/token'\nrequest.query.key = '{credential.api_key}'\n\
                      request.query.shop = '{config.shop}'\ntoken = 'access_token'\nexpires_in = 'expires_in'\n\
                      place = 'header:X-Token'";

/// What the vendor says when a token is over, without a status for it.
const OVER: &str = r#"{"code": 103}"#;
const RULES: &str = "[envelope]\nsuccess = '!has(body.code) || body.code == 0'\n\
                     [[failures]]\nwhen = 'body.code >= 100 && body.code <= 108'\noutcome = 'refresh_token'";

async fn asks(connection: &Connection) -> Result<(), JobError> {
    first_page(connection, "list").await.map(drop)
}

#[tokio::test]
async fn a_token_is_asked_for_once_for_many_calls_and_systems() {
    let bench = Bench::with(|_| {}, &manifest(BY_KEY, "")).await;
    let till = till();
    let server = vendor(&till).await;
    for _ in 0..2 {
        let connection = bench.connect("test", &server.url(), &json!({}));
        for _ in 0..3 {
            let page = first_page(&connection, "list").await.unwrap();
            assert_no_secret(&page.request_sample.to_string());
            assert_no_secret(&page.response_sample.to_string());
        }
    }
    assert_eq!(counts(&server), (1, 6));
    // A setting that the token call does not name changes nothing, one that it names does.
    asks(&bench.connect("test", &server.url(), &json!({"color": "red"}))).await.unwrap();
    assert_eq!(counts(&server), (1, 7));
    asks(&bench.connect("test", &server.url(), &json!({"shop": "7"}))).await.unwrap();
    assert_eq!(counts(&server), (2, 8));
}

#[tokio::test]
async fn a_changed_credential_does_not_use_the_old_token() {
    let bench = Bench::with(|_| {}, &manifest(BY_KEY, "")).await;
    let till = till();
    let server = vendor(&till).await;
    asks(&bench.connect("test", &server.url(), &json!({}))).await.unwrap();
    let mut spec = bench.spec("test", &server.url(), &json!({}));
    spec.credentials.insert("api_key".into(), "another-key".to_owned().into());
    asks(&bench.vendors.connect(spec).unwrap()).await.unwrap();
    assert_eq!(counts(&server), (2, 2));
    assert_eq!(server.asked()[2].query("key").unwrap(), "another-key");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    for (expires_in, lasts) in [("'expires_in'", 1140), ("100", 90)] {
        let auth = BY_KEY.replace("expires_in = 'expires_in'", &format!("expires_in = {expires_in}"));
        let bench = Bench::with(|_| {}, &manifest(&auth, "")).await;
        let till = till();
        let server = vendor(&till).await;
        let connection = bench.connect("test", &server.url(), &json!({}));
        asks(&connection).await.unwrap();
        bench.clock().advance(TimeDelta::seconds(lasts - 1));
        asks(&connection).await.unwrap();
        assert_eq!(counts(&server), (1, 2), "{expires_in}");
        bench.clock().advance(TimeDelta::seconds(1));
        asks(&connection).await.unwrap();
        asks(&connection).await.unwrap();
        assert_eq!(counts(&server), (2, 4), "{expires_in}");
    }
}

#[tokio::test]
async fn a_refused_token_is_asked_for_once_more() {
    for (refusal, rest) in [(Ok(401), ""), (Err(OVER), RULES)] {
        let bench = Bench::with(|_| {}, &manifest(BY_KEY, rest)).await;
        let till = till();
        till.lock().unwrap().refusal = refusal;
        let server = vendor(&till).await;
        let connection = bench.connect("test", &server.url(), &json!({}));
        asks(&connection).await.unwrap();
        // The vendor forgets it.
        till.lock().unwrap().good = "another".into();
        asks(&connection).await.unwrap();
        assert_eq!(counts(&server), (2, 3), "refused once, then taken");
        asks(&connection).await.unwrap();
        assert_eq!(counts(&server), (2, 4), "the new one is kept");
    }
}

#[tokio::test]
async fn a_vendor_that_refuses_every_token_refuses_the_credentials() {
    for (refusal, rest) in [(Ok(401), ""), (Err(OVER), RULES)] {
        let auth = BY_KEY.replace("X-Token", "X-Wrong");
        let bench = Bench::with(|_| {}, &manifest(&auth, rest)).await;
        let till = till();
        till.lock().unwrap().refusal = refusal;
        let server = vendor(&till).await;
        let error = asks(&bench.connect("test", &server.url(), &json!({}))).await.unwrap_err();
        assert_eq!((error.action, error.code), (Action::Unauthorized, "token_refused"), "{error}");
        assert_eq!(counts(&server), (2, 2));
        assert_no_secret(&error.to_string());
    }
}

#[tokio::test]
async fn a_vendor_that_gives_no_token_refuses_the_credentials() {
    let bench = Bench::with(|_| {}, &manifest(BY_KEY, "")).await;
    for (reply, action, code) in [
        (r#"401 {"error": "who?"}"#, Action::Unauthorized, "unauthorized"),
        (r#"400 {"error": "invalid_client"}"#, Action::Unauthorized, "unauthorized"),
        ("500 {}", Action::Retry { after: None }, "vendor_unavailable"),
        (r#"200 {"access_token": ""}"#, Action::Retry { after: None }, "token_missing"),
    ] {
        let (status, body) = reply.split_once(' ').unwrap();
        let (status, body): (u16, _) = (status.parse().unwrap(), body.to_owned());
        let server = Server::start(move |_| Reply::status(status, "", &body)).await;
        let error = asks(&bench.connect("test", &server.url(), &json!({}))).await.unwrap_err();
        assert_eq!((error.action, error.code), (action, code), "{error}");
        assert_eq!(counts(&server), (1, 0), "{reply}");
        // The turn is over: whoever comes next asks at once.
        asks(&bench.connect("test", &server.url(), &json!({}))).await.unwrap_err();
        assert_eq!(counts(&server), (2, 0), "{reply}");
    }
}

#[tokio::test]
async fn two_processes_at_once_ask_for_one_token() {
    let bench = Bench::with(|_| {}, &manifest(BY_KEY, "")).await;
    let till = till();
    let server = vendor(&till).await;
    let other = Vendors::new(&bench.settings, bench.store()).unwrap();
    let connect = |vendors: &Vendors| vendors.connect(bench.spec("test", &server.url(), &json!({}))).unwrap();
    let (one, two, three) = (connect(&bench.vendors), connect(&other), connect(&other));
    let (one, two, three) = tokio::join!(asks(&one), asks(&two), asks(&three));
    assert!(one.is_ok() && two.is_ok() && three.is_ok(), "{one:?} {two:?} {three:?}");
    assert_eq!(counts(&server), (1, 3));
    // One refuses what the other has renewed already: the newer one is taken, not a third one.
    till.lock().unwrap().refusal = Ok(401);
    till.lock().unwrap().good = "another".into();
    let (one, two) = (connect(&bench.vendors), connect(&other));
    let (one, two) = tokio::join!(asks(&one), asks(&two));
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    assert_eq!(counts(&server).0, 2);
}

#[tokio::test]
async fn while_another_asks_the_old_token_is_used_or_the_run_comes_later() {
    let bench = Bench::with(|_| {}, &manifest(BY_KEY, "")).await;
    let till = till();
    let server = vendor(&till).await;
    let connection = bench.connect("test", &server.url(), &json!({}));
    asks(&connection).await.unwrap();
    let store = bench.store();
    let key = bench.token_keys().await.pop().unwrap();
    let turn = Turn { key: &key, worker: "another" };
    bench.clock().advance(TimeDelta::seconds(1150));
    assert!(vendor_tokens::lease(&store, turn, Duration::from_hours(1)).await.unwrap());
    asks(&connection).await.unwrap();
    assert_eq!(counts(&server), (1, 2), "about to end, but good");
    bench.clock().advance(TimeDelta::seconds(50));
    let error = asks(&connection).await.unwrap_err();
    assert_eq!(error.code, "token_busy", "{error}");
    assert!(matches!(error.action, Action::Snooze(_)), "{error:?}");
    vendor_tokens::release(&store, turn).await.unwrap();
    asks(&connection).await.unwrap();
    assert_eq!(counts(&server), (2, 3));
}

/// The keys of OAuth 2 in a manifest.
fn oauth2(grant: &str, more: &str) -> String {
    format!(
        "kind = 'oauth2'\ngrant = '{grant}'\nrequest.path = '/token'\nclient_id = 'hub'\n\
         client_secret = '{{credential.api_key}}'\n{more}"
    )
}

#[tokio::test]
async fn client_credentials_are_sent_as_oauth2_says() {
    let basic = format!("hub:{}", url::form_urlencoded::byte_serialize(KEY.as_bytes()).collect::<String>());
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, basic);
    for (more, secret, header_value) in [
        ("scope = 'orders:read'", Some(KEY.to_owned()), None),
        ("scope = 'orders:read'\nclient_auth = 'basic'", None, Some(format!("Basic {basic}"))),
    ] {
        let bench = Bench::with(|_| {}, &manifest(&oauth2("client_credentials", more), "")).await;
        let till = till();
        let server = vendor(&till).await;
        let page = first_page(&bench.connect("test", &server.url(), &json!({})), "list").await.unwrap();
        let asked = server.asked();
        assert_eq!(form(&asked[0], "grant_type").unwrap(), "client_credentials");
        assert_eq!(form(&asked[0], "scope").unwrap(), "orders:read");
        assert_eq!(form(&asked[0], "client_secret"), secret);
        assert_eq!(header(&asked[0], "authorization"), header_value);
        assert_eq!(header(&asked[0], "content-type").unwrap(), "application/x-www-form-urlencoded");
        assert_eq!(header(&asked[1], "authorization").unwrap(), "Bearer tok-canary-1");
        assert_no_secret(&page.request_sample.to_string());
    }
}

#[tokio::test]
async fn a_refresh_token_that_the_vendor_changes_is_kept_for_every_process() {
    let auth = oauth2("refresh_token", "refresh_token = '{credential.refresh_token}'");
    let bench = Bench::with(|_| {}, &manifest(&auth, "")).await;
    let till = till();
    till.lock().unwrap().refresh = Some("entered-canary".into());
    let server = vendor(&till).await;
    let connect = |vendors: &Vendors, refresh_token: &str| {
        let mut spec = bench.spec("test", &server.url(), &json!({}));
        let secret = |text: &str| SecretString::from(text);
        spec.credentials = BTreeMap::from([
            ("api_key".into(), secret(KEY)),
            ("refresh_token".into(), secret(refresh_token)),
        ]);
        vendors.connect(spec).unwrap()
    };
    let used = |server: &Server| -> Vec<String> {
        server.asked().iter().filter_map(|asked| form(asked, "refresh_token")).collect()
    };
    asks(&connect(&bench.vendors, "entered-canary")).await.unwrap();
    bench.clock().advance(TimeDelta::hours(1));
    let other = Vendors::new(&bench.settings, bench.store()).unwrap();
    asks(&connect(&other, "entered-canary")).await.unwrap();
    bench.clock().advance(TimeDelta::hours(1));
    asks(&connect(&bench.vendors, "entered-canary")).await.unwrap();
    assert_eq!(used(&server), ["entered-canary", "refresh-canary-1", "refresh-canary-2"]);

    // Somebody signs in anew: what a person enters counts, not what was kept.
    till.lock().unwrap().refresh = Some("anew-canary".into());
    bench.clock().advance(TimeDelta::hours(1));
    let error = asks(&connect(&other, "entered-canary")).await.unwrap_err();
    assert_eq!((error.action, error.code), (Action::Unauthorized, "unauthorized"), "{error}");
    assert_no_secret(&error.to_string());
    asks(&connect(&other, "anew-canary")).await.unwrap();
    assert_eq!(used(&server).last().unwrap(), "anew-canary");
}

#[tokio::test]
async fn an_access_token_is_not_used_before_it_is_kept() {
    let bench = Bench::with(|_| {}, &manifest(BY_KEY, "")).await;
    let till = till();
    let server = vendor(&till).await;
    bench.refuse_tokens().await;
    let error = asks(&bench.connect("test", &server.url(), &json!({}))).await.unwrap_err();
    assert_eq!(counts(&server), (1, 0), "{error}");
}

#[tokio::test]
async fn a_token_among_the_parameters_is_signed_with_them() {
    let auth = BY_KEY.replace("header:X-Token", "parameter:access_token");
    let signing =
        "[signing]\nplace = 'parameter:sign'\ncontent = '{pairs}{credential.api_key}'\nalgorithm = 'sha256'";
    let auth = format!("{auth}\nrequest.signed = false");
    let bench = Bench::with(|_| {}, &manifest(&auth, signing)).await;
    let till = till();
    let server = vendor(&till).await;
    let page = first_page(&bench.connect("test", &server.url(), &json!({})), "list").await.unwrap();
    let asked = server.asked();
    assert_eq!(asked[0].query("sign"), None);
    let signed = format!("access_token=tok-canary-1{KEY}");
    let expected = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(signed));
    assert_eq!(asked[1].query("sign").unwrap(), expected);
    let sample = page.request_sample.to_string();
    assert!(sample.contains("access_token=***&sign=***"), "{sample}");
}
