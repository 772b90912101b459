//! Lists, page by page: newest first, as plain arrays, with the next page in the `Link` header.
//!
//! A cursor names the last row of a page by its time and id, so rows that come in between neither
//! repeat nor hide others. It is opaque: what is in it may change.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use poem::http::{HeaderValue, Uri, header};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaHeader, MetaResponses, Registry};
use poem_openapi::types::{ToJSON, Type as _};
use url::form_urlencoded;
use uuid::Uuid;

use super::answer::Answer;
use super::problem::Problem;
use super::values::Whole;

/// The page size where none is asked for.
pub const LIMIT_DEFAULT: i64 = 100;
/// The largest page.
pub const LIMIT_MAX: i64 = 500;

/// How many rows are asked for.
pub type Limit = Whole<1, LIMIT_MAX>;

/// Where a page ends: the row after which the next one begins.
pub type Position = (DateTime<Utc>, Uuid);

/// Which page is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// How many rows.
    pub limit: i64,
    /// After which row.
    pub after: Option<Position>,
}

impl Wanted {
    /// Reads the two query parameters.
    pub fn new(limit: Option<Limit>, cursor: Option<&str>) -> Result<Self, Problem> {
        let after = cursor.map(|text| {
            decode(text).ok_or_else(|| {
                Problem::invalid_field(
                    "cursor",
                    "is not a cursor; take it from the `Link` header of the page before",
                )
            })
        });
        Ok(Self { limit: limit.map_or(LIMIT_DEFAULT, |limit| limit.0), after: after.transpose()? })
    }

    /// What to ask the store for: one row more, which tells whether there is a next page.
    pub const fn rows(&self) -> i64 {
        self.limit + 1
    }
}

/// A page of a list.
#[derive(Debug)]
pub struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of rows that were read with [`Wanted::rows`]. `uri` is the request's, whose filters
    /// the next page keeps.
    pub fn new<Row>(
        rows: Vec<Row>,
        wanted: Wanted,
        uri: &Uri,
        position: impl Fn(&Row) -> Position,
        show: impl FnMut(Row) -> T,
    ) -> Self {
        let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
        let next = (rows.len() > limit).then(|| next_uri(uri, &encode(position(&rows[limit - 1]))));
        Self { items: rows.into_iter().take(limit).map(show).collect(), next }
    }
}

impl<T: ToJSON> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let mut response = Answer::<200, _>(self.items).into_response();
        let link = self.next.map(|uri| HeaderValue::from_str(&format!("<{uri}>; rel=\"next\"")));
        if let Some(Ok(link)) = link {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }
}

impl<T: ToJSON> ApiResponse for Page<T> {
    fn meta() -> MetaResponses {
        let mut meta = Answer::<200, Vec<T>>::meta();
        for response in &mut meta.responses {
            response.description = "A page, newest first.";
            response.headers.push(MetaHeader {
                name: "Link".to_owned(),
                description: Some("The next page, where there is one: `<…>; rel=\"next\"`.".to_owned()),
                required: false,
                deprecated: false,
                schema: String::schema_ref(),
            });
        }
        meta
    }

    fn register(registry: &mut Registry) {
        Vec::<T>::register(registry);
    }
}

fn next_uri(uri: &Uri, cursor: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if name != "cursor" {
            query.append_pair(&name, &value);
        }
    }
    query.append_pair("cursor", cursor);
    format!("{}?{}", uri.path(), query.finish())
}

fn encode((at, id): Position) -> String {
    let mut bytes = at.timestamp_millis().to_be_bytes().to_vec();
    bytes.extend(id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str) -> Option<Position> {
    let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let (at, id) = bytes.split_first_chunk::<8>()?;
    Some((DateTime::from_timestamp_millis(i64::from_be_bytes(*at))?, Uuid::from_slice(id).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let position = (DateTime::from_timestamp_millis(1_700_000_000_123).unwrap(), Uuid::from_u128(7));
        assert_eq!(decode(&encode(position)), Some(position));
        for wrong in ["", "x", "AAAA", "%%%"] {
            assert_eq!(decode(wrong), None);
        }
    }

    #[test]
    fn the_next_page_keeps_the_filters() {
        let rows: Vec<u128> = (0..3).collect();
        let wanted = Wanted { limit: 2, after: None };
        let uri: Uri = "/api/v1/x?status=a%20b&cursor=old&limit=2".parse().unwrap();
        let at = DateTime::from_timestamp_millis(0).unwrap();
        let page = Page::new(rows, wanted, &uri, |row| (at, Uuid::from_u128(*row)), |row| row);
        assert_eq!(page.items, [0, 1]);
        insta::assert_snapshot!(page.next.unwrap(), @"/api/v1/x?status=a+b&limit=2&cursor=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB");
    }

    #[test]
    fn the_last_page_has_no_next() {
        let wanted = Wanted { limit: 2, after: None };
        let at = DateTime::from_timestamp_millis(0).unwrap();
        let page = Page::new(
            vec![1_u128, 2],
            wanted,
            &Uri::from_static("/x"),
            |row| (at, Uuid::from_u128(*row)),
            |row| row,
        );
        assert_eq!(page.items, [1, 2]);
        assert_eq!(page.next, None);
    }
}
