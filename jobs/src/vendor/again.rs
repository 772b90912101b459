//! Records that failed once, read again with the manifest of today. What is kept of such a record is the
//! vendor's text, the stream, and for one that a webhook brought the type of its event; that is enough to map
//! it as it was mapped then, without asking the vendor.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::catalog::Catalog;
use super::client::read_config;
use super::json;
use super::manifest::Manifest;
use super::mapping::{Mapped, Mapping};
use super::webhook::{EventScope, WebhookSpec, observed, surroundings};
use crate::outcome::JobError;

/// A record that failed, as it was kept.
#[derive(Debug, Clone, Copy)]
pub struct KeptRecord<'a> {
    /// Its stream.
    pub stream: &'a str,
    /// The vendor's text.
    pub raw: &'a str,
    /// Of a record that a webhook brought: the type of the event.
    pub event_type: Option<&'a str>,
}

/// The mappings of one system, for records that were kept.
#[derive(Debug)]
pub struct Again {
    manifest: Arc<Manifest>,
    /// Whose `[webhook]` the system's events are read with.
    sender: Arc<Manifest>,
    spec: Arc<WebhookSpec>,
    /// The system's settings in the types that the manifest declares, as a pull has them.
    config: Value,
}

impl Again {
    /// Of a system with this manifest and these settings.
    pub fn new(
        catalog: &Catalog,
        manifest: Arc<Manifest>,
        config: &Map<String, Value>,
    ) -> Result<Self, JobError> {
        let config = read_config(&manifest, config)?;
        let (sender, spec) = catalog.webhook_of(&manifest);
        Ok(Self { manifest, sender, spec, config })
    }

    /// Maps a record, which was observed at the time of the scope: ours, left out, or failed with a reason.
    pub fn map(&self, record: KeptRecord<'_>, scope: &EventScope<'_>) -> Result<Mapped, String> {
        let value = json::read(record.raw).map_err(|problem| format!("what was kept of it {problem}"))?;
        if let Some(event_type) = record.event_type
            && let Some(mapped) = self.spec.map_again(&self.sender, event_type, record.stream, &value, scope)
        {
            return Ok(mapped);
        }
        let mapping = self.mapping(record.stream).ok_or_else(|| {
            format!(
                "the manifest of {} has no stream `{}` any more; without one nothing says what its records mean",
                self.manifest.title, record.stream
            )
        })?;
        let scope = EventScope { config: &self.config, ..*scope };
        let mapped = mapping.map(std::slice::from_ref(&value), &surroundings(record.stream, &scope));
        Ok(observed(mapped, &scope))
    }

    fn mapping(&self, stream: &str) -> Option<&Mapping> {
        let pulled = self.manifest.stream(stream).map(|stream| &stream.mapping);
        pulled.or_else(|| self.spec.mapping_of(&self.sender, stream))
    }
}
