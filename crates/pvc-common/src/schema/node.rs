//! The keys of a new node.

use pvc_core::ids::NodeName;
use pvc_core::states::{CoordinatorState, DaemonMode, DaemonState, DomainState};

use super::LATEST;
use crate::keys;
use crate::keys::values::{Load, Nothing, OrNone, Release, RunningDomains, SpaceList};
use crate::secret::Secret;
use crate::store::Txn;

/// What a node is created with. All else begins empty or at zero; its agent writes it as it comes to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNode {
    /// Its name.
    pub name: NodeName,
    /// What it is for.
    pub mode: DaemonMode,
    /// Whether it takes guests. PVC 1.0.3 begins with `flushed`, until an administrator makes it ready.
    pub domain_state: DomainState,
    /// Now, in seconds since 1970, to be shown as its first keepalive.
    pub keepalive: u64,
}

/// The creation of every key that a node has, parents first. For a node that is known already, see
/// [`missing`](super::missing).
pub fn node_keys(new: &NewNode) -> Txn {
    let node = keys::node(&new.name);
    let coordinator_state = match new.mode {
        DaemonMode::Coordinator => CoordinatorState::Secondary,
        DaemonMode::Hypervisor => CoordinatorState::Client,
    };
    let txn = Txn::new()
        .create(&node.root(), &new.mode)
        .create(&node.keepalive(), &new.keepalive)
        .create(&node.daemon_mode(), &new.mode)
        .create(&node.active_schema(), &LATEST)
        .create(&node.latest_schema(), &LATEST)
        .create(&node.static_data(), &None)
        .create(&node.pvc_version(), &Release::ours())
        .create(&node.running_domains(), &RunningDomains(Vec::new()))
        .create(&node.domains_count(), &0)
        .create(&node.networks_count(), &0)
        .create(&node.daemon_state(), &DaemonState::Init)
        .create(&node.coordinator_state(), &coordinator_state)
        .create(&node.domain_state(), &new.domain_state)
        .create(&node.cpu_load(), &Load(0.0))
        .create(&node.vcpu_allocated(), &0)
        .create(&node.memory_total_mib(), &0)
        .create(&node.memory_used_mib(), &0)
        .create(&node.memory_free_mib(), &0)
        .create(&node.memory_allocated_mib(), &0)
        .create(&node.memory_provisioned_mib(), &0)
        .create(&node.ipmi_hostname(), &String::new())
        .create(&node.ipmi_username(), &String::new())
        .create(&node.ipmi_password(), &Secret::new(""))
        .create(&node.sriov(), &Nothing)
        .create(&node.sriov_pf(), &Nothing)
        .create(&node.sriov_vf(), &Nothing)
        .create(&node.monitoring_plugins(), &SpaceList(Vec::new()))
        .create(&node.monitoring_data(), &Nothing)
        .create(&node.monitoring_health(), &OrNone(None))
        .create(&node.network_stats(), &None)
        .create(&keys::log(&new.name).root(), &Nothing)
        .create(&keys::log(&new.name).messages(), &String::new());
    txn.and(protocol_keys_of_node(&new.name))
}

/// The creation of the keys that schema 16 adds to a node: no lease, no fence, no readings. They exist so that their
/// versions can be checked.
pub fn protocol_keys_of_node(name: &NodeName) -> Txn {
    let node = keys::node(name);
    Txn::new()
        .create(&node.upstream(), &None)
        .create(&node.reserved(), &None)
        .create(&node.addresses(), &None)
        .create(&node.bmc(), &None)
        .create(&node.hold(), &None)
        .create(&node.drain(), &None)
        .create(&node.agent_stats(), &None)
        .create(&keys::lease_node(name), &None)
        .create(&keys::fence(name), &None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::keys::NodeKeys;
    use crate::store::Op;

    #[test]
    fn a_new_node_has_every_key_of_a_node() {
        // A key that is missing cannot be written with a version check, and breaks those who read it.
        let txn = node_keys(&NewNode {
            name: NodeName::new("hv1").unwrap(),
            mode: DaemonMode::Hypervisor,
            domain_state: DomainState::Flushed,
            keepalive: 7,
        });
        let mut written = BTreeSet::new();
        for op in &txn.ops {
            let Op::Create { path, data } = op else {
                panic!("{op:?}");
            };
            assert!(written.insert(path.as_str()), "twice: {path}");
            if path == "/nodes/hv1/routerstate" {
                assert_eq!(data, b"client");
            }
        }
        let expected: Vec<String> = NodeKeys::RELATIVE
            .iter()
            .map(|relative| format!("/nodes/hv1{relative}"))
            .chain(
                [
                    "/leases/nodes/hv1",
                    "/fences/hv1",
                    "/logs/hv1",
                    "/logs/hv1/messages",
                ]
                .map(str::to_owned),
            )
            .collect();
        assert_eq!(written, expected.iter().map(String::as_str).collect());
    }
}
