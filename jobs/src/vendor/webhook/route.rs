//! What an accepted event means: the manifest's first route that fits it says whether it holds records,
//! changes or deletes some, names one that is asked for, or means nothing. A pure function of the event,
//! the manifest and the system, so a replay years later means the same; the inbox carries the plan out.
//!
//! ```text
//! type, system, condition ─▶ the first route that fits ─▶ record · patch · delete · fetch · pull · ignore
//!                                    none │
//!                                         ▼
//!                                     unrouted
//! ```

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};
use zhilian_sync_store::record_patches::RecordPatch;
use zhilian_sync_store::{Currency, SystemType};

use super::super::json;
use super::super::manifest::Manifest;
use super::super::manifest::webhook::WebhookSpec;
use super::super::manifest::webhook::routes::{Action, RecordRoute, Route};
use super::super::mapping::{Mapped, Mapping, Optional, Surroundings};
use super::super::path::{self, Path};
use super::patch;

/// The most records of one event. A body of a megabyte could hold a hundred thousand empty ones, each of
/// which would be a failure to keep.
const RECORDS_MAX: usize = 5_000;

/// What the system adds to its events.
#[derive(Debug, Clone, Copy)]
pub struct EventScope<'a> {
    /// What the system is: the routes of a manifest may differ by it.
    pub system_type: SystemType,
    /// Its settings.
    pub config: &'a Value,
    /// The currency of amounts without one.
    pub currency: Currency,
    /// The zone of times without an offset.
    pub zone: Tz,
    /// When the event came: the version of a record that has none.
    pub received_at: DateTime<Utc>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Plan {
    /// The event holds records.
    Records {
        /// The stream they belong to.
        stream: String,
        /// What is to be stored, tombstones among it, and what could not be mapped.
        mapped: Mapped,
    },
    /// Changes of state, and deletions of records that the event does not hold.
    Patch(Vec<RecordPatch>),
    /// Ask for the record that the event names.
    Fetch {
        /// The stream it belongs to.
        stream: String,
        /// The event, for the placeholders of the request.
        event: Value,
    },
    /// Pull this stream now.
    Pull {
        /// Its name.
        stream: String,
    },
    /// The manifest says that such events mean nothing to us.
    Ignored,
    /// The manifest does not know such events.
    Unrouted,
}

/// One event, read.
pub(super) struct Event<'a> {
    pub(super) name: &'a str,
    pub(super) query: &'a str,
    pub(super) body: Value,
}

impl WebhookSpec {
    /// What an accepted event means, or why it cannot be understood.
    pub fn plan(
        &self,
        manifest: &Manifest,
        event_type: &str,
        query: &str,
        body: &[u8],
        scope: &EventScope<'_>,
    ) -> Result<Plan, String> {
        let candidates: Vec<&Route> =
            self.routes.iter().filter(|route| fits(route, event_type, scope)).collect();
        if candidates.is_empty() {
            return Ok(Plan::Unrouted);
        }
        let body = self.read_body(body).map_err(|problem| format!("the body cannot be read: {problem}"))?;
        plan_event(&candidates, manifest, Event { name: event_type, query, body }, scope)
    }
}

impl WebhookSpec {
    /// Maps a record once more that failed when an event of this type brought it.
    ///
    /// As the first route does that takes such records; nothing where there is none. What the rest of the event
    /// said is not known any more, so a condition that asks for it counts as fulfilled.
    pub(in crate::vendor) fn map_again(
        &self,
        manifest: &Manifest,
        event_type: &str,
        stream: &str,
        record: &Value,
        scope: &EventScope<'_>,
    ) -> Option<Mapped> {
        let name = Value::from(event_type);
        let known = [("event_type", &name), ("config", scope.config), ("record", record)];
        let holds = |route: &&Route| {
            let asked = route.when.as_ref().filter(|when| !when.reads("body") && !when.reads("query"));
            asked.is_none_or(|when| when.holds(&known).unwrap_or(false))
        };
        let routes = self.routes.iter().filter(|route| fits(route, event_type, scope)).filter(holds);
        let of = routes.filter_map(record_route).find(|of| of.stream.as_str() == stream)?;
        let (_, mapping) = of.stream.find(manifest)?;
        let around = Surroundings { optional: of.optional, ..surroundings(stream, scope) };
        let shaped = vec![shape(of, record, event_type)];
        Some(observed(map_shaped(mapping, std::slice::from_ref(record), shaped, &around), scope))
    }

    /// What the records of a stream mean that some event brings.
    pub(in crate::vendor) fn mapping_of<'a>(
        &'a self,
        manifest: &'a Manifest,
        stream: &str,
    ) -> Option<&'a Mapping> {
        let of = self.routes.iter().filter_map(record_route).find(|of| of.stream.as_str() == stream)?;
        of.stream.find(manifest).map(|(_, mapping)| mapping)
    }
}

fn record_route(route: &Route) -> Option<&RecordRoute> {
    if let Action::Record(of) = &route.action { Some(of) } else { None }
}

fn fits(route: &Route, event_type: &str, scope: &EventScope<'_>) -> bool {
    (route.types.is_empty() || route.types.contains(&scope.system_type))
        && route.events.iter().any(|glob| glob.fits(event_type))
}

fn plan_event(
    candidates: &[&Route],
    manifest: &Manifest,
    event: Event<'_>,
    scope: &EventScope<'_>,
) -> Result<Plan, String> {
    for route in candidates {
        if !holds(route, &event, scope)? {
            continue;
        }
        return Ok(match &route.action {
            Action::Record(of) => {
                let mapped = map_records(of, manifest, &event, scope)?;
                Plan::Records { stream: of.stream.as_str().to_owned(), mapped }
            }
            Action::Patch(of) => {
                let records = found(&of.records, &event.body)?;
                Plan::Patch(patch::patches(of, manifest, &records, scope, false)?)
            }
            Action::Delete(of) => {
                let records = found(&of.records, &event.body)?;
                match patch::tombstones(of, manifest, &records, scope) {
                    Some((stream, mapped)) => Plan::Records { stream, mapped: observed(mapped, scope) },
                    None => Plan::Patch(patch::patches(of, manifest, &records, scope, true)?),
                }
            }
            Action::Fetch(stream) => Plan::Fetch { stream: stream.clone(), event: event.body },
            Action::Pull(stream) => Plan::Pull { stream: stream.clone() },
            Action::Ignore => Plan::Ignored,
        });
    }
    Ok(Plan::Unrouted)
}

/// Whether the route's condition holds; one that speaks of the record must hold for every record.
fn holds(route: &Route, event: &Event<'_>, scope: &EventScope<'_>) -> Result<bool, String> {
    let Some(when) = &route.when else {
        return Ok(true);
    };
    let event_type = Value::from(event.name);
    let query = if when.reads("query") { query_members(event.query) } else { Value::Null };
    let shared =
        [("body", &event.body), ("event_type", &event_type), ("query", &query), ("config", scope.config)];
    let told =
        |problem| format!("the condition `{}` of a route cannot be computed: {problem}", when.as_str());
    if !when.reads("record") {
        return when.holds(&shared).map_err(told);
    }
    let records = match &route.action {
        Action::Record(of) => &of.records,
        Action::Patch(of) | Action::Delete(of) => &of.records,
        Action::Fetch(_) | Action::Pull(_) | Action::Ignore => return Ok(false),
    };
    let Ok(records) = found(records, &event.body) else {
        return Ok(false);
    };
    for record in records.iter() {
        let [body, event_type, query, config] = shared;
        if !when.holds(&[body, event_type, query, config, ("record", record)]).map_err(told)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The parameters of a query by name; of a repeated one the last counts, as in JSON.
fn query_members(query: &str) -> Value {
    let mut members = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        members.insert(name.into_owned(), Value::from(value.into_owned()));
    }
    Value::Object(members)
}

/// The records of the event: the first place that holds an object, a list, or text that is one of them.
fn found<'v>(paths: &[Path], body: &'v Value) -> Result<Cow<'v, [Value]>, String> {
    let records = paths.iter().filter_map(|path| path.find(body)).find_map(as_records);
    let records = records.ok_or_else(|| {
        format!("the event has no record at {}; correct `records` of the route", path::shown(paths))
    })?;
    if records.len() > RECORDS_MAX {
        return Err(format!(
            "the event has {} records; expected at most {RECORDS_MAX}, ask the vendor for smaller ones",
            records.len()
        ));
    }
    Ok(records)
}

fn as_records(value: &Value) -> Option<Cow<'_, [Value]>> {
    match value {
        Value::Object(_) => Some(Cow::Borrowed(std::slice::from_ref(value))),
        Value::Array(records) => Some(Cow::Borrowed(records)),
        // A member of a form, or JSON inside of JSON.
        Value::String(text) if text.trim_start().starts_with(['{', '[']) => match json::read(text).ok()? {
            Value::Array(records) => Some(Cow::Owned(records)),
            record => Some(Cow::Owned(vec![record])),
        },
        _ => None,
    }
}

fn map_records(
    of: &RecordRoute,
    manifest: &Manifest,
    event: &Event<'_>,
    scope: &EventScope<'_>,
) -> Result<Mapped, String> {
    let records = found(&of.records, &event.body)?;
    let Some((_, mapping)) = of.stream.find(manifest) else {
        return Err(format!(
            "the manifest has no stream `{}`; correct `stream` of the route",
            of.stream.as_str()
        ));
    };
    let around = Surroundings { optional: of.optional, ..surroundings(of.stream.as_str(), scope) };
    let shaped: Vec<Option<Value>> = records.iter().map(|record| shape(of, record, event.name)).collect();
    let mapped = if shaped.iter().all(Option::is_none) {
        mapping.map(&records, &around)
    } else {
        map_shaped(mapping, &records, shaped, &around)
    };
    if let (0, 0, Some(failure)) = (mapped.storable(), mapped.skipped, mapped.failures.first()) {
        let others = mapped.failures.len() - 1;
        let others = if others > 0 { format!(" (and {others} more)") } else { String::new() };
        return Err(format!("no record of the event can be mapped: {}{others}", failure.reason));
    }
    Ok(observed(mapped, scope))
}

/// The record as it is mapped, where it is another than the one that came.
fn shape(of: &RecordRoute, record: &Value, event_type: &str) -> Option<Value> {
    let members = record.as_object()?;
    let belongs = |name: &&String| {
        members.get(name.as_str()).and_then(Value::as_str).is_some_and(|text| text == event_type)
    };
    let taken: Vec<&String> = of.envelope.iter().filter(belongs).collect();
    if taken.is_empty() && of.with.is_empty() {
        return None;
    }
    let mut members = members.clone();
    members.retain(|name, _| !taken.contains(&name));
    members.extend(of.with.clone());
    Some(Value::Object(members))
}

/// Maps records of another shape than they came in; what is kept as the vendor's text is what came.
fn map_shaped(
    mapping: &Mapping,
    records: &[Value],
    shaped: Vec<Option<Value>>,
    around: &Surroundings<'_>,
) -> Mapped {
    let mut whole = Mapped::default();
    for (record, shaped) in records.iter().zip(shaped) {
        let shaped = shaped.as_ref().unwrap_or(record);
        let mut one = mapping.map(std::slice::from_ref(shaped), around);
        let raw = record.to_string();
        for text in one.raws_mut() {
            text.clone_from(&raw);
        }
        whole.append(one);
    }
    whole
}

/// Each record with the time at which the event came.
pub(in crate::vendor) fn observed(mut mapped: Mapped, scope: &EventScope<'_>) -> Mapped {
    for transaction in &mut mapped.transactions {
        transaction.observed_at = Some(scope.received_at);
    }
    for record in &mut mapped.records {
        record.observed_at = Some(scope.received_at);
    }
    for order in &mut mapped.orders {
        order.observed_at = Some(scope.received_at);
    }
    for member in &mut mapped.members {
        member.observed_at = Some(scope.received_at);
    }
    mapped
}

pub(in crate::vendor) fn surroundings<'a>(stream: &'a str, scope: &EventScope<'a>) -> Surroundings<'a> {
    Surroundings {
        stream,
        config: scope.config,
        currency: scope.currency,
        zone: scope.zone,
        asked_at: scope.received_at,
        optional: Optional::default(),
    }
}
