//! What the events of a vendor mean, as the manifest says it: `[[webhook.routes]]`, and the records that
//! are only ever sent and never pulled, `[webhook.streams.<name>]`. The first route that fits an event
//! counts; `webhook/route.rs` acts on it. Apart from the rest of `[webhook]`, because that is about who
//! sent an event and this is about what to do with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use zhilian_sync_store::SystemType;

use crate::vendor::expression::Expression;
use crate::vendor::manifest::section::{Problems, Section};
use crate::vendor::manifest::{Manifest, Target};
use crate::vendor::mapping::compile::{RouteFields, read_mapping};
use crate::vendor::mapping::{Field, Mapping, Optional, to_json};
use crate::vendor::path::Path;

/// What is done with the events that it fits.
#[derive(Debug)]
pub(crate) struct Route {
    /// The types of event.
    pub(crate) events: Vec<Glob>,
    /// The types of system; none for all.
    pub(crate) types: Vec<SystemType>,
    pub(crate) when: Option<Expression>,
    pub(crate) action: Action,
}

/// See [`Route`].
#[derive(Debug)]
pub(crate) enum Action {
    /// The event holds records: they are mapped and stored.
    Record(RecordRoute),
    /// The event changes the state of records.
    Patch(ChangeRoute),
    /// The event says that records are gone.
    Delete(ChangeRoute),
    /// The event names a record of this stream, which is asked for.
    Fetch(String),
    /// The event says that something of this stream has changed: it is pulled.
    Pull(String),
    /// The event means nothing to us.
    Ignore,
}

/// See [`Action::Record`].
#[derive(Debug)]
pub(crate) struct RecordRoute {
    /// Where the record or the list of records is.
    pub(crate) records: Vec<Path>,
    pub(crate) stream: StreamName,
    /// Members that belong to the event where event and record are one object.
    pub(crate) envelope: Vec<String>,
    /// Members that are laid over every record.
    pub(crate) with: Map<String, Value>,
    pub(crate) optional: Optional,
}

/// See [`Action::Patch`] and [`Action::Delete`].
#[derive(Debug)]
pub(crate) struct ChangeRoute {
    pub(crate) records: Vec<Path>,
    pub(crate) of: ChangeTarget,
    /// The number of a supplier order.
    pub(crate) number: Option<Field>,
    /// The vendor's id; the stream's own where it is not given.
    pub(crate) key: Option<Field>,
    /// Either, where the vendor does not say which.
    pub(crate) key_or_number: Option<Field>,
    pub(crate) status: Option<Field>,
    /// When the vendor changed it; the stream's own where it is not given.
    pub(crate) version_at: Option<Field>,
    pub(crate) delivered_at: Option<Field>,
    pub(crate) tracking_number: Option<Field>,
}

/// Whose state changes.
#[derive(Debug)]
pub(crate) enum ChangeTarget {
    Stream(StreamName),
    PosTransactions,
    SupplierOrders,
}

/// A stream that a route speaks of.
#[derive(Debug, Clone)]
pub(crate) enum StreamName {
    /// One of the manifest's lists.
    Pulled(String),
    /// Records that are only ever sent.
    Sent(Arc<SentStream>),
}

/// Records that are only ever sent.
#[derive(Debug)]
pub(crate) struct SentStream {
    pub(crate) name: String,
    pub(crate) target: Target,
    pub(crate) mapping: Mapping,
}

/// A type of event; `*` stands for any signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob(String);

impl Glob {
    /// Whether the type fits. Linear in the length of the type for each `*`, whatever is sent.
    pub(crate) fn fits(&self, event_type: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = event_type.strip_prefix(first) else {
            return false;
        };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else {
            return rest.is_empty();
        };
        for part in parts {
            let Some(at) = rest.find(part) else {
                return false;
            };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

impl ChangeTarget {
    /// Whether the fields of supplier orders may be named. The table of a pulled stream is not known
    /// while a route is read.
    fn is_of_orders(&self) -> bool {
        match self {
            Self::SupplierOrders | Self::Stream(StreamName::Pulled(_)) => true,
            Self::Stream(StreamName::Sent(stream)) => stream.target == Target::SupplierOrders,
            Self::PosTransactions => false,
        }
    }
}

impl StreamName {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Pulled(name) => name,
            Self::Sent(stream) => &stream.name,
        }
    }

    /// The stream's table and mapping; the manifest was checked to have it.
    pub(crate) fn find<'a>(&'a self, manifest: &'a Manifest) -> Option<(Target, &'a Mapping)> {
        match self {
            Self::Pulled(name) => manifest.stream(name).map(|stream| (stream.target, &stream.mapping)),
            Self::Sent(stream) => Some((stream.target, &stream.mapping)),
        }
    }
}

/// Reads `routes` and `streams` of the section `[webhook]`.
pub(in crate::vendor::manifest) fn read_routes(webhook: &Section<'_>) -> Vec<Route> {
    let sent: BTreeMap<&str, Arc<SentStream>> = webhook
        .named_sections("streams")
        .into_iter()
        .filter_map(|(name, section)| Some((name, Arc::new(read_sent_stream(name, section)?))))
        .collect();
    let Some(value) = webhook.value("routes") else {
        return Vec::new();
    };
    let Some(routes) = value.as_array() else {
        webhook.problem("routes", "expected `[[webhook.routes]]` with `events` and `action`");
        return Vec::new();
    };
    let mut read = Vec::new();
    for (at, route) in routes.iter().enumerate() {
        let key = webhook.name(&format!("routes.{at}"));
        match route.as_table() {
            Some(table) => {
                let section = Section::new(table, key, webhook.problems());
                read.extend(read_route(&section, &sent));
                section.finish();
            }
            None => webhook.problems().add(key, "expected a table with `events` and `action`"),
        }
    }
    read
}

fn read_sent_stream(name: &str, section: Section<'_>) -> Option<SentStream> {
    let target = section.required(
        "target",
        section.choice("target", &Target::WORDS),
        "expected `pos_transactions`, `supplier_orders`, `member_syncs` or `external_records`",
    );
    let mapping = section
        .required("mapping", section.section("mapping"), "say what the members mean")
        .zip(target)
        .and_then(|(inner, target)| read_mapping(&inner, target).inspect(|_| inner.finish()));
    section.finish();
    Some(SentStream { name: name.to_owned(), target: target?, mapping: mapping? })
}

#[derive(Clone, Copy)]
enum Word {
    Record,
    Patch,
    Delete,
    Fetch,
    Pull,
    Ignore,
}

fn read_route(section: &Section<'_>, sent: &BTreeMap<&str, Arc<SentStream>>) -> Option<Route> {
    let words = [
        ("record", Word::Record),
        ("patch", Word::Patch),
        ("delete", Word::Delete),
        ("fetch", Word::Fetch),
        ("pull", Word::Pull),
        ("ignore", Word::Ignore),
    ];
    let events = section.required(
        "events",
        section.texts("events"),
        "name the types of event, as `[\"order.*\"]`; `\"*\"` is all of them",
    );
    let types = section.texts("types").unwrap_or_default().into_iter().filter_map(|text| {
        text.parse::<SystemType>().map_err(|problem| section.problem("types", problem)).ok()
    });
    let types = types.collect();
    let word = section.required(
        "action",
        section.choice("action", &words),
        "expected `record`, `patch`, `delete`, `fetch`, `pull` or `ignore`",
    );
    let has_records = matches!(word, Some(Word::Record | Word::Patch | Word::Delete));
    let names: &[&str] = if has_records {
        &["body", "event_type", "query", "config", "record"]
    } else {
        &["body", "event_type", "query", "config"]
    };
    let when = section.expression("when", names);
    let action = match word? {
        Word::Record => Action::Record(read_record_route(section, sent)?),
        Word::Patch => Action::Patch(read_change_route(section, sent, false)?),
        Word::Delete => Action::Delete(read_change_route(section, sent, true)?),
        Word::Fetch => Action::Fetch(read_pulled(section)?),
        Word::Pull => Action::Pull(read_pulled(section)?),
        Word::Ignore => Action::Ignore,
    };
    let events = events?.into_iter().map(|text| Glob(text.to_owned())).collect();
    Some(Route { events, types, when, action })
}

fn read_pulled(section: &Section<'_>) -> Option<String> {
    let stream = section.required("stream", section.text("stream"), "name the stream that is asked for");
    stream.map(str::to_owned)
}

fn read_records(section: &Section<'_>) -> Vec<Path> {
    let whole = || Path::parse(".").ok().into_iter().collect();
    section.paths("records").unwrap_or_else(whole)
}

fn stream_name(name: &str, sent: &BTreeMap<&str, Arc<SentStream>>) -> StreamName {
    sent.get(name)
        .map_or_else(|| StreamName::Pulled(name.to_owned()), |stream| StreamName::Sent(Arc::clone(stream)))
}

fn read_record_route(section: &Section<'_>, sent: &BTreeMap<&str, Arc<SentStream>>) -> Option<RecordRoute> {
    let records = read_records(section);
    let envelope = section.texts("envelope").unwrap_or_default().into_iter().map(str::to_owned).collect();
    let with = section.section("with").map(|with| {
        with.entries().map(|(name, value)| (name.to_owned(), to_json(value))).collect::<Map<_, _>>()
    });
    let mut optional = Optional::default();
    for field in section.texts("optional").unwrap_or_default() {
        match field {
            "total" => optional.total = true,
            "occurred_at" => optional.occurred_at = true,
            _ => {
                let problem = format!("`{field}` cannot be left out; expected `total` or `occurred_at`");
                section.problem("optional", problem);
            }
        }
    }
    let stream = section.required(
        "stream",
        section.text("stream"),
        "name the stream whose mapping the records have",
    )?;
    let stream = stream_name(stream, sent);
    Some(RecordRoute { records, stream, envelope, with: with.unwrap_or_default(), optional })
}

fn read_change_route(
    section: &Section<'_>,
    sent: &BTreeMap<&str, Arc<SentStream>>,
    delete: bool,
) -> Option<ChangeRoute> {
    let records = read_records(section);
    let tables = [("pos_transactions", false), ("supplier_orders", true)];
    let of = match (section.text("stream"), section.choice("target", &tables)) {
        (Some(name), None) => Some(ChangeTarget::Stream(stream_name(name, sent))),
        (None, Some(false)) => Some(ChangeTarget::PosTransactions),
        (None, Some(true)) => Some(ChangeTarget::SupplierOrders),
        _ => {
            let fix = "name either the `stream` whose records change, or a `target` (`pos_transactions` or `supplier_orders`)";
            section.problem("stream", fix);
            None
        }
    };
    let fields = RouteFields::new(section);
    let mut route = ChangeRoute {
        records,
        of: of?,
        number: None,
        key: fields.text("key"),
        key_or_number: None,
        status: None,
        version_at: fields.time("version_at"),
        delivered_at: None,
        tracking_number: None,
    };
    if route.of.is_of_orders() {
        route.number = fields.text("number");
        route.key_or_number = fields.text("key_or_number");
    }
    let keys = [&route.number, &route.key, &route.key_or_number];
    if !matches!(route.of, ChangeTarget::Stream(_)) && keys.iter().all(|key| key.is_none()) {
        section.problem("key", "is missing; say where the event names the record");
    }
    if !delete {
        route.status = fields.text("status");
        if route.of.is_of_orders() {
            route.delivered_at = fields.time("delivered_at");
            route.tracking_number = fields.text("tracking_number");
        }
        let set = [&route.status, &route.delivered_at, &route.tracking_number];
        if set.iter().all(|field| field.is_none()) && !section.has("status") {
            section.problem("status", "is missing; a patch says what changes");
        }
    }
    Some(route)
}

/// What a route names must exist in the manifest.
pub(in crate::vendor::manifest) fn check(routes: &[Route], manifest: &Manifest, problems: &Problems) {
    for (at, route) in routes.iter().enumerate() {
        let key = format!("webhook.routes.{at}.stream");
        let (name, fetched) = match &route.action {
            Action::Record(RecordRoute { stream, .. })
            | Action::Patch(ChangeRoute { of: ChangeTarget::Stream(stream), .. })
            | Action::Delete(ChangeRoute { of: ChangeTarget::Stream(stream), .. }) => match stream {
                StreamName::Pulled(name) => (name, false),
                StreamName::Sent(sent) => {
                    if manifest.stream(&sent.name).is_some() {
                        let problem = "is the name of a stream that is pulled, too; give it another";
                        problems.add(format!("webhook.streams.{}", sent.name), problem);
                    }
                    continue;
                }
            },
            Action::Fetch(name) => (name, true),
            Action::Pull(name) => (name, false),
            _ => continue,
        };
        match manifest.stream(name) {
            None => problems.add(
                key,
                format!("`{name}` is no stream of this manifest; expected one of `[streams]`, or of `[webhook.streams]` for records that are sent"),
            ),
            Some(stream) if fetched && stream.one.is_none() => problems.add(
                key,
                format!("nothing says how one record of `{name}` is asked for; add `[streams.{name}.one]`"),
            ),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_signs() {
        for (glob, fitting, other) in [
            ("order.created", &["order.created"][..], &["order.create", "order.created.v2", ""][..]),
            ("order.*", &["order.", "order.created", "order.a.b"], &["order", "reorder.created"]),
            ("*.update", &["receipts.update", ".update"], &["receipts.updated", "update"]),
            ("a*b*c", &["abc", "aXbYc", "abcbc"], &["ab", "acb", "abcX"]),
            ("*", &["", "anything", "订单"], &[]),
            ("", &[""], &["x"]),
            ("a*a", &["aa", "aXa"], &["a"]),
        ] {
            let glob = Glob(glob.into());
            assert!(fitting.iter().all(|text| glob.fits(text)), "{glob:?}");
            assert!(!other.iter().any(|text| glob.fits(text)), "{glob:?}");
        }
    }

    #[test]
    fn many_stars_are_quick() {
        let started = std::time::Instant::now();
        assert!(!Glob("a*".repeat(50) + "b").fits(&"a".repeat(100_000)));
        assert!(started.elapsed() < std::time::Duration::from_secs(1));
    }
}
