//! The storage cluster: OSDs, pools, volumes and their snapshots.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A text of Ceph about the whole storage cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CephText {
    /// `status` or `utilization`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The node that has the primary role.
    pub primary_node: String,
    /// The text, as Ceph prints it; empty while no node has reported it.
    pub ceph_data: String,
}

/// An OSD.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Osd {
    /// Its number.
    pub id: String,
    /// Its identity.
    pub fsid: String,
    /// The node that has it.
    pub node: String,
    /// Its block device.
    pub device: String,
    /// Whether it shares its device with other OSDs.
    pub is_split: bool,
    /// The logical volume of its database; empty if it has none of its own.
    pub db_device: String,
    /// What Ceph tells of it: `up`, `in`, `utilization`, `pgs`, `kb`, `kb_used`, `weight`, `class` and so on.
    #[schema(value_type = Object)]
    pub stats: Value,
}

/// Whether an OSD takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OsdState {
    /// Its number.
    pub id: String,
    /// 1 if data is placed on it, else 0.
    #[serde(rename = "in")]
    pub in_: u8,
    /// 1 if it runs, else 0.
    pub up: u8,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// How many volumes it has.
    pub volume_count: u64,
    /// `default`, `hdd`, `ssd` or `nvme`.
    pub tier: String,
    /// Its placement groups.
    pub pgs: String,
    /// What Ceph tells of it: `stored_bytes`, `free_bytes`, `used_bytes`, `used_percent` (a fraction), `num_objects` and so
    /// on.
    #[schema(value_type = Object)]
    pub stats: Value,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// What RBD tells of it; `size` is a text such as `10G`.
    #[schema(value_type = Object)]
    pub stats: Value,
}

/// A snapshot of a volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// The volume's pool.
    pub pool: String,
    /// The volume.
    pub volume: String,
    /// Its name.
    pub snapshot: String,
    /// What RBD tells of it; `size` is in bytes.
    #[schema(value_type = Object)]
    pub stats: Value,
}
