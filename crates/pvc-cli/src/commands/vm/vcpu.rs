//! `pvc vm vcpu`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::change::{self, Hotplug, When};
use super::read;
use super::xml::{GuestXml, Topology};
use crate::error::{CliError, Result};
use crate::output::{self, Format, Lines, formats};
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum VcpuCommand {
    /// Show how many vCPUs a virtual machine has
    Get(Get),
    /// Give it another number of vCPUs
    Set(Set),
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Name or UUID
    domain: String,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
    format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Name or UUID
    domain: String,
    /// How many
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    vcpus: u32,
    /// Sockets, cores of each and threads of each, separated by commas; one socket with all cores if none is given
    #[arg(short, long, value_name = "S,C,T")]
    topology: Option<Topology>,
    #[command(flatten)]
    when: When,
}

pub(crate) fn run(command: &VcpuCommand, session: &Session) -> Result<()> {
    match command {
        VcpuCommand::Get(command) => command.run(session),
        VcpuCommand::Set(command) => command.run(session),
    }
}

impl Get {
    fn run(&self, session: &Session) -> Result<()> {
        let vm = read(session, &self.domain)?;
        output::print(&match self.format {
            Format::Json | Format::JsonPretty => output::json(
                &json!({"name": vm.name, "vcpu": vm.vcpu, "vcpu_topology": vm.vcpu_topology}),
                self.format,
            )?,
            Format::Raw => format!("{}\n", vm.vcpu),
            Format::Pretty | Format::Short | Format::Long | Format::JsonPrometheus => {
                let mut lines = Lines::default();
                lines.add("Name", &vm.name);
                lines.add("vCPUs", vm.vcpu);
                lines.add("Sockets/cores/threads", &vm.vcpu_topology);
                lines.render()
            }
        });
        Ok(())
    }
}

impl Set {
    fn run(&self, session: &Session) -> Result<()> {
        if let Some(topology) = self.topology
            && topology.vcpus() != Some(self.vcpus)
        {
            return Err(CliError::usage(format!(
                "Sockets times cores times threads must be the number of vCPUs, {}",
                self.vcpus
            )));
        }
        let vm = read(session, &self.domain)?;
        let xml = GuestXml::parse(&vm.xml)?.with_vcpus(self.vcpus, self.topology)?;
        let question = format!(
            "Give VM {} {} vCPUs rather than {}?",
            vm.name, self.vcpus, vm.vcpu
        );
        change::apply(session, &vm, &xml, &question, Hotplug::None, &self.when)
    }
}
