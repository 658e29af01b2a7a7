//! Fences: showing them, and writing down what an administrator confirms.
//!
//! * `view` - a fence in words: what happens, what is missing, what comes next. Pure.
//! * `confirm` - an administrator's word on a fence.

mod confirm;
mod view;

pub(crate) use confirm::{confirm, renews};
pub(crate) use view::{Guests, bmc, describe, unreadable};

use pvc_api::fence::NodeFence;
use pvc_common::keys;
use pvc_common::mirror::View;
use pvc_core::fence::FenceRecord;
use pvc_core::ids::{NodeName, VmId};

use crate::error::ApiError;
use crate::node;
use crate::unreadable::Unreadable;
use crate::vm::record;

/// The fences of all nodes, one entry a node, sorted by name.
pub(crate) fn list(view: &View) -> Vec<NodeFence> {
    node::names(view)
        .iter()
        .filter_map(|name| read(view, name))
        .collect()
}

/// The fence of one node.
pub(crate) fn one(view: &View, name: &NodeName) -> Result<NodeFence, ApiError> {
    read(view, name).ok_or_else(|| node::unknown(name.as_str()))
}

fn read(view: &View, name: &NodeName) -> Option<NodeFence> {
    let keys = keys::node(name);
    let daemon_state = node::shown_daemon_state(view, name, &mut Unreadable::default())?;
    let record = match view.get(&keys::fence(name)) {
        Ok(found) => found.and_then(|record| record.value),
        // It must not look like none, nor hide the others.
        Err(error) => return Some(unreadable(name, daemon_state, &error)),
    };
    // Guests are looked at only if the fence is about them.
    let guests = match &record {
        Some(record) => guests_of(view, name, record),
        None => Guests::default(),
    };
    Some(describe(
        name,
        daemon_state,
        record.as_ref(),
        view.shown(&keys.bmc(), None).as_ref(),
        &guests,
    ))
}

/// The guests that a fence is about.
fn guests_of(view: &View, node: &NodeName, record: &FenceRecord) -> Guests {
    let named = |ids: &[VmId]| -> Vec<String> {
        let mut names: Vec<String> = ids.iter().map(|id| record::shown_name(view, *id)).collect();
        names.sort();
        names
    };
    let mut owned: Vec<VmId> = view.children(&keys::domains());
    owned.retain(|id| belongs(view, *id, node, record));
    Guests {
        owned: named(&owned),
        parked: named(&record.parked),
        left: named(&record.left),
    }
}

/// Whether the dead boot owns or receives the guest.
fn belongs(view: &View, id: VmId, node: &NodeName, record: &FenceRecord) -> bool {
    let keys = keys::domain(id);
    let owns = view
        .shown(&keys.owner(), None)
        .is_some_and(|owner| owner.node == *node && owner.incarnation.same_boot(&record.victim));
    let receives = view
        .shown(&keys.incoming(), None)
        .is_some_and(|incoming| incoming.target == *node && incoming.incarnation.same_boot(&record.victim));
    owns || receives
}
