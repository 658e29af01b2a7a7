//! Debian packages that building and testing need: installed when they are missing.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// How to see that a package's content is there.
#[derive(Debug, Clone, Copy)]
enum Probe {
    /// A program in the search path.
    Program(&'static str),
    /// A file.
    File(&'static str),
    /// A library that pkg-config knows.
    Library(&'static str),
}

/// What building and testing need, and the package that has it. The lab looks after its own.
const NEEDED: [(Probe, &str); 9] = [
    (Probe::Program("cc"), "gcc"),
    (Probe::Program("pkg-config"), "pkg-config"),
    (Probe::Library("libvirt"), "libvirt-dev"),
    (Probe::Program("ip"), "iproute2"),
    // The contract tests of the store start servers of their own.
    (Probe::Program("java"), "default-jre-headless"),
    (Probe::File("/usr/share/java/zookeeper.jar"), "libzookeeper-java"),
    (Probe::File("/usr/share/java/slf4j-simple.jar"), "libslf4j-java"),
    (Probe::Program("unshare"), "util-linux"),
    (Probe::Program("nsenter"), "util-linux"),
];

impl Probe {
    fn finds(self) -> bool {
        match self {
            Probe::Program(name) => in_path(name),
            Probe::File(path) => Path::new(path).exists(),
            Probe::Library(name) => Command::new("pkg-config")
                .args(["--exists", name])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
        }
    }
}

/// Whether a program is in the search path or where administrators' programs are.
pub(crate) fn in_path(name: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .any(|folder| Path::new(folder).join(name).exists())
}

/// Installs what is missing and says what.
pub(crate) fn ensure() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        eprintln!("    nothing is missing");
        return Ok(());
    }
    eprintln!("    installing {}", missing.join(" "));
    if !in_path("apt-get") {
        bail!(
            "there is no apt-get to install {} with; this is made for Debian 12",
            missing.join(" ")
        );
    }
    apt(&["-qq", "update"])?;
    let mut install = vec!["-qq", "-y", "--no-install-recommends", "install"];
    install.extend(&missing);
    apt(&install)?;
    let still = self::missing();
    if !still.is_empty() {
        bail!("apt installed {} and yet it is not found", still.join(" "));
    }
    Ok(())
}

fn missing() -> Vec<&'static str> {
    let mut missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(probe, _)| !probe.finds())
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    missing
}

fn apt(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null())
        .status()
        .context("cannot run apt-get")?;
    if !status.success() {
        bail!(
            "`apt-get {}` failed: {status} (are you root?)",
            arguments.join(" ")
        );
    }
    Ok(())
}
