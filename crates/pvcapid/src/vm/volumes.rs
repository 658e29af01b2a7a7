//! Volumes that several guests name.

use pvc_core::guest_xml::{self, DiskAccess, GuestXml};
use pvc_core::ids::VolumeId;

/// Whether two guests may both have a volume that each uses like this: both only read it, or both say that it is
/// shared. A guest that reads what another writes sees a file system fall apart.
pub(crate) fn may_share(ours: DiskAccess, theirs: DiskAccess) -> bool {
    matches!(
        (ours, theirs),
        (DiskAccess::ReadOnly, DiskAccess::ReadOnly) | (DiskAccess::Shared, DiskAccess::Shared)
    )
}

/// How another guest, whose stored XML is `xml`, uses that volume. One whose XML can not be read or does not say is
/// taken to write.
pub(crate) fn access_in(xml: &str, volume: &VolumeId) -> DiskAccess {
    match guest_xml::parse(xml) {
        Ok(guest) => access_of(&guest, volume).unwrap_or(DiskAccess::ReadWrite),
        Err(_) => DiskAccess::ReadWrite,
    }
}

fn access_of(guest: &GuestXml, volume: &VolumeId) -> Option<DiskAccess> {
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
        assert_eq!(access_in("<broken", &volume), ReadWrite);
    }
}
