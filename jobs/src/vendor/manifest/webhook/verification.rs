//! Reads `[webhook.verification]`. All keys are read whatever the scheme, because a system's settings
//! may choose the scheme; those that a scheme needs are asked for.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::read::Places;
use super::{
    Algorithm, BodyForm, ContentPart, Encoding, Nested, PairPart, Place, Scheme, SecretForm, SecretPlace,
    SignatureList, Sorted, SortedFrom, TimestampForm, Verification,
};
use crate::vendor::manifest::section::Section;

/// The tolerance of Standard Webhooks and most others.
const TOLERANCE_DEFAULT: Duration = Duration::from_mins(5);
const TOLERANCE_SECS: RangeInclusive<u32> = 1..=86_400;

/// The schemes by name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Hmac,
    Digest,
    SortedParameters,
    StaticCode,
    UrlSecret,
    None,
}

impl Encoding {
    const WORDS: [(&str, Self); 3] = [("hex", Self::Hex), ("hex_upper", Self::Hex), ("base64", Self::Base64)];

    /// For people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Base64 => "base64",
        }
    }
}

impl SecretForm {
    const WORDS: [(&str, Self); 3] = [("text", Self::Text), ("base64", Self::Base64), ("hex", Self::Hex)];

    /// For people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Base64 => "base64",
            Self::Hex => "hex",
        }
    }
}

impl TimestampForm {
    const WORDS: [(&str, Self); 3] =
        [("unix", Self::Unix), ("unix_ms", Self::UnixMs), ("rfc3339", Self::Rfc3339)];

    /// For people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::UnixMs => "unix_ms",
            Self::Rfc3339 => "rfc3339",
        }
    }
}

impl Algorithm {
    const WORDS: [(&str, Self); 4] =
        [("md5", Self::Md5), ("sha1", Self::Sha1), ("sha256", Self::Sha256), ("sha512", Self::Sha512)];
}

impl SecretPlace {
    const WORDS: [(&str, Self); 4] =
        [("before", Self::Before), ("after", Self::After), ("both", Self::Both), ("key", Self::Key)];
}

pub(super) fn read_verification(
    section: Section<'_>,
    places: &Places,
    body: Option<&BodyForm>,
) -> Option<Verification> {
    let words = [
        ("hmac", Word::Hmac),
        ("digest", Word::Digest),
        ("sorted_parameters", Word::SortedParameters),
        ("static_code", Word::StaticCode),
        ("url_secret", Word::UrlSecret),
        ("none", Word::None),
    ];
    let word = section.required(
        "scheme",
        section.choice("scheme", &words),
        "expected `hmac`, `digest`, `sorted_parameters`, `static_code`, `url_secret` or `none`",
    );
    let signature = places.alternatives(&section, "signature");
    if word.is_some_and(|word| word != Word::None) {
        let fix = "say where the signature is, as `header:x-signature`";
        section.required("signature", signature.as_ref(), fix);
    }
    let signature = signature.unwrap_or_default();
    let list = section.section("list").and_then(read_list);
    let scheme = read_scheme(&section, word, &signature);
    let of = Verification {
        prefix: section.text("prefix").unwrap_or_default().to_owned(),
        encoding: section.choice("encoding", &Encoding::WORDS).unwrap_or(Encoding::Hex),
        timestamp: places.alternatives(&section, "timestamp").unwrap_or_default(),
        timestamp_form: section
            .choice("timestamp_form", &TimestampForm::WORDS)
            .unwrap_or(TimestampForm::Unix),
        tolerance: section.secs("tolerance_secs", TOLERANCE_SECS).unwrap_or(TOLERANCE_DEFAULT),
        id: places.alternatives(&section, "id").unwrap_or_default(),
        secret_form: section.choice("secret_form", &SecretForm::WORDS).unwrap_or(SecretForm::Text),
        secret_prefix: section.text("secret_prefix").unwrap_or_default().to_owned(),
        scheme: scheme.unwrap_or(Scheme::None),
        signature,
        list,
    };
    check(&section, &of);
    check_coverage(&section, &of, places);
    check_source(&section, &of, body);
    section.finish();
    word.is_some().then_some(of)
}

fn read_scheme(section: &Section<'_>, word: Option<Word>, signature: &[Place]) -> Option<Scheme> {
    let algorithm = section.choice("algorithm", &Algorithm::WORDS);
    let content = section.parsed("content", parse_content);
    let secret = section.choice("secret_place", &SecretPlace::WORDS);
    let sorted = read_sorted(section, algorithm, secret, signature);
    let word = word?;
    let needs = |key, present: bool, fix| {
        if !present && !section.has(key) {
            section.problem(key, format!("is missing; {fix}"));
        }
    };
    let hashes = matches!(word, Word::Hmac | Word::Digest | Word::SortedParameters);
    needs("algorithm", !hashes || algorithm.is_some(), "expected `sha1`, `sha256`, `sha512` or `md5`");
    match word {
        Word::Hmac if algorithm == Some(Algorithm::Md5) => {
            section.problem("algorithm", "`md5` is not for `hmac`; no vendor is known that does this");
            None
        }
        Word::Hmac => {
            Some(Scheme::Hmac { algorithm: algorithm?, content: content.unwrap_or_else(body_only) })
        }
        Word::Digest => {
            needs("secret_place", secret.is_some(), "say whether the secret stands `before` or `after`");
            let content = content.unwrap_or_else(body_only);
            Some(Scheme::Digest { algorithm: algorithm?, content, secret: secret? })
        }
        Word::SortedParameters => {
            needs("secret_place", secret.is_some(), "say whether the secret stands `before` or `after`");
            needs("from", sorted.is_some(), "expected `body`, `form` or `query`");
            sorted.map(Scheme::SortedParameters)
        }
        Word::StaticCode | Word::UrlSecret => {
            check_code_places(section, word, signature);
            Some(Scheme::Code)
        }
        Word::None => Some(Scheme::None),
    }
}

/// A secret in the body would be stored with it.
fn check_code_places(section: &Section<'_>, word: Word, signature: &[Place]) {
    for place in signature {
        match (word, place) {
            (_, Place::Body(_)) => {
                let problem = "a secret in the body would be stored with it; expected `header:<name>` or `query:<name>`";
                section.problem("signature", problem);
            }
            (Word::UrlSecret, Place::Header(name)) => {
                let problem = format!("`header:{name}` is not in the URL; expected `query:<name>`");
                section.problem("signature", problem);
            }
            _ => {}
        }
    }
}

fn read_sorted(
    section: &Section<'_>,
    algorithm: Option<Algorithm>,
    secret: Option<SecretPlace>,
    signature: &[Place],
) -> Option<Sorted> {
    let sources = [("body", SortedFrom::Body), ("form", SortedFrom::Form), ("query", SortedFrom::Query)];
    let from = section.choice("from", &sources);
    let mut exclude: Vec<String> =
        section.texts("exclude").unwrap_or_default().into_iter().map(str::to_owned).collect();
    // A signature is never part of what it signs; where it stands in a body it is named as a path.
    let own = section.texts("signature").unwrap_or_default();
    let own = own.into_iter().filter_map(|text| text.split_once(':'));
    exclude.extend(own.filter(|(kind, _)| *kind != "header").map(|(_, name)| name.to_owned()));
    let nested = section
        .choice("nested", &[("refuse", Nested::Refuse), ("skip", Nested::Skip)])
        .unwrap_or(Nested::Refuse);
    let pair = section.parsed("pair", parse_pair);
    let sorted = Sorted {
        algorithm: algorithm.unwrap_or(Algorithm::Md5),
        from: from.unwrap_or(SortedFrom::Body),
        exclude,
        drop_empty: section.flag("drop_empty").unwrap_or(false),
        nested,
        pair: pair.unwrap_or_else(|| vec![PairPart::Name, PairPart::Text("=".into()), PairPart::Value]),
        join: section.text("join").unwrap_or("&").to_owned(),
        secret: secret.unwrap_or(SecretPlace::After),
        secret_join: section.text("secret_join").unwrap_or_default().to_owned(),
        url_first: section.flag("url_first").unwrap_or(false),
    };
    (from.is_some() && algorithm.is_some() && secret.is_some() && !signature.is_empty()).then_some(sorted)
}

fn read_list(section: Section<'_>) -> Option<SignatureList> {
    let styles = [("pairs", true), ("versions", false)];
    let pairs = section.required("style", section.choice("style", &styles), "expected `pairs` or `versions`");
    let keys = section.required("keys", section.texts("keys"), "name the kinds that count, as [\"v1\"]");
    let keys = keys.unwrap_or_default().into_iter().map(str::to_owned).collect();
    let separator = section.text("separator").unwrap_or(if pairs == Some(true) { "," } else { " " });
    let join = section.text("join").unwrap_or(",").to_owned();
    let timestamp_key = section.text("timestamp_key").map(str::to_owned);
    for (key, text) in [("separator", separator), ("join", &join)] {
        if text.is_empty() {
            section.problem(key, "is empty; leave it out or give the sign between");
        }
    }
    section.finish();
    let separator = separator.to_owned();
    Some(if pairs? {
        SignatureList::Pairs { separator, keys, timestamp_key }
    } else {
        SignatureList::Versions { separator, keys, join }
    })
}

/// What a scheme signs must be there, and be read before it is signed.
fn check(section: &Section<'_>, of: &Verification) {
    let (Scheme::Hmac { content, .. } | Scheme::Digest { content, .. }) = &of.scheme else {
        return;
    };
    let from_list = matches!(&of.list, Some(SignatureList::Pairs { timestamp_key: Some(_), .. }));
    if content.contains(&ContentPart::Timestamp) && of.timestamp.is_empty() && !from_list {
        section.problem("timestamp", "is missing; `content` has `{timestamp}`, say where it is");
    }
    if content.contains(&ContentPart::Id) && of.id.is_empty() {
        section.problem("id", "is missing; `content` has `{id}`, say where it is");
    }
    if !content.contains(&ContentPart::Body) {
        section.problem("content", "has no `{body}`; anybody could send another body under the signature");
    }
    if of.signature.iter().any(|place| matches!(place, Place::Body(_))) {
        let problem = "a signature inside the body cannot be part of what it signs; expected `header:<name>` or `query:<name>`";
        section.problem("signature", problem);
    }
}

/// A timestamp or an id that is not signed proves nothing: whoever sends a recorded event again gives it a
/// new one.
fn check_coverage(section: &Section<'_>, of: &Verification, places: &Places) {
    let from_list = matches!(&of.list, Some(SignatureList::Pairs { timestamp_key: Some(_), .. }));
    let named = |part| match &of.scheme {
        Scheme::Hmac { content, .. } | Scheme::Digest { content, .. } => content.contains(&part),
        Scheme::SortedParameters(_) | Scheme::Code => false,
        // Nothing is verified.
        Scheme::None => true,
    };
    let covers = |place: &Place| is_in_content(&of.scheme, place, places);
    let fix = match &of.scheme {
        Scheme::SortedParameters(_) => "take it from a parameter that is signed by its name",
        Scheme::Code => "a code signs nothing",
        _ => "put it into `content`, or take it from the body",
    };
    for (key, part, at, from_list) in [
        ("timestamp", ContentPart::Timestamp, &of.timestamp, from_list),
        ("id", ContentPart::Id, &of.id, false),
    ] {
        if !named(part) && (from_list || !at.iter().all(covers)) {
            let problem = format!(
                "is not covered by the signature, so anybody could change it; {fix}, or leave `{key}` out"
            );
            section.problem(key, problem);
        }
    }
}

/// Whether what stands at a place is signed with what is around it.
fn is_in_content(scheme: &Scheme, place: &Place, places: &Places) -> bool {
    match (scheme, place) {
        (Scheme::Hmac { content, .. } | Scheme::Digest { content, .. }, Place::Body(_)) => {
            content.contains(&ContentPart::Body)
        }
        (Scheme::SortedParameters(sorted), Place::Query(name)) => {
            sorted.from == SortedFrom::Query && !sorted.exclude.contains(name)
        }
        (Scheme::SortedParameters(sorted), Place::Body(at)) => {
            places.member_of(*at).is_some_and(|(member, alone)| {
                // Of JSON only texts, numbers and flags are signed; a form's member is, whatever it holds.
                let signed = match sorted.from {
                    SortedFrom::Body => alone,
                    SortedFrom::Form => true,
                    SortedFrom::Query => false,
                };
                signed && !sorted.exclude.contains(&member)
            })
        }
        _ => false,
    }
}

/// What is signed must be what is read.
fn check_source(section: &Section<'_>, of: &Verification, body: Option<&BodyForm>) {
    let (Scheme::SortedParameters(sorted), Some(body)) = (&of.scheme, body) else {
        return;
    };
    match (sorted.from, body) {
        (SortedFrom::Body, BodyForm::Form | BodyForm::FormJson(_)) => {
            let problem =
                "is `body`, the members of a JSON object, and `webhook.body` is a form; expected `form`";
            section.problem("from", problem);
        }
        (SortedFrom::Form, BodyForm::Json) => {
            let problem = "is `form`, and `webhook.body` is `json`; expected `body`, or `webhook.body` as `form` or `form_json`";
            section.problem("from", problem);
        }
        _ => {}
    }
}

fn body_only() -> Vec<ContentPart> {
    vec![ContentPart::Body]
}

fn parse_content(text: &str) -> Result<Vec<ContentPart>, String> {
    let names = [
        ("body", ContentPart::Body),
        ("url", ContentPart::Url),
        ("timestamp", ContentPart::Timestamp),
        ("id", ContentPart::Id),
    ];
    parse_parts(text, &names, ContentPart::Text)
}

pub(in crate::vendor::manifest) fn parse_pair(text: &str) -> Result<Vec<PairPart>, String> {
    let parts = parse_parts(text, &[("name", PairPart::Name), ("value", PairPart::Value)], PairPart::Text)?;
    for needed in [PairPart::Name, PairPart::Value] {
        if !parts.contains(&needed) {
            return Err(format!("`{text}` must have both `{{name}}` and `{{value}}`"));
        }
    }
    Ok(parts)
}

/// Text with these names in braces.
fn parse_parts<P: Clone>(text: &str, names: &[(&str, P)], plain: fn(String) -> P) -> Result<Vec<P>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            parts.push(plain(before.to_owned()));
        }
        let known = after
            .split_once('}')
            .and_then(|(name, after)| Some((names.iter().find(|(known, _)| *known == name)?, after)));
        let Some(((_, part), after)) = known else {
            let known = names.iter().map(|(name, _)| format!("`{{{name}}}`")).collect::<Vec<_>>().join(", ");
            return Err(format!("`{text}` has a placeholder that is not known; known are {known}"));
        };
        parts.push(part.clone());
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(plain(rest.to_owned()));
    }
    Ok(parts)
}
