//! Debian packages that this machine needs: installed when what they bring is missing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process::run;
use crate::progress::Progress;

/// Downloading and unpacking a few packages over a slow line.
const DEADLINE: Duration = Duration::from_secs(900);

/// How to see that a package's content is there.
#[derive(Debug, Clone, Copy)]
pub enum Probe {
    /// A program in the search path, or where administrators' programs are.
    Program(&'static str),
    /// A file.
    File(&'static str),
    /// A library that pkg-config knows.
    Library(&'static str),
    /// A module of the system's own Python; another one on the search path does not see Debian's modules.
    PythonModule(&'static str),
}

impl Probe {
    fn finds(self) -> bool {
        match self {
            Probe::Program(name) => in_path(name),
            Probe::File(path) => Path::new(path).exists(),
            Probe::Library(name) => succeeds(&["pkg-config", "--exists", name]),
            Probe::PythonModule(name) => succeeds(&["/usr/bin/python3", "-c", &format!("import {name}")]),
        }
    }
}

fn succeeds(argv: &[&str]) -> bool {
    run(argv).output().is_ok_and(|output| output.success())
}

/// Whether a program is in the search path or where administrators' programs are.
#[must_use]
pub fn in_path(name: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .any(|folder| Path::new(folder).join(name).exists())
}

/// Installs by apt what is missing of `needed`, each with the package that has it.
///
/// # Errors
/// If apt fails, or if what it installed is not found.
pub fn ensure(needed: &[(Probe, &'static str)], progress: &mut dyn Progress) -> Result<()> {
    let missing = missing(needed);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    progress.step(&format!("installing on this machine: {names}"));
    if !in_path("apt-get") {
        bail!("there is no apt-get to install {names} with; this is made for Debian 12");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("only root can install what is missing: apt install {names}");
    }
    apt(&["update"])?;
    let mut arguments = vec!["install", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(&arguments)?;
    let still = self::missing(needed);
    if !still.is_empty() {
        bail!("apt installed {} and yet it is not found", still.join(" "));
    }
    Ok(())
}

fn missing(needed: &[(Probe, &'static str)]) -> Vec<&'static str> {
    let mut missing: Vec<&str> = needed
        .iter()
        .filter(|(probe, _)| !probe.finds())
        .map(|(_, package)| *package)
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut argv = vec!["apt-get", "-qq", "-y"];
    argv.extend(arguments);
    run(&argv)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .within(DEADLINE)
        .ok()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_once_and_only_if_its_content_is_missing() {
        let needed = [
            (Probe::Program("sh"), "dash"),
            (Probe::File("/no/such/file"), "zeta"),
            (Probe::Program("no-such-program"), "alpha"),
            (Probe::File("/no/such/file/either"), "zeta"),
            (Probe::File("/etc/passwd"), "base-passwd"),
        ];
        assert_eq!(missing(&needed), ["alpha", "zeta"]);
    }
}
