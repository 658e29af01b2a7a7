//! Everything that a developer or CI runs.

#![expect(
    clippy::disallowed_methods,
    reason = "a tool, not a daemon: it runs cargo and the lab, and has no seams to run them through"
)]

mod apt;
mod bench;
mod lab;
mod openapi;
mod sim;
mod soak;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Everything that a developer or CI runs")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A real cluster on this machine
    #[command(subcommand)]
    Lab(lab::Command),
    /// Run all checks and tests, those on the lab included
    Test(test::Arguments),
    /// Measure figures
    #[command(subcommand)]
    Bench(bench::Command),
    /// Kill daemons and move guests at random on the lab, and see that nothing breaks
    Soak(soak::Arguments),
    /// A simulated cluster, and the hunt for schedules that break it
    Sim(sim::Arguments),
    /// Write the description of the API that is checked in
    Openapi,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Lab(command) => lab::run(command),
        Command::Test(arguments) => Ok(test::run(&arguments)),
        Command::Bench(command) => bench::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Soak(arguments) => soak::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Sim(arguments) => sim::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Openapi => openapi::write().map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
