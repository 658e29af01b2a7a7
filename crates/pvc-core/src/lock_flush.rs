//! Removing the locks of a stopped guest's volumes, as an administrator orders.
//!
//! A lock that a dead client has left is removed by starts and recoveries when it is provably theirs; what is neither
//! keeps the guest from starting, and a person decides. The guest's node does it: it bars the lock's holder from Ceph
//! before it removes the lock, so that a holder that lives after all can't write any more.

use serde::{Deserialize, Serialize};

use crate::ids::NodeName;
use crate::records::{Incoming, Owner, Record};
use crate::states::VmState;

/// An order to remove the locks of a guest's volumes, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFlush {
    /// Tells it from every other order: a fresh UUID.
    pub id: String,
    /// Who gave it: the name of the user or token.
    pub by: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// The node that carries it out.
    pub node: NodeName,
    /// Whether it holds in states of the guest in which it is refused otherwise.
    #[serde(default)]
    pub force: bool,
    /// How far it is.
    pub state: LockFlushState,
    /// Locks that were removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<RemovedLock>,
}

impl Record for LockFlush {}

/// How far an order is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum LockFlushState {
    /// Nobody has taken it up.
    Ordered,
    /// Locks are being removed, or were.
    Removing,
    /// All locks that were there are removed.
    Done,
    /// It was not carried out, or not to its end.
    Failed {
        /// Why.
        reason: String,
    },
}

impl LockFlushState {
    /// Whether somebody has still to act on it.
    pub fn is_open(&self) -> bool {
        match self {
            LockFlushState::Ordered | LockFlushState::Removing => true,
            LockFlushState::Done | LockFlushState::Failed { .. } => false,
        }
    }
}

/// A lock that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedLock {
    /// The volume, `POOL/VOLUME`.
    pub volume: String,
    /// The lock's id.
    pub id: String,
    /// Its holder's name.
    pub locker: String,
    /// Its holder's address; barred from Ceph since.
    pub client: String,
}

/// Why the locks of a guest's volumes are not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlushDenied {
    /// A process of it may exist.
    #[error("node {node} owns it, and a process of it may exist there: its locks may be in use")]
    Owned {
        /// The owner.
        node: NodeName,
    },
    /// It is on its way.
    #[error("it is on its way to node {node}: its locks may be in use")]
    Moving {
        /// The target.
        node: NodeName,
    },
    /// Its state says that it is or should be in use.
    #[error("it is in state {state}; only in stop, disable, fail and mirror, or with force")]
    State {
        /// Its state.
        state: VmState,
    },
}

/// Whether the locks of a guest's volumes may be removed. Never while somebody owns it, whatever is forced.
///
/// # Errors
/// [`FlushDenied`].
pub fn may_flush_locks(
    state: VmState,
    owner: Option<&Owner>,
    incoming: Option<&Incoming>,
    force: bool,
) -> Result<(), FlushDenied> {
    // SAFETY(fencing): a live owner's lock is never removed by this. A guest whose node died is given up by its fence.
    if let Some(owner) = owner {
        return Err(FlushDenied::Owned {
            node: owner.node.clone(),
        });
    }
    if let Some(incoming) = incoming {
        return Err(FlushDenied::Moving {
            node: incoming.target.clone(),
        });
    }
    match state {
        VmState::Stop | VmState::Disable | VmState::Fail | VmState::Mirror => Ok(()),
        VmState::Start
        | VmState::Restart
        | VmState::Shutdown
        | VmState::Migrate
        | VmState::MigrateLive
        | VmState::Unmigrate
        | VmState::Provision
        | VmState::Import
        | VmState::Restore
        | VmState::Delete => {
            if force {
                Ok(())
            } else {
                Err(FlushDenied::State { state })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;
    use crate::records::CephClients;

    #[test]
    fn locks_of_an_owned_guest_are_never_removed() {
        let owner = Owner {
            node: NodeName::new("hv2").unwrap(),
            incarnation: Incarnation {
                machine_id: "0123456789abcdef0123456789abcdef".parse().unwrap(),
                boot_id: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap(),
                counter: 1,
            },
            epoch: 1,
            ceph_clients: CephClients::Unrecorded,
        };
        for state in VmState::ALL {
            for force in [false, true] {
                let denied = may_flush_locks(*state, Some(&owner), None, force);
                assert!(
                    matches!(denied, Err(FlushDenied::Owned { .. })),
                    "{state} {force}"
                );
            }
            assert_eq!(may_flush_locks(*state, None, None, true), Ok(()), "{state}");
            let rests = matches!(
                state,
                VmState::Stop | VmState::Disable | VmState::Fail | VmState::Mirror
            );
            assert_eq!(
                may_flush_locks(*state, None, None, false).is_ok(),
                rests,
                "{state}"
            );
        }
    }
}
