//! What is kept of a request beside its body, so that it can be verified again after a secret was
//! mended, and routed: the headers and the query that the manifest looks at, and nothing else. What
//! bears a secret, a code in a header or in the URL, is apart: it is sealed before it is written.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::Delivery;
use super::open::{VALUE_BYTES_MAX, VALUES_MAX};
use crate::vendor::manifest::webhook::{ContentPart, Place, Scheme, SortedFrom, Verification, WebhookSpec};

/// What must be kept of a request beside its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// As JSON: `query`, `headers` and `url`, each only where it is needed.
    pub clear: String,
    /// The same for what bears a secret, to be sealed.
    pub secret: Option<String>,
}

/// A delivery that was kept.
#[derive(Debug, Clone)]
pub struct StoredDelivery {
    /// In capitals.
    pub method: String,
    /// The registered address at the time of receipt; put the present one in its place where that was
    /// what was wrong.
    pub url: String,
    /// As it stood in the address.
    pub query: String,
    /// Those that were kept.
    pub headers: HeaderMap,
    /// The raw bytes.
    pub body: Vec<u8>,
    /// When it was received.
    pub received_at: DateTime<Utc>,
}

impl StoredDelivery {
    /// To be verified and opened like one that has just come.
    #[must_use]
    pub fn as_delivery(&self) -> Delivery<'_> {
        Delivery {
            method: &self.method,
            url: &self.url,
            query: &self.query,
            headers: &self.headers,
            body: &self.body,
            received_at: self.received_at,
        }
    }
}

/// How much of a query is looked at.
enum QueryPart<'a> {
    Whole,
    Named(Vec<&'a str>),
}

impl WebhookSpec {
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.verification.places().chain(self.event_key.iter().flatten()).chain(&self.event_type)
    }

    /// Which part of a query anything here looks at: parameters by name, as a rule.
    fn read_of_query(&self) -> QueryPart<'_> {
        let sorted = matches!(&self.verification.scheme, Scheme::SortedParameters(sorted) if sorted.from == SortedFrom::Query);
        let by_condition =
            || self.routes.iter().any(|route| route.when.as_ref().is_some_and(|when| when.reads("query")));
        if sorted || by_condition() {
            return QueryPart::Whole;
        }
        QueryPart::Named(self.places().filter_map(Place::parameter).collect())
    }
}

impl Verification {
    fn looks_at_url(&self) -> bool {
        match &self.scheme {
            Scheme::Hmac { content, .. } | Scheme::Digest { content, .. } => {
                content.contains(&ContentPart::Url)
            }
            Scheme::SortedParameters(sorted) => sorted.url_first,
            Scheme::Code | Scheme::None => false,
        }
    }

    /// Whether what stands there is the secret itself.
    fn is_code(&self, place: &Place) -> bool {
        matches!(self.scheme, Scheme::Code) && self.signature.contains(place)
    }
}

/// What must be kept.
pub(super) fn keep(spec: &WebhookSpec, delivery: &Delivery<'_>) -> Kept {
    let of = &spec.verification;
    let (mut clear, mut secret) = (Parts::default(), Parts::default());
    if delivery.method != "POST" {
        clear.others.insert("method".to_owned(), Value::from(delivery.method));
    }
    if of.looks_at_url() {
        clear.others.insert("url".to_owned(), Value::from(delivery.url));
    }
    let mut seen = BTreeSet::new();
    for place in spec.places() {
        if let Place::Header(name) = place
            && seen.insert(name.as_str())
        {
            let parts = if of.is_code(place) { &mut secret } else { &mut clear };
            parts.take_header(name, delivery.headers);
        }
    }
    let codes: Vec<&str> =
        of.signature.iter().filter(|place| of.is_code(place)).filter_map(Place::parameter).collect();
    let bare = pieces(delivery.query, |name| !codes.contains(&name));
    if !codes.is_empty() && !delivery.query.is_empty() {
        // Whole: where the code is missing, it may stand there under a name that is corrected later.
        secret.others.insert("query".to_owned(), Value::from(delivery.query));
    }
    // What is beside a missing code may be the code, so nothing of that is shown.
    if codes.is_empty() || bare != delivery.query {
        let shown = match spec.read_of_query() {
            QueryPart::Whole => bare,
            QueryPart::Named(names) => pieces(&bare, |name| names.contains(&name)),
        };
        if !shown.is_empty() {
            clear.others.insert("query".to_owned(), Value::from(shown));
        }
    }
    Kept { clear: clear.into_json().unwrap_or_else(|| "{}".to_owned()), secret: secret.into_json() }
}

/// The parameters of a query with such names, as they stand there.
fn pieces(query: &str, wanted: impl Fn(&str) -> bool) -> String {
    let is_wanted =
        |piece: &&str| form_urlencoded::parse(piece.as_bytes()).next().is_some_and(|(name, _)| wanted(&name));
    query.split('&').filter(is_wanted).collect::<Vec<_>>().join("&")
}

#[derive(Default)]
struct Parts {
    headers: Map<String, Value>,
    others: Map<String, Value>,
}

impl Parts {
    fn take_header(&mut self, name: &HeaderName, headers: &HeaderMap) {
        let texts = headers.get_all(name).iter();
        let texts = texts.filter_map(|value| std::str::from_utf8(value.as_bytes()).ok());
        let mut values: Vec<Value> =
            texts.take(VALUES_MAX).filter(|text| text.len() <= VALUE_BYTES_MAX).map(Value::from).collect();
        let kept = match values.len() {
            0 => return,
            1 => values.swap_remove(0),
            _ => Value::Array(values),
        };
        self.headers.insert(name.as_str().to_owned(), kept);
    }

    fn into_json(mut self) -> Option<String> {
        if !self.headers.is_empty() {
            self.others.insert("headers".to_owned(), Value::Object(self.headers));
        }
        (!self.others.is_empty()).then(|| Value::Object(self.others).to_string())
    }
}

/// The inverse of [`keep`].
pub(super) fn restore(
    clear: &str,
    secret: Option<&str>,
    body: Vec<u8>,
    received_at: DateTime<Utc>,
) -> Result<StoredDelivery, String> {
    let mut stored = StoredDelivery {
        method: "POST".to_owned(),
        url: String::new(),
        query: String::new(),
        headers: HeaderMap::new(),
        body,
        received_at,
    };
    for text in std::iter::once(clear).chain(secret) {
        let parts: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| format!("the request that was kept is not JSON: {error}"))?;
        for (name, value) in parts {
            match (name.as_str(), value) {
                ("method", Value::String(text)) => stored.method = text,
                ("url", Value::String(text)) => stored.url = text,
                ("query", Value::String(text)) => stored.query = text,
                ("headers", Value::Object(headers)) => put_headers(&mut stored.headers, headers)?,
                _ => return Err(format!("the request that was kept has an unknown part `{name}`")),
            }
        }
    }
    Ok(stored)
}

fn put_headers(into: &mut HeaderMap, headers: Map<String, Value>) -> Result<(), String> {
    for (name, value) in headers {
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        let problem = |name: &str| format!("the request that was kept has a bad header `{name}`");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| problem(&name))?;
        for value in values {
            let text = value.as_str().ok_or_else(|| problem(&name))?;
            let value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| problem(&name))?;
            into.append(&key, value);
        }
    }
    Ok(())
}
