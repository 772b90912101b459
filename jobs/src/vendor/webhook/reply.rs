//! What a vendor hears. A manifest may say it word for word, with a few placeholders; what it leaves out
//! has an answer here. Whatever comes from the request is escaped for the kind of body it goes into.

use http::HeaderName;
use serde_json::Value;

use super::Delivery;
use super::body::FormView;
use crate::vendor::manifest::webhook::Replies;
use crate::vendor::path::Path;
use crate::vendor::template::as_text;

/// A longer value of the request is not sent back: no vendor's challenge is so long.
const ECHO_BYTES_MAX: usize = 2_048;
/// When to come again where the manifest says nothing.
const BUSY_RETRY_AFTER: &str = "5";
const FULL_RETRY_AFTER: &str = "60";

/// What an answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// The event is kept.
    Accepted,
    /// It is not signed as it must be.
    Refused,
    /// The database is slow or away: the vendor should repeat it.
    Busy,
    /// The system's quota of unverified events is used up.
    Full,
    /// It is signed, but its body cannot be read.
    BadBody,
}

/// An answer, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Its `content-type`; empty for none.
    pub content_type: String,
    /// Its body.
    pub body: Vec<u8>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
}

/// An answer with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplySpec {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Vec<ReplyPart>,
    pub(crate) headers: Vec<(String, String)>,
}

/// A part of an answer's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReplyPart {
    Text(String),
    EventType,
    Query(String),
    Header(HeaderName),
    Body(Path),
}

impl Replies {
    pub(super) fn of(&self, kind: ReplyKind) -> Option<&ReplySpec> {
        match kind {
            ReplyKind::Accepted => self.accepted.as_ref(),
            ReplyKind::Refused => self.refused.as_ref(),
            ReplyKind::Busy => self.busy.as_ref(),
            ReplyKind::Full => self.full.as_ref(),
            ReplyKind::BadBody => self.bad_body.as_ref(),
        }
    }
}

/// The answer to an event.
pub(super) fn reply(replies: &Replies, kind: ReplyKind, event_type: &str) -> Reply {
    let of_event = |part: &ReplyPart| matches!(part, ReplyPart::EventType).then(|| event_type.to_owned());
    match replies.of(kind).and_then(|spec| spec.render(of_event)) {
        Some(reply) => reply,
        None => default_reply(kind, event_type),
    }
}

fn default_reply(kind: ReplyKind, event_type: &str) -> Reply {
    let (status, success, message, retry_after) = match kind {
        ReplyKind::Accepted => (200, true, "accepted", None),
        ReplyKind::Refused => (401, false, "the signature is missing or wrong", None),
        ReplyKind::Busy => (503, false, "busy, send it again", Some(BUSY_RETRY_AFTER)),
        ReplyKind::Full => (429, false, "too many events that cannot be verified", Some(FULL_RETRY_AFTER)),
        ReplyKind::BadBody => (400, false, "the body cannot be read", None),
    };
    let event_type = escaped(event_type);
    let text = format!(r#"{{"success":{success},"message":"{message}","event_type":"{event_type}"}}"#);
    Reply {
        status,
        content_type: "application/json".to_owned(),
        body: text.into_bytes(),
        headers: retry_after.map(|secs| ("retry-after".to_owned(), secs.to_owned())).into_iter().collect(),
    }
}

impl ReplySpec {
    /// The answer, or nothing where a placeholder has no value.
    fn render(&self, value: impl Fn(&ReplyPart) -> Option<String>) -> Option<Reply> {
        let json = is_json(&self.content_type);
        let mut body = String::new();
        for part in &self.body {
            match part {
                ReplyPart::Text(text) => body.push_str(text),
                of_request => {
                    let text = value(of_request)?;
                    body.push_str(&if json { escaped(&text) } else { text });
                }
            }
        }
        Some(Reply {
            status: self.status,
            content_type: self.content_type.clone(),
            body: body.into_bytes(),
            headers: self.headers.clone(),
        })
    }

    /// The answer to a handshake, which may give back a part of the request.
    pub(super) fn echo(&self, delivery: &Delivery<'_>, body: &Value) -> Option<Reply> {
        let value = |part: &ReplyPart| -> Option<String> {
            let text = match part {
                ReplyPart::Text(_) | ReplyPart::EventType => None,
                ReplyPart::Query(name) => {
                    FormView::new(delivery.query.as_bytes()).last(name).map(std::borrow::Cow::into_owned)
                }
                ReplyPart::Header(name) => {
                    delivery.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
                }
                ReplyPart::Body(path) => path.find(body).and_then(as_text),
            };
            text.filter(|text| text.len() <= ECHO_BYTES_MAX)
        };
        let mut reply = self.render(value)?;
        // What a stranger sent is given back: nobody's browser may take it for a page.
        reply.headers.push(("x-content-type-options".to_owned(), "nosniff".to_owned()));
        Some(reply)
    }

    /// Reads a body with placeholders. Braces that hold none are the vendor's JSON.
    pub(crate) fn parse_body(text: &str, content_type: &str) -> Result<Vec<ReplyPart>, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let slot = match rest.split_once('}') {
                Some((name, after)) => parse_slot(name)?.map(|slot| (slot, after)),
                None => None,
            };
            match slot {
                Some((slot, after)) => {
                    if !literal.is_empty() {
                        parts.push(ReplyPart::Text(std::mem::take(&mut literal)));
                    }
                    parts.push(slot);
                    rest = after;
                }
                None => literal.push('{'),
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(ReplyPart::Text(literal));
        }
        let echoes = parts.iter().any(|part| !matches!(part, ReplyPart::Text(_)));
        if echoes && !is_json(content_type) && essence(content_type) != "text/plain" {
            return Err(format!(
                "what a request holds may only be given back as `text/plain` or JSON, not as `{content_type}`"
            ));
        }
        Ok(parts)
    }
}

/// `event.type`, `query.<name>`, `header.<name>`, `body.<path>`; anything else is no placeholder.
fn parse_slot(name: &str) -> Result<Option<ReplyPart>, String> {
    if name == "event.type" {
        return Ok(Some(ReplyPart::EventType));
    }
    let plain = |text: &str| !text.is_empty() && !text.contains(['"', '{', ' ', '\n', ':']);
    Ok(match name.split_once('.').filter(|(_, of)| plain(of)) {
        Some(("query", of)) => Some(ReplyPart::Query(of.to_owned())),
        Some(("body", of)) => Some(ReplyPart::Body(Path::parse(of)?)),
        Some(("header", of)) => {
            let name = HeaderName::from_bytes(of.as_bytes())
                .map_err(|_| format!("`{of}` is not the name of a header"))?;
            Some(ReplyPart::Header(name))
        }
        _ => None,
    })
}

fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    essence == "application/json" || essence.ends_with("+json")
}

/// A content type without its parameters.
fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// A text for a place between the quotes of a JSON text.
fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(content_type: &str, body: &str) -> Result<ReplySpec, String> {
        let parts = ReplySpec::parse_body(body, content_type)?;
        Ok(ReplySpec { status: 200, content_type: content_type.into(), body: parts, headers: Vec::new() })
    }

    #[test]
    fn braces_of_json_are_no_placeholders() {
        let text = r#"{"success":true,"data":{"a":{}},"event_type":"{event.type}"}"#;
        let replies =
            Replies { accepted: Some(spec("application/json", text).unwrap()), ..Default::default() };
        let answer = reply(&replies, ReplyKind::Accepted, "a\"b\n");
        assert_eq!(
            String::from_utf8(answer.body).unwrap(),
            r#"{"success":true,"data":{"a":{}},"event_type":"a\"b\n"}"#
        );
    }

    #[test]
    fn what_the_manifest_leaves_out_has_an_answer() {
        for (kind, status, retry_after) in [
            (ReplyKind::Accepted, 200, None),
            (ReplyKind::Refused, 401, None),
            (ReplyKind::Busy, 503, Some("5")),
            (ReplyKind::Full, 429, Some("60")),
            (ReplyKind::BadBody, 400, None),
        ] {
            let answer = reply(&Replies::default(), kind, "order.\"x\"");
            assert_eq!(answer.status, status);
            assert_eq!(answer.headers.first().map(|(_, value)| value.as_str()), retry_after);
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body["success"], Value::from(kind == ReplyKind::Accepted));
            assert_eq!(body["event_type"], "order.\"x\"");
        }
    }

    #[test]
    fn a_request_is_never_given_back_as_a_page() {
        assert!(spec("text/html", "<p>{query.echostr}</p>").unwrap_err().contains("text/plain"));
        assert!(spec("text/html", "<p>ok</p>").is_ok());
    }
}
