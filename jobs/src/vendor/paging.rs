//! From one page to the next: by number, by offset, by a token, by a `Link` header. When a list ends is
//! said by the vendor where it says so, else by an empty or a short page. [`CursorGuard`] ends the
//! lists that never do.

use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::manifest::{Pagination, PagingStyle};
use super::path::{self, Path};
use super::template;
use crate::outcome::JobError;

/// The longest token that is kept with a run's position.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Which page; kept in a run's position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageToken {
    /// By number.
    Page(u64),
    /// By the count of records before it.
    Offset(u64),
    /// By the vendor's token.
    Cursor(String),
    /// By the vendor's own address of it.
    Link(String),
    /// By the greatest version before it.
    Version(u64),
}

/// What a page said about the next one.
pub(crate) struct Turned<'a> {
    pub(crate) body: &'a Value,
    /// The `Link` header.
    pub(crate) link: Option<&'a str>,
    /// The address that was called, which relative links are relative to.
    pub(crate) url: &'a Url,
    /// How many records the page had.
    pub(crate) records: u64,
    /// The greatest version among them.
    pub(crate) version: Option<u64>,
}

/// The token of the page after this one; nothing where the list ends.
pub(crate) fn next_page(
    pagination: &Pagination,
    current: Option<&PageToken>,
    turned: &Turned<'_>,
) -> Result<Option<PageToken>, JobError> {
    let token = match pagination.style {
        PagingStyle::None => None,
        PagingStyle::Page => {
            let number = match current {
                Some(PageToken::Page(number)) => *number,
                _ => pagination.first_page,
            };
            more_pages(pagination, number, turned).then(|| PageToken::Page(number.saturating_add(1)))
        }
        PagingStyle::Offset => {
            let offset = match current {
                Some(PageToken::Offset(offset)) => *offset,
                _ => 0,
            };
            let after = offset.saturating_add(turned.records);
            let more = turned.records > 0
                && flag(pagination.has_more.as_ref(), turned.body)
                    .or_else(|| Some(after < number(pagination.total_records.as_ref()?, turned.body)?))
                    .unwrap_or_else(|| full_page(pagination, turned.records));
            more.then_some(PageToken::Offset(after))
        }
        PagingStyle::Cursor => {
            let more = flag(pagination.has_more.as_ref(), turned.body).unwrap_or(true);
            let found = path::first_present(&pagination.cursor, turned.body).filter(|_| more);
            found.and_then(template::as_text).filter(|text| !text.is_empty()).map(PageToken::Cursor)
        }
        // Without a size only a page that brings nothing newer is known to be the last.
        PagingStyle::Version => {
            let before = match current {
                Some(PageToken::Version(version)) => *version,
                _ => pagination.first_version,
            };
            let more = match pagination.size {
                Some(_) => full_page(pagination, turned.records),
                None => turned.version.is_some_and(|version| version > before),
            };
            turned.version.filter(|_| more).map(PageToken::Version)
        }
        PagingStyle::Link => match turned.link.and_then(next_link) {
            Some(target) => Some(PageToken::Link(pinned(&target, turned.url)?.into())),
            None => None,
        },
    };
    if let Some(PageToken::Cursor(text) | PageToken::Link(text)) = &token
        && text.len() > TOKEN_BYTES_MAX
    {
        return Err(JobError::give_up(
            "page_token_too_long",
            format!(
                "the vendor's token for the next page has {} bytes; at most {TOKEN_BYTES_MAX} are kept",
                text.len()
            ),
        ));
    }
    Ok(token)
}

/// Whether a token is of the kind that the manifest turns pages with.
pub(crate) fn fits(pagination: &Pagination, token: &PageToken) -> bool {
    matches!(
        (pagination.style, token),
        (PagingStyle::Page, PageToken::Page(_))
            | (PagingStyle::Offset, PageToken::Offset(_))
            | (PagingStyle::Cursor, PageToken::Cursor(_))
            | (PagingStyle::Link, PageToken::Link(_))
            | (PagingStyle::Version, PageToken::Version(_))
    )
}

/// A vendor's address of a page, only where it stays on the host that was called.
pub(crate) fn pinned(target: &str, called: &Url) -> Result<Url, JobError> {
    let url = called.join(target).map_err(|_| {
        JobError::give_up("bad_page_link", "the vendor's link to the next page is not an address".to_owned())
    })?;
    if url.origin() == called.origin() && url.username().is_empty() && url.password().is_none() {
        return Ok(url);
    }
    Err(JobError::give_up(
        "page_link_refused",
        format!(
            "the vendor's link to the next page leads to another host, `{}`; the credentials stay with `{}`",
            url.host_str().unwrap_or_default(),
            called.host_str().unwrap_or_default()
        ),
    ))
}

fn more_pages(pagination: &Pagination, page: u64, turned: &Turned<'_>) -> bool {
    let pages_done = page.saturating_sub(pagination.first_page).saturating_add(1);
    if let Some(total) = pagination.total_pages.as_ref().and_then(|path| number(path, turned.body)) {
        return pages_done < total;
    }
    if let Some(more) = flag(pagination.has_more.as_ref(), turned.body) {
        return more && turned.records > 0;
    }
    let total = pagination.total_records.as_ref().and_then(|path| number(path, turned.body));
    if let (Some(total), Some(size)) = (total, pagination.size) {
        return turned.records > 0 && pages_done.saturating_mul(size) < total;
    }
    full_page(pagination, turned.records)
}

/// Without any word of the vendor: a page that is not full is the last.
fn full_page(pagination: &Pagination, records: u64) -> bool {
    records > 0 && (!pagination.short_page_ends || pagination.size.is_none_or(|size| records >= size))
}

fn number(path: &Path, body: &Value) -> Option<u64> {
    template::as_text(path.find(body)?)?.parse().ok()
}

fn flag(path: Option<&Path>, body: &Value) -> Option<bool> {
    match path?.find(body)? {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => Some(number.as_f64() != Some(0.0)),
        Value::String(text) => {
            Some(!matches!(text.to_ascii_lowercase().as_str(), "" | "0" | "false" | "n" | "no"))
        }
        _ => None,
    }
}

/// The target of `rel="next"` in a `Link` header (RFC 8288).
fn next_link(header: &str) -> Option<String> {
    let mut rest = header;
    while let Some(open) = rest.find('<') {
        let (target, after) = rest[open + 1..].split_once('>')?;
        // The parameters reach to the comma that ends the link, outside of quotes.
        let mut quoted = false;
        let end = after
            .find(|sign: char| {
                quoted ^= sign == '"';
                sign == ',' && !quoted
            })
            .unwrap_or(after.len());
        let is_next =
            after[..end].split(';').filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value
                        .trim()
                        .trim_matches('"')
                        .split_ascii_whitespace()
                        .any(|rel| rel.eq_ignore_ascii_case("next"))
            });
        if is_next {
            return Some(target.trim().to_owned());
        }
        rest = &after[end..];
    }
    None
}

/// Finds tokens that repeat, in memory that does not grow.
///
/// The token of a page is compared with the one before it and with one that is moved on at every power of two (Brent), so a circle of any
/// length is met before it has been walked three times. Kept with the run's position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorGuard {
    pages: u32,
    pages_max: u32,
    last: String,
    anchor: String,
    /// How many pages after the anchor the next one is set: one, two, four, eight.
    distance: u64,
    steps: u64,
}

impl CursorGuard {
    /// A guard that lets through so many pages.
    #[must_use]
    pub fn new(pages_max: u32) -> Self {
        // The first page counts too: it has no token.
        Self { pages: 1, pages_max, last: String::new(), anchor: String::new(), distance: 0, steps: 0 }
    }

    /// Refuses the next page where its token was met before, or where there are too many pages.
    pub fn check(&mut self, next: &PageToken) -> Result<(), JobError> {
        let token = fingerprint(next);
        if token == self.last || token == self.anchor {
            return Err(JobError::give_up(
                "cursor_repeats",
                "the vendor's cursor repeats, so the list would never end; what was read is kept; ask the vendor, or \
                 correct `pagination` in the manifest",
            ));
        }
        self.pages = self.pages.saturating_add(1);
        if self.pages > self.pages_max {
            return Err(JobError::give_up(
                "too_many_pages",
                format!(
                    "the list has more than {} pages; read a shorter time with a backfill, or raise `pages_max` of the \
                     manifest or `vendors.pages_max` of the settings",
                    self.pages_max
                ),
            ));
        }
        if self.steps == self.distance {
            self.anchor.clone_from(&token);
            self.distance = self.distance.saturating_mul(2).max(1);
            self.steps = 0;
        }
        self.steps = self.steps.saturating_add(1);
        self.last = token;
        Ok(())
    }
}

/// Tokens may be long; sixteen bytes of their hash tell them apart.
fn fingerprint(token: &PageToken) -> String {
    let text = match token {
        PageToken::Page(number) => format!("page {number}"),
        PageToken::Offset(offset) => format!("offset {offset}"),
        PageToken::Cursor(text) => format!("cursor {text}"),
        PageToken::Link(text) => format!("link {text}"),
        PageToken::Version(version) => format!("version {version}"),
    };
    hex::encode(&Sha256::digest(text.as_bytes())[..16])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pagination(toml: &str) -> Pagination {
        let text = format!(
            "[meta]\nname='a'\ntitle='A'\ntypes=['pos']\n[auth]\nkind='none'\n[probe]\nstream='s'\nmessage='m'\n\
             [streams.s]\ntarget='external_records'\nrequest.path='/'\nanswer.records='.'\n\
             mapping.fields.external_id='id'\n[streams.s.pagination]\n{toml}"
        );
        let mut manifest = super::super::manifest::Manifest::parse("a.toml", &text).unwrap();
        manifest.streams.remove(0).pagination
    }

    fn turn(
        pagination: &Pagination,
        current: Option<&PageToken>,
        body: &Value,
        records: u64,
    ) -> Option<PageToken> {
        let url = "https://a.example/list?page=1".parse().unwrap();
        next_page(pagination, current, &Turned { body, link: None, url: &url, records, version: None })
            .unwrap()
    }

    #[test]
    fn numbered_pages_end_as_the_vendor_says() {
        let plain = pagination("style='page'\npage_param='p'\nsize=2");
        assert_eq!(turn(&plain, None, &json!([]), 2), Some(PageToken::Page(2)));
        assert_eq!(turn(&plain, Some(&PageToken::Page(7)), &json!([]), 1), None, "a short page");
        assert_eq!(turn(&plain, Some(&PageToken::Page(7)), &json!([]), 0), None, "an empty page");
        let unsized_page = pagination("style='page'\npage_param='p'");
        assert_eq!(turn(&unsized_page, None, &json!([]), 1), Some(PageToken::Page(2)));
        let total = pagination("style='page'\npage_param='p'\nsize=2\ntotal_pages='pages'");
        assert_eq!(turn(&total, None, &json!({"pages": "2"}), 1), Some(PageToken::Page(2)), "the total wins");
        assert_eq!(turn(&total, Some(&PageToken::Page(2)), &json!({"pages": 2}), 2), None);
        assert_eq!(turn(&total, None, &json!({}), 1), None, "without a total the short page ends");
        let zero = pagination("style='page'\npage_param='p'\nfirst_page=0\ntotal_pages='pages'");
        assert_eq!(turn(&zero, None, &json!({"pages": 2}), 1), Some(PageToken::Page(1)));
        assert_eq!(turn(&zero, Some(&PageToken::Page(1)), &json!({"pages": 2}), 1), None);
        let records = pagination("style='page'\npage_param='p'\nsize=2\ntotal_records='total'");
        assert_eq!(turn(&records, None, &json!({"total": 3}), 2), Some(PageToken::Page(2)));
        assert_eq!(turn(&records, Some(&PageToken::Page(2)), &json!({"total": 3}), 1), None);
    }

    #[test]
    fn an_offset_moves_by_what_came() {
        let plain = pagination("style='offset'\noffset_param='o'\nsize=2");
        assert_eq!(turn(&plain, None, &json!([]), 2), Some(PageToken::Offset(2)));
        assert_eq!(turn(&plain, Some(&PageToken::Offset(2)), &json!([]), 1), None);
        let more = pagination("style='offset'\noffset_param='o'\nsize=2\nhas_more='more'");
        assert_eq!(
            turn(&more, Some(&PageToken::Offset(2)), &json!({"more": true}), 1),
            Some(PageToken::Offset(3))
        );
        assert_eq!(turn(&more, Some(&PageToken::Offset(2)), &json!({"more": true}), 0), None, "nothing came");
    }

    #[test]
    fn a_cursor_is_absent_at_the_end() {
        let cursor = pagination("style='cursor'\ncursor_param='c'\ncursor=['cursor', 'next']");
        assert_eq!(turn(&cursor, None, &json!({"cursor": "abc"}), 0), Some(PageToken::Cursor("abc".into())));
        assert_eq!(turn(&cursor, None, &json!({"next": 12}), 1), Some(PageToken::Cursor("12".into())));
        assert_eq!(turn(&cursor, None, &json!({"cursor": ""}), 5), None);
        assert_eq!(turn(&cursor, None, &json!({"cursor": null}), 5), None);
    }

    #[test]
    fn links_are_read_and_pinned_to_the_host() {
        let style = pagination("style='link'");
        let url: Url = "https://a.example/v1/orders?limit=2".parse().unwrap();
        let turn = |link: &str| {
            next_page(
                &style,
                None,
                &Turned { body: &json!([]), link: Some(link), url: &url, records: 2, version: None },
            )
        };
        for (header, next) in [
            (
                "<https://a.example/v1/orders?page=b>; rel=\"next\"",
                Some("https://a.example/v1/orders?page=b"),
            ),
            (
                "</v1/orders?page=a,b>; rel=previous, <?page=c>; title=\"x, rel=next\"; rel=\"first NEXT\"",
                Some("https://a.example/v1/orders?page=c"),
            ),
            ("<https://a.example/1>; rel=\"prev\"", None),
            ("", None),
            ("<broken", None),
        ] {
            assert_eq!(turn(header).unwrap(), next.map(|next| PageToken::Link(next.into())), "{header}");
        }
        for header in [
            "<https://b.example/>; rel=next",
            "<http://a.example/>; rel=next",
            "<https://u:p@a.example/>; rel=next",
            "<//b.example/>; rel=next",
        ] {
            assert_eq!(turn(header).unwrap_err().code, "page_link_refused", "{header}");
        }
    }

    #[test]
    fn the_same_cursor_twice_is_found_at_once() {
        let mut guard = CursorGuard::new(u32::MAX);
        let token = PageToken::Cursor("same".into());
        guard.check(&token).unwrap();
        let refused = guard.check(&token).unwrap_err();
        assert_eq!(refused.code, "cursor_repeats");
        assert!(refused.message.contains("cursor repeats"), "{refused}");
    }

    #[test]
    fn pages_have_a_most() {
        let mut guard = CursorGuard::new(3);
        assert!(guard.check(&PageToken::Page(2)).is_ok());
        assert!(guard.check(&PageToken::Page(3)).is_ok());
        assert_eq!(guard.check(&PageToken::Page(4)).unwrap_err().code, "too_many_pages");
    }

    proptest! {
        #[test]
        fn a_circle_of_any_length_is_found(before in 0_u32..300, circle in 1_u32..300) {
            let mut guard = CursorGuard::new(u32::MAX);
            let token = |at: u32| PageToken::Cursor(if at < before { at } else { before + (at - before) % circle }.to_string());
            let found = (0..3 * (before + circle) + 3).find(|at| guard.check(&token(*at)).is_err());
            prop_assert!(found.is_some_and(|at| at >= before + circle), "{:?}", found);
            let kept = serde_json::to_string(&guard).unwrap();
            prop_assert!(kept.len() < 300);
            prop_assert_eq!(serde_json::from_str::<CursorGuard>(&kept).unwrap(), guard);
        }

        #[test]
        fn no_header_makes_it_panic(header in ".{0,80}") {
            let _ = next_link(&header);
        }
    }
}
