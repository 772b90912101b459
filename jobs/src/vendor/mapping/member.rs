//! The fields of a member. Beside `mapping.rs`, as those of a supplier order are: a member has two names, and
//! points that are no money.

use serde_json::Value;
use zhilian_sync_store::member_syncs::IncomingMember;

use super::field::{Field, Scope};
use super::{Surroundings, currency, flag, minor, text, time};

#[derive(Debug)]
pub(super) struct MemberFields {
    /// The number; unique within a system.
    pub(super) member_id: Field,
    /// The vendor's own id.
    pub(super) external_id: Option<Field>,
    pub(super) phone: Option<Field>,
    pub(super) name: Option<Field>,
    pub(super) email: Option<Field>,
    pub(super) level: Option<Field>,
    pub(super) points: Option<Field>,
    pub(super) balance: Option<Field>,
    pub(super) currency: Option<Field>,
    pub(super) last_activity: Option<Field>,
    pub(super) shop: Option<Field>,
    pub(super) version_at: Option<Field>,
    pub(super) deleted: Option<Field>,
}

impl MemberFields {
    pub(super) fn map(
        &self,
        member_id: String,
        scope: Scope<'_>,
        around: &Surroundings<'_>,
    ) -> Result<IncomingMember, String> {
        let scope =
            Scope { currency: currency(self.currency.as_ref(), scope)?.unwrap_or(around.currency), ..scope };
        Ok(IncomingMember {
            member_id,
            external_member_id: self.external_id.as_ref().map_or(Ok(None), |field| field.id(scope))?,
            phone: text(self.phone.as_ref(), scope)?,
            name: text(self.name.as_ref(), scope)?,
            email: text(self.email.as_ref(), scope)?,
            level: text(self.level.as_ref(), scope)?,
            points: self.points.as_ref().map_or(Ok(None), |field| points(field, scope))?,
            balance: minor(self.balance.as_ref(), scope)?,
            currency: scope.currency,
            last_activity: time(self.last_activity.as_ref(), scope)?,
            shop: text(self.shop.as_ref(), scope)?,
            version_at: time(self.version_at.as_ref(), scope)?,
            observed_at: None,
            deleted: flag(self.deleted.as_ref(), scope)?,
            raw: scope.record.to_string(),
        })
    }
}

/// A whole number; `120.0` is one too.
fn points(field: &Field, scope: Scope<'_>) -> Result<Option<i64>, String> {
    let Some(value) = field.json(scope)? else {
        return Ok(None);
    };
    let text = match &value {
        Value::Number(number) => number.to_string(),
        other => return Err(field.reason(&format!("`{other}` is not a number of points"))),
    };
    let whole = text.split_once('.').map_or(text.as_str(), |(whole, rest)| {
        if rest.bytes().all(|digit| digit == b'0') { whole } else { text.as_str() }
    });
    let read = whole.parse().map_err(|_| field.reason(&format!("`{text}` is not a whole number of points")));
    read.map(Some)
}
