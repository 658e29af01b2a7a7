//! What the lab needs of the machine: checked first, installed if it is a Debian package.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cgroup::Cgroup;
use crate::process::run;
use crate::progress::Progress;
use crate::state::Folder;

/// A program the lab runs on the machine, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 9] = [
    ("debootstrap", "debootstrap"),
    ("systemd-nspawn", "systemd-container"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("ipmitool", "ipmitool"),
    ("curl", "curl"),
];
/// What building our daemons needs beside Rust: a program or pkg-config module, and its package.
const BUILD: [(&str, &str); 2] = [("cc", "gcc"), ("pkg-config", "pkg-config")];
/// A library that the node agent links.
const LIBRARY: (&str, &str) = ("libvirt", "libvirt-dev");
/// A module that the BMCs import, and its package.
const PYTHON_MODULE: (&str, &str) = ("pyghmi.ipmi.bmc", "python3-pyghmi");
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
    if !Path::new("/usr/bin/apt-get").exists() {
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
    let missing = missing_packages();
    if missing.is_empty() {
        return Ok(());
    }
    progress.step(&format!("installing on this machine: {}", missing.join(" ")));
    apt(&["update"])?;
    let mut arguments = vec!["install", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(&arguments)?;
    let still = missing_packages();
    if !still.is_empty() {
        bail!("apt installed {} and yet they do not work", still.join(" "));
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut argv = vec!["apt-get", "-qq", "-y"];
    argv.extend(arguments);
    run(&argv)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .within(Duration::from_secs(600))
        .ok()?;
    Ok(())
}

fn missing_packages() -> Vec<&'static str> {
    let mut missing: Vec<&str> = PROGRAMS
        .iter()
        .chain(&BUILD)
        .filter(|(program, _)| !is_installed(program))
        .map(|(_, package)| *package)
        .collect();
    let (module, package) = PYTHON_MODULE;
    // The system's own python: another one on the PATH does not see Debian's modules.
    let found = run(&["/usr/bin/python3", "-c", &format!("import {module}")]).output();
    if !found.is_ok_and(|output| output.success()) {
        missing.push(package);
    }
    let (module, package) = LIBRARY;
    if !run(&["pkg-config", "--exists", module])
        .output()
        .is_ok_and(|output| output.success())
    {
        missing.push(package);
    }
    missing.dedup();
    missing
}

/// Whether a path can stand in the options of an overlay mount, where a comma or a colon would end it.
fn is_mountable(path: &Path) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
    path.to_str().is_some_and(|text| text.chars().all(allowed))
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .any(|folder| Path::new(folder).join(program).exists())
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
