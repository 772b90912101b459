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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zhilian_sync_store::Currency;

    use super::super::super::manifest::Manifest;
    use super::super::{Mapped, Optional};
    use super::*;

    const FIELDS: &str = r#"
        member_id = "no"
        external_id = "id"
        phone = ["mobile", "phone"]
        name = "name"
        points = "credit"
        balance = { path = "purse", unit = "minor" }
        currency = "cur"
        last_activity = "seen"
        deleted = "gone"
    "#;

    fn map(fields: &str, record: &Value) -> Mapped {
        let text = format!(
            "[meta]\nname='a'\ntitle='A'\ntypes=['member']\n[auth]\nkind='none'\n[probe]\nstream='s'\nmessage='m'\n\
             [streams.s]\ntarget='member_syncs'\nrequest.path='/'\nanswer.records='.'\n[streams.s.mapping.fields]\n{fields}"
        );
        let manifest = Manifest::parse("a.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
        let config = json!({});
        let around = Surroundings {
            stream: "s",
            config: &config,
            currency: Currency::CNY,
            zone: chrono_tz::Asia::Shanghai,
            asked_at: chrono::DateTime::UNIX_EPOCH,
            optional: Optional::default(),
        };
        manifest.stream("s").unwrap().mapping.map(std::slice::from_ref(record), &around)
    }

    fn one(record: &Value) -> Result<IncomingMember, String> {
        let mut mapped = map(FIELDS, record);
        mapped.members.pop().ok_or_else(|| mapped.failures.remove(0).reason)
    }

    #[test]
    fn a_member_is_what_the_fields_say() {
        let told = json!({
            "no": 7, "id": "V-7", "phone": "13800000000", "name": "", "credit": "120.0", "purse": 52_000,
            "seen": "2026-01-01 12:00:00", "gone": false,
        });
        let member = one(&told).unwrap();
        assert_eq!((member.member_id.as_str(), member.external_member_id.as_deref()), ("7", Some("V-7")));
        assert_eq!((member.phone.as_deref(), member.name), (Some("13800000000"), None));
        assert_eq!((member.points, member.balance), (Some(120), Some(52_000)));
        assert_eq!(member.last_activity.unwrap().to_rfc3339(), "2026-01-01T04:00:00+00:00");
        assert_eq!((member.currency, member.deleted), (Currency::CNY, false));
        // What is not told is not nought.
        let silent = one(&json!({"no": "8", "gone": 1, "cur": "JPY"})).unwrap();
        assert_eq!((silent.points, silent.balance, silent.currency), (None, None, "JPY".parse().unwrap()));
        assert!(silent.deleted);
    }

    #[test]
    fn a_member_that_cannot_be_read_says_which_field() {
        let reason = |record: Value| one(&record).unwrap_err();
        assert!(reason(json!({"credit": 1})).starts_with("`member_id` (from `no`): "), "no number");
        let half = reason(json!({"no": 1, "credit": 1.5}));
        assert_eq!(half, "`points` (from `credit`): `1.5` is not a whole number of points");
        let many = reason(json!({"no": 1, "credit": "1e3"}));
        assert!(many.contains("is not a"), "{many}");
        let listed = reason(json!({"no": 1, "credit": [1]}));
        assert_eq!(listed, "`points` (from `credit`): expected a number, found a list");
        let broken = reason(json!({"no": 1, "purse": "1.5"}));
        assert!(broken.starts_with("`balance` (from `purse`): "), "{broken}");
    }
}
