//! What one section of a manifest names must exist in another: credentials, settings, limits, streams.

mod signing;

use super::section::Problems;
use super::signing::Signing;
use super::stream::partitions::ForEach;
use super::webhook::routes;
use super::{Auth, Manifest, Request};
use crate::vendor::template::{Slot, Template};

/// What one section names must exist in another.
pub(super) fn check(manifest: &Manifest, table: &toml::Table, problems: &Problems) {
    let mut used = slots_of_connection(manifest);
    for (key, request) in requests(manifest) {
        used.extend(request.slots().into_iter().map(|slot| (key.clone(), slot)));
        if let Some(limit) = &request.limit
            && !manifest.limits.contains_key(limit)
        {
            problems.add(format!("{key}.limit"), format!("`{limit}` is no limit; add `[limits.{limit}]`"));
        }
    }
    for stream in &manifest.streams {
        let values = stream.for_each.iter().filter(|each| each.request().is_none());
        let slots = values.flat_map(ForEach::slots);
        used.extend(slots.map(|slot| (format!("streams.{}.for_each.values", stream.name), slot)));
    }
    for (key, slot) in used {
        match misplaced(manifest, &key, slot) {
            Some(problem) => problems.add(key, problem),
            None => signing::check_slot(manifest, &key, slot, problems),
        }
    }
    signing::check_places(manifest, problems);
    // A stream with a mistake of its own was not read: that no route finds it is no second mistake.
    let written = table.get("streams").and_then(toml::Value::as_table).map_or(0, toml::Table::len);
    if let Some(webhook) = &manifest.webhook
        && manifest.streams.len() == written
    {
        routes::check(&webhook.routes, manifest, problems);
    }
    if let Some(name) = &manifest.probe.stream
        && manifest.stream(name).is_none()
    {
        problems.add("probe.stream", format!("`{name}` is no stream of this manifest"));
    }
}

/// Every call of the manifest, with where it stands.
fn requests(manifest: &Manifest) -> Vec<(String, &Request)> {
    let mut all = Vec::new();
    for stream in &manifest.streams {
        let mut add = |part: &str, request| all.push((format!("streams.{}.{part}", stream.name), request));
        add("request", &stream.request);
        if let Some(one) = &stream.one {
            add("one", &one.request);
        }
        if let Some(request) = stream.for_each.as_ref().and_then(ForEach::request) {
            add("for_each.request", request);
        }
        if let Some(detail) = &stream.detail {
            add("detail", &detail.request);
        }
    }
    all.extend(manifest.probe.request.iter().map(|request| ("probe.request".to_owned(), request)));
    all.extend(manifest.push.iter().map(|push| ("push.member".to_owned(), &push.request)));
    all.extend(manifest.auth.token().map(|spec| ("auth.request".to_owned(), &spec.request)));
    all
}

/// What is wrong with a placeholder at this key, if it names what is not there or stands where it has no value.
fn misplaced(manifest: &Manifest, key: &str, slot: &Slot) -> Option<String> {
    let last = key.rsplit('.').next();
    match slot {
        Slot::Config(name) if !manifest.config.iter().any(|known| known.name == *name) => {
            Some(format!("`{{config.{name}}}` is not declared; add `[config.{name}]` with a label"))
        }
        Slot::Credential(name) if !manifest.credentials.iter().any(|known| known.name == *name) => {
            Some(format!("`{{credential.{name}}}` is not declared; add `[credentials.{name}]` with a label"))
        }
        Slot::Member(path) if key != "push.member" => {
            Some(format!("`{{member.{}}}` has a value only in `[push.member]`", path.as_str()))
        }
        Slot::Event(path) if last != Some("one") => Some(format!(
            "`{{event.{}}}` has no value here; only the request of a single record, `[streams.<name>.one]`, is \
             made for an event",
            path.as_str()
        )),
        Slot::Partition(path) if !is_read_for_each(manifest, key) => Some(format!(
            "`{{partition.{}}}` has a value only in the request of a stream with `[streams.<name>.for_each]`",
            path.as_str()
        )),
        Slot::LookupKey if !is_looked_up(manifest, key) => Some(
            "`{lookup.key}` has a value only in the request of a stream with `[streams.<name>.lookup]`"
                .to_owned(),
        ),
        Slot::Record(path) | Slot::Records(path) if last != Some("detail") => Some(format!(
            "`{{record.{}}}` has a value only in the call for the detail of a record, `[streams.<name>.detail]`",
            path.as_str()
        )),
        _ => None,
    }
}

/// Whether the call at this key is made for one part of a stream.
fn is_read_for_each(manifest: &Manifest, key: &str) -> bool {
    let mut parted = manifest.streams.iter().filter(|stream| stream.for_each.is_some());
    parted.any(|stream| {
        let name = &stream.name;
        key == format!("streams.{name}.request") || key == format!("streams.{name}.detail")
    })
}

/// Whether the call at this key is made for one record by its key.
fn is_looked_up(manifest: &Manifest, key: &str) -> bool {
    let mut looked_up = manifest.streams.iter().filter(|stream| stream.lookup.is_some());
    looked_up.any(|stream| key == format!("streams.{}.request", stream.name))
}

/// The slots of what every request has: headers and authentication, with where they stand.
fn slots_of_connection(manifest: &Manifest) -> Vec<(String, &Slot)> {
    let mut used: Vec<(String, &Slot)> = Vec::new();
    let common = &manifest.connection;
    for (table, templates) in
        [("headers", &common.headers), ("query", &common.query), ("parameters", &common.parameters)]
    {
        for (name, template) in templates {
            used.extend(template.slots().map(|slot| (format!("connection.{table}.{name}"), slot)));
        }
    }
    used.extend(manifest.signing.iter().flat_map(Signing::slots).map(|slot| ("signing".into(), slot)));
    match &manifest.auth {
        Auth::None => {}
        Auth::Bearer { token } => used.extend(token.slots().map(|slot| ("auth.token".into(), slot))),
        Auth::Header { value, .. } => used.extend(value.slots().map(|slot| ("auth.value".into(), slot))),
        Auth::Basic { username, password } => {
            used.extend(username.slots().map(|slot| ("auth.username".into(), slot)));
            used.extend(password.iter().flat_map(Template::slots).map(|slot| ("auth.password".into(), slot)));
        }
        Auth::Token(spec) => {
            used.extend(spec.slots().into_iter().map(|(key, slot)| (key.to_owned(), slot)));
            used.extend(spec.value.slots().map(|slot| ("auth.value".into(), slot)));
        }
    }
    used
}
