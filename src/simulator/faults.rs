//! How the simulated vendor misbehaves, and the count of what it did: the demo proves by these
//! counters that its result was reached through faults, not around them.

use chrono::{DateTime, Utc};

pub use zhilian_sync_simulator::Every;

/// Which faults are injected into the list of sales; the ping is always answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct FaultPlan {
    /// Answers 429 with `Retry-After: 1`; an occasion is an authorised request.
    pub too_many_requests: Option<Every>,
    /// Answers 500; an occasion is an authorised request.
    pub server_error: Option<Every>,
    /// Lists an item twice; an occasion is a page with items.
    pub duplicate: Option<Every>,
    /// Changes a sale that was just served, so that the pages still to come move up by one; an
    /// occasion is a page with others after it, of a window that has an end.
    pub shift: Option<Every>,
}

impl FaultPlan {
    /// One of each early, then now and then.
    #[must_use]
    pub const fn lively() -> Self {
        Self {
            too_many_requests: Some(Every { first: 3, then: 31 }),
            server_error: Some(Every { first: 6, then: 37 }),
            duplicate: Some(Every { first: 2, then: 5 }),
            shift: Some(Every { first: 2, then: 7 }),
        }
    }
}

/// What was served and injected since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests for a page of sales with the right key.
    pub requests: u64,
    /// Requests with a wrong key or none.
    pub refused: u64,
    /// Pages of sales answered.
    pub pages: u64,
    /// Answers 429.
    pub too_many_requests: u64,
    /// Answers 500.
    pub server_errors: u64,
    /// Items listed twice on a page.
    pub duplicates: u64,
    /// Sales changed between two pages of a listing, so that the later pages moved.
    pub shifts: u64,
    /// Listings of which every page was served, from the first to the last.
    pub whole_listings: u64,
    /// The pages of the longest of them.
    pub longest_listing: u64,
}

/// Follows the listing being read, to know when one was read from its first page to its last.
#[derive(Debug, Default)]
pub(super) struct Listing {
    since: Option<DateTime<Utc>>,
    before: Option<DateTime<Utc>>,
    page: u64,
}

impl Listing {
    /// Notes a served page.
    pub(super) fn served(
        &mut self,
        window: (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
        page: u64,
        pages: u64,
        counters: &mut Counters,
    ) {
        let continues = window == (self.since, self.before) && page <= self.page + 1;
        if page == 1 || continues {
            *self = Self { since: window.0, before: window.1, page };
        } else {
            // Begun elsewhere than on the first page, or pages were left out: not a whole listing.
            self.page = 0;
        }
        if self.page != 0 && self.page >= pages {
            counters.whole_listings += 1;
            counters.longest_listing = counters.longest_listing.max(page);
            self.page = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_comes_first_at_its_occasion_and_then_regularly() {
        let every = Every { first: 3, then: 4 };
        let hits: Vec<u64> = (1..=12).filter(|n| every.happens(*n)).collect();
        assert_eq!(hits, [3, 7, 11]);
        let once = Every { first: 2, then: 0 };
        assert_eq!((1..=12).filter(|n| once.happens(*n)).count(), 1);
    }

    #[test]
    fn a_listing_counts_only_when_every_page_of_it_was_served() {
        let mut counters = Counters::default();
        let mut listing = Listing::default();
        let window = (None, DateTime::from_timestamp(1_700_000_000, 0));
        // Begins at page 2: not whole.
        listing.served(window, 2, 3, &mut counters);
        listing.served(window, 3, 3, &mut counters);
        assert_eq!(counters.whole_listings, 0);
        // A page read twice is still a listing in order.
        for page in [1, 2, 2, 3] {
            listing.served(window, page, 3, &mut counters);
        }
        assert_eq!((counters.whole_listings, counters.longest_listing), (1, 3));
        // A page left out is not.
        for page in [1, 3] {
            listing.served(window, page, 3, &mut counters);
        }
        assert_eq!(counters.whole_listings, 1);
    }
}
