//! `external_systems`: the configured connections, their schedule and their health.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use secrecy::{ExposeSecret, SecretString};
use sqlx::types::Json;
use zhilian_sync_store::external_systems::{
    ExternalSystem, Filter, Health, advance, blank, credentials, delete, due, find, get, holds_version,
    insert, list, record_outcome, save, set_credentials, set_webhook_secrets, start_schedule, unscheduled,
    webhook_secrets, webhook_secrets_valid_at,
};
use zhilian_sync_store::{
    Currency, Store, StoreError, SyncStatus, SystemId, SystemStatus, SystemType, on_read,
};

use super::support::{at, system};

async fn add(store: &Store, system: &ExternalSystem) {
    let mut tx = store.begin().await.unwrap();
    insert(&mut tx, system).await.unwrap();
    tx.commit().await.unwrap();
}

fn secrets(text: &str) -> BTreeMap<String, SecretString> {
    BTreeMap::from([("api_key".to_owned(), SecretString::from(text))])
}

async fn report(store: &Store, id: SystemId, health: Health<'_>) -> ExternalSystem {
    let mut tx = store.begin().await.unwrap();
    record_outcome(&mut tx, store.clock(), id, &health).await.unwrap();
    tx.commit().await.unwrap();
    get(store, id).await.unwrap()
}

pub(crate) async fn a_system_is_read_back_as_it_was_written(store: Store) {
    let mut system = blank(&store, "收银 1", SystemType::Pos, "square");
    system.store_id = Some("A".into());
    system.store_map = Json(BTreeMap::from([("S1".into(), "A".into())]));
    system.api_endpoint = Some("https://pos.example".into());
    system.config.insert("big".into(), serde_json::from_str("12345678901234567890.10").unwrap());
    system.currency = "JPY".parse::<Currency>().unwrap();
    system.sync_cron = Some("*/5 * * * *".into());
    system.next_sync_at = Some(at(300));
    set_credentials(&store, &mut system, &secrets("k-1")).unwrap();
    set_webhook_secrets(&store, &mut system, &secrets("w-1")).unwrap();
    system.webhook_secret_expiries = Json(BTreeMap::from([("api_key".into(), at(60))]));
    add(&store, &system).await;

    let read = get(&store, system.id).await.unwrap();
    assert_eq!(format!("{read:?}"), format!("{system:?}"));
    assert_eq!(credentials(&store, &read).unwrap()["api_key"].expose_secret(), "k-1");
    assert_eq!(webhook_secrets(&store, &read).unwrap()["api_key"].expose_secret(), "w-1");
    assert!(!format!("{read:?}").contains("k-1"));

    // Sealed for this row and this column: moved, they do not open.
    let moved = ExternalSystem { sealed_credentials: read.sealed_webhook_secrets.clone(), ..read.clone() };
    assert!(credentials(&store, &moved).is_err());
    let other = ExternalSystem { id: SystemId(store.clock().new_id()), ..read };
    assert!(credentials(&store, &other).is_err());
    assert!(find(&store, other.id).await.unwrap().is_none());
    assert!(matches!(get(&store, other.id).await.unwrap_err(), StoreError::NotFound(_)));
}

pub(crate) async fn a_change_on_an_old_reading_is_a_conflict(store: Store) {
    let id = system(&store).await;
    let mut mine = get(&store, id).await.unwrap();
    let mut theirs = mine.clone();
    theirs.name = "theirs".into();
    mine.name = "mine".into();
    let mut tx = store.begin().await.unwrap();
    save(&mut tx, &theirs, Some(SystemStatus::Testing), at(1)).await.unwrap();
    let error = save(&mut tx, &mine, None, at(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
    tx.commit().await.unwrap();

    let read = get(&store, id).await.unwrap();
    assert_eq!((read.name.as_str(), read.version, read.updated_at), ("theirs", 2, at(1)));
    assert_eq!(read.status, SystemStatus::Testing);
    let mut tx = store.begin().await.unwrap();
    save(&mut tx, &ExternalSystem { status: SystemStatus::Active, ..read }, None, at(3)).await.unwrap();
    tx.commit().await.unwrap();
    let read = get(&store, id).await.unwrap();
    assert_eq!(read.status, SystemStatus::Testing, "a state that nobody changes is not written back");
}

pub(crate) async fn a_slot_is_taken_once(store: Store) {
    let mut system = blank(&store, "Till", SystemType::Pos, "demo-pos");
    system.next_sync_at = Some(at(0));
    add(&store, &system).await;
    assert_eq!(due(&store, at(-1), 10).await.unwrap().len(), 0);
    let [read] = due(&store, at(0), 10).await.unwrap().try_into().unwrap();

    let taking: Vec<_> = (0..4)
        .map(|_| {
            let (store, read) = (store.clone(), read.clone());
            tokio::spawn(async move {
                let mut tx = store.begin().await.unwrap();
                let mine = advance(&mut tx, &read, Some(at(300)), Some(at(300))).await.unwrap();
                tx.commit().await.unwrap();
                mine
            })
        })
        .collect();
    let mut takers = 0;
    for take in taking {
        takers += u32::from(take.await.unwrap());
    }
    assert_eq!(takers, 1);
    assert_eq!(get(&store, system.id).await.unwrap().next_sync_at, Some(at(300)));
}

pub(crate) async fn failures_lead_to_error_and_a_success_leads_back(store: Store) {
    let id = system(&store).await;
    let worked = |activate| Health::Working { status: SyncStatus::Success, activate };
    let failing = |unauthorized| Health::Failing {
        error: "the vendor answered 500",
        unauthorized,
        breaker_failures: 3,
        cooldown_until: at(900),
    };
    assert_eq!(report(&store, id, worked(false)).await.status, SystemStatus::Inactive);
    assert_eq!(report(&store, id, worked(true)).await.status, SystemStatus::Active, "a test makes it active");

    assert_eq!(unscheduled(&store, 10).await.unwrap().len(), 1);
    start_schedule(&store, id, at(300), at(300)).await.unwrap();
    start_schedule(&store, id, at(1), at(1)).await.unwrap();
    assert_eq!(
        get(&store, id).await.unwrap().next_sync_at,
        Some(at(300)),
        "a running schedule is left alone"
    );
    assert_eq!(unscheduled(&store, 10).await.unwrap().len(), 0);

    for failures in 1..=2 {
        let read = report(&store, id, failing(false)).await;
        assert_eq!((read.status, read.consecutive_failures), (SystemStatus::Active, failures));
        assert_eq!(read.next_sync_at, Some(at(300)));
    }
    let read = report(&store, id, failing(false)).await;
    assert_eq!((read.status, read.last_sync_status), (SystemStatus::Error, Some(SyncStatus::Failed)));
    assert_eq!(read.last_error.as_deref(), Some("the vendor answered 500"));
    assert_eq!(read.next_sync_at, Some(at(900)), "one probe per cool-down");

    let read = report(&store, id, worked(false)).await;
    assert_eq!((read.status, read.consecutive_failures, read.last_error), (SystemStatus::Active, 0, None));
    assert_eq!(report(&store, id, failing(true)).await.status, SystemStatus::Error, "401 needs no breaker");
}

/// The columns that hold secrets.
type Secrets = (Option<Vec<u8>>, Option<Vec<u8>>, Json<serde_json::Value>);

pub(crate) async fn a_deleted_system_keeps_nothing_secret(store: Store) {
    let mut system = blank(&store, "Till", SystemType::Pos, "demo-pos");
    system.next_sync_at = Some(at(0));
    set_credentials(&store, &mut system, &secrets("k-1")).unwrap();
    set_webhook_secrets(&store, &mut system, &secrets("w-1")).unwrap();
    system.config.insert("token".into(), "t-1".into());
    add(&store, &system).await;
    let mut tx = store.begin().await.unwrap();
    delete(&mut tx, &system, at(5)).await.unwrap();
    let again = delete(&mut tx, &system, at(6)).await.unwrap_err();
    assert!(matches!(again, StoreError::Conflict(_)), "{again:?}");
    tx.commit().await.unwrap();

    assert!(find(&store, system.id).await.unwrap().is_none());
    assert_eq!(due(&store, at(10), 10).await.unwrap().len(), 0);
    let wiped: Result<Secrets, sqlx::Error> = on_read!(store, |ex| {
        sqlx::query_as("SELECT sealed_credentials, sealed_webhook_secrets, config FROM external_systems")
            .fetch_one(ex)
            .await
    });
    assert_eq!(wiped.unwrap(), (None, None, Json(serde_json::json!({}))));
}

pub(crate) async fn a_webhook_secret_ends_when_it_was_told_to(store: Store) {
    let named = |names: &[&str]| -> BTreeMap<String, SecretString> {
        names.iter().map(|name| ((*name).to_owned(), SecretString::from("s"))).collect()
    };
    let mut system = blank(&store, "Till", SystemType::Pos, "demo-pos");
    set_webhook_secrets(&store, &mut system, &named(&["new", "old"])).unwrap();
    add(&store, &system).await;
    system.webhook_secret_expiries.insert("old".into(), at(60));
    let mut tx = store.begin().await.unwrap();
    save(&mut tx, &system, None, at(0)).await.unwrap();
    tx.commit().await.unwrap();

    let mut read = get(&store, system.id).await.unwrap();
    for (time, expected) in [(at(0), vec!["new", "old"]), (at(60), vec!["new", "old"]), (at(61), vec!["new"])]
    {
        let valid = webhook_secrets_valid_at(&store, &read, time).unwrap();
        assert_eq!(valid.keys().collect::<Vec<_>>(), expected);
    }
    // A secret that goes takes its end with it: a new one of the same name does not inherit it.
    set_webhook_secrets(&store, &mut read, &named(&["new"])).unwrap();
    assert!(read.webhook_secret_expiries.is_empty());
}

pub(crate) async fn a_version_is_held_until_it_changes(store: Store) {
    let mut system = blank(&store, "Till", SystemType::Pos, "demo-pos");
    add(&store, &system).await;
    let mut tx = store.begin().await.unwrap();
    assert!(holds_version(&mut tx, system.id, 1).await.unwrap());
    assert!(!holds_version(&mut tx, system.id, 2).await.unwrap());
    tx.commit().await.unwrap();
    let mut tx = store.begin().await.unwrap();
    save(&mut tx, &system, None, at(0)).await.unwrap();
    tx.commit().await.unwrap();
    system.version = 2;
    let mut tx = store.begin().await.unwrap();
    assert!(!holds_version(&mut tx, system.id, 1).await.unwrap(), "it was changed");
    assert!(holds_version(&mut tx, system.id, 2).await.unwrap());
    delete(&mut tx, &system, at(1)).await.unwrap();
    assert!(!holds_version(&mut tx, system.id, 3).await.unwrap(), "it is deleted");
    tx.commit().await.unwrap();
}

/// Five systems: three of store A, one of B, one of the whole chain.
async fn add_five(store: &Store) {
    for (index, store_id) in [Some("A"), Some("B"), None, Some("A"), Some("A")].into_iter().enumerate() {
        let mut system = blank(store, &format!("S{index}"), SystemType::Pos, "demo-pos");
        system.store_id = store_id.map(str::to_owned);
        if index == 4 {
            system.system_type = SystemType::Payment;
        }
        add(store, &system).await;
        if index % 2 == 0 {
            store.clock().advance(TimeDelta::seconds(1));
        }
    }
}

pub(crate) async fn systems_are_listed_within_the_callers_scope(store: Store) {
    add_five(&store).await;
    let all = Filter { limit: 100, ..Filter::default() };
    let within = |scope, store_id| Filter { scope, store_id, ..all.clone() };
    for (what, filter, expected) in [
        ("everything", all.clone(), 5),
        ("a store", within(None, Some("A")), 3),
        ("the caller's store", within(Some("A"), None), 3),
        ("a scope cannot be left", within(Some("A"), Some("B")), 0),
        ("a type", Filter { system_type: Some(SystemType::Payment), ..all.clone() }, 1),
        ("a state", Filter { status: Some(SystemStatus::Active), ..all.clone() }, 0),
    ] {
        assert_eq!(list(&store, &filter).await.unwrap().len(), expected, "{what}");
    }
}

pub(crate) async fn systems_are_listed_newest_first_page_by_page(store: Store) {
    add_five(&store).await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let filter = Filter { after, limit: 2, ..Filter::default() };
        let page = list(&store, &filter).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.created_at, last.id));
        seen.extend(page);
    }
    assert!(seen.is_sorted_by_key(|system| std::cmp::Reverse((system.created_at, system.id))));
    assert_eq!(seen.iter().map(|system| system.id).collect::<BTreeSet<_>>().len(), 5);
}
