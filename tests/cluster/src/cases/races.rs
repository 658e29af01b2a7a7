//! (i), (j): an agent stands still between a decision and its effect, and wakes up in another world.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_common::keys;
use pvc_common::store::Txn;
use pvc_core::ids::NodeName;
use pvc_core::records::CephClients;
use pvc_core::states::{CoordinatorState, VmState};
use pvc_lab::{Node, wait_for};

use crate::addresses::floating;
use crate::agent::{self, Hold, Signal, Watchdog};
use crate::clock::Moment;
use crate::cluster::Cluster;
use crate::guests::{self, Guest, START};

const REACHED: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(60);
/// Barred for the time of the test run at least.
const BARRED_SECONDS: &str = "86400";
/// How many renewals of its lease show that an agent is awake and has gone through its rounds.
const RENEWALS: u64 = 4;

/// Frozen with the lease checked and the process not yet made.
pub(super) fn frozen_before_create(cluster: &mut Cluster) -> Result<()> {
    cluster.in_maintenance(|cluster| frozen(cluster, "vm-create"))
}

/// Frozen with the paused process made and on record, before it runs.
pub(super) fn frozen_before_resume(cluster: &mut Cluster) -> Result<()> {
    cluster.in_maintenance(|cluster| frozen(cluster, "vm-recorded"))
}

/// The guest is started elsewhere while its first node stands still at `point`. If the first one went on where it
/// stood, the guest would run twice and its volume would be lost.
fn frozen(cluster: &mut Cluster, point: &'static str) -> Result<()> {
    let sleeper = cluster.secondary_node()?;
    agent::set_watchdog(&sleeper, Watchdog::Off)?;
    cluster.wait_healthy()?;
    let heir = cluster.primary_node()?;
    let guest = guests::define(cluster, "race", &sleeper)?;

    let hold = Hold::at(&sleeper, point)?;
    cluster.pvc(&["vm", "start", &guest.name])?;
    hold.wait_reached(REACHED)?;
    agent::signal(&sleeper, Signal::Stop)?;
    recover(cluster, &guest, &sleeper, &heir)?;
    guest.wait_agreed(cluster, &heir, VmState::Start, START)?;
    guest.wait_ticking(&heir, PATIENCE)?;
    crate::say(&format!("it runs on {}; {} wakes up", heir.id(), sleeper.id()));

    let marked = agent::log_mark(&sleeper)?;
    let before = guest.counter(cluster)?;
    hold.release()?;
    agent::signal(&sleeper, Signal::Continue)?;
    // Awake means: its lease is renewed, so its rounds run, and the start that stood still has come to its end.
    wait_renewals(cluster, &sleeper)?;
    wait_for("the start that stood still to be given up", PATIENCE, || {
        if guest.libvirt_state(&sleeper)?.as_deref() == Some("running") {
            bail!("the guest runs on {} and on {}", sleeper.id(), heir.id());
        }
        agent::find_log(&sleeper, &marked, "a guest was not started")
    })?;
    let mut seen = Vec::new();
    wait_for("the first node to have ended what it made", PATIENCE, || {
        if guest.libvirt_state(&sleeper)?.as_deref() == Some("running") {
            bail!("the guest runs on {} and on {}", sleeper.id(), heir.id());
        }
        seen = guest.processes(&sleeper)?;
        Ok(seen.is_empty().then_some(()))
    })
    .with_context(|| format!("processes: {seen:?}"))?;
    if guest.ticks(&sleeper)? > 0 {
        bail!("the guest ran on {} after it was moved away", sleeper.id());
    }
    // What it says in its volume only grows: two writers would set it back.
    guest.wait_ticking(&heir, PATIENCE)?;
    let after = wait_for("the counter in the volume to grow", PATIENCE, || {
        let now = guest.counter(cluster)?;
        if now < before {
            bail!("the counter in the volume went back from {before} to {now}");
        }
        Ok((now > before).then_some(now))
    })?;
    crate::say(&format!("its counter went from {before} to {after}"));
    guest.wait_agreed(cluster, &heir, VmState::Start, START)?;
    let owner = guest.owner(cluster)?.context("nobody owns the guest")?;
    if owner.node.as_str() != heir.name() {
        bail!("{} owns the guest", owner.node);
    }
    Ok(())
}

/// What a recovery with a proof of death does: bars the clients on record, then moves the guest in one transaction.
fn recover(cluster: &Cluster, guest: &Guest, from: &Node, to: &Node) -> Result<()> {
    let keys = guest.keys();
    let owner = cluster.store.require(&keys.owner())?;
    let Some(record) = &owner.value else {
        bail!("nobody owns the guest although its start has begun")
    };
    if record.node.as_str() != from.name() {
        bail!("{} owns the guest, not {}", record.node, from.id());
    }
    if let CephClients::Recorded(clients) = &record.ceph_clients {
        for client in clients {
            to.exec(&[
                "ceph",
                "osd",
                "blocklist",
                "add",
                &client.to_string(),
                BARRED_SECONDS,
            ])?
            .ok()?;
        }
    }
    let node = cluster.store.require(&keys.node())?;
    cluster
        .store
        .commit(Txn::new().set(&keys.owner(), &None, owner.version).set(
            &keys.node(),
            &NodeName::new(to.name())?,
            node.version,
        ))?;
    Ok(())
}

/// Waits until an agent has renewed its lease a few times.
fn wait_renewals(cluster: &Cluster, node: &Node) -> Result<()> {
    let key = keys::lease_node(&NodeName::new(node.name())?);
    let counter = || -> Result<u64> {
        let lease = cluster.store.require(&key)?.value;
        Ok(lease.map_or(0, |lease| lease.counter))
    };
    let before = counter()?;
    cluster.wait_for(
        &format!("{} to renew its lease {RENEWALS} times", node.id()),
        PATIENCE,
        || Ok((counter()? >= before + RENEWALS).then_some(())),
    )
}

/// Held between the decision to refresh an address and the first look at it.
pub(super) fn held_before_refresh(cluster: &mut Cluster) -> Result<()> {
    cluster.in_maintenance(|cluster| held(cluster, "role-refresh"))
}

/// Held after the look, right before the address is set.
pub(super) fn held_within_refresh(cluster: &mut Cluster) -> Result<()> {
    cluster.in_maintenance(|cluster| held(cluster, "role-refresh-set"))
}

/// The kernel takes the addresses off while the agent's thread is held, and another node takes over. If the thread
/// brought its address back when it goes on, two nodes would have it.
fn held(cluster: &mut Cluster, point: &'static str) -> Result<()> {
    let sleeper = cluster.secondary_node()?;
    let name = NodeName::new(sleeper.name())?;
    agent::set_watchdog(&sleeper, Watchdog::Off)?;
    cluster.wait_healthy()?;
    cluster.move_primary(&sleeper)?;

    let begun = Moment::now();
    let hold = Hold::at(&sleeper, point)?;
    hold.wait_reached(REACHED)?;
    let (heir, _) = cluster.wait_for("another node to take over", PATIENCE, || {
        Ok(cluster
            .addresses
            .appeared_elsewhere(cluster.api_address(), name.as_str(), begun))
    })?;
    for address in floating() {
        if cluster.addresses.holders(address).contains(&sleeper.name()) {
            bail!("{address} is still on {} while {heir} takes over", sleeper.id());
        }
    }
    crate::say(&format!("{heir} has taken over; {name} goes on"));
    let released = Moment::now();
    hold.release()?;
    wait_renewals(cluster, &sleeper)?;
    cluster.wait_for(&format!("{name} to know that it is secondary"), PATIENCE, || {
        let states = cluster.coordinator_states()?;
        Ok((states.get(&name) == Some(&CoordinatorState::Secondary)).then_some(()))
    })?;
    for address in floating() {
        if let Some(at) = cluster.addresses.appeared(address, name.as_str(), released) {
            bail!(
                "{address} came back on {name} {:.3} s after it went on",
                at.since(released).as_secs_f64()
            );
        }
    }
    cluster.addresses.must_never_overlap()
}
