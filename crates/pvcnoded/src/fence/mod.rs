//! Fencing and recovery: a node that has died is proven dead, and its guests run elsewhere.
//!
//! Every coordinator watches all leases and may fence; one fence at a time goes on in the cluster, under the lock
//! `/config/fence_lock`. What is decided is in [`pvc_core::fence`]; here it is carried out:
//!
//! * [`Fencer`]: one round: look at all nodes and all records, take the lock, carry each fence on as far as it goes.
//! * `sight`: what a round sees of nodes, records, and machines that have lost their names.
//! * `book`: the one way in which a record is written: under the lock, on its version.
//! * `seek`: the proofs by power and by storage, both at once.
//! * `recover`: the guests of a dead boot, each by itself.
//! * `after_proof`: what follows once a node is proven dead, up to the end of its fence.
//! * `switch_on`: the dead node is switched on again.
//! * `faults`: what an administrator is told.
//! * [`OwnFence`]: the other side: what a node does that is, or was, fenced.
//!
//! Order (ha-protocol): suspicion on record → intent on record → act → result on record → proven → every guest has
//! another owner or is parked → the node is switched on again.

mod after_proof;
mod book;
mod faults;
mod own;
mod recover;
mod rounds;
mod seek;
mod sight;
mod switch_on;

pub use own::OwnFence;
pub use rounds::Fencer;

use std::net::IpAddr;
use std::time::Duration;

use pvc_common::config::{AfterPowerProof, Fencing, WithoutPowerProof};
use pvc_core::bmc::{FailingBmc, IdentityPolicy};
use pvc_core::fence::{RecoveryPolicy, SuspicionSettings};
use pvc_core::ids::{Incarnation, NodeName};

use crate::agent::AgentState;
use crate::node_lease::Hearing;

/// What fencing works with.
#[derive(Debug, Clone)]
pub struct FenceParts<S, C, P, T> {
    /// The coordination store; not the session of the leases.
    pub store: S,
    /// The host's clock.
    pub clock: C,
    /// BMCs.
    pub power: P,
    /// The storage cluster.
    pub storage: T,
    /// This node.
    pub me: NodeName,
    /// This life of its agent.
    pub incarnation: Incarnation,
    /// How this agent is.
    pub agent: AgentState,
    /// What it hears of the others.
    pub hearing: Hearing,
    /// The addresses that follow the primary: a Ceph client there may be anybody's.
    pub floating_addresses: Vec<IpAddr>,
    /// What may be done.
    pub settings: FenceSettings,
}

/// What fencing may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FenceSettings {
    /// When a node is suspect.
    pub suspicion: SuspicionSettings,
    /// What becomes of a dead node's guests.
    pub recovery: RecoveryPolicy,
    /// Whether its clients may be barred when its BMC does not answer.
    pub storage_proof: StorageProof,
    /// What is asked of a BMC's identity before its word is a proof.
    pub bmc_identity: IdentityPolicy,
    /// What follows for a BMC that failed its node's last test.
    pub failing_bmc: FailingBmc,
}

impl FenceSettings {
    /// What the configuration says.
    pub fn new(config: &Fencing, storage: bool) -> FenceSettings {
        FenceSettings {
            suspicion: SuspicionSettings::missed(config.missed_renewals),
            recovery: match config.after_power_proof {
                AfterPowerProof::Recover => RecoveryPolicy::Move,
                AfterPowerProof::Leave => RecoveryPolicy::Leave,
            },
            storage_proof: match (storage, config.without_power_proof) {
                (false, _) => StorageProof::NoStorage,
                (true, WithoutPowerProof::StorageProof) => StorageProof::Allowed,
                (true, WithoutPowerProof::Leave) => StorageProof::Refused,
            },
            bmc_identity: config.bmc_identity,
            failing_bmc: config.failing_bmc,
        }
    }
}

/// Whether the storage proof may be sought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageProof {
    /// It may.
    Allowed,
    /// The settings say that only the BMC's word counts.
    Refused,
    /// This cluster has no storage of ours.
    NoStorage,
}

/// How many guests are recovered at one time.
const PARALLEL_RECOVERIES: usize = 16;
/// How long a fencer that has failed stays out, so that a coordinator which can do more gets its turn.
const BACK_OFF: Duration = Duration::from_secs(15);
/// What an outside command may take at most: shorter than the lease, which is looked at right before.
const COMMAND_LIMIT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
