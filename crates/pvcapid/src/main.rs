//! Entry point: arguments, configuration, logging, then [`pvcapid::daemon::run`].

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use pvc_common::config;
use pvc_common::telemetry::{self, Format, Verbosity};

/// The PVC API daemon.
#[derive(Debug, Parser)]
#[command(name = "pvcapid", version)]
struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = config::PATH_VARIABLE, default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Check the configuration, print everything that is wrong with it, and exit
    #[arg(long)]
    check_config: bool,
    /// How log lines look: journal, text or json; the journal's format where standard error goes there
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
    /// Print the description of the API (OpenAPI 3.1, JSON) and exit
    #[arg(long)]
    print_openapi: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "pvcapid: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    if args.print_openapi {
        out.write_all(pvcapid::openapi()?.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let node = config::host_node_name().context("this host's name can not be that of a node")?;
    if args.check_config {
        let report = config::check(&args.config, &node)?;
        writeln!(out, "{report}")?;
        return Ok(ExitCode::from(report.exit_code()));
    }
    let loaded = config::load(&args.config, &node)?;
    let _telemetry = telemetry::init(
        args.log_format.unwrap_or_else(Format::detect),
        Verbosity::from(&loaded.config.logging),
    )?;
    for warning in &loaded.warnings {
        tracing::warn!(%warning, "configuration");
    }
    tracing::info!(node = %node, version = env!("CARGO_PKG_VERSION"), "starting");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("can not start threads")?;
    runtime.block_on(pvcapid::daemon::run(&loaded.config))?;
    Ok(ExitCode::SUCCESS)
}
