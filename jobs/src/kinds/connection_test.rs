//! `connection_test`: asks a system's vendor who we are, and says the answer in words that a store
//! manager understands. A success makes the system active.

use zhilian_sync_store::SyncStatus;
use zhilian_sync_store::sync_logs::{self, Counts};

use crate::context::Context;
use crate::outcome::JobError;
use crate::worker::{Attempt, Done};

pub(super) async fn run(ctx: &Context, attempt: &mut Attempt) -> Result<Done, JobError> {
    let system = super::pull::system_of(ctx, attempt).await?;
    let connection = ctx.connect(&system)?;
    let report = attempt.interruptible(connection.probe()).await?;
    tracing::debug!(system.name = %system.name, "the vendor answered the connection test");
    let answer = serde_json::json!({ "message": report.message }).to_string();
    let mut tx = attempt.begin().await?;
    sync_logs::progress(&mut tx, attempt.run.claim(), None, Counts::default(), None, Some(&answer)).await?;
    tx.commit().await?;
    Ok(Done { status: SyncStatus::Success })
}

/// What a successful test answered, read back from its run.
#[must_use]
pub fn message(run: &sync_logs::Run) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_str(run.response_data.as_deref()?).ok()?;
    answer.get("message")?.as_str().map(str::to_owned)
}
