//! The record of a thin event: some vendors' webhooks only name what changed, so it is asked for. The
//! way there is that of a page, the same policy, budgets and redaction; what comes back looks like a
//! page of one record and is mapped like one.

use serde_json::Value;

use super::super::manifest::stream::One;
use super::super::manifest::{Request, Stream};
use super::super::path;
use super::super::template::{self, Slot, Slots};
use super::call::{self, Call};
use super::{Connection, Page};
use crate::outcome::JobError;

/// The longest id that is put into an address, kept as a key, or taken from an answer.
const ID_CHARS_MAX: usize = 255;

impl Connection {
    /// Asks for the record that an event names, as the stream's `one` says.
    pub async fn fetch_record(&self, stream: &Stream, event: &Value) -> Result<Page, JobError> {
        let one = stream.one.as_ref().ok_or_else(|| {
            JobError::give_up(
                "no_such_request",
                format!(
                    "the manifest of {} does not say how one record of `{}` is asked for; add `[streams.{}.one]`",
                    self.manifest.title, stream.name, stream.name
                ),
            )
        })?;
        self.check_event(&one.request, event)?;
        let slots = self.slots(Slots { event: Some(event), ..Slots::default() });
        let success = one.success.as_ref().or(self.manifest.envelope.success.as_ref());
        let answer = self.call(&Call::new(&one.request, slots, success)).await?;
        let call::Answer {
            body, repeats_keys, asked_at, vendor_time, request_sample, response_sample, ..
        } = answer;
        let mut records = self.find_record(one, &body)?;
        if repeats_keys {
            for record in &mut records {
                *record = self.keys.json(record);
            }
        }
        Ok(Page {
            records,
            undetailed: Vec::new(),
            version: None,
            next: None,
            vendor_time,
            asked_at,
            request_sample,
            response_sample,
        })
    }

    /// Whether the event has what the request names. An id such as `..` would lead to another address.
    fn check_event(&self, request: &Request, event: &Value) -> Result<(), JobError> {
        for slot in request.slots() {
            let Slot::Event(path) = slot else { continue };
            let usable = path.find(event).is_some_and(is_usable_id);
            if !usable {
                let message = format!(
                    "the event of {} has no id at `{}` with which its record could be asked for; compare the \
                     event with the manifest's `one`",
                    self.manifest.title,
                    path.as_str()
                );
                return Err(JobError::give_up("event_incomplete", message));
            }
        }
        Ok(())
    }

    fn find_record(&self, one: &One, body: &Value) -> Result<Vec<Value>, JobError> {
        path::one_or_list(&one.record, body).ok_or_else(|| {
            let message = format!(
                "{} answered without a record at {}; correct `record` of the manifest's `one`",
                self.manifest.title,
                path::shown(&one.record)
            );
            JobError::give_up("record_missing", message)
        })
    }
}

/// Whether a record can be asked for with this.
pub(super) fn is_usable_id(value: &Value) -> bool {
    // `.` and `..` would lead to another address.
    template::as_text(value).is_some_and(|text| !matches!(text.as_str(), "." | "..") && is_plain_id(&text))
}

/// Whether a text can be kept as an id: it is there, not too long, and one line.
pub(super) fn is_plain_id(text: &str) -> bool {
    !text.is_empty() && text.chars().nth(ID_CHARS_MAX).is_none() && !text.contains(char::is_control)
}
