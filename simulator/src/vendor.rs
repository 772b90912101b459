//! What a simulated vendor is: the trait that each file below `vendors` implements, and what it is given.
//!
//! A vendor is written from the vendor's documents, which are named at the top of its file. It refuses
//! whatever the documents do not allow.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::{Map, Value};

pub use crate::cursor::Cursor;
pub use crate::money::{major, major_text};
pub use crate::paging::{Key, after, numbered};
pub use crate::parameters::{Mistake, Parameters, window};
pub use crate::request::{Reply, Request};
pub use crate::scene::{Page, Scene};
pub use crate::tokens::Tokens;
pub use crate::webhooks::{Delivery, Event};
use crate::world::{Currency, Entry, OrderState, Record, Shop, What};

/// One list of a vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Its name, which is that of the stream in the manifest.
    pub name: &'static str,
    /// What its records are.
    pub what: What,
    /// Whether the vendor tells of deleted records in this list.
    pub deletes: bool,
}

/// A fault that stands in place of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// There were too many requests; the next may come after so many seconds.
    TooManyRequests {
        /// What `Retry-After` says.
        retry_after_secs: u64,
    },
    /// Something broke inside the vendor.
    Broken,
}

/// One vendor.
pub trait Vendor: Send + Sync {
    /// Its name, which is that of its manifest.
    fn name(&self) -> &'static str;

    /// What a system of this vendor is, such as `pos`.
    fn system_type(&self) -> &'static str;

    /// Its lists.
    fn streams(&self) -> &'static [Stream];

    /// Its shops; the first is the main one.
    fn shops(&self) -> Vec<Shop>;

    /// What amounts are in.
    fn currency(&self) -> Currency;

    /// Whether the records of a list are all those of the main shop, because a system is told of no others.
    fn main_shop_only(&self, _stream: &Stream) -> bool {
        false
    }

    /// How exactly it keeps the time of a change.
    fn resolution(&self) -> TimeDelta {
        TimeDelta::milliseconds(1)
    }

    /// What a record is called; numbers count from 1 in each stream.
    fn id(&self, stream: &Stream, number: u64) -> String;

    /// The secrets of a system, by the names of the manifest.
    fn credentials(&self, tokens: &Tokens) -> BTreeMap<String, String>;

    /// The settings of a system, by the names of the manifest.
    fn config(&self) -> Map<String, Value>;

    /// What is behind the vendor's address in a system's endpoint, such as `/v1.0`.
    fn base_path(&self) -> &'static str {
        ""
    }

    /// Whether a sale that is paid back stays one record, which says so; else the refund is a record of its
    /// own.
    fn refund_is_a_state(&self) -> bool {
        false
    }

    /// How far an order at a supplier is when the vendor first tells of it.
    fn orders_begin(&self) -> OrderState {
        OrderState::Pending
    }

    /// How long after it came about a record still changes; `None` for ever. Where a list is asked for by the
    /// time of the event, as by business days, nobody could hear of what changes later.
    fn changes_within(&self) -> Option<TimeDelta> {
        None
    }

    /// What the ledger holds of a record: `None` of one that the vendor does not tell of, and of states that
    /// it has no word for the one that it tells instead.
    fn entry(&self, record: &Record) -> Option<Entry> {
        Some(record.entry())
    }

    /// Whether callers are let in by access tokens that the vendor gives; else by keys alone.
    fn gives_tokens(&self) -> bool {
        false
    }

    /// Lets a caller in, or answers: a refusal (by [`Scene::refused`]), or the token asked for. No fault
    /// strikes what is answered here.
    fn admit(&self, request: &Request, scene: &mut Scene<'_>) -> Result<(), Reply>;

    /// Answers a caller who was let in.
    fn answer(&self, request: &Request, scene: &mut Scene<'_>) -> Reply;

    /// How the vendor tells of its own trouble.
    fn trouble(&self, trouble: Trouble) -> Reply;

    /// A change as the vendor posts it, signed for this receiver; `None` where it tells nothing of it.
    fn webhook(&self, event: &Event, target: &crate::WebhookTarget) -> Option<Delivery>;
}
