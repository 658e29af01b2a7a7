//! (n): a disk is attached to a guest that runs, and taken off again.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_common::keys;
use pvc_core::device_order::DeviceOrderState;
use pvc_core::records::CephClients;
use pvc_core::states::VmState;
use pvc_lab::guest::Kind;
use pvc_lab::{Node, wait_for};

use super::ha::{audit, move_live, wait_written};
use super::lifecycle::must_own;
use crate::agent::{self, Hold, Signal};
use crate::clock::Moment;
use crate::cluster::Cluster;
use crate::guests::{self, Guest, START, storage_address};
use crate::observer::timeline;

const PATIENCE: Duration = Duration::from_secs(90);
/// The demo guest's Linux is up and counts.
const BOOTED: Duration = Duration::from_secs(120);
const DEVICE: &str = "vdb";

/// As an administrator does it: the definition first, then the running guest. A Linux gives the disk back when it is
/// asked to, so this one is attached and detached, twice.
pub(super) fn attach_and_detach(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.secondary_node()?;
    let guest = guests::define_kind(cluster, Kind::Demo, "plug", &node)?;
    let second = guest.second_volume(cluster)?;
    cluster.pvc(&["vm", "start", &guest.name])?;
    guest.wait_agreed(cluster, &node, VmState::Start, START)?;
    guest.wait_counting(&node, BOOTED)?;
    let process = guest.processes(&node)?;

    let (plain, disk) = definitions(cluster, &guest, &second)?;
    for _ in 0..2 {
        define(cluster, &guest, &disk.whole)?;
        order(cluster, &guest, "post", &disk.device)?;
        must_be_attached(cluster, &guest, &node, &second)?;
        guest.wait_counting(&node, PATIENCE)?;

        define(cluster, &guest, &plain)?;
        order(cluster, &guest, "delete", &disk.device)?;
        if has_disk(&guest, &node)? {
            bail!("the disk is still there after its detachment is said to be done");
        }
        wait_for("nobody to use the volume any more", PATIENCE, || {
            Ok(guests::users(cluster, &second)?.is_empty().then_some(()))
        })?;
        guest.wait_counting(&node, PATIENCE)?;
    }
    if guest.processes(&node)? != process {
        bail!("the guest has been started anew meanwhile");
    }
    must_own(cluster, &guest, &guest.image, &node)
}

/// The agent dies with the disk attached and its Ceph client not yet on record. Did the guest run on then, no fence could
/// bar that client; so its vCPUs have to stand still until the agent's next life has put it on record.
pub(super) fn killed_while_attaching(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.secondary_node()?;
    let guest = guests::define(cluster, "plugged", &node)?;
    let second = guest.second_volume(cluster)?;
    guest.start(cluster, &node)?;
    let process = guest.processes(&node)?;
    let (_, disk) = definitions(cluster, &guest, &second)?;
    define(cluster, &guest, &disk.whole)?;

    let hold = Hold::at(&node, "device-attached")?;
    give_order(cluster, &guest, "post", &disk.device)?;
    hold.wait_reached(PATIENCE)?;
    if guest.libvirt_state(&node)?.as_deref() != Some("paused") {
        bail!("the guest runs while the client of its new disk is not on record");
    }
    if !has_disk(&guest, &node)? {
        bail!("the disk is not attached yet: this case would show nothing");
    }
    agent::signal(&node, Signal::Kill)?;
    hold.release()?;
    let ended = wait_for("the agent's next life to end what was begun", PATIENCE, || {
        if guest.libvirt_state(&node)?.as_deref() == Some("running") {
            must_own(cluster, &guest, &guest.image, &node)?;
            must_own(cluster, &guest, &second, &node)?;
        }
        let state = state_of_order(cluster, &guest)?;
        Ok((!state.is_open()).then_some(state))
    })?;
    if ended != DeviceOrderState::Done {
        bail!("the disk was not attached by the agent's next life: {ended:?}");
    }
    must_be_attached(cluster, &guest, &node, &second)?;
    guest.wait_ticking(&node, PATIENCE)?;
    if guest.processes(&node)? != process {
        bail!("the guest has been started anew meanwhile");
    }
    cluster.wait_healthy()
}

/// Live, with a disk that is not in the definition any more, and with one in the definition that the guest does not have yet.
/// The first goes along and its client there is on record; the second is not waited for.
pub(super) fn moved_with_other_disks(cluster: &mut Cluster) -> Result<()> {
    let home = cluster.primary_node()?;
    let away = cluster.secondary_node()?;
    let guest = guests::define(cluster, "mover", &home)?;
    let second = guest.second_volume(cluster)?;
    guest.start(cluster, &home)?;
    let begun = Moment::now();
    wait_written(cluster, &guest, begun, PATIENCE)?;
    let first = timeline::last_record(&cluster.observer, &guest.image).context("it has not written")?;
    let (plain, disk) = definitions(cluster, &guest, &second)?;
    define(cluster, &guest, &disk.whole)?;
    order(cluster, &guest, "post", &disk.device)?;
    must_be_attached(cluster, &guest, &home, &second)?;

    let next = disk
        .whole
        .replace(&second, &format!("{}/next", pvc_lab::ceph::POOL));
    define(cluster, &guest, &next)?;
    for to in [&away, &home] {
        move_live(cluster, &guest, to)?;
        must_be_attached(cluster, &guest, to, &second)?;
    }
    let last = timeline::last_record(&cluster.observer, &guest.image).context("it has not written")?;
    if last.tag != first.tag {
        bail!("the guest was started anew: {first:?}, then {last:?}");
    }
    // The volume is its own for as long as its process may have it open.
    define(cluster, &guest, &plain)?;
    let is_listed = || -> Result<bool> {
        let listed = cluster.store.require(&guest.keys().volumes())?.value.0;
        Ok(listed.iter().any(|volume| volume.to_string() == second))
    };
    if !is_listed()? {
        bail!("another guest could be given the volume that this one has open");
    }
    cluster.pvc(&["vm", "stop", "--yes", &guest.name])?;
    guest.wait_agreed(cluster, &home, VmState::Stop, PATIENCE)?;
    guest.start(cluster, &home)?;
    if is_listed()? {
        bail!("a guest that was started without the volume keeps it from others");
    }
    audit(cluster, begun)
}

/// A definition with a second disk.
struct WithDisk {
    whole: String,
    device: String,
}

/// The guest's definition as it is, and with the volume as a second disk.
fn definitions(cluster: &Cluster, guest: &Guest, volume: &str) -> Result<(String, WithDisk)> {
    let plain = cluster.store.require(&guest.keys().xml())?.value.to_string();
    let begin = plain.find("<disk ").context("the guest has no disk")?;
    let end = plain.find("</disk>").context("the guest has no disk")? + "</disk>".len();
    let first = plain.get(begin..end).context("the guest has no disk")?;
    let device = first.replace(&guest.image, volume).replace("vda", DEVICE);
    let whole = plain.replacen("</disk>", &format!("</disk>{device}"), 1);
    Ok((plain, WithDisk { whole, device }))
}

fn define(cluster: &Cluster, guest: &Guest, xml: &str) -> Result<()> {
    let file = cluster.lab.folder().join(format!("{}.xml", guest.name));
    std::fs::write(&file, xml).with_context(|| format!("cannot write {}", file.display()))?;
    cluster.pvc(&["vm", "modify", "--yes", &guest.name, &file.display().to_string()])?;
    Ok(())
}

fn give_order(cluster: &Cluster, guest: &Guest, method: &str, device: &str) -> Result<()> {
    let path = format!("/vm/{}/device", guest.name);
    cluster.pvc(&["api", method, &path, &format!("xml={device}")])?;
    Ok(())
}

/// Gives the order and waits until it is carried out.
fn order(cluster: &Cluster, guest: &Guest, method: &str, device: &str) -> Result<()> {
    give_order(cluster, guest, method, device)?;
    let ended = wait_for("the device order to be carried out", PATIENCE, || {
        let state = state_of_order(cluster, guest)?;
        Ok((!state.is_open()).then_some(state))
    })?;
    if ended != DeviceOrderState::Done {
        bail!("the order {method} came to {ended:?}");
    }
    Ok(())
}

fn state_of_order(cluster: &Cluster, guest: &Guest) -> Result<DeviceOrderState> {
    let order = cluster.store.require(&keys::device_order(guest.id))?.value;
    Ok(order.context("there is no device order")?.state)
}

fn has_disk(guest: &Guest, node: &Node) -> Result<bool> {
    let disks = node
        .exec(&["virsh", "--quiet", "domblklist", &guest.id.to_string()])?
        .ok()?;
    Ok(disks
        .lines()
        .any(|line| line.split_whitespace().next() == Some(DEVICE)))
}

/// QEMU has the volume open, and each of its clients is on record.
fn must_be_attached(cluster: &Cluster, guest: &Guest, node: &Node, volume: &str) -> Result<()> {
    if !has_disk(guest, node)? {
        bail!("the disk is not there although its attachment is said to be done");
    }
    if guest.libvirt_state(node)?.as_deref() != Some("running") {
        bail!("the guest does not run");
    }
    let own = format!("{}:", storage_address(node));
    let users = guests::users(cluster, volume)?;
    if !users.iter().any(|user| user.address.starts_with(&own)) {
        bail!("nobody on {} has {volume} open: {users:?}", node.id());
    }
    let owner = guest.owner(cluster)?.context("nobody owns the guest")?;
    if !matches!(owner.ceph_clients, CephClients::Recorded(_)) {
        bail!("a guest runs with its Ceph clients {:?}", owner.ceph_clients);
    }
    must_own(cluster, guest, volume, node)
}
