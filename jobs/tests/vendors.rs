//! Every manifest against recorded answers of its vendor, and the one client against a vendor that
//! misbehaves in every way that was ever seen.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "vendors/again.rs"]
mod again;
#[path = "vendors/answers.rs"]
mod answers;
#[path = "vendors/bodies.rs"]
mod bodies;
#[path = "vendors/calls.rs"]
mod calls;
#[path = "vendors/deep.rs"]
mod deep;
#[path = "vendors/details.rs"]
mod details;
#[path = "vendors/handshakes.rs"]
mod handshakes;
#[path = "vendors/lookups.rs"]
mod lookups;
#[path = "vendors/pages.rs"]
mod pages;
#[path = "vendors/recorded.rs"]
mod recorded;
#[path = "vendors/request_rules.rs"]
mod request_rules;
#[path = "vendors/request_vectors.rs"]
mod request_vectors;
#[path = "vendors/routes.rs"]
mod routes;
#[path = "vendors/server.rs"]
mod server;
#[path = "vendors/shapes.rs"]
mod shapes;
#[path = "vendors/shipped.rs"]
mod shipped;
#[path = "vendors/support.rs"]
mod support;
#[path = "vendors/thin.rs"]
mod thin;
#[path = "vendors/tokens.rs"]
mod tokens;
#[path = "vendors/webhook_rules.rs"]
mod webhook_rules;
#[path = "vendors/webhooks.rs"]
mod webhooks;
