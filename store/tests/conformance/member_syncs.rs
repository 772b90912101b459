//! `member_syncs`: the promises of vendor records, under each rule of whose word counts; and a member's way to
//! its vendor.

use chrono::TimeDelta;
use zhilian_sync_store::member_syncs::{
    Filter, IncomingMember, MemberSync, OurMember, PAGE_MAX, Pushed, ask_for_push, fail_push, fail_pushes,
    find_by_member_id, finish_push, get, hand_in, list, upsert_batch, upsert_batch_isolating, upsert_of_runs,
};
use zhilian_sync_store::record_batches::{Batch, StoreMap, Upserted};
use zhilian_sync_store::records_handed_in::{Change, HandedIn};
use zhilian_sync_store::{MemberConflict, MemberOrigin, Store, StoreError, SyncStatus, SystemId};

use super::support::{at, batch, handed_in, member, refuse_poison, run, system};

const NEWEST: MemberConflict = MemberConflict::Newest;
const CHANGED: Upserted = Upserted { changed: 1, unchanged: 0 };
const UNCHANGED: Upserted = Upserted { changed: 0, unchanged: 1 };

/// What the vendor tells.
async fn told(store: &Store, of: Batch<'_>, rule: MemberConflict, member: IncomingMember) -> Upserted {
    let mut tx = store.begin().await.unwrap();
    let upserted = upsert_batch(&mut tx, of, rule, vec![member]).await.unwrap();
    tx.commit().await.unwrap();
    upserted
}

/// What the API tells, to be pushed.
async fn ours(
    store: &Store,
    of: Batch<'_>,
    rule: MemberConflict,
    member: IncomingMember,
) -> (MemberSync, Change) {
    handed_in(store, of, OurMember { member, rule, to_push: true }).await
}

async fn find(store: &Store, system: SystemId, id: &str) -> MemberSync {
    find_by_member_id(store, system, id).await.unwrap().unwrap()
}

fn versioned(id: &str, points: i64, version: i64) -> IncomingMember {
    IncomingMember { version_at: Some(at(version)), ..member(id, points) }
}

pub(crate) async fn a_member_is_stored_with_all_its_fields(store: Store) {
    let system = system(&store).await;
    let run = run(&store, system).await;
    let incoming = IncomingMember {
        external_member_id: Some("V-1".into()),
        email: Some("wang@example.com".into()),
        last_activity: Some(at(-60)),
        observed_at: Some(at(9)),
        ..versioned("M1", 120, -5)
    };
    let mut tx = store.begin().await.unwrap();
    let of = batch(&store, system, 7);
    let keys = upsert_of_runs(&mut tx, of, NEWEST, vec![(run, incoming.clone())]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(keys, [(String::new(), "M1".to_owned())]);

    let row = find(&store, system, "M1").await;
    assert_eq!((row.system_id, row.external_member_id.clone()), (system, incoming.external_member_id));
    assert_eq!((row.phone.clone(), row.name.clone()), (incoming.phone, incoming.name));
    assert_eq!((row.email.clone(), row.level.clone()), (incoming.email, incoming.level));
    assert_eq!((row.points, row.balance, row.currency), (120, 5_000, incoming.currency));
    assert_eq!((row.last_activity, row.version_at, row.observed_at), (Some(at(-60)), at(-5), at(9)));
    assert_eq!((row.sync_status, row.sync_log_id), (SyncStatus::Success, Some(run)));
    assert_eq!((row.origin, row.pushed_at, row.push_error.clone()), (MemberOrigin::Vendor, None, None));
    assert_eq!((row.raw.clone(), row.deleted_at), (incoming.raw, None));
    assert_eq!(get(&store, row.id).await.unwrap(), row);
    let missing = get(&store, store.clock().new_id()).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound(_)), "{missing:?}");
}

pub(crate) async fn by_default_the_newer_word_counts(store: Store) {
    let system = system(&store).await;
    let (row, written) = ours(&store, batch(&store, system, 100), NEWEST, member("M1", 1)).await;
    assert_eq!((written, row.origin), (Change::Created, MemberOrigin::Ours));
    assert_eq!((row.sync_status, row.points), (SyncStatus::Pending, 1));

    // The vendor was asked before the API told.
    assert_eq!(told(&store, batch(&store, system, 99), NEWEST, member("M1", 2)).await, UNCHANGED);
    assert_eq!(told(&store, batch(&store, system, 101), NEWEST, versioned("M1", 2, 50)).await, UNCHANGED);
    assert_eq!(find(&store, system, "M1").await.points, 1);
    assert_eq!(told(&store, batch(&store, system, 101), NEWEST, versioned("M1", 3, 100)).await, CHANGED);
    let row = find(&store, system, "M1").await;
    assert_eq!((row.points, row.origin), (3, MemberOrigin::Vendor));
    assert_eq!(row.sync_status, SyncStatus::Success, "there is nothing to push any more");

    let (row, written) = ours(&store, batch(&store, system, 99), NEWEST, member("M1", 4)).await;
    assert_eq!((written, row.points), (Change::Unchanged, 3));
    let (row, written) = ours(&store, batch(&store, system, 200), NEWEST, member("M1", 4)).await;
    assert_eq!((written, row.points, row.origin), (Change::Updated, 4, MemberOrigin::Ours));
    assert_eq!(row.sync_status, SyncStatus::Pending);
}

pub(crate) async fn the_vendors_word_may_count_whatever_the_versions(store: Store) {
    let system = system(&store).await;
    let rule = MemberConflict::Vendor;
    ours(&store, batch(&store, system, 100), rule, member("M1", 1)).await;
    let (row, written) = ours(&store, batch(&store, system, 101), rule, member("M1", 2)).await;
    assert_eq!((written, row.points), (Change::Updated, 2), "the vendor has told nothing yet");

    assert_eq!(told(&store, batch(&store, system, 50), rule, versioned("M1", 3, 10)).await, CHANGED);
    let row = find(&store, system, "M1").await;
    assert_eq!((row.points, row.origin, row.version_at), (3, MemberOrigin::Vendor, at(10)));

    let (row, written) = ours(&store, batch(&store, system, 300), rule, member("M1", 4)).await;
    assert_eq!((written, row.points), (Change::Unchanged, 3), "the vendor has told of it");
    assert_eq!(row.sync_status, SyncStatus::Success);
    // Among its own words the newer counts.
    assert_eq!(told(&store, batch(&store, system, 400), rule, versioned("M1", 5, 9)).await, UNCHANGED);
    assert_eq!(told(&store, batch(&store, system, 400), rule, versioned("M1", 5, 11)).await, CHANGED);

    // Equal content makes it the vendor's too.
    ours(&store, batch(&store, system, 100), rule, member("M2", 1)).await;
    assert_eq!(told(&store, batch(&store, system, 50), rule, member("M2", 1)).await, CHANGED);
    let row = find(&store, system, "M2").await;
    assert_eq!((row.origin, row.sync_status), (MemberOrigin::Vendor, SyncStatus::Success));
}

pub(crate) async fn our_word_may_count_and_the_vendor_only_names_it(store: Store) {
    let system = system(&store).await;
    let rule = MemberConflict::Ours;
    assert_eq!(told(&store, batch(&store, system, 900), rule, member("M1", 1)).await, CHANGED);
    let (row, written) = ours(&store, batch(&store, system, 100), rule, member("M1", 2)).await;
    assert_eq!((written, row.points, row.origin), (Change::Updated, 2, MemberOrigin::Ours));

    let named = |id: &str| IncomingMember { external_member_id: Some(id.into()), ..member("M1", 3) };
    assert_eq!(told(&store, batch(&store, system, 950), rule, named("V-1")).await, UNCHANGED);
    assert_eq!(told(&store, batch(&store, system, 960), rule, named("V-2")).await, UNCHANGED);
    let row = find(&store, system, "M1").await;
    assert_eq!((row.points, row.external_member_id.as_deref()), (2, Some("V-1")));
    assert_eq!((row.origin, row.sync_status), (MemberOrigin::Ours, SyncStatus::Pending));

    // What we say too, though it is nothing new, is ours from then on.
    assert_eq!(told(&store, batch(&store, system, 0), rule, member("M2", 1)).await, CHANGED);
    let (row, written) = ours(&store, batch(&store, system, 1), rule, member("M2", 1)).await;
    assert_eq!((written, row.origin), (Change::Unchanged, MemberOrigin::Ours));
    assert_eq!(row.sync_status, SyncStatus::Success, "the vendor has it");
    assert_eq!(told(&store, batch(&store, system, 2), rule, member("M2", 9)).await, UNCHANGED);
}

pub(crate) async fn equal_content_changes_nothing(store: Store) {
    let system = system(&store).await;
    let (before, _) = ours(&store, batch(&store, system, 0), NEWEST, member("M1", 1)).await;
    store.clock().advance(TimeDelta::hours(1));
    // What was pushed comes back in the vendor's own words.
    let back = IncomingMember { raw: r#"{"no":"M1"}"#.into(), ..versioned("M1", 1, 50) };
    assert_eq!(told(&store, batch(&store, system, 60), NEWEST, back).await, UNCHANGED);
    let row = find(&store, system, "M1").await;
    assert_eq!(row, MemberSync { version_at: at(50), observed_at: at(60), ..before });
    let (again, written) = ours(&store, batch(&store, system, 70), NEWEST, member("M1", 1)).await;
    assert_eq!((again, written), (row, Change::Unchanged));

    // Of the vendor's own words a new one is kept.
    told(&store, batch(&store, system, 0), NEWEST, member("M2", 1)).await;
    let more = IncomingMember { raw: r#"{"more":1}"#.into(), ..member("M2", 1) };
    assert_eq!(told(&store, batch(&store, system, 1), NEWEST, more.clone()).await, CHANGED);
    assert_eq!(told(&store, batch(&store, system, 2), NEWEST, more).await, UNCHANGED);
}

pub(crate) async fn what_the_api_does_not_tell_stays(store: Store) {
    let system = system(&store).await;
    let full = IncomingMember {
        external_member_id: Some("V-1".into()),
        last_activity: Some(at(-9)),
        ..member("M1", 7)
    };
    told(&store, batch(&store, system, 0), NEWEST, full).await;
    let little = IncomingMember {
        phone: None,
        name: None,
        points: None,
        balance: None,
        level: Some("platinum".into()),
        ..member("M1", 0)
    };
    let (row, written) = ours(&store, batch(&store, system, 1), NEWEST, little).await;
    assert_eq!((written, row.level.as_deref()), (Change::Updated, Some("platinum")));
    assert_eq!((row.points, row.balance), (7, 5_000));
    assert_eq!((row.phone.as_deref(), row.name.as_deref()), (Some("13800000001"), Some("王芳")));
    assert_eq!((row.external_member_id.as_deref(), row.last_activity), (Some("V-1"), Some(at(-9))));
}

pub(crate) async fn a_tombstone_is_raised_by_a_newer_version_only(store: Store) {
    let system = system(&store).await;
    let gone = IncomingMember { deleted: true, ..versioned("M1", 1, 20) };
    assert_eq!(told(&store, batch(&store, system, 20), NEWEST, versioned("M1", 1, 10)).await, CHANGED);
    assert_eq!(told(&store, batch(&store, system, 21), NEWEST, gone).await, CHANGED);
    assert!(find(&store, system, "M1").await.deleted_at.is_some());
    assert_eq!(told(&store, batch(&store, system, 22), NEWEST, versioned("M1", 1, 10)).await, UNCHANGED);
    assert_eq!(told(&store, batch(&store, system, 23), NEWEST, versioned("M1", 1, 30)).await, CHANGED);
    assert_eq!(find(&store, system, "M1").await.deleted_at, None);
}

pub(crate) async fn a_replay_passes_over_versions_and_not_over_the_rule(store: Store) {
    let system = system(&store).await;
    let forced = Batch { force: true, ..batch(&store, system, 0) };
    for rule in [NEWEST, MemberConflict::Vendor, MemberConflict::Ours] {
        let (theirs, our) = (format!("{rule}-theirs"), format!("{rule}-ours"));
        told(&store, batch(&store, system, 50), rule, versioned(&theirs, 1, 50)).await;
        assert_eq!(told(&store, forced, rule, versioned(&theirs, 2, 10)).await, CHANGED, "{rule}");
        ours(&store, batch(&store, system, 50), rule, member(&our, 1)).await;
        let expected = if rule == MemberConflict::Ours { UNCHANGED } else { CHANGED };
        assert_eq!(told(&store, forced, rule, versioned(&our, 2, 10)).await, expected, "{rule}");
    }
}

pub(crate) async fn a_member_that_cannot_be_stored_stands_alone(store: Store) {
    let system = system(&store).await;
    refuse_poison(&store, "member_syncs", "level").await;
    let poison = IncomingMember { level: Some("poison".into()), ..member("M3", 1) };
    let nameless = member("", 1);
    let page = vec![member("M1", 1), poison, nameless, member("M2", 1)];
    let mut tx = store.begin().await.unwrap();
    let of = batch(&store, system, 0);
    let (upserted, refused) = upsert_batch_isolating(&mut tx, of, NEWEST, page).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(upserted, Upserted { changed: 2, unchanged: 0 });
    assert!(refused[0].external_id.starts_with("hash:"), "{refused:?}");
    assert_eq!(refused[1].external_id, "M3");
}

pub(crate) async fn a_push_ends_only_what_it_sent(store: Store) {
    let system = system(&store).await;
    let (row, _) = ours(&store, batch(&store, system, 0), NEWEST, member("M1", 1)).await;
    let sent = Pushed { id: row.id, content_hash: &row.content_hash };

    let mut tx = store.begin().await.unwrap();
    assert!(finish_push(&mut tx, sent, Some("V-1"), at(5)).await.unwrap());
    tx.commit().await.unwrap();
    let row = find(&store, system, "M1").await;
    assert_eq!((row.sync_status, row.pushed_at), (SyncStatus::Success, Some(at(5))));
    assert_eq!((row.external_member_id.as_deref(), row.origin), (Some("V-1"), MemberOrigin::Ours));

    let (newer, _) = ours(&store, batch(&store, system, 9), NEWEST, member("M1", 2)).await;
    assert_eq!(newer.sync_status, SyncStatus::Pending);
    let mut tx = store.begin().await.unwrap();
    assert!(!finish_push(&mut tx, sent, None, at(10)).await.unwrap(), "it sent what is old now");
    tx.commit().await.unwrap();
    let row = find(&store, system, "M1").await;
    assert_eq!((row.sync_status, row.push_error.clone()), (SyncStatus::Pending, None));
    assert_eq!((row.external_member_id.as_deref(), row.pushed_at), (Some("V-1"), Some(at(10))));

    // A vendor that takes no pushes is not waited for.
    let told = OurMember { member: member("M9", 1), rule: NEWEST, to_push: false };
    let (row, _) = handed_in(&store, batch(&store, system, 0), told).await;
    assert_eq!(row.sync_status, SyncStatus::Success);
}

pub(crate) async fn a_failed_push_is_told_and_asked_for_again(store: Store) {
    let system = system(&store).await;
    let (row, _) = ours(&store, batch(&store, system, 0), NEWEST, member("M1", 1)).await;
    let mut tx = store.begin().await.unwrap();
    fail_push(&mut tx, row.id, "refused").await.unwrap();
    tx.commit().await.unwrap();
    let row = find(&store, system, "M1").await;
    assert_eq!((row.sync_status, row.push_error.as_deref()), (SyncStatus::Failed, Some("refused")));

    let mut tx = store.begin().await.unwrap();
    assert!(ask_for_push(&mut tx, row.id).await.unwrap());
    assert!(!ask_for_push(&mut tx, store.clock().new_id()).await.unwrap());
    tx.commit().await.unwrap();
    let row = find(&store, system, "M1").await;
    assert_eq!((row.sync_status, row.push_error), (SyncStatus::Pending, None));
}

pub(crate) async fn lists_are_newest_first_and_complete(store: Store) {
    let system = system(&store).await;
    for index in 0..7 {
        told(&store, batch(&store, system, 0), NEWEST, member(&format!("M{index}"), index)).await;
        // Some are made in the same millisecond.
        if index % 2 == 1 {
            store.clock().advance(TimeDelta::seconds(1));
        }
    }
    let gone = IncomingMember { deleted: true, ..member("M3", 0) };
    told(&store, batch(&store, system, 1), NEWEST, gone).await;
    let (mut before, mut seen) = (None, Vec::new());
    loop {
        let filter = Filter { before, limit: 2, ..Filter::default() };
        let page = list(&store, &filter).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some((last.created_at, last.id));
        seen.extend(page);
    }
    assert!(seen.is_sorted_by_key(|row| std::cmp::Reverse((row.created_at, row.id))));
    let mut ids: Vec<_> = seen.iter().map(|row| row.member_id.as_str()).collect();
    assert_eq!(ids.first(), Some(&"M6"));
    ids.sort_unstable();
    assert_eq!(ids, ["M0", "M1", "M2", "M4", "M5", "M6"]);
    let all = Filter { limit: PAGE_MAX + 9, ..Filter::default() };
    assert_eq!(list(&store, &all).await.unwrap().len(), 6);
}

/// What a filter is called, the filter, and the members that it leaves.
type Case<'a> = (&'a str, Filter<'a>, &'a [(SystemId, &'a str)]);

pub(crate) async fn lists_are_filtered_and_scoped(store: Store) {
    let (one, two) = (system(&store).await, system(&store).await);
    let north = StoreMap { default: Some("north".into()), ..StoreMap::default() };
    let of = |system| Batch { stores: &north, ..batch(&store, system, 0) };
    told(&store, of(one), NEWEST, member("M1", 1)).await;
    store.clock().advance(TimeDelta::seconds(10));
    let silver =
        IncomingMember { level: Some("silver".into()), phone: Some("13900000002".into()), ..member("M2", 1) };
    ours(&store, batch(&store, one, 0), NEWEST, silver).await;
    store.clock().advance(TimeDelta::seconds(10));
    told(&store, of(two), NEWEST, member("M1", 1)).await;
    let made = find(&store, one, "M2").await.created_at;

    let cases: [Case<'_>; 9] = [
        ("scope", Filter { scope: Some("north"), ..Filter::default() }, &[(two, "M1"), (one, "M1")]),
        ("store", Filter { store_id: Some("south"), ..Filter::default() }, &[]),
        ("system", Filter { system_id: Some(one), ..Filter::default() }, &[(one, "M2"), (one, "M1")]),
        ("status", Filter { sync_status: Some(SyncStatus::Pending), ..Filter::default() }, &[(one, "M2")]),
        ("level", Filter { level: Some("silver"), ..Filter::default() }, &[(one, "M2")]),
        ("phone", Filter { phone: Some("13900000002"), ..Filter::default() }, &[(one, "M2")]),
        ("member", Filter { member_id: Some("M1"), ..Filter::default() }, &[(two, "M1"), (one, "M1")]),
        ("from", Filter { from: Some(made), ..Filter::default() }, &[(two, "M1"), (one, "M2")]),
        ("to", Filter { to: Some(made), ..Filter::default() }, &[(one, "M1")]),
    ];
    for (what, filter, expected) in cases {
        let rows = list(&store, &Filter { limit: 10, ..filter }).await.unwrap();
        let found: Vec<_> = rows.iter().map(|row| (row.system_id, row.member_id.as_str())).collect();
        assert_eq!(found, expected, "{what}");
    }
}

pub(crate) async fn a_batch_of_a_client_is_answered_one_by_one(store: Store) {
    let system = system(&store).await;
    let of = |seconds| batch(&store, system, seconds);
    let told = |member| OurMember { member, rule: NEWEST, to_push: true };
    let (there, _) = handed_in(&store, of(0), told(member("M2", 2))).await;
    let (same, _) = handed_in(&store, of(0), told(member("M3", 3))).await;
    let silent = IncomingMember { points: None, name: None, ..member("M2", 0) };
    let renamed = IncomingMember { name: Some("王小芳".into()), ..silent };
    let first = IncomingMember { email: Some("first@example.com".into()), ..member("M4", 1) };
    let last = IncomingMember { points: None, level: Some("silver".into()), ..member("M4", 0) };
    let nameless = member("", 1);
    let batch = vec![member("M5", 5), renamed, member("M3", 3), first, last, nameless];
    let mut tx = store.begin().await.unwrap();
    let answers = hand_in(&mut tx, of(9), batch.into_iter().map(told).collect()).await.unwrap();
    tx.commit().await.unwrap();

    let stored = |answer: &HandedIn| match answer {
        HandedIn::Stored { id, change } => (*id, *change),
        HandedIn::Refused(reason) => panic!("{reason}"),
    };
    let (m4, m5) = (find(&store, system, "M4").await, find(&store, system, "M5").await);
    assert_eq!(stored(&answers[0]), (m5.id, Change::Created));
    assert_eq!(stored(&answers[1]), (there.id, Change::Updated));
    assert_eq!(stored(&answers[2]), (same.id, Change::Unchanged));
    assert_eq!(
        [stored(&answers[3]), stored(&answers[4])],
        [(m4.id, Change::Unchanged), (m4.id, Change::Created)]
    );
    assert!(matches!(&answers[5], HandedIn::Refused(reason) if reason.contains("has no id")), "{answers:?}");
    let row = find(&store, system, "M2").await;
    assert_eq!((row.points, row.name.as_deref(), row.created_at), (2, Some("王小芳"), there.created_at));
    // Of one number twice the last counts, with what only the first tells.
    assert_eq!((m4.points, m4.level.as_deref()), (1, Some("silver")));
    assert_eq!(m4.email.as_deref(), Some("first@example.com"));
}

pub(crate) async fn a_member_that_the_database_refuses_fails_alone(store: Store) {
    let system = system(&store).await;
    refuse_poison(&store, "member_syncs", "level").await;
    let told = |id: &str| OurMember { member: member(id, 1), rule: NEWEST, to_push: true };
    let mut bad = told("M2");
    bad.member.level = Some("poison".into());
    let mut tx = store.begin().await.unwrap();
    let answers =
        hand_in(&mut tx, batch(&store, system, 0), vec![told("M1"), bad, told("M3")]).await.unwrap();
    tx.commit().await.unwrap();
    let refused: Vec<bool> = answers.iter().map(|answer| matches!(answer, HandedIn::Refused(_))).collect();
    assert_eq!(refused, [false, true, false], "{answers:?}");
    find(&store, system, "M1").await;
    find(&store, system, "M3").await;
    assert!(find_by_member_id(&store, system, "M2").await.unwrap().is_none());
}

pub(crate) async fn clients_batches_and_pulls_in_opposite_order_do_not_deadlock(store: Store) {
    let system = system(&store).await;
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    // New numbers between numbers that are there.
                    let mut page: Vec<_> = (0..200)
                        .map(|index| member(&format!("M{:04}", index * 7 % 200 + round * 40), round))
                        .collect();
                    if worker == 1 {
                        page.reverse();
                    }
                    let mut tx = store.begin().await?;
                    let of = batch(&store, system, round);
                    if worker == 2 {
                        upsert_batch(&mut tx, of, NEWEST, page).await?;
                    } else {
                        let told = page.into_iter();
                        let told = told.map(|member| OurMember { member, rule: NEWEST, to_push: false });
                        hand_in(&mut tx, of, told.collect()).await?;
                    }
                    tx.commit().await?;
                }
                Ok::<_, StoreError>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
    assert_eq!(find(&store, system, "M0559").await.points, 9);
}

pub(crate) async fn all_that_waits_of_a_system_fails_together(store: Store) {
    let (one, other) = (system(&store).await, system(&store).await);
    for of in [one, other] {
        ours(&store, batch(&store, of, 0), NEWEST, member("M1", 1)).await;
        told(&store, batch(&store, of, 0), NEWEST, member("M2", 1)).await;
    }
    let mut tx = store.begin().await.unwrap();
    assert_eq!(fail_pushes(&mut tx, one, "the system was deleted").await.unwrap(), 1);
    tx.commit().await.unwrap();
    let row = find(&store, one, "M1").await;
    assert_eq!(
        (row.sync_status, row.push_error.as_deref()),
        (SyncStatus::Failed, Some("the system was deleted"))
    );
    assert_eq!(find(&store, one, "M2").await.sync_status, SyncStatus::Success);
    assert_eq!(find(&store, other, "M1").await.sync_status, SyncStatus::Pending);
}
