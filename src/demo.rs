//! The whole service with nothing to set up: simulated vendors beside it, a database that is gone
//! afterwards, and a line for every run that ends.
//!
//! It is the same program as `serve`, with other settings: only the vendors are not real. With `--once`
//! it is a proof: it goes on until every system was pulled through faults, then compares what the
//! vendors sold with what the database holds.

use std::fmt::Display;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use zhilian_sync_store::{Clock, sync_cursors, webhook_events};

use self::feed::{Feed, line};
use self::system::DemoSystem;
use self::verdict::{Comparison, Table};
use crate::app::{App, ProcessRole};
use crate::config::{LogSettings, Secret, Settings};
use crate::{serve, telemetry};

mod evidence;
mod fakes;
mod feed;
mod hooks;
mod shops;
mod stored;
mod system;
mod verdict;

/// Where the API answers, unless said otherwise; `--once` takes any free port.
const PORT: u16 = 8000;

/// How long `--once` may take in all.
const ONCE_MAX: Duration = Duration::from_mins(1);

/// How much slower the vendors are while nobody waits for a verdict: their ledgers are kept in memory.
const LEISURE: u32 = 5;

/// How often the database is looked at for runs that ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What the demo is asked to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// End when every system was pulled through faults, and compare what was sold with what is stored
    #[arg(long)]
    once: bool,
    /// The port of the API on 127.0.0.1; any free one with --once
    #[arg(long, value_name = "PORT", conflicts_with = "once")]
    port: Option<u16>,
    /// Which log lines to show on stderr beside the runs, such as `info`
    #[arg(long, value_name = "FILTER", default_value = "error")]
    log: String,
}

/// Runs the demo until it is stopped, or until its verdict.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let directory = tempfile::Builder::new().prefix("zhilian-demo-").tempdir();
    let directory = directory.context("making a folder for the demo's database")?;
    let clock = Clock::system();
    let password = format!("demo-{}", &clock.new_id().simple().to_string()[20..]);
    let slower = if options.once { 1 } else { LEISURE };
    let shops = shops::open(&clock, slower).await.context("opening the simulated tills")?;
    let fakes = fakes::open(&clock, slower).await.context("opening the simulated vendors")?;
    let tills = shops.iter().map(crate::simulator::Simulator::address);
    let addresses = tills.chain(fakes.iter().map(zhilian_sync_simulator::Simulator::address));
    let settings = settings(&options, directory.path(), &password, addresses);
    telemetry::init(&settings.log);
    let stop = serve::stop_on_signals().context("listening for signals")?;

    let listener = TcpListener::bind(settings.server.address).await;
    let listener = listener.with_context(|| {
        format!("listening on `{}`; choose a free port with `--port`", settings.server.address)
    })?;
    let address = listener.local_addr()?;
    let app = App::open(settings, ProcessRole::All, clock).await?;
    let service = tokio::spawn({
        let (app, stop) = (app.clone(), stop.clone());
        async move {
            let outcome = app.run(ProcessRole::All, Some(listener), stop.clone()).await;
            // A service that ended by itself has nothing more to show.
            stop.cancel();
            outcome
        }
    });

    introduce(address, &password, &options)?;
    let mut systems = shops::connect(&app, shops, address).await?;
    systems.extend(fakes::connect(&app, fakes, address).await?);
    let mut demo = Demo { app, systems, feed: Feed::default(), missing: Vec::new() };
    let outcome = if options.once {
        stop.run_until_cancelled(demo.prove()).await
    } else {
        stop.run_until_cancelled(demo.follow()).await
    };
    stop.cancel();
    service.await.context("the service ended in a panic")??;
    let exact = outcome.transpose()?;
    for system in demo.systems {
        system.vendor.close().await;
    }
    match exact {
        None if options.once => bail!("the demo was stopped before its verdict"),
        Some(Verdict::Inexact) => bail!("the database does not hold what the vendors' ledgers say"),
        None => {}
        Some(Verdict::Exact) => say(format_args!(
            "every record is stored exactly once, as it is, and every webhook applied once: proven in {:.0} s",
            started.elapsed().as_secs_f64()
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The embedded default, with a database and a pace for a demo.
fn settings(
    options: &Options,
    directory: &Path,
    password: &str,
    vendors: impl Iterator<Item = SocketAddr>,
) -> Settings {
    let mut settings = Settings::embedded();
    let port = if options.once { 0 } else { options.port.unwrap_or(PORT) };
    settings.server.address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    settings.database.url = Secret::from(format!("sqlite:{}", directory.join("demo.db").display()).as_str());
    settings.auth.admin_password = Secret::from(password);
    // The vendors' own ports, and nothing else of this machine.
    settings.vendors.allow_networks = vendors.map(|address| address.to_string()).collect();
    // Faults are injected often, and somebody watches.
    settings.engine.retry_initial_secs = 1;
    settings.engine.retry_max_secs = 5;
    settings.engine.scheduler_tick_ms = 200;
    settings.engine.jitter_max_secs = 0;
    settings.log = LogSettings { filter: options.log.clone(), ..settings.log };
    settings
}

fn introduce(address: SocketAddr, password: &str, options: &Options) -> std::io::Result<()> {
    say(format_args!("zhilian-sync demo: http://{address}  (API under /api/v1, its description at /docs)"))?;
    say(format_args!("sign in as `admin` with the password `{password}`"))?;
    say(
        "simulated vendors (two tills, a supplier, and one whose customers are members) sell, change, refund, and",
    )?;
    say("fail now and then; two of them post webhooks, some twice, late or with a wrong signature;")?;
    say("a line for every run that ends:")?;
    if !options.once {
        say("(Ctrl-C ends it, and its database with it)")?;
    }
    say("")
}

/// The database against the vendors' ledgers.
enum Verdict {
    Exact,
    Inexact,
}

struct Demo {
    app: App,
    systems: Vec<DemoSystem>,
    feed: Feed,
    /// What has not happened yet, for whoever waited in vain.
    missing: Vec<String>,
}

impl Demo {
    /// Shows runs as they end, for ever.
    async fn follow(&mut self) -> anyhow::Result<Verdict> {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            self.show_ended_runs().await?;
        }
    }

    /// Shows runs until enough has happened, and compares.
    async fn prove(&mut self) -> anyhow::Result<Verdict> {
        let Ok(proven) = tokio::time::timeout(ONCE_MAX, self.reach_the_end()).await else {
            bail!("not done after {} s; still missing: {}", ONCE_MAX.as_secs(), self.missing.join("; "))
        };
        proven?;
        let mut comparisons = Vec::new();
        say("")?;
        for system in &self.systems {
            say(format_args!("{}: {}", system.name, system.evidence()))?;
            for ledger in system.ledgers() {
                let rows = stored::records(self.app.store(), system.id, ledger.target).await?;
                comparisons.push(Comparison::of(&ledger.name, &ledger.told, &rows));
            }
        }
        say(format_args!("\n{}", Table(&comparisons)))?;
        let posted = self.webhooks().await?;
        say(hooks::Table(&posted))?;
        let exact = comparisons.iter().all(Comparison::is_exact)
            && posted.iter().all(|webhooks| webhooks.faults().is_empty());
        Ok(if exact { Verdict::Exact } else { Verdict::Inexact })
    }

    /// What the vendors posted beside what the inbox holds of it.
    async fn webhooks(&self) -> anyhow::Result<Vec<hooks::Comparison>> {
        let mut comparisons = Vec::new();
        for system in self.systems.iter().filter(|system| system.posts_webhooks) {
            comparisons.push(hooks::Comparison {
                system: system.name.clone(),
                posted: system.vendor.webhook_counters(),
                inbox: webhook_events::tally(self.app.store(), system.id).await?,
            });
        }
        Ok(comparisons)
    }

    async fn reach_the_end(&mut self) -> anyhow::Result<()> {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            self.show_ended_runs().await?;
            self.missing = self.lacking();
            if self.missing.is_empty() {
                break;
            }
        }
        for system in &self.systems {
            system.vendor.stop_changing();
        }
        say("the vendors are closed; each system has to be pulled once more to its end")?;
        loop {
            looks.tick().await;
            self.show_ended_runs().await?;
            self.missing = self.behind().await?;
            self.missing.extend(self.unapplied().await?);
            if self.missing.is_empty() {
                return Ok(());
            }
        }
    }

    async fn show_ended_runs(&mut self) -> anyhow::Result<()> {
        for run in self.feed.ended(self.app.store()).await? {
            let system = self.systems.iter_mut().find(|system| Some(system.id) == run.system_id);
            let name = system.as_ref().map_or("", |system| &system.name);
            say(line(&run, name))?;
            if let Some(system) = system {
                system.note(&run);
            }
        }
        Ok(())
    }

    /// What the systems have not been through yet.
    fn lacking(&self) -> Vec<String> {
        let mut lacking = Vec::new();
        for system in &self.systems {
            let mut missing = system.evidence().missing();
            if system.posts_webhooks {
                missing.extend(system.vendor.webhooks_missing());
            }
            lacking.extend(missing.iter().map(|what| format!("{}: {what}", system.name)));
        }
        lacking
    }

    /// The systems whose webhooks are not all posted and applied yet.
    async fn unapplied(&self) -> anyhow::Result<Vec<String>> {
        let mut unapplied = Vec::new();
        for webhooks in self.webhooks().await? {
            if webhooks.inbox.pending > 0 {
                unapplied.push(format!("{}: {} webhooks to apply", webhooks.system, webhooks.inbox.pending));
            }
        }
        let posting = self.systems.iter().filter(|system| !system.vendor.all_posted());
        unapplied.extend(posting.map(|system| format!("{}: its last webhooks", system.name)));
        Ok(unapplied)
    }

    /// The systems whose last whole pull does not yet reach past the last change of their vendor.
    async fn behind(&self) -> anyhow::Result<Vec<String>> {
        let mut behind = Vec::new();
        for system in &self.systems {
            let cursors = sync_cursors::list_of_system(self.app.store(), system.id).await?;
            let closed_at = system.vendor.last_change();
            let is_past = |cursor: &sync_cursors::SyncCursor| {
                cursor.watermark.is_some_and(|read| read > closed_at)
                    && cursor.sync_log_id.is_some()
                    && cursor.sync_log_id.as_ref() == system.last_pulls.get(&cursor.stream)
            };
            if cursors.is_empty() || !cursors.iter().all(is_past) {
                behind.push(format!("{}: a scheduled pull past its last change", system.name));
            }
        }
        Ok(behind)
    }
}

/// A line for whoever watches; an error when nobody does any more.
fn say(line: impl Display) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")
}
