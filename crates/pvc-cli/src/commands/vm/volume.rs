//! `pvc vm volume`.

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Cell;
use pvc_api::vm::Vm;

use super::change::{self, Hotplug, Live, When};
use super::xml::{Bus, GuestXml};
use super::{read, read_value};
use crate::client::{segment, typed};
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format, formats};
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Show the disks of a virtual machine
    Get(Get),
    /// Add a volume that exists as a disk
    Add(Add),
    /// Remove a disk; its volume is kept
    Remove(Remove),
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Name or UUID
    domain: String,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
    format: Format,
}

/// What a disk is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A volume of the storage cluster
    Rbd,
    /// A file of the node
    File,
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Name or UUID
    domain: String,
    /// The volume as POOL/NAME, or with --type file the file's path
    volume: String,
    /// The disk's name, as 'sdb'; the first free one if none is given
    #[arg(short, long)]
    disk_id: Option<String>,
    /// The bus that it is on
    #[arg(short, long, default_value = "scsi")]
    bus: Bus,
    /// What it is on
    #[arg(short = 't', long = "type", default_value = "rbd")]
    kind: Kind,
    #[command(flatten)]
    live: Live,
    #[command(flatten)]
    when: When,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Name or UUID
    domain: String,
    /// The volume as POOL/NAME, the file's path, or the disk's name as 'sdb'
    volume: String,
    #[command(flatten)]
    live: Live,
    #[command(flatten)]
    when: When,
}

pub(crate) fn run(command: &VolumeCommand, session: &Session) -> Result<()> {
    match command {
        VolumeCommand::Get(command) => command.run(session),
        VolumeCommand::Add(command) => command.run(session),
        VolumeCommand::Remove(command) => command.run(session),
    }
}

impl Get {
    fn run(&self, session: &Session) -> Result<()> {
        let value = read_value(session, &self.domain)?;
        if self.format.is_json() {
            output::print(&output::json(&value["disks"], self.format)?);
            return Ok(());
        }
        let vm: Vm = typed(value)?;
        if self.format == Format::Raw {
            output::print(&output::words(vm.disks.iter().map(|disk| &disk.name)));
            return Ok(());
        }
        if vm.disks.is_empty() {
            output::line(format!("VM {} has no disks", vm.name));
            return Ok(());
        }
        let mut table = output::table(&["Disk", "Volume", "Type", "Bus", ">Read", ">Written"]);
        for disk in &vm.disks {
            table.add_row(vec![
                Cell::new(&disk.dev),
                Cell::new(&disk.name),
                Cell::new(&disk.kind),
                Cell::new(&disk.bus),
                output::number(output::bytes(disk.rd_bytes)),
                output::number(output::bytes(disk.wr_bytes)),
            ]);
        }
        output::print(&output::render(table));
        Ok(())
    }
}

impl Add {
    fn run(&self, session: &Session) -> Result<()> {
        let vm = read(session, &self.domain)?;
        let guest = GuestXml::parse(&vm.xml)?;
        let name = match &self.disk_id {
            Some(name) => name.clone(),
            None => guest.free_disk(self.bus)?,
        };
        for taken in [&self.volume, &name] {
            if guest.disk(taken).is_some() {
                return Err(CliError::failure(format!(
                    "VM {} has a disk {taken} already; see 'pvc vm volume get {}'",
                    vm.name, vm.name
                )));
            }
        }
        let device = match self.kind {
            Kind::Rbd => {
                let Some((pool, volume)) = self.volume.split_once('/') else {
                    return Err(CliError::usage(format!(
                        "A volume is named as POOL/NAME, not {:?}",
                        self.volume
                    )));
                };
                // Asked for, so that a wrong name is noticed before the guest fails to start.
                let route = format!("/storage/ceph/volume/{}/{}", segment(pool), segment(volume));
                match session.client.get(&route, &[]) {
                    Ok(_) => {}
                    // Where no volume is on record, as long as nothing puts them there, that says nothing about this one.
                    Err(error) if error.exit == Exit::NotFound && knows_no_volumes(session)? => {
                        session.remark(&format!(
                            "The cluster keeps no record of volumes, so {} was not looked for",
                            self.volume
                        ));
                    }
                    Err(error) => return Err(error),
                }
                guest.rbd_disk(&self.volume, &name, self.bus)?
            }
            Kind::File => GuestXml::file_disk(&self.volume, &name, self.bus),
        };
        let hotplug = if self.live.is_on() {
            Hotplug::Attach(&device)
        } else {
            Hotplug::None
        };
        let xml = guest.with_device(&device)?;
        let question = format!("Add {} to VM {} as disk {name}?", self.volume, vm.name);
        change::apply(session, &vm, &xml, &question, hotplug, &self.when)
    }
}

impl Remove {
    fn run(&self, session: &Session) -> Result<()> {
        let vm = read(session, &self.domain)?;
        let guest = GuestXml::parse(&vm.xml)?;
        let disk = guest.disk(&self.volume).ok_or_else(|| {
            CliError::new(
                Exit::NotFound,
                format!(
                    "VM {} has no disk {}; see 'pvc vm volume get {}'",
                    vm.name, self.volume, vm.name
                ),
            )
        })?;
        let device = guest.source(disk);
        let xml = guest.without(disk);
        let hotplug = if self.live.is_on() {
            Hotplug::Detach(&device)
        } else {
            Hotplug::None
        };
        let question = format!(
            "Remove disk {} from VM {}? Its volume is kept.",
            self.volume, vm.name
        );
        change::apply(session, &vm, &xml, &question, hotplug, &self.when)
    }
}

fn knows_no_volumes(session: &Session) -> Result<bool> {
    let volumes = session.client.list("/storage/ceph/volume", &[])?;
    Ok(volumes.as_array().is_some_and(Vec::is_empty))
}
