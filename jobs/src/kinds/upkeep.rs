//! `upkeep`: deletes what is older than the retention, a bounded bite at a time.

use zhilian_sync_store::{
    SyncStatus, events, idempotency_keys, sessions, sync_failures, sync_logs, webhook_events,
};

use crate::context::{Context, seconds};
use crate::outcome::{Action, JobError};
use crate::worker::{Attempt, Done};

/// Rows that one statement deletes: small, so that no writer waits long behind it.
const BITE: i64 = 500;
const DAY_SECS: u64 = 86_400;

pub(super) async fn run(ctx: &Context, attempt: &mut Attempt) -> Result<Done, JobError> {
    let now = ctx.clock().now();
    let before = now - seconds(u64::from(ctx.engine.retention_days) * DAY_SECS);
    let store = &ctx.store;
    let mut deleted = 0;
    loop {
        // Failures first: a run is kept for as long as one of its failures is.
        let bite = sync_failures::purge(store, before, BITE).await?
            + sync_logs::purge(store, before, BITE).await?
            + events::purge(store, before, BITE).await?
            + webhook_events::purge(store, before, BITE).await?
            + sessions::purge(store, now).await?
            + idempotency_keys::purge(store).await?;
        deleted += bite;
        if bite == 0 {
            break;
        }
        if attempt.should_yield() {
            return Err(JobError::new(Action::Yield, "turn_over", "upkeep goes on at its next turn"));
        }
    }
    tracing::info!(rows.deleted = deleted, "upkeep is done");
    Ok(Done { status: SyncStatus::Success })
}
