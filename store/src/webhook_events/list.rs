//! Pages of events for people, newest first; the bodies stay where they are.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::{AcceptedBy, EventResult, WebhookState};
use crate::error::StoreError;
use crate::ids::{EventId, RunId, SystemId};
use crate::on_read;
use crate::pool::Store;
use crate::text_enum::SystemType;

/// The most events that one list holds: a page of 500, and the one more that tells whether there is a
/// next page.
pub const PAGE_MAX: i64 = 501;

/// The most events that a [`tally`] looks at.
const TALLY_EVENTS_MAX: i64 = 1_000_000;

/// Which events are meant.
#[derive(Debug, Clone, Default)]
pub struct EventFilter<'a> {
    /// What the caller may see: events of systems of this store; `None` is everything.
    pub scope: Option<&'a str>,
    /// Only events of this system.
    pub system_id: Option<SystemId>,
    /// Only events of systems of this type.
    pub system_type: Option<SystemType>,
    /// Only events in this state.
    pub state: Option<WebhookState>,
    /// Only events that did this.
    pub result: Option<EventResult>,
    /// Only events of this type.
    pub event_type: Option<&'a str>,
    /// Only events with this key.
    pub event_key: Option<&'a str>,
    /// Only events first received at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only events first received before this time.
    pub to: Option<DateTime<Utc>>,
    /// Only events before this one, which was the last of the page before.
    pub before: Option<EventId>,
    /// The most rows.
    pub limit: i64,
}

/// An event without its body and request.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct EventRow {
    /// Its id.
    pub id: EventId,
    /// Whose event.
    pub system_id: SystemId,
    /// The vendor's id of the event, or `sha256:` and the hash of the body.
    pub event_key: String,
    /// What happened, in the vendor's words.
    pub event_type: Option<String>,
    /// Where it stands.
    pub state: WebhookState,
    /// Why it may be applied.
    pub accepted_by: Option<AcceptedBy>,
    /// What it did.
    pub result: Option<EventResult>,
    /// Why it is quarantined, or why its last attempt failed; stable, for programs.
    pub error_code: Option<String>,
    /// The same for people.
    pub error_message: Option<String>,
    /// Attempts spent.
    pub attempt: i64,
    /// Not before this time.
    pub run_at: DateTime<Utc>,
    /// When its worker is taken for dead.
    pub lease_until: Option<DateTime<Utc>>,
    /// Whether it overwrites what is newer.
    pub forced: bool,
    /// How often it was received.
    pub deliveries: i64,
    /// The size of its body.
    pub body_bytes: i64,
    /// The log row it is counted in.
    pub sync_log_id: Option<RunId>,
    /// When it was first received.
    pub received_at: DateTime<Utc>,
    /// When it was last received.
    pub last_received_at: DateTime<Utc>,
    /// When it was applied, found a duplicate, or died.
    pub ended_at: Option<DateTime<Utc>>,
}

/// Adds what a filter asks for to a statement that ends in a condition.
macro_rules! push_filter {
    ($query:expr, $filter:expr) => {{
        let (query, filter): (&mut QueryBuilder<_>, &EventFilter<'_>) = (&mut $query, $filter);
        if let Some(system_id) = filter.system_id {
            query.push(" AND system_id = ").push_bind(system_id);
        }
        if let Some(scope) = filter.scope {
            query
                .push(" AND system_id IN (SELECT id FROM external_systems WHERE store_id = ")
                .push_bind(scope.to_owned())
                .push(")");
        }
        if let Some(system_type) = filter.system_type {
            query
                .push(" AND system_id IN (SELECT id FROM external_systems WHERE type = ")
                .push_bind(system_type)
                .push(")");
        }
        if let Some(state) = filter.state {
            // Written out, with the condition of an index word for word: SQLite sees in no other way that it serves.
            query.push(match state {
                WebhookState::Quarantined => " AND state = 'quarantined' AND state IN ('quarantined', 'dead')",
                WebhookState::Pending => " AND state = 'pending'",
                WebhookState::Applied => " AND state = 'applied'",
                WebhookState::Duplicate => " AND state = 'duplicate'",
                WebhookState::Dead => " AND state = 'dead' AND state IN ('quarantined', 'dead')",
            });
        }
        if let Some(result) = filter.result {
            query.push(" AND result = ").push_bind(result);
        }
        if let Some(event_type) = filter.event_type {
            query.push(" AND event_type = ").push_bind(event_type.to_owned());
        }
        if let Some(event_key) = filter.event_key {
            query.push(" AND event_key = ").push_bind(event_key.to_owned());
        }
        if let Some(from) = filter.from {
            query.push(" AND received_at >= ").push_bind(from);
            query.push(" AND id >= ").push_bind(crate::ids::short_of(from));
        }
        if let Some(to) = filter.to {
            query.push(" AND received_at < ").push_bind(to);
            query.push(" AND id < ").push_bind(crate::ids::beyond(to));
        }
    }};
}
pub(super) use push_filter;

const LIST: &str = "SELECT id, system_id, event_key, event_type, state, accepted_by, result, error_code, \
    error_message, attempt, run_at, lease_until, forced, deliveries, body_bytes, sync_log_id, received_at, \
    last_received_at, ended_at FROM webhook_events WHERE TRUE";

macro_rules! list_body {
    ($filter:expr, $executor:expr) => {{
        let mut query = QueryBuilder::new(LIST);
        push_filter!(query, $filter);
        if let Some(before) = $filter.before {
            query.push(" AND id < ").push_bind(before);
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind($filter.limit.min(PAGE_MAX));
        query.build_query_as::<EventRow>().fetch_all($executor).await
    }};
}

/// A page of events, newest first, at most [`PAGE_MAX`].
pub async fn list(store: &Store, filter: &EventFilter<'_>) -> Result<Vec<EventRow>, StoreError> {
    Ok(on_read!(store, |ex| list_body!(filter, ex))?)
}

macro_rules! count_body {
    ($filter:expr, $executor:expr) => {{
        let mut query = QueryBuilder::new("SELECT COUNT(*) FROM (SELECT id FROM webhook_events WHERE TRUE");
        push_filter!(query, $filter);
        query.push(" LIMIT ").push_bind($filter.limit).push(") AS counted");
        query.build_query_scalar::<i64>().fetch_one($executor).await
    }};
}

/// How many events a filter means, counting no further than its limit.
pub async fn count(store: &Store, filter: &EventFilter<'_>) -> Result<i64, StoreError> {
    Ok(on_read!(store, |ex| count_body!(filter, ex))?)
}

/// How the events of a system stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events in quarantine.
    pub quarantined: u64,
    /// Events to be applied.
    pub pending: u64,
    /// Events that are done.
    pub applied: u64,
    /// Events that left quarantine and had been received properly.
    pub duplicate: u64,
    /// Events that failed for good.
    pub dead: u64,
    /// Deliveries of accepted events beyond the first of each.
    pub repeated: u64,
}

/// How many events are in a state, and how often they were received.
#[derive(sqlx::FromRow)]
struct InState {
    state: WebhookState,
    events: i64,
    deliveries: i64,
}

pub(crate) const TALLY: &str = "SELECT state, COUNT(*) AS events, \
    CAST(COALESCE(SUM(deliveries), 0) AS BIGINT) AS deliveries FROM (SELECT state, deliveries FROM webhook_events \
    WHERE system_id = $1 ORDER BY id DESC LIMIT $2) AS newest GROUP BY state ORDER BY state";

/// How the events of a system stand; the newest million where there are more.
pub async fn tally(store: &Store, system: SystemId) -> Result<Tally, StoreError> {
    let states: Vec<InState> =
        on_read!(store, |ex| sqlx::query_as(TALLY).bind(system).bind(TALLY_EVENTS_MAX).fetch_all(ex).await)?;
    let mut tally = Tally::default();
    for InState { state, events, deliveries } in states {
        let (field, accepted) = match state {
            WebhookState::Quarantined => (&mut tally.quarantined, false),
            WebhookState::Pending => (&mut tally.pending, true),
            WebhookState::Applied => (&mut tally.applied, true),
            WebhookState::Duplicate => (&mut tally.duplicate, false),
            WebhookState::Dead => (&mut tally.dead, true),
        };
        *field = u64::try_from(events).unwrap_or_default();
        if accepted {
            tally.repeated += u64::try_from(deliveries - events).unwrap_or_default();
        }
    }
    Ok(tally)
}
