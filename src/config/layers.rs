//! Lays sources of settings over each other and remembers where each key was written.
//!
//! Every key is tried alone over the defaults first: the struct that reads it then says what is
//! wrong with this key and no other, and one mistake does not hide the next.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use toml::{Table, Value};

use super::{Mistake, Mistakes, Settings, check};

/// Names of the environment that are not of the form `ZHILIAN__SECTION__KEY`, and their settings.
/// Of two that mean the same setting, the later wins.
const WELL_KNOWN: &[(&str, &str)] = &[
    ("DATABASE_URL", "database.url"),
    ("REDIS_URL", "redis.url"),
    ("ZHILIAN_MASTER_KEY", "vault.master_key"),
    ("ZHILIAN_ADMIN_PASSWORD", "auth.admin_password"),
];

/// Settings whose values must not be shown, and may be given as files.
const SECRETS: &[&str] = &["database.url", "redis.url", "vault.master_key", "auth.admin_password"];

/// What starts a setting in the environment. Other names that start with `ZHILIAN_` are not looked
/// at: Kubernetes makes such variables for a service of that name.
const PREFIX: &str = "ZHILIAN__";

/// The defaults with whatever was laid over them so far.
pub(super) struct Layers {
    defaults: Table,
    merged: Table,
    sources: BTreeMap<String, String>,
    mistakes: Vec<Mistake>,
}

impl Layers {
    pub(super) fn over(defaults: &str) -> Self {
        let defaults: Table = defaults.parse().expect("a test reads the built-in settings");
        Self { merged: defaults.clone(), defaults, sources: BTreeMap::new(), mistakes: Vec::new() }
    }

    pub(super) fn add_file(&mut self, path: &Path) {
        let source = format!("file `{}`", path.display());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.mistake("", &source, format!("cannot be read: {error}")),
        };
        match text.parse::<Table>() {
            Ok(table) => {
                let mut leaves = Vec::new();
                collect_leaves("", &table, &mut leaves);
                for (key, value) in leaves {
                    self.set(&key, value, &source);
                }
            }
            // The message alone: the rendered error quotes the line, which may hold a secret.
            Err(error) => self.mistake("", &source, format!("is not TOML: {}", error.message())),
        }
    }

    pub(super) fn add_environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        for (name, key) in WELL_KNOWN {
            // An empty variable is how many tools say "not set".
            if let Some(text) = environment.get(*name).filter(|text| !text.is_empty()) {
                self.set_from_text(key, text, name);
            }
        }
        for (name, text) in &environment {
            let Some(key) = key_of(name) else { continue };
            self.set_from_text(&key, text, name);
        }
        for (name, path) in &environment {
            let Some(plain) = name.strip_suffix("_FILE") else {
                continue;
            };
            let well_known =
                WELL_KNOWN.iter().find(|(known, _)| *known == plain).map(|(_, key)| (*key).to_owned());
            let Some(key) = well_known.or_else(|| secret_key_of(plain)) else {
                continue;
            };
            if environment.get(plain).is_some_and(|text| !text.is_empty()) {
                let source = format!("environment `{name}`");
                self.mistake(&key, &source, format!("`{plain}` is given too; keep one of the two"));
            } else if !path.is_empty() {
                match std::fs::read_to_string(path) {
                    Ok(text) => self.set_from_text(&key, text.trim_end_matches(['\r', '\n']), name),
                    Err(error) => {
                        let source = format!("environment `{name}`");
                        self.mistake(&key, &source, format!("`{path}` cannot be read: {error}"));
                    }
                }
            }
        }
        if let Some(port) = environment.get("PORT").filter(|text| !text.is_empty()) {
            self.set_port(port);
        }
    }

    /// The settings, or everything that is wrong with them.
    pub(super) fn finish(mut self) -> Result<Settings, Mistakes> {
        // Each key was tried alone, so all together cannot fail, but a hole here must not be a panic.
        match Value::Table(self.merged.clone()).try_into::<Settings>() {
            Ok(settings) => {
                let was_set = |key: &str| self.sources.contains_key(key);
                for (key, message) in check::check(&settings, &was_set) {
                    let source =
                        self.sources.get(key).cloned().unwrap_or_else(|| "built-in default".to_owned());
                    self.mistake(key, &source, message);
                }
                if self.mistakes.is_empty() { Ok(settings) } else { Err(Mistakes(self.mistakes)) }
            }
            Err(error) => {
                let message = error.message().to_owned();
                self.mistake("", "all sources together", message);
                Err(Mistakes(self.mistakes))
            }
        }
    }

    /// Reads a value of the environment the way the default of the same key is written.
    fn set_from_text(&mut self, key: &str, text: &str, name: &str) {
        let source = format!("environment `{name}`");
        let value = match lookup(&self.defaults, key) {
            Some(Value::Integer(_)) => match text.trim().parse() {
                Ok(number) => Value::Integer(number),
                Err(_) => return self.mistake(key, &source, format!("`{text}` is not a whole number")),
            },
            Some(Value::Boolean(_)) => match text.trim().parse() {
                Ok(flag) => Value::Boolean(flag),
                Err(_) => {
                    return self.mistake(key, &source, format!("`{text}` is neither `true` nor `false`"));
                }
            },
            Some(Value::Array(_)) => Value::Array(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Value::String(item.to_owned()))
                    .collect(),
            ),
            _ => Value::String(text.to_owned()),
        };
        self.set(key, value, &source);
    }

    /// `PORT` names a port alone, whatever the address is.
    fn set_port(&mut self, port: &str) {
        let address = lookup(&self.merged, "server.address").and_then(Value::as_str);
        let address = address.and_then(|text| text.parse::<SocketAddr>().ok());
        match (address, port.trim().parse::<u16>()) {
            (Some(mut address), Ok(port)) => {
                address.set_port(port);
                self.set("server.address", Value::String(address.to_string()), "environment `PORT`");
            }
            (_, Err(_)) => {
                self.mistake(
                    "server.address",
                    "environment `PORT`",
                    format!("`{port}` is not a port number"),
                );
            }
            (None, _) => {}
        }
    }

    /// Takes a value over, if the struct that will read it agrees.
    fn set(&mut self, key: &str, value: Value, source: &str) {
        let mut trial = self.defaults.clone();
        let problem = match put(&mut trial, key, value.clone()) {
            Ok(()) => Value::Table(trial)
                .try_into::<Settings>()
                .err()
                .map(|error| error.message().trim().to_owned()),
            Err(message) => Some(message),
        };
        match problem {
            None => {
                put(&mut self.merged, key, value).expect("the trial put it in the same place");
                self.sources.insert(key.to_owned(), source.to_owned());
            }
            Some(_) if SECRETS.contains(&key) => self.mistake(key, source, "expected a text".to_owned()),
            Some(message) => self.mistake(key, source, message),
        }
    }

    fn mistake(&mut self, key: &str, source: &str, message: String) {
        self.mistakes.push(Mistake { key: key.to_owned(), source: source.to_owned(), message });
    }
}

/// `ZHILIAN__SERVER__MAX_CONNECTIONS` → `server.max_connections`.
fn key_of(name: &str) -> Option<String> {
    let key = name.strip_prefix(PREFIX)?.to_ascii_lowercase().replace("__", ".");
    // A secret's file is read by its own rule.
    let is_file = key.strip_suffix("_file").is_some_and(|plain| SECRETS.contains(&plain));
    (!is_file).then_some(key)
}

fn secret_key_of(name: &str) -> Option<String> {
    key_of(name).filter(|key| SECRETS.contains(&key.as_str()))
}

fn collect_leaves(prefix: &str, table: &Table, leaves: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) => collect_leaves(&key, inner, leaves),
            other => leaves.push((key, other.clone())),
        }
    }
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    let value = table.get(first)?;
    if rest.is_empty() { Some(value) } else { lookup(value.as_table()?, rest) }
}

fn put(table: &mut Table, key: &str, value: Value) -> Result<(), String> {
    let Some((first, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return Ok(());
    };
    match table.entry(first).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => put(inner, rest, value),
        _ => Err(format!("`{first}` is a value, not a section")),
    }
}
