//! Tests and benchmarks of a whole cluster on the lab: real agents, ZooKeeper, Ceph, libvirt and QEMU, with faults
//! injected and the invariants observed from outside.
//!
//! * [`addresses`]: when which node had which floating address, by netlink monitors on one clock.
//! * [`api`]: the API as users see it, polled from inside the lab's switch.
//! * [`store`]: the coordination store by typed keys, and samples of the primary role.
//! * [`guests`], [`agent`]: guests and node agents, as seen and as mistreated.
//! * [`observer`]: a process of its own that watches everything from outside, and what must never be seen.
//! * [`cases`]: the cases, run one after the other on one lab.
//! * [`soak`]: chaos by a seed, for as long as one likes.
//! * `bench`: figures with their targets.
//!
//! `cargo xtask test` and `cargo xtask bench` run this on a lab that is up.

#![expect(
    clippy::disallowed_methods,
    reason = "a tool that observes daemons from outside: it has no clock seam and polls for conditions"
)]

mod addresses;
mod agent;
mod api;
mod bench;
mod cases;
mod clock;
mod cluster;
mod guests;
mod observer;
mod runner;
mod soak;
mod store;
mod switch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Tests and benchmarks of a whole cluster on the lab that is up")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the cases
    Test {
        /// Only those whose name contains this
        #[arg(long, value_name = "TEXT", default_value = "")]
        filter: String,
    },
    /// Name the cases
    List,
    /// Watch the lab from outside until standard input ends, and print what is seen as JSON lines
    Observe,
    /// Measure how the primary role moves and is taken over
    Takeover(Takeover),
    /// Measure how long guests are away when their node dies, and when they move
    Failover(Failover),
    /// Mistreat daemons and guests at random, and see that nothing breaks
    Soak(Soak),
}

#[derive(Debug, Args)]
struct Failover {
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
    guests: usize,
}

#[derive(Debug, Args)]
struct Soak {
    /// For how long
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// What is done, and when, follows from this; drawn and told if not given
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Debug, Args)]
struct Takeover {
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

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the list is what is asked for")]
fn run(command: Command) -> Result<bool> {
    match command {
        Command::Test { filter } => runner::run(cases::ALL, &filter),
        Command::List => {
            for case in cases::ALL {
                println!("{}", case.name);
            }
            Ok(true)
        }
        Command::Failover(Failover {
            json,
            kills,
            dead_bmc,
            primary,
            moves,
            guests,
        }) => {
            let figures = bench::failover(bench::FailoverCounts {
                kills,
                dead_bmc,
                primary,
                moves,
                guests,
            })?;
            bench::report(&figures, json.as_deref())?;
            Ok(true)
        }
        Command::Soak(Soak { minutes, seed }) => {
            soak::run(std::time::Duration::from_secs(minutes * 60), seed)?;
            Ok(true)
        }
        Command::Observe => observer::watch::run(),
        Command::Takeover(Takeover { json, moves, kills }) => {
            let figures = bench::takeover(bench::Counts { moves, kills })?;
            bench::report(&figures, json.as_deref())?;
            Ok(true)
        }
    }
}

/// A line about what a case measured or does.
pub(crate) fn say(line: &str) {
    eprintln!("      {line}");
}
