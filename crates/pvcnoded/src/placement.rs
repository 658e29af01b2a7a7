//! Placing guests from the node agent: what the drain and the fencer share.
//!
//! The choice itself is [`pvc_core::placement::place`]; reading what each node has to carry and reserving on one is
//! [`pvc_common::placement`], which the API daemon uses too.
//!
//! A guest that finds no node when its own has died is *parked*: state `stop`, autostart, no owner. [`try_unpark`] tries
//! such guests again.

use std::collections::BTreeSet;

use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreError, Txn, Versioned};
use pvc_core::ids::{NodeName, VmId};
use pvc_core::placement::NoPlace;
use pvc_core::records::Owner;
use pvc_core::states::VmState;
use tracing::{debug, info};

pub use pvc_common::placement::{Choice, Places, Unplaced, read_candidates};

/// Others who place guests at the same time may make a transaction fail; each time all is read anew.
const TRIES: usize = 4;

/// What has become of a parked guest.
#[derive(Debug)]
pub enum Unparked {
    /// It starts on that node.
    Starts {
        /// The node.
        node: NodeName,
    },
    /// It is not parked any more: somebody has started, stopped or removed it. It is theirs now.
    NotParked,
    /// Still no node takes it. Its failed reason says so too.
    StillNoPlace(NoPlace),
    /// Others changed the same things each time, or its record can't be read. To be tried again.
    Later(String),
}

/// Tries to find a node for each of these guests, if it is still parked, in the order given: the most important first.
/// Nodes of `silent` are not chosen.
///
/// The guest's `lastnode` keeps, or gets, the node that it was on, so that it can be unmigrated.
///
/// # Errors
/// [`ReadError`] when the store does not answer; guests before may have been started.
///
/// # Idempotence
/// A guest that runs already is [`Unparked::NotParked`].
pub async fn try_unpark<S: Store>(
    store: &S,
    silent: &BTreeSet<NodeName>,
    vms: &[VmId],
) -> Result<Vec<(VmId, Unparked)>, ReadError> {
    let mut outcomes = Vec::with_capacity(vms.len());
    if vms.is_empty() {
        return Ok(outcomes);
    }
    let mut places = read_candidates(store, silent).await?;
    for vm in vms {
        let mut outcome = Unparked::Later("others changed its record each time".to_owned());
        for _ in 0..TRIES {
            if let Some(decided) = try_one(store, &mut places, *vm).await? {
                outcome = decided;
                break;
            }
            places = read_candidates(store, silent).await?;
        }
        match &outcome {
            Unparked::Starts { node } => info!(%vm, %node, "a guest that had no node starts"),
            Unparked::NotParked | Unparked::StillNoPlace(_) | Unparked::Later(_) => {
                debug!(%vm, ?outcome, "a guest that had no node was looked at");
            }
        }
        outcomes.push((*vm, outcome));
    }
    Ok(outcomes)
}

/// `None` when somebody else was faster: read all anew.
async fn try_one<S: Store>(store: &S, places: &mut Places, vm: VmId) -> Result<Option<Unparked>, ReadError> {
    let record = match Parked::read(store, vm).await {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(Some(Unparked::NotParked)),
        Err(ReadError::Store(error)) => return Err(error.into()),
        Err(error) => return Ok(Some(Unparked::Later(error.to_string()))),
    };
    let Some(wish) = places.wish(vm, Vec::new()) else {
        return Ok(Some(Unparked::Later("its record can't be counted".to_owned())));
    };
    let choice = match places.choose(&wish) {
        Ok(choice) => choice,
        Err(no_place) => {
            record.explain(store, vm, &no_place).await;
            return Ok(Some(Unparked::StillNoPlace(no_place)));
        }
    };
    let txn = places.reserve(record.start_on(vm, &choice.node), &choice);
    match store.commit(txn).await {
        Ok(_) => {
            places.placed(&choice, VmState::Start);
            Ok(Some(Unparked::Starts { node: choice.node }))
        }
        Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A parked guest's record.
struct Parked {
    state: Versioned<VmState>,
    node: Versioned<NodeName>,
    last_node: Versioned<Option<NodeName>>,
    autostart: Versioned<bool>,
    owner: Versioned<Option<Owner>>,
    failed_reason: Versioned<String>,
}

impl Parked {
    /// `None` if the guest is gone, or is not parked.
    async fn read<S: Store>(store: &S, vm: VmId) -> Result<Option<Parked>, ReadError> {
        let domain = keys::domain(vm);
        let paths = [
            domain.state().path(),
            domain.node().path(),
            domain.last_node().path(),
            domain.autostart().path(),
            domain.owner().path(),
            domain.failed_reason().path(),
        ]
        .map(str::to_owned);
        let znodes = store.read_many(&paths).await?;
        let at = |index: usize| znodes.get(index).and_then(Option::as_ref);
        if at(0).is_none() {
            return Ok(None);
        }
        let record = Parked {
            state: domain.state().decode_required(at(0))?,
            node: domain.node().decode_required(at(1))?,
            last_node: domain.last_node().decode_required(at(2))?,
            autostart: domain.autostart().decode_required(at(3))?,
            owner: domain.owner().decode_required(at(4))?,
            failed_reason: domain.failed_reason().decode_required(at(5))?,
        };
        let parked =
            record.state.value == VmState::Stop && record.autostart.value && record.owner.value.is_none();
        Ok(parked.then_some(record))
    }

    /// The guest starts on `target`, if nothing of its record has changed.
    fn start_on(&self, vm: VmId, target: &NodeName) -> Txn {
        let domain = keys::domain(vm);
        let home = self.last_node.value.as_ref().unwrap_or(&self.node.value);
        let last_node = (home != target).then(|| home.clone());
        Txn::new()
            // SAFETY(fencing): it was parked with a proof that its old process is gone, and has had no owner since.
            .check(&domain.owner(), self.owner.version)
            .set(&domain.state(), &VmState::Start, self.state.version)
            .set(&domain.node(), target, self.node.version)
            .set(&domain.last_node(), &last_node, self.last_node.version)
            .set(&domain.autostart(), &false, self.autostart.version)
            .set(
                &domain.failed_reason(),
                &String::new(),
                self.failed_reason.version,
            )
    }

    /// Writes why the guest still waits where an administrator looks for it. Failing in that changes nothing else.
    async fn explain<S: Store>(&self, store: &S, vm: VmId, no_place: &NoPlace) {
        let domain = keys::domain(vm);
        let reason = format!("It waits for a node: {no_place}");
        if reason == self.failed_reason.value {
            return;
        }
        let txn = Txn::new().check(&domain.state(), self.state.version).set(
            &domain.failed_reason(),
            &reason,
            self.failed_reason.version,
        );
        if let Err(error) = store.commit(txn).await {
            debug!(%vm, %error, "failed to write why a guest waits");
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
