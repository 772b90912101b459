//! A new webhook secret: given by the vendor, or made here and shown once.
//!
//! The newest secret has the same name as the one that was entered with the system; those before it are
//! `former-…` and have an end. Every one that is not over counts when a webhook is verified, so nothing is
//! refused while the vendor still signs with the one before.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use poem_openapi::Object;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use url::form_urlencoded;
use zhilian_sync_jobs::Context;
use zhilian_sync_jobs::vendor::webhook::WebhookSpec;
use zhilian_sync_store::external_systems::{self, ExternalSystem, SystemChange};

use crate::api::body::request_body;
use crate::api::caller::Caller;
use crate::api::changes::Changes;
use crate::api::problem::Problem;
use crate::api::systems::secrets::{WEBHOOK_SECRET, problem_of_webhook_secret};
use crate::api::systems::{self, answer::webhook_path};
use crate::api::values::{SecretText, Time, Whole};

/// The longest overlap: a month.
const OVERLAP_HOURS_MAX: i64 = 720;
/// Every secret is tried for every webhook, so there are not to be many.
const SECRETS_MAX: usize = 10;

request_body! {
    /// A new webhook secret.
    refuses_unknown pub struct NewSecret {
        /// What the vendor signs with from now on; absent: one is made here and shown once.
        secret: Option<SecretText>,
        /// How many hours the former ones stay valid, by default `webhooks.secret_overlap_hours`; 0 ends them now.
        overlap_hours: Option<Whole<0, OVERLAP_HOURS_MAX>>,
    }
}

/// A changed webhook secret.
#[derive(Debug, Object)]
#[oai(rename = "WebhookSecret")]
pub struct SecretAnswer {
    /// The system.
    pub system_id: String,
    /// Counts changes of its configuration.
    pub version: i64,
    /// The new secret, where it was made here. It is not shown again.
    #[oai(skip_serializing_if_is_none)]
    pub secret: Option<String>,
    /// Where the vendor posts to, below this service's own address.
    pub webhook_path: String,
    /// The same with the secret that was made here, for a vendor that signs nothing and is told apart by its
    /// address. It is not shown again.
    #[oai(skip_serializing_if_is_none)]
    pub webhook_path_with_secret: Option<String>,
    /// When the former secrets stop being valid.
    pub webhook_secret_expiries: Vec<Time>,
}

/// Puts a new secret beside the former ones, and an end to those.
pub(super) async fn rotate(
    context: &Context,
    caller: &Caller,
    mut system: ExternalSystem,
    asked: NewSecret,
) -> Result<SecretAnswer, Problem> {
    let now = context.clock().now();
    let hours = asked.overlap_hours.map_or(i64::from(context.webhooks.secret_overlap_hours), |hours| hours.0);
    let spec = spec(context, &system)?;
    let (secret, shown) = if let Some(given) = asked.secret {
        if let Some(problem) = problem_of_webhook_secret(Some(&spec), &given.0) {
            return Err(Problem::invalid_field("secret", problem));
        }
        (given.0, None)
    } else {
        let made = spec.new_secret();
        (made.clone(), Some(made))
    };
    replace(context, &mut system, secret, now, now + TimeDelta::hours(hours))?;
    let detail = json!({"made_here": shown.is_some(), "overlap_hours": hours});
    let detail = Changes::default().secret("webhook_secret").beside(detail);
    let mut tx = context.store.begin().await?;
    external_systems::save(&mut tx, &system, None, now).await?;
    systems::audit(&mut tx, context, caller, "system.webhook_secret", &system, Some(&detail)).await?;
    systems::tell(&mut tx, context, SystemChange::Updated, &system).await?;
    tx.commit().await?;
    let saved = external_systems::get(&context.store, system.id).await?;
    let path = webhook_path(&saved);
    let shown = shown.map(|secret| secret.expose_secret().to_owned());
    let with_secret = spec.secret_parameter().zip(shown.as_ref()).map(|(parameter, secret)| {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair(parameter, secret).finish();
        format!("{path}?{query}")
    });
    Ok(SecretAnswer {
        system_id: saved.id.to_string(),
        version: saved.version,
        secret: shown,
        webhook_path: path,
        webhook_path_with_secret: with_secret,
        webhook_secret_expiries: systems::answer::expiries(&saved),
    })
}

/// How this system's vendor signs.
fn spec(context: &Context, system: &ExternalSystem) -> Result<Arc<WebhookSpec>, Problem> {
    let catalog = context.vendors.catalog();
    let manifest = catalog.resolve(&system.provider, &system.config).map_err(|errors| {
        Problem::conflict("not_set_up", format!("the settings in `config` have mistakes: {errors}"))
    })?;
    Ok(catalog.webhook_of(&manifest).1)
}

/// The former secrets keep counting until `until`, or until the earlier end that they have.
fn replace(
    context: &Context,
    system: &mut ExternalSystem,
    secret: SecretString,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<(), Problem> {
    let store = &context.store;
    let mut secrets = external_systems::webhook_secrets_valid_at(store, system, now)?;
    if secrets.get(WEBHOOK_SECRET).is_some_and(|known| known.expose_secret() == secret.expose_secret()) {
        return Err(Problem::invalid_field(
            "secret",
            "is the one in use; give another, or none to have one made",
        ));
    }
    if until <= now {
        secrets.clear();
    }
    if let Some(former) = secrets.remove(WEBHOOK_SECRET) {
        secrets.insert(format!("former-{}", context.clock().new_id()), former);
    }
    if secrets.len() >= SECRETS_MAX {
        let detail = format!(
            "the system has {SECRETS_MAX} webhook secrets that are still valid; wait until one is over, or end them \
             all with `overlap_hours` 0"
        );
        return Err(Problem::conflict("too_many_secrets", detail));
    }
    let ends = &mut system.webhook_secret_expiries;
    for name in secrets.keys() {
        let end = ends.entry(name.clone()).or_insert(until);
        *end = (*end).min(until);
    }
    secrets.insert(WEBHOOK_SECRET.to_owned(), secret);
    Ok(external_systems::set_webhook_secrets(store, system, &secrets)?)
}
