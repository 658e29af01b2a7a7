//! Choosing a node for a guest.

use pvc_api::node::Node;
use pvc_core::ids::NodeName;
use pvc_core::states::{DaemonState, DomainState, NodeSelector};

/// What a guest needs of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// MiB.
    pub(crate) memory_mib: u64,
    pub(crate) vcpus: u32,
}

/// Why a guest does not fit on a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misfit {
    #[error(
        "node {node} has not reported yet how much memory and how many CPUs it has; try again in some seconds"
    )]
    Unknown { node: String },
    #[error("it needs {needed} MiB of memory, and node {node} has {total} MiB in all")]
    Memory { node: String, needed: u64, total: u64 },
    #[error(
        "it needs {needed} vCPUs, and a VM on node {node} can have {most}: two CPUs are kept for the node"
    )]
    Vcpus { node: String, needed: u32, most: u32 },
}

/// Whether a guest fits on a node at all, as PVC 1.0.3 checks it: memory below the node's, and two of its CPUs kept
/// for the node itself (but one vCPU is always possible).
pub(crate) fn check_fit(node: &Node, need: Need) -> Result<(), Misfit> {
    if node.memory.total == 0 || node.vcpu.total == 0 {
        return Err(Misfit::Unknown {
            node: node.name.clone(),
        });
    }
    if need.memory_mib >= node.memory.total {
        return Err(Misfit::Memory {
            node: node.name.clone(),
            needed: need.memory_mib,
            total: node.memory.total,
        });
    }
    let most = node.vcpu.total.saturating_sub(2).max(1);
    if need.vcpus > most {
        return Err(Misfit::Vcpus {
            node: node.name.clone(),
            needed: need.vcpus,
            most,
        });
    }
    Ok(())
}

/// The node for a new guest among those that take guests, are in `limit` (if that names any) and fit: the best by
/// `selector`, the first in order of names among equals. `None` if there is none.
pub(crate) fn choose<'a>(
    nodes: &'a [Node],
    limit: &[NodeName],
    selector: NodeSelector,
    need: Need,
) -> Option<&'a Node> {
    let mut best: Option<(&Node, f64)> = None;
    for node in nodes {
        let takes_guests = node.daemon_state == DaemonState::Run && node.domain_state == DomainState::Ready;
        let allowed = limit.is_empty() || limit.iter().any(|name| name.as_str() == node.name);
        if !takes_guests || !allowed || check_fit(node, need).is_err() {
            continue;
        }
        let score = score(node, selector);
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((node, score));
        }
    }
    best.map(|(node, _)| node)
}

/// The higher the better.
#[expect(
    clippy::cast_precision_loss,
    reason = "MiB and counts stay far below 2^52, and are only compared"
)]
fn score(node: &Node, selector: NodeSelector) -> f64 {
    match selector {
        // No selector anywhere: as most clusters have it.
        NodeSelector::Mem | NodeSelector::None => node.memory.free as f64,
        NodeSelector::Memprov => {
            (node.memory.used + node.memory.free) as f64 - node.memory.provisioned as f64
        }
        NodeSelector::Load => -node.load,
        NodeSelector::Vcpus => -f64::from(node.vcpu.allocated),
        NodeSelector::Vms => -f64::from(node.domains_count),
    }
}
