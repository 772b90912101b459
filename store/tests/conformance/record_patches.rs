//! Patches of a state: the same promises for every table that has one, in whatever order the news comes.

use std::sync::Arc;

use chrono::TimeDelta;
use zhilian_sync_store::external_records::{self, IncomingRecord};
use zhilian_sync_store::pos_transactions::{self, IncomingTransaction};
use zhilian_sync_store::record_batches::{Batch, Upserted};
use zhilian_sync_store::record_patches::{PatchKey, PatchTable, Patched, RecordPatch, patch};
use zhilian_sync_store::supplier_orders::{self, IncomingSupplierOrder};
use zhilian_sync_store::{Pool, Store, SystemId, Tx};

use super::support::{at, batch, record, supplier_order, system, transaction};

/// A table with a state.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Transaction,
    Record,
    Order,
}

const KINDS: [Kind; 3] = [Kind::Transaction, Kind::Record, Kind::Order];

/// Three states of each table.
fn state(kind: Kind, index: usize) -> &'static str {
    match kind {
        Kind::Transaction => ["sale", "refund", "void"][index],
        Kind::Record => ["open", "paid", "charged back"][index],
        Kind::Order => ["pending", "shipped", "cancelled"][index],
    }
}

/// A full record as a poll or a webhook shows it.
#[derive(Debug, Clone, Copy)]
struct Full {
    state: usize,
    amount: i64,
    /// The vendor's own version, if it tells.
    version: Option<i64>,
    observed: i64,
    deleted: bool,
    forced: bool,
}

const fn full(state: usize, amount: i64, version: i64, observed: i64) -> Full {
    Full { state, amount, version: Some(version), observed, deleted: false, forced: false }
}

/// The news that a record is in another state, or gone.
#[derive(Debug, Clone, Copy)]
struct News {
    state: Option<usize>,
    deleted: bool,
    version: Option<i64>,
    observed: i64,
    forced: bool,
}

const fn told(state: usize, version: i64, observed: i64) -> News {
    News { state: Some(state), deleted: false, version: Some(version), observed, forced: false }
}

const fn gone(version: i64, observed: i64) -> News {
    News { state: None, deleted: true, version: Some(version), observed, forced: false }
}

fn table(kind: Kind) -> PatchTable {
    match kind {
        Kind::Transaction => PatchTable::PosTransactions,
        Kind::Record => PatchTable::ExternalRecords { stream: "payments".into() },
        Kind::Order => PatchTable::SupplierOrders,
    }
}

/// The patch that brings news of a record.
fn news_of(kind: Kind, id: &str, news: News) -> RecordPatch {
    RecordPatch {
        table: table(kind),
        key: match kind {
            Kind::Order => PatchKey::Number(id.to_owned()),
            Kind::Transaction | Kind::Record => PatchKey::ExternalId(id.to_owned()),
        },
        status: news.state.map(|index| state(kind, index).to_owned()),
        delivered_at: None,
        tracking_number: None,
        deleted: news.deleted,
        version_at: news.version.map(at),
        observed_at: at(news.observed),
        forced: news.forced,
    }
}

/// The tables of one store, and the system they belong to.
struct World {
    store: Store,
    system: SystemId,
}

/// What is there of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    state: String,
    amount: i64,
    deleted: bool,
    version: i64,
    updated: i64,
}

impl World {
    async fn new(store: Store) -> Self {
        let system = system(&store).await;
        Self { store, system }
    }

    async fn write_in(&self, tx: &mut Tx, kind: Kind, id: &str, full: Full) -> Upserted {
        let of = Batch { force: full.forced, ..batch(&self.store, self.system, full.observed) };
        let (version_at, deleted) = (full.version.map(at), full.deleted);
        match kind {
            Kind::Transaction => {
                let transaction_type = state(kind, full.state).parse().unwrap();
                let new = transaction(id, full.amount);
                let new = IncomingTransaction { transaction_type, version_at, deleted, ..new };
                pos_transactions::upsert_batch(tx, of, vec![new]).await.unwrap()
            }
            Kind::Record => {
                let status = Some(state(kind, full.state).to_owned());
                let new = IncomingRecord { status, version_at, deleted, ..record(id, full.amount) };
                external_records::upsert_batch(tx, of, vec![new]).await.unwrap()
            }
            Kind::Order => {
                let status = state(kind, full.state).parse().unwrap();
                let new = supplier_order(id, full.amount);
                let new = IncomingSupplierOrder { status, version_at, deleted, ..new };
                supplier_orders::upsert_batch(tx, of, vec![new]).await.unwrap()
            }
        }
    }

    /// Writes a full record; whether it changed anything.
    async fn write(&self, kind: Kind, id: &str, full: Full) -> bool {
        let mut tx = self.store.begin().await.unwrap();
        let upserted = self.write_in(&mut tx, kind, id, full).await;
        tx.commit().await.unwrap();
        upserted.changed == 1
    }

    async fn apply(&self, change: &RecordPatch) -> Patched {
        let mut tx = self.store.begin().await.unwrap();
        let patched = patch(&mut tx, self.system, change, self.store.clock()).await.unwrap();
        tx.commit().await.unwrap();
        patched
    }

    async fn tell(&self, kind: Kind, id: &str, news: News) -> Patched {
        self.apply(&news_of(kind, id, news)).await
    }

    async fn see(&self, kind: Kind, id: &str) -> Seen {
        let seconds = |time: chrono::DateTime<chrono::Utc>| (time - at(0)).num_seconds();
        match kind {
            Kind::Transaction => {
                let row = pos_transactions::find_by_external_id(&self.store, self.system, id).await;
                let row = row.unwrap().unwrap();
                Seen {
                    state: row.transaction_type.to_string(),
                    amount: row.total,
                    deleted: row.deleted_at.is_some(),
                    version: seconds(row.version_at),
                    updated: seconds(row.updated_at),
                }
            }
            Kind::Record => {
                let row =
                    external_records::find_by_external_id(&self.store, self.system, "payments", id).await;
                let row = row.unwrap().unwrap();
                Seen {
                    state: row.status.unwrap(),
                    amount: row.amount.unwrap(),
                    deleted: row.deleted_at.is_some(),
                    version: seconds(row.version_at),
                    updated: seconds(row.updated_at),
                }
            }
            Kind::Order => {
                let row = supplier_orders::find_by_number(&self.store, self.system, id).await;
                let row = row.unwrap().unwrap();
                Seen {
                    state: row.status.to_string(),
                    amount: row.total,
                    deleted: row.deleted_at.is_some(),
                    version: seconds(row.version_at),
                    updated: seconds(row.updated_at),
                }
            }
        }
    }

    /// State, amount and whether it is gone.
    async fn expect(&self, kind: Kind, id: &str, expected: (usize, i64, bool), what: &str) {
        let seen = self.see(kind, id).await;
        let expected = (state(kind, expected.0), expected.1, expected.2);
        assert_eq!((seen.state.as_str(), seen.amount, seen.deleted), expected, "{kind:?}: {what}");
    }
}

pub(crate) async fn a_patch_before_its_record_is_missing(store: Store) {
    let world = World::new(store).await;
    for kind in KINDS {
        assert_eq!(world.tell(kind, "R1", told(1, 20, 20)).await, Patched::Missing);
        assert_eq!(world.tell(kind, "R1", gone(20, 20)).await, Patched::Missing);
        world.write(kind, "R1", full(0, 5, 10, 21)).await;
        assert_eq!(world.tell(kind, "R1", told(1, 20, 20)).await, Patched::Changed, "{kind:?}");
        world.expect(kind, "R1", (1, 5, false), "the patch that came too early is applied later").await;
    }
    // A record of the same id, of another system or in another stream, is another record.
    let elsewhere = PatchTable::ExternalRecords { stream: "refunds".into() };
    let change = RecordPatch { table: elsewhere, ..news_of(Kind::Record, "R1", told(2, 30, 30)) };
    assert_eq!(world.apply(&change).await, Patched::Missing);
    let other = World { system: system(&world.store).await, store: world.store.clone() };
    assert_eq!(other.tell(Kind::Transaction, "R1", told(2, 30, 30)).await, Patched::Missing);
}

pub(crate) async fn a_patch_changes_the_state_and_nothing_else(store: Store) {
    let world = World::new(store).await;
    world.write(Kind::Transaction, "R1", full(0, 5, 10, 10)).await;
    let before =
        pos_transactions::find_by_external_id(&world.store, world.system, "R1").await.unwrap().unwrap();
    world.store.clock().advance(TimeDelta::minutes(1));
    assert_eq!(world.tell(Kind::Transaction, "R1", told(2, 20, 25)).await, Patched::Changed);
    let after =
        pos_transactions::find_by_external_id(&world.store, world.system, "R1").await.unwrap().unwrap();
    let expected = pos_transactions::PosTransaction {
        transaction_type: zhilian_sync_store::TransactionType::Void,
        status_version_at: Some(at(20)),
        status_observed_at: Some(at(25)),
        updated_at: at(60),
        ..before
    };
    assert_eq!(after, expected);
}

pub(crate) async fn the_same_patch_again_changes_nothing(store: Store) {
    let world = World::new(store).await;
    for kind in KINDS {
        world.write(kind, "R1", full(0, 5, 10, 10)).await;
        assert_eq!(world.tell(kind, "R1", told(1, 20, 20)).await, Patched::Changed);
        let before = world.see(kind, "R1").await;
        world.store.clock().advance(TimeDelta::minutes(1));
        assert_eq!(world.tell(kind, "R1", told(1, 20, 20)).await, Patched::Unchanged);
        assert_eq!(
            world.tell(kind, "R1", told(1, 40, 40)).await,
            Patched::Unchanged,
            "a newer one of the same"
        );
        assert_eq!(world.see(kind, "R1").await, before, "{kind:?}");
        // The newer one has said nothing new, but it is remembered: what lies between comes too late.
        assert_eq!(world.tell(kind, "R1", told(2, 30, 50)).await, Patched::Unchanged);
        world.write(kind, "R1", full(2, 6, 30, 50)).await;
        world.expect(kind, "R1", (1, 6, false), "older than the last patch").await;
    }
}

pub(crate) async fn an_older_record_after_a_patch_overwrites_all_but_the_state(store: Store) {
    let world = World::new(store).await;
    for kind in KINDS {
        world.write(kind, "R1", full(0, 5, 10, 10)).await;
        world.tell(kind, "R1", told(2, 30, 30)).await;
        let late = full(1, 7, 20, 40);
        assert!(world.write(kind, "R1", late).await, "{kind:?}: it is not older than the record");
        world.expect(kind, "R1", (2, 7, false), "the state is the patch's").await;
        assert_eq!(world.see(kind, "R1").await.version, 20);
        // It is known now: polled again it neither flaps nor undoes the patch.
        for observed in 41..44 {
            assert!(!world.write(kind, "R1", Full { observed, ..late }).await);
            world.expect(kind, "R1", (2, 7, false), "the same record again").await;
        }
        assert!(!world.write(kind, "R1", full(0, 5, 10, 99)).await);
        world.expect(kind, "R1", (2, 7, false), "the first record again").await;
    }
}

pub(crate) async fn the_same_record_polled_again_does_not_undo_a_patch(store: Store) {
    let world = World::new(store).await;
    for kind in KINDS {
        let shown = full(0, 5, 10, 10);
        // Even a patch that bears the record's own version: equal content is no news.
        for (id, version) in [("R1", 20), ("R2", 10)] {
            world.write(kind, id, shown).await;
            assert_eq!(world.tell(kind, id, told(1, version, 15)).await, Patched::Changed, "{kind:?} {id}");
            let before = world.see(kind, id).await;
            for observed in [12, 16, 1_000] {
                assert!(!world.write(kind, id, Full { observed, ..shown }).await, "{kind:?} {id} {observed}");
                assert_eq!(world.see(kind, id).await, before, "{kind:?} {id} {observed}");
            }
        }
    }
}

pub(crate) async fn a_newer_record_after_a_patch_overwrites_the_state_too(store: Store) {
    let world = World::new(store).await;
    for kind in KINDS {
        world.write(kind, "R1", full(0, 5, 10, 10)).await;
        world.tell(kind, "R1", told(1, 20, 20)).await;
        assert!(world.write(kind, "R1", full(2, 7, 30, 30)).await);
        world.expect(kind, "R1", (2, 7, false), "a newer record").await;
        // And from then on it is the record that an older patch must beat.
        assert_eq!(world.tell(kind, "R1", told(0, 25, 99)).await, Patched::Unchanged);
        assert_eq!(world.tell(kind, "R1", told(0, 35, 35)).await, Patched::Changed);
        world.expect(kind, "R1", (0, 7, false), "a newer patch").await;
    }
}

pub(crate) async fn a_newer_version_of_equal_content_puts_its_state_back(store: Store) {
    let world = World::new(store).await;
    for kind in KINDS {
        world.write(kind, "R1", full(0, 5, 10, 10)).await;
        world.tell(kind, "R1", told(1, 20, 20)).await;
        assert!(!world.write(kind, "R1", full(0, 5, 15, 30)).await, "between record and patch");
        assert_eq!(world.see(kind, "R1").await.version, 15, "but remembered");
        world.expect(kind, "R1", (1, 5, false), "the state is the patch's").await;
        assert!(world.write(kind, "R1", full(0, 5, 25, 30)).await, "{kind:?}");
        world.expect(kind, "R1", (0, 5, false), "newer than the patch").await;
        assert!(!world.write(kind, "R1", full(0, 5, 25, 31)).await, "and then it is known");

        // The same of a vendor that tells no versions: what was asked later is newer.
        let unversioned = |observed| Full { version: None, ..full(0, 5, 0, observed) };
        let news = News { version: None, ..told(1, 0, 20) };
        world.write(kind, "R2", unversioned(10)).await;
        assert_eq!(world.tell(kind, "R2", news).await, Patched::Changed);
        assert!(!world.write(kind, "R2", unversioned(19)).await, "{kind:?}: a slow poll");
        world.expect(kind, "R2", (1, 5, false), "a slow poll").await;
        assert!(world.write(kind, "R2", unversioned(21)).await, "{kind:?}: a later poll");
        world.expect(kind, "R2", (0, 5, false), "a later poll").await;
    }
}

pub(crate) async fn news_without_a_time_is_newer_than_what_was_observed_before_it(store: Store) {
    let world = World::new(store).await;
    let said = |state, observed| News { version: None, ..told(state, 0, observed) };
    let ended = |observed| News { version: None, ..gone(0, observed) };
    for kind in KINDS {
        // The vendor's clock runs far ahead of ours.
        world.write(kind, "R1", full(0, 5, 1_000, 10)).await;
        assert_eq!(world.tell(kind, "R1", said(1, 9)).await, Patched::Unchanged, "heard before");
        assert_eq!(world.tell(kind, "R1", said(1, 20)).await, Patched::Changed, "{kind:?}");
        assert_eq!(world.tell(kind, "R1", said(2, 19)).await, Patched::Unchanged, "heard before the other");
        assert_eq!(world.tell(kind, "R1", said(2, 21)).await, Patched::Changed, "{kind:?}");
        assert!(!world.write(kind, "R1", full(0, 5, 1_000, 30)).await, "the same record polled again");
        world.expect(kind, "R1", (2, 5, false), "the last news").await;
        // News with a time of the vendor's is newer still, and news without one again newer than that.
        assert_eq!(world.tell(kind, "R1", told(1, 1_500, 40)).await, Patched::Changed);
        assert_eq!(world.tell(kind, "R1", said(2, 41)).await, Patched::Changed, "{kind:?}");
        assert!(world.write(kind, "R1", full(0, 6, 2_000, 50)).await, "a newer version");
        world.expect(kind, "R1", (0, 6, false), "a newer version").await;

        world.write(kind, "R2", full(0, 5, 1_000, 10)).await;
        assert_eq!(world.tell(kind, "R2", ended(9)).await, Patched::Unchanged, "heard before");
        assert_eq!(world.tell(kind, "R2", ended(20)).await, Patched::Changed, "{kind:?}");
        assert!(!world.write(kind, "R2", full(0, 5, 1_000, 30)).await, "the version that was deleted");
        world.expect(kind, "R2", (0, 5, true), "a poll of the version that was deleted").await;
        assert!(world.write(kind, "R2", full(0, 6, 1_001, 30)).await);
        world.expect(kind, "R2", (0, 6, false), "a newer version").await;
    }
}

pub(crate) async fn on_a_tie_of_versions_the_later_observation_wins(store: Store) {
    let world = World::new(store).await;
    for kind in KINDS {
        world.write(kind, "R1", full(0, 5, 10, 10)).await;
        assert_eq!(world.tell(kind, "R1", told(1, 20, 25)).await, Patched::Changed);
        assert_eq!(world.tell(kind, "R1", told(2, 20, 24)).await, Patched::Unchanged, "two patches");
        assert!(world.write(kind, "R1", full(2, 6, 20, 24)).await);
        world.expect(kind, "R1", (1, 6, false), "a record of the patch's version, asked for before it").await;
        assert!(world.write(kind, "R1", full(2, 7, 20, 26)).await);
        world.expect(kind, "R1", (2, 7, false), "a record of the patch's version, asked for after it").await;
        assert_eq!(world.tell(kind, "R1", told(1, 20, 25)).await, Patched::Unchanged, "{kind:?}");
        assert_eq!(world.tell(kind, "R1", told(1, 20, 27)).await, Patched::Changed, "{kind:?}");
    }
}

pub(crate) async fn a_stale_poll_does_not_bring_back_what_was_deleted(store: Store) {
    let world = World::new(store).await;
    for kind in KINDS {
        let shown = full(0, 5, 10, 10);
        world.write(kind, "R1", shown).await;
        assert_eq!(world.tell(kind, "R1", gone(20, 20)).await, Patched::Changed);
        for stale in [Full { observed: 99, ..shown }, full(1, 6, 15, 99), full(1, 6, 20, 19)] {
            assert!(!world.write(kind, "R1", stale).await, "{kind:?} {stale:?}");
            world.expect(kind, "R1", (0, 5, true), "a stale poll").await;
        }
        assert_eq!(world.tell(kind, "R1", told(1, 15, 99)).await, Patched::Unchanged, "a stale patch");
        // Told again later: nothing new, but what lies between is too old from then on.
        assert_eq!(world.tell(kind, "R1", gone(40, 40)).await, Patched::Unchanged);
        assert!(!world.write(kind, "R1", full(1, 6, 30, 99)).await, "{kind:?}");

        // Of a vendor that tells no versions: what was asked before the webhook came is stale.
        let unversioned = |observed| Full { version: None, ..full(0, 5, 0, observed) };
        world.write(kind, "R2", unversioned(10)).await;
        let news = News { version: None, ..gone(0, 20) };
        assert_eq!(world.tell(kind, "R2", news).await, Patched::Changed);
        assert!(!world.write(kind, "R2", unversioned(19)).await, "{kind:?}");
        world.expect(kind, "R2", (0, 5, true), "a slow poll").await;
    }
}

pub(crate) async fn a_newer_poll_brings_back_what_was_deleted(store: Store) {
    let world = World::new(store).await;
    for kind in KINDS {
        // With the same content as before, and with another.
        for (id, amount) in [("R1", 5), ("R2", 6)] {
            world.write(kind, id, full(0, 5, 10, 10)).await;
            world.tell(kind, id, gone(20, 20)).await;
            assert!(world.write(kind, id, full(0, amount, 30, 30)).await, "{kind:?} {id}");
            world.expect(kind, id, (0, amount, false), "a newer poll").await;
            assert!(!world.write(kind, id, full(0, amount, 30, 31)).await, "{kind:?} {id}");
            assert_eq!(world.tell(kind, id, gone(25, 99)).await, Patched::Unchanged, "an older deletion");
            world.expect(kind, id, (0, amount, false), "an older deletion").await;
        }
        // A tombstone that came as a full record holds in the same way.
        world.write(kind, "R3", Full { deleted: true, ..full(0, 5, 20, 20) }).await;
        assert_eq!(world.tell(kind, "R3", told(1, 30, 30)).await, Patched::Changed);
        world.expect(kind, "R3", (1, 5, true), "a new state raises nothing").await;
        assert!(world.write(kind, "R3", full(2, 6, 25, 31)).await);
        world.expect(kind, "R3", (1, 6, false), "newer than the deletion, older than the patch").await;
    }
}

pub(crate) async fn a_forced_replay_overwrites_what_is_newer(store: Store) {
    let world = World::new(store).await;
    for kind in KINDS {
        world.write(kind, "R1", full(0, 5, 30, 30)).await;
        let replay = News { forced: true, ..told(1, 10, 10) };
        assert_eq!(world.tell(kind, "R1", replay).await, Patched::Changed, "{kind:?}: of a newer record");
        world.expect(kind, "R1", (1, 5, false), "a forced patch").await;

        world.tell(kind, "R1", told(0, 50, 50)).await;
        assert_eq!(world.tell(kind, "R1", replay).await, Patched::Changed, "{kind:?}: of a newer patch");
        assert_eq!(world.tell(kind, "R1", replay).await, Patched::Unchanged, "{kind:?}: again");
        let replay = News { forced: true, ..gone(10, 10) };
        assert_eq!(world.tell(kind, "R1", replay).await, Patched::Changed);
        world.expect(kind, "R1", (1, 5, true), "a forced deletion").await;

        // A forced record is the truth from its version on: no patch before it counts any more.
        world.write(kind, "R2", full(0, 5, 30, 30)).await;
        world.tell(kind, "R2", told(1, 50, 50)).await;
        assert!(world.write(kind, "R2", Full { forced: true, ..full(2, 4, 10, 10) }).await);
        world.expect(kind, "R2", (2, 4, false), "a forced record").await;
        assert!(world.write(kind, "R2", full(0, 3, 20, 20)).await);
        world.expect(kind, "R2", (0, 3, false), "what is newer than the forced record").await;
    }
}

/// Something that comes in.
#[derive(Debug, Clone, Copy)]
enum Arrival {
    Record(Full),
    Patch(News),
}

/// What comes in, and what must be there in the end.
struct History {
    what: &'static str,
    arrivals: [Arrival; 5],
    /// State, amount, whether it is gone.
    expected: (usize, i64, bool),
}

const HISTORIES: [History; 4] = [
    History {
        what: "the last word is a patch's",
        arrivals: [
            Arrival::Record(full(1, 1, 10, 11)),
            Arrival::Patch(told(2, 15, 15)),
            Arrival::Record(full(1, 2, 20, 26)),
            Arrival::Patch(told(0, 25, 25)),
            Arrival::Record(full(2, 2, 21, 22)),
        ],
        expected: (0, 2, false),
    },
    History {
        what: "the last word is a record's",
        arrivals: [
            Arrival::Record(full(0, 1, 10, 11)),
            Arrival::Patch(told(1, 15, 15)),
            Arrival::Patch(told(2, 17, 30)),
            Arrival::Record(full(1, 1, 18, 19)),
            Arrival::Record(full(0, 3, 20, 20)),
        ],
        expected: (0, 3, false),
    },
    History {
        what: "the last word is what the record said first",
        arrivals: [
            Arrival::Record(full(0, 1, 10, 11)),
            Arrival::Patch(told(1, 15, 15)),
            Arrival::Record(full(0, 1, 18, 18)),
            Arrival::Patch(told(2, 12, 40)),
            Arrival::Record(full(0, 1, 17, 50)),
        ],
        expected: (0, 1, false),
    },
    History {
        what: "deleted and made anew",
        arrivals: [
            Arrival::Record(full(0, 1, 10, 11)),
            Arrival::Patch(gone(20, 20)),
            Arrival::Patch(told(1, 15, 16)),
            Arrival::Record(full(2, 2, 30, 30)),
            Arrival::Record(full(1, 3, 18, 40)),
        ],
        expected: (2, 2, false),
    },
];

/// Every order of so many things.
fn permutations(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![vec![]] };
    let insert = |shorter: Vec<usize>| {
        (0..count).map(move |place| {
            let mut longer = shorter.clone();
            longer.insert(place, last);
            longer
        })
    };
    permutations(last).into_iter().flat_map(insert).collect()
}

impl World {
    /// Lets things come in one after the other; a patch before its record is tried again, as its event is.
    async fn receive(&self, tx: &mut Tx, kind: Kind, id: &str, mut waiting: Vec<Arrival>) {
        while !waiting.is_empty() {
            let mut missed = Vec::new();
            for arrival in waiting {
                match arrival {
                    Arrival::Record(full) => {
                        self.write_in(tx, kind, id, full).await;
                    }
                    Arrival::Patch(news) => {
                        let change = news_of(kind, id, news);
                        let patched = patch(tx, self.system, &change, self.store.clock()).await.unwrap();
                        if patched == Patched::Missing {
                            missed.push(arrival);
                        }
                    }
                }
            }
            waiting = missed;
        }
    }
}

pub(crate) async fn in_whatever_order_news_comes_the_newest_wins(store: Store) {
    let world = World::new(store).await;
    for kind in KINDS {
        for (history, History { what, arrivals, expected }) in HISTORIES.iter().enumerate() {
            let orders = permutations(arrivals.len());
            assert_eq!(orders.len(), 120);
            let mut tx = world.store.begin().await.unwrap();
            for (number, order) in orders.iter().enumerate() {
                let coming = order.iter().map(|index| arrivals[*index]).collect();
                world.receive(&mut tx, kind, &format!("R{history}-{number}"), coming).await;
            }
            tx.commit().await.unwrap();
            for (number, order) in orders.iter().enumerate() {
                let what = format!("{what}, in the order {order:?}");
                world.expect(kind, &format!("R{history}-{number}"), *expected, &what).await;
            }
        }
    }
}

/// Waits until somebody waits for a row that another transaction holds. `SQLite` has no such thing: who
/// comes second is not let in at all.
async fn until_somebody_waits(store: &Store) {
    let Pool::Postgres(pool) = store.pool() else { return };
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(pool).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn a_patch_waits_for_the_record_that_is_being_written(store: Store) {
    let world = Arc::new(World::new(store).await);
    for kind in KINDS {
        world.write(kind, "R1", full(0, 5, 10, 10)).await;
        let mut polling = world.store.begin().await.unwrap();
        world.write_in(&mut polling, kind, "R1", full(0, 6, 30, 30)).await;
        let others = Arc::clone(&world);
        let telling = tokio::spawn(async move {
            let older = others.tell(kind, "R1", told(1, 20, 20)).await;
            (older, others.tell(kind, "R1", told(2, 40, 40)).await)
        });
        until_somebody_waits(&world.store).await;
        polling.commit().await.unwrap();
        assert_eq!(telling.await.unwrap(), (Patched::Unchanged, Patched::Changed), "{kind:?}");
        world.expect(kind, "R1", (2, 6, false), "the record, and the patch that is newer").await;
        assert_eq!(world.see(kind, "R1").await.version, 30, "{kind:?}: the record's own version stays");
    }
}

pub(crate) async fn an_impossible_patch_is_refused_with_its_reason(store: Store) {
    let world = World::new(store).await;
    let far = chrono::DateTime::from_timestamp(300_000_000_000, 0).unwrap();
    let of = |kind| news_of(kind, "R1", told(1, 20, 20));
    let (sale, order, paid) = (of(Kind::Transaction), of(Kind::Order), of(Kind::Record));
    let number = || PatchKey::Number("R1".into());
    let word = || Some("unheard of".to_owned());
    let cases = [
        (
            RecordPatch { status: word(), ..sale.clone() },
            "the status `unheard of` is not one of `sale`, `refund`, `void`",
        ),
        (
            RecordPatch { status: word(), ..order.clone() },
            "the status `unheard of` is not one of `pending`, `confirmed`",
        ),
        (RecordPatch { status: None, ..order.clone() }, "the event tells no new state"),
        (RecordPatch { key: number(), ..sale.clone() }, "only supplier orders are known by a number"),
        (RecordPatch { key: number(), ..paid.clone() }, "only supplier orders are known by a number"),
        (RecordPatch { tracking_number: word(), ..paid.clone() }, "only supplier orders have a delivery"),
        (RecordPatch { delivered_at: Some(at(0)), ..sale.clone() }, "only supplier orders have a delivery"),
        (RecordPatch { key: PatchKey::ExternalId(String::new()), ..paid.clone() }, "the record has no id"),
        (
            RecordPatch { key: PatchKey::Either("x".repeat(513)), ..order.clone() },
            "the record's id is 513 bytes",
        ),
        (RecordPatch { version_at: Some(far), ..sale }, "`version_at` is in the year 11476"),
        (RecordPatch { delivered_at: Some(far), ..order }, "`delivered_at` is in the year 11476"),
    ];
    for kind in KINDS {
        world.write(kind, "R1", full(0, 5, 10, 10)).await;
    }
    let mut tx = world.store.begin().await.unwrap();
    for (change, reason) in cases {
        let patched = patch(&mut tx, world.system, &change, world.store.clock()).await.unwrap();
        let Patched::Refused(said) = patched else { panic!("{patched:?}, not `{reason}`") };
        assert!(said.starts_with(reason), "{said}");
    }
    // The transaction still works, and a word that no database takes is made fit.
    let nul = RecordPatch { status: Some("pa\0id".into()), ..paid };
    let patched = patch(&mut tx, world.system, &nul, world.store.clock()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(patched, Patched::Changed);
    assert_eq!(world.see(Kind::Record, "R1").await.state, "pa\u{fffd}id");
    world.expect(Kind::Order, "R1", (0, 5, false), "refused").await;
}
