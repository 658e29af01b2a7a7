//! Making a node ready for guests.
//!
//! Emptying a node, and bringing guests back that were moved away from it, come with migration. Until then a node is
//! made ready in one transaction: nothing has to be moved.

use pvc_common::keys;
use pvc_common::store::{Store, StoreError, Txn};
use pvc_core::ids::NodeName;
use pvc_core::states::{DaemonState, DomainState, VmState};

use crate::error::ApiError;
use crate::node;
use crate::snapshot::{Snapshot, Wanted, children_of};

/// How often the transaction is tried again after somebody else was faster.
const RETRIES: usize = 8;

/// Lets the node take guests, and starts those there that wait for this (autostart). Answers in words.
///
/// # Idempotence
/// A node that is ready already is success, without a write.
pub(crate) async fn make_ready<S: Store>(store: &S, name: &NodeName) -> Result<String, ApiError> {
    for _ in 0..RETRIES {
        let Some(txn) = plan(store, name).await? else {
            return Ok(format!("Node {name} is ready"));
        };
        match store.commit(txn).await {
            Ok(_) => {
                tracing::info!(node = %name, "node made ready");
                return Ok(format!("Node {name} is ready"));
            }
            Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The node"))
}

/// The transaction that makes the node ready; `None` if it is.
async fn plan<S: Store>(store: &S, name: &NodeName) -> Result<Option<Txn>, ApiError> {
    let keys = keys::node(name);
    let ids = children_of(store, &keys::domains()).await?;
    let mut wanted = Wanted::default();
    wanted.key(&keys.daemon_state()).key(&keys.domain_state());
    for id in &ids {
        let keys = keys::domain(*id);
        wanted
            .key(&keys.name())
            .key(&keys.state())
            .key(&keys.node())
            .key(&keys.last_node())
            .key(&keys.autostart());
    }
    let seen = Snapshot::read(store, wanted).await?;
    let domain_state = seen
        .get(&keys.domain_state())?
        .ok_or_else(|| node::unknown(name.as_str()))?;
    match domain_state.value {
        DomainState::Ready => return Ok(None),
        DomainState::Flushed => {}
        DomainState::Flush | DomainState::Unflush | DomainState::FenceFlush => {
            return Err(ApiError::conflict(format!(
                "Node {name} is in domain state {}; wait until that has ended",
                domain_state.value
            )));
        }
    }
    let daemon_state = seen.require(&keys.daemon_state())?;
    if daemon_state.value != DaemonState::Run {
        return Err(ApiError::conflict(format!(
            "Node {name} can not take guests: its agent is in state {}, not run",
            daemon_state.value
        )));
    }
    let mut txn = Txn::new().check(&keys.daemon_state(), daemon_state.version).set(
        &keys.domain_state(),
        &DomainState::Ready,
        domain_state.version,
    );
    for id in ids {
        let keys = keys::domain(id);
        let Some(state) = seen.get(&keys.state())? else {
            continue;
        };
        if seen.require(&keys.last_node())?.value.as_ref() == Some(name) {
            return Err(ApiError::not_implemented(format!(
                "VM {} belongs on node {name} and runs elsewhere; this release can not move VMs back yet",
                seen.require(&keys.name())?.value
            )));
        }
        let place = seen.require(&keys.node())?;
        let autostart = seen.require(&keys.autostart())?;
        if autostart.value && place.value == *name && state.value == VmState::Stop {
            txn = txn
                .check(&keys.node(), place.version)
                .set(&keys.state(), &VmState::Start, state.version)
                .set(&keys.autostart(), &false, autostart.version);
        }
    }
    Ok(Some(txn))
}
