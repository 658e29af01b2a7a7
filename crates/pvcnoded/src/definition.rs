//! A guest's volumes: by its definition as it is stored, by the list of its record, and by what it has open.

use std::collections::BTreeMap;

use pvc_common::keys;
use pvc_common::keys::values::CommaList;
use pvc_common::store::{ReadError, Store, Versioned};
use pvc_core::guest_xml::{self, DiskAccess, GuestXml, InvalidGuestXml};
use pvc_core::ids::{VmId, VolumeId};

use crate::host::{Hypervisor, HypervisorError};

/// The volumes of a guest, with how it uses them.
pub(crate) type Volumes = BTreeMap<VolumeId, DiskAccess>;

/// What the store has of a guest's definition.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Its libvirt XML.
    pub(crate) xml: Versioned<String>,
    /// The volumes that no other guest may be given: those of the XML, and those that were taken out of it while the guest ran.
    pub(crate) listed: Option<Versioned<CommaList<VolumeId>>>,
}

impl Stored {
    /// Reads both as of one moment.
    ///
    /// # Errors
    /// [`ReadError::Missing`] when there is no such guest.
    pub(crate) async fn read<S: Store>(store: &S, vm: VmId) -> Result<Stored, ReadError> {
        let (xml, volumes) = (keys::domain(vm).xml(), keys::domain(vm).volumes());
        let paths = [xml.path().to_owned(), volumes.path().to_owned()];
        let znodes = store.read_many(&paths).await?;
        let at = |index: usize| znodes.get(index).and_then(Option::as_ref);
        Ok(Stored {
            xml: xml.decode_required(at(0))?,
            listed: volumes.decode(at(1))?,
        })
    }

    /// The volumes of `defined` and those on the list; the latter with `access` if they are not defined.
    pub(crate) fn with_listed(&self, mut defined: Volumes, access: DiskAccess) -> Volumes {
        for volume in self.listed() {
            defined.entry(volume.clone()).or_insert(access);
        }
        defined
    }

    /// The volumes on the list.
    pub(crate) fn listed(&self) -> impl Iterator<Item = &VolumeId> {
        self.listed.iter().flat_map(|listed| &listed.value.0)
    }
}

/// The volumes of a definition.
pub(crate) fn volumes_of(guest: &GuestXml) -> Volumes {
    guest
        .volumes()
        .map(|(volume, access)| (volume.clone(), access))
        .collect()
}

/// Why it is not known what a guest has open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// libvirt does not say.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// What it says can't be read.
    #[error("what libvirt says of its devices: {0}")]
    Definition(#[from] InvalidGuestXml),
}

/// The volumes that the guest's process here has open, by libvirt. That need not be what is defined by now: a disk may have been
/// defined for the next start, or have been taken out of the definition and not off the guest.
///
/// # Errors
/// [`OpenError`].
pub(crate) async fn open_volumes<H: Hypervisor>(hypervisor: &H, vm: VmId) -> Result<Volumes, OpenError> {
    let xml = hypervisor.live_xml(vm).await?;
    Ok(volumes_of(&guest_xml::parse(&xml)?))
}
