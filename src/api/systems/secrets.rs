//! The secrets of a system: taken out of a request wherever they stand, sealed, and never shown again.
//!
//! A change of host, provider or authentication must bring the credentials along: otherwise whoever may
//! change a system could send its secrets to a host of their own.

use std::collections::BTreeMap;

use poem::http::StatusCode;
use poem_openapi::types::MaybeUndefined;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use url::Url;
use zhilian_sync_jobs::Context;
use zhilian_sync_jobs::vendor::webhook::WebhookSpec;
use zhilian_sync_jobs::vendor::{Manifest, Vendors};
use zhilian_sync_store::external_systems::{self, ExternalSystem};

use super::change::{SystemUpdate, error, problem_of_url};
use crate::api::problem::{FieldError, Problem};
use crate::api::values::SecretText;

/// Names under which secrets are kept, whatever the vendor: the seed's own two.
const SEED_CREDENTIALS: &[&str] = &["api_key", "api_secret"];
/// A top-level key of `config` with one of these in its name holds a secret if it holds a text.
const SECRET_WORDS: &[&str] =
    &["secret", "token", "password", "passwd", "api_key", "apikey", "private_key", "access_key", "app_key"];
/// The name of the webhook secret that is valid without end; former ones have other names.
pub(in crate::api) const WEBHOOK_SECRET: &str = "default";

/// The secrets of a request: what is set, and what is taken away.
#[derive(Default)]
pub(super) struct Given {
    credentials: BTreeMap<String, Option<SecretString>>,
    webhook: MaybeUndefined<SecretText>,
    /// Whether that stood in `config`.
    webhook_in_config: bool,
}

/// Takes every secret out of the request, wherever it stands, and the seed's four keys out of `config`.
pub(super) fn take(
    context: &Context,
    system: &mut ExternalSystem,
    update: &mut SystemUpdate,
    errors: &mut Vec<FieldError>,
) -> Given {
    let mut given = Given { webhook: std::mem::take(&mut update.webhook_secret), ..Given::default() };
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
                _ => errors
                    .push(error(&format!("credentials.{name}"), "is not a text; expected a secret or null")),
            }
        }
    }
    for (name, value) in [("api_key", &mut update.api_key), ("api_secret", &mut update.api_secret)] {
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
        manifest.as_ref().is_some_and(|manifest| manifest.credentials.iter().any(|one| one.name == key))
    };
    let declared_setting = |key: &str| {
        manifest.as_ref().is_some_and(|manifest| manifest.config.iter().any(|one| one.name == key))
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
                        given.webhook_in_config = true;
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
                ["password", "secret", "api_key", "api_secret", "access_token", "client_secret"]
                    .contains(&key.to_ascii_lowercase().as_str())
                    && !text.contains('{')
            }
            other => holds_secret(other),
        }),
        Value::Array(items) => items.iter().any(holds_secret),
        _ => false,
    }
}

/// A webhook secret that this vendor's manifest cannot read would refuse every event; it is told at once.
pub(super) fn check(context: &Context, system: &ExternalSystem, given: &Given, errors: &mut Vec<FieldError>) {
    let MaybeUndefined::Value(secret) = &given.webhook else { return };
    let catalog = context.vendors.catalog();
    // How a system signs whose settings have mistakes, nobody knows yet.
    let manifest = catalog.resolve(&system.provider, &system.config).ok();
    let spec = manifest.map(|manifest| catalog.webhook_of(&manifest).1);
    if let Some(problem) = problem_of_webhook_secret(spec.as_deref(), &secret.0) {
        let field = if given.webhook_in_config { "config.webhook_secret" } else { "webhook_secret" };
        errors.push(error(field, problem));
    }
}

/// Why nothing could be verified with this secret.
pub(in crate::api) fn problem_of_webhook_secret(
    spec: Option<&WebhookSpec>,
    secret: &SecretString,
) -> Option<&'static str> {
    let text = secret.expose_secret();
    if text.trim() != text {
        return Some("begins or ends with white space, which came along when it was copied; take it off");
    }
    let reads = spec.is_none_or(|spec| spec.reads_secret(secret));
    (!reads).then_some("is not written as this vendor's secrets are; see its manifest, or have one made")
}

/// Seals what was given with what is kept, if what is kept may be kept.
pub(super) fn seal(
    context: &Context,
    before: &ExternalSystem,
    system: &mut ExternalSystem,
    given: Given,
) -> Result<(), Problem> {
    let store = &context.store;
    let mut secrets = external_systems::credentials(store, before)?;
    let kept: Vec<&str> =
        secrets.keys().map(String::as_str).filter(|name| !given.credentials.contains_key(*name)).collect();
    if !kept.is_empty() && goes_elsewhere(&context.vendors, before, system) {
        let names = kept.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let detail = format!(
            "a change of host, provider or authentication needs the credentials again in the same request; give {names}, \
             or null to remove them"
        );
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "credentials_needed", detail));
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
    // Whoever sets a secret replaces them all; the overlap is the rotation's.
    system.webhook_secret_expiries.clear();
    Ok(external_systems::set_webhook_secrets(store, system, &webhook)?)
}

/// Whether the credentials would go to another host, or in another way.
fn goes_elsewhere(vendors: &Vendors, before: &ExternalSystem, after: &ExternalSystem) -> bool {
    if before.provider != after.provider {
        return true;
    }
    let manifest = vendors.catalog().get(&after.provider).or_else(|| vendors.catalog().get("generic-rest"));
    let Some(manifest) = manifest else { return true };
    origin(&manifest, before) != origin(&manifest, after)
        || manifest
            .config
            .iter()
            // How webhooks are verified sends no credentials anywhere.
            .filter(|key| key.sets.iter().any(|place| !place.starts_with("webhook.")))
            .any(|key| before.config.get(&key.name) != after.config.get(&key.name))
}

fn origin(manifest: &Manifest, system: &ExternalSystem) -> Option<url::Origin> {
    let endpoint = system.api_endpoint.as_deref().or(manifest.endpoint.as_deref())?;
    Url::parse(endpoint).ok().map(|url| url.origin())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
