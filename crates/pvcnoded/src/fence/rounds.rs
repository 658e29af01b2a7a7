//! The fencer: one round over all nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::lock::{LockError, LockGuard, exclusive_lock};
use pvc_common::pause;
use pvc_common::store::{ReadError, Store, StoreExt as _, Txn};
use pvc_core::fence::{
    FencePhase, FencePolicy, FenceRecord, FenceStep, FenceView, Means, PowerTrack, Proof, RestartTrack,
    Standing, SuspicionJudge, WaitReason, is_replaced, next_fence_step, quorum_at_stake,
};
use pvc_core::ids::NodeName;
use pvc_core::protection::{Protection, stands};
use pvc_core::records::NodeLease;
use pvc_core::time::BootTime;
use tracing::{debug, info, warn};

use super::book::{FenceBook, FenceError};
use super::faults::{StoppedNodes, tell};
use super::seek::{Seen, order_on};
use super::sight::{Former, Sight};
use super::{BACK_OFF, FenceParts};
use crate::agent::AgentPhase;
use crate::host::{PowerControl, Storage};
use crate::measures::Duty;
use crate::registration::wall_seconds;

/// How long the fence lock is contended for; whoever holds it is doing the same work.
const LOCK_WITHIN: Duration = Duration::from_millis(400);
/// How many steps one fence takes in one round at most.
const STEPS: u32 = 20;
/// Between two rounds over guests that could not be recovered yet.
pub(super) const RECOVER_AGAIN: Duration = Duration::from_secs(2);
/// How long a fencer stays out after an error.
const AFTER_ERROR: Duration = Duration::from_secs(2);
/// How often a node that is dead and done with is looked at for guests that were placed there all the same.
const LATE_GUESTS_EVERY: Duration = Duration::from_secs(30);
/// Between two tries of a guest that found no node.
const UNPARK_EVERY: Duration = Duration::from_secs(60);

/// What a fencer remembers of one node.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) not_before: Option<BootTime>,
    /// Since when its recovery has made no progress.
    pub(super) stuck_since: Option<BootTime>,
    /// When it was last looked at though it is done with.
    pub(super) late_look: Option<BootTime>,
    /// When this fencer last switched it on.
    pub(super) switched_on: Option<BootTime>,
}

/// Fences nodes and recovers their guests.
#[derive(Debug)]
pub struct Fencer<S, C, P, T> {
    pub(super) parts: FenceParts<S, C, P, T>,
    pub(super) judge: SuspicionJudge,
    pub(super) memory: BTreeMap<NodeName, Memory>,
    pub(super) in_maintenance: bool,
    pub(super) unparked_at: BootTime,
    pub(super) stopped: StoppedNodes,
    pub(super) former: Former,
}

impl<S: Store, C: Clock, P: PowerControl, T: Storage> Fencer<S, C, P, T> {
    /// A fencer that begins to listen now.
    pub fn new(parts: FenceParts<S, C, P, T>) -> Self {
        let now = parts.clock.now();
        Self {
            judge: SuspicionJudge::new(parts.settings.suspicion, now),
            parts,
            memory: BTreeMap::new(),
            in_maintenance: false,
            unparked_at: now,
            stopped: StoppedNodes::default(),
            former: Former::default(),
        }
    }

    /// Fences until dropped, a round after each round of the leases.
    pub async fn run(mut self) {
        let mut rounds = self.parts.hearing.rounds();
        let mut failing = false;
        loop {
            // The sender lives as long as `self`, so this can't fail.
            let _ = rounds.changed().await;
            let measures = self.parts.agent.measures().clone();
            measures.began(Duty::Fence, self.parts.clock.now());
            let round = self.round().await;
            measures.ended(Duty::Fence, self.parts.clock.now());
            match round {
                Ok(()) if failing => {
                    failing = false;
                    info!("fences can be looked after again");
                }
                Ok(()) => {}
                Err(error) if !failing => {
                    failing = true;
                    warn!(%error, source = %source_of(&error), "fences can't be looked after now");
                }
                Err(error) => debug!(%error, "fences can't be looked after now"),
            }
        }
    }

    /// One round.
    ///
    /// # Errors
    /// When the store does not answer. Whatever was done is on record.
    pub async fn round(&mut self) -> Result<(), ReadError> {
        let phase = self.parts.agent.phase();
        if !matches!(phase, AgentPhase::Running | AgentPhase::Starting)
            || !self.parts.agent.node_right().holds(self.parts.clock.now())
            // The store may tell of the past: whoever is silent in it may be well.
            || self.parts.agent.hold().is_on()
        {
            return Ok(());
        }
        let sight = self.look().await?;
        let barred = sight
            .fences
            .get(&self.parts.me)
            .is_some_and(|record| record.bars(&self.parts.incarnation));
        // If each coordinator that lives is out of it by a fence of its own, nobody else would ever end one: then what
        // others have begun is carried on all the same, and nothing new is begun.
        if (barred && !sight.all_coordinators_are_barred(&self.parts.me))
            || (!barred && phase != AgentPhase::Running)
        {
            return Ok(());
        }
        self.stopped.look(&self.parts, sight.now, &sight.standings).await;
        self.look_for_former(&sight).await;
        let unpark = !barred
            && !sight.is_unsettled(&self.parts.me)
            && sight.fences.values().any(|record| !record.parked.is_empty())
            && sight.now.since(self.unparked_at) >= UNPARK_EVERY;
        let due: Vec<NodeName> = sight
            .standings
            .iter()
            .filter(|(node, standing)| {
                (!barred || sight.fences.get(*node).is_some_and(FenceRecord::is_open))
                    && self.is_due(node, standing, &sight)
            })
            .map(|(node, _)| node.clone())
            .collect();
        if due.is_empty() && !unpark {
            return Ok(());
        }
        let lock = exclusive_lock(
            &self.parts.store,
            &self.parts.clock,
            &keys::config().fence_lock(),
            self.parts.me.as_str(),
        );
        let lock = match lock.acquire(LOCK_WITHIN).await {
            Ok(lock) => lock,
            Err(LockError::TimedOut { .. }) => return Ok(()),
            Err(error) => {
                debug!(%error, "the fence lock was not acquired");
                return Ok(());
            }
        };
        for victim in due {
            let outcome = self.carry_on(&lock, &victim).await;
            if let Ok(seen) = self.parts.store.require(&keys::fence(&victim)).await {
                tell(&self.parts.store, &self.parts.clock, &victim, seen.value.as_ref()).await;
            }
            if let Err(error) = outcome {
                warn!(node = %victim, %error, source = %source_of(&error), "a fence does not go on now");
                // Others may be able to do what this one is not.
                self.wait_until(&victim, self.parts.clock.now() + AFTER_ERROR);
            }
        }
        if unpark {
            self.unparked_at = self.parts.clock.now();
            if let Err(error) = self.unpark(&lock, &sight).await {
                warn!(%error, "guests that found no node could not be tried again");
            }
        }
        lock.release().await;
        Ok(())
    }

    fn is_due(&self, node: &NodeName, standing: &Standing, sight: &Sight) -> bool {
        let waiting = self
            .memory
            .get(node)
            .and_then(|memory| memory.not_before)
            .is_some_and(|not_before| sight.now < not_before);
        if waiting {
            return false;
        }
        match sight.fences.get(node) {
            Some(record) if record.is_open() || record.restart == RestartTrack::Ordered => true,
            Some(record) if matches!(record.phase, FencePhase::Done { .. }) && record.returned.is_none() => {
                let looked = self.memory.get(node).and_then(|memory| memory.late_look);
                looked.is_none_or(|looked| sight.now.since(looked) >= LATE_GUESTS_EVERY)
            }
            Some(_) | None => {
                let view = self.view(node, sight, sight.fences.get(node), standing, &IDLE_POLICY, 0);
                next_fence_step(&view) != FenceStep::Leave
            }
        }
    }

    fn view<'a>(
        &self,
        node: &NodeName,
        sight: &'a Sight,
        record: Option<&'a FenceRecord>,
        standing: &'a Standing,
        policy: &'a FencePolicy,
        guests_left: usize,
    ) -> FenceView<'a> {
        let seen = sight.silences.lease(node);
        FenceView {
            record,
            standing,
            lease: seen.and_then(|seen| seen.lease.as_ref()),
            renewed_after_off: match (record.and_then(|record| record.lease_version_at_off), seen) {
                (Some(version), Some(seen)) => {
                    seen.version.0 > version && same_boot(record, seen.lease.as_ref())
                }
                (None, _) | (_, None) => false,
            },
            maintenance: sight.maintenance,
            brake: self.judge.brake(sight.standings.len() + 1, &sight.fences),
            backing_off: self
                .memory
                .get(node)
                .and_then(|memory| memory.not_before)
                .is_some_and(|not_before| self.parts.clock.now() < not_before),
            policy,
            guests_left,
            alive_for: self.judge.alive_for(node, sight.now),
            former_owns: self.former.owners.contains_key(node),
            off_after_restart: false,
        }
    }

    fn wait_until(&mut self, node: &NodeName, instant: BootTime) {
        self.memory.entry(node.clone()).or_default().not_before = Some(instant);
    }

    /// Carries one fence on, as far as it goes.
    async fn carry_on(&mut self, lock: &LockGuard<S>, node: &NodeName) -> Result<(), FenceError> {
        let parts = self.parts.clone();
        self.memory.entry(node.clone()).or_default().late_look = Some(parts.clock.now());
        let mut book = FenceBook::open(&parts.store, &parts.clock, lock, &parts.me, node).await?;
        for _ in 0..STEPS {
            let sight = self.look().await?;
            let Some(standing) = sight.standings.get(node) else {
                return Ok(());
            };
            let seen = sight.silences.lease(node);
            let Some(incarnation) = book
                .record
                .as_ref()
                .filter(|record| record.is_open() || record.restart == RestartTrack::Ordered)
                .map(|record| record.victim.clone())
                .or_else(|| {
                    seen.and_then(|seen| seen.lease.as_ref())
                        .map(|lease| lease.incarnation.clone())
                })
            else {
                return Ok(());
            };
            let replaced = book.record.as_ref().is_some_and(|record| {
                record.is_open() && is_replaced(record, seen.and_then(|seen| seen.lease.as_ref()))
            });
            let victim = parts.know(node, &incarnation, replaced).await?;
            let (mut power, storage) = parts.means(&victim);
            if power == Means::Available
                && let Some(stake) = quorum_at_stake(node, &sight.coordinators)
            {
                power = Means::Unavailable(stake.to_string());
            }
            let policy = FencePolicy {
                power,
                storage,
                recovery: parts.settings.recovery,
            };
            let proof = book.record.as_ref().and_then(Proof::recorded);
            let guests_left = match &proof {
                Some(proof) => parts.guests_left(proof, node).await?,
                None if replaced => parts.belonging_to(node, &incarnation).await?,
                None => 0,
            };
            let off_after_restart = self.is_off_after_restart(&book, &victim).await;
            let step = {
                let view = self.view(node, &sight, book.record.as_ref(), standing, &policy, guests_left);
                next_fence_step(&FenceView {
                    off_after_restart,
                    ..view
                })
            };
            debug!(%node, ?step, "fence step");
            // Who the others are, alive or not, decides where guests go and who is left when this node is switched off.
            if matches!(step, FenceStep::Seek { .. } | FenceStep::Recover) && sight.is_unsettled(node) {
                return Ok(());
            }
            let Some(lease_version) = seen.map(|seen| seen.version) else {
                return Ok(());
            };
            match step {
                FenceStep::Leave => return Ok(()),
                FenceStep::Wait(wait) => {
                    let reason = wait.to_string();
                    if book
                        .record
                        .as_ref()
                        .is_some_and(|record| record.waits_for != reason)
                    {
                        book.change(|record| {
                            record.waits_for.clone_from(&reason);
                            if let WaitReason::NoMeans { power, storage } = &wait {
                                record.power.can_not_be_had(power);
                                record.storage.can_not_be_had(storage);
                            }
                        });
                        book.note(format!("waiting: {reason}"));
                        book.write(Txn::new()).await?;
                    }
                    self.wait_until(node, parts.clock.now() + RECOVER_AGAIN);
                    return Ok(());
                }
                FenceStep::Suspect { silence } => {
                    book.begin(incarnation);
                    book.note(format!(
                        "silent for {:.1} s: its lease has stood at version {lease_version} in every round",
                        silence.as_secs_f64()
                    ));
                    // If it has renewed its lease since the last look, it is not silent.
                    book.write(Txn::new().check(&keys::lease_node(node), lease_version))
                        .await?;
                    pause::point("fence-suspected");
                }
                FenceStep::SuspectFormer => {
                    let Some(former) = self.former.owners.remove(node) else {
                        return Ok(());
                    };
                    book.begin(former);
                    book.note(
                        "another machine has taken the name of this one, which was silent then, and guests still belong to it",
                    );
                    // SAFETY(fencing): it is about a former machine only if the lease still is that of the other one.
                    book.write(Txn::new().check(&keys::lease_node(node), lease_version))
                        .await?;
                }
                FenceStep::Abandon(reason) => {
                    book.change(|record| {
                        record.phase = FencePhase::Abandoned {
                            reason: reason.to_string(),
                        };
                        record.waits_for.clear();
                    });
                    book.note(format!("given up: {reason}"));
                    book.write(Txn::new()).await?;
                    return Ok(());
                }
                FenceStep::Seek { power, storage } => {
                    let proven = parts
                        .seek(
                            &mut book,
                            &victim,
                            &Seen {
                                lease: lease_version,
                                maintenance: sight.maintenance_version,
                            },
                            &policy,
                            (power, storage),
                        )
                        .await?;
                    if !proven {
                        let until = parts.clock.now() + BACK_OFF;
                        book.change(|record| {
                            record.next_try_at = Some(wall_seconds(&parts.clock) + BACK_OFF.as_secs());
                            record.waits_for =
                                "neither its BMC nor the storage cluster has given a proof; tried again, by another coordinator if one can do more".to_owned();
                        });
                        book.write(Txn::new()).await?;
                        self.wait_until(node, until);
                        return Ok(());
                    }
                }
                FenceStep::Conclude(kind) => {
                    self.conclude(&mut book, &victim, kind, lease_version).await?;
                }
                FenceStep::VoidPowerProof => {
                    book.change(|record| {
                        record.phase = FencePhase::Proving;
                        record.lease_version_at_off = None;
                        record.confirmation = None;
                        if record.power == PowerTrack::Off {
                            record.power_disproved = true;
                            record.power = PowerTrack::Failed {
                                reason: "its lease was renewed after its BMC had said off: that BMC is not its own"
                                    .to_owned(),
                            };
                        }
                    });
                    book.note(
                        "it renewed its lease after it was said to be off: that was no proof, recovery stops",
                    );
                    book.write(Txn::new()).await?;
                }
                FenceStep::Recover => {
                    // Always so: the step follows from a proof.
                    let Some(proof) = proof else { return Ok(()) };
                    if !stands(Protection::ReownBeforePowerOn) {
                        let _ = order_on(&parts.power, &victim).await;
                    }
                    if !self.recover(&mut book, &victim, &proof, &sight).await? {
                        return Ok(());
                    }
                }
                FenceStep::Finish => self.finish(&mut book, &victim).await?,
                FenceStep::PowerOn => {
                    self.power_on(&mut book, &victim).await?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn same_boot(record: Option<&FenceRecord>, lease: Option<&NodeLease>) -> bool {
    match (record, lease) {
        (Some(record), Some(lease)) => lease.incarnation.same_boot(&record.victim),
        (None, _) | (_, None) => false,
    }
}

/// To ask whether anything is due at all; by what means is asked under the lock.
static IDLE_POLICY: FencePolicy = FencePolicy {
    power: pvc_core::fence::Means::Available,
    storage: pvc_core::fence::Means::Available,
    recovery: pvc_core::fence::RecoveryPolicy::Move,
};

fn source_of(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}
