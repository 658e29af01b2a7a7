//! (g): a volume that somebody else uses is left to them.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_core::states::VmState;
use pvc_lab::wait_for;

use crate::cluster::Cluster;
use crate::guests::{self, Guest, START, User, storage_address};

const PATIENCE: Duration = Duration::from_secs(40);

/// Another node's lock on the volume of a guest.
pub(super) fn foreign_lock(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.secondary_node()?;
    let other = cluster.primary_node()?;
    let guest = guests::define(cluster, "locked", &node)?;
    other
        .exec(&["rbd", "lock", "add", &guest.image, "somebody-else"])?
        .ok()?;
    let before = guest.users(cluster)?;
    let address = storage_address(&other);
    if !matches!(before.as_slice(), [User { address: by, lock: Some(_) }] if by.starts_with(&format!("{address}:")))
    {
        bail!("the volume has not one lock of {address}: {before:?}");
    }
    must_fail(cluster, &guest, "lock", &address)?;
    if guest.users(cluster)? != before {
        bail!(
            "the start changed who uses the volume: {before:?}, then {:?}",
            guest.users(cluster)?
        );
    }
    // Once the lock is gone the guest starts: what failed was that start and not the guest.
    let Some(User { lock: Some(id), .. }) = before.first() else {
        bail!("there is no lock")
    };
    let locks = guests::json(&other, &["rbd", "lock", "list", "--format", "json", &guest.image])?;
    let locker = locks
        .get(0)
        .and_then(|lock| lock.get("locker"))
        .and_then(|locker| locker.as_str())
        .context("the lock has no locker")?
        .to_owned();
    other
        .exec(&["rbd", "lock", "remove", &guest.image, id, &locker])?
        .ok()?;
    guest.start(cluster, &node)
}

/// Another node's QEMU has the volume open and has not written: there is a watcher, and no lock.
pub(super) fn foreign_watcher(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.secondary_node()?;
    let other = cluster.primary_node()?;
    let guest = guests::define(cluster, "watched", &node)?;
    let drive = format!("file=rbd:{},format=raw,if=virtio", guest.image);
    let mut qemu = other.spawn(&[
        "qemu-system-x86_64",
        "-S",
        "-m",
        "16",
        "-display",
        "none",
        "-nodefaults",
        "-drive",
        &drive,
    ])?;
    let address = storage_address(&other);
    let begins = format!("{address}:");
    wait_for("the other QEMU to watch the volume", PATIENCE, || {
        let users = guest.users(cluster)?;
        Ok(users
            .iter()
            .any(|user| user.lock.is_none() && user.address.starts_with(&begins))
            .then_some(()))
    })?;
    let before = guest.users(cluster)?;
    if before.iter().any(|user| user.lock.is_some()) {
        bail!("the other QEMU has a lock, though it never wrote: {before:?}");
    }
    must_fail(cluster, &guest, "watcher", &address)?;
    if !qemu.is_running()? || guest.users(cluster)? != before {
        bail!(
            "the start disturbed the other QEMU: {before:?}, then {:?}",
            guest.users(cluster)?
        );
    }
    let blocked = other.exec(&["ceph", "osd", "blocklist", "ls"])?.ok()?;
    if before.iter().any(|user| blocked.contains(&user.address)) {
        bail!("the other QEMU was barred:\n{blocked}");
    }
    qemu.stop();
    Ok(())
}

/// Starts the guest and wants it to fail with a reason that names what, whose and where.
fn must_fail(cluster: &Cluster, guest: &Guest, what: &str, address: &str) -> Result<()> {
    cluster.pvc(&["vm", "start", &guest.name])?;
    wait_for("the start to fail", START, || {
        Ok((guest.stored_state(cluster)? == VmState::Fail).then_some(()))
    })
    .with_context(|| format!("reason: {:?}", guest.failed_reason(cluster)))?;
    let reason = guest.failed_reason(cluster)?;
    crate::say(&format!("reason: {reason}"));
    for word in [what, address, &guest.image] {
        if !reason.contains(word) {
            bail!("the reason does not name {word}: {reason}");
        }
    }
    if guest.owner(cluster)?.is_some() {
        bail!("a guest that failed to start is still owned");
    }
    for node in cluster.lab.nodes() {
        if !guest.processes(node)?.is_empty() {
            bail!("a guest that failed to start has a process on {}", node.id());
        }
    }
    let told = guest.described(cluster)?;
    let told = told.get(0).unwrap_or(&told);
    if told.get("failed_reason").and_then(|reason| reason.as_str()) != Some(reason.as_str()) {
        bail!("the API tells another reason: {told}");
    }
    Ok(())
}
