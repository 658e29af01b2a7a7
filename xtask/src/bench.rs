//! `cargo xtask bench`: figures on the lab, with their targets beside them.

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
        Command::Takeover(takeover) => on_a_lab(|| measure(takeover)),
    }
}

/// On the lab that is up, or on one made for this and removed afterwards.
fn on_a_lab(work: impl FnOnce() -> Result<()>) -> Result<()> {
    if Lab::attach().is_ok() {
        return work();
    }
    let own = workspace::own()?;
    succeed(Process::new(&own).args(["lab", "up", "--no-guest"]))?;
    let result = work();
    succeed(Process::new(&own).args(["lab", "down"]))?;
    result
}

fn measure(takeover: &Takeover) -> Result<()> {
    let mut command = Process::new(workspace::cargo());
    command
        .current_dir(workspace::root())
        .args([
            "run",
            "--quiet",
            "--package",
            "pvc-cluster-tests",
            "--",
            "takeover",
        ])
        .args(["--moves", &takeover.moves.to_string()])
        .args(["--kills", &takeover.kills.to_string()]);
    if let Some(file) = &takeover.json {
        // The program runs in the workspace's root, the path is meant from here.
        let file = std::path::absolute(file).context("cannot tell the current folder")?;
        command.arg("--json").arg::<&Path>(&file);
    }
    succeed(&mut command)
}

fn succeed(command: &mut Process) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        bail!("`{}` failed: {status}", command.get_program().display());
    }
    Ok(())
}
