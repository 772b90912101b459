//! What a simulated vendor is like: how much it has, how it changes, and how it misbehaves.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::faults::Faults;
use crate::request::Heard;

/// Where the vendor's time comes from: a test moves its own by hand.
pub type Now = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// How a vendor is started.
#[derive(Clone)]
pub struct Settings {
    /// Decides every record: the same seed makes the same ones.
    pub seed: u64,
    /// The vendor's clock.
    pub now: Now,
    /// How many records each stream has at the start.
    pub history: u32,
    /// How far before the start the first of them was made.
    pub history_span: Duration,
    /// The time between two changes; `None` changes only by hand.
    pub pace: Option<Duration>,
    /// How it misbehaves.
    pub faults: Faults,
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// Told of every request once it is answered.
    pub heard: Option<Heard>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            now: machine_time(),
            history: 50,
            history_span: Duration::from_hours(24),
            pace: None,
            faults: Faults::default(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            heard: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("seed", &self.seed)
            .field("history", &self.history)
            .field("history_span", &self.history_span)
            .field("pace", &self.pace)
            .field("faults", &self.faults)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

#[expect(clippy::disallowed_methods, reason = "a vendor has a clock of its own, which is not ours")]
fn machine_time() -> Now {
    Arc::new(Utc::now)
}
