//! When the demo has shown enough: each system was pulled by its schedule, over several pages, and
//! through every fault there is. A result without these would prove little.

/// The fewest pages of the longest listing that a pull read from its first page to its last.
const PAGES_MIN: u64 = 3;

/// The fewest scheduled pulls that ended well, so that one at least continued where another ended.
const PULLS_MIN: u64 = 2;

/// What a vendor served and injected since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Served {
    /// Pages answered.
    pub(super) pages: u64,
    /// The pages of the longest listing that was read from its first page to its last.
    pub(super) longest_listing: u64,
    /// Answers 429.
    pub(super) too_many_requests: u64,
    /// Answers 500.
    pub(super) server_errors: u64,
    /// Records listed twice on a page.
    pub(super) duplicates: u64,
    /// Records changed between two pages of a listing.
    pub(super) shifts: u64,
}

/// What one system has been through.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Evidence {
    /// What its vendor served and injected.
    pub(super) vendor: Served,
    /// Its scheduled pulls that ended well.
    pub(super) scheduled_pulls: u64,
    /// Its windows have an end, so pages move when a sale changes while they are read.
    pub(super) pages_move: bool,
}

impl Evidence {
    /// What has not happened yet, in words; empty when it is enough.
    #[must_use]
    pub(super) fn missing(&self) -> Vec<String> {
        let Self { vendor, scheduled_pulls, pages_move } = self;
        let at_least = [
            (*scheduled_pulls, PULLS_MIN, "scheduled pulls that ended well"),
            (vendor.longest_listing, PAGES_MIN, "pages in one pull"),
            (vendor.too_many_requests, 1, "injected 429"),
            (vendor.server_errors, 1, "injected 500"),
            (vendor.duplicates, 1, "injected duplicate"),
            (vendor.shifts, u64::from(*pages_move), "pages that moved while they were read"),
        ];
        at_least
            .iter()
            .filter(|(had, needed, _)| had < needed)
            .map(|(had, needed, what)| format!("{had} of {needed} {what}"))
            .collect()
    }
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { vendor, scheduled_pulls, pages_move } = self;
        write!(
            f,
            "{scheduled_pulls} scheduled pulls, {} pages (up to {} in one pull); injected: {} × 429, {} × 500, \
             {} duplicates",
            vendor.pages,
            vendor.longest_listing,
            vendor.too_many_requests,
            vendor.server_errors,
            vendor.duplicates,
        )?;
        if *pages_move {
            write!(f, ", {} times pages that moved while they were read", vendor.shifts)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_not_enough_and_each_lack_is_named() {
        let enough = Evidence {
            vendor: Served {
                longest_listing: 3,
                too_many_requests: 1,
                server_errors: 1,
                duplicates: 1,
                shifts: 1,
                ..Served::default()
            },
            scheduled_pulls: 2,
            pages_move: true,
        };
        assert_eq!(enough.missing(), [""; 0]);
        assert_eq!(Evidence::default().missing().len(), 5);
        assert_eq!(Evidence { pages_move: true, ..Evidence::default() }.missing().len(), 6);
        let lacking = Evidence { scheduled_pulls: 1, ..enough };
        assert_eq!(lacking.missing(), ["1 of 2 scheduled pulls that ended well"]);
    }
}
