//! Changes of a definition that leave all else as it stands: unknown elements, comments, order and white space.
//!
//! Each takes the definition as text and answers with the new one. Nothing is checked here that [`super::check`] checks:
//! whoever stores the result checks it whole.

mod disks;
mod interfaces;
mod tree;

pub use disks::{CephAccess, DiskBus, NewDisk, NewSource, add_disk, remove_disk};
pub use interfaces::{InterfaceMatch, NewInterface, add_interface, remove_interface};

use super::model::Topology;
use tree::Tree;

/// Why a definition can't be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It can't be read.
    #[error("the definition can't be changed: {0}")]
    Definition(String),
    /// What is to be removed is not there.
    #[error("there is no {what}")]
    Absent {
        /// What was looked for.
        what: String,
    },
    /// What is to be added is there.
    #[error("there is {what} already")]
    Exists {
        /// What there is.
        what: String,
    },
    /// Several fit.
    #[error("several interfaces fit ({}): say which by its MAC address", .macs.join(", "))]
    Ambiguous {
        /// Their MAC addresses.
        macs: Vec<String>,
    },
    /// What is asked for can't be.
    #[error("{0}")]
    Impossible(String),
}

/// A changed definition, and the device that was added or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The new definition.
    pub xml: String,
    /// The device by itself, to be attached to the running guest or detached from it.
    pub device: String,
}

/// Sets the number of vCPUs. Without a topology, one that is there becomes one socket of as many cores.
///
/// # Errors
/// [`EditError::Definition`], or [`EditError::Impossible`] when the topology does not make up `count`.
pub fn set_vcpus(xml: &str, count: u32, topology: Option<Topology>) -> Result<String, EditError> {
    if let Some(topology) = topology {
        let product = u64::from(topology.sockets) * u64::from(topology.cores) * u64::from(topology.threads);
        if product != u64::from(count) {
            return Err(EditError::Impossible(format!(
                "{} sockets of {} cores with {} threads each are {product} vCPUs, not {count}",
                topology.sockets, topology.cores, topology.threads
            )));
        }
    }
    let mut tree = Tree::parse(xml)?;
    let root = tree.root;
    let vcpu = tree.child_or_new(root, "vcpu")?;
    tree.set_text(vcpu, &count.to_string())?;
    tree.remove_attribute(vcpu, "current");
    // It says of each vCPU by number whether it is there.
    if let Some(vcpus) = tree.child(root, "vcpus") {
        tree.remove(vcpus)?;
    }
    let existing = tree
        .child(root, "cpu")
        .and_then(|cpu| tree.child(cpu, "topology"));
    let node = match (existing, topology) {
        (Some(node), _) => node,
        (None, Some(_)) => {
            let cpu = tree.child_or_new(root, "cpu")?;
            tree.child_or_new(cpu, "topology")?
        }
        (None, None) => return tree.write(),
    };
    let topology = topology.unwrap_or(Topology {
        sockets: 1,
        cores: count,
        threads: 1,
    });
    for (name, part) in [
        ("sockets", topology.sockets),
        ("cores", topology.cores),
        ("threads", topology.threads),
    ] {
        tree.set_attribute(node, name, &part.to_string());
    }
    for name in ["dies", "clusters"] {
        tree.remove_attribute(node, name);
    }
    tree.write()
}

/// Sets the memory, in MiB. A balloon that kept some of it back is given up.
///
/// # Errors
/// [`EditError::Definition`].
pub fn set_memory(xml: &str, mib: u64) -> Result<String, EditError> {
    let mut tree = Tree::parse(xml)?;
    let root = tree.root;
    let memory = tree.child_or_new(root, "memory")?;
    let current = tree.child(root, "currentMemory");
    for node in [Some(memory), current].into_iter().flatten() {
        tree.set_text(node, &mib.to_string())?;
        tree.set_attribute(node, "unit", "MiB");
    }
    tree.write()
}

/// Gives the guest another name; a console log that is named after it follows.
///
/// # Errors
/// [`EditError::Definition`].
pub fn rename(xml: &str, old: &str, new: &str) -> Result<String, EditError> {
    let mut tree = Tree::parse(xml)?;
    let root = tree.root;
    let name = tree.child_or_new(root, "name")?;
    tree.set_text(name, new)?;
    let Some(devices) = tree.child(root, "devices") else {
        return tree.write();
    };
    for kind in ["serial", "console"] {
        for device in tree.children(devices, kind) {
            let Some(log) = tree.child(device, "log") else {
                continue;
            };
            let file = tree.attribute(log, "file").unwrap_or_default().to_owned();
            if let Some(directory) = file.strip_suffix(&format!("/{old}.log")) {
                tree.set_attribute(log, "file", &format!("{directory}/{new}.log"));
            }
        }
    }
    tree.write()
}

#[cfg(test)]
mod tests;
