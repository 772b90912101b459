//! The settings: `config/default.toml`, which is built in, under a file, under the environment.
//!
//! First thing at start, and the only reader of the environment. All mistakes are reported together,
//! each with its key and where it was written, so that nobody mends them one restart at a time.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use zhilian_sync_jobs::settings::{EngineSettings, QueueSettings, VendorSettings, WebhookSettings};

mod check;
mod layers;

/// The bottom layer, and the reference of all settings.
const DEFAULTS: &str = include_str!("../config/default.toml");

/// Every setting.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The HTTP service.
    pub server: ServerSettings,
    /// Where rows are kept.
    pub database: DatabaseSettings,
    /// Where the queue is.
    pub redis: RedisSettings,
    /// What seals secrets.
    pub vault: VaultSettings,
    /// The queue.
    pub queue: QueueSettings,
    /// The engine.
    pub engine: EngineSettings,
    /// The inbox.
    pub webhooks: WebhookSettings,
    /// Calls to vendors.
    pub vendors: VendorSettings,
    /// The feed of live clients.
    pub events: EventSettings,
    /// Signing in.
    pub auth: AuthSettings,
    /// Log lines.
    pub log: LogSettings,
}

/// Settings of the HTTP service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// Where to listen.
    pub address: SocketAddr,
    /// The address browsers use; empty for none.
    pub public_url: String,
    /// Proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Open connections at a time.
    pub max_connections: usize,
    /// The longest a request may take.
    pub request_timeout_secs: u64,
    /// How long a stopping process waits for open requests.
    pub drain_secs: u64,
    /// The largest request body.
    pub body_bytes_max: usize,
    /// The largest body of a batch of records.
    pub batch_bytes_max: usize,
    /// The documentation page.
    pub docs: Docs,
    /// How many callers may wait for a connection test.
    pub test_waiters_max: usize,
}

impl ServerSettings {
    /// Whether the documentation page is served.
    #[must_use]
    pub const fn docs_enabled(&self) -> bool {
        match self.docs {
            Docs::On => true,
            Docs::Off => false,
            Docs::Auto => self.address.ip().is_loopback(),
        }
    }
}

/// When the documentation page is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Docs {
    /// When listening on loopback only.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Where rows are kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `sqlite:PATH` or `postgres://…`; it may hold a password.
    pub url: Secret,
    /// Connections to PostgreSQL, or readers of the SQLite file.
    pub connections_max: u32,
    /// How long to wait for a free connection.
    pub acquire_timeout_secs: u64,
}

impl DatabaseSettings {
    /// Whether rows are kept in a PostgreSQL server, which several processes may share.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        let url = self.url.expose();
        url.starts_with("postgres://") || url.starts_with("postgresql://")
    }
}

/// Where the queue is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://…`; empty for a queue inside this process. It may hold a password.
    pub url: Secret,
}

/// What seals secrets.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultSettings {
    /// 32 bytes in base64; empty where a file beside the database holds them.
    pub master_key: Secret,
}

/// Settings of the feed of live clients.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventSettings {
    /// How often news are looked for while somebody listens.
    pub poll_ms: u64,
    /// How often a silent stream shows that it lives, and its caller is checked again.
    pub heartbeat_ms: u64,
    /// How many clients may listen to one process.
    pub listeners_max: usize,
}

/// Settings of signing in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    /// How long a sign-in lasts.
    pub session_hours: u32,
    /// The first admin's password; empty to generate one.
    pub admin_password: Secret,
}

/// Settings of log lines.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// For people or for programs.
    pub format: LogFormat,
    /// Which lines to keep.
    pub filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// A setting that must not be seen; shows itself as `***`.
#[derive(Clone, Default)]
pub struct Secret(SecretString);

impl Secret {
    /// The value itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether nothing was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(SecretString::from(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(SecretString::from(text)))
    }
}

impl Settings {
    /// The settings of this process: defaults, then `file`, then the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, Mistakes> {
        Self::from_layers(
            file,
            std::env::vars_os().filter_map(|(name, value)| {
                // A name or value that is not UTF-8 cannot be one of ours.
                Some((name.into_string().ok()?, value.into_string().ok()?))
            }),
        )
    }

    /// The same with an environment given by the caller.
    pub fn from_layers(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Mistakes> {
        let mut layers = layers::Layers::over(DEFAULTS);
        if let Some(path) = file {
            layers.add_file(path);
        }
        layers.add_environment(environment);
        layers.finish()
    }

    /// The defaults alone, as a program that embeds the service starts from.
    #[must_use]
    pub fn embedded() -> Self {
        toml::from_str(DEFAULTS).expect("a test reads the built-in settings")
    }
}

/// One wrong setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The setting, as `section.key`; empty where a whole source cannot be read.
    pub key: String,
    /// Where it was written.
    pub source: String,
    /// What is wrong and what was expected.
    pub message: String,
}

/// Everything that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the settings hold {count} mistake{}:", if count == 1 { "" } else { "s" })?;
        for Mistake { key, source, message } in &self.0 {
            if key.is_empty() {
                write!(f, "\n  {source}: {message}")?;
            } else {
                write!(f, "\n  `{key}` ({source}): {message}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn with_environment(pairs: &[(&str, &str)]) -> Result<Settings, Mistakes> {
        Settings::from_layers(None, environment(pairs))
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    /// The structs refuse unknown keys and have no defaults of their own, so reading the file proves
    /// that both have the same keys.
    #[test]
    fn the_default_file_has_exactly_the_keys_of_the_structs() {
        let settings = Settings::embedded();
        assert_eq!(settings.server.address.to_string(), "127.0.0.1:8000");
        assert!(with_environment(&[]).is_ok());
    }

    #[test]
    fn the_environment_lies_over_the_file_over_the_defaults() {
        let file = file("[engine]\nmax_attempts = 7\nturn_secs = 90\n");
        let settings = Settings::from_layers(
            Some(file.path()),
            environment(&[("ZHILIAN__ENGINE__MAX_ATTEMPTS", "9"), ("PORT", "3000")]),
        )
        .unwrap();
        assert_eq!(settings.engine.max_attempts, 9);
        assert_eq!(settings.engine.turn_secs, 90);
        assert_eq!(settings.engine.lease_secs, 60);
        assert_eq!(settings.server.address.to_string(), "127.0.0.1:3000");
    }

    #[test]
    fn lists_and_well_known_names_come_from_the_environment() {
        let settings = with_environment(&[
            ("DATABASE_URL", "postgres://sync:pw@db/sync"),
            ("REDIS_URL", "redis://cache:6379"),
            ("ZHILIAN__VENDORS__ALLOW_NETWORKS", "127.0.0.1/32, 10.0.0.0/8"),
        ])
        .unwrap();
        assert!(settings.database.is_postgres());
        assert_eq!(settings.redis.url.expose(), "redis://cache:6379");
        assert_eq!(settings.vendors.allow_networks, ["127.0.0.1/32", "10.0.0.0/8"]);
    }

    #[test]
    fn a_secret_may_be_a_file() {
        let secret = file("postgres://sync:pw@db/sync\n");
        let settings = with_environment(&[("DATABASE_URL_FILE", secret.path().to_str().unwrap())]).unwrap();
        assert_eq!(settings.database.url.expose(), "postgres://sync:pw@db/sync");
    }

    #[test]
    fn all_mistakes_are_reported_together_with_their_sources() {
        let file =
            file("[server]\nadress = \"0.0.0.0:1\"\nmax_connections = \"many\"\n[engine]\nlease_secs = -1\n");
        let mistakes = Settings::from_layers(
            Some(file.path()),
            environment(&[
                ("ZHILIAN__ENGINE__TURN_SECS", "soon"),
                ("ZHILIAN__NOTHING__HERE", "1"),
                ("ZHILIAN__LOG__FORMAT", "xml"),
                ("DATABASE_URL", "mysql://x:hunter2@y/z"),
                ("DATABASE_URL_FILE", "/nowhere"),
                ("PORT", "http"),
                ("ZHILIAN__QUEUE__ORPHAN_SECS", "10"),
            ]),
        )
        .unwrap_err();
        let text = mistakes.to_string().replace(file.path().to_str().unwrap(), "FILE");
        insta::assert_snapshot!(text, @r#"
        the settings hold 10 mistakes:
          `engine.lease_secs` (file `FILE`): invalid value: integer `-1`, expected u64
          `server.adress` (file `FILE`): unknown field `adress`, expected one of `address`, `public_url`, `trusted_proxies`, `max_connections`, `request_timeout_secs`, `drain_secs`, `body_bytes_max`, `batch_bytes_max`, `docs`, `test_waiters_max`
          `server.max_connections` (file `FILE`): invalid type: string "many", expected usize
          `engine.turn_secs` (environment `ZHILIAN__ENGINE__TURN_SECS`): `soon` is not a whole number
          `log.format` (environment `ZHILIAN__LOG__FORMAT`): unknown variant `xml`, expected `human` or `json`
          `nothing.here` (environment `ZHILIAN__NOTHING__HERE`): unknown field `nothing`, expected one of `server`, `database`, `redis`, `vault`, `queue`, `engine`, `webhooks`, `vendors`, `events`, `auth`, `log`
          `database.url` (environment `DATABASE_URL_FILE`): `DATABASE_URL` is given too; keep one of the two
          `server.address` (environment `PORT`): `http` is not a port number
          `database.url` (environment `DATABASE_URL`): not a database URL; expected `sqlite:PATH` or `postgres://user:password@host/name`
          `queue.orphan_secs` (environment `ZHILIAN__QUEUE__ORPHAN_SECS`): `engine.job_timeout_secs` is `180`, too much beside `queue.orphan_secs`, which is `10`
        "#);
        assert!(!text.contains("hunter2"));
    }

    #[test]
    fn a_secret_shows_itself_as_stars() {
        let settings = with_environment(&[("DATABASE_URL", "postgres://sync:hunter2@db/sync")]).unwrap();
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hunter2"));
        assert!(shown.contains("url: ***"));
    }
}
