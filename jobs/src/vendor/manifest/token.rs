//! Access tokens that the vendor gives for the credentials: `[auth]` with `kind = "token"` or `"oauth2"`. What
//! OAuth 2 says about the request is filled in here, so that the client knows one kind of token call.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Auth;
use super::section::Section;
use super::signing::{Place, Signing, read_signing};
use super::stream::read::read_request_of;
use super::stream::{BodyAs, Request};
use crate::vendor::expression::Expression;
use crate::vendor::path::Path;
use crate::vendor::template::{JsonTemplate, Slot, Template};

const EXPIRES_SECS_MAX: i64 = 366 * 86_400;

/// How a token is got and where it goes.
#[derive(Debug)]
pub(crate) struct TokenSpec {
    pub(crate) request: Request,
    /// Where the vendor gives its tokens at another address than the rest.
    pub(crate) endpoint: Option<reqwest::Url>,
    /// Whether the request has what all requests have in common.
    pub(crate) common: bool,
    /// How the request is signed, where it is.
    pub(crate) signing: Option<Signing>,
    /// User and password of the request, as OAuth 2 has them.
    pub(crate) basic: Option<(Template, Template)>,
    pub(crate) success: Option<Expression>,
    /// Where the token is in the answer.
    pub(crate) token: Vec<Path>,
    pub(crate) expires_in: Expiry,
    pub(crate) refresh: Option<Refresh>,
    /// Nothing where `{token}` stands in the requests.
    pub(crate) place: Option<Place>,
    /// What is put there.
    pub(crate) value: Template,
}

/// How long a token is good.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    Unknown,
    After(Duration),
    /// Where the answer says how many seconds.
    Told(Vec<Path>),
}

/// What the next token is asked for with, where that is not the credentials alone.
#[derive(Debug)]
pub(crate) struct Refresh {
    /// The first one, which a person entered.
    pub(crate) first: Template,
    /// Where the answer has the next one; without one the old stays good.
    pub(crate) next: Vec<Path>,
}

impl TokenSpec {
    /// The placeholders of the request and of its signature, with the keys they stand at.
    pub(in crate::vendor) fn slots(&self) -> Vec<(&'static str, &Slot)> {
        let request = self.request.slots().into_iter();
        let basic = self.basic.iter().flat_map(|(user, password)| user.slots().chain(password.slots()));
        let signing = self.signing.iter().flat_map(Signing::slots);
        let first = self.refresh.iter().flat_map(|refresh| refresh.first.slots());
        request
            .chain(basic)
            .map(|slot| ("auth.request", slot))
            .chain(signing.map(|slot| ("auth.signing", slot)))
            .chain(first.map(|slot| ("auth.refresh_token", slot)))
            .collect()
    }
}

/// Reads `[auth]` of either kind.
pub(super) fn read_token(section: &Section<'_>, signing: Option<&toml::Table>, oauth2: bool) -> Option<Auth> {
    let oauth2 = if oauth2 { Some(read_oauth2(section)) } else { None };
    let request = section.required(
        "request",
        section.section("request"),
        "say how a token is asked for, as `request.path = \"/oauth/token\"`",
    );
    let is_oauth2 = oauth2.is_some();
    let request = request.and_then(|section| read_token_request(section, is_oauth2));
    let token = section.paths("token").or_else(|| is_oauth2.then(|| member("access_token")));
    let token = section.required("token", token, "give the path of the token in the answer");
    let refresh_token = section.template("refresh_token");
    let next = section.paths("next_refresh_token").unwrap_or_else(|| member("refresh_token"));
    let place = section.parsed("place", Place::parse);
    let value = section.template("value");
    if let Some(value) = &value
        && !value.slots().any(|slot| *slot == Slot::Token)
    {
        section.problem("value", "has no `{token}`, so the token would not be sent");
    }
    let expires_in = read_expiry(section, is_oauth2);
    let success = section.expression("success", &["status", "body"]);
    let endpoint = section.parsed("endpoint", read_endpoint);
    let signing = read_own_signing(section, signing);
    let (mut request, common) = request?;
    let (basic, value_default) = match oauth2 {
        Some(oauth2) => (oauth2?.apply(&mut request, section, refresh_token.is_some()), "Bearer {token}"),
        None => (None, "{token}"),
    };
    let signing = signing.filter(|_| request.signed);
    let header = || is_oauth2.then(|| Place::Header("Authorization".into()));
    Some(Auth::Token(Box::new(TokenSpec {
        request,
        endpoint,
        common,
        signing,
        basic,
        success,
        token: token?,
        expires_in,
        refresh: refresh_token.map(|first| Refresh { first, next }),
        place: place.or_else(header),
        value: value.or_else(|| Template::parse(value_default).ok())?,
    })))
}

fn read_token_request(section: Section<'_>, oauth2: bool) -> Option<(Request, bool)> {
    let (get, post) = (("GET", reqwest::Method::GET), ("POST", reqwest::Method::POST));
    let methods = if oauth2 { [post, get] } else { [get, post] };
    let mut request = read_request_of(&section, &methods);
    // OAuth 2 is a form wherever it is not said to be JSON.
    if let Some(request) = &mut request
        && oauth2
        && !section.has("body_as")
    {
        request.body_as = BodyAs::Form;
    }
    let common = section.flag("common").unwrap_or(!oauth2);
    section.finish();
    Some((request?, common))
}

/// The vendor's signing with the token call's own keys over it: another content, as a rule.
fn read_own_signing(section: &Section<'_>, signing: Option<&toml::Table>) -> Option<Signing> {
    let own = section.value("signing");
    if own.is_none() && signing.is_none() {
        return None;
    }
    let mut table = signing.cloned().unwrap_or_default();
    match own {
        Some(toml::Value::Table(own)) => table.extend(own.clone()),
        Some(_) => {
            section.problem("signing", "expected a table of the keys of `[signing]` that differ");
            return None;
        }
        None => {}
    }
    read_signing(Section::new(&table, section.name("signing"), section.problems()))
}

fn read_expiry(section: &Section<'_>, oauth2: bool) -> Expiry {
    match section.value("expires_in") {
        Some(toml::Value::Integer(secs)) => {
            let inside = u64::try_from(*secs).ok().filter(|_| (1..=EXPIRES_SECS_MAX).contains(secs));
            if let Some(secs) = inside {
                return Expiry::After(Duration::from_secs(secs));
            }
            let problem = format!("`{secs}` is out of range; expected 1 to {EXPIRES_SECS_MAX}");
            section.problem("expires_in", problem);
        }
        Some(_) => return section.paths("expires_in").map_or(Expiry::Unknown, Expiry::Told),
        None if oauth2 => return Expiry::Told(member("expires_in")),
        None => {}
    }
    Expiry::Unknown
}

fn read_endpoint(text: &str) -> Result<reqwest::Url, String> {
    let url: reqwest::Url = text.parse().map_err(|error| format!("`{text}` is not an address: {error}"))?;
    if matches!(url.scheme(), "https" | "http") && url.has_host() && url.query().is_none() {
        return Ok(url);
    }
    Err(format!("`{text}` is not an address; expected `https://host/path` without a query"))
}

/// What OAuth 2 (RFC 6749) adds to the request.
struct OAuth2 {
    by_refresh_token: bool,
    client_id: Template,
    client_secret: Option<Template>,
    scope: Option<Template>,
    by_header: bool,
}

fn read_oauth2(section: &Section<'_>) -> Option<OAuth2> {
    let grants = [("client_credentials", false), ("refresh_token", true)];
    let grant = section.required(
        "grant",
        section.choice("grant", &grants),
        "expected `client_credentials` or `refresh_token`",
    );
    let client_id = section.required(
        "client_id",
        section.template("client_id"),
        "give the client's id, as `client_id = \"{credential.client_id}\"`",
    );
    let client_secret = section.template("client_secret");
    let scope = section.template("scope");
    let by_header = section.choice("client_auth", &[("body", false), ("basic", true)]).unwrap_or(false);
    if grant == Some(true) {
        section.required(
            "refresh_token",
            section.template("refresh_token"),
            "give the one that was got when somebody signed in, as `\"{credential.refresh_token}\"`",
        );
    }
    Some(OAuth2 { by_refresh_token: grant?, client_id: client_id?, client_secret, scope, by_header })
}

impl OAuth2 {
    /// Puts its members into the body; gives user and password where they go into the header.
    fn apply(
        self,
        request: &mut Request,
        section: &Section<'_>,
        refreshes: bool,
    ) -> Option<(Template, Template)> {
        let mut members: BTreeMap<String, JsonTemplate> = BTreeMap::new();
        let word = if self.by_refresh_token { "refresh_token" } else { "client_credentials" };
        members.insert("grant_type".into(), JsonTemplate::Fixed(word.into()));
        if self.by_refresh_token && refreshes {
            members.insert("refresh_token".into(), JsonTemplate::Text(Template::of(Slot::RefreshToken)));
        }
        members.extend(self.scope.map(|scope| ("scope".into(), JsonTemplate::Text(scope))));
        let basic = match (self.by_header, self.client_secret) {
            (true, Some(secret)) => Some((self.client_id, secret)),
            (_, secret) => {
                members.insert("client_id".into(), JsonTemplate::Text(self.client_id));
                members.extend(secret.map(|secret| ("client_secret".into(), JsonTemplate::Text(secret))));
                None
            }
        };
        match &mut request.body {
            // What the manifest says itself counts.
            Some(JsonTemplate::Object(own)) => {
                members.retain(|name, _| !own.iter().any(|(known, _)| known == name));
                own.extend(members);
            }
            None => request.body = Some(JsonTemplate::Object(members.into_iter().collect())),
            Some(_) => {
                section.problem("request.body", "of OAuth 2 is a table, in which the grant has a place");
            }
        }
        basic
    }
}

/// The path of a member at the top.
fn member(name: &str) -> Vec<Path> {
    Path::parse(name).into_iter().collect()
}
