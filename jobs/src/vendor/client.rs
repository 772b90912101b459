//! Calls vendors. One policy for all: time-outs, a cap on what is read, no private addresses, a shared
//! budget, secrets in no text that leaves. [`Connection::fetch_page`] is the pull's way to a page,
//! [`Connection::probe`] the connection test's way to an answer that a person understands. What a
//! failed call means for a run is decided in this module's `outcome` part and nowhere else.

mod at_once;
mod build;
mod call;
mod connect;
mod detail;
mod fetch;
mod lookup;
mod outcome;
mod partitions;
mod probe;
mod push;
mod signature;
mod token;
mod turning;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path as FilePath;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Client, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use zhilian_sync_store::{Currency, Store, SystemId};

use self::call::Call;

pub(in crate::vendor) use self::connect::read_config;
use self::connect::{budget_owner, http_client, read_auth, read_endpoint};
pub use self::detail::Undetailed;
pub use self::partitions::Partition;
pub use self::probe::ProbeReport;

pub(in crate::vendor) use self::push::whole_member;
pub(in crate::vendor) use self::signature::Asked;
use self::turning::{Turning, named};
use super::catalog::Catalog;
use super::guard::Allow;
use super::manifest::stream::partitions::ForEach;
use super::manifest::stream::window::{WindowDays, window_of_day, window_slots};
use super::manifest::{Manifest, ManifestErrors, Stream};
use super::mapping::{Mapped, Optional, Surroundings};
use super::paging::{self, PageToken, Turned};
use super::path::Path;
use super::redact::Redactor;
use super::template::Slots;
use crate::outcome::JobError;
use crate::settings::VendorSettings;

/// Every vendor, and the way to them. One per process; cheap to clone.
///
/// There is one HTTP client for all systems: credentials travel in headers that each call sets, never
/// in the client, and a client per system would read the machine's certificates once for each.
#[derive(Clone)]
pub struct Vendors(Arc<Inner>);

struct Inner {
    catalog: Catalog,
    settings: VendorSettings,
    allow: Allow,
    http: Client,
    store: Store,
}

impl fmt::Debug for Vendors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vendors").field("names", &self.0.catalog.names()).finish_non_exhaustive()
    }
}

/// Why vendors cannot be called at all.
#[derive(Debug, thiserror::Error)]
pub enum VendorsError {
    /// A manifest has mistakes.
    #[error("{0}")]
    Manifests(#[from] ManifestErrors),
    /// A setting is wrong.
    #[error("{0}")]
    Settings(String),
    /// No HTTP client can be made: the machine's certificates are missing, as a rule.
    #[error("no vendor can be called: {0}; is the package `ca-certificates` installed?")]
    Client(#[source] reqwest::Error),
}

/// One system, with its secrets opened.
pub struct ConnectionSpec {
    /// The system.
    pub system_id: SystemId,
    /// Its version: a change of credentials changes it.
    pub version: i64,
    /// Its vendor.
    pub manifest: Arc<Manifest>,
    /// Its address; the manifest's where it has none.
    pub endpoint: Option<String>,
    /// Its secrets by name.
    pub credentials: BTreeMap<String, SecretString>,
    /// Its settings.
    pub config: Map<String, Value>,
    /// The store that it belongs to, if it is one store's alone.
    pub store_id: Option<String>,
    /// The zone of times without an offset.
    pub timezone: Tz,
    /// The currency of amounts without one.
    pub currency: Currency,
}

/// One system that can be called.
pub struct Connection {
    inner: Arc<Inner>,
    manifest: Arc<Manifest>,
    system_id: SystemId,
    endpoint: Url,
    credentials: BTreeMap<String, SecretString>,
    /// As [`Value::Object`], for expressions, with the types that the manifest declares.
    config: Value,
    timezone: Tz,
    currency: Currency,
    store_id: Option<String>,
    /// What is looked up instead of the keys in our tables.
    lookup_keys: Option<Vec<String>>,
    auth: Option<(HeaderName, HeaderValue)>,
    budget_owner: String,
    redactor: Redactor,
    /// The secrets that are long enough to be taken out of records too.
    keys: Redactor,
    watcher: Option<Watcher>,
}

/// Is told of every request, without secrets.
type Watcher = Box<dyn Fn(&Value) + Send + Sync>;

/// A stretch of time: from its beginning up to, without, its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Window {
    /// Nothing for everything there is.
    pub from: Option<DateTime<Utc>>,
    /// The end.
    pub to: DateTime<Utc>,
}

/// Which page of which window of which part.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest<'a> {
    /// The part of the stream.
    pub partition: &'a Partition,
    /// The window; one day of it where the stream is read day by day.
    pub window: Window,
    /// The page; nothing for the first.
    pub next: Option<&'a PageToken>,
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// Its records, as the vendor sent them.
    pub records: Vec<Value>,
    /// Those of them that cannot be told in full: they lack their detail, or have not the shape of a record.
    pub undetailed: Vec<Undetailed>,
    /// The greatest version among them, of a stream that is read by versions.
    pub version: Option<u64>,
    /// The page after it; nothing at the end.
    pub next: Option<PageToken>,
    /// The vendor's own time, from its `Date` header.
    pub vendor_time: Option<DateTime<Utc>>,
    /// When we asked.
    pub asked_at: DateTime<Utc>,
    /// What we asked, without secrets.
    pub request_sample: Value,
    /// The beginning of the answer, without secrets.
    pub response_sample: Value,
}

impl Vendors {
    /// Reads the manifests and makes the client.
    pub fn new(settings: &VendorSettings, store: Store) -> Result<Self, VendorsError> {
        let directory = Some(settings.directory.as_str()).filter(|directory| !directory.is_empty());
        Self::with_catalog(Catalog::load(directory.map(FilePath::new))?, settings, store)
    }

    /// Makes the client for manifests that are read already.
    pub fn with_catalog(
        catalog: Catalog,
        settings: &VendorSettings,
        store: Store,
    ) -> Result<Self, VendorsError> {
        let allow = Allow::parse(&settings.allow_networks)
            .map_err(|problem| VendorsError::Settings(format!("`vendors.allow_networks`: {problem}")))?;
        let http = http_client(settings, &allow).map_err(VendorsError::Client)?;
        Ok(Self(Arc::new(Inner { catalog, settings: settings.clone(), allow, http, store })))
    }

    /// The manifests.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.0.catalog
    }

    /// The most pages of one window of a stream: what its manifest says, unless the settings say fewer.
    #[must_use]
    pub fn pages_max(&self, stream: &Stream) -> u32 {
        stream.pages_max.min(self.0.settings.pages_max)
    }

    /// Makes a system ready to be called, or says what it lacks.
    pub fn connect(&self, spec: ConnectionSpec) -> Result<Connection, JobError> {
        let manifest = spec.manifest;
        let endpoint = read_endpoint(&manifest, spec.endpoint.as_deref())?;
        let config = read_config(&manifest, &spec.config)?;
        let given =
            |name: &str| spec.credentials.get(name).is_some_and(|secret| !secret.expose_secret().is_empty());
        if let Some(missing) =
            manifest.credentials.iter().find(|wanted| wanted.required && !given(&wanted.name))
        {
            return Err(JobError::give_up(
                "credentials_missing",
                format!(
                    "{} needs `{}` ({}); enter it in the system",
                    manifest.title, missing.name, missing.label
                ),
            ));
        }
        let slots =
            Slots { config: config.as_object(), credentials: Some(&spec.credentials), ..Slots::default() };
        let (auth, derived) = read_auth(&manifest, &slots)?;
        let secrets: Vec<&str> = spec
            .credentials
            .values()
            .map(ExposeSecret::expose_secret)
            .chain(derived.as_ref().map(ExposeSecret::expose_secret))
            .collect();
        let redactor = Redactor::new(secrets.iter().copied());
        let keys = Redactor::for_records(secrets);
        let budget_owner = budget_owner(&manifest, &endpoint, &spec.credentials);
        Ok(Connection {
            inner: Arc::clone(&self.0),
            manifest,
            system_id: spec.system_id,
            endpoint,
            credentials: spec.credentials,
            config,
            timezone: spec.timezone,
            currency: spec.currency,
            store_id: spec.store_id,
            lookup_keys: None,
            auth,
            budget_owner,
            redactor,
            keys,
            watcher: None,
        })
    }
}

impl Connection {
    /// The vendor.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The text without this system's secrets.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        self.redactor.text(text)
    }

    /// The value without this system's secrets.
    pub(in crate::vendor) fn redact_json(&self, value: &Value) -> Value {
        self.redactor.json(value)
    }

    /// Calls `tell` with every request before it is sent, as its sample: token calls and refused ones too.
    #[must_use]
    pub fn watched(self, tell: impl Fn(&Value) + Send + Sync + 'static) -> Self {
        Self { watcher: Some(Box::new(tell)), ..self }
    }

    /// Asks for one page of a list, and for the details of its records.
    pub async fn fetch_page(&self, stream: &Stream, request: &PageRequest<'_>) -> Result<Page, JobError> {
        let mut page = match &stream.lookup {
            Some(lookup) => self.look_up(stream, lookup, request).await?,
            None => self.fetch_list_page(stream, request).await?,
        };
        self.lay_details(stream, request, &mut page).await?;
        Ok(page)
    }

    /// Asks for one page of a list alone.
    async fn fetch_list_page(&self, stream: &Stream, request: &PageRequest<'_>) -> Result<Page, JobError> {
        self.check_partition(stream, request.partition)?;
        let call = self.page_call(stream, request)?;
        // Whoever asks for the parts anew at each claim must not spend on them what a page costs, again and again.
        let answer = match stream.for_each.as_ref().and_then(ForEach::request) {
            Some(_) => self.call_patiently(&call).await?,
            None => self.call(&call).await?,
        };
        let call::Answer {
            url,
            mut body,
            repeats_keys,
            link,
            asked_at,
            vendor_time,
            request_sample,
            response_sample,
            ..
        } = answer;
        let elements = self.take_records(stream, &mut body)?;
        // What the vendor counts are the elements.
        let count = elements.len().try_into().unwrap_or(u64::MAX);
        let (mut records, misshapen) = stream.answer.shape.records(elements);
        partitions::lay_into(stream, request.partition, &mut records);
        if repeats_keys {
            // A row holds no secret in clear, even where the vendor sends it back to us.
            for record in &mut records {
                *record = self.keys.json(record);
            }
        }
        let version = stream.greatest_version(&records);
        let turned = Turned { body: &body, link: link.as_deref(), url: &url, records: count, version };
        let next = paging::next_page(&stream.pagination, request.next, &turned)
            .map_err(|error| JobError { message: self.redact(&error.message), ..error })?;
        let next = next.map(|next| self.without_credentials(stream, next)).transpose()?;
        let undetailed =
            misshapen.into_iter().map(|(record, reason)| Undetailed { record, reason }).collect();
        Ok(Page {
            records,
            undetailed,
            version,
            next,
            vendor_time,
            asked_at,
            request_sample,
            response_sample,
        })
    }

    /// Makes ours of a page's records. Never fails as a whole.
    #[must_use]
    pub fn map_page(&self, stream: &Stream, page: &Page) -> Mapped {
        let around = Surroundings {
            stream: &stream.name,
            config: &self.config,
            currency: self.currency,
            zone: self.timezone,
            asked_at: page.asked_at,
            optional: Optional::default(),
        };
        let mut mapped = stream.mapping.map(&page.records, &around);
        let undetailed = page.undetailed.iter();
        mapped
            .failures
            .extend(undetailed.map(|one| stream.mapping.failure(&one.record, &one.reason, &around)));
        for failure in &mut mapped.failures {
            failure.reason = self.redact(&failure.reason);
            failure.raw = self.redact(&failure.raw);
        }
        mapped
    }

    /// The days of a stream that is read day by day, as far as the window reaches.
    pub(crate) fn days(&self, stream: &Stream, window: Window) -> Option<WindowDays> {
        let from = window.from.filter(|_| stream.is_read_by_days())?;
        Some(WindowDays::of(from, window.to, stream.zone(self.timezone)))
    }

    /// What a single call is to ask for: the newest day of a stream that is read day by day, else the whole window.
    #[must_use]
    pub fn newest_of(&self, stream: &Stream, window: Window) -> Window {
        self.days(stream, window).map_or(window, |days| self.window_of_day(stream, days.last))
    }

    /// The oldest day of a stream that is read day by day, else the whole window.
    #[must_use]
    pub fn oldest_of(&self, stream: &Stream, window: Window) -> Window {
        self.days(stream, window).map_or(window, |days| self.window_of_day(stream, days.first))
    }

    /// One day of a stream as a window.
    pub(crate) fn window_of_day(&self, stream: &Stream, day: NaiveDate) -> Window {
        window_of_day(day, stream.zone(self.timezone))
    }

    /// Where a window after a watermark begins, for vendors that are told days.
    pub(crate) fn reread_from(&self, stream: &Stream, from: DateTime<Utc>) -> DateTime<Utc> {
        stream.reread_from(from, self.timezone)
    }

    fn page_slots<'a>(&'a self, stream: &'a Stream, request: &PageRequest<'a>) -> Slots<'a> {
        let turning =
            Turning { request: &stream.request, pagination: &stream.pagination, next: request.next };
        let window = window_slots(stream, request.window, self.timezone);
        self.slots(Slots {
            window_from: window.window_from,
            window_to: window.window_to,
            window_day: window.window_day,
            partition: Some(&request.partition.element),
            ..turning.slots()
        })
    }

    /// The system's own part of the placeholders.
    fn slots<'a>(&'a self, slots: Slots<'a>) -> Slots<'a> {
        Slots { config: self.config.as_object(), credentials: Some(&self.credentials), ..slots }
    }

    fn page_call<'a>(&'a self, stream: &'a Stream, request: &PageRequest<'a>) -> Result<Call<'a>, JobError> {
        let turning =
            Turning { request: &stream.request, pagination: &stream.pagination, next: request.next };
        let success = stream.answer.success.as_ref().or(self.manifest.envelope.success.as_ref());
        let mut call = self.turned_call(&turning, self.page_slots(stream, request), success, &stream.name)?;
        if let (Some(window), None) = (&stream.window, &call.link) {
            let ends = [
                (window.from_param.as_ref(), call.slots.window_from.clone()),
                (window.to_param.as_ref(), call.slots.window_to.clone()),
                (window.day_param.as_ref(), call.slots.window_day.clone()),
            ];
            call.parameters.splice(0..0, named(ends));
        }
        Ok(call)
    }

    fn take_records(&self, stream: &Stream, body: &mut Value) -> Result<Vec<Value>, JobError> {
        let paths = &stream.answer.records;
        let absent = paths.iter().all(|path| path.find(body).is_none_or(Value::is_null));
        if absent && stream.answer.absent_when_empty && body.is_object() {
            return Ok(Vec::new());
        }
        self.take_list(paths, body)
    }

    /// The first of these places that is a list.
    fn take_list(&self, paths: &[Path], body: &mut Value) -> Result<Vec<Value>, JobError> {
        let list = paths.iter().find(|path| path.find(body).is_some_and(Value::is_array));
        if let Some(Value::Array(records)) = list.and_then(|path| path.find_mut(body)) {
            return Ok(std::mem::take(records));
        }
        let found = match body {
            Value::Object(members) => {
                let names =
                    members.keys().take(12).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                format!("the answer has {names}")
            }
            _ => "the answer is no object".to_owned(),
        };
        let wanted = super::path::shown(paths);
        let message = format!(
            "{} answered without a list at {wanted}; {found}; correct the path of the records in the system's settings or the manifest",
            self.manifest.title
        );
        Err(JobError::give_up("records_missing", self.redact(&message)))
    }
}
