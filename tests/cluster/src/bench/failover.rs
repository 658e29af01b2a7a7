//! How long guests are away when their node dies, and when they move.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_core::states::VmState;
use pvc_lab::guest::Kind;
use pvc_lab::{Node, Power, wait_for};

use super::Figure;
use crate::api::Poller;
use crate::cases::ha;
use crate::clock::Moment;
use crate::cluster::Cluster;
use crate::guests::{self, Guest};
use crate::observer::timeline::{self, Failover};

/// Waits of the bench itself; what takes longer is a fault and no figure.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a volume on a surviving node is watched after the last guest of the dead one has written.
const SETTLE: Duration = Duration::from_secs(2);

/// How often what is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// Kills of a node whose BMC answers.
    pub(crate) kills: u32,
    /// Kills of a node together with its BMC.
    pub(crate) dead_bmc: u32,
    /// Kills of the primary.
    pub(crate) primary: u32,
    /// Live migrations.
    pub(crate) moves: u32,
    /// Guests on a node that is killed.
    pub(crate) guests: usize,
}

/// A kind of kill, with the names of its figures and their targets.
struct Scene {
    what: &'static str,
    names: [&'static str; 8],
    /// For guests that run, and for the first write.
    targets: [f64; 2],
}

const WITH_BMC: Scene = Scene {
    what: "power off of a node, its BMC answers",
    names: [
        "failover.detected",
        "failover.proven",
        "failover.given",
        "failover.first_running",
        "failover.last_running",
        "failover.last_written",
        "failover.survivor_stall",
        "failover.api",
    ],
    targets: [15.0, 20.0],
};
const DEAD_BMC: Scene = Scene {
    what: "power off of a node together with its BMC",
    names: [
        "failover.dead_bmc_detected",
        "failover.dead_bmc_proven",
        "failover.dead_bmc_given",
        "failover.dead_bmc_first_running",
        "failover.dead_bmc_last_running",
        "failover.dead_bmc_last_written",
        "failover.dead_bmc_survivor_stall",
        "failover.dead_bmc_api",
    ],
    targets: [25.0, 25.0],
};
const PRIMARY: Scene = Scene {
    what: "power off of the primary's node, its BMC answers",
    names: [
        "failover.primary_detected",
        "failover.primary_proven",
        "failover.primary_given",
        "failover.primary_first_running",
        "failover.primary_last_running",
        "failover.primary_last_written",
        "failover.primary_survivor_stall",
        "failover.primary_api",
    ],
    targets: [15.0, 20.0],
};

/// What one kill took.
struct Kill {
    failover: Failover,
    stall: f64,
    api: f64,
}

/// Measures everything.
pub(crate) fn run(counts: Counts) -> Result<Vec<Figure>> {
    let mut cluster = Cluster::attach()?;
    cluster.restore()?;
    cluster.wait_healthy()?;
    let cluster = &mut cluster;
    let load = format!(
        "{} nodes of the lab on one machine, {} guests on the dead node, one elsewhere",
        cluster.lab.nodes().len(),
        counts.guests
    );
    let mut figures = Vec::new();
    if counts.kills + counts.dead_bmc + counts.primary > 0 {
        let home = cluster.secondary_node()?;
        let mut killed = Vec::new();
        for number in 0..counts.guests {
            killed.push(guests::define(cluster, &format!("bench{number}"), &home)?);
        }
        let survivor = guests::define_kind(cluster, Kind::Fast, "survivor", &home)?;
        for (kind, count) in [
            (WITH_BMC, counts.kills),
            (DEAD_BMC, counts.dead_bmc),
            (PRIMARY, counts.primary),
        ] {
            let mut kills = Vec::new();
            for number in 0..count {
                crate::say(&format!("{}: {} of {count}", kind.what, number + 1));
                kills.push(kill(cluster, &kind, &killed, &survivor)?);
                mend(cluster, &killed, &survivor)?;
            }
            figures.extend(of_kills(&kind, &kills, &load)?);
        }
    }
    if counts.moves > 0 {
        figures.extend(migrations(cluster, counts.moves)?);
    }
    Ok(figures)
}

/// Kills the node that has the guests, and follows them.
fn kill(cluster: &mut Cluster, kind: &Scene, killed: &[Guest], survivor: &Guest) -> Result<Kill> {
    let primary = cluster.primary_node()?;
    let secondary = cluster.secondary_node()?;
    let (victim, other) = if kind.what == PRIMARY.what {
        (primary, secondary)
    } else {
        (secondary, primary)
    };
    for guest in killed {
        place(cluster, guest, &victim)?;
    }
    place(cluster, survivor, &other)?;
    let mut all = killed.to_vec();
    all.push(survivor.clone());
    ha::start_all(cluster, &all)?;
    let poller = Poller::start("/api/v1/status/primary_node");
    cluster.wait_for("the API to answer", PATIENCE, || {
        Ok((poller.answers() >= 3).then_some(()))
    })?;
    if kind.what == DEAD_BMC.what {
        cluster.lab.kill_bmc(&victim.name())?;
    }
    let fault = Moment::now();
    cluster.power_off(&victim)?;
    let failover = ha::wait_recovered(cluster, &victim, killed, fault)?;
    let settled = Moment::now();
    ha::wait_written(cluster, survivor, settled, PATIENCE)?;
    wait_for("the surviving guest to go on", PATIENCE, || {
        Ok((settled.elapsed() > SETTLE).then_some(()))
    })?;
    cluster.addresses.must_never_overlap()?;
    cluster.observer.must_be_clean(None)?;
    Ok(Kill {
        failover,
        stall: timeline::longest_silence(&cluster.observer, &survivor.image, fault, Moment::now())
            .as_secs_f64(),
        api: poller.longest_gap(fault).as_secs_f64(),
    })
}

/// Puts a guest that is stopped on a node.
fn place(cluster: &Cluster, guest: &Guest, node: &Node) -> Result<()> {
    let there = cluster.store.require(&guest.keys().node())?.value;
    if there.to_string() != node.name() {
        cluster.pvc(&["vm", "move", "--target", &node.name(), &guest.name])?;
        cluster.wait_for(&format!("{} to be placed", guest.name), PATIENCE, || {
            let there = cluster.store.require(&guest.keys().node())?.value;
            Ok((there.to_string() == node.name()).then_some(()))
        })?;
    }
    Ok(())
}

/// Stops the guests, and brings the dead node back.
fn mend(cluster: &mut Cluster, killed: &[Guest], survivor: &Guest) -> Result<()> {
    for guest in killed.iter().chain([survivor]) {
        cluster.pvc(&["vm", "stop", &guest.name])?;
    }
    for guest in killed.iter().chain([survivor]) {
        cluster.wait_for(&format!("{} to stop", guest.name), PATIENCE, || {
            let is_free = guest.owner(cluster)?.is_none();
            Ok((is_free && guest.stored_state(cluster)? == VmState::Stop).then_some(()))
        })?;
    }
    cluster.mend_nodes()?;
    if let Some(node) = cluster.lab.nodes().iter().find(|node| node.power() == Power::Off) {
        bail!("{} is still off", node.id());
    }
    Ok(())
}

fn of_kills(kind: &Scene, kills: &[Kill], load: &str) -> Result<Vec<Figure>> {
    if kills.is_empty() {
        return Ok(Vec::new());
    }
    let all = |value: &dyn Fn(&Kill) -> Option<f64>, what: &str| -> Result<Vec<f64>> {
        kills
            .iter()
            .map(|kill| value(kill).with_context(|| format!("{what} was not seen")))
            .collect()
    };
    let [running, written] = kind.targets;
    let values = [
        (all(&|kill| kill.failover.detected, "the suspicion")?, running),
        (all(&|kill| kill.failover.proven, "the proof")?, running),
        (
            all(&|kill| kill.failover.given, "the change of the owners")?,
            running,
        ),
        (all(&|kill| Some(kill.failover.running()?.0), "a guest")?, running),
        (all(&|kill| Some(kill.failover.running()?.1), "a guest")?, running),
        (all(&|kill| Some(kill.failover.written()?.1), "a write")?, written),
        (all(&|kill| Some(kill.stall), "the stall")?, 10.0),
        (all(&|kill| Some(kill.api), "the API")?, 8.0),
    ];
    Ok(kind
        .names
        .into_iter()
        .zip(values)
        .map(|(name, (values, target))| Figure {
            name,
            unit: "s",
            values,
            target,
            load: format!("{}, from there on; {load}", kind.what),
        })
        .collect())
}

/// A guest goes to and fro: from the command until its new node owns it, and how long it did not write.
fn migrations(cluster: &mut Cluster, moves: u32) -> Result<Vec<Figure>> {
    let home = cluster.primary_node()?;
    let away = cluster.secondary_node()?;
    let guest = guests::define_kind(cluster, Kind::Fast, "mover", &home)?;
    guest.start(cluster, &home)?;
    ha::wait_written(cluster, &guest, Moment::now(), PATIENCE)?;
    let (mut whole, mut pauses) = (Vec::new(), Vec::new());
    for number in 0..moves {
        let to = if number % 2 == 0 { &away } else { &home };
        let from = Moment::now();
        whole.push(ha::move_live(cluster, &guest, to)?.as_secs_f64());
        let pause = timeline::longest_silence(&cluster.observer, &guest.image, from, Moment::now());
        pauses.push(pause.as_secs_f64());
    }
    cluster.observer.must_be_clean(None)?;
    let figure = |name, values, target, load: &str| Figure {
        name,
        unit: "s",
        values,
        target,
        load: load.to_owned(),
    };
    Ok(vec![
        figure(
            "failover.migration_whole",
            whole,
            10.0,
            "live migration of a guest of 16 MB, from the command until its new node owns it",
        ),
        figure(
            "failover.migration_pause",
            pauses,
            1.0,
            "the same, longest time between two writes of a guest that writes each 0.11 s",
        ),
    ])
}
