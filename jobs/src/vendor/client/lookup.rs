//! Records that a vendor tells only to whoever names them: each is asked for by a key that the records of other
//! systems have brought, such as a customer's telephone number. A page is a handful of keys, and the keys come
//! from our own tables: those that were stored or changed in the window. A key that the vendor does not know is
//! no mistake; one that it refuses fails alone.

use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use zhilian_sync_store::pos_transactions::{self, ChangedPhones};

use super::super::manifest::Stream;
use super::super::manifest::stream::lookup::{Keys, Lookup};
use super::super::paging::PageToken;
use super::super::path;
use super::super::template::Slots;
use super::at_once::all_in_order;
use super::call::{Answer, Call};
use super::outcome::{NOT_FOUND, speaks_of_one_record};
use super::{Connection, Page, PageRequest, Undetailed};
use crate::outcome::JobError;

/// What one call brought.
struct LookedUp {
    records: Vec<Value>,
    refused: Option<Undetailed>,
    /// Request and answer, for the run's log.
    samples: Option<(Value, Value)>,
}

impl Connection {
    /// Takes the keys from the caller instead of from our tables.
    #[must_use]
    pub fn with_lookup_keys(self, keys: Vec<String>) -> Self {
        Self { lookup_keys: Some(keys), ..self }
    }

    /// Asks for the records of the next keys.
    pub(super) async fn look_up(
        &self,
        stream: &Stream,
        lookup: &Lookup,
        request: &PageRequest<'_>,
    ) -> Result<Page, JobError> {
        let after = match request.next {
            None => "",
            Some(PageToken::Cursor(key)) => key,
            Some(_) => {
                let message = format!(
                    "the position of `{}` is of another kind than a lookup's; start it anew",
                    stream.name
                );
                return Err(JobError::give_up("bad_position", message));
            }
        };
        // Of two observations the later one counts, and this page is as old as the first of its answers.
        let asked_at = self.inner.store.clock().now();
        let keys = self.keys_after(lookup, request, after).await?;
        let full = keys.len() >= usize::try_from(lookup.size).unwrap_or(usize::MAX);
        let next = keys.last().filter(|_| full).cloned().map(PageToken::Cursor);
        let asked = keys.into_iter().map(|key| self.look_up_one(stream, lookup, key).boxed());
        let found: Vec<LookedUp> = all_in_order(asked.collect()).await?;
        Ok(gathered(found, next, asked_at))
    }

    async fn keys_after(
        &self,
        lookup: &Lookup,
        request: &PageRequest<'_>,
        after: &str,
    ) -> Result<Vec<String>, JobError> {
        if let Some(keys) = &self.lookup_keys {
            return Ok(if after.is_empty() { keys.clone() } else { Vec::new() });
        }
        match lookup.keys {
            Keys::CustomerPhones => {
                let wanted = ChangedPhones {
                    from: request.window.from.unwrap_or(DateTime::<Utc>::UNIX_EPOCH),
                    to: request.window.to,
                    store_id: self.store_id.as_deref(),
                    after,
                    limit: lookup.size,
                };
                Ok(pos_transactions::changed_phones(&self.inner.store, &wanted).await?)
            }
        }
    }

    async fn look_up_one(&self, stream: &Stream, lookup: &Lookup, key: String) -> Result<LookedUp, JobError> {
        let slots = self.slots(Slots { lookup_key: Some(&key), ..Slots::default() });
        let success = stream.answer.success.as_ref().or(self.manifest.envelope.success.as_ref());
        let answer = match self.call_patiently(&Call::new(&stream.request, slots, success)).await {
            Ok(answer) => answer,
            Err(error) if error.code == NOT_FOUND => {
                return Ok(LookedUp { records: Vec::new(), refused: None, samples: None });
            }
            Err(error) if speaks_of_one_record(&error) => {
                let reason = format!("it cannot be looked up: {}", error.message);
                let refused = Undetailed { record: json!({ "lookup_key": key }), reason };
                return Ok(LookedUp { records: Vec::new(), refused: Some(refused), samples: None });
            }
            Err(error) => return Err(error),
        };
        let Answer { body, repeats_keys, request_sample, response_sample, .. } = answer;
        let mut records = path::one_or_list(&stream.answer.records, &body).unwrap_or_default();
        for record in &mut records {
            if repeats_keys {
                *record = self.keys.json(record);
            }
            if let (Some(name), Some(members)) = (&lookup.into, record.as_object_mut()) {
                members.insert(name.clone(), Value::from(key.as_str()));
            }
        }
        Ok(LookedUp { records, refused: None, samples: Some((request_sample, response_sample)) })
    }
}

/// What the calls brought, as one page. It ends a window of our own time, so the vendor's clock has no say.
fn gathered(found: Vec<LookedUp>, next: Option<PageToken>, asked_at: DateTime<Utc>) -> Page {
    let mut page = Page {
        records: Vec::new(),
        undetailed: Vec::new(),
        version: None,
        next,
        vendor_time: None,
        asked_at,
        request_sample: Value::Null,
        response_sample: Value::Null,
    };
    for one in found {
        page.records.extend(one.records);
        page.undetailed.extend(one.refused);
        if let Some((request, response)) = one.samples {
            (page.request_sample, page.response_sample) = (request, response);
        }
    }
    page
}
