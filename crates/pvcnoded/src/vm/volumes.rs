//! A guest's volumes: who uses them, and which Ceph clients its process has opened.

use std::collections::BTreeMap;

use futures::future::join_all;
use pvc_common::clock::Clock;
use pvc_common::store::{ReadError, Store};
use pvc_core::guest_xml::{self, DiskAccess};
use pvc_core::ids::{CephClient, VmId, VolumeId};
use pvc_core::volume_use::{RbdLock, VolumeUse};

use super::VmParts;
use crate::definition::{Stored, Volumes, volumes_of};
use crate::host::{Hypervisor, Storage, StorageError};

/// Why a guest's volumes are not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum VolumesError {
    #[error("failed to read its definition")]
    Read(#[source] ReadError),
    #[error("its definition: {0}")]
    Definition(String),
}

/// The guest's stored definition and the volumes in it.
pub(super) async fn read_volumes<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
) -> Result<(Stored, Volumes), VolumesError> {
    let stored = Stored::read(&parts.store, vm).await.map_err(VolumesError::Read)?;
    let guest =
        guest_xml::parse(&stored.xml.value).map_err(|error| VolumesError::Definition(error.to_string()))?;
    Ok((stored, volumes_of(&guest)))
}

/// All volumes that a process of the guest may have open or have left something on: those of the stored definition, and those
/// that were taken out of it while the guest ran.
pub(super) async fn read_all_volumes<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
) -> Result<Volumes, VolumesError> {
    let (stored, volumes) = read_volumes(parts, vm).await?;
    Ok(stored.with_listed(volumes, DiskAccess::ReadWrite))
}

/// Who uses those of the volumes that exist.
pub(super) async fn uses_of_existing<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    volumes: &Volumes,
) -> Result<BTreeMap<VolumeId, VolumeUse>, StorageError> {
    let looks = volumes.keys().map(|volume| async move {
        match parts.storage.volume_use(volume).await {
            Ok(seen) => Ok(Some((volume.clone(), seen))),
            Err(StorageError::NoVolume { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    });
    let seen: Result<Vec<_>, StorageError> = join_all(looks).await.into_iter().collect();
    Ok(seen?.into_iter().flatten().collect())
}

/// Who uses the volumes now.
pub(super) async fn uses<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    volumes: &Volumes,
) -> Result<BTreeMap<VolumeId, VolumeUse>, StorageError> {
    let looks = volumes.keys().map(|volume| async move {
        let seen = parts.storage.volume_use(volume).await?;
        Ok((volume.clone(), seen))
    });
    join_all(looks).await.into_iter().collect()
}

/// The watchers among `seen`.
pub(super) fn watchers(seen: BTreeMap<VolumeId, VolumeUse>) -> BTreeMap<VolumeId, Vec<CephClient>> {
    seen.into_iter()
        .map(|(volume, seen)| (volume, seen.watchers))
        .collect()
}

/// What a process on this host has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opened {
    /// These clients: at least one for each volume that it writes.
    All(Vec<CephClient>),
    /// Not yet this volume.
    Missing(VolumeId),
}

/// The clients that a new process of the guest has opened: watchers at one of our own addresses that were not there
/// `before` and are not on record for other guests.
pub(super) fn opened<S, C, H, T>(
    parts: &VmParts<S, C, H, T>,
    volumes: &Volumes,
    seen: &BTreeMap<VolumeId, VolumeUse>,
    before: &BTreeMap<VolumeId, Vec<CephClient>>,
    of_others: &[CephClient],
) -> Opened {
    let mut clients = Vec::new();
    for (volume, seen) in seen {
        let known = before.get(volume).map(Vec::as_slice).unwrap_or_default();
        let fresh: Vec<_> = seen
            .watchers
            .iter()
            .filter(|client| {
                parts.storage_addresses.contains(&client.ip())
                    && !known.contains(client)
                    && !of_others.contains(client)
            })
            .cloned()
            .collect();
        if fresh.is_empty() && volumes.get(volume) != Some(&DiskAccess::ReadOnly) {
            return Opened::Missing(volume.clone());
        }
        clients.extend(fresh);
    }
    clients.sort();
    clients.dedup();
    Opened::All(clients)
}

/// Bars what `clients` have left on the volumes and removes their locks, for a guest whose process is gone. Answers
/// with how many clients had left anything.
pub(super) async fn clear_remnants<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    volumes: &Volumes,
    clients: &[CephClient],
) -> Result<usize, StorageError> {
    let seen = uses_of_existing(parts, volumes).await?;
    let mut left: Vec<CephClient> = Vec::new();
    let mut locks: Vec<(&VolumeId, &RbdLock)> = Vec::new();
    for (volume, seen) in &seen {
        left.extend(
            seen.watchers
                .iter()
                .filter(|client| clients.contains(client))
                .cloned(),
        );
        for lock in seen.locks.iter().filter(|lock| clients.contains(&lock.client)) {
            left.push(lock.client.clone());
            locks.push((volume, lock));
        }
    }
    left.sort();
    left.dedup();
    if left.is_empty() {
        return Ok(0);
    }
    // Barred before its lock goes: else it could take the lock again.
    parts.storage.blocklist(&left).await?;
    for (volume, lock) in locks {
        parts.storage.remove_lock(volume, lock).await?;
    }
    Ok(left.len())
}
