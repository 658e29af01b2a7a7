//! Removing the locks that a dead client has left on a guest's volumes.
//!
//! The guest's node does it; this writes the order and shows what has become of it.

use pvc_api::vm::{LockFlushStatus, RemovedLock};
use pvc_common::keys;
use pvc_common::mirror::View;
use pvc_common::store::{Store, StoreError, StoreExt, Txn};
use pvc_core::ids::VmId;
use pvc_core::lock_flush::{LockFlush, LockFlushState, may_flush_locks};
use pvc_core::states::DaemonState;

use super::record::{Record, unknown};
use super::transition::Force;
use super::{By, RETRIES};
use crate::error::ApiError;

/// Orders the guest's node to remove the locks of its volumes.
///
/// # Idempotence
/// An order that nobody has carried out yet is answered with, without a write.
pub(crate) async fn order<S: Store>(
    store: &S,
    id: VmId,
    force: Force,
    by: &By<'_>,
) -> Result<LockFlush, ApiError> {
    let key = keys::lock_flush(id);
    for _ in 0..RETRIES {
        let record = Record::require(store, id).await?;
        let forced = force == Force::Yes;
        may_flush_locks(
            record.state.value,
            record.owner.value.as_ref(),
            record.incoming.value.as_ref(),
            forced,
        )
        .map_err(|denied| ApiError::conflict(format!("VM {}: {denied}", record.name)))?;
        let node = &record.node.value;
        let daemon_state = store.require(&keys::node(node).daemon_state()).await?.value;
        if daemon_state != DaemonState::Run {
            return Err(ApiError::conflict(format!(
                "VM {}: its node {node} would have to do it, and its agent is in state {daemon_state}, not run; move the \
                 VM to another node first",
                record.name
            )));
        }
        let found = store.get(&key).await?;
        if let Some(Some(order)) = found.as_ref().map(|found| &found.value)
            && order.state.is_open()
            && order.node == *node
        {
            return Ok(order.clone());
        }
        let order = LockFlush {
            id: uuid::Uuid::new_v4().to_string(),
            by: by.who.to_string(),
            at: by.at,
            node: node.clone(),
            force: forced,
            state: LockFlushState::Ordered,
            removed: Vec::new(),
        };
        let txn = match found {
            Some(found) => Txn::new().set(&key, &Some(order.clone()), found.version),
            None => Txn::new().create(&key, &Some(order.clone())),
        };
        // It must still be there, and as it was looked at.
        let guest = keys::domain(id);
        let txn = txn
            .check(&guest.state(), record.state.version)
            .check(&guest.node(), record.node.version)
            .check(&guest.owner(), record.owner.version)
            .check(&guest.incoming(), record.incoming.version);
        match store.commit(txn).await {
            Ok(_) => {
                tracing::warn!(vm = %id, name = %record.name, %node, forced, by = %by.who, "removal of locks ordered");
                return Ok(order);
            }
            // The first order of this cluster, or the guest was removed.
            Err(StoreError::NoNode { .. }) => {
                ensure_place(store).await?;
            }
            Err(StoreError::BadVersion { .. } | StoreError::NodeExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The order to remove locks"))
}

/// Makes the place for orders, if it is not there.
pub(super) async fn ensure_place<S: Store>(store: &S) -> Result<(), ApiError> {
    let place = keys::lock_flushes();
    if store.read(place.path()).await?.is_some() {
        return Ok(());
    }
    match store.commit(Txn::new().create_path(place.path(), "")).await {
        Ok(_) | Err(StoreError::NodeExists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What has become of the last order.
pub(crate) fn show(view: &View, id: VmId) -> Result<LockFlushStatus, ApiError> {
    let name = view
        .get(&keys::domain(id).name())?
        .ok_or_else(|| unknown(&id.to_string()))?
        .value;
    let order = view
        .get(&keys::lock_flush(id))?
        .and_then(|found| found.value)
        .ok_or_else(|| {
            ApiError::not_found(format!("Nobody has ordered the locks of VM {name} to be removed"))
        })?;
    let (state, reason) = match order.state {
        LockFlushState::Ordered => ("ordered", String::new()),
        LockFlushState::Removing => ("removing", String::new()),
        LockFlushState::Done => ("done", String::new()),
        LockFlushState::Failed { reason } => ("failed", reason),
    };
    Ok(LockFlushStatus {
        id: order.id,
        node: order.node.to_string(),
        ordered_by: order.by,
        ordered_at: order.at,
        state: state.to_owned(),
        reason,
        removed: order
            .removed
            .into_iter()
            .map(|lock| RemovedLock {
                volume: lock.volume,
                lock: lock.id,
                locker: lock.locker,
                address: lock.client,
            })
            .collect(),
    })
}
