//! Names and addresses of the lab: fixed, so that tests and people can rely on them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// Name of the cluster.
pub const CLUSTER: &str = "lab";
/// How many of the first nodes are coordinators: they run ZooKeeper, the monitors and the API.
pub const COORDINATORS: u8 = 3;
/// Most nodes a lab can have. The BMC addresses, 100 above the nodes', must stay below the floating ones.
pub const MAX_NODES: u8 = 50;
/// Host part of the floating addresses.
const FLOATING: u8 = 250;
/// Host part of the upstream gateway, an address of the switch.
const GATEWAY: u8 = 254;
/// Prefix length of every IPv4 network.
pub const PREFIX_V4: u8 = 24;
/// Prefix length of every IPv6 network.
pub const PREFIX_V6: u8 = 64;

/// One of the three host networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Towards the users: the API, the BMCs.
    Upstream,
    /// Between the nodes: ZooKeeper, migration.
    Cluster,
    /// Ceph.
    Storage,
}

impl Network {
    /// All of them.
    pub const ALL: [Network; 3] = [Network::Upstream, Network::Cluster, Network::Storage];

    /// The word of the configuration file and the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Network::Upstream => "upstream",
            Network::Cluster => "cluster",
            Network::Storage => "storage",
        }
    }

    fn abbreviation(self) -> &'static str {
        match self {
            Network::Upstream => "up",
            Network::Cluster => "cl",
            Network::Storage => "st",
        }
    }

    fn third_octet(self) -> u8 {
        match self {
            Network::Upstream => 100,
            Network::Cluster => 101,
            Network::Storage => 102,
        }
    }

    /// DNS domain of the network.
    #[must_use]
    pub fn domain(self) -> &'static str {
        match self {
            Network::Upstream => "lab.example",
            Network::Cluster => "pvc.local",
            Network::Storage => "storage.local",
        }
    }

    /// The device in a node that is the network's cable, for example `eth-up`.
    #[must_use]
    pub fn node_device(self) -> String {
        format!("eth-{}", self.abbreviation())
    }

    /// The bridge in a node that carries the node's address.
    #[must_use]
    pub fn node_bridge(self) -> String {
        format!("br{}", self.name())
    }

    /// The bridge of the switch that joins the nodes.
    #[must_use]
    pub fn switch_bridge(self) -> String {
        format!("sw-{}", self.abbreviation())
    }

    /// The switch's end of a node's cable, for example `up-hv1`.
    #[must_use]
    pub fn switch_port(self, node: NodeId) -> String {
        format!("{}-{node}", self.abbreviation())
    }

    /// MAC address of a node on this network; the same at each boot, as real hardware has it.
    #[must_use]
    pub fn mac(self, node: NodeId) -> String {
        format!("02:50:56:{:02x}:00:{:02x}", self.third_octet(), node.number())
    }

    fn v4(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.third_octet(), 0, host)
    }

    /// The host part is written with the same digits as in IPv4 (`::250`), for people to recognise it.
    fn v6(self, host: u8) -> Ipv6Addr {
        let digits = |number: u8| {
            let number = u16::from(number);
            (number / 100) * 0x100 + (number / 10 % 10) * 0x10 + number % 10
        };
        Ipv6Addr::new(0xfd00, digits(self.third_octet()), 0, 0, 0, 0, 0, digits(host))
    }

    /// Network address.
    #[must_use]
    pub fn network_v4(self) -> Ipv4Addr {
        self.v4(0)
    }

    /// Network address.
    #[must_use]
    pub fn network_v6(self) -> Ipv6Addr {
        self.v6(0)
    }

    /// The node's own address.
    #[must_use]
    pub fn node_v4(self, node: NodeId) -> Ipv4Addr {
        self.v4(node.number())
    }

    /// The node's own address.
    #[must_use]
    pub fn node_v6(self, node: NodeId) -> Ipv6Addr {
        self.v6(node.number())
    }

    /// The address that follows the primary.
    #[must_use]
    pub fn floating_v4(self) -> Ipv4Addr {
        self.v4(FLOATING)
    }

    /// The address that follows the primary.
    #[must_use]
    pub fn floating_v6(self) -> Ipv6Addr {
        self.v6(FLOATING)
    }

    /// The gateway; only the upstream one exists.
    #[must_use]
    pub fn gateway_v4(self) -> Ipv4Addr {
        self.v4(GATEWAY)
    }

    /// The gateway; only the upstream one exists.
    #[must_use]
    pub fn gateway_v6(self) -> Ipv6Addr {
        self.v6(GATEWAY)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Network {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match Network::ALL.into_iter().find(|network| network.name() == text) {
            Some(network) => Ok(network),
            None => bail!("no network `{text}`: upstream, cluster or storage"),
        }
    }
}

/// A node of the lab: `hv1`, `hv2` ...
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(u8);

impl NodeId {
    /// The node with this number, counted from 1.
    ///
    /// # Errors
    /// If the number is 0 or above [`MAX_NODES`].
    pub fn new(number: u8) -> Result<Self> {
        if number == 0 || number > MAX_NODES {
            bail!("node number {number} is not in 1 to {MAX_NODES}");
        }
        Ok(NodeId(number))
    }

    /// The first `count` nodes.
    pub(crate) fn first(count: u8) -> Vec<NodeId> {
        (1..=count).map(NodeId).collect()
    }

    /// Its number, also the host part of its addresses.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// Whether it runs ZooKeeper, a monitor and the API.
    #[must_use]
    pub fn is_coordinator(self) -> bool {
        self.0 <= COORDINATORS
    }

    /// GUID of its machine: containers have no firmware to tell one.
    #[must_use]
    pub fn machine_guid(self) -> String {
        format!("70766300-6c61-4262-8000-0000000000{:02x}", self.0)
    }

    /// Address of its BMC, on the upstream network.
    #[must_use]
    pub fn bmc_address(self) -> Ipv4Addr {
        Network::Upstream.v4(100 + self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hv{}", self.0)
    }
}

impl FromStr for NodeId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("hv").and_then(|number| number.parse().ok()) {
            Some(number) if format!("hv{number}") == text => NodeId::new(number),
            _ => bail!("no node name `{text}`: hv1, hv2 ..."),
        }
    }
}

impl TryFrom<String> for NodeId {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(node: NodeId) -> Self {
        node.to_string()
    }
}

/// The hosts file of every node: short names are cluster addresses, as the daemons expect it.
pub(crate) fn hosts_file(nodes: &[NodeId]) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    for node in nodes {
        for network in Network::ALL {
            // IPv4 only under the short name, so that nobody's listener has to be on two families.
            let short = if network == Network::Cluster {
                format!(" {node}")
            } else {
                String::new()
            };
            writeln!(
                text,
                "{} {node}.{}{short}",
                network.node_v4(*node),
                network.domain()
            )
            .ok();
            writeln!(text, "{} {node}-v6.{}", network.node_v6(*node), network.domain()).ok();
        }
        writeln!(
            text,
            "{} {node}-lom.{}",
            node.bmc_address(),
            Network::Upstream.domain()
        )
        .ok();
    }
    for network in Network::ALL {
        writeln!(
            text,
            "{} pvc-floating.{}",
            network.floating_v4(),
            network.domain()
        )
        .ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_documentation() {
        let hv2 = NodeId::new(2).unwrap();
        assert_eq!(Network::Upstream.node_v4(hv2).to_string(), "10.100.0.2");
        assert_eq!(Network::Cluster.node_v6(hv2).to_string(), "fd00:101::2");
        assert_eq!(Network::Storage.floating_v4().to_string(), "10.102.0.250");
        assert_eq!(Network::Storage.floating_v6().to_string(), "fd00:102::250");
        assert_eq!(Network::Upstream.gateway_v6().to_string(), "fd00:100::254");
        assert_eq!(
            Network::Upstream.node_v6(NodeId::new(42).unwrap()).to_string(),
            "fd00:100::42"
        );
        assert_eq!(hv2.bmc_address().to_string(), "10.100.0.102");
        assert_eq!(hv2.machine_guid(), "70766300-6c61-4262-8000-000000000002");
        assert_eq!(Network::Upstream.mac(hv2), "02:50:56:64:00:02");
    }

    // Linux cuts nothing off: a name of 16 characters is refused, and the node would have no cable.
    #[test]
    fn device_names_fit_the_kernel() {
        let last = NodeId::new(MAX_NODES).unwrap();
        for network in Network::ALL {
            for name in [
                network.switch_port(last),
                network.node_bridge(),
                network.switch_bridge(),
            ] {
                assert!(name.len() <= 15, "{name}");
            }
        }
    }

    #[test]
    fn names_round_trip_and_odd_ones_are_refused() {
        for number in 1..=MAX_NODES {
            let node = NodeId::new(number).unwrap();
            assert_eq!(node.to_string().parse::<NodeId>().unwrap(), node);
        }
        for odd in ["", "hv", "hv0", "hv01", "hv+1", "hv51", "hv999", "HV1", "node1"] {
            assert!(odd.parse::<NodeId>().is_err(), "{odd}");
        }
        for network in Network::ALL {
            assert_eq!(network.name().parse::<Network>().unwrap(), network);
        }
    }

    #[test]
    fn short_names_resolve_to_cluster_addresses() {
        let hosts = hosts_file(&NodeId::first(3));
        assert!(hosts.contains("\n10.101.0.3 hv3.pvc.local hv3\n"), "{hosts}");
        assert!(hosts.contains("\n10.102.0.1 hv1.storage.local\n"), "{hosts}");
        assert!(hosts.contains("\n10.100.0.103 hv3-lom.lab.example\n"), "{hosts}");
    }
}
