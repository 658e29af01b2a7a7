//! What concerns the daemons themselves: where their files are, what they do, how often, and what they log.

use std::path::PathBuf;
use std::time::Duration;

use super::finding::Problem;
use super::section::Section;
use super::values::{Count, Device, Mtu, Seconds};

/// The `path` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Health plugins. Default `/usr/share/pvc/plugins`.
    pub plugin_directory: PathBuf,
    /// Files that a reboot may take. Default `/run/pvc`.
    pub dynamic_directory: PathBuf,
    /// Logs of programs that the daemons start. Default `/var/log/pvc`.
    pub system_log_directory: PathBuf,
    /// Guests' serial consoles, one file each. Default `/var/log/libvirt`.
    pub console_log_directory: PathBuf,
    /// Ceph's configuration and keyring. Default `/etc/ceph`.
    pub ceph_directory: PathBuf,
}

pub(super) fn read_paths(section: &mut Section<'_>) -> Paths {
    Paths {
        plugin_directory: section.or("plugin_directory", PathBuf::from("/usr/share/pvc/plugins")),
        dynamic_directory: section.or("dynamic_directory", PathBuf::from("/run/pvc")),
        system_log_directory: section.or("system_log_directory", PathBuf::from("/var/log/pvc")),
        console_log_directory: section.or("console_log_directory", PathBuf::from("/var/log/libvirt")),
        ceph_directory: section.or("ceph_directory", PathBuf::from("/etc/ceph")),
    }
}

/// The `subsystem` section: what this node does. All on by default.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "these are independent switches of the file"
)]
pub struct Subsystems {
    /// Runs guests.
    pub hypervisor: bool,
    /// Manages host bridges, addresses and virtual networks.
    pub networking: bool,
    /// Manages Ceph and reads its statistics.
    pub storage: bool,
    /// Runs the worker for long tasks.
    pub worker: bool,
    /// Runs the API daemon.
    pub api: bool,
    /// Serves `/metrics`.
    pub prometheus: bool,
}

pub(super) fn read_subsystems(section: &mut Section<'_>) -> Subsystems {
    Subsystems {
        hypervisor: section.or("enable_hypervisor", true),
        networking: section.or("enable_networking", true),
        storage: section.or("enable_storage", true),
        worker: section.or("enable_worker", true),
        api: section.or("enable_api", true),
        prometheus: section.or("enable_prometheus", true),
    }
}

/// The `timer` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers {
    /// A guest that has not shut down by then is stopped. Default 180 s.
    pub vm_shutdown_timeout: Duration,
    /// Time between two publications of statistics. Default 5 s. It has no part in judging who is alive.
    pub keepalive_interval: Duration,
    /// Time between two health checks. Default 15 s.
    pub monitoring_interval: Duration,
}

pub(super) fn read_timers(section: &mut Section<'_>) -> Timers {
    let mut seconds = |key, default| section.or(key, Seconds(Duration::from_secs(default))).0;
    Timers {
        vm_shutdown_timeout: seconds("vm_shutdown_timeout", 180),
        keepalive_interval: seconds("keepalive_interval", 5),
        monitoring_interval: seconds("monitoring_interval", 15),
    }
}

/// The `logging` section.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "these are independent switches of the file"
)]
pub struct Logging {
    /// Logs at level debug. Default no.
    pub debug: bool,
    /// Keeps log lines in ZooKeeper, where `pvc node log` reads them. Default no.
    pub zookeeper: bool,
    /// Logs each publication of statistics. Default no.
    pub keepalives: bool,
    /// With these, also the cluster's figures. Default no.
    pub cluster_details: bool,
    /// Logs each health plugin's result. Default no.
    pub monitoring_details: bool,
    /// Lines kept of each guest's console. Default 1000.
    pub console_lines: u32,
    /// Log lines kept of each node, if they are kept. Default 2000.
    pub node_lines: u32,
}

pub(super) fn read_logging(section: &mut Section<'_>) -> Logging {
    const JOURNAL: &str =
        "logs go to the journal, which keeps the time and shows it as you like; see journalctl";
    for key in ["file_logging", "stdout_logging", "log_colours", "log_dates"] {
        section.without_effect(key, JOURNAL);
    }
    Logging {
        debug: section.or("debug_logging", false),
        zookeeper: section.or("zookeeper_logging", false),
        keepalives: section.or("log_keepalives", false),
        cluster_details: section.or("log_cluster_details", false),
        monitoring_details: section.or("log_monitoring_details", false),
        console_lines: section.or("console_log_lines", Count(1000)).0,
        node_lines: section.or("node_log_lines", Count(2000)).0,
    }
}

/// The `guest_networking` section: how guests reach the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestNetworking {
    /// The parent of the VLANs of bridged networks.
    pub bridge_device: String,
    /// The largest MTU of bridged networks, in bytes.
    pub bridge_mtu: u32,
    /// Physical functions to manage, if SR-IOV is on. Default off.
    pub sriov: Option<Vec<SriovDevice>>,
}

/// A physical function whose virtual functions guests may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SriovDevice {
    /// The interface.
    pub device: String,
    /// The MTU of it and of its virtual functions, in bytes. Default 1500.
    pub mtu: u32,
    /// How many virtual functions.
    pub virtual_functions: u32,
}

pub(super) fn read_guest_networking(section: &mut Section<'_>) -> Option<GuestNetworking> {
    let bridge_device = section.required::<Device>("bridge_device");
    let bridge_mtu = section.required::<Mtu>("bridge_mtu");
    let enabled = section.or("sriov_enable", false);
    let devices = section
        .sections("sriov_device", read_sriov_device)
        .unwrap_or_default();
    Some(GuestNetworking {
        bridge_device: bridge_device?.0,
        bridge_mtu: bridge_mtu?.0,
        sriov: enabled.then(|| devices.into_iter().flatten().collect()),
    })
}

fn read_sriov_device(section: &mut Section<'_>) -> Option<SriovDevice> {
    // The sample of PVC 1.0.3 has `device`, which its daemon never read.
    let old = section.optional::<Device>("device");
    if old.is_some() {
        section.report("device", Problem::OldName("phy"));
    }
    let device = if section.has("phy") || old.is_none() {
        section.required::<Device>("phy")
    } else {
        old
    };
    let mtu = section.or("mtu", Mtu(1500)).0;
    let virtual_functions = section.required::<Count>("vfcount");
    Some(SriovDevice {
        device: device?.0,
        mtu,
        virtual_functions: virtual_functions?.0,
    })
}
