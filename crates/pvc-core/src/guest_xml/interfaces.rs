//! Network interfaces.

use roxmltree::Node;

use super::error::InvalidGuestXml;
use super::model::{Interface, InterfaceKind};
use super::read::{attribute, child, invalid, missing};

pub(super) fn parse_interface(index: usize, node: Node<'_, '_>) -> Result<Interface, InvalidGuestXml> {
    let number = index + 1;
    let source = child(node, "source");
    let of_source = |name: &str| -> Result<String, InvalidGuestXml> {
        source
            .map(|source| attribute(source, name))
            .filter(|value| !value.is_empty())
            .ok_or_else(|| {
                missing(
                    source.unwrap_or(node),
                    format!("<interface {number}><source {name}>"),
                )
            })
    };
    let kind = match node.attribute("type").unwrap_or_default() {
        "bridge" => InterfaceKind::Bridge {
            bridge: of_source("bridge")?,
        },
        "direct" => InterfaceKind::Direct {
            device: of_source("dev")?,
        },
        "hostdev" => InterfaceKind::Hostdev {
            address: hostdev_address(number, node, source)?,
        },
        other => {
            return Err(invalid(
                node,
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
            node,
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
fn hostdev_address(
    number: usize,
    interface: Node<'_, '_>,
    source: Option<Node<'_, '_>>,
) -> Result<String, InvalidGuestXml> {
    let address = source
        .and_then(|source| child(source, "address"))
        .ok_or_else(|| missing(interface, format!("<interface {number}><source><address>")))?;
    let part = |name: &str| -> Result<u32, InvalidGuestXml> {
        let value = attribute(address, name);
        let digits = value.strip_prefix("0x").unwrap_or(&value);
        u32::from_str_radix(digits, 16).map_err(|_| {
            invalid(
                address,
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
