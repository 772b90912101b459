//! Writes nested parameters as PHP's `ksort`, at every level, and `http_build_query` do, in its older form
//! (RFC 1738): `a[b]` with its brackets encoded, a space as `+`, yes and no as 1 and 0, nothing for null.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::vendor::template;

/// The text; `drop_empty` leaves empty texts out at every level.
pub(super) fn query(members: &Map<String, Value>, drop_empty: bool) -> String {
    let mut pairs = Vec::new();
    for (name, value) in sorted(members) {
        add(&encoded(name), value, drop_empty, &mut pairs);
    }
    pairs.join("&")
}

fn add(name: &str, value: &Value, drop_empty: bool, pairs: &mut Vec<String>) {
    let text = match value {
        Value::Null => return,
        Value::Object(members) => {
            for (inner, value) in sorted(members) {
                add(&format!("{name}%5B{}%5D", encoded(inner)), value, drop_empty, pairs);
            }
            return;
        }
        Value::Array(elements) => {
            for (at, value) in elements.iter().enumerate() {
                add(&format!("{name}%5B{at}%5D"), value, drop_empty, pairs);
            }
            return;
        }
        Value::Bool(flag) => u8::from(*flag).to_string(),
        scalar => template::as_text(scalar).unwrap_or_default(),
    };
    if !(drop_empty && text.is_empty()) {
        pairs.push(format!("{name}={}", encoded(&text)));
    }
}

/// By the bytes of the names, whatever order the map itself keeps.
fn sorted(members: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
    members
}

/// PHP's `urlencode`: of the signs only `-`, `_` and `.` stay.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut whole, byte| {
        match byte {
            b' ' => whole.push('+'),
            b'-' | b'_' | b'.' => whole.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => whole.push(char::from(byte)),
            _ => {
                let _ = write!(whole, "%{byte:02X}");
            }
        }
        whole
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_parameters_are_written_as_php_does() {
        let of = |value: &Value, drop_empty| query(value.as_object().unwrap(), drop_empty);
        let nested = json!({"z": [true, {"y": "a~b*c", "x": false}], "b": "", "a b": "宫 保", "n": null, "e": [], "i": 9_007_199_254_740_993_u64});
        assert_eq!(
            of(&nested, true),
            "a+b=%E5%AE%AB+%E4%BF%9D&i=9007199254740993&z%5B0%5D=1&z%5B1%5D%5Bx%5D=0&z%5B1%5D%5By%5D=a%7Eb%2Ac"
        );
        assert!(of(&nested, false).starts_with("a+b=%E5%AE%AB+%E4%BF%9D&b=&i="));
        assert_eq!(of(&json!({}), true), "");
    }
}
