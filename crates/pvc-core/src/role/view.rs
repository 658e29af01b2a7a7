//! What the role's decision sees, and what it can answer.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::ids::{NodeName, ZnodeVersion};
use crate::lease::LeaseTiming;
use crate::records::{PrimaryRecord, RoleLease};
use crate::states::{CoordinatorState, DaemonState};
use crate::time::BootTime;

/// The waits of the role protocol, beside those of its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleTiming {
    /// The lease's periods.
    pub lease: LeaseTiming,
    /// From the change of the record to the transition it asks for, unless an acknowledgement comes earlier. Keeps
    /// contenders from stampeding and lets the named node get ready.
    pub transition_delay: Duration,
    /// How much longer than that a holder keeps the addresses when the record says `none`, so that whoever claims
    /// them is ready to take them.
    pub orphan_grace: Duration,
    /// Between the contenders of one election, by their place in the list of coordinators.
    pub stagger: Duration,
    /// How long a named node may take to become primary before others set the record to none.
    pub named_deadline: Duration,
    /// How long a node that lost or gave up the role lets others contend first.
    pub sit_out: Duration,
    /// A holder whose loop was late by this much drops the addresses: its host's clock may have stood still.
    pub loop_gap: Duration,
    /// How long a primary's upstream network must be down before it gives the role to a coordinator that reaches it.
    pub upstream_down_for: Duration,
    /// The shortest time between two such moves in the cluster: a network that comes and goes must not take the role
    /// with it each time.
    pub upstream_move_every: Duration,
    /// How long a coordinator that does not reach the upstream network leaves a vacant role to those that do. Then it
    /// contends all the same: a primary without upstream is better than none.
    pub upstream_yield: Duration,
    /// How lately a coordinator's node lease must have been seen to move for it to count as alive, and the longest
    /// time between two looks at it for that.
    pub peer_fresh: Duration,
    /// The longest wait between two looks at the store while standing by.
    pub poll: Duration,
    /// The longest wait between two looks at the clock while holding the role.
    pub tick: Duration,
}

impl RoleTiming {
    /// The waits used by the daemons.
    pub const DEFAULT: RoleTiming = RoleTiming {
        lease: LeaseTiming::DEFAULT,
        transition_delay: Duration::from_millis(500),
        orphan_grace: Duration::from_millis(500),
        stagger: Duration::from_millis(60),
        named_deadline: Duration::from_secs(10),
        sit_out: Duration::from_millis(1500),
        loop_gap: Duration::from_secs(1),
        upstream_down_for: Duration::from_secs(3),
        upstream_move_every: Duration::from_secs(60),
        upstream_yield: Duration::from_secs(5),
        peer_fresh: Duration::from_millis(3500),
        poll: Duration::from_secs(1),
        tick: Duration::from_millis(250),
    };
}

/// One reading of the store, all as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Who should be primary.
    pub record: PrimaryRecord,
    /// The record's version.
    pub record_version: ZnodeVersion,
    /// Who may hold the addresses; `None` before anybody ever did.
    pub lease: Option<RoleLease>,
    /// The role lease's version.
    pub lease_version: ZnodeVersion,
    /// What each coordinator says of its own part.
    pub coordinators: BTreeMap<NodeName, CoordinatorState>,
    /// What else is known of each coordinator.
    pub peers: BTreeMap<NodeName, Peer>,
}

/// What is known of a coordinator, to judge whether it could serve better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peer {
    /// How its agent is; `None` if it never said.
    pub daemon_state: Option<DaemonState>,
    /// The version of its node lease.
    pub lease: Option<ZnodeVersion>,
    /// Whether it reaches the upstream network, as it says itself; `None` if it has not looked yet.
    pub upstream_up: Option<bool>,
}

/// Whether this node reaches the upstream network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OwnUpstream {
    /// It has not looked yet, or is not to look.
    #[default]
    Unknown,
    /// It does.
    Up,
    /// It does not.
    Down {
        /// Since the first look that failed.
        since: BootTime,
    },
}

/// Whether this node may become (or stay) primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eligibility {
    /// It may.
    Eligible,
    /// It is a hypervisor: it never may.
    Hypervisor,
    /// Its agent has not reached `run`.
    Starting,
    /// Its agent was asked to stop.
    ShuttingDown,
    /// Its node lease has ended: whatever else it knows is old.
    NodeLeaseEnded,
    /// The store may tell of the past, and rights that were given before that may not have ended yet.
    OnHold,
}

/// Why a holder takes the addresses off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The record names another node, or none.
    HandOver,
    /// A renewal found that the record has changed.
    RecordLost,
    /// A renewal found another holder in the role lease.
    LeaseTaken,
    /// No renewal was acknowledged for the length of the lease.
    RightEnded,
    /// The loop stood still for too long.
    LoopGap,
    /// An address was gone when it should have been refreshed, or could not be set in time.
    AddressLost,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropReason::HandOver => "the role was handed over",
            DropReason::RecordLost => "the primary record has changed",
            DropReason::LeaseTaken => "another node holds the role lease",
            DropReason::RightEnded => "no renewal of the role lease was acknowledged in time",
            DropReason::LoopGap => "the agent stood still for over a second",
            DropReason::AddressLost => "a floating address was gone",
        })
    }
}

/// Why nothing is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// The store has not been read yet.
    NotObserved,
    /// Another node holds the role, and renews its lease.
    AnotherHolds,
    /// This node is named, and the last holder has neither released the role nor been silent for long enough.
    LastHolderMayHold,
    /// Another node is named and has time left to start.
    AnotherIsNamed,
    /// There is no primary; others, or our own turn, come first.
    ContentionDelay,
    /// There is no primary, and this node may not become it.
    NotEligible(Eligibility),
    /// This node gave the role up a moment ago.
    SittingOut,
    /// This node does not reach the upstream network, and another coordinator does.
    UpstreamDown,
    /// The store has gone back in time: rights that were given before that may not have ended yet.
    StoreWentBack,
    /// This node holds the role and has nothing to do.
    Holding,
}

/// Why the record is set to none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VacateReason {
    /// The named node did not become primary in time.
    NotServed,
    /// This node is the one that is named, and its agent was asked to stop.
    ShuttingDown,
    /// This node is the one that is named, does not reach the upstream network, and another coordinator does.
    UpstreamDown,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing until then, unless something changes.
    Wait {
        /// The latest moment to look again.
        until: BootTime,
        /// Why.
        because: Because,
    },
    /// Say `takeover`: the record names us, and the holder need not wait any longer.
    Acknowledge,
    /// Write our name into the record. Both versions must still hold.
    Claim {
        /// The record as seen.
        record: ZnodeVersion,
        /// The role lease as seen.
        lease: ZnodeVersion,
        /// Whether there is a holder that was silent for too long (then without lock and delay).
        silent_holder: bool,
    },
    /// Set the record to none. Its version must still hold.
    Vacate {
        /// The record as seen.
        record: ZnodeVersion,
        /// Whom it named.
        named: NodeName,
        /// Why.
        why: VacateReason,
    },
    /// Take the role lease. Both versions must still hold. Addresses may be added only after this succeeded.
    Start {
        /// The record, which names us.
        record: ZnodeVersion,
        /// The role lease as seen.
        lease: ZnodeVersion,
        /// Who held it and fell silent: what that node last said of itself is no longer so.
        silent_holder: Option<NodeName>,
    },
    /// Add the addresses that are missing, announce them, look whether what was started answers.
    BringUp {
        /// When our right ends.
        right_ends: BootTime,
    },
    /// Renew the role lease on condition of both versions, then refresh the addresses.
    Renew {
        /// The record, which names us.
        record: ZnodeVersion,
        /// Our own last version of the role lease.
        lease: ZnodeVersion,
        /// The number of this renewal.
        counter: u64,
    },
    /// Take the addresses off, now, before anything else.
    Drop {
        /// Why.
        reason: DropReason,
    },
    /// Our addresses are off: say so in the role lease, on condition of its version.
    Release {
        /// The role lease, which is ours.
        lease: ZnodeVersion,
    },
    /// Say `secondary`.
    StandBy,
}
