//! The fencer: one round over all nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::keys::values::Maintenance;
use pvc_common::lock::{LockError, LockGuard, exclusive_lock};
use pvc_common::pause;
use pvc_common::store::{ReadError, Store, StoreExt as _, Txn, ZnodeVersion};
use pvc_core::fence::{
    CoordinatorLife, FencePhase, FencePolicy, FenceRecord, FenceStep, FenceView, Means, PowerTrack, Proof,
    ProofKind, RESTART_ORDERS, RecoveryPolicy, RestartTrack, SilenceJudge, Standing, SuspicionJudge,
    WaitReason, is_replaced, next_fence_step, quorum_at_stake,
};
use pvc_core::ids::{Incarnation, MachineId, NodeName, VmId};
use pvc_core::protection::{Protection, stands};
use pvc_core::records::NodeLease;
use pvc_core::states::{CoordinatorState, DaemonMode, DaemonState, DomainState};
use pvc_core::time::BootTime;
use tracing::{debug, info, warn};

use super::book::{FenceBook, FenceError};
use super::faults::{StoppedNodes, tell};
use super::seek::{Seen, Victim, order_on};
use super::{BACK_OFF, FenceParts};
use crate::agent::AgentPhase;
use crate::host::{PowerControl, PowerState, Storage};
use crate::measures::Duty;
use crate::placement::{Unparked, try_unpark};
use crate::registration::wall_seconds;

/// How long the fence lock is contended for; whoever holds it is doing the same work.
const LOCK_WITHIN: Duration = Duration::from_millis(400);
/// How many steps one fence takes in one round at most.
const STEPS: u32 = 20;
/// Between two rounds over guests that could not be recovered yet.
const RECOVER_AGAIN: Duration = Duration::from_secs(2);
/// How long a fencer stays out after an error.
const AFTER_ERROR: Duration = Duration::from_secs(2);
/// After this time without progress the dead node is switched on, though guests of it are not recovered: what keeps them
/// may be that Ceph lacks its OSDs.
const SWITCH_ON_WITHOUT_PROGRESS: Duration = Duration::from_secs(60);
/// How often a node that is dead and done with is looked at for guests that were placed there all the same.
const LATE_GUESTS_EVERY: Duration = Duration::from_secs(30);
/// For how long after it was switched on a node that has not come back is looked at for being off again. Short: later it
/// may be off because somebody works on it.
const RESTART_WATCHED: Duration = Duration::from_secs(75);
/// How often it is looked whether guests belong to a machine that has lost its name to another.
const FORMER_EVERY: Duration = Duration::from_secs(60);
/// Between two tries of a guest that found no node.
const UNPARK_EVERY: Duration = Duration::from_secs(60);

/// What a fencer remembers of one node.
#[derive(Debug, Default)]
struct Memory {
    not_before: Option<BootTime>,
    /// Since when its recovery has made no progress.
    stuck_since: Option<BootTime>,
    /// When it was last looked at though it is done with.
    late_look: Option<BootTime>,
    /// When this fencer last switched it on.
    switched_on: Option<BootTime>,
}

/// Fences nodes and recovers their guests.
#[derive(Debug)]
pub struct Fencer<S, C, P, T> {
    parts: FenceParts<S, C, P, T>,
    judge: SuspicionJudge,
    memory: BTreeMap<NodeName, Memory>,
    in_maintenance: bool,
    unparked_at: BootTime,
    stopped: StoppedNodes,
    former: Former,
}

/// Machines whose names others have taken, and to which guests belong all the same.
#[derive(Debug, Default)]
struct Former {
    /// Which machine has each name now.
    machines: BTreeMap<NodeName, MachineId>,
    looked: Option<BootTime>,
    owners: BTreeMap<NodeName, Incarnation>,
}

/// All nodes and records as one round sees them.
#[derive(Debug)]
struct Sight {
    now: BootTime,
    silences: SilenceJudge,
    standings: BTreeMap<NodeName, Standing>,
    fences: BTreeMap<NodeName, FenceRecord>,
    coordinators: BTreeMap<NodeName, CoordinatorLife>,
    maintenance: bool,
    maintenance_version: ZnodeVersion,
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

    /// Looks for guests that belong to a machine whose name another has taken: nobody will ever hear that one again, and it
    /// fell silent for too short a time to be suspected.
    async fn look_for_former(&mut self, sight: &Sight) {
        let leases: Vec<(&NodeName, &Incarnation)> = sight
            .silences
            .nodes()
            .filter_map(|node| {
                let lease = sight.silences.lease(node)?.lease.as_ref()?;
                Some((node, &lease.incarnation))
            })
            .collect();
        let machines: BTreeMap<NodeName, MachineId> = leases
            .iter()
            .map(|(node, incarnation)| ((*node).clone(), incarnation.machine_id.clone()))
            .collect();
        let due = machines != self.former.machines
            || self
                .former
                .looked
                .is_none_or(|looked| sight.now.since(looked) >= FORMER_EVERY);
        if !due {
            return;
        }
        let Ok(guests) = self.parts.read_guests().await else {
            return;
        };
        let belongs_to = guests.iter().flat_map(|guest| {
            let owner = guest
                .owner
                .as_ref()
                .map(|owner| (&owner.node, &owner.incarnation));
            let incoming = guest
                .incoming
                .as_ref()
                .map(|incoming| (&incoming.target, &incoming.incarnation));
            owner.into_iter().chain(incoming)
        });
        self.former.owners = belongs_to
            .filter(|(node, boot)| {
                machines
                    .get(*node)
                    .is_some_and(|machine| *machine != boot.machine_id)
            })
            // A death that is known and dealt with: what still belongs to it is left there on purpose.
            .filter(|(node, boot)| {
                !sight.fences.get(*node).is_some_and(|record| {
                    matches!(record.phase, FencePhase::Done { .. }) && record.victim.same_boot(boot)
                })
            })
            .map(|(node, boot)| (node.clone(), boot.clone()))
            .collect();
        self.former.machines = machines;
        self.former.looked = Some(sight.now);
    }

    async fn look(&mut self) -> Result<Sight, ReadError> {
        let mut silences = self.parts.hearing.so_far();
        let nodes: Vec<NodeName> = silences.nodes().cloned().collect();
        let mut paths: Vec<String> = Vec::with_capacity(nodes.len() * 3 + 1);
        for node in &nodes {
            paths.push(keys::node(node).daemon_state().path().to_owned());
            paths.push(keys::fence(node).path().to_owned());
            paths.push(keys::node(node).daemon_mode().path().to_owned());
        }
        paths.push(keys::config().maintenance().path().to_owned());
        let mut znodes = self.parts.store.read_many(&paths).await?;
        let maintenance = keys::config()
            .maintenance()
            .decode_required(znodes.pop().flatten().as_ref())?;
        let maintenance_version = maintenance.version;
        let maintenance = maintenance.value == Maintenance::On;
        if self.in_maintenance && !maintenance {
            info!("maintenance has ended: every silence is counted anew");
            self.parts.hearing.forget_silences();
            silences = self.parts.hearing.so_far();
        }
        self.in_maintenance = maintenance;
        let now = self.parts.clock.now();
        let (mut standings, mut fences, mut coordinators) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (node, znodes) in nodes.into_iter().zip(znodes.chunks_exact(3)) {
            let state = keys::node(&node)
                .daemon_state()
                .decode(znodes.first().and_then(Option::as_ref));
            let state = match state {
                Ok(state) => state.map_or(DaemonState::Init, |state| state.value),
                Err(error) => {
                    debug!(%node, %error, "a node's state can't be read");
                    DaemonState::Run
                }
            };
            let mut standing = self.judge.standing(now, &node, &silences, state);
            if !stands(Protection::OwnClockOnly) {
                standing = self.standing_by_wall_clock(&node, standing).await;
            }
            let mut life = if node == self.parts.me || standing == Standing::Alive {
                CoordinatorLife::Heard
            } else {
                CoordinatorLife::NotHeard
            };
            if node != self.parts.me {
                standings.insert(node.clone(), standing);
            }
            let mode = keys::node(&node)
                .daemon_mode()
                .decode(znodes.get(2).and_then(Option::as_ref));
            match keys::fence(&node).decode(znodes.get(1).and_then(Option::as_ref)) {
                Ok(Some(record)) => {
                    if let Some(record) = record.value {
                        if node != self.parts.me && record.counts_out() {
                            life = CoordinatorLife::NotHeard;
                        }
                        fences.insert(node.clone(), record);
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    warn!(%node, %error, "the record of a fence can't be read; the node is not fenced")
                }
            }
            match mode {
                Ok(Some(mode)) if mode.value == DaemonMode::Hypervisor => {}
                // One whose mode can't be read may be a coordinator: it is not counted on, nor switched off lightly.
                Ok(Some(_)) | Err(_) => {
                    coordinators.insert(node, life);
                }
                Ok(None) => {}
            }
        }
        self.judge.update(now, &standings);
        self.memory.retain(|node, _| standings.contains_key(node));
        Ok(Sight {
            now,
            silences,
            standings,
            fences,
            coordinators,
            maintenance,
            maintenance_version,
        })
    }

    /// What PVC 1.0.3 does, and what must not be done: the wall clocks of two hosts are compared. Only the simulator
    /// comes here.
    async fn standing_by_wall_clock(&self, node: &NodeName, standing: Standing) -> Standing {
        let Ok(keepalive) = self.parts.store.require(&keys::node(node).keepalive()).await else {
            return standing;
        };
        let age = wall_seconds(&self.parts.clock).saturating_sub(keepalive.value);
        if age > 30 {
            let silence = Duration::from_secs(age);
            return Standing::Suspect { silence };
        }
        standing
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

    async fn conclude(
        &self,
        book: &mut FenceBook<'_, S, C>,
        victim: &Victim,
        kind: ProofKind,
        lease_version: ZnodeVersion,
    ) -> Result<(), FenceError> {
        let node = keys::node(&book.victim);
        let mut txn = Txn::new();
        if !victim.replaced {
            txn = txn.overwrite(&node.domain_state(), &DomainState::FenceFlush);
        }
        if kind == ProofKind::Administrator && !victim.replaced {
            // Whoever says that it is off is believed as long as it stays silent.
            txn = txn.check(&keys::lease_node(&book.victim), lease_version);
            book.change(|record| record.lease_version_at_off = Some(lease_version.0));
        }
        book.change(|record| {
            record.phase = FencePhase::Proven { by: kind };
            record.waits_for.clear();
            record.next_try_at = None;
        });
        book.note(match kind {
            ProofKind::Power => "it is dead: its BMC says that it is off",
            ProofKind::Storage => "it can't write any more: all its Ceph clients are barred",
            ProofKind::NewBoot => "its boot has ended: the same machine has booted anew",
            ProofKind::Administrator => "it is dead: an administrator has said that the machine is off",
        });
        // What is written under the name is another machine's already, or about the next boot.
        if kind != ProofKind::NewBoot && !victim.replaced {
            // Nothing is to be placed by the figures of a dead node (lesson 33).
            txn = txn
                .overwrite(&node.daemon_state(), &DaemonState::Fenced)
                .overwrite(&node.domains_count(), &0)
                .overwrite(&node.cpu_load(), &keys::values::Load(0.0))
                .overwrite(&node.vcpu_allocated(), &0)
                .overwrite(&node.memory_used_mib(), &0)
                .overwrite(&node.memory_free_mib(), &0)
                .overwrite(&node.memory_allocated_mib(), &0)
                .overwrite(&node.memory_provisioned_mib(), &0)
                .overwrite(&node.monitoring_health(), &keys::values::OrNone(None));
            if stands(Protection::RecoverFromOwnRecords) {
                let none = keys::values::RunningDomains(Vec::new());
                txn = txn.overwrite(&node.running_domains(), &none);
            }
            let mode = self.parts.store.require(&node.daemon_mode()).await?.value;
            if mode == DaemonMode::Coordinator {
                txn = txn.overwrite(&node.coordinator_state(), &CoordinatorState::Secondary);
            }
        }
        book.write(txn).await?;
        pause::point("fence-proven");
        Ok(())
    }

    /// One round over its guests. Answers whether the fence may go on at once.
    async fn recover(
        &mut self,
        book: &mut FenceBook<'_, S, C>,
        victim: &Victim,
        proof: &Proof,
        sight: &Sight,
    ) -> Result<bool, FenceError> {
        let recovered = self.parts.recover(book, victim, proof, &sight.silent()).await?;
        let changed = recovered.moved > 0 || !recovered.parked.is_empty();
        let waits_for = match recovered.again {
            0 => String::new(),
            count => format!(
                "{count} of its guests can't be recovered yet ({})",
                recovered.reason
            ),
        };
        let noted = book
            .record
            .as_ref()
            .is_some_and(|record| record.left == recovered.left && record.waits_for == waits_for);
        if changed || !noted {
            book.change(|record| {
                for vm in &recovered.parked {
                    if !record.parked.contains(vm) {
                        record.parked.push(*vm);
                    }
                }
                record.left.clone_from(&recovered.left);
                record.waits_for.clone_from(&waits_for);
            });
            let mut parts = Vec::new();
            let mut say = |count: usize, what: &str| {
                if count > 0 {
                    parts.push(format!(
                        "{count} guest{} {what}",
                        if count == 1 { "" } else { "s" }
                    ));
                }
            };
            say(recovered.moved, "sent to other nodes");
            say(recovered.parked.len(), "stopped, since no node could take them");
            say(
                recovered.left.len(),
                "left where they are, since the proof says nothing about them",
            );
            if !waits_for.is_empty() {
                parts.push(waits_for.clone());
            }
            if !parts.is_empty() {
                book.note(parts.join(", "));
            }
            book.write(Txn::new()).await?;
        }
        pause::point("fence-recovered");
        let now = self.parts.clock.now();
        let memory = self.memory.entry(victim.node.clone()).or_default();
        if recovered.again == 0 {
            memory.stuck_since = None;
            return Ok(true);
        }
        memory.not_before = Some(now + RECOVER_AGAIN);
        let stuck_since = *memory.stuck_since.get_or_insert(now);
        if changed {
            memory.stuck_since = Some(now);
        } else if now.since(stuck_since) >= SWITCH_ON_WITHOUT_PROGRESS {
            self.switch_on_early(book, victim).await?;
        }
        Ok(false)
    }

    /// Guests of it can't be recovered for now. Its record stays open, which keeps it from starting or claiming anything,
    /// so it may as well be on: what is missing may be its OSDs, and its next boot is a proof of its own.
    async fn switch_on_early(
        &mut self,
        book: &mut FenceBook<'_, S, C>,
        victim: &Victim,
    ) -> Result<(), FenceError> {
        // Also when an earlier order came to nothing: what is waited for may be on that node.
        let due = book.record.as_ref().is_some_and(|record| {
            record.power == PowerTrack::Off
                && match record.restart {
                    RestartTrack::NotDue | RestartTrack::Ordered | RestartTrack::Failed { .. } => true,
                    RestartTrack::Done => false,
                }
        });
        if !due {
            return Ok(());
        }
        self.memory.entry(victim.node.clone()).or_default().stuck_since = Some(self.parts.clock.now());
        book.change(|record| record.restart = RestartTrack::Ordered);
        book.note("its guests could not be recovered for a minute: switching it on, it takes no part until they are");
        book.write(Txn::new()).await?;
        self.power_on(book, victim).await
    }

    async fn finish(&self, book: &mut FenceBook<'_, S, C>, victim: &Victim) -> Result<(), FenceError> {
        let Some(by) = book
            .record
            .as_ref()
            .and_then(Proof::recorded)
            .map(|proof| proof.kind())
        else {
            return Ok(());
        };
        book.change(|record| {
            record.phase = FencePhase::Done { by };
            record.waits_for.clear();
            record.next_try_at = None;
            // Also when the order's answer was lost: then it may be off, and switching it on harms nobody. Not by a BMC that is
            // another machine's, and not while somebody is at the machine.
            let ordered = match record.power {
                PowerTrack::Untried | PowerTrack::Unavailable { .. } => false,
                PowerTrack::Ordered | PowerTrack::Off | PowerTrack::Failed { .. } => {
                    !record.power_disproved && by != ProofKind::Administrator
                }
            };
            if ordered && !victim.replaced && record.restart == RestartTrack::NotDue {
                record.restart = RestartTrack::Ordered;
            }
        });
        book.note(match self.parts.settings.recovery {
            RecoveryPolicy::Move => "done: no guest belongs to it any more",
            RecoveryPolicy::Leave => "done: its guests wait for it, as the setting successful_fence says",
        });
        let txn = if victim.replaced {
            Txn::new()
        } else {
            Txn::new().overwrite(&keys::node(&book.victim).domain_state(), &DomainState::Flushed)
        };
        book.write(txn).await?;
        pause::point("fence-done");
        Ok(())
    }

    /// Whether the BMC of a node that this fencer has just switched on says that it is off. Only the fencer that gave the
    /// order asks: another one can't tell how long ago that was, and an hour later somebody may have opened the machine.
    async fn is_off_after_restart(&self, book: &FenceBook<'_, S, C>, victim: &Victim) -> bool {
        let watched = self
            .memory
            .get(&book.victim)
            .and_then(|memory| memory.switched_on)
            .is_some_and(|switched_on| self.parts.clock.now().since(switched_on) < RESTART_WATCHED);
        let away = book.record.as_ref().is_some_and(|record| {
            matches!(record.phase, FencePhase::Done { .. })
                && record.restart == RestartTrack::Done
                && record.returned.is_none()
        });
        match &victim.bmc {
            Ok(bmc) if watched && away => {
                matches!(self.parts.power.state(bmc).await, Ok(PowerState::Off))
            }
            Ok(_) | Err(_) => false,
        }
    }

    async fn power_on(&mut self, book: &mut FenceBook<'_, S, C>, victim: &Victim) -> Result<(), FenceError> {
        book.confirm().await?;
        self.parts.may_act()?;
        let memory = self.memory.entry(victim.node.clone()).or_default();
        memory.switched_on = Some(self.parts.clock.now());
        let outcome = order_on(&self.parts.power, victim).await;
        book.reread().await?;
        match outcome {
            Ok(()) => {
                book.change(|record| {
                    record.restart = RestartTrack::Done;
                    record.restart_orders = record.restart_orders.saturating_add(1);
                });
                let orders = book.record.as_ref().map_or(1, |record| record.restart_orders);
                book.note(match orders {
                    0 | 1 => "switched on again".to_owned(),
                    _ => {
                        format!("it was off again: switched on once more, order {orders} of {RESTART_ORDERS}")
                    }
                });
            }
            Err(reason) => {
                book.change(|record| {
                    record.restart = RestartTrack::Failed {
                        reason: reason.clone(),
                    }
                });
                book.note(format!("it could not be switched on again: {reason}"));
            }
        }
        book.write(Txn::new()).await
    }

    /// Guests that found no node are tried again; those that run, or that somebody has taken care of, go off the list.
    async fn unpark(&self, lock: &LockGuard<S>, sight: &Sight) -> Result<(), FenceError> {
        let parts = &self.parts;
        for (node, record) in &sight.fences {
            if record.parked.is_empty() {
                continue;
            }
            let outcomes = try_unpark(&parts.store, &sight.silent(), &record.parked).await?;
            let gone: Vec<VmId> = outcomes
                .into_iter()
                .filter(|(_, outcome)| match outcome {
                    Unparked::Starts { .. } | Unparked::NotParked => true,
                    Unparked::StillNoPlace(_) | Unparked::Later(_) => false,
                })
                .map(|(vm, _)| vm)
                .collect();
            if gone.is_empty() {
                continue;
            }
            let mut book = FenceBook::open(&parts.store, &parts.clock, lock, &parts.me, node).await?;
            book.change(|record| record.parked.retain(|vm| !gone.contains(vm)));
            book.note(format!(
                "{} guests that had found no node are off the list",
                gone.len()
            ));
            book.write(Txn::new()).await?;
        }
        Ok(())
    }
}

impl Sight {
    /// Whether it is not known yet of some node other than `victim` whether it lives: this fencer has just begun, or could
    /// not hear. In a few rounds it will be.
    fn is_unsettled(&self, victim: &NodeName) -> bool {
        self.standings
            .iter()
            .any(|(node, standing)| node != victim && *standing == Standing::Unknown)
    }

    /// Whether no coordinator but `me` lives without an open fence.
    fn all_coordinators_are_barred(&self, me: &NodeName) -> bool {
        self.coordinators
            .keys()
            .filter(|node| *node != me)
            .all(|node| match self.standings.get(node) {
                Some(Standing::Alive) => self.fences.get(node).is_some_and(FenceRecord::is_open),
                // It may live.
                Some(Standing::Unknown | Standing::Quiet { .. }) => false,
                Some(
                    Standing::NeverRegistered
                    | Standing::Stopped
                    | Standing::ComingUp { .. }
                    | Standing::Suspect { .. },
                )
                | None => true,
            })
    }

    /// Nodes that are not known to be alive: nothing is placed there.
    fn silent(&self) -> BTreeSet<NodeName> {
        self.standings
            .iter()
            .filter(|(_, standing)| **standing != Standing::Alive)
            .map(|(node, _)| node.clone())
            .collect()
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
