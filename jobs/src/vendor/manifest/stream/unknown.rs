//! Which members of a vendor's records nobody reads: `unknown_fields = "report"`. What is known is gathered from
//! the text of the mapping when the manifest is loaded, so that a record costs one look at its names. Apart from
//! the mapping, because this is about what it leaves out.
//!
//! Looked at are the members of a record, and those of the objects in the lists that the mapping takes apart with
//! `each`. Inside other objects and lists everything counts as known: who names such a place has seen it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::vendor::expression::{Expression, Reads};
use crate::vendor::manifest::section::Section;
use crate::vendor::path::Path;

/// What expressions of a mapping may use.
const NAMES: [&str; 3] = ["record", "item", "config"];

/// What the mapping, and `known_fields`, say of a stream's records.
#[derive(Debug, Default)]
pub(crate) struct KnownFields(Members);

/// The members of an object.
#[derive(Debug, Default)]
struct Members {
    /// All of them are known: something takes the object as a whole.
    whole: bool,
    names: BTreeSet<String>,
    /// The lists that are taken apart, by their path within the object.
    lists: Vec<(Path, Members)>,
    /// The places that something takes as they are.
    taken: Vec<Path>,
}

impl KnownFields {
    /// Calls `tell` with the dotted name of every member that nothing mentions, once for each object that has it.
    pub(crate) fn unknown_of(&self, record: &Value, tell: &mut impl FnMut(&str)) {
        self.0.unknown_of("", record, tell);
    }
}

impl Members {
    fn unknown_of(&self, prefix: &str, value: &Value, tell: &mut impl FnMut(&str)) {
        let (false, Value::Object(members)) = (self.whole, value) else { return };
        for name in members.keys().filter(|name| !self.names.contains(name.as_str())) {
            if prefix.is_empty() {
                tell(name);
            } else {
                tell(&format!("{prefix}.{name}"));
            }
        }
        for (path, of_element) in &self.lists {
            let prefix = joined(prefix, path);
            for element in path.find(value).and_then(Value::as_array).into_iter().flatten() {
                of_element.unknown_of(&prefix, element, tell);
            }
        }
    }

    fn take(&mut self, path: Path) {
        match path.first() {
            Some(name) => {
                self.names.insert(name.to_owned());
                self.taken.push(path);
            }
            None => self.whole = true,
        }
    }

    /// The members of the elements of a list.
    fn list(&mut self, path: &Path) -> &mut Self {
        let at = self.lists.iter().position(|(known, _)| known == path).unwrap_or_else(|| {
            self.names.extend(path.first().map(str::to_owned));
            self.lists.push((path.clone(), Self::default()));
            self.lists.len() - 1
        });
        &mut self.lists[at].1
    }

    /// A place that an author calls known; within a list it is a member of the elements.
    fn know(&mut self, path: &Path) {
        let inside = self.lists.iter_mut().find_map(|(list, members)| {
            let rest = path.as_str().strip_prefix(list.as_str())?.strip_prefix('.')?;
            Some((members, Path::parse(rest).ok()?))
        });
        match inside {
            Some((members, rest)) => members.know(&rest),
            None => self.names.extend(path.first().map(str::to_owned)),
        }
    }

    /// Lists that something else takes as they are hide nothing.
    fn settle(&mut self) {
        for (list, members) in &mut self.lists {
            let covers = |path: &Path| {
                let rest = list.as_str().strip_prefix(path.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            members.whole |= self.taken.iter().any(covers);
            members.settle();
        }
    }
}

fn joined(prefix: &str, path: &Path) -> String {
    if prefix.is_empty() { path.as_str().to_owned() } else { format!("{prefix}.{}", path.as_str()) }
}

/// Reads `unknown_fields` and `known_fields` of a stream; nothing where nothing is to be reported.
pub(super) fn read_unknown_fields(stream: &Section<'_>) -> Option<KnownFields> {
    let report = stream.choice("unknown_fields", &[("ignore", false), ("report", true)]).unwrap_or(false);
    let known = stream.paths("known_fields");
    if !report {
        if stream.has("known_fields") {
            let fix = "means nothing here; say `unknown_fields = \"report\"` too, or leave it out";
            stream.problem("known_fields", fix);
        }
        return None;
    }
    let mapping = stream.value("mapping")?.as_table()?;
    let mut record = Members::default();
    if let Some(source) = mapping.get("when").and_then(toml::Value::as_str) {
        read_expression(source, &mut record, None);
    }
    if let Some(fields) = mapping.get("fields").and_then(toml::Value::as_table) {
        read_fields(fields, &mut record, &mut Vec::new());
    }
    for path in known.iter().flatten() {
        record.know(path);
    }
    record.settle();
    Some(KnownFields(record))
}

/// The fields of an object. `lists` leads from the record to the element that is read.
fn read_fields(fields: &toml::Table, record: &mut Members, lists: &mut Vec<Path>) {
    for field in fields.values() {
        match field {
            toml::Value::Table(table) => read_field(table, record, lists),
            plain => texts(plain).filter_map(as_path).for_each(|path| here(record, lists).take(path)),
        }
    }
}

fn read_field(field: &toml::Table, record: &mut Members, lists: &mut Vec<Path>) {
    let terms = field.get("sum").into_iter().flat_map(texts);
    let terms = terms.map(|term| term.strip_prefix('-').map_or(term, str::trim));
    let paths = field.get("path").into_iter().flat_map(texts).chain(terms);
    paths.filter_map(as_path).for_each(|path| here(record, lists).take(path));
    if let Some(source) = field.get("cel").and_then(toml::Value::as_str) {
        read_expression(source, record, Some(lists));
    }
    let Some(fields) = field.get("fields").and_then(toml::Value::as_table) else { return };
    let Some(each) = field.get("each") else {
        return read_fields(fields, record, lists);
    };
    for path in texts(each).filter_map(as_path) {
        lists.push(path);
        // Also a list of which nothing is read is taken apart.
        let _ = here(record, lists);
        read_fields(fields, record, lists);
        lists.pop();
    }
}

/// What an expression names of the record, and of the element that is read.
fn read_expression(source: &str, record: &mut Members, lists: Option<&[Path]>) {
    // One with mistakes is told where the mapping is read.
    let Ok(expression) = Expression::compile(source, &NAMES) else { return };
    let take = |members: &mut Members, name: &str| match expression.reads_of(name) {
        Reads::Nothing => {}
        Reads::All => members.whole = true,
        Reads::Members(names) => {
            names.iter().filter_map(|name| quoted(name)).for_each(|path| members.take(path));
        }
    };
    take(record, "record");
    if let Some(lists) = lists {
        take(here(record, lists), "item");
    }
}

fn here<'m>(record: &'m mut Members, lists: &[Path]) -> &'m mut Members {
    lists.iter().fold(record, |members, path| members.list(path))
}

fn as_path(text: &str) -> Option<Path> {
    Path::parse(text.trim()).ok()
}

/// The path of one member, whatever is in its name.
fn quoted(name: &str) -> Option<Path> {
    let plain = !name.contains(['.', '\'']);
    Path::parse(&if plain { name.to_owned() } else { format!("'{name}'") }).ok()
}

/// A text, or those of a list.
fn texts(value: &toml::Value) -> impl Iterator<Item = &str> {
    let list = value.as_array().into_iter().flatten().filter_map(toml::Value::as_str);
    value.as_str().into_iter().chain(list)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::vendor::manifest::Manifest;

    /// The unknown members of a record, for a mapping with these keys.
    fn unknown(keys: &str, mapping: &str, record: &Value) -> Vec<String> {
        let text = format!(
            "[meta]\nname='a'\ntitle='A'\ntypes=['pos']\n[auth]\nkind='none'\n[probe]\nstream='s'\nmessage='m'\n\
             [streams.s]\ntarget='external_records'\nrequest.path='/'\nanswer.records='.'\n\
             unknown_fields='report'\n{keys}\n[streams.s.mapping]\nmoney_unit='major'\n\
             fields.external_id='id'\n{mapping}"
        );
        let manifest = Manifest::parse("a.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
        let mut found = Vec::new();
        let known = manifest.stream("s").unwrap().known_fields.as_ref().unwrap();
        known.unknown_of(record, &mut |name| found.push(name.to_owned()));
        found
    }

    #[test]
    fn what_neither_the_mapping_nor_the_author_mentions_is_unknown() {
        let mapping = "when = \"record.state != 'DRAFT'\"\nfields.status = ['status', 'state.word']\n\
            fields.amount = { sum = ['total', '-tip'] }\nfields.data.fields.who = { cel = 'record.a + item.b' }";
        let record = json!({"id": 1, "status": 1, "state": {"x": 1}, "total": 1, "tip": 1, "a": 1, "b": 1,
            "coupon": 1, "link": 1, "rating": 1});
        assert_eq!(unknown("", mapping, &record), ["coupon", "link", "rating"]);
        assert_eq!(unknown("known_fields = ['link', 'rating.stars']", mapping, &record), ["coupon"]);
    }

    #[test]
    fn the_objects_of_a_list_that_is_taken_apart_are_looked_at() {
        let lines = "fields.data.fields.lines = { each = 'order.lines', fields = { n = 'name', \
            mods = { each = 'mods', fields = { id = 'id' } } } }";
        let record = json!({"id": 1, "order": {"lines": [{"name": "a", "tax": 1}, 7, {"tax": 2, "mods": [{"x": 1}]}],
            "seen": 1}});
        let found = ["order.lines.tax", "order.lines.tax", "order.lines.mods.x"];
        assert_eq!(unknown("", lines, &record), found);
        let known = "known_fields = ['order.lines.tax', 'order.lines.mods.x']";
        assert_eq!(unknown(known, lines, &record), [""; 0]);
    }

    #[test]
    fn what_is_taken_as_a_whole_hides_nothing() {
        let record = json!({"id": 1, "lines": [{"tax": 1}], "more": 1});
        let each = "fields.data.fields.lines = { each = 'lines', fields = { n = 'name' } }";
        assert_eq!(unknown("", each, &record), ["more", "lines.tax"]);
        assert_eq!(unknown("", &format!("{each}\nfields.data.fields.all = 'lines'"), &record), ["more"]);
        let counted = format!("{each}\nfields.data.fields.all = {{ cel = 'size(record.lines)' }}");
        assert_eq!(unknown("", &counted, &record), ["more"]);
        assert_eq!(unknown("", "fields.data.fields.all = '.'", &record), [""; 0]);
        assert_eq!(unknown("", "fields.data.fields.all = { cel = 'size(record)' }", &record), [""; 0]);
    }

    #[test]
    fn names_with_dots_and_records_that_are_none_are_no_trouble() {
        let record = json!({"id": 1, "a.b": 1, "": 1, "\u{0}": 1});
        assert_eq!(unknown("", "fields.status = \"'a.b'\"", &record), ["", "\u{0}"]);
        assert_eq!(unknown("", "", &json!([{"x": 1}])), [""; 0]);
        assert_eq!(unknown("", "", &json!("x")), [""; 0]);
    }
}
