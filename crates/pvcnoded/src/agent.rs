//! How this agent is, shared by its loops.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pvc_core::hold::HoldReason;
use pvc_core::role::OwnUpstream;
use pvc_core::storage_loss::{StorageLossPolicy, StorageSight};
use pvc_core::time::BootTime;
use tokio::sync::watch;

use crate::measures::Measures;
use crate::node_lease::NodeRight;

/// Where the agent is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentPhase {
    /// Registered, not taking part.
    Starting,
    /// Taking part.
    Running,
    /// Asked to stop.
    ShuttingDown,
}

/// How this agent is. Clones share it.
#[derive(Debug, Clone)]
pub struct AgentState {
    phase: watch::Sender<AgentPhase>,
    node_right: NodeRight,
    hold: Hold,
    upstream: UpstreamSight,
    storage: StorageState,
    measures: Measures,
}

impl AgentState {
    /// An agent that is starting and has no right yet.
    pub fn new() -> AgentState {
        AgentState {
            phase: watch::Sender::new(AgentPhase::Starting),
            node_right: NodeRight::default(),
            hold: Hold::default(),
            upstream: UpstreamSight::default(),
            storage: StorageState::default(),
            measures: Measures::default(),
        }
    }

    /// Where it is.
    pub fn phase(&self) -> AgentPhase {
        *self.phase.borrow()
    }

    /// Moves on.
    pub fn enter(&self, phase: AgentPhase) {
        self.phase.send_replace(phase);
    }

    /// Moves on if it is at `from`; otherwise it stays. Answers whether it moved.
    pub fn enter_from(&self, from: AgentPhase, to: AgentPhase) -> bool {
        self.phase.send_if_modified(|phase| {
            let there = *phase == from;
            if there {
                *phase = to;
            }
            there
        })
    }

    /// Returns when it moves on from where it is now. Cancel-safe.
    pub async fn phase_changed(&self) {
        // The sender lives as long as `self`, so this can't fail.
        let _ = self.phase.subscribe().changed().await;
    }

    /// Its node lease.
    pub fn node_right(&self) -> &NodeRight {
        &self.node_right
    }

    /// Whether it holds still since the store may tell of the past. Whoever starts, ends, claims or fences asks.
    pub fn hold(&self) -> &Hold {
        &self.hold
    }

    /// What it measures of itself.
    pub fn measures(&self) -> &Measures {
        &self.measures
    }

    /// Whether it reaches its storage.
    pub fn storage(&self) -> &StorageState {
        &self.storage
    }

    /// Whether it reaches the upstream network.
    pub fn upstream(&self) -> &UpstreamSight {
        &self.upstream
    }
}

/// Whether this agent is on hold, since when and why. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Hold {
    held: Arc<Mutex<Option<(BootTime, HoldReason)>>>,
    /// The newest write of this node's own lease that was read so far.
    own_lease: Arc<AtomicI64>,
}

impl Hold {
    /// Whether it is.
    pub fn is_on(&self) -> bool {
        self.lock().is_some()
    }

    /// Since when, and why.
    pub fn reason(&self) -> Option<(BootTime, HoldReason)> {
        self.lock().clone()
    }

    /// Goes on hold. One that is on hold already stays so for its first reason.
    pub fn place(&self, reason: HoldReason, now: BootTime) {
        self.lock().get_or_insert((now, reason));
    }

    /// Whether a reading that shows this node's own lease as last written by `own_lease` is older than an earlier one:
    /// a server that lags, or a store that went back in time. Nothing may follow from such a reading.
    pub fn is_older(&self, own_lease: Option<i64>) -> bool {
        own_lease.is_some_and(|zxid| self.own_lease.fetch_max(zxid, Ordering::Relaxed) > zxid)
    }

    /// Ends the hold. What the store says from now on is what counts.
    pub fn lift(&self) {
        self.own_lease.store(0, Ordering::Relaxed);
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<(BootTime, HoldReason)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this node reaches its storage, and what follows for its guests if not. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct StorageState {
    state: Arc<Mutex<(StorageSight, StorageLossPolicy)>>,
}

impl StorageState {
    /// What is known now.
    pub fn sight(&self) -> StorageSight {
        self.lock().0
    }

    /// The looks tell this, and the settings that.
    pub fn set(&self, sight: StorageSight, policy: StorageLossPolicy) {
        *self.lock() = (sight, policy);
    }

    /// Whether this node's guests are ended and given up.
    pub fn ends_guests(&self, now: BootTime) -> bool {
        let (sight, policy) = *self.lock();
        sight.ends_guests(policy, now)
    }

    fn lock(&self) -> MutexGuard<'_, (StorageSight, StorageLossPolicy)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this node reaches the upstream network, as the last looks tell. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct UpstreamSight {
    sight: Arc<Mutex<OwnUpstream>>,
}

impl UpstreamSight {
    /// What is known now.
    pub fn get(&self) -> OwnUpstream {
        *self.sight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The looks tell this.
    pub fn set(&self, sight: OwnUpstream) {
        *self.sight.lock().unwrap_or_else(PoisonError::into_inner) = sight;
    }
}

impl Default for AgentState {
    fn default() -> AgentState {
        AgentState::new()
    }
}

/// When a loop last made progress: the service manager's watchdog is fed only while all of them do.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    nanoseconds: Arc<AtomicU64>,
}

impl Pulse {
    /// The loop makes progress.
    pub fn beat(&self, now: BootTime) {
        let nanoseconds = u64::try_from(now.since_boot().as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.store(nanoseconds, Ordering::Relaxed);
    }

    /// How long it has made none. A loop that never began has made none since the host booted.
    pub fn silent_for(&self, now: BootTime) -> Duration {
        let last = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed));
        now.since(BootTime::from_duration(last))
    }
}
