//! Reads parameters strictly, as the documents name them.
//!
//! What is missing, unknown, given twice or of the wrong form is a [`Mistake`], which the vendor answers in
//! its own shape. A lenient fake would hide that a client asks for something that a vendor does not have.

use std::collections::BTreeMap;
use std::fmt::Display;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

/// Why a request is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{parameter}` {reason}")]
pub struct Mistake {
    /// Which parameter.
    pub parameter: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Mistake {
    /// A mistake in one parameter.
    pub fn new(parameter: &str, reason: impl Into<String>) -> Self {
        Self { parameter: parameter.to_owned(), reason: reason.into() }
    }
}

/// The parameters of a query, a form or a JSON object; each is taken out once.
#[derive(Debug)]
pub struct Parameters(Map<String, Value>);

impl Parameters {
    /// Those of a query or a form, which are all texts.
    pub fn of_pairs(pairs: Vec<(String, String)>) -> Result<Self, Mistake> {
        let mut all = Map::new();
        for (name, value) in pairs {
            if all.insert(name.clone(), Value::String(value)).is_some() {
                return Err(Mistake::new(&name, "is given twice"));
            }
        }
        Ok(Self(all))
    }

    /// The members of a JSON object.
    pub fn of_json(value: Option<Value>) -> Result<Self, Mistake> {
        match value {
            Some(Value::Object(all)) => Ok(Self(all)),
            _ => Err(Mistake::new("body", "is no JSON object")),
        }
    }

    /// Takes any value.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Takes an object; its members are taken from what is returned.
    pub fn object(&mut self, name: &str) -> Result<Option<Self>, Mistake> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::Object(all)) => Ok(Some(Self(all))),
            Some(_) => Err(Mistake::new(name, "is no object")),
        }
    }

    /// Takes a list of texts.
    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Mistake> {
        let Some(value) = self.0.remove(name) else {
            return Ok(None);
        };
        let texts = value.as_array().and_then(|all| {
            all.iter().map(|one| one.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>()
        });
        texts.map(Some).ok_or_else(|| Mistake::new(name, "is no list of texts"))
    }

    /// Takes a text; an empty one is refused, since no vendor documents what it would mean.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Mistake> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Err(Mistake::new(name, "is empty")),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Mistake::new(name, "is no text")),
        }
    }

    /// Takes a text that must be there.
    pub fn needed(&mut self, name: &str) -> Result<String, Mistake> {
        self.text(name)?.ok_or_else(|| Mistake::new(name, "is missing"))
    }

    /// Takes a text that must be this one, where it is there.
    pub fn only(&mut self, name: &str, allowed: &[&str]) -> Result<Option<String>, Mistake> {
        let text = self.text(name)?;
        match &text {
            Some(found) if !allowed.contains(&found.as_str()) => {
                Err(Mistake::new(name, format!("is `{found}`; allowed are {}", allowed.join(", "))))
            }
            _ => Ok(text),
        }
    }

    /// Takes a whole number in these bounds, as text or as a JSON number.
    pub fn number(
        &mut self,
        name: &str,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, Mistake> {
        let Some(value) = self.0.remove(name) else {
            return Ok(None);
        };
        let text = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let number: u64 =
            text.parse().map_err(|_| Mistake::new(name, format!("is `{text}`, no whole number")))?;
        if bounds.contains(&number) {
            return Ok(Some(number));
        }
        Err(Mistake::new(name, format!("is {number}; it may be {} to {}", bounds.start(), bounds.end())))
    }

    /// Takes a page size up to the documented maximum.
    pub fn size(&mut self, name: &str, default: u64, max: u64) -> Result<usize, Mistake> {
        let size = self.number(name, 1..=max)?.unwrap_or(default);
        Ok(usize::try_from(size).unwrap_or(usize::MAX))
    }

    /// Takes an RFC 3339 time.
    pub fn time(&mut self, name: &str) -> Result<Option<DateTime<Utc>>, Mistake> {
        self.parsed(name, |text| {
            DateTime::parse_from_rfc3339(text)
                .map(|time| time.with_timezone(&Utc))
                .map_err(|_| "RFC 3339 time")
        })
    }

    /// Takes a text that is read by a function, which names the form that it expects otherwise.
    pub fn parsed<T, E: Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Mistake> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        read(&text).map(Some).map_err(|form| Mistake::new(name, format!("is `{text}`, no {form}")))
    }

    /// Everything must have been taken.
    pub fn finish(self) -> Result<(), Mistake> {
        match self.0.keys().next() {
            Some(name) => Err(Mistake::new(name, "is unknown")),
            None => Ok(()),
        }
    }

    /// What was not taken, as texts: for signatures over whatever was sent.
    pub fn rest(&self) -> BTreeMap<String, String> {
        let texts = self.0.iter().map(|(name, value)| {
            (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        });
        texts.collect()
    }
}

/// Checks that a window is one: its beginning before its end.
pub fn window(
    since: Option<DateTime<Utc>>,
    before: Option<DateTime<Utc>>,
    name: &str,
) -> Result<(), Mistake> {
    match (since, before) {
        (Some(since), Some(before)) if before < since => {
            Err(Mistake::new(name, format!("is {before}, before the window begins at {since}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Parameters {
        let pairs = url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
        Parameters::of_pairs(pairs).unwrap()
    }

    #[test]
    fn what_is_unknown_missing_twice_or_out_of_bounds_is_a_mistake() {
        let mut asked = of("limit=251&since=yesterday&rest=1");
        assert_eq!(
            asked.size("limit", 50, 250).unwrap_err().to_string(),
            "`limit` is 251; it may be 1 to 250"
        );
        assert!(asked.time("since").is_err() && asked.needed("shop").is_err());
        assert_eq!(asked.finish().unwrap_err().to_string(), "`rest` is unknown");
        let twice = vec![("a".into(), "1".into()), ("a".into(), "2".into())];
        assert!(Parameters::of_pairs(twice).is_err());
    }
}
