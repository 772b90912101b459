//! Out of quarantine: all events of a system once its secret is mended, or a single one because an admin says
//! so. Who asked for it is written down by the edge.
//!
//! An event is judged as on its arrival: its raw bytes, and its timestamp against the time of its receipt; by
//! the secrets that count now, since the one that counted then was wrong or missing.

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;
use zhilian_sync_store::webhook_events::{self, Accepted, AcceptedBy, WebhookEvent};
use zhilian_sync_store::{EventId, Store, StoreError, SystemId, Tx, external_systems};

use super::systems::{self, Known};
use super::{Inbox, Rejected};
use crate::vendor::webhook::{Opened, Refusal, StoredDelivery, WebhookSpec};

/// Events that are judged and moved in one transaction.
const EVENTS_PER_STEP: i64 = 100;

/// What became of a system's quarantine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reverified {
    /// Events that are to be applied now.
    pub verified: u64,
    /// Events that had been received properly besides.
    pub duplicates: u64,
    /// Events that are still refused; each says why.
    pub refused: u64,
}

/// What became of an event that was to be released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It is to be applied.
    Pending,
    /// The same event had been received properly: nothing is to be done.
    Duplicate,
    /// It is not in quarantine.
    NotQuarantined,
    /// There is no such event.
    Unknown,
}

/// An event as its row describes the request.
struct Reread {
    delivery: StoredDelivery,
    opened: Result<Opened, Refusal>,
}

impl Inbox {
    /// Judges every quarantined event of a system again, and rings for those that are to be applied.
    ///
    /// A system whose settings have mistakes is a conflict, an unknown or deleted one is not found.
    pub async fn reverify(&self, system: SystemId) -> Result<Reverified, StoreError> {
        let store = &self.0.ctx.store;
        let mut done = Reverified::default();
        let mut after = None;
        loop {
            // Read anew for every step: a secret that is revoked meanwhile counts no more.
            let known = self.known_now(system).await?;
            let events = webhook_events::quarantined_of(store, system, after, EVENTS_PER_STEP).await?;
            let Some(last) = events.last() else { break };
            after = Some(last.id);
            let now = self.0.ctx.clock().now();
            // Judged before the transaction, which holds rows that deliveries want.
            let judged: Vec<_> =
                events.iter().map(|event| (event, self.judge_again(&known, event, now))).collect();
            let step = move_out(store, &known, &judged, now).await?;
            done.verified += step.verified;
            done.duplicates += step.duplicates;
            done.refused += step.refused;
            if step.verified > 0 {
                self.ring();
            }
            self.0.quota.note();
        }
        tracing::info!(system.id = %system, verified = done.verified, duplicates = done.duplicates, refused = done.refused, "the quarantine of a system was judged again");
        Ok(done)
    }

    fn judge_again(
        &self,
        known: &Known,
        event: &WebhookEvent,
        now: DateTime<Utc>,
    ) -> Result<Opened, Refusal> {
        let reread = self.reread(known, event)?;
        if !known.waived {
            verify(known, reread.delivery, now)?;
        }
        reread.opened
    }

    /// Lets one event out of quarantine as it is, in the caller's transaction, which also writes down who says
    /// so. After the commit, [`Inbox::ring`].
    pub async fn release(&self, tx: &mut Tx, id: EventId) -> Result<Released, StoreError> {
        let Some(event) = webhook_events::find(&self.0.ctx.store, id).await? else {
            return Ok(Released::Unknown);
        };
        let known = self.known_now(event.system_id).await?;
        let as_kept = || Opened {
            event_key: event.event_key.clone(),
            event_type: event.event_type.clone().unwrap_or_default(),
        };
        let opened =
            self.reread(&known, &event).and_then(|reread| reread.opened).unwrap_or_else(|_| as_kept());
        let released =
            match accept(tx, &event, &opened, AcceptedBy::Release, self.0.ctx.clock().now()).await? {
                Accepted::Pending => Released::Pending,
                Accepted::Duplicate => Released::Duplicate,
                Accepted::NotQuarantined => Released::NotQuarantined,
            };
        self.0.quota.note();
        Ok(released)
    }

    /// The system as it is in the database at this moment.
    async fn known_now(&self, system: SystemId) -> Result<Known, StoreError> {
        let ctx = &self.0.ctx;
        let read_at = Instant::now();
        let row = external_systems::get(&ctx.store, system).await?;
        systems::understand(&ctx.store, &ctx.vendors, row, read_at).map_err(|rejected| match rejected {
            Rejected::Misconfigured => StoreError::Conflict(format!(
                "the settings or secrets of system `{system}` have mistakes; correct them and repeat"
            )),
            other => StoreError::Conflict(other.to_string()),
        })
    }

    fn reread(&self, known: &Known, event: &WebhookEvent) -> Result<Reread, Refusal> {
        let unreadable = |why: String| Refusal { code: "request_lost", message: why };
        let aad = WebhookEvent::request_aad(event.id);
        let secret = event
            .sealed_request
            .as_deref()
            .map(|sealed| self.0.ctx.store.vault().open(sealed, &aad))
            .transpose()
            .map_err(|error| unreadable(error.to_string()))?;
        let secret = secret.as_ref().map(SecretString::expose_secret);
        let delivery =
            WebhookSpec::delivery_of(&event.request, secret, event.body.clone(), event.received_at)
                .map_err(unreadable)?;
        let opened = known.spec.open(&delivery.as_delivery());
        Ok(Reread { delivery, opened })
    }
}

/// Lets those that are genuine out, and notes why the others stay: one transaction.
async fn move_out(
    store: &Store,
    known: &Known,
    judged: &[(&WebhookEvent, Result<Opened, Refusal>)],
    now: DateTime<Utc>,
) -> Result<Reverified, StoreError> {
    let accepted_by = if known.waived { AcceptedBy::Waiver } else { AcceptedBy::Verification };
    let mut done = Reverified::default();
    let mut tx = store.begin().await?;
    for (event, judged) in judged {
        match judged {
            Ok(opened) => match accept(&mut tx, event, opened, accepted_by, now).await? {
                Accepted::Pending => done.verified += 1,
                Accepted::Duplicate => done.duplicates += 1,
                // Somebody else was faster.
                Accepted::NotQuarantined => {}
            },
            Err(refusal) => {
                let Refusal { code, message } = refusal;
                done.refused +=
                    u64::from(webhook_events::note_refusal(&mut tx, event.id, code, message).await?);
            }
        }
    }
    tx.commit().await?;
    Ok(done)
}

/// By the address that was registered when it came, and by today's, in case that was what was wrong.
fn verify(known: &Known, mut delivery: StoredDelivery, now: DateTime<Utc>) -> Result<(), Refusal> {
    let secrets = known.secrets_at(now);
    let judged = known.spec.verify(&delivery.as_delivery(), &secrets);
    match &known.webhook_url {
        Some(url) if judged.is_err() && *url != delivery.url => {
            delivery.url.clone_from(url);
            known.spec.verify(&delivery.as_delivery(), &secrets)
        }
        _ => judged,
    }
}

async fn accept(
    tx: &mut Tx,
    event: &WebhookEvent,
    opened: &Opened,
    accepted_by: AcceptedBy,
    now: DateTime<Utc>,
) -> Result<Accepted, StoreError> {
    let fingerprint = webhook_events::fingerprint(event.system_id, &opened.event_key, &event.body, None);
    let event_type = Some(opened.event_type.as_str()).filter(|text| !text.is_empty());
    webhook_events::accept(tx, event.id, accepted_by, &fingerprint, &opened.event_key, event_type, now).await
}
