//! The cluster: its nodes and networks, and which of the nodes this one is.

use pvc_core::ids::NodeName;
use pvc_core::states::DaemonMode;

use super::finding::Problem;
use super::network::{Networks, Nodes, Selection, read as read_networks};
use super::section::Section;

/// The `cluster` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's name.
    pub name: String,
    /// Short host names of all nodes.
    pub all_nodes: Vec<NodeName>,
    /// Short host names of the nodes that may be primary. ZooKeeper runs on them.
    pub coordinator_nodes: Vec<NodeName>,
    /// The host networks.
    pub networks: Networks,
}

impl Cluster {
    /// What a node is for.
    pub fn mode_of(&self, node: &NodeName) -> DaemonMode {
        if self.coordinator_nodes.contains(node) {
            DaemonMode::Coordinator
        } else {
            DaemonMode::Hypervisor
        }
    }
}

pub(super) fn read(section: &mut Section<'_>, host: &NodeName) -> Option<Cluster> {
    let name = section.required::<String>("name");
    let all_nodes = read_nodes(section, "all_nodes");
    let coordinator_nodes = read_nodes(section, "coordinator_nodes");
    if let Some(all) = &all_nodes {
        if !all.contains(host) {
            section.report("all_nodes", Problem::HostNotListed(host.clone()));
        }
        for coordinator in coordinator_nodes
            .iter()
            .flatten()
            .filter(|node| !all.contains(node))
        {
            section.report(
                "coordinator_nodes",
                Problem::CoordinatorNotANode(coordinator.clone()),
            );
        }
    }
    if let Some(count) = coordinator_nodes.as_ref().map(Vec::len)
        && count > 0
        && count % 2 == 0
    {
        section.report("coordinator_nodes", Problem::EvenCoordinators { count });
    }
    let nodes = Nodes {
        own: host,
        all: all_nodes.as_deref().unwrap_or_default(),
    };
    let networks = section.section("networks", |section| read_networks(section, nodes));
    // A host that is not in the list has its number taken all the same, so that addresses can be checked.
    if networks.as_ref().is_none_or(has_selection_by_id) {
        check_numbers(section, nodes.all);
    }
    Some(Cluster {
        name: name?,
        all_nodes: all_nodes?,
        coordinator_nodes: coordinator_nodes?,
        networks: networks?,
    })
}

fn read_nodes(section: &mut Section<'_>, key: &'static str) -> Option<Vec<NodeName>> {
    let mut nodes: Vec<NodeName> = Vec::new();
    for node in section.required_list::<NodeName>(key)? {
        if nodes.contains(&node.value) {
            section
                .findings()
                .add(node.path, Some(node.line), Problem::NodeTwice(node.value));
        } else {
            nodes.push(node.value);
        }
    }
    Some(nodes)
}

fn has_selection_by_id(networks: &Networks) -> bool {
    networks.iter().any(|(_, network)| {
        network.ipv4.selection == Selection::ById
            || network.ipv6.is_some_and(|ipv6| ipv6.selection == Selection::ById)
    })
}

fn check_numbers(section: &Section<'_>, nodes: &[NodeName]) {
    for (index, node) in nodes.iter().enumerate() {
        let number = node.number();
        if number == 0 {
            section.report("all_nodes", Problem::NodeWithoutNumber(node.clone()));
        } else if let Some(earlier) = nodes
            .iter()
            .take(index)
            .find(|earlier| earlier.number() == number)
        {
            section.report(
                "all_nodes",
                Problem::SameNodeNumber(earlier.clone(), node.clone()),
            );
        }
    }
}
