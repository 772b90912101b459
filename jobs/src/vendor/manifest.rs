//! A vendor, as data: one TOML file says how to sign in, what to ask, where the records are and what
//! their members mean. This file holds the sections that concern the vendor as a whole; what one list
//! of records needs is in `manifest/stream.rs`. A manifest is read and checked once, expressions and
//! templates are compiled, and every mistake is told with file, key and fix.

pub(super) mod section;
pub(super) mod stream;

use std::collections::BTreeMap;

use zhilian_sync_store::SystemType;

pub use self::section::{ManifestError, ManifestErrors};
use self::section::{Problems, Section};
pub(crate) use self::stream::{Pagination, PagingStyle, Request};
pub use self::stream::{Stream, Target};
use super::expression::Expression;
use super::path::Path;
use super::template::{Slot, Template};

/// How long a page token may be resumed, unless the manifest says otherwise.
const POSITION_TTL_DEFAULT_SECS: u64 = 600;
const DAY_SECS: u32 = 86_400;

/// One vendor.
#[derive(Debug)]
pub struct Manifest {
    /// The name by which a system's `provider` calls it; the file's name.
    pub name: String,
    /// The name for people.
    pub title: String,
    /// The types of system it can be.
    pub types: Vec<SystemType>,
    /// What an operator should know.
    pub notes: String,
    /// The address that is called where a system names none.
    pub endpoint: Option<String>,
    /// What a system has to give.
    pub credentials: Vec<CredentialSpec>,
    /// The settings that a system may or must give in its `config`.
    pub config: Vec<ConfigKey>,
    /// The lists that can be pulled.
    pub streams: Vec<Stream>,
    pub(crate) headers: Vec<(String, Template)>,
    pub(crate) auth: Auth,
    pub(crate) limits: BTreeMap<String, Limit>,
    pub(crate) envelope: Envelope,
    pub(crate) failures: Vec<FailureRule>,
    pub(crate) messages: Messages,
    pub(crate) probe: Probe,
}

/// One secret that a system gives.
#[derive(Debug, Clone)]
pub struct CredentialSpec {
    /// Its name, such as `api_key`.
    pub name: String,
    /// What it is called in the vendor's own pages.
    pub label: String,
    /// Whether nothing works without it.
    pub required: bool,
}

/// One setting that a system gives in its `config`.
#[derive(Debug, Clone)]
pub struct ConfigKey {
    /// Its name.
    pub name: String,
    /// What it means.
    pub label: String,
    /// What it must be.
    pub kind: ConfigKind,
    /// Whether nothing works without it.
    pub required: bool,
    /// The keys of the manifest that it takes the place of.
    pub sets: Vec<String>,
}

/// What a setting must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigKind {
    /// Text; a number is taken as its text.
    Text,
    /// A whole number, or its text.
    Number,
    /// `true` or `false`.
    Flag,
    /// A list of texts, or one text with commas.
    List,
    /// An object.
    Table,
}

/// How a call proves who we are.
#[derive(Debug)]
pub(crate) enum Auth {
    None,
    Bearer {
        token: Template,
    },
    Header {
        header: String,
        value: Template,
    },
    Basic {
        username: Template,
        password: Option<Template>,
    },
}

/// How fast a class of endpoints may be called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) requests: u32,
    pub(crate) per_ms: i64,
    pub(crate) burst: u32,
}

/// What every JSON answer of the vendor has in common.
#[derive(Debug, Default)]
pub(crate) struct Envelope {
    pub(crate) success: Option<Expression>,
    pub(crate) error: Vec<Path>,
}

/// What a certain unsuccessful answer means, where status and envelope do not tell.
#[derive(Debug)]
pub(crate) struct FailureRule {
    pub(crate) when: Expression,
    pub(crate) outcome: FailureOutcome,
    pub(crate) message: Option<String>,
}

/// See [`FailureRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureOutcome {
    Retry,
    GiveUp,
    Unauthorized,
}

/// What to tell the person who set the system up.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) unauthorized: Option<String>,
    pub(crate) forbidden: Option<String>,
    pub(crate) not_found: Option<String>,
}

/// The connection test.
#[derive(Debug)]
pub(crate) struct Probe {
    /// A call of its own, or else the first page of a stream.
    pub(crate) request: Option<Request>,
    pub(crate) stream: Option<String>,
    pub(crate) success: Option<Expression>,
    /// Computed values for the message, by name.
    pub(crate) facts: Vec<(String, Expression)>,
    pub(crate) message: String,
}

impl Manifest {
    /// Reads and checks a manifest. `file` is named in the errors.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, ManifestErrors> {
        match text.parse::<toml::Table>() {
            Ok(table) => Self::read(file, &table),
            Err(error) => {
                let problem = format!("is not TOML: {}", error.to_string().trim().replace('\n', " "));
                Err(ManifestErrors(vec![ManifestError {
                    file: file.into(),
                    key: String::new(),
                    problem,
                }]))
            }
        }
    }

    /// Checks a manifest that is already a table.
    pub(crate) fn read(file: &str, table: &toml::Table) -> Result<Self, ManifestErrors> {
        let problems = Problems::new(file);
        let manifest = read_manifest(&Section::new(table, "", &problems), table, &problems);
        problems.into_result(manifest)
    }

    /// The stream of that name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.name == name)
    }
}

fn read_manifest(root: &Section<'_>, table: &toml::Table, problems: &Problems) -> Option<Manifest> {
    // A second reader of the same table, because `finish` uses one up.
    let closing = Section::new(table, "", problems);
    for key in [
        "meta",
        "contract",
        "connection",
        "credentials",
        "config",
        "auth",
        "limits",
        "envelope",
        "failures",
        "messages",
        "probe",
        "streams",
    ] {
        closing.value(key);
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
        .filter_map(|(name, section)| stream::read_stream(name, section, ttl))
        .collect();
    if streams.is_empty() && !root.has("streams") {
        problems.add(
            "streams",
            "is missing; a manifest names at least one list, as `[streams.transactions]`",
        );
    }
    let meta = read_meta(root);
    let (endpoint, headers) = read_connection(root);
    let manifest = Manifest {
        endpoint,
        headers,
        auth: read_auth(root).unwrap_or(Auth::None),
        envelope: root.section("envelope").map(read_envelope).unwrap_or_default(),
        failures: read_failures(root, problems),
        messages: root.section("messages").map(read_messages).unwrap_or_default(),
        probe: read_probe(root)?,
        name: meta.0,
        title: meta.1,
        types: meta.2,
        notes: meta.3,
        credentials,
        config,
        streams,
        limits,
    };
    check_references(&manifest, problems);
    Some(manifest)
}

fn read_meta(root: &Section<'_>) -> (String, String, Vec<SystemType>, String) {
    let Some(section) = root.required(
        "meta",
        root.section("meta"),
        "begin with `[meta]`, a name and a title",
    ) else {
        return Default::default();
    };
    let name = section.required(
        "name",
        section.text("name"),
        "give the vendor's name, as in `provider`",
    );
    if let Some(name) = name
        && (name.is_empty()
            || !name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
    {
        section.problem("name", format!("`{name}` has other signs than a-z, 0-9 and `-`"));
    }
    let title = section.required(
        "title",
        section.text("title"),
        "give the vendor's name for people",
    );
    let types = section.required(
        "types",
        section.texts("types"),
        "list what it can be, such as [\"pos\"]",
    );
    let types = types.unwrap_or_default().into_iter().filter_map(|text| {
        text.parse::<SystemType>()
            .map_err(|problem| section.problem("types", problem))
            .ok()
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

fn read_contract(root: &Section<'_>) -> std::time::Duration {
    let default = std::time::Duration::from_secs(POSITION_TTL_DEFAULT_SECS);
    let Some(section) = root.section("contract") else {
        return default;
    };
    let ttl = section
        .secs("position_ttl_secs", 0..=30 * DAY_SECS)
        .unwrap_or(default);
    section.finish();
    ttl
}

fn read_connection(root: &Section<'_>) -> (Option<String>, Vec<(String, Template)>) {
    let Some(section) = root.section("connection") else {
        return Default::default();
    };
    let endpoint = section.parsed("endpoint", |text| {
        let url = url::Url::parse(text).map_err(|error| format!("`{text}` is not an address: {error}"))?;
        if matches!(url.scheme(), "https" | "http") && url.has_host() && url.query().is_none() {
            return Ok(text.to_owned());
        }
        Err(format!(
            "`{text}` is not an address; expected `https://host/path` without a query"
        ))
    });
    let headers = section.named_templates("headers");
    for (name, _) in &headers {
        if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
            section.problem("headers", format!("`{name}` is not the name of a header"));
        }
    }
    section.finish();
    (endpoint, headers)
}

fn read_credential(name: &str, section: Section<'_>) -> CredentialSpec {
    let label = section.required("label", section.text("label"), "say what the vendor calls it");
    let required = section.flag("required").unwrap_or(true);
    section.finish();
    CredentialSpec {
        name: name.to_owned(),
        label: label.unwrap_or_default().to_owned(),
        required,
    }
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
        sets: section
            .texts("sets")
            .unwrap_or_default()
            .into_iter()
            .map(str::to_owned)
            .collect(),
    };
    section.finish();
    key
}

fn read_auth(root: &Section<'_>) -> Option<Auth> {
    #[derive(Clone, Copy)]
    enum Kind {
        None,
        Bearer,
        Header,
        Basic,
    }
    let section = root.required(
        "auth",
        root.section("auth"),
        "say `kind = \"none\"` where the vendor asks for nothing",
    )?;
    let kinds = [
        ("none", Kind::None),
        ("bearer", Kind::Bearer),
        ("header", Kind::Header),
        ("basic", Kind::Basic),
    ];
    let kind = section.required(
        "kind",
        section.choice("kind", &kinds),
        "expected `bearer`, `header`, `basic` or `none`",
    );
    // All are read whatever the kind, because a system's settings may choose the kind.
    let (token, header, value) = (
        section.template("token"),
        section.text("header"),
        section.template("value"),
    );
    let (username, password) = (section.template("username"), section.template("password"));
    let auth = match kind? {
        Kind::None => Some(Auth::None),
        Kind::Bearer => section
            .required(
                "token",
                token,
                "bearer needs it, as in `token = \"{credential.api_key}\"`",
            )
            .map(|token| Auth::Bearer { token }),
        Kind::Header => {
            let header = section.required(
                "header",
                header,
                "name the header, as in `header = \"X-Api-Key\"`",
            );
            let value = section.required(
                "value",
                value,
                "header needs it, as in `value = \"{credential.api_key}\"`",
            );
            if let Some(name) = header
                && reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err()
            {
                section.problem("header", format!("`{name}` is not the name of a header"));
            }
            header.zip(value).map(|(header, value)| Auth::Header {
                header: header.to_owned(),
                value,
            })
        }
        Kind::Basic => section
            .required(
                "username",
                username,
                "basic needs it, as in `username = \"{credential.api_key}\"`",
            )
            .map(|username| Auth::Basic { username, password }),
    };
    section.finish();
    auth
}

fn read_limit(name: &str, section: Section<'_>) -> Option<(String, Limit)> {
    let requests = section.required(
        "requests",
        section.whole("requests", 1..=100_000),
        "say how many requests",
    );
    let per = section.required(
        "per_secs",
        section.whole("per_secs", 1..=DAY_SECS),
        "say in how many seconds",
    );
    let burst = section.whole("burst", 1..=100_000);
    section.finish();
    let requests = requests?;
    let limit = Limit {
        requests,
        per_ms: i64::from(per?) * 1_000,
        burst: burst.unwrap_or(1),
    };
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
        ("unauthorized", FailureOutcome::Unauthorized),
    ];
    let mut read = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let Some(rule) = rule.as_table() else { continue };
        let section = Section::new(rule, format!("failures.{at}"), problems);
        let when = section.required(
            "when",
            section.expression("when", &["status", "body"]),
            "give a condition",
        );
        let outcome = section.required(
            "outcome",
            section.choice("outcome", &outcomes),
            "expected `retry`, `give_up` or `unauthorized`",
        );
        let message = section.text("message").map(str::to_owned);
        read.extend(when.zip(outcome).map(|(when, outcome)| FailureRule {
            when,
            outcome,
            message,
        }));
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
    let request = section.section("request").and_then(stream::read_request);
    let stream = section.text("stream").map(str::to_owned);
    if request.is_none() && stream.is_none() && !section.has("request") {
        section.problem(
            "request",
            "is missing; give a request, or `stream` to read the first page of a stream",
        );
    }
    let mut facts = Vec::new();
    for (name, source) in section.named_texts("facts") {
        match Expression::compile(source, &["status", "body"]) {
            Ok(expression) => facts.push((name.to_owned(), expression)),
            Err(problem) => section.problem(&format!("facts.{name}"), problem),
        }
    }
    let message = section.required(
        "message",
        section.text("message"),
        "say what a person reads when it works",
    );
    let message = message.unwrap_or_default().to_owned();
    let success = section.expression("success", &["status", "body"]);
    section.finish();
    Some(Probe {
        request,
        stream,
        success,
        facts,
        message,
    })
}

/// What one section names must exist in another.
fn check_references(manifest: &Manifest, problems: &Problems) {
    let mut used: Vec<(String, &Slot)> = Vec::new();
    for (name, template) in &manifest.headers {
        used.extend(
            template
                .slots()
                .map(|slot| (format!("connection.headers.{name}"), slot)),
        );
    }
    match &manifest.auth {
        Auth::None => {}
        Auth::Bearer { token } => used.extend(token.slots().map(|slot| ("auth.token".into(), slot))),
        Auth::Header { value, .. } => used.extend(value.slots().map(|slot| ("auth.value".into(), slot))),
        Auth::Basic { username, password } => {
            used.extend(username.slots().map(|slot| ("auth.username".into(), slot)));
            used.extend(
                password
                    .iter()
                    .flat_map(Template::slots)
                    .map(|slot| ("auth.password".into(), slot)),
            );
        }
    }
    let requests = manifest
        .streams
        .iter()
        .map(|stream| (format!("streams.{}.request", stream.name), &stream.request));
    let probe = manifest
        .probe
        .request
        .iter()
        .map(|request| ("probe.request".to_owned(), request));
    for (key, request) in requests.chain(probe) {
        used.extend(request.slots().into_iter().map(|slot| (key.clone(), slot)));
        if let Some(limit) = &request.limit
            && !manifest.limits.contains_key(limit)
        {
            problems.add(
                format!("{key}.limit"),
                format!("`{limit}` is no limit; add `[limits.{limit}]`"),
            );
        }
    }
    for (key, slot) in used {
        match slot {
            Slot::Config(name) if !manifest.config.iter().any(|known| known.name == *name) => {
                problems.add(
                    key,
                    format!("`{{config.{name}}}` is not declared; add `[config.{name}]` with a label"),
                );
            }
            Slot::Credential(name) if !manifest.credentials.iter().any(|known| known.name == *name) => {
                problems.add(
                    key,
                    format!(
                        "`{{credential.{name}}}` is not declared; add `[credentials.{name}]` with a label"
                    ),
                );
            }
            _ => {}
        }
    }
    if let Some(name) = &manifest.probe.stream
        && manifest.stream(name).is_none()
    {
        problems.add("probe.stream", format!("`{name}` is no stream of this manifest"));
    }
}
