//! Links: which operations go on with what another one answered.
//!
//! Nothing is listed here. An operation whose path ends with an id shows a thing, so the schema that it answers
//! is that thing's; whoever answers a thing of this schema, alone or inside something else, is linked to the
//! operations that have its id in their path. A list, which may be empty, is linked only where nothing else
//! answers what it holds.

use std::collections::{BTreeMap, BTreeSet};

use poem::http::Method;
use serde_json::{Map, Value, json};

use crate::api::{ROUTES, Route};

/// What can be asked for by its id.
struct Thing {
    /// The placeholder of its id.
    parameter: &'static str,
    /// The path that shows it.
    path: &'static str,
}

/// Where in an answer the id of a thing stands.
struct Place<'a> {
    pointer: String,
    thing: &'a Thing,
}

/// Writes the links into the document.
pub(super) fn add(document: &mut Value) {
    let things = things(document);
    let mut reached = BTreeSet::new();
    for lists in [false, true] {
        for (route, status) in ROUTES.iter().flat_map(|route| ["200", "202"].map(|status| (route, status))) {
            let method = route.method.as_str().to_ascii_lowercase();
            let operation = &document["paths"][route.path][&method];
            let schema = operation["responses"][status]["content"]["application/json"]["schema"].clone();
            if (schema["type"] == "array") != lists {
                continue;
            }
            let mut links = links_of(route, &places(document, &schema, &things), &things);
            if lists {
                links.retain(|operation, _| !reached.contains(operation));
            } else {
                reached.extend(links.keys().cloned());
            }
            if !links.is_empty() {
                document["paths"][route.path][&method]["responses"][status]["links"] = Value::Object(links);
            }
        }
    }
}

/// The things by the names of their schemas.
fn things(document: &Value) -> BTreeMap<String, Thing> {
    let mut things = BTreeMap::new();
    for route in ROUTES.iter().filter(|route| route.method == Method::GET) {
        let Some(parameter) = last_placeholder(route.path) else {
            continue;
        };
        let answer = &document["paths"][route.path]["get"]["responses"]["200"]["content"]["application/json"]
            ["schema"];
        let Some(name) = reference(answer) else {
            continue;
        };
        // What is shown with more around it is the first thing inside that has an id.
        let schema = &document["components"]["schemas"][name];
        let owner = if has_id(document, name) {
            Some(name)
        } else {
            let properties = schema["properties"].as_object().into_iter().flatten();
            properties.filter_map(|(_, property)| reference(property)).find(|inner| has_id(document, inner))
        };
        if let Some(owner) = owner {
            things.entry(owner.to_owned()).or_insert(Thing { parameter, path: route.path });
        }
    }
    things
}

fn has_id(document: &Value, schema: &str) -> bool {
    document["components"]["schemas"][schema]["properties"].get("id").is_some()
}

/// The name of the placeholder with which a path ends.
fn last_placeholder(path: &'static str) -> Option<&'static str> {
    path.rsplit('/').next()?.strip_prefix('{')?.strip_suffix('}')
}

/// The schema that is referred to, where it is one.
fn reference(schema: &Value) -> Option<&str> {
    let reference = schema["$ref"].as_str().or_else(|| schema["allOf"].get(0)?["$ref"].as_str());
    reference?.rsplit('/').next()
}

/// Where the ids of things stand in an answer.
fn places<'a>(document: &Value, answer: &Value, things: &'a BTreeMap<String, Thing>) -> Vec<Place<'a>> {
    let mut places = Vec::new();
    let (prefix, answer) = inside(answer);
    let Some(name) = reference(answer) else {
        return places;
    };
    if let Some(thing) = things.get(name) {
        places.push(Place { pointer: format!("{prefix}/id"), thing });
    }
    let properties = &document["components"]["schemas"][name]["properties"];
    for (field, property) in properties.as_object().into_iter().flatten() {
        let (index, property) = inside(property);
        if let Some(thing) = reference(property).and_then(|name| things.get(name)) {
            places.push(Place { pointer: format!("{prefix}/{field}{index}/id"), thing });
        }
    }
    // What is no thing itself may name one, as the outcome of a test names its run.
    if places.is_empty() && properties.get("id").is_none() {
        let named = things
            .values()
            .find(|thing| is_alone(thing, things) && properties.get(thing.parameter).is_some());
        places.extend(named.map(|thing| Place { pointer: format!("{prefix}/{}", thing.parameter), thing }));
    }
    places
}

/// The first item of a list, or the value itself.
fn inside(schema: &Value) -> (&'static str, &Value) {
    if schema["type"] == "array" { ("/0", &schema["items"]) } else { ("", schema) }
}

/// Whether only this thing is asked for by a placeholder of this name.
fn is_alone(thing: &Thing, things: &BTreeMap<String, Thing>) -> bool {
    things.values().all(|other| other.path == thing.path || other.parameter != thing.parameter)
}

fn links_of(from: &Route, places: &[Place<'_>], things: &BTreeMap<String, Thing>) -> Map<String, Value> {
    let mut links = Map::new();
    for Place { pointer, thing } in places {
        let placeholder = format!("{{{}}}", thing.parameter);
        // Whoever was asked by this id answers nothing new by it.
        if from.path.contains(&placeholder) {
            continue;
        }
        let takes_it = |to: &&Route| {
            let below = to.path == thing.path || to.path.starts_with(&format!("{}/", thing.path));
            to.path.matches('{').count() == 1
                && to.path.contains(&placeholder)
                && (below || is_alone(thing, things))
        };
        for to in ROUTES.iter().filter(takes_it) {
            let parameters = json!({thing.parameter: format!("$response.body#{pointer}")});
            let link = json!({"operationId": to.operation, "parameters": parameters});
            links.entry(to.operation).or_insert(link);
        }
    }
    links
}
