//! The matrix: every stream of every simulated vendor, read by its shipped manifest, on every database. Whatever
//! goes wrong on the way, in the end the database says what the vendor's ledger says: nothing lost, nothing
//! doubled. A new simulator takes part by being in its package's list.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "simulated/harness.rs"]
mod harness;
#[path = "simulated/interrupted.rs"]
mod interrupted;
#[path = "simulated/kept.rs"]
mod kept;
#[path = "simulated/lively.rs"]
mod lively;
#[path = "simulated/looked_up.rs"]
mod looked_up;
#[path = "simulated/reading.rs"]
mod reading;
#[path = "simulated/rows.rs"]
mod rows;
#[path = "simulated/webhooks.rs"]
mod webhooks;
