//! Members that the API tells, and their way to the vendor.
//!
//! ```text
//! write_ours ─▶ pending ─▶ push ─▶ finish_push ─▶ success
//!                  ▲         └────▶ fail_push ───▶ failed
//!                  └──────── ask_for_push ◀───────────┘
//! ```
//!
//! A push ends only the content that it sent: what was told meanwhile stays pending.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{HEAD, IncomingMember, MemberSync, as_refused, insert_rows};
use crate::error::StoreError;
use crate::on_tx;
use crate::pool::Tx;
use crate::record_batches::Batch;
use crate::records_handed_in::{Change, HandedIn};
use crate::text_enum::{MemberConflict, MemberOrigin, SyncStatus};

const UNLESS_THERE: &str = " ON CONFLICT (system_id, member_id) DO NOTHING RETURNING *";
const THERE: &str = "SELECT * FROM member_syncs WHERE system_id = $1 AND member_id = $2";
const THERE_LOCKING: &str = "SELECT * FROM member_syncs WHERE system_id = $1 AND member_id = $2 FOR UPDATE";
const SAVE: &str = "
    UPDATE member_syncs SET store_id = $2, external_member_id = $3, phone = $4, name = $5, email = $6, level = $7,
        points = $8, balance = $9, currency = $10, sync_status = $11, version_at = $12, observed_at = $13,
        content_hash = $14, sync_log_id = $15, raw = $16, updated_at = $17, deleted_at = $18, origin = $19,
        push_error = $20, last_activity = $21
    WHERE id = $1";
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

#[cfg(feature = "testing")]
pub(super) const STATEMENTS: &[(&str, &str)] = &[
    ("member_syncs::THERE", THERE),
    ("member_syncs::SAVE", SAVE),
    ("member_syncs::ASK", ASK),
    ("member_syncs::FINISH", FINISH),
    ("member_syncs::FINISH_CHANGED", FINISH_CHANGED),
    ("member_syncs::FAIL", FAIL),
];

/// Writes a member that the API told, by the system's rule; gives the row that is there now.
///
/// What is not told of a member that is there stays. With `to_push` it waits until it is pushed; else nobody is
/// to be told, and it is in step at once.
pub async fn write_ours(
    tx: &mut Tx,
    batch: Batch<'_>,
    rule: MemberConflict,
    member: IncomingMember,
    to_push: bool,
) -> Result<(MemberSync, Change), StoreError> {
    let told = (member.points, member.balance);
    let row = MemberSync::prepare(&batch, member, MemberOrigin::Ours).map_err(as_refused)?;
    write_prepared(tx, rule, row, told, to_push).await
}

/// The same with a row that was prepared, and the points and the balance as far as they are told.
async fn write_prepared(
    tx: &mut Tx,
    rule: MemberConflict,
    mut row: MemberSync,
    (points, balance): (Option<i64>, Option<i64>),
    to_push: bool,
) -> Result<(MemberSync, Change), StoreError> {
    row.sync_status = if to_push { SyncStatus::Pending } else { SyncStatus::Success };
    let inserted: Option<MemberSync> = on_tx!(tx, |ex| {
        let mut query = insert_rows!([&row]);
        query.push(UNLESS_THERE);
        query.build_query_as().fetch_optional(ex).await
    })?;
    if let Some(inserted) = inserted {
        return Ok((inserted, Change::Created));
    }
    let there = lock(tx, &row).await?;
    let kept = match rule {
        MemberConflict::Newest => (there.version_at, there.observed_at) > (row.version_at, row.observed_at),
        MemberConflict::Vendor => there.origin == MemberOrigin::Vendor,
        MemberConflict::Ours => false,
    };
    if kept {
        return Ok((there, Change::Unchanged));
    }
    row.points = points.unwrap_or(there.points);
    row.balance = balance.unwrap_or(there.balance);
    let row = merge(row, &there);
    // Not by the hash that is kept there: it is of what was told last, beside which the row may hold a last
    // activity that was told before.
    let same = row.content_hash == there.hash_content() && row.external_member_id == there.external_member_id;
    if !same {
        save(tx, &row).await?;
        return Ok((row, Change::Updated));
    }
    // Nothing is new, but whose word it is may be: by this rule the vendor may not change it any more.
    if rule == MemberConflict::Ours && there.origin == MemberOrigin::Vendor {
        let row = MemberSync { origin: MemberOrigin::Ours, ..there };
        save(tx, &row).await?;
        return Ok((row, Change::Unchanged));
    }
    Ok((there, Change::Unchanged))
}

/// A member that a client hands in.
#[derive(Debug, Clone)]
pub struct OurMember {
    /// What is told.
    pub member: IncomingMember,
    /// Whose word counts in its system.
    pub rule: MemberConflict,
    /// Whether its vendor is to be told.
    pub to_push: bool,
}

/// Writes members that a client hands in, and answers each in the order they were given. Of one number twice the
/// later counts.
pub async fn hand_in(
    tx: &mut Tx,
    batch: Batch<'_>,
    members: Vec<OurMember>,
) -> Result<Vec<HandedIn>, StoreError> {
    let mut told = vec![HandedIn::Refused(String::new()); members.len()];
    let mut sorted: Vec<(usize, OurMember)> = members.into_iter().enumerate().collect();
    // Stable, and in the order in which every batch takes its rows.
    sorted.sort_by(|(_, a), (_, b)| a.member.member_id.cmp(&b.member.member_id));
    for (at, one) in sorted {
        let amounts = (one.member.points, one.member.balance);
        let row = match MemberSync::prepare(&batch, one.member, MemberOrigin::Ours) {
            Ok(row) => row,
            Err(refused) => {
                told[at] = HandedIn::Refused(refused.reason);
                continue;
            }
        };
        let (row, change) = write_prepared(tx, one.rule, row, amounts, one.to_push).await?;
        told[at] = HandedIn::Stored { id: row.id, change };
    }
    Ok(told)
}

/// The row that is there, until the transaction's end.
async fn lock(tx: &mut Tx, row: &MemberSync) -> Result<MemberSync, StoreError> {
    let statement = match tx {
        Tx::Postgres(_) => THERE_LOCKING,
        // There is one writer.
        Tx::Sqlite(_) => THERE,
    };
    Ok(on_tx!(tx, |ex| sqlx::query_as(statement)
        .bind(row.system_id)
        .bind(&row.member_id)
        .fetch_one(ex)
        .await)?)
}

/// What was told, and of the rest what is there.
fn merge(told: MemberSync, there: &MemberSync) -> MemberSync {
    let or = |told: Option<String>, there: &Option<String>| told.or_else(|| there.clone());
    let mut row = MemberSync {
        id: there.id,
        store_id: or(told.store_id, &there.store_id),
        external_member_id: or(told.external_member_id, &there.external_member_id),
        phone: or(told.phone, &there.phone),
        name: or(told.name, &there.name),
        email: or(told.email, &there.email),
        level: or(told.level, &there.level),
        last_activity: told.last_activity.or(there.last_activity),
        created_at: there.created_at,
        pushed_at: there.pushed_at,
        ..told
    };
    row.content_hash = row.hash_content();
    row
}

async fn save(tx: &mut Tx, row: &MemberSync) -> Result<(), StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::query(SAVE)
        .bind(row.id)
        .bind(&row.store_id)
        .bind(&row.external_member_id)
        .bind(&row.phone)
        .bind(&row.name)
        .bind(&row.email)
        .bind(&row.level)
        .bind(row.points)
        .bind(row.balance)
        .bind(row.currency)
        .bind(row.sync_status)
        .bind(row.version_at)
        .bind(row.observed_at)
        .bind(&row.content_hash)
        .bind(row.sync_log_id)
        .bind(&row.raw)
        .bind(row.updated_at)
        .bind(row.deleted_at)
        .bind(row.origin)
        .bind(&row.push_error)
        .bind(row.last_activity)
        .execute(ex)
        .await
        .map(drop))?)
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
