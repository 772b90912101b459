//! What a job may touch, built once per process and handed to everything in this package.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use chrono_tz::Tz;
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::{Clock, Store};

use crate::backoff::RetryPolicy;
use crate::inbox::apply::Applying;
use crate::outcome::JobError;
use crate::queue::Queue;
use crate::settings::{EngineSettings, QueueSettings, WebhookSettings};
use crate::vendor::{Connection, ConnectionSpec, Manifest, Vendors};

/// The database, the queue, the vendors and the settings. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Every row.
    pub store: Store,
    /// The doorbell.
    pub queue: Queue,
    /// The outside world.
    pub vendors: Vendors,
    /// How long, how many, how often.
    pub engine: Arc<EngineSettings>,
    /// The queue's own settings, for its workers.
    pub queue_settings: Arc<QueueSettings>,
    /// What the inbox may hold, and how its events are applied.
    pub webhooks: Arc<WebhookSettings>,
    /// What the workers that apply webhooks share.
    pub applying: Arc<Applying>,
    /// This process's name on the rows it claims.
    pub worker: Arc<str>,
}

impl Context {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        store: Store,
        queue: Queue,
        vendors: Vendors,
        engine: EngineSettings,
        queue_settings: QueueSettings,
        webhooks: WebhookSettings,
    ) -> Self {
        let worker = format!("{}-{}", std::process::id(), &store.clock().new_id().simple().to_string()[20..]);
        Self {
            store,
            queue,
            vendors,
            applying: Arc::new(Applying::new(engine.concurrency.hooks)),
            engine: Arc::new(engine),
            queue_settings: Arc::new(queue_settings),
            webhooks: Arc::new(webhooks),
            worker: worker.into(),
        }
    }

    /// The time.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        self.store.clock()
    }

    /// How long a claim holds.
    #[must_use]
    pub fn lease(&self) -> TimeDelta {
        seconds(self.engine.lease_secs)
    }

    /// The delays between attempts.
    #[must_use]
    pub fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy {
            initial: Duration::from_secs(self.engine.retry_initial_secs),
            max: Duration::from_secs(self.engine.retry_max_secs),
        }
    }

    /// The manifest of a system's vendor, with what the system sets of it.
    pub fn manifest(&self, system: &ExternalSystem) -> Result<Arc<Manifest>, JobError> {
        self.vendors.catalog().resolve(&system.provider, &system.config).map_err(|error| {
            JobError::give_up(
                "bad_manifest",
                format!("the vendor manifest of this system has mistakes: {error}"),
            )
        })
    }

    /// The zone of times without an offset.
    pub fn timezone(system: &ExternalSystem) -> Result<Tz, JobError> {
        system.timezone.parse().map_err(|_| {
            JobError::give_up(
                "bad_timezone",
                format!(
                    "`{}` is not an IANA time zone; expected one such as `Asia/Shanghai`",
                    system.timezone
                ),
            )
        })
    }

    /// A connection to a system's vendor, with its credentials opened.
    pub fn connect(&self, system: &ExternalSystem) -> Result<Connection, JobError> {
        let manifest = self.manifest(system)?;
        let timezone = Self::timezone(system)?;
        self.vendors.connect(ConnectionSpec {
            system_id: system.id,
            version: system.version,
            manifest,
            endpoint: system.api_endpoint.clone(),
            credentials: external_systems::credentials(&self.store, system)?,
            config: system.config.0.clone(),
            store_id: system.store_id.clone(),
            timezone,
            currency: system.currency,
        })
    }
}

/// A number of seconds from the settings as a difference of times.
#[must_use]
pub fn seconds(secs: u64) -> TimeDelta {
    TimeDelta::try_seconds(i64::try_from(secs).unwrap_or(i64::MAX)).unwrap_or(TimeDelta::MAX)
}
