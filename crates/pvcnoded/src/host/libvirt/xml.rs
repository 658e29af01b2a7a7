//! The XML of a domain or a device as it is handed to libvirt: the stored one, with what safety needs put in.
//!
//! The stored XML stays untouched; elements that are not known here are left alone.

use pvc_core::ids::VmId;
use xot::{Node, Xot};

/// What the host can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acceleration {
    /// KVM works.
    Kvm,
    /// It does not: guests are emulated.
    Emulation,
}

/// Prepares the XML of a guest for its start here.
///
/// * Every RBD disk stops the guest at an I/O error, so that one whose storage client was barred stops by itself.
/// * Without KVM a `kvm` guest becomes a `qemu` one, and a processor that only KVM offers the best that there is.
pub(super) fn prepare(xml: &str, vm: VmId, acceleration: Acceleration) -> Result<String, String> {
    if xml.contains('\0') {
        return Err("the domain XML holds a NUL character".to_owned());
    }
    let mut xot = Xot::new();
    let document = xot
        .parse(xml)
        .map_err(|error| format!("the domain XML can't be parsed: {error}"))?;
    let root = xot
        .document_element(document)
        .map_err(|error| format!("the domain XML has no root: {error}"))?;
    // A process is known by the UUID that its XML gave it: another guest's XML would start that one, unowned.
    let uuid = child(&xot, root, "uuid").map(|node| xot.string_value(node));
    if uuid.as_deref().map(str::trim).and_then(|text| text.parse().ok()) != Some(vm) {
        return Err(format!("the domain XML is not that of {vm}"));
    }
    let disks: Vec<Node> = child(&xot, root, "devices")
        .map(|devices| children(&xot, devices, "disk"))
        .unwrap_or_default();
    for disk in disks {
        if is_rbd(&xot, disk) {
            stop_at_errors(&mut xot, disk)?;
        }
    }
    match acceleration {
        Acceleration::Kvm => {}
        Acceleration::Emulation => emulate(&mut xot, root),
    }
    xot.to_string(document)
        .map_err(|error| format!("the domain XML can't be written: {error}"))
}

/// Prepares the XML of a device that is attached to a guest here: an RBD disk stops the guest at an I/O error.
pub(super) fn prepare_device(xml: &str) -> Result<String, String> {
    if xml.contains('\0') {
        return Err("the device XML holds a NUL character".to_owned());
    }
    let mut xot = Xot::new();
    let document = xot
        .parse(xml)
        .map_err(|error| format!("the device XML can't be parsed: {error}"))?;
    let device = xot
        .document_element(document)
        .map_err(|error| format!("the device XML has no root: {error}"))?;
    if is_rbd(&xot, device) {
        stop_at_errors(&mut xot, device)?;
    }
    xot.to_string(document)
        .map_err(|error| format!("the device XML can't be written: {error}"))
}

fn children(xot: &Xot, parent: Node, name: &str) -> Vec<Node> {
    let Some(name) = xot.name(name) else {
        return Vec::new();
    };
    xot.children(parent)
        .filter(|node| xot.node_name(*node) == Some(name))
        .collect()
}

fn child(xot: &Xot, parent: Node, name: &str) -> Option<Node> {
    children(xot, parent, name).into_iter().next()
}

fn attribute<'a>(xot: &'a Xot, node: Node, name: &str) -> Option<&'a str> {
    xot.get_attribute(node, xot.name(name)?)
}

fn is_rbd(xot: &Xot, disk: Node) -> bool {
    child(xot, disk, "source").is_some_and(|source| attribute(xot, source, "protocol") == Some("rbd"))
}

fn stop_at_errors(xot: &mut Xot, disk: Node) -> Result<(), String> {
    let driver = match child(xot, disk, "driver") {
        Some(driver) => driver,
        None => {
            let name = xot.add_name("driver");
            let driver = xot.new_element(name);
            xot.prepend(disk, driver)
                .map_err(|error| format!("the domain XML has a disk that takes no driver: {error}"))?;
            driver
        }
    };
    for policy in ["error_policy", "rerror_policy"] {
        let policy = xot.add_name(policy);
        xot.set_attribute(driver, policy, "stop");
    }
    Ok(())
}

fn emulate(xot: &mut Xot, root: Node) {
    if attribute(xot, root, "type") != Some("kvm") {
        return;
    }
    let name = xot.add_name("type");
    xot.set_attribute(root, name, "qemu");
    let Some(cpu) = child(xot, root, "cpu") else {
        return;
    };
    if attribute(xot, cpu, "mode") == Some("host-passthrough") {
        let mode = xot.add_name("mode");
        xot.set_attribute(cpu, mode, "maximum");
        for word in ["check", "migratable"] {
            let word = xot.add_name(word);
            xot.remove_attribute(cpu, word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    const XML: &str = r#"<domain xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0" type="kvm">
  <name>web</name>
  <uuid>6ba7b810-9dad-11d1-80b4-00c04fd430c8</uuid>
  <!-- by hand -->
  <cpu mode="host-passthrough" check="none" migratable="on"><topology sockets="1" cores="2" threads="1"/></cpu>
  <devices>
    <emulator>/usr/bin/kvm</emulator>
    <disk type="network" device="disk"><driver name="qemu" discard="unmap"/><source protocol="rbd" name="vms/web_sda"/></disk>
    <disk type="network" device="disk"><source protocol="rbd" name="vms/web_sdb"/></disk>
    <disk type="network" device="disk"><driver name="qemu" error_policy="report"/><source protocol="rbd" name="vms/web_sdc"/></disk>
    <disk type="file" device="cdrom"><driver name="qemu"/><source file="/iso"/></disk>
  </devices>
  <qemu:commandline><qemu:arg value="-x"/></qemu:commandline>
</domain>"#;

    fn prepared(acceleration: Acceleration) -> String {
        prepare(XML, UUID.parse().unwrap(), acceleration).unwrap()
    }

    // Without these words a guest whose client was barred goes on running and sees its disk fail, instead of being
    // stopped: it might answer its users from memory while its successor runs elsewhere.
    #[test]
    fn rbd_disks_stop_at_errors_and_nothing_else_changes() {
        let expected = XML
            .replace(
                r#"<driver name="qemu" discard="unmap"/>"#,
                r#"<driver name="qemu" discard="unmap" error_policy="stop" rerror_policy="stop"/>"#,
            )
            .replace(
                r#"<source protocol="rbd" name="vms/web_sdb"/>"#,
                r#"<driver error_policy="stop" rerror_policy="stop"/><source protocol="rbd" name="vms/web_sdb"/>"#,
            )
            .replace(
                r#"error_policy="report""#,
                r#"error_policy="stop" rerror_policy="stop""#,
            );
        assert_eq!(prepared(Acceleration::Kvm), expected);
    }

    #[test]
    fn an_attached_rbd_disk_stops_at_errors_too() {
        let disk = r#"<disk type="network"><source protocol="rbd" name="vms/web_sdd"/></disk>"#;
        let expected = disk.replace(
            "<source",
            r#"<driver error_policy="stop" rerror_policy="stop"/><source"#,
        );
        assert_eq!(prepare_device(disk).unwrap(), expected);
        let interface = r#"<interface type="bridge"><source bridge="br0"/></interface>"#;
        assert_eq!(prepare_device(interface).unwrap(), interface);
        for bad in ["", "<disk", "<disk>\0</disk>"] {
            assert!(prepare_device(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn without_kvm_a_guest_is_emulated_by_the_same_program() {
        let xml = prepared(Acceleration::Emulation);
        assert!(xml.contains(r#"1.0" type="qemu">"#), "{xml}");
        assert!(xml.contains(r#"<cpu mode="maximum"><topology"#), "{xml}");
        assert!(xml.contains("<emulator>/usr/bin/kvm</emulator>"), "{xml}");
    }

    #[test]
    fn what_is_not_this_guests_xml_is_refused() {
        let vm: VmId = UUID.parse().unwrap();
        let another: VmId = UUID.replace("6ba7", "7ba7").parse().unwrap();
        assert!(prepare(XML, another, Acceleration::Kvm).is_err());
        let upper = XML.replace(UUID, &UUID.to_uppercase());
        assert!(prepare(&upper, vm, Acceleration::Kvm).is_ok());
        for bad in [
            "",
            "<domain>",
            "<domain/>",
            "<domain><uuid>x</uuid></domain>",
            "<domain>\0</domain>",
        ] {
            assert!(prepare(bad, vm, Acceleration::Kvm).is_err(), "{bad:?}");
        }
    }
}
