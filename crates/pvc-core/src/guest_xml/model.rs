//! A guest as its XML describes it.

use crate::ids::{VmId, VmName, VolumeId};

/// A guest as its XML describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestXml {
    /// `kvm` or `qemu` (or another hypervisor's word).
    pub domain_type: String,
    /// Its name.
    pub name: VmName,
    /// Its UUID.
    pub uuid: VmId,
    /// What it is for, in words; empty if the XML does not say.
    pub description: String,
    /// Memory, in MiB, rounded up.
    pub memory_mib: u64,
    /// vCPUs at most.
    pub vcpus: u32,
    /// How the vCPUs are arranged, if the XML says.
    pub topology: Option<Topology>,
    /// Kind of operating system: `hvm`.
    pub os_type: String,
    /// Processor architecture; empty if the XML does not say.
    pub arch: String,
    /// Machine type; empty if the XML does not say.
    pub machine: String,
    /// The program that emulates it; empty if the XML does not say.
    pub emulator: String,
    /// Names of the elements below `<features>`.
    pub features: Vec<String>,
    /// `utc`, `localtime` and so on; `utc` if the XML does not say, as libvirt takes it.
    pub clock_offset: String,
    /// The type of its first console.
    pub console: Option<String>,
    /// Its screens.
    pub graphics: Vec<Graphics>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Its network interfaces.
    pub interfaces: Vec<Interface>,
    /// Its controllers.
    pub controllers: Vec<Controller>,
    /// Whether it can write to storage that is none of its disks: a directory of the node, or a SCSI device handed over.
    pub other_storage: bool,
}

/// How vCPUs are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// Sockets.
    pub sockets: u32,
    /// Cores per socket.
    pub cores: u32,
    /// Threads per core.
    pub threads: u32,
}

/// A screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graphics {
    /// `vnc`, `spice` and so on.
    pub kind: String,
    /// The port; none when libvirt chooses it.
    pub port: Option<u16>,
    /// The address, if the XML says.
    pub listen: Option<String>,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// What the guest sees.
    pub device: DiskDevice,
    /// Where its data is.
    pub source: DiskSource,
    /// The name of the device, unique within the guest, for example `sda`.
    pub target: String,
    /// The bus that it is on; empty if the XML does not say.
    pub bus: String,
    /// Whether the guest may write.
    pub access: DiskAccess,
}

/// What a guest sees of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskDevice {
    /// A hard disk.
    Disk,
    /// A CD-ROM drive.
    Cdrom,
    /// A floppy drive.
    Floppy,
    /// A raw LUN.
    Lun,
}

/// Where a disk's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSource {
    /// An RBD image.
    Rbd(RbdSource),
    /// A file or block device of the node.
    File {
        /// Its path.
        path: String,
    },
    /// An empty drive.
    Empty,
}

/// An RBD image and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RbdSource {
    /// The volume.
    pub volume: VolumeId,
    /// Monitors: name or address, and port if the XML says.
    pub monitors: Vec<(String, Option<u16>)>,
    /// The Ceph user, without `client.`, if the XML says.
    pub user: Option<String>,
    /// The UUID or the usage name of the libvirt secret, if the XML says.
    pub secret: Option<String>,
}

/// Whether a guest may write to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskAccess {
    /// It may, and nobody else may use the disk meanwhile.
    ReadWrite,
    /// It may, and so may other guests that say the same.
    Shared,
    /// It may not.
    ReadOnly,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// `bridge`, `direct` or `hostdev`.
    pub kind: InterfaceKind,
    /// MAC address in lower case; empty if libvirt is to choose it.
    pub mac: String,
    /// The device that the guest sees; empty if the XML does not say.
    pub model: String,
    /// The name of the tap device, if the XML says or libvirt has filled it in.
    pub target: Option<String>,
}

/// What a network interface is plugged into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfaceKind {
    /// A bridge of the node.
    Bridge {
        /// The bridge.
        bridge: String,
    },
    /// A device of the node, by macvtap.
    Direct {
        /// The device.
        device: String,
    },
    /// A device of the node that is handed to the guest.
    Hostdev {
        /// The PCI address, or the device.
        address: String,
    },
}

impl InterfaceKind {
    /// The word of the XML.
    pub const fn as_str(&self) -> &'static str {
        match self {
            InterfaceKind::Bridge { .. } => "bridge",
            InterfaceKind::Direct { .. } => "direct",
            InterfaceKind::Hostdev { .. } => "hostdev",
        }
    }

    /// The bridge, device or address that it is plugged into.
    pub fn source(&self) -> &str {
        match self {
            InterfaceKind::Bridge { bridge } => bridge,
            InterfaceKind::Direct { device } => device,
            InterfaceKind::Hostdev { address } => address,
        }
    }
}

/// A controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// `scsi`, `usb`, `pci` and so on.
    pub kind: String,
    /// Its model, if the XML says.
    pub model: Option<String>,
}

impl GuestXml {
    /// The RBD volumes of its disks, in their order.
    pub fn volumes(&self) -> impl Iterator<Item = (&VolumeId, DiskAccess)> {
        self.disks.iter().filter_map(|disk| match &disk.source {
            DiskSource::Rbd(rbd) => Some((&rbd.volume, disk.access)),
            DiskSource::File { .. } | DiskSource::Empty => None,
        })
    }
}
