//! Names and identities.
//!
//! What could be swapped by mistake has a type of its own. Each validates in its one constructor, so a value that
//! exists is a valid one and can be put into a znode path or a command's arguments.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not a valid name or identity of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}: {reason}")]
pub struct InvalidId {
    /// What the text was meant to be, in words for a person.
    pub kind: &'static str,
    /// The text as it was given.
    pub text: String,
    /// Which rule it breaks.
    pub reason: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes `text` if it is valid.
            ///
            /// # Errors
            /// [`InvalidId`] names the rule that the text breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                match $check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(reason) => Err(InvalidId { kind: $kind, text, reason }),
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

text_id!(
    /// A node's short host name, for example `hv1`.
    NodeName,
    "node name",
    check_host_label
);
text_id!(
    /// A guest's name: letters, digits, `_`, `-` and `.`, at most 63.
    VmName,
    "VM name",
    check_word
);
text_id!(
    /// A tag of a guest.
    TagName,
    "tag",
    check_tag
);
text_id!(
    /// A Ceph pool.
    PoolName,
    "pool name",
    check_word
);
text_id!(
    /// An RBD image, without its pool.
    ImageName,
    "volume name",
    check_image
);
text_id!(
    /// A token's or a user's name: letters, digits, `_`, `-` and `.`, at most 63.
    AccountName,
    "name of a token or user",
    check_word
);
text_id!(
    /// `/etc/machine-id` of a host: 32 lower-case hexadecimal digits.
    MachineId,
    "machine id",
    check_machine_id
);
text_id!(
    /// The kernel's boot id: new at each boot of a host.
    BootId,
    "boot id",
    check_uuid
);

impl NodeName {
    /// The last run of digits in the name, 0 if there is none: the "node number" by which addresses are chosen
    /// `by-id` and `{node_id}` is filled in.
    pub fn number(&self) -> u32 {
        let digits: String = self
            .0
            .rsplit(|c: char| !c.is_ascii_digit())
            .find(|run| !run.is_empty())
            .unwrap_or("0")
            .to_owned();
        digits.parse().unwrap_or(0)
    }
}

fn check_host_label(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 63 {
        return Err("it must have 1 to 63 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') || text.starts_with('-') {
        return Err("only letters, digits and inner hyphens are allowed (the short host name)");
    }
    if text == "none" {
        return Err("\"none\" is a reserved word");
    }
    Ok(())
}

fn check_word(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 63 {
        return Err("it must have 1 to 63 characters");
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        return Err("only letters, digits, '-', '_' and '.' are allowed");
    }
    if !text.as_bytes()[0].is_ascii_alphanumeric() {
        return Err("it must begin with a letter or digit");
    }
    Ok(())
}

/// Wider than a name: PVC 1.0.3 writes tags such as `automirror:cluster2`.
fn check_tag(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 255 {
        return Err("it must have 1 to 255 characters");
    }
    if text
        .chars()
        .any(|c| c.is_control() || c.is_whitespace() || matches!(c, '/' | ','))
    {
        return Err("'/', ',', spaces and control characters are not allowed");
    }
    if text == "." || text == ".." {
        return Err("it must not be '.' or '..'");
    }
    Ok(())
}

fn check_image(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 255 {
        return Err("it must have 1 to 255 characters");
    }
    if text
        .bytes()
        .any(|b| b.is_ascii_control() || matches!(b, b'/' | b'@' | b' ' | b','))
    {
        return Err("'/', '@', ',', spaces and control characters are not allowed");
    }
    if text.starts_with('-') || text == "." || text == ".." {
        return Err("it must not begin with '-' nor be '.' or '..'");
    }
    Ok(())
}

fn check_machine_id(text: &str) -> Result<(), &'static str> {
    if text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(())
    } else {
        Err("it must have 32 lower-case hexadecimal digits")
    }
}

fn check_uuid(text: &str) -> Result<(), &'static str> {
    Uuid::parse_str(text).map(|_| ()).map_err(|_| "it must be a UUID")
}

/// A guest's UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VmId(Uuid);

impl VmId {
    /// The id of that UUID.
    pub const fn new(uuid: Uuid) -> VmId {
        VmId(uuid)
    }

    /// The UUID.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for VmId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Uuid::parse_str(text).map(VmId).map_err(|_| InvalidId {
            kind: "VM UUID",
            text: text.to_owned(),
            reason: "it must be a UUID",
        })
    }
}

/// A volume: an RBD image in its pool, written `pool/image`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeId {
    /// The pool.
    pub pool: PoolName,
    /// The image.
    pub image: ImageName,
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.image)
    }
}

impl FromStr for VolumeId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = |reason| InvalidId {
            kind: "volume",
            text: text.to_owned(),
            reason,
        };
        let (pool, image) = text
            .split_once('/')
            .ok_or_else(|| invalid("it must be written pool/volume"))?;
        Ok(VolumeId {
            pool: PoolName::new(pool)?,
            image: ImageName::new(image)?,
        })
    }
}

impl TryFrom<String> for VolumeId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<VolumeId> for String {
    fn from(volume: VolumeId) -> String {
        volume.to_string()
    }
}

/// One life of a Ceph client: the address it is known by to monitors and OSDs, for example `10.102.0.1:0/3237469249`.
/// Port and nonce make it unique among all clients of that host, so one entry in the blocklist hits one process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CephClient {
    address: SocketAddr,
    nonce: u64,
}

impl CephClient {
    /// The client of that address and nonce.
    pub const fn new(address: SocketAddr, nonce: u64) -> CephClient {
        CephClient { address, nonce }
    }

    /// The host that the client runs on.
    pub fn ip(&self) -> std::net::IpAddr {
        self.address.ip()
    }
}

impl fmt::Display for CephClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.nonce)
    }
}

impl FromStr for CephClient {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId {
            kind: "Ceph client address",
            text: text.to_owned(),
            reason: "it must be written ADDRESS:PORT/NONCE",
        };
        let bare = text
            .strip_prefix("v2:")
            .or_else(|| text.strip_prefix("v1:"))
            .unwrap_or(text);
        let (address, nonce) = bare.rsplit_once('/').ok_or_else(invalid)?;
        Ok(CephClient {
            address: address.parse().map_err(|_| invalid())?,
            nonce: nonce.parse().map_err(|_| invalid())?,
        })
    }
}

impl TryFrom<String> for CephClient {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<CephClient> for String {
    fn from(client: CephClient) -> String {
        client.to_string()
    }
}

/// One life of a node's agent. A restart of the agent raises the counter, a reboot changes the boot id, a
/// replacement machine under the same name has another machine id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Incarnation {
    /// The machine.
    pub machine_id: MachineId,
    /// The boot of that machine.
    pub boot_id: BootId,
    /// The life of the agent within that boot, from 1.
    pub counter: u64,
}

impl Incarnation {
    /// Whether both are lives of one boot of one machine: proofs of death are about a boot, and guests survive
    /// their agent within one.
    pub fn same_boot(&self, other: &Incarnation) -> bool {
        self.machine_id == other.machine_id && self.boot_id == other.boot_id
    }

    /// Whether both are lives of one machine.
    pub fn same_machine(&self, other: &Incarnation) -> bool {
        self.machine_id == other.machine_id
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| text.get(..8).unwrap_or(text).to_owned();
        write!(
            f,
            "{}.{}.{}",
            short(self.machine_id.as_str()),
            short(self.boot_id.as_str()),
            self.counter
        )
    }
}

/// The version of a znode's data: grows by one with each write, starts at 0 with each creation. A write names the
/// version that it replaces, so that it fails when it depends on something that has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZnodeVersion(pub i32);

impl fmt::Display for ZnodeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_number_is_its_last_run_of_digits() {
        for (name, number) in [("hv1", 1), ("pvc2hv13", 13), ("hv3-lom", 3), ("node", 0)] {
            assert_eq!(NodeName::new(name).unwrap().number(), number, "{name}");
        }
    }

    #[test]
    fn names_that_would_break_a_path_or_an_argument_are_refused() {
        for bad in ["", "a/b", "..", "-rf", "a b", "none", "hv1.example"] {
            assert!(NodeName::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a/b", ".", "..", "-rf", "a b", "ä"] {
            assert!(VmName::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a/b", ".", "..", "a b", "a,b", "a\n"] {
            assert!(TagName::new(bad).is_err(), "{bad:?}");
        }
        assert!(TagName::new("automirror:cluster2").is_ok());
        for bad in ["vms", "vms/", "/x", "vms/a/b", "vms/a@b", "vms/a,b", "vms/-x"] {
            assert!(bad.parse::<VolumeId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ceph_clients_read_as_ceph_writes_them() {
        for text in ["10.102.0.1:0/3237469249", "[fd00:102::1]:0/7"] {
            assert_eq!(text.parse::<CephClient>().unwrap().to_string(), text);
        }
        assert_eq!(
            "v2:10.0.0.1:6800/5".parse::<CephClient>().unwrap().to_string(),
            "10.0.0.1:6800/5"
        );
        for bad in ["10.102.0.1", "10.102.0.1:0", "10.102.0.1:0/x", "host:0/1"] {
            assert!(bad.parse::<CephClient>().is_err(), "{bad:?}");
        }
    }
}
