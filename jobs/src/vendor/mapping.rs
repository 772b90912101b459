//! A vendor's records become ours: declared in the manifest, typed, native, total. A record that
//! cannot be mapped becomes a failure with a reason and keeps its raw text; it never stops the page.
//! Bad data is classified here and nowhere else: the record fails, not the run.

pub(super) mod compile;
mod convert;
mod field;
#[cfg(test)]
mod fuzz;
mod mapped;
mod member;
mod order;

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;
use sha2::{Digest, Sha256};
use zhilian_sync_store::external_records::IncomingRecord;
use zhilian_sync_store::member_syncs::IncomingMember;
use zhilian_sync_store::pos_transactions::IncomingTransaction;
use zhilian_sync_store::supplier_orders::IncomingSupplierOrder;
use zhilian_sync_store::{Currency, TransactionType};

pub(super) use self::compile::to_json;
pub(super) use self::field::{Field, Scope};
pub use self::mapped::{Mapped, RecordFailure};
use self::member::MemberFields;
use self::order::OrderFields;
use super::expression::Expression;
use super::json;
use super::path::Path;

/// The data of a record whose mapping declares none.
const NO_DATA: &str = "{}";

/// How the records of one stream become ours.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Where a record holds JSON that is written as text.
    json_text: Vec<Path>,
    /// Records for which it does not hold are skipped.
    when: Option<Expression>,
    fields: Fields,
}

#[derive(Debug)]
enum Fields {
    Transaction(Box<TransactionFields>),
    Record(Box<RecordFields>),
    Order(Box<OrderFields>),
    Member(Box<MemberFields>),
}

#[derive(Debug)]
struct TransactionFields {
    external_id: Field,
    order_number: Option<Field>,
    transaction_type: Option<Field>,
    currency: Option<Field>,
    subtotal: Option<Field>,
    tax: Option<Field>,
    discount: Option<Field>,
    total: Field,
    payment_method: Option<Field>,
    items: Option<Field>,
    customer: Option<Field>,
    customer_phone: Option<Field>,
    shop: Option<Field>,
    occurred_at: Field,
    version_at: Option<Field>,
    deleted: Option<Field>,
}

#[derive(Debug)]
struct RecordFields {
    external_id: Field,
    status: Option<Field>,
    currency: Option<Field>,
    amount: Option<Field>,
    shop: Option<Field>,
    occurred_at: Option<Field>,
    version_at: Option<Field>,
    deleted: Option<Field>,
    data: Option<Field>,
}

/// What the system adds to its records.
pub(crate) struct Surroundings<'a> {
    pub(crate) stream: &'a str,
    pub(crate) config: &'a Value,
    pub(crate) currency: Currency,
    pub(crate) zone: Tz,
    pub(crate) asked_at: DateTime<Utc>,
    pub(crate) optional: Optional,
}

/// What a record may leave out: an absent total is zero, an absent time is that of asking. A pull never
/// allows it, since a list of records without them is read at the wrong place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Optional {
    pub(crate) total: bool,
    pub(crate) occurred_at: bool,
}

impl Surroundings<'_> {
    fn scope<'v>(&'v self, record: &'v Value) -> Scope<'v> {
        Scope { record, item: record, config: self.config, currency: self.currency, zone: self.zone }
    }
}

impl Mapping {
    /// Maps every record; each ends as ours, skipped or failed.
    pub(crate) fn map(&self, records: &[Value], around: &Surroundings<'_>) -> Mapped {
        let mut mapped = Mapped::default();
        for record in records {
            let record = self.opened(record);
            let record = record.as_ref();
            if let Err((external_id, reason)) = self.map_one(record, around, &mut mapped) {
                let raw = record.to_string();
                let external_id = external_id.unwrap_or_else(|| hash_id(&raw));
                // A reason may repeat the vendor's text, and no column holds this sign.
                let reason = reason.replace('\0', "\u{fffd}");
                mapped.failures.push(RecordFailure { external_id, reason, raw });
            }
        }
        mapped
    }

    /// The record with its JSON texts as what they say; a text that is none stays as it is.
    fn opened<'v>(&self, record: &'v Value) -> Cow<'v, Value> {
        let mut opened = Cow::Borrowed(record);
        for path in &self.json_text {
            // A text may lie in what another text held.
            let Some(Value::String(text)) = path.find(&opened) else { continue };
            if let Ok(inner @ (Value::Object(_) | Value::Array(_))) = json::read(text)
                && let Some(place) = path.find_mut(opened.to_mut())
            {
                *place = inner;
            }
        }
        opened
    }

    /// A record that failed before it could be mapped.
    pub(crate) fn failure(&self, record: &Value, reason: &str, around: &Surroundings<'_>) -> RecordFailure {
        let raw = record.to_string();
        let external_id = self.id(around.scope(record)).unwrap_or_else(|_| hash_id(&raw));
        RecordFailure { external_id, reason: reason.replace('\0', "\u{fffd}"), raw }
    }

    fn map_one(
        &self,
        record: &Value,
        around: &Surroundings<'_>,
        mapped: &mut Mapped,
    ) -> Result<(), (Option<String>, String)> {
        if !record.is_object() {
            return Err((None, format!("expected a record in braces, found {}", convert::kind(record))));
        }
        let scope = around.scope(record);
        if let Some(when) = &self.when {
            let bindings = [("record", record), ("config", around.config)];
            match when.holds(&bindings) {
                Ok(true) => {}
                Ok(false) => {
                    mapped.skipped += 1;
                    return Ok(());
                }
                Err(problem) => {
                    let id = self.id(scope).ok();
                    return Err((
                        id,
                        format!("the condition `{}` cannot be computed: {problem}", when.as_str()),
                    ));
                }
            }
        }
        let id = self.id(scope).map_err(|reason| (None, reason))?;
        let failed = |reason| (Some(id.clone()), reason);
        match &self.fields {
            Fields::Transaction(fields) => {
                mapped.transactions.push(fields.map(id.clone(), scope, around).map_err(failed)?);
            }
            Fields::Record(fields) => {
                mapped.records.push(fields.map(id.clone(), scope, around).map_err(failed)?);
            }
            Fields::Order(fields) => {
                mapped.orders.push(fields.map(id.clone(), scope, around).map_err(failed)?);
            }
            Fields::Member(fields) => {
                mapped.members.push(fields.map(id.clone(), scope, around).map_err(failed)?);
            }
        }
        Ok(())
    }

    /// Tombstones of records that are all told in full. Nothing where one of them is not: it would blank
    /// out what is there.
    pub(crate) fn tombstones(&self, records: &[Value], around: &Surroundings<'_>) -> Option<Mapped> {
        let mut mapped = Mapped::default();
        for record in records {
            let record = self.opened(record);
            let record = record.as_ref();
            let scope = record.is_object().then(|| around.scope(record))?;
            let id = self.id(scope).ok()?;
            match &self.fields {
                Fields::Transaction(fields) => {
                    let told = |found: Result<bool, String>| found.is_ok_and(|told| told).then_some(());
                    told(fields.total.minor(scope).map(|total| total.is_some()))?;
                    told(fields.occurred_at.time(scope).map(|at| at.is_some()))?;
                    let transaction = fields.map(id, scope, around).ok()?;
                    mapped.transactions.push(IncomingTransaction { deleted: true, ..transaction });
                }
                Fields::Record(fields) => {
                    let record = fields.map(id, scope, around).ok()?;
                    let told = record.status.is_some() || record.amount.is_some() || record.data != NO_DATA;
                    told.then_some(())?;
                    mapped.records.push(IncomingRecord { deleted: true, ..record });
                }
                Fields::Order(fields) => {
                    fields.is_whole(scope).then_some(())?;
                    let order = fields.map(id, scope, around).ok()?;
                    mapped.orders.push(IncomingSupplierOrder { deleted: true, ..order });
                }
                // Of a person who is gone nothing needs to stay.
                Fields::Member(fields) => {
                    let member = fields.map(id, scope, around).ok()?;
                    mapped.members.push(IncomingMember { deleted: true, ..member });
                }
            }
        }
        Some(mapped)
    }

    /// When the vendor changed the record, if it tells.
    pub(super) fn version_at(&self, scope: Scope<'_>) -> Result<Option<DateTime<Utc>>, String> {
        let field = match &self.fields {
            Fields::Transaction(fields) => &fields.version_at,
            Fields::Record(fields) => &fields.version_at,
            Fields::Order(fields) => &fields.version_at,
            Fields::Member(fields) => &fields.version_at,
        };
        time(field.as_ref(), scope)
    }

    /// The vendor's id of a record.
    pub(super) fn id(&self, scope: Scope<'_>) -> Result<String, String> {
        let field = match &self.fields {
            Fields::Transaction(fields) => &fields.external_id,
            Fields::Record(fields) => &fields.external_id,
            Fields::Order(fields) => &fields.order_number,
            Fields::Member(fields) => &fields.member_id,
        };
        field
            .id(scope)?
            .ok_or_else(|| field.reason("the record has no id; without one it cannot be told from others"))
    }
}

impl TransactionFields {
    fn map(
        &self,
        external_id: String,
        scope: Scope<'_>,
        around: &Surroundings<'_>,
    ) -> Result<IncomingTransaction, String> {
        let scope =
            Scope { currency: currency(self.currency.as_ref(), scope)?.unwrap_or(around.currency), ..scope };
        let deleted = flag(self.deleted.as_ref(), scope)?;
        let version_at = time(self.version_at.as_ref(), scope)?;
        // A tombstone may consist of an id and a date alone; a live record must have its members.
        let missing = |field: &Field| field.reason("there is no value");
        let total = match self.total.minor(scope)? {
            Some(total) => total,
            None if deleted || around.optional.total => 0,
            None => return Err(missing(&self.total)),
        };
        let occurred_at = match self.occurred_at.time(scope)? {
            Some(at) => at,
            None if deleted => version_at.unwrap_or(around.asked_at),
            None if around.optional.occurred_at => around.asked_at,
            None => return Err(missing(&self.occurred_at)),
        };
        let transaction_type = match (&self.transaction_type, text(self.transaction_type.as_ref(), scope)?) {
            (Some(field), Some(word)) => {
                word.parse::<TransactionType>().map_err(|problem| field.reason(&problem))?
            }
            _ => TransactionType::Sale,
        };
        Ok(IncomingTransaction {
            external_id,
            order_number: text(self.order_number.as_ref(), scope)?,
            transaction_type,
            currency: scope.currency,
            subtotal: minor(self.subtotal.as_ref(), scope)?.unwrap_or(0),
            tax: minor(self.tax.as_ref(), scope)?.unwrap_or(0),
            discount: minor(self.discount.as_ref(), scope)?.unwrap_or(0),
            total,
            payment_method: text(self.payment_method.as_ref(), scope)?,
            items: json(self.items.as_ref(), scope)?,
            customer: json(self.customer.as_ref(), scope)?,
            customer_phone: text(self.customer_phone.as_ref(), scope)?,
            shop: text(self.shop.as_ref(), scope)?,
            occurred_at,
            version_at,
            observed_at: None,
            deleted,
            raw: scope.record.to_string(),
        })
    }
}

impl RecordFields {
    fn map(
        &self,
        external_id: String,
        scope: Scope<'_>,
        around: &Surroundings<'_>,
    ) -> Result<IncomingRecord, String> {
        let scope =
            Scope { currency: currency(self.currency.as_ref(), scope)?.unwrap_or(around.currency), ..scope };
        let amount = minor(self.amount.as_ref(), scope)?;
        Ok(IncomingRecord {
            stream: around.stream.to_owned(),
            external_id,
            status: text(self.status.as_ref(), scope)?,
            currency: amount.map(|_| scope.currency),
            amount,
            shop: text(self.shop.as_ref(), scope)?,
            occurred_at: time(self.occurred_at.as_ref(), scope)?,
            version_at: time(self.version_at.as_ref(), scope)?,
            observed_at: None,
            deleted: flag(self.deleted.as_ref(), scope)?,
            data: json(self.data.as_ref(), scope)?.unwrap_or_else(|| NO_DATA.to_owned()),
            raw: scope.record.to_string(),
        })
    }
}

fn currency(field: Option<&Field>, scope: Scope<'_>) -> Result<Option<Currency>, String> {
    let (Some(field), Some(code)) = (field, text(field, scope)?) else {
        return Ok(None);
    };
    code.parse()
        .map(Some)
        .map_err(|problem: zhilian_sync_store::money::MoneyError| field.reason(&problem.to_string()))
}

fn text(field: Option<&Field>, scope: Scope<'_>) -> Result<Option<String>, String> {
    field.map_or(Ok(None), |field| field.text(scope))
}

fn minor(field: Option<&Field>, scope: Scope<'_>) -> Result<Option<i64>, String> {
    field.map_or(Ok(None), |field| field.minor(scope))
}

fn time(field: Option<&Field>, scope: Scope<'_>) -> Result<Option<DateTime<Utc>>, String> {
    field.map_or(Ok(None), |field| field.time(scope))
}

fn flag(field: Option<&Field>, scope: Scope<'_>) -> Result<bool, String> {
    field.map_or(Ok(false), |field| field.flag(scope))
}

/// JSON text for a column.
fn json(field: Option<&Field>, scope: Scope<'_>) -> Result<Option<String>, String> {
    Ok(field.map_or(Ok(None), |field| field.json(scope))?.map(|value| value.to_string()))
}

/// The name of a record that has no id: its content.
fn hash_id(raw: &str) -> String {
    format!("hash:{}", hex::encode(Sha256::digest(raw.as_bytes())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::manifest::Manifest;
    use super::*;

    /// Maps one record with these keys of a mapping into an external record.
    fn map(mapping: &str, record: &Value) -> Mapped {
        let text = format!(
            "[meta]\nname='a'\ntitle='A'\ntypes=['pos']\n[auth]\nkind='none'\n[probe]\nstream='s'\nmessage='m'\n\
             [streams.s]\ntarget='external_records'\nrequest.path='/'\nanswer.records='.'\n\
             [streams.s.mapping]\nmoney_unit='major'\n{mapping}"
        );
        let manifest = Manifest::parse("a.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
        let config = json!({"keep": "yes"});
        let around = Surroundings {
            stream: "s",
            config: &config,
            currency: Currency::CNY,
            zone: chrono_tz::Asia::Shanghai,
            asked_at: DateTime::UNIX_EPOCH,
            optional: Optional::default(),
        };
        manifest.stream("s").unwrap().mapping.map(std::slice::from_ref(record), &around)
    }

    /// One field beside the id, as the record or the reason.
    fn one(field: &str, record: &Value) -> Result<IncomingRecord, String> {
        let mut mapped = map(&format!("fields.external_id = {{ value = '1' }}\nfields.{field}"), record);
        mapped.records.pop().ok_or_else(|| mapped.failures.remove(0).reason)
    }

    #[test]
    fn amounts_are_added_up_exactly() {
        let sum = "amount = { sum = ['total', '-tax', 'discount'] }";
        let amount = |record: Value| one(sum, &record).map(|record| record.amount);
        assert_eq!(amount(json!({"total": 0.1, "tax": "0.2", "discount": 0.3})), Ok(Some(20)));
        assert_eq!(amount(json!({"total": 1, "tax": null})), Ok(Some(100)));
        assert_eq!(amount(json!({})), Ok(None));
        assert!(amount(json!({"total": "x"})).unwrap_err().starts_with("`amount`: `x` is not a number"));
        let most = json!({"total": 9_999_999_999_999_i64, "discount": 9_999_999_999_999_i64});
        assert!(amount(most).unwrap_err().contains("too large"));
    }

    #[test]
    fn words_are_translated_or_refused() {
        let status = |table: &str, value: Value| {
            one(&format!("status = {{ path = 'state', {table} }}"), &json!({"state": value}))
                .map(|record| record.status)
        };
        let ours = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(status("values = { '1' = 'paid' }", json!(1)), ours("paid"));
        assert_eq!(status("values = { '1' = 'paid' }, otherwise = 'open'", json!("7")), ours("open"));
        assert_eq!(status("values = { '1' = 'paid' }, keep_unknown = true", json!("7")), ours("7"));
        assert_eq!(status("values = { '1' = 'paid' }, default = '1'", Value::Null), ours("paid"));
        assert_eq!(status("values = { '1' = 'paid' }", Value::Null), Ok(None));
        let reason = status("values = { '1' = 'paid' }", json!("7\u{0}")).unwrap_err();
        assert_eq!(
            reason,
            "`status` (from `state`): `7\u{FFFD}` has no meaning in the manifest; known are `1`"
        );
    }

    #[test]
    fn objects_and_lists_are_built_of_fields() {
        let field = "data = { fields = { n = 'nothing', who = { path = 'name', type = 'text' }, when = { path = 'at', time = 'unix' }, \
                     ok = { path = 'flag', type = 'flag' }, price = { path = 'price', type = 'money' }, kind = { cel = 'record.a + 1' }, \
                     lines = { each = 'lines', fields = { id = 'id', twice = { cel = 'item.id * 2 + record.a' } } } } }";
        let record = json!({"name": 7, "at": 1_767_240_000, "flag": "Y", "price": "12.5", "a": 1, "lines": [{"id": 1}, {"id": 2}]});
        let data: Value = serde_json::from_str(&one(field, &record).unwrap().data).unwrap();
        let expected = r#"{"who": "7", "when": "2026-01-01T04:00:00.000Z", "ok": true, "price": 12.50, "kind": 2,
            "lines": [{"id": 1, "twice": 3}, {"id": 2, "twice": 5}]}"#;
        assert_eq!(data, serde_json::from_str::<Value>(expected).unwrap());
        let reason = one(field, &json!({"a": 1, "lines": [1]})).unwrap_err();
        assert!(reason.starts_with("`data.lines.twice`: "), "{reason}");
        let reason = one(field, &json!({"a": 1, "lines": {}})).unwrap_err();
        assert_eq!(reason, "`data.lines`: expected a list, found an object");
    }

    #[test]
    fn a_condition_skips_or_fails_a_record() {
        let keys = "when = \"record.state != 'DRAFT' && config.keep == 'yes'\"\nfields.external_id = 'id'";
        assert_eq!(map(keys, &json!({"id": 1, "state": "DRAFT"})).skipped, 1);
        assert_eq!(map(keys, &json!({"id": 1, "state": "DONE"})).records.len(), 1);
        let mapped = map(keys, &json!({"id": "A-1"}));
        assert_eq!(mapped.failures[0].external_id, "A-1");
        assert!(mapped.failures[0].reason.contains("cannot be computed"), "{:?}", mapped.failures);
    }

    #[test]
    fn a_computed_id_has_its_parts() {
        let mapped = map(
            "fields.external_id = { cel = \"record.shop + '-' + string(record.no)\" }",
            &json!({"shop": "S1", "no": 7}),
        );
        assert_eq!(mapped.records[0].external_id, "S1-7");
    }

    #[test]
    fn the_currency_of_a_record_decides_its_decimals() {
        let field = |record: Value| one("currency = 'cur'\nfields.amount = 'amount'", &record);
        assert_eq!(field(json!({"cur": "KWD", "amount": "1.234"})).unwrap().amount, Some(1_234));
        assert_eq!(field(json!({"amount": "1.23"})).unwrap().currency, Some(Currency::CNY));
        assert!(
            field(json!({"cur": "JPY", "amount": "1.5"}))
                .unwrap_err()
                .contains("more decimals than the 0 that JPY allows")
        );
        assert!(
            field(json!({"cur": "gold", "amount": "1"}))
                .unwrap_err()
                .starts_with("`currency` (from `cur`): `gold` is not a currency")
        );
    }

    #[test]
    fn the_same_record_without_an_id_is_the_same_failure() {
        let keys = "fields.external_id = 'id'";
        let name = |record: &Value| map(keys, record).failures.remove(0).external_id;
        assert_eq!(name(&json!({"a": 1, "b": 2})), name(&json!({"b": 2, "a": 1})));
        assert_ne!(name(&json!({"a": 1})), name(&json!({"a": 2})));
        assert_eq!(name(&json!({"a": 1})).len(), "hash:".len() + 64);
    }
}
