//! Reads the `mapping` of a stream: which canonical fields there are, and for each its source and its
//! form. Everything that can be wrong with it is found here, before a single record is seen.

use chrono_tz::Tz;
use serde_json::Value;

use super::convert::TimeForm;
use super::field::{Field, Form, Source, Unit, ValueTable};
use super::member::MemberFields;
use super::order::OrderFields;
use super::{Fields, Mapping, RecordFields, TransactionFields};
use crate::vendor::manifest::Target;
use crate::vendor::manifest::section::Section;
use crate::vendor::manifest::stream::read::{check_pattern, read_zone};
use crate::vendor::path::Path;

/// What an expression of a mapping may use.
const NAMES: [&str; 3] = ["record", "item", "config"];

/// What fields of one stream share.
struct Defaults {
    unit: Option<Unit>,
    time: TimeForm,
    zone: Option<Tz>,
}

/// What a canonical field must become.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Text,
    Money,
    Time,
    Flag,
    Number,
    Json,
}

/// Reads the mapping of a stream.
pub(in crate::vendor) fn read_mapping(section: &Section<'_>, target: Target) -> Option<Mapping> {
    let pattern = section.parsed("time_pattern", check_pattern);
    let defaults = Defaults {
        unit: section.choice("money_unit", &UNITS),
        time: pattern
            .map(TimeForm::Pattern)
            .or_else(|| read_time_form(section, "time_form"))
            .unwrap_or(TimeForm::Any),
        zone: section.parsed("time_zone", read_zone),
    };
    let json_text = section.paths("json_text").unwrap_or_default();
    let when = section.expression("when", &["record", "config"]);
    let fields = section.required("fields", section.section("fields"), "name at least `external_id`")?;
    let read = match target {
        Target::PosTransactions => {
            read_transaction(&fields, &defaults).map(|all| Fields::Transaction(Box::new(all)))
        }
        Target::SupplierOrders => read_order(&fields, &defaults).map(|all| Fields::Order(Box::new(all))),
        Target::MemberSyncs => read_member(&fields, &defaults).map(|all| Fields::Member(Box::new(all))),
        Target::ExternalRecords => read_record(&fields, &defaults).map(|all| Fields::Record(Box::new(all))),
    };
    fields.finish();
    Some(Mapping { json_text, when, fields: read? })
}

/// Reads fields that stand in a route of a webhook, among its other keys.
pub(in crate::vendor) struct RouteFields<'a> {
    section: &'a Section<'a>,
    defaults: Defaults,
}

impl<'a> RouteFields<'a> {
    pub(in crate::vendor) fn new(section: &'a Section<'a>) -> Self {
        let time = read_time_form(section, "time_form").unwrap_or(TimeForm::Any);
        let zone = section.parsed("time_zone", read_zone);
        Self { section, defaults: Defaults { unit: None, time, zone } }
    }

    pub(in crate::vendor) fn text(&self, key: &'static str) -> Option<Field> {
        read_field(self.section, key, Expected::Text, &self.defaults)
    }

    pub(in crate::vendor) fn time(&self, key: &'static str) -> Option<Field> {
        read_field(self.section, key, Expected::Time, &self.defaults)
    }
}

fn read_transaction(fields: &Section<'_>, defaults: &Defaults) -> Option<TransactionFields> {
    let field = |key, expected| read_field(fields, key, expected, defaults);
    let needed = |key, expected, fix| fields.required(key, field(key, expected), fix);
    let external_id = needed("external_id", Expected::Text, "name the vendor's unique id");
    let total = needed("total", Expected::Money, "name what was paid");
    let occurred_at = needed("occurred_at", Expected::Time, "name when it took place");
    let rest = TransactionFields {
        order_number: field("order_number", Expected::Text),
        transaction_type: field("transaction_type", Expected::Text),
        currency: field("currency", Expected::Text),
        subtotal: field("subtotal", Expected::Money),
        tax: field("tax", Expected::Money),
        discount: field("discount", Expected::Money),
        payment_method: field("payment_method", Expected::Text),
        items: field("items", Expected::Json),
        customer: field("customer", Expected::Json),
        customer_phone: field("customer_phone", Expected::Text),
        shop: field("shop", Expected::Text),
        version_at: field("version_at", Expected::Time),
        deleted: field("deleted", Expected::Flag),
        external_id: external_id?,
        total: total?,
        occurred_at: occurred_at?,
    };
    Some(rest)
}

fn read_record(fields: &Section<'_>, defaults: &Defaults) -> Option<RecordFields> {
    let field = |key, expected| read_field(fields, key, expected, defaults);
    let external_id =
        fields.required("external_id", field("external_id", Expected::Text), "name the vendor's unique id");
    let rest = RecordFields {
        status: field("status", Expected::Text),
        currency: field("currency", Expected::Text),
        amount: field("amount", Expected::Money),
        shop: field("shop", Expected::Text),
        occurred_at: field("occurred_at", Expected::Time),
        version_at: field("version_at", Expected::Time),
        deleted: field("deleted", Expected::Flag),
        data: field("data", Expected::Json),
        external_id: external_id?,
    };
    Some(rest)
}

fn read_order(fields: &Section<'_>, defaults: &Defaults) -> Option<OrderFields> {
    let field = |key, expected| read_field(fields, key, expected, defaults);
    let needed = |key, expected, fix| fields.required(key, field(key, expected), fix);
    let order_number = needed("order_number", Expected::Text, "name the number of the order");
    let total = needed("total", Expected::Money, "name what is to be paid");
    let rest = OrderFields {
        external_id: field("external_id", Expected::Text),
        supplier_id: field("supplier_id", Expected::Text),
        supplier_name: field("supplier_name", Expected::Text),
        order_type: field("order_type", Expected::Text),
        status: field("status", Expected::Text),
        currency: field("currency", Expected::Text),
        subtotal: field("subtotal", Expected::Money),
        tax: field("tax", Expected::Money),
        shipping: field("shipping", Expected::Money),
        items: field("items", Expected::Json),
        delivery: field("delivery", Expected::Json),
        tracking_number: field("tracking_number", Expected::Text),
        shop: field("shop", Expected::Text),
        order_date: field("order_date", Expected::Time),
        expected_delivery: field("expected_delivery", Expected::Time),
        actual_delivery: field("actual_delivery", Expected::Time),
        version_at: field("version_at", Expected::Time),
        deleted: field("deleted", Expected::Flag),
        order_number: order_number?,
        total: total?,
    };
    Some(rest)
}

fn read_member(fields: &Section<'_>, defaults: &Defaults) -> Option<MemberFields> {
    let field = |key, expected| read_field(fields, key, expected, defaults);
    let member_id =
        fields.required("member_id", field("member_id", Expected::Text), "name the number of the member");
    let rest = MemberFields {
        external_id: field("external_id", Expected::Text),
        phone: field("phone", Expected::Text),
        name: field("name", Expected::Text),
        email: field("email", Expected::Text),
        level: field("level", Expected::Text),
        points: field("points", Expected::Number),
        balance: field("balance", Expected::Money),
        currency: field("currency", Expected::Text),
        last_activity: field("last_activity", Expected::Time),
        shop: field("shop", Expected::Text),
        version_at: field("version_at", Expected::Time),
        deleted: field("deleted", Expected::Flag),
        member_id: member_id?,
    };
    Some(rest)
}

fn read_field(
    fields: &Section<'_>,
    key: &'static str,
    expected: Expected,
    defaults: &Defaults,
) -> Option<Field> {
    let value = fields.field(key)?;
    parse_field(fields, key, key, value, expected, defaults)
}

/// Reads one field: a path, alternatives, or a table. `key` is where it stands below `fields`.
fn parse_field(
    fields: &Section<'_>,
    key: &str,
    name: &str,
    value: &toml::Value,
    expected: Expected,
    defaults: &Defaults,
) -> Option<Field> {
    let source = match value {
        toml::Value::String(text) => parse_paths(fields, key, &[text]),
        toml::Value::Array(elements) => {
            let texts: Option<Vec<&str>> = elements.iter().map(toml::Value::as_str).collect();
            match texts {
                Some(texts) if !texts.is_empty() => parse_paths(fields, key, &texts),
                _ => {
                    fields.problem(key, "expected a path or a list of paths");
                    None
                }
            }
        }
        toml::Value::Table(table) => {
            let section = Section::new(table, fields.name(key), fields.problems());
            section.is_field();
            return parse_table(section, name, expected, defaults);
        }
        other => {
            let problem =
                format!("expected a path in quotes, a list of paths or a table, found {}", other.type_str());
            fields.problem(key, problem);
            None
        }
    };
    let form = form_of(expected, None, defaults);
    let form = form.map_err(|problem| fields.problem(key, problem)).ok();
    Some(Field { name: name.to_owned(), source: source?, form: form?, values: None, default: None })
}

fn parse_paths(fields: &Section<'_>, key: &str, texts: &[&str]) -> Option<Source> {
    let paths: Result<Vec<_>, _> = texts.iter().map(|text| Path::parse(text)).collect();
    paths.map(Source::Paths).map_err(|problem| fields.problem(key, problem)).ok()
}

fn parse_table(section: Section<'_>, name: &str, expected: Expected, defaults: &Defaults) -> Option<Field> {
    let source = parse_source(&section, name, expected, defaults);
    let form = parse_form(&section, expected, defaults);
    let values = section.has("values").then(|| ValueTable {
        words: section.named_texts("values").into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        otherwise: section.text("otherwise").map(str::to_owned),
        keep_unknown: section.flag("keep_unknown").unwrap_or(false),
    });
    if values.is_none() && (section.has("otherwise") || section.has("keep_unknown")) {
        section.problem("values", "is missing; `otherwise` and `keep_unknown` speak of it");
    }
    let default = section.value("default").map(to_json);
    section.finish();
    Some(Field { name: name.to_owned(), source: source?, form: form?, values, default })
}

fn parse_source(
    section: &Section<'_>,
    name: &str,
    expected: Expected,
    defaults: &Defaults,
) -> Option<Source> {
    let given: Vec<&str> = ["path", "sum", "cel", "value", "each", "fields"]
        .into_iter()
        .filter(|key| section.has(key))
        .collect();
    match given.as_slice() {
        ["path"] => section.paths("path").map(Source::Paths),
        ["sum"] if expected == Expected::Money || expected == Expected::Json => {
            let terms = section.texts("sum")?.into_iter().map(|term| {
                let (subtract, path) = term.strip_prefix('-').map_or((false, term), |path| (true, path));
                Ok((subtract, Path::parse(path.trim())?))
            });
            terms
                .collect::<Result<_, String>>()
                .map(Source::Sum)
                .map_err(|problem| section.problem("sum", problem))
                .ok()
        }
        ["cel"] => section.expression("cel", &NAMES).map(Source::Cel),
        ["value"] => section.value("value").map(|value| Source::Fixed(to_json(value))),
        ["each", "fields"] if expected == Expected::Json => {
            let list = section.paths("each");
            let fields = parse_fields(section, name, defaults);
            Some(Source::Each { list: list?, fields: fields? })
        }
        ["fields"] if expected == Expected::Json => parse_fields(section, name, defaults).map(Source::Object),
        _ => {
            let sources = match expected {
                Expected::Json => "`path`, `cel`, `value`, `sum`, `fields`, or `each` with `fields`",
                Expected::Money => "`path`, `sum`, `cel` or `value`",
                _ => "`path`, `cel` or `value`",
            };
            section.problem(given.first().unwrap_or(&"path"), format!("expected exactly one of {sources}"));
            let _ = given.iter().map(|key| section.has(key));
            None
        }
    }
}

fn parse_fields(section: &Section<'_>, name: &str, defaults: &Defaults) -> Option<Vec<Field>> {
    let inner = section.section("fields")?;
    let mut fields = Vec::new();
    for (key, value) in inner.fields() {
        let name = format!("{name}.{key}");
        fields.extend(parse_field(&inner, key, &name, value, Expected::Json, defaults));
    }
    Some(fields)
}

const UNITS: [(&str, Unit); 2] = [("minor", Unit::Minor), ("major", Unit::Major)];

fn read_time_form(section: &Section<'_>, key: &'static str) -> Option<TimeForm> {
    // `choice` wants `Copy`: the position stands for the form.
    let forms = [TimeForm::Rfc3339, TimeForm::Unix, TimeForm::UnixMs, TimeForm::Naive, TimeForm::Any];
    let words = [("rfc3339", 0), ("unix", 1), ("unix_ms", 2), ("naive", 3), ("any", 4)];
    section.choice(key, &words).and_then(|at: usize| forms.into_iter().nth(at))
}

fn parse_form(section: &Section<'_>, expected: Expected, defaults: &Defaults) -> Option<Form> {
    #[derive(Clone, Copy)]
    enum Type {
        Text,
        Number,
        Flag,
        Money,
        Time,
    }
    let types = [
        ("text", Type::Text),
        ("number", Type::Number),
        ("flag", Type::Flag),
        ("money", Type::Money),
        ("time", Type::Time),
    ];
    let unit = section.choice("unit", &UNITS);
    let pattern = section.parsed("pattern", check_pattern).map(TimeForm::Pattern);
    let time = pattern.or_else(|| read_time_form(section, "time"));
    let zone = section.parsed("zone", read_zone);
    let present = section.flag("present").unwrap_or(false);
    let chosen = section.choice("type", &types);
    let zone = zone.or(defaults.zone);
    // What is chosen, else what the keys speak of.
    let kind = match (expected, chosen) {
        (Expected::Text, _) => Some(Type::Text),
        (Expected::Money, _) => Some(Type::Money),
        (Expected::Time, _) => Some(Type::Time),
        (Expected::Flag, _) => Some(Type::Flag),
        (Expected::Number, _) => Some(Type::Number),
        (Expected::Json, Some(chosen)) => Some(chosen),
        (Expected::Json, None) if unit.is_some() || section.has("sum") => Some(Type::Money),
        (Expected::Json, None) if time.is_some() => Some(Type::Time),
        (Expected::Json, None) => section.has("values").then_some(Type::Text),
    };
    let form = match kind {
        None => Ok(Form::AsIs),
        Some(Type::Text) => Ok(Form::Text),
        Some(Type::Number) => Ok(Form::Number),
        Some(Type::Flag) => Ok(Form::Flag { present }),
        Some(Type::Time) => Ok(Form::Time { form: time.unwrap_or_else(|| defaults.time.clone()), zone }),
        Some(Type::Money) => form_of(Expected::Money, unit, defaults),
    };
    form.map_err(|problem| section.problem("unit", problem)).ok()
}

/// The form of a field that says nothing about it.
fn form_of(expected: Expected, unit: Option<Unit>, defaults: &Defaults) -> Result<Form, String> {
    Ok(match expected {
        Expected::Text => Form::Text,
        Expected::Flag => Form::Flag { present: false },
        Expected::Number => Form::Number,
        Expected::Json => Form::AsIs,
        Expected::Time => Form::Time { form: defaults.time.clone(), zone: defaults.zone },
        Expected::Money => Form::Money(unit.or(defaults.unit).ok_or(
            "nothing says whether the amount counts minor units; set `money_unit = \"minor\"` or `\"major\"` in the mapping",
        )?),
    })
}

pub(in crate::vendor) fn to_json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text.clone()),
        toml::Value::Integer(whole) => Value::from(*whole),
        toml::Value::Float(float) => Value::from(*float),
        toml::Value::Boolean(flag) => Value::Bool(*flag),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(elements) => Value::Array(elements.iter().map(to_json).collect()),
        toml::Value::Table(members) => {
            Value::Object(members.iter().map(|(name, value)| (name.clone(), to_json(value))).collect())
        }
    }
}
