//! The host's addresses, by synchronous netlink.
//!
//! An address of the role lives in the kernel only as long as the right to hold it: it is set with a finite
//! `valid_lft`, so the kernel drops it by itself when the agent is frozen, killed or cut off. IPv4 addresses are /32
//! with the label `BRIDGE:pvc`, IPv6 addresses /128 without duplicate address detection; both carry `IFA_PROTO` 0x50,
//! and a preferred lifetime of 0, so that they are not chosen as the source of a new connection.
//!
//! # The window
//!
//! `RTM_NEWADDR` creates whatever its flags: with `NLM_F_REPLACE` and without `NLM_F_CREATE` Linux (6.18 tried) adds a
//! missing address all the same, IPv4 and IPv6; there is no `ENOENT`. So a refresh looks first (one dump) and sets
//! then, and an address that the kernel drops *between the two calls* is created anew. That window, from the end of
//! the look to the acknowledgement, measured over 5000 refreshes on a busy 2-core machine, is 15 us for IPv4 and 7 us
//! for IPv6 (median; 35 and 17 us in 99 of 100; 32 ms once, when the thread was put aside).
//!
//! A host that is frozen exactly there sets the address when it wakes up, reads the clock right after, and takes it
//! off again. Only frozen a second time, between these two, it would hold the address: until the kernel drops it.
//! The same holds for a lifetime: one that was reckoned before a freeze and set after it is too long, and is shortened
//! right after the call.

mod bridges;
mod connections;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;

pub use bridges::ensure_bridges;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
    CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use pvc_common::clock::{Clock, HostClock};
use pvc_common::pause;
use pvc_core::time::BootTime;

use super::announce;
use super::lifetime;
use super::netlink::Netlink;
use super::{AddressOutcome, Changed, HostNetwork, NetworkError, RoleAddress};

/// The end of the label of the role's IPv4 addresses.
const LABEL_END: &str = ":pvc";
/// The longest label, in bytes (`IFNAMSIZ` - 1).
const LABEL_BYTES: usize = 15;
/// `IFA_PROTO` of the role's addresses: `P`. 4 and up are free for administrators and programs.
const PROTOCOL: AddressProtocol = AddressProtocol::Other(0x50);

/// The addresses of this host, in the network namespace of the calling thread.
#[derive(Debug, Clone)]
pub struct KernelNetwork<C = HostClock> {
    clock: C,
}

impl<C: Clock> KernelNetwork<C> {
    /// The network of this host, with the clock that rights are reckoned by.
    pub fn new(clock: C) -> KernelNetwork<C> {
        KernelNetwork { clock }
    }

    /// Takes off every address that carries our mark, and `floating` wherever they are: at start, before anything
    /// else, and when the agent has ended (`--drop-role`). Goes on after an error.
    ///
    /// # Idempotence
    /// With nothing to take off nothing happens.
    ///
    /// # Errors
    /// The first [`NetworkError`]; some addresses may then still be there.
    pub fn drop_role_addresses(&self, floating: &[IpAddr]) -> Result<Vec<IpAddr>, NetworkError> {
        let failed = |source| kernel_error("list the addresses", source);
        let mut netlink = Netlink::open().map_err(failed)?;
        let mut dropped = Vec::new();
        let mut first_error = None;
        for message in addresses(&mut netlink, AddressFamily::Unspec, None).map_err(failed)? {
            let Some(ip) = local_ip(&message) else { continue };
            if !is_marked(&message) && !floating.contains(&ip) {
                continue;
            }
            match delete(&mut netlink, &message) {
                Ok(_) => dropped.push(ip),
                Err(source) => {
                    first_error.get_or_insert(kernel_error(&format!("remove {ip}"), source));
                }
            }
        }
        for ip in &dropped {
            connections::close(*ip);
        }
        first_error.map_or(Ok(dropped), Err)
    }

    /// Reckons and sets. Everything that can take time is done before the clock is read. An address that the kernel got
    /// late, so that its lifetime ends after its right, is reckoned and set anew.
    fn set(
        &self,
        netlink: &mut Netlink,
        index: u32,
        address: &RoleAddress,
        right_ends: BootTime,
    ) -> Result<AddressOutcome, NetworkError> {
        for _ in 0..lifetime::TRIES {
            let Some(valid_lft) = lifetime::valid_lft(right_ends, self.clock.now()) else {
                break;
            };
            let mut message = address_message(index, address);
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_valid = valid_lft.get();
            message.attributes.push(AddressAttribute::CacheInfo(lifetime));
            let set = netlink.change(
                RouteNetlinkMessage::NewAddress(message),
                NLM_F_CREATE | NLM_F_REPLACE,
            );
            if let Err(source) = set {
                // The reply may never have come: the address must not be there on the strength of that.
                take_off(netlink, index, address)?;
                let action = format!("set {} on {}", address.ip, address.interface);
                return Err(kernel_error(&action, source));
            }
            if !lifetime::outlives(right_ends, valid_lft, self.clock.now()) {
                return Ok(AddressOutcome::Set {
                    valid_lft_seconds: valid_lft.get(),
                });
            }
        }
        take_off(netlink, index, address)?;
        Ok(AddressOutcome::TooLate)
    }
}

impl<C: Clock> HostNetwork for KernelNetwork<C> {
    fn add(&self, address: &RoleAddress, right_ends: BootTime) -> Result<AddressOutcome, NetworkError> {
        let (mut netlink, index) = open(address)?;
        self.set(&mut netlink, index, address, right_ends)
    }

    fn refresh(&self, address: &RoleAddress, right_ends: BootTime) -> Result<AddressOutcome, NetworkError> {
        // Held here, between the decision to refresh and the first look, a test sees `Missing`.
        pause::point("role-refresh");
        let (mut netlink, index) = open(address)?;
        let there = is_there(&mut netlink, index, address.ip)
            .map_err(|source| kernel_error(&format!("look for {}", address.ip), source))?;
        if !there {
            connections::close(address.ip);
            return Ok(AddressOutcome::Missing);
        }
        // Held here, after the look, it sees that the clock is read after every wait: `TooLate`.
        pause::point("role-refresh-set");
        self.set(&mut netlink, index, address, right_ends)
    }

    fn remove(&self, address: &RoleAddress) -> Result<Changed, NetworkError> {
        // While the address is still here its clients are told that their connections end. Later the kernel has no
        // address to send that from, and they would wait for an answer until they give up.
        connections::close(address.ip);
        match open(address) {
            Ok((mut netlink, index)) => take_off(&mut netlink, index, address),
            // No interface, no address.
            Err(NetworkError::NoInterface { .. }) => Ok(Changed::AlreadySo),
            Err(error @ NetworkError::Kernel { .. }) => Err(error),
        }
    }

    fn present(&self, wanted: &[RoleAddress]) -> Result<Vec<RoleAddress>, NetworkError> {
        let failed = |source| kernel_error("list the addresses", source);
        let mut netlink = Netlink::open().map_err(failed)?;
        let mut present = Vec::new();
        for address in wanted {
            let there = match netlink.link(&address.interface) {
                Ok(link) => is_there(&mut netlink, link.index, address.ip),
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
                Err(error) => Err(error),
            };
            if there.map_err(failed)? {
                present.push(address.clone());
            }
        }
        Ok(present)
    }

    fn announce(&self, address: &RoleAddress) -> Result<(), NetworkError> {
        let action = || format!("announce {} on {}", address.ip, address.interface);
        let mut netlink = Netlink::open().map_err(|source| kernel_error(&action(), source))?;
        let link = find(&mut netlink, &address.interface)?;
        announce::send(address.ip, &link).map_err(|source| kernel_error(&action(), source))
    }
}

fn kernel_error(action: &str, source: io::Error) -> NetworkError {
    NetworkError::Kernel {
        action: action.to_owned(),
        source,
    }
}

fn find(netlink: &mut Netlink, interface: &str) -> Result<super::netlink::Link, NetworkError> {
    netlink.link(interface).map_err(|source| {
        if source.raw_os_error() == Some(libc::ENODEV) {
            NetworkError::NoInterface {
                interface: interface.to_owned(),
            }
        } else {
            kernel_error(&format!("look up {interface}"), source)
        }
    })
}

fn open(address: &RoleAddress) -> Result<(Netlink, u32), NetworkError> {
    let mut netlink = Netlink::open().map_err(|source| kernel_error("open a netlink socket", source))?;
    let link = find(&mut netlink, &address.interface)?;
    Ok((netlink, link.index))
}

fn take_off(netlink: &mut Netlink, index: u32, address: &RoleAddress) -> Result<Changed, NetworkError> {
    let changed = delete(netlink, &address_message(index, address)).map_err(|source| {
        kernel_error(
            &format!("remove {} from {}", address.ip, address.interface),
            source,
        )
    })?;
    connections::close(address.ip);
    Ok(changed)
}

/// Removes what `message` shows. By number: the kernel's texts and their order differ between its releases.
fn delete(netlink: &mut Netlink, message: &AddressMessage) -> io::Result<Changed> {
    match netlink.change(RouteNetlinkMessage::DelAddress(message.clone()), 0) {
        Ok(()) => Ok(Changed::Done),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => {
            Ok(Changed::AlreadySo)
        }
        Err(error) => Err(error),
    }
}

fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn host_prefix(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The label of the role's addresses on `interface`; a long name is cut.
fn label(interface: &str) -> String {
    let mut label: String = interface.chars().take(LABEL_BYTES - LABEL_END.len()).collect();
    label.push_str(LABEL_END);
    label
}

/// The address as the kernel is told of it, without a lifetime.
fn address_message(index: u32, address: &RoleAddress) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.ip);
    message.header.prefix_len = host_prefix(address.ip);
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address.ip));
    message.attributes.push(AddressAttribute::Address(address.ip));
    message.attributes.push(AddressAttribute::Protocol(PROTOCOL));
    match address.ip {
        IpAddr::V4(_) => {
            message
                .attributes
                .push(AddressAttribute::Label(label(&address.interface)));
        }
        IpAddr::V6(_) => {
            // Detecting a duplicate takes a second in which the address does not answer, and would find the frozen
            // old holder, who is about to lose it. The route to a single host of our own is the local table's.
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(
                AddressFlags::Nodad | AddressFlags::Noprefixroute,
            ));
        }
    }
    message
}

/// The addresses of the host, or of one interface of it.
fn addresses(
    netlink: &mut Netlink,
    family: AddressFamily,
    index: Option<u32>,
) -> io::Result<Vec<AddressMessage>> {
    let mut request = AddressMessage::default();
    request.header.family = family;
    request.header.index = index.unwrap_or(0);
    let objects = netlink.dump(&RouteNetlinkMessage::GetAddress(request))?;
    Ok(objects
        .into_iter()
        .filter_map(|object| {
            if let RouteNetlinkMessage::NewAddress(message) = object {
                Some(message)
            } else {
                None
            }
        })
        .filter(|message| index.is_none_or(|index| message.header.index == index))
        .collect())
}

fn is_there(netlink: &mut Netlink, index: u32, ip: IpAddr) -> io::Result<bool> {
    let there = addresses(netlink, family(ip), Some(index))?;
    Ok(there
        .iter()
        .any(|message| message.header.prefix_len == host_prefix(ip) && local_ip(message) == Some(ip)))
}

/// The host's own end of the address. IPv6 has no `IFA_LOCAL` unless there is a peer.
fn local_ip(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(ip) = attribute {
            return Some(*ip);
        }
        if let AddressAttribute::Address(ip) = attribute {
            address = Some(*ip);
        }
    }
    address
}

/// Whether the address carries our mark.
fn is_marked(message: &AddressMessage) -> bool {
    message.attributes.iter().any(|attribute| {
        if let AddressAttribute::Label(label) = attribute {
            label.ends_with(LABEL_END)
        } else {
            *attribute == AddressAttribute::Protocol(PROTOCOL)
        }
    })
}
