//! Where a key of a manifest stands. Readers see a table without places, because a system's settings may be laid
//! over it; so a mistake names its key, and the key's line is looked up in the text afterwards.

use toml::de::{DeTable, DeValue};

use super::{ManifestError, ManifestErrors};

/// Gives every mistake of a text the line of its key. One whose key is not there has the line of the nearest table
/// around it; one about the whole file has none.
pub(in crate::vendor) fn locate(errors: ManifestErrors, text: &str) -> ManifestErrors {
    let Ok(root) = DeTable::parse(text) else { return errors };
    let located = errors.0.into_iter().map(|error| {
        let line = place_in(root.get_ref(), &error.key).map(|place| line_at(text, place.start));
        ManifestError { line, ..error }
    });
    let mut located: Vec<ManifestError> = located.collect();
    located.sort();
    ManifestErrors(located)
}

/// Where the text has what a dotted key leads to, and how much of the key that is.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    matched: usize,
}

fn line_at(text: &str, start: usize) -> usize {
    text.as_bytes().iter().take(start).filter(|byte| **byte == b'\n').count() + 1
}

/// The place of a key, or of the nearest table around it. A name may hold dots itself, so every name that the key
/// can begin with is tried.
fn place_in(table: &DeTable<'_>, key: &str) -> Option<Place> {
    let members = table.iter().filter_map(|(name, value)| {
        let rest = below(key, name.get_ref())?;
        Some(nearest(name.span().start, key, rest, value.get_ref()))
    });
    members.max_by_key(|place| place.matched)
}

/// What is deeper in the value, or the value's own place.
fn nearest(start: usize, key: &str, rest: &str, value: &DeValue<'_>) -> Place {
    let own = Place { start, matched: key.len() - rest.len() };
    let deeper = match value {
        DeValue::Table(table) => place_in(table, rest),
        DeValue::Array(elements) => elements.iter().enumerate().find_map(|(at, element)| {
            let below = below(rest, &at.to_string())?;
            Some(nearest(element.span().start, rest, below, element.get_ref()))
        }),
        _ => None,
    };
    deeper.map_or(own, |place| Place { matched: own.matched + place.matched, ..place })
}

/// What of a dotted key follows a name; nothing where it does not begin with the name.
fn below<'k>(key: &'k str, name: &str) -> Option<&'k str> {
    let rest = key.strip_prefix(name)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
}

#[cfg(test)]
mod tests {
    use super::super::Manifest;
    use super::*;

    const TEXT: &str = r#"# A comment.
[meta]
name = "a" # another

[streams.orders]
title = """
two lines"""
request.path = "/a"
request.query = { "a.b" = "1", c = "2" }
answer = { records = [
  "a",
  "b",
] }

[streams.orders.mapping.fields]
"odd.name".path = "x"
items = [
  { name = "x" },
  { name = "y" },
]

[[failures]]
when = "true"

[[failures]]
outcome = "retry"

[webhook]
routes = [ { events = "a" },
  { action = "b" } ]
[[webhook.handshakes]]
method = "GET"
[webhook.handshakes.reply]
status = 3
"#;

    /// The line of a key, found by what it begins with: counted by hand, a change of the text would mend itself.
    fn written_at(begins: &str) -> usize {
        TEXT.lines().position(|line| line.trim_start().starts_with(begins)).unwrap() + 1
    }

    #[test]
    fn every_way_to_write_a_key_has_its_line() {
        let root = DeTable::parse(TEXT).unwrap();
        let second = |text: &str| TEXT[..TEXT.rfind(text).unwrap()].matches('\n').count() + 1;
        for (key, line) in [
            ("meta", 2),
            ("meta.name", 3),
            ("streams", 5),
            ("streams.orders", 5),
            ("streams.orders.title", 6),
            ("streams.orders.request", 8),
            ("streams.orders.request.path", 8),
            ("streams.orders.request.query", written_at("request.query")),
            ("streams.orders.request.query.a.b", written_at("request.query")),
            ("streams.orders.request.query.c", written_at("request.query")),
            ("streams.orders.answer.records", written_at("answer =")),
            ("streams.orders.answer.records.1", written_at("\"b\"")),
            ("streams.orders.mapping.fields.odd.name.path", written_at("\"odd.name\"")),
            ("streams.orders.mapping.fields.items.1.name", written_at("{ name = \"y\"")),
            ("failures.0.when", written_at("when")),
            ("failures.1", second("[[failures]]")),
            ("failures.1.outcome", written_at("outcome")),
            ("webhook.routes.1.action", written_at("{ action")),
            ("webhook.handshakes.0.reply.status", written_at("status")),
            // What is missing has the line of the table that lacks it.
            ("meta.title", 2),
            ("streams.orders.request.query.d", written_at("request.query")),
            ("failures.1.when", second("[[failures]]")),
            ("streams.orders.titles", 5),
        ] {
            let place = place_in(root.get_ref(), key).unwrap_or_else(|| panic!("{key}"));
            assert_eq!(line_at(TEXT, place.start), line, "{key}");
        }
        for key in ["", "probe", "met", "metas.name"] {
            assert!(place_in(root.get_ref(), key).is_none(), "{key}");
        }
    }

    #[test]
    fn mistakes_come_in_the_order_of_the_file_with_their_lines() {
        let text = "[meta]\nname = 'a'\ntitle = 'A'\ntypes = ['pos']\n\n[streams.s]\ntarget = 'no'\n\
                    request.path = 'no'\n\n[auth]\nkind = 'none'\nkin = 1\n";
        let errors = locate(Manifest::parse("a.toml", text).unwrap_err(), text).to_string();
        let starts: Vec<&str> = errors.lines().map(|line| line.split("`: ").next().unwrap()).collect();
        assert_eq!(
            starts,
            [
                "a.toml: `probe",
                "a.toml:6: `streams.s.answer",
                "a.toml:6: `streams.s.mapping",
                "a.toml:7: `streams.s.target",
                "a.toml:8: `streams.s.request.path",
                "a.toml:12: `auth.kin",
            ]
        );
    }

    #[test]
    fn what_is_no_toml_is_told_as_it_was() {
        let errors = Manifest::parse("a.toml", "[meta\n").unwrap_err();
        assert_eq!(locate(errors.clone(), "[meta\n"), errors);
    }
}
