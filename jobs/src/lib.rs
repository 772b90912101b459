//! The work of zhilian-sync.
//!
//! Rows are the truth; the queue is a doorbell. Three flows, everything else serves them:
//!
//! 1. *in*: [`enqueue`] writes a run in its cause's transaction and rings after the commit;
//! 2. *round*: the [`scheduler`] makes runs of due systems and rings for every row that nobody heard;
//! 3. *out*: a [`worker`] hears a ring, claims the row, runs its [`kinds`], records the [`outcome`].
//!
//! This package knows no HTTP server. `vendor` is the only place that calls out, `queue` the only one
//! that names apalis.

pub mod settings;

pub mod enqueue;
pub mod schedule;
pub mod scheduler;

pub mod queue;

pub mod inbox;

pub mod context;
pub mod kinds;
pub mod worker;

pub mod backoff;
pub mod health;
pub mod outcome;

pub mod vendor;

#[cfg(feature = "testing")]
pub mod testing;

pub use context::Context;
pub use kinds::Kind;
pub use outcome::{Action, JobError};
