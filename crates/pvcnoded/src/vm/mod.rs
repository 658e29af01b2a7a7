//! Guests on this node: observe, decide, carry out, one task per guest.
//!
//! [`VmRounds::look`] reads the records of all guests and what is on this host, and asks
//! [`pvc_core::vm::next_vm_step`] about each. What is to be done comes back as [`VmTask`]s; [`carry_out`] does one.
//! At most one task per guest is under way at a time, and its outcome is seen by the next look, which starts from
//! nothing but what it can re-read. A restart of the agent is therefore no special case.

mod carry_out;
mod device;
mod receive;
mod rounds;
mod send;
mod start;
mod volumes;

pub use carry_out::{TaskOutcome, carry_out};
pub use rounds::{VmRounds, VmTask};

use std::net::IpAddr;
use std::time::Duration;

use pvc_core::ids::{Incarnation, NodeName};

use crate::agent::AgentState;

/// What guests are handled with.
#[derive(Debug, Clone)]
pub struct VmParts<S, C, H, T> {
    /// The store.
    pub store: S,
    /// Time.
    pub clock: C,
    /// The hypervisor.
    pub hypervisor: H,
    /// The storage cluster.
    pub storage: T,
    /// This node.
    pub me: NodeName,
    /// This life of its agent.
    pub incarnation: Incarnation,
    /// This node's own addresses on the storage network: those of its Ceph clients.
    pub storage_addresses: Vec<IpAddr>,
    /// The addresses that follow the primary role, on all networks.
    pub floating_addresses: Vec<IpAddr>,
    /// How long a guest may take to shut down.
    pub shutdown_timeout: Duration,
    /// How this agent is.
    pub agent: AgentState,
}

#[cfg(test)]
mod tests;
