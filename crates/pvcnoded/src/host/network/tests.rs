//! Against this machine's kernel, in namespaces that the tests make. They need root.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::*;
use crate::host::RoleNetwork;
use crate::host::testing::{in_namespace, ip, pause, wait_until};

const V4: &str = "10.99.0.254";
const V6: &str = "fd00:99::254";

fn network() -> KernelNetwork {
    KernelNetwork::new(HostClock)
}

fn address(text: &str) -> RoleAddress {
    RoleAddress {
        network: RoleNetwork::Upstream,
        interface: "brupstream".to_owned(),
        ip: text.parse().unwrap(),
    }
}

fn left(duration: Duration) -> BootTime {
    HostClock.now() + duration
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A bridge with the node's own addresses.
fn bridge() {
    ip("link add brupstream type bridge");
    ip("link set brupstream up");
    ip("addr add 10.99.0.1/24 dev brupstream");
    ip("addr add fd00:99::1/64 dev brupstream nodad");
}

/// Runs `test` once for each family, side by side, each in a namespace of its own.
fn for_both(test: fn(&'static str)) {
    std::thread::scope(|scope| {
        for text in [V4, V6] {
            scope.spawn(move || in_namespace(move || test(text)));
        }
    });
}

fn shown() -> String {
    ip("addr show dev brupstream")
}

fn is_present(text: &str) -> bool {
    !network().present(&[address(text)]).unwrap().is_empty()
}

// If the kernel kept an address of a frozen primary, two nodes would answer for it.
#[test]
fn an_address_goes_by_itself_when_its_lifetime_is_over() {
    for_both(|text| {
        bridge();
        let outcome = network()
            .add(&address(text), left(Duration::from_millis(2900)))
            .unwrap();
        assert_eq!(outcome, AddressOutcome::Set { valid_lft_seconds: 2 });
        assert!(is_present(text));
        let took = wait_until("the address is gone", || !is_present(text));
        assert!(took >= Duration::from_millis(1800), "{text} went after {took:?}");
        // g of the protocol is 1.1 s; a busy test machine may look late.
        assert!(took <= seconds(6), "{text} went after {took:?}");
        assert!(shown().contains("10.99.0.1/24") && shown().contains("fd00:99::1/64"));
    });
}

#[test]
fn refreshing_keeps_an_address_and_its_end_ends_it() {
    for_both(|text| {
        bridge();
        let network = network();
        network.add(&address(text), left(seconds(4))).unwrap();
        let start = HostClock.now();
        while HostClock.now().since(start) < seconds(5) {
            let outcome = network.refresh(&address(text), left(seconds(4))).unwrap();
            assert!(
                matches!(outcome, AddressOutcome::Set { .. }),
                "{text}: {outcome:?}"
            );
            pause(Duration::from_millis(200));
        }
        wait_until("the address is gone", || !is_present(text));
    });
}

// A primary that woke up after its lease would otherwise take its addresses back from the new one.
#[test]
fn refreshing_a_missing_address_does_not_add_it() {
    for_both(|text| {
        bridge();
        let outcome = network().refresh(&address(text), left(seconds(5))).unwrap();
        assert_eq!(outcome, AddressOutcome::Missing);
        assert!(!shown().contains(text));
    });
}

#[test]
fn an_address_of_another_prefix_is_not_the_roles() {
    in_namespace(|| {
        bridge();
        ip("addr add 10.99.0.254/24 dev brupstream");
        let outcome = network().refresh(&address(V4), left(seconds(5))).unwrap();
        assert_eq!(outcome, AddressOutcome::Missing);
    });
}

#[test]
fn removing_is_idempotent_and_leaves_the_own_address() {
    for_both(|text| {
        bridge();
        let network = network();
        network.add(&address(text), left(seconds(60))).unwrap();
        assert_eq!(network.remove(&address(text)).unwrap(), Changed::Done);
        assert!(!shown().contains(text));
        assert_eq!(network.remove(&address(text)).unwrap(), Changed::AlreadySo);
        assert!(shown().contains("10.99.0.1/24") && shown().contains("fd00:99::1/64"));
    });
}

#[test]
fn adding_twice_gives_the_later_lifetime() {
    for_both(|text| {
        bridge();
        let network = network();
        network.add(&address(text), left(seconds(60))).unwrap();
        network.add(&address(text), left(seconds(2))).unwrap();
        wait_until("the address is gone", || !is_present(text));
    });
}

#[test]
fn a_missing_interface_is_named_and_nothing_to_remove() {
    in_namespace(|| {
        let error = network().add(&address(V4), left(seconds(5))).unwrap_err();
        assert!(matches!(&error, NetworkError::NoInterface { interface } if interface == "brupstream"));
        assert_eq!(network().remove(&address(V4)).unwrap(), Changed::AlreadySo);
        assert!(!is_present(V4));
    });
}

// What an administrator sees, and what later rules rely on: a mark to find our addresses by, and a preferred lifetime
// of 0, so that no connection of this host starts from them.
#[test]
fn addresses_are_marked_and_never_a_source() {
    in_namespace(|| {
        bridge();
        for text in [V4, V6] {
            network().add(&address(text), left(seconds(60))).unwrap();
        }
        let shown = shown();
        let of = |text: &str| shown.lines().find(|line| line.contains(text)).unwrap().to_owned();
        let v4 = of(V4);
        assert!(v4.contains("10.99.0.254/32") && v4.contains("deprecated"), "{v4}");
        assert!(v4.contains("brupstream:pvc"), "{v4}");
        let v6 = of(V6);
        for word in ["fd00:99::254/128", "deprecated", "nodad", "noprefixroute"] {
            assert!(v6.contains(word), "{word}: {v6}");
        }
        assert!(!v6.contains("tentative"), "{v6}");
        for (to, own) in [
            ("10.99.0.77", "src 10.99.0.1 "),
            ("fd00:99::77", "src fd00:99::1 "),
        ] {
            let route = ip(&format!("route get {to}"));
            assert!(route.contains(own), "{route}");
        }
    });
}

#[test]
fn what_an_earlier_life_left_is_dropped_and_nothing_else() {
    in_namespace(|| {
        bridge();
        for text in [V4, V6] {
            network().add(&address(text), left(seconds(60))).unwrap();
        }
        // Put there by hand, without our mark.
        ip("addr add 10.99.0.253/24 dev brupstream");
        let mut dropped = network()
            .drop_role_addresses(&["10.99.0.253".parse().unwrap()])
            .unwrap();
        dropped.sort();
        let expected: Vec<IpAddr> = ["10.99.0.253", V4, V6].map(|text| text.parse().unwrap()).into();
        assert_eq!(dropped, expected);
        assert!(shown().contains("10.99.0.1/24") && shown().contains("fd00:99::1/64"));
        assert!(ip("addr show dev lo").contains("127.0.0.1/8"));
        assert!(network().drop_role_addresses(&[]).unwrap().is_empty());
    });
}

/// A clock that stands still for some readings and then jumps: a host that was frozen within a call.
#[derive(Debug, Clone)]
struct JumpyClock {
    readings: Arc<Mutex<Vec<BootTime>>>,
}

impl Clock for JumpyClock {
    fn now(&self) -> BootTime {
        let mut readings = self.readings.lock().unwrap();
        if readings.len() > 1 {
            readings.remove(0)
        } else {
            readings[0]
        }
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    async fn sleep_until(&self, _deadline: BootTime) {}
}

#[test]
fn a_right_that_ends_before_or_during_the_call_leaves_no_address() {
    for_both(|text| {
        bridge();
        let start = BootTime::from_duration(seconds(100));
        let right_ends = start + Duration::from_millis(4500);
        let frozen_for = |duration| {
            KernelNetwork::new(JumpyClock {
                readings: Arc::new(Mutex::new(vec![start, start + duration])),
            })
        };
        // Frozen within the call, past the end of the right.
        let late = frozen_for(Duration::from_millis(4500));
        assert_eq!(
            late.add(&address(text), right_ends).unwrap(),
            AddressOutcome::TooLate
        );
        assert!(!shown().contains(text));
        // Frozen within the call for so long that the lifetime would end after the right: shortened. Else a host that is
        // frozen again right after would answer when the next claim is due.
        for (frozen_ms, lifetime) in [(500, 4), (501, 3), (1700, 2), (3400, 1)] {
            let outcome = frozen_for(Duration::from_millis(frozen_ms)).add(&address(text), right_ends);
            let expected = AddressOutcome::Set {
                valid_lft_seconds: lifetime,
            };
            assert_eq!(outcome.unwrap(), expected, "{frozen_ms} ms");
        }
        wait_until("the address with the shortened lifetime is gone", || {
            !is_present(text)
        });
        let last_moment = frozen_for(Duration::from_millis(3501));
        assert_eq!(
            last_moment.add(&address(text), right_ends).unwrap(),
            AddressOutcome::TooLate
        );
        assert!(!shown().contains(text));
        frozen_for(Duration::ZERO)
            .add(&address(text), right_ends)
            .unwrap();
        // Woken up before the reckoning, with less than a second left.
        let spent = frozen_for(Duration::ZERO);
        let outcome = spent
            .refresh(&address(text), start + Duration::from_millis(999))
            .unwrap();
        assert_eq!(outcome, AddressOutcome::TooLate);
        assert!(!shown().contains(text));
    });
}

// The fact that the look before each refresh exists for. Were it no longer so, the window would be closed by the
// kernel and the module's doc wrong.
#[test]
fn replace_creates_whatever_its_flags() {
    for_both(|text| {
        bridge();
        let (mut netlink, index) = open(&address(text)).unwrap();
        let mut message = address_message(index, &address(text));
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = 60;
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        let outcome = netlink.change(RouteNetlinkMessage::NewAddress(message), NLM_F_REPLACE);
        assert!(outcome.is_ok(), "{text}: {outcome:?}");
        assert!(shown().contains(text), "{text}");
    });
}

// A client of the API on a connection to the old primary would wait for minutes; reset, it finds the new one.
#[test]
fn connections_of_a_removed_address_are_reset_and_listeners_stay() {
    in_namespace(|| {
        bridge();
        network().add(&address(V4), left(seconds(60))).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let on_role = TcpListener::bind((V4.parse::<Ipv4Addr>().unwrap(), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut through_role = TcpStream::connect((V4, port)).unwrap();
        let mut through_own = TcpStream::connect(("10.99.0.1", port)).unwrap();
        for stream in [&through_role, &through_own] {
            stream.set_read_timeout(Some(seconds(10))).unwrap();
        }
        let (accepted, _) = listener.accept().unwrap();
        let (mut other, _) = listener.accept().unwrap();
        network().remove(&address(V4)).unwrap();
        let error = through_role.read(&mut [0]).unwrap_err();
        assert!(
            matches!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::ConnectionAborted
            ),
            "{error:?}"
        );
        drop(accepted);
        // The other connection still carries data, and the listener is still bound.
        std::io::Write::write_all(&mut other, b"x").unwrap();
        let mut byte = [0];
        through_own.read_exact(&mut byte).unwrap();
        network().add(&address(V4), left(seconds(60))).unwrap();
        TcpStream::connect(on_role.local_addr().unwrap()).unwrap();
    });
}

/// Frames that reach the other end of the cable within 10 s, until `enough` says so.
fn announce_and_capture(text: &'static str, enough: fn(&[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
    let captured = Arc::new(Mutex::new(Vec::new()));
    let frames = Arc::clone(&captured);
    in_namespace(move || {
        bridge();
        ip("link add port type veth peer name cable");
        ip("link set port master brupstream up");
        ip("link set cable up");
        let capture = socket2::Socket::new(
            socket2::Domain::PACKET,
            socket2::Type::RAW,
            Some(socket2::Protocol::from(i32::from(
                u16::try_from(libc::ETH_P_ALL).unwrap().to_be(),
            ))),
        )
        .unwrap();
        capture.bind_device(Some(b"cable")).ok();
        capture
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        network().add(&address(text), left(seconds(60))).unwrap();
        // A new port of a bridge forwards once it has carrier.
        wait_until("the announcement arrives", || {
            network().announce(&address(text)).unwrap();
            let mut frames = frames.lock().unwrap();
            let mut buffer = [0; 2048];
            while let Ok(count) = (&capture).read(&mut buffer) {
                frames.push(buffer[..count].to_vec());
                if enough(&frames) {
                    return true;
                }
            }
            false
        });
    });
    Arc::into_inner(captured).unwrap().into_inner().unwrap()
}

fn arp_operations(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut operations: Vec<u8> = frames
        .iter()
        .filter(|frame| {
            frame.get(12..14) == Some(&[0x08, 0x06]) && frame.get(28..32) == Some(&[10, 99, 0, 254])
        })
        .map(|frame| frame[21])
        .collect();
    operations.sort_unstable();
    operations.dedup();
    operations
}

#[test]
fn neighbours_hear_both_kinds_of_gratuitous_arp() {
    let frames = announce_and_capture(V4, |frames| arp_operations(frames).len() == 2);
    assert_eq!(arp_operations(&frames), [1, 2]);
}

fn advertisement(frame: &&Vec<u8>) -> bool {
    frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(54) == Some(&136) && frame.get(58) == Some(&0x20)
}

#[test]
fn neighbours_hear_an_advertisement_that_overrides() {
    let frames = announce_and_capture(V6, |frames| frames.iter().any(|frame| advertisement(&frame)));
    let frame = frames.iter().find(advertisement).unwrap();
    assert_eq!(frame[21], 255, "a hop limit below 255 is ignored by receivers");
    let target: [u8; 16] = frame[62..78].try_into().unwrap();
    assert_eq!(IpAddr::from(target), V6.parse::<IpAddr>().unwrap());
    assert_eq!(
        frame[80..86],
        frame[6..12],
        "the hardware address is the sender's"
    );
    assert_ne!(frame[56..58], [0, 0], "the kernel has filled in the checksum");
}

#[test]
fn labels_fit_into_what_the_kernel_takes() {
    assert_eq!(label("brupstream"), "brupstream:pvc");
    assert_eq!(label("a-very-long-nam"), "a-very-long:pvc");
}
