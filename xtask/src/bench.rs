//! `cargo xtask bench`: figures, on the lab or on a store of their own, with their targets beside them.

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use pvc_lab::Lab;

use crate::workspace;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How the primary role moves and is taken over, and what the daemons cost while nothing happens
    Takeover(Takeover),
    /// How long guests are away when their node dies, and when they move
    Failover(Failover),
    /// How fast the API answers, how soon it shows a change, and what its daemon costs; needs no lab
    Api(Api),
}

#[derive(Debug, Args)]
pub(crate) struct Api {
    /// Write the figures here, a JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many seconds each load lasts
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// How many guests there are, one cluster after another
    #[arg(long, default_value = "10,100,1000,10000")]
    guests: String,
}

#[derive(Debug, Args)]
pub(crate) struct Failover {
    /// Write the figures here, a JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many times a node loses its power and its BMC answers
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// How many times a node loses its power together with its BMC
    #[arg(long, default_value_t = 5)]
    dead_bmc: u32,
    /// How many times the primary's node loses its power
    #[arg(long, default_value_t = 5)]
    primary: u32,
    /// How many live migrations
    #[arg(long, default_value_t = 20)]
    moves: u32,
    /// How many guests are on a node that is killed
    #[arg(long, default_value_t = 10)]
    guests: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Takeover {
    /// Write the figures here, a JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many graceful moves
    #[arg(long, default_value_t = 20)]
    moves: u32,
    /// How many times the primary's node loses its power
    #[arg(long, default_value_t = 5)]
    kills: u32,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Api(api) => measure_api(api),
        Command::Takeover(takeover) => on_a_lab(&["--release"], || {
            measure(
                "takeover",
                &[("--moves", takeover.moves), ("--kills", takeover.kills)],
                takeover.json.as_deref(),
            )
        }),
        Command::Failover(failover) => on_a_lab(&["--release"], || {
            measure(
                "failover",
                &[
                    ("--kills", failover.kills),
                    ("--dead-bmc", failover.dead_bmc),
                    ("--primary", failover.primary),
                    ("--moves", failover.moves),
                    ("--guests", failover.guests),
                ],
                failover.json.as_deref(),
            )
        }),
    }
}

/// The released daemon, on a store of its own.
fn measure_api(api: &Api) -> Result<()> {
    succeed(
        Process::new(workspace::cargo())
            .current_dir(workspace::root())
            .args([
                "build",
                "--release",
                "--quiet",
                "--package",
                "pvcapid",
                "--package",
                "pvc-bench",
            ]),
    )?;
    let release = workspace::target()?.join("release");
    let mut command = Process::new(release.join("pvc-bench"));
    command.arg("--daemon").arg(release.join("pvcapid")).args([
        "--seconds",
        &api.seconds.to_string(),
        "--guests",
        &api.guests,
    ]);
    if let Some(file) = &api.json {
        command.arg("--json").arg(file);
    }
    succeed(&mut command)
}

/// On the lab that is up, or on one brought up with `options` for this and removed afterwards. What is measured is what
/// is released: a lab of `--release` has no debug checks and no pause points.
pub(crate) fn on_a_lab(options: &[&str], work: impl FnOnce() -> Result<()>) -> Result<()> {
    if Lab::attach().is_ok() {
        return work();
    }
    let own = workspace::own()?;
    succeed(Process::new(&own).args(["lab", "up", "--no-guest"]).args(options))?;
    let result = work();
    succeed(Process::new(&own).args(["lab", "down"]))?;
    result
}

fn measure(what: &str, counts: &[(&str, u32)], file: Option<&Path>) -> Result<()> {
    let mut command = Process::new(workspace::cargo());
    command.current_dir(workspace::root()).args([
        "run",
        "--quiet",
        "--package",
        "pvc-cluster-tests",
        "--",
        what,
    ]);
    for (name, count) in counts {
        command.args([*name, &count.to_string()]);
    }
    if let Some(file) = file {
        // The program runs in the workspace's root, the path is meant from here.
        let file = std::path::absolute(file).context("cannot tell the current folder")?;
        command.arg("--json").arg::<&Path>(&file);
    }
    succeed(&mut command)
}

pub(crate) fn succeed(command: &mut Process) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        bail!("`{}` failed: {status}", command.get_program().display());
    }
    Ok(())
}
