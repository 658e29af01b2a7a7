//! The cluster as a whole.

use std::collections::BTreeMap;

use pvc_core::states::{DaemonState, DomainState, VmState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::fault::Fault;
use crate::fence::NodeFence;
use crate::node::Health;

/// What the API and the daemon behind it are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// The version of the interface.
    pub api_version: String,
    /// The version of the daemon that answered.
    pub pvc_version: String,
}

/// Which node has the primary role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrimaryNode {
    /// The node.
    pub primary_node: String,
}

/// The state of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterStatus {
    /// Its name; empty until a node has registered.
    pub cluster_name: String,
    /// Its health.
    pub cluster_health: ClusterHealth,
    /// The health of each node.
    pub node_health: BTreeMap<String, NodeHealth>,
    /// `true` or `false`, as text.
    pub maintenance: String,
    /// The node that has or takes the primary role, or `none`.
    pub primary_node: String,
    /// The version of the primary's agent, or of the daemon that answers if there is no primary.
    pub pvc_version: String,
    /// The floating address on the upstream network, with its prefix length.
    pub upstream_ip: String,
    /// Nodes: `total`, and how many are in each pair of daemon and domain state, such as `run,ready`.
    pub nodes: BTreeMap<String, u64>,
    /// Guests: `total`, and how many are in each state.
    pub vms: BTreeMap<String, u64>,
    /// How many networks there are.
    pub networks: u64,
    /// OSDs: `total`, and how many are in each pair, such as `up,in`.
    pub osds: BTreeMap<String, u64>,
    /// How many pools there are.
    pub pools: u64,
    /// How many volumes there are.
    pub volumes: u64,
    /// How many snapshots of volumes there are.
    pub snapshots: u64,
    /// Fences that somebody has still to act on: fencers or an administrator. Addition to PVC 1.0.3.
    #[serde(default)]
    pub fences: Vec<NodeFence>,
    /// How many nodes hold still until an administrator has adopted what runs. Addition to PVC 1.0.3.
    #[serde(default)]
    pub holding: u64,
    /// What the nodes have and use.
    pub resources: Resources,
    /// The things counted above, one by one.
    pub detail: Detail,
}

/// The health of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterHealth {
    /// 0 (worst) to 100, or `N/A` where nothing is known.
    pub health: Health,
    /// What lowers it.
    pub messages: Vec<HealthMessage>,
}

/// Something that lowers the health of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthMessage {
    /// Its identity, the same for as long as it lasts.
    pub id: String,
    /// By how many points it lowers the health.
    pub health_delta: u8,
    /// For a person to read.
    pub text: String,
}

/// The health of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeHealth {
    /// 0 (worst) to 100, or `N/A`.
    pub health: Health,
    /// What lowers it.
    pub messages: Vec<String>,
}

/// What all nodes have and use.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// Memory.
    pub memory: MemoryResources,
    /// CPUs.
    pub cpu: CpuResources,
    /// Disks of the OSDs.
    pub disk: DiskResources,
}

/// Memory of all nodes, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct MemoryResources {
    /// What they have.
    pub total: u64,
    /// Available.
    pub free: u64,
    /// In use.
    pub used: u64,
    /// Of running guests.
    pub allocated: u64,
    /// Of all guests.
    pub provisioned: u64,
    /// In use, in percent.
    pub utilization: f64,
}

/// CPUs of all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct CpuResources {
    /// Logical CPUs.
    pub total: u64,
    /// Load averages over one minute, added up.
    pub load: f64,
    /// vCPUs of running guests.
    pub allocated: u64,
    /// Load per CPU, in percent.
    pub utilization: f64,
}

/// Disks of all OSDs, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct DiskResources {
    /// What they hold at most.
    pub total: u64,
    /// In use.
    pub used: u64,
    /// Free.
    pub free: u64,
    /// In use, in percent: the mean of the OSDs.
    pub utilization: f64,
}

/// The things that the status counts, one by one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Detail {
    /// Nodes.
    pub node: Vec<NodeBrief>,
    /// Guests.
    pub vm: Vec<VmBrief>,
    /// OSDs.
    pub osd: Vec<OsdBrief>,
    /// Faults.
    pub faults: Vec<Fault>,
}

/// A node in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeBrief {
    /// Its name.
    pub name: String,
    /// How its agent is.
    #[schema(value_type = String, example = "run")]
    pub daemon_state: DaemonState,
    /// Whether it takes guests.
    #[schema(value_type = String, example = "ready")]
    pub domain_state: DomainState,
}

/// A guest in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmBrief {
    /// Its UUID.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// Its state.
    #[schema(value_type = String, example = "start")]
    pub state: VmState,
}

/// An OSD in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OsdBrief {
    /// Its number.
    pub id: String,
    /// `up` or `down`.
    pub up: String,
    /// `in` or `out`.
    #[serde(rename = "in")]
    pub in_: String,
}

/// Which nodes hold still, since the coordination store may tell of the past, and how far the order that ends it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Adoption {
    /// Who gave the last order; empty if nobody did.
    pub ordered_by: String,
    /// When, in seconds since 1970.
    pub ordered_at: Option<u64>,
    /// Nodes that are off, on that person's word.
    pub without: Vec<String>,
    /// All nodes.
    pub nodes: Vec<NodeHold>,
}

/// Whether a node holds still.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct NodeHold {
    /// The node.
    pub node: String,
    /// `free`, `held`, `adopting`, `adopted` (what runs there is on record, and it waits for others), `lifted`, or `unknown`.
    pub state: String,
    /// Why it holds still; empty if it does not.
    pub reason: String,
    /// Since when, in seconds since 1970.
    pub since: Option<u64>,
    /// Guests that run there, as seen while on hold.
    pub running: Vec<String>,
    /// Guests that were put on record as this node's.
    pub adopted: Vec<String>,
    /// What somebody has to look at.
    pub trouble: Vec<String>,
}
