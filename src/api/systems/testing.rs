//! A connection test that a person waits for: the run is made as any other, and its end is looked for a
//! while. Who waits holds a place; when all are taken, the run is answered at once.

use std::time::Duration;

use poem_openapi::Object;
use zhilian_sync_jobs::enqueue::{self, Wish};
use zhilian_sync_store::external_systems::ExternalSystem;
use zhilian_sync_store::sync_logs::{self, Run};
use zhilian_sync_store::{RunId, Store, StoreError, SyncStatus};

use crate::api::answer::{Answer, Either, Found};
use crate::api::caller::Caller;
use crate::api::problem::Problem;
use crate::api::runs::RunAnswer;
use crate::app::App;

/// How long a caller waits for the outcome.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How often the run is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The outcome of a connection test.
#[derive(Debug, Object)]
pub struct TestAnswer {
    /// Whether the vendor accepts us.
    pub success: bool,
    /// What the vendor said of us.
    #[oai(skip_serializing_if_is_none)]
    pub message: Option<String>,
    /// What went wrong and what to do.
    #[oai(skip_serializing_if_is_none)]
    pub error: Option<String>,
    /// The run that tested it.
    pub run_id: String,
}

/// Starts a test and answers its outcome, or the run where it takes longer than the caller waits.
pub(super) async fn test(
    app: &App,
    caller: &Caller,
    system: &ExternalSystem,
    wait: bool,
) -> Result<Either<Found<TestAnswer>, Answer<202, RunAnswer>>, Problem> {
    let context = app.context();
    let wish = Wish::connection_test(system.id, Some(caller.user_id));
    let enqueued = enqueue::start(context, &wish).await?;
    let id = enqueued
        .run()
        .ok_or_else(|| Problem::conflict("conflict", "a test is under way; ask for its run"))?;
    let place = if wait { app.test_waiters().clone().try_acquire_owned().ok() } else { None };
    let run = if place.is_some() {
        ended(&context.store, id).await?
    } else {
        sync_logs::get(&context.store, id).await?
    };
    Ok(match run.status {
        SyncStatus::Success | SyncStatus::Partial => Either::First(Answer(TestAnswer {
            success: true,
            message: Some(message(&run)),
            error: None,
            run_id: run.id.to_string(),
        })),
        SyncStatus::Failed | SyncStatus::Cancelled => Either::First(Answer(TestAnswer {
            success: false,
            message: None,
            error: Some(run.error_message.unwrap_or_else(|| "the test was cancelled".to_owned())),
            run_id: run.id.to_string(),
        })),
        SyncStatus::Pending | SyncStatus::Syncing => Either::Second(Answer(RunAnswer::new(&run))),
    })
}

/// The run once it has ended, or as it is when the wait is over.
async fn ended(store: &Store, id: RunId) -> Result<Run, StoreError> {
    let deadline = tokio::time::Instant::now() + WAIT_MAX;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        let run = sync_logs::get(store, id).await?;
        if run.status.is_final() || tokio::time::Instant::now() >= deadline {
            return Ok(run);
        }
    }
}

/// What the vendor said, which the run keeps as its answer.
fn message(run: &Run) -> String {
    let answer =
        run.response_data.as_deref().and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let message = answer.as_ref().and_then(|answer| answer["message"].as_str());
    message.unwrap_or("the connection works").to_owned()
}
