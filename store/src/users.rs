//! The table `users`: people who sign in. Names are kept in lower case, so that `Admin` and `admin`
//! are one person.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::clock::Clock;
use crate::error::StoreError;
use crate::ids::{SessionId, UserId};
use crate::pool::{Store, Tx};
use crate::sessions;
use crate::text_enum::Role;
use crate::{on_read, on_tx};

mod change;
mod list;

pub use change::{Changed, Standing, change};
pub use list::{Filter, list_newest};

/// The most characters of a name.
pub const USERNAME_CHARS_MAX: usize = 64;

/// The most users that one list holds: a page of 500, and the one more that tells whether there is a
/// next page.
pub const PAGE_MAX: u32 = 501;

pub(crate) const INSERT: &str = "
    INSERT INTO users (id, username, password_hash, role, store_id, active, password_changed_at, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, TRUE, $6, $6, $6)
    ON CONFLICT (username) DO NOTHING
    RETURNING *";
pub(crate) const FIND: &str = "SELECT * FROM users WHERE id = $1";
pub(crate) const FIND_BY_USERNAME: &str = "SELECT * FROM users WHERE username = $1";
pub(crate) const LIST: &str = "SELECT * FROM users WHERE username > $1 ORDER BY username LIMIT $2";
pub(crate) const COUNT: &str = "SELECT COUNT(*) FROM users";
pub(crate) const SET_PASSWORD: &str =
    "UPDATE users SET password_hash = $2, password_changed_at = $3, updated_at = $3 WHERE id = $1";
pub(crate) const CHANGE_PASSWORD: &str = "
    UPDATE users SET password_hash = $3, password_changed_at = $4, updated_at = $4
    WHERE id = $1 AND password_hash = $2 AND active";
pub(crate) const ADMIT: &str = "
    UPDATE users SET last_login_at = $3 WHERE id = $1 AND password_hash = $2 AND active RETURNING *";

/// Every fixed statement of this table, by name.
#[cfg(feature = "testing")]
pub(crate) const STATEMENTS: &[(&str, &str)] = &[
    ("users::INSERT", INSERT),
    ("users::FIND", FIND),
    ("users::FIND_BY_USERNAME", FIND_BY_USERNAME),
    ("users::LIST", LIST),
    ("users::COUNT", COUNT),
    ("users::SET_PASSWORD", SET_PASSWORD),
    ("users::CHANGE_PASSWORD", CHANGE_PASSWORD),
    ("users::ADMIT", ADMIT),
    ("users::CHANGE", change::CHANGE),
];

/// A row of `users`.
#[derive(Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// What the person signs in with, in lower case.
    pub username: String,
    /// Argon2id; see [`crate::passwords`].
    pub password_hash: String,
    /// What the person may do.
    pub role: Role,
    /// The only store the person sees; `None` sees the whole chain.
    pub store_id: Option<String>,
    /// Whether the person may sign in.
    pub active: bool,
    /// When the password was set.
    pub password_changed_at: DateTime<Utc>,
    /// When the person signed in last.
    pub last_login_at: Option<DateTime<Utc>>,
    /// When the row was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
}

/// Without the hash: it belongs in no log.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("username", &self.username)
            .field("role", &self.role)
            .field("store_id", &self.store_id)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

/// What a new user is made of.
#[derive(Clone, Copy)]
pub struct NewUser<'a> {
    /// Any case; kept in lower case.
    pub username: &'a str,
    /// Of [`crate::passwords::hash`].
    pub password_hash: &'a str,
    /// What the person may do.
    pub role: Role,
    /// The only store the person may see.
    pub store_id: Option<&'a str>,
}

/// A name as it is stored: without blanks around it, in lower case.
#[must_use]
pub fn canonical_username(username: &str) -> String {
    username.trim().to_lowercase()
}

/// A new user's name in the form in which it is stored, or what is wrong with it.
///
/// Letters of any script, digits and `.-_@+`, and a letter or digit first: a name with blanks or a colon might
/// be taken in the audit for something that is no person.
pub fn check_username(username: &str) -> Result<String, String> {
    let name = canonical_username(username);
    let chars = name.chars().count();
    if !name.starts_with(char::is_alphanumeric) {
        return Err("does not begin with a letter or a digit".to_owned());
    }
    if chars > USERNAME_CHARS_MAX {
        return Err(format!("has {chars} characters; expected at most {USERNAME_CHARS_MAX}"));
    }
    if !name.chars().all(|c| c.is_alphanumeric() || ".-_@+".contains(c)) {
        return Err("holds something else than letters, digits and `.-_@+`".to_owned());
    }
    Ok(name)
}

/// Adds a user; a name that is taken is a conflict.
pub async fn insert(tx: &mut Tx, clock: &Clock, new: NewUser<'_>) -> Result<User, StoreError> {
    let username = canonical_username(new.username);
    let inserted: Option<User> = on_tx!(tx, |ex| sqlx::query_as(INSERT)
        .bind(clock.new_id())
        .bind(username.as_str())
        .bind(new.password_hash)
        .bind(new.role)
        .bind(new.store_id)
        .bind(clock.now())
        .fetch_optional(ex)
        .await)?;
    inserted
        .ok_or_else(|| StoreError::Conflict(format!("the user name `{username}` is taken; choose another")))
}

/// The user of this name, in any case.
pub async fn find_by_username(store: &Store, username: &str) -> Result<Option<User>, StoreError> {
    let username = canonical_username(username);
    Ok(on_read!(store, |ex| sqlx::query_as(FIND_BY_USERNAME).bind(username).fetch_optional(ex).await)?)
}

/// The user of this id, active or not.
pub async fn find(store: &Store, id: UserId) -> Result<Option<User>, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_as(FIND).bind(id).fetch_optional(ex).await)?)
}

/// The user of this id.
pub async fn get(store: &Store, id: UserId) -> Result<User, StoreError> {
    find(store, id).await?.ok_or_else(|| not_found(id))
}

/// Users by name, those after `after`, at most [`PAGE_MAX`].
pub async fn list(store: &Store, after: Option<&str>, limit: u32) -> Result<Vec<User>, StoreError> {
    let after = after.unwrap_or_default();
    let limit = i64::from(limit.min(PAGE_MAX));
    Ok(on_read!(store, |ex| sqlx::query_as(LIST).bind(after).bind(limit).fetch_all(ex).await)?)
}

/// How many users there are.
pub async fn count(store: &Store) -> Result<i64, StoreError> {
    Ok(on_read!(store, |ex| sqlx::query_scalar(COUNT).fetch_one(ex).await)?)
}

/// How many users there are, as a transaction sees it.
pub async fn count_within(tx: &mut Tx) -> Result<i64, StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::query_scalar(COUNT).fetch_one(ex).await)?)
}

/// Sets a password and ends every session that was opened with the old one; says how many.
pub async fn set_password(
    tx: &mut Tx,
    clock: &Clock,
    id: UserId,
    password_hash: &str,
) -> Result<u64, StoreError> {
    let changed = on_tx!(tx, |ex| sqlx::query(SET_PASSWORD)
        .bind(id)
        .bind(password_hash)
        .bind(clock.now())
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    if changed == 0 {
        return Err(not_found(id));
    }
    sessions::end_all_of_user(tx, clock, id).await
}

/// Sets a user's own new password, if it is still the one that was verified, and ends every session but the one
/// in which that happens; says how many, or `None` where the password was changed meanwhile.
pub async fn change_password(
    tx: &mut Tx,
    clock: &Clock,
    verified: &User,
    password_hash: &str,
    kept: SessionId,
) -> Result<Option<u64>, StoreError> {
    let changed = on_tx!(tx, |ex| sqlx::query(CHANGE_PASSWORD)
        .bind(verified.id)
        .bind(verified.password_hash.as_str())
        .bind(password_hash)
        .bind(clock.now())
        .execute(ex)
        .await
        .map(|done| done.rows_affected()))?;
    if changed == 0 {
        return Ok(None);
    }
    sessions::end_others_of_user(tx, clock, verified.id, kept).await.map(Some)
}

/// Notes that a person signs in, if the password that was verified still is the password and the person may
/// come in; `None` otherwise.
///
/// It holds the row: whoever changes the password at the same time ends the session that is opened after this.
pub async fn admit(tx: &mut Tx, clock: &Clock, verified: &User) -> Result<Option<User>, StoreError> {
    Ok(on_tx!(tx, |ex| sqlx::query_as(ADMIT)
        .bind(verified.id)
        .bind(verified.password_hash.as_str())
        .bind(clock.now())
        .fetch_optional(ex)
        .await)?)
}

fn not_found(id: UserId) -> StoreError {
    StoreError::NotFound(format!("user `{id}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_word_of_any_script() {
        for good in ["wang", " Xiao.Wang ", "王小明", "mei@store-17", "7"] {
            assert_eq!(check_username(good), Ok(canonical_username(good)));
        }
        for wrong in ["", " ", "token:till", "command line", ".x", "a\0b", "a\nb", "<b>", &"x".repeat(65)] {
            assert!(check_username(wrong).is_err(), "{wrong}");
        }
    }
}
