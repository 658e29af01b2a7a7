//! Starts a guest: claim, second look, create paused, record its Ceph clients, resume.
//!
//! ```text
//!  owner: none → me        nobody else may create a process from here on
//!  second look             a lock or watcher that is not ours ends the start
//!  node lease holds?       an agent that was frozen gives up here
//!  create, vCPUs paused    the Ceph clients open now
//!  owner.ceph_clients      from here on a fence can bar them
//!  owner read again        still me: let it run
//! ```
//!
//! No vCPU ever runs with a Ceph client that is not on record. An agent that dies between two of these leaves either
//! nothing, or a paused process without recorded clients, which its next life ends.

use std::collections::BTreeMap;
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::keys::values::CommaList;
use pvc_common::pause;
use pvc_common::store::{Store, StoreError, StoreExt as _, Txn, ZnodeVersion};
use pvc_core::guest_xml::DiskAccess;
use pvc_core::ids::{CephClient, VmId, VolumeId};
use pvc_core::protection::{Protection, stands};
use pvc_core::records::{CephClients, Owner};
use pvc_core::states::VmState;
use pvc_core::volume_use::{OwnClients, UseVerdict, VolumeUse, judge_volume_use};
use tracing::{info, warn};

use super::carry_out::{
    LOOK_EVERY, TaskError, TaskOutcome, end_process, has_process, next_epoch, publish_vnc,
};
use super::volumes::{Opened, VolumesError, opened, read_volumes, uses, watchers};
use super::{VmParts, VmTask};
use crate::definition::{Stored, Volumes};
use crate::host::{Hypervisor, HypervisorError, Storage, StorageError};

/// How long QEMU may take to open its volumes.
const CLIENTS_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks at a volume that somebody else uses.
const LOOK_AGAIN_EVERY: Duration = Duration::from_millis(500);
/// How long the look at the volumes, and clearing them, may take in all.
const SECOND_LOOK_WITHIN: Duration = Duration::from_secs(30);

/// Why a start does not go on.
#[derive(Debug)]
enum Stop {
    /// The guest can't be started until somebody does something about it: state `fail`, with this reason.
    Fail(String),
    /// Something does not answer now: given up for the moment, tried again soon. The reason is shown meanwhile.
    Later(String),
    /// What was decided on does not hold any more.
    Moved(StoreError),
    /// This agent may not act any more, and must not write either.
    Error(TaskError),
}

impl From<TaskError> for Stop {
    fn from(error: TaskError) -> Stop {
        Stop::Error(error)
    }
}

impl From<VolumesError> for Stop {
    fn from(error: VolumesError) -> Stop {
        match error {
            VolumesError::Read(error) => Stop::Error(TaskError::Read(error)),
            VolumesError::Definition(_) => Stop::Fail(error.to_string()),
        }
    }
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Stop {
        match error {
            StorageError::NoVolume { .. } => Stop::Fail(error.to_string()),
            StorageError::Failed { .. } => Stop::Later(error.to_string()),
        }
    }
}

/// Makes this node the owner of the guest and starts it.
pub(super) async fn start<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    task: &VmTask,
) -> Result<TaskOutcome, TaskError> {
    let domain = keys::domain(task.vm);
    let owner = Owner {
        node: parts.me.clone(),
        incarnation: parts.incarnation.clone(),
        epoch: next_epoch(task.record.owner_version),
        ceph_clients: CephClients::Unrecorded,
    };
    let claim = Txn::new()
        .check(&domain.node(), task.record.node_version)
        .check(&domain.state(), task.record.state_version)
        .check(&keys::fence(&parts.me), task.fence_version);
    let claim = if stands(Protection::StartNeedsOwner) {
        claim
            .set(&domain.owner(), &Some(owner.clone()), task.record.owner_version)
            .check(&domain.incoming(), task.record.incoming_version)
    } else {
        claim.overwrite(&domain.owner(), &Some(owner.clone()))
    };
    let applied = parts.store.commit(claim).await?;
    let Some(version) = applied.get(3).and_then(|applied| applied.version()) else {
        return Ok(TaskOutcome::TryLater);
    };
    info!(vm = %task.vm, epoch = owner.epoch, "claimed a guest");
    pause::point("vm-claimed");
    let mut starting = Starting {
        parts,
        task,
        owner,
        version,
    };
    match starting.run().await {
        Ok(()) => Ok(TaskOutcome::Started),
        Err(stop) => starting.give_up(stop).await,
    }
}

struct Starting<'a, S, C, H, T> {
    parts: &'a VmParts<S, C, H, T>,
    task: &'a VmTask,
    owner: Owner,
    version: ZnodeVersion,
}

impl<S: Store, C: Clock, H: Hypervisor, T: Storage> Starting<'_, S, C, H, T> {
    async fn run(&mut self) -> Result<(), Stop> {
        let vm = self.task.vm;
        let (stored, volumes) = read_volumes(self.parts, vm).await?;
        self.list_volumes(&stored, &volumes).await?;
        let before = self.second_look(&volumes).await?;
        if has_process(self.parts, vm)? {
            return Err(Stop::Later("a process of it is already on this node".to_owned()));
        }
        // SAFETY(fencing): others may have taken this node for dead while it stood still.
        if !self.parts.agent.node_right().holds(self.parts.clock.now()) {
            return Err(Stop::Later("this node's lease has ended".to_owned()));
        }
        pause::point("vm-create");
        self.parts
            .hypervisor
            .create_paused(vm, &stored.xml.value)
            .await
            .map_err(|error| match error {
                HypervisorError::Refused { message } => Stop::Fail(message),
                HypervisorError::Unavailable { .. } | HypervisorError::NoDomain { .. } => {
                    Stop::Later(error.to_string())
                }
            })?;
        if stands(Protection::ResumeAfterClientsRecorded) {
            self.put_clients_on_record(&volumes, &before).await?;
            self.resume().await?;
        } else {
            self.resume().await?;
            self.put_clients_on_record(&volumes, &before).await?;
        }
        info!(%vm, "a guest runs");
        publish_vnc(self.parts, vm).await;
        Ok(())
    }

    /// The guest's record lists those volumes and no others: what was taken out of the definition is not opened any more.
    async fn list_volumes(&self, stored: &Stored, volumes: &Volumes) -> Result<(), Stop> {
        let Some(listed) = &stored.listed else {
            return Ok(());
        };
        if listed.value.0.len() == volumes.len() && stored.listed().all(|volume| volumes.contains_key(volume))
        {
            return Ok(());
        }
        let domain = keys::domain(self.task.vm);
        let txn = Txn::new()
            .check(&domain.owner(), self.version)
            .check(&domain.xml(), stored.xml.version)
            .set(
                &domain.volumes(),
                &CommaList(volumes.keys().cloned().collect()),
                listed.version,
            );
        match self.parts.store.commit(txn).await {
            Ok(_) => Ok(()),
            Err(error @ (StoreError::BadVersion { .. } | StoreError::NoNode { .. })) => {
                Err(Stop::Moved(error))
            }
            Err(error) => Err(Stop::Error(error.into())),
        }
    }

    async fn put_clients_on_record(
        &mut self,
        volumes: &Volumes,
        before: &BTreeMap<VolumeId, Vec<CephClient>>,
    ) -> Result<(), Stop> {
        let clients = self.opened_clients(volumes, before).await?;
        self.record_clients(clients).await?;
        pause::point("vm-recorded");
        Ok(())
    }

    /// Lets it run, if it is still ours.
    async fn resume(&self) -> Result<(), Stop> {
        let vm = self.task.vm;
        let owner = self
            .parts
            .store
            .require(&keys::domain(vm).owner())
            .await
            .map_err(TaskError::Read)?;
        if owner.version != self.version {
            return Err(Stop::Later("it has another owner now".to_owned()));
        }
        self.parts
            .hypervisor
            .resume(vm)
            .await
            .map_err(|error| Stop::Later(error.to_string()))
    }

    fn own_clients(&self) -> OwnClients {
        OwnClients {
            node_addresses: self.parts.storage_addresses.clone(),
            floating_addresses: self.parts.floating_addresses.clone(),
            recorded: self.task.recorded_clients.clone(),
            of_others: self.task.clients_of_others.clone(),
        }
    }

    /// Looks who uses the volumes until nobody does. Remnants of this guest's own earlier lives here are cleared;
    /// anything else makes the start fail with nothing removed. Answers with the watchers that were there at the end.
    async fn second_look(&self, volumes: &Volumes) -> Result<BTreeMap<VolumeId, Vec<CephClient>>, Stop> {
        let own = self.own_clients();
        let begun = self.parts.clock.now();
        let mut cleared = Vec::new();
        loop {
            let seen = uses(self.parts, volumes).await?;
            let waited = self.parts.clock.now().since(begun);
            let verdicts: Vec<_> = seen
                .iter()
                .filter(|(volume, _)| volumes.get(*volume) != Some(&DiskAccess::Shared))
                .map(|(volume, seen)| (volume, judge_volume_use(&without(seen, &cleared), &own, waited)))
                .collect();
            if let Some((volume, obstacle)) = verdicts.iter().find_map(|(volume, verdict)| match verdict {
                UseVerdict::Taken(obstacle) => Some((volume, obstacle)),
                UseVerdict::Free | UseVerdict::LookAgain(_) | UseVerdict::Stale { .. } => None,
            }) {
                return Err(Stop::Fail(format!(
                    "volume {volume} has {obstacle}, which is not of this node's making"
                )));
            }
            if verdicts
                .iter()
                .any(|(_, verdict)| matches!(verdict, UseVerdict::LookAgain(_)))
            {
                self.parts.clock.sleep(LOOK_AGAIN_EVERY).await;
                continue;
            }
            let stale: Vec<_> = verdicts
                .into_iter()
                .filter_map(|(volume, verdict)| match verdict {
                    UseVerdict::Stale { clients, locks } => Some((volume.clone(), clients, locks)),
                    UseVerdict::Free | UseVerdict::LookAgain(_) | UseVerdict::Taken(_) => None,
                })
                .collect();
            if stale.is_empty() {
                return Ok(watchers(seen));
            }
            if waited >= SECOND_LOOK_WITHIN {
                return Err(Stop::Later(
                    "what an earlier life of it left on its volumes does not go away".to_owned(),
                ));
            }
            self.clear(&stale, &mut cleared).await?;
        }
    }

    /// Bars the clients of our own earlier lives, then removes their locks.
    async fn clear(
        &self,
        stale: &[(VolumeId, Vec<CephClient>, Vec<crate::host::RbdLock>)],
        cleared: &mut Vec<CephClient>,
    ) -> Result<(), Stop> {
        // SAFETY(fencing): only clients at this node's own addresses, only while this node owns the guest, and only
        // with no process of it in /proc.
        if has_process(self.parts, self.task.vm)? {
            return Err(Stop::Later("a process of it is already on this node".to_owned()));
        }
        let clients: Vec<CephClient> = stale.iter().flat_map(|(_, clients, _)| clients.clone()).collect();
        warn!(vm = %self.task.vm, ?clients, "clearing what an earlier life of a guest left on its volumes");
        self.parts.storage.blocklist(&clients).await?;
        for (volume, _, locks) in stale {
            for lock in locks {
                self.parts.storage.remove_lock(volume, lock).await?;
            }
        }
        cleared.extend(clients);
        Ok(())
    }

    /// The clients that the new process has opened: watchers at our own address that were not there before, at least
    /// one per volume that it writes.
    async fn opened_clients(
        &self,
        volumes: &Volumes,
        before: &BTreeMap<VolumeId, Vec<CephClient>>,
    ) -> Result<Vec<CephClient>, Stop> {
        let deadline = self.parts.clock.now() + CLIENTS_WITHIN;
        loop {
            let seen = uses(self.parts, volumes).await?;
            let volume = match opened(self.parts, volumes, &seen, before, &[]) {
                Opened::All(clients) => return Ok(clients),
                Opened::Missing(volume) => volume,
            };
            if self.parts.clock.now() >= deadline {
                return Err(Stop::Fail(format!(
                    "QEMU did not open volume {volume} within {} s (no watcher of this node)",
                    CLIENTS_WITHIN.as_secs()
                )));
            }
            self.parts.clock.sleep(LOOK_EVERY).await;
        }
    }

    async fn record_clients(&mut self, clients: Vec<CephClient>) -> Result<(), Stop> {
        let domain = keys::domain(self.task.vm);
        self.owner.ceph_clients = CephClients::Recorded(clients);
        let txn = Txn::new()
            .check(&keys::fence(&self.parts.me), self.task.fence_version)
            .set(&domain.owner(), &Some(self.owner.clone()), self.version)
            .overwrite(&domain.failed_reason(), &String::new());
        let applied = self
            .parts
            .store
            .commit(txn)
            .await
            .map_err(|error| match TaskError::from(error) {
                TaskError::Moved(error) => Stop::Moved(error),
                other @ (TaskError::Write(_)
                | TaskError::Read(_)
                | TaskError::Hypervisor(_)
                | TaskError::Processes(_)
                | TaskError::Storage(_)
                | TaskError::StillHere) => Stop::Error(other),
            })?;
        if let Some(version) = applied.get(1).and_then(|applied| applied.version()) {
            self.version = version;
        }
        Ok(())
    }

    /// The start does not go on: no process may be left, and then the guest is given up.
    async fn give_up(&self, stop: Stop) -> Result<TaskOutcome, TaskError> {
        let vm = self.task.vm;
        end_process(self.parts, vm).await?;
        let (state, reason) = match stop {
            Stop::Fail(reason) => (Some(VmState::Fail), reason),
            Stop::Later(reason) => (None, format!("not started yet: {reason}")),
            Stop::Moved(error) => (None, format!("not started: {error}")),
            Stop::Error(error) => return Err(error),
        };
        warn!(%vm, %reason, "a guest was not started");
        let released = self.release(vm, state, &reason).await;
        match released {
            // Somebody wrote another state meanwhile, a stop perhaps: that counts.
            Err(StoreError::BadVersion { index: 1, .. }) => self.release(vm, None, &reason).await?,
            other => other?,
        }
        Ok(TaskOutcome::TryLater)
    }

    async fn release(&self, vm: VmId, state: Option<VmState>, reason: &str) -> Result<(), StoreError> {
        let domain = keys::domain(vm);
        let mut txn = Txn::new().set(&domain.owner(), &None, self.version);
        if let Some(state) = state {
            txn = txn.set(&domain.state(), &state, self.task.record.state_version);
        }
        self.parts
            .store
            .commit(txn.overwrite(&domain.failed_reason(), &reason.to_owned()))
            .await
            .map(|_| ())
    }
}

/// What is left of a use when the clients that were barred already are not counted: their watches drop at once, but
/// may be listed for a moment.
fn without(seen: &VolumeUse, cleared: &[CephClient]) -> VolumeUse {
    VolumeUse {
        watchers: seen
            .watchers
            .iter()
            .filter(|client| !cleared.contains(client))
            .cloned()
            .collect(),
        locks: seen.locks.clone(),
    }
}
