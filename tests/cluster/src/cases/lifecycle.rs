//! (e), (f), (h): guests live, die and come back.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_core::records::CephClients;
use pvc_core::states::VmState;
use pvc_lab::{Node, wait_for};

use crate::agent;
use crate::clock::Moment;
use crate::cluster::{Cluster, within};
use crate::guests::{self, Guest, START, storage_address};

/// A guest whose process or node died runs again, counted from the moment its agent is there to see it.
const AGAIN: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(90);

/// Whatever an administrator asks of a guest, all who tell about it tell the same afterwards.
pub(super) fn guest_life(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.secondary_node()?;
    let guest = guests::define(cluster, "life", &node)?;
    guest.wait_agreed(cluster, &node, VmState::Stop, START)?;

    guest.start(cluster, &node)?;
    must_own(cluster, &guest, &guest.image, &node)?;
    let first = guest.processes(&node)?;

    cluster.pvc(&["vm", "restart", &guest.name])?;
    wait_for("another process of the guest", PATIENCE, || {
        let now = guest.processes(&node)?;
        Ok((now.len() == 1 && now != first).then_some(()))
    })?;
    guest.wait_agreed(cluster, &node, VmState::Start, START)?;
    guest.wait_ticking(&node, AGAIN)?;

    guest.shut_down(cluster, &node)?;
    let said = node.read_file(&format!("/var/log/libvirt/{}.log", guest.name))?;
    if said.matches("GUEST-BYE").count() != 2 {
        bail!("the guest was not shut down in order by restart and shutdown:\n{said}");
    }
    must_be_free(cluster, &guest)?;

    guest.start(cluster, &node)?;
    cluster.pvc(&["vm", "stop", &guest.name])?;
    guest.wait_agreed(cluster, &node, VmState::Stop, START)?;
    must_be_free(cluster, &guest)?;

    cluster.pvc(&["vm", "disable", &guest.name])?;
    guest.wait_agreed(cluster, &node, VmState::Disable, START)?;
    cluster.pvc(&["vm", "undefine", &guest.name])?;
    if cluster.store.get(&guest.keys().state())?.is_some() {
        bail!("the store still has the guest after undefine");
    }
    Ok(())
}

/// The owner record names the node and every Ceph client that the process has on a volume: else no fence could ever bar
/// it.
pub(super) fn must_own(cluster: &Cluster, guest: &Guest, volume: &str, node: &Node) -> Result<()> {
    let owner = guest.owner(cluster)?.context("nobody owns a guest that runs")?;
    if owner.node.as_str() != node.name() {
        bail!("{} owns a guest that runs on {}", owner.node, node.id());
    }
    let CephClients::Recorded(clients) = &owner.ceph_clients else {
        bail!("a guest runs with its Ceph clients {:?}", owner.ceph_clients)
    };
    let own = storage_address(node);
    for user in guests::users(cluster, volume)? {
        let is_on_record = clients.iter().any(|client| client.to_string() == user.address);
        if user.address.starts_with(&format!("{own}:")) && !is_on_record {
            bail!("{user:?} uses the volume and is not on record: {clients:?}");
        }
    }
    Ok(())
}

fn must_be_free(cluster: &Cluster, guest: &Guest) -> Result<()> {
    wait_for("the guest to be free of owner and lock", PATIENCE, || {
        let has_lock = guest.users(cluster)?.iter().any(|user| user.lock.is_some());
        Ok((guest.owner(cluster)?.is_none() && !has_lock).then_some(()))
    })
}

/// QEMU crashes. Its lock and watcher stay behind, and are its own node's to clear.
pub(super) fn kill_qemu(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.secondary_node()?;
    let guest = guests::define(cluster, "killed", &node)?;
    guest.start(cluster, &node)?;
    let [process] = guest.processes(&node)?[..] else {
        bail!("the guest has not one process")
    };
    if !guest.users(cluster)?.iter().any(|user| user.lock.is_some()) {
        bail!("a guest that writes has no lock: this case would show nothing");
    }
    let killed = Moment::now();
    node.exec(&["kill", "-KILL", &process.to_string()])?.ok()?;
    wait_for("a new process of the guest", PATIENCE, || {
        let now = guest.processes(&node)?;
        Ok((now.len() == 1 && now != [process]).then_some(()))
    })?;
    let started = killed.elapsed();
    guest.wait_ticking(&node, PATIENCE)?;
    within("kill of QEMU to the guest's next write", killed.elapsed(), AGAIN)?;
    crate::say(&format!(
        "its new process was there after {:.2} s",
        started.as_secs_f64()
    ));
    guest.wait_agreed(cluster, &node, VmState::Start, START)
}

/// The server loses its power and comes back: nobody else may clear what its guests left, and it has to.
pub(super) fn power_cycle(cluster: &mut Cluster) -> Result<()> {
    // Its boot takes longer than the silence after which it would be fenced.
    cluster.in_maintenance(cycle_power)
}

fn cycle_power(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.secondary_node()?;
    let guest = guests::define(cluster, "cycled", &node)?;
    guest.start(cluster, &node)?;
    let epoch = guest.owner(cluster)?.context("nobody owns the guest")?.epoch;
    let ticks = guest.ticks(&node)?;
    cluster.power_off(&node)?;
    if !guest.users(cluster)?.iter().any(|user| user.lock.is_some()) {
        bail!("no lock stayed behind: this case would show nothing");
    }
    cluster.power_on(&node)?;
    wait_for("the guest to run again", PATIENCE, || {
        Ok(
            (guest.libvirt_state(&node)?.as_deref() == Some("running") && guest.ticks(&node)? > ticks)
                .then_some(()),
        )
    })
    .with_context(|| format!("reason: {:?}", guest.failed_reason(cluster)))?;
    let runs = Moment::now();
    let stamp = agent::property(&node, "ExecMainStartTimestamp")?;
    let started = systemd_stamp(&stamp)?;
    within(
        "agent's start to the guest's first write",
        runs.since(started),
        AGAIN,
    )?;
    guest.wait_agreed(cluster, &node, VmState::Start, START)?;
    let owner = guest.owner(cluster)?.context("nobody owns the guest")?;
    if owner.epoch <= epoch {
        bail!("the guest was started without a new claim: {owner:?}");
    }
    must_own(cluster, &guest, &guest.image, &node)
}

/// The moment in `Sun 2026-11-22 19:43:00.123456 UTC`.
fn systemd_stamp(text: &str) -> Result<Moment> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        [_, date, time, "UTC"] => Moment::parse(&format!("{date}T{time}")),
        _ => bail!("{text:?} is no time stamp of systemd"),
    }
}

/// An upgrade of our daemons restarts them: guests must not notice.
pub(super) fn agent_restart(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.secondary_node()?;
    let guest = guests::define(cluster, "kept", &node)?;
    guest.start(cluster, &node)?;
    let process = guest.processes(&node)?;
    let before = guest.owner(cluster)?.context("nobody owns the guest")?;
    for verb in ["restart", "kill"] {
        match verb {
            "kill" => agent::signal(&node, agent::Signal::Kill)?,
            _ => agent::control(&node, verb)?,
        }
        cluster.wait_healthy()?;
        wait_for(
            "the guest to be confirmed by the agent's new life",
            PATIENCE,
            || {
                let owner = guest.owner(cluster)?;
                Ok(owner
                    .is_some_and(|owner| owner.incarnation.counter > before.incarnation.counter)
                    .then_some(()))
            },
        )?;
        guest.wait_agreed(cluster, &node, VmState::Start, START)?;
        guest.wait_ticking(&node, AGAIN)?;
        if guest.processes(&node)? != process {
            bail!("after {verb} of the agent the guest has another process");
        }
    }
    let said = node.read_file(&format!("/var/log/libvirt/{}.log", guest.name))?;
    if said.matches("GUEST-UP").count() != 1 {
        bail!("the guest was started more than once:\n{said}");
    }
    must_own(cluster, &guest, &guest.image, &node)
}
