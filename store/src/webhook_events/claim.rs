//! Claiming: a batch of events that are due, or one alone whose worker fell silent.
//!
//! A claim deals with whatever it meets in the order of time: events of deleted systems die here, and
//! those of paused systems are put off, so that neither are in the way of the others the next time.

use chrono::{DateTime, TimeDelta, Utc};

use super::WebhookEvent;
use crate::error::StoreError;
use crate::ids::{EventId, SystemId};
use crate::pool::{Store, Tx};
use crate::{on_read, on_tx, on_write};

/// How long an event of a paused system is put off. Resuming calls [`hurry_of_system`]; an event that is
/// put off at that very moment waits this long.
const PAUSE: TimeDelta = TimeDelta::minutes(10);
/// An event whose worker fell silent this long ago goes before fresh ones, so that a long backlog does not
/// keep it waiting for ever.
const OVERDUE: TimeDelta = TimeDelta::minutes(1);
/// The bodies of one claim are no larger than this together, unless the first alone is: they are held in
/// memory by every worker, beside what is made of them.
const CLAIM_BYTES_MAX: i64 = 8 << 20;
/// How often a claim looks again when all it met were events of paused and deleted systems.
const ROUNDS_MAX: usize = 20;

pub(crate) const HAS_DUE: &str = "SELECT EXISTS (SELECT 1 FROM webhook_events \
    WHERE state = 'pending' AND run_at <= $1 AND (lease_until IS NULL OR lease_until < $1))";

/// Whether there is anything to claim.
pub async fn has_due(store: &Store, now: DateTime<Utc>) -> Result<bool, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_scalar(HAS_DUE).bind(now).fetch_one(ex).await)?)
}

/// Takes events for `worker` until `lease_until`, those that have been due the longest, at most `limit` and
/// about 8 MB of bodies; each has spent an attempt. None means that there is nothing to do.
///
/// An event that was claimed before and neither marked nor given back comes alone: if it kills its
/// worker, it dies alone.
pub async fn claim_batch(
    store: &Store,
    worker: &str,
    lease_until: DateTime<Utc>,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<WebhookEvent>, StoreError> {
    // First without those whose worker has only just fallen silent, then with them.
    for silent_since in [now - OVERDUE, now] {
        for _ in 0..ROUNDS_MAX {
            let mut tx = store.begin().await?;
            let due = due(&mut tx, now, silent_since, limit).await?;
            if due.is_empty() {
                break;
            }
            let claimed = take(&mut tx, to_take(&due), lease_until, worker).await?;
            let paused = chosen(&due, |event| event.paused && !event.deleted);
            put_off(&mut tx, paused, now + PAUSE).await?;
            bury(&mut tx, chosen(&due, |event| event.deleted), now).await?;
            tx.commit().await?;
            if !claimed.is_empty() {
                return Ok(claimed);
            }
        }
    }
    Ok(Vec::new())
}

pub(crate) const EXPIRE_LEASES: &str =
    "UPDATE webhook_events SET lease_until = $1 WHERE state = 'pending' AND lease_until >= $2";

/// Ends every lease at once. Only for a process that knows it is alone (the embedded database, at its
/// start): whoever held those leases is gone.
pub async fn expire_leases(store: &Store) -> Result<u64, StoreError> {
    let now = store.clock().now();
    Ok(on_write!(store, |ex| sqlx::query(EXPIRE_LEASES)
        .bind(now - TimeDelta::milliseconds(1))
        .bind(now)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}

/// An event that is due, and what there is to know of its system.
#[derive(sqlx::FromRow)]
struct Due {
    id: EventId,
    body_bytes: i64,
    silent: bool,
    paused: bool,
    deleted: bool,
}

macro_rules! due {
    ($lock:literal) => {
        concat!(
            "SELECT due.id, due.body_bytes, due.silent, external_systems.paused, \
             external_systems.deleted_at IS NOT NULL AS deleted \
             FROM (SELECT id, system_id, run_at, body_bytes, lease_until IS NOT NULL AS silent FROM webhook_events \
             WHERE state = 'pending' AND run_at <= $1 AND (lease_until IS NULL OR lease_until < $2) \
             ORDER BY run_at LIMIT $3",
            $lock,
            ") AS due JOIN external_systems ON external_systems.id = due.system_id ORDER BY due.run_at, due.id"
        )
    };
}

pub(crate) const DUE: &str = due!("");
const DUE_SKIPPING: &str = due!(" FOR UPDATE SKIP LOCKED");

async fn due(
    tx: &mut Tx,
    now: DateTime<Utc>,
    silent_since: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Due>, StoreError> {
    let statement = match tx {
        // Whoever claims at the same time takes the next ones.
        Tx::Postgres(_) => DUE_SKIPPING,
        // There is one writer.
        Tx::Sqlite(_) => DUE,
    };
    Ok(on_tx!(tx, |ex| sqlx::query_as(statement)
        .bind(now)
        .bind(silent_since)
        .bind(limit)
        .fetch_all(ex)
        .await)?)
}

/// Those that are fresh, as many as fit, or the first whose worker fell silent.
fn to_take(due: &[Due]) -> Vec<EventId> {
    let live = |event: &&Due| !event.paused && !event.deleted;
    if let Some(silent) = due.iter().filter(live).find(|event| event.silent) {
        return vec![silent.id];
    }
    let mut bytes = 0_i64;
    let fits = |(place, event): &(usize, &Due)| {
        bytes = bytes.saturating_add(event.body_bytes);
        *place == 0 || bytes <= CLAIM_BYTES_MAX
    };
    due.iter().filter(live).enumerate().take_while(fits).map(|(_, event)| event.id).collect()
}

fn chosen(due: &[Due], choose: impl Fn(&Due) -> bool) -> Vec<EventId> {
    due.iter().filter(|event| choose(event)).map(|event| event.id).collect()
}

macro_rules! take {
    ($which:literal) => {
        concat!(
            "UPDATE webhook_events SET attempt = attempt + 1, claim_no = claim_no + 1, lease_until = $2, worker = $3 \
             WHERE id ",
            $which,
            " RETURNING *"
        )
    };
}

const TAKE_MANY: &str = take!("= ANY(CAST($1 AS UUID[]))");
pub(crate) const TAKE_ONE: &str = take!("= $1");

async fn take(
    tx: &mut Tx,
    ids: Vec<EventId>,
    lease_until: DateTime<Utc>,
    worker: &str,
) -> Result<Vec<WebhookEvent>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut claimed: Vec<WebhookEvent> = match tx {
        Tx::Postgres(tx) => {
            let ids: Vec<_> = ids.into_iter().map(|id| id.0).collect();
            let taking = sqlx::query_as(TAKE_MANY).bind(ids).bind(lease_until).bind(worker);
            taking.fetch_all(&mut **tx).await?
        }
        // No arrays: one by one.
        Tx::Sqlite(tx) => {
            let mut claimed = Vec::with_capacity(ids.len());
            for id in ids {
                let taking = sqlx::query_as(TAKE_ONE).bind(id).bind(lease_until).bind(worker);
                claimed.push(taking.fetch_one(&mut **tx).await?);
            }
            claimed
        }
    };
    claimed.sort_by_key(|event| (event.run_at, event.id));
    Ok(claimed)
}

pub(crate) const PUT_OFF: &str = "UPDATE webhook_events SET run_at = $2 WHERE id = $1 AND state = 'pending'";
const PUT_OFF_MANY: &str =
    "UPDATE webhook_events SET run_at = $2 WHERE id = ANY(CAST($1 AS UUID[])) AND state = 'pending'";

async fn put_off(tx: &mut Tx, ids: Vec<EventId>, run_at: DateTime<Utc>) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    match tx {
        Tx::Postgres(tx) => {
            let ids: Vec<_> = ids.into_iter().map(|id| id.0).collect();
            sqlx::query(PUT_OFF_MANY).bind(ids).bind(run_at).execute(&mut **tx).await?;
        }
        // No arrays: one by one.
        Tx::Sqlite(tx) => {
            for id in ids {
                sqlx::query(PUT_OFF).bind(id).bind(run_at).execute(&mut **tx).await?;
            }
        }
    }
    Ok(())
}

macro_rules! bury {
    ($which:expr) => {
        concat!(
            "UPDATE webhook_events SET state = 'dead', claim_no = claim_no + 1, lease_until = NULL, \
             error_code = 'system_deleted', error_message = 'its system was deleted before the event was applied', \
             ended_at = $2 WHERE id ",
            $which,
            " AND state = 'pending'"
        )
    };
}

pub(crate) const BURY: &str = bury!("= $1");

/// Ends events of deleted systems. They are few: those that came while their system was being deleted.
async fn bury(tx: &mut Tx, ids: Vec<EventId>, now: DateTime<Utc>) -> Result<(), StoreError> {
    for id in ids {
        on_tx!(tx, |ex| sqlx::query(BURY).bind(id).bind(now).execute(ex).await.map(drop))?;
    }
    Ok(())
}

/// The most events that are touched when a system is deleted or resumed; claims see to the rest.
const OF_SYSTEM_MAX: i64 = 10_000;

macro_rules! bury_of_system {
    ($lock:literal) => {
        bury!(concat!(
            "IN (SELECT id FROM webhook_events WHERE system_id = $1 AND state = 'pending' ORDER BY id LIMIT $3",
            $lock,
            ")"
        ))
    };
}

pub(crate) const BURY_OF_SYSTEM: &str = bury_of_system!("");
const BURY_OF_SYSTEM_LOCKING: &str = bury_of_system!(" FOR UPDATE");

/// Ends what waits of a system that is being deleted; whoever works on an event of it finds its claim
/// gone. How many there were.
pub async fn bury_of_system(tx: &mut Tx, system: SystemId, now: DateTime<Utc>) -> Result<u64, StoreError> {
    let statement = match tx {
        // In the order of the ids, as everybody waits for rows.
        Tx::Postgres(_) => BURY_OF_SYSTEM_LOCKING,
        // There is one writer.
        Tx::Sqlite(_) => BURY_OF_SYSTEM,
    };
    of_system(tx, statement, system, now).await
}

macro_rules! hurry {
    ($lock:literal) => {
        concat!(
            "UPDATE webhook_events SET run_at = $2 WHERE id IN (SELECT id FROM webhook_events WHERE system_id = $1 \
             AND state = 'pending' AND run_at > $2 ORDER BY run_at LIMIT $3",
            $lock,
            ") AND state = 'pending'"
        )
    };
}

pub(crate) const HURRY: &str = hurry!("");
const HURRY_SKIPPING: &str = hurry!(" FOR UPDATE SKIP LOCKED");

/// Makes the events of a system due now that were put off while it was paused; how many. Those beyond
/// the first thousands, and those that somebody holds, come when they were put off to.
pub async fn hurry_of_system(tx: &mut Tx, system: SystemId, now: DateTime<Utc>) -> Result<u64, StoreError> {
    let statement = match tx {
        // What somebody holds at this moment is not waited for.
        Tx::Postgres(_) => HURRY_SKIPPING,
        // There is one writer.
        Tx::Sqlite(_) => HURRY,
    };
    of_system(tx, statement, system, now).await
}

async fn of_system(
    tx: &mut Tx,
    statement: &'static str,
    system: SystemId,
    now: DateTime<Utc>,
) -> Result<u64, StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::query(statement)
        .bind(system)
        .bind(now)
        .bind(OF_SYSTEM_MAX)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}
