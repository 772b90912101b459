//! From a request to its answer.
//!
//! ```text
//! system known? ─▶ handshake? ─▶ verified? ──yes──▶ queue ─▶ commit ─▶ the vendor's "accepted"
//!   │ no: 404                      │ no: by an entry read after the request came?
//!   ▼                              ▼
//! allowance of the address         allowance of the address ─▶ own queue ─▶ quota ─▶ quarantined: "refused",
//!                                                              or "accepted" where nobody could have signed it
//! ```
//!
//! An insert that finds the system changed keeps nothing; the request is then judged once more.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use tokio::time::Instant;
use zhilian_sync_store::webhook_events::{self, AcceptedBy, NewEvent, WebhookEvent};
use zhilian_sync_store::{EventId, Store};

use super::commit::{CommitQueue, Place, Told, cost};
use super::systems::Known;
use super::{Call, Inbox, Rejected};
use crate::settings::WebhookSettings;
use crate::vendor::webhook::{Delivery, Kept, Opened, Refusal, Reply, ReplyKind, WebhookSpec};

/// A system that is changed so often while one request is judged is not judged any more.
const ROUNDS_MAX: usize = 5;
/// A handshake is not answered by an entry older than this: nothing else would notice that its system is deleted.
const HANDSHAKE_AGE_MAX: Duration = Duration::from_secs(1);
/// Nobody is turned away by an entry older than this: the secret may be another one by now.
const REFUSAL_AGE_MAX: Duration = Duration::from_secs(1);
/// The method of events.
const POST: &str = "POST";

/// A request whose system is known.
struct Case<'a> {
    call: &'a Call,
    known: Arc<Known>,
    id: EventId,
    /// By the clock that rows have.
    received_at: DateTime<Utc>,
    /// By the clock that waits are measured with.
    asked: Instant,
}

/// What a request turned out to be.
enum Judged {
    /// It only asks whether somebody is here.
    Handshake(Reply),
    /// An event to be applied.
    Accepted(Opened, AcceptedBy),
    /// An event to be kept and not to be applied. It is not opened yet: that is work for whoever has an allowance.
    Doubted(Refusal),
    /// Nothing that this vendor is known to send.
    Nothing,
}

/// What one round of judging came to.
enum Round {
    Answered(Reply),
    /// Judge again by the system as it is now.
    Again,
}

impl Inbox {
    /// Answers a vendor's request. Whatever says "accepted" is a committed row.
    pub async fn receive(&self, call: Call) -> Result<Reply, Rejected> {
        let clock = self.0.ctx.clock();
        let asked = Instant::now();
        let known = self.system_of(&call, asked).await?;
        let mut case =
            Case { call: &call, known, id: EventId(clock.new_id()), received_at: clock.now(), asked };
        for _ in 0..ROUNDS_MAX {
            if case.known.system_type != call.system_type {
                return Err(Rejected::WrongType);
            }
            match self.round(&mut case).await? {
                Round::Answered(reply) => return Ok(reply),
                Round::Again => {
                    let read = self.0.systems.read_since(call.system, Instant::now());
                    let until = case.until(&self.0.settings);
                    case.known = tokio::time::timeout_at(until, read).await.unwrap_or(Err(Rejected::Busy))?;
                }
            }
        }
        Err(Rejected::Busy)
    }

    async fn system_of(&self, call: &Call, asked: Instant) -> Result<Arc<Known>, Rejected> {
        if let Some(known) = self.0.systems.cached(call.system) {
            return Ok(known);
        }
        if !self.0.addresses.has(call.address, asked.into_std()) {
            return Err(Rejected::TooMany);
        }
        let longest = Duration::from_millis(self.0.settings.ack_deadline_max_ms);
        let read = self.0.systems.read_since(call.system, asked);
        let found = tokio::time::timeout_at(asked + longest, read).await.unwrap_or(Err(Rejected::Busy));
        if matches!(found, Err(Rejected::Unknown | Rejected::Misconfigured)) {
            // Only what leads nowhere costs something: a vendor's first event after a start is welcome.
            self.0.addresses.take(call.address, asked.into_std());
        }
        found
    }

    async fn round(&self, case: &mut Case<'_>) -> Result<Round, Rejected> {
        match case.judge() {
            Judged::Accepted(opened, by) => self.keep(case, &opened, by).await,
            Judged::Doubted(refusal) => self.quarantine(case, &refusal).await,
            Judged::Handshake(_) if case.known.read_at.elapsed() > HANDSHAKE_AGE_MAX => Ok(Round::Again),
            Judged::Handshake(reply) => Ok(Round::Answered(reply)),
            Judged::Nothing => Err(Rejected::Method),
        }
    }

    async fn keep(&self, case: &Case<'_>, opened: &Opened, by: AcceptedBy) -> Result<Round, Rejected> {
        let queue = &self.0.verified;
        let event = case.event(&self.0.ctx.store, opened, Ok(by))?;
        let Some(place) = queue.enter(cost(&event)) else {
            return case.busy(opened);
        };
        match self.told(queue, event, place, case.until(&self.0.settings)).await {
            Some(Told::Kept) => {
                tracing::debug!(system.id = %case.known.id, event.id = %case.id, "a webhook is kept");
                Ok(case.reply(ReplyKind::Accepted, opened))
            }
            Some(Told::Stale) => Ok(Round::Again),
            Some(Told::Refused) => Err(Rejected::NotStorable),
            Some(Told::Full | Told::Failed) | None => case.busy(opened),
        }
    }

    async fn quarantine(&self, case: &mut Case<'_>, refusal: &Refusal) -> Result<Round, Rejected> {
        let call = case.call;
        let until = case.until(&self.0.settings);
        // Before the allowance, which a flood from the same proxy may have used up.
        let recently = case.asked.checked_sub(REFUSAL_AGE_MAX).unwrap_or(case.asked);
        match self.refresh(case, recently, until).await {
            Ok(false) => {}
            Ok(true) => return Ok(Round::Again),
            Err(Rejected::Busy) => return case.busy(&nameless()),
            Err(rejected) => return Err(rejected),
        }
        if !self.0.addresses.take(call.address, case.asked.into_std()) {
            tracing::debug!(system.id = %case.known.id, code = refusal.code, "an address sends too much that cannot be verified");
            return case.full(&nameless());
        }
        let opened = &case.opened();
        let event = case.event(&self.0.ctx.store, opened, Err(refusal))?;
        let queue = &self.0.unverified;
        let Some(place) = queue.enter(cost(&event)) else {
            return case.busy(opened);
        };
        // Nobody is refused by what was known before the request came: the secret may be a moment old.
        match self.refresh(case, case.asked, until).await {
            Ok(false) => {}
            Ok(true) => return Ok(Round::Again),
            Err(Rejected::Busy) => return case.busy(opened),
            Err(rejected) => return Err(rejected),
        }
        let told = self.told(queue, event, place, until).await;
        if told == Some(Told::Kept) {
            tracing::info!(system.id = %case.known.id, event.id = %case.id, code = refusal.code, "a webhook is in quarantine: {}", refusal.message);
        }
        match told {
            Some(Told::Kept) if refusal.is_unverifiable() => Ok(case.reply(ReplyKind::Accepted, opened)),
            Some(Told::Kept) if refusal.code == "bad_body" => Ok(case.reply(ReplyKind::BadBody, opened)),
            Some(Told::Kept) => Ok(case.reply(ReplyKind::Refused, opened)),
            Some(Told::Stale) => Ok(Round::Again),
            Some(Told::Full) => case.full(opened),
            Some(Told::Refused) => Err(Rejected::NotStorable),
            Some(Told::Failed) | None => case.busy(opened),
        }
    }

    /// Reads the system again unless it was read at `since` or later; whether it was changed.
    async fn refresh(&self, case: &mut Case<'_>, since: Instant, until: Instant) -> Result<bool, Rejected> {
        if case.known.read_at >= since {
            return Ok(false);
        }
        let version = case.known.version;
        let read = self.0.systems.read_since(case.call.system, since);
        case.known = tokio::time::timeout_at(until, read).await.unwrap_or(Err(Rejected::Busy))?;
        Ok(case.known.version != version)
    }

    /// Waits for a commit; `None` where nobody can say in time.
    async fn told(&self, queue: &CommitQueue, event: NewEvent, place: Place, until: Instant) -> Option<Told> {
        tokio::time::timeout_at(until, queue.push(event, place, until)).await.ok()?.ok()
    }
}

/// An event that nobody has looked into yet.
fn nameless() -> Opened {
    Opened { event_key: String::new(), event_type: String::new() }
}

impl Case<'_> {
    fn spec(&self) -> &WebhookSpec {
        &self.known.spec
    }

    fn judge(&self) -> Judged {
        let call = self.call;
        let url = self.url();
        let delivery = self.delivery(&url);
        let secrets = self.known.secrets_at(self.received_at);
        if let Some(reply) = self.spec().handshake(&delivery, &secrets) {
            return Judged::Handshake(reply);
        }
        if call.method != POST {
            return Judged::Nothing;
        }
        let verified = if self.known.waived {
            Ok(AcceptedBy::Waiver)
        } else {
            self.spec().verify(&delivery, &secrets).map(|()| AcceptedBy::Verification)
        };
        match verified.and_then(|by| Ok((self.spec().open(&delivery)?, by))) {
            Ok((opened, by)) => Judged::Accepted(opened, by),
            Err(refusal) => Judged::Doubted(refusal),
        }
    }

    /// What identifies the event; where it cannot be read, its bytes do.
    fn opened(&self) -> Opened {
        let url = self.url();
        self.spec().open(&self.delivery(&url)).unwrap_or_else(|_| Opened {
            event_key: webhook_events::key_of_body(&self.call.body),
            event_type: String::new(),
        })
    }

    /// The address as the vendor knows it.
    fn url(&self) -> Cow<'_, str> {
        match &self.known.webhook_url {
            Some(url) => Cow::Borrowed(url),
            None => Cow::Owned([self.call.public_url.trim_end_matches('/'), &self.call.path].concat()),
        }
    }

    fn delivery<'a>(&'a self, url: &'a str) -> Delivery<'a> {
        Delivery {
            method: &self.call.method,
            url,
            query: &self.call.query,
            headers: &self.call.headers,
            body: &self.call.body,
            received_at: self.received_at,
        }
    }

    /// The row to be. An event that is not accepted is told apart by its request too: it must never stand in the
    /// way of the genuine one.
    fn event(
        &self,
        store: &Store,
        opened: &Opened,
        accepted: Result<AcceptedBy, &Refusal>,
    ) -> Result<NewEvent, Rejected> {
        let url = self.url();
        let Kept { clear, secret } = self.spec().kept_request(&self.delivery(&url));
        let quarantined = accepted.is_err().then(|| match &secret {
            Some(secret) => format!("{clear}\n{secret}"),
            None => clear.clone(),
        });
        let fingerprint = webhook_events::fingerprint(
            self.known.id,
            &opened.event_key,
            &opened.event_type,
            &self.call.body,
            quarantined.as_deref(),
        );
        let sealed_request = secret
            .map(|secret| store.vault().seal(&SecretString::from(secret), &WebhookEvent::request_aad(self.id)))
            .transpose()
            .map_err(|error| {
                tracing::error!(%error, system.id = %self.known.id, "the secret parts of a webhook cannot be sealed");
                Rejected::Misconfigured
            })?;
        Ok(NewEvent {
            id: self.id,
            system_id: self.known.id,
            system_version: self.known.version,
            event_key: opened.event_key.clone(),
            event_type: (!opened.event_type.is_empty()).then(|| opened.event_type.clone()),
            accepted_by: accepted.ok(),
            error: accepted.err().map(|refusal| (refusal.code, refusal.message.clone())),
            body: self.call.body.to_vec(),
            request: clear,
            sealed_request,
            received_at: self.received_at,
            fingerprint,
        })
    }

    /// When the vendor must have its answer.
    fn until(&self, settings: &WebhookSettings) -> Instant {
        let longest = Duration::from_millis(settings.ack_deadline_max_ms);
        let patience = self.spec().ack_deadline().min(longest);
        let margin = Duration::from_millis(settings.ack_margin_ms).min(patience / 2);
        self.asked + patience.saturating_sub(margin)
    }

    fn reply(&self, kind: ReplyKind, opened: &Opened) -> Round {
        Round::Answered(self.spec().reply(kind, &opened.event_type))
    }

    fn busy(&self, opened: &Opened) -> Result<Round, Rejected> {
        self.reply_or(ReplyKind::Busy, opened, Rejected::Busy)
    }

    fn full(&self, opened: &Opened) -> Result<Round, Rejected> {
        self.reply_or(ReplyKind::Full, opened, Rejected::TooMany)
    }

    /// The vendor's own words where it has some.
    fn reply_or(&self, kind: ReplyKind, opened: &Opened, rejected: Rejected) -> Result<Round, Rejected> {
        if self.spec().has_reply(kind) { Ok(self.reply(kind, opened)) } else { Err(rejected) }
    }
}
