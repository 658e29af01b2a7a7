//! A node is cut off from some of its networks.

use std::time::Duration;

use anyhow::{Context, Result};
use pvc_core::fence::ProofKind;
use pvc_lab::Network;

use super::death::must_prove;
use super::{
    PATIENCE, audit, for_a_while, must_not_have_fenced, must_not_have_stopped, must_run_elsewhere,
    start_guests, wait_recovered, wait_returned, wait_written,
};
use crate::clock::Moment;
use crate::cluster::{Cluster, near_target};

/// Without a BMC: see the targets.
const RUNS: Duration = Duration::from_secs(25);
/// Twice as long as a silent node lives.
const WATCHED: Duration = Duration::from_secs(20);
const GUESTS: usize = 2;

/// From the networks of the store and of Ceph: its guests stand still there, and run elsewhere.
pub(in crate::cases) fn from_cluster_and_storage(cluster: &mut Cluster) -> Result<()> {
    cut(cluster, "cut", &[Network::Cluster, Network::Storage])
}

/// From the network of the store only: its guests write on until they are barred. Nothing but the storage proof keeps
/// them from doing so beside the new ones.
pub(in crate::cases) fn from_cluster(cluster: &mut Cluster) -> Result<()> {
    cut(cluster, "alone", &[Network::Cluster])
}

/// The BMC is dead, else the node would be off before anything could be seen.
fn cut(cluster: &mut Cluster, name: &str, networks: &[Network]) -> Result<()> {
    let victim = cluster.secondary_node()?;
    let guests = start_guests(cluster, &victim, name, GUESTS)?;
    let begun = Moment::now();
    cluster.lab.kill_bmc(&victim.name())?;
    let fault = Moment::now();
    for network in networks {
        cluster.lab.partition(&victim.name(), *network)?;
    }
    let failover = wait_recovered(cluster, &victim, &guests, fault)?;
    let (_, running) = failover.running().context("not every guest runs")?;
    near_target(
        "last guest of a cut-off node running elsewhere",
        Duration::from_secs_f64(running),
        RUNS,
    )?;
    must_prove(cluster, &victim, ProofKind::Storage)?;
    must_run_elsewhere(cluster, &victim, &guests)?;
    let healed = Moment::now();
    cluster.lab.heal()?;
    cluster.lab.start_bmcs()?;
    wait_returned(cluster, &victim, &guests)?;
    for guest in &guests {
        wait_written(cluster, guest, healed, PATIENCE)?;
    }
    audit(cluster, begun)
}

/// From the users' network only: the role moves if it was there, guests go on, and nobody is fenced.
pub(in crate::cases) fn from_upstream(cluster: &mut Cluster) -> Result<()> {
    let victim = cluster.primary_node()?;
    let guests = start_guests(cluster, &victim, "upstream", GUESTS)?;
    let begun = Moment::now();
    cluster.lab.partition(&victim.name(), Network::Upstream)?;
    let name = victim.name();
    cluster.wait_for("another node to be primary", PATIENCE, || {
        Ok(cluster
            .primary()?
            .filter(|primary| primary.as_str() != name)
            .map(|_| ()))
    })?;
    crate::say(&format!(
        "another node is primary after {:.2} s",
        begun.elapsed().as_secs_f64()
    ));
    for_a_while(cluster, WATCHED, |cluster| {
        must_not_have_fenced(cluster, begun)?;
        must_not_have_stopped(cluster, &guests, begun)
    })?;
    let healed = Moment::now();
    cluster.lab.heal()?;
    for guest in &guests {
        wait_written(cluster, guest, healed, PATIENCE)?;
    }
    must_not_have_stopped(cluster, &guests, begun)?;
    audit(cluster, begun)
}
