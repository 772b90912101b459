//! The values that requests and answers are made of, each with its rule and its words in the document.
//!
//! Stricter than the framework's own: a number is no text, and no message repeats what was sent,
//! because it may be a secret that stands in the wrong field.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Datelike as _, NaiveDate, NaiveDateTime, SecondsFormat, TimeZone, Utc};
use chrono_tz::Tz;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseFromParameter, ParseResult, ToJSON, Type};
use secrecy::SecretString;
use serde_json::{Map, Number, Value};
use zhilian_sync_jobs::health::Level;
use zhilian_sync_store::events::EventKind;
use zhilian_sync_store::money::{self, MoneyError};
use zhilian_sync_store::webhook_events::{AcceptedBy, EventResult, WebhookState};
use zhilian_sync_store::{
    Currency, Lane, MemberConflict, MemberOrigin, Role, SupplierOrderStatus, SupplierOrderType, SyncStatus,
    SystemStatus, SystemType, TransactionType, Trigger,
};

/// The longest secret that is accepted; a PEM key of 4096 bits has some 3300 characters.
const SECRET_CHARS_MAX: usize = 16_384;

/// A text that is not blank and holds no U+0000, for the document.
const NOT_BLANK: &str = r"^[^\x00]*[^\s\x00][^\x00]*$";
/// The years of a time that is accepted, for the document: both databases hold these, and so does every client.
const YEARS: &str = r"^(19[7-9][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])-";
/// A time without a zone, for the document: its instant is among those years wherever the system is. Days that
/// few months have are left to the reader.
const WALL_TIME: &str = r"^(197[1-9]|19[89][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$";

/// What poem-openapi wants to know of a type that is written inline.
macro_rules! inline_type {
    ([$($generics:tt)*] $name:ty, $text:expr, $schema:expr) => {
        impl<$($generics)*> Type for $name {
            const IS_REQUIRED: bool = true;
            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> Cow<'static, str> {
                $text.into()
            }

            fn schema_ref() -> MetaSchemaRef {
                MetaSchemaRef::Inline(Box::new($schema))
            }

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(std::iter::once(self))
            }
        }
    };
}

/// A text of one to `MAX` characters that is not blank. Without U+0000, which PostgreSQL refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<const MAX: usize>(pub String);

inline_type!([const MAX: usize] Text<MAX>, "text", MetaSchema {
    min_length: Some(1),
    max_length: Some(MAX),
    pattern: Some(NOT_BLANK.to_owned()),
    ..MetaSchema::new("string")
});

impl<const MAX: usize> Text<MAX> {
    fn check(text: String) -> ParseResult<Self> {
        let chars = text.chars().count();
        if text.trim().is_empty() {
            Err(ParseError::custom("is blank; expected a text"))
        } else if chars > MAX {
            Err(ParseError::custom(format!("has {chars} characters; expected at most {MAX}")))
        } else if text.contains('\0') {
            Err(ParseError::custom("holds a U+0000 character; expected plain text"))
        } else {
            Ok(Self(text))
        }
    }
}

impl<const MAX: usize> ParseFromJSON for Text<MAX> {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value {
            Some(Value::String(text)) => Self::check(text),
            None => Err(missing()),
            Some(other) => Err(wrong_type("a text", &other)),
        }
    }
}

impl<const MAX: usize> ParseFromParameter for Text<MAX> {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Self::check(value.to_owned())
    }
}

/// A secret on its way in. There is no way out.
#[derive(Debug, Clone)]
pub struct SecretText(pub SecretString);

inline_type!([] SecretText, "secret", MetaSchema {
    write_only: true,
    min_length: Some(1),
    max_length: Some(SECRET_CHARS_MAX),
    ..MetaSchema::new_with_format("string", "password")
});

impl ParseFromJSON for SecretText {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value {
            Some(Value::String(text)) if text.is_empty() => {
                Err(ParseError::custom("is empty; expected a secret"))
            }
            Some(Value::String(text)) if text.len() > SECRET_CHARS_MAX => {
                Err(ParseError::custom(format!("is too long; expected at most {SECRET_CHARS_MAX} bytes")))
            }
            Some(Value::String(text)) => Ok(Self(SecretString::from(text))),
            None => Err(missing()),
            Some(other) => Err(wrong_type("a text", &other)),
        }
    }
}

/// Yes or no. In a body `"true"` and `1` are neither; in a query `1` and `0` are both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag(pub bool);

inline_type!([] Flag, "flag", MetaSchema::new("boolean"));

impl ParseFromParameter for Flag {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        match value {
            "true" | "1" => Ok(Self(true)),
            "false" | "0" => Ok(Self(false)),
            _ => Err(ParseError::custom("is neither `true` nor `false`")),
        }
    }
}

impl ParseFromJSON for Flag {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value {
            Some(Value::Bool(flag)) => Ok(Self(flag)),
            None => Err(missing()),
            Some(other) => Err(wrong_type("`true` or `false`", &other)),
        }
    }
}

/// A whole number between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole<const MIN: i64, const MAX: i64>(pub i64);

inline_type!([const MIN: i64, const MAX: i64] Whole<MIN, MAX>, "whole", MetaSchema {
    minimum: Some(MIN as f64),
    maximum: Some(MAX as f64),
    ..MetaSchema::new_with_format("integer", "int64")
});

impl<const MIN: i64, const MAX: i64> Whole<MIN, MAX> {
    fn check(number: Option<i64>) -> ParseResult<Self> {
        match number {
            Some(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ => Err(ParseError::custom(format!("is not a whole number between {MIN} and {MAX}"))),
        }
    }
}

impl<const MIN: i64, const MAX: i64> ParseFromJSON for Whole<MIN, MAX> {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value {
            Some(Value::Number(number)) => Self::check(number.as_i64()),
            None => Err(missing()),
            Some(other) => Err(wrong_type("a whole number", &other)),
        }
    }
}

impl<const MIN: i64, const MAX: i64> ParseFromParameter for Whole<MIN, MAX> {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Self::check(value.parse().ok())
    }
}

/// An instant. Answers show it in UTC with milliseconds; requests must name a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub DateTime<Utc>);

inline_type!([] Time, "time", instant());

fn instant() -> MetaSchema {
    MetaSchema { pattern: Some(YEARS.to_owned()), ..MetaSchema::new_with_format("string", "date-time") }
}

impl From<DateTime<Utc>> for Time {
    fn from(at: DateTime<Utc>) -> Self {
        Self(at)
    }
}

impl ToJSON for Time {
    fn to_json(&self) -> Option<Value> {
        Some(Value::String(self.0.to_rfc3339_opts(SecondsFormat::Millis, true)))
    }
}

impl ParseFromJSON for Time {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match LocalTime::parse_from_json(value).map_err(ParseError::propagate)? {
            LocalTime::Instant(at) => Ok(Self(at)),
            LocalTime::Wall(_) => Err(ParseError::custom("names no zone; expected `2024-02-15T10:00:00Z`")),
        }
    }
}

impl ParseFromParameter for Time {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Self::parse_from_json(Some(Value::String(value.to_owned())))
    }
}

/// A time in a request: an instant, or a wall time to be read in the system's zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalTime {
    /// With a zone or an offset.
    Instant(DateTime<Utc>),
    /// Without.
    Wall(NaiveDateTime),
}

inline_type!([] LocalTime, "local_time", MetaSchema {
    example: Some(Value::String("2024-02-15T10:00:00".to_owned())),
    any_of: [instant(), MetaSchema { pattern: Some(WALL_TIME.to_owned()), ..MetaSchema::new("string") }]
        .map(|schema| MetaSchemaRef::Inline(Box::new(schema)))
        .to_vec(),
    ..MetaSchema::new("string")
});

impl LocalTime {
    /// The instant. A wall time that a change of clocks repeats is its first occurrence; one that is
    /// skipped is the moment of the change.
    pub fn in_zone(self, zone: Tz) -> DateTime<Utc> {
        let wall = match self {
            Self::Instant(at) => return at,
            Self::Wall(wall) => wall,
        };
        let exact = zone.from_local_datetime(&wall).earliest();
        let at = exact.or_else(|| {
            // Gaps are whole quarters of an hour and at most a day long.
            (1..=96).find_map(|quarters| {
                let later = wall + chrono::TimeDelta::minutes(15 * quarters);
                zone.from_local_datetime(&later).earliest()
            })
        });
        at.map_or_else(|| wall.and_utc(), |at| at.to_utc())
    }

    fn parse(text: &str) -> Option<Self> {
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Some(Self::Instant(at.to_utc()));
        }
        let wall = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M"]
            .iter()
            .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
        let day = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
        wall.or_else(day).map(Self::Wall)
    }
}

impl ParseFromJSON for LocalTime {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value {
            Some(Value::String(text)) => Self::parse(&text)
                .filter(|time| {
                    // Both databases hold these, and so does every client: a wall time in every zone.
                    match time {
                        Self::Instant(at) => (1970..=9998).contains(&at.year()),
                        Self::Wall(wall) => (1971..=9997).contains(&wall.year()),
                    }
                })
                .ok_or_else(|| {
                    ParseError::custom("is not a time; expected `2024-02-15T10:00:00` or with a zone")
                }),
            None => Err(missing()),
            Some(other) => Err(wrong_type("a time as text", &other)),
        }
    }
}

/// An amount: a JSON number with exactly its digits, never a float. Requests may give a decimal text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Money(pub Number);

inline_type!([] Money, "money", MetaSchema {
    example: Some(Value::Number(money::json_number(29_680, 2))),
    ..MetaSchema::new("number")
});

impl Money {
    /// Minor units as an amount of their currency.
    pub fn of(minor: i64, currency: Currency) -> Self {
        Self(money::json_number(minor, currency.digits()))
    }

    /// The amount in minor units.
    pub fn minor(&self, currency: Currency) -> Result<i64, MoneyError> {
        money::parse_minor(self.0.as_str(), currency.digits())
    }
}

impl ToJSON for Money {
    fn to_json(&self) -> Option<Value> {
        Some(Value::Number(self.0.clone()))
    }
}

impl ParseFromJSON for Money {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value {
            Some(Value::Number(number)) => Ok(Self(number)),
            Some(Value::String(text)) => text
                .parse()
                .map(Self)
                .map_err(|_| ParseError::custom("is not an amount; expected a number such as 296.80")),
            None => Err(missing()),
            Some(other) => Err(wrong_type("an amount", &other)),
        }
    }
}

/// A JSON object of any content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields(pub Map<String, Value>);

inline_type!([] Fields, "object", MetaSchema {
    additional_properties: Some(Box::new(MetaSchemaRef::Inline(Box::new(MetaSchema::ANY)))),
    ..MetaSchema::new("object")
});

impl ToJSON for Fields {
    fn to_json(&self) -> Option<Value> {
        Some(Value::Object(self.0.clone()))
    }
}

impl ParseFromJSON for Fields {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value {
            Some(Value::Object(fields)) => Ok(Self(fields)),
            None => Err(missing()),
            Some(other) => Err(wrong_type("an object", &other)),
        }
    }
}

/// Any JSON in an answer, as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(pub Value);

inline_type!([] Json, "json", MetaSchema::ANY);

impl Json {
    /// Reads a column of JSON text; what is not JSON is shown as the text it is.
    pub fn from_column(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())))
    }
}

impl ToJSON for Json {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.clone())
    }
}

impl ParseFromJSON for Json {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        Ok(Self(value.unwrap_or_default()))
    }
}

/// An enumeration that is written as text.
pub trait Named: Copy + Send + Sync + fmt::Debug + PartialEq + 'static {
    /// What the document calls it.
    const NAME: &'static str;
    /// Every value.
    fn all() -> &'static [Self];
    /// The text of a value.
    fn text(self) -> &'static str;
}

macro_rules! named {
    ($($name:ident = $text:literal),+ $(,)?) => {
        $(impl Named for $name {
            const NAME: &'static str = $text;
            fn all() -> &'static [Self] { Self::ALL }
            fn text(self) -> &'static str { self.as_str() }
        })+
    };
}

named! {
    SystemType = "system_type",
    SystemStatus = "system_status",
    SyncStatus = "sync_status",
    Trigger = "trigger",
    Lane = "lane",
    MemberConflict = "member_conflict",
    MemberOrigin = "member_origin",
    Role = "role",
    TransactionType = "transaction_type",
    SupplierOrderType = "supplier_order_type",
    SupplierOrderStatus = "supplier_order_status",
    WebhookState = "webhook_state",
    AcceptedBy = "accepted_by",
    EventResult = "webhook_result",
    EventKind = "event_kind",
    Level = "health_level",
}

/// One of the values of an enumeration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice<T>(pub T);

inline_type!([T: Named] Choice<T>, T::NAME, MetaSchema {
    enum_items: T::all().iter().map(|value| Value::String(value.text().to_owned())).collect(),
    ..MetaSchema::new("string")
});

impl<T: Named> Choice<T> {
    fn parse(text: &str) -> ParseResult<Self> {
        T::all().iter().find(|value| value.text() == text).map(|value| Self(*value)).ok_or_else(|| {
            let all = T::all().iter().map(|value| format!("`{}`", value.text())).collect::<Vec<_>>();
            ParseError::custom(format!("is not one of {}", all.join(", ")))
        })
    }
}

impl<T: Named> ToJSON for Choice<T> {
    fn to_json(&self) -> Option<Value> {
        Some(Value::String(self.0.text().to_owned()))
    }
}

impl<T: Named> ParseFromJSON for Choice<T> {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value {
            Some(Value::String(text)) => Self::parse(&text),
            None => Err(missing()),
            Some(other) => Err(wrong_type("a text", &other)),
        }
    }
}

impl<T: Named> ParseFromParameter for Choice<T> {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Self::parse(value)
    }
}

fn missing<T: Type>() -> ParseError<T> {
    ParseError::custom("is missing")
}

fn wrong_type<T: Type>(expected: &str, found: &Value) -> ParseError<T> {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    ParseError::custom(format!("is {found}; expected {expected}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal<T: ParseFromJSON + fmt::Debug>(value: Value) -> String {
        T::parse_from_json(Some(value)).unwrap_err().into_message()
    }

    #[test]
    fn a_number_is_no_text_and_what_was_sent_is_not_repeated() {
        insta::assert_snapshot!(refusal::<Text<5>>(json!(5)), @r#"failed to parse "text": is a number; expected a text"#);
        insta::assert_snapshot!(refusal::<Text<5>>(json!("  ")), @r#"failed to parse "text": is blank; expected a text"#);
        insta::assert_snapshot!(refusal::<Text<5>>(json!("123456")), @r#"failed to parse "text": has 6 characters; expected at most 5"#);
        insta::assert_snapshot!(refusal::<SecretText>(json!(["hunter2"])), @r#"failed to parse "secret": is a list; expected a text"#);
        insta::assert_snapshot!(refusal::<Choice<TransactionType>>(json!("gift")), @r#"failed to parse "transaction_type": is not one of `sale`, `refund`, `void`"#);
        assert!(Text::<5>::parse_from_json(Some(json!("五个汉字吧"))).is_ok());
    }

    #[test]
    fn money_keeps_its_digits() {
        let amount = Money::of(29_680, Currency::CNY);
        assert_eq!(serde_json::to_string(&amount.to_json()).unwrap(), "296.80");
        let sent: Value = serde_json::from_str("{\"total\": 0.10}").unwrap();
        let parsed = Money::parse_from_json(Some(sent["total"].clone())).unwrap();
        assert_eq!(parsed.minor(Currency::CNY), Ok(10));
        assert_eq!(Money::parse_from_json(Some(json!("12.5"))).unwrap().minor(Currency::CNY), Ok(1250));
        assert!(Money::parse_from_json(Some(json!("NaN"))).is_err());
        assert!(Money::parse_from_json(Some(json!(0.125))).unwrap().minor(Currency::CNY).is_err());
    }

    #[test]
    fn a_wall_time_is_read_in_the_zone_of_the_system() {
        let zone: Tz = "Asia/Shanghai".parse().unwrap();
        let at = |text: &str| LocalTime::parse(text).map(|time| time.in_zone(zone).to_rfc3339());
        assert_eq!(at("2024-02-15T10:00:00").as_deref(), Some("2024-02-15T02:00:00+00:00"));
        assert_eq!(at("2024-02-15 10:00:00").as_deref(), Some("2024-02-15T02:00:00+00:00"));
        assert_eq!(at("2024-02-15T10:00:00Z").as_deref(), Some("2024-02-15T10:00:00+00:00"));
        assert_eq!(at("2024-02-15").as_deref(), Some("2024-02-14T16:00:00+00:00"));
        assert_eq!(at("yesterday"), None);
        // Further east than UTC the first day of 1970 begins in 1969.
        let taken = |text: &str| LocalTime::parse_from_json(Some(json!(text))).is_ok();
        assert_eq!(
            ["1970-01-01T00:00:00Z", "1970-12-31T23:59:59", "1971-01-01", "9997-12-31", "9998-01-01"]
                .map(taken),
            [true, false, true, true, false]
        );
    }

    #[test]
    fn wall_times_at_a_change_of_clocks_have_one_meaning() {
        let zone: Tz = "Europe/Berlin".parse().unwrap();
        let at = |text: &str| LocalTime::parse(text).unwrap().in_zone(zone).to_rfc3339();
        assert_eq!(at("2024-03-31T02:30:00"), "2024-03-31T01:00:00+00:00", "skipped: the change itself");
        assert_eq!(at("2024-10-27T02:30:00"), "2024-10-27T00:30:00+00:00", "repeated: the first time");
    }
}
