//! What the database holds of a system: every row of a table, as far as it is compared with a vendor's ledger.

use zhilian_sync_jobs::vendor::Target;
use zhilian_sync_store::{Store, StoreError, SystemId, member_syncs, pos_transactions, supplier_orders};

use super::verdict::StoredRecord;

/// Reads a table of the store page by page, newest first.
macro_rules! every_row {
    ($store:expr, $system:expr, $table:ident, $order:ident, $record:expr) => {{
        let (mut rows, mut before) = (Vec::new(), None);
        loop {
            let filter = $table::Filter {
                system_id: Some($system),
                before,
                limit: $table::PAGE_MAX,
                ..Default::default()
            };
            let page = $table::list($store, &filter).await?;
            let Some(last) = page.last() else { break rows };
            before = Some((last.$order, last.id));
            rows.extend(page.into_iter().map($record));
        }
    }};
}

/// Every record of the system in this table.
pub(super) async fn records(
    store: &Store,
    system: SystemId,
    target: Target,
) -> Result<Vec<StoredRecord>, StoreError> {
    Ok(match target {
        Target::SupplierOrders => {
            every_row!(store, system, supplier_orders, order_date, |row| StoredRecord {
                external_id: row.order_number,
                kind: row.status.as_str(),
                worth: row.total,
            })
        }
        Target::MemberSyncs => every_row!(store, system, member_syncs, created_at, |row| StoredRecord {
            external_id: row.member_id,
            kind: "member",
            worth: row.points,
        }),
        Target::PosTransactions | Target::ExternalRecords => {
            every_row!(store, system, pos_transactions, transaction_time, |row| StoredRecord {
                external_id: row.pos_transaction_id,
                kind: row.transaction_type.as_str(),
                worth: row.total,
            })
        }
    })
}
