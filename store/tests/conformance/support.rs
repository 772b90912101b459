//! What the suites share: a system to hang records on, and records to change one thing of.

use chrono::{DateTime, TimeDelta, Utc};
use zhilian_sync_store::external_records::IncomingRecord;
use zhilian_sync_store::pos_transactions::IncomingTransaction;
use zhilian_sync_store::record_batches::{Batch, StoreMap};
use zhilian_sync_store::sync_logs::NewRun;
use zhilian_sync_store::{
    Currency, Lane, Pool, RunId, Store, SystemId, SystemType, TransactionType, Trigger, external_systems,
    sync_logs, testing,
};

/// So many seconds after the fake clock's noon.
pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    testing::noon() + TimeDelta::seconds(seconds)
}

pub(crate) fn no_stores() -> &'static StoreMap {
    static NONE: StoreMap = StoreMap { by_shop: std::collections::BTreeMap::new(), default: None };
    &NONE
}

/// A system of no store.
pub(crate) async fn system(store: &Store) -> SystemId {
    let system = external_systems::blank(store, "Till", SystemType::Pos, "demo-pos");
    let mut tx = store.begin().await.unwrap();
    external_systems::insert(&mut tx, &system).await.unwrap();
    tx.commit().await.unwrap();
    system.id
}

/// A pending run that is due at once.
pub(crate) fn new_run(store: &Store, system: SystemId) -> NewRun {
    NewRun {
        id: RunId(store.clock().new_id()),
        system_id: Some(system),
        kind: "pull",
        sync_type: "orders".into(),
        trigger: Trigger::Schedule,
        lane: Lane::Syncs,
        exclusive_key: Some(format!("pull/{system}/orders")),
        max_attempts: 3,
        run_at: store.clock().now(),
        deadline_at: None,
        scheduled_for: None,
        parameters: None,
        retry_of: None,
        requested_by: None,
        rung_at: None,
    }
}

pub(crate) async fn insert_run(store: &Store, run: &NewRun) -> bool {
    let mut tx = store.begin().await.unwrap();
    let inserted = sync_logs::insert(&mut tx, run, store.clock().now()).await.unwrap();
    tx.commit().await.unwrap();
    inserted
}

/// A run of its own for a record's lineage.
pub(crate) async fn run(store: &Store, system: SystemId) -> RunId {
    let run = NewRun { exclusive_key: None, ..new_run(store, system) };
    assert!(insert_run(store, &run).await);
    run.id
}

/// A batch observed so many seconds after noon.
pub(crate) fn batch(store: &Store, system_id: SystemId, observed: i64) -> Batch<'_> {
    Batch {
        system_id,
        stores: no_stores(),
        sync_log_id: None,
        observed_at: at(observed),
        clock: store.clock(),
        force: false,
    }
}

/// A sale without a version of its own.
pub(crate) fn transaction(id: &str, total: i64) -> IncomingTransaction {
    IncomingTransaction {
        external_id: id.to_owned(),
        order_number: Some(format!("NO-{id}")),
        transaction_type: TransactionType::Sale,
        currency: Currency::CNY,
        subtotal: total,
        tax: 0,
        discount: 0,
        total,
        payment_method: Some("wechat".into()),
        items: Some(r#"[{"name":"牛肉面","quantity":1}]"#.into()),
        customer: None,
        customer_phone: None,
        shop: None,
        occurred_at: at(0),
        version_at: None,
        observed_at: None,
        deleted: false,
        raw: format!(r#"{{"id":"{id}","total":{total}}}"#),
    }
}

/// A payment without a version of its own.
pub(crate) fn record(id: &str, amount: i64) -> IncomingRecord {
    IncomingRecord {
        stream: "payments".into(),
        external_id: id.to_owned(),
        status: Some("completed".into()),
        currency: Some(Currency::CNY),
        amount: Some(amount),
        shop: None,
        occurred_at: Some(at(0)),
        version_at: None,
        observed_at: None,
        deleted: false,
        data: format!(r#"{{"method":"card","amount":{amount}}}"#),
        raw: format!(r#"{{"id":"{id}","amount":{amount}}}"#),
    }
}

/// Makes the database refuse rows of a table whose `column` is `poison`. How, differs: `SQLite` cannot add
/// a check to a table, and both errors must come out as the same refusal.
pub(crate) async fn refuse_poison(store: &Store, table: &str, column: &str) {
    match store.pool() {
        Pool::Postgres(pool) => {
            let check = format!("ALTER TABLE {table} ADD CONSTRAINT poison CHECK ({column} <> 'poison')");
            sqlx::raw_sql(sqlx::AssertSqlSafe(check)).execute(pool).await.unwrap();
        }
        Pool::Sqlite { write, .. } => {
            let trigger = format!(
                "CREATE TRIGGER poison BEFORE INSERT ON {table} WHEN NEW.{column} = 'poison' \
                 BEGIN SELECT RAISE(ABORT, 'poison'); END"
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(write).await.unwrap();
        }
    }
}
