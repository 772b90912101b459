//! A list that names records and a second call that tells them: for vendors whose lists hold no lines,
//! payments or members. `client/detail.rs` makes the calls.

use super::Request;
use super::read::{read_request_keys, refuse_pages};
use crate::vendor::expression::Expression;
use crate::vendor::manifest::section::Section;
use crate::vendor::path::Path;
use crate::vendor::template::Slot;

/// The most records of one call: their ids stand in one request.
const BATCH_MAX: u32 = 1_000;

/// How the details of a page's records are asked for.
#[derive(Debug)]
pub(crate) struct Detail {
    pub(crate) request: Request,
    /// Where the detail is in the answer; with a batch, where their list is.
    pub(crate) record: Vec<Path>,
    pub(crate) success: Option<Expression>,
    /// The member of the record that holds the detail; without it the detail is laid over the record.
    pub(crate) into: Option<String>,
    pub(crate) batch: Option<Batch>,
}

/// Details that come many at a time.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) size: usize,
    /// The id in the record of the list.
    pub(crate) key: Path,
    /// The id in the detail.
    pub(crate) detail_key: Path,
}

pub(super) fn read_detail(section: Section<'_>) -> Option<Detail> {
    let request = read_request_keys(&section);
    let record = section.required(
        "record",
        section.paths("record"),
        "give the path of the record in the answer; `.` is the answer itself",
    );
    let success = section.expression("success", &["status", "body"]);
    let into = section.text("into").filter(|name| !name.is_empty()).map(str::to_owned);
    let batch = section.has("batch").then(|| read_batch(&section));
    if batch.is_none() {
        for other in ["key", "detail_key"] {
            if section.has(other) {
                section.problem(other, "tells the details of a `batch` apart, and there is none");
            }
        }
        for other in ["key", "detail_key"] {
            section.knows(other);
        }
    }
    if let Some(request) = &request {
        refuse_pages(&section, request, "the detail of a record");
        let many = request.slots().iter().any(|slot| matches!(slot, Slot::Records(_)));
        let one = request.slots().iter().any(|slot| matches!(slot, Slot::Record(_)));
        let (right, wanted) = if batch.is_some() {
            (many && !one, "{records.<path>}")
        } else {
            (one && !many, "{record.<path>}")
        };
        if !right {
            let problem = format!("must say which record is meant, with `{wanted}` and no other way");
            section.problem("path", problem);
        }
    }
    section.finish();
    let batch = match batch {
        Some(None) => return None,
        Some(batch) => batch,
        None => None,
    };
    Some(Detail { request: request?, record: record?, success, into, batch })
}

fn read_batch(section: &Section<'_>) -> Option<Batch> {
    let size = section.whole("batch", 2..=BATCH_MAX);
    let key =
        section.required("key", section.path("key"), "give the path of the id in the record of the list");
    let detail_key = section.path("detail_key");
    let detail_key = if section.has("detail_key") { detail_key } else { key.clone() };
    Some(Batch { size: size?.try_into().ok()?, key: key?, detail_key: detail_key? })
}
