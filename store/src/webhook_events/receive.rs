//! Receipt: many events, one statement, and an answer for each.
//!
//! The statement itself checks that every event's system is there in the version that the event was
//! verified with, so a changed or revoked secret counts at once in every process. What it does not
//! insert was received before, or is stale.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{AcceptedBy, WebhookState, shortened};
use crate::error::StoreError;
use crate::ids::{EventId, SystemId};
use crate::on_tx;
use crate::pool::{Held, Pool, Store, Tx};
use crate::record_batches::clean;

/// An event that is about to be kept.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Its id, made at its receipt.
    pub id: EventId,
    /// Whose.
    pub system_id: SystemId,
    /// The version of the system that it was verified with, or failed to be.
    pub system_version: i64,
    /// The vendor's id of the event, or [`key_of_body`](super::key_of_body).
    pub event_key: String,
    /// What happened, in the vendor's words.
    pub event_type: Option<String>,
    /// Why it may be applied; `None` puts it into quarantine.
    pub accepted_by: Option<AcceptedBy>,
    /// Why it is quarantined: a stable code, and words for people.
    pub error: Option<(&'static str, String)>,
    /// The raw body.
    pub body: Vec<u8>,
    /// What else verifying and routing need (JSON).
    pub request: String,
    /// The parts of the same that bear a secret, sealed.
    pub sealed_request: Option<Vec<u8>>,
    /// When.
    pub received_at: DateTime<Utc>,
    /// See [`fingerprint`](super::fingerprint).
    pub fingerprint: Vec<u8>,
}

impl NewEvent {
    const fn state(&self) -> WebhookState {
        if self.accepted_by.is_some() { WebhookState::Pending } else { WebhookState::Quarantined }
    }

    fn body_bytes(&self) -> i64 {
        i64::try_from(self.body.len()).unwrap_or(i64::MAX)
    }

    fn error_code(&self) -> Option<&'static str> {
        self.error.as_ref().map(|(code, _)| *code)
    }

    fn error_message(&self) -> Option<String> {
        self.error.as_ref().map(|(_, message)| shortened(message))
    }
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It has a row of its own.
    New,
    /// It was received before, and is counted on the row of the first delivery.
    Duplicate {
        /// That row.
        event: EventId,
        /// Its state after this.
        state: WebhookState,
        /// Whether this woke it: it was dead.
        woken: bool,
    },
    /// Its system was changed or deleted since it was verified, or never existed: read it again.
    Stale,
}

/// Deliveries of one event within a batch: one row, however many they are.
struct Group<'a> {
    first: &'a NewEvent,
    deliveries: i64,
    last_received_at: DateTime<Utc>,
}

impl Group<'_> {
    fn repetition(&self) -> Repetition {
        Repetition {
            fingerprint: self.first.fingerprint.clone(),
            system_version: self.first.system_version,
            deliveries: self.deliveries,
            last_received_at: self.last_received_at,
        }
    }
}

/// A row that was there before.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Repeated {
    pub(super) id: EventId,
    pub(super) fingerprint: Vec<u8>,
    pub(super) state: WebhookState,
    pub(super) woken: bool,
}

/// What a batch of deliveries came to.
#[derive(Debug)]
pub struct Receipt {
    /// What became of each, in the order given.
    pub received: Vec<Received>,
    /// To be given to [`count_repeated`] once the callers are answered.
    pub uncounted: Uncounted,
}

/// Deliveries of events that have a row, and are not counted on it yet.
#[derive(Debug, Default)]
pub struct Uncounted(Vec<Repetition>);

#[derive(Debug)]
struct Repetition {
    fingerprint: Vec<u8>,
    system_version: i64,
    deliveries: i64,
    last_received_at: DateTime<Utc>,
}

impl Uncounted {
    /// Whether there is nothing to be counted.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many events it is about.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes another in; an event that both are about is one.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.sort_by(|a, b| (&a.fingerprint, a.system_version).cmp(&(&b.fingerprint, b.system_version)));
        self.0.dedup_by(|later, first| {
            let same =
                (&later.fingerprint, later.system_version) == (&first.fingerprint, first.system_version);
            if same {
                first.deliveries += later.deliveries;
                first.last_received_at = first.last_received_at.max(later.last_received_at);
            }
            same
        });
    }
}

/// Keeps a batch of deliveries, all or none.
///
/// Nobody is waited for who works on an event: repetitions are looked up without a lock, and counted by
/// [`count_repeated`] when their callers have their answer. Only what is dead, and locked by nobody for long, is
/// woken before that, because it is a promise.
///
/// [`StoreError::Refused`] means that the database does not take one of them: the caller halves the batch
/// until the culprit stands alone.
pub async fn insert_batch(store: &Store, events: &[NewEvent]) -> Result<Receipt, StoreError> {
    let groups = group(events);
    if groups.is_empty() {
        return Ok(Receipt { received: Vec::new(), uncounted: Uncounted::default() });
    }
    let rows: Vec<&Group<'_>> = groups.values().collect();
    let (new, repeated, uncounted) = match store.pool() {
        Pool::Postgres(pool) => {
            let mut held = Held::of(pool).await?;
            let kept = keep_postgres(held.connection(), &rows).await;
            held.release();
            kept?
        }
        // Statements cost no way to a server; what costs is the transaction around them.
        Pool::Sqlite { .. } => {
            let (new, repeated) = insert_sqlite(store, &rows).await?;
            (new, repeated, Uncounted::default())
        }
    };
    let repeated: HashMap<&[u8], &Repeated> =
        repeated.iter().map(|row| (row.fingerprint.as_slice(), row)).collect();
    let mut told = HashSet::new();
    let received = events
        .iter()
        .map(|event| {
            let Some(group) = groups.get(event.fingerprint.as_slice()) else { return Received::Stale };
            if event.system_version != group.first.system_version {
                return Received::Stale;
            }
            if new.contains(&group.first.id) {
                let event = group.first;
                return if told.insert(event.id) {
                    Received::New
                } else {
                    Received::Duplicate { event: event.id, state: event.state(), woken: false }
                };
            }
            repeated.get(event.fingerprint.as_slice()).map_or(Received::Stale, |row| Received::Duplicate {
                event: row.id,
                state: row.state,
                woken: row.woken && told.insert(row.id),
            })
        })
        .collect();
    Ok(Receipt { received, uncounted })
}

/// The statements of one batch; each is a transaction of its own, so no lock outlives its statement.
async fn keep_postgres(
    connection: &mut PgConnection,
    rows: &[&Group<'_>],
) -> Result<(HashSet<EventId>, Vec<Repeated>, Uncounted), StoreError> {
    let new = match insert_postgres(connection, rows).await {
        // A known event's row is held by whoever works on it, and a conflict with it waits. So it is left out.
        Err(error) if error.is_lock_timeout() => {
            let known =
                find_repeated(connection, &rows.iter().map(|row| row.repetition()).collect::<Vec<_>>())
                    .await?;
            let known: HashSet<&[u8]> = known.iter().map(|row| row.fingerprint.as_slice()).collect();
            let unknown: Vec<&Group<'_>> = rows
                .iter()
                .copied()
                .filter(|row| !known.contains(row.first.fingerprint.as_slice()))
                .collect();
            insert_postgres(connection, &unknown).await?
        }
        inserted => inserted?,
    };
    let rest: Vec<Repetition> =
        rows.iter().filter(|row| !new.contains(&row.first.id)).map(|row| row.repetition()).collect();
    if rest.is_empty() {
        return Ok((new, Vec::new(), Uncounted::default()));
    }
    let mut repeated = find_repeated(connection, &rest).await?;
    let dead: HashSet<Vec<u8>> =
        repeated.iter().filter(|row| row.woken).map(|row| row.fingerprint.clone()).collect();
    let (to_wake, uncounted): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|row| dead.contains(&row.fingerprint));
    if !to_wake.is_empty() {
        repeated.retain(|row| !row.woken);
        repeated.extend(repeat_postgres(connection, &to_wake).await?);
    }
    Ok((new, repeated, Uncounted(uncounted)))
}

/// Counts deliveries on the rows of their events, waiting for whoever works on these. One that has died meanwhile
/// is woken; whether there was one.
pub async fn count_repeated(store: &Store, uncounted: Uncounted) -> Result<bool, StoreError> {
    // SQLite has counted them when it kept the batch.
    let Pool::Postgres(pool) = store.pool() else { return Ok(false) };
    if uncounted.is_empty() {
        return Ok(false);
    }
    let mut held = Held::of(pool).await?;
    let counted = repeat_postgres(held.connection(), &uncounted.0).await;
    held.release();
    Ok(counted?.iter().any(|row| row.woken))
}

/// The deliveries by fingerprint, in its order: two batches that wait for each other's rows never do so
/// in a circle. Of an event that was verified with two versions only the later can still hold.
fn group(events: &[NewEvent]) -> BTreeMap<&[u8], Group<'_>> {
    let mut groups: BTreeMap<&[u8], Group<'_>> = BTreeMap::new();
    for event in events {
        let alone = Group { first: event, deliveries: 1, last_received_at: event.received_at };
        match groups.entry(event.fingerprint.as_slice()) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(alone);
            }
            std::collections::btree_map::Entry::Occupied(mut place) => {
                let group = place.get_mut();
                match event.system_version.cmp(&group.first.system_version) {
                    std::cmp::Ordering::Less => {}
                    std::cmp::Ordering::Equal => {
                        group.deliveries += 1;
                        group.last_received_at = group.last_received_at.max(event.received_at);
                    }
                    std::cmp::Ordering::Greater => *group = alone,
                }
            }
        }
    }
    groups
}

const INSERT_POSTGRES: &str = "INSERT INTO webhook_events (id, system_id, fingerprint, event_key, event_type, state, \
    accepted_by, error_code, error_message, attempt, claim_no, run_at, forced, deliveries, body, body_bytes, request, \
    sealed_request, received_at, last_received_at) \
    SELECT given.id, given.system_id, given.fingerprint, given.event_key, given.event_type, given.state, \
    given.accepted_by, given.error_code, given.error_message, 0, 0, given.received_at, FALSE, given.deliveries, \
    given.body, given.body_bytes, given.request, given.sealed_request, given.received_at, given.last_received_at \
    FROM UNNEST(CAST($1 AS UUID[]), CAST($2 AS UUID[]), CAST($3 AS BIGINT[]), CAST($4 AS BYTEA[]), CAST($5 AS TEXT[]), \
    CAST($6 AS TEXT[]), CAST($7 AS TEXT[]), CAST($8 AS TEXT[]), CAST($9 AS TEXT[]), CAST($10 AS TEXT[]), \
    CAST($11 AS BIGINT[]), CAST($12 AS BYTEA[]), CAST($13 AS BIGINT[]), CAST($14 AS TEXT[]), CAST($15 AS BYTEA[]), \
    CAST($16 AS TIMESTAMPTZ[]), CAST($17 AS TIMESTAMPTZ[])) \
    AS given (id, system_id, system_version, fingerprint, event_key, event_type, state, accepted_by, error_code, \
    error_message, deliveries, body, body_bytes, request, sealed_request, received_at, last_received_at) \
    JOIN external_systems ON external_systems.id = given.system_id \
    AND external_systems.version = given.system_version AND external_systems.deleted_at IS NULL \
    ORDER BY given.fingerprint ON CONFLICT (fingerprint) DO NOTHING RETURNING id";

/// The ids of those that are new.
async fn insert_postgres(
    connection: &mut PgConnection,
    rows: &[&Group<'_>],
) -> Result<HashSet<EventId>, StoreError> {
    let firsts = || rows.iter().map(|row| row.first);
    let ids: Vec<EventId> = sqlx::query_scalar(INSERT_POSTGRES)
        .bind(firsts().map(|event| event.id.0).collect::<Vec<_>>())
        .bind(firsts().map(|event| event.system_id.0).collect::<Vec<_>>())
        .bind(firsts().map(|event| event.system_version).collect::<Vec<_>>())
        .bind(firsts().map(|event| event.fingerprint.as_slice()).collect::<Vec<_>>())
        .bind(firsts().map(|event| clean(event.event_key.clone())).collect::<Vec<_>>())
        .bind(firsts().map(|event| event.event_type.clone().map(clean)).collect::<Vec<_>>())
        .bind(firsts().map(|event| event.state().as_str()).collect::<Vec<_>>())
        .bind(firsts().map(|event| event.accepted_by.map(AcceptedBy::as_str)).collect::<Vec<_>>())
        .bind(firsts().map(NewEvent::error_code).collect::<Vec<_>>())
        .bind(firsts().map(NewEvent::error_message).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.deliveries).collect::<Vec<_>>())
        .bind(firsts().map(|event| event.body.as_slice()).collect::<Vec<_>>())
        .bind(firsts().map(NewEvent::body_bytes).collect::<Vec<_>>())
        .bind(firsts().map(|event| clean(event.request.clone())).collect::<Vec<_>>())
        .bind(firsts().map(|event| event.sealed_request.as_deref()).collect::<Vec<_>>())
        .bind(firsts().map(|event| event.received_at).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.last_received_at).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    Ok(ids.into_iter().collect())
}

// What counting a delivery does to a row; `$2` deliveries, `$3` the time of the last. A dead one is woken.
macro_rules! repeated {
    ($deliveries:literal, $at:literal) => {
        concat!(
            "deliveries = webhook_events.deliveries + ",
            $deliveries,
            ", last_received_at = CASE WHEN webhook_events.last_received_at < ",
            $at,
            " THEN ",
            $at,
            " ELSE webhook_events.last_received_at END, ",
            "attempt = CASE WHEN webhook_events.state = 'dead' THEN 0 ELSE webhook_events.attempt END, ",
            "run_at = CASE WHEN webhook_events.state = 'dead' THEN ",
            $at,
            " ELSE webhook_events.run_at END, ",
            "error_code = CASE WHEN webhook_events.state = 'dead' THEN NULL ELSE webhook_events.error_code END, ",
            "error_message = CASE WHEN webhook_events.state = 'dead' THEN NULL ELSE webhook_events.error_message END, ",
            "ended_at = CASE WHEN webhook_events.state = 'dead' THEN NULL ELSE webhook_events.ended_at END, ",
            "forced = CASE WHEN webhook_events.state = 'dead' THEN FALSE ELSE webhook_events.forced END, ",
            "state = CASE WHEN webhook_events.state = 'dead' THEN 'pending' ELSE webhook_events.state END "
        )
    };
}

// The rows are locked in the order of their ids first; the version is checked here too: a revoked secret
// wakes nothing.
const REPEAT_POSTGRES: &str = concat!(
    "WITH found AS (SELECT webhook_events.id, webhook_events.state, given.deliveries, given.last_received_at \
     FROM UNNEST(CAST($1 AS BYTEA[]), CAST($2 AS BIGINT[]), CAST($3 AS TIMESTAMPTZ[]), CAST($4 AS BIGINT[])) \
     AS given (fingerprint, deliveries, last_received_at, system_version) \
     JOIN webhook_events ON webhook_events.fingerprint = given.fingerprint \
     JOIN external_systems ON external_systems.id = webhook_events.system_id \
     AND external_systems.version = given.system_version AND external_systems.deleted_at IS NULL \
     ORDER BY webhook_events.id FOR UPDATE OF webhook_events) UPDATE webhook_events SET ",
    repeated!("found.deliveries", "found.last_received_at"),
    "FROM found WHERE webhook_events.id = found.id \
     RETURNING webhook_events.id, webhook_events.fingerprint, webhook_events.state, found.state = 'dead' AS woken"
);

async fn repeat_postgres(
    connection: &mut PgConnection,
    rows: &[Repetition],
) -> Result<Vec<Repeated>, StoreError> {
    Ok(sqlx::query_as(REPEAT_POSTGRES)
        .bind(rows.iter().map(|row| row.fingerprint.as_slice()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.deliveries).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.last_received_at).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.system_version).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?)
}

async fn find_repeated(
    connection: &mut PgConnection,
    rows: &[Repetition],
) -> Result<Vec<Repeated>, StoreError> {
    Ok(sqlx::query_as(FIND_REPEATED_MANY)
        .bind(rows.iter().map(|row| row.fingerprint.as_slice()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.system_version).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?)
}

const FIND_REPEATED_MANY: &str = "SELECT webhook_events.id, webhook_events.fingerprint, webhook_events.state, \
    webhook_events.state = 'dead' AS woken \
    FROM UNNEST(CAST($1 AS BYTEA[]), CAST($2 AS BIGINT[])) AS given (fingerprint, system_version) \
    JOIN webhook_events ON webhook_events.fingerprint = given.fingerprint \
    JOIN external_systems ON external_systems.id = webhook_events.system_id \
    AND external_systems.version = given.system_version AND external_systems.deleted_at IS NULL";

pub(crate) const INSERT_ONE: &str = "INSERT INTO webhook_events (id, system_id, fingerprint, event_key, event_type, \
    state, accepted_by, error_code, error_message, attempt, claim_no, run_at, forced, deliveries, body, body_bytes, \
    request, sealed_request, received_at, last_received_at) \
    SELECT $1, id, $4, $5, $6, $7, $8, $9, $10, 0, 0, $16, FALSE, $11, $12, $13, $14, $15, $16, $17 \
    FROM external_systems WHERE id = $2 AND version = $3 AND deleted_at IS NULL \
    ON CONFLICT (fingerprint) DO NOTHING";

pub(crate) const FIND_REPEATED: &str = "SELECT webhook_events.id, webhook_events.fingerprint, webhook_events.state, \
    webhook_events.state = 'dead' AS woken FROM webhook_events \
    JOIN external_systems ON external_systems.id = webhook_events.system_id \
    WHERE webhook_events.fingerprint = $1 AND external_systems.version = $2 AND external_systems.deleted_at IS NULL";

pub(crate) const REPEAT_ONE: &str =
    concat!("UPDATE webhook_events SET ", repeated!("$2", "$3"), "WHERE id = $1");

async fn insert_sqlite(
    store: &Store,
    rows: &[&Group<'_>],
) -> Result<(HashSet<EventId>, Vec<Repeated>), StoreError> {
    let mut new = HashSet::new();
    let mut repeated = Vec::new();
    let mut tx = store.begin().await?;
    for row in rows {
        let event = row.first;
        let inserted = on_tx!(&mut tx, |ex| sqlx::query(INSERT_ONE)
            .bind(event.id)
            .bind(event.system_id)
            .bind(event.system_version)
            .bind(event.fingerprint.as_slice())
            .bind(clean(event.event_key.clone()))
            .bind(event.event_type.clone().map(clean))
            .bind(event.state())
            .bind(event.accepted_by)
            .bind(event.error_code())
            .bind(event.error_message())
            .bind(row.deliveries)
            .bind(event.body.as_slice())
            .bind(event.body_bytes())
            .bind(clean(event.request.clone()))
            .bind(event.sealed_request.as_deref())
            .bind(event.received_at)
            .bind(row.last_received_at)
            .execute(ex)
            .await
            .map(|done| done.rows_affected()))?;
        if inserted == 1 {
            new.insert(event.id);
            continue;
        }
        let found: Option<Repeated> = on_tx!(&mut tx, |ex| sqlx::query_as(FIND_REPEATED)
            .bind(event.fingerprint.as_slice())
            .bind(event.system_version)
            .fetch_optional(ex)
            .await)?;
        if let Some(found) = found {
            repeated.push(count_up(&mut tx, found, row.deliveries, row.last_received_at).await?);
        }
    }
    tx.commit().await?;
    Ok((new, repeated))
}

/// Counts deliveries on a row that this transaction has read.
pub(super) async fn count_up(
    tx: &mut Tx,
    found: Repeated,
    deliveries: i64,
    at: DateTime<Utc>,
) -> Result<Repeated, StoreError> {
    on_tx!(tx, |ex| sqlx::query(REPEAT_ONE)
        .bind(found.id)
        .bind(deliveries)
        .bind(at)
        .execute(ex)
        .await
        .map(drop))?;
    let state = if found.woken { WebhookState::Pending } else { found.state };
    Ok(Repeated { state, ..found })
}
