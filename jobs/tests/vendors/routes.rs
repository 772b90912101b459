//! What the events of each vendor mean: recorded ones become snapshots of their plan, and a manifest of
//! this file's own does what the embedded ones do not.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};
use zhilian_sync_jobs::vendor::webhook::{Delivery, WebhookSpec};
use zhilian_sync_jobs::vendor::{Catalog, EventScope, Manifest, Plan, check_file, replay_event};
use zhilian_sync_store::record_patches::{PatchKey, PatchTable};
use zhilian_sync_store::{Currency, SystemType};

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::embedded().unwrap());

fn received_at() -> DateTime<Utc> {
    "2026-01-02T00:00:00.123Z".parse().unwrap()
}

fn webhook_of(catalog: &Catalog, provider: &str, config: &Value) -> (Arc<Manifest>, Arc<WebhookSpec>) {
    let config = config.as_object().unwrap();
    let manifest = catalog.resolve(provider, config).unwrap_or_else(|errors| panic!("{errors}"));
    catalog.webhook_of(&manifest)
}

/// The plan of an event as the inbox makes it: opened when it comes, planned when it is applied.
fn plan_of(
    (manifest, spec): &(Arc<Manifest>, Arc<WebhookSpec>),
    system_type: SystemType,
    query: &str,
    body: &[u8],
) -> Result<Plan, String> {
    let headers = HeaderMap::new();
    let delivery = Delivery {
        method: "POST",
        url: "https://hub.example/hook",
        query,
        headers: &headers,
        body,
        received_at: received_at(),
    };
    let opened = spec.open(&delivery).map_err(|refusal| refusal.message)?;
    let config = json!({});
    let scope = EventScope {
        system_type,
        config: &config,
        currency: Currency::CNY,
        zone: chrono_tz::Asia::Shanghai,
        received_at: received_at(),
    };
    spec.plan(manifest, &opened.event_type, query, body, &scope)
}

fn recorded(vendor: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vendors").join(vendor).join("webhooks");
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files
}

#[test]
fn every_recorded_event_has_its_plan() {
    let catalog = &CATALOG;
    for vendor in catalog.names() {
        let webhook = webhook_of(catalog, vendor, &json!({}));
        let files = recorded(vendor);
        assert!(
            webhook.0.name != vendor || !files.is_empty(),
            "`{vendor}` has a `[webhook]` and no recorded event; put one into `{vendor}/webhooks`"
        );
        for file in files {
            let recorded = std::fs::read_to_string(&file).unwrap();
            let plan = replay_event(&webhook.0, &webhook.1, &recorded).unwrap();
            let mut settings = insta::Settings::clone_current();
            settings.set_snapshot_path(file.parent().unwrap());
            settings.set_prepend_module_to_snapshot(false);
            settings.set_omit_expression(true);
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            settings.bind(|| insta::assert_debug_snapshot!(name, plan));
        }
    }
}

#[test]
fn a_systems_settings_hold_for_what_is_sent_too() {
    let catalog = &CATALOG;
    let settings = json!({"money_unit": "minor", "fields": {"external_id": "bill_no"}});
    let webhook = webhook_of(catalog, "some-till", &settings);
    let body =
        r#"{"event":"order.created","data":{"bill_no":"B-1","total":29680,"transaction_time":"2026-01-01"}}"#;
    let Ok(Plan::Records { mapped, .. }) = plan_of(&webhook, SystemType::Pos, "", body.as_bytes()) else {
        panic!("records")
    };
    assert_eq!((mapped.transactions[0].external_id.as_str(), mapped.transactions[0].total), ("B-1", 29_680));
    let body = r#"{"event":"reservation.created","data":{"reservation_id":"R","deposit_amount":20000}}"#;
    let Ok(Plan::Records { mapped, .. }) = plan_of(&webhook, SystemType::Reservation, "", body.as_bytes())
    else {
        panic!("records")
    };
    assert_eq!(mapped.records[0].amount, Some(20_000));
    assert_eq!(mapped.records[0].data, r#"{"deposit_amount":200.00}"#);
}

/// A till with one list and its single record; routes follow.
pub(crate) const HEAD: &str = "[meta]\nname='acme'\ntitle='Acme'\ntypes=['pos','supplier']\n[auth]\nkind='none'\n\
                    [probe]\nstream='receipts'\nmessage='ok'\n\
                    [streams.receipts]\ntarget='pos_transactions'\nrequest.path='/receipts'\n\
                    answer.records='receipts'\n\
                    [streams.receipts.mapping]\nmoney_unit='major'\n\
                    [streams.receipts.mapping.fields]\nexternal_id='receipt_number'\ntotal='total_money'\n\
                    occurred_at='receipt_date'\nversion_at='updated_at'\n\
                    transaction_type={path='receipt_type',default='SALE',values={SALE='sale',REFUND='refund'}}\n\
                    [streams.receipts.one]\npath='/receipts/{event.receipt_number}'\nrecord=['list','receipt']\n\
                    query.shop='{event.shop}'\n\
                    [webhook.verification]\nscheme='none'\n";

fn acme(rest: &str) -> Result<(Arc<Manifest>, Arc<WebhookSpec>), String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("acme.toml"), format!("{HEAD}{rest}")).unwrap();
    let catalog = Catalog::load(Some(folder.path())).map_err(|errors| errors.to_string())?;
    Ok(webhook_of(&catalog, "acme", &json!({})))
}

fn plan(rest: &str, body: &str) -> Result<Plan, String> {
    let webhook = acme(rest).unwrap_or_else(|errors| panic!("{errors}"));
    plan_of(&webhook, SystemType::Pos, "kind=a%20b&kind=c", body.as_bytes())
}

const RECEIPTS: &str =
    "[[webhook.routes]]\nevents='receipts.update'\naction='record'\nstream='receipts'\nrecords='receipts'\n";

#[test]
fn a_batch_holds_many_records_and_a_bad_one_fails_alone() {
    let body = r#"{"merchant_id":"m-1","type":"receipts.update","receipts":[
        {"receipt_number":"2-1001","receipt_type":"SALE","receipt_date":"2026-01-01T03:09:59.000Z","updated_at":"2026-01-01T03:10:04.000Z","total_money":27.13},
        {"receipt_number":"2-1002","receipt_type":"GIFT","receipt_date":"2026-01-01T03:09:59.000Z","total_money":1},
        {"receipt_number":"2-1003","receipt_type":"REFUND","receipt_date":"2026-01-01T03:09:59.000Z","total_money":27.13}]}"#;
    let Ok(Plan::Records { stream, mapped }) = plan(RECEIPTS, body) else { panic!("records") };
    assert_eq!(stream, "receipts");
    let ids: Vec<&str> = mapped.transactions.iter().map(|one| one.external_id.as_str()).collect();
    assert_eq!(ids, ["2-1001", "2-1003"]);
    assert!(mapped.transactions.iter().all(|one| one.observed_at == Some(received_at())));
    assert_eq!(mapped.transactions[1].version_at, None);
    assert_eq!(mapped.failures[0].external_id, "2-1002");
    assert!(mapped.failures[0].reason.contains("`GIFT` has no meaning"), "{:?}", mapped.failures);
}

#[test]
fn an_event_of_bad_records_alone_fails_and_an_empty_one_does_not() {
    let event =
        |receipts: &str| plan(RECEIPTS, &format!(r#"{{"type":"receipts.update","receipts":{receipts}}}"#));
    let reason = event(r#"[{"receipt_number":"1"},{"receipt_number":"2"},7]"#).unwrap_err();
    assert!(reason.contains("no record of the event can be mapped: `total`"), "{reason}");
    assert!(reason.ends_with("(and 2 more)"), "{reason}");
    let Ok(Plan::Records { mapped, .. }) = event("[]") else { panic!("nothing to do") };
    assert_eq!(mapped.storable() + mapped.failures.len(), 0);
    for missing in ["null", "7", "\"text\"", "\"[not json\"", "true"] {
        let reason = event(missing).unwrap_err();
        assert!(reason.starts_with("the event has no record at `receipts`"), "{reason}");
    }
    let many = format!("[{}]", vec!["{}"; 5_001].join(","));
    assert!(event(&many).unwrap_err().contains("has 5001 records; expected at most 5000"));
}

#[test]
fn a_form_is_an_event_too() {
    let form = "body='form'\nevent_type='body:event'\n";
    let route = "[[webhook.routes]]\nevents='paid'\naction='record'\nstream='receipts'\n";
    let with = |keys: &str| format!("[webhook]\n{keys}{route}").replace("[webhook]\n", "");
    // The keys of `[webhook]` itself stand before its tables.
    let text = HEAD.replace("[webhook.verification]", &format!("[webhook]\n{form}[webhook.verification]"));
    let folder = tempfile::tempdir().unwrap();
    let load = |text: &str| {
        std::fs::write(folder.path().join("acme.toml"), text).unwrap();
        let catalog = Catalog::load(Some(folder.path())).unwrap_or_else(|errors| panic!("{errors}"));
        webhook_of(&catalog, "acme", &json!({}))
    };
    let webhook = load(&format!("{text}{}", with("")));
    let body = "event=paid&receipt_number=A%2F1&total_money=12.50&receipt_date=2026-01-01+12%3A00%3A00";
    let Ok(Plan::Records { mapped, .. }) = plan_of(&webhook, SystemType::Pos, "", body.as_bytes()) else {
        panic!("records")
    };
    let one = &mapped.transactions[0];
    assert_eq!((one.external_id.as_str(), one.total), ("A/1", 1250));
    assert_eq!(one.occurred_at.to_rfc3339(), "2026-01-01T04:00:00+00:00");

    let form = "body='form_json'\nform_member='biz'\nevent_type='query:event'\n";
    let text = HEAD.replace("[webhook.verification]", &format!("[webhook]\n{form}[webhook.verification]"));
    let webhook = load(&format!("{text}{route}records='biz.order'\n"));
    let biz = r#"{"order":{"receipt_number":7,"total_money":"1","receipt_date":1767240000}}"#;
    let body: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("biz", biz)
        .append_pair("sign", "x")
        .finish();
    let Ok(Plan::Records { mapped, .. }) = plan_of(&webhook, SystemType::Pos, "event=paid", body.as_bytes())
    else {
        panic!("records")
    };
    assert_eq!(mapped.transactions[0].external_id, "7");
    assert!(mapped.transactions[0].raw.contains("receipt_number"));
    let reason = plan_of(&webhook, SystemType::Pos, "event=paid", b"biz=%7B&sign=x").unwrap_err();
    assert!(reason.contains("`biz`"), "{reason}");
}

#[test]
fn the_first_route_that_fits_counts() {
    let routes = "[[webhook.routes]]\nevents='*'\ntypes=['supplier']\naction='ignore'\n\
                  [[webhook.routes]]\nevents='*'\nwhen=\"has(body.stop) && body.stop == true\"\naction='ignore'\n\
                  [[webhook.routes]]\nevents='*'\nwhen=\"query.kind == 'c' && event_type == 'a.b'\"\naction='pull'\nstream='receipts'\n\
                  [[webhook.routes]]\nevents=['a.*','b']\naction='fetch'\nstream='receipts'\n";
    assert!(matches!(plan(routes, r#"{"type":"a.b","stop":true}"#), Ok(Plan::Ignored)));
    assert!(matches!(plan(routes, r#"{"type":"a.b"}"#), Ok(Plan::Pull { stream }) if stream == "receipts"));
    let Ok(Plan::Fetch { stream, event }) = plan(routes, r#"{"type":"a.c","receipt_number":1.50}"#) else {
        panic!("fetch")
    };
    assert_eq!((stream.as_str(), event["receipt_number"].to_string().as_str()), ("receipts", "1.50"));
    assert!(matches!(plan(routes, r#"{"type":"c"}"#), Ok(Plan::Unrouted)));
    let reason = plan(routes, "[1]").unwrap_err();
    assert!(reason.contains("the condition `has(body.stop)"), "{reason}");
}

#[test]
fn a_condition_about_the_record_holds_for_every_record() {
    let routes = "[[webhook.routes]]\nevents='*'\nwhen='has(record.total_money)'\naction='record'\nstream='receipts'\nrecords=['list','one']\n\
                  [[webhook.routes]]\nevents='*'\naction='patch'\ntarget='pos_transactions'\nrecords=['list','one']\nkey='receipt_number'\nstatus={value='void'}\n";
    let full = r#"{"receipt_number":"1","total_money":1,"receipt_date":"2026-01-01"}"#;
    let thin = r#"{"receipt_number":"2"}"#;
    assert!(matches!(plan(routes, &format!(r#"{{"one":{full}}}"#)), Ok(Plan::Records { .. })));
    let Ok(Plan::Patch(patches)) = plan(routes, &format!(r#"{{"list":[{full},{thin}]}}"#)) else {
        panic!("patches")
    };
    let keys: Vec<_> = patches.iter().map(|patch| patch.key.clone()).collect();
    assert_eq!(keys, [PatchKey::ExternalId("1".into()), PatchKey::ExternalId("2".into())]);
    assert!(plan(routes, "{}").unwrap_err().contains("no record at `list` or `one`"));
}

#[test]
fn patches_are_sorted_and_words_that_no_table_knows_are_refused() {
    let route =
        "[[webhook.routes]]\nevents='*'\naction='patch'\nstream='receipts'\nrecords='list'\nstatus='state'\n";
    let body = r#"{"list":[{"receipt_number":"9","state":"void","updated_at":1767240000},{"receipt_number":"1","state":"sale"}]}"#;
    let Ok(Plan::Patch(patches)) = plan(route, body) else { panic!("patches") };
    assert_eq!(patches[0].key, PatchKey::ExternalId("1".into()));
    assert_eq!(patches[0].version_at, None);
    assert_eq!(patches[1].version_at, Some("2026-01-01T04:00:00Z".parse().unwrap()));
    assert!(patches.iter().all(|patch| {
        patch.table == PatchTable::PosTransactions
            && !patch.deleted
            && !patch.forced
            && patch.observed_at == received_at()
    }));
    for (record, says) in [
        (r#"{"receipt_number":"1","state":"eaten"}"#, "record 2 of the event: `status`: "),
        (r#"{"receipt_number":"1"}"#, "no change of it"),
        (r#"{"state":"void"}"#, "`external_id`"),
        (r#"{"receipt_number":"a\u0000b","state":"void"}"#, "U+0000"),
        (r#"{"receipt_number":{},"state":"void"}"#, "expected text"),
        ("7", "expected a record in braces"),
    ] {
        let body = format!(r#"{{"list":[{{"receipt_number":"9","state":"void"}},{record}]}}"#);
        let reason = plan(route, &body).unwrap_err();
        assert!(reason.contains(says), "{record}: {reason}");
        assert!(!reason.contains('\0'), "{reason}");
    }
}

#[test]
fn a_deletion_is_a_tombstone_where_the_event_tells_all() {
    let route = "[[webhook.routes]]\nevents='*'\naction='delete'\nstream='receipts'\nrecords=['list','.']\n";
    let full =
        r#"{"receipt_number":"1","total_money":2.5,"receipt_date":"2026-01-01","receipt_type":"SALE"}"#;
    let Ok(Plan::Records { mapped, .. }) = plan(route, full) else { panic!("a tombstone") };
    assert!(mapped.transactions[0].deleted);
    assert_eq!(
        (mapped.transactions[0].total, mapped.transactions[0].observed_at),
        (250, Some(received_at()))
    );
    let thin = r#"{"receipt_number":"2","updated_at":"2026-01-01T04:00:00Z"}"#;
    for body in [thin.to_owned(), format!(r#"{{"list":[{full},{thin}]}}"#)] {
        let Ok(Plan::Patch(patches)) = plan(route, &body) else { panic!("a patch: {body}") };
        assert!(patches.iter().all(|patch| patch.deleted && patch.status.is_none()));
        assert_eq!(patches.last().unwrap().key, PatchKey::ExternalId("2".into()));
    }
    assert!(plan(route, "{}").unwrap_err().contains("the record has no id"));
}

#[test]
fn mistakes_of_routes_are_told_with_key_and_fix() {
    let route = |keys: &str| format!("[[webhook.routes]]\nevents='*'\n{keys}\n");
    for (keys, key, says) in [
        ("action='store'", "webhook.routes.0.action", "expected one of `record`"),
        ("", "webhook.routes.0.action", "is missing"),
        ("action='record'", "webhook.routes.0.stream", "is missing"),
        ("action='record'\nstream='sales'", "webhook.routes.0.stream", "`sales` is no stream"),
        ("action='pull'\nstream='receipts'\nrecords='x'", "webhook.routes.0.records", "is not a key"),
        ("action='patch'\nstream='receipts'", "webhook.routes.0.status", "a patch says what changes"),
        ("action='patch'\ntarget='supplier_orders'\nstatus='s'", "webhook.routes.0.key", "is missing"),
        ("action='patch'\nstatus='s'\nkey='k'", "webhook.routes.0.stream", "either the `stream`"),
        ("action='delete'\nstream='receipts'\nstatus='s'", "webhook.routes.0.status", "is not a key"),
        ("action='record'\nstream='receipts'\noptional='tax'", "webhook.routes.0.optional", "`tax` cannot"),
        ("action='ignore'\nwhen='has(record.x)'", "webhook.routes.0.when", "`record` is not known"),
        ("action='ignore'\ntypes='shop'", "webhook.routes.0.types", "`shop`"),
        (
            "action='record'\nstream='s'\n[webhook.streams.s]\ntarget='x'",
            "webhook.streams.s.target",
            "expected one of",
        ),
        (
            "action='record'\nstream='receipts'\n[webhook.streams.receipts]\ntarget='external_records'\nmapping.fields.external_id='id'",
            "webhook.streams.receipts",
            "is the name of a stream that is pulled",
        ),
    ] {
        let errors = acme(&route(keys)).unwrap_err();
        assert!(
            errors.lines().any(|line| line.contains(&format!("`{key}`")) && line.contains(says)),
            "{keys}: {errors}"
        );
    }
    let errors = acme("[streams.more]\ntarget='external_records'\nrequest.path='/{event.id}'\nanswer.records='.'\nmapping.fields.external_id='id'\n\
                       one={path='/x/{page.number}',record='.'}\n[[webhook.routes]]\nevents='*'\naction='fetch'\nstream='more'").unwrap_err();
    assert!(errors.contains("`{event.id}` has no value here"), "{errors}");
    assert!(errors.contains("neither page nor window"), "{errors}");
    assert!(
        acme("[[webhook.routes]]\naction='ignore'")
            .unwrap_err()
            .contains("`webhook.routes.0.events`: is missing")
    );
    assert!(acme("[webhook.routes]\nevents='*'").unwrap_err().contains("expected `[[webhook.routes]]`"));
}

#[test]
fn the_check_tells_what_recorded_events_mean() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("acme.toml");
    std::fs::write(&manifest, format!("{HEAD}{RECEIPTS}")).unwrap();
    std::fs::write(folder.path().join("receipts.json"), r#"{"receipts":[]}"#).unwrap();
    let sent = folder.path().join("webhooks");
    std::fs::create_dir(&sent).unwrap();
    let put = |name: &str, text: &str| std::fs::write(sent.join(name), text).unwrap();
    put("none.json", r#"{"system_type":"pos","body":{"type":"receipts.update","receipts":[]}}"#);
    put("other.json", r#"{"system_type":"pos","query":"event=shifts.create","body":{}}"#);
    put("text.json", r#"{"system_type":"pos","headers":{"x-a":"b"},"body_text":"no json"}"#);
    let report = check_file(&manifest, Some(folder.path())).unwrap();
    assert!(matches!(report.events["none.json"], Ok(Plan::Records { .. })));
    assert!(matches!(report.events["other.json"], Ok(Plan::Unrouted)));
    assert!(report.events["text.json"].as_ref().unwrap_err().contains("JSON"));
    for (text, says) in [
        ("{}", "is no recorded event"),
        (r#"{"system_type":"shop","body":{}}"#, "`shop`"),
        (r#"{"system_type":"pos"}"#, "either `body` or `body_text`"),
        (r#"{"system_type":"pos","headers":{"a b":"c"},"body":{}}"#, "`a b` is no header"),
    ] {
        put("bad.json", text);
        let errors = check_file(&manifest, Some(folder.path())).unwrap_err().to_string();
        assert!(errors.contains("bad.json") && errors.contains(says), "{errors}");
    }
}

/// Any JSON with the members that events have.
fn any_event() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "order.created",
        "order.updated",
        "order.cancelled",
        "order.status_changed",
        "reservation.created",
        "reservation.cancelled",
        "sale.created",
        "sale.voided",
        "sale.deleted",
        "payment.updated",
        "refund",
        "",
        "2026-01-01T00:00:00Z",
        "shipped",
        "{\"id\":1}",
        "[",
        "a\0b",
        "1e999999",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        words.prop_map(Value::from),
    ];
    let names = prop::sample::select(vec![
        "event",
        "event_type",
        "type",
        "data",
        "object",
        "payment",
        "id",
        "transaction_id",
        "sale_id",
        "total",
        "total_fen",
        "sold_at",
        "order_number",
        "external_order_id",
        "order_id",
        "status",
        "updated_at",
        "delivery_time",
        "reservation_id",
        "customer_name",
        "reservation_date",
        "orders",
        "order_updated",
        "state",
    ]);
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(names.clone(), inner, 0..10).prop_map(|members| Value::Object(
                members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            )),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_event_makes_the_plan_panic(event in any_event()) {
        let catalog = &CATALOG;
        let body = event.to_string();
        for vendor in catalog.names() {
            let webhook = webhook_of(catalog, vendor, &json!({}));
            for system_type in [SystemType::Pos, SystemType::Supplier, SystemType::Reservation, SystemType::Payment] {
                match plan_of(&webhook, system_type, "", body.as_bytes()) {
                    Err(reason) => prop_assert!(!reason.contains('\0') && reason.len() < 2_000, "{}", reason),
                    Ok(Plan::Records { mapped, .. }) => {
                        prop_assert!(mapped.transactions.iter().all(|one| !one.external_id.contains('\0') && !one.raw.contains('\0')));
                        prop_assert!(mapped.records.iter().all(|one| !one.external_id.contains('\0')));
                    }
                    Ok(Plan::Patch(patches)) => prop_assert!(patches.is_sorted_by_key(|patch| (patch.table.clone(), patch.key.clone()))),
                    Ok(_) => {}
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_the_plan_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let catalog = &CATALOG;
        for vendor in catalog.names() {
            let _ = plan_of(&webhook_of(catalog, vendor, &json!({})), SystemType::Pos, "", &body);
        }
    }
}
