//! How a lab is built, from the switch to the guest that shows that all of it works.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cgroup::Cgroup;
use crate::deploy::{self, Daemons};
use crate::lab::{DEMO, Lab, Options};
use crate::node::Node;
use crate::process::wait_for;
use crate::progress::Progress;
use crate::service::Tool;
use crate::state::{Folder, Installed, Phase, Storage, write_file};
use crate::{base, bmc, ceph, forward, guest, libvirt, network, node, zookeeper};

/// From the daemons' start until one of them is primary and the API says so.
const PRIMARY_DEADLINE: Duration = Duration::from_secs(60);
/// From the order to start the guest until it writes to its volume; half a minute of TCG on a busy machine.
const GUEST_DEADLINE: Duration = Duration::from_secs(120);

impl Lab {
    /// Builds everything of a lab whose state has just been written.
    pub(crate) fn build(&mut self, options: &Options, progress: &mut dyn Progress) -> Result<()> {
        progress.step("making the switch, the BMCs and the way to the API");
        network::create(&self.state.nodes)?;
        let tool = Tool::install(&self.folder, options.xtask.as_deref())?;
        self.state.api_port = forward::start(&self.folder, &tool)?;
        self.state.api_url = format!("http://127.0.0.1:{}", self.state.api_port);
        self.state.write(&self.folder)?;

        let names: Vec<String> = self.nodes.iter().map(Node::name).collect();
        progress.step(&format!("booting {}", names.join(", ")));
        self.install_nodes(options.daemons.as_ref())?;
        self.power_on_all()?;
        // Not before the nodes are on: what asks for their power must not find them off.
        bmc::start(&self.folder, &self.state, &self.nodes, &tool)?;
        progress.step("waiting for ZooKeeper");
        zookeeper::wait_ready(&self.coordinators())?;
        if let (Storage::Ceph, [first, second, ..]) = (self.state.storage, self.nodes.as_slice()) {
            progress.step("waiting for Ceph, trying whether KVM works here");
            self.state.accelerator = thread::scope(|scope| {
                let probe = scope.spawn(|| guest::detect_accelerator(second));
                ceph::wait_ready(first, &self.state)?;
                probe
                    .join()
                    .unwrap_or_else(|_| bail!("the thread that tries KVM ended early"))
            })?;
        }
        progress.step("waiting for libvirt");
        libvirt::wait_ready(&self.nodes)?;
        if self.state.daemons == Installed::Yes {
            progress.step("waiting for the daemons and for a primary");
            for node in &self.nodes {
                deploy::check(node)?;
            }
            self.wait_primary()?;
        }
        self.state.phase = Phase::Ready;
        self.state.write(&self.folder)
    }

    /// Writes everything that makes a node this node; none of them has run yet.
    fn install_nodes(&mut self, daemons: Option<&Daemons>) -> Result<()> {
        if let Some(daemons) = daemons {
            deploy::copy_programs(&self.folder, daemons)?;
            deploy::install_cli(&self.folder, &self.state)?;
            self.state.daemons = Installed::Yes;
            self.state.write(&self.folder)?;
        }
        let share = self.folder.share();
        write_file(&share.join("network-up"), 0o755, node::NETWORK_UP)?;
        write_file(&share.join("ceph-prepare"), 0o755, ceph::PREPARE)?;
        let keys = match self.state.storage {
            Storage::Ceph => Some(ceph::Keys::new(&self.state)?),
            Storage::None => None,
        };
        for node in &self.nodes {
            node.create(&self.state)?;
            if node.id().is_coordinator() {
                zookeeper::install(node, &self.state)?;
            }
            if let Some(keys) = &keys {
                ceph::install(node, &self.state, keys)?;
            }
            libvirt::install(node, &self.state, keys.as_ref().map(ceph::Keys::libvirt))?;
            if let Some(daemons) = daemons {
                deploy::install(node, &self.state, daemons)?;
            }
        }
        Ok(())
    }

    /// Nodes boot side by side: most of a boot is waiting.
    fn power_on_all(&self) -> Result<()> {
        thread::scope(|scope| {
            let boots: Vec<_> = self
                .nodes
                .iter()
                .map(|node| scope.spawn(|| node.power_on()))
                .collect();
            for boot in boots {
                match boot.join() {
                    Ok(result) => drop(result?),
                    Err(_) => bail!("a thread that boots a node ended early"),
                }
            }
            Ok(())
        })
    }

    /// Waits until the API on the floating address knows a primary.
    fn wait_primary(&self) -> Result<()> {
        let mut last = String::new();
        wait_for(
            "the API to answer and to name a primary",
            PRIMARY_DEADLINE,
            || {
                let output = self.pvc(&["--quiet", "node", "list", "--format", "json"])?;
                last = format!("{}{}", output.stdout, output.stderr);
                Ok(names_a_primary(&output.stdout).then_some(()))
            },
        )
        .with_context(|| format!("the last answer was: {}", last.trim()))
    }

    /// Makes the demo guest through the API, starts it and waits until it counts on its volume. Gives the line of its
    /// console that says so.
    ///
    /// # Errors
    /// If the API refuses or the guest does not come up.
    pub fn start_demo(&self, progress: &mut dyn Progress) -> Result<String> {
        progress.step(&format!(
            "defining and starting the guest `{DEMO}` through the API"
        ));
        let guest = self.make_guest(guest::Kind::Demo, DEMO)?;
        let file = self.folder.cluster().join("demo.xml");
        write_file(&file, 0o644, &guest.xml)?;
        self.pvc(&["vm", "define", &file.display().to_string()])?
            .ok()
            .context("cannot define the guest")?;
        self.pvc(&["vm", "start", DEMO])?
            .ok()
            .context("cannot start the guest")?;
        progress.step("waiting for its console");
        wait_for("the guest to count on its volume", GUEST_DEADLINE, || {
            for node in &self.nodes {
                let argv = [
                    "grep",
                    "--text",
                    "--max-count=1",
                    "demo: count",
                    &guest.console_log(),
                ];
                let found = node.exec(&argv)?;
                if found.success() {
                    return Ok(Some(format!("{}: {}", node.id(), found.stdout.trim())));
                }
            }
            Ok(None)
        })
        .with_context(|| match self.pvc(&["vm", "info", DEMO]) {
            Ok(output) => format!("pvc says of it:\n{}{}", output.stdout, output.stderr),
            Err(error) => format!("{error:#}"),
        })
    }
}

/// Whether a list of nodes from the API has one whose coordinator state is `primary`.
fn names_a_primary(nodes: &str) -> bool {
    let Ok(serde_json::Value::Array(nodes)) = serde_json::from_str(nodes) else {
        return false;
    };
    nodes
        .iter()
        .any(|node| node.get("coordinator_state").and_then(|state| state.as_str()) == Some("primary"))
}

/// Removes whatever there is of a lab, known or not: names are fixed, so nothing has to be remembered.
pub(crate) fn remove_everything(folder: &Folder, progress: &mut dyn Progress) -> Result<()> {
    let cgroup = Cgroup::of_lab()?;
    let cluster = folder.cluster();
    if !cgroup.path().exists() && !cluster.exists() && !network::exists() {
        return Ok(());
    }
    progress.step("removing the lab's processes, networks and files");
    cgroup.remove()?;
    network::remove()?;
    base::remove_tree(&cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_ready_only_with_a_primary() {
        let secondary = r#"[{"name": "hv1", "coordinator_state": "secondary"}]"#;
        assert!(!names_a_primary(secondary));
        assert!(!names_a_primary(&secondary.replace("secondary", "takeover")));
        assert!(names_a_primary(&secondary.replace("secondary", "primary")));
        assert!(!names_a_primary("no such API"));
    }
}
