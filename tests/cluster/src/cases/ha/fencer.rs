//! Who fences a node dies, or stands still, in the middle of it. Another one goes on from what is recorded.

use std::time::Duration;

use anyhow::{Context, Result};
use pvc_core::fence::FencePhase;
use pvc_lab::Node;

use super::{audit, fence, must_run_elsewhere, start_guests, wait_recovered, wait_returned};
use crate::agent::{self, Signal, Watchdog};
use crate::clock::Moment;
use crate::cluster::{Cluster, near_target};

/// A fence with one change of the fencer: the other's back-off and the end of the lock's session come on top.
const RUNS: Duration = Duration::from_secs(45);
/// From the death of a node until somebody acts on it.
const ACTS: Duration = Duration::from_secs(60);
const GUESTS: usize = 2;

/// The fencer's agent is killed.
pub(in crate::cases) fn fencer_killed(cluster: &mut Cluster) -> Result<()> {
    interrupt(cluster, "killed", |fencer| agent::signal(fencer, Signal::Kill))
}

/// The fencer's agent stops where it stands, and goes on when another has done its work: it must not do it again.
pub(in crate::cases) fn fencer_stopped(cluster: &mut Cluster) -> Result<()> {
    for node in cluster.lab.nodes().to_vec() {
        agent::set_watchdog(&node, Watchdog::Off)?;
    }
    cluster.wait_healthy()?;
    interrupt(cluster, "stopped", |fencer| agent::signal(fencer, Signal::Stop))
}

/// The BMCs are dead: so the fence takes long enough to be interrupted.
fn interrupt(cluster: &mut Cluster, name: &str, fault_of: impl Fn(&Node) -> Result<()>) -> Result<()> {
    let victim = cluster.secondary_node()?;
    let guests = start_guests(cluster, &victim, name, GUESTS)?;
    let begun = Moment::now();
    // A fencer that stands still falls silent, too. Switched off it would take the store's quorum with it.
    for node in cluster.lab.nodes() {
        cluster.lab.kill_bmc(&node.name())?;
    }
    let fault = Moment::now();
    cluster.power_off(&victim)?;
    let record = cluster.wait_for("the fence to be under way", ACTS, || {
        // Right after the death the store may be without a leader.
        let record = fence(cluster, &victim).ok().flatten();
        // An earlier fence of this node is closed.
        Ok(record.filter(|record| record.is_open() && record.phase != FencePhase::Suspected))
    })?;
    let fencer = cluster.node(record.fencer.as_str())?;
    fault_of(&fencer)?;
    crate::say(&format!(
        "{} {} after {:.2} s in phase {}",
        fencer.id(),
        name,
        fault.elapsed().as_secs_f64(),
        record.phase.word()
    ));
    let failover = wait_recovered(cluster, &victim, &guests, fault)?;
    agent::signal(&fencer, Signal::Continue)?;
    let (_, running) = failover.running().context("not every guest runs")?;
    near_target(
        "last guest running, with an interrupted fencer",
        Duration::from_secs_f64(running),
        RUNS,
    )?;
    cluster.lab.start_bmcs()?;
    if victim.power() == pvc_lab::Power::Off {
        cluster.power_on(&victim)?;
    }
    wait_returned(cluster, &victim, &guests)?;
    must_run_elsewhere(cluster, &victim, &guests)?;
    audit(cluster, begun)
}
