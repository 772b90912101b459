//! The fields of a supplier order. Beside `mapping.rs`, which holds those of the other tables, because
//! an order has two names and more dates than they have.

use zhilian_sync_store::supplier_orders::IncomingSupplierOrder;
use zhilian_sync_store::{SupplierOrderStatus, SupplierOrderType};

use super::field::{Field, Scope};
use super::{Surroundings, currency, flag, json, minor, text, time};

#[derive(Debug)]
pub(super) struct OrderFields {
    /// The number; unique within a system.
    pub(super) order_number: Field,
    /// The vendor's own id.
    pub(super) external_id: Option<Field>,
    pub(super) supplier_id: Option<Field>,
    pub(super) supplier_name: Option<Field>,
    pub(super) order_type: Option<Field>,
    pub(super) status: Option<Field>,
    pub(super) currency: Option<Field>,
    pub(super) subtotal: Option<Field>,
    pub(super) tax: Option<Field>,
    pub(super) shipping: Option<Field>,
    pub(super) total: Field,
    pub(super) items: Option<Field>,
    pub(super) delivery: Option<Field>,
    pub(super) tracking_number: Option<Field>,
    pub(super) shop: Option<Field>,
    pub(super) order_date: Option<Field>,
    pub(super) expected_delivery: Option<Field>,
    pub(super) actual_delivery: Option<Field>,
    pub(super) version_at: Option<Field>,
    pub(super) deleted: Option<Field>,
}

impl OrderFields {
    pub(super) fn map(
        &self,
        order_number: String,
        scope: Scope<'_>,
        around: &Surroundings<'_>,
    ) -> Result<IncomingSupplierOrder, String> {
        let scope =
            Scope { currency: currency(self.currency.as_ref(), scope)?.unwrap_or(around.currency), ..scope };
        let deleted = flag(self.deleted.as_ref(), scope)?;
        let version_at = time(self.version_at.as_ref(), scope)?;
        let total = match self.total.minor(scope)? {
            Some(total) => total,
            None if deleted || around.optional.total => 0,
            None => return Err(self.total.reason("there is no value")),
        };
        Ok(IncomingSupplierOrder {
            order_number,
            external_order_id: self.external_id.as_ref().map_or(Ok(None), |field| field.id(scope))?,
            supplier_id: text(self.supplier_id.as_ref(), scope)?,
            supplier_name: text(self.supplier_name.as_ref(), scope)?,
            order_type: word(self.order_type.as_ref(), scope)?.unwrap_or(SupplierOrderType::Purchase),
            status: word(self.status.as_ref(), scope)?.unwrap_or(SupplierOrderStatus::Pending),
            currency: scope.currency,
            subtotal: minor(self.subtotal.as_ref(), scope)?.unwrap_or(0),
            tax: minor(self.tax.as_ref(), scope)?.unwrap_or(0),
            shipping: minor(self.shipping.as_ref(), scope)?.unwrap_or(0),
            total,
            items: json(self.items.as_ref(), scope)?,
            delivery: json(self.delivery.as_ref(), scope)?,
            tracking_number: text(self.tracking_number.as_ref(), scope)?,
            shop: text(self.shop.as_ref(), scope)?,
            // As the seed has it: an order without a date was made when we heard of it.
            order_date: time(self.order_date.as_ref(), scope)?.unwrap_or(around.asked_at),
            expected_delivery: time(self.expected_delivery.as_ref(), scope)?,
            actual_delivery: time(self.actual_delivery.as_ref(), scope)?,
            version_at,
            observed_at: None,
            deleted,
            raw: scope.record.to_string(),
        })
    }

    /// Whether the record tells more than which order it is.
    pub(super) fn is_whole(&self, scope: Scope<'_>) -> bool {
        self.total.minor(scope).is_ok_and(|total| total.is_some())
    }
}

/// One of our words.
fn word<T>(field: Option<&Field>, scope: Scope<'_>) -> Result<Option<T>, String>
where
    T: std::str::FromStr<Err = String>,
{
    let (Some(field), Some(word)) = (field, text(field, scope)?) else {
        return Ok(None);
    };
    word.parse().map(Some).map_err(|problem: String| field.reason(&problem))
}
