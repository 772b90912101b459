//! Whose word counts, case by case: every rule, whoever comes first, and what is told again.

use std::collections::BTreeSet;

use zhilian_sync_store::member_syncs::{
    Filter, IncomingMember, MemberSync, OurMember, Pushed, fail_push, find_by_member_id, finish_push, list,
    upsert_batch, upsert_of_runs,
};
use zhilian_sync_store::record_batches::{Batch, Upserted};
use zhilian_sync_store::records_handed_in::Change;
use zhilian_sync_store::{
    Currency, MemberConflict, MemberOrigin, Store, StoreError, SyncStatus, SystemId, external_systems,
};

use super::support::{at, batch, handed_in, run, system};

/// A member without a version of its own.
fn member(id: &str, points: i64) -> IncomingMember {
    IncomingMember {
        member_id: id.to_owned(),
        external_member_id: Some(format!("EXT-{id}")),
        phone: Some("13800000000".into()),
        name: Some("王芳".into()),
        email: Some("wang@example.com".into()),
        level: Some("gold".into()),
        points: Some(points),
        balance: Some(5_000),
        currency: Currency::CNY,
        last_activity: Some(at(-60)),
        shop: None,
        version_at: None,
        observed_at: None,
        deleted: false,
        raw: format!(r#"{{"id":"{id}","points":{points}}}"#),
    }
}

/// What the vendor tells, by this rule.
async fn told_by(
    store: &Store,
    rule: MemberConflict,
    batch: Batch<'_>,
    members: Vec<IncomingMember>,
) -> Upserted {
    let mut tx = store.begin().await.unwrap();
    let upserted = upsert_batch(&mut tx, batch, rule, members).await.unwrap();
    tx.commit().await.unwrap();
    upserted
}

async fn told(store: &Store, batch: Batch<'_>, members: Vec<IncomingMember>) -> Upserted {
    told_by(store, MemberConflict::Newest, batch, members).await
}

/// What the API tells, to be pushed.
async fn ours(
    store: &Store,
    rule: MemberConflict,
    batch: Batch<'_>,
    member: IncomingMember,
) -> (MemberSync, Change) {
    handed_in(store, batch, OurMember { member, rule, to_push: true }).await
}

async fn find(store: &Store, system: SystemId, id: &str) -> MemberSync {
    find_by_member_id(store, system, id).await.unwrap().unwrap()
}

/// A push of this row that the vendor took.
async fn took(store: &Store, row: &MemberSync, external: Option<&str>) -> bool {
    let pushed = Pushed { id: row.id, content_hash: &row.content_hash };
    let mut tx = store.begin().await.unwrap();
    let in_step = finish_push(&mut tx, pushed, external, store.clock().now()).await.unwrap();
    tx.commit().await.unwrap();
    in_step
}

const CHANGED: Upserted = Upserted { changed: 1, unchanged: 0 };
const UNCHANGED: Upserted = Upserted { changed: 0, unchanged: 1 };
const RULES: [MemberConflict; 3] = [MemberConflict::Newest, MemberConflict::Vendor, MemberConflict::Ours];

pub(crate) async fn the_newer_version_wins(store: Store) {
    let system = system(&store).await;
    let cases = [
        ("a newer version, asked for earlier", (Some(10), 100), (Some(11), 50), true),
        ("an older version, asked for later", (Some(10), 100), (Some(9), 200), false),
        ("the same version, observed later", (Some(10), 100), (Some(10), 101), true),
        ("the same version, observed earlier", (Some(10), 100), (Some(10), 99), false),
        ("no versions, observed later", (None, 100), (None, 101), true),
        ("no versions, observed earlier", (None, 100), (None, 99), false),
    ];
    for (index, (what, there, comes, wins)) in cases.into_iter().enumerate() {
        // The vendor's own records follow their versions, whatever the rule.
        for rule in RULES {
            let id = format!("M{index}-{rule:?}");
            let incoming = |points, version: Option<i64>, observed| IncomingMember {
                version_at: version.map(at),
                observed_at: Some(at(observed)),
                ..member(&id, points)
            };
            let of = batch(&store, system, 0);
            told_by(&store, rule, of, vec![incoming(1, there.0, there.1)]).await;
            let upserted = told_by(&store, rule, of, vec![incoming(2, comes.0, comes.1)]).await;
            assert_eq!(upserted, if wins { CHANGED } else { UNCHANGED }, "{what}, {rule:?}");
            assert_eq!(find(&store, system, &id).await.points, if wins { 2 } else { 1 }, "{what}, {rule:?}");
        }
    }
}

pub(crate) async fn the_rule_says_who_overwrites_whom(store: Store) {
    use MemberConflict::{Newest, Ours, Vendor};
    let system = system(&store).await;
    let cases = [
        ("a newer word of the vendor", Newest, true, 20, true),
        ("an older word of the vendor", Newest, true, 5, false),
        ("a newer word of the API", Newest, false, 20, true),
        ("an older word of the API", Newest, false, 5, false),
        ("a newer word of the vendor", Vendor, true, 20, true),
        ("even an older word of the vendor", Vendor, true, 5, true),
        ("a newer word of the API", Vendor, false, 20, false),
        ("an older word of the API", Vendor, false, 5, false),
        ("a newer word of the vendor", Ours, true, 20, false),
        ("an older word of the vendor", Ours, true, 5, false),
        ("a newer word of the API", Ours, false, 20, true),
        ("even an older word of the API", Ours, false, 5, true),
    ];
    for (index, (what, rule, vendor_comes, observed, wins)) in cases.into_iter().enumerate() {
        let id = format!("M{index}");
        let (first, second) = (batch(&store, system, 10), batch(&store, system, observed));
        if vendor_comes {
            let (row, written) = ours(&store, rule, first, member(&id, 1)).await;
            assert_eq!((row.origin, written), (MemberOrigin::Ours, Change::Created));
            assert_eq!(row.sync_status, SyncStatus::Pending);
            let told = IncomingMember { version_at: Some(at(observed - 1)), ..member(&id, 2) };
            let upserted = told_by(&store, rule, second, vec![told]).await;
            assert_eq!(upserted, if wins { CHANGED } else { UNCHANGED }, "{what}, {rule:?}");
        } else {
            told_by(&store, rule, first, vec![member(&id, 1)]).await;
            let (answer, written) = ours(&store, rule, second, member(&id, 2)).await;
            let expected = if wins { Change::Updated } else { Change::Unchanged };
            assert_eq!(written, expected, "{what}, {rule:?}");
            assert_eq!(answer.member_id, id, "{what}, {rule:?}");
        }
        let row = find(&store, system, &id).await;
        let by_vendor = vendor_comes == wins;
        let (origin, state) = if by_vendor {
            (MemberOrigin::Vendor, SyncStatus::Success)
        } else {
            (MemberOrigin::Ours, SyncStatus::Pending)
        };
        assert_eq!((row.points, row.origin), (if wins { 2 } else { 1 }, origin), "{what}, {rule:?}");
        assert_eq!(row.sync_status, state, "{what}, {rule:?}");
    }
}

pub(crate) async fn what_waits_is_not_replaced_by_a_word_without_a_version(store: Store) {
    let system = system(&store).await;
    let told_at = |observed, points| (batch(&store, system, observed), vec![member("M1", points)]);
    let (sent, _) = ours(&store, MemberConflict::Newest, batch(&store, system, 10), member("M1", 1)).await;
    // The vendor was asked later, but cannot know yet what waits.
    let (of, members) = told_at(20, 2);
    assert_eq!(told(&store, of, members).await, UNCHANGED);
    assert_eq!(find(&store, system, "M1").await.sync_status, SyncStatus::Pending);
    // Nor what it refused to be told.
    let mut tx = store.begin().await.unwrap();
    fail_push(&mut tx, sent.id, "refused").await.unwrap();
    tx.commit().await.unwrap();
    let (of, members) = told_at(30, 3);
    assert_eq!(told(&store, of, members).await, UNCHANGED);
    assert_eq!(find(&store, system, "M1").await.points, 1);
    // A version tells that it was changed after our word.
    let versioned = IncomingMember { version_at: Some(at(25)), ..member("M1", 4) };
    assert_eq!(told(&store, batch(&store, system, 40), vec![versioned]).await, CHANGED);
    // What the vendor has taken is its own to change.
    let (sent, _) = ours(&store, MemberConflict::Newest, batch(&store, system, 50), member("M1", 5)).await;
    assert!(took(&store, &sent, None).await);
    let (of, members) = told_at(60, 6);
    assert_eq!(told(&store, of, members).await, CHANGED);
    assert_eq!(find(&store, system, "M1").await.points, 6);
}

pub(crate) async fn a_row_of_ours_learns_the_vendors_id(store: Store) {
    for rule in RULES {
        let system = system(&store).await;
        let nameless = IncomingMember { external_member_id: None, ..member("M1", 1) };
        ours(&store, rule, batch(&store, system, 10), nameless).await;
        told_by(&store, rule, batch(&store, system, 20), vec![member("M1", 1)]).await;
        let row = find(&store, system, "M1").await;
        assert_eq!(row.external_member_id.as_deref(), Some("EXT-M1"), "{rule:?}");

        // A record that does not tell it does not take it away.
        let silent = IncomingMember { external_member_id: None, ..member("M1", 3) };
        told_by(&store, rule, batch(&store, system, 30), vec![silent]).await;
        let row = find(&store, system, "M1").await;
        assert_eq!(row.external_member_id.as_deref(), Some("EXT-M1"), "{rule:?}");
    }
}

pub(crate) async fn what_a_record_does_not_tell_makes_nothing_new_of_equal_content(store: Store) {
    let system = system(&store).await;
    told(&store, batch(&store, system, 0), vec![member("M1", 5)]).await;
    // The vendor goes on, and does not tell when the member was last there: what is known stays.
    let silent = IncomingMember { last_activity: None, ..member("M1", 6) };
    told(&store, batch(&store, system, 10), vec![silent.clone()]).await;
    let before = find(&store, system, "M1").await;
    assert_eq!((before.points, before.last_activity), (6, Some(at(-60))));
    let (row, written) = ours(&store, MemberConflict::Newest, batch(&store, system, 20), silent).await;
    assert_eq!((row, written), (before, Change::Unchanged));
}

pub(crate) async fn what_was_pushed_comes_back_as_nothing_new(store: Store) {
    for rule in [MemberConflict::Newest, MemberConflict::Ours] {
        let system = system(&store).await;
        let (sent, _) = ours(&store, rule, batch(&store, system, 10), member("M1", 1)).await;
        assert!(took(&store, &sent, None).await);
        let echo = IncomingMember { raw: r#"{"the vendor's":"own words"}"#.into(), ..member("M1", 1) };
        assert_eq!(told_by(&store, rule, batch(&store, system, 20), vec![echo]).await, UNCHANGED, "{rule:?}");
        let row = find(&store, system, "M1").await;
        assert_eq!((row.sync_status, row.origin), (SyncStatus::Success, MemberOrigin::Ours), "{rule:?}");
    }
}

pub(crate) async fn members_of_several_runs_stand_beside_their_own(store: Store) {
    let system = system(&store).await;
    let (first, second) = (run(&store, system).await, run(&store, system).await);
    let members = vec![(second, member("M2", 1)), (first, member("M1", 1))];
    let mut tx = store.begin().await.unwrap();
    let of = batch(&store, system, 0);
    let keys = upsert_of_runs(&mut tx, of, MemberConflict::Newest, members).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(keys.into_iter().map(|key| key.1).collect::<BTreeSet<_>>(), ["M1".into(), "M2".into()].into());
    assert_eq!(find(&store, system, "M1").await.sync_log_id, Some(first));
    assert_eq!(find(&store, system, "M2").await.sync_log_id, Some(second));
}

pub(crate) async fn batches_in_opposite_order_do_not_deadlock(store: Store) {
    let system = system(&store).await;
    let workers: Vec<_> = (0..2)
        .map(|worker| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let mut page: Vec<_> =
                        (0..300).map(|index| member(&format!("M{index:03}"), round)).collect();
                    if worker == 1 {
                        page.reverse();
                    }
                    let mut tx = store.begin().await?;
                    let of = batch(&store, system, round);
                    upsert_batch(&mut tx, of, MemberConflict::Newest, page).await?;
                    tx.commit().await?;
                }
                Ok::<_, StoreError>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
    let rows = list(&store, &Filter { limit: 500, ..Filter::default() }).await.unwrap();
    assert_eq!((rows.len(), rows.iter().map(|row| row.points).sum::<i64>()), (300, 300 * 9));
}

pub(crate) async fn a_systems_rule_is_kept(store: Store) {
    let id = system(&store).await;
    let mut system = external_systems::get(&store, id).await.unwrap();
    assert_eq!(system.member_conflict, MemberConflict::Newest);
    system.member_conflict = MemberConflict::Ours;
    let mut tx = store.begin().await.unwrap();
    external_systems::save(&mut tx, &system, None, store.clock().now()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(external_systems::get(&store, id).await.unwrap().member_conflict, MemberConflict::Ours);
}
