//! `pvc vm`.

mod change;
mod define;
mod dump;
mod info;
mod list;
mod locks;
mod log;
mod memory;
mod meta;
mod modify;
mod moves;
mod network;
mod rename;
mod state;
mod tag;
mod undefine;
mod vcpu;
mod volume;
mod xml;

use std::path::Path;

use clap::{Subcommand, ValueEnum};
use pvc_api::vm::Vm;
use serde_json::Value;

use crate::client::{only, segment, typed};
use crate::confirm::{Answer, confirm};
use crate::error::{CliError, Result};
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// List virtual machines
    List(list::List),
    /// Show a virtual machine
    Info(info::Info),
    /// Register a virtual machine
    Define(define::Define),
    /// Show or change how a virtual machine is placed, moved and recovered
    Meta(meta::Meta),
    /// Replace the definition of a virtual machine
    Modify(modify::Modify),
    /// Give a stopped virtual machine another name
    Rename(rename::Rename),
    /// Tags, by which virtual machines are listed
    #[command(subcommand)]
    Tag(tag::TagCommand),
    /// vCPUs
    #[command(subcommand)]
    Vcpu(vcpu::VcpuCommand),
    /// Memory
    #[command(subcommand)]
    Memory(memory::MemoryCommand),
    /// Network interfaces
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Disks
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Start a virtual machine
    Start(state::Start),
    /// Shut a virtual machine down and start it again
    Restart(state::Restart),
    /// Shut a virtual machine down
    Shutdown(state::Shutdown),
    /// Switch a virtual machine off
    Stop(state::Stop),
    /// Shut a virtual machine down and keep it from being started or watched
    Disable(state::Disable),
    /// Move a virtual machine to another node for a while; 'unmigrate' brings it back
    Migrate(moves::Migrate),
    /// Bring a migrated virtual machine back to its node
    Unmigrate(moves::Unmigrate),
    /// Move a virtual machine to another node for good
    Move(moves::Move),
    /// Remove the locks that a dead client has left on the volumes of a stopped virtual machine
    FlushLocks(locks::FlushLocks),
    /// Unregister a virtual machine; its volumes are kept
    Undefine(undefine::Undefine),
    /// Unregister a virtual machine and delete its volumes
    Remove(undefine::Remove),
    /// Show what a virtual machine writes to its serial console
    Log(log::Log),
    /// Print or save the XML of a virtual machine
    Dump(dump::Dump),
}

pub(crate) fn run(command: &VmCommand, session: &Session) -> Result<()> {
    match command {
        VmCommand::List(command) => command.run(session),
        VmCommand::Info(command) => command.run(session),
        VmCommand::Define(command) => command.run(session),
        VmCommand::Meta(command) => command.run(session),
        VmCommand::Modify(command) => command.run(session),
        VmCommand::Rename(command) => command.run(session),
        VmCommand::Tag(command) => tag::run(command, session),
        VmCommand::Vcpu(command) => vcpu::run(command, session),
        VmCommand::Memory(command) => memory::run(command, session),
        VmCommand::Network(command) => network::run(command, session),
        VmCommand::Volume(command) => volume::run(command, session),
        VmCommand::Start(command) => command.run(session),
        VmCommand::Restart(command) => command.run(session),
        VmCommand::Shutdown(command) => command.run(session),
        VmCommand::Stop(command) => command.run(session),
        VmCommand::Disable(command) => command.run(session),
        VmCommand::Migrate(command) => command.run(session),
        VmCommand::Unmigrate(command) => command.run(session),
        VmCommand::Move(command) => command.run(session),
        VmCommand::FlushLocks(command) => command.run(session),
        VmCommand::Undefine(command) => command.run(session),
        VmCommand::Remove(command) => command.run(session),
        VmCommand::Log(command) => command.run(session),
        VmCommand::Dump(command) => command.run(session),
    }
}

/// How a target node is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Selector {
    /// Most free memory
    Mem,
    /// Most memory not provisioned
    Memprov,
    /// Lowest load
    Load,
    /// Fewest vCPUs
    Vcpus,
    /// Fewest guests
    Vms,
    /// As the cluster does
    None,
}

/// How a guest may be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// Live if possible
    None,
    /// Live only
    Live,
    /// By shutdown and start
    Shutdown,
}

/// The word for a value, as on the command line so in the API.
fn word(value: impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

/// The route of a guest.
fn path(domain: &str) -> String {
    format!("/vm/{}", segment(domain))
}

/// A guest as the API sends it.
fn read_value(session: &Session, domain: &str) -> Result<Value> {
    Ok(only(session.client.get(&path(domain), &[])?))
}

/// A guest.
fn read(session: &Session, domain: &str) -> Result<Vm> {
    typed(read_value(session, domain)?)
}

/// Does it if the administrator says so.
fn ask(session: &Session, question: &str, yes: bool, go: impl FnOnce() -> Result<()>) -> Result<()> {
    match confirm(question, session.asking(yes))? {
        Answer::Yes => go(),
        Answer::No => Ok(()),
    }
}

/// The XML in a file, or in standard input for `-`.
fn read_xml(file: &Path) -> Result<String> {
    if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    }
    .map_err(|error| CliError::failure(format!("Can not read {}: {error}", file.display())))
}
