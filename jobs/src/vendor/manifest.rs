//! A vendor, as data: one TOML file says how to sign in, what to ask, where the records are and what
//! their members mean. This file holds the sections that concern the vendor as a whole; what one list
//! of records needs is in `manifest/stream.rs`. A manifest is read and checked once, expressions and
//! templates are compiled, and every mistake is told with file, key and fix.

mod auth;
mod lines;
pub(super) mod push;
mod read;
mod recorder;
mod references;
mod schema;
pub(super) mod section;
pub(super) mod signing;
pub(super) mod stream;
pub(super) mod token;
pub(super) mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono_tz::Tz;
use zhilian_sync_store::SystemType;

use self::push::PushSpec;
pub use self::schema::manifest_schema;
use self::section::Problems;
pub use self::section::{ManifestError, ManifestErrors};
use self::signing::Signing;
use self::stream::window::TimeFormat;
pub(crate) use self::stream::{Pagination, PagingStyle, Request};
pub use self::stream::{Stream, Target};
use self::token::TokenSpec;
use self::webhook::WebhookSpec;
use super::expression::Expression;
use super::path::Path;
use super::template::Template;

/// One vendor.
#[derive(Debug)]
pub struct Manifest {
    /// The name by which a system's `provider` calls it; the file's name.
    pub name: String,
    /// The name for people.
    pub title: String,
    /// The types of system it can be.
    pub types: Vec<SystemType>,
    /// What an operator should know.
    pub notes: String,
    /// The address that is called where a system names none.
    pub endpoint: Option<String>,
    /// What a system has to give.
    pub credentials: Vec<CredentialSpec>,
    /// The settings that a system may or must give in its `config`.
    pub config: Vec<ConfigKey>,
    /// The lists that can be pulled.
    pub streams: Vec<Stream>,
    /// What it sends of its own accord; without it `generic-rest` says so.
    pub webhook: Option<Arc<WebhookSpec>>,
    /// How it is told of a member.
    pub(crate) push: Option<PushSpec>,
    pub(crate) connection: Common,
    pub(crate) signing: Option<Signing>,
    pub(crate) auth: Auth,
    pub(crate) limits: BTreeMap<String, Limit>,
    pub(crate) envelope: Envelope,
    pub(crate) failures: Vec<FailureRule>,
    pub(crate) messages: Messages,
    pub(crate) probe: Probe,
}

/// What all requests have in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) headers: Vec<(String, Template)>,
    /// Always in the query.
    pub(crate) query: Vec<(String, Template)>,
    /// In the form of a request that has one, else in the query.
    pub(crate) parameters: Vec<(String, Template)>,
    /// How `{request.time}` is written; the zone is the system's where none is given.
    pub(crate) clock: TimeFormat,
    pub(crate) clock_zone: Option<Tz>,
}

/// One secret that a system gives.
#[derive(Debug, Clone)]
pub struct CredentialSpec {
    /// Its name, such as `api_key`.
    pub name: String,
    /// What it is called in the vendor's own pages.
    pub label: String,
    /// Whether nothing works without it.
    pub required: bool,
}

/// One setting that a system gives in its `config`.
#[derive(Debug, Clone)]
pub struct ConfigKey {
    /// Its name.
    pub name: String,
    /// What it means.
    pub label: String,
    /// What it must be.
    pub kind: ConfigKind,
    /// Whether nothing works without it.
    pub required: bool,
    /// The keys of the manifest that it takes the place of.
    pub sets: Vec<String>,
}

/// What a setting must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigKind {
    /// Text; a number is taken as its text.
    Text,
    /// A whole number, or its text.
    Number,
    /// `true` or `false`.
    Flag,
    /// A list of texts, or one text with commas.
    List,
    /// An object.
    Table,
}

/// How a call proves who we are.
#[derive(Debug)]
pub(crate) enum Auth {
    None,
    Bearer {
        token: Template,
    },
    Header {
        header: String,
        value: Template,
    },
    Basic {
        username: Template,
        password: Option<Template>,
    },
    /// A token that the vendor gives and ends.
    Token(Box<TokenSpec>),
}

impl Auth {
    /// How a token is got, where the vendor gives one.
    pub(crate) fn token(&self) -> Option<&TokenSpec> {
        if let Self::Token(spec) = self { Some(spec) } else { None }
    }
}

/// How fast a class of endpoints may be called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) requests: u32,
    pub(crate) per_ms: i64,
    pub(crate) burst: u32,
}

/// What every JSON answer of the vendor has in common.
#[derive(Debug, Default)]
pub(crate) struct Envelope {
    pub(crate) success: Option<Expression>,
    pub(crate) error: Vec<Path>,
}

/// What a certain unsuccessful answer means, where status and envelope do not tell.
#[derive(Debug)]
pub(crate) struct FailureRule {
    pub(crate) when: Expression,
    pub(crate) outcome: FailureOutcome,
    pub(crate) message: Option<String>,
}

/// See [`FailureRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureOutcome {
    Retry,
    GiveUp,
    /// What was asked for does not exist: of a record that is looked up, no mistake.
    NotFound,
    Unauthorized,
    /// The access token is not good any more: once more with a new one.
    RefreshToken,
}

/// What to tell the person who set the system up.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) unauthorized: Option<String>,
    pub(crate) forbidden: Option<String>,
    pub(crate) not_found: Option<String>,
}

/// The connection test.
#[derive(Debug)]
pub(crate) struct Probe {
    /// A call of its own, or else the first page of a stream.
    pub(crate) request: Option<Request>,
    pub(crate) stream: Option<String>,
    pub(crate) success: Option<Expression>,
    /// Computed values for the message, by name.
    pub(crate) facts: Vec<(String, Expression)>,
    pub(crate) message: String,
}

impl Manifest {
    /// Reads and checks a manifest. `file` is named in the errors.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, ManifestErrors> {
        match text.parse::<toml::Table>() {
            Ok(table) => Self::read(file, &table),
            Err(error) => {
                let problem = format!("is not TOML: {}", error.to_string().trim().replace('\n', " "));
                let file = file.into();
                Err(ManifestErrors(vec![ManifestError { file, line: None, key: String::new(), problem }]))
            }
        }
    }

    /// The same for a text that is a file as its author sees it: every mistake has its line.
    pub(crate) fn parse_file(file: &str, text: &str) -> Result<Self, ManifestErrors> {
        Self::parse(file, text).map_err(|errors| lines::locate(errors, text))
    }

    /// Checks a manifest that is already a table.
    pub(crate) fn read(file: &str, table: &toml::Table) -> Result<Self, ManifestErrors> {
        let problems = Problems::new(file);
        let manifest = read::read_manifest(table, &problems);
        if let Some(manifest) = &manifest {
            references::check(manifest, table, &problems);
        }
        problems.into_result(manifest)
    }

    /// Whether it can be told of members.
    #[must_use]
    pub const fn takes_members(&self) -> bool {
        self.push.is_some()
    }

    /// The stream of that name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../../config/vendors/demo-pos.toml");

    /// The mistakes of the demo till's manifest with one text in the place of another.
    fn mistakes(text: &str, instead: &str) -> Vec<String> {
        assert!(GOOD.contains(text), "{text}");
        let errors = Manifest::parse("demo-pos.toml", &GOOD.replacen(text, instead, 1)).unwrap_err();
        errors.0.iter().map(ToString::to_string).collect()
    }

    /// Where a key of the list of sales can be put in.
    const TARGET: &str = "target = \"pos_transactions\"\n";

    /// What is replaced, by what, the key that the mistake names, and what it says.
    const MISTAKES: &[(&str, &str, &str, &str)] = &[
        ("[meta]", "[metta]", "meta", "begin with `[meta]`"),
        ("[meta]", "[metta]", "metta", "did you mean `meta`?"),
        ("name = \"demo-pos\"", "name = \"Demo POS\"", "meta.name", "other signs than a-z"),
        ("types = [\"pos\"]", "types = [\"till\"]", "meta.types", "`till` is not one of"),
        ("kind = \"header\"", "kind = \"oauth\"", "auth.kind", "expected one of `none`, `bearer`"),
        ("kind = \"header\"", "kind = \"bearer\"", "auth.token", "is missing; bearer needs it"),
        ("header = \"X-Api-Key\"", "header = \"X Api Key\"", "auth.header", "is not the name of a header"),
        ("{credential.api_key}", "{credential.key}", "auth.value", "add `[credentials.key]`"),
        ("{credential.api_key}", "{config.key}", "auth.value", "add `[config.key]`"),
        ("{credential.api_key}", "{secret}", "auth.value", "known are `window.from`"),
        ("requests = 500", "requests = 0", "limits.default.requests", "expected 1 to 100000"),
        ("body.code == 0", "body.code = 0", "envelope.success", "is not a CEL expression"),
        ("body.code == 0", "answer.code == 0", "envelope.success", "known are `status`, `body`"),
        ("request.path = \"/v1/ping\"", "stream = \"sales\"", "probe.stream", "`sales` is no stream"),
        (
            "path = \"/v1/sales\"",
            "path = \"v1/sales\"",
            "streams.transactions.request.path",
            "must begin with `/`",
        ),
        (
            "path = \"/v1/sales\"",
            "path = \"/v1\"\nlimit = \"slow\"",
            "streams.transactions.request.limit",
            "add `[limits.slow]`",
        ),
        (
            "path = \"/v1/sales\"",
            "path = \"/v1\"\nbody.x = 1",
            "streams.transactions.request.body",
            "a GET has no body",
        ),
        (
            "page_param = \"page\"",
            "",
            "streams.transactions.pagination.page_param",
            "would not know which page",
        ),
        (
            "style = \"page\"",
            "style = \"cursor\"",
            "streams.transactions.pagination.cursor",
            "path of the next page's token",
        ),
        (
            "records = \"data.items\"",
            "records = \"data..items\"",
            "streams.transactions.answer.records",
            "is no path",
        ),
        ("money_unit = \"minor\"", "", "streams.transactions.mapping.fields.total", "set `money_unit"),
        (
            "external_id = \"sale_id\"",
            "",
            "streams.transactions.mapping.fields.external_id",
            "name the vendor's unique id",
        ),
        (
            "version_at = ",
            "updated_at = ",
            "streams.transactions.mapping.fields.updated_at",
            "known here are",
        ),
        (
            "customer_phone = ",
            "custmer_phone = ",
            "streams.transactions.mapping.fields.custmer_phone",
            "did you mean `customer_phone`?",
        ),
        (
            "path = \"qty\", type",
            "path = \"qty\", cel = \"1\", type",
            "streams.transactions.mapping.fields.items.fields.quantity.path",
            "exactly one of",
        ),
        (
            "unknown_fields = \"report\"",
            "unknown_fields = \"refuse\"",
            "streams.transactions.unknown_fields",
            "expected one of `ignore`, `report`",
        ),
        (
            "unknown_fields = \"report\"",
            "known_fields = [\"cashier\"]",
            "streams.transactions.known_fields",
            "say `unknown_fields = \"report\"` too",
        ),
        (
            "unknown_fields = \"report\"",
            "unknown_fields = \"report\"\nknown_fields = [\"a..b\"]",
            "streams.transactions.known_fields",
            "is no path",
        ),
        (
            "overlap_secs = 60",
            "overlap_secs = \"1m\"",
            "streams.transactions.window.overlap_secs",
            "expected a whole number",
        ),
        (
            "format = \"rfc3339\"",
            "format = \"iso\"",
            "streams.transactions.window.format",
            "expected one of `rfc3339`",
        ),
        (
            "path = \"/v1/sales\"",
            "path = \"/v1/{window.day}\"",
            "streams.transactions.window.days",
            "say `days = true`",
        ),
        (
            "from_param = \"updated_since\"",
            "days = true",
            "streams.transactions.window.day_param",
            "would not know which day",
        ),
        (
            "format = \"rfc3339\"",
            "reread_days = 2",
            "streams.transactions.window.reread_days",
            "the window is told in times",
        ),
        (
            "format = \"rfc3339\"",
            "day_param = \"d\"",
            "streams.transactions.window.day_param",
            "is not cut into days",
        ),
        (
            "format = \"rfc3339\"",
            "format = \"date\"\npattern = \"%H\"",
            "streams.transactions.window.pattern",
            "writes a time of day",
        ),
        (
            "format = \"rfc3339\"",
            "format = \"rfc3339\"\n[streams.x]\nascending = true\nrequest.path = \"/{window.day}\"\nwindow.days = true\n\
             [streams.y.window]",
            "streams.x.ascending",
            "there is a list for each day",
        ),
        (
            "path = \"/v1/sales\"",
            "path = \"/v1/{partition.id}\"",
            "streams.transactions.request",
            "only in the request of a stream with `[streams.<name>.for_each]`",
        ),
        (
            TARGET,
            "target = \"pos_transactions\"\nfor_each.values = \"{config.ids}\"\n",
            "streams.transactions.for_each.values",
            "add `[config.ids]`",
        ),
        (
            TARGET,
            "target = \"pos_transactions\"\nfor_each.into = \"shop\"\n",
            "streams.transactions.for_each.values",
            "is missing; give a list",
        ),
        (
            TARGET,
            "target = \"pos_transactions\"\nfor_each.request.path = \"/s\"\n",
            "streams.transactions.for_each.records",
            "path of the list",
        ),
        (
            TARGET,
            "target = \"pos_transactions\"\nfor_each.request.path = \"/s\"\n",
            "streams.transactions.for_each.key",
            "path of the id",
        ),
        (
            TARGET,
            "target = \"pos_transactions\"\nfor_each = { values = [\"1\"], request.path = \"/s\" }\n",
            "streams.transactions.for_each.values",
            "stands beside `request`",
        ),
        (
            TARGET,
            "target = \"pos_transactions\"\nfor_each = { values = [\"1\"], records = \"data\" }\n",
            "streams.transactions.for_each.records",
            "belongs to a `request`",
        ),
        (
            TARGET,
            "target = \"pos_transactions\"\nfor_each = { request.path = \"/{window.from}\", records = \".\", key = \"id\" }\n",
            "streams.transactions.for_each.request",
            "asked for without a window",
        ),
        (
            TARGET,
            "target = \"pos_transactions\"\nfor_each = { request.path = \"/s\", records = \".\", key = \"id\", pagination.style = \"page\" }\n",
            "streams.transactions.for_each.pagination.page_param",
            "would not know which page",
        ),
        ("ack_deadline_ms = 3000", "ack_deadline_ms = 1", "webhook.ack_deadline_ms", "expected 100 to 60000"),
        ("[webhook]", "[webhook]\npreset = \"stripe\"", "webhook.preset", "known are `standard`"),
        (
            "[webhook]",
            "[webhook]\nbody = \"form_json\"",
            "webhook.form_member",
            "is missing; name the form's",
        ),
        (
            "[webhook]",
            "[webhook]\nack_deadlin_ms = 100",
            "webhook.ack_deadlin_ms",
            "did you mean `ack_deadline_ms`",
        ),
        ("\"body:event_id\"", "\"event:id\"", "webhook.event_key", "expected `header:<name>`"),
        ("\"body:event_id\"", "\"body:a+body:b..c\"", "webhook.event_key", "`b..c` is no path"),
        (
            "\"header:X-Demo-Signature\"",
            "\"header:X Demo\"",
            "webhook.verification.signature",
            "name of a header",
        ),
        ("\"header:X-Demo-Signature\"", "\"body:sign\"", "webhook.verification.signature", "inside the body"),
        ("\"header:X-Demo-Signature\"", "[]", "webhook.verification.signature", "is an empty list"),
        ("scheme = \"hmac\"", "", "webhook.verification.scheme", "is missing; expected `hmac`, `digest`"),
        ("scheme = \"hmac\"", "scheme = \"rsa\"", "webhook.verification.scheme", "expected one of `hmac`"),
        (
            "scheme = \"hmac\"",
            "scheme = \"url_secret\"",
            "webhook.verification.signature",
            "is not in the URL",
        ),
        (
            "scheme = \"hmac\"",
            "scheme = \"digest\"",
            "webhook.verification.secret_place",
            "`before` or `after`",
        ),
        (
            "scheme = \"hmac\"",
            "scheme = \"sorted_parameters\"",
            "webhook.verification.from",
            "expected `body`, `form` or `query`",
        ),
        ("\"sha256\"", "\"sha3\"", "webhook.verification.algorithm", "expected one of `md5`"),
        ("\"sha256\"", "\"md5\"", "webhook.verification.algorithm", "is not for `hmac`"),
        ("{timestamp}.{body}", "{time}.{body}", "webhook.verification.content", "known are `{body}`"),
        ("{timestamp}.{body}", "{timestamp}", "webhook.verification.content", "has no `{body}`"),
        ("{timestamp}.{body}", "{id}.{body}", "webhook.verification.id", "is missing; `content` has `{id}`"),
        (", timestamp_key = \"t\"", "", "webhook.verification.timestamp", "say where it is"),
        ("{timestamp}.{body}", "{body}", "webhook.verification.timestamp", "is not covered by the signature"),
        (
            "content = \"{timestamp}.{body}\"",
            "content = \"{timestamp}.{body}\"\nid = \"header:x-id\"",
            "webhook.verification.id",
            "is not covered by the signature",
        ),
        ("style = \"pairs\"", "style = \"list\"", "webhook.verification.list.style", "`pairs`, `versions`"),
        (
            "[webhook]",
            "[webhook]\nhandshakes = [{ method = \"POST\", reply = {} }]",
            "webhook.handshakes.0.when",
            "every event would be a handshake",
        ),
        (
            "[webhook]",
            "[webhook]\nhandshakes = [{ method = \"GET\", reply.body = \"{event.type}\" }]",
            "webhook.handshakes.0.reply.body",
            "known here are `query.…`",
        ),
        (
            "[webhook]",
            "[webhook]\nreplies.accepted = { content_type = \"text/html\", body = \"{event.type}\" }",
            "webhook.replies.accepted.body",
            "only be given back as `text/plain` or JSON",
        ),
        (
            "[webhook]",
            "[webhook]\nreplies.accepted.status = 500",
            "webhook.replies.accepted.status",
            "is no 2xx",
        ),
        ("[webhook]", "[[webhook]]", "webhook", "expected a table"),
    ];

    #[test]
    fn each_mistake_names_file_key_and_fix() {
        for (text, instead, key, says) in MISTAKES {
            let found = mistakes(text, instead);
            let told = found
                .iter()
                .any(|line| line.starts_with(&format!("demo-pos.toml: `{key}`: ")) && line.contains(says));
            assert!(told, "expected `{key}` … {says}, found {found:#?}");
        }
    }

    #[test]
    fn all_mistakes_are_told_together() {
        let text = GOOD.replace("kind = \"header\"", "kind = \"x\"").replace("size = 100", "size = 0");
        let text = text.replace("target = \"pos_transactions\"", "target = \"orders\"");
        let errors = Manifest::parse("a.toml", &text).unwrap_err();
        let keys: Vec<&str> = errors.0.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(
            keys,
            ["auth.kind", "streams.transactions.pagination.size", "streams.transactions.target"]
        );
    }

    #[test]
    fn what_is_no_toml_says_where() {
        let errors = Manifest::parse("a.toml", "[meta]\nname = ").unwrap_err().to_string();
        assert!(errors.starts_with("a.toml: is not TOML: ") && errors.contains("line 2"), "{errors}");
        assert!(Manifest::parse("a.toml", "").unwrap_err().to_string().contains("`streams`: is missing"));
    }
}
