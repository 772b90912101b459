//! Runs as they end, each once, as a line for whoever watches.

use std::collections::HashSet;

use chrono::Local;
use zhilian_sync_store::sync_logs::{self, Filter, Run};
use zhilian_sync_store::{RunId, Store, StoreError};

/// How many of the newest runs are looked at; more than can start between two looks.
const RUNS_MAX: i64 = 100;

/// Remembers which runs were shown.
#[derive(Debug, Default)]
pub(super) struct Feed {
    shown: HashSet<RunId>,
}

impl Feed {
    /// The runs that ended since the last call, in the order of their ends.
    pub(super) async fn ended(&mut self, store: &Store) -> Result<Vec<Run>, StoreError> {
        let filter = Filter { limit: RUNS_MAX, ..Filter::default() };
        let runs = sync_logs::list(store, &filter).await?;
        let listed: HashSet<RunId> = runs.iter().map(|run| run.id).collect();
        self.shown.retain(|id| listed.contains(id));
        let mut ended: Vec<Run> =
            runs.into_iter().filter(|run| run.status.is_final() && self.shown.insert(run.id)).collect();
        ended.sort_by_key(|run| (run.completed_at, run.id));
        Ok(ended)
    }
}

/// One line: when, which system, what, how it ended, how much, how long, and what went wrong on the way.
pub(super) fn line(run: &Run, system: &str) -> String {
    let time = run.completed_at.unwrap_or(run.updated_at).with_timezone(&Local).format("%H:%M:%S");
    let seconds = run.duration_ms.unwrap_or_default() as f64 / 1000.0;
    let what =
        if run.kind == run.sync_type { run.kind.clone() } else { format!("{} {}", run.kind, run.sync_type) };
    let mut parts = vec![format!(
        "{time}  {system:<8}  {what:<18}  {:<8}  {:<9}  {:>5} records  {seconds:>5.1} s",
        run.trigger.as_str(),
        run.status.as_str(),
        run.records_total,
    )];
    if run.records_failed > 0 {
        parts.push(format!("{} failed", run.records_failed));
    }
    let attempts = run.attempt_errors();
    if attempts.is_empty() {
        parts.extend(run.error_message.clone());
    }
    parts.extend(attempts.iter().map(|attempt| format!("[{}]", attempt.message)));
    parts.join("  ")
}
