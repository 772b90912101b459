//! What the database holds of a stream beside what the vendor's ledger says of it, both in the same words.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use zhilian_sync_simulator::Entry;
use zhilian_sync_store::{
    Store, SystemId, external_records, member_syncs, pos_transactions, supplier_orders,
};

use crate::rows::Row;

/// The most records that a list of the store holds.
const LIMIT: u32 = 500;

/// One record, as far as the manifest tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    kind: String,
    total: i64,
    name: Option<String>,
    points: Option<i64>,
    version_at: Option<DateTime<Utc>>,
}

impl Kept {
    /// What should be there.
    fn of_entry(row: &Row, entry: &Entry) -> Self {
        let (member, told) = (row.target() == "member_syncs", |field: &str| row.fills(field));
        Self {
            kind: entry.kind.to_owned(),
            total: if !member || told("balance") { entry.total } else { 0 },
            name: entry.name.clone().filter(|_| told("name")),
            points: entry.points.filter(|_| told("points")),
            version_at: row.tells_versions().then_some(entry.updated_at),
        }
    }
}

/// The ledger, without what is gone.
pub(crate) fn expected(row: &Row, ledger: &BTreeMap<String, Entry>) -> BTreeMap<String, Kept> {
    let there = ledger.iter().filter(|(_, entry)| !entry.deleted);
    there.map(|(id, entry)| (id.clone(), Kept::of_entry(row, entry))).collect()
}

/// What the database holds; a record that it holds twice fails the test.
pub(crate) async fn stored(store: &Store, system: SystemId, row: &Row) -> BTreeMap<String, Kept> {
    let version = |at: DateTime<Utc>| row.tells_versions().then_some(at);
    let rows: Vec<(String, Kept)> = match row.target() {
        "pos_transactions" => transactions(store, system, version).await,
        "supplier_orders" => orders(store, system, version).await,
        "member_syncs" => members(store, system, row, version).await,
        _ => records(store, system, row, version).await,
    };
    assert!(rows.len() < LIMIT as usize, "more records than one list holds");
    let count = rows.len();
    let by_id: BTreeMap<String, Kept> = rows.into_iter().collect();
    assert_eq!(by_id.len(), count, "a record is stored twice");
    by_id
}

async fn transactions(
    store: &Store,
    system: SystemId,
    version: impl Fn(DateTime<Utc>) -> Option<DateTime<Utc>>,
) -> Vec<(String, Kept)> {
    let filter = pos_transactions::Filter { system_id: Some(system), limit: LIMIT, ..Default::default() };
    let rows = pos_transactions::list(store, &filter).await.unwrap().into_iter();
    let kept = rows.map(|row| {
        let kept = Kept {
            kind: row.transaction_type.as_str().to_owned(),
            total: row.total,
            name: None,
            points: None,
            version_at: version(row.version_at),
        };
        (row.pos_transaction_id, kept)
    });
    kept.collect()
}

async fn orders(
    store: &Store,
    system: SystemId,
    version: impl Fn(DateTime<Utc>) -> Option<DateTime<Utc>>,
) -> Vec<(String, Kept)> {
    let filter = supplier_orders::Filter { system_id: Some(system), limit: LIMIT, ..Default::default() };
    let rows = supplier_orders::list(store, &filter).await.unwrap().into_iter();
    let kept = rows.map(|row| {
        let kept = Kept {
            kind: row.status.as_str().to_owned(),
            total: row.total,
            name: None,
            points: None,
            version_at: version(row.version_at),
        };
        (row.external_order_id.unwrap_or(row.order_number), kept)
    });
    kept.collect()
}

async fn members(
    store: &Store,
    system: SystemId,
    row: &Row,
    version: impl Fn(DateTime<Utc>) -> Option<DateTime<Utc>>,
) -> Vec<(String, Kept)> {
    let filter = member_syncs::Filter { system_id: Some(system), limit: LIMIT, ..Default::default() };
    let rows = member_syncs::list(store, &filter).await.unwrap().into_iter();
    let kept = rows.map(|member| {
        let kept = Kept {
            kind: "member".to_owned(),
            total: member.balance,
            name: member.name,
            points: Some(member.points).filter(|_| row.fills("points")),
            version_at: version(member.version_at),
        };
        (member.member_id, kept)
    });
    kept.collect()
}

async fn records(
    store: &Store,
    system: SystemId,
    row: &Row,
    version: impl Fn(DateTime<Utc>) -> Option<DateTime<Utc>>,
) -> Vec<(String, Kept)> {
    let filter = external_records::Filter {
        stream: row.stream,
        system_id: Some(system),
        limit: LIMIT,
        ..Default::default()
    };
    let rows = external_records::list(store, &filter).await.unwrap().into_iter();
    let kept = rows.map(|record| {
        let kept = Kept {
            kind: record.status.unwrap_or_default().to_lowercase(),
            total: record.amount.unwrap_or_default(),
            name: None,
            points: None,
            version_at: version(record.version_at),
        };
        (record.external_id, kept)
    });
    kept.collect()
}
