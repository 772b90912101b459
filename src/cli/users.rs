//! `users add|passwd|list`: people are made here until there is a page for it.

#![expect(clippy::print_stdout, reason = "a command line prints")]

use std::io::{BufRead as _, IsTerminal as _};

use anyhow::Context as _;
use clap::Subcommand;
use secrecy::SecretString;
use zhilian_sync_store::audit_logs::{self, NewAuditLog};
use zhilian_sync_store::users::{self, NewUser};
use zhilian_sync_store::{Clock, Role, Store};

use crate::app::store::{self, Sharing};
use crate::auth;
use crate::config::Settings;

/// How many users a page of the list holds.
const PAGE: u32 = 200;

#[derive(Debug, Subcommand)]
pub(super) enum UsersCommand {
    /// Add a user; the password is read from standard input
    Add {
        /// What the user signs in with
        username: String,
        #[arg(long, help = "admin, store_manager, warehouse_manager, customer_manager or staff")]
        role: Role,
        /// The only store the user may see; the whole chain where absent
        #[arg(long, value_name = "STORE_ID")]
        store: Option<String>,
    },
    /// Set a user's password, read from standard input, and end the user's sessions
    Passwd {
        /// What the user signs in with
        username: String,
    },
    /// List all users
    List,
}

pub(super) async fn run(command: UsersCommand, settings: &Settings) -> anyhow::Result<()> {
    // The service may be running: people are added while it does.
    let opened = store::open(settings, Clock::system(), Sharing::Beside).await?;
    let store = &opened.store;
    match command {
        UsersCommand::Add { username, role, store: store_id } => add(store, &username, role, store_id).await,
        UsersCommand::Passwd { username } => set_password(store, &username).await,
        UsersCommand::List => list(store).await,
    }
}

async fn add(store: &Store, username: &str, role: Role, store_id: Option<String>) -> anyhow::Result<()> {
    let username = &users::check_username(username)
        .map_err(|detail| anyhow::anyhow!("the user name `{username}` {detail}"))?;
    let hash = auth::hash(read_password()?).await?;
    let mut tx = store.begin().await?;
    let new = NewUser { username, password_hash: &hash, role, store_id: store_id.as_deref() };
    let user = users::insert(&mut tx, store.clock(), new).await?;
    let id = user.id.to_string();
    audit_logs::insert(&mut tx, store.clock(), entry("user.create", &id, store_id.as_deref())).await?;
    tx.commit().await?;
    println!("added `{}` as {role}", user.username);
    Ok(())
}

async fn set_password(store: &Store, username: &str) -> anyhow::Result<()> {
    let user = users::find_by_username(store, username)
        .await?
        .with_context(|| format!("no user `{username}`; see `zhilian-sync users list`"))?;
    let hash = auth::hash(read_password()?).await?;
    let mut tx = store.begin().await?;
    let ended = users::set_password(&mut tx, store.clock(), user.id, &hash).await?;
    let id = user.id.to_string();
    audit_logs::insert(&mut tx, store.clock(), entry("user.password", &id, user.store_id.as_deref())).await?;
    tx.commit().await?;
    println!("the password of `{}` is set; {ended} sessions ended", user.username);
    Ok(())
}

async fn list(store: &Store) -> anyhow::Result<()> {
    let mut after: Option<String> = None;
    loop {
        let page = users::list(store, after.as_deref(), PAGE).await?;
        for user in &page {
            let scope = user.store_id.as_deref().unwrap_or("all stores");
            let state = if user.active { "" } else { "  (inactive)" };
            println!("{:<24} {:<18} {scope}{state}", user.username, user.role.as_str());
        }
        match page.last() {
            Some(last) if page.len() == PAGE as usize => after = Some(last.username.clone()),
            _ => return Ok(()),
        }
    }
}

const fn entry<'a>(action: &'a str, user: &'a str, store_id: Option<&'a str>) -> NewAuditLog<'a> {
    NewAuditLog {
        actor_id: None,
        actor_name: Some("command line"),
        address: None,
        action,
        entity: "user",
        entity_id: Some(user),
        store_id,
        request_id: None,
        detail: None,
    }
}

/// One line of standard input, so that a password stands neither in the history nor in the process list.
fn read_password() -> anyhow::Result<SecretString> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        println!("password (it will be seen on the screen; pipe it in where others look on):");
    }
    let mut line = String::new();
    stdin.lock().read_line(&mut line).context("reading the password from standard input")?;
    Ok(SecretString::from(line.trim_end_matches(['\r', '\n'])))
}
