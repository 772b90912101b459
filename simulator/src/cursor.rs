//! Page cursors: texts that only the vendor can read, good for the list that they were given for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::parameters::Mistake;

/// Where a list goes on: after the record with this key. Records that move meanwhile shift no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// What the list was asked with; another list refuses the cursor.
    pub query: String,
    /// The sort key of the last record that was listed.
    pub after: (i64, String),
    /// When it was given.
    pub given: DateTime<Utc>,
}

impl Cursor {
    /// The text that is sent.
    pub fn write(&self) -> String {
        let cursor = json!([self.query, self.after.0, self.after.1, self.given.timestamp_millis()]);
        URL_SAFE_NO_PAD.encode(cursor.to_string())
    }

    /// Reads a text that was sent for this list; refused once it is older than the vendor keeps it.
    pub fn read(
        text: &str,
        query: &str,
        now: DateTime<Utc>,
        kept: Option<TimeDelta>,
    ) -> Result<Self, Mistake> {
        let cursor = Self::read_any(text)?;
        if cursor.query != query {
            return Err(Mistake::new("cursor", "was given for another list"));
        }
        if kept.is_some_and(|kept| now - cursor.given > kept) {
            return Err(Mistake::new("cursor", "is too old"));
        }
        Ok(cursor)
    }

    /// Reads a text that says itself which list it was given for.
    pub fn read_any(text: &str) -> Result<Self, Mistake> {
        Self::of_text(text).ok_or_else(|| Mistake::new("cursor", "is not one of ours"))
    }

    fn of_text(text: &str) -> Option<Self> {
        let cursor: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        Some(Self {
            query: cursor[0].as_str()?.to_owned(),
            after: (cursor[1].as_i64()?, cursor[2].as_str()?.to_owned()),
            given: DateTime::from_timestamp_millis(cursor[3].as_i64()?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_own_list_and_for_its_time() {
        let now = DateTime::from_timestamp(1_767_240_000, 0).unwrap();
        let cursor = Cursor { query: "a=1".into(), after: (7, "R-1".into()), given: now };
        let text = cursor.write();
        assert_eq!(Cursor::read(&text, "a=1", now, None).unwrap(), cursor);
        assert!(Cursor::read(&text, "a=2", now, None).is_err());
        assert!(Cursor::read("cD0y", "a=1", now, None).is_err());
        let later = now + TimeDelta::minutes(6);
        assert!(Cursor::read(&text, "a=1", later, Some(TimeDelta::minutes(5))).is_err());
    }
}
