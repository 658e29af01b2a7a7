//! How long the primary role takes to move and to be taken over, and what the daemons cost while nothing happens.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_common::keys;
use pvc_core::ids::NodeName;
use pvc_core::states::{CoordinatorState, DaemonState};
use pvc_lab::{Lab, Node, wait_for};

use super::Figure;
use crate::agent;
use crate::api::Poller;
use crate::clock::Moment;
use crate::cluster::Cluster;

/// Waits of the bench itself; what takes longer is a fault and no figure.
const PATIENCE: Duration = Duration::from_secs(60);
/// Over how long idle traffic is counted.
const IDLE: Duration = Duration::from_secs(30);
/// How often an agent is started.
const STARTS: usize = 5;

/// How often what is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// Graceful moves of the role.
    pub(crate) moves: u32,
    /// Kills of the primary's node.
    pub(crate) kills: u32,
}

/// What one change of the primary took, in seconds.
#[derive(Debug, Clone, Copy)]
struct Change {
    gap: f64,
    answer: f64,
    primary: f64,
}

/// Measures everything.
pub(crate) fn run(counts: Counts) -> Result<Vec<Figure>> {
    let mut cluster = Cluster::attach()?;
    cluster.restore()?;
    cluster.wait_healthy()?;
    let lab = cluster.lab.clone();
    let load = format!(
        "{} nodes of the lab on one machine, debug builds, no test guests",
        lab.nodes().len()
    );
    // Without our own client, which would count among the others.
    let turn = cluster.look_away();
    let mut figures = idle(&lab, &load)?;
    let cluster = &mut Cluster::observe(turn)?;
    figures.push(agent_starts(cluster, &load)?);

    let mut moves = Vec::new();
    for number in 0..counts.moves {
        crate::say(&format!("move {} of {}", number + 1, counts.moves));
        moves.push(graceful(cluster)?);
    }
    figures.extend(changes(
        &moves,
        [
            "takeover.move_address_gap",
            "takeover.move_api_gap",
            "takeover.move_whole",
        ],
        [0.3, 0.3, 2.0],
        &format!("`pvc node primary`; {load}"),
    ));
    let mut kills = Vec::new();
    for number in 0..counts.kills {
        crate::say(&format!("kill {} of {}", number + 1, counts.kills));
        kills.push(killed(cluster)?);
        cluster.restore()?;
        cluster.wait_healthy()?;
    }
    figures.extend(changes(
        &kills,
        [
            "takeover.kill_address_gap",
            "takeover.kill_api",
            "takeover.kill_primary",
        ],
        [8.0, 8.0, 8.0],
        &format!("power off of the primary's node, from there on; {load}"),
    ));
    Ok(figures)
}

fn changes(changes: &[Change], names: [&'static str; 3], targets: [f64; 3], load: &str) -> Vec<Figure> {
    if changes.is_empty() {
        return Vec::new();
    }
    let values: [fn(&Change) -> f64; 3] = [
        |change| change.gap,
        |change| change.answer,
        |change| change.primary,
    ];
    names
        .into_iter()
        .zip(targets)
        .zip(values)
        .map(|((name, target), value)| Figure {
            name,
            unit: "s",
            values: changes.iter().map(value).collect(),
            target,
            load: load.to_owned(),
        })
        .collect()
}

/// Moves the role by command: gap of the address, longest silence of the API beyond its usual, and the whole move.
fn graceful(cluster: &mut Cluster) -> Result<Change> {
    cluster.wait_healthy()?;
    let from = cluster.wait_primary()?;
    let target = cluster.secondary_node()?;
    let to = NodeName::new(target.name())?;
    let sampler = cluster.sample_role()?;
    let poller = Poller::start("/api/v1/");
    cluster.wait_for("the API to answer", PATIENCE, || {
        Ok((poller.answers() >= 3).then_some(()))
    })?;
    let begun = Moment::now();
    cluster.pvc(&["node", "primary", to.as_str()])?;
    let address = cluster.api_address();
    let up = cluster.wait_for("the address on its new node", PATIENCE, || {
        Ok(cluster.addresses.appeared(address, to.as_str(), begun))
    })?;
    let primary = cluster.wait_for("the new primary", PATIENCE, || {
        Ok(sampler.first_seen(&to, CoordinatorState::Primary, begun))
    })?;
    cluster.wait_for("the API on its new node", PATIENCE, || Ok(poller.first_good(up)))?;
    let down = cluster
        .addresses
        .vanished(address, from.as_str(), begun)
        .with_context(|| format!("{address} did not leave {from}"))?;
    cluster.addresses.must_never_overlap()?;
    Ok(Change {
        gap: up.since(down).as_secs_f64(),
        answer: poller.longest_gap(begun).as_secs_f64(),
        primary: primary.since(begun).as_secs_f64(),
    })
}

/// Takes the power of the primary's node: until the address is elsewhere, until it answers, until the state is primary.
fn killed(cluster: &mut Cluster) -> Result<Change> {
    let primary = cluster.primary_node()?;
    let sampler = cluster.sample_role()?;
    let poller = Poller::start("/api/v1/status/primary_node");
    cluster.wait_for("the API to answer", PATIENCE, || {
        Ok((poller.answers() >= 3).then_some(()))
    })?;
    let begun = Moment::now();
    cluster.power_off(&primary)?;
    let address = cluster.api_address();
    let (heir, up) = cluster.wait_for("another node to have the address", PATIENCE, || {
        Ok(cluster
            .addresses
            .appeared_elsewhere(address, &primary.name(), begun))
    })?;
    let answered = cluster.wait_for("the API on its new node", PATIENCE, || {
        Ok(poller.first_naming(&heir, up))
    })?;
    let heir = NodeName::new(heir)?;
    let said = cluster.wait_for("the new primary", PATIENCE, || {
        Ok(sampler.first_seen(&heir, CoordinatorState::Primary, begun))
    })?;
    cluster.addresses.must_never_overlap()?;
    Ok(Change {
        gap: up.since(begun).as_secs_f64(),
        answer: answered.since(begun).as_secs_f64(),
        primary: said.since(begun).as_secs_f64(),
    })
}

/// Starts a stopped agent: until its node says `run`.
fn agent_starts(cluster: &mut Cluster, load: &str) -> Result<Figure> {
    let node = cluster.secondary_node()?;
    let name = NodeName::new(node.name())?;
    let key = keys::node(&name).daemon_state();
    let mut values = Vec::new();
    for _ in 0..STARTS {
        agent::control(&node, "stop")?;
        if cluster.store.require(&key)?.value != DaemonState::Stop {
            bail!("{name} does not say that its agent has stopped");
        }
        let begun = Moment::now();
        node.exec(&["systemctl", "start", "--no-block", "pvcnoded.service"])?
            .ok()?;
        cluster.wait_for(&format!("{name} to run"), PATIENCE, || {
            Ok((cluster.store.require(&key)?.value == DaemonState::Run).then_some(()))
        })?;
        values.push(begun.elapsed().as_secs_f64());
    }
    cluster.wait_healthy()?;
    Ok(Figure {
        name: "takeover.agent_start_to_run",
        unit: "s",
        values,
        target: 3.0,
        load: load.to_owned(),
    })
}

/// What the daemons and the store do while nothing happens.
fn idle(lab: &Lab, load: &str) -> Result<Vec<Figure>> {
    let before = store_packets(lab)?;
    let begun = Moment::now();
    wait_for("idle traffic to be counted", IDLE + PATIENCE, || {
        Ok((begun.elapsed() >= IDLE).then_some(()))
    })?;
    let packets = (store_packets(lab)? - before) / begun.elapsed().as_secs_f64();
    let mut figures = vec![Figure {
        name: "takeover.store_idle_packets",
        unit: "1/s",
        values: vec![packets],
        target: 20.0,
        load: format!(
            "requests and pings that all servers received over {} s; {load}",
            IDLE.as_secs()
        ),
    }];
    for (program, name, target) in [
        ("pvcnoded", "takeover.pvcnoded_memory", 40.0),
        ("pvcapid", "takeover.pvcapid_memory", 150.0),
    ] {
        let mut values = Vec::new();
        for node in lab.nodes() {
            values.push(resident_mb(node, program)?);
        }
        figures.push(Figure {
            name,
            unit: "MB",
            values,
            target,
            load: load.to_owned(),
        });
    }
    Ok(figures)
}

/// How many packets the servers of the store have received, together.
fn store_packets(lab: &Lab) -> Result<f64> {
    let mut sum = 0.0;
    for node in lab.coordinators() {
        let text = node
            .exec_with_input("mntr", &["nc", "-w", "2", "127.0.0.1", "2181"])?
            .ok()?;
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("zk_packets_received"))
            .with_context(|| format!("ZooKeeper on {} does not count its packets", node.id()))?;
        sum += count.trim().parse::<f64>()?;
    }
    Ok(sum)
}

fn resident_mb(node: &Node, program: &str) -> Result<f64> {
    let unit = format!("{program}.service");
    let text = node
        .exec(&["systemctl", "show", "--value", "--property", "MainPID", &unit])?
        .ok()?;
    let status = node.read_file(&format!("/proc/{}/status", text.trim()))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("{program} does not run on {}", node.id()))?;
    Ok(kib.parse::<f64>()? * 1024.0 / 1e6)
}
