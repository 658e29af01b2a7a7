//! What becomes of one guest of a dead node.

use std::time::Duration;

use super::proof::Proof;
use crate::ids::{NodeName, VmId};
use crate::records::{HandOver, Incoming, Owner};
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
    /// Whether it can write to a disk that only its own node has. It can run nowhere else.
    pub bound: bool,
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
    /// Its process is dead, and only that node has one of its disks: it gets no owner, and starts there once the node is
    /// back.
    AwaitNode,
    /// Its process is dead, and it was not to run on: it gets no owner and this state.
    Settle(VmState),
}

/// How long a node whose agent was stopped in good order may have guests before somebody is told: an upgrade takes less.
const STOPPED_FOR: Duration = Duration::from_secs(300);
/// How long a guest may stand still that was given away to such a node: nothing but an agent there lets it run.
const HANDED_OVER_FOR: Duration = Duration::from_secs(10);

/// Whether somebody must be told that this guest is nobody's care: it runs at `node`, is placed there to run, or has been
/// handed over to it, and the agent of `node` was stopped in good order so long ago. Such a node is never fenced.
pub fn is_left_by_stop(node: &NodeName, guest: &GuestRecords<'_>, stopped_for: Duration) -> bool {
    let handed_over = guest
        .incoming
        .is_some_and(|incoming| incoming.target == *node && incoming.hand_over == HandOver::SourceGone);
    let belongs = match guest.owner {
        Some(owner) => owner.node == *node,
        None => guest.node == node && should_run(guest.state),
    };
    (handed_over && stopped_for >= HANDED_OVER_FOR) || (belongs && stopped_for >= STOPPED_FOR)
}

fn should_run(state: VmState) -> bool {
    match state {
        VmState::Start | VmState::Restart | VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => {
            true
        }
        VmState::Shutdown
        | VmState::Stop
        | VmState::Disable
        | VmState::Fail
        | VmState::Provision
        | VmState::Import
        | VmState::Restore
        | VmState::Mirror
        | VmState::Delete => false,
    }
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
            | VmState::Unmigrate => match guest.bound {
                false => GuestFate::Restart,
                true => GuestFate::AwaitNode,
            },
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
        // Elsewhere its disk does not exist: it waits for its node.
        VmState::Start | VmState::Restart | VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate
            if guest.bound =>
        {
            GuestFate::NotConcerned
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::{FencePhase, FenceRecord, PowerTrack, StorageTrack};
    use crate::ids::Incarnation;
    use crate::records::CephClients;

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn vm(number: u128) -> VmId {
        format!("00000000-0000-0000-0000-{number:012}").parse().unwrap()
    }

    fn life() -> Incarnation {
        Incarnation {
            machine_id: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            boot_id: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap(),
            counter: 1,
        }
    }

    fn owner() -> Owner {
        Owner {
            node: node("hv2"),
            incarnation: life(),
            epoch: 1,
            ceph_clients: CephClients::Unrecorded,
        }
    }

    fn handed_over(hand_over: HandOver) -> Incoming {
        Incoming {
            target: node("hv3"),
            incarnation: life(),
            ceph_clients: CephClients::Unrecorded,
            hand_over,
            source_log: None,
        }
    }

    /// hv2 is proven dead by its BMC, or by the storage, which does not cover guest 1.
    fn fence(power: bool) -> FenceRecord {
        let mut record = FenceRecord::suspected(life(), node("hv1"));
        record.phase = FencePhase::Recovering {
            by: match power {
                true => crate::fence::ProofKind::Power,
                false => crate::fence::ProofKind::Storage,
            },
        };
        match power {
            true => record.power = PowerTrack::Off,
            false => {
                record.storage = StorageTrack::Barred {
                    epoch: 1,
                    clients: 1,
                    not_covered: vec![vm(1)],
                };
            }
        }
        record
    }

    #[test]
    fn a_proof_is_evidence_only_about_the_guests_that_it_covers() {
        // The node heals, and would end a healthy guest that nobody else has or may have.
        assert!(!Proof::is_evidence_about(&fence(false), &life(), vm(1)));
        assert!(Proof::is_evidence_about(&fence(false), &life(), vm(2)));
        assert!(Proof::is_evidence_about(&fence(true), &life(), vm(1)));
        let mut proving = fence(true);
        proving.phase = FencePhase::Proving;
        assert!(!Proof::is_evidence_about(&proving, &life(), vm(2)));
    }

    #[test]
    fn a_guest_with_a_disk_of_its_node_goes_nowhere_else() {
        // Where it would be placed its file does not exist.
        let proof = Proof::recorded(&fence(true)).unwrap();
        let (owner, home) = (owner(), node("hv2"));
        let fate = |owner, bound| {
            let guest = GuestRecords {
                vm: vm(1),
                node: &home,
                state: VmState::Start,
                owner,
                incoming: None,
                bound,
            };
            guest_fate(&proof, &home, &guest)
        };
        assert_eq!(fate(Some(&owner), false), GuestFate::Restart);
        assert_eq!(fate(Some(&owner), true), GuestFate::AwaitNode);
        assert_eq!(fate(None, false), GuestFate::Replace);
        assert_eq!(fate(None, true), GuestFate::NotConcerned);
    }

    #[test]
    fn a_stopped_node_is_told_of_whatever_waits_for_it() {
        let (owner, gone, accepted) = (
            owner(),
            handed_over(HandOver::SourceGone),
            handed_over(HandOver::Accepted),
        );
        let left = |stopped: &str, placed: &str, state, owner, incoming, seconds| {
            let guest = GuestRecords {
                vm: vm(1),
                node: &node(placed),
                state,
                owner,
                incoming,
                bound: false,
            };
            is_left_by_stop(&node(stopped), &guest, Duration::from_secs(seconds))
        };
        // It runs there. An upgrade of the agent is no fault.
        assert!(left("hv2", "hv2", VmState::Start, Some(&owner), None, 300));
        assert!(!left("hv2", "hv2", VmState::Start, Some(&owner), None, 299));
        // It was placed there while the agent was stopping: nobody starts it.
        assert!(left("hv2", "hv2", VmState::Start, None, None, 300));
        assert!(!left("hv2", "hv2", VmState::Stop, None, None, 300));
        assert!(!left("hv3", "hv2", VmState::Start, None, None, 300));
        // It stands still and only that node may let it run.
        assert!(left(
            "hv3",
            "hv3",
            VmState::Migrate,
            Some(&owner),
            Some(&gone),
            10
        ));
        assert!(!left(
            "hv3",
            "hv3",
            VmState::Migrate,
            Some(&owner),
            Some(&gone),
            9
        ));
        assert!(!left(
            "hv3",
            "hv3",
            VmState::Migrate,
            Some(&owner),
            Some(&accepted),
            300
        ));
    }
}
