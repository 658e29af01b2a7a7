//! How values are written in znodes.
//!
//! Everything is text, as PVC 1.0.3 writes it. [`Value::decode`] is strict: what it cannot read is an error.

use std::fmt::Display;
use std::str::FromStr;

use pvc_core::access::{AuditPage, AuditRequest, SessionRecord, TokenRecord, TokenUse, UserRecord};
use pvc_core::device_order::DeviceOrder;
use pvc_core::fence::FenceRecord;
use pvc_core::hold::{AdoptOrder, HoldRecord, RestoreRecord};
use pvc_core::ids::{ImageName, NodeName, PoolName, TagName, VmId, VmName, VolumeId};
use pvc_core::lock_flush::LockFlush;
use pvc_core::records::{
    AgentFigures, BmcReport, DrainReport, Incoming, NodeAddresses, NodeLease, Owner, PrimaryRecord, Record,
    Reserved, RoleLease, UpstreamReading,
};
use pvc_core::states::{
    CoordinatorState, DaemonMode, DaemonState, DomainState, MigrationMethod, NodeSelector, VmState,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::secret::Secret;

/// How much of a refused value an error shows, in characters.
const SHOWN: usize = 64;

/// A stored value that is not of its key's type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{shown}, which is not {kind}{}", if reason.is_empty() { String::new() } else { format!(" ({reason})") })]
pub struct InvalidValue {
    /// The value's beginning, quoted; a placeholder if it is a secret.
    pub shown: String,
    /// What it should be, with its article: `a daemon state`.
    pub kind: &'static str,
    /// What is wrong with it; may be empty.
    pub reason: String,
}

impl InvalidValue {
    /// `bytes` are not `kind`, for this reason.
    pub fn new(bytes: &[u8], kind: &'static str, reason: impl Display) -> InvalidValue {
        let text = String::from_utf8_lossy(bytes);
        let mut shown = text.chars().take(SHOWN).collect::<String>();
        if shown.len() < text.len() {
            shown.push_str("...");
        }
        InvalidValue {
            shown: format!("{shown:?}"),
            kind,
            reason: reason.to_string(),
        }
    }
}

/// A type of value that a znode can hold.
pub trait Value: Sized + Send {
    /// The stored bytes.
    fn encode(&self) -> Vec<u8>;

    /// The value in `bytes`.
    ///
    /// # Errors
    /// [`InvalidValue`] when the bytes are of another kind.
    fn decode(bytes: &[u8]) -> Result<Self, InvalidValue>;
}

fn parse<T: FromStr<Err: Display>>(bytes: &[u8], kind: &'static str) -> Result<T, InvalidValue> {
    let text = std::str::from_utf8(bytes).map_err(|error| InvalidValue::new(bytes, kind, error))?;
    text.parse()
        .map_err(|error| InvalidValue::new(bytes, kind, error))
}

/// Values whose text is that of `Display` and `FromStr`.
macro_rules! text_values {
    ($( $kind:literal: $($name:ty),+ ; )+) => { $( $(
        impl Value for $name {
            fn encode(&self) -> Vec<u8> {
                self.to_string().into_bytes()
            }

            fn decode(bytes: &[u8]) -> Result<Self, InvalidValue> {
                parse(bytes, $kind)
            }
        }
    )+ )+ };
}

text_values! {
    "a text": String;
    "a number": u16, u32, u64, i32, i64;
    "a daemon mode": DaemonMode;
    "a daemon state": DaemonState;
    "a coordinator state": CoordinatorState;
    "a domain state": DomainState;
    "a VM state": VmState;
    "a node selector": NodeSelector;
    "a migration method": MigrationMethod;
    "a node name": NodeName;
    "a VM name": VmName;
    "a VM UUID": VmId;
    "a tag": TagName;
    "a pool name": PoolName;
    "a volume name": ImageName;
    "a volume": VolumeId;
    "a primary record": PrimaryRecord;
    "a schema version": SchemaVersion;
    "a release of PVC": Release;
    "a load": Load;
    "a static description of a node": StaticData;
}

macro_rules! record_values {
    ($( $kind:literal: $name:ty ; )+) => { $(
        impl Value for $name {
            fn encode(&self) -> Vec<u8> {
                Record::encode(self)
            }

            fn decode(bytes: &[u8]) -> Result<Self, InvalidValue> {
                Record::decode(bytes).map_err(|error| {
                    let reason = match std::error::Error::source(&error) {
                        Some(source) => format!("{error}: {source}"),
                        None => error.to_string(),
                    };
                    InvalidValue::new(bytes, $kind, reason)
                })
            }
        }
    )+ };
}

record_values! {
    "a token": TokenRecord;
    "a use of a token": TokenUse;
    "a user": UserRecord;
    "a session": SessionRecord;
    "a note for the audit log": AuditRequest;
    "a page of the audit log": AuditPage;
    "a node's lease": NodeLease;
    "a record of a fence": FenceRecord;
    "a record of a hold": HoldRecord;
    "an order to adopt": AdoptOrder;
    "a record of a restore": RestoreRecord;
    "a reading of the upstream network": UpstreamReading;
    "an order to remove locks": LockFlush;
    "an order about a device": DeviceOrder;
    "a reservation": Reserved;
    "a node's addresses": NodeAddresses;
    "a report on a BMC": BmcReport;
    "a report of a drain": DrainReport;
    "what an agent measures": AgentFigures;
    "a lease of the primary role": RoleLease;
    "an owner of a guest": Owner;
    "an announcement of an incoming guest": Incoming;
}

/// A znode that exists for its children, or for locks on it. Its bytes say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nothing;

impl Value for Nothing {
    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    fn decode(_: &[u8]) -> Result<Self, InvalidValue> {
        Ok(Nothing)
    }
}

/// `True` or `False`, as Python writes them.
impl Value for bool {
    fn encode(&self) -> Vec<u8> {
        if *self {
            b"True".to_vec()
        } else {
            b"False".to_vec()
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, InvalidValue> {
        match bytes {
            b"True" => Ok(true),
            b"False" => Ok(false),
            other => Err(InvalidValue::new(other, "True or False", "")),
        }
    }
}

/// Whether the cluster is under maintenance: `true`, `false` or empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maintenance {
    /// Fences and new faults are held back.
    On,
    /// The ordinary state.
    Off,
}

impl Value for Maintenance {
    fn encode(&self) -> Vec<u8> {
        match self {
            Maintenance::On => b"true".to_vec(),
            Maintenance::Off => b"false".to_vec(),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, InvalidValue> {
        match bytes {
            b"true" => Ok(Maintenance::On),
            b"false" | b"" => Ok(Maintenance::Off),
            other => Err(InvalidValue::new(other, "true or false", "")),
        }
    }
}

/// Empty bytes are no value. The znode exists all the same, so that its version can be checked.
impl<T: Value> Value for Option<T> {
    fn encode(&self) -> Vec<u8> {
        self.as_ref().map(T::encode).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Result<Self, InvalidValue> {
        if bytes.is_empty() {
            Ok(None)
        } else {
            T::decode(bytes).map(Some)
        }
    }
}

/// A value, or the word `None` as Python writes it; empty means the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrNone<T>(pub Option<T>);

impl<T: Value> Value for OrNone<T> {
    fn encode(&self) -> Vec<u8> {
        self.0.as_ref().map_or_else(|| b"None".to_vec(), T::encode)
    }

    fn decode(bytes: &[u8]) -> Result<Self, InvalidValue> {
        match bytes {
            b"" | b"None" => Ok(OrNone(None)),
            value => T::decode(value).map(|value| OrNone(Some(value))),
        }
    }
}

impl Value for Secret {
    fn encode(&self) -> Vec<u8> {
        self.expose().as_bytes().to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self, InvalidValue> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Secret::new(text)),
            Err(_) => Err(InvalidValue {
                shown: "<secret>".to_owned(),
                kind: "a text",
                reason: String::new(),
            }),
        }
    }
}

/// A list separated by spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceList<T>(pub Vec<T>);

/// A list separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommaList<T>(pub Vec<T>);

macro_rules! list_value {
    ($name:ident, $separator:literal, $kind:literal) => {
        impl<T: Display + FromStr<Err: Display> + Send> Value for $name<T> {
            fn encode(&self) -> Vec<u8> {
                let parts: Vec<String> = self.0.iter().map(T::to_string).collect();
                parts.join($separator).into_bytes()
            }

            fn decode(bytes: &[u8]) -> Result<Self, InvalidValue> {
                let text: String = parse(bytes, $kind)?;
                text.split($separator)
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(|part| {
                        part.parse()
                            .map_err(|error| InvalidValue::new(bytes, $kind, error))
                    })
                    .collect::<Result<_, _>>()
                    .map($name)
            }
        }
    };
}
list_value!(SpaceList, " ", "a list separated by spaces");
list_value!(CommaList, ",", "a list separated by commas");

/// The guests that run on a node: UUIDs separated by spaces. PVC 1.0.3 writes `0` for a new or a fenced node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningDomains(pub Vec<VmId>);

impl Value for RunningDomains {
    fn encode(&self) -> Vec<u8> {
        let ids: Vec<String> = self.0.iter().map(VmId::to_string).collect();
        ids.join(" ").into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self, InvalidValue> {
        if bytes == b"0" {
            return Ok(RunningDomains(Vec::new()));
        }
        SpaceList::decode(bytes).map(|list| RunningDomains(list.0))
    }
}

/// A value written as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize + DeserializeOwned + Send> Value for Json<T> {
    fn encode(&self) -> Vec<u8> {
        // What we keep as JSON has text keys and finite numbers: nothing in it can fail to serialise.
        serde_json::to_vec(&self.0).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Result<Self, InvalidValue> {
        serde_json::from_slice(bytes)
            .map(Json)
            .map_err(|error| InvalidValue::new(bytes, "the JSON expected here", error))
    }
}

/// The number of a layout of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaVersion(pub u32);

impl Display for SchemaVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for SchemaVersion {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(SchemaVersion)
    }
}

/// A release of PVC, for example `2.0.0` or `1.0.3~git-abcdef`: text that begins with numbers and dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release(String);

impl Release {
    /// The release that this is.
    pub fn ours() -> Release {
        Release(env!("CARGO_PKG_VERSION").to_owned())
    }
}

impl Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Release {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text
            .split(|c: char| c != '.' && !c.is_ascii_digit())
            .next()
            .unwrap_or("");
        if numbers.starts_with(|c: char| c.is_ascii_digit()) && numbers.contains('.') {
            Ok(Release(text.to_owned()))
        } else {
            Err("it must begin with numbers separated by dots")
        }
    }
}

/// A load average over one minute, written with two decimals.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Load(pub f64);

impl Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2}", self.0)
    }
}

impl FromStr for Load {
    type Err = std::num::ParseFloatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Load)
    }
}

/// What a node is made of: `CPUS KERNEL OS ARCHITECTURE`, separated by spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticData {
    /// Logical CPUs.
    pub cpus: u32,
    /// The kernel's release.
    pub kernel: String,
    /// The operating system.
    pub os: String,
    /// The machine's architecture.
    pub arch: String,
}

impl Display for StaticData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {} {}", self.cpus, self.kernel, self.os, self.arch)
    }
}

impl FromStr for StaticData {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split(' ').collect();
        let [cpus, kernel, os, arch] = words.as_slice() else {
            return Err("it must have four words");
        };
        Ok(StaticData {
            cpus: cpus
                .parse()
                .map_err(|_| "it must begin with the number of CPUs")?,
            kernel: (*kernel).to_owned(),
            os: (*os).to_owned(),
            arch: (*arch).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Value + PartialEq + std::fmt::Debug>(stored: &str, value: &T) {
        assert_eq!(&T::decode(stored.as_bytes()).unwrap(), value, "{stored}");
        assert_eq!(String::from_utf8(value.encode()).unwrap(), stored);
    }

    fn refused<T: Value + std::fmt::Debug>(stored: &[u8]) -> String {
        T::decode(stored).unwrap_err().to_string()
    }

    #[test]
    fn values_are_written_as_the_reference_writes_them() {
        check("True", &true);
        check("False", &false);
        check("300", &300_u32);
        check("true", &Maintenance::On);
        check("none", &PrimaryRecord::None);
        check("", &None::<NodeName>);
        check("hv2", &Some(NodeName::new("hv2").unwrap()));
        check("None", &OrNone::<String>(None));
        check(
            "hv1,hv2",
            &CommaList(vec![NodeName::new("hv1").unwrap(), NodeName::new("hv2").unwrap()]),
        );
        check("", &CommaList::<NodeName>(Vec::new()));
        check("0.25", &Load(0.25));
        check("1.0.3~git-ab", &"1.0.3~git-ab".parse::<Release>().unwrap());
        check(
            "8 6.1.0-18-amd64 GNU/Linux x86_64",
            &StaticData {
                cpus: 8,
                kernel: "6.1.0-18-amd64".to_owned(),
                os: "GNU/Linux".to_owned(),
                arch: "x86_64".to_owned(),
            },
        );
        assert_eq!(Release::decode(&Release::ours().encode()), Ok(Release::ours()));
        check("{\"a\":1}", &Json(serde_json::json!({"a": 1})));
    }

    #[test]
    fn other_spellings_that_the_reference_leaves_behind_are_understood() {
        assert_eq!(Maintenance::decode(b""), Ok(Maintenance::Off));
        assert_eq!(PrimaryRecord::decode(b""), Ok(PrimaryRecord::None));
        assert_eq!(RunningDomains::decode(b"0"), Ok(RunningDomains(Vec::new())));
        assert_eq!(RunningDomains::decode(b""), Ok(RunningDomains(Vec::new())));
        assert_eq!(OrNone::<u32>::decode(b""), Ok(OrNone(None)));
        assert_eq!(Load::decode(b"0.0"), Ok(Load(0.0)));
    }

    #[test]
    fn what_is_of_another_kind_is_refused_and_shown() {
        assert!(refused::<bool>(b"true").starts_with("\"true\", which is not True or False"));
        assert!(refused::<u32>(b"").starts_with("\"\", which is not a number"));
        assert!(refused::<DaemonMode>(b"2.0.0").starts_with("\"2.0.0\", which is not a daemon mode"));
        assert!(refused::<Release>(b"coordinator").starts_with("\"coordinator\", which is not a release"));
        assert!(refused::<Owner>(b"hv1").starts_with("\"hv1\", which is not an owner of a guest"));
        assert!(refused::<Owner>(br#"{"v":9}"#).contains("format 9 is unknown"));
        assert!(refused::<CommaList<NodeName>>(b"hv1,a b").contains("\"a b\""));
        assert!(refused::<String>(&[0xff]).contains("not a text"));
        let long = "x".repeat(100_000);
        assert!(refused::<u32>(long.as_bytes()).len() < 200);
        // A BMC password in an error would end up in the journal.
        assert!(!refused::<Secret>(b"hunter2\xff").contains("hunter2"));
    }
}
