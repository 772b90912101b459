//! `vendors try`: what becomes of single records, for the person who writes a manifest. A pull maps whole pages
//! and forgets which of ours came of which of theirs; here each record is mapped alone and stands beside what it
//! became, under the names that fields have in a mapping, amounts as people write them.

use serde_json::{Value, json};
use zhilian_sync_store::Currency;
use zhilian_sync_store::external_records::IncomingRecord;
use zhilian_sync_store::member_syncs::IncomingMember;
use zhilian_sync_store::money::json_number;
use zhilian_sync_store::pos_transactions::IncomingTransaction;
use zhilian_sync_store::supplier_orders::IncomingSupplierOrder;

use super::client::{Connection, Page, Undetailed};
use super::manifest::Stream;
use super::mapping::Mapped;

/// A record of the vendor and what became of it, without secrets.
#[derive(Debug)]
pub struct TriedRecord {
    /// As the vendor sent it.
    pub raw: Value,
    /// What became of it.
    pub fate: Fate,
}

/// What a record becomes.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// A row.
    Row {
        /// The table.
        table: &'static str,
        /// Its values, by the names of the fields of a mapping.
        columns: Value,
    },
    /// The manifest's `when` leaves it out.
    Skipped,
    /// It goes to `sync_failures`, for this reason.
    Failed(String),
}

impl Connection {
    /// Maps every record of a page by itself.
    pub fn try_records<'a>(
        &'a self,
        stream: &'a Stream,
        page: Page,
    ) -> impl Iterator<Item = TriedRecord> + 'a {
        let mut one = page;
        let whole = std::mem::take(&mut one.records).into_iter().map(Ok);
        let undetailed = std::mem::take(&mut one.undetailed).into_iter().map(Err);
        whole.chain(undetailed).map(move |record| {
            (one.records, one.undetailed) = match &record {
                Ok(whole) => (vec![Value::clone(whole)], Vec::new()),
                Err(undetailed) => (Vec::new(), vec![Undetailed::clone(undetailed)]),
            };
            let fate = fate(self.map_page(stream, &one));
            let raw = record.unwrap_or_else(|undetailed| undetailed.record);
            let raw = self.redact_json(&raw);
            let fate = match fate {
                Fate::Row { table, columns } => Fate::Row { table, columns: self.redact_json(&columns) },
                other => other,
            };
            TriedRecord { raw, fate }
        })
    }
}

fn fate(mapped: Mapped) -> Fate {
    let row = |table, columns| Fate::Row { table, columns };
    let Mapped { transactions, records, orders, members, failures, skipped: _ } = mapped;
    if let Some(failure) = failures.into_iter().next() {
        return Fate::Failed(failure.reason);
    }
    if let Some(transaction) = transactions.first() {
        return row("pos_transactions", transaction_columns(transaction));
    }
    if let Some(order) = orders.first() {
        return row("supplier_orders", order_columns(order));
    }
    if let Some(member) = members.first() {
        return row("member_syncs", member_columns(member));
    }
    records.first().map_or(Fate::Skipped, |record| row("external_records", record_columns(record)))
}

fn amount(currency: Currency, minor: i64) -> Value {
    Value::Number(json_number(minor, currency.digits()))
}

/// A column that holds JSON text.
fn parsed(text: Option<&str>) -> Value {
    text.map_or(Value::Null, |text| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)))
}

fn transaction_columns(transaction: &IncomingTransaction) -> Value {
    let money = |minor| amount(transaction.currency, minor);
    json!({
        "external_id": transaction.external_id,
        "order_number": transaction.order_number,
        "transaction_type": transaction.transaction_type.as_str(),
        "currency": transaction.currency,
        "subtotal": money(transaction.subtotal),
        "tax": money(transaction.tax),
        "discount": money(transaction.discount),
        "total": money(transaction.total),
        "payment_method": transaction.payment_method,
        "items": parsed(transaction.items.as_deref()),
        "customer": parsed(transaction.customer.as_deref()),
        "customer_phone": transaction.customer_phone,
        "shop": transaction.shop,
        "occurred_at": transaction.occurred_at,
        "version_at": transaction.version_at,
        "deleted": transaction.deleted,
    })
}

fn order_columns(order: &IncomingSupplierOrder) -> Value {
    let money = |minor| amount(order.currency, minor);
    json!({
        "order_number": order.order_number,
        "external_order_id": order.external_order_id,
        "supplier_id": order.supplier_id,
        "supplier_name": order.supplier_name,
        "order_type": order.order_type.as_str(),
        "status": order.status.as_str(),
        "currency": order.currency,
        "subtotal": money(order.subtotal),
        "tax": money(order.tax),
        "shipping": money(order.shipping),
        "total": money(order.total),
        "items": parsed(order.items.as_deref()),
        "delivery": parsed(order.delivery.as_deref()),
        "tracking_number": order.tracking_number,
        "shop": order.shop,
        "order_date": order.order_date,
        "expected_delivery": order.expected_delivery,
        "actual_delivery": order.actual_delivery,
        "version_at": order.version_at,
        "deleted": order.deleted,
    })
}

fn member_columns(member: &IncomingMember) -> Value {
    json!({
        "member_id": member.member_id,
        "external_member_id": member.external_member_id,
        "phone": member.phone,
        "name": member.name,
        "email": member.email,
        "level": member.level,
        "points": member.points,
        "balance": member.balance.map(|minor| amount(member.currency, minor)),
        "currency": member.currency,
        "last_activity": member.last_activity,
        "shop": member.shop,
        "version_at": member.version_at,
        "deleted": member.deleted,
    })
}

fn record_columns(record: &IncomingRecord) -> Value {
    // Without a currency there is no amount; the mapping has seen to that.
    let minor = record.currency.zip(record.amount);
    json!({
        "external_id": record.external_id,
        "status": record.status,
        "currency": record.currency,
        "amount": minor.map(|(currency, minor)| amount(currency, minor)),
        "shop": record.shop,
        "occurred_at": record.occurred_at,
        "version_at": record.version_at,
        "deleted": record.deleted,
        "data": parsed(Some(&record.data)),
    })
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::super::check::replay;
    use super::super::manifest::Manifest;
    use super::*;

    fn of(target: &str, fields: &str, record: &Value) -> Fate {
        let text = format!(
            "[meta]\nname='a'\ntitle='A'\ntypes=['pos']\n[auth]\nkind='none'\n[probe]\nstream='s'\nmessage='m'\n\
             [streams.s]\ntarget='{target}'\nrequest.path='/'\nanswer.records='.'\n\
             mapping.when='!has(record.draft)'\nmapping.money_unit='minor'\n[streams.s.mapping.fields]\n{fields}"
        );
        let manifest = Manifest::parse("a.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
        fate(replay(&manifest, "s", &json!([record]), DateTime::UNIX_EPOCH).unwrap())
    }

    #[test]
    fn a_record_becomes_a_row_of_its_table() {
        for (target, fields, record, column, value) in [
            (
                "pos_transactions",
                "external_id='id'\ntotal='sum'\noccurred_at='at'",
                json!({"id": 1, "sum": 1250, "at": "2026-01-01T00:00:00Z"}),
                "total",
                "12.50",
            ),
            (
                "supplier_orders",
                "order_number='id'\ntotal='sum'\norder_date='at'\nstatus={value='pending'}",
                json!({"id": 1, "sum": 5, "at": "2026-01-01T00:00:00Z"}),
                "total",
                "0.05",
            ),
            ("member_syncs", "member_id='id'\nname='n'", json!({"id": 1, "n": "Li"}), "name", "\"Li\""),
            ("external_records", "external_id='id'", json!({"id": 1}), "external_id", "\"1\""),
        ] {
            match of(target, fields, &record) {
                Fate::Row { table, columns } => {
                    assert_eq!(table, target);
                    assert_eq!(columns[column].to_string(), value, "{columns}");
                }
                other => panic!("{target}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_becomes_no_row_says_why() {
        let failed = of("external_records", "external_id='id'", &json!({}));
        assert!(matches!(&failed, Fate::Failed(reason) if reason.contains("external_id")), "{failed:?}");
        assert_eq!(of("external_records", "external_id='id'", &json!({"draft": 1})), Fate::Skipped);
    }
}
