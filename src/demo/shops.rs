//! The demo's two tills: a simulated vendor each, and the system that is connected to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Map, Value, json};
use zhilian_sync_store::{Clock, SystemType, external_systems};

use super::system::{self, DemoSystem, Vendor};
use crate::app::App;
use crate::simulator::{FaultPlan, Simulator, SimulatorSettings, WebhookPlan, WebhookTarget};

/// The manifest of one of them; the others have their own.
const GENERIC: &str = "generic-rest";

/// How far back the sales begin that were made before the start.
const HISTORY_SPAN: Duration = Duration::from_hours(1);

/// What one shop is like.
struct Plan {
    system: &'static str,
    provider: &'static str,
    shop_name: &'static str,
    shop_id: &'static str,
    pace: Duration,
    history: u32,
    interval_secs: i64,
}

/// Different paces and schedules, and the same sale ids in each: ids are unique within a system only.
const PLANS: [Plan; 2] = [
    Plan {
        system: "noodles",
        provider: "demo-pos",
        shop_name: "牛肉面·人民路店",
        shop_id: "shop-1",
        pace: Duration::from_millis(100),
        history: 240,
        interval_secs: 2,
    },
    Plan {
        system: "hotpot",
        provider: GENERIC,
        shop_name: "老灶火锅",
        shop_id: "shop-3",
        pace: Duration::from_millis(60),
        history: 320,
        interval_secs: 2,
    },
];

/// What a person tells `generic-rest` about a till of this kind, in the system's `config`. Its windows
/// have an end, which is what makes pages move.
fn generic_config() -> Map<String, Value> {
    let config = json!({
        "path": "/v1/sales",
        "probe_path": "/v1/ping",
        "auth": "header",
        "auth_header": "X-Api-Key",
        "until_param": "updated_before",
        "success": "body.code == 0",
        "error_path": "message",
        "records_path": "data.items",
        "total_pages_path": "data.pages",
        "money_unit": "minor",
        "fields": {
            "external_id": "sale_id",
            "transaction_type": "kind",
            "subtotal": "subtotal_fen",
            "tax": "tax_fen",
            "discount": "discount_fen",
            "total": "total_fen",
            "payment_method": "pay",
            "occurred_at": "sold_at",
        },
    });
    match config {
        Value::Object(config) => config,
        _ => Map::new(),
    }
}

/// Opens the tills, each on a port of its own; `slower` by a factor while nobody waits for a verdict.
pub(super) async fn open(clock: &Clock, slower: u32) -> std::io::Result<Vec<Simulator>> {
    let mut vendors = Vec::new();
    for (seed, plan) in (1..).zip(&PLANS) {
        let settings = SimulatorSettings {
            shop_name: plan.shop_name.into(),
            shop_id: plan.shop_id.into(),
            api_key: SecretString::from(clock.new_id().simple().to_string()),
            seed,
            pace: Some(plan.pace * slower),
            history: plan.history,
            history_span: HISTORY_SPAN,
            faults: FaultPlan::lively(),
        };
        vendors.push(Simulator::start(settings, clock.clone()).await?);
    }
    Ok(vendors)
}

/// Configures a system for each vendor and has its connection tested, which makes it active and starts
/// its schedule, as a person would. Tills with a manifest of their own post to `receiver` as well.
pub(super) async fn connect(
    app: &App,
    vendors: Vec<Simulator>,
    receiver: SocketAddr,
) -> anyhow::Result<Vec<DemoSystem>> {
    let store = app.store();
    let mut systems = Vec::new();
    for (plan, vendor) in PLANS.iter().zip(vendors) {
        let mut system = external_systems::blank(store, plan.system, SystemType::Pos, plan.provider);
        let pages_move = plan.provider == GENERIC;
        if pages_move {
            system.config.0 = generic_config();
        }
        let store_id = plan.shop_id.replace("shop", "store");
        system.store_map.insert(plan.shop_id.into(), store_id.clone());
        system.store_id = Some(store_id);
        system.api_endpoint = Some(vendor.url());
        system.sync_interval = Some(plan.interval_secs);
        let credentials = BTreeMap::from([("api_key".to_owned(), vendor.api_key().clone())]);
        let posts_webhooks = plan.provider != GENERIC;
        if let Some(secret) = system::configure(app, &mut system, &credentials, posts_webhooks).await? {
            vendor.post_webhooks(WebhookTarget {
                address: receiver,
                path: system::webhook_path(&system),
                secret,
                plan: WebhookPlan::lively(),
            });
        }
        systems.push(DemoSystem {
            id: system.id,
            name: plan.system.to_owned(),
            vendor: Vendor::Till(vendor),
            scheduled_pulls: 0,
            last_pulls: BTreeMap::new(),
            posts_webhooks,
            pages_move,
        });
    }
    Ok(systems)
}
