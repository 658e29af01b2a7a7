//! Disks in a definition.

use super::tree::Tree;
use super::{EditError, Edited};
use crate::guest_xml::disks::parse_disk;
use crate::guest_xml::model::{Disk, DiskSource};
use crate::ids::VolumeId;

/// A disk to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDisk {
    /// Where its data is.
    pub source: NewSource,
    /// The name of the device, for example `sdb`; the first that is free if none is given.
    pub target: Option<String>,
    /// The bus.
    pub bus: DiskBus,
}

/// Where the data of a new disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewSource {
    /// An RBD image. Monitors and secret are those of an RBD disk that the guest has, else these.
    Rbd {
        /// The volume.
        volume: VolumeId,
        /// How the storage cluster is reached, where that is known.
        access: Option<CephAccess>,
    },
    /// A file of the node.
    File {
        /// Its path.
        path: String,
    },
}

/// How libvirt reaches the storage cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CephAccess {
    /// Addresses or names of monitors.
    pub monitors: Vec<String>,
    /// Their port.
    pub port: u16,
    /// The UUID of libvirt's secret.
    pub secret: String,
}

/// The bus of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskBus {
    /// SCSI.
    Scsi,
    /// IDE.
    Ide,
    /// USB.
    Usb,
    /// virtio.
    Virtio,
}

impl DiskBus {
    /// The word of the XML.
    pub const fn as_str(self) -> &'static str {
        match self {
            DiskBus::Scsi => "scsi",
            DiskBus::Ide => "ide",
            DiskBus::Usb => "usb",
            DiskBus::Virtio => "virtio",
        }
    }

    /// What the names of its devices begin with.
    const fn prefix(self) -> &'static str {
        match self {
            DiskBus::Scsi | DiskBus::Usb => "sd",
            DiskBus::Ide => "hd",
            DiskBus::Virtio => "vd",
        }
    }
}

impl std::str::FromStr for DiskBus {
    type Err = String;

    fn from_str(text: &str) -> Result<DiskBus, String> {
        match text {
            "scsi" => Ok(DiskBus::Scsi),
            "ide" => Ok(DiskBus::Ide),
            "usb" => Ok(DiskBus::Usb),
            "virtio" => Ok(DiskBus::Virtio),
            _ => Err("it must be scsi, ide, usb or virtio".to_owned()),
        }
    }
}

fn disks(xml: &str) -> Result<Vec<Disk>, EditError> {
    let broken = |error: String| EditError::Definition(error);
    let document = roxmltree::Document::parse(xml).map_err(|error| broken(error.to_string()))?;
    document
        .root_element()
        .children()
        .filter(|node| node.has_tag_name("devices"))
        .flat_map(|devices| devices.children())
        .filter(|node| node.has_tag_name("disk"))
        .enumerate()
        .map(|(index, node)| parse_disk(index, node).map_err(|error| broken(error.to_string())))
        .collect()
}

fn names(disk: &Disk, name: &str) -> bool {
    disk.target == name
        || match &disk.source {
            DiskSource::Rbd(rbd) => rbd.volume.to_string() == name,
            DiskSource::File { path } => path == name,
            DiskSource::Empty => false,
        }
}

/// Adds a disk.
///
/// # Errors
/// [`EditError::Exists`] when the guest has this volume or a disk of this name, [`EditError::Impossible`] when there is no
/// name left or nobody says how to reach the storage cluster, or [`EditError::Definition`].
pub fn add_disk(xml: &str, new: &NewDisk) -> Result<Edited, EditError> {
    let existing = disks(xml)?;
    let source = match &new.source {
        NewSource::Rbd { volume, .. } => volume.to_string(),
        NewSource::File { path } => path.clone(),
    };
    if let Some(taken) = existing.iter().find(|disk| names(disk, &source)) {
        return Err(EditError::Exists {
            what: format!("a disk {} with {source}", taken.target),
        });
    }
    let target = target(&existing, new)?;
    let mut tree = Tree::parse(xml)?;
    let root = tree.root;
    let devices = tree.child_or_new(root, "devices")?;
    let kind = match &new.source {
        NewSource::Rbd { .. } => "network",
        NewSource::File { .. } => "file",
    };
    let disk = tree.element("disk", &[("type", kind), ("device", "disk")]);
    match &new.source {
        NewSource::Rbd { volume, access } => {
            let volume = volume.to_string();
            let model = existing
                .iter()
                .position(|disk| matches!(disk.source, DiskSource::Rbd(_)))
                .and_then(|index| tree.children(devices, "disk").get(index).copied());
            match (model, access) {
                (Some(model), _) => {
                    for part in ["driver", "auth", "source"] {
                        if let Some(node) = tree.child(model, part) {
                            let copy = tree.copy(node);
                            tree.append(disk, copy)?;
                        }
                    }
                    if let Some(source) = tree.child(disk, "source") {
                        tree.set_attribute(source, "name", &volume);
                        // The snapshot and the number of the disk that was copied are its own.
                        tree.remove_attribute(source, "index");
                        if let Some(snapshot) = tree.child(source, "snapshot") {
                            tree.remove(snapshot)?;
                        }
                    }
                }
                (None, Some(access)) => rbd_from_settings(&mut tree, disk, &volume, access)?,
                (None, None) => {
                    return Err(EditError::Impossible(
                        "the guest has no RBD disk to take monitors and secret from: define its first one with its XML"
                            .to_owned(),
                    ));
                }
            }
        }
        NewSource::File { path } => {
            let driver = tree.element("driver", &[("name", "qemu"), ("type", "raw")]);
            tree.append(disk, driver)?;
            let source = tree.element("source", &[("file", path)]);
            tree.append(disk, source)?;
        }
    }
    let target = tree.element("target", &[("dev", &target), ("bus", new.bus.as_str())]);
    tree.append(disk, target)?;
    tree.insert(devices, disk)?;
    Ok(Edited {
        device: tree.write_element(disk)?,
        xml: tree.write()?,
    })
}

fn rbd_from_settings(
    tree: &mut Tree,
    disk: xot::Node,
    volume: &str,
    access: &CephAccess,
) -> Result<(), EditError> {
    let driver = tree.element(
        "driver",
        &[("name", "qemu"), ("discard", "unmap"), ("cache", "none")],
    );
    tree.append(disk, driver)?;
    let auth = tree.element("auth", &[("username", "libvirt")]);
    let secret = tree.element("secret", &[("type", "ceph"), ("uuid", &access.secret)]);
    tree.append(auth, secret)?;
    tree.append(disk, auth)?;
    let source = tree.element("source", &[("protocol", "rbd"), ("name", volume)]);
    let port = access.port.to_string();
    for monitor in &access.monitors {
        let host = tree.element("host", &[("name", monitor), ("port", &port)]);
        tree.append(source, host)?;
    }
    tree.append(disk, source)
}

/// The name that was asked for, or the first that is free on the bus.
fn target(existing: &[Disk], new: &NewDisk) -> Result<String, EditError> {
    let taken = |name: &str| existing.iter().any(|disk| disk.target == name);
    if let Some(name) = &new.target {
        return if taken(name) {
            Err(EditError::Exists {
                what: format!("a disk {name}"),
            })
        } else {
            Ok(name.clone())
        };
    }
    ('a'..='z')
        .map(|letter| format!("{}{letter}", new.bus.prefix()))
        .find(|name| !taken(name))
        .ok_or_else(|| {
            EditError::Impossible(format!("all names from {0}a to {0}z are taken", new.bus.prefix()))
        })
}

/// Removes the disk of that volume, path or device name.
///
/// # Errors
/// [`EditError::Absent`], or [`EditError::Definition`].
pub fn remove_disk(xml: &str, name: &str) -> Result<Edited, EditError> {
    let absent = || EditError::Absent {
        what: format!("disk {name}"),
    };
    let index = disks(xml)?
        .iter()
        .position(|disk| names(disk, name))
        .ok_or_else(absent)?;
    let mut tree = Tree::parse(xml)?;
    let node = tree
        .child(tree.root, "devices")
        .and_then(|devices| tree.children(devices, "disk").get(index).copied())
        .ok_or_else(absent)?;
    let device = tree.write_element(node)?;
    tree.remove(node)?;
    Ok(Edited {
        xml: tree.write()?,
        device,
    })
}
