//! `vendors list|check|try`: what is known of vendors, whether a manifest is right, and what it makes of a vendor.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use zhilian_sync_jobs::vendor::{Catalog, CheckReport, Manifest, Plan, check_file};

use crate::config::Settings;

mod trial;

#[derive(Debug, Subcommand)]
pub(super) enum VendorsCommand {
    /// List the vendors that are known
    List,
    /// Check a manifest, or all that are known
    Check {
        /// The manifest; all that are known where absent
        file: Option<PathBuf>,
        /// A folder of the vendor's recorded answers, `<stream>.json`, to be mapped
        #[arg(long, requires = "file", value_name = "FOLDER")]
        payloads: Option<PathBuf>,
    },
    /// Ask a vendor for one page, and show what its records become; nothing is kept
    Try(trial::TryArgs),
}

pub(super) async fn run(command: VendorsCommand, settings: &Settings) -> anyhow::Result<ExitCode> {
    match command {
        VendorsCommand::List => list(settings).map(|()| ExitCode::SUCCESS),
        VendorsCommand::Try(args) => trial::run(&args, settings).await,
        VendorsCommand::Check { file: None, .. } => {
            println!("{} manifests without mistakes", catalog(settings)?.names().len());
            Ok(ExitCode::SUCCESS)
        }
        VendorsCommand::Check { file: Some(file), payloads } => {
            Ok(match check_file(&file, payloads.as_deref()) {
                Ok(report) => {
                    show(&report);
                    ExitCode::SUCCESS
                }
                Err(errors) => {
                    eprintln!("{errors}");
                    ExitCode::FAILURE
                }
            })
        }
    }
}

fn catalog(settings: &Settings) -> anyhow::Result<Catalog> {
    let folder = Some(settings.vendors.directory.as_str()).filter(|folder| !folder.is_empty());
    Catalog::load(folder.map(Path::new)).context("reading the vendor manifests")
}

fn list(settings: &Settings) -> anyhow::Result<()> {
    let catalog = catalog(settings)?;
    for manifest in catalog.names().into_iter().filter_map(|name| catalog.get(name)) {
        let types: Vec<&str> = manifest.types.iter().map(|one| one.as_str()).collect();
        println!(
            "{:<20} {:<28} {:<20} {}",
            manifest.name,
            manifest.title,
            types.join(","),
            streams(&manifest)
        );
    }
    Ok(())
}

fn streams(manifest: &Manifest) -> String {
    manifest.streams.iter().map(|stream| stream.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn show(report: &CheckReport) {
    println!("`{}` has no mistakes; streams: {}", report.manifest.name, streams(&report.manifest));
    for (file, mapped) in &report.payloads {
        println!(
            "  {file}: {} transactions, {} orders, {} members, {} records, {} skipped, {} failed",
            mapped.transactions.len(),
            mapped.orders.len(),
            mapped.members.len(),
            mapped.records.len(),
            mapped.skipped,
            mapped.failures.len()
        );
        for failure in &mapped.failures {
            println!("    `{}`: {}", failure.external_id, failure.reason);
        }
    }
    for (file, plan) in &report.events {
        println!("  webhooks/{file}: {}", meaning(plan));
    }
}

fn meaning(plan: &Result<Plan, String>) -> String {
    match plan {
        Ok(Plan::Records { stream, mapped }) => {
            format!("{} records of `{stream}`, {} failed", mapped.storable(), mapped.failures.len())
        }
        Ok(Plan::Patch(patches)) => format!("{} changes of state", patches.len()),
        Ok(Plan::Fetch { stream, .. }) => format!("a record of `{stream}` is asked for"),
        Ok(Plan::Pull { stream }) => format!("`{stream}` is pulled"),
        Ok(Plan::Ignored) => "ignored".to_owned(),
        Ok(Plan::Unrouted) => "unrouted".to_owned(),
        Err(reason) => format!("fails: {reason}"),
    }
}
