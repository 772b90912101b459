//! A stream without a list: records that a vendor tells only to whoever names them. They are asked for one by
//! one, by keys that other systems' records have brought us. `client/lookup.rs` makes the calls.

use super::Request;
use super::read::refuse_pages;
use super::{Pagination, PagingStyle};
use crate::vendor::manifest::section::Section;
use crate::vendor::template::Slot;

/// How many keys make a page, unless the manifest says otherwise.
const SIZE_DEFAULT: u32 = 50;
const SIZE_MAX: u32 = 500;

/// How records are asked for by their keys.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) keys: Keys,
    /// The keys of a page.
    pub(crate) size: u32,
    /// The member of every record that holds the key it was asked for by.
    pub(crate) into: Option<String>,
}

/// Where the keys come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// The customers' telephone numbers of POS transactions, of the system's store where it has one.
    CustomerPhones,
}

impl Keys {
    const WORDS: [(&'static str, Self); 1] = [("customer_phones", Self::CustomerPhones)];
}

/// What the rest of the stream says, which must agree.
pub(super) struct Beside<'a> {
    pub(super) request: Option<&'a Request>,
    pub(super) pagination: Option<&'a Pagination>,
    pub(super) is_read_for_each: bool,
    pub(super) ascending: bool,
}

pub(super) fn read_lookup(section: Section<'_>, beside: &Beside<'_>) -> Option<Lookup> {
    let keys = section.required(
        "keys",
        section.choice("keys", &Keys::WORDS),
        "say whose records are asked for; expected `customer_phones`",
    );
    let size = section.whole("size", 1..=SIZE_MAX).unwrap_or(SIZE_DEFAULT);
    let into = section.text("into").filter(|name| !name.is_empty()).map(str::to_owned);
    if let Some(request) = beside.request {
        refuse_pages(&section, request, "a record that is looked up");
        if !request.slots().iter().any(|slot| matches!(slot, Slot::LookupKey)) {
            section.problem(
                "keys",
                "nothing in the request says `{lookup.key}`: every answer would be the same",
            );
        }
    }
    let pages = beside.pagination.is_some_and(|pagination| pagination.style != PagingStyle::None);
    for (holds, what) in
        [(pages, "pagination"), (beside.is_read_for_each, "for_each"), (beside.ascending, "ascending")]
    {
        if holds {
            section.problem(
                "keys",
                format!("stands beside `{what}`, which belongs to a list; leave one of the two out"),
            );
        }
    }
    section.finish();
    Some(Lookup { keys: keys?, size, into })
}
