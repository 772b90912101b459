//! What a simulated vendor has: the records of each list, and how they come about and change.
//!
//! No I/O and no clock of its own, so a seed and the times it is given decide everything. Vendors render
//! these records in their own shapes; the ledger is the truth that whoever read them is checked against.

mod chance;
mod making;
mod record;

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};

use self::chance::Chance;
pub use self::record::{
    Body, Currency, Entry, Guest, Line, Member, OrderState, Pay, Payment, Record, Sale, SaleKind, Shop,
    SupplierOrder, What,
};
use crate::vendor::{Stream, Vendor};

/// One change in so many changes an earlier record instead of making one.
const CHANGE_ONE_IN: u64 = 5;

/// Only so many of the latest records are still changed.
const CHANGEABLE: u64 = 60;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Made,
    /// It is another now.
    Changed,
    /// It is gone.
    Deleted,
}

/// Something that happened, and the record as it was then.
#[derive(Debug, Clone)]
pub struct Happening {
    /// The list.
    pub stream: &'static str,
    /// What became of it.
    pub change: Change,
    /// The record.
    pub record: Record,
}

/// All records of one vendor.
#[derive(Debug)]
pub struct World {
    chance: Chance,
    shops: Vec<Shop>,
    resolution: TimeDelta,
    changes_within: Option<TimeDelta>,
    orders_begin: OrderState,
    lists: BTreeMap<&'static str, List>,
    last_change: DateTime<Utc>,
    happened: Option<VecDeque<Happening>>,
}

#[derive(Debug)]
struct List {
    stream: Stream,
    records: BTreeMap<String, Record>,
    made: u64,
}

impl World {
    /// A world with its history, which ends just before `now`.
    pub(crate) fn begin(
        vendor: &dyn Vendor,
        seed: u64,
        history: (u32, TimeDelta),
        now: DateTime<Utc>,
    ) -> Self {
        let (count, span) = history;
        let list = |stream: &Stream| List { stream: *stream, records: BTreeMap::new(), made: 0 };
        let mut world = Self {
            chance: Chance::new(seed),
            shops: vendor.shops(),
            resolution: vendor.resolution(),
            changes_within: vendor.changes_within(),
            orders_begin: vendor.orders_begin(),
            lists: vendor.streams().iter().map(|stream| (stream.name, list(stream))).collect(),
            last_change: now - span,
            happened: None,
        };
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        for number in 0..count {
            let at = now - span + span * number / count;
            for stream in vendor.streams() {
                world.make(vendor, stream.name, at);
            }
        }
        world
    }

    /// The shops.
    pub fn shops(&self) -> &[Shop] {
        &self.shops
    }

    /// Every record of a list, in the order of their ids.
    pub fn records(&self, stream: &str) -> impl Iterator<Item = &Record> {
        self.lists.get(stream).into_iter().flat_map(|list| list.records.values())
    }

    /// One record.
    pub fn record(&self, stream: &str, id: &str) -> Option<&Record> {
        self.lists.get(stream)?.records.get(id)
    }

    /// The list that holds records of this kind.
    pub fn stream_of(&self, what: What) -> Option<&'static str> {
        self.lists.values().find(|list| list.stream.what == what).map(|list| list.stream.name)
    }

    pub(crate) fn ledger(&self, vendor: &dyn Vendor, stream: &str) -> BTreeMap<String, Entry> {
        let told = self.records(stream).filter_map(|record| Some((record.id.clone(), vendor.entry(record)?)));
        told.collect()
    }

    pub(crate) fn last_change(&self) -> DateTime<Utc> {
        self.last_change
    }

    /// From now on, what happens is kept until it is taken.
    pub(crate) fn keep_what_happens(&mut self) {
        self.happened.get_or_insert_default();
    }

    pub(crate) fn take_happened(&mut self) -> Option<Happening> {
        self.happened.as_mut()?.pop_front()
    }

    pub(crate) fn has_happened(&self) -> bool {
        self.happened.as_ref().is_some_and(|happened| !happened.is_empty())
    }

    /// Whatever happens next: mostly a new record, now and then a change to an earlier one.
    pub(crate) fn trade(&mut self, vendor: &dyn Vendor, now: DateTime<Utc>) {
        let streams = vendor.streams();
        let stream = *self.chance.pick(streams);
        let made = self.lists.get(stream.name).map_or(0, |list| list.made);
        if made == 0 || !self.chance.one_in(CHANGE_ONE_IN) {
            self.make(vendor, stream.name, now);
            return;
        }
        let back = self.chance.below(made.min(CHANGEABLE));
        let id = vendor.id(&stream, made - back);
        match self.chance.below(4) {
            0 => self.void(stream.name, &id, now),
            1 => self.refund(vendor, stream.name, &id, now).is_some(),
            2 if stream.deletes => self.delete(stream.name, &id, now),
            _ => self.change(stream.name, &id, now),
        };
    }

    /// Makes one record and returns its id; `None` if there is no such list.
    pub(crate) fn make(&mut self, vendor: &dyn Vendor, stream: &str, now: DateTime<Utc>) -> Option<String> {
        let at = self.moment(now);
        self.make_late(vendor, stream, at)
    }

    /// Makes one record whose times lie before those of others that are there already.
    pub(crate) fn make_late(
        &mut self,
        vendor: &dyn Vendor,
        stream: &str,
        at: DateTime<Utc>,
    ) -> Option<String> {
        let at = self.kept(at);
        let list = self.lists.get(stream)?;
        let (stream, number) = (list.stream, list.made + 1);
        let mut record = making::record(self, &stream, number, at);
        record.id = vendor.id(&stream, number);
        if vendor.main_shop_only(&stream)
            && let Some(main) = self.shops.first()
        {
            record.shop.clone_from(&main.id);
        }
        Some(self.put(stream, Change::Made, record))
    }

    /// Makes a record another one, in an amount or a name; false if there is none that can change.
    pub(crate) fn change(&mut self, stream: &str, id: &str, now: DateTime<Utc>) -> bool {
        self.alter(stream, id, now, Change::Changed, making::correct)
    }

    /// Makes a sale one that never happened; false if it is none.
    pub(crate) fn void(&mut self, stream: &str, id: &str, now: DateTime<Utc>) -> bool {
        self.alter(stream, id, now, Change::Changed, making::void)
    }

    /// Deletes a record of a list that tells of it; false if there is none.
    pub(crate) fn delete(&mut self, stream: &str, id: &str, now: DateTime<Utc>) -> bool {
        if !self.lists.get(stream).is_some_and(|list| list.stream.deletes) {
            return false;
        }
        self.alter(stream, id, now, Change::Deleted, |record| {
            record.deleted = true;
            true
        })
    }

    /// Pays a sale back and returns the id of the refund: a record of its own, or the sale itself where the
    /// vendor has it so.
    pub(crate) fn refund(
        &mut self,
        vendor: &dyn Vendor,
        stream: &str,
        id: &str,
        now: DateTime<Utc>,
    ) -> Option<String> {
        if vendor.refund_is_a_state() {
            let done = self.alter(stream, id, now, Change::Changed, making::refund);
            return done.then(|| id.to_owned());
        }
        let at = self.moment(now);
        let list = self.lists.get(stream)?;
        let (stream, number) = (list.stream, list.made + 1);
        let mut record = making::refund_of(list.records.get(id)?, number, at)?;
        record.id = vendor.id(&stream, number);
        Some(self.put(stream, Change::Made, record))
    }

    fn alter(
        &mut self,
        stream: &str,
        id: &str,
        now: DateTime<Utc>,
        what: Change,
        alter: impl FnOnce(&mut Record) -> bool,
    ) -> bool {
        let Some((stream, mut record)) =
            self.lists.get(stream).and_then(|list| Some((list.stream, list.records.get(id)?.clone())))
        else {
            return false;
        };
        let settled = self.changes_within.is_some_and(|within| now - record.created_at > within);
        if settled || record.deleted || !alter(&mut record) {
            return false;
        }
        // No two versions of a record have the same time, however coarse the vendor's clock is.
        record.updated_at = self.moment(now.max(record.updated_at + self.resolution));
        record.version += 1;
        self.put(stream, what, record);
        true
    }

    fn put(&mut self, stream: Stream, change: Change, record: Record) -> String {
        let id = record.id.clone();
        if let Some(happened) = &mut self.happened {
            happened.push_back(Happening { stream: stream.name, change, record: record.clone() });
        }
        if let Some(list) = self.lists.get_mut(stream.name) {
            list.made += u64::from(change == Change::Made);
            list.records.insert(id.clone(), record);
        }
        id
    }

    /// Times never run backwards, even if the clock is set back, and are as exact as the vendor keeps them.
    fn moment(&mut self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.last_change = self.last_change.max(self.kept(now));
        self.last_change
    }

    /// A time as exactly as the vendor keeps it.
    fn kept(&self, time: DateTime<Utc>) -> DateTime<Utc> {
        let step = self.resolution.num_milliseconds().max(1);
        let millis = time.timestamp_millis().div_euclid(step) * step;
        DateTime::from_timestamp_millis(millis).unwrap_or(time)
    }
}
