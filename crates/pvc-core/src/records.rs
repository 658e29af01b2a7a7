//! The JSON values of the coordination protocol: leases and owners (schema 16).
//!
//! Each carries the number of its format, so that a later agent can read what an earlier one wrote; an unknown
//! number is an error that says so, never a guess. "No value" is the empty znode, whose version can still be checked.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::{CephClient, Incarnation, NodeName};

/// The number of the coordination protocol that this agent speaks.
pub const PROTOCOL: u32 = 1;

/// The format number of every record below.
const FORMAT: u32 = 1;

/// A stored value that is not a record of its kind.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRecord {
    /// Not JSON, or not of that shape.
    #[error("not a record of this kind")]
    Shape(#[source] serde_json::Error),
    /// Written by an agent that uses a format we do not know.
    #[error("record format {found} is unknown here (this agent knows {FORMAT})")]
    Format {
        /// The number found.
        found: u32,
    },
}

/// A value that is stored as JSON with a format number.
pub trait Record: Serialize + DeserializeOwned {
    /// The stored bytes.
    fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Versioned<'a, T> {
            v: u32,
            #[serde(flatten)]
            value: &'a T,
        }
        // Records hold strings, numbers and lists alone: nothing in them can fail to serialise.
        serde_json::to_vec(&Versioned {
            v: FORMAT,
            value: self,
        })
        .unwrap_or_default()
    }

    /// The record in `bytes`.
    ///
    /// # Errors
    /// [`InvalidRecord`] when the bytes are of another kind or format.
    fn decode(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        #[derive(Deserialize)]
        struct Tag {
            v: u32,
        }
        let Tag { v } = serde_json::from_slice(bytes).map_err(InvalidRecord::Shape)?;
        if v != FORMAT {
            return Err(InvalidRecord::Format { found: v });
        }
        serde_json::from_slice(bytes).map_err(InvalidRecord::Shape)
    }
}

/// `/leases/nodes/N`: node N's agent is alive. Renewed each second; observers only look whether its version moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLease {
    /// The life of the agent that renews it.
    pub incarnation: Incarnation,
    /// The protocol that this agent speaks.
    pub protocol: u32,
    /// Renewals of this incarnation so far.
    pub counter: u64,
}

impl Record for NodeLease {}

/// `/leases/primary`: who may hold the addresses of the primary role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RoleLease {
    /// Nobody: its last holder took its addresses off before it wrote this.
    Released,
    /// That life of that node's agent.
    Held {
        /// The node.
        holder: NodeName,
        /// The life of its agent.
        incarnation: Incarnation,
        /// Renewals of this tenure so far.
        counter: u64,
    },
}

impl Record for RoleLease {}

/// What is known of the Ceph clients that a guest's process has opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CephClients {
    /// The owner has claimed the guest; no vCPU of it has run.
    Unrecorded,
    /// These and no others.
    Recorded(Vec<CephClient>),
    /// The guest was adopted from PVC 1.0.3 while it ran: no storage proof can cover it.
    Unknown,
}

/// `/domains/U/owner`: the one node on which a process of this guest may exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The node.
    pub node: NodeName,
    /// The life of its agent that claimed the guest, or that last confirmed it.
    pub incarnation: Incarnation,
    /// Claims of this guest so far: grows by one with each.
    pub epoch: u64,
    /// The Ceph clients of the guest's process.
    pub ceph_clients: CephClients,
}

impl Record for Owner {}

/// `/domains/U/incoming`: where a guest is moving to, and the Ceph clients of its half there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// The node that receives the guest.
    pub target: NodeName,
    /// The life of that node's agent.
    pub incarnation: Incarnation,
    /// The Ceph clients of the receiving process.
    pub ceph_clients: CephClients,
    /// How far the two sides have come.
    #[serde(default, skip_serializing_if = "HandOver::is_offered")]
    pub hand_over: HandOver,
    /// How far the source's log of the guest had come when this target was put on record: what stands behind it says how
    /// the source's process ended. `None` if it could not be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_log: Option<LogMark>,
}

impl Record for Incoming {}

/// A place in a log file of the node that wrote it here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMark {
    /// The file's inode number: a log that was begun anew meanwhile has another.
    pub file: u64,
    /// How many bytes stood in it.
    pub length: u64,
}

/// How far source and target of a migration have come. Each word is written by one side and waited for by the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandOver {
    /// Written by the source: may I send it?
    #[default]
    Offered,
    /// Written by the target: it is alive, fit, and has no process of this guest.
    Accepted,
    /// Written by the source: its process of this guest has ended, and had not run since the target got its memory. It
    /// will never run there again, so the target may make itself owner.
    SourceGone,
}

impl HandOver {
    fn is_offered(&self) -> bool {
        *self == HandOver::Offered
    }
}

/// Whether a node reaches the upstream network, as it sees it itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamReading {
    /// Whether it does.
    pub up: bool,
    /// What it saw, in words: carrier, gateway.
    pub reason: String,
    /// Raised with every change of `up`, so that a reader can tell two outages apart.
    pub changes: u64,
}

impl Record for UpstreamReading {}

/// Guests that were placed on a node. It counts placements: whoever places raises it on condition of the version that
/// he read *before* he summed up what the node has to carry, so that two can't give the same memory away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// How many placements there have been.
    pub placements: u64,
    /// The last guest that was placed.
    pub vm: crate::ids::VmId,
    /// Its memory in MiB.
    pub memory_mib: u64,
}

impl Record for Reserved {}

/// The fixed addresses of a node, which never move. Floating addresses are not among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// Towards the other nodes: leases, migration.
    pub cluster: std::net::IpAddr,
    /// Towards Ceph: its clients and its OSDs have this address.
    pub storage: std::net::IpAddr,
    /// Towards clients, if it has one there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<std::net::IpAddr>,
}

impl Record for NodeAddresses {}

/// What a node's agent measures of itself, in microseconds: for people and their metrics, nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFigures {
    /// The node's lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_lease: Option<LeaseFigures>,
    /// The lease of the primary role, on the node that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_lease: Option<LeaseFigures>,
    /// What the agent does again and again, by name.
    #[serde(default)]
    pub rounds: BTreeMap<String, RoundFigures>,
}

impl Record for AgentFigures {}

/// How much of a lease was left when its renewal was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseFigures {
    /// At the last renewal.
    pub left_us: u64,
    /// The least of the last minute.
    pub least_us: u64,
}

/// How long rounds of one kind took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundFigures {
    /// Those that have ended since the agent began.
    pub count: u64,
    /// All of them together.
    pub total_us: u64,
    /// The longest of the last minute, also if it has not ended; none if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_us: Option<u64>,
}

/// How far the emptying or filling of a node is, as the node itself tells it: for people, nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    /// `flush` or `unflush`.
    pub order: crate::states::DomainState,
    /// When the node took the order up, in seconds since 1970.
    pub began_at: u64,
    /// When it was done with it, in seconds since 1970; none while it is at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<u64>,
    /// Guests that the order concerns.
    pub total: u32,
    /// Those of them that are still to be done.
    pub left: u32,
    /// Those of them that were shut down since no node took them; they start again when the node is made ready.
    pub shut_down: u32,
    /// What the guests that are left are waited for in, and those that could not be done; the troubled ones first, 30 at
    /// most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guests: Vec<DrainedGuest>,
}

impl Record for DrainReport {}

/// A guest in a [`DrainReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainedGuest {
    /// Its name.
    pub name: String,
    /// What it is doing: `moving`, `shutting down`, `waiting for its turn` and so on.
    pub is: String,
    /// What is wrong with it; empty while it goes its ordinary way.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}

/// What is known of a node's BMC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcReport {
    /// Whether a power-off could be had by it when it was last tried.
    pub works: bool,
    /// Why not; empty when it works.
    pub reason: String,
    /// Whether the BMC that answers at its address is this node's.
    pub identity: BmcIdentity,
    /// When it was last tried, in seconds since 1970; to be shown, nothing is decided by it.
    pub tried_at: u64,
}

impl Record for BmcReport {}

/// Whether the BMC that answers over the network is the node's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum BmcIdentity {
    /// The GUID seen from inside the host and that seen over the network are the same.
    Verified {
        /// The GUID.
        guid: String,
    },
    /// They differ: this is another machine's BMC, and ordering it off would switch that machine off.
    Mismatch {
        /// Seen from inside.
        inside: String,
        /// Seen over the network.
        outside: String,
    },
    /// One of them can't be read.
    Unverified {
        /// Why.
        reason: String,
    },
}

/// `/config/primary_node`: which node should hold the primary role. Plain text, as PVC 1.0.3 writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrimaryRecord {
    /// Nobody: coordinators contend. Stored as `none`; an empty value means the same.
    None,
    /// That node.
    Node(NodeName),
}

impl PrimaryRecord {
    /// Whether it names `node`.
    pub fn names(&self, node: &NodeName) -> bool {
        matches!(self, PrimaryRecord::Node(named) if named == node)
    }
}

impl std::fmt::Display for PrimaryRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PrimaryRecord::None => f.pad("none"),
            PrimaryRecord::Node(node) => node.fmt(f),
        }
    }
}

impl std::str::FromStr for PrimaryRecord {
    type Err = crate::ids::InvalidId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" | "none" => Ok(PrimaryRecord::None),
            node => NodeName::new(node).map(PrimaryRecord::Node),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BootId, MachineId};

    fn incarnation() -> Incarnation {
        Incarnation {
            machine_id: MachineId::new("0123456789abcdef0123456789abcdef").unwrap(),
            boot_id: BootId::new("6ba7b810-9dad-11d1-80b4-00c04fd430c8").unwrap(),
            counter: 3,
        }
    }

    fn check<T: Record + PartialEq + std::fmt::Debug>(record: &T, stored: &str) {
        // What an agent of this release stores must be read by every later one.
        assert_eq!(String::from_utf8(record.encode()).unwrap(), stored);
        assert_eq!(&T::decode(stored.as_bytes()).unwrap(), record);
    }

    #[test]
    fn records_are_stored_as_recorded_here() {
        let who = r#"{"machine_id":"0123456789abcdef0123456789abcdef","boot_id":"6ba7b810-9dad-11d1-80b4-00c04fd430c8","counter":3}"#;
        check(
            &NodeLease {
                incarnation: incarnation(),
                protocol: 1,
                counter: 9,
            },
            &format!(r#"{{"v":1,"incarnation":{who},"protocol":1,"counter":9}}"#),
        );
        check(&RoleLease::Released, r#"{"v":1,"state":"released"}"#);
        check(
            &RoleLease::Held {
                holder: NodeName::new("hv1").unwrap(),
                incarnation: incarnation(),
                counter: 2,
            },
            &format!(r#"{{"v":1,"state":"held","holder":"hv1","incarnation":{who},"counter":2}}"#),
        );
        check(
            &Incoming {
                target: NodeName::new("hv3").unwrap(),
                incarnation: incarnation(),
                ceph_clients: CephClients::Unknown,
                hand_over: HandOver::Offered,
                source_log: None,
            },
            &format!(r#"{{"v":1,"target":"hv3","incarnation":{who},"ceph_clients":"unknown"}}"#),
        );
        check(
            &Incoming {
                target: NodeName::new("hv3").unwrap(),
                incarnation: incarnation(),
                ceph_clients: CephClients::Unrecorded,
                hand_over: HandOver::SourceGone,
                source_log: Some(LogMark {
                    file: 77,
                    length: 4096,
                }),
            },
            &format!(
                r#"{{"v":1,"target":"hv3","incarnation":{who},"ceph_clients":"unrecorded","hand_over":"source_gone","source_log":{{"file":77,"length":4096}}}}"#
            ),
        );
        let owner = |ceph_clients| Owner {
            node: NodeName::new("hv2").unwrap(),
            incarnation: incarnation(),
            epoch: 7,
            ceph_clients,
        };
        check(
            &owner(CephClients::Recorded(vec!["10.102.0.2:0/77".parse().unwrap()])),
            &format!(
                r#"{{"v":1,"node":"hv2","incarnation":{who},"epoch":7,"ceph_clients":{{"recorded":["10.102.0.2:0/77"]}}}}"#
            ),
        );
        check(
            &owner(CephClients::Unrecorded),
            &format!(r#"{{"v":1,"node":"hv2","incarnation":{who},"epoch":7,"ceph_clients":"unrecorded"}}"#),
        );
    }

    #[test]
    fn a_report_of_a_drain_is_stored_as_recorded_here() {
        let mut report = DrainReport {
            order: crate::states::DomainState::Flush,
            began_at: 7,
            ended_at: None,
            total: 3,
            left: 1,
            shut_down: 0,
            guests: vec![DrainedGuest {
                name: "web1".to_owned(),
                is: "moving".to_owned(),
                trouble: String::new(),
            }],
        };
        check(
            &report,
            r#"{"v":1,"order":"flush","began_at":7,"total":3,"left":1,"shut_down":0,"guests":[{"name":"web1","is":"moving"}]}"#,
        );
        report.guests.clear();
        report.ended_at = Some(9);
        check(
            &report,
            r#"{"v":1,"order":"flush","began_at":7,"ended_at":9,"total":3,"left":1,"shut_down":0}"#,
        );
    }

    #[test]
    fn a_record_of_a_later_format_is_refused_and_says_so() {
        let error = RoleLease::decode(br#"{"v":2,"state":"released"}"#).unwrap_err();
        assert!(matches!(error, InvalidRecord::Format { found: 2 }), "{error}");
        assert!(RoleLease::decode(b"hv1").is_err());
        assert!(RoleLease::decode(b"").is_err());
    }
}
