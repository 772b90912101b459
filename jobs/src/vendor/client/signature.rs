//! The signature of a request that is not sent: what `vendors check` compares with known ones. The request is
//! drafted as for a call, at a time and with an access token that are given, so nothing is asked of anybody.

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde_json::Value;

use super::super::manifest::Stream;
use super::super::template::{self, Slots};
use super::build::{Body, Draft};
use super::call::Call;
use super::{Connection, PageRequest, Partition, Window};
use crate::outcome::JobError;

/// Which request of a vendor is meant.
#[derive(Clone, Copy)]
pub(in crate::vendor) enum Asked<'a> {
    /// The connection test's own.
    Probe,
    /// The one for an access token.
    Token,
    /// The first page of a window of a part.
    Page(&'a Stream, &'a Partition, Window),
}

impl Connection {
    /// What the request would have at `query:<name>`, `form:<name>` or `header:<name>`.
    pub(in crate::vendor) fn drafted(
        &self,
        asked: Asked<'_>,
        at: DateTime<Utc>,
        token: &SecretString,
        place: &str,
    ) -> Result<Option<String>, JobError> {
        let slots = self.slots(Slots::default());
        let lacks = |what: &str| {
            let message = format!("the manifest of {} has no request of {what}", self.manifest.title);
            JobError::give_up("bad_manifest", message)
        };
        let call = match asked {
            Asked::Probe => {
                let request = self.manifest.probe.request.as_ref();
                Call::new(request.ok_or_else(|| lacks("its probe"))?, slots, None)
            }
            Asked::Token => {
                let spec = self.manifest.auth.token().ok_or_else(|| lacks("a token"))?;
                Call { token_of: Some(spec), ..Call::new(&spec.request, slots, None) }
            }
            Asked::Page(stream, partition, window) => {
                self.page_call(stream, &PageRequest { partition, window, next: None })?
            }
        };
        let token = call.token_of.is_none().then_some(token);
        let slots = Slots { request_time: Some(self.request_time(at)), token, ..call.slots.clone() };
        Ok(self.draft(&call, &slots)?.find(place))
    }
}

impl Draft {
    /// The first value at `query:<name>`, `form:<name>`, `body:<name>` or `header:<name>`, as it is sent.
    fn find(&self, place: &str) -> Option<String> {
        let (kind, name) = place.split_once(':')?;
        match (kind, &self.body) {
            ("query", _) => {
                self.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
            }
            ("header", _) => Some(self.headers.get(name)?.to_str().ok()?.to_owned()),
            ("form" | "body", Some(body @ Body::Form(..))) => {
                body.shown().get(name).and_then(Value::as_str).map(str::to_owned)
            }
            ("body", Some(Body::Json(members))) => members.get(name).and_then(template::as_text),
            _ => None,
        }
    }
}
