//! Takes a system's secrets out of whatever is logged, shown or kept: by value, in every form in which
//! a secret travels or a vendor repeats it. Names of headers and parameters cannot be relied on.

use std::fmt::Write as _;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// What stands in a secret's place.
const MASK: &str = "***";
/// Shorter secrets are left: their value is everywhere, and taking it out would shred every text.
const SECRET_BYTES_MIN: usize = 4;

/// Records are business data: only secrets that nothing else can be equal to are taken out of them.
const RECORD_SECRET_BYTES_MIN: usize = 12;

/// Knows the forms of some secrets; prints none of them.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    /// Longest first, so that no part of a longer form is left over. Shared by all clones, because some secrets
    /// come while a system is called: what was taken out here must not be left in there.
    forms: Arc<RwLock<Vec<SecretString>>>,
}

impl Redactor {
    /// Knows these secrets, in every form.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Self {
        let redactor = Self::default();
        secrets.into_iter().for_each(|secret| redactor.learn(secret));
        redactor
    }

    /// Knows one more secret.
    pub(crate) fn learn(&self, secret: &str) {
        let is_known = |forms: &[SecretString]| forms.iter().any(|form| form.expose_secret() == secret);
        if secret.len() < SECRET_BYTES_MIN || is_known(&self.forms()) {
            return;
        }
        let mut forms = self.forms.write().unwrap_or_else(PoisonError::into_inner);
        let long = forms_of(secret).into_iter().filter(|form| form.len() >= SECRET_BYTES_MIN);
        forms.extend(long.map(SecretString::from));
        forms.sort_by(|one, other| {
            let (one, other) = (one.expose_secret(), other.expose_secret());
            other.len().cmp(&one.len()).then_with(|| one.cmp(other))
        });
        forms.dedup_by(|one, other| one.expose_secret() == other.expose_secret());
    }

    /// Knows one more secret, if it is long enough to be taken out of records.
    pub(crate) fn learn_for_records(&self, secret: &str) {
        if secret.len() >= RECORD_SECRET_BYTES_MIN {
            self.learn(secret);
        }
    }

    fn forms(&self) -> RwLockReadGuard<'_, Vec<SecretString>> {
        self.forms.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for records, with the secrets that are long enough.
    pub(crate) fn for_records<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Self {
        Self::new(secrets.into_iter().filter(|secret| secret.len() >= RECORD_SECRET_BYTES_MIN))
    }

    /// Whether a form of a secret stands in these bytes.
    pub(crate) fn stand_in(&self, bytes: &[u8]) -> bool {
        // What is no UTF-8 is no JSON either, and is not kept as a record.
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        self.forms().iter().any(|form| text.contains(form.expose_secret()))
    }

    /// The text without secrets.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        self.forms().iter().fold(text.to_owned(), |text, form| {
            let form = form.expose_secret();
            if text.contains(form) { text.replace(form, MASK) } else { text }
        })
    }

    /// The value without secrets, in texts and in names.
    #[must_use]
    pub fn json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(elements) => {
                Value::Array(elements.iter().map(|element| self.json(element)).collect())
            }
            Value::Object(members) => Value::Object(
                members.iter().map(|(name, value)| (self.text(name), self.json(value))).collect(),
            ),
            Value::Number(number) => {
                let text = number.to_string();
                let shown = self.text(&text);
                if shown == text { value.clone() } else { Value::String(shown) }
            }
            other => other.clone(),
        }
    }

    /// The beginning of a long text without secrets, none of them cut in half.
    pub(crate) fn beginning(&self, bytes: &[u8], bytes_max: usize) -> String {
        let longest = self.forms().first().map_or(0, |form| form.expose_secret().len());
        let taken = bytes.len().min(bytes_max.saturating_add(longest));
        let shown = self.text(&String::from_utf8_lossy(&bytes[..taken]));
        if taken == bytes.len() && shown.len() <= bytes_max {
            return shown;
        }
        // What begins in the last `longest` bytes may go on beyond them: leave those out.
        let kept = shown.len().saturating_sub(if taken < bytes.len() { longest } else { 0 }).min(bytes_max);
        let mut end = kept;
        while !shown.is_char_boundary(end) {
            end -= 1;
        }
        format!("{}… ({} bytes)", &shown[..end], bytes.len())
    }
}

/// Every form in which a secret may be met.
fn forms_of(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let lower = hex::encode(bytes);
    let escaped = Value::from(secret).to_string();
    let percent = |upper: bool, plain: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, &byte| {
            if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
                text.push(char::from(byte));
            } else if upper {
                let _ = write!(text, "%{byte:02X}");
            } else {
                let _ = write!(text, "%{byte:02x}");
            }
            text
        })
    };
    vec![
        secret.to_owned(),
        escaped.trim_matches('"').to_owned(),
        STANDARD.encode(bytes),
        STANDARD_NO_PAD.encode(bytes),
        URL_SAFE.encode(bytes),
        URL_SAFE_NO_PAD.encode(bytes),
        lower.to_uppercase(),
        lower,
        percent(true, b"-._~"),
        percent(false, b"-._~"),
        // As forms and most libraries leave them.
        url::form_urlencoded::byte_serialize(bytes).collect(),
        percent(true, b"-._~!$&'()*+,;=:@/"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "sk+live/Ab\"c== 9é";

    #[test]
    fn a_secret_is_taken_out_in_every_form() {
        let redactor = Redactor::new([SECRET]);
        for form in forms_of(SECRET) {
            let shown = redactor.text(&format!("before {form} after"));
            assert_eq!(shown, "before *** after", "{form}");
        }
        let url = reqwest::Url::parse_with_params("https://a.example/", [("key", SECRET)]).unwrap();
        assert_eq!(redactor.text(url.as_str()), "https://a.example/?key=***");
        let body = json!({"key": SECRET, "list": [SECRET, 1], SECRET: null});
        assert_eq!(redactor.text(&body.to_string()).matches("***").count(), 3);
        assert_eq!(redactor.json(&body), json!({"key": "***", "list": ["***", 1], "***": null}));
    }

    #[test]
    fn short_secrets_are_left_in_records() {
        assert!(!Redactor::for_records(["cash"]).stand_in(b"{\"pay\":\"cash\"}"));
        assert!(Redactor::for_records([SECRET]).stand_in(serde_json::json!([SECRET]).to_string().as_bytes()));
    }

    #[test]
    fn a_numeric_secret_is_taken_out_of_numbers() {
        assert_eq!(
            Redactor::new(["123456"]).json(&json!({"pin": 123_456, "n": 7})),
            json!({"pin": "***", "n": 7})
        );
    }

    #[test]
    fn what_is_too_short_to_be_a_secret_stays() {
        assert_eq!(Redactor::new(["", "abc"]).text("abc"), "abc");
    }

    #[test]
    fn a_secret_across_the_cut_leaves_no_half() {
        let secret = "0123456789abcdef";
        let redactor = Redactor::new([secret]);
        for before in 0..80 {
            let text = format!("{}{secret}{}", "x".repeat(before), "y".repeat(200));
            for bytes_max in [1, 10, 40, 64] {
                let shown = redactor.beginning(text.as_bytes(), bytes_max);
                for length in 4..secret.len() {
                    assert!(!shown.contains(&secret[..length]), "{before} {bytes_max}: {shown}");
                }
            }
        }
        assert_eq!(redactor.beginning(b"short", 100), "short");
        assert_eq!(redactor.beginning("é".repeat(10).as_bytes(), 3), "é… (20 bytes)");
    }

    #[test]
    fn a_redactor_prints_nothing() {
        assert!(!format!("{:?}", Redactor::new([SECRET])).contains("sk"));
    }
}
