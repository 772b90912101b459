//! A stream that is read once for each of something: of a vendor's shops, of the locations in a system's
//! settings. What the parts are is asked for, or given, here; `client/partitions.rs` finds them out.

use super::read::{check_pages_are_told, no_pages, read_pagination, read_request};
use super::{Pagination, Request};
use crate::vendor::expression::Expression;
use crate::vendor::manifest::section::Section;
use crate::vendor::path::Path;
use crate::vendor::template::{JsonTemplate, Slot};

/// What a stream is read once for each of.
#[derive(Debug)]
pub(crate) struct ForEach {
    pub(crate) source: PartitionSource,
    /// Parts for which it does not hold are left out.
    pub(crate) when: Option<Expression>,
    /// Where a part's id is; the watermark is kept under it.
    pub(crate) key: Vec<Path>,
    /// The member of every record that holds the part.
    pub(crate) into: Option<String>,
}

/// Where the parts come from.
#[derive(Debug)]
pub(crate) enum PartitionSource {
    /// A list in the system's settings.
    Values(JsonTemplate),
    /// A list of the vendor's.
    List(Box<PartitionList>),
}

/// A list of the vendor's that names the parts.
#[derive(Debug)]
pub(crate) struct PartitionList {
    pub(crate) request: Request,
    pub(crate) pagination: Pagination,
    pub(crate) records: Vec<Path>,
    pub(crate) success: Option<Expression>,
}

impl ForEach {
    /// The request that names the parts, if there is one.
    pub(crate) fn request(&self) -> Option<&Request> {
        match &self.source {
            PartitionSource::Values(_) => None,
            PartitionSource::List(list) => Some(&list.request),
        }
    }

    /// The placeholders of what is given.
    pub(in crate::vendor) fn slots(&self) -> Vec<&Slot> {
        match &self.source {
            PartitionSource::Values(values) => values.slots(),
            PartitionSource::List(list) => list.request.slots(),
        }
    }
}

pub(super) fn read_for_each(section: Section<'_>) -> Option<ForEach> {
    let values = section.value("values").map(|value| {
        JsonTemplate::read(value, &section.name("values"), &mut |key, problem| {
            section.problems().add(key, problem);
        })
    });
    let list = section.section("request").map(|request| read_list(&section, request));
    let source = match (values, list) {
        (Some(values), None) => Some(PartitionSource::Values(values)),
        (None, Some(list)) => list.map(|list| PartitionSource::List(Box::new(list))),
        (Some(_), Some(_)) => {
            section.problem("values", "stands beside `request`; the parts come from one of the two");
            None
        }
        (None, None) => {
            if !section.has("request") && !section.has("values") {
                let fix =
                    "is missing; give a list, as `values = \"{config.location_ids}\"`, or a `request` for it";
                section.problem("values", fix);
            }
            None
        }
    };
    let key = section.paths("key");
    if section.has("request") {
        section.required("key", key.as_ref(), "give the path of the id by which one is told from another");
    }
    let into = section.text("into").filter(|name| !name.is_empty()).map(str::to_owned);
    let when = section.expression("when", &["record", "config"]);
    if !section.has("request") {
        for other in ["records", "success", "pagination"] {
            if section.has(other) {
                section.problem(other, "belongs to a `request`, and there is none");
            }
        }
        for other in ["records", "success", "pagination"] {
            section.knows(other);
        }
    }
    section.finish();
    let key = key.or_else(|| Path::parse("value").ok().map(|path| vec![path]))?;
    Some(ForEach { source: source?, when, key, into })
}

fn read_list(section: &Section<'_>, request: Section<'_>) -> Option<PartitionList> {
    let request = read_request(request);
    let records = section.required(
        "records",
        section.paths("records"),
        "give the path of the list; `.` is the answer itself",
    );
    let success = section.expression("success", &["status", "body"]);
    let pagination = section.section("pagination").map_or_else(|| Some(no_pages()), read_pagination);
    let (request, pagination) = (request?, pagination?);
    check_pages_are_told(section, &request, &pagination);
    for slot in request.slots() {
        if matches!(slot, Slot::WindowFrom | Slot::WindowTo | Slot::WindowDay) {
            let problem =
                "uses `{window.…}`, but what a stream is read for each of is asked for without a window";
            section.problem("request", problem);
        }
    }
    Some(PartitionList { request, pagination, records: records?, success })
}
