//! What goes to the vendor: `[push.member]` says how it is told of a member.

use super::super::expression::Expression;
use super::super::path::Path;
use super::super::template::Slot;
use super::section::Section;
use super::stream::Request;
use super::stream::read::read_request_of;
use crate::vendor::client::whole_member;

/// How a vendor is told of a member.
#[derive(Debug)]
pub(crate) struct PushSpec {
    pub(crate) request: Request,
    pub(crate) success: Option<Expression>,
    /// Where the vendor's id of the member is in the answer.
    pub(crate) external_id: Vec<Path>,
}

/// Reads the section `push`.
pub(super) fn read_push(section: Section<'_>) -> Option<PushSpec> {
    let member = section.required(
        "member",
        section.section("member"),
        "say how the vendor is told of a member, as `member.path = \"/members\"`",
    );
    let push = member.and_then(read_member);
    section.finish();
    push
}

fn read_member(section: Section<'_>) -> Option<PushSpec> {
    let methods =
        [("POST", reqwest::Method::POST), ("PUT", reqwest::Method::PUT), ("PATCH", reqwest::Method::PATCH)];
    let request = read_request_of(&section, &methods);
    let success = section.expression("success", &["status", "body"]);
    let external_id = section.paths("external_id").unwrap_or_default();
    for slot in request.iter().flat_map(Request::slots) {
        let known = matches!(
            slot,
            Slot::Member(_) | Slot::Config(_) | Slot::Credential(_) | Slot::RequestTime | Slot::Token
        );
        if !known {
            section.problem(
                "path",
                "uses a placeholder that a push does not have; known here are `{member.…}`, `{config.…}`, \
                 `{credential.…}`, `{request.time}` and `{token}`",
            );
        }
    }
    section.finish();
    let mut request = request?;
    request.body.get_or_insert_with(whole_member);
    Some(PushSpec { request, success, external_id })
}
