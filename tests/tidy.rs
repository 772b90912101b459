//! Style that neither rustfmt nor clippy sees: walls between packages, portable SQL, file shapes,
//! documents that name what exists. Each rule says what it found, where, and what to do instead.

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/codes.rs"]
mod codes;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/sql.rs"]
mod sql;
#[path = "tidy/words.rs"]
mod words;

/// Fails with every finding at once.
fn report(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
