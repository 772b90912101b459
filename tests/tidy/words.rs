//! Rules about words: documents name what exists and say the same in both languages, nothing is left behind.

use std::fs;

use crate::report;
use crate::source::{Kind, files, root, stretches};

/// A path named in a document or a comment begins with one of these.
const TOP: [&str; 12] = [
    "src/",
    "jobs/",
    "store/",
    "tests/",
    "config/",
    "migrations/",
    "scripts/",
    "docs/",
    "bench/",
    ".ci/",
    ".config/",
    "benches/",
];

/// The paths that a text names in backticks. Patterns (`config/vendors/<vendor>.toml`) name no file.
fn named_paths(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter_map(|span| {
        let path = span.split([':', '#']).next().unwrap_or_default();
        let pattern = path.contains(|c: char| "<>*{}…$()|, ".contains(c)) || path.contains("NNNN");
        (TOP.iter().any(|top| path.starts_with(top)) && !pattern).then_some(path)
    })
}

#[test]
fn paths_named_in_words_exist() {
    let mut findings = Vec::new();
    let mut named = 0;
    for file in files() {
        let texts: Vec<(usize, String)> = if file.is_markdown() {
            file.text.lines().enumerate().map(|(number, line)| (number + 1, line.to_owned())).collect()
        } else if file.is_rust() {
            let comments = stretches(&file.text).into_iter().filter(|it| it.kind == Kind::Comment);
            comments.map(|it| (it.line, it.text.to_owned())).collect()
        } else {
            continue;
        };
        for (line, text) in texts {
            for path in named_paths(&text) {
                named += 1;
                if !root().join(path).exists() {
                    findings.push(format!("{}:{line}: `{path}`", file.path));
                }
            }
            for link in text.split("](").skip(1).filter(|_| file.is_markdown()) {
                let target = link.split([')', '#', ' ']).next().unwrap_or_default();
                let beside = root().join(&file.path).with_file_name("").join(target);
                if !target.is_empty() && !target.contains("://") && !beside.exists() {
                    findings.push(format!("{}:{line}: link to {target}", file.path));
                }
            }
        }
    }
    assert!(named > 20, "only {named} paths found in words: the search is broken");
    report("a path named in words exists; mend the words or the path", &findings);
}

#[test]
fn no_snapshot_is_left_behind() {
    let mut findings = Vec::new();
    for file in files() {
        if file.path.ends_with(".snap.new") || file.path.ends_with(".pending-snap") {
            findings.push(format!("{}: accept it or delete it", file.path));
        }
        if !file.has_extension("snap") {
            continue;
        }
        let source = file.text.lines().find_map(|line| line.strip_prefix("source: ")).unwrap_or_default();
        let Ok(source) = fs::read_to_string(root().join(source.trim_matches('"'))) else {
            findings.push(format!("{}: its source `{source}` is gone", file.path));
            continue;
        };
        let stem =
            file.path.rsplit('/').next().and_then(|name| name.strip_suffix(".snap")).unwrap_or_default();
        let name = stem.rsplit("__").next().unwrap_or_default();
        let counted = name.rsplit_once('-').filter(|(_, count)| count.parse::<u32>().is_ok());
        let name = counted.map_or(name, |(name, _)| name);
        let by_function = source.contains(&format!("fn {name}("));
        let by_name = source.contains(&format!("\"{name}\""));
        // A snapshot of what becomes of a recorded answer, which lies beside it.
        let recorded = root().join(&file.path).with_file_name(format!("{stem}.json")).exists();
        if !by_function && !by_name && !recorded {
            findings.push(format!("{}: nothing in its source makes `{name}`", file.path));
        }
    }
    report("every snapshot belongs to a test", &findings);
}

/// The shape of a document: the level of every heading, and how many blocks of code.
fn shape(text: &str) -> (Vec<usize>, usize) {
    let (mut headings, mut fences) = (Vec::new(), 0);
    for line in text.lines() {
        if line.starts_with("```") {
            fences += 1;
        } else if fences % 2 == 0 && line.starts_with('#') {
            headings.push(line.len() - line.trim_start_matches('#').len());
        }
    }
    (headings, fences / 2)
}

/// The commands that a document tells to type.
fn commands(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.lines()
        .filter(|line| {
            let fence = line.starts_with("```");
            inside = if fence { !inside && line.starts_with("```sh") } else { inside };
            inside && !fence && !line.trim_start().starts_with('#') && !line.is_empty()
        })
        .map(|line| line.split("  # ").next().unwrap_or_default().trim_end())
        .collect()
}

/// Two documents of which one is the other in another language.
fn say_the_same(english: &str, chinese: &str) {
    let read = |name: &str| fs::read_to_string(root().join(name)).expect("both documents are there");
    let (one, other) = (read(english), read(chinese));
    assert_eq!(shape(&one), shape(&other), "headings and blocks of {english} and {chinese}");
    assert_eq!(commands(&one), commands(&other), "commands of {english} and {chinese}");
    assert_eq!(tables(&one), tables(&other), "rows of the tables of {english} and {chinese}");
    assert!(commands(&one).len() > 5, "the search for commands is broken");
}

/// The number of columns of each row of a table.
fn tables(text: &str) -> Vec<usize> {
    text.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count()).collect()
}

#[test]
fn both_readmes_say_the_same() {
    say_the_same("README.md", "README.zh-CN.md");
}

#[test]
fn both_integration_guides_say_the_same() {
    say_the_same("docs/INTEGRATION.md", "docs/INTEGRATION.zh-CN.md");
}

#[test]
fn the_changelog_knows_the_version() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is there");
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).expect("the changelog is there");
    let version = env!("CARGO_PKG_VERSION");
    assert!(manifest.contains(&format!("version = \"{version}\"")));
    assert!(changelog.contains(&format!("## {version}")), "CHANGELOG.md has no heading `## {version}`");
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is there");
    let section = manifest.split("[workspace.dependencies]").nth(1).expect("the section is there");
    let section = section.split("\n[").next().unwrap_or_default();
    let ours = |line: &&str| !line.trim().is_empty() && !line.contains("path = ");
    let mut findings: Vec<String> =
        section.lines().filter(ours).filter(|line| !line.contains(" # ")).map(str::to_owned).collect();
    for path in ["Cargo.toml", "jobs/Cargo.toml", "store/Cargo.toml"] {
        let text = fs::read_to_string(root().join(path)).expect("the packages are there");
        let parts = text
            .split("\n[")
            .filter(|part| part.starts_with("dependencies]") || part.starts_with("dev-dependencies]"));
        let lines = parts.flat_map(|part| part.lines().skip(1));
        for line in lines.filter(|line| line.contains('=') && !line.starts_with('#')) {
            if !line.contains("workspace = true") && !line.contains("path = \".\"") {
                findings.push(format!("{path}: {line}"));
            }
        }
    }
    report("dependencies stand once, in [workspace.dependencies], each with what it is for", &findings);
}
