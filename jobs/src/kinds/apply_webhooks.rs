//! `apply_webhooks`: the kind of the rows that say what the webhooks of a minute did. Such a row is written
//! when it has happened (`jobs/src/inbox/write.rs`); it is never pending, so there is nothing to run.

use crate::outcome::JobError;
use crate::worker::{Attempt, Done};

pub(super) fn run(attempt: &Attempt) -> Result<Done, JobError> {
    Err(JobError::give_up(
        "unknown_kind",
        format!(
            "run `{}` is the log of a minute of webhooks and no job; expected nobody to claim it",
            attempt.run.id
        ),
    ))
}
