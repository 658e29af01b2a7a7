//! libvirt on every node, with the secret that lets its guests reach their volumes.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::node::Node;
use crate::process::wait_for;
use crate::state::{State, random_uuid};

/// Guests run as root and unconfined: AppArmor, cgroup controllers and device namespaces are the machine's, not the
/// node's.
const QEMU: &str = "user = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nremember_owner = 0\n\
                    security_driver = \"none\"\nsecurity_default_confined = 0\nnamespaces = [ ]\n\
                    cgroup_controllers = [ ]\nseccomp_sandbox = 0\n\
                    migration_address = \"0.0.0.0\"\n";
/// The first question about QEMU makes libvirt probe every emulator: the answer is kept for the first guest.
const WARM_UP: &str = "[Unit]\nDescription=Ask libvirt for its capabilities once, so that the first guest need not wait\n\
                       After=libvirtd.service\nRequires=libvirtd.service\n\n\
                       [Service]\nType=exec\nExecStart=/usr/bin/virsh --quiet capabilities\nStandardOutput=null\n\n\
                       [Install]\nWantedBy=multi-user.target\n";

/// Puts configuration and secret on a node that has never run. `key` is that of `client.libvirt`.
pub(crate) fn install(node: &Node, state: &State, key: Option<&str>) -> Result<()> {
    // The machine's DMI tables say nothing, or the same on every node.
    let daemon = format!(
        "host_uuid = \"{}\"\nunix_sock_group = \"libvirt\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\nauth_tcp = \"none\"\n",
        random_uuid()?
    );
    node.write_file("/etc/libvirt/libvirtd.conf", 0o644, daemon)?;
    node.write_file("/etc/libvirt/qemu.conf", 0o600, QEMU)?;
    // Debian's default makes the daemon leave when idle, and every question after that wait for it.
    node.write_file("/etc/default/libvirtd", 0o644, "LIBVIRTD_ARGS=\"\"\n")?;
    node.enable_unit("libvirtd.service", "/lib/systemd/system/libvirtd.service")?;
    node.link(
        "/etc/systemd/system/sockets.target.wants/libvirtd-tcp.socket",
        "/lib/systemd/system/libvirtd-tcp.socket",
    )?;
    node.install_unit("pvc-lab-libvirt-warm-up.service", WARM_UP)?;
    let Some(key) = key else { return Ok(()) };
    let uuid = &state.secret_uuid;
    let secret = format!(
        "<secret ephemeral='no' private='no'>\n  <uuid>{uuid}</uuid>\n  <usage type='ceph'>\n    \
         <name>client.libvirt secret</name>\n  </usage>\n</secret>\n"
    );
    node.write_file(&format!("/etc/libvirt/secrets/{uuid}.xml"), 0o600, secret)?;
    // Ceph's key is base64 of the secret, which is what libvirt keeps too.
    node.write_file(&format!("/etc/libvirt/secrets/{uuid}.base64"), 0o600, key)
}

/// Waits until libvirt answers on every node.
pub(crate) fn wait_ready(nodes: &[Node]) -> Result<()> {
    for node in nodes {
        wait_for(
            &format!("libvirt on {}", node.id()),
            Duration::from_secs(90),
            || {
                let asked = node.exec_within(Duration::from_secs(10), &["virsh", "--quiet", "list"]);
                Ok(asked.is_ok_and(|output| output.success()).then_some(()))
            },
        )
        .with_context(|| {
            let log = node.exec(&["journalctl", "--unit=libvirtd", "--lines=10", "--output=cat"]);
            format!(
                "its log ends with: {}",
                log.map(|output| output.stdout).unwrap_or_default()
            )
        })?;
    }
    Ok(())
}
