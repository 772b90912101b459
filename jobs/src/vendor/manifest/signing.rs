//! How requests are signed: `[signing]`, read as the steps of one pipeline. What takes part is collected from
//! the query and the body, some of it is dropped, the rest is ordered and written as one text (`{pairs}`), the
//! secrets are put around it (`content`), and its hash is placed in the request. `vendor/signing.rs` runs it.

use super::section::Section;
use super::webhook::verification::parse_pair;
use super::webhook::{Algorithm, PairPart};
use crate::vendor::path::Path;
use crate::vendor::template::{SigningPart, Slot, Template};

/// How a request is signed.
#[derive(Debug)]
pub(crate) struct Signing {
    /// Where the signature goes.
    pub(crate) place: Place,
    /// Where the parameters that take part come from.
    pub(crate) from: Vec<Source>,
    /// Names that take no part; that of the signature never does.
    pub(crate) exclude: Vec<String>,
    pub(crate) drop_null: bool,
    pub(crate) drop_empty: bool,
    /// What takes part like a parameter and is not sent as one.
    pub(crate) with: Vec<(String, Template)>,
    pub(crate) order: Order,
    pub(crate) render: Render,
    /// What is hashed.
    pub(crate) content: Template,
    /// Takes the place of the endpoint in `{url}`.
    pub(crate) base_url: Option<String>,
    pub(crate) algorithm: Algorithm,
    /// The key of an HMAC; without it the hash is a plain one.
    pub(crate) key: Option<Template>,
    pub(crate) encoding: Encoding,
    /// What is sent, around the signature.
    pub(crate) value: Template,
}

impl Signing {
    /// The placeholders it uses.
    pub(in crate::vendor) fn slots(&self) -> impl Iterator<Item = &Slot> {
        let with = self.with.iter().map(|(_, template)| template);
        with.chain([&self.content, &self.value]).chain(&self.key).flat_map(Template::slots)
    }
}

/// A place in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The form of a request that has one, else the query.
    Parameter(String),
    Query(String),
    Header(String),
    /// A member of the JSON body or the form.
    Body(String),
}

impl Place {
    /// Reads `query:sign`.
    pub(in crate::vendor::manifest) fn parse(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "`{text}` is no place in a request; expected `parameter:<name>`, `query:<name>`, \
                 `header:<name>` or `body:<name>`"
            )
        };
        let (kind, name) = text.split_once(':').ok_or_else(expected)?;
        if name.is_empty() {
            return Err(expected());
        }
        let name = name.to_owned();
        match kind {
            "parameter" => Ok(Self::Parameter(name)),
            "query" => Ok(Self::Query(name)),
            "body" => Ok(Self::Body(name)),
            "header" if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok() => {
                Ok(Self::Header(name))
            }
            "header" => Err(format!("`{name}` is not the name of a header")),
            _ => Err(expected()),
        }
    }

    /// The name of the parameter, where it is one.
    pub(in crate::vendor) fn parameter(&self) -> Option<&str> {
        match self {
            Self::Parameter(name) | Self::Query(name) | Self::Body(name) => Some(name),
            Self::Header(_) => None,
        }
    }
}

/// Where parameters come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Query,
    /// The members of the form, where the body is one.
    Form,
    /// The members of a JSON body.
    Json,
    /// The members of an object in the body.
    Inside(Path),
}

impl Source {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "query" => Ok(Self::Query),
            "form" => Ok(Self::Form),
            "json" => Ok(Self::Json),
            _ => match text.strip_prefix("body:") {
                Some(path) => Path::parse(path).map(Self::Inside),
                None => {
                    Err(format!("`{text}` is not known; expected `query`, `form`, `json` or `body:<path>`"))
                }
            },
        }
    }
}

/// The order in which parameters are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// By the bytes of their names.
    Name,
    /// As they are sent.
    Sent,
    /// These names in this order, and no others.
    Fixed(Vec<String>),
}

/// How the parameters are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Render {
    Pairs {
        pair: Vec<PairPart>,
        join: String,
    },
    /// As PHP's `http_build_query` does.
    Php,
}

/// How the hash is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Hex,
    HexUpper,
    Base64,
}

/// The hashes by name, and whether they take a key.
const ALGORITHMS: [(&str, (Algorithm, bool)); 8] = [
    ("md5", (Algorithm::Md5, false)),
    ("sha1", (Algorithm::Sha1, false)),
    ("sha256", (Algorithm::Sha256, false)),
    ("sha512", (Algorithm::Sha512, false)),
    ("hmac_md5", (Algorithm::Md5, true)),
    ("hmac_sha1", (Algorithm::Sha1, true)),
    ("hmac_sha256", (Algorithm::Sha256, true)),
    ("hmac_sha512", (Algorithm::Sha512, true)),
];

/// Reads the section. All keys are read whatever the algorithm, because a system's settings may choose it.
pub(super) fn read_signing(section: Section<'_>) -> Option<Signing> {
    let place = section.required(
        "place",
        section.parsed("place", Place::parse),
        "say where the signature goes, as `parameter:sign`",
    );
    let algorithm = section.required(
        "algorithm",
        section.choice("algorithm", &ALGORITHMS),
        "expected one such as `md5`, `sha256` or `hmac_sha256`",
    );
    let key = section.template("key");
    let keyed = algorithm.is_some_and(|(_, keyed)| keyed);
    if keyed {
        section.required("key", key.as_ref(), "an HMAC needs it, as `key = \"{credential.api_secret}\"`");
    }
    let with = section.named_templates("with");
    let content = read_content(&section, keyed, &with);
    let value = section.template("value");
    if let Some(value) = &value
        && !value.slots().any(|slot| *slot == Slot::Signing(SigningPart::Signature))
    {
        section.problem("value", "has no `{signature}`, so the signature would not be sent");
    }
    let encodings = [("hex", Encoding::Hex), ("hex_upper", Encoding::HexUpper), ("base64", Encoding::Base64)];
    let exclude = section.texts("exclude").unwrap_or_default();
    let signing = Signing {
        from: read_sources(&section),
        exclude: exclude.into_iter().map(str::to_owned).collect(),
        drop_null: section.flag("drop_null").unwrap_or(true),
        drop_empty: section.flag("drop_empty").unwrap_or(false),
        order: read_order(&section),
        render: read_render(&section),
        base_url: section.parsed("base_url", read_base_url),
        encoding: section.choice("encoding", &encodings).unwrap_or(Encoding::Hex),
        value: value.unwrap_or_else(|| Template::of(Slot::Signing(SigningPart::Signature))),
        key: key.filter(|_| keyed),
        algorithm: algorithm.map_or(Algorithm::Sha256, |(algorithm, _)| algorithm),
        content: content.unwrap_or_else(|| Template::of(Slot::Signing(SigningPart::Pairs))),
        place: place.clone().unwrap_or(Place::Query(String::new())),
        with,
    };
    section.finish();
    (place.is_some() && algorithm.is_some()).then_some(signing)
}

fn read_content(section: &Section<'_>, keyed: bool, with: &[(String, Template)]) -> Option<Template> {
    let content = section.template("content");
    let is_secret = |slot: &Slot| matches!(slot, Slot::Credential(_) | Slot::Token);
    let with_secret = with.iter().flat_map(|(_, template)| template.slots()).any(is_secret);
    match &content {
        Some(content) if !keyed && !with_secret && !content.slots().any(is_secret) => {
            section.problem(
                "content",
                "has no secret, so anybody could sign; add it, as `{pairs}&key={credential.api_secret}`, or take an HMAC",
            );
        }
        None if !keyed && !with_secret => {
            section.required(
                "content",
                content.as_ref(),
                "say where the secret goes, as `{pairs}&key={credential.api_secret}`",
            );
        }
        _ => {}
    }
    let circular = |slot: &Slot| *slot == Slot::Signing(SigningPart::Signature);
    let early = |slot: &Slot| circular(slot) || *slot == Slot::Signing(SigningPart::Pairs);
    if content.iter().flat_map(Template::slots).any(circular) {
        section.problem("content", "holds `{signature}`, which is made of it; it goes into `value`");
    }
    for (name, _) in with.iter().filter(|(_, template)| template.slots().any(early)) {
        section.problem(
            &format!("with.{name}"),
            "can hold neither `{pairs}` nor `{signature}`, which are made of it",
        );
    }
    content
}

fn read_sources(section: &Section<'_>) -> Vec<Source> {
    let Some(texts) = section.texts("from") else {
        return vec![Source::Query, Source::Form];
    };
    let parse = |text| Source::parse(text).map_err(|problem| section.problem("from", problem)).ok();
    texts.into_iter().filter_map(parse).collect()
}

fn read_order(section: &Section<'_>) -> Order {
    let names = section.texts("order");
    match section.value("order") {
        Some(toml::Value::Array(_)) => {
            Order::Fixed(names.unwrap_or_default().into_iter().map(str::to_owned).collect())
        }
        Some(toml::Value::String(_)) => {
            let by_name = section.choice("order", &[("name", true), ("sent", false)]).unwrap_or(true);
            if by_name { Order::Name } else { Order::Sent }
        }
        _ => Order::Name,
    }
}

fn read_render(section: &Section<'_>) -> Render {
    let pair = section.parsed("pair", parse_pair);
    let join = section.text("join").unwrap_or("&").to_owned();
    if section.choice("render", &[("pairs", false), ("php", true)]) == Some(true) {
        return Render::Php;
    }
    let pair = pair.unwrap_or_else(|| vec![PairPart::Name, PairPart::Text("=".into()), PairPart::Value]);
    Render::Pairs { pair, join }
}

fn read_base_url(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|error| format!("`{text}` is not an address: {error}"))?;
    if url.has_host() && url.query().is_none() {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err(format!("`{text}` is not an address; expected `https://host/path` without a query"))
}

/// A section from its keys alone, for tests of what becomes of it.
#[cfg(test)]
pub(in crate::vendor) fn read_text(keys: &str) -> Signing {
    let table = keys.parse().unwrap();
    let problems = super::section::Problems::new("test.toml");
    let signing = read_signing(Section::new(&table, "signing", &problems));
    problems.into_result(signing).unwrap_or_else(|errors| panic!("{errors}"))
}
