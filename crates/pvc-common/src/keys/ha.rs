//! Keys of the high-availability protocol (schema 16). They always exist, empty for "none", so that their version can
//! be checked: ZooKeeper cannot check absence.

use pvc_core::fence::FenceRecord;
use pvc_core::ids::{NodeName, VmId};
use pvc_core::lock_flush::LockFlush;
use pvc_core::records::{NodeLease, RoleLease};

use super::{Container, Key};

/// A node's lease: its agent is alive as long as this keeps changing. Empty until its first registration.
pub fn lease_node(name: &NodeName) -> Key<Option<NodeLease>> {
    Key::at(format!("/leases/nodes/{name}"))
}

/// Node leases by node.
pub fn lease_nodes() -> Container<NodeName> {
    Container::at("/leases/nodes")
}

/// The lease of the primary role's addresses. Empty until the first primary.
pub fn lease_primary() -> Key<Option<RoleLease>> {
    Key::at("/leases/primary")
}

/// The fence of a node; empty for none. Whoever finds it filled claims and starts nothing on that node.
pub fn fence(name: &NodeName) -> Key<Option<FenceRecord>> {
    Key::at(format!("/fences/{name}"))
}

/// The last order to remove the locks of a guest's volumes. There is none, and no container, until one is given.
pub fn lock_flush(id: VmId) -> Key<Option<LockFlush>> {
    Key::at(format!("/flush_locks/{id}"))
}

/// Orders to remove locks, by guest.
pub fn lock_flushes() -> Container<VmId> {
    Container::at("/flush_locks")
}

/// Fences by node.
pub fn fences() -> Container<NodeName> {
    Container::at("/fences")
}
