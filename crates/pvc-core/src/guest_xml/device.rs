//! One device by itself, as it is attached to a guest that runs, and detached from it.

use roxmltree::{Document, Node};

use super::check::{check_disk, wrong_mac};
use super::disks::parse_disk;
use super::error::InvalidGuestXml;
use super::interfaces::parse_interface;
use super::model::{Disk, DiskAccess, DiskSource, Interface};
use super::read::{child, each, invalid, missing};
use crate::ids::VolumeId;

/// The largest XML of a device, in bytes: ten times what libvirt writes for a disk with many monitors.
const LIMIT: usize = 64 * 1024;

/// A device that can be attached and detached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// A disk.
    Disk(Disk),
    /// A network interface; it has a MAC address, by which it is known.
    Interface(Interface),
}

/// Whether a guest has a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// It does not.
    Absent,
    /// It has this one.
    Present,
    /// Its place is taken by another one.
    Taken {
        /// What there is, in words.
        by: String,
    },
}

impl Device {
    /// The volume that attaching this opens, with how it is used.
    pub fn volume(&self) -> Option<(&VolumeId, DiskAccess)> {
        match self {
            Device::Disk(Disk {
                source: DiskSource::Rbd(rbd),
                access,
                ..
            }) => Some((&rbd.volume, *access)),
            Device::Disk(_) | Device::Interface(_) => None,
        }
    }

    /// What it is, in words, for example `disk sdb (vms/web1_data)`.
    pub fn describe(&self) -> String {
        match self {
            Device::Disk(disk) => format!("disk {} ({})", disk.target, source_name(&disk.source)),
            Device::Interface(interface) => {
                format!("interface {} ({})", interface.mac, interface.kind.source())
            }
        }
    }

    /// Whether the guest whose definition, stored or live, is `xml` has this device. Whatever else is in it does not
    /// matter.
    ///
    /// # Errors
    /// When `xml` is not well-formed.
    pub fn in_guest(&self, xml: &str) -> Result<Attachment, InvalidGuestXml> {
        let document = Document::parse(xml).map_err(|error| InvalidGuestXml::Syntax(error.to_string()))?;
        let devices = child(document.root_element(), "devices");
        Ok(match self {
            Device::Disk(disk) => {
                let disks = each(devices, "disk")
                    .enumerate()
                    .filter_map(|(index, node)| parse_disk(index, node).ok());
                let mut attachment = Attachment::Absent;
                for other in disks {
                    let same_source = other.source == disk.source
                        || matches!((&other.source, &disk.source),
                            (DiskSource::Rbd(theirs), DiskSource::Rbd(ours)) if theirs.volume == ours.volume);
                    if other.target == disk.target && same_source {
                        return Ok(Attachment::Present);
                    }
                    let same_volume = same_source && other.source != DiskSource::Empty;
                    if other.target == disk.target || same_volume {
                        attachment = Attachment::Taken {
                            by: Device::Disk(other).describe(),
                        };
                    }
                }
                attachment
            }
            Device::Interface(interface) => each(devices, "interface")
                .enumerate()
                .filter_map(|(index, node)| parse_interface(index, node).ok())
                .find(|other| other.mac == interface.mac)
                .map_or(Attachment::Absent, |other| {
                    if other.kind == interface.kind {
                        Attachment::Present
                    } else {
                        Attachment::Taken {
                            by: Device::Interface(other).describe(),
                        }
                    }
                }),
        })
    }
}

fn source_name(source: &DiskSource) -> String {
    match source {
        DiskSource::Rbd(rbd) => rbd.volume.to_string(),
        DiskSource::File { path } => path.clone(),
        DiskSource::Empty => "empty".to_owned(),
    }
}

/// Reads the XML of one device: `<disk>` or `<interface>`.
///
/// # Errors
/// [`InvalidGuestXml`] names the element that is missing or wrong.
pub fn parse_device(xml: &str) -> Result<Device, InvalidGuestXml> {
    let document = Document::parse(xml).map_err(|error| InvalidGuestXml::Syntax(error.to_string()))?;
    let root = document.root_element();
    if xml.len() > LIMIT {
        return Err(invalid(
            root,
            "the XML",
            format!("{} bytes long", xml.len()),
            format!("a device has at most {LIMIT}"),
        ));
    }
    match root.tag_name().name() {
        "disk" => {
            let disk = parse_disk(0, root)?;
            match check_disk(0, root).into_iter().next() {
                Some(finding) => Err(finding),
                None => Ok(Device::Disk(disk)),
            }
        }
        "interface" => interface(root),
        other => Err(invalid(
            root,
            "the root element",
            other,
            "only <disk> and <interface> can be attached to a guest that runs",
        )),
    }
}

fn interface(root: Node<'_, '_>) -> Result<Device, InvalidGuestXml> {
    let interface = parse_interface(0, root)?;
    if interface.mac.is_empty() {
        // Without one libvirt chooses it, and nobody could name the interface to detach it.
        return Err(missing(root, "<interface><mac address>"));
    }
    match wrong_mac(&interface.mac) {
        Some(reason) => Err(invalid(root, "<interface><mac address>", interface.mac, reason)),
        None => Ok(Device::Interface(interface)),
    }
}
