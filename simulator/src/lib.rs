//! Local fakes of vendors, for trying out and for testing what speaks to them.
//!
//! They stand outside the flow, where a vendor stands. This package depends on neither `jobs` nor `store`,
//! and that is the wall: it is written from the vendors' documents alone, so a mistake of the client is
//! not made here a second time, where it would cancel itself out.
//!
//! ```text
//! request → admission (credentials, signature, token) → faults → routing, parameters, window, page → answer
//!                                                                          ↑
//!                        the world: sales, orders, members … by a seed, changed by hand or at a pace
//!                                                                          ↓
//!                                                   webhooks, signed → whoever asked for them
//! ```
//!
//! [`Simulator`] is one running vendor. It keeps an exact ledger, so whoever read from it can be checked
//! against the truth. A vendor is one file below `vendors`, which implements [`vendor::Vendor`].

mod counters;
mod cursor;
mod endpoint;
mod faults;
mod money;
mod paging;
mod parameters;
mod request;
mod scene;
mod settings;
mod simulator;
mod tokens;
pub mod vendor;
mod vendors;
pub mod verify;
mod webhooks;
pub mod world;

pub use self::counters::{Counters, PageServed, WebhookCounters};
pub use self::faults::{Every, Faults};
pub use self::request::{Heard, RequestLine};
pub use self::settings::{Now, Settings};
pub use self::simulator::{Simulator, StartError};
pub use self::vendors::names;
pub use self::webhooks::WebhookTarget;
pub use self::world::Entry;
