//! Records that have no table of their own: payments, deliveries, documents of an ERP, whatever a vendor's
//! stream brings. They are read here; they come by pulls and webhooks.

use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;
use zhilian_sync_store::external_records::{self, ExternalRecord, Filter};
use zhilian_sync_store::{SyncStatus, SystemId};

use super::Tag;
use super::access::in_scope;
use super::answer::{Answer, Found};
use super::caller::Caller;
use super::page::{Limit, Page, Wanted};
use super::problem::Problem;
use super::values::{Choice, Json, Money, Text, Time};
use crate::app::App;

/// The operations of this file.
pub struct Records(pub App);

/// A record of a stream that has no table of its own.
#[derive(Debug, Object)]
#[oai(rename = "Record")]
pub struct RecordAnswer {
    /// Our id.
    pub id: String,
    /// The system that reported it.
    pub system_id: String,
    /// The store.
    pub store_id: Option<String>,
    /// The stream it belongs to.
    pub stream: String,
    /// The vendor's id.
    pub external_id: String,
    /// The number that people know it by.
    pub number: Option<String>,
    /// How far it is, in the vendor's word.
    pub status: Option<String>,
    /// The currency of the amount.
    pub currency: Option<String>,
    /// The amount.
    pub amount: Option<Money>,
    /// When it took place.
    pub occurred_at: Option<Time>,
    /// Its other fields, by the names that the vendor's manifest gives them.
    pub data: Json,
    /// Whether it is in step with its vendor.
    pub sync_status: Choice<SyncStatus>,
    /// When we heard of it first.
    pub created_at: Time,
    /// The run that wrote it.
    pub sync_log_id: Option<String>,
}

impl RecordAnswer {
    fn new(row: ExternalRecord) -> Self {
        Self {
            id: row.id.to_string(),
            system_id: row.system_id.to_string(),
            store_id: row.store_id,
            stream: row.stream,
            external_id: row.external_id,
            number: row.number,
            status: row.status,
            amount: row.amount.zip(row.currency).map(|(minor, currency)| Money::of(minor, currency)),
            currency: row.currency.map(|currency| currency.to_string()),
            occurred_at: row.occurred_at.map(Time),
            data: Json::from_column(&row.data),
            sync_status: Choice(row.sync_status),
            created_at: row.created_at.into(),
            sync_log_id: row.sync_log_id.map(|id| id.to_string()),
        }
    }
}

#[OpenApi]
impl Records {
    /// List records of a stream
    #[oai(
        path = "/integrations/records",
        method = "get",
        operation_id = "list_records",
        tag = "Tag::Records"
    )]
    #[expect(clippy::too_many_arguments, reason = "a parameter of the request is one of the function")]
    async fn list_records(
        &self,
        caller: Caller,
        stream: Query<Text<100>>,
        store_id: Query<Option<Text<64>>>,
        system_id: Query<Option<Uuid>>,
        status: Query<Option<Text<64>>>,
        from: Query<Option<Time>>,
        to: Query<Option<Time>>,
        number: Query<Option<Text<128>>>,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<RecordAnswer>, Problem> {
        let wanted = Wanted::new(limit.0, cursor.0.as_deref())?;
        let filter = Filter {
            stream: &stream.0.0,
            scope: caller.scope(),
            store_id: store_id.0.as_ref().map(|text| text.0.as_str()),
            system_id: system_id.0.map(SystemId),
            status: status.0.as_ref().map(|text| text.0.as_str()),
            from: from.0.map(|time| time.0),
            to: to.0.map(|time| time.0),
            number: number.0.as_ref().map(|text| text.0.as_str()),
            phone: None,
            before: wanted.after,
            limit: u32::try_from(wanted.rows()).unwrap_or(u32::MAX),
        };
        let rows = external_records::list(self.0.store(), &filter).await?;
        let position = |row: &ExternalRecord| (row.placed_at(), row.id);
        Ok(Page::new(rows, wanted, &caller.origin.uri, position, RecordAnswer::new))
    }

    /// Show a record
    #[oai(
        path = "/integrations/records/:record_id",
        method = "get",
        operation_id = "show_record",
        tag = "Tag::Records"
    )]
    async fn show_record(
        &self,
        caller: Caller,
        record_id: Path<Uuid>,
    ) -> Result<Found<RecordAnswer>, Problem> {
        let row = external_records::get(self.0.store(), record_id.0).await?;
        let is_there = in_scope(caller.scope(), row.store_id.as_deref()) && row.deleted_at.is_none();
        let gone = || Problem::not_found(format_args!("record `{}`", record_id.0));
        if is_there { Ok(Answer(RecordAnswer::new(row))) } else { Err(gone()) }
    }
}
