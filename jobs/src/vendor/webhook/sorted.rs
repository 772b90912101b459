//! What is signed where a vendor signs its parameters in the order of their names: `a=1&b=2`. The same
//! name twice is refused, since the vendor signed one of the two values and we might act on the other.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::body::{FORM_MEMBERS_MAX, FormView};
use super::scheme::{Tag, keyed, plain};
use super::{Delivery, Refusal};
use crate::vendor::manifest::webhook::{Nested, PairPart, SecretPlace, Sorted, SortedFrom};

type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The text that is signed, without the secret.
pub(super) fn content(sorted: &Sorted, delivery: &Delivery<'_>) -> Result<Vec<u8>, Refusal> {
    let mut pairs = match sorted.from {
        SortedFrom::Body => members(sorted, delivery.body)?,
        SortedFrom::Form => form(FormView::new(delivery.body))?,
        SortedFrom::Query => form(FormView::new(delivery.query.as_bytes()))?,
    };
    pairs.retain(|(name, value)| {
        let excluded = sorted.exclude.iter().any(|excluded| excluded == name);
        !excluded && (!sorted.drop_empty || !value.is_empty())
    });
    pairs.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
    if let Some(twice) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let name: String = twice[0].0.chars().take(50).collect();
        return Err(Refusal::new("ambiguous", format!("the parameter `{name}` is there more than once")));
    }
    let mut text = String::new();
    if sorted.url_first {
        text.push_str(delivery.url);
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
    Ok(pairs)
}

/// The members of a JSON object as texts: numbers as they are written, nothing for null.
fn members<'a>(sorted: &Sorted, body: &'a [u8]) -> Result<Vec<Pair<'a>>, Refusal> {
    let Members(members) = serde_json::from_slice(body)
        .map_err(|error| Refusal::new("bad_body", format!("the body is not a JSON object: {error}")))?;
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
                let name: String = name.chars().take(50).collect();
                let problem = format!(
                    "the member `{name}` is a list or an object, which nobody can sign by name; \
                     `nested = \"skip\"` in the manifest leaves such members unsigned"
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
        let headers = HeaderMap::new();
        let delivery = Delivery {
            method: "POST",
            url: "https://hub.example/hook",
            query,
            headers: &headers,
            body: body.as_bytes(),
            received_at: DateTime::UNIX_EPOCH,
        };
        content(sorted, &delivery)
            .map(|text| String::from_utf8(text).unwrap())
            .map_err(|refusal| refusal.code)
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
        assert_eq!(of(&spec, "q=1", "b=1").unwrap(), "https://hub.example/hook?q=1");
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused() {
        assert_eq!(of(&sorted(SortedFrom::Form), "", "a=1&a=2"), Err("ambiguous"));
        assert_eq!(of(&sorted(SortedFrom::Form), "", "a=1&%61=1"), Err("ambiguous"));
        assert_eq!(of(&sorted(SortedFrom::Body), "", r#"{"a":1,"\u0061":2}"#), Err("ambiguous"));
        assert_eq!(of(&sorted(SortedFrom::Form), "", &"a&".repeat(1_001)), Err("bad_body"));
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
