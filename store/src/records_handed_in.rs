//! Records that a client hands in, one or a thousand at a time: written by the rules of
//! [`crate::record_batches`], and each told what became of it.
//!
//! A pull wants to know how many records changed. A client wants to know of every single one whether it is
//! stored, under which id, and if not, why. The statements are the same, a handful for a whole batch.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::error::StoreError;
use crate::ids::SystemId;
use crate::pool::Tx;
use crate::record_batches::{
    Batch, CHUNK_ROWS, NewRow, RecordKey, RecordTable, RefusedRecord, RowThere, newest_by_key,
    write_isolating,
};

/// What became of a record that was handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandedIn {
    /// It is stored, in this version or a newer one.
    Stored {
        /// Our id of it.
        id: Uuid,
        /// What that changed.
        change: Change,
    },
    /// It cannot be stored; why, for a person.
    Refused(String),
}

/// What handing in a record has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// There was none of this id.
    Created,
    /// There was one with other content.
    Updated,
    /// It was there already, is newer there, or a later record of the same batch has the same id.
    Unchanged,
}

/// A record that may tell no time of its own.
#[derive(Debug, Clone)]
pub struct Undated<R> {
    /// The record, with the time that a new row of it has.
    pub record: R,
    /// Whether that time is ours and not the client's.
    pub undated: bool,
}

/// Writes records in one transaction; answers each in the order they were given.
pub(crate) async fn hand_in<T: RecordTable>(
    tx: &mut Tx,
    batch: &Batch<'_>,
    prepared: Vec<Result<T::Row, RefusedRecord>>,
) -> Result<Vec<HandedIn>, StoreError> {
    let mut keys = Vec::with_capacity(prepared.len());
    let mut rows = Vec::with_capacity(prepared.len());
    for row in prepared {
        keys.push(row.as_ref().map(key_of).map_err(|refused| refused.reason.clone()));
        rows.extend(row.ok());
    }
    let ids: HashSet<Uuid> = rows.iter().map(NewRow::id).collect();
    let (changed, refused) = write_isolating::<T>(tx, batch, &newest_by_key(rows)).await?;
    let mut told: HashMap<RecordKey, HandedIn> = HashMap::with_capacity(changed.len());
    for (stream, external_id, id) in changed {
        // A row keeps the id that it was made with, so one that bears an id of ours is new.
        let change = if ids.contains(&id) { Change::Created } else { Change::Updated };
        told.insert((stream, external_id), HandedIn::Stored { id, change });
    }
    told.extend(
        refused.into_iter().map(|one| ((one.stream, one.external_id), HandedIn::Refused(one.reason))),
    );
    let known = |key: &&RecordKey| !told.contains_key(*key);
    let silent: HashSet<RecordKey> =
        keys.iter().filter_map(|key| key.as_ref().ok()).filter(known).cloned().collect();
    for (stream, external_id, id, _) in find::<T>(tx, batch.system_id, silent).await? {
        told.insert((stream, external_id), HandedIn::Stored { id, change: Change::Unchanged });
    }
    // From the last to the first: of several records of one id the last is the one that was written.
    let mut answers: Vec<HandedIn> = keys.into_iter().rev().map(|key| answer(key, &mut told)).collect();
    answers.reverse();
    Ok(answers)
}

fn answer(key: Result<RecordKey, String>, told: &mut HashMap<RecordKey, HandedIn>) -> HandedIn {
    let key = match key {
        Ok(key) => key,
        Err(reason) => return HandedIn::Refused(reason),
    };
    let Some(of_key) = told.get_mut(&key) else {
        return HandedIn::Refused("the record is gone again; hand it in once more".to_owned());
    };
    let answer = of_key.clone();
    if let HandedIn::Stored { change, .. } = of_key {
        *change = Change::Unchanged;
    }
    answer
}

/// When the records that are there took place: a record handed in again without a time keeps the one it has.
pub(crate) async fn times<T: RecordTable>(
    tx: &mut Tx,
    system_id: SystemId,
    keys: HashSet<RecordKey>,
) -> Result<HashMap<RecordKey, DateTime<Utc>>, StoreError> {
    let rows = find::<T>(tx, system_id, keys).await?;
    Ok(rows.into_iter().filter_map(|(stream, id, _, at)| Some(((stream, id), at?))).collect())
}

async fn find<T: RecordTable>(
    tx: &mut Tx,
    system_id: SystemId,
    keys: HashSet<RecordKey>,
) -> Result<Vec<RowThere>, StoreError> {
    let keys: Vec<RecordKey> = keys.into_iter().collect();
    let mut found = Vec::with_capacity(keys.len());
    for chunk in keys.chunks(CHUNK_ROWS) {
        found.extend(T::there(tx, system_id, chunk).await?);
    }
    Ok(found)
}

fn key_of<R: NewRow>(row: &R) -> RecordKey {
    let key = row.key();
    (key.stream.to_owned(), key.external_id.to_owned())
}
