//! Records as Shopify writes them, in its lists and in its webhooks: amounts as texts with two decimals,
//! times in the shop's zone, ids as numbers.

use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::America::New_York;
use serde_json::{Number, Value, json};

use super::FIRST_ID;
use crate::WebhookTarget;
use crate::vendor::{Delivery, Event, major_text};
use crate::verify::webhooks;
use crate::world::{Change, Guest, Line, Pay, Record, Sale, SaleKind};

/// The shop's own address.
pub(super) const DOMAIN: &str = "simulated.myshopify.com";

/// An order.
pub(super) fn order(record: &Record) -> Option<Value> {
    let sale = record.sale()?;
    let voided = sale.kind == SaleKind::Void;
    Some(json!({
        "id": id(&record.id),
        "name": format!("#{}", 1000 + record.number),
        "order_number": 1000 + record.number,
        "financial_status": financial_status(sale.kind),
        "fulfillment_status": null,
        "cancelled_at": voided.then(|| time(record.updated_at)),
        "subtotal_price": major_text(sale.subtotal - sale.discount),
        "total_tax": major_text(sale.tax),
        "total_discounts": major_text(sale.discount),
        "total_price": major_text(sale.total),
        "currency": "USD",
        "processed_at": time(sale.paid_at),
        "created_at": time(record.created_at),
        "updated_at": time(record.updated_at),
        "payment_gateway_names": [gateway(sale.pay)],
        "line_items": lines(record, sale),
        "location_id": id(&record.shop),
        "source_name": "pos",
        "customer": sale.guest.as_ref().map(guest),
        "refunds": refunds(record, sale),
        "tags": "",
    }))
}

fn lines(record: &Record, sale: &Sale) -> Vec<Value> {
    let line = |(number, line): (u64, &Line)| {
        json!({
            "id": FIRST_ID + 100 * record.number + number,
            "title": line.name,
            "sku": line.sku,
            "quantity": line.quantity,
            "price": major_text(line.price),
        })
    };
    (1..).zip(&sale.lines).map(line).collect()
}

fn refunds(record: &Record, sale: &Sale) -> Vec<Value> {
    let refund = json!({"id": FIRST_ID + 100 * record.number, "order_id": id(&record.id)});
    if sale.kind == SaleKind::Refund { vec![refund] } else { Vec::new() }
}

fn guest(guest: &Guest) -> Value {
    let (first, last) = guest.name.split_once(' ').unwrap_or((&guest.name, ""));
    json!({
        "id": FIRST_ID + 2 * guest.number,
        "first_name": first,
        "last_name": last,
        "email": null,
        "phone": guest.phone,
    })
}

/// A customer.
pub(super) fn customer(record: &Record) -> Option<Value> {
    let member = record.member()?;
    Some(json!({
        "id": id(&record.id),
        "first_name": member.given_name,
        "last_name": member.family_name,
        "email": member.email,
        "phone": member.phone,
        "orders_count": 3,
        "total_spent": major_text(member.balance),
        "created_at": time(record.created_at),
        "updated_at": time(record.updated_at),
        "tags": "",
    }))
}

/// A change as it is posted. Records come whole and the topic stands in a header; a refund only names its
/// order.
pub(super) fn webhook(event: &Event, target: &WebhookTarget) -> Option<Delivery> {
    let Event { record, change, .. } = event;
    let made = *change == Change::Made;
    let (topic, body) = if let Some(sale) = record.sale() {
        match sale.kind {
            SaleKind::Refund => ("refunds/create", refunds(record, sale).first()?.clone()),
            SaleKind::Void => ("orders/cancelled", order(record)?),
            SaleKind::Sale if made => ("orders/create", order(record)?),
            SaleKind::Sale => ("orders/updated", order(record)?),
        }
    } else {
        (if made { "customers/create" } else { "customers/update" }, customer(record)?)
    };
    let body = body.to_string();
    let delivery = format!("10000000-0000-4000-8000-{:012}", event.number);
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("x-shopify-topic", topic.to_owned()),
        ("x-shopify-shop-domain", DOMAIN.to_owned()),
        ("x-shopify-api-version", "2025-07".to_owned()),
        ("x-shopify-webhook-id", delivery.replace("10000000", "20000000")),
        ("x-shopify-event-id", delivery),
        ("x-shopify-triggered-at", event.at.to_rfc3339_opts(SecondsFormat::Nanos, true)),
        ("x-shopify-hmac-sha256", webhooks::shopify(&target.secret, body.as_bytes())),
    ];
    Some(Delivery { headers, query: String::new(), body })
}

fn financial_status(kind: SaleKind) -> &'static str {
    match kind {
        SaleKind::Sale => "paid",
        SaleKind::Refund => "refunded",
        SaleKind::Void => "voided",
    }
}

fn gateway(pay: Pay) -> &'static str {
    match pay {
        Pay::Cash => "cash",
        Pay::Card => "shopify_payments",
        Pay::WeChat => "wechat_pay",
        Pay::Alipay => "alipay",
    }
}

fn id(text: &str) -> Value {
    text.parse::<Number>().map_or(Value::Null, Value::Number)
}

fn time(time: DateTime<Utc>) -> String {
    time.with_timezone(&New_York).to_rfc3339_opts(SecondsFormat::Secs, false)
}
