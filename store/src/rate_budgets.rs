//! `rate_budgets`: how fast a vendor may be asked, shared by every process of the installation.
//!
//! A budget is one number per key, the time at which it is whole again (the generic cell rate
//! algorithm): a request is granted when that time is no further ahead than the burst allows, and moves
//! it on by one interval. One statement decides and books, so two workers cannot spend the same request.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::clock::Clock;
use crate::error::StoreError;
use crate::pool::{Store, Tx};
use crate::{on_read, on_tx, on_write};

/// How many budgets that are whole again one purge removes at most.
const PURGE_ROWS_MAX: i64 = 1_000;

/// What may be spent.
#[derive(Debug, Clone, Copy)]
pub struct Budget<'a> {
    /// Vendor, credential and class of endpoint; holds no secret.
    pub key: &'a str,
    /// So many requests …
    pub requests: u32,
    /// … in so many milliseconds.
    pub per_ms: i64,
    /// So many may come at once; at least one.
    pub burst: u32,
}

impl Budget<'_> {
    /// How long one request spends.
    fn interval_ms(&self) -> i64 {
        (self.per_ms / i64::from(self.requests.max(1))).max(1)
    }

    /// How far ahead the budget may be spent when a request is granted.
    fn ahead_ms(&self) -> i64 {
        self.interval_ms() * i64::from(self.burst.max(1) - 1)
    }
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// Go.
    Granted,
    /// Not before so long.
    Wait(Duration),
}

const TAKE: &str = "INSERT INTO rate_budgets (key, next_free_ms, updated_at) VALUES ($1, CAST($2 AS BIGINT) + $3, $5) \
    ON CONFLICT (key) DO UPDATE SET \
    next_free_ms = CASE WHEN rate_budgets.next_free_ms < $2 THEN $2 ELSE rate_budgets.next_free_ms END + $3, \
    updated_at = $5 WHERE rate_budgets.next_free_ms <= $2 + $4 RETURNING next_free_ms";
const READ: &str = "SELECT next_free_ms FROM rate_budgets WHERE key = $1";

/// Spends one request, or says how long to wait.
pub async fn take(store: &Store, budget: &Budget<'_>) -> Result<Grant, StoreError> {
    let now = store.clock().now();
    let now_ms = now.timestamp_millis();
    let (interval_ms, ahead_ms) = (budget.interval_ms(), budget.ahead_ms());
    let taken: Option<i64> = on_write!(store, |ex| sqlx::query_scalar(TAKE)
        .bind(budget.key.to_owned())
        .bind(now_ms)
        .bind(interval_ms)
        .bind(ahead_ms)
        .bind(now)
        .fetch_optional(ex)
        .await)?;
    if taken.is_some() {
        return Ok(Grant::Granted);
    }
    let next_free_ms: Option<i64> =
        on_read!(store, |ex| sqlx::query_scalar(READ).bind(budget.key.to_owned()).fetch_optional(ex).await)?;
    let wait_ms = next_free_ms.map_or(interval_ms, |free| free - ahead_ms - now_ms).clamp(1, i64::MAX);
    Ok(Grant::Wait(Duration::from_millis(wait_ms.unsigned_abs())))
}

/// Spends one request of each budget, or nothing at all; then it says after how long every one of them will
/// grant again, if nobody else spends meanwhile.
pub async fn take_all(store: &Store, budgets: &[Budget<'_>]) -> Result<Grant, StoreError> {
    let now = store.clock().now();
    let now_ms = now.timestamp_millis();
    let mut wait_ms = None;
    let mut tx = store.begin().await?;
    for budget in by_key(budgets) {
        let (interval_ms, ahead_ms) = (budget.interval_ms(), budget.ahead_ms());
        let taken: Option<i64> = on_tx!(&mut tx, |ex| sqlx::query_scalar(TAKE)
            .bind(budget.key.to_owned())
            .bind(now_ms)
            .bind(interval_ms)
            .bind(ahead_ms)
            .bind(now)
            .fetch_optional(ex)
            .await)?;
        if taken.is_none() {
            let free: Option<i64> = on_tx!(&mut tx, |ex| sqlx::query_scalar(READ)
                .bind(budget.key.to_owned())
                .fetch_optional(ex)
                .await)?;
            let wait = free.map_or(interval_ms, |free| free - ahead_ms - now_ms).max(1);
            wait_ms = wait_ms.max(Some(wait));
        }
    }
    if let Some(wait_ms) = wait_ms {
        // The transaction is rolled back, so what was granted beside is not spent.
        return Ok(Grant::Wait(Duration::from_millis(wait_ms.unsigned_abs())));
    }
    tx.commit().await?;
    Ok(Grant::Granted)
}

/// In one order everywhere: whoever takes the same budgets at the same time does not wait in a circle.
fn by_key<'a, 'b>(budgets: &'a [Budget<'b>]) -> Vec<&'a Budget<'b>> {
    let mut budgets: Vec<_> = budgets.iter().collect();
    budgets.sort_unstable_by_key(|budget| budget.key);
    budgets
}

const GIVE_BACK: &str = "UPDATE rate_budgets SET next_free_ms = next_free_ms - CAST($2 AS BIGINT), updated_at = $3 WHERE key = $1";

/// Gives back what [`take_all`] spent.
pub async fn give_back(tx: &mut Tx, clock: &Clock, budgets: &[Budget<'_>]) -> Result<(), StoreError> {
    for budget in by_key(budgets) {
        on_tx!(tx, |ex| sqlx::query(GIVE_BACK)
            .bind(budget.key.to_owned())
            .bind(budget.interval_ms())
            .bind(clock.now())
            .execute(ex)
            .await
            .map(drop))?;
    }
    Ok(())
}

const PURGE: &str = "DELETE FROM rate_budgets WHERE next_free_ms < $1 AND key IN \
    (SELECT key FROM rate_budgets WHERE next_free_ms < $1 ORDER BY key LIMIT $2)";

/// Removes budgets that have long been whole again, a bounded number at a time; says how many. Without its row a
/// budget is whole too, so nobody is granted more.
pub async fn purge(store: &Store, before: DateTime<Utc>) -> Result<u64, StoreError> {
    let before_ms = before.min(store.clock().now()).timestamp_millis();
    Ok(on_write!(store, |ex| sqlx::query(PURGE)
        .bind(before_ms)
        .bind(PURGE_ROWS_MAX)
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?)
}

const BLOCK: &str = "INSERT INTO rate_budgets (key, next_free_ms, updated_at) VALUES ($1, $2, $3) \
    ON CONFLICT (key) DO UPDATE SET next_free_ms = $2, updated_at = $3 WHERE rate_budgets.next_free_ms < $2";

/// Spends the whole budget until a time: the vendor has said 429, and every worker must hear it.
pub async fn block(store: &Store, budget: &Budget<'_>, wait: Duration) -> Result<(), StoreError> {
    let now = store.clock().now();
    let ahead_ms = budget.ahead_ms();
    let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 2);
    let until_ms = now.timestamp_millis() + wait_ms + ahead_ms;
    on_write!(store, |ex| sqlx::query(BLOCK)
        .bind(budget.key.to_owned())
        .bind(until_ms)
        .bind(now)
        .execute(ex)
        .await
        .map(drop))?;
    Ok(())
}

#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("rate_budgets::TAKE", TAKE),
    ("rate_budgets::READ", READ),
    ("rate_budgets::GIVE_BACK", GIVE_BACK),
    ("rate_budgets::PURGE", PURGE),
    ("rate_budgets::BLOCK", BLOCK),
];
