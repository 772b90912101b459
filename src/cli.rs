//! The command line: what to do, with which settings. Each command is a few calls into the library.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::net::TcpListener;
use zhilian_sync_store::Clock;

use crate::app::{self, App, ProcessRole};
use crate::config::{LogSettings, Settings};
use crate::{demo, serve, telemetry};

mod health;
mod users;
mod vendors;

/// After so many steps of tasks a busy thread looks whether a socket has something to say. tokio's own 61 are some
/// 3 ms where each step answers a webhook, and for so long the answer of the database would lie there unread, and
/// the next commit wait.
const EVENT_INTERVAL: u32 = 11;

/// The exit code of a wrong command line or wrong settings, as clap's own.
const EXIT_USAGE: u8 = 2;
/// The stack of each worker thread, four times the usual: JSON that others wrote is read and dropped level by
/// level, and a stack that is used up ends the process. Only what is touched of it takes memory.
const STACK_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, Parser)]
#[command(name = "zhilian-sync", version, about = "Keeps a restaurant chain's outside systems in step")]
struct Cli {
    /// A TOML file laid over the built-in settings
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(ServeArgs),
    /// Run the service against simulated vendors, with nothing to set up
    Demo(demo::Options),
    /// Ask the service of this machine whether it is ready
    Health,
    /// Bring the database's schema up to date
    Migrate,
    /// Add, list and mend users
    #[command(subcommand)]
    Users(users::UsersCommand),
    /// List and check vendor manifests
    #[command(subcommand)]
    Vendors(vendors::VendorsCommand),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Which part of the work this process does
    #[arg(long, value_enum, default_value = "all")]
    role: RoleArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleArg {
    /// Everything
    All,
    /// The HTTP API
    Api,
    /// Runs
    Worker,
    /// The clockwork that makes runs
    Scheduler,
}

impl From<RoleArg> for ProcessRole {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::All => Self::All,
            RoleArg::Api => Self::Api,
            RoleArg::Worker => Self::Worker,
            RoleArg::Scheduler => Self::Scheduler,
        }
    }
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    // One provider for all TLS; a second call, as in tests, changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(STACK_BYTES)
        .event_interval(EVENT_INTERVAL)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(dispatch(cli)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let settings = match Settings::load(cli.config.as_deref()) {
        Ok(settings) => settings,
        Err(mistakes) => {
            eprintln!("error: {mistakes}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    match cli.command {
        Command::Serve(args) => {
            telemetry::init(&settings.log);
            serve(settings, args.role.into()).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Demo(options) => demo::run(options).await,
        Command::Health => health::run(&settings).await,
        Command::Migrate => {
            quiet(&settings.log);
            app::store::migrate(&settings).await?;
            println!("the schema is up to date");
            Ok(ExitCode::SUCCESS)
        }
        Command::Users(command) => {
            quiet(&settings.log);
            users::run(command, &settings).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Vendors(command) => {
            quiet(&settings.log);
            vendors::run(command, &settings).await
        }
    }
}

/// Commands that print their answer log only what is wrong.
fn quiet(settings: &LogSettings) {
    telemetry::init(&LogSettings { filter: "warn".to_owned(), ..settings.clone() });
}

async fn serve(settings: Settings, role: ProcessRole) -> anyhow::Result<()> {
    let stop = serve::stop_on_signals().context("listening for signals")?;
    let address = settings.server.address;
    let app = App::open(settings, role, Clock::system()).await?;
    let listener = if role.serves_http() {
        let listener = TcpListener::bind(address).await;
        Some(listener.with_context(|| format!("listening on `{address}`; expected a free address"))?)
    } else {
        None
    };
    app.run(role, listener, stop).await
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_settings_file_may_stand_before_and_after_the_command() {
        for line in [
            ["zhilian-sync", "--config", "a.toml", "migrate"],
            ["zhilian-sync", "migrate", "--config", "a.toml"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.config, Some(PathBuf::from("a.toml")));
        }
    }
}
