//! The demo's verdict: what the vendors' ledgers say against what is stored, record by record. Nothing here knows
//! how the records came into the database, and that is the point.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How many ids of a fault are named before the rest is only counted.
const NAMED_MAX: usize = 5;

/// A record as its vendor has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// `sale`, `refund` or `void`; how far an order is; `member`.
    pub(super) kind: &'static str,
    /// What was paid, in minor units, or a member's points.
    pub(super) worth: i64,
}

/// A record as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredRecord {
    /// The vendor's id.
    pub(super) external_id: String,
    /// As in [`Told`].
    pub(super) kind: &'static str,
    /// As in [`Told`].
    pub(super) worth: i64,
}

/// One list of a vendor and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comparison {
    /// The system, and where it has several lists, the list.
    pub(super) system: String,
    /// Records of the vendor's ledger.
    pub(super) sold: usize,
    /// Rows in the database.
    pub(super) stored: usize,
    /// Ids of the ledger that are not stored.
    pub(super) lost: Vec<String>,
    /// Ids of rows beyond the one that each record ought to have.
    pub(super) doubled: Vec<String>,
    /// Ids that are stored with another worth or kind than they have in the ledger.
    pub(super) wrong: Vec<String>,
}

impl Comparison {
    /// Compares the ledger with every row that the database has of the system.
    #[must_use]
    pub(super) fn of(system: &str, ledger: &BTreeMap<String, Told>, rows: &[StoredRecord]) -> Self {
        let (mut doubled, mut wrong) = (Vec::new(), Vec::new());
        let mut found = BTreeSet::new();
        for row in rows {
            let sold = ledger.get(&row.external_id);
            if sold.is_none() || !found.insert(row.external_id.as_str()) {
                doubled.push(row.external_id.clone());
            }
            if sold.is_some_and(|sold| (sold.kind, sold.worth) != (row.kind, row.worth)) {
                wrong.push(row.external_id.clone());
            }
        }
        let lost = ledger.keys().filter(|id| !found.contains(id.as_str())).cloned().collect();
        Self { system: system.to_owned(), sold: ledger.len(), stored: rows.len(), lost, doubled, wrong }
    }

    /// Whether every record is stored once, as it is.
    #[must_use]
    pub(super) fn is_exact(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.wrong.is_empty()
    }
}

/// The comparisons as a table, with the ids of whatever is not as it should be below it.
#[derive(Debug)]
pub(super) struct Table<'a>(pub(super) &'a [Comparison]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|row| row.system.len()).max().unwrap_or(0).max("system".len());
        writeln!(
            f,
            "{:width$}  {:>7}  {:>7}  {:>7}  {:>7}  {:>7}",
            "system", "sold", "stored", "lost", "doubled", "wrong"
        )?;
        for row in self.0 {
            let Comparison { system, sold, stored, lost, doubled, wrong } = row;
            writeln!(
                f,
                "{system:width$}  {sold:>7}  {stored:>7}  {:>7}  {:>7}  {:>7}",
                lost.len(),
                doubled.len(),
                wrong.len()
            )?;
        }
        for row in self.0 {
            for (what, ids) in [("lost", &row.lost), ("doubled", &row.doubled), ("wrong", &row.wrong)] {
                if let Some((named, rest)) = ids.split_at_checked(NAMED_MAX.min(ids.len()))
                    && !named.is_empty()
                {
                    write!(f, "{}: {what}: {}", row.system, named.join(", "))?;
                    if !rest.is_empty() {
                        write!(f, " and {} more", rest.len())?;
                    }
                    writeln!(f)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(sales: &[(&str, &'static str, i64)]) -> BTreeMap<String, Told> {
        sales.iter().map(|&(id, kind, worth)| (id.to_owned(), Told { kind, worth })).collect()
    }

    fn row(id: &str, kind: &'static str, worth: i64) -> StoredRecord {
        StoredRecord { external_id: id.into(), kind, worth }
    }

    #[test]
    fn sales_stored_once_and_right_are_exact() {
        let ledger = ledger(&[("S-1", "sale", 100), ("S-2", "refund", 50)]);
        let rows = [row("S-2", "refund", 50), row("S-1", "sale", 100)];
        let comparison = Comparison::of("a", &ledger, &rows);
        assert!(comparison.is_exact());
        insta::assert_snapshot!(Table(&[comparison]).to_string(), @r"
        system     sold   stored     lost  doubled    wrong
        a             2        2        0        0        0
        ");
    }

    #[test]
    fn every_way_to_be_inexact_is_found_and_named() {
        let sold: Vec<String> = (1..=9).map(|n| format!("S-{n}")).collect();
        let sales: Vec<_> = sold.iter().map(|id| (id.as_str(), "sale", 100)).collect();
        let rows = [
            row("S-1", "sale", 100),
            row("S-1", "sale", 100),
            row("S-2", "sale", 99),
            row("S-3", "void", 100),
            row("S-X", "sale", 100),
            row("S-9", "sale", -100),
        ];
        let comparison = Comparison::of("noodles", &ledger(&sales), &rows);
        assert!(!comparison.is_exact());
        assert_eq!(comparison.lost, ["S-4", "S-5", "S-6", "S-7", "S-8"]);
        assert_eq!(comparison.doubled, ["S-1", "S-X"]);
        assert_eq!(comparison.wrong, ["S-2", "S-3", "S-9"]);
        let nothing = Comparison::of("tea", &ledger(&sales), &[]);
        insta::assert_snapshot!(Table(&[comparison, nothing]).to_string(), @r"
        system      sold   stored     lost  doubled    wrong
        noodles        9        6        5        2        3
        tea            9        0        9        0        0
        noodles: lost: S-4, S-5, S-6, S-7, S-8
        noodles: doubled: S-1, S-X
        noodles: wrong: S-2, S-3, S-9
        tea: lost: S-1, S-2, S-3, S-4, S-5 and 4 more
        ");
    }
}
