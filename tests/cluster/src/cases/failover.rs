//! (d): the primary ends without a word, in four ways; another answers within 8 s each time.

use std::time::Duration;

use anyhow::{Context, Result};
use pvc_lab::Node;

use crate::addresses::floating;
use crate::agent::{self, Signal, Watchdog};
use crate::api::Poller;
use crate::clock::Moment;
use crate::cluster::{Cluster, within};

/// From the fault to the first good answer of another node on the floating address.
const ANSWERS: Duration = Duration::from_secs(8);
/// ExecStopPost has this long to take the addresses off.
const DROPPED: Duration = Duration::from_secs(1);
/// How long is waited for what has to be there after 8 s: to be able to say how late it was.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a fault led to.
#[derive(Debug, Clone)]
pub(crate) struct Takeover {
    /// The fault.
    pub(crate) at: Moment,
    /// The node that took over.
    pub(crate) heir: String,
    /// From the fault until the heir had the API's address.
    pub(crate) address: Duration,
    /// From the fault until the API answered on it.
    pub(crate) answer: Duration,
}

/// Lets the fault happen to the primary and waits until another node answers in its place.
pub(crate) fn take_over(
    cluster: &mut Cluster,
    primary: &Node,
    fault: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<Takeover> {
    let poller = Poller::start("/api/v1/status/primary_node");
    cluster.wait_for("the API to answer before the fault", PATIENCE, || {
        Ok((poller.answers() > 0).then_some(()))
    })?;
    let at = Moment::now();
    fault(cluster)?;
    let address = cluster.api_address();
    let (heir, up) = cluster.wait_for("another node to have the API's address", PATIENCE, || {
        Ok(cluster.addresses.appeared_elsewhere(address, &primary.name(), at))
    })?;
    let answered = cluster.wait_for("the API to answer on its new node", PATIENCE, || {
        Ok(poller.first_naming(&heir, up))
    })?;
    let takeover = Takeover {
        at,
        heir,
        address: up.since(at),
        answer: answered.since(at),
    };
    crate::say(&format!(
        "{} for {}: address after {:.2} s",
        takeover.heir,
        primary.name(),
        takeover.address.as_secs_f64()
    ));
    Ok(takeover)
}

/// The agent crashes. Its addresses must not stay behind, or two nodes have them until somebody comes by.
pub(super) fn kill_agent(cluster: &mut Cluster) -> Result<()> {
    let primary = cluster.primary_node()?;
    let takeover = take_over(cluster, &primary, |_| agent::signal(&primary, Signal::Kill))?;
    for address in floating() {
        let gone = cluster
            .addresses
            .vanished(address, &primary.name(), takeover.at)
            .with_context(|| format!("{address} is still on {}", primary.name()))?;
        if gone.since(takeover.at) > DROPPED {
            within(
                &format!("{address} off the dead agent's node"),
                gone.since(takeover.at),
                DROPPED,
            )?;
        }
    }
    within("kill of the agent to an answer", takeover.answer, ANSWERS)
}

/// The agent stands still and systemd does not help: the kernel alone has to take the addresses off.
pub(super) fn freeze_agent(cluster: &mut Cluster) -> Result<()> {
    cluster.in_maintenance(freeze_the_primary)
}

fn freeze_the_primary(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.secondary_node()?;
    agent::set_watchdog(&node, Watchdog::Off)?;
    cluster.wait_healthy()?;
    cluster.move_primary(&node)?;
    let takeover = take_over(cluster, &node, |_| agent::signal(&node, Signal::Stop))?;
    cluster.addresses.must_never_overlap()?;
    within("freeze of the agent to an answer", takeover.answer, ANSWERS)?;
    // Awake again it must not take anything back: that it is no primary any more is the first thing it has to learn.
    agent::signal(&node, Signal::Continue)?;
    cluster.wait_healthy()?;
    cluster.addresses.must_never_overlap()
}

/// The server loses its power.
pub(super) fn power_off(cluster: &mut Cluster) -> Result<()> {
    let leader = cluster
        .lab
        .zookeeper_leader()?
        .context("ZooKeeper has no leader")?;
    let primary = cluster
        .lab
        .nodes()
        .iter()
        .find(|node| node.id() != leader.id())
        .cloned()
        .context("there is one node only")?;
    lose_power(cluster, &primary, "power off to an answer")
}

/// The server that loses its power leads ZooKeeper, too: nobody can claim anything until a new leader is elected.
pub(super) fn power_off_leader(cluster: &mut Cluster) -> Result<()> {
    let leader = cluster
        .lab
        .zookeeper_leader()?
        .context("ZooKeeper has no leader")?;
    lose_power(cluster, &leader, "power off with ZooKeeper's leader to an answer")
}

fn lose_power(cluster: &mut Cluster, primary: &Node, what: &str) -> Result<()> {
    cluster.move_primary(primary)?;
    let takeover = take_over(cluster, primary, |cluster| cluster.power_off(primary))?;
    within(what, takeover.answer, ANSWERS)
}
