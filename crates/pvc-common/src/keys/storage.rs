//! Keys of the storage cluster: OSDs, pools, volumes and their snapshots.

use pvc_core::ids::{ImageName, PoolName};

use super::values::{Json, Nothing, OrNone};
use super::{Container, Key, key_group};

key_group!(
    /// The storage cluster as a whole.
    StorageKeys {
        /// Its status as text for people.
        status: Key<String> = "",
        /// Its health as Ceph reports it.
        health: Key<Option<Json<serde_json::Value>>> = "/health",
        /// Its utilisation as text for people.
        utilization: Key<String> = "/util",
    }
);

/// Keys of the storage cluster.
pub fn storage() -> StorageKeys {
    StorageKeys::below("/ceph")
}

key_group!(
    /// One OSD.
    OsdKeys {
        /// Exists as long as the OSD does.
        root: Key<Nothing> = "",
        /// The node that has it.
        node: Key<String> = "/node",
        /// Its block device.
        device: Key<String> = "/device",
        /// The logical volume of its database; empty if it has none of its own.
        db_device: Key<String> = "/db_device",
        /// Above its identities.
        fsid: Key<Nothing> = "/fsid",
        /// Its own identity.
        osd_fsid: Key<String> = "/fsid/osd",
        /// The identity of its Ceph cluster.
        cluster_fsid: Key<String> = "/fsid/cluster",
        /// Above its logical volume.
        lvm: Key<Nothing> = "/lvm",
        /// Its volume group.
        volume_group: Key<String> = "/lvm/vg",
        /// Its logical volume.
        logical_volume: Key<String> = "/lvm/lv",
        /// Whether it shares its device with other OSDs.
        is_split: Key<OrNone<bool>> = "/is_split",
        /// What Ceph tells of it.
        stats: Key<Option<Json<serde_json::Value>>> = "/stats",
    }
);

/// Keys of an OSD.
pub fn osd(id: u32) -> OsdKeys {
    OsdKeys::below(format!("/ceph/osds/{id}"))
}

/// OSDs by number.
pub fn osds() -> Container<u32> {
    Container::at("/ceph/osds")
}

key_group!(
    /// One pool.
    PoolKeys {
        /// Exists as long as the pool does.
        root: Key<Nothing> = "",
        /// Its placement groups, a number as text.
        pgs: Key<String> = "/pgs",
        /// `default`, `hdd`, `ssd` or `nvme`.
        tier: Key<String> = "/tier",
        /// What Ceph tells of it.
        stats: Key<Option<Json<serde_json::Value>>> = "/stats",
    }
);

/// Keys of a pool.
pub fn pool(name: &PoolName) -> PoolKeys {
    PoolKeys::below(format!("/ceph/pools/{name}"))
}

/// Pools by name.
pub fn pools() -> Container<PoolName> {
    Container::at("/ceph/pools")
}

key_group!(
    /// One volume.
    VolumeKeys {
        /// Exists as long as the volume does.
        root: Key<Nothing> = "",
        /// What RBD tells of it.
        stats: Key<Option<Json<serde_json::Value>>> = "/stats",
    }
);

/// Keys of a volume.
pub fn volume(pool: &PoolName, volume: &ImageName) -> VolumeKeys {
    VolumeKeys::below(format!("/ceph/volumes/{pool}/{volume}"))
}

/// Pools that have volumes.
pub fn volumes() -> Container<PoolName> {
    Container::at("/ceph/volumes")
}

/// A pool's volumes by name.
pub fn pool_volumes(pool: &PoolName) -> Container<ImageName> {
    Container::at(format!("/ceph/volumes/{pool}"))
}

key_group!(
    /// One snapshot of a volume.
    VolumeSnapshotKeys {
        /// Exists as long as the snapshot does.
        root: Key<Nothing> = "",
        /// What RBD tells of it.
        stats: Key<Option<Json<serde_json::Value>>> = "/stats",
    }
);

/// Keys of a volume's snapshot; `snapshot` is a child of [`volume_snapshots`].
pub fn volume_snapshot(pool: &PoolName, volume: &ImageName, snapshot: &str) -> VolumeSnapshotKeys {
    VolumeSnapshotKeys::below(format!("/ceph/snapshots/{pool}/{volume}/{snapshot}"))
}

/// Pools that have volumes with snapshots.
pub fn snapshot_pools() -> Container<PoolName> {
    Container::at("/ceph/snapshots")
}

/// A pool's volumes that have snapshots.
pub fn snapshot_volumes(pool: &PoolName) -> Container<ImageName> {
    Container::at(format!("/ceph/snapshots/{pool}"))
}

/// A volume's snapshots by name.
pub fn volume_snapshots(pool: &PoolName, volume: &ImageName) -> Container<String> {
    Container::at(format!("/ceph/snapshots/{pool}/{volume}"))
}
