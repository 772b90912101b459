//! A request as it came and the answer as it goes, without the server's types, so that a vendor is a
//! function from one to the other.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::Value;

/// Called with every request once it is answered.
pub type Heard = Arc<dyn Fn(&RequestLine) + Send + Sync>;

/// What is told of a request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLine {
    /// `GET`, `POST`, ….
    pub method: String,
    /// Path and query as they came.
    pub target: String,
    /// The status of the answer.
    pub status: u16,
    /// Which faults were injected.
    pub injected: Vec<&'static str>,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST`, ….
    pub method: String,
    /// The path, percent-encoded as it came.
    pub path: String,
    /// The query without its question mark, as it came; empty without one.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// The first header of this name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The parameters of the query, decoded, in their order.
    pub fn query_pairs(&self) -> Vec<(String, String)> {
        pairs(self.query.as_bytes())
    }

    /// The fields of a form, decoded, in their order; none where the body says it is no form.
    pub fn form_pairs(&self) -> Vec<(String, String)> {
        let form = self
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        if form { pairs(&self.body) } else { Vec::new() }
    }

    /// The body as JSON, where it says that it is.
    pub fn json(&self) -> Option<Value> {
        let json = self.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        if json { serde_json::from_slice(&self.body).ok() } else { None }
    }

    /// What stands behind `Bearer` in `Authorization`.
    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    /// Method and path, to be matched.
    pub fn route(&self) -> (&str, &str) {
        (&self.method, &self.path)
    }
}

fn pairs(text: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// An answer as it goes.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers besides `Content-Type` and `Date`.
    pub headers: Vec<(&'static str, String)>,
    /// The body, JSON.
    pub body: Value,
}

impl Reply {
    /// An answer 200.
    pub fn ok(body: Value) -> Self {
        Self::status(200, body)
    }

    /// An answer with any status.
    pub fn status(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A time as HTTP writes it, in whole seconds.
pub(crate) fn http_date(time: DateTime<Utc>) -> String {
    time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
