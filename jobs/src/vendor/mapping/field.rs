//! One canonical field: where its value comes from and what it must become. Every function here is
//! total: whatever JSON a vendor sends, the answer is a value, nothing, or a reason for a person.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};
use zhilian_sync_store::{Currency, money};

use super::super::expression::Expression;
use super::super::json;
use super::super::path::{self, Path};
use super::convert::{self, TimeForm};

/// A declared field.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its dotted name, for reasons.
    pub(super) name: String,
    pub(super) source: Source,
    pub(super) form: Form,
    /// The vendor's words and ours.
    pub(super) values: Option<ValueTable>,
    /// What stands for nothing.
    pub(super) default: Option<Value>,
}

/// Where a value comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// The first of these places that holds something.
    Paths(Vec<Path>),
    /// Amounts added up, of every element where a step is `*`; `true` subtracts. Nothing counts as zero.
    Sum(Vec<(bool, Path)>),
    Cel(Expression),
    Fixed(Value),
    /// One object for each element of a list.
    Each {
        list: Vec<Path>,
        fields: Vec<Field>,
    },
    Object(Vec<Field>),
}

/// What a value must become.
#[derive(Debug, Clone)]
pub(super) enum Form {
    AsIs,
    Text,
    Number,
    Flag { present: bool },
    Money(Unit),
    Time { form: TimeForm, zone: Option<Tz> },
}

/// What a vendor's amount counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Whole minor units: fen, cents.
    Minor,
    /// Decimals of the currency: 296.80.
    Major,
}

/// The vendor's words and ours.
#[derive(Debug)]
pub(super) struct ValueTable {
    pub(super) words: BTreeMap<String, String>,
    /// What an unlisted word means; without it the record fails.
    pub(super) otherwise: Option<String>,
    /// Unlisted words stay as they are.
    pub(super) keep_unknown: bool,
}

/// What a field may look at.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'v> {
    /// The whole record.
    pub(crate) record: &'v Value,
    /// The element of a list that is being read, else the record.
    pub(crate) item: &'v Value,
    pub(crate) config: &'v Value,
    pub(crate) currency: Currency,
    pub(crate) zone: Tz,
}

impl Field {
    /// As text; U+0000 is replaced, because PostgreSQL refuses it.
    pub(in crate::vendor) fn text(&self, scope: Scope<'_>) -> Result<Option<String>, String> {
        let text = self.word(scope)?;
        Ok(text.map(|text| convert::without_nul(&text).into_owned()))
    }

    /// As an id: exact, so nothing in it is replaced.
    pub(in crate::vendor) fn id(&self, scope: Scope<'_>) -> Result<Option<String>, String> {
        let Some(id) = self.word(scope)? else {
            return Ok(None);
        };
        convert::check_id(&id).map_err(|problem| self.reason(&problem))?;
        Ok(Some(id.into_owned()))
    }

    /// As minor units of the record's currency.
    pub(super) fn minor(&self, scope: Scope<'_>) -> Result<Option<i64>, String> {
        let unit = if let Form::Money(unit) = self.form { unit } else { Unit::Major };
        let read = |value: &Value| {
            convert::minor(value, unit, scope.currency).map_err(|problem| self.reason(&problem))
        };
        if let Source::Sum(terms) = &self.source {
            let mut sum = None;
            for (subtract, path) in terms {
                for value in path.find_all(scope.item).into_iter().filter(|value| !value.is_null()) {
                    let minor = i128::from(read(value)?);
                    // Each has at most 15 digits, so there would have to be more of them than memory holds.
                    sum = Some(sum.unwrap_or(0) + if *subtract { -minor } else { minor });
                }
            }
            return match sum {
                None => self.default.as_ref().map(read).transpose(),
                Some(sum) => i64::try_from(sum)
                    .ok()
                    .filter(|sum| sum.abs() <= money::AMOUNT_MAX)
                    .map(Some)
                    .ok_or_else(|| self.reason(&format!("`{sum}` is too large for an amount"))),
            };
        }
        self.value(scope)?.map(|value| read(&value)).transpose()
    }

    /// As a time, in milliseconds.
    pub(in crate::vendor) fn time(&self, scope: Scope<'_>) -> Result<Option<DateTime<Utc>>, String> {
        let Some(value) = self.value(scope)? else {
            return Ok(None);
        };
        let (form, zone) = match &self.form {
            Form::Time { form, zone } => (form, zone.unwrap_or(scope.zone)),
            _ => (&TimeForm::Any, scope.zone),
        };
        convert::time(&value, form, zone).map(Some).map_err(|problem| self.reason(&problem))
    }

    /// As yes or no; nothing is no.
    pub(super) fn flag(&self, scope: Scope<'_>) -> Result<bool, String> {
        let Some(value) = self.value(scope)? else {
            return Ok(false);
        };
        if matches!(self.form, Form::Flag { present: true }) {
            return Ok(true);
        }
        convert::flag(&value).map_err(|problem| self.reason(&problem))
    }

    /// As JSON, for the fields of an object or a list.
    pub(super) fn json(&self, scope: Scope<'_>) -> Result<Option<Value>, String> {
        Ok(match (&self.source, &self.form) {
            (Source::Each { list, fields }, _) => {
                let Some(found) = path::first_present(list, scope.item) else {
                    return Ok(self.default.clone());
                };
                let elements = self.elements(found)?;
                let objects = elements.iter().map(|item| object(fields, Scope { item, ..scope }));
                let objects: Vec<Value> = objects.collect::<Result<_, _>>()?;
                Some(Value::Array(objects))
            }
            (Source::Object(fields), _) => Some(object(fields, scope)?)
                .filter(|object| object.as_object().is_some_and(|o| !o.is_empty())),
            (_, Form::Money(_)) => self
                .minor(scope)?
                .map(|minor| Value::Number(money::json_number(minor, scope.currency.digits()))),
            (_, Form::Time { .. }) => self
                .time(scope)?
                .map(|at| Value::String(at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))),
            (_, Form::Text) => self.text(scope)?.map(Value::String),
            (_, Form::Flag { .. }) => Some(Value::Bool(self.flag(scope)?)),
            (_, Form::Number) => match self.value(scope)? {
                None => None,
                Some(value) => Some(convert::number(&value).map_err(|problem| self.reason(&problem))?),
            },
            (_, Form::AsIs) => match self.value(scope)?.map(Cow::into_owned) {
                Some(Value::String(text)) => Some(Value::String(convert::without_nul(&text).into_owned())),
                other => other,
            },
        })
    }

    /// The elements of a list, or of a text that is JSON of one, as vendors put into forms.
    fn elements<'v>(&self, found: &'v Value) -> Result<Cow<'v, [Value]>, String> {
        match found {
            Value::Array(elements) => Ok(Cow::Borrowed(elements)),
            Value::String(text) if text.trim_start().starts_with('[') => match json::read(text) {
                Ok(Value::Array(elements)) => Ok(Cow::Owned(elements)),
                Ok(found) => Err(self.no_list(&found)),
                Err(problem) => Err(self.reason(&format!("the text {problem}"))),
            },
            found => Err(self.no_list(found)),
        }
    }

    fn no_list(&self, found: &Value) -> String {
        self.reason(&format!("expected a list, found {}", convert::kind(found)))
    }

    /// A reason that names the field.
    pub(super) fn reason(&self, problem: &str) -> String {
        match &self.source {
            Source::Paths(paths) => format!("`{}` (from {}): {problem}", self.name, path::shown(paths)),
            _ => format!("`{}`: {problem}", self.name),
        }
    }

    /// The text, translated by the table of words.
    fn word<'v>(&'v self, scope: Scope<'v>) -> Result<Option<Cow<'v, str>>, String> {
        let Some(value) = self.value(scope)? else {
            return Ok(None);
        };
        let text = convert::text(value).map_err(|problem| self.reason(&problem))?;
        let Some(table) = &self.values else {
            return Ok(Some(text));
        };
        if let Some(ours) = table.words.get(text.as_ref()).or(table.otherwise.as_ref()) {
            return Ok(Some(Cow::Borrowed(ours)));
        }
        if table.keep_unknown {
            return Ok(Some(text));
        }
        let known = table.words.keys().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let problem =
            format!("`{}` has no meaning in the manifest; known are {known}", convert::shown(&text));
        Err(self.reason(&problem))
    }

    /// What is there, or the default.
    fn value<'v>(&'v self, scope: Scope<'v>) -> Result<Option<Cow<'v, Value>>, String> {
        let found = match &self.source {
            Source::Paths(paths) => path::first_present(paths, scope.item).map(Cow::Borrowed),
            Source::Fixed(value) => Some(Cow::Borrowed(value)),
            Source::Cel(expression) => {
                let bindings = [("record", scope.record), ("item", scope.item), ("config", scope.config)];
                let value = expression.evaluate(&bindings).map_err(|problem| self.reason(&problem))?;
                (!value.is_null()).then_some(Cow::Owned(value))
            }
            Source::Sum(_) | Source::Each { .. } | Source::Object(_) => None,
        };
        Ok(found.or(self.default.as_ref().map(Cow::Borrowed)))
    }
}

/// The object of these fields; those without a value are left out.
fn object(fields: &[Field], scope: Scope<'_>) -> Result<Value, String> {
    let mut members = Map::new();
    for field in fields {
        if let Some(value) = field.json(scope)? {
            let name = field.name.rsplit_once('.').map_or(field.name.as_str(), |(_, last)| last);
            members.insert(name.to_owned(), value);
        }
    }
    Ok(Value::Object(members))
}
