//! The records that the events of one transaction bring: sorted by system, each system's by table and key,
//! and afterwards told apart again, so that every event can say what it did.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use zhilian_sync_store::external_records::{self, IncomingRecord};
use zhilian_sync_store::member_syncs::{self, IncomingMember};
use zhilian_sync_store::pos_transactions::{self, IncomingTransaction};
use zhilian_sync_store::record_batches::{Batch, RecordKey, RefusedRecord};
use zhilian_sync_store::supplier_orders::{self, IncomingSupplierOrder};
use zhilian_sync_store::sync_failures::{self, FailureStage, NewFailure};
use zhilian_sync_store::sync_logs::Counts;
use zhilian_sync_store::{MemberConflict, RunId, StoreError, SystemId, Tx};

use super::planning::{Claimed, Fault};
use crate::context::Context;
use crate::outcome::JobError;
use crate::vendor::{Mapped, RecordFailure};

/// What an event's records came to.
pub(super) struct Stored {
    pub(super) at: usize,
    pub(super) log: RunId,
    pub(super) stream: String,
    pub(super) counts: Counts,
    /// Whether a row is other than it was.
    pub(super) changed: bool,
    pub(super) failures: Vec<NewFailure>,
}

/// Where a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Table {
    Transactions,
    Records,
    Orders,
    Members,
}

/// What decides which of two readings of a record wins.
type Version = (DateTime<Utc>, DateTime<Utc>);

/// The records of one system.
#[derive(Default)]
struct OfSystem {
    /// One of its events.
    first: Option<usize>,
    transactions: Vec<(RunId, IncomingTransaction)>,
    records: Vec<(RunId, IncomingRecord)>,
    orders: Vec<(RunId, IncomingSupplierOrder)>,
    members: Vec<(RunId, IncomingMember)>,
    /// Which event brings the newest version of a record.
    newest: HashMap<(Table, RecordKey), (Version, usize)>,
    /// The ids by stream, for failures that are over now.
    ids: BTreeMap<String, Vec<String>>,
}

/// The records of one transaction.
pub(super) struct Records<'a> {
    claimed: &'a [Claimed],
    systems: BTreeMap<SystemId, OfSystem>,
    stored: Vec<Stored>,
}

impl<'a> Records<'a> {
    pub(super) const fn new(claimed: &'a [Claimed]) -> Self {
        Self { claimed, systems: BTreeMap::new(), stored: Vec::new() }
    }

    /// Takes what an event brings, to be written as the work of `log`.
    pub(super) fn add(&mut self, at: usize, log: RunId, stream: String, mapped: Mapped) {
        let event = &self.claimed[at].event;
        let counts = counts(mapped.storable(), mapped.failures.len(), mapped.skipped);
        let of = self.systems.entry(event.system_id).or_default();
        of.first.get_or_insert(at);
        let ids = of.ids.entry(stream.clone()).or_default();
        for transaction in mapped.transactions {
            let observed_at = transaction.observed_at.unwrap_or(event.received_at);
            let version = (transaction.version_at.unwrap_or(observed_at), observed_at);
            let key = (Table::Transactions, (String::new(), transaction.external_id.clone()));
            ids.push(transaction.external_id.clone());
            see(&mut of.newest, key, version, at);
            of.transactions.push((log, transaction));
        }
        for record in mapped.records {
            let observed_at = record.observed_at.unwrap_or(event.received_at);
            let version = (record.version_at.unwrap_or(observed_at), observed_at);
            let key = (Table::Records, (record.stream.clone(), record.external_id.clone()));
            ids.push(record.external_id.clone());
            see(&mut of.newest, key, version, at);
            of.records.push((log, record));
        }
        for order in mapped.orders {
            let observed_at = order.observed_at.unwrap_or(event.received_at);
            let version = (order.version_at.unwrap_or(observed_at), observed_at);
            let key = (Table::Orders, (String::new(), order.order_number.clone()));
            ids.push(order.order_number.clone());
            see(&mut of.newest, key, version, at);
            of.orders.push((log, order));
        }
        for member in mapped.members {
            let observed_at = member.observed_at.unwrap_or(event.received_at);
            let version = (member.version_at.unwrap_or(observed_at), observed_at);
            let key = (Table::Members, (String::new(), member.member_id.clone()));
            ids.push(member.member_id.clone());
            see(&mut of.newest, key, version, at);
            of.members.push((log, member));
        }
        let failures = mapped.failures.into_iter().map(not_mapped).collect();
        self.stored.push(Stored { at, log, stream, counts, changed: false, failures });
    }

    /// Stores the records of several events. One that the database refuses fails them all with
    /// [`StoreError::Refused`]: then its event is to be found.
    pub(super) async fn store(
        mut self,
        ctx: &Context,
        tx: &mut Tx,
    ) -> Result<Result<Vec<Stored>, Fault>, StoreError> {
        let mut changed: HashSet<usize> = HashSet::new();
        for (system, of) in std::mem::take(&mut self.systems) {
            let Some((batch, rule)) = of.first.and_then(|at| batch_of(ctx, &self.claimed[at])) else {
                continue;
            };
            let OfSystem { transactions, records, orders, members, newest, ids, .. } = of;
            let written = [
                (Table::Transactions, pos_transactions::upsert_of_runs(tx, batch, transactions).await?),
                (Table::Records, external_records::upsert_of_runs(tx, batch, records).await?),
                (Table::Orders, supplier_orders::upsert_of_runs(tx, batch, orders).await?),
                (Table::Members, member_syncs::upsert_of_runs(tx, batch, rule, members).await?),
            ];
            for (table, keys) in written {
                let bringers = keys.into_iter().filter_map(|key| newest.get(&(table, key)));
                changed.extend(bringers.map(|(_, at)| *at));
            }
            resolve(ctx, tx, system, ids).await?;
        }
        for stored in &mut self.stored {
            stored.changed = changed.contains(&stored.at);
        }
        Ok(Ok(self.stored))
    }

    /// Stores the records of the only event. Those that the database refuses are failures of their own, unless
    /// they are all there are.
    pub(super) async fn store_alone(
        mut self,
        ctx: &Context,
        tx: &mut Tx,
    ) -> Result<Result<Vec<Stored>, Fault>, StoreError> {
        for (system, of) in std::mem::take(&mut self.systems) {
            let batch = of.first.and_then(|at| batch_of(ctx, &self.claimed[at]));
            let (Some((batch, rule)), [stored]) = (batch, self.stored.as_mut_slice()) else { continue };
            let OfSystem { transactions, records, orders, members, mut ids, .. } = of;
            let given = transactions.len() + records.len() + orders.len() + members.len();
            let (transactions, records, orders) = (bare(transactions), bare(records), bare(orders));
            let members = bare(members);
            let batch = Batch { sync_log_id: Some(stored.log), ..batch };
            let (first, mut refused) =
                pos_transactions::upsert_batch_isolating(tx, batch, transactions).await?;
            let (second, others) = external_records::upsert_batch_isolating(tx, batch, records).await?;
            refused.extend(others);
            let (third, others) = supplier_orders::upsert_batch_isolating(tx, batch, orders).await?;
            refused.extend(others);
            let (fourth, others) = member_syncs::upsert_batch_isolating(tx, batch, rule, members).await?;
            refused.extend(others);
            if let (true, Some(RefusedRecord { reason, .. })) = (refused.len() == given, refused.first()) {
                return Ok(Err(Fault::from(JobError::retry("record_refused", reason.clone()))));
            }
            let bad: HashSet<&str> = refused.iter().map(|record| record.external_id.as_str()).collect();
            for ids in ids.values_mut() {
                ids.retain(|id| !bad.contains(id.as_str()));
            }
            resolve(ctx, tx, system, ids).await?;
            stored.changed = first.changed + second.changed + third.changed + fourth.changed > 0;
            let refused: Vec<NewFailure> = refused.into_iter().map(NewFailure::from).collect();
            let failed = i64::try_from(refused.len()).unwrap_or(i64::MAX);
            stored.counts.success -= failed;
            stored.counts.failed += failed;
            stored.failures.extend(refused);
        }
        Ok(Ok(self.stored))
    }
}

/// How the records of a system are written, of which this is an event; the times of observation are their
/// own; and whose word counts of its members. `None` for an event whose system is not known, which brings no records.
fn batch_of<'a>(ctx: &'a Context, claimed: &'a Claimed) -> Option<(Batch<'a>, MemberConflict)> {
    let target = claimed.target.as_ref().ok()?;
    let batch = Batch {
        system_id: claimed.event.system_id,
        stores: &target.stores,
        sync_log_id: None,
        observed_at: claimed.event.received_at,
        clock: ctx.clock(),
        force: claimed.event.forced,
    };
    Some((batch, target.system.member_conflict))
}

fn bare<R>(records: Vec<(RunId, R)>) -> Vec<R> {
    records.into_iter().map(|(_, record)| record).collect()
}

/// Of equal versions the last counts, as it does when they are written.
fn see(
    newest: &mut HashMap<(Table, RecordKey), (Version, usize)>,
    key: (Table, RecordKey),
    version: Version,
    at: usize,
) {
    let entry = newest.entry(key).or_insert((version, at));
    if version >= entry.0 {
        *entry = (version, at);
    }
}

/// What failed before and is stored now is no failure any more.
async fn resolve(
    ctx: &Context,
    tx: &mut Tx,
    system: SystemId,
    ids: BTreeMap<String, Vec<String>>,
) -> Result<(), StoreError> {
    for (stream, ids) in ids.iter().filter(|(_, ids)| !ids.is_empty()) {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        sync_failures::resolve(tx, ctx.clock(), system, stream, &ids).await?;
    }
    Ok(())
}

fn counts(good: usize, failed: usize, skipped: u64) -> Counts {
    let [success, failed] = [good, failed].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
    let skipped = i64::try_from(skipped).unwrap_or(i64::MAX);
    Counts { total: success + failed + skipped, success, failed, skipped }
}

fn not_mapped(failure: RecordFailure) -> NewFailure {
    let RecordFailure { external_id, reason, raw } = failure;
    NewFailure { stage: FailureStage::Mapping, external_id, reason, raw }
}
