//! Which errors each operation may answer: their statuses, and their codes with what they mean.
//!
//! Most follow from what an operation is: one that needs a login may answer a 401, one with an id in its path
//! a 404, one with a body a 400, 413, 415 and 422. What follows from nothing but the operation itself stands in
//! a table. Whatever else goes wrong (500, 504, a connection that is cut) is the operation's `default`.

use std::collections::BTreeMap;

use poem::http::{Method, StatusCode};
use serde_json::{Value, json};
use zhilian_sync_store::Role;

use crate::api::access::Access;
use crate::api::idempotency;
use crate::api::problem::CONTENT_TYPE;
use crate::api::{ROUTES, Route};

/// An error's stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The code.
    pub code: &'static str,
    /// The status that it comes with.
    pub status: u16,
    /// What it means.
    pub words: &'static str,
}

const fn code(status: u16, code: &'static str, words: &'static str) -> Code {
    Code { code, status, words }
}

/// Every code; where one is answered for more than one reason, the words are those that hold for all.
pub const CODES: &[Code] = &[
    code(400, "bad_request", "the request cannot be understood"),
    code(400, "body_incomplete", "the body ended too early"),
    code(400, "malformed_body", "the body cannot be read"),
    code(400, "malformed_json", "the body is not a JSON object"),
    code(400, "malformed_record", "a record of a batch is not a JSON object; told beside the record"),
    code(400, "wrong_system_type", "the system is of another type than this path serves"),
    code(401, "invalid_token", "the token is unknown or has ended"),
    code(401, "unauthorized", "nobody is signed in"),
    code(401, "wrong_credentials", "the user name or the password is wrong"),
    code(403, "forbidden", "the caller's role may not do this"),
    code(403, "foreign_origin", "a change by cookie that does not come from this service's own pages"),
    code(403, "other_store", "a caller who has a store has systems, users and tokens of that store only"),
    code(403, "session_needed", "an API token is no session: a person does this"),
    code(403, "wrong_password", "the present password is another one"),
    code(404, "no_such_route", "there is nothing at this path"),
    code(404, "not_found", "what is named does not exist, or not for this caller"),
    code(405, "method_not_allowed", "the path does not take this method"),
    code(409, "cannot_push", "the system's vendor takes no members"),
    code(409, "conflict", "the change contradicts what is there or under way"),
    code(409, "idempotency_in_progress", "the first request with this `Idempotency-Key` is being worked on"),
    code(409, "last_admin", "nobody would be left who sees the whole chain and may do everything"),
    code(409, "not_quarantined", "only a quarantined event is released"),
    code(409, "not_replayable", "the event is quarantined, or is being worked on"),
    code(409, "not_retryable", "only a run that failed, was cancelled or is partial is repeated"),
    code(409, "not_set_up", "the system's settings have mistakes, or its vendor has nothing to offer"),
    code(409, "run_ended", "the run is over"),
    code(409, "too_many_secrets", "too many webhook secrets of the system are still valid"),
    code(413, "body_too_large", "the body is larger than allowed"),
    code(415, "unsupported_media_type", "the body is not JSON by its content type"),
    code(422, "credentials_needed", "this change needs the credentials again in the same request"),
    code(422, "idempotency_key_reused", "this `Idempotency-Key` was used for another request"),
    code(422, "invalid_values", "`errors` names every wrong field"),
    code(422, "not_storable", "a value is too long, too large or holds U+0000"),
    code(429, "too_many_sign_ins", "too many sign-ins at the moment"),
    code(429, "too_many_unverified", "too many events that cannot be verified"),
    code(500, "internal", "the service failed"),
    code(503, "database_unavailable", "the database does not answer"),
    code(503, "inbox_busy", "the event was not kept in time and counts as not received"),
    code(503, "too_many_listeners", "as many listen to events as may"),
    code(503, "system_misconfigured", "the system's settings or secrets cannot be read"),
    code(504, "timeout", "the request took too long; it may still have had its effect"),
];

/// Codes that belong to no operation: the service's own faults, and requests that reach none.
pub const GENERAL: &[&str] =
    &["bad_request", "internal", "malformed_body", "malformed_record", "no_such_route", "timeout"];

/// What an operation answers beside what follows from its form.
pub const SPECIAL: &[(&str, &[&str])] = &[
    ("sign_in", &["wrong_credentials", "too_many_sign_ins", "database_unavailable"]),
    ("sign_out", &["session_needed"]),
    ("change_password", &["session_needed", "wrong_password", "too_many_sign_ins"]),
    ("list_sessions", &["session_needed"]),
    ("end_session", &["session_needed"]),
    ("create_user", &["other_store", "conflict"]),
    ("update_user", &["other_store", "last_admin", "conflict"]),
    ("delete_user", &["last_admin", "conflict"]),
    ("create_token", &["other_store"]),
    ("create_system", &["forbidden", "other_store"]),
    ("update_system", &["forbidden", "other_store", "credentials_needed", "conflict"]),
    ("delete_system", &["conflict"]),
    ("test_system", &["conflict"]),
    ("start_sync", &["not_set_up", "conflict"]),
    ("pause_system", &["conflict"]),
    ("resume_system", &["conflict"]),
    ("cancel_run", &["run_ended"]),
    ("retry_run", &["not_retryable", "conflict"]),
    ("retry_failures", &["conflict"]),
    ("create_transaction", &["wrong_system_type"]),
    ("create_transactions", &["wrong_system_type"]),
    ("create_supplier_order", &["wrong_system_type"]),
    ("create_supplier_orders", &["wrong_system_type"]),
    ("create_member", &["wrong_system_type", "conflict"]),
    ("create_members", &["wrong_system_type", "conflict"]),
    ("push_member", &["cannot_push", "conflict"]),
    ("create_reservation", &["wrong_system_type"]),
    ("create_reservations", &["wrong_system_type"]),
    ("stream_events", &["not_found", "too_many_listeners"]),
    ("receive_webhook", RECEIVING),
    ("answer_handshake", SHAKING_HANDS),
    ("answer_probe", SHAKING_HANDS),
    // Only with `payload=true`.
    ("show_webhook_event", &["forbidden"]),
    ("replay_webhook_events", &["not_found", "conflict"]),
    ("replay_webhook_event", &["not_replayable"]),
    ("release_webhook_event", &["not_quarantined"]),
    ("reverify_webhook_events", &["conflict"]),
    ("rotate_webhook_secret", &["not_set_up", "too_many_secrets", "conflict"]),
];

const RECEIVING: &[&str] = &[
    "wrong_system_type",
    "body_incomplete",
    "body_too_large",
    "not_storable",
    "too_many_unverified",
    "inbox_busy",
    "system_misconfigured",
];
/// Handshakes come by the same way as events: a body is read of whatever comes.
const SHAKING_HANDS: &[&str] = &[
    "wrong_system_type",
    "body_incomplete",
    "body_too_large",
    "method_not_allowed",
    "inbox_busy",
    "system_misconfigured",
];

/// What whoever is not signed in is told.
const OF_A_LOGIN: &[&str] = &["unauthorized", "invalid_token"];
/// What a request with an `Idempotency-Key` may end with.
const OF_A_KEY: &[&str] = &["idempotency_in_progress", "idempotency_key_reused", "invalid_values"];
/// What reading a JSON body may end with.
const OF_A_BODY: &[&str] = &[
    "malformed_json",
    "body_incomplete",
    "body_too_large",
    "unsupported_media_type",
    "invalid_values",
    "not_storable",
];

/// The codes that an operation may answer, by status. `operation` is its part of the document.
pub fn of(route: &Route, operation: &Value) -> BTreeMap<u16, Vec<&'static Code>> {
    let mut names: Vec<&str> = Vec::new();
    if let Access::Needs(permission) = route.access {
        names.extend(OF_A_LOGIN);
        names.push("database_unavailable");
        if permission.roles() != Role::ALL {
            names.push("forbidden");
        }
        if route.method != Method::GET {
            names.push("foreign_origin");
        }
    }
    if idempotency::takes_key(route) {
        names.extend(OF_A_KEY);
    }
    if route.path.contains('{') {
        names.push("not_found");
    }
    if operation["requestBody"]["content"].get("application/json").is_some() {
        names.extend(OF_A_BODY);
    }
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    if parameters.into_iter().any(|parameter| matches!(parameter["in"].as_str(), Some("query" | "header"))) {
        names.push("invalid_values");
    }
    let special = SPECIAL.iter().filter(|(operation, _)| *operation == route.operation);
    names.extend(special.flat_map(|(_, codes)| codes.iter()));
    let mut found: BTreeMap<u16, Vec<&'static Code>> = BTreeMap::new();
    // In the order of the table, so that the same codes have the same name wherever they stand together.
    for code in CODES.iter().filter(|code| names.contains(&code.code)) {
        found.entry(code.status).or_default().push(code);
    }
    found
}

/// Writes them into the document.
pub(super) fn add(document: &mut Value) {
    for route in ROUTES {
        let method = route.method.as_str().to_ascii_lowercase();
        let found = of(route, &document["paths"][route.path][&method]);
        for (status, codes) in found {
            let response = response(status, &codes);
            let responses = &mut document["paths"][route.path][&method]["responses"];
            let known = &mut responses[status.to_string()];
            if known.is_null() {
                let name = codes.iter().map(|code| code.code).collect::<Vec<_>>().join(".");
                *known = json!({"$ref": format!("#/components/responses/{name}")});
                document["components"]["responses"][name] = response;
            } else {
                also(known, &response);
            }
        }
    }
}

/// Adds a problem to an answer of the same status that is none.
fn also(known: &mut Value, problem: &Value) {
    let text = |value: &Value| value["description"].as_str().unwrap_or_default().to_owned();
    known["description"] = json!(format!("{} Or: {}", text(known), text(problem)));
    known["content"][CONTENT_TYPE] = problem["content"][CONTENT_TYPE].clone();
    if let Some(headers) = problem["headers"].as_object() {
        for (name, header) in headers {
            known["headers"][name] = header.clone();
        }
    }
}

fn response(status: u16, codes: &[&Code]) -> Value {
    let lines: Vec<String> = codes.iter().map(|code| format!("`{}`: {}.", code.code, code.words)).collect();
    let names: Vec<&str> = codes.iter().map(|code| code.code).collect();
    let narrowed = json!({"properties": {"status": {"enum": [status]}, "code": {"enum": names}}});
    let schema = json!({"allOf": [{"$ref": "#/components/schemas/Problem"}, narrowed]});
    let mut response = json!({"description": lines.join(" "), "content": {CONTENT_TYPE: {"schema": schema}}});
    for (name, header) in headers_of(status) {
        response["headers"][name] = json!({"$ref": format!("#/components/headers/{header}")});
    }
    response
}

/// The headers that answers of a status may have, and what the document calls them.
fn headers_of(status: u16) -> &'static [(&'static str, &'static str)] {
    match StatusCode::from_u16(status) {
        Ok(StatusCode::UNAUTHORIZED) => &[("WWW-Authenticate", "WwwAuthenticate")],
        Ok(StatusCode::METHOD_NOT_ALLOWED) => &[("Allow", "Allow")],
        Ok(StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
            &[("Retry-After", "RetryAfter")]
        }
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_operations_and_codes_that_exist_and_each_once() {
        let known = |name: &str| CODES.iter().any(|code| code.code == name);
        for (operation, codes) in SPECIAL {
            assert!(ROUTES.iter().any(|route| route.operation == *operation), "no operation `{operation}`");
            for code in *codes {
                assert!(known(code), "no code `{code}`, which `{operation}` answers");
            }
        }
        for code in OF_A_LOGIN.iter().chain(OF_A_BODY).chain(OF_A_KEY).chain(GENERAL) {
            assert!(known(code), "no code `{code}`");
        }
        let mut names: Vec<&str> = CODES.iter().map(|code| code.code).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "a code has two lines");
        let mut operations: Vec<&str> = SPECIAL.iter().map(|(operation, _)| *operation).collect();
        operations.sort_unstable();
        let count = operations.len();
        operations.dedup();
        assert_eq!(operations.len(), count, "an operation has two lines");
    }

    #[test]
    fn every_code_is_answered_by_some_operation_or_belongs_to_none() {
        let of_a_form = ["database_unavailable", "forbidden", "foreign_origin", "not_found"];
        let special = SPECIAL.iter().flat_map(|(_, codes)| codes.iter());
        let listed =
            special.chain(OF_A_LOGIN).chain(OF_A_BODY).chain(OF_A_KEY).chain(GENERAL).chain(&of_a_form);
        let listed: Vec<&str> = listed.copied().collect();
        for code in CODES {
            assert!(listed.contains(&code.code), "no operation answers `{}`", code.code);
        }
    }
}
