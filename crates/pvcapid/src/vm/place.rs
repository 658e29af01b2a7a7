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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pvc_api::node::{Health, NodeMemory, NodeVcpu};
    use pvc_core::states::CoordinatorState;

    use super::*;

    fn node(name: &str, free: u64, provisioned: u64, load: f64, vcpus: u32, vms: u32) -> Node {
        Node {
            name: name.to_owned(),
            daemon_state: DaemonState::Run,
            coordinator_state: CoordinatorState::Secondary,
            domain_state: DomainState::Ready,
            pvc_version: String::new(),
            cpu_count: 8,
            kernel: String::new(),
            os: String::new(),
            arch: String::new(),
            health: Health::unknown(),
            health_plugins: Vec::new(),
            health_details: Vec::new(),
            load,
            domains_count: vms,
            running_domains: Vec::new(),
            vcpu: NodeVcpu {
                total: 8,
                allocated: vcpus,
            },
            memory: NodeMemory {
                total: 1000,
                allocated: 0,
                provisioned,
                used: 1000 - free,
                free,
            },
            interfaces: BTreeMap::new(),
        }
    }

    const SMALL: Need = Need {
        memory_mib: 100,
        vcpus: 1,
    };

    #[test]
    fn each_selector_has_its_own_best_node() {
        let nodes = [
            node("a", 900, 700, 3.0, 4, 5),
            node("b", 500, 100, 2.0, 5, 4),
            node("c", 400, 600, 1.0, 6, 6),
            node("d", 300, 800, 4.0, 2, 7),
            node("e", 200, 900, 5.0, 3, 2),
        ];
        for (selector, best) in [
            (NodeSelector::Mem, "a"),
            (NodeSelector::None, "a"),
            (NodeSelector::Memprov, "b"),
            (NodeSelector::Load, "c"),
            (NodeSelector::Vcpus, "d"),
            (NodeSelector::Vms, "e"),
        ] {
            let chosen = choose(&nodes, &[], selector, SMALL).unwrap();
            assert_eq!(chosen.name, best, "{selector}");
        }
        let limit = [NodeName::new("d").unwrap(), NodeName::new("e").unwrap()];
        assert_eq!(
            choose(&nodes, &limit, NodeSelector::Mem, SMALL).unwrap().name,
            "d"
        );
    }

    #[test]
    fn a_node_that_takes_no_guests_or_is_too_small_is_never_chosen() {
        let good = node("z", 10, 990, 9.0, 8, 99);
        for change in [
            (|node: &mut Node| node.daemon_state = DaemonState::Dead) as fn(&mut Node),
            |node| node.daemon_state = DaemonState::Init,
            |node| node.domain_state = DomainState::Flushed,
            |node| node.domain_state = DomainState::Flush,
            |node| node.memory.total = 100,
            |node| node.memory.total = 0,
            |node| node.vcpu.total = 0,
        ] {
            let mut bad = node("a", 900, 0, 0.0, 0, 0);
            change(&mut bad);
            let nodes = [bad, good.clone()];
            let chosen = choose(&nodes, &[], NodeSelector::Mem, SMALL).unwrap();
            assert_eq!(chosen.name, "z");
        }
        assert!(choose(&[], &[], NodeSelector::Mem, SMALL).is_none());
        let equal = [node("a", 5, 5, 1.0, 1, 1), node("b", 5, 5, 1.0, 1, 1)];
        assert_eq!(choose(&equal, &[], NodeSelector::Mem, SMALL).unwrap().name, "a");
    }

    #[test]
    fn two_cpus_and_some_memory_are_kept_for_the_node() {
        let check = |memory_mib, vcpus, cpus| {
            let mut node = node("a", 0, 0, 0.0, 0, 0);
            node.vcpu.total = cpus;
            check_fit(&node, Need { memory_mib, vcpus })
        };
        assert_eq!(check(999, 6, 8), Ok(()));
        assert!(matches!(check(1000, 6, 8), Err(Misfit::Memory { .. })));
        assert!(matches!(check(999, 7, 8), Err(Misfit::Vcpus { most: 6, .. })));
        // On the smallest nodes one vCPU is always possible, else they could run nothing.
        assert_eq!(check(1, 1, 2), Ok(()));
        assert_eq!(check(1, 1, 1), Ok(()));
        assert!(matches!(check(1, 2, 2), Err(Misfit::Vcpus { most: 1, .. })));
        assert!(matches!(check(1, 1, 0), Err(Misfit::Unknown { .. })));
    }
}
