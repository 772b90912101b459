//! The demo's two vendors that are fakes of real ones: a supplier's list that is read by days, and a till whose
//! customers are members and who posts what happens.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use zhilian_sync_jobs::vendor::Target;
use zhilian_sync_simulator::{Faults, Settings, Simulator, WebhookTarget};
use zhilian_sync_store::{Clock, SystemType, external_systems};

use super::system::{self, DemoSystem, FakeStream, Vendor};
use crate::app::App;

/// How far back the records begin that were made before the start.
const HISTORY_SPAN: Duration = Duration::from_hours(1);

/// What one of them is like.
struct Plan {
    system: &'static str,
    provider: &'static str,
    system_type: SystemType,
    streams: &'static [FakeStream],
    pace: Duration,
    /// More than two of the vendor's pages.
    history: u32,
    interval_secs: i64,
    posts_webhooks: bool,
}

const PLANS: [Plan; 2] = [
    Plan {
        system: "pantry",
        provider: "aoqiwei-scm",
        system_type: SystemType::Supplier,
        streams: &[FakeStream { name: "orders", target: Target::SupplierOrders }],
        pace: Duration::from_millis(250),
        history: 1_100,
        interval_secs: 3,
        posts_webhooks: false,
    },
    Plan {
        system: "guests",
        provider: "loyverse",
        system_type: SystemType::Member,
        streams: &[
            FakeStream { name: "customers", target: Target::MemberSyncs },
            FakeStream { name: "receipts", target: Target::PosTransactions },
        ],
        pace: Duration::from_millis(150),
        history: 600,
        interval_secs: 3,
        posts_webhooks: true,
    },
];

/// Opens the vendors, each on a port of its own; `slower` by a factor while nobody waits for a verdict.
pub(super) async fn open(clock: &Clock, slower: u32) -> anyhow::Result<Vec<Simulator>> {
    let mut vendors = Vec::new();
    for (seed, plan) in (1..).zip(&PLANS) {
        let clock = clock.clone();
        let settings = Settings {
            seed,
            now: Arc::new(move || clock.now()),
            history: plan.history,
            history_span: HISTORY_SPAN,
            pace: Some(plan.pace * slower),
            faults: Faults { slow_by: Duration::from_millis(100), ..Faults::lively() },
            ..Settings::default()
        };
        vendors.push(Simulator::start(plan.provider, settings).await?);
    }
    Ok(vendors)
}

/// Configures a system for each, and has its connection tested, as a person would.
pub(super) async fn connect(
    app: &App,
    vendors: Vec<Simulator>,
    receiver: SocketAddr,
) -> anyhow::Result<Vec<DemoSystem>> {
    let store = app.store();
    let mut systems = Vec::new();
    for (plan, simulator) in PLANS.iter().zip(vendors) {
        let mut system = external_systems::blank(store, plan.system, plan.system_type, plan.provider);
        system.api_endpoint = Some(simulator.url());
        system.config.0 = simulator.config();
        system.sync_interval = Some(plan.interval_secs);
        let credentials: BTreeMap<String, SecretString> = simulator
            .credentials()
            .into_iter()
            .map(|(name, secret)| (name, SecretString::from(secret)))
            .collect();
        let secret = system::configure(app, &mut system, &credentials, plan.posts_webhooks).await?;
        if let Some(secret) = secret {
            let url = format!("http://{receiver}{}", system::webhook_path(&system));
            let url = Url::parse(&url).context("the receiver's address")?;
            simulator.post_webhooks(WebhookTarget { url, secret: secret.expose_secret().to_owned() });
        }
        systems.push(DemoSystem {
            id: system.id,
            name: plan.system.to_owned(),
            vendor: Vendor::Fake { simulator, streams: plan.streams },
            scheduled_pulls: 0,
            last_pulls: BTreeMap::new(),
            posts_webhooks: plan.posts_webhooks,
            pages_move: false,
        });
    }
    Ok(systems)
}
