//! Looking at the upstream network: the carrier of the uplink, and whether the gateway answers for its address.
//!
//! The question to the gateway is an ARP request, which every gateway answers, whatever its firewall says of pings. It
//! goes out of the upstream bridge from a raw socket, from this node's own address.

use std::future::Future;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use pvc_common::clock::{Clock as _, HostClock};
use pvc_core::upstream::UpstreamLook;
use socket2::{Domain, Protocol, Socket, Type};

use super::announce;
use super::netlink::Netlink;

/// How long an answer of the gateway is waited for before the question is put again.
const ANSWER_WITHIN: Duration = Duration::from_millis(350);
/// How often the question is put in one look.
const QUESTIONS: u32 = 2;
/// More than any ARP frame, with padding.
const FRAME_BYTES: usize = 128;

/// The upstream network as this node sees it.
pub trait UpstreamProbe: Clone + Send + Sync + 'static {
    /// Looks once; takes less than a second.
    fn look(&self) -> impl Future<Output = UpstreamLook> + Send;
}

/// This host's upstream network.
#[derive(Debug, Clone)]
pub struct HostUpstream {
    /// The uplink, whose carrier counts.
    pub device: String,
    /// The bridge that has this node's address.
    pub bridge: String,
    /// This node's own address there.
    pub own: Ipv4Addr,
    /// The gateway to ask; `None` if the carrier alone counts.
    pub gateway: Option<Ipv4Addr>,
    /// Where sysfs is.
    pub sys: PathBuf,
}

impl UpstreamProbe for HostUpstream {
    async fn look(&self) -> UpstreamLook {
        let probe = self.clone();
        // Its waits are bounded; it just must not be waited for on a thread of the runtime.
        tokio::task::spawn_blocking(move || probe.look_now())
            .await
            .unwrap_or_else(|error| UpstreamLook::CantTell {
                reason: error.to_string(),
            })
    }
}

impl HostUpstream {
    fn look_now(&self) -> UpstreamLook {
        match self.has_carrier() {
            Ok(true) => {}
            Ok(false) => return UpstreamLook::NoCarrier,
            Err(error) => {
                return UpstreamLook::CantTell {
                    reason: format!("the carrier of {} can't be read: {error}", self.device),
                };
            }
        }
        let Some(gateway) = self.gateway else {
            return UpstreamLook::Reached;
        };
        match answers(&self.bridge, self.own, gateway) {
            Ok(true) => UpstreamLook::Reached,
            Ok(false) => UpstreamLook::GatewaySilent,
            Err(error) => UpstreamLook::CantTell {
                reason: format!("{gateway} can't be asked: {error}"),
            },
        }
    }

    fn has_carrier(&self) -> io::Result<bool> {
        let path = self.sys.join("class/net").join(&self.device).join("carrier");
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.trim() == "1"),
            // An interface that is off has none to tell of; one that is gone has none at all.
            Err(error)
                if error.raw_os_error() == Some(libc::EINVAL) || error.kind() == io::ErrorKind::NotFound =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether anybody on the network of `bridge` answers for `wanted`.
fn answers(bridge: &str, own: Ipv4Addr, wanted: Ipv4Addr) -> io::Result<bool> {
    let link = Netlink::open()?.link(bridge)?;
    let mac: announce::Mac = link
        .mac
        .as_slice()
        .try_into()
        .map_err(|_| io::Error::new(io::ErrorKind::Unsupported, "not an Ethernet interface"))?;
    let arp = i32::from(u16::try_from(libc::ETH_P_ARP).unwrap_or_default().to_be());
    let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(arp)))?;
    let place = announce::packet_address(link.index)?;
    socket.bind(&place)?;
    let question = announce::arp_request(mac, own, wanted);
    let mut frame = [0; FRAME_BYTES];
    for _ in 0..QUESTIONS {
        socket.send_to(&question, &place)?;
        let deadline = HostClock.now() + ANSWER_WITHIN;
        loop {
            let left = deadline.since(HostClock.now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match socket.read(&mut frame) {
                Ok(length) if is_answer(&frame[..length.min(FRAME_BYTES)], wanted) => return Ok(true),
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(false)
}

/// Whether the frame is an ARP reply by whoever has `wanted`.
fn is_answer(frame: &[u8], wanted: Ipv4Addr) -> bool {
    // Ethernet header 14 bytes, then ARP: operation at 6, sender's hardware address at 8, its protocol address at 14.
    frame.get(12..14) == Some(&[0x08, 0x06])
        && frame.get(20..22) == Some(&[0, 2])
        && frame.get(28..32) == Some(&wanted.octets())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::{in_namespace, ip};

    fn probe(gateway: Option<&str>) -> HostUpstream {
        HostUpstream {
            device: "up0".into(),
            bridge: "brupstream".into(),
            own: "10.0.0.1".parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            sys: "/sys".into(),
        }
    }

    /// A node's bridge with its uplink, and the far end of the cable. The node's own address is on neither: both ends
    /// are in one namespace, and the kernel answers no question that seems to come from itself.
    fn network() {
        ip("link add brupstream type bridge");
        ip("link add up0 type veth peer name far0");
        ip("link set up0 master brupstream up");
        ip("link set far0 up");
        ip("link set brupstream up");
    }

    #[test]
    fn a_gateway_that_answers_is_reached_and_one_that_does_not_is_not() {
        in_namespace(|| {
            network();
            // The kernel answers on the far end for an address of its own.
            ip("addr add 10.0.0.254/24 dev far0");
            assert!(
                answers(
                    "brupstream",
                    "10.0.0.1".parse().unwrap(),
                    "10.0.0.254".parse().unwrap()
                )
                .unwrap()
            );
            assert!(
                !answers(
                    "brupstream",
                    "10.0.0.1".parse().unwrap(),
                    "10.0.0.253".parse().unwrap()
                )
                .unwrap()
            );
            ip("link set far0 down");
            assert!(
                !answers(
                    "brupstream",
                    "10.0.0.1".parse().unwrap(),
                    "10.0.0.254".parse().unwrap()
                )
                .unwrap()
            );
        });
    }

    #[test]
    fn a_link_without_carrier_or_without_device_is_not_reached() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("class/net/up0");
        let probe = HostUpstream {
            sys: sys.path().to_owned(),
            ..probe(None)
        };
        assert_eq!(probe.look_now(), UpstreamLook::NoCarrier);
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("carrier"), "0\n").unwrap();
        assert_eq!(probe.look_now(), UpstreamLook::NoCarrier);
        std::fs::write(device.join("carrier"), "1\n").unwrap();
        assert_eq!(probe.look_now(), UpstreamLook::Reached);
        // No bridge to ask from: nothing is concluded.
        let asking = HostUpstream {
            gateway: Some("10.0.0.254".parse().unwrap()),
            bridge: "no-such-bridge".into(),
            ..probe
        };
        assert!(matches!(asking.look_now(), UpstreamLook::CantTell { .. }));
    }

    #[test]
    fn only_a_reply_of_the_wanted_address_is_an_answer() {
        let mac = [2, 0, 0, 0, 0, 9];
        let wanted = Ipv4Addr::new(10, 0, 0, 254);
        let question = announce::arp_request(mac, Ipv4Addr::new(10, 0, 0, 1), wanted);
        assert!(!is_answer(&question, wanted));
        let reply = announce::gratuitous_arp(announce::ARP_REPLY, mac, wanted);
        assert!(is_answer(&reply, wanted));
        assert!(!is_answer(&reply, Ipv4Addr::new(10, 0, 0, 253)));
        assert!(!is_answer(&reply[..20], wanted));
    }
}
