//! The edge of zhilian-sync: settings, HTTP in, the command line, and the wiring of all parts.
//!
//! A request goes `serve` (connections) → `api` (who may do what) → a handler under `api/`, which
//! reads and writes rows of the store and hands wishes for work to the jobs. No SQL and no vendor
//! call is made here.

// In the order a process goes through them.
pub mod cli;
pub mod config;
pub mod telemetry;

pub mod app;
pub mod auth;

pub mod api;
pub mod feed;
pub mod serve;

pub mod demo;
pub mod simulator;
