//! `vendors try` against a vendor on loopback that signs in, turns pages and repeats our secrets.

use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;
use zhilian_sync::simulator::scripted::{Answer, RecordedRequest, Scripted};

const SECRET: &str = "sk-canary-7Jx+/9q";
const TOKEN: &str = "tok-canary-55aa11";

const MANIFEST: &str = r#"
[meta]
name = "acme"
title = "Acme"
types = ["pos"]
[credentials.api_secret]
label = "Secret"
[config.shop]
label = "Shop"
[auth]
kind = "token"
request.method = "POST"
request.path = "/token"
request.body = { secret = "{credential.api_secret}" }
token = "token"
place = "header:X-Token"
[signing]
place = "parameter:sign"
content = "{pairs}{credential.api_secret}"
algorithm = "md5"
[probe]
stream = "bills"
message = "ok"
[streams.bills]
target = "pos_transactions"
answer.records = "list"
[streams.bills.request]
method = "POST"
path = "/bills"
body_as = "form"
body = { shop = "{config.shop}", from = "{window.from}" }
[streams.bills.window]
format = "unix"
[streams.bills.pagination]
style = "page"
page_param = "page"
size = 2
[streams.bills.mapping]
money_unit = "minor"
when = "!has(record.draft)"
[streams.bills.mapping.fields]
external_id = "id"
total = "sum"
occurred_at = "at"
payment_method = "pay"
"#;

/// A folder with what the command is given, and one for what it leaves.
struct Desk {
    given: TempDir,
    left: TempDir,
    vendor: Scripted,
}

impl Desk {
    async fn new(script: impl Fn(&RecordedRequest) -> Answer + Send + Sync + 'static) -> Self {
        let desk = Self {
            given: tempfile::tempdir().unwrap(),
            left: tempfile::tempdir().unwrap(),
            vendor: Scripted::start_with(script).await.unwrap(),
        };
        desk.put("acme.toml", MANIFEST);
        desk.put("secrets.toml", &format!("api_secret = \"{SECRET}\""));
        desk.put("system.json", r#"{"shop": "s1"}"#);
        desk.put("settings.toml", "[vendors]\nallow_networks = [\"127.0.0.1\"]");
        desk
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.given.path().join(name)
    }

    /// Runs the command; gives its exit code, and what it printed on either.
    async fn run(&self, arguments: &[&str]) -> (i32, String) {
        let path = |name: &str| self.file(name).display().to_string();
        let done = Command::new(env!("CARGO_BIN_EXE_zhilian-sync"))
            .args(["vendors", "try", "--stream", "bills", "--endpoint", &self.vendor.url()])
            .args(["--manifest", &path("acme.toml"), "--credentials", &path("secrets.toml")])
            .args(["--system-config", &path("system.json"), "--config", &path("settings.toml")])
            .args(arguments)
            .current_dir(self.left.path())
            .env("TMPDIR", self.left.path())
            .output()
            .await
            .unwrap();
        assert!(is_empty(self.left.path()), "the command left something behind");
        let [out, error] = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (done.status.code().unwrap(), out + &error)
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

/// A page that repeats what it was asked with, to whoever has the token.
fn page(request: &RecordedRequest) -> Answer {
    if request.path() == "/token" {
        return Answer::json(200, &json!({"token": TOKEN}));
    }
    assert_eq!(request.header("x-token"), Some(TOKEN));
    let bill = |id: u32, sum: serde_json::Value| json!({"id": id, "sum": sum, "at": "2026-01-01T04:00:00Z", "pay": SECRET});
    Answer::json(200, &json!({"list": [bill(1, json!(1250)), {"draft": 1}, bill(3, json!("much"))]}))
}

#[tokio::test]
async fn records_are_shown_beside_what_they_become_and_no_secret_is_shown() {
    let desk = Desk::new(page).await;
    let (code, printed) = desk.run(&["--from", "2026-01-01"]).await;
    assert_eq!(code, 0, "{printed}");
    let sent = desk.vendor.requests();
    let form = String::from_utf8(sent[1].body.to_vec()).unwrap();
    let sign = form.split('&').find_map(|pair| pair.strip_prefix("sign=")).unwrap();
    for secret in [SECRET, TOKEN, sign] {
        assert!(!printed.contains(secret), "`{secret}` is in {printed}");
    }
    for part in [
        "/token?sign=***\n",
        "POST http://127.0.0.1:",
        "x-token: ***",
        "\"shop\": \"s1\"",
        "\"from\": \"1767196800\"",
        "\"sign\": \"***\"",
        "record 1, as the vendor sent it:\n",
        "\"sum\": 1250\n",
        "becomes in `pos_transactions`:\n",
        "\"total\": 12.50",
        "is left out by `mapping.when`",
        "3 records on this page: 1 left out, 1 cannot be mapped",
        "  record 3: ",
        "next page: number 2",
    ] {
        assert!(printed.contains(part), "`{part}` is not in {printed}");
    }
}

#[tokio::test]
async fn only_so_many_records_are_shown_and_all_are_counted() {
    let desk = Desk::new(page).await;
    let (code, printed) = desk.run(&["--limit", "1"]).await;
    assert_eq!(code, 0, "{printed}");
    assert_eq!(printed.matches("as the vendor sent it").count(), 1, "{printed}");
    assert!(printed.contains("3 records on this page: 1 left out, 1 cannot be mapped"), "{printed}");
}

#[tokio::test]
async fn a_page_that_a_pull_would_refuse_is_a_failure() {
    let desk = Desk::new(|request| match request.path() {
        "/token" => Answer::json(200, &json!({"token": TOKEN})),
        _ => Answer::json(200, &json!({"list": [{"id": 1}, {"id": 2}]})),
    });
    let (code, printed) = desk.await.run(&[]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("error: 2 of 2 records of Acme cannot be mapped"), "{printed}");
}

#[tokio::test]
async fn a_refused_call_is_a_failure_that_shows_the_request_and_no_secret() {
    let desk = Desk::new(|request| match request.path() {
        "/token" => Answer::json(200, &json!({"token": TOKEN})),
        _ => Answer::json(403, &json!({"message": format!("{SECRET} may not")})),
    })
    .await;
    let (code, printed) = desk.run(&[]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("/bills") && printed.contains("error: "), "{printed}");
    assert!(!printed.contains(SECRET) && !printed.contains(TOKEN), "{printed}");
}

#[tokio::test]
async fn the_guards_of_the_service_hold() {
    let desk = Desk::new(page).await;
    desk.put("settings.toml", "");
    let (code, printed) = desk.run(&[]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("allow_networks"), "{printed}");
    assert!(desk.vendor.requests().is_empty());
}

#[tokio::test]
async fn what_is_given_wrongly_is_told() {
    let desk = Desk::new(page).await;
    desk.put("secrets.toml", &format!("api_key = \"{SECRET}\""));
    let (code, printed) = desk.run(&[]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("`api_key` is no credential of `acme`; expected `api_secret`"), "{printed}");
    assert!(!printed.contains(SECRET) && desk.vendor.requests().is_empty());
}
