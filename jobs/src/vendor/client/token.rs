//! Access tokens: got from the vendor once for all processes, renewed before they end, and once more when the
//! vendor refuses one that should still be good.
//!
//! ```text
//! kept and good ──────────────────────────────► used
//! none, or about to end ──► our turn ──► asked for ──► kept, sealed ──► used
//!                      └──► another's turn ──► the old one while it lasts, else a short wait, else later
//! refused ──► a newer one is kept ──► used    (else as about to end)
//! ```
//!
//! A refresh token that the vendor changes is kept before the access token that came with it is used: whoever
//! loses it must ask a person to sign in anew.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sha2::{Digest, Sha256};
use zhilian_sync_store::StoreError;
use zhilian_sync_store::vendor_tokens::{self, Secrets, Turn, VendorToken};

use super::super::manifest::token::{Expiry, TokenSpec};
use super::super::path;
use super::super::template::{self, Slot, Slots};
use super::Connection;
use super::call::Call;
use crate::outcome::{Action, JobError};

/// A token is renewed so long before its end, or a tenth of its life before, whichever is less.
const EARLY_MAX: TimeDelta = TimeDelta::seconds(60);
/// How long others wait for whoever asks, before they give their worker to another run.
const WAIT_MAX: Duration = Duration::from_secs(3);
const WAIT_STEP: Duration = Duration::from_millis(50);
/// When a run that waited in vain comes back.
const BUSY_SNOOZE: Duration = Duration::from_secs(5);
/// A lease outlasts the call by so much, so that nobody asks a second time while the first may still succeed.
const LEASE_SLACK: Duration = Duration::from_secs(15);

/// The names under which a token's parts are sealed.
const TOKEN: &str = "token";
const REFRESH_TOKEN: &str = "refresh_token";
const OWNER: &str = "owner";

/// Whose token it is: the credentials, and the settings that the request names. Another secret, another token.
pub(super) struct Owner {
    /// The key in the store: it tells nothing of the credentials.
    key: String,
    /// The whole hash, sealed beside the token, so that two owners with one key never share it.
    hash: String,
}

impl Connection {
    /// A token that the vendor has not refused.
    #[expect(clippy::disallowed_methods, reason = "a wait shorter than claiming the run again would take")]
    pub(super) async fn token(
        &self,
        spec: &TokenSpec,
        refused: Option<&SecretString>,
    ) -> Result<SecretString, JobError> {
        let owner = self.token_owner(spec);
        let store = &self.inner.store;
        let worker = store.clock().new_id().to_string();
        let turn = Turn { key: &owner.key, worker: &worker };
        let lease = Duration::from_secs(self.inner.settings.timeout_secs) + LEASE_SLACK;
        let mut waited = Duration::ZERO;
        loop {
            let kept = self.kept(&owner).await?.filter(|kept| !is(kept, refused));
            if let Some(token) = kept.as_ref().and_then(|kept| self.usable(kept, early(kept))) {
                return Ok(token);
            }
            if vendor_tokens::lease(store, turn, lease).await? {
                if let Some(token) = self.renew(spec, &owner, turn, refused).await? {
                    return Ok(token);
                }
                continue;
            }
            if let Some(token) = kept.as_ref().and_then(|kept| self.usable(kept, TimeDelta::zero())) {
                return Ok(token);
            }
            if waited >= WAIT_MAX {
                let message = format!(
                    "another worker asks {} for an access token; the run goes on later",
                    self.manifest.title
                );
                return Err(JobError::snooze(BUSY_SNOOZE, "token_busy", message));
            }
            waited += WAIT_STEP;
            tokio::time::sleep(WAIT_STEP).await;
        }
    }

    /// Asks for a token in our turn; nothing where the turn was lost meanwhile.
    async fn renew(
        &self,
        spec: &TokenSpec,
        owner: &Owner,
        turn: Turn<'_>,
        refused: Option<&SecretString>,
    ) -> Result<Option<SecretString>, JobError> {
        let store = &self.inner.store;
        let renewed = async {
            // Whoever had the turn before may have ended it between our look and our turn.
            let kept = self.kept(owner).await?;
            let newer = kept.as_ref().filter(|kept| !is(kept, refused));
            if let Some(token) = newer.and_then(|kept| self.usable(kept, early(kept))) {
                vendor_tokens::release(store, turn).await?;
                return Ok(Some(token));
            }
            let last = kept.as_ref().and_then(|kept| kept.secrets.get(REFRESH_TOKEN));
            let (mut secrets, expires_at) = self.ask_for_token(spec, last).await?;
            secrets.insert(OWNER.to_owned(), SecretString::from(owner.hash.as_str()));
            let saved = match vendor_tokens::save(store, turn, &secrets, expires_at).await {
                // A refresh token that is lost needs a person: one more try before giving up.
                Err(StoreError::Busy(_)) => vendor_tokens::save(store, turn, &secrets, expires_at).await?,
                done => done?,
            };
            Ok(secrets.remove(TOKEN).filter(|_| saved))
        };
        let renewed = renewed.await;
        if renewed.is_err() {
            // What went wrong is told; that the turn could not be ended as well only makes others wait.
            let _ = vendor_tokens::release(store, turn).await;
        }
        renewed
    }

    /// Asks the vendor.
    async fn ask_for_token(
        &self,
        spec: &TokenSpec,
        last_refresh: Option<&SecretString>,
    ) -> Result<(Secrets, Option<DateTime<Utc>>), JobError> {
        let first =
            spec.refresh.as_ref().and_then(|refresh| refresh.first.text(&self.slots(Slots::default())));
        let first = first.map(SecretString::from);
        let refresh_token = last_refresh.or(first.as_ref()).filter(|_| spec.refresh.is_some());
        if let Some(secret) = refresh_token {
            self.learn(secret);
        }
        let slots = self.slots(Slots { refresh_token, ..Slots::default() });
        let success = spec.success.as_ref().or(self.manifest.envelope.success.as_ref());
        let call = Call { token_of: Some(spec), ..Call::new(&spec.request, slots, success) };
        let answer = self.attempt(&call, None).await.map_err(|error| self.token_failure(error))?;
        let found = |paths: &[path::Path]| {
            let text = path::first_present(paths, &answer.body).and_then(template::as_text);
            text.filter(|text| !text.is_empty()).map(SecretString::from)
        };
        let token = found(&spec.token).ok_or_else(|| {
            let message = format!(
                "{} answered without an access token at {}; correct `auth.token` of the manifest",
                self.manifest.title,
                path::shown(&spec.token)
            );
            JobError::retry("token_missing", message)
        })?;
        self.learn(&token);
        let next = spec.refresh.as_ref().and_then(|refresh| found(&refresh.next));
        if let Some(secret) = &next {
            self.learn(secret);
        }
        let mut secrets = Secrets::from([(TOKEN.to_owned(), token)]);
        // One that is not given anew stays good.
        if let Some(secret) = next.or_else(|| refresh_token.cloned()) {
            secrets.insert(REFRESH_TOKEN.to_owned(), secret);
        }
        let lifetime = match &spec.expires_in {
            Expiry::Unknown => None,
            Expiry::After(lifetime) => TimeDelta::from_std(*lifetime).ok(),
            Expiry::Told(paths) => path::first_present(paths, &answer.body).and_then(seconds),
        };
        let expires_at = lifetime.and_then(|lifetime| answer.asked_at.checked_add_signed(lifetime));
        Ok((secrets, expires_at))
    }

    /// What a failed token call means: a vendor that refuses it refuses the credentials.
    fn token_failure(&self, error: JobError) -> JobError {
        let refused = error.action == Action::Unauthorized
            || error.action == Action::GiveUp && error.code == "vendor_refused";
        if !refused {
            return error;
        }
        let message = format!("{} gives no access token: {}", self.manifest.title, error.message);
        JobError { source: error.source, ..JobError::unauthorized("unauthorized", message) }
    }

    /// What is kept for the owner.
    async fn kept(&self, owner: &Owner) -> Result<Option<VendorToken>, JobError> {
        let found = match vendor_tokens::find(&self.inner.store, &owner.key).await {
            Err(StoreError::Vault(error)) => {
                tracing::warn!(%error, vendor = %self.manifest.name, "a kept access token does not open; asking for another");
                None
            }
            found => found?,
        };
        let is_ours = |kept: &VendorToken| {
            kept.secrets.get(OWNER).is_some_and(|kept| kept.expose_secret() == owner.hash)
        };
        Ok(found.filter(is_ours))
    }

    /// The token, unless it ends within so long.
    fn usable(&self, kept: &VendorToken, margin: TimeDelta) -> Option<SecretString> {
        let now = self.inner.store.clock().now();
        let good = kept.expires_at.is_none_or(|end| now < end - margin);
        let token = kept.secrets.get(TOKEN).filter(|_| good)?;
        self.learn(token);
        Some(token.clone())
    }

    fn token_owner(&self, spec: &TokenSpec) -> Owner {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        part(&self.manifest.name);
        part(self.endpoint.as_str());
        for (name, secret) in &self.credentials {
            part(name);
            part(secret.expose_secret());
        }
        let mut slots = spec.slots();
        if spec.common {
            let common = &self.manifest.connection;
            let templates = common.headers.iter().chain(&common.query).chain(&common.parameters);
            slots.extend(templates.flat_map(|(_, template)| template.slots()).map(|slot| ("", slot)));
        }
        for (_, slot) in slots {
            if let Slot::Config(name) = slot {
                part(name);
                part(&self.config.get(name).map(Value::to_string).unwrap_or_default());
            }
        }
        let hash = hex::encode(hash.finalize());
        Owner { key: format!("{}/{}", self.manifest.name, &hash[..8]), hash }
    }

    /// From now on no text shows it.
    fn learn(&self, secret: &SecretString) {
        self.redactor.learn(secret.expose_secret());
        self.keys.learn_for_records(secret.expose_secret());
    }
}

fn is(kept: &VendorToken, refused: Option<&SecretString>) -> bool {
    let token = kept.secrets.get(TOKEN).map(ExposeSecret::expose_secret);
    refused.is_some_and(|refused| token == Some(refused.expose_secret()))
}

/// How long before its end a token is renewed.
fn early(kept: &VendorToken) -> TimeDelta {
    kept.expires_at.map_or(TimeDelta::zero(), |end| EARLY_MAX.min((end - kept.issued_at) / 10))
}

/// A number of seconds, or its text.
fn seconds(value: &Value) -> Option<TimeDelta> {
    let secs: f64 = template::as_text(value)?.parse().ok()?;
    let secs = Duration::try_from_secs_f64(secs).ok()?;
    TimeDelta::from_std(secs).ok()
}
