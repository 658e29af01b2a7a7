//! Removes the locks of a stopped guest's volumes, when an administrator has ordered it (`pvc vm flush-locks`).
//!
//! Only locks go that were there before the order was seen to be allowed: the listing lies between two readings of the
//! guest's owner, which have to be of the same version. A guest that is started meanwhile takes locks of its own, which
//! are other ones, so none of them is removed.

use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreError, StoreExt as _, Txn, Watch as _, ZnodeVersion};
use pvc_core::ids::{CephClient, NodeName, VmId, VolumeId};
use pvc_core::lock_flush::{LockFlush, LockFlushState, RemovedLock, may_flush_locks};
use pvc_core::records::CephClients;
use pvc_core::volume_use::RbdLock;
use tracing::{info, warn};

use crate::agent::{AgentPhase, AgentState};
use crate::host::Storage;

/// Between two looks: the safety net under the watch.
const IDLE: Duration = Duration::from_secs(10);
/// Guests read in one request.
const GUESTS_PER_READ: usize = 500;

/// Carries out orders to remove locks that are given to this node.
#[derive(Debug)]
pub struct LockFlusher<S, C, D> {
    /// The store.
    pub store: S,
    /// Time.
    pub clock: C,
    /// The storage cluster.
    pub storage: D,
    /// This node.
    pub me: NodeName,
    /// How this agent is.
    pub agent: AgentState,
}

impl<S: Store, C: Clock, D: Storage> LockFlusher<S, C, D> {
    /// Looks again and again until dropped. Dropping it is no harm: the next life goes on from what it reads.
    pub async fn run(self) {
        let mut orders = self.store.watch_tree(keys::lock_flushes().path());
        loop {
            if let Err(error) = self.look().await {
                warn!(%error, "orders to remove locks can't be looked after now");
            }
            // Both branches are only a hint to look again, and cancel-safe.
            tokio::select! {
                () = orders.changed() => {}
                () = self.clock.sleep(IDLE) => {}
            }
        }
    }

    /// One round.
    ///
    /// # Errors
    /// When the store does not answer: the next round goes on.
    pub async fn look(&self) -> Result<(), ReadError> {
        if self.agent.phase() != AgentPhase::Running || self.agent.hold().is_on() {
            return Ok(());
        }
        // There is no container before the first order.
        let Some(children) = self.store.children(keys::lock_flushes().path()).await? else {
            return Ok(());
        };
        for vm in children.iter().filter_map(|child| child.parse::<VmId>().ok()) {
            let Some(found) = self.store.get(&keys::lock_flush(vm)).await? else {
                continue;
            };
            if let Some(order) = found.value
                && order.node == self.me
                && order.state.is_open()
            {
                self.carry_out(vm, order, found.version).await?;
            }
        }
        Ok(())
    }

    async fn carry_out(
        &self,
        vm: VmId,
        mut order: LockFlush,
        version: ZnodeVersion,
    ) -> Result<(), ReadError> {
        let keys = keys::domain(vm);
        let (Some(owner), Some(incoming), Some(state), Some(volumes)) = (
            self.store.get(&keys.owner()).await?,
            self.store.get(&keys.incoming()).await?,
            self.store.get(&keys.state()).await?,
            self.store.get(&keys.volumes()).await?,
        ) else {
            return self.end(vm, order, version, "the guest was removed").await;
        };
        let allowed = may_flush_locks(
            state.value,
            owner.value.as_ref(),
            incoming.value.as_ref(),
            order.force,
        );
        if let Err(denied) = allowed {
            return self.end(vm, order, version, &denied.to_string()).await;
        }
        let locks = match self.locks(&volumes.value.0).await {
            Ok(locks) => locks,
            Err(reason) => return self.end(vm, order, version, &reason).await,
        };
        // Read after the listing: what takes its lock later is not in the list.
        let of_others = self.clients_of_others(vm).await?;
        if let Some((other, lock)) = locks.iter().find_map(|(_, lock)| {
            let other = of_others.iter().find(|(_, client)| *client == lock.client)?;
            Some((other.0, lock))
        }) {
            let reason = format!(
                "the lock of {} is that of guest {other}, which shares the volume: removing it would bar that guest from Ceph",
                lock.client
            );
            return self.end(vm, order, version, &reason).await;
        }
        // SAFETY(fencing): nobody has owned the guest between the reading above and this write, so no lock in the list
        // is that of a process which the record allows.
        order.state = LockFlushState::Removing;
        let txn = Txn::new()
            .check(&keys.owner(), owner.version)
            .check(&keys.incoming(), incoming.version)
            .check(&keys.state(), state.version)
            .set(&keys::lock_flush(vm), &Some(order.clone()), version);
        match self.store.commit(txn).await {
            Ok(_) => {}
            // Somebody started it, or ordered otherwise: the next round looks again.
            Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. } | StoreError::Unknown { .. }) => {
                return Ok(());
            }
            Err(error) => return Err(ReadError::Store(error)),
        }
        let version = ZnodeVersion(version.0.wrapping_add(1));
        for (volume, lock) in locks {
            // The lock's holder is barred from Ceph first.
            if let Err(error) = self.storage.remove_lock(&volume, &lock).await {
                return self.end(vm, order, version, &error.to_string()).await;
            }
            info!(%vm, %volume, locker = %lock.locker, client = %lock.client, "a lock was removed by order");
            order.removed.push(RemovedLock {
                volume: volume.to_string(),
                id: lock.id,
                locker: lock.locker,
                client: lock.client.to_string(),
            });
        }
        self.end(vm, order, version, "").await
    }

    /// The Ceph clients on record for other guests, wherever they run or arrive. A record that can't be read is none to go
    /// on without.
    async fn clients_of_others(&self, vm: VmId) -> Result<Vec<(VmId, CephClient)>, ReadError> {
        let others: Vec<VmId> = self.store.children_as(&keys::domains()).await?;
        let mut clients = Vec::new();
        for part in others.chunks(GUESTS_PER_READ) {
            let paths: Vec<String> = part
                .iter()
                .map(|other| keys::domain(*other))
                .flat_map(|domain| [domain.owner().path(), domain.incoming().path()].map(str::to_owned))
                .collect();
            let znodes = self.store.read_many(&paths).await?;
            for (other, pair) in part.iter().zip(znodes.chunks_exact(2)) {
                let domain = keys::domain(*other);
                // Undefined meanwhile.
                let [Some(owner), Some(incoming)] = pair else {
                    continue;
                };
                if *other == vm {
                    continue;
                }
                let owner = domain.owner().decode_required(Some(owner))?.value;
                let incoming = domain.incoming().decode_required(Some(incoming))?.value;
                let on_record = [
                    owner.map(|owner| owner.ceph_clients),
                    incoming.map(|incoming| incoming.ceph_clients),
                ];
                for on_record in on_record.into_iter().flatten() {
                    if let CephClients::Recorded(list) = on_record {
                        clients.extend(list.into_iter().map(|client| (*other, client)));
                    }
                }
            }
        }
        Ok(clients)
    }

    async fn locks(&self, volumes: &[VolumeId]) -> Result<Vec<(VolumeId, RbdLock)>, String> {
        let mut found = Vec::new();
        for volume in volumes {
            let usage = self
                .storage
                .volume_use(volume)
                .await
                .map_err(|error| error.to_string())?;
            found.extend(usage.locks.into_iter().map(|lock| (volume.clone(), lock)));
        }
        Ok(found)
    }

    /// Writes the result; without a reason all went well.
    async fn end(
        &self,
        vm: VmId,
        mut order: LockFlush,
        version: ZnodeVersion,
        reason: &str,
    ) -> Result<(), ReadError> {
        order.state = if reason.is_empty() {
            LockFlushState::Done
        } else {
            warn!(%vm, reason, "locks were not all removed");
            LockFlushState::Failed {
                reason: reason.to_owned(),
            }
        };
        let txn = Txn::new().set(&keys::lock_flush(vm), &Some(order), version);
        match self.store.commit(txn).await {
            // A later order stands there, or it is tried again: it comes to the same.
            Ok(_)
            | Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. } | StoreError::Unknown { .. }) => {
                Ok(())
            }
            Err(error) => Err(ReadError::Store(error)),
        }
    }
}

#[cfg(test)]
mod tests;
