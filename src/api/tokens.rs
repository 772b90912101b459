//! API tokens: what machines sign their requests with. A token has a role and a store of its own and belongs to
//! nobody; its text is shown once, when it is made.

use poem_openapi::param::{Path, Query};
use poem_openapi::types::ToJSON as _;
use poem_openapi::{Object, OpenApi};
use secrecy::ExposeSecret as _;
use uuid::Uuid;
use zhilian_sync_store::api_tokens::{self, ApiToken, Filter, NewApiToken};
use zhilian_sync_store::{Role, TokenId, Tx, audit_logs, passwords};

use super::Tag;
use super::access::in_scope;
use super::answer::{Answer, Found};
use super::body::{Body, request_body};
use super::caller::Caller;
use super::changes::Changes;
use super::page::{Limit, Page, Wanted};
use super::problem::Problem;
use super::session::Success;
use super::users::own_store;
use super::values::{Choice, Text, Time};
use crate::app::App;

/// The operations of this file.
pub struct Tokens(pub App);

request_body! {
    /// A new API token.
    refuses_unknown pub struct NewToken {
        /// What people call it.
        name: Text<100>,
        /// What it may do.
        role: Choice<Role>,
        /// The only store it sees; without one the whole chain.
        store_id: Option<Text<64>>,
        /// When it ends by itself; without one never.
        expires_at: Option<Time>,
    }
}

/// An API token, without its text.
#[derive(Debug, Object)]
pub struct TokenAnswer {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: Choice<Role>,
    /// The only store it sees; null sees the whole chain.
    pub store_id: Option<String>,
    /// The user or the token that made it.
    pub created_by: Option<String>,
    /// When it was made.
    pub created_at: Time,
    /// When it ends by itself; null never does.
    pub expires_at: Option<Time>,
    /// When it was used last, to within a minute.
    pub last_used_at: Option<Time>,
    /// When it was revoked.
    pub revoked_at: Option<Time>,
    /// Its text, for `Authorization: Bearer …`; shown once, when it is made.
    #[oai(skip_serializing_if_is_none)]
    pub token: Option<String>,
}

impl TokenAnswer {
    fn new(row: &ApiToken) -> Self {
        Self {
            id: row.id.to_string(),
            name: row.name.clone(),
            role: Choice(row.role),
            store_id: row.store_id.clone(),
            created_by: row.created_by.map(|id| id.to_string()),
            created_at: row.created_at.into(),
            expires_at: row.expires_at.map(Time),
            last_used_at: row.last_used_at.map(Time),
            revoked_at: row.revoked_at.map(Time),
            token: None,
        }
    }
}

#[OpenApi]
impl Tokens {
    /// List API tokens
    #[oai(path = "/tokens", method = "get", operation_id = "list_tokens", tag = "Tag::Tokens")]
    async fn list_tokens(
        &self,
        caller: Caller,
        store_id: Query<Option<Text<64>>>,
        role: Query<Option<Choice<Role>>>,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<TokenAnswer>, Problem> {
        let wanted = Wanted::new(limit.0, cursor.0.as_deref())?;
        let filter = Filter {
            scope: caller.scope(),
            store_id: store_id.0.as_ref().map(|text| text.0.as_str()),
            role: role.0.map(|choice| choice.0),
            after: wanted.after.map(|(at, id)| (at, TokenId(id))),
            limit: wanted.rows(),
        };
        let rows = api_tokens::list(self.0.store(), &filter).await?;
        let position = |row: &ApiToken| (row.created_at, row.id.0);
        Ok(Page::new(rows, wanted, &caller.origin.uri, position, |row| TokenAnswer::new(&row)))
    }

    /// Make an API token
    ///
    /// Its text is in this answer and never shown again.
    #[oai(path = "/tokens", method = "post", operation_id = "create_token", tag = "Tag::Tokens")]
    async fn create_token(
        &self,
        caller: Caller,
        body: Body<NewToken>,
    ) -> Result<Found<TokenAnswer>, Problem> {
        let NewToken { name, role, store_id, expires_at } = body.value;
        let store_id = own_store(&caller, store_id.map(|text| text.0))?;
        let store = self.0.store();
        if expires_at.is_some_and(|time| time.0 <= store.clock().now()) {
            return Err(Problem::invalid_field("expires_at", "is over; expected a time to come"));
        }
        let (token, token_hash) = passwords::new_api_token();
        let new = NewApiToken {
            name: &name.0,
            token_hash,
            role: role.0,
            store_id: store_id.as_deref(),
            created_by: Some(caller.user_id),
            expires_at: expires_at.map(|time| time.0),
        };
        let mut tx = store.begin().await?;
        let row = api_tokens::insert(&mut tx, store.clock(), new).await?;
        let mut shown = TokenAnswer::new(&row);
        let fields = &["name", "role", "store_id", "expires_at"];
        let changes = Changes::made(&shown.to_json().unwrap_or_default(), fields);
        self.audit(&mut tx, &caller, "token.create", &row, changes).await?;
        tx.commit().await?;
        shown.token = Some(token.expose_secret().to_owned());
        Ok(Answer(shown))
    }

    /// Show an API token
    #[oai(path = "/tokens/:token_id", method = "get", operation_id = "show_token", tag = "Tag::Tokens")]
    async fn show_token(&self, caller: Caller, token_id: Path<Uuid>) -> Result<Found<TokenAnswer>, Problem> {
        Ok(Answer(TokenAnswer::new(&self.visible(&caller, token_id.0).await?)))
    }

    /// Revoke an API token
    ///
    /// From this moment on it is nobody's, in every process.
    #[oai(path = "/tokens/:token_id", method = "delete", operation_id = "revoke_token", tag = "Tag::Tokens")]
    async fn revoke_token(&self, caller: Caller, token_id: Path<Uuid>) -> Result<Found<Success>, Problem> {
        let row = self.visible(&caller, token_id.0).await?;
        let store = self.0.store();
        let mut tx = store.begin().await?;
        if let Some(revoked) = api_tokens::revoke(&mut tx, store.clock(), row.id).await? {
            let shown = |row: &ApiToken| TokenAnswer::new(row).to_json().unwrap_or_default();
            let changes = Changes::between(&shown(&row), &shown(&revoked), &["revoked_at"]);
            self.audit(&mut tx, &caller, "token.revoke", &revoked, changes).await?;
        }
        tx.commit().await?;
        Ok(Success::answer(format!("the token `{}` is revoked", row.name)))
    }

    async fn visible(&self, caller: &Caller, id: Uuid) -> Result<ApiToken, Problem> {
        let found = api_tokens::find(self.0.store(), TokenId(id)).await?;
        found
            .filter(|row| in_scope(caller.scope(), row.store_id.as_deref()))
            .ok_or_else(|| Problem::not_found(format_args!("token `{id}`")))
    }

    async fn audit(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        action: &str,
        row: &ApiToken,
        changes: Changes,
    ) -> Result<(), Problem> {
        let (id, detail) = (row.id.to_string(), changes.into_detail());
        let mut entry = caller.audit(action, "token", &id);
        entry.store_id = row.store_id.as_deref();
        entry.detail = detail.as_deref();
        Ok(audit_logs::insert(tx, self.0.store().clock(), entry).await?)
    }
}
