//! Closing the TCP connections of an address that has gone.
//!
//! The peer of such a connection would otherwise wait for minutes for an answer that can't come any more; reset, it
//! connects anew and finds the new holder. It is what `ss -K` does (`SOCK_DESTROY`). Listening sockets stay: they are
//! bound ahead of the address on purpose.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const HEADER_BYTES: usize = 16;
/// `struct inet_diag_sockid`.
const ID_BYTES: usize = 48;
/// Every TCP state but LISTEN (10).
const STATES: u32 = 0xfff & !(1 << 10);
const REPLY_LIMIT: Duration = Duration::from_secs(1);

/// Resets every TCP connection whose local end is `ip`. Failing is no more than slow for the peers, so it is logged,
/// once.
pub(super) fn close(ip: IpAddr) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    match try_close(ip) {
        Ok(0) => {}
        Ok(count) => tracing::debug!(%ip, count, "connections of an address that has gone were closed"),
        Err(error) => {
            if !TOLD.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    %ip, %error,
                    "connections of an address that has gone can't be closed; told once"
                );
            }
        }
    }
}

fn try_close(ip: IpAddr) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket2::SockRef::from(&socket).set_read_timeout(Some(REPLY_LIMIT))?;

    let mut ids = Vec::new();
    // An IPv4 connection may belong to a socket of either family.
    let families = match ip {
        IpAddr::V4(_) => [Some(libc::AF_INET), Some(libc::AF_INET6)],
        IpAddr::V6(_) => [Some(libc::AF_INET6), None],
    };
    for family in families.into_iter().flatten() {
        let family = u8::try_from(family).unwrap_or(0);
        let dump = request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, &[0; ID_BYTES]);
        exchange(&socket, &dump, |message| {
            ids.extend(connection_of(message, ip).map(|id| (family, id)));
        })?;
    }
    let mut closed = 0;
    for (family, id) in ids {
        match exchange(&socket, &request(SOCK_DESTROY, NLM_F_ACK, family, &id), |_| ()) {
            Ok(()) => closed += 1,
            // It ended by itself meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(closed)
}

/// A `struct inet_diag_req_v2` in its packet.
fn request(kind: u16, flags: u16, family: u8, id: &[u8; ID_BYTES]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + 8 + ID_BYTES).unwrap_or(0);
    let mut packet = Vec::with_capacity(HEADER_BYTES + 8 + ID_BYTES);
    packet.extend(length.to_ne_bytes());
    packet.extend(kind.to_ne_bytes());
    packet.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    packet.extend([0; 8]); // sequence number and port: one request is under way at a time
    packet.extend([family, u8::try_from(libc::IPPROTO_TCP).unwrap_or(6), 0, 0]);
    packet.extend(STATES.to_ne_bytes());
    packet.extend(id);
    packet
}

/// Sends one request and hands the content of each reply to `take`.
fn exchange(socket: &Socket, packet: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
    socket.send(packet, 0)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let received = socket.recv(&mut buffer.as_mut_slice(), 0)?;
        let mut rest = buffer.get(..received).unwrap_or_default();
        while let Some((length, kind)) = header(rest) {
            let content = rest.get(HEADER_BYTES..length).unwrap_or_default();
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = content
                        .first_chunk()
                        .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    return if code == 0 {
                        Ok(())
                    } else {
                        Err(io::Error::from_raw_os_error(code.saturating_neg()))
                    };
                }
                SOCK_DIAG_BY_FAMILY => take(content),
                // The kernel may add kinds; they are not the end.
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Length and kind of the packet at the start of `bytes`.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?);
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let length = usize::try_from(length).ok()?;
    (length >= HEADER_BYTES && length <= bytes.len()).then_some((length, kind))
}

/// The identity of the connection in a `struct inet_diag_msg`, if `ip` is its local end.
fn connection_of(message: &[u8], ip: IpAddr) -> Option<[u8; ID_BYTES]> {
    // 4 bytes of family, state, timer, retransmits; then ports (2 + 2), source (16), destination (16), interface,
    // cookie.
    let id: [u8; ID_BYTES] = *message.get(4..)?.first_chunk()?;
    let source: [u8; 16] = *id.get(4..)?.first_chunk()?;
    let is_inet6 = i32::from(*message.first()?) == libc::AF_INET6;
    let local = if is_inet6 {
        IpAddr::from(source).to_canonical()
    } else {
        let source: [u8; 4] = *source.first_chunk()?;
        IpAddr::from(source)
    };
    (local == ip).then_some(id)
}
