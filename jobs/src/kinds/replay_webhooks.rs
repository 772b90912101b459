//! `replay_webhooks`: puts the events that a filter finds back to pending, in bites, each a transaction with
//! its progress; the inbox applies them as if they had just come.
//!
//! It goes by id, which is the order of receipt, and not beyond the events that were there when it was asked
//! for: what it has put back is never met again, so it ends.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use zhilian_sync_store::sync_logs::{self, Counts};
use zhilian_sync_store::webhook_events::{self, EventFilter};
use zhilian_sync_store::{EventId, SyncStatus};

use crate::context::Context;
use crate::enqueue::ReplayParameters;
use crate::inbox;
use crate::outcome::{Action, JobError};
use crate::worker::{Attempt, Done};

/// Events that one transaction looks at: small, so that no writer waits long behind it.
const BITE: u32 = 500;

/// How far it has come.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Position {
    /// The last event that was looked at.
    after: Option<EventId>,
    /// How many were put back to pending.
    replayed: i64,
}

pub(super) async fn run(ctx: &Context, attempt: &mut Attempt) -> Result<Done, JobError> {
    let parameters = parameters(attempt)?;
    // Up to the moment of the wish, without the events of later ones.
    let until = attempt.run.created_at + TimeDelta::milliseconds(1);
    let filter = EventFilter {
        scope: parameters.store.as_deref(),
        system_id: parameters.system,
        state: parameters.state,
        event_type: parameters.event_type.as_deref(),
        from: parameters.from,
        to: Some(parameters.to.map_or(until, |to| to.min(until))),
        ..EventFilter::default()
    };
    let kept = attempt.run.position.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let mut position: Position = kept.unwrap_or_default();
    loop {
        let more = bite(ctx, attempt, &filter, &mut position).await?;
        if let Err(error) = inbox::ring_hooks(ctx).await {
            tracing::debug!(%error, "could not ring for replayed events; the scheduler rings");
        }
        if !more {
            tracing::info!(events = position.replayed, "the replay is done");
            return Ok(Done { status: SyncStatus::Success });
        }
        if attempt.should_yield() {
            return Err(JobError::new(
                Action::Yield,
                "turn_over",
                "the replay goes on at its next turn, after the event it has come to",
            ));
        }
    }
}

fn parameters(attempt: &Attempt) -> Result<ReplayParameters, JobError> {
    let text = attempt.run.parameters.as_deref().unwrap_or("{}");
    serde_json::from_str(text).map_err(|error| {
        JobError::give_up(
            "unknown_kind",
            format!(
                "this version does not understand what is to be replayed ({error}); a newer one asked for it"
            ),
        )
    })
}

/// One transaction: some events, and how far we are. Whether there may be more.
async fn bite(
    ctx: &Context,
    attempt: &Attempt,
    filter: &EventFilter<'_>,
    position: &mut Position,
) -> Result<bool, JobError> {
    let mut tx = attempt.begin().await?;
    let now = ctx.clock().now();
    let (replayed, last) =
        webhook_events::replay_some(&mut tx, filter, position.after, i64::from(BITE), now).await?;
    let mut next = *position;
    next.replayed += i64::try_from(replayed).unwrap_or(i64::MAX);
    next.after = last.or(next.after);
    let counts = Counts { total: next.replayed, success: next.replayed, ..Counts::default() };
    let text = serde_json::to_string(&next).unwrap_or_default();
    sync_logs::progress(&mut tx, attempt.run.claim(), Some(&text), counts, None, None).await?;
    tx.commit().await?;
    *position = next;
    Ok(last.is_some())
}
