//! Proofs of death.
//!
//! A proof is a fact about the past of one boot of one machine. Its fields are private and each constructor takes the
//! observation that makes it true, so that recovery, which asks for a [`Proof`], cannot be reached by any other way.

use serde::{Deserialize, Serialize};

use super::record::{FencePhase, FenceRecord, PowerTrack, StorageTrack};
use crate::ids::{Incarnation, VmId};
use crate::protection::{Protection, stands};
use crate::records::NodeLease;

/// By what a boot is known to be dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofKind {
    /// Its BMC said "off" after our order.
    Power,
    /// Every Ceph client of its guests is barred, and every OSD knows.
    Storage,
    /// The same machine has booted anew.
    NewBoot,
    /// An administrator has stated that the machine is off.
    Administrator,
}

/// The proofs that leave no other trace in the record than the phase itself.
fn concluded_in_words(phase: &FencePhase) -> Option<ProofKind> {
    match phase {
        FencePhase::Proven { by } | FencePhase::Recovering { by } | FencePhase::Done { by } => match by {
            ProofKind::NewBoot | ProofKind::Administrator => Some(*by),
            ProofKind::Power | ProofKind::Storage => None,
        },
        FencePhase::Suspected | FencePhase::Proving | FencePhase::Abandoned { .. } => None,
    }
}

impl std::fmt::Display for ProofKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            ProofKind::Power => "power",
            ProofKind::Storage => "storage",
            ProofKind::NewBoot => "new boot",
            ProofKind::Administrator => "administrator",
        })
    }
}

/// A boot of a machine can't write any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    kind: ProofKind,
    victim: Incarnation,
    not_covered: Vec<VmId>,
}

impl Proof {
    /// What a fence record proves by itself: the results of its outside actions are written into it under the fence
    /// lock, so another fencer carries on from them.
    ///
    /// The strongest is taken: a new boot, an administrator's word that was concluded from, and power cover all guests;
    /// storage only those whose writable disks are all on Ceph with clients on record.
    pub fn recorded(record: &FenceRecord) -> Option<Proof> {
        let kind = if let Some(kind) = concluded_in_words(&record.phase) {
            kind
        } else if record.power == PowerTrack::Off {
            ProofKind::Power
        } else if matches!(record.storage, StorageTrack::Barred { .. })
            || !stands(Protection::FenceNeedsProof)
        {
            ProofKind::Storage
        } else {
            return None;
        };
        let not_covered = match (kind, &record.storage) {
            (ProofKind::Storage, StorageTrack::Barred { not_covered, .. }) => not_covered.clone(),
            (ProofKind::Storage | ProofKind::Power | ProofKind::NewBoot | ProofKind::Administrator, _) => {
                Vec::new()
            }
        };
        Some(Proof {
            kind,
            victim: record.victim.clone(),
            not_covered,
        })
    }

    /// The lease of the node shows another boot of the same machine: the earlier one has ended.
    pub fn by_new_boot(victim: &Incarnation, lease: &NodeLease) -> Option<Proof> {
        (lease.incarnation.same_machine(victim) && !lease.incarnation.same_boot(victim)).then(|| Proof {
            kind: ProofKind::NewBoot,
            victim: victim.clone(),
            not_covered: Vec::new(),
        })
    }

    /// Whether a renewal by the dead boot voids it: nothing but somebody's word, a BMC's or a person's, stands behind it.
    pub fn is_a_word(&self) -> bool {
        match self.kind {
            ProofKind::Power | ProofKind::Administrator => true,
            ProofKind::Storage | ProofKind::NewBoot => false,
        }
    }

    /// By what.
    pub fn kind(&self) -> ProofKind {
        self.kind
    }

    /// The life whose boot is dead.
    pub fn victim(&self) -> &Incarnation {
        &self.victim
    }

    /// Whether it is about the boot of `incarnation`.
    pub fn is_about(&self, incarnation: &Incarnation) -> bool {
        self.victim.same_boot(incarnation)
    }

    /// Whether `record` is evidence, for the life `boot`, that others have this guest or are about to take it. A record of
    /// a proof that says nothing about the guest is none: the guest is left where it is, and may be well.
    pub fn is_evidence_about(record: &FenceRecord, boot: &Incarnation, vm: VmId) -> bool {
        record.is_evidence_against(boot)
            && Proof::recorded(record).is_some_and(|proof| proof.is_about(boot) && proof.covers(vm))
    }

    /// Whether it shows that the process of this guest can't write. A storage proof says nothing about a guest with a
    /// writable disk that is not on Ceph, nor about one whose clients were never recorded.
    pub fn covers(&self, vm: VmId) -> bool {
        !self.not_covered.contains(&vm)
    }
}
