//! `webhook_events`: the inbox. What a vendor posts is a row here before it is answered, and whatever
//! becomes of it afterwards is said on that row.
//!
//! ```text
//!            insert_batch             claim_batch            mark
//!   (vendor) ───┬────────▶ pending ───────────────▶ leased ──┬────▶ applied
//!               │             ▲  ▲                           ├────▶ dead ──┐
//!               │             │  └───── retry, give back ────┘             │
//!               │             └──────── replay, a duplicate delivery ◀─────┘
//!               └──▶ quarantined ── accept ──▶ pending | duplicate
//! ```
//!
//! Leased is `pending` with `lease_until`. `attempt` is spent by a claim; `claim_no` only ever grows and
//! is the fence: an outcome counts only while it is the one that was claimed. An event is told from
//! another by its [`fingerprint`]; delivered again, it makes no row but counts `deliveries` up.
//!
//! Rows are locked in the order of their ids, and before runs and systems; whoever claims skips what
//! others hold.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::error::StoreError;
use crate::ids::{EventId, RunId, SystemId};
use crate::on_read;
use crate::pool::Store;

mod claim;
mod finish;
mod list;
mod quarantine;
mod receive;
mod replay;

pub use claim::{bury_of_system, claim_batch, expire_leases, has_due, hurry_of_system};
pub use finish::{End, Outcome, amend, mark, purge};
pub use list::{EventFilter, EventRow, PAGE_MAX, Tally, count, list, tally};
pub use quarantine::{
    Accepted, Usage, accept, newest_quarantined, note_refusal, quarantine_usage, quarantine_usage_total,
    quarantined_of,
};
pub use receive::{NewEvent, Receipt, Received, Uncounted, count_repeated, insert_batch};
pub use replay::{replay, replay_some};

crate::text_enum! {
    /// Where an event stands.
    pub enum WebhookState {
        /// Not verified: kept, never applied.
        Quarantined = "quarantined",
        /// To be applied, or being applied.
        Pending = "pending",
        /// Done.
        Applied = "applied",
        /// Verified later, and the same event had been received properly.
        Duplicate = "duplicate",
        /// Out of attempts, or its system is deleted; a replay or another delivery wakes it.
        Dead = "dead",
    }
}

crate::text_enum! {
    /// Why an event may be applied.
    pub enum AcceptedBy {
        /// It bears what the manifest asks for.
        Verification = "verification",
        /// Its system takes unverified events.
        Waiver = "waiver",
        /// An admin let it through.
        Release = "release",
    }
}

crate::text_enum! {
    /// What an applied event did.
    pub enum EventResult {
        /// Wrote records.
        Stored = "stored",
        /// Found its records as new or newer already.
        Unchanged = "unchanged",
        /// Changed a part of a record.
        Patched = "patched",
        /// Made a record a tombstone.
        Deleted = "deleted",
        /// Had the record fetched from the vendor.
        Fetched = "fetched",
        /// Asked for a pull.
        Pulled = "pulled",
        /// Is of a type that the manifest says to leave out.
        Ignored = "ignored",
        /// Is of a type that the manifest does not name.
        Unrouted = "unrouted",
    }
}

/// The error code of an event whose system was deleted before it was applied.
pub const SYSTEM_DELETED: &str = "system_deleted";

/// Error texts are for people: what is longer than this many characters is cut.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// A row of `webhook_events`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct WebhookEvent {
    /// Version 7, made at its receipt: events sort by receipt.
    pub id: EventId,
    /// Whose event.
    pub system_id: SystemId,
    /// See [`fingerprint`].
    pub fingerprint: Vec<u8>,
    /// The vendor's id of the event, or `sha256:` and the hash of the body.
    pub event_key: String,
    /// What happened, in the vendor's words.
    pub event_type: Option<String>,
    /// Where it stands.
    pub state: WebhookState,
    /// Why it may be applied; `None` while it is quarantined.
    pub accepted_by: Option<AcceptedBy>,
    /// What it did.
    pub result: Option<EventResult>,
    /// Why it is quarantined, or why its last attempt failed; stable, for programs.
    pub error_code: Option<String>,
    /// The same for people.
    pub error_message: Option<String>,
    /// Attempts spent, the present one included.
    pub attempt: i64,
    /// Counts claims; never decreases.
    pub claim_no: i64,
    /// Not before this time.
    pub run_at: DateTime<Utc>,
    /// When its worker is taken for dead.
    pub lease_until: Option<DateTime<Utc>>,
    /// Who works on it, or did last.
    pub worker: Option<String>,
    /// An explicit replay: overwrites what is newer.
    pub forced: bool,
    /// How often it was received.
    pub deliveries: i64,
    /// The raw body.
    pub body: Vec<u8>,
    /// Its size.
    pub body_bytes: i64,
    /// What else verifying and routing need (JSON).
    pub request: String,
    /// The parts of the same that bear a secret, sealed; see [`WebhookEvent::request_aad`].
    pub sealed_request: Option<Vec<u8>>,
    /// The log row of the minute in which it was applied.
    pub sync_log_id: Option<RunId>,
    /// When it was first received.
    pub received_at: DateTime<Utc>,
    /// When it was last received.
    pub last_received_at: DateTime<Utc>,
    /// When it was applied, found a duplicate, or died.
    pub ended_at: Option<DateTime<Utc>>,
}

impl WebhookEvent {
    /// The associated data that the secret parts of a request are sealed with.
    #[must_use]
    pub fn request_aad(id: EventId) -> String {
        format!("webhook_events/{id}/request")
    }
}

/// What tells one event from another: the first 16 bytes of SHA-256 over system, key, type and body.
///
/// The same key with another body is another event, and so is one with another type: some vendors name the
/// type in a header only, and `""` stands for none. A quarantined event is told apart by its request as
/// well (signature headers, query, and what of them is kept sealed): neither can a stranger's copy stand
/// in the way of the genuine event, nor a wrongly signed copy in the way of a rightly signed one.
#[must_use]
pub fn fingerprint(
    system: SystemId,
    event_key: &str,
    event_type: &str,
    body: &[u8],
    quarantined_request: Option<&str>,
) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(if quarantined_request.is_some() { "quarantined/" } else { "accepted/" });
    hash.update(system.0.as_bytes());
    for text in [event_key, event_type].into_iter().chain(quarantined_request) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.update(body);
    hash.finalize()[..16].to_vec()
}

/// The key of an event that has no id of its own: the hash of its body.
#[must_use]
pub fn key_of_body(body: &[u8]) -> String {
    let mut key = String::with_capacity(71);
    key.push_str("sha256:");
    for byte in Sha256::digest(body) {
        let _ = write!(key, "{byte:02x}");
    }
    key
}

const FIND: &str = "SELECT * FROM webhook_events WHERE id = $1";

/// The event with this id.
pub async fn find(store: &Store, id: EventId) -> Result<Option<WebhookEvent>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND).bind(id).fetch_optional(ex).await)?)
}

/// The event with this id, or not found.
pub async fn get(store: &Store, id: EventId) -> Result<WebhookEvent, StoreError> {
    find(store, id).await?.ok_or_else(|| StoreError::NotFound(format!("webhook event `{id}`")))
}

/// A message as it can be kept.
fn shortened(message: &str) -> String {
    crate::record_batches::clean(message.chars().take(MESSAGE_CHARS_MAX).collect())
}

#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("webhook_events::FIND", FIND),
    ("webhook_events::receive::INSERT_ONE", receive::INSERT_ONE),
    ("webhook_events::receive::FIND_REPEATED", receive::FIND_REPEATED),
    ("webhook_events::receive::REPEAT_ONE", receive::REPEAT_ONE),
    ("webhook_events::claim::HAS_DUE", claim::HAS_DUE),
    ("webhook_events::claim::DUE", claim::DUE),
    ("webhook_events::claim::TAKE_ONE", claim::TAKE_ONE),
    ("webhook_events::claim::PUT_OFF", claim::PUT_OFF),
    ("webhook_events::claim::BURY", claim::BURY),
    ("webhook_events::claim::BURY_OF_SYSTEM", claim::BURY_OF_SYSTEM),
    ("webhook_events::claim::HURRY", claim::HURRY),
    ("webhook_events::claim::EXPIRE_LEASES", claim::EXPIRE_LEASES),
    ("webhook_events::finish::MARK_ONE", finish::MARK_ONE),
    ("webhook_events::finish::AMEND_ONE", finish::AMEND_ONE),
    ("webhook_events::finish::PURGE", finish::PURGE),
    ("webhook_events::list::TALLY", list::TALLY),
    ("webhook_events::quarantine::USAGE", quarantine::USAGE),
    ("webhook_events::quarantine::USAGE_TOTAL", quarantine::USAGE_TOTAL),
    ("webhook_events::quarantine::QUARANTINED_OF", quarantine::QUARANTINED_OF),
    ("webhook_events::quarantine::NEWEST_QUARANTINED", quarantine::NEWEST_QUARANTINED),
    ("webhook_events::quarantine::TWINS", quarantine::TWINS),
    ("webhook_events::quarantine::ACCEPT", quarantine::ACCEPT),
    ("webhook_events::quarantine::SET_ASIDE", quarantine::SET_ASIDE),
    ("webhook_events::quarantine::NOTE_REFUSAL", quarantine::NOTE_REFUSAL),
    ("webhook_events::replay::REPLAY", replay::REPLAY),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_events_apart() {
        let system = SystemId(uuid::Uuid::from_u128(1));
        let other = SystemId(uuid::Uuid::from_u128(2));
        let first = fingerprint(system, "ab", "t", b"c", None);
        assert_eq!(first.len(), 16);
        assert_eq!(first, fingerprint(system, "ab", "t", b"c", None));
        for (what, another) in [
            ("the type ends before the body", fingerprint(system, "ab", "", b"tc", None)),
            ("the key ends before the type", fingerprint(system, "a", "bt", b"c", None)),
            ("another type", fingerprint(system, "ab", "u", b"c", None)),
            ("another body", fingerprint(system, "ab", "t", b"d", None)),
            ("another system", fingerprint(other, "ab", "t", b"c", None)),
            ("unverified", fingerprint(system, "ab", "t", b"c", Some(""))),
            ("with a signature", fingerprint(system, "ab", "t", b"c", Some("x"))),
        ] {
            assert_ne!(first, another, "{what}");
        }
        let quarantined = |request| fingerprint(system, "ab", "t", b"c", Some(request));
        assert_ne!(quarantined("x"), quarantined("y"));
    }

    #[test]
    fn an_event_without_an_id_is_known_by_its_body() {
        assert_eq!(
            key_of_body(b""),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
