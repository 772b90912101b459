//! The commands for whoever writes a manifest, as processes: what they print, what they never print, and how they
//! end; a simulated vendor to try one on; and the guide to writing one, done.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "vendors/check.rs"]
mod check;
#[path = "vendors/simulate.rs"]
mod simulate;
#[path = "vendors/trial.rs"]
mod trial;
#[path = "vendors/walkthrough.rs"]
mod walkthrough;
