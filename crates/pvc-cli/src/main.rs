//! The `pvc` command: the cluster at an administrator's hand.

mod cli;
mod client;
mod commands;
mod confirm;
mod connection;
mod diff;
mod editor;
mod error;
mod events;
mod interrupt;
mod log;
mod output;
mod plain;
mod session;
mod task;
mod time;
#[cfg(test)]
mod tree;
mod wait;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(cli::expand(std::env::args())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.message.is_empty() {
                anstream::eprintln!("\x1b[31mError:\x1b[0m {error}");
            }
            ExitCode::from(error.exit as u8)
        }
    }
}
