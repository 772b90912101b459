//! Every SQL statement of zhilian-sync, and the vault.
//!
//! This package is the lowest of three: it knows no HTTP, no queue and no vendor. A table is a
//! module with free functions; a transaction is a [`Tx`] that the caller begins and commits, so that
//! a row and the work it causes are written together. One SQL text serves SQLite and PostgreSQL;
//! where they must differ, a two-armed match says so.

// In the order the data flows: where it lives, what it is made of, who is asked for it.
mod pool;
#[macro_use]
mod text_enum;
mod clock;
mod error;
mod ids;
pub mod money;
pub mod passwords;
pub mod vault;

pub mod installation;

pub mod external_systems;
pub mod sync_logs;
pub mod webhook_events;

pub mod external_records;
pub mod member_syncs;
pub mod pos_transactions;
pub mod record_batches;
mod record_columns;
pub mod record_patches;
pub mod records_handed_in;
pub mod supplier_orders;
pub mod sync_cursors;
pub mod sync_failures;

pub mod events;
pub mod rate_budgets;
pub mod vendor_tokens;

pub mod api_tokens;
pub mod audit_logs;
pub mod idempotency_keys;
pub mod sessions;
pub mod users;

#[cfg(feature = "testing")]
pub mod testing;

pub use clock::Clock;
pub use error::StoreError;
pub use ids::{EventId, RunId, SessionId, SystemId, TokenId, UserId};
pub use money::Currency;
pub use pool::{DatabaseKind, Held, Pool, PoolOptions, Store, Tx};
pub use text_enum::{
    Lane, MemberConflict, MemberOrigin, Role, SupplierOrderStatus, SupplierOrderType, SyncStatus,
    SystemStatus, SystemType, TransactionType, Trigger,
};
pub use vault::Vault;

/// Every fixed statement with its name, for the test that asks both databases to describe them.
#[cfg(feature = "testing")]
#[must_use]
pub fn statements() -> Vec<(&'static str, &'static str)> {
    [
        installation::STATEMENTS,
        external_systems::STATEMENTS,
        sync_logs::STATEMENTS,
        webhook_events::STATEMENTS,
        external_records::STATEMENTS,
        pos_transactions::STATEMENTS,
        supplier_orders::STATEMENTS,
        member_syncs::STATEMENTS[0],
        member_syncs::STATEMENTS[1],
        record_patches::STATEMENTS,
        sync_cursors::STATEMENTS,
        sync_failures::STATEMENTS,
        events::STATEMENTS,
        rate_budgets::STATEMENTS,
        vendor_tokens::STATEMENTS,
        api_tokens::STATEMENTS,
        audit_logs::STATEMENTS,
        idempotency_keys::STATEMENTS,
        sessions::STATEMENTS,
        users::STATEMENTS,
    ]
    .concat()
}
