//! `vendors simulate`: a local fake of a vendor, to write a manifest against or to try a system with, until
//! Ctrl-C. It says what a system needs to know of it, then every request as it is answered.

#![expect(clippy::print_stdout, reason = "a command line prints")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use url::Url;
use zhilian_sync_jobs::vendor::Catalog;
use zhilian_sync_simulator::{Faults, RequestLine, Settings, Simulator, WebhookTarget};

use crate::serve;

#[derive(Debug, Args)]
pub(in crate::cli) struct SimulateArgs {
    /// The vendor
    vendor: String,
    /// Where it listens on 127.0.0.1; a free port where absent
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    port: u16,
    /// Now and then answers 429, 500, late or not to the end, lists records twice or in another order, and
    /// changes what it has just listed
    #[arg(long)]
    faults: bool,
    /// How many milliseconds pass from one change to the next; nothing changes where absent
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pace: Option<u64>,
    /// How many records each list has at the start
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    history: u32,
    /// Decides every record: the same number makes the same ones
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Posts changes to this address, an `http` one, exactly as it is registered
    #[arg(long, value_name = "URL", requires = "webhook_secret")]
    webhooks: Option<Url>,
    /// What webhooks are signed with
    #[arg(long, value_name = "SECRET", requires = "webhooks")]
    webhook_secret: Option<String>,
    /// Also writes `credentials.json` and `config.json` there, as `vendors try` takes them
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
}

pub(super) async fn run(args: SimulateArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings {
        seed: args.seed,
        history: args.history,
        pace: args.pace.map(Duration::from_millis),
        faults: if args.faults { Faults::lively() } else { Faults::default() },
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)),
        heard: Some(Arc::new(|line| println!("{}", shown(line)))),
        ..Settings::default()
    };
    let stop = serve::stop_on_signals().context("listening for signals")?;
    let simulator = Simulator::start(&args.vendor, settings).await?;
    introduce(&args, &simulator);
    if let Some(folder) = &args.write {
        write(folder, &simulator)?;
    }
    if let (Some(url), Some(secret)) = (args.webhooks, args.webhook_secret) {
        println!("posts changes to {url}");
        simulator.post_webhooks(WebhookTarget { url, secret });
    }
    println!("listening; Ctrl-C ends");
    stop.cancelled().await;
    let (counted, posted) = (simulator.counters(), simulator.webhook_counters());
    simulator.close().await;
    println!(
        "{} requests, {} pages; {} refused, {} not understood; {} of {} events taken",
        counted.requests, counted.pages, counted.refused, counted.rejected, posted.accepted, posted.events
    );
    Ok(ExitCode::SUCCESS)
}

/// Says what a system needs to know. The secrets are made up and open nothing else, so they are shown.
fn introduce(args: &SimulateArgs, simulator: &Simulator) {
    println!("{} at {}", args.vendor, simulator.url());
    println!("  type         {}", simulator.system_type());
    println!("  streams      {}", simulator.streams().join(", "));
    println!("  credentials  {}", json!(simulator.credentials()));
    println!("  config       {}", json!(simulator.config()));
    if let Some(asked) = asked(&args.vendor, simulator) {
        let place = args.write.as_deref().unwrap_or(Path::new("."));
        println!(
            "to ask it for a page, with `allow_networks = [\"127.0.0.1\"]` under [vendors] of the settings:"
        );
        println!(
            "  zhilian-sync vendors try {} {asked} --endpoint {} --credentials {} --system-config {}",
            args.vendor,
            simulator.url(),
            place.join("credentials.json").display(),
            place.join("config.json").display(),
        );
    }
}

/// The stream that can be asked for, and a key of it where it is no list; nothing of a vendor that only posts.
fn asked(vendor: &str, simulator: &Simulator) -> Option<String> {
    let manifest = Catalog::embedded().ok()?.get(vendor)?;
    let stream = simulator.streams().into_iter().find_map(|name| manifest.stream(name))?;
    let name = &stream.name;
    if !stream.is_looked_up() {
        return Some(format!("--stream {name}"));
    }
    let key = simulator.ledger(name).into_values().find_map(|entry| entry.phone)?;
    Some(format!("--stream {name} --key {key}"))
}

fn write(folder: &Path, simulator: &Simulator) -> anyhow::Result<()> {
    let files =
        [("credentials.json", json!(simulator.credentials())), ("config.json", json!(simulator.config()))];
    for (name, content) in files {
        let file = folder.join(name);
        std::fs::write(&file, format!("{content:#}\n"))
            .with_context(|| format!("writing `{}`", file.display()))?;
        println!("wrote {}", file.display());
    }
    Ok(())
}

/// One request: what was asked, what was answered, and which faults were injected.
fn shown(line: &RequestLine) -> String {
    let mut shown = format!("{} {} {}", line.status, line.method, line.target);
    if !line.injected.is_empty() {
        shown.push_str("  injected: ");
        shown.push_str(&line.injected.join(", "));
    }
    shown
}
