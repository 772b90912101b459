//! How a simulated vendor misbehaves: which faults, and at which occasions.

use std::time::Duration;

/// When something happens, counted in occasions: at the `first`, then at every `then`-th after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Every {
    /// The occasion of the first time, from 1.
    pub first: u64,
    /// How many occasions until the next time; 0 for once only.
    pub then: u64,
}

impl Every {
    /// Once only, at this occasion.
    #[must_use]
    pub const fn once(first: u64) -> Self {
        Self { first, then: 0 }
    }

    /// Whether it happens at this occasion.
    #[must_use]
    pub const fn happens(self, occasion: u64) -> bool {
        match occasion.checked_sub(self.first) {
            Some(0) => true,
            Some(after) => self.then != 0 && after.is_multiple_of(self.then),
            None => false,
        }
    }
}

/// Which faults are injected. Calls that give tokens are never struck, nor is one that is refused.
///
/// An occasion is an admitted request, or where it says so a page of a list that has records, counted
/// since these faults were set.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// Answers that there were too many requests, in the vendor's own shape.
    pub too_many_requests: Option<Every>,
    /// What such an answer says in `Retry-After`, where the vendor sends one.
    pub retry_after: Duration,
    /// Answers 500, or what the vendor says in its place.
    pub server_error: Option<Every>,
    /// Answers late.
    pub slow: Option<Every>,
    /// How late.
    pub slow_by: Duration,
    /// Ends the answer in the middle of its body.
    pub cut: Option<Every>,
    /// Lists the first record of a page once more at its end; an occasion is a page.
    pub duplicate: Option<Every>,
    /// Turns the order of a page around, where the vendor promises none; an occasion is a page.
    pub disorder: Option<Every>,
    /// Changes a record of a page right after the page was served; an occasion is a page with others
    /// after it.
    pub change: Option<Every>,
    /// Posts a webhook twice; an occasion is an event.
    pub webhook_twice: Option<Every>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            too_many_requests: None,
            retry_after: Duration::from_secs(1),
            server_error: None,
            slow: None,
            slow_by: Duration::from_secs(1),
            cut: None,
            duplicate: None,
            disorder: None,
            change: None,
            webhook_twice: None,
        }
    }
}

impl Faults {
    /// One of each early, then now and then.
    #[must_use]
    pub const fn lively() -> Self {
        Self {
            too_many_requests: Some(Every { first: 3, then: 31 }),
            retry_after: Duration::from_secs(1),
            server_error: Some(Every { first: 6, then: 37 }),
            slow: Some(Every { first: 5, then: 29 }),
            slow_by: Duration::from_millis(400),
            cut: Some(Every { first: 8, then: 41 }),
            duplicate: Some(Every { first: 2, then: 5 }),
            disorder: Some(Every { first: 3, then: 4 }),
            change: Some(Every { first: 2, then: 7 }),
            webhook_twice: Some(Every { first: 2, then: 7 }),
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
        assert_eq!((1..=12).filter(|n| Every::once(2).happens(*n)).count(), 1);
    }
}
