//! The decision over one guest on one node.

use std::fmt;
use std::time::Duration;

use super::local::{DomainReading, DomainStatus, Ending, PauseReason, Presence};
use super::migrate::{CallOff, Move, names_me, wanted_move};
use crate::ids::{Incarnation, NodeName, ZnodeVersion};
use crate::protection::{Protection, stands};
use crate::records::{CephClients, HandOver, Incoming, Owner};
use crate::states::{DaemonState, MigrationMethod, VmState};
use crate::time::BootTime;

/// A guest's record, all as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRecord {
    /// Where it should run.
    pub node: NodeName,
    /// The version of `node`.
    pub node_version: ZnodeVersion,
    /// How it should be, or is.
    pub state: VmState,
    /// The version of `state`.
    pub state_version: ZnodeVersion,
    /// Where a process of it may exist.
    pub owner: Option<Owner>,
    /// The version of `owner`.
    pub owner_version: ZnodeVersion,
    /// The node to which it should return.
    pub last_node: Option<NodeName>,
    /// The version of `last_node`.
    pub last_node_version: ZnodeVersion,
    /// How it may be moved.
    pub migration_method: MigrationMethod,
    /// Where it is moving to.
    pub incoming: Option<Incoming>,
    /// The version of `incoming`.
    pub incoming_version: ZnodeVersion,
}

/// Whether this node may start guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeFitness {
    /// It may.
    Fit,
    /// Its agent has not reached `run`, or is stopping.
    NotRunning,
    /// Its node lease has ended: what it knows is old.
    LeaseEnded,
    /// A fence of this node is on record.
    Fenced,
    /// The store may tell of the past: nothing at all is done about any guest.
    OnHold,
    /// It has lost its storage for so long that its guests are ended and given up, as its settings say.
    StorageLost,
}

/// A shutdown under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownProgress {
    /// When the guest was first asked.
    pub since: BootTime,
    /// When it was last asked.
    pub asked_at: BootTime,
}

/// How often this guest died by itself lately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestartHistory {
    /// Deaths without a request within the last ten minutes.
    pub deaths: u32,
    /// The earliest moment of the next start.
    pub not_before: Option<BootTime>,
}

impl RestartHistory {
    /// So many deaths in ten minutes are no accident: the guest is left alone until somebody looks.
    pub const LIMIT: u32 = 5;
}

/// All that the decision sees.
#[derive(Debug, Clone)]
pub struct VmView<'a> {
    /// Now.
    pub now: BootTime,
    /// This node.
    pub me: &'a NodeName,
    /// This life of its agent.
    pub incarnation: &'a Incarnation,
    /// The guest's record.
    pub record: &'a VmRecord,
    /// Whether a process of it is here.
    pub process: Presence,
    /// What libvirt says of it.
    pub domain: DomainReading,
    /// How its process ended, if it was being sent and is gone.
    pub ending: Ending,
    /// Whether this node may start guests.
    pub fitness: NodeFitness,
    /// The shutdown under way, if one is.
    pub shutdown: Option<ShutdownProgress>,
    /// How long a guest may take to shut down.
    pub shutdown_timeout: Duration,
    /// How often it died lately.
    pub history: RestartHistory,
    /// Whether this boot of this node has been fenced by a proof that covers this guest: others have it, or are about to.
    pub evidence: FenceEvidence,
    /// Whether any of its disks is on the storage cluster.
    pub on_storage: bool,
    /// What stands in the store as this node's state. Others write it too, and it proves nothing.
    pub daemon_state: DaemonState,
}

/// Whether this boot of this node has been fenced by a proof that covers a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceEvidence {
    /// Nothing says so.
    None,
    /// A fence record names this boot, in phase proven or later, and its proof covers the guest.
    OnRecord,
}

/// Why nothing is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Calm {
    /// It runs as it should.
    Runs,
    /// It does not run, as it should.
    Rests,
    /// It is no business of this node.
    NotHere,
    /// It should run here; another node has not given it up.
    OwnedElsewhere(NodeName),
    /// It should run here; its owner is another machine that had this node's name. Only a proof of death frees it.
    OwnedByFormerMachine,
    /// It should run here, but this node may not start guests now.
    NotFit(NodeFitness),
    /// It died a moment ago; the next start comes at that time.
    BackingOff(BootTime),
    /// It is being built by another part of the system.
    BeingBuilt,
    /// It was asked to shut down and has time left.
    ShuttingDown,
    /// QEMU stopped it after an I/O error. It is never resumed: it may be cut off from its storage.
    PausedByIoError,
    /// Somebody paused it.
    PausedByHand,
    /// libvirtd does not answer.
    LibvirtSilent,
    /// Its process is here, but libvirt does not know it.
    LibvirtForgot,
    /// `/proc` could not be read.
    ProcessesUnknown,
    /// It is on its way to that node, which has all of it.
    HandedOver(NodeName),
    /// Nobody owns it, and that node is still on record as its target.
    ExpectedElsewhere(NodeName),
}

/// Why a process is ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestroyReason {
    /// The record says so.
    Requested(VmState),
    /// It did not shut down in time.
    ShutdownTimeout,
    /// Another node owns it.
    OwnedElsewhere(NodeName),
    /// Nobody owns it and it should run elsewhere: another node may start it at any moment.
    Unowned,
    /// It was created by an earlier life of this agent that did not get to record its Ceph clients: no fence could
    /// cover it.
    ClientsNotRecorded,
    /// It has crashed.
    Crashed,
    /// This boot of this node has been fenced.
    Fenced,
    /// It is what is left of a migration, and no licence for it is on record.
    HalfOfMigration,
    /// Its storage can't be reached for so long that it is to start afresh.
    StorageLost,
}

impl fmt::Display for DestroyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DestroyReason::Requested(state) => write!(f, "its state is {state}"),
            DestroyReason::ShutdownTimeout => f.write_str("it did not shut down in time"),
            DestroyReason::OwnedElsewhere(node) => write!(f, "{node} owns it"),
            DestroyReason::Unowned => f.write_str("nobody owns it and it should run elsewhere"),
            DestroyReason::ClientsNotRecorded => f.write_str("its Ceph clients were never recorded"),
            DestroyReason::StorageLost => f.write_str("its storage can't be reached from here"),
            DestroyReason::Crashed => f.write_str("it has crashed"),
            DestroyReason::Fenced => f.write_str("this node has been fenced"),
            DestroyReason::HalfOfMigration => f.write_str("it is left of a migration that has ended"),
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmStep {
    /// Nothing.
    Leave(Calm),
    /// Make this node the owner, then start it.
    Claim,
    /// Its process runs under no owner of this boot, and it should run here: put it on record as ours, its Ceph
    /// clients unknown.
    Adopt,
    /// It runs under an earlier life of this agent: put this life on record.
    Confirm,
    /// Let it run: all is on record.
    Resume,
    /// Ask it to shut down.
    AskToShutDown,
    /// End its process.
    Destroy(DestroyReason),
    /// Its process is gone: give it up, and write `state` if given. `died` if nobody had asked for it.
    Release {
        /// What becomes of it.
        state: Option<VmState>,
        /// Whether it ended by itself.
        died: bool,
    },
    /// It does not run and nobody owns it: write what was asked for.
    Settle(VmState),
    /// It died too often: leave it alone until somebody looks.
    FailDying,
    /// It runs here and should run elsewhere, or is on its way: see to it, as [`super::next_send_step`] says.
    Send,
    /// It is on its way here: see to it, as [`super::next_receive_step`] says.
    Receive,
    /// It was being sent, and its process is gone: say so to the target.
    SayGone,
    /// It can't be moved: put the record back as it was before the request.
    CallOff(CallOff),
    /// A target is on record, this node or that of an earlier boot, and nothing is to come of it: take it off the record.
    GiveBack,
    /// Carry out the order about one of its devices, as [`crate::device_order::next_device_step`] says.
    Device,
    /// Say that the order about one of its devices is not carried out.
    RefuseDevice(String),
}

/// What this node does next about one guest. Same view, same step.
pub fn next_vm_step(view: &VmView<'_>) -> VmStep {
    if view.fitness == NodeFitness::OnHold {
        return VmStep::Leave(Calm::NotFit(NodeFitness::OnHold));
    }
    if view.fitness == NodeFitness::StorageLost && waits_for_storage(view) {
        return VmStep::Destroy(DestroyReason::StorageLost);
    }
    match view.process {
        Presence::Unknown => VmStep::Leave(Calm::ProcessesUnknown),
        Presence::Present => next_with_process(view),
        Presence::Absent => next_without_process(view),
    }
}

/// It should run, and its process is here on record as ours: all it can do is wait for its storage. One that has no disk
/// there waits for nothing.
fn waits_for_storage(view: &VmView<'_>) -> bool {
    view.on_storage
        && view.process == Presence::Present
        && view.record.state == VmState::Start
        && view.record.node == *view.me
        && view.record.incoming.is_none()
        && matches!(ownership(view), Ownership::ThisBoot(owner) if owner.incarnation == *view.incarnation)
}

/// Whose the guest is, seen from this node.
enum Ownership<'a> {
    Nobody,
    ThisBoot(&'a Owner),
    EarlierBoot,
    FormerMachine,
    Other(&'a NodeName),
}

fn ownership<'a>(view: &VmView<'a>) -> Ownership<'a> {
    match &view.record.owner {
        None => Ownership::Nobody,
        Some(owner) if owner.node != *view.me => Ownership::Other(&owner.node),
        Some(owner) if owner.incarnation.same_boot(view.incarnation) => Ownership::ThisBoot(owner),
        Some(owner) if owner.incarnation.same_machine(view.incarnation) => Ownership::EarlierBoot,
        Some(_) => Ownership::FormerMachine,
    }
}

/// Whether this node is where the guest is moving to.
fn comes_here(view: &VmView<'_>) -> bool {
    let incoming = view.record.incoming.as_ref();
    incoming.is_some_and(|incoming| names_me(incoming, view.me, view.incarnation))
}

fn fenced(view: &VmView<'_>) -> bool {
    match view.evidence {
        FenceEvidence::OnRecord => true,
        // Another node's word that this one is dead: it is answered by writing `run`, and ends no guest.
        FenceEvidence::None => {
            !stands(Protection::DeadIsNoEvidence) && view.daemon_state == DaemonState::Dead
        }
    }
}

fn next_with_process(view: &VmView<'_>) -> VmStep {
    let belongs_here = view.record.node == *view.me;
    if fenced(view) {
        return VmStep::Destroy(DestroyReason::Fenced);
    }
    match ownership(view) {
        Ownership::Other(_) if comes_here(view) => VmStep::Receive,
        Ownership::Other(node) => VmStep::Destroy(DestroyReason::OwnedElsewhere(node.clone())),
        Ownership::FormerMachine => VmStep::Destroy(DestroyReason::OwnedElsewhere(view.me.clone())),
        // Its source was freed without this half's knowledge: who owns it next starts it afresh.
        Ownership::Nobody if comes_here(view) => VmStep::Destroy(DestroyReason::HalfOfMigration),
        Ownership::Nobody | Ownership::EarlierBoot if belongs_here => next_unowned_process(view),
        Ownership::Nobody | Ownership::EarlierBoot => VmStep::Destroy(DestroyReason::Unowned),
        Ownership::ThisBoot(owner) if owner.ceph_clients == CephClients::Unrecorded => {
            VmStep::Destroy(DestroyReason::ClientsNotRecorded)
        }
        Ownership::ThisBoot(owner) if owner.incarnation != *view.incarnation => VmStep::Confirm,
        Ownership::ThisBoot(_) if view.record.incoming.is_some() => VmStep::Send,
        Ownership::ThisBoot(_) if matches!(wanted_move(view.record, view.me), Move::Live(_)) => VmStep::Send,
        Ownership::ThisBoot(owner) => match view.record.state {
            VmState::Start | VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate if belongs_here => {
                next_running(view, &owner.ceph_clients)
            }
            VmState::Start
            | VmState::Migrate
            | VmState::MigrateLive
            | VmState::Unmigrate
            | VmState::Shutdown
            | VmState::Restart => next_shutting_down(view),
            VmState::Provision | VmState::Import | VmState::Restore => VmStep::Leave(Calm::BeingBuilt),
            state
            @ (VmState::Stop | VmState::Disable | VmState::Fail | VmState::Mirror | VmState::Delete) => {
                VmStep::Destroy(DestroyReason::Requested(state))
            }
        },
    }
}

/// A process of it is here, it belongs here, and nobody of this boot answers for it.
fn next_unowned_process(view: &VmView<'_>) -> VmStep {
    match view.domain {
        DomainReading::Unknown => VmStep::Leave(Calm::LibvirtSilent),
        // Created by a start that was given up while libvirt was still at it: it has never run.
        DomainReading::Is(DomainStatus::Paused(PauseReason::StartingUp)) => {
            VmStep::Destroy(DestroyReason::ClientsNotRecorded)
        }
        // A side of a migration that nobody answers for any more: the other side may have run.
        DomainReading::Is(DomainStatus::Paused(PauseReason::Migration)) => {
            VmStep::Destroy(DestroyReason::HalfOfMigration)
        }
        DomainReading::Absent
        | DomainReading::Is(
            DomainStatus::Running
            | DomainStatus::Paused(PauseReason::IoError | PauseReason::Other)
            | DomainStatus::ShuttingDown
            | DomainStatus::Off
            | DomainStatus::Crashed,
        ) => match view.fitness {
            NodeFitness::Fit => VmStep::Adopt,
            // Whoever is being fenced, or knows only what is old, puts itself on record for nothing: a proof that is being
            // sought would not cover it. The process is left as it is.
            unfit @ (NodeFitness::NotRunning
            | NodeFitness::LeaseEnded
            | NodeFitness::Fenced
            | NodeFitness::OnHold
            | NodeFitness::StorageLost) => VmStep::Leave(Calm::NotFit(unfit)),
        },
    }
}

/// It should run, and a process of it is here on record.
fn next_running(view: &VmView<'_>, clients: &CephClients) -> VmStep {
    match view.domain {
        DomainReading::Unknown => VmStep::Leave(Calm::LibvirtSilent),
        DomainReading::Absent | DomainReading::Is(DomainStatus::Off) => VmStep::Leave(Calm::LibvirtForgot),
        DomainReading::Is(DomainStatus::Running) if view.record.state != VmState::Start => {
            // A migration that ended here, or was asked for to where it runs already.
            VmStep::Settle(VmState::Start)
        }
        DomainReading::Is(DomainStatus::Running | DomainStatus::ShuttingDown) => VmStep::Leave(Calm::Runs),
        DomainReading::Is(DomainStatus::Paused(PauseReason::StartingUp)) => match clients {
            CephClients::Recorded(_) => VmStep::Resume,
            // Adopted while it ran, and paused by somebody since: its clients are not on record, so it is not for us to
            // let it run; and it may be somebody's work.
            CephClients::Unrecorded | CephClients::Unknown => VmStep::Leave(Calm::PausedByHand),
        },
        DomainReading::Is(DomainStatus::Paused(PauseReason::IoError)) => VmStep::Leave(Calm::PausedByIoError),
        // It was sent away, and nobody has taken it on: what the target got of it may have run. Started afresh, never
        // resumed.
        DomainReading::Is(DomainStatus::Paused(PauseReason::Migration)) => VmStep::Send,
        DomainReading::Is(DomainStatus::Paused(PauseReason::Other)) => VmStep::Leave(Calm::PausedByHand),
        DomainReading::Is(DomainStatus::Crashed) => VmStep::Destroy(DestroyReason::Crashed),
    }
}

/// How often a guest that does not react is asked again: some lose the first press while they boot.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);

fn next_shutting_down(view: &VmView<'_>) -> VmStep {
    let Some(progress) = view.shutdown else {
        return VmStep::AskToShutDown;
    };
    if view.now >= progress.since + view.shutdown_timeout {
        return VmStep::Destroy(DestroyReason::ShutdownTimeout);
    }
    if view.now >= progress.asked_at + ASK_AGAIN_AFTER {
        return VmStep::AskToShutDown;
    }
    VmStep::Leave(Calm::ShuttingDown)
}

fn next_without_process(view: &VmView<'_>) -> VmStep {
    let belongs_here = view.record.node == *view.me;
    let incoming = view.record.incoming.as_ref();
    let names_this_node = incoming.is_some_and(|incoming| incoming.target == *view.me);
    // Of an earlier boot of this machine nothing is left that could receive. Another machine of this name is none of
    // ours: a proof of its death frees the guest.
    let earlier_boot = matches!(ownership(view), Ownership::EarlierBoot);
    let stale = names_this_node
        && !comes_here(view)
        && incoming.is_some_and(|incoming| incoming.incarnation.same_machine(view.incarnation));
    match ownership(view) {
        Ownership::Other(_) if comes_here(view) && !fenced(view) => VmStep::Receive,
        _ if names_this_node && (comes_here(view) || stale) => VmStep::GiveBack,
        Ownership::Other(node) if belongs_here && view.record.state == VmState::Start => {
            if stands(Protection::StartNeedsOwner) {
                VmStep::Leave(Calm::OwnedElsewhere(node.clone()))
            } else {
                next_unowned(view)
            }
        }
        Ownership::Other(_) => VmStep::Leave(Calm::NotHere),
        Ownership::FormerMachine => VmStep::Leave(Calm::OwnedByFormerMachine),
        Ownership::ThisBoot(_) | Ownership::EarlierBoot => match incoming {
            Some(incoming) => match incoming.hand_over {
                HandOver::SourceGone => VmStep::Leave(Calm::HandedOver(incoming.target.clone())),
                HandOver::Offered | HandOver::Accepted if may_have_run_on(view, earlier_boot) => {
                    match wanted_move(view.record, view.me) {
                        Move::Live(_) => VmStep::CallOff(CallOff::ProcessEnded),
                        Move::Stay | Move::Cold(_) => VmStep::GiveBack,
                    }
                }
                HandOver::Offered | HandOver::Accepted => VmStep::SayGone,
            },
            // It was being sent, or died before that; the target has nothing of it, so it starts again here.
            None if matches!(wanted_move(view.record, view.me), Move::Live(_)) => {
                VmStep::CallOff(CallOff::ProcessEnded)
            }
            None => next_gone(view),
        },
        Ownership::Nobody if belongs_here => match incoming {
            Some(incoming) => VmStep::Leave(Calm::ExpectedElsewhere(incoming.target.clone())),
            None => next_unowned(view),
        },
        Ownership::Nobody => VmStep::Leave(Calm::NotHere),
    }
}

/// It was being sent, and nobody saw what became of it after the switch-over: it may have run on here and written, and
/// have ended by itself or with its boot. What the target has of it may be older, so it is started afresh.
fn may_have_run_on(view: &VmView<'_>, earlier_boot: bool) -> bool {
    if earlier_boot {
        return stands(Protection::TakeOverOnlyAfterSourceGone);
    }
    view.ending == Ending::Unclear && stands(Protection::SourceGoneOnlyIfSent)
}

/// We own it and its process is gone.
fn next_gone(view: &VmView<'_>) -> VmStep {
    let release = |state| VmStep::Release { state, died: false };
    match view.record.state {
        VmState::Shutdown => release(Some(VmState::Stop)),
        VmState::Restart => release(Some(VmState::Start)),
        VmState::Start => {
            let asked = view.shutdown.is_some() || view.record.node != *view.me;
            let rebooted = matches!(ownership(view), Ownership::EarlierBoot);
            // A start that was broken off: the store failed, or the agent ended. That is no death of the guest's.
            let never_ran = view
                .record
                .owner
                .as_ref()
                .is_some_and(|owner| owner.ceph_clients == CephClients::Unrecorded);
            VmStep::Release {
                state: None,
                died: !asked && !rebooted && !never_ran,
            }
        }
        VmState::Stop
        | VmState::Disable
        | VmState::Fail
        | VmState::Migrate
        | VmState::MigrateLive
        | VmState::Unmigrate
        | VmState::Provision
        | VmState::Import
        | VmState::Restore
        | VmState::Mirror
        | VmState::Delete => release(None),
    }
}

/// Nobody owns it, it belongs here and does not run.
fn next_unowned(view: &VmView<'_>) -> VmStep {
    match view.record.state {
        VmState::Start if view.history.deaths >= RestartHistory::LIMIT => VmStep::FailDying,
        VmState::Start if view.fitness != NodeFitness::Fit => VmStep::Leave(Calm::NotFit(view.fitness)),
        VmState::Start => match view.history.not_before {
            Some(not_before) if view.now < not_before => VmStep::Leave(Calm::BackingOff(not_before)),
            Some(_) | None => VmStep::Claim,
        },
        VmState::Restart | VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => {
            VmStep::Settle(VmState::Start)
        }
        VmState::Shutdown => VmStep::Settle(VmState::Stop),
        VmState::Stop | VmState::Disable | VmState::Fail | VmState::Mirror | VmState::Delete => {
            VmStep::Leave(Calm::Rests)
        }
        VmState::Provision | VmState::Import | VmState::Restore => VmStep::Leave(Calm::BeingBuilt),
    }
}

#[cfg(test)]
mod tests;
