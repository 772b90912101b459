//! The details of a page's records: a second call for each, or for many at once, whose answer is laid
//! over the record of the list before it is mapped. A record whose detail the vendor does not have fails
//! alone; whatever may pass fails the page, which is read again.

use std::collections::{HashMap, HashSet};

use futures_util::FutureExt as _;
use serde_json::Value;

use super::super::manifest::Stream;
use super::super::manifest::stream::detail::{Batch, Detail};
use super::super::template::{self, Slot, Slots};
use super::at_once::all_in_order;
use super::call::{self, Call};
use super::fetch::is_usable_id;
use super::outcome::speaks_of_one_record;
use super::{Connection, Page, PageRequest};
use crate::outcome::JobError;

/// A record that cannot be told in full.
#[derive(Debug, Clone)]
pub struct Undetailed {
    /// As the list has it.
    pub record: Value,
    /// Why.
    pub reason: String,
}

/// A record with its detail, or why there is none.
type Told = Result<Value, Undetailed>;

impl Connection {
    /// Lays the details over the records of a page, where the stream has some.
    pub(super) async fn lay_details(
        &self,
        stream: &Stream,
        request: &PageRequest<'_>,
        page: &mut Page,
    ) -> Result<(), JobError> {
        let Some(detail) = &stream.detail else { return Ok(()) };
        let size = detail.batch.as_ref().map_or(1, |batch| batch.size);
        let records = std::mem::take(&mut page.records);
        let parts: Vec<Vec<Value>> = records.chunks(size).map(<[Value]>::to_vec).collect();
        let asked = parts.into_iter().map(|part| self.tell(detail, request, part).boxed());
        let told: Vec<Vec<Told>> = all_in_order(asked.collect()).await?;
        for one in told.into_iter().flatten() {
            match one {
                Ok(record) => page.records.push(record),
                Err(undetailed) => page.undetailed.push(undetailed),
            }
        }
        Ok(())
    }

    /// Asks for the details of these records, of one or of a batch.
    async fn tell(
        &self,
        detail: &Detail,
        request: &PageRequest<'_>,
        records: Vec<Value>,
    ) -> Result<Vec<Told>, JobError> {
        let (records, without): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| is_told_by(detail, record));
        let reason = || "the record has no id with which its detail could be asked for".to_owned();
        let mut told: Vec<Told> =
            without.into_iter().map(|record| Err(Undetailed { record, reason: reason() })).collect();
        if records.is_empty() {
            return Ok(told);
        }
        let details = match self.ask(detail, request, &records).await {
            Ok(details) => details,
            Err(error) if speaks_of_one_record(&error) => {
                let reason = format!("its detail cannot be read: {}", error.message);
                let failed = |record| Err(Undetailed { record, reason: reason.clone() });
                told.extend(records.into_iter().map(failed));
                return Ok(told);
            }
            Err(error) => return Err(error),
        };
        match &detail.batch {
            None => {
                let pairs = records.into_iter().zip(details);
                told.extend(pairs.map(|(record, found)| lay(detail, record, found)));
            }
            Some(batch) => told.extend(match_up(detail, batch, records, details)),
        }
        Ok(told)
    }

    /// The details in the answer: one, or the list of a batch.
    async fn ask(
        &self,
        detail: &Detail,
        request: &PageRequest<'_>,
        records: &[Value],
    ) -> Result<Vec<Value>, JobError> {
        let slots = self.slots(Slots {
            partition: Some(&request.partition.element),
            record: records.first(),
            records: Some(records),
            ..Slots::default()
        });
        let success = detail.success.as_ref().or(self.manifest.envelope.success.as_ref());
        let answer = self.call_patiently(&Call::new(&detail.request, slots, success)).await?;
        let call::Answer { mut body, repeats_keys, .. } = answer;
        if repeats_keys {
            body = self.keys.json(&body);
        }
        if detail.batch.is_some() {
            return self.take_list(&detail.record, &mut body);
        }
        let found = detail.record.iter().filter_map(|path| path.find(&body)).find(|found| found.is_object());
        found.cloned().map(|found| vec![found]).ok_or_else(|| {
            let message = format!(
                "{} answered without a record at {}",
                self.manifest.title,
                super::super::path::shown(&detail.record)
            );
            JobError::give_up("record_missing", message)
        })
    }
}

/// Whether the record has what the request for its detail names.
fn is_told_by(detail: &Detail, record: &Value) -> bool {
    detail.request.slots().into_iter().all(|slot| match slot {
        Slot::Record(path) | Slot::Records(path) => path.find(record).is_some_and(is_usable_id),
        _ => true,
    })
}

/// Gives each record the detail with its id.
fn match_up(detail: &Detail, batch: &Batch, records: Vec<Value>, details: Vec<Value>) -> Vec<Told> {
    let mut by_key: HashMap<String, Value> = HashMap::with_capacity(details.len());
    let mut doubled: HashSet<String> = HashSet::new();
    for found in details {
        if let Some(key) = batch.detail_key.find(&found).and_then(template::as_text) {
            // The same one twice is one; several rows of a record are not.
            if by_key.get(&key).is_some_and(|other| *other != found) {
                doubled.insert(key);
            } else {
                by_key.insert(key, found);
            }
        }
    }
    let each = records.into_iter().map(|record| {
        // Not taken out: two records may name the same detail.
        let key = batch.key.find(&record).and_then(template::as_text);
        if key.as_ref().is_some_and(|key| doubled.contains(key)) {
            let reason = "the vendor's answer holds several details with the record's id".to_owned();
            return Err(Undetailed { record, reason });
        }
        if let Some(found) = key.and_then(|key| by_key.get(&key)) {
            return lay(detail, record, found.clone());
        }
        let reason = "the vendor's answer holds no detail with the record's id".to_owned();
        Err(Undetailed { record, reason })
    });
    each.collect()
}

/// The detail over the record, or in a member of it.
fn lay(detail: &Detail, mut record: Value, found: Value) -> Told {
    match (&mut record, &detail.into, found) {
        (Value::Object(members), Some(name), found) => {
            members.insert(name.clone(), found);
        }
        (Value::Object(members), None, Value::Object(told)) => members.extend(told),
        _ => {
            let reason = "the record or its detail is no object".to_owned();
            return Err(Undetailed { record, reason });
        }
    }
    Ok(record)
}
