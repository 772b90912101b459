//! Reservations of tables: handed in by clients of the seed, and listed whatever their origin.
//!
//! They are kept among the records of other streams, under the names that reservations sent by webhook have, so
//! both are one list.

use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use serde_json::{Map, Value};
use uuid::Uuid;
use zhilian_sync_store::external_records::{self, ExternalRecord, Filter, IncomingRecord};
use zhilian_sync_store::record_batches::Batch;
use zhilian_sync_store::records_handed_in::HandedIn;
use zhilian_sync_store::{StoreError, SyncStatus, SystemId, SystemType, Tx};

use super::Tag;
use super::access::in_scope;
use super::answer::{Answer, Found};
use super::batch::{BatchAnswer, BatchBody};
use super::body::{Body, request_body};
use super::caller::Caller;
use super::handing_in::{self, Amounts, HandIn, Handed};
use super::page::{Limit, Page, Wanted};
use super::problem::Problem;
use super::values::{Choice, Flag, Json, LocalTime, Money, Named, Text, Time, Whole};
use crate::app::App;

/// The stream that reservations are kept in.
pub const STREAM: &str = "reservations";

/// The operations of this file.
pub struct Reservations(pub App);

/// How far a reservation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservationStatus {
    /// Asked for.
    Pending,
    /// Agreed.
    Confirmed,
    /// The guests are here.
    Arrived,
    /// The guests sit.
    Seated,
    /// Over.
    Completed,
    /// Called off.
    Cancelled,
    /// Nobody came.
    NoShow,
}

impl Named for ReservationStatus {
    const NAME: &'static str = "reservation_status";

    fn all() -> &'static [Self] {
        &[
            Self::Pending,
            Self::Confirmed,
            Self::Arrived,
            Self::Seated,
            Self::Completed,
            Self::Cancelled,
            Self::NoShow,
        ]
    }

    fn text(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Arrived => "arrived",
            Self::Seated => "seated",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::NoShow => "no_show",
        }
    }
}

request_body! {
    /// A reservation.
    accepts_unknown pub struct NewReservation {
        /// The system's own id; a second reservation of this id is the same one.
        reservation_id: Text<128>,
        /// Another system's id of it.
        external_id: Option<Text<128>>,
        /// The number that the guest was told.
        reservation_number: Option<Text<128>>,
        /// The guest.
        customer_name: Text<200>,
        /// The guest's telephone number.
        customer_phone: Text<64>,
        /// How many come.
        customer_count: Whole<1, 100_000>,
        /// The day; a time with it is read in the system's zone.
        reservation_date: LocalTime,
        /// From when to when, as `18:00-20:00`.
        reservation_time: Text<64>,
        /// When the guests are expected or came.
        arrival_time: Option<LocalTime>,
        /// What kind of table.
        table_type: Option<Text<100>>,
        /// Which table.
        table_number: Option<Text<100>>,
        /// Where in the house.
        area: Option<Text<100>>,
        /// How far it is, by default pending.
        status: Option<Choice<ReservationStatus>>,
        /// What the guest asks for.
        special_requirements: Option<Text<2_000>>,
        /// What the house notes.
        notes: Option<Text<2_000>>,
        /// Whether a deposit is asked for.
        deposit_required: Option<Flag>,
        /// How much.
        deposit_amount: Option<Money>,
        /// Whether it was paid.
        deposit_paid: Option<Flag>,
        /// The currency of the deposit, by default the system's.
        currency: Option<Text<3>>,
        /// Where it comes from.
        source: Option<Text<100>>,
        /// By which way it came.
        channel: Option<Text<100>>,
    }
}

/// A reservation.
#[derive(Debug, Object)]
#[oai(rename = "Reservation")]
pub struct ReservationAnswer {
    /// Our id.
    pub id: String,
    /// The system that reported it.
    pub system_id: String,
    /// The store.
    pub store_id: Option<String>,
    /// The system's own id.
    pub reservation_id: String,
    /// Another system's id of it.
    pub external_id: Option<Json>,
    /// The number that the guest was told.
    pub reservation_number: Option<String>,
    /// The guest.
    pub customer_name: Option<Json>,
    /// The guest's telephone number.
    pub customer_phone: Option<String>,
    /// How many come.
    pub customer_count: Option<Json>,
    /// When it is for.
    pub reservation_date: Option<Time>,
    /// From when to when.
    pub reservation_time: Option<Json>,
    /// When the guests are expected or came.
    pub arrival_time: Option<Json>,
    /// What kind of table.
    pub table_type: Option<Json>,
    /// Which table.
    pub table_number: Option<Json>,
    /// Where in the house.
    pub area: Option<Json>,
    /// How far it is, in the word of whoever reported it; one of ours for one that was handed in.
    pub status: Option<String>,
    /// What the guest asks for.
    pub special_requirements: Option<Json>,
    /// What the house notes.
    pub notes: Option<Json>,
    /// Whether a deposit is asked for.
    pub deposit_required: Option<Json>,
    /// How much.
    pub deposit_amount: Option<Money>,
    /// Whether it was paid.
    pub deposit_paid: Option<Json>,
    /// Where it comes from.
    pub source: Option<Json>,
    /// By which way it came.
    pub channel: Option<Json>,
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

impl ReservationAnswer {
    fn new(row: ExternalRecord) -> Self {
        let data: Value = serde_json::from_str(&row.data).unwrap_or_default();
        let field = |name: &str| data.get(name).filter(|value| !value.is_null()).cloned().map(Json);
        let currency = row.currency.unwrap_or(zhilian_sync_store::Currency::CNY);
        Self {
            external_id: field("external_id"),
            customer_name: field("customer_name"),
            customer_count: field("customer_count"),
            reservation_time: field("reservation_time"),
            arrival_time: field("arrival_time"),
            table_type: field("table_type"),
            table_number: field("table_number"),
            area: field("area"),
            special_requirements: field("special_requirements"),
            notes: field("notes"),
            deposit_required: field("deposit_required"),
            deposit_paid: field("deposit_paid"),
            source: field("source"),
            channel: field("channel"),
            deposit_amount: row.amount.map(|minor| Money::of(minor, currency)),
            id: row.id.to_string(),
            system_id: row.system_id.to_string(),
            store_id: row.store_id,
            reservation_id: row.external_id,
            reservation_number: row.number,
            customer_phone: row.customer_phone,
            reservation_date: row.occurred_at.map(Time),
            status: row.status,
            sync_status: Choice(row.sync_status),
            created_at: row.created_at.into(),
            sync_log_id: row.sync_log_id.map(|id| id.to_string()),
            ignored_fields: None,
        }
    }
}

#[OpenApi]
impl Reservations {
    /// Hand in a reservation
    ///
    /// Repeating it changes nothing and answers the reservation that is there; other content under the same id
    /// takes its place.
    #[oai(
        path = "/integrations/reservation/:system_id/reservations",
        method = "post",
        operation_id = "create_reservation",
        tag = "Tag::Reservations"
    )]
    async fn create_reservation(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
        body: Body<NewReservation>,
    ) -> Result<Found<ReservationAnswer>, Problem> {
        let context = self.0.context();
        let ignored = body.ignored_fields.clone();
        let id = handing_in::one(context, &caller, system_id.0, body).await?;
        let mut answer = ReservationAnswer::new(external_records::get(&context.store, id).await?);
        answer.ignored_fields = (!ignored.is_empty()).then_some(ignored);
        Ok(Answer(answer))
    }

    /// Hand in many reservations
    ///
    /// Each is answered on its own: the good ones are stored, the others explained.
    #[oai(
        path = "/integrations/reservation/:system_id/reservations/batch",
        method = "post",
        operation_id = "create_reservations",
        tag = "Tag::Reservations"
    )]
    async fn create_reservations(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
        body: BatchBody<NewReservation>,
    ) -> Result<Found<BatchAnswer>, Problem> {
        handing_in::many(self.0.context(), &caller, system_id.0, body).await.map(Answer)
    }

    /// List reservations
    ///
    /// Those of the last day first; `from` and `to` are about the day that a reservation is for.
    #[oai(
        path = "/integrations/reservation/reservations",
        method = "get",
        operation_id = "list_reservations",
        tag = "Tag::Reservations"
    )]
    #[expect(clippy::too_many_arguments, reason = "a parameter of the request is one of the function")]
    async fn list_reservations(
        &self,
        caller: Caller,
        store_id: Query<Option<Text<64>>>,
        system_id: Query<Option<Uuid>>,
        status: Query<Option<Text<64>>>,
        from: Query<Option<Time>>,
        to: Query<Option<Time>>,
        phone: Query<Option<Text<64>>>,
        reservation_number: Query<Option<Text<128>>>,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<ReservationAnswer>, Problem> {
        let wanted = Wanted::new(limit.0, cursor.0.as_deref())?;
        let filter = Filter {
            stream: STREAM,
            scope: caller.scope(),
            store_id: store_id.0.as_ref().map(|text| text.0.as_str()),
            system_id: system_id.0.map(SystemId),
            status: status.0.as_ref().map(|text| text.0.as_str()),
            from: from.0.map(|time| time.0),
            to: to.0.map(|time| time.0),
            phone: phone.0.as_ref().map(|text| text.0.as_str()),
            number: reservation_number.0.as_ref().map(|text| text.0.as_str()),
            before: wanted.after,
            limit: u32::try_from(wanted.rows()).unwrap_or(u32::MAX),
        };
        let rows = external_records::list(self.0.store(), &filter).await?;
        let position = |row: &ExternalRecord| (row.placed_at(), row.id);
        Ok(Page::new(rows, wanted, &caller.origin.uri, position, ReservationAnswer::new))
    }

    /// Show a reservation
    #[oai(
        path = "/integrations/reservation/reservations/:record_id",
        method = "get",
        operation_id = "show_reservation",
        tag = "Tag::Reservations"
    )]
    async fn show_reservation(
        &self,
        caller: Caller,
        record_id: Path<Uuid>,
    ) -> Result<Found<ReservationAnswer>, Problem> {
        let row = external_records::get(self.0.store(), record_id.0).await?;
        let is_there = row.stream == STREAM
            && in_scope(caller.scope(), row.store_id.as_deref())
            && row.deleted_at.is_none();
        let gone = || Problem::not_found(format_args!("record `{}`", record_id.0));
        if is_there { Ok(Answer(ReservationAnswer::new(row))) } else { Err(gone()) }
    }
}

impl HandIn for NewReservation {
    type Incoming = IncomingRecord;

    const SYSTEM_TYPE: SystemType = SystemType::Reservation;
    const ID_FIELD: &'static str = "reservation_id";
    const ENTITY: &'static str = "reservation";
    const ACTIONS: [&'static str; 3] = ["reservation.create", "reservation.update", "reservation.batch"];

    fn external_id(&self) -> &str {
        &self.reservation_id.0
    }

    fn incoming(self, of: &Handed<'_>, raw: String) -> Result<Self::Incoming, Problem> {
        let currency = of.currency(self.currency.clone())?;
        let mut amounts = Amounts::of(currency);
        let has_deposit = self.deposit_amount.is_some();
        let deposit = amounts.minor("deposit_amount", self.deposit_amount.clone());
        amounts.finish()?;
        let date = of.time(Some(self.reservation_date));
        let status = self.status.map_or(ReservationStatus::Pending, |choice| choice.0);
        Ok(IncomingRecord {
            stream: STREAM.to_owned(),
            external_id: self.reservation_id.0.clone(),
            status: Some(status.text().to_owned()),
            currency: Some(currency),
            amount: has_deposit.then_some(deposit),
            shop: None,
            occurred_at: date,
            version_at: None,
            observed_at: None,
            deleted: false,
            data: kept_fields(&raw).to_string(),
            raw,
        })
    }

    async fn write(
        tx: &mut Tx,
        batch: Batch<'_>,
        records: Vec<Self::Incoming>,
    ) -> Result<Vec<HandedIn>, StoreError> {
        external_records::hand_in(tx, batch, records).await
    }
}

/// The fields that have no column, under the names of the body and as they stand there.
fn kept_fields(raw: &str) -> Value {
    const KEPT: [&str; 17] = [
        "external_id",
        "reservation_number",
        "customer_name",
        "customer_phone",
        "customer_count",
        "reservation_date",
        "reservation_time",
        "arrival_time",
        "table_type",
        "table_number",
        "area",
        "special_requirements",
        "notes",
        "deposit_required",
        "deposit_paid",
        "source",
        "channel",
    ];
    let mut fields: Map<String, Value> = serde_json::from_str(raw).unwrap_or_default();
    fields.retain(|name, value| KEPT.contains(&name.as_str()) && !value.is_null());
    Value::Object(fields)
}
