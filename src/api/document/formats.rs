//! What fields and parameters hold beyond their type: addresses, zones, currencies, cursors. The framework knows
//! no such thing, so it is said by the fields' names, which mean the same wherever they stand.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Fields that are texts of a form. `timezone` is an IANA name, `currency` ISO 4217, `cron` five fields.
const TEXTS: &[(&str, &str)] = &[
    ("api_endpoint", "uri"),
    ("webhook_url", "uri"),
    ("timezone", "timezone"),
    ("currency", "currency"),
    ("sync_cron", "cron"),
];

/// A cursor as `page.rs` writes it: a time and an id, 24 bytes in base64url; the time is before the year 10000.
const CURSOR: &str = "^AA[A-D][A-Za-z0-9_-]{29}$";

/// Writes them into the schemas and the parameters.
pub(super) fn add(document: &mut Value) {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (_, operation) in paths.flat_map(|(_, methods)| methods.as_object_mut().into_iter().flatten()) {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten().filter(|parameter| parameter["in"] == "query") {
            match parameter["name"].as_str() {
                Some("cursor") => {
                    parameter["schema"]["pattern"] = json!(CURSOR);
                    parameter["description"] =
                        json!("Where the page begins, from the `Link` header of the page before.");
                }
                Some("limit") => parameter["description"] = json!("How many at most, by default 100."),
                _ => {}
            }
        }
    }
    let asked = asked(document);
    let schemas = document["components"]["schemas"].as_object_mut().into_iter().flatten();
    for (name, schema) in schemas {
        let required = schema["required"].clone();
        let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
            continue;
        };
        describe(properties);
        if asked.contains(name) {
            let amounts = properties.values_mut().filter(|property| property["type"] == "number");
            amounts.for_each(take_texts);
        }
        // What need not be there may be null as well: answers name every field.
        for (field, property) in properties {
            if !required.as_array().into_iter().flatten().any(|name| name == field) {
                property["nullable"] = json!(true);
            }
        }
    }
}

/// The schemas of requests: those of bodies, and of the items of lists in them.
fn asked(document: &Value) -> BTreeSet<String> {
    let reference = |schema: &Value| {
        let reference = schema["$ref"].as_str().or_else(|| schema["items"]["$ref"].as_str());
        reference.and_then(|reference| reference.rsplit('/').next()).map(str::to_owned)
    };
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(_, methods)| methods.as_object().into_iter().flatten());
    let bodies = operations.filter_map(|(_, operation)| {
        reference(operation.pointer("/requestBody/content/application~1json/schema")?)
    });
    let mut asked: BTreeSet<String> = bodies.collect();
    for body in asked.clone() {
        let properties = document["components"]["schemas"][body]["properties"].as_object();
        asked.extend(properties.into_iter().flatten().filter_map(|(_, property)| reference(property)));
    }
    asked
}

/// An amount in a request may be a text as well, for clients whose numbers are floats.
fn take_texts(amount: &mut Value) {
    if let Some(amount) = amount.as_object_mut() {
        amount.remove("type");
        let text = json!({"type": "string", "pattern": "^-?(0|[1-9][0-9]*)(\\.[0-9]+)?$"});
        amount.insert("anyOf".to_owned(), json!([{"type": "number"}, text]));
    }
}

fn describe(properties: &mut Map<String, Value>) {
    for (field, format) in TEXTS {
        if let Some(property) = properties.get_mut(*field).filter(|property| property["type"] == "string") {
            property["format"] = json!(format);
        }
    }
    if let Some(map) = properties.get_mut("store_map") {
        map["additionalProperties"] = json!({"type": "string", "minLength": 1, "pattern": "^[^\\x00]+$"});
    }
    if let Some(map) = properties.get_mut("credentials") {
        map["additionalProperties"] = json!({"type": "string", "minLength": 1, "nullable": true});
    }
}
