//! Choosing a node for a guest: the one rule by which every part of PVC places guests, be it a new guest, a move, a
//! drain or a recovery.
//!
//! * [`place`] chooses the best of the nodes that can take the guest, or says for each node why it can not.
//! * [`Survey`] sums up, from the guests' own records, what each node has to carry.
//!
//! Two figures of memory are kept apart. What a node *can carry* is judged by the guests that run or should run there: a
//! stopped guest takes nothing. How full a node is *promised* counts the stopped ones as well: the selector `memprov`
//! ranks by it, so that guests which are started later still find their memory.

mod survey;

use std::collections::BTreeSet;
use std::fmt;

pub use survey::{GuestFigures, NodeFigures, Survey, runs};

use crate::ids::{NodeName, TagName, VmId};
use crate::states::{DaemonState, DomainState, NodeSelector};

/// CPUs of a node that are kept for the node itself, as PVC 1.0.3 keeps them; one vCPU is always possible.
const CPUS_KEPT: u32 = 2;

/// A node that a guest might be placed on.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The node.
    pub name: NodeName,
    /// How its agent is, as the store says.
    pub daemon_state: DaemonState,
    /// Whether it takes guests.
    pub domain_state: DomainState,
    /// Whether it is known to be silent, or is being fenced: its states in the store are not to be believed.
    pub silent: bool,
    /// Memory it has, in MiB; 0 while it has not said.
    pub memory_total_mib: u64,
    /// Memory that is free there once the guests on their way to it run, in MiB.
    pub memory_free_mib: u64,
    /// Memory of all guests placed there, stopped ones too, in MiB.
    pub committed_mib: u64,
    /// Memory of the guests that run or should run there, in MiB.
    pub running_mib: u64,
    /// Its load over one minute, with one for each vCPU of the guests on their way to it.
    pub load: f64,
    /// CPUs it has; 0 while it has not said.
    pub cpus: u32,
    /// vCPUs of the guests that run or should run there.
    pub vcpus_allocated: u64,
    /// Guests that run or should run there.
    pub vms: u32,
    /// Anti-affinity groups of the guests that run or should run there.
    pub groups: BTreeSet<TagName>,
}

/// A guest that wants a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The guest.
    pub vm: VmId,
    /// Its memory, in MiB.
    pub memory_mib: u64,
    /// Its vCPUs.
    pub vcpus: u32,
    /// The nodes it may run on; empty for any.
    pub limit: Vec<NodeName>,
    /// Its anti-affinity groups.
    pub groups: BTreeSet<TagName>,
    /// By what the nodes are ranked; the cluster's default is filled in already. `none` ranks by free memory.
    pub selector: NodeSelector,
    /// Nodes that will not do, whatever they have: the one to be left.
    pub exclude: Vec<NodeName>,
}

/// Why a node does not take a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// It is the node that the guest is to leave.
    #[error("it is the node to be left")]
    Excluded,
    /// It is not among the nodes that the guest is limited to.
    #[error("the guest's node limit leaves it out")]
    Limited,
    /// Its lease has not been renewed, or it is being fenced.
    #[error("it does not answer")]
    Silent,
    /// Its agent does not take part.
    #[error("its agent is in state {state}, not run")]
    NotRunning {
        /// Its state.
        state: DaemonState,
    },
    /// It takes no guests.
    #[error("it is {state}, not ready for guests")]
    NotReady {
        /// Its state.
        state: DomainState,
    },
    /// It has not said what it has.
    #[error("it has not reported yet how much memory and how many CPUs it has")]
    Unknown,
    /// The guest would not fit on it if it were empty.
    #[error("the guest needs {needed} MiB of memory, and it has {total} MiB in all")]
    TooLarge {
        /// MiB.
        needed: u64,
        /// MiB.
        total: u64,
    },
    /// The guest does not fit beside those that are there.
    #[error(
        "the guest needs {needed} MiB of memory, and of its {total} MiB the guests that run or should run there have \
         {running} MiB"
    )]
    Full {
        /// MiB.
        needed: u64,
        /// MiB.
        total: u64,
        /// MiB.
        running: u64,
    },
    /// The guest has more vCPUs than a guest can have there.
    #[error(
        "the guest has {needed} vCPUs, and a guest there can have {most} (two CPUs are kept for the node)"
    )]
    Vcpus {
        /// vCPUs.
        needed: u32,
        /// vCPUs.
        most: u32,
    },
    /// A guest of one of its anti-affinity groups is there.
    #[error("another guest of the anti-affinity group {group} is there")]
    Together {
        /// The first group that they share, in order of names.
        group: TagName,
    },
}

impl Obstacle {
    /// Whether an administrator who names the node may override it: the guest could run there, PVC only would not
    /// choose the node.
    pub fn may_be_overridden(&self) -> bool {
        match self {
            Obstacle::NotReady { .. } | Obstacle::Together { .. } => true,
            Obstacle::Excluded
            | Obstacle::Limited
            | Obstacle::Silent
            | Obstacle::NotRunning { .. }
            | Obstacle::Unknown
            | Obstacle::TooLarge { .. }
            | Obstacle::Full { .. }
            | Obstacle::Vcpus { .. } => false,
        }
    }
}

/// No node takes a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoPlace {
    /// Every node with all that stands against it, in order of names.
    pub refusals: Vec<(NodeName, Vec<Obstacle>)>,
}

impl NoPlace {
    /// Whether it may come right by itself within a minute: a node that would do starts, or has not reported yet.
    pub fn may_pass(&self) -> bool {
        let passes = |obstacle: &Obstacle| match obstacle {
            Obstacle::Silent | Obstacle::Unknown => true,
            Obstacle::NotRunning { state } => match state {
                DaemonState::Init | DaemonState::Dead | DaemonState::Run => true,
                DaemonState::Shutdown | DaemonState::Stop | DaemonState::Fenced => false,
            },
            Obstacle::NotReady { state } => match state {
                DomainState::Unflush | DomainState::Ready => true,
                DomainState::Flush | DomainState::Flushed | DomainState::FenceFlush => false,
            },
            Obstacle::Excluded
            | Obstacle::Limited
            | Obstacle::TooLarge { .. }
            | Obstacle::Full { .. }
            | Obstacle::Vcpus { .. }
            | Obstacle::Together { .. } => false,
        };
        self.refusals
            .iter()
            .any(|(_, obstacles)| obstacles.iter().all(passes))
    }

    /// Nodes that only an anti-affinity group keeps from taking the guest.
    pub fn only_apart(&self) -> Vec<&NodeName> {
        let apart = |obstacles: &[Obstacle]| {
            obstacles
                .iter()
                .all(|obstacle| matches!(obstacle, Obstacle::Together { .. }))
        };
        self.refusals
            .iter()
            .filter(|(_, obstacles)| apart(obstacles))
            .map(|(node, _)| node)
            .collect()
    }
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.refusals.is_empty() {
            return f.write_str("there is no node");
        }
        f.write_str("no node takes it")?;
        let apart = self.only_apart();
        if !apart.is_empty() {
            let names: Vec<&str> = apart.iter().map(|node| node.as_str()).collect();
            write!(f, " (only its anti-affinity keeps it from {})", names.join(", "))?;
        }
        for (index, (node, obstacles)) in self.refusals.iter().enumerate() {
            let lead = if index == 0 { ": " } else { "; " };
            write!(f, "{lead}{node}: ")?;
            for (index, obstacle) in obstacles.iter().enumerate() {
                let lead = if index == 0 { "" } else { ", and " };
                write!(f, "{lead}{obstacle}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for NoPlace {}

/// The node for a guest: the best by its selector among those that nothing stands against. Equal nodes are told apart by
/// guest and name together, so that guests spread over them, and the same guest always gets the same answer.
///
/// # Errors
/// [`NoPlace`] with all that stands against each node.
pub fn place(wish: &Wish, candidates: &[Candidate]) -> Result<NodeName, NoPlace> {
    let mut refusals = Vec::new();
    let mut best: Option<(&Candidate, f64, u64)> = None;
    for candidate in candidates {
        let obstacles = obstacles(wish, candidate);
        if !obstacles.is_empty() {
            refusals.push((candidate.name.clone(), obstacles));
            continue;
        }
        let score = score(candidate, wish.selector);
        let lot = lot(wish.vm, &candidate.name);
        let better =
            best.is_none_or(|(_, highest, drawn)| score > highest || (score == highest && lot > drawn));
        if better {
            best = Some((candidate, score, lot));
        }
    }
    if let Some((candidate, _, _)) = best {
        return Ok(candidate.name.clone());
    }
    refusals.sort_by(|(a, _), (b, _)| a.cmp(b));
    Err(NoPlace { refusals })
}

/// All that stands against a node; nothing if it can take the guest.
pub fn obstacles(wish: &Wish, candidate: &Candidate) -> Vec<Obstacle> {
    let mut found = Vec::new();
    if wish.exclude.contains(&candidate.name) {
        // Nothing else about it is of interest to whoever reads this.
        return vec![Obstacle::Excluded];
    }
    if !wish.limit.is_empty() && !wish.limit.contains(&candidate.name) {
        found.push(Obstacle::Limited);
    }
    if candidate.silent {
        found.push(Obstacle::Silent);
    } else if candidate.daemon_state != DaemonState::Run {
        found.push(Obstacle::NotRunning {
            state: candidate.daemon_state,
        });
    }
    if candidate.domain_state != DomainState::Ready {
        found.push(Obstacle::NotReady {
            state: candidate.domain_state,
        });
    }
    found.extend(misfit(wish, candidate));
    if let Some(group) = wish.groups.intersection(&candidate.groups).next() {
        found.push(Obstacle::Together { group: group.clone() });
    }
    found
}

/// Why the guest does not fit on the node, whoever asks for it. Memory has to stay below the node's, as PVC 1.0.3 has it:
/// something must be left for the node itself.
fn misfit(wish: &Wish, candidate: &Candidate) -> Vec<Obstacle> {
    let total = candidate.memory_total_mib;
    if total == 0 || candidate.cpus == 0 {
        return vec![Obstacle::Unknown];
    }
    let mut found = Vec::new();
    let needed = wish.memory_mib;
    if needed >= total {
        found.push(Obstacle::TooLarge { needed, total });
    } else if candidate.running_mib.saturating_add(needed) >= total {
        found.push(Obstacle::Full {
            needed,
            total,
            running: candidate.running_mib,
        });
    }
    let most = candidate.cpus.saturating_sub(CPUS_KEPT).max(1);
    if wish.vcpus > most {
        found.push(Obstacle::Vcpus {
            needed: wish.vcpus,
            most,
        });
    }
    found
}

/// The higher the better.
#[expect(
    clippy::cast_precision_loss,
    reason = "MiB and counts stay far below 2^52, and are only compared"
)]
fn score(candidate: &Candidate, selector: NodeSelector) -> f64 {
    match selector {
        // No selector anywhere: as most clusters have it.
        NodeSelector::Mem | NodeSelector::None => candidate.memory_free_mib as f64,
        // Lesson 52: stopped guests count, else a node full of them looks empty until they are started. It goes below
        // zero where more is promised than the node has.
        NodeSelector::Memprov => candidate.memory_total_mib as f64 - candidate.committed_mib as f64,
        NodeSelector::Load => -candidate.load,
        NodeSelector::Vcpus => -(candidate.vcpus_allocated as f64),
        NodeSelector::Vms => -f64::from(candidate.vms),
    }
}

/// Where a guest is drawn to among equal nodes (FNV-1a over both): the same on every node of the cluster and in every
/// release, but different from guest to guest.
fn lot(vm: VmId, node: &NodeName) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in vm.uuid().as_bytes().iter().chain(node.as_str().as_bytes()) {
        hash ^= u64::from(*byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    // The last bytes of FNV hardly reach its upper bits; names of nodes differ in their last letter.
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests;
