//! Rules about SQL: one text for both databases.

use std::collections::BTreeSet;

use crate::report;
use crate::source::{File, Kind, files, stretches};

/// SQL that one of the two databases does not know or reads differently. Lower case: the search
/// does not mind.
const BANNED_SQL: [(&str, &str); 22] = [
    ("now()", "bind `clock.now()`"),
    ("current_timestamp", "bind `clock.now()`"),
    ("current_date", "bind `clock.now()`"),
    ("current_time", "bind `clock.now()`"),
    ("clock_timestamp", "bind `clock.now()`"),
    ("date_trunc", "cut times in Rust"),
    ("date_part", "cut times in Rust"),
    ("extract(", "cut times in Rust"),
    ("strftime", "cut times in Rust"),
    ("julianday", "cut times in Rust"),
    ("unixepoch", "cut times in Rust"),
    ("datetime(", "cut times in Rust"),
    ("interval '", "add durations in Rust"),
    ("ilike", "compare `lower(…)`"),
    ("greatest(", "use CASE"),
    ("least(", "use CASE"),
    ("ifnull(", "use coalesce"),
    ("->>", "never reach into JSON in SQL"),
    ("json_extract", "never reach into JSON in SQL"),
    ("jsonb_", "never reach into JSON in SQL"),
    ("gen_random_uuid", "ids come from `clock.new_id()`"),
    ("autoincrement", "ids come from `clock.new_id()`"),
];

/// Where a banned word is meant: one arm of a visible match on the database.
const SQL_EXCEPTIONS: [(&str, &str); 2] =
    [("store/src/pool.rs", "clock_timestamp"), ("store/src/pool.rs", "extract(")];

/// The quoted text of a file that is SQL, with the line each begins on.
fn sql_texts(file: &File) -> Vec<(usize, String)> {
    let statement = |text: &str| {
        ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "WHERE "]
            .iter()
            .any(|word| text.contains(word))
    };
    stretches(&file.text)
        .into_iter()
        .filter(|it| it.kind == Kind::Quoted && statement(it.text))
        .map(|it| (it.line, it.text.to_owned()))
        .collect()
}

/// A migration without its comments, line by line.
fn migration_code(file: &File) -> Vec<String> {
    file.text.lines().map(|line| line.split("--").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn sql_reads_the_same_on_both_databases() {
    let mut findings = Vec::new();
    let mut used = BTreeSet::new();
    let mut statements = 0;
    for file in files() {
        let texts = if file.path.starts_with("migrations/") && file.has_extension("sql") {
            migration_code(&file).into_iter().enumerate().map(|(number, line)| (number + 1, line)).collect()
        } else if file.is_rust() && file.path.starts_with("store/src/") {
            sql_texts(&file)
        } else {
            continue;
        };
        statements += texts.len();
        for (line, text) in texts {
            let text = text.to_lowercase();
            for (word, instead) in BANNED_SQL.iter().filter(|(word, _)| text.contains(word)) {
                if SQL_EXCEPTIONS.contains(&(file.path.as_str(), word)) {
                    used.insert((file.path.clone(), *word));
                } else {
                    findings.push(format!("{}:{line}: `{word}`: {instead}", file.path));
                }
            }
        }
    }
    assert!(statements > 50, "only {statements} SQL texts found: the search is broken");
    for (path, word) in SQL_EXCEPTIONS {
        if !used.contains(&(path.to_owned(), word)) {
            findings.push(format!("{path}: `{word}` is excepted here but not used: take the exception away"));
        }
    }
    report("one SQL text for both databases", &findings);
}

/// The column types that both databases accept and sqlx decodes alike.
const COLUMN_TYPES: [&str; 8] =
    ["TEXT", "BIGINT", "BOOLEAN", "DOUBLE PRECISION", "TIMESTAMPTZ", "JSONB", "BYTEA", "UUID"];

#[test]
fn migrations_keep_to_the_portable_vocabulary() {
    let mut findings = Vec::new();
    let mut numbers = Vec::new();
    for file in
        files().iter().filter(|file| file.path.starts_with("migrations/") && file.has_extension("sql"))
    {
        let name = &file.path["migrations/".len()..];
        match name.split_once('_').map(|(number, _)| (number.len(), number.parse::<usize>())) {
            Some((4, Ok(number))) => numbers.push(number),
            _ => findings.push(format!("{}: expected `NNNN_what.sql`", file.path)),
        }
        if !file.text.starts_with("-- ") {
            findings.push(format!("{}: opens without a comment that says what it does", file.path));
        }
        let mut in_table = false;
        for (number, line) in migration_code(file).iter().enumerate() {
            let place = format!("{}:{}", file.path, number + 1);
            // A column that is added to rows which are there is the one thing that cannot do without.
            let added = line.starts_with("ALTER TABLE") && line.contains(" ADD COLUMN ");
            if line.contains("DEFAULT ") && !added {
                findings.push(format!("{place}: a default; the program binds every value"));
            }
            if line.starts_with("CREATE TABLE") {
                in_table = true;
            } else if line.starts_with(')') {
                in_table = false;
            } else if in_table && let Some(found) = foreign_type(line) {
                findings.push(format!("{place}: `{found}`; expected one of {}", COLUMN_TYPES.join(", ")));
            }
        }
    }
    assert!(
        numbers.iter().copied().eq(1..=numbers.len()),
        "migrations are numbered without gaps: {numbers:?}"
    );
    report("migrations use what both databases know", &findings);
}

/// The type of a column line when it is not portable. Constraints are no columns.
fn foreign_type(line: &str) -> Option<String> {
    let line = line.trim();
    let (name, rest) = line.split_once(' ')?;
    let constraint = name.chars().next().is_none_or(|c| !c.is_lowercase());
    let portable = COLUMN_TYPES.iter().any(|kind| {
        rest.trim()
            .strip_prefix(kind)
            .is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '('))
    });
    (!constraint && !portable).then(|| rest.trim().trim_end_matches(',').to_owned())
}

#[test]
fn the_type_check_tells_columns_from_constraints() {
    assert_eq!(foreign_type("    total BIGINT NOT NULL,"), None);
    assert_eq!(foreign_type("    PRIMARY KEY (system_id, stream)"), None);
    assert_eq!(foreign_type("    total NUMERIC(10, 2),"), Some("NUMERIC(10, 2)".to_owned()));
    assert_eq!(foreign_type("    name TEXTUAL,"), Some("TEXTUAL".to_owned()));
}
