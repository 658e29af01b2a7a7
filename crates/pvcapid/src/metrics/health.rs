//! Counts and health, under the names of PVC 1.0.3.

use std::collections::BTreeMap;

use pvc_api::node::Health;
use pvc_api::status::ClusterStatus;
use pvc_core::states::{DaemonState, DomainState, VmState};

use super::exposition::{Exposition, Samples};

/// All families of `/metrics/health`.
pub(crate) fn health(status: &ClusterStatus) -> String {
    let mut text = Exposition::default();
    text.gauge("pvc_info", "Identity of the cluster").put(
        &[
            ("primary_node", &status.primary_node),
            ("version", &status.pvc_version),
            ("upstream_ip", &status.upstream_ip),
        ],
        1_u32,
    );
    text.gauge(
        "pvc_cluster_maintenance",
        "1 while the cluster is under maintenance",
    )
    .put(&[], status.maintenance == "true");
    text.gauge("pvc_cluster_health", "Health of the cluster in percent")
        .put_known(&[], percent(&status.cluster_health.health));

    let mut faults = BTreeMap::from([("new", 0_u64), ("ack", 0)]);
    for fault in &status.detail.faults {
        *faults.entry(&fault.status).or_default() += 1;
    }
    let mut samples = text.gauge("pvc_cluster_faults", "Faults by status");
    for (status, count) in faults {
        samples.put(&[("status", status)], count);
    }

    let mut samples = text.gauge("pvc_node_health", "Health of a node in percent");
    for (node, health) in &status.node_health {
        samples.put_known(&[("node", node)], percent(&health.health));
    }
    let nodes = &status.detail.node;
    per_state(
        text.gauge("pvc_node_daemon_states", "Nodes by the state of their agent"),
        DaemonState::ALL,
        nodes.iter().map(|node| node.daemon_state),
    );
    per_state(
        text.gauge("pvc_node_domain_states", "Nodes by whether they take guests"),
        DomainState::ALL,
        nodes.iter().map(|node| node.domain_state),
    );
    per_state(
        text.gauge("pvc_vm_states", "Guests by state"),
        VmState::ALL,
        status.detail.vm.iter().map(|vm| vm.state),
    );

    let osds = &status.detail.osd;
    let mut samples = text.gauge("pvc_ceph_osd_up_states", "OSDs that run and that do not");
    for state in ["up", "down"] {
        samples.put(
            &[("state", state)],
            osds.iter().filter(|osd| osd.up == state).count(),
        );
    }
    let mut samples = text.gauge(
        "pvc_ceph_osd_in_states",
        "OSDs on which data is placed and others",
    );
    for state in ["in", "out"] {
        samples.put(
            &[("state", state)],
            osds.iter().filter(|osd| osd.in_ == state).count(),
        );
    }

    text.gauge("pvc_nodes", "Nodes").put(&[], nodes.len());
    text.gauge("pvc_vms", "Guests").put(&[], status.detail.vm.len());
    text.gauge("pvc_osds", "OSDs")
        .put(&[], status.osds.get("total").copied().unwrap_or(0));
    text.gauge("pvc_networks", "Virtual networks")
        .put(&[], status.networks);
    text.gauge("pvc_pools", "Storage pools").put(&[], status.pools);
    text.gauge("pvc_volumes", "Volumes").put(&[], status.volumes);
    text.gauge("pvc_snapshots", "Snapshots of volumes")
        .put(&[], status.snapshots);
    text.finish()
}

/// A health figure; none where nothing is known.
fn percent(health: &Health) -> Option<u8> {
    match health {
        Health::Percent(percent) => Some(*percent),
        Health::Unknown(_) => None,
    }
}

/// How many are in each state; every state has a sample.
fn per_state<T: PartialEq + ToString>(
    mut samples: Samples<'_>,
    all: &[T],
    found: impl Iterator<Item = T> + Clone,
) {
    for state in all {
        let count = found.clone().filter(|found| found == state).count();
        samples.put(&[("state", &state.to_string())], count);
    }
}
