//! The texts of a manifest that are filled in for every call: `{window.from}`, `{config.location_ids}`.
//! A template that is exactly one placeholder keeps the JSON type of what stands there, so a list of
//! the system's settings arrives in a body as a list. A member whose placeholder has no value is left
//! out: the first page has no cursor. The request for the record of a thin event reads the event:
//! `{event.data.id}`. What is signed is a template too, over parts that only the signature knows: `{pairs}`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::path::Path;

/// Text with placeholders; `{{` and `}}` are braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Slot(Slot),
}

/// What a placeholder stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The window's beginning, in the stream's time form.
    WindowFrom,
    /// The window's end, in the stream's time form.
    WindowTo,
    /// The day, of a window that is read day by day.
    WindowDay,
    /// How many records a page has.
    PageSize,
    /// The page's number.
    PageNumber,
    /// How many records come before the page.
    PageOffset,
    /// The vendor's token for the page.
    PageCursor,
    /// The greatest version that was read before the page.
    PageVersion,
    /// A setting of the system.
    Config(String),
    /// A credential of the system.
    Credential(String),
    /// A place in the member that is pushed.
    Member(Path),
    /// A place in the webhook event whose record is asked for.
    Event(Path),
    /// A place in the part of the stream that is read.
    Partition(Path),
    /// The key of the record that is looked up.
    LookupKey,
    /// A place in the record whose detail is asked for.
    Record(Path),
    /// That place in each of several records, as a list.
    Records(Path),
    /// The time of the call, as `connection.clock` writes it.
    RequestTime,
    /// The access token that the vendor gave.
    Token,
    /// What the next access token is asked for with.
    RefreshToken,
    /// A part of what is signed, or the signature.
    Signing(SigningPart),
}

/// What only `[signing]` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SigningPart {
    /// The parameters, in their order, as one text.
    Pairs,
    /// The address without its query.
    Url,
    /// The address's path.
    Path,
    /// GET, POST.
    Method,
    /// The body's text; nothing where there is no body.
    Body,
    /// What all of it comes to.
    Signature,
}

impl SigningPart {
    /// Its name in braces.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pairs => "pairs",
            Self::Url => "url",
            Self::Path => "path",
            Self::Method => "method",
            Self::Body => "body",
            Self::Signature => "signature",
        }
    }
}

/// The names that may stand in braces, for error texts.
const KNOWN: &str = "`window.from`, `window.to`, `window.day`, `page.size`, `page.number`, `page.offset`, \
                     `page.cursor`, `page.version`, `config.<key>`, `credential.<name>`, `event.<path>`, `lookup.key`, `member.<name>`, `partition.<path>`, \
                     `record.<path>`, `records.<path>`, `request.time`, `token`; in `[signing]` `pairs`, `url`, `path`, `method`, `body`, `signature` too";

/// What the placeholders of one call stand for.
#[derive(Clone, Default)]
pub(crate) struct Slots<'a> {
    pub(crate) window_from: Option<Value>,
    pub(crate) window_to: Option<Value>,
    pub(crate) window_day: Option<Value>,
    pub(crate) page_size: Option<u64>,
    pub(crate) page_number: Option<u64>,
    pub(crate) page_offset: Option<u64>,
    pub(crate) page_cursor: Option<&'a str>,
    pub(crate) page_version: Option<u64>,
    pub(crate) config: Option<&'a Map<String, Value>>,
    pub(crate) credentials: Option<&'a BTreeMap<String, SecretString>>,
    pub(crate) event: Option<&'a Value>,
    pub(crate) member: Option<&'a Value>,
    pub(crate) partition: Option<&'a Value>,
    pub(crate) lookup_key: Option<&'a str>,
    pub(crate) record: Option<&'a Value>,
    pub(crate) records: Option<&'a [Value]>,
    pub(crate) request_time: Option<Value>,
    pub(crate) token: Option<&'a SecretString>,
    pub(crate) refresh_token: Option<&'a SecretString>,
    pub(crate) signing: Option<&'a SigningParts>,
}

/// The parts of one signature, as far as they are made.
#[derive(Default)]
pub(crate) struct SigningParts {
    pub(crate) pairs: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) body: Option<String>,
    pub(crate) signature: Option<String>,
}

impl SigningParts {
    fn get(&self, part: SigningPart) -> Option<&str> {
        match part {
            SigningPart::Pairs => self.pairs.as_deref(),
            SigningPart::Url => self.url.as_deref(),
            SigningPart::Path => self.path.as_deref(),
            SigningPart::Method => self.method.as_deref(),
            SigningPart::Body => self.body.as_deref(),
            SigningPart::Signature => self.signature.as_deref(),
        }
    }
}

impl Slots<'_> {
    fn value(&self, slot: &Slot) -> Option<Value> {
        match slot {
            Slot::WindowFrom => self.window_from.clone(),
            Slot::WindowTo => self.window_to.clone(),
            Slot::WindowDay => self.window_day.clone(),
            Slot::PageSize => self.page_size.map(Value::from),
            Slot::PageNumber => self.page_number.map(Value::from),
            Slot::PageOffset => self.page_offset.map(Value::from),
            Slot::PageCursor => self.page_cursor.map(Value::from),
            Slot::PageVersion => self.page_version.map(Value::from),
            Slot::Config(key) => self.config?.get(key).filter(|value| !value.is_null()).cloned(),
            Slot::Credential(name) => {
                self.credentials?.get(name).map(|secret| Value::from(secret.expose_secret()))
            }
            Slot::Member(path) => path.find(self.member?).filter(|value| !value.is_null()).cloned(),
            Slot::Event(path) => path.find(self.event?).filter(|value| !value.is_null()).cloned(),
            Slot::Record(path) => path.find(self.record?).filter(|value| !value.is_null()).cloned(),
            Slot::Records(path) => {
                Some(self.records?.iter().filter_map(|record| path.find(record)).cloned().collect())
            }
            Slot::Partition(path) => path.find(self.partition?).filter(|value| !value.is_null()).cloned(),
            Slot::LookupKey => self.lookup_key.map(Value::from),
            Slot::RequestTime => self.request_time.clone(),
            Slot::Token => self.token.map(|secret| Value::from(secret.expose_secret())),
            Slot::RefreshToken => self.refresh_token.map(|secret| Value::from(secret.expose_secret())),
            Slot::Signing(part) => self.signing?.get(*part).map(Value::from),
        }
    }
}

impl Template {
    /// Reads the placeholders; an unknown one is a mistake of the manifest.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let Some((name, after)) = rest.split_once('}').filter(|_| brace == "{") else {
                return Err(format!(
                    "`{text}` has a brace without its partner; a brace itself is written twice"
                ));
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Slot(parse_slot(name)?));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self(parts))
    }

    /// One placeholder and nothing else.
    pub(crate) fn of(slot: Slot) -> Self {
        Self(vec![Part::Slot(slot)])
    }

    /// The placeholders it uses.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Slot(slot) => Some(slot),
        })
    }

    /// The text, or nothing where a placeholder has no value.
    pub(crate) fn text(&self, slots: &Slots<'_>) -> Option<String> {
        self.render(slots, |text| text)
    }

    /// The text for a place in a URL's path: what is filled in cannot add segments or a query.
    pub(crate) fn path(&self, slots: &Slots<'_>) -> Option<String> {
        self.render(slots, |text| {
            const PLAIN: &[u8] = b"-._~";
            text.bytes().fold(String::new(), |mut encoded, byte| {
                if byte.is_ascii_alphanumeric() || PLAIN.contains(&byte) {
                    encoded.push(char::from(byte));
                } else {
                    let _ = write!(encoded, "%{byte:02X}");
                }
                encoded
            })
        })
    }

    fn render(&self, slots: &Slots<'_>, shape: impl Fn(String) -> String) -> Option<String> {
        let mut whole = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => whole.push_str(text),
                Part::Slot(slot) => whole.push_str(&shape(as_text(&slots.value(slot)?)?)),
            }
        }
        Some(whole)
    }

    /// The value: with its JSON type where the template is exactly one placeholder.
    fn json(&self, slots: &Slots<'_>) -> Option<Value> {
        match self.0.as_slice() {
            [Part::Slot(slot)] => slots.value(slot),
            _ => self.text(slots).map(Value::String),
        }
    }
}

/// A JSON body with templates for texts.
#[derive(Debug, Clone)]
pub(crate) enum JsonTemplate {
    Object(Vec<(String, JsonTemplate)>),
    List(Vec<JsonTemplate>),
    Text(Template),
    Fixed(Value),
}

impl JsonTemplate {
    /// Reads a TOML value; `on_error` hears of every bad template with the key it stands at.
    pub(crate) fn read(value: &toml::Value, key: &str, on_error: &mut dyn FnMut(&str, String)) -> Self {
        match value {
            toml::Value::String(text) => match Template::parse(text) {
                Ok(template) => Self::Text(template),
                Err(problem) => {
                    on_error(key, problem);
                    Self::Fixed(Value::Null)
                }
            },
            toml::Value::Integer(whole) => Self::Fixed(Value::from(*whole)),
            toml::Value::Float(float) => Self::Fixed(Value::from(*float)),
            toml::Value::Boolean(flag) => Self::Fixed(Value::Bool(*flag)),
            toml::Value::Datetime(time) => Self::Fixed(Value::String(time.to_string())),
            toml::Value::Array(elements) => Self::List(
                elements
                    .iter()
                    .enumerate()
                    .map(|(at, value)| Self::read(value, &format!("{key}.{at}"), on_error))
                    .collect(),
            ),
            toml::Value::Table(members) => Self::Object(
                members
                    .iter()
                    .map(|(name, value)| {
                        (name.clone(), Self::read(value, &format!("{key}.{name}"), on_error))
                    })
                    .collect(),
            ),
        }
    }

    /// The placeholders it uses.
    pub(crate) fn slots(&self) -> Vec<&Slot> {
        match self {
            Self::Object(members) => members.iter().flat_map(|(_, value)| value.slots()).collect(),
            Self::List(elements) => elements.iter().flat_map(Self::slots).collect(),
            Self::Text(template) => template.slots().collect(),
            Self::Fixed(_) => Vec::new(),
        }
    }

    /// The body; members without a value are left out.
    pub(crate) fn json(&self, slots: &Slots<'_>) -> Option<Value> {
        Some(match self {
            Self::Object(members) => Value::Object(
                members.iter().filter_map(|(name, value)| Some((name.clone(), value.json(slots)?))).collect(),
            ),
            Self::List(elements) => {
                Value::Array(elements.iter().filter_map(|value| value.json(slots)).collect())
            }
            Self::Text(template) => template.json(slots)?,
            Self::Fixed(value) => value.clone(),
        })
    }
}

fn parse_slot(name: &str) -> Result<Slot, String> {
    Ok(match name {
        "window.from" => Slot::WindowFrom,
        "window.to" => Slot::WindowTo,
        "window.day" => Slot::WindowDay,
        "page.size" => Slot::PageSize,
        "page.number" => Slot::PageNumber,
        "page.offset" => Slot::PageOffset,
        "page.cursor" => Slot::PageCursor,
        "page.version" => Slot::PageVersion,
        "lookup.key" => Slot::LookupKey,
        "request.time" => Slot::RequestTime,
        "token" => Slot::Token,
        "refresh_token" => Slot::RefreshToken,
        "pairs" => Slot::Signing(SigningPart::Pairs),
        "url" => Slot::Signing(SigningPart::Url),
        "path" => Slot::Signing(SigningPart::Path),
        "method" => Slot::Signing(SigningPart::Method),
        "body" => Slot::Signing(SigningPart::Body),
        "signature" => Slot::Signing(SigningPart::Signature),
        _ => match name.split_once('.') {
            Some(("config", key)) if !key.is_empty() => Slot::Config(key.to_owned()),
            Some(("credential", key)) if !key.is_empty() => Slot::Credential(key.to_owned()),
            Some(("member", path)) => Slot::Member(Path::parse(path)?),
            Some(("event", path)) => Slot::Event(Path::parse(path)?),
            Some(("record", path)) => Slot::Record(Path::parse(path)?),
            Some(("records", path)) => Slot::Records(Path::parse(path)?),
            Some(("partition", path)) => Slot::Partition(Path::parse(path)?),
            _ => return Err(format!("`{{{name}}}` is not known; known are {KNOWN}")),
        },
    })
}

/// A value inside a text; lists of plain values are joined with commas.
pub(crate) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Object(_) => None,
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Array(elements) => {
            elements.iter().map(as_text).collect::<Option<Vec<_>>>().map(|all| all.join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_placeholder_keeps_its_type_and_text_around_it_does_not() {
        let config = json!({"location_ids": ["L1", "L2"], "shop": "a/b?c"});
        let slots = Slots { page_size: Some(500), config: config.as_object(), ..Slots::default() };
        let body: toml::Table =
            "ids = '{config.location_ids}'\njoined = 'x-{config.location_ids}'\nlimit = '{page.size}'\ncursor = '{page.cursor}'\nfixed = false\nlist = ['{config.shop}', '{page.cursor}']"
                .parse()
                .unwrap();
        let template = JsonTemplate::read(&toml::Value::Table(body), "body", &mut |key, problem| {
            panic!("{key}: {problem}")
        });
        assert_eq!(
            template.json(&slots),
            Some(
                json!({"ids": ["L1", "L2"], "joined": "x-L1,L2", "limit": 500, "fixed": false, "list": ["a/b?c"]})
            )
        );
        let path = Template::parse("/shops/{config.shop}/orders").unwrap();
        assert_eq!(path.path(&slots).unwrap(), "/shops/a%2Fb%3Fc/orders");
        assert_eq!(Template::parse("{config.none}").unwrap().text(&slots), None);
    }

    #[test]
    fn a_place_in_an_event_is_filled_in() {
        let event = json!({"data": {"id": "a/../b?c", "no": 7, "gone": null}});
        let slots = Slots { event: Some(&event), ..Slots::default() };
        let path = |text: &str| Template::parse(text).unwrap().path(&slots);
        assert_eq!(path("/orders/{event.data.id}").unwrap(), "/orders/a%2F..%2Fb%3Fc");
        assert_eq!(path("/orders/{event.data.no}").unwrap(), "/orders/7");
        assert_eq!(path("/orders/{event.data.gone}"), None);
        assert_eq!(path("/orders/{event.data.none}"), None);
        assert!(Template::parse("{event.}").unwrap_err().contains("is no path"));
        let without = Slots::default();
        assert_eq!(Template::parse("{event.data.no}").unwrap().text(&without), None);
    }

    #[test]
    fn braces_are_written_twice() {
        let template = Template::parse("{{\"page\":{page.size}}}").unwrap();
        assert_eq!(template.text(&Slots { page_size: Some(3), ..Slots::default() }).unwrap(), "{\"page\":3}");
    }

    #[test]
    fn mistakes_name_what_is_known() {
        for (text, says) in [
            ("{page}", "`page.number`"),
            ("{config.}", "`config.<key>`"),
            ("{page.size", "partner"),
            ("a}b", "partner"),
        ] {
            let problem = Template::parse(text).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
        }
    }
}
