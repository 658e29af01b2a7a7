//! Fences: which node is suspect, what proves that it is dead, and what becomes of its guests. Addition to PVC 1.0.3.
//!
//! Times are seconds since 1970 by the clock of the node that wrote them. They are for people: clocks of different
//! nodes may differ, and nothing is decided by them.

use pvc_core::states::DaemonState;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A node and its fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeFence {
    /// The node.
    pub node: String,
    /// How its agent is.
    #[schema(value_type = String, example = "run")]
    pub daemon_state: DaemonState,
    /// `none`, or how far its last fence has come: `suspected`, `proving`, `proven`, `recovering`, `done`, `abandoned`;
    /// `unreadable` if its record can not be read.
    pub state: String,
    /// Whether somebody has still to act on it.
    pub open: bool,
    /// By what the node is known to be dead: `power`, `storage`, `new boot`, `administrator`; nothing if it is not.
    pub proof: Option<String>,
    /// What happens now, in one sentence.
    pub now: String,
    /// What happens next, in one sentence; empty if nothing does.
    pub next: String,
    /// When it is tried again, if it waits for that.
    pub next_try_at: Option<u64>,
    /// Which proofs could be had and are not there yet, one sentence each; empty once there is one that covers all.
    pub missing: Vec<String>,
    /// What an administrator can confirm now: `proceed`, `machine-is-off`.
    pub can_confirm: Vec<String>,
    /// What is known of its BMC; nothing if it has none.
    pub bmc: Option<Bmc>,
    /// The fence itself; nothing if the node has never been suspect.
    pub fence: Option<Fence>,
}

/// A fence of one boot of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fence {
    /// The machine that fell silent.
    pub victim_machine_id: String,
    /// Its boot: proofs are about this boot alone.
    pub victim_boot_id: String,
    /// Which life of its agent in that boot.
    pub victim_counter: u64,
    /// How often it was taken up: 1 the first time.
    pub attempt: u32,
    /// Which node acts, or acted last.
    pub fencer: String,
    /// Why it was given up; empty if it was not.
    pub abandoned_because: String,
    /// The power-off.
    pub power: FenceTrack,
    /// The barring of its Ceph clients.
    pub storage: FenceTrack,
    /// Switching it on again.
    pub restart: FenceTrack,
    /// What an administrator has confirmed.
    pub confirmation: Option<FenceConfirmation>,
    /// Guests that still belong to the dead boot.
    pub guests_owned: Vec<String>,
    /// Guests that found no node: stopped, and started as soon as there is one.
    pub guests_parked: Vec<String>,
    /// Guests that stay where they were, since no proof covers them yet.
    pub guests_left: Vec<String>,
    /// Whether the node has come back since.
    pub returned: bool,
    /// What it waits for, in words of the fencer; empty while it goes on.
    pub waits_for: String,
    /// What was seen and done, oldest first.
    pub events: Vec<FenceEvent>,
}

/// How far one of a fence's works has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FenceTrack {
    /// A word: `untried`, `unavailable`, `ordered`, `off`, `failed`; `barring`, `barred`; `not-due`, `done`.
    pub state: String,
    /// In words; may be empty.
    pub detail: String,
}

/// What an administrator has confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FenceConfirmation {
    /// `proceed` or `machine-is-off`.
    pub kind: String,
    /// Who.
    pub by: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// Something that was seen or done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FenceEvent {
    /// When, in seconds since 1970.
    pub at: u64,
    /// By which node's clock, and who saw or did it.
    pub node: String,
    /// What.
    pub text: String,
}

/// What is known of a node's BMC: whether the node could be switched off by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bmc {
    /// Whether a power-off could be had by it when it was last tried.
    pub works: bool,
    /// `verified`, `mismatch` (it is another machine's!), or `unverified`.
    pub identity: String,
    /// Why it does not work or is not verified; empty when all is well.
    pub reason: String,
    /// When it was last tried, in seconds since 1970.
    pub tried_at: u64,
}
