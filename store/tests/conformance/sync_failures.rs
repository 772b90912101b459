//! `sync_failures`: a record that failed is kept until it succeeds.

use chrono::TimeDelta;
use zhilian_sync_store::record_batches::RefusedRecord;
use zhilian_sync_store::sync_failures::{
    Failing, FailureStage, Filter, NewFailure, SyncFailure, Wanted, count_of_run, count_open, find, list,
    list_of_run, list_open, list_to_try, mend, purge, record_batch, resolve, restate,
};
use zhilian_sync_store::{RunId, Store, SystemId};

use super::support::{at, run, system};

fn failure(id: &str, reason: &str) -> NewFailure {
    NewFailure {
        external_id: id.to_owned(),
        stage: FailureStage::Mapping,
        reason: reason.to_owned(),
        raw: format!(r#"{{"id":"{id}"}}"#),
    }
}

async fn fail(store: &Store, system_id: SystemId, run: RunId, failures: Vec<NewFailure>) {
    let of = Failing { system_id, stream: "orders", sync_log_id: Some(run) };
    let mut tx = store.begin().await.unwrap();
    record_batch(&mut tx, store.clock(), of, failures).await.unwrap();
    tx.commit().await.unwrap();
}

async fn succeed(store: &Store, system: SystemId, stream: &str, ids: &[&str]) -> u64 {
    let mut tx = store.begin().await.unwrap();
    let resolved = resolve(&mut tx, store.clock(), system, stream, ids).await.unwrap();
    tx.commit().await.unwrap();
    resolved
}

pub(crate) async fn a_record_that_fails_again_is_the_same_failure(store: Store) {
    let system = system(&store).await;
    let (first, second) = (run(&store, system).await, run(&store, system).await);
    fail(&store, system, first, vec![failure("T1", "`total` is not a number"), failure("T2", "x")]).await;
    store.clock().advance(TimeDelta::minutes(1));
    let stored = RefusedRecord {
        stream: String::new(),
        external_id: "T1".into(),
        reason: "refused".into(),
        raw: "{}".into(),
    };
    fail(&store, system, second, vec![stored.into()]).await;

    assert_eq!(count_of_run(&store, first).await.unwrap(), 1);
    assert_eq!(count_open(&store, system).await.unwrap(), 2);
    let [again] = list_of_run(&store, second, None, 10).await.unwrap().try_into().unwrap();
    assert_eq!((again.external_id.as_str(), again.occurrences), ("T1", 2));
    assert_eq!(
        (again.stage, again.reason.as_str(), again.raw.as_str()),
        (FailureStage::Storing, "refused", "{}")
    );
    assert_eq!((again.created_at, again.updated_at, again.resolved_at), (at(0), at(60), None));
}

pub(crate) async fn a_resolved_failure_may_open_anew(store: Store) {
    let system = system(&store).await;
    let run = run(&store, system).await;
    fail(&store, system, run, vec![failure("T1", "first")]).await;
    store.clock().advance(TimeDelta::minutes(1));
    assert_eq!(succeed(&store, system, "orders", &["T1"]).await, 1);
    assert_eq!(succeed(&store, system, "orders", &["T1"]).await, 0);
    assert_eq!(list_of_run(&store, run, None, 10).await.unwrap()[0].resolved_at, Some(at(60)));

    fail(&store, system, run, vec![failure("T1", "second")]).await;
    let [open] = list_open(&store, system, "orders", None, 10).await.unwrap().try_into().unwrap();
    assert_eq!((open.reason.as_str(), open.occurrences), ("second", 1));
    assert_eq!(count_of_run(&store, run).await.unwrap(), 2);
}

pub(crate) async fn failures_are_kept_whatever_the_record(store: Store) {
    let system = system(&store).await;
    let run = run(&store, system).await;
    let long_id = "x".repeat(10_000);
    let same = vec![failure("dup", "first"), failure("dup", "last")];
    let odd = vec![
        failure(&long_id, "too long"),
        failure("", "no id"),
        NewFailure { raw: "a\0b".into(), reason: "nul \0".into(), ..failure("nul\0", "") },
        failure("wordy", &"长".repeat(5_000)),
    ];
    fail(&store, system, run, [same, odd].concat()).await;
    let kept = list_of_run(&store, run, None, 10).await.unwrap();
    assert_eq!(kept.len(), 5);
    let find = |id: &str| kept.iter().find(|failure| failure.external_id == id).unwrap();
    assert_eq!(find("dup").reason, "last");
    assert_eq!(
        (find("nul\u{fffd}").reason.as_str(), find("nul\u{fffd}").raw.as_str()),
        ("nul \u{fffd}", "a\u{fffd}b")
    );
    assert_eq!(find("wordy").reason.chars().count(), 2_000);
    assert_eq!(kept.iter().filter(|failure| failure.external_id.starts_with("hash:")).count(), 2);

    let many = (0..1_500).map(|index| failure(&format!("M{index}"), "many")).collect();
    fail(&store, system, run, many).await;
    assert_eq!(count_open(&store, system).await.unwrap(), 1_505);
}

pub(crate) async fn only_named_records_of_the_stream_are_resolved(store: Store) {
    let (first, second) = (system(&store).await, system(&store).await);
    let runs = (run(&store, first).await, run(&store, second).await);
    assert_eq!(succeed(&store, first, "orders", &["T1"]).await, 0, "nothing is open yet");
    fail(&store, first, runs.0, vec![failure("T1", "x"), failure("T2", "x"), failure("T3", "x")]).await;
    fail(&store, second, runs.1, vec![failure("T1", "x")]).await;
    assert_eq!(succeed(&store, first, "payments", &["T1"]).await, 0);
    assert_eq!(succeed(&store, first, "orders", &[]).await, 0);
    assert_eq!(succeed(&store, first, "orders", &["T0", "T1", "T3"]).await, 2);
    let [open] = list_open(&store, first, "orders", None, 10).await.unwrap().try_into().unwrap();
    assert_eq!(open.external_id, "T2");
    assert_eq!(count_open(&store, second).await.unwrap(), 1);
}

pub(crate) async fn failures_are_listed_page_by_page(store: Store) {
    let system = system(&store).await;
    let run = run(&store, system).await;
    let many = (0..25).map(|index| failure(&format!("T{index:02}"), "x")).collect();
    fail(&store, system, run, many).await;

    let mut of_run = Vec::new();
    loop {
        let after = of_run.last().map(|last: &zhilian_sync_store::sync_failures::SyncFailure| last.id);
        let page = list_of_run(&store, run, after, 10).await.unwrap();
        if page.is_empty() {
            break;
        }
        of_run.extend(page);
    }
    assert_eq!(of_run.len(), 25);
    assert!(of_run.is_sorted_by_key(|failure| failure.id));

    let first = list_open(&store, system, "orders", None, 20).await.unwrap();
    let after = first.last().map(|last| last.external_id.as_str());
    let rest = list_open(&store, system, "orders", after, 20).await.unwrap();
    let ids: Vec<_> = first.iter().chain(&rest).map(|failure| failure.external_id.clone()).collect();
    assert_eq!(ids, (0..25).map(|index| format!("T{index:02}")).collect::<Vec<_>>());
}

pub(crate) async fn only_resolved_failures_are_purged(store: Store) {
    let system = system(&store).await;
    let run = run(&store, system).await;
    fail(&store, system, run, vec![failure("T1", "x"), failure("T2", "x"), failure("T3", "x")]).await;
    assert_eq!(succeed(&store, system, "orders", &["T1", "T2"]).await, 2);
    assert_eq!(purge(&store, at(0), 10).await.unwrap(), 0);
    assert_eq!(purge(&store, at(1), 1).await.unwrap(), 1);
    assert_eq!(purge(&store, at(1_000_000), 10).await.unwrap(), 1);
    let [open] = list_of_run(&store, run, None, 10).await.unwrap().try_into().unwrap();
    assert_eq!(open.external_id, "T3");
}

/// Everything that is to be tried again, three at a time.
async fn to_try(store: &Store, wanted: Wanted<'_>) -> Vec<SyncFailure> {
    let mut all: Vec<SyncFailure> = Vec::new();
    loop {
        let bite = list_to_try(store, wanted, all.last().map(|last| last.id), 3).await.unwrap();
        if bite.is_empty() {
            return all;
        }
        all.extend(bite);
    }
}

pub(crate) async fn failures_to_try_again_are_open_and_were_there(store: Store) {
    let (first, second) = (system(&store).await, system(&store).await);
    let runs = (run(&store, first).await, run(&store, second).await);
    let many = (0..8).map(|index| failure(&format!("T{index}"), "x")).collect();
    fail(&store, first, runs.0, many).await;
    fail(&store, second, runs.1, vec![failure("T1", "x")]).await;
    assert_eq!(succeed(&store, first, "orders", &["T4"]).await, 1);
    store.clock().advance(TimeDelta::seconds(1));
    fail(&store, first, runs.0, vec![failure("later", "x")]).await;
    let wanted = Wanted { system_id: first, stream: None, until: at(0) };
    let mut ids: Vec<_> = to_try(&store, wanted).await.into_iter().map(|one| one.external_id).collect();
    ids.sort();
    assert_eq!(ids, ["T0", "T1", "T2", "T3", "T5", "T6", "T7"]);
    let now = Wanted { until: at(1), ..wanted };
    assert_eq!(to_try(&store, now).await.len(), 8);
    assert_eq!(to_try(&store, Wanted { stream: Some("orders"), ..now }).await.len(), 8);
    assert_eq!(to_try(&store, Wanted { stream: Some("payments"), ..now }).await.len(), 0);
}

pub(crate) async fn what_was_told_anew_is_not_mended_by_an_older_reading(store: Store) {
    let system = system(&store).await;
    let run = run(&store, system).await;
    fail(&store, system, run, vec![failure("T1", "old"), failure("T2", "old"), failure("T3", "old")]).await;
    let wanted = Wanted { system_id: system, stream: None, until: at(0) };
    let read = to_try(&store, wanted).await;
    let [first, second, third] =
        ["T1", "T2", "T3"].map(|id| read.iter().find(|failure| failure.external_id == id).unwrap().clone());
    store.clock().advance(TimeDelta::minutes(1));
    fail(&store, system, run, vec![failure("T1", "new")]).await;

    let mut tx = store.begin().await.unwrap();
    assert!(!mend(&mut tx, store.clock(), &first).await.unwrap());
    assert!(!restate(&mut tx, &first, FailureStage::Storing, "tried").await.unwrap());
    assert!(mend(&mut tx, store.clock(), &second).await.unwrap());
    assert!(!mend(&mut tx, store.clock(), &second).await.unwrap(), "it is resolved already");
    assert!(restate(&mut tx, &third, FailureStage::Storing, "tried\0").await.unwrap());
    tx.commit().await.unwrap();

    let shown = async |failure: &SyncFailure| {
        let now = find(&store, failure.id).await.unwrap().unwrap();
        (now.reason, now.stage, now.occurrences, now.updated_at, now.resolved_at)
    };
    assert_eq!(shown(&first).await, ("new".into(), FailureStage::Mapping, 2, at(60), None));
    assert_eq!(shown(&second).await, ("old".into(), FailureStage::Mapping, 1, at(60), Some(at(60))));
    let open = ("tried\u{fffd}".to_owned(), FailureStage::Storing, 1, at(0), None);
    assert_eq!(shown(&third).await, open, "nothing was heard of the record, so its time stays");
}

pub(crate) async fn large_records_are_tried_again_one_by_one(store: Store) {
    let system = system(&store).await;
    let run = run(&store, system).await;
    let large = |id: &str, chars: usize| NewFailure { raw: "x".repeat(chars), ..failure(id, "x") };
    fail(&store, system, run, vec![failure("A", "x"), large("B", 9_000_000), failure("C", "x")]).await;
    let wanted = Wanted { system_id: system, stream: None, until: at(0) };
    let mut bites = Vec::new();
    let mut after = None;
    loop {
        let bite = list_to_try(&store, wanted, after, 10).await.unwrap();
        let Some(last) = bite.last() else { break };
        after = Some(last.id);
        bites.push(bite.len());
    }
    assert_eq!(bites.iter().sum::<usize>(), 3);
    assert!(bites.len() > 1, "{bites:?}");
    let filter = Filter { system_id: Some(system), limit: 10, ..Filter::default() };
    let listed = list(&store, &filter).await.unwrap();
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|failure| failure.raw.is_empty()), "a list is without the records");
}
