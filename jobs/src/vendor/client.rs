//! Calls vendors. One policy for all: time-outs, a cap on what is read, no private addresses, a shared
//! budget, secrets in no text that leaves. [`Connection::fetch_page`] is the pull's way to a page,
//! [`Connection::probe`] the connection test's way to an answer that a person understands. What a
//! failed call means for a run is decided in this module's `outcome` part and nowhere else.

mod build;
mod call;
mod connect;
mod fetch;
mod outcome;
mod probe;
mod push;
mod signature;
mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path as FilePath;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Client, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use zhilian_sync_store::{Currency, Store, SystemId};

use self::call::Call;

pub(in crate::vendor) use self::connect::read_config;
use self::connect::{budget_owner, http_client, read_auth, read_endpoint};
pub use self::probe::ProbeReport;

pub(in crate::vendor) use self::push::whole_member;
pub(in crate::vendor) use self::signature::Asked;
use super::catalog::Catalog;
use super::guard::Allow;
use super::manifest::stream::window_slots;
use super::manifest::{Manifest, ManifestErrors, PagingStyle, Stream};
use super::mapping::{Mapped, Optional, Surroundings};
use super::paging::{self, PageToken, Turned};
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

/// Which page of which window.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest<'a> {
    /// The window.
    pub window: Window,
    /// The page; nothing for the first.
    pub next: Option<&'a PageToken>,
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// Its records, as the vendor sent them.
    pub records: Vec<Value>,
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

    /// Asks for one page of a list.
    pub async fn fetch_page(&self, stream: &Stream, request: &PageRequest<'_>) -> Result<Page, JobError> {
        let answer = self.call(&self.page_call(stream, request)?).await?;
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
        let mut records = self.take_records(stream, &mut body)?;
        if repeats_keys {
            // A row holds no secret in clear, even where the vendor sends it back to us.
            for record in &mut records {
                *record = self.keys.json(record);
            }
        }
        let turned = Turned {
            body: &body,
            link: link.as_deref(),
            url: &url,
            records: records.len().try_into().unwrap_or(u64::MAX),
        };
        let next = paging::next_page(&stream.pagination, request.next, &turned)
            .map_err(|error| JobError { message: self.redact(&error.message), ..error })?;
        let next = next.map(|next| self.without_credentials(stream, next)).transpose()?;
        Ok(Page { records, next, vendor_time, asked_at, request_sample, response_sample })
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
        for failure in &mut mapped.failures {
            failure.reason = self.redact(&failure.reason);
            failure.raw = self.redact(&failure.raw);
        }
        mapped
    }

    fn page_slots<'a>(&'a self, stream: &Stream, request: &PageRequest<'a>) -> Slots<'a> {
        let pagination = &stream.pagination;
        let mut slots = Slots {
            page_size: pagination.size,
            page_number: (pagination.style == PagingStyle::Page).then_some(pagination.first_page),
            page_offset: (pagination.style == PagingStyle::Offset).then_some(0),
            ..self.slots(window_slots(stream, request.window, self.timezone))
        };
        match request.next {
            Some(PageToken::Page(number)) => slots.page_number = Some(*number),
            Some(PageToken::Offset(offset)) => slots.page_offset = Some(*offset),
            Some(PageToken::Cursor(cursor)) => slots.page_cursor = Some(cursor),
            Some(PageToken::Link(_)) | None => {}
        }
        slots
    }

    /// The system's own part of the placeholders.
    fn slots<'a>(&'a self, slots: Slots<'a>) -> Slots<'a> {
        Slots { config: self.config.as_object(), credentials: Some(&self.credentials), ..slots }
    }

    fn page_call<'a>(&'a self, stream: &'a Stream, request: &PageRequest<'a>) -> Result<Call<'a>, JobError> {
        if let Some(token) = request.next
            && !paging::fits(&stream.pagination, token)
        {
            return Err(JobError::give_up(
                "bad_position",
                format!(
                    "the position of `{}` is of another kind than the manifest's `pagination`; start it anew",
                    stream.name
                ),
            ));
        }
        let success = stream.answer.success.as_ref().or(self.manifest.envelope.success.as_ref());
        let mut call = Call::new(&stream.request, self.page_slots(stream, request), success);
        if let Some(PageToken::Link(link)) = request.next {
            call.link = Some(paging::pinned(link, &self.endpoint)?);
            return Ok(call);
        }
        let slots = &call.slots;
        let pagination = &stream.pagination;
        let number = |slot: Option<u64>| slot.map(Value::from);
        let window = stream.window.as_ref();
        let parameters = [
            (window.and_then(|window| window.from_param.as_ref()), slots.window_from.clone()),
            (window.and_then(|window| window.to_param.as_ref()), slots.window_to.clone()),
            (pagination.size_param.as_ref(), number(slots.page_size)),
            (pagination.page_param.as_ref(), number(slots.page_number)),
            (pagination.offset_param.as_ref(), number(slots.page_offset)),
            (pagination.cursor_param.as_ref(), slots.page_cursor.map(Value::from)),
        ];
        call.parameters =
            parameters.into_iter().filter_map(|(name, value)| Some((name?.as_str(), value?))).collect();
        Ok(call)
    }

    /// A vendor's link to a page as it may be kept: without the query parameters that hold secrets.
    fn without_credentials(&self, stream: &Stream, token: PageToken) -> Result<PageToken, JobError> {
        let text = match &token {
            PageToken::Link(text) | PageToken::Cursor(text) if self.redact(text) != *text => text,
            _ => return Ok(token),
        };
        if let (PageToken::Link(_), Ok(mut url)) = (&token, Url::parse(text)) {
            let common = &self.manifest.connection;
            let ours = stream.request.query.iter().chain(&common.query).chain(&common.parameters);
            let secret: Vec<&str> = ours
                .filter(|(_, template)| build::holds_secret(template))
                .map(|(name, _)| name.as_str())
                .collect();
            let kept: Vec<(String, String)> =
                url.query_pairs().into_owned().filter(|(name, _)| !secret.contains(&name.as_str())).collect();
            url.query_pairs_mut().clear().extend_pairs(kept);
            if self.redact(url.as_str()) == url.as_str() {
                return Ok(PageToken::Link(url.into()));
            }
        }
        let message =
            format!("the token that {} gives for the next page repeats a credential", self.manifest.title);
        Err(JobError::give_up("page_link_refused", message))
    }

    fn take_records(&self, stream: &Stream, body: &mut Value) -> Result<Vec<Value>, JobError> {
        let paths = &stream.answer.records;
        let list = paths.iter().find(|path| path.find(body).is_some_and(Value::is_array));
        if let Some(Value::Array(records)) = list.and_then(|path| path.find_mut(body)) {
            return Ok(std::mem::take(records));
        }
        let absent = paths.iter().all(|path| path.find(body).is_none_or(Value::is_null));
        if absent && stream.answer.absent_when_empty && body.is_object() {
            return Ok(Vec::new());
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
