//! `pvc vm network`.

use std::fs::File;
use std::io::Read;

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Cell;
use pvc_api::vm::{Vm, VmNetwork};

use super::change::{self, Hotplug, Live, When};
use super::xml::{GuestXml, escaped};
use super::{read, read_value};
use crate::client::{only, segment, typed};
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format, formats};
use crate::session::Session;

/// Networks of the nodes themselves, whose bridges are named after them rather than after a number.
const OF_NODES: [&str; 3] = ["upstream", "cluster", "storage"];

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Show the network interfaces of a virtual machine
    Get(Get),
    /// Add a network interface
    Add(Add),
    /// Remove a network interface
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

/// How a guest is given an SR-IOV function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SriovMode {
    /// As a PCI device; it can not be migrated live
    Hostdev,
    /// Through the node's kernel
    Macvtap,
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Name or UUID
    domain: String,
    /// The network's number; 'upstream', 'cluster' or 'storage'; or with --sriov a function of the VM's node
    net: String,
    /// Its MAC address; one is made up if none is given
    #[arg(short = 'a', long)]
    macaddr: Option<String>,
    /// The device that the virtual machine sees
    #[arg(short, long, default_value = "virtio")]
    model: String,
    /// The network is an SR-IOV function
    #[arg(short, long)]
    sriov: bool,
    /// How the SR-IOV function is given to the virtual machine
    #[arg(short = 'd', long, default_value = "macvtap")]
    sriov_mode: SriovMode,
    #[command(flatten)]
    live: Live,
    #[command(flatten)]
    when: When,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Name or UUID
    domain: String,
    /// The network
    #[arg(required_unless_present = "mac_address")]
    net: Option<String>,
    /// The interface's MAC address, needed where several are in one network
    #[arg(short, long)]
    mac_address: Option<String>,
    /// The network is an SR-IOV function
    #[arg(short, long)]
    sriov: bool,
    #[command(flatten)]
    live: Live,
    #[command(flatten)]
    when: When,
}

pub(crate) fn run(command: &NetworkCommand, session: &Session) -> Result<()> {
    match command {
        NetworkCommand::Get(command) => command.run(session),
        NetworkCommand::Add(command) => command.run(session),
        NetworkCommand::Remove(command) => command.run(session),
    }
}

impl Get {
    fn run(&self, session: &Session) -> Result<()> {
        let value = read_value(session, &self.domain)?;
        if self.format.is_json() {
            output::print(&output::json(&value["networks"], self.format)?);
            return Ok(());
        }
        let vm: Vm = typed(value)?;
        if self.format == Format::Raw {
            output::print(&output::words(vm.networks.iter().map(|network| &network.vni)));
            return Ok(());
        }
        if vm.networks.is_empty() {
            output::line(format!("VM {} has no network interfaces", vm.name));
            return Ok(());
        }
        let mut table = output::table(&["Network", "MAC", "Model", "Type", "Source", ">Received", ">Sent"]);
        for network in &vm.networks {
            table.add_row(vec![
                Cell::new(&network.vni),
                Cell::new(&network.mac),
                Cell::new(&network.model),
                Cell::new(&network.kind),
                Cell::new(&network.source),
                output::number(output::bytes(network.rd_bytes)),
                output::number(output::bytes(network.wr_bytes)),
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
        let mac = match &self.macaddr {
            Some(mac) => mac.to_ascii_lowercase(),
            None => free_mac(&guest)?,
        };
        if guest.has_mac(&mac) {
            return Err(CliError::failure(format!(
                "VM {} has an interface with the MAC address {mac} already",
                vm.name
            )));
        }
        let device = if self.sriov {
            self.sriov_interface(session, &vm, &mac)?
        } else {
            self.bridge_interface(session, &mac)?
        };
        let hotplug = if self.live.is_on() {
            Hotplug::Attach(&device)
        } else {
            Hotplug::None
        };
        let xml = guest.with_device(&device)?;
        let question = format!("Add an interface in network {} to VM {}?", self.net, vm.name);
        change::apply(session, &vm, &xml, &question, hotplug, &self.when)
    }

    fn bridge_interface(&self, session: &Session, mac: &str) -> Result<String> {
        let bridge = if OF_NODES.contains(&self.net.as_str()) {
            format!("br{}", self.net)
        } else {
            // Asked for, so that a wrong number is noticed before the guest fails to start.
            let network = only(
                session
                    .client
                    .get(&format!("/network/{}", segment(&self.net)), &[])?,
            );
            format!("vmbr{}", network["vni"])
        };
        Ok(format!(
            "<interface type='bridge'>\n      <mac address='{}'/>\n      <source bridge='{}'/>\n      <model type='{}'/>\n    </interface>",
            escaped(mac),
            escaped(&bridge),
            escaped(&self.model)
        ))
    }

    fn sriov_interface(&self, session: &Session, vm: &Vm, mac: &str) -> Result<String> {
        let route = format!("/sriov/vf/{}/{}", segment(&vm.node), segment(&self.net));
        let function = only(session.client.get(&route, &[])?);
        let usage = &function["usage"];
        if usage["used"] == "True" {
            return Err(CliError::failure(format!(
                "The SR-IOV function {} of node {} is used by VM {}",
                self.net,
                vm.node,
                usage["domain"].as_str().unwrap_or_default()
            )));
        }
        let mac = escaped(mac);
        Ok(match self.sriov_mode {
            SriovMode::Macvtap => format!(
                "<interface type='direct'>\n      <mac address='{mac}'/>\n      <source dev='{}' mode='passthrough'/>\n      <model type='{}'/>\n    </interface>",
                escaped(&self.net),
                escaped(&self.model)
            ),
            SriovMode::Hostdev => {
                let pci = |part: &str| escaped(function["pci"][part].as_str().unwrap_or_default());
                format!(
                    "<interface type='hostdev' managed='yes'>\n      <mac address='{mac}'/>\n      <source>\n        <address type='pci' domain='0x{}' bus='0x{}' slot='0x{}' function='0x{}'/>\n      </source>\n    </interface>",
                    pci("domain"),
                    pci("bus"),
                    pci("slot"),
                    pci("function")
                )
            }
        })
    }
}

impl Remove {
    fn run(&self, session: &Session) -> Result<()> {
        let vm = read(session, &self.domain)?;
        let interface = self.chosen(&vm)?;
        let guest = GuestXml::parse(&vm.xml)?;
        let node = guest.interface(&interface.mac).ok_or_else(|| {
            CliError::failure(format!(
                "The interface {} has no MAC address in the VM's XML; remove it with 'pvc vm modify --editor'",
                interface.vni
            ))
        })?;
        let device = guest.source(node);
        let xml = guest.without(node);
        let hotplug = if self.live.is_on() {
            Hotplug::Detach(&device)
        } else {
            Hotplug::None
        };
        let question = format!(
            "Remove the interface {} in network {} from VM {}?",
            interface.mac, interface.vni, vm.name
        );
        change::apply(session, &vm, &xml, &question, hotplug, &self.when)
    }

    /// The one interface that is meant.
    fn chosen<'a>(&self, vm: &'a Vm) -> Result<&'a VmNetwork> {
        let fits = |network: &&VmNetwork| {
            let of_net = self.net.as_deref().is_none_or(|net| {
                if self.sriov {
                    network.vni.split_once(':').is_some_and(|(_, dev)| dev == net)
                } else {
                    network.vni == net
                }
            });
            let of_mac = self
                .mac_address
                .as_deref()
                .is_none_or(|mac| network.mac.eq_ignore_ascii_case(mac));
            of_net && of_mac
        };
        let found: Vec<&VmNetwork> = vm.networks.iter().filter(fits).collect();
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(CliError::new(
                Exit::NotFound,
                format!(
                    "VM {} has no such interface; see 'pvc vm network get {}'",
                    vm.name, vm.name
                ),
            )),
            several => {
                let macs: Vec<&str> = several.iter().map(|network| network.mac.as_str()).collect();
                Err(CliError::usage(format!(
                    "VM {} has {} such interfaces; choose one with -m: {}",
                    vm.name,
                    several.len(),
                    macs.join(", ")
                )))
            }
        }
    }
}

/// A MAC address that the guest does not have yet: of QEMU's range, as PVC 1.0.3 makes them.
fn free_mac(guest: &GuestXml<'_>) -> Result<String> {
    for _ in 0..16 {
        let mut random = [0_u8; 3];
        File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut random))
            .map_err(|error| {
                CliError::failure(format!(
                    "Can not make up a MAC address ({error}); give one with -a"
                ))
            })?;
        let mac = mac_of(random);
        if !guest.has_mac(&mac) {
            return Ok(mac);
        }
    }
    Err(CliError::failure(
        "Can not make up a free MAC address; give one with -a",
    ))
}

fn mac_of(random: [u8; 3]) -> String {
    let [a, b, c] = random.map(|byte| 0x10 + byte % 0xdf);
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_addresses_are_in_qemu_s_range() {
        assert_eq!(mac_of([0, 0xde, 0xff]), "52:54:00:10:ee:30");
    }
}
