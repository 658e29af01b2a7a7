//! What a drain reads of the guests.

use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreExt as _, Txn, Versioned, Znode};
use pvc_core::drain::DrainGuest;
use pvc_core::ids::{NodeName, VmId, VmName};
use pvc_core::records::{Incoming, Owner};
use pvc_core::states::VmState;

/// Guests read in one request: all of a large cluster's would be more than a request may carry.
const GUESTS_PER_READ: usize = 500;
const KEYS_OF_A_GUEST: usize = 8;

/// A guest's record, all as of one moment, with the versions to name when writing what depends on it.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    /// What is decided on.
    pub(super) seen: DrainGuest,
    pub(super) name: VmName,
    pub(super) failed_reason: Versioned<String>,
    state: Versioned<VmState>,
    node: Versioned<NodeName>,
    last_node: Versioned<Option<NodeName>>,
    owner: Versioned<Option<Owner>>,
    incoming: Versioned<Option<Incoming>>,
    autostart: Versioned<bool>,
}

/// All guests. One that is deleted meanwhile or can't be read is left out, with a line in the log: it must not keep the
/// others from being moved.
pub(super) async fn guests<S: Store>(store: &S) -> Result<Vec<Guest>, ReadError> {
    let vms: Vec<VmId> = store.children_as(&keys::domains()).await?;
    let mut guests = Vec::new();
    for part in vms.chunks(GUESTS_PER_READ) {
        let paths: Vec<String> = part.iter().flat_map(|vm| paths(*vm)).collect();
        let znodes = store.read_many(&paths).await?;
        for (vm, znodes) in part.iter().zip(znodes.chunks_exact(KEYS_OF_A_GUEST)) {
            match Guest::decode(*vm, znodes) {
                Ok(guest) => guests.push(guest),
                Err(ReadError::Missing { .. }) => {}
                Err(error) => {
                    tracing::warn!(%vm, %error, "a guest's record can't be read; a drain leaves it out")
                }
            }
        }
    }
    Ok(guests)
}

fn paths(vm: VmId) -> [String; KEYS_OF_A_GUEST] {
    let domain = keys::domain(vm);
    [
        domain.name().path(),
        domain.state().path(),
        domain.node().path(),
        domain.last_node().path(),
        domain.owner().path(),
        domain.incoming().path(),
        domain.autostart().path(),
        domain.failed_reason().path(),
    ]
    .map(str::to_owned)
}

impl Guest {
    fn decode(vm: VmId, znodes: &[Option<Znode>]) -> Result<Guest, ReadError> {
        let domain = keys::domain(vm);
        let at = |index: usize| znodes.get(index).and_then(Option::as_ref);
        let name = domain.name().decode_required(at(0))?.value;
        let state = domain.state().decode_required(at(1))?;
        let node = domain.node().decode_required(at(2))?;
        let last_node = domain.last_node().decode_required(at(3))?;
        let owner = domain.owner().decode_required(at(4))?;
        let incoming = domain.incoming().decode_required(at(5))?;
        let autostart = domain.autostart().decode_required(at(6))?;
        Ok(Guest {
            seen: DrainGuest {
                vm,
                state: state.value,
                node: node.value.clone(),
                last_node: last_node.value.clone(),
                owner: owner.value.as_ref().map(|owner| owner.node.clone()),
                moving: incoming.value.is_some(),
                autostart: autostart.value,
            },
            name,
            failed_reason: domain.failed_reason().decode_required(at(7))?,
            state,
            node,
            last_node,
            owner,
            incoming,
            autostart,
        })
    }

    /// Everything that a decision depends on is as it was read: who owns the guest, and whether it is on its way.
    fn unchanged(&self) -> Txn {
        let domain = keys::domain(self.seen.vm);
        Txn::new()
            .check(&domain.owner(), self.owner.version)
            .check(&domain.incoming(), self.incoming.version)
    }

    /// It is asked for that `state`, on `node`, with that home.
    pub(super) fn placed(&self, state: VmState, node: &NodeName, home: Option<NodeName>) -> Txn {
        let domain = keys::domain(self.seen.vm);
        self.unchanged()
            .set(&domain.state(), &state, self.state.version)
            .set(&domain.node(), node, self.node.version)
            .set(&domain.last_node(), &home, self.last_node.version)
    }

    /// It is shut down for now, and starts again when its node is made ready.
    pub(super) fn shut_down(&self, reason: &str) -> Txn {
        let domain = keys::domain(self.seen.vm);
        self.unchanged()
            .check(&domain.node(), self.node.version)
            .set(&domain.state(), &VmState::Shutdown, self.state.version)
            .set(&domain.autostart(), &true, self.autostart.version)
            .set(
                &domain.failed_reason(),
                &reason.to_owned(),
                self.failed_reason.version,
            )
    }

    /// It waited for its node, and starts.
    pub(super) fn start(&self) -> Txn {
        let domain = keys::domain(self.seen.vm);
        self.unchanged()
            .check(&domain.node(), self.node.version)
            .set(&domain.state(), &VmState::Start, self.state.version)
            .set(&domain.autostart(), &false, self.autostart.version)
            .set(
                &domain.failed_reason(),
                &String::new(),
                self.failed_reason.version,
            )
    }

    /// It waits for its node no longer.
    pub(super) fn forget(&self) -> Txn {
        let domain = keys::domain(self.seen.vm);
        Txn::new().check(&domain.node(), self.node.version).set(
            &domain.autostart(),
            &false,
            self.autostart.version,
        )
    }

    /// Says of it why it is as it is.
    pub(super) fn explain(&self, reason: &str) -> Txn {
        let domain = keys::domain(self.seen.vm);
        Txn::new().check(&domain.state(), self.state.version).set(
            &domain.failed_reason(),
            &reason.to_owned(),
            self.failed_reason.version,
        )
    }
}
