//! What a definition must keep to before it is taken: everything wrong with it at once.
//!
//! [`super::parse`] asks only what PVC needs to read, since it also reads what is stored already and must not lose a
//! guest over a strange device. Here stands what a new definition is refused for besides: what libvirt would refuse at
//! the start, hours after the administrator has gone home, and what would take a guest's storage out of sight of the
//! owner record.

use roxmltree::{Document, Node};

use super::error::InvalidGuestXml;
use super::model::GuestXml;
use super::read::{attribute, child, each, elements, invalid, text};

/// Everything that is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Findings(pub Vec<InvalidGuestXml>);

/// More than so many are not told.
const TOLD: usize = 10;

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, finding) in self.0.iter().take(TOLD).enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            finding.fmt(f)?;
        }
        match self.0.len().saturating_sub(TOLD) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Elements that libvirt takes all of, or another of, where there are several: what is read here would not be what runs.
const ONCE: [&str; 11] = [
    "name",
    "uuid",
    "memory",
    "currentMemory",
    "vcpu",
    "cpu",
    "os",
    "devices",
    "metadata",
    "features",
    "clock",
];

/// Reads the XML of a guest that is to be defined, and checks it.
///
/// # Errors
/// [`Findings`]: all that is wrong, each with its element and line. What can't be read at all is told alone.
pub fn check(xml: &str) -> Result<GuestXml, Findings> {
    let guest = super::parse(xml).map_err(|error| Findings(vec![error]))?;
    let document =
        Document::parse(xml).map_err(|error| Findings(vec![InvalidGuestXml::Syntax(error.to_string())]))?;
    let root = document.root_element();
    let mut found = Vec::new();
    check_root(root, &mut found);
    check_processors(root, &guest, &mut found);
    check_command_line(root, &mut found);
    check_metadata(root, &mut found);
    if let Some(devices) = child(root, "devices") {
        for (index, disk) in each(Some(devices), "disk").enumerate() {
            found.extend(check_disk(index, disk));
        }
        check_macs(&guest, devices, &mut found);
    }
    if found.is_empty() {
        Ok(guest)
    } else {
        Err(Findings(found))
    }
}

fn check_root(root: Node<'_, '_>, found: &mut Vec<InvalidGuestXml>) {
    if let Some(namespace) = root.tag_name().namespace() {
        found.push(invalid(
            root,
            "<domain xmlns>",
            namespace,
            "it must have no namespace",
        ));
    }
    let kind = attribute(root, "type");
    if !matches!(&*kind, "kvm" | "qemu") {
        found.push(invalid(root, "<domain type>", kind, "it must be kvm or qemu"));
    }
    for name in ONCE {
        if let Some(second) = elements(root).filter(|node| node.has_tag_name(name)).nth(1) {
            let place = format!("<domain><{name}>");
            found.push(invalid(second, place, text(second), "it must be there only once"));
        }
    }
    // libvirt reads the whole text, the reader here its first piece.
    for name in ["name", "uuid", "memory", "vcpu"] {
        if let Some(node) = child(root, name)
            && node.children().any(|part| !part.is_text())
        {
            let place = format!("<domain><{name}>");
            found.push(invalid(node, place, text(node), "it must hold text alone"));
        }
    }
    if let Some(kind) = child(root, "os").and_then(|os| child(os, "type"))
        && text(kind) != "hvm"
    {
        found.push(invalid(kind, "<os><type>", text(kind), "it must be hvm"));
    }
    if let Some(action) = child(root, "on_poweroff")
        && matches!(&*text(action), "preserve" | "rename-restart")
    {
        found.push(invalid(
            action,
            "<on_poweroff>",
            text(action),
            "it must be destroy, else the guest never counts as stopped",
        ));
    }
}

fn check_processors(root: Node<'_, '_>, guest: &GuestXml, found: &mut Vec<InvalidGuestXml>) {
    if let Some(vcpu) = child(root, "vcpu")
        && let Some(current) = vcpu.attribute("current")
    {
        match current.parse::<u32>() {
            Ok(count) if (1..=guest.vcpus).contains(&count) => {}
            Ok(_) | Err(_) => found.push(invalid(
                vcpu,
                "<domain><vcpu current>",
                current,
                format!("it must be a whole number from 1 to {}", guest.vcpus),
            )),
        }
    }
    let Some(node) = child(root, "cpu").and_then(|cpu| child(cpu, "topology")) else {
        return;
    };
    let Some(topology) = guest.topology else { return };
    let more: Option<u64> = ["dies", "clusters"].iter().try_fold(1_u64, |product, part| {
        let count = node
            .attribute(*part)
            .map_or(Ok(1), str::parse::<u32>)
            .ok()
            .filter(|count| *count > 0)?;
        product.checked_mul(u64::from(count))
    });
    let product = [topology.sockets, topology.cores, topology.threads]
        .iter()
        .try_fold(more.unwrap_or(0), |product, part| {
            product.checked_mul(u64::from(*part))
        });
    if product != Some(u64::from(guest.vcpus)) {
        found.push(invalid(
            node,
            "<cpu><topology>",
            format!("{}/{}/{}", topology.sockets, topology.cores, topology.threads),
            format!(
                "sockets, cores and threads must make up the {} vCPUs of <vcpu>",
                guest.vcpus
            ),
        ));
    }
}

/// Options of QEMU that open storage, or make the process another one than that of this guest's record.
const FORBIDDEN_OPTIONS: [&str; 16] = [
    "drive", "blockdev", "hda", "hdb", "hdc", "hdd", "cdrom", "fda", "fdb", "pflash", "sd", "mtdblock",
    "incoming", "loadvm", "uuid", "snapshot",
];

/// Arguments that are handed to QEMU past libvirt must not open volumes: nobody would put their Ceph clients on record,
/// and no fence could bar them.
fn check_command_line(root: Node<'_, '_>, found: &mut Vec<InvalidGuestXml>) {
    for node in elements(root).filter(|node| node.has_tag_name("commandline")) {
        for part in elements(node) {
            if part.has_tag_name("arg") {
                let value = attribute(part, "value");
                let option = value.trim_start_matches('-');
                let option = option.split('=').next().unwrap_or_default();
                if value.starts_with('-') && FORBIDDEN_OPTIONS.contains(&option) || value.contains("rbd:") {
                    found.push(invalid(
                        part,
                        "<qemu:arg value>",
                        value,
                        "storage is given to a guest as <disk> only, so that its node can be fenced",
                    ));
                }
            } else if part.has_tag_name("env") && attribute(part, "name").starts_with("CEPH_") {
                found.push(invalid(
                    part,
                    "<qemu:env name>",
                    attribute(part, "name"),
                    "how QEMU reaches Ceph is not for a guest to change",
                ));
            }
        }
    }
}

/// The mark that a node's agent sets on a running domain: in a definition it would be believed of one that never ran.
const AGENT_MARK: &str = "urn:pvc:resumed";

fn check_metadata(root: Node<'_, '_>, found: &mut Vec<InvalidGuestXml>) {
    let marks = child(root, "metadata")
        .into_iter()
        .flat_map(elements)
        .filter(|node| node.tag_name().namespace() == Some(AGENT_MARK));
    for mark in marks {
        found.push(invalid(
            mark,
            "<metadata>",
            AGENT_MARK,
            "it marks a domain that runs; leave it out of a definition",
        ));
    }
}

/// What is wrong with a `<disk>` that can be read.
pub(super) fn check_disk(index: usize, disk: Node<'_, '_>) -> Vec<InvalidGuestXml> {
    let mut found = Vec::new();
    let dev = child(disk, "target").map(|target| attribute(target, "dev"));
    let place = |part: &str| match &dev {
        Some(dev) => format!("<disk dev='{dev}'>{part}"),
        None => format!("<disk {}>{part}", index + 1),
    };
    for name in ["source", "target", "driver"] {
        if let Some(second) = each(Some(disk), name).nth(1) {
            let part = place(&format!("<{name}>"));
            found.push(invalid(second, part, "", "it must be there only once"));
        }
    }
    if let Some(snapshot) = child(disk, "source").and_then(|source| child(source, "snapshot"))
        && child(disk, "readonly").is_none()
        && disk.attribute("device") != Some("cdrom")
    {
        found.push(invalid(
            snapshot,
            place("<source><snapshot name>"),
            attribute(snapshot, "name"),
            "a snapshot can only be read: the disk needs <readonly/>",
        ));
    }
    found
}

/// Each interface has an address of its own, and one that a single card can have.
fn check_macs(guest: &GuestXml, devices: Node<'_, '_>, found: &mut Vec<InvalidGuestXml>) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, (interface, node)) in guest
        .interfaces
        .iter()
        .zip(each(Some(devices), "interface"))
        .enumerate()
    {
        let mac = interface.mac.as_str();
        if mac.is_empty() {
            continue;
        }
        let place = format!("<interface {}><mac address>", index + 1);
        if let Some(reason) = wrong_mac(mac) {
            found.push(invalid(node, place, mac, reason));
        } else if seen.contains(&mac) {
            found.push(invalid(
                node,
                place,
                mac,
                "another interface of this guest has the same",
            ));
        }
        seen.push(mac);
    }
}

/// Why no card can have this address, which is six pairs of hexadecimal digits.
pub(super) fn wrong_mac(mac: &str) -> Option<&'static str> {
    let first = mac.get(..2).and_then(|pair| u8::from_str_radix(pair, 16).ok())?;
    if first & 1 == 1 {
        Some("it is an address of a group; the first pair must be even")
    } else if mac == "00:00:00:00:00:00" {
        Some("it must not be nothing but zeros")
    } else {
        None
    }
}
