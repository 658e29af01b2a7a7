//! Guests.

use pvc_core::states::VmState;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Its state.
    #[schema(value_type = String, example = "start")]
    pub state: VmState,
    /// The node where it should run.
    pub node: String,
    /// The node where it belongs, if it was moved away for a while; else empty.
    pub last_node: String,
    /// `no`, or `from` and the node where it belongs.
    pub migrated: String,
    /// Why it is in state `fail`; else empty.
    pub failed_reason: String,
    /// The nodes that it may run on; nothing means any.
    pub node_limit: Option<Vec<String>>,
    /// How a node is chosen for it; nothing or `none` means as the cluster does.
    pub node_selector: Option<String>,
    /// Whether it is started when its node becomes ready the next time.
    pub node_autostart: bool,
    /// How it may be moved.
    pub migration_method: Option<String>,
    /// How long it may pause at the end of a live migration, in milliseconds.
    pub migration_max_downtime: u64,
    /// Its tags.
    pub tags: Vec<VmTag>,
    /// Its snapshots.
    pub snapshots: Vec<VmSnapshot>,
    /// The description in its XML.
    pub description: String,
    /// The profile that it was made from, or `None`.
    pub profile: String,
    /// Memory, in MiB.
    pub memory: u64,
    /// Memory as the hypervisor last measured it, in KiB unless the name says otherwise.
    #[schema(value_type = Object)]
    pub memory_stats: Value,
    /// vCPUs.
    pub vcpu: u32,
    /// `sockets/cores/threads`, or `N/A`.
    pub vcpu_topology: String,
    /// CPU time used, in nanoseconds.
    #[schema(value_type = Object)]
    pub vcpu_stats: Value,
    /// Its network interfaces.
    pub networks: Vec<VmNetwork>,
    /// What the XML says that it is (`hvm`).
    #[serde(rename = "type")]
    pub kind: String,
    /// Processor architecture.
    pub arch: String,
    /// Machine type.
    pub machine: String,
    /// The type of its console, or `N/A`.
    pub console: String,
    /// Where its screen can be reached while it runs.
    pub vnc: VmVnc,
    /// The program that emulates it.
    pub emulator: String,
    /// Features of the virtual hardware.
    pub features: Vec<String>,
    /// Its disks.
    pub disks: Vec<VmDisk>,
    /// Its controllers.
    pub controllers: Vec<VmController>,
    /// Its XML as it is stored, with `********` in the place of passwords. An XML that is sent back with that keeps them.
    pub xml: String,
    /// The version of its XML. A change that names it holds only if nobody else has changed the XML meanwhile. Addition to PVC
    /// 1.0.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xml_version: Option<i64>,
    /// What is wrong with the stored XML, if it cannot be read: the fields that come from it are empty then. Addition
    /// to PVC 1.0.3, which does not list such a guest at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xml_error: Option<String>,
    /// What can not be read of its record in the store, such as a state of a later release: its state is shown as `fail` then,
    /// or its node as empty. Addition to PVC 1.0.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_error: Option<String>,
    /// The node that holds the right to run it now; empty if none does. Addition to PVC 1.0.3.
    #[serde(default)]
    pub owner: String,
    /// The node that is receiving it; empty if no migration of it is under way. Addition to PVC 1.0.3.
    #[serde(default)]
    pub incoming: String,
    /// In which order guests are recovered from a dead node: higher first; 0 is the ordinary. Addition to PVC 1.0.3.
    #[serde(default)]
    pub recovery_priority: i32,
    /// Groups of guests that should not share a node. Addition to PVC 1.0.3.
    #[serde(default)]
    pub anti_affinity: Vec<String>,
    /// Whether that node has let it run: a guest that is being started has an owner already and no running vCPU yet.
    /// Addition to PVC 1.0.3.
    #[serde(default)]
    pub running: bool,
}

/// How a guest is placed, moved and recovered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmMeta {
    /// Its name.
    pub name: String,
    /// The nodes that it may run on; nothing means any.
    pub node_limit: Option<Vec<String>>,
    /// How a node is chosen for it.
    pub node_selector: String,
    /// `True` or `False`: whether it is started when its node becomes ready the next time.
    pub node_autostart: String,
    /// How it may be moved.
    pub migration_method: String,
    /// How long it may pause at the end of a live migration, in milliseconds.
    pub migration_max_downtime: u64,
    /// In which order guests are recovered from a dead node: higher first. Addition to PVC 1.0.3.
    #[serde(default)]
    pub recovery_priority: i32,
    /// Groups of guests that should not share a node. Addition to PVC 1.0.3.
    #[serde(default)]
    pub anti_affinity: Vec<String>,
}

/// Long work that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Its identity: eight hexadecimal digits.
    pub task_id: String,
    /// What it is.
    pub task_name: String,
    /// The node that does it.
    pub run_on: String,
}

/// A guest's tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmTags {
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<VmTag>,
}

/// The last lines of a guest's console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmConsole {
    /// Its name.
    pub name: String,
    /// The lines, separated by line feeds.
    pub data: String,
}

/// What has become of an order to attach or detach a device of a guest. Addition to PVC 1.0.3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceOrderStatus {
    /// The task's identity.
    pub id: String,
    /// `vm.device_attach` or `vm.device_detach`.
    pub task_name: String,
    /// The device, in words.
    pub device: String,
    /// The node that does it.
    pub node: String,
    /// Who gave it.
    pub ordered_by: String,
    /// When, in seconds since 1970.
    pub ordered_at: u64,
    /// `ordered`, `working`, `done` or `failed`.
    pub state: String,
    /// Why it failed; else empty.
    pub reason: String,
}

/// What has become of an order to remove the locks of a guest's volumes. Addition to PVC 1.0.3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockFlushStatus {
    /// The order's identity.
    pub id: String,
    /// The node that does it.
    pub node: String,
    /// Who gave it.
    pub ordered_by: String,
    /// When, in seconds since 1970.
    pub ordered_at: u64,
    /// `ordered`, `removing`, `done` or `failed`.
    pub state: String,
    /// Why it failed; else empty.
    pub reason: String,
    /// Locks that were removed.
    pub removed: Vec<RemovedLock>,
}

/// A lock that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemovedLock {
    /// The volume.
    pub volume: String,
    /// The lock's id.
    pub lock: String,
    /// Its holder's name.
    pub locker: String,
    /// Its holder's address; barred from Ceph since.
    pub address: String,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmTag {
    /// The tag.
    pub name: String,
    /// `user`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it can not be removed.
    pub protected: bool,
}

/// A snapshot of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmSnapshot {
    /// Its name.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub timestamp: String,
    /// Seconds since then.
    pub age: i64,
    /// How the XML of then differs from that of now: a unified difference with one line of context, in which `+` stands before the
    /// lines of then. Empty if they are the same, or if none was kept.
    pub xml_diff_lines: Vec<String>,
    /// The snapshots of its volumes, `pool/volume@snapshot`.
    pub rbd_snapshots: Vec<String>,
}

/// A network interface of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmNetwork {
    /// `bridge`, `direct` or `hostdev`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The network's number, or its name for a bridge that is not managed; `macvtap:<dev>`, `hostdev:<dev>`.
    pub vni: String,
    /// MAC address.
    pub mac: String,
    /// What it is plugged into on the node.
    pub source: String,
    /// The device that the guest sees.
    pub model: String,
    /// Received.
    pub rd_bytes: u64,
    /// Received.
    pub rd_packets: u64,
    /// Received with errors.
    pub rd_errors: u64,
    /// Dropped on receipt.
    pub rd_drops: u64,
    /// Sent.
    pub wr_bytes: u64,
    /// Sent.
    pub wr_packets: u64,
    /// Sent with errors.
    pub wr_errors: u64,
    /// Dropped on sending.
    pub wr_drops: u64,
}

/// Where a guest's screen can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct VmVnc {
    /// Address.
    pub listen: Option<String>,
    /// Port.
    pub port: Option<String>,
}

/// A disk of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmDisk {
    /// `rbd` or `file`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `pool/volume`, or the file's path.
    pub name: String,
    /// The name of the device in the XML.
    pub dev: String,
    /// The bus that it is on.
    pub bus: String,
    /// Read requests.
    pub rd_req: u64,
    /// Bytes read.
    pub rd_bytes: u64,
    /// Write requests.
    pub wr_req: u64,
    /// Bytes written.
    pub wr_bytes: u64,
}

/// A controller of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmController {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its model.
    pub model: Option<String>,
}

/// A guest's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmStateReply {
    /// Its name.
    pub name: String,
    /// Its state.
    #[schema(value_type = String, example = "start")]
    pub state: VmState,
}

/// Where a guest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmNodeReply {
    /// Its name.
    pub name: String,
    /// The node where it should run.
    pub node: String,
    /// The node where it belongs, if it was moved away for a while; else empty.
    pub last_node: String,
}
