//! What the lab needs of the machine: checked first, installed if it is a Debian package.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cgroup::Cgroup;
use crate::packages::{self, Probe};
use crate::progress::Progress;
use crate::state::Folder;

/// What the lab runs on the machine, what building our daemons needs beside Rust, and the packages that have it.
const NEEDED: [(Probe, &str); 13] = [
    (Probe::Program("debootstrap"), "debootstrap"),
    (Probe::Program("systemd-nspawn"), "systemd-container"),
    (Probe::Program("ip"), "iproute2"),
    (Probe::Program("nft"), "nftables"),
    (Probe::Program("nsenter"), "util-linux"),
    (Probe::Program("unshare"), "util-linux"),
    (Probe::Program("mount"), "mount"),
    (Probe::Program("ipmitool"), "ipmitool"),
    (Probe::Program("curl"), "curl"),
    (Probe::PythonModule("pyghmi.ipmi.bmc"), "python3-pyghmi"),
    (Probe::Program("cc"), "gcc"),
    (Probe::Program("pkg-config"), "pkg-config"),
    (Probe::Library("libvirt"), "libvirt-dev"),
];
/// A base tree, its download cache and three nodes with their OSDs.
const DISK_NEEDED_MIB: u64 = 8 * 1024;
/// Three nodes with ZooKeeper, Ceph, libvirt and a guest.
const MEMORY_NEEDED_MIB: u64 = 4 * 1024;

/// Refuses with all reasons at once if the lab cannot work here.
pub(crate) fn check(folder: &Folder) -> Result<()> {
    let mut reasons = Vec::new();
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the lab makes namespaces, mounts and cgroups and has to be run as root (sudo cargo xtask lab up)"
        );
    }
    if let Err(error) = Cgroup::of_lab() {
        reasons.push(format!("{error:#}"));
    }
    if !folder.root().is_absolute() || !is_mountable(folder.root()) {
        reasons.push(format!(
            "{}: the lab's folder has to be an absolute path of letters, digits and _ . - / (for mount's options)",
            folder.root().display()
        ));
    }
    match free_disk_mib(folder.root()) {
        Ok(free) if free < DISK_NEEDED_MIB => reasons.push(format!(
            "{} has {free} MiB free, the lab needs {DISK_NEEDED_MIB} MiB (PVC_LAB_DIR moves it elsewhere)",
            folder.root().display()
        )),
        Ok(_) => {}
        Err(error) => reasons.push(format!("{error:#}")),
    }
    match std::fs::read_to_string("/proc/meminfo")
        .ok()
        .as_deref()
        .and_then(available_mib)
    {
        Some(free) if free < MEMORY_NEEDED_MIB => {
            reasons.push(format!(
                "{free} MiB of memory are available, the lab needs {MEMORY_NEEDED_MIB} MiB"
            ));
        }
        Some(_) => {}
        None => reasons.push("cannot read /proc/meminfo".into()),
    }
    if !packages::in_path("apt-get") {
        reasons.push("there is no apt-get: the lab is made for Debian 12".into());
    }
    if reasons.is_empty() {
        return Ok(());
    }
    bail!(
        "the lab cannot work on this machine:\n  - {}",
        reasons.join("\n  - ")
    )
}

/// Installs what is missing by apt.
pub(crate) fn install(progress: &mut dyn Progress) -> Result<()> {
    packages::ensure(&NEEDED, progress)
}

/// Whether a path can stand in the options of an overlay mount, where a comma or a colon would end it.
fn is_mountable(path: &Path) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
    path.to_str().is_some_and(|text| text.chars().all(allowed))
}

fn free_disk_mib(path: &Path) -> Result<u64> {
    let existing = path
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(existing)
        .with_context(|| format!("cannot tell the free space of {}", existing.display()))?;
    Ok(stat.f_bavail * stat.f_frsize / (1024 * 1024))
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_a_mount_would_misread_are_refused() {
        assert!(is_mountable(Path::new("/var/lib/pvc-lab")));
        for odd in ["/srv/a:b", "/srv/a,b", "/srv/a b"] {
            assert!(!is_mountable(Path::new(odd)), "{odd}");
        }
    }

    #[test]
    fn reads_available_memory() {
        let text = "MemTotal:       24684680 kB\nMemAvailable:   12345678 kB\n";
        assert_eq!(available_mib(text), Some(12056));
        assert_eq!(available_mib("MemTotal: 1 kB\n"), None);
    }
}
