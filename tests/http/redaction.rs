//! Secrets are looked for everywhere they must not be: in the database, in the log lines of all crates at
//! trace level, and in every answer; in clear, and as base64, hexadecimal and URL-encoded text.

use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use poem::http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use zhilian_sync::config::{LogFormat, LogSettings};
use zhilian_sync::simulator::scripted::{Answer, RecordedRequest, Scripted};
use zhilian_sync::telemetry;
use zhilian_sync_store::{Pool, Role, passwords};

use crate::hooks::signed;
use crate::support::{Answered, TestApp};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Everything that must be found nowhere.
struct Canaries {
    password: String,
    api_key: String,
    api_secret: String,
    webhook: String,
    in_address: String,
    in_map: String,
    in_config: String,
}

impl Canaries {
    fn new() -> Self {
        // With signs that URLs and JSON write in another way.
        let canary = || format!("{}/+&=%7e", passwords::new_token().0.expose_secret());
        Self {
            password: canary(),
            api_key: canary(),
            api_secret: canary(),
            webhook: canary(),
            in_address: canary(),
            in_map: canary(),
            in_config: canary(),
        }
    }

    fn all(&self) -> [&str; 7] {
        [
            &self.password,
            &self.api_key,
            &self.api_secret,
            &self.webhook,
            &self.in_address,
            &self.in_map,
            &self.in_config,
        ]
    }
}

/// The ways in which a secret may be written.
fn forms(secret: &str) -> Vec<String> {
    vec![
        secret.to_owned(),
        STANDARD.encode(secret).trim_end_matches('=').to_owned(),
        URL_SAFE_NO_PAD.encode(secret),
        hex::encode(secret),
        hex::encode_upper(secret),
        url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
    ]
}

fn assert_absent(place: &str, content: &[u8], secrets: &[&str]) {
    let content = String::from_utf8_lossy(content);
    for (number, secret) in secrets.iter().enumerate() {
        for (form, text) in forms(secret).into_iter().enumerate() {
            assert!(!content.contains(&text), "secret {number} stands in {place}, in form {form}");
        }
    }
}

#[tokio::test]
async fn secrets_are_found_nowhere() {
    let lines = Lines::default();
    let writer = lines.clone();
    let settings = LogSettings { format: LogFormat::Json, filter: "trace".to_owned() };
    Registry::default().with(telemetry::layer(&settings, move || writer.clone(), false)).try_init().unwrap();
    // A vendor that gives back whatever it was sent, in its error.
    let echo = |request: &RecordedRequest| {
        let said = format!("no {}: {:?}", request.target, request.headers);
        Answer::json(500, &json!({"code": 1, "message": said}))
    };
    let vendor = Scripted::start_with(echo).await.unwrap();
    for app in TestApp::every().await {
        let canaries = Canaries::new();
        let mut secrets = canaries.all().to_vec();
        let token = play(&app, &vendor, &canaries).await;
        secrets.push(&token);
        let contents = contents(&app).await;
        assert!(String::from_utf8_lossy(&contents).contains("demo-pos"), "the database was read");
        assert_absent("the database", &contents, &secrets);
        assert_absent("the log", &lines.0.lock().unwrap(), &secrets);
    }
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("\"level\":\"TRACE\"") && log.contains("sqlx::query"), "everything was asked for");
    assert!(!vendor.requests().is_empty(), "the key was sent to the vendor");
}

/// Signs in, makes a system, lets its vendor fail, and does what is refused; every answer is looked at. The
/// answer is the token, which the answer to the sign-in alone may hold.
async fn play(app: &TestApp, vendor: &Scripted, canaries: &Canaries) -> String {
    app.user("mei", &canaries.password, Role::Admin).await;
    let body = json!({"username": "mei", "password": canaries.password});
    let signed_in = app.send(Method::POST, "/auth/login", None, Some(&body)).await;
    assert_absent("the sign-in", signed_in.text.as_bytes(), &canaries.all());
    let token = signed_in.json()["access_token"].as_str().unwrap().to_owned();

    let system = json!({
        "name": "Till", "type": "pos", "provider": "demo-pos", "api_endpoint": vendor.url(),
        "api_key": canaries.api_key, "api_secret": canaries.api_secret, "webhook_secret": canaries.webhook,
        "credentials": {"app_id": canaries.in_map}, "config": {"access_token": canaries.in_config},
    });
    let mut answers = vec![app.post("/integrations/systems", &token, &system).await];
    let id = answers[0].json()["id"].as_str().unwrap().to_owned();
    let path = format!("/integrations/systems/{id}");
    answers.push(app.post(&format!("{path}/test?wait=0"), &token, &json!({})).await);
    answers.push(app.post(&format!("{path}/sync"), &token, &json!({})).await);
    app.drain().await;
    answers.push(app.get(&path, &token).await);
    answers.push(app.get("/integrations/systems", &token).await);
    let runs = app.get("/integrations/sync-logs", &token).await;
    for run in runs.json().as_array().unwrap() {
        answers
            .push(app.get(&format!("/integrations/sync-logs/{}", run["id"].as_str().unwrap()), &token).await);
    }
    answers.push(runs);
    answers.push(app.put(&path, &token, &json!({"api_endpoint": "https://other.example"})).await);
    let mut misplaced = system.clone();
    misplaced["type"] = Value::String(canaries.api_key.clone());
    misplaced["sync_enabled"] = Value::String(canaries.api_secret.clone());
    misplaced["config"] = json!({"auth": {"password": canaries.in_config}});
    answers.push(app.post("/integrations/systems", &token, &misplaced).await);
    answers.extend(post_webhooks(app, &token, canaries).await);
    answers.push(app.get("/auth/me", &token).await);
    answers.push(app.post("/auth/logout", &token, &json!({})).await);
    let mut secrets = canaries.all().to_vec();
    secrets.push(&token);
    for answered in &answers {
        assert_absent("an answer", answered.text.as_bytes(), &secrets);
    }
    token
}

/// Lets a vendor post with its secret in the address and in a header, right and wrong, some of it where it does
/// not belong, and shows what was kept of it.
async fn post_webhooks(app: &TestApp, token: &str, canaries: &Canaries) -> Vec<Answered> {
    let mut answers = Vec::new();
    let by_address = json!({
        "name": "Hooks", "type": "pos", "provider": "house-pos", "webhook_secret": canaries.in_address,
        "config": {"webhook_scheme": "url_secret", "webhook_header": "query:code"},
    });
    let by_signature = json!({
        "name": "Signed", "type": "pos", "provider": "house-pos", "webhook_secret": canaries.webhook,
    });
    let mut ids = Vec::new();
    for body in [by_address, by_signature] {
        let made = app.post("/integrations/systems", token, &body).await;
        ids.push(made.json()["id"].as_str().unwrap_or_else(|| panic!("{}", made.text)).to_owned());
        answers.push(made);
    }
    let (hooks, till) = (&ids[0], &ids[1]);
    let code: String = url::form_urlencoded::byte_serialize(canaries.in_address.as_bytes()).collect();
    // The payload repeats the secret, as a vendor that puts its whole request into it would.
    let said =
        json!({"event": "transaction.created", "data": {"transaction_id": "T-1", "total": 1}}).to_string();
    let posted = [
        (format!("{hooks}?code={code}"), vec![], said.clone()),
        (format!("{hooks}?token={code}"), vec![], said.clone()),
        (format!("{hooks}?code={code}x"), vec![], said.clone()),
        (till.clone(), signed(&said, &canaries.webhook).to_vec(), said.clone()),
        (till.clone(), vec![("authorization", format!("Bearer {}", canaries.webhook))], said),
    ];
    for (place, headers, body) in posted {
        let path = format!("/api/v1/integrations/webhooks/pos/{place}");
        answers.push(app.send_body(Method::POST, &path, &headers, body.into()).await);
    }
    let path = format!("/integrations/systems/{hooks}");
    let given = json!({"secret": format!("{}/second", canaries.webhook)});
    answers.push(app.post(&format!("{path}/webhook-secret"), token, &given).await);
    answers.push(app.post(&format!("{path}/webhook-events/reverify"), token, &json!({})).await);
    app.drain().await;
    let events = app.get("/integrations/webhook-events", token).await;
    let kept = events.json().as_array().unwrap().clone();
    assert!(kept.len() >= 5, "{}", events.text);
    for event in kept {
        let path = format!("/integrations/webhook-events/{}?payload=true", event["id"].as_str().unwrap());
        answers.push(app.get(&path, token).await);
    }
    answers.push(events);
    answers
}

/// Everything that the database holds.
async fn contents(app: &TestApp) -> Vec<u8> {
    let Pool::Postgres(pool) = app.store().pool() else {
        let path = app.database_url().strip_prefix("sqlite:").unwrap();
        let mut bytes = std::fs::read(path).unwrap();
        bytes.extend(std::fs::read(format!("{path}-wal")).unwrap());
        return bytes;
    };
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = 'public'")
            .fetch_all(pool)
            .await
            .unwrap();
    let mut all = String::new();
    for table in tables {
        let dump = sqlx::AssertSqlSafe(format!("SELECT CAST({table} AS TEXT) FROM {table}"));
        all.extend(sqlx::query_scalar::<_, String>(dump).fetch_all(pool).await.unwrap());
    }
    all.into_bytes()
}
