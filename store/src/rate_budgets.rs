//! `rate_budgets`: how fast a vendor may be asked, shared by every process of the installation.
//!
//! A budget is one number per key, the time at which it is whole again (the generic cell rate
//! algorithm): a request is granted when that time is no further ahead than the burst allows, and moves
//! it on by one interval. One statement decides and books, so two workers cannot spend the same request.

use std::time::Duration;

use crate::error::StoreError;
use crate::pool::Store;
use crate::{on_read, on_write};

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
    let interval_ms = (budget.per_ms / i64::from(budget.requests.max(1))).max(1);
    let ahead_ms = interval_ms * i64::from(budget.burst.max(1) - 1);
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

const BLOCK: &str = "INSERT INTO rate_budgets (key, next_free_ms, updated_at) VALUES ($1, $2, $3) \
    ON CONFLICT (key) DO UPDATE SET next_free_ms = $2, updated_at = $3 WHERE rate_budgets.next_free_ms < $2";

/// Spends the whole budget until a time: the vendor has said 429, and every worker must hear it.
pub async fn block(store: &Store, budget: &Budget<'_>, wait: Duration) -> Result<(), StoreError> {
    let now = store.clock().now();
    let interval_ms = (budget.per_ms / i64::from(budget.requests.max(1))).max(1);
    let ahead_ms = interval_ms * i64::from(budget.burst.max(1) - 1);
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
pub(crate) const STATEMENTS: &[(&str, &str)] =
    &[("rate_budgets::TAKE", TAKE), ("rate_budgets::READ", READ), ("rate_budgets::BLOCK", BLOCK)];
