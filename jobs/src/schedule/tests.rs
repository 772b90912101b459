//! Schedules against a second opinion, against clocks that change, and against mistakes.

use std::time::Instant;

use chrono_tz::America::{New_York, Sao_Paulo};
use chrono_tz::Asia::Shanghai;
use chrono_tz::Australia::Lord_Howe;
use chrono_tz::Europe::London;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn cron(text: &str, zone: Tz) -> Schedule {
    Schedule::parse(None, Some(text), zone.name()).unwrap()
}

fn every(secs: i64) -> Schedule {
    Schedule::parse(Some(secs), None, "").unwrap()
}

/// The slots after `after`, as local times with their offset.
fn local(text: &str, zone: Tz, after: &str, count: usize) -> Vec<String> {
    let slots = cron(text, zone).preview(at(after), count);
    slots.iter().map(|slot| slot.with_timezone(&zone).format("%m-%d %H:%M %z").to_string()).collect()
}

const EXPRESSIONS: [&str; 11] = [
    "30 2 * * *",
    "30 1 * * *",
    "0 3 * * *",
    "*/30 * * * *",
    "0 * * * *",
    "*/7 * * * *",
    "15 */2 * * *",
    "0 0 1 * *",
    "45 1 * * SUN",
    "59 59 1 * * *",
    "0 2 * * *",
];

/// Each lies shortly before a change of clocks in one of the zones.
const STARTS: [&str; 8] = [
    "2017-10-13T00:00:00Z",
    "2018-02-16T00:00:00Z",
    "2026-03-06T00:00:00Z",
    "2026-03-27T12:00:00Z",
    "2026-04-03T00:00:00Z",
    "2026-10-02T00:00:00Z",
    "2026-10-24T00:00:00Z",
    "2026-10-31T00:00:00Z",
];

#[test]
fn slots_are_those_of_croner_over_six_zones() {
    let reader = croner::parser::CronParser::builder().seconds(croner::parser::Seconds::Optional).build();
    let mut compared = 0;
    for zone in [New_York, Shanghai, London, Lord_Howe, Sao_Paulo, chrono_tz::UTC] {
        for text in EXPRESSIONS {
            let (ours, theirs) = (cron(text, zone), reader.parse(text).unwrap());
            for start in STARTS {
                let mut our_slot = at(start);
                let mut their_slot = our_slot.with_timezone(&zone);
                for _ in 0..250 {
                    let after = our_slot.with_timezone(&zone);
                    our_slot = ours.next_slot(our_slot).unwrap();
                    their_slot = theirs.find_next_occurrence(&their_slot, false).unwrap();
                    assert_eq!(our_slot, their_slot.to_utc(), "{zone} `{text}` after {after}");
                    assert!(our_slot > after);
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 6 * EXPRESSIONS.len() * STARTS.len() * 250);
}

#[test]
fn a_time_that_clocks_leave_out_runs_once_right_after_the_gap() {
    assert_eq!(
        local("30 2 * * *", New_York, "2026-03-07T12:00:00Z", 2),
        ["03-08 03:00 -0400", "03-09 02:30 -0400"]
    );
    // Two times in the gap are one run, and a run at its end is not doubled.
    assert_eq!(
        local("10,40 2,3 * * *", New_York, "2026-03-07T12:00:00Z", 3),
        ["03-08 03:00 -0400", "03-08 03:10 -0400", "03-08 03:40 -0400"]
    );
    assert_eq!(
        local("0 2,3 * * *", New_York, "2026-03-07T12:00:00Z", 2),
        ["03-08 03:00 -0400", "03-09 02:00 -0400"]
    );
}

#[test]
fn a_time_that_comes_twice_runs_the_first_time() {
    assert_eq!(
        local("30 1 * * *", New_York, "2026-10-31T12:00:00Z", 2),
        ["11-01 01:30 -0400", "11-02 01:30 -0500"]
    );
    assert_eq!(
        local("45 1 * * *", Lord_Howe, "2026-04-04T12:00:00Z", 2),
        ["04-05 01:45 +1100", "04-06 01:45 +1030"]
    );
}

#[test]
fn what_runs_every_half_hour_follows_real_time() {
    assert_eq!(
        local("*/30 * * * *", New_York, "2026-11-01T04:30:00Z", 5),
        [
            "11-01 01:00 -0400",
            "11-01 01:30 -0400",
            "11-01 01:00 -0500",
            "11-01 01:30 -0500",
            "11-01 02:00 -0500"
        ]
    );
    assert_eq!(
        local("*/30 * * * *", New_York, "2026-03-08T06:00:00Z", 2),
        ["03-08 01:30 -0500", "03-08 03:00 -0400"]
    );
}

#[test]
fn a_leap_day_is_found_four_years_ahead() {
    let schedule = cron("0 0 29 2 *", Shanghai);
    assert_eq!(
        schedule.preview(at("2024-02-28T16:00:00Z"), 2),
        [at("2028-02-28T16:00:00Z"), at("2032-02-28T16:00:00Z")]
    );
}

#[test]
fn interval_slots_are_multiples_since_1970() {
    assert_eq!(every(900).next_slot(at("2026-05-01T10:07:12.5Z")), Some(at("2026-05-01T10:15:00Z")));
    assert_eq!(every(900).next_slot(at("2026-05-01T10:15:00Z")), Some(at("2026-05-01T10:30:00Z")));
    assert_eq!(every(7).next_slot(at("1969-12-31T23:59:50Z")), Some(at("1969-12-31T23:59:53Z")));
    assert_eq!(
        every(3600).preview(at("2026-05-01T10:07:00Z"), 2),
        [at("2026-05-01T11:00:00Z"), at("2026-05-01T12:00:00Z")]
    );
}

#[test]
fn after_a_downtime_there_is_one_run_to_catch_up() {
    let schedule = cron("*/15 * * * *", Shanghai);
    let due = schedule.due(at("2026-05-01T10:00:00Z"), at("2026-05-01T13:20:00.250Z"));
    assert_eq!(
        due,
        Due { slot_to_run: at("2026-05-01T13:15:00Z"), next_slot: Some(at("2026-05-01T13:30:00Z")) }
    );
    // On time, and late by less than a slot.
    for now in ["2026-05-01T10:00:00Z", "2026-05-01T10:00:00.001Z", "2026-05-01T10:14:59.999Z"] {
        let due = schedule.due(at("2026-05-01T10:00:00Z"), at(now));
        assert_eq!(
            due,
            Due { slot_to_run: at("2026-05-01T10:00:00Z"), next_slot: Some(at("2026-05-01T10:15:00Z")) }
        );
    }
    let due = every(60).due(at("2026-05-01T10:00:00Z"), at("2026-05-01T10:30:30Z"));
    assert_eq!(
        due,
        Due { slot_to_run: at("2026-05-01T10:30:00Z"), next_slot: Some(at("2026-05-01T10:31:00Z")) }
    );
}

#[test]
fn a_slot_of_an_earlier_schedule_still_runs_once() {
    // Stored at 10:07 under another schedule; no slot of this one has come since.
    let due = cron("0 12 * * *", chrono_tz::UTC).due(at("2026-05-01T10:07:00Z"), at("2026-05-01T10:20:00Z"));
    assert_eq!(
        due,
        Due { slot_to_run: at("2026-05-01T10:07:00Z"), next_slot: Some(at("2026-05-01T12:00:00Z")) }
    );
}

#[test]
fn a_year_of_downtime_costs_no_more_than_a_minute() {
    let (slot, now) = (at("2025-05-01T10:00:00Z"), at("2026-05-01T10:00:30Z"));
    for schedule in [cron("* * * * *", New_York), cron("* * * * * *", New_York), every(1), every(60)] {
        let started = Instant::now();
        let due = schedule.due(slot, now);
        let took = started.elapsed();
        assert!(due.slot_to_run <= now && now - due.slot_to_run < TimeDelta::seconds(60), "{schedule:?}");
        assert!(due.next_slot.is_some_and(|next| next > now));
        assert!(took < Duration::from_millis(250), "{schedule:?} took {took:?}");
    }
}

#[test]
fn five_hundred_systems_with_one_cron_spread_over_their_window() {
    let schedule = cron("0 3 * * *", Shanghai);
    let (slot, max) = (at("2026-05-01T19:00:00Z"), Duration::from_mins(5));
    // Ids as the service makes them: one after the other, within one second.
    let systems: Vec<SystemId> = (0_u64..500)
        .map(|number| {
            let mut random = [0; 10];
            random[..8].copy_from_slice(&number.to_be_bytes());
            SystemId(
                uuid::Builder::from_unix_timestamp_millis(1_780_000_000_000 + number, &random).into_uuid(),
            )
        })
        .collect();
    let mut tenths = [0; 10];
    for system in &systems {
        let jitter = schedule.jitter(*system, slot, max);
        assert!(jitter < max);
        assert_eq!(jitter, schedule.jitter(*system, slot, max), "the same every time");
        assert_eq!(jitter, schedule.jitter(*system, slot + TimeDelta::days(1), max), "the same every day");
        tenths[usize::try_from(jitter.as_millis() * 10 / max.as_millis()).unwrap()] += 1;
    }
    // 50 in each on average; 25 is more than three and a half deviations away.
    assert!(tenths.iter().all(|count| (25..=80).contains(count)), "{tenths:?}");
}

#[test]
fn jitter_ends_at_half_the_way_to_the_next_slot() {
    let slot = at("2026-05-01T10:00:00Z");
    let longest = (0..200_u128)
        .map(|number| every(60).jitter(SystemId(Uuid::from_u128(number)), slot, Duration::from_mins(5)))
        .max();
    assert!(longest.is_some_and(|longest| (25_000..30_000).contains(&longest.as_millis())), "{longest:?}");
    assert_eq!(every(60).jitter(SystemId(Uuid::from_u128(1)), slot, Duration::ZERO), Duration::ZERO);
}

#[test]
fn refusals_say_what_to_write_instead() {
    let refused = |interval, cron, zone| Schedule::parse(interval, cron, zone).unwrap_err().to_string();
    let cron = |text| refused(None, Some(text), "Asia/Shanghai");
    let cases = [
        (refused(Some(60), Some("0 3 * * *"), "UTC"), "leave one of them out"),
        (refused(None, None, "UTC"), "`sync_interval` in seconds, for example `900`"),
        (refused(Some(0), None, "UTC"), "`0` is not an interval; write whole seconds"),
        (refused(Some(-5), None, "UTC"), "`-5` is not an interval"),
        (refused(Some(i64::MAX), None, "UTC"), "is not an interval"),
        (
            refused(None, Some("0 3 * * *"), "Asia/Peking"),
            "`Asia/Peking` is not an IANA time zone; write a name such as `Asia/Shanghai`",
        ),
        (refused(Some(60), None, "UTC+8"), "`UTC+8` is not an IANA time zone"),
        (refused(None, Some("0 3 * * *"), ""), "`` is not an IANA time zone"),
        (cron("* * *"), "`* * *` has 3 fields; write 5"),
        (cron("0 0 3 * * * 2027"), "has 7 fields"),
        (cron(""), "has 0 fields"),
        (cron("@daily"), "write the fields instead, for example `0 0 * * *`"),
        (cron(" @hourly"), "for example `0 * * * *`"),
        (
            cron("0 9 * * 1"),
            "`1` gives weekdays as numbers, and `1` is Monday to some and Sunday to others; write names",
        ),
        (cron("0 9 * * MON-5"), "`MON-5` gives weekdays as numbers"),
        (cron("0 9 * * */2"), "`*/2` gives weekdays as numbers"),
        (cron("0 9 1 * MON"), "write `*` for one of them"),
        (cron("0 0 30 2 *"), "never comes"),
        (cron("0 0 31 4,6 *"), "never comes"),
        (
            cron("61 * * * *"),
            "`61 * * * *` is not a cron expression (minutes must be at most 59 ('61' specified)); write for example",
        ),
        (cron("0 0 * FEBR *"), "is not a cron expression ('FEBR' is not a valid month name); write"),
        (cron("0 ,, * * *"), "is not a cron expression (a field cannot be read); write"),
        (cron("0 9 * * FRI-MON"), "is not a cron expression (invalid named range for Days of Week: FRI-MON)"),
        (cron("*/0 * * * *"), "is not a cron expression"),
        (cron(&"1,".repeat(2_000)), "longer than 256 characters"),
    ];
    for (said, expected) in cases {
        assert!(said.contains(expected), "expected `{expected}` in: {said}");
        assert!(!said.ends_with('.') && !said.contains('\n'), "{said}");
        assert!(said.contains("write") || said.contains("leave one"), "{said}");
    }
}

#[test]
fn weekdays_by_name_mean_these_days() {
    assert_eq!(
        local("0 9 * * mon,WED-FRI", Shanghai, "2026-05-03T00:00:00Z", 5),
        [
            "05-04 09:00 +0800",
            "05-06 09:00 +0800",
            "05-07 09:00 +0800",
            "05-08 09:00 +0800",
            "05-11 09:00 +0800"
        ]
    );
}

proptest! {
    #[test]
    fn reading_an_expression_never_panics(text in "[-0-9*/,?@A-Za-z ]{0,40}") {
        let _ = Schedule::parse(None, Some(&text), "Europe/London");
    }

    /// Between a moment and its next slot there is nothing, from wherever one asks.
    #[test]
    fn the_next_slot_does_not_depend_on_where_the_search_begins(
        expression in prop::sample::select(&EXPRESSIONS[..]),
        zone in prop::sample::select(vec![New_York, London, Lord_Howe, Sao_Paulo]),
        start_secs in 1_500_000_000_i64..1_800_000_000,
        share in 0_i64..1_000,
    ) {
        let schedule = cron(expression, zone);
        let start = DateTime::from_timestamp(start_secs, 0).unwrap();
        let next = schedule.next_slot(start).unwrap();
        let between = start + (next - start) * i32::try_from(share).unwrap() / 1_000;
        prop_assert_eq!(schedule.next_slot(between), Some(next));
    }

    #[test]
    fn catching_up_finds_what_stepping_finds(
        expression in prop::sample::select(&EXPRESSIONS[..]),
        zone in prop::sample::select(vec![New_York, London, Lord_Howe, chrono_tz::UTC]),
        start_secs in 1_700_000_000_i64..1_800_000_000,
        late_secs in 0_i64..400_000,
    ) {
        let schedule = cron(expression, zone);
        let slot = schedule.next_slot(DateTime::from_timestamp(start_secs, 0).unwrap()).unwrap();
        let now = slot + TimeDelta::seconds(late_secs);
        let stepped = std::iter::successors(Some(slot), |slot| schedule.next_slot(*slot))
            .take_while(|slot| *slot <= now)
            .last()
            .unwrap();
        let due = schedule.due(slot, now);
        prop_assert_eq!(due.slot_to_run, stepped);
        prop_assert_eq!(due.next_slot, schedule.next_slot(now));
    }
}
