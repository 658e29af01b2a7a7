//! Memory, processors and screens.

use roxmltree::Node;

use super::error::InvalidGuestXml;
use super::model::{Graphics, Topology};
use super::read::{attribute, child, invalid, missing, required_text, text};

/// `<memory>` in the units that libvirt knows; KiB if none is named.
pub(super) fn parse_memory(root: Node<'_, '_>) -> Result<u64, InvalidGuestXml> {
    const WHERE: &str = "<domain><memory>";
    const MIB: u128 = 1024 * 1024;
    let node = child(root, "memory").ok_or_else(|| missing(root, WHERE))?;
    let value = text(node);
    let amount: u64 = value
        .parse()
        .map_err(|_| invalid(node, WHERE, &value, "it must be a whole number"))?;
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
                node,
                "<domain><memory unit>",
                unit,
                "it must be one of b, bytes, KB, KiB, MB, MiB, GB, GiB, TB, TiB",
            ));
        }
    };
    let mib = (u128::from(amount) * factor).div_ceil(MIB);
    match u64::try_from(mib) {
        Ok(0) => Err(invalid(node, WHERE, value, "it must be more than nothing")),
        Ok(mib) => Ok(mib),
        Err(_) => Err(invalid(node, WHERE, value, "it is too large")),
    }
}

pub(super) fn parse_vcpus(root: Node<'_, '_>) -> Result<u32, InvalidGuestXml> {
    const WHERE: &str = "<domain><vcpu>";
    let value = required_text(root, "vcpu")?;
    let node = child(root, "vcpu").unwrap_or(root);
    match value.parse::<u32>() {
        Ok(count) if count > 0 => Ok(count),
        Ok(_) | Err(_) => Err(invalid(node, WHERE, value, "it must be a whole number from 1")),
    }
}

pub(super) fn parse_topology(root: Node<'_, '_>) -> Result<Option<Topology>, InvalidGuestXml> {
    let Some(node) = child(root, "cpu").and_then(|cpu| child(cpu, "topology")) else {
        return Ok(None);
    };
    let part = |name: &str| -> Result<u32, InvalidGuestXml> {
        let place = format!("<cpu><topology {name}>");
        let value = node.attribute(name).ok_or_else(|| missing(node, &*place))?;
        match value.parse() {
            Ok(count) if count > 0 => Ok(count),
            Ok(_) | Err(_) => Err(invalid(node, place, value, "it must be a whole number from 1")),
        }
    };
    Ok(Some(Topology {
        sockets: part("sockets")?,
        cores: part("cores")?,
        threads: part("threads")?,
    }))
}

pub(super) fn parse_graphics(node: Node<'_, '_>) -> Graphics {
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
