//! A node stands still for a minute and wakes up.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_core::fence::ProofKind;
use pvc_core::states::VmState;

use super::death::must_prove;
use super::{
    PATIENCE, audit, for_a_while, make_ready, must_run_elsewhere, start_guests, wait_recovered,
    wait_returned, wait_written,
};
use crate::clock::Moment;
use crate::cluster::{Cluster, near_target};
use crate::guests;
use crate::observer::event::What;

/// How long the node stands still.
const FROZEN: Duration = Duration::from_secs(60);
/// Ceph's own expiry of a blocklist entry during the case: long over when the node wakes up.
const SHORT_EXPIRY: &str = "15";
/// What Ceph ships with.
const SHIPPED_EXPIRY: &str = "3600";
const RUNS: Duration = Duration::from_secs(25);
/// How long the volumes are watched after the thaw.
const WATCHED: Duration = Duration::from_secs(15);
const GUESTS: usize = 2;

/// The node's BMC is dead, so that it stays as it is; its guests run elsewhere by the storage proof. After a minute it
/// wakes up with the QEMUs of its old life. They have never heard that they are barred, and Ceph's own expiry is over:
/// they must not write all the same.
pub(in crate::cases) fn freeze_and_thaw(cluster: &mut Cluster) -> Result<()> {
    set_expiry(cluster, SHORT_EXPIRY)?;
    let result = freeze(cluster);
    set_expiry(cluster, SHIPPED_EXPIRY)?;
    result
}

fn set_expiry(cluster: &Cluster, seconds: &str) -> Result<()> {
    let node = guests::any_node(cluster)?;
    node.exec(&[
        "ceph",
        "config",
        "set",
        "mon",
        "mon_osd_blocklist_default_expire",
        seconds,
    ])?
    .ok()
    .context("cannot set Ceph's expiry of blocklist entries")?;
    Ok(())
}

fn freeze(cluster: &mut Cluster) -> Result<()> {
    let victim = cluster.secondary_node()?;
    let guests = start_guests(cluster, &victim, "frozen", GUESTS)?;
    let begun = Moment::now();
    let clients: Vec<String> = guests
        .iter()
        .map(|guest| Ok(guest.users(cluster)?.into_iter().map(|user| user.address)))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    cluster.lab.kill_bmc(&victim.name())?;
    // A monitor in a frozen node hears of nothing until the thaw, and would tell it with a wrong time.
    cluster.addresses.end(&victim.name());
    let fault = Moment::now();
    victim.freeze()?;
    let failover = wait_recovered(cluster, &victim, &guests, fault)?;
    let (_, running) = failover.running().context("not every guest runs")?;
    near_target(
        "last guest of a frozen node running elsewhere",
        Duration::from_secs_f64(running),
        RUNS,
    )?;
    must_prove(cluster, &victim, ProofKind::Storage)?;
    must_run_elsewhere(cluster, &victim, &guests)?;
    let left = FROZEN.saturating_sub(fault.elapsed());
    for_a_while(cluster, left, |_| Ok(()))?;
    let listed = guests::any_node(cluster)?
        .exec(&["ceph", "osd", "blocklist", "ls"])?
        .ok()?;
    if let Some(free) = clients.iter().find(|client| !listed.contains(client.as_str())) {
        bail!("the old client {free} is not barred any more:\n{listed}");
    }
    let thawed = Moment::now();
    victim.thaw()?;
    crate::say("the node wakes up");
    // Every breach is the observer's to see: an old boot that writes, a counter that goes back.
    for_a_while(cluster, WATCHED, |cluster| {
        cluster.observer.must_be_clean(Some(begun))
    })?;
    for guest in &guests {
        wait_written(cluster, guest, thawed, PATIENCE)?;
    }
    cluster.wait_for("the old processes to be ended", PATIENCE, || {
        let left = guests
            .iter()
            .map(|guest| guest.processes(&victim))
            .collect::<Result<Vec<_>>>()?;
        Ok(left.iter().all(Vec::is_empty).then_some(()))
    })?;
    let gone = cluster.observer.find(
        Some(thawed),
        |what| matches!(what, What::Ended { process } if process.node == victim.name()),
    );
    if let Some(event) = gone {
        crate::say(&format!(
            "old processes ended {:.2} s after the thaw",
            event.at - thawed.seconds()
        ));
    }
    cluster.lab.start_bmcs()?;
    wait_returned(cluster, &victim, &guests)?;
    must_run_elsewhere(cluster, &victim, &guests)?;
    // Made ready it gets them back, live.
    make_ready(cluster, &victim)?;
    let ready = Moment::now();
    for guest in &guests {
        guest.wait_agreed(cluster, &victim, VmState::Start, PATIENCE)?;
        wait_written(cluster, guest, ready, PATIENCE)?;
    }
    audit(cluster, begun)
}
