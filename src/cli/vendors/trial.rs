//! `vendors try`: one page of a real vendor, with the manifest as the service would read it, and every record
//! beside what it becomes. Nothing that is asked or read stays: the client's store, which holds budgets and access
//! tokens, is a file that goes when the command ends.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail, ensure};
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use clap::Args;
use secrecy::SecretString;
use serde_json::{Map, Value};
use zhilian_sync_jobs::vendor::{
    Connection, ConnectionSpec, Fate, Manifest, PageRequest, PageToken, Stream, TriedRecord, Vendors, Window,
};
use zhilian_sync_store::{Currency, Store, SystemId};

use super::scratch::Scratch;
use crate::config::Settings;

/// So many reasons tell an author enough.
const FAILURES_MAX: usize = 50;

#[derive(Debug, Args)]
pub(in crate::cli) struct TryArgs {
    /// The vendor; with `--manifest`, the file's name says it
    #[arg(required_unless_present = "manifest", conflicts_with = "manifest")]
    vendor: Option<String>,
    /// A manifest that is not installed yet
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Which list is asked for
    #[arg(long, value_name = "NAME")]
    stream: String,
    /// The system's secrets: name and secret, as TOML or, where it ends in `.json`, JSON
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// The system's settings, its `config`, in the same form
    #[arg(long, value_name = "FILE")]
    system_config: Option<PathBuf>,
    /// The system's address; the manifest's where absent
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Where the window begins: a time with an offset, or a day of the zone; where absent, as a first pull's does
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// The zone of times without an offset
    #[arg(long, value_name = "ZONE", default_value = "Asia/Shanghai")]
    timezone: Tz,
    /// The currency of amounts without one
    #[arg(long, value_name = "CODE", default_value = "CNY")]
    currency: Currency,
    /// What is looked up, where records are asked for by their keys; may be given more than once
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// How many records are shown
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    limit: usize,
}

/// How a page went.
#[derive(Debug, Default)]
struct Tally {
    records: usize,
    skipped: usize,
    failures: Vec<String>,
}

pub(super) async fn run(args: &TryArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let scratch = Scratch::open().await?;
    let done = attempt(args, settings, &scratch.store).await;
    scratch.close().await;
    done
}

async fn attempt(args: &TryArgs, settings: &Settings, store: &Store) -> anyhow::Result<ExitCode> {
    let mut catalog = super::catalog(settings)?;
    let name = match (&args.manifest, &args.vendor) {
        (Some(file), _) => catalog.add_file(file)?,
        (None, Some(name)) => {
            let known = || catalog.names().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
            catalog.get(name).with_context(|| {
                format!("no manifest for vendor `{name}`; known are {}", known().join(", "))
            })?;
            name.clone()
        }
        (None, None) => bail!("name a vendor, or a manifest with `--manifest`"),
    };
    let vendors = Vendors::with_catalog(catalog, &settings.vendors, store.clone())?;
    let config = read_optional(args.system_config.as_deref())?;
    let manifest = vendors.catalog().resolve(&name, &config)?;
    let stream = manifest.stream(&args.stream).ok_or_else(|| {
        anyhow!("`{}` is no stream of `{name}`; expected one of {}", args.stream, super::streams(&manifest))
    })?;
    let window = window(args, stream, store.clock().now())?;
    let connection = vendors.connect(ConnectionSpec {
        system_id: SystemId(store.clock().new_id()),
        version: 1,
        manifest: manifest.clone(),
        endpoint: args.endpoint.clone(),
        credentials: credentials(args.credentials.as_deref(), &manifest)?,
        config,
        store_id: None,
        timezone: args.timezone,
        currency: args.currency,
    });
    let mut connection = connection?.watched(|request| println!("{}", shown_request(request)));
    ensure!(
        stream.is_looked_up() != args.keys.is_empty(),
        if stream.is_looked_up() {
            "the records of this stream are asked for one by one; name some with `--key`"
        } else {
            "`--key` belongs to a stream whose records are looked up, and this one is a list; leave it out"
        }
    );
    if stream.is_looked_up() {
        connection = connection.with_lookup_keys(args.keys.clone());
    }
    // Of a stream that is read in parts and days the first part, and the day that was named, else the newest.
    let partitions = connection.partitions(stream).await?;
    let partition = partitions.first().context("the stream has no parts")?;
    let window = match &args.from {
        Some(_) => connection.oldest_of(stream, window),
        None => connection.newest_of(stream, window),
    };
    let page = connection.fetch_page(stream, &PageRequest { partition, window, next: None }).await?;
    let next = connection.redact(&shown_next(page.next.as_ref()));
    let tally = show_records(args, connection.try_records(stream, page));
    println!("{next}");
    Ok(verdict(&connection, stream, &tally))
}

fn window(args: &TryArgs, stream: &Stream, now: DateTime<Utc>) -> anyhow::Result<Window> {
    let back = |duration| TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX);
    let to = now - back(stream.lag);
    let from = match &args.from {
        Some(text) => read_time(text, args.timezone)?,
        None => now - back(stream.first_window),
    };
    ensure!(from < to, "`--from` is not in the past; the window would be empty");
    Ok(Window { from: Some(from), to })
}

/// `2026-01-01T00:00:00+08:00`, or `2026-01-01` at midnight of the zone.
fn read_time(text: &str, zone: Tz) -> anyhow::Result<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let day: Option<NaiveDate> = text.parse().ok();
    let midnight = day.and_then(|day| day.and_time(NaiveTime::MIN).and_local_timezone(zone).earliest());
    midnight.map(|time| time.to_utc()).with_context(|| {
        format!("`{text}` is no time; expected one such as `2026-01-01` or `2026-01-01T00:00:00+08:00`")
    })
}

fn read_optional(file: Option<&Path>) -> anyhow::Result<Map<String, Value>> {
    file.map_or_else(|| Ok(Map::new()), read_table)
}

/// A table of a TOML file or, where its name says so, a JSON file.
fn read_table(file: &Path) -> anyhow::Result<Map<String, Value>> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("reading `{shown}`"))?;
    if file.extension().is_some_and(|extension| extension == "json") {
        let problem = |error: serde_json::Error| {
            anyhow!(
                "`{shown}` is no JSON object, at line {}; expected `{{\"api_key\": \"…\"}}`",
                error.line()
            )
        };
        return serde_json::from_str(&text).map_err(problem);
    }
    toml::from_str(&text).map_err(|error| {
        // Only the place, as above: what the readers say repeats the file, with the secret in it.
        let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
        let line = before.matches('\n').count() + 1;
        anyhow!("`{shown}` is not TOML at line {line}; expected lines such as `api_key = \"…\"`")
    })
}

fn credentials(file: Option<&Path>, manifest: &Manifest) -> anyhow::Result<BTreeMap<String, SecretString>> {
    let mut credentials = BTreeMap::new();
    for (name, value) in read_optional(file)? {
        if !manifest.credentials.iter().any(|known| known.name == name) {
            let known: Vec<String> =
                manifest.credentials.iter().map(|known| format!("`{}`", known.name)).collect();
            bail!("`{name}` is no credential of `{}`; expected {}", manifest.name, known.join(", "));
        }
        let Value::String(secret) = value else {
            bail!("the credential `{name}` is no text; put it in quotes");
        };
        credentials.insert(name, SecretString::from(secret));
    }
    Ok(credentials)
}

/// Method and address, a line for each header, the body.
fn shown_request(sample: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let headers = sample["headers"].as_object().into_iter().flatten();
    let headers: String = headers
        .fold(String::new(), |lines, (name, value)| [&lines, "\n  ", name, ": ", &text(value)].concat());
    let body = match &sample["body"] {
        Value::Null => String::new(),
        Value::String(text) => format!("\n\n{text}"),
        body => format!("\n\n{body:#}"),
    };
    format!("{} {}{headers}{body}\n", text(&sample["method"]), text(&sample["url"]))
}

fn shown_next(next: Option<&PageToken>) -> String {
    match next {
        None => "next page: none, this is the last".to_owned(),
        Some(PageToken::Page(number)) => format!("next page: number {number}"),
        Some(PageToken::Offset(offset)) => format!("next page: after {offset} records"),
        Some(PageToken::Version(version)) => format!("next page: after version {version}"),
        Some(PageToken::Cursor(cursor)) => format!("next page: cursor `{cursor}`"),
        Some(PageToken::Link(link)) => format!("next page: {link}"),
    }
}

/// Prints the first records, and counts all.
fn show_records(args: &TryArgs, records: impl Iterator<Item = TriedRecord>) -> Tally {
    let mut tally = Tally::default();
    for record in records {
        tally.records += 1;
        let number = tally.records;
        let is_shown = number <= args.limit;
        if is_shown {
            println!("record {number}, as the vendor sent it:\n{:#}", record.raw);
        }
        match record.fate {
            Fate::Row { table, columns } if is_shown => println!("becomes in `{table}`:\n{columns:#}\n"),
            Fate::Row { .. } => {}
            Fate::Skipped => {
                tally.skipped += 1;
                if is_shown {
                    println!("is left out by `mapping.when`\n");
                }
            }
            Fate::Failed(reason) => {
                if is_shown {
                    println!("cannot be mapped: {reason}\n");
                }
                tally.failures.push(format!("record {number}: {reason}"));
            }
        }
    }
    tally
}

/// Sums up, and judges as the service would: failures beyond the stream's share end a pull.
fn verdict(connection: &Connection, stream: &Stream, tally: &Tally) -> ExitCode {
    let Tally { records, skipped, failures } = tally;
    println!("{records} records on this page: {skipped} left out, {} cannot be mapped", failures.len());
    if *records == 0 {
        println!("the list is empty; an earlier `--from` may find some");
    }
    let failed = failures.len();
    if failed == 0 {
        return ExitCode::SUCCESS;
    }
    for failure in failures.iter().take(FAILURES_MAX) {
        println!("  {failure}");
    }
    if failed > FAILURES_MAX {
        println!("  and {} more", failed - FAILURES_MAX);
    }
    if failed as f64 <= stream.failure_share_max * *records as f64 {
        return ExitCode::SUCCESS;
    }
    let title = &connection.manifest().title;
    eprintln!(
        "error: {failed} of {records} records of {title} cannot be mapped, more than `failure_share_max` allows; \
         a pull would fail"
    );
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_window_begins_at_a_time_or_a_day_of_the_zone() {
        let read = |text: &str| read_time(text, Tz::Asia__Shanghai).map(|time| time.to_rfc3339());
        assert_eq!(read("2026-01-01").unwrap(), "2025-12-31T16:00:00+00:00");
        assert_eq!(read("2026-01-01T08:00:00+08:00").unwrap(), "2026-01-01T00:00:00+00:00");
        assert!(read("yesterday").unwrap_err().to_string().contains("expected one such as"));
    }

    #[test]
    fn a_file_of_secrets_that_cannot_be_read_is_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("a.toml", "api_key = \"sk-canary"),
            ("b.toml", "\nsk-canary"),
            ("a.json", "{\"api_key\": sk-canary}"),
            ("b.json", "\"sk-canary\""),
        ] {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            let error = format!("{:#}", read_table(&file).unwrap_err());
            assert!(error.contains(name) && error.contains("line"), "{error}");
            assert!(!error.contains("sk-canary"), "{error}");
        }
    }

    #[test]
    fn a_request_is_shown_with_its_body() {
        let sample = json!({"method": "GET", "url": "https://a.example/b", "headers": {"x": "y"}});
        assert_eq!(shown_request(&sample), "GET https://a.example/b\n  x: y\n");
        let sample = json!({"method": "POST", "url": "u", "headers": {}, "body": {"sign": "***"}});
        assert_eq!(shown_request(&sample), "POST u\n\n{\n  \"sign\": \"***\"\n}\n");
    }
}
