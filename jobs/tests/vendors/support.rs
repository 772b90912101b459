//! A connection to the vendor on loopback.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde_json::Value;
use tempfile::TempDir;
use zhilian_sync_jobs::JobError;
use zhilian_sync_jobs::settings::VendorSettings;
use zhilian_sync_jobs::vendor::{
    Connection, ConnectionSpec, CursorGuard, Manifest, Page, PageRequest, Partition, Stream, Vendors, Window,
    check_file,
};
use zhilian_sync_store::testing::{TestStore, noon, refuse_filled, sqlite, texts};
use zhilian_sync_store::{Clock, Currency, Store, SystemId};

/// The secret of every test: it must be found nowhere.
pub(crate) const KEY: &str = "sk-canary-7Jx+/9q";

/// The only part of a stream that has no others.
pub(crate) const WHOLE: Partition = Partition::whole();

/// What a test of the client needs; the database and the manifests live as long as it does.
pub(crate) struct Bench {
    pub(crate) vendors: Vendors,
    pub(crate) settings: VendorSettings,
    store: TestStore,
    folder: TempDir,
}

impl Bench {
    /// With loopback allowed.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}, "").await
    }

    /// With other settings, and the manifest `test`.
    pub(crate) async fn with(change: impl FnOnce(&mut VendorSettings), manifest: &str) -> Self {
        let store = sqlite(Clock::fake(noon())).await;
        let folder = tempfile::tempdir().unwrap();
        if !manifest.is_empty() {
            std::fs::write(folder.path().join("test.toml"), manifest).unwrap();
        }
        let mut settings = VendorSettings {
            directory: folder.path().display().to_string(),
            allow_networks: vec!["127.0.0.1".into()],
            connect_timeout_secs: 2,
            read_timeout_secs: 2,
            timeout_secs: 2,
            response_bytes_max: 1024 * 1024,
            pages_max: 100,
            retry_after_max_secs: 60,
            sample_bytes_max: 512,
        };
        change(&mut settings);
        let vendors = Vendors::new(&settings, store.store.clone()).unwrap_or_else(|error| panic!("{error}"));
        Self { vendors, settings, store, folder }
    }

    /// What another process of the installation would be given.
    pub(crate) fn store(&self) -> Store {
        self.store.store.clone()
    }

    /// Under which keys tokens are kept.
    pub(crate) async fn token_keys(&self) -> Vec<String> {
        texts(&self.store, "vendor_tokens", "key").await
    }

    /// Makes the database refuse tokens: a turn can be had, and nothing can be kept.
    pub(crate) async fn refuse_tokens(&self) {
        refuse_filled(&self.store, "vendor_tokens", "sealed").await;
    }

    /// The time of every call.
    pub(crate) fn clock(&self) -> &Clock {
        self.store.clock()
    }

    pub(crate) fn spec(&self, provider: &str, endpoint: &str, config: &Value) -> ConnectionSpec {
        let config = config.as_object().unwrap().clone();
        let manifest =
            self.vendors.catalog().resolve(provider, &config).unwrap_or_else(|error| panic!("{error}"));
        ConnectionSpec {
            system_id: SystemId(self.store.clock().new_id()),
            version: 1,
            manifest,
            endpoint: Some(endpoint.to_owned()),
            credentials: BTreeMap::from([("api_key".to_owned(), SecretString::from(KEY))]),
            config,
            store_id: None,
            timezone: chrono_tz::Asia::Shanghai,
            currency: Currency::CNY,
        }
    }

    pub(crate) fn connect(&self, provider: &str, endpoint: &str, config: &Value) -> Connection {
        self.vendors.connect(self.spec(provider, endpoint, config)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The folder of manifests, for looking that nothing was left there.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

/// The window of every test.
pub(crate) fn window() -> Window {
    let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    Window { from: Some(at("2026-01-01T00:00:00Z")), to: at("2026-01-02T00:00:00.500Z") }
}

/// The first page of a stream.
pub(crate) async fn first_page(connection: &Connection, stream: &str) -> Result<Page, JobError> {
    let stream = connection.manifest().stream(stream).unwrap();
    connection.fetch_page(stream, &PageRequest { partition: &WHOLE, window: window(), next: None }).await
}

/// Every page of a stream, as a pull walks them.
pub(crate) async fn all_pages(connection: &Connection, stream: &Stream) -> Result<Vec<Page>, JobError> {
    let mut guard = CursorGuard::new(stream.pages_max);
    let mut pages: Vec<Page> = Vec::new();
    loop {
        let next = pages.last().and_then(|page| page.next.clone());
        if let Some(next) = &next {
            guard.check(next)?;
        } else if !pages.is_empty() {
            return Ok(pages);
        }
        pages.push(
            connection
                .fetch_page(stream, &PageRequest { partition: &WHOLE, window: window(), next: next.as_ref() })
                .await?,
        );
    }
}

/// Every id of some pages, in order.
pub(crate) fn ids(pages: &[Page]) -> Vec<String> {
    let records = pages.iter().flat_map(|page| &page.records);
    records
        .map(|record| record["id"].as_str().map_or_else(|| record["id"].to_string(), str::to_owned))
        .collect()
}

/// No form of the secret is in the text.
pub(crate) fn assert_no_secret(text: &str) {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let encoded: String = url::form_urlencoded::byte_serialize(KEY.as_bytes()).collect();
    let forms = [
        KEY.to_owned(),
        STANDARD.encode(KEY),
        URL_SAFE_NO_PAD.encode(KEY),
        hex::encode(KEY),
        encoded,
        "canary".into(),
    ];
    for form in forms {
        assert!(!text.contains(&form), "`{form}` is in {text}");
    }
}

/// A manifest with one list, for what the embedded ones do not do.
pub(crate) fn manifest(rest: &str) -> String {
    format!(
        "[meta]\nname = 'test'\ntitle = 'Acme'\ntypes = ['pos']\n\
         [credentials.api_key]\nlabel = 'Key'\n\
         [auth]\nkind = 'bearer'\ntoken = '{{credential.api_key}}'\n\
         [probe]\nstream = 'list'\nmessage = 'ok'\n\
         [streams.list]\ntarget = 'external_records'\nmapping.fields.external_id = 'id'\n\
         {rest}"
    )
}

/// The manifest `test` of this text, or all that is wrong with it.
pub(crate) fn read(text: &str) -> Result<Arc<Manifest>, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.toml");
    std::fs::write(&file, text).unwrap();
    check_file(&file, None).map(|report| report.manifest).map_err(|errors| errors.to_string())
}
