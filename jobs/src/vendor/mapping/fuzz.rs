//! Whatever a vendor sends, the mapping of every shipped manifest ends: each record is ours, skipped, or failed
//! with a reason that can be kept.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use chrono::DateTime;
use proptest::prelude::*;
use serde_json::{Map, Value};
use zhilian_sync_store::{Currency, SystemType};

use super::{Mapped, Optional, Surroundings};
use crate::vendor::catalog::Catalog;
use crate::vendor::manifest::Manifest;
use crate::vendor::{Again, EventScope, KeptRecord};

/// Reasons are cut when they are kept, not before.
const REASON_CHARS_MAX: usize = 2_000;

struct Shipped {
    manifests: Vec<Arc<Manifest>>,
    catalog: Catalog,
    /// Names of members and words that the manifests speak of.
    words: Vec<String>,
}

static SHIPPED: LazyLock<Shipped> = LazyLock::new(|| {
    let catalog = Catalog::embedded().unwrap_or_else(|errors| panic!("{errors}"));
    let manifests: Vec<_> = catalog.names().iter().filter_map(|name| catalog.get(name)).collect();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/vendors");
    let mut words = BTreeSet::new();
    for manifest in &manifests {
        let text = std::fs::read_to_string(format!("{folder}/{}.toml", manifest.name)).unwrap_or_default();
        let quoted = text.split(['"', '\'']).skip(1).step_by(2);
        words.extend(
            quoted.flat_map(|text| text.split('.')).filter(|word| word.len() < 30).map(str::to_owned),
        );
    }
    assert!(words.len() > 100, "only {} words of the manifests were found", words.len());
    Shipped { manifests, catalog, words: words.into_iter().collect() }
});

/// Any JSON, with the members and words that the manifests speak of.
fn any_json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        "-?[1-9][0-9]{0,60}(\\.[0-9]{1,40})?([eE][-+]?[0-9]{1,12})?",
        Just("7".repeat(10_000)),
    ];
    let text = prop_oneof![
        prop::sample::select(SHIPPED.words.clone()),
        Just("2026-01-01T12:00:00+08:00".to_owned()),
        Just("1767240000".to_owned()),
        "[-+0-9.eE:T ]{0,30}",
        ".{0,20}",
        "[\\[{\"\\\\\u{0}\u{feff}é]{0,30}",
        Just("[{".repeat(5_000)),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number.prop_map(|text| serde_json::from_str(&text).unwrap_or_default()),
        text.prop_map(Value::String),
    ];
    let name = prop_oneof![9 => prop::sample::select(SHIPPED.words.clone()), 1 => ".{0,5}"];
    leaf.prop_recursive(6, 120, 12, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            3 => prop::collection::btree_map(name.clone(), inner, 0..24)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A type of event, most often one that a route knows.
fn any_event() -> impl Strategy<Value = String> {
    let known = [
        "transaction.created",
        "transaction.voided",
        "order.created",
        "order.updated",
        "order.status_changed",
        "reservation.created",
        "reservation.cancelled",
        "sale.created",
        "sale.voided",
        "payment.updated",
        "refund",
        "",
    ];
    prop_oneof![
        4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => "[a-z]{0,8}(\\.[a-z_]{1,12})?",
    ]
}

/// What holds of whatever was made of `count` records.
fn check(mapped: &Mapped, count: usize) -> Result<(), TestCaseError> {
    let ended =
        mapped.storable() + mapped.failures.len() + usize::try_from(mapped.skipped).unwrap_or(usize::MAX);
    prop_assert_eq!(ended, count, "every record ends as ours, skipped or failed");
    for failure in &mapped.failures {
        prop_assert!(!failure.reason.is_empty() && !failure.reason.contains('\0'));
        prop_assert!(failure.reason.chars().count() < REASON_CHARS_MAX, "{}", failure.reason);
        prop_assert!(!failure.external_id.is_empty() && !failure.external_id.contains('\0'));
    }
    let ids = mapped.transactions.iter().map(|one| &one.external_id);
    let ids = ids.chain(mapped.records.iter().map(|one| &one.external_id));
    let ids = ids.chain(mapped.orders.iter().map(|one| &one.order_number));
    for id in ids.chain(mapped.members.iter().map(|one| &one.member_id)) {
        prop_assert!(!id.contains('\0') && id.chars().count() <= 255, "{}", id);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_record_of_every_stream_ends(records in prop::collection::vec(any_json(), 0..5)) {
        let config = Value::Object(Map::new());
        for stream in SHIPPED.manifests.iter().flat_map(|manifest| &manifest.streams) {
            let around = Surroundings {
                stream: &stream.name,
                config: &config,
                currency: Currency::CNY,
                zone: chrono_tz::America::New_York,
                asked_at: DateTime::UNIX_EPOCH,
                optional: Optional::default(),
            };
            check(&stream.mapping.map(&records, &around), records.len())?;
            for record in &records {
                stream.unknown_fields(record, |name| assert!(name.len() < 200_000));
            }
        }
    }

    #[test]
    fn every_event_of_every_vendor_has_a_plan_or_a_reason(
        body in any_json(),
        event_type in any_event(),
        system_type in prop::sample::select(SystemType::ALL),
        stream in prop::sample::select(&["transactions", "orders", "reservations", "supplier_orders"][..]),
    ) {
        let config = Value::Object(Map::new());
        let body = body.to_string();
        let scope = EventScope {
            system_type,
            config: &config,
            currency: Currency::CNY,
            zone: chrono_tz::Asia::Shanghai,
            received_at: DateTime::UNIX_EPOCH,
        };
        for manifest in &SHIPPED.manifests {
            let (sender, spec) = SHIPPED.catalog.webhook_of(manifest);
            if let Err(reason) = spec.plan(&sender, &event_type, "", body.as_bytes(), &scope) {
                prop_assert!(!reason.is_empty());
            }
            // Some vendors need settings, without which nothing of theirs is tried again.
            let Ok(again) = Again::new(&SHIPPED.catalog, Arc::clone(manifest), &Map::new()) else { continue };
            let kept = KeptRecord { stream, raw: &body, event_type: Some(&event_type) };
            if let Ok(mapped) = again.map(kept, &scope) {
                check(&mapped, 1)?;
            }
        }
    }
}
