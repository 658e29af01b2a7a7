//! What becomes of one guest of a dead node.

use super::proof::Proof;
use crate::ids::{NodeName, VmId};
use crate::records::{Incoming, Owner};
use crate::states::VmState;

/// A guest, as its own records show it.
#[derive(Debug, Clone)]
pub struct GuestRecords<'a> {
    /// The guest.
    pub vm: VmId,
    /// Where it should run.
    pub node: &'a NodeName,
    /// What it should do.
    pub state: VmState,
    /// Who owns its process.
    pub owner: Option<&'a Owner>,
    /// Who receives it.
    pub incoming: Option<&'a Incoming>,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestFate {
    /// It has nothing to do with the dead boot.
    NotConcerned,
    /// The proof says nothing about its process: it stays where it is.
    NotCovered,
    /// It was being sent to a node that lives: that node makes itself the owner or ends its half, and then this is looked
    /// at again.
    TargetDecides,
    /// The dead boot was receiving it from a node that lives: the announcement goes, the source keeps it.
    ClearIncoming,
    /// It was placed on the dead node and no process of it was ever made there: it is placed elsewhere.
    Replace,
    /// Its process is dead: it gets no owner and is started elsewhere.
    Restart,
    /// Its process is dead, and it was not to run on: it gets no owner and this state.
    Settle(VmState),
}

/// What becomes of a guest of `node`, given the proof about one boot of it.
pub fn guest_fate(proof: &Proof, node: &NodeName, guest: &GuestRecords<'_>) -> GuestFate {
    let owned = guest
        .owner
        .is_some_and(|owner| owner.node == *node && proof.is_about(&owner.incarnation));
    let received = guest
        .incoming
        .is_some_and(|incoming| incoming.target == *node && proof.is_about(&incoming.incarnation));
    if (owned || received) && !proof.covers(guest.vm) {
        return GuestFate::NotCovered;
    }
    if received && !owned {
        return GuestFate::ClearIncoming;
    }
    if owned && guest.incoming.is_some() && !received {
        return GuestFate::TargetDecides;
    }
    if owned {
        return match guest.state {
            VmState::Start
            | VmState::Restart
            | VmState::Migrate
            | VmState::MigrateLive
            | VmState::Unmigrate => GuestFate::Restart,
            VmState::Shutdown | VmState::Stop => GuestFate::Settle(VmState::Stop),
            state @ (VmState::Disable
            | VmState::Fail
            | VmState::Provision
            | VmState::Import
            | VmState::Restore
            | VmState::Mirror
            | VmState::Delete) => GuestFate::Settle(state),
        };
    }
    if guest.owner.is_some() || guest.node != node {
        return GuestFate::NotConcerned;
    }
    // Placed there, and nobody's: never started, or given up by a later boot.
    match guest.state {
        VmState::Start | VmState::Restart | VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => {
            GuestFate::Replace
        }
        VmState::Shutdown => GuestFate::Settle(VmState::Stop),
        VmState::Stop
        | VmState::Disable
        | VmState::Fail
        | VmState::Provision
        | VmState::Import
        | VmState::Restore
        | VmState::Mirror
        | VmState::Delete => GuestFate::NotConcerned,
    }
}
