//! What decides over a guest, and finding it.

use pvc_common::keys::{self, DomainKeys};
use pvc_common::store::{ReadError, Store, StoreExt, Versioned, ZnodeVersion};
use pvc_core::ids::{NodeName, VmId, VmName};
use pvc_core::records::{CephClients, Incoming, Owner};
use pvc_core::states::{MigrationMethod, VmState};

use crate::app::App;
use crate::error::ApiError;
use crate::snapshot::{Snapshot, Wanted, children_of};

/// A guest's record, all as of one moment, with the versions to name when writing what depends on it.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) name: VmName,
    pub(crate) state: Versioned<VmState>,
    pub(crate) node: Versioned<NodeName>,
    pub(crate) last_node: Versioned<Option<NodeName>>,
    pub(crate) failed_reason: Versioned<String>,
    /// It starts when its node is made ready, or, if its own node has died, as soon as one takes it.
    pub(crate) autostart: Versioned<bool>,
    pub(crate) owner: Versioned<Option<Owner>>,
    pub(crate) incoming: Versioned<Option<Incoming>>,
    pub(crate) migration_method: MigrationMethod,
}

impl Record {
    /// The record of that guest; `None` if there is no such guest.
    pub(crate) async fn read<S: Store>(store: &S, id: VmId) -> Result<Option<Record>, ReadError> {
        let keys = keys::domain(id);
        let mut wanted = Wanted::default();
        wanted
            .key(&keys.name())
            .key(&keys.state())
            .key(&keys.node())
            .key(&keys.last_node())
            .key(&keys.failed_reason())
            .key(&keys.autostart())
            .key(&keys.owner())
            .key(&keys.incoming())
            .key(&keys.migration_method());
        let seen = Snapshot::read(store, wanted).await?;
        Record::from_snapshot(&seen, &keys)
    }

    fn from_snapshot(seen: &Snapshot, keys: &DomainKeys) -> Result<Option<Record>, ReadError> {
        let Some(name) = seen.get(&keys.name())? else {
            return Ok(None);
        };
        Ok(Some(Record {
            name: name.value,
            state: seen.require(&keys.state())?,
            node: seen.require(&keys.node())?,
            last_node: seen.require(&keys.last_node())?,
            failed_reason: seen.require(&keys.failed_reason())?,
            autostart: seen.require(&keys.autostart())?,
            owner: seen.require(&keys.owner())?,
            incoming: seen.require(&keys.incoming())?,
            migration_method: seen.require(&keys.migration_method())?.value,
        }))
    }

    /// The versions of all that changes while something is done to the guest.
    pub(crate) fn versions(&self) -> [ZnodeVersion; 5] {
        [
            self.state.version,
            self.node.version,
            self.failed_reason.version,
            self.owner.version,
            self.incoming.version,
        ]
    }

    /// The record of that guest, which must exist.
    pub(crate) async fn require<S: Store>(store: &S, id: VmId) -> Result<Record, ApiError> {
        Record::read(store, id)
            .await?
            .ok_or_else(|| unknown(&id.to_string()))
    }
}

/// Whether the owner has let the guest run: it does so once the guest's Ceph clients are on record.
pub(crate) fn runs(owner: &Owner) -> bool {
    match owner.ceph_clients {
        CephClients::Unrecorded => false,
        CephClients::Recorded(_) | CephClients::Unknown => true,
    }
}

/// There is no such guest.
pub(crate) fn unknown(vm: &str) -> ApiError {
    ApiError::not_found(format!("There is no VM {vm:?} in this cluster"))
}

/// The guest of that UUID or name.
pub(crate) async fn find<S: Store>(app: &App<S>, vm: &str) -> Result<VmId, ApiError> {
    let store = &app.store;
    if let Ok(id) = vm.parse::<VmId>()
        && store.get(&keys::domain(id).name()).await?.is_some()
    {
        return Ok(id);
    }
    // What can not be a name is not the name of any guest.
    let name = VmName::new(vm).map_err(|_| unknown(vm))?;
    if let Some(id) = app.names.get(name.as_str())
        && let Ok(Some(found)) = store.get(&keys::domain(id).name()).await
        && found.value == name
    {
        return Ok(id);
    }
    let id = names(store)
        .await?
        .into_iter()
        .find_map(|(id, found)| (found.as_deref() == Some(name.as_str())).then_some(id))
        .ok_or_else(|| unknown(vm))?;
    app.names.note(name.as_str(), id);
    Ok(id)
}

/// All guests with their names; no name for one whose name can not be read.
pub(crate) async fn names<S: Store>(store: &S) -> Result<Vec<(VmId, Option<String>)>, ApiError> {
    let ids = children_of(store, &keys::domains()).await?;
    let mut wanted = Wanted::default();
    for id in &ids {
        wanted.key(&keys::domain(*id).name());
    }
    let seen = Snapshot::read(store, wanted).await?;
    Ok(ids
        .into_iter()
        .map(|id| {
            let name = match seen.get(&keys::domain(id).name()) {
                Ok(found) => found.map(|name| name.value.to_string()),
                Err(error) => {
                    tracing::warn!(vm = %id, %error, "a VM has a name that can not be read");
                    None
                }
            };
            (id, name)
        })
        .collect())
}
