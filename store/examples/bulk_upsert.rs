//! The bulk upsert that pulls write with, and nothing around it: no vendor, no mapping, no HTTP. It is what
//! `bench/api` measures batches of the API against.
//!
//! Each line of the file is a record as the API takes it. All are read and made ready before the clock
//! starts; then each batch is one transaction, as a page of a pull is.

#![expect(clippy::print_stdout, reason = "it is run by hand and by bench/api, which reads what it prints")]

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;
use zhilian_sync_store::member_syncs::{self, IncomingMember};
use zhilian_sync_store::money;
use zhilian_sync_store::pos_transactions::{self, IncomingTransaction};
use zhilian_sync_store::record_batches::{Batch, StoreMap};
use zhilian_sync_store::supplier_orders::{self, IncomingSupplierOrder};
use zhilian_sync_store::{
    Clock, Currency, MemberConflict, Pool, PoolOptions, Store, SupplierOrderStatus, SupplierOrderType,
    SystemId, TransactionType, Vault,
};

/// A batch that is ready to be written.
enum Page {
    Transactions(Vec<IncomingTransaction>),
    Orders(Vec<IncomingSupplierOrder>),
    Members(Vec<IncomingMember>),
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, system, kind, file, batch_rows] = arguments.as_slice() else {
        return Err(
            "expected: bulk_upsert DATABASE_URL SYSTEM_ID transactions|orders|members FILE BATCH_ROWS".into(),
        );
    };
    let pool = Pool::connect(url, PoolOptions::default()).await?;
    let store = Store::new(pool, Clock::system(), Vault::new(vec![(1, [0; 32])], 1)?);
    let text = std::fs::read_to_string(file)?;
    let lines: Vec<&str> = text.lines().collect();
    let pages = lines.chunks(batch_rows.parse()?).map(|lines| page(kind, lines));
    let pages = pages.collect::<Result<Vec<_>, _>>()?;
    let stores = StoreMap::default();
    let began = Instant::now();
    for page in pages {
        let batch = Batch {
            system_id: SystemId(system.parse::<Uuid>()?),
            stores: &stores,
            sync_log_id: None,
            observed_at: store.clock().now(),
            clock: store.clock(),
            force: false,
        };
        let mut tx = store.begin().await?;
        let (_, refused) = match page {
            Page::Transactions(records) => {
                pos_transactions::upsert_batch_isolating(&mut tx, batch, records).await?
            }
            Page::Orders(records) => supplier_orders::upsert_batch_isolating(&mut tx, batch, records).await?,
            Page::Members(records) => {
                member_syncs::upsert_batch_isolating(&mut tx, batch, MemberConflict::Newest, records).await?
            }
        };
        tx.commit().await?;
        if let Some(refused) = refused.first() {
            return Err(format!("record `{}` was refused: {}", refused.external_id, refused.reason).into());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", json!({"records": lines.len(), "seconds": seconds}));
    Ok(())
}

fn page(kind: &str, lines: &[&str]) -> Result<Page, Box<dyn Error>> {
    let records = lines.iter().map(|line| Ok((serde_json::from_str(line)?, (*line).to_owned())));
    let records = records.collect::<Result<Vec<(Record, String)>, serde_json::Error>>()?;
    Ok(match kind {
        "transactions" => {
            let all = records.into_iter().map(|(record, raw)| transaction(&record, raw));
            Page::Transactions(all.collect::<Result<_, _>>()?)
        }
        "orders" => {
            let all = records.into_iter().map(|(record, raw)| order(&record, raw));
            Page::Orders(all.collect::<Result<_, _>>()?)
        }
        "members" => {
            let all = records.into_iter().map(|(record, raw)| member(&record, raw));
            Page::Members(all.collect::<Result<_, _>>()?)
        }
        other => return Err(format!("no kind of record `{other}`").into()),
    })
}

fn transaction(record: &Record, raw: String) -> Result<IncomingTransaction, Box<dyn Error>> {
    Ok(IncomingTransaction {
        external_id: text(record, "transaction_id").ok_or("a transaction without an id")?,
        order_number: text(record, "order_number"),
        transaction_type: TransactionType::Sale,
        currency: Currency::CNY,
        subtotal: minor(record, "subtotal")?,
        tax: minor(record, "tax")?,
        discount: minor(record, "discount")?,
        total: minor(record, "total")?,
        payment_method: text(record, "payment_method"),
        items: record.get("items").map(Value::to_string),
        customer: record.get("customer").map(Value::to_string),
        customer_phone: record.get("customer").and_then(|it| it["phone"].as_str()).map(str::to_owned),
        shop: None,
        occurred_at: time(record, "transaction_time")?.ok_or("a transaction without a time")?,
        version_at: None,
        observed_at: None,
        deleted: false,
        raw,
    })
}

fn order(record: &Record, raw: String) -> Result<IncomingSupplierOrder, Box<dyn Error>> {
    Ok(IncomingSupplierOrder {
        order_number: text(record, "order_number").ok_or("an order without a number")?,
        external_order_id: None,
        supplier_id: text(record, "supplier_id"),
        supplier_name: text(record, "supplier_name"),
        order_type: SupplierOrderType::Purchase,
        status: SupplierOrderStatus::Pending,
        currency: Currency::CNY,
        subtotal: minor(record, "subtotal")?,
        tax: minor(record, "tax")?,
        shipping: minor(record, "shipping")?,
        total: minor(record, "total")?,
        items: record.get("items").map(Value::to_string),
        delivery: record.get("delivery").map(Value::to_string),
        tracking_number: None,
        shop: None,
        order_date: time(record, "order_date")?.ok_or("an order without a date")?,
        expected_delivery: time(record, "expected_delivery")?,
        actual_delivery: None,
        version_at: None,
        observed_at: None,
        deleted: false,
        raw,
    })
}

fn member(record: &Record, raw: String) -> Result<IncomingMember, Box<dyn Error>> {
    Ok(IncomingMember {
        member_id: text(record, "member_id").ok_or("a member without a number")?,
        external_member_id: text(record, "external_id"),
        phone: text(record, "phone"),
        name: text(record, "name"),
        email: text(record, "email"),
        level: text(record, "level"),
        points: record.get("points").and_then(Value::as_i64),
        balance: Some(minor(record, "balance")?),
        currency: Currency::CNY,
        last_activity: None,
        shop: None,
        version_at: None,
        observed_at: None,
        deleted: false,
        raw,
    })
}

/// A record as it was read.
type Record = BTreeMap<String, Value>;

fn text(record: &Record, field: &str) -> Option<String> {
    record.get(field).and_then(Value::as_str).map(str::to_owned)
}

fn minor(record: &Record, field: &str) -> Result<i64, Box<dyn Error>> {
    let number = record.get(field).ok_or_else(|| format!("no `{field}`"))?;
    Ok(money::parse_minor(&number.to_string(), Currency::CNY.digits())?)
}

fn time(record: &Record, field: &str) -> Result<Option<DateTime<Utc>>, Box<dyn Error>> {
    let found = record.get(field).and_then(Value::as_str).map(DateTime::parse_from_rfc3339);
    Ok(found.transpose()?.map(|at| at.with_timezone(&Utc)))
}
