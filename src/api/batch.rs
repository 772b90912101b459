//! Batches of records in one request: each is read on its own and answered on its own, so that one bad record
//! costs no other.
//!
//! The body is `{"records": [ … ]}` with one to [`RECORDS_MAX`] bodies of the single route. What is wrong with
//! the batch itself refuses it whole; what is wrong with a record is told beside its index.

use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions, Object};
use serde_json::Value;

use super::body;
use super::handing_in::HandIn;
use super::problem::{FieldError, Problem};
use super::values::{Choice, Named};

/// The most records of one batch.
pub const RECORDS_MAX: usize = 1_000;

/// A batch that was read.
#[derive(Debug)]
pub struct BatchBody<T> {
    /// Its records, in their order.
    pub parts: Vec<Part<T>>,
}

/// One record of a batch.
#[derive(Debug)]
pub struct Part<T> {
    /// The vendor's id of a record that could not be read, where it has one.
    pub id: Option<String>,
    /// The record and its whole text, or what is wrong with it.
    pub read: Result<(T, String), Problem>,
}

/// What became of a batch.
#[derive(Debug, Object)]
pub struct BatchAnswer {
    /// How many records the batch had.
    pub total: u64,
    /// How many are new.
    pub created: u64,
    /// How many were there with other content.
    pub updated: u64,
    /// How many were there already, or are newer there.
    pub unchanged: u64,
    /// How many were not stored.
    pub failed: u64,
    /// Each record, in the order of the batch.
    pub results: Vec<BatchResult>,
}

/// What became of one record of a batch.
#[derive(Debug, Object)]
pub struct BatchResult {
    /// Its place in the batch, counted from 0.
    pub index: u64,
    /// The vendor's id of it.
    pub id: Option<String>,
    /// Our id of it.
    pub record_id: Option<String>,
    /// What became of it.
    pub status: Choice<BatchStatus>,
    /// Why it was not stored.
    #[oai(skip_serializing_if_is_none)]
    pub error: Option<BatchError>,
}

/// Why a record of a batch was not stored.
#[derive(Debug, Object)]
pub struct BatchError {
    /// Stable, for programs.
    pub code: String,
    /// For people: what is wrong and what was expected.
    pub detail: String,
    /// Every wrong field.
    pub errors: Vec<FieldError>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchStatus {
    /// It is new.
    Created,
    /// It was there with other content.
    Updated,
    /// It was there already, or is newer there.
    Unchanged,
    /// It was not stored.
    Failed,
}

impl Named for BatchStatus {
    const NAME: &'static str = "batch_status";

    fn all() -> &'static [Self] {
        &[Self::Created, Self::Updated, Self::Unchanged, Self::Failed]
    }

    fn text(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }
}

impl BatchResult {
    /// A record that is not stored.
    pub fn failed(index: usize, id: Option<String>, problem: &Problem) -> Self {
        let error = BatchError {
            code: problem.code().to_owned(),
            detail: problem.detail().to_owned(),
            errors: problem.errors().to_vec(),
        };
        let status = Choice(BatchStatus::Failed);
        Self { index: index as u64, id, record_id: None, status, error: Some(error) }
    }
}

impl BatchAnswer {
    /// Counts what became of the records.
    pub fn new(results: Vec<BatchResult>) -> Self {
        let count = |status| results.iter().filter(|result| result.status.0 == status).count() as u64;
        Self {
            total: results.len() as u64,
            created: count(BatchStatus::Created),
            updated: count(BatchStatus::Updated),
            unchanged: count(BatchStatus::Unchanged),
            failed: count(BatchStatus::Failed),
            results,
        }
    }
}

impl<'a, T: HandIn + 'static> ApiExtractor<'a> for BatchBody<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_schema::<T, _>(T::NAME.to_owned(), T::schema);
        registry.create_schema::<Self, _>(name::<T>(), |_| {
            let records = MetaSchema {
                description: Some("The records, as the single route takes them."),
                items: Some(Box::new(MetaSchemaRef::Reference(T::NAME.to_owned()))),
                min_items: Some(1),
                max_items: Some(RECORDS_MAX),
                ..MetaSchema::new("array")
            };
            MetaSchema {
                description: Some("Many records at once."),
                required: vec!["records"],
                properties: vec![("records", MetaSchemaRef::Inline(Box::new(records)))],
                ..MetaSchema::new("object")
            }
        });
    }

    fn request_meta() -> Option<MetaRequest> {
        let schema = MetaSchemaRef::Reference(name::<T>());
        let content = vec![MetaMediaType { content_type: "application/json", schema }];
        Some(MetaRequest { description: None, content, required: true })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let mut fields = body::object(request, body).await?;
        let records = fields.remove("records");
        let mut errors: Vec<FieldError> = fields.keys().map(|field| body::no_field(field)).collect();
        let wrong = match &records {
            None => Some("is missing".to_owned()),
            Some(Value::Array(records)) if records.is_empty() => {
                Some("is empty; expected records".to_owned())
            }
            Some(Value::Array(records)) if records.len() > RECORDS_MAX => Some(format!(
                "has {} records; expected at most {RECORDS_MAX}, send several batches",
                records.len()
            )),
            Some(Value::Array(_)) => None,
            Some(_) => Some("is not a list; expected a list of records".to_owned()),
        };
        errors.extend(wrong.map(|detail| FieldError { field: "records".to_owned(), detail }));
        match records {
            Some(Value::Array(records)) if errors.is_empty() => {
                Ok(Self { parts: records.into_iter().map(read).collect() })
            }
            _ => Err(Problem::invalid(errors).into()),
        }
    }
}

fn read<T: HandIn>(record: Value) -> Part<T> {
    let Value::Object(mut fields) = record else {
        let detail = "the record is not a JSON object";
        return Part { id: None, read: Err(Problem::bad_request("malformed_record", detail)) };
    };
    let id = fields.get(T::ID_FIELD).and_then(Value::as_str).map(|id| id.chars().take(128).collect());
    let raw = serde_json::to_string(&fields).expect("JSON that was read serialises");
    let read = T::read(&mut fields).and_then(|value| {
        let unknown = fields.keys().filter(|_| !T::ACCEPTS_UNKNOWN);
        let errors: Vec<FieldError> = unknown.map(|field| body::no_field(field)).collect();
        if errors.is_empty() { Ok((value, raw)) } else { Err(errors) }
    });
    Part { id, read: read.map_err(Problem::invalid) }
}

fn name<T: HandIn>() -> String {
    format!("{}Batch", T::NAME)
}
