//! How systems are, and when they are due: health with its reasons, and schedules as they will fire.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;
use zhilian_sync_jobs::Context;
use zhilian_sync_jobs::health::{self, Level, Signs};
use zhilian_sync_jobs::schedule::{BadSchedule, Schedule};
use zhilian_sync_store::external_systems::{self, COUNTED_MAX, ExternalSystem, Filter};
use zhilian_sync_store::{SyncStatus, SystemId, SystemStatus, money};

use super::super::Tag;
use super::super::answer::{Answer, Found};
use super::super::body::{Body, request_body};
use super::super::caller::Caller;
use super::super::page::{Page, Wanted};
use super::super::problem::Problem;
use super::super::values::{Choice, Money, Text, Time, Whole};
use super::change::Interval;
use super::visible;
use crate::app::App;

/// How many times of a schedule are shown.
const TIMES_SHOWN: usize = 10;
/// The zone of a schedule that names none, as of a new system.
const ZONE_DEFAULT: &str = "Asia/Shanghai";
/// The largest page of health: each row is counted anew.
type HealthLimit = Whole<1, 100>;

/// The operations of this file.
pub struct Watch(pub App);

request_body! {
    /// A schedule to be tried out: an interval or a cron expression.
    refuses_unknown pub struct ScheduleRequest {
        /// Seconds between two runs.
        sync_interval: Option<Interval>,
        /// Five fields, or six with seconds; weekdays by name.
        sync_cron: Option<Text<256>>,
        /// The IANA zone of its times; `Asia/Shanghai` where absent.
        timezone: Option<Text<64>>,
    }
}

/// A schedule and the next times that it names.
#[derive(Debug, Object)]
#[oai(rename = "Schedule")]
pub struct ScheduleAnswer {
    /// Seconds between two runs.
    pub sync_interval: Option<i64>,
    /// A cron expression instead.
    pub sync_cron: Option<String>,
    /// The IANA zone of its times.
    pub timezone: String,
    /// Whether runs are made by it: false for a system that is paused, inactive or not to be synchronised.
    pub enabled: bool,
    /// When the next run is made: its slot and the system's jitter.
    pub next_sync_at: Option<Time>,
    /// How much later than its time the next run begins, always alike for a system, so that not all fire at once.
    pub jitter_seconds: Option<Money>,
    /// The next ten.
    pub times: Vec<SlotAnswer>,
}

/// One time of a schedule.
#[derive(Debug, Object)]
#[oai(rename = "ScheduleTime")]
pub struct SlotAnswer {
    /// In the schedule's zone, with the offset that holds then.
    pub local: String,
    /// In UTC.
    pub utc: Time,
}

/// How a system is.
#[derive(Debug, Object)]
#[oai(rename = "SystemHealth")]
pub struct HealthAnswer {
    /// The system.
    pub system_id: String,
    /// Its name.
    pub name: String,
    /// From 0 to 100.
    pub score: i64,
    /// `healthy`, `degraded`, `failing`, `paused` or `unknown`.
    pub level: Choice<Level>,
    /// Why, the worst first.
    pub reasons: Vec<String>,
    /// Its status.
    pub status: Choice<SystemStatus>,
    /// When a run last ended well, among the newest thousand.
    pub last_success_at: Option<Time>,
    /// When a run last ended, well or not.
    pub last_run_at: Option<Time>,
    /// How it ended.
    pub last_run_status: Option<Choice<SyncStatus>>,
    /// What the last failed run said; null after a success.
    pub last_error: Option<String>,
    /// Failed runs since the last success.
    pub consecutive_failures: i64,
    /// Runs that ended in the last 24 hours, among the newest thousand.
    pub runs_24h: i64,
    /// Those of them that failed.
    pub failed_24h: i64,
    /// The share of them that failed, with three decimals; null where none ended.
    pub failure_rate_24h: Option<Money>,
    /// The age of the last success.
    pub freshness_seconds: Option<i64>,
    /// Runs that wait or are under way.
    pub pending_runs: i64,
    /// Webhook events to be applied; no figure of health is counted further than a thousand.
    pub pending_events: i64,
    /// Webhook events that were given up.
    pub dead_events: i64,
    /// Webhook events that could not be verified.
    pub quarantined_events: i64,
    /// Records that could not be mapped or stored.
    pub open_failures: i64,
    /// Where figures end: one of so much means "or more".
    pub counted_max: i64,
    /// When the next scheduled run is made.
    pub next_sync_at: Option<Time>,
}

#[OpenApi]
impl Watch {
    /// Show when a system is due
    #[oai(
        path = "/integrations/systems/:system_id/schedule",
        method = "get",
        operation_id = "show_schedule",
        tag = "Tag::Systems"
    )]
    async fn show_schedule(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
    ) -> Result<Found<ScheduleAnswer>, Problem> {
        let context = self.0.context();
        let system = visible(context, &caller, system_id.0).await?;
        let schedule =
            Schedule::parse(system.sync_interval, system.sync_cron.as_deref(), &system.timezone).ok();
        let now = context.clock().now();
        let jitter = schedule.as_ref().zip(system.next_slot_at).map(|(schedule, slot)| {
            let most = std::time::Duration::from_secs(context.engine.jitter_max_secs);
            let millis = schedule.jitter(system.id, slot, most).as_millis();
            Money(money::json_number(i64::try_from(millis).unwrap_or(i64::MAX), 3))
        });
        Ok(Answer(ScheduleAnswer {
            enabled: system.is_scheduled() && schedule.is_some(),
            next_sync_at: system.next_sync_at.map(Time),
            jitter_seconds: jitter,
            times: times_of(schedule.as_ref(), &system.timezone, now),
            sync_interval: system.sync_interval,
            sync_cron: system.sync_cron,
            timezone: system.timezone,
        }))
    }

    /// Try out a schedule
    ///
    /// Nothing is changed. Where clocks are put forward, a time that is left out comes right after the gap;
    /// where they are put back, a time that comes twice is the first of the two.
    #[oai(
        path = "/integrations/schedules/preview",
        method = "post",
        operation_id = "preview_schedule",
        tag = "Tag::Systems"
    )]
    #[expect(clippy::unused_async, reason = "the framework awaits every handler")]
    async fn preview_schedule(
        &self,
        _caller: Caller,
        body: Body<ScheduleRequest>,
    ) -> Result<Found<ScheduleAnswer>, Problem> {
        let ScheduleRequest { sync_interval, sync_cron, timezone } = body.value;
        let (interval, cron) = (sync_interval.map(|whole| whole.0), sync_cron.map(|text| text.0));
        let zone = timezone.map_or_else(|| ZONE_DEFAULT.to_owned(), |text| text.0);
        let schedule = Schedule::parse(interval, cron.as_deref(), &zone)
            .map_err(|bad| Problem::invalid_field(field_of(&bad), bad.to_string()))?;
        Ok(Answer(ScheduleAnswer {
            times: times_of(Some(&schedule), &zone, self.0.context().clock().now()),
            sync_interval: interval,
            sync_cron: cron,
            timezone: zone,
            enabled: false,
            next_sync_at: None,
            jitter_seconds: None,
        }))
    }

    /// Show how a system is
    #[oai(
        path = "/integrations/systems/:system_id/health",
        method = "get",
        operation_id = "show_system_health",
        tag = "Tag::Systems"
    )]
    async fn show_system_health(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
    ) -> Result<Found<HealthAnswer>, Problem> {
        let context = self.0.context();
        let system = visible(context, &caller, system_id.0).await?;
        Ok(Answer(health_of(context, system).await?))
    }

    /// List how systems are
    #[oai(
        path = "/integrations/health",
        method = "get",
        operation_id = "list_system_health",
        tag = "Tag::Systems"
    )]
    async fn list_system_health(
        &self,
        caller: Caller,
        limit: Query<Option<HealthLimit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<HealthAnswer>, Problem> {
        let context = self.0.context();
        let mut wanted = Wanted::new(None, cursor.0.as_deref())?;
        wanted.limit = limit.0.map_or(wanted.limit, |limit| limit.0);
        let filter = Filter {
            scope: caller.scope(),
            after: wanted.after.map(|(at, id)| (at, SystemId(id))),
            limit: wanted.rows(),
            ..Filter::default()
        };
        let systems = external_systems::list(&context.store, &filter).await?;
        let mut rows = Vec::with_capacity(systems.len());
        for system in systems {
            let position = (system.created_at, system.id.0);
            rows.push((position, health_of(context, system).await?));
        }
        Ok(Page::new(rows, wanted, &caller.origin.uri, |row| row.0, |row| row.1))
    }
}

/// Which field of a body a bad schedule is in.
fn field_of(bad: &BadSchedule) -> &'static str {
    match bad {
        BadSchedule::Interval(_) | BadSchedule::Missing => "sync_interval",
        BadSchedule::Zone(_) => "timezone",
        _ => "sync_cron",
    }
}

fn times_of(schedule: Option<&Schedule>, zone: &str, now: DateTime<Utc>) -> Vec<SlotAnswer> {
    let zone: Tz = zone.parse().unwrap_or(Tz::UTC);
    let slots = schedule.map(|schedule| schedule.preview(now, TIMES_SHOWN)).unwrap_or_default();
    let shown = slots.into_iter().map(|slot| SlotAnswer {
        local: slot.with_timezone(&zone).to_rfc3339_opts(chrono::SecondsFormat::Secs, false),
        utc: slot.into(),
    });
    shown.collect()
}

async fn health_of(context: &Context, system: ExternalSystem) -> Result<HealthAnswer, Problem> {
    let now = context.clock().now();
    let figures = external_systems::figures(&context.store, system.id, now - health::WINDOW).await?;
    let signs = Signs::of(&system, figures, now);
    let judged = health::judge(&signs, now);
    let (runs, backlog) = (signs.figures.runs, signs.figures.backlog);
    let rate = runs.failed.saturating_mul(1000).checked_div(runs.ended);
    let age = |at: DateTime<Utc>| (now - at).max(TimeDelta::zero()).num_seconds();
    Ok(HealthAnswer {
        system_id: system.id.to_string(),
        name: system.name,
        score: judged.score,
        level: Choice(judged.level),
        reasons: judged.reasons,
        status: Choice(system.status),
        last_success_at: runs.last_success_at.map(Time),
        last_run_at: system.last_sync_at.map(Time),
        last_run_status: system.last_sync_status.map(Choice),
        last_error: system.last_error,
        consecutive_failures: system.consecutive_failures,
        runs_24h: runs.ended,
        failed_24h: runs.failed,
        failure_rate_24h: rate.map(|thousandths| Money(money::json_number(thousandths, 3))),
        freshness_seconds: runs.last_success_at.map(age),
        pending_runs: runs.pending,
        pending_events: backlog.pending_events,
        dead_events: backlog.dead_events,
        quarantined_events: backlog.quarantined_events,
        open_failures: backlog.open_failures,
        counted_max: COUNTED_MAX,
        next_sync_at: system.next_sync_at.map(Time),
    })
}
