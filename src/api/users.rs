//! The people who may sign in: made, changed, closed and given passwords by admins.
//!
//! An admin who has a store manages the people of that store and nobody else. A user is never deleted: the
//! account is closed, so that the audit still knows the name. Whoever loses a right loses the sessions too.

use poem::http::StatusCode;
use poem_openapi::param::{Path, Query};
use poem_openapi::types::{MaybeUndefined, ToJSON as _};
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;
use zhilian_sync_store::sessions;
use zhilian_sync_store::users::{self, Changed, Filter, NewUser, Standing, User};
use zhilian_sync_store::{Role, UserId, audit_logs};

use super::Tag;
use super::access::in_scope;
use super::answer::{Answer, Found};
use super::body::{Body, request_body};
use super::caller::Caller;
use super::changes::Changes;
use super::page::{Limit, Page, Wanted};
use super::passwords::{OpenSession, checked};
use super::problem::Problem;
use super::session::Success;
use super::values::{Choice, Flag, SecretText, Text, Time};
use crate::app::App;
use crate::auth;

/// The operations of this file.
pub struct Users(pub App);

request_body! {
    /// A new user.
    refuses_unknown pub struct NewUserRequest {
        /// What the user signs in with, in any case.
        username: Text<64>,
        /// The first password.
        password: SecretText,
        /// What the user may do.
        role: Choice<Role>,
        /// The only store the user sees; without one the whole chain.
        store_id: Option<Text<64>>,
    }
}

request_body! {
    /// What changes; what is absent stays as it is.
    refuses_unknown pub struct UserUpdate {
        /// What the user may do.
        role: Option<Choice<Role>>,
        /// The only store the user sees; null is the whole chain.
        store_id: MaybeUndefined<Text<64>>,
        /// Whether the user may sign in.
        active: Option<Flag>,
    }
}

request_body! {
    /// A password that an admin sets.
    refuses_unknown pub struct NewPassword {
        /// The password.
        password: SecretText,
    }
}

/// A user, as admins see it.
#[derive(Debug, Object)]
pub struct ManagedUser {
    /// The user's id.
    pub id: String,
    /// What the user signs in with.
    pub username: String,
    /// What the user may do.
    pub role: Choice<Role>,
    /// The only store the user sees; null sees the whole chain.
    pub store_id: Option<String>,
    /// Whether the user may sign in.
    pub active: bool,
    /// When the user signed in last.
    pub last_login_at: Option<Time>,
    /// When the password was set.
    pub password_changed_at: Time,
    /// When the user was made.
    pub created_at: Time,
    /// When something of it changed last.
    pub updated_at: Time,
}

impl ManagedUser {
    fn new(user: &User) -> Self {
        Self {
            id: user.id.to_string(),
            username: user.username.clone(),
            role: Choice(user.role),
            store_id: user.store_id.clone(),
            active: user.active,
            last_login_at: user.last_login_at.map(Time),
            password_changed_at: user.password_changed_at.into(),
            created_at: user.created_at.into(),
            updated_at: user.updated_at.into(),
        }
    }
}

#[OpenApi]
impl Users {
    /// List users
    #[oai(path = "/users", method = "get", operation_id = "list_users", tag = "Tag::Users")]
    async fn list_users(
        &self,
        caller: Caller,
        store_id: Query<Option<Text<64>>>,
        role: Query<Option<Choice<Role>>>,
        active: Query<Option<Flag>>,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<ManagedUser>, Problem> {
        let wanted = Wanted::new(limit.0, cursor.0.as_deref())?;
        let filter = Filter {
            scope: caller.scope(),
            store_id: store_id.0.as_ref().map(|text| text.0.as_str()),
            role: role.0.map(|choice| choice.0),
            active: active.0.map(|flag| flag.0),
            after: wanted.after.map(|(at, id)| (at, UserId(id))),
            limit: wanted.rows(),
        };
        let rows = users::list_newest(self.0.store(), &filter).await?;
        let position = |user: &User| (user.created_at, user.id.0);
        Ok(Page::new(rows, wanted, &caller.origin.uri, position, |user| ManagedUser::new(&user)))
    }

    /// Add a user
    #[oai(path = "/users", method = "post", operation_id = "create_user", tag = "Tag::Users")]
    async fn create_user(
        &self,
        caller: Caller,
        body: Body<NewUserRequest>,
    ) -> Result<Found<ManagedUser>, Problem> {
        let NewUserRequest { username, password, role, store_id } = body.value;
        let username = users::check_username(&username.0)
            .map_err(|detail| Problem::invalid_field("username", detail))?;
        let store_id = own_store(&caller, store_id.map(|text| text.0))?;
        let password_hash = auth::hash_new(self.0.gate(), checked("password", password)?).await?;
        let store = self.0.store();
        let mut tx = store.begin().await?;
        let new = NewUser {
            username: &username,
            password_hash: &password_hash,
            role: role.0,
            store_id: store_id.as_deref(),
        };
        let user = users::insert(&mut tx, store.clock(), new).await?;
        let shown = ManagedUser::new(&user);
        let changes = Changes::made(&shown.to_json().unwrap_or_default(), SHOWN_OF_AUDIT);
        self.audit(&mut tx, &caller, "user.create", &user, Some(changes)).await?;
        tx.commit().await?;
        Ok(Answer(shown))
    }

    /// Show a user
    #[oai(path = "/users/:user_id", method = "get", operation_id = "show_user", tag = "Tag::Users")]
    async fn show_user(&self, caller: Caller, user_id: Path<Uuid>) -> Result<Found<ManagedUser>, Problem> {
        Ok(Answer(ManagedUser::new(&self.visible(&caller, user_id.0).await?)))
    }

    /// Change a user
    ///
    /// Whoever may do something else from now on has to sign in again. The last admin of the whole chain stays
    /// one.
    #[oai(path = "/users/:user_id", method = "put", operation_id = "update_user", tag = "Tag::Users")]
    async fn update_user(
        &self,
        caller: Caller,
        user_id: Path<Uuid>,
        body: Body<UserUpdate>,
    ) -> Result<Found<ManagedUser>, Problem> {
        let user = self.visible(&caller, user_id.0).await?;
        let mut wanted = Standing::of(&user);
        let UserUpdate { role, store_id, active } = body.value;
        if let Some(role) = role {
            wanted.role = role.0;
        }
        match store_id {
            MaybeUndefined::Undefined => {}
            MaybeUndefined::Null if caller.scope().is_some() => return Err(no_other_store(&caller)),
            MaybeUndefined::Null => wanted.store_id = None,
            MaybeUndefined::Value(store_id) => wanted.store_id = own_store(&caller, Some(store_id.0))?,
        }
        if let Some(active) = active {
            wanted.active = active.0;
        }
        let changed = self.change(&caller, "user.update", &user, &wanted).await?;
        Ok(Answer(ManagedUser::new(&changed)))
    }

    /// Close a user's account
    ///
    /// The user cannot sign in any more; the name stays in the audit.
    #[oai(path = "/users/:user_id", method = "delete", operation_id = "delete_user", tag = "Tag::Users")]
    async fn delete_user(&self, caller: Caller, user_id: Path<Uuid>) -> Result<Found<Success>, Problem> {
        let user = self.visible(&caller, user_id.0).await?;
        let wanted = Standing { active: false, ..Standing::of(&user) };
        self.change(&caller, "user.delete", &user, &wanted).await?;
        Ok(Success::answer(format!("the account of `{}` is closed", user.username)))
    }

    /// Set a user's password
    ///
    /// All the user's sessions end.
    #[oai(
        path = "/users/:user_id/password",
        method = "post",
        operation_id = "set_user_password",
        tag = "Tag::Users"
    )]
    async fn set_user_password(
        &self,
        caller: Caller,
        user_id: Path<Uuid>,
        body: Body<NewPassword>,
    ) -> Result<Found<Success>, Problem> {
        let user = self.visible(&caller, user_id.0).await?;
        let password = checked("password", body.value.password)?;
        let hash = auth::hash_new(self.0.gate(), password).await?;
        let store = self.0.store();
        let mut tx = store.begin().await?;
        let ended = users::set_password(&mut tx, store.clock(), user.id, &hash).await?;
        let changes = Changes::default().secret("password");
        self.audit(&mut tx, &caller, "user.password", &user, Some(changes)).await?;
        tx.commit().await?;
        Ok(Success::answer(format!("the password of `{}` is set; {ended} sessions ended", user.username)))
    }

    /// List a user's open sessions
    #[oai(
        path = "/users/:user_id/sessions",
        method = "get",
        operation_id = "list_user_sessions",
        tag = "Tag::Users"
    )]
    async fn list_user_sessions(
        &self,
        caller: Caller,
        user_id: Path<Uuid>,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<OpenSession>, Problem> {
        let user = self.visible(&caller, user_id.0).await?;
        OpenSession::page(self.0.store(), &caller, user.id, Wanted::new(limit.0, cursor.0.as_deref())?).await
    }

    /// End a user's sessions
    #[oai(
        path = "/users/:user_id/sessions",
        method = "delete",
        operation_id = "end_user_sessions",
        tag = "Tag::Users"
    )]
    async fn end_user_sessions(
        &self,
        caller: Caller,
        user_id: Path<Uuid>,
    ) -> Result<Found<Success>, Problem> {
        let user = self.visible(&caller, user_id.0).await?;
        let store = self.0.store();
        let mut tx = store.begin().await?;
        let ended = sessions::end_all_of_user(&mut tx, store.clock(), user.id).await?;
        self.audit(&mut tx, &caller, "user.sessions_end", &user, None).await?;
        tx.commit().await?;
        Ok(Success::answer(format!("{ended} sessions of `{}` ended", user.username)))
    }

    /// The user, if it exists for this caller.
    async fn visible(&self, caller: &Caller, id: Uuid) -> Result<User, Problem> {
        let found = users::find(self.0.store(), UserId(id)).await?;
        found
            .filter(|user| in_scope(caller.scope(), user.store_id.as_deref()))
            .ok_or_else(|| Problem::not_found(format_args!("user `{id}`")))
    }

    async fn change(
        &self,
        caller: &Caller,
        action: &str,
        user: &User,
        wanted: &Standing,
    ) -> Result<User, Problem> {
        if Standing::of(user) == *wanted {
            return Ok(user.clone());
        }
        let store = self.0.store();
        let mut tx = store.begin().await?;
        let changed = match users::change(&mut tx, store.clock(), user, wanted).await? {
            Changed::Done(changed, _) => changed,
            Changed::LastAdmin => {
                let detail = "nobody would be left who sees the whole chain and may do everything; make another admin first";
                return Err(Problem::conflict("last_admin", detail));
            }
            Changed::Meanwhile => {
                let detail = "somebody else changed the user at the same time; read it again";
                return Err(Problem::conflict("conflict", detail));
            }
        };
        let shown = |user: &User| ManagedUser::new(user).to_json().unwrap_or_default();
        let changes = Changes::between(&shown(user), &shown(&changed), SHOWN_OF_AUDIT);
        self.audit(&mut tx, caller, action, &changed, Some(changes)).await?;
        tx.commit().await?;
        Ok(*changed)
    }

    async fn audit(
        &self,
        tx: &mut zhilian_sync_store::Tx,
        caller: &Caller,
        action: &str,
        user: &User,
        changes: Option<Changes>,
    ) -> Result<(), Problem> {
        let id = user.id.to_string();
        let detail = changes.and_then(Changes::into_detail);
        let mut entry = caller.audit(action, "user", &id);
        entry.store_id = user.store_id.as_deref();
        entry.detail = detail.as_deref();
        Ok(audit_logs::insert(tx, self.0.store().clock(), entry).await?)
    }
}

/// What the audit shows of a user, before and after.
const SHOWN_OF_AUDIT: &[&str] = &["username", "role", "store_id", "active"];

/// The store of somebody whom this caller makes or changes: a caller who has one gives no other.
pub(super) fn own_store(caller: &Caller, wanted: Option<String>) -> Result<Option<String>, Problem> {
    match caller.scope() {
        None => Ok(wanted),
        Some(own) if wanted.as_deref().is_none_or(|wanted| wanted == own) => Ok(Some(own.to_owned())),
        Some(_) => Err(no_other_store(caller)),
    }
}

fn no_other_store(caller: &Caller) -> Problem {
    let own = caller.scope().unwrap_or_default();
    let detail = format!("an admin of store `{own}` gives nobody another store, nor the whole chain");
    Problem::new(StatusCode::FORBIDDEN, "other_store", detail)
}
