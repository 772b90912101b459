//! `vendors list|check|try|simulate`: what is known of vendors, whether a manifest is right, what it makes of a
//! vendor, and vendors to try that on.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use zhilian_sync_jobs::vendor::{
    Catalog, CheckReport, Manifest, ManifestErrors, Plan, Vendors, check_file, check_vectors, manifest_schema,
};

use self::scratch::Scratch;
use crate::config::Settings;

mod scratch;
mod simulate;
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
        /// Known signatures of requests, a JSON list, to be made by the manifest
        #[arg(long, requires = "file", value_name = "FILE")]
        vectors: Option<PathBuf>,
    },
    /// Print the JSON Schema of manifests, for editors
    Schema,
    /// Ask a vendor for one page, and show what its records become; nothing is kept
    Try(trial::TryArgs),
    /// Run a local fake of a vendor until Ctrl-C
    Simulate(simulate::SimulateArgs),
}

pub(super) async fn run(command: VendorsCommand, settings: &Settings) -> anyhow::Result<ExitCode> {
    match command {
        VendorsCommand::List => list(settings).map(|()| ExitCode::SUCCESS),
        VendorsCommand::Schema => {
            println!("{:#}", manifest_schema()?);
            Ok(ExitCode::SUCCESS)
        }
        VendorsCommand::Try(args) => trial::run(&args, settings).await,
        VendorsCommand::Simulate(args) => simulate::run(args).await,
        VendorsCommand::Check { file: None, .. } => {
            println!("{} manifests without mistakes", catalog(settings)?.names().len());
            Ok(ExitCode::SUCCESS)
        }
        VendorsCommand::Check { file: Some(file), payloads, vectors } => {
            check(settings, &file, payloads.as_deref(), vectors.as_deref()).await
        }
    }
}

/// Checks a manifest with all that is recorded of its vendor; every mistake is told.
async fn check(
    settings: &Settings,
    file: &Path,
    payloads: Option<&Path>,
    vectors: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let mut mistakes = Vec::new();
    let report = check_file(file, payloads).map_err(|errors| mistakes.extend(errors.0)).ok();
    let signatures = match vectors {
        Some(vectors) => {
            let made = check_signatures(settings, file, vectors).await?;
            made.map_err(|errors| mistakes.extend(errors.0)).ok()
        }
        None => None,
    };
    if let (Some(report), true) = (report, mistakes.is_empty()) {
        show(&report);
        if let Some(count) = signatures {
            println!("  {count} signatures as expected");
        }
        return Ok(ExitCode::SUCCESS);
    }
    // A manifest with mistakes was read twice.
    mistakes.sort();
    mistakes.dedup();
    eprintln!("{}", ManifestErrors(mistakes));
    Ok(ExitCode::FAILURE)
}

/// Makes the known signatures of a file with a manifest; no vendor is called.
async fn check_signatures(
    settings: &Settings,
    file: &Path,
    vectors: &Path,
) -> anyhow::Result<Result<usize, ManifestErrors>> {
    let scratch = Scratch::open().await?;
    let mut catalog = catalog(settings)?;
    let made = match catalog.add_file(file) {
        Ok(name) => {
            let vendors = Vendors::with_catalog(catalog, &settings.vendors, scratch.store.clone())?;
            check_vectors(&vendors, &name, vectors)
        }
        Err(errors) => Err(errors),
    };
    scratch.close().await;
    Ok(made)
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
    if manifest.streams.is_empty() {
        return "none, it only sends".to_owned();
    }
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
