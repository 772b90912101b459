//! Whether an answer is one that the document names: its status among the operation's, and the code of a
//! refusal among those of the status. Every answer of every test is looked at.

use std::sync::OnceLock;

use poem::http::Method;
use serde_json::Value;
use zhilian_sync::api;
use zhilian_sync::api::document::errors;

use super::Answered;

/// The document, made once in a process.
static DOCUMENT: OnceLock<Value> = OnceLock::new();

/// Fails the test whose answer is not documented.
pub(crate) fn check(app: &zhilian_sync::app::App, method: &Method, path: &str, answered: &Answered) {
    // These belong to every operation: the service's own faults.
    if matches!(answered.status, 500 | 504) {
        return;
    }
    let Ok(Some(route)) = api::access::find(method, path.split('?').next().unwrap_or_default()) else {
        return;
    };
    let document = DOCUMENT.get_or_init(|| api::openapi(app));
    let operation = &document["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
    let operation_id = route.operation;
    let is_problem = answered.header("content-type") == Some("application/problem+json");
    let code =
        if is_problem { answered.json()["code"].as_str().unwrap_or("-").to_owned() } else { "-".to_owned() };
    // A vendor's manifest names the statuses that the vendor wants.
    let is_listed = operation["responses"].get(answered.status.to_string()).is_some()
        || (!is_problem && route.path.starts_with("/integrations/webhooks/"));
    let codes = errors::of(route, operation);
    let is_known = !is_problem
        || codes.get(&answered.status).is_some_and(|codes| codes.iter().any(|known| known.code == code));
    assert!(
        is_listed && is_known,
        "`{operation_id}` answered {} with the code `{code}`, which the document does not name; \
         add it in src/api/document/errors.rs: {}",
        answered.status,
        answered.text
    );
}
