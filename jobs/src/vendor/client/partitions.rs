//! The parts of a stream that is read once for each of something. They are found out anew at every
//! attempt, in the order of their ids, so that a pull that goes on finds its place among them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::manifest::Stream;
use super::super::manifest::stream::partitions::{ForEach, PartitionList, PartitionSource};
use super::super::paging::{self, CursorGuard, Turned};
use super::super::path;
use super::super::template::{self, Slot, Slots};
use super::Connection;
use super::fetch::is_plain_id;
use super::turning::Turning;
use crate::outcome::JobError;

/// The most parts of one stream.
const PARTITIONS_MAX: usize = 10_000;

/// One part of a stream: what it is read for, such as a shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its id; empty where the stream has one part.
    pub key: String,
    /// As the vendor, or the system's settings, tell it.
    pub(super) element: Value,
}

impl Partition {
    /// The only part of a stream that has no others.
    #[must_use]
    pub const fn whole() -> Self {
        Self { key: String::new(), element: Value::Null }
    }

    /// A part that the caller knows, for a single call.
    #[must_use]
    pub const fn of(element: Value) -> Self {
        Self { key: String::new(), element }
    }
}

impl Connection {
    /// What the stream is read once for each of, by their ids; one nameless part where it has no others.
    pub async fn partitions(&self, stream: &Stream) -> Result<Vec<Partition>, JobError> {
        let Some(each) = &stream.for_each else {
            return Ok(vec![Partition::whole()]);
        };
        let elements = match &each.source {
            PartitionSource::Values(values) => match values.json(&self.slots(Slots::default())) {
                Some(Value::Array(elements)) => elements,
                Some(Value::Null) | None => Vec::new(),
                Some(single) => vec![single],
            },
            PartitionSource::List(list) => self.fetch_list(stream, list).await?,
        };
        let partitions = self.read_partitions(stream, each, elements)?;
        if partitions.is_empty() {
            return Err(JobError::give_up(
                "no_partitions",
                format!(
                    "`{}` of {} is read once for each of a list, and the list is empty; see `for_each` of the manifest \
                     and the settings that it names",
                    stream.name, self.manifest.title
                ),
            ));
        }
        Ok(partitions)
    }

    /// The parts in the order of their ids; of two with the same id the first.
    fn read_partitions(
        &self,
        stream: &Stream,
        each: &ForEach,
        elements: Vec<Value>,
    ) -> Result<Vec<Partition>, JobError> {
        let mut found = BTreeMap::new();
        for element in elements {
            let element = if element.is_object() { element } else { json!({ "value": element }) };
            if let Some(when) = &each.when {
                let holds = when.holds(&[("record", &element), ("config", &self.config)]);
                if !holds.map_err(|problem| self.bad_partition(stream, &problem))? {
                    continue;
                }
            }
            let key = path::first_present(&each.key, &element).and_then(template::as_text);
            let usable = key.filter(|key| is_plain_id(key));
            let wanted =
                || format!("one of the list has no id at {} that can be kept", path::shown(&each.key));
            let key = usable.ok_or_else(|| self.bad_partition(stream, &wanted()))?;
            found.entry(key).or_insert(element);
        }
        if found.len() > PARTITIONS_MAX {
            let problem = format!("the list has {} elements, more than {PARTITIONS_MAX}", found.len());
            return Err(self.bad_partition(stream, &problem));
        }
        Ok(found.into_iter().map(|(key, element)| Partition { key, element }).collect())
    }

    fn bad_partition(&self, stream: &Stream, problem: &str) -> JobError {
        let message = format!(
            "what `{}` of {} is read for each of cannot be told apart: {problem}; correct `for_each` of the manifest",
            stream.name, self.manifest.title
        );
        JobError::give_up("bad_partition", self.redact(&message))
    }

    /// Every page of the list that names the parts.
    async fn fetch_list(&self, stream: &Stream, list: &PartitionList) -> Result<Vec<Value>, JobError> {
        let mut guard = CursorGuard::new(stream.pages_max.min(self.inner.settings.pages_max));
        let mut all = Vec::new();
        let mut next = None;
        loop {
            let turning =
                Turning { request: &list.request, pagination: &list.pagination, next: next.as_ref() };
            let success = list.success.as_ref().or(self.manifest.envelope.success.as_ref());
            let call = self.turned_call(&turning, self.slots(turning.slots()), success, &stream.name)?;
            let answer = self.call(&call).await?;
            let mut body = answer.body;
            let records = self.take_list(&list.records, &mut body)?;
            let turned = Turned {
                body: &body,
                link: answer.link.as_deref(),
                url: &answer.url,
                records: records.len().try_into().unwrap_or(u64::MAX),
                version: None,
            };
            next = paging::next_page(&list.pagination, next.as_ref(), &turned)
                .map_err(|error| JobError { message: self.redact(&error.message), ..error })?;
            all.extend(
                records.into_iter().map(
                    |record| {
                        if answer.repeats_keys { self.keys.json(&record) } else { record }
                    },
                ),
            );
            match &next {
                Some(token) => guard.check(token)?,
                None => return Ok(all),
            }
        }
    }

    /// Whether the part has what the request names: a parameter without a value would be left out, and the
    /// vendor would answer for all of them.
    pub(super) fn check_partition(&self, stream: &Stream, partition: &Partition) -> Result<(), JobError> {
        for slot in stream.request.slots() {
            let Slot::Partition(path) = slot else { continue };
            if path.find(&partition.element).is_none_or(Value::is_null) {
                let problem = format!("`{}` has nothing at `{}`", partition.key, path.as_str());
                return Err(self.bad_partition(stream, &problem));
            }
        }
        Ok(())
    }
}

/// Gives every record the part that it was found in.
pub(super) fn lay_into(stream: &Stream, partition: &Partition, records: &mut [Value]) {
    let Some(name) = stream.for_each.as_ref().and_then(|each| each.into.as_ref()) else { return };
    for members in records.iter_mut().filter_map(Value::as_object_mut) {
        members.insert(name.clone(), partition.element.clone());
    }
}
