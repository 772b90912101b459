//! How an attempt ends. An error carries the decision: the code that hit it says whether trying
//! again can help, and the worker only writes the decision on the row.

use std::time::Duration;

use zhilian_sync_store::StoreError;

/// What to do about a failed attempt.
///
/// | action | row afterwards | attempt |
/// |---|---|---|
/// | `Retry` | pending, `run_at` by backoff or the vendor's Retry-After; failed when out of attempts | spent |
/// | `GiveUp` | failed | spent |
/// | `Unauthorized` | failed, and the system goes to `error` | spent |
/// | `Snooze` | pending, `run_at` = now + delay; failed once the run's deadline has passed | given back |
/// | `Hold` | pending, `run_at` = now + delay, without regard to the deadline | given back |
/// | `Yield` | pending, due at once, behind the others | given back |
/// | `Lost` | untouched: somebody else has the row, or it was cancelled | – |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It may go better later; a vendor's Retry-After, where there was one, is the least delay.
    Retry {
        /// The vendor's own wish, already bounded.
        after: Option<Duration>,
    },
    /// Repeating cannot mend it.
    GiveUp,
    /// The vendor refuses our credentials: no retries, and the system is in error.
    Unauthorized,
    /// Nothing failed, it is only not the moment (budget spent, system busy).
    Snooze(Duration),
    /// Nothing failed, its system is paused: it waits however long that is, and is hurried on resume.
    Hold(Duration),
    /// Nothing failed, others want a turn too, or this process is stopping.
    Yield,
    /// The claim is gone: write nothing, stop.
    Lost,
}

/// An attempt that did not end well: what to do, a stable code, and words for a person.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct JobError {
    /// The decision.
    pub action: Action,
    /// Stable, for programs: `vendor_unavailable`, `cursor_repeats`, ….
    pub code: &'static str,
    /// For people: what happened and what to do. Secrets are already taken out.
    pub message: String,
    /// Where it came from, for the log.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl JobError {
    /// Trying again later may help.
    pub fn retry(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Action::Retry { after: None }, code, message)
    }

    /// Trying again will not help.
    pub fn give_up(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Action::GiveUp, code, message)
    }

    /// The vendor refuses the credentials.
    pub fn unauthorized(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Action::Unauthorized, code, message)
    }

    /// Not now; the attempt is given back.
    pub fn snooze(delay: Duration, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Action::Snooze(delay), code, message)
    }

    /// Any decision.
    pub fn new(action: Action, code: &'static str, message: impl Into<String>) -> Self {
        Self { action, code, message: message.into(), source: None }
    }

    /// Keeps the cause for the log.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}

/// The one place that decides what a database error means for a run.
impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        let (action, code) = match &error {
            StoreError::ClaimLost(_) => (Action::Lost, "claim_lost"),
            // Nobody knows whether it was written: leave the row to its lease, whoever claims it
            // next reads what is there.
            StoreError::CommitUnknown(_) => (Action::Lost, "commit_unknown"),
            StoreError::Busy(_) | StoreError::Database(_) => {
                (Action::Retry { after: None }, "database_unavailable")
            }
            StoreError::NotFound(_) => (Action::GiveUp, "not_found"),
            StoreError::Conflict(_) => (Action::GiveUp, "conflict"),
            StoreError::Corrupt { .. } => (Action::GiveUp, "corrupt"),
            StoreError::Refused(_) => (Action::GiveUp, "refused"),
            StoreError::Vault(_) => (Action::GiveUp, "vault"),
            StoreError::Setup(_) => (Action::GiveUp, "setup"),
        };
        Self { action, code, message: error.to_string(), source: Some(Box::new(error)) }
    }
}
