//! `vendors check`: everything that can be said about a manifest without calling the vendor. Grammar,
//! expressions and references first; then recorded answers of the vendor, where there are some, go
//! through the same code as a pull's pages.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path as FilePath;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;
use zhilian_sync_store::Currency;

use super::manifest::{Manifest, ManifestError, ManifestErrors};
use super::mapping::{Mapped, Optional, Surroundings};

/// A manifest without mistakes.
#[derive(Debug)]
pub struct CheckReport {
    /// The manifest.
    pub manifest: Arc<Manifest>,
    /// What became of each recorded answer, by its file name.
    pub payloads: BTreeMap<String, Mapped>,
}

/// Checks a manifest file, and the recorded answers of a folder: `<stream>.json` or
/// `<stream>.<case>.json`, each a whole answer of the vendor.
pub fn check_file(file: &FilePath, payloads: Option<&FilePath>) -> Result<CheckReport, ManifestErrors> {
    let shown = file.display().to_string();
    let text =
        fs::read_to_string(file).map_err(|error| problem(&shown, "", format!("cannot be read: {error}")))?;
    let manifest = Manifest::parse(&shown, &text)?;
    let mut report = CheckReport { manifest: Arc::new(manifest), payloads: BTreeMap::new() };
    let Some(folder) = payloads else { return Ok(report) };
    let mut errors = Vec::new();
    let entries = fs::read_dir(folder)
        .map_err(|error| problem(&folder.display().to_string(), "", format!("cannot be read: {error}")))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match replay_file(&report.manifest, path, &name) {
            Ok(mapped) => {
                report.payloads.insert(name, mapped);
            }
            Err(text) => errors.extend(problem(&path.display().to_string(), "", text).0),
        }
    }
    if report.payloads.is_empty() && errors.is_empty() {
        let text = "holds no recorded answer; put one there as `<stream>.json`".to_owned();
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
    let found = paths.iter().filter_map(|path| path.find(body)).find_map(Value::as_array);
    let records = match found {
        Some(records) => records.as_slice(),
        None if stream.answer.absent_when_empty => &[],
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
    Ok(stream.mapping.map(records, &around))
}

fn replay_file(manifest: &Manifest, path: &FilePath, name: &str) -> Result<Mapped, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let body: Value = serde_json::from_str(&text).map_err(|error| format!("is not JSON: {error}"))?;
    let stream = name.split('.').next().unwrap_or_default();
    replay(manifest, stream, &body, DateTime::UNIX_EPOCH)
}

fn problem(file: &str, key: &str, problem: String) -> ManifestErrors {
    ManifestErrors(vec![ManifestError { file: file.into(), key: key.into(), problem }])
}
