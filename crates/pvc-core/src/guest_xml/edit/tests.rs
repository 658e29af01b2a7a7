use super::*;
use crate::guest_xml::{Attachment, InterfaceKind, check, parse, parse_device};

/// A definition with what PVC does not know: it must come out of every change as it went in.
const XML: &str = r#"<domain xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0" type="kvm">
  <name>web1</name>
  <uuid>5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01</uuid>
  <!-- by hand -->
  <memory unit="GiB">1</memory>
  <currentMemory unit="KiB">524288</currentMemory>
  <vcpu placement="static" current="1">2</vcpu>
  <cpu mode="host-model"><topology sockets="2" cores="1" threads="1"/></cpu>
  <devices>
    <disk type="network" device="disk">
      <driver name="qemu" discard="unmap"/>
      <auth username="libvirt"><secret type="ceph" uuid="5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6aff"/></auth>
      <source protocol="rbd" name="vms/web1_sda"><host name="10.0.0.1" port="6789"/></source>
      <target dev="sda" bus="scsi"/>
    </disk>
    <interface type="bridge">
      <mac address="52:54:00:00:00:01"/>
      <source bridge="vmbr100"/>
      <model type="virtio"/>
    </interface>
    <serial type="pty"><log file="/var/log/libvirt/web1.log" append="on"/></serial>
    <strange beyond="us"/>
  </devices>
  <qemu:commandline><qemu:arg value="-x"/></qemu:commandline>
</domain>"#;

fn bridge(name: &str) -> InterfaceKind {
    InterfaceKind::Bridge {
        bridge: name.to_owned(),
    }
}

fn card(bridge_name: &str, mac: &str) -> NewInterface {
    NewInterface {
        kind: bridge(bridge_name),
        mac: mac.to_owned(),
        model: "virtio".to_owned(),
    }
}

fn rbd(volume: &str, target: Option<&str>, bus: DiskBus) -> NewDisk {
    NewDisk {
        source: NewSource::Rbd {
            volume: volume.parse().unwrap(),
            access: None,
        },
        target: target.map(ToOwned::to_owned),
        bus,
    }
}

#[test]
fn sizes_change_and_nothing_else_does() {
    let xml = set_memory(XML, 2048).unwrap();
    let expected = XML
        .replace(r#"<memory unit="GiB">1<"#, r#"<memory unit="MiB">2048<"#)
        .replace(
            r#"<currentMemory unit="KiB">524288<"#,
            r#"<currentMemory unit="MiB">2048<"#,
        );
    assert_eq!(xml, expected);
    let xml = set_vcpus(XML, 4, None).unwrap();
    let expected = XML
        .replace(r#"placement="static" current="1">2<"#, r#"placement="static">4<"#)
        .replace(
            r#"sockets="2" cores="1" threads="1""#,
            r#"sockets="1" cores="4" threads="1""#,
        );
    assert_eq!(xml, expected);
    assert!(check(&xml).is_ok());
    let topology = Topology {
        sockets: 2,
        cores: 2,
        threads: 2,
    };
    let guest = check(&set_vcpus(XML, 8, Some(topology)).unwrap()).unwrap();
    assert_eq!((guest.vcpus, guest.topology), (8, Some(topology)));
    assert!(matches!(
        set_vcpus(XML, 6, Some(topology)),
        Err(EditError::Impossible(_))
    ));
    // One that says nothing of its processor gets no topology out of nowhere.
    let plain = XML.replace(
        r#"  <cpu mode="host-model"><topology sockets="2" cores="1" threads="1"/></cpu>
"#,
        "",
    );
    assert_eq!(
        parse(&set_vcpus(&plain, 3, None).unwrap()).unwrap().topology,
        None
    );
}

#[test]
fn a_name_changes_with_the_log_that_is_named_after_it() {
    let xml = rename(XML, "web1", "web2").unwrap();
    let expected = XML
        .replace("<name>web1<", "<name>web2<")
        .replace("/web1.log", "/web2.log");
    assert_eq!(xml, expected, "volumes keep their names");
}

#[test]
fn an_interface_is_added_in_line_and_taken_out_without_a_trace() {
    let added = add_interface(XML, &card("vmbr200", "52:54:00:00:00:02")).unwrap();
    let device = r#"<interface type="bridge"><mac address="52:54:00:00:00:02"/><source bridge="vmbr200"/><model type="virtio"/></interface>"#;
    assert_eq!(added.device, device);
    let expected = XML.replace(
        "    </interface>\n    <serial",
        &format!("    </interface>\n    {device}\n    <serial"),
    );
    assert_eq!(added.xml, expected);
    let device = parse_device(&added.device).unwrap();
    assert_eq!(device.in_guest(&added.xml), Ok(Attachment::Present));
    assert_eq!(device.in_guest(XML), Ok(Attachment::Absent));
    let by_network = InterfaceMatch {
        kind: Some(bridge("vmbr200")),
        mac: None,
    };
    let removed = remove_interface(&added.xml, &by_network).unwrap();
    assert_eq!(removed.xml, XML);
    assert_eq!(parse_device(&removed.device).unwrap(), device);
    assert!(matches!(
        remove_interface(XML, &by_network),
        Err(EditError::Absent { .. })
    ));
    // Two on one network: guessing would cut the wrong one off.
    let twice = add_interface(XML, &card("vmbr100", "52:54:00:00:00:02"))
        .unwrap()
        .xml;
    let both = InterfaceMatch {
        kind: Some(bridge("vmbr100")),
        mac: None,
    };
    assert!(matches!(
        remove_interface(&twice, &both),
        Err(EditError::Ambiguous { macs }) if macs.len() == 2
    ));
    let one = InterfaceMatch {
        mac: Some("52:54:00:00:00:02".to_owned()),
        ..both
    };
    assert_eq!(remove_interface(&twice, &one).unwrap().xml, XML);
    assert!(matches!(
        add_interface(XML, &card("vmbr200", "52:54:00:00:00:01")),
        Err(EditError::Exists { .. })
    ));
}

#[test]
fn a_card_that_is_handed_over_is_written_as_libvirt_takes_it() {
    let kinds = [
        InterfaceKind::Hostdev {
            address: "0000:03:10.1".to_owned(),
        },
        InterfaceKind::Direct {
            device: "ens1f0v2".to_owned(),
        },
    ];
    for kind in kinds {
        let new = NewInterface {
            kind: kind.clone(),
            ..card("", "52:54:00:00:00:02")
        };
        let added = add_interface(XML, &new).unwrap();
        let guest = check(&added.xml).unwrap();
        assert_eq!(guest.interfaces[1].kind, kind);
        let which = InterfaceMatch {
            kind: Some(kind),
            mac: None,
        };
        assert_eq!(remove_interface(&added.xml, &which).unwrap().xml, XML);
    }
    let odd = NewInterface {
        kind: InterfaceKind::Hostdev {
            address: "3:10".to_owned(),
        },
        ..card("", "52:54:00:00:00:02")
    };
    assert!(matches!(add_interface(XML, &odd), Err(EditError::Impossible(_))));
}

#[test]
fn a_disk_is_made_like_one_that_the_guest_has() {
    let added = add_disk(XML, &rbd("vms/web1_data", None, DiskBus::Scsi)).unwrap();
    let guest = check(&added.xml).unwrap();
    assert_eq!(guest.disks[1].target, "sdb");
    assert_eq!(guest.disks[1].bus, "scsi");
    let volumes: Vec<String> = guest.volumes().map(|(volume, _)| volume.to_string()).collect();
    assert_eq!(volumes, ["vms/web1_sda", "vms/web1_data"]);
    // Monitors and secret: without them the guest would not start the next time.
    assert!(
        added.device.contains("10.0.0.1") && added.device.contains("6aff"),
        "{}",
        added.device
    );
    assert!(added.xml.contains(r#"<strange beyond="us"/>"#));
    for name in ["vms/web1_data", "sdb"] {
        let removed = remove_disk(&added.xml, name).unwrap();
        assert_eq!(removed.xml, XML, "{name}");
        let device = parse_device(&removed.device).unwrap();
        assert_eq!(device.volume().unwrap().0.to_string(), "vms/web1_data");
        assert_eq!(device.in_guest(&added.xml), Ok(Attachment::Present));
    }
    assert!(matches!(
        remove_disk(XML, "vms/none"),
        Err(EditError::Absent { .. })
    ));
    for taken in [
        rbd("vms/web1_sda", None, DiskBus::Scsi),
        rbd("vms/other", Some("sda"), DiskBus::Scsi),
    ] {
        assert!(matches!(add_disk(XML, &taken), Err(EditError::Exists { .. })));
    }
    let virtio = add_disk(XML, &rbd("vms/v", None, DiskBus::Virtio)).unwrap();
    assert!(virtio.device.contains(r#"dev="vda" bus="virtio""#));
}

#[test]
fn a_first_rbd_disk_needs_to_be_told_where_ceph_is() {
    let bare = remove_disk(XML, "sda").unwrap().xml;
    let mut new = rbd("vms/first", None, DiskBus::Scsi);
    assert!(matches!(add_disk(&bare, &new), Err(EditError::Impossible(_))));
    if let NewSource::Rbd { access, .. } = &mut new.source {
        *access = Some(CephAccess {
            monitors: vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()],
            port: 6789,
            secret: "5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6aff".to_owned(),
        });
    }
    let guest = check(&add_disk(&bare, &new).unwrap().xml).unwrap();
    let crate::guest_xml::DiskSource::Rbd(source) = &guest.disks[0].source else {
        panic!("{guest:?}")
    };
    assert_eq!(source.monitors.len(), 2);
    assert_eq!(source.user.as_deref(), Some("libvirt"));
    let file = NewDisk {
        source: NewSource::File {
            path: "/srv/a.iso".to_owned(),
        },
        target: None,
        bus: DiskBus::Ide,
    };
    let added = add_disk(&bare, &file).unwrap();
    assert!(added.device.contains(r#"dev="hda""#));
    assert_eq!(remove_disk(&added.xml, "/srv/a.iso").unwrap().xml, bare);
}

#[test]
fn what_can_not_be_read_is_not_changed() {
    for xml in [
        "",
        "<domain>",
        "<!DOCTYPE d [<!ENTITY a 'b'>]><domain>&a;</domain>",
    ] {
        assert!(
            matches!(set_memory(xml, 1), Err(EditError::Definition(_))),
            "{xml}"
        );
    }
}
