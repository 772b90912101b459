//! What a user may do, and where: changed only from what was read, and never so that nobody is left who may
//! change it back.

use super::{FIND, User, not_found};
use crate::clock::Clock;
use crate::error::StoreError;
use crate::on_tx;
use crate::pool::Tx;
use crate::sessions;
use crate::text_enum::Role;

/// Names what is changed and what was read, and asks for another admin where one is needed.
pub(crate) const CHANGE: &str = "
    UPDATE users SET role = $2, store_id = $3, active = $4, updated_at = $5
    WHERE id = $1 AND role = $6 AND store_id IS NOT DISTINCT FROM $7 AND active = $8
      AND ($9 OR EXISTS (
        SELECT 1 FROM users AS others
        WHERE others.id <> $1 AND others.role = 'admin' AND others.store_id IS NULL AND others.active))
    RETURNING *";

/// Only for PostgreSQL, where transactions run side by side.
const HOLD_ADMINS: &str = "
    SELECT id FROM users WHERE role = 'admin' AND store_id IS NULL AND active ORDER BY id FOR NO KEY UPDATE";

/// What somebody may do, where, and whether at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What the person may do.
    pub role: Role,
    /// The only store the person sees; `None` sees the whole chain.
    pub store_id: Option<String>,
    /// Whether the person may sign in.
    pub active: bool,
}

impl Standing {
    /// What a user has.
    #[must_use]
    pub fn of(user: &User) -> Self {
        Self { role: user.role, store_id: user.store_id.clone(), active: user.active }
    }

    /// Whether whoever has it can make everybody else what they are to be.
    fn rules_all(&self) -> bool {
        self.role == Role::Admin && self.store_id.is_none() && self.active
    }
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// It is made, and so many sessions have ended.
    Done(Box<User>, u64),
    /// Nobody would be left who sees the whole chain and may do everything.
    LastAdmin,
    /// Somebody else changed the user since it was read.
    Meanwhile,
}

/// Changes what a user may do, if it is still what was read, and ends the user's sessions.
pub async fn change(
    tx: &mut Tx,
    clock: &Clock,
    read: &User,
    wanted: &Standing,
) -> Result<Changed, StoreError> {
    let before = Standing::of(read);
    let keeps_the_rule = !before.rules_all() || wanted.rules_all();
    if !keeps_the_rule {
        hold_admins(tx).await?;
    }
    let changed: Option<User> = on_tx!(tx, |ex| sqlx::query_as(CHANGE)
        .bind(read.id)
        .bind(wanted.role)
        .bind(wanted.store_id.as_deref())
        .bind(wanted.active)
        .bind(clock.now())
        .bind(before.role)
        .bind(before.store_id.as_deref())
        .bind(before.active)
        .bind(keeps_the_rule)
        .fetch_optional(ex)
        .await)?;
    if let Some(user) = changed {
        let ended = sessions::end_all_of_user(tx, clock, read.id).await?;
        return Ok(Changed::Done(Box::new(user), ended));
    }
    let now: Option<User> = on_tx!(tx, |ex| sqlx::query_as(FIND).bind(read.id).fetch_optional(ex).await)?;
    let now = now.ok_or_else(|| not_found(read.id))?;
    Ok(if Standing::of(&now) == before { Changed::LastAdmin } else { Changed::Meanwhile })
}

/// Makes two changes that each leave one admin wait for each other, so that the second sees the first.
async fn hold_admins(tx: &mut Tx) -> Result<(), StoreError> {
    match tx {
        Tx::Postgres(transaction) => {
            sqlx::query(HOLD_ADMINS).execute(&mut **transaction).await?;
        }
        // There is one writer, and it is this transaction.
        Tx::Sqlite(_) => {}
    }
    Ok(())
}
