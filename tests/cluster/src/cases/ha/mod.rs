//! (l): nodes die, freeze and are cut off while guests run. The observer looks on from outside.

mod death;
mod fencer;
mod freeze;
mod migration;
mod partition;
mod quorum;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_common::keys;
use pvc_core::fence::FenceRecord;
use pvc_core::ids::NodeName;
use pvc_core::states::{DaemonState, DomainState, VmState};
use pvc_lab::guest::Kind;
use pvc_lab::{Node, Power};

use crate::clock::Moment;
use crate::cluster::Cluster;
use crate::guests::{self, Guest};
use crate::observer::event::What;
use crate::observer::timeline::{self, Failover, Followed};

pub(super) use death::{power_loss, power_loss_dead_bmc, survivor_stall};
pub(super) use fencer::{fencer_killed, fencer_stopped};
pub(super) use freeze::freeze_and_thaw;
pub(super) use migration::back_and_forth;
pub(crate) use migration::move_live;
pub(super) use partition::{from_cluster, from_cluster_and_storage, from_upstream};
pub(super) use quorum::two_servers_down;

/// Until a guest that was started has written, on busy cores.
const STARTED: Duration = Duration::from_secs(60);
/// How long is waited for what has to be there much earlier: to be able to say how late it was.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// A node's boot, its registration, and the end of its fence.
const RETURNED: Duration = Duration::from_secs(180);

/// Defines tiny guests on a node, starts them, and waits until each has written.
pub(crate) fn start_guests(cluster: &Cluster, on: &Node, name: &str, count: usize) -> Result<Vec<Guest>> {
    let mut started = Vec::new();
    for number in 0..count {
        started.push(guests::define_kind(
            cluster,
            Kind::Tiny,
            &format!("{name}{number}"),
            on,
        )?);
    }
    start_all(cluster, &started)?;
    Ok(started)
}

/// Starts guests that are defined, and waits until each has written.
pub(crate) fn start_all(cluster: &Cluster, guests: &[Guest]) -> Result<()> {
    let begun = Moment::now();
    for guest in guests {
        cluster.pvc(&["vm", "start", &guest.name])?;
    }
    for guest in guests {
        wait_written(cluster, guest, begun, STARTED)?;
    }
    Ok(())
}

/// Waits until the observer has seen a record of a guest's that is younger than that.
pub(crate) fn wait_written(
    cluster: &Cluster,
    guest: &Guest,
    since: Moment,
    deadline: Duration,
) -> Result<()> {
    cluster.wait_for(&format!("{} to write", guest.name), deadline, || {
        let found = cluster.observer.find(
            Some(since),
            |what| matches!(what, What::Wrote { image, record, .. } if *image == guest.image && record.n > 0),
        );
        Ok(found.map(|_| ()))
    })
}

/// What the observer knows the guests by.
pub(crate) fn followed(guests: &[Guest]) -> Vec<Followed> {
    guests.iter().map(Guest::followed).collect()
}

/// Waits until every guest has been given to another node and has written there.
pub(crate) fn wait_recovered(
    cluster: &Cluster,
    victim: &Node,
    guests: &[Guest],
    fault: Moment,
) -> Result<Failover> {
    let followed = followed(guests);
    let failover = cluster
        .wait_for("the guests to write on other nodes", PATIENCE, || {
            let failover = timeline::failover(&cluster.observer, &victim.name(), &followed, fault);
            let is_whole = failover.running().is_some() && failover.written().is_some();
            Ok(is_whole.then_some(failover))
        })
        .with_context(|| format!("since the fault:\n{}", timeline::tell(&cluster.observer, fault)))?;
    crate::say(&format!(
        "since the fault:\n{}",
        timeline::tell(&cluster.observer, fault)
    ));
    Ok(failover)
}

/// Each guest runs on a node that is not this one, and store, API and libvirt agree.
pub(crate) fn must_run_elsewhere(cluster: &Cluster, victim: &Node, guests: &[Guest]) -> Result<()> {
    for guest in guests {
        let owner = guest
            .owner(cluster)?
            .with_context(|| format!("nobody owns {}", guest.name))?;
        if owner.node.as_str() == victim.name() {
            bail!("{} is still {}'s", guest.name, victim.id());
        }
        let node = cluster.node(owner.node.as_str())?;
        guest.wait_agreed(cluster, &node, VmState::Start, guests::START)?;
    }
    Ok(())
}

/// The record of a node's fence.
pub(crate) fn fence(cluster: &Cluster, node: &Node) -> Result<Option<FenceRecord>> {
    let name = NodeName::new(node.name())?;
    Ok(cluster.store.require(&keys::fence(&name))?.value)
}

/// Waits until a fenced node is back: it runs, takes no guests, has no process of its old life, and its fence is closed.
pub(crate) fn wait_returned(cluster: &mut Cluster, node: &Node, guests: &[Guest]) -> Result<()> {
    let name = NodeName::new(node.name())?;
    let mut seen = String::new();
    cluster
        .wait_for(&format!("{name} to be back, flushed"), RETURNED, || {
            if node.power() == Power::Off {
                seen = "it is off".to_owned();
                return Ok(None);
            }
            let keys = keys::node(&name);
            let daemon = cluster.store.require(&keys.daemon_state())?.value;
            let domain = cluster.store.require(&keys.domain_state())?.value;
            let open = fence(cluster, node)?.is_some_and(|record| record.is_open());
            seen = format!("agent {daemon}, guests {domain}, fence open: {open}");
            let is_back = daemon == DaemonState::Run && domain == DomainState::Flushed && !open;
            Ok(is_back.then_some(()))
        })
        .with_context(|| seen.clone())?;
    cluster.listen(node)?;
    for guest in guests {
        let left = guest.processes(node)?;
        if !left.is_empty() {
            bail!("{name} came back and has processes {left:?} of {}", guest.name);
        }
    }
    Ok(())
}

/// Makes a fenced node take guests again.
pub(crate) fn make_ready(cluster: &Cluster, node: &Node) -> Result<()> {
    let name = NodeName::new(node.name())?;
    cluster.pvc(&["node", "ready", name.as_str()])?;
    cluster.wait_for(&format!("{name} to take guests"), PATIENCE, || {
        let state = cluster.store.require(&keys::node(&name).domain_state())?.value;
        Ok((state == DomainState::Ready).then_some(()))
    })
}

/// Reads the logs in all volumes that were written to since then, and wants no breach in them or elsewhere.
pub(crate) fn audit(cluster: &mut Cluster, since: Moment) -> Result<()> {
    cluster.observer.audit(Some(since))
}

/// Fails if any node was suspected, or worse, since that moment.
pub(crate) fn must_not_have_fenced(cluster: &Cluster, since: Moment) -> Result<()> {
    let fenced = cluster
        .observer
        .find(Some(since), |what| matches!(what, What::Fence { phase: Some(phase), .. } if phase != "done" && phase != "abandoned"));
    match fenced {
        None => Ok(()),
        Some(event) => bail!("a node was fenced: {:?}", event.what),
    }
}

/// Fails if any guest has lost its process since that moment.
pub(crate) fn must_not_have_stopped(cluster: &Cluster, guests: &[Guest], since: Moment) -> Result<()> {
    let ended = cluster.observer.find(Some(since), |what| {
        matches!(what, What::Ended { process } if guests.iter().any(|guest| guest.id == process.guest))
    });
    match ended {
        None => Ok(()),
        Some(event) => bail!("a guest was stopped: {:?}", event.what),
    }
}

/// Lets time pass in which something must not happen; looks at `check` all the while.
pub(crate) fn for_a_while(
    cluster: &Cluster,
    how_long: Duration,
    mut check: impl FnMut(&Cluster) -> Result<()>,
) -> Result<()> {
    let begun = Moment::now();
    cluster.wait_for("time to pass", how_long * 2, || {
        check(cluster)?;
        Ok((begun.elapsed() >= how_long).then_some(()))
    })
}
