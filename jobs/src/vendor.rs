//! Vendors: what is known about each, as data, and the way to call them.
//!
//! A [`Manifest`] describes one vendor; the [`Catalog`] holds them all. [`Vendors::connect`] joins a
//! manifest with one system's address, secrets and settings; the [`Connection`] tests it
//! ([`Connection::probe`]), reads its lists page by page ([`Connection::fetch_page`]) and makes our
//! records of theirs ([`Connection::map_page`]). Nothing else in this service calls out.

// In the order a call passes them.
mod catalog;
mod manifest;

mod client;
mod guard;
mod redact;
mod signing;

mod paging;
mod template;

mod expression;
mod json;
mod mapping;
mod path;

pub mod webhook;

mod again;

mod check;
mod trial;
mod vectors;

pub use again::{Again, KeptRecord};
pub use catalog::Catalog;
pub use check::{CheckReport, check_file, replay, replay_event};
pub use client::{
    Connection, ConnectionSpec, Page, PageRequest, Partition, ProbeReport, Undetailed, Vendors, VendorsError,
    Window,
};
pub use json::read as read_json;
pub(crate) use manifest::stream::window::WindowDays;
pub use manifest::{
    ConfigKey, ConfigKind, CredentialSpec, Manifest, ManifestError, ManifestErrors, Stream, Target,
    manifest_schema,
};
pub use mapping::{Mapped, RecordFailure};
pub use paging::{CursorGuard, PageToken};
pub use redact::Redactor;
pub use trial::{Fate, TriedRecord};
pub use vectors::check_vectors;
pub use webhook::{EventScope, Plan};
