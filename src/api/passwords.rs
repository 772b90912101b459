//! One's own password and one's own sessions.

use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;
use zhilian_sync_store::passwords::PASSWORD_BYTES_MAX;
use zhilian_sync_store::sessions::{self, Session};
use zhilian_sync_store::{SessionId, Store, UserId, audit_logs, users};

use super::Tag;
use super::answer::Found;
use super::body::{Body, request_body};
use super::caller::Caller;
use super::changes::Changes;
use super::page::{Limit, Page, Wanted};
use super::problem::Problem;
use super::session::Success;
use super::values::{SecretText, Time};
use crate::app::App;
use crate::auth::{self, PASSWORD_CHARS_MIN};

/// The operations of this file.
pub struct Own(pub App);

request_body! {
    /// A new password of one's own.
    refuses_unknown pub struct PasswordChange {
        /// The password as it is.
        current_password: SecretText,
        /// The password as it shall be.
        new_password: SecretText,
    }
}

/// A session that is open.
#[derive(Debug, Object)]
pub struct OpenSession {
    /// Its id.
    pub id: String,
    /// From which address the person signed in.
    pub address: Option<String>,
    /// With which program.
    pub user_agent: Option<String>,
    /// When the person signed in.
    pub created_at: Time,
    /// When it was used last, to within a minute.
    pub last_seen_at: Time,
    /// When it ends by itself.
    pub expires_at: Time,
    /// Whether it is the one of this request.
    pub current: bool,
}

impl OpenSession {
    /// A page of a user's open sessions.
    pub async fn page(
        store: &Store,
        caller: &Caller,
        user: UserId,
        wanted: Wanted,
    ) -> Result<Page<Self>, Problem> {
        let before = wanted.after.map(|(at, id)| (at, SessionId(id)));
        let rows = sessions::list_of_user(store, user, before, wanted.rows()).await?;
        let current = caller.session().ok();
        let show = |row: Session| Self {
            current: current == Some(row.id),
            id: row.id.to_string(),
            address: row.address,
            user_agent: row.user_agent,
            created_at: row.created_at.into(),
            last_seen_at: row.last_seen_at.into(),
            expires_at: row.expires_at.into(),
        };
        Ok(Page::new(rows, wanted, &caller.origin.uri, |row| (row.created_at, row.id.0), show))
    }
}

#[OpenApi]
impl Own {
    /// Change my password
    ///
    /// All my other sessions end.
    #[oai(path = "/auth/password", method = "post", operation_id = "change_password", tag = "Tag::Session")]
    async fn change_password(
        &self,
        caller: Caller,
        body: Body<PasswordChange>,
    ) -> Result<Found<Success>, Problem> {
        let session = caller.session()?;
        let PasswordChange { current_password, new_password } = body.value;
        let new_password = checked("new_password", new_password)?;
        let store = self.0.store();
        let user = users::get(store, caller.user_id).await?;
        let address = caller.address.as_deref();
        let is_right =
            auth::check(store, self.0.gate(), &self.0.settings().auth, address, &user, &current_password.0)
                .await?;
        let wrong = || Problem::forbidden("wrong_password", "`current_password` is not the present password");
        if !is_right {
            return Err(wrong());
        }
        let hash = auth::hash_new(self.0.gate(), new_password).await?;
        let mut tx = store.begin().await?;
        let ended = users::change_password(&mut tx, store.clock(), &user, &hash, session).await?;
        // Changed by somebody else meanwhile: what was verified is not the password any more.
        let ended = ended.ok_or_else(wrong)?;
        let (id, detail) = (user.id.to_string(), Changes::default().secret("password").into_detail());
        let mut entry = caller.audit("user.password", "user", &id);
        entry.store_id = user.store_id.as_deref();
        entry.detail = detail.as_deref();
        audit_logs::insert(&mut tx, store.clock(), entry).await?;
        tx.commit().await?;
        Ok(Success::answer(format!("the password is changed; {ended} other sessions ended")))
    }

    /// List my open sessions
    #[oai(path = "/auth/sessions", method = "get", operation_id = "list_sessions", tag = "Tag::Session")]
    async fn list_sessions(
        &self,
        caller: Caller,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<OpenSession>, Problem> {
        caller.session()?;
        let wanted = Wanted::new(limit.0, cursor.0.as_deref())?;
        OpenSession::page(self.0.store(), &caller, caller.user_id, wanted).await
    }

    /// End one of my sessions
    #[oai(
        path = "/auth/sessions/:session_id",
        method = "delete",
        operation_id = "end_session",
        tag = "Tag::Session"
    )]
    async fn end_session(&self, caller: Caller, session_id: Path<Uuid>) -> Result<Found<Success>, Problem> {
        caller.session()?;
        let store = self.0.store();
        let mut tx = store.begin().await?;
        let session = SessionId(session_id.0);
        if !sessions::end_of_user(&mut tx, store.clock(), caller.user_id, session).await? {
            return Err(Problem::not_found(format_args!("open session `{session}`")));
        }
        let id = session.to_string();
        let mut entry = caller.audit("session.end", "session", &id);
        entry.store_id = caller.scope();
        audit_logs::insert(&mut tx, store.clock(), entry).await?;
        tx.commit().await?;
        Ok(Success::answer("the session is ended"))
    }
}

/// A password that is long enough, and not too long to be hashed.
pub(super) fn checked(field: &str, password: SecretText) -> Result<SecretString, Problem> {
    let chars = password.0.expose_secret().chars().count();
    if chars < PASSWORD_CHARS_MIN {
        let detail = format!("has {chars} characters; expected at least {PASSWORD_CHARS_MIN}");
        return Err(Problem::invalid_field(field, detail));
    }
    let bytes = password.0.expose_secret().len();
    if bytes > PASSWORD_BYTES_MAX {
        let detail = format!("has {bytes} bytes; expected at most {PASSWORD_BYTES_MAX}");
        return Err(Problem::invalid_field(field, detail));
    }
    Ok(password.0)
}
