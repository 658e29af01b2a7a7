//! Guests for demonstrations and tests: their volumes and their XML.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::ceph::POOL;
use crate::node::Node;
use crate::state::{Accelerator, State, random_uuid};
use crate::topology::Network;

/// Where the base tree has kernel, initial ramdisk and boot sector.
const FILES: &str = "/usr/share/pvc-lab/guest";
/// Making or importing a small volume.
const VOLUME_DEADLINE: Duration = Duration::from_secs(60);

/// What runs in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A small Linux, up in 5 to 10 s without KVM: prints `demo: count N` on its serial console each second after
    /// writing N to sector 1 of its volume in decimal; after a restart it goes on from there.
    Demo,
    /// A program in one boot sector, up in 0.2 s: prints `GUEST-UP`, then `TICK n` each second; `GUEST-BYE` at the power
    /// button. Each tick it writes to its volume how far it has counted (a boot goes on from the one before), a tag of
    /// this boot, and whether anybody else wrote meanwhile: see assets/guest/tiny.asm.
    Tiny,
    /// The same with a tick each 0.11 s: for how long its I/O stands still.
    Fast,
}

/// Where a [`Kind::Tiny`] guest keeps the time between two ticks, and that of a [`Kind::Fast`] one.
const TICK_OFFSET: u32 = 508;
const FAST_TICK: &str = "\\002";

/// A guest that can be given to the API: its XML, and a volume that exists.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Its volume, as `pool/image`.
    pub image: String,
    /// Its domain XML.
    pub xml: String,
}

impl Guest {
    /// File on the node where the guest runs that has all it printed on its serial console.
    #[must_use]
    pub fn console_log(&self) -> String {
        console_log(&self.name)
    }
}

/// Makes the volume of a guest, unless it is there, and its XML with a random UUID. `node` is any node with Ceph's
/// administrator key.
///
/// # Errors
/// If Ceph refuses.
pub fn make(node: &Node, state: &State, kind: Kind, name: &str) -> Result<Guest> {
    let (uuid, image) = (random_uuid()?, format!("{POOL}/{name}_disk0"));
    if !node
        .exec_within(VOLUME_DEADLINE, &["rbd", "info", "--format", "json", &image])?
        .success()
    {
        let tiny = format!("{FILES}/tiny.bin");
        let fast = format!(
            "set -e; f=$(mktemp); cp \"$0\" \"$f\"; printf '{FAST_TICK}' | dd of=\"$f\" bs=1 seek={TICK_OFFSET} conv=notrunc \
             status=none; rbd import --no-progress \"$f\" \"$1\"; rm \"$f\""
        );
        let argv = match kind {
            Kind::Demo => vec!["rbd", "create", "--size", "64M", &image],
            Kind::Tiny => vec!["rbd", "import", "--no-progress", &tiny, &image],
            Kind::Fast => vec!["sh", "-c", &fast, &tiny, &image],
        };
        node.exec_within(VOLUME_DEADLINE, &argv)?
            .ok()
            .with_context(|| format!("cannot make the volume {image}"))?;
    }
    let xml = match kind {
        Kind::Demo => demo_xml(state, name, &uuid, &image),
        Kind::Tiny | Kind::Fast => tiny_xml(state, name, &uuid, &image),
    };
    Ok(Guest {
        name: name.to_owned(),
        uuid,
        image,
        xml,
    })
}

/// Domain XML of a [`Kind::Demo`] guest on the volume `image` (as `pool/image`).
#[must_use]
pub fn demo_xml(state: &State, name: &str, uuid: &str, image: &str) -> String {
    let boot = format!(
        "    <kernel>{FILES}/vmlinuz</kernel>\n    <initrd>{FILES}/initrd</initrd>\n    \
         <cmdline>console=ttyS0 quiet panic=1</cmdline>\n"
    );
    domain(state, name, uuid, image, 192, &boot)
}

/// Domain XML of a [`Kind::Tiny`] guest on the volume `image` (as `pool/image`), which holds its boot sector.
#[must_use]
pub fn tiny_xml(state: &State, name: &str, uuid: &str, image: &str) -> String {
    domain(state, name, uuid, image, 16, "    <boot dev='hd'/>\n")
}

fn domain(state: &State, name: &str, uuid: &str, image: &str, memory_mib: u32, boot: &str) -> String {
    let kind = match state.accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "qemu",
    };
    let secret = &state.secret_uuid;
    let log = console_log(name);
    let hosts: String = state
        .coordinators()
        .map(|node| {
            format!(
                "        <host name='{}' port='3300'/>\n",
                Network::Storage.node_v4(node)
            )
        })
        .collect();
    format!(
        "<domain type='{kind}'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <description>Guest of the lab</description>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
{boot}  </os>
  <features>
    <acpi/>
  </features>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>restart</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' index='0' model='none'/>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none' discard='unmap'/>
      <auth username='libvirt'>
        <secret type='ceph' uuid='{secret}'/>
      </auth>
      <source protocol='rbd' name='{image}'>
{hosts}      </source>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='pty'>
      <log file='{log}' append='on'/>
      <target port='0'/>
    </serial>
    <console type='pty'>
      <target type='serial' port='0'/>
    </console>
    <memballoon model='virtio'/>
  </devices>
</domain>
"
    )
}

fn console_log(name: &str) -> String {
    format!("/var/log/libvirt/{name}.log")
}

/// Tries whether KVM boots a kernel on this machine. Inside some virtual machines the device is there, even boots the
/// tiny guest, and yet no kernel gets through: so nothing less than a kernel is a test.
pub(crate) fn detect_accelerator(node: &Node) -> Result<Accelerator> {
    let script = format!(
        "exec timeout 5 qemu-system-x86_64 -accel kvm -m 192 -display none -monitor none -nodefaults -no-reboot \
         -kernel {FILES}/vmlinuz -initrd {FILES}/initrd -append 'console=ttyS0 quiet panic=-1 demo.probe' \
         -serial stdio </dev/null"
    );
    let output = node.exec(&["sh", "-c", &script])?;
    Ok(if output.stdout.contains("demo: the kernel is up") {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Storage;
    use crate::topology::NodeId;

    #[test]
    fn guests_reach_every_monitor_with_the_labs_secret() {
        let state = State::new("/base".into(), NodeId::first(4), Storage::Ceph).unwrap();
        for xml in [
            demo_xml(&state, "one", "u-1", "vms/one_disk0"),
            tiny_xml(&state, "one", "u-1", "vms/one_disk0"),
        ] {
            assert_eq!(xml.matches("port='3300'").count(), 3, "{xml}");
            assert!(xml.contains(&format!("uuid='{}'", state.secret_uuid)), "{xml}");
            assert!(
                xml.contains("<log file='/var/log/libvirt/one.log' append='on'/>"),
                "{xml}"
            );
        }
    }
}
