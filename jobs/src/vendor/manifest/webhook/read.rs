//! Reads `[webhook]`: who sends, how it is proved, what identifies an event, what is answered. Apart
//! from the types, because most of it is about what to say when something is wrong.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderName, Method};

use super::{BodyForm, Handshake, Place, Replies, WebhookSpec};
use super::{routes, verification};
use crate::vendor::manifest::section::{Problems, Section};
use crate::vendor::path::Path;
use crate::vendor::webhook::body::PATHS_MAX;
use crate::vendor::webhook::handshake;
use crate::vendor::webhook::preset::{lay_over, preset};
use crate::vendor::webhook::reply::{ReplyPart, ReplySpec};

/// How long a vendor waits for an answer where nothing is known; the most impatient that we know of.
const ACK_DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
const ACK_DEADLINE_MS: RangeInclusive<u32> = 100..=60_000;
/// Thirty days.
const RETRY_WINDOW_SECS: RangeInclusive<u32> = 0..=2_592_000;
/// Where vendors put the type of an event, when the manifest says nothing. Only in the body, because that is
/// what is signed: a recorded bill must not become `order.deleted` by another address.
const EVENT_TYPE_DEFAULT: [&str; 3] = ["body:event_type", "body:event", "body:type"];
/// The places of a joined key.
const KINDS: [&str; 3] = ["header:", "query:", "body:"];

/// Reads the section with its preset below it.
pub(in crate::vendor::manifest) fn read_webhook(
    own: &toml::Table,
    problems: &Problems,
) -> Option<WebhookSpec> {
    let name = Section::new(own, "webhook", problems).parsed("preset", preset);
    let table = name.map_or_else(|| own.clone(), |preset| lay_over(preset, own));
    let section = &Section::new(&table, "webhook", problems);
    section.knows("preset");
    let places = Places::default();
    let spec = read_section(section, &places);
    // A second reader of the same table, because `finish` uses one up.
    let closing = Section::new(&table, "webhook", problems);
    for key in [
        "preset",
        "ack_deadline_ms",
        "retry_window_secs",
        "body",
        "form_member",
        "event_key",
        "event_type",
        "verification",
        "replies",
        "handshakes",
        "routes",
        "streams",
    ] {
        closing.knows(key);
    }
    closing.finish();
    spec
}

fn read_section(section: &Section<'_>, places: &Places) -> Option<WebhookSpec> {
    let body = read_body_form(section);
    let event_key = section.texts("event_key").unwrap_or_default();
    let event_key = event_key.into_iter().filter_map(|text| places.joined(section, text)).collect();
    let event_type = if section.has("event_type") {
        section.texts("event_type").unwrap_or_default()
    } else {
        EVENT_TYPE_DEFAULT.to_vec()
    };
    let event_type = event_type.into_iter();
    let event_type = event_type.filter_map(|text| places.place(section, "event_type", text)).collect();
    let verification = section
        .required(
            "verification",
            section.section("verification"),
            "say how events are signed, or `verification.scheme = \"none\"` where they are not",
        )
        .and_then(|section| verification::read_verification(section, places, body.as_ref()));
    let handshakes = read_handshakes(section);
    let replies = section.section("replies").map(read_replies).unwrap_or_default();
    let ack_deadline = section.whole("ack_deadline_ms", ACK_DEADLINE_MS);
    let ack_deadline = ack_deadline.map(|ms| Duration::from_millis(ms.into()));
    let retry_window = section.secs("retry_window_secs", RETRY_WINDOW_SECS);
    let routes = routes::read_routes(section);
    let body_paths = places.body_paths.take();
    if body_paths.len() > PATHS_MAX {
        let problem = format!("names more than {PATHS_MAX} places in the body; leave some out");
        section.problem("event_key", problem);
    }
    Some(WebhookSpec {
        verification: verification?,
        body: body?,
        body_paths,
        event_key,
        event_type,
        handshakes,
        replies,
        routes,
        ack_deadline: ack_deadline.unwrap_or(ACK_DEADLINE_DEFAULT),
        retry_window,
    })
}

fn read_body_form(section: &Section<'_>) -> Option<BodyForm> {
    #[derive(Clone, Copy)]
    enum Word {
        Json,
        Form,
        FormJson,
    }
    let words = [("json", Word::Json), ("form", Word::Form), ("form_json", Word::FormJson)];
    let word = if section.has("body") { section.choice("body", &words)? } else { Word::Json };
    let member = section.text("form_member");
    match word {
        Word::Json => Some(BodyForm::Json),
        Word::Form => Some(BodyForm::Form),
        Word::FormJson => section
            .required("form_member", member, "name the form's member that holds JSON, as \"biz\"")
            .map(|member| BodyForm::FormJson(member.to_owned())),
    }
}

/// The places that a section names; those in the body are numbered.
#[derive(Default)]
pub(super) struct Places {
    body_paths: RefCell<Vec<Path>>,
}

impl Places {
    /// Reads `header:<name>`, `query:<name>` or `body:<path>`.
    pub(super) fn place(&self, section: &Section<'_>, key: &'static str, text: &str) -> Option<Place> {
        self.parse(text).map_err(|problem| section.problem(key, problem)).ok()
    }

    /// Reads one place or alternatives.
    pub(super) fn alternatives(&self, section: &Section<'_>, key: &'static str) -> Option<Vec<Place>> {
        let texts = section.texts(key)?;
        let places: Option<Vec<_>> = texts.into_iter().map(|text| self.place(section, key, text)).collect();
        if places.as_ref().is_some_and(Vec::is_empty) {
            section.problem(key, "is an empty list; name at least one place, as `header:x-signature`");
        }
        places.filter(|places| !places.is_empty())
    }

    /// Reads `body:billId+body:billStatus`.
    fn joined(&self, section: &Section<'_>, text: &str) -> Option<Vec<Place>> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = KINDS.iter().filter_map(|kind| rest.find(&format!("+{kind}"))).min() {
            parts.push(&rest[..at]);
            rest = &rest[at + 1..];
        }
        parts.push(rest);
        parts.into_iter().map(|part| self.place(section, "event_key", part)).collect()
    }

    /// The first step of a place in the body, and whether it is the only one.
    pub(super) fn member_of(&self, at: usize) -> Option<(String, bool)> {
        let paths = self.body_paths.borrow();
        let path = paths.get(at)?;
        Some((path.first()?.to_owned(), path.len() == 1))
    }

    fn parse(&self, text: &str) -> Result<Place, String> {
        // A bare word is a header: that is what people enter in a system's settings.
        match text.split_once(':').or(Some(("header", text))) {
            Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
                .map(Place::Header)
                .map_err(|_| format!("`{name}` is not the name of a header")),
            Some(("query", name)) if !name.is_empty() => Ok(Place::Query(name.to_owned())),
            Some(("body", path)) => {
                let path = Path::parse(path)?;
                let mut paths = self.body_paths.borrow_mut();
                let known = paths.iter().position(|known| *known == path);
                Ok(Place::Body(known.unwrap_or_else(|| {
                    paths.push(path);
                    paths.len() - 1
                })))
            }
            _ => Err(format!(
                "`{text}` is no place; expected `header:<name>`, `query:<name>` or `body:<path>`"
            )),
        }
    }
}

fn read_handshakes(webhook: &Section<'_>) -> Vec<Handshake> {
    let Some(value) = webhook.value("handshakes") else {
        return Vec::new();
    };
    let Some(handshakes) = value.as_array() else {
        webhook.problem("handshakes", "expected `[[webhook.handshakes]]` with `method` and `reply`");
        return Vec::new();
    };
    let mut read = Vec::new();
    for (at, handshake) in handshakes.iter().enumerate() {
        let key = webhook.name(&format!("handshakes.{at}"));
        match handshake.as_table() {
            Some(table) => read.extend(read_handshake(Section::new(table, key, webhook.problems()))),
            None => webhook.problems().add(key, "expected a table with `method` and `reply`"),
        }
    }
    read
}

fn read_handshake(section: Section<'_>) -> Option<Handshake> {
    // The number stands for the method, because `Method` is no plain value.
    let method =
        section.required("method", section.choice("method", &METHODS), "expected `GET`, `HEAD` or `POST`");
    let when = section.expression("when", &handshake::NAMES);
    if method == Some(POST) && !section.has("when") {
        section.problem("when", "is missing; without a condition every event would be a handshake");
    }
    let reply = section
        .required("reply", section.section("reply"), "say what is answered, as `reply = { status = 200 }`")
        .map(|reply| read_reply(reply, 200, true));
    let verified = section.flag("verified").unwrap_or(false);
    section.finish();
    let method = [Method::GET, Method::HEAD, Method::POST].into_iter().nth(method?)?;
    Some(Handshake { method, when, reply: reply?, verified })
}

const POST: usize = 2;
const METHODS: [(&str, usize); 3] = [("GET", 0), ("HEAD", 1), ("POST", POST)];

fn read_replies(section: Section<'_>) -> Replies {
    let reply = |key, status| section.section(key).map(|section| read_reply(section, status, false));
    let replies = Replies {
        accepted: reply("accepted", 200),
        refused: reply("refused", 401),
        busy: reply("busy", 503),
        full: reply("full", 429),
        bad_body: reply("bad_body", 400),
    };
    if replies.accepted.as_ref().is_some_and(|reply| !(200..300).contains(&reply.status)) {
        section.problem("accepted.status", "is no 2xx; the vendor would repeat what was kept");
    }
    section.finish();
    replies
}

/// `echo`: whether the answer may give back parts of the request.
fn read_reply(section: Section<'_>, status: u16, echo: bool) -> ReplySpec {
    let given = section.whole("status", 200..=599).and_then(|status| u16::try_from(status).ok());
    let content_type = section.text("content_type").unwrap_or("text/plain").to_owned();
    if http::HeaderValue::from_str(&content_type).is_err() {
        section.problem("content_type", format!("`{content_type}` is not a content type"));
    }
    let body = section.parsed("body", |text| ReplySpec::parse_body(text, &content_type));
    let foreign = |part: &ReplyPart| match part {
        ReplyPart::Text(_) => false,
        ReplyPart::EventType => echo,
        ReplyPart::Query(_) | ReplyPart::Header(_) | ReplyPart::Body(_) => !echo,
    };
    if body.iter().flatten().any(foreign) {
        let known = if echo { "`query.…`, `header.…` and `body.…`" } else { "`event.type`" };
        section.problem("body", format!("has a placeholder without a value here; known here are {known}"));
    }
    let retry_after = section.whole("retry_after_secs", 0..=86_400);
    section.finish();
    ReplySpec {
        status: given.unwrap_or(status),
        content_type: if body.is_some() { content_type } else { String::new() },
        body: body.unwrap_or_default(),
        headers: retry_after.map(|secs| ("retry-after".to_owned(), secs.to_string())).into_iter().collect(),
    }
}
