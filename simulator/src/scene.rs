//! What a vendor sees while it answers one request: its records, its tokens, the time, and the way to list
//! a page, where the faults of lists are injected and what was served is counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use chrono::{DateTime, TimeDelta, Utc};

use crate::counters::{Counters, PageServed};
use crate::faults::{Every, Faults};
use crate::request::Reply;
use crate::tokens::Tokens;
use crate::world::{Record, World};

/// How often faults had an occasion since they were set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Occasions {
    pub(crate) requests: u64,
    pub(crate) pages: u64,
    pub(crate) pages_before_others: u64,
}

/// One request being answered; everything in it is held under one lock.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The records.
    pub world: &'a mut World,
    /// The vendor's time, which the answer's `Date` says too.
    pub now: DateTime<Utc>,
    /// Where the vendor listens, for answers that hold addresses.
    pub address: SocketAddr,
    pub(crate) tokens: &'a mut Tokens,
    pub(crate) faults: &'a Faults,
    pub(crate) occasions: &'a mut Occasions,
    pub(crate) counters: &'a mut Counters,
    pub(crate) served: &'a mut BTreeMap<(&'static str, String), u64>,
    pub(crate) pages: &'a mut Vec<PageServed>,
    pub(crate) injected: &'a mut Vec<&'static str>,
}

/// A page to be listed.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its records, in the vendor's order.
    pub records: Vec<Record>,
    /// Whether the list goes on after it.
    pub more: bool,
    /// Whether the documents promise the order, so that no fault may change it.
    pub ordered: bool,
}

impl Scene<'_> {
    /// The secrets that let a caller in.
    pub fn tokens(&self) -> &Tokens {
        self.tokens
    }

    /// Gives an access token that is good so long; whether it ends those given before, the documents say.
    pub fn give_token(&mut self, lifetime: TimeDelta, ends_others: bool) -> String {
        self.counters.tokens += 1;
        self.tokens.give(self.now, lifetime, ends_others)
    }

    /// An answer to a caller who is not let in.
    pub fn refused(&mut self, reply: Reply) -> Reply {
        self.counters.refused += 1;
        reply
    }

    /// An answer to a request that was let in and is not understood.
    pub fn rejected(&mut self, reply: Reply) -> Reply {
        self.counters.rejected += 1;
        reply
    }

    /// Serves a page of a list: the records to render, with one twice or in another order where a fault
    /// says so. Whatever is listed goes through here, once a request.
    pub fn list(&mut self, stream: &'static str, page: Page) -> Vec<Record> {
        let Page { mut records, more, ordered } = page;
        self.counters.pages += 1;
        if !records.is_empty() {
            self.occasions.pages += 1;
            let happens = |every: Option<Every>| every.is_some_and(|it| it.happens(self.occasions.pages));
            let (disorder, duplicate) = (happens(self.faults.disorder), happens(self.faults.duplicate));
            if disorder && !ordered && records.len() > 1 {
                records.reverse();
                self.counters.disorders += 1;
                self.injected.push("another order");
            }
            if duplicate && let Some(first) = records.first().cloned() {
                records.push(first);
                self.counters.duplicates += 1;
                self.injected.push("a record twice");
            }
        }
        for record in &records {
            *self.served.entry((stream, record.id.clone())).or_default() += 1;
        }
        let ids = records.iter().map(|record| record.id.clone()).collect();
        self.pages.push(PageServed { stream, at: self.now, ids, more });
        records
    }
}
