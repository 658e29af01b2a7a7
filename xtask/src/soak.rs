//! `cargo xtask soak`: chaos on the lab for as long as one likes.

use std::process::Command as Process;

use anyhow::Result;
use clap::Args;

use crate::{bench, workspace};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// For how long
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// What is done, and when, follows from this; drawn and told if not given
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    bench::on_a_lab(&[], || {
        let mut command = Process::new(workspace::cargo());
        command
            .current_dir(workspace::root())
            .args(["run", "--quiet", "--package", "pvc-cluster-tests", "--", "soak"])
            .args(["--minutes", &arguments.minutes.to_string()]);
        if let Some(seed) = arguments.seed {
            command.args(["--seed", &seed.to_string()]);
        }
        bench::succeed(&mut command)
    })
}
