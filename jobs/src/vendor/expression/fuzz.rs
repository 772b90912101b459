//! Whatever an author writes, it is an expression or a mistake; whatever a vendor sends, it has a value or a
//! reason. Nothing panics, and nothing takes long.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::{Expression, RESULT_BYTES_MAX};

/// What one expression may take on a busy machine, in a debug build.
const PATIENCE: Duration = Duration::from_secs(20);

/// What expressions are made of.
const PIECES: [&str; 64] = [
    "record",
    "item",
    "config",
    "record.a",
    "record.b",
    "record.list",
    "item.a",
    "x",
    "has(",
    "size(",
    "int(",
    "double(",
    "string(",
    "bool(",
    "uint(",
    "type(",
    "dyn(",
    ".contains(",
    ".startsWith(",
    ".endsWith(",
    ".map(x, ",
    ".filter(x, ",
    ".all(x, ",
    ".exists(x, ",
    ".exists_one(x, ",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    ".",
    ".a",
    "[0]",
    "['a']",
    " + ",
    " - ",
    " * ",
    " / ",
    " % ",
    " == ",
    " != ",
    " < ",
    " >= ",
    " && ",
    " || ",
    " ? ",
    " : ",
    " in ",
    "!",
    "-",
    "0",
    "1",
    "-9223372036854775808",
    "9223372036854775807",
    "1e308",
    "1u",
    "'text'",
    "\"é\"",
    "true",
    "null",
    "b'\\xff'",
];

fn any_source() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(prop::sample::select(&PIECES[..]), 1..30).prop_map(|all| all.concat());
    let repeated = (prop::sample::select(&PIECES[..]), prop::sample::select(&PIECES[..]), 1..200_usize)
        .prop_map(|(first, piece, count)| format!("{first}{}", piece.repeat(count)));
    prop_oneof![
        3 => pieces,
        1 => repeated,
        // Whole ones with a hole, so that most of them compile.
        3 => (any_operand(), prop::sample::select(&["+", "-", "*", "/", "%", "==", "<", "&&", "in"][..]), any_operand())
            .prop_map(|(left, operator, right)| format!("{left} {operator} {right}")),
        1 => ".{0,80}",
    ]
}

fn any_operand() -> impl Strategy<Value = String> {
    prop::sample::select(
        &[
            "record",
            "record.a",
            "record.b",
            "record.list",
            "record.list[0]",
            "record.a.b",
            "item",
            "1",
            "0",
            "-1",
            "9223372036854775807",
            "1.5",
            "1e308",
            "'7'",
            "true",
            "null",
            "[1, 2]",
            "{'a': 1}",
            "int(record.a)",
            "double(record.a)",
            "string(record.b)",
            "size(record.list)",
            "uint(record.a)",
            "type(record.a)",
            "record.list.map(x, x)",
            "record.list.filter(x, x == record.a)",
            "record.list.exists(x, x > 1)",
            "(has(record.a) ? record.a : 0)",
            "-record.a",
            "!record.b",
            "record.b.contains('a')",
        ][..],
    )
    .prop_map(str::to_owned)
}

fn any_json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        Just(i64::MIN.to_string()),
        Just(u64::MAX.to_string()),
        "-?[1-9][0-9]{0,40}(\\.[0-9]{1,20})?([eE][-+]?[0-9]{1,9})?",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number.prop_map(|text| serde_json::from_str(&text).unwrap_or_default()),
        ".{0,20}".prop_map(Value::String),
        Just(Value::String("x".repeat(RESULT_BYTES_MAX))),
    ];
    leaf.prop_recursive(4, 60, 10, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::btree_map("a|b|list|x", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_is_an_expression_or_a_mistake_and_any_value_has_an_answer(
        source in any_source(),
        record in any_json(),
        item in any_json(),
    ) {
        let started = Instant::now();
        match Expression::compile(&source, &["record", "item", "config"]) {
            Err(mistake) => prop_assert!(!mistake.is_empty()),
            Ok(expression) => {
                let bindings = [("record", &record), ("item", &item), ("config", &Value::Null)];
                if let Err(reason) = expression.evaluate(&bindings) {
                    prop_assert!(!reason.is_empty() && reason.chars().count() < 500, "{}", reason);
                }
                let _ = expression.holds(&bindings);
            }
        }
        prop_assert!(started.elapsed() < PATIENCE, "`{}` took {:?}", source, started.elapsed());
    }
}
