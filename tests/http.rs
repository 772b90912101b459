//! The HTTP API from outside: what every route answers, who may call it, and what is refused. Mirrors
//! `src/api/`. Answers are snapshots of status and body; the clock stands still and ids are numbered in
//! the order they appear, so that nothing has to be blanked out.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "support/app.rs"]
mod support;

#[path = "http/access.rs"]
mod access;
#[path = "http/audit.rs"]
mod audit;
#[path = "http/batch.rs"]
mod batch;
#[path = "http/document.rs"]
mod document;
#[path = "http/events.rs"]
mod events;
#[path = "http/failures.rs"]
mod failures;
#[path = "http/health.rs"]
mod health;
#[path = "http/health_of_systems.rs"]
mod health_of_systems;
#[path = "http/hooks.rs"]
mod hooks;
#[path = "http/idempotency.rs"]
mod idempotency;
#[path = "http/members.rs"]
mod members;
#[path = "http/nasty.rs"]
mod nasty;
#[path = "http/pos.rs"]
mod pos;
#[path = "http/problem.rs"]
mod problem;
#[path = "http/redaction.rs"]
mod redaction;
#[path = "http/reservation.rs"]
mod reservation;
#[path = "http/runs.rs"]
mod runs;
#[path = "http/schedule.rs"]
mod schedule;
#[path = "http/session.rs"]
mod session;
#[path = "http/start.rs"]
mod start;
#[path = "http/supplier.rs"]
mod supplier;
#[path = "http/systems.rs"]
mod systems;
#[path = "http/systems_secrets.rs"]
mod systems_secrets;
#[path = "http/systems_work.rs"]
mod systems_work;
#[path = "http/users.rs"]
mod users;
#[path = "http/webhook_events.rs"]
mod webhook_events;
#[path = "http/webhook_secrets.rs"]
mod webhook_secrets;
#[path = "http/webhooks.rs"]
mod webhooks;
