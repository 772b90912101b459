//! How well a system is: a score, a level, and the reasons in words. A pure function of figures, so that the
//! table of it is its test.
//!
//! | what | taken from 100 |
//! |---|---|
//! | its status is `error` | 60 |
//! | runs failed in a row | 10 for each, at most 40 |
//! | runs of the last 24 hours failed, of at least [`RATE_RUNS_MIN`] | the share of them, of 40 |
//! | no success for three of its intervals, and half an hour at least | 25 |
//! | webhook events were given up | 10 |
//! | records could not be kept | 10 |
//! | webhook events that cannot be verified | 5 |
//! | [`WAITING_MANY`] webhook events wait | 10 |
//!
//! From 80 on a system is healthy, from 50 on degraded, below failing. A paused one is paused, and one that
//! never ran is unknown, whatever its score.

use chrono::{DateTime, TimeDelta, Utc};
use zhilian_sync_store::SystemStatus;
use zhilian_sync_store::external_systems::{COUNTED_MAX, ExternalSystem, Figures};

use crate::schedule::Schedule;

/// Figures of runs are those of so many hours.
pub const WINDOW: TimeDelta = TimeDelta::hours(24);
/// Fewer runs than this have no rate.
pub const RATE_RUNS_MIN: i64 = 3;
/// So many waiting webhook events are a backlog.
pub const WAITING_MANY: i64 = 500;

/// A success is late after so many intervals.
const LATE_INTERVALS: i32 = 3;
/// A success is never late before this.
const LATE_MIN: TimeDelta = TimeDelta::minutes(30);
const HEALTHY_FROM: i64 = 80;
const DEGRADED_FROM: i64 = 50;

/// The score in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nothing, or nothing much, is wrong.
    Healthy,
    /// It works, and somebody should have a look.
    Degraded,
    /// It does not work.
    Failing,
    /// A person has paused it.
    Paused,
    /// Nothing was ever tried.
    Unknown,
}

impl Level {
    /// Every level.
    pub const ALL: &'static [Self] =
        &[Self::Healthy, Self::Degraded, Self::Failing, Self::Paused, Self::Unknown];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
            Self::Paused => "paused",
            Self::Unknown => "unknown",
        }
    }
}

/// What is known of a system, as far as its health goes.
#[derive(Debug, Clone)]
pub struct Signs {
    /// Its status.
    pub status: SystemStatus,
    /// Whether it is paused.
    pub paused: bool,
    /// Failed runs since the last success.
    pub consecutive_failures: i64,
    /// When a run last ended, well or not.
    pub last_run_at: Option<DateTime<Utc>>,
    /// When the schedule, if it has one, brings its next slots: the distance of two.
    pub interval: Option<TimeDelta>,
    /// What is counted.
    pub figures: Figures,
}

impl Signs {
    /// Those of a system.
    #[must_use]
    pub fn of(system: &ExternalSystem, figures: Figures, now: DateTime<Utc>) -> Self {
        Self {
            status: system.status,
            paused: system.paused,
            consecutive_failures: system.consecutive_failures,
            last_run_at: system.last_sync_at,
            interval: interval_of(system, now),
            figures,
        }
    }
}

/// What is made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// From 0 to 100.
    pub score: i64,
    /// The score in a word.
    pub level: Level,
    /// What was taken from the score, the worst first; never empty.
    pub reasons: Vec<String>,
}

/// Judges.
#[must_use]
pub fn judge(signs: &Signs, now: DateTime<Utc>) -> Health {
    let mut found = troubles(signs, now);
    found.sort_by_key(|(points, _)| -points);
    let score = (100 - found.iter().map(|(points, _)| points).sum::<i64>()).max(0);
    let mut reasons: Vec<String> = found.into_iter().map(|(_, words)| words).collect();
    let tried = signs.last_run_at.is_some() || signs.figures.runs.ended > 0;
    let level = if signs.paused {
        reasons.insert(0, "it is paused".into());
        Level::Paused
    } else if !tried {
        reasons.insert(0, "nothing was tried yet; test the connection".into());
        Level::Unknown
    } else if score >= HEALTHY_FROM {
        Level::Healthy
    } else if score >= DEGRADED_FROM {
        Level::Degraded
    } else {
        Level::Failing
    };
    if reasons.is_empty() {
        reasons.push("all is well".into());
    }
    Health { score, level, reasons }
}

/// Points and words.
fn troubles(signs: &Signs, now: DateTime<Utc>) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    let (runs, backlog) = (&signs.figures.runs, &signs.figures.backlog);
    if signs.status == SystemStatus::Error {
        found.push((60, "its status is `error`: the vendor refuses it, or too many runs failed".into()));
    }
    if signs.consecutive_failures > 0 {
        let words = format!("{} failed in a row", many(signs.consecutive_failures, "run"));
        found.push(((signs.consecutive_failures.min(4) * 10), words));
    }
    if runs.failed > 0 && runs.ended >= RATE_RUNS_MIN {
        let points = runs.failed * 40 / runs.ended;
        found.push((points, format!("{} of {} runs of the last 24 hours failed", runs.failed, runs.ended)));
    }
    if let Some(words) = late(signs, now) {
        found.push((25, words));
    }
    if backlog.dead_events > 0 {
        found.push((10, format!("given up: {}", counted(backlog.dead_events, "webhook event"))));
    }
    if backlog.open_failures > 0 {
        found.push((10, format!("{} could not be kept", counted(backlog.open_failures, "record"))));
    }
    if backlog.quarantined_events > 0 {
        let words = format!("{} could not be verified", counted(backlog.quarantined_events, "webhook event"));
        found.push((5, words));
    }
    if backlog.pending_events >= WAITING_MANY {
        let words = format!("{} wait to be applied", counted(backlog.pending_events, "webhook event"));
        found.push((10, words));
    }
    found
}

/// Why its data is too old, if it is. One that is not scheduled is as fresh as people want it.
fn late(signs: &Signs, now: DateTime<Utc>) -> Option<String> {
    let interval = signs.interval?;
    let last = signs.figures.runs.last_success_at?;
    let age = now - last;
    (age > (interval * LATE_INTERVALS).max(LATE_MIN))
        .then(|| format!("the last success is {} old", words_of(age)))
}

/// The distance of two slots of a system that is scheduled.
fn interval_of(system: &ExternalSystem, now: DateTime<Utc>) -> Option<TimeDelta> {
    if !system.is_scheduled() {
        return None;
    }
    let schedule =
        Schedule::parse(system.sync_interval, system.sync_cron.as_deref(), &system.timezone).ok()?;
    let next = schedule.next_slot(now)?;
    Some(schedule.next_slot(next)? - next)
}

fn many(count: i64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// The same of something that is counted no further than [`COUNTED_MAX`].
fn counted(count: i64, what: &str) -> String {
    if count >= COUNTED_MAX { format!("{COUNTED_MAX} {what}s or more") } else { many(count, what) }
}

fn words_of(age: TimeDelta) -> String {
    match (age.num_days(), age.num_hours()) {
        (0, 0) => many(age.num_minutes(), "minute"),
        (0, hours) => many(hours, "hour"),
        (days, _) => many(days, "day"),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use zhilian_sync_store::external_systems::{Backlog, RunFigures};

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_528_000, 0).unwrap()
    }

    /// Active, every five minutes, last successful a minute ago.
    fn well() -> Signs {
        let last = now() - TimeDelta::minutes(1);
        let runs = RunFigures { last_success_at: Some(last), ended: 288, failed: 0, pending: 0 };
        Signs {
            status: SystemStatus::Active,
            paused: false,
            consecutive_failures: 0,
            last_run_at: Some(last),
            interval: Some(TimeDelta::minutes(5)),
            figures: Figures { runs, backlog: Backlog::default() },
        }
    }

    fn with(change: impl FnOnce(&mut Signs)) -> Signs {
        let mut signs = well();
        change(&mut signs);
        signs
    }

    #[test]
    fn the_table_of_health_is_this_one() {
        let cases = [
            ("well", well()),
            ("one failure", with(|it| it.consecutive_failures = 1)),
            ("a quarter fails", with(|it| it.figures.runs.failed = 72)),
            ("two runs have no rate", with(|it| (it.figures.runs.ended, it.figures.runs.failed) = (2, 1))),
            ("stale", with(|it| it.figures.runs.last_success_at = Some(now() - TimeDelta::minutes(31)))),
            (
                "old and not scheduled",
                with(|it| {
                    it.interval = None;
                    it.figures.runs.last_success_at = Some(now() - TimeDelta::days(31));
                }),
            ),
            (
                "breaker",
                with(|it| {
                    it.status = SystemStatus::Error;
                    it.consecutive_failures = 10;
                    it.figures.runs.failed = 144;
                    it.figures.runs.last_success_at = Some(now() - TimeDelta::days(2));
                }),
            ),
            (
                "backlog",
                with(|it| {
                    it.figures.backlog = Backlog {
                        pending_events: 1000,
                        dead_events: 1,
                        quarantined_events: 7,
                        open_failures: 2,
                    };
                }),
            ),
            ("paused", with(|it| it.paused = true)),
            (
                "new",
                with(|it| {
                    it.last_run_at = None;
                    it.figures = Figures::default();
                }),
            ),
        ];
        let mut table = String::new();
        for (name, signs) in cases {
            let Health { score, level, reasons } = judge(&signs, now());
            writeln!(table, "{name}: {score} {}: {}", level.as_str(), reasons.join("; ")).unwrap();
        }
        insta::assert_snapshot!(table, @r"
        well: 100 healthy: all is well
        one failure: 90 healthy: 1 run failed in a row
        a quarter fails: 90 healthy: 72 of 288 runs of the last 24 hours failed
        two runs have no rate: 100 healthy: all is well
        stale: 75 degraded: the last success is 31 minutes old
        old and not scheduled: 100 healthy: all is well
        breaker: 0 failing: its status is `error`: the vendor refuses it, or too many runs failed; 10 runs failed in a row; the last success is 2 days old; 144 of 288 runs of the last 24 hours failed
        backlog: 65 degraded: given up: 1 webhook event; 2 records could not be kept; 1000 webhook events or more wait to be applied; 7 webhook events could not be verified
        paused: 100 paused: it is paused
        new: 100 unknown: nothing was tried yet; test the connection
        ");
    }
}
