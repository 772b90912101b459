//! What the suites share: a system to hang records on, and records to change one thing of.

use chrono::{DateTime, TimeDelta, Utc};
use zhilian_sync_store::external_records::IncomingRecord;
use zhilian_sync_store::member_syncs::{self, IncomingMember, MemberSync, OurMember};
use zhilian_sync_store::pos_transactions::IncomingTransaction;
use zhilian_sync_store::record_batches::{Batch, StoreMap};
use zhilian_sync_store::records_handed_in::{Change, HandedIn};
use zhilian_sync_store::supplier_orders::IncomingSupplierOrder;
use zhilian_sync_store::sync_logs::NewRun;
pub(crate) use zhilian_sync_store::testing::refuse_poison;
use zhilian_sync_store::{
    Currency, Lane, RunId, Store, SupplierOrderStatus, SupplierOrderType, SystemId, SystemType,
    TransactionType, Trigger, external_systems, sync_logs, testing,
};

/// So many seconds after the fake clock's noon.
pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    testing::noon() + TimeDelta::seconds(seconds)
}

pub(crate) fn no_stores() -> &'static StoreMap {
    static NONE: StoreMap = StoreMap { by_shop: std::collections::BTreeMap::new(), default: None };
    &NONE
}

/// Hands in a member alone; gives the row that is there then, and what that changed.
pub(crate) async fn handed_in(store: &Store, of: Batch<'_>, told: OurMember) -> (MemberSync, Change) {
    let mut tx = store.begin().await.unwrap();
    let answers = member_syncs::hand_in(&mut tx, of, vec![told]).await.unwrap();
    tx.commit().await.unwrap();
    let [HandedIn::Stored { id, change }] = answers.as_slice() else { panic!("not stored: {answers:?}") };
    (member_syncs::get(store, *id).await.unwrap(), *change)
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

/// A member without a version of its own.
pub(crate) fn member(id: &str, points: i64) -> IncomingMember {
    IncomingMember {
        member_id: id.to_owned(),
        external_member_id: None,
        phone: Some("13800000001".into()),
        name: Some("王芳".into()),
        email: None,
        level: Some("gold".into()),
        points: Some(points),
        balance: Some(5_000),
        currency: Currency::CNY,
        last_activity: None,
        shop: None,
        version_at: None,
        observed_at: None,
        deleted: false,
        raw: format!(r#"{{"id":"{id}","points":{points}}}"#),
    }
}

/// A purchase without a version of its own.
pub(crate) fn supplier_order(number: &str, total: i64) -> IncomingSupplierOrder {
    IncomingSupplierOrder {
        order_number: number.to_owned(),
        external_order_id: Some(format!("EXT-{number}")),
        supplier_id: Some("S-7".into()),
        supplier_name: Some("绿源蔬菜".into()),
        order_type: SupplierOrderType::Purchase,
        status: SupplierOrderStatus::Pending,
        currency: Currency::CNY,
        subtotal: total,
        tax: 0,
        shipping: 0,
        total,
        items: Some(r#"[{"name":"白菜","quantity":20}]"#.into()),
        delivery: None,
        tracking_number: None,
        shop: None,
        order_date: at(0),
        expected_delivery: Some(at(86_400)),
        actual_delivery: None,
        version_at: None,
        observed_at: None,
        deleted: false,
        raw: format!(r#"{{"number":"{number}","total":{total}}}"#),
    }
}
