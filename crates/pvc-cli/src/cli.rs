//! The command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::api::Api;
use crate::commands::audit::Audit;
use crate::commands::cluster::ClusterCommand;
use crate::commands::connection::ConnectionCommand;
use crate::commands::fault::FaultCommand;
use crate::commands::fence::FenceCommand;
use crate::commands::network::NetworkCommand;
use crate::commands::node::NodeCommand;
use crate::commands::storage::StorageCommand;
use crate::commands::token::TokenCommand;
use crate::commands::user::UserCommand;
use crate::commands::vm::VmCommand;
use crate::commands::{cluster, connection, fault, fence, network, node, storage, token, user, vm};
use crate::error::Result;
use crate::session::Session;
use crate::{complete, output, plain};

/// Manage a Parallel Virtual Cluster.
#[derive(Debug, Parser)]
#[command(name = "pvc", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command; they stand before it.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The connection to use; 'local' on a node if none is named [env: PVC_CONNECTION]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) connection: Option<String>,
    /// Use the API at this URL rather than a connection; its token is taken from PVC_API_KEY or --api-key-file [env:
    /// PVC_URL]
    #[arg(long, value_name = "URL", conflicts_with = "connection")]
    pub(crate) url: Option<String>,
    /// Read the token for --url from this file (- for standard input)
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Show each request and how it was answered
    #[arg(short = 'v', long, env = "PVC_DEBUG", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) debug: bool,
    /// Do not say which connection is used
    #[arg(short, long, env = "PVC_QUIET", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) quiet: bool,
    /// Say nothing but what was asked for and errors
    #[arg(short, long, env = "PVC_SILENT", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) silent: bool,
    /// Ask nothing: take every question as confirmed
    #[arg(short, long, env = "PVC_UNSAFE", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) r#unsafe: bool,
    /// Use colours even where there is no terminal
    #[arg(long, visible_alias = "color", env = "PVC_COLOUR", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) colour: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Saved connections to clusters
    #[command(subcommand)]
    Connection(ConnectionCommand),
    /// The cluster as a whole
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Virtual machines
    #[command(subcommand)]
    Vm(VmCommand),
    /// Virtual networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// The storage cluster
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Nodes that are suspect or dead, and what becomes of their guests
    #[command(subcommand)]
    Fence(FenceCommand),
    /// What is wrong in the cluster and wants a person
    #[command(subcommand)]
    Fault(FaultCommand),
    /// Tokens of the API
    #[command(subcommand)]
    Token(TokenCommand),
    /// People who log in to the web interface
    #[command(subcommand)]
    User(UserCommand),
    /// Show what was done through the API, the latest first
    Audit(Audit),
    /// Send a request to the API and print the reply
    Api(Api),
    /// Print a script that completes commands in a shell
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// Does what the command line says. Ends the program itself where there is nothing to do: for help, and for a command line
/// that makes no sense.
pub(crate) fn run(args: Vec<String>) -> Result<()> {
    let plains = plain::all();
    let mut command = plain::extend(Cli::command(), &plains);
    let mut matches = command
        .try_get_matches_from_mut(args)
        .unwrap_or_else(|error| error.exit());
    let global = Global::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit());
    if global.colour {
        anstream::ColorChoice::Always.write_global();
    }
    if let Some((plain, matches)) = plain::find(&plains, &matches) {
        return plain.run(matches, &Session::open(&global)?);
    }
    let cli =
        Cli::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.format(&mut command).exit());
    dispatch(&cli)
}

fn dispatch(cli: &Cli) -> Result<()> {
    let open = || Session::open(&cli.global);
    match &cli.command {
        Command::Connection(command) => connection::run(command, &cli.global),
        Command::Cluster(command) => cluster::run(command, &open()?),
        Command::Node(command) => node::run(command, &open()?),
        Command::Vm(command) => vm::run(command, &open()?),
        Command::Network(command) => network::run(command, &open()?),
        Command::Storage(command) => storage::run(command, &open()?),
        Command::Fault(command) => fault::run(command, &open()?),
        Command::Fence(command) => fence::run(command, &open()?),
        Command::Token(command) => token::run(command, &open()?),
        Command::User(command) => user::run(command, &open()?),
        Command::Audit(command) => command.run(&open()?),
        Command::Api(command) => command.run(&open()?),
        Command::Completion { shell } => {
            let script = complete::script(&shell.to_string())?;
            output::print(&String::from_utf8_lossy(&script));
            Ok(())
        }
    }
}

/// PVC 1.0.3 has options of two letters behind one dash, which the parser does not know: they become their long forms.
pub(crate) fn expand(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut group: Option<String> = None;
    args.map(|arg| {
        if group.is_none() && matches!(arg.as_str(), "node" | "network") {
            group = Some(arg.clone());
        }
        let long = match (group.as_deref(), arg.as_str()) {
            (Some("node"), "-ds") => "--daemon-state",
            (Some("node"), "-cs") => "--coordinator-state",
            (Some("node"), "-vs") => "--domain-state",
            (Some("network"), "-i6") => "--ipnet6",
            (Some("network"), "-g6") => "--gateway6",
            (Some(_) | None, _) => return arg,
        };
        long.to_owned()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        plain::extend(Cli::command(), &plain::all()).debug_assert();
    }

    #[test]
    fn two_letter_options_of_the_reference_are_understood() {
        let args = ["pvc", "node", "list", "-ds", "run", "-cs", "primary"];
        let cli = Cli::try_parse_from(expand(args.iter().map(|arg| (*arg).to_owned()))).unwrap();
        let Command::Node(NodeCommand::List(list)) = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(
            list.query(),
            [("daemon_state", "run"), ("coordinator_state", "primary")]
        );
    }
}
