//! Signing in and out, and who one is.

use poem::http::{StatusCode, header};
use poem::{IntoResponse, Request, Response};
use poem_openapi::registry::{MetaResponses, Registry};
use poem_openapi::{ApiResponse, Object, OpenApi};
use secrecy::ExposeSecret as _;
use zhilian_sync_store::users::User;
use zhilian_sync_store::{Role, audit_logs, sessions};

use super::Tag;
use super::answer::{Answer, Found};
use super::body::{Body, request_body};
use super::caller::{COOKIE, Caller, Origin};
use super::problem::Problem;
use super::values::{Choice, Flag, SecretText, Text, Time};
use crate::app::App;
use crate::auth::{self, Refusal};

/// The operations of this file.
pub struct Session(pub App);

request_body! {
    /// Who signs in.
    accepts_unknown pub struct Credentials {
        /// The user name, in any case.
        username: Text<200>,
        /// The password.
        password: SecretText,
        /// For browsers: put the token into a cookie and not into the answer.
        cookie: Option<Flag>,
    }
}

/// An open session.
#[derive(Debug, Object)]
pub struct SessionAnswer {
    /// The token for `Authorization: Bearer …`; absent where a cookie holds it.
    #[oai(skip_serializing_if_is_none)]
    pub access_token: Option<String>,
    /// Always `bearer`.
    pub token_type: String,
    /// When the session ends by itself.
    pub expires_at: Time,
    /// Who is signed in.
    pub user: UserAnswer,
}

/// A user, as the user sees it.
#[derive(Debug, Object)]
pub struct UserAnswer {
    /// The user's id.
    pub id: String,
    /// What the user signs in with.
    pub username: String,
    /// What the user may do.
    pub role: Choice<Role>,
    /// The only store the user sees; null sees the whole chain.
    pub store_id: Option<String>,
}

/// What was done, in the seed's form.
#[derive(Debug, Object)]
pub struct Success {
    /// Always true.
    pub success: bool,
    /// In words.
    pub message: String,
}

impl Success {
    /// It was done.
    pub fn answer(message: impl Into<String>) -> Found<Self> {
        Answer(Self { success: true, message: message.into() })
    }
}

/// An answer that also sets or takes away the cookie.
#[derive(Debug)]
pub struct WithCookie<A> {
    answer: A,
    cookie: Option<String>,
}

impl<A: IntoResponse> IntoResponse for WithCookie<A> {
    fn into_response(self) -> Response {
        let mut response = self.answer.into_response();
        if let Some(Ok(cookie)) = self.cookie.map(|cookie| cookie.parse()) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }
}

impl<A: ApiResponse> ApiResponse for WithCookie<A> {
    fn meta() -> MetaResponses {
        A::meta()
    }

    fn register(registry: &mut Registry) {
        A::register(registry);
    }
}

#[OpenApi]
impl Session {
    /// Sign in
    #[oai(path = "/auth/login", method = "post", operation_id = "sign_in", tag = "Tag::Session")]
    async fn sign_in(
        &self,
        request: &Request,
        origin: Origin,
        body: Body<Credentials>,
    ) -> Result<WithCookie<Found<SessionAnswer>>, Problem> {
        let Credentials { username, password, cookie } = body.value;
        let settings = self.0.settings();
        let address = origin.address.map(|address| address.to_string());
        let attempt = auth::Attempt {
            username: &username.0,
            password: &password.0,
            address: address.as_deref(),
            user_agent: request.header(header::USER_AGENT),
            request_id: &origin.request_id,
            settings: &settings.auth,
        };
        let signed_in = auth::sign_in(self.0.store(), self.0.gate(), attempt).await?;
        let token = signed_in.token.expose_secret();
        let by_cookie = cookie.is_some_and(|cookie| cookie.0);
        let answer = SessionAnswer {
            access_token: (!by_cookie).then(|| token.to_owned()),
            token_type: "bearer".to_owned(),
            expires_at: signed_in.expires_at.into(),
            user: user_answer(&signed_in.user),
        };
        let cookie = by_cookie.then(|| {
            let secs = i64::from(settings.auth.session_hours) * 3600;
            set_cookie(token, secs, &settings.server.public_url)
        });
        Ok(WithCookie { answer: Answer(answer), cookie })
    }

    /// Sign out
    #[oai(path = "/auth/logout", method = "post", operation_id = "sign_out", tag = "Tag::Session")]
    async fn sign_out(&self, caller: Caller) -> Result<WithCookie<Found<Success>>, Problem> {
        let session = caller.session()?;
        let store = self.0.store();
        let mut tx = store.begin().await?;
        sessions::end(&mut tx, store.clock(), session).await?;
        let id = caller.user_id.to_string();
        let mut entry = caller.audit("session.sign_out", "user", &id);
        entry.store_id = caller.scope();
        audit_logs::insert(&mut tx, store.clock(), entry).await?;
        tx.commit().await?;
        // Takes the cookie away where there is one.
        let cookie = Some(set_cookie("", 0, &self.0.settings().server.public_url));
        Ok(WithCookie { answer: Success::answer("signed out"), cookie })
    }

    /// Who am I
    #[oai(path = "/auth/me", method = "get", operation_id = "show_me", tag = "Tag::Session")]
    #[expect(clippy::unused_async, reason = "the framework awaits every handler")]
    async fn show_me(&self, caller: Caller) -> Result<Found<UserAnswer>, Problem> {
        Ok(Answer(UserAnswer {
            id: caller.user_id.to_string(),
            username: caller.username,
            role: Choice(caller.role),
            store_id: caller.store_id,
        }))
    }
}

fn user_answer(user: &User) -> UserAnswer {
    UserAnswer {
        id: user.id.to_string(),
        username: user.username.clone(),
        role: Choice(user.role),
        store_id: user.store_id.clone(),
    }
}

fn set_cookie(token: &str, max_age_secs: i64, public_url: &str) -> String {
    let secure = if public_url.starts_with("https:") { "; Secure" } else { "" };
    format!("{COOKIE}={token}; Path=/; Max-Age={max_age_secs}; HttpOnly; SameSite=Strict{secure}")
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::WrongCredentials => Self::unauthorized("wrong_credentials", refusal.to_string()),
            Refusal::TooMany => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_sign_ins", refusal.to_string())
                    .retry_later()
            }
            Refusal::TooOften(wait) => {
                let secs = u32::try_from(wait.as_secs() + 1).unwrap_or(u32::MAX);
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_sign_ins", refusal.to_string())
                    .retry_after(secs)
            }
            Refusal::NotHashed => Self::internal(),
            Refusal::Store(error) => error.into(),
        }
    }
}
