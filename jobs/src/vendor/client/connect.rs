//! What must be there before a system can be called: a client, an address, its settings, a header that
//! proves who we are. What is missing is said by name, in words for the person who enters it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::{Client, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::super::guard::{self, Allow};
use super::super::manifest::{Auth, ConfigKind, Manifest};
use super::super::template::{Slots, Template};
use crate::outcome::JobError;
use crate::settings::VendorSettings;

/// Idle connections to one host are kept for the next page.
const IDLE_CONNECTIONS_MAX: usize = 8;
const IDLE_SECS: u64 = 60;
const USER_AGENT: &str = concat!("zhilian-sync/", env!("CARGO_PKG_VERSION"));

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one client policy that the others are told to take"
)]
pub(super) fn http_client(settings: &VendorSettings, allow: &Allow) -> reqwest::Result<Client> {
    // Without a provider the first client panics; a second installation is refused and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(USER_AGENT)
        .dns_resolver(Arc::new(guard::Resolver(allow.clone())))
        // Through a proxy the resolver would not see where a call goes.
        .no_proxy()
        .referer(false)
        .redirect(guard::redirects(allow.clone()))
        .connect_timeout(Duration::from_secs(settings.connect_timeout_secs))
        .read_timeout(Duration::from_secs(settings.read_timeout_secs))
        .timeout(Duration::from_secs(settings.timeout_secs))
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .pool_idle_timeout(Duration::from_secs(IDLE_SECS))
        .tcp_keepalive(Duration::from_secs(IDLE_SECS / 2))
        .build()
}

pub(super) fn read_endpoint(manifest: &Manifest, given: Option<&str>) -> Result<Url, JobError> {
    let given = given.map(str::trim).filter(|given| !given.is_empty());
    let Some(text) = given.or(manifest.endpoint.as_deref()) else {
        let message = format!("{} has no address; enter `api_endpoint` in the system", manifest.title);
        return Err(JobError::give_up("endpoint_missing", message));
    };
    let bad = || {
        let message =
            "`api_endpoint` is not an address; expected `https://host/path` without user, query or fragment";
        JobError::give_up("bad_endpoint", message)
    };
    let url: Url = text.parse().map_err(|_| bad())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain && url.has_host() && matches!(url.scheme(), "https" | "http") { Ok(url) } else { Err(bad()) }
}

/// The system's settings in the types that the manifest declares; others are left as they are.
pub(in crate::vendor) fn read_config(
    manifest: &Manifest,
    given: &Map<String, Value>,
) -> Result<Value, JobError> {
    let mut config = given.clone();
    for key in &manifest.config {
        let present = config.get(&key.name).is_some_and(|value| !value.is_null() && value != "");
        if key.required && !present {
            let message = format!(
                "{} needs the setting `{}` ({}); enter it in the system",
                manifest.title, key.name, key.label
            );
            return Err(JobError::give_up("setting_missing", message));
        }
        if let (ConfigKind::List, Some(value @ Value::String(_))) = (key.kind, config.get_mut(&key.name)) {
            let text = value.as_str().unwrap_or_default();
            *value = text.split(',').map(|one| Value::from(one.trim())).collect();
        }
    }
    Ok(Value::Object(config))
}

/// The header that proves who we are, and what of it must be redacted besides the credentials.
pub(super) type AuthHeader = (Option<(HeaderName, HeaderValue)>, Option<SecretString>);

pub(super) fn read_auth(manifest: &Manifest, slots: &Slots<'_>) -> Result<AuthHeader, JobError> {
    let fill = |template: &Template| {
        template.text(slots).ok_or_else(|| {
            let names: Vec<String> =
                manifest.credentials.iter().map(|wanted| format!("`{}`", wanted.name)).collect();
            let message =
                format!("{} needs {} to sign in; enter it in the system", manifest.title, names.join(", "));
            JobError::give_up("credentials_missing", message)
        })
    };
    let (name, value, derived) = match &manifest.auth {
        // A token is got when the first call is made.
        Auth::None | Auth::Token(_) => return Ok((None, None)),
        Auth::Bearer { token } => (AUTHORIZATION, format!("Bearer {}", fill(token)?), None),
        Auth::Header { header, value } => {
            let name = HeaderName::from_bytes(header.as_bytes()).map_err(|_| {
                JobError::give_up("bad_manifest", format!("`{header}` is not the name of a header"))
            })?;
            (name, fill(value)?, None)
        }
        Auth::Basic { username, password } => {
            let pair = format!(
                "{}:{}",
                fill(username)?,
                password.as_ref().map(fill).transpose()?.unwrap_or_default()
            );
            let encoded = STANDARD.encode(&pair);
            (AUTHORIZATION, format!("Basic {encoded}"), Some(SecretString::from(pair)))
        }
    };
    let mut value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
        let message = "a credential has a line break or another sign that no header may have; enter it again";
        JobError::unauthorized("bad_credentials", message)
    })?;
    // Debug output of every library shows `Sensitive` in its place.
    value.set_sensitive(true);
    Ok((Some((name, value)), derived))
}

/// Whoever shares credentials at a vendor shares its budget; four bytes of a hash tell them apart and
/// tell nothing about them.
pub(super) fn budget_owner(
    manifest: &Manifest,
    endpoint: &Url,
    credentials: &BTreeMap<String, SecretString>,
) -> String {
    let mut hash = Sha256::new();
    for part in [manifest.name.as_str(), endpoint.as_str()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    for (name, secret) in credentials {
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(secret.expose_secret().as_bytes());
        hash.update([0]);
    }
    hex::encode(&hash.finalize()[..4])
}
