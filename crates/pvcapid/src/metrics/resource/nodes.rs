//! Nodes.

use pvc_api::node::{InterfaceStats, Node};

use super::super::exposition::{Exposition, Number};
use super::{percent, precise};

pub(super) fn write(text: &mut Exposition, nodes: &[Node]) {
    let mut each = |name, help: &str, value: &dyn Fn(&Node) -> Number| {
        let mut samples = text.gauge(name, help);
        for node in nodes {
            samples.put(&[("node", &node.name)], value(node));
        }
    };
    each("pvc_node_host_cpus", "Logical CPUs of a node", &|node| {
        node.cpu_count.into()
    });
    each(
        "pvc_node_allocated_vcpus",
        "vCPUs of the guests that run on a node",
        &|node| node.vcpu.allocated.into(),
    );
    each(
        "pvc_node_cpu_utilization",
        "Load of a node in percent of its CPUs",
        &|node| Number::Rounded(percent(node.load, f64::from(node.cpu_count))),
    );
    each("pvc_node_domains_count", "Guests that run on a node", &|node| {
        node.domains_count.into()
    });
    each(
        "pvc_node_network_traffic_rx",
        "Received by a node's physical interfaces, in bits a second",
        &|node| sum(node, |interface| interface.rx_bps),
    );
    each(
        "pvc_node_network_traffic_tx",
        "Sent by a node's physical interfaces, in bits a second",
        &|node| sum(node, |interface| interface.tx_bps),
    );
    each(
        "pvc_node_network_packets_rx",
        "Received by a node's physical interfaces, in packets a second",
        &|node| sum(node, |interface| interface.rx_pps),
    );
    each(
        "pvc_node_network_packets_tx",
        "Sent by a node's physical interfaces, in packets a second",
        &|node| sum(node, |interface| interface.tx_pps),
    );
    each(
        "pvc_node_network_utilization",
        "Traffic of a node's physical interfaces in percent of twice their speed",
        &|node| {
            Number::Rounded(percent(
                total(node, |interface| interface.total_bps),
                2.0 * total(node, |interface| interface.link_speed),
            ))
        },
    );
    each("pvc_node_total_memory", "Memory of a node in MiB", &|node| {
        node.memory.total.into()
    });
    each(
        "pvc_node_allocated_memory",
        "Memory of the guests that run on a node, in MiB",
        &|node| node.memory.allocated.into(),
    );
    each(
        "pvc_node_allocated_memory_utilization",
        "Memory of the guests that run on a node in percent of its own",
        &|node| share(node, node.memory.allocated),
    );
    each(
        "pvc_node_provisioned_memory",
        "Memory of all guests placed on a node, in MiB",
        &|node| node.memory.provisioned.into(),
    );
    each(
        "pvc_node_provisioned_memory_utilization",
        "Memory of all guests placed on a node in percent of its own",
        &|node| share(node, node.memory.provisioned),
    );
    each(
        "pvc_node_used_memory",
        "Memory in use on a node, in MiB",
        &|node| node.memory.used.into(),
    );
    each(
        "pvc_node_used_memory_utilization",
        "Memory in use on a node in percent of its own",
        &|node| share(node, node.memory.used),
    );
    each(
        "pvc_node_free_memory",
        "Memory available on a node, in MiB",
        &|node| node.memory.free.into(),
    );

    let mut samples = text
        .gauge("pvc_node_load", "Load average of a node over one minute")
        .named("pvc_node_load_average");
    for node in nodes {
        samples.put(&[("node", &node.name)], node.load);
    }
    let mut samples = text.gauge("pvc_node_architecture", "Processor architecture of a node");
    for node in nodes {
        samples.put(&[("node", &node.name), ("architecture", &node.arch)], 1_u32);
    }
    let mut samples = text.gauge("pvc_node_kernel", "Kernel of a node");
    for node in nodes {
        samples.put(&[("node", &node.name), ("kernel", &node.kernel)], 1_u32);
    }
}

fn total(node: &Node, part: fn(&InterfaceStats) -> i64) -> f64 {
    let sum = node.interfaces.values().fold(0_u64, |sum, interface| {
        sum.saturating_add(u64::try_from(part(interface)).unwrap_or(0))
    });
    precise(sum)
}

fn sum(node: &Node, part: fn(&InterfaceStats) -> i64) -> Number {
    Number::Rounded(total(node, part))
}

fn share(node: &Node, part: u64) -> Number {
    Number::Rounded(percent(precise(part), precise(node.memory.total)))
}
