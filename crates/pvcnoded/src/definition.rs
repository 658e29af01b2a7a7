//! A guest's definition as it is stored, with the list of its volumes.

use std::collections::BTreeMap;

use pvc_common::keys;
use pvc_common::keys::values::CommaList;
use pvc_common::store::{ReadError, Store, Versioned};
use pvc_core::guest_xml::{DiskAccess, GuestXml};
use pvc_core::ids::{VmId, VolumeId};

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
