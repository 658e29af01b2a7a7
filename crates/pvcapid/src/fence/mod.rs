//! Fences: showing them, and writing down what an administrator confirms.
//!
//! * `view` - a fence in words: what happens, what is missing, what comes next. Pure.
//! * `confirm` - an administrator's word on a fence.

mod confirm;
mod view;

pub(crate) use confirm::confirm;
pub(crate) use view::{Guests, bmc, describe};

use std::collections::HashMap;

use pvc_api::fence::NodeFence;
use pvc_common::keys;
use pvc_common::store::Store;
use pvc_core::fence::FenceRecord;
use pvc_core::ids::{NodeName, VmId};
use pvc_core::states::DaemonState;

use crate::error::ApiError;
use crate::node;
use crate::snapshot::{Snapshot, Wanted, children_of};

/// The fences of all nodes, one entry a node, sorted by name.
pub(crate) async fn list<S: Store>(store: &S) -> Result<Vec<NodeFence>, ApiError> {
    let names = node::names(store).await?;
    read(store, names).await
}

/// The fence of one node.
pub(crate) async fn one<S: Store>(store: &S, name: &NodeName) -> Result<NodeFence, ApiError> {
    read(store, vec![name.clone()])
        .await?
        .pop()
        .ok_or_else(|| node::unknown(name.as_str()))
}

struct Seen {
    node: NodeName,
    daemon_state: DaemonState,
    record: Option<FenceRecord>,
    bmc: Option<pvc_core::records::BmcReport>,
}

async fn read<S: Store>(store: &S, names: Vec<NodeName>) -> Result<Vec<NodeFence>, ApiError> {
    let mut wanted = Wanted::default();
    for name in &names {
        wanted
            .key(&keys::fence(name))
            .key(&keys::node(name).daemon_state())
            .key(&keys::node(name).bmc());
    }
    let snapshot = Snapshot::read(store, wanted).await?;
    let mut seen = Vec::with_capacity(names.len());
    for name in names {
        let keys = keys::node(&name);
        // A node that was removed since its name was listed is none.
        let Some(daemon_state) = snapshot.get(&keys.daemon_state())? else {
            continue;
        };
        seen.push(Seen {
            daemon_state: daemon_state.value,
            // Strictly: a fence that can not be read must not look like none.
            record: snapshot.get(&keys::fence(&name))?.and_then(|record| record.value),
            bmc: snapshot.shown(&keys.bmc(), None),
            node: name,
        });
    }
    // Guests are looked at only if somebody's fence is about them.
    let all = if seen.iter().any(|seen| seen.record.is_some()) {
        Owners::read(store).await?
    } else {
        Owners::default()
    };
    Ok(seen
        .into_iter()
        .map(|seen| {
            let guests = match &seen.record {
                Some(record) => all.of(&seen.node, record),
                None => Guests::default(),
            };
            describe(
                &seen.node,
                seen.daemon_state,
                seen.record.as_ref(),
                seen.bmc.as_ref(),
                &guests,
            )
        })
        .collect())
}

/// Which guests belong to whom.
#[derive(Debug, Default)]
struct Owners {
    names: HashMap<VmId, String>,
    seen: Snapshot,
}

impl Owners {
    async fn read<S: Store>(store: &S) -> Result<Owners, ApiError> {
        let ids: Vec<VmId> = children_of(store, &keys::domains()).await?;
        let mut wanted = Wanted::default();
        for id in &ids {
            let keys = keys::domain(*id);
            wanted.key(&keys.name()).key(&keys.owner()).key(&keys.incoming());
        }
        let seen = Snapshot::read(store, wanted).await?;
        let names = ids
            .into_iter()
            .map(|id| {
                let name = match seen.get(&keys::domain(id).name()) {
                    Ok(Some(name)) => name.value.to_string(),
                    Ok(None) | Err(_) => id.to_string(),
                };
                (id, name)
            })
            .collect();
        Ok(Owners { names, seen })
    }

    fn of(&self, node: &NodeName, record: &FenceRecord) -> Guests {
        let named = |ids: &[VmId]| -> Vec<String> {
            let mut names: Vec<String> = ids
                .iter()
                .map(|id| self.names.get(id).cloned().unwrap_or_else(|| id.to_string()))
                .collect();
            names.sort();
            names
        };
        let owned: Vec<VmId> = self
            .names
            .keys()
            .copied()
            .filter(|id| self.belongs(*id, node, record))
            .collect();
        Guests {
            owned: named(&owned),
            parked: named(&record.parked),
            left: named(&record.left),
        }
    }

    /// Whether the dead boot owns or receives the guest.
    fn belongs(&self, id: VmId, node: &NodeName, record: &FenceRecord) -> bool {
        let keys = keys::domain(id);
        let owns = self
            .seen
            .shown(&keys.owner(), None)
            .is_some_and(|owner| owner.node == *node && owner.incarnation.same_boot(&record.victim));
        let receives = self.seen.shown(&keys.incoming(), None).is_some_and(|incoming| {
            incoming.target == *node && incoming.incarnation.same_boot(&record.victim)
        });
        owns || receives
    }
}
