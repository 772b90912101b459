//! Requests that only ask whether somebody is here: a GET or HEAD when the address is registered, a
//! challenge that is to be sent back, an empty ping. They make no event. Nothing is ever signed for
//! whoever asks: a signature over a text that a stranger chose would be a signature for his events.

use http::Method;
use serde_json::{Map, Value};

use super::body::{self, FormView};
use super::{Delivery, Reply, Secrets};
use crate::vendor::manifest::webhook::{Handshake, WebhookSpec};

/// The names that a condition may use.
pub(crate) const NAMES: [&str; 4] = ["method", "query", "body", "headers"];

/// The answer, if it is a handshake.
pub(super) fn answer(spec: &WebhookSpec, delivery: &Delivery<'_>, secrets: &Secrets) -> Option<Reply> {
    let method = Method::from_bytes(delivery.method.as_bytes()).ok()?;
    let mut candidates = spec.handshakes.iter().filter(|handshake| handshake.method == method).peekable();
    candidates.peek()?;
    // Events of a vendor with handshakes by POST pay for the condition; all others are gone by now.
    let bindings = Bindings::new(spec, delivery);
    candidates.find_map(|handshake| {
        let fits = bindings.fit(handshake) && (!handshake.verified || spec.verify(delivery, secrets).is_ok());
        fits.then(|| handshake.reply.echo(delivery, &bindings.body)).flatten()
    })
}

/// The request, as conditions see it.
struct Bindings {
    method: Value,
    query: Value,
    body: Value,
    headers: Value,
}

impl Bindings {
    fn new(spec: &WebhookSpec, delivery: &Delivery<'_>) -> Self {
        let query = FormView::new(delivery.query.as_bytes()).to_object().unwrap_or_default();
        let headers = delivery.headers.iter();
        let headers = headers
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), Value::from(value.to_str().ok()?))));
        Self {
            method: Value::from(delivery.method),
            query: Value::Object(query),
            body: body::read(&spec.body, delivery.body).unwrap_or(Value::Null),
            headers: Value::Object(headers.collect::<Map<_, _>>()),
        }
    }

    /// A condition over members that are not there does not hold.
    fn fit(&self, handshake: &Handshake) -> bool {
        let bindings = [
            ("method", &self.method),
            ("query", &self.query),
            ("body", &self.body),
            ("headers", &self.headers),
        ];
        handshake.when.as_ref().is_none_or(|when| when.holds(&bindings).unwrap_or(false))
    }
}
