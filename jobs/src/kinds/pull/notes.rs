//! What a pull notices beside its outcome: members of records that nobody reads, and a silence that is not usual.
//! Kept on the run, in the transaction of a page, so that the counts are those of what is stored. Nothing here
//! changes what becomes of a record or of the run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zhilian_sync_store::sync_logs::{self, Run};
use zhilian_sync_store::{Store, StoreError, Tx};

use crate::vendor::{Connection, Page, Stream};

/// The most names of unknown members that one run tells.
const NAMES_MAX: usize = 50;
/// A longer name is cut.
const NAME_CHARS_MAX: usize = 100;
/// Without records where there are usually so many, something may be wrong at the vendor.
const USUAL_MIN: i64 = 20;
/// Fewer runs than this are no custom.
const USUAL_RUNS_MIN: usize = 3;

/// The notes of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notes {
    /// Members that neither the mapping nor the manifest's author mentions, and how many objects have them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    unknown_fields: BTreeMap<String, u64>,
    /// There are more of them than are told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    more_unknown_fields: bool,
    /// Why the outcome may be other than it looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suspect: Option<String>,
}

impl Notes {
    /// Those of the pages that are stored; none where the window begins anew.
    pub(super) fn resume(run: &Run, pages: u32) -> Self {
        let kept = run.notes.as_deref().filter(|_| pages > 0);
        kept.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Notes the members of a page's records that nobody reads.
    pub(super) fn see(&mut self, stream: &Stream, page: &Page, connection: &Connection) {
        for record in &page.records {
            stream.unknown_fields(record, |name| self.count(name, connection));
        }
    }

    fn count(&mut self, name: &str, connection: &Connection) {
        // A vendor may name a member as it likes, also as the key that we sent.
        let name = connection.redact(name);
        let name = match name.char_indices().nth(NAME_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &name[..end]),
            None => name,
        };
        if let Some(count) = self.unknown_fields.get_mut(&name) {
            *count += 1;
        } else if self.unknown_fields.len() < NAMES_MAX {
            self.unknown_fields.insert(name, 1);
        } else {
            self.more_unknown_fields = true;
        }
    }

    /// Notes that a pull without records, which is about to end, usually has many.
    pub(super) async fn look_for_silence(&mut self, store: &Store, run: &Run) -> Result<(), StoreError> {
        // Who asks for a range of the past knows what he does.
        if run.parameters.is_none() {
            self.suspect = usual(sync_logs::usual_records(store, run).await?).map(|usual| {
                format!("no records, the same weekday usually has about {usual}; ask the vendor whether it is closed")
            });
        }
        Ok(())
    }

    /// Writes them on the run; most have none, and cost nothing.
    pub(super) async fn write(&self, tx: &mut Tx, run: &Run) -> Result<(), StoreError> {
        let text = (*self != Self::default()).then(|| serde_json::to_string(self).unwrap_or_default());
        if text.is_none() && run.notes.is_none() {
            return Ok(());
        }
        sync_logs::note(tx, run.claim(), text.as_deref()).await
    }
}

/// The median, where there are enough runs and it is many.
fn usual(mut records: Vec<i64>) -> Option<i64> {
    records.sort_unstable();
    let median = *records.get(records.len() / 2)?;
    (records.len() >= USUAL_RUNS_MIN && median >= USUAL_MIN).then_some(median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_suspect_where_there_are_usually_many() {
        assert_eq!(usual(vec![]), None);
        assert_eq!(usual(vec![100, 100]), None, "two are no custom");
        assert_eq!(usual(vec![300, 0, 40]), Some(40));
        assert_eq!(usual(vec![0, 19, 19, 500]), None);
        assert_eq!(usual(vec![0, 0, 20, 500]), Some(20));
    }
}
