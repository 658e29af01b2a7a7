//! The `pvc` command: the cluster at an administrator's hand.

mod cli;
mod client;
mod commands;
mod confirm;
mod connection;
mod diff;
mod error;
mod events;
mod log;
mod output;
mod session;
mod task;
mod time;
mod wait;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse_from(cli::expand(std::env::args()));
    if cli.global.colour {
        anstream::ColorChoice::Always.write_global();
    }
    match cli::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.message.is_empty() {
                anstream::eprintln!("\x1b[31mError:\x1b[0m {error}");
            }
            ExitCode::from(error.exit as u8)
        }
    }
}
