//! Events that say only that a record's state has changed, or that it is gone. Where such an event
//! carries the whole record, a deletion is a tombstone of its own, which stands even if the record was
//! never seen; else the record that is there is changed.

use chrono::{DateTime, Utc};
use serde_json::Value;
use zhilian_sync_store::record_patches::{PatchKey, PatchTable, RecordPatch};
use zhilian_sync_store::{SupplierOrderStatus, TransactionType};

use super::super::manifest::webhook::routes::{ChangeRoute, ChangeTarget};
use super::super::manifest::{Manifest, Target};
use super::super::mapping::{Field, Mapped, Mapping, Scope};
use super::route::{EventScope, surroundings};

/// The changes that an event tells, sorted by key so that two events never wait for each other.
pub(super) fn patches(
    of: &ChangeRoute,
    manifest: &Manifest,
    records: &[Value],
    scope: &EventScope<'_>,
    deleted: bool,
) -> Result<Vec<RecordPatch>, String> {
    let (table, mapping) = table_of(of, manifest)?;
    let mut patches = Vec::with_capacity(records.len());
    for (at, record) in records.iter().enumerate() {
        let patch = patch_of(of, &table, mapping, record, scope, deleted).map_err(|reason| {
            let which =
                if records.len() > 1 { format!("record {} of the event: ", at + 1) } else { String::new() };
            format!("{which}{reason}").replace('\0', "\u{fffd}")
        })?;
        patches.push(patch);
    }
    // Stable: two changes of one record stay in the order they were told.
    patches.sort_by(|a, b| (&a.table, &a.key).cmp(&(&b.table, &b.key)));
    Ok(patches)
}

/// The tombstones of an event whose every record is whole, and their stream.
pub(super) fn tombstones(
    of: &ChangeRoute,
    manifest: &Manifest,
    records: &[Value],
    scope: &EventScope<'_>,
) -> Option<(String, Mapped)> {
    let ChangeTarget::Stream(stream) = &of.of else {
        return None;
    };
    if of.key.is_some() || of.version_at.is_some() {
        // The route reads the event in its own way.
        return None;
    }
    let (_, mapping) = stream.find(manifest)?;
    let mapped = mapping.tombstones(records, &surroundings(stream.as_str(), scope))?;
    Some((stream.as_str().to_owned(), mapped))
}

/// The table of the records, and their mapping where they have one.
fn table_of<'a>(
    of: &'a ChangeRoute,
    manifest: &'a Manifest,
) -> Result<(PatchTable, Option<&'a Mapping>), String> {
    Ok(match &of.of {
        ChangeTarget::PosTransactions => (PatchTable::PosTransactions, None),
        ChangeTarget::SupplierOrders => (PatchTable::SupplierOrders, None),
        ChangeTarget::Stream(stream) => {
            let Some((target, mapping)) = stream.find(manifest) else {
                return Err(format!(
                    "the manifest has no stream `{}`; correct `stream` of the route",
                    stream.as_str()
                ));
            };
            let table = match target {
                Target::PosTransactions => PatchTable::PosTransactions,
                Target::SupplierOrders => PatchTable::SupplierOrders,
                Target::MemberSyncs => {
                    return Err(format!(
                        "`{}` holds members, which have no state that could change alone; make the route's action \
                         `record` or `delete`",
                        stream.as_str()
                    ));
                }
                Target::ExternalRecords => PatchTable::ExternalRecords { stream: stream.as_str().to_owned() },
            };
            (table, Some(mapping))
        }
    })
}

fn patch_of(
    of: &ChangeRoute,
    table: &PatchTable,
    mapping: Option<&Mapping>,
    record: &Value,
    around: &EventScope<'_>,
    deleted: bool,
) -> Result<RecordPatch, String> {
    if !record.is_object() {
        return Err("expected a record in braces; correct `records` of the route".into());
    }
    let scope =
        Scope { record, item: record, config: around.config, currency: around.currency, zone: around.zone };
    let id = |field: &Option<Field>| field.as_ref().map_or(Ok(None), |field| field.id(scope));
    let text = |field: &Option<Field>| field.as_ref().map_or(Ok(None), |field| field.text(scope));
    let time = |field: &Option<Field>| field.as_ref().map_or(Ok(None), |field| field.time(scope));
    let key = match (id(&of.number)?, id(&of.key)?, id(&of.key_or_number)?) {
        (Some(number), ..) => PatchKey::Number(number),
        (None, Some(key), _) => PatchKey::ExternalId(key),
        (None, None, Some(either)) => PatchKey::Either(either),
        (None, None, None) => match mapping.filter(|_| of.key.is_none()) {
            // What a mapping calls the id of an order is its number.
            Some(mapping) if *table == PatchTable::SupplierOrders => PatchKey::Number(mapping.id(scope)?),
            Some(mapping) => PatchKey::ExternalId(mapping.id(scope)?),
            None => {
                return Err("the event does not name the record; compare it with `key` of the route".into());
            }
        },
    };
    let version_at = match (&of.version_at, mapping) {
        (None, Some(mapping)) => mapping.version_at(scope)?,
        (field, _) => time(field)?,
    };
    let patch = RecordPatch {
        table: table.clone(),
        key,
        status: text(&of.status)?.map(|status| known_status(table, status)).transpose()?,
        delivered_at: time(&of.delivered_at)?,
        tracking_number: text(&of.tracking_number)?,
        deleted,
        version_at,
        observed_at: around.received_at,
        forced: false,
    };
    if !deleted
        && nothing_changes(patch.status.as_deref(), patch.delivered_at, patch.tracking_number.as_deref())
    {
        return Err(
            "the event names a record and no change of it; compare it with the fields of the route".into()
        );
    }
    Ok(patch)
}

fn nothing_changes(
    status: Option<&str>,
    delivered_at: Option<DateTime<Utc>>,
    tracking_number: Option<&str>,
) -> bool {
    status.is_none() && delivered_at.is_none() && tracking_number.is_none()
}

/// A word that the table's column can hold.
fn known_status(table: &PatchTable, status: String) -> Result<String, String> {
    let known = match table {
        PatchTable::PosTransactions => status.parse::<TransactionType>().map(drop),
        PatchTable::SupplierOrders => status.parse::<SupplierOrderStatus>().map(drop),
        PatchTable::ExternalRecords { .. } => Ok(()),
    };
    known
        .map_err(|problem| format!("`status`: {problem}; add the vendor's word to `values` of the route"))?;
    Ok(status)
}
