//! Which addresses the configuration gives to what.

use std::net::IpAddr;

use pvc_common::config::{Config, NetworkKind};

use crate::host::{RoleAddress, RoleNetwork};

/// The addresses that follow the primary role, each with the bridge that carries it.
pub(super) fn of_role(config: &Config) -> Vec<RoleAddress> {
    let networks = &config.cluster.networks;
    networks
        .iter()
        .flat_map(|(kind, network)| {
            network.floating_addresses().map(move |ip| RoleAddress {
                network: match kind {
                    NetworkKind::Upstream => RoleNetwork::Upstream,
                    NetworkKind::Cluster => RoleNetwork::Cluster,
                    NetworkKind::Storage => RoleNetwork::Storage,
                },
                interface: networks.bridge(kind).to_owned(),
                ip,
            })
        })
        .collect()
}

/// The same, bare.
pub(super) fn floating(config: &Config) -> Vec<IpAddr> {
    config
        .cluster
        .networks
        .iter()
        .flat_map(|(_, network)| network.floating_addresses())
        .collect()
}

/// This node's own addresses on the storage network: those that its Ceph clients have.
pub(super) fn storage(config: &Config) -> Vec<IpAddr> {
    config
        .cluster
        .networks
        .storage
        .node_addresses()
        .map(|(ip, _)| ip)
        .collect()
}
