//! Keys of the cluster as a whole.

use pvc_core::hold::{AdoptOrder, RestoreRecord};
use pvc_core::ids::NodeName;
use pvc_core::records::PrimaryRecord;
use pvc_core::states::NodeSelector;

use super::values::{Maintenance, Nothing, SchemaVersion};
use super::{Container, Key, key_group};

key_group!(
    /// The number of the store's layout.
    SchemaKeys {
        /// The layout that the store has. Locks of migrations are taken here.
        version: Key<SchemaVersion> = "/version",
    }
);

/// Keys of the store's layout.
pub fn schema() -> SchemaKeys {
    SchemaKeys::below("/schema")
}

key_group!(
    /// Settings and facts of the cluster.
    ConfigKeys {
        /// The cluster's name.
        cluster_name: Key<String> = "",
        /// Whether the cluster is under maintenance.
        maintenance: Key<Maintenance> = "/maintenance",
        /// Which node should hold the primary role. Contention takes its lock here.
        primary_node: Key<PrimaryRecord> = "/primary_node",
        /// PVC 1.0.3 steps its hand-over by locks on this znode; we only keep it there.
        primary_sync_lock: Key<Nothing> = "/primary_node/sync_lock",
        /// The floating address on the upstream network with its prefix length; empty until a primary wrote it.
        upstream_ip: Key<String> = "/upstream_ip",
        /// How a target node is chosen where a guest leaves it to the cluster.
        migration_target_selector: Key<Option<NodeSelector>> = "/migration_target_selector",
        /// Fencers take their lock here.
        fence_lock: Key<Nothing> = "/fence_lock",
        /// The order that what really runs on the nodes is the truth (schema 16); empty before the first.
        adopt: Key<Option<AdoptOrder>> = "/adopt",
        /// The last backup that was put into the store through the API (schema 16); empty before the first.
        restore: Key<Option<RestoreRecord>> = "/restore",
    }
);

/// Keys of the cluster's settings.
pub fn config() -> ConfigKeys {
    ConfigKeys::below("/config")
}

key_group!(
    /// One fault.
    FaultKeys {
        /// Exists as long as the fault does.
        root: Key<Nothing> = "",
        /// When it was last seen: `YYYY-MM-DD HH:MM:SS`, local time.
        last_time: Key<String> = "/last_time",
        /// When it was first seen.
        first_time: Key<String> = "/first_time",
        /// When it was acknowledged; empty if it was not.
        ack_time: Key<String> = "/ack_time",
        /// `new` or `ack`.
        status: Key<String> = "/status",
        /// What it takes from the cluster's health, in percent.
        delta: Key<u32> = "/delta",
        /// What it is.
        message: Key<String> = "/message",
    }
);

/// Keys of the fault `id`, which is a child of [`faults`].
pub fn fault(id: &str) -> FaultKeys {
    FaultKeys::below(format!("/faults/{id}"))
}

/// Faults by id.
pub fn faults() -> Container<String> {
    Container::at("/faults")
}

key_group!(
    /// A node's log.
    LogKeys {
        /// Exists as long as the log does.
        root: Key<Nothing> = "",
        /// The last lines, separated by line feeds.
        messages: Key<String> = "/messages",
    }
);

/// Keys of a node's log.
pub fn log(node: &NodeName) -> LogKeys {
    LogKeys::below(format!("/logs/{node}"))
}

/// Logs by node.
pub fn logs() -> Container<NodeName> {
    Container::at("/logs")
}
