//! Volumes that guests have, and that no other guest may be given.
//!
//! A guest's record lists its volumes: those of its definition, and those that were taken out of it while a process of the
//! guest may still have them open. The guest's node takes the latter off the list when it starts the guest anew and when it has
//! detached the disk. Of a guest without an owner there is no process, so what its definition lacks is free.

use pvc_common::keys;
use pvc_common::keys::values::CommaList;
use pvc_common::store::{Store, Txn};
use pvc_core::guest_xml::{self, DiskAccess, GuestXml};
use pvc_core::ids::{VmId, VolumeId};

use super::record::Record;
use crate::adopt;
use crate::error::ApiError;
use crate::snapshot::{Reading as _, Snapshot, Wanted};

/// Refuses volumes that another guest has, unless both share them or both only read. Answers with what takes those off other
/// guests' lists that were left there and are not open any more: it holds only if that is still so.
pub(crate) async fn check<S: Store>(
    store: &S,
    guests: &[(VmId, Option<String>)],
    guest: &GuestXml,
) -> Result<Txn, ApiError> {
    let mut freed = Txn::new();
    if guest.volumes().next().is_none() {
        return Ok(freed);
    }
    let others: Vec<_> = guests.iter().filter(|(id, _)| *id != guest.uuid).collect();
    let mut wanted = Wanted::default();
    for (id, _) in &others {
        wanted.key(&keys::domain(*id).volumes());
    }
    let seen = Snapshot::read(store, wanted).await?;
    for (id, name) in others {
        let keys = keys::domain(*id);
        let Some(theirs) = seen.get(&keys.volumes())? else {
            continue;
        };
        let both: Vec<_> = guest
            .volumes()
            .filter(|(volume, _)| theirs.value.0.contains(volume))
            .collect();
        if both.is_empty() {
            continue;
        }
        let mut wanted = Wanted::default();
        wanted.key(&keys.xml()).key(&keys.owner());
        let other = Snapshot::read(store, wanted).await?;
        // Removed meanwhile: the write fails, and all is looked at again.
        let (Some(xml), Some(owner)) = (other.get(&keys.xml())?, other.get(&keys.owner())?) else {
            continue;
        };
        let name = name.clone().unwrap_or_else(|| id.to_string());
        let mut left = Vec::new();
        for (volume, ours) in both {
            match access_in(&xml.value, volume) {
                Some(access) if may_share(ours, access) => {}
                Some(_) => {
                    return Err(ApiError::conflict(format!(
                        "Volume {volume} belongs to VM {name}. Two VMs writing one volume destroy it; mark the disk \
                         <shareable/> in both if their file system is made for that"
                    )));
                }
                None if owner.value.is_some() => {
                    return Err(ApiError::conflict(format!(
                        "Volume {volume} was taken out of the definition of VM {name}, which may still have it open: \
                         detach the disk from it, or restart or stop it"
                    )));
                }
                None => left.push(volume),
            }
        }
        if !left.is_empty() {
            adopt::refuse_on_hold(store).await?;
            let rest = theirs.value.0.iter().filter(|volume| !left.contains(volume));
            let rest = CommaList(rest.cloned().collect());
            freed = freed
                .check(&keys.owner(), owner.version)
                .set(&keys.volumes(), &rest, theirs.version);
        }
    }
    Ok(freed)
}

/// What a guest's list of volumes is once its definition is `guest` and was `before`, with `had` on the list: what a process of
/// it may have open stays on it.
///
/// # Errors
/// 409 when a process of it may have a volume open in another way than the new definition says: others, who go by what is
/// defined, would be let in beside it.
pub(crate) fn kept(
    record: &Record,
    guest: &GuestXml,
    before: &str,
    had: &[VolumeId],
) -> Result<Vec<VolumeId>, ApiError> {
    let mut list: Vec<VolumeId> = Vec::new();
    for (volume, access) in guest.volumes() {
        if record.owner.value.is_some() && had.contains(volume) {
            // What is not in the definition any more may be open for writing.
            let opened = access_in(before, volume).unwrap_or(DiskAccess::ReadWrite);
            if access != opened && access != DiskAccess::ReadWrite {
                return Err(ApiError::conflict(format!(
                    "VM {} may have volume {volume} open as a disk of its own; stop it before the disk is marked \
                     <shareable/> or <readonly/>",
                    record.name
                )));
            }
        }
        if !list.contains(volume) {
            list.push(volume.clone());
        }
    }
    if record.owner.value.is_some() {
        for volume in had {
            if !list.contains(volume) {
                list.push(volume.clone());
            }
        }
    }
    Ok(list)
}

/// Whether two guests may both have a volume that each uses like this: both only read it, or both say that it is
/// shared. A guest that reads what another writes sees a file system fall apart.
fn may_share(ours: DiskAccess, theirs: DiskAccess) -> bool {
    matches!(
        (ours, theirs),
        (DiskAccess::ReadOnly, DiskAccess::ReadOnly) | (DiskAccess::Shared, DiskAccess::Shared)
    )
}

/// How a guest whose stored XML is `xml` uses that volume; `None` if the XML does not have it. One whose XML can not be read is
/// taken to write.
pub(super) fn access_in(xml: &str, volume: &VolumeId) -> Option<DiskAccess> {
    let Ok(guest) = guest_xml::parse(xml) else {
        return Some(DiskAccess::ReadWrite);
    };
    guest
        .volumes()
        .find_map(|(found, access)| (found == volume).then_some(access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readers_and_sharers_share() {
        use DiskAccess::{ReadOnly, ReadWrite, Shared};
        for ours in [ReadOnly, ReadWrite, Shared] {
            for theirs in [ReadOnly, ReadWrite, Shared] {
                let expected = ours == theirs && ours != ReadWrite;
                assert_eq!(may_share(ours, theirs), expected, "{ours:?} {theirs:?}");
            }
        }
        let volume = "vms/a".parse().unwrap();
        assert_eq!(access_in("<broken", &volume), Some(ReadWrite));
    }
}
