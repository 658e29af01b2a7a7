//! Which addresses the configuration gives to what.

use std::net::IpAddr;

use pvc_common::config::{Config, Network, NetworkKind};
use pvc_core::records::NodeAddresses;

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

/// This node's own address on each network, IPv4: what others must know of it when it does not answer any more.
pub(super) fn of_node(config: &Config) -> NodeAddresses {
    let networks = &config.cluster.networks;
    let own = |network: &Network| IpAddr::from(network.ipv4.node_address);
    NodeAddresses {
        cluster: own(&networks.cluster),
        storage: own(&networks.storage),
        upstream: Some(own(&networks.upstream)),
    }
}
