//! The three host networks: which addresses are this node's own, and which follow the primary.
//!
//! The two kinds are separate fields everywhere. One address taken for the other is how a cluster loses its primary
//! (a node that keeps a floating address as its own) or Ceph its locks (a client seen under a floating address).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pvc_core::ids::NodeName;

use super::finding::Problem;
use super::prefix::{Family, Prefix};
use super::section::{Findings, Located, Section, Value};
use super::values::{Device, Domain, Mtu};

/// Which of the host networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkKind {
    /// Towards clients and the internet.
    Upstream,
    /// Between the nodes.
    Cluster,
    /// Between the nodes and Ceph.
    Storage,
}

impl NetworkKind {
    /// All of them.
    pub const ALL: [NetworkKind; 3] = [NetworkKind::Upstream, NetworkKind::Cluster, NetworkKind::Storage];

    /// Its name as in the configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            NetworkKind::Upstream => "upstream",
            NetworkKind::Cluster => "cluster",
            NetworkKind::Storage => "storage",
        }
    }
}

impl fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The host networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks {
    /// Towards clients and the internet.
    pub upstream: Network,
    /// Between the nodes.
    pub cluster: Network,
    /// Between the nodes and Ceph.
    pub storage: Network,
    /// How a coordinator finds out whether it reaches the upstream network. Default: by its gateway.
    pub upstream_probe: UpstreamProbeKind,
}

/// How a coordinator finds out whether it reaches the upstream network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProbeKind {
    /// The link has a carrier and the IPv4 gateway answers an ARP request.
    Gateway,
    /// The link has a carrier.
    Carrier,
    /// Not at all: the primary role stays where it is when the upstream network is lost.
    Off,
}

impl Value for UpstreamProbeKind {
    const EXPECTED: &'static str = "one of gateway, carrier, none";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "gateway" => Ok(UpstreamProbeKind::Gateway),
            "carrier" => Ok(UpstreamProbeKind::Carrier),
            "none" => Ok(UpstreamProbeKind::Off),
            _ => Err(String::new()),
        }
    }
}

impl Networks {
    /// One of them.
    pub fn get(&self, kind: NetworkKind) -> &Network {
        match kind {
            NetworkKind::Upstream => &self.upstream,
            NetworkKind::Cluster => &self.cluster,
            NetworkKind::Storage => &self.storage,
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (NetworkKind, &Network)> {
        NetworkKind::ALL.into_iter().map(|kind| (kind, self.get(kind)))
    }

    /// The bridge that carries a network's addresses. Networks on one device share the bridge of the first of cluster,
    /// storage, upstream, since a device can be in one bridge only.
    pub fn bridge(&self, kind: NetworkKind) -> &'static str {
        let device = &self.get(kind).device;
        if *device == self.cluster.device {
            "brcluster"
        } else if *device == self.storage.device {
            "brstorage"
        } else {
            "brupstream"
        }
    }
}

/// One host network, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its DNS domain.
    pub domain: String,
    /// The physical or bond interface.
    pub device: String,
    /// The MTU of device and bridge, in bytes.
    pub mtu: u32,
    /// IPv4 addresses.
    pub ipv4: Addresses<Ipv4Addr>,
    /// IPv6 addresses, if the network has any.
    pub ipv6: Option<Addresses<Ipv6Addr>>,
}

impl Network {
    /// This node's own addresses with their prefix lengths: IPv4 first.
    pub fn node_addresses(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        let ipv6 = self
            .ipv6
            .as_ref()
            .map(|ipv6| (ipv6.node_address.into(), ipv6.prefix_length));
        std::iter::once((self.ipv4.node_address.into(), self.ipv4.prefix_length)).chain(ipv6)
    }

    /// The addresses that follow the primary: IPv4 first.
    pub fn floating_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let ipv6 = self.ipv6.as_ref().map(|ipv6| ipv6.floating_address.into());
        std::iter::once(self.ipv4.floating_address.into()).chain(ipv6)
    }
}

/// The addresses of one network in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses<A> {
    /// The network's own address: all bits below the prefix are zero.
    pub network_address: A,
    /// Prefix length, in bits.
    pub prefix_length: u8,
    /// How nodes choose their own address.
    pub selection: Selection<A>,
    /// This node's own address. It never leaves the node.
    pub node_address: A,
    /// The address that follows the primary. No node has it as its own.
    pub floating_address: A,
    /// The default gateway; used on the upstream network only.
    pub gateway_address: Option<A>,
}

/// How a node's own address is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection<A> {
    /// The network address plus the node's number, on every node.
    ById,
    /// This address, given in this node's file.
    Fixed(A),
}

impl<A: Family> Addresses<A> {
    fn prefix(&self) -> Prefix<A> {
        Prefix {
            network: self.network_address,
            length: self.prefix_length,
        }
    }

    /// The own address of any node, if it follows from the node's name.
    pub fn address_of(&self, node: &NodeName) -> Option<A> {
        match self.selection {
            Selection::ById => self.prefix().numbered(node.number()),
            Selection::Fixed(_) => None,
        }
    }
}

/// What a network needs to know of the cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nodes<'a> {
    /// This host.
    pub(super) own: &'a NodeName,
    /// All nodes that the file lists.
    pub(super) all: &'a [NodeName],
}

/// A prefix length as the file gives it: the length or, for IPv4, a dotted mask.
struct Netmask4(u8);

impl Value for Netmask4 {
    const EXPECTED: &'static str = "a prefix length from 1 to 30 or a dotted mask";

    fn parse(text: &str) -> Result<Self, String> {
        let length = match text.parse::<Ipv4Addr>() {
            Ok(mask) if mask.to_bits().leading_ones() + mask.to_bits().trailing_zeros() == 32 => {
                mask.to_bits().leading_ones()
            }
            Ok(_) => return Err("the bits of the mask are not in one row".to_owned()),
            Err(_) => text.parse::<u32>().map_err(|_| String::new())?,
        };
        match u8::try_from(length) {
            // Longer ones leave no room for a node and a floating address.
            Ok(length @ 1..=30) => Ok(Netmask4(length)),
            Ok(_) | Err(_) => Err(String::new()),
        }
    }
}

/// A prefix length of IPv6.
struct Netmask6(u8);

impl Value for Netmask6 {
    const EXPECTED: &'static str = "a prefix length from 1 to 126";

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(length @ 1..=126) => Ok(Netmask6(length)),
            Ok(_) | Err(_) => Err(String::new()),
        }
    }
}

impl<A: Family + Value> Value for Selection<A> {
    // One wording for both families, since the words must be constant.
    const EXPECTED: &'static str = "by-id or an address of the network";

    fn parse(text: &str) -> Result<Self, String> {
        if text == "by-id" {
            Ok(Selection::ById)
        } else {
            A::parse(text).map(Selection::Fixed)
        }
    }
}

/// Reads the networks and checks each and all together.
pub(super) fn read(section: &mut Section<'_>, nodes: Nodes<'_>) -> Option<Networks> {
    let mut upstream_probe = UpstreamProbeKind::Gateway;
    let upstream = section.section("upstream", |section| {
        upstream_probe = section.or("probe", UpstreamProbeKind::Gateway);
        read_network(section, NetworkKind::Upstream, nodes)
    });
    let cluster = section.section("cluster", |section| {
        read_network(section, NetworkKind::Cluster, nodes)
    });
    let storage = section.section("storage", |section| {
        read_network(section, NetworkKind::Storage, nodes)
    });
    let networks = Networks {
        upstream: upstream?,
        cluster: cluster?,
        storage: storage?,
        upstream_probe,
    };
    check_together(&networks, nodes.own, section.findings());
    Some(networks)
}

fn read_network(section: &mut Section<'_>, kind: NetworkKind, nodes: Nodes<'_>) -> Option<Network> {
    let domain = section.required::<Domain>("domain");
    let device = section.required::<Device>("device");
    let mtu = section.required::<Mtu>("mtu");
    let selection = section.required_located::<Selection<Ipv4Addr>>("node_ip_selection");
    let ipv4 = section.section("ipv4", |section| {
        let prefix_length = section.required::<Netmask4>("netmask").map(|netmask| netmask.0);
        let gateway = read_gateway::<Ipv4Addr>(section, kind, Need::Required);
        read_addresses(section, prefix_length, selection.clone(), gateway, nodes)
    });
    let ipv6 = section.optional_section("ipv6", |section| {
        let prefix_length = section.required::<Netmask6>("netmask").map(|netmask| netmask.0);
        // The file's `node_ip_selection` beside the blocks is for IPv4, as it always was.
        let selection = section
            .located::<Selection<Ipv6Addr>>("node_ip_selection")
            .unwrap_or(Located {
                value: Selection::ById,
                path: String::new(),
                line: 0,
            });
        let gateway = read_gateway::<Ipv6Addr>(section, kind, Need::Optional);
        read_addresses(section, prefix_length, Some(selection), gateway, nodes)
    });
    Some(Network {
        domain: domain?.0,
        device: device?.0,
        mtu: mtu?.0,
        ipv4: ipv4?,
        ipv6,
    })
}

/// Whether the upstream network must have a gateway.
enum Need {
    Required,
    Optional,
}

fn read_gateway<A: Family + Value>(section: &mut Section<'_>, kind: NetworkKind, need: Need) -> Option<A> {
    const KEY: &str = "gateway_address";
    match (kind, need) {
        (NetworkKind::Upstream, Need::Required) => section.required(KEY),
        (NetworkKind::Upstream, Need::Optional) => section.optional(KEY),
        (NetworkKind::Cluster | NetworkKind::Storage, Need::Required | Need::Optional) => {
            section.without_effect(KEY, "only the upstream network has a default gateway");
            None
        }
    }
}

fn read_addresses<A: Family + Value>(
    section: &mut Section<'_>,
    prefix_length: Option<u8>,
    selection: Option<Located<Selection<A>>>,
    gateway_address: Option<A>,
    nodes: Nodes<'_>,
) -> Option<Addresses<A>> {
    let network = section.required::<A>("network_address");
    let floating = section.required::<A>("floating_address");
    let (network, prefix_length, selection) = (network?, prefix_length?, selection?);

    let prefix = Prefix::of(network, prefix_length);
    if prefix.network != network {
        let problem = Problem::NotANetworkAddress {
            address: network.into(),
            prefix: prefix_length,
            network: prefix.network.into(),
        };
        section.report("network_address", problem);
        // Everything else would be judged by a network that nobody meant.
        return None;
    }
    let own = own_address(section, &prefix, &selection, nodes);
    let node_of = |address: A| match selection.value {
        Selection::ById => nodes
            .all
            .iter()
            .find(|node| prefix.numbered(node.number()) == Some(address)),
        Selection::Fixed(own) => (own == address).then_some(nodes.own),
    };
    if let Some(floating) = floating {
        if let Some(problem) = prefix.objection(floating) {
            section.report("floating_address", problem);
        } else if let Some(node) = node_of(floating) {
            let problem = Problem::FloatingIsNodeAddress {
                address: floating.into(),
                node: node.clone(),
            };
            section.report("floating_address", problem);
        }
    }
    if let Some(gateway) = gateway_address {
        let is_link_local = matches!(gateway.into(), IpAddr::V6(address) if address.is_unicast_link_local());
        if let Some(problem) = prefix.objection(gateway).filter(|_| !is_link_local) {
            section.report("gateway_address", problem);
        } else if Some(gateway) == floating {
            section.report("gateway_address", Problem::GatewayIsFloating(gateway.into()));
        } else if let Some(node) = node_of(gateway) {
            let problem = Problem::GatewayIsNodeAddress {
                address: gateway.into(),
                node: node.clone(),
            };
            section.report("gateway_address", problem);
        }
    }
    Some(Addresses {
        network_address: network,
        prefix_length,
        selection: selection.value,
        node_address: own?,
        floating_address: floating?,
        gateway_address,
    })
}

fn own_address<A: Family>(
    section: &Section<'_>,
    prefix: &Prefix<A>,
    selection: &Located<Selection<A>>,
    nodes: Nodes<'_>,
) -> Option<A> {
    match selection.value {
        Selection::ById => {
            // A name without a number is reported once, where the nodes are listed.
            for node in nodes.all.iter().filter(|node| node.number() > 0) {
                if prefix.numbered(node.number()).is_none() {
                    let problem = Problem::NodeOutsideNetwork {
                        node: node.clone(),
                        number: node.number(),
                        network: prefix.to_string(),
                    };
                    section.report("netmask", problem);
                }
            }
            prefix.numbered(nodes.own.number())
        }
        Selection::Fixed(address) => match prefix.objection(address) {
            Some(problem) => {
                section
                    .findings()
                    .add(selection.path.clone(), Some(selection.line), problem);
                None
            }
            None => Some(address),
        },
    }
}

/// Rules between networks: they are apart, or one and the same on one device.
fn check_together(networks: &Networks, own: &NodeName, findings: &Findings) {
    let pairs = [
        (NetworkKind::Upstream, NetworkKind::Cluster),
        (NetworkKind::Upstream, NetworkKind::Storage),
        (NetworkKind::Cluster, NetworkKind::Storage),
    ];
    for (first, second) in pairs {
        let (a, b) = (networks.get(first), networks.get(second));
        let same_device = a.device == b.device;
        check_pair(
            first,
            second,
            "ipv4",
            (&a.ipv4, &b.ipv4),
            same_device,
            own,
            findings,
        );
        if let (Some(a), Some(b)) = (&a.ipv6, &b.ipv6) {
            check_pair(first, second, "ipv6", (a, b), same_device, own, findings);
        }
    }
}

fn check_pair<A: Family>(
    first: NetworkKind,
    second: NetworkKind,
    family: &str,
    (a, b): (&Addresses<A>, &Addresses<A>),
    same_device: bool,
    own: &NodeName,
    findings: &Findings,
) {
    let report = |kind: NetworkKind, key: &str, problem: Problem| {
        findings.add(format!("cluster.networks.{kind}.{family}.{key}"), None, problem);
    };
    if !a.prefix().overlaps(&b.prefix()) {
        return;
    }
    if a.prefix() != b.prefix() || !same_device {
        let problem = Problem::OverlappingNetworks {
            network: b.prefix().to_string(),
            other: first.name(),
        };
        report(second, "network_address", problem);
        return;
    }
    // One network under two names. With one own address the checks within each have said it all.
    if a.node_address != b.node_address {
        for (kind, floating, others_own) in [
            (first, a.floating_address, b.node_address),
            (second, b.floating_address, a.node_address),
        ] {
            if floating == others_own {
                let problem = Problem::FloatingIsNodeAddress {
                    address: floating.into(),
                    node: own.clone(),
                };
                report(kind, "floating_address", problem);
            }
        }
    }
}
