//! What decides over a guest, and finding it.

use pvc_common::keys;
use pvc_common::mirror::View;
use pvc_common::store::{ReadError, Store, StoreExt as _, Versioned, ZnodeVersion};
use pvc_core::ids::{NodeName, VmId, VmName};
use pvc_core::records::{CephClients, Incoming, Owner};
use pvc_core::states::{MigrationMethod, VmState};

use crate::access::audit;
use crate::app::App;
use crate::error::ApiError;
use crate::snapshot::{Reading, Snapshot, Wanted, children_of};

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
        Record::from(&seen, id)
    }

    /// The record of that guest among what is at hand; `None` if there is no such guest.
    pub(crate) fn from(seen: &impl Reading, id: VmId) -> Result<Option<Record>, ReadError> {
        let keys = keys::domain(id);
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
    pub(crate) fn versions(&self) -> [ZnodeVersion; 6] {
        [
            self.state.version,
            self.node.version,
            self.last_node.version,
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

/// A value of a guest that was read apart from its record: the guest may have been removed in between.
///
/// # Errors
/// 404 if it was; else those of the reading.
pub(crate) async fn present<S: Store, T>(
    store: &S,
    id: VmId,
    read: Result<T, ReadError>,
) -> Result<T, ApiError> {
    match read {
        Err(ReadError::Missing { .. }) if store.get(&keys::domain(id).name()).await?.is_none() => {
            Err(unknown(&id.to_string()))
        }
        other => Ok(other?),
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

/// The guest of that UUID or name, as the mirror shows it. What is done to a guest that was found by its name is done only if
/// it still has it.
///
/// # Errors
/// 404 if there is none; 503 if the mirror is too old to tell.
pub(crate) fn find_in<S: Store>(app: &App<S>, view: &View, vm: &str) -> Result<VmId, ApiError> {
    if let Ok(id) = vm.parse::<VmId>()
        && view.znode(keys::domain(id).path()).is_some()
    {
        return Ok(id);
    }
    let id = app.names.find(view, vm).ok_or_else(|| unknown(vm))?;
    // The mirror may be behind the store, where another guest may have that name by now.
    let name = keys::domain(id).name();
    if let Some(znode) = view.znode(name.path()) {
        audit::named(&name, znode.version);
    }
    Ok(id)
}

/// As [`find_in`], in the latest view.
pub(crate) fn find<S: Store>(app: &App<S>, vm: &str) -> Result<VmId, ApiError> {
    find_in(app, &app.view()?, vm)
}

/// A guest's name as it is shown: its UUID where it has none or none that can be read.
pub(crate) fn shown_name(view: &View, id: VmId) -> String {
    match view.get(&keys::domain(id).name()) {
        Ok(Some(name)) => name.value.to_string(),
        Ok(None) | Err(_) => id.to_string(),
    }
}

/// All guests with their names, as the store has them now; no name for one whose name can not be read.
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
