//! The engine from a wish to its outcome, in one process, on both databases: what vendors do to us and
//! what becomes of it, run by run. Time stands still unless a test moves it; nothing sleeps.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "flows/anew.rs"]
mod anew;
#[path = "flows/boundaries.rs"]
mod boundaries;
#[path = "flows/credentials.rs"]
mod credentials;
#[path = "flows/failures.rs"]
mod failures;
#[path = "flows/harness.rs"]
mod harness;
#[path = "flows/hostile.rs"]
mod hostile;
#[path = "flows/lookups.rs"]
mod lookups;
#[path = "flows/misbehaviour.rs"]
mod misbehaviour;
#[path = "flows/notes.rs"]
mod notes;
#[path = "flows/parts.rs"]
mod parts;
#[path = "flows/runs.rs"]
mod runs;
#[path = "flows/schedules.rs"]
mod schedules;
#[path = "flows/versions.rs"]
mod versions;
