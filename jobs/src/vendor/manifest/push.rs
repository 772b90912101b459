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

#[cfg(test)]
mod tests {
    use super::super::super::manifest::Manifest;

    /// A manifest with this section `push`.
    fn parse(push: &str) -> Result<Manifest, Vec<String>> {
        let text = format!(
            "[meta]\nname='a'\ntitle='A'\ntypes=['member']\n[auth]\nkind='none'\n[probe]\nstream='s'\nmessage='m'\n\
             [streams.s]\ntarget='member_syncs'\nrequest.path='/'\nanswer.records='.'\nmapping.fields.member_id='no'\n{push}"
        );
        Manifest::parse("a.toml", &text).map_err(|errors| errors.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_a_body_all_that_is_known_is_sent() {
        let manifest = parse("[push.member]\npath='/members/{member.member_id}'").unwrap();
        let push = manifest.push.unwrap();
        assert_eq!(push.request.method, reqwest::Method::POST);
        assert!(push.request.body.is_some() && push.success.is_none() && push.external_id.is_empty());
        assert!(parse("").unwrap().push.is_none());
    }

    #[test]
    fn each_mistake_names_key_and_fix() {
        for (push, key, says) in [
            ("[push]", "push.member", "say how the vendor is told of a member"),
            ("[push.member]\nmethod='PUT'", "push.member.path", "is missing"),
            ("[push.member]\npath='members'", "push.member.path", "must begin with `/`"),
            ("[push.member]\npath='/m'\nmethod='GET'", "push.member.method", "expected one of `POST`"),
            (
                "[push.member]\npath='/m/{event.id}'",
                "push.member.path",
                "a placeholder that a push does not have",
            ),
            ("[push.member]\npath='/m/{member.no}'\nlimit='x'", "push.member.limit", "add `[limits.x]`"),
            (
                "[push.member]\npath='/m'\nsuccess='body.ok ='",
                "push.member.success",
                "is not a CEL expression",
            ),
            ("[push.member]\npath='/m'\nexternal_id='a..b'", "push.member.external_id", "is no path"),
            ("[push.member]\npath='/m'\nbodi.a=1", "push.member.bodi", "did you mean `body`?"),
            ("[push.order]\npath='/m'", "push.order", "is not a key"),
        ] {
            let found = parse(push).unwrap_err();
            let told = found
                .iter()
                .any(|line| line.starts_with(&format!("a.toml: `{key}`: ")) && line.contains(says));
            assert!(told, "{push}: expected `{key}` … {says}, found {found:#?}");
        }
    }
}
