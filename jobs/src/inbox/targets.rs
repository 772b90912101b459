//! The systems of claimed events, made ready to apply: manifest, stores, settings. Kept in memory for as long
//! as a system's version stays the same, because most batches are of the systems of the batch before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use chrono_tz::Tz;
use serde_json::Value;
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::record_batches::StoreMap;
use zhilian_sync_store::{StoreError, SystemId};

use super::planning::Fault;
use crate::context::Context;
use crate::outcome::JobError;
use crate::vendor::Manifest;
use crate::vendor::webhook::WebhookSpec;

/// One system, ready.
pub(super) struct Target {
    pub(super) system: ExternalSystem,
    /// Whose streams the events are mapped with.
    pub(super) manifest: Arc<Manifest>,
    pub(super) spec: Arc<WebhookSpec>,
    pub(super) stores: StoreMap,
    pub(super) config: Value,
    pub(super) zone: Tz,
}

/// A system, or why no event of it can be applied now.
pub(super) type Found = Result<Arc<Target>, Fault>;

/// The systems of this process's last batches.
#[derive(Default)]
pub(super) struct Targets(Mutex<HashMap<SystemId, Arc<Target>>>);

impl Targets {
    /// The systems of a batch.
    pub(super) async fn of(
        &self,
        ctx: &Context,
        systems: BTreeSet<SystemId>,
    ) -> Result<BTreeMap<SystemId, Found>, StoreError> {
        let mut found = BTreeMap::new();
        for id in systems {
            found.insert(id, self.one(ctx, id).await?);
        }
        Ok(found)
    }

    async fn one(&self, ctx: &Context, id: SystemId) -> Result<Found, StoreError> {
        let version = external_systems::find_version(&ctx.store, id).await?;
        let known = self.known().get(&id).cloned();
        if let Some(known) = known.filter(|known| Some(known.system.version) == version) {
            return Ok(Ok(known));
        }
        let Some(system) = external_systems::find(&ctx.store, id).await? else {
            self.known().remove(&id);
            return Ok(Err(deleted()));
        };
        Ok(match ready(ctx, system) {
            Ok(target) => {
                let target = Arc::new(target);
                let mut known = self.known();
                if known.len() >= ctx.webhooks.systems_cached_max {
                    // All of them: each is made again by one look at its row.
                    known.clear();
                }
                known.insert(id, Arc::clone(&target));
                Ok(target)
            }
            // Not kept: a person may mend it at any moment.
            Err(error) => Err(Fault::from(error)),
        })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<SystemId, Arc<Target>>> {
        // A map that a panic left is a whole map: each change of it is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn deleted() -> Fault {
    Fault::from(JobError::give_up("system_deleted", "its system was deleted before the event was applied"))
}

/// What mends itself when a person mends the system is tried again: the event may wait for it.
fn ready(ctx: &Context, system: ExternalSystem) -> Result<Target, JobError> {
    let catalog = ctx.vendors.catalog();
    let own = catalog.resolve(&system.provider, &system.config).map_err(|error| {
        JobError::retry("bad_manifest", format!("the vendor manifest of this system has mistakes: {error}"))
    })?;
    let (manifest, spec) = catalog.webhook_of(&own);
    let zone = system.timezone.parse().map_err(|_| {
        JobError::retry(
            "bad_timezone",
            format!("`{}` is not an IANA time zone; expected one such as `Asia/Shanghai`", system.timezone),
        )
    })?;
    Ok(Target {
        stores: system.stores(),
        config: Value::Object(system.config.0.clone()),
        zone,
        manifest,
        spec,
        system,
    })
}
