//! `Idempotency-Key`: a POST that is sent again gets the answer of the first, and has no second effect.
//!
//! ```text
//! key free ─▶ taken for the time of a request ─▶ the work ─┬─ done ────▶ its answer is kept for a day
//!    ▲                                                     └─ refused ─▶ given up: the next is worked on anew
//!    └────────────── whoever dies in between: the key expires soon
//! ```
//!
//! A key belongs to its caller, operation and path; the same key with another body is a mistake and is told so.
//! The work and its answer are two transactions. Whoever is killed between them has done the work and kept no
//! answer; the repetition is worked on again, which for records changes nothing: they are known by the vendor's
//! id. Answers that show a secret once are never kept, so those operations take no key.

use chrono::TimeDelta;
use poem::http::{HeaderName, HeaderValue, Method, StatusCode};
use poem::{Body, Endpoint, IntoResponse as _, Request, Response, Route as Router};
use sha2::{Digest as _, Sha256};
use zhilian_sync_store::StoreError;
use zhilian_sync_store::idempotency_keys::{self, Begun, Kept};

use super::Route;
use super::access::Access;
use super::caller::Caller;
use super::problem::Problem;
use crate::app::App;

/// The header that names a request.
pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest key.
pub const KEY_CHARS_MAX: usize = 255;
/// How long an answer is kept.
const KEPT: TimeDelta = TimeDelta::hours(24);
/// What a key is taken for beyond the longest time of a request.
const MARGIN: TimeDelta = TimeDelta::seconds(30);
/// What an answer is at most to be kept; a batch of a thousand has some 200 KB.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Operations whose answer shows a secret once, or ends what the key belongs to.
const WITHOUT_KEY: &[&str] =
    &["sign_out", "rotate_webhook_secret", "create_token", "change_password", "set_user_password"];

/// Whether an operation takes a key.
pub fn takes_key(route: &Route) -> bool {
    route.method == Method::POST
        && matches!(route.access, Access::Needs(_))
        && !WITHOUT_KEY.contains(&route.operation)
}

/// What a request is asked with.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The operation.
    pub route: &'a Route,
    /// Who asks.
    pub caller: &'a Caller,
    /// The largest body.
    pub body_bytes_max: usize,
}

/// Answers a request that has a key, once.
pub async fn answer(
    app: &App,
    router: &Router,
    mut request: Request,
    asked: Asked<'_>,
) -> poem::Result<Response> {
    let key = read_key(&request, asked.route)?;
    let body = request.take_body().into_bytes_limit(asked.body_bytes_max).await.map_err(Problem::from)?;
    let uri = &asked.caller.origin.uri;
    let scope = format!("{} {} {}", asked.caller.identity(), asked.route.operation, uri.path());
    let mut hash = Sha256::new();
    hash.update(uri.query().unwrap_or_default());
    hash.update([0]);
    hash.update(&body);
    let hash = keyed(app, &hash.finalize())?;
    let taking = idempotency_keys::Request { scope: &scope, key: &key, hash: &hash };
    let timeout = i64::try_from(app.settings().server.request_timeout_secs).unwrap_or(i64::MAX / 2_000);
    let lease = TimeDelta::seconds(timeout) + MARGIN;
    let begun = idempotency_keys::begin(app.store(), taking, lease).await.map_err(Problem::from)?;
    let begun_at = match begun {
        Begun::New(at) => at,
        Begun::Answered { status, response } => return Ok(replay(status, response)),
        Begun::InProgress => {
            let detail =
                "the first request with this `Idempotency-Key` is being worked on; ask again in a moment";
            return Err(Problem::conflict("idempotency_in_progress", detail).retry_later().into());
        }
        Begun::OtherRequest => {
            let detail =
                "this `Idempotency-Key` was used for another request; expected a new key for a new request";
            return Err(
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail).into()
            );
        }
    };
    request.set_body(body);
    match router.call(request).await {
        Ok(response) if response.status().is_success() => Ok(keep(app, taking, begun_at, response).await),
        refused => {
            // The refusal stands whatever becomes of the key, which expires by itself.
            if let Err(error) = idempotency_keys::release(app.store(), taking, begun_at).await {
                tracing::warn!(%error, "an idempotency key could not be given up; it expires by itself");
            }
            refused
        }
    }
}

/// With the vault's key in it: a body may hold a password or a secret, and a plain hash of one that is short can be
/// guessed by whoever has the database. Under another key the same request is another one, for a day at most.
fn keyed(app: &App, hash: &[u8]) -> Result<[u8; 32], Problem> {
    let keyed = app.store().vault().fingerprint(&hex::encode(hash), "idempotency");
    let keyed = keyed.map_err(|error| Problem::from(StoreError::from(error)))?;
    Ok(Sha256::digest(keyed).into())
}

/// Keeps the answer. One that cannot be kept is given all the same: the work is done.
async fn keep(
    app: &App,
    taken: idempotency_keys::Request<'_>,
    begun_at: chrono::DateTime<chrono::Utc>,
    response: Response,
) -> Response {
    let (parts, body) = response.into_parts();
    let status = parts.status;
    let bytes = match body.into_bytes_limit(ANSWER_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(%error, "an answer could not be read");
            return Problem::internal().into_response_with(taken.key);
        }
    };
    if let Ok(text) = std::str::from_utf8(&bytes) {
        let kept = Kept { status: status.as_u16().into(), response: text, ttl: KEPT };
        match idempotency_keys::finish(app.store(), taken, begun_at, kept).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!("a request took longer than its idempotency key was taken for"),
            Err(error) => {
                tracing::warn!(%error, "the answer of a request with an idempotency key is not kept");
            }
        }
    }
    Response::from_parts(parts, Body::from(bytes))
}

fn replay(status: i64, response: String) -> Response {
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let mut answer = Response::builder()
        .status(status.unwrap_or(StatusCode::OK))
        .content_type("application/json")
        .body(response)
        .into_response();
    answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    answer
}

fn read_key(request: &Request, route: &Route) -> Result<String, Problem> {
    let wrong = |detail: String| Problem::invalid_field("Idempotency-Key", detail);
    if !takes_key(route) {
        return Err(wrong("is not taken here: the answer shows what is not kept; send no key".to_owned()));
    }
    let key = request.header(KEY).unwrap_or_default();
    let fit =
        !key.is_empty() && key.len() <= KEY_CHARS_MAX && key.bytes().all(|byte| byte.is_ascii_graphic());
    if fit {
        return Ok(key.to_owned());
    }
    Err(wrong(format!("is not a key; expected 1 to {KEY_CHARS_MAX} visible ASCII characters")))
}
