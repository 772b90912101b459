//! The connection test: a real call that proves the address, the credentials and the vendor's answer,
//! and a sentence about it for the person who set the system up.

use std::fmt::Write as _;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::super::template::{self, Slots};
use super::call::Call;
use super::{Connection, PageRequest, Partition, Window};
use crate::outcome::JobError;

/// A connection that works.
#[derive(Debug, Clone)]
pub struct ProbeReport {
    /// For the person who set the system up.
    pub message: String,
    /// What we asked, without secrets.
    pub request_sample: Value,
    /// The beginning of the answer, without secrets.
    pub response_sample: Value,
}

impl Connection {
    /// Tests the connection.
    pub async fn probe(&self) -> Result<ProbeReport, JobError> {
        let probe = &self.manifest.probe;
        let Some(request) = &probe.request else {
            return self.probe_stream().await;
        };
        let slots = self.slots(Slots::default());
        let success = probe.success.as_ref().or(self.manifest.envelope.success.as_ref());
        let answer = self.call(&Call::new(request, slots, success)).await?;
        let status = Value::from(answer.status);
        let bindings = [("status", &status), ("body", &answer.body)];
        let mut message = probe.message.clone();
        for (name, fact) in &probe.facts {
            // A fact that is not there makes the sentence poorer, not the connection worse.
            let value = fact.evaluate(&bindings).ok().and_then(|value| template::as_text(&value));
            message = message.replace(&format!("{{{name}}}"), value.as_deref().unwrap_or("?"));
        }
        Ok(ProbeReport {
            message: self.redact(&message),
            request_sample: answer.request_sample,
            response_sample: answer.response_sample,
        })
    }

    /// Reads the first page of a stream, which is the best test where the vendor has no other.
    async fn probe_stream(&self) -> Result<ProbeReport, JobError> {
        let probe = &self.manifest.probe;
        let named = probe.stream.as_ref().and_then(|name| self.manifest.stream(name));
        let stream = named.ok_or_else(|| {
            JobError::give_up("bad_manifest", format!("the manifest of {} has no probe", self.manifest.title))
        })?;
        let to = self.inner.store.clock().now();
        let mut window = Window { from: to.checked_sub_signed(TimeDelta::days(1)), to };
        if let Some(days) = self.days(stream, window) {
            window = self.window_of_day(stream, days.last);
        }
        let partition = self.partitions(stream).await?.into_iter().next().unwrap_or(Partition::whole());
        let request = PageRequest { partition: &partition, window, next: None };
        let mut page = self.fetch_list_page(stream, &request).await?;
        let records = page.records.len();
        if stream.detail.is_some() {
            // One is enough to see whether details can be read; a person waits for this.
            page.records.truncate(1);
            self.lay_details(stream, &request, &mut page).await?;
        }
        let mapped = self.map_page(stream, &page);
        let mut message = format!("{}; the first page of the last day has {records} records", probe.message);
        if let Some(failure) = mapped.failures.first() {
            let _ = write!(
                message,
                "; {} of {records} records of the first page cannot be read, the first because {}",
                mapped.failures.len(),
                failure.reason
            );
        }
        Ok(ProbeReport {
            message: self.redact(&message),
            request_sample: page.request_sample,
            response_sample: json!(page.response_sample),
        })
    }
}
