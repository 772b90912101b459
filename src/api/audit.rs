//! Who did what to what, from where, and what it was before: read page by page, or whole as one JSON object a
//! line. Nothing here changes an entry, and nothing else does.

use bytes::Bytes;
use futures_util::stream;
use poem::{Body, IntoResponse, Response};
use poem_openapi::param::Query;
use poem_openapi::registry::{
    MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::ToJSON as _;
use poem_openapi::{ApiResponse, Object, OpenApi};
use uuid::Uuid;
use zhilian_sync_store::audit_logs::{self, AuditLog, Filter, PAGE_MAX};
use zhilian_sync_store::{Store, UserId};

use super::Tag;
use super::caller::Caller;
use super::page::{Limit, Page, Wanted};
use super::problem::Problem;
use super::values::{Json, Text, Time};
use crate::app::App;

/// The media type of an export.
const NDJSON: &str = "application/x-ndjson";

/// The operations of this file.
pub struct Audit(pub App);

/// One thing that was done.
#[derive(Debug, Object)]
pub struct AuditEntry {
    /// Its id.
    pub id: String,
    /// When it was done.
    pub at: Time,
    /// The user or the token that did it; null for somebody not signed in, and for the program itself.
    pub actor_id: Option<String>,
    /// The name at that time; `token:` goes before a token's.
    pub actor_name: Option<String>,
    /// From which address.
    pub address: Option<String>,
    /// What was done, such as `system.update`.
    pub action: String,
    /// To what kind of thing.
    pub entity: String,
    /// To which one.
    pub entity_id: Option<String>,
    /// The store it belongs to.
    pub store_id: Option<String>,
    /// The request that did it.
    pub request_id: Option<String>,
    /// More: under `changes` each field with what it was and what it is, a secret as `changed`.
    pub detail: Option<Json>,
}

impl AuditEntry {
    fn new(row: AuditLog) -> Self {
        Self {
            id: row.id.to_string(),
            at: row.at.into(),
            actor_id: row.actor_id.map(|id| id.to_string()),
            actor_name: row.actor_name,
            address: row.address,
            action: row.action,
            entity: row.entity,
            entity_id: row.entity_id,
            store_id: row.store_id,
            request_id: row.request_id,
            detail: row.detail.as_deref().map(Json::from_column),
        }
    }
}

/// Which entries are asked for, by values of its own: an export goes on after its handler has ended.
#[derive(Debug, Clone)]
struct Asked {
    scope: Option<String>,
    actor_id: Option<UserId>,
    action: Option<String>,
    entity: Option<String>,
    entity_id: Option<String>,
    store_id: Option<String>,
    from: Option<Time>,
    to: Option<Time>,
}

impl Asked {
    fn filter(&self, wanted: &Wanted) -> Filter<'_> {
        Filter {
            scope: self.scope.as_deref(),
            actor_id: self.actor_id,
            action: self.action.as_deref(),
            entity: self.entity.as_deref(),
            entity_id: self.entity_id.as_deref(),
            store_id: self.store_id.as_deref(),
            from: self.from.map(|time| time.0),
            to: self.to.map(|time| time.0),
            before: wanted.after,
            limit: wanted.rows(),
        }
    }
}

/// All entries that are asked for, one JSON object a line.
pub struct Export(Body);

impl IntoResponse for Export {
    fn into_response(self) -> Response {
        Response::builder()
            .content_type(NDJSON)
            .header("content-disposition", "attachment; filename=\"audit.ndjson\"")
            .body(self.0)
    }
}

impl ApiResponse for Export {
    fn meta() -> MetaResponses {
        let schema = MetaSchemaRef::Inline(Box::new(MetaSchema {
            description: Some("One `AuditEntry` a line."),
            ..MetaSchema::new("string")
        }));
        MetaResponses {
            responses: vec![MetaResponse {
                description: "Every entry, newest first, one JSON object a line.",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType { content_type: NDJSON, schema }],
                headers: vec![],
            }],
        }
    }

    fn register(_: &mut Registry) {}
}

#[OpenApi]
impl Audit {
    /// List what was done
    #[oai(path = "/audit-logs", method = "get", operation_id = "list_audit_logs", tag = "Tag::Audit")]
    #[expect(clippy::too_many_arguments, reason = "a parameter of the request is one of the function")]
    async fn list_audit_logs(
        &self,
        caller: Caller,
        actor_id: Query<Option<Uuid>>,
        action: Query<Option<Text<100>>>,
        entity: Query<Option<Text<100>>>,
        entity_id: Query<Option<Text<200>>>,
        store_id: Query<Option<Text<64>>>,
        from: Query<Option<Time>>,
        to: Query<Option<Time>>,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<AuditEntry>, Problem> {
        let wanted = Wanted::new(limit.0, cursor.0.as_deref())?;
        let asked = Asked {
            scope: caller.store_id.clone(),
            actor_id: actor_id.0.map(UserId),
            action: action.0.map(|text| text.0),
            entity: entity.0.map(|text| text.0),
            entity_id: entity_id.0.map(|text| text.0),
            store_id: store_id.0.map(|text| text.0),
            from: from.0,
            to: to.0,
        };
        let rows = audit_logs::search(self.0.store(), &asked.filter(&wanted)).await?;
        let position = |row: &AuditLog| (row.at, row.id);
        Ok(Page::new(rows, wanted, &caller.origin.uri, position, AuditEntry::new))
    }

    /// Export what was done
    ///
    /// Everything up to this moment, newest first, as it is read: however much it is.
    #[oai(
        path = "/audit-logs/export",
        method = "get",
        operation_id = "export_audit_logs",
        tag = "Tag::Audit"
    )]
    #[expect(clippy::too_many_arguments, reason = "a parameter of the request is one of the function")]
    async fn export_audit_logs(
        &self,
        caller: Caller,
        actor_id: Query<Option<Uuid>>,
        action: Query<Option<Text<100>>>,
        entity: Query<Option<Text<100>>>,
        entity_id: Query<Option<Text<200>>>,
        store_id: Query<Option<Text<64>>>,
        from: Query<Option<Time>>,
        to: Query<Option<Time>>,
    ) -> Result<Export, Problem> {
        let asked = Asked {
            scope: caller.store_id.clone(),
            actor_id: actor_id.0.map(UserId),
            action: action.0.map(|text| text.0),
            entity: entity.0.map(|text| text.0),
            entity_id: entity_id.0.map(|text| text.0),
            store_id: store_id.0.map(|text| text.0),
            from: from.0,
            to: to.0,
        };
        let store = self.0.store().clone();
        // The first page within the request: what is wrong by then is still an answer.
        let wanted = Wanted { limit: PAGE_MAX - 1, after: None };
        let first = audit_logs::search(&store, &asked.filter(&wanted)).await?;
        let mut entry = caller.audit("audit.export", "audit", "");
        entry.entity_id = None;
        entry.store_id = caller.scope();
        audit_logs::insert_alone(&store, entry).await?;
        Ok(Export(Body::from_bytes_stream(stream::try_unfold(
            Some((store, asked, first)),
            |state| async move {
                let Some((store, asked, rows)) = state else {
                    return Ok::<_, std::io::Error>(None);
                };
                let next = match rows.last() {
                    Some(last) => Some(page_after(&store, &asked, (last.at, last.id)).await?),
                    None => return Ok(None),
                };
                let lines = lines(rows);
                let state = next.filter(|rows| !rows.is_empty()).map(|rows| (store, asked, rows));
                Ok(Some((lines, state)))
            },
        ))))
    }
}

async fn page_after(
    store: &Store,
    asked: &Asked,
    last: super::page::Position,
) -> Result<Vec<AuditLog>, std::io::Error> {
    let wanted = Wanted { limit: PAGE_MAX - 1, after: Some(last) };
    audit_logs::search(store, &asked.filter(&wanted)).await.map_err(|error| {
        // The status is sent; a body that is cut off is the only way left to say so.
        tracing::warn!(%error, "an export of the audit ends early");
        std::io::Error::other("the database does not answer")
    })
}

fn lines(rows: Vec<AuditLog>) -> Bytes {
    let mut text = Vec::new();
    for row in rows {
        let entry = AuditEntry::new(row).to_json().unwrap_or_default();
        text.extend(entry.to_string().into_bytes());
        text.push(b'\n');
    }
    text.into()
}
