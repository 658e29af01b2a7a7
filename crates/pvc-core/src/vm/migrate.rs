//! Moving a guest that runs from its owner to another node.
//!
//! ```text
//!   source (owner)                       /domains/U/incoming          target
//!   ──────────────                       ───────────────────          ──────
//!   target fit? ────────────────────────▶ offered
//!                                         accepted ◀──────────────── fit, no process of it here
//!   libvirt sends, the guest runs on      accepted + clients ◀────── its half has opened its volumes
//!   switch-over: paused, process ends
//!   gone, because it was sent? ─────────▶ source_gone
//!                                         (empty), owner = target ◀─ its half is complete: one transaction
//!                                                                    resume
//! ```
//!
//! The target's vCPUs stand still (`VIR_MIGRATE_PAUSED`) until the target is owner, and it becomes owner only when the
//! source has said that its process is gone. libvirt alone would not do: when the answer to its last question gets lost
//! it lets the source run again although the target may run. A proof of the source's death would not do either: it says
//! that the source can't write now, not that it has not written since the switch-over, and the target's memory would be
//! older than the volumes then. For the same reason the source says so only if it knows that its process ended because
//! it had been sent ([`Ending::Sent`]): one that was let run again may have ended by itself since.
//!
//! Both sides step level by level from what they read; a side that is started anew goes on where its predecessor was.

use std::time::Duration;

use super::decide::VmRecord;
use super::local::{DomainReading, DomainStatus, Ending, PauseReason, Presence};
use crate::ids::{Incarnation, NodeName};
use crate::protection::{Protection, stands};
use crate::records::{CephClients, HandOver, Incoming};
use crate::states::{DaemonState, DomainState, MigrationMethod, VmState};
use crate::time::BootTime;

/// How often a live migration is tried before it is called off.
pub const TRIES: u32 = 3;
/// Between two tries.
pub const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long the target may take to accept.
pub const ACCEPT_WITHIN: Duration = Duration::from_secs(5);
/// A migration that has sent nothing for so long is cancelled.
pub const STALLED_AFTER: Duration = Duration::from_secs(10);
/// A try that takes longer is cancelled: the guest changes its memory faster than the network carries it.
pub const TRY_WITHIN: Duration = Duration::from_secs(3600);
/// How long libvirt's answer is waited for once the guest's process is gone: libvirt ends it, and answers then. The guest
/// runs nowhere meanwhile.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long the target waits for its half to be complete once the source is gone. libvirt completes it first.
pub const COMPLETE_WITHIN: Duration = Duration::from_secs(5);

/// A move that the record asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move<'a> {
    /// None.
    Stay,
    /// While it runs, to that node.
    Live(&'a NodeName),
    /// Shut down here, started there.
    Cold(&'a NodeName),
}

/// What move from `me` the record asks for. How is the guest's own choice first: a guest that was set to `live` is never
/// shut down for it, and only one that was set to `shutdown` is.
pub fn wanted_move<'a>(record: &'a VmRecord, me: &NodeName) -> Move<'a> {
    if record.node == *me {
        return Move::Stay;
    }
    match record.state {
        VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => match record.migration_method {
            MigrationMethod::Shutdown => Move::Cold(&record.node),
            MigrationMethod::Live | MigrationMethod::None => Move::Live(&record.node),
        },
        VmState::Start
        | VmState::Restart
        | VmState::Shutdown
        | VmState::Stop
        | VmState::Disable
        | VmState::Fail
        | VmState::Provision
        | VmState::Import
        | VmState::Restore
        | VmState::Mirror
        | VmState::Delete => Move::Stay,
    }
}

/// Where the guest returns to when a move is rolled back: the values that `node` and `last_node` had before the request.
///
/// A migration writes the source into `last_node`, which was empty before, or leaves an earlier home there; an
/// unmigration (state `unmigrate`) takes the home from `last_node` to `node`; a move leaves `last_node` empty.
pub fn placement_before(record: &VmRecord, source: &NodeName) -> (NodeName, Option<NodeName>) {
    let last_node = match &record.last_node {
        Some(last) if last == source => None,
        Some(home) => Some(home.clone()),
        None if record.state == VmState::Unmigrate => Some(record.node.clone()),
        None => None,
    };
    (source.clone(), last_node)
}

/// Why a node can't be the target of a migration now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetUnfit {
    /// It is the source.
    Itself,
    /// Its agent does not run.
    NotRunning(DaemonState),
    /// It does not take guests.
    NotReady(DomainState),
    /// It is being fenced, or was and has not come back.
    Fenced,
    /// It has no lease: it was never registered.
    NoLease,
}

impl std::fmt::Display for TargetUnfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TargetUnfit::Itself => f.write_str("it runs there already"),
            TargetUnfit::NotRunning(state) => write!(f, "its agent is in state {state}"),
            TargetUnfit::NotReady(state) => write!(f, "it takes no guests (it is {state})"),
            TargetUnfit::Fenced => f.write_str("it is being fenced"),
            TargetUnfit::NoLease => f.write_str("it has no lease"),
        }
    }
}

/// What the source knows of the target. That its lease moves shows in its acceptance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetView {
    /// The target.
    pub node: NodeName,
    /// Its agent's state.
    pub daemon_state: DaemonState,
    /// Whether it takes guests.
    pub domain_state: DomainState,
    /// The life of its agent, from its lease.
    pub incarnation: Option<Incarnation>,
    /// Whether a fence record bars it.
    pub barred: bool,
}

/// Whether `target` can receive a guest from `me`. A node that is being filled again takes its own guests back.
///
/// # Errors
/// Why not.
pub fn judge_target<'a>(target: &'a TargetView, me: &NodeName) -> Result<&'a Incarnation, TargetUnfit> {
    if target.node == *me {
        return Err(TargetUnfit::Itself);
    }
    if target.barred {
        return Err(TargetUnfit::Fenced);
    }
    if target.daemon_state != DaemonState::Run {
        return Err(TargetUnfit::NotRunning(target.daemon_state));
    }
    match target.domain_state {
        DomainState::Ready | DomainState::Unflush => {}
        state @ (DomainState::Flush | DomainState::Flushed | DomainState::FenceFlush) => {
            return Err(TargetUnfit::NotReady(state));
        }
    }
    target.incarnation.as_ref().ok_or(TargetUnfit::NoLease)
}

/// Whether libvirt has a migration of the guest under way here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobReading {
    /// libvirt does not answer.
    Unknown,
    /// None.
    Idle,
    /// One, which has sent so much.
    Sending {
        /// Bytes sent so far.
        bytes_sent: u64,
    },
}

/// The guest on the source, as the source sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceSide {
    /// Something can't be read.
    Unknown,
    /// It has no process here.
    Gone,
    /// It is being sent.
    Sending {
        /// Bytes sent so far.
        bytes_sent: u64,
    },
    /// It runs, and is not being sent.
    Running,
    /// Its vCPUs stand still after a migration that has ended. The target may have all of it.
    SwitchedOver,
    /// It can't be sent as it is.
    Unsendable,
}

/// Puts together what is known of the guest on the source.
pub fn source_side(process: Presence, domain: DomainReading, job: JobReading) -> SourceSide {
    match (process, domain, job) {
        (Presence::Unknown, _, _) => SourceSide::Unknown,
        (Presence::Absent, _, _) => SourceSide::Gone,
        (Presence::Present, _, JobReading::Sending { bytes_sent }) => SourceSide::Sending { bytes_sent },
        (Presence::Present, DomainReading::Unknown, _) | (Presence::Present, _, JobReading::Unknown) => {
            SourceSide::Unknown
        }
        (Presence::Present, DomainReading::Is(status), JobReading::Idle) => match status {
            DomainStatus::Running | DomainStatus::ShuttingDown => SourceSide::Running,
            DomainStatus::Paused(PauseReason::Migration) => SourceSide::SwitchedOver,
            DomainStatus::Paused(PauseReason::StartingUp | PauseReason::IoError | PauseReason::Other)
            | DomainStatus::Off
            | DomainStatus::Crashed => SourceSide::Unsendable,
        },
        (Presence::Present, DomainReading::Absent, JobReading::Idle) => SourceSide::Unsendable,
    }
}

/// What the source has done about the present offer; forgotten when its agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is not of this life's making, or has been sent: what ends it is a failure.
    Spent,
    /// Made at that time, not sent yet.
    Fresh(BootTime),
}

/// All that the source decides on.
#[derive(Debug)]
pub struct SendView<'a> {
    /// Now.
    pub now: BootTime,
    /// This node.
    pub me: &'a NodeName,
    /// The guest's record.
    pub record: &'a VmRecord,
    /// The guest here.
    pub side: SourceSide,
    /// How its process ended, if it is gone.
    pub ending: Ending,
    /// Until when libvirt's answer to the order to send it is waited for, if it is gone and the answer is due.
    pub answer_due: Option<BootTime>,
    /// The node that the record asks for, or that is the target on record.
    pub target: Option<&'a TargetView>,
    /// What was done about the offer on record.
    pub offer: Offer,
    /// Tries that have failed.
    pub tries: u32,
    /// No new try before.
    pub not_before: BootTime,
    /// When the present try began, and when it last sent anything.
    pub sending: Option<Progress>,
    /// Whether this node may migrate: its lease holds, no fence is on record.
    pub fit: bool,
    /// Whether this agent has been asked to stop: what it is sending is cancelled, and its next life sends it again.
    pub stopping: bool,
}

/// How a try goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// When it began.
    pub since: BootTime,
    /// When it last sent anything.
    pub moved_at: BootTime,
}

/// Why a migration under way is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// The request was taken back.
    Withdrawn,
    /// The target is not on record any more: it, or a recovery, took it off.
    NotOnRecord,
    /// The target is being fenced.
    TargetFenced,
    /// The target's agent was stopped in good order: nobody there would let the guest run.
    TargetStops,
    /// This agent was.
    Stopping,
    /// Nothing was sent for [`STALLED_AFTER`].
    Stalled,
    /// It took longer than [`TRY_WITHIN`].
    TookTooLong,
}

impl std::fmt::Display for CancelReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            CancelReason::Withdrawn => "the request was taken back",
            CancelReason::NotOnRecord => "the target has given it up",
            CancelReason::TargetFenced => "the target is being fenced",
            CancelReason::TargetStops => "the target's agent is being stopped",
            CancelReason::Stopping => "this node's agent is being stopped",
            CancelReason::Stalled => "nothing was sent for 10 s",
            CancelReason::TookTooLong => "it took longer than an hour",
        })
    }
}

/// Why a migration is called off and all put back as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOff {
    /// The target can't take it.
    Target(TargetUnfit),
    /// The target did not accept within [`ACCEPT_WITHIN`].
    NotAccepted,
    /// It is paused, or crashed, or libvirt does not know it.
    Unsendable,
    /// All tries have failed.
    TriesFailed,
    /// Its process ended before the target had all of it.
    ProcessEnded,
}

impl std::fmt::Display for CallOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallOff::Target(unfit) => write!(f, "the target can't take it: {unfit}"),
            CallOff::NotAccepted => f.write_str("the target did not answer within 5 s"),
            CallOff::Unsendable => f.write_str("it is not running, so that it can't be sent"),
            CallOff::TriesFailed => f.write_str("three tries failed"),
            CallOff::ProcessEnded => f.write_str("it ended while it was being sent"),
        }
    }
}

/// What the source does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendStep {
    /// Nothing is left to do here.
    Done,
    /// Look again soon.
    Wait,
    /// Put the target on record.
    Offer,
    /// Let libvirt send it.
    Send,
    /// Stop sending.
    Cancel(CancelReason),
    /// A try failed: take the target off the record, and try again later.
    TakeBack,
    /// The request was taken back: take the target off the record, nothing else.
    Withdraw,
    /// Its process has ended, and what the target has of it may be older than the volumes: take the target off the
    /// record. It is not to be moved any more.
    Discard,
    /// Put everything back as it was before the request.
    CallOff(CallOff),
    /// The process is gone: say so.
    SayGone,
    /// End the process: it must never run again.
    EndProcess,
    /// Let it run again. Wrong: only a simulation that takes [`Protection::SourceNeverResumed`] out gets here.
    Resume,
}

/// What the source of a migration does next. Same view, same step.
pub fn next_send_step(view: &SendView<'_>) -> SendStep {
    match &view.record.incoming {
        None => next_without_offer(view),
        Some(incoming) => next_with_offer(view, incoming),
    }
}

fn switched_over() -> SendStep {
    if stands(Protection::SourceNeverResumed) {
        SendStep::EndProcess
    } else {
        SendStep::Resume
    }
}

fn next_without_offer(view: &SendView<'_>) -> SendStep {
    match view.side {
        SourceSide::Unknown => SendStep::Wait,
        SourceSide::Gone => SendStep::Done,
        SourceSide::Sending { .. } => SendStep::Cancel(CancelReason::NotOnRecord),
        SourceSide::SwitchedOver => switched_over(),
        SourceSide::Running => match (wanted_move(view.record, view.me), view.target) {
            (Move::Stay | Move::Cold(_), _) | (Move::Live(_), None) => SendStep::Done,
            (Move::Live(_), Some(_)) if view.tries >= TRIES => SendStep::CallOff(CallOff::TriesFailed),
            // The record asks for it still: the next life sees to it.
            (Move::Live(_), Some(_)) if view.stopping => SendStep::Done,
            (Move::Live(_), Some(_)) if view.now < view.not_before || !view.fit => SendStep::Wait,
            (Move::Live(_), Some(target)) => match judge_target(target, view.me) {
                Ok(_) => SendStep::Offer,
                Err(unfit) => SendStep::CallOff(CallOff::Target(unfit)),
            },
        },
        SourceSide::Unsendable => match wanted_move(view.record, view.me) {
            Move::Live(_) => SendStep::CallOff(CallOff::Unsendable),
            Move::Stay | Move::Cold(_) => SendStep::Done,
        },
    }
}

fn next_with_offer(view: &SendView<'_>, incoming: &Incoming) -> SendStep {
    let wanted = wanted_move(view.record, view.me) == Move::Live(&incoming.target);
    match view.side {
        SourceSide::Unknown => SendStep::Wait,
        SourceSide::Gone => match incoming.hand_over {
            HandOver::SourceGone => SendStep::Done,
            HandOver::Offered | HandOver::Accepted => next_when_gone(view),
        },
        SourceSide::SwitchedOver => switched_over(),
        // We have said that it is gone: the target may be owner at any moment.
        SourceSide::Running | SourceSide::Sending { .. } | SourceSide::Unsendable
            if incoming.hand_over == HandOver::SourceGone =>
        {
            SendStep::EndProcess
        }
        SourceSide::Sending { .. } => next_sending(view, wanted),
        SourceSide::Running | SourceSide::Unsendable if !wanted => SendStep::Withdraw,
        SourceSide::Unsendable => SendStep::CallOff(CallOff::Unsendable),
        SourceSide::Running => {
            let Offer::Fresh(offered_at) = view.offer else {
                return SendStep::TakeBack;
            };
            if view.stopping {
                return SendStep::TakeBack;
            }
            match (incoming.hand_over, view.target) {
                (HandOver::Accepted, Some(target)) => match judge_target(target, view.me) {
                    Err(unfit) => SendStep::CallOff(CallOff::Target(unfit)),
                    // It has been started anew, and must accept for itself.
                    Ok(life) if !life.same_boot(&incoming.incarnation) => SendStep::TakeBack,
                    Ok(_) if !view.fit => SendStep::Wait,
                    Ok(_) => SendStep::Send,
                },
                (HandOver::Offered | HandOver::Accepted | HandOver::SourceGone, _)
                    if view.now >= offered_at + ACCEPT_WITHIN =>
                {
                    SendStep::CallOff(CallOff::NotAccepted)
                }
                (HandOver::Offered | HandOver::Accepted | HandOver::SourceGone, _) => SendStep::Wait,
            }
        }
    }
}

/// Its process has ended. What the target has of it may be resumed only if it has not run since the switch-over.
fn next_when_gone(view: &SendView<'_>) -> SendStep {
    if view.ending == Ending::Sent || !stands(Protection::SourceGoneOnlyIfSent) {
        return SendStep::SayGone;
    }
    if view.answer_due.is_some_and(|due| view.now < due) {
        return SendStep::Wait;
    }
    match wanted_move(view.record, view.me) {
        Move::Live(_) => SendStep::CallOff(CallOff::ProcessEnded),
        Move::Stay | Move::Cold(_) => SendStep::Discard,
    }
}

fn next_sending(view: &SendView<'_>, wanted: bool) -> SendStep {
    if !wanted {
        return SendStep::Cancel(CancelReason::Withdrawn);
    }
    if view.target.is_some_and(|target| target.barred) {
        return SendStep::Cancel(CancelReason::TargetFenced);
    }
    // One that was killed is started anew and goes on; one that was stopped is not.
    if view.target.is_some_and(|target| match target.daemon_state {
        DaemonState::Shutdown | DaemonState::Stop => true,
        DaemonState::Run | DaemonState::Init | DaemonState::Dead | DaemonState::Fenced => false,
    }) {
        return SendStep::Cancel(CancelReason::TargetStops);
    }
    if view.stopping {
        return SendStep::Cancel(CancelReason::Stopping);
    }
    match view.sending {
        Some(progress) if view.now >= progress.since + TRY_WITHIN => {
            SendStep::Cancel(CancelReason::TookTooLong)
        }
        Some(progress) if view.now >= progress.moved_at + STALLED_AFTER => {
            SendStep::Cancel(CancelReason::Stalled)
        }
        Some(_) | None => SendStep::Wait,
    }
}

/// The target's half of a guest, as the target sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSide {
    /// Something can't be read.
    Unknown,
    /// It has no process here.
    Absent,
    /// It is receiving.
    Receiving,
    /// It has received everything, and has never run.
    Complete,
    /// It is something else: running, crashed, stopped by an error.
    Odd,
}

/// Puts together what is known of the guest on the target.
pub fn target_side(process: Presence, domain: DomainReading) -> TargetSide {
    match (process, domain) {
        (Presence::Unknown, _) => TargetSide::Unknown,
        (Presence::Absent, _) => TargetSide::Absent,
        (Presence::Present, DomainReading::Unknown) => TargetSide::Unknown,
        // libvirt lists it once it is made.
        (Presence::Present, DomainReading::Absent) => TargetSide::Receiving,
        (Presence::Present, DomainReading::Is(status)) => match status {
            DomainStatus::Paused(PauseReason::Migration) | DomainStatus::Off => TargetSide::Receiving,
            DomainStatus::Paused(PauseReason::StartingUp) => TargetSide::Complete,
            DomainStatus::Running
            | DomainStatus::ShuttingDown
            | DomainStatus::Paused(PauseReason::IoError | PauseReason::Other)
            | DomainStatus::Crashed => TargetSide::Odd,
        },
    }
}

/// Whether the source can still run the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceFate {
    /// Nothing says that it can't.
    Alive,
    /// Its boot has been proven dead.
    ProvenDead,
}

/// All that the target decides on.
#[derive(Debug)]
pub struct ReceiveView<'a> {
    /// Now.
    pub now: BootTime,
    /// This node.
    pub me: &'a NodeName,
    /// This life of its agent.
    pub incarnation: &'a Incarnation,
    /// The guest's record.
    pub record: &'a VmRecord,
    /// The guest here.
    pub side: TargetSide,
    /// Whether this node may receive: its lease holds, its agent runs, no fence of it is on record.
    pub fit: bool,
    /// Whether this agent has been asked to stop: it takes over what has been given away to it, and nothing else.
    pub stopping: bool,
    /// Whether a fence of this node is on record that bars it.
    pub barred: bool,
    /// The source.
    pub source: SourceFate,
    /// Whether the clients on record are those of the process that is here now.
    pub clients_seen: bool,
    /// Since when the source is gone and the half not complete.
    pub waiting_since: Option<BootTime>,
}

/// What the target does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveStep {
    /// Nothing is left to do here.
    Done,
    /// Look again soon.
    Wait,
    /// Say that it may be sent.
    Accept,
    /// Put the half's Ceph clients on record.
    RecordClients,
    /// End the half.
    EndHalf,
    /// Take this node off the record: there is no half here, and there will be none.
    GiveBack,
    /// Become owner, then let it run.
    TakeOver,
}

/// Whether `incoming` names this boot of this node.
pub fn names_me(incoming: &Incoming, me: &NodeName, incarnation: &Incarnation) -> bool {
    incoming.target == *me && incoming.incarnation.same_boot(incarnation)
}

/// What the target of a migration does next. Same view, same step.
pub fn next_receive_step(view: &ReceiveView<'_>) -> ReceiveStep {
    let Some(incoming) = view
        .record
        .incoming
        .as_ref()
        .filter(|incoming| incoming.target == *view.me)
    else {
        // Whatever is here has no licence any more: the next look ends it.
        return ReceiveStep::Done;
    };
    let source = view.record.owner.as_ref().filter(|owner| owner.node != *view.me);
    let may_go_on = names_me(incoming, view.me, view.incarnation) && source.is_some() && !view.barred;
    match view.side {
        TargetSide::Unknown => ReceiveStep::Wait,
        TargetSide::Absent if !may_go_on => ReceiveStep::GiveBack,
        TargetSide::Absent => match (incoming.hand_over, view.source) {
            (HandOver::Offered | HandOver::Accepted, SourceFate::Alive) if view.stopping => {
                ReceiveStep::GiveBack
            }
            (HandOver::Offered, SourceFate::Alive) if view.fit => ReceiveStep::Accept,
            (HandOver::Offered | HandOver::Accepted, SourceFate::Alive) => ReceiveStep::Wait,
            (HandOver::SourceGone, _) | (_, SourceFate::ProvenDead) => ReceiveStep::GiveBack,
        },
        TargetSide::Odd => ReceiveStep::EndHalf,
        TargetSide::Receiving | TargetSide::Complete
            if !may_go_on || incoming.hand_over == HandOver::Offered =>
        {
            ReceiveStep::EndHalf
        }
        TargetSide::Receiving => match (incoming.hand_over, view.source) {
            (_, SourceFate::ProvenDead) => ReceiveStep::EndHalf,
            (HandOver::SourceGone, SourceFate::Alive) => match view.waiting_since {
                Some(since) if view.now >= since + COMPLETE_WITHIN => ReceiveStep::EndHalf,
                Some(_) | None => ReceiveStep::Wait,
            },
            // The guest goes on at its source.
            (HandOver::Offered | HandOver::Accepted, SourceFate::Alive) if view.stopping => {
                ReceiveStep::EndHalf
            }
            (HandOver::Offered | HandOver::Accepted, SourceFate::Alive) => record_clients(view),
        },
        TargetSide::Complete => match (incoming.hand_over, view.source) {
            (HandOver::SourceGone, _) => take_over(view),
            // That it is dead says that it can't write now. It may have been let run after the switch-over and have
            // written since, so what is here may be older than the volumes: it is started afresh.
            (HandOver::Offered | HandOver::Accepted, SourceFate::ProvenDead)
                if stands(Protection::TakeOverOnlyAfterSourceGone) =>
            {
                ReceiveStep::EndHalf
            }
            (HandOver::Offered | HandOver::Accepted, SourceFate::ProvenDead) => take_over(view),
            (HandOver::Offered | HandOver::Accepted, SourceFate::Alive) => record_clients(view),
        },
    }
}

fn take_over(view: &ReceiveView<'_>) -> ReceiveStep {
    match clients_recorded(view) {
        false => ReceiveStep::RecordClients,
        true if view.fit => ReceiveStep::TakeOver,
        true => ReceiveStep::Wait,
    }
}

fn clients_recorded(view: &ReceiveView<'_>) -> bool {
    let incoming = view.record.incoming.as_ref();
    let recorded = incoming.is_some_and(|incoming| matches!(incoming.ceph_clients, CephClients::Recorded(_)));
    recorded && view.clients_seen
}

fn record_clients(view: &ReceiveView<'_>) -> ReceiveStep {
    if clients_recorded(view) {
        ReceiveStep::Wait
    } else {
        ReceiveStep::RecordClients
    }
}

#[cfg(test)]
mod tests;
