//! What the Chinese vendors have in common: times of the wall clock in Shanghai, pages by number, and
//! requests whose parameters are signed wherever they stand.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, TimeDelta, TimeZone as _, Utc};

use super::multipart;
use crate::vendor::{Mistake, Page, Parameters, Request, numbered};
use crate::verify::Arrived;
use crate::world::Record;

/// A business day ends when the last guests have gone: what is paid before four in the morning belongs to
/// the day before. No document says when; that a day may end after midnight is known.
const BUSINESS_DAY_BEGINS: TimeDelta = TimeDelta::hours(4);

/// How long after it was paid a bill is still corrected, voided or paid back, where bills are listed by
/// business day: until the next day has ended at the latest, so who reads yesterday again hears of it.
pub(super) const BILLS_CHANGE_WITHIN: TimeDelta = TimeDelta::hours(20);

/// A time as `2026-01-01 12:41:07` in Shanghai.
pub(super) fn wall_time(time: DateTime<Utc>) -> String {
    in_shanghai(time).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// The day of a time in Shanghai.
pub(super) fn day(time: DateTime<Utc>) -> NaiveDate {
    in_shanghai(time).date_naive()
}

/// The business day to which a time belongs.
pub(super) fn business_day(time: DateTime<Utc>) -> NaiveDate {
    day(time - BUSINESS_DAY_BEGINS)
}

/// Reads `2026-01-01`, and no other form of a day.
pub(super) fn read_day(text: &str) -> Result<NaiveDate, &'static str> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    day.filter(|day| day.to_string() == text).ok_or("date `yyyy-MM-dd`")
}

/// Reads `2026-01-01 12:41:07` of Shanghai, and no other form of a time.
pub(super) fn read_wall_time(text: &str) -> Result<DateTime<Utc>, &'static str> {
    let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok();
    let time = time.and_then(|time| shanghai().from_local_datetime(&time).single());
    let time = time.map(|time| time.with_timezone(&Utc));
    time.filter(|time| wall_time(*time) == text).ok_or("time `yyyy-MM-dd HH:mm:ss`")
}

/// The time when a day begins in Shanghai.
pub(super) fn begin_of(day: NaiveDate) -> DateTime<Utc> {
    (day.and_time(chrono::NaiveTime::MIN) - TimeDelta::hours(8)).and_utc()
}

fn in_shanghai(time: DateTime<Utc>) -> DateTime<FixedOffset> {
    time.with_timezone(&shanghai())
}

/// There has been no summer time since 1991.
fn shanghai() -> FixedOffset {
    FixedOffset::east_opt(8 * 3600).expect("eight hours is an offset")
}

/// One page of records by its number from 1, and how many records there are in all.
pub(super) fn page<'a>(records: impl Iterator<Item = &'a Record>, number: u64, size: usize) -> (Page, usize) {
    let records: Vec<&Record> = records.collect();
    let (records, total, more) = numbered(&records, number, size);
    // None of these vendors documents an order.
    (Page { records, more, ordered: false }, total)
}

/// A request with its parameters decoded.
pub(super) struct Asked<'a> {
    request: &'a Request,
    query: Vec<(String, String)>,
    form: Vec<(String, String)>,
}

impl<'a> Asked<'a> {
    /// Decodes a request.
    pub(super) fn of(request: &'a Request) -> Self {
        Self { request, query: request.query_pairs(), form: request.form_pairs() }
    }

    /// Decodes a request whose form may be `multipart/form-data` too.
    pub(super) fn of_any_form(request: &'a Request) -> Self {
        let form = multipart::fields(request).unwrap_or_else(|| request.form_pairs());
        Self { request, query: request.query_pairs(), form }
    }

    /// What the verifiers look at. None of these vendors signs the address.
    pub(super) fn arrived(&self) -> Arrived<'_> {
        let Request { method, path, body, .. } = self.request;
        Arrived { method, url: path, query: &self.query, form: &self.form, body }
    }

    /// Whether a parameter says exactly this.
    pub(super) fn says(&self, name: &str, value: &str) -> bool {
        self.value(name) == Some(value)
    }

    /// What the first parameter of this name says.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let mut all = self.query.iter().chain(&self.form);
        all.find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Those of query and form together, of which none may come twice.
    pub(super) fn parameters(self) -> Result<Parameters, Mistake> {
        Parameters::of_pairs([self.query, self.form].concat())
    }
}

/// Takes a time in seconds since 1970; milliseconds are the mistake that is made.
pub(super) fn seconds(asked: &mut Parameters, name: &str) -> Result<u64, Mistake> {
    asked.number(name, 1_000_000_000..=9_999_999_999)?.ok_or_else(|| Mistake::new(name, "is missing"))
}

/// Takes a time in milliseconds since 1970; seconds are the mistake that is made.
pub(super) fn milliseconds(asked: &mut Parameters, name: &str) -> Result<DateTime<Utc>, Mistake> {
    let millis = asked.number(name, 1_000_000_000_000..=9_999_999_999_999)?;
    let time = millis.and_then(|millis| DateTime::from_timestamp_millis(i64::try_from(millis).ok()?));
    time.ok_or_else(|| Mistake::new(name, "is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_one_form_only() {
        let time = read_wall_time("2026-01-02 03:04:05").unwrap();
        assert_eq!(time.to_rfc3339(), "2026-01-01T19:04:05+00:00");
        assert_eq!(
            (wall_time(time).as_str(), day(time)),
            ("2026-01-02 03:04:05", read_day("2026-01-02").unwrap())
        );
        for wrong in
            ["2026-01-02T03:04:05", "2026-1-2 03:04:05", "2026-01-02", "2026-01-02 03:04", "1767294245"]
        {
            assert!(read_wall_time(wrong).is_err(), "{wrong}");
        }
        for wrong in ["2026-1-2", "20260102", "2026-02-30", "2026-01-02 00:00:00"] {
            assert!(read_day(wrong).is_err(), "{wrong}");
        }
        assert_eq!(begin_of(read_day("2026-01-02").unwrap()).to_rfc3339(), "2026-01-01T16:00:00+00:00");
    }

    #[test]
    fn the_night_belongs_to_the_day_before() {
        let late = read_wall_time("2026-01-02 03:59:59").unwrap();
        assert_eq!(business_day(late).to_string(), "2026-01-01");
        assert_eq!(business_day(late + TimeDelta::seconds(1)).to_string(), "2026-01-02");
        // Whoever reads yesterday again hears of every change.
        for minutes in 0..24 * 60 {
            let paid = late + TimeDelta::minutes(minutes);
            assert!(day(paid + BILLS_CHANGE_WITHIN) <= business_day(paid).succ_opt().unwrap());
        }
    }
}
