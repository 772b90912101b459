//! Where a value stands in a vendor's JSON: `total_money.amount`, `errors.0.detail`, `'a.b'.c`.
//! A negative number counts from the end of a list.
//! Manifests name paths, this file reads them at load and follows them in every record; it is apart
//! because requests, paging, mapping and error texts all use the same ones.

use serde_json::Value;

/// The path to a value, parsed. `.` is the whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    text: String,
    segments: Vec<Segment>,
}

/// One step: a member of an object, or, where it is a number, an element of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    key: String,
    index: Option<isize>,
}

impl Segment {
    /// Which element of a list of this length it is; a negative number counts from the end.
    fn place(&self, length: usize) -> Option<usize> {
        let index = self.index?;
        if index < 0 { length.checked_sub(index.unsigned_abs()) } else { Some(index.unsigned_abs()) }
    }
}

impl Path {
    /// Reads `a.b.0`; a name with a dot in it stands in single quotes.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "." {
            return Ok(Self { text: text.into(), segments: Vec::new() });
        }
        let mut segments = Vec::new();
        let mut rest = text;
        loop {
            let (key, after) = if let Some(quoted) = rest.strip_prefix('\'') {
                quoted.split_once('\'').ok_or_else(|| format!("`{text}` has a quote that does not end"))?
            } else {
                rest.split_at(rest.find('.').unwrap_or(rest.len()))
            };
            if key.is_empty() {
                return Err(format!(
                    "`{text}` is no path: expected names with dots between, as in `data.items`"
                ));
            }
            segments.push(Segment { index: key.parse().ok(), key: key.to_owned() });
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => {
                    return Ok(Self { text: text.into(), segments });
                }
                None => return Err(format!("`{text}` is no path: expected a dot after `{key}`")),
            }
        }
    }

    /// The value, if every step of the way exists.
    pub(crate) fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.find_from(0, value)
    }

    /// The value below `value`, where the first `depth` steps have led there already.
    pub(crate) fn find_from<'v>(&self, depth: usize, value: &'v Value) -> Option<&'v Value> {
        self.segments.get(depth..)?.iter().try_fold(value, |value, segment| match value {
            Value::Object(members) => members.get(&segment.key),
            Value::Array(elements) => elements.get(segment.place(elements.len())?),
            _ => None,
        })
    }

    /// Every value that the way leads to, where a step called `*` takes all elements of a list.
    pub(crate) fn find_all<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for segment in &self.segments {
            let below = found.into_iter().flat_map(|value| match value {
                Value::Array(elements) if segment.key == "*" => elements.iter().collect(),
                Value::Array(elements) => {
                    segment.place(elements.len()).and_then(|place| elements.get(place)).into_iter().collect()
                }
                Value::Object(members) => members.get(&segment.key).into_iter().collect::<Vec<_>>(),
                _ => Vec::new(),
            });
            found = below.collect();
        }
        found
    }

    /// How many steps the way has.
    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    /// The member at the beginning of the way.
    pub(crate) fn first(&self) -> Option<&str> {
        self.segments.first().map(|segment| segment.key.as_str())
    }

    /// Whether this step of the way is the member `key`.
    pub(crate) fn takes_member(&self, depth: usize, key: &str) -> bool {
        self.segments.get(depth).is_some_and(|segment| segment.key == key)
    }

    /// Whether this step of the way is the element `index`.
    pub(crate) fn takes_element(&self, depth: usize, index: usize) -> bool {
        self.segments
            .get(depth)
            .is_some_and(|segment| segment.index.and_then(|at| usize::try_from(at).ok()) == Some(index))
    }

    /// The value, to be changed or taken.
    pub(crate) fn find_mut<'v>(&self, value: &'v mut Value) -> Option<&'v mut Value> {
        self.segments.iter().try_fold(value, |value, segment| match value {
            Value::Object(members) => members.get_mut(&segment.key),
            Value::Array(elements) => {
                let place = segment.place(elements.len())?;
                elements.get_mut(place)
            }
            _ => None,
        })
    }

    /// As it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

/// The first of several places that holds something: neither absent, nor null, nor an empty text.
pub(crate) fn first_present<'v>(paths: &[Path], value: &'v Value) -> Option<&'v Value> {
    paths.iter().filter_map(|path| path.find(value)).find(|found| is_present(found))
}

/// The records at the first of several places that holds one or a list of them.
pub(crate) fn one_or_list(paths: &[Path], value: &Value) -> Option<Vec<Value>> {
    let mut places = paths.iter().filter_map(|path| path.find(value));
    places.find_map(|found| match found {
        Value::Array(records) => Some(records.clone()),
        Value::Object(_) => Some(vec![found.clone()]),
        _ => None,
    })
}

/// The places, as a person reads them: `` `a` or `b` ``.
pub(crate) fn shown(paths: &[Path]) -> String {
    paths.iter().map(|path| format!("`{}`", path.as_str())).collect::<Vec<_>>().join(" or ")
}

fn is_present(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_walks_members_and_elements() {
        let value = json!({"a": {"b": [{"c": 1}, {"c": 2}]}, "x.y": {"0": "zero"}});
        for (path, found) in [
            ("a.b.1.c", Some(json!(2))),
            ("a.b.2.c", None),
            ("a.b.-1.c", Some(json!(2))),
            ("a.b.-3.c", None),
            ("a.b.c", None),
            ("'x.y'.0", Some(json!("zero"))),
            ("x.y", None),
            (".", Some(value.clone())),
            ("a.b.99999999999999999999999", None),
        ] {
            assert_eq!(Path::parse(path).unwrap().find(&value), found.as_ref(), "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["", "a..b", ".a", "a.", "'a", "'a'b", "''"] {
            assert!(Path::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn nothing_null_and_empty_make_room_for_the_next_place() {
        let paths = ["a", "b", "c", "d"].map(|path| Path::parse(path).unwrap());
        assert_eq!(first_present(&paths, &json!({"a": null, "b": "", "c": 0, "d": 1})), Some(&json!(0)));
        assert_eq!(first_present(&paths, &json!([])), None);
    }
}
