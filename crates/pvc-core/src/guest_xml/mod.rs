//! Reading a guest's libvirt domain XML.
//!
//! The stored XML is the truth and is never written back from this description: elements that are not known here
//! are left alone. [`parse`] is strict, for what is to be defined; a missing console or an unknown device never makes
//! a guest vanish, since only what PVC itself depends on is required: name, UUID, memory, vCPUs, disks and
//! interfaces that can be read.
//!
//! * `model` - the description; `error` - why there is none.
//! * `read` - finding elements; `machine`, `disks`, `interfaces` - reading them.
//! * `check` - what a new definition must keep to besides.
//! * `device` - one device by itself, to be attached and detached.
//! * [`secrets`] - passwords in it, which are not shown.
//! * [`edit`] - changes that leave all else as it stands.

mod check;
mod device;
mod disks;
pub mod edit;
mod error;
mod interfaces;
mod machine;
mod model;
mod read;
pub mod secrets;

pub use check::{Findings, check};
pub use device::{Attachment, Device, parse_device};
pub use error::InvalidGuestXml;
pub use model::{
    Controller, Disk, DiskAccess, DiskDevice, DiskSource, Graphics, GuestXml, Interface, InterfaceKind,
    RbdSource, Topology,
};

use roxmltree::Document;

use crate::ids::VmName;
use disks::{has_other_storage, parse_disks};
use interfaces::parse_interface;
use machine::{parse_graphics, parse_memory, parse_topology, parse_vcpus};
use read::{attribute, child, each, elements, invalid, required_text, text};

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
        name: VmName::new(name.clone()).map_err(|error| {
            let node = child(root, "name").unwrap_or(root);
            invalid(node, "<domain><name>", name, error.reason)
        })?,
        uuid: uuid.parse().map_err(|_| {
            let node = child(root, "uuid").unwrap_or(root);
            invalid(node, "<domain><uuid>", uuid, "it must be a UUID")
        })?,
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
        other_storage: devices.is_some_and(has_other_storage),
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

#[cfg(test)]
mod tests;
