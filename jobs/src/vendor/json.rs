//! Reads JSON that strangers wrote. Apart, because `serde_json` keeps two names for itself: an object whose first
//! member has such a name is no object to it. One of them holds JSON in a text, which is read anew with a fresh
//! limit of depth, so that a small body could nest deeper than any stack; whoever builds a value asks here.

use serde_json::Value;

/// What the names begin with that `serde_json` keeps for itself.
const RESERVED: &str = "$serde_json::private::";
/// One of these stands in every text that can hold such a name: the name as it is, or an escape of ASCII.
const SIGNS: [&str; 2] = ["serde_json", "\\u00"];

/// The text as JSON, or what is wrong with it, after the name of what was read: `is not JSON: …`.
pub fn read(text: &str) -> Result<Value, String> {
    check(text)?;
    serde_json::from_str(text).map_err(|error| not_json(&error))
}

/// Whether the text may be read: no member has a name that `serde_json` keeps for itself.
pub(super) fn check(text: &str) -> Result<(), String> {
    // Nearly every body is let through here, at the cost of two searches.
    if !SIGNS.iter().any(|sign| text.contains(sign)) {
        return Ok(());
    }
    if names(text).any(is_reserved) {
        return Err(format!("has a member whose name begins with `{RESERVED}`, which is reserved"));
    }
    Ok(())
}

/// What is wrong, after the name of what was read.
pub(super) fn not_json(error: &serde_json::Error) -> String {
    format!("is not JSON: {error}")
}

fn is_reserved(name: &str) -> bool {
    if !name.contains('\\') {
        return name.get(1..name.len() - 1).is_some_and(|name| name.starts_with(RESERVED));
    }
    serde_json::from_str::<String>(name).is_ok_and(|name| name.starts_with(RESERVED))
}

/// The names of all members, in their quotes and as they are escaped, at any depth. Of what is no JSON those
/// before the first mistake, and perhaps more.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + bytes.get(at..)?.iter().position(|byte| *byte == b'"')?;
            let end = end_of_text(bytes, start + 1)?;
            at = end + 1;
            let next = bytes[at..].iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
            if next == Some(&b':') {
                return text.get(start..=end);
            }
        }
    })
}

/// Where the quote is that ends the text which begins at `at`.
fn end_of_text(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_refused_however_they_are_written() {
        for text in [
            r#"{"$serde_json::private::RawValue":"[]"}"#,
            r#"{"a":[1,{"$serde_json::private::Number" : "1"}]}"#,
            r#"{"a":1,"\u0024serde_json::private::RawValue":"1"}"#,
            r#"{"$\u0073erde_js\u006fn::private::RawValue":"1"}"#,
            "{\"$serde_json::private::RawValue\"\n\t:\"1\"",
        ] {
            let problem = read(text).unwrap_err();
            assert!(problem.starts_with("has a member whose name begins with"), "{text}: {problem}");
        }
    }

    #[test]
    fn what_only_looks_like_them_is_read() {
        for text in [
            r#"{"a":"$serde_json::private::RawValue"}"#,
            r#"["$serde_json::private::RawValue","serde_json"]"#,
            r#"{"a":"\"$serde_json::private::RawValue\":1","serde_json":"\u00e9"}"#,
            r#"{"\u00e9":"\u4e2d","":"\\","x":{}}"#,
            "7.25",
        ] {
            assert_eq!(
                read(text).unwrap().to_string(),
                serde_json::from_str::<Value>(text).unwrap().to_string()
            );
        }
        for text in ["", "\"", "{\"\\u00", "\"\\", "serde_json", "\"serde_json\\\""] {
            assert!(read(text).unwrap_err().starts_with("is not JSON"), "{text}");
        }
    }
}
