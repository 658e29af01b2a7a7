//! Keys of a guest.

use pvc_core::device_order::DeviceOrder;
use pvc_core::ids::{NodeName, TagName, VmId, VmName, VolumeId};
use pvc_core::records::{Incoming, Owner};
use pvc_core::states::{MigrationMethod, NodeSelector, VmState};

use super::values::{CommaList, Json, Nothing, OrNone};
use super::{Container, Key, key_group};

key_group!(
    /// One guest.
    DomainKeys {
        /// Its name, in the guest's own znode.
        name: Key<VmName> = "",
        /// Its libvirt definition.
        xml: Key<String> = "/xml",
        /// Its state: request, progress and result in one word.
        state: Key<VmState> = "/state",
        /// The provisioner profile that it was made from.
        profile: Key<OrNone<String>> = "/profile",
        /// What its node last measured.
        stats: Key<Option<Json<serde_json::Value>>> = "/stats",
        /// The node on which it should run.
        node: Key<NodeName> = "/node",
        /// The node to which it should return, if it was moved for a time.
        last_node: Key<Option<NodeName>> = "/lastnode",
        /// Why it failed; empty while it is well.
        failed_reason: Key<String> = "/failedreason",
        /// Its volumes.
        volumes: Key<CommaList<VolumeId>> = "/rbdlist",
        /// The last lines of its console.
        console_log: Key<String> = "/consolelog",
        /// Where its VNC console listens, `ADDRESS:PORT`; empty if nowhere.
        vnc: Key<String> = "/vnc",
        /// Whether it is started when its node becomes ready.
        autostart: Key<bool> = "/node_autostart",
        /// How it may be moved.
        migration_method: Key<MigrationMethod> = "/migration_method",
        /// The longest pause of a live migration, in milliseconds.
        migration_max_downtime_ms: Key<u32> = "/migration_max_downtime",
        /// How its target nodes are chosen.
        node_selector: Key<NodeSelector> = "/node_selector",
        /// The nodes it may run on; empty for any.
        node_limit: Key<CommaList<NodeName>> = "/node_limit",
        /// Above its tags.
        tags: Key<Nothing> = "/tags",
        /// PVC 1.0.3 steps its migrations by locks on this znode.
        migrate_sync_lock: Key<String> = "/migrate_sync_lock",
        /// Above its snapshots.
        snapshots: Key<Nothing> = "/snapshots",
        /// The one node on which a process of it may exist (schema 16); empty for none.
        owner: Key<Option<Owner>> = "/owner",
        /// The target of its migration (schema 16); empty for none.
        incoming: Key<Option<Incoming>> = "/incoming",
        /// In which order guests are recovered from a dead node: higher first (schema 16). 0 is the ordinary.
        recovery_priority: Key<i32> = "/recovery_priority",
        /// Groups of guests that should not share a node (schema 16): no two guests of one group are put together.
        anti_affinity: Key<CommaList<TagName>> = "/anti_affinity",
    }
);

/// Keys of a guest.
pub fn domain(id: VmId) -> DomainKeys {
    DomainKeys::below(format!("/domains/{id}"))
}

/// The last order to attach or detach a device of a guest. There is none until the first is given; it goes with the guest.
pub fn device_order(id: VmId) -> Key<Option<DeviceOrder>> {
    Key::at(format!("/domains/{id}/device_order"))
}

/// Guests by UUID.
pub fn domains() -> Container<VmId> {
    Container::at("/domains")
}

key_group!(
    /// One tag of a guest.
    TagKeys {
        /// The tag.
        name: Key<TagName> = "",
        /// `user`.
        kind: Key<String> = "/type",
        /// Whether it can be removed only on purpose.
        protected: Key<bool> = "/protected",
    }
);

/// Keys of a guest's tag.
pub fn tag(id: VmId, tag: &TagName) -> TagKeys {
    TagKeys::below(format!("/domains/{id}/tags/{tag}"))
}

/// A guest's tags.
pub fn domain_tags(id: VmId) -> Container<TagName> {
    Container::at(format!("/domains/{id}/tags"))
}

key_group!(
    /// One snapshot of a guest.
    SnapshotKeys {
        /// Its name.
        name: Key<String> = "",
        /// When it was taken, in seconds since 1970, maybe with a fraction.
        timestamp: Key<String> = "/timestamp",
        /// The guest's libvirt definition at that time.
        xml: Key<String> = "/xml",
        /// The snapshots of its volumes, `POOL/VOLUME@SNAPSHOT`.
        rbd_snapshots: Key<CommaList<String>> = "/rbdsnaplist",
    }
);

/// Keys of a guest's snapshot; `name` is a child of [`domain_snapshots`].
pub fn domain_snapshot(id: VmId, name: &str) -> SnapshotKeys {
    SnapshotKeys::below(format!("/domains/{id}/snapshots/{name}"))
}

/// A guest's snapshots by name.
pub fn domain_snapshots(id: VmId) -> Container<String> {
    Container::at(format!("/domains/{id}/snapshots"))
}
