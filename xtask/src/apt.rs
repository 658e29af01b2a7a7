//! Debian packages that building and testing need: installed when they are missing.

use anyhow::Result;
use pvc_lab::Lines;
use pvc_lab::packages::{self, Probe};

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

/// Installs what is missing and says what.
pub(crate) fn ensure() -> Result<()> {
    packages::ensure(&NEEDED, &mut Lines::new())
}
