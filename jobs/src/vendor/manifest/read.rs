//! Reads the sections of a manifest that concern the vendor as a whole. Apart from the types, because
//! most of it is about what to say when something is wrong.

use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;
use zhilian_sync_store::SystemType;

use super::auth;
use super::section::{Problems, Section};
use super::signing;
use super::stream;
use super::stream::window::TimeFormat;
use super::webhook::{self, WebhookSpec};
use super::{
    Auth, Common, ConfigKey, ConfigKind, CredentialSpec, Envelope, FailureOutcome, FailureRule, Limit,
    Manifest, Messages, Probe,
};
use crate::vendor::expression::Expression;

/// How long a page token may be resumed, unless the manifest says otherwise.
const POSITION_TTL_DEFAULT: Duration = Duration::from_mins(10);
const DAY_SECS: u32 = 86_400;

pub(super) fn read_manifest(table: &toml::Table, problems: &Problems) -> Option<Manifest> {
    let root = &Section::new(table, "", problems);
    // A second reader of the same table, because `finish` uses one up.
    let closing = Section::new(table, "", problems);
    for key in [
        "meta",
        "contract",
        "connection",
        "credentials",
        "config",
        "auth",
        "signing",
        "limits",
        "envelope",
        "failures",
        "messages",
        "probe",
        "streams",
        "push",
        "webhook",
    ] {
        closing.knows(key);
    }
    closing.finish();
    let credentials: Vec<_> = root
        .named_sections("credentials")
        .into_iter()
        .map(|(name, section)| read_credential(name, section))
        .collect();
    let config: Vec<_> = root
        .named_sections("config")
        .into_iter()
        .map(|(name, section)| read_config_key(name, section))
        .collect();
    let limits = root
        .named_sections("limits")
        .into_iter()
        .filter_map(|(name, section)| read_limit(name, section))
        .collect();
    let ttl = read_contract(root);
    let streams: Vec<_> = root
        .named_sections("streams")
        .into_iter()
        .filter_map(|(name, section)| stream::read::read_stream(name, section, ttl))
        .collect();
    if streams.is_empty() && !root.has("streams") {
        problems
            .add("streams", "is missing; a manifest names at least one list, as `[streams.transactions]`");
    }
    let meta = read_meta(root);
    let (endpoint, connection) = read_connection(root);
    Some(Manifest {
        endpoint,
        connection,
        signing: root.section("signing").and_then(signing::read_signing),
        auth: auth::read_auth(root).unwrap_or(Auth::None),
        envelope: root.section("envelope").map(read_envelope).unwrap_or_default(),
        failures: read_failures(root, problems),
        messages: root.section("messages").map(read_messages).unwrap_or_default(),
        probe: read_probe(root)?,
        name: meta.0,
        title: meta.1,
        types: meta.2,
        notes: meta.3,
        push: root.section("push").and_then(super::push::read_push),
        webhook: read_webhook(root, problems),
        credentials,
        config,
        streams,
        limits,
    })
}

fn read_webhook(root: &Section<'_>, problems: &Problems) -> Option<Arc<WebhookSpec>> {
    match root.value("webhook")? {
        toml::Value::Table(table) => webhook::read::read_webhook(table, problems).map(Arc::new),
        other => {
            problems.add("webhook", format!("expected a table, found a value of type {}", other.type_str()));
            None
        }
    }
}

fn read_meta(root: &Section<'_>) -> (String, String, Vec<SystemType>, String) {
    let Some(section) =
        root.required("meta", root.section("meta"), "begin with `[meta]`, a name and a title")
    else {
        return Default::default();
    };
    let name = section.required("name", section.text("name"), "give the vendor's name, as in `provider`");
    if let Some(name) = name
        && (name.is_empty()
            || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
    {
        section.problem("name", format!("`{name}` has other signs than a-z, 0-9 and `-`"));
    }
    let title = section.required("title", section.text("title"), "give the vendor's name for people");
    let types = section.required("types", section.texts("types"), "list what it can be, such as [\"pos\"]");
    let types = types.unwrap_or_default().into_iter().filter_map(|text| {
        text.parse::<SystemType>().map_err(|problem| section.problem("types", problem)).ok()
    });
    let types = types.collect();
    let notes = section.text("notes").unwrap_or_default();
    let found = (
        name.unwrap_or_default().to_owned(),
        title.unwrap_or_default().to_owned(),
        types,
        notes.trim().to_owned(),
    );
    section.finish();
    found
}

fn read_contract(root: &Section<'_>) -> Duration {
    let Some(section) = root.section("contract") else {
        return POSITION_TTL_DEFAULT;
    };
    let ttl = section.secs("position_ttl_secs", 0..=30 * DAY_SECS).unwrap_or(POSITION_TTL_DEFAULT);
    section.finish();
    ttl
}

fn read_connection(root: &Section<'_>) -> (Option<String>, Common) {
    let empty = toml::Table::new();
    let section = root.section("connection");
    let section = section.unwrap_or_else(|| Section::new(&empty, "connection", root.problems()));
    let endpoint = section.parsed("endpoint", |text| {
        let url = url::Url::parse(text).map_err(|error| format!("`{text}` is not an address: {error}"))?;
        if matches!(url.scheme(), "https" | "http") && url.has_host() && url.query().is_none() {
            return Ok(text.to_owned());
        }
        Err(format!("`{text}` is not an address; expected `https://host/path` without a query"))
    });
    let headers = section.named_templates("headers");
    for (name, _) in &headers {
        if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
            section.problem("headers", format!("`{name}` is not the name of a header"));
        }
    }
    let (clock, clock_zone) = section.section("clock").map_or((TimeFormat::Unix, None), read_clock);
    let query = section.named_templates("query");
    let parameters = section.named_templates("parameters");
    section.finish();
    (endpoint, Common { headers, query, parameters, clock, clock_zone })
}

fn read_clock(section: Section<'_>) -> (TimeFormat, Option<Tz>) {
    let format = stream::window::read_time_format(&section, TimeFormat::Unix);
    let zone = section.parsed("zone", stream::read::read_zone);
    section.finish();
    (format, zone)
}

fn read_credential(name: &str, section: Section<'_>) -> CredentialSpec {
    let label = section.required("label", section.text("label"), "say what the vendor calls it");
    let required = section.flag("required").unwrap_or(true);
    section.finish();
    CredentialSpec { name: name.to_owned(), label: label.unwrap_or_default().to_owned(), required }
}

fn read_config_key(name: &str, section: Section<'_>) -> ConfigKey {
    let label = section.required("label", section.text("label"), "say what the setting means");
    let kinds = [
        ("text", ConfigKind::Text),
        ("number", ConfigKind::Number),
        ("flag", ConfigKind::Flag),
        ("list", ConfigKind::List),
        ("table", ConfigKind::Table),
    ];
    let key = ConfigKey {
        name: name.to_owned(),
        label: label.unwrap_or_default().to_owned(),
        kind: section.choice("type", &kinds).unwrap_or(ConfigKind::Text),
        required: section.flag("required").unwrap_or(false),
        sets: section.texts("sets").unwrap_or_default().into_iter().map(str::to_owned).collect(),
    };
    section.finish();
    key
}

fn read_limit(name: &str, section: Section<'_>) -> Option<(String, Limit)> {
    let requests =
        section.required("requests", section.whole("requests", 1..=100_000), "say how many requests");
    let per =
        section.required("per_secs", section.whole("per_secs", 1..=DAY_SECS), "say in how many seconds");
    let burst = section.whole("burst", 1..=100_000);
    section.finish();
    let requests = requests?;
    let limit = Limit { requests, per_ms: i64::from(per?) * 1_000, burst: burst.unwrap_or(1) };
    Some((name.to_owned(), limit))
}

fn read_envelope(section: Section<'_>) -> Envelope {
    let envelope = Envelope {
        success: section.expression("success", &["status", "body"]),
        error: section.paths("error").unwrap_or_default(),
    };
    section.finish();
    envelope
}

fn read_failures(root: &Section<'_>, problems: &Problems) -> Vec<FailureRule> {
    let Some(value) = root.value("failures") else {
        return Vec::new();
    };
    let Some(rules) = value.as_array() else {
        problems.add("failures", "expected `[[failures]]` with `when` and `outcome`");
        return Vec::new();
    };
    let outcomes = [
        ("retry", FailureOutcome::Retry),
        ("give_up", FailureOutcome::GiveUp),
        ("not_found", FailureOutcome::NotFound),
        ("unauthorized", FailureOutcome::Unauthorized),
        ("refresh_token", FailureOutcome::RefreshToken),
    ];
    let mut read = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let Some(rule) = rule.as_table() else { continue };
        let section = Section::new(rule, format!("failures.{at}"), problems);
        let when =
            section.required("when", section.expression("when", &["status", "body"]), "give a condition");
        let outcome = section.required(
            "outcome",
            section.choice("outcome", &outcomes),
            "expected `retry`, `give_up`, `unauthorized` or `refresh_token`",
        );
        let message = section.text("message").map(str::to_owned);
        read.extend(when.zip(outcome).map(|(when, outcome)| FailureRule { when, outcome, message }));
        section.finish();
    }
    read
}

fn read_messages(section: Section<'_>) -> Messages {
    let text = |key| section.text(key).map(str::to_owned);
    let messages = Messages {
        unauthorized: text("unauthorized"),
        forbidden: text("forbidden"),
        not_found: text("not_found"),
    };
    section.finish();
    messages
}

fn read_probe(root: &Section<'_>) -> Option<Probe> {
    let section = root.required("probe", root.section("probe"), "say how the connection is tested")?;
    let request = section.section("request").and_then(stream::read::read_request);
    let stream = section.text("stream").map(str::to_owned);
    if request.is_none() && stream.is_none() && !section.has("request") {
        section
            .problem("request", "is missing; give a request, or `stream` to read the first page of a stream");
    }
    let mut facts = Vec::new();
    for (name, source) in section.named_texts("facts") {
        match Expression::compile(source, &["status", "body"]) {
            Ok(expression) => facts.push((name.to_owned(), expression)),
            Err(problem) => section.problem(&format!("facts.{name}"), problem),
        }
    }
    let message =
        section.required("message", section.text("message"), "say what a person reads when it works");
    let message = message.unwrap_or_default().to_owned();
    let success = section.expression("success", &["status", "body"]);
    section.finish();
    Some(Probe { request, stream, success, facts, message })
}
