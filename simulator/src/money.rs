//! Amounts as vendors write them. Records have whole minor units; no float comes near them.

use serde_json::{Number, Value};

/// An amount in major units as a JSON number of at most two decimals, as a script would write it: 27.13,
/// 27.1, 27.
pub fn major(minor: i64) -> Value {
    let text = major_text(minor);
    let text = if text.ends_with(".00") { text.trim_end_matches(".00") } else { text.trim_end_matches('0') };
    let number: Number = text.parse().expect("digits with a point between them are a number");
    Value::Number(number)
}

/// An amount in major units as a text with two decimals.
pub fn major_text(minor: i64) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let whole = minor.unsigned_abs();
    format!("{sign}{}.{:02}", whole / 100, whole % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_short() {
        let written: Vec<String> =
            [2713, 2710, 2700, 5, -2713, 0].iter().map(|minor| major(*minor).to_string()).collect();
        assert_eq!(written, ["27.13", "27.1", "27", "0.05", "-27.13", "0"]);
        assert_eq!(major_text(2700), "27.00");
    }
}
