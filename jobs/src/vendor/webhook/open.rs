//! Finds what a manifest names by place: in a header, in the query, in the body. Key and type of an
//! event are two such things; signature, timestamp and id are others.

use std::borrow::Cow;

use serde_json::Value;

use super::body::{self, FormView};
use super::scheme::named_by_hash;
use super::{Delivery, Opened, Refusal};
use crate::vendor::manifest::webhook::{Place, WebhookSpec};

/// A longer key is replaced by its hash: keys are for people to read, too.
const KEY_BYTES_MAX: usize = 255;
/// A longer type is cut off: there is a log line for each type and minute.
const TYPE_CHARS_MAX: usize = 100;
/// Longer values of a request are not looked at, and not kept.
pub(super) const VALUE_BYTES_MAX: usize = 8 * 1024;
/// So many values of one header are looked at.
pub(super) const VALUES_MAX: usize = 16;

/// A delivery whose body has been searched once, if anybody asks for a place in it.
pub(super) struct View<'a> {
    delivery: Delivery<'a>,
    body: Vec<Option<Value>>,
}

impl<'a> View<'a> {
    /// For these places.
    pub(super) fn new<'p>(
        spec: &WebhookSpec,
        delivery: &Delivery<'a>,
        mut places: impl Iterator<Item = &'p Place>,
    ) -> Result<Self, Refusal> {
        if places.any(|place| matches!(place, Place::Body(_))) {
            return Self::with_body(spec, delivery);
        }
        Ok(Self { delivery: *delivery, body: Vec::new() })
    }

    /// For all places; the body must be readable.
    fn with_body(spec: &WebhookSpec, delivery: &Delivery<'a>) -> Result<Self, Refusal> {
        let body = body::pick(&spec.body, delivery.body, &spec.body_paths)
            .map_err(|problem| Refusal::new("bad_body", format!("the body {problem}")))?;
        Ok(Self { delivery: *delivery, body })
    }

    /// Every value that stands there, none of them empty. Only a header can have several.
    pub(super) fn values(&self, place: &Place) -> Vec<Cow<'_, str>> {
        let mut values: Vec<Cow<'_, str>> = match place {
            Place::Header(name) => {
                let texts = self.delivery.headers.get_all(name).iter();
                let texts = texts.filter_map(|value| std::str::from_utf8(value.as_bytes()).ok());
                texts.take(VALUES_MAX).map(|text| Cow::Borrowed(text.trim())).collect()
            }
            Place::Query(name) => {
                FormView::new(self.delivery.query.as_bytes()).last(name).into_iter().collect()
            }
            Place::Body(at) => {
                self.body.get(*at).and_then(Option::as_ref).and_then(body::word).into_iter().collect()
            }
        };
        values.retain(|value| !value.is_empty() && value.len() <= VALUE_BYTES_MAX);
        values
    }

    /// The value at the first place that has one.
    pub(super) fn first(&self, places: &[Place]) -> Option<Cow<'_, str>> {
        places.iter().find_map(|place| self.values(place).into_iter().next())
    }

    /// The values at the first place that has one.
    pub(super) fn all(&self, places: &[Place]) -> Vec<Cow<'_, str>> {
        places.iter().map(|place| self.values(place)).find(|values| !values.is_empty()).unwrap_or_default()
    }

    /// The one value at the first place that has one; several different ones are an error.
    pub(super) fn only(&self, places: &[Place]) -> Result<Option<Cow<'_, str>>, ()> {
        let mut values = self.all(places);
        values.dedup();
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(()),
        }
    }
}

/// Key and type of the event.
pub(super) fn open(spec: &WebhookSpec, delivery: &Delivery<'_>) -> Result<Opened, Refusal> {
    let view = View::with_body(spec, delivery)?;
    let key = spec.event_key.iter().find_map(|joined| {
        if let [place] = joined.as_slice() {
            return view.first(std::slice::from_ref(place)).map(Cow::into_owned);
        }
        let parts: Option<Vec<_>> =
            joined.iter().map(|place| view.first(std::slice::from_ref(place))).collect();
        parts.map(|parts| parts.join("+"))
    });
    let event_key = match key {
        Some(key) if key.len() <= KEY_BYTES_MAX && !key.contains(char::is_control) => key,
        Some(key) => named_by_hash(key.as_bytes()),
        None => named_by_hash(delivery.body),
    };
    let event_type = view.first(&spec.event_type).map_or_else(String::new, |text| readable(&text));
    Ok(Opened { event_key, event_type })
}

/// A type as people and both databases can bear it.
fn readable(text: &str) -> String {
    let letters = text.chars().take(TYPE_CHARS_MAX);
    letters.map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}
