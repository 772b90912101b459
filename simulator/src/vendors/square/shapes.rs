//! Records as Square writes them, in its lists and in its webhooks.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::{customer_id, order_id, state_of};
use crate::WebhookTarget;
use crate::vendor::{Delivery, Event};
use crate::verify::webhooks;
use crate::world::{Change, Line, Pay, Record, Sale, SaleKind};

/// The state that orders are filtered by.
pub(super) fn state(record: &Record) -> &'static str {
    record.sale().map_or("DRAFT", |sale| state_of(sale.kind))
}

/// An order, or one that only takes back: it has returns and no lines of its own.
pub(super) fn order(record: &Record) -> Option<Value> {
    let sale = record.sale()?;
    let mut order = json!({
        "id": record.id,
        "location_id": record.shop,
        "state": state(record),
        "version": record.version,
        "ticket_name": sale.table,
        "created_at": time(record.created_at),
        "updated_at": time(record.updated_at),
        "closed_at": time(sale.paid_at),
        "source": {"name": "Point of Sale"},
    });
    let more = if sale.kind == SaleKind::Refund { taken_back(record, sale) } else { sold(sale) };
    let (order_members, more) = (order.as_object_mut()?, more.as_object()?.clone());
    order_members.extend(more);
    if let Some(guest) = &sale.guest {
        order_members.insert("customer_id".to_owned(), customer_id(guest.number).into());
    }
    Some(order)
}

fn sold(sale: &Sale) -> Value {
    json!({
        "line_items": sale.lines.iter().map(line).collect::<Vec<_>>(),
        "total_money": money(sale.total),
        "total_tax_money": money(sale.tax),
        "total_discount_money": money(sale.discount),
        "total_tip_money": money(0),
        "total_service_charge_money": money(0),
        "tenders": [{"id": "t1", "type": tender(sale.pay), "amount_money": money(sale.total)}],
    })
}

fn taken_back(record: &Record, sale: &Sale) -> Value {
    json!({
        "returns": [{"source_order_id": sale.refund_of}],
        "return_amounts": {"total_money": money(sale.total), "tax_money": money(sale.tax)},
        "refunds": [{"id": format!("{}_R", record.id), "amount_money": money(sale.total)}],
        "total_money": money(0),
        "total_tax_money": money(0),
        "total_discount_money": money(0),
    })
}

fn line(line: &Line) -> Value {
    json!({
        "uid": line.sku,
        "name": line.name,
        "quantity": line.quantity.to_string(),
        "base_price_money": money(line.price),
        "total_money": money(line.total()),
    })
}

/// A payment.
pub(super) fn payment(record: &Record) -> Option<Value> {
    let payment = record.payment()?;
    let mut shown = json!({
        "id": record.id,
        "order_id": order_id(payment.of),
        "location_id": record.shop,
        "status": status(payment.completed),
        "source_type": tender(payment.pay),
        "amount_money": money(payment.amount),
        "total_money": money(payment.amount + payment.tip),
        "created_at": time(record.created_at),
        "updated_at": time(record.updated_at),
    });
    if payment.tip > 0 {
        shown["tip_money"] = money(payment.tip);
    }
    Some(shown)
}

/// A refund.
pub(super) fn refund(record: &Record) -> Option<Value> {
    let payment = record.payment()?;
    Some(json!({
        "id": record.id,
        "payment_id": format!("PAY{:06}", payment.of),
        "order_id": order_id(payment.of),
        "location_id": record.shop,
        "status": status(payment.completed),
        "amount_money": money(payment.amount),
        "reason": "cold",
        "created_at": time(record.created_at),
        "updated_at": time(record.updated_at),
    }))
}

/// A customer.
pub(super) fn customer(record: &Record) -> Option<Value> {
    let member = record.member()?;
    let mut shown = json!({
        "id": record.id,
        "given_name": member.given_name,
        "family_name": member.family_name,
        "phone_number": member.phone,
        "created_at": time(record.created_at),
        "updated_at": time(record.updated_at),
        "version": record.version,
        "creation_source": "DIRECTORY",
    });
    if let Some(email) = &member.email {
        shown["email_address"] = email.as_str().into();
    }
    Some(shown)
}

/// A change as it is posted. Of an order only its id and state are told; the others come whole.
pub(super) fn webhook(event: &Event, target: &WebhookTarget) -> Option<Delivery> {
    let Event { record, change, .. } = event;
    let (noun, key, object) = match event.stream {
        "orders" => ("order", "", thin(record)),
        "payments" => ("payment", "payment", payment(record)?),
        "refunds" => ("refund", "refund", refund(record)?),
        _ => ("customer", "customer", customer(record)?),
    };
    let verb = if *change == Change::Made { "created" } else { "updated" };
    let kind = format!("{noun}_{verb}");
    let key = if key.is_empty() { kind.as_str() } else { key };
    let body = json!({
        "merchant_id": "M1",
        "type": format!("{noun}.{verb}"),
        "event_id": format!("00000000-0000-4000-8000-{:012}", event.number),
        "created_at": time(event.at),
        "data": {"type": kind, "id": record.id, "object": {key: object}},
    });
    let body = body.to_string();
    let signature = webhooks::square(&target.secret, target.url.as_str(), body.as_bytes());
    let headers =
        vec![("content-type", "application/json".to_owned()), ("x-square-hmacsha256-signature", signature)];
    Some(Delivery { headers, query: String::new(), body })
}

fn thin(record: &Record) -> Value {
    json!({
        "order_id": record.id,
        "location_id": record.shop,
        "state": state(record),
        "version": record.version,
        "created_at": time(record.created_at),
        "updated_at": time(record.updated_at),
    })
}

fn status(completed: bool) -> &'static str {
    if completed { "COMPLETED" } else { "PENDING" }
}

fn tender(pay: Pay) -> &'static str {
    match pay {
        Pay::Cash => "CASH",
        Pay::Card => "CARD",
        Pay::WeChat | Pay::Alipay => "WALLET",
    }
}

fn money(minor: i64) -> Value {
    json!({"amount": minor, "currency": "USD"})
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
