//! How a call is made: who we are, what we say about ourselves, where we may go, what is kept of it.

use std::time::Duration;

use serde_json::json;
use zhilian_sync_jobs::Action;

use crate::server::{Reply, Server};
use crate::support::{Bench, KEY, WHOLE, assert_no_secret, first_page, manifest, window};
use zhilian_sync_jobs::vendor::PageRequest;

const EMPTY: &str = r#"{"data": []}"#;

#[tokio::test]
async fn each_kind_of_authentication_is_sent() {
    let bench = Bench::new().await;
    let server = Server::start(|_| Reply::json(EMPTY)).await;
    let basic =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{KEY}:pass-word"));
    for (config, header) in [
        (json!({}), format!("authorization: Bearer {KEY}")),
        (json!({"auth": "header", "auth_header": "X-Token"}), format!("x-token: {KEY}")),
        (json!({"auth": "basic"}), format!("authorization: Basic {basic}")),
    ] {
        let mut spec = bench.spec("generic-rest", &server.url(), &config);
        spec.credentials.insert("api_secret".into(), "pass-word".to_owned().into());
        let connection = bench.vendors.connect(spec).unwrap();
        let page = first_page(&connection, "transactions").await.unwrap();
        let asked = server.asked().pop().unwrap();
        assert!(asked.headers.lines().any(|line| line.eq_ignore_ascii_case(&header)), "{}", asked.headers);
        assert!(asked.headers.to_lowercase().contains("user-agent: zhilian-sync/"), "{}", asked.headers);
        let sample = page.request_sample.to_string();
        assert_no_secret(&sample);
        assert!(!sample.contains(&basic) && !sample.contains("pass-word"), "{sample}");
    }
    let connection = bench.connect("generic-rest", &server.url(), &json!({"auth": "none"}));
    first_page(&connection, "transactions").await.unwrap();
    assert!(!server.asked().pop().unwrap().headers.contains(KEY));
}

#[tokio::test]
async fn a_window_and_a_page_are_asked_for() {
    let bench = Bench::new().await;
    let server = Server::start(|_| Reply::json(EMPTY)).await;
    let connection =
        bench.connect("generic-rest", &format!("{}/base/", server.url()), &json!({"until_param": "until"}));
    let page = first_page(&connection, "transactions").await.unwrap();
    let asked = server.asked().pop().unwrap();
    assert!(asked.target.starts_with("/base/transactions?"), "{}", asked.target);
    assert_eq!(asked.query("updated_since").unwrap(), "2026-01-01T00:00:00.000Z");
    assert_eq!(asked.query("until").unwrap(), "2026-01-02T00:00:00.500Z");
    assert_eq!(asked.query("page").unwrap(), "1");
    assert_eq!(asked.query("page_size").unwrap(), "100");
    assert_eq!(asked.query("offset"), None);
    assert_eq!(page.vendor_time.unwrap().to_rfc3339(), "2026-01-01T04:00:00+00:00");
    assert_eq!(page.next, None);
}

#[tokio::test]
async fn square_is_asked_as_it_wants_to_be() {
    let bench = Bench::new().await;
    let server = Server::start(|_| Reply::json("{}")).await;
    let connection = bench.connect("square", &server.url(), &json!({"location_ids": "L1, L2"}));
    assert!(first_page(&connection, "orders").await.unwrap().records.is_empty());
    let asked = server.asked().pop().unwrap();
    assert_eq!(asked.target, "/v2/orders/search");
    assert!(asked.headers.to_lowercase().contains("square-version: 2025-08-20"), "{}", asked.headers);
    let body: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(
        body,
        json!({
            "location_ids": ["L1", "L2"],
            "limit": 500,
            "return_entries": false,
            "query": {
                "filter": {
                    "date_time_filter": {"updated_at": {"start_at": "2026-01-01T00:00:00.000Z", "end_at": "2026-01-02T00:00:00.500Z"}},
                    "state_filter": {"states": ["COMPLETED", "CANCELED"]},
                },
                "sort": {"sort_field": "UPDATED_AT", "sort_order": "ASC"},
            },
        })
    );
    first_page(&connection, "payments").await.unwrap();
    let asked = server.asked().pop().unwrap();
    assert_eq!(asked.query("updated_at_begin_time").unwrap(), "2026-01-01T00:00:00.000Z");
    assert_eq!(asked.query("limit").unwrap(), "100");
    assert_eq!(asked.query("location_id"), None, "a setting that is not given is not sent");
}

#[tokio::test]
async fn a_probe_says_what_a_person_understands() {
    let bench = Bench::new().await;
    let server = Server::start(|asked| match asked.target.split('?').next().unwrap() {
        "/v2/locations" => Reply::json(r#"{"locations": [{"id": "A"}, {"id": "B"}, {"id": "C"}]}"#),
        "/v1/ping" => Reply::json(r#"{"code": 0, "data": {"shop_name": "湘味小馆"}}"#),
        "/health" => Reply::json(r#"{"ok": true}"#),
        _ => Reply::json(r#"[{"id": 1, "total": 2, "created_at": 1767240000}, {"total": 2}]"#),
    })
    .await;
    let probe = async |provider: &str, config: serde_json::Value| {
        bench.connect(provider, &server.url(), &config).probe().await.unwrap().message
    };
    assert_eq!(probe("square", json!({"location_ids": ["L1"]})).await, "Connected to Square (locations: 3)");
    assert_eq!(probe("demo-pos", json!({})).await, "Connected to the demo till of 湘味小馆");
    assert_eq!(
        probe("my-till", json!({"probe_path": "/health"})).await,
        "Connected: the till answers as expected"
    );
    let message = probe("my-till", json!({})).await;
    assert!(message.contains("the first page of the last day has 2 records; 1 of 2 records"), "{message}");
    assert!(message.contains("`external_id`"), "{message}");
}

#[tokio::test]
async fn a_failed_probe_says_what_to_do() {
    let bench = Bench::new().await;
    let server = Server::start(|_| {
        Reply::status(401, "", r#"{"errors":[{"category":"AUTHENTICATION_ERROR","code":"UNAUTHORIZED","detail":"This request could not be authorized."}]}"#)
    })
    .await;
    let error =
        bench.connect("square", &server.url(), &json!({"location_ids": ["L1"]})).probe().await.unwrap_err();
    assert_eq!(error.action, Action::Unauthorized);
    assert_eq!(
        error.message,
        "Square does not accept the access token: enter a new one (the vendor says: This request could not be authorized.)"
    );
}

#[tokio::test]
async fn what_a_system_lacks_is_said_before_any_call() {
    let bench = Bench::new().await;
    let check = |spec: zhilian_sync_jobs::vendor::ConnectionSpec| bench.vendors.connect(spec).err().unwrap();
    let mut no_key = bench.spec("square", "https://a.example", &json!({"location_ids": ["L1"]}));
    no_key.credentials.clear();
    let error = check(no_key);
    assert_eq!((error.code, error.action), ("credentials_missing", Action::GiveUp));
    assert!(error.message.contains("`api_key` (Access token)"), "{error}");
    let error = check(bench.spec("square", "https://a.example", &json!({})));
    assert_eq!(error.code, "setting_missing");
    assert!(error.message.contains("`location_ids`"), "{error}");
    let mut no_endpoint = bench.spec("generic-rest", "", &json!({}));
    assert_eq!(check(no_endpoint).code, "endpoint_missing");
    no_endpoint = bench.spec("generic-rest", "", &json!({}));
    no_endpoint.endpoint = None;
    assert_eq!(check(no_endpoint).code, "endpoint_missing");
    for endpoint in [
        "a.example",
        "ftp://a.example",
        "https://u:p@a.example",
        "https://a.example/?x=1",
        "file:///etc/passwd",
    ] {
        assert_eq!(
            check(bench.spec("generic-rest", endpoint, &json!({}))).code,
            "bad_endpoint",
            "{endpoint}"
        );
    }
    let mut line_break = bench.spec("generic-rest", "https://a.example", &json!({}));
    line_break.credentials.insert("api_key".into(), "a\nb".to_owned().into());
    assert_eq!(check(line_break).code, "bad_credentials");
}

#[tokio::test]
async fn private_addresses_are_not_called() {
    let bench = Bench::with(|settings| settings.allow_networks.clear(), "").await;
    let server = Server::start(|_| Reply::json(EMPTY)).await;
    for endpoint in [
        server.url(),
        format!("http://localhost:{}", server.port),
        format!("http://[::1]:{}", server.port),
        format!("http://2130706433:{}", server.port),
        "http://169.254.169.254".into(),
        "http://[::ffff:169.254.169.254]".into(),
    ] {
        let connection = bench.connect("generic-rest", &endpoint, &json!({}));
        let error = first_page(&connection, "transactions").await.unwrap_err();
        assert_eq!((error.code, error.action), ("address_refused", Action::GiveUp), "{endpoint}: {error}");
        assert!(error.message.contains("vendors.allow_networks"), "{error}");
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_redirect_is_followed_on_the_host_and_nowhere_else() {
    let bench = Bench::new().await;
    let elsewhere = Server::start(|_| Reply::json(EMPTY)).await;
    let other: &'static str = Box::leak(format!("Location: {}/x\r\n", elsewhere.url()).into_boxed_str());
    let server = Server::start(move |asked| match asked.target.split('?').next().unwrap() {
        "/moved" => Reply::status(302, "Location: /here\r\n", ""),
        "/metadata" => Reply::status(302, "Location: http://169.254.169.254/latest/meta-data\r\n", ""),
        "/mapped" => Reply::status(302, "Location: http://[::ffff:169.254.169.254]/\r\n", ""),
        "/other" => Reply::status(307, other, ""),
        "/circle" => Reply::status(302, "Location: /circle\r\n", ""),
        "/nowhere" => Reply::status(304, "", ""),
        _ => Reply::json(EMPTY),
    })
    .await;
    let ask = async |path: &str| {
        let connection =
            bench.connect("generic-rest", &server.url(), &json!({"path": path, "auth": "header"}));
        first_page(&connection, "transactions").await.map(|_| ()).map_err(|error| {
            assert_eq!(error.action, Action::GiveUp, "{error}");
            assert_no_secret(&error.message);
            (error.code, error.message)
        })
    };
    assert_eq!(ask("/moved").await, Ok(()));
    let (code, message) = ask("/metadata").await.unwrap_err();
    assert_eq!(code, "address_refused");
    assert!(message.contains("169.254.169.254") && message.contains("vendors.allow_networks"), "{message}");
    assert_eq!(ask("/mapped").await.unwrap_err().0, "address_refused");
    assert_eq!(ask("/other").await.unwrap_err().0, "redirect_refused");
    assert_eq!(ask("/circle").await.unwrap_err().0, "redirect_refused");
    assert_eq!(ask("/nowhere").await.unwrap_err().0, "redirect_refused");
    assert!(elsewhere.asked().is_empty(), "no key goes to another host");
}

#[tokio::test]
async fn a_secret_that_the_vendor_repeats_is_kept_nowhere() {
    let bench = Bench::new().await;
    let server = Server::start(|asked| {
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, KEY);
        let echo = format!("{{\"message\": \"bad key {KEY}\", \"hex\": \"{}\", \"b64\": \"{encoded}\", \"data\": [{{\"x\": \"{KEY}\"}}]}}", hex::encode(KEY));
        match asked.target.split('?').next().unwrap() {
            "/400" => Reply::status(400, "", &echo),
            "/401" => Reply::status(401, "", &format!("bad key {KEY}")),
            "/html" => Reply::status(200, "", &format!("<html>{KEY}")),
            _ => Reply::json(echo),
        }
    })
    .await;
    for path in ["/400", "/401", "/html"] {
        let config = json!({"path": path, "fields": {"external_id": "nr"}});
        let error = first_page(&bench.connect("generic-rest", &server.url(), &config), "transactions")
            .await
            .unwrap_err();
        assert_no_secret(&error.message);
        assert_no_secret(&format!("{error:?}"));
    }
    let connection = bench.connect("generic-rest", &server.url(), &json!({"since_param": "api_key"}));
    let page = first_page(&connection, "transactions").await.unwrap();
    assert_no_secret(&page.response_sample.to_string());
    assert_no_secret(&page.request_sample.to_string());
    let mapped = connection.map_page(connection.manifest().stream("transactions").unwrap(), &page);
    assert_eq!(mapped.failures.len(), 1);
    assert_no_secret(&format!("{:?}", mapped.failures));
    assert_no_secret(&connection.redact(&format!("key={KEY}")));
    assert_eq!(std::fs::read_dir(bench.folder()).unwrap().count(), 0);
}

#[tokio::test]
async fn samples_are_short() {
    let bench = Bench::with(|settings| settings.sample_bytes_max = 64, "").await;
    let body = format!("{{\"data\": [], \"x\": \"{}\"}}", "y".repeat(10_000));
    let server = Server::start(move |_| Reply::json(body.clone())).await;
    let page =
        first_page(&bench.connect("generic-rest", &server.url(), &json!({})), "transactions").await.unwrap();
    let sample = page.response_sample["body"].as_str().unwrap();
    assert!(sample.len() < 100 && sample.contains("bytes)"), "{sample}");
    assert_eq!(page.response_sample["status"], json!(200));
}

#[tokio::test]
async fn a_spent_budget_postpones_the_run() {
    let rest = "request.path = '/x'\nanswer.records = 'data'\n[limits.default]\nrequests = 1\nper_secs = 60\nburst = 2\n";
    let bench = Bench::with(|_| {}, &manifest(rest)).await;
    let server = Server::start(|_| Reply::json(EMPTY)).await;
    let one = bench.connect("test", &server.url(), &json!({}));
    let other = bench.connect("test", &server.url(), &json!({}));
    first_page(&one, "list").await.unwrap();
    first_page(&other, "list").await.unwrap();
    let error = first_page(&one, "list").await.unwrap_err();
    assert_eq!(error.code, "rate_budget");
    let Action::Snooze(wait) = error.action else { panic!("{error:?}") };
    assert!(wait > Duration::from_secs(50) && wait <= Duration::from_mins(1), "{wait:?}");
    assert_eq!(server.asked().len(), 2, "systems with the same credentials share the budget");
    let mut spec = bench.spec("test", &server.url(), &json!({}));
    spec.credentials.insert("api_key".into(), "another key".to_owned().into());
    first_page(&bench.vendors.connect(spec).unwrap(), "list").await.unwrap();
}

#[tokio::test]
async fn a_429_stops_every_worker() {
    let rest = "request.path = '/x'\nanswer.records = 'data'\n[limits.default]\nrequests = 100\nper_secs = 1\nburst = 100\n";
    let bench = Bench::with(|_| {}, &manifest(rest)).await;
    let server = Server::start(|_| Reply::status(429, "Retry-After: 30\r\n", "")).await;
    let connection = bench.connect("test", &server.url(), &json!({}));
    let error = first_page(&connection, "list").await.unwrap_err();
    assert_eq!(error.action, Action::Retry { after: Some(Duration::from_secs(30)) });
    let error = first_page(&connection, "list").await.unwrap_err();
    assert_eq!(error.code, "rate_budget", "the others wait without asking");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_position_of_another_kind_is_refused() {
    let bench = Bench::new().await;
    let connection = bench.connect("generic-rest", "https://a.example", &json!({}));
    let token = zhilian_sync_jobs::vendor::PageToken::Cursor("x".into());
    let stream = connection.manifest().stream("transactions").unwrap();
    let error = connection
        .fetch_page(stream, &PageRequest { partition: &WHOLE, window: window(), next: Some(&token) })
        .await
        .unwrap_err();
    assert_eq!(error.code, "bad_position");
}
