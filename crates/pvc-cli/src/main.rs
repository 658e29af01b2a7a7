//! The `pvc` command: the cluster at an administrator's hand.

mod cli;
mod client;
mod commands;
mod complete;
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
mod private;
mod session;
mod task;
mod time;
#[cfg(test)]
mod tree;
mod wait;
mod watch;

use std::process::ExitCode;

use error::{CliError, Result};

fn main() -> ExitCode {
    if complete::answers() {
        return ExitCode::SUCCESS;
    }
    match arguments().and_then(|args| cli::run(cli::expand(args.into_iter()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.message.is_empty() {
                anstream::eprintln!("\x1b[31mError:\x1b[0m {error}");
            }
            ExitCode::from(error.exit as u8)
        }
    }
}

/// What was typed. Names and paths go to the API as JSON and forms, which are UTF-8.
fn arguments() -> Result<Vec<String>> {
    std::env::args_os()
        .map(|arg| {
            arg.into_string()
                .map_err(|arg| CliError::usage(format!("The argument {} is not UTF-8 text", arg.display())))
        })
        .collect()
}
