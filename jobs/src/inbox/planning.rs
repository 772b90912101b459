//! What is to be done about each claimed event: the pure part of applying, done on a blocking thread and
//! outside of any transaction. An event that cannot be understood, or on which the program stumbles, fails
//! alone; its neighbours never hear of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use zhilian_sync_store::EventId;
use zhilian_sync_store::record_patches::RecordPatch;
use zhilian_sync_store::webhook_events::{EventResult, WebhookEvent};

use super::targets::Found;
use crate::outcome::{Action, JobError};
use crate::vendor::webhook::{EventScope, Plan};
use crate::vendor::{Connection, Mapped, Page};

/// Why an event failed, and what to do about it.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) action: Action,
    pub(super) code: &'static str,
    pub(super) message: String,
    /// It may mend itself with time, and is waited for as long as `webhooks.patience_hours` says.
    pub(super) passes: bool,
}

/// What an event is about has not come yet, or the vendor does not show it yet.
pub(super) const RECORD_MISSING: &str = "record_missing";

impl From<JobError> for Fault {
    fn from(error: JobError) -> Self {
        let passes = error.code == RECORD_MISSING;
        Self { action: error.action, code: error.code, message: error.message, passes }
    }
}

impl Fault {
    /// What came of asking a vendor for a record. One that it does not know is asked for again: its webhooks
    /// may be faster than the index behind its answers.
    pub(super) fn of_vendor(error: JobError) -> Self {
        let unknown = matches!(error.code, "vendor_not_found" | RECORD_MISSING);
        let action = match error.action {
            Action::GiveUp if unknown => Action::Retry { after: None },
            action => action,
        };
        Self { action, passes: matches!(action, Action::Retry { .. }), ..Self::from(error) }
    }
}

/// One claimed event, with what there is to know of it.
pub(super) struct Claimed {
    pub(super) event: WebhookEvent,
    pub(super) target: Found,
    /// What the vendor answered, of a thin event that was asked for.
    pub(super) answer: Option<Result<Answer, Fault>>,
}

/// The record of a thin event.
pub(super) struct Answer {
    pub(super) connection: Arc<Connection>,
    pub(super) stream: String,
    pub(super) page: Page,
}

/// What is to be done about one event.
pub(super) enum Planned {
    /// Store these.
    Records {
        stream: String,
        mapped: Mapped,
        /// What it is called when it is done.
        result: EventResult,
    },
    /// Change parts of records.
    Patches(Vec<RecordPatch>),
    /// Ask the vendor first.
    Fetch {
        stream: String,
        event: Value,
    },
    /// Have a stream pulled.
    Pull {
        stream: String,
    },
    /// Nothing, on purpose.
    Nothing {
        result: EventResult,
        skipped: u64,
    },
    Failed(Fault),
}

/// Plans some of the claimed events, in the order given.
pub(super) async fn plan(
    claimed: &Arc<Vec<Claimed>>,
    which: &[usize],
    attempts_max: i64,
) -> Result<Vec<(usize, Planned)>, JobError> {
    let (claimed, which) = (Arc::clone(claimed), which.to_vec());
    let planning = tokio::task::spawn_blocking(move || {
        let plan = |at: usize| guarded(claimed[at].event.id, || plan_one(&claimed[at], attempts_max));
        which.into_iter().map(|at| (at, plan(at))).collect()
    });
    // Nothing panics outside of the guard: the task ends early only with its process.
    planning.await.map_err(|_| JobError::new(Action::Lost, "stopping", "the process is stopping"))
}

/// A panic costs the event it came from.
fn guarded(event: EventId, plan: impl FnOnce() -> Planned) -> Planned {
    catch_unwind(AssertUnwindSafe(plan)).unwrap_or_else(|_panic| {
        tracing::error!(event.id = %event, "planning an event panicked: this is a mistake in the program");
        Planned::Failed(panicked())
    })
}

/// What an event says on which the program stumbled; the panic's own words stay in the log.
pub(super) fn panicked() -> Fault {
    Fault::from(JobError::retry(
        "panicked",
        "the program made a mistake with this event; the log of the worker has the details, please report it",
    ))
}

fn plan_one(claimed: &Claimed, attempts_max: i64) -> Planned {
    let event = &claimed.event;
    if event.attempt > attempts_max {
        return Planned::Failed(Fault::from(JobError::give_up(
            "worker_died",
            format!(
                "the worker `{}` fell silent in the last of {attempts_max} attempts; see its log, and replay the \
                 event when the cause is mended",
                event.worker.as_deref().unwrap_or("unknown")
            ),
        )));
    }
    let target = match &claimed.target {
        Ok(target) => target,
        Err(fault) => return Planned::Failed(fault.clone()),
    };
    match &claimed.answer {
        None => {}
        Some(Ok(answer)) => return plan_answer(answer),
        Some(Err(fault)) => return Planned::Failed(fault.clone()),
    }
    let scope = EventScope {
        system_type: target.system.system_type,
        config: &target.config,
        currency: target.system.currency,
        zone: target.zone,
        received_at: event.received_at,
    };
    let event_type = event.event_type.as_deref().unwrap_or_default();
    let query = query_of(&event.request);
    let plan = target.spec.plan(&target.manifest, event_type, &query, &event.body, &scope);
    match plan {
        Ok(Plan::Records { stream, mapped }) => records(stream, mapped, EventResult::Stored),
        Ok(Plan::Patch(patches)) => Planned::Patches(
            patches.into_iter().map(|patch| RecordPatch { forced: event.forced, ..patch }).collect(),
        ),
        Ok(Plan::Fetch { stream, event }) => Planned::Fetch { stream, event },
        Ok(Plan::Pull { stream }) => Planned::Pull { stream },
        Ok(Plan::Ignored) => Planned::Nothing { result: EventResult::Ignored, skipped: 1 },
        Ok(Plan::Unrouted) => Planned::Nothing { result: EventResult::Unrouted, skipped: 1 },
        Err(reason) => Planned::Failed(Fault::from(JobError::retry("event_not_mapped", reason))),
    }
}

/// What the vendor answered when it was asked for the record of a thin event.
fn plan_answer(answer: &Answer) -> Planned {
    let Some(stream) = answer.connection.manifest().stream(&answer.stream) else {
        return Planned::Failed(no_such_stream(&answer.stream));
    };
    let mut mapped = answer.connection.map_page(stream, &answer.page);
    for transaction in &mut mapped.transactions {
        transaction.observed_at = Some(answer.page.asked_at);
    }
    for record in &mut mapped.records {
        record.observed_at = Some(answer.page.asked_at);
    }
    for order in &mut mapped.orders {
        order.observed_at = Some(answer.page.asked_at);
    }
    for member in &mut mapped.members {
        member.observed_at = Some(answer.page.asked_at);
    }
    match mapped.failures.first() {
        Some(failure) if mapped.storable() == 0 => {
            Planned::Failed(Fault::from(JobError::retry("event_not_mapped", failure.reason.clone())))
        }
        None if mapped.storable() == 0 && mapped.skipped == 0 => {
            Planned::Failed(Fault::from(JobError::retry(
                RECORD_MISSING,
                "the vendor does not show the record that the event names; it is asked for again",
            )))
        }
        _ => records(answer.stream.clone(), mapped, EventResult::Fetched),
    }
}

pub(super) fn no_such_stream(stream: &str) -> Fault {
    Fault::from(JobError::retry(
        "no_such_stream",
        format!("the manifest has no stream `{stream}`; correct `stream` of the route"),
    ))
}

/// Records to store, unless the mapping leaves all of them out.
fn records(stream: String, mapped: Mapped, result: EventResult) -> Planned {
    if mapped.storable() == 0 && mapped.failures.is_empty() {
        return Planned::Nothing { result: EventResult::Ignored, skipped: mapped.skipped };
    }
    let gone = mapped.transactions.iter().map(|one| one.deleted);
    let gone = gone.chain(mapped.records.iter().map(|one| one.deleted));
    let gone = gone.chain(mapped.orders.iter().map(|one| one.deleted));
    let mut gone = gone.chain(mapped.members.iter().map(|one| one.deleted));
    let result = if gone.all(|deleted| deleted) { EventResult::Deleted } else { result };
    Planned::Records { stream, mapped, result }
}

/// The query of the request, of those manifests whose routes or types read it.
fn query_of(request: &str) -> String {
    #[derive(Deserialize)]
    struct Kept {
        #[serde(default)]
        query: Option<String>,
    }
    if !request.contains("\"query\"") {
        return String::new();
    }
    let kept: Option<Kept> = serde_json::from_str(request).ok();
    kept.and_then(|kept| kept.query).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_fault_of_its_event_and_its_text_stays_in_the_log() {
        let planned = guarded(EventId(uuid::Uuid::nil()), || panic!("secret-4711 is wrong"));
        let Planned::Failed(fault) = planned else { panic!("expected a fault") };
        assert_eq!((fault.code, fault.action), ("panicked", Action::Retry { after: None }));
        assert!(!fault.message.contains("4711"), "{}", fault.message);
    }

    #[test]
    fn the_query_is_read_where_it_was_kept() {
        assert_eq!(query_of(r#"{"query":"a=1&b=2","headers":{}}"#), "a=1&b=2");
        assert_eq!(query_of(r#"{"headers":{"x-query":"\"query\""}}"#), "");
        assert_eq!(query_of("{}"), "");
        assert_eq!(query_of("no JSON, but \"query\""), "");
    }
}
