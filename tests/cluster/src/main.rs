//! Tests and benchmarks of a whole cluster on the lab: real agents, ZooKeeper, Ceph, libvirt and QEMU, with faults
//! injected and the invariants observed from outside.
//!
//! * [`addresses`]: when which node had which floating address, by netlink monitors on one clock.
//! * [`api`]: the API as users see it, polled from inside the lab's switch.
//! * [`store`]: the coordination store by typed keys, and samples of the primary role.
//! * [`guests`], [`agent`]: guests and node agents, as seen and as mistreated.
//! * [`cases`]: the cases, run one after the other on one lab.
//!
//! `cargo xtask test` and `cargo xtask bench` run this on a lab that is up.

#![expect(
    clippy::disallowed_methods,
    reason = "a tool that observes daemons from outside: it has no clock seam and polls for conditions"
)]

mod addresses;
mod agent;
mod api;
mod cases;
mod clock;
mod cluster;
mod guests;
mod runner;
mod store;
mod switch;

use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Tests of a whole cluster on the lab that is up")]
struct Arguments {
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Name the cases and end
    #[arg(long)]
    list: bool,
}

#[expect(clippy::print_stdout, reason = "the list is what is asked for")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for case in cases::ALL {
            println!("{}", case.name);
        }
        return ExitCode::SUCCESS;
    }
    match runner::run(cases::ALL, &arguments.filter) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A line about what a case measured or does.
pub(crate) fn say(line: &str) {
    eprintln!("      {line}");
}
