//! Drafts a request, signs it, and says what is sent: the bytes that were signed are the bytes that go out, so
//! address and body are made once, with window and page in them, and nothing is changed afterwards.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use super::super::manifest::Request;
use super::super::manifest::signing::{Place, Signing, Source};
use super::super::manifest::stream::BodyAs;
use super::super::redact::Redactor;
use super::super::signing::{self, Material};
use super::super::template::{self, Slot, Slots, Template};
use super::Connection;
use super::call::Call;
use crate::outcome::JobError;

/// A request on its way to be sent.
pub(super) struct Draft {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Body>,
    /// The signature, which is shown as little as a secret.
    pub(super) signature: Redactor,
}

/// A body before it is bytes.
pub(super) enum Body {
    Json(Value),
    /// Its members, an object, and how they are written.
    Form(Value, FormKind),
    Text(String),
}

/// How the members of a form are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FormKind {
    UrlEncoded,
    Multipart,
}

impl Connection {
    /// The request as it is sent, signed where the vendor wants it.
    pub(super) fn draft(&self, call: &Call<'_>, slots: &Slots<'_>) -> Result<Draft, JobError> {
        let mut draft = Draft {
            url: self.address(call, slots)?,
            headers: self.headers(call, slots)?,
            body: body(call.request, slots),
            signature: Redactor::default(),
        };
        self.add_parameters(&mut draft, call, slots);
        self.prove(&mut draft, call, slots)?;
        let signing = call.token_of.map_or(self.manifest.signing.as_ref(), |spec| spec.signing.as_ref());
        if let Some(signing) = signing.filter(|_| call.request.signed) {
            self.sign(&mut draft, signing, call, slots)?;
        }
        Ok(draft)
    }

    /// The endpoint with the request's path, or the vendor's own link.
    fn address(&self, call: &Call<'_>, slots: &Slots<'_>) -> Result<Url, JobError> {
        if let Some(link) = &call.link {
            return Ok(link.clone());
        }
        let missing = || {
            let message = format!(
                "{} lacks a setting that the address needs; see the manifest's `config`",
                self.manifest.title
            );
            JobError::give_up("setting_missing", message)
        };
        let path = call.request.path.path(slots).ok_or_else(missing)?;
        let endpoint = call.token_of.and_then(|spec| spec.endpoint.as_ref()).unwrap_or(&self.endpoint);
        let mut url = endpoint.clone();
        let (path, query) =
            path.split_once('?').map_or((path.as_str(), None), |(path, query)| (path, Some(query)));
        let whole = format!("{}{path}", endpoint.path().trim_end_matches('/'));
        url.set_path(&whole);
        url.set_query(query);
        Ok(url)
    }

    /// Puts the token where it goes; in a token call user and password.
    fn prove(&self, draft: &mut Draft, call: &Call<'_>, slots: &Slots<'_>) -> Result<(), JobError> {
        let Some(spec) = self.manifest.auth.token() else { return Ok(()) };
        let incomplete = || {
            let message = format!(
                "{} lacks a credential that the access token is asked for with; enter it in the system",
                self.manifest.title
            );
            JobError::give_up("credentials_missing", message)
        };
        if call.token_of.is_none() {
            let Some(place) = &spec.place else { return Ok(()) };
            let value = spec.value.text(slots).map(SecretString::from).ok_or_else(incomplete)?;
            return self.place(draft, place, &value);
        }
        let Some((user, password)) = &spec.basic else { return Ok(()) };
        let pair = user.text(slots).zip(password.text(slots)).ok_or_else(incomplete)?;
        let value = SecretString::from(basic_value(&pair.0, &pair.1));
        self.place(draft, &Place::Header(AUTHORIZATION.to_string()), &value)
    }

    /// What goes into the query or the form: the request's own, what all have in common, window and page.
    fn add_parameters(&self, draft: &mut Draft, call: &Call<'_>, slots: &Slots<'_>) {
        let common = &self.manifest.connection;
        // A link holds all of its own but the secrets, which were taken out before it was kept. What all requests
        // have in common is ours to say: the link's time, for one, is that of the page before.
        let by_link = call.link.is_some();
        for (name, template) in &call.request.query {
            let wanted = !by_link || holds_secret(template) && !draft.has_query(name);
            if let Some(value) = template.text(slots).filter(|_| wanted) {
                draft.add_query(name, &value);
            }
        }
        let (query, parameters): (&[_], &[_]) =
            if call.is_common() { (&common.query, &common.parameters) } else { (&[], &[]) };
        for (name, template) in query {
            if let Some(value) = template.text(slots).filter(|_| by_link || !draft.has_query(name)) {
                draft.set(&Place::Query(name.clone()), value);
            }
        }
        for (name, template) in parameters {
            if let Some(value) = template.text(slots).filter(|_| by_link || !draft.has(name)) {
                draft.set(&Place::Parameter(name.clone()), value);
            }
        }
        for (name, value) in &call.parameters {
            if call.request.params_in_body {
                draft.set(&Place::Body((*name).to_owned()), value.clone());
            } else if let Some(text) = template::as_text(value) {
                draft.add_query(name, &text);
            }
        }
    }

    fn sign(
        &self,
        draft: &mut Draft,
        signing: &Signing,
        call: &Call<'_>,
        slots: &Slots<'_>,
    ) -> Result<(), JobError> {
        if let (true, Some(name)) = (call.link.is_some(), signing.place.parameter()) {
            draft.remove_query(name);
        }
        let material = Material {
            parameters: draft.collect(&signing.from),
            url: self.signed_url(signing, &draft.url),
            path: draft.url.path().to_owned(),
            method: call.request.method.to_string(),
            body: draft.body.as_ref().map(Body::text),
        };
        let signature = signing::sign(signing, material, slots).map_err(|signing::Incomplete| {
            let message = format!(
                "{} lacks a credential or setting that its signature needs; enter it in the system",
                self.manifest.title
            );
            JobError::give_up("credentials_missing", message)
        })?;
        draft.signature = Redactor::new([signature.expose_secret()]);
        self.place(draft, &signing.place, &signature)
    }

    /// Puts something secret where the manifest says.
    pub(super) fn place(
        &self,
        draft: &mut Draft,
        place: &Place,
        secret: &SecretString,
    ) -> Result<(), JobError> {
        let Place::Header(name) = place else {
            draft.set(place, Value::from(secret.expose_secret()));
            return Ok(());
        };
        let pair = HeaderName::from_bytes(name.as_bytes())
            .ok()
            .zip(HeaderValue::from_str(secret.expose_secret()).ok());
        let Some((header, mut value)) = pair else {
            let message = format!(
                "the header `{name}` of {} cannot be sent: what goes into it has a sign that no header may have",
                self.manifest.title
            );
            return Err(JobError::give_up("bad_header", message));
        };
        value.set_sensitive(true);
        draft.headers.insert(header, value);
        Ok(())
    }

    /// The address as it is signed: the one that is called, unless the vendor knows itself by another.
    fn signed_url(&self, signing: &Signing, called: &Url) -> String {
        if let Some(base) = &signing.base_url {
            let below = self.endpoint.path().trim_end_matches('/');
            return format!("{base}{}", called.path().strip_prefix(below).unwrap_or(called.path()));
        }
        let mut plain = called.clone();
        plain.set_query(None);
        plain.into()
    }
}

impl Draft {
    fn add_query(&mut self, name: &str, value: &str) {
        self.url.query_pairs_mut().append_pair(name, value);
    }

    fn has_query(&self, name: &str) -> bool {
        self.url.query_pairs().any(|(given, _)| given == name)
    }

    fn remove_query(&mut self, name: &str) {
        let kept: Vec<(String, String)> =
            self.url.query_pairs().into_owned().filter(|(given, _)| given != name).collect();
        self.url.set_query(None);
        if !kept.is_empty() {
            self.url.query_pairs_mut().extend_pairs(kept);
        }
    }

    /// Whether a parameter of that name is there already.
    fn has(&self, name: &str) -> bool {
        self.has_query(name)
            || matches!(&self.body, Some(Body::Form(members, _)) if members.get(name).is_some())
    }

    /// Sets a parameter; one of its name that is there is replaced.
    fn set(&mut self, place: &Place, value: impl Into<Value>) {
        let value = value.into();
        match (place, &mut self.body) {
            (Place::Parameter(name) | Place::Body(name), Some(Body::Form(members, _)))
            | (Place::Body(name), Some(Body::Json(members))) => {
                if let Value::Object(members) = members {
                    members.insert(name.clone(), value);
                }
            }
            (Place::Body(name), None) => {
                self.body = Some(Body::Json(Value::Object(Map::from_iter([(name.clone(), value)]))));
            }
            (Place::Parameter(name) | Place::Query(name), _) => {
                self.remove_query(name);
                if let Some(text) = template::as_text(&value) {
                    self.add_query(name, &text);
                }
            }
            // The manifest was checked: nothing goes into a text.
            (Place::Body(_), Some(Body::Text(_))) | (Place::Header(_), _) => {}
        }
    }

    /// The parameters that take part in a signature, as they are sent.
    fn collect(&self, sources: &[Source]) -> Vec<(String, Value)> {
        let mut collected = Vec::new();
        for source in sources {
            let members = match (source, &self.body) {
                (Source::Query, _) => {
                    let pairs = self.url.query_pairs().into_owned();
                    collected.extend(pairs.map(|(name, value)| (name, Value::from(value))));
                    continue;
                }
                (Source::Form, Some(Body::Form(members, _))) | (Source::Json, Some(Body::Json(members))) => {
                    Some(members)
                }
                (Source::Inside(path), Some(Body::Form(members, _) | Body::Json(members))) => {
                    path.find(members)
                }
                _ => None,
            };
            let members = members.and_then(Value::as_object).into_iter().flatten();
            collected.extend(members.map(|(name, value)| (name.clone(), value.clone())));
        }
        collected
    }
}

impl Body {
    /// What is sent.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Json(value) => value.to_string(),
            Self::Form(members, FormKind::UrlEncoded) => {
                form_urlencoded::Serializer::new(String::new()).extend_pairs(form_members(members)).finish()
            }
            Self::Form(members, FormKind::Multipart) => multipart(members, &boundary(members)),
            Self::Text(text) => text.clone(),
        }
    }

    /// The header that goes with it, unless the manifest gives another.
    pub(super) fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json(_) => "application/json",
            Self::Form(_, FormKind::UrlEncoded) => "application/x-www-form-urlencoded",
            Self::Form(members, FormKind::Multipart) => {
                let kind = format!("multipart/form-data; boundary={}", boundary(members));
                return HeaderValue::from_str(&kind)
                    .unwrap_or(HeaderValue::from_static("multipart/form-data"));
            }
            Self::Text(_) => "text/plain; charset=utf-8",
        })
    }

    /// What of it may be looked at: JSON, or the members of a form.
    pub(super) fn shown(&self) -> Value {
        match self {
            Self::Json(value) => value.clone(),
            Self::Form(members, _) => Value::Object(
                form_members(members).map(|(name, text)| (name.clone(), Value::from(text))).collect(),
            ),
            Self::Text(text) => Value::from(text.as_str()),
        }
    }
}

/// The body before window and page are in it.
fn body(request: &Request, slots: &Slots<'_>) -> Option<Body> {
    let filled = request.body.as_ref().map(|body| body.json(slots));
    let object = |filled: Option<Value>| filled.filter(Value::is_object).unwrap_or_else(|| Map::new().into());
    match request.body_as {
        BodyAs::Form if request.is_form() => Some(Body::Form(object(filled.flatten()), FormKind::UrlEncoded)),
        BodyAs::Multipart if request.is_form() => {
            Some(Body::Form(object(filled.flatten()), FormKind::Multipart))
        }
        BodyAs::Text => {
            filled.map(|text| Body::Text(text.as_ref().and_then(template::as_text).unwrap_or_default()))
        }
        _ if request.params_in_body && filled.is_none() => Some(Body::Json(Map::new().into())),
        _ => filled.map(|value| Body::Json(value.unwrap_or_else(|| Map::new().into()))),
    }
}

/// The members of a form that are sent; null is not.
fn form_members(members: &Value) -> impl Iterator<Item = (&String, String)> {
    let members = members.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    members.map(|(name, value)| (name, signing::value_text(value)))
}

/// Each member as a part (RFC 7578). Names are written as browsers do, who encode quotes and line ends.
fn multipart(members: &Value, boundary: &str) -> String {
    let mut body = String::new();
    for (name, text) in form_members(members) {
        let name = name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
        body.extend(["--", boundary, "\r\nContent-Disposition: form-data; name=\"", &name, "\"\r\n\r\n"]);
        body.extend([text.as_str(), "\r\n"]);
    }
    body.extend(["--", boundary, "--\r\n"]);
    body
}

/// A line that no member holds: it would have to hold its own hash.
fn boundary(members: &Value) -> String {
    format!("zhilian-{}", hex::encode(&Sha256::digest(members.to_string().as_bytes())[..16]))
}

/// User and password as OAuth 2 writes them: each encoded as in a form, then both in base64 (RFC 6749, 2.3.1).
fn basic_value(user: &str, password: &str) -> String {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encoded(user), encoded(password))))
}

/// Whether a template is filled with what must be kept nowhere.
pub(super) fn holds_secret(template: &Template) -> bool {
    template.slots().any(|slot| matches!(slot, Slot::Credential(_) | Slot::Token))
}
