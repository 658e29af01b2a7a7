//! The record of a fence, `/fences/N`.
//!
//! Each phase and each outside action is written here under the fence lock and on condition of the version: the intent
//! before, the result after. Another fencer carries on from what is written. Times in it are for people: they are wall
//! clocks of different nodes and nothing is decided by them.

use serde::{Deserialize, Serialize};

use super::proof::ProofKind;
use crate::ids::{Incarnation, NodeName, VmId};
use crate::records::Record;

/// How many events a record keeps; the oldest go first, but never the first of all.
const EVENTS_KEPT: usize = 40;

/// A fence of one boot of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceRecord {
    /// The life that fell silent. Proofs are about its boot.
    pub victim: Incarnation,
    /// How often a fencer has taken it up: 1 the first time.
    pub attempt: u32,
    /// Who acts, or acted last.
    pub fencer: NodeName,
    /// How far it has come.
    pub phase: FencePhase,
    /// The power-off.
    pub power: PowerTrack,
    /// Whether the node has renewed its lease after its BMC had said "off": that BMC's word counts no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub power_disproved: bool,
    /// The version of its lease before its BMC or an administrator said "off": if the lease moves on, that was no proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_version_at_off: Option<i32>,
    /// The barring of its Ceph clients.
    pub storage: StorageTrack,
    /// Switching it on again, once its guests have other owners.
    pub restart: RestartTrack,
    /// How often it was ordered on.
    #[serde(default, skip_serializing_if = "no_orders")]
    pub restart_orders: u32,
    /// What an administrator has said about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<Confirmation>,
    /// Guests that found no node: stopped with autostart, and tried again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parked: Vec<VmId>,
    /// Guests that stay where they are, since no proof so far covers them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<VmId>,
    /// The life of the node that has come back after it, and runs nothing of the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned: Option<Incarnation>,
    /// What it waits for, in words; empty while it goes on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waits_for: String,
    /// When it is tried again, in seconds since 1970 by the fencer's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_at: Option<u64>,
    /// What was seen and done, oldest first.
    pub events: Vec<FenceEvent>,
}

impl Record for FenceRecord {}

/// How far a fence has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum FencePhase {
    /// The node is silent. Nothing has been done to it.
    Suspected,
    /// A proof is sought; what has been ordered is in the tracks.
    Proving,
    /// It is dead.
    Proven {
        /// By what it is known.
        by: ProofKind,
    },
    /// Its guests are given to other nodes.
    Recovering {
        /// By what it is known to be dead.
        by: ProofKind,
    },
    /// No guest belongs to it any more.
    Done {
        /// By what it was known to be dead.
        by: ProofKind,
    },
    /// Given up before anything was done to it.
    Abandoned {
        /// Why.
        reason: String,
    },
}

impl FencePhase {
    /// The word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            FencePhase::Suspected => "suspected",
            FencePhase::Proving => "proving",
            FencePhase::Proven { .. } => "proven",
            FencePhase::Recovering { .. } => "recovering",
            FencePhase::Done { .. } => "done",
            FencePhase::Abandoned { .. } => "abandoned",
        }
    }
}

/// The power-off by the node's BMC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum PowerTrack {
    /// Not tried.
    Untried,
    /// It can't be had: there is no BMC on record, or its identity was never verified.
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The order is about to be sent, or was.
    Ordered,
    /// The BMC said "off" after the order.
    Off,
    /// The BMC did not say "off". The order may have reached it all the same.
    Failed {
        /// What it said.
        reason: String,
    },
}

impl PowerTrack {
    /// Writes down why it can't be had. What was ordered or learnt stays on record, whatever this fencer may do.
    pub fn can_not_be_had(&mut self, why: &str) {
        match self {
            PowerTrack::Untried | PowerTrack::Unavailable { .. } => {
                *self = PowerTrack::Unavailable {
                    reason: why.to_owned(),
                }
            }
            PowerTrack::Ordered | PowerTrack::Off | PowerTrack::Failed { .. } => {}
        }
    }
}

/// The barring of every Ceph client of the node's guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum StorageTrack {
    /// Not tried.
    Untried,
    /// It is not to be had: there is no storage cluster, or the settings do not allow it.
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The entries are about to be made, or were.
    Barring,
    /// Every client is barred in this map, and every OSD that is up has it.
    Barred {
        /// The epoch of the OSD map.
        epoch: u64,
        /// How many clients were barred.
        clients: u32,
        /// Guests about which this proves nothing: a writable disk that is not on Ceph, or clients never recorded.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        not_covered: Vec<VmId>,
    },
    /// Every client is barred in this map. The OSDs were not asked, since the power proof had come by then; so this is no
    /// proof by itself.
    Entered {
        /// The epoch of the OSD map.
        epoch: u64,
        /// How many clients were barred.
        clients: u32,
    },
    /// Some client may not be barred.
    Failed {
        /// What happened.
        reason: String,
    },
}

impl StorageTrack {
    /// Writes down why it can't be had. What was barred or learnt stays on record, whatever this fencer may do.
    pub fn can_not_be_had(&mut self, why: &str) {
        match self {
            StorageTrack::Untried | StorageTrack::Unavailable { .. } => {
                *self = StorageTrack::Unavailable {
                    reason: why.to_owned(),
                }
            }
            StorageTrack::Barring
            | StorageTrack::Entered { .. }
            | StorageTrack::Barred { .. }
            | StorageTrack::Failed { .. } => {}
        }
    }
}

/// Switching the node on again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum RestartTrack {
    /// It was not switched off by us.
    NotDue,
    /// The order is about to be sent, or was.
    Ordered,
    /// The BMC took it.
    Done,
    /// The BMC did not take it. The fence is none the worse for it: broken hardware often refuses to start.
    Failed {
        /// What it said.
        reason: String,
    },
}

/// What an administrator has said about a fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// What.
    pub kind: ConfirmationKind,
    /// Who: the name of the user or token.
    pub by: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// What can be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfirmationKind {
    /// Go on although many nodes fell silent at once: seek a proof.
    Proceed,
    /// The machine is off; I have seen it. Taken for a proof, on that person's word.
    MachineIsOff,
}

/// Something that was seen or done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceEvent {
    /// When, in seconds since 1970 by the clock of `node`.
    pub at: u64,
    /// Who saw or did it.
    pub node: NodeName,
    /// What.
    pub text: String,
}

fn no_orders(orders: &u32) -> bool {
    *orders == 0
}

impl FenceRecord {
    /// A fence at its beginning.
    pub fn suspected(victim: Incarnation, fencer: NodeName) -> FenceRecord {
        FenceRecord {
            victim,
            attempt: 1,
            fencer,
            phase: FencePhase::Suspected,
            power: PowerTrack::Untried,
            power_disproved: false,
            lease_version_at_off: None,
            storage: StorageTrack::Untried,
            restart: RestartTrack::NotDue,
            restart_orders: 0,
            confirmation: None,
            parked: Vec::new(),
            left: Vec::new(),
            returned: None,
            waits_for: String::new(),
            next_try_at: None,
            events: Vec::new(),
        }
    }

    /// Adds an event.
    pub fn note(&mut self, at: u64, node: &NodeName, text: impl Into<String>) {
        if self.events.len() >= EVENTS_KEPT {
            self.events.remove(1);
        }
        self.events.push(FenceEvent {
            at,
            node: node.clone(),
            text: text.into(),
        });
    }

    /// Whether an administrator has confirmed this.
    pub fn is_confirmed(&self, kind: ConfirmationKind) -> bool {
        self.confirmation
            .as_ref()
            .is_some_and(|confirmation| confirmation.kind == kind)
    }

    /// Whether somebody has still to act on it.
    pub fn is_open(&self) -> bool {
        match self.phase {
            FencePhase::Suspected
            | FencePhase::Proving
            | FencePhase::Proven { .. }
            | FencePhase::Recovering { .. } => true,
            FencePhase::Done { .. } | FencePhase::Abandoned { .. } => false,
        }
    }

    /// Whether its node counts as away: its fence goes on, or it has not come back since.
    pub fn counts_out(&self) -> bool {
        self.is_open() || (matches!(self.phase, FencePhase::Done { .. }) && self.returned.is_none())
    }

    /// Whether something was ordered that can't be taken back: from here on the fence only goes forward.
    pub fn past_return(&self) -> bool {
        let power = match self.power {
            PowerTrack::Untried | PowerTrack::Unavailable { .. } => false,
            PowerTrack::Ordered | PowerTrack::Off | PowerTrack::Failed { .. } => true,
        };
        let storage = match self.storage {
            StorageTrack::Untried | StorageTrack::Unavailable { .. } => false,
            StorageTrack::Barring
            | StorageTrack::Entered { .. }
            | StorageTrack::Barred { .. }
            | StorageTrack::Failed { .. } => true,
        };
        let proven = match self.phase {
            FencePhase::Suspected | FencePhase::Proving | FencePhase::Abandoned { .. } => false,
            FencePhase::Proven { .. } | FencePhase::Recovering { .. } | FencePhase::Done { .. } => true,
        };
        power || storage || proven
    }

    /// Whether all that was done was to order it off, without a proof: nothing keeps its guests from writing, and nobody
    /// has taken them. If it lives on for long the order was not carried out, and the fence may be given up: a BMC that
    /// carries it out later still only crashes the node, and that is fenced properly.
    pub fn may_be_outlived(&self) -> bool {
        let ordered = match self.power {
            PowerTrack::Ordered | PowerTrack::Failed { .. } => true,
            PowerTrack::Untried | PowerTrack::Unavailable { .. } | PowerTrack::Off => false,
        };
        let untouched = match self.storage {
            StorageTrack::Untried | StorageTrack::Unavailable { .. } => true,
            StorageTrack::Barring
            | StorageTrack::Entered { .. }
            | StorageTrack::Barred { .. }
            | StorageTrack::Failed { .. } => false,
        };
        self.phase == FencePhase::Proving && ordered && untouched
    }

    /// Whether the node is switched on when the fence is done, its death having been known by `by`: if it was ordered off. Also
    /// when the order's answer was lost: then it may be off, and switching it on harms nobody. Not by a BMC that is another
    /// machine's, and not while somebody is at the machine.
    pub fn is_switched_on_when_done(&self, by: ProofKind) -> bool {
        let ordered = match self.power {
            PowerTrack::Untried | PowerTrack::Unavailable { .. } => false,
            PowerTrack::Ordered | PowerTrack::Off | PowerTrack::Failed { .. } => true,
        };
        let by_a_person = match by {
            ProofKind::Administrator => true,
            ProofKind::Power | ProofKind::Storage | ProofKind::NewBoot => false,
        };
        ordered && !self.power_disproved && !by_a_person && self.restart == RestartTrack::NotDue
    }

    /// Whether it is evidence, for the life `me`, that others have taken its guests or are about to: then it ends them.
    /// A suspicion is none, nor is the word `dead` in the node's state.
    pub fn is_evidence_against(&self, me: &Incarnation) -> bool {
        let proven = match self.phase {
            FencePhase::Suspected | FencePhase::Proving | FencePhase::Abandoned { .. } => false,
            FencePhase::Proven { .. } | FencePhase::Recovering { .. } | FencePhase::Done { .. } => true,
        };
        proven && self.victim.same_boot(me) && self.returned.is_none()
    }

    /// Whether the life `me` must not take part: it starts nothing and claims nothing. A record about another machine that
    /// had this name before is nothing to `me`: it owns nothing of that machine's.
    pub fn bars(&self, me: &Incarnation) -> bool {
        (self.is_open() && self.victim.same_machine(me)) || self.is_evidence_against(me)
    }
}
