//! What became of a page's or an event's records: ours by their table, and those that failed.

use chrono::{DateTime, Utc};
use zhilian_sync_store::external_records::IncomingRecord;
use zhilian_sync_store::member_syncs::IncomingMember;
use zhilian_sync_store::pos_transactions::IncomingTransaction;
use zhilian_sync_store::supplier_orders::IncomingSupplierOrder;

use super::super::manifest::Target;

/// What became of the records of a page.
#[derive(Debug, Default)]
pub struct Mapped {
    /// For `pos_transactions`.
    pub transactions: Vec<IncomingTransaction>,
    /// For `external_records`.
    pub records: Vec<IncomingRecord>,
    /// For `supplier_orders`.
    pub orders: Vec<IncomingSupplierOrder>,
    /// For `member_syncs`.
    pub members: Vec<IncomingMember>,
    /// For `sync_failures`.
    pub failures: Vec<RecordFailure>,
    /// Records that the manifest's `when` leaves out.
    pub skipped: u64,
}

/// A record that could not be mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFailure {
    /// The vendor's id, or `hash:` and the SHA-256 of the raw record where it has none that can be used.
    pub external_id: String,
    /// What is wrong with it, and what to do.
    pub reason: String,
    /// The record as JSON text.
    pub raw: String,
}

/// What the records of all tables have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MappedRow<'a> {
    /// The table.
    pub(crate) target: Target,
    /// What tells it from others of its stream.
    pub(crate) id: &'a str,
    /// The vendor's text.
    pub(crate) raw: &'a str,
    /// When it took place; a member has no such time.
    pub(crate) occurred_at: Option<DateTime<Utc>>,
    /// When the vendor changed it last, if the vendor tells.
    pub(crate) version_at: Option<DateTime<Utc>>,
}

impl Mapped {
    /// The records that are to be stored, table by table.
    pub(crate) fn rows(&self) -> impl Iterator<Item = MappedRow<'_>> {
        let transactions = self.transactions.iter().map(|one| MappedRow {
            target: Target::PosTransactions,
            id: &one.external_id,
            raw: &one.raw,
            occurred_at: Some(one.occurred_at),
            version_at: one.version_at,
        });
        let records = self.records.iter().map(|one| MappedRow {
            target: Target::ExternalRecords,
            id: &one.external_id,
            raw: &one.raw,
            occurred_at: one.occurred_at,
            version_at: one.version_at,
        });
        let orders = self.orders.iter().map(|one| MappedRow {
            target: Target::SupplierOrders,
            id: &one.order_number,
            raw: &one.raw,
            occurred_at: Some(one.order_date),
            version_at: one.version_at,
        });
        let members = self.members.iter().map(|one| MappedRow {
            target: Target::MemberSyncs,
            id: &one.member_id,
            raw: &one.raw,
            occurred_at: None,
            version_at: one.version_at,
        });
        transactions.chain(records).chain(orders).chain(members)
    }

    /// How many records there are to store.
    #[must_use]
    pub fn storable(&self) -> usize {
        self.transactions.len() + self.records.len() + self.orders.len() + self.members.len()
    }

    /// How many records there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        let all = self.storable() + self.failures.len();
        u64::try_from(all).unwrap_or(u64::MAX).saturating_add(self.skipped)
    }

    /// Adds what became of other records.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.transactions.append(&mut other.transactions);
        self.records.append(&mut other.records);
        self.orders.append(&mut other.orders);
        self.members.append(&mut other.members);
        self.failures.append(&mut other.failures);
        self.skipped += other.skipped;
    }

    /// The vendor's text of every record.
    pub(in crate::vendor) fn raws_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let transactions = self.transactions.iter_mut().map(|transaction| &mut transaction.raw);
        let records = self.records.iter_mut().map(|record| &mut record.raw);
        let orders = self.orders.iter_mut().map(|order| &mut order.raw);
        let members = self.members.iter_mut().map(|member| &mut member.raw);
        let failures = self.failures.iter_mut().map(|failure| &mut failure.raw);
        transactions.chain(records).chain(orders).chain(members).chain(failures)
    }
}
