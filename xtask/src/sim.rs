//! `cargo xtask sim`: the simulated cluster.
//!
//! It is built by an invocation of its own: the features that it turns on in other crates (fakes, mutations) must never
//! reach a program that we ship.

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace;

/// Schedules that CI tries.
pub(crate) const CI_SEEDS: &str = "0..20000";

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// What the simulator is told: `--seeds A..B [--nodes N] [--guests M]`, `--scenarios [TEXT] [--bless]`,
    /// `--mutations`, `--play FILE`; see `--help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// The command that builds and runs the simulator.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root()).args([
        "run",
        "--quiet",
        "--profile",
        "sim",
        "--package",
        "pvc-sim",
    ]);
    if words.contains(&"--mutations") {
        command.args(["--features", "mutations"]);
    }
    command.arg("--").args(words);
    command
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    let status = command(&words).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the simulator failed: {status}");
    }
    Ok(())
}
