//! Examples of request bodies, by the names of their schemas; a test sends each to its operation.

use serde_json::{Map, Value, json};

/// The examples, as a JSON object.
const EXAMPLES: &str = include_str!("examples.json");

/// Every example by the name of its schema.
pub fn all() -> Map<String, Value> {
    serde_json::from_str(EXAMPLES).expect("a test reads the file")
}

/// Writes them beside the schemas of the bodies.
pub(super) fn add(document: &mut Value) {
    let examples = all();
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (_, operation) in paths.flat_map(|(_, methods)| methods.as_object_mut().into_iter().flatten()) {
        let media = operation.pointer_mut("/requestBody/content/application~1json");
        let Some(media) = media else {
            continue;
        };
        let name = media["schema"]["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
        let Some(name) = name.map(str::to_owned) else {
            continue;
        };
        if let Some(example) = examples.get(&name) {
            media["example"] = example.clone();
        } else if let Some(record) = name.strip_suffix("Batch").and_then(|name| examples.get(name)) {
            media["example"] = json!({ "records": [record] });
        }
    }
}
