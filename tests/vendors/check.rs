//! `vendors check` with recorded answers and known signatures: all mistakes at once, each with its place.

use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

const MANIFEST: &str = r#"[meta]
name = "acme"
title = "Acme"
types = ["pos"]
[credentials.api_secret]
label = "Secret"
[auth]
kind = "none"
[signing]
place = "query:sign"
content = "{pairs}{credential.api_secret}"
algorithm = "md5"
[probe]
stream = "bills"
message = "ok"
[streams.bills]
target = "external_records"
request.path = "/bills"
request.query = { shop = "1" }
answer.records = "list"
mapping.fields.external_id = "id"
"#;

/// The MD5 of `shop=1secret`.
const SIGN: &str = "c7e70e1405a6d9d612baeb97f645658a";

struct Desk(TempDir);

impl Desk {
    fn new(manifest: &str, sign: &str) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        desk.put("acme.toml", manifest);
        std::fs::create_dir(desk.0.path().join("recorded")).unwrap();
        desk.put("recorded/bills.json", r#"{"list": [{"id": 1}, {}]}"#);
        let through = json!({
            "manifest": "acme", "call": "bills", "sent": "query:sign",
            "credentials": {"api_secret": "secret"}, "config": {}, "at": 1_767_225_600,
        });
        let vector = json!({"id": "ours", "expected": sign, "through": through});
        desk.put("vectors.json", &json!([vector]).to_string());
        desk
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    /// Whether it went well, and what was printed on either.
    fn check(&self) -> (bool, String) {
        let done = Command::new(env!("CARGO_BIN_EXE_zhilian-sync"))
            .args(["vendors", "check", "acme.toml", "--payloads", "recorded", "--vectors", "vectors.json"])
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let [out, error] = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (done.status.success(), out + &error)
    }
}

#[test]
fn what_is_right_is_shown_with_answers_and_signatures() {
    let (right, printed) = Desk::new(MANIFEST, SIGN).check();
    assert!(right, "{printed}");
    assert!(printed.contains("bills.json: 0 transactions, 0 orders, 0 members, 1 records"), "{printed}");
    assert!(printed.contains("1 signatures as expected"), "{printed}");
}

#[test]
fn a_mistake_has_file_line_and_key() {
    let wrong = MANIFEST.replace("\"/bills\"", "\"bills\"").replace("md5", "md4");
    let (right, printed) = Desk::new(&wrong, SIGN).check();
    assert!(!right);
    let starts: Vec<&str> = printed.lines().filter_map(|line| line.split("`: ").next()).collect();
    assert_eq!(starts, ["acme.toml:12: `signing.algorithm", "acme.toml:18: `streams.bills.request.path"]);
}

#[test]
fn answers_and_signatures_that_are_wrong_are_told_together() {
    let desk = Desk::new(MANIFEST, "00");
    desk.put("recorded/bills.json", "{}");
    let (right, printed) = desk.check();
    assert!(!right);
    assert!(printed.contains("bills.json: there is no list at `list`"), "{printed}");
    assert!(
        printed.contains(&format!("vectors.json: `ours`: `{SIGN}` is at `query:sign`; expected `00`")),
        "{printed}"
    );
}
