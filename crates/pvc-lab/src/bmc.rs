//! The BMCs: one for each node, on the upstream network, alive whatever happens to the node.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::network::{in_switch, switch_argv};
use crate::node::Node;
use crate::process::wait_for;
use crate::service::{self, Tool};
use crate::state::{Folder, State, write_file};

const PROGRAM: &str = include_str!("../assets/bmc.py");
/// User of every BMC.
pub(crate) const USER: &str = "admin";

/// Starts the BMC of each node and waits until it answers.
pub(crate) fn start(folder: &Folder, state: &State, nodes: &[Node], tool: &Tool) -> Result<()> {
    let program = folder.tools().join("bmc.py");
    write_file(&program, 0o644, PROGRAM)?;
    let (program, tool) = (program.display().to_string(), tool.path().display().to_string());
    for node in nodes {
        let (name, address) = (node.name(), node.id().bmc_address().to_string());
        let guid = node.id().machine_guid();
        // A BMC has a processor of its own, which is not busy when its server's and everybody else's are.
        let argv = switch_argv(&[
            "nice",
            "-n",
            "-15",
            "/usr/bin/python3",
            &program,
            &address,
            &name,
            &guid,
            &tool,
        ]);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        service::start(folder, &service_name(node), &argv, |run| {
            run.env("PVC_LAB_BMC_PASSWORD", &state.bmc_password)
        })?;
    }
    for node in nodes {
        wait_for(
            &format!("the BMC of {}", node.id()),
            Duration::from_secs(30),
            || Ok(power_status(state, node)?.is_some().then_some(())),
        )
        .with_context(|| {
            format!(
                "see {}",
                folder.cluster().join(service_name(node) + ".log").display()
            )
        })?;
    }
    Ok(())
}

/// Starts the BMCs anew if those that run are of another build of the lab. One that was killed stays so.
pub(crate) fn refresh(folder: &Folder, state: &State, nodes: &[Node], tool: &Tool) -> Result<()> {
    let present = std::fs::read_to_string(folder.tools().join("bmc.py")).unwrap_or_default();
    if present == PROGRAM {
        return Ok(());
    }
    let mut running = Vec::new();
    for node in nodes {
        if is_running(node)? {
            stop(node)?;
            running.push(node.clone());
        }
    }
    start(folder, state, &running, tool)
}

/// Name of the BMC's cgroup and log.
fn service_name(node: &Node) -> String {
    format!("bmc-{}", node.id())
}

/// Ends the BMC of a node: it answers nothing any more, as if it had lost power with its server.
pub(crate) fn stop(node: &Node) -> Result<()> {
    crate::cgroup::Cgroup::of_lab()?.child(&service_name(node)).kill()
}

/// Whether the BMC of a node runs.
pub(crate) fn is_running(node: &Node) -> Result<bool> {
    service::is_running(&service_name(node))
}

/// What the BMC says of its node's power, asked over the network; none if it does not answer.
fn power_status(state: &State, node: &Node) -> Result<Option<String>> {
    let address = node.id().bmc_address().to_string();
    let argv = [
        "ipmitool", "-I", "lanplus", "-N", "1", "-R", "1", "-H", &address, "-U", USER, "-E", "chassis",
        "power", "status",
    ];
    let output = in_switch(&argv)
        .env("IPMI_PASSWORD", &state.bmc_password)
        .within(Duration::from_secs(10))
        .output()?;
    Ok(output
        .stdout
        .trim()
        .strip_prefix("Chassis Power is ")
        .map(str::to_owned))
}
