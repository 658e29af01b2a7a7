//! The cluster as a whole: how much of what it could lose a node of is in use.

use pvc_api::node::Node;

use super::super::exposition::{Exposition, Number};
use super::{Resources, percent, precise};

pub(super) fn write(text: &mut Exposition, of: &Resources<'_>) {
    let nodes = of.nodes;
    let mut share = |name, help: &str, part: f64, whole: f64| {
        text.gauge(name, help)
            .put(&[], Number::Rounded(percent(part, whole)));
    };
    let load: f64 = nodes.iter().fold(0.0, |sum, node| sum + node.load);
    share(
        "pvc_cluster_cpu_utilization",
        "Load in percent of the CPUs that are left without the largest node",
        load,
        without_largest(nodes, |node| u64::from(node.cpu_count)),
    );
    let interfaces = || nodes.iter().flat_map(|node| node.interfaces.values());
    let sum = |part: fn(&pvc_api::node::InterfaceStats) -> i64| {
        interfaces().fold(0_u64, |sum, interface| {
            sum.saturating_add(u64::try_from(part(interface)).unwrap_or(0))
        })
    };
    // Both means are over the same interfaces, so their ratio is that of the sums.
    share(
        "pvc_cluster_network_utilization",
        "Traffic of all physical interfaces in percent of twice their speed",
        precise(sum(|interface| interface.total_bps)),
        2.0 * precise(sum(|interface| interface.link_speed)),
    );
    let base = without_largest(nodes, |node| node.memory.total);
    let memory = |part: fn(&Node) -> u64| {
        precise(
            nodes
                .iter()
                .fold(0_u64, |sum, node| sum.saturating_add(part(node))),
        )
    };
    share(
        "pvc_cluster_memory_real_utilization",
        "Memory in use in percent of what is left without the largest node",
        memory(|node| node.memory.used),
        base,
    );
    share(
        "pvc_cluster_memory_allocated_utilization",
        "Memory of running guests in percent of what is left without the largest node",
        memory(|node| node.memory.allocated),
        base,
    );
    share(
        "pvc_cluster_memory_provisioned_utilization",
        "Memory of all guests in percent of what is left without the largest node",
        memory(|node| node.memory.provisioned),
        base,
    );
    let kib = |field: &str| {
        of.osds.iter().fold(0_u64, |sum, osd| {
            sum.saturating_add(
                osd.stats
                    .get(field)
                    .and_then(serde_json::Value::as_u64)
                    .unwrap_or(0),
            )
        })
    };
    share(
        "pvc_cluster_disk_utilization",
        "OSD space in use in percent",
        precise(kib("kb_used")),
        precise(kib("kb")),
    );
}

/// What is left when the node with the most fails: the cluster should do with this. A cluster of one node has only that.
fn without_largest(nodes: &[Node], part: fn(&Node) -> u64) -> f64 {
    let total = nodes
        .iter()
        .fold(0_u64, |sum, node| sum.saturating_add(part(node)));
    let largest = nodes.iter().map(part).max().unwrap_or(0);
    match nodes.len() {
        0 | 1 => precise(total),
        _ => precise(total.saturating_sub(largest)),
    }
}
