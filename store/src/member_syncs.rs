//! The table `member_syncs`: every member of a loyalty programme, once, as the vendor and we know it.
//!
//! Pulls and webhooks write here in batches ([`upsert_batch_isolating`]), clients by the API
//! ([`hand_in`]). Unlike other records, members have two masters: a row remembers who told what it
//! holds, and the system's rule ([`MemberConflict`]) says who may overwrite whom.
//!
//! | rule | the vendor tells | the API tells |
//! |---|---|---|
//! | `newest` | overwrites what is not newer; without a version of its own not what waits to be pushed | overwrites what is not newer |
//! | `vendor` | overwrites what the API told, and its own that is not newer | only where the vendor has told nothing |
//! | `ours` | overwrites its own that is not newer; a row of the API only gets the vendor's id | overwrites |
//!
//! What the API told waits (`pending`) until it is pushed to a vendor that takes it. A vendor that tells no
//! versions may have been asked a moment ago and still not know what waits (or was `failed` to be pushed), so
//! under `newest` its word does not count there: a client's change would be lost unseen.

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::error::StoreError;
use crate::ids::{RunId, SystemId};
use crate::money::Currency;
use crate::on_tx;
use crate::pool::Tx;
use crate::record_batches::{
    self, Batch, ChangedRow, ContentHash, Key, NewRow, RecordKey, RecordTable, RefusedRecord, RowThere,
    Upserted, check_id, check_time, clean, clean_option,
};
use crate::record_columns::insertion;
use crate::text_enum::{MemberConflict, MemberOrigin, SyncStatus};

mod list;
mod ours;

pub use list::{Filter, PAGE_MAX, find_by_member_id, get, list};
pub use ours::{OurMember, Pushed, ask_for_push, fail_push, fail_pushes, finish_push, hand_in, lock};

#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: [&[(&str, &str)]; 2] = [list::STATEMENTS, ours::STATEMENTS];

/// The vendor's id of a member and its last activity stay where a record does not tell them.
const OVERWRITE: &str = "
    ON CONFLICT (system_id, member_id) DO UPDATE SET
        store_id = excluded.store_id,
        external_member_id = COALESCE(excluded.external_member_id, member_syncs.external_member_id),
        phone = excluded.phone, name = excluded.name, email = excluded.email, level = excluded.level,
        points = excluded.points, balance = excluded.balance, currency = excluded.currency,
        sync_status = excluded.sync_status,
        last_activity = COALESCE(excluded.last_activity, member_syncs.last_activity),
        version_at = excluded.version_at, observed_at = excluded.observed_at,
        content_hash = excluded.content_hash, sync_log_id = excluded.sync_log_id, raw = excluded.raw,
        updated_at = excluded.updated_at, deleted_at = excluded.deleted_at, origin = excluded.origin,
        push_error = NULL";
/// What we sent is not told by the vendor's own words for the same thing, so `raw` tells a change only where
/// the vendor's words are there.
macro_rules! newer {
    () => {
        "(member_syncs.version_at, member_syncs.observed_at) <= (excluded.version_at, excluded.observed_at)
      AND (member_syncs.content_hash <> excluded.content_hash
        OR (member_syncs.origin = 'vendor' AND member_syncs.raw <> excluded.raw)
        OR (member_syncs.version_at < excluded.version_at
            AND (member_syncs.deleted_at IS NULL) <> (excluded.deleted_at IS NULL)))"
    };
}
/// A record without a version of its own has the time of its observation for one.
const IF_NEWER: &str = concat!(
    "\n    WHERE (member_syncs.sync_status = 'success' OR excluded.version_at <> excluded.observed_at)\n      AND ",
    newer!()
);
const IF_OURS_OR_NEWER: &str = concat!("\n    WHERE member_syncs.origin = 'ours' OR (", newer!(), ")");
const IF_VENDORS_AND_NEWER: &str = concat!("\n    WHERE member_syncs.origin = 'vendor' AND ", newer!());
/// A replay passes over versions, not over the rule.
const IF_VENDORS: &str = "\n    WHERE member_syncs.origin = 'vendor'";
/// The keys and ids of the rows that changed.
const CHANGED: &str = " RETURNING '' AS stream, member_id, id";
const THERE: &str = "SELECT '' AS stream, member_id, id, last_activity FROM member_syncs WHERE system_id = ";

const RAISE_HEAD: &str = "
    UPDATE member_syncs SET version_at = seen.column3, observed_at = seen.column4 FROM (";
const RAISE_TAIL: &str = ") AS seen
    WHERE member_syncs.member_id = seen.column1
      AND member_syncs.content_hash = seen.column2
      AND member_syncs.version_at < seen.column3
      AND member_syncs.system_id = ";
const NAME_HEAD: &str = "
    UPDATE member_syncs SET external_member_id = seen.column2 FROM (";
const NAME_TAIL: &str = ") AS seen
    WHERE member_syncs.member_id = seen.column1
      AND member_syncs.origin = 'ours'
      AND member_syncs.external_member_id IS NULL
      AND member_syncs.system_id = ";

/// One member as a vendor or a client of the API told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingMember {
    /// The number of the member; unique within a system.
    pub member_id: String,
    /// The vendor's own id of it.
    pub external_member_id: Option<String>,
    /// Their telephone number.
    pub phone: Option<String>,
    /// What they are called.
    pub name: Option<String>,
    /// Their address for mails.
    pub email: Option<String>,
    /// Which level they have reached.
    pub level: Option<String>,
    /// What they have collected.
    pub points: Option<i64>,
    /// What they have paid in, in minor units.
    pub balance: Option<i64>,
    /// The currency of the balance.
    pub currency: Currency,
    /// When they last did something.
    pub last_activity: Option<DateTime<Utc>>,
    /// The vendor's shop id; the system's store map makes it a store.
    pub shop: Option<String>,
    /// When the vendor changed it last, if the vendor tells.
    pub version_at: Option<DateTime<Utc>>,
    /// When this member was heard of, if not with the batch: one batch may hold events that arrived at
    /// different times.
    pub observed_at: Option<DateTime<Utc>>,
    /// The vendor says that it is gone.
    pub deleted: bool,
    /// The whole member as JSON text.
    pub raw: String,
}

/// A row of `member_syncs`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct MemberSync {
    /// Our id.
    pub id: Uuid,
    /// The system whose member it is.
    pub system_id: SystemId,
    /// The store it belongs to; `None` when the shop is unknown and the system chain-wide.
    pub store_id: Option<String>,
    /// The number of the member; unique within a system.
    pub member_id: String,
    /// The vendor's own id of it.
    pub external_member_id: Option<String>,
    /// Their telephone number.
    pub phone: Option<String>,
    /// What they are called.
    pub name: Option<String>,
    /// Their address for mails.
    pub email: Option<String>,
    /// Which level they have reached.
    pub level: Option<String>,
    /// What they have collected.
    pub points: i64,
    /// What they have paid in, in minor units.
    pub balance: i64,
    /// The currency of the balance.
    pub currency: Currency,
    /// Whether it is in step with its vendor.
    pub sync_status: SyncStatus,
    /// When they last did something.
    pub last_activity: Option<DateTime<Utc>>,
    /// The vendor's own time of its last change, or the time it was observed.
    pub version_at: DateTime<Utc>,
    /// When the vendor was asked, when the webhook arrived, or when the API was called.
    pub observed_at: DateTime<Utc>,
    /// SHA-256 of what a push would send, and of its store and last activity.
    pub content_hash: Vec<u8>,
    /// The run that wrote this content.
    pub sync_log_id: Option<RunId>,
    /// The whole member as JSON text, as it was told.
    pub raw: String,
    /// When the row was made.
    pub created_at: DateTime<Utc>,
    /// When its content changed last.
    pub updated_at: DateTime<Utc>,
    /// When the vendor said that it is gone.
    pub deleted_at: Option<DateTime<Utc>>,
    /// Who told what it holds.
    pub origin: MemberOrigin,
    /// When it was pushed to the vendor last.
    pub pushed_at: Option<DateTime<Utc>>,
    /// Why the last push failed; cleared by one that succeeds, and by the vendor's own word.
    pub push_error: Option<String>,
}

impl MemberSync {
    /// The row that a member becomes, or why it cannot be stored.
    fn prepare(
        batch: &Batch<'_>,
        mut new: IncomingMember,
        origin: MemberOrigin,
    ) -> Result<Self, RefusedRecord> {
        new.external_member_id = new.external_member_id.filter(|id| !id.is_empty());
        let times = check_id(&new.member_id)
            .and_then(|()| new.external_member_id.as_deref().map_or(Ok(()), check_id))
            .and_then(|()| {
                let option = |name, time: Option<_>| time.map(|time| check_time(name, time)).transpose();
                Ok((option("last_activity", new.last_activity)?, option("version_at", new.version_at)?))
            });
        let (last_activity, version_at) = times.map_err(|reason| {
            let key = Key { stream: "", external_id: &new.member_id };
            record_batches::refuse(key, reason, &new.raw)
        })?;
        let now = batch.clock.now();
        let observed_at = new.observed_at.unwrap_or(batch.observed_at).trunc_subsecs(3);
        let mut row = Self {
            id: batch.clock.new_id(),
            system_id: batch.system_id,
            store_id: batch.stores.store_of(new.shop.as_deref()).map(str::to_owned),
            member_id: clean(new.member_id),
            external_member_id: clean_option(new.external_member_id),
            phone: clean_option(new.phone),
            name: clean_option(new.name),
            email: clean_option(new.email),
            level: clean_option(new.level),
            points: new.points.unwrap_or(0),
            balance: new.balance.unwrap_or(0),
            currency: new.currency,
            sync_status: SyncStatus::Success,
            last_activity,
            version_at: version_at.unwrap_or(observed_at),
            observed_at,
            content_hash: Vec::new(),
            sync_log_id: batch.sync_log_id,
            raw: clean(new.raw),
            created_at: now,
            updated_at: now,
            deleted_at: new.deleted.then_some(now),
            origin,
            pushed_at: None,
            push_error: None,
        };
        row.content_hash = row.hash_content();
        Ok(row)
    }

    /// Of what is known of the member, not of the words it was told in: what we pushed comes back equal.
    fn hash_content(&self) -> Vec<u8> {
        let active = self.last_activity.map_or(i64::MIN, |time| time.timestamp_millis());
        ContentHash::new()
            .option(self.store_id.as_deref())
            .option(self.phone.as_deref())
            .option(self.name.as_deref())
            .option(self.email.as_deref())
            .option(self.level.as_deref())
            .number(self.points)
            .number(self.balance)
            .text(self.currency.as_str())
            .number(active)
            .number(i64::from(self.deleted_at.is_some()))
            .finish()
    }
}

/// A row that the vendor told, and the rule it is written by: the same for all rows of a batch.
struct Told {
    row: MemberSync,
    rule: MemberConflict,
}

impl NewRow for Told {
    fn id(&self) -> Uuid {
        self.row.id
    }
    fn key(&self) -> Key<'_> {
        Key { stream: "", external_id: &self.row.member_id }
    }
    fn version(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        (self.row.version_at, self.row.observed_at)
    }
    fn raw(&self) -> &str {
        &self.row.raw
    }
}

insertion!("member_syncs", |row: &MemberSync| {
    id "UUID" = row.id,
    system_id "UUID" = row.system_id,
    store_id "TEXT" = row.store_id.as_deref(),
    member_id "TEXT" = row.member_id.as_str(),
    external_member_id "TEXT" = row.external_member_id.as_deref(),
    phone "TEXT" = row.phone.as_deref(),
    name "TEXT" = row.name.as_deref(),
    email "TEXT" = row.email.as_deref(),
    level "TEXT" = row.level.as_deref(),
    points "BIGINT" = row.points,
    balance "BIGINT" = row.balance,
    currency "TEXT" = row.currency.as_str(),
    sync_status "TEXT" = row.sync_status.as_str(),
    last_activity "TIMESTAMPTZ" = row.last_activity,
    version_at "TIMESTAMPTZ" = row.version_at,
    observed_at "TIMESTAMPTZ" = row.observed_at,
    content_hash "BYTEA" = row.content_hash.as_slice(),
    sync_log_id "UUID" = row.sync_log_id,
    raw "TEXT" = row.raw.as_str(),
    created_at "TIMESTAMPTZ" = row.created_at,
    updated_at "TIMESTAMPTZ" = row.updated_at,
    deleted_at "TIMESTAMPTZ" = row.deleted_at,
    origin "TEXT" = row.origin.as_str(),
});

/// The table, for [`record_batches`].
struct Table;

/// Which rows a vendor's record overwrites.
const fn overwritten(rule: MemberConflict, force: bool) -> &'static str {
    match (rule, force) {
        (MemberConflict::Newest, false) => IF_NEWER,
        (MemberConflict::Vendor, false) => IF_OURS_OR_NEWER,
        (MemberConflict::Ours, false) => IF_VENDORS_AND_NEWER,
        (MemberConflict::Newest | MemberConflict::Vendor, true) => "",
        (MemberConflict::Ours, true) => IF_VENDORS,
    }
}

impl RecordTable for Table {
    type Row = Told;

    async fn write(tx: &mut Tx, batch: &Batch<'_>, rows: &[Told]) -> Result<Vec<ChangedRow>, StoreError> {
        let rule = rows.first().map_or(MemberConflict::Newest, |told| told.rule);
        let rows: Vec<&MemberSync> = rows.iter().map(|told| &told.row).collect();
        insert(tx, &rows, &[OVERWRITE, overwritten(rule, batch.force), CHANGED]).await
    }

    async fn raise(tx: &mut Tx, batch: &Batch<'_>, rows: &[Told]) -> Result<(), StoreError> {
        on_tx!(tx, |ex| {
            let mut query = QueryBuilder::new(RAISE_HEAD);
            query.push_values(rows, |mut values, told| {
                values
                    .push_bind(told.row.member_id.as_str())
                    .push_bind(told.row.content_hash.as_slice())
                    .push_bind(told.row.version_at)
                    .push_bind(told.row.observed_at);
            });
            query.push(RAISE_TAIL).push_bind(batch.system_id);
            query.build().persistent(false).execute(ex).await.map(drop)
        })?;
        name(tx, batch, rows).await
    }

    async fn there(
        tx: &mut Tx,
        system_id: SystemId,
        keys: &[RecordKey],
    ) -> Result<Vec<RowThere>, StoreError> {
        Ok(on_tx!(tx, |ex| {
            let mut query = QueryBuilder::new(THERE);
            query.push_bind(system_id).push(" AND member_id IN (");
            let mut values = query.separated(", ");
            for (_, member_id) in keys {
                values.push_bind(member_id.as_str());
            }
            query.push(")");
            query.build_query_as().persistent(false).fetch_all(ex).await
        })?)
    }
}

/// Gives rows of ours that have none the vendor's id of their member.
async fn name(tx: &mut Tx, batch: &Batch<'_>, rows: &[Told]) -> Result<(), StoreError> {
    let named = || {
        let rows = rows.iter().map(|told| &told.row);
        rows.filter_map(|row| Some((row.member_id.as_str(), row.external_member_id.as_deref()?)))
    };
    if named().next().is_none() {
        return Ok(());
    }
    Ok(on_tx!(tx, |ex| {
        let mut query = QueryBuilder::new(NAME_HEAD);
        query.push_values(named(), |mut values, (member_id, external_id)| {
            values.push_bind(member_id).push_bind(external_id);
        });
        query.push(NAME_TAIL).push_bind(batch.system_id);
        query.build().persistent(false).execute(ex).await.map(drop)
    })?)
}

/// Writes members as the vendor told them; one that cannot be stored fails them all with
/// [`StoreError::Refused`].
pub async fn upsert_batch(
    tx: &mut Tx,
    batch: Batch<'_>,
    rule: MemberConflict,
    members: Vec<IncomingMember>,
) -> Result<Upserted, StoreError> {
    let rows = members.into_iter().map(|member| told(&batch, rule, member));
    let rows = rows.collect::<Result<Vec<_>, _>>().map_err(as_refused)?;
    record_batches::upsert::<Table>(tx, &batch, rows).await
}

/// Writes members that are the work of several runs, each beside its own; one that cannot be stored fails
/// them all with [`StoreError::Refused`]. Gives back the keys of those that changed.
pub async fn upsert_of_runs(
    tx: &mut Tx,
    batch: Batch<'_>,
    rule: MemberConflict,
    members: Vec<(RunId, IncomingMember)>,
) -> Result<Vec<RecordKey>, StoreError> {
    let rows = members
        .into_iter()
        .map(|(run, member)| told(&Batch { sync_log_id: Some(run), ..batch }, rule, member));
    let rows = rows.collect::<Result<Vec<_>, _>>().map_err(as_refused)?;
    record_batches::upsert_telling::<Table>(tx, &batch, rows).await
}

/// Writes members; those that cannot be stored are given back, the others are written.
pub async fn upsert_batch_isolating(
    tx: &mut Tx,
    batch: Batch<'_>,
    rule: MemberConflict,
    members: Vec<IncomingMember>,
) -> Result<(Upserted, Vec<RefusedRecord>), StoreError> {
    let mut rows = Vec::with_capacity(members.len());
    let mut impossible = Vec::new();
    for member in members {
        match told(&batch, rule, member) {
            Ok(row) => rows.push(row),
            Err(refused) => impossible.push(refused),
        }
    }
    let (upserted, refused) = record_batches::upsert_isolating::<Table>(tx, &batch, rows).await?;
    impossible.extend(refused);
    Ok((upserted, impossible))
}

fn told(batch: &Batch<'_>, rule: MemberConflict, member: IncomingMember) -> Result<Told, RefusedRecord> {
    Ok(Told { row: MemberSync::prepare(batch, member, MemberOrigin::Vendor)?, rule })
}

fn as_refused(refused: RefusedRecord) -> StoreError {
    StoreError::Refused(sqlx::Error::Encode(refused.reason.into()))
}
