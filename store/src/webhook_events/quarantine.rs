//! Quarantine: events that could not be verified. They are kept within quotas and never applied, until
//! they are verified after all or an admin releases them.

use chrono::{DateTime, Utc};

use super::receive::{Repeated, count_up};
use super::{AcceptedBy, PAGE_MAX, WebhookEvent, WebhookState, shortened};
use crate::error::StoreError;
use crate::ids::{EventId, SystemId};
use crate::pool::{Store, Tx};
use crate::record_batches::clean;
use crate::{on_read, on_tx};

/// What is counted no further: a quota is smaller.
const USAGE_EVENTS_MAX: i64 = 100_000;

/// How much is in quarantine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Usage {
    /// Events.
    pub events: i64,
    /// The sum of their bodies.
    pub bytes: i64,
}

// The condition of the index is repeated word for word: SQLite sees in no other way that it serves.
pub(crate) const USAGE: &str = "SELECT COUNT(*) AS events, CAST(COALESCE(SUM(body_bytes), 0) AS BIGINT) AS bytes \
    FROM (SELECT body_bytes FROM webhook_events WHERE state = 'quarantined' AND state IN ('quarantined', 'dead') AND system_id = $1 LIMIT $2) AS kept";

/// How much a system has in quarantine, counted up to a hundred thousand events.
pub async fn quarantine_usage(store: &Store, system: SystemId) -> Result<Usage, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(USAGE).bind(system).bind(USAGE_EVENTS_MAX).fetch_one(ex).await)?)
}

pub(crate) const USAGE_TOTAL: &str = "SELECT COUNT(*) AS events, \
    CAST(COALESCE(SUM(body_bytes), 0) AS BIGINT) AS bytes \
    FROM (SELECT body_bytes FROM webhook_events WHERE state = 'quarantined' AND state IN ('quarantined', 'dead') \
    LIMIT $1) AS kept";

/// How much all systems together have in quarantine, counted up to a hundred thousand events.
pub async fn quarantine_usage_total(store: &Store) -> Result<Usage, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(USAGE_TOTAL).bind(USAGE_EVENTS_MAX).fetch_one(ex).await)?)
}

pub(crate) const QUARANTINED_OF: &str = "SELECT * FROM webhook_events \
    WHERE state = 'quarantined' AND state IN ('quarantined', 'dead') AND system_id = $1 AND id > $2 ORDER BY id LIMIT $3";

/// The quarantined events of a system, oldest first, those after `after`, at most [`PAGE_MAX`].
pub async fn quarantined_of(
    store: &Store,
    system: SystemId,
    after: Option<EventId>,
    limit: i64,
) -> Result<Vec<WebhookEvent>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(QUARANTINED_OF)
        .bind(system)
        .bind(after.unwrap_or(EventId(uuid::Uuid::nil())))
        .bind(limit.min(PAGE_MAX))
        .fetch_all(ex)
        .await)?)
}

pub(crate) const NEWEST_QUARANTINED: &str = "SELECT id FROM webhook_events \
    WHERE state = 'quarantined' AND system_id = $1 ORDER BY id DESC LIMIT 1";

/// The newest quarantined event of a system.
pub async fn newest_quarantined(store: &Store, system: SystemId) -> Result<Option<EventId>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_scalar(NEWEST_QUARANTINED).bind(system).fetch_optional(ex).await)?)
}

/// What became of an event that is let out of quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is to be applied.
    Pending,
    /// The same event was received properly: this row is now a duplicate, and counted on the other.
    Duplicate,
    /// It was not in quarantine any more, or never existed.
    NotQuarantined,
}

macro_rules! twins {
    ($lock:literal) => {
        concat!(
            "SELECT id, fingerprint, state, state = 'dead' AS woken FROM webhook_events \
             WHERE id = $1 OR fingerprint = $2 ORDER BY id",
            $lock
        )
    };
}

pub(crate) const TWINS: &str = twins!("");
const TWINS_LOCKING: &str = twins!(" FOR UPDATE");

pub(crate) const ACCEPT: &str = "UPDATE webhook_events SET state = 'pending', accepted_by = $2, fingerprint = $3, \
    event_key = $4, event_type = $5, error_code = NULL, error_message = NULL, attempt = 0, run_at = $6 \
    WHERE id = $1 AND state = 'quarantined'";

pub(crate) const SET_ASIDE: &str = "UPDATE webhook_events SET state = 'duplicate', accepted_by = $2, \
    event_key = $3, event_type = $4, error_code = NULL, error_message = NULL, ended_at = $5 \
    WHERE id = $1 AND state = 'quarantined'";

/// What an event is known by once it is accepted.
#[derive(Debug, Clone, Copy)]
struct Genuine<'a> {
    accepted_by: AcceptedBy,
    fingerprint: &'a [u8],
    event_key: &'a str,
    event_type: Option<&'a str>,
}

/// Lets an event out of quarantine, under the fingerprint, key and type that it has among the accepted.
///
/// A transaction that accepts several takes them in the order of these fingerprints, as a batch of
/// deliveries does: the vendor may be sending the very same events again.
pub async fn accept(
    tx: &mut Tx,
    id: EventId,
    accepted_by: AcceptedBy,
    fingerprint: &[u8],
    event_key: &str,
    event_type: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Accepted, StoreError> {
    let genuine = Genuine { accepted_by, fingerprint, event_key, event_type };
    loop {
        let statement = match tx {
            // Both rows are held, in the order of their ids.
            Tx::Postgres(_) => TWINS_LOCKING,
            // There is one writer.
            Tx::Sqlite(_) => TWINS,
        };
        let rows: Vec<Repeated> = on_tx!(tx, |ex| sqlx::query_as(statement)
            .bind(id)
            .bind(genuine.fingerprint.to_vec())
            .fetch_all(ex)
            .await)?;
        let (this, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.id == id);
        if this.first().is_none_or(|row| row.state != WebhookState::Quarantined) {
            return Ok(Accepted::NotQuarantined);
        }
        if let Some(other) = others.into_iter().next() {
            set_aside(tx, id, genuine, now).await?;
            count_up(tx, other, 1, now).await?;
            return Ok(Accepted::Duplicate);
        }
        if take_in(tx, id, genuine, now).await? {
            return Ok(Accepted::Pending);
        }
    }
}

async fn set_aside(
    tx: &mut Tx,
    id: EventId,
    genuine: Genuine<'_>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    on_tx!(tx, |ex| sqlx::query(SET_ASIDE)
        .bind(id)
        .bind(genuine.accepted_by)
        .bind(clean(genuine.event_key.to_owned()))
        .bind(genuine.event_type.map(|text| clean(text.to_owned())))
        .bind(now)
        .execute(ex)
        .await
        .map(drop))?;
    Ok(())
}

/// `false` when the genuine event came in at this very moment: then it can be seen now.
async fn take_in(
    tx: &mut Tx,
    id: EventId,
    genuine: Genuine<'_>,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    savepoint(tx, "SAVEPOINT accept").await?;
    let accepted = on_tx!(tx, |ex| sqlx::query(ACCEPT)
        .bind(id)
        .bind(genuine.accepted_by)
        .bind(genuine.fingerprint.to_vec())
        .bind(clean(genuine.event_key.to_owned()))
        .bind(genuine.event_type.map(|text| clean(text.to_owned())))
        .bind(now)
        .execute(ex)
        .await
        .map(drop));
    let accepted = match accepted {
        Ok(()) => true,
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            savepoint(tx, "ROLLBACK TO SAVEPOINT accept").await?;
            false
        }
        Err(error) => return Err(error.into()),
    };
    savepoint(tx, "RELEASE SAVEPOINT accept").await?;
    Ok(accepted)
}

async fn savepoint(tx: &mut Tx, statement: &'static str) -> Result<(), StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::raw_sql(statement).execute(ex).await.map(drop))?)
}

pub(crate) const NOTE_REFUSAL: &str = "UPDATE webhook_events SET error_code = $2, error_message = $3 \
    WHERE id = $1 AND state = 'quarantined'";

/// Notes why a quarantined event is still refused; `false` when it is not in quarantine any more.
pub async fn note_refusal(
    tx: &mut Tx,
    id: EventId,
    code: &'static str,
    message: &str,
) -> Result<bool, StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(NOTE_REFUSAL)
        .bind(id)
        .bind(code)
        .bind(shortened(message))
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(affected == 1)
}
