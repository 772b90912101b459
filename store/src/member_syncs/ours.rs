//! Members that the API tells, and their way to the vendor.
//!
//! ```text
//! hand_in ─▶ pending ─▶ push ─▶ finish_push ─▶ success
//!               ▲         └────▶ fail_push ───▶ failed
//!               └──────── ask_for_push ◀───────────┘
//! ```
//!
//! A push ends only the content that it sent: what was told meanwhile stays pending.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{CHANGED, IncomingMember, MemberSync, Table, insert};
use crate::error::StoreError;
use crate::ids::SystemId;
use crate::on_tx;
use crate::pool::Tx;
use crate::record_batches::{Batch, ChangedRow, Key, NewRow, RecordKey, RecordTable, RowThere};
use crate::records_handed_in::{self, HandedIn};
use crate::text_enum::{MemberConflict, MemberOrigin, SyncStatus};

/// Changes nothing of a row that is there, but keeps it locked. One statement takes all rows in the order of
/// their keys: to insert the new ones first and lock the others afterwards would let two batches wait for each
/// other.
const LOCK: &str = " ON CONFLICT (system_id, member_id) DO UPDATE SET origin = member_syncs.origin";
const THERE: &str = "SELECT * FROM member_syncs WHERE system_id = ";
/// A row keeps its id, when it was made, and when it was pushed last.
const SAVE: &str = "
    ON CONFLICT (system_id, member_id) DO UPDATE SET
        store_id = excluded.store_id, external_member_id = excluded.external_member_id, phone = excluded.phone,
        name = excluded.name, email = excluded.email, level = excluded.level, points = excluded.points,
        balance = excluded.balance, currency = excluded.currency, sync_status = excluded.sync_status,
        last_activity = excluded.last_activity, version_at = excluded.version_at, observed_at = excluded.observed_at,
        content_hash = excluded.content_hash, sync_log_id = excluded.sync_log_id, raw = excluded.raw,
        updated_at = excluded.updated_at, deleted_at = excluded.deleted_at, origin = excluded.origin,
        push_error = NULL";
const CLAIM: &str = "UPDATE member_syncs SET origin = 'ours' WHERE id IN (";
const LOCK_ONE: &str = "SELECT id FROM member_syncs WHERE id = $1 FOR NO KEY UPDATE";
const ASK: &str = "
    UPDATE member_syncs SET sync_status = 'pending', push_error = NULL WHERE id = $1 AND deleted_at IS NULL";
const FINISH: &str = "
    UPDATE member_syncs SET sync_status = 'success', push_error = NULL, pushed_at = $3,
        external_member_id = COALESCE($4, external_member_id)
    WHERE id = $1 AND content_hash = $2";
const FINISH_CHANGED: &str = "
    UPDATE member_syncs SET pushed_at = $2, external_member_id = COALESCE($3, external_member_id) WHERE id = $1";
const FAIL: &str = "
    UPDATE member_syncs SET sync_status = 'failed', push_error = $2
    WHERE id = $1 AND sync_status = 'pending'";
const FAIL_ALL: &str = "
    UPDATE member_syncs SET sync_status = 'failed', push_error = $2
    WHERE system_id = $1 AND sync_status = 'pending' AND sync_status <> 'success'";

#[cfg(feature = "testing")]
pub(super) const STATEMENTS: &[(&str, &str)] = &[
    ("member_syncs::ASK", ASK),
    ("member_syncs::FINISH", FINISH),
    ("member_syncs::FINISH_CHANGED", FINISH_CHANGED),
    ("member_syncs::FAIL", FAIL),
    ("member_syncs::FAIL_ALL", FAIL_ALL),
];

/// A member that a client hands in.
#[derive(Debug, Clone)]
pub struct OurMember {
    /// What is told; what is not told of a member that is there stays.
    pub member: IncomingMember,
    /// Whose word counts in its system.
    pub rule: MemberConflict,
    /// Whether its vendor is to be told: then it waits until it is pushed, else it is in step at once.
    pub to_push: bool,
}

/// Writes members that a client hands in, each by its system's rule, and answers each in the order they were
/// given. Of one number several times the last counts, with what only those before it tell.
pub async fn hand_in(
    tx: &mut Tx,
    batch: Batch<'_>,
    members: Vec<OurMember>,
) -> Result<Vec<HandedIn>, StoreError> {
    let mut seen = HashSet::new();
    let repeated = members.iter().map(|one| &one.member.member_id).filter(|id| !seen.insert(*id));
    // What was told of the few that come more than once.
    let mut told_before: HashMap<String, Option<IncomingMember>> =
        repeated.map(|id| (id.clone(), None)).collect();
    let prepared = members.into_iter().map(|OurMember { mut member, rule, to_push }| {
        if let Some(before) = told_before.get_mut(&member.member_id) {
            member = match before {
                Some(before) => completed(member, before),
                None => member,
            };
            *before = Some(member.clone());
        }
        let told = (member.points, member.balance);
        let mut row = MemberSync::prepare(&batch, member, MemberOrigin::Ours)?;
        row.sync_status = if to_push { SyncStatus::Pending } else { SyncStatus::Success };
        Ok(OurRow { row, rule, points: told.0, balance: told.1 })
    });
    let prepared = prepared.collect();
    records_handed_in::hand_in::<OurTable>(tx, &batch, prepared).await
}

/// A member with what was told of it earlier in the same batch.
fn completed(member: IncomingMember, before: &IncomingMember) -> IncomingMember {
    let or = |told: Option<String>, before: &Option<String>| told.or_else(|| before.clone());
    IncomingMember {
        external_member_id: or(member.external_member_id, &before.external_member_id),
        phone: or(member.phone, &before.phone),
        name: or(member.name, &before.name),
        email: or(member.email, &before.email),
        level: or(member.level, &before.level),
        points: member.points.or(before.points),
        balance: member.balance.or(before.balance),
        last_activity: member.last_activity.or(before.last_activity),
        ..member
    }
}

/// A row that the API told, and what decides whether it is written.
struct OurRow {
    row: MemberSync,
    rule: MemberConflict,
    /// As far as they are told: the row has 0 for what is not.
    points: Option<i64>,
    balance: Option<i64>,
}

impl NewRow for OurRow {
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

/// What becomes of a row that the API told of a member that is there.
enum Verdict {
    /// What is there stays.
    Kept,
    /// The same is there already, told by the vendor; from now on it is ours.
    Claimed(Uuid),
    Changed(Box<MemberSync>),
}

impl OurRow {
    fn verdict(&self, there: &MemberSync) -> Verdict {
        let kept = match self.rule {
            MemberConflict::Newest => (there.version_at, there.observed_at) > self.version(),
            MemberConflict::Vendor => there.origin == MemberOrigin::Vendor,
            MemberConflict::Ours => false,
        };
        if kept {
            return Verdict::Kept;
        }
        let row = self.merged(there);
        // Not by the hash that is kept there: it is of what was told last, beside which the row may hold a last
        // activity that was told before.
        let same =
            row.content_hash == there.hash_content() && row.external_member_id == there.external_member_id;
        if !same {
            return Verdict::Changed(Box::new(row));
        }
        // Nothing is new, but whose word it is may be: by this rule the vendor may not change it any more.
        let claimed = self.rule == MemberConflict::Ours && there.origin == MemberOrigin::Vendor;
        if claimed { Verdict::Claimed(there.id) } else { Verdict::Kept }
    }

    /// What was told, and of the rest what is there.
    fn merged(&self, there: &MemberSync) -> MemberSync {
        let or = |told: &Option<String>, there: &Option<String>| told.clone().or_else(|| there.clone());
        let told = &self.row;
        let mut row = MemberSync {
            store_id: or(&told.store_id, &there.store_id),
            external_member_id: or(&told.external_member_id, &there.external_member_id),
            phone: or(&told.phone, &there.phone),
            name: or(&told.name, &there.name),
            email: or(&told.email, &there.email),
            level: or(&told.level, &there.level),
            points: self.points.unwrap_or(there.points),
            balance: self.balance.unwrap_or(there.balance),
            last_activity: told.last_activity.or(there.last_activity),
            ..told.clone()
        };
        row.content_hash = row.hash_content();
        row
    }
}

/// The table as the API writes it, for [`crate::record_batches`].
struct OurTable;

impl RecordTable for OurTable {
    type Row = OurRow;

    async fn write(tx: &mut Tx, batch: &Batch<'_>, rows: &[OurRow]) -> Result<Vec<ChangedRow>, StoreError> {
        let ids: HashSet<Uuid> = rows.iter().map(NewRow::id).collect();
        let given: Vec<&MemberSync> = rows.iter().map(|our| &our.row).collect();
        let taken = insert(tx, &given, &[LOCK, CHANGED]).await?;
        let (mut changed, others): (Vec<_>, Vec<_>) = taken.into_iter().partition(|row| ids.contains(&row.2));
        if others.is_empty() {
            return Ok(changed);
        }
        let others: HashSet<String> = others.into_iter().map(|(_, member_id, _)| member_id).collect();
        let there = find_all(tx, batch.system_id, &others).await?;
        let (mut saved, mut claimed) = (Vec::new(), Vec::new());
        for our in rows {
            let Some(there) = there.get(&our.row.member_id) else { continue };
            match our.verdict(there) {
                Verdict::Kept => {}
                Verdict::Claimed(id) => claimed.push(id),
                Verdict::Changed(row) => saved.push(*row),
            }
        }
        if !saved.is_empty() {
            let saved: Vec<&MemberSync> = saved.iter().collect();
            changed.extend(insert(tx, &saved, &[SAVE, CHANGED]).await?);
        }
        claim(tx, &claimed).await?;
        Ok(changed)
    }

    /// A client tells no versions, so nothing is newer without being different.
    async fn raise(_: &mut Tx, _: &Batch<'_>, _: &[OurRow]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn there(
        tx: &mut Tx,
        system_id: SystemId,
        keys: &[RecordKey],
    ) -> Result<Vec<RowThere>, StoreError> {
        Table::there(tx, system_id, keys).await
    }
}

/// The rows that are there, by the member's number.
async fn find_all(
    tx: &mut Tx,
    system_id: SystemId,
    member_ids: &HashSet<String>,
) -> Result<HashMap<String, MemberSync>, StoreError> {
    let found: Vec<MemberSync> = on_tx!(tx, |ex| {
        let mut query = QueryBuilder::new(THERE);
        query.push_bind(system_id).push(" AND member_id IN (");
        let mut values = query.separated(", ");
        for member_id in member_ids {
            values.push_bind(member_id.as_str());
        }
        query.push(")");
        query.build_query_as().persistent(false).fetch_all(ex).await
    })?;
    Ok(found.into_iter().map(|row| (row.member_id.clone(), row)).collect())
}

async fn claim(tx: &mut Tx, ids: &[Uuid]) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    Ok(on_tx!(tx, |ex| {
        let mut query = QueryBuilder::new(CLAIM);
        let mut values = query.separated(", ");
        for id in ids {
            values.push_bind(*id);
        }
        query.push(")");
        query.build().persistent(false).execute(ex).await.map(drop)
    })?)
}

/// Takes a member's row until the transaction's end. Whoever writes a member and a run takes the member first.
pub async fn lock(tx: &mut Tx, id: Uuid) -> Result<(), StoreError> {
    match tx {
        Tx::Postgres(tx) => {
            sqlx::query(LOCK_ONE).bind(id).execute(&mut **tx).await?;
        }
        // There is one writer.
        Tx::Sqlite(_) => {}
    }
    Ok(())
}

/// Has a member pushed once more; `false` if it is gone.
pub async fn ask_for_push(tx: &mut Tx, id: Uuid) -> Result<bool, StoreError> {
    let asked: u64 =
        on_tx!(tx, |ex| sqlx::query(ASK).bind(id).execute(ex).await.map(|done| done.rows_affected()))?;
    Ok(asked == 1)
}

/// What was sent to the vendor.
#[derive(Debug, Clone, Copy)]
pub struct Pushed<'a> {
    /// The member's row.
    pub id: Uuid,
    /// Its content as it was sent.
    pub content_hash: &'a [u8],
}

/// Notes that the vendor took it, and the id that it gave. `false` if the row was changed meanwhile: then its
/// state is that of the change.
pub async fn finish_push(
    tx: &mut Tx,
    pushed: Pushed<'_>,
    external_member_id: Option<&str>,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let in_step: u64 = on_tx!(tx, |ex| sqlx::query(FINISH)
        .bind(pushed.id)
        .bind(pushed.content_hash)
        .bind(now)
        .bind(external_member_id)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    if in_step == 1 {
        return Ok(true);
    }
    on_tx!(tx, |ex| sqlx::query(FINISH_CHANGED)
        .bind(pushed.id)
        .bind(now)
        .bind(external_member_id)
        .execute(ex)
        .await
        .map(drop))?;
    Ok(false)
}

/// Notes that the vendor did not take a member that waits, and is not asked again.
pub async fn fail_push(tx: &mut Tx, id: Uuid, error: &str) -> Result<(), StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::query(FAIL).bind(id).bind(error).execute(ex).await.map(drop))?)
}

/// Notes the same on every member of a system that waits: it is not told any more. Says how many.
pub async fn fail_pushes(tx: &mut Tx, system_id: SystemId, error: &str) -> Result<u64, StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::query(FAIL_ALL)
        .bind(system_id)
        .bind(error)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}
