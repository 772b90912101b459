//! Writes mapped records, each into its table, in the transaction of whoever has them: a page of a pull, a bite of
//! failures that are tried again. Webhooks write many events' records at once and by other rules.

use zhilian_sync_store::record_batches::{Batch, RefusedRecord};
use zhilian_sync_store::{
    MemberConflict, StoreError, Tx, external_records, member_syncs, pos_transactions, supplier_orders,
};

use crate::vendor::{Mapped, Target};

/// Writes the records that are to be stored; gives back those that the database refuses.
pub(super) async fn store(
    tx: &mut Tx,
    batch: Batch<'_>,
    rule: MemberConflict,
    mapped: Mapped,
) -> Result<Vec<(Target, RefusedRecord)>, StoreError> {
    let Mapped { transactions, records, orders, members, .. } = mapped;
    let (_, transactions) = pos_transactions::upsert_batch_isolating(tx, batch, transactions).await?;
    let (_, records) = external_records::upsert_batch_isolating(tx, batch, records).await?;
    let (_, orders) = supplier_orders::upsert_batch_isolating(tx, batch, orders).await?;
    let (_, members) = member_syncs::upsert_batch_isolating(tx, batch, rule, members).await?;
    let of = |target, refused: Vec<RefusedRecord>| refused.into_iter().map(move |record| (target, record));
    Ok(of(Target::PosTransactions, transactions)
        .chain(of(Target::ExternalRecords, records))
        .chain(of(Target::SupplierOrders, orders))
        .chain(of(Target::MemberSyncs, members))
        .collect())
}
