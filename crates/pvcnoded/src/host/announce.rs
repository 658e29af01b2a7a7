//! Telling the neighbours where an address is now.
//!
//! For IPv4 two gratuitous ARP packets, a request and a reply: some stacks learn from the one, some from the other.
//! For IPv6 an unsolicited neighbour advertisement to all nodes. From raw sockets, so that it costs no process and no
//! second (as `arping` does), and so that it does not matter whether the kernel would use the address as a source.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::netlink::Link;

pub(super) type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// ARP operation numbers.
const ARP_REQUEST: u16 = 1;
pub(super) const ARP_REPLY: u16 = 2;

/// Announces `ip` on an Ethernet interface.
pub(super) fn send(ip: IpAddr, link: &Link) -> io::Result<()> {
    let mac: Mac = link
        .mac
        .as_slice()
        .try_into()
        .map_err(|_| io::Error::new(io::ErrorKind::Unsupported, "not an Ethernet interface"))?;
    match ip {
        IpAddr::V4(ip) => {
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            let to = packet_address(link.index)?;
            for operation in [ARP_REQUEST, ARP_REPLY] {
                socket.send_to(&gratuitous_arp(operation, mac, ip), &to)?;
            }
            Ok(())
        }
        IpAddr::V6(ip) => {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
            socket.set_multicast_hops_v6(255)?;
            socket.set_unicast_hops_v6(255)?;
            socket.set_multicast_if_v6(link.index)?;
            socket.set_multicast_loop_v6(false)?;
            // The address itself as the source: the kernel fills in the checksum from it.
            socket.bind(&SockAddr::from(SocketAddrV6::new(ip, 0, 0, link.index)))?;
            let to = SockAddr::from(SocketAddrV6::new(ALL_NODES, 0, 0, link.index));
            socket.send_to(&unsolicited_advertisement(mac, ip), &to)?;
            Ok(())
        }
    }
}

/// A whole Ethernet frame: broadcast, sender and target both `ip`.
pub(super) fn gratuitous_arp(operation: u16, mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(BROADCAST);
    frame.extend(mac);
    frame.extend([0x08, 0x06]); // ARP
    frame.extend([0x00, 0x01, 0x08, 0x00, 6, 4]); // Ethernet, IPv4, their lengths
    frame.extend(operation.to_be_bytes());
    frame.extend(mac);
    frame.extend(ip.octets());
    // RFC 5227: the target's hardware address is ignored in a request; repeating ours makes replies well-formed.
    frame.extend(if operation == ARP_REPLY { mac } else { [0; 6] });
    frame.extend(ip.octets());
    frame
}

/// A whole Ethernet frame: who has `wanted`? Tell `own`.
pub(super) fn arp_request(mac: Mac, own: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    let mut frame = gratuitous_arp(ARP_REQUEST, mac, own);
    frame.truncate(frame.len() - wanted.octets().len());
    frame.extend(wanted.octets());
    frame
}

/// A neighbour advertisement with the override flag: whoever has the address cached takes the new hardware address.
fn unsolicited_advertisement(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    let mut message = Vec::with_capacity(32);
    message.extend([136, 0, 0, 0]); // type, code, checksum (by the kernel)
    message.extend([0x20, 0, 0, 0]); // override; not solicited, not a router
    message.extend(ip.octets());
    message.extend([2, 1]); // target link-layer address, in units of 8 bytes
    message.extend(mac);
    message
}

/// Where a frame leaves: the interface of that index.
pub(super) fn packet_address(index: u32) -> io::Result<SockAddr> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the C socket address types that the storage is made for.
    #[expect(unsafe_code, reason = "socket2 has no safe constructor for packet addresses")]
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET.try_into().map_err(too_large)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ARP).map_err(too_large)?.to_be();
    address.sll_ifindex = index.try_into().map_err(too_large)?;
    let length = mem::size_of::<libc::sockaddr_ll>()
        .try_into()
        .map_err(too_large)?;
    // SAFETY: the storage holds a whole `sockaddr_ll` with its family set, and `length` is its size.
    #[expect(unsafe_code, reason = "socket2 has no safe constructor for packet addresses")]
    let address = unsafe { SockAddr::new(storage, length) };
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_the_standards_say() {
        let mac = [0x02, 0, 0, 0, 0, 7];
        let frame = gratuitous_arp(ARP_REPLY, mac, Ipv4Addr::new(10, 0, 0, 254));
        let expected =
            "ffffffffffff 020000000007 0806 0001 0800 06 04 0002 020000000007 0a0000fe 020000000007 0a0000fe";
        assert_eq!(hex(&frame), expected.replace(' ', ""));
        let message = unsolicited_advertisement(mac, "fd00::254".parse().unwrap());
        let expected = "88000000 20000000 fd000000000000000000000000000254 0201 020000000007";
        assert_eq!(hex(&message), expected.replace(' ', ""));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
