//! Synchronous rtnetlink: one socket, one request, its replies, a limit on the wait.
//!
//! Synchronous on purpose: between reckoning how long an address may live and telling the kernel there must be no
//! point at which a task could be put aside. A request costs some tens of microseconds. Each user opens a socket of
//! its own, so that a late reply to one request can't be taken for the reply to another.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// The kernel answers within a call; longer than this and something is broken.
const REPLY_LIMIT: Duration = Duration::from_secs(1);
/// A dump that changes under our feet is begun anew so many times.
const DUMP_TRIES: u32 = 5;
/// The kernel fills at most 32 KiB a datagram.
const BUFFER_BYTES: usize = 64 * 1024;

/// A connection to the kernel's rtnetlink in the network namespace of the thread that opened it.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a connection.
    pub(super) fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket2::SockRef::from(&socket).set_read_timeout(Some(REPLY_LIMIT))?;
        // Makes the kernel filter dumps by interface. Older kernels don't; callers filter as well.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Netlink {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Asks for a change and waits for its acknowledgement. The error carries the kernel's number.
    pub(super) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, flags | NLM_F_ACK)?;
        self.replies(|_| ())?;
        Ok(())
    }

    /// Asks for all objects of a kind.
    pub(super) fn dump(&mut self, message: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_TRIES {
            let mut objects = Vec::new();
            self.send(message.clone(), NLM_F_DUMP)?;
            if self.replies(|object| objects.push(object))? == Dump::Whole {
                return Ok(objects);
            }
        }
        Err(io::Error::other(
            "the kernel's tables kept changing during a dump",
        ))
    }

    /// The interface of that name. `ENODEV` if there is none.
    pub(super) fn link(&mut self, name: &str) -> io::Result<Link> {
        if name.is_empty() || name.len() > 15 {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.send(RouteNetlinkMessage::GetLink(request), NLM_F_ACK)?;
        let mut found = None;
        self.replies(|object| {
            if let RouteNetlinkMessage::NewLink(link) = object {
                found = Some(Link::from(link));
            }
        })?;
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Hands each object in the replies to `take`, until the acknowledgement or the end of the dump.
    fn replies(&mut self, mut take: impl FnMut(RouteNetlinkMessage)) -> io::Result<Dump> {
        let mut dump = Dump::Whole;
        loop {
            let received = self.socket.recv(&mut self.buffer.as_mut_slice(), 0)?;
            let mut rest = self.buffer.get(..received).unwrap_or_default();
            while !rest.is_empty() {
                let packet = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                // Packets are padded to 4 bytes.
                let length = usize::try_from(packet.header.length).unwrap_or(usize::MAX);
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if packet.header.sequence_number != self.sequence {
                    continue;
                }
                if packet.header.flags & NLM_F_DUMP_INTR != 0 {
                    dump = Dump::Interrupted;
                }
                match packet.payload {
                    NetlinkPayload::InnerMessage(object) => take(object),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) => return Ok(dump),
                    // The end of a dump carries a number that is negative if it failed midway.
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
                    }
                    NetlinkPayload::Done(_) => return Ok(dump),
                    NetlinkPayload::Overrun(_) => {
                        return Err(io::Error::other("the kernel lost netlink replies"));
                    }
                    // The enum is open; what we don't know is not the end of the replies.
                    NetlinkPayload::Noop | _ => {}
                }
            }
        }
    }
}

/// Whether a dump shows one state of the kernel's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dump {
    Whole,
    Interrupted,
}

/// What we need to know of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number.
    pub(super) index: u32,
    /// Its hardware address; empty if it has none.
    pub(super) mac: Vec<u8>,
    /// Its MTU, in bytes.
    pub(super) mtu: Option<u32>,
    /// The bridge that it is a port of.
    pub(super) controller: Option<u32>,
    /// Whether it is set up.
    pub(super) up: bool,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Link {
        let mut link = Link {
            index: message.header.index,
            mac: Vec::new(),
            mtu: None,
            controller: None,
            up: message
                .header
                .flags
                .contains(netlink_packet_route::link::LinkFlags::Up),
        };
        for attribute in message.attributes {
            if let LinkAttribute::Address(mac) = attribute {
                link.mac = mac;
            } else if let LinkAttribute::Mtu(mtu) = attribute {
                link.mtu = Some(mtu);
            } else if let LinkAttribute::Controller(index) = attribute {
                link.controller = Some(index);
            }
        }
        link
    }
}
