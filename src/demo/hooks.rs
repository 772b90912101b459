//! The demo's second verdict: what the vendors posted against what the inbox holds. The vendors count
//! what was answered with 2xx; each of those must be in the inbox exactly once and applied, each
//! repetition counted on its first, and nothing with a wrong signature applied.

use std::fmt;

use zhilian_sync_store::webhook_events::Tally;

use crate::simulator::WebhookCounters;

/// One system's webhooks and what became of them.
#[derive(Debug, Clone)]
pub(super) struct Comparison {
    pub(super) system: String,
    pub(super) posted: WebhookCounters,
    pub(super) inbox: Tally,
}

impl Comparison {
    /// What is not as it should be, in words; empty when everything is.
    #[must_use]
    pub(super) fn faults(&self) -> Vec<String> {
        let Self { posted, inbox, .. } = self;
        let mut faults = Vec::new();
        let mut expect = |what: &str, found: u64, least: u64, most: u64| {
            if !(least..=most).contains(&found) {
                faults.push(format!("{what}: {found} in the inbox, {least} by the vendor's ledger"));
            }
        };
        expect("applied", inbox.applied, posted.accepted, posted.accepted);
        // An answer that came too late was no answer to the vendor, though the event was taken.
        expect("duplicate", inbox.repeated, posted.repeated, posted.repeated + posted.unanswered);
        let refused = posted.forged - posted.forged_accepted;
        expect("quarantined", inbox.quarantined, refused, refused);
        expect("not applied", inbox.pending + inbox.dead, 0, 0);
        if posted.forged_accepted > 0 {
            faults.push(format!("{} with a wrong signature were answered with 2xx", posted.forged_accepted));
        }
        if posted.given_up > 0 {
            faults.push(format!("{} were given up by the vendor", posted.given_up));
        }
        faults
    }

    /// What has not happened yet, in words; empty when it is enough. Not every vendor is `unruly`: posts what
    /// another signed, and out of order.
    #[must_use]
    pub(super) fn missing(posted: &WebhookCounters, unruly: bool) -> Vec<String> {
        let unruly = u64::from(unruly);
        [
            (posted.accepted, 20, "webhooks taken"),
            (posted.repeated, 1, "webhook posted twice"),
            (posted.late, unruly, "webhook out of order"),
            (posted.forged, 2 * unruly, "webhooks with a wrong signature"),
        ]
        .iter()
        .filter(|(had, needed, _)| had < needed)
        .map(|(had, needed, what)| format!("{had} of {needed} {what}"))
        .collect()
    }
}

/// The comparisons as a table, with what is wrong below it.
#[derive(Debug)]
pub(super) struct Table<'a>(pub(super) &'a [Comparison]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|row| row.system.len()).max().unwrap_or(0).max("webhooks".len());
        writeln!(
            f,
            "{:width$}  {:>7}  {:>7}  {:>9}  {:>11}  {:>5}  {:>12}",
            "webhooks", "posted", "applied", "duplicate", "quarantined", "dead", "out of order"
        )?;
        for Comparison { system, posted, inbox } in self.0 {
            writeln!(
                f,
                "{system:width$}  {:>7}  {:>7}  {:>9}  {:>11}  {:>5}  {:>12}",
                posted.accepted, inbox.applied, inbox.repeated, inbox.quarantined, inbox.dead, posted.late
            )?;
        }
        for row in self.0 {
            for fault in row.faults() {
                writeln!(f, "{}: {fault}", row.system)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison() -> Comparison {
        let posted = WebhookCounters {
            accepted: 40,
            repeated: 5,
            late: 3,
            forged: 4,
            unanswered: 1,
            ..WebhookCounters::default()
        };
        let inbox = Tally { applied: 40, repeated: 6, quarantined: 4, ..Tally::default() };
        Comparison { system: "noodles".into(), posted, inbox }
    }

    #[test]
    fn every_event_once_and_nothing_forged_is_exact() {
        let comparison = comparison();
        assert_eq!(comparison.faults(), [""; 0]);
        assert_eq!(Comparison::missing(&comparison.posted, true), [""; 0]);
        insta::assert_snapshot!(Table(&[comparison]).to_string(), @r"
        webhooks   posted  applied  duplicate  quarantined   dead  out of order
        noodles        40       40          6            4      0             3
        ");
    }

    #[test]
    fn every_way_to_be_inexact_is_named() {
        let mut wrong = comparison();
        wrong.inbox = Tally { applied: 38, repeated: 8, quarantined: 3, dead: 1, ..Tally::default() };
        wrong.posted.forged_accepted = 2;
        wrong.posted.given_up = 1;
        assert_eq!(wrong.faults().len(), 6, "{:?}", wrong.faults());
        assert_eq!(Comparison::missing(&WebhookCounters::default(), true).len(), 4);
        assert_eq!(Comparison::missing(&WebhookCounters::default(), false).len(), 2);
    }
}
