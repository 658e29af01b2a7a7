//! Guests.

use pvc_api::vm::{Vm, VmDisk, VmNetwork};
use pvc_core::states::VmState;
use serde_json::Value;

use super::super::exposition::Exposition;
use super::precise;

/// libvirt counts CPU time in nanoseconds.
const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

pub(super) fn write(text: &mut Exposition, vms: &[Vm]) {
    facts(text, vms);
    settings(text, vms);
    cpu(text, vms);
    memory(text, vms);
    networks(text, vms);
    disks(text, vms);
}

/// A family with one sample a guest, whose label tells something and whose value is 1.
fn told(
    text: &mut Exposition,
    vms: &[Vm],
    name: &'static str,
    help: &str,
    label: &str,
    of: fn(&Vm) -> String,
) {
    let mut samples = text.gauge(name, help);
    for vm in vms {
        samples.put(&[("vm", &vm.name), (label, &of(vm))], 1_u32);
    }
}

fn facts(text: &mut Exposition, vms: &[Vm]) {
    told(text, vms, "pvc_vm_uuid", "UUID of a guest", "uuid", |vm| {
        vm.uuid.clone()
    });
    told(
        text,
        vms,
        "pvc_vm_description",
        "Description of a guest",
        "description",
        |vm| vm.description.clone(),
    );
    told(
        text,
        vms,
        "pvc_vm_profile",
        "Provisioner profile of a guest",
        "profile",
        |vm| vm.profile.clone(),
    );
    let mut samples = text.gauge("pvc_vm_state", "State of a guest as a number");
    for vm in vms {
        let labels = [("vm", vm.name.as_str()), ("state", &vm.state.to_string())];
        samples.put(&labels, state_number(vm.state));
    }
    told(
        text,
        vms,
        "pvc_vm_failed_reason",
        "Why a guest has failed",
        "failed_reason",
        |vm| vm.failed_reason.clone(),
    );
    told(text, vms, "pvc_vm_active_node", "Node of a guest", "node", |vm| {
        vm.node.clone()
    });
    let mut samples = text.gauge("pvc_vm_migrated", "1 for a guest that is away from its node");
    for vm in vms {
        let labels = [("vm", vm.name.as_str()), ("last_node", &vm.last_node)];
        samples.put(&labels, !vm.last_node.is_empty());
    }
    told(
        text,
        vms,
        "pvc_vm_machine_type",
        "Machine type of a guest",
        "machine_type",
        |vm| vm.machine.clone(),
    );
    let mut samples = text.gauge("pvc_vm_serial_console", "1 for a guest with a serial console");
    for vm in vms {
        samples.put(&[("vm", &vm.name)], vm.console == "pty");
    }
    let mut samples = text.gauge("pvc_vm_vnc_console", "1 for a guest with a VNC console");
    for vm in vms {
        samples.put(&[("vm", &vm.name)], vm.vnc.listen.is_some());
    }
    told(
        text,
        vms,
        "pvc_vm_vnc_listen_address",
        "Where a guest's VNC console listens",
        "address",
        |vm| vm.vnc.listen.clone().unwrap_or_default(),
    );
    told(
        text,
        vms,
        "pvc_vm_vnc_listen_port",
        "Port of a guest's VNC console",
        "port",
        |vm| vm.vnc.port.clone().unwrap_or_default(),
    );
}

fn settings(text: &mut Exposition, vms: &[Vm]) {
    told(
        text,
        vms,
        "pvc_vm_node_limit",
        "Nodes to which a guest is limited",
        "node_limit",
        |vm| vm.node_limit.as_deref().unwrap_or_default().join(","),
    );
    told(
        text,
        vms,
        "pvc_vm_node_selector",
        "How the nodes of a guest are chosen",
        "node_selector",
        |vm| vm.node_selector.clone().unwrap_or_else(|| "none".to_owned()),
    );
    let mut samples = text
        .gauge("pvc_vm_node_autostart", "Whether a guest starts with its node")
        .named("pvc_vm_autostart");
    for vm in vms {
        let word = if vm.node_autostart { "True" } else { "False" };
        samples.put(&[("vm", &vm.name), ("autostart", word)], 1_u32);
    }
    told(
        text,
        vms,
        "pvc_vm_migration_method",
        "How a guest may be moved",
        "migration_method",
        |vm| vm.migration_method.clone().unwrap_or_else(|| "none".to_owned()),
    );
    let mut samples = text.gauge("pvc_vm_tags", "Tags of a guest");
    for vm in vms {
        for tag in &vm.tags {
            samples.put(&[("vm", &vm.name), ("tag", &tag.name)], 1_u32);
        }
    }
}

fn cpu(text: &mut Exposition, vms: &[Vm]) {
    let mut samples = text.gauge("pvc_vm_vcpus", "vCPUs of a guest");
    for vm in vms {
        samples.put(&[("vm", &vm.name)], vm.vcpu);
    }
    told(
        text,
        vms,
        "pvc_vm_vcpu_topology",
        "Topology of a guest's vCPUs: sockets, cores, threads",
        "topology",
        |vm| vm.vcpu_topology.clone(),
    );
    for (name, help, field) in [
        (
            "pvc_vm_vcpus_cpu_time",
            "CPU time of a guest in milliseconds",
            "cpu_time",
        ),
        (
            "pvc_vm_vcpus_user_time",
            "User time of a guest in milliseconds",
            "user_time",
        ),
        (
            "pvc_vm_vcpus_system_time",
            "System time of a guest in milliseconds",
            "system_time",
        ),
    ] {
        let mut samples = text.gauge(name, help);
        for vm in vms {
            let time = number(&vm.vcpu_stats, field);
            samples.put_known(
                &[("vm", &vm.name)],
                time.map(|time| time / precise(NANOSECONDS_PER_MILLISECOND)),
            );
        }
    }
}

/// The figures of a guest's memory: family, help, name of the samples, field.
const MEMORY: [(&str, &str, &str, &str); 12] = [
    (
        "pvc_vm_memory_stats_actual",
        "Memory that a guest has, in KiB",
        "pvc_vm_memory_stats_actual",
        "actual",
    ),
    (
        "pvc_vm_memory_stats_rss",
        "Memory that a guest's process takes, in KiB",
        "pvc_vm_memory_stats_rss",
        "rss",
    ),
    (
        "pvc_vm_memory_stats_unused",
        "Memory that a guest leaves unused, in KiB",
        "pvc_vm_memory_stats_unused",
        "unused",
    ),
    (
        "pvc_vm_memory_stats_available",
        "Memory that a guest sees, in KiB",
        "pvc_vm_memory_stats_available",
        "available",
    ),
    (
        "pvc_vm_memory_stats_usable",
        "Memory that a guest could use without swapping, in KiB",
        "pvc_vm_memory_stats_usable",
        "usable",
    ),
    (
        "pvc_vm_memory_stats_disk_caches",
        "Memory that a guest uses for caches, in KiB",
        "pvc_vm_memory_stats_disk_caches",
        "disk_caches",
    ),
    (
        "pvc_vm_memory_swap_in",
        "Memory that a guest has swapped in, in KiB",
        "pvc_vm_memory_stats_swap_in",
        "swap_in",
    ),
    (
        "pvc_vm_memory_swap_out",
        "Memory that a guest has swapped out, in KiB",
        "pvc_vm_memory_stats_swap_out",
        "swap_out",
    ),
    (
        "pvc_vm_memory_major_fault",
        "Page faults of a guest that needed its disk",
        "pvc_vm_memory_stats_major_fault",
        "major_fault",
    ),
    (
        "pvc_vm_memory_minor_fault",
        "Other page faults of a guest",
        "pvc_vm_memory_stats_minor_fault",
        "minor_fault",
    ),
    (
        "pvc_vm_memory_hugetlb_pgalloc",
        "Huge pages that a guest was given",
        "pvc_vm_memory_stats_hugetlb_pgalloc",
        "hugetlb_pgalloc",
    ),
    (
        "pvc_vm_memory_hugetlb_pgfail",
        "Huge pages that a guest asked for in vain",
        "pvc_vm_memory_stats_hugetlb_pgfail",
        "hugetlb_pgfail",
    ),
];

fn memory(text: &mut Exposition, vms: &[Vm]) {
    let mut samples = text.gauge("pvc_vm_memory", "Memory of a guest in MiB");
    for vm in vms {
        samples.put(&[("vm", &vm.name)], vm.memory);
    }
    for (family, help, name, field) in MEMORY {
        let mut samples = text.gauge(family, help).named(name);
        for vm in vms {
            samples.put_known(&[("vm", &vm.name)], number(&vm.memory_stats, field));
        }
    }
}

fn networks(text: &mut Exposition, vms: &[Vm]) {
    let mut labelled = |name, help: &str, label: &str, of: fn(&VmNetwork) -> &String| {
        let mut samples = text.gauge(name, help);
        for vm in vms {
            for network in &vm.networks {
                samples.put(
                    &[("vm", &vm.name), ("vni", &network.vni), (label, of(network))],
                    1_u32,
                );
            }
        }
    };
    labelled(
        "pvc_vm_network_macaddr",
        "MAC address of a guest's interface",
        "macaddr",
        |network| &network.mac,
    );
    labelled(
        "pvc_vm_network_model",
        "Model of a guest's interface",
        "model",
        |network| &network.model,
    );
    let mut counted = |name, help: &str, of: fn(&VmNetwork) -> u64| {
        let mut samples = text.gauge(name, help);
        for vm in vms {
            for network in &vm.networks {
                samples.put(&[("vm", &vm.name), ("vni", &network.vni)], of(network));
            }
        }
    };
    counted(
        "pvc_vm_network_rd_packets",
        "Packets that a guest received",
        |network| network.rd_packets,
    );
    counted(
        "pvc_vm_network_rd_bits",
        "Bits that a guest received",
        |network| network.rd_bytes.saturating_mul(8),
    );
    counted(
        "pvc_vm_network_rd_errors",
        "Packets that a guest received with errors",
        |network| network.rd_errors,
    );
    counted(
        "pvc_vm_network_rd_drops",
        "Packets to a guest that were dropped",
        |network| network.rd_drops,
    );
    counted(
        "pvc_vm_network_wr_packets",
        "Packets that a guest sent",
        |network| network.wr_packets,
    );
    counted("pvc_vm_network_wr_bits", "Bits that a guest sent", |network| {
        network.wr_bytes.saturating_mul(8)
    });
    counted(
        "pvc_vm_network_wr_errors",
        "Packets of a guest that were sent with errors",
        |network| network.wr_errors,
    );
    counted(
        "pvc_vm_network_wr_drops",
        "Packets of a guest that were dropped",
        |network| network.wr_drops,
    );
}

fn disks(text: &mut Exposition, vms: &[Vm]) {
    let mut counted = |name, help: &str, of: fn(&VmDisk) -> u64| {
        let mut samples = text.gauge(name, help);
        for vm in vms {
            for disk in &vm.disks {
                samples.put(&[("vm", &vm.name), ("disk", &disk.name)], of(disk));
            }
        }
    };
    counted("pvc_vm_disk_rd_req", "Read requests of a guest's disk", |disk| {
        disk.rd_req
    });
    counted("pvc_vm_disk_rd_bytes", "Bytes read from a guest's disk", |disk| {
        disk.rd_bytes
    });
    counted("pvc_vm_disk_wr_req", "Write requests of a guest's disk", |disk| {
        disk.wr_req
    });
    counted(
        "pvc_vm_disk_wr_bytes",
        "Bytes written to a guest's disk",
        |disk| disk.wr_bytes,
    );
}

/// The numbers by which dashboards tell states apart. Those above 10, but for 99, are of states that PVC 1.0.3 did not
/// number.
fn state_number(state: VmState) -> u32 {
    match state {
        VmState::Start => 0,
        VmState::Migrate | VmState::MigrateLive => 1,
        VmState::Unmigrate => 2,
        VmState::Provision => 3,
        VmState::Disable => 4,
        VmState::Shutdown => 5,
        VmState::Restart => 6,
        VmState::Stop => 7,
        VmState::Fail => 8,
        VmState::Import => 9,
        VmState::Restore => 10,
        VmState::Delete => 11,
        VmState::Mirror => 99,
    }
}

fn number(stats: &Value, field: &str) -> Option<f64> {
    stats.get(field).and_then(Value::as_f64)
}
