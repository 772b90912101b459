//! Reads the tree for the tidy test: which files there are, and a Rust file split into code, text
//! in quotes and comments, so that a rule about code does not trip over a sentence about it.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours.
const FOREIGN: [&str; 4] = ["target", ".git", "data", "node_modules"];

/// One file of the tree.
pub(crate) struct File {
    /// Relative to the root, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn is_rust(&self) -> bool {
        self.has_extension("rs")
    }

    pub(crate) fn is_markdown(&self) -> bool {
        self.has_extension("md")
    }

    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|it| it == extension)
    }

    /// Whether the file stands in one of these places: a folder (`store/`) or what a file's name
    /// begins with (`jobs/src/queue`).
    pub(crate) fn is_within(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }
}

/// The folder of the root package.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the tree, sorted by path.
pub(crate) fn files() -> Vec<File> {
    let mut found = Vec::new();
    collect(&root(), &mut found);
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(found.len() > 20, "only {} files found: the walk is broken", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<File>) {
    for entry in fs::read_dir(folder).expect("a folder of the tree can be listed") {
        let entry = entry.expect("an entry of a listed folder can be read");
        let path = entry.path();
        if path.is_dir() {
            if !FOREIGN.iter().any(|name| entry.file_name() == *name) {
                collect(&path, found);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root()).expect("the walk starts at the root");
            found.push(File { path: path.to_string_lossy().replace('\\', "/"), text });
        }
    }
}

/// What a stretch of Rust source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Code,
    Quoted,
    Comment,
}

/// A stretch of one kind, with the line it begins on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stretch<'a> {
    pub(crate) kind: Kind,
    pub(crate) line: usize,
    pub(crate) text: &'a str,
}

/// Splits Rust source into stretches; put together they are the source again.
pub(crate) fn stretches(source: &str) -> Vec<Stretch<'_>> {
    let mut found = Vec::new();
    let (mut start, mut at, mut line) = (0, 0, 1);
    let mut push = |kind, from: usize, to: usize| {
        if from < to {
            let text = &source[from..to];
            found.push(Stretch { kind, line, text });
            line += text.matches('\n').count();
        }
    };
    while at < source.len() {
        let after_name = source[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let Some((kind, length)) = special(&source[at..], after_name) else {
            at += source[at..].chars().next().map_or(1, char::len_utf8);
            continue;
        };
        push(Kind::Code, start, at);
        push(kind, at, at + length);
        at += length;
        start = at;
    }
    push(Kind::Code, start, at);
    found
}

/// The comment or literal that `rest` begins with, and its length in bytes.
fn special(rest: &str, after_name: bool) -> Option<(Kind, usize)> {
    if rest.starts_with("//") {
        return Some((Kind::Comment, rest.find('\n').unwrap_or(rest.len())));
    }
    if rest.starts_with("/*") {
        return Some((Kind::Comment, rest.find("*/").map_or(rest.len(), |end| end + 2)));
    }
    if rest.starts_with('"') {
        return Some((Kind::Quoted, escaped_end(rest, '"')));
    }
    if rest.starts_with('\'') {
        return char_literal(rest).map(|length| (Kind::Quoted, length));
    }
    if after_name {
        return None;
    }
    let raw = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    let quoted = raw[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = quoted.find(&end).map_or(quoted.len(), |at| at + end.len());
    Some((Kind::Quoted, rest.len() - quoted.len() + length))
}

/// Where a literal with backslash escapes ends, the closing mark included.
fn escaped_end(rest: &str, mark: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == mark => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal; `None` for a lifetime.
fn char_literal(rest: &str) -> Option<usize> {
    let mut inside = rest[1..].chars();
    match inside.next()? {
        '\\' => Some(escaped_end(rest, '\'')),
        c if inside.next() == Some('\'') => Some(2 + c.len_utf8()),
        _ => None,
    }
}

/// The code of a Rust file with comments and quoted text blanked out, line by line.
pub(crate) fn code_lines(source: &str) -> Vec<String> {
    let mut code = String::with_capacity(source.len());
    for stretch in stretches(source) {
        match stretch.kind {
            Kind::Code => code.push_str(stretch.text),
            Kind::Quoted => {
                code.push_str("\"\"");
                code.extend(stretch.text.chars().filter(|c| *c == '\n'));
            }
            Kind::Comment => code.extend(stretch.text.chars().filter(|c| *c == '\n')),
        }
    }
    code.lines().map(str::to_owned).collect()
}

#[test]
fn source_is_split_into_code_quotes_and_comments() {
    let source = "let a = \"no // comment\"; // now()\nlet b = r#\"raw \" here\"#; let c: &'a str = '\\'';";
    let quoted: Vec<_> =
        stretches(source).into_iter().filter(|it| it.kind == Kind::Quoted).map(|it| it.text).collect();
    assert_eq!(quoted, ["\"no // comment\"", "r#\"raw \" here\"#", "'\\''"]);
    assert_eq!(stretches(source).iter().map(|it| it.text).collect::<String>(), source);
    assert_eq!(code_lines(source)[1], "let b = \"\"; let c: &'a str = \"\";");
    assert_eq!(stretches(source).last().map(|it| it.line), Some(2));
}
