//! The service as several processes on PostgreSQL and Redis, and what is done to them: killed, stopped,
//! their Redis flushed, restarted and taken away. What is proved here is the product: nothing is lost,
//! nothing doubled, no run gets stuck.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "processes/backlog.rs"]
mod backlog;
#[path = "processes/harness.rs"]
mod harness;
#[path = "processes/killed.rs"]
mod killed;
#[path = "processes/proxy.rs"]
mod proxy;
#[path = "processes/redis_trouble.rs"]
mod redis_trouble;
#[path = "processes/slots.rs"]
mod slots;
#[path = "processes/stopped.rs"]
mod stopped;
#[path = "processes/webhooks.rs"]
mod webhooks;
