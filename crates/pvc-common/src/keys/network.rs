//! Keys of virtual networks and of SR-IOV functions.

use pvc_core::ids::NodeName;

use super::values::{CommaList, Nothing, OrNone};
use super::{Container, Key, key_group};

key_group!(
    /// One virtual network.
    NetworkKeys {
        /// Its description, by which it can be asked for as well.
        description: Key<String> = "",
        /// `managed` or `bridged`.
        kind: Key<String> = "/nettype",
        /// Its MTU as text; empty for the largest that is possible.
        mtu: Key<String> = "/mtu",
        /// Above its firewall rules.
        rules: Key<Nothing> = "/firewall_rules",
        /// Above the rules for what goes in.
        rules_in: Key<Nothing> = "/firewall_rules/in",
        /// Above the rules for what goes out.
        rules_out: Key<Nothing> = "/firewall_rules/out",
        /// Name servers of its domain.
        name_servers: Key<CommaList<String>> = "/name_servers",
        /// Its DNS domain.
        domain: Key<OrNone<String>> = "/domain",
        /// Above its DHCP reservations.
        reservations: Key<Nothing> = "/dhcp4_reservations",
        /// Above its DHCP leases.
        leases: Key<Nothing> = "/dhcp4_leases",
        /// Its IPv4 gateway, which follows the primary.
        ip4_gateway: Key<OrNone<String>> = "/ip4_gateway",
        /// Its IPv4 network, `ADDRESS/PREFIX`.
        ip4_network: Key<OrNone<String>> = "/ip4_network",
        /// Whether IPv4 addresses are given out.
        dhcp4: Key<OrNone<bool>> = "/dhcp4_flag",
        /// The first address that is given out.
        dhcp4_start: Key<OrNone<String>> = "/dhcp4_start",
        /// The last one.
        dhcp4_end: Key<OrNone<String>> = "/dhcp4_end",
        /// Its IPv6 gateway.
        ip6_gateway: Key<OrNone<String>> = "/ip6_gateway",
        /// Its IPv6 network.
        ip6_network: Key<OrNone<String>> = "/ip6_network",
        /// Whether IPv6 addresses are given out.
        dhcp6: Key<OrNone<bool>> = "/dhcp6_flag",
    }
);

/// Keys of the network with that number.
pub fn network(vni: u32) -> NetworkKeys {
    NetworkKeys::below(format!("/networks/{vni}"))
}

/// Networks by VNI.
pub fn networks() -> Container<u32> {
    Container::at("/networks")
}

key_group!(
    /// An address that a network keeps for one MAC address.
    ReservationKeys {
        /// The word `static`.
        root: Key<String> = "",
        /// The address.
        address: Key<String> = "/ipaddr",
        /// The name that goes with it.
        hostname: Key<OrNone<String>> = "/hostname",
    }
);

/// Keys of a reservation; `mac` is a child of [`network_reservations`].
pub fn network_reservation(vni: u32, mac: &str) -> ReservationKeys {
    ReservationKeys::below(format!("/networks/{vni}/dhcp4_reservations/{mac}"))
}

/// A network's reservations by MAC address.
pub fn network_reservations(vni: u32) -> Container<String> {
    Container::at(format!("/networks/{vni}/dhcp4_reservations"))
}

key_group!(
    /// An address that a network has given out for a time.
    DhcpLeaseKeys {
        /// Exists as long as the lease does.
        root: Key<Nothing> = "",
        /// The address.
        address: Key<String> = "/ipaddr",
        /// The name that the client gave; may be empty.
        hostname: Key<OrNone<String>> = "/hostname",
        /// When it ends, in seconds since 1970; 0 if that is not known.
        expiry: Key<u64> = "/expiry",
        /// What the client calls itself; `*` if it did not say.
        client_id: Key<String> = "/clientid",
    }
);

/// Keys of a lease; `mac` is a child of [`network_leases`].
pub fn network_lease(vni: u32, mac: &str) -> DhcpLeaseKeys {
    DhcpLeaseKeys::below(format!("/networks/{vni}/dhcp4_leases/{mac}"))
}

/// A network's leases by MAC address.
pub fn network_leases(vni: u32) -> Container<String> {
    Container::at(format!("/networks/{vni}/dhcp4_leases"))
}

/// Which traffic a firewall rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Towards the network.
    In,
    /// Out of it.
    Out,
}

impl Direction {
    /// Both.
    pub const ALL: [Direction; 2] = [Direction::In, Direction::Out];

    /// The word in the store and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::In => "in",
            Direction::Out => "out",
        }
    }
}

impl std::str::FromStr for Direction {
    type Err = String;

    fn from_str(text: &str) -> Result<Direction, String> {
        match text {
            "in" => Ok(Direction::In),
            "out" => Ok(Direction::Out),
            other => Err(format!("{other:?} must be one of in, out")),
        }
    }
}

key_group!(
    /// One firewall rule of a network.
    RuleKeys {
        /// Exists as long as the rule does.
        root: Key<Nothing> = "",
        /// The nftables statement.
        rule: Key<String> = "/rule",
        /// Its place among the rules of its direction, from 0.
        order: Key<u32> = "/order",
    }
);

/// Keys of a rule; `description` is a child of [`network_rules`].
pub fn network_rule(vni: u32, direction: Direction, description: &str) -> RuleKeys {
    RuleKeys::below(format!(
        "/networks/{vni}/firewall_rules/{}/{description}",
        direction.as_str()
    ))
}

/// A network's rules of one direction by description.
pub fn network_rules(vni: u32, direction: Direction) -> Container<String> {
    Container::at(format!("/networks/{vni}/firewall_rules/{}", direction.as_str()))
}

key_group!(
    /// A physical SR-IOV function of a node.
    SriovPfKeys {
        /// Exists as long as the function does.
        root: Key<Nothing> = "",
        /// Its MTU.
        mtu: Key<String> = "/mtu",
        /// How many virtual functions it has.
        vf_count: Key<String> = "/vfcount",
    }
);

/// Keys of a physical function; `pf` is a child of [`sriov_pfs`].
pub fn sriov_pf(node: &NodeName, pf: &str) -> SriovPfKeys {
    SriovPfKeys::below(format!("/nodes/{node}/sriov/pf/{pf}"))
}

/// A node's physical functions by name.
pub fn sriov_pfs(node: &NodeName) -> Container<String> {
    Container::at(format!("/nodes/{node}/sriov/pf"))
}

key_group!(
    /// A virtual SR-IOV function of a node. Everything is shown as it is stored: the agent that manages these functions
    /// comes with virtual networks.
    SriovVfKeys {
        /// Exists as long as the function does.
        root: Key<Nothing> = "",
        /// The physical function that it belongs to.
        pf: Key<String> = "/pf",
        /// Its MTU.
        mtu: Key<String> = "/mtu",
        /// Its MAC address.
        mac: Key<String> = "/mac",
        /// The MAC address that its hardware has.
        hardware_mac: Key<String> = "/phy_mac",
        /// Above its settings.
        config: Key<Nothing> = "/config",
        /// VLAN; 0 for none.
        vlan_id: Key<String> = "/config/vlan_id",
        /// Priority in the VLAN.
        vlan_qos: Key<String> = "/config/vlan_qos",
        /// Least rate of sending, in Mbit/s.
        tx_rate_min: Key<String> = "/config/tx_rate_min",
        /// Largest rate of sending, in Mbit/s.
        tx_rate_max: Key<String> = "/config/tx_rate_max",
        /// Whether a guest may send from another MAC address only if this is off.
        spoof_check: Key<String> = "/config/spoof_check",
        /// `auto`, `enable` or `disable`.
        link_state: Key<String> = "/config/link_state",
        /// Whether a guest may change its settings.
        trust: Key<String> = "/config/trust",
        /// Whether a guest may ask for the hash of received packets.
        query_rss: Key<String> = "/config/query_rss",
        /// Above its PCI address.
        pci: Key<Nothing> = "/pci",
        /// PCI domain.
        pci_domain: Key<String> = "/pci/domain",
        /// PCI bus.
        pci_bus: Key<String> = "/pci/bus",
        /// PCI slot.
        pci_slot: Key<String> = "/pci/slot",
        /// PCI function.
        pci_function: Key<String> = "/pci/function",
        /// Whether a guest has it.
        used: Key<String> = "/used",
        /// The guest's UUID; empty for none.
        used_by: Key<String> = "/used_by",
    }
);

/// Keys of a virtual function; `vf` is a child of [`sriov_vfs`].
pub fn sriov_vf(node: &NodeName, vf: &str) -> SriovVfKeys {
    SriovVfKeys::below(format!("/nodes/{node}/sriov/vf/{vf}"))
}

/// A node's virtual functions by name.
pub fn sriov_vfs(node: &NodeName) -> Container<String> {
    Container::at(format!("/nodes/{node}/sriov/vf"))
}
