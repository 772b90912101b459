//! Every known signature of a request, made by a manifest: the vector's inputs are a system's settings and
//! secrets, the vendor is on loopback, and what counts is the signature that it was sent.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, TimeDelta};
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use zhilian_sync_jobs::vendor::{PageRequest, Partition, Window, check_vectors};

use crate::server::{Asked, Reply, Server};
use crate::support::Bench;

const VECTORS: &str = include_str!("request_vectors.json");

/// What the vendor answers to everything: an empty list, and a token to whoever asks for one.
const ANSWER: &str = r#"{"errcode": 0, "code": 0, "res": [], "data": [], "result": {"token": "tok_demo", "data": {"list": []}}}"#;

#[tokio::test]
async fn every_known_signature_is_made_by_a_manifest() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    assert!(vectors.len() >= 18, "{}", vectors.len());
    for vector in &vectors {
        let sent = sent(vector).await;
        assert_eq!(Some(sent.as_str()), vector["expected"].as_str(), "{}: {sent}", vector["id"]);
    }
}

#[tokio::test]
async fn every_known_signature_is_made_without_a_vendor_too() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    let bench = Bench::with(|settings| settings.directory = folder().display().to_string(), "").await;
    let file = folder().with_file_name("request_vectors.json");
    let mut names: Vec<_> =
        vectors.iter().map(|vector| vector["through"]["manifest"].as_str().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    let made = names.iter().map(|name| check_vectors(&bench.vendors, name, &file));
    let made: Result<Vec<_>, _> = made.collect();
    let counts = made.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(counts.iter().sum::<usize>(), vectors.len());
}

/// Spoils a vector.
type Change = fn(&mut Value);

#[tokio::test]
async fn a_vector_that_a_manifest_does_not_make_is_told() {
    let bench = Bench::with(|settings| settings.directory = folder().display().to_string(), "").await;
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    let good = vectors.iter().find(|vector| vector["id"] == "pinzhi-empty-and-null").unwrap();
    let file = bench.folder().join("vectors.json");
    let told = |change: &dyn Fn(&mut Value)| {
        let mut vector = good.clone();
        change(&mut vector);
        std::fs::write(&file, json!([vector]).to_string()).unwrap();
        check_vectors(&bench.vendors, "pinzhi-rule", &file).map_err(|errors| errors.to_string())
    };
    assert_eq!(told(&|_| {}), Ok(1));
    let mistakes: [(Change, &str); 7] = [
        (
            |vector| vector["expected"] = json!("00"),
            "`pinzhi-empty-and-null`: `810c4e905722e5b18de2fb5ce0567b0d` is at",
        ),
        (|vector| vector["through"]["sent"] = json!("query:sign"), "nothing is at `query:sign`"),
        (|vector| vector["through"]["call"] = json!("orders"), "`orders` is no stream"),
        (|vector| vector["through"]["call"] = json!("token"), "no request of a token"),
        (|vector| vector["through"]["credentials"] = json!({}), "needs `token`"),
        (|vector| vector["through"]["manifest"] = json!("other"), "has no vector of `pinzhi-rule`"),
        (|vector| vector["through"]["at_"] = json!(1), "unknown field `at_`"),
    ];
    for (change, says) in mistakes {
        let found = told(&change).unwrap_err();
        assert!(found.contains("vectors.json: ") && found.contains(says), "{says}: {found}");
    }
}

#[tokio::test]
async fn a_systems_setting_chooses_a_step() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    let mut vector = vectors.iter().find(|vector| vector["id"] == "pinzhi-orders").unwrap().clone();
    vector["through"]["config"]["sign_case"] = json!("hex_upper");
    assert_eq!(sent(&vector).await, vector["expected"].as_str().unwrap().to_uppercase());
}

#[tokio::test]
async fn no_manifest_of_a_rule_is_without_a_vector() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        let used = vectors.iter().any(|vector| vector["through"]["manifest"] == name);
        assert!(used || !name.ends_with("-rule"), "no vector goes through {name}");
    }
}

/// Vectors of calls that a shipped manifest does not make go through another with the same rule.
#[test]
fn the_rules_of_shipped_vendors_are_those_of_their_manifests() {
    let signing = |file: &Path| {
        let text =
            std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        text.parse::<toml::Table>().unwrap()["signing"].clone()
    };
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/vendors");
    for (rule, vendor) in [
        ("acewill-rule", "aoqiwei-crm"),
        ("aoqiwei-scm-rule", "aoqiwei-scm"),
        ("meituan-catering-rule", "meituan-cater"),
        ("pinzhi-rule", "pinzhi"),
    ] {
        let of_rule = signing(&folder().join(format!("{rule}.toml")));
        assert_eq!(of_rule, signing(&shipped.join(format!("{vendor}.toml"))), "{rule}");
    }
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vendors/manifests")
}

/// Makes the vector's call; gives the signature that arrived.
async fn sent(vector: &Value) -> String {
    let through = &vector["through"];
    let texts = |key: &str| through[key].as_str().unwrap_or_else(|| panic!("{}: `{key}`", vector["id"]));
    let at = DateTime::from_timestamp(through["at"].as_i64().unwrap(), 0).unwrap();
    let bench = Bench::with(|settings| settings.directory = folder().display().to_string(), "").await;
    bench.clock().advance(at - bench.clock().now());
    let server = Server::start(|_| Reply::json(ANSWER)).await;
    let endpoint = format!("{}/api/v1", server.url());
    let mut spec = bench.spec(texts("manifest"), &endpoint, &through["config"]);
    spec.credentials = secrets(&through["credentials"]);
    let secrets = spec.credentials.clone();
    let connection = bench.vendors.connect(spec).unwrap_or_else(|error| panic!("{error}"));
    let samples = if texts("call") == "probe" {
        let report = connection.probe().await.unwrap_or_else(|error| panic!("{error}"));
        [report.request_sample, report.response_sample]
    } else {
        let manifest = connection.manifest();
        let any_list = || manifest.streams.iter().find(|stream| !stream.is_looked_up()).unwrap();
        let stream = manifest.stream(texts("call")).unwrap_or_else(any_list);
        let day = TimeDelta::days(1) - TimeDelta::seconds(1);
        // The vectors' windows are a day of Shanghai, eight hours ahead.
        let from = at - TimeDelta::hours(8);
        let window = Window { from: Some(from), to: from + day };
        let partition = Partition::of(through["partition"].clone());
        let page =
            connection.fetch_page(stream, &PageRequest { partition: &partition, window, next: None }).await;
        let page = page.unwrap_or_else(|error| panic!("{}: {error}", vector["id"]));
        [page.request_sample, page.response_sample]
    };
    let asked = server.asked();
    let asked = if texts("call") == "token" { asked.first().unwrap() } else { asked.last().unwrap() };
    let signature = find(asked, texts("sent")).unwrap_or_else(|| panic!("{}: {asked:?}", vector["id"]));
    for sample in samples.map(|sample| sample.to_string()) {
        assert!(!sample.contains(&signature), "the signature is in {sample}");
        for (name, secret) in &secrets {
            // `test` of the published vector is part of its path.
            let secret = secrecy::ExposeSecret::expose_secret(secret);
            assert!(secret == "test" || !sample.contains(secret), "`{name}` is in {sample}");
        }
    }
    signature
}

fn secrets(given: &Value) -> BTreeMap<String, SecretString> {
    let given: &Map<String, Value> = given.as_object().unwrap();
    given.iter().map(|(name, secret)| (name.clone(), SecretString::from(secret.as_str().unwrap()))).collect()
}

/// The value at `query:sign`, `form:sign` or `header:x-sign`.
fn find(asked: &Asked, place: &str) -> Option<String> {
    let (kind, name) = place.split_once(':').unwrap();
    match kind {
        "query" => asked.query(name),
        "form" => url::form_urlencoded::parse(asked.body.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned()),
        _ => asked.headers.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        }),
    }
}
