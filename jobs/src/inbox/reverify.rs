//! Out of quarantine: all events of a system once its secret is mended, or a single one because an admin says
//! so. Who asked for the first is written down here, step by step, with what was moved; for the second by the
//! edge, in the transaction that it gives.
//!
//! An event is judged as on its arrival: its raw bytes, and its timestamp against the time of its receipt; by
//! the secrets that count now, since the one that counted then was wrong or missing.

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use tokio::time::Instant;
use zhilian_sync_store::audit_logs::{self, NewAuditLog};
use zhilian_sync_store::webhook_events::{self, Accepted, AcceptedBy, WebhookEvent};
use zhilian_sync_store::{EventId, StoreError, SystemId, Tx, UserId, external_systems};

use super::systems::{self, Known};
use super::{Inbox, Rejected};
use crate::vendor::webhook::{Opened, Refusal, StoredDelivery, WebhookSpec};

/// Events that are judged and moved in one transaction: few, because it holds rows that deliveries want.
const EVENTS_PER_STEP: i64 = 20;
/// How often a step is tried that the database did not take: it was the victim of a deadlock, as a rule.
const TRIES_MAX: usize = 3;
/// How often a step is judged anew because its system was changed meanwhile.
const ROUNDS_MAX: usize = 5;
/// What the audit calls it.
const ACTION: &str = "webhook_events.reverify";

/// Who asks for a quarantine to be judged again, and what only the edge knows.
#[derive(Debug, Clone, Default)]
pub struct Asker {
    /// The user; `None` for the program itself.
    pub user: Option<UserId>,
    /// The user's name.
    pub name: Option<String>,
    /// Where the request came from.
    pub address: Option<String>,
    /// The id of the request.
    pub request: Option<String>,
    /// Where the vendor posts to today, where the system names no address itself.
    pub webhook_url: String,
}

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

/// An event and what became of it this time.
struct Judged<'e> {
    event: &'e WebhookEvent,
    verdict: Result<Genuine, Refusal>,
}

/// What an event is known by among the accepted.
struct Genuine {
    opened: Opened,
    fingerprint: Vec<u8>,
}

/// A system as it is now.
struct Judge<'a> {
    known: Known,
    store_id: Option<String>,
    asker: &'a Asker,
    now: DateTime<Utc>,
}

/// How far a judging has come.
struct Step {
    done: Reverified,
    /// The event that was judged last; `None` where none was left.
    upto: Option<EventId>,
}

impl Inbox {
    /// Judges every quarantined event of a system again, and rings for those that are to be applied.
    ///
    /// A system whose settings have mistakes is a conflict, an unknown or deleted one is not found.
    pub async fn reverify(&self, system: SystemId, asker: &Asker) -> Result<Reverified, StoreError> {
        // What comes from now on is judged by what is known now, and a flood of it would keep us here for ever.
        let newest = webhook_events::newest_quarantined(&self.0.ctx.store, system).await?;
        let mut done = Reverified::default();
        let mut after = None;
        loop {
            let step = self.step(system, asker, (after, newest)).await?;
            done.verified += step.done.verified;
            done.duplicates += step.done.duplicates;
            done.refused += step.done.refused;
            if step.done.verified > 0 {
                self.ring();
            }
            self.0.quota.note();
            if step.upto.is_none() || step.upto >= newest {
                break;
            }
            after = step.upto;
        }
        tracing::info!(system.id = %system, verified = done.verified, duplicates = done.duplicates, refused = done.refused, "the quarantine of a system was judged again");
        Ok(done)
    }

    /// Judges the next events until the database takes what came of it.
    async fn step(
        &self,
        system: SystemId,
        asker: &Asker,
        within: (Option<EventId>, Option<EventId>),
    ) -> Result<Step, StoreError> {
        let (mut busy, mut changed) = (0, 0);
        loop {
            match self.try_step(system, asker, within).await {
                Ok(Some(step)) => return Ok(step),
                Ok(None) => changed += 1,
                Err(error) if error.is_busy() && busy + 1 < TRIES_MAX => {
                    tracing::debug!(%error, system.id = %system, "a step of judging again is repeated");
                    busy += 1;
                }
                Err(error) => return Err(error),
            }
            if changed >= ROUNDS_MAX {
                let detail = format!("system `{system}` is being changed again and again; repeat this later");
                return Err(StoreError::Conflict(detail));
            }
        }
    }

    /// One transaction; `None` where the system was changed while its events were judged.
    async fn try_step(
        &self,
        system: SystemId,
        asker: &Asker,
        (after, newest): (Option<EventId>, Option<EventId>),
    ) -> Result<Option<Step>, StoreError> {
        let store = &self.0.ctx.store;
        // Read anew for every step: a secret that is revoked meanwhile counts no more.
        let (known, store_id) = self.known_now(system).await?;
        let judge = Judge { known, store_id, asker, now: self.0.ctx.clock().now() };
        let mut events = webhook_events::quarantined_of(store, system, after, EVENTS_PER_STEP).await?;
        events.retain(|event| Some(event.id) <= newest);
        let upto = events.last().map(|event| event.id);
        if upto.is_none() && after.is_some() {
            return Ok(Some(Step { done: Reverified::default(), upto }));
        }
        // Judged before the transaction, which holds rows that deliveries want.
        let mut judged: Vec<_> = events.iter().map(|event| self.judge_again(&judge, event)).collect();
        // In the order in which a batch of deliveries takes them: the vendor may be sending them again.
        judged.sort_by(|one, other| one.place().cmp(&other.place()));
        let mut tx = store.begin().await?;
        let done = move_out(&mut tx, &judge, &judged).await?;
        self.write_down(&mut tx, &judge, done).await?;
        if !external_systems::holds_version(&mut tx, system, judge.known.version).await? {
            return Ok(None);
        }
        tx.commit().await?;
        Ok(Some(Step { done, upto }))
    }

    fn judge_again<'e>(&self, judge: &Judge<'_>, event: &'e WebhookEvent) -> Judged<'e> {
        let known = &judge.known;
        let verdict = self.reread(known, event).and_then(|reread| {
            if !known.waived {
                verify(judge, reread.delivery)?;
            }
            reread.opened
        });
        Judged { event, verdict: verdict.map(|opened| Genuine::new(event, opened)) }
    }

    /// Who had what judged again, in the transaction that moves it; also where nothing was moved.
    async fn write_down(
        &self,
        tx: &mut Tx,
        judge: &Judge<'_>,
        Reverified { verified, duplicates, refused }: Reverified,
    ) -> Result<(), StoreError> {
        let Judge { known, store_id, asker, .. } = judge;
        let (id, detail) = (
            known.id.to_string(),
            json!({"verified": verified, "duplicates": duplicates, "refused": refused}).to_string(),
        );
        let entry = NewAuditLog {
            actor_id: asker.user,
            actor_name: asker.name.as_deref(),
            address: asker.address.as_deref(),
            action: ACTION,
            entity: "system",
            entity_id: Some(&id),
            store_id: store_id.as_deref(),
            request_id: asker.request.as_deref(),
            detail: Some(&detail),
        };
        audit_logs::insert(tx, self.0.ctx.clock(), entry).await
    }

    /// Lets one event out of quarantine as it is, in the caller's transaction, which also writes down who says
    /// so. After the commit, [`Inbox::ring`].
    pub async fn release(&self, tx: &mut Tx, id: EventId) -> Result<Released, StoreError> {
        let Some(event) = webhook_events::find(&self.0.ctx.store, id).await? else {
            return Ok(Released::Unknown);
        };
        let (known, _) = self.known_now(event.system_id).await?;
        let as_kept = || Opened {
            event_key: event.event_key.clone(),
            event_type: event.event_type.clone().unwrap_or_default(),
        };
        let opened =
            self.reread(&known, &event).and_then(|reread| reread.opened).unwrap_or_else(|_| as_kept());
        let genuine = Genuine::new(&event, opened);
        let now = self.0.ctx.clock().now();
        let released = match genuine.accept(tx, event.id, AcceptedBy::Release, now).await? {
            Accepted::Pending => Released::Pending,
            Accepted::Duplicate => Released::Duplicate,
            Accepted::NotQuarantined => Released::NotQuarantined,
        };
        self.0.quota.note();
        Ok(released)
    }

    /// The system as it is in the database at this moment, and its store.
    async fn known_now(&self, system: SystemId) -> Result<(Known, Option<String>), StoreError> {
        let ctx = &self.0.ctx;
        let read_at = Instant::now();
        let row = external_systems::get(&ctx.store, system).await?;
        let store_id = row.store_id.clone();
        match systems::understand(&ctx.store, &ctx.vendors, row, read_at) {
            Ok(known) => Ok((known, store_id)),
            Err(Rejected::Misconfigured) => Err(StoreError::Conflict(format!(
                "the settings or secrets of system `{system}` have mistakes; correct them and repeat"
            ))),
            Err(other) => Err(StoreError::Conflict(other.to_string())),
        }
    }

    fn reread(&self, known: &Known, event: &WebhookEvent) -> Result<Reread, Refusal> {
        let unreadable = |why: String| Refusal::new("request_lost", why);
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

impl Judged<'_> {
    /// The genuine ones first, by the fingerprints that they are to have; then the others, by those they have.
    fn place(&self) -> (bool, &[u8]) {
        match &self.verdict {
            Ok(genuine) => (false, &genuine.fingerprint),
            Err(_) => (true, &self.event.fingerprint),
        }
    }
}

impl Genuine {
    fn new(event: &WebhookEvent, opened: Opened) -> Self {
        let Opened { event_key, event_type } = &opened;
        let fingerprint =
            webhook_events::fingerprint(event.system_id, event_key, event_type, &event.body, None);
        Self { opened, fingerprint }
    }

    async fn accept(
        &self,
        tx: &mut Tx,
        id: EventId,
        accepted_by: AcceptedBy,
        now: DateTime<Utc>,
    ) -> Result<Accepted, StoreError> {
        let Opened { event_key, event_type } = &self.opened;
        let event_type = Some(event_type.as_str()).filter(|text| !text.is_empty());
        webhook_events::accept(tx, id, accepted_by, &self.fingerprint, event_key, event_type, now).await
    }
}

/// Lets those that are genuine out, and notes why the others stay.
async fn move_out(tx: &mut Tx, judge: &Judge<'_>, judged: &[Judged<'_>]) -> Result<Reverified, StoreError> {
    let accepted_by = if judge.known.waived { AcceptedBy::Waiver } else { AcceptedBy::Verification };
    let mut done = Reverified::default();
    for Judged { event, verdict } in judged {
        match verdict {
            Ok(genuine) => match genuine.accept(tx, event.id, accepted_by, judge.now).await? {
                Accepted::Pending => done.verified += 1,
                Accepted::Duplicate => done.duplicates += 1,
                // Somebody else was faster.
                Accepted::NotQuarantined => {}
            },
            Err(Refusal { code, message }) => {
                done.refused += u64::from(webhook_events::note_refusal(tx, event.id, code, message).await?);
            }
        }
    }
    Ok(done)
}

/// By the address that was registered when it came, and by today's, in case that was what was wrong.
fn verify(judge: &Judge<'_>, mut delivery: StoredDelivery) -> Result<(), Refusal> {
    let known = &judge.known;
    let secrets = known.secrets_at(judge.now);
    let judged = known.spec.verify(&delivery.as_delivery(), &secrets);
    let today = known.webhook_url.as_ref().unwrap_or(&judge.asker.webhook_url);
    if judged.is_ok() || *today == delivery.url {
        return judged;
    }
    delivery.url.clone_from(today);
    known.spec.verify(&delivery.as_delivery(), &secrets)
}
