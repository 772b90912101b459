//! What a vendor sends of its own accord: is it the vendor's, what is it, and what is answered.
//!
//! A [`WebhookSpec`] recognises handshakes, verifies a [`Delivery`] over its raw bytes, opens it, and says
//! what the vendor wants to hear. The inbox calls it for every request. Nothing here touches the database
//! or the clock, so the same code verifies an event again, days later, against the time of its receipt.

pub(super) mod body;
pub(super) mod handshake;
mod kept;
mod open;
mod patch;
pub(super) mod preset;
pub(super) mod reply;
mod route;
pub(in crate::vendor) mod scheme;
mod secret;
mod sorted;
mod verify;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::HeaderMap;
use secrecy::SecretString;

pub use self::kept::{Kept, StoredDelivery};
pub use self::reply::{Reply, ReplyKind};
pub use self::route::{EventScope, Plan};
pub(super) use self::route::{observed, surroundings};
use super::manifest::webhook::Scheme;
pub use super::manifest::webhook::WebhookSpec;

/// The secrets of a system that count at the time of receipt, by name; any of them may have signed.
pub type Secrets = BTreeMap<String, SecretString>;

/// One request of a vendor, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// In capitals.
    pub method: &'a str,
    /// The address as it is registered at the vendor: the system's `webhook_url`, else the public
    /// address and the path.
    pub url: &'a str,
    /// As it stands in the address, without `?`.
    pub query: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The raw bytes.
    pub body: &'a [u8],
    /// When it was received.
    pub received_at: DateTime<Utc>,
}

/// What identifies an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The vendor's id of the event, or `sha256:` and the hash of its body.
    pub event_key: String,
    /// The vendor's word for what happened; empty where there is none.
    pub event_type: String,
}

/// A longer message is cut: it goes into the log and may quote what a stranger wrote.
const MESSAGE_CHARS_MAX: usize = 300;

/// Why a request does not count as the vendor's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable, for machines; each is explained in `docs/operations.md`.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// Every code that there is.
    pub const CODES: [&'static str; 14] = [
        "secret_missing",
        "secret_unusable",
        "not_signed",
        "signature_missing",
        "signature_malformed",
        "signature_mismatch",
        "timestamp_missing",
        "timestamp_malformed",
        "timestamp_outside_window",
        "id_missing",
        "ambiguous",
        "bad_body",
        "body_unsigned",
        "request_lost",
    ];

    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(Self::CODES.contains(&code), "{code}");
        let mut message: String = message.into();
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
            message.truncate(end);
        }
        Self { code, message }
    }

    /// Whether nobody could have signed it rightly: there is no secret yet, or the vendor signs nothing.
    /// Such an event waits in quarantine, and the vendor is told that it was received.
    #[must_use]
    pub fn is_unverifiable(&self) -> bool {
        matches!(self.code, "secret_missing" | "not_signed")
    }
}

impl WebhookSpec {
    /// The answer to a request that only asks whether somebody is here; nothing for an event.
    #[must_use]
    pub fn handshake(&self, delivery: &Delivery<'_>, secrets: &Secrets) -> Option<Reply> {
        handshake::answer(self, delivery, secrets)
    }

    /// Whether one of the secrets signed this delivery, in constant time for each.
    pub fn verify(&self, delivery: &Delivery<'_>, secrets: &Secrets) -> Result<(), Refusal> {
        verify::verify(self, delivery, secrets)
    }

    /// Key and type of the event. A body that cannot be read is the refusal `bad_body`.
    pub fn open(&self, delivery: &Delivery<'_>) -> Result<Opened, Refusal> {
        open::open(self, delivery)
    }

    /// The body of an event as JSON: a form's members are texts.
    pub fn read_body(&self, body: &[u8]) -> Result<serde_json::Value, String> {
        body::read(&self.body, body)
    }

    /// What must be kept beside the body to verify the delivery again and to route it, nothing else.
    #[must_use]
    pub fn kept_request(&self, delivery: &Delivery<'_>) -> Kept {
        kept::keep(self, delivery)
    }

    /// The inverse of [`WebhookSpec::kept_request`].
    pub fn delivery_of(
        clear: &str,
        secret: Option<&str>,
        body: Vec<u8>,
        received_at: DateTime<Utc>,
    ) -> Result<StoredDelivery, String> {
        kept::restore(clear, secret, body, received_at)
    }

    /// What the vendor wants to hear.
    #[must_use]
    pub fn reply(&self, kind: ReplyKind, event_type: &str) -> Reply {
        reply::reply(&self.replies, kind, event_type)
    }

    /// Whether the manifest has an answer of its own for this; without one the edge may say more.
    #[must_use]
    pub fn has_reply(&self, kind: ReplyKind) -> bool {
        self.replies.of(kind).is_some()
    }

    /// How long the vendor waits for an answer.
    #[must_use]
    pub fn ack_deadline(&self) -> Duration {
        self.ack_deadline
    }

    /// How long the vendor repeats what was not answered, as far as it is known.
    #[must_use]
    pub fn retry_window(&self) -> Option<Duration> {
        self.retry_window
    }

    /// Whether events can be verified at all, given a secret.
    #[must_use]
    pub fn needs_secret(&self) -> bool {
        !matches!(self.verification.scheme, Scheme::None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_long_message_is_cut_between_letters() {
        let refusal = Refusal::new("bad_body", "中".repeat(1_000));
        assert_eq!(refusal.message, "中".repeat(MESSAGE_CHARS_MAX));
    }

    #[test]
    fn every_code_is_explained_and_nothing_else() {
        let document = include_str!("../../../docs/operations.md");
        let section = document.split("\n## ").find(|text| text.starts_with("Why an event is in quarantine"));
        let lines = section.unwrap().lines().filter_map(|line| line.strip_prefix("| `"));
        let explained: BTreeSet<&str> = lines.filter_map(|line| line.split('`').next()).collect();
        assert_eq!(explained, BTreeSet::from(Refusal::CODES));
    }
}
