//! Secrets go in and never come out: random canaries are given to a running service as passwords, keys
//! and secrets, the vendor repeats them in its answers, every crate logs at trace level, and then the
//! database file, the log and every answer of the API are searched for them.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use zhilian_sync::simulator::scripted::{Answer, Scripted};

/// Characters that every encoding has to work for.
fn canary(name: &str) -> String {
    let random: [u8; 12] = rand::random();
    format!("{name}+/=&%{}", hex::encode(random))
}

/// Every form in which a secret could leak.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let url: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let json = serde_json::to_string(secret).unwrap();
    [
        secret.to_owned(),
        url,
        json.trim_matches('"').to_owned(),
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        hex::encode(secret),
        hex::encode_upper(secret),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// Fails when a form of a secret stands in `bytes`.
fn assert_absent(secrets: &[(&str, Vec<Vec<u8>>)], bytes: &[u8], place: &str) {
    for (name, forms) in secrets {
        for form in forms {
            let found = bytes.windows(form.len()).position(|window| window == form.as_slice());
            if let Some(at) = found {
                let around = &bytes[at.saturating_sub(160)..(at + form.len() + 40).min(bytes.len())];
                panic!("{name} stands in {place}: …{}…", String::from_utf8_lossy(around));
            }
        }
    }
}

struct Service {
    child: Child,
    base: String,
    client: reqwest::Client,
    answers: Vec<u8>,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn start(directory: &std::path::Path, admin_password: &str, master_key: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(directory.join("log.txt")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_zhilian-sync"))
            .arg("serve")
            .env("DATABASE_URL", format!("sqlite:{}", directory.join("zhilian.db").display()))
            .env("ZHILIAN_MASTER_KEY", master_key)
            .env("ZHILIAN_ADMIN_PASSWORD", admin_password)
            .env("ZHILIAN__SERVER__ADDRESS", format!("127.0.0.1:{port}"))
            .env("ZHILIAN__VENDORS__ALLOW_NETWORKS", "127.0.0.1/32")
            .env("ZHILIAN__ENGINE__RETRY_INITIAL_SECS", "1")
            .env("ZHILIAN__ENGINE__RETRY_MAX_SECS", "1")
            .env("ZHILIAN__ENGINE__MAX_ATTEMPTS", "2")
            .env("ZHILIAN__LOG__FILTER", "trace")
            .env("RUST_LOG", "trace")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        #[expect(clippy::disallowed_methods, reason = "the test is a client of the service, not of a vendor")]
        let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { child, base: format!("http://127.0.0.1:{port}"), client, answers: Vec::new() }
    }

    /// A call; its answer is kept for the search.
    async fn call(&mut self, method: &str, path: &str, token: &str, body: Option<Value>) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        for (name, value) in response.headers() {
            self.answers.extend_from_slice(format!("{name}: {value:?}\n").as_bytes());
        }
        let bytes = response.bytes().await.unwrap();
        self.answers.extend_from_slice(&bytes);
        self.answers.push(b'\n');
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn login(&self, password: &str) -> String {
        let since = Instant::now();
        loop {
            let body = json!({"username": "admin", "password": password});
            let sent = self.client.post(format!("{}/api/v1/auth/login", self.base)).json(&body).send().await;
            if let Ok(response) = sent {
                assert_eq!(response.status().as_u16(), 200);
                let body: Value = response.json().await.unwrap();
                return body["access_token"].as_str().unwrap().to_owned();
            }
            assert!(since.elapsed() < Duration::from_mins(1), "the service does not answer");
            pause().await;
        }
    }

    /// Waits until a run has ended; its details.
    async fn ended(&mut self, run: &str, token: &str) -> Value {
        let since = Instant::now();
        loop {
            let path = format!("/api/v1/integrations/sync-logs/{run}");
            let (status, row) = self.call("GET", &path, token, None).await;
            assert_eq!(status, 200, "{row}");
            if !["pending", "syncing"].contains(&row["run"]["status"].as_str().unwrap()) {
                return row;
            }
            assert!(since.elapsed() < Duration::from_mins(1), "the run does not end: {row}");
            pause().await;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "another process cannot wake this one")]
async fn pause() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// What is given to the service to keep.
struct Canaries {
    api_key: String,
    api_secret: String,
    webhook_secret: String,
    config_key: String,
    basic_password: String,
    url_secret: String,
}

impl Canaries {
    /// One system for each way in which a secret is given and sent.
    fn systems(&self, endpoint: &str) -> [Value; 3] {
        [
            json!({"name": "by header", "type": "pos", "provider": "generic-rest", "api_endpoint": endpoint,
            "api_key": self.api_key, "api_secret": self.api_secret, "webhook_secret": self.webhook_secret, "status": "active",
            "config": {"auth": "header", "auth_header": "X-Api-Key", "records_path": "items", "total_pages_path": "pages"}}),
            json!({"name": "from config", "type": "pos", "provider": "generic-rest", "status": "active",
            "config": {"api_endpoint": endpoint, "api_key": self.config_key, "records_path": "items", "total_pages_path": "pages"}}),
            json!({"name": "basic", "type": "pos", "provider": "generic-rest", "api_endpoint": endpoint,
            "api_key": "till", "api_secret": self.basic_password, "status": "active",
            "config": {"auth": "basic", "records_path": "items", "total_pages_path": "pages"}}),
        ]
    }
}

/// Posts webhooks in which the secrets stand where vendors put them, and where nobody should, changes a secret,
/// and shows what was kept.
async fn post_webhooks(service: &mut Service, token: &str, given: &Canaries) {
    let by_address = json!({"name": "by address", "type": "pos", "provider": "house-pos", "webhook_secret": given.url_secret,
        "config": {"webhook_scheme": "url_secret", "webhook_header": "query:code"}});
    let by_header = json!({"name": "by header", "type": "pos", "provider": "house-pos", "webhook_secret": given.webhook_secret,
        "config": {"webhook_scheme": "static_code", "webhook_header": "header:X-Code"}});
    for body in [by_address, by_header] {
        let (status, system) = service.call("POST", "/api/v1/integrations/systems", token, Some(body)).await;
        assert_eq!(status, 200, "{system}");
        let path = system["webhook_path"].as_str().unwrap().to_owned();
        let sale = json!({"event": "transaction.created", "data": {"transaction_id": "W-1", "total": 1}});
        let mut statuses = Vec::new();
        for (query, header) in [
            (given.url_secret.as_str(), given.webhook_secret.as_str()),
            ("wrong", "wrong"),
            (&given.webhook_secret, &given.url_secret),
        ] {
            let url = format!("{}{path}", service.base);
            let request =
                service.client.post(url).query(&[("code", query)]).header("X-Code", header).json(&sale);
            let response = request.send().await.unwrap();
            statuses.push(response.status().as_u16());
            service.answers.extend_from_slice(&response.bytes().await.unwrap());
        }
        assert_eq!(statuses, [200, 401, 401], "the secret is read where the settings say it stands");
        let path = format!("/api/v1/integrations/systems/{}", system["id"].as_str().unwrap());
        let secret = json!({"secret": format!("{}-next", given.webhook_secret)});
        let (status, _) = service.call("POST", &format!("{path}/webhook-secret"), token, Some(secret)).await;
        assert_eq!(status, 200);
        service.call("GET", &path, token, None).await;
    }
    let (_, events) = service.call("GET", "/api/v1/integrations/webhook-events", token, None).await;
    assert!(events.as_array().unwrap().len() >= 6, "{events}");
    for event in events.as_array().unwrap() {
        let path =
            format!("/api/v1/integrations/webhook-events/{}?payload=true", event["id"].as_str().unwrap());
        let (status, shown) = service.call("GET", &path, token, None).await;
        assert_eq!(status, 200, "{shown}");
    }
}

/// Creates systems, tests them, pulls them to their failing end and shows them.
async fn work_with_systems(service: &mut Service, token: &str, systems: &[Value]) {
    for body in systems {
        let (status, system) =
            service.call("POST", "/api/v1/integrations/systems", token, Some(body.clone())).await;
        assert_eq!(status, 200, "{system}");
        let path = format!("/api/v1/integrations/systems/{}", system["id"].as_str().unwrap());
        let (_, tested) = service.call("POST", &format!("{path}/test"), token, None).await;
        assert!(tested["success"].is_boolean(), "{tested}");
        let (status, started) = service.call("POST", &format!("{path}/sync"), token, None).await;
        assert_eq!(status, 202, "{started}");
        let run = started["runs"][0]["id"].as_str().unwrap().to_owned();
        let ended = service.ended(&run, token).await;
        // It did call, it was answered with its own secrets, and it kept samples: there was much to leak.
        assert_eq!(ended["run"]["status"], "failed", "{ended}");
        assert!(ended.to_string().contains("x-echo") || ended.to_string().contains("items"), "{ended}");
        service.call("GET", &path, token, None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_secrets_are_found_nowhere() {
    // A vendor that repeats what it was sent wherever it can.
    let vendor = Scripted::start_with(|request| {
        let sent: Vec<String> = request.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let echo = sent.join("; ");
        let failing = request.query("page").is_some_and(|page| page == "2");
        let echoed = json!({"code": 500, "message": echo.clone(), "items": [], "next": request.target});
        if failing {
            return Answer::json(500, &echoed);
        }
        let record = json!({"id": "T-1", "total": 1, "updated_at": "2026-01-01T00:00:00Z", "created_at": "2026-01-01T00:00:00Z",
            "note": echo, "payment_method": sent.last(), "customer": {"name": sent.first()}});
        Answer::json(200, &json!({"items": [record, {"broken": echo}], "pages": 2})).header("x-echo", "yes")
    })
    .await
    .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let names = [
        "admin-password",
        "api-key",
        "api-secret",
        "webhook-secret",
        "config-key",
        "basic-password",
        "url-secret",
    ];
    let [admin_password, api_key, api_secret, webhook_secret, config_key, basic_password, url_secret] =
        names.map(canary);
    let key: [u8; 32] = rand::random();
    let master_key = STANDARD.encode(key);
    let mut service = Service::start(directory.path(), &admin_password, &master_key);
    let token = service.login(&admin_password).await;

    let given = Canaries { api_key, api_secret, webhook_secret, config_key, basic_password, url_secret };
    work_with_systems(&mut service, &token, &given.systems(&vendor.url())).await;
    post_webhooks(&mut service, &token, &given).await;
    for path in ["systems", "sync-logs", "pos/transactions"] {
        let (status, body) = service.call("GET", &format!("/api/v1/integrations/{path}"), &token, None).await;
        assert_eq!(status, 200, "{body}");
    }
    assert!(vendor.requests().iter().any(|request| request.header("x-api-key") == Some(&given.api_key)));
    let answers = std::mem::take(&mut service.answers);
    drop(service);

    let basic = STANDARD.encode(format!("till:{}", given.basic_password));
    let secrets: Vec<(&str, Vec<Vec<u8>>)> = [
        ("the admin's password", &admin_password),
        ("an API key", &given.api_key),
        ("an API secret", &given.api_secret),
        ("a webhook secret", &given.webhook_secret),
        ("a key inside config", &given.config_key),
        ("a basic password", &given.basic_password),
        ("a secret in an address", &given.url_secret),
        ("the basic header", &basic),
        ("the session token", &token),
        ("the master key", &master_key),
    ]
    .map(|(name, secret)| (name, forms(secret)))
    .into();
    assert_absent(&secrets, &answers, "an answer of the API");
    let mut searched = Vec::new();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert_absent(&secrets, &bytes, &path.file_name().unwrap().to_string_lossy());
        searched.push((path.file_name().unwrap().to_string_lossy().into_owned(), bytes.len()));
    }
    // The search itself must be able to find something.
    let log = std::fs::read_to_string(directory.path().join("log.txt")).unwrap();
    assert!(log.contains("TRACE"), "the log is not at trace level");
    let stored: usize =
        searched.iter().filter(|(name, _)| name.starts_with("zhilian.db")).map(|(_, bytes)| bytes).sum();
    assert!(stored > 100_000, "the database was not searched: {searched:?}");
}
