//! Orders from suppliers and returns to them: handed in by clients of the seed, and listed whatever their origin.

use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use serde_json::Value;
use uuid::Uuid;
use zhilian_sync_store::record_batches::Batch;
use zhilian_sync_store::records_handed_in::{HandedIn, Undated};
use zhilian_sync_store::supplier_orders::{self, Filter, IncomingSupplierOrder, SupplierOrder};
use zhilian_sync_store::{
    StoreError, SupplierOrderStatus, SupplierOrderType, SyncStatus, SystemId, SystemType, Tx,
};

use super::Tag;
use super::access::in_scope;
use super::answer::{Answer, Found};
use super::batch::{BatchAnswer, BatchBody};
use super::body::{Body, request_body};
use super::caller::Caller;
use super::handing_in::{self, Amounts, HandIn, Handed, list_text};
use super::page::{Limit, Page, Wanted};
use super::problem::Problem;
use super::values::{Choice, Fields, Json, LocalTime, Money, Text, Time};
use crate::app::App;

/// The operations of this file.
pub struct Supplier(pub App);

request_body! {
    /// An order from a supplier, or a return to one.
    accepts_unknown pub struct NewSupplierOrder {
        /// The number of the order; a second order of this number is the same one.
        order_number: Text<128>,
        /// The supplier's own id of it.
        external_order_id: Option<Text<128>>,
        /// The supplier.
        supplier_id: Option<Text<200>>,
        /// What the supplier is called.
        supplier_name: Option<Text<200>>,
        /// What it is, by default a purchase.
        order_type as "type": Option<Choice<SupplierOrderType>>,
        /// How far it is, by default pending.
        status: Option<Choice<SupplierOrderStatus>>,
        /// The currency of the amounts, by default the system's.
        currency: Option<Text<3>>,
        /// Before tax and shipping.
        subtotal: Option<Money>,
        /// Tax.
        tax: Option<Money>,
        /// Shipping.
        shipping: Option<Money>,
        /// What is to be paid.
        total: Option<Money>,
        /// The lines of the order.
        items: Option<Vec<Fields>>,
        /// Where and how it is delivered.
        delivery: Option<Fields>,
        /// Where it can be followed.
        tracking_number: Option<Text<200>>,
        /// When it was ordered, by default now; without a zone in the system's.
        order_date: Option<LocalTime>,
        /// When it is to arrive.
        expected_delivery: Option<LocalTime>,
        /// When it arrived.
        actual_delivery: Option<LocalTime>,
    }
}

/// An order from a supplier, or a return to one.
#[derive(Debug, Object)]
#[oai(rename = "SupplierOrder")]
pub struct SupplierOrderAnswer {
    /// Our id.
    pub id: String,
    /// The system that reported it.
    pub system_id: String,
    /// The store.
    pub store_id: Option<String>,
    /// The number of the order.
    pub order_number: String,
    /// The supplier's own id of it.
    pub external_order_id: Option<String>,
    /// The supplier.
    pub supplier_id: Option<String>,
    /// What the supplier is called.
    pub supplier_name: Option<String>,
    /// What it is.
    pub order_type: Choice<SupplierOrderType>,
    /// How far it is.
    pub status: Choice<SupplierOrderStatus>,
    /// The currency of the amounts.
    pub currency: String,
    /// Before tax and shipping.
    pub subtotal: Money,
    /// Tax.
    pub tax: Money,
    /// Shipping.
    pub shipping: Money,
    /// What is to be paid.
    pub total: Money,
    /// The lines of the order.
    pub items: Option<Json>,
    /// Where and how it is delivered.
    pub delivery_info: Option<Json>,
    /// Where it can be followed.
    pub tracking_number: Option<String>,
    /// When it was ordered.
    pub order_date: Time,
    /// When it is to arrive.
    pub expected_delivery: Option<Time>,
    /// When it arrived.
    pub actual_delivery: Option<Time>,
    /// Whether it is in step with its vendor.
    pub sync_status: Choice<SyncStatus>,
    /// When we heard of it first.
    pub created_at: Time,
    /// The run that wrote it; null for one that was handed in.
    pub sync_log_id: Option<String>,
    /// Fields of the request that mean nothing here; they are kept with the raw record.
    #[oai(skip_serializing_if_is_none)]
    pub ignored_fields: Option<Vec<String>>,
}

impl SupplierOrderAnswer {
    fn new(row: SupplierOrder) -> Self {
        let amount = |minor| Money::of(minor, row.currency);
        Self {
            subtotal: amount(row.subtotal),
            tax: amount(row.tax),
            shipping: amount(row.shipping),
            total: amount(row.total),
            id: row.id.to_string(),
            system_id: row.system_id.to_string(),
            store_id: row.store_id,
            order_number: row.order_number,
            external_order_id: row.external_order_id,
            supplier_id: row.supplier_id,
            supplier_name: row.supplier_name,
            order_type: Choice(row.order_type),
            status: Choice(row.status),
            currency: row.currency.to_string(),
            items: row.items.as_deref().map(Json::from_column),
            delivery_info: row.delivery_info.as_deref().map(Json::from_column),
            tracking_number: row.tracking_number,
            order_date: row.order_date.into(),
            expected_delivery: row.expected_delivery.map(Time),
            actual_delivery: row.actual_delivery.map(Time),
            sync_status: Choice(row.sync_status),
            created_at: row.created_at.into(),
            sync_log_id: row.sync_log_id.map(|id| id.to_string()),
            ignored_fields: None,
        }
    }
}

#[OpenApi]
impl Supplier {
    /// Hand in an order
    ///
    /// Repeating it changes nothing and answers the order that is there; other content under the same number
    /// takes its place.
    #[oai(
        path = "/integrations/supplier/:system_id/orders",
        method = "post",
        operation_id = "create_supplier_order",
        tag = "Tag::Supplier"
    )]
    async fn create_supplier_order(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
        body: Body<NewSupplierOrder>,
    ) -> Result<Found<SupplierOrderAnswer>, Problem> {
        let context = self.0.context();
        let ignored = body.ignored_fields.clone();
        let id = handing_in::one(context, &caller, system_id.0, body).await?;
        let mut answer = SupplierOrderAnswer::new(supplier_orders::get(&context.store, id).await?);
        answer.ignored_fields = (!ignored.is_empty()).then_some(ignored);
        Ok(Answer(answer))
    }

    /// Hand in many orders
    ///
    /// Each is answered on its own: the good ones are stored, the others explained.
    #[oai(
        path = "/integrations/supplier/:system_id/orders/batch",
        method = "post",
        operation_id = "create_supplier_orders",
        tag = "Tag::Supplier"
    )]
    async fn create_supplier_orders(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
        body: BatchBody<NewSupplierOrder>,
    ) -> Result<Found<BatchAnswer>, Problem> {
        handing_in::many(self.0.context(), &caller, system_id.0, body).await.map(Answer)
    }

    /// List orders
    #[oai(
        path = "/integrations/supplier/orders",
        method = "get",
        operation_id = "list_supplier_orders",
        tag = "Tag::Supplier"
    )]
    #[expect(clippy::too_many_arguments, reason = "a parameter of the request is one of the function")]
    async fn list_supplier_orders(
        &self,
        caller: Caller,
        store_id: Query<Option<Text<64>>>,
        system_id: Query<Option<Uuid>>,
        status: Query<Option<Choice<SupplierOrderStatus>>>,
        #[oai(name = "type")] order_type: Query<Option<Choice<SupplierOrderType>>>,
        sync_status: Query<Option<Choice<SyncStatus>>>,
        from: Query<Option<Time>>,
        to: Query<Option<Time>>,
        order_number: Query<Option<Text<128>>>,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<SupplierOrderAnswer>, Problem> {
        let wanted = Wanted::new(limit.0, cursor.0.as_deref())?;
        let filter = Filter {
            scope: caller.scope(),
            store_id: store_id.0.as_ref().map(|text| text.0.as_str()),
            system_id: system_id.0.map(SystemId),
            status: status.0.map(|choice| choice.0),
            order_type: order_type.0.map(|choice| choice.0),
            sync_status: sync_status.0.map(|choice| choice.0),
            from: from.0.map(|time| time.0),
            to: to.0.map(|time| time.0),
            order_number: order_number.0.as_ref().map(|text| text.0.as_str()),
            before: wanted.after,
            limit: u32::try_from(wanted.rows()).unwrap_or(u32::MAX),
        };
        let rows = supplier_orders::list(self.0.store(), &filter).await?;
        let position = |row: &SupplierOrder| (row.order_date, row.id);
        Ok(Page::new(rows, wanted, &caller.origin.uri, position, SupplierOrderAnswer::new))
    }

    /// Show an order
    #[oai(
        path = "/integrations/supplier/orders/:record_id",
        method = "get",
        operation_id = "show_supplier_order",
        tag = "Tag::Supplier"
    )]
    async fn show_supplier_order(
        &self,
        caller: Caller,
        record_id: Path<Uuid>,
    ) -> Result<Found<SupplierOrderAnswer>, Problem> {
        let row = supplier_orders::get(self.0.store(), record_id.0).await?;
        let is_there = in_scope(caller.scope(), row.store_id.as_deref()) && row.deleted_at.is_none();
        let gone = || Problem::not_found(format_args!("supplier order `{}`", record_id.0));
        if is_there { Ok(Answer(SupplierOrderAnswer::new(row))) } else { Err(gone()) }
    }
}

impl HandIn for NewSupplierOrder {
    type Incoming = Undated<IncomingSupplierOrder>;

    const SYSTEM_TYPE: SystemType = SystemType::Supplier;
    const ID_FIELD: &'static str = "order_number";
    const ENTITY: &'static str = "supplier_order";
    const ACTIONS: [&'static str; 3] =
        ["supplier_order.create", "supplier_order.update", "supplier_order.batch"];

    fn external_id(&self) -> &str {
        &self.order_number.0
    }

    fn incoming(self, of: &Handed<'_>, raw: String) -> Result<Self::Incoming, Problem> {
        let currency = of.currency(self.currency)?;
        let mut amounts = Amounts::of(currency);
        let (subtotal, tax) = (amounts.minor("subtotal", self.subtotal), amounts.minor("tax", self.tax));
        let (shipping, total) =
            (amounts.minor("shipping", self.shipping), amounts.minor("total", self.total));
        amounts.finish()?;
        let text = |text: Option<Text<200>>| text.map(|text| text.0);
        let record = IncomingSupplierOrder {
            order_number: self.order_number.0,
            external_order_id: self.external_order_id.map(|text| text.0),
            supplier_id: text(self.supplier_id),
            supplier_name: text(self.supplier_name),
            order_type: self.order_type.map_or(SupplierOrderType::Purchase, |choice| choice.0),
            status: self.status.map_or(SupplierOrderStatus::Pending, |choice| choice.0),
            currency,
            subtotal,
            tax,
            shipping,
            total,
            items: list_text(self.items),
            delivery: self.delivery.map(|delivery| Value::Object(delivery.0).to_string()),
            tracking_number: text(self.tracking_number),
            shop: None,
            order_date: of.time(self.order_date).unwrap_or(of.now),
            expected_delivery: of.time(self.expected_delivery),
            actual_delivery: of.time(self.actual_delivery),
            version_at: None,
            observed_at: None,
            deleted: false,
            raw,
        };
        Ok(Undated { record, undated: self.order_date.is_none() })
    }

    async fn write(
        tx: &mut Tx,
        batch: Batch<'_>,
        records: Vec<Self::Incoming>,
    ) -> Result<Vec<HandedIn>, StoreError> {
        supplier_orders::hand_in(tx, batch, records).await
    }
}
