//! Carries out the order to attach or detach a device of a guest that runs here.
//!
//! [`pvc_core::device_order::next_device_step`] says what comes next; this looks, does one step, and looks again. All that
//! has to outlive this agent stands in the order itself. See there for the rule over volumes.

use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::keys::values::CommaList;
use pvc_common::pause;
use pvc_common::store::{Applied, ReadError, Store, StoreError, StoreExt as _, Txn, Versioned, ZnodeVersion};
use pvc_core::device_order::{
    DeviceAction, DeviceOrder, DeviceOrderState, DeviceStep, DeviceView, Fresh, Opens, Plugged, Tried,
    may_begin, next_device_step,
};
use pvc_core::guest_xml::{self, Attachment, Device, DiskAccess, parse_device};
use pvc_core::ids::{CephClient, VolumeId};
use pvc_core::records::{CephClients, Owner};
use pvc_core::time::BootTime;
use pvc_core::vm::DomainReading;
use pvc_core::volume_use::{OwnClients, UseVerdict, judge_volume_use};
use tracing::{info, warn};

use super::carry_out::{LOOK_EVERY, TaskError, TaskOutcome, end_process};
use super::{VmParts, VmTask};
use crate::definition::open_volumes;
use crate::host::{Hypervisor, HypervisorError, Storage};

/// How long an order keeps its guest to itself before the guest is looked at anew. What was tried is forgotten then, so it
/// is longer than all waits together that lead to an end.
const TURN: Duration = Duration::from_secs(60);
/// How often is looked whether something else has been asked of the guest meanwhile.
const LOOK_AT_RECORD_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at a volume that somebody else uses.
const LOOK_AGAIN_EVERY: Duration = Duration::from_millis(500);

/// An order under way.
struct Work<'a, S, C, H, T> {
    parts: &'a VmParts<S, C, H, T>,
    task: &'a VmTask,
    order: DeviceOrder,
    version: ZnodeVersion,
    device: Device,
    owner: Owner,
    owner_version: ZnodeVersion,
    tried: Tried,
    /// When something was last tried.
    last: BootTime,
}

/// What came of one step.
enum Progress {
    /// Look again at once.
    Again,
    /// Look again soon.
    Soon,
    /// The order is closed, or no more can be done about it now.
    Over(TaskOutcome),
}

/// Carries the task's order out, as far as it goes now.
pub(super) async fn carry_out_order<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    task: &VmTask,
) -> Result<TaskOutcome, TaskError> {
    let (Some((order, version)), Some(owner)) = (&task.device, &task.record.owner) else {
        return Ok(TaskOutcome::Done);
    };
    let device = match parse_device(&order.xml) {
        Ok(device) => device,
        Err(error) => return refuse_order(parts, task, &error.to_string()).await,
    };
    let mut work = Work {
        parts,
        task,
        order: order.clone(),
        version: *version,
        device,
        owner: owner.clone(),
        owner_version: task.record.owner_version,
        tried: Tried::default(),
        last: parts.clock.now(),
    };
    let begun = work.last;
    let mut looked = begun;
    loop {
        let step = work.next().await?;
        match work.carry_out(step).await? {
            Progress::Over(outcome) => return Ok(outcome),
            Progress::Again => {}
            Progress::Soon => {
                let now = parts.clock.now();
                if now.since(begun) >= TURN {
                    return Ok(TaskOutcome::TryLater);
                }
                if now.since(looked) >= LOOK_AT_RECORD_EVERY {
                    looked = now;
                    if work.is_asked_otherwise().await? {
                        return Ok(TaskOutcome::TryLater);
                    }
                }
                parts.clock.sleep(LOOK_EVERY).await;
            }
        }
    }
}

/// Says that the task's order is not carried out.
pub(super) async fn refuse_order<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    task: &VmTask,
    reason: &str,
) -> Result<TaskOutcome, TaskError> {
    let Some((order, version)) = &task.device else {
        return Ok(TaskOutcome::Done);
    };
    warn!(vm = %task.vm, action = ?order.action, reason, "a device order was not carried out");
    let failed = DeviceOrder {
        state: DeviceOrderState::Failed {
            reason: reason.to_owned(),
        },
        ..order.clone()
    };
    let txn = Txn::new().set(&keys::device_order(task.vm), &Some(failed), *version);
    parts.store.commit(txn).await?;
    Ok(TaskOutcome::Done)
}

impl<S: Store, C: Clock, H: Hypervisor, T: Storage> Work<'_, S, C, H, T> {
    async fn next(&self) -> Result<DeviceStep, TaskError> {
        let vm = self.task.vm;
        let domain = match self.parts.hypervisor.domains().await {
            Ok(domains) => domains
                .get(&vm)
                .map_or(DomainReading::Absent, |status| DomainReading::Is(*status)),
            Err(_) => DomainReading::Unknown,
        };
        let plugged = match self.parts.hypervisor.live_xml(vm).await {
            Ok(xml) => match self.device.in_guest(&xml) {
                Ok(Attachment::Present) => Plugged::In,
                Ok(Attachment::Absent) => Plugged::Out,
                Ok(Attachment::Taken { by }) => Plugged::Taken { by },
                Err(_) => Plugged::Unknown,
            },
            Err(_) => Plugged::Unknown,
        };
        // Last of all: whoever is there by now has been opened before this look, not after.
        let fresh = self.fresh().await;
        Ok(next_device_step(&DeviceView {
            order: &self.order,
            opens: self.opens(),
            domain,
            plugged,
            fresh: &fresh,
            epoch: self.owner.epoch,
            tried: &self.tried,
            waited: self.parts.clock.now().since(self.last),
        }))
    }

    /// Whether another state of the guest was asked for since this was decided on: a stop has not to wait.
    async fn is_asked_otherwise(&self) -> Result<bool, TaskError> {
        let key = keys::domain(self.task.vm).state();
        let state = self.parts.store.get(&key).await.map_err(TaskError::Read)?;
        Ok(state.is_none_or(|state| state.version != self.task.record.state_version))
    }

    fn volume(&self) -> Option<(&VolumeId, DiskAccess)> {
        self.device
            .volume()
            .filter(|(_, access)| *access != DiskAccess::ReadOnly)
    }

    fn opens(&self) -> Opens {
        match self.volume() {
            Some(_) => Opens::WritableVolume,
            None => Opens::Nothing,
        }
    }

    /// Who at our own addresses has the volume open and was not there before.
    async fn fresh(&self) -> Fresh {
        let (Some((volume, _)), DeviceOrderState::Working { before, .. }, DeviceAction::Attach) =
            (self.volume(), &self.order.state, self.order.action)
        else {
            return Fresh::Clients(Vec::new());
        };
        let Ok(seen) = self.parts.storage.volume_use(volume).await else {
            return Fresh::Unknown;
        };
        let recorded = recorded(&self.owner);
        let mut clients: Vec<CephClient> = seen
            .watchers
            .into_iter()
            .chain(seen.locks.into_iter().map(|lock| lock.client))
            .filter(|client| {
                self.parts.storage_addresses.contains(&client.ip())
                    && !before.contains(client)
                    && !recorded.contains(client)
                    && !self.task.clients_of_others.contains(client)
            })
            .collect();
        clients.sort();
        clients.dedup();
        Fresh::Clients(clients)
    }

    async fn carry_out(&mut self, step: DeviceStep) -> Result<Progress, TaskError> {
        let vm = self.task.vm;
        match step {
            DeviceStep::Wait => Ok(Progress::Soon),
            DeviceStep::Begin => self.begin().await,
            DeviceStep::Suspend => {
                pause::point("device-suspend");
                match self.parts.hypervisor.suspend(vm).await {
                    Ok(()) => Ok(Progress::Again),
                    Err(HypervisorError::Refused { message }) => {
                        self.tried.refusal = Some(message);
                        Ok(Progress::Soon)
                    }
                    Err(HypervisorError::Unavailable { .. } | HypervisorError::NoDomain { .. }) => {
                        Ok(Progress::Soon)
                    }
                }
            }
            DeviceStep::Attach => {
                pause::point("device-attach");
                self.tried.attach = true;
                let outcome = self.parts.hypervisor.attach_device(vm, &self.order.xml).await;
                pause::point("device-attached");
                Ok(self.asked(outcome))
            }
            DeviceStep::Detach => {
                self.tried.detach = self.tried.detach.saturating_add(1);
                let outcome = self.parts.hypervisor.detach_device(vm, &self.order.xml).await;
                // Of a volume that was just attached what counts is whether it came off, not what was said.
                let outcome = match self.order.action {
                    DeviceAction::Detach => outcome,
                    DeviceAction::Attach => Ok(()),
                };
                Ok(self.asked(outcome))
            }
            DeviceStep::Record(clients) => self.record(clients).await,
            DeviceStep::Resume => {
                if self.resume().await? {
                    Ok(Progress::Again)
                } else {
                    Ok(Progress::Soon)
                }
            }
            DeviceStep::ResumeAndFail(reason) => {
                if self.resume().await? {
                    self.close(DeviceOrderState::Failed { reason }).await
                } else {
                    Ok(Progress::Soon)
                }
            }
            DeviceStep::Finish => self.close(DeviceOrderState::Done).await,
            DeviceStep::Fail(reason) => self.close(DeviceOrderState::Failed { reason }).await,
            DeviceStep::EndGuest(reason) => {
                // As every end of a process: on condition that the record is what was decided on.
                let domain = keys::domain(vm);
                let unchanged = Txn::new()
                    .check(&domain.owner(), self.owner_version)
                    .check(&keys::device_order(vm), self.version);
                self.parts.store.commit(unchanged).await?;
                warn!(%vm, reason, "ending a guest that has opened a volume which can't be put on record");
                end_process(self.parts, vm).await?;
                let reason = format!("the guest was ended: {reason}");
                self.close(DeviceOrderState::Failed { reason }).await
            }
        }
    }

    fn asked(&mut self, outcome: Result<(), HypervisorError>) -> Progress {
        self.last = self.parts.clock.now();
        match outcome {
            Ok(()) => Progress::Again,
            Err(HypervisorError::Refused { message }) => {
                self.tried.refusal = Some(message);
                Progress::Again
            }
            // What came of it shows.
            Err(HypervisorError::Unavailable { .. } | HypervisorError::NoDomain { .. }) => Progress::Soon,
        }
    }

    async fn begin(&mut self) -> Result<Progress, TaskError> {
        let vm = self.task.vm;
        let fail = |reason: String| DeviceOrderState::Failed { reason };
        if let Err(reason) = may_begin(&self.owner, self.opens()) {
            return self.close(fail(reason)).await;
        }
        let domain = keys::domain(vm);
        let mut txn = Txn::new()
            .check(&domain.owner(), self.owner_version)
            .check(&domain.node(), self.task.record.node_version)
            .check(&domain.state(), self.task.record.state_version)
            .check(&domain.incoming(), self.task.record.incoming_version)
            .check(&keys::fence(&self.parts.me), self.task.fence_version);
        let mut before = Vec::new();
        if self.order.action == DeviceAction::Attach && matches!(self.device, Device::Disk(_)) {
            let xml = self
                .parts
                .store
                .require(&domain.xml())
                .await
                .map_err(TaskError::Read)?;
            // What is not in the definition belongs to nobody: another guest could be given it.
            if self.device.in_guest(&xml.value) != Ok(Attachment::Present) {
                let reason = format!(
                    "{} is not in the guest's definition; add it there first",
                    self.device.describe()
                );
                return self.close(fail(reason)).await;
            }
            txn = txn.check(&domain.xml(), xml.version);
            match self.look_at_volume().await {
                Ok(watchers) => before = watchers,
                Err(reason) => return self.close(fail(reason)).await,
            }
        }
        // SAFETY(fencing): others may have taken this node for dead while it stood still.
        if !self.parts.agent.node_right().holds(self.parts.clock.now()) {
            return Ok(Progress::Over(TaskOutcome::TryLater));
        }
        self.order.state = DeviceOrderState::Working {
            epoch: self.owner.epoch,
            before,
        };
        let txn = txn.set(&keys::device_order(vm), &Some(self.order.clone()), self.version);
        let applied = self.parts.store.commit(txn).await?;
        self.version = last_version(&applied, self.version);
        self.last = self.parts.clock.now();
        info!(%vm, action = ?self.order.action, device = self.device.describe(), "working on a device of a guest");
        pause::point("device-working");
        Ok(Progress::Again)
    }

    /// The second look: who has the volume open that is to be attached. Nothing is cleared here.
    async fn look_at_volume(&self) -> Result<Vec<CephClient>, String> {
        let Some((volume, access)) = self.volume() else {
            return Ok(Vec::new());
        };
        let own = OwnClients {
            node_addresses: self.parts.storage_addresses.clone(),
            floating_addresses: self.parts.floating_addresses.clone(),
            recorded: Vec::new(),
            of_others: self.task.clients_of_others.clone(),
        };
        let begun = self.parts.clock.now();
        loop {
            let seen = self
                .parts
                .storage
                .volume_use(volume)
                .await
                .map_err(|error| error.to_string())?;
            let waited = self.parts.clock.now().since(begun);
            let verdict = match access {
                DiskAccess::Shared => UseVerdict::Free,
                DiskAccess::ReadWrite | DiskAccess::ReadOnly => judge_volume_use(&seen, &own, waited),
            };
            match verdict {
                UseVerdict::Free => return Ok(seen.watchers),
                UseVerdict::LookAgain(_) => self.parts.clock.sleep(LOOK_AGAIN_EVERY).await,
                UseVerdict::Taken(obstacle) => {
                    return Err(format!(
                        "volume {volume} has {obstacle}, which is not of this guest's making"
                    ));
                }
                UseVerdict::Stale { .. } => {
                    return Err(format!(
                        "volume {volume} is still open on this node; if it was detached just now, try again in a minute"
                    ));
                }
            }
        }
    }

    /// Puts the clients on record, together with the word that they are: one without the other never stands there.
    async fn record(&mut self, clients: Vec<CephClient>) -> Result<Progress, TaskError> {
        let vm = self.task.vm;
        let mut all = recorded(&self.owner).to_vec();
        all.extend(clients);
        all.sort();
        all.dedup();
        let owner = Owner {
            ceph_clients: CephClients::Recorded(all),
            ..self.owner.clone()
        };
        let order = DeviceOrder {
            state: DeviceOrderState::Recorded { epoch: owner.epoch },
            ..self.order.clone()
        };
        let txn = Txn::new()
            .check(&keys::fence(&self.parts.me), self.task.fence_version)
            .set(
                &keys::domain(vm).owner(),
                &Some(owner.clone()),
                self.owner_version,
            )
            .set(&keys::device_order(vm), &Some(order.clone()), self.version);
        let applied = self.parts.store.commit(txn).await?;
        if let Some(version) = applied.get(1).and_then(|applied| applied.version()) {
            self.owner_version = version;
        }
        self.version = last_version(&applied, self.version);
        self.owner = owner;
        self.order = order;
        pause::point("device-recorded");
        Ok(Progress::Again)
    }

    /// Lets the vCPUs run, if the guest is still ours. Says whether libvirt has done it.
    async fn resume(&self) -> Result<bool, TaskError> {
        let vm = self.task.vm;
        let owner: Versioned<Option<Owner>> = self
            .parts
            .store
            .require(&keys::domain(vm).owner())
            .await
            .map_err(|error: ReadError| TaskError::Read(error))?;
        if owner.version != self.owner_version {
            return Ok(false);
        }
        match self.parts.hypervisor.resume(vm).await {
            Ok(()) => Ok(true),
            Err(error) => {
                warn!(%vm, %error, "a guest could not be let run again yet");
                Ok(false)
            }
        }
    }

    /// What takes the detached volume off the guest's list, if its definition does not have it any more: others may be given
    /// it from then on.
    async fn unlisted(&self) -> Result<Txn, TaskError> {
        let Some((volume, _)) = self.device.volume() else {
            return Ok(Txn::new());
        };
        let domain = keys::domain(self.task.vm);
        let store = &self.parts.store;
        let xml = store.require(&domain.xml()).await.map_err(TaskError::Read)?;
        let listed = store.require(&domain.volumes()).await.map_err(TaskError::Read)?;
        let taken_out = guest_xml::parse(&xml.value)
            .is_ok_and(|guest| !guest.volumes().any(|(defined, _)| defined == volume));
        if !taken_out || !listed.value.0.contains(volume) {
            return Ok(Txn::new());
        }
        // It may be there in another place.
        match open_volumes(&self.parts.hypervisor, self.task.vm).await {
            Ok(open) if !open.contains_key(volume) => {}
            Ok(_) | Err(_) => return Ok(Txn::new()),
        }
        let rest = listed.value.0.iter().filter(|other| *other != volume);
        let rest = CommaList(rest.cloned().collect());
        Ok(Txn::new()
            .check(&domain.owner(), self.owner_version)
            .check(&domain.xml(), xml.version)
            .set(&domain.volumes(), &rest, listed.version))
    }

    async fn close(&mut self, state: DeviceOrderState) -> Result<Progress, TaskError> {
        let vm = self.task.vm;
        let device = self.device.describe();
        match &state {
            DeviceOrderState::Failed { reason } => {
                warn!(%vm, action = ?self.order.action, device, reason, "a device order failed");
            }
            DeviceOrderState::Ordered
            | DeviceOrderState::Working { .. }
            | DeviceOrderState::Recorded { .. }
            | DeviceOrderState::Done => {
                info!(%vm, action = ?self.order.action, device, "a device order is done");
            }
        }
        let detached = state == DeviceOrderState::Done && self.order.action == DeviceAction::Detach;
        let unlisted = if detached {
            self.unlisted().await?
        } else {
            Txn::new()
        };
        self.order.state = state;
        let txn = unlisted.set(&keys::device_order(vm), &Some(self.order.clone()), self.version);
        match self.parts.store.commit(txn).await {
            Ok(_) => Ok(Progress::Over(TaskOutcome::Done)),
            Err(error @ StoreError::Unknown { .. }) => Err(TaskError::Write(error)),
            Err(error) => Err(error.into()),
        }
    }
}

fn recorded(owner: &Owner) -> &[CephClient] {
    match &owner.ceph_clients {
        CephClients::Recorded(clients) => clients,
        CephClients::Unrecorded | CephClients::Unknown => &[],
    }
}

/// The version of what the transaction wrote last.
fn last_version(applied: &[Applied], before: ZnodeVersion) -> ZnodeVersion {
    applied
        .last()
        .and_then(|applied| applied.version())
        .unwrap_or(before)
}
