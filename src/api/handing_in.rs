//! Records that clients hand in, one at a time or up to a thousand in a batch, whatever they are.
//!
//! A resource says what its body is and what it becomes ([`HandIn`]); what is the same for all stands here: the
//! system must be there for the caller and of the right type, the record is written by the version rule, and the
//! audit has what changed. Handing in the same again changes nothing; other content under the same id is a newer
//! observation of it.

use std::future::Future;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use zhilian_sync_jobs::Context;
use zhilian_sync_jobs::enqueue::{self, Enqueued};
use zhilian_sync_store::external_systems::ExternalSystem;
use zhilian_sync_store::record_batches::{Batch, StoreMap};
use zhilian_sync_store::records_handed_in::{Change, HandedIn};
use zhilian_sync_store::{Currency, Lane, StoreError, SystemType, Tx, audit_logs};

use super::batch::{BatchAnswer, BatchBody, BatchResult, BatchStatus, Part};
use super::body::{Body, Schema};
use super::caller::Caller;
use super::problem::{FieldError, Problem};
use super::systems;
use super::values::{Choice, Fields, LocalTime, Money, Text};

/// Something that clients hand in.
pub trait HandIn: Schema {
    /// What the store makes a row of.
    type Incoming: Send;

    /// The type of system that takes it.
    const SYSTEM_TYPE: SystemType;
    /// The field that holds the vendor's id of it.
    const ID_FIELD: &'static str;
    /// What the audit calls a row.
    const ENTITY: &'static str;
    /// What the audit calls making, changing, and handing in many.
    const ACTIONS: [&'static str; 3];

    /// The vendor's id of it.
    fn external_id(&self) -> &str;

    /// The body as a record of this system; `raw` is the whole body.
    fn incoming(self, of: &Handed<'_>, raw: String) -> Result<Self::Incoming, Problem>;

    /// Writes records; answers each in the order they were given.
    fn write(
        tx: &mut Tx,
        batch: Batch<'_>,
        records: Vec<Self::Incoming>,
    ) -> impl Future<Output = Result<Vec<HandedIn>, StoreError>> + Send;

    /// Enqueues what follows from it, in the transaction that writes it.
    fn enqueue(
        _: &mut Tx,
        _: &Handed<'_>,
        _: &[HandedIn],
    ) -> impl Future<Output = Result<Vec<Enqueued>, StoreError>> + Send {
        async { Ok(Vec::new()) }
    }
}

/// Where and when something is handed in.
pub struct Handed<'a> {
    /// The service.
    pub context: &'a Context,
    /// Who hands it in.
    pub caller: &'a Caller,
    /// The system that takes it.
    pub system: &'a ExternalSystem,
    /// The time of a record that tells none.
    pub now: DateTime<Utc>,
    /// Whether its vendor is told of members; found out once for all records.
    pub takes_members: bool,
}

impl<'a> Handed<'a> {
    fn new(context: &'a Context, caller: &'a Caller, system: &'a ExternalSystem) -> Self {
        let takes_members =
            system.system_type == SystemType::Member && enqueue::takes_members(context, system);
        Self { context, caller, system, now: context.clock().now(), takes_members }
    }

    /// A time, without a zone in the system's.
    pub fn time(&self, given: Option<LocalTime>) -> Option<DateTime<Utc>> {
        given.map(|time| time.in_zone(self.system.timezone.parse().unwrap_or(Tz::UTC)))
    }

    /// The currency of the amounts, by default the system's.
    pub fn currency(&self, given: Option<Text<3>>) -> Result<Currency, Problem> {
        given.map_or(Ok(self.system.currency), |text| {
            text.0.parse().map_err(|error: zhilian_sync_store::money::MoneyError| {
                Problem::invalid_field("currency", error.to_string())
            })
        })
    }
}

/// Reads amounts of one currency and collects what is wrong with them.
#[derive(Debug)]
pub struct Amounts {
    currency: Currency,
    errors: Vec<FieldError>,
}

impl Amounts {
    /// Amounts in this currency.
    pub const fn of(currency: Currency) -> Self {
        Self { currency, errors: Vec::new() }
    }

    /// The minor units of an amount; none given is nothing.
    pub fn minor(&mut self, field: &str, given: Option<Money>) -> i64 {
        given.map_or(Ok(0), |money| money.minor(self.currency)).unwrap_or_else(|error| {
            self.errors.push(FieldError { field: field.to_owned(), detail: error.to_string() });
            0
        })
    }

    /// All the amounts were right, or what is wrong with the others.
    pub fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

/// The system, if it exists for this caller and takes such records.
async fn system_for<T: HandIn>(
    context: &Context,
    caller: &Caller,
    id: Uuid,
) -> Result<ExternalSystem, Problem> {
    let system = systems::visible(context, caller, id).await?;
    if system.system_type == T::SYSTEM_TYPE {
        return Ok(system);
    }
    let (name, is, expected) = (&system.name, system.system_type, T::SYSTEM_TYPE);
    let detail = format!("system `{name}` is of type `{is}`; expected `{expected}`");
    Err(Problem::bad_request("wrong_system_type", detail))
}

/// Takes one record; gives our id of it.
pub async fn one<T: HandIn>(
    context: &Context,
    caller: &Caller,
    system_id: Uuid,
    body: Body<T>,
) -> Result<Uuid, Problem> {
    let system = system_for::<T>(context, caller, system_id).await?;
    let handed = Handed::new(context, caller, &system);
    let incoming = body.value.incoming(&handed, body.raw)?;
    let stores = system.stores();
    let mut tx = context.store.begin().await?;
    let told = T::write(&mut tx, batch(context, &system, &stores, handed.now), vec![incoming]).await?;
    let enqueued = T::enqueue(&mut tx, &handed, &told).await?;
    let (id, change) = match told.into_iter().next() {
        Some(HandedIn::Stored { id, change }) => (id, change),
        Some(HandedIn::Refused(reason)) => return Err(refused(reason)),
        None => return Err(Problem::internal()),
    };
    let [created, updated, _] = T::ACTIONS;
    let action = match change {
        Change::Created => Some(created),
        Change::Updated => Some(updated),
        Change::Unchanged => None,
    };
    if let Some(action) = action {
        let row = id.to_string();
        let mut entry = caller.audit(action, T::ENTITY, &row);
        entry.store_id = system.store_id.as_deref();
        audit_logs::insert(&mut tx, context.clock(), entry).await?;
    }
    tx.commit().await?;
    enqueue::ring(context, Lane::Syncs, &enqueued).await;
    Ok(id)
}

/// Takes many records: stores the good ones in one transaction and explains the others.
pub async fn many<T: HandIn>(
    context: &Context,
    caller: &Caller,
    system_id: Uuid,
    body: BatchBody<T>,
) -> Result<BatchAnswer, Problem> {
    let system = system_for::<T>(context, caller, system_id).await?;
    let handed = Handed::new(context, caller, &system);
    let mut results = Vec::with_capacity(body.parts.len());
    let (mut incoming, mut places) = (Vec::new(), Vec::new());
    for (index, part) in body.parts.into_iter().enumerate() {
        let Part { id, read } = part;
        let read = read.and_then(|(value, raw)| {
            let id = value.external_id().to_owned();
            value.incoming(&handed, raw).map(|incoming| (id, incoming))
        });
        match read {
            Ok((id, record)) => {
                incoming.push(record);
                places.push(index);
                // What it is until the database has spoken.
                results.push(BatchResult::failed(index, Some(id), &Problem::internal()));
            }
            Err(problem) => results.push(BatchResult::failed(index, id, &problem)),
        }
    }
    let stores = system.stores();
    let mut tx = context.store.begin().await?;
    let told = T::write(&mut tx, batch(context, &system, &stores, handed.now), incoming).await?;
    let enqueued = T::enqueue(&mut tx, &handed, &told).await?;
    for (index, told) in places.into_iter().zip(told) {
        let result = &mut results[index];
        match told {
            HandedIn::Stored { id, change } => result.stored(id, change),
            HandedIn::Refused(reason) => {
                *result = BatchResult::failed(index, result.id.take(), &refused(reason));
            }
        }
    }
    let answer = BatchAnswer::new(results);
    if answer.created + answer.updated > 0 {
        let (id, [.., action]) = (system.id.to_string(), T::ACTIONS);
        let detail = json!({
            "created": answer.created, "updated": answer.updated, "unchanged": answer.unchanged, "failed": answer.failed,
        });
        let detail = detail.to_string();
        let mut entry = caller.audit(action, "system", &id);
        entry.store_id = system.store_id.as_deref();
        entry.detail = Some(&detail);
        audit_logs::insert(&mut tx, context.clock(), entry).await?;
    }
    tx.commit().await?;
    enqueue::ring(context, Lane::Syncs, &enqueued).await;
    Ok(answer)
}

fn batch<'a>(
    context: &'a Context,
    system: &ExternalSystem,
    stores: &'a StoreMap,
    now: DateTime<Utc>,
) -> Batch<'a> {
    Batch {
        system_id: system.id,
        stores,
        sync_log_id: None,
        observed_at: now,
        clock: context.clock(),
        force: false,
    }
}

fn refused(reason: String) -> Problem {
    Problem::new(poem::http::StatusCode::UNPROCESSABLE_ENTITY, "not_storable", reason)
}

/// A list of objects as JSON text.
pub fn list_text(items: Option<Vec<Fields>>) -> Option<String> {
    let items = items?.into_iter().map(|item| Value::Object(item.0)).collect();
    Some(Value::Array(items).to_string())
}

/// A telephone number among the fields of a customer.
pub fn phone_of(customer: Option<&Map<String, Value>>) -> Option<String> {
    match customer?.get("phone") {
        Some(Value::String(phone)) if !phone.is_empty() => Some(phone.clone()),
        _ => None,
    }
}

impl BatchResult {
    fn stored(&mut self, id: Uuid, change: Change) {
        self.record_id = Some(id.to_string());
        self.error = None;
        self.status = Choice(match change {
            Change::Created => BatchStatus::Created,
            Change::Updated => BatchStatus::Updated,
            Change::Unchanged => BatchStatus::Unchanged,
        });
    }
}
