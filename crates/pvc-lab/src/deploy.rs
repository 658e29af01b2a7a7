//! Our daemons on the nodes: programs, units and configuration.
//!
//! The programs are in a folder of this machine that every node has at /usr/lib/pvc-lab/bin; a new build is seen by all
//! of them as soon as it is copied there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::config;
use crate::node::{Node, Power};
use crate::process::last_lines;
use crate::state::{Folder, State, write_file};

/// The daemons: program, and whether it runs on coordinators only.
const DAEMONS: [(&str, Where); 2] = [("pvcnoded", Where::Everywhere), ("pvcapid", Where::Coordinators)];
/// The command line.
const CLI: &str = "pvc";
/// What the daemons hang on.
const TARGET: &str = "pvc.target";
/// Where tests hold daemons (debug builds look there, see docs/development/pause-points.md).
pub const PAUSE_FOLDER: &str = "/run/pvc-pause";
/// What the node agent takes for the GUID of its machine; the BMC answers the same.
const GUID_FILE: &str = "/etc/pvc-lab-machine-guid";
/// An orderly stop hands the primary role over and may take its time.
const RESTART_DEADLINE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Everywhere,
    Coordinators,
}

impl Where {
    fn includes(self, node: &Node) -> bool {
        match self {
            Where::Everywhere => true,
            Where::Coordinators => node.id().is_coordinator(),
        }
    }
}

/// What is deployed.
#[derive(Debug, Clone)]
pub struct Daemons {
    /// Folder with the built programs pvcnoded, pvcapid and pvc.
    pub programs: PathBuf,
    /// Folder with the units, deploy/systemd in the repository.
    pub units: PathBuf,
}

/// Copies the programs to where the nodes and the lab find them.
pub(crate) fn copy_programs(folder: &Folder, daemons: &Daemons) -> Result<()> {
    for (program, _) in DAEMONS {
        copy_program(
            &daemons.programs.join(program),
            &folder.share().join("bin").join(program),
        )?;
    }
    copy_program(&daemons.programs.join(CLI), &folder.share().join("bin").join(CLI))
}

/// By way of a new file: the old one may be running.
fn copy_program(from: &Path, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    let copy = || -> std::io::Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(from, &new)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
        fs::rename(&new, to)
    };
    copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Puts configuration and units on a node; on one that has never run also what has them started at each boot.
pub(crate) fn install(node: &Node, state: &State, daemons: &Daemons) -> Result<()> {
    node.write_file("/etc/pvc/pvc.conf", 0o640, config::render(state))?;
    // A node of the lab takes guests from its first moment.
    node.write_file("/etc/pvc/autoready", 0o644, "")?;
    for (name, text) in units(&daemons.units)? {
        node.write_file(&format!("/lib/systemd/system/{name}"), 0o644, text)?;
    }
    node.write_file(GUID_FILE, 0o444, format!("{}\n", node.id().machine_guid()))?;
    for (program, _) in DAEMONS {
        node.write_file(
            &format!("/etc/default/{program}"),
            0o644,
            format!("PVC_PAUSE_DIR={PAUSE_FOLDER}\nPVC_MACHINE_GUID_FILE={GUID_FILE}\n"),
        )?;
    }
    if node.power() == Power::On {
        return Ok(());
    }
    for (program, place) in DAEMONS {
        node.link(
            &format!("/usr/sbin/{program}"),
            &format!("/usr/lib/pvc-lab/bin/{program}"),
        )?;
        if place.includes(node) {
            let unit = format!("{program}.service");
            node.link(
                &format!("/etc/systemd/system/{TARGET}.wants/{unit}"),
                &format!("/lib/systemd/system/{unit}"),
            )?;
        }
    }
    node.link(&format!("/usr/bin/{CLI}"), &format!("/usr/lib/pvc-lab/bin/{CLI}"))?;
    node.write_file(
        "/etc/tmpfiles.d/pvc-lab.conf",
        0o644,
        format!("d {PAUSE_FOLDER} 0755 root root\n"),
    )?;
    node.enable_unit(TARGET, &format!("/lib/systemd/system/{TARGET}"))
}

/// Every unit in the folder: name and text.
fn units(folder: &Path) -> Result<Vec<(String, String)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot read {}", folder.display()))?
            .path();
        if path
            .extension()
            .is_some_and(|kind| kind == "service" || kind == "target" || kind == "timer")
        {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            found.push((name, text));
        }
    }
    Ok(found)
}

/// Restarts the daemons of a node that is on, and wants them to be ready.
pub(crate) fn restart(node: &Node) -> Result<()> {
    node.exec(&["systemctl", "daemon-reload"])?.ok()?;
    let units = units_of(node);
    let mut argv = vec!["systemctl", "restart"];
    argv.extend(units.iter().map(String::as_str));
    node.exec_within(RESTART_DEADLINE, &argv)?
        .ok()
        .with_context(|| log(node))?;
    Ok(())
}

/// Checks the configuration with the daemon's own eyes, and that the daemons run.
pub(crate) fn check(node: &Node) -> Result<()> {
    let report = node.exec(&["pvcnoded", "--check-config"])?;
    if !report.success() {
        bail!(
            "the lab's configuration does not please pvcnoded:\n{}{}",
            report.stdout,
            report.stderr
        );
    }
    for unit in units_of(node) {
        let state = node.exec(&["systemctl", "is-active", &unit])?;
        if !state.success() {
            bail!(
                "{unit} on {} is {}\n{}",
                node.id(),
                state.stdout.trim(),
                log(node)
            );
        }
    }
    Ok(())
}

fn units_of(node: &Node) -> Vec<String> {
    DAEMONS
        .into_iter()
        .filter(|(_, place)| place.includes(node))
        .map(|(program, _)| format!("{program}.service"))
        .collect()
}

fn log(node: &Node) -> String {
    let output = node.exec(&[
        "journalctl",
        "--unit=pvc*",
        "--lines=20",
        "--output=short-precise",
        "--no-pager",
    ]);
    format!(
        "the log of {} ends with:\n{}",
        node.id(),
        last_lines(output.map(|output| output.stdout).unwrap_or_default().trim(), 20)
    )
}

/// Makes `pvc` for this machine: a folder with a connection to the lab, and a script that uses it.
pub(crate) fn install_cli(folder: &Folder, state: &State) -> Result<()> {
    let (host, port) = ("127.0.0.1", state.api_port);
    let connections = serde_json::json!({
        crate::topology::CLUSTER: {
            "description": "the lab on this machine", "host": host, "port": port, "scheme": "http",
            "api_key": state.api_token,
        }
    });
    let client = folder.cluster().join("client");
    write_file(&client.join("pvc.json"), 0o600, connections.to_string())?;
    let script = format!(
        "#!/bin/sh\n# The `pvc` command, connected to the lab.\nPVC_CLIENT_DIR='{}' PVC_CONNECTION={} exec '{}' \"$@\"\n",
        client.display(),
        crate::topology::CLUSTER,
        folder.share().join("bin").join(CLI).display()
    );
    write_file(&cli(folder), 0o755, script)
}

/// The `pvc` command of this machine, connected to the lab.
pub(crate) fn cli(folder: &Folder) -> PathBuf {
    folder.cluster().join(CLI)
}
