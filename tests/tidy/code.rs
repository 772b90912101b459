//! Rules about Rust files: their shape, the walls between packages, nothing unfinished.

use crate::report;
use crate::source::{File, Kind, code_lines, files, stretches};

/// A file longer than this holds more than one idea. Unit tests at its bottom do not count.
const FILE_LINES_MAX: usize = 500;

/// A file of tests is a list of sentences, which may be longer.
const TEST_FILE_LINES_MAX: usize = 800;

/// Nothing in the tree is larger: what is generated or recorded in bulk does not belong here.
const FILE_BYTES_MAX: usize = 512 * 1024;

fn rust_files() -> Vec<File> {
    files().into_iter().filter(File::is_rust).collect()
}

#[test]
fn files_hold_one_idea() {
    let mut findings = Vec::new();
    for file in files() {
        if file.is_rust() {
            let lines =
                file.text.split("#[cfg(test)]\nmod tests").next().map_or(0, |text| text.lines().count());
            let tests = file.path.contains("tests/") || file.path.ends_with("/tests.rs");
            if lines > if tests { TEST_FILE_LINES_MAX } else { FILE_LINES_MAX } {
                findings.push(format!("{}: {lines} lines without its tests", file.path));
            }
        }
        if file.text.len() > FILE_BYTES_MAX {
            findings.push(format!("{}: {} bytes", file.path, file.text.len()));
        }
    }
    report(
        "files are at most 500 lines (tests 800; split by idea, not by size) and half a megabyte",
        &findings,
    );
}

#[test]
fn every_file_says_what_it_is() {
    let silent = |file: &File| !file.text.starts_with("//! ");
    let findings: Vec<_> = rust_files().into_iter().filter(silent).map(|file| file.path).collect();
    report("a file opens with `//!`: what it is and where it stands in the flow", &findings);
}

#[test]
fn modules_are_named_after_their_file() {
    let findings: Vec<_> =
        rust_files().into_iter().map(|file| file.path).filter(|path| path.ends_with("mod.rs")).collect();
    report("write `name.rs` beside `name/`, not `name/mod.rs`", &findings);
}

/// A crate and the only places that may name it.
const WALLS: [(&str, &[&str]); 10] = [
    ("apalis", &["jobs/src/queue"]),
    ("apalis_core", &["jobs/src/queue"]),
    ("apalis_redis", &["jobs/src/queue"]),
    ("backoff", &["jobs/src/backoff.rs"]),
    ("cron", &["jobs/src/schedule"]),
    ("poem", &["src/", "simulator/", "tests/"]),
    ("poem_openapi", &["src/", "tests/"]),
    ("reqwest", &["jobs/src/vendor", "jobs/tests/", "tests/"]),
    ("sqlx", &["store/", "tests/"]),
    ("anyhow", &["src/main.rs", "src/cli", "src/app", "src/auth", "src/demo", "tests/"]),
];

/// Whether code names a crate: `cron::…` where it is no part of a longer path, also not through
/// an outer `use crate::{…}`.
fn names_crate(code: &str, name: &str) -> Option<usize> {
    let path = format!("{name}::");
    code.match_indices(&path).map(|(at, _)| at).find(|at| {
        let before = &code[..*at];
        let continues = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        let statement = before.rsplit(';').next().unwrap_or_default();
        let nested = statement.rfind("use ").is_some_and(|from| {
            statement[from..].matches('{').count() > statement[from..].matches('}').count()
        });
        let absolute =
            before.ends_with(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') || before.is_empty();
        absolute && !continues && !nested
    })
}

#[test]
fn crates_stay_behind_their_walls() {
    let mut findings = Vec::new();
    for file in rust_files() {
        let code = code_lines(&file.text).join("\n");
        for (name, places) in WALLS {
            if file.is_within(places) {
                continue;
            }
            if let Some(at) = names_crate(&code, name) {
                let line = code[..at].matches('\n').count() + 1;
                findings.push(format!("{}:{line}: `{name}` belongs to {}", file.path, places.join(", ")));
            }
        }
    }
    report("each of these crates is named in one place only", &findings);
}

#[test]
fn the_wall_check_tells_a_crate_from_a_module() {
    assert!(names_crate("use cron::Schedule;", "cron").is_some());
    assert!(names_crate("let s = cron::Schedule::from_str(x);", "cron").is_some());
    assert!(names_crate("use crate::cron::Cron;", "cron").is_none());
    assert!(names_crate("use crate::{backoff::RetryPolicy, x};", "backoff").is_none());
    assert!(names_crate("my_cron::x", "cron").is_none());
}

/// What no code of ours holds, and why.
const BANNED_CODE: [(&str, &str); 7] = [
    ("todo!", "finish it or leave it out"),
    ("unimplemented!", "finish it or leave it out"),
    ("dbg!", "use tracing"),
    ("#[ignore", "a test that does not run proves nothing"),
    ("#[allow(", "`#[expect(lint, reason = …)]` complains when it is no longer needed"),
    ("#![allow(", "`#![expect(lint, reason = …)]` complains when it is no longer needed"),
    ("payload::Xml", "quick-xml 0.36 has advisories, see deny.toml; answer JSON"),
];

#[test]
fn code_holds_nothing_unfinished() {
    let mut findings = Vec::new();
    for file in rust_files() {
        for (number, line) in code_lines(&file.text).iter().enumerate() {
            for (word, instead) in BANNED_CODE {
                if line.contains(word) {
                    findings.push(format!("{}:{}: `{word}`: {instead}", file.path, number + 1));
                }
            }
            let xml = line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|name| name == "Xml");
            if xml && file.is_within(&["src/"]) {
                findings.push(format!("{}:{}: `Xml`: answer JSON, see deny.toml", file.path, number + 1));
            }
        }
        for word in ["FIXME", concat!("XX", "X:"), "HACK:"] {
            let comments = stretches(&file.text).into_iter().filter(|it| it.kind == Kind::Comment);
            for comment in comments.filter(|it| it.text.contains(word)) {
                findings.push(format!("{}:{}: `{word}`: mend it now", file.path, comment.line));
            }
        }
    }
    report("nothing unfinished, silenced or skipped", &findings);
}
