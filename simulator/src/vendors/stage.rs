//! A vendor without a server, for the tests of the vendors: requests go in, answers come out.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::china::read_wall_time;
use crate::counters::{Counters, PageServed};
use crate::faults::Faults;
use crate::scene::{Occasions, Scene};
use crate::tokens::Tokens;
use crate::vendor::{Reply, Request, Vendor};
use crate::world::{Record, World};

/// Parameters that a test sends.
pub(super) type Pairs = Vec<(String, String)>;

/// A vendor, its records and everything that is counted.
pub(super) struct Stage {
    pub(super) vendor: Box<dyn Vendor>,
    pub(super) world: World,
    pub(super) tokens: Tokens,
    pub(super) now: DateTime<Utc>,
    pub(super) counters: Counters,
    faults: Faults,
    occasions: Occasions,
    served: BTreeMap<(&'static str, String), u64>,
    pages: Vec<PageServed>,
    injected: Vec<&'static str>,
}

impl Stage {
    /// A vendor with so many records of the last two days, at noon in Shanghai.
    pub(super) fn open(vendor: impl Vendor + 'static, history: u32) -> Self {
        let now = read_wall_time("2026-01-03 12:00:00").unwrap();
        let world = World::begin(&vendor, 7, (history, TimeDelta::days(2)), now);
        Self {
            vendor: Box::new(vendor),
            world,
            tokens: Tokens::default(),
            now,
            counters: Counters::default(),
            faults: Faults::default(),
            occasions: Occasions::default(),
            served: BTreeMap::new(),
            pages: Vec::new(),
            injected: Vec::new(),
        }
    }

    /// What the vendor answers.
    pub(super) fn ask(&mut self, request: &Request) -> Reply {
        let mut scene = Scene {
            world: &mut self.world,
            now: self.now,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            tokens: &mut self.tokens,
            faults: &self.faults,
            occasions: &mut self.occasions,
            counters: &mut self.counters,
            served: &mut self.served,
            pages: &mut self.pages,
            injected: &mut self.injected,
        };
        match self.vendor.admit(request, &mut scene) {
            Ok(()) => self.vendor.answer(request, &mut scene),
            Err(reply) => reply,
        }
    }

    /// The same, where only the body counts.
    pub(super) fn body(&mut self, request: &Request) -> Value {
        self.ask(request).body
    }

    /// The records of a list.
    pub(super) fn records(&self, stream: &str) -> Vec<Record> {
        self.world.records(stream).cloned().collect()
    }

    /// How many requests were let in and then rejected.
    pub(super) fn rejected(&self) -> u64 {
        self.counters.rejected
    }
}

/// Owned parameters of borrowed ones.
pub(super) fn pairs(pairs: &[(&str, &str)]) -> Pairs {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The same parameters with one of them saying something else, or one more.
pub(super) fn with(pairs: &[(String, String)], name: &str, value: &str) -> Pairs {
    let mut all = without(pairs, name);
    all.push((name.to_owned(), value.to_owned()));
    all
}

/// The same parameters but one.
pub(super) fn without(pairs: &[(String, String)], name: &str) -> Pairs {
    pairs.iter().filter(|(found, _)| found != name).cloned().collect()
}

/// A request without a body.
pub(super) fn bare(method: &str, path: &str, query: &[(String, String)]) -> Request {
    Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: encoded(query),
        headers: Vec::new(),
        body: Bytes::new(),
    }
}

/// A POST of a form.
pub(super) fn form(path: &str, fields: &[(String, String)]) -> Request {
    let kind = "application/x-www-form-urlencoded".to_owned();
    Request {
        headers: vec![("content-type".to_owned(), kind)],
        body: Bytes::from(encoded(fields)),
        ..bare("POST", path, &[])
    }
}

/// A POST of JSON.
pub(super) fn json(path: &str, query: &[(String, String)], body: &str) -> Request {
    Request {
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: Bytes::copy_from_slice(body.as_bytes()),
        ..bare("POST", path, query)
    }
}

fn encoded(pairs: &[(String, String)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}
