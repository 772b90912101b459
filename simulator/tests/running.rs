//! Simulated vendors asked over HTTP, as a client of theirs would: who is let in, what is refused, how pages
//! are turned, what faults do, and what is posted.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "running/client.rs"]
mod client;
#[path = "running/common.rs"]
mod common;
#[path = "running/western.rs"]
mod western;
