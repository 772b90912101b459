//! What live clients hear about runs.

use serde_json::json;

use super::{Counts, Run};
use crate::clock::Clock;
use crate::error::StoreError;
use crate::events::{self, EventKind, NewEvent};
use crate::pool::Tx;

/// Tells of a run, in the transaction of what is told. `counts` are those of the whole run so far.
pub async fn tell(
    tx: &mut Tx,
    clock: &Clock,
    kind: EventKind,
    run: &Run,
    counts: Counts,
) -> Result<(), StoreError> {
    // Words of errors are vendors' words; whoever may read them finds them at the run.
    let data = json!({
        "kind": run.kind,
        "stream": run.sync_type,
        "trigger": run.trigger,
        "status": run.status,
        "error_code": run.error_code,
        "records_total": counts.total,
        "records_success": counts.success,
        "records_failed": counts.failed,
        "records_skipped": counts.skipped,
    });
    let data = data.to_string();
    let event = NewEvent { kind, system_id: run.system_id, run_id: Some(run.id), data: &data };
    events::insert(tx, clock, event).await
}
