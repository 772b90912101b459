//! Reads the body of a delivery. What identifies an event is picked out of the text in one walk that
//! builds nothing beside it; the whole body becomes JSON only when the event is applied.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::vendor::json;
use crate::vendor::manifest::webhook::BodyForm;
use crate::vendor::path::Path;

/// A form with more members is refused.
pub(super) const FORM_MEMBERS_MAX: usize = 1_000;

/// `a=1&b=2`, decoded member by member: `+` is a space, `%XX` a byte of UTF-8.
#[derive(Debug, Clone, Copy)]
pub(super) struct FormView<'a>(&'a [u8]);

impl<'a> FormView<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self(text)
    }

    pub(super) fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        form_urlencoded::parse(self.0)
    }

    /// The member of that name; where it stands several times, the last, as in JSON.
    pub(super) fn last(self, name: &str) -> Option<Cow<'a, str>> {
        self.members().filter(|(found, _)| found == name).last().map(|(_, value)| value)
    }

    /// The members as texts.
    pub(super) fn to_object(self) -> Result<Map<String, Value>, String> {
        let mut object = Map::new();
        for (at, (name, value)) in self.members().enumerate() {
            if at >= FORM_MEMBERS_MAX {
                return Err(format!("the form has more than {FORM_MEMBERS_MAX} members"));
            }
            object.insert(name.into_owned(), Value::String(value.into_owned()));
        }
        Ok(object)
    }
}

/// The body as JSON.
pub(super) fn read(form: &BodyForm, body: &[u8]) -> Result<Value, String> {
    match form {
        BodyForm::Json => json::read(text_of(body)?),
        BodyForm::Form => FormView::new(body).to_object().map(Value::Object),
        BodyForm::FormJson(member) => {
            let mut object = FormView::new(body).to_object()?;
            let Some(value) = object.get_mut(member) else {
                return Err(format!("the form has no member `{member}`"));
            };
            *value = json::read(value.as_str().unwrap_or_default())
                .map_err(|problem| format!("the member `{member}` of the form {problem}"))?;
            Ok(Value::Object(object))
        }
    }
}

/// What stands at these places of the body, in their order.
pub(super) fn pick(form: &BodyForm, body: &[u8], paths: &[Path]) -> Result<Vec<Option<Value>>, String> {
    if *form != BodyForm::Json {
        let body = read(form, body)?;
        return Ok(paths.iter().map(|path| path.find(&body).cloned()).collect());
    }
    let text = text_of(body)?;
    json::check(text)?;
    let mut found = vec![None; paths.len()];
    let mut reader = serde_json::Deserializer::from_str(text);
    let live = (0..paths.len().min(PATHS_MAX)).fold(0, |live, at| live | (1 << at));
    let walk = Walk { paths, found: &mut found, live, depth: 0 };
    walk.deserialize(&mut reader).and_then(|()| reader.end()).map_err(|error| json::not_json(&error))?;
    Ok(found)
}

pub(super) fn text_of(body: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(body).map_err(|_| "is not text in UTF-8".to_owned())
}

/// A value as a word: text, number or flag; nothing for what is empty, null, a list or an object.
pub(super) fn word(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) if !text.is_empty() => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        _ => None,
    }
}

/// The most places that one walk can look for.
pub(crate) const PATHS_MAX: usize = 32;

/// One value on the way: bit `n` of `live` is set while path `n` leads through it.
struct Walk<'a> {
    paths: &'a [Path],
    found: &'a mut [Option<Value>],
    live: u32,
    depth: usize,
}

impl Walk<'_> {
    /// The paths that lead on through this member or element; what they found before, in a member of
    /// the same name, no longer counts.
    fn next(&mut self, leads: impl Fn(&Path) -> bool) -> u32 {
        let mut next = 0;
        for (at, path) in self.paths.iter().enumerate() {
            if self.live & (1 << at) != 0 && leads(path) {
                self.found[at] = None;
                next |= 1 << at;
            }
        }
        next
    }

    fn below(&mut self, live: u32) -> Walk<'_> {
        Walk { paths: self.paths, found: self.found, live, depth: self.depth + 1 }
    }

    fn each(&self) -> impl Iterator<Item = usize> + use<> {
        let live = self.live;
        (0..self.paths.len()).filter(move |at| live & (1 << at) != 0)
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        use serde::Deserialize as _;
        if self.live == 0 {
            return IgnoredAny::deserialize(reader).map(drop);
        }
        if self.each().any(|at| self.paths[at].len() == self.depth) {
            let value = Value::deserialize(reader)?;
            for at in self.each() {
                self.found[at] = self.paths[at].find_from(self.depth, &value).cloned();
            }
            return Ok(());
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(live) = map.next_key_seed(Member(&mut self))? {
            map.next_value_seed(self.below(live))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        for index in 0.. {
            let depth = self.depth;
            let live = self.next(|path| path.takes_element(depth, index));
            if list.next_element_seed(self.below(live))?.is_none() {
                break;
            }
        }
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

/// The name of a member: which paths lead through it.
struct Member<'a, 'w>(&'a mut Walk<'w>);

impl<'de> DeserializeSeed<'de> for Member<'_, '_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<u32, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Member<'_, '_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<u32, E> {
        let depth = self.0.depth;
        Ok(self.0.next(|path| path.takes_member(depth, name)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths(texts: &[&str]) -> Vec<Path> {
        texts.iter().map(|text| Path::parse(text).unwrap()).collect()
    }

    const PATHS: [&str; 7] = ["id", "data.id", "data", "data.list.1", "data.list.0.id", "0.id", "data.id.x"];

    /// A walk must find what a reader of the whole body finds.
    fn agrees(text: &str) {
        let paths = paths(&PATHS);
        let whole: Value = serde_json::from_str(text).unwrap();
        let expected: Vec<Option<Value>> = paths.iter().map(|path| path.find(&whole).cloned()).collect();
        assert_eq!(pick(&BodyForm::Json, text.as_bytes(), &paths).unwrap(), expected, "{text}");
    }

    #[test]
    fn a_walk_finds_what_the_whole_body_holds() {
        for text in [
            r#"{"id": 12345678901234567890123, "data": {"id": "x", "list": [{"id": 1.50}, true, null]}}"#,
            r#"{"data": {"list": [[], 2]}, "id": null}"#,
            r#"[{"id": 1}, 2]"#,
            "7.25",
            r#""text""#,
            "null",
            r#"{"data": 1e999, "id": [], "d\u0061ta2": {}}"#,
        ] {
            agrees(text);
        }
    }

    #[test]
    fn of_members_with_one_name_the_last_counts_here_and_there() {
        agrees(r#"{"id": 1, "id": 2}"#);
        agrees(r#"{"data": {"id": 1}, "data": {}}"#);
        agrees(r#"{"data": {"id": 1, "list": [1, 2]}, "data": {"list": [3]}}"#);
        agrees(r#"{"id": 1, "\u0069d": {}}"#);
    }

    #[test]
    fn no_place_is_asked_for_and_still_the_body_must_be_json() {
        assert_eq!(pick(&BodyForm::Json, b"{}", &[]), Ok(vec![]));
        for body in [&b""[..], b"{", b"{} {}", b"{\"a\":\"\xff\"}", b"a=1", b"{'a':1}"] {
            assert!(pick(&BodyForm::Json, body, &[]).is_err(), "{body:?}");
            assert!(pick(&BodyForm::Json, body, &paths(&PATHS)).is_err(), "{body:?}");
        }
    }

    #[test]
    fn a_form_is_decoded_once() {
        let form = b"a=1%202+3&b=%E4%B8%AD&c&a=last&d=%25zz%2B";
        let body = read(&BodyForm::Form, form).unwrap();
        assert_eq!(body, serde_json::json!({"a": "last", "b": "中", "c": "", "d": "%zz+"}));
        assert_eq!(FormView::new(form).last("a").as_deref(), Some("last"));
    }

    #[test]
    fn a_member_of_a_form_may_be_json() {
        let form = BodyForm::FormJson("biz".into());
        let body = read(&form, b"biz=%7B%22orderId%22%3A1.0%7D&shop=7").unwrap();
        assert_eq!(body.to_string(), r#"{"biz":{"orderId":1.0},"shop":"7"}"#);
        assert_eq!(read(&form, b"shop=7").unwrap_err(), "the form has no member `biz`");
        assert!(read(&form, b"biz=x").unwrap_err().starts_with("the member `biz` of the form is not JSON"));
    }

    #[test]
    fn a_form_of_very_many_members_is_refused() {
        let form = "a=1&".repeat(FORM_MEMBERS_MAX + 1);
        assert!(read(&BodyForm::Form, form.as_bytes()).is_err());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z\\\\\"é]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("id|data|list|0|1", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_walk_agrees_with_the_whole_body(value in json()) {
            agrees(&value.to_string());
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for form in [BodyForm::Json, BodyForm::Form, BodyForm::FormJson("a".into())] {
                let _ = pick(&form, &bytes, &paths(&PATHS));
            }
        }
    }
}
