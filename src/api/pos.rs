//! Transactions of tills: handed in by clients of the seed, and listed whatever their origin.
//!
//! Handing in the same transaction again changes nothing and answers what is there, so a till may repeat
//! what it is not sure of.

use chrono_tz::Tz;
use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use serde_json::Value;
use uuid::Uuid;
use zhilian_sync_store::external_systems::ExternalSystem;
use zhilian_sync_store::pos_transactions::{self, Filter, IncomingTransaction, PosTransaction};
use zhilian_sync_store::record_batches::{Batch, StoreMap};
use zhilian_sync_store::{Currency, SyncStatus, SystemId, SystemType, TransactionType, audit_logs};

use super::answer::{Answer, Found};
use super::body::{Body, request_body};
use super::caller::Caller;
use super::page::{Limit, Page, Wanted};
use super::problem::{FieldError, Problem};
use super::values::{Choice, Fields, Json, LocalTime, Money, Text, Time};
use super::{Tag, systems};
use crate::app::App;

/// The operations of this file.
pub struct Pos(pub App);

request_body! {
    /// A transaction of a till.
    accepts_unknown pub struct NewTransaction {
        /// The till's own id; a second transaction of this id is the same one.
        transaction_id: Text<128>,
        /// The number printed on the bill.
        order_number: Option<Text<200>>,
        /// What it is, by default a sale.
        transaction_type as "type": Option<Choice<TransactionType>>,
        /// The currency of the amounts, by default the system's.
        currency: Option<Text<3>>,
        /// Before tax and discount.
        subtotal: Option<Money>,
        /// Tax.
        tax: Option<Money>,
        /// Discount.
        discount: Option<Money>,
        /// What was paid.
        total: Option<Money>,
        /// How it was paid.
        payment_method: Option<Text<100>>,
        /// The lines of the bill.
        items: Option<Vec<Fields>>,
        /// The customer; `phone` is kept so that members are found by it.
        customer: Option<Fields>,
        /// When it took place, by default now; without a zone in the system's.
        transaction_time: Option<LocalTime>,
    }
}

/// A transaction of a till.
#[derive(Debug, Object)]
#[oai(rename = "PosTransaction")]
pub struct TransactionAnswer {
    /// Our id.
    pub id: String,
    /// The system that reported it.
    pub system_id: String,
    /// The store.
    pub store_id: Option<String>,
    /// The till's own id.
    pub pos_transaction_id: String,
    /// The number printed on the bill.
    pub pos_order_number: Option<String>,
    /// What it is.
    pub transaction_type: Choice<TransactionType>,
    /// The currency of the amounts.
    pub currency: String,
    /// Before tax and discount.
    pub subtotal: Money,
    /// Tax.
    pub tax: Money,
    /// Discount.
    pub discount: Money,
    /// What was paid.
    pub total: Money,
    /// How it was paid.
    pub payment_method: Option<String>,
    /// The lines of the bill.
    pub items: Option<Json>,
    /// The customer.
    pub customer_info: Option<Json>,
    /// Whether it is in step with its vendor.
    pub sync_status: Choice<SyncStatus>,
    /// When it took place.
    pub transaction_time: Time,
    /// When we heard of it first.
    pub created_at: Time,
    /// The run that wrote it; null for one that was handed in.
    pub sync_log_id: Option<String>,
    /// Fields of the request that mean nothing here; they are kept with the raw record.
    #[oai(skip_serializing_if_is_none)]
    pub ignored_fields: Option<Vec<String>>,
}

impl TransactionAnswer {
    fn new(row: PosTransaction) -> Self {
        let amount = |minor| Money::of(minor, row.currency);
        Self {
            subtotal: amount(row.subtotal),
            tax: amount(row.tax),
            discount: amount(row.discount),
            total: amount(row.total),
            id: row.id.to_string(),
            system_id: row.system_id.to_string(),
            store_id: row.store_id,
            pos_transaction_id: row.pos_transaction_id,
            pos_order_number: row.pos_order_number,
            transaction_type: Choice(row.transaction_type),
            currency: row.currency.to_string(),
            payment_method: row.payment_method,
            items: row.items.as_deref().map(Json::from_column),
            customer_info: row.customer_info.as_deref().map(Json::from_column),
            sync_status: Choice(row.sync_status),
            transaction_time: row.transaction_time.into(),
            created_at: row.created_at.into(),
            sync_log_id: row.sync_log_id.map(|id| id.to_string()),
            ignored_fields: None,
        }
    }
}

#[OpenApi]
impl Pos {
    /// Hand in a transaction
    ///
    /// Repeating it changes nothing and answers the transaction that is there.
    #[oai(
        path = "/integrations/pos/:system_id/transactions",
        method = "post",
        operation_id = "create_transaction",
        tag = "Tag::Pos"
    )]
    async fn create_transaction(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
        body: Body<NewTransaction>,
    ) -> Result<Found<TransactionAnswer>, Problem> {
        let context = self.0.context();
        let system = systems::visible(context, &caller, system_id.0).await?;
        if system.system_type != SystemType::Pos {
            let detail =
                format!("system `{}` is of type `{}`; expected `pos`", system.name, system.system_type);
            return Err(Problem::bad_request("wrong_system_type", detail));
        }
        let store = &context.store;
        let now = store.clock().now();
        let incoming = incoming(&system, body.value, body.raw, now)?;
        let stores = StoreMap { by_shop: system.store_map.0.clone(), default: system.store_id.clone() };
        let batch = Batch {
            system_id: system.id,
            stores: &stores,
            sync_log_id: None,
            observed_at: now,
            clock: store.clock(),
            force: false,
        };
        let mut tx = store.begin().await?;
        let (row, is_new) = pos_transactions::insert_one(&mut tx, batch, incoming).await?;
        if is_new {
            let id = row.id.to_string();
            let mut entry = caller.audit("transaction.create", "pos_transaction", &id);
            entry.store_id = row.store_id.as_deref();
            audit_logs::insert(&mut tx, store.clock(), entry).await?;
        }
        tx.commit().await?;
        let mut answer = TransactionAnswer::new(row);
        answer.ignored_fields = (!body.ignored_fields.is_empty()).then_some(body.ignored_fields);
        Ok(Answer(answer))
    }

    /// List transactions
    #[oai(
        path = "/integrations/pos/transactions",
        method = "get",
        operation_id = "list_transactions",
        tag = "Tag::Pos"
    )]
    async fn list_transactions(
        &self,
        caller: Caller,
        store_id: Query<Option<Text<64>>>,
        system_id: Query<Option<Uuid>>,
        sync_status: Query<Option<Choice<SyncStatus>>>,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<TransactionAnswer>, Problem> {
        let wanted = Wanted::new(limit.0, cursor.0.as_deref())?;
        let filter = Filter {
            scope: caller.scope(),
            store_id: store_id.0.as_ref().map(|text| text.0.as_str()),
            system_id: system_id.0.map(SystemId),
            sync_status: sync_status.0.map(|choice| choice.0),
            before: wanted.after,
            limit: u32::try_from(wanted.rows()).unwrap_or(u32::MAX),
        };
        let rows = pos_transactions::list(self.0.store(), &filter).await?;
        let position = |row: &PosTransaction| (row.transaction_time, row.id);
        Ok(Page::new(rows, wanted, &caller.origin.uri, position, TransactionAnswer::new))
    }
}

/// The body as a record of this system.
fn incoming(
    system: &ExternalSystem,
    new: NewTransaction,
    raw: String,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<IncomingTransaction, Problem> {
    let mut errors = Vec::new();
    let currency = match new.currency.map(|text| text.0.parse::<Currency>()) {
        None => system.currency,
        Some(Ok(currency)) => currency,
        Some(Err(error)) => return Err(Problem::invalid_field("currency", error.to_string())),
    };
    let mut amount =
        |field: &str, money: Option<Money>| match money.map_or(Ok(0), |money| money.minor(currency)) {
            Ok(minor) => minor,
            Err(error) => {
                errors.push(FieldError { field: field.to_owned(), detail: error.to_string() });
                0
            }
        };
    let (subtotal, tax) = (amount("subtotal", new.subtotal), amount("tax", new.tax));
    let (discount, total) = (amount("discount", new.discount), amount("total", new.total));
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let zone: Tz = system.timezone.parse().unwrap_or(Tz::UTC);
    let phone = new.customer.as_ref().and_then(|customer| match customer.0.get("phone") {
        Some(Value::String(phone)) if !phone.is_empty() => Some(phone.clone()),
        _ => None,
    });
    let items =
        new.items.map(|items| Value::Array(items.into_iter().map(|item| Value::Object(item.0)).collect()));
    Ok(IncomingTransaction {
        external_id: new.transaction_id.0,
        order_number: new.order_number.map(|text| text.0),
        transaction_type: new.transaction_type.map_or(TransactionType::Sale, |choice| choice.0),
        currency,
        subtotal,
        tax,
        discount,
        total,
        payment_method: new.payment_method.map(|text| text.0),
        items: items.map(|items| items.to_string()),
        customer: new.customer.map(|customer| Value::Object(customer.0).to_string()),
        customer_phone: phone,
        shop: None,
        occurred_at: new.transaction_time.map_or(now, |time| time.in_zone(zone)),
        version_at: None,
        observed_at: None,
        deleted: false,
        raw,
    })
}
