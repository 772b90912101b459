//! What is signed where a vendor signs its parameters in the order of their names: `a=1&b=2`. The same
//! name twice is refused, since the vendor signed one of the two values and we might act on the other. That
//! is looked for before anything is left out: whoever could add a second member that takes no part, as null
//! does, would change the event under the vendor's signature.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::body::{FORM_MEMBERS_MAX, FormView, text_of};
use super::scheme::{Tag, keyed, plain};
use super::{Delivery, Refusal};
use crate::vendor::json;
use crate::vendor::manifest::webhook::{Nested, PairPart, SecretPlace, Sorted, SortedFrom};

type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The text that is signed, without the secret.
pub(super) fn content(sorted: &Sorted, delivery: &Delivery<'_>) -> Result<Vec<u8>, Refusal> {
    let mut pairs = match sorted.from {
        SortedFrom::Body => members(sorted, delivery.body)?,
        SortedFrom::Form => form(FormView::new(delivery.body))?,
        SortedFrom::Query if !delivery.body.is_empty() => {
            let problem = "only the query is signed, and there is a body, which anybody could have written";
            return Err(Refusal::new("body_unsigned", problem));
        }
        SortedFrom::Query => form(FormView::new(delivery.query.as_bytes()))?,
    };
    pairs.retain(|(name, value)| {
        let excluded = sorted.exclude.iter().any(|excluded| excluded == name);
        !excluded && (!sorted.drop_empty || !value.is_empty())
    });
    pairs.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
    let mut text = String::new();
    if sorted.url_first {
        let without_query = delivery.url.split('?').next().unwrap_or_default();
        text.push_str(without_query);
        text.push('?');
    }
    for (at, (name, value)) in pairs.iter().enumerate() {
        if at > 0 {
            text.push_str(&sorted.join);
        }
        for part in &sorted.pair {
            text.push_str(match part {
                PairPart::Text(text) => text,
                PairPart::Name => name,
                PairPart::Value => value,
            });
        }
    }
    Ok(text.into_bytes())
}

/// The signature of the content with this secret.
pub(super) fn sign(sorted: &Sorted, content: &[u8], secret: &[u8]) -> Tag {
    let join = sorted.secret_join.as_bytes();
    let hash = |parts: &[&[u8]]| plain(sorted.algorithm, parts.iter().copied());
    match sorted.secret {
        SecretPlace::Before => hash(&[secret, join, content]),
        SecretPlace::After => hash(&[content, join, secret]),
        SecretPlace::Both => hash(&[secret, join, content, join, secret]),
        SecretPlace::Key => keyed(sorted.algorithm, secret, [content].into_iter()),
    }
}

fn form(form: FormView<'_>) -> Result<Vec<Pair<'_>>, Refusal> {
    let pairs: Vec<Pair<'_>> = form.members().take(FORM_MEMBERS_MAX + 1).collect();
    if pairs.len() > FORM_MEMBERS_MAX {
        let problem = format!("there are more than {FORM_MEMBERS_MAX} parameters");
        return Err(Refusal::new("bad_body", problem));
    }
    once_each(pairs.iter().map(|(name, _)| &**name))?;
    Ok(pairs)
}

/// No name may be there more than once.
fn once_each<'n>(names: impl Iterator<Item = &'n str>) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(twice(name));
        }
    }
    Ok(())
}

fn twice(name: &str) -> Refusal {
    Refusal::new("ambiguous", format!("the parameter {} is there more than once", shown(name)))
}

/// A stranger's name, for people: short, and without signs that would break a line of the log.
fn shown(name: &str) -> String {
    let name: String = name.chars().take(50).collect();
    format!("{name:?}")
}

/// The members of a JSON object as texts: numbers as they are written, nothing for null.
fn members<'a>(sorted: &Sorted, body: &'a [u8]) -> Result<Vec<Pair<'a>>, Refusal> {
    let bad_body = |problem: String| Refusal::new("bad_body", format!("the body {problem}"));
    let text = text_of(body).and_then(|text| json::check(text).map(|()| text)).map_err(bad_body)?;
    let Members(members) = serde_json::from_str(text)
        .map_err(|error| Refusal::new("bad_body", format!("the body is not a JSON object: {error}")))?;
    once_each(members.iter().map(|(name, _)| name.as_str()))?;
    if members.iter().any(|(_, value)| value.is_array() || value.is_object()) {
        once_each_below(text)?;
    }
    let mut pairs = Vec::with_capacity(members.len());
    for (name, value) in members {
        let text = match value {
            Value::Null => continue,
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => text,
            Value::Array(_) | Value::Object(_) => {
                let excluded = sorted.exclude.contains(&name);
                if sorted.nested == Nested::Skip || excluded {
                    continue;
                }
                let problem = format!(
                    "the member {} is a list or an object, which nobody can sign by name; \
                     `nested = \"skip\"` in the manifest leaves such members unsigned",
                    shown(&name)
                );
                return Err(Refusal::new("signature_mismatch", problem));
            }
        };
        pairs.push((Cow::Owned(name), Cow::Owned(text)));
    }
    Ok(pairs)
}

/// The members of an object as they stand, doubled ones included.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(Object)
    }
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// The same for the objects within: a value keeps only the last of several members with one name.
fn once_each_below(text: &str) -> Result<(), Refusal> {
    let mut doubled = None;
    let mut reader = serde_json::Deserializer::from_str(text);
    // What is no JSON was told before.
    let _ = Names(&mut doubled).deserialize(&mut reader);
    doubled.map_or(Ok(()), |name: String| Err(twice(&name)))
}

/// One value on the way through a body: notes the first name that an object has twice.
struct Names<'d>(&'d mut Option<String>);

impl<'de> DeserializeSeed<'de> for Names<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Names<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value_seed(Names(&mut *self.0))?;
            if let Some(name) = seen.replace(name) {
                self.0.get_or_insert(name);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Names(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use http::HeaderMap;

    use super::*;
    use crate::vendor::manifest::webhook::Algorithm;

    fn sorted(from: SortedFrom) -> Sorted {
        Sorted {
            algorithm: Algorithm::Md5,
            from,
            exclude: vec!["sign".into()],
            drop_empty: false,
            nested: Nested::Refuse,
            pair: vec![PairPart::Name, PairPart::Text("=".into()), PairPart::Value],
            join: "&".into(),
            secret: SecretPlace::After,
            secret_join: "&token=".into(),
            url_first: false,
        }
    }

    fn of(sorted: &Sorted, query: &str, body: &str) -> Result<String, &'static str> {
        judged(sorted, query, body).map_err(|refusal| refusal.code)
    }

    fn judged(sorted: &Sorted, query: &str, body: &str) -> Result<String, Refusal> {
        let headers = HeaderMap::new();
        let delivery = Delivery {
            method: "POST",
            url: "https://hub.example/hook?shop=1",
            query,
            headers: &headers,
            body: body.as_bytes(),
            received_at: DateTime::UNIX_EPOCH,
        };
        content(sorted, &delivery).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn members_are_signed_in_the_order_of_their_bytes_as_they_were_written() {
        let body = r#"{"b": 1.50, "a": "x y", "sign": "s", "Z": true, "n": null, "é": "中", "big": 12345678901234567890}"#;
        assert_eq!(
            of(&sorted(SortedFrom::Body), "", body).unwrap(),
            "Z=true&a=x y&b=1.50&big=12345678901234567890&é=中"
        );
        assert_eq!(of(&sorted(SortedFrom::Body), "", "{}").unwrap(), "");
    }

    #[test]
    fn a_form_is_decoded_before_it_is_signed() {
        let mut spec = sorted(SortedFrom::Form);
        assert_eq!(of(&spec, "", "b=%E4%B8%AD+x%2B&a=&sign=1").unwrap(), "a=&b=中 x+");
        spec.drop_empty = true;
        spec.url_first = true;
        assert_eq!(of(&spec, "", "b=1&a=").unwrap(), "https://hub.example/hook?b=1");
        spec.from = SortedFrom::Query;
        assert_eq!(of(&spec, "q=1", "").unwrap(), "https://hub.example/hook?q=1");
        assert_eq!(of(&spec, "q=1", "b=1"), Err("body_unsigned"));
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused() {
        assert_eq!(of(&sorted(SortedFrom::Form), "", "a=1&a=2"), Err("ambiguous"));
        assert_eq!(of(&sorted(SortedFrom::Form), "", "a=1&%61=1"), Err("ambiguous"));
        assert_eq!(of(&sorted(SortedFrom::Body), "", r#"{"a":1,"\u0061":2}"#), Err("ambiguous"));
        assert_eq!(of(&sorted(SortedFrom::Form), "", &"a&".repeat(1_001)), Err("bad_body"));
    }

    #[test]
    fn a_second_member_that_would_take_no_part_is_refused_too() {
        let mut spec = sorted(SortedFrom::Body);
        assert_eq!(of(&spec, "", r#"{"billStatus":1,"billStatus":null}"#), Err("ambiguous"));
        assert_eq!(of(&spec, "", r#"{"a":1,"sign":"x","sign":null}"#), Err("ambiguous"));
        spec.nested = Nested::Skip;
        assert_eq!(of(&spec, "", r#"{"a":1,"a":[]}"#), Err("ambiguous"));
        assert_eq!(of(&spec, "", r#"{"a":1,"a":{}}"#), Err("ambiguous"));
        assert_eq!(of(&spec, "", r#"{"a":1,"lines":[{"b":{"c":1,"\u0063":2}}]}"#), Err("ambiguous"));
        assert_eq!(of(&spec, "", r#"{"a":1,"lines":[{"b":1.5},{"b":-2}],"c":null}"#).unwrap(), "a=1");
        spec.drop_empty = true;
        assert_eq!(of(&spec, "", r#"{"a":1,"a":""}"#), Err("ambiguous"));
        let mut form = sorted(SortedFrom::Form);
        form.drop_empty = true;
        assert_eq!(of(&form, "", "a=1&a="), Err("ambiguous"));
    }

    #[test]
    fn a_strangers_name_is_told_short_and_on_one_line() {
        let name = format!("a\\n\\u001b{}", "x".repeat(10_000));
        for body in [format!(r#"{{"{name}":1,"{name}":2}}"#), format!(r#"{{"{name}":[]}}"#)] {
            let message = judged(&sorted(SortedFrom::Body), "", &body).unwrap_err().message;
            assert!(message.contains(r#""a\n\u{1b}xx"#), "{message}");
            assert!(message.chars().count() <= 300 && !message.contains(char::is_control), "{message}");
        }
    }

    #[test]
    fn nested_members_are_refused_unless_the_manifest_leaves_them_unsigned() {
        let mut spec = sorted(SortedFrom::Body);
        let body = r#"{"a":1,"lines":[{"b":2}]}"#;
        assert_eq!(of(&spec, "", body), Err("signature_mismatch"));
        spec.nested = Nested::Skip;
        assert_eq!(of(&spec, "", body).unwrap(), "a=1");
        assert_eq!(of(&spec, "", "[1]"), Err("bad_body"));
    }
}
