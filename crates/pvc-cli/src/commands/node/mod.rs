//! `pvc node`.

mod drain;
mod info;
mod list;
mod log;
mod role;

use clap::Subcommand;

use crate::error::{CliError, Result};
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
    List(list::List),
    /// Show a node
    Info(info::Info),
    /// Make a node primary
    Primary(role::Primary),
    /// Make a node give up the primary role
    Secondary(role::Secondary),
    /// Move all virtual machines off a node, and let it take none
    Flush(drain::Flush),
    /// Let a node take virtual machines, and bring back those that were moved off it
    #[command(visible_alias = "unflush")]
    Ready(drain::Ready),
    /// Show the log of a node's agent
    Log(log::Log),
    /// Exit with 0 if the node is primary, else with 1
    IsPrimary(role::IsPrimary),
}

pub(crate) fn run(command: &NodeCommand, session: &Session) -> Result<()> {
    match command {
        NodeCommand::List(command) => command.run(session),
        NodeCommand::Info(command) => command.run(session),
        NodeCommand::Primary(command) => command.run(session),
        NodeCommand::Secondary(command) => command.run(session),
        NodeCommand::Flush(command) => command.run(session),
        NodeCommand::Ready(command) => command.run(session),
        NodeCommand::Log(command) => command.run(session),
        NodeCommand::IsPrimary(command) => command.run(session),
    }
}

/// The node that was named, or the one that this command runs on.
fn named_or_here(node: Option<&str>) -> Result<String> {
    if let Some(node) = node {
        return Ok(node.to_owned());
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(|error| {
        CliError::failure(format!("Can not read this host's name ({error}); name a node"))
    })?;
    let name = name.trim();
    Ok(name.split('.').next().unwrap_or(name).to_owned())
}
