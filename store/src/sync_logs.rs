//! `sync_logs`: one row per run, and the whole of its state machine.
//!
//! ```text
//!            insert                claim                      finish
//!   (cause) ───────▶ pending ───────────────▶ syncing ─────────────────▶ success | partial | failed
//!                      ▲  │                     │  │
//!                      │  │   retry, give_back  │  │
//!                      └──┼─────────────────────┘  │
//!                         └───────── cancel ───────┴──────────────────▶ cancelled
//! ```
//!
//! `attempt` is spent by a claim and given back by [`give_back`]; `claim_no` only ever grows and is the
//! fence: whoever works on a run begins every transaction with [`fence`], so a worker that lost its claim
//! writes nothing. `lease_until` says when a silent worker has lost it. Messages on the queue only say
//! "look"; nothing of the state is in them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::ids::{RunId, SystemId, UserId};
use crate::on_read;
use crate::pool::Store;
use crate::text_enum::{Lane, SyncStatus, Trigger};

mod claim;
mod due;
mod enqueue;
mod finish;
mod list;
mod minute;
mod news;
mod notes;

pub use claim::{Claim, claim, fence, progress};
pub use due::{
    Ring, due_to_ring, exhausted, expire_leases, fail_exhausted, forget_rings, mark_rung, purge, unring,
};
pub use enqueue::{Active, NewRun, ask_again, find_active, hurry, insert, release};
pub use finish::{AttemptError, Ending, cancel, cancel_all_of, finish, give_back, retry};
pub use list::{Filter, Tally, list, slots, tally};
pub use minute::{APPLY_WEBHOOKS, LogMinute, log_minute, minute_id};
pub use news::tell;
pub use notes::{note, usual_records};

/// A row of `sync_logs`.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Run {
    /// The id: version 7, so runs sort by creation.
    pub id: RunId,
    /// The system; `None` for upkeep.
    pub system_id: Option<SystemId>,
    /// The kind of job, as text: stable forever.
    pub kind: String,
    /// The stream, or `connection_test`.
    pub sync_type: String,
    /// Why it exists.
    pub trigger: Trigger,
    /// Which workers take it.
    pub lane: Lane,
    /// At most one pending or syncing run has it.
    pub exclusive_key: Option<String>,
    /// Where it stands.
    pub status: SyncStatus,
    /// Attempts spent, the present one included.
    pub attempt: i64,
    /// Attempts there are.
    pub max_attempts: i64,
    /// Counts claims; never decreases.
    pub claim_no: i64,
    /// Not before this time.
    pub run_at: DateTime<Utc>,
    /// Postponed no longer than this.
    pub deadline_at: Option<DateTime<Utc>>,
    /// When its message was last put on the queue.
    pub rung_at: Option<DateTime<Utc>>,
    /// When its worker is taken for dead.
    pub lease_until: Option<DateTime<Utc>>,
    /// Who works on it.
    pub worker: Option<String>,
    /// Its slot, without jitter.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// To run once more when it ends.
    pub again: bool,
    /// How far it has come within its window (JSON).
    pub position: Option<String>,
    /// What it was asked to do (JSON).
    pub parameters: Option<String>,
    /// The run that it repeats.
    pub retry_of: Option<RunId>,
    /// Records seen.
    pub records_total: i64,
    /// Records stored, unchanged ones included.
    pub records_success: i64,
    /// Records in `sync_failures`.
    pub records_failed: i64,
    /// Records that the manifest says to leave out.
    pub records_skipped: i64,
    /// When it was first claimed.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub completed_at: Option<DateTime<Utc>>,
    /// From its first claim to its end.
    pub duration_ms: Option<i64>,
    /// Stable, for programs.
    pub error_code: Option<String>,
    /// For people.
    pub error_message: Option<String>,
    /// Every attempt's error (a JSON array of [`AttemptError`]).
    pub error_details: Option<String>,
    /// A sample of what was asked, redacted (JSON).
    pub request_data: Option<String>,
    /// A sample of what was answered, redacted (JSON).
    pub response_data: Option<String>,
    /// What was noticed beside its outcome (JSON).
    pub notes: Option<String>,
    /// Who asked for it.
    pub requested_by: Option<UserId>,
    /// When it was enqueued.
    pub created_at: DateTime<Utc>,
    /// When the row last changed.
    pub updated_at: DateTime<Utc>,
}

impl Run {
    /// Every failed attempt so far, oldest first.
    #[must_use]
    pub fn attempt_errors(&self) -> Vec<AttemptError> {
        self.error_details.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// What it has done to the records so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        Counts {
            total: self.records_total,
            success: self.records_success,
            failed: self.records_failed,
            skipped: self.records_skipped,
        }
    }
}

/// What a page, or the whole run, did to the records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records seen.
    pub total: i64,
    /// Stored.
    pub success: i64,
    /// In `sync_failures`.
    pub failed: i64,
    /// Left out on purpose.
    pub skipped: i64,
}

const FIND: &str = "SELECT * FROM sync_logs WHERE id = $1";

/// The run with this id.
pub async fn find(store: &Store, id: RunId) -> Result<Option<Run>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND).bind(id).fetch_optional(ex).await)?)
}

/// The run with this id, or not found.
pub async fn get(store: &Store, id: RunId) -> Result<Run, StoreError> {
    find(store, id).await?.ok_or_else(|| StoreError::NotFound(format!("run `{id}`")))
}

#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("sync_logs::FIND", FIND),
    ("sync_logs::enqueue::INSERT", enqueue::INSERT),
    ("sync_logs::enqueue::FIND_ACTIVE", enqueue::FIND_ACTIVE),
    ("sync_logs::enqueue::HURRY", enqueue::HURRY),
    ("sync_logs::enqueue::RELEASE", enqueue::RELEASE),
    ("sync_logs::enqueue::ASK_AGAIN", enqueue::ASK_AGAIN),
    ("sync_logs::claim::CLAIM", claim::CLAIM),
    ("sync_logs::claim::FENCE", claim::FENCE),
    ("sync_logs::claim::PROGRESS", claim::PROGRESS),
    ("sync_logs::finish::FINISH", finish::FINISH),
    ("sync_logs::finish::RETRY", finish::RETRY),
    ("sync_logs::finish::GIVE_BACK", finish::GIVE_BACK),
    ("sync_logs::finish::CANCEL", finish::CANCEL),
    ("sync_logs::finish::ACTIVE_OF", finish::ACTIVE_OF),
    ("sync_logs::due::DUE_TO_RING", due::DUE_TO_RING),
    ("sync_logs::due::MARK_RUNG", due::MARK_RUNG),
    ("sync_logs::due::UNRING", due::UNRING),
    ("sync_logs::due::FORGET_RINGS", due::FORGET_RINGS),
    ("sync_logs::due::EXPIRE_LEASES", due::EXPIRE_LEASES),
    ("sync_logs::due::EXHAUSTED", due::EXHAUSTED),
    ("sync_logs::due::FAIL_EXHAUSTED", due::FAIL_EXHAUSTED),
    ("sync_logs::due::PURGE", due::PURGE),
    ("sync_logs::list::TALLY", list::TALLY),
    ("sync_logs::list::SLOTS", list::SLOTS),
    ("sync_logs::minute::ADD_TO_MINUTE", minute::ADD_TO_MINUTE),
    ("sync_logs::minute::LOG_MINUTE", minute::LOG_MINUTE),
    ("sync_logs::notes::NOTE", notes::NOTE),
    ("sync_logs::notes::USUAL", notes::USUAL),
];
