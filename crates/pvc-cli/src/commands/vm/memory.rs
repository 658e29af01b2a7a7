//! `pvc vm memory`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::change::{self, Hotplug, When};
use super::read;
use super::xml::GuestXml;
use crate::error::Result;
use crate::output::{self, Format, Lines, formats};
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum MemoryCommand {
    /// Show how much memory a virtual machine has
    Get(Get),
    /// Give it more or less memory
    Set(Set),
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Name or UUID
    domain: String,
    /// How to show it
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
    format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Name or UUID
    domain: String,
    /// How much, in MiB
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    memory: u64,
    #[command(flatten)]
    when: When,
}

pub(crate) fn run(command: &MemoryCommand, session: &Session) -> Result<()> {
    match command {
        MemoryCommand::Get(command) => command.run(session),
        MemoryCommand::Set(command) => command.run(session),
    }
}

impl Get {
    fn run(&self, session: &Session) -> Result<()> {
        let vm = read(session, &self.domain)?;
        output::print(&match self.format {
            Format::Json | Format::JsonPretty => {
                output::json(&json!({"name": vm.name, "memory": vm.memory}), self.format)?
            }
            Format::Raw => format!("{}\n", vm.memory),
            Format::Pretty | Format::Short | Format::Long | Format::JsonPrometheus => {
                let mut lines = Lines::default();
                lines.add("Name", &vm.name);
                lines.add("Memory", format!("{} MiB", vm.memory));
                lines.render()
            }
        });
        Ok(())
    }
}

impl Set {
    fn run(&self, session: &Session) -> Result<()> {
        let vm = read(session, &self.domain)?;
        let xml = GuestXml::parse(&vm.xml)?.with_memory(self.memory)?;
        let question = format!(
            "Give VM {} {} MiB of memory rather than {}?",
            vm.name, self.memory, vm.memory
        );
        change::apply(session, &vm, &xml, &question, Hotplug::None, &self.when)
    }
}
