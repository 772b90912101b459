//! The window of a stream: which stretch of time is asked for, how its ends are written, and whether it
//! is cut into business days. A pull chooses the window (`kinds/pull/watermark.rs`); here is what the
//! vendor is told of it.

use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use serde_json::Value;

use super::Stream;
use super::read::{check_pattern, read_zone};
use crate::vendor::Window;
use crate::vendor::manifest::section::Section;
use crate::vendor::template::Slots;

const FIRST_WINDOW_DEFAULT_DAYS: u32 = 30;
const OVERLAP_DEFAULT_SECS: u64 = 120;
const LAG_DEFAULT_SECS: u64 = 5;
/// A business day may end after midnight, and its orders change their state in the morning.
const REREAD_DEFAULT_DAYS: u32 = 1;
const REREAD_DAYS_MAX: u32 = 366;
const DAY_SECS: u32 = 86_400;
const DATE: &str = "%Y-%m-%d";

/// How a window of time is asked for.
#[derive(Debug)]
pub(crate) struct WindowSpec {
    pub(crate) from_param: Option<String>,
    pub(crate) to_param: Option<String>,
    pub(crate) day_param: Option<String>,
    pub(crate) format: TimeFormat,
    pub(crate) zone: Option<Tz>,
    /// Whether every day of the window is a list of its own.
    pub(crate) days: bool,
    /// A window that is told in days begins so many days before the watermark's.
    pub(crate) reread_days: u32,
}

/// How a time is written in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TimeFormat {
    Rfc3339,
    Unix,
    UnixMs,
    /// A pattern in the vendor's zone.
    Naive(String),
    /// The day in the vendor's zone; an end is the last day that belongs to the window.
    Date(String),
}

impl TimeFormat {
    /// A time in this format; a pattern takes the zone. Of an end a fraction of a second is rounded up, and its day
    /// is the one before it.
    pub(in crate::vendor) fn write(&self, time: DateTime<Utc>, zone: Tz, end: bool) -> Value {
        let whole_secs = || {
            let cut = time.timestamp();
            cut + i64::from(end && time.timestamp_subsec_nanos() > 0)
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
            Self::Date(pattern) => {
                let day = if end { last_day(time, zone) } else { day_of(time, zone) };
                Value::String(day.format(pattern).to_string())
            }
        }
    }
}

/// The parts of a window that the engine reads.
pub(super) struct Timing {
    pub(super) overlap: Duration,
    pub(super) lag: Duration,
    pub(super) first_window: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            overlap: Duration::from_secs(OVERLAP_DEFAULT_SECS),
            lag: Duration::from_secs(LAG_DEFAULT_SECS),
            first_window: Duration::from_secs(u64::from(FIRST_WINDOW_DEFAULT_DAYS * DAY_SECS)),
        }
    }
}

impl WindowSpec {
    /// A time as the vendor wants it; `end` for a window's end.
    pub(crate) fn write(&self, time: DateTime<Utc>, system_zone: Tz, end: bool) -> Value {
        self.format.write(time, self.zone.unwrap_or(system_zone), end)
    }

    /// The day that begins a window of one day.
    fn write_day(&self, from: DateTime<Utc>, zone: Tz) -> Value {
        let pattern = match &self.format {
            TimeFormat::Date(pattern) => pattern,
            _ => DATE,
        };
        Value::String(day_of(from, zone).format(pattern).to_string())
    }

    /// Whether the vendor is told days: then a window begins with a whole one.
    const fn is_told_in_days(&self) -> bool {
        self.days || matches!(self.format, TimeFormat::Date(_))
    }
}

impl Stream {
    /// The zone of the vendor's days.
    pub(crate) fn zone(&self, system_zone: Tz) -> Tz {
        self.window.as_ref().and_then(|window| window.zone).unwrap_or(system_zone)
    }

    /// Whether every day of a window is a list of its own.
    #[must_use]
    pub fn is_read_by_days(&self) -> bool {
        self.window.as_ref().is_some_and(|window| window.days)
    }

    /// Where a window after a watermark begins, for vendors that are told days: some whole days earlier.
    pub(crate) fn reread_from(&self, from: DateTime<Utc>, system_zone: Tz) -> DateTime<Utc> {
        let Some(window) = self.window.as_ref().filter(|window| window.is_told_in_days()) else {
            return from;
        };
        let zone = self.zone(system_zone);
        let day = day_of(from, zone);
        start_of(day.checked_sub_days(Days::new(window.reread_days.into())).unwrap_or(day), zone)
    }
}

/// The days of a window, of which the last is the one before its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WindowDays {
    pub(crate) first: NaiveDate,
    pub(crate) last: NaiveDate,
}

impl WindowDays {
    /// The days that a window from `from` to `to` touches.
    pub(crate) fn of(from: DateTime<Utc>, to: DateTime<Utc>, zone: Tz) -> Self {
        let first = day_of(from, zone);
        Self { first, last: last_day(to, zone).max(first) }
    }

    /// The day after this one, if it belongs to the window.
    pub(crate) fn after(self, day: NaiveDate) -> Option<NaiveDate> {
        day.succ_opt().filter(|next| *next <= self.last)
    }
}

/// One day as a window.
pub(crate) fn window_of_day(day: NaiveDate, zone: Tz) -> Window {
    let next = day.succ_opt().unwrap_or(day);
    Window { from: Some(start_of(day, zone)), to: start_of(next, zone) }
}

fn day_of(time: DateTime<Utc>, zone: Tz) -> NaiveDate {
    zone.from_utc_datetime(&time.naive_utc()).date_naive()
}

/// The day that ends with, or is cut by, this moment.
fn last_day(end: DateTime<Utc>, zone: Tz) -> NaiveDate {
    day_of(end.checked_sub_signed(TimeDelta::milliseconds(1)).unwrap_or(end), zone)
}

/// Midnight, or the first moment after it where the clocks are put forward at midnight.
fn start_of(day: NaiveDate, zone: Tz) -> DateTime<Utc> {
    let mut quarters = (0..24 * 4).filter_map(|quarter| day.and_hms_opt(quarter / 4, quarter % 4 * 15, 0));
    let first = quarters.find_map(|local| zone.from_local_datetime(&local).earliest());
    first.map_or_else(|| day.and_time(chrono::NaiveTime::MIN).and_utc(), |time| time.with_timezone(&Utc))
}

/// Everything that fills the placeholders of one page of a window.
pub(crate) fn window_slots<'a>(stream: &Stream, window: Window, zone: Tz) -> Slots<'a> {
    let Some(spec) = &stream.window else {
        return Slots::default();
    };
    let day = window.from.filter(|_| spec.days).map(|from| spec.write_day(from, stream.zone(zone)));
    Slots {
        window_from: window.from.map(|from| spec.write(from, zone, false)),
        window_to: Some(spec.write(window.to, zone, true)),
        window_day: day,
        ..Slots::default()
    }
}

/// How a time is written, from `format` and `pattern`.
pub(in crate::vendor::manifest) fn read_time_format(
    section: &Section<'_>,
    default: TimeFormat,
) -> TimeFormat {
    #[derive(Clone, Copy)]
    enum Form {
        Rfc3339,
        Unix,
        UnixMs,
        Naive,
        Date,
    }
    let forms = [
        ("rfc3339", Form::Rfc3339),
        ("unix", Form::Unix),
        ("unix_ms", Form::UnixMs),
        ("naive", Form::Naive),
        ("date", Form::Date),
    ];
    let pattern = section.parsed("pattern", check_pattern);
    match section.choice("format", &forms) {
        None => default,
        Some(Form::Rfc3339) => TimeFormat::Rfc3339,
        Some(Form::Unix) => TimeFormat::Unix,
        Some(Form::UnixMs) => TimeFormat::UnixMs,
        Some(Form::Naive) => TimeFormat::Naive(pattern.unwrap_or_else(|| "%Y-%m-%d %H:%M:%S".into())),
        Some(Form::Date) => TimeFormat::Date(date_pattern(section, pattern)),
    }
}

pub(super) fn read_window(section: Section<'_>) -> (Option<WindowSpec>, Timing) {
    let format = read_time_format(&section, TimeFormat::Rfc3339);
    let text = |key| section.text(key).filter(|text| !text.is_empty()).map(str::to_owned);
    let reread_days = section.whole("reread_days", 0..=REREAD_DAYS_MAX);
    let window = WindowSpec {
        from_param: text("from_param"),
        to_param: text("to_param"),
        day_param: text("day_param"),
        format,
        zone: section.parsed("zone", read_zone),
        days: section.flag("days").unwrap_or(false),
        reread_days: reread_days.unwrap_or(REREAD_DEFAULT_DAYS),
    };
    if reread_days.is_some() && !window.is_told_in_days() {
        let problem = "speaks of days, and the window is told in times; say `format = \"date\"` or `days = true`, or \
                       give `overlap_secs`";
        section.problem("reread_days", problem);
    }
    if window.day_param.is_some() && !window.days {
        section.problem(
            "day_param",
            "names a single day, and the window is not cut into days; say `days = true`",
        );
    }
    let default = Timing::default();
    let timing = Timing {
        overlap: section.secs("overlap_secs", 0..=30 * DAY_SECS).unwrap_or(default.overlap),
        lag: section.secs("lag_secs", 0..=DAY_SECS).unwrap_or(default.lag),
        first_window: section
            .whole("first_window_days", 1..=3_650)
            .map_or(default.first_window, |days| Duration::from_secs(u64::from(days) * u64::from(DAY_SECS))),
    };
    section.finish();
    (Some(window), timing)
}

/// A pattern of a day alone: one with hours in it could not be written.
fn date_pattern(section: &Section<'_>, pattern: Option<String>) -> String {
    use std::fmt::Write as _;
    let Some(pattern) = pattern else { return DATE.into() };
    if write!(String::new(), "{}", NaiveDate::default().format(&pattern)).is_ok() {
        return pattern;
    }
    section.problem("pattern", format!("`{pattern}` writes a time of day, and `format = \"date\"` has none"));
    DATE.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(format: TimeFormat, zone: Option<&str>) -> WindowSpec {
        WindowSpec {
            from_param: None,
            to_param: None,
            day_param: None,
            format,
            zone: zone.map(|zone| zone.parse().unwrap()),
            days: false,
            reread_days: 1,
        }
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn times_are_written_as_the_vendor_wants_them() {
        let write = |format: TimeFormat, zone: Option<&str>, end| {
            spec(format, zone).write(at("2026-01-01T04:21:00.512Z"), chrono_tz::Asia::Shanghai, end)
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

    #[test]
    fn the_last_day_of_a_window_is_the_one_before_its_end() {
        let date = spec(TimeFormat::Date(DATE.into()), None);
        let shanghai = chrono_tz::Asia::Shanghai;
        for (time, begins, ends) in [
            ("2026-01-01T15:59:59.999Z", "2026-01-01", "2026-01-01"),
            ("2026-01-01T16:00:00Z", "2026-01-02", "2026-01-01"),
            ("2026-01-01T16:00:00.001Z", "2026-01-02", "2026-01-02"),
        ] {
            assert_eq!(date.write(at(time), shanghai, false), json!(begins), "{time}");
            assert_eq!(date.write(at(time), shanghai, true), json!(ends), "{time}");
        }
    }

    #[test]
    fn a_window_touches_whole_days() {
        let days = |from, to| {
            let days = WindowDays::of(at(from), at(to), chrono_tz::Asia::Shanghai);
            let mut all = vec![days.first];
            while let Some(next) = days.after(*all.last().unwrap()) {
                all.push(next);
            }
            all.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            days("2026-02-28T15:59:00Z", "2026-03-01T16:00:00Z"),
            ["2026-02-28", "2026-03-01"],
            "a day that begins with the end of the window is not in it"
        );
        assert_eq!(days("2026-01-01T16:00:00Z", "2026-01-01T16:00:01Z"), ["2026-01-02"]);
        assert_eq!(
            days("2026-01-02T16:00:00Z", "2026-01-01T00:00:00Z"),
            ["2026-01-03"],
            "a window inside out"
        );
    }

    #[test]
    fn a_day_has_the_length_that_its_clocks_give_it() {
        let day = |zone: Tz, text: &str| {
            let window = window_of_day(text.parse().unwrap(), zone);
            (window.to - window.from.unwrap()).num_hours()
        };
        assert_eq!(day(chrono_tz::Asia::Shanghai, "2026-03-29"), 24);
        assert_eq!(day(chrono_tz::Europe::Berlin, "2026-03-29"), 23);
        assert_eq!(day(chrono_tz::Europe::Berlin, "2026-10-25"), 25);
        // There the clocks are put forward at midnight.
        assert_eq!(day(chrono_tz::Africa::Cairo, "2026-04-24"), 23);
    }
}
