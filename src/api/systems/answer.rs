//! What is shown of a system: everything but its secrets, of which only the names are told.

use poem_openapi::Object;
use serde_json::{Map, Value};
use zhilian_sync_jobs::vendor::Vendors;
use zhilian_sync_store::external_systems::ExternalSystem;
use zhilian_sync_store::{MemberConflict, SyncStatus, SystemStatus, SystemType};

use super::change::{self, Verification};
use crate::api::BASE;
use crate::api::values::{Choice, Fields, Time};

/// A system.
#[derive(Debug, Object)]
#[oai(rename = "ExternalSystem")]
pub struct SystemAnswer {
    /// The id, which never changes.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it is.
    #[oai(rename = "type")]
    pub system_type: Choice<SystemType>,
    /// The vendor manifest that describes it.
    pub provider: String,
    /// Counts changes of the configuration.
    pub version: i64,
    /// Whether it is synchronised.
    pub status: Choice<SystemStatus>,
    /// In one word: `healthy`, `failing`, `error`, `paused`, `testing` or `inactive`.
    pub health: String,
    /// The store it belongs to; null is the whole chain.
    pub store_id: Option<String>,
    /// The vendor's shop id → our store id.
    pub store_map: Fields,
    /// Where the vendor answers; null is the manifest's own address.
    pub api_endpoint: Option<String>,
    /// Where the vendor posts to, as it was registered there.
    pub webhook_url: Option<String>,
    /// Where it posts to below this service's own address.
    pub webhook_path: String,
    /// Settings of the vendor that are no secrets.
    pub config: Fields,
    /// The names of the secrets that are set.
    pub credential_names: Vec<String>,
    /// Whether `api_key` is set.
    pub has_api_key: bool,
    /// Whether `api_secret` is set.
    pub has_api_secret: bool,
    /// Whether a secret for webhooks is set.
    pub has_webhook_secret: bool,
    /// When former webhook secrets stop being valid; they stay so for a while after a rotation.
    pub webhook_secret_expiries: Vec<Time>,
    /// `signature`, or `none` where an admin gave up the verification of webhooks.
    pub webhook_verification: Choice<Verification>,
    /// The zone of its schedule and of times without a zone.
    pub timezone: String,
    /// The currency of amounts that name none.
    pub currency: String,
    /// Whose word counts when the vendor and we say different things of a member.
    pub member_conflict: Choice<MemberConflict>,
    /// Whether it is synchronised by schedule.
    pub sync_enabled: bool,
    /// Seconds between scheduled runs; null where a cron expression says when.
    pub sync_interval: Option<i64>,
    /// A cron expression in its zone.
    pub sync_cron: Option<String>,
    /// When the next scheduled run begins.
    pub next_sync_at: Option<Time>,
    /// When the last run ended.
    pub last_sync_at: Option<Time>,
    /// How the last run ended.
    pub last_sync_status: Option<Choice<SyncStatus>>,
    /// What the last failure said.
    pub last_error: Option<String>,
    /// Failed runs since the last success.
    pub consecutive_failures: i64,
    /// No scheduled runs until resumed.
    pub paused: bool,
    /// Why.
    pub paused_note: Option<String>,
    /// When it was made.
    pub created_at: Time,
    /// When its configuration last changed.
    pub updated_at: Time,
    /// What can be read from it; shown for one system, not in lists.
    #[oai(skip_serializing_if_is_none)]
    pub streams: Option<Vec<String>>,
    /// What is missing before it can work; shown for one system, not in lists.
    #[oai(skip_serializing_if_is_none)]
    pub setup_problems: Option<Vec<String>>,
    /// Fields of the request that mean nothing here.
    #[oai(skip_serializing_if_is_none)]
    pub ignored_fields: Option<Vec<String>>,
}

impl SystemAnswer {
    /// What a list shows.
    pub fn new(system: &ExternalSystem) -> Self {
        let has = |name: &str| system.credential_names.contains_key(name);
        Self {
            id: system.id.to_string(),
            name: system.name.clone(),
            system_type: Choice(system.system_type),
            provider: system.provider.clone(),
            version: system.version,
            status: Choice(system.status),
            health: health(system).to_owned(),
            store_id: system.store_id.clone(),
            store_map: Fields(map_of(&system.store_map)),
            api_endpoint: system.api_endpoint.clone(),
            webhook_url: system.webhook_url.clone(),
            webhook_path: webhook_path(system),
            config: Fields(system.config.0.clone()),
            credential_names: system.credential_names.keys().cloned().collect(),
            has_api_key: has("api_key"),
            has_api_secret: has("api_secret"),
            has_webhook_secret: system.sealed_webhook_secrets.is_some(),
            webhook_secret_expiries: expiries(system),
            webhook_verification: Choice(Verification::of(system)),
            timezone: system.timezone.clone(),
            currency: system.currency.to_string(),
            member_conflict: Choice(system.member_conflict),
            sync_enabled: system.sync_enabled,
            sync_interval: system.sync_interval,
            sync_cron: system.sync_cron.clone(),
            next_sync_at: system.next_sync_at.map(Time),
            last_sync_at: system.last_sync_at.map(Time),
            last_sync_status: system.last_sync_status.map(Choice),
            last_error: system.last_error.clone(),
            consecutive_failures: system.consecutive_failures,
            paused: system.paused,
            paused_note: system.paused_note.clone(),
            created_at: system.created_at.into(),
            updated_at: system.updated_at.into(),
            streams: None,
            setup_problems: None,
            ignored_fields: None,
        }
    }

    /// What one system shows: also what its vendor has to offer, and what is missing.
    pub fn detailed(system: &ExternalSystem, vendors: &Vendors) -> Self {
        let (streams, setup_problems) = change::setup(system, vendors);
        Self { streams: Some(streams), setup_problems: Some(setup_problems), ..Self::new(system) }
    }

    /// Names the fields of a request that mean nothing here.
    #[must_use]
    pub fn ignoring(mut self, fields: Vec<String>) -> Self {
        self.ignored_fields = (!fields.is_empty()).then_some(fields);
        self
    }
}

fn map_of(map: &std::collections::BTreeMap<String, String>) -> Map<String, Value> {
    map.iter().map(|(shop, store)| (shop.clone(), Value::String(store.clone()))).collect()
}

/// When former webhook secrets end, the next end first.
pub fn expiries(system: &ExternalSystem) -> Vec<Time> {
    let mut ends: Vec<_> = system.webhook_secret_expiries.values().copied().collect();
    ends.sort_unstable();
    ends.into_iter().map(Time).collect()
}

/// Where a system's vendor posts to, below this service's own address.
pub fn webhook_path(system: &ExternalSystem) -> String {
    format!("{BASE}/integrations/webhooks/{}/{}", system.system_type, system.id)
}

const fn health(system: &ExternalSystem) -> &'static str {
    match system.status {
        SystemStatus::Error => "error",
        _ if system.paused => "paused",
        SystemStatus::Inactive => "inactive",
        SystemStatus::Testing => "testing",
        SystemStatus::Active if system.consecutive_failures > 0 => "failing",
        SystemStatus::Active => "healthy",
    }
}
