//! `upkeep`: deletes what is older than the retention, a bounded bite at a time.
//!
//! Each table is gone through by itself: what one of them has against it keeps nothing in the others.

use chrono::{DateTime, Utc};
use zhilian_sync_store::{
    Store, StoreError, SyncStatus, events, idempotency_keys, rate_budgets, sessions, sync_failures,
    sync_logs, vendor_tokens, webhook_events,
};

use crate::context::{Context, seconds};
use crate::outcome::{Action, JobError};
use crate::worker::{Attempt, Done};

/// Rows that one statement deletes: small, so that no writer waits long behind it.
const BITE: i64 = 500;
const DAY_SECS: u64 = 86_400;

/// What grows old.
#[derive(Debug, Clone, Copy)]
enum Table {
    SyncFailures,
    SyncLogs,
    Sessions,
    RateBudgets,
    VendorTokens,
    IdempotencyKeys,
    Events,
    WebhookEvents,
}

impl Table {
    /// Failures first: a run is kept for as long as one of its failures is.
    const ALL: [Self; 8] = [
        Self::SyncFailures,
        Self::SyncLogs,
        Self::Sessions,
        Self::RateBudgets,
        Self::VendorTokens,
        Self::IdempotencyKeys,
        Self::Events,
        Self::WebhookEvents,
    ];

    /// One bite; how many rows it was.
    async fn purge(self, store: &Store, before: DateTime<Utc>) -> Result<u64, StoreError> {
        match self {
            Self::SyncFailures => sync_failures::purge(store, before, BITE).await,
            Self::SyncLogs => sync_logs::purge(store, before, BITE).await,
            Self::Sessions => sessions::purge(store, store.clock().now()).await,
            Self::RateBudgets => rate_budgets::purge(store, before).await,
            Self::VendorTokens => vendor_tokens::purge(store, before, BITE).await,
            Self::IdempotencyKeys => idempotency_keys::purge(store).await,
            Self::Events => events::purge(store, before, BITE).await,
            Self::WebhookEvents => webhook_events::purge(store, before, BITE).await,
        }
    }
}

pub(super) async fn run(ctx: &Context, attempt: &mut Attempt) -> Result<Done, JobError> {
    let before = ctx.clock().now() - seconds(u64::from(ctx.engine.retention_days) * DAY_SECS);
    let mut deleted = 0;
    let mut failed = None;
    for table in Table::ALL {
        loop {
            match table.purge(&ctx.store, before).await {
                Ok(0) => break,
                Ok(bite) => deleted += bite,
                Err(error) => {
                    tracing::warn!(%error, ?table, "could not delete what is old here; the others go on");
                    failed.get_or_insert(error);
                    break;
                }
            }
            if attempt.should_yield() {
                return Err(failed.map_or_else(turn_over, JobError::from));
            }
        }
    }
    if let Some(error) = failed {
        return Err(JobError::from(error));
    }
    tracing::info!(rows.deleted = deleted, "upkeep is done");
    Ok(Done { status: SyncStatus::Success })
}

fn turn_over() -> JobError {
    JobError::new(Action::Yield, "turn_over", "upkeep goes on at its next turn")
}
