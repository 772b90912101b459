//! One list of a vendor: how it is asked for, in what pages and windows, where its records are and
//! what becomes of them. Part of the manifest; `paging.rs`, `client.rs` and `mapping.rs` act on it.

pub(in crate::vendor) mod detail;
pub(in crate::vendor) mod lookup;
pub(in crate::vendor) mod partitions;
pub(in crate::vendor) mod read;
pub(in crate::vendor) mod shape;
pub(crate) mod unknown;
pub(in crate::vendor) mod window;

use std::time::Duration;

use serde_json::Value;

use self::detail::Detail;
use self::lookup::Lookup;
use self::partitions::ForEach;
use self::shape::Shape;
use self::unknown::KnownFields;
use self::window::WindowSpec;
use super::super::expression::Expression;
use super::super::mapping::Mapping;
use super::super::path::Path;
use super::super::template::{self, JsonTemplate, Slot, Template};

/// One list that can be pulled.
#[derive(Debug)]
pub struct Stream {
    /// Its name; a run's `sync_type`.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// A window begins so much before the watermark: vendors write late.
    pub overlap: Duration,
    /// A window ends so much before the vendor's time.
    pub lag: Duration,
    /// How long a page token may be resumed.
    pub position_ttl: Duration,
    /// How far back the first pull goes.
    pub first_window: Duration,
    /// Whether the list is in the order of change, so that the watermark may move with every page.
    pub ascending: bool,
    /// A larger share of records that cannot be mapped fails the run.
    pub failure_share_max: f64,
    /// The most pages of one window; the settings may allow fewer.
    pub pages_max: u32,
    pub(crate) target: Target,
    pub(crate) request: Request,
    pub(crate) pagination: Pagination,
    pub(crate) answer: Answer,
    pub(crate) window: Option<WindowSpec>,
    /// What it is read once for each of.
    pub(crate) for_each: Option<ForEach>,
    /// By what its records are asked for, where the vendor has no list of them.
    pub(crate) lookup: Option<Lookup>,
    /// How its records are told in full.
    pub(crate) detail: Option<Detail>,
    pub(crate) mapping: Mapping,
    /// What is known of its records, where members that nothing mentions are reported.
    pub(crate) known_fields: Option<KnownFields>,
    /// How one record is asked for, after an event that only names it.
    pub(crate) one: Option<One>,
}

impl Stream {
    /// Calls `tell` with the name of every member of a record that nothing mentions, where the manifest wants to
    /// know.
    pub fn unknown_fields(&self, record: &Value, mut tell: impl FnMut(&str)) {
        if let Some(known) = &self.known_fields {
            known.unknown_of(record, &mut tell);
        }
    }

    /// The table that its records go into.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }

    /// Whether its records are asked for one by one, by keys that others brought.
    #[must_use]
    pub fn is_looked_up(&self) -> bool {
        self.lookup.is_some()
    }

    /// Whether it is read from change to change, by a number that grows with each, and not by times.
    #[must_use]
    pub fn is_read_by_versions(&self) -> bool {
        self.pagination.style == PagingStyle::Version
    }

    /// The greatest version among these records.
    pub(crate) fn greatest_version(&self, records: &[Value]) -> Option<u64> {
        let path = self.pagination.version.as_ref()?;
        records.iter().filter_map(|record| template::as_text(path.find(record)?)?.parse().ok()).max()
    }

    /// Whether its pages are places in a list, which shift when a record leaves the list.
    #[must_use]
    pub fn has_numbered_pages(&self) -> bool {
        matches!(self.pagination.style, PagingStyle::Page | PagingStyle::Offset)
    }
}

/// The table that a stream's records go into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `pos_transactions`.
    PosTransactions,
    /// `supplier_orders`.
    SupplierOrders,
    /// `member_syncs`.
    MemberSyncs,
    /// `external_records`.
    ExternalRecords,
}

impl Target {
    /// The words of manifests.
    pub(crate) const WORDS: [(&str, Self); 4] = [
        ("pos_transactions", Self::PosTransactions),
        ("supplier_orders", Self::SupplierOrders),
        ("member_syncs", Self::MemberSyncs),
        ("external_records", Self::ExternalRecords),
    ];
}

/// One call.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: reqwest::Method,
    pub(crate) path: Template,
    pub(crate) query: Vec<(String, Template)>,
    pub(crate) headers: Vec<(String, Template)>,
    pub(crate) body: Option<JsonTemplate>,
    pub(crate) body_as: BodyAs,
    /// Whether window and page are told in the body, not in the query.
    pub(crate) params_in_body: bool,
    /// Whether it is signed, where the vendor has its requests signed.
    pub(crate) signed: bool,
    /// The class of the rate limit.
    pub(crate) limit: Option<String>,
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyAs {
    Json,
    /// `a=1&b=2`.
    Form,
    /// The same members, each as a part of its own (RFC 7578).
    Multipart,
    /// A text that the manifest writes itself.
    Text,
}

impl BodyAs {
    /// Whether it is made of members that are texts.
    pub(crate) const fn is_form(self) -> bool {
        matches!(self, Self::Form | Self::Multipart)
    }
}

impl Request {
    /// Whether its parameters travel as a form.
    pub(in crate::vendor) fn is_form(&self) -> bool {
        self.body_as.is_form() && self.method != reqwest::Method::GET
    }

    pub(in crate::vendor) fn slots(&self) -> Vec<&Slot> {
        let lists = self.query.iter().chain(&self.headers).flat_map(|(_, template)| template.slots());
        let body = self.body.iter().flat_map(JsonTemplate::slots);
        self.path.slots().chain(lists).chain(body).collect()
    }
}

/// How the record of a thin event is asked for.
#[derive(Debug)]
pub(crate) struct One {
    pub(crate) request: Request,
    /// Where the record is in the answer.
    pub(crate) record: Vec<Path>,
    pub(crate) success: Option<Expression>,
}

/// How one page leads to the next.
#[derive(Debug)]
pub(crate) struct Pagination {
    pub(crate) style: PagingStyle,
    pub(crate) size: Option<u64>,
    pub(crate) first_page: u64,
    /// Query parameters, for vendors that have them there; in a body a placeholder does it.
    pub(crate) size_param: Option<String>,
    pub(crate) page_param: Option<String>,
    pub(crate) offset_param: Option<String>,
    pub(crate) cursor_param: Option<String>,
    pub(crate) cursor: Vec<Path>,
    pub(crate) version_param: Option<String>,
    /// The number in each record that grows with every change.
    pub(crate) version: Option<Path>,
    /// What the first pull asks for: everything after it.
    pub(crate) first_version: u64,
    pub(crate) total_pages: Option<Path>,
    pub(crate) total_records: Option<Path>,
    pub(crate) has_more: Option<Path>,
    pub(crate) short_page_ends: bool,
}

/// See [`Pagination`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PagingStyle {
    /// Everything at once.
    None,
    /// 1, 2, 3.
    Page,
    /// 0, 100, 200.
    Offset,
    /// A token in the answer.
    Cursor,
    /// After the greatest version that was read; the next pull goes on from there.
    Version,
    /// A `Link: <…>; rel="next"` header.
    Link,
}

/// Where the records are.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) records: Vec<Path>,
    pub(crate) absent_when_empty: bool,
    /// How its elements become records, where they are none yet.
    pub(crate) shape: Shape,
    pub(crate) success: Option<Expression>,
}
