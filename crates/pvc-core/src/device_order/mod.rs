//! Attaching a device to a guest that runs, and detaching one: the order, and what its node does next about it.
//!
//! A volume that QEMU opens while the guest runs is a Ceph client that no fence knows of. So the vCPUs of the guest are
//! suspended first, the device is attached, the new client is found among the volume's watchers and put on record
//! together with the order's progress, and only then the vCPUs run again. What can't be brought to that end is taken off
//! again; if it does not come off, the guest is ended. Nothing that is merely unknown ends a guest: it stays suspended.
//!
//! ```text
//!  Ordered ──▶ Working ──▶ Recorded ──▶ Done
//!     │           │  on record: who used the volume before, and that the vCPUs stand still on this order's account
//!     └──▶ Failed ◀┘
//! ```
//!
//! Only what an order suspended is let run again, and while an order is at work nothing else lets the guest run: an agent
//! that dies in between leaves an order in `Working` or `Recorded`, and its next life goes on from what it sees.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{CephClient, NodeName};
use crate::protection::{Protection, stands};
use crate::records::{CephClients, Owner, Record};
use crate::vm::{Calm, DomainReading, DomainStatus, NodeFitness, PauseReason, VmStep, VmView};

/// An order to attach or detach a device, and what has become of it. A guest has one at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceOrder {
    /// Tells it from every other order: a fresh UUID.
    pub id: String,
    /// Who gave it: the name of the user or token.
    pub by: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// The node that carries it out: where the guest ran.
    pub node: NodeName,
    /// What is to be done.
    pub action: DeviceAction,
    /// The device's XML.
    pub xml: String,
    /// How far it is.
    pub state: DeviceOrderState,
}

impl Record for DeviceOrder {}

/// What is to be done with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceAction {
    /// Plug it in.
    Attach,
    /// Pull it out.
    Detach,
}

/// How far an order is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum DeviceOrderState {
    /// Nobody has taken it up.
    Ordered,
    /// Something may have been done to the guest.
    Working {
        /// The claim under which the guest ran: another one is another process.
        epoch: u64,
        /// Who had the volume open before.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        before: Vec<CephClient>,
    },
    /// It is attached and its Ceph clients are on record: the vCPUs may run.
    Recorded {
        /// As in `Working`.
        epoch: u64,
    },
    /// It is done.
    Done,
    /// It was not carried out; the guest is as it was before, or was ended.
    Failed {
        /// Why.
        reason: String,
    },
}

impl DeviceOrderState {
    /// Whether somebody has still to act on it.
    pub fn is_open(&self) -> bool {
        match self {
            DeviceOrderState::Ordered
            | DeviceOrderState::Working { .. }
            | DeviceOrderState::Recorded { .. } => true,
            DeviceOrderState::Done | DeviceOrderState::Failed { .. } => false,
        }
    }

    /// The claim under which work was begun; none before that and after the end.
    fn epoch(&self) -> Option<u64> {
        match self {
            DeviceOrderState::Working { epoch, .. } | DeviceOrderState::Recorded { epoch } => Some(*epoch),
            DeviceOrderState::Ordered | DeviceOrderState::Done | DeviceOrderState::Failed { .. } => None,
        }
    }
}

impl DeviceOrder {
    /// Whether nobody will ever carry it out: it is open, and the guest is owned by another node or by none.
    pub fn is_orphaned(&self, owner: Option<&Owner>) -> bool {
        self.state.is_open() && owner.is_none_or(|owner| owner.node != self.node)
    }
}

/// What becomes of an order in this look at its guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceTurn {
    /// Its guest's own step comes first.
    NotNow,
    /// It is its turn.
    CarryOut,
    /// It can't be carried out.
    Refuse(String),
}

/// Whether an order of this node comes before `ordinary`, the guest's own step in the same look.
pub fn device_turn(view: &VmView<'_>, ordinary: &VmStep, order: &DeviceOrder) -> DeviceTurn {
    if !order.state.is_open() || order.node != *view.me || view.fitness == NodeFitness::OnHold {
        return DeviceTurn::NotNow;
    }
    let owner = view
        .record
        .owner
        .as_ref()
        .filter(|owner| owner.node == *view.me && owner.incarnation == *view.incarnation);
    let refuse = |reason: &str| DeviceTurn::Refuse(reason.to_owned());
    // What may be the order's own doing: it goes on if it was begun under the present claim, and is else in the way of
    // nothing.
    let if_begun = |otherwise: DeviceTurn| match (order.state.epoch(), owner) {
        (Some(epoch), Some(owner)) if owner.epoch == epoch && view.record.incoming.is_none() => {
            DeviceTurn::CarryOut
        }
        (Some(_), _) => DeviceTurn::NotNow,
        (None, _) => otherwise,
    };
    match ordinary {
        VmStep::Leave(Calm::Runs) => DeviceTurn::CarryOut,
        VmStep::Leave(Calm::PausedByHand | Calm::PausedByIoError) => if_begun(refuse("the guest is paused")),
        // Without the mark that a guest has run, libvirt's word for one that the order suspended is that of a start under
        // way: it must not be let run past the order.
        VmStep::Resume => if_begun(DeviceTurn::NotNow),
        VmStep::Leave(Calm::ShuttingDown) | VmStep::AskToShutDown => {
            if_begun(refuse("the guest is shutting down"))
        }
        VmStep::Send => if_begun(refuse("the guest is being moved")),
        VmStep::Leave(
            Calm::Rests
            | Calm::NotHere
            | Calm::OwnedElsewhere(_)
            | Calm::OwnedByFormerMachine
            | Calm::BeingBuilt
            | Calm::HandedOver(_)
            | Calm::ExpectedElsewhere(_),
        ) => refuse("the guest does not run on this node"),
        // Nothing is known, or something comes first; the next look is not far.
        VmStep::Leave(
            Calm::NotFit(_)
            | Calm::BackingOff(_)
            | Calm::LibvirtSilent
            | Calm::LibvirtForgot
            | Calm::ProcessesUnknown,
        )
        | VmStep::Claim
        | VmStep::Adopt
        | VmStep::Confirm
        | VmStep::Destroy(_)
        | VmStep::Release { .. }
        | VmStep::Settle(_)
        | VmStep::FailDying
        | VmStep::Receive
        | VmStep::SayGone
        | VmStep::CallOff(_)
        | VmStep::GiveBack
        | VmStep::Device
        | VmStep::RefuseDevice(_) => DeviceTurn::NotNow,
    }
}

/// Whether a device makes QEMU open a volume that the guest can write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// It does: its Ceph client has to be on record before a vCPU runs.
    WritableVolume,
    /// It does not.
    Nothing,
}

/// Whether the running guest has the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plugged {
    /// It could not be read.
    Unknown,
    /// It has.
    In,
    /// It has not.
    Out,
    /// It has another device in its place.
    Taken {
        /// Which, in words.
        by: String,
    },
}

/// Ceph clients at this node's own addresses that use the volume, were not there before the order, and are on no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fresh {
    /// The storage cluster does not say.
    Unknown,
    /// These; maybe none.
    Clients(Vec<CephClient>),
}

/// What was tried in this life of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    /// Whether libvirt was asked to attach it.
    pub attach: bool,
    /// Why it can't be attached, if that has turned out.
    pub refusal: Option<String>,
    /// How often libvirt was asked to detach it.
    pub detach: u32,
}

/// All that the decision over an order sees.
#[derive(Debug, Clone)]
pub struct DeviceView<'a> {
    /// The order.
    pub order: &'a DeviceOrder,
    /// Whether it opens a volume.
    pub opens: Opens,
    /// What libvirt says of the guest.
    pub domain: DomainReading,
    /// Whether the guest has the device.
    pub plugged: Plugged,
    /// What it has opened.
    pub fresh: &'a Fresh,
    /// The owner's claim.
    pub epoch: u64,
    /// What was tried.
    pub tried: &'a Tried,
    /// How long ago something was last tried, or the order taken up.
    pub waited: Duration,
}

/// What to do next about an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceStep {
    /// Put on record that work begins.
    Begin,
    /// Suspend the vCPUs. libvirt does this after whatever an earlier call still does to the guest.
    Suspend,
    /// Ask libvirt to attach the device.
    Attach,
    /// Ask libvirt to detach it.
    Detach,
    /// Put these Ceph clients on record.
    Record(Vec<CephClient>),
    /// Let the vCPUs run: all is on record.
    Resume,
    /// Let the vCPUs run, since nothing has changed, and say that it failed.
    ResumeAndFail(String),
    /// It is done.
    Finish,
    /// It failed.
    Fail(String),
    /// End the guest: it has opened a volume, nobody can put that on record, and it does not come off.
    EndGuest(String),
    /// Look again soon.
    Wait,
}

/// How long QEMU may take until its client is among the watchers.
pub const CLIENTS_WITHIN: Duration = Duration::from_secs(3);
/// How long a client may linger after its volume was closed.
pub const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// How long one request to detach may take: a guest has to let go of a PCI device.
pub const DETACHED_WITHIN: Duration = Duration::from_secs(10);
/// How often a guest is asked to let go of a device.
pub const DETACH_TRIES: u32 = 3;
/// Ceph clients that may be on record for a guest: each attached volume adds one until the guest is started anew.
pub const CLIENTS_LIMIT: usize = 256;

/// What is done next about an order. Same view, same step.
pub fn next_device_step(view: &DeviceView<'_>) -> DeviceStep {
    match view.domain {
        // Neither its end nor its beginning can be told.
        DomainReading::Unknown => return DeviceStep::Wait,
        DomainReading::Absent | DomainReading::Is(DomainStatus::Off | DomainStatus::Crashed) => {
            return DeviceStep::Fail("the guest has ended".to_owned());
        }
        DomainReading::Is(DomainStatus::Running | DomainStatus::ShuttingDown | DomainStatus::Paused(_)) => {}
    }
    if view.plugged == Plugged::Unknown {
        return DeviceStep::Wait;
    }
    let restarted = view.order.state.epoch().is_some_and(|epoch| epoch != view.epoch);
    match (&view.order.state, view.order.action) {
        (DeviceOrderState::Done | DeviceOrderState::Failed { .. }, _) => DeviceStep::Wait,
        // Another process of it, which was started from the definition.
        (_, action) if restarted => match (action, &view.plugged) {
            (DeviceAction::Attach, Plugged::In)
            | (DeviceAction::Detach, Plugged::Out | Plugged::Taken { .. }) => DeviceStep::Finish,
            _ => DeviceStep::Fail("the guest was started anew meanwhile".to_owned()),
        },
        (DeviceOrderState::Ordered, action) => match (action, &view.plugged) {
            (DeviceAction::Attach, Plugged::In) | (DeviceAction::Detach, Plugged::Out) => DeviceStep::Finish,
            // It was never begun: nothing stands still on its account.
            (_, Plugged::Taken { by }) => DeviceStep::Fail(taken(by)),
            _ if view.domain != DomainReading::Is(DomainStatus::Running) => {
                DeviceStep::Fail("the guest is not running".to_owned())
            }
            _ => DeviceStep::Begin,
        },
        (DeviceOrderState::Recorded { .. }, _) => match view.domain {
            DomainReading::Is(DomainStatus::Paused(PauseReason::Other | PauseReason::StartingUp)) => {
                DeviceStep::Resume
            }
            DomainReading::Unknown | DomainReading::Absent | DomainReading::Is(_) => DeviceStep::Finish,
        },
        (DeviceOrderState::Working { .. }, DeviceAction::Detach) => detaching(view),
        (DeviceOrderState::Working { .. }, DeviceAction::Attach) => match view.opens {
            Opens::Nothing => attaching(view),
            Opens::WritableVolume => attaching_volume(view),
        },
    }
}

fn taken(by: &str) -> String {
    format!("the guest has {by} in its place")
}

fn detaching(view: &DeviceView<'_>) -> DeviceStep {
    if matches!(view.plugged, Plugged::Out | Plugged::Taken { .. }) {
        return DeviceStep::Finish;
    }
    if view.tried.detach > 0 && view.waited < DETACHED_WITHIN && view.tried.refusal.is_none() {
        return DeviceStep::Wait;
    }
    if let Some(reason) = &view.tried.refusal {
        return DeviceStep::Fail(reason.clone());
    }
    if view.tried.detach >= DETACH_TRIES {
        return DeviceStep::Fail("the guest does not let go of the device".to_owned());
    }
    DeviceStep::Detach
}

fn attaching(view: &DeviceView<'_>) -> DeviceStep {
    match (&view.tried.refusal, &view.plugged) {
        (_, Plugged::In) => DeviceStep::Finish,
        (_, Plugged::Taken { by }) => DeviceStep::Fail(taken(by)),
        (Some(reason), _) => DeviceStep::Fail(reason.clone()),
        (None, _) if view.tried.attach => DeviceStep::Fail("libvirt attached nothing".to_owned()),
        (None, _) => DeviceStep::Attach,
    }
}

/// From the first word on record until the client is: the vCPUs stand still.
fn attaching_volume(view: &DeviceView<'_>) -> DeviceStep {
    let ours = match view.domain {
        DomainReading::Is(DomainStatus::Paused(PauseReason::Other | PauseReason::StartingUp)) => true,
        // QEMU or a migration stopped it: never ours to let run, but what it has opened goes on record all the same.
        DomainReading::Is(DomainStatus::Paused(PauseReason::IoError | PauseReason::Migration)) => false,
        DomainReading::Unknown
        | DomainReading::Absent
        | DomainReading::Is(
            DomainStatus::Running | DomainStatus::ShuttingDown | DomainStatus::Off | DomainStatus::Crashed,
        ) => {
            // Nothing was tried, and nothing stands still: libvirt does not suspend it.
            return match (&view.tried.refusal, &view.plugged, view.fresh) {
                (_, Plugged::Taken { by }, Fresh::Clients(clients)) if clients.is_empty() => {
                    DeviceStep::Fail(taken(by))
                }
                (Some(reason), Plugged::Out, Fresh::Clients(clients))
                    if clients.is_empty() && !view.tried.attach =>
                {
                    DeviceStep::Fail(reason.clone())
                }
                _ => DeviceStep::Suspend,
            };
        }
    };
    let give_up = |reason: String| {
        if ours {
            DeviceStep::ResumeAndFail(reason)
        } else {
            DeviceStep::Fail(reason)
        }
    };
    match (&view.plugged, view.fresh) {
        (Plugged::In, _) if ours && !stands(Protection::AttachedClientsRecorded) => DeviceStep::Resume,
        (Plugged::In, Fresh::Clients(clients)) if !clients.is_empty() => DeviceStep::Record(clients.clone()),
        (Plugged::In, Fresh::Clients(_)) => {
            let limit = if view.tried.detach > 0 {
                DETACHED_WITHIN
            } else {
                CLIENTS_WITHIN
            };
            if view.waited < limit {
                DeviceStep::Wait
            } else if view.tried.detach < DETACH_TRIES {
                DeviceStep::Detach
            } else {
                DeviceStep::EndGuest(
                    "its Ceph client can't be found, and the device does not come off".to_owned(),
                )
            }
        }
        (Plugged::Out | Plugged::Taken { .. }, Fresh::Clients(clients)) if !clients.is_empty() => {
            if view.waited < CLOSED_WITHIN {
                DeviceStep::Wait
            } else {
                DeviceStep::EndGuest("the volume stays open though the device is not attached".to_owned())
            }
        }
        (Plugged::Taken { by }, Fresh::Clients(_)) => give_up(taken(by)),
        (Plugged::Out, Fresh::Clients(_)) => match &view.tried.refusal {
            Some(reason) => give_up(reason.clone()),
            None if view.tried.detach > 0 => {
                give_up("no Ceph client of the device was seen, so it was taken off again".to_owned())
            }
            None if view.tried.attach => give_up("libvirt attached nothing".to_owned()),
            None if ours => DeviceStep::Attach,
            None => give_up("the guest is stopped by an I/O error".to_owned()),
        },
        // Ceph does not answer: who has the volume open can't be told, and nothing follows from that.
        (_, Fresh::Unknown) | (Plugged::Unknown, Fresh::Clients(_)) => DeviceStep::Wait,
    }
}

/// Why work on an order can't begin, as far as the owner record tells.
///
/// # Errors
/// The reason, in words.
pub fn may_begin(owner: &Owner, opens: Opens) -> Result<(), String> {
    match (&owner.ceph_clients, opens) {
        (_, Opens::Nothing) => Ok(()),
        (CephClients::Recorded(clients), Opens::WritableVolume) => {
            if clients.len() < CLIENTS_LIMIT {
                Ok(())
            } else {
                Err(format!(
                    "{} Ceph clients are on record for it, and at most {CLIENTS_LIMIT} are kept; restart it first",
                    clients.len()
                ))
            }
        }
        (CephClients::Unrecorded | CephClients::Unknown, Opens::WritableVolume) => Err(
            "its Ceph clients are not on record, since it was taken over while it ran; restart it first"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests;
