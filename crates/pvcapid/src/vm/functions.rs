//! Virtual SR-IOV functions that a definition names: one guest has one at a time.
//!
//! Only functions that the store knows of as such are looked at. Any other device of a node is its administrator's business.

use pvc_common::keys;
use pvc_common::store::Store;
use pvc_core::guest_xml::{GuestXml, InterfaceKind};
use pvc_core::ids::NodeName;

use crate::error::ApiError;
use crate::snapshot::{Reading as _, Snapshot, Wanted, children_of};

/// What is known of a function.
#[derive(Debug, Default)]
struct Function {
    name: String,
    /// As the kernel writes it (`0000:03:10.1`); nothing where it can't be read.
    address: Option<String>,
    /// The guest that has it.
    used_by: Option<String>,
}

/// Refuses functions of `node` that another guest has.
pub(crate) async fn check<S: Store>(store: &S, guest: &GuestXml, node: &NodeName) -> Result<(), ApiError> {
    let names_any = guest
        .interfaces
        .iter()
        .any(|interface| !matches!(interface.kind, InterfaceKind::Bridge { .. }));
    if !names_any {
        return Ok(());
    }
    let names: Vec<String> = children_of(store, &keys::sriov_vfs(node)).await?;
    let mut wanted = Wanted::default();
    for name in &names {
        let keys = keys::sriov_vf(node, name);
        wanted
            .key(&keys.used())
            .key(&keys.used_by())
            .key(&keys.pci_domain())
            .key(&keys.pci_bus())
            .key(&keys.pci_slot())
            .key(&keys.pci_function());
    }
    let seen = Snapshot::read(store, wanted).await?;
    let functions = names.into_iter().map(|name| {
        let keys = keys::sriov_vf(node, &name);
        let text = |key| seen.shown(&key, String::new());
        let used_by = Some(text(keys.used_by())).filter(|_| text(keys.used()) == "True");
        let parts = [
            keys.pci_domain(),
            keys.pci_bus(),
            keys.pci_slot(),
            keys.pci_function(),
        ]
        .map(text);
        Function {
            address: address(&parts),
            used_by,
            name,
        }
    });
    refuse_used(guest, node, &functions.collect::<Vec<_>>())
}

fn address(parts: &[String; 4]) -> Option<String> {
    let [domain, bus, slot, function] = parts;
    let number = |text: &String| u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok();
    Some(format!(
        "{:04x}:{:02x}:{:02x}.{:x}",
        number(domain)?,
        number(bus)?,
        number(slot)?,
        number(function)?
    ))
}

fn refuse_used(guest: &GuestXml, node: &NodeName, functions: &[Function]) -> Result<(), ApiError> {
    let own = guest.uuid.to_string();
    for interface in &guest.interfaces {
        let found = functions.iter().find(|function| match &interface.kind {
            InterfaceKind::Bridge { .. } => false,
            InterfaceKind::Direct { device } => function.name == *device,
            InterfaceKind::Hostdev { address } => function.address.as_ref() == Some(address),
        });
        if let Some(function) = found
            && let Some(user) = function.used_by.as_ref().filter(|user| **user != own)
        {
            return Err(ApiError::conflict(format!(
                "The SR-IOV function {} of node {node} is used by VM {user}",
                function.name
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pvc_core::guest_xml;

    use super::*;

    // Two guests that are handed one function: the second does not start, or takes it from the first.
    #[test]
    fn a_function_that_another_guest_has_is_refused() {
        let guest = |interface: &str| {
            guest_xml::parse(&format!(
                "<domain type='kvm'><name>a</name><uuid>5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01</uuid>\
                 <memory unit='MiB'>1</memory><vcpu>1</vcpu><devices>{interface}</devices></domain>"
            ))
            .unwrap()
        };
        let macvtap = guest("<interface type='direct'><source dev='ens1v0'/></interface>");
        let passed = guest(
            "<interface type='hostdev'><source><address domain='0x0000' bus='0x3b' slot='0x2' function='0x1'/></source></interface>",
        );
        let other = guest("<interface type='direct'><source dev='ens1v7'/></interface>");
        let parts = ["0000", "3b", "02", "1"].map(str::to_owned);
        let function = |user: Option<&str>| {
            [Function {
                name: "ens1v0".to_owned(),
                address: address(&parts),
                used_by: user.map(str::to_owned),
            }]
        };
        let node = NodeName::new("hv1").unwrap();
        let refused = |guest: &GuestXml, user| refuse_used(guest, &node, &function(user)).is_err();
        for guest in [&macvtap, &passed] {
            assert!(refused(guest, Some("5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a02")));
            assert!(
                !refused(guest, Some("5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01")),
                "its own"
            );
            assert!(!refused(guest, None));
        }
        assert!(!refused(&other, Some("5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a02")));
    }
}
