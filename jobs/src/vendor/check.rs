//! `vendors check`: everything that can be said about a manifest without calling the vendor. Grammar,
//! expressions and references first; then recorded answers of the vendor, where there are some, go
//! through the same code as a pull's pages, and recorded events through that of the inbox.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use zhilian_sync_store::{Currency, SystemType};

use super::manifest::{Manifest, ManifestError, ManifestErrors};
use super::mapping::{Mapped, Optional, Surroundings};
use super::webhook::{Delivery, EventScope, Plan, WebhookSpec};

/// A manifest without mistakes.
#[derive(Debug)]
pub struct CheckReport {
    /// The manifest.
    pub manifest: Arc<Manifest>,
    /// What became of each recorded answer, by its file name.
    pub payloads: BTreeMap<String, Mapped>,
    /// What each recorded event means, by its file name, or why it means nothing.
    pub events: BTreeMap<String, Result<Plan, String>>,
}

/// An event as it is recorded.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedEvent {
    /// What the system is, such as `pos`.
    system_type: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// A body of JSON.
    body: Option<Value>,
    /// Any other, as it came.
    body_text: Option<String>,
}

/// Checks a manifest file, and the recorded answers of a folder: `<stream>.json` or
/// `<stream>.<case>.json`, each a whole answer of the vendor; and `webhooks/<case>.json`, each an event.
pub fn check_file(file: &FilePath, payloads: Option<&FilePath>) -> Result<CheckReport, ManifestErrors> {
    let shown = file.display().to_string();
    let text =
        fs::read_to_string(file).map_err(|error| problem(&shown, "", format!("cannot be read: {error}")))?;
    let manifest = Manifest::parse_file(&shown, &text)?;
    let mut report =
        CheckReport { manifest: Arc::new(manifest), payloads: BTreeMap::new(), events: BTreeMap::new() };
    let Some(folder) = payloads else { return Ok(report) };
    let mut errors = Vec::new();
    for (name, path) in json_files(folder)? {
        match replay_file(&report.manifest, &path, &name) {
            Ok(mapped) => {
                report.payloads.insert(name, mapped);
            }
            Err(text) => errors.extend(problem(&path.display().to_string(), "", text).0),
        }
    }
    let sent = folder.join("webhooks");
    if let (Some(webhook), true) = (&report.manifest.webhook, sent.is_dir()) {
        for (name, path) in json_files(&sent)? {
            let text = fs::read_to_string(&path).map_err(|error| format!("cannot be read: {error}"));
            match text.and_then(|text| replay_event(&report.manifest, webhook, &text)) {
                Ok(plan) => {
                    report.events.insert(name, plan);
                }
                Err(text) => errors.extend(problem(&path.display().to_string(), "", text).0),
            }
        }
    }
    // A vendor without streams has no answers, only events.
    let recorded =
        !report.payloads.is_empty() || (report.manifest.streams.is_empty() && !report.events.is_empty());
    if !recorded && errors.is_empty() {
        let wanted = if report.manifest.streams.is_empty() {
            "holds no recorded event; put one there as `webhooks/<case>.json`"
        } else {
            "holds no recorded answer; put one there as `<stream>.json`"
        };
        let text = wanted.to_owned();
        errors.extend(problem(&folder.display().to_string(), "", text).0);
    }
    if errors.is_empty() { Ok(report) } else { Err(ManifestErrors(errors)) }
}

/// Maps a recorded answer as a pull would, in Shanghai's time and with the renminbi as currency.
pub fn replay(
    manifest: &Manifest,
    stream: &str,
    body: &Value,
    asked_at: DateTime<Utc>,
) -> Result<Mapped, String> {
    let known =
        || manifest.streams.iter().map(|stream| format!("`{}`", stream.name)).collect::<Vec<_>>().join(", ");
    let stream = manifest.stream(stream).ok_or_else(|| {
        format!("`{stream}` is no stream of `{}`; expected one of {}", manifest.name, known())
    })?;
    if let Some(rule) = stream.answer.success.as_ref().or(manifest.envelope.success.as_ref())
        && !rule.holds(&[("status", &Value::from(200)), ("body", body)])?
    {
        return Err(format!("the answer is no success by the rule `{}`", rule.as_str()));
    }
    let paths = &stream.answer.records;
    let elements = if stream.is_looked_up() {
        super::path::one_or_list(paths, body)
    } else {
        paths.iter().filter_map(|path| path.find(body)).find_map(Value::as_array).cloned()
    };
    let (records, misshapen) = match elements {
        Some(elements) => stream.answer.shape.records(elements),
        None if stream.answer.absent_when_empty || stream.is_looked_up() => (Vec::new(), Vec::new()),
        None => return Err(format!("there is no list at {}", super::path::shown(paths))),
    };
    let config = Value::Object(serde_json::Map::new());
    let around = Surroundings {
        stream: &stream.name,
        config: &config,
        currency: Currency::CNY,
        zone: Tz::Asia__Shanghai,
        asked_at,
        optional: Optional::default(),
    };
    let mut mapped = stream.mapping.map(&records, &around);
    let failures = misshapen.iter().map(|(record, reason)| stream.mapping.failure(record, reason, &around));
    mapped.failures.extend(failures);
    Ok(mapped)
}

/// What a recorded event means, as the inbox would find out; the outer error is about the recording.
pub fn replay_event(
    manifest: &Manifest,
    webhook: &WebhookSpec,
    recorded: &str,
) -> Result<Result<Plan, String>, String> {
    let event: RecordedEvent = serde_json::from_str(recorded).map_err(|error| {
        format!("is no recorded event: {error}; expected `system_type` with `body` or `body_text`")
    })?;
    let system_type: SystemType = event.system_type.parse()?;
    let mut headers = HeaderMap::new();
    for (name, value) in &event.headers {
        let pair = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(value).ok());
        let (name, value) = pair.ok_or_else(|| format!("`{name}` is no header with a value"))?;
        headers.append(name, value);
    }
    let body = match (event.body, event.body_text) {
        (Some(body), None) => body.to_string(),
        (None, Some(text)) => text,
        _ => return Err("expected either `body` or `body_text`".to_owned()),
    };
    let received_at = DateTime::UNIX_EPOCH;
    let (query, body) = (event.query.as_str(), body.as_bytes());
    let delivery = Delivery { method: "POST", url: "", query, headers: &headers, body, received_at };
    let config = Value::Object(serde_json::Map::new());
    let scope = EventScope {
        system_type,
        config: &config,
        currency: Currency::CNY,
        zone: Tz::Asia__Shanghai,
        received_at,
    };
    let opened = webhook.open(&delivery).map_err(|refusal| refusal.message);
    Ok(opened.and_then(|opened| webhook.plan(manifest, &opened.event_type, query, body, &scope)))
}

/// Name and path of every JSON file of a folder, in order.
fn json_files(folder: &FilePath) -> Result<BTreeMap<String, PathBuf>, ManifestErrors> {
    let entries = fs::read_dir(folder)
        .map_err(|error| problem(&folder.display().to_string(), "", format!("cannot be read: {error}")))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let json = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    Ok(json
        .filter_map(|path| Some((path.file_name()?.to_string_lossy().into_owned(), path.clone())))
        .collect())
}

fn replay_file(manifest: &Manifest, path: &FilePath, name: &str) -> Result<Mapped, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let body: Value = serde_json::from_str(&text).map_err(|error| format!("is not JSON: {error}"))?;
    let stream = name.split('.').next().unwrap_or_default();
    replay(manifest, stream, &body, DateTime::UNIX_EPOCH)
}

fn problem(file: &str, key: &str, problem: String) -> ManifestErrors {
    ManifestErrors(vec![ManifestError { file: file.into(), line: None, key: key.into(), problem }])
}
