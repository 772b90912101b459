//! `external_systems`: one configured connection to an outside system, its schedule and its health.
//!
//! What a person configures is written by [`insert`] and [`save`] (which counts `version` up, so that
//! every process notices); what runs find out is written by [`record_outcome`]; the schedule moves by
//! compare-and-set in [`advance`]. A transaction that also touches a run touches the run first: the
//! same order everywhere, so that no two of them wait for each other.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::types::Json;

use crate::error::StoreError;
use crate::ids::{SystemId, UserId};
use crate::money::Currency;
use crate::pool::{Store, Tx};
use crate::record_batches::StoreMap;
use crate::text_enum::{MemberConflict, SyncStatus, SystemStatus, SystemType};
use crate::{on_read, on_tx, on_write, webhook_events};

mod figures;
mod list;
mod news;
mod outcome;
mod secrets;

pub use figures::{Backlog, COUNTED_MAX, Figures, RunFigures, figures};
pub use list::{Filter, list};
pub use news::{SystemChange, tell};
pub use outcome::{Health, record_outcome};
pub use secrets::{
    credentials, set_credentials, set_webhook_secrets, webhook_secrets, webhook_secrets_valid_at,
};

/// A row of `external_systems`. Secrets stay sealed; see [`credentials`].
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ExternalSystem {
    /// The id, which never changes.
    pub id: SystemId,
    /// What people call it.
    pub name: String,
    /// What it is.
    #[sqlx(rename = "type")]
    pub system_type: SystemType,
    /// The vendor manifest that describes it.
    pub provider: String,
    /// Counts configuration changes; caches of connections are keyed by it.
    pub version: i64,
    /// See [`SystemStatus`].
    pub status: SystemStatus,
    /// No scheduled runs until resumed.
    pub paused: bool,
    /// Why it is paused, in a person's words.
    pub paused_note: Option<String>,
    /// The store it belongs to; `None` is the whole chain.
    pub store_id: Option<String>,
    /// The vendor's shop id → our store id.
    pub store_map: Json<BTreeMap<String, String>>,
    /// Where the vendor answers, when the manifest does not say.
    pub api_endpoint: Option<String>,
    /// Where the vendor posts to, as registered with it.
    pub webhook_url: Option<String>,
    /// The credentials, sealed as one.
    pub sealed_credentials: Option<Vec<u8>>,
    /// The webhook secrets, sealed as one.
    pub sealed_webhook_secrets: Option<Vec<u8>>,
    /// Which webhook secrets end, and when; a name that is not here has no end.
    pub webhook_secret_expiries: Json<BTreeMap<String, DateTime<Utc>>>,
    /// The names of the credentials that are set; the values are sealed.
    pub credential_names: Json<BTreeMap<String, bool>>,
    /// `signature`, or `none` where an admin gave up verification.
    pub webhook_verification: String,
    /// Vendor settings that are no secrets.
    pub config: Json<Map<String, Value>>,
    /// The IANA zone of its schedule and of naive times.
    pub timezone: String,
    /// The currency of amounts that name none.
    pub currency: Currency,
    /// Whose word counts when the vendor and we say different things of a member.
    pub member_conflict: MemberConflict,
    /// Whether scheduled runs are wanted.
    pub sync_enabled: bool,
    /// Seconds between scheduled runs.
    pub sync_interval: Option<i64>,
    /// A cron expression instead of an interval.
    pub sync_cron: Option<String>,
    /// When the next scheduled run is made: the slot plus this system's jitter.
    pub next_sync_at: Option<DateTime<Utc>>,
    /// The slot of the next scheduled run.
    pub next_slot_at: Option<DateTime<Utc>>,
    /// When the last run ended.
    pub last_sync_at: Option<DateTime<Utc>>,
    /// How the last run ended.
    pub last_sync_status: Option<SyncStatus>,
    /// What the last failed run or test said; cleared by a success.
    pub last_error: Option<String>,
    /// Failed runs since the last success.
    pub consecutive_failures: i64,
    /// Who made it.
    pub created_by: Option<UserId>,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When the configuration last changed.
    pub updated_at: DateTime<Utc>,
    /// A deleted system keeps its records and nothing else.
    pub deleted_at: Option<DateTime<Utc>>,
}

impl ExternalSystem {
    /// Which store a vendor's shop is.
    #[must_use]
    pub fn stores(&self) -> StoreMap {
        StoreMap { by_shop: self.store_map.0.clone(), default: self.store_id.clone() }
    }

    /// The associated data its credentials are sealed with: a ciphertext moved to another row does not open.
    #[must_use]
    pub fn credentials_aad(id: SystemId) -> String {
        format!("external_systems/{id}/credentials")
    }

    /// The associated data its webhook secrets are sealed with.
    #[must_use]
    pub fn webhook_secrets_aad(id: SystemId) -> String {
        format!("external_systems/{id}/webhook_secrets")
    }

    /// Whether the scheduler makes runs for it: active, or in error (one probe per cool-down).
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.deleted_at.is_none()
            && !self.paused
            && self.sync_enabled
            && matches!(self.status, SystemStatus::Active | SystemStatus::Error)
    }
}

/// A row with nothing in it but a name: fill it in, then [`insert`] it.
#[must_use]
pub fn blank(store: &Store, name: &str, system_type: SystemType, provider: &str) -> ExternalSystem {
    let now = store.clock().now();
    ExternalSystem {
        id: SystemId(store.clock().new_id()),
        name: name.to_owned(),
        system_type,
        provider: provider.to_owned(),
        version: 1,
        status: SystemStatus::Inactive,
        paused: false,
        paused_note: None,
        store_id: None,
        store_map: Json(BTreeMap::new()),
        api_endpoint: None,
        webhook_url: None,
        sealed_credentials: None,
        sealed_webhook_secrets: None,
        webhook_secret_expiries: Json(BTreeMap::new()),
        credential_names: Json(BTreeMap::new()),
        webhook_verification: "signature".into(),
        config: Json(Map::new()),
        timezone: "Asia/Shanghai".into(),
        currency: Currency::CNY,
        member_conflict: MemberConflict::Newest,
        sync_enabled: true,
        sync_interval: Some(300),
        sync_cron: None,
        next_sync_at: None,
        next_slot_at: None,
        last_sync_at: None,
        last_sync_status: None,
        last_error: None,
        consecutive_failures: 0,
        created_by: None,
        created_at: now,
        updated_at: now,
        deleted_at: None,
    }
}

const INSERT: &str = "INSERT INTO external_systems (id, name, type, provider, version, status, paused, \
    paused_note, store_id, store_map, api_endpoint, webhook_url, sealed_credentials, sealed_webhook_secrets, \
    credential_names, webhook_verification, config, timezone, currency, sync_enabled, sync_interval, sync_cron, \
    next_sync_at, next_slot_at, consecutive_failures, created_by, created_at, updated_at, webhook_secret_expiries, \
    member_conflict) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, \
    $22, $23, $24, 0, $25, $26, $26, $27, $28)";

/// Writes a new row.
pub async fn insert(tx: &mut Tx, system: &ExternalSystem) -> Result<(), StoreError> {
    on_tx!(tx, |ex| sqlx::query(INSERT)
        .bind(system.id)
        .bind(&system.name)
        .bind(system.system_type)
        .bind(&system.provider)
        .bind(system.version)
        .bind(system.status)
        .bind(system.paused)
        .bind(&system.paused_note)
        .bind(&system.store_id)
        .bind(&system.store_map)
        .bind(&system.api_endpoint)
        .bind(&system.webhook_url)
        .bind(&system.sealed_credentials)
        .bind(&system.sealed_webhook_secrets)
        .bind(&system.credential_names)
        .bind(&system.webhook_verification)
        .bind(&system.config)
        .bind(&system.timezone)
        .bind(system.currency)
        .bind(system.sync_enabled)
        .bind(system.sync_interval)
        .bind(&system.sync_cron)
        .bind(system.next_sync_at)
        .bind(system.next_slot_at)
        .bind(system.created_by)
        .bind(system.created_at)
        .bind(&system.webhook_secret_expiries)
        .bind(system.member_conflict)
        .execute(ex)
        .await
        .map(drop))?;
    Ok(())
}

const SAVE: &str = "UPDATE external_systems SET name = $3, provider = $4, store_id = $5, store_map = $6, \
    api_endpoint = $7, webhook_url = $8, sealed_credentials = $9, sealed_webhook_secrets = $10, \
    credential_names = $11, webhook_verification = $12, config = $13, timezone = $14, currency = $15, \
    sync_enabled = $16, sync_interval = $17, sync_cron = $18, paused = $19, paused_note = $20, \
    status = COALESCE($21, status), next_sync_at = $22, next_slot_at = $23, updated_at = $24, \
    webhook_secret_expiries = $25, member_conflict = $26, version = version + 1 \
    WHERE id = $1 AND version = $2 AND deleted_at IS NULL";

/// Writes a changed configuration, if nobody changed it since `system` was read; a conflict otherwise.
///
/// `status` is written only where the caller changes it: runs write it too, and must not be overwritten
/// by an older reading. Webhook events that were put off (their system was paused, or an attempt failed)
/// are due at once: the change may be what they waited for.
pub async fn save(
    tx: &mut Tx,
    system: &ExternalSystem,
    status: Option<SystemStatus>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(SAVE)
        .bind(system.id)
        .bind(system.version)
        .bind(&system.name)
        .bind(&system.provider)
        .bind(&system.store_id)
        .bind(&system.store_map)
        .bind(&system.api_endpoint)
        .bind(&system.webhook_url)
        .bind(&system.sealed_credentials)
        .bind(&system.sealed_webhook_secrets)
        .bind(&system.credential_names)
        .bind(&system.webhook_verification)
        .bind(&system.config)
        .bind(&system.timezone)
        .bind(system.currency)
        .bind(system.sync_enabled)
        .bind(system.sync_interval)
        .bind(&system.sync_cron)
        .bind(system.paused)
        .bind(&system.paused_note)
        .bind(status)
        .bind(system.next_sync_at)
        .bind(system.next_slot_at)
        .bind(now)
        .bind(&system.webhook_secret_expiries)
        .bind(system.member_conflict)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    if affected == 0 {
        return Err(StoreError::Conflict(format!(
            "system `{}` was changed or deleted meanwhile; read it again and repeat the change",
            system.id
        )));
    }
    if !system.paused {
        webhook_events::hurry_of_system(tx, system.id, now).await?;
    }
    Ok(())
}

const FIND: &str = "SELECT * FROM external_systems WHERE id = $1 AND deleted_at IS NULL";

/// The system with this id, unless it is deleted.
pub async fn find(store: &Store, id: SystemId) -> Result<Option<ExternalSystem>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND).bind(id).fetch_optional(ex).await)?)
}

/// The system with this id; a deleted or unknown one is not found.
pub async fn get(store: &Store, id: SystemId) -> Result<ExternalSystem, StoreError> {
    find(store, id).await?.ok_or_else(|| StoreError::NotFound(format!("system `{id}`")))
}

const VERSION: &str = "SELECT version FROM external_systems WHERE id = $1 AND deleted_at IS NULL";

/// Its version now, to ask whether a cached reading still holds; `None` when it is deleted or unknown.
pub async fn find_version(store: &Store, id: SystemId) -> Result<Option<i64>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_scalar(VERSION).bind(id).fetch_optional(ex).await)?)
}

const VERSION_HELD: &str =
    "SELECT version FROM external_systems WHERE id = $1 AND deleted_at IS NULL FOR SHARE";

/// Whether it still has this version, and keeps it until the transaction's end: the last statement of whoever
/// decided something by an older reading. A deleted system has none.
pub async fn holds_version(tx: &mut Tx, id: SystemId, version: i64) -> Result<bool, StoreError> {
    let statement = match tx {
        // Whoever is changing it is waited for, and whoever wants to waits.
        Tx::Postgres(_) => VERSION_HELD,
        // There is one writer.
        Tx::Sqlite(_) => VERSION,
    };
    let now: Option<i64> = on_tx!(tx, |ex| sqlx::query_scalar(statement).bind(id).fetch_optional(ex).await)?;
    Ok(now == Some(version))
}

const DUE: &str = "SELECT * FROM external_systems WHERE next_sync_at <= $1 AND deleted_at IS NULL \
    ORDER BY next_sync_at, id LIMIT $2";

/// Systems whose time has come.
pub async fn due(store: &Store, now: DateTime<Utc>, limit: i64) -> Result<Vec<ExternalSystem>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(DUE).bind(now).bind(limit).fetch_all(ex).await)?)
}

const ADVANCE: &str = "UPDATE external_systems SET next_sync_at = $4, next_slot_at = $5 \
    WHERE id = $1 AND version = $2 AND next_sync_at = $3 AND deleted_at IS NULL";

/// Moves the schedule on, if nobody else has; `false` means somebody has.
pub async fn advance(
    tx: &mut Tx,
    system: &ExternalSystem,
    next_sync_at: Option<DateTime<Utc>>,
    next_slot_at: Option<DateTime<Utc>>,
) -> Result<bool, StoreError> {
    let affected = on_tx!(tx, |ex| sqlx::query(ADVANCE)
        .bind(system.id)
        .bind(system.version)
        .bind(system.next_sync_at)
        .bind(next_sync_at)
        .bind(next_slot_at)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(affected == 1)
}

const DELETE: &str = "UPDATE external_systems SET deleted_at = $3, updated_at = $3, version = version + 1, \
    sealed_credentials = NULL, sealed_webhook_secrets = NULL, credential_names = $4, config = $4, \
    webhook_secret_expiries = $4, sync_enabled = FALSE, next_sync_at = NULL, next_slot_at = NULL \
    WHERE id = $1 AND version = $2 AND deleted_at IS NULL";

/// Deletes a system: secrets and settings are wiped, its records stay, webhook events that wait are dead.
/// Bury its events ([`webhook_events::bury_of_system`]) and cancel its runs first, in this order.
pub async fn delete(tx: &mut Tx, system: &ExternalSystem, now: DateTime<Utc>) -> Result<(), StoreError> {
    // Those that came meanwhile, or are too many for one go.
    webhook_events::bury_of_system(tx, system.id, now).await?;
    let empty = Json(Map::new());
    let affected = on_tx!(tx, |ex| sqlx::query(DELETE)
        .bind(system.id)
        .bind(system.version)
        .bind(now)
        .bind(&empty)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    if affected == 0 {
        return Err(StoreError::Conflict(format!(
            "system `{}` was changed or deleted meanwhile; read it again and repeat",
            system.id
        )));
    }
    Ok(())
}

const SCHEDULE: &str = "UPDATE external_systems SET next_sync_at = $2, next_slot_at = $3 \
    WHERE id = $1 AND next_sync_at IS NULL AND deleted_at IS NULL";

/// Starts the schedule of a system that has none yet (it became active); a running one is left alone.
pub async fn start_schedule(
    store: &Store,
    id: SystemId,
    next_sync_at: DateTime<Utc>,
    next_slot_at: DateTime<Utc>,
) -> Result<(), StoreError> {
    on_write!(store, |ex| sqlx::query(SCHEDULE)
        .bind(id)
        .bind(next_sync_at)
        .bind(next_slot_at)
        .execute(ex)
        .await
        .map(drop))?;
    Ok(())
}

const UNSCHEDULED: &str = "SELECT * FROM external_systems WHERE next_sync_at IS NULL AND deleted_at IS NULL \
    AND sync_enabled AND NOT paused AND status IN ('active', 'error') ORDER BY id LIMIT $1";

/// Systems that ought to have a schedule and have none: they became active a moment ago.
pub async fn unscheduled(store: &Store, limit: i64) -> Result<Vec<ExternalSystem>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(UNSCHEDULED).bind(limit).fetch_all(ex).await)?)
}

#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("external_systems::INSERT", INSERT),
    ("external_systems::SAVE", SAVE),
    ("external_systems::FIND", FIND),
    ("external_systems::VERSION", VERSION),
    ("external_systems::DUE", DUE),
    ("external_systems::ADVANCE", ADVANCE),
    ("external_systems::RECORD_SUCCESS", outcome::RECORD_SUCCESS),
    ("external_systems::RECORD_FAILURE", outcome::RECORD_FAILURE),
    ("external_systems::STATUS", outcome::STATUS),
    ("external_systems::RUNS", figures::RUNS),
    ("external_systems::BACKLOG", figures::BACKLOG),
    ("external_systems::DELETE", DELETE),
    ("external_systems::SCHEDULE", SCHEDULE),
    ("external_systems::UNSCHEDULED", UNSCHEDULED),
];
