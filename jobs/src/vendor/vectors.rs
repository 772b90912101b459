//! `vendors check --vectors`: known signatures of requests, compared with those that a manifest makes. A vector is
//! what the vendor's documents or a program that works give: secrets, settings, a time, and what must come out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path as FilePath;

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value};
use zhilian_sync_store::{Currency, SystemId};

use super::client::{Asked, ConnectionSpec, Partition, Vendors, Window};
use super::manifest::{ManifestError, ManifestErrors};

/// Where a vendor without an address is called; only the path may be part of what is signed.
const ENDPOINT_DEFAULT: &str = "https://vendor.example/api/v1";
/// The zone of the day that is asked for, and of times without an offset.
const ZONE: Tz = Tz::Asia__Shanghai;

/// A known signature. What else a vector tells is for people.
#[derive(Deserialize)]
struct Vector {
    id: String,
    expected: String,
    through: Through,
}

/// How a manifest makes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Through {
    /// Whose it is; others pass.
    manifest: String,
    /// `probe`, `token` or a stream, whose first page of the day of `at` is meant.
    call: String,
    /// Where it is sent: `query:<name>`, `form:<name>`, `body:<name>` or `header:<name>`.
    sent: String,
    credentials: BTreeMap<String, String>,
    config: Map<String, Value>,
    /// The time of the call, in seconds since 1970.
    at: i64,
    endpoint: Option<String>,
    /// The part, of a stream with `for_each`.
    #[serde(default)]
    partition: Value,
    /// The access token, where the vendor gives one.
    #[serde(default = "token_default")]
    token: String,
}

fn token_default() -> String {
    "tok_demo".to_owned()
}

/// Makes every signature of the file that is a manifest's, and gives their count.
pub fn check_vectors(vendors: &Vendors, name: &str, file: &FilePath) -> Result<usize, ManifestErrors> {
    let shown = file.display().to_string();
    let error = |key: &str, problem: String| ManifestError {
        file: shown.clone(),
        line: None,
        key: key.to_owned(),
        problem,
    };
    let text = fs::read_to_string(file).map_err(|found| format!("cannot be read: {found}"));
    let vectors = text.and_then(|text| {
        serde_json::from_str::<Vec<Vector>>(&text).map_err(|found| {
            format!("is no list of vectors: {found}; expected `id`, `expected` and `through` in each")
        })
    });
    let vectors = vectors.map_err(|problem| ManifestErrors(vec![error("", problem)]))?;
    let ours: Vec<&Vector> = vectors.iter().filter(|vector| vector.through.manifest == name).collect();
    if ours.is_empty() {
        let problem = format!("has no vector of `{name}`; expected one with `through.manifest` = `{name}`");
        return Err(ManifestErrors(vec![error("", problem)]));
    }
    let wrong = ours.iter().filter_map(|vector| Some(error(&vector.id, mistake(vendors, vector)?)));
    let wrong: Vec<ManifestError> = wrong.collect();
    if wrong.is_empty() { Ok(ours.len()) } else { Err(ManifestErrors(wrong)) }
}

/// What is wrong with a vector, or the manifest.
fn mistake(vendors: &Vendors, vector: &Vector) -> Option<String> {
    match signature(vendors, vector) {
        Ok(Some(made)) if made == vector.expected => None,
        Ok(Some(made)) => Some(format!(
            "`{made}` is at `{}`; expected `{}`; compare `[signing]` step by step with the vendor's rule",
            vector.through.sent, vector.expected
        )),
        Ok(None) => Some(format!("nothing is at `{}`; correct `through.sent`", vector.through.sent)),
        Err(problem) => Some(problem),
    }
}

fn signature(vendors: &Vendors, vector: &Vector) -> Result<Option<String>, String> {
    let through = &vector.through;
    let manifest = vendors.catalog().resolve(&through.manifest, &through.config);
    let manifest = manifest.map_err(|errors| errors.to_string())?;
    let at = DateTime::from_timestamp(through.at, 0).ok_or("`through.at` is out of range")?;
    let partition = Partition::of(through.partition.clone());
    let asked = match through.call.as_str() {
        "probe" => Asked::Probe,
        "token" => Asked::Token,
        name => {
            let stream = manifest.stream(name);
            let stream = stream.ok_or_else(|| format!("`{name}` is no stream; correct `through.call`"))?;
            Asked::Page(stream, &partition, day_of(at))
        }
    };
    let endpoint = through.endpoint.clone().or_else(|| manifest.endpoint.clone());
    let credentials = through.credentials.iter();
    let connection = vendors.connect(ConnectionSpec {
        system_id: SystemId(uuid::Uuid::nil()),
        version: 1,
        manifest: manifest.clone(),
        endpoint: Some(endpoint.unwrap_or_else(|| ENDPOINT_DEFAULT.to_owned())),
        credentials: credentials
            .map(|(name, secret)| (name.clone(), SecretString::from(secret.as_str())))
            .collect(),
        config: through.config.clone(),
        store_id: None,
        timezone: ZONE,
        currency: Currency::CNY,
    });
    let token = SecretString::from(through.token.as_str());
    let drafted = connection.and_then(|connection| connection.drafted(asked, at, &token, &through.sent));
    drafted.map_err(|error| error.to_string())
}

/// The day that holds a time, to its last second.
fn day_of(at: DateTime<Utc>) -> Window {
    let midnight = at.with_timezone(&ZONE).date_naive().and_time(NaiveTime::MIN);
    let from = midnight.and_local_timezone(ZONE).earliest().map_or(at, |from| from.to_utc());
    Window { from: Some(from), to: from + TimeDelta::days(1) - TimeDelta::seconds(1) }
}
