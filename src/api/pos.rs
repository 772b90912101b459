//! Transactions of tills: handed in by clients of the seed, and listed whatever their origin.
//!
//! Handing in the same transaction again changes nothing and answers what is there, so a till may repeat
//! what it is not sure of; with other content it is the newer word on it.

use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use serde_json::Value;
use uuid::Uuid;
use zhilian_sync_store::pos_transactions::{self, Filter, IncomingTransaction, PosTransaction};
use zhilian_sync_store::record_batches::Batch;
use zhilian_sync_store::records_handed_in::{HandedIn, Undated};
use zhilian_sync_store::{StoreError, SyncStatus, SystemId, SystemType, TransactionType, Tx};

use super::Tag;
use super::access::in_scope;
use super::answer::{Answer, Found};
use super::batch::{BatchAnswer, BatchBody};
use super::body::{Body, request_body};
use super::caller::Caller;
use super::handing_in::{self, Amounts, HandIn, Handed, list_text, phone_of};
use super::page::{Limit, Page, Wanted};
use super::problem::Problem;
use super::values::{Choice, Fields, Json, LocalTime, Money, Text, Time};
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
    /// Repeating it changes nothing and answers the transaction that is there; other content under the same id
    /// takes its place.
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
        let ignored = body.ignored_fields.clone();
        let id = handing_in::one(context, &caller, system_id.0, body).await?;
        let mut answer = TransactionAnswer::new(pos_transactions::get(&context.store, id).await?);
        answer.ignored_fields = (!ignored.is_empty()).then_some(ignored);
        Ok(Answer(answer))
    }

    /// Hand in many transactions
    ///
    /// Each is answered on its own: the good ones are stored, the others explained.
    #[oai(
        path = "/integrations/pos/:system_id/transactions/batch",
        method = "post",
        operation_id = "create_transactions",
        tag = "Tag::Pos"
    )]
    async fn create_transactions(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
        body: BatchBody<NewTransaction>,
    ) -> Result<Found<BatchAnswer>, Problem> {
        handing_in::many(self.0.context(), &caller, system_id.0, body).await.map(Answer)
    }

    /// Show a transaction
    #[oai(
        path = "/integrations/pos/transactions/:record_id",
        method = "get",
        operation_id = "show_transaction",
        tag = "Tag::Pos"
    )]
    async fn show_transaction(
        &self,
        caller: Caller,
        record_id: Path<Uuid>,
    ) -> Result<Found<TransactionAnswer>, Problem> {
        let row = pos_transactions::get(self.0.store(), record_id.0).await?;
        let is_there = in_scope(caller.scope(), row.store_id.as_deref()) && row.deleted_at.is_none();
        let gone = || Problem::not_found(format_args!("POS transaction `{}`", record_id.0));
        if is_there { Ok(Answer(TransactionAnswer::new(row))) } else { Err(gone()) }
    }

    /// List transactions
    #[oai(
        path = "/integrations/pos/transactions",
        method = "get",
        operation_id = "list_transactions",
        tag = "Tag::Pos"
    )]
    #[expect(clippy::too_many_arguments, reason = "a parameter of the request is one of the function")]
    async fn list_transactions(
        &self,
        caller: Caller,
        store_id: Query<Option<Text<64>>>,
        system_id: Query<Option<Uuid>>,
        sync_status: Query<Option<Choice<SyncStatus>>>,
        #[oai(name = "type")] transaction_type: Query<Option<Choice<TransactionType>>>,
        from: Query<Option<Time>>,
        to: Query<Option<Time>>,
        order_number: Query<Option<Text<200>>>,
        phone: Query<Option<Text<64>>>,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<TransactionAnswer>, Problem> {
        let wanted = Wanted::new(limit.0, cursor.0.as_deref())?;
        let filter = Filter {
            scope: caller.scope(),
            store_id: store_id.0.as_ref().map(|text| text.0.as_str()),
            system_id: system_id.0.map(SystemId),
            sync_status: sync_status.0.map(|choice| choice.0),
            transaction_type: transaction_type.0.map(|choice| choice.0),
            from: from.0.map(|time| time.0),
            to: to.0.map(|time| time.0),
            order_number: order_number.0.as_ref().map(|text| text.0.as_str()),
            phone: phone.0.as_ref().map(|text| text.0.as_str()),
            before: wanted.after,
            limit: u32::try_from(wanted.rows()).unwrap_or(u32::MAX),
        };
        let rows = pos_transactions::list(self.0.store(), &filter).await?;
        let position = |row: &PosTransaction| (row.transaction_time, row.id);
        Ok(Page::new(rows, wanted, &caller.origin.uri, position, TransactionAnswer::new))
    }
}

impl HandIn for NewTransaction {
    type Incoming = Undated<IncomingTransaction>;

    const SYSTEM_TYPE: SystemType = SystemType::Pos;
    const ID_FIELD: &'static str = "transaction_id";
    const ENTITY: &'static str = "pos_transaction";
    const ACTIONS: [&'static str; 3] = ["transaction.create", "transaction.update", "transaction.batch"];

    fn external_id(&self) -> &str {
        &self.transaction_id.0
    }

    fn incoming(self, of: &Handed<'_>, raw: String) -> Result<Self::Incoming, Problem> {
        let currency = of.currency(self.currency)?;
        let mut amounts = Amounts::of(currency);
        let (subtotal, tax) = (amounts.minor("subtotal", self.subtotal), amounts.minor("tax", self.tax));
        let (discount, total) =
            (amounts.minor("discount", self.discount), amounts.minor("total", self.total));
        amounts.finish()?;
        let record = IncomingTransaction {
            external_id: self.transaction_id.0,
            order_number: self.order_number.map(|text| text.0),
            transaction_type: self.transaction_type.map_or(TransactionType::Sale, |choice| choice.0),
            currency,
            subtotal,
            tax,
            discount,
            total,
            payment_method: self.payment_method.map(|text| text.0),
            items: list_text(self.items),
            customer_phone: phone_of(self.customer.as_ref().map(|customer| &customer.0)),
            customer: self.customer.map(|customer| Value::Object(customer.0).to_string()),
            shop: None,
            occurred_at: of.time(self.transaction_time).unwrap_or(of.now),
            version_at: None,
            observed_at: None,
            deleted: false,
            raw,
        };
        Ok(Undated { record, undated: self.transaction_time.is_none() })
    }

    async fn write(
        tx: &mut Tx,
        batch: Batch<'_>,
        records: Vec<Self::Incoming>,
    ) -> Result<Vec<HandedIn>, StoreError> {
        pos_transactions::hand_in(tx, batch, records).await
    }
}
