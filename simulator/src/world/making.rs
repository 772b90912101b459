//! How records come about and change: what chance decides, and what follows from it.

use chrono::{DateTime, TimeDelta, Utc};

use super::World;
use super::record::{
    Body, Guest, Line, Member, OrderState, Pay, Payment, Record, Sale, SaleKind, SupplierOrder, What,
};
use crate::vendor::Stream;

/// What is sold: number, name, price in minor units.
const MENU: [(&str, &str, i64); 8] = [
    ("D101", "牛肉面", 1480),
    ("D102", "红烧牛肉面", 2880),
    ("D103", "小笼包", 1800),
    ("D104", "Sesame \"cold\" noodles & egg", 1250),
    ("D105", "酸梅汤", 800),
    ("D106", "Crème brûlée", 505),
    ("D107", "卤蛋", 299),
    ("D108", "米饭", 201),
];

/// What is ordered at suppliers.
const GOODS: [(&str, &str, i64); 4] =
    [("G1", "五花肉", 3200), ("G2", "面粉", 415), ("G3", "香菜", 680), ("G4", "Olive oil 5 l", 15_999)];

/// Suppliers.
const SUPPLIERS: [(&str, &str); 3] =
    [("SUP01", "湘菜食材"), ("SUP02", "老张豆制品"), ("SUP03", "Fish & Co.")];

/// Given and family names.
const NAMES: [(&str, &str); 5] =
    [("Ann", "Lee"), ("伟", "王"), ("José", "Núñez"), ("芳", "李"), ("Pat", "O'Brien")];

/// How guests pay.
const PAYS: [Pay; 4] = [Pay::Cash, Pay::Card, Pay::WeChat, Pay::Alipay];

/// How long before the till sends a sale it was opened, and paid.
const OPENED_BEFORE: TimeDelta = TimeDelta::minutes(40);
const PAID_BEFORE: TimeDelta = TimeDelta::seconds(5);

/// A new record, still without its id.
pub(super) fn record(world: &mut World, stream: &Stream, number: u64, at: DateTime<Utc>) -> Record {
    let shop = world.chance.pick(&world.shops).id.clone();
    let body = match stream.what {
        What::Sales => Body::Sale(sale(world, at)),
        What::SupplierOrders => Body::SupplierOrder(supplier_order(world, at)),
        What::Members => Body::Member(member(world, number, at)),
        What::Payments | What::Refunds => Body::Payment(payment(world, number, stream.what == What::Refunds)),
    };
    Record {
        id: String::new(),
        number,
        shop,
        created_at: at,
        updated_at: at,
        version: 1,
        deleted: false,
        body,
    }
}

fn sale(world: &mut World, at: DateTime<Utc>) -> Sale {
    let chance = &mut world.chance;
    let lines: Vec<Line> = (0..=chance.below(3))
        .map(|_| {
            let (sku, name, price) = *chance.pick(&MENU);
            let quantity = if chance.one_in(4) { 2 } else { 1 };
            Line { sku: sku.into(), name: name.into(), quantity, price }
        })
        .collect();
    let subtotal = lines.iter().map(Line::total).sum::<i64>();
    let discount = if chance.one_in(5) { subtotal / 10 } else { 0 };
    let tax = if chance.one_in(2) { (subtotal - discount) * 6 / 100 } else { 0 };
    let pay = *chance.pick(&PAYS);
    let guest = chance.one_in(3).then(|| chance.below(40) + 1).map(guest);
    let (table, people) = (chance.below(30) + 1, chance.below(6) + 1);
    Sale {
        kind: SaleKind::Sale,
        refund_of: None,
        opened_at: at - OPENED_BEFORE,
        paid_at: at - PAID_BEFORE,
        lines,
        subtotal,
        tax,
        discount,
        total: subtotal + tax - discount,
        pay,
        guest,
        table: format!("A{table}"),
        people: u32::try_from(people).unwrap_or(1),
    }
}

/// The member of this number, as every sale tells of the same one.
fn guest(number: u64) -> Guest {
    let (given, family) = name(number);
    Guest { number, name: format!("{given} {family}"), phone: phone(number) }
}

fn name(number: u64) -> (&'static str, &'static str) {
    let index = usize::try_from(number % NAMES.len() as u64).expect("it is below the length of a slice");
    NAMES[index]
}

fn phone(number: u64) -> String {
    format!("138{number:08}")
}

fn supplier_order(world: &mut World, at: DateTime<Utc>) -> SupplierOrder {
    let begin = world.orders_begin;
    let chance = &mut world.chance;
    let lines: Vec<Line> = (0..=chance.below(4))
        .map(|_| {
            let (sku, name, price) = *chance.pick(&GOODS);
            let quantity = i64::try_from(chance.below(20) + 1).unwrap_or(1);
            Line { sku: sku.into(), name: name.into(), quantity, price }
        })
        .collect();
    let (supplier_id, supplier_name) = *chance.pick(&SUPPLIERS);
    SupplierOrder {
        state: begin,
        supplier_id: supplier_id.into(),
        supplier_name: supplier_name.into(),
        ordered_at: at,
        total: lines.iter().map(Line::total).sum(),
        lines,
    }
}

fn member(world: &mut World, number: u64, at: DateTime<Utc>) -> Member {
    let (given_name, family_name) = name(number);
    let chance = &mut world.chance;
    Member {
        given_name: given_name.into(),
        family_name: family_name.into(),
        phone: phone(number),
        email: chance.one_in(2).then(|| format!("guest{number}@example.com")),
        points: i64::try_from(chance.below(2_000)).unwrap_or(0),
        balance: i64::try_from(chance.below(50_000)).unwrap_or(0),
        last_visit: chance.one_in(2).then(|| at - TimeDelta::days(1)),
    }
}

fn payment(world: &mut World, number: u64, refund: bool) -> Payment {
    let chance = &mut world.chance;
    let amount = i64::try_from(chance.below(30_000) + 100).unwrap_or(100);
    let tip = if !refund && chance.one_in(4) { amount / 10 } else { 0 };
    Payment { of: number, refund, completed: !chance.one_in(8), amount, tip, pay: *chance.pick(&PAYS) }
}

/// Makes a record another one; false where it cannot change any more.
pub(super) fn correct(record: &mut Record) -> bool {
    let next_version = record.version + 1;
    match &mut record.body {
        Body::Sale(sale) => {
            let less = (sale.total / 10).max(1);
            if sale.kind != SaleKind::Sale || less >= sale.total {
                return false;
            }
            sale.discount += less;
            sale.total -= less;
        }
        Body::SupplierOrder(order) => match (order.state.next(), order.lines.first_mut()) {
            (Some(next), _) => order.state = next,
            // What has come is counted again, and there is one more.
            (None, Some(line)) if order.state == OrderState::Delivered => {
                line.quantity += 1;
                order.total += line.price;
            }
            _ => return false,
        },
        Body::Member(member) => {
            member.points += 10;
            member.balance += 100;
            let first = member.family_name.split(' ').next().unwrap_or_default();
            member.family_name = format!("{first} {next_version}");
        }
        // Money paid back is sent once: it can only get there.
        Body::Payment(payment) if payment.refund => {
            if payment.completed {
                return false;
            }
            payment.completed = true;
        }
        Body::Payment(payment) => {
            payment.completed = true;
            payment.tip += 1;
        }
    }
    true
}

/// Makes a sale or an order one that never happened; false where it is none.
pub(super) fn void(record: &mut Record) -> bool {
    match &mut record.body {
        Body::Sale(sale) if sale.kind == SaleKind::Sale => sale.kind = SaleKind::Void,
        Body::SupplierOrder(order) if order.state == OrderState::Pending => {
            order.state = OrderState::Cancelled;
        }
        _ => return false,
    }
    true
}

/// Makes a sale one that was paid back; false where there is nothing to pay back.
pub(super) fn refund(record: &mut Record) -> bool {
    match &mut record.body {
        Body::Sale(sale) if sale.kind == SaleKind::Sale => {
            sale.kind = SaleKind::Refund;
            true
        }
        _ => false,
    }
}

/// The refund of a sale, still without its id; `None` where there is nothing to pay back.
pub(super) fn refund_of(record: &Record, number: u64, at: DateTime<Utc>) -> Option<Record> {
    let sale = record.sale().filter(|sale| sale.kind == SaleKind::Sale && !record.deleted)?;
    let refund = Sale {
        kind: SaleKind::Refund,
        refund_of: Some(record.id.clone()),
        opened_at: at - PAID_BEFORE,
        paid_at: at - PAID_BEFORE,
        ..sale.clone()
    };
    let body = Body::Sale(refund);
    Some(Record { number, created_at: at, updated_at: at, version: 1, body, ..record.clone() })
}
