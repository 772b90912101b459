//! What a change changed, as the audit keeps it: each field with what it was and what it is, and of secrets only
//! that they changed.

use serde_json::{Map, Value, json};

/// The fields that changed.
#[derive(Debug, Clone, Default)]
pub struct Changes(Map<String, Value>);

impl Changes {
    /// What differs between two answers about a thing, among these fields.
    pub fn between(before: &Value, after: &Value, fields: &[&str]) -> Self {
        let mut changes = Map::new();
        for &field in fields {
            let (from, to) = (&before[field], &after[field]);
            if from != to {
                changes.insert(field.to_owned(), json!({"from": from, "to": to}));
            }
        }
        Self(changes)
    }

    /// What a new thing is made with.
    pub fn made(after: &Value, fields: &[&str]) -> Self {
        Self::between(&Value::Null, after, fields)
    }

    /// One field that changed.
    pub fn of(field: &str, from: &str, to: &str) -> Self {
        Self(Map::from_iter([(field.to_owned(), json!({"from": from, "to": to}))]))
    }

    /// And a secret, of which nothing is told but that it changed.
    #[must_use]
    pub fn secret(mut self, name: &str) -> Self {
        self.0.insert(name.to_owned(), json!("changed"));
        self
    }

    /// As the audit keeps it, beside what else there is to tell.
    pub fn beside(self, mut detail: Value) -> String {
        detail["changes"] = Value::Object(self.0);
        detail.to_string()
    }

    /// As the audit keeps it; nothing where nothing changed.
    pub fn into_detail(self) -> Option<String> {
        (!self.0.is_empty()).then(|| json!({ "changes": self.0 }).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told_and_of_secrets_nothing() {
        let (before, after) = (json!({"a": 1, "b": null, "c": 5}), json!({"a": 2, "b": null, "c": 6}));
        let changes = Changes::between(&before, &after, &["a", "b"]).secret("api_key");
        let told = r#"{"changes":{"a":{"from":1,"to":2},"api_key":"changed"}}"#;
        assert_eq!(changes.into_detail().as_deref(), Some(told));
        assert_eq!(Changes::between(&before, &before, &["a", "c"]).into_detail(), None);
    }
}
