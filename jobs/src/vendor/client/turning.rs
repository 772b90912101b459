//! The address of a page, of a stream's list or of any other, and what of it may be kept: a vendor's own
//! link to the next page must not carry a credential into a run's position.

use reqwest::Url;
use serde_json::Value;

use super::super::manifest::{Pagination, PagingStyle, Request, Stream};
use super::super::paging::{self, PageToken};
use super::super::template::{self, Slots};
use super::Connection;
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
            page_offset: (pagination.style == PagingStyle::Offset).then_some(0),
            ..Slots::default()
        };
        match self.next {
            Some(PageToken::Page(number)) => slots.page_number = Some(*number),
            Some(PageToken::Offset(offset)) => slots.page_offset = Some(*offset),
            Some(PageToken::Cursor(cursor)) => slots.page_cursor = Some(cursor),
            Some(PageToken::Link(_)) | None => {}
        }
        slots
    }
}

impl Connection {
    /// The address of a page of any list.
    pub(super) fn turned_url(
        &self,
        turning: &Turning<'_>,
        slots: &Slots<'_>,
        name: &str,
    ) -> Result<Url, JobError> {
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
        if let Some(PageToken::Link(link)) = turning.next {
            return Ok(self.with_credentials(turning.request, paging::pinned(link, &self.endpoint)?));
        }
        let mut url = self.url(turning.request, slots)?;
        let number = |slot: Option<u64>| slot.map(Value::from);
        append(
            &mut url,
            [
                (pagination.size_param.as_ref(), number(slots.page_size)),
                (pagination.page_param.as_ref(), number(slots.page_number)),
                (pagination.offset_param.as_ref(), number(slots.page_offset)),
                (pagination.cursor_param.as_ref(), slots.page_cursor.map(Value::from)),
            ],
        );
        Ok(url)
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
            let secret: Vec<&str> = stream.request.credential_parameters().map(|(name, _)| name).collect();
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

    /// The link with those parameters again.
    fn with_credentials(&self, request: &Request, mut url: Url) -> Url {
        let slots = self.slots(Slots::default());
        for (name, template) in request.credential_parameters() {
            if let Some(value) = template.text(&slots)
                && !url.query_pairs().any(|(given, _)| given == name)
            {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        url
    }
}

/// Appends the parameters that have a name and a value.
pub(super) fn append<const COUNT: usize>(
    url: &mut Url,
    parameters: [(Option<&String>, Option<Value>); COUNT],
) {
    for (name, value) in parameters {
        if let (Some(name), Some(value)) = (name, value.as_ref().and_then(template::as_text)) {
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
}
