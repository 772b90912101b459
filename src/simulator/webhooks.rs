//! The simulated vendor's webhooks: what happens at the till is posted, signed, to whoever asked for it.
//!
//! As real vendors do, it repeats what was not answered with 2xx. As the plan says, it also posts some
//! events twice, some late, after the one that follows them, and some that are not its own: with a
//! signature that nobody with the key has made. Its counters are the ledger of what was posted, and of
//! what the receiver said.
//!
//! ```text
//! POST {url}    X-Demo-Signature: t=1767240000,v1=<hex HMAC-SHA256 of "1767240000.{body}">
//!     {"event_id":"shop-1-E-000017","type":"sale.updated","created_at":"…","data":{…}}
//! ```
//!
//! `sale.created` and `sale.updated` hold the whole sale, `sale.voided` its id and time alone.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::SecondsFormat;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Till;
use super::faults::Every;
use super::shop::{Change, Happening};

/// How often the till looks for what has happened.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the receiver may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How often an event is posted that nobody takes.
const TRIES: u32 = 20;
/// How long it waits before it posts such an event again.
const PAUSE: Duration = Duration::from_millis(250);

/// Where webhooks go.
#[derive(Debug, Clone)]
pub struct WebhookTarget {
    /// The receiver.
    pub address: SocketAddr,
    /// Path of the receiver, from its leading slash.
    pub path: String,
    /// What events are signed with.
    pub secret: SecretString,
    /// Which of them go wrong.
    pub plan: WebhookPlan,
}

/// Which events are posted otherwise than once, in order, signed; an occasion is an event.
#[derive(Debug, Clone, Copy, Default)]
pub struct WebhookPlan {
    /// Posts an event twice.
    pub twice: Option<Every>,
    /// Posts an event only after the one that follows it.
    pub late: Option<Every>,
    /// Posts, before an event, one that is not the vendor's: signed with another key.
    pub forged: Option<Every>,
}

impl WebhookPlan {
    /// One of each early, then now and then.
    #[must_use]
    pub const fn lively() -> Self {
        Self {
            twice: Some(Every { first: 2, then: 7 }),
            late: Some(Every { first: 3, then: 5 }),
            forged: Some(Every { first: 4, then: 9 }),
        }
    }
}

/// What was posted, and what the receiver said to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WebhookCounters {
    /// Events of the vendor that were answered with 2xx, each counted once.
    pub accepted: u64,
    /// Further deliveries of such events that were answered with 2xx.
    pub repeated: u64,
    /// Events that were posted after the one that follows them.
    pub late: u64,
    /// Events with a wrong signature, each another one.
    pub forged: u64,
    /// How many of those were answered with 2xx.
    pub forged_accepted: u64,
    /// Deliveries that nobody answered, or not with 2xx, and that were repeated.
    pub unanswered: u64,
    /// Events that nobody took in the end.
    pub given_up: u64,
}

/// One event as it is posted.
#[derive(Debug, Clone)]
struct Event {
    body: String,
    signed_with: SecretString,
}

/// A delivery that was not answered with 2xx in time; a vendor asks no further why.
struct Undelivered;

/// What the poster keeps between events.
struct Poster {
    till: Arc<Till>,
    target: WebhookTarget,
    stop: CancellationToken,
    events: u64,
    late: Option<Event>,
}

/// Posts what happens at the till until `stop`, or until the till has closed and everything is posted.
pub(super) async fn post_all_the_time(till: Arc<Till>, target: WebhookTarget, stop: CancellationToken) {
    let mut poster = Poster { till, target, stop: stop.clone(), events: 0, late: None };
    let mut looks = tokio::time::interval(LOOK_EVERY);
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        let (mut happened, open) = {
            let mut state = poster.till.state();
            (state.shop.take_happened(), state.open)
        };
        let closing = !open && happened.is_empty();
        while let Some(happening) = happened.pop_front() {
            if stop.is_cancelled() {
                return;
            }
            poster.post_as_planned(&happening).await;
        }
        if closing {
            if let Some(late) = poster.late.take() {
                poster.deliver(&late).await;
            }
            poster.till.state().all_posted = true;
            return;
        }
    }
}

impl Poster {
    async fn post_as_planned(&mut self, happening: &Happening) {
        self.events += 1;
        let plan = self.target.plan;
        let happens = |every: Option<Every>| every.is_some_and(|every| every.happens(self.events));
        let (twice, late, forged) = (happens(plan.twice), happens(plan.late), happens(plan.forged));
        let event = self.event(happening);
        if forged {
            self.deliver_forged(&event).await;
        }
        if late && self.late.is_none() {
            self.till.state().webhooks.late += 1;
            self.late = Some(event);
            return;
        }
        self.deliver(&event).await;
        if twice && self.post(&event).await.is_ok() {
            self.till.state().webhooks.repeated += 1;
        }
        if let Some(late) = self.late.take() {
            self.deliver(&late).await;
        }
    }

    fn event(&self, happening: &Happening) -> Event {
        let (kind, data) = match happening.change {
            Change::Made => ("sale.created", json!(happening.sale)),
            Change::Changed => ("sale.updated", json!(happening.sale)),
            Change::Voided => ("sale.voided", happening.sale.id_and_time()),
        };
        let id = format!("{}-E-{:06}", self.till.settings.shop_id, self.events);
        Event { body: self.envelope(&id, kind, &data), signed_with: self.target.secret.clone() }
    }

    fn envelope(&self, id: &str, kind: &str, data: &Value) -> String {
        let now = self.now();
        json!({"event_id": id, "type": kind, "created_at": now, "data": data}).to_string()
    }

    fn now(&self) -> String {
        self.till.clock.now().to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    /// A stranger's: half of them copy an event that the vendor is about to post, half make up a sale.
    async fn deliver_forged(&self, genuine: &Event) {
        let forged = {
            let mut state = self.till.state();
            state.webhooks.forged += 1;
            state.webhooks.forged
        };
        let body = if forged.is_multiple_of(2) {
            genuine.body.clone()
        } else {
            let now = self.now();
            let sale = json!({"sale_id": format!("S-FORGED-{forged}"), "order_no": "A0", "kind": "sale",
                "total_fen": 1, "sold_at": now, "updated_at": now});
            self.envelope(&format!("forged-{forged}"), "sale.created", &sale)
        };
        let stranger = Event { body, signed_with: SecretString::from("not the key of this till") };
        if self.post(&stranger).await.is_ok() {
            self.till.state().webhooks.forged_accepted += 1;
        }
    }

    /// Posts an event until it is taken, as often as a patient vendor does.
    async fn deliver(&self, event: &Event) {
        for _ in 0..TRIES {
            if self.post(event).await.is_ok() {
                self.till.state().webhooks.accepted += 1;
                return;
            }
            self.till.state().webhooks.unanswered += 1;
            if self.stop.run_until_cancelled(pause()).await.is_none() {
                break;
            }
        }
        self.till.state().webhooks.given_up += 1;
    }

    /// One delivery; an error unless it is answered with 2xx in time.
    async fn post(&self, event: &Event) -> Result<(), Undelivered> {
        match tokio::time::timeout(ANSWER_MAX, self.send(event)).await {
            Ok(Ok(status)) if status.is_success() => Ok(()),
            _ => Err(Undelivered),
        }
    }

    async fn send(&self, event: &Event) -> Result<http::StatusCode, Box<dyn Error + Send + Sync>> {
        let at = self.till.clock.now().timestamp();
        let mut mac = Hmac::<Sha256>::new_from_slice(event.signed_with.expose_secret().as_bytes())?;
        mac.update(format!("{at}.{}", event.body).as_bytes());
        let signature = format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes()));
        let stream = TcpStream::connect(self.target.address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = http::Request::post(&self.target.path)
            .header(http::header::HOST, self.target.address.to_string())
            .header(http::header::CONTENT_TYPE, "application/json")
            .header("x-demo-signature", signature)
            .body(event.body.clone())?;
        let status = sender.send_request(request).await?.status();
        connection.abort();
        Ok(status)
    }
}

#[expect(clippy::disallowed_methods, reason = "a vendor waits before it posts an event again")]
async fn pause() {
    tokio::time::sleep(PAUSE).await;
}
