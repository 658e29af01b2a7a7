use super::*;

const UUID: &str = "5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01";

fn guest(rest: &str) -> String {
    format!(
        "<domain type='kvm'><name>web1</name><uuid>{UUID}</uuid><memory unit='MiB'>512</memory>\
         <vcpu>2</vcpu>{rest}</domain>"
    )
}

fn rbd(volume: &str, dev: &str, more: &str) -> String {
    format!(
        "<disk type='network' device='disk'><source protocol='rbd' name='{volume}'>\
         <host name='10.102.0.1' port='3300'/><host name='mon2'/></source>\
         <auth username='libvirt'><secret type='ceph' uuid='{UUID}'/></auth>\
         <target dev='{dev}' bus='scsi'/>{more}</disk>"
    )
}

#[test]
fn a_guest_as_the_provisioning_scripts_make_it_is_read_whole() {
    let xml = guest(&format!(
        "<description>for tests</description>\
         <cpu mode='host-model'><topology sockets='1' cores='2' threads='1'/></cpu>\
         <os><type arch='x86_64' machine='pc-i440fx-2.7'>hvm</type></os>\
         <features><acpi/><apic/><pae/></features><clock offset='localtime'/>\
         <devices><console type='pty'/><emulator>/usr/bin/kvm</emulator>\
         <controller type='scsi' index='0' model='virtio-scsi'/><controller type='usb'/>\
         <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>\
         <disk type='file' device='disk'><source file='/dev/shm/vhostmd0'/><target dev='sdz' bus='usb'/>\
         <readonly/></disk>{}\
         <interface type='bridge'><mac address='52:54:00:AB:cd:01'/><source bridge='vmbr100'/>\
         <model type='virtio'/></interface>\
         <interface type='hostdev'><source><address type='pci' domain='0x0000' bus='0x03' slot='0x10' \
         function='0x1'/></source></interface></devices>",
        rbd("vms/web1_disk0", "sda", "")
    ));
    let guest = parse(&xml).unwrap();
    assert_eq!(guest.name.as_str(), "web1");
    assert_eq!(guest.uuid.to_string(), UUID);
    assert_eq!((guest.memory_mib, guest.vcpus), (512, 2));
    assert_eq!(
        guest.topology,
        Some(Topology {
            sockets: 1,
            cores: 2,
            threads: 1
        })
    );
    assert_eq!(guest.machine, "pc-i440fx-2.7");
    assert_eq!(guest.features, ["acpi", "apic", "pae"]);
    assert_eq!(guest.clock_offset, "localtime");
    assert_eq!(guest.console.as_deref(), Some("pty"));
    assert_eq!(guest.graphics[0].port, None);
    assert_eq!(guest.graphics[0].listen.as_deref(), Some("127.0.0.1"));
    assert_eq!(guest.controllers[0].model.as_deref(), Some("virtio-scsi"));
    assert_eq!(guest.disks[0].access, DiskAccess::ReadOnly);
    let DiskSource::Rbd(source) = &guest.disks[1].source else {
        panic!("{:?}", guest.disks[1])
    };
    assert_eq!(source.volume.to_string(), "vms/web1_disk0");
    assert_eq!(
        source.monitors,
        [("10.102.0.1".to_owned(), Some(3300)), ("mon2".to_owned(), None)]
    );
    assert_eq!(source.user.as_deref(), Some("libvirt"));
    assert_eq!(source.secret.as_deref(), Some(UUID));
    assert_eq!(guest.interfaces[0].mac, "52:54:00:ab:cd:01");
    assert_eq!(
        guest.interfaces[1].kind,
        InterfaceKind::Hostdev {
            address: "0000:03:10.1".into()
        }
    );
    assert_eq!(guest.volumes().count(), 1);
}

#[test]
fn a_guest_without_console_screen_or_devices_is_a_guest() {
    // PVC 1.0.3 dropped such guests from its lists: an administrator thought them lost.
    let guest = parse(&guest("")).unwrap();
    assert_eq!(guest.console, None);
    assert!(guest.disks.is_empty() && guest.graphics.is_empty());
}

#[test]
fn the_size_of_a_guest_with_an_unknown_device_is_read() {
    // Else its memory would count as nothing where guests are placed, and its node would be filled above its brim.
    let xml = guest("<devices><disk type='dir'><target dev='vda'/></disk></devices>");
    assert!(parse(&xml).is_err());
    let size = Size {
        memory_mib: 512,
        vcpus: 2,
    };
    assert_eq!(parse_size(&xml), Ok(size));
    assert!(parse_size("<domain/>").is_err());
}

#[test]
fn memory_is_read_in_its_unit() {
    for (memory, mib) in [
        ("<memory>524288</memory>", 512),
        ("<memory unit='KiB'>1048577</memory>", 1025),
        ("<memory unit='GiB'>2</memory>", 2048),
        ("<memory unit='MB'>1000</memory>", 954),
        ("<memory unit='bytes'>1</memory>", 1),
    ] {
        let xml = guest("").replace("<memory unit='MiB'>512</memory>", memory);
        assert_eq!(parse(&xml).unwrap().memory_mib, mib, "{memory}");
    }
}

#[test]
fn an_error_names_the_element() {
    let whole = guest("");
    for (from, to, place) in [
        ("<name>web1</name>", "", "<domain><name>"),
        ("<name>web1</name>", "<name>a/b</name>", "<domain><name>"),
        (UUID, "x", "<domain><uuid>"),
        ("<memory unit='MiB'>512</memory>", "", "<domain><memory>"),
        ("'MiB'>512", "'MiB'>-1", "<domain><memory>"),
        ("'MiB'>512", "'MiB'>0", "<domain><memory>"),
        ("'MiB'>512", "'PiB'>5", "<domain><memory unit>"),
        ("'MiB'>512", "'TiB'>18446744073709551615", "<domain><memory>"),
        ("<vcpu>2", "<vcpu>0", "<domain><vcpu>"),
        ("<vcpu>2</vcpu>", "", "<domain><vcpu>"),
        ("domain", "network", "<network>"),
    ] {
        let error = parse(&whole.replace(from, to)).unwrap_err();
        assert!(error.to_string().contains(place), "{from} -> {to}: {error}");
    }
    assert!(matches!(parse("<domain>"), Err(InvalidGuestXml::Syntax(_))));
    assert!(matches!(
        parse("<!DOCTYPE d [<!ENTITY a 'b'>]><domain>&a;</domain>"),
        Err(InvalidGuestXml::Syntax(_))
    ));
}

#[test]
fn disks_and_interfaces_that_can_not_be_read_are_named() {
    for (devices, place) in [
        (rbd("vms", "sda", ""), "<disk dev='sda'><source name>"),
        (rbd("vms/a@b", "sda", ""), "<disk dev='sda'><source name>"),
        (rbd("vms/a", "", ""), "<disk 1><target dev>"),
        (
            rbd("vms/a", "sda", "") + &rbd("vms/b", "sda", ""),
            "<disk 2><target dev>",
        ),
        (rbd("vms/a", "sda", "") + &rbd("vms/a", "sdb", ""), "same volume"),
        (
            rbd("vms/a", "sda", "").replace("'rbd'", "'iscsi'"),
            "<source protocol>",
        ),
        (rbd("vms/a", "sda", "").replace("3300", "x"), "<host port>"),
        (
            "<disk type='dir'><target dev='vda'/></disk>".into(),
            "<disk dev='vda' type>",
        ),
        (
            "<disk type='file'><target dev='vda'/></disk>".into(),
            "<disk dev='vda'><source file>",
        ),
        ("<interface type='user'/>".into(), "<interface 1 type>"),
        (
            "<interface type='bridge'/>".into(),
            "<interface 1><source bridge>",
        ),
        (
            "<interface type='bridge'><source bridge='br0'/><mac address='1:2'/></interface>".into(),
            "<interface 1><mac address>",
        ),
    ] {
        let error = parse(&guest(&format!("<devices>{devices}</devices>"))).unwrap_err();
        assert!(error.to_string().contains(place), "{devices}: {error}");
    }
    let empty_drive = "<devices><disk type='file' device='cdrom'><target dev='sdb'/></disk></devices>";
    assert_eq!(
        parse(&guest(empty_drive)).unwrap().disks[0].source,
        DiskSource::Empty
    );
}

#[test]
fn who_may_write_to_a_volume_is_read_from_its_marks() {
    for (mark, access) in [
        ("", DiskAccess::ReadWrite),
        ("<shareable/>", DiskAccess::Shared),
        ("<readonly/>", DiskAccess::ReadOnly),
        ("<readonly/><shareable/>", DiskAccess::ReadOnly),
    ] {
        let xml = guest(&format!("<devices>{}</devices>", rbd("vms/a", "sda", mark)));
        let guest = parse(&xml).unwrap();
        assert_eq!(guest.volumes().next().unwrap().1, access, "{mark}");
    }
}

fn findings(xml: &str) -> String {
    match check(xml) {
        Ok(_) => String::new(),
        Err(found) => found.to_string(),
    }
}

#[test]
fn what_libvirt_or_a_fence_would_stumble_over_is_refused_with_its_line() {
    let nic = |mac: &str| {
        format!("<interface type='bridge'><mac address='{mac}'/><source bridge='br0'/></interface>")
    };
    assert_eq!(findings(&guest("")), "");
    for (xml, place) in [
        (
            guest("\n<vcpu>4</vcpu>"),
            "<domain><vcpu> is \"4\" (line 2): it must be there only once",
        ),
        // libvirt would open the disks of both.
        (guest("<devices/><devices/>"), "<domain><devices>"),
        (guest("").replace("'kvm'", "'xen'"), "<domain type>"),
        (
            guest("").replace("<domain ", "<domain xmlns='urn:x' "),
            "<domain xmlns>",
        ),
        (guest("").replace("web1", "we<!-- -->b1"), "must hold text alone"),
        (guest("<os><type>xen</type></os>"), "<os><type>"),
        (guest("<on_poweroff>preserve</on_poweroff>"), "<on_poweroff>"),
        (
            guest("").replace("<vcpu>", "<vcpu current='3'>"),
            "<domain><vcpu current>",
        ),
        (
            guest("<cpu><topology sockets='2' cores='2' threads='1'/></cpu>"),
            "make up the 2 vCPUs",
        ),
        (
            guest("<cpu><topology sockets='1' dies='2' cores='2' threads='1'/></cpu>"),
            "<cpu><topology>",
        ),
        (
            guest("<commandline><arg value='-drive'/></commandline>"),
            "<qemu:arg value>",
        ),
        (
            guest("<commandline><arg value='file=rbd:vms/other'/></commandline>"),
            "<qemu:arg value>",
        ),
        (
            guest("<commandline><env name='CEPH_ARGS' value='-m 10.0.0.9'/></commandline>"),
            "<qemu:env name>",
        ),
        (
            guest("<metadata><pvc:resumed xmlns:pvc='urn:pvc:resumed' host='x'/></metadata>"),
            "<metadata>",
        ),
        (
            guest(&format!(
                "<devices>{}</devices>",
                rbd("vms/a", "sda", "<source/>")
            )),
            "<disk dev='sda'><source>",
        ),
        (
            guest(&format!(
                "<devices>{}</devices>",
                rbd("vms/a", "sda", "").replace("</source>", "<snapshot name='s'/></source>")
            )),
            "needs <readonly/>",
        ),
        (
            guest(&format!("<devices>{}</devices>", nic("53:54:00:00:00:01"))),
            "address of a group",
        ),
        (
            guest(&format!("<devices>{0}{0}</devices>", nic("52:54:00:00:00:01"))),
            "<interface 2><mac address>",
        ),
    ] {
        let found = findings(&xml);
        assert!(found.contains(place), "{xml}\n{found}");
        assert!(
            parse(&xml).is_ok(),
            "what is stored already is read all the same: {xml}"
        );
    }
}

#[test]
fn everything_wrong_is_told_at_once() {
    // Else an administrator mends one thing after another, with a request for each.
    let found = findings(
        &guest("<on_poweroff>preserve</on_poweroff><os><type>xen</type></os>").replace("kvm", "xen"),
    );
    assert_eq!(found.matches("(line 1)").count(), 3, "{found}");
    let many = guest(&"<vcpu>1</vcpu>".repeat(3)).replace("</domain>", "<commandline>")
        + &"<arg value='-hda'/>".repeat(15)
        + "</commandline></domain>";
    assert!(findings(&many).ends_with("; and 6 more"), "{}", findings(&many));
}

#[test]
fn storage_beside_the_disks_is_seen() {
    // A node whose guests write elsewhere than to Ceph is not proven harmless by barring its Ceph clients.
    for (device, other) in [
        (
            "<filesystem><source dir='/srv'/><target dir='x'/></filesystem>",
            true,
        ),
        (
            "<filesystem><source dir='/srv'/><target dir='x'/><readonly/></filesystem>",
            false,
        ),
        ("<hostdev mode='subsystem' type='scsi'/>", true),
        ("<hostdev mode='subsystem' type='usb'/>", false),
    ] {
        let guest = parse(&guest(&format!("<devices>{device}</devices>"))).unwrap();
        assert_eq!(guest.other_storage, other, "{device}");
    }
}

#[test]
fn a_device_by_itself_is_read_and_found() {
    let disk = rbd("vms/data", "sdb", "");
    let device = parse_device(&disk).unwrap();
    assert_eq!(device.describe(), "disk sdb (vms/data)");
    assert_eq!(device.volume().unwrap().1, DiskAccess::ReadWrite);
    let with = |devices: &str| guest(&format!("<devices>{devices}</devices>"));
    for (devices, expected) in [
        (String::new(), Some(Attachment::Absent)),
        (disk.clone(), Some(Attachment::Present)),
        // Named differently, the volume would be opened twice; named alike, it is another disk's place.
        (rbd("vms/data", "sdc", ""), None),
        (rbd("vms/other", "sdb", ""), None),
        // What is not known beside it does not matter.
        (
            format!("<disk type='dir'><target dev='vdz'/></disk>{disk}"),
            Some(Attachment::Present),
        ),
    ] {
        let found = device.in_guest(&with(&devices)).unwrap();
        match expected {
            Some(expected) => assert_eq!(found, expected, "{devices}"),
            None => assert!(matches!(found, Attachment::Taken { .. }), "{devices}: {found:?}"),
        }
    }
    for (xml, place) in [
        ("<hostdev/>".to_owned(), "only <disk> and <interface>"),
        (
            "<interface type='bridge'><source bridge='br0'/></interface>".to_owned(),
            "<mac address>",
        ),
        (
            "<interface type='bridge'><source bridge='br0'/><mac address='01:00:5e:00:00:01'/></interface>"
                .to_owned(),
            "address of a group",
        ),
        (rbd("vms/data", "sdb", "<target dev='sdc'/>"), "only once"),
        (rbd("vms/data", "sdb", &" ".repeat(70_000)), "at most 65536"),
        ("<disk".to_owned(), "well-formed"),
    ] {
        let error = parse_device(&xml).unwrap_err().to_string();
        assert!(error.contains(place), "{error}");
    }
}
