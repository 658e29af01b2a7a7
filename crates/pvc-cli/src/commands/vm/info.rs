//! `pvc vm info`.

use clap::Args;
use pvc_api::vm::Vm;
use pvc_core::states::VmState;

use super::read_value;
use crate::client::typed;
use crate::error::Result;
use crate::output::{self, Format, Lines, formats};
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Name or UUID
    domain: String,
    /// How to show it
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "long", "json", "json-pretty"]))]
    format: Format,
}

impl Info {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let value = read_value(session, &self.domain)?;
        if self.format.is_json() {
            output::print(&output::json(&value, self.format)?);
            return Ok(());
        }
        let vm: Vm = typed(value)?;
        let mut lines = lines(&vm);
        if self.format == Format::Long {
            long(&vm, &mut lines);
        }
        output::print(&lines.render());
        Ok(())
    }
}

/// The guest in labelled lines.
fn lines(vm: &Vm) -> Lines {
    let mut lines = Lines::default();
    lines.add("Name", &vm.name);
    lines.add("UUID", &vm.uuid);
    if !vm.description.is_empty() {
        lines.add("Description", &vm.description);
    }
    lines.add("State", output::painted(vm.state.as_str()));
    if !vm.failed_reason.is_empty() {
        // A guest that runs keeps the reason of what was last called off, as a migration.
        let label = if vm.state == VmState::Fail {
            "Failed because"
        } else {
            "Last trouble"
        };
        lines.add(label, &vm.failed_reason);
    }
    if let Some(error) = &vm.xml_error {
        lines.add("Bad XML", error);
    }
    if let Some(error) = &vm.store_error {
        lines.add("Bad record", error);
    }
    lines.add("Node", &vm.node);
    match (vm.running, vm.owner.as_str()) {
        (_, "") => lines.add("Runs on", "-"),
        (true, owner) => lines.add("Runs on", owner),
        (false, owner) => lines.add("Runs on", format!("- (being started on {owner})")),
    };
    if !vm.incoming.is_empty() {
        lines.add(
            "Moving",
            format!("\x1b[33mis being received by {}\x1b[0m", vm.incoming),
        );
    }
    lines.add("Migrated", &vm.migrated);
    lines.gap();
    lines.add("Memory", output::mebibytes(vm.memory));
    lines.add(
        "vCPUs",
        match vm.vcpu_topology.as_str() {
            "N/A" | "" => vm.vcpu.to_string(),
            topology => format!("{} (sockets/cores/threads {topology})", vm.vcpu),
        },
    );
    for disk in &vm.disks {
        lines.add(
            &format!("Disk {}", disk.dev),
            format!("{} {} on {}", disk.kind, disk.name, disk.bus),
        );
    }
    for network in &vm.networks {
        lines.add(
            &format!("Network {}", network.vni),
            format!("{} {} ({})", network.mac, network.model, network.source),
        );
    }
    if let (Some(listen), Some(port)) = (&vm.vnc.listen, &vm.vnc.port) {
        lines.add("VNC", format!("{listen}:{port}"));
    }
    lines.gap();
    let limit = vm.node_limit.as_deref().unwrap_or_default().join(", ");
    lines.add("Node limit", output::or_dash(&limit));
    lines.add(
        "Node selector",
        output::or_dash(vm.node_selector.as_deref().unwrap_or_default()),
    );
    lines.add("Autostart", if vm.node_autostart { "yes" } else { "no" });
    lines.add(
        "Migration",
        format!(
            "method {}, pause of {} ms at most",
            vm.migration_method.as_deref().unwrap_or("none"),
            vm.migration_max_downtime
        ),
    );
    lines.add("Recovery", format!("priority {}", vm.recovery_priority));
    lines.add("Keep apart", output::or_dash(&vm.anti_affinity.join(", ")));
    let tags: Vec<String> = vm
        .tags
        .iter()
        .map(|tag| match tag.protected {
            true => format!("{} (protected)", tag.name),
            false => tag.name.clone(),
        })
        .collect();
    lines.add("Tags", output::or_dash(&tags.join(", ")));
    lines
}

/// What is rarely asked for.
fn long(vm: &Vm, lines: &mut Lines) {
    lines.gap();
    lines.add("Profile", &vm.profile);
    lines.add("Type", format!("{} {} {}", vm.kind, vm.arch, vm.machine));
    lines.add("Emulator", output::or_dash(&vm.emulator));
    lines.add("Features", output::or_dash(&vm.features.join(" ")));
    lines.add("Console", &vm.console);
    for controller in &vm.controllers {
        lines.add(
            &format!("Controller {}", controller.kind),
            output::or_dash(controller.model.as_deref().unwrap_or_default()),
        );
    }
    for disk in &vm.disks {
        lines.add(
            &format!("I/O of {}", disk.dev),
            format!(
                "{} read in {} requests, {} written in {}",
                output::bytes(disk.rd_bytes),
                disk.rd_req,
                output::bytes(disk.wr_bytes),
                disk.wr_req
            ),
        );
    }
    for network in &vm.networks {
        lines.add(
            &format!("Traffic of {}", network.vni),
            format!(
                "{} received, {} sent",
                output::bytes(network.rd_bytes),
                output::bytes(network.wr_bytes)
            ),
        );
    }
    for snapshot in &vm.snapshots {
        lines.add("Snapshot", &snapshot.name);
    }
}
