//! How the texts of the file become values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pvc_core::ids::{NodeName, PoolName, TagName};
use pvc_core::states::NodeSelector;
use uuid::Uuid;

use super::finding::Problem;
use super::section::Value;
use crate::secret::Secret;

/// What the secrets of our sample file begin with: everyone knows them.
const SAMPLE_SECRET: &str = "change me";

/// A `Value` by `FromStr` whose error message adds nothing to "is not ...".
macro_rules! plain_values {
    ($($type:ty: $expected:literal),+ $(,)?) => {
        $(impl Value for $type {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| String::new())
            }
        })+
    };
}

plain_values! {
    Ipv4Addr: "an IPv4 address",
    Ipv6Addr: "an IPv6 address",
    IpAddr: "an IP address",
    Uuid: "a UUID",
    u32: "a whole number",
}

/// A `Value` by an identity's own constructor, which says which rule is broken.
macro_rules! id_values {
    ($($type:ty: $expected:literal),+ $(,)?) => {
        $(impl Value for $type {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Result<Self, String> {
                <$type>::new(text).map_err(|invalid| invalid.reason.to_owned())
            }
        })+
    };
}

id_values! {
    NodeName: "a node name",
    PoolName: "a pool name",
}

impl Value for String {
    const EXPECTED: &'static str = "a text";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it must not be empty".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err("control characters are not allowed".to_owned());
        }
        Ok(text.to_owned())
    }
}

impl Value for Secret {
    const EXPECTED: &'static str = "a text";

    // It never fails, so that no finding can show it.
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Secret::new(text))
    }

    fn remark(&self) -> Option<Problem> {
        self.expose()
            .starts_with(SAMPLE_SECRET)
            .then_some(Problem::SampleSecret)
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "yes or no";

    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "yes" | "true" | "on" | "y" => Ok(true),
            "no" | "false" | "off" | "n" => Ok(false),
            _ => Err(String::new()),
        }
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "an absolute path";

    fn parse(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        if path.is_absolute() {
            Ok(path.to_owned())
        } else {
            Err(String::new())
        }
    }
}

impl Value for NodeSelector {
    const EXPECTED: &'static str = "one of mem, memprov, load, vcpus, vms";

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            // "The cluster's default" is what this key says.
            Ok(NodeSelector::None) | Err(_) => Err(String::new()),
            Ok(selector) => Ok(selector),
        }
    }
}

/// A time of at least one second.
pub(super) struct Seconds(pub(super) Duration);

impl Value for Seconds {
    const EXPECTED: &'static str = "a whole number of seconds from 1 to 86400";

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<u64>() {
            Ok(seconds @ 1..=86_400) => Ok(Seconds(Duration::from_secs(seconds))),
            Ok(_) | Err(_) => Err(String::new()),
        }
    }
}

/// A count of at least one.
pub(super) struct Count(pub(super) u32);

impl Value for Count {
    const EXPECTED: &'static str = "a whole number of at least 1";

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) | Err(_) => Err(String::new()),
            Ok(count) => Ok(Count(count)),
        }
    }
}

/// A TCP port.
pub(super) struct Port(pub(super) u16);

impl Value for Port {
    const EXPECTED: &'static str = "a port number from 1 to 65535";

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) | Err(_) => Err(String::new()),
            Ok(port) => Ok(Port(port)),
        }
    }
}

/// The largest packet of a link.
pub(super) struct Mtu(pub(super) u32);

impl Value for Mtu {
    const EXPECTED: &'static str = "an MTU from 576 to 65535 bytes";

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(mtu @ 576..=65_535) => Ok(Mtu(mtu)),
            Ok(_) | Err(_) => Err(String::new()),
        }
    }
}

/// The name of a network interface.
pub(super) struct Device(pub(super) String);

impl Value for Device {
    const EXPECTED: &'static str = "the name of a network interface";

    fn parse(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
        if text.len() > 15 {
            Err("the kernel takes at most 15 characters".to_owned())
        } else if !text.chars().all(allowed) || text == "." || text == ".." {
            Err(String::new())
        } else {
            Ok(Device(text.to_owned()))
        }
    }
}

/// A DNS domain or host name.
pub(super) struct Domain(pub(super) String);

impl Value for Domain {
    const EXPECTED: &'static str = "a DNS name";

    fn parse(text: &str) -> Result<Self, String> {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(is_label) {
            Ok(Domain(text.to_owned()))
        } else {
            Err(String::new())
        }
    }
}

/// A DNS name or an IP address.
pub(super) struct Host(pub(super) String);

impl Value for Host {
    const EXPECTED: &'static str = "a host name or an IP address";

    fn parse(text: &str) -> Result<Self, String> {
        if text.parse::<IpAddr>().is_ok() {
            return Ok(Host(text.to_owned()));
        }
        Domain::parse(text).map(|domain| Host(domain.0))
    }
}

/// A file name without directories.
pub(super) struct FileName(pub(super) String);

impl Value for FileName {
    const EXPECTED: &'static str = "a file name without a directory";

    fn parse(text: &str) -> Result<Self, String> {
        if text.contains(['/', '\0']) || matches!(text, "." | "..") {
            Err(String::new())
        } else {
            Ok(FileName(text.to_owned()))
        }
    }
}

/// A tag of guests.
impl Value for TagName {
    const EXPECTED: &'static str = "a tag";

    fn parse(text: &str) -> Result<Self, String> {
        TagName::new(text).map_err(|invalid| invalid.reason.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts<T: Value>(good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(T::parse(text).is_ok(), "{text:?} is {}", T::EXPECTED);
        }
        for text in bad {
            assert!(T::parse(text).is_err(), "{text:?} is not {}", T::EXPECTED);
        }
    }

    #[test]
    fn borders_of_the_kinds_of_value() {
        accepts::<bool>(&["yes", "No", "TRUE", "off"], &["", "1", "maybe"]);
        accepts::<Seconds>(&["1", "86400"], &["0", "86401", "-1", "1.5", "5s"]);
        accepts::<Port>(&["1", "65535"], &["0", "65536", "http"]);
        accepts::<Mtu>(&["576", "1500", "9000", "65535"], &["575", "65536", "jumbo"]);
        accepts::<Count>(&["1"], &["0", "-1", "two"]);
        accepts::<Device>(
            &["ens4", "bond0.100", "abcdefghijklmno"],
            &["abcdefghijklmnop", "a b", "a/b", ".", "a:1"],
        );
        accepts::<Domain>(
            &["pvc.local", "a", "x-1.y_2"],
            &["", ".", "a..b", "-a.b", "a-", "a b", "ä.de"],
        );
        accepts::<Host>(&["10.0.0.1", "fd00::1", "lom1.example.org"], &["fd00::g", "a b"]);
        accepts::<FileName>(&["ceph.conf"], &["/etc/ceph.conf", "..", "a/b"]);
        accepts::<PathBuf>(&["/run/pvc", "/"], &["run/pvc", ""]);
        accepts::<NodeSelector>(&["mem", "vms"], &["none", "", "memory"]);
        accepts::<String>(&["x y"], &["", "x\ny"]);
    }
}
