//! What a simulated vendor did: by these counts a test proves that its result was reached through faults,
//! not around them.

use chrono::{DateTime, Utc};

/// What was asked, served and injected since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests of any kind.
    pub requests: u64,
    /// Requests with wrong credentials, a wrong signature or a token that is not good.
    pub refused: u64,
    /// Requests that were let in but not understood: parameters, windows and addresses.
    pub rejected: u64,
    /// Pages of lists answered.
    pub pages: u64,
    /// Tokens given.
    pub tokens: u64,
    /// Answers that there were too many requests.
    pub too_many_requests: u64,
    /// Answers 500.
    pub server_errors: u64,
    /// Answers that came late.
    pub slow: u64,
    /// Answers that ended in the middle.
    pub cut: u64,
    /// Records listed twice on a page.
    pub duplicates: u64,
    /// Pages in another order.
    pub disorders: u64,
    /// Records changed between two pages of a list.
    pub changes_between_pages: u64,
}

/// One page of a list as it was served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageServed {
    /// The stream.
    pub stream: &'static str,
    /// When, by the vendor's clock.
    pub at: DateTime<Utc>,
    /// The ids on it, in their order, those listed twice twice.
    pub ids: Vec<String>,
    /// Whether the list goes on after it.
    pub more: bool,
}

/// What was posted, and what the receiver said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WebhookCounters {
    /// Events that were to be posted.
    pub events: u64,
    /// Events that were answered with 2xx, each counted once.
    pub accepted: u64,
    /// Further deliveries of such events that were answered with 2xx.
    pub repeated: u64,
    /// Deliveries that were answered otherwise.
    pub refused: u64,
    /// Deliveries that nobody answered in time.
    pub unanswered: u64,
    /// Events that nobody took in the end.
    pub given_up: u64,
}
