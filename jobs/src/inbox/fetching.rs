//! The records of thin events: a vendor that only says "order 7 has changed" is asked for order 7, outside of
//! any transaction, a few at a time, and for no longer than the claim on the events holds.
//!
//! A vendor that answers slowly must not hold up the events of others: only some of the workers of a process
//! wait for vendors at a time, and whoever finds no place gives its thin events back for a moment. And a vendor
//! that is away, refuses our credentials or asks for fewer calls says so once for a batch: the rest of its
//! events wait as long as the one that heard it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zhilian_sync_store::SystemId;

use super::planning::{Answer, Fault, no_such_stream};
use super::targets::Target;
use crate::context::Context;
use crate::outcome::{Action, JobError};
use crate::vendor::Connection;

/// Calls under way at a time for one batch; the vendor's rate budget bounds them too.
const CALLS_AT_A_TIME: usize = 8;
/// Thin events for which no worker has time now are looked at again after this.
const NO_PLACE: Duration = Duration::from_secs(5);

/// A thin event: whose it is, and what is to be asked for.
pub(super) struct Thin {
    pub(super) at: usize,
    pub(super) target: Arc<Target>,
    pub(super) stream: String,
    pub(super) event: Value,
    /// The attempt of the event, which its delay grows with.
    pub(super) attempt: i64,
}

/// Systems that are not asked any more in this batch, and what their events hear instead.
#[derive(Default)]
struct HeldBack(Mutex<BTreeMap<SystemId, Fault>>);

impl HeldBack {
    fn of(&self, system: SystemId) -> Option<Fault> {
        self.systems().get(&system).cloned()
    }

    /// Notes what an answer says about those that would follow.
    fn learn(&self, ctx: &Context, one: &Thin, fault: &Fault) {
        let Some(delay) = holds_back(ctx, one, fault) else { return };
        // A spent budget is no news to anybody; of the rest people see why the event waits.
        let passes = !matches!(fault.action, Action::Snooze(_));
        let fault = Fault { action: Action::Snooze(delay), passes, ..fault.clone() };
        self.systems().entry(one.target.system.id).or_insert(fault);
    }

    fn systems(&self) -> std::sync::MutexGuard<'_, BTreeMap<SystemId, Fault>> {
        // A map that a panic left is a whole map: each change of it is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a system is left alone after such an answer; `None` where the next question may fare better.
fn holds_back(ctx: &Context, one: &Thin, fault: &Fault) -> Option<Duration> {
    match (fault.action, fault.code) {
        (Action::Unauthorized, _) => Some(Duration::from_secs(ctx.engine.breaker_cooldown_secs)),
        (Action::Snooze(delay), _) => Some(delay),
        (
            Action::Retry { after },
            "vendor_unreachable" | "vendor_timeout" | "vendor_unavailable" | "rate_limited",
        ) => {
            let attempt = u32::try_from(one.attempt).unwrap_or(u32::MAX);
            Some(ctx.retry_policy().delay(attempt).max(after.unwrap_or_default()))
        }
        _ => None,
    }
}

/// Asks for the records of thin events until `deadline`; those that there was no time for are to be given back.
pub(super) async fn fetch(
    ctx: &Context,
    stop: &CancellationToken,
    deadline: Instant,
    thin: Vec<Thin>,
) -> Vec<(usize, Result<Answer, Fault>)> {
    let Ok(_place) = ctx.applying.places.try_acquire() else {
        return thin.into_iter().map(|one| (one.at, Err(no_place()))).collect();
    };
    let mut connections: BTreeMap<SystemId, Result<Arc<Connection>, Fault>> = BTreeMap::new();
    let calls: Vec<_> = thin
        .into_iter()
        .map(|one| {
            let id = one.target.system.id;
            let connection = connections
                .entry(id)
                .or_insert_with(|| ctx.connect(&one.target.system).map(Arc::new).map_err(Fault::of_vendor));
            (connection.clone(), one)
        })
        .collect();
    let held_back = &HeldBack::default();
    stream::iter(calls)
        .map(|(connection, one)| async move {
            if let Some(fault) = held_back.of(one.target.system.id) {
                return (one.at, Err(fault));
            }
            let answer = match connection {
                Ok(connection) => ask(connection, &one, stop, deadline).await,
                Err(fault) => Err(fault),
            };
            if let Err(fault) = &answer {
                held_back.learn(ctx, &one, fault);
            }
            (one.at, answer)
        })
        .buffer_unordered(CALLS_AT_A_TIME)
        .collect()
        .await
}

async fn ask(
    connection: Arc<Connection>,
    one: &Thin,
    stop: &CancellationToken,
    deadline: Instant,
) -> Result<Answer, Fault> {
    if stop.is_cancelled() || Instant::now() >= deadline {
        return Err(no_time());
    }
    let Some(stream) = connection.manifest().stream(&one.stream) else {
        return Err(no_such_stream(&one.stream));
    };
    let asking = tokio::time::timeout_at(deadline, connection.fetch_record(stream, &one.event));
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(no_time()),
        asked = asking => match asked {
            Ok(Ok(page)) => {
                let stream = one.stream.clone();
                Ok(Answer { connection: Arc::clone(&connection), stream, page })
            }
            Ok(Err(error)) => Err(Fault::of_vendor(error)),
            Err(_elapsed) => Err(Fault::of_vendor(JobError::retry(
                "vendor_timeout",
                "the vendor did not answer for as long as the claim on the event holds",
            ))),
        },
    }
}

fn no_time() -> Fault {
    Fault::from(JobError::new(
        Action::Yield,
        "turn_over",
        "there was no time to ask the vendor; it is asked later",
    ))
}

fn no_place() -> Fault {
    Fault::from(JobError::snooze(NO_PLACE, "turn_over", "other workers wait for vendors; it is asked later"))
}
