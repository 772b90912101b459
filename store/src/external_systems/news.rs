//! What live clients hear about systems.

use serde_json::json;

use crate::clock::Clock;
use crate::error::StoreError;
use crate::events::{self, EventKind, NewEvent};
use crate::ids::SystemId;
use crate::pool::Tx;
use crate::text_enum::SystemStatus;

crate::text_enum! {
    /// What was done to a system.
    pub enum SystemChange {
        /// It was made.
        Created = "created",
        /// Its configuration was changed.
        Updated = "updated",
        /// It was paused.
        Paused = "paused",
        /// It was resumed.
        Resumed = "resumed",
        /// It was deleted.
        Deleted = "deleted",
        /// A run or a test has changed its status.
        Status = "status",
    }
}

/// Tells of a change, in its transaction. `status` is the one after it.
pub async fn tell(
    tx: &mut Tx,
    clock: &Clock,
    id: SystemId,
    change: SystemChange,
    status: SystemStatus,
) -> Result<(), StoreError> {
    let data = json!({ "change": change, "status": status }).to_string();
    let event = NewEvent { kind: EventKind::SystemChanged, system_id: Some(id), run_id: None, data: &data };
    events::insert(tx, clock, event).await
}
