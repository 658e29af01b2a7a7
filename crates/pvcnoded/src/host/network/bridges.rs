//! The host's bridges: one per host network, with the configured device as its port and the node's own addresses.
//!
//! Nothing here takes anything away but the node's own address from the device below the bridge (where it would no
//! longer work). An administrator's further addresses and routes stay.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use pvc_common::config::{NetworkKind, Networks};

use super::{NetworkError, addresses, family, find, kernel_error, local_ip};
use crate::host::netlink::{Link, Netlink};

/// Kernel settings of each bridge. A host with several networks must answer ARP for an address only on its own
/// network, and with it; and an address that goes must not take others with it.
const SYSCTLS_IPV4: [(&str, &str); 3] = [
    ("arp_ignore", "1"),
    ("arp_announce", "2"),
    ("promote_secondaries", "1"),
];
/// The same for IPv6: the node's own addresses come from the configuration, which is checked for duplicates.
const SYSCTLS_IPV6: [(&str, &str); 2] = [("disable_ipv6", "0"), ("accept_dad", "0")];

/// Makes the bridges of the host networks as they are configured, and says in words what it changed.
///
/// # Idempotence
/// What is so already is left alone: on a running node nothing changes.
///
/// # Errors
/// [`NetworkError`], above all [`NetworkError::NoInterface`] for a device that is not there. What was done before the
/// error stays.
pub fn ensure_bridges(networks: &Networks) -> Result<Vec<String>, NetworkError> {
    let netlink = Netlink::open().map_err(|source| kernel_error("open a netlink socket", source))?;
    let mut work = Work {
        netlink,
        changes: Vec::new(),
    };
    // The cluster network first: networks on one device share its bridge, and its MTU is the one that counts.
    for kind in [NetworkKind::Cluster, NetworkKind::Storage, NetworkKind::Upstream] {
        work.ensure_network(networks, kind)?;
    }
    Ok(work.changes)
}

struct Work {
    netlink: Netlink,
    changes: Vec<String>,
}

impl Work {
    fn ensure_network(&mut self, networks: &Networks, kind: NetworkKind) -> Result<(), NetworkError> {
        let network = networks.get(kind);
        let name = networks.bridge(kind);
        let device = find(&mut self.netlink, &network.device)?;
        let shares = NetworkKind::ALL
            .into_iter()
            .any(|other| other != kind && networks.bridge(other) == name);
        let bridge = self.ensure_bridge(name, &device)?;
        // On a shared device the larger MTU wins, whatever the order.
        let fits = |link: &Link| {
            link.mtu
                .is_some_and(|mtu| mtu == network.mtu || (shares && mtu > network.mtu))
        };
        if !fits(&device) {
            self.set(
                device.index,
                &[LinkAttribute::Mtu(network.mtu)],
                &network.device,
                "MTU",
            )?;
        }
        self.ensure_port(&network.device, &device, name, &bridge)?;
        if !fits(&bridge) {
            self.set(bridge.index, &[LinkAttribute::Mtu(network.mtu)], name, "MTU")?;
        }
        self.ensure_up(&network.device, &device)?;
        // Before it is up: an address that is given then is looked for as a duplicate, or not.
        self.ensure_sysctls(name, network.ipv6.is_some())?;
        self.ensure_up(name, &bridge)?;
        for (ip, prefix) in network.node_addresses() {
            self.ensure_address(name, &bridge, ip, prefix)?;
            self.clear_address(&network.device, &device, ip)?;
        }
        if let Some(gateway) = network.ipv4.gateway_address {
            self.ensure_default_route(name, &bridge, gateway.into())?;
        }
        if let Some(gateway) = network.ipv6.as_ref().and_then(|ipv6| ipv6.gateway_address) {
            self.ensure_default_route(name, &bridge, gateway.into())?;
        }
        Ok(())
    }

    fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: impl Into<String>,
    ) -> Result<(), NetworkError> {
        let what = what.into();
        self.netlink
            .change(message, flags)
            .map_err(|source| kernel_error(&what, source))?;
        self.changes.push(what);
        Ok(())
    }

    fn ensure_bridge(&mut self, name: &str, device: &Link) -> Result<Link, NetworkError> {
        match find(&mut self.netlink, name) {
            Ok(link) => return Ok(link),
            Err(NetworkError::NoInterface { .. }) => {}
            Err(error @ NetworkError::Kernel { .. }) => return Err(error),
        }
        let mut message = LinkMessage::default();
        // The device's hardware address, fixed: by default a bridge changes its own as ports come and go.
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(device.mac.clone()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![
                    // Without it a new port stays mute for 15 s.
                    InfoBridge::ForwardDelay(0),
                    InfoBridge::StpState(BridgeStpState::Disabled),
                ])),
            ]),
        ];
        self.change(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            format!("make the bridge {name}"),
        )?;
        find(&mut self.netlink, name)
    }

    fn ensure_port(
        &mut self,
        device_name: &str,
        device: &Link,
        bridge_name: &str,
        bridge: &Link,
    ) -> Result<(), NetworkError> {
        match device.controller {
            Some(index) if index == bridge.index => Ok(()),
            // Somebody else's bridge or bond: taking the device out of it would cut whatever it serves.
            Some(_) => Err(kernel_error(
                &format!("put {device_name} into {bridge_name}, since it is a port of another interface"),
                io::Error::from_raw_os_error(libc::EBUSY),
            )),
            None => self.set(
                device.index,
                &[LinkAttribute::Controller(bridge.index)],
                device_name,
                bridge_name,
            ),
        }
    }

    fn set(
        &mut self,
        index: u32,
        attributes: &[LinkAttribute],
        name: &str,
        what: &str,
    ) -> Result<(), NetworkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = attributes.to_vec();
        self.change(
            RouteNetlinkMessage::SetLink(message),
            0,
            format!("set {what} of {name}"),
        )
    }

    fn ensure_up(&mut self, name: &str, link: &Link) -> Result<(), NetworkError> {
        if link.up {
            return Ok(());
        }
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0, format!("set {name} up"))
    }

    fn ensure_sysctls(&mut self, bridge: &str, ipv6: bool) -> Result<(), NetworkError> {
        for (key, value) in SYSCTLS_IPV4 {
            self.ensure_sysctl(&format!("net/ipv4/conf/{bridge}/{key}"), value)?;
        }
        if ipv6 {
            for (key, value) in SYSCTLS_IPV6 {
                self.ensure_sysctl(&format!("net/ipv6/conf/{bridge}/{key}"), value)?;
            }
        }
        Ok(())
    }

    fn ensure_sysctl(&mut self, key: &str, value: &str) -> Result<(), NetworkError> {
        let path = format!("/proc/sys/{key}");
        let what = format!("set {key} to {value}");
        let failed = |source| kernel_error(&what, source);
        if std::fs::read_to_string(&path).map_err(failed)?.trim() == value {
            return Ok(());
        }
        std::fs::write(&path, value).map_err(failed)?;
        self.changes.push(what);
        Ok(())
    }

    fn ensure_address(
        &mut self,
        name: &str,
        link: &Link,
        ip: IpAddr,
        prefix: u8,
    ) -> Result<(), NetworkError> {
        let what = format!("add {ip}/{prefix} to {name}");
        let there = addresses(&mut self.netlink, family(ip), Some(link.index))
            .map_err(|source| kernel_error(&what, source))?;
        let permanent =
            |message: &AddressMessage| message.header.flags.contains(AddressHeaderFlags::Permanent);
        let found = there.iter().any(|message| {
            local_ip(message) == Some(ip) && message.header.prefix_len == prefix && permanent(message)
        });
        if found {
            return Ok(());
        }
        let mut message = AddressMessage::default();
        message.header.family = family(ip);
        message.header.prefix_len = prefix;
        message.header.index = link.index;
        message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
        if let IpAddr::V4(ip) = ip {
            let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            let broadcast = ip.to_bits() | host_bits;
            message
                .attributes
                .push(AddressAttribute::Broadcast(broadcast.into()));
        } else {
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            what,
        )
    }

    /// On a port of a bridge an address does not answer, but its route still draws traffic.
    fn clear_address(&mut self, name: &str, link: &Link, ip: IpAddr) -> Result<(), NetworkError> {
        let what = format!("remove {ip} from {name}");
        let there = addresses(&mut self.netlink, family(ip), Some(link.index))
            .map_err(|source| kernel_error(&what, source))?;
        for message in there {
            if local_ip(&message) == Some(ip) {
                self.change(RouteNetlinkMessage::DelAddress(message), 0, what.as_str())?;
            }
        }
        Ok(())
    }

    fn ensure_default_route(&mut self, name: &str, link: &Link, gateway: IpAddr) -> Result<(), NetworkError> {
        let what = format!("set the default route via {gateway} on {name}");
        if self
            .has_default_route(link, gateway)
            .map_err(|source| kernel_error(&what, source))?
        {
            return Ok(());
        }
        let mut message = RouteMessage::default();
        message.header.address_family = family(gateway);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Gateway(gateway.into()),
            RouteAttribute::Oif(link.index),
        ];
        self.change(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            what,
        )
    }

    fn has_default_route(&mut self, link: &Link, gateway: IpAddr) -> io::Result<bool> {
        let mut request = RouteMessage::default();
        request.header.address_family = family(gateway);
        request.header.table = RouteHeader::RT_TABLE_MAIN;
        let expected = [
            RouteAttribute::Gateway(RouteAddress::from(gateway)),
            RouteAttribute::Oif(link.index),
        ];
        let objects = self.netlink.dump(&RouteNetlinkMessage::GetRoute(request))?;
        Ok(objects.iter().any(|object| {
            let RouteNetlinkMessage::NewRoute(route) = object else {
                return false;
            };
            route.header.destination_prefix_length == 0
                && route.header.table == RouteHeader::RT_TABLE_MAIN
                && route.header.address_family == family(gateway)
                && expected.iter().all(|wanted| route.attributes.contains(wanted))
        }))
    }
}

#[cfg(test)]
mod tests {
    use pvc_common::config::{Addresses, Network, Selection, UpstreamProbeKind};

    use super::*;
    use crate::host::testing::{in_namespace, ip};

    fn network(device: &str, number: u8, mtu: u32) -> Network {
        let v4 = |host| [10, number, 0, host].into();
        let v6 = |host| [0xfd00, u16::from(number), 0, 0, 0, 0, 0, host].into();
        Network {
            domain: "pvc.test".to_owned(),
            device: device.to_owned(),
            mtu,
            ipv4: Addresses {
                network_address: v4(0),
                prefix_length: 24,
                selection: Selection::ById,
                node_address: v4(1),
                floating_address: v4(254),
                gateway_address: (number == 100).then(|| v4(250)),
            },
            ipv6: Some(Addresses {
                network_address: v6(0),
                prefix_length: 64,
                selection: Selection::ById,
                node_address: v6(1),
                floating_address: v6(254),
                gateway_address: (number == 100).then(|| v6(250)),
            }),
        }
    }

    fn networks(devices: [&str; 3]) -> Networks {
        Networks {
            upstream: network(devices[0], 100, 1400),
            cluster: network(devices[1], 101, 1450),
            storage: network(devices[2], 102, 1500),
            upstream_probe: UpstreamProbeKind::Gateway,
        }
    }

    fn cable(name: &str) {
        ip(&format!("link add {name} type veth peer name far-{name}"));
        ip(&format!("link set far-{name} up"));
    }

    #[test]
    fn bridges_are_made_as_configured_and_left_alone_when_they_are_so() {
        in_namespace(|| {
            let networks = networks(["eth-up", "eth-cl", "eth-st"]);
            for name in ["eth-up", "eth-cl", "eth-st"] {
                cable(name);
            }
            // As an installer leaves it: the own address on the device itself.
            ip("addr add 10.101.0.1/24 dev eth-cl");
            assert!(!ensure_bridges(&networks).unwrap().is_empty());
            for (bridge, device, number, mtu) in [
                ("brupstream", "eth-up", 100, 1400),
                ("brcluster", "eth-cl", 101, 1450),
                ("brstorage", "eth-st", 102, 1500),
            ] {
                let shown = ip(&format!("addr show dev {bridge}"));
                for words in [
                    format!("mtu {mtu}"),
                    format!("inet 10.{number}.0.1/24 brd 10.{number}.0.255 scope global"),
                    format!("inet6 fd00:{number:x}::1/64"),
                    "UP".to_owned(),
                ] {
                    assert!(shown.contains(&words), "{words}: {shown}");
                }
                // (The kernel's own link-local address may be, for a moment.)
                let waits = |line: &str| line.contains("inet6 fd00") && line.contains("tentative");
                assert!(!shown.lines().any(waits), "{shown}");
                let port = ip(&format!("addr show dev {device}"));
                assert!(port.contains(&format!("master {bridge}")), "{port}");
                assert!(!port.contains("inet 10."), "{port}");
                let sysctl = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{bridge}/arp_ignore"));
                assert_eq!(sysctl.unwrap().trim(), "1");
            }
            assert!(ip("route show default").contains("via 10.100.0.250 dev brupstream"));
            assert!(ip("-6 route show default").contains("via fd00:64::fa dev brupstream"));
            assert_eq!(ensure_bridges(&networks).unwrap(), Vec::<String>::new());
            // Whatever was lost comes back, and only that.
            ip("addr del 10.100.0.1/24 dev brupstream");
            let changes = ensure_bridges(&networks).unwrap();
            assert!(changes[0].starts_with("add 10.100.0.1/24"), "{changes:?}");
            assert!(ip("route show default").contains("via 10.100.0.250"));
        });
    }

    #[test]
    fn networks_on_one_device_share_a_bridge() {
        in_namespace(|| {
            let networks = networks(["eth0", "eth0", "eth0"]);
            cable("eth0");
            ensure_bridges(&networks).unwrap();
            let shown = ip("addr show dev brcluster");
            for words in ["10.100.0.1/24", "10.101.0.1/24", "10.102.0.1/24", "mtu 1500"] {
                assert!(shown.contains(words), "{words}: {shown}");
            }
            assert_eq!(ensure_bridges(&networks).unwrap(), Vec::<String>::new());
        });
    }

    #[test]
    fn a_missing_or_occupied_device_is_an_error() {
        in_namespace(|| {
            let networks = networks(["eth-up", "eth-cl", "eth-st"]);
            let error = ensure_bridges(&networks).unwrap_err();
            assert!(matches!(error, NetworkError::NoInterface { interface } if interface == "eth-cl"));
            for name in ["eth-up", "eth-cl", "eth-st"] {
                cable(name);
            }
            ip("link add other type bridge");
            ip("link set eth-st master other");
            assert!(matches!(
                ensure_bridges(&networks),
                Err(NetworkError::Kernel { .. })
            ));
            assert!(ip("link show dev eth-st").contains("master other"));
        });
    }
}
