//! Reads a TOML table key by key, remembers which keys were asked for, and collects every mistake with
//! its file, its dotted key and the way out, so that an author sees all of them at once. It takes the
//! place of derived deserialisation, which stops at the first.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use super::super::expression::Expression;
use super::super::path::Path;
use super::super::template::Template;
use super::recorder::{Kind, Recorder};

/// One mistake in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManifestError {
    /// The file, or the name under which it is embedded.
    pub file: String,
    /// The line of the key, where the text is at hand and has it.
    pub line: Option<usize>,
    /// The dotted key; empty where the whole file is meant.
    pub key: String,
    /// What was found, what was expected, what to do.
    pub problem: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": `{}`", self.key)?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// Every mistake of one or several manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestErrors(pub Vec<ManifestError>);

impl fmt::Display for ManifestErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestErrors {}

/// Where the mistakes of one file gather.
#[derive(Debug)]
pub(in crate::vendor) struct Problems {
    file: String,
    found: RefCell<Vec<ManifestError>>,
    /// What is asked for, where the schema is made.
    recorder: Option<Rc<Recorder>>,
}

impl Problems {
    pub(in crate::vendor) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), found: RefCell::default(), recorder: None }
    }

    /// The same, and writes down what is asked for.
    pub(in crate::vendor) fn recording(file: &str, recorder: &Rc<Recorder>) -> Self {
        Self { recorder: Some(Rc::clone(recorder)), ..Self::new(file) }
    }

    pub(in crate::vendor) fn add(&self, key: impl Into<String>, problem: impl Into<String>) {
        let error =
            ManifestError { file: self.file.clone(), line: None, key: key.into(), problem: problem.into() };
        self.found.borrow_mut().push(error);
    }

    pub(in crate::vendor) fn into_result<T>(self, value: Option<T>) -> Result<T, ManifestErrors> {
        let mut found = self.found.into_inner();
        found.sort();
        found.dedup();
        match value {
            Some(value) if found.is_empty() => Ok(value),
            _ => Err(ManifestErrors(found)),
        }
    }
}

/// A table that is being read. [`Section::finish`] complains about keys nobody asked for.
pub(in crate::vendor) struct Section<'a> {
    table: &'a toml::Table,
    key: String,
    asked: RefCell<BTreeSet<&'static str>>,
    problems: &'a Problems,
}

impl<'a> Section<'a> {
    pub(in crate::vendor) fn new(
        table: &'a toml::Table,
        key: impl Into<String>,
        problems: &'a Problems,
    ) -> Self {
        Self { table, key: key.into(), asked: RefCell::default(), problems }
    }

    /// The dotted name of a key of this table.
    pub(in crate::vendor) fn name(&self, key: &str) -> String {
        if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) }
    }

    pub(in crate::vendor) fn problem(&self, key: &str, problem: impl Into<String>) {
        self.problems.add(self.name(key), problem);
    }

    pub(in crate::vendor) fn problems(&self) -> &'a Problems {
        self.problems
    }

    pub(in crate::vendor) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// What is there, whatever it is; a reader with a narrower one tells the schema more.
    pub(in crate::vendor) fn value(&self, key: &'static str) -> Option<&'a toml::Value> {
        self.get(key, || Kind::Any)
    }

    /// The members of a table that are fields of a mapping, with names that the author chooses.
    pub(in crate::vendor) fn fields(&self) -> impl Iterator<Item = (&'a str, &'a toml::Value)> {
        self.entries().inspect(|(name, _)| self.record(name, || Kind::Field))
    }

    /// The value of a field of a mapping.
    pub(in crate::vendor) fn field(&self, key: &'static str) -> Option<&'a toml::Value> {
        self.get(key, || Kind::Field)
    }

    /// Says that a key is known, which another reader of the same table reads.
    pub(in crate::vendor) fn knows(&self, key: &'static str) {
        self.asked.borrow_mut().insert(key);
    }

    fn get(&self, key: &'static str, kind: impl FnOnce() -> Kind) -> Option<&'a toml::Value> {
        self.asked.borrow_mut().insert(key);
        self.record(key, kind);
        self.table.get(key)
    }

    fn record(&self, key: &str, kind: impl FnOnce() -> Kind) {
        if let Some(recorder) = &self.problems.recorder {
            recorder.asked(&self.name(key), kind());
        }
    }

    /// Says that this table is a field of a mapping, of which there is one form.
    pub(in crate::vendor) fn is_field(&self) {
        if let Some(recorder) = &self.problems.recorder {
            recorder.is_field(&self.key);
        }
    }

    pub(in crate::vendor) fn required<T>(&self, key: &'static str, value: Option<T>, fix: &str) -> Option<T> {
        if value.is_none() && !self.has(key) {
            self.problem(key, format!("is missing; {fix}"));
        }
        value
    }

    pub(in crate::vendor) fn text(&self, key: &'static str) -> Option<&'a str> {
        self.text_of(key, || Kind::Text)
    }

    fn text_of(&self, key: &'static str, kind: impl FnOnce() -> Kind) -> Option<&'a str> {
        match self.get(key, kind)? {
            toml::Value::String(text) => Some(text),
            other => self.wrong(key, "text in quotes", other),
        }
    }

    pub(in crate::vendor) fn flag(&self, key: &'static str) -> Option<bool> {
        match self.get(key, || Kind::Flag)? {
            toml::Value::Boolean(flag) => Some(*flag),
            other => self.wrong(key, "`true` or `false`", other),
        }
    }

    pub(in crate::vendor) fn whole(&self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        match self.get(key, || Kind::Whole(*range.start(), *range.end()))? {
            toml::Value::Integer(whole) => {
                match u32::try_from(*whole).ok().filter(|whole| range.contains(whole)) {
                    None => {
                        let (least, most) = range.into_inner();
                        self.problem(key, format!("`{whole}` is out of range; expected {least} to {most}"));
                        None
                    }
                    found => found,
                }
            }
            other => self.wrong(key, "a whole number", other),
        }
    }

    pub(in crate::vendor) fn secs(&self, key: &'static str, range: RangeInclusive<u32>) -> Option<Duration> {
        self.whole(key, range).map(|secs| Duration::from_secs(secs.into()))
    }

    pub(in crate::vendor) fn share(&self, key: &'static str) -> Option<f64> {
        let share = match self.get(key, || Kind::Share)? {
            toml::Value::Float(share) => *share,
            toml::Value::Integer(0) => 0.0,
            toml::Value::Integer(1) => 1.0,
            other => return self.wrong(key, "a number from 0.0 to 1.0", other),
        };
        if (0.0..=1.0).contains(&share) {
            return Some(share);
        }
        self.problem(key, format!("`{share}` is out of range; expected 0.0 to 1.0"));
        None
    }

    /// One of a few words.
    pub(in crate::vendor) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let words = || Kind::Choice(choices.iter().map(|(word, _)| (*word).to_owned()).collect());
        let text = self.text_of(key, words)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        if found.is_none() {
            let words = choices.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ");
            self.problem(key, format!("`{text}` is not known; expected one of {words}"));
        }
        found
    }

    /// Text that must parse.
    pub(in crate::vendor) fn parsed<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(self.text(key)?).map_err(|problem| self.problem(key, problem)).ok()
    }

    pub(in crate::vendor) fn template(&self, key: &'static str) -> Option<Template> {
        self.parsed(key, Template::parse)
    }

    pub(in crate::vendor) fn path(&self, key: &'static str) -> Option<Path> {
        self.parsed(key, Path::parse)
    }

    pub(in crate::vendor) fn expression(&self, key: &'static str, names: &[&str]) -> Option<Expression> {
        self.parsed(key, |source| Expression::compile(source, names))
    }

    /// One text or a list of texts.
    pub(in crate::vendor) fn texts(&self, key: &'static str) -> Option<Vec<&'a str>> {
        match self.get(key, || Kind::Texts)? {
            toml::Value::String(text) => Some(vec![text]),
            toml::Value::Array(elements) if elements.iter().all(toml::Value::is_str) => {
                Some(elements.iter().filter_map(toml::Value::as_str).collect())
            }
            other => self.wrong(key, "text in quotes or a list of texts", other),
        }
    }

    /// One path or alternatives.
    pub(in crate::vendor) fn paths(&self, key: &'static str) -> Option<Vec<Path>> {
        let texts = self.texts(key)?;
        let parsed: Result<Vec<_>, _> = texts.into_iter().map(Path::parse).collect();
        parsed.map_err(|problem| self.problem(key, problem)).ok()
    }

    /// A table below this one.
    pub(in crate::vendor) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        match self.get(key, || Kind::Table)? {
            toml::Value::Table(table) => Some(Section::new(table, self.name(key), self.problems)),
            other => self.wrong(key, "a table", other),
        }
    }

    /// A table of tables with names that the author chooses.
    pub(in crate::vendor) fn named_sections(&self, key: &'static str) -> Vec<(&'a str, Section<'a>)> {
        self.record_names(&self.name(key));
        let Some(Some(table)) = self.get(key, || Kind::Table).map(toml::Value::as_table) else {
            if self.has(key) {
                self.problem(key, "expected tables with a name each");
            }
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (name, value) in table {
            match value {
                toml::Value::Table(inner) => {
                    sections.push((
                        name.as_str(),
                        Section::new(inner, self.name(&format!("{key}.{name}")), self.problems),
                    ));
                }
                _ => self.problem(&format!("{key}.{name}"), "expected a table"),
            }
        }
        sections
    }

    /// A table of texts with names that the author chooses.
    pub(in crate::vendor) fn named_texts(&self, key: &'static str) -> Vec<(&'a str, &'a str)> {
        self.record(key, || Kind::TextTable);
        let Some(section) = self.section(key) else {
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (name, value) in section.table {
            match value {
                toml::Value::String(text) => texts.push((name.as_str(), text.as_str())),
                _ => section.problem(name, "expected text in quotes"),
            }
        }
        texts
    }

    /// A table of templates with names that the author chooses.
    pub(in crate::vendor) fn named_templates(&self, key: &'static str) -> Vec<(String, Template)> {
        let texts = self.named_texts(key).into_iter();
        texts
            .filter_map(|(name, text)| match Template::parse(text) {
                Ok(template) => Some((name.to_owned(), template)),
                Err(problem) => {
                    self.problem(&format!("{key}.{name}"), problem);
                    None
                }
            })
            .collect()
    }

    /// The members of a table whose names the author chooses.
    pub(in crate::vendor) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a toml::Value)> {
        self.record_names(&self.key);
        self.table.iter().map(|(name, value)| (name.as_str(), value))
    }

    fn record_names(&self, key: &str) {
        if let Some(recorder) = &self.problems.recorder {
            recorder.has_names(key);
        }
    }

    /// Complains about keys that nobody asked for.
    pub(in crate::vendor) fn finish(self) {
        if let Some(recorder) = &self.problems.recorder {
            recorder.is_closed(&self.key);
        }
        let asked = self.asked.borrow();
        for key in self.table.keys().filter(|key| !asked.contains(key.as_str())) {
            let near = asked
                .iter()
                .min_by_key(|known| distance(key, known))
                .filter(|known| distance(key, known) <= 3);
            let fix = if let Some(near) = near {
                format!("did you mean `{near}`?")
            } else {
                let known: Vec<String> = asked.iter().map(|known| format!("`{known}`")).collect();
                format!("known here are {}", known.join(", "))
            };
            self.problem(key, format!("is not a key of a manifest; {fix}"));
        }
    }

    fn wrong<T>(&self, key: &str, expected: &str, found: &toml::Value) -> Option<T> {
        self.problem(key, format!("expected {expected}, found a value of type {}", found.type_str()));
        None
    }
}

/// How many letters must change to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, against) in other.bytes().enumerate() {
            let change = diagonal + usize::from(letter != against);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_told_at_once_with_key_and_fix() {
        let table: toml::Table =
            "title = 3\npages_max = 0\nshare = 2.0\nstyle = 'x'\nfomat = 'a'".parse().unwrap();
        let problems = Problems::new("acme.toml");
        let section = Section::new(&table, "streams.orders", &problems);
        section.text("title");
        section.whole("pages_max", 1..=10);
        section.share("share");
        section.choice("style", &[("page", 1), ("offset", 2)]);
        section.text("format");
        section.required("path", section.text("path"), "name the path of the list");
        section.finish();
        let errors = problems.into_result(Some(())).unwrap_err();
        let lines: Vec<String> = errors.to_string().lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "acme.toml: `streams.orders.fomat`: is not a key of a manifest; did you mean `format`?",
                "acme.toml: `streams.orders.pages_max`: `0` is out of range; expected 1 to 10",
                "acme.toml: `streams.orders.path`: is missing; name the path of the list",
                "acme.toml: `streams.orders.share`: `2` is out of range; expected 0.0 to 1.0",
                "acme.toml: `streams.orders.style`: `x` is not known; expected one of `page`, `offset`",
                "acme.toml: `streams.orders.title`: expected text in quotes, found a value of type integer",
            ]
        );
    }
}
