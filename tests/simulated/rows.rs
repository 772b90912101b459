//! The rows of the matrix: which streams there are, and what their manifests say that a test has to know.

use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use toml::{Table, Value};
use zhilian_sync_simulator::{Settings, Simulator, names};

/// Records on a page in these tests: a few pages are enough.
pub(crate) const PAGE: usize = 7;

/// One stream of one vendor.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) vendor: &'static str,
    pub(crate) stream: &'static str,
    manifest: Table,
}

impl Row {
    /// The table that its records go to.
    pub(crate) fn target(&self) -> &str {
        self.stream_table()["target"].as_str().unwrap()
    }

    /// Whether the manifest fills this field.
    pub(crate) fn fills(&self, field: &str) -> bool {
        let fields = self.stream_table()["mapping"].get("fields").and_then(Value::as_table);
        fields.is_some_and(|fields| fields.contains_key(field))
    }

    /// Whether every change tells its time: not those that are never told.
    pub(crate) fn tells_versions(&self) -> bool {
        self.fills("version_at") && !self.is_only_posted()
    }

    /// How far before its watermark a pull may begin.
    pub(crate) fn reread(&self) -> TimeDelta {
        let window = self.stream_table().get("window");
        let number = |name: &str, default: i64| {
            window.and_then(|window| window.get(name)).and_then(Value::as_integer).unwrap_or(default)
        };
        let text = |name: &str| window.and_then(|window| window.get(name)).and_then(Value::as_str);
        let by_days = window.is_some_and(|window| window.get("days").is_some())
            || text("format") == Some("date")
            || text("pattern").is_some_and(|pattern| !pattern.contains("%H"));
        let overlap = TimeDelta::seconds(number("overlap_secs", 120));
        // The day of the watermark has begun up to a day before it.
        if by_days { overlap + TimeDelta::days(number("reread_days", 1) + 1) } else { overlap }
    }

    /// Whether records are told in full by a second call: what disturbs it makes the page be read again.
    pub(crate) fn has_details(&self) -> bool {
        self.stream_table().contains_key("detail")
    }

    /// Whether the vendor posts what changes.
    pub(crate) fn is_posted(&self) -> bool {
        self.manifest.contains_key("webhook")
    }

    /// Whether its watermark is the moment that its last pull had read up to; else there are parts and days.
    pub(crate) fn is_read_at_once(&self) -> bool {
        let stream = self.stream_table();
        !stream.contains_key("for_each")
            && stream.get("window").is_some_and(|window| window.get("days").is_none())
    }

    /// How far before the vendor's time a window ends.
    pub(crate) fn lag(&self) -> TimeDelta {
        let window = self.stream_table().get("window");
        let lag = window.and_then(|window| window.get("lag_secs")).and_then(Value::as_integer);
        TimeDelta::seconds(lag.unwrap_or(5))
    }

    /// Whether its records come of the vendor's own accord and in no other way.
    pub(crate) fn is_only_posted(&self) -> bool {
        find(&self.manifest, self.stream).is_some_and(|(_, way)| way == Way::Posted)
    }

    fn stream_table(&self) -> &Table {
        find(&self.manifest, self.stream).unwrap().0
    }
}

fn shipped(vendor: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/vendors").join(format!("{vendor}.toml"))
}

/// The shipped manifest with smaller pages, and nothing else changed.
pub(crate) fn manifest(vendor: &str) -> String {
    let text = std::fs::read_to_string(shipped(vendor)).unwrap();
    let lines = text.lines().map(|line| {
        let size = line.strip_prefix("size = ").and_then(|size| size.parse::<u32>().ok());
        match size {
            Some(_) => format!("size = {PAGE}"),
            None if line.starts_with("keys = ") => format!("{line}\nsize = {PAGE}"),
            None => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// How the records of a stream come to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// In a list.
    Listed,
    /// One by one, by a key.
    LookedUp,
    /// Only of the vendor's own accord.
    Posted,
}

/// A stream as a manifest has it.
fn find<'a>(manifest: &'a Table, stream: &str) -> Option<(&'a Table, Way)> {
    let of = |section: &'a Table| section.get("streams")?.get(stream)?.as_table();
    if let Some(read) = of(manifest) {
        let way = if read.contains_key("lookup") { Way::LookedUp } else { Way::Listed };
        return Some((read, way));
    }
    manifest.get("webhook").and_then(Value::as_table).and_then(of).map(|posted| (posted, Way::Posted))
}

/// Every list of every simulated vendor that has a manifest.
pub(crate) async fn rows() -> Vec<Row> {
    let rows = streams(Way::Listed).await;
    assert!(rows.len() >= 12, "only {} lists are simulated", rows.len());
    rows
}

/// Every stream whose records are told one by one.
pub(crate) async fn looked_up() -> Vec<Row> {
    let rows = streams(Way::LookedUp).await;
    assert!(rows.len() >= 2, "only {} streams are looked up", rows.len());
    rows
}

/// Every stream whose records are only posted.
pub(crate) async fn only_posted() -> Vec<Row> {
    let rows = streams(Way::Posted).await;
    assert!(!rows.is_empty(), "no stream is only posted");
    rows
}

async fn streams(wanted: Way) -> Vec<Row> {
    let mut rows = Vec::new();
    for vendor in names() {
        let manifest: Table = manifest(vendor).parse().unwrap();
        let simulator =
            Simulator::start(vendor, Settings { history: 0, ..Settings::default() }).await.unwrap();
        for stream in simulator.streams() {
            let found = find(&manifest, stream);
            let (_, way) = found.unwrap_or_else(|| panic!("`{vendor}` has no `{stream}` in its manifest"));
            if way == wanted {
                rows.push(Row { vendor, stream, manifest: manifest.clone() });
            }
        }
    }
    rows
}
