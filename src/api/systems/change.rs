//! What a request may make of a system: place, words, schedule; secrets are in `secrets.rs` beside it.

use poem_openapi::types::MaybeUndefined;
use serde_json::Value;
use url::Url;
use zhilian_sync_jobs::Context;
use zhilian_sync_jobs::schedule::Schedule;
use zhilian_sync_jobs::vendor::Vendors;
use zhilian_sync_store::external_systems::ExternalSystem;
use zhilian_sync_store::{Currency, MemberConflict, SystemStatus, SystemType};

use super::secrets;
use crate::api::access::Permission;
use crate::api::body::request_body;
use crate::api::caller::Caller;
use crate::api::problem::{FieldError, Problem};
use crate::api::values::{Choice, Fields, Flag, Named, SecretText, Text, Whole};

/// Seconds between two runs of a system.
pub(super) type Interval = Whole<10, 31_536_000>;
type Url2000 = Text<2000>;

request_body! {
    /// A system to be made.
    accepts_unknown pub struct NewSystem {
        /// What people call it.
        name: Text<200>,
        /// What it is.
        system_type as "type": Choice<SystemType>,
        /// The vendor manifest that describes it; an unknown one is `generic-rest`.
        provider: Text<64>,
        /// The store it belongs to; absent for the whole chain.
        store_id: MaybeUndefined<Text<64>>,
        /// `inactive` until a test succeeds, unless it is set.
        status: Option<Choice<Settable>>,
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
        /// What the vendor signs webhooks with; takes the place of every one before.
        webhook_secret: MaybeUndefined<SecretText>,
        /// `none` gives up the verification of webhooks; only an admin may.
        webhook_verification: Option<Choice<Verification>>,
        /// The vendor's shop id → our store id.
        store_map: Option<Fields>,
        /// An IANA zone, by default Asia/Shanghai.
        timezone: Option<Text<64>>,
        /// ISO 4217, by default CNY.
        currency: Option<Text<3>>,
        /// Whose word counts when the vendor and we say different things of a member, by default the newer.
        member_conflict: Option<Choice<MemberConflict>>,
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
    accepts_unknown pub struct SystemUpdate {
        /// What people call it.
        name: Option<Text<200>>,
        /// The vendor manifest that describes it; needs the credentials again.
        provider: Option<Text<64>>,
        /// The store it belongs to; null for the whole chain.
        store_id: MaybeUndefined<Text<64>>,
        /// Switches it on or off.
        status: Option<Choice<Settable>>,
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
        /// What the vendor signs webhooks with; takes the place of every one before.
        webhook_secret: MaybeUndefined<SecretText>,
        /// `none` gives up the verification of webhooks; only an admin may.
        webhook_verification: Option<Choice<Verification>>,
        /// The vendor's shop id → our store id, as a whole.
        store_map: Option<Fields>,
        /// An IANA zone.
        timezone: Option<Text<64>>,
        /// ISO 4217.
        currency: Option<Text<3>>,
        /// Whose word counts when the vendor and we say different things of a member.
        member_conflict: Option<Choice<MemberConflict>>,
        /// Whether it is synchronised by schedule.
        sync_enabled: Option<Flag>,
        /// Seconds between scheduled runs; takes the place of a cron expression.
        sync_interval: MaybeUndefined<Interval>,
        /// A cron expression; takes the place of an interval.
        sync_cron: MaybeUndefined<Text<256>>,
    }
}

/// How a system's webhooks are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// By what the vendor's manifest says: a signature, a code, a secret address.
    Signature,
    /// Not at all: whoever knows the address is believed.
    None,
}

impl Named for Verification {
    const NAME: &'static str = "webhook_verification";

    fn all() -> &'static [Self] {
        &[Self::Signature, Self::None]
    }

    fn text(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::None => "none",
        }
    }
}

/// A status that a request may set; `error` is what runs find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settable(SystemStatus);

impl Named for Settable {
    const NAME: &'static str = "settable_status";

    fn all() -> &'static [Self] {
        &[Self(SystemStatus::Active), Self(SystemStatus::Inactive), Self(SystemStatus::Testing)]
    }

    fn text(self) -> &'static str {
        self.0.as_str()
    }
}

impl Verification {
    /// What a system has; a text that nobody writes is the strict one.
    pub fn of(system: &ExternalSystem) -> Self {
        if system.webhook_verification == Self::None.text() { Self::None } else { Self::Signature }
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
            webhook_verification: new.webhook_verification,
            store_map: new.store_map,
            timezone: new.timezone,
            currency: new.currency,
            member_conflict: new.member_conflict,
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
    apply_verification(caller, system, update.webhook_verification.map(|choice| choice.0))?;
    apply_words(system, &update, &mut errors);
    apply_schedule(system, &update, &mut errors);
    let given = secrets::take(context, system, &mut update, &mut errors);
    if let Some(config) = update.config {
        if !config.0.iter().all(|(key, value)| is_storable_text(key) && is_storable(value)) {
            errors.push(error("config", "holds U+0000 or a number beyond measure, which cannot be stored"));
        }
        system.config.0 = config.0;
    }
    check_manifest(context, system, &before, &mut errors);
    secrets::check(context, system, &given, &mut errors);
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    secrets::seal(context, &before, system, given)?;
    let status = update.status.map(|choice| choice.0.0);
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
            return (Vec::new(), vec![format!("the settings in `config` have mistakes: {errors}")]);
        }
    };
    let mut missing = Vec::new();
    if manifest.endpoint.is_none() && system.api_endpoint.is_none() {
        missing.push("`api_endpoint` is missing; give the address at which the vendor answers".to_owned());
    }
    for credential in manifest.credentials.iter().filter(|credential| credential.required) {
        if !system.credential_names.contains_key(&credential.name) {
            missing.push(format!("the secret `{}` is missing ({})", credential.name, credential.label));
        }
    }
    for key in manifest.config.iter().filter(|key| key.required) {
        if !system.config.contains_key(&key.name) {
            missing.push(format!("the setting `{}` is missing in `config` ({})", key.name, key.label));
        }
    }
    (manifest.streams.iter().map(|stream| stream.name.clone()).collect(), missing)
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

/// Unverified events are applied as if the vendor had sent them, so giving up verification is an admin's.
fn apply_verification(
    caller: &Caller,
    system: &mut ExternalSystem,
    wanted: Option<Verification>,
) -> Result<(), Problem> {
    let Some(wanted) = wanted.filter(|wanted| *wanted != Verification::of(system)) else {
        return Ok(());
    };
    if wanted == Verification::None && !caller.may(Permission::ReleaseWebhooks) {
        let detail =
            format!("the role `{}` may not give up the verification of webhooks; an admin may", caller.role);
        return Err(Problem::forbidden("forbidden", detail));
    }
    wanted.text().clone_into(&mut system.webhook_verification);
    Ok(())
}

fn apply_words(system: &mut ExternalSystem, update: &SystemUpdate, errors: &mut Vec<FieldError>) {
    if let Some(name) = &update.name {
        name.0.trim().clone_into(&mut system.name);
    }
    if let Some(provider) = &update.provider {
        system.provider.clone_from(&provider.0);
    }
    set(&mut system.api_endpoint, &update.api_endpoint);
    set(&mut system.webhook_url, &update.webhook_url);
    for (field, url) in [("api_endpoint", &system.api_endpoint), ("webhook_url", &system.webhook_url)] {
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
    if let Some(rule) = &update.member_conflict {
        system.member_conflict = rule.0;
    }
    if let Some(map) = &update.store_map {
        system.store_map.0.clear();
        for (shop, store) in &map.0 {
            match store.as_str() {
                Some(store) if !store.is_empty() && is_storable_text(store) && is_storable_text(shop) => {
                    system.store_map.0.insert(shop.clone(), store.to_owned());
                }
                _ => errors
                    .push(error("store_map", "has a value that is no text; expected shop id → store id")),
            }
        }
    }
}

/// An address that we may call, without secrets in it: it is shown to everyone who sees the system.
pub(super) fn problem_of_url(text: &str) -> Option<&'static str> {
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
        system.timezone.clone_from(&zone.0);
    }
    match (&update.sync_interval, &update.sync_cron) {
        (MaybeUndefined::Value(_), MaybeUndefined::Value(_)) => {
            errors.push(error("sync_cron", "is given together with `sync_interval`; give one of the two"));
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
    let checked = Schedule::parse(system.sync_interval, system.sync_cron.as_deref(), &system.timezone);
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

/// What PostgreSQL takes into a column of JSON: vendors' records are kept as text, settings are not.
fn is_storable(value: &Value) -> bool {
    match value {
        Value::String(text) => is_storable_text(text),
        Value::Number(number) => number.as_f64().is_some_and(f64::is_finite),
        Value::Array(items) => items.iter().all(is_storable),
        Value::Object(fields) => {
            fields.iter().all(|(key, value)| is_storable_text(key) && is_storable(value))
        }
        Value::Null | Value::Bool(_) => true,
    }
}

fn is_storable_text(text: &str) -> bool {
    !text.contains('\0')
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
        let field = if before.provider == system.provider { "type" } else { "provider" };
        let detail = format!(
            "does not fit: `{}` is a vendor of {}, not of `{}`",
            manifest.name,
            types.join(", "),
            system.system_type
        );
        errors.push(error(field, detail));
    }
}

fn set<const MAX: usize>(target: &mut Option<String>, wanted: &MaybeUndefined<Text<MAX>>) {
    match wanted {
        MaybeUndefined::Undefined => {}
        MaybeUndefined::Null => *target = None,
        MaybeUndefined::Value(text) => *target = Some(text.0.clone()),
    }
}

pub(super) fn error(field: &str, detail: impl Into<String>) -> FieldError {
    FieldError { field: field.to_owned(), detail: detail.into() }
}

#[cfg(test)]
mod tests {
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
}
