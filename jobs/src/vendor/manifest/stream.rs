//! One list of a vendor: how it is asked for, in what pages and windows, where its records are and
//! what becomes of them. Part of the manifest; `paging.rs`, `client.rs` and `mapping.rs` act on it.

pub(in crate::vendor) mod read;
pub(crate) mod unknown;

use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use chrono_tz::Tz;
use serde_json::Value;

use self::unknown::KnownFields;
use super::super::expression::Expression;
use super::super::mapping::Mapping;
use super::super::path::Path;
use super::super::template::{JsonTemplate, Slot, Slots, Template};

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
    /// A text that the manifest writes itself.
    Text,
}

impl Request {
    /// Whether its parameters travel as a form.
    pub(in crate::vendor) fn is_form(&self) -> bool {
        self.body_as == BodyAs::Form && self.method != reqwest::Method::GET
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
    /// A `Link: <…>; rel="next"` header.
    Link,
}

/// Where the records are.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) records: Vec<Path>,
    pub(crate) absent_when_empty: bool,
    pub(crate) success: Option<Expression>,
}

/// How a window of time is asked for.
#[derive(Debug)]
pub(crate) struct WindowSpec {
    pub(crate) from_param: Option<String>,
    pub(crate) to_param: Option<String>,
    pub(crate) format: TimeFormat,
    pub(crate) zone: Option<Tz>,
}

/// How a time is written in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TimeFormat {
    Rfc3339,
    Unix,
    UnixMs,
    /// A pattern in the vendor's zone.
    Naive(String),
}

impl WindowSpec {
    /// A time as the vendor wants it; `up` rounds a fraction of a second up, for a window's end.
    pub(crate) fn write(&self, time: DateTime<Utc>, system_zone: Tz, up: bool) -> Value {
        self.format.write(time, self.zone.unwrap_or(system_zone), up)
    }
}

impl TimeFormat {
    /// A time in this format; a pattern takes the zone.
    pub(in crate::vendor) fn write(&self, time: DateTime<Utc>, zone: Tz, up: bool) -> Value {
        let whole_secs = || {
            let cut = time.timestamp();
            cut + i64::from(up && time.timestamp_subsec_nanos() > 0)
        };
        match self {
            Self::Rfc3339 => Value::String(time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)),
            Self::Unix => Value::from(whole_secs()),
            Self::UnixMs => Value::from(time.timestamp_millis()),
            Self::Naive(pattern) => {
                let whole = DateTime::from_timestamp(whole_secs(), 0).unwrap_or(time);
                let local = zone.from_utc_datetime(&whole.naive_utc());
                Value::String(local.format(pattern).to_string())
            }
        }
    }
}

/// Everything that fills the placeholders of one page of a window.
pub(crate) fn window_slots<'a>(stream: &Stream, window: super::super::Window, zone: Tz) -> Slots<'a> {
    let Some(spec) = &stream.window else {
        return Slots::default();
    };
    Slots {
        window_from: window.from.map(|from| spec.write(from, zone, false)),
        window_to: Some(spec.write(window.to, zone, true)),
        ..Slots::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_written_as_the_vendor_wants_them() {
        let time: DateTime<Utc> = "2026-01-01T04:21:00.512Z".parse().unwrap();
        let write = |format: TimeFormat, zone: Option<&str>, up| {
            let zone = zone.map(|zone| zone.parse().unwrap());
            WindowSpec { from_param: None, to_param: None, format, zone }.write(
                time,
                chrono_tz::Asia::Shanghai,
                up,
            )
        };
        let naive = TimeFormat::Naive("%Y-%m-%d %H:%M:%S".into());
        assert_eq!(write(TimeFormat::Rfc3339, None, false), json!("2026-01-01T04:21:00.512Z"));
        assert_eq!(write(TimeFormat::Unix, None, false), json!(1_767_241_260));
        assert_eq!(write(TimeFormat::Unix, None, true), json!(1_767_241_261));
        assert_eq!(write(TimeFormat::UnixMs, None, true), json!(1_767_241_260_512_i64));
        assert_eq!(write(naive.clone(), None, false), json!("2026-01-01 12:21:00"));
        assert_eq!(write(naive.clone(), None, true), json!("2026-01-01 12:21:01"));
        assert_eq!(write(naive, Some("America/New_York"), false), json!("2025-12-31 23:21:00"));
    }
}
