//! What fields of bodies hold beyond their type: addresses, zones, currencies, maps of texts. The framework knows
//! no such thing, so it is said by the fields' names, which mean the same wherever they stand.

use serde_json::{Map, Value, json};

/// Fields that are texts of a form. `timezone` is an IANA name, `currency` ISO 4217, `cron` five fields.
const TEXTS: &[(&str, &str)] = &[
    ("api_endpoint", "uri"),
    ("webhook_url", "uri"),
    ("timezone", "timezone"),
    ("currency", "currency"),
    ("sync_cron", "cron"),
];

/// Writes them into the schemas.
pub(super) fn add(document: &mut Value) {
    let schemas = document["components"]["schemas"].as_object_mut().into_iter().flatten();
    for (_, schema) in schemas {
        if let Some(properties) = schema["properties"].as_object_mut() {
            describe(properties);
        }
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
