//! The outside world of the agent: one module per thing, behind seams named for the domain.
//!
//! Rounds are generic over these traits. Each has one real implementation here and one fake in [`fake`] that behaves
//! (it remembers, fails on order, takes virtual time).

mod announce;
pub mod ceph;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod identity;
pub mod libvirt;
pub mod lifetime;
mod netlink;
pub mod network;
pub mod power;
pub mod reach;
pub mod services;
#[cfg(test)]
mod testing;
pub mod upstream;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use pvc_core::cluster_faults::CephHealth;
use pvc_core::ids::{CephClient, NodeName, VmId, VmName, VolumeId};
use pvc_core::protection::{Protection, stands};
use pvc_core::records::LogMark;
use pvc_core::time::BootTime;
pub use pvc_core::vm::{DomainStatus, Ending, JobReading, PauseReason};
pub use pvc_core::volume_use::{RbdLock, VolumeUse};

pub use power::{BmcAccess, PowerControl, PowerError, PowerOffSeen, PowerState, power_off_and_see};

/// What an idempotent action found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It was so already.
    AlreadySo,
    /// It was done now.
    Done,
}

/// The networks whose floating addresses follow the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleNetwork {
    /// Towards clients.
    Upstream,
    /// Between the nodes.
    Cluster,
    /// Towards Ceph.
    Storage,
}

/// An address that follows the primary role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleAddress {
    /// The network it is on.
    pub network: RoleNetwork,
    /// The bridge that carries it, for example `brupstream`.
    pub interface: String,
    /// The address. It is set as a host address (/32 or /128).
    pub ip: IpAddr,
}

/// A network call that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// There is no such interface.
    #[error("there is no network interface {interface}")]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// The kernel refused.
    #[error("failed to {action}")]
    Kernel {
        /// What was asked, in words.
        action: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// What came of setting an address for a limited time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressOutcome {
    /// The kernel holds it, and drops it by itself at the latest at the second given after the call.
    Set {
        /// The lifetime given to the kernel, in seconds.
        valid_lft_seconds: u32,
    },
    /// Too little of the right is left (or it was used up during the call): the address is not there, or was taken off.
    TooLate,
    /// Only from [`HostNetwork::refresh`]: the address is not there any more. It was not added.
    Missing,
}

/// The host's addresses. Every call is synchronous: between the reckoning of a lifetime and the system call there is
/// no point at which the task could be put aside.
pub trait HostNetwork: Clone + Send + Sync + 'static {
    /// Adds `address`, so that the kernel drops it by itself once `right_ends` has passed: the lifetime is the whole
    /// seconds left until then; with less than 1 s left nothing is added. After the call the clock is read again, and
    /// the address is removed if the right has ended meanwhile.
    ///
    /// # Errors
    /// [`NetworkError`]; the address is then not there.
    fn add(&self, address: &RoleAddress, right_ends: BootTime) -> Result<AddressOutcome, NetworkError>;

    /// Gives an address that is there a new lifetime, as [`HostNetwork::add`]. Never adds it: an address that is
    /// missing means that the role was lost.
    ///
    /// # Errors
    /// [`NetworkError`].
    fn refresh(&self, address: &RoleAddress, right_ends: BootTime) -> Result<AddressOutcome, NetworkError>;

    /// Takes `address` off the host, whatever its lifetime.
    ///
    /// # Errors
    /// [`NetworkError`].
    fn remove(&self, address: &RoleAddress) -> Result<Changed, NetworkError>;

    /// Which of `addresses` the host has now.
    ///
    /// # Errors
    /// [`NetworkError`].
    fn present(&self, addresses: &[RoleAddress]) -> Result<Vec<RoleAddress>, NetworkError>;

    /// Tells the neighbours where `address` is now: one gratuitous ARP, or one unsolicited neighbour advertisement.
    ///
    /// # Errors
    /// [`NetworkError`].
    fn announce(&self, address: &RoleAddress) -> Result<(), NetworkError>;
}

/// A process of a guest on this host, as `/proc` shows it: the one look that needs nobody's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestProcess {
    /// The guest, from `-uuid` in its command line.
    pub vm: VmId,
    /// Its process id.
    pub pid: u32,
    /// When it was started, in clock ticks since boot: tells it from a later process of the same id.
    pub start_ticks: u64,
}

/// How a guest is sent to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationOrder {
    /// The receiving node.
    pub target: NodeName,
    /// Its address on the cluster network, if it has published one. Else its name there is used.
    pub address: Option<IpAddr>,
    /// The longest pause at the switch-over that the guest may have.
    pub max_downtime: Duration,
}

/// How a process is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndBy {
    /// Asked: QEMU closes its volumes and ends.
    Term,
    /// At once: its Ceph clients linger.
    Kill,
}

/// A hypervisor call that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HypervisorError {
    /// libvirtd did not answer: the domain is in an unknown state.
    #[error("libvirt does not answer ({reason})")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// libvirtd refused, in its own words.
    #[error("libvirt: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
    /// There is no such domain.
    #[error("libvirt has no domain {vm}")]
    NoDomain {
        /// The guest.
        vm: VmId,
    },
}

/// Figures of one guest, as the reference stores them in `/domains/U/stats` (JSON).
pub type GuestStatistics = serde_json::Value;

/// The host's hypervisor. Blocking calls happen off the async threads; each has a deadline.
pub trait Hypervisor: Clone + Send + Sync + 'static {
    /// Every domain that libvirt knows as active, with its status.
    ///
    /// # Errors
    /// [`HypervisorError::Unavailable`].
    fn domains(&self) -> impl Future<Output = Result<BTreeMap<VmId, DomainStatus>, HypervisorError>> + Send;

    /// Every guest process on this host. Blocking but quick (reads `/proc`).
    ///
    /// # Errors
    /// When `/proc` can't be read.
    fn processes(&self) -> std::io::Result<Vec<GuestProcess>>;

    /// Creates a transient domain with its vCPUs paused.
    ///
    /// # Errors
    /// [`HypervisorError`]. After [`HypervisorError::Unavailable`] it may have been created.
    fn create_paused(&self, vm: VmId, xml: &str) -> impl Future<Output = Result<(), HypervisorError>> + Send;

    /// Lets the vCPUs run.
    ///
    /// # Errors
    /// [`HypervisorError`].
    fn resume(&self, vm: VmId) -> impl Future<Output = Result<(), HypervisorError>> + Send;

    /// Stops the vCPUs; a guest whose vCPUs stand still already is success. Takes its turn after whatever an earlier call
    /// still does to the guest, so that what a look shows afterwards is what that call has come to.
    ///
    /// # Errors
    /// [`HypervisorError`]; [`HypervisorError::Unavailable`] as well while an earlier call on its devices has not returned.
    fn suspend(&self, vm: VmId) -> impl Future<Output = Result<(), HypervisorError>> + Send;

    /// Plugs a device into an active guest. An RBD disk stops the guest at an I/O error, as those have that it was
    /// started with.
    ///
    /// # Errors
    /// [`HypervisorError`]. After [`HypervisorError::Unavailable`] it may have been plugged in, or may be yet: until
    /// that is over, [`Hypervisor::resume`] and [`Hypervisor::suspend`] of this guest are unavailable.
    fn attach_device(&self, vm: VmId, xml: &str) -> impl Future<Output = Result<(), HypervisorError>> + Send;

    /// Asks an active guest to let go of a device. It may take its time: a look at the live XML tells whether it has.
    ///
    /// # Errors
    /// As [`Hypervisor::attach_device`].
    fn detach_device(&self, vm: VmId, xml: &str) -> impl Future<Output = Result<(), HypervisorError>> + Send;

    /// Presses the ACPI power button.
    ///
    /// # Errors
    /// [`HypervisorError`].
    fn shutdown(&self, vm: VmId) -> impl Future<Output = Result<(), HypervisorError>> + Send;

    /// Ends the domain's process. No such domain is success.
    ///
    /// # Errors
    /// [`HypervisorError`].
    fn destroy(&self, vm: VmId) -> impl Future<Output = Result<Changed, HypervisorError>> + Send;

    /// Sends a running guest to another node and returns when that is over. The receiving half is left paused. Success
    /// says that this host's process has ended; after a failure only a look tells how things are.
    ///
    /// # Cancellation
    /// Dropping the call does not stop the migration: [`Hypervisor::sending`] shows it, also to a later life.
    ///
    /// # Errors
    /// [`HypervisorError`].
    fn send(
        &self,
        vm: VmId,
        order: &MigrationOrder,
    ) -> impl Future<Output = Result<(), HypervisorError>> + Send;

    /// Whether the guest is being sent. [`JobReading::Unknown`] when libvirt does not answer.
    fn sending(&self, vm: VmId) -> impl Future<Output = JobReading> + Send;

    /// Stops sending the guest; it runs on here. Too late, or not being sent: nothing happens.
    ///
    /// # Errors
    /// [`HypervisorError`].
    fn cancel_sending(&self, vm: VmId) -> impl Future<Output = Result<Changed, HypervisorError>> + Send;

    /// How far the log has come that libvirt keeps of this guest here. Quick (looks at a file).
    ///
    /// # Errors
    /// When it can't be looked at.
    fn log_mark(&self, vm: VmId, name: &VmName) -> std::io::Result<LogMark>;

    /// How the guest's process here ended, by what its log says behind `since`, which was taken while it lived. To be
    /// asked once the process is gone: libvirt writes before it ends one. What can't be read is [`Ending::Unclear`].
    /// Quick (reads the end of a file).
    fn ending(&self, vm: VmId, name: &VmName, since: LogMark) -> Ending;

    /// Ends a process without libvirt's help, for one that libvirt has forgotten. Quick. A process that is gone, or
    /// another one under its number, is success and is left alone.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn end_process(&self, process: &GuestProcess, by: EndBy) -> std::io::Result<Changed>;

    /// Figures of every active guest.
    ///
    /// # Errors
    /// [`HypervisorError::Unavailable`].
    fn statistics(
        &self,
    ) -> impl Future<Output = Result<BTreeMap<VmId, GuestStatistics>, HypervisorError>> + Send;

    /// The live XML of an active guest.
    ///
    /// # Errors
    /// [`HypervisorError`].
    fn live_xml(&self, vm: VmId) -> impl Future<Output = Result<String, HypervisorError>> + Send;

    /// Returns when something happened to a domain since the last return, or libvirtd came or went. Cancel-safe. A
    /// hint only: polling is the safety net.
    fn changed(&self) -> impl Future<Output = ()> + Send;
}

/// A storage call that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// There is no such volume.
    #[error("there is no volume {volume}")]
    NoVolume {
        /// The volume.
        volume: VolumeId,
    },
    /// Ceph did not answer in time, or the command failed.
    #[error("failed to {action}: {reason}")]
    Failed {
        /// What was asked, in words.
        action: String,
        /// What happened.
        reason: String,
    },
}

/// The number of an OSD map. Each change of the cluster that clients must know has a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapEpoch(pub u64);

impl std::fmt::Display for MapEpoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// An OSD, as the map has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OsdState {
    /// Its number.
    pub id: u32,
    /// Whether the map has it as up. One that has died stays up until its peers have missed it for long enough.
    pub up: bool,
    /// The host that it runs on, by its address towards clients.
    pub ip: IpAddr,
}

/// How sure it is that an OSD is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OsdDown {
    /// Its machine was seen to be off: its peers need not wait for what it may still serve to readers. Anything less
    /// than that could let a reader see old data.
    DefinitelyDead,
    /// It does not answer. If it lives it comes back by itself.
    Plain,
}

/// How long a blocklist entry lasts. It must outlive any pause of the client that it bars: one that did not notice
/// writes again as soon as the entry has gone.
pub fn blocklist_lasts() -> Duration {
    const TEN_YEARS: Duration = Duration::from_secs(315_360_000);
    const DEFAULT_OF_CEPH: Duration = Duration::from_secs(3600);
    if stands(Protection::LongBlocklistExpiry) {
        TEN_YEARS
    } else {
        DEFAULT_OF_CEPH
    }
}

/// How the storage cluster is, for people: apart from [`Storage`], since no decision hangs on it.
pub trait StorageHealth: Send + Sync + 'static {
    /// What it complains of. Has a deadline.
    ///
    /// # Errors
    /// [`StorageError`]; nothing is known then.
    fn health(&self) -> impl Future<Output = Result<CephHealth, StorageError>> + Send;
}

/// The storage cluster. Every call has a deadline.
pub trait Storage: Clone + Send + Sync + 'static {
    /// Watchers and locks of a volume.
    ///
    /// # Errors
    /// [`StorageError`].
    fn volume_use(&self, volume: &VolumeId) -> impl Future<Output = Result<VolumeUse, StorageError>> + Send;

    /// Bars these clients from all further I/O for ten years, all in one parallel batch; returns when the map that
    /// says so is committed, with the epoch of a map that has them all. OSDs learn it a little later: see
    /// [`Storage::every_osd_knows`].
    ///
    /// # Errors
    /// [`StorageError`]; some of them may be barred.
    ///
    /// # Idempotence
    /// Barring anew makes the entry last for ten years from now.
    fn blocklist(
        &self,
        clients: &[CephClient],
    ) -> impl Future<Output = Result<MapEpoch, StorageError>> + Send;

    /// Every OSD that the map has an address for.
    ///
    /// # Errors
    /// [`StorageError`].
    fn osds(&self) -> impl Future<Output = Result<Vec<OsdState>, StorageError>> + Send;

    /// Returns once every OSD that is up has said that it knows the map `epoch` or a later one: from then on none of
    /// them takes a write that this map forbids. One that is marked down meanwhile need not say so.
    ///
    /// # Errors
    /// [`StorageError`], which names the OSDs that have not said so.
    fn every_osd_knows(&self, epoch: MapEpoch) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Marks OSDs down, so that the others stop waiting for them. Those that are down already stay so.
    ///
    /// # Errors
    /// [`StorageError`]; some of them may be marked.
    fn osd_down(&self, osds: &[u32], how: OsdDown) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Removes a lock. A lock that is gone already is success. Ceph bars its owner from further I/O first,
    /// for [`blocklist_lasts`].
    ///
    /// # Errors
    /// [`StorageError`].
    fn remove_lock(
        &self,
        volume: &VolumeId,
        lock: &RbdLock,
    ) -> impl Future<Output = Result<Changed, StorageError>> + Send;
}
