//! The target's side of a live migration: observe, ask [`next_receive_step`], do it, again until nothing is left to do.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::future::select;
use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::pause;
use pvc_common::store::{ReadError, Store, StoreExt as _, Txn, Watch as _, ZnodeVersion};
use pvc_core::fence::Proof;
use pvc_core::ids::{CephClient, VmId, VolumeId};
use pvc_core::records::{CephClients, HandOver, Incoming, Owner};
use pvc_core::states::VmState;
use pvc_core::time::BootTime;
use pvc_core::vm::{
    DomainReading, Presence, ReceiveStep, ReceiveView, SourceFate, TargetSide, VmRecord, next_receive_step,
    target_side,
};
use tracing::{debug, info, warn};

use super::carry_out::{TaskError, TaskOutcome, end_process, has_process, next_epoch, publish_vnc};
use super::rounds::{decode_record, record_paths};
use super::volumes::{Opened, VolumesError, opened, read_all_volumes, uses, uses_of_existing, watchers};
use super::{VmParts, VmTask};
use crate::agent::AgentPhase;
use crate::definition::open_volumes;
use crate::host::{GuestProcess, Hypervisor, Storage};

/// Between two looks when nothing is heard.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the half that has all of the guest may take to show its Ceph clients; then it is ended, as no fence could
/// bar it.
const CLIENTS_WITHIN: Duration = Duration::from_secs(10);
/// How many looks in a row may find no store before this task ends; the rounds begin another.
const WITHOUT_STORE: u32 = 20;

/// What is remembered while the task lives.
struct Receiving<'a, S, C, H, T> {
    parts: &'a VmParts<S, C, H, T>,
    vm: VmId,
    of_others: &'a [CephClient],
    /// Who watched the volumes before there was a half here; `None` if an earlier life of the agent has accepted, and has
    /// taken that knowledge with it.
    before: Option<BTreeMap<VolumeId, Vec<CephClient>>>,
    /// The process whose clients are on record.
    recorded_for: Option<GuestProcess>,
    waiting_since: Option<BootTime>,
    unseen_since: Option<BootTime>,
}

/// All as it was read.
struct Seen {
    record: VmRecord,
    side: TargetSide,
    process: Option<GuestProcess>,
    now: BootTime,
    fit: bool,
    stopping: bool,
    barred: bool,
    own_fence_version: ZnodeVersion,
    source: SourceFate,
}

/// Receives the guest, or ends what is left of a migration.
pub(super) async fn receive<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    task: &VmTask,
) -> Result<TaskOutcome, TaskError> {
    let mut receiving = Receiving {
        parts,
        vm: task.vm,
        of_others: &task.clients_of_others,
        before: None,
        recorded_for: None,
        waiting_since: None,
        unseen_since: None,
    };
    let mut changes = parts.store.watch_tree(keys::domain(task.vm).name().path());
    let mut unread = 0;
    loop {
        let next = match receiving.observe().await {
            Ok(seen) => {
                unread = 0;
                receiving.carry_out(&seen, task).await
            }
            Err(error) => Err(TaskError::Read(error)),
        };
        match next {
            Ok(Next::Ended(outcome)) => return Ok(outcome),
            Ok(Next::Again) => continue,
            Ok(Next::Wait) => {}
            Err(TaskError::Moved(error)) => {
                debug!(vm = %task.vm, %error, "a migration's record moved meanwhile");
            }
            Err(TaskError::Read(error)) if unread < WITHOUT_STORE => {
                unread += 1;
                debug!(vm = %task.vm, %error, "a migration's record can't be read now");
            }
            Err(error) => return Err(error),
        }
        let (hint, tick) = (pin!(changes.changed()), pin!(parts.clock.sleep(LOOK_EVERY)));
        select(hint, tick).await;
    }
}

/// How the task goes on.
enum Next {
    Again,
    Wait,
    Ended(TaskOutcome),
}

impl<S: Store, C: Clock, H: Hypervisor, T: Storage> Receiving<'_, S, C, H, T> {
    async fn carry_out(&mut self, seen: &Seen, task: &VmTask) -> Result<Next, TaskError> {
        let step = next_receive_step(&ReceiveView {
            now: seen.now,
            me: &self.parts.me,
            incarnation: &self.parts.incarnation,
            record: &seen.record,
            side: seen.side,
            fit: seen.fit,
            stopping: seen.stopping,
            barred: seen.barred,
            source: seen.source,
            clients_seen: seen.process.is_some() && seen.process == self.recorded_for,
            waiting_since: self.waiting_since,
        });
        match step {
            ReceiveStep::Done => Ok(Next::Ended(TaskOutcome::Done)),
            ReceiveStep::Wait => Ok(Next::Wait),
            ReceiveStep::Accept => self.accept(seen).await,
            ReceiveStep::RecordClients => self.record_clients(seen).await,
            ReceiveStep::EndHalf => {
                end_half(self.parts, self.vm, &seen.record).await?;
                Ok(Next::Again)
            }
            ReceiveStep::GiveBack => {
                give_back(self.parts, self.vm, &seen.record).await?;
                Ok(Next::Ended(TaskOutcome::Done))
            }
            ReceiveStep::TakeOver => self.take_over(seen, task).await.map(Next::Ended),
        }
    }

    async fn accept(&mut self, seen: &Seen) -> Result<Next, TaskError> {
        let volumes = match read_all_volumes(self.parts, self.vm).await {
            Ok(volumes) => volumes,
            Err(VolumesError::Read(error)) => return Err(TaskError::Read(error)),
            Err(error @ VolumesError::Definition(_)) => {
                warn!(vm = %self.vm, %error, "a guest can't be received");
                return Ok(Next::Wait);
            }
        };
        // One that is gone was detached before, or is defined for a later start.
        self.before = match uses_of_existing(self.parts, &volumes).await {
            Ok(seen) => Some(watchers(seen)),
            Err(error) => {
                debug!(vm = %self.vm, %error, "a guest can't be received: its volumes can't be looked at");
                return Ok(Next::Wait);
            }
        };
        let accepted = |incoming: &Incoming| Incoming {
            incarnation: self.parts.incarnation.clone(),
            ceph_clients: CephClients::Unrecorded,
            hand_over: HandOver::Accepted,
            ..incoming.clone()
        };
        self.write_incoming(seen, accepted).await?;
        debug!(vm = %self.vm, "accepted a guest");
        pause::point("vm-accepted");
        Ok(Next::Again)
    }

    async fn write_incoming(
        &self,
        seen: &Seen,
        change: impl FnOnce(&Incoming) -> Incoming,
    ) -> Result<(), TaskError> {
        let Some(incoming) = &seen.record.incoming else {
            return Ok(());
        };
        let txn = Txn::new()
            .check(&keys::fence(&self.parts.me), seen.own_fence_version)
            .set(
                &keys::domain(self.vm).incoming(),
                &Some(change(incoming)),
                seen.record.incoming_version,
            );
        self.parts.store.commit(txn).await?;
        Ok(())
    }

    async fn record_clients(&mut self, seen: &Seen) -> Result<Next, TaskError> {
        if self.before.is_none() && seen.side == TargetSide::Receiving && self.are_on_record(seen, &[]) {
            // What can be known now is written; it is looked at again once the half is complete.
            return Ok(Next::Wait);
        }
        // What comes is what the source had, whatever is defined by now.
        let volumes = match open_volumes(&self.parts.hypervisor, self.vm).await {
            Ok(volumes) => volumes,
            Err(error) => {
                self.end_if_unseen_for_long(seen, &error.to_string()).await?;
                return Ok(Next::Wait);
            }
        };
        let found = match uses(self.parts, &volumes).await {
            Ok(found) => found,
            Err(error) => {
                debug!(vm = %self.vm, %error, "the clients of a guest's half can't be looked at now");
                return Ok(Next::Wait);
            }
        };
        let before = self.before.clone().unwrap_or_default();
        let clients = match opened(self.parts, &volumes, &found, &before, self.of_others) {
            Opened::All(clients) if self.are_on_record(seen, &clients) => {
                self.note_recorded(seen);
                return Ok(Next::Again);
            }
            Opened::All(clients) => clients,
            Opened::Missing(volume) => {
                let what = format!("it does not show its Ceph client on volume {volume}");
                self.end_if_unseen_for_long(seen, &what).await?;
                return Ok(Next::Wait);
            }
        };
        self.unseen_since = None;
        let recorded = |incoming: &Incoming| Incoming {
            incarnation: self.parts.incarnation.clone(),
            ceph_clients: CephClients::Recorded(clients),
            ..incoming.clone()
        };
        self.write_incoming(seen, recorded).await?;
        self.note_recorded(seen);
        pause::point("vm-half-recorded");
        Ok(Next::Again)
    }

    /// A half that has all of the guest and whose clients can't be known is ended after a while, as no fence could bar them.
    async fn end_if_unseen_for_long(&mut self, seen: &Seen, what: &str) -> Result<(), TaskError> {
        let since = *self.unseen_since.get_or_insert(seen.now);
        if seen.side == TargetSide::Complete && seen.now >= since + CLIENTS_WITHIN {
            warn!(vm = %self.vm, "the clients of a guest's half can't be put on record: {what}");
            end_half(self.parts, self.vm, &seen.record).await?;
        }
        Ok(())
    }

    /// The clients on record are those of the process that is here. If it is not known who watched the volumes before,
    /// what was seen may be left of an earlier half, and the real client was not there yet: then only what is seen once
    /// the half is complete counts.
    fn note_recorded(&mut self, seen: &Seen) {
        if self.before.is_some() || seen.side == TargetSide::Complete {
            self.recorded_for.clone_from(&seen.process);
        }
    }

    /// Whether `clients` are all on record, by this life of the agent.
    fn are_on_record(&self, seen: &Seen, clients: &[CephClient]) -> bool {
        seen.record.incoming.as_ref().is_some_and(|incoming| {
            let CephClients::Recorded(list) = &incoming.ceph_clients else {
                return false;
            };
            incoming.incarnation == self.parts.incarnation
                && clients.iter().all(|client| list.contains(client))
        })
    }

    /// This node becomes owner in one transaction; then, and only then, the guest runs.
    async fn take_over(&self, seen: &Seen, task: &VmTask) -> Result<TaskOutcome, TaskError> {
        let (vm, record) = (self.vm, &seen.record);
        let Some(incoming) = &record.incoming else {
            return Ok(TaskOutcome::Done);
        };
        let owner = Owner {
            node: self.parts.me.clone(),
            incarnation: self.parts.incarnation.clone(),
            epoch: next_epoch(record.owner_version),
            ceph_clients: incoming.ceph_clients.clone(),
        };
        let domain = keys::domain(vm);
        let mut txn = Txn::new()
            .check(&keys::fence(&self.parts.me), seen.own_fence_version)
            .set(&domain.owner(), &Some(owner), record.owner_version)
            .set(&domain.incoming(), &None, record.incoming_version);
        let moving = matches!(
            record.state,
            VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate
        );
        txn = if moving {
            txn.set(&domain.state(), &VmState::Start, record.state_version)
        } else {
            txn.check(&domain.state(), record.state_version)
        };
        // A request that was taken back too late: it is here now.
        txn = if record.node == self.parts.me {
            txn.check(&domain.node(), record.node_version)
        } else {
            txn.set(&domain.node(), &self.parts.me, record.node_version)
        };
        let applied = self
            .parts
            .store
            .commit(txn.overwrite(&domain.failed_reason(), &String::new()))
            .await?;
        pause::point("vm-taken-over");
        let version = applied.get(1).and_then(|applied| applied.version());
        // Nothing is let run on old knowledge.
        let owner = self
            .parts
            .store
            .require(&domain.owner())
            .await
            .map_err(TaskError::Read)?;
        if Some(owner.version) != version
            || !self.parts.agent.node_right().holds(self.parts.clock.now())
            || !(moving || record.state == VmState::Start)
        {
            return Ok(TaskOutcome::Done);
        }
        self.parts
            .hypervisor
            .resume(vm)
            .await
            .map_err(TaskError::Hypervisor)?;
        info!(%vm, epoch = owner.value.map(|owner| owner.epoch), from = ?task.record.owner.as_ref().map(|owner| &owner.node), "a guest has come and runs");
        publish_vnc(self.parts, vm).await;
        Ok(TaskOutcome::Started)
    }

    async fn observe(&mut self) -> Result<Seen, ReadError> {
        let domain = keys::domain(self.vm);
        let own_fence = keys::fence(&self.parts.me);
        let mut paths = record_paths(&domain).to_vec();
        paths.push(own_fence.path().to_owned());
        let mut znodes = self.parts.store.read_many(&paths).await?;
        let own_fence = own_fence.decode_required(znodes.pop().flatten().as_ref())?;
        let record = decode_record(self.vm, &znodes)?;
        let source = self.source_fate(&record).await?;
        let (presence, process) = match self.parts.hypervisor.processes() {
            Err(_) => (Presence::Unknown, None),
            Ok(processes) => match processes.into_iter().find(|process| process.vm == self.vm) {
                Some(process) => (Presence::Present, Some(process)),
                None => (Presence::Absent, None),
            },
        };
        let status = match presence {
            Presence::Unknown | Presence::Absent => DomainReading::Unknown,
            Presence::Present => match self.parts.hypervisor.domains().await {
                Err(_) => DomainReading::Unknown,
                Ok(domains) => domains
                    .get(&self.vm)
                    .map_or(DomainReading::Absent, |status| DomainReading::Is(*status)),
            },
        };
        let now = self.parts.clock.now();
        let side = target_side(presence, status);
        let source_gone = record
            .incoming
            .as_ref()
            .is_some_and(|incoming| incoming.hand_over == HandOver::SourceGone);
        self.waiting_since = match self.waiting_since {
            _ if !source_gone || side != TargetSide::Receiving => None,
            Some(since) => Some(since),
            None => Some(now),
        };
        let barred = own_fence
            .value
            .as_ref()
            .is_some_and(|fence| fence.bars(&self.parts.incarnation));
        let phase = self.parts.agent.phase();
        let fit = !barred
            && matches!(phase, AgentPhase::Running | AgentPhase::ShuttingDown)
            && self.parts.agent.node_right().holds(now);
        Ok(Seen {
            record,
            side,
            process,
            now,
            fit,
            stopping: phase == AgentPhase::ShuttingDown,
            barred,
            own_fence_version: own_fence.version,
            source,
        })
    }

    /// Whether the boot that owns the guest has been proven dead.
    async fn source_fate(&self, record: &VmRecord) -> Result<SourceFate, ReadError> {
        let Some(owner) = record.owner.as_ref().filter(|owner| owner.node != self.parts.me) else {
            return Ok(SourceFate::Alive);
        };
        let fence = self.parts.store.require(&keys::fence(&owner.node)).await?;
        Ok(match fence.value {
            Some(record) if Proof::is_evidence_about(&record, &owner.incarnation, self.vm) => {
                SourceFate::ProvenDead
            }
            Some(_) | None => SourceFate::Alive,
        })
    }
}

/// Ends a half that must not be, on what the quorum confirms right before.
async fn end_half<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
    record: &VmRecord,
) -> Result<(), TaskError> {
    let domain = keys::domain(vm);
    let unchanged = Txn::new()
        .check(&domain.owner(), record.owner_version)
        .check(&domain.incoming(), record.incoming_version);
    parts.store.commit(unchanged).await?;
    warn!(%vm, "ending the half of a guest that does not come");
    end_process(parts, vm).await
}

/// Takes this node off the record: there is no half here, and there will be none.
pub(super) async fn give_back<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
    record: &VmRecord,
) -> Result<TaskOutcome, TaskError> {
    if has_process(parts, vm)? {
        return Err(TaskError::StillHere);
    }
    let domain = keys::domain(vm);
    let txn = Txn::new().set(&domain.incoming(), &None, record.incoming_version);
    parts.store.commit(txn).await?;
    info!(%vm, "a guest does not come");
    Ok(TaskOutcome::Done)
}
