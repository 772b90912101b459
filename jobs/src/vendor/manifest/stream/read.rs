//! Reads the section of one list. Apart from the types, because most of it is about what to say when
//! something is wrong.

use std::time::Duration;

use chrono::format::{Item, StrftimeItems};
use chrono_tz::Tz;

use super::detail::read_detail;
use super::lookup::{self, read_lookup};
use super::partitions::read_for_each;
use super::shape::read_shape;
use super::unknown::read_unknown_fields;
use super::window::{Timing, WindowSpec, read_window};
use super::{Answer, BodyAs, One, Pagination, PagingStyle, Request, Stream, Target};
use crate::vendor::manifest::section::Section;
use crate::vendor::mapping;
use crate::vendor::template::{JsonTemplate, Slot};

/// A share of failed records over this fails the run before its watermark moves.
const FAILURE_SHARE_DEFAULT: f64 = 0.5;
/// The pages of one window, unless manifest or settings say fewer.
const PAGES_MAX_DEFAULT: u32 = 10_000;
const DAY_SECS: u32 = 86_400;

pub(in crate::vendor::manifest) fn read_stream(
    name: &str,
    section: Section<'_>,
    position_ttl: Duration,
) -> Option<Stream> {
    let target = section.required(
        "target",
        section.choice("target", &Target::WORDS),
        "expected `pos_transactions`, `supplier_orders`, `member_syncs` or `external_records`",
    );
    let title = section.text("title").unwrap_or(name).to_owned();
    let request = section
        .required("request", section.section("request"), "say what is asked, as `request.path = \"/orders\"`")
        .and_then(read_request);
    let pagination = section.section("pagination").map_or_else(|| Some(no_pages()), read_pagination);
    let answer = section
        .required(
            "answer",
            section.section("answer"),
            "say where the records are, as `answer.records = \"data\"`",
        )
        .and_then(read_answer);
    let (window, timing) = section.section("window").map_or((None, Timing::default()), read_window);
    let mapping = section
        .required("mapping", section.section("mapping"), "say what the members mean")
        .zip(target)
        .and_then(|(inner, target)| {
            mapping::compile::read_mapping(&inner, target).inspect(|_| inner.finish())
        });
    let ascending = section.flag("ascending").unwrap_or(false);
    let failure_share_max = section.share("failure_share_max").unwrap_or(FAILURE_SHARE_DEFAULT);
    let pages_max = section.whole("pages_max", 1..=1_000_000).unwrap_or(PAGES_MAX_DEFAULT);
    let position_ttl = section.secs("position_ttl_secs", 0..=30 * DAY_SECS).unwrap_or(position_ttl);
    let known_fields = read_unknown_fields(&section);
    let one = section.section("one").and_then(read_one);
    let for_each = section.section("for_each").and_then(read_for_each);
    let detail = section.section("detail").and_then(read_detail);
    let beside = lookup::Beside {
        request: request.as_ref(),
        pagination: pagination.as_ref(),
        is_read_for_each: section.has("for_each"),
        ascending,
    };
    let lookup = section.section("lookup").and_then(|inner| read_lookup(inner, &beside));
    if let (Some(request), Some(pagination)) = (&request, &pagination) {
        check_paging(&section, request, pagination, window.as_ref());
    }
    check_shape(&section, pagination.as_ref(), answer.as_ref());
    section.finish();
    Some(Stream {
        name: name.to_owned(),
        title,
        overlap: timing.overlap,
        lag: timing.lag,
        position_ttl,
        first_window: timing.first_window,
        ascending,
        failure_share_max,
        pages_max,
        target: target?,
        request: request?,
        pagination: pagination?,
        answer: answer?,
        window,
        for_each,
        lookup,
        detail,
        mapping: mapping?,
        known_fields,
        one,
    })
}

fn read_one(section: Section<'_>) -> Option<One> {
    let request = read_request_keys(&section);
    let record = section.required(
        "record",
        section.paths("record"),
        "give the path of the record in the answer; `.` is the answer itself",
    );
    let success = section.expression("success", &["status", "body"]);
    if let Some(request) = &request {
        refuse_pages(&section, request, "one record");
    }
    section.finish();
    Some(One { request: request?, record: record?, success })
}

/// A call for single records has neither page nor window.
pub(super) fn refuse_pages(section: &Section<'_>, request: &Request, what: &str) {
    for slot in request.slots() {
        let page = matches!(
            slot,
            Slot::PageSize | Slot::PageNumber | Slot::PageOffset | Slot::PageCursor | Slot::PageVersion
        );
        if page || matches!(slot, Slot::WindowFrom | Slot::WindowTo | Slot::WindowDay) {
            let problem =
                format!("uses `{{page.…}}` or `{{window.…}}`, but {what} has neither page nor window");
            section.problem("path", problem);
        }
    }
}

pub(in crate::vendor::manifest) fn read_request(section: Section<'_>) -> Option<Request> {
    let request = read_request_keys(&section);
    section.finish();
    request
}

/// The keys of a call, for a section that has others beside them.
pub(super) fn read_request_keys(section: &Section<'_>) -> Option<Request> {
    read_request_of(section, &[("GET", reqwest::Method::GET), ("POST", reqwest::Method::POST)])
}

/// The keys of a call that has one of these methods, by default the first.
pub(in crate::vendor::manifest) fn read_request_of(
    section: &Section<'_>,
    methods: &[(&str, reqwest::Method)],
) -> Option<Request> {
    // `choice` wants `Copy`: the position stands for the method.
    let places: Vec<(&str, usize)> = methods.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
    let (_, method) = methods.get(section.choice("method", &places).unwrap_or(0))?;
    let get = method == reqwest::Method::GET;
    let path = section.required(
        "path",
        section.template("path"),
        "give the path below the endpoint, as `/v1/orders`",
    );
    if let Some(text) = section.text("path")
        && !(text.is_empty() || text.starts_with('/'))
    {
        section.problem("path", format!("`{text}` must begin with `/`; the host is the system's endpoint"));
    }
    let body = section.value("body").map(|value| {
        JsonTemplate::read(value, &section.name("body"), &mut |key, problem| {
            section.problems().add(key, problem);
        })
    });
    if get && body.is_some() {
        section.problem("body", "a GET has no body; say `method = \"POST\"`");
    }
    let body_as = read_body_as(section, body.as_ref());
    let query = section.named_templates("query");
    let headers = section.named_templates("headers");
    let params_in_body = section.choice("params_in", &[("query", false), ("body", true)]);
    if params_in_body == Some(true) && (get || body_as == BodyAs::Text) {
        section.problem("params_in", "says `body`, but the request has none that takes parameters");
    }
    let signed = section.flag("signed").unwrap_or(true);
    let limit = section.text("limit").map(str::to_owned);
    Some(Request {
        method: method.clone(),
        path: path?,
        query,
        headers,
        body,
        body_as,
        params_in_body: params_in_body.unwrap_or(body_as.is_form() && !get),
        signed,
        limit,
    })
}

fn read_body_as(section: &Section<'_>, body: Option<&JsonTemplate>) -> BodyAs {
    let words = [
        ("json", BodyAs::Json),
        ("form", BodyAs::Form),
        ("multipart", BodyAs::Multipart),
        ("text", BodyAs::Text),
    ];
    let body_as = section.choice("body_as", &words).unwrap_or(BodyAs::Json);
    match (body_as, body) {
        (form, Some(JsonTemplate::List(_) | JsonTemplate::Fixed(_))) if form.is_form() => {
            section.problem("body", "a form is a table of its members");
        }
        (BodyAs::Text, body) if !matches!(body, Some(JsonTemplate::Text(_))) => {
            section.problem("body", "a body of text is one text in quotes");
        }
        _ => {}
    }
    body_as
}

pub(super) fn no_pages() -> Pagination {
    Pagination {
        style: PagingStyle::None,
        size: None,
        first_page: 1,
        size_param: None,
        page_param: None,
        offset_param: None,
        cursor_param: None,
        cursor: Vec::new(),
        version_param: None,
        version: None,
        first_version: 0,
        total_pages: None,
        total_records: None,
        has_more: None,
        short_page_ends: true,
    }
}

pub(super) fn read_pagination(section: Section<'_>) -> Option<Pagination> {
    let styles = [
        ("none", PagingStyle::None),
        ("page", PagingStyle::Page),
        ("offset", PagingStyle::Offset),
        ("cursor", PagingStyle::Cursor),
        ("version", PagingStyle::Version),
        ("link", PagingStyle::Link),
    ];
    let style = section.required(
        "style",
        section.choice("style", &styles),
        "expected `page`, `offset`, `cursor`, `version`, `link` or `none`",
    );
    let text = |key| section.text(key).filter(|text| !text.is_empty()).map(str::to_owned);
    let pagination = Pagination {
        style: style.unwrap_or(PagingStyle::None),
        size: section.whole("size", 1..=100_000).map(u64::from),
        first_page: section.whole("first_page", 0..=1).unwrap_or(1).into(),
        size_param: text("size_param"),
        page_param: text("page_param"),
        offset_param: text("offset_param"),
        cursor_param: text("cursor_param"),
        cursor: section.paths("cursor").unwrap_or_default(),
        version_param: text("version_param"),
        version: section.path("version"),
        first_version: section.whole("first_version", 0..=u32::MAX).unwrap_or(0).into(),
        total_pages: section.path("total_pages"),
        total_records: section.path("total_records"),
        has_more: section.path("has_more"),
        short_page_ends: section.flag("short_page_ends").unwrap_or(true),
    };
    section.finish();
    style.map(|_| pagination)
}

fn read_answer(section: Section<'_>) -> Option<Answer> {
    let records = section.required(
        "records",
        section.paths("records"),
        "give the path of the list; `.` is the answer itself",
    );
    let answer = records.map(|records| Answer {
        records,
        absent_when_empty: section.flag("absent_when_empty").unwrap_or(false),
        shape: read_shape(&section),
        success: section.expression("success", &["status", "body"]),
    });
    if answer.is_none() {
        for other in ["absent_when_empty", "success", "split", "split_into", "group_by", "group_into"] {
            section.knows(other);
        }
    }
    section.finish();
    answer
}

/// An IANA zone by its name.
pub(crate) fn read_zone(text: &str) -> Result<Tz, String> {
    text.parse().map_err(|_| format!("`{text}` is not a time zone; expected one such as `Asia/Shanghai`"))
}

/// A pattern that chrono can write and read.
pub(crate) fn check_pattern(text: &str) -> Result<String, String> {
    if text.is_empty() || StrftimeItems::new(text).any(|item| matches!(item, Item::Error)) {
        return Err(format!("`{text}` is not a time pattern; expected one such as `%Y-%m-%d %H:%M:%S`"));
    }
    Ok(text.to_owned())
}

fn check_paging(
    section: &Section<'_>,
    request: &Request,
    pagination: &Pagination,
    window: Option<&WindowSpec>,
) {
    check_pages_are_told(section, request, pagination);
    let slots = request.slots();
    let uses = |slot: &Slot| slots.contains(&slot);
    let wants_window = uses(&Slot::WindowFrom) || uses(&Slot::WindowTo) || uses(&Slot::WindowDay);
    if wants_window && window.is_none() {
        section.problem("window", "is missing, and the request uses `{window.…}`; add it with a `format`");
    }
    check_days(section, &uses, window);
    if pagination.style == PagingStyle::Version && (window.is_some() || section.has("ascending")) {
        let problem = "counts the changes, so it needs no window of time and no word on the order; leave `window` and \
                       `ascending` out";
        section.problem("pagination.version", problem);
    }
}

/// Rows of one record must not stand on two pages.
fn check_shape(section: &Section<'_>, pagination: Option<&Pagination>, answer: Option<&Answer>) {
    let is_paged = pagination.is_some_and(|pagination| pagination.style != PagingStyle::None);
    if is_paged && answer.is_some_and(|answer| answer.shape.group.is_some()) {
        let problem = "wants all rows of a record in one answer, and with `pagination` they may stand on two pages; leave \
                       one of the two out";
        section.problem("answer.group_by", problem);
    }
}

/// Something must tell the vendor which page, or every page would be the first.
pub(super) fn check_pages_are_told(section: &Section<'_>, request: &Request, pagination: &Pagination) {
    let slots = request.slots();
    let uses = |slot: &Slot| slots.contains(&slot);
    let (told, key, slot) = match pagination.style {
        PagingStyle::None | PagingStyle::Link => (true, "", ""),
        PagingStyle::Page => {
            (pagination.page_param.is_some() || uses(&Slot::PageNumber), "page_param", "{page.number}")
        }
        PagingStyle::Offset => {
            (pagination.offset_param.is_some() || uses(&Slot::PageOffset), "offset_param", "{page.offset}")
        }
        PagingStyle::Cursor => {
            (pagination.cursor_param.is_some() || uses(&Slot::PageCursor), "cursor_param", "{page.cursor}")
        }
        PagingStyle::Version => (
            pagination.version_param.is_some() || uses(&Slot::PageVersion),
            "version_param",
            "{page.version}",
        ),
    };
    if !told {
        let fix = format!(
            "is missing, and nothing in the request says `{slot}`: the vendor would not know which page is meant"
        );
        section.problem(&format!("pagination.{key}"), fix);
    }
    if pagination.style == PagingStyle::Cursor && pagination.cursor.is_empty() {
        section
            .problem("pagination.cursor", "is missing; give the path of the next page's token in the answer");
    }
    if pagination.style == PagingStyle::Version && pagination.version.is_none() {
        let fix = "is missing; give the path of the whole number in each record that grows with every change";
        section.problem("pagination.version", fix);
    }
    if pagination.style == PagingStyle::Offset && pagination.size.is_none() {
        section.problem("pagination.size", "is missing; an offset moves on by the size of a page");
    }
}

/// A stream that is read day by day must tell the vendor the day, and a day only where there is one.
fn check_days(section: &Section<'_>, uses: &dyn Fn(&Slot) -> bool, window: Option<&WindowSpec>) {
    let Some(window) = window else { return };
    if uses(&Slot::WindowDay) && !window.days {
        section.problem("window.days", "is missing, and the request uses `{window.day}`; say `days = true`");
    }
    let told = [&window.day_param, &window.from_param, &window.to_param].into_iter().any(Option::is_some)
        || [Slot::WindowDay, Slot::WindowFrom, Slot::WindowTo].iter().any(uses);
    if window.days && !told {
        let fix = "is missing, and nothing in the request says `{window.day}`: the vendor would not know which day \
                   is meant";
        section.problem("window.day_param", fix);
    }
    if window.days && section.flag("ascending").unwrap_or(false) {
        let problem = "speaks of one list in the order of change; with `days = true` there is a list for each day, and \
                       the watermark moves when the last one is read";
        section.problem("ascending", problem);
    }
}
