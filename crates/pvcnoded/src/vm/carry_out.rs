//! Carries one step of one guest out.

use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreError, StoreExt as _, Txn, ZnodeVersion};
use pvc_core::ids::VmId;
use pvc_core::records::{CephClients, Owner};
use pvc_core::states::VmState;
use pvc_core::vm::{DestroyReason, VmStep};
use tracing::{debug, error, info, warn};

use super::start::start;
use super::volumes::{VolumesError, clear_remnants, read_all_volumes};
use super::{VmParts, VmTask, device, receive, send};
use crate::host::{Changed, EndBy, Hypervisor, HypervisorError, Storage, StorageError};

/// How long a destroyed process is waited for.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// How long a process that libvirt did not end may take to end when asked.
const TERM_FOR: Duration = Duration::from_secs(5);
/// Between two looks at something that should happen soon.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What came of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskOutcome {
    /// It was carried out, or was not to be any more; the next look tells.
    Done,
    /// The guest runs.
    Started,
    /// The guest was asked to shut down.
    ShutdownAsked,
    /// The guest was given up; these had been its Ceph clients.
    Released {
        /// As they stood in the owner record.
        clients: CephClients,
    },
    /// It could not be done now for a passing reason.
    TryLater,
}

/// Why a task could not be carried out. Always a matter of now: the next look decides anew.
#[derive(Debug, thiserror::Error)]
pub(super) enum TaskError {
    #[error("the record has moved")]
    Moved(#[source] StoreError),
    #[error("failed to write the record")]
    Write(#[source] StoreError),
    #[error("failed to read the record")]
    Read(#[source] ReadError),
    #[error("the hypervisor did not do it")]
    Hypervisor(#[source] HypervisorError),
    #[error("failed to read /proc")]
    Processes(#[source] std::io::Error),
    #[error("the storage cluster did not do it")]
    Storage(#[source] StorageError),
    #[error("its process is still here")]
    StillHere,
}

impl From<StoreError> for TaskError {
    fn from(error: StoreError) -> TaskError {
        match error {
            StoreError::NoNode { .. }
            | StoreError::NodeExists { .. }
            | StoreError::BadVersion { .. }
            | StoreError::NotEmpty { .. }
            | StoreError::LockLost { .. } => TaskError::Moved(error),
            StoreError::Unknown { .. }
            | StoreError::Unavailable { .. }
            | StoreError::SessionExpired
            | StoreError::Refused { .. } => TaskError::Write(error),
        }
    }
}

/// Does what `task` says, once. It makes no choices: every write is on condition of what was decided on.
///
/// # Cancellation
/// Not to be dropped half way: run it to its end. Every wait in it is bounded.
pub async fn carry_out<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    task: &VmTask,
) -> TaskOutcome {
    let vm = task.vm;
    let outcome = match &task.step {
        VmStep::Leave(_) => Ok(TaskOutcome::Done),
        VmStep::Claim => start(parts, task).await,
        VmStep::Adopt => adopt(parts, task).await,
        VmStep::Confirm => confirm(parts, task).await,
        VmStep::Resume => resume(parts, task).await,
        VmStep::AskToShutDown => {
            info!(%vm, "asking a guest to shut down");
            match parts.hypervisor.shutdown(vm).await {
                // What libvirt has forgotten can't be asked; its time runs all the same, and then it is ended.
                Ok(()) | Err(HypervisorError::NoDomain { .. }) => Ok(TaskOutcome::ShutdownAsked),
                Err(error @ (HypervisorError::Unavailable { .. } | HypervisorError::Refused { .. })) => {
                    Err(TaskError::Hypervisor(error))
                }
            }
        }
        VmStep::Destroy(reason) => destroy(parts, task, reason).await,
        VmStep::Release { state, .. } => release(parts, task, *state).await,
        VmStep::Settle(state) => settle(parts, task, *state).await,
        VmStep::FailDying => fail_dying(parts, task).await,
        VmStep::Send => send::send(parts, task).await,
        VmStep::Receive => receive::receive(parts, task).await,
        VmStep::SayGone => send::say_gone(parts, task.vm, &task.record).await,
        VmStep::CallOff(why) => send::call_off(parts, task.vm, &task.record, *why, None).await,
        VmStep::GiveBack => receive::give_back(parts, task.vm, &task.record).await,
        VmStep::Device => device::carry_out_order(parts, task).await,
        VmStep::RefuseDevice(reason) => device::refuse_order(parts, task, reason).await,
    };
    outcome.unwrap_or_else(|error| {
        match &error {
            TaskError::Moved(source) => debug!(%vm, error = %source, "a guest's record moved meanwhile"),
            TaskError::Write(source) => warn!(%vm, error = %source, "a guest's record could not be written"),
            TaskError::Read(source) => warn!(%vm, error = %source, "a guest's record could not be read"),
            TaskError::Hypervisor(source) => {
                warn!(%vm, error = %source, "the hypervisor did not do what it was asked")
            }
            TaskError::Processes(source) => {
                error!(%vm, error = %source, "the processes of this host can't be read")
            }
            TaskError::Storage(source) => {
                warn!(%vm, error = %source, "what a guest left on its volumes could not be cleared")
            }
            TaskError::StillHere => error!(%vm, "a guest's process could not be ended"),
        }
        match error {
            TaskError::Moved(_) => TaskOutcome::Done,
            TaskError::Write(_)
            | TaskError::Read(_)
            | TaskError::Hypervisor(_)
            | TaskError::Processes(_)
            | TaskError::Storage(_)
            | TaskError::StillHere => TaskOutcome::TryLater,
        }
    })
}

/// Its process is here under nobody's name and it belongs here: say so, before another node claims it.
async fn adopt<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    task: &VmTask,
) -> Result<TaskOutcome, TaskError> {
    let domain = keys::domain(task.vm);
    let owner = Owner {
        node: parts.me.clone(),
        incarnation: parts.incarnation.clone(),
        epoch: next_epoch(task.record.owner_version),
        ceph_clients: CephClients::Unknown,
    };
    let txn = Txn::new()
        .check(&domain.node(), task.record.node_version)
        .check(&keys::fence(&parts.me), task.fence_version)
        .set(&domain.owner(), &Some(owner), task.record.owner_version);
    parts.store.commit(txn).await?;
    warn!(vm = %task.vm, "took over a guest that was found running; its Ceph clients are not known");
    Ok(TaskOutcome::Done)
}

/// Claims are counted by the owner's version, which no empty value between them resets.
pub(super) fn next_epoch(owner_version: ZnodeVersion) -> u64 {
    u64::try_from(owner_version.0).unwrap_or(0) + 1
}

/// It runs under an earlier life of this agent: this life answers for it from now on.
async fn confirm<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    task: &VmTask,
) -> Result<TaskOutcome, TaskError> {
    let Some(owner) = &task.record.owner else {
        return Ok(TaskOutcome::Done);
    };
    let owner = Owner {
        incarnation: parts.incarnation.clone(),
        ..owner.clone()
    };
    let txn = Txn::new().set(
        &keys::domain(task.vm).owner(),
        &Some(owner),
        task.record.owner_version,
    );
    parts.store.commit(txn).await?;
    info!(vm = %task.vm, "a guest went on running while the agent was away");
    Ok(TaskOutcome::Done)
}

/// Paused by our own start with all on record. The owner is read once more: nothing is let run on old knowledge.
async fn resume<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    task: &VmTask,
) -> Result<TaskOutcome, TaskError> {
    let owner = parts
        .store
        .require(&keys::domain(task.vm).owner())
        .await
        .map_err(TaskError::Read)?;
    if owner.version != task.record.owner_version {
        return Ok(TaskOutcome::Done);
    }
    parts
        .hypervisor
        .resume(task.vm)
        .await
        .map_err(TaskError::Hypervisor)?;
    info!(vm = %task.vm, "a guest runs");
    Ok(TaskOutcome::Started)
}

/// Says where the guest's VNC console listens. Worth no retry: the next start says it again.
pub(super) async fn publish_vnc<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
) {
    let listen = match parts.hypervisor.live_xml(vm).await {
        Ok(xml) => vnc_listen(&xml),
        Err(error) => {
            debug!(%vm, %error, "a guest's console could not be looked up");
            return;
        }
    };
    let txn = Txn::new().overwrite(&keys::domain(vm).vnc(), &listen);
    if let Err(error) = parts.store.commit(txn).await {
        debug!(%vm, %error, "a guest's console could not be published");
    }
}

/// `ADDRESS:PORT` of the VNC console in a live definition; empty if it has none.
fn vnc_listen(xml: &str) -> String {
    let Ok(document) = roxmltree::Document::parse(xml) else {
        return String::new();
    };
    document
        .descendants()
        .filter(|node| node.has_tag_name("graphics") && node.attribute("type") == Some("vnc"))
        .find_map(|node| {
            let port = node.attribute("port").filter(|port| *port != "-1")?;
            let listen = node.attribute("listen").unwrap_or("127.0.0.1");
            Some(format!("{listen}:{port}"))
        })
        .unwrap_or_default()
}

/// Ends a process that must not be. What was read may be old (a server that lags behind, a request that was taken back
/// meanwhile), and no version can be checked in a kill: so it is checked right before, by the quorum.
async fn destroy<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    task: &VmTask,
    reason: &DestroyReason,
) -> Result<TaskOutcome, TaskError> {
    let domain = keys::domain(task.vm);
    let unchanged = Txn::new()
        .check(&domain.owner(), task.record.owner_version)
        .check(&domain.state(), task.record.state_version)
        .check(&domain.node(), task.record.node_version);
    parts.store.commit(unchanged).await?;
    warn!(vm = %task.vm, %reason, "ending a guest's process");
    end_process(parts, task.vm).await?;
    Ok(TaskOutcome::Done)
}

/// Ends the guest's process and looks that it is gone: libvirt's word alone does not count. What libvirt has forgotten,
/// or does not end, is ended by its process id.
pub(super) async fn end_process<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
) -> Result<(), TaskError> {
    let destroyed = parts.hypervisor.destroy(vm).await;
    let begun = parts.clock.now();
    let mut asked: Option<EndBy> = None;
    loop {
        let processes = parts.hypervisor.processes().map_err(TaskError::Processes)?;
        let left: Vec<_> = processes.into_iter().filter(|process| process.vm == vm).collect();
        if left.is_empty() {
            return Ok(());
        }
        let waited = parts.clock.now().since(begun);
        if waited >= GONE_WITHIN {
            return Err(match destroyed {
                Err(error) => TaskError::Hypervisor(error),
                Ok(_) => TaskError::StillHere,
            });
        }
        let by = if waited >= TERM_FOR {
            EndBy::Kill
        } else {
            EndBy::Term
        };
        // libvirt that has taken the order is given its time.
        if asked != Some(by) && (by == EndBy::Kill || !matches!(destroyed, Ok(Changed::Done))) {
            asked = Some(by);
            for process in &left {
                warn!(%vm, pid = process.pid, ?by, "ending a guest's process that libvirt did not end");
                parts
                    .hypervisor
                    .end_process(process, by)
                    .map_err(TaskError::Processes)?;
            }
        }
        parts.clock.sleep(LOOK_EVERY).await;
    }
}

pub(super) fn has_process<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
) -> Result<bool, TaskError> {
    let processes = parts.hypervisor.processes().map_err(TaskError::Processes)?;
    Ok(processes.iter().any(|process| process.vm == vm))
}

/// Its process is gone: give it up, together with what becomes of it.
async fn release<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    task: &VmTask,
    state: Option<VmState>,
) -> Result<TaskOutcome, TaskError> {
    let Some(owner) = &task.record.owner else {
        return Ok(TaskOutcome::Done);
    };
    // SAFETY(fencing): from this write on any node may start the guest. Looked at once more right before it.
    if has_process(parts, task.vm)? {
        return Err(TaskError::StillHere);
    }
    clear_own_remnants(parts, task, owner).await?;
    if has_process(parts, task.vm)? {
        return Err(TaskError::StillHere);
    }
    let domain = keys::domain(task.vm);
    let mut txn = Txn::new()
        .set(&domain.owner(), &None, task.record.owner_version)
        .check(&domain.incoming(), task.record.incoming_version);
    if let Some(state) = state {
        txn = txn.set(&domain.state(), &state, task.record.state_version);
    }
    parts.store.commit(txn).await?;
    info!(vm = %task.vm, state = %state.unwrap_or(task.record.state), "a guest's process is gone; it has no owner now");
    Ok(TaskOutcome::Released {
        clients: owner.ceph_clients.clone(),
    })
}

/// What a killed process has left on its volumes is cleared by its owner, before it gives the guest up: whoever starts it
/// next, on whichever node, would have to take it for a foreign lock. What ended in order has left nothing.
async fn clear_own_remnants<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    task: &VmTask,
    owner: &Owner,
) -> Result<(), TaskError> {
    let vm = task.vm;
    let CephClients::Recorded(clients) = &owner.ceph_clients else {
        return Ok(());
    };
    let volumes = match read_all_volumes(parts, vm).await {
        Ok(volumes) => volumes,
        Err(VolumesError::Read(error)) => return Err(TaskError::Read(error)),
        // It can't be started by anybody as it is.
        Err(VolumesError::Definition(_)) => return Ok(()),
    };
    match clear_remnants(parts, &volumes, clients).await {
        Ok(0) => {}
        Ok(cleared) => info!(%vm, cleared, "cleared what a guest's process left on its volumes"),
        Err(error @ StorageError::NoVolume { .. }) => debug!(%vm, %error, "nothing to clear"),
        // A start here clears it itself.
        Err(error @ StorageError::Failed { .. }) if task.record.node == parts.me => {
            debug!(%vm, %error, "what a guest left on its volumes is cleared at its next start");
        }
        Err(error @ StorageError::Failed { .. }) => return Err(TaskError::Storage(error)),
    }
    Ok(())
}

async fn settle<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    task: &VmTask,
    state: VmState,
) -> Result<TaskOutcome, TaskError> {
    let domain = keys::domain(task.vm);
    let txn = Txn::new()
        .check(&domain.owner(), task.record.owner_version)
        .check(&domain.node(), task.record.node_version)
        .set(&domain.state(), &state, task.record.state_version);
    parts.store.commit(txn).await?;
    Ok(TaskOutcome::Done)
}

async fn fail_dying<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    task: &VmTask,
) -> Result<TaskOutcome, TaskError> {
    let domain = keys::domain(task.vm);
    let reason = "it ended by itself five times within ten minutes; see its console log, then start it again";
    let txn = Txn::new()
        .check(&domain.owner(), task.record.owner_version)
        .set(&domain.state(), &VmState::Fail, task.record.state_version)
        .overwrite(&domain.failed_reason(), &reason.to_owned());
    parts.store.commit(txn).await?;
    error!(vm = %task.vm, reason, "a guest failed");
    Ok(TaskOutcome::Done)
}
