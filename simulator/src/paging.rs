//! Cuts a page out of a list: by a key that the last one ended with, or by a number.

use crate::world::Record;

/// The key of the last record of a page, which a cursor keeps.
pub type Key = (i64, String);

/// The page after a key, in the order of these keys and then of the ids, and the key that the next page
/// comes after; `None` on the last page.
pub fn after<'a>(
    records: impl Iterator<Item = &'a Record>,
    key: impl Fn(&Record) -> i64,
    last: Option<&Key>,
    size: usize,
) -> (Vec<Record>, Option<Key>) {
    let mut keyed: Vec<(Key, &Record)> =
        records.map(|record| ((key(record), record.id.clone()), record)).collect();
    keyed.sort_by(|one, other| one.0.cmp(&other.0));
    let mut rest = keyed.into_iter().filter(|(key, _)| last.is_none_or(|last| key > last)).peekable();
    let (mut page, mut end) = (Vec::new(), None);
    while page.len() < size
        && let Some((key, record)) = rest.next()
    {
        page.push(record.clone());
        end = Some(key);
    }
    let next = rest.peek().and(end);
    (page, next)
}

/// The page of this number, counted from 1, of records in their order; how many there are in all, and
/// whether there are more after it. A record that leaves the list moves those after it up.
pub fn numbered(records: &[&Record], page: u64, size: usize) -> (Vec<Record>, usize, bool) {
    let skip = usize::try_from(page.saturating_sub(1)).unwrap_or(usize::MAX).saturating_mul(size);
    let listed = records.iter().skip(skip).take(size).map(|record| (*record).clone()).collect();
    (listed, records.len(), skip.saturating_add(size) < records.len())
}
