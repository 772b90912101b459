//! The JSON Schema of manifests, for editors. It is made of what the readers ask for while they read manifests in
//! which every section and every kind stands: the embedded ones and those of `schema/`. A test compares it with the
//! file that editors read, and another wants every valid manifest to fulfil it.

use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::Manifest;
use super::read::read_manifest;
use super::recorder::{ANY_NAME, ELEMENT, FIELD, Kind, Node, Recorder};
use super::section::{ManifestErrors, Problems};

/// Manifests in which every section and every kind stands.
const SUPPLEMENT: [(&str, &str); 4] = [
    ("sections.toml", include_str!("schema/sections.toml")),
    ("token.toml", include_str!("schema/token.toml")),
    ("oauth2.toml", include_str!("schema/oauth2.toml")),
    ("sorted.toml", include_str!("schema/sorted.toml")),
];

/// The schema, as the readers have it.
pub fn manifest_schema() -> Result<Value, ManifestErrors> {
    let recorder = Rc::new(Recorder::default());
    for (file, text) in SUPPLEMENT {
        // Told as any manifest's, should it be wrong.
        Manifest::parse_file(file, text)?;
        let table = text.parse().unwrap_or_default();
        read_manifest(&table, &Problems::recording(file, &recorder));
    }
    let (root, field) = recorder.trees();
    let mut schema = Map::from_iter([
        ("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema")),
        ("title".to_owned(), json!("Vendor manifest of zhilian-sync")),
        ("type".to_owned(), json!("object")),
        ("$defs".to_owned(), json!({ FIELD: field_schema(&field) })),
    ]);
    schema.extend(members(&root));
    Ok(Value::Object(schema))
}

/// A path, alternatives, or a table with one source and its form.
fn field_schema(field: &Node) -> Value {
    let mut table = members(field);
    table.insert("type".to_owned(), json!("object"));
    json!({ "anyOf": [schema_of(&Kind::Texts), table] })
}

fn node_schema(node: &Node) -> Value {
    let mut schema = members(node);
    let kinds = alternatives(&node.kinds);
    match kinds.as_slice() {
        [] => {}
        [one] => {
            if let Value::Object(one) = schema_of(one) {
                for (key, value) in one {
                    schema.entry(key).or_insert(value);
                }
            }
        }
        several => {
            let several: Vec<Value> = several.iter().map(schema_of).collect();
            schema.insert("anyOf".to_owned(), several.into());
        }
    }
    Value::Object(schema)
}

/// What may be below, which says nothing of a value that is no table or list.
fn members(node: &Node) -> Map<String, Value> {
    let mut schema = Map::new();
    let fixed = node.below.iter().filter(|(name, _)| *name != ANY_NAME && *name != ELEMENT);
    let fixed: Map<String, Value> = fixed.map(|(name, node)| (name.clone(), node_schema(node))).collect();
    if let Some(element) = node.below.get(ELEMENT) {
        schema.insert("items".to_owned(), node_schema(element));
    }
    if let Some(named) = node.below.get(ANY_NAME) {
        schema.insert("additionalProperties".to_owned(), node_schema(named));
    } else if node.closed {
        schema.insert("additionalProperties".to_owned(), json!(false));
    }
    if !fixed.is_empty() {
        schema.insert("properties".to_owned(), Value::Object(fixed));
    }
    schema
}

/// The kinds of a key without those that others hold already.
fn alternatives(kinds: &BTreeSet<Kind>) -> Vec<Kind> {
    if kinds.contains(&Kind::Any) {
        return Vec::new();
    }
    let words =
        kinds.iter().filter_map(|kind| if let Kind::Choice(words) = kind { Some(words) } else { None });
    let words: BTreeSet<String> = words.flatten().cloned().collect();
    let mut left: Vec<Kind> = kinds
        .iter()
        .filter(|kind| match kind {
            Kind::Choice(_) => false,
            Kind::Text => !kinds.contains(&Kind::Texts),
            Kind::Table => !kinds.contains(&Kind::TextTable),
            _ => true,
        })
        .cloned()
        .collect();
    if !words.is_empty() {
        left.push(Kind::Choice(words));
    }
    left
}

fn schema_of(kind: &Kind) -> Value {
    match kind {
        Kind::Any => json!({}),
        Kind::Text => json!({"type": "string"}),
        Kind::Choice(words) => json!({"enum": words}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Whole(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Share => json!({"type": "number", "minimum": 0, "maximum": 1}),
        Kind::Texts => json!({"type": ["string", "array"], "items": {"type": "string"}}),
        Kind::Table => json!({"type": "object"}),
        Kind::TextTable => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::Field => json!({"$ref": format!("#/$defs/{FIELD}")}),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    /// The mistakes of a value by the keywords that the schema uses.
    fn mistakes(root: &Value, schema: &Value, value: &Value, key: &str, found: &mut Vec<String>) {
        let Value::Object(keywords) = schema else { return };
        let is = |name: &str| match name {
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64(),
            "number" => value.is_number(),
            "object" => value.is_object(),
            "array" => value.is_array(),
            other => panic!("{other}"),
        };
        let mut wrong = |holds: bool, what: &str| {
            if !holds {
                found.push(format!("{key}: {what}"));
            }
        };
        for (keyword, rule) in keywords {
            match keyword.as_str() {
                "type" => wrong(
                    rule.as_str().is_some_and(&is)
                        || rule
                            .as_array()
                            .is_some_and(|names| names.iter().any(|name| is(name.as_str().unwrap()))),
                    "type",
                ),
                "enum" => wrong(rule.as_array().unwrap().contains(value), "enum"),
                "minimum" => wrong(value.as_f64() >= rule.as_f64(), "minimum"),
                "maximum" => wrong(value.as_f64() <= rule.as_f64(), "maximum"),
                "anyOf" => {
                    let fits = |one: &Value| {
                        let mut inner = Vec::new();
                        mistakes(root, one, value, key, &mut inner);
                        inner.is_empty()
                    };
                    wrong(rule.as_array().unwrap().iter().any(fits), "anyOf");
                }
                "additionalProperties" | "$ref" | "properties" | "items" | "$schema" | "title" | "$defs" => {}
                other => panic!("the test does not know `{other}`"),
            }
        }
        if let Some(reference) = keywords.get("$ref") {
            let name = reference.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
            mistakes(root, &root["$defs"][name], value, key, found);
        }
        for (at, element) in value.as_array().into_iter().flatten().enumerate() {
            mistakes(root, &schema["items"], element, &format!("{key}.{at}"), found);
        }
        for (name, member) in value.as_object().into_iter().flatten() {
            let key = format!("{key}.{name}");
            match (&schema["properties"][name], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => found.push(format!("{key}: is not known")),
                (Value::Null, others) => mistakes(root, others, member, &key, found),
                (known, _) => mistakes(root, known, member, &key, found),
            }
        }
    }

    fn mistakes_of(schema: &Value, text: &str) -> Vec<String> {
        let table: toml::Table = text.parse().unwrap();
        let mut found = Vec::new();
        mistakes(schema, schema, &serde_json::to_value(table).unwrap(), "", &mut found);
        found
    }

    #[test]
    fn the_file_that_editors_read_is_what_the_readers_ask_for() {
        let file = folder("../config/vendors/manifest.schema.json");
        let made = format!("{:#}\n", manifest_schema().unwrap_or_else(|errors| panic!("{errors}")));
        let kept = std::fs::read_to_string(file).unwrap();
        assert!(
            kept == made,
            "write it anew: zhilian-sync vendors schema > config/vendors/manifest.schema.json"
        );
    }

    #[test]
    fn every_valid_manifest_fulfils_the_schema_and_names_it() {
        let schema = manifest_schema().unwrap();
        for (name, named) in [("../config/vendors", true), ("tests/vendors/manifests", false)] {
            for entry in std::fs::read_dir(folder(name)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "toml") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    assert_eq!(mistakes_of(&schema, &text), Vec::<String>::new(), "{}", path.display());
                    let first = text.lines().next();
                    assert!(!named || first == Some("#:schema ./manifest.schema.json"), "{}", path.display());
                }
            }
        }
    }

    #[test]
    fn mistakes_do_not_fulfil_it() {
        let schema = manifest_schema().unwrap();
        let good = include_str!("schema/sections.toml");
        for (from, to, says) in [
            ("[meta]", "[metta]", ".metta: is not known"),
            ("title = \"Sections\"", "title = 1", ".meta.title: type"),
            ("style = \"none\"", "style = \"all\"", ".streams.transactions.pagination.style: enum"),
            ("per_secs = 1", "per_secs = 0", ".limits.default.per_secs: minimum"),
            ("outcome = \"retry\"", "outcomes = \"retry\"", ".failures.0.outcomes: is not known"),
            ("reply = { status", "reply = { state", ".webhook.handshakes.0.reply.state: is not known"),
            ("{ cel = ", "{ cell = ", ".streams.transactions.mapping.fields.order_number: anyOf"),
            (
                "customer = { fields",
                "client = { fields",
                ".streams.transactions.mapping.fields.client: is not known",
            ),
        ] {
            assert!(good.contains(from), "{from}");
            let found = mistakes_of(&schema, &good.replacen(from, to, 1));
            assert!(found.iter().any(|found| found == says), "{says}: {found:?}");
        }
    }

    #[test]
    fn no_table_is_left_unread() {
        fn unread(node: &Node, key: &str, found: &mut Vec<String>) {
            if node.kinds == BTreeSet::from([Kind::Table]) && node.below.is_empty() {
                found.push(key.to_owned());
            }
            for (name, below) in &node.below {
                unread(below, &format!("{key}.{name}"), found);
            }
        }
        let recorder = Rc::new(Recorder::default());
        for (file, text) in SUPPLEMENT {
            read_manifest(&text.parse().unwrap(), &Problems::recording(file, &recorder));
        }
        let (root, field) = recorder.trees();
        let mut found = Vec::new();
        unread(&root, "", &mut found);
        unread(&field, "field", &mut found);
        assert_eq!(found, Vec::<String>::new(), "write these into a manifest of `schema/`");
    }
}
