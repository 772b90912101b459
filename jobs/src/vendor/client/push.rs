//! A member on its way to the vendor: the call that `[push.member]` describes, with the policy, the budgets and
//! the redaction of every other call.

use serde_json::Value;

use super::super::manifest::push::PushSpec;
use super::super::path;
use super::super::template::{self, JsonTemplate, Slot, Slots};
use super::Connection;
use super::call::Call;
use super::fetch::is_plain_id;
use crate::outcome::JobError;

/// What a vendor answered to a member.
#[derive(Debug)]
pub(crate) struct PushAnswer {
    /// Its own id of the member, if it told one.
    pub(crate) external_id: Option<String>,
    /// What we asked, without secrets.
    pub(crate) request_sample: Value,
    /// The beginning of the answer, without secrets.
    pub(crate) response_sample: Value,
}

impl Connection {
    /// Tells the vendor of a member, whose fields are those of an object.
    pub(crate) async fn push_member(&self, member: &Value) -> Result<PushAnswer, JobError> {
        let push = self.manifest.push.as_ref().ok_or_else(|| {
            let title = &self.manifest.title;
            JobError::give_up("cannot_push", format!("{title} takes no members; add `[push.member]`"))
        })?;
        self.check_member(push, member)?;
        let slots = self.slots(Slots { member: Some(member), ..Slots::default() });
        let success = push.success.as_ref().or(self.manifest.envelope.success.as_ref());
        let answer = self.call(&Call::new(&push.request, slots, success)).await?;
        let found = path::first_present(&push.external_id, &answer.body).and_then(template::as_text);
        // An answer that repeats one of our keys in the place of an id has none.
        let external_id = found.filter(|id| is_plain_id(id)).filter(|id| self.redact(id) == *id);
        Ok(PushAnswer {
            external_id,
            request_sample: answer.request_sample,
            response_sample: answer.response_sample,
        })
    }

    /// Whether the member has what the address names. An id such as `..` would lead to another address.
    fn check_member(&self, push: &PushSpec, member: &Value) -> Result<(), JobError> {
        for slot in push.request.path.slots() {
            let Slot::Member(path) = slot else { continue };
            let found = path.find(member).and_then(template::as_text);
            if found.as_deref().is_none_or(|text| matches!(text, "" | "." | "..")) {
                let message = format!(
                    "the member has no `{}` that the address of {} could name; complete the member, or correct \
                     `push.member.path`",
                    path.as_str(),
                    self.manifest.title
                );
                return Err(JobError::give_up("member_incomplete", message));
            }
        }
        Ok(())
    }
}

/// What is sent where a manifest names no body: all that is known of the member.
pub(in crate::vendor) fn whole_member() -> JsonTemplate {
    let names = [
        "member_id",
        "external_id",
        "phone",
        "name",
        "email",
        "level",
        "points",
        "balance",
        "currency",
        "store_id",
    ];
    let fields = names.into_iter().filter_map(|name| {
        let template = template::Template::parse(&format!("{{member.{name}}}")).ok()?;
        Some((name.to_owned(), JsonTemplate::Text(template)))
    });
    JsonTemplate::Object(fields.collect())
}
