//! The call for a page, of a stream's list or of any other, and what of it may be kept: a vendor's own
//! link to the next page must not carry a credential into a run's position.

use reqwest::Url;
use serde_json::Value;

use super::super::expression::Expression;
use super::super::manifest::{Pagination, PagingStyle, Request, Stream};
use super::super::paging::{self, PageToken};
use super::super::template::Slots;
use super::call::Call;
use super::{Connection, build};
use crate::outcome::JobError;

/// A page of some list: of a stream, or of what a stream is read for each of.
pub(super) struct Turning<'a> {
    pub(super) request: &'a Request,
    pub(super) pagination: &'a Pagination,
    pub(super) next: Option<&'a PageToken>,
}

impl<'a> Turning<'a> {
    /// The page's part of the placeholders.
    pub(super) fn slots(&self) -> Slots<'a> {
        let pagination = self.pagination;
        let mut slots = Slots {
            page_size: pagination.size,
            page_number: (pagination.style == PagingStyle::Page).then_some(pagination.first_page),
            page_version: (pagination.style == PagingStyle::Version).then_some(pagination.first_version),
            page_offset: (pagination.style == PagingStyle::Offset).then_some(0),
            ..Slots::default()
        };
        match self.next {
            Some(PageToken::Page(number)) => slots.page_number = Some(*number),
            Some(PageToken::Offset(offset)) => slots.page_offset = Some(*offset),
            Some(PageToken::Cursor(cursor)) => slots.page_cursor = Some(cursor),
            Some(PageToken::Version(version)) => slots.page_version = Some(*version),
            Some(PageToken::Link(_)) | None => {}
        }
        slots
    }
}

impl Connection {
    /// The call for a page of any list.
    pub(super) fn turned_call<'a>(
        &self,
        turning: &Turning<'a>,
        slots: Slots<'a>,
        success: Option<&'a Expression>,
        name: &str,
    ) -> Result<Call<'a>, JobError> {
        let pagination = turning.pagination;
        if let Some(token) = turning.next
            && !paging::fits(pagination, token)
        {
            return Err(JobError::give_up(
                "bad_position",
                format!(
                    "the position of `{name}` is of another kind than the manifest's `pagination`; start it anew"
                ),
            ));
        }
        let mut call = Call::new(turning.request, slots, success);
        if let Some(PageToken::Link(link)) = turning.next {
            call.link = Some(paging::pinned(link, &self.endpoint)?);
            return Ok(call);
        }
        let slots = &call.slots;
        let number = |slot: Option<u64>| slot.map(Value::from);
        let parameters = [
            (pagination.size_param.as_ref(), number(slots.page_size)),
            (pagination.page_param.as_ref(), number(slots.page_number)),
            (pagination.offset_param.as_ref(), number(slots.page_offset)),
            (pagination.cursor_param.as_ref(), slots.page_cursor.map(Value::from)),
            (pagination.version_param.as_ref(), number(slots.page_version)),
        ];
        call.parameters = named(parameters).collect();
        Ok(call)
    }

    /// A vendor's link to a page as it may be kept: without the query parameters that hold secrets.
    pub(super) fn without_credentials(
        &self,
        stream: &Stream,
        token: PageToken,
    ) -> Result<PageToken, JobError> {
        let text = match &token {
            PageToken::Link(text) | PageToken::Cursor(text) if self.redact(text) != *text => text,
            _ => return Ok(token),
        };
        if let (PageToken::Link(_), Ok(mut url)) = (&token, Url::parse(text)) {
            let common = &self.manifest.connection;
            let ours = stream.request.query.iter().chain(&common.query).chain(&common.parameters);
            let secret: Vec<&str> = ours
                .filter(|(_, template)| build::holds_secret(template))
                .map(|(name, _)| name.as_str())
                .collect();
            let kept: Vec<(String, String)> =
                url.query_pairs().into_owned().filter(|(name, _)| !secret.contains(&name.as_str())).collect();
            url.query_pairs_mut().clear().extend_pairs(kept);
            if self.redact(url.as_str()) == url.as_str() {
                return Ok(PageToken::Link(url.into()));
            }
        }
        let message =
            format!("the token that {} gives for the next page repeats a credential", self.manifest.title);
        Err(JobError::give_up("page_link_refused", message))
    }
}

/// The parameters that have a name and a value.
pub(super) fn named<const COUNT: usize>(
    parameters: [(Option<&String>, Option<Value>); COUNT],
) -> impl Iterator<Item = (&str, Value)> {
    parameters.into_iter().filter_map(|(name, value)| Some((name?.as_str(), value?)))
}
