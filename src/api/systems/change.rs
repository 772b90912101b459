//! What a request may make of a system, and what that needs.
//!
//! Secrets that stand in `config` are taken out and sealed with the others. A change of host, provider or
//! authentication must bring the credentials along: otherwise whoever may change a system could send its
//! secrets to a host of their own.

use std::collections::BTreeMap;

use poem::http::StatusCode;
use poem_openapi::types::MaybeUndefined;
use secrecy::SecretString;
use serde_json::{Map, Value};
use url::Url;
use zhilian_sync_jobs::Context;
use zhilian_sync_jobs::schedule::Schedule;
use zhilian_sync_jobs::vendor::{Manifest, Vendors};
use zhilian_sync_store::external_systems::{self, ExternalSystem};
use zhilian_sync_store::{Currency, SystemStatus, SystemType};

use crate::api::body::request_body;
use crate::api::caller::Caller;
use crate::api::problem::{FieldError, Problem};
use crate::api::values::{Choice, Fields, Flag, SecretText, Text, Whole};

/// Names under which secrets are kept, whatever the vendor: the seed's own two.
const SEED_CREDENTIALS: &[&str] = &["api_key", "api_secret"];
/// A top-level key of `config` with one of these in its name holds a secret if it holds a text.
const SECRET_WORDS: &[&str] = &[
    "secret",
    "token",
    "password",
    "passwd",
    "api_key",
    "apikey",
    "private_key",
    "access_key",
    "app_key",
];
/// The name of the only webhook secret that this route sets.
const WEBHOOK_SECRET: &str = "default";

type Interval = Whole<10, 31_536_000>;
type Url2000 = Text<2000>;

request_body! {
    /// A system to be made.
    accepts_unknown struct NewSystem {
        /// What people call it.
        name: Text<200>,
        /// What it is.
        system_type as "type": Choice<SystemType>,
        /// The vendor manifest that describes it; an unknown one is `generic-rest`.
        provider: Text<64>,
        /// The store it belongs to; absent for the whole chain.
        store_id: MaybeUndefined<Text<64>>,
        /// `inactive` until a test succeeds, unless it is set.
        status: Option<Choice<SystemStatus>>,
        /// Settings of the vendor; secrets in it are sealed and not shown again.
        config: Option<Fields>,
        /// Where the vendor answers.
        api_endpoint: MaybeUndefined<Url2000>,
        /// A secret.
        api_key: MaybeUndefined<SecretText>,
        /// A secret.
        api_secret: MaybeUndefined<SecretText>,
        /// Secrets by the names that the vendor's manifest gives them; null removes one.
        credentials: Option<Fields>,
        /// Where the vendor posts to.
        webhook_url: MaybeUndefined<Url2000>,
        /// What the vendor signs webhooks with.
        webhook_secret: MaybeUndefined<SecretText>,
        /// The vendor's shop id → our store id.
        store_map: Option<Fields>,
        /// An IANA zone, by default Asia/Shanghai.
        timezone: Option<Text<64>>,
        /// ISO 4217, by default CNY.
        currency: Option<Text<3>>,
        /// Whether it is synchronised by schedule, by default true.
        sync_enabled: Option<Flag>,
        /// Seconds between scheduled runs, by default 300.
        sync_interval: MaybeUndefined<Interval>,
        /// A cron expression instead of an interval.
        sync_cron: MaybeUndefined<Text<256>>,
    }
}

request_body! {
    /// Changes of a system; what is absent stays as it is.
    accepts_unknown struct SystemUpdate {
        /// What people call it.
        name: Option<Text<200>>,
        /// The vendor manifest that describes it; needs the credentials again.
        provider: Option<Text<64>>,
        /// The store it belongs to; null for the whole chain.
        store_id: MaybeUndefined<Text<64>>,
        /// Switches it on or off.
        status: Option<Choice<SystemStatus>>,
        /// Settings of the vendor, as a whole; secrets in it are sealed and not shown again.
        config: Option<Fields>,
        /// Where the vendor answers; another host needs the credentials again.
        api_endpoint: MaybeUndefined<Url2000>,
        /// A secret.
        api_key: MaybeUndefined<SecretText>,
        /// A secret.
        api_secret: MaybeUndefined<SecretText>,
        /// Secrets by the names that the vendor's manifest gives them; null removes one.
        credentials: Option<Fields>,
        /// Where the vendor posts to.
        webhook_url: MaybeUndefined<Url2000>,
        /// What the vendor signs webhooks with.
        webhook_secret: MaybeUndefined<SecretText>,
        /// The vendor's shop id → our store id, as a whole.
        store_map: Option<Fields>,
        /// An IANA zone.
        timezone: Option<Text<64>>,
        /// ISO 4217.
        currency: Option<Text<3>>,
        /// Whether it is synchronised by schedule.
        sync_enabled: Option<Flag>,
        /// Seconds between scheduled runs; takes the place of a cron expression.
        sync_interval: MaybeUndefined<Interval>,
        /// A cron expression; takes the place of an interval.
        sync_cron: MaybeUndefined<Text<256>>,
    }
}

impl From<NewSystem> for SystemUpdate {
    fn from(new: NewSystem) -> Self {
        Self {
            name: Some(new.name),
            provider: Some(new.provider),
            store_id: new.store_id,
            status: new.status,
            config: new.config,
            api_endpoint: new.api_endpoint,
            api_key: new.api_key,
            api_secret: new.api_secret,
            credentials: new.credentials,
            webhook_url: new.webhook_url,
            webhook_secret: new.webhook_secret,
            store_map: new.store_map,
            timezone: new.timezone,
            currency: new.currency,
            sync_enabled: new.sync_enabled,
            sync_interval: new.sync_interval,
            sync_cron: new.sync_cron,
        }
    }
}

/// Fills a blank row.
pub(super) fn create(
    context: &Context,
    caller: &Caller,
    system: &mut ExternalSystem,
    new: NewSystem,
) -> Result<(), Problem> {
    if let Some(status) = update(context, caller, system, new.into())? {
        system.status = status;
    }
    Ok(())
}

/// Changes a row; the answer is the status to be set, where one is.
pub(super) fn update(
    context: &Context,
    caller: &Caller,
    system: &mut ExternalSystem,
    mut update: SystemUpdate,
) -> Result<Option<SystemStatus>, Problem> {
    let before = system.clone();
    let mut errors = Vec::new();
    apply_place(caller, system, &update)?;
    apply_words(system, &update, &mut errors);
    apply_schedule(system, &update, &mut errors);
    let given = take_secrets(context, system, &mut update, &mut errors);
    if let Some(config) = update.config {
        system.config.0 = config.0;
    }
    check_manifest(context, system, &before, &mut errors);
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    seal(context, &before, system, given)?;
    let status = update.status.map(|choice| choice.0);
    let effective = status.unwrap_or(system.status);
    if needs_new_schedule(&before, system) || effective != before.status {
        unschedule(system);
    }
    Ok(status)
}

/// Takes the schedule away, so that the scheduler makes a new one where there is to be one.
pub(super) const fn unschedule(system: &mut ExternalSystem) {
    system.next_sync_at = None;
    system.next_slot_at = None;
}

/// What can be read from a system, and what is missing before it can.
pub(super) fn setup(system: &ExternalSystem, vendors: &Vendors) -> (Vec<String>, Vec<String>) {
    let manifest = match vendors.catalog().resolve(&system.provider, &system.config) {
        Ok(manifest) => manifest,
        Err(errors) => {
            return (
                Vec::new(),
                vec![format!("the settings in `config` have mistakes: {errors}")],
            );
        }
    };
    let mut missing = Vec::new();
    if manifest.endpoint.is_none() && system.api_endpoint.is_none() {
        missing.push("`api_endpoint` is missing; give the address at which the vendor answers".to_owned());
    }
    for credential in manifest
        .credentials
        .iter()
        .filter(|credential| credential.required)
    {
        if !system.credential_names.contains_key(&credential.name) {
            missing.push(format!(
                "the secret `{}` is missing ({})",
                credential.name, credential.label
            ));
        }
    }
    for key in manifest.config.iter().filter(|key| key.required) {
        if !system.config.contains_key(&key.name) {
            missing.push(format!(
                "the setting `{}` is missing in `config` ({})",
                key.name, key.label
            ));
        }
    }
    (
        manifest
            .streams
            .iter()
            .map(|stream| stream.name.clone())
            .collect(),
        missing,
    )
}

/// The store: a caller who has one can make and keep systems there only.
fn apply_place(caller: &Caller, system: &mut ExternalSystem, update: &SystemUpdate) -> Result<(), Problem> {
    let wanted = match &update.store_id {
        MaybeUndefined::Undefined => return Ok(()),
        MaybeUndefined::Null => None,
        MaybeUndefined::Value(store) => Some(store.0.as_str()),
    };
    if let Some(own) = caller.scope()
        && wanted != Some(own)
    {
        let detail = format!("a user of store `{own}` can only have systems of that store");
        return Err(Problem::forbidden("other_store", detail));
    }
    system.store_id = wanted.map(str::to_owned);
    Ok(())
}

fn apply_words(system: &mut ExternalSystem, update: &SystemUpdate, errors: &mut Vec<FieldError>) {
    if let Some(name) = &update.name {
        system.name = name.0.trim().to_owned();
    }
    if let Some(provider) = &update.provider {
        system.provider = provider.0.clone();
    }
    if update.status == Some(Choice(SystemStatus::Error)) {
        errors.push(error("status", "cannot be set to `error`; only runs do that"));
    }
    set(&mut system.api_endpoint, &update.api_endpoint);
    set(&mut system.webhook_url, &update.webhook_url);
    for (field, url) in [
        ("api_endpoint", &system.api_endpoint),
        ("webhook_url", &system.webhook_url),
    ] {
        if let Some(problem) = url.as_deref().and_then(problem_of_url) {
            errors.push(error(field, problem));
        }
    }
    if let Some(currency) = &update.currency {
        match currency.0.parse::<Currency>() {
            Ok(currency) => system.currency = currency,
            Err(problem) => errors.push(error("currency", problem.to_string())),
        }
    }
    if let Some(map) = &update.store_map {
        system.store_map.0.clear();
        for (shop, store) in &map.0 {
            match store.as_str() {
                Some(store) if !store.is_empty() => {
                    system.store_map.0.insert(shop.clone(), store.to_owned());
                }
                _ => errors.push(error(
                    "store_map",
                    "has a value that is no text; expected shop id → store id",
                )),
            }
        }
    }
}

/// An address that we may call, without secrets in it: it is shown to everyone who sees the system.
fn problem_of_url(text: &str) -> Option<&'static str> {
    match Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => {
            Some("is not a web address; expected `https://host/path`")
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Some("holds a user name or a password; give them as credentials")
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            Some("has a query, which is no place for keys; give them as credentials")
        }
        Ok(_) => None,
        Err(_) => Some("is not a web address; expected `https://host/path`"),
    }
}

fn apply_schedule(system: &mut ExternalSystem, update: &SystemUpdate, errors: &mut Vec<FieldError>) {
    if let Some(enabled) = update.sync_enabled {
        system.sync_enabled = enabled.0;
    }
    if let Some(zone) = &update.timezone {
        system.timezone = zone.0.clone();
    }
    match (&update.sync_interval, &update.sync_cron) {
        (MaybeUndefined::Value(_), MaybeUndefined::Value(_)) => {
            errors.push(error(
                "sync_cron",
                "is given together with `sync_interval`; give one of the two",
            ));
        }
        (MaybeUndefined::Value(interval), _) => {
            system.sync_interval = Some(interval.0);
            system.sync_cron = None;
        }
        (_, MaybeUndefined::Value(cron)) => {
            system.sync_interval = None;
            system.sync_cron = Some(cron.0.clone());
        }
        (interval, cron) => {
            if interval.is_null() {
                system.sync_interval = None;
            }
            if cron.is_null() {
                system.sync_cron = None;
            }
        }
    }
    let checked = Schedule::parse(
        system.sync_interval,
        system.sync_cron.as_deref(),
        &system.timezone,
    );
    if let Err(problem) = checked {
        let field = match (system.timezone.parse::<chrono_tz::Tz>(), &system.sync_cron) {
            (Err(_), _) => "timezone",
            (Ok(_), Some(_)) => "sync_cron",
            (Ok(_), None) => "sync_interval",
        };
        errors.push(error(field, problem.to_string()));
    }
}

fn needs_new_schedule(before: &ExternalSystem, after: &ExternalSystem) -> bool {
    before.sync_enabled != after.sync_enabled
        || before.sync_interval != after.sync_interval
        || before.sync_cron != after.sync_cron
        || before.timezone != after.timezone
}

/// The secrets of a request: what is set, and what is taken away.
#[derive(Default)]
struct Given {
    credentials: BTreeMap<String, Option<SecretString>>,
    webhook: MaybeUndefined<SecretText>,
}

/// Takes every secret out of the request, wherever it stands, and the seed's four keys out of `config`.
fn take_secrets(
    context: &Context,
    system: &mut ExternalSystem,
    update: &mut SystemUpdate,
    errors: &mut Vec<FieldError>,
) -> Given {
    let mut given = Given {
        webhook: std::mem::take(&mut update.webhook_secret),
        ..Given::default()
    };
    if let Some(config) = &mut update.config {
        // The same four as at top level, where they win.
        for (key, top, target) in [
            ("api_endpoint", &update.api_endpoint, &mut system.api_endpoint),
            ("webhook_url", &update.webhook_url, &mut system.webhook_url),
        ] {
            let Some(value) = config.0.remove(key) else {
                continue;
            };
            if !top.is_undefined() {
                continue;
            }
            match value {
                Value::String(text) => match problem_of_url(&text) {
                    None => *target = Some(text),
                    Some(problem) => errors.push(error(&format!("config.{key}"), problem)),
                },
                Value::Null => *target = None,
                _ => errors.push(error(&format!("config.{key}"), "is not a text")),
            }
        }
        take_config_secrets(context, &system.provider, &mut config.0, &mut given, errors);
    }
    if let Some(credentials) = update.credentials.take() {
        for (name, value) in credentials.0 {
            match value {
                Value::String(secret) if !secret.is_empty() => {
                    given.credentials.insert(name, Some(SecretString::from(secret)));
                }
                Value::Null => {
                    given.credentials.insert(name, None);
                }
                _ => errors.push(error(
                    &format!("credentials.{name}"),
                    "is not a text; expected a secret or null",
                )),
            }
        }
    }
    for (name, value) in [
        ("api_key", &mut update.api_key),
        ("api_secret", &mut update.api_secret),
    ] {
        match std::mem::take(value) {
            MaybeUndefined::Undefined => {}
            MaybeUndefined::Null => drop(given.credentials.insert(name.to_owned(), None)),
            MaybeUndefined::Value(secret) => drop(given.credentials.insert(name.to_owned(), Some(secret.0))),
        }
    }
    given
}

fn take_config_secrets(
    context: &Context,
    provider: &str,
    config: &mut Map<String, Value>,
    given: &mut Given,
    errors: &mut Vec<FieldError>,
) {
    let manifest = context.vendors.catalog().get(provider);
    let declared_secret = |key: &str| {
        manifest
            .as_ref()
            .is_some_and(|manifest| manifest.credentials.iter().any(|one| one.name == key))
    };
    let declared_setting = |key: &str| {
        manifest
            .as_ref()
            .is_some_and(|manifest| manifest.config.iter().any(|one| one.name == key))
    };
    let keys: Vec<String> = config.keys().cloned().collect();
    for key in keys {
        let known = SEED_CREDENTIALS.contains(&key.as_str()) || declared_secret(&key);
        let looks_secret = sounds_secret(&key) && !declared_setting(&key);
        match config.get(&key) {
            Some(Value::String(secret)) if (known || looks_secret) && !secret.is_empty() => {
                let secret = SecretString::from(secret.as_str());
                config.remove(&key);
                if key == "webhook_secret" {
                    if given.webhook.is_undefined() {
                        given.webhook = MaybeUndefined::Value(SecretText(secret));
                    }
                } else {
                    given.credentials.insert(key, Some(secret));
                }
            }
            Some(Value::Null) if known => {
                config.remove(&key);
                given.credentials.insert(key, None);
            }
            Some(value) if known || holds_secret(value) => {
                let detail = "holds a secret where it cannot be sealed; give it in `credentials` by its name";
                errors.push(error(&format!("config.{key}"), detail));
            }
            _ => {}
        }
    }
}

fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// Whether a text stands under a name that sounds secret, anywhere inside. References to credentials, as
/// manifests write them, are not secrets.
fn holds_secret(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(key, value)| match value {
            Value::String(text) => {
                [
                    "password",
                    "secret",
                    "api_key",
                    "api_secret",
                    "access_token",
                    "client_secret",
                ]
                .contains(&key.to_ascii_lowercase().as_str())
                    && !text.contains('{')
            }
            other => holds_secret(other),
        }),
        Value::Array(items) => items.iter().any(holds_secret),
        _ => false,
    }
}

/// A manifest that is for other types of system is a mistake at once; what is merely missing is not, because
/// systems are set up step by step.
fn check_manifest(
    context: &Context,
    system: &ExternalSystem,
    before: &ExternalSystem,
    errors: &mut Vec<FieldError>,
) {
    let Some(manifest) = context.vendors.catalog().get(&system.provider) else {
        return;
    };
    let fits = manifest.types.is_empty() || manifest.types.contains(&system.system_type);
    if !fits {
        let types: Vec<String> = manifest.types.iter().map(|one| format!("`{one}`")).collect();
        let field = if before.provider == system.provider {
            "type"
        } else {
            "provider"
        };
        let detail = format!(
            "does not fit: `{}` is a vendor of {}, not of `{}`",
            manifest.name,
            types.join(", "),
            system.system_type
        );
        errors.push(error(field, detail));
    }
}

/// Seals what was given with what is kept, if what is kept may be kept.
fn seal(
    context: &Context,
    before: &ExternalSystem,
    system: &mut ExternalSystem,
    given: Given,
) -> Result<(), Problem> {
    let store = &context.store;
    let mut secrets = external_systems::credentials(store, before)?;
    let kept: Vec<&str> = secrets
        .keys()
        .map(String::as_str)
        .filter(|name| !given.credentials.contains_key(*name))
        .collect();
    if !kept.is_empty() && goes_elsewhere(&context.vendors, before, system) {
        let names = kept
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ");
        let detail = format!(
            "a change of host, provider or authentication needs the credentials again in the same request; give {names}, \
             or null to remove them"
        );
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "credentials_needed",
            detail,
        ));
    }
    if !given.credentials.is_empty() {
        for (name, secret) in given.credentials {
            match secret {
                Some(secret) => drop(secrets.insert(name, secret)),
                None => drop(secrets.remove(&name)),
            }
        }
        external_systems::set_credentials(store, system, &secrets)?;
    }
    let webhook = match given.webhook {
        MaybeUndefined::Undefined => return Ok(()),
        MaybeUndefined::Null => BTreeMap::new(),
        MaybeUndefined::Value(secret) => BTreeMap::from([(WEBHOOK_SECRET.to_owned(), secret.0)]),
    };
    Ok(external_systems::set_webhook_secrets(store, system, &webhook)?)
}

/// Whether the credentials would go to another host, or in another way.
fn goes_elsewhere(vendors: &Vendors, before: &ExternalSystem, after: &ExternalSystem) -> bool {
    if before.provider != after.provider {
        return true;
    }
    let manifest = vendors
        .catalog()
        .get(&after.provider)
        .or_else(|| vendors.catalog().get("generic-rest"));
    let Some(manifest) = manifest else { return true };
    origin(&manifest, before) != origin(&manifest, after)
        || manifest
            .config
            .iter()
            .filter(|key| !key.sets.is_empty())
            .any(|key| before.config.get(&key.name) != after.config.get(&key.name))
}

fn origin(manifest: &Manifest, system: &ExternalSystem) -> Option<url::Origin> {
    let endpoint = system.api_endpoint.as_deref().or(manifest.endpoint.as_deref())?;
    Url::parse(endpoint).ok().map(|url| url.origin())
}

fn set<const MAX: usize>(target: &mut Option<String>, wanted: &MaybeUndefined<Text<MAX>>) {
    match wanted {
        MaybeUndefined::Undefined => {}
        MaybeUndefined::Null => *target = None,
        MaybeUndefined::Value(text) => *target = Some(text.0.clone()),
    }
}

fn error(field: &str, detail: impl Into<String>) -> FieldError {
    FieldError {
        field: field.to_owned(),
        detail: detail.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_holds_no_secrets() {
        assert_eq!(problem_of_url("https://pos.example.com/v2"), None);
        for wrong in [
            "ftp://x",
            "pos.example.com",
            "https://u:p@x/",
            "https://x/?key=1",
            "https://x/#k",
            "file:///etc",
        ] {
            assert!(problem_of_url(wrong).is_some(), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        for key in ["api_key", "clientSecret", "access_token", "DB_PASSWORD"] {
            assert!(sounds_secret(key), "{key}");
        }
        assert!(!sounds_secret("location_id"));
        assert!(holds_secret(&json!({"auth": {"password": "hunter2"}})));
        assert!(holds_secret(&json!([{"client_secret": "hunter2"}])));
        assert!(!holds_secret(
            &json!({"auth": {"token": "{credential.api_key}", "password": "{credential.pw}"}})
        ));
    }
}
