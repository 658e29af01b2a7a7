//! Network interfaces in a definition.

use super::tree::Tree;
use super::{EditError, Edited};
use crate::guest_xml::interfaces::parse_interface;
use crate::guest_xml::model::{Interface, InterfaceKind};

/// An interface to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInterface {
    /// What it is plugged into.
    pub kind: InterfaceKind,
    /// Its MAC address, in lower case.
    pub mac: String,
    /// The card that the guest sees; no meaning for a device that is handed over.
    pub model: String,
}

/// Which interface is meant: all that is named has to fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceMatch {
    /// What it is plugged into.
    pub kind: Option<InterfaceKind>,
    /// Its MAC address, in lower case.
    pub mac: Option<String>,
}

impl InterfaceMatch {
    fn fits(&self, interface: &Interface) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == interface.kind)
            && self.mac.as_ref().is_none_or(|mac| *mac == interface.mac)
    }

    fn describe(&self) -> String {
        let mut text = "interface".to_owned();
        if let Some(kind) = &self.kind {
            text.push_str(&format!(" at {}", kind.source()));
        }
        if let Some(mac) = &self.mac {
            text.push_str(&format!(" with MAC address {mac}"));
        }
        text
    }
}

fn interfaces(xml: &str) -> Result<Vec<Interface>, EditError> {
    let broken = |error: String| EditError::Definition(error);
    let document = roxmltree::Document::parse(xml).map_err(|error| broken(error.to_string()))?;
    document
        .root_element()
        .children()
        .filter(|node| node.has_tag_name("devices"))
        .flat_map(|devices| devices.children())
        .filter(|node| node.has_tag_name("interface"))
        .enumerate()
        .map(|(index, node)| parse_interface(index, node).map_err(|error| broken(error.to_string())))
        .collect()
}

/// Adds an interface.
///
/// # Errors
/// [`EditError::Exists`] when an interface has this MAC address, or [`EditError::Definition`].
pub fn add_interface(xml: &str, new: &NewInterface) -> Result<Edited, EditError> {
    if let Some(taken) = interfaces(xml)?.into_iter().find(|other| other.mac == new.mac) {
        return Err(EditError::Exists {
            what: format!(
                "an interface with MAC address {} at {}",
                taken.mac,
                taken.kind.source()
            ),
        });
    }
    let mut tree = Tree::parse(xml)?;
    let root = tree.root;
    let devices = tree.child_or_new(root, "devices")?;
    let interface = tree.element("interface", &[("type", new.kind.as_str())]);
    let mac = tree.element("mac", &[("address", &new.mac)]);
    tree.append(interface, mac)?;
    match &new.kind {
        InterfaceKind::Bridge { bridge } => {
            let source = tree.element("source", &[("bridge", bridge)]);
            tree.append(interface, source)?;
        }
        InterfaceKind::Direct { device } => {
            let source = tree.element("source", &[("dev", device), ("mode", "passthrough")]);
            tree.append(interface, source)?;
        }
        InterfaceKind::Hostdev { address } => {
            tree.set_attribute(interface, "managed", "yes");
            let driver = tree.element("driver", &[("name", "vfio")]);
            tree.append(interface, driver)?;
            let source = tree.element("source", &[]);
            let [domain, bus, slot, function] = pci_parts(address)?;
            let address = tree.element(
                "address",
                &[
                    ("type", "pci"),
                    ("domain", &domain),
                    ("bus", &bus),
                    ("slot", &slot),
                    ("function", &function),
                ],
            );
            tree.append(source, address)?;
            tree.append(interface, source)?;
        }
    }
    if !matches!(new.kind, InterfaceKind::Hostdev { .. }) {
        let model = tree.element("model", &[("type", &new.model)]);
        tree.append(interface, model)?;
    }
    tree.insert(devices, interface)?;
    Ok(Edited {
        device: tree.write_element(interface)?,
        xml: tree.write()?,
    })
}

/// `0000:03:10.1` as libvirt splits it.
fn pci_parts(address: &str) -> Result<[String; 4], EditError> {
    let wrong = || EditError::Impossible(format!("{address:?} is not a PCI address like 0000:03:10.1"));
    let (rest, function) = address.rsplit_once('.').ok_or_else(wrong)?;
    let mut parts = Vec::new();
    for part in rest.split(':').chain([function]) {
        u16::from_str_radix(part, 16).map_err(|_| wrong())?;
        parts.push(format!("0x{part}"));
    }
    parts.try_into().map_err(|_| wrong())
}

/// Removes the one interface that is meant.
///
/// # Errors
/// [`EditError::Absent`] when none fits, [`EditError::Ambiguous`] when several do, or [`EditError::Definition`].
pub fn remove_interface(xml: &str, which: &InterfaceMatch) -> Result<Edited, EditError> {
    let fitting: Vec<(usize, Interface)> = interfaces(xml)?
        .into_iter()
        .enumerate()
        .filter(|(_, interface)| which.fits(interface))
        .collect();
    let index = match fitting.as_slice() {
        [] => {
            return Err(EditError::Absent {
                what: which.describe(),
            });
        }
        [(index, _)] => *index,
        several => {
            return Err(EditError::Ambiguous {
                macs: several
                    .iter()
                    .map(|(_, interface)| interface.mac.clone())
                    .collect(),
            });
        }
    };
    let mut tree = Tree::parse(xml)?;
    let node = tree
        .child(tree.root, "devices")
        .and_then(|devices| tree.children(devices, "interface").get(index).copied())
        .ok_or_else(|| EditError::Absent {
            what: which.describe(),
        })?;
    let device = tree.write_element(node)?;
    tree.remove(node)?;
    Ok(Edited {
        xml: tree.write()?,
        device,
    })
}
