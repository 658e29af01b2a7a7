//! What a fencer does next about one node.

use std::fmt;
use std::time::Duration;

use super::proof::{Proof, ProofKind};
use super::record::{ConfirmationKind, FencePhase, FenceRecord, PowerTrack, RestartTrack};
use super::suspicion::{BrakeOn, Standing, same_boot_renews};
use crate::protection::{Protection, stands};
use crate::records::NodeLease;

/// What may be done to a node, and with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FencePolicy {
    /// How it can be switched off.
    pub power: Means,
    /// How its clients can be barred.
    pub storage: Means,
    /// What becomes of its guests once it is proven dead.
    pub recovery: RecoveryPolicy,
}

/// Whether a proof can be sought in some way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Means {
    /// It can.
    Available,
    /// It can't, for this reason.
    Unavailable(String),
}

/// What becomes of the guests of a node that is proven dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryPolicy {
    /// They are started elsewhere.
    Move,
    /// They wait for it.
    Leave,
}

/// What a fencer sees of one node.
#[derive(Debug, Clone)]
pub struct FenceView<'a> {
    /// The record, if there is one.
    pub record: Option<&'a FenceRecord>,
    /// How the node stands with this observer.
    pub standing: &'a Standing,
    /// Its lease now.
    pub lease: Option<&'a NodeLease>,
    /// Whether its lease was renewed after the record said that its BMC had said "off".
    pub renewed_after_off: bool,
    /// Whether the cluster is in maintenance.
    pub maintenance: bool,
    /// Whether too many nodes fell silent at once.
    pub brake: Option<BrakeOn>,
    /// Whether this fencer has tried in vain a moment ago: others get their turn.
    pub backing_off: bool,
    /// What may be done.
    pub policy: &'a FencePolicy,
    /// How many guests the dead boot still owns or receives, those that no proof covers not counted.
    pub guests_left: usize,
    /// For how long the node has been alive without a break.
    pub alive_for: Duration,
    /// Whether a machine that had this name before the one that has it now still owns or receives guests.
    pub former_owns: bool,
    /// Whether this fencer has switched it on a short time ago, and its BMC says now that it is off.
    pub off_after_restart: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FenceStep {
    /// Nothing.
    Leave,
    /// Nothing for now, and the record says why.
    Wait(WaitReason),
    /// Put the suspicion on record.
    Suspect {
        /// For how long it has been silent.
        silence: Duration,
    },
    /// Put a suspicion on record of the machine that had this name before: guests still belong to it.
    SuspectFormer,
    /// Give it up; nothing was done to the node.
    Abandon(AbandonReason),
    /// Seek proofs: write the intent, act, write the results.
    Seek {
        /// Order it off.
        power: bool,
        /// Bar its clients.
        storage: bool,
    },
    /// It is dead: say so.
    Conclude(ProofKind),
    /// It has renewed its lease after its BMC, or an administrator, had said "off": that was no proof.
    VoidPowerProof,
    /// Give its guests to other nodes.
    Recover,
    /// No guest belongs to it any more.
    Finish,
    /// Switch it on again.
    PowerOn,
}

/// Why a suspicion waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// The brake is on.
    Brake(BrakeOn),
    /// No proof can be had.
    NoMeans {
        /// Why not by its BMC.
        power: String,
        /// Why not by storage.
        storage: String,
    },
    /// Guests that no proof so far covers.
    GuestsNotCovered(usize),
    /// It was ordered off, is not off, and renews its lease.
    RenewsAgain,
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitReason::Brake(brake) => write!(
                f,
                "{} of {} nodes fell silent within a minute (at most {} may): this looks like a fault between the nodes. \
                 It goes on when the number falls, or when somebody confirms it",
                brake.silent, brake.nodes, brake.limit
            ),
            WaitReason::NoMeans { power, storage } => write!(
                f,
                "no proof of its death can be had (BMC: {power}; storage: {storage}): switch the machine off, then confirm that it is off"
            ),
            WaitReason::GuestsNotCovered(count) => write!(
                f,
                "{count} of its guests have disks or clients that the storage proof does not cover: they wait until its BMC \
                 answers, it boots anew, or somebody confirms that it is off"
            ),
            WaitReason::RenewsAgain => write!(
                f,
                "it renews its lease again, its BMC has not said off and none of its clients was barred: given up when that \
                 lasts {} s",
                ORDER_OUTLIVED.as_secs()
            ),
        }
    }
}

/// Why a suspicion was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbandonReason {
    /// It renews its lease again.
    Renewed,
    /// The cluster is in maintenance.
    Maintenance,
    /// It has stopped in good order.
    Stopped,
    /// It was ordered off and lives on, long after its BMC would have carried that out; nothing else was done to it.
    OrderOutlived,
    /// Another machine has its name, and no guest belongs to it.
    Replaced,
}

impl fmt::Display for AbandonReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AbandonReason::Renewed => "it renewed its lease in time",
            AbandonReason::Maintenance => "maintenance was switched on before anything was done to it",
            AbandonReason::Stopped => "it has stopped in good order",
            AbandonReason::OrderOutlived => {
                "it has outlived the order to switch it off, and nothing else was done to it"
            }
            AbandonReason::Replaced => {
                "another machine has its name now, and no guest belongs to the former one"
            }
        })
    }
}

/// What a fencer does next about one node.
pub fn next_fence_step(view: &FenceView<'_>) -> FenceStep {
    let Some(record) = view.record else {
        return begin(view);
    };
    // Whatever was known before: a boot that has been followed by another is dead, and its lease moves on now.
    if let Some(proof) = view
        .lease
        .and_then(|lease| Proof::by_new_boot(&record.victim, lease))
        && record.is_open()
        && Proof::recorded(record).is_none_or(|known| known.kind() != ProofKind::NewBoot)
    {
        return FenceStep::Conclude(proof.kind());
    }
    match &record.phase {
        FencePhase::Abandoned { .. } => begin(view),
        FencePhase::Done { .. } => next_when_done(view, record),
        FencePhase::Suspected => next_when_suspected(view, record),
        FencePhase::Proving => next_when_proving(view, record),
        FencePhase::Proven { .. } | FencePhase::Recovering { .. } => next_when_proven(view, record),
    }
}

fn begin(view: &FenceView<'_>) -> FenceStep {
    match view.standing {
        Standing::Suspect { silence } if !view.maintenance => FenceStep::Suspect { silence: *silence },
        _ if view.former_owns && !view.maintenance => FenceStep::SuspectFormer,
        Standing::Suspect { .. }
        | Standing::Alive
        | Standing::Unknown
        | Standing::Quiet { .. }
        | Standing::NeverRegistered
        | Standing::Stopped
        | Standing::ComingUp { .. } => FenceStep::Leave,
    }
}

/// How long a node has to live on after it was ordered off before the order counts as not carried out: longer than any BMC
/// takes from the order to the supply.
pub const ORDER_OUTLIVED: Duration = Duration::from_secs(30);

/// Whether another machine has taken the name of the one that `record` is about. That machine registered after the lease
/// had stood still for longer than the former one's right lasts, and the former one can't renew it any more. How the
/// node stands says nothing about the former machine then.
pub fn is_replaced(record: &FenceRecord, lease: Option<&NodeLease>) -> bool {
    lease.is_some_and(|lease| !lease.incarnation.same_machine(&record.victim))
}

/// Before the first irreversible act.
fn take_back(view: &FenceView<'_>, record: &FenceRecord) -> Option<FenceStep> {
    if is_replaced(record, view.lease) {
        if view.guests_left == 0 {
            return Some(FenceStep::Abandon(AbandonReason::Replaced));
        }
        return view
            .maintenance
            .then_some(FenceStep::Abandon(AbandonReason::Maintenance));
    }
    if same_boot_renews(record, view.lease, view.standing) {
        return Some(FenceStep::Abandon(AbandonReason::Renewed));
    }
    match view.standing {
        Standing::Stopped => return Some(FenceStep::Abandon(AbandonReason::Stopped)),
        Standing::Alive
        | Standing::Unknown
        | Standing::Quiet { .. }
        | Standing::NeverRegistered
        | Standing::ComingUp { .. }
        | Standing::Suspect { .. } => {}
    }
    view.maintenance
        .then_some(FenceStep::Abandon(AbandonReason::Maintenance))
}

/// An administrator's word counts only about a node that is known not to be heard: whoever has looked at the wrong machine
/// must not end a living one's guests.
fn said_to_be_off(view: &FenceView<'_>, record: &FenceRecord) -> bool {
    let known_silent = match view.standing {
        Standing::Alive | Standing::Unknown => false,
        Standing::Quiet { .. }
        | Standing::NeverRegistered
        | Standing::Stopped
        | Standing::ComingUp { .. }
        | Standing::Suspect { .. } => true,
    };
    (known_silent || is_replaced(record, view.lease)) && record.is_confirmed(ConfirmationKind::MachineIsOff)
}

/// Whether this observer has heard the silence of the boot that `record` is about for long enough to act on it.
fn is_heard_silent(view: &FenceView<'_>, record: &FenceRecord) -> bool {
    matches!(view.standing, Standing::Suspect { .. }) || is_replaced(record, view.lease)
}

fn next_when_suspected(view: &FenceView<'_>, record: &FenceRecord) -> FenceStep {
    if let Some(step) = take_back(view, record) {
        return step;
    }
    if !stands(Protection::FenceNeedsProof) {
        return FenceStep::Conclude(ProofKind::Storage);
    }
    if said_to_be_off(view, record) {
        return FenceStep::Conclude(ProofKind::Administrator);
    }
    // Somebody else's suspicion; this observer has not heard the node for long enough to act on its own judgement.
    if !is_heard_silent(view, record) {
        return FenceStep::Leave;
    }
    match view.brake {
        Some(brake) if !record.is_confirmed(ConfirmationKind::Proceed) => {
            FenceStep::Wait(WaitReason::Brake(brake))
        }
        Some(_) | None => seek(view),
    }
}

fn seek(view: &FenceView<'_>) -> FenceStep {
    let disproved = Means::Unavailable("its BMC has said off while it lived".to_owned());
    let power = match view.record {
        Some(record) if record.power_disproved => &disproved,
        Some(_) | None => &view.policy.power,
    };
    match (power, &view.policy.storage) {
        (Means::Unavailable(power), Means::Unavailable(storage)) => FenceStep::Wait(WaitReason::NoMeans {
            power: power.clone(),
            storage: storage.clone(),
        }),
        (power, storage) => FenceStep::Seek {
            power: *power == Means::Available,
            storage: *storage == Means::Available,
        },
    }
}

fn next_when_proving(view: &FenceView<'_>, record: &FenceRecord) -> FenceStep {
    if view.renewed_after_off && record.power == PowerTrack::Off {
        return FenceStep::VoidPowerProof;
    }
    if let Some(proof) = Proof::recorded(record) {
        return FenceStep::Conclude(proof.kind());
    }
    if said_to_be_off(view, record) {
        return FenceStep::Conclude(ProofKind::Administrator);
    }
    if is_replaced(record, view.lease) && view.guests_left == 0 {
        return FenceStep::Abandon(AbandonReason::Replaced);
    }
    if !record.past_return() {
        if let Some(step) = take_back(view, record) {
            return step;
        }
        // As for a suspicion: the first order is given by whoever has heard the silence.
        if !is_heard_silent(view, record) {
            return FenceStep::Leave;
        }
    }
    if record.may_be_outlived() && !is_replaced(record, view.lease) {
        match view.standing {
            Standing::Alive if view.alive_for >= ORDER_OUTLIVED => {
                return FenceStep::Abandon(AbandonReason::OrderOutlived);
            }
            // A node that lives is not ordered off once more: the day its BMC answers again it would be shot.
            Standing::Alive => return FenceStep::Wait(WaitReason::RenewsAgain),
            Standing::Unknown | Standing::Quiet { .. } => return FenceStep::Leave,
            Standing::NeverRegistered
            | Standing::Stopped
            | Standing::ComingUp { .. }
            | Standing::Suspect { .. } => {}
        }
    }
    if view.backing_off {
        return FenceStep::Leave;
    }
    seek(view)
}

fn next_when_proven(view: &FenceView<'_>, record: &FenceRecord) -> FenceStep {
    let proof = Proof::recorded(record);
    if view.renewed_after_off && proof.as_ref().is_none_or(Proof::is_a_word) {
        return FenceStep::VoidPowerProof;
    }
    if view.policy.recovery == RecoveryPolicy::Leave {
        return FenceStep::Finish;
    }
    if matches!(record.phase, FencePhase::Proven { .. }) || view.guests_left > 0 {
        return FenceStep::Recover;
    }
    if record.left.is_empty() || proof.is_some_and(|proof| proof.kind() != ProofKind::Storage) {
        return FenceStep::Finish;
    }
    // What the storage proof does not cover waits for one that covers everything.
    if said_to_be_off(view, record) {
        return FenceStep::Conclude(ProofKind::Administrator);
    }
    if view.policy.power == Means::Available && !record.power_disproved && !view.backing_off {
        return FenceStep::Seek {
            power: true,
            storage: false,
        };
    }
    FenceStep::Wait(WaitReason::GuestsNotCovered(record.left.len()))
}

/// How often a node is ordered on after one fence. An order can be undone at once: a fencer that was frozen right before its
/// order to switch it off carries that out when it thaws.
pub const RESTART_ORDERS: u32 = 3;

fn next_when_done(view: &FenceView<'_>, record: &FenceRecord) -> FenceStep {
    if record.restart == RestartTrack::Ordered {
        return FenceStep::PowerOn;
    }
    // Its death is known and dealt with. Only another life of the node can be suspect again.
    let later_life = view
        .lease
        .is_some_and(|lease| !lease.incarnation.same_boot(&record.victim) || record.returned.is_some());
    if later_life {
        begin(view)
    } else if view.guests_left > 0 && view.policy.recovery == RecoveryPolicy::Move && !view.renewed_after_off
    {
        // Placed there by somebody who had not seen that it is dead.
        FenceStep::Recover
    } else if view.off_after_restart && !view.maintenance && record.restart_orders < RESTART_ORDERS {
        FenceStep::PowerOn
    } else {
        FenceStep::Leave
    }
}

#[cfg(test)]
mod tests;
