//! What the inbox's tests stand on: manifests of their own, systems with secrets, a vendor that signs, and a
//! database that can be held.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zhilian_sync_jobs::Context;
use zhilian_sync_jobs::inbox::{Call, Inbox, Rejected};
use zhilian_sync_jobs::queue::Queue;
use zhilian_sync_jobs::settings::{EngineSettings, QueueSettings, VendorSettings, WebhookSettings};
use zhilian_sync_jobs::vendor::Vendors;
use zhilian_sync_jobs::vendor::webhook::Reply;
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::testing::{self, TestStore};
use zhilian_sync_store::webhook_events::{self, EventFilter, EventRow, WebhookEvent, WebhookState};
use zhilian_sync_store::{Clock, Pool, PoolOptions, Store, SystemId, SystemType, Tx};

/// The secret that systems have unless a test says otherwise.
pub(crate) const SECRET: &str = "whk-canary-5Qz+/1";
/// What any wait of these tests may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const REST: &str = r#"
[auth]
kind = "none"
[probe]
stream = "orders"
message = "ok"
[streams.orders]
target = "external_records"
request.path = "/orders"
answer.records = "."
mapping.fields.external_id = "id"
[[webhook.routes]]
events = ["*"]
action = "ignore"
"#;

/// Vendors, by name: what their `[webhook]` says.
const MANIFESTS: &[(&str, &str)] = &[
    (
        "till",
        r#"
[webhook]
event_key = ["body:id"]
event_type = ["body:type"]
[webhook.verification]
scheme = "hmac"
algorithm = "sha256"
encoding = "hex"
signature = "header:X-Signature"
[webhook.replies]
accepted = { status = 202, content_type = "text/plain", body = "thanks for {event.type}" }
[[webhook.handshakes]]
method = "GET"
when = "has(query.challenge)"
reply = { status = 200, content_type = "text/plain", body = "{query.challenge}" }
"#,
    ),
    (
        "stamped",
        r#"
[webhook]
event_key = ["body:id"]
[webhook.verification]
scheme = "hmac"
algorithm = "sha256"
encoding = "hex"
signature = "header:X-Signature"
content = "{timestamp}.{body}"
timestamp = "header:X-Timestamp"
timestamp_form = "unix"
tolerance_secs = 300
"#,
    ),
    (
        "silent",
        r#"
[webhook]
event_key = ["body:id"]
[webhook.verification]
scheme = "none"
"#,
    ),
    (
        "topical",
        r#"
[webhook]
event_key = ["body:id"]
event_type = ["header:X-Topic"]
[webhook.verification]
scheme = "hmac"
algorithm = "sha256"
signature = "header:X-Signature"
"#,
    ),
    (
        "addressed",
        r#"
[webhook]
event_key = ["body:id"]
[webhook.verification]
scheme = "hmac"
algorithm = "sha256"
signature = "header:X-Signature"
content = "{url}{body}"
"#,
    ),
    (
        "coded",
        r#"
[webhook]
event_key = ["body:id"]
[webhook.verification]
scheme = "static_code"
signature = "header:X-Code"
"#,
    ),
];

/// Databases, vendors and settings; an [`Inbox`] is started by [`Bench::inbox`].
pub(crate) struct Bench {
    pub(crate) store: TestStore,
    pub(crate) settings: WebhookSettings,
    folder: TempDir,
}

/// One process that receives.
pub(crate) struct Running {
    pub(crate) inbox: Inbox,
    pub(crate) ctx: Context,
    pub(crate) stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A section of `config/default.toml`.
fn section<T: serde::de::DeserializeOwned>(name: &str) -> T {
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
        for (name, webhook) in MANIFESTS {
            let meta = format!("[meta]\nname = \"{name}\"\ntitle = \"{name}\"\ntypes = [\"pos\"]\n");
            std::fs::write(folder.path().join(format!("{name}.toml")), format!("{meta}{webhook}{REST}"))
                .unwrap();
        }
        let settings = WebhookSettings {
            // A busy machine is no slow database: only tests of the deadline make it short.
            ack_deadline_max_ms: 60_000,
            ..section("webhooks")
        };
        Self { store, settings, folder }
    }

    /// A process of its own on the same database.
    pub(crate) fn inbox(&self) -> Running {
        self.inbox_on(self.store.store.clone())
    }

    pub(crate) fn inbox_on(&self, store: Store) -> Running {
        let vendors = VendorSettings {
            directory: self.folder.path().display().to_string(),
            ..section::<VendorSettings>("vendors")
        };
        let vendors = Vendors::new(&vendors, store.clone()).unwrap_or_else(|error| panic!("{error}"));
        let queue_settings: QueueSettings = section("queue");
        let queue = Queue::memory(&queue_settings);
        let engine: EngineSettings = section("engine");
        let ctx = Context::new(store, queue, vendors, engine, queue_settings, self.settings.clone());
        let stop = CancellationToken::new();
        let inbox = Inbox::start(&ctx, &self.settings, stop.clone());
        Running { inbox, ctx, stop }
    }

    /// A process whose connections to `PostgreSQL` go by another address.
    pub(crate) async fn inbox_by(&self, url: &str) -> Running {
        let options = PoolOptions { acquire_timeout: Duration::from_secs(1), ..PoolOptions::default() };
        let pool = Pool::connect(url, options).await.unwrap();
        self.inbox_on(Store::new(pool, self.store.clock().clone(), testing::vault()))
    }

    /// A system of the vendor `till` with one secret.
    pub(crate) async fn till(&self) -> SystemId {
        self.system("till", |_| {}, &[("webhook_secret", SECRET)]).await
    }

    pub(crate) async fn system(
        &self,
        provider: &str,
        change: impl FnOnce(&mut ExternalSystem),
        secrets: &[(&str, &str)],
    ) -> SystemId {
        let mut system = external_systems::blank(&self.store, "Till", SystemType::Pos, provider);
        change(&mut system);
        external_systems::set_webhook_secrets(&self.store, &mut system, &map(secrets)).unwrap();
        let mut tx = self.store.begin().await.unwrap();
        external_systems::insert(&mut tx, &system).await.unwrap();
        tx.commit().await.unwrap();
        system.id
    }

    /// Changes a system as the edge does: its version counts up.
    pub(crate) async fn change(&self, id: SystemId, change: impl FnOnce(&Store, &mut ExternalSystem)) {
        let mut system = external_systems::get(&self.store, id).await.unwrap();
        change(&self.store, &mut system);
        let mut tx = self.store.begin().await.unwrap();
        external_systems::save(&mut tx, &system, None, self.store.clock().now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) async fn set_secrets(&self, id: SystemId, secrets: &[(&str, &str)]) {
        self.change(id, |store, system| {
            external_systems::set_webhook_secrets(store, system, &map(secrets)).unwrap();
        })
        .await;
    }

    /// Every event of a system, newest first.
    pub(crate) async fn rows(&self, system: SystemId) -> Vec<EventRow> {
        let filter = EventFilter { system_id: Some(system), limit: 501, ..EventFilter::default() };
        webhook_events::list(&self.store, &filter).await.unwrap()
    }

    /// The rows once so many deliveries are counted on them: that comes after the answers.
    pub(crate) async fn rows_of(&self, system: SystemId, deliveries: i64) -> Vec<EventRow> {
        let started = Instant::now();
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            let rows = self.rows(system).await;
            let counted: i64 = rows.iter().map(|row| row.deliveries).sum();
            if counted == deliveries {
                return rows;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{counted} of {deliveries} are counted within {PATIENCE:?}"
            );
            look.tick().await;
        }
    }

    pub(crate) async fn only(&self, system: SystemId) -> WebhookEvent {
        let rows = self.rows(system).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        webhook_events::get(&self.store, rows[0].id).await.unwrap()
    }

    pub(crate) async fn count(&self, system: SystemId, state: WebhookState) -> usize {
        self.rows(system).await.iter().filter(|row| row.state == state).count()
    }

    /// Holds what every insert of an event needs, until the transaction is dropped.
    pub(crate) async fn hold(&self) -> Tx {
        testing::hold(&self.store, "webhook_events").await
    }
}

fn map(secrets: &[(&str, &str)]) -> BTreeMap<String, SecretString> {
    secrets.iter().map(|(name, secret)| ((*name).to_owned(), SecretString::from(*secret))).collect()
}

/// A request to a system, unsigned.
pub(crate) fn unsigned(system: SystemId, body: &str) -> Call {
    Call {
        system,
        system_type: SystemType::Pos,
        method: "POST".into(),
        path: format!("/api/v1/integrations/webhooks/pos/{system}"),
        query: String::new(),
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        public_url: Arc::from("https://sync.example.com"),
    }
}

/// The same, signed by a secret.
pub(crate) fn signed_by(system: SystemId, body: &str, secret: &str) -> Call {
    let signature = hex::encode(hmac_sha256(secret.as_bytes(), body.as_bytes()));
    with_header(unsigned(system, body), "x-signature", &signature)
}

/// The same, signed by [`SECRET`].
pub(crate) fn signed(system: SystemId, body: &str) -> Call {
    signed_by(system, body, SECRET)
}

/// An event with this id.
pub(crate) fn event(id: impl std::fmt::Display) -> String {
    format!(r#"{{"id":"{id}","type":"order.created","total":"29.80"}}"#)
}

pub(crate) fn with_header(mut call: Call, name: &'static str, value: &str) -> Call {
    call.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    call
}

/// RFC 2104, written down once more so that the tests do not ask the code under test.
pub(crate) fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    assert!(key.len() <= 64, "longer keys are hashed first, which no test needs");
    let pad = |with: u8| {
        let mut padded = [with; 64];
        for (place, byte) in padded.iter_mut().zip(key) {
            *place ^= byte;
        }
        padded
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

/// Makes a request without waiting for its answer.
pub(crate) fn send(inbox: &Inbox, call: Call) -> JoinHandle<Result<Reply, Rejected>> {
    let inbox = inbox.clone();
    tokio::spawn(async move { inbox.receive(call).await })
}

/// The status that was answered.
pub(crate) fn status(answer: &Result<Reply, Rejected>) -> Result<u16, Rejected> {
    answer.as_ref().map(|reply| reply.status).map_err(|rejected| *rejected)
}

/// Waits until `holds`, and says what was waited for if it never does.
pub(crate) async fn within(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    let mut look = tokio::time::interval(Duration::from_millis(5));
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        look.tick().await;
    }
}
