//! The whole service in one process for a test: a fresh database, a clock that stands still, the queue in
//! memory, and a client without a socket.

use std::fmt::Write as _;

use chrono::TimeDelta;
use poem::endpoint::BoxEndpoint;
use poem::http::Method;
use poem::test::{TestClient, TestResponse};
use poem::{Body, EndpointExt as _, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use zhilian_sync::api;
use zhilian_sync::app::App;
use zhilian_sync::config::Settings;
use zhilian_sync_jobs::queue::Queue;
use zhilian_sync_jobs::vendor::Vendors;
use zhilian_sync_store::sessions::{self, NewSession};
use zhilian_sync_store::testing::{self, TestStore};
use zhilian_sync_store::users::{self, NewUser};
use zhilian_sync_store::{Clock, Pool, PoolOptions, Role, Store, passwords};

#[path = "documented.rs"]
mod documented;

/// The request id that every request of a test has.
const REQUEST_ID: &str = "test";

/// The service. Dropping it fails the test while runs are due, unless [`TestApp::leave_work`] was called.
pub(crate) struct TestApp {
    pub(crate) app: App,
    client: TestClient<BoxEndpoint<'static, Response>>,
    store: TestStore,
    may_leave_work: bool,
}

/// What was answered.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl TestApp {
    /// On SQLite.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// On SQLite, with other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::on(testing::sqlite(Clock::fake(testing::noon())).await, change)
    }

    /// One on every database there is.
    pub(crate) async fn every() -> Vec<Self> {
        Self::every_with(|_| {}).await
    }

    /// One on every database there is, with other settings.
    pub(crate) async fn every_with(change: impl Fn(&mut Settings)) -> Vec<Self> {
        let stores = testing::every(|| Clock::fake(testing::noon())).await;
        stores.into_iter().map(|store| Self::on(store, &change)).collect()
    }

    fn on(store: TestStore, change: impl FnOnce(&mut Settings)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut settings = Settings::embedded();
        settings.vendors.allow_networks = vec!["127.0.0.1/32".to_owned()];
        settings.engine.max_attempts = 1;
        change(&mut settings);
        let queue = Queue::memory(&settings.queue);
        let vendors = Vendors::new(&settings.vendors, store.store.clone()).unwrap();
        let app = App::from_parts(settings, store.store.clone(), queue, vendors);
        let client = TestClient::new(api::endpoint(&app).boxed());
        Self { app, client, store, may_leave_work: false }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// What a process would be started with to use the same database.
    pub(crate) fn database_url(&self) -> &str {
        &self.store.url
    }

    /// Moves the clock.
    pub(crate) fn advance(&self, by: TimeDelta) {
        self.store.clock().advance(by);
    }

    /// Runs everything that is due.
    pub(crate) async fn drain(&self) {
        zhilian_sync_jobs::testing::drain(self.app.context()).await;
    }

    /// Lets the test end with runs that nobody has worked on.
    pub(crate) fn leave_work(&mut self) {
        self.may_leave_work = true;
    }

    /// A signed-in user of this role, made on the spot; without the slow password.
    pub(crate) async fn token(&self, role: Role, store_id: Option<&str>) -> String {
        let clock = self.store.clock();
        let username = format!("{role}-{}", store_id.unwrap_or("chain"));
        let mut tx = self.store.begin().await.unwrap();
        let known = users::find_by_username(&self.store, &username).await.unwrap();
        let user = if let Some(user) = known {
            user
        } else {
            let new = NewUser { username: &username, password_hash: "none", role, store_id };
            users::insert(&mut tx, clock, new).await.unwrap()
        };
        let (token, token_hash) = passwords::new_token();
        let new = NewSession {
            user_id: user.id,
            token_hash,
            address: None,
            user_agent: None,
            expires_at: clock.now() + TimeDelta::hours(12),
        };
        sessions::insert(&mut tx, clock, new).await.unwrap();
        tx.commit().await.unwrap();
        token.expose_secret().to_owned()
    }

    /// The token of an admin who sees the whole chain.
    pub(crate) async fn admin(&self) -> String {
        self.token(Role::Admin, None).await
    }

    /// Makes a user who can sign in.
    pub(crate) async fn user(&self, username: &str, password: &str, role: Role) {
        let hash = passwords::hash(&SecretString::from(password)).unwrap();
        let mut tx = self.store.begin().await.unwrap();
        let new = NewUser { username, password_hash: &hash, role, store_id: None };
        users::insert(&mut tx, self.store.clock(), new).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answered {
        self.send(Method::GET, path, Some(token), None).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: &Value) -> Answered {
        self.send(Method::POST, path, Some(token), Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, token: &str, body: &Value) -> Answered {
        self.send(Method::PUT, path, Some(token), Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str, token: &str) -> Answered {
        self.send(Method::DELETE, path, Some(token), None).await
    }

    /// Any request to a path below `/api/v1`.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Answered {
        let token = token.map(|token| ("authorization", format!("Bearer {token}")));
        let headers: Vec<(&str, String)> = token.into_iter().collect();
        let body = body.map(|body| ("application/json", body.to_string()));
        self.send_raw(method, &format!("{}{path}", api::BASE), &headers, body).await
    }

    /// Any request at all.
    pub(crate) async fn send_raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Option<(&str, String)>,
    ) -> Answered {
        let mut request = self.client.request(method.clone(), path).header("x-request-id", REQUEST_ID);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some((content_type, body)) = body {
            request = request.content_type(content_type).body(body);
        }
        let answered = Answered::read(request.send().await).await;
        documented::check(&self.app, &method, path, &answered);
        answered
    }

    /// An answer that is not read to its end, because it may have none.
    pub(crate) async fn open(&self, path: &str, token: &str, headers: &[(&str, String)]) -> TestResponse {
        let mut request = self.client.get(format!("{}{path}", api::BASE)).header("x-request-id", REQUEST_ID);
        request = request.header("authorization", format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        request.send().await
    }

    /// Any request with a body of any form, which says of itself only what the headers say.
    pub(crate) async fn send_body(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Body,
    ) -> Answered {
        let mut request = self.client.request(method.clone(), path).header("x-request-id", REQUEST_ID);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let answered = Answered::read(request.body(body).send().await).await;
        documented::check(&self.app, &method, path, &answered);
        answered
    }

    /// The id of a new POS system.
    pub(crate) async fn system(&self, token: &str, body: Value) -> String {
        let mut whole = serde_json::json!({"name": "Till", "type": "pos", "provider": "demo-pos"});
        for (key, value) in body.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let made = self.post("/integrations/systems", token, &whole).await;
        assert_eq!(made.status, 200, "{}", made.text);
        made.json()["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if self.may_leave_work || std::thread::panicking() {
            return;
        }
        let (mut context, url) = (self.app.context().clone(), self.store.url.clone());
        // A runtime and connections of its own: dropping happens where nothing can be awaited.
        let looking = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let pool = Pool::connect(&url, PoolOptions::default()).await.unwrap();
                context.store = Store::new(pool, context.clock().clone(), testing::vault());
                let due = zhilian_sync_jobs::testing::due(&context).await;
                context.store.close().await;
                due
            })
        });
        let due = looking.join().unwrap();
        assert!(due.is_empty(), "runs are still due at the end of the test: {due:?}");
    }
}

impl Answered {
    pub(crate) async fn read(response: TestResponse) -> Self {
        let status = response.0.status().as_u16();
        let headers = response.0.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        let headers = headers.collect();
        let text = response.0.into_body().into_string().await.unwrap();
        Self { status, headers, text }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Status, the headers that differ from request to request, and the body; ids numbered.
    pub(crate) fn show(&self) -> String {
        let mut shown = format!("{}\n", self.status);
        for name in ["allow", "link", "retry-after", "set-cookie", "www-authenticate"] {
            if let Some(value) = self.header(name) {
                writeln!(shown, "{name}: {value}").unwrap();
            }
        }
        let body = serde_json::from_str::<Value>(&self.text);
        shown.push_str(
            &body.map_or_else(|_| self.text.clone(), |json| serde_json::to_string_pretty(&json).unwrap()),
        );
        number_ids(&shown)
    }
}

/// Replaces each UUID by `id-1`, `id-2`, … in the order they appear.
fn number_ids(text: &str) -> String {
    let mut seen: Vec<String> = Vec::new();
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = find_id(rest) {
        let id = &rest[at..at + 36];
        let number = seen.iter().position(|known| known == id).unwrap_or_else(|| {
            seen.push(id.to_owned());
            seen.len() - 1
        });
        write!(shown, "{}id-{}", &rest[..at], number + 1).unwrap();
        rest = &rest[at + 36..];
    }
    shown + rest
}

fn find_id(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len().saturating_sub(35)).find(|at| {
        bytes[*at..at + 36].iter().enumerate().all(|(index, byte)| {
            if matches!(index, 8 | 13 | 18 | 23) { *byte == b'-' } else { byte.is_ascii_hexdigit() }
        })
    })
}
