//! Error codes are for programs and for whoever is woken at night: each one that the code can make is
//! explained in `docs/operations.md`, and none is explained that it cannot.

use std::collections::BTreeSet;
use std::fs;

use zhilian_sync::api::document::errors::CODES;

use crate::report;
use crate::source::{File, Kind, files, root, stretches};

/// The functions whose first text is a code: the constructors of `JobError` and of `Problem`.
const CONSTRUCTORS: [&str; 11] = [
    "retry",
    "give_up",
    "unauthorized",
    "snooze",
    "JobError::new",
    "Problem::new",
    "Self::new",
    "bad_request",
    "forbidden",
    "conflict",
    "unavailable",
];

/// Outcomes that no run keeps: the claim is somebody else's, or the attempt was given back.
const UNSEEN: [&str; 4] = ["claim_lost", "commit_unknown", "stopping", "turn_over"];

/// What a piece of code makes of the text that follows it: whether it hands it, as the first text,
/// to a constructor, or pairs it with an `Action`.
fn makes_a_code(code: &str) -> bool {
    let mut depth = 0;
    for (at, c) in code.char_indices().rev() {
        match c {
            ')' | '}' => depth += 1,
            '(' | '{' if depth > 0 => depth -= 1,
            '(' => {
                let paired = code[at + 1..].trim_start_matches('(').starts_with("Action::");
                return paired || CONSTRUCTORS.iter().any(|name| calls(&code[..at], name));
            }
            '{' | ';' if depth == 0 => return false,
            _ => {}
        }
    }
    false
}

/// Whether code ends with the path of a function: `JobError::retry` ends with `retry`.
fn calls(code: &str, name: &str) -> bool {
    let rest = code.strip_suffix(name);
    rest.is_some_and(|rest| !rest.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// The codes that a file makes, without those of its unit tests.
fn codes_of(file: &File) -> BTreeSet<String> {
    let source = file.text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let mut before = "";
    let mut found = BTreeSet::new();
    for stretch in stretches(source) {
        match stretch.kind {
            Kind::Code => before = stretch.text,
            Kind::Quoted => {
                let text = stretch.text.trim_matches('"');
                let is_code = !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                if is_code && makes_a_code(before) {
                    found.insert(text.to_owned());
                }
                before = "";
            }
            Kind::Comment => {}
        }
    }
    found
}

/// Compares the codes that the files of some places make with the table under a heading.
fn compare(places: &[&str], heading: &str) {
    let document = fs::read_to_string(root().join("docs/operations.md")).expect("the document is there");
    let section = document.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.expect("the heading is in docs/operations.md");
    let explained: BTreeSet<&str> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let (mut made, mut written) = (BTreeSet::new(), String::new());
    for file in files() {
        let maker =
            file.is_rust() && file.is_within(places) && !file.is_within(&["src/demo", "src/simulator"]);
        if maker {
            made.extend(codes_of(&file));
            written.push_str(&file.text);
        }
    }
    assert!(made.len() > 10, "only {} codes found: the search is broken", made.len());
    let unexplained =
        made.iter().filter(|code| !explained.contains(code.as_str()) && !UNSEEN.contains(&code.as_str()));
    let unexplained: Vec<String> = unexplained.cloned().collect();
    report("docs/operations.md has a line for every error code", &unexplained);
    let unmade = explained.into_iter().filter(|code| !written.contains(&format!("\"{code}\"")));
    let unmade: Vec<String> = unmade.map(str::to_owned).collect();
    report("docs/operations.md explains only codes that something makes", &unmade);
}

#[test]
fn every_error_code_of_a_run_is_explained() {
    compare(&["jobs/src/"], "What a run's error means");
}

#[test]
fn every_error_code_of_an_answer_is_explained() {
    compare(&["src/"], "What an answer's error means");
}

#[test]
fn the_api_document_knows_the_codes_that_the_words_explain() {
    let document = fs::read_to_string(root().join("docs/operations.md")).expect("the document is there");
    let section = document.split("\n## ").find(|section| section.starts_with("What an answer's error means"));
    let lines = section.expect("the heading is in docs/operations.md").lines();
    let explained: BTreeSet<(String, String)> = lines
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_matches('`'));
            Some((cells.next()?.to_owned(), cells.next()?.to_owned()))
        })
        .collect();
    let known: BTreeSet<(String, String)> =
        CODES.iter().map(|code| (code.code.to_owned(), code.status.to_string())).collect();
    let differing = known.symmetric_difference(&explained).map(|(code, status)| format!("`{code}` {status}"));
    report(
        "docs/operations.md and src/api/document/errors.rs have the same codes",
        &differing.collect::<Vec<_>>(),
    );
}

#[test]
fn the_code_search_tells_codes_from_other_texts() {
    let file = |text: &str| File { path: "x.rs".into(), text: text.into() };
    let found = |text: &str| codes_of(&file(text)).into_iter().collect::<Vec<_>>();
    assert_eq!(found("JobError::give_up(\"bad_manifest\", \"other_text\")"), ["bad_manifest"]);
    assert_eq!(found("JobError::snooze(wait(), \"budget_spent\", m)"), ["budget_spent"]);
    assert_eq!(found("JobError::new(Action::Retry { after: wait }, \"rate_limited\", m)"), ["rate_limited"]);
    assert_eq!(found("x => (Action::GiveUp, \"not_found\"),"), ["not_found"]);
    assert!(found("let a = lookup(\"some_name\"); map.get(\"other\")").is_empty());
}
