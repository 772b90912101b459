//! When a system is due: interval or cron in a time zone, to the next slot; the only file that names
//! `cron`.
//!
//! A *slot* is the exact moment that a schedule names. The run of a slot starts a little later, by a
//! jitter that is always the same for a system, so that hundreds of systems with one cron do not
//! fall upon a vendor in the same second.
//!
//! `cron` alone loses and repeats slots when clocks change (it searches in local time), so it is only
//! ever asked in the fixed offset in force, and changes of the offset are crossed here.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, FixedOffset, LocalResult, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use sha2::{Digest, Sha256};
use zhilian_sync_store::SystemId;

/// The longest interval: a year.
const INTERVAL_MAX_SECS: i64 = 366 * 24 * 3600;

/// No sensible expression is longer.
const CRON_CHARS_MAX: usize = 256;

/// How far the search looks at a time; there are never two changes of a zone's offset within it.
const STRIDE: TimeDelta = TimeDelta::days(8);

/// So many strides reach over eight years; no two slots lie farther apart than two 29ths of February.
const STRIDES_MAX: u32 = 400;

/// The most slots that a preview shows.
const PREVIEW_MAX: usize = 1_000;

/// When a system is due.
#[derive(Debug, Clone)]
pub enum Schedule {
    /// Every so many seconds, counted from 1970 on, so that every process means the same moments.
    Interval {
        /// The distance of two slots.
        every_secs: i64,
    },
    /// At the times of a cron expression.
    Cron(Box<Cron>),
}

/// What is to be done about a slot that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The slot to run now: the latest one that has come. After a downtime the ones before it are
    /// left out, so there is one run to catch up and not one for each.
    pub slot_to_run: DateTime<Utc>,
    /// The slot to wait for next; always in the future.
    pub next_slot: Option<DateTime<Utc>>,
}

/// Why a schedule was refused, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    /// Interval and cron at once.
    #[error("a schedule is either `sync_interval` or `sync_cron`, not both; leave one of them out")]
    Both,
    /// Neither.
    #[error(
        "a schedule is missing; write `sync_interval` in seconds, for example `900`, or `sync_cron`, for example \
         `0 */2 * * *`"
    )]
    Missing,
    /// Not a length of time.
    #[error("`{0}` is not an interval; write whole seconds from `1` to `31622400`, for example `900`")]
    Interval(i64),
    /// Not a time zone.
    #[error("`{0}` is not an IANA time zone; write a name such as `Asia/Shanghai`, `Europe/London` or `UTC`")]
    Zone(String),
    /// Too many or too few fields.
    #[error(
        "`{text}` has {found} fields; write 5, `minute hour day month weekday`, or 6 with a second before \
         them, for example `30 2 * * *`"
    )]
    Fields {
        /// What was given.
        text: String,
        /// How many fields it has.
        found: usize,
    },
    /// `@daily` and the like.
    #[error(
        "`{text}` is a shorthand that is not understood; write the fields instead, for example `{instead}`"
    )]
    Shorthand {
        /// What was given.
        text: String,
        /// The same in fields.
        instead: &'static str,
    },
    /// Weekdays as numbers.
    #[error(
        "`{0}` gives weekdays as numbers, and `1` is Monday to some and Sunday to others; write names, for \
         example `MON-FRI` or `SAT,SUN`"
    )]
    NumericWeekday(String),
    /// Day of the month and weekday at once.
    #[error(
        "`{0}` restricts the day of the month and the weekday, which some read as both and others as either; \
         write `*` for one of them"
    )]
    DayAndWeekday(String),
    /// Not a cron expression.
    #[error(
        "`{text}` is not a cron expression ({reason}); write for example `30 2 * * *` or `*/15 9-21 * * MON-FRI`"
    )]
    Syntax {
        /// What was given.
        text: String,
        /// What could not be understood.
        reason: String,
    },
    /// A day that does not exist.
    #[error(
        "`{0}` never comes, because no such month has that day; write a day that exists, for example `0 0 28 2 *`"
    )]
    Never(String),
}

impl Schedule {
    /// Reads a schedule as people give it: an interval, or a cron expression and the zone of its times.
    pub fn parse(interval_secs: Option<i64>, cron: Option<&str>, zone: &str) -> Result<Self, BadSchedule> {
        match (interval_secs, cron) {
            (Some(_), Some(_)) => Err(BadSchedule::Both),
            (None, None) => Err(BadSchedule::Missing),
            (Some(every_secs), None) => {
                if !zone.is_empty() {
                    parse_zone(zone)?;
                }
                if !(1..=INTERVAL_MAX_SECS).contains(&every_secs) {
                    return Err(BadSchedule::Interval(every_secs));
                }
                Ok(Self::Interval { every_secs })
            }
            (None, Some(cron)) => Cron::parse(cron, parse_zone(zone)?).map(|cron| Self::Cron(Box::new(cron))),
        }
    }

    /// The first slot after `after`, without jitter. None when there is none any more.
    #[must_use]
    pub fn next_slot(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Interval { every_secs } => {
                let every_secs = (*every_secs).max(1);
                let slot = after.timestamp().div_euclid(every_secs).checked_add(1)?;
                DateTime::from_timestamp(slot.checked_mul(every_secs)?, 0)
            }
            Self::Cron(cron) => cron.next(after),
        }
    }

    /// What to do about `slot`, which has come at `now`: run the latest slot that has come, wait for
    /// the first that has not. The work is bounded, however long ago `slot` was.
    #[must_use]
    pub fn due(&self, slot: DateTime<Utc>, now: DateTime<Utc>) -> Due {
        Due { slot_to_run: self.latest_slot(slot, now), next_slot: self.next_slot(now.max(slot)) }
    }

    /// How much later than its slot a system's run starts.
    ///
    /// The same for a system every time, spread evenly over all systems; at most `max` and at most
    /// half the way to the next slot, so that the runs of two slots never change places.
    #[must_use]
    pub fn jitter(&self, system: SystemId, slot: DateTime<Utc>, max: Duration) -> Duration {
        let half = self.next_slot(slot).and_then(|next| (next - slot).to_std().ok()).map(|way| way / 2);
        let limit = half.map_or(max, |half| half.min(max));
        // Ids of one minute begin alike; their hashes do not.
        let hash = Sha256::digest(system.0.as_bytes());
        let mut share = [0; 8];
        share.copy_from_slice(&hash[..8]);
        let millis = (limit.as_millis() * u128::from(u64::from_be_bytes(share))) >> 64;
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// The next `count` slots after `after`, for people to look at; never more than a thousand.
    #[must_use]
    pub fn preview(&self, after: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
        std::iter::successors(self.next_slot(after), |slot| self.next_slot(*slot))
            .take(count.min(PREVIEW_MAX))
            .collect()
    }

    /// The latest slot in `[slot, now]`; `slot` itself where there is no later one.
    fn latest_slot(&self, slot: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
        let comes_by_now = |after: DateTime<Utc>| self.next_slot(after).filter(|next| *next <= now);
        // Back from now in growing steps to a moment that still has a slot after it. Stepping ahead
        // slot by slot would take half a million steps after a year without a service.
        let mut span = TimeDelta::seconds(1);
        let mut without = now;
        let mut with = loop {
            let before = now - span;
            if before <= slot {
                break slot;
            }
            if comes_by_now(before).is_some() {
                break before;
            }
            without = before;
            span = span * 2;
        };
        let Some(mut latest) = comes_by_now(with) else {
            return slot;
        };
        // The border between "has a slot after it" and "has none" is the latest slot.
        while without - with > TimeDelta::seconds(1) {
            let middle = with + (without - with) / 2;
            match comes_by_now(middle) {
                Some(later) => {
                    latest = later;
                    with = middle;
                }
                None => without = middle,
            }
        }
        // Slots are whole seconds: within this last one there may be one more.
        while let Some(later) = comes_by_now(latest) {
            latest = later;
        }
        latest.max(slot)
    }
}

fn parse_zone(zone: &str) -> Result<Tz, BadSchedule> {
    Tz::from_str(zone).map_err(|_| BadSchedule::Zone(shortened(zone)))
}

/// What was given, short enough to be shown.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A cron expression in a time zone, right when clocks change.
///
/// | | an hour is left out | an hour comes twice |
/// |---|---|---|
/// | at fixed times (`30 2 * * *`) | what it holds runs once, right after the gap | runs the first time only |
/// | every hour or every n hours (`*/15 * * * *`) | follows real time: nothing to make up | follows real time: runs both times |
#[derive(Debug, Clone)]
pub struct Cron {
    fields: cron::Schedule,
    zone: Tz,
    /// The hours are `*` or `*/n`, or all of them.
    follows_real_time: bool,
    text: String,
}

impl Cron {
    /// Reads five fields, or six with seconds.
    fn parse(text: &str, zone: Tz) -> Result<Self, BadSchedule> {
        let shown = || shortened(text);
        if text.chars().count() > CRON_CHARS_MAX {
            let reason = format!("it is longer than {CRON_CHARS_MAX} characters");
            return Err(BadSchedule::Syntax { text: shown(), reason });
        }
        if text.trim_start().starts_with('@') {
            return Err(BadSchedule::Shorthand { text: shown(), instead: without_shorthand(text.trim()) });
        }
        let mut fields: Vec<&str> = text.split_whitespace().collect();
        match fields.len() {
            5 => fields.insert(0, "0"),
            6 => {}
            found => return Err(BadSchedule::Fields { text: shown(), found }),
        }
        let (hour, day, weekday) = (fields[2], fields[3], fields[5]);
        let all = |field: &str| field == "*" || field == "?";
        // To `cron` Sunday is 1, to everybody else it is 0 or 7.
        if weekday.bytes().any(|byte| byte.is_ascii_digit()) {
            return Err(BadSchedule::NumericWeekday(shortened(weekday)));
        }
        // To `cron` this means both, to Unix either.
        if !all(day) && !all(weekday) {
            return Err(BadSchedule::DayAndWeekday(shown()));
        }
        let parsed = cron::Schedule::from_str(&fields.join(" "))
            .map_err(|error| BadSchedule::Syntax { text: shown(), reason: reason(&error.to_string()) })?;
        let follows_real_time = hour.starts_with('*') || cron::TimeUnitSpec::is_all(parsed.hours());
        let cron = Self { fields: parsed, zone, follows_real_time, text: fields.join(" ") };
        // Any start will do: years cannot be given, so what never comes from here never comes.
        cron.next(DateTime::UNIX_EPOCH).map(|_| cron.clone()).ok_or_else(|| BadSchedule::Never(shown()))
    }

    /// The zone that the times are meant in.
    #[must_use]
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The six fields, seconds first.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first slot after `after`. Depends on nothing else, and always lies after it.
    fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut from = after;
        for _ in 0..STRIDES_MAX {
            let offset = self.offset(from);
            let candidate = self.next_in(offset, from);
            let horizon = from + STRIDE;
            let reach = candidate.map_or(horizon, |slot| slot.min(horizon));
            if self.offset(reach) == offset {
                match candidate {
                    // Clocks were set back: this time has been already, and it ran then.
                    Some(slot) if slot == reach && self.is_repeated(slot) => from = slot,
                    Some(slot) if slot == reach => return Some(slot),
                    Some(_) => from = just_before(reach, after),
                    None => return None,
                }
                continue;
            }
            let change = self.change(from, reach);
            if let Some(slot) = self.made_up(offset, change, after) {
                return Some(slot);
            }
            // On in the new offset, whose first second may be a slot itself.
            let changed = self.offset(change);
            let slot = self.next_in(changed, just_before(change, after))?;
            if slot > after && self.offset(slot) == changed && !self.is_repeated(slot) {
                return Some(slot);
            }
            from = change.max(after);
        }
        None
    }

    /// The slot right after a gap, if the gap swallowed one: clocks went from `offset` to a later one
    /// at `change`.
    fn made_up(
        &self,
        offset: FixedOffset,
        change: DateTime<Utc>,
        after: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let skipped = self.offset(change).local_minus_utc() - offset.local_minus_utc();
        if self.follows_real_time || skipped <= 0 || change <= after {
            return None;
        }
        let swallowed = self.next_in(offset, change - TimeDelta::seconds(1))?;
        (swallowed < change + TimeDelta::seconds(skipped.into())).then_some(change)
    }

    /// What `cron` says, in an offset that does not change.
    fn next_in(&self, offset: FixedOffset, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.fields.after(&after.with_timezone(&offset)).next().map(|slot| slot.to_utc())
    }

    fn offset(&self, at: DateTime<Utc>) -> FixedOffset {
        self.zone.offset_from_utc_datetime(&at.naive_utc()).fix()
    }

    /// The first second in (`from`, `to`] where the offset is no longer that of `from`.
    fn change(&self, mut from: DateTime<Utc>, mut to: DateTime<Utc>) -> DateTime<Utc> {
        let offset = self.offset(from);
        while to - from > TimeDelta::seconds(1) {
            let middle = from + (to - from) / 2;
            if self.offset(middle) == offset {
                from = middle;
            } else {
                to = middle;
            }
        }
        DateTime::from_timestamp(to.timestamp(), 0).unwrap_or(to)
    }

    /// Whether a fixed time comes for the second time on its day.
    fn is_repeated(&self, slot: DateTime<Utc>) -> bool {
        if self.follows_real_time {
            return false;
        }
        let local = slot.with_timezone(&self.zone).naive_local();
        matches!(self.zone.from_local_datetime(&local), LocalResult::Ambiguous(first, _) if first.to_utc() < slot)
    }
}

/// A second before `moment`, so that `moment` is found again, but never before `after`.
fn just_before(moment: DateTime<Utc>, after: DateTime<Utc>) -> DateTime<Utc> {
    (moment - TimeDelta::seconds(1)).max(after)
}

/// What `cron` has against an expression, on one line: its last, below the expression and a pointer.
fn reason(message: &str) -> String {
    let last = message.lines().last().unwrap_or_default().trim().trim_end_matches('.');
    if !last.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        return "a field cannot be read".to_owned();
    }
    // It says "less than 59" and takes 59.
    let reason = last.replace("must be less than", "must be at most").replace(". (", " (").replace(".)", ")");
    let (first, rest) = reason.split_at(reason.chars().next().map_or(0, char::len_utf8));
    shortened(&format!("{}{rest}", first.to_lowercase()))
}

/// The fields that a shorthand stands for elsewhere.
fn without_shorthand(text: &str) -> &'static str {
    match text.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * SUN",
        "@hourly" => "0 * * * *",
        _ => "0 0 * * *",
    }
}

#[cfg(test)]
mod tests;
