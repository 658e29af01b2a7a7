//! Reading a guest's libvirt domain XML.
//!
//! The stored XML is the truth and is never written back from this description: elements that are not known here
//! are left alone. [`parse`] is strict, for what is to be defined; a missing console or an unknown device never makes
//! a guest vanish, since only what PVC itself depends on is required: name, UUID, memory, vCPUs, disks and
//! interfaces that can be read.

use roxmltree::{Document, Node};

use crate::ids::{ImageName, PoolName, VmId, VmName, VolumeId};

/// Why a text is not the XML of a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGuestXml {
    /// Not well-formed XML.
    #[error("it is not well-formed XML: {0}")]
    Syntax(String),
    /// Well-formed, but not a domain.
    #[error("its root element is <{found}>, not <domain>")]
    NotADomain {
        /// The root element.
        found: String,
    },
    /// A required element or attribute is missing.
    #[error("{element} is missing")]
    Missing {
        /// Where it should be, for example `<domain><memory>` or `<disk dev='sda'><source name>`.
        element: String,
    },
    /// An element or attribute has a value that is not allowed.
    #[error("{element} is {value:?}: {reason}")]
    Invalid {
        /// Where it is.
        element: String,
        /// What it says.
        value: String,
        /// What it should say.
        reason: String,
    },
}

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

/// Reads the XML of a guest.
///
/// # Errors
/// [`InvalidGuestXml`] names the element that is missing or wrong.
pub fn parse(xml: &str) -> Result<GuestXml, InvalidGuestXml> {
    // roxmltree refuses document type declarations by default, so entities can not be made to grow.
    let document = Document::parse(xml).map_err(|error| InvalidGuestXml::Syntax(error.to_string()))?;
    let root = document.root_element();
    if !root.has_tag_name("domain") {
        return Err(InvalidGuestXml::NotADomain {
            found: root.tag_name().name().to_owned(),
        });
    }
    let name = required_text(root, "name")?;
    let uuid = required_text(root, "uuid")?;
    let devices = child(root, "devices");
    let os = child(root, "os").and_then(|os| child(os, "type"));
    Ok(GuestXml {
        domain_type: attribute(root, "type"),
        name: VmName::new(name.clone()).map_err(|error| invalid("<domain><name>", name, error.reason))?,
        uuid: uuid
            .parse()
            .map_err(|_| invalid("<domain><uuid>", uuid, "it must be a UUID"))?,
        description: child(root, "description").map(text).unwrap_or_default(),
        memory_mib: parse_memory(root)?,
        vcpus: parse_vcpus(root)?,
        topology: parse_topology(root)?,
        os_type: os.map(text).unwrap_or_default(),
        arch: os.map(|os| attribute(os, "arch")).unwrap_or_default(),
        machine: os.map(|os| attribute(os, "machine")).unwrap_or_default(),
        emulator: devices
            .and_then(|devices| child(devices, "emulator"))
            .map(text)
            .unwrap_or_default(),
        features: child(root, "features")
            .map(|features| {
                elements(features)
                    .map(|f| f.tag_name().name().to_owned())
                    .collect()
            })
            .unwrap_or_default(),
        clock_offset: child(root, "clock")
            .and_then(|clock| clock.attribute("offset"))
            .unwrap_or("utc")
            .to_owned(),
        console: devices
            .and_then(|devices| child(devices, "console"))
            .map(|console| attribute(console, "type")),
        graphics: each(devices, "graphics").map(parse_graphics).collect(),
        disks: parse_disks(devices)?,
        interfaces: each(devices, "interface")
            .enumerate()
            .map(|(index, interface)| parse_interface(index, interface))
            .collect::<Result<_, _>>()?,
        controllers: each(devices, "controller")
            .map(|controller| Controller {
                kind: attribute(controller, "type"),
                model: controller.attribute("model").map(ToOwned::to_owned),
            })
            .collect(),
    })
}

/// What a guest needs of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Memory, in MiB, rounded up.
    pub memory_mib: u64,
    /// vCPUs at most.
    pub vcpus: u32,
}

/// Reads how large a guest is, and nothing else: what can't be understood elsewhere in its XML does not matter.
///
/// # Errors
/// [`InvalidGuestXml`] names the element that is missing or wrong.
pub fn parse_size(xml: &str) -> Result<Size, InvalidGuestXml> {
    let document = Document::parse(xml).map_err(|error| InvalidGuestXml::Syntax(error.to_string()))?;
    let root = document.root_element();
    Ok(Size {
        memory_mib: parse_memory(root)?,
        vcpus: parse_vcpus(root)?,
    })
}

fn elements<'a, 'input>(node: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(Node::is_element)
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    elements(node).find(|child| child.has_tag_name(name))
}

fn each<'a, 'input: 'a>(
    parent: Option<Node<'a, 'input>>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    parent
        .into_iter()
        .flat_map(elements)
        .filter(move |child| child.has_tag_name(name))
}

fn text(node: Node<'_, '_>) -> String {
    node.text().unwrap_or_default().trim().to_owned()
}

fn attribute(node: Node<'_, '_>, name: &str) -> String {
    node.attribute(name).unwrap_or_default().to_owned()
}

fn missing(element: impl Into<String>) -> InvalidGuestXml {
    InvalidGuestXml::Missing {
        element: element.into(),
    }
}

fn invalid(
    element: impl Into<String>,
    value: impl Into<String>,
    reason: impl Into<String>,
) -> InvalidGuestXml {
    InvalidGuestXml::Invalid {
        element: element.into(),
        value: value.into(),
        reason: reason.into(),
    }
}

fn required_text(root: Node<'_, '_>, name: &str) -> Result<String, InvalidGuestXml> {
    child(root, name)
        .map(text)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| missing(format!("<domain><{name}>")))
}

/// `<memory>` in the units that libvirt knows; KiB if none is named.
fn parse_memory(root: Node<'_, '_>) -> Result<u64, InvalidGuestXml> {
    const WHERE: &str = "<domain><memory>";
    const MIB: u128 = 1024 * 1024;
    let node = child(root, "memory").ok_or_else(|| missing(WHERE))?;
    let value = text(node);
    let amount: u64 = value
        .parse()
        .map_err(|_| invalid(WHERE, &value, "it must be a whole number"))?;
    let unit = node.attribute("unit").unwrap_or("KiB");
    let factor: u128 = match unit {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "KiB" => 1024,
        "MB" => 1_000_000,
        "M" | "MiB" => MIB,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1024 * MIB,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1024 * 1024 * MIB,
        _ => {
            return Err(invalid(
                "<domain><memory unit>",
                unit,
                "it must be one of b, bytes, KB, KiB, MB, MiB, GB, GiB, TB, TiB",
            ));
        }
    };
    let mib = (u128::from(amount) * factor).div_ceil(MIB);
    match u64::try_from(mib) {
        Ok(0) => Err(invalid(WHERE, value, "it must be more than nothing")),
        Ok(mib) => Ok(mib),
        Err(_) => Err(invalid(WHERE, value, "it is too large")),
    }
}

fn parse_vcpus(root: Node<'_, '_>) -> Result<u32, InvalidGuestXml> {
    const WHERE: &str = "<domain><vcpu>";
    let value = required_text(root, "vcpu")?;
    match value.parse::<u32>() {
        Ok(count) if count > 0 => Ok(count),
        Ok(_) | Err(_) => Err(invalid(WHERE, value, "it must be a whole number from 1")),
    }
}

fn parse_topology(root: Node<'_, '_>) -> Result<Option<Topology>, InvalidGuestXml> {
    let Some(node) = child(root, "cpu").and_then(|cpu| child(cpu, "topology")) else {
        return Ok(None);
    };
    let part = |name: &str| -> Result<u32, InvalidGuestXml> {
        let place = format!("<cpu><topology {name}>");
        let value = node.attribute(name).ok_or_else(|| missing(&*place))?;
        match value.parse() {
            Ok(count) if count > 0 => Ok(count),
            Ok(_) | Err(_) => Err(invalid(place, value, "it must be a whole number from 1")),
        }
    };
    Ok(Some(Topology {
        sockets: part("sockets")?,
        cores: part("cores")?,
        threads: part("threads")?,
    }))
}

fn parse_graphics(node: Node<'_, '_>) -> Graphics {
    let listen = node
        .attribute("listen")
        .or_else(|| child(node, "listen").and_then(|listen| listen.attribute("address")));
    Graphics {
        kind: attribute(node, "type"),
        // -1 is libvirt's word for "you choose".
        port: node.attribute("port").and_then(|port| port.parse().ok()),
        listen: listen.map(ToOwned::to_owned),
    }
}

fn parse_disks(devices: Option<Node<'_, '_>>) -> Result<Vec<Disk>, InvalidGuestXml> {
    let mut disks: Vec<Disk> = Vec::new();
    for (index, node) in each(devices, "disk").enumerate() {
        let disk = parse_disk(index, node)?;
        if disks.iter().any(|other| other.target == disk.target) {
            return Err(invalid(
                format!("<disk {}><target dev>", index + 1),
                disk.target,
                "another disk of this guest has the same",
            ));
        }
        if let DiskSource::Rbd(rbd) = &disk.source {
            let twice = disks
                .iter()
                .any(|other| matches!(&other.source, DiskSource::Rbd(other) if other.volume == rbd.volume));
            if twice {
                return Err(invalid(
                    format!("<disk dev='{}'><source name>", disk.target),
                    rbd.volume.to_string(),
                    "another disk of this guest is the same volume",
                ));
            }
        }
        disks.push(disk);
    }
    Ok(disks)
}

fn parse_disk(index: usize, node: Node<'_, '_>) -> Result<Disk, InvalidGuestXml> {
    let target = child(node, "target");
    let dev = target
        .map(|target| attribute(target, "dev"))
        .filter(|dev| !dev.is_empty())
        .ok_or_else(|| missing(format!("<disk {}><target dev>", index + 1)))?;
    let place = |part: &str| format!("<disk dev='{dev}'>{part}");
    let device = match node.attribute("device").unwrap_or("disk") {
        "disk" => DiskDevice::Disk,
        "cdrom" => DiskDevice::Cdrom,
        "floppy" => DiskDevice::Floppy,
        "lun" => DiskDevice::Lun,
        other => {
            return Err(invalid(
                format!("<disk {} device>", index + 1),
                other,
                "it must be disk, cdrom, floppy or lun",
            ));
        }
    };
    let source = child(node, "source");
    let source = match node.attribute("type").unwrap_or_default() {
        "network" => {
            let source = source.ok_or_else(|| missing(place("<source>")))?;
            let protocol = attribute(source, "protocol");
            if protocol != "rbd" {
                return Err(invalid(
                    place("<source protocol>"),
                    protocol,
                    "network disks must be rbd",
                ));
            }
            DiskSource::Rbd(parse_rbd(&place, node, source)?)
        }
        kind @ ("file" | "block") => {
            let name = if kind == "file" { "file" } else { "dev" };
            match source
                .map(|source| attribute(source, name))
                .filter(|path| !path.is_empty())
            {
                Some(path) => DiskSource::File { path },
                None if matches!(device, DiskDevice::Cdrom | DiskDevice::Floppy) => DiskSource::Empty,
                None => return Err(missing(place(&format!("<source {name}>")))),
            }
        }
        other => {
            return Err(invalid(
                format!("<disk dev='{dev}' type>"),
                other,
                "it must be network (rbd), file or block",
            ));
        }
    };
    let has = |name: &str| child(node, name).is_some();
    let access = if has("readonly") || device == DiskDevice::Cdrom {
        DiskAccess::ReadOnly
    } else if has("shareable") {
        DiskAccess::Shared
    } else {
        DiskAccess::ReadWrite
    };
    Ok(Disk {
        device,
        source,
        bus: target.map(|target| attribute(target, "bus")).unwrap_or_default(),
        target: dev,
        access,
    })
}

fn parse_rbd(
    place: &dyn Fn(&str) -> String,
    disk: Node<'_, '_>,
    source: Node<'_, '_>,
) -> Result<RbdSource, InvalidGuestXml> {
    let name = attribute(source, "name");
    if name.is_empty() {
        return Err(missing(place("<source name>")));
    }
    let (pool, image) = name
        .split_once('/')
        .ok_or_else(|| invalid(place("<source name>"), &name, "it must be written pool/volume"))?;
    let wrong = |error: crate::ids::InvalidId| {
        invalid(
            place("<source name>"),
            &name,
            format!("not a valid {}: {}", error.kind, error.reason),
        )
    };
    let volume = VolumeId {
        pool: PoolName::new(pool).map_err(wrong)?,
        image: ImageName::new(image).map_err(wrong)?,
    };
    let monitors = elements(source)
        .filter(|host| host.has_tag_name("host"))
        .map(|host| {
            let port = host
                .attribute("port")
                .map(|port| {
                    port.parse()
                        .map_err(|_| invalid(place("<source><host port>"), port, "it must be a port number"))
                })
                .transpose()?;
            Ok((attribute(host, "name"), port))
        })
        .collect::<Result<_, _>>()?;
    // libvirt puts <auth> beside the source, since 3.9 also into it.
    let auth = child(disk, "auth").or_else(|| child(source, "auth"));
    let secret = auth.and_then(|auth| child(auth, "secret"));
    Ok(RbdSource {
        volume,
        monitors,
        user: auth
            .and_then(|auth| auth.attribute("username"))
            .map(ToOwned::to_owned),
        secret: secret
            .and_then(|secret| secret.attribute("uuid").or_else(|| secret.attribute("usage")))
            .map(ToOwned::to_owned),
    })
}

fn parse_interface(index: usize, node: Node<'_, '_>) -> Result<Interface, InvalidGuestXml> {
    let number = index + 1;
    let source = child(node, "source");
    let of_source = |name: &str| -> Result<String, InvalidGuestXml> {
        source
            .map(|source| attribute(source, name))
            .filter(|value| !value.is_empty())
            .ok_or_else(|| missing(format!("<interface {number}><source {name}>")))
    };
    let kind = match node.attribute("type").unwrap_or_default() {
        "bridge" => InterfaceKind::Bridge {
            bridge: of_source("bridge")?,
        },
        "direct" => InterfaceKind::Direct {
            device: of_source("dev")?,
        },
        "hostdev" => InterfaceKind::Hostdev {
            address: hostdev_address(number, source)?,
        },
        other => {
            return Err(invalid(
                format!("<interface {number} type>"),
                other,
                "it must be bridge, direct or hostdev",
            ));
        }
    };
    let mac = child(node, "mac")
        .map(|mac| attribute(mac, "address"))
        .unwrap_or_default()
        .to_ascii_lowercase();
    if !mac.is_empty() && !is_mac(&mac) {
        return Err(invalid(
            format!("<interface {number}><mac address>"),
            mac,
            "it must be six pairs of hexadecimal digits with colons between",
        ));
    }
    Ok(Interface {
        kind,
        mac,
        model: child(node, "model")
            .map(|model| attribute(model, "type"))
            .unwrap_or_default(),
        target: child(node, "target")
            .and_then(|target| target.attribute("dev"))
            .map(ToOwned::to_owned),
    })
}

/// A PCI address as libvirt splits it, put together as the kernel writes it (`0000:03:10.1`).
fn hostdev_address(number: usize, source: Option<Node<'_, '_>>) -> Result<String, InvalidGuestXml> {
    let address = source
        .and_then(|source| child(source, "address"))
        .ok_or_else(|| missing(format!("<interface {number}><source><address>")))?;
    let part = |name: &str| -> Result<u32, InvalidGuestXml> {
        let value = attribute(address, name);
        let digits = value.strip_prefix("0x").unwrap_or(&value);
        u32::from_str_radix(digits, 16).map_err(|_| {
            invalid(
                format!("<interface {number}><source><address {name}>"),
                &value,
                "it must be a hexadecimal number",
            )
        })
    };
    Ok(format!(
        "{:04x}:{:02x}:{:02x}.{:x}",
        part("domain")?,
        part("bus")?,
        part("slot")?,
        part("function")?
    ))
}

fn is_mac(text: &str) -> bool {
    let mut groups = 0;
    let whole = text.split(':').all(|group| {
        groups += 1;
        group.len() == 2 && group.bytes().all(|b| b.is_ascii_hexdigit())
    });
    whole && groups == 6
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01";

    fn guest(rest: &str) -> String {
        format!(
            "<domain type='kvm'><name>web1</name><uuid>{UUID}</uuid><memory unit='MiB'>512</memory>\
             <vcpu>2</vcpu>{rest}</domain>"
        )
    }

    fn rbd(volume: &str, dev: &str, more: &str) -> String {
        format!(
            "<disk type='network' device='disk'><source protocol='rbd' name='{volume}'>\
             <host name='10.102.0.1' port='3300'/><host name='mon2'/></source>\
             <auth username='libvirt'><secret type='ceph' uuid='{UUID}'/></auth>\
             <target dev='{dev}' bus='scsi'/>{more}</disk>"
        )
    }

    #[test]
    fn a_guest_as_the_provisioning_scripts_make_it_is_read_whole() {
        let xml = guest(&format!(
            "<description>for tests</description>\
             <cpu mode='host-model'><topology sockets='1' cores='2' threads='1'/></cpu>\
             <os><type arch='x86_64' machine='pc-i440fx-2.7'>hvm</type></os>\
             <features><acpi/><apic/><pae/></features><clock offset='localtime'/>\
             <devices><console type='pty'/><emulator>/usr/bin/kvm</emulator>\
             <controller type='scsi' index='0' model='virtio-scsi'/><controller type='usb'/>\
             <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>\
             <disk type='file' device='disk'><source file='/dev/shm/vhostmd0'/><target dev='sdz' bus='usb'/>\
             <readonly/></disk>{}\
             <interface type='bridge'><mac address='52:54:00:AB:cd:01'/><source bridge='vmbr100'/>\
             <model type='virtio'/></interface>\
             <interface type='hostdev'><source><address type='pci' domain='0x0000' bus='0x03' slot='0x10' \
             function='0x1'/></source></interface></devices>",
            rbd("vms/web1_disk0", "sda", "")
        ));
        let guest = parse(&xml).unwrap();
        assert_eq!(guest.name.as_str(), "web1");
        assert_eq!(guest.uuid.to_string(), UUID);
        assert_eq!((guest.memory_mib, guest.vcpus), (512, 2));
        assert_eq!(
            guest.topology,
            Some(Topology {
                sockets: 1,
                cores: 2,
                threads: 1
            })
        );
        assert_eq!(guest.machine, "pc-i440fx-2.7");
        assert_eq!(guest.features, ["acpi", "apic", "pae"]);
        assert_eq!(guest.clock_offset, "localtime");
        assert_eq!(guest.console.as_deref(), Some("pty"));
        assert_eq!(guest.graphics[0].port, None);
        assert_eq!(guest.graphics[0].listen.as_deref(), Some("127.0.0.1"));
        assert_eq!(guest.controllers[0].model.as_deref(), Some("virtio-scsi"));
        assert_eq!(guest.disks[0].access, DiskAccess::ReadOnly);
        let DiskSource::Rbd(source) = &guest.disks[1].source else {
            panic!("{:?}", guest.disks[1])
        };
        assert_eq!(source.volume.to_string(), "vms/web1_disk0");
        assert_eq!(
            source.monitors,
            [("10.102.0.1".to_owned(), Some(3300)), ("mon2".to_owned(), None)]
        );
        assert_eq!(source.user.as_deref(), Some("libvirt"));
        assert_eq!(source.secret.as_deref(), Some(UUID));
        assert_eq!(guest.interfaces[0].mac, "52:54:00:ab:cd:01");
        assert_eq!(
            guest.interfaces[1].kind,
            InterfaceKind::Hostdev {
                address: "0000:03:10.1".into()
            }
        );
        assert_eq!(guest.volumes().count(), 1);
    }

    #[test]
    fn a_guest_without_console_screen_or_devices_is_a_guest() {
        // PVC 1.0.3 dropped such guests from its lists: an administrator thought them lost.
        let guest = parse(&guest("")).unwrap();
        assert_eq!(guest.console, None);
        assert!(guest.disks.is_empty() && guest.graphics.is_empty());
    }

    #[test]
    fn the_size_of_a_guest_with_an_unknown_device_is_read() {
        // Else its memory would count as nothing where guests are placed, and its node would be filled above its brim.
        let xml = guest("<devices><disk type='dir'><target dev='vda'/></disk></devices>");
        assert!(parse(&xml).is_err());
        let size = Size {
            memory_mib: 512,
            vcpus: 2,
        };
        assert_eq!(parse_size(&xml), Ok(size));
        assert!(parse_size("<domain/>").is_err());
    }

    #[test]
    fn memory_is_read_in_its_unit() {
        for (memory, mib) in [
            ("<memory>524288</memory>", 512),
            ("<memory unit='KiB'>1048577</memory>", 1025),
            ("<memory unit='GiB'>2</memory>", 2048),
            ("<memory unit='MB'>1000</memory>", 954),
            ("<memory unit='bytes'>1</memory>", 1),
        ] {
            let xml = guest("").replace("<memory unit='MiB'>512</memory>", memory);
            assert_eq!(parse(&xml).unwrap().memory_mib, mib, "{memory}");
        }
    }

    #[test]
    fn an_error_names_the_element() {
        let whole = guest("");
        for (from, to, place) in [
            ("<name>web1</name>", "", "<domain><name>"),
            ("<name>web1</name>", "<name>a/b</name>", "<domain><name>"),
            (UUID, "x", "<domain><uuid>"),
            ("<memory unit='MiB'>512</memory>", "", "<domain><memory>"),
            ("'MiB'>512", "'MiB'>-1", "<domain><memory>"),
            ("'MiB'>512", "'MiB'>0", "<domain><memory>"),
            ("'MiB'>512", "'PiB'>5", "<domain><memory unit>"),
            ("'MiB'>512", "'TiB'>18446744073709551615", "<domain><memory>"),
            ("<vcpu>2", "<vcpu>0", "<domain><vcpu>"),
            ("<vcpu>2</vcpu>", "", "<domain><vcpu>"),
            ("domain", "network", "<network>"),
        ] {
            let error = parse(&whole.replace(from, to)).unwrap_err();
            assert!(error.to_string().contains(place), "{from} -> {to}: {error}");
        }
        assert!(matches!(parse("<domain>"), Err(InvalidGuestXml::Syntax(_))));
        assert!(matches!(
            parse("<!DOCTYPE d [<!ENTITY a 'b'>]><domain>&a;</domain>"),
            Err(InvalidGuestXml::Syntax(_))
        ));
    }

    #[test]
    fn disks_and_interfaces_that_can_not_be_read_are_named() {
        for (devices, place) in [
            (rbd("vms", "sda", ""), "<disk dev='sda'><source name>"),
            (rbd("vms/a@b", "sda", ""), "<disk dev='sda'><source name>"),
            (rbd("vms/a", "", ""), "<disk 1><target dev>"),
            (
                rbd("vms/a", "sda", "") + &rbd("vms/b", "sda", ""),
                "<disk 2><target dev>",
            ),
            (rbd("vms/a", "sda", "") + &rbd("vms/a", "sdb", ""), "same volume"),
            (
                rbd("vms/a", "sda", "").replace("'rbd'", "'iscsi'"),
                "<source protocol>",
            ),
            (rbd("vms/a", "sda", "").replace("3300", "x"), "<host port>"),
            (
                "<disk type='dir'><target dev='vda'/></disk>".into(),
                "<disk dev='vda' type>",
            ),
            (
                "<disk type='file'><target dev='vda'/></disk>".into(),
                "<disk dev='vda'><source file>",
            ),
            ("<interface type='user'/>".into(), "<interface 1 type>"),
            (
                "<interface type='bridge'/>".into(),
                "<interface 1><source bridge>",
            ),
            (
                "<interface type='bridge'><source bridge='br0'/><mac address='1:2'/></interface>".into(),
                "<interface 1><mac address>",
            ),
        ] {
            let error = parse(&guest(&format!("<devices>{devices}</devices>"))).unwrap_err();
            assert!(error.to_string().contains(place), "{devices}: {error}");
        }
        let empty_drive = "<devices><disk type='file' device='cdrom'><target dev='sdb'/></disk></devices>";
        assert_eq!(
            parse(&guest(empty_drive)).unwrap().disks[0].source,
            DiskSource::Empty
        );
    }

    #[test]
    fn who_may_write_to_a_volume_is_read_from_its_marks() {
        for (mark, access) in [
            ("", DiskAccess::ReadWrite),
            ("<shareable/>", DiskAccess::Shared),
            ("<readonly/>", DiskAccess::ReadOnly),
            ("<readonly/><shareable/>", DiskAccess::ReadOnly),
        ] {
            let xml = guest(&format!("<devices>{}</devices>", rbd("vms/a", "sda", mark)));
            let guest = parse(&xml).unwrap();
            assert_eq!(guest.volumes().next().unwrap().1, access, "{mark}");
        }
    }
}
