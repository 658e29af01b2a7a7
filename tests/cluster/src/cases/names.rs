//! (k): two nodes configured with one name.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_common::keys;
use pvc_core::ids::NodeName;
use pvc_core::states::DaemonState;
use pvc_lab::{Node, wait_for};

use crate::agent;
use crate::cluster::Cluster;

const CONFIG: &str = "/etc/pvc/pvc.conf";
const PATIENCE: Duration = Duration::from_secs(60);
/// How many renewals of the rightful node the other one must not disturb.
const RENEWALS: u64 = 5;

/// A server cloned with its host name: the second must stay out, or two agents act for one node.
pub(super) fn two_of_one_name(cluster: &mut Cluster) -> Result<()> {
    let rightful = cluster.secondary_node()?;
    let other = cluster
        .lab
        .nodes()
        .iter()
        .find(|node| node.id() != rightful.id() && !is_primary(cluster, node))
        .cloned()
        .context("there is no third node")?;
    let config = other.read_file(CONFIG)?;
    let result = pretend(cluster, &rightful, &other, &config);
    // Whatever came of it, the node gets its own name back.
    other.exec(&["hostname", &other.name()])?.ok()?;
    other.write_file(CONFIG, 0o640, &config)?;
    agent::control(&other, "stop")?;
    other.exec(&["systemctl", "reset-failed", "pvcnoded.service"])?;
    agent::control(&other, "start")?;
    result
}

fn is_primary(cluster: &Cluster, node: &Node) -> bool {
    cluster
        .primary()
        .is_ok_and(|primary| primary.is_some_and(|primary| primary.as_str() == node.name()))
}

fn pretend(cluster: &Cluster, rightful: &Node, other: &Node, config: &str) -> Result<()> {
    let name = NodeName::new(rightful.name())?;
    let key = keys::lease_node(&name);
    let before = cluster
        .store
        .require(&key)?
        .value
        .context("the rightful node has no lease")?;
    agent::control(other, "stop")?;
    // Its bridges keep their own addresses: the case is about names.
    let quiet = config.replace("enable_networking: yes", "enable_networking: no");
    other.write_file(CONFIG, 0o640, quiet)?;
    other.exec(&["hostname", &rightful.name()])?.ok()?;
    let marked = agent::log_mark(other)?;
    // It may come up and refuse, or refuse to come up: systemd's view of it is not the point.
    other.exec_within(
        PATIENCE,
        &["systemctl", "start", "--no-block", "pvcnoded.service"],
    )?;
    let reason = format!("is registered as {name} and alive: two nodes have the same name");
    let line = agent::wait_log(other, &marked, &reason, PATIENCE)?;
    crate::say(&format!("it says: {line}"));
    wait_for("the rightful node to renew its lease", PATIENCE, || {
        let lease = cluster.store.require(&key)?.value.context("the lease is gone")?;
        if lease.incarnation != before.incarnation {
            bail!(
                "the lease of {name} has changed hands: {} to {}",
                before.incarnation,
                lease.incarnation
            );
        }
        Ok((lease.counter >= before.counter + RENEWALS).then_some(()))
    })?;
    let state = cluster.store.require(&keys::node(&name).daemon_state())?.value;
    if state != DaemonState::Run {
        bail!("{name} says {state}");
    }
    Ok(())
}
