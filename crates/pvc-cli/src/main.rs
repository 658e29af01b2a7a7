//! The `pvc` command: the cluster at an administrator's hand.

mod adopt;
mod args;
mod client;
mod cluster;
mod confirm;
mod connection;
mod connections;
mod diff;
mod drain;
mod error;
mod fault;
mod fence;
mod locks;
mod meta;
mod moves;
mod node;
mod output;
mod time;
mod vm;
mod wait;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command, Global};
use crate::client::Client;
use crate::confirm::Asking;
use crate::error::Result;

/// What a command that talks to a cluster is given.
#[derive(Debug)]
pub(crate) struct Session {
    /// The cluster.
    pub(crate) client: Client,
    /// Whether questions are asked.
    pub(crate) asking: Asking,
    silent: bool,
}

impl Session {
    fn open(global: &Global) -> Result<Session> {
        let connection = connection::choose(
            global.connection.as_deref(),
            global.url.as_deref(),
            global.api_key_file.as_deref(),
        )?;
        if !global.quiet && !global.silent {
            anstream::eprintln!("Using connection {} ({})", connection.name, connection.url);
        }
        Ok(Session {
            client: Client::new(connection, global.debug),
            asking: if global.r#unsafe {
                Asking::Assume
            } else {
                Asking::Ask
            },
            silent: global.silent,
        })
    }

    /// Says what was done.
    pub(crate) fn say(&self, text: &str) {
        if !self.silent && !text.is_empty() {
            output::line(text);
        }
    }

    /// Whether to ask, given a command's own `--yes`.
    pub(crate) fn asking(&self, yes: bool) -> Asking {
        if yes { Asking::Assume } else { self.asking }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(args::expand(std::env::args()));
    if cli.global.colour {
        anstream::ColorChoice::Always.write_global();
    }
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.message.is_empty() {
                anstream::eprintln!("\x1b[31mError:\x1b[0m {error}");
            }
            ExitCode::from(error.exit as u8)
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let open = || Session::open(&cli.global);
    match &cli.command {
        Command::Connection(command) => connections::run(command, &cli.global),
        Command::Cluster(command) => cluster::run(command, &open()?),
        Command::Node(command) => node::run(command, &open()?),
        Command::Vm(command) => vm::run(command, &open()?),
        Command::Fault(command) => fault::run(command, &open()?),
        Command::Fence(command) => fence::run(command, &open()?),
        Command::Completion { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "pvc", &mut std::io::stdout());
            Ok(())
        }
    }
}
