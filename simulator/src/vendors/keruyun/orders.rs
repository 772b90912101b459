//! The orders of Keruyun: listed by the time when they were opened, and told in full one by one.
//!
//! Only the full order names the member, the dishes and the payments; that the member is in `orderBaseVO` is
//! a guess.

use chrono::Timelike as _;
use serde_json::{Value, json};

use super::super::china::{business_day, page, read_wall_time, wall_time};
use super::{SHOP, customer_id, parameters};
use crate::vendor::{Mistake, Request, Scene, window};
use crate::world::{Line, Pay, Record, Sale, SaleKind};

/// The largest page.
const PAGE_SIZE_MAX: u64 = 100;

/// A page of the orders that were opened in a window; both its ends belong to it.
pub(super) fn list(request: &Request, scene: &mut Scene<'_>) -> Result<Value, Mistake> {
    let mut asked = parameters(request)?;
    let shops = asked.texts("shopIds")?.ok_or_else(|| Mistake::new("shopIds", "is missing"))?;
    if shops != [SHOP] {
        return Err(Mistake::new("shopIds", "names another shop than the call is signed for"));
    }
    // 1 is the time when an order was opened; the other kinds are not known.
    asked.only("dateType", &["1"])?.ok_or_else(|| Mistake::new("dateType", "is missing"))?;
    let (from, to) = (asked.parsed("startDate", read_wall_time)?, asked.parsed("endDate", read_wall_time)?);
    window(from, to, "endDate")?;
    let from = from.ok_or_else(|| Mistake::new("startDate", "is missing"))?;
    let to = to.ok_or_else(|| Mistake::new("endDate", "is missing"))?;
    let (types, states) = (asked.texts("orderTypes")?, asked.texts("orderStatuses")?);
    let number = asked.number("pageNum", 1..=u64::MAX)?.unwrap_or(1);
    let size = asked.size("pageSize", PAGE_SIZE_MAX, PAGE_SIZE_MAX)?;
    asked.finish()?;
    let wanted = |record: &&Record| {
        let Some(sale) = record.sale() else {
            return false;
        };
        let opened = sale.opened_at.with_nanosecond(0).unwrap_or(sale.opened_at);
        let state = state(sale.kind);
        from <= opened
            && opened <= to
            && types.as_ref().is_none_or(|types| types.iter().any(|kind| kind == "1"))
            && states.as_ref().is_none_or(|all| all.iter().any(|one| one == state.0 || one == state.1))
    };
    let (listed, total) = page(scene.world.records("orders").filter(wanted), number, size);
    let orders: Vec<Value> = scene.list("orders", listed).iter().filter_map(order).collect();
    Ok(json!({"success": true, "data": {
        "totalCount": total.to_string(),
        "pageNo": number.to_string(),
        "pageSize": size.to_string(),
        "totalPage": total.div_ceil(size).to_string(),
        "list": orders,
    }}))
}

/// One order in full.
pub(super) fn detail(request: &Request, scene: &Scene<'_>) -> Result<Value, Mistake> {
    let mut asked = parameters(request)?;
    let id = asked.needed("orderId")?;
    asked.finish()?;
    let found = scene.world.record("orders", &id).and_then(full);
    Ok(match found {
        Some(data) => json!({"success": true, "data": data}),
        None => json!({"success": false, "message": "订单不存在", "data": null}),
    })
}

/// An order as it is listed; `None` of what is no sale. Amounts are texts of whole fen.
fn order(record: &Record) -> Option<Value> {
    let sale = record.sale()?;
    let state = state(sale.kind);
    Some(json!({
        "brandId": "32296",
        "shopId": record.shop,
        "orderId": record.id,
        "busiOrderNo": format!("1012{:017}", record.number),
        // The clients give a number and a name for each state, and not which of them is sent.
        "orderStatus": if record.number.is_multiple_of(2) { state.0 } else { state.1 },
        "orderType": "1",
        "orderAmt": (sale.subtotal + sale.tax).to_string(),
        "promoAmt": sale.discount.to_string(),
        "orderReceivedAmt": sale.total.to_string(),
        "openTime": wall_time(sale.opened_at),
        "finishTime": wall_time(sale.paid_at),
        "thirdOrderNo": "",
        "serialNo": record.number.to_string(),
    }))
}

/// An order in full; `None` of what is no sale.
fn full(record: &Record) -> Option<Value> {
    let (sale, mut base) = (record.sale()?, order(record)?);
    base["settleTime"] = json!(wall_time(sale.paid_at));
    base["finishBusiDate"] = json!(business_day(sale.paid_at).to_string());
    base["orderPeopleCnt"] = json!(sale.people.to_string());
    if let Some(guest) = &sale.guest {
        base["memberId"] = json!(customer_id(guest.number));
        base["memberPhone"] = json!(guest.phone);
        base["memberName"] = json!(guest.name);
    }
    Some(json!({
        "orderBaseVO": base,
        "orderTableVoList": [{"tableName": sale.table}],
        "orderItemVoList": sale.lines.iter().map(item).collect::<Vec<_>>(),
        "openPaymentDetailVoList": [payment(sale)],
    }))
}

fn item(line: &Line) -> Value {
    json!({
        "itemId": line.sku,
        "itemName": line.name,
        "quantity": format!("{}.0000", line.quantity),
        "salePrice": line.price.to_string(),
        "itemReceivedAmt": line.total().to_string(),
        "unitName": "份",
    })
}

fn payment(sale: &Sale) -> Value {
    let (id, name) = match sale.pay {
        Pay::Cash => ("1", "现金"),
        Pay::Card => ("2", "银行卡"),
        Pay::WeChat => ("3", "微信支付"),
        Pay::Alipay => ("4", "支付宝"),
    };
    json!({"payMethodId": id, "payMethodName": name, "actualReceiveAmt": sale.total.to_string()})
}

/// Number and name of a state.
const fn state(kind: SaleKind) -> (&'static str, &'static str) {
    match kind {
        SaleKind::Sale => ("5", "SETTLED"),
        SaleKind::Refund => ("6", "REFUND"),
        SaleKind::Void => ("9", "CANCELLED"),
    }
}
