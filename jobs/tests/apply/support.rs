//! What the applying tests stand on: a vendor with every kind of route, systems of it, events as the
//! receiving half leaves them, and a vendor on loopback for the thin ones.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use zhilian_sync_jobs::Context;
use zhilian_sync_jobs::inbox::apply;
use zhilian_sync_jobs::queue::Queue;
use zhilian_sync_jobs::settings::{EngineSettings, QueueSettings, VendorSettings, WebhookSettings};
use zhilian_sync_jobs::testing::{drain, due};
use zhilian_sync_jobs::vendor::{Vendors, read_json};
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::pos_transactions::{self, PosTransaction};
use zhilian_sync_store::sync_logs::{self, Run};
use zhilian_sync_store::testing::{self, TestStore};
use zhilian_sync_store::webhook_events::{
    self, AcceptedBy, EventFilter, EventRow, NewEvent, Received, WebhookEvent, WebhookState,
};
use zhilian_sync_store::{Clock, EventId, RunId, Store, SystemId, SystemType};

/// The vendor of these tests.
const MANIFEST: &str = r#"
[meta]
name = "acme"
title = "Acme"
types = ["pos"]

[auth]
kind = "none"

[probe]
stream = "orders"
message = "ok"

[limits.orders]
requests = 2
per_secs = 60

[streams.orders]
target = "pos_transactions"
request.path = "/orders"
request.limit = "orders"
answer.records = "items"

[streams.orders.one]
path = "/orders/{event.data.id}"
limit = "orders"
record = "order"

[streams.orders.mapping]
money_unit = "major"

[streams.orders.mapping.fields]
external_id = "id"
total = "total"
occurred_at = "at"
version_at = "updated"
shop = "shop"
payment_method = "pay"

[streams.bookings]
target = "external_records"
request.path = "/bookings"
answer.records = "items"
one.path = "/bookings/{event.data.id}"
one.record = "booking"
mapping.fields.external_id = "id"
mapping.fields.status = "state"
mapping.fields.version_at = "updated"

[webhook]
event_key = ["body:event_id"]
event_type = ["body:type"]

[webhook.verification]
scheme = "none"

[[webhook.routes]]
events = ["order.saved", "order.batch"]
action = "record"
stream = "orders"
records = ["data"]

[[webhook.routes]]
events = ["booking.saved"]
action = "record"
stream = "bookings"
records = ["data"]

[[webhook.routes]]
events = ["order.voided"]
action = "patch"
stream = "orders"
records = ["data"]
status = { value = "void" }

[[webhook.routes]]
events = ["order.deleted"]
action = "delete"
stream = "orders"
records = ["data"]

[[webhook.routes]]
events = ["order.erased"]
action = "delete"
stream = "orders"
records = ["data"]
key = "id"

[[webhook.routes]]
events = ["order.named"]
action = "fetch"
stream = "orders"

[[webhook.routes]]
events = ["booking.named"]
action = "fetch"
stream = "bookings"

[[webhook.routes]]
events = ["orders.changed"]
action = "pull"
stream = "orders"

[[webhook.routes]]
events = ["ping"]
action = "ignore"
"#;

/// One installation.
pub(crate) struct Bench {
    pub(crate) ctx: Context,
    store: TestStore,
    folder: TempDir,
}

/// A section of `config/default.toml`.
pub(crate) fn section<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let defaults: toml::Table = include_str!("../../../config/default.toml").parse().unwrap();
    defaults[name].clone().try_into().unwrap()
}

impl Bench {
    pub(crate) async fn sqlite() -> Self {
        Self::on(testing::sqlite(Clock::fake(testing::noon())).await)
    }

    pub(crate) async fn postgres() -> Option<Self> {
        testing::postgres(Clock::fake(testing::noon())).await.map(Self::on)
    }

    fn on(store: TestStore) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("acme.toml"), MANIFEST).unwrap();
        let ctx = context(&store.store, &folder, None);
        Self { ctx, store, folder }
    }

    /// Another process on the same database.
    pub(crate) fn process(&self, queue: Option<Queue>) -> Context {
        context(&self.store, &self.folder, queue)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.store.clock().now()
    }

    pub(crate) fn advance(&self, by: TimeDelta) {
        self.store.clock().advance(by);
    }

    /// Other settings of the inbox, for this process.
    pub(crate) fn set(&mut self, change: impl FnOnce(&mut WebhookSettings)) {
        change(std::sync::Arc::make_mut(&mut self.ctx.webhooks));
    }

    pub(crate) async fn drain(&self) {
        drain(&self.ctx).await;
    }

    /// Drains, and again whenever an event or a run waits for its time, until nothing does.
    pub(crate) async fn drain_to_the_end(&self) {
        for _ in 0..40 {
            self.drain().await;
            let waiting = self.in_state(WebhookState::Pending).await;
            let Some(next) =
                waiting.iter().map(|event| event.run_at.max(event.lease_until.unwrap_or(event.run_at))).min()
            else {
                return;
            };
            self.advance((next - self.now()).max(TimeDelta::zero()) + TimeDelta::milliseconds(1));
        }
        panic!("events still wait: {:?}", self.in_state(WebhookState::Pending).await);
    }

    /// A system of the vendor.
    pub(crate) async fn system(&self) -> SystemId {
        self.system_with(|_| {}).await
    }

    pub(crate) async fn system_with(&self, change: impl FnOnce(&mut ExternalSystem)) -> SystemId {
        let mut system = external_systems::blank(&self.store, "Till", SystemType::Pos, "acme");
        system.sync_enabled = false;
        system.api_endpoint = Some("http://127.0.0.1:1".into());
        change(&mut system);
        let mut tx = self.store.begin().await.unwrap();
        external_systems::insert(&mut tx, &system).await.unwrap();
        tx.commit().await.unwrap();
        system.id
    }

    /// Changes a system as the edge does: its version counts up.
    pub(crate) async fn change(&self, id: SystemId, change: impl FnOnce(&mut ExternalSystem)) {
        let mut system = self.read_system(id).await;
        change(&mut system);
        let mut tx = self.store.begin().await.unwrap();
        external_systems::save(&mut tx, &system, None, self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) async fn read_system(&self, id: SystemId) -> ExternalSystem {
        external_systems::get(&self.store, id).await.unwrap()
    }

    /// Leaves events as the receiving half does: verified, pending, received now.
    pub(crate) async fn receive(&self, system: SystemId, bodies: &[Value]) -> Vec<EventId> {
        let bodies: Vec<Vec<u8>> = bodies.iter().map(|body| body.to_string().into_bytes()).collect();
        self.receive_raw(system, bodies).await
    }

    pub(crate) async fn receive_raw(&self, system: SystemId, bodies: Vec<Vec<u8>>) -> Vec<EventId> {
        let version = external_systems::find_version(&self.store, system).await.unwrap().unwrap();
        let events: Vec<NewEvent> =
            bodies.into_iter().map(|body| self.new_event(system, version, body)).collect();
        let received = webhook_events::insert_batch(&self.store, &events).await.unwrap().received;
        assert!(received.iter().all(|one| matches!(one, Received::New)), "{received:?}");
        events.iter().map(|event| event.id).collect()
    }

    pub(crate) fn new_event(&self, system_id: SystemId, system_version: i64, body: Vec<u8>) -> NewEvent {
        let read = std::str::from_utf8(&body).ok().and_then(|text| read_json(text).ok()).unwrap_or_default();
        let id = EventId(self.store.clock().new_id());
        let event_key = read["event_id"].as_str().map_or_else(|| id.to_string(), str::to_owned);
        NewEvent {
            id,
            system_id,
            system_version,
            fingerprint: webhook_events::fingerprint(system_id, &event_key, "", &body, None),
            event_key,
            event_type: read["type"].as_str().map(str::to_owned),
            accepted_by: Some(AcceptedBy::Verification),
            error: None,
            body,
            request: "{}".into(),
            sealed_request: None,
            received_at: self.now(),
        }
    }

    pub(crate) async fn event(&self, id: EventId) -> WebhookEvent {
        webhook_events::get(&self.store, id).await.unwrap()
    }

    /// Every event, newest first.
    pub(crate) async fn events(&self) -> Vec<EventRow> {
        let filter = EventFilter { limit: webhook_events::PAGE_MAX, ..EventFilter::default() };
        webhook_events::list(&self.store, &filter).await.unwrap()
    }

    pub(crate) async fn in_state(&self, state: WebhookState) -> Vec<EventRow> {
        self.events().await.into_iter().filter(|event| event.state == state).collect()
    }

    /// What is stored of an order.
    pub(crate) async fn order(&self, system: SystemId, id: &str) -> Option<PosTransaction> {
        pos_transactions::find_by_external_id(&self.store, system, id).await.unwrap()
    }

    /// How many orders of a system are there and not gone.
    pub(crate) async fn orders(&self, system: SystemId) -> i64 {
        let tally = pos_transactions::tally(&self.store, system).await.unwrap();
        assert_eq!(tally.count, tally.distinct_ids, "none is doubled");
        tally.count
    }

    pub(crate) async fn run(&self, id: RunId) -> Run {
        sync_logs::get(&self.store, id).await.unwrap()
    }

    /// Every run and log, newest first.
    pub(crate) async fn runs(&self) -> Vec<Run> {
        let filter = sync_logs::Filter { limit: 500, ..sync_logs::Filter::default() };
        let runs = sync_logs::list(&self.store, &filter).await.unwrap();
        runs.into_iter().filter(|run| run.kind != "upkeep").collect()
    }

    /// The logs of minutes of webhooks.
    pub(crate) async fn minutes(&self) -> Vec<Run> {
        self.runs().await.into_iter().filter(|run| run.kind == "apply_webhooks").collect()
    }

    /// Claims everything due, as a worker does that then falls silent.
    pub(crate) async fn claim_and_fall_silent(&self) -> Vec<WebhookEvent> {
        let now = self.now();
        webhook_events::claim_batch(&self.store, "silent", now + self.ctx.lease(), now, 1_000).await.unwrap()
    }

    /// One ring of the lane, answered by this process.
    pub(crate) async fn work(&self) -> usize {
        apply::work(&self.ctx, &CancellationToken::new()).await
    }

    /// At the end of a test nothing is left undone.
    pub(crate) async fn is_quiet(&self) {
        assert!(due(&self.ctx).await.is_empty(), "runs are still due");
        assert!(!webhook_events::has_due(&self.store, self.now()).await.unwrap(), "events are still due");
    }
}

fn context(store: &Store, folder: &TempDir, queue: Option<Queue>) -> Context {
    let vendors = VendorSettings {
        directory: folder.path().display().to_string(),
        allow_networks: vec!["127.0.0.1/32".into()],
        timeout_secs: 5,
        read_timeout_secs: 2,
        ..section("vendors")
    };
    let vendors = Vendors::new(&vendors, store.clone()).unwrap_or_else(|error| panic!("{error}"));
    let queue_settings: QueueSettings = section("queue");
    let queue = queue.unwrap_or_else(|| Queue::memory(&queue_settings));
    let engine: EngineSettings = section("engine");
    Context::new(store.clone(), queue, vendors, engine, queue_settings, section("webhooks"))
}

/// So many seconds after noon, as the vendor writes it.
pub(crate) fn at(seconds: i64) -> String {
    (testing::noon() + TimeDelta::seconds(seconds)).to_rfc3339()
}

/// An order as the vendor shows it, in the version of so many seconds after noon.
pub(crate) fn order(id: &str, total: &str, updated: i64) -> Value {
    json!({ "id": id, "total": total, "at": at(-3_600), "updated": at(updated) })
}

/// An event of an order or of several.
pub(crate) fn event(kind: &str, data: &Value) -> Value {
    json!({ "type": kind, "data": data })
}

/// An order is new or has changed.
pub(crate) fn saved(id: &str, total: &str, updated: i64) -> Value {
    event("order.saved", &order(id, total, updated))
}
