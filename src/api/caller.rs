//! Who is calling: a session's opaque token in the `Authorization` header, or in a cookie for browsers.
//!
//! A cookie is sent by the browser whoever made it send the request, so a request that changes something
//! by cookie must also come from our own pages: the cookie is `SameSite=Strict`, and the `Origin` must be
//! ours.

use std::net::IpAddr;
use std::sync::Arc;

use poem::http::{HeaderMap, Method, Uri, header};
use poem::{FromRequest, Request, RequestBody};
use url::Url;
use zhilian_sync_store::audit_logs::NewAuditLog;
use zhilian_sync_store::{Role, SessionId, UserId, passwords, sessions};

use super::access::{self, Permission};
use super::problem::Problem;
use crate::app::App;
use crate::config::ServerSettings;

/// The cookie that holds a session's token.
pub const COOKIE: &str = "zhilian_session";
/// Tokens have 43 characters; anything much longer is not worth hashing.
const TOKEN_BYTES_MAX: usize = 200;

/// Where a request came from and what it is called; every request has it.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Names the request in logs, answers and the audit.
    pub request_id: Arc<str>,
    /// The client's address, as far as it can be told.
    pub address: Option<IpAddr>,
    /// What was asked for; the router cuts the base path off the request's own.
    pub uri: Uri,
}

/// A person who is signed in.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub user_id: UserId,
    /// The name.
    pub username: String,
    /// What the person may do.
    pub role: Role,
    /// The only store the person may see; `None` sees the whole chain.
    pub store_id: Option<String>,
    /// By which session.
    pub session_id: SessionId,
    /// From which address, as the audit writes it.
    pub address: Option<String>,
    /// Where from.
    pub origin: Origin,
}

impl Caller {
    /// Tells this caller from every other.
    pub fn identity(&self) -> String {
        self.user_id.to_string()
    }

    /// The store to which the caller is confined.
    pub fn scope(&self) -> Option<&str> {
        self.store_id.as_deref()
    }

    /// Whether the caller may do this.
    pub fn may(&self, permission: Permission) -> bool {
        access::allows(self.role, permission)
    }

    /// An audit row of something that this caller does.
    pub fn audit<'a>(&'a self, action: &'a str, entity: &'a str, entity_id: &'a str) -> NewAuditLog<'a> {
        NewAuditLog {
            actor_id: Some(self.user_id),
            actor_name: Some(&self.username),
            address: self.address.as_deref(),
            action,
            entity,
            entity_id: Some(entity_id),
            store_id: None,
            request_id: Some(&*self.origin.request_id),
            detail: None,
        }
    }
}

impl<'a> FromRequest<'a> for Caller {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        // The access check put it there; a public route has none.
        let caller = request.data::<Self>().cloned();
        Ok(caller.ok_or_else(|| Problem::unauthorized("unauthorized", "sign in first"))?)
    }
}

impl<'a> FromRequest<'a> for Origin {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        Ok(request.data::<Self>().cloned().ok_or_else(Problem::internal)?)
    }
}

/// The caller of a request, or why nobody is.
pub async fn authenticate(app: &App, request: &Request, origin: &Origin) -> Result<Caller, Problem> {
    let token = token(request, &app.settings().server)?;
    let store = app.store();
    let live = sessions::find_live(store, &passwords::token_hash(token), store.clock().now()).await?;
    let live = live.ok_or_else(|| {
        Problem::unauthorized("invalid_token", "the token is unknown or its session has ended; sign in again")
    })?;
    sessions::touch(store, &live).await?;
    let user = live.user;
    Ok(Caller {
        user_id: user.id,
        username: user.username,
        role: user.role,
        store_id: user.store_id,
        session_id: live.session_id,
        address: origin.address.map(|address| address.to_string()),
        origin: origin.clone(),
    })
}

fn token<'a>(request: &'a Request, server: &ServerSettings) -> Result<&'a str, Problem> {
    let missing = || {
        Problem::unauthorized(
            "unauthorized",
            "sign in first: `Authorization: Bearer TOKEN` of POST /api/v1/auth/login",
        )
    };
    if let Some(value) = request.headers().get(header::AUTHORIZATION) {
        let text = value.to_str().map_err(|_| missing())?;
        let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
        return Some(token.trim())
            .filter(|token| scheme.eq_ignore_ascii_case("bearer") && token.len() <= TOKEN_BYTES_MAX)
            .ok_or_else(missing);
    }
    let token =
        cookie(request.headers()).filter(|token| token.len() <= TOKEN_BYTES_MAX).ok_or_else(missing)?;
    if !is_safe(request.method()) && !is_own_origin(request.headers(), &server.public_url) {
        let detail = "a change by cookie must come from this service's own pages; expected its `Origin`";
        return Err(Problem::forbidden("foreign_origin", detail));
    }
    Ok(token)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// The `Origin` is the public address, or the host that was asked.
fn is_own_origin(headers: &HeaderMap, public_url: &str) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN).and_then(|origin| Url::parse(origin).ok()) else {
        return false;
    };
    if !public_url.is_empty() {
        return Url::parse(public_url).is_ok_and(|url| url.origin() == origin.origin());
    }
    let Some(host) = text(header::HOST) else {
        return false;
    };
    // Parsed with the same scheme, so that a default port left out is the same as one written.
    Url::parse(&format!("{}://{host}", origin.scheme())).is_ok_and(|url| url.origin() == origin.origin())
}

/// The address of the client: the peer's, or what a proxy that we trust says.
pub fn client_address(request: &Request, trusted: &[IpAddr]) -> Option<IpAddr> {
    let peer = request.remote_addr().as_socket_addr()?.ip();
    Some(client_behind(peer, request.headers(), trusted))
}

fn client_behind(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> IpAddr {
    if !trusted.contains(&peer) {
        return peer;
    }
    let forwarded = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<IpAddr> =
        forwarded.flat_map(|value| value.split(',')).filter_map(|hop| hop.trim().parse().ok()).collect();
    // Proxies append, so the last address that is not a proxy of ours is the one they vouch for.
    hops.into_iter().rev().find(|hop| !trusted.contains(hop)).unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderName;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_cookie_counts_only_with_our_own_origin() {
        let own = |origin: &str, host: &str, public: &str| {
            is_own_origin(&headers(&[("origin", origin), ("host", host)]), public)
        };
        assert!(own("http://127.0.0.1:8000", "127.0.0.1:8000", ""));
        assert!(own("https://sync.example.com", "sync.example.com:443", ""));
        assert!(own("https://sync.example.com", "inner:8000", "https://sync.example.com"));
        assert!(!own("https://evil.example", "sync.example.com", ""));
        assert!(!own("https://sync.example.com.evil.example", "sync.example.com", ""));
        assert!(!own("null", "sync.example.com", ""));
        assert!(!is_own_origin(&headers(&[("host", "sync.example.com")]), ""));
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = ["10.0.0.1".parse().unwrap()];
        let asked = |peer: &str, forwarded: &str| {
            client_behind(peer.parse().unwrap(), &headers(&[("x-forwarded-for", forwarded)]), &trusted)
                .to_string()
        };
        assert_eq!(asked("10.0.0.1", "6.6.6.6, 9.9.9.9, 10.0.0.1"), "9.9.9.9");
        assert_eq!(asked("10.0.0.2", "6.6.6.6"), "10.0.0.2");
        assert_eq!(asked("10.0.0.1", "nonsense"), "10.0.0.1");
    }

    #[test]
    fn the_right_cookie_is_found_among_others() {
        let headers = headers(&[("cookie", "a=b; zhilian_session=tok; c=d")]);
        assert_eq!(cookie(&headers), Some("tok"));
    }
}
