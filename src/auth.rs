//! Signing in: passwords checked slowly and a few at a time, sessions opened with a random token, and
//! the first admin.
//!
//! The answer to an unknown user, an inactive one and a wrong password is the same and takes the same
//! time. Of a token only its SHA-256 is stored.
//!
//! Attempts are limited before a password is looked at, by budgets in the database that all processes share:
//! those of an address, those of an address on an account, and those of everybody on an account. The last is ten
//! times the second, and does not count where the person has signed in from this address before, so that
//! strangers cannot lock somebody out. What succeeds is given back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zhilian_sync_jobs::inbox::whole_address;
use zhilian_sync_store::audit_logs::{self, NewAuditLog};
use zhilian_sync_store::passwords::{self, PasswordError};
use zhilian_sync_store::rate_budgets::{self, Budget, Grant};
use zhilian_sync_store::sessions::{self, NewSession};
use zhilian_sync_store::users::{self, NewUser, User};
use zhilian_sync_store::{Role, Store, StoreError, Tx, installation};

use crate::config::AuthSettings;

pub use zhilian_sync_store::passwords::PASSWORD_CHARS_MIN;

/// Each check takes 19 MiB and a core for some 20 ms.
const CHECKS_AT_A_TIME: usize = 2;
/// Sign-ins that may wait for their check; with both cores busy the last waits about a second.
const CHECKS_WAITING_MAX: usize = 64;
/// So many times more attempts at an account are allowed to everybody together than from one address.
const ACCOUNT_TO_PAIR: u32 = 10;
/// How much of a client's description is kept.
const USER_AGENT_CHARS_MAX: usize = 200;

/// Lets a few password checks run and some wait.
#[derive(Debug, Clone)]
pub struct Gate {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            running: Arc::new(Semaphore::new(CHECKS_AT_A_TIME)),
            waiting: Arc::new(Semaphore::new(CHECKS_AT_A_TIME + CHECKS_WAITING_MAX)),
        }
    }
}

impl Gate {
    /// A place among those that run or wait, for as long as it is held.
    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.waiting.clone().try_acquire_owned().map_err(|_| Refusal::TooMany)
    }

    /// One of the few turns.
    async fn turn(&self) -> OwnedSemaphorePermit {
        self.running.clone().acquire_owned().await.expect("the semaphore is never closed")
    }
}

/// Why a sign-in was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such user, an inactive one, or another password: nobody is told which.
    #[error("the user name or the password is wrong")]
    WrongCredentials,
    /// More people sign in than passwords can be checked.
    #[error("too many passwords are being checked at the moment; try again in a few seconds")]
    TooMany,
    /// Too many attempts at this account or from this address; how long until the next one counts.
    #[error("too many attempts to sign in; try again later")]
    TooOften(Duration),
    /// A password could not be hashed, which is logged.
    #[error("the password could not be hashed")]
    NotHashed,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who asks to sign in, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// What the person typed.
    pub username: &'a str,
    /// The password.
    pub password: &'a SecretString,
    /// The client's address.
    pub address: Option<&'a str>,
    /// The client's program.
    pub user_agent: Option<&'a str>,
    /// The request.
    pub request_id: &'a str,
    /// How long the session lasts, and how often it may be tried.
    pub settings: &'a AuthSettings,
}

/// An open session.
#[derive(Debug)]
pub struct SignedIn {
    /// Who.
    pub user: User,
    /// The token; it is not stored, so this is the only time it is seen.
    pub token: SecretString,
    /// When the session ends by itself.
    pub expires_at: DateTime<Utc>,
}

/// Checks a password and opens a session.
pub async fn sign_in(store: &Store, gate: &Gate, attempt: Attempt<'_>) -> Result<SignedIn, Refusal> {
    let _place = gate.place()?;
    let limits = Limits::new(store, attempt.settings, attempt.username, attempt.address)?;
    limits.take(store).await?;
    let found = users::find_by_username(store, attempt.username).await?;
    let hash = found.as_ref().filter(|user| user.active).map(|user| user.password_hash.clone());
    let right = verify(gate, attempt.password.clone(), hash).await;
    let (Some(user), true) = (found, right) else {
        refuse(store, attempt).await?;
        return Err(Refusal::WrongCredentials);
    };
    let (token, token_hash) = passwords::new_token();
    let expires_at = store.clock().now() + TimeDelta::hours(attempt.settings.session_hours.into());
    let user_agent: Option<String> =
        attempt.user_agent.map(|text| text.chars().take(USER_AGENT_CHARS_MAX).collect());
    let mut tx = store.begin().await?;
    // Again within the transaction: the password may have been changed while it was checked.
    let Some(user) = users::admit(&mut tx, store.clock(), &user).await? else {
        drop(tx);
        refuse(store, attempt).await?;
        return Err(Refusal::WrongCredentials);
    };
    limits.give_back(&mut tx, store).await?;
    let new = NewSession {
        user_id: user.id,
        token_hash,
        address: attempt.address,
        user_agent: user_agent.as_deref(),
        expires_at,
    };
    sessions::insert(&mut tx, store.clock(), new).await?;
    let id = user.id.to_string();
    let entry = NewAuditLog {
        actor_id: Some(user.id),
        actor_name: Some(&user.username),
        address: attempt.address,
        action: "session.sign_in",
        entity: "user",
        entity_id: Some(&id),
        store_id: user.store_id.as_deref(),
        request_id: Some(attempt.request_id),
        detail: None,
    };
    audit_logs::insert(&mut tx, store.clock(), entry).await?;
    tx.commit().await?;
    Ok(SignedIn { user, token, expires_at })
}

/// Whether it is a user's password: asked within the same limits as a sign-in.
pub async fn check(
    store: &Store,
    gate: &Gate,
    settings: &AuthSettings,
    address: Option<&str>,
    user: &User,
    password: &SecretString,
) -> Result<bool, Refusal> {
    let _place = gate.place()?;
    let limits = Limits::new(store, settings, &user.username, address)?;
    limits.take(store).await?;
    let is_right = verify(gate, password.clone(), Some(user.password_hash.clone())).await;
    if is_right {
        let mut tx = store.begin().await?;
        limits.give_back(&mut tx, store).await?;
        tx.commit().await?;
    }
    Ok(is_right)
}

/// The budgets that an attempt spends.
struct Limits {
    username: String,
    address: Option<String>,
    per_account: u32,
    per_address: u32,
    window_ms: i64,
    /// Their keys: of the address, of the address on the account, of the account. Names and addresses are hashed:
    /// people type passwords into the field of the name.
    keys: [String; 3],
}

impl Limits {
    fn new(
        store: &Store,
        settings: &AuthSettings,
        username: &str,
        address: Option<&str>,
    ) -> Result<Self, Refusal> {
        let username = users::canonical_username(username);
        let from = address.map_or_else(|| "nowhere".to_owned(), sender);
        let key = |place: &str, text: &str| {
            let hash = store.vault().fingerprint(text, place).map_err(StoreError::from)?;
            Ok::<_, StoreError>(format!("sign_in/{place}/{hash}"))
        };
        let keys =
            [key("address", &from)?, key("pair", &format!("{from} {username}"))?, key("account", &username)?];
        Ok(Self {
            username,
            address: address.map(str::to_owned),
            per_account: settings.sign_ins_per_account,
            per_address: settings.sign_ins_per_address,
            window_ms: i64::from(settings.sign_in_window_secs) * 1000,
            keys,
        })
    }

    fn budgets(&self) -> [Budget<'_>; 3] {
        let everybody = self.per_account.saturating_mul(ACCOUNT_TO_PAIR);
        let [address, pair, account] = &self.keys;
        [(address, self.per_address), (pair, self.per_account), (account, everybody)]
            .map(|(key, requests)| Budget { key, requests, per_ms: self.window_ms, burst: requests })
    }

    async fn take(&self, store: &Store) -> Result<(), Refusal> {
        let is_known = match &self.address {
            Some(address) => sessions::is_known_from(store, &self.username, address).await?,
            None => false,
        };
        let budgets = self.budgets();
        let counted = if is_known { &budgets[..2] } else { &budgets[..] };
        match rate_budgets::take_all(store, counted).await? {
            Grant::Granted => Ok(()),
            Grant::Wait(wait) => Err(Refusal::TooOften(wait)),
        }
    }

    async fn give_back(&self, tx: &mut Tx, store: &Store) -> Result<(), StoreError> {
        // The account's budget is left: whether it was spent is not known any more, and it is a large one.
        rate_budgets::give_back(tx, store.clock(), &self.budgets()[..2]).await
    }
}

/// The address as one sender has it: of an IPv6 address its network.
fn sender(address: &str) -> String {
    address.parse().map_or_else(|_| address.to_owned(), |address| whole_address(address).to_string())
}

/// The hash of a new password, made where blocking is allowed.
pub async fn hash(password: SecretString) -> anyhow::Result<String> {
    let hashed: Result<String, PasswordError> =
        tokio::task::spawn_blocking(move || passwords::hash(&password))
            .await
            .context("hashing a password")?;
    Ok(hashed?)
}

/// The same for an answer: a few at a time, as passwords are checked.
pub async fn hash_new(gate: &Gate, password: SecretString) -> Result<String, Refusal> {
    let _place = gate.place()?;
    let _running = gate.turn().await;
    hash(password).await.map_err(|error| {
        tracing::error!(error = format!("{error:#}"), "a password could not be hashed");
        Refusal::NotHashed
    })
}

/// Makes `admin` where there are no users yet; one of several processes wins. The generated password,
/// if it was not given, to be shown once.
pub async fn ensure_first_admin(
    store: &Store,
    settings: &AuthSettings,
) -> anyhow::Result<Option<SecretString>> {
    if users::count(store).await? > 0 {
        return Ok(None);
    }
    let given = !settings.admin_password.is_empty();
    let password = if given {
        SecretString::from(settings.admin_password.expose())
    } else {
        // A quarter of a token is 64 bits, short enough to be typed once.
        let (token, _) = passwords::new_token();
        SecretString::from(&token.expose_secret()[..20])
    };
    let hash = hash(password.clone()).await?;
    let mut tx = store.begin().await?;
    if users::count_within(&mut tx).await? > 0
        || !installation::claim_first_admin(&mut tx, store.clock().now()).await?
    {
        return Ok(None);
    }
    let new = NewUser { username: "admin", password_hash: &hash, role: Role::Admin, store_id: None };
    let user = users::insert(&mut tx, store.clock(), new).await?;
    let id = user.id.to_string();
    let entry = NewAuditLog {
        actor_name: Some("first start"),
        action: "user.create",
        entity: "user",
        entity_id: Some(&id),
        ..NewAuditLog::default()
    };
    audit_logs::insert(&mut tx, store.clock(), entry).await?;
    tx.commit().await?;
    tracing::info!(user.name = "admin", "made the first user");
    Ok((!given).then_some(password))
}

/// Whether it is the password of this hash; without a hash it takes as long and says no.
async fn verify(gate: &Gate, password: SecretString, hash: Option<String>) -> bool {
    let _running = gate.turn().await;
    let verified = tokio::task::spawn_blocking(move || match hash {
        Some(hash) => passwords::verify(&password, &hash),
        None => passwords::verify_nobody(&password),
    });
    verified.await.unwrap_or(false)
}

async fn refuse(store: &Store, attempt: Attempt<'_>) -> Result<(), StoreError> {
    // The name is not kept: people type passwords into that field.
    tracing::info!(request.address = attempt.address, "sign-in refused");
    let entry = NewAuditLog {
        address: attempt.address,
        action: "session.refused",
        entity: "user",
        request_id: Some(attempt.request_id),
        ..NewAuditLog::default()
    };
    audit_logs::insert_alone(store, entry).await
}
