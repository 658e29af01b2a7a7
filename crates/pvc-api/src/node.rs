//! Nodes.

use std::collections::BTreeMap;

use pvc_core::states::{CoordinatorState, DaemonState, DomainState};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::fence::Bmc;

/// A health figure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Health {
    /// 0 (worst) to 100.
    Percent(u8),
    /// Nothing is known; the text is `N/A`.
    Unknown(String),
}

impl Health {
    /// Nothing is known.
    pub fn unknown() -> Health {
        Health::Unknown("N/A".to_owned())
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its short host name.
    pub name: String,
    /// How its agent is.
    #[schema(value_type = String, example = "run")]
    pub daemon_state: DaemonState,
    /// Its part in the primary role.
    #[schema(value_type = String, example = "secondary")]
    pub coordinator_state: CoordinatorState,
    /// Whether it takes guests.
    #[schema(value_type = String, example = "ready")]
    pub domain_state: DomainState,
    /// The version of its agent.
    pub pvc_version: String,
    /// Logical CPUs.
    pub cpu_count: u32,
    /// Kernel release.
    pub kernel: String,
    /// Operating system.
    pub os: String,
    /// Processor architecture.
    pub arch: String,
    /// Its health, 0 to 100, or `N/A`.
    pub health: Health,
    /// The health checks that run there.
    pub health_plugins: Vec<String>,
    /// What each health check found last.
    pub health_details: Vec<HealthDetail>,
    /// Load average over one minute.
    pub load: f64,
    /// Guests that run there.
    pub domains_count: u32,
    /// Their names.
    pub running_domains: Vec<String>,
    /// CPUs.
    pub vcpu: NodeVcpu,
    /// Memory.
    pub memory: NodeMemory,
    /// Network interfaces by name.
    pub interfaces: BTreeMap<String, InterfaceStats>,
    /// How far its last fence has come, as in `/fence/NODE`; `none` if it was never suspect. Addition to PVC 1.0.3.
    #[serde(default)]
    pub fence: String,
    /// Whether that fence is still open: somebody has to act on it yet. Addition to PVC 1.0.3.
    #[serde(default)]
    pub fence_open: bool,
    /// What is known of its BMC; nothing if it has none. Addition to PVC 1.0.3.
    #[serde(default)]
    pub bmc: Option<Bmc>,
    /// Whether it reaches the upstream network; nothing until it has looked. Addition to PVC 1.0.3.
    #[serde(default)]
    pub upstream: Option<Upstream>,
    /// How far its emptying or filling is, or how the last one ended; nothing before the first. Addition to PVC 1.0.3.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// Why it holds still until an administrator has adopted what runs; empty while it does not. Addition to PVC 1.0.3.
    #[serde(default)]
    pub hold: String,
    /// What can not be read of its record in the store, such as a state of a later release: its states are shown as `init`,
    /// `client` and `flush` then. Addition to PVC 1.0.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_error: Option<String>,
}

/// Whether a node reaches the upstream network, as it sees it itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upstream {
    /// Whether it does.
    pub up: bool,
    /// What it saw.
    pub reason: String,
}

/// What a health check found last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HealthDetail {
    /// The check.
    pub name: String,
    /// When it ran, in seconds since 1970; nothing if it never has.
    pub last_run: Option<i64>,
    /// By how many points it lowers the node's health.
    pub health_delta: i64,
    /// What it says.
    pub message: String,
    /// What it measured.
    #[schema(value_type = Object)]
    pub data: Value,
}

/// A node's CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct NodeVcpu {
    /// Logical CPUs of the node.
    pub total: u32,
    /// vCPUs of the guests that run there.
    pub allocated: u32,
}

/// A node's memory, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct NodeMemory {
    /// What the node has.
    pub total: u64,
    /// Of the guests that run there.
    pub allocated: u64,
    /// Of all guests placed there, stopped ones included.
    pub provisioned: u64,
    /// In use by anything.
    pub used: u64,
    /// Available.
    pub free: u64,
}

/// Traffic of a network interface, averaged over the last statistics interval.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct InterfaceStats {
    /// Received, bits a second.
    pub rx_bps: i64,
    /// Received, packets a second.
    pub rx_pps: i64,
    /// Sent, bits a second.
    pub tx_bps: i64,
    /// Sent, packets a second.
    pub tx_pps: i64,
    /// Both, bits a second.
    pub total_bps: i64,
    /// Both, packets a second.
    pub total_pps: i64,
    /// Speed of the link, bits a second.
    pub link_speed: i64,
    /// State of the link.
    pub state: String,
}

/// A node's daemon state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeDaemonState {
    /// The node.
    pub name: String,
    /// How its agent is.
    #[schema(value_type = String, example = "run")]
    pub daemon_state: DaemonState,
}

/// The last lines of a node's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeLog {
    /// The node.
    pub name: String,
    /// The lines, separated by line feeds.
    pub data: String,
}

/// A node's coordinator state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeCoordinatorState {
    /// The node.
    pub name: String,
    /// Its part in the primary role.
    #[schema(value_type = String, example = "primary")]
    pub coordinator_state: CoordinatorState,
}

/// A node's domain state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeDomainState {
    /// The node.
    pub name: String,
    /// Whether it takes guests.
    #[schema(value_type = String, example = "ready")]
    pub domain_state: DomainState,
    /// How far its emptying or filling is, or how the last one ended; nothing before the first. Addition to PVC 1.0.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
}

/// How far the emptying (`flush`) or filling (`unflush`) of a node is, as the node tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drain {
    /// `flush` or `unflush`.
    pub order: String,
    /// When the node took it up, in seconds since 1970.
    pub began_at: u64,
    /// When it was done with it; nothing while it is at it.
    pub ended_at: Option<u64>,
    /// Guests that it is about.
    pub total: u32,
    /// Those still to be done.
    pub left: u32,
    /// Those that were shut down, since no node took them: they start again when the node is made ready.
    pub shut_down: u32,
    /// Guests that are left or in trouble, 30 at most.
    pub guests: Vec<DrainGuest>,
}

/// A guest that a drain is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainGuest {
    /// Its name.
    pub name: String,
    /// What it does.
    pub doing: String,
    /// What is wrong with it; else empty.
    pub trouble: String,
}
