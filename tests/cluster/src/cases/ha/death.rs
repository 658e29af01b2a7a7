//! A node loses its power.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_core::fence::Proof;
use pvc_core::fence::ProofKind;
use pvc_lab::guest::Kind;

use super::{
    PATIENCE, audit, fence, make_ready, must_run_elsewhere, start_guests, wait_recovered, wait_returned,
    wait_written,
};
use crate::clock::Moment;
use crate::cluster::{Cluster, near_target};
use crate::guests;
use crate::observer::event::What;
use crate::observer::timeline;

/// From the kill until the last guest's QEMU runs elsewhere.
const RUNS: Duration = Duration::from_secs(15);
/// From the kill until the last guest's first write there.
const WRITES: Duration = Duration::from_secs(20);
/// The same while the BMC does not answer.
const WITHOUT_BMC: Duration = Duration::from_secs(25);
/// How long a guest on a surviving node may find its volume standing still when another node dies.
const STALL: Duration = Duration::from_secs(10);
/// A guest that writes ten times a second has written within this.
const SEEN: Duration = Duration::from_secs(1);
const GUESTS: usize = 3;

/// A node dies that has nothing to do with a guest but an OSD with a part of its volume: the guest waits for Ceph only.
pub(in crate::cases) fn survivor_stall(cluster: &mut Cluster) -> Result<()> {
    let primary = cluster.primary_node()?;
    let victim = cluster.secondary_node()?;
    let guest = guests::define_kind(cluster, Kind::Fast, "stall", &primary)?;
    guest.start(cluster, &primary)?;
    let fault = Moment::now();
    cluster.power_off(&victim)?;
    let osd = u32::from(victim.id().number()) - 1;
    let down = cluster.wait_for("Ceph to notice the death of the OSD", PATIENCE, || {
        Ok(cluster.observer.find(
            Some(fault),
            |what| matches!(what, What::Map { up, .. } if !up.contains(&osd)),
        ))
    })?;
    crate::say(&format!(
        "the OSD is marked down after {:.2} s",
        down.at - fault.seconds()
    ));
    cluster.wait_for("the guest to write again", PATIENCE, || {
        let written = cluster.observer.find(
            Some(Moment::now_less(SEEN)),
            |what| matches!(what, What::Wrote { image, .. } if *image == guest.image),
        );
        Ok(written.filter(|event| event.at > down.at + SEEN.as_secs_f64()))
    })?;
    let stall = timeline::longest_silence(&cluster.observer, &guest.image, fault, Moment::now());
    near_target(
        "standstill of a volume at the death of another node",
        stall,
        STALL,
    )
}

/// A node with guests loses its power, and its BMC says so. The fencer switches it on again: it comes back empty, and its
/// guests can go home.
pub(in crate::cases) fn power_loss(cluster: &mut Cluster) -> Result<()> {
    let victim = cluster.secondary_node()?;
    let guests = start_guests(cluster, &victim, "death", GUESTS)?;
    let begun = Moment::now();
    let fault = Moment::now();
    cluster.power_off(&victim)?;
    let failover = wait_recovered(cluster, &victim, &guests, fault)?;
    must_prove(cluster, &victim, ProofKind::Power)?;
    check(&failover, RUNS, WRITES)?;
    must_run_elsewhere(cluster, &victim, &guests)?;
    // D1: a node that the fencer switches on again finds none of its guests left to start.
    wait_returned(cluster, &victim, &guests)?;
    make_ready(cluster, &victim)?;
    for guest in &guests {
        let moved = Moment::now();
        cluster.pvc(&["vm", "unmigrate", &guest.name])?;
        cluster.wait_for(&format!("{} to be home", guest.name), PATIENCE, || {
            let owner = guest.owner(cluster)?;
            Ok(owner
                .is_some_and(|owner| owner.node.as_str() == victim.name())
                .then_some(()))
        })?;
        wait_written(cluster, guest, moved, PATIENCE)?;
    }
    audit(cluster, begun)
}

/// The BMC loses its power with its node: nobody can tell whether the node is off, so its Ceph clients are barred.
pub(in crate::cases) fn power_loss_dead_bmc(cluster: &mut Cluster) -> Result<()> {
    let victim = cluster.secondary_node()?;
    let guests = start_guests(cluster, &victim, "dead", GUESTS)?;
    let begun = Moment::now();
    cluster.lab.kill_bmc(&victim.name())?;
    let fault = Moment::now();
    cluster.power_off(&victim)?;
    let failover = wait_recovered(cluster, &victim, &guests, fault)?;
    must_prove(cluster, &victim, ProofKind::Storage)?;
    check(&failover, WITHOUT_BMC, WITHOUT_BMC)?;
    must_run_elsewhere(cluster, &victim, &guests)?;
    cluster.lab.start_bmcs()?;
    cluster.power_on(&victim)?;
    wait_returned(cluster, &victim, &guests)?;
    audit(cluster, begun)
}

fn check(failover: &timeline::Failover, runs: Duration, writes: Duration) -> Result<()> {
    let (_, running) = failover.running().context("not every guest runs")?;
    let (_, written) = failover.written().context("not every guest has written")?;
    near_target(
        "last guest running elsewhere",
        Duration::from_secs_f64(running),
        runs,
    )?;
    near_target(
        "last guest's first write",
        Duration::from_secs_f64(written),
        writes,
    )
}

/// The fence rests on a proof of this kind.
pub(super) fn must_prove(cluster: &Cluster, victim: &pvc_lab::Node, kind: ProofKind) -> Result<()> {
    let record = fence(cluster, victim)?.context("there is no record of the fence")?;
    match Proof::recorded(&record) {
        Some(proof) if proof.kind() == kind => Ok(()),
        Some(proof) => bail!("the fence rests on {}, not on {kind}: {record:?}", proof.kind()),
        None => bail!("the fence rests on nothing: {record:?}"),
    }
}
