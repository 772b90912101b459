//! Vendors' JSON into money, times, texts and flags: exact, bounded, never a panic. The reasons it
//! gives name what was found and what was expected; the field's name is put before them by the caller.

use std::borrow::Cow;

use chrono::{DateTime, LocalResult, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use serde_json::{Number, Value};
use zhilian_sync_store::Currency;
use zhilian_sync_store::money::{self, MoneyError};

use super::field::Unit;

/// The longest id: it must fit an index entry of either database.
const ID_CHARS_MAX: usize = 255;
/// How much of a vendor's text a reason repeats.
const SHOWN_CHARS_MAX: usize = 60;
/// Times outside these years are a mistake of the vendor's, and sort wrongly as text.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9999;
/// Epoch numbers with so many digits or more count milliseconds.
const MILLISECOND_DIGITS: usize = 12;

/// How a vendor writes a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TimeForm {
    /// `2026-01-01T12:00:00+08:00`.
    Rfc3339,
    /// Seconds since 1970.
    Unix,
    /// Milliseconds since 1970.
    UnixMs,
    /// `2026-01-01 12:00:00`, with `T` and fractions allowed, or a date, in a zone.
    Naive,
    /// A pattern, in a zone.
    Pattern(String),
    /// Whichever of the first four it is.
    Any,
}

/// Plain values as text.
pub(super) fn text(value: Cow<'_, Value>) -> Result<Cow<'_, str>, String> {
    match value {
        Cow::Borrowed(Value::String(text)) => Ok(Cow::Borrowed(text)),
        Cow::Owned(Value::String(text)) => Ok(Cow::Owned(text)),
        other => match other.as_ref() {
            Value::Number(number) => Ok(Cow::Owned(number.to_string())),
            Value::Bool(flag) => Ok(Cow::Borrowed(if *flag { "true" } else { "false" })),
            found => Err(format!("expected text, found {}", kind(found))),
        },
    }
}

/// An id is kept exactly or not at all.
pub(super) fn check_id(id: &str) -> Result<(), String> {
    if id.contains('\0') {
        return Err(
            "the id holds the character U+0000, which no database key may; mend it at the vendor".into()
        );
    }
    if id.chars().nth(ID_CHARS_MAX).is_some() {
        return Err(format!("the id `{}` is longer than {ID_CHARS_MAX} characters", shown(id)));
    }
    Ok(())
}

/// Text that PostgreSQL can store: U+0000 becomes U+FFFD.
pub(super) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{FFFD}")) } else { Cow::Borrowed(text) }
}

/// An amount in minor units of `currency`.
pub(super) fn minor(value: &Value, unit: Unit, currency: Currency) -> Result<i64, String> {
    let text: Cow<'_, str> = match value {
        Value::Number(number) => Cow::Owned(number.to_string()),
        Value::String(text) => Cow::Borrowed(text.trim()),
        found => return Err(format!("expected an amount, found {}", kind(found))),
    };
    let digits = match unit {
        Unit::Minor => 0,
        Unit::Major => currency.digits(),
    };
    money::parse_minor(&text, digits).map_err(|error| match (&error, unit) {
        (MoneyError::TooManyDecimals { text, .. }, Unit::Minor) => format!(
            "`{text}` has decimals, but minor units of {currency} allow none; if the vendor sends decimals, the manifest needs `unit = \"major\"`"
        ),
        (MoneyError::TooManyDecimals { text, digits }, Unit::Major) => format!(
            "`{text}` has more decimals than the {digits} that {currency} allows; check the system's currency and the manifest's unit"
        ),
        _ => error.to_string(),
    })
}

/// A number, from a number or its text; its digits stay as they are.
pub(super) fn number(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(_) => Ok(value.clone()),
        Value::String(text) => text
            .trim()
            .parse::<Number>()
            .map(Value::Number)
            .map_err(|_| format!("expected a number, found `{}`", shown(text))),
        found => Err(format!("expected a number, found {}", kind(found))),
    }
}

/// Yes or no, as vendors write it.
pub(super) fn flag(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::Number(number) => Ok(number.as_f64() != Some(0.0)),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "y" => Ok(true),
            "" | "0" | "false" | "no" | "n" => Ok(false),
            _ => Err(format!("expected yes or no, found `{}`", shown(text))),
        },
        found => Err(format!("expected yes or no, found {}", kind(found))),
    }
}

/// A time in whole milliseconds; one without an offset is read in `zone`.
pub(super) fn time(value: &Value, form: &TimeForm, zone: Tz) -> Result<DateTime<Utc>, String> {
    let text: Cow<'_, str> = match value {
        Value::String(text) => Cow::Borrowed(text.trim()),
        Value::Number(number) => Cow::Owned(number.to_string()),
        found => return Err(format!("expected a time, found {}", kind(found))),
    };
    let text = text.as_ref();
    let read = match form {
        TimeForm::Rfc3339 => rfc3339(text),
        TimeForm::Unix => epoch(text, 3),
        TimeForm::UnixMs => epoch(text, 0),
        TimeForm::Naive => naive(text).and_then(|local| in_zone(local, zone)),
        TimeForm::Pattern(pattern) => pattern_time(text, pattern, zone),
        TimeForm::Any => {
            rfc3339(text).or_else(|| naive(text).and_then(|local| in_zone(local, zone))).or_else(|| {
                let digits = text.bytes().take_while(u8::is_ascii_digit).count();
                epoch(text, if digits >= MILLISECOND_DIGITS { 0 } else { 3 })
            })
        }
    };
    let expected = match form {
        TimeForm::Rfc3339 => "`2026-01-01T12:00:00+08:00`",
        TimeForm::Unix => "seconds since 1970",
        TimeForm::UnixMs => "milliseconds since 1970",
        TimeForm::Naive => "`2026-01-01 12:00:00`",
        TimeForm::Pattern(pattern) => pattern.as_str(),
        TimeForm::Any => "`2026-01-01T12:00:00+08:00` or seconds since 1970",
    };
    let read = read.ok_or_else(|| format!("`{}` is not a time of the form {expected}", shown(text)))?;
    if !YEARS.contains(&chrono::Datelike::year(&read)) {
        return Err(format!(
            "`{}` is not within the years 1970 to 9999; check the manifest's time form",
            shown(text)
        ));
    }
    DateTime::from_timestamp_millis(read.timestamp_millis())
        .ok_or_else(|| format!("`{}` is no time", shown(text)))
}

fn rfc3339(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc))
}

/// A decimal count since 1970; what is finer than a millisecond is cut off.
fn epoch(text: &str, decimals: usize) -> Option<DateTime<Utc>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole.strip_prefix('-').unwrap_or(whole)) || !digits(fraction) {
        return None;
    }
    let kept = format!("{whole}{:0<decimals$}", &fraction[..fraction.len().min(decimals)]);
    DateTime::from_timestamp_millis(kept.parse().ok()?)
}

fn naive(text: &str) -> Option<NaiveDateTime> {
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y/%m/%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|pattern| NaiveDateTime::parse_from_str(text, pattern).ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))
}

fn pattern_time(text: &str, pattern: &str, zone: Tz) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_str(text, pattern) {
        return Some(time.with_timezone(&Utc));
    }
    let local = NaiveDateTime::parse_from_str(text, pattern).ok();
    in_zone(local.or_else(|| NaiveDate::parse_from_str(text, pattern).ok()?.and_hms_opt(0, 0, 0))?, zone)
}

/// The instant of a wall time: the first of two in autumn, the one an hour later in spring's gap.
fn in_zone(local: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => Some(time.with_timezone(&Utc)),
        LocalResult::None => {
            let before =
                zone.from_local_datetime(&local.checked_sub_signed(TimeDelta::hours(3))?).earliest()?;
            before.checked_add_signed(TimeDelta::hours(3)).map(|time| time.with_timezone(&Utc))
        }
    }
}

/// What a value is, for a reason.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "yes or no",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The beginning of a vendor's text, for a reason; U+0000 is replaced.
pub(super) fn shown(text: &str) -> String {
    let text = without_nul(text);
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    fn from_json(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn amounts_are_exact() {
        for (value, unit, currency, expected) in [
            ("29680", Unit::Minor, "CNY", 29_680),
            ("\"29680\"", Unit::Minor, "CNY", 29_680),
            ("296.80", Unit::Major, "CNY", 29_680),
            ("296.8", Unit::Major, "CNY", 29_680),
            ("\" 0.1 \"", Unit::Major, "CNY", 10),
            ("1250", Unit::Major, "JPY", 1_250),
            ("1.234", Unit::Major, "KWD", 1_234),
            ("-1e2", Unit::Major, "CNY", -10_000),
            ("29680.00", Unit::Minor, "CNY", 29_680),
        ] {
            assert_eq!(minor(&from_json(value), unit, currency.parse().unwrap()), Ok(expected), "{value}");
        }
    }

    #[test]
    fn bad_amounts_say_what_is_allowed() {
        let started = Instant::now();
        for (value, unit, says) in [
            ("12.345", Unit::Major, "`12.345` has more decimals than the 2 that CNY allows"),
            ("12.5", Unit::Minor, "minor units of CNY allow none"),
            ("1e999999", Unit::Major, "too large for an amount"),
            ("1e999999999999", Unit::Minor, "too large for an amount"),
            ("\"12,50\"", Unit::Major, "not a number"),
            ("{}", Unit::Major, "expected an amount, found an object"),
            ("true", Unit::Major, "found yes or no"),
        ] {
            let problem = minor(&from_json(value), unit, Currency::CNY).unwrap_err();
            assert!(problem.contains(says), "{value}: {problem}");
        }
        assert!(started.elapsed() < Duration::from_millis(100));
    }

    #[test]
    fn times_become_milliseconds_utc() {
        let shanghai = chrono_tz::Asia::Shanghai;
        for (value, form, expected) in [
            (json!("2026-01-01T12:00:00+08:00"), TimeForm::Rfc3339, "2026-01-01T04:00:00Z"),
            (json!("2026-01-01T12:00:00.1239999+08:00"), TimeForm::Rfc3339, "2026-01-01T04:00:00.123Z"),
            (json!("2026-01-01 12:00:00"), TimeForm::Naive, "2026-01-01T04:00:00Z"),
            (json!("2026-01-01T12:00:00.5"), TimeForm::Naive, "2026-01-01T04:00:00.500Z"),
            (json!("2026-01-01"), TimeForm::Naive, "2025-12-31T16:00:00Z"),
            (json!(1_767_240_000), TimeForm::Unix, "2026-01-01T04:00:00Z"),
            (from_json("1767240000.1239"), TimeForm::Unix, "2026-01-01T04:00:00.123Z"),
            (json!("1767240000"), TimeForm::Any, "2026-01-01T04:00:00Z"),
            (json!(1_767_240_000_123_i64), TimeForm::Any, "2026-01-01T04:00:00.123Z"),
            (json!("1767240000123"), TimeForm::UnixMs, "2026-01-01T04:00:00.123Z"),
            (json!("01.01.2026 12:00"), TimeForm::Pattern("%d.%m.%Y %H:%M".into()), "2026-01-01T04:00:00Z"),
            (json!("20260101"), TimeForm::Pattern("%Y%m%d".into()), "2025-12-31T16:00:00Z"),
        ] {
            let expected: DateTime<Utc> = expected.parse().unwrap();
            assert_eq!(time(&value, &form, shanghai), Ok(expected), "{value}");
        }
    }

    #[test]
    fn wall_times_that_are_skipped_or_repeated_have_one_meaning() {
        let new_york = chrono_tz::America::New_York;
        for (text, expected) in
            [("2026-03-08 02:30:00", "2026-03-08T07:30:00Z"), ("2026-11-01 01:30:00", "2026-11-01T05:30:00Z")]
        {
            assert_eq!(
                time(&json!(text), &TimeForm::Naive, new_york),
                Ok(expected.parse().unwrap()),
                "{text}"
            );
        }
    }

    #[test]
    fn bad_times_are_reasons() {
        for (value, form) in [
            (json!("yesterday"), TimeForm::Rfc3339),
            (json!("2026-13-01 00:00:00"), TimeForm::Naive),
            (from_json("1e999999"), TimeForm::Unix),
            (from_json("99999999999999999999"), TimeForm::UnixMs),
            (json!(1_767_240_000_123_i64), TimeForm::Unix),
            (json!("1.é"), TimeForm::Unix),
            (json!(""), TimeForm::Any),
            (json!([]), TimeForm::Any),
            (json!("-62135596800"), TimeForm::Unix),
        ] {
            assert!(time(&value, &form, chrono_tz::UTC).is_err(), "{value}");
        }
    }

    #[test]
    fn ids_are_exact_or_refused() {
        assert!(check_id("S-000001").is_ok());
        assert!(check_id("a\0b").unwrap_err().contains("U+0000"));
        assert!(check_id(&"x".repeat(256)).unwrap_err().contains("longer than 255"));
        assert_eq!(without_nul("a\0b"), "a\u{FFFD}b");
    }

    #[test]
    fn flags_are_read_as_vendors_write_them() {
        for (value, expected) in [
            (json!(1), Ok(true)),
            (json!("0"), Ok(false)),
            (json!("Yes"), Ok(true)),
            (json!(false), Ok(false)),
        ] {
            assert_eq!(flag(&value), expected, "{value}");
        }
        assert!(flag(&json!("perhaps")).is_err());
        assert!(flag(&json!([])).is_err());
    }
}
