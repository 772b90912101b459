//! The headers that answers have, described once: every answer names its request, some say when to come again.

use serde_json::{Value, json};

use crate::api::{ROUTES, idempotency};

/// Describes the headers, and puts those that every answer has to every answer.
pub(super) fn add(document: &mut Value) {
    let header = |description: &str, kind: &str, required: bool| json!({"description": description, "required": required, "schema": {"type": kind}});
    document["components"]["headers"] = json!({
        "RequestId": header("Names the request in the log and the audit; the caller's own where it sent a harmless one.", "string", true),
        "RetryAfter": header("After how many seconds to come again, where that may help.", "integer", false),
        "WwwAuthenticate": header("How to sign in: `Bearer`.", "string", false),
        "IdempotencyReplayed": header("`true` on an answer that was given before.", "string", false),
        "Allow": header("The methods that the path does take.", "string", true),
    });
    let request_id = json!({"$ref": "#/components/headers/RequestId"});
    let shared = document["components"]["responses"].as_object_mut().into_iter().flatten();
    for (_, response) in shared {
        response["headers"]["X-Request-Id"] = request_id.clone();
    }
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (_, operation) in paths.flat_map(|(_, methods)| methods.as_object_mut().into_iter().flatten()) {
        for (_, response) in operation["responses"].as_object_mut().into_iter().flatten() {
            if response.get("$ref").is_none() {
                response["headers"]["X-Request-Id"] = request_id.clone();
            }
        }
    }
}

/// The header with which a POST may be sent again, and the one that tells that it was.
pub(super) fn add_key(document: &mut Value) {
    document["components"]["parameters"]["IdempotencyKey"] = json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "A name for this request. The same request again with the same key gets the answer of the first, for a day, and has no second effect.",
        "schema": {"type": "string", "minLength": 1, "maxLength": idempotency::KEY_CHARS_MAX, "pattern": "^[!-~]+$"},
    });
    for route in ROUTES.iter().filter(|route| idempotency::takes_key(route)) {
        let operation = &mut document["paths"][route.path]["post"];
        let key = json!({"$ref": "#/components/parameters/IdempotencyKey"});
        match operation["parameters"].as_array_mut() {
            Some(parameters) => parameters.push(key),
            None => operation["parameters"] = json!([key]),
        }
        for status in ["200", "202"] {
            if let Some(response) = operation["responses"].get_mut(status) {
                response["headers"]["Idempotency-Replayed"] =
                    json!({"$ref": "#/components/headers/IdempotencyReplayed"});
            }
        }
    }
}
