//! Recorded answers become snapshots; a manifest without any is a failure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use chrono::DateTime;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use zhilian_sync_jobs::vendor::{Catalog, check_file, replay};

/// Read once: compiling every expression takes longer than mapping a hundred records.
static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::embedded().unwrap());

fn payloads() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vendors")
}

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/vendors")
}

#[test]
fn every_vendor_maps_its_recorded_answers() {
    let catalog = Catalog::embedded().unwrap();
    assert!(catalog.names().len() >= 3);
    for name in catalog.names() {
        let folder = payloads().join(name);
        assert!(
            folder.is_dir(),
            "no recorded answers of `{name}`; put one into {} as <stream>.json",
            folder.display()
        );
        let report = check_file(&manifests().join(format!("{name}.toml")), Some(&folder))
            .unwrap_or_else(|errors| panic!("{errors}"));
        let streams: BTreeSet<&str> =
            report.payloads.keys().filter_map(|file| file.split('.').next()).collect();
        for stream in &report.manifest.streams {
            assert!(
                streams.contains(stream.name.as_str()),
                "no recorded answer of `{name}`, stream `{}`",
                stream.name
            );
        }
        for (file, mapped) in &report.payloads {
            let mut settings = insta::Settings::clone_current();
            settings.set_snapshot_path(&folder);
            settings.set_prepend_module_to_snapshot(false);
            settings.set_omit_expression(true);
            settings.bind(|| insta::assert_debug_snapshot!(file.trim_end_matches(".json"), mapped));
        }
    }
}

#[test]
fn no_recorded_answers_belong_to_no_vendor() {
    let catalog = Catalog::embedded().unwrap();
    let names: BTreeSet<String> = catalog.names().into_iter().map(str::to_owned).collect();
    let holds_answers = |folder: &Path| {
        let entries = std::fs::read_dir(folder).ok().into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|it| it == "json"))
    };
    let folders = std::fs::read_dir(payloads()).unwrap().flatten();
    for entry in folders.filter(|entry| holds_answers(&entry.path())) {
        let name = entry.file_name().into_string().unwrap();
        assert!(names.contains(&name), "{} belongs to no manifest", entry.path().display());
    }
}

#[test]
fn the_check_finds_what_a_pull_would_stumble_over() {
    let square = manifests().join("square.toml");
    let folder = tempfile::tempdir().unwrap();
    let check = || check_file(&square, Some(folder.path())).unwrap_err().to_string();
    assert!(check().contains("holds no recorded answer"), "{}", check());
    std::fs::write(folder.path().join("orders.json"), "{").unwrap();
    std::fs::write(folder.path().join("order.json"), "{}").unwrap();
    std::fs::write(folder.path().join("payments.json"), "{\"payments\": {}}").unwrap();
    let errors = check();
    assert!(errors.contains("is not JSON"), "{errors}");
    assert!(
        errors.contains(
            "`order` is no stream of `square`; expected one of `customers`, `orders`, `payments`, `refunds`"
        ),
        "{errors}"
    );
    let missing = check_file(Path::new("/nonexistent.toml"), None).unwrap_err().to_string();
    assert!(missing.contains("/nonexistent.toml: cannot be read"), "{missing}");
}

/// Any JSON, with the members and the values that vendors' records have.
fn any_json() -> impl Strategy<Value = Value> {
    let words = prop_oneof![
        Just("COMPLETED".to_owned()),
        Just("2026-01-01T12:00:00+08:00".to_owned()),
        Just("CNY".to_owned()),
        Just("sale".to_owned()),
        "[-+0-9.eE]{0,30}",
        ".{0,20}",
    ];
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        "-?[1-9][0-9]{0,40}",
        "-?[0-9]\\.[0-9]{1,40}",
        "-?[1-9][eE][-+]?[0-9]{1,12}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number.prop_map(|text| serde_json::from_str(&text).unwrap()),
        words.prop_map(Value::String),
    ];
    let name = prop::sample::select(vec![
        "id",
        "sale_id",
        "kind",
        "total_fen",
        "total",
        "amount",
        "sold_at",
        "updated_at",
        "lines",
        "name",
        "qty",
        "price_fen",
        "state",
        "total_money",
        "currency",
        "line_items",
        "returns",
        "return_amounts",
        "tenders",
        "type",
        "closed_at",
        "created_at",
        "customer",
        "phone",
        "deleted_at",
        "items",
        "x",
    ]);
    leaf.prop_recursive(5, 60, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map(name.clone(), inner, 0..12).prop_map(|members| Value::Object(
                members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>()
            )),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_record_makes_the_mapping_panic(records in prop::collection::vec(any_json(), 0..6)) {
        let catalog = &CATALOG;
        for (vendor, stream, body) in [
            ("demo-pos", "transactions", json!({"code": 0, "data": {"items": records}})),
            ("square", "orders", json!({"orders": records})),
            ("square", "payments", json!({"payments": records})),
            ("square", "customers", json!({"customers": records})),
            ("aoqiwei-scm", "orders", json!({"code": 0, "data": {"list": records}})),
            ("aoqiwei-crm", "members", json!({"errcode": 0, "res": records})),
            ("keruyun", "orders", json!({"code": 0, "result": {"data": {"list": records}}})),
            ("meituan-cater", "orders", json!({"code": "OP_SUCCESS", "data": {"items": records}})),
            ("tiancai-shanglong", "bills", json!({"code": "0", "data": {"billList": records}})),
            ("pinzhi", "bills", json!({"success": 0, "res": records})),
            ("shopify", "orders", json!({"orders": records})),
            ("loyverse", "receipts", json!({"receipts": records})),
            ("loyverse", "customers", json!({"customers": records})),
            ("generic-rest", "transactions", json!(records)),
        ] {
            let manifest = catalog.get(vendor).unwrap();
            let mapped = replay(&manifest, stream, &body, DateTime::UNIX_EPOCH).unwrap();
            let kept = mapped.transactions.len() + mapped.records.len() + mapped.orders.len() + mapped.members.len();
            let ended = kept + mapped.failures.len();
            let skipped = usize::try_from(mapped.skipped).unwrap();
            prop_assert_eq!(ended + skipped, records.len(), "every record ends as ours, skipped or failed");
            for transaction in &mapped.transactions {
                let texts = [&transaction.order_number, &transaction.payment_method, &transaction.shop, &transaction.customer_phone];
                prop_assert!(!transaction.external_id.contains('\0'));
                prop_assert!(texts.into_iter().flatten().all(|text| !text.contains('\0')));
                prop_assert!(transaction.raw.find('\0').is_none());
                prop_assert_eq!(transaction.occurred_at.timestamp_subsec_nanos() % 1_000_000, 0);
            }
            for failure in &mapped.failures {
                prop_assert!(!failure.reason.contains('\0') && failure.reason.len() < 2_000, "{}", failure.reason);
                prop_assert!(!failure.external_id.is_empty());
            }
        }
    }

    #[test]
    fn no_answer_makes_the_mapping_panic(body in any_json()) {
        let catalog = &CATALOG;
        for (vendor, stream) in [("demo-pos", "transactions"), ("square", "orders"), ("generic-rest", "transactions")] {
            let _ = replay(&catalog.get(vendor).unwrap(), stream, &body, DateTime::UNIX_EPOCH);
        }
    }
}
